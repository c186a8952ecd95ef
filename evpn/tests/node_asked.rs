//! Addresses that a MAC is asked for, because the routes that had them are gone or will be: the loser of a tie withdraws
//! its own, and a source's port that died before the guest was announced at its target took them along
//! (EVPN-MOB-08, MIG-HOT-02, PIT-22). Only what answers is announced.

#![allow(clippy::unnecessary_wraps)] // compared with what the kernel may not have

mod world;

use bytes::Bytes;
use evpn::fabric::Row;
use evpn::node::{MoveStep, Show, view::Rows};
use evpn::types::{IfIndex, Span};
use std::net::{IpAddr, Ipv4Addr};
use world::steps::{MS, remote};
use world::{Guest, P1, P2, World, frames, mac};

const IP: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 1);

fn garp() -> Option<Bytes> {
    Some(frames::garp(mac(1), IP))
}

fn answered() -> Option<Row> {
    Some(Row::Neigh { mac: mac(1), router: false })
}

/// A host with a stack: it answers for this address.
fn host(w: &mut World, node: usize, port: IfIndex, ip: Ipv4Addr) {
    w.guests = vec![Guest { node, port, mac: mac(1), ip }];
}

/// Three nodes. The guest was behind `p1` of node 0, which nobody knows any more: its port died.
fn port_died() -> World {
    let mut w = World::converged(3, MS);
    w.frame(0, P1, mac(1), garp());
    w.run_for(Span::millis(100));
    assert_eq!((w.mac_row(2, mac(1)), w.neigh_row(2, IP.into())), (remote(0, false), answered()));
    w.forget(0, mac(1));
    w.run_for(Span::millis(100));
    assert_eq!((w.mac_row(2, mac(1)), w.neigh_row(2, IP.into())), (None, None));
    for h in &mut w.hosts {
        h.emitted.clear();
    }
    w
}

/// Probes of node 1 to the guest. What it tells its hosts is none.
fn asked(w: &World) -> usize {
    w.hosts[1].emitted.iter().filter(|(_, f)| f[..6] == mac(1).0).count()
}

fn rarp(w: &mut World, port: IfIndex) {
    w.frame(1, port, mac(1), Some(frames::rarp(mac(1))));
    w.run_for(Span::millis(20));
}

/// The live migration of a guest whose source port dies first: no binding comes along, and the guest itself may say nothing
/// for minutes.
#[test]
fn a_guest_that_is_announced_after_its_source_port_died_has_its_addresses_back() {
    let mut w = port_died();
    host(&mut w, 1, P2, IP);
    rarp(&mut w, P2);
    assert_eq!((w.mac_row(2, mac(1)), w.neigh_row(2, IP.into())), (remote(1, false), answered()));
    // QEMU repeats itself; it is asked once.
    for _ in 0..4 {
        rarp(&mut w, P2);
    }
    assert_eq!(asked(&w), 1);
}

/// The RARP may be read after the row that it caused.
#[test]
fn the_row_may_be_told_before_the_announcement() {
    let mut w = port_died();
    host(&mut w, 1, P2, IP);
    w.frame(1, P2, mac(1), None);
    w.run_for(Span::millis(1));
    assert_eq!(asked(&w), 0, "a MAC that appears may be booting");
    rarp(&mut w, P2);
    assert_eq!(w.neigh_row(2, IP.into()), answered());
}

/// What was is asked for and not believed: the guest has another address by now.
#[test]
fn a_former_address_that_nobody_answers_for_is_announced_by_nobody() {
    let mut w = port_died();
    host(&mut w, 1, P2, Ipv4Addr::new(10, 1, 0, 9));
    rarp(&mut w, P2);
    w.run_for(Span::secs(30));
    assert_eq!(asked(&w), 1, "asked once");
    assert_eq!((w.mac_row(2, mac(1)), w.neigh_row(2, IP.into())), (remote(1, false), None));
}

/// PIT-16: a guest that boots looks for duplicates of its own address; a probe would be one.
#[test]
fn a_mac_that_merely_appears_is_not_asked() {
    let mut w = port_died();
    w.frame(1, P2, mac(1), None);
    w.frame(1, P2, mac(1), Some(frames::arp(mac(1), Ipv4Addr::UNSPECIFIED, IP)));
    w.run_for(Span::secs(5));
    assert_eq!(w.mac_row(2, mac(1)), remote(1, false));
    assert_eq!(asked(&w), 0);
}

/// Somebody else has the address by now, or it was long ago.
#[test]
fn an_address_is_asked_for_only_while_it_may_still_be_the_macs() {
    let mut w = port_died();
    w.frame(2, P1, mac(2), Some(frames::garp(mac(2), IP)));
    w.run_for(Span::millis(20));
    rarp(&mut w, P2);
    assert_eq!(asked(&w), 0);
    let mut w = port_died();
    w.run_for(Span::secs(301));
    rarp(&mut w, P2);
    assert_eq!(asked(&w), 0);
}

