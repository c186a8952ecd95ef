//! The mark of a guest that has stopped at its source: who acts on it, when, and how often; and that a migration that
//! fails after it leaves the guest where it is (PIT-26).

#![allow(clippy::unnecessary_wraps)] // compared with what the kernel may not have

mod world;

use bytes::Bytes;
use evpn::fabric::Row;
use evpn::node::{Event, MoveReply, MoveStep, Reply, Show, view::Rows};
use evpn::types::{IfIndex, Seq, Span, Time};
use evpn::wire::ExtCommunity;
use proptest::prelude::*;
use std::net::{IpAddr, Ipv4Addr};
use world::{P1, P2, VXLAN, World, frames, mac, vtep};

const NODES: usize = 3;
const MS: Span = Span::millis(1);

fn prepare(port: &str) -> MoveStep {
    MoveStep::Prepare { port: port.into(), timeout: None }
}

fn activate(port: &str) -> MoveStep {
    MoveStep::Activate { port: Some(port.into()), timeout: None }
}

const RELEASE: MoveStep = MoveStep::Release { timeout: None };

/// Gratuitous ARP request of the guest.
fn garp() -> Bytes {
    frames::garp(mac(1), Ipv4Addr::new(10, 1, 0, 1))
}

fn local(port: IfIndex) -> Option<Row> {
    Some(Row::Local { vxlan: VXLAN, port })
}

fn remote(i: usize) -> Option<Row> {
    Some(Row::Remote { vxlan: VXLAN, vtep: vtep(i), sticky: false })
}

/// Three nodes; the guest with its address is behind `p1` of node 0.
fn before(delay: Span) -> World {
    let mut w = World::converged(NODES, delay);
    w.frame(0, P1, mac(1), Some(garp()));
    w.run_for(Span::millis(100));
    assert_eq!((w.mac_row(1, mac(1)), w.mac_row(2, mac(1))), (remote(0), remote(0)));
    w
}

fn reply(w: &World, i: usize, id: u64) -> MoveReply {
    match w.hosts[i].answers.get(&id) {
        Some(Reply::Move(r)) => r.clone(),
        other => panic!("step {id} at node {i}: {other:?}"),
    }
}

/// When a node acted on a mark, and whose.
fn heeded(w: &World, i: usize) -> Vec<(Time, IpAddr)> {
    let of = |(at, e): &(Time, Event)| match e {
        Event::MoveMarked { vtep, .. } => Some((*at, *vtep)),
        _ => None,
    };
    w.hosts[i].events.iter().filter_map(of).collect()
}

/// Routes with the mark that a node has, its own among them.
fn marked(w: &mut World, i: usize) -> usize {
    let Rows::Routes(rows) = w.ask(i, Show::Routes) else { panic!("routes were asked for") };
    rows.iter().filter(|r| r.communities.iter().any(|c| c == "vtepd:going")).count()
}

fn seq(w: &mut World, i: usize) -> Seq {
    w.macs(i).into_iter().find(|m| m.mac == mac(1)).expect("known").seq
}

/// What a peer can see of another node, but for its clock.
fn visible(w: &World, i: usize) -> String {
    let h = &w.hosts[i];
    format!("{:?} {:?} {:?}", h.rows, h.fdb, h.node.want().iter().collect::<Vec<_>>())
}

#[test]
fn a_prepared_target_activates_when_the_source_says_that_the_guest_has_stopped() {
    let mut w = before(MS);
    w.step_at_stop(1, mac(1), prepare("p2"));
    // Prepared too, but not for this.
    w.step(2, mac(1), &[], prepare("p1"));
    w.run_for(Span::millis(10));
    let id = w.step_at_stop(0, mac(1), RELEASE);
    let since = w.now;
    w.run_for(Span::millis(10));
    assert_eq!(reply(&w, 0, id).state, "released");
    assert_eq!(heeded(&w, 1).len(), 1);
    assert!(heeded(&w, 1)[0].0.since(since) <= Span::millis(2), "one way from the source");
    assert_eq!(heeded(&w, 2), []);
    assert_eq!((w.mac_row(1, mac(1)), w.mac_row(2, mac(1))), (local(P2), remote(1)));
    assert_eq!(
        (w.mac_row(0, mac(1)), seq(&mut w, 2)),
        (Some(Row::Remote { vxlan: VXLAN, vtep: vtep(1), sticky: true }), Seq(1))
    );
    assert_eq!(w.neigh_row(2, IpAddr::from([10, 1, 0, 1])), Some(Row::Neigh { mac: mac(1), router: false }));
    let record = w.moves(1).pop().expect("a record");
    assert_eq!((&*record.cause, record.seq), ("api", Seq(1)), "{record:?}");
    // It runs: that is no second move, and nothing is left of the mark.
    let id = w.step(1, mac(1), &[], activate("p2"));
    w.run_for(Span::millis(10));
    assert_eq!((reply(&w, 1, id).state.as_str(), reply(&w, 1, id).seq), ("active", Some(Seq(1))));
    w.run_for(Span::secs(1));
    assert_eq!((0..NODES).map(|i| marked(&mut w, i)).sum::<usize>(), 0);
    assert_eq!(w.moves(1).len(), 1);
}

