//! Activations on whole nodes and a virtual clock: the row first and then the routes, with a kernel that refuses and
//! peers that lag; and how an activation ends that no guest has confirmed (PIT-06).

mod world;

use evpn::fabric::{FdbRow, KernelEvent, Link, LinkKind, PortFlags, Row};
use evpn::node::{Command, Input, MoveRequest, MoveStep, Refusal, Requester};
use evpn::types::{Seq, Span};
use world::steps::{
    MS, RELEASE, activate, before, done, garp, ip, local, names, no, ok, prepare, remote, told, visible,
};
use world::{BRIDGE, P1, P2, Trace, World, bridge_row, mac, own_mac, vni, vtep};

/// PIT-06, PIT-22, EVPN-MOB-03: the row is in the kernel before the first octet of the route leaves.
#[test]
fn an_activation_writes_the_row_first_and_then_tells_everybody_with_the_addresses() {
    let mut w = before();
    done(&mut w, 1, prepare("p2"));
    let start = w.now;
    let id = w.step(1, mac(1), &[ip(7)], activate(None));
    assert!(!w.hosts[1].answers.contains_key(&id), "the sockets have not taken it yet");
    assert_eq!(w.mac_row(1, mac(1)), local(P2));
    let trace = &w.hosts[1].trace;
    let row = trace.iter().position(|t| *t == Trace::Wrote(mac(1), local(P2))).expect("the row is written");
    let first = trace.iter().position(|t| matches!(t, Trace::Told(_, m, _) if *m == mac(1))).expect("told");
    assert!(row < first, "{trace:?}");
    w.run_for(Span::millis(3));
    let r = ok(&w, 1, id);
    assert_eq!((r.state.as_str(), r.seq), ("active", Some(Seq(1))));
    assert_eq!(r.ips, [ip(1), ip(7)], "the known one, and the one that the hypervisor named");
    assert_eq!((r.sent_to, r.lagging), (vec![vtep(0), vtep(2)], vec![]));
    assert_eq!((w.mac_row(0, mac(1)), w.mac_row(2, mac(1))), (remote(1, false), remote(1, false)));
    for i in [0, 2] {
        for n in [1, 7] {
            let row = w.neigh_row(i, ip(n));
            assert_eq!(row, Some(Row::Neigh { mac: mac(1), router: false }), "node {i}, address {n}");
        }
    }
    w.run_for(Span::millis(20));
    let emitted = &w.hosts[1].emitted;
    assert!(
        emitted.iter().all(|(p, _)| *p == P2) && emitted.len() == 2,
        "both addresses are probed: {emitted:?}"
    );
    let m = w.moves(1).into_iter().find(|m| m.mac == mac(1) && m.role == "arrived").expect("a record");
    assert_eq!((&*m.cause, m.seen), ("api", start));
}

#[test]
fn an_activation_is_repeated_without_another_sequence() {
    let mut w = before();
    assert_eq!(done(&mut w, 1, activate(Some("p2"))).seq, Some(Seq(1)));
    let (a, b) = (w.step(1, mac(1), &[], activate(Some("p2"))), w.step(1, mac(1), &[], activate(None)));
    w.run_for(Span::millis(10));
    assert_eq!((ok(&w, 1, a).seq, ok(&w, 1, b).seq), (Some(Seq(1)), Some(Seq(1))));
    assert_eq!(done(&mut w, 1, prepare("p2")).state, "active", "a preparation that comes late");
    assert_eq!(names(&w, 1), ["activated"]);
}

/// A MAC that nobody knows: a cold start that the hypervisor announces.
#[test]
fn an_unknown_mac_is_activated_too_and_an_abort_takes_its_row_from_the_kernel() {
    let mut w = World::converged(2, MS);
    assert_eq!(done(&mut w, 1, activate(Some("p1"))).seq, Some(Seq(0)));
    assert_eq!((w.mac_row(0, mac(1)), w.hosts[1].fdb.get(&mac(1))), (remote(1, false), Some(&P1)));
    assert_eq!(done(&mut w, 1, MoveStep::Abort).state, "aborted");
    assert_eq!((w.mac_row(0, mac(1)), w.mac_row(1, mac(1))), (None, None));
    assert_eq!(w.hosts[1].fdb.get(&mac(1)), None, "a resync must not find it there");
    // A guest that comes later is learned as any other.
    w.frame(1, P1, mac(1), Some(garp(mac(1), ip(1))));
    w.run_for(Span::millis(10));
    assert_eq!(w.mac_row(0, mac(1)), remote(1, false));
    assert_eq!(w.hosts[1].fdb.get(&mac(1)), Some(&P1));
}

