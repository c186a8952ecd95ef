//! Static hosts, and what peers call immutable: PROXY-LEARN-03, PROXY-LEARN-04, PROXY-EC-04 (RFC 9161 §3.2, RFC 9047 §3).

mod world;

use evpn::fabric::Row;
use evpn::node::view::{HostView, RouteView, Rows};
use evpn::node::{Config, Event, Show};
use evpn::types::{IfIndex, Mac, Seq, Span};
use std::net::{IpAddr, Ipv6Addr};
use world::steps::{MS, garp, ip};
use world::{P1, P2, World, mac, vtep};

fn six() -> IpAddr {
    Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into()
}

/// Binds addresses to MACs at one node.
fn fix(c: &mut Config, i: usize, a: IpAddr, macs: &[u8]) {
    if c.vtep == vtep(i) {
        c.vnis[0].hosts.static_hosts.insert(a, macs.iter().map(|m| mac(*m)).collect());
    }
}

fn world(tweak: impl Fn(&mut Config)) -> World {
    world_with_delay(MS, tweak)
}

fn world_with_delay(delay: Span, tweak: impl Fn(&mut Config)) -> World {
    let mut w = World::with(3, delay, |c| {
        c.arp.claim_time = Span::millis(10);
        tweak(c);
    });
    w.run_for(Span::secs(10));
    w
}

fn announce(w: &mut World, node: usize, port: IfIndex, m: u8, n: u8) {
    w.frame(node, port, mac(m), Some(garp(mac(m), ip(n))));
}

fn host(w: &mut World, i: usize, a: IpAddr) -> Option<HostView> {
    match w.ask(i, Show::Hosts) {
        Rows::Hosts(v) => v.into_iter().find(|h| h.ip == a),
        other => panic!("{other:?}"),
    }
}

fn bound(w: &mut World, i: usize, a: IpAddr) -> Option<Mac> {
    host(w, i, a).map(|h| h.mac)
}

fn row(w: &World, i: usize, a: IpAddr) -> Option<Mac> {
    match w.neigh_row(i, a) {
        Some(Row::Neigh { mac, .. }) => Some(mac),
        None => None,
        other => panic!("{other:?}"),
    }
}

fn count(w: &mut World, i: usize, name: &str) -> u64 {
    w.status(i).counters.get(name).copied().unwrap_or(0)
}

/// The ARP/ND flags of the routes that a node has from its peers for an address.
fn flags(w: &mut World, i: usize, a: IpAddr) -> Vec<String> {
    let Rows::Routes(all) = w.ask(i, Show::Routes) else { panic!("routes were asked for") };
    let of_it = |r: &&RouteView| r.from.is_some() && r.route.contains(&format!("[{a}]"));
    let all = all.iter().filter(of_it).flat_map(|r| r.communities.clone());
    all.filter(|c| c.starts_with("ND:")).collect()
}

fn claims(w: &World, i: usize, owner: u8, claimant: u8) -> usize {
    let of = |e: &Event| matches!(e, Event::StaticHostClaimed { owner: o, mac: m, .. } if (*o, *m) == (mac(owner), mac(claimant)));
    w.hosts[i].events.iter().filter(|(_, e)| of(e)).count()
}

fn twice(w: &World, i: usize) -> Vec<(Mac, Mac)> {
    let of = |e: &Event| match e {
        Event::StaticHostTwice { owner, rival, .. } => Some((*owner, *rival)),
        _ => None,
    };
    w.hosts[i].events.iter().filter_map(|(_, e)| of(e)).collect()
}

