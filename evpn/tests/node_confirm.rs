//! Silent hosts (PROXY-MAINT-01, -02): asked in time, kept as long as they answer, given up when they do not.
#![allow(clippy::unwrap_used, reason = "tests may panic")]

mod world;

use bytes::Bytes;
use evpn::fabric::{BridgeLink, Row, RowKey};
use evpn::types::{Mac, Span, Time};
use std::net::{IpAddr, Ipv4Addr};
use world::frames::{arp, garp};
use world::{BRIDGE, Guest, P1, P2, World, mac, probe_mac};

const MS: Span = Span::millis(1);

fn ip(n: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 1, 0, n)
}

fn known(w: &World, i: usize, a: Ipv4Addr) -> bool {
    w.neigh_row(i, IpAddr::V4(a)).is_some()
}

fn counter(w: &mut World, i: usize, name: &str) -> u64 {
    w.status(i).counters.get(name).copied().unwrap_or(0)
}

fn speaks_once(w: &mut World, n: u8) {
    w.frame(0, P1, mac(n), Some(garp(mac(n), ip(n))));
}

fn answers(w: &mut World, n: u8) {
    w.guests.push(Guest { node: 0, port: P1, mac: mac(n), ip: ip(n) });
}

#[test]
fn a_host_that_only_answers_stays_bound_for_ever() {
    let mut w = World::converged(2, MS);
    answers(&mut w, 1);
    speaks_once(&mut w, 1);
    w.run_for(Span::secs(2));
    for _ in 0..24 {
        w.run_for(Span::secs(300));
        assert!(known(&w, 1, ip(1)));
    }
    let asked = &w.hosts[0].emitted;
    // 7200 s, each 210 to 240 s one question, which is answered.
    assert!((30..=35).contains(&asked.len()), "{}", asked.len());
    for (port, f) in asked {
        assert_eq!((*port, Mac::from_slice(f)), (P1, Some(mac(1))), "unicast");
        assert_eq!(Mac::from_slice(&f[6..]), Some(probe_mac(0)));
    }
    assert_eq!(counter(&mut w, 0, "confirmations_asked"), asked_of(&w));
    assert_eq!(counter(&mut w, 0, "bindings_unanswered"), 0);
}

fn asked_of(w: &World) -> u64 {
    w.hosts[0].emitted.len() as u64
}

/// Three questions, and it is answered for no more; its MAC is where the forwarding table says (PROXY-EC-06).
#[test]
fn a_host_that_does_not_answer_is_given_up() {
    let mut w = World::converged(2, MS);
    speaks_once(&mut w, 1);
    w.run_for(Span::secs(200));
    assert!(known(&w, 1, ip(1)));
    assert_eq!(asked_of(&w), 0);
    w.run_for(Span::secs(44));
    assert!(!known(&w, 1, ip(1)), "in time");
    assert_eq!(asked_of(&w), 3);
    assert_eq!(counter(&mut w, 0, "bindings_unanswered"), 1);
    assert!(w.mac_row(1, mac(1)).is_some());
    // It speaks again.
    speaks_once(&mut w, 1);
    w.run_for(Span::millis(5));
    assert!(known(&w, 1, ip(1)));
}

/// Ordinary ARP of the host that names the address is a confirmation; that of another address of it is none.
#[test]
fn who_speaks_with_an_address_is_not_asked_for_that_one() {
    let mut w = World::converged(2, MS);
    answers(&mut w, 1);
    w.guests.push(Guest { node: 0, port: P1, mac: mac(1), ip: ip(2) });
    speaks_once(&mut w, 1);
    w.frame(0, P1, mac(1), Some(garp(mac(1), ip(2))));
    for _ in 0..20 {
        w.run_for(Span::secs(60));
        w.frame(0, P1, mac(1), Some(arp(mac(1), ip(1), ip(77))));
    }
    let asked: Vec<[u8; 4]> = w.hosts[0].emitted.iter().map(|(_, f)| f[38..42].try_into().unwrap()).collect();
    assert!(!asked.contains(&ip(1).octets()), "{asked:?}");
    assert!((4..=6).contains(&asked.len()), "{asked:?}");
    assert!(known(&w, 1, ip(1)) && known(&w, 1, ip(2)));
}

fn nth(n: u32) -> (Mac, Ipv4Addr) {
    let [_, a, b, c] = n.to_be_bytes();
    (Mac([0x52, 0x54, 1, a, b, c]), Ipv4Addr::from(0x0a01_0000 + n + 1))
}

/// The answer of a host to a question of ours.
fn reply(f: &[u8]) -> Bytes {
    let own = &f[..6];
    Bytes::from([&f[6..12], own, &[8, 6, 0, 1, 8, 0, 6, 4, 0, 2], own, &f[38..42], &f[22..32]].concat())
}

