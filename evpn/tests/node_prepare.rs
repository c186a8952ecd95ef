//! Prepared moves on whole nodes and a virtual clock: every step in every state, in every order, with a kernel that
//! refuses and peers that lag (PIT-06, PIT-04, MIG-HOT-03).

#![allow(clippy::unnecessary_wraps)] // compared with what the kernel may not have

mod world;

use bytes::Bytes;
use evpn::fabric::{FdbRow, KernelEvent, Link, LinkKind, PortFlags, Row};
use evpn::node::{Command, Event, Input, MoveReply, MoveRequest, MoveStep, Refusal, Reply, Requester};
use evpn::types::{IfIndex, Mac, Seq, Span, Vni};
use std::net::{IpAddr, Ipv4Addr};
use world::{BRIDGE, P1, P2, Trace, VXLAN, World, bridge_row, frames, mac, own_mac, vni, vtep};

const MS: Span = Span::millis(1);

fn ip(n: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 1, 0, n))
}

fn prepare(port: &str) -> MoveStep {
    MoveStep::Prepare { port: port.into(), timeout: None }
}

fn activate(port: Option<&str>) -> MoveStep {
    MoveStep::Activate { port: port.map(str::to_owned), timeout: None }
}

const RELEASE: MoveStep = MoveStep::Release { timeout: None };

/// Gratuitous ARP request.
fn garp(m: Mac, from: IpAddr) -> Bytes {
    let IpAddr::V4(from) = from else { panic!("IPv4 only") };
    frames::garp(m, from)
}

fn local(port: IfIndex) -> Option<Row> {
    Some(Row::Local { vxlan: VXLAN, port })
}

fn remote(i: usize, sticky: bool) -> Option<Row> {
    Some(Row::Remote { vxlan: VXLAN, vtep: vtep(i), sticky })
}

/// Three nodes; the guest with its address is behind `p1` of node 0.
fn before() -> World {
    let mut w = World::converged(3, MS);
    w.frame(0, P1, mac(1), Some(garp(mac(1), ip(1))));
    w.run_for(Span::millis(10));
    assert_eq!((w.mac_row(1, mac(1)), w.mac_row(2, mac(1))), (remote(0, false), remote(0, false)));
    for h in &mut w.hosts {
        h.trace.clear();
        h.events.clear();
        h.emitted.clear();
    }
    w
}

fn ok(w: &World, i: usize, id: u64) -> MoveReply {
    match w.hosts[i].answers.get(&id) {
        Some(Reply::Move(r)) => r.clone(),
        other => panic!("step {id} at node {i}: {other:?}"),
    }
}

fn no(w: &World, i: usize, id: u64) -> (Refusal, String) {
    match w.hosts[i].answers.get(&id) {
        Some(Reply::MoveRefused { refusal, text }) => (*refusal, text.clone()),
        other => panic!("step {id} at node {i}: {other:?}"),
    }
}

/// A step with its answer, 10 ms later at the latest.
fn done(w: &mut World, i: usize, step: MoveStep) -> MoveReply {
    let id = w.step(i, mac(1), &[], step);
    w.run_for(Span::millis(10));
    ok(w, i, id)
}

fn names(w: &World, i: usize) -> Vec<&'static str> {
    w.hosts[i]
        .events
        .iter()
        .filter_map(|(_, e)| {
            Some(match e {
                Event::MovePrepared { .. } => "prepared",
                Event::MoveActivated { .. } => "activated",
                Event::MoveAborted { .. } => "aborted",
                Event::MoveReleased { .. } => "released",
                Event::MoveTimedOut { .. } => "timed out",
                Event::LateFrame { .. } => "late frame",
                _ => return None,
            })
        })
        .collect()
}

fn told(w: &World, i: usize) -> usize {
    w.hosts[i].trace.iter().filter(|t| matches!(t, Trace::Told(..))).count()
}

/// Everything that others and the kernel can see of a node.
fn visible(w: &World, i: usize) -> String {
    let h = &w.hosts[i];
    format!("{:?} {:?} {:?}", h.rows, h.fdb, h.node.want().iter().collect::<Vec<_>>())
}

