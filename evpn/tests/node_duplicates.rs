//! Duplicates, and what only looks like one: storms of announcements, ping-pong, virtual routers
//! (EVPN-MOB-15, -16, EVPN-XMOB-17). Addresses: `node_duplicate_ips`.

mod twins;
mod world;

use evpn::fabric::Row;
use evpn::node::view::Place;
use evpn::node::{About, Command, Config, DuplicateAction, DuplicateMode, Event, Reply};
use evpn::types::{IfIndex, Mac, Span};
use proptest::prelude::*;
use std::net::Ipv4Addr;
use twins::{agreed, all, both_talk, ip, mode, speaks, told, twins, world};
use world::frames::{arp, rarp};
use world::{Guest, P1, P2, VXLAN, World, mac, vni, vtep};

/// EVPN-MOB-15 [P]: two live hosts with one MAC are told of within a second, whatever is done about them.
#[test]
fn a_true_duplicate_is_found_within_a_second() {
    for action in [DuplicateAction::Report, DuplicateAction::Freeze, DuplicateAction::Block] {
        let mut w = world(3, mode(DuplicateMode::Oscillation, action));
        twins(&mut w, 1);
        speaks(&mut w, 0, mac(1), 1);
        w.run_for(Span::secs(5));
        let start = w.now;
        both_talk(&mut w, 1, 20);
        let found: Vec<_> = (0..3)
            .flat_map(|i| w.hosts[i].events.iter().filter(|(_, e)| matches!(e, Event::Duplicate { .. })))
            .collect();
        let (at, event) = found.first().expect("found out");
        assert!(at.since(start) <= Span::secs(1), "{action:?}: after {}", at.since(start));
        let Event::Duplicate { address, owners, port, .. } = event else { unreachable!() };
        assert_eq!((*address, port.as_str()), (About::Mac(mac(1)), "p1"));
        assert_eq!(owners.len(), 2, "{owners:?}");
        assert!(told(&w, 0) <= 1 && told(&w, 1) <= 1 && told(&w, 2) == 0, "told once");
    }
}

/// EVPN-MOB-15, -16: frozen, its routes are neither sent nor processed; it stays with its owner whatever the other
/// one says, and no frame of the other one takes the row.
#[test]
fn a_frozen_mac_stays_where_it_is() {
    for action in [DuplicateAction::Freeze, DuplicateAction::Block] {
        let mut w = world(3, mode(DuplicateMode::Oscillation, action));
        twins(&mut w, 1);
        both_talk(&mut w, 1, 30);
        w.run_for(Span::secs(1));
        let found = all(&mut w, 3);
        assert_eq!(found.len(), 1, "one side freezes: {found:?}");
        let (loser, d) = found[0].clone();
        let owner = agreed(&mut w, 3, mac(1), &[0, 1]);
        assert_eq!(owner, 1 - loser);
        assert_eq!(d.holder, Place::Vtep(vtep(owner)));
        assert_eq!(d.state, if action == DuplicateAction::Freeze { "frozen" } else { "blocked" });
        let held = Some(Row::Remote { vxlan: VXLAN, vtep: vtep(owner), sticky: true });
        assert_eq!(w.mac_row(loser, mac(1)), held);
        let blocked: Vec<(IfIndex, Mac)> = w.hosts[loser].blocked.iter().copied().collect();
        assert_eq!(blocked, if action == DuplicateAction::Block { vec![(P1, mac(1))] } else { vec![] });
        let (seq, bytes) = (w.macs(2)[0].seq, w.hosts[loser].writes);
        both_talk(&mut w, 1, 200);
        w.run_for(Span::secs(2));
        w.frame(loser, P2, mac(1), Some(rarp(mac(1))));
        assert_eq!((w.macs(2)[0].seq, w.hosts[loser].writes), (seq, bytes), "nothing moves");
        assert_eq!(agreed(&mut w, 3, mac(1), &[0, 1]), owner);
        assert!(w.macs(loser)[0].duplicate && !w.macs(2)[0].duplicate);
        assert_eq!(told(&w, loser), 1);
        assert_eq!(w.status(loser).counters["duplicates"], 1);
        let why = w.why(loser, vni(), About::Mac(mac(1))).expect("known").because.join(" ");
        let parts = [
            "52:54:00:00:00:01 is a duplicate (",
            &format!("{} here for ", d.state),
            "--vni 100 --mac 52:54:00:00:00:01`",
        ];
        assert!(parts.iter().all(|p| why.contains(p)), "{why}");
    }
}