#[test]
fn a_mark_changes_nothing_for_those_who_do_not_wait_for_it() {
    let mut w = before(MS);
    w.step(2, mac(1), &[], prepare("p1"));
    w.run_for(Span::millis(10));
    let was: Vec<String> = (0..NODES).map(|i| visible(&w, i)).collect();
    w.step_at_stop(0, mac(1), RELEASE);
    w.run_for(Span::millis(10));
    assert_eq!((marked(&mut w, 1), marked(&mut w, 2)), (1, 1), "they have it");
    let now: Vec<String> = (0..NODES).map(|i| visible(&w, i)).collect();
    assert_eq!(now, was);
    assert_eq!(seq(&mut w, 2), Seq::ZERO);
    // Without the word at the release there is none.
    let mut w = before(MS);
    w.step_at_stop(1, mac(1), prepare("p2"));
    w.step(0, mac(1), &[], RELEASE);
    w.run_for(Span::millis(10));
    assert_eq!((marked(&mut w, 1), heeded(&w, 1)), (0, vec![]));
    // It stands no longer than a preparation does, and goes without a new sequence.
    let mut w = before(MS);
    w.step_at_stop(0, mac(1), MoveStep::Release { timeout: Some(Span::secs(600)) });
    w.run_for(Span::secs(59));
    assert_eq!(marked(&mut w, 2), 1);
    w.run_for(Span::secs(2));
    assert_eq!((marked(&mut w, 0), marked(&mut w, 2), seq(&mut w, 2)), (0, 0, Seq::ZERO));
}

#[test]
fn a_mark_that_is_older_than_the_preparation_does_nothing_and_the_next_one_does() {
    let mut w = before(MS);
    w.step_at_stop(0, mac(1), RELEASE);
    w.run_for(Span::millis(10));
    w.step_at_stop(1, mac(1), prepare("p2"));
    w.run_for(Span::secs(1));
    // Nor when it comes again with a new session, or the preparation is repeated.
    w.cut(0, 1);
    w.run_for(Span::secs(10));
    w.step_at_stop(1, mac(1), prepare("p2"));
    w.run_for(Span::secs(1));
    assert_eq!((marked(&mut w, 1), heeded(&w, 1)), (1, vec![]));
    assert_eq!(w.mac_row(1, mac(1)), remote(0));
    w.step(0, mac(1), &[], MoveStep::Abort);
    w.run_for(Span::millis(10));
    assert_eq!((marked(&mut w, 1), seq(&mut w, 1)), (0, Seq(2)));
    w.step_at_stop(0, mac(1), RELEASE);
    w.run_for(Span::millis(10));
    assert_eq!(heeded(&w, 1).len(), 1);
    assert_eq!((w.mac_row(1, mac(1)), seq(&mut w, 2)), (local(P2), Seq(3)));
}

#[test]
fn a_guest_that_goes_on_at_its_source_beats_the_activation_that_is_still_under_way() {
    // Step by step over a way of 10 ms: the source changes its mind before, while and after the target acts.
    for ms in [1, 5, 12, 15, 19, 21, 30] {
        let mut w = before(Span::millis(10));
        w.step_at_stop(1, mac(1), prepare("p2"));
        w.run_for(Span::millis(50));
        w.step_at_stop(0, mac(1), RELEASE);
        w.run_for(Span::millis(ms));
        // As the adapter takes a guest back that has not left.
        let id = w.step(0, mac(1), &[], activate("p1"));
        w.run_for(Span::millis(100));
        assert_eq!(reply(&w, 0, id).state, "active", "after {ms} ms");
        let rows = (w.mac_row(1, mac(1)), w.mac_row(2, mac(1)));
        assert_eq!(rows, (remote(0), remote(0)), "after {ms} ms");
        assert_eq!(w.hosts[0].fdb.get(&mac(1)), Some(&P1), "after {ms} ms");
        let told = seq(&mut w, 2);
        assert_eq!(told, Seq(2), "after {ms} ms");
        // And the target's QEMU, which ends, has nothing to take along.
        w.step(1, mac(1), &[], MoveStep::Abort);
        w.run_for(Span::secs(1));
        assert_eq!((w.mac_row(2, mac(1)), seq(&mut w, 2), marked(&mut w, 2)), (remote(0), told, 0));
        // Its silence afterwards is no reason to give it up, and frames of its own are its own.
        w.frame(0, P1, mac(1), Some(garp()));
        w.run_for(Span::secs(70));
        assert_eq!((w.mac_row(1, mac(1)), seq(&mut w, 1)), (remote(0), told));
    }
}

