//! Duplicate addresses, and what only looks like one: a cluster that hands its address over (EVPN-XMOB-16, -17).

mod twins;
mod world;

use evpn::fabric::Row;
use evpn::node::{About, DuplicateAction, DuplicateMode};
use evpn::types::Span;
use std::net::IpAddr;
use twins::{agreed, all, ip, mode, speaks, world};
use world::frames::arp;
use world::{Guest, P1, P2, World, mac};

/// EVPN-XMOB-16, PROXY-DUP-01: two hosts with one IP. Only that IP's route is frozen; both MACs and their other IPs go on.
#[test]
fn a_duplicate_ip_freezes_that_ip_only() {
    let mut w = world(3, mode(DuplicateMode::Oscillation, DuplicateAction::Freeze));
    for (node, m) in [(0, mac(1)), (1, mac(2))] {
        w.guests.push(Guest { node, port: P1, mac: m, ip: ip(50) });
        w.frame(node, P1, m, Some(arp(m, ip(60 + node as u8), ip(254))));
    }
    for _ in 0..20 {
        for (node, m) in [(0, mac(1)), (1, mac(2))] {
            speaks(&mut w, node, m, 50);
            w.run_for(Span::millis(10));
        }
    }
    let found = all(&mut w, 3);
    assert_eq!(found.len(), 1, "{found:?}");
    let (loser, d) = &found[0];
    assert_eq!(d.address, About::Ip(ip(50).into()));
    assert_eq!(d.owners.len(), 2);
    let keeper = if *loser == 0 { mac(2) } else { mac(1) };
    for i in [*loser, 2] {
        let row = Some(Row::Neigh { mac: keeper, router: false });
        assert_eq!(w.neigh_row(i, IpAddr::V4(ip(50))), row, "node {i}");
    }
    assert_eq!(agreed(&mut w, 3, mac(1), &[0]), 0);
    assert_eq!(agreed(&mut w, 3, mac(2), &[1]), 1);
    for (i, n) in [(1, 60), (2, 60), (0, 61), (2, 61)] {
        assert!(w.neigh_row(i, IpAddr::V4(ip(n))).is_some(), "10.1.0.{n} at node {i}");
    }
    assert!(w.macs(*loser).iter().all(|m| !m.duplicate), "no MAC is marked");
    let seqs = |w: &mut World| w.macs(2).iter().map(|m| m.seq.0).collect::<Vec<_>>();
    let before = seqs(&mut w);
    for _ in 0..100 {
        for (node, m) in [(0, mac(1)), (1, mac(2))] {
            speaks(&mut w, node, m, 50);
            w.run_for(Span::millis(10));
        }
    }
    assert_eq!(seqs(&mut w), before, "nothing climbs any more");
    // The keeper gives it up: the other one gets it.
    let keeper_at = 1 - *loser;
    w.guests.retain(|g| g.node == *loser);
    w.forget(keeper_at, keeper);
    w.run_for(Span::millis(50));
    assert_eq!(all(&mut w, 3), []);
    let other = if *loser == 0 { mac(1) } else { mac(2) };
    assert_eq!(w.neigh_row(2, IpAddr::V4(ip(50))), Some(Row::Neigh { mac: other, router: false }));
}

/// Two hosts with one IP on one VTEP.
#[test]
fn a_duplicate_ip_on_two_ports_of_one_vtep_is_found() {
    let mut w = world(2, mode(DuplicateMode::Oscillation, DuplicateAction::Freeze));
    w.guests.push(Guest { node: 0, port: P1, mac: mac(1), ip: ip(50) });
    w.guests.push(Guest { node: 0, port: P2, mac: mac(2), ip: ip(50) });
    for _ in 0..10 {
        for (p, m) in [(P1, mac(1)), (P2, mac(2))] {
            w.frame(0, p, m, Some(arp(m, ip(50), ip(254))));
            w.run_for(Span::millis(10));
        }
    }
    let found = all(&mut w, 2);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].1.address, About::Ip(ip(50).into()));
}

/// An IP that a cluster hands over: the old owner does not answer for it any more.
#[test]
fn an_ip_that_fails_over_to_and_fro_is_no_duplicate() {
    let mut w = world(3, mode(DuplicateMode::Oscillation, DuplicateAction::Freeze));
    for n in 0..12 {
        let (node, m) = if n % 2 == 0 { (0, mac(1)) } else { (1, mac(2)) };
        w.guests = vec![Guest { node, port: P1, mac: m, ip: ip(50) }];
        w.frame(node, P1, m, Some(arp(m, ip(50), ip(50))));
        w.run_for(Span::millis(500));
        assert_eq!(
            w.neigh_row(2, IpAddr::V4(ip(50))),
            Some(Row::Neigh { mac: m, router: false }),
            "failover {n}"
        );
    }
    assert_eq!(all(&mut w, 3), []);
}
