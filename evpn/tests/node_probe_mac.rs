//! The source of our probes (PIT-15): the bridge's own, told as sticky, and nobody's host.
#![allow(clippy::unwrap_used, reason = "tests may panic")]

mod world;

use evpn::fabric::{FdbRow, KernelEvent, Link, LinkKind, Row};
use evpn::node::{Command, Reply};
use evpn::node::{Event, MacFilter, Query, Show, view};
use evpn::types::{Mac, Seq, Span};
use std::net::{IpAddr, Ipv4Addr};
use world::frames::garp;
use world::{BRIDGE, P1, VXLAN, World, bridge_row, mac, own_mac, probe_mac, vtep};

const MS: Span = Span::millis(1);

fn ip(n: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 1, 0, n)
}

fn counter(w: &mut World, i: usize, name: &str) -> u64 {
    w.status(i).counters.get(name).copied().unwrap_or(0)
}

#[test]
fn every_vtep_has_one_of_its_own_and_the_peers_hold_it_sticky() {
    let mut w = World::converged(3, MS);
    for i in 0..3 {
        assert_eq!(w.mac_row(i, probe_mac(i)), Some(Row::Own));
        for j in (0..3).filter(|j| *j != i) {
            assert_ne!(probe_mac(i), probe_mac(j));
            let sticky = Some(Row::Remote { vxlan: VXLAN, vtep: vtep(j), sticky: true });
            assert_eq!(w.mac_row(i, probe_mac(j)), sticky, "{i} of {j}");
        }
        let told: Vec<_> = w.hosts[i].announced.iter().map(|a| (a.1, a.2)).collect();
        assert!(told.iter().all(|t| *t == (probe_mac(i), Seq(0))), "{told:?}");
        // Never shown as a host, unless somebody asks for this very address.
        assert_eq!(w.macs(i), []);
        assert_eq!((w.status(i).remote_macs, w.vnis(i)[0].remote_macs), (0, 0));
    }
    let filter = MacFilter { mac: Some(probe_mac(1)), ..MacFilter::default() };
    let q = Query { show: Show::Macs, filter, cursor: None, limit: 10 };
    let Reply::Page(p) = w.command(0, Command::Show(q)) else { panic!("no page") };
    let view::Rows::Macs(rows) = p.rows else { panic!("no MACs") };
    assert_eq!((rows.len(), rows[0].sticky), (1, true));
}

#[test]
fn it_is_the_source_of_our_probes() {
    let mut w = World::converged(2, MS);
    w.frame(0, P1, mac(1), Some(garp(mac(1), ip(1))));
    w.run_for(Span::secs(2));
    w.frame(1, P1, mac(1), Some(garp(mac(1), ip(1))));
    w.run_for(Span::millis(3));
    let (_, f) = w.hosts[0].emitted.first().expect("the loser asks");
    assert_eq!((Mac::from_slice(&f[..6]), Mac::from_slice(&f[6..12])), (Some(mac(1)), Some(probe_mac(0))));
    assert_eq!(Mac::from_slice(&f[22..28]), Some(probe_mac(0)), "the ARP sender, too");
}

/// Whoever speaks with it is not learned, neither from the frame nor from a row, and our row is looked at again.
#[test]
fn who_speaks_with_it_is_no_host() {
    let mut w = World::converged(2, MS);
    let own = probe_mac(0);
    let writes = w.hosts[0].node.want().iter().count();
    w.frame(0, P1, own, Some(garp(own, ip(9))));
    w.kernel(0, KernelEvent::Fdb(FdbRow::Bridge(bridge_row(own, P1, false))));
    w.run_for(Span::secs(1));
    assert_eq!((w.macs(0), w.status(0).local_macs), (vec![], 0));
    assert!(counter(&mut w, 0, "own_macs_seen") >= 2);
    assert_eq!(w.mac_row(0, own), Some(Row::Own));
    assert_eq!(w.hosts[0].node.want().iter().count(), writes);
    assert_eq!(w.neigh_row(1, IpAddr::V4(ip(9))), None);
    assert_eq!(w.mac_row(1, own), Some(Row::Remote { vxlan: VXLAN, vtep: vtep(0), sticky: true }));
}

/// Another VTEP has a host with it: that is told, and not installed.
#[test]
fn a_peer_that_has_it_as_a_host_is_reported() {
    let mut w = World::converged(2, MS);
    let own = probe_mac(0);
    w.frame(1, P1, own, Some(garp(own, ip(9))));
    w.run_for(Span::secs(1));
    assert_eq!(w.mac_row(0, own), Some(Row::Own));
    // Node 1 knows better: the sticky claim of node 0 stands.
    assert_eq!(w.mac_row(1, own), Some(Row::Remote { vxlan: VXLAN, vtep: vtep(0), sticky: true }));
    assert!(
        w.hosts[1].events.iter().any(|(_, e)| matches!(e, Event::StickyConflict { mac, .. } if *mac == own))
    );
}

/// With the VNI's devices goes its route, and it comes back with them.
#[test]
fn it_comes_and_goes_with_its_vni() {
    let mut w = World::converged(2, MS);
    let bridge = |up| Link {
        index: BRIDGE,
        name: "br100".into(),
        mac: own_mac(0),
        mtu: 1450,
        up,
        carrier: true,
        master: None,
        kind: LinkKind::Bridge(evpn::fabric::BridgeLink::default()),
        port: None,
    };
    w.kernel(0, KernelEvent::Link(bridge(false)));
    w.run_for(Span::secs(1));
    assert_eq!(w.mac_row(1, probe_mac(0)), None);
    w.kernel(0, KernelEvent::Link(bridge(true)));
    w.run_for(Span::secs(1));
    assert_eq!(w.mac_row(1, probe_mac(0)), Some(Row::Remote { vxlan: VXLAN, vtep: vtep(0), sticky: true }));
    assert_eq!(w.mac_row(0, probe_mac(0)), Some(Row::Own));
}
