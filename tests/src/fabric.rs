//! VTEPs on an underlay, with ports that the tests send frames into.
//!
//! ```text
//!   spine ── u1 ─ VTEP 1 ─ br100 ─┬─ vx100
//!         ── u2 ─ VTEP 2 ...      └─ p1 ══ x1p1   (in the namespace of all guests)
//! ```
//!
//! A guest is a MAC address that speaks through the far end of a port (`x1p1`): its carrier never drops when it
//! "moves" to another port (PIT-21). Guests with a network stack of their own are [`Host`]s.

use crate::frame;
use crate::frr::Frr;
use crate::ns::Netns;
use crate::packet::Wire;
use crate::poll::{SOON, eventually};
use crate::vtepd::{Conf, Vtepd};
use evpn::types::Mac;
use serde_json::Value;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

/// The AS of all speakers unless a test says otherwise.
pub const ASN: u32 = 65000;

/// Underlay and VTEPs.
#[derive(Debug)]
pub struct Fabric {
    /// VTEPs, the first at index 0 with number 1.
    pub vteps: Vec<Vtep>,
    /// Joins the VTEPs' underlay interfaces.
    pub spine: Netns,
    /// Far ends of the access ports.
    pub guests: Netns,
}

/// A VTEP's namespace.
#[derive(Debug)]
pub struct Vtep {
    /// Namespace.
    pub ns: Netns,
    /// Underlay address.
    pub address: IpAddr,
    /// From 1.
    pub number: usize,
}

impl Fabric {
    /// `n` VTEPs on an IPv4 underlay (10.0.0.0/24), each with a port `p1`.
    pub fn new(n: usize) -> Self {
        Self::with(n, |i| IpAddr::V4(Ipv4Addr::new(10, 0, 0, i as u8)))
    }

    /// The same on an IPv6 underlay (fd00:f::/64).
    pub fn new_v6(n: usize) -> Self {
        Self::with(n, |i| IpAddr::V6(Ipv6Addr::new(0xfd00, 0xf, 0, 0, 0, 0, 0, i as u16)))
    }

    fn with(n: usize, address: impl Fn(usize) -> IpAddr) -> Self {
        let spine = Netns::new("spine");
        // The spine bridge joins nobody's broadcast domain but the underlay's.
        spine.sh("ip link add b0 type bridge mcast_snooping 0 && ip link set b0 up");
        let guests = Netns::new("guests");
        // The far ends say nothing by themselves.
        guests.sh(
            "echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6; echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6",
        );
        let mut vteps = Vec::new();
        for i in 1..=n {
            let ns = Netns::new(&format!("v{i}"));
            let a = address(i);
            let bits = if a.is_ipv4() { "24" } else { "64 nodad" };
            spine.sh(&format!(
                "ip link add u{i} type veth peer name u0 netns {} && ip link set u{i} master b0 up",
                ns.name()
            ));
            ns.sh(&format!("ip link set u0 up && ip addr add {a}/{bits} dev u0"));
            vteps.push(Vtep { ns, address: a, number: i });
        }
        let fabric = Self { vteps, spine, guests };
        for v in &fabric.vteps {
            v.add_port(&fabric.guests, "p1");
        }
        fabric
    }

    /// Underlay addresses of all VTEPs but this one.
    pub fn others(&self, v: &Vtep) -> Vec<IpAddr> {
        self.vteps.iter().filter(|o| o.number != v.number).map(|o| o.address).collect()
    }

    /// The far end of a VTEP's port.
    pub fn guest_port(&self, vtep: usize, port: &str) -> Wire {
        Wire::open(&self.guests, &format!("x{}{port}", self.vteps[vtep].number))
    }

    /// The same to send into only.
    pub fn guest_mouth(&self, vtep: usize, port: &str) -> Wire {
        Wire::deaf(&self.guests, &format!("x{}{port}", self.vteps[vtep].number))
    }

    /// Starts vtepd on a VTEP, full mesh.
    pub fn start_vtepd(&self, vtep: usize) -> Vtepd {
        let v = &self.vteps[vtep];
        Vtepd::start(&v.ns, &self.conf(vtep))
    }

    /// The configuration that [`Fabric::start_vtepd`] uses.
    pub fn conf(&self, vtep: usize) -> Conf {
        let v = &self.vteps[vtep];
        let mut conf = Conf::new(v.address, &self.others(v));
        // The underlay has 1500 (PIT-11).
        conf.vtep_extra = format!("mtu = {}", if v.address.is_ipv4() { 1450 } else { 1430 });
        if v.address.is_ipv6() {
            conf.router_id = Some(format!("10.0.0.{}", v.number));
        }
        conf
    }