#[test]
fn a_static_host_is_advertised_as_immutable_from_the_first_frame_of_its_mac_until_that_goes() {
    let mut w = world(|c| {
        fix(c, 0, ip(1), &[1]);
        fix(c, 0, six(), &[1]);
    });
    assert_eq!((bound(&mut w, 0, ip(1)), row(&w, 1, ip(1))), (None, None), "not before its MAC is there");
    w.frame(0, P1, mac(1), None);
    w.run_for(Span::millis(10));
    assert_eq!((row(&w, 1, ip(1)), row(&w, 1, six())), (Some(mac(1)), Some(mac(1))));
    assert_eq!(
        (flags(&mut w, 1, ip(1)), flags(&mut w, 1, six())),
        (vec!["ND:I".into()], vec!["ND:OI".into()])
    );
    let h = host(&mut w, 0, ip(1)).expect("bound");
    assert_eq!((h.origin.as_str(), h.immutable), ("static", true));
    assert!(host(&mut w, 1, ip(1)).is_some_and(|h| h.immutable), "as its VTEP said");
    // It does not answer what it is asked.
    w.run_for(Span::secs(30));
    assert!(w.hosts[0].emitted.iter().any(|(p, f)| *p == P1 && f[..6] == mac(1).0), "it is asked");
    assert_eq!((row(&w, 1, ip(1)), row(&w, 1, six())), (Some(mac(1)), Some(mac(1))));
    // Nor does it after it has said something.
    announce(&mut w, 0, P1, 1, 1);
    w.run_for(Span::secs(600));
    assert_eq!(row(&w, 1, ip(1)), Some(mac(1)));
    assert!(count(&mut w, 0, "static_hosts_silent") > 0, "it was asked in vain");
    w.forget(0, mac(1));
    w.run_for(Span::millis(10));
    assert_eq!((row(&w, 1, ip(1)), row(&w, 1, six()), bound(&mut w, 0, ip(1))), (None, None, None));
}

#[test]
fn hosts_that_are_not_configured_are_not_immutable() {
    let mut w = world(|c| fix(c, 0, ip(1), &[1]));
    announce(&mut w, 0, P1, 1, 2);
    w.run_for(Span::millis(10));
    assert_eq!(row(&w, 1, ip(2)), Some(mac(1)));
    assert_eq!(flags(&mut w, 1, ip(2)), [""; 0]);
    assert!(host(&mut w, 0, ip(2)).is_some_and(|h| !h.immutable));
    assert!(host(&mut w, 1, ip(2)).is_some_and(|h| !h.immutable));
}

#[test]
fn another_mac_does_not_get_the_address_and_hosts_that_heard_it_are_told_whose_it_is() {
    for spoofer in [0, 1] {
        let mut w = world(|c| fix(c, 0, ip(1), &[1]));
        w.frame(0, P1, mac(1), None);
        w.frame(spoofer, P2, mac(3), None);
        w.frame(spoofer, P2, mac(2), None);
        w.run_for(Span::secs(3));
        for h in &mut w.hosts {
            h.emitted.clear();
            h.encapsulated.clear();
        }
        announce(&mut w, spoofer, P2, 2, 1);
        assert!(w.hosts[spoofer].encapsulated.is_empty(), "nobody is asked: there is nothing to find out");
        w.run_for(Span::secs(3));
        for i in 0..3 {
            assert_eq!(bound(&mut w, i, ip(1)), Some(mac(1)), "node {i}");
        }
        let refused = count(&mut w, spoofer, "static_host_claims_refused");
        assert_eq!((refused, claims(&w, spoofer, 1, 2)), (1, 1), "by node {spoofer}");
        let all = mac(1).0;
        let told = w.hosts[spoofer].emitted.iter();
        let told = told.filter(|(p, f)| {
            *p == P2 && f[..6] == [0xff; 6] && f[6..12] == all && f[28..32] == [10, 1, 0, 1]
        });
        assert_eq!(told.count(), 1, "once where the other host is, which shall not give up its own");
        // A flood of them is answered a few times a second, and is one event.
        let before = w.hosts[spoofer].emitted.len();
        for _ in 0..500 {
            announce(&mut w, spoofer, P2, 2, 1);
            w.run_for(Span::millis(1));
        }
        assert!(w.hosts[spoofer].emitted.len() - before < 40, "{}", w.hosts[spoofer].emitted.len() - before);
        assert_eq!(count(&mut w, spoofer, "static_host_claims_refused"), 501);
        assert_eq!(bound(&mut w, 2, ip(1)), Some(mac(1)));
    }
}