/// A hypervisor that activates says no address; the guest's first frame is the sign that it runs.
#[test]
fn an_activated_guest_is_asked_when_it_is_heard() {
    let mut w = port_died();
    host(&mut w, 1, P2, IP);
    w.step(1, mac(1), &[], MoveStep::Activate { port: Some("p2".into()), timeout: None });
    w.run_for(Span::millis(20));
    assert_eq!((w.mac_row(2, mac(1)), asked(&w)), (remote(1, false), 0), "it does not run yet");
    w.frame(1, P2, mac(1), Some(frames::arp(mac(1), Ipv4Addr::UNSPECIFIED, Ipv4Addr::new(10, 1, 0, 200))));
    w.run_for(Span::millis(20));
    assert_eq!(w.neigh_row(2, IP.into()), answered());
}

/// Two VTEPs see a MAC at the same time. The winner has heard no address, the loser has, and withdraws it.
fn tie(ip: Ipv4Addr) -> World {
    let mut w = World::converged(3, Span::millis(5));
    host(&mut w, 0, P1, ip);
    w.frame(1, P2, mac(1), garp());
    w.frame(0, P1, mac(1), None);
    w.run_for(Span::millis(200));
    assert_eq!(
        (w.mac_row(1, mac(1)), w.mac_row(2, mac(1))),
        (remote(0, false), remote(0, false)),
        "lower VTEP"
    );
    w
}

/// EVPN-MOB-08
#[test]
fn the_winner_of_a_tie_asks_for_the_losers_addresses() {
    let mut w = tie(IP);
    assert_eq!((w.neigh_row(1, IP.into()), w.neigh_row(2, IP.into())), (answered(), answered()));
    let Rows::Hosts(hosts) = w.ask(0, Show::Hosts) else { panic!("hosts were asked for") };
    assert_eq!(hosts.iter().map(|h| h.ip).collect::<Vec<_>>(), [IpAddr::V4(IP)]);
    let sent = w.sent_bytes;
    w.run_for(Span::secs(20));
    assert!(w.sent_bytes - sent < 900, "only keepalives: it has stopped");
}

#[test]
fn an_address_of_the_loser_that_nobody_answers_for_at_the_winner_goes() {
    let w = tie(Ipv4Addr::new(10, 1, 0, 9));
    assert_eq!((w.neigh_row(1, IP.into()), w.neigh_row(2, IP.into())), (None, None));
}

/// Node 1 has no session when the guest comes to it without a word, and is heard with the next sequence when its sessions are
/// back. Node 0 has told the address until then, and has withdrawn it.
fn won_unheard() -> World {
    let mut w = World::forgetful(3, MS);
    w.frame(0, P1, mac(1), garp());
    w.run_for(Span::millis(100));
    w.cut(1, 0);
    w.cut(1, 2);
    w.run_for(MS);
    w.frame(1, P2, mac(1), None);
    assert_eq!(w.neigh_row(2, IP.into()), answered());
    let limit = w.now + Span::secs(60);
    while [0, 2].iter().any(|i| w.mac_row(*i, mac(1)) != remote(1, false)) {
        assert!(w.now < limit, "the sessions of node 1 are not back");
        w.run_for(MS);
    }
    w.run_for(Span::millis(10));
    w
}

/// The way of an address along with its MAC, only later (PIT-22): the guest need not answer the first question.
#[test]
fn an_address_that_is_heard_of_after_its_mac_was_won_comes_along() {
    let mut w = won_unheard();
    assert_eq!(w.mac_row(0, mac(1)), remote(1, false));
    assert_eq!((w.neigh_row(0, IP.into()), w.neigh_row(2, IP.into())), (answered(), answered()));
    w.run_for(Span::millis(1500));
    host(&mut w, 1, P2, IP);
    w.run_for(Span::secs(20));
    assert_eq!((w.neigh_row(0, IP.into()), w.neigh_row(2, IP.into())), (answered(), answered()));
    let Rows::Hosts(hosts) = w.ask(1, Show::Hosts) else { panic!("hosts were asked for") };
    assert_eq!(hosts.iter().map(|h| h.ip).collect::<Vec<_>>(), [IpAddr::V4(IP)]);
}

#[test]
fn what_came_along_late_and_is_answered_by_nobody_goes_too() {
    let mut w = won_unheard();
    w.run_for(Span::secs(4));
    assert_eq!((w.neigh_row(0, IP.into()), w.neigh_row(2, IP.into())), (None, None));
    let sent = w.sent_bytes;
    w.run_for(Span::secs(20));
    assert!(w.sent_bytes - sent < 900, "only keepalives: it has stopped");
}
