//! Two hosts with one address behind two VTEPs, and what is asked of them.

#![allow(dead_code, unreachable_pub)] // each test uses some of it

use crate::world::frames::arp;
use crate::world::{Guest, P1, World, mac, vtep};
use evpn::node::view::{DuplicateView, Place};
use evpn::node::{Config, DuplicateAction, DuplicateMode, Event};
use evpn::types::{Mac, Span};
use std::net::Ipv4Addr;

const MS: Span = Span::millis(1);

pub fn ip(n: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 1, 0, n)
}

pub fn mode(mode: DuplicateMode, action: DuplicateAction) -> impl Fn(&mut Config) {
    move |c| {
        c.mobility.duplicates.mode = mode;
        c.mobility.duplicates.action = action;
    }
}

pub fn world(n: usize, tweak: impl Fn(&mut Config)) -> World {
    let mut w = World::with(n, MS, tweak);
    w.sticky_holds = true;
    w.run_for(Span::secs(10));
    for i in 0..n {
        assert!(w.status(i).converged, "node {i}");
    }
    w
}

/// The same MAC and IP behind node 0 and node 1.
pub fn twins(w: &mut World, n: u8) {
    for node in [0, 1] {
        w.guests.push(Guest { node, port: P1, mac: mac(n), ip: ip(n) });
    }
}

/// One host says something ordinary (an ARP request for a neighbour).
pub fn speaks(w: &mut World, node: usize, m: Mac, n: u8) {
    w.frame(node, P1, m, Some(arp(m, ip(n), ip(254))));
}

/// Both talk by turns, each every 20 ms.
pub fn both_talk(w: &mut World, n: u8, rounds: usize) {
    for _ in 0..rounds {
        for node in [0, 1] {
            speaks(w, node, mac(n), n);
            w.run_for(Span::millis(10));
        }
    }
}

/// All duplicates found, with the node that found them.
pub fn all(w: &mut World, nodes: usize) -> Vec<(usize, DuplicateView)> {
    (0..nodes).flat_map(|i| w.duplicates(i).into_iter().map(move |d| (i, d)).collect::<Vec<_>>()).collect()
}

pub fn told(w: &World, node: usize) -> usize {
    w.hosts[node].events.iter().filter(|(_, e)| matches!(e, Event::Duplicate { .. })).count()
}

/// Everybody agrees on one owner, and it is one of `among`.
pub fn agreed(w: &mut World, nodes: usize, m: Mac, among: &[usize]) -> usize {
    let owners: Vec<usize> = (0..nodes).filter(|i| matches!(place(w, *i, m), Place::Port(_))).collect();
    assert_eq!(owners.len(), 1, "{m} has owners {owners:?}");
    assert!(among.contains(&owners[0]), "{m} is at {owners:?}");
    for i in (0..nodes).filter(|i| *i != owners[0]) {
        assert_eq!(place(w, i, m), Place::Vtep(vtep(owners[0])), "{m} at node {i}");
    }
    owners[0]
}

pub fn place(w: &mut World, node: usize, m: Mac) -> Place {
    w.macs(node).into_iter().find(|r| r.mac == m).map_or(Place::None, |r| r.place)
}
