//! Claims on an address that another MAC has: who is asked, for how long, what counts at once, and what becomes of two live
//! hosts with one address (PROXY-DUP-03, PROXY-DUP-04, MIG-COLD-01).

mod world;

use evpn::fabric::{KernelEvent, Row};
use evpn::node::{About, Command, Config, ConflictPolicy, Event, MoveStep, Reply, Show, view};
use evpn::types::{IfIndex, Mac, Seq, Span};
use proptest::prelude::*;
use std::net::{IpAddr, Ipv4Addr};
use world::steps::{MS, RELEASE, garp, ip, prepare};
use world::{Guest, P1, P2, VXLAN, World, frames, mac, own_mac, probe_mac, vni, vtep};

fn world_with(tweak: impl Fn(&mut Config)) -> World {
    let mut w = World::with(3, MS, |c| {
        c.arp.claim_time = Span::millis(10);
        tweak(c);
    });
    w.run_for(Span::secs(10));
    w
}

fn v4(n: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 1, 0, n)
}

/// A host that answers.
fn live(w: &mut World, node: usize, port: IfIndex, m: u8, n: u8) {
    w.guests.push(Guest { node, port, mac: mac(m), ip: v4(n) });
    announce(w, node, port, m, n);
}

fn announce(w: &mut World, node: usize, port: IfIndex, m: u8, n: u8) {
    w.frame(node, port, mac(m), Some(garp(mac(m), ip(n))));
}

fn bound(w: &mut World, i: usize, n: u8) -> Option<Mac> {
    match w.ask(i, Show::Hosts) {
        view::Rows::Hosts(v) => v.iter().find(|h| h.ip == ip(n)).map(|h| h.mac),
        other => panic!("{other:?}"),
    }
}

fn row(w: &World, i: usize, n: u8) -> Option<Mac> {
    match w.neigh_row(i, ip(n)) {
        Some(Row::Neigh { mac, .. }) => Some(mac),
        None => None,
        other => panic!("{other:?}"),
    }
}

fn count(w: &mut World, i: usize, name: &str) -> u64 {
    w.status(i).counters.get(name).copied().unwrap_or(0)
}

/// Questions to this host for this address that have entered the overlay at a node since the last look.
fn asked_afar(w: &mut World, i: usize, m: u8, n: u8) -> Vec<IpAddr> {
    let all = std::mem::take(&mut w.hosts[i].encapsulated);
    all.into_iter()
        .filter(|(_, f)| {
            f[..6] == mac(m).0
                && f[6..12] == probe_mac(i).0
                && f[12..14] == [8, 6]
                && f[28..32] == [0; 4]
                && f[38..42] == v4(n).octets()
        })
        .map(|(to, _)| to)
        .collect()
}

#[test]
fn a_silent_owner_elsewhere_loses_its_address_when_its_time_is_over_and_not_before() {
    let mut w = world_with(|_| {});
    announce(&mut w, 0, P1, 1, 1);
    w.run_for(Span::millis(50));
    w.hosts[1].encapsulated.clear();
    announce(&mut w, 1, P1, 2, 1);
    assert_eq!(asked_afar(&mut w, 1, 1, 1), [vtep(0)], "its owner, at its VTEP, from our probe MAC");
    w.run_for(Span::millis(9));
    assert_eq!((bound(&mut w, 1, 1), bound(&mut w, 2, 1)), (Some(mac(1)), Some(mac(1))));
    w.run_for(Span::millis(5));
    assert_eq!((bound(&mut w, 1, 1), bound(&mut w, 2, 1)), (Some(mac(2)), Some(mac(2))));
    assert_eq!((row(&w, 0, 1), row(&w, 1, 1), row(&w, 2, 1)), (Some(mac(2)), None, Some(mac(2))));
    assert_eq!((count(&mut w, 1, "claims_checked"), count(&mut w, 1, "claims_unanswered")), (1, 1));
}

#[test]
fn a_live_owner_keeps_its_address_however_often_another_host_announces_it() {
    let mut w = world_with(|c| c.arp.conflict = ConflictPolicy::First);
    live(&mut w, 0, P1, 1, 1);
    w.run_for(Span::millis(50));
    for n in 0..100 {
        announce(&mut w, 1, P1, 2, 1);
        w.run_for(Span::millis(1 + n));
        for i in 0..3 {
            assert_eq!(bound(&mut w, i, 1), Some(mac(1)), "announcement {n}, node {i}");
        }
        assert_eq!((row(&w, 1, 1), row(&w, 2, 1)), (Some(mac(1)), Some(mac(1))));
    }
    let [d]: [view::DuplicateView; 1] = w.duplicates(1).try_into().expect("one");
    assert_eq!((d.address, d.state.as_str()), (About::Ip(ip(1)), "frozen"));
    assert_eq!(d.owners, [mac(1).to_string(), mac(2).to_string()]);
    let told = w.hosts[1].events.iter().filter(|(_, e)| matches!(e, Event::Duplicate { .. })).count();
    assert_eq!(told, 1, "told once");
}

