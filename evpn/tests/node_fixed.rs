//! MACs that never move: our own static ones, and gateways'.

mod world;

use evpn::fabric::{KernelEvent, Link, LinkKind, Row};
use evpn::node::Event;
use evpn::types::{IfIndex, Mac, Seq, Span};
use std::net::{IpAddr, Ipv4Addr};
use world::{BRIDGE, P1, P2, VXLAN, World, mac, own_mac, vtep};

const MS: Span = Span::millis(1);

fn remote(i: usize) -> Row {
    Row::Remote { vxlan: VXLAN, vtep: vtep(i), sticky: true }
}

fn told(w: &World, i: usize, what: impl Fn(&Event) -> bool) -> usize {
    w.hosts[i].events.iter().filter(|(_, e)| what(e)).count()
}

/// Node 0 has `mac(1)` as sticky on `p1`.
fn world(n: usize, owners: usize) -> World {
    let mut w = World::with(n, MS, |c| {
        let own = (0..owners).any(|i| c.vtep == vtep(i));
        if own {
            c.vnis[0].mobility.sticky.insert(mac(1), "p1".into());
        }
    });
    w.run_for(Span::secs(10));
    w
}

fn port(w: &mut World, i: usize, p: IfIndex, name: &str, carrier: bool) {
    let kind = LinkKind::Other("veth".into());
    let link = Link {
        index: p,
        name: name.into(),
        mac: own_mac(i),
        mtu: 1450,
        up: true,
        carrier,
        master: Some(BRIDGE),
        kind,
        port: None,
    };
    w.kernel(i, KernelEvent::Link(link));
}

/// EVPN-MOB-17: known by its port, before the host has spoken; aged out, it is written again.
#[test]
fn a_static_mac_is_advertised_sticky_with_sequence_0_while_its_port_has_carrier() {
    let mut w = world(2, 1);
    assert_eq!(w.mac_row(1, mac(1)), Some(remote(0)));
    assert_eq!(w.hosts[0].fdb.get(&mac(1)), Some(&P1));
    let m = &w.macs(1)[0];
    assert_eq!((m.seq, m.sticky), (Seq(0), true));
    assert!(w.macs(0)[0].sticky);
    w.forget(0, mac(1));
    w.run_for(Span::millis(5));
    assert_eq!(w.hosts[0].fdb.get(&mac(1)), Some(&P1), "ageing does not concern it");
    assert_eq!(w.mac_row(1, mac(1)), Some(remote(0)));
    port(&mut w, 0, P1, "p1", false);
    w.run_for(Span::millis(5));
    assert_eq!(w.mac_row(1, mac(1)), None, "no carrier, no host");
    port(&mut w, 0, P1, "p1", true);
    w.run_for(Span::millis(5));
    assert_eq!(w.mac_row(1, mac(1)), Some(remote(0)));
    w.kernel(0, KernelEvent::LinkGone(P1));
    w.run_for(Span::millis(5));
    assert_eq!(w.mac_row(1, mac(1)), None);
}

/// EVPN-MOB-17: neither another port nor another VTEP gets it; both are told.
#[test]
fn a_static_mac_seen_elsewhere_stays_and_is_told() {
    let mut w = world(2, 1);
    w.frame(0, P2, mac(1), None);
    w.run_for(Span::millis(5));
    assert_eq!(w.hosts[0].fdb.get(&mac(1)), Some(&P1), "put back");
    assert_eq!(told(&w, 0, |e| matches!(e, Event::StickyMisplaced { .. })), 1);
    w.frame(1, P1, mac(1), None);
    w.run_for(Span::millis(5));
    assert_eq!(w.mac_row(1, mac(1)), Some(remote(0)));
    assert_eq!(w.hosts[1].fdb.get(&mac(1)), Some(&VXLAN));
    assert_eq!(told(&w, 1, |e| matches!(e, Event::StickyConflict { .. })), 1);
    assert_eq!(w.macs(0)[0].seq, Seq(0));
}