/// The same while its owner's host moves on: the route of the next VTEP is not processed as long as the owner's is
/// there, and is as soon as it is gone.
#[test]
fn a_frozen_mac_is_let_go_when_its_owner_withdraws() {
    let mut w = world(3, mode(DuplicateMode::Oscillation, DuplicateAction::Block));
    twins(&mut w, 1);
    both_talk(&mut w, 1, 30);
    let owner = agreed(&mut w, 3, mac(1), &[0, 1]);
    let loser = 1 - owner;
    let before = w.macs(2)[0].seq;
    w.guests.retain(|g| g.node != owner);
    w.forget(owner, mac(1));
    w.run_for(Span::millis(50));
    assert_eq!(w.duplicates(loser), []);
    assert!(w.hosts[loser].blocked.is_empty(), "and its frames pass again");
    // The survivor is asked, answers, and has the MAC with a sequence above the other's (EVPN-XMOB-17).
    assert_eq!(agreed(&mut w, 3, mac(1), &[loser]), loser);
    assert!(w.macs(2)[0].seq.newer_than(before));
    let ended = |e: &Event| matches!(e, Event::DuplicateEnded { .. });
    assert_eq!(w.hosts[loser].events.iter().filter(|(_, e)| ended(e)).count(), 1);
}

/// EVPN-MOB-16: our own host is silent, so there is one only.
#[test]
fn a_frozen_mac_is_let_go_when_the_other_host_dies() {
    let mut w = world(3, mode(DuplicateMode::Oscillation, DuplicateAction::Freeze));
    twins(&mut w, 1);
    both_talk(&mut w, 1, 30);
    let owner = agreed(&mut w, 3, mac(1), &[0, 1]);
    let loser = 1 - owner;
    w.run_for(Span::secs(10));
    assert_eq!(w.duplicates(loser).len(), 1, "it answers and stays one");
    w.guests.retain(|g| g.node == owner);
    w.run_for(Span::secs(6));
    assert_eq!(w.duplicates(loser), []);
    assert_eq!(agreed(&mut w, 3, mac(1), &[owner]), owner);
    let plain = Some(Row::Remote { vxlan: VXLAN, vtep: vtep(owner), sticky: false });
    assert_eq!(w.mac_row(loser, mac(1)), plain, "it may move again");
}

/// PIT-16: a host that may be checking its address is not asked for it, and so does not fail to answer.
#[test]
fn a_host_that_checks_its_address_is_not_called_silent() {
    let mut w = world(3, mode(DuplicateMode::Oscillation, DuplicateAction::Freeze));
    twins(&mut w, 1);
    both_talk(&mut w, 1, 30);
    let loser = 1 - agreed(&mut w, 3, mac(1), &[0, 1]);
    w.frame(loser, P1, mac(1), Some(arp(mac(1), Ipv4Addr::UNSPECIFIED, ip(1))));
    w.run_for(Span::secs(8));
    assert_eq!(w.duplicates(loser).len(), 1, "both live");
}

/// EVPN-MOB-16: timer R.
#[test]
fn the_recovery_time_lets_go_and_it_is_found_again() {
    let mut w = world(2, |c| {
        mode(DuplicateMode::Oscillation, DuplicateAction::Freeze)(c);
        c.mobility.duplicates.recovery = Some(Span::secs(20));
    });
    twins(&mut w, 1);
    both_talk(&mut w, 1, 30);
    let first = agreed(&mut w, 2, mac(1), &[0, 1]);
    assert_eq!(told(&w, 1 - first), 1);
    for _ in 0..15 {
        both_talk(&mut w, 1, 5);
        w.run_for(Span::secs(2));
    }
    assert_eq!(told(&w, 0) + told(&w, 1), 2, "both still talk");
    agreed(&mut w, 2, mac(1), &[0, 1]);
}

/// EVPN-XMOB-17: cleared by an operator, the host here is asked and claims the MAC above the other's sequence.
#[test]
fn a_cleared_mac_is_claimed_above_the_other_sequence() {
    let mut w = world(3, mode(DuplicateMode::Oscillation, DuplicateAction::Freeze));
    twins(&mut w, 1);
    both_talk(&mut w, 1, 30);
    let owner = agreed(&mut w, 3, mac(1), &[0, 1]);
    let loser = 1 - owner;
    let before = w.macs(2)[0].seq;
    let clear = |address| Command::ClearDuplicate { vni: vni(), address };
    assert!(
        matches!(w.command(owner, clear(About::Mac(mac(1)))), Reply::Error(e) if e.contains("show duplicates"))
    );
    assert!(matches!(w.command(loser, clear(About::Ip(ip(1).into()))), Reply::Error(_)));
    // The operator has seen to it that the other one is gone, but its VTEP does not know yet.
    w.guests.retain(|g| g.node == loser);
    assert!(matches!(w.command(loser, clear(About::Mac(mac(1)))), Reply::Cleared(_)));
    w.run_for(Span::millis(20));
    assert_eq!(agreed(&mut w, 3, mac(1), &[loser]), loser);
    assert!(w.macs(2)[0].seq.newer_than(before));
    w.run_for(Span::secs(60));
    assert_eq!(all(&mut w, 3).len(), 0);
}

