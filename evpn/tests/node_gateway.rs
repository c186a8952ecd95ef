//! The first hop of a VNI's hosts: nobody's MAC and nobody's address, a row for each host, and hosts that are looked for
//! (EVPN-IRB-07, EVPN-IRB-09, EVPN-IRB-10, EVPN-MOB-19, PIT-18).
#![allow(clippy::unwrap_used, reason = "tests may panic")]

mod world;

use bytes::Bytes;
use evpn::fabric::{GatewayWant, KernelEvent, Row};
use evpn::node::{Config, Event, Gateway, GatewayAddress, Output, Show, view};
use evpn::types::{IfIndex, Mac, Span};
use evpn::wire::frame::{self, Body};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use world::frames::{arp, garp, rarp};
use world::{BRIDGE, P1, P2, World, mac, probe_mac, vtep};

const MS: Span = Span::millis(1);
const GW: Mac = Mac([0, 0, 0x5e, 0, 1, 1]);

fn ip(n: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 1, 0, n)
}

fn v6(n: u16) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, n)
}

/// What its MAC makes (RFC 4291 appendix A).
fn link_local() -> Ipv6Addr {
    "fe80::200:5eff:fe00:101".parse().unwrap()
}

fn gateway() -> Gateway {
    let address = |ip: IpAddr, bits| GatewayAddress::new(ip, bits).unwrap();
    Gateway { addresses: vec![address(ip(254).into(), 24), address(v6(0xfe).into(), 64)], mac: GW, ra: false }
}

fn with(n: usize, has: impl Fn(&Config) -> bool) -> World {
    let mut w = World::with(n, MS, |c| {
        if has(c) {
            c.vnis[0].hosts.gateway = Some(gateway());
        }
    });
    for i in 0..n {
        w.devices(i, GW);
    }
    w.run_for(Span::secs(10));
    for h in &mut w.hosts {
        h.emitted.clear();
        h.encapsulated.clear();
        h.events.clear();
    }
    w
}

fn everywhere(n: usize) -> World {
    with(n, |_| true)
}

fn counter(w: &mut World, i: usize, name: &str) -> u64 {
    w.status(i).counters.get(name).copied().unwrap_or(0)
}

fn refusals(w: &World, i: usize) -> usize {
    let of = |e: &Event| matches!(e, Event::AddressRefused { owner, vtep: v, .. } if *owner == GW && *v == vtep(i));
    w.hosts[i].events.iter().filter(|(_, e)| of(e)).count()
}

/// EVPN-IRB-10: what the bridge of every VTEP gets, with a link-local address that is the same everywhere.
#[test]
fn every_bridge_gets_the_same_mac_and_addresses() {
    let w = everywhere(3);
    for h in &w.hosts {
        let want = GatewayWant {
            mac: GW,
            addresses: vec![(ip(254).into(), 24), (v6(0xfe).into(), 64), (link_local().into(), 64)],
        };
        assert_eq!(h.node.devices()[0].gateway.as_ref(), Some(&want));
    }
    let mut own = gateway();
    own.addresses.truncate(1);
    assert_eq!(own.link_local(), None, "without IPv6 there is none");
    own.addresses.push(GatewayAddress::new("fe80::1".parse().unwrap(), 64).unwrap());
    assert_eq!(own.link_local(), "fe80::1".parse().ok(), "one that is configured is taken");
}

/// EVPN-MOB-19: a guest that speaks with the gateway's MAC or for its addresses is refused, counted and told of, and the
/// other hosts hear again who the gateway is.
#[test]
fn who_speaks_for_the_gateway_is_refused_and_the_hosts_are_told_again() {
    let mut w = everywhere(2);
    w.frame(0, P1, mac(1), Some(garp(mac(1), ip(1))));
    w.run_for(Span::secs(1));
    w.hosts[0].emitted.clear();
    let na = frame::unsolicited_advertisement(mac(1), v6(0xfe), None, true);
    let ns = frame::neighbor_solicitation(mac(1), link_local(), None, v6(9));
    let lies = [garp(mac(1), ip(254)), arp(mac(1), ip(254), ip(9)), na, ns];
    for (n, lie) in lies.into_iter().enumerate() {
        w.frame(0, P1, mac(1), Some(lie));
        w.run_for(Span::secs(20));
        assert_eq!(counter(&mut w, 0, "gateway_addresses_refused"), n as u64 + 1);
        assert_eq!(refusals(&w, 0), n + 1);
    }
    for i in 0..2 {
        for bad in [IpAddr::V4(ip(254)), v6(0xfe).into(), link_local().into()] {
            assert_eq!(w.neigh_row(i, bad), None);
        }
        assert_eq!(w.neigh_row(i, ip(1).into()), Some(Row::Neigh { mac: mac(1), router: false }));
    }
    let truth: Vec<_> = w.hosts[0].emitted.iter().filter(|(p, f)| *p == P1 && f[6..12] == GW.0).collect();
    let told = |f: &Bytes| match frame::parse(f).unwrap().body {
        Body::Arp(a) => a.is_gratuitous() && (a.sender_mac, a.sender_ip) == (GW, ip(254)),
        Body::NeighborAdvertisement(na) => {
            [v6(0xfe), link_local()].contains(&na.target) && na.router && na.tlla == Some(GW)
        }
        _ => false,
    };
    assert!(truth.len() >= 8 && truth.iter().all(|(_, f)| told(f)), "{truth:?}");
    // With its MAC, whatever is said.
    for f in [garp(GW, ip(9)), rarp(GW)] {
        w.frame(0, P1, GW, Some(f));
        w.run_for(Span::millis(50));
    }
    assert!(counter(&mut w, 0, "gateway_macs_seen") >= 2);
    assert!(w.hosts.iter().all(|h| h.announced.iter().all(|(_, m, _)| *m != GW)));
    assert_eq!((w.mac_row(0, GW), w.mac_row(1, GW), w.neigh_row(1, ip(9).into())), (None, None, None));
    // Nothing of it crosses the underlay.
    assert!(w.hosts[0].encapsulated.is_empty());
}