/// All of them speak within a second and never again: the questions are spread, and nobody is lost.
#[test]
fn two_thousand_silent_hosts_are_asked_evenly_and_none_is_lost() {
    const HOSTS: u32 = 2000;
    const RATE: usize = 10;
    let mut w = World::with(2, MS, |c| c.arp.probe_rate = RATE as u32);
    w.run_for(Span::secs(10));
    for n in 0..HOSTS {
        let (m, a) = nth(n);
        w.frame(0, P1, m, Some(garp(m, a)));
    }
    let (mut seen, mut most, mut total) = (0, 0, 0);
    for _ in 0..600 {
        w.run_for(Span::secs(1));
        let asked: Vec<Bytes> = w.hosts[0].emitted[seen..].iter().map(|(_, f)| f.clone()).collect();
        seen += asked.len();
        most = most.max(asked.len());
        total += asked.len();
        for f in asked {
            w.frame(0, P1, Mac::from_slice(&f).unwrap(), Some(reply(&f)));
        }
    }
    // One more than the rate where two turns meet in a second.
    assert!(most <= RATE + 1, "{most} in a second");
    assert!((3000..=6000).contains(&total), "{total}");
    let bound = w.hosts[1].rows.iter().filter(|(k, r)| {
        matches!(k, RowKey::Neigh { dev, .. } if *dev == BRIDGE) && matches!(r, Row::Neigh { .. })
    });
    assert_eq!(bound.count(), HOSTS as usize);
    assert_eq!(counter(&mut w, 0, "bindings_unanswered"), 0);
}

#[test]
fn a_mac_has_so_many_addresses_and_no_more() {
    let mut w = World::with(2, MS, |c| c.arp.addresses_per_mac = 3);
    w.run_for(Span::secs(10));
    for n in 1..=5 {
        w.frame(0, P1, mac(1), Some(garp(mac(1), ip(n))));
    }
    w.run_for(Span::secs(1));
    let has: Vec<bool> = (1..=5).map(|n| known(&w, 1, ip(n))).collect();
    assert_eq!(has, [true, true, true, false, false]);
    assert_eq!(counter(&mut w, 0, "ip_limit_refusals"), 2);
    // Another MAC has its own.
    w.frame(0, P1, mac(2), Some(garp(mac(2), ip(5))));
    w.run_for(Span::secs(1));
    assert!(known(&w, 1, ip(5)));
}

/// No dice are thrown.
#[test]
fn the_same_run_gives_the_same_questions() {
    let run = || {
        let mut w = World::converged(2, MS);
        for n in 1..9 {
            answers(&mut w, n);
            speaks_once(&mut w, n);
        }
        w.run_for(Span::secs(1000));
        (w.now, w.hosts[0].emitted.clone())
    };
    let (a, b) = (run(), run());
    assert_eq!(a, b);
    assert!(a.0 > Time(0) && !a.1.is_empty());
}

/// A port is full of frames without end: answers may wait to be read there, so none of its hosts is given up; but all are asked,
/// or their rows would age out meanwhile, and who is dead behind another port is not kept alive by it (PROXY-MAINT-02).
#[test]
fn a_storm_on_one_port_keeps_no_host_from_being_asked() {
    let mut w = World::converged(2, MS);
    answers(&mut w, 1);
    speaks_once(&mut w, 1);
    speaks_once(&mut w, 2);
    w.frame(0, P2, mac(3), Some(arp(mac(3), ip(3), ip(77))));
    w.hosts[0].node.set_unread([P2].into());
    for _ in 0..1000 {
        w.frame(0, P2, mac(9), Some(arp(mac(9), ip(9), ip(77))));
        w.run_for(Span::secs(1));
    }
    let of = |w: &World, n| w.hosts[0].emitted.iter().filter(|(_, f)| f[..6] == mac(n).0).count();
    assert!((4..=5).contains(&of(&w, 1)), "{}", of(&w, 1));
    assert_eq!(of(&w, 2), 3);
    assert_eq!(of(&w, 3), 3);
    assert!(known(&w, 1, ip(1)) && !known(&w, 1, ip(2)) && known(&w, 1, ip(3)));
    w.hosts[0].node.set_unread([].into());
    w.run_for(Span::secs(10));
    assert!(known(&w, 1, ip(1)) && !known(&w, 1, ip(3)));
}

/// An adopted bridge that forgets after a minute: hosts are asked before that.
#[test]
fn a_bridge_that_ages_sooner_has_its_hosts_asked_sooner() {
    let mut w = World::converged(2, MS);
    w.bridge_with(0, BridgeLink { ageing_secs: 60, ..BridgeLink::default() });
    answers(&mut w, 1);
    speaks_once(&mut w, 1);
    let mut last = w.now;
    for _ in 0..600 {
        let n = asked_of(&w);
        w.run_for(Span::secs(1));
        if asked_of(&w) > n {
            assert!(w.now.since(last) <= Span::secs(49), "{:?}", w.now.since(last));
            last = w.now;
        }
    }
    assert!((12..=15).contains(&asked_of(&w)), "{}", asked_of(&w));
}