/// EVPN-MOB-12: the sequence that was told is remembered, and the source beats it.
#[test]
fn an_aborted_activation_gives_the_mac_back_and_its_sequence_is_not_forgotten() {
    let mut w = before();
    done(&mut w, 0, RELEASE);
    done(&mut w, 1, activate(Some("p2")));
    assert_eq!(w.mac_row(0, mac(1)), remote(1, true));
    assert_eq!(done(&mut w, 1, MoveStep::Abort).state, "aborted");
    assert_eq!(w.mac_row(1, mac(1)), None, "no route, no row");
    assert_eq!(done(&mut w, 0, MoveStep::Abort).state, "aborted", "at the source it takes the release back");
    w.frame(0, P1, mac(1), Some(garp(mac(1), ip(1))));
    w.run_for(Span::millis(10));
    assert_eq!((w.mac_row(1, mac(1)), w.mac_row(2, mac(1))), (remote(0, false), remote(0, false)));
    let at0 = w.macs(0).into_iter().find(|m| m.mac == mac(1)).expect("known");
    assert!(at0.seq.newer_than(Seq(1)), "{at0:?}");
}

/// The monitor tells of the row that we wrote ourselves when the move has been called off already (PIT-04).
#[test]
fn news_of_our_own_row_after_an_abort_is_no_guest() {
    let mut w = before();
    for (id, step) in [(1, activate(Some("p1"))), (2, MoveStep::Abort)] {
        let (mac, by) = (mac(1), Requester::Api);
        let r = MoveRequest { vni: Some(vni()), mac, ips: vec![], step, by, at_stop: false };
        w.input(1, Input::Command { id, command: Command::Move(r) });
    }
    w.kernel(1, KernelEvent::Fdb(FdbRow::Bridge(bridge_row(mac(1), P1, false))));
    w.run_for(Span::millis(100));
    let local = |w: &mut World| {
        w.macs(1)
            .into_iter()
            .any(|m| m.mac == mac(1) && m.place == evpn::node::view::Place::Port("p1".into()))
    };
    assert!(!local(&mut w), "nobody runs here");
    assert_ne!(w.mac_row(2, mac(1)), remote(1, false), "nobody sends to the target");
}

#[test]
fn where_the_guest_has_been_heard_it_is_not_aborted() {
    let mut w = before();
    done(&mut w, 1, activate(Some("p2")));
    w.frame(1, P2, mac(1), Some(garp(mac(1), ip(1))));
    let id = w.step(1, mac(1), &[], MoveStep::Abort);
    let (kind, text) = no(&w, 1, id);
    assert_eq!(kind, Refusal::Conflict);
    assert!(text.contains("heard on p2") && text.contains("running here"), "{text}");
    w.run_for(Span::secs(120));
    assert_eq!((w.mac_row(0, mac(1)), w.mac_row(1, mac(1))), (remote(1, false), local(P2)), "and it stays");
    assert_eq!(names(&w, 1), ["activated"], "nothing timed out");
}

/// PIT-06: held whatever the bridge's ageing says; then given up.
#[test]
fn the_row_of_a_silent_guest_is_held_until_the_activation_times_out() {
    let mut w = before();
    let step = MoveStep::Activate { port: Some("p2".into()), timeout: Some(Span::secs(30)) };
    done(&mut w, 1, step);
    for _ in 0..5 {
        w.run_for(Span::secs(5));
        w.forget(1, mac(1));
        assert_eq!(w.hosts[1].fdb.get(&mac(1)), Some(&P2), "written again at once");
    }
    assert_eq!(w.mac_row(0, mac(1)), remote(1, false), "and never withdrawn");
    assert!(w.neigh_row(0, ip(1)).is_some(), "nor is the address that nobody answers for");
    w.run_for(Span::secs(6));
    assert_eq!(names(&w, 1), ["activated", "timed out"]);
    assert_eq!((w.mac_row(0, mac(1)), w.hosts[1].fdb.get(&mac(1))), (None, None));
}

