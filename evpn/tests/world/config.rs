//! Names, addresses and devices of the nodes.

use evpn::fabric::{BridgeFdb, Link, LinkKind, PortFlags};
use evpn::node::{
    ArpConfig, Config, Flooding, MobilityConfig, NeighborConfig, Targets, VniConfig, VniHosts, VniMobility,
};
use evpn::types::{Asn, IfIndex, Mac, Span, Vni};
use std::net::{IpAddr, Ipv4Addr};

pub const BRIDGE: IfIndex = IfIndex(1);
pub const VXLAN: IfIndex = IfIndex(2);
pub const P1: IfIndex = IfIndex(11);
pub const P2: IfIndex = IfIndex(12);

pub fn vni() -> Vni {
    Vni::new(100).expect("valid")
}

pub fn vtep(i: usize) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 255, 0, i as u8 + 1))
}

pub fn mac(n: u8) -> Mac {
    Mac([0x52, 0x54, 0, 0, 0, n])
}

/// Address of a node's own devices.
pub fn own_mac(i: usize) -> Mac {
    Mac([2, 0, 0, 0, 1, i as u8])
}

/// Source of a node's probes.
pub fn probe_mac(i: usize) -> Mac {
    evpn::node::probe_mac(vtep(i), vni())
}

pub fn config(i: usize, n: usize) -> Config {
    let own = Ipv4Addr::new(10, 255, 0, i as u8 + 1);
    Config {
        vtep: vtep(i),
        asn: Asn(65000),
        router_id: own,
        cluster_id: own,
        udp_port: 4789,
        bgp_port: 179,
        listen: None,
        neighbors: (0..n)
            .filter(|j| *j != i)
            .map(|j| NeighborConfig {
                local_address: Some(vtep(i)),
                connect_retry: Span::secs(5),
                ..NeighborConfig::new(vtep(j), Asn(65000).into())
            })
            .collect(),
        neighbor_ranges: vec![],
        vnis: vec![VniConfig {
            vni: vni(),
            bridge: "br100".into(),
            vxlan: "vx100".into(),
            ports: vec![],
            import: Targets::Auto,
            export: Targets::Auto,
            flooding: Flooding::Replicate,
            arp_suppression: true,
            mtu: Some(1450),
            bridge_mac: own_mac(i),
            mobility: VniMobility::default(),
            hosts: VniHosts::new(probe_mac(i)),
        }],
        restart_time: Span::secs(120),
        selection_deferral: Span::secs(60),
        mobility: MobilityConfig::default(),
        // What follows when a claim counts is most tests' business; how it is checked is `node_takeover`'s.
        arp: ArpConfig { claim_time: Span(0), ..ArpConfig::default() },
    }
}

pub(super) fn link(index: IfIndex, name: &str, kind: LinkKind, master: Option<IfIndex>, mac: Mac) -> Link {
    let port =
        master.map(|_| PortFlags { learning: true, flood: true, forwarding: true, ..PortFlags::default() });
    Link { index, name: name.into(), mac, mtu: 1450, up: true, carrier: true, master, kind, port }
}

pub fn bridge_row(mac: Mac, port: IfIndex, ext_learned: bool) -> BridgeFdb {
    BridgeFdb {
        bridge: BRIDGE,
        port,
        mac,
        vlan: 0,
        ext_learned,
        sticky: false,
        is_static: false,
        permanent: false,
    }
}