/// A VTEP that has no gateway believes its guest; those that have one do not.
#[test]
fn a_route_for_the_gateways_address_gives_no_row() {
    let mut w = with(2, |c| c.vtep == vtep(0));
    w.frame(1, P1, mac(1), Some(garp(mac(1), ip(254))));
    w.frame(1, P1, GW, Some(garp(GW, ip(7))));
    w.run_for(Span::secs(1));
    assert_eq!((w.neigh_row(0, ip(254).into()), w.mac_row(0, GW)), (None, None));
    assert!(counter(&mut w, 0, "gateway_routes_refused") > 0);
}

/// EVPN-IRB-07: the kernel routes by neighbour rows, of hosts that are here, too. A move changes where the MAC is, not the
/// row, so that nothing is asked for while the guest is on its way.
#[test]
fn every_host_has_a_row_and_a_move_leaves_it_as_it_is() {
    let mut w = everywhere(3);
    let row = Some(Row::Neigh { mac: mac(1), router: false });
    w.frame(0, P1, mac(1), Some(garp(mac(1), ip(1))));
    w.run_for(Span::millis(50));
    for i in 0..3 {
        assert_eq!(w.neigh_row(i, ip(1).into()), row, "node {i}");
    }
    let before: Vec<u64> = w.hosts.iter().map(|h| h.writes).collect();
    w.frame(1, P1, mac(1), Some(rarp(mac(1))));
    for _ in 0..50 {
        w.run_for(MS);
        for i in 0..3 {
            assert_eq!(w.neigh_row(i, ip(1).into()), row, "node {i}");
        }
    }
    assert!(w.hosts.iter().zip(before).all(|(h, b)| h.writes > b), "the MAC has moved everywhere");
    // Another MAC takes the address: the row follows. The host goes: so does the row.
    w.frame(1, P1, mac(2), Some(garp(mac(2), ip(1))));
    w.run_for(Span::millis(50));
    for i in 0..3 {
        assert_eq!(w.neigh_row(i, ip(1).into()), Some(Row::Neigh { mac: mac(2), router: false }), "node {i}");
    }
    w.forget(1, mac(2));
    w.run_for(Span::secs(1));
    for i in 0..3 {
        assert_eq!(w.neigh_row(i, ip(1).into()), None, "node {i}");
    }
}

/// EVPN-IRB-09: the routes of its hosts are those of any VNI, with the target of the MAC-VRF and no Router's MAC; the gateway
/// has none.
#[test]
fn routes_are_those_of_any_vni() {
    let routes = |gateway: bool| {
        let mut w = with(2, |_| gateway);
        w.frame(0, P1, mac(1), Some(garp(mac(1), ip(1))));
        w.run_for(Span::millis(50));
        let view::Rows::Routes(rows) = w.ask(0, Show::Routes) else { panic!("no routes") };
        rows.into_iter().filter(|r| r.from.is_none()).map(|r| (r.route, r.communities)).collect::<Vec<_>>()
    };
    let ours = routes(true);
    assert_eq!(ours, routes(false));
    let hosts: Vec<_> = ours.iter().filter(|(r, _)| r.contains(&mac(1).to_string())).collect();
    assert_eq!(hosts.len(), 2, "{ours:#?}");
    for (route, communities) in hosts {
        assert!(communities.iter().any(|c| c.contains("65000:100")), "{route}: {communities:?}");
        assert!(!communities.iter().any(|c| c.starts_with("Rmac")), "{route}: {communities:?}");
    }
}

/// Without a gateway a host answers for itself.
#[test]
fn without_a_gateway_local_hosts_have_no_row() {
    let mut w = World::converged(2, MS);
    w.frame(0, P1, mac(1), Some(garp(mac(1), ip(1))));
    w.run_for(Span::millis(50));
    assert_eq!(w.neigh_row(0, ip(1).into()), None);
    assert!(w.neigh_row(1, ip(1).into()).is_some());
}

