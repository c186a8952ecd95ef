//! `[[vni]]`.

use super::vtep::{MTU, Vtep, choice};
use super::walk::{At, Collector, Place, Section, kind};
use super::{PortAt, arp, fixed, gateway, mobility, names, static_hosts, targets};
use evpn::node::{Flooding, Targets, VniConfig, VniHosts, VniMobility};
use evpn::types::Vni;
use std::collections::BTreeMap;

const KEYS: &[&str] = &[
    "vni",
    "ports",
    "late-ports",
    "bridge",
    "vxlan",
    "flooding",
    "arp-suppression",
    "mtu",
    "route-targets",
    "sticky",
    "gateway",
    "gateway-macs",
    "allowed",
];

/// What a device name is already used for.
struct Use {
    place: Place,
    role: &'static str,
    vni: String,
}

/// The VNIs, and the ports that must be there at start.
pub(super) fn vnis(root: &Section<'_>, vtep: &Vtep, c: &mut Collector) -> (Vec<VniConfig>, Vec<PortAt>) {
    let mut numbers = BTreeMap::new();
    let mut devices = BTreeMap::new();
    let mut at_start = Vec::new();
    let mut out = Vec::new();
    let keys: Vec<&str> = KEYS.iter().copied().chain(mobility::VNI_KEYS).chain(arp::VNI_KEYS).collect();
    for s in root.sections("vni", &keys, c) {
        out.extend(vni(&s, vtep, &mut numbers, &mut devices, &mut at_start, c));
    }
    (out, at_start)
}

fn vni(
    s: &Section<'_>,
    vtep: &Vtep,
    numbers: &mut BTreeMap<Vni, Place>,
    devices: &mut BTreeMap<String, Use>,
    at_start: &mut Vec<PortAt>,
    c: &mut Collector,
) -> Option<VniConfig> {
    let vni = number(s, numbers, c);
    let shown = vni.as_ref().map_or_else(|| "a VNI with an error".to_owned(), |v| format!("VNI {}", v.value));
    let of = |place: Place, role| Use { place, role, vni: shown.clone() };
    let mut device = |key: &str, role: &'static str, prefix: &str, c: &mut Collector| {
        let (name, place) = if let Some(At { value, place }) = s.text(key, c) {
            (value.to_owned(), place)
        } else {
            let v = vni.as_ref()?;
            (format!("{prefix}{}", v.value), v.place.clone())
        };
        claim(s, key, &name, of(place, role), devices, c).then_some(name)
    };
    let bridge = device("bridge", "bridge", "br", c);
    let vxlan = device("vxlan", "VXLAN device", "vx", c);
    let late_ports = s.boolean("late-ports", c).unwrap_or(false);
    let mut ports = Vec::new();
    for At { value, place } in s.texts("ports", c).unwrap_or_default() {
        if claim(s, "ports", value, of(place.clone(), "port"), devices, c) {
            ports.push(value.to_owned());
            if !late_ports {
                at_start.push(PortAt { name: value.to_owned(), place });
            }
        }
    }
    let (import, export) = route_targets(s, vtep, c);
    let flooding = match choice(s, "flooding", &["replicate", "none"], c) {
        Some("none") => Flooding::None,
        _ => Flooding::Replicate,
    };
    let wish = s.boolean("arp-suppression", c).unwrap_or(true);
    let mtu = s.integer("mtu", MTU, c).map(|n| n.value as u32).or(vtep.mtu);
    let (sticky, gateway_macs) = fixed::fixed(s, c);
    let allowed = fixed::allowed(s, c);
    let mobility = mobility::of_vni(s, vtep, c);
    let hosts = arp::of_vni(s, flooding, c);
    let arp_suppression = wish && !hosts.tagged;
    let gateway = gateway::gateway(s, vtep.address, &sticky, arp_suppression, c);
    static_hosts::not_the_gateway(s, &hosts.static_hosts, gateway.as_ref(), c);
    let vni = vni?.value;
    Some(VniConfig {
        vni,
        bridge: bridge?,
        vxlan: vxlan?,
        ports,
        import,
        export,
        flooding,
        arp_suppression,
        mtu,
        bridge_mac: names::bridge_mac(vtep.address?, vni),
        mobility: VniMobility { sticky, gateway_macs, allowed, ..mobility },
        hosts: VniHosts { probe_mac: evpn::node::probe_mac(vtep.address?, vni), gateway, ..hosts },
    })
}