#[test]
fn a_preparation_changes_nothing_that_anybody_can_see() {
    let mut w = before();
    let was = visible(&w, 1);
    let r = done(&mut w, 1, prepare("p2"));
    assert_eq!((r.state.as_str(), r.vni, r.seq, r.sent_to.len()), ("prepared", Some(vni()), None, 0));
    assert_eq!(r.notes, [""; 0], "nothing is amiss");
    assert_eq!((visible(&w, 1), told(&w, 1)), (was.clone(), 0));
    // Again, and to another port: the last word counts.
    assert_eq!(done(&mut w, 1, prepare("p1")).state, "prepared");
    assert_eq!(done(&mut w, 1, MoveStep::Abort).state, "aborted");
    assert_eq!(done(&mut w, 1, MoveStep::Abort).state, "nothing");
    assert_eq!((visible(&w, 1), told(&w, 1)), (was, 0));
    assert_eq!(names(&w, 1), ["prepared", "prepared", "aborted"]);
}

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

#[test]
fn without_a_preparation_the_port_must_be_named() {
    let mut w = before();
    let id = w.step(1, mac(1), &[], activate(None));
    let (kind, text) = no(&w, 1, id);
    assert_eq!(kind, Refusal::Conflict);
    assert!(
        text.contains("no preparation for 52:54:00:00:00:01") && text.contains("name the port"),
        "{text}"
    );
    assert_eq!(told(&w, 1), 0);
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

#[test]
fn a_preparation_times_out_without_a_trace() {
    let mut w = before();
    let was = visible(&w, 1);
    w.step(1, mac(1), &[], MoveStep::Prepare { port: "p2".into(), timeout: Some(Span::secs(2)) });
    w.run_for(Span::secs(3));
    assert_eq!(names(&w, 1), ["prepared", "timed out"]);
    assert_eq!((visible(&w, 1), told(&w, 1)), (was, 0));
    let id = w.step(1, mac(1), &[], activate(None));
    assert!(no(&w, 1, id).1.contains("or it timed out"));
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
fn wrong_requests_say_what_is_wrong_and_change_nothing() {
    let mut w = before();
    let was = visible(&w, 1);
    let ask = |w: &mut World, vni: Option<u32>, m: Mac, ips: &[IpAddr], step: MoveStep| {
        let request = MoveRequest {
            vni: vni.and_then(Vni::new),
            mac: m,
            ips: ips.to_vec(),
            step,
            by: Requester::Api,
            at_stop: false,
        };
        w.hosts[1].answers.clear();
        w.input(1, Input::Command { id: 1 << 40, command: Command::Move(request) });
        no(w, 1, 1 << 40)
    };
    let group = Mac([0x33, 0x33, 0, 0, 0, 1]);
    let many = vec![ip(1); 65];
    for (vni, m, ips, step, kind, part) in [
        (
            Some(200),
            mac(1),
            &[][..],
            prepare("p2"),
            Refusal::Invalid,
            "VNI 200 is not configured here; there are: 100",
        ),
        (Some(200), mac(1), &[], MoveStep::Abort, Refusal::Invalid, "VNI 200 is not configured"),
        (Some(200), mac(1), &[], RELEASE, Refusal::Invalid, "VNI 200 is not configured"),
        (None, mac(1), &[], prepare("p9"), Refusal::Invalid, "there is no port `p9`"),
        (None, mac(1), &[], prepare("vx100"), Refusal::Invalid, "vx100 is the VXLAN device"),
        (None, mac(1), &[], prepare("br100"), Refusal::Conflict, "is in no bridge of a VNI"),
        (None, group, &[], prepare("p2"), Refusal::Invalid, "not the address of a host"),
        (None, Mac::ZERO, &[], RELEASE, Refusal::Invalid, "not the address of a host"),
        (None, own_mac(1), &[], prepare("p2"), Refusal::Conflict, "this host's own devices"),
        (None, mac(1), &many, prepare("p2"), Refusal::Invalid, "at most 64"),
        (None, mac(1), &[IpAddr::from([224, 0, 0, 1])], activate(Some("p2")), Refusal::Invalid, "224.0.0.1"),
    ] {
        let (got, text) = ask(&mut w, vni, m, ips, step);
        assert!(got == kind && text.contains(part), "{text}");
    }
    assert_eq!((visible(&w, 1), told(&w, 1)), (was, 0));
}

/// EVPN-MOB-17
#[test]
fn what_is_sticky_elsewhere_is_not_prepared() {
    let mut w = World::with(2, MS, |c| {
        if c.vtep == vtep(0) {
            c.vnis[0].mobility.sticky.insert(mac(1), "p1".into());
        }
    });
    w.run_for(Span::secs(10));
    w.frame(0, P1, mac(1), Some(garp(mac(1), ip(1))));
    w.run_for(Span::millis(10));
    let id = w.step(0, mac(1), &[], prepare("p2"));
    assert!(no(&w, 0, id).1.contains("configured as sticky on port p1"));
    assert_eq!(w.mac_row(1, mac(1)), remote(0, true), "this test is about a sticky MAC");
    for step in [prepare("p2"), activate(Some("p2"))] {
        let id = w.step(1, mac(1), &[], step);
        let (kind, text) = no(&w, 1, id);
        assert!(kind == Refusal::Conflict && text.contains("sticky at 10.255.0.1 and cannot move"), "{text}");
    }
}

/// MIG-HOT-03, PIT-04: forwarding goes on until the new route is here; then nothing local wins it back.
#[test]
fn a_released_guest_is_served_until_the_route_comes_and_never_wins_its_mac_back() {
    let mut w = before();
    let r = done(&mut w, 0, RELEASE);
    assert_eq!((r.state.as_str(), r.seq), ("released", Some(Seq(0))));
    assert_eq!((w.hosts[0].fdb.get(&mac(1)), w.mac_row(2, mac(1))), (Some(&P1), remote(0, false)));
    assert_eq!(told(&w, 0), 0, "nobody hears of it");
    w.frame(0, P1, mac(1), Some(garp(mac(1), ip(1))));
    done(&mut w, 1, activate(Some("p2")));
    assert_eq!(w.mac_row(0, mac(1)), remote(1, true), "static and sticky: a late frame cannot take it");
    w.frame(1, P2, mac(1), Some(garp(mac(1), ip(1))));
    w.hosts[0].emitted.clear();
    let before = told(&w, 0);
    for _ in 0..20 {
        // Even the strongest signs, and even if the bridge should let it through.
        w.frame(0, P1, mac(1), Some(garp(mac(1), ip(1))));
        w.run_for(Span::secs(1));
        assert_eq!(w.hosts[0].fdb.get(&mac(1)), Some(&VXLAN), "put back");
    }
    assert_eq!((told(&w, 0), w.hosts[0].emitted.len()), (before, 0), "no route, and nobody is probed");
    assert_eq!(w.mac_row(2, mac(1)), remote(1, false));
    assert_eq!(names(&w, 0), ["released", "late frame"]);
    let alarms = w.hosts[0].events.iter().filter(|(_, e)| matches!(e, Event::BindingRefused { .. })).count();
    assert_eq!(alarms, 0, "and nobody is alarmed");
    // From another port it is a guest that has come by other means.
    w.run_for(Span::secs(45));
    assert_eq!(w.mac_row(0, mac(1)), remote(1, false), "after the release time an ordinary row");
    w.frame(0, P1, mac(1), Some(garp(mac(1), ip(1))));
    w.run_for(Span::millis(10));
    assert_eq!(w.mac_row(1, mac(1)), remote(0, false), "and an ordinary move back");
}

#[test]
fn a_released_guest_on_another_port_is_another_story() {
    let mut w = before();
    done(&mut w, 0, RELEASE);
    done(&mut w, 1, activate(Some("p2")));
    w.frame(0, P2, mac(1), Some(garp(mac(1), ip(1))));
    w.run_for(Span::millis(10));
    assert_eq!((w.mac_row(0, mac(1)), w.mac_row(1, mac(1))), (local(P2), remote(0, false)));
}

/// The release comes after the route: order does not matter.
#[test]
fn a_release_that_comes_late_makes_the_row_sticky_then() {
    let mut w = before();
    done(&mut w, 1, activate(Some("p2")));
    assert_eq!(w.mac_row(0, mac(1)), remote(1, false));
    assert_eq!(done(&mut w, 0, RELEASE).state, "released");
    assert_eq!(w.mac_row(0, mac(1)), remote(1, true));
    assert_eq!(done(&mut w, 0, RELEASE).state, "released", "twice is once");
    // A third owner: the row follows it, and stays sticky.
    w.frame(2, P1, mac(1), Some(garp(mac(1), ip(1))));
    w.run_for(Span::millis(10));
    assert_eq!(w.mac_row(0, mac(1)), remote(2, true));
}

#[test]
fn the_guest_comes_back_to_its_source_before_the_release_is_over() {
    let mut w = before();
    done(&mut w, 0, RELEASE);
    done(&mut w, 1, activate(Some("p2")));
    w.frame(1, P2, mac(1), Some(garp(mac(1), ip(1))));
    // And back, with its hypervisor's help.
    done(&mut w, 1, RELEASE);
    let r = done(&mut w, 0, activate(Some("p1")));
    assert_eq!((r.state.as_str(), r.seq), ("active", Some(Seq(2))));
    assert_eq!((w.mac_row(0, mac(1)), w.mac_row(1, mac(1))), (local(P1), remote(0, true)));
    assert_eq!(w.mac_row(2, mac(1)), remote(0, false));
    // Its release is forgotten: when it moves on by itself the row is an ordinary one.
    w.frame(2, P1, mac(1), Some(garp(mac(1), ip(1))));
    w.run_for(Span::millis(10));
    assert_eq!(w.mac_row(0, mac(1)), remote(2, false));
}

/// PIT-04: a daemon that is restarted goes on with the release.
#[test]
fn a_release_survives_a_kill_of_the_daemon() {
    let mut w = before();
    done(&mut w, 0, RELEASE);
    done(&mut w, 1, activate(Some("p2")));
    w.frame(1, P2, mac(1), Some(garp(mac(1), ip(1))));
    w.run_for(Span::secs(5));
    w.kill(0);
    w.run_for(Span::secs(1));
    w.start(0, true);
    w.run_for(Span::secs(10));
    assert_eq!(w.mac_row(0, mac(1)), remote(1, true));
    w.frame(0, P1, mac(1), Some(garp(mac(1), ip(1))));
    w.run_for(Span::millis(10));
    assert_eq!((w.mac_row(0, mac(1)), w.mac_row(2, mac(1))), (remote(1, true), remote(1, false)));
    w.run_for(Span::secs(60));
    assert_eq!(w.mac_row(0, mac(1)), remote(1, false), "and it ends when it would have ended");
}

#[test]
fn a_kill_at_the_target_leaves_what_the_kernel_shows() {
    for active in [false, true] {
        let mut w = before();
        done(&mut w, 1, prepare("p2"));
        if active {
            done(&mut w, 1, activate(None));
        }
        w.kill(1);
        w.run_for(Span::secs(1));
        w.start(1, true);
        w.run_for(Span::secs(10));
        // A row in the table is a fact, whoever put it there: the guest goes on being reachable.
        let (at1, at2) = if active { (None, remote(1, false)) } else { (remote(0, false), remote(0, false)) };
        assert_eq!(
            (w.mac_row(1, mac(1)).filter(|r| Some(*r) != local(P2)), w.mac_row(2, mac(1))),
            (at1, at2)
        );
    }
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

/// Thousands of preparations are bounded, and the ones that are there go on working.
#[test]
fn too_many_preparations_are_refused() {
    let mut w = World::converged(2, MS);
    let m = |n: u16| Mac([2, 1, 0, 0, (n >> 8) as u8, n as u8]);
    for n in 0..4096 {
        let id = w.step(1, m(n), &[], prepare("p1"));
        assert_eq!(ok(&w, 1, id).state, "prepared");
    }
    for step in [prepare("p1"), activate(Some("p1"))] {
        let id = w.step(1, m(5000), &[], step);
        let (kind, text) = no(&w, 1, id);
        assert!(kind == Refusal::Busy && text.contains("4096"), "{text}");
    }
    let id = w.step(1, m(7), &[], activate(None));
    w.run_for(Span::millis(10));
    assert_eq!(ok(&w, 1, id).state, "active");
    w.run_for(Span::secs(61));
    let id = w.step(1, m(5000), &[], prepare("p1"));
    assert_eq!(ok(&w, 1, id).state, "prepared", "the others have timed out");
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

/// Where it is clear which VNI is meant nobody has to name it.
#[test]
fn the_vni_follows_from_port_or_mac() {
    let mut w = World::with(2, MS, |c| {
        let mut other = c.vnis[0].clone();
        other.vni = Vni::new(200).expect("valid");
        (other.bridge, other.vxlan) = ("br200".into(), "vx200".into());
        c.vnis.push(other);
    });
    w.run_for(Span::secs(10));
    w.frame(0, P1, mac(1), Some(garp(mac(1), ip(1))));
    w.run_for(Span::millis(10));
    let mut n = 1 << 40;
    let mut ask = |w: &mut World, i: usize, m: Mac, step: MoveStep| {
        n += 1;
        let request =
            MoveRequest { vni: None, mac: m, ips: vec![], step, by: Requester::Qmp, at_stop: false };
        w.input(i, Input::Command { id: n, command: Command::Move(request) });
        w.run_for(Span::millis(10));
        ok(w, i, n)
    };
    // Nobody knows it: nothing to abort, and no place where it could be released.
    let r = ask(&mut w, 1, mac(9), MoveStep::Abort);
    assert_eq!((r.state.as_str(), r.vni), ("nothing", None));
    let r = ask(&mut w, 1, mac(9), RELEASE);
    assert!(r.state == "nothing" && r.notes[0].contains("name the VNI"), "{r:?}");
    for (i, step, state) in [
        (0, RELEASE, "released"),
        (1, prepare("p2"), "prepared"),
        (1, activate(None), "active"),
        (1, MoveStep::Abort, "aborted"),
        (0, MoveStep::Abort, "aborted"),
    ] {
        let r = ask(&mut w, i, mac(1), step);
        assert_eq!((r.state.as_str(), r.vni), (state, Some(vni())));
    }
    // The port is in VNI 100, whatever is said.
    let step = prepare("p2");
    let request = MoveRequest {
        vni: Vni::new(200),
        mac: mac(1),
        ips: vec![],
        step,
        by: Requester::Qmp,
        at_stop: false,
    };
    w.input(1, Input::Command { id: 1 << 41, command: Command::Move(request) });
    let (kind, text) = no(&w, 1, 1 << 41);
    assert!(kind == Refusal::Conflict && text.contains("p2 is in VNI 100, not in VNI 200"), "{text}");
}

/// To and fro between two hosts, each time with the hypervisors' help: no duplicate, and nobody is asked anything where
/// a guest has left.
#[test]
fn a_guest_that_goes_to_and_fro_in_prepared_moves_is_no_duplicate() {
    let mut w = before();
    for n in 0..8u32 {
        let (from, to) = if n % 2 == 0 { (0, 1) } else { (1, 0) };
        done(&mut w, to, prepare("p1"));
        done(&mut w, from, RELEASE);
        assert_eq!(done(&mut w, to, activate(None)).seq, Some(Seq(n + 1)), "one step per move");
        w.hosts[from].emitted.clear();
        w.frame(to, P1, mac(1), Some(garp(mac(1), ip(1))));
        // What was still in the source's queues.
        w.frame(from, P1, mac(1), Some(garp(mac(1), ip(1))));
        w.run_for(Span::secs(2));
        assert_eq!(w.mac_row(2, mac(1)), remote(to, false), "move {n}");
        assert_eq!(w.hosts[from].emitted.len(), 0, "move {n}: nobody is asked");
    }
    for i in 0..3 {
        let found = w.hosts[i].events.iter().filter(|(_, e)| matches!(e, Event::Duplicate { .. })).count();
        assert_eq!(found, 0, "node {i}");
    }
}
