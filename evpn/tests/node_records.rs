//! Move records: which kind each move is at every VTEP, who was told when, and what ends a record.

mod world;

use evpn::fabric::{FdbRow, KernelEvent};
use evpn::node::view::{MoveKind, MoveView, Place};
use evpn::node::{About, Event, Input, MoveStep};
use evpn::types::{Mac, Seq, Span};
use std::net::{IpAddr, Ipv4Addr};
use world::frames::garp;
use world::{P1, P2, World, bridge_row, mac, vni, vtep};

const MS: Span = Span::millis(1);

fn ip(n: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 1, 0, n)
}

fn place(port: &str) -> Place {
    Place::Port(port.into())
}

/// The only record of a node.
fn only(w: &mut World, i: usize) -> MoveView {
    let mut all = w.moves(i);
    assert_eq!(all.len(), 1, "node {i}: {all:#?}");
    all.remove(0)
}

/// What tells records apart.
fn gist(m: &MoveView) -> (MoveKind, &str, &str, Place, Place) {
    (m.kind, &m.role, &m.cause, m.from.clone(), m.to.clone())
}

#[test]
fn a_hot_move_is_hot_at_every_vtep_and_each_peer_has_its_time() {
    let mut w = World::converged(3, MS);
    w.frame(0, P1, mac(1), Some(garp(mac(1), ip(1))));
    w.run_for(Span::millis(10));
    let start = w.now;
    w.frame(1, P2, mac(1), Some(garp(mac(1), ip(1))));
    w.run_for(Span::millis(10));
    let (a, b) = (place("p1"), place("p2"));
    let m = only(&mut w, 1);
    assert_eq!(gist(&m), (MoveKind::Hot, "arrived", "frame", Place::Vtep(vtep(0)), b));
    assert_eq!((m.seq_before, m.seq, m.seen, m.decided), (Seq(0), Seq(1), start, start));
    assert_eq!(m.ips, [IpAddr::V4(ip(1))]);
    let told: Vec<_> = m.peers.iter().map(|h| (h.peer, h.at)).collect();
    // This world's sockets take what they are given one delay later.
    assert_eq!(told, [(vtep(0), start + MS), (vtep(2), start + MS)]);
    assert_eq!((m.sent, m.acked, m.told), (Some(start + MS), Some(start), None));
    let m = only(&mut w, 0);
    assert_eq!(gist(&m), (MoveKind::Hot, "left", "bgp", a, Place::Vtep(vtep(1))));
    assert_eq!((m.seen, m.acked, m.silent), (start + MS, Some(start + MS), Some(Span::millis(11))));
    assert_eq!(m.peers.len(), 2, "its withdrawal went to both");
    let m = only(&mut w, 2);
    let (from, to) = (Place::Vtep(vtep(0)), Place::Vtep(vtep(1)));
    assert_eq!(gist(&m), (MoveKind::Hot, "remote", "bgp", from, to));
    assert_eq!((m.peers.len(), m.sent, m.acked), (0, None, Some(start + MS)));
}

/// MIG-WARM-01: only the VTEP that lost it can know that it was silent.
#[test]
fn a_mac_that_had_been_silent_for_a_minute_moves_warm_at_the_vtep_that_loses_it() {
    let mut w = World::converged(2, MS);
    w.frame(0, P1, mac(1), None);
    w.run_for(Span::secs(61));
    w.frame(1, P1, mac(1), None);
    w.run_for(Span::millis(10));
    let left = only(&mut w, 0);
    assert_eq!((left.kind, left.silent), (MoveKind::Warm, Some(Span::secs(61) + MS)));
    assert_eq!(only(&mut w, 1).kind, MoveKind::Hot);
    // A frame is a sign of life: back within the minute is hot.
    w.run_for(Span::secs(50));
    w.frame(1, P1, mac(1), Some(garp(mac(1), ip(1))));
    w.run_for(Span::secs(20));
    w.frame(0, P1, mac(1), Some(garp(mac(1), ip(1))));
    w.run_for(Span::millis(10));
    let back = w.moves(1).pop().expect("a record");
    assert_eq!((&*back.role, back.kind, back.silent), ("left", MoveKind::Hot, Some(Span::secs(20) + MS)));
}

