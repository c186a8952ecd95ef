//! `vtepd check --host`: what on this machine would keep VMs from talking, each with the way out (PIT-09).

use super::firewall;
use super::links::Installer;
use super::mtu::{overhead, underlay_mtu};
use super::nl::{Many, NLM_F_ACK, NLM_F_REQUEST, Out, ask, request_socket};
use crate::setup::DeviceProblem;
use evpn::fabric::DeviceWant;
use serde::Serialize;
use std::net::IpAddr;

/// How bad.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// It works, but less well or less safely.
    Warning,
    /// It does not work.
    Error,
}

/// One finding.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Finding {
    /// Stable name, such as `br-netfilter`.
    pub id: &'static str,
    /// How bad.
    pub severity: Severity,
    /// What is so.
    pub what: String,
    /// Why it matters.
    pub why: String,
    /// What to do about it.
    pub way_out: String,
}

impl Finding {
    fn new(id: &'static str, severity: Severity, what: String, why: &str, way_out: String) -> Self {
        Self { id, severity, what, why: why.to_owned(), way_out }
    }
}

/// Looks at the host as it is for these devices; `peers` are VTEPs to check the path MTU to. Changes nothing.
pub fn run(devices: &[DeviceWant], peers: &[IpAddr]) -> Vec<Finding> {
    judge(&Facts::read(devices, peers))
}

/// A VNI whose frames may not fit the underlay.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct MtuFact {
    /// For people.
    pub vni: u32,
    /// MTU inside.
    pub inner: u32,
    /// The peer.
    pub peer: IpAddr,
    /// Path MTU to it.
    pub path: u32,
}

/// What was seen. Apart from the judgement, so that each finding has a test.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Facts {
    /// `bridge-nf-call-iptables` or `-ip6tables` or `-arptables` is on.
    pub bridge_nf_call: bool,
    /// Names of nftables base chains on the forward hook whose policy is drop.
    pub forward_drop: Vec<String>,
    /// A bridge is to be a gateway, so that the host forwards for its guests.
    pub gateways: bool,
    /// iptables-legacy has a filter table, whose policy is not readable here.
    pub legacy_filter: bool,
    /// Chains with rules about ARP or RARP on bridged frames, as `family table chain`.
    pub arp_filters: Vec<String>,
    /// ebtables-legacy has tables, whose rules are not readable here.
    pub ebtables: bool,
    /// Devices with strict reverse path filtering.
    pub strict_rp_filter: Vec<String>,
    /// VNIs against paths.
    pub mtu: Vec<MtuFact>,
    /// Peers without a route, with the error.
    pub unreachable: Vec<(IpAddr, String)>,
    /// What device set-up would complain about.
    pub devices: Vec<DeviceProblem>,
    /// Link kinds that the kernel does not know: `bridge`, `vxlan`.
    pub missing_kinds: Vec<&'static str>,
    /// No packet sockets.
    pub no_packet_socket: bool,
    /// No nftables (needed for the VXLAN source filter only).
    pub no_nftables: bool,
}

impl Facts {
    /// Reads them from the namespace of the calling thread. What may not be read (no privileges) counts as fine.
    pub fn read(devices: &[DeviceWant], peers: &[IpAddr]) -> Self {
        let mut f = Self { gateways: devices.iter().any(|w| w.gateway.is_some()), ..Self::default() };
        let on = |path: &str| std::fs::read_to_string(path).is_ok_and(|t| t.trim() == "1");
        f.bridge_nf_call = ["iptables", "ip6tables", "arptables"]
            .iter()
            .any(|t| on(&format!("/proc/sys/net/bridge/bridge-nf-call-{t}")));
        match firewall::forward_drop_chains() {
            Ok(chains) => f.forward_drop = chains,
            Err(e) => f.no_nftables = missing(e.errno),
        }
        f.arp_filters = firewall::arp_filters().unwrap_or_default();
        f.ebtables = std::fs::read_to_string("/proc/modules").is_ok_and(|t| {
            t.lines().any(|l| l.starts_with("ebtable_filter ") || l.starts_with("ebtable_nat "))
        });
        f.legacy_filter = std::fs::read_to_string("/proc/net/ip_tables_names")
            .is_ok_and(|t| t.lines().any(|l| l == "filter"));
        f.strict_rp_filter = strict_rp_filter(devices);
        for w in devices {
            for peer in peers.iter().filter(|p| p.is_ipv4() == w.local.is_ipv4()) {
                let inner = w.mtu.or_else(|| device_mtu(&w.vxlan)).unwrap_or(1500);
                match underlay_mtu(w.local, *peer) {
                    Ok(path) => f.mtu.push(MtuFact { vni: w.vni.get(), inner, peer: *peer, path }),
                    Err(e) if f.unreachable.iter().all(|(p, _)| p != peer) => {
                        f.unreachable.push((*peer, e.to_string()));
                    }
                    Err(_) => {}
                }
            }
        }
        let mut installer = Installer::new();
        // What differs on devices of ours is put right at start.
        let looked = installer.recognize(devices).and_then(|()| installer.look(devices));
        f.devices = looked.map(|(_, problems)| problems).unwrap_or_default();
        f.missing_kinds = ["bridge", "vxlan"].into_iter().filter(|k| kind_missing(k)).collect();
        let packet =
            rustix::net::socket(rustix::net::AddressFamily::PACKET, rustix::net::SocketType::RAW, None);
        f.no_packet_socket = packet.is_err_and(|e| missing(e.raw_os_error()));
        f
    }
}