fn number(s: &Section<'_>, numbers: &mut BTreeMap<Vni, Place>, c: &mut Collector) -> Option<At<Vni>> {
    if s.get("vni").is_none() {
        s.missing("vni", "the number of the VXLAN segment, such as `vni = 100`", c);
        return None;
    }
    // 24 bits, and 0 is not usable (RFC 7348 §5).
    let At { value, place } = s.integer("vni", 1..=0x00ff_ffff, c)?;
    let vni = Vni::new(value as u32)?;
    if let Some(first) = numbers.get(&vni) {
        c.push(
            s.problem("vni", place, format!("VNI {vni} used twice"))
                .label("used again here")
                .also(first.clone(), "first used here")
                .help("each VNI is one segment; pick another number or merge the two sections"),
        );
        return None;
    }
    numbers.insert(vni, place.clone());
    Some(At { value: vni, place })
}

/// Takes a device name for one purpose. Returns whether it is usable.
fn claim(
    s: &Section<'_>,
    key: &str,
    name: &str,
    r#use: Use,
    devices: &mut BTreeMap<String, Use>,
    c: &mut Collector,
) -> bool {
    if let Err(what) = names::device(name) {
        c.push(s.problem(key, r#use.place, what));
        return false;
    }
    if let Some(first) = devices.get(name) {
        let what = if first.role == "port" && r#use.role == "port" && first.vni != r#use.vni {
            format!("port `{name}` is in two VNIs")
        } else {
            format!("device `{name}` used twice")
        };
        c.push(
            s.problem(key, r#use.place, what)
                .label(format!("as {} of {}", r#use.role, r#use.vni))
                .also(first.place.clone(), format!("as {} of {}", first.role, first.vni))
                .help("a device belongs to one VNI and has one role"),
        );
        return false;
    }
    devices.insert(name.to_owned(), r#use);
    true
}

fn route_targets(s: &Section<'_>, vtep: &Vtep, c: &mut Collector) -> (Targets, Targets) {
    if let Some((v, place)) = s.get("route-targets")
        && v.as_table().is_none()
    {
        let what = format!("expected a table, found {}", kind(v));
        let help =
            "write `route-targets = { import = [\"65000:100\"], export = [\"65000:100\"] }`, or leave it out";
        c.push(s.problem("route-targets", place, what).help(help));
        return (Targets::Auto, Targets::Auto);
    }
    let t = s.section("route-targets", &["import", "export"], c);
    (direction(&t, "import", vtep, c), direction(&t, "export", vtep, c))
}

fn direction(t: &Section<'_>, key: &str, vtep: &Vtep, c: &mut Collector) -> Targets {
    let Some((v, place)) = t.get(key) else { return Targets::Auto };
    if let Some(word) = v.as_str() {
        return match word {
            "auto" => Targets::Auto,
            "auto-rfc8365" => {
                // EVPN-VXLAN-09: the form has room for a two-octet AS only.
                if let Some(asn) = vtep.asn
                    && asn.0 > 65535
                {
                    c.push(
                        t.problem(key, place, format!("\"auto-rfc8365\" is not defined for AS {asn}"))
                            .label("needs a two-octet AS number")
                            .also(vtep.asn_at.clone(), "four-octet AS number")
                            .help("list the route targets, or use \"auto\" (RFC 8365 §5.1.2.1)"),
                    );
                }
                Targets::AutoRfc8365
            }
            _ => {
                let what = "must be \"auto\", \"auto-rfc8365\" or a list of route targets";
                let p = t.problem(key, place, what);
                c.push(if targets::parse(word).is_ok() {
                    p.help(format!("put it in brackets: [\"{word}\"]"))
                } else {
                    p
                });
                Targets::Auto
            }
        };
    }
    let mut list = Vec::new();
    for At { value, place } in t.texts(key, c).unwrap_or_default() {
        match targets::parse(value) {
            Ok(rt) if list.contains(&rt) => {
                c.push(t.problem(key, place, format!("route target {value} given twice")));
            }
            Ok(rt) => list.push(rt),
            Err(what) => c.push(t.problem(key, place, what)),
        }
    }
    if v.as_array().is_some_and(|a| a.iter().count() == 0) {
        let help = "leave the key out for automatic route targets";
        c.push(t.problem(key, place, "an empty list would cut this VNI off").help(help));
    }
    Targets::List(list)
}