/// A duplicate that is only reported changes sides, but at the pace of the guard time.
#[test]
fn a_reported_duplicate_does_not_flap_faster_than_the_guard_time() {
    let mut w = world(3, mode(DuplicateMode::Oscillation, DuplicateAction::Report));
    twins(&mut w, 1);
    both_talk(&mut w, 1, 30);
    let before = w.macs(2)[0].seq.0;
    both_talk(&mut w, 1, 500);
    let climbed = w.macs(2)[0].seq.0 - before;
    assert!(climbed <= 22, "{climbed} moves in 10 s");
    assert!(all(&mut w, 3).iter().all(|(_, d)| d.state == "reported"));
    // One dies: the other one keeps it, and after a while nobody speaks of a duplicate.
    w.guests.retain(|g| g.node == 0);
    for _ in 0..50 {
        w.run_for(Span::secs(1));
        speaks(&mut w, 0, mac(1), 1);
    }
    assert_eq!(agreed(&mut w, 3, mac(1), &[0]), 0);
    assert_eq!(all(&mut w, 3), []);
}

/// A host that nobody knows an address of cannot be asked. It is alive when it goes on speaking, after the guard
/// time, where the MAC was lost.
#[test]
fn a_duplicate_without_addresses_is_found_by_its_frames() {
    let mut w = world(3, mode(DuplicateMode::Oscillation, DuplicateAction::Freeze));
    for _ in 0..80 {
        for node in [0, 1] {
            w.frame(node, P1, mac(7), None);
            w.run_for(Span::millis(50));
        }
    }
    let found = all(&mut w, 3);
    assert_eq!(found.len(), 1, "{found:?}");
    agreed(&mut w, 3, mac(7), &[0, 1]);
}

/// RFC 7432 §15.1 as it is written: the fifth move within 180 s, detected by local learning.
#[test]
fn mode_rfc7432_freezes_at_the_fifth_local_move() {
    let mut w = world(2, mode(DuplicateMode::Rfc7432, DuplicateAction::Freeze));
    w.frame(0, P1, mac(1), Some(rarp(mac(1))));
    for n in 0..4 {
        w.run_for(Span::secs(2));
        w.frame(1, P1, mac(1), Some(rarp(mac(1))));
        w.run_for(Span::secs(2));
        w.frame(0, P1, mac(1), Some(rarp(mac(1))));
        w.run_for(Span::millis(5));
        assert_eq!(told(&w, 0) + told(&w, 1), 0, "after {} moves", 2 * n + 2);
        assert_eq!(agreed(&mut w, 2, mac(1), &[0]), 0);
    }
    w.run_for(Span::secs(2));
    w.frame(1, P1, mac(1), Some(rarp(mac(1))));
    w.run_for(Span::millis(5));
    assert_eq!((told(&w, 0), told(&w, 1)), (0, 1));
    assert_eq!(agreed(&mut w, 2, mac(1), &[0]), 0, "it stays with its owner");
}

#[test]
fn mode_off_lets_them_fight() {
    let mut w = world(2, mode(DuplicateMode::Off, DuplicateAction::Freeze));
    twins(&mut w, 1);
    both_talk(&mut w, 1, 50);
    assert_eq!((told(&w, 0), told(&w, 1)), (0, 0));
    assert_eq!(all(&mut w, 2), []);
}

/// A VM that is moved to and fro by a person, announced each time: the host answers only where it is.
#[test]
fn ping_pong_of_a_live_vm_is_no_duplicate() {
    let mut w = world(3, mode(DuplicateMode::Oscillation, DuplicateAction::Freeze));
    let mut at = 0;
    w.guests.push(Guest { node: at, port: P1, mac: mac(1), ip: ip(1) });
    speaks(&mut w, at, mac(1), 1);
    for n in 0..30u64 {
        w.run_for(Span::millis(100 + 97 * (n % 30)));
        at = (at + 1 + (n % 2) as usize * (n % 3 == 0) as usize) % 3;
        w.guests[0].node = at;
        w.frame(at, P1, mac(1), Some(rarp(mac(1))));
        w.run_for(Span::millis(30));
        assert_eq!(agreed(&mut w, 3, mac(1), &[at]), at, "move {n}");
        speaks(&mut w, at, mac(1), 1);
    }
    assert_eq!((told(&w, 0), told(&w, 1), told(&w, 2)), (0, 0, 0));
}