/// Errors of a kernel that was built without.
fn missing(errno: i32) -> bool {
    matches!(errno, libc::EOPNOTSUPP | libc::EAFNOSUPPORT | libc::EPROTONOSUPPORT)
}

/// What follows from the facts.
pub fn judge(f: &Facts) -> Vec<Finding> {
    let mut out = Vec::new();
    for kind in &f.missing_kinds {
        out.push(Finding::new(
            "kernel-feature",
            Severity::Error,
            format!("the kernel knows no {kind} devices"),
            "forwarding is the kernel's work",
            format!(
                "load the module (`modprobe {kind}`) or use a kernel with CONFIG_{}",
                kind.to_uppercase()
            ),
        ));
    }
    if f.no_packet_socket {
        out.push(Finding::new(
            "kernel-feature",
            Severity::Error,
            "the kernel has no packet sockets".into(),
            "ARP, RARP and ND of guests are heard with them",
            "load the module (`modprobe af_packet`) or use a kernel with CONFIG_PACKET".into(),
        ));
    }
    if f.no_nftables {
        out.push(Finding::new(
            "kernel-feature",
            Severity::Warning,
            "the kernel has no nftables".into(),
            "without it VXLAN from strangers cannot be dropped",
            "load the module (`modprobe nf_tables`), or switch the source filter off in the configuration"
                .into(),
        ));
    }
    bridge_netfilter(f, &mut out);
    routed(f, &mut out);
    arp_filters(f, &mut out);
    if !f.strict_rp_filter.is_empty() {
        out.push(Finding::new(
            "rp-filter",
            Severity::Warning,
            format!("strict reverse path filtering on {}", f.strict_rp_filter.join(", ")),
            "with several uplinks, VXLAN that comes in by another one than the route back is dropped silently",
            "`sysctl net.ipv4.conf.all.rp_filter=2` (loose), and the same for the devices named".into(),
        ));
    }
    for (peer, why) in &f.unreachable {
        out.push(Finding::new(
            "no-route",
            Severity::Error,
            format!("{peer} cannot be reached: {why}"),
            "VXLAN and BGP go there",
            "add a route, or correct the address".into(),
        ));
    }
    for m in &f.mtu {
        let need = m.inner + overhead(m.peer);
        if m.path < need {
            let fits = m.path.saturating_sub(overhead(m.peer));
            out.push(Finding::new(
                "mtu",
                Severity::Error,
                format!(
                    "VNI {} carries {} octets, which is {need} encapsulated; the path to {} takes {}",
                    m.vni, m.inner, m.peer, m.path
                ),
                "large frames are dropped or fragmented while small ones pass, so connections open and then hang",
                format!("raise the underlay's MTU to {need}, or set `mtu = {fits}` for the VNI and in its guests"),
            ));
        }
    }
    out.extend(f.devices.iter().map(|p| {
        let severity = if p.fatal { Severity::Error } else { Severity::Warning };
        let (what, way_out) = p.problem.split_once("; ").unwrap_or((&p.problem, "see the operating guide"));
        let what = format!("{}: {what}", p.device);
        Finding::new(p.id, severity, what, why(p.id), way_out.to_owned())
    }));
    out
}