/// MIG-COLD-01: gone, then elsewhere.
#[test]
fn a_cold_move_is_recognised_by_the_last_owner_everywhere() {
    let mut w = World::converged(3, MS);
    w.frame(0, P1, mac(1), Some(garp(mac(1), ip(1))));
    w.run_for(Span::millis(10));
    w.forget(0, mac(1));
    w.run_for(Span::secs(30));
    for i in 0..3 {
        assert!(w.moves(i).is_empty(), "gone is no move");
    }
    w.frame(1, P2, mac(1), Some(garp(mac(1), ip(1))));
    w.run_for(Span::millis(10));
    let (a, b, va, vb) = (place("p1"), place("p2"), Place::Vtep(vtep(0)), Place::Vtep(vtep(1)));
    assert_eq!(gist(&only(&mut w, 1)), (MoveKind::Cold, "arrived", "frame", va.clone(), b));
    assert_eq!(gist(&only(&mut w, 0)), (MoveKind::Cold, "left", "bgp", a, vb.clone()));
    assert_eq!(gist(&only(&mut w, 2)), (MoveKind::Cold, "remote", "bgp", va, vb));
    assert_eq!(only(&mut w, 1).peers.len(), 2);
}

#[test]
fn a_mac_that_comes_back_to_its_place_has_not_moved() {
    let mut w = World::converged(2, MS);
    for _ in 0..3 {
        w.frame(0, P1, mac(1), Some(garp(mac(1), ip(1))));
        w.run_for(Span::millis(10));
        w.forget(0, mac(1));
        w.run_for(Span::millis(10));
    }
    w.frame(0, P1, mac(1), None);
    w.run_for(Span::millis(10));
    w.cut(0, 1);
    w.run_for(Span::secs(120));
    assert!(w.mac_row(1, mac(1)).is_some(), "the session came back");
    assert!(w.moves(0).is_empty() && w.moves(1).is_empty());
}

/// RFC 9721 §3.2.2, EVPN-XMOB-06: an address goes to another MAC, while the old one lives and after it has gone.
#[test]
fn an_address_that_changes_its_mac_is_a_record_of_its_own_at_every_vtep() {
    for cold in [false, true] {
        let mut w = World::converged(3, MS);
        w.frame(0, P1, mac(1), Some(garp(mac(1), ip(1))));
        w.run_for(Span::millis(10));
        if cold {
            w.forget(0, mac(1));
            w.run_for(Span::millis(10));
        }
        w.frame(1, P2, mac(2), Some(garp(mac(2), ip(1))));
        w.run_for(Span::millis(10));
        let (a, b, va, vb) = (place("p1"), place("p2"), Place::Vtep(vtep(0)), Place::Vtep(vtep(1)));
        for (i, role, from, to) in
            [(1, "arrived", va.clone(), b), (0, "left", a, vb.clone()), (2, "remote", va, vb)]
        {
            let m = only(&mut w, i);
            let cause = if i == 1 { "frame" } else { "bgp" };
            assert_eq!(gist(&m), (MoveKind::ChangedMac, role, cause, from, to), "cold: {cold}");
            assert_eq!((m.mac, m.mac_before), (mac(2), Some(mac(1))), "cold: {cold}, node {i}");
            assert_eq!(m.ips, [IpAddr::V4(ip(1))]);
            assert_eq!(m.peers.len(), if role == "remote" || (role == "left" && cold) { 0 } else { 2 });
        }
    }
}

/// RFC 9721 §3.2.3: the MAC moves and takes another address.
#[test]
fn a_mac_that_moves_and_takes_another_address_gets_a_record_for_that() {
    let mut w = World::converged(3, MS);
    w.frame(0, P1, mac(1), Some(garp(mac(1), ip(1))));
    w.run_for(Span::millis(10));
    w.frame(1, P2, mac(1), None);
    w.run_for(Span::secs(1));
    w.frame(1, P2, mac(1), Some(garp(mac(1), ip(7))));
    w.run_for(Span::millis(10));
    let all = w.moves(1);
    let gists: Vec<_> = all.iter().map(|m| (m.kind, m.ips.clone(), m.from.clone())).collect();
    let from = Place::Vtep(vtep(0));
    let want =
        [(MoveKind::Hot, vec![ip(1).into()], from.clone()), (MoveKind::NewIp, vec![ip(7).into()], from)];
    assert_eq!(gists, want);
    assert_eq!(w.moves(2).iter().map(|m| m.kind).collect::<Vec<_>>(), [MoveKind::Hot, MoveKind::NewIp]);
    // Long after the move a further address is just an address.
    w.run_for(Span::secs(20));
    w.frame(1, P2, mac(1), Some(garp(mac(1), ip(8))));
    w.run_for(Span::millis(10));
    assert_eq!(w.moves(1).len(), 2);
}