#[test]
fn a_silent_guest_that_answers_a_probe_after_a_long_pause_keeps_its_addresses() {
    let mut w = before();
    done(&mut w, 1, activate(Some("p2")));
    w.run_for(Span::secs(20));
    assert!(w.neigh_row(2, ip(1)).is_some(), "20 s without an answer, and still advertised");
    w.frame(1, P2, mac(1), Some(garp(mac(1), ip(1))));
    w.run_for(Span::secs(20));
    assert!(w.neigh_row(2, ip(1)).is_some());
    assert_eq!(w.mac_row(2, mac(1)), remote(1, false));
}

/// PIT-06: a route whose row the kernel does not have would be a black hole.
#[test]
fn what_the_kernel_refuses_is_never_advertised() {
    let mut w = before();
    let was = visible(&w, 1);
    w.hosts[1].refused.insert(mac(1));
    let (a, b) = (w.step(1, mac(1), &[], activate(Some("p2"))), w.step(1, mac(1), &[], activate(Some("p2"))));
    w.run_for(Span::millis(900));
    assert!(!w.hosts[1].answers.contains_key(&a) && told(&w, 1) == 0);
    w.run_for(Span::millis(200));
    for id in [a, b] {
        let (kind, text) = no(&w, 1, id);
        assert_eq!(kind, Refusal::Late);
        assert!(text.contains("p2 within 1 s: operation not permitted"), "{text}");
    }
    assert_eq!((visible(&w, 1), told(&w, 1)), (was, 0));
    assert_eq!(names(&w, 1), ["aborted"]);
}

/// A port that has just got its carrier is forwarding a moment later.
#[test]
fn a_refused_row_is_tried_again_in_time() {
    let mut w = before();
    w.hosts[1].refused.insert(mac(1));
    let id = w.step(1, mac(1), &[], activate(Some("p2")));
    w.run_for(Span::millis(100));
    w.hosts[1].refused.clear();
    w.run_for(Span::millis(50));
    assert_eq!(ok(&w, 1, id).state, "active");
    assert_eq!(w.mac_row(0, mac(1)), remote(1, false));
}

#[test]
fn nothing_is_told_while_the_kernel_is_busy_whatever_the_peers_say_meanwhile() {
    let mut w = before();
    w.hosts[1].paused = true;
    let id = w.step(1, mac(1), &[], activate(Some("p2")));
    // The guest moves to node 2 by itself, and from there away, while our row is on its way.
    w.frame(2, P1, mac(1), Some(garp(mac(1), ip(1))));
    w.run_for(Span::millis(20));
    w.forget(2, mac(1));
    w.run_for(Span::millis(20));
    assert_eq!(told(&w, 1), 0);
    w.hosts[1].paused = false;
    w.run_for(Span::millis(10));
    w.input(1, Input::Wall { unix: 0 });
    w.run_for(Span::millis(10));
    let r = ok(&w, 1, id);
    assert_eq!(r.state, "active");
    assert!(r.seq.is_some_and(|s| s.newer_than(Seq(1))), "above what node 2 has told: {r:?}");
    assert_eq!((w.mac_row(0, mac(1)), w.mac_row(2, mac(1))), (remote(1, false), remote(1, false)));
    assert_eq!(w.mac_row(1, mac(1)), local(P2));
}

#[test]
fn an_abort_answers_those_who_wait_for_the_kernel() {
    let mut w = before();
    w.hosts[1].paused = true;
    let id = w.step(1, mac(1), &[], activate(Some("p2")));
    assert_eq!(done(&mut w, 1, MoveStep::Abort).state, "aborted");
    assert!(no(&w, 1, id).1.contains("aborted"));
    w.hosts[1].paused = false;
    w.run_for(Span::millis(10));
    w.input(1, Input::Wall { unix: 0 });
    assert_eq!((w.mac_row(1, mac(1)), told(&w, 1)), (remote(0, false), 0));
}