/// Why a device problem matters, by its id.
fn why(id: &str) -> &'static str {
    match id {
        "snooping" => "with a querier around, a moved guest's groups are unknown at its new port (PIT-08)",
        "floating-mac" => "plugging in a guest can end ARP/ND suppression for the whole VNI (PIT-01)",
        "disable-ipv6" => "the kernel refuses ND rows on such a bridge (PIT-02)",
        "accept-ra" | "own-address" | "answers-arp" => {
            "the bridge must not be a host in a tenant's network (PIT-02)"
        }
        "fdb-limit" => {
            "each made-up MAC costs memory, a notification and, when it ages out, another one; known MACs move whatever the limit"
        }
        "gateway-mac" | "gateway-address" => {
            "guests do not reach their first hop at this VTEP (RFC 9135 §4.1)"
        }
        "ipv6-forwarding" => "the gateway answers over IPv6 and routes nothing",
        "mtu" => "frames that fit one device and not the next are dropped silently (PIT-11)",
        "learning" => "data-plane learning and BGP would write the same rows",
        _ => "the VNI cannot be set up as configured",
    }
}

fn bridge_netfilter(f: &Facts, out: &mut Vec<Finding>) {
    if !f.bridge_nf_call {
        return;
    }
    const WAY_OUT: &str = "`sysctl net.bridge.bridge-nf-call-iptables=0 net.bridge.bridge-nf-call-ip6tables=0 \
                           net.bridge.bridge-nf-call-arptables=0`, or accept bridged traffic in the FORWARD chain";
    let (severity, what) = if !f.forward_drop.is_empty() {
        let chains = f.forward_drop.join(", ");
        (Severity::Error, format!("bridged frames go through the firewall, and {chains} drops by default"))
    } else if f.legacy_filter {
        let hint = "look at `iptables-legacy -S FORWARD`";
        (
            Severity::Warning,
            format!("bridged frames go through the firewall, iptables-legacy's included; {hint}"),
        )
    } else {
        (Severity::Warning, "bridged frames go through the firewall".to_owned())
    };
    let why = "a host firewall that drops forwarded packets (docker's default) then drops the VMs' traffic";
    out.push(Finding::new("br-netfilter", severity, what, why, WAY_OUT.to_owned()));
}

/// What a gateway routes goes through the firewall, whatever is set for bridged frames.
fn routed(f: &Facts, out: &mut Vec<Finding>) {
    if !f.gateways || f.forward_drop.is_empty() {
        return;
    }
    out.push(Finding::new(
        "gateway-forward",
        Severity::Warning,
        format!("packets between subnets go through the firewall, and {} drops by default", f.forward_drop.join(", ")),
        "a VNI here has a `gateway`, and what it routes is dropped unless a rule accepts it (docker's default)",
        "accept what comes in by the VNI's bridge in the FORWARD chain (with docker: `iptables -I DOCKER-USER -i br100 -j ACCEPT`)".into(),
    ));
}

/// PIT-07: libvirt's nwfilter and other anti-spoofing rules.
fn arp_filters(f: &Facts, out: &mut Vec<Finding>) {
    let what = if !f.arp_filters.is_empty() {
        format!("ARP or RARP of guests is filtered in {}", f.arp_filters.join(", "))
    } else if f.ebtables {
        "ebtables has rules that may filter ARP or RARP of guests; look at `ebtables-legacy -L`".to_owned()
    } else {
        return;
    };
    let why = "a guest counts as moved only when the bridge has learned it, so an announcement that is dropped \
               moves nothing, and the move waits for the guest's next frame (PIT-07)";
    let way_out = "let ARP and RARP with the guest's own MAC pass; against spoofing, name the addresses of each port in \
                   `allowed` of the VNI";
    out.push(Finding::new("arp-filter", Severity::Warning, what, why, way_out.to_owned()));
}

fn device_mtu(name: &str) -> Option<u32> {
    let links = super::dump::Reader::open().ok()?.links().ok()?;
    links.iter().find(|l| l.name == name).map(|l| l.mtu)
}

/// Devices that could be uplinks and filter strictly. The effective value is the larger of `all` and the
/// device's own.
fn strict_rp_filter(devices: &[DeviceWant]) -> Vec<String> {
    if devices.iter().all(|d| d.local.is_ipv6()) {
        return Vec::new();
    }
    let value = |dev: &str| -> u8 {
        let text = std::fs::read_to_string(format!("/proc/sys/net/ipv4/conf/{dev}/rp_filter"));
        text.ok().and_then(|t| t.trim().parse().ok()).unwrap_or(0)
    };
    let Some(links) = super::dump::Reader::open().ok().and_then(|mut r| r.links().ok()) else {
        return Vec::new();
    };
    let ours = |name: &str| {
        devices.iter().any(|d| d.bridge == name || d.vxlan == name || d.ports.iter().any(|p| p.name == name))
    };
    let all = value("all");
    links
        .iter()
        .filter(|l| l.up && l.master.is_none() && l.name != "lo" && !ours(&l.name))
        .filter(|l| value(&l.name).max(all) == 1)
        .map(|l| l.name.clone())
        .collect()
}