#[test]
fn one_preparation_acts_once_and_not_after_its_time() {
    let mut w = before(MS);
    w.step_at_stop(1, mac(1), prepare("p2"));
    w.run_for(Span::millis(10));
    for _ in 0..3 {
        w.step_at_stop(0, mac(1), RELEASE);
        w.run_for(Span::millis(10));
        w.step(0, mac(1), &[], activate("p1"));
        w.run_for(Span::millis(10));
    }
    assert_eq!(heeded(&w, 1).len(), 1);
    assert_eq!(w.mac_row(1, mac(1)), remote(0));
    // Prepared, aborted; and prepared, and out of time.
    w.step_at_stop(1, mac(1), prepare("p2"));
    w.step(1, mac(1), &[], MoveStep::Abort);
    w.step_at_stop(2, mac(1), MoveStep::Prepare { port: "p1".into(), timeout: Some(Span::millis(5)) });
    w.run_for(Span::millis(10));
    w.step_at_stop(0, mac(1), RELEASE);
    w.run_for(Span::millis(10));
    assert_eq!((heeded(&w, 1).len(), heeded(&w, 2).len()), (1, 0));
}

#[test]
fn a_preparation_by_somebody_who_knows_of_no_stop_takes_nothing_back() {
    let mut w = before(MS);
    // As a QMP socket and libvirt's hook do, one after the other.
    w.step_at_stop(1, mac(1), prepare("p2"));
    w.step(1, mac(1), &[], prepare("p2"));
    w.run_for(Span::millis(10));
    w.step_at_stop(0, mac(1), RELEASE);
    w.run_for(Span::millis(10));
    assert_eq!((heeded(&w, 1).len(), w.mac_row(1, mac(1))), (1, local(P2)));
    // For another port it is another preparation.
    let mut w = before(MS);
    w.step_at_stop(1, mac(1), prepare("p2"));
    w.step(1, mac(1), &[], prepare("p1"));
    w.run_for(Span::millis(10));
    w.step_at_stop(0, mac(1), RELEASE);
    w.run_for(Span::millis(10));
    assert_eq!((heeded(&w, 1).len(), w.mac_row(1, mac(1))), (0, remote(0)));
}

#[test]
fn the_mark_is_nobody_elses_community() {
    assert!(ExtCommunity::GOING.is_transitive() && !ExtCommunity::GOING.is_route_target());
    assert_eq!(ExtCommunity::GOING.kind(), evpn::wire::ExtKind::Unknown);
    assert_eq!(ExtCommunity::GOING.to_string(), "vtepd:going");
}

/// Something that happens; the guest itself stays behind `p1` of node 0 and is silent.
#[derive(Clone, Debug)]
enum Happening {
    /// `None`: the default.
    Prepare {
        node: usize,
        at_stop: bool,
        timeout: Option<u64>,
    },
    Stop {
        at_stop: bool,
    },
    GoesOn {
        by_abort: bool,
    },
    Resume {
        node: usize,
    },
    Abort {
        node: usize,
    },
    Pass {
        ms: u64,
    },
    Cut {
        a: usize,
        b: usize,
    },
    Kill {
        node: usize,
    },
}