#[test]
fn peers_that_lag_are_named_after_a_second() {
    let mut w = before();
    w.stall(1, 2);
    let id = w.step(1, mac(1), &[], activate(Some("p2")));
    w.run_for(Span::millis(900));
    assert!(!w.hosts[1].answers.contains_key(&id));
    w.run_for(Span::millis(200));
    let r = ok(&w, 1, id);
    assert_eq!((r.state.as_str(), r.sent_to, r.lagging), ("active", vec![vtep(0)], vec![vtep(2)]));
    w.unstall(1, 2);
    w.run_for(Span::millis(10));
    assert_eq!(w.mac_row(2, mac(1)), remote(1, false));
}

#[test]
fn peers_that_are_down_are_told_of_and_not_waited_for() {
    let mut w = before();
    w.cut(1, 2);
    w.run_for(Span::millis(2));
    let r = done(&mut w, 1, prepare("p2"));
    assert!(r.notes.iter().any(|n| n.contains("10.255.0.3 is down and will not be told")), "{r:?}");
    let r = done(&mut w, 1, activate(None));
    assert_eq!((r.sent_to, r.lagging), (vec![vtep(0)], vec![]));
    assert!(r.notes.iter().any(|n| n.contains("10.255.0.3 is down and was not told")), "{:?}", r.notes);
}

#[test]
fn a_peer_that_goes_down_meanwhile_is_not_waited_for() {
    let mut w = before();
    w.stall(1, 2);
    let id = w.step(1, mac(1), &[], activate(Some("p2")));
    w.cut(1, 2);
    w.run_for(Span::millis(10));
    let r = ok(&w, 1, id);
    assert_eq!((r.sent_to, r.lagging), (vec![vtep(0)], vec![]));
    assert!(r.notes.iter().any(|n| n.contains("10.255.0.3 went down meanwhile")), "{:?}", r.notes);
}

/// EVPN-MOB-05: between two ports of one host no sequence changes.
#[test]
fn between_two_ports_of_one_host_the_sequence_stays_and_an_abort_goes_back() {
    let mut w = before();
    let r = done(&mut w, 0, prepare("p2"));
    assert!(r.notes.iter().any(|n| n.contains("is behind p1 now")), "{:?}", r.notes);
    assert_eq!(done(&mut w, 0, activate(None)).seq, Some(Seq(0)));
    assert_eq!(w.hosts[0].fdb.get(&mac(1)), Some(&P2));
    assert_eq!(done(&mut w, 0, MoveStep::Abort).state, "aborted");
    assert_eq!((w.hosts[0].fdb.get(&mac(1)), w.mac_row(1, mac(1))), (Some(&P1), remote(0, false)));
}

#[test]
fn a_guest_that_was_faster_than_its_hypervisor_is_active_already() {
    let mut w = before();
    done(&mut w, 1, prepare("p2"));
    w.frame(1, P2, mac(1), Some(garp(mac(1), ip(1))));
    w.run_for(Span::millis(10));
    let id = w.step(1, mac(1), &[ip(8)], activate(None));
    w.run_for(Span::millis(10));
    let r = ok(&w, 1, id);
    assert_eq!((r.state.as_str(), r.seq, r.ips), ("active", Some(Seq(1)), vec![ip(1), ip(8)]));
    let id = w.step(1, mac(1), &[], MoveStep::Abort);
    assert_eq!(no(&w, 1, id).0, Refusal::Conflict);
}

#[test]
fn a_guest_that_is_gone_again_is_over() {
    let mut w = before();
    done(&mut w, 1, activate(Some("p2")));
    // The target's QEMU dies: its tap loses the carrier.
    let port = Some(PortFlags { learning: true, flood: true, ..PortFlags::default() });
    let kind = LinkKind::Other("veth".into());
    let name = "p2".into();
    let (up, carrier, master) = (true, false, Some(BRIDGE));
    let l = Link { index: P2, name, mac: own_mac(1), mtu: 1450, up, carrier, master, kind, port };
    w.kernel(1, KernelEvent::Link(l));
    w.run_for(Span::millis(10));
    assert_eq!(names(&w, 1), ["activated", "aborted"]);
    assert_eq!(w.mac_row(0, mac(1)), None, "withdrawn");
    let r = done(&mut w, 1, prepare("p2"));
    assert!(r.notes.iter().any(|n| n.contains("no carrier")), "{:?}", r.notes);
}