/// Virtual routers float: VRRP's MAC may be anywhere, without alarm and without being held.
#[test]
fn a_virtual_router_is_never_frozen() {
    let own = |c: &mut Config| {
        mode(DuplicateMode::Rfc7432, DuplicateAction::Freeze)(c);
        c.vnis[0].mobility.floating_macs.push("02:aa:00:00:00:00/16".parse().expect("valid"));
    };
    for m in [Mac([0, 0, 0x5e, 0, 1, 7]), Mac([0, 0, 0x0c, 0x07, 0xac, 1]), Mac([2, 0xaa, 1, 2, 3, 4])] {
        let mut w = world(2, own);
        for _ in 0..12 {
            for node in [0, 1] {
                w.frame(node, P1, m, Some(arp(m, ip(9), ip(9))));
                w.run_for(Span::secs(2));
            }
        }
        assert_eq!((told(&w, 0), told(&w, 1)), (0, 0), "{m}");
        assert_eq!(agreed(&mut w, 2, m, &[1]), 1);
    }
}

/// One migration of a storm: announcements at the target at these times (ms), late frames at the source at those;
/// some of the late frames are announcements that had waited in a queue.
#[derive(Clone, Debug)]
struct Migration {
    delay: u64,
    announced: Vec<(u64, bool)>,
    late: Vec<(u64, bool)>,
}

fn migration() -> impl Strategy<Value = Migration> {
    let announced = prop::collection::vec((0u64..1000, any::<bool>()), 6);
    let late = prop::collection::vec((0u64..900, prop::bool::weighted(0.2)), 0..12);
    (1u64..20_000, announced, late).prop_map(|(delay, mut announced, late)| {
        announced[0].0 = 0;
        Migration { delay, announced, late }
    })
}

/// Plays it and gives the world: the VM was at node 0 and is at node 1.
fn play(m: &Migration, tweak: impl Fn(&mut Config)) -> World {
    let mut w = World::with(3, Span::micros(m.delay), tweak);
    w.run_for(Span::secs(10));
    w.guests.push(Guest { node: 0, port: P1, mac: mac(1), ip: ip(1) });
    speaks(&mut w, 0, mac(1), 1);
    w.run_for(Span::secs(2));
    w.guests[0].node = 1;
    let mut steps: Vec<(u64, usize, bool)> = m.announced.iter().map(|(t, g)| (*t, 1, *g)).collect();
    steps.extend(m.late.iter().map(|(t, strong)| (*t, 0, *strong)));
    steps.sort_by_key(|s| (s.0, std::cmp::Reverse(s.1)));
    let start = w.now;
    for (t, node, flag) in steps {
        let at = start + Span::millis(t);
        let wait = at.since(w.now);
        w.run_for(wait);
        let frame = match (node, flag) {
            (1, true) => Some(rarp(mac(1))),
            (1, false) | (0, true) => Some(arp(mac(1), ip(1), ip(1))),
            _ => None,
        };
        w.frame(node, P1, mac(1), frame);
    }
    w.run_for(Span::secs(3));
    w
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// "How it is seen": six announcements in a second while late frames still leave the source; nobody is frozen,
    /// and the VM ends at the target before it has said anything but its announcements.
    #[test]
    fn a_live_migration_is_never_a_duplicate_and_ends_at_the_target(m in migration()) {
        let mut w = play(&m, mode(DuplicateMode::Oscillation, DuplicateAction::Freeze));
        prop_assert_eq!(all(&mut w, 3), vec![]);
        prop_assert_eq!((told(&w, 0), told(&w, 1), told(&w, 2)), (0, 0, 0));
        agreed(&mut w, 3, mac(1), &[1]);
    }

    /// Two live hosts, whoever speaks when: found out, and afterwards one of them has it everywhere.
    #[test]
    fn two_live_hosts_are_found_whatever_their_rhythm(
        delay in 1u64..20_000,
        says in prop::collection::vec((0usize..2, 1u64..120), 40..80),
    ) {
        let mut w = World::with(3, Span::micros(delay), mode(DuplicateMode::Oscillation, DuplicateAction::Block));
        w.run_for(Span::secs(10));
        twins(&mut w, 1);
        for (node, wait) in says {
            speaks(&mut w, node, mac(1), 1);
            w.run_for(Span::millis(wait));
        }
        both_talk(&mut w, 1, 5);
        w.run_for(Span::millis(500));
        let found = all(&mut w, 3);
        prop_assert_eq!(found.len(), 1, "{:?}", found);
        let owner = agreed(&mut w, 3, mac(1), &[0, 1]);
        prop_assert_eq!(found[0].0, 1 - owner);
    }
}