    /// Makes the devices of VNI 100 and starts FRR on a VTEP, full mesh.
    pub fn start_frr(&self, vtep: usize) -> Frr {
        let v = &self.vteps[vtep];
        v.make_devices(100, &["p1"]);
        let neighbors: Vec<_> = self.others(v).into_iter().map(|a| (a, ASN)).collect();
        Frr::start(&v.ns, &frr_conf(ASN, v.number, &neighbors, ""))
    }

    /// A guest with a stack of its own behind a VTEP's new port.
    pub fn host(&self, vtep: usize, port: &str, mac: Mac, addresses: &[&str]) -> Host {
        let v = &self.vteps[vtep];
        let ns = Netns::new("host");
        v.ns.sh(&format!(
            "ip link add {port} type veth peer name eth0 netns {} && ip link set {port} up",
            ns.name()
        ));
        ns.sh(&format!("ip link set eth0 address {mac} mtu 1450 && ip link set eth0 up"));
        for a in addresses {
            let nodad = if a.contains(':') { " nodad" } else { "" };
            ns.sh(&format!("ip addr add {a} dev eth0{nodad}"));
        }
        Host { ns, mac }
    }
}

/// A guest with a network stack.
#[derive(Debug)]
pub struct Host {
    /// Its namespace; its interface is `eth0`.
    pub ns: Netns,
    /// Its MAC.
    pub mac: Mac,
}

impl Host {
    /// Pings once.
    pub fn try_ping(&self, ip: &str) -> Result<(), String> {
        self.ns.try_sh(&format!("ping -n -c 1 -W 1 {ip}")).map(drop)
    }
}

impl Vtep {
    /// Adds an access port; its far end is `x<number><port>` among the guests.
    pub fn add_port(&self, guests: &Netns, port: &str) {
        let far = format!("x{}{port}", self.number);
        self.ns.sh(&format!(
            "ip link add {port} type veth peer name {far} netns {} && ip link set {port} up",
            guests.name()
        ));
        guests.sh(&format!("ip link set {far} up arp off"));
    }

    /// An access port goes, as a tap does when its VM is shut down, and comes back empty. Ends when what is said at the
    /// far end is heard again: until the kernel has seen to the carrier, which may take a second, frames are lost.
    ///
    /// # Panics
    /// When it does not come back.
    pub fn pull_port(&self, guests: &Netns, port: &str) {
        self.ns.sh(&format!("ip link set {port} down && ip link set {port} up"));
        let far = Wire::open(guests, &format!("x{}{port}", self.number));
        let near = Wire::open(&self.ns, port);
        // Nobody's source: no bridge learns it, no daemon listens to it.
        let hello = frame::data(Mac::BROADCAST, Mac::ZERO, 0);
        eventually(SOON, "the port is heard again", || {
            far.send(&hello);
            let heard = near.find(Duration::from_millis(5), |f| frame::as_data(f, Mac::BROADCAST));
            heard.map(drop).ok_or("nothing")
        });
    }

    /// Makes bridge and VXLAN device of a VNI as FRR expects them, with these ports.
    pub fn make_devices(&self, vni: u32, ports: &[&str]) {
        let (a, b) = (self.number, vni & 0xff);
        let mut script = format!(
            "ip link add br{vni} type bridge mcast_snooping 0
             ip link set br{vni} address 02:bb:00:00:{b:02x}:{a:02x} addrgenmode none
             ip link add vx{vni} type vxlan id {vni} local {} dstport 4789 nolearning
             ip link set vx{vni} master br{vni} mtu 1450 addrgenmode none
             bridge link set dev vx{vni} learning off neigh_suppress on
             ip link set br{vni} up
             ip link set vx{vni} up\n",
            self.address
        );
        for p in ports {
            let _ = writeln!(script, "ip link set {p} master br{vni}");
        }
        self.ns.sh(&script);
    }

    /// The bridge row of a MAC as `bridge` prints it, or `Null`.
    pub fn bridge_row(&self, vni: u32, mac: Mac) -> Value {
        self.rows(&format!("bridge -j fdb show br br{vni}"), mac, |r| r["master"].is_string())
    }

    /// The VXLAN device's own row of a MAC, or `Null`.
    pub fn vxlan_row(&self, vni: u32, mac: Mac) -> Value {
        self.rows(&format!("bridge -j fdb show dev vx{vni}"), mac, |r| r["dst"].is_string())
    }