fn happening() -> impl Strategy<Value = Happening> {
    use Happening::{Abort, Cut, GoesOn, Kill, Pass, Prepare, Resume, Stop};
    let node = || 0..NODES;
    let time = proptest::option::of(prop_oneof![Just(20u64), Just(2_000)]);
    prop_oneof![
        6 => (1..NODES, any::<bool>(), time)
            .prop_map(|(node, at_stop, timeout)| Prepare { node, at_stop, timeout }),
        6 => any::<bool>().prop_map(|at_stop| Stop { at_stop }),
        4 => any::<bool>().prop_map(|by_abort| GoesOn { by_abort }),
        1 => (1..NODES).prop_map(|node| Resume { node }),
        2 => (1..NODES).prop_map(|node| Abort { node }),
        8 => prop_oneof![Just(1u64), Just(7), Just(12), Just(50), Just(3_000)].prop_map(|ms| Pass { ms }),
        1 => (node(), node()).prop_map(|(a, b)| Cut { a, b }),
        1 => node().prop_map(|node| Kill { node }),
    ]
}

/// What a node was told, as far as it allows it to act on a mark.
#[derive(Clone, Copy, Debug, Default)]
struct Allowed {
    from: Option<Time>,
    until: Time,
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: std::env::var("VTEPD_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(64),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// Whatever the order: no node acts without a live preparation for it, none acts twice on one, none before the
    /// source has said that the guest has stopped; and once the guest goes on, it is where it is, without a mark.
    #[test]
    fn marks_act_only_for_those_who_wait_for_them(script in proptest::collection::vec(happening(), 1..30)) {
        let mut w = before(Span::millis(10));
        let mut allowed = [Allowed::default(); NODES];
        let mut stops: Vec<Time> = Vec::new();
        let mut seen = [0; NODES];
        for h in &script {
            match *h {
                Happening::Prepare { node, at_stop, timeout } => {
                    let timeout = timeout.map(Span::millis);
                    let step = MoveStep::Prepare { port: "p2".into(), timeout };
                    // Flushed before the next happening: what it acts on from now on is its own.
                    if at_stop {
                        w.step_at_stop(node, mac(1), step);
                    } else {
                        w.step(node, mac(1), &[], step);
                    }
                    // A wish that stands is not taken back by a preparation without it.
                    let stands = allowed[node].from.filter(|_| w.now <= allowed[node].until);
                    allowed[node] = Allowed {
                        from: at_stop.then_some(w.now).or(stands),
                        until: w.now + timeout.unwrap_or(Span::secs(60)),
                    };
                }
                Happening::Stop { at_stop: true } => {
                    w.step_at_stop(0, mac(1), RELEASE);
                    stops.push(w.now);
                }
                Happening::Stop { .. } => { w.step(0, mac(1), &[], RELEASE); }
                Happening::GoesOn { by_abort: true } => { w.step(0, mac(1), &[], MoveStep::Abort); }
                Happening::GoesOn { .. } => { w.step(0, mac(1), &[], activate("p1")); }
                Happening::Resume { node } => { w.step(node, mac(1), &[], activate("p2")); }
                Happening::Abort { node } => {
                    w.step(node, mac(1), &[], MoveStep::Abort);
                    allowed[node] = Allowed::default();
                }
                Happening::Pass { ms } => w.run_for(Span::millis(ms)),
                Happening::Cut { a, b } => w.cut(a, b),
                Happening::Kill { node } => {
                    w.kill(node);
                    w.start(node, true);
                    allowed[node] = Allowed::default();
                }
            }
            for node in 0..NODES {
                let acts = heeded(&w, node);
                for (at, who) in acts.iter().skip(seen[node]) {
                    let a = allowed[node];
                    prop_assert!(a.from.is_some_and(|f| f <= *at) && *at <= a.until, "node {} at {:?}: {:?}", node, at, a);
                    prop_assert_eq!(*who, vtep(0));
                    prop_assert!(stops.iter().any(|s| s < at), "nobody had stopped");
                    allowed[node] = Allowed::default();
                }
                seen[node] = acts.len();
            }
        }
        // It goes on at the source, and everybody else gives up.
        for _ in 0..3 {
            for node in 1..NODES {
                w.step(node, mac(1), &[], MoveStep::Abort);
            }
            // As long as an adapter has the row of a silent guest held.
            let step = MoveStep::Activate { port: Some("p1".into()), timeout: Some(Span::secs(3600)) };
            w.step(0, mac(1), &[], step);
            w.run_for(Span::secs(100));
        }
        for i in 1..NODES {
            prop_assert_eq!(w.mac_row(i, mac(1)), remote(0), "node {}", i);
        }
        prop_assert_eq!(w.hosts[0].fdb.get(&mac(1)), Some(&P1));
        for i in 0..NODES {
            prop_assert_eq!(marked(&mut w, i), 0, "node {}", i);
        }
    }
}