#[test]
fn the_address_of_a_static_host_that_is_not_there_is_nobody_elses() {
    let mut w = world(|c| fix(c, 0, ip(1), &[1]));
    announce(&mut w, 0, P1, 2, 1);
    w.run_for(Span::millis(50));
    assert_eq!((bound(&mut w, 0, ip(1)), row(&w, 1, ip(1))), (None, None));
    assert_eq!(claims(&w, 0, 1, 2), 1);
    // Where it is not configured it may be learned, and is not believed where it is (PROXY-LEARN-03).
    announce(&mut w, 1, P1, 3, 1);
    w.run_for(Span::millis(50));
    assert_eq!((bound(&mut w, 1, ip(1)), row(&w, 2, ip(1))), (Some(mac(3)), Some(mac(3))));
    assert_eq!((bound(&mut w, 0, ip(1)), row(&w, 0, ip(1))), (None, None));
    assert_eq!((claims(&w, 0, 1, 3), count(&mut w, 0, "static_host_routes_refused") > 0), (1, true));
    // It comes, and has it everywhere.
    w.frame(0, P1, mac(1), None);
    w.run_for(Span::millis(50));
    for i in 0..3 {
        assert_eq!(bound(&mut w, i, ip(1)), Some(mac(1)), "node {i}");
    }
}

#[test]
fn of_several_macs_the_one_that_says_so_has_the_address_and_hands_it_over_at_once() {
    let mut w = world(|c| fix(c, 0, ip(1), &[1, 2]));
    w.frame(0, P1, mac(1), None);
    w.run_for(Span::secs(20));
    assert_eq!(bound(&mut w, 0, ip(1)), None, "which of them has it is not known");
    assert!(w.hosts[0].emitted.iter().any(|(p, f)| *p == P1 && f[..6] == mac(1).0), "it is asked");
    announce(&mut w, 0, P2, 2, 1);
    w.run_for(Span::millis(5));
    assert_eq!((bound(&mut w, 0, ip(1)), row(&w, 1, ip(1))), (Some(mac(2)), Some(mac(2))));
    for n in 0..20 {
        let (p, m) = if n % 2 == 0 { (P1, 1) } else { (P2, 2) };
        announce(&mut w, 0, p, m, 1);
        w.run_for(Span::millis(5));
        assert_eq!((bound(&mut w, 0, ip(1)), row(&w, 1, ip(1))), (Some(mac(m)), Some(mac(m))), "turn {n}");
        assert_eq!(flags(&mut w, 1, ip(1)), ["ND:I"]);
    }
    assert_eq!(w.duplicates(0), [], "PROXY-DUP-01");
    announce(&mut w, 0, P2, 3, 1);
    w.run_for(Span::millis(50));
    assert_ne!(bound(&mut w, 0, ip(1)), Some(mac(3)));
}

/// PROXY-EC-04: both speak before they hear of each other, and the other MAC has the higher sequence.
#[test]
fn an_immutable_route_goes_before_one_with_any_sequence() {
    let mut w = world_with_delay(Span::millis(20), |c| fix(c, 0, ip(1), &[1]));
    for n in 0..5 {
        let rarp = world::frames::rarp(mac(2));
        w.frame(2 - n % 2, P1, mac(2), Some(rarp));
        w.run_for(Span::secs(3));
    }
    let seq = |w: &mut World, m: u8| w.macs(1).iter().find(|v| v.mac == mac(m)).map(|v| v.seq);
    assert_eq!(seq(&mut w, 2), Some(Seq(4)));
    announce(&mut w, 2, P1, 2, 1);
    w.frame(0, P1, mac(1), None);
    w.run_for(Span::secs(1));
    assert_eq!((seq(&mut w, 1), seq(&mut w, 2)), (Some(Seq(0)), Some(Seq(4))));
    for i in 0..3 {
        assert_eq!(bound(&mut w, i, ip(1)), Some(mac(1)), "node {i}");
    }
    assert_eq!((row(&w, 1, ip(1)), row(&w, 2, ip(1))), (Some(mac(1)), Some(mac(1))));
    assert_eq!(count(&mut w, 2, "bindings_lost_to_immutable"), 1);
    let sent = w.sent_bytes;
    w.run_for(Span::secs(20));
    assert!(w.sent_bytes - sent < 600, "only keepalives: {}", w.sent_bytes - sent);
    // It has gone: the address is free for whoever has it.
    w.forget(0, mac(1));
    w.run_for(Span::secs(1));
    announce(&mut w, 2, P1, 2, 1);
    w.run_for(Span::secs(1));
    assert_eq!((bound(&mut w, 2, ip(1)), row(&w, 1, ip(1))), (Some(mac(2)), Some(mac(2))));
}