#[test]
fn both_outcomes_are_there_within_twenty_ms() {
    for alive in [false, true] {
        let mut w = world_with(|c| c.arp.conflict = ConflictPolicy::First);
        if alive {
            live(&mut w, 0, P1, 1, 1);
        } else {
            announce(&mut w, 0, P1, 1, 1);
        }
        w.run_for(Span::millis(50));
        announce(&mut w, 1, P1, 2, 1);
        w.run_for(Span::millis(20));
        assert_eq!(w.duplicates(1).len(), usize::from(alive));
        assert_eq!(bound(&mut w, 2, 1), Some(mac(if alive { 1 } else { 2 })));
    }
}

/// Frames without end on one port are nobody's answer on another one: the outcome there is as soon as ever. Where the owner's
/// answer may wait to be read, it is waited for.
#[test]
fn a_storm_on_another_port_delays_no_claim() {
    for (unread, waits) in [(P1, false), (VXLAN, true)] {
        let mut w = world_with(|_| {});
        announce(&mut w, 0, P1, 1, 1);
        w.run_for(Span::secs(1));
        w.hosts[1].node.set_unread([unread].into());
        announce(&mut w, 1, P2, 2, 1);
        for _ in 0..19 {
            w.run_for(Span::millis(1));
            w.frame(1, P1, mac(9), None);
        }
        assert_eq!(bound(&mut w, 1, 1) == Some(mac(1)), waits, "{unread:?}");
        w.run_for(Span::millis(200));
        w.frame(1, P1, mac(9), None);
        assert_eq!(bound(&mut w, 1, 1), Some(mac(2)), "and not for ever");
    }
}

#[test]
fn two_hosts_of_one_vtep_are_asked_on_their_own_port() {
    for alive in [false, true] {
        let mut w = world_with(|_| {});
        if alive {
            live(&mut w, 0, P1, 1, 1);
        } else {
            announce(&mut w, 0, P1, 1, 1);
        }
        w.run_for(Span::millis(50));
        w.hosts[0].emitted.clear();
        announce(&mut w, 0, P2, 2, 1);
        let asked: Vec<_> = w.hosts[0].emitted.iter().filter(|(_, f)| f[..6] == mac(1).0).collect();
        assert!(matches!(asked[..], [(P1, _)]), "{asked:?}");
        w.run_for(Span::millis(20));
        assert_eq!(bound(&mut w, 0, 1), Some(mac(if alive { 1 } else { 2 })), "alive: {alive}");
        assert_eq!(w.duplicates(0).len(), usize::from(alive));
    }
}

#[test]
fn what_has_nothing_to_defend_it_is_lost_at_once() {
    // Withdrawn.
    let mut w = world_with(|_| {});
    announce(&mut w, 0, P1, 1, 1);
    w.run_for(Span::millis(50));
    w.forget(0, mac(1));
    w.run_for(Span::millis(10));
    announce(&mut w, 1, P1, 2, 1);
    assert_eq!(bound(&mut w, 1, 1), Some(mac(2)));
    // Released by its hypervisor, at the same VTEP.
    let mut w = world_with(|_| {});
    live(&mut w, 0, P1, 1, 1);
    w.run_for(Span::millis(50));
    w.step(0, mac(1), &[], RELEASE);
    announce(&mut w, 0, P2, 2, 1);
    assert_eq!(bound(&mut w, 0, 1), Some(mac(2)));
    // Prepared: the new MAC's hypervisor has named the address.
    let mut w = world_with(|_| {});
    live(&mut w, 0, P1, 1, 1);
    w.run_for(Span::millis(50));
    w.step(1, mac(2), &[ip(1)], prepare("p1"));
    announce(&mut w, 1, P1, 2, 1);
    assert_eq!(bound(&mut w, 1, 1), Some(mac(2)));
    // Behind a port that is dark.
    let mut w = world_with(|_| {});
    live(&mut w, 0, P1, 1, 1);
    w.run_for(Span::millis(50));
    w.devices_with(0, own_mac(0), &[(P1, "p1", false)]);
    announce(&mut w, 0, P2, 2, 1);
    assert_eq!(bound(&mut w, 0, 1), Some(mac(2)));
}