#[test]
fn a_better_route_ends_an_activation() {
    let mut w = before();
    done(&mut w, 1, activate(Some("p2")));
    w.frame(2, P1, mac(1), Some(garp(mac(1), ip(1))));
    w.run_for(Span::millis(10));
    assert_eq!(w.mac_row(1, mac(1)), remote(2, false));
    assert_eq!(names(&w, 1), ["activated", "aborted"]);
    w.run_for(Span::secs(120));
    assert_eq!(w.mac_row(1, mac(1)), remote(2, false), "and no timeout touches it");
    assert_eq!(names(&w, 1), ["activated", "aborted"]);
}

#[test]
fn a_row_that_vanishes_with_its_port_needs_no_clearing() {
    let mut w = World::converged(2, MS);
    done(&mut w, 1, activate(Some("p2")));
    w.kernel(1, KernelEvent::FdbGone(FdbRow::Bridge(bridge_row(mac(1), P2, false))));
    w.kernel(1, KernelEvent::LinkGone(P2));
    w.run_for(Span::millis(10));
    assert_eq!((w.mac_row(0, mac(1)), names(&w, 1)), (None, vec!["activated", "aborted"]));
    assert_eq!(w.hosts[1].node.want().iter().filter(|(_, r)| matches!(r, Row::Cleared { .. })).count(), 0);
}

/// Two hypervisor requests that disagree about the port: the later one counts, and both are answered.
#[test]
fn an_activation_on_another_port_answers_those_who_waited_for_the_first() {
    let mut w = before();
    w.hosts[1].paused = true;
    let first = w.step(1, mac(1), &[], activate(Some("p1")));
    let second = w.step(1, mac(1), &[], activate(Some("p2")));
    assert!(no(&w, 1, first).1.contains("it is activated on another port"));
    w.hosts[1].paused = false;
    w.input(1, Input::Wall { unix: 0 });
    w.run_for(Span::millis(10));
    assert_eq!(ok(&w, 1, second).state, "active");
    assert_eq!((w.mac_row(1, mac(1)), w.hosts[1].fdb.get(&mac(1))), (local(P2), Some(&P2)));
}

/// The kernel is slow. The MAC was on a port, a row to a VTEP was to overwrite it, and that VTEP's route went before it
/// was written: the port's row must go all the same, because no notification would ever tell of it.
#[test]
fn a_row_that_was_never_overwritten_is_cleared_all_the_same() {
    let mut w = before();
    w.step(1, mac(1), &[], activate(Some("p1")));
    w.run_for(Span::millis(2));
    assert_eq!(w.mac_row(0, mac(1)), remote(1, false));
    w.hosts[0].paused = true;
    w.step(0, mac(1), &[], activate(Some("p1")));
    // Learned from a frame that no tap sees.
    w.frame(0, P1, mac(1), None);
    w.step(0, mac(1), &[], prepare("p2"));
    w.run_for(Span::millis(30));
    w.hosts[0].paused = false;
    w.input(0, Input::Wall { unix: 0 });
    assert_eq!(w.hosts[0].fdb.get(&mac(1)), None);
    w.frame(0, P1, mac(1), Some(garp(mac(1), ip(1))));
    w.run_for(Span::millis(10));
    assert_eq!((w.mac_row(1, mac(1)), w.mac_row(2, mac(1))), (remote(0, false), remote(0, false)));
}

/// The addresses of an activated guest have not answered, because it did not run yet. When it is heard they are asked for
/// three times more, a second apart, and not by two chains at once (PIT-22).
#[test]
fn the_addresses_of_a_guest_that_is_heard_have_three_seconds() {
    for after in [Span::millis(500), Span::millis(2500), Span::secs(9)] {
        let mut w = before();
        done(&mut w, 1, activate(Some("p2")));
        w.run_for(after);
        w.hosts[1].emitted.clear();
        w.frame(1, P2, mac(1), None);
        w.frame(1, P2, mac(1), Some(world::frames::rarp(mac(1))));
        w.run_for(Span::millis(2950));
        assert!(w.neigh_row(0, ip(1)).is_some(), "heard after {after:?}: given up too early");
        assert_eq!(w.hosts[1].emitted.len(), 3, "heard after {after:?}");
        w.run_for(Span::millis(100));
        assert_eq!(w.neigh_row(0, ip(1)), None, "heard after {after:?}");
    }
}