#[test]
fn of_two_immutable_macs_the_one_that_came_last_counts_and_all_are_told() {
    let mut w = world(|c| {
        fix(c, 0, ip(1), &[1]);
        fix(c, 1, ip(1), &[2]);
    });
    for (first, then) in [(0, 1), (1, 0)] {
        for (i, expected) in [(first, first), (then, then)] {
            w.frame(i, P1, mac(i as u8 + 1), None);
            w.run_for(Span::secs(1));
            assert_eq!(row(&w, 2, ip(1)), Some(mac(expected as u8 + 1)), "node {i} came last");
        }
        assert_eq!((bound(&mut w, 0, ip(1)), bound(&mut w, 1, ip(1))), (Some(mac(1)), Some(mac(2))));
        let (won, lost) = (mac(then as u8 + 1), mac(first as u8 + 1));
        assert_eq!(twice(&w, 2).last(), Some(&(won, lost)));
        assert_eq!(twice(&w, 0).last(), Some(&(mac(1), mac(2))));
        assert_eq!(twice(&w, 1).last(), Some(&(mac(2), mac(1))));
        // The later one goes: the other is still there.
        w.forget(then, won);
        w.run_for(Span::secs(1));
        assert_eq!(row(&w, 2, ip(1)), Some(lost));
        w.forget(first, lost);
        w.run_for(Span::secs(60));
        assert_eq!(row(&w, 2, ip(1)), None);
        for h in &mut w.hosts {
            h.events.clear();
        }
    }
}

/// PROXY-EC-04: not the one of the lower VTEP, which other ties go to.
#[test]
fn of_two_immutable_macs_with_one_sequence_it_is_the_one_that_came_last_too() {
    for (first, then) in [(0, 1), (1, 0)] {
        let mut w = world_with_delay(Span::millis(20), |c| {
            fix(c, 0, ip(1), &[1]);
            fix(c, 1, ip(1), &[2]);
        });
        for i in [first, then] {
            w.frame(i, P1, mac(i as u8 + 1), None);
            w.run_for(Span::millis(10));
        }
        w.run_for(Span::secs(1));
        assert!(w.macs(2).iter().all(|m| m.seq == Seq(0)), "neither knew of the other: {:?}", w.macs(2));
        assert_eq!(row(&w, 2, ip(1)), Some(mac(then as u8 + 1)), "node {then} came last");
        assert_eq!(twice(&w, 2).len(), 1);
    }
}

/// PROXY-EC-04: its MAC may move.
#[test]
fn a_static_host_moves_with_its_mac_and_is_immutable_where_it_is_configured() {
    let mut w = world(|c| {
        fix(c, 0, ip(1), &[1]);
        fix(c, 1, ip(1), &[1]);
    });
    w.frame(0, P1, mac(1), None);
    w.run_for(Span::secs(2));
    for (i, immutable) in [(1, true), (2, false), (0, true)] {
        w.frame(i, P1, mac(1), Some(world::frames::rarp(mac(1))));
        w.run_for(Span::millis(20));
        let other = (i + 1) % 3;
        assert_eq!(
            (bound(&mut w, i, ip(1)), row(&w, other, ip(1))),
            (Some(mac(1)), Some(mac(1))),
            "at node {i}"
        );
        assert_eq!(flags(&mut w, other, ip(1)), if immutable { vec!["ND:I"] } else { vec![] }, "at node {i}");
        w.run_for(Span::millis(1500));
    }
}