/// Without a graceful restart a lost session takes its routes along: the address is nobody's.
#[test]
fn the_address_of_a_vtep_that_is_gone_is_free_at_once() {
    let mut w = world_with(|_| {});
    live(&mut w, 0, P1, 1, 1);
    w.run_for(Span::millis(50));
    w.kill(0);
    w.run_for(Span::millis(50));
    announce(&mut w, 1, P1, 2, 1);
    assert_eq!(bound(&mut w, 1, 1), Some(mac(2)));
}

#[test]
fn a_hot_move_is_never_delayed() {
    let mut w = world_with(|_| {});
    live(&mut w, 0, P1, 1, 1);
    w.run_for(Span::millis(50));
    w.guests[0].node = 1;
    announce(&mut w, 1, P1, 1, 1);
    w.run_for(Span::millis(2));
    for i in 0..3 {
        assert_eq!(bound(&mut w, i, 1), Some(mac(1)));
    }
    assert_eq!(w.mac_row(2, mac(1)), world::steps::remote(1, false));
    assert_eq!(count(&mut w, 1, "claims_checked"), 0);
}

#[test]
fn in_a_conflict_nobody_is_answered_for_until_one_side_is_silent() {
    for gone in [1u8, 2] {
        let mut w = world_with(|_| {});
        live(&mut w, 0, P1, 1, 1);
        w.run_for(Span::millis(50));
        assert_eq!(row(&w, 1, 1), Some(mac(1)));
        live(&mut w, 1, P1, 2, 1);
        w.run_for(Span::millis(20));
        assert_eq!((row(&w, 1, 1), bound(&mut w, 1, 1)), (None, Some(mac(1))), "PROXY-DUP-04");
        assert_eq!(w.duplicates(1)[0].state, "unanswered");
        for _ in 0..200 {
            w.run_for(Span::millis(100));
            assert_eq!((row(&w, 1, 1), w.duplicates(1).len()), (None, 1), "as long as both answer");
        }
        w.guests.retain(|g| g.mac != mac(gone));
        w.run_for(Span::secs(6));
        assert_eq!(w.duplicates(1), [], "{gone} is silent");
        assert_eq!(bound(&mut w, 2, 1), Some(mac(3 - gone)), "{gone} is silent");
        assert_eq!(row(&w, 1, 1), (gone == 2).then_some(mac(1)));
        assert!(w.hosts[1].events.iter().any(|(_, e)| matches!(e, Event::DuplicateEnded { .. })));
    }
}

/// PROXY-DUP-04: the policy is so at a VTEP that has neither of the two, too, and at the owner's.
#[test]
fn what_the_policy_says_is_so_at_every_vtep() {
    for (policy, holder, answers) in [
        (ConflictPolicy::None, 1, None),
        (ConflictPolicy::First, 1, Some(mac(1))),
        (ConflictPolicy::Last, 2, Some(mac(2))),
    ] {
        // Both hosts behind different VTEPs, and behind one.
        for there in [(1, P1), (0, P2)] {
            let mut w = world_with(|c| c.arp.conflict = policy);
            live(&mut w, 0, P1, 1, 1);
            w.run_for(Span::millis(50));
            assert_eq!(row(&w, 2, 1), Some(mac(1)));
            live(&mut w, there.0, there.1, 2, 1);
            w.run_for(Span::millis(20));
            for second in 0..20 {
                assert_eq!((row(&w, 2, 1), bound(&mut w, 2, 1)), (answers, Some(mac(holder))), "{second} s");
                // Where the claim is, the last one is a host of its own.
                let at_1 = answers.filter(|_| there.0 == 0 || policy == ConflictPolicy::First);
                assert_eq!(row(&w, 1, 1), at_1, "{policy:?}, {second} s");
                w.run_for(Span::secs(1));
            }
            let heard = w.hosts[2].events.iter().filter(|(_, e)| matches!(e, Event::ContestedAfar { .. }));
            assert_eq!(heard.count() > 0, policy == ConflictPolicy::None);
        }
    }
}