/// PIT-06: a prepared move is decided on when the kernel has the row; its first sign is the request.
#[test]
fn an_activated_move_names_who_asked_and_has_the_kernel_before_the_peers() {
    let mut w = World::converged(2, MS);
    w.frame(0, P1, mac(1), Some(garp(mac(1), ip(1))));
    w.run_for(Span::millis(10));
    let start = w.now;
    w.step(1, mac(1), &[], MoveStep::Activate { port: Some("p2".into()), timeout: None });
    let why = |w: &mut World, i| w.why(i, vni(), About::Mac(mac(1))).expect("known").because.join(" ");
    w.run_for(Span::millis(10));
    let m = only(&mut w, 1);
    let (from, to) = (Place::Vtep(vtep(0)), place("p2"));
    assert_eq!(gist(&m), (MoveKind::Hot, "arrived", "api", from, to));
    assert_eq!((m.seen, m.acked, m.ips.len()), (start, Some(m.decided), 1));
    assert!(m.sent.is_some_and(|t| t > m.decided));
    let text = why(&mut w, 1);
    assert!(text.contains("activated on port p2 (api) and has not been heard"), "{text}");
    w.step(0, mac(1), &[], MoveStep::Release { timeout: None });
    let text = why(&mut w, 0);
    assert!(text.contains("Its hypervisor has released it here"), "{text}");
}

#[test]
fn a_peer_that_goes_away_does_not_hold_a_record_open() {
    let mut w = World::converged(3, Span::millis(10));
    w.frame(0, P1, mac(1), None);
    w.run_for(Span::millis(50));
    w.frame(1, P1, mac(1), None);
    let told = |w: &World| w.hosts[1].events.iter().any(|(_, e)| matches!(e, Event::Move(_)));
    assert!(!told(&w), "no socket has taken it yet");
    w.cut(1, 2);
    w.run_for(Span::millis(10));
    let m = only(&mut w, 1);
    assert_eq!(m.peers.iter().map(|h| h.peer).collect::<Vec<_>>(), [vtep(0)]);
    assert!(m.sent.is_some() && told(&w));
}

#[test]
fn a_record_that_cannot_end_is_closed_as_it_is() {
    let mut w = World::converged(2, MS);
    w.frame(0, P1, mac(1), None);
    w.run_for(Span::millis(10));
    w.hosts[1].paused = true;
    w.frame(1, P1, mac(1), None);
    let closed = |w: &World| {
        w.hosts[1]
            .events
            .iter()
            .find_map(|(t, e)| if let Event::Move(m) = e { Some((*t, m.clone())) } else { None })
    };
    let begun = w.now;
    w.run_for(Span::secs(4));
    assert!(closed(&w).is_none());
    w.run_for(Span::secs(2));
    let (at, m) = closed(&w).expect("told all the same");
    assert_eq!((at, m.acked), (begun + Span::secs(5), None));
    assert!(m.sent.is_some());
}

/// The queue of 16,384 open records gives up its oldest, and nothing is lost but their end.
#[test]
fn more_moves_than_can_be_open_at_once_are_all_told() {
    let mut w = World::converged(2, MS);
    let m = |n: u32| {
        let [_, a, b, c] = n.to_be_bytes();
        Mac([2, 0, 9, a, b, c])
    };
    const N: u32 = 17_000;
    let learn = |w: &mut World, i: usize| {
        for n in 0..N {
            let row = FdbRow::Bridge(bridge_row(m(n), P1, false));
            w.hosts[i].node.handle(Input::Kernel(KernelEvent::Fdb(row)), w.now);
        }
        w.run_for(MS);
    };
    learn(&mut w, 0);
    w.run_for(Span::secs(1));
    assert_eq!(w.status(1).remote_macs, N as usize);
    w.hosts[1].paused = true;
    learn(&mut w, 1);
    let told = w.hosts[1].events.iter().filter(|(_, e)| matches!(e, Event::Move(_))).count();
    assert_eq!(told, N as usize - 16_384);
    let first =
        w.hosts[1].events.iter().find_map(|(_, e)| if let Event::Move(v) = e { Some(v.mac) } else { None });
    assert_eq!(first, Some(m(0)), "the oldest first");
    w.run_for(Span::secs(6));
    let told = w.hosts[1].events.iter().filter(|(_, e)| matches!(e, Event::Move(_))).count();
    assert_eq!(told, N as usize);
    assert_eq!(w.moves(1).len(), 256, "a slice");
}