/// Asks for a device that cannot be made, and sees whether the kernel minds the kind or the rest.
fn kind_missing(kind: &str) -> bool {
    const RTM_NEWLINK: u16 = 16;
    const IFLA_ADDRESS: u16 = 1;
    const IFLA_IFNAME: u16 = 3;
    const IFLA_LINKINFO: u16 = 18;
    const IFLA_INFO_KIND: u16 = 1;
    const NLM_F_CREATE_EXCL: u16 = 0x600;
    let Ok(socket) = request_socket() else { return false };
    let mut info = Out::default();
    info.attr(IFLA_INFO_KIND, kind.as_bytes());
    let mut out = Out::default();
    out.begin(RTM_NEWLINK, NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE_EXCL, 1);
    out.bytes(&[0; 16]);
    out.attr(IFLA_IFNAME, b"vtepd-probe\0");
    // A group address: refused by every kind of Ethernet device. A VXLAN device lacks its VNI besides.
    out.attr(IFLA_ADDRESS, &[1, 0, 0, 0, 0, 0]);
    out.attr(IFLA_LINKINFO, &info.v);
    out.end();
    ask(&socket, &out.v, 1, &mut Many::new(1, 4096), |_| {}).is_err_and(|e| e.errno == libc::EOPNOTSUPP)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(f: &Facts) -> Vec<(&'static str, Severity)> {
        judge(f).iter().map(|f| (f.id, f.severity)).collect()
    }

    #[test]
    fn a_host_without_peculiarities_has_no_finding() {
        assert_eq!(ids(&Facts::default()), []);
    }

    #[test]
    fn bridge_netfilter_is_an_error_only_where_forwarding_drops() {
        let quiet = Facts { forward_drop: vec!["ip filter FORWARD".into()], ..Facts::default() };
        assert_eq!(ids(&quiet), []);
        let on = Facts { bridge_nf_call: true, ..Facts::default() };
        assert_eq!(ids(&on), [("br-netfilter", Severity::Warning)]);
        let both = Facts { bridge_nf_call: true, ..quiet };
        assert_eq!(ids(&both), [("br-netfilter", Severity::Error)]);
        assert!(judge(&both)[0].way_out.contains("bridge-nf-call-iptables=0"));
    }

    #[test]
    fn a_firewall_that_drops_what_a_gateway_routes_is_named() {
        let drops = Facts { forward_drop: vec!["ip filter FORWARD".into()], ..Facts::default() };
        let routes = Facts { gateways: true, ..drops };
        assert_eq!(ids(&routes), [("gateway-forward", Severity::Warning)]);
        assert!(judge(&routes)[0].what.contains("ip filter FORWARD"));
        assert_eq!(ids(&Facts { gateways: true, ..Facts::default() }), []);
    }

    #[test]
    fn rules_about_arp_are_named_and_ebtables_is_pointed_at() {
        let f = Facts { arp_filters: vec!["bridge guard in".into()], ebtables: true, ..Facts::default() };
        let found = judge(&f);
        assert!(found.len() == 1 && found[0].what.contains("bridge guard in"), "{found:?}");
        let f = Facts { ebtables: true, ..Facts::default() };
        assert_eq!(ids(&f), [("arp-filter", Severity::Warning)]);
    }

    #[test]
    fn an_underlay_that_is_too_small_is_named_with_both_ways_out() {
        let fact =
            |path, peer: &str| MtuFact { vni: 100, inner: 1450, peer: peer.parse().expect("an IP"), path };
        let f = Facts { mtu: vec![fact(1500, "10.0.0.2")], ..Facts::default() };
        assert_eq!(ids(&f), []);
        let f = Facts { mtu: vec![fact(1499, "10.0.0.2"), fact(1500, "2001:db8::2")], ..Facts::default() };
        assert_eq!(ids(&f), [("mtu", Severity::Error), ("mtu", Severity::Error)]);
        let found = judge(&f);
        assert!(found[0].way_out.contains("1500") && found[0].way_out.contains("mtu = 1449"), "{found:?}");
        assert!(found[1].way_out.contains("1520"), "{found:?}");
    }

    #[test]
    fn what_the_kernel_lacks_is_named_with_the_module() {
        let f = Facts {
            missing_kinds: vec!["vxlan"],
            no_packet_socket: true,
            no_nftables: true,
            ..Facts::default()
        };
        assert_eq!(ids(&f).len(), 3);
        assert!(judge(&f).iter().all(|f| f.id == "kernel-feature" && f.way_out.contains("modprobe")));
    }
}