/// PIT-18: whom the kernel looks for is asked for on every port and at every VTEP, from the probe MAC and in the gateway's
/// name, because hosts believe the sender of a question. The owner's VTEP hears the answer, and its route is the row.
#[test]
fn a_host_that_nobody_knows_is_asked_for_everywhere_and_found() {
    let mut w = everywhere(3);
    let asked = |dev: IfIndex, ip: IpAddr| KernelEvent::NeighAsked { dev, ip };
    w.kernel(0, asked(BRIDGE, ip(7).into()));
    let ports: Vec<IfIndex> = w.hosts[0].emitted.iter().map(|(p, _)| *p).collect();
    let vteps: Vec<IpAddr> = w.hosts[0].encapsulated.iter().map(|(v, _)| *v).collect();
    assert_eq!((ports, vteps), (vec![P1, P2], vec![vtep(1), vtep(2)]));
    let all = w.hosts[0].emitted.iter().map(|(_, f)| f).chain(w.hosts[0].encapsulated.iter().map(|(_, f)| f));
    for f in all {
        let f = frame::parse(f).unwrap();
        let Body::Arp(a) = f.body else { panic!("{f:?}") };
        assert_eq!((f.dst, f.src), (Mac::BROADCAST, probe_mac(0)));
        assert_eq!((a.reply, a.sender_mac, a.sender_ip, a.target_ip), (false, GW, ip(254), ip(7)));
    }
    // Its answer is for the gateway, and ends at its own VTEP.
    w.frame(2, P1, mac(7), Some(frame::arp_reply(mac(7), ip(7), GW, ip(254))));
    w.run_for(Span::millis(20));
    assert_eq!(w.neigh_row(0, ip(7).into()), Some(Row::Neigh { mac: mac(7), router: false }));
    // Nobody is asked for whom we know, for whom no subnet has, for the gateway, or twice in a second.
    w.hosts[0].emitted.clear();
    for other in [ip(7).into(), ip(254).into(), IpAddr::from([10, 9, 0, 1]), v6(0xfe).into()] {
        w.kernel(0, asked(BRIDGE, other));
    }
    w.kernel(0, asked(IfIndex(99), ip(8).into()));
    assert!(w.hosts[0].emitted.is_empty(), "{:?}", w.hosts[0].emitted);
    w.kernel(0, asked(BRIDGE, ip(8).into()));
    w.kernel(0, asked(BRIDGE, ip(8).into()));
    assert_eq!(w.hosts[0].emitted.len(), 2);
    assert_eq!(counter(&mut w, 0, "gateway_questions_refused"), 1);
    w.run_for(Span::secs(2));
    w.kernel(0, asked(BRIDGE, ip(8).into()));
    assert_eq!(w.hosts[0].emitted.len(), 4);
    assert_eq!(counter(&mut w, 0, "gateway_questions"), 3);
}

#[test]
fn an_unknown_ipv6_host_is_solicited_from_the_gateways_link_local_address() {
    let mut w = everywhere(2);
    w.kernel(0, KernelEvent::NeighAsked { dev: BRIDGE, ip: v6(7).into() });
    let (to, f) = w.hosts[0].encapsulated.first().expect("asked").clone();
    let f = frame::parse(&f).expect("with a right checksum");
    let Body::NeighborSolicitation(ns) = f.body else { panic!("{f:?}") };
    assert_eq!(
        (to, f.src, ns.src, ns.slla, ns.target),
        (vtep(1), probe_mac(0), link_local(), Some(GW), v6(7))
    );
    let na = frame::neighbor_advertisement(mac(7), v6(7), Some((GW, link_local())), false, true);
    w.frame(1, P1, mac(7), Some(na));
    w.run_for(Span::millis(20));
    assert_eq!(w.neigh_row(0, v6(7).into()), Some(Row::Neigh { mac: mac(7), router: false }));
}

/// A guest that walks through a subnet makes us ask a bounded number of times.
#[test]
fn a_walk_through_a_subnet_is_bounded() {
    let mut w = everywhere(2);
    for n in 0..2000u16 {
        w.kernel(0, KernelEvent::NeighAsked { dev: BRIDGE, ip: v6(0x100 + n).into() });
    }
    assert_eq!(w.hosts[0].encapsulated.len(), 256);
    assert_eq!(counter(&mut w, 0, "gateway_questions_refused"), 2000 - 256);
}

/// The outputs of a question reach the driver in the turn in which the kernel asks.
#[test]
fn a_question_waits_for_no_timer() {
    let mut w = everywhere(2);
    let at = w.now;
    let node = &mut w.hosts[0].node;
    node.handle(evpn::node::Input::Kernel(KernelEvent::NeighAsked { dev: BRIDGE, ip: ip(7).into() }), at);
    let mut out = vec![];
    while let Some(o) = node.poll_output() {
        out.push(o);
    }
    assert!(out.iter().any(|o| matches!(o, Output::Encap { .. })), "{out:?}");
}