    fn rows(&self, command: &str, mac: Mac, pick: impl Fn(&Value) -> bool) -> Value {
        let mac = mac.to_string();
        let all = self.ns.json(command);
        let hit = all.as_array().and_then(|a| a.iter().find(|r| r["mac"] == mac.as_str() && pick(r)));
        hit.cloned().unwrap_or(Value::Null)
    }

    /// Destinations of the flood rows, in order.
    pub fn flood_list(&self, vni: u32) -> Vec<String> {
        let all = self.ns.json(&format!("bridge -j fdb show dev vx{vni}"));
        let mut out: Vec<_> = all
            .as_array()
            .into_iter()
            .flatten()
            .filter(|r| r["mac"] == "00:00:00:00:00:00")
            .filter_map(|r| r["dst"].as_str().map(str::to_owned))
            .collect();
        out.sort();
        out
    }

    /// The neighbour row of an IP on the bridge, or `Null`.
    pub fn neigh_row(&self, vni: u32, ip: IpAddr) -> Value {
        let family = if ip.is_ipv4() { "-4" } else { "-6" };
        let all = self.ns.json(&format!("ip -j {family} neigh show to {ip} dev br{vni} nud all"));
        all.get(0).cloned().unwrap_or(Value::Null)
    }

    /// Where the kernel sends frames for a MAC.
    pub fn place(&self, vni: u32, mac: Mac) -> Place {
        let row = self.bridge_row(vni, mac);
        match row["ifname"].as_str() {
            None => Place::Nowhere,
            Some(d) if d == format!("vx{vni}") => match self.vxlan_row(vni, mac)["dst"].as_str() {
                Some(v) => Place::Vtep(v.to_owned()),
                None => Place::Broken,
            },
            Some(p) => Place::Port(p.to_owned()),
        }
    }

    /// `Ok` when the kernel sends frames for a MAC there; otherwise where it does.
    pub fn sends_to(&self, vni: u32, mac: Mac, place: &Place) -> Result<(), Place> {
        let got = self.place(vni, mac);
        if got == *place { Ok(()) } else { Err(got) }
    }
}

/// Where a kernel sends frames for a MAC.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Place {
    /// To an access port.
    Port(String),
    /// To a VTEP.
    Vtep(String),
    /// To the VXLAN device, which has no row for it.
    Broken,
    /// It does not know: flooded.
    Nowhere,
}

impl Place {
    /// Port by name.
    pub fn port(p: &str) -> Self {
        Self::Port(p.into())
    }
    /// VTEP.
    pub fn vtep(v: &Vtep) -> Self {
        Self::Vtep(v.address.to_string())
    }
}

/// A bgpd configuration: EVPN only, all VNIs advertised.
pub fn frr_conf(asn: u32, number: usize, neighbors: &[(IpAddr, u32)], extra_family: &str) -> String {
    let mut c = format!(
        "router bgp {asn}\n bgp router-id 10.0.0.{number}\n no bgp default ipv4-unicast\n \
         no bgp ebgp-requires-policy\n"
    );
    for (a, remote) in neighbors {
        let _ = writeln!(c, " neighbor {a} remote-as {remote}\n neighbor {a} timers connect 1");
    }
    c += " address-family l2vpn evpn\n";
    for (a, _) in neighbors {
        let _ = writeln!(c, "  neighbor {a} activate");
    }
    let _ = writeln!(c, "  advertise-all-vni\n{extra_family} exit-address-family");
    c
}

/// A locally administered MAC for tests: `02:00:00:00:xx:yy`.
pub fn test_mac(n: u16) -> Mac {
    let [a, b] = n.to_be_bytes();
    Mac([2, 0, 0, 0, a, b])
}

/// A guest that is nothing but its frames.
#[derive(Clone, Copy, Debug)]
pub struct Guest {
    /// MAC.
    pub mac: Mac,
    /// IPv4 address.
    pub ip: Ipv4Addr,
}

impl Guest {
    /// Number `n` of VNI 100: 192.168.100.n.
    pub fn new(n: u8) -> Self {
        Self { mac: test_mac(u16::from(n)), ip: Ipv4Addr::new(192, 168, 100, n) }
    }

    /// Its RARP.
    pub fn rarp(&self) -> Vec<u8> {
        frame::rarp(self.mac)
    }

    /// Its gratuitous ARP.
    pub fn garp(&self) -> Vec<u8> {
        frame::garp(self.mac, self.ip)
    }
}