/// It ends at all of them when it ends where it was found: one side is silent, an operator has said so, or the VTEP is gone.
#[test]
fn what_one_vtep_has_found_out_is_forgotten_when_it_is_over() {
    for end in ["first silent", "last silent", "cleared", "vtep gone"] {
        let mut w = world_with(|_| {});
        live(&mut w, 0, P1, 1, 1);
        w.run_for(Span::millis(50));
        live(&mut w, 1, P1, 2, 1);
        w.run_for(Span::millis(20));
        assert_eq!((row(&w, 2, 1), count(&mut w, 2, "contested_afar")), (None, 1));
        let all: Vec<_> = w.hosts[1].announced.iter().filter(|a| a.1 == mac(2)).map(|a| a.2).collect();
        assert!(
            !all.is_empty() && all.iter().all(|s| *s == Seq::ZERO),
            "the mark changes no sequence: {all:?}"
        );
        let mut winner = mac(1);
        match end {
            "first silent" => {
                w.guests.retain(|g| g.mac != mac(1));
                winner = mac(2);
                w.run_for(Span::secs(6));
            }
            "last silent" => {
                w.guests.retain(|g| g.mac != mac(2));
                w.run_for(Span::secs(6));
            }
            "cleared" => {
                w.guests.retain(|g| g.mac != mac(2));
                let clear = Command::ClearDuplicate { vni: vni(), address: About::Ip(ip(1)) };
                assert!(matches!(w.command(1, clear), Reply::Cleared(_)));
                w.run_for(Span::millis(20));
            }
            _ => {
                w.kill(1);
                w.run_for(Span::millis(50));
            }
        }
        assert_eq!((row(&w, 2, 1), bound(&mut w, 2, 1)), (Some(winner), Some(winner)), "{end}");
        assert_eq!(count(&mut w, 2, "contested_no_more"), 1, "{end}");
    }
}

/// A VTEP that comes later learns it from the same route.
#[test]
fn a_vtep_that_starts_during_a_conflict_answers_for_nobody_either() {
    let mut w = world_with(|_| {});
    w.kill(2);
    live(&mut w, 0, P1, 1, 1);
    w.run_for(Span::millis(50));
    live(&mut w, 1, P1, 2, 1);
    w.run_for(Span::millis(20));
    w.start(2, true);
    w.run_for(Span::secs(20));
    assert_eq!(w.duplicates(1).len(), 1);
    assert_eq!((row(&w, 2, 1), bound(&mut w, 2, 1)), (None, Some(mac(1))));
}

#[test]
fn a_conflict_ends_by_the_operator_or_in_time_and_is_found_anew_if_it_is_one() {
    let mut w = world_with(|c| c.arp.conflict_time = Span::secs(60));
    live(&mut w, 0, P1, 1, 1);
    w.run_for(Span::millis(50));
    live(&mut w, 1, P1, 2, 1);
    w.run_for(Span::millis(20));
    let clear = Command::ClearDuplicate { vni: vni(), address: About::Ip(ip(1)) };
    assert!(matches!(w.command(1, clear), Reply::Cleared(_)));
    assert_eq!((w.duplicates(1).len(), row(&w, 1, 1)), (0, Some(mac(1))));
    w.run_for(Span::millis(50));
    assert_eq!((w.duplicates(1).len(), row(&w, 1, 1)), (1, None), "both are still there");
    let found =
        |w: &World| w.hosts[1].events.iter().filter(|(_, e)| matches!(e, Event::Duplicate { .. })).count();
    assert_eq!(found(&w), 2);
    w.run_for(Span::secs(59));
    assert_eq!(found(&w), 2);
    w.run_for(Span::secs(3));
    assert_eq!(found(&w), 3, "looked at anew after its time");
}

#[test]
fn the_last_has_it_where_that_is_the_policy_and_nobody_takes_it_back_by_an_answer() {
    let mut w = world_with(|c| c.arp.conflict = ConflictPolicy::Last);
    live(&mut w, 0, P1, 1, 1);
    w.run_for(Span::millis(50));
    live(&mut w, 1, P1, 2, 1);
    w.run_for(Span::millis(20));
    let before = w.hosts[1].announced.len();
    w.run_for(Span::secs(5));
    for i in 0..3 {
        assert_eq!(bound(&mut w, i, 1), Some(mac(2)), "node {i}");
    }
    assert!(w.hosts[1].announced.len() <= before + 2, "it does not go to and fro");
    assert_eq!(w.duplicates(1)[0].state, "reported");
}