/// EVPN-MOB-18: a host that was there first as an ordinary one loses to the sticky claim, whatever its sequence.
#[test]
fn a_static_mac_takes_over_from_an_ordinary_one() {
    let mut w = World::with(2, MS, |c| {
        if c.vtep == vtep(1) {
            c.vnis[0].mobility.sticky.insert(mac(1), "p9".into());
        }
    });
    w.run_for(Span::secs(10));
    w.frame(0, P1, mac(1), None);
    w.run_for(Span::millis(5));
    port(&mut w, 1, IfIndex(19), "p9", true);
    w.run_for(Span::millis(5));
    assert_eq!(w.mac_row(0, mac(1)), Some(remote(1)));
    assert_eq!(w.hosts[1].fdb.get(&mac(1)), Some(&IfIndex(19)));
}

/// EVPN-MOB-18, EVPN-BEST-02
#[test]
fn of_two_sticky_origins_the_lower_vtep_has_it_and_all_are_told() {
    let mut w = world(3, 2);
    assert_eq!(w.mac_row(1, mac(1)), Some(remote(0)));
    assert_eq!(w.mac_row(2, mac(1)), Some(remote(0)));
    assert_eq!(w.mac_row(0, mac(1)), Some(Row::Local { vxlan: VXLAN, port: P1 }));
    for i in 0..2 {
        let twice = Event::StickyTwice { vni: world::vni(), mac: mac(1), owner: vtep(0), rival: vtep(1) };
        assert_eq!(told(&w, i, |e| *e == twice), 1, "node {i}: {:?}", w.hosts[i].events);
    }
    w.kernel(0, KernelEvent::LinkGone(P1));
    w.run_for(Span::millis(5));
    assert_eq!(w.mac_row(0, mac(1)), Some(remote(1)), "the other one takes it up");
    assert_eq!(w.mac_row(2, mac(1)), Some(remote(1)));
    assert_eq!(w.hosts[1].fdb.get(&mac(1)), Some(&P1));
}

/// EVPN-MOB-19
#[test]
fn a_gateways_mac_is_not_learned_from_an_access_port() {
    let gateway = Mac([0, 0, 0x5e, 0, 1, 1]);
    let mut w = World::with(2, MS, |c| {
        c.vnis[0].mobility.gateway_macs.insert(gateway);
    });
    w.run_for(Span::secs(10));
    for _ in 0..5 {
        w.frame(0, P1, gateway, None);
        w.forget(0, gateway);
        w.run_for(Span::millis(5));
    }
    assert_eq!(w.mac_row(1, gateway), None);
    assert!(w.macs(0).is_empty());
    assert_eq!(told(&w, 0, |e| matches!(e, Event::GatewaySeen { .. })), 1);
    assert_eq!(w.status(0).counters["gateway_macs_seen"], 5);
}

/// EVPN-MOB-17: an address is no way around; the host that claims it is refused.
#[test]
fn the_address_of_a_sticky_mac_is_not_taken_over_by_a_local_host() {
    let ip = Ipv4Addr::new(10, 1, 0, 1);
    let arp = |m: Mac| {
        let mut b = vec![0xff; 6];
        b.extend(m.0);
        b.extend([0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 1]);
        b.extend(m.0);
        b.extend(ip.octets());
        b.extend([0; 6]);
        b.extend(ip.octets());
        bytes::Bytes::from(b)
    };
    let mut w = world(2, 1);
    w.frame(0, P1, mac(1), Some(arp(mac(1))));
    w.run_for(Span::millis(5));
    w.frame(1, P1, mac(2), Some(arp(mac(2))));
    w.run_for(Span::millis(5));
    assert_eq!(w.neigh_row(1, IpAddr::V4(ip)), Some(Row::Neigh { mac: mac(1), router: false }));
    assert_eq!(told(&w, 1, |e| matches!(e, Event::AddressRefused { .. })), 1);
    assert!(w.macs(0).iter().all(|m| m.seq == Seq(0)));
}