/// A round trip of 50 ms, and nobody has claimed anything before.
#[test]
fn a_vtep_that_is_far_away_is_waited_for() {
    for alive in [false, true] {
        let far = Span::millis(25);
        let mut w = World::with(3, far, |c| {
            c.arp.claim_time = Span::millis(10);
            c.arp.conflict = ConflictPolicy::First;
        });
        w.run_for(Span::secs(20));
        if alive {
            live(&mut w, 0, P1, 1, 1);
        } else {
            announce(&mut w, 0, P1, 1, 1);
        }
        w.run_for(Span::millis(200));
        announce(&mut w, 1, P1, 2, 1);
        w.run_for(Span::millis(66));
        assert_eq!((bound(&mut w, 1, 1), w.duplicates(1).len()), (Some(mac(1)), usize::from(alive)));
        w.run_for(Span::millis(3));
        assert_eq!(
            bound(&mut w, 1, 1),
            Some(mac(if alive { 1 } else { 2 })),
            "the way there and back, and a little"
        );
    }
}

/// How far it is would never be known where our devices come later than its routes: its hosts would be given the time of one
/// that is near (PROXY-DUP-03).
#[test]
fn a_far_vtep_is_measured_although_our_devices_come_late() {
    let mut w = World::with(2, Span::millis(25), |c| c.arp.claim_time = Span::millis(10));
    w.kernel(1, KernelEvent::LinkGone(VXLAN));
    w.run_for(Span::secs(60));
    w.devices(1, own_mac(1));
    w.run_for(Span::secs(10));
    live(&mut w, 0, P1, 1, 1);
    w.run_for(Span::millis(200));
    announce(&mut w, 1, P1, 2, 1);
    w.run_for(Span::millis(70));
    assert_eq!((bound(&mut w, 1, 1), count(&mut w, 1, "claims_unanswered")), (Some(mac(1)), 0));
    assert_eq!(count(&mut w, 1, "claims_answered"), 1);
}

/// A frame that names its address as one who asks for another does.
#[test]
fn any_arp_that_names_the_address_is_a_claim() {
    let mut w = world_with(|_| {});
    announce(&mut w, 0, P1, 1, 1);
    w.run_for(Span::millis(50));
    w.frame(1, P1, mac(2), Some(frames::arp(mac(2), v4(1), v4(77))));
    assert_eq!(bound(&mut w, 1, 1), Some(mac(1)));
    w.run_for(Span::millis(15));
    assert_eq!(bound(&mut w, 1, 1), Some(mac(2)));
}

#[derive(Clone, Debug)]
enum Act {
    Say(u8, u8),
    Die(u8),
    Rise(u8),
    Wait(u16),
    Abort(u8),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        (1..=4u8, 1..=2u8).prop_map(|(h, n)| Act::Say(h, n)),
        (1..=4u8).prop_map(Act::Die),
        (1..=4u8).prop_map(Act::Rise),
        (1..400u16).prop_map(Act::Wait),
        (1..=4u8).prop_map(Act::Abort),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever hosts say, die and come back: at rest, an address that exactly one live host has said is bound to that one
    /// everywhere, once it has said so again.
    #[test]
    fn at_rest_the_only_live_host_of_an_address_has_it_everywhere(
        acts in prop::collection::vec(act(), 1..30), last in 1..=4u8
    ) {
        let mut w = world_with(|_| {});
        let place = |h: u8| (usize::from(h - 1) % 3, if h == 4 { P2 } else { P1 });
        for a in acts {
            match a {
                Act::Say(h, n) => {
                    let (node, port) = place(h);
                    announce(&mut w, node, port, h, n);
                }
                Act::Die(h) => w.guests.retain(|g| g.mac != mac(h)),
                Act::Rise(h) => {
                    w.guests.retain(|g| g.mac != mac(h));
                    let (node, port) = place(h);
                    live(&mut w, node, port, h, 1);
                }
                Act::Wait(ms) => w.run_for(Span::millis(u64::from(ms))),
                Act::Abort(h) => drop(w.step(place(h).0, mac(h), &[], MoveStep::Abort)),
            }
        }
        w.guests.clear();
        w.run_for(Span::secs(8));
        let (node, port) = place(last);
        live(&mut w, node, port, last, 1);
        w.run_for(Span::secs(8));
        announce(&mut w, node, port, last, 1);
        w.run_for(Span::millis(100));
        for i in 0..3 {
            prop_assert_eq!(bound(&mut w, i, 1), Some(mac(last)), "node {}", i);
            prop_assert_eq!(w.duplicates(i), vec![]);
        }
    }
}
