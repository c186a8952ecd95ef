//! What arrives at the source for a guest that stands still is held and follows it: when that begins and ends, and that
//! nothing is sent on before the kernel has the row that it goes by (PIT-26).

#![allow(clippy::unnecessary_wraps)] // compared with what the kernel may not have

mod world;

use bytes::Bytes;
use evpn::fabric::{KernelEvent, Link, LinkKind, PortFlags, Row};
use evpn::node::HoldWord::{Keep, Relay, Return};
use evpn::node::{Event, Held, HoldWord, Input, Leave, MoveStep, Node, Reply};
use evpn::types::{IfIndex, Mac, Span};
use proptest::prelude::*;
use std::net::Ipv4Addr;
use world::{BRIDGE, P1, P2, VXLAN, World, frames, mac, vni, vtep};

const HOLD: IfIndex = IfIndex(90);
const MS: Span = Span::millis(1);
const RELEASE: MoveStep = MoveStep::Release { timeout: None };

fn prepare(port: &str) -> MoveStep {
    MoveStep::Prepare { port: port.into(), timeout: None }
}

fn activate(port: &str) -> MoveStep {
    MoveStep::Activate { port: Some(port.into()), timeout: None }
}

fn garp() -> Bytes {
    frames::garp(mac(1), Ipv4Addr::new(10, 1, 0, 1))
}

fn local(port: IfIndex) -> Option<Row> {
    Some(Row::Local { vxlan: VXLAN, port })
}

fn relayed(to: usize) -> Option<Row> {
    Some(Row::Relayed { vxlan: VXLAN, vtep: vtep(to), port: HOLD })
}

fn remote(to: usize, sticky: bool) -> Option<Row> {
    Some(Row::Remote { vxlan: VXLAN, vtep: vtep(to), sticky })
}

fn device(index: IfIndex, name: &str, kind: &str, isolated: bool) -> KernelEvent {
    let port =
        Some(PortFlags { learning: true, flood: true, forwarding: true, isolated, ..PortFlags::default() });
    KernelEvent::Link(Link {
        index,
        name: name.into(),
        mac: Mac([0xfe, 0xff, 0, 0, 0, index.0 as u8]),
        mtu: 65_521,
        up: true,
        carrier: true,
        master: Some(BRIDGE),
        kind: LinkKind::Other(kind.into()),
        port,
    })
}

/// The driver has made the hold port of a node.
fn make_port(w: &mut World, i: usize) {
    w.kernel(i, device(HOLD, &Node::hold_port_name(vni()), "tun", false));
    w.input(i, Input::HoldPort { vni: vni(), made: Ok(HOLD) });
}

/// Three nodes, `MS` apart; the guest is behind `p1` of node 0, which has a hold port.
fn before() -> World {
    let mut w = World::converged(3, MS);
    w.frame(0, P1, mac(1), Some(garp()));
    w.run_for(Span::millis(100));
    let id = w.step(0, mac(1), &[], MoveStep::Leave(Leave::Begins));
    assert_eq!(state(&w, 0, id), "leaving");
    assert_eq!(w.hosts[0].hold_ports, ["vtepd-h100"]);
    make_port(&mut w, 0);
    assert_eq!(w.mac_row(0, mac(1)), None, "it is the bridge's own");
    w
}

/// The kernel answers again.
fn go_on(w: &mut World) {
    w.hosts[0].paused = false;
    w.input(0, Input::Recalled(Vec::new()));
    w.run_for(MS);
}

fn state(w: &World, i: usize, id: u64) -> String {
    match w.hosts[i].answers.get(&id) {
        Some(Reply::Move(r)) => r.state.clone(),
        other => panic!("step {id} at node {i}: {other:?}"),
    }
}

fn words(w: &World) -> Vec<HoldWord> {
    assert!(w.hosts[0].held.iter().all(|(p, m, _)| (*p, *m) == (HOLD, mac(1))));
    w.hosts[0].held.iter().map(|(_, _, word)| *word).collect()
}

#[test]
fn what_is_held_follows_the_guest_when_the_kernel_knows_where_it_is() {
    let mut w = before();
    w.step_at_stop(1, mac(1), prepare("p2"));
    w.run_for(Span::millis(10));
    w.step_at_stop(0, mac(1), RELEASE);
    assert_eq!((w.mac_row(0, mac(1)), words(&w)), (local(HOLD), vec![Keep]), "at the stop, not a way later");
    // The mark goes there, the route comes back.
    w.run_for(Span::micros(2_500));
    assert_eq!((w.mac_row(0, mac(1)), words(&w)), (relayed(1), vec![Keep, Relay(VXLAN)]));
    assert_eq!(w.mac_row(2, mac(1)), remote(1, false), "the others see nothing of it");
    // Those that have not heard go on sending here; a late frame of the guest itself changes nothing (PIT-04).
    w.frame(0, P1, mac(1), Some(garp()));
    assert_eq!((w.mac_row(0, mac(1)), w.hosts[0].fdb[&mac(1)]), (relayed(1), HOLD));
    w.run_for(Span::secs(1));
    assert_eq!((w.mac_row(0, mac(1)), words(&w)), (remote(1, true), vec![Keep, Relay(VXLAN), Return]));
    let held = Held { kept: 3, relayed: 1, dropped: 0 };
    w.input(0, Input::Held { port: HOLD, mac: mac(1), held });
    let told = |(_, e): &(_, Event)| matches!(e, Event::FramesHeld { kept: 3, relayed: 1, dropped: 0, .. });
    assert_eq!(w.hosts[0].events.iter().filter(|e| told(e)).count(), 1);
    assert_eq!(w.status(0).counters["frames_held"], 3);
    assert_eq!(w.hosts[0].taps.iter().filter(|p| **p == HOLD).count(), 0, "nobody's access port");
}

#[test]
fn nothing_is_sent_on_before_the_kernel_has_the_row() {
    let mut w = before();
    w.step(1, mac(1), &[], prepare("p2"));
    w.step(0, mac(1), &[], MoveStep::Leave(Leave::Stopped));
    w.hosts[0].paused = true;
    w.step(1, mac(1), &[], activate("p2"));
    w.run_for(Span::millis(50));
    assert_eq!((w.macs(0)[0].place.to_string(), words(&w)), (vtep(1).to_string(), vec![Keep]));
    go_on(&mut w);
    assert_eq!((w.mac_row(0, mac(1)), words(&w)), (relayed(1), vec![Keep, Relay(VXLAN)]));
    // Nor is it given back.
    w.hosts[0].paused = true;
    w.run_for(Span::millis(1_050));
    assert_eq!(words(&w).last(), Some(&Relay(VXLAN)));
    go_on(&mut w);
    assert_eq!((w.mac_row(0, mac(1)), words(&w).last()), (remote(1, false), Some(&Return)));
}

#[test]
fn a_migration_that_is_called_off_gives_the_guest_what_was_held() {
    for by_mark in [true, false] {
        let mut w = before();
        if by_mark {
            w.step_at_stop(0, mac(1), RELEASE);
        } else {
            w.step(0, mac(1), &[], MoveStep::Leave(Leave::Stopped));
        }
        w.run_for(Span::millis(5));
        assert_eq!((w.mac_row(0, mac(1)), words(&w)), (local(HOLD), vec![Keep]));
        w.hosts[0].paused = true;
        let end = if by_mark { MoveStep::Abort } else { MoveStep::Leave(Leave::Stays) };
        w.step(0, mac(1), &[], end);
        assert_eq!(words(&w), [Keep]);
        go_on(&mut w);
        assert_eq!((w.hosts[0].fdb[&mac(1)], words(&w)), (P1, vec![Keep, Return]));
        w.run_for(Span::secs(3));
        assert_eq!((w.mac_row(0, mac(1)), words(&w).len()), (local(P1), 2));
        assert_eq!(w.mac_row(2, mac(1)), remote(0, false));
    }
}

#[test]
fn a_guest_that_speaks_ends_its_hold_by_itself() {
    let mut w = before();
    w.step(0, mac(1), &[], MoveStep::Leave(Leave::Stopped));
    w.run_for(Span::millis(5));
    // The bridge moves the row: it is a dynamic one.
    w.frame(0, P1, mac(1), None);
    assert_eq!((w.hosts[0].fdb[&mac(1)], words(&w)), (P1, vec![Keep, Return]));
    // On another port, too.
    w.step(0, mac(1), &[], MoveStep::Leave(Leave::Stopped));
    assert_eq!(w.hosts[0].fdb[&mac(1)], HOLD);
    w.frame(0, P2, mac(1), None);
    assert_eq!((w.hosts[0].fdb[&mac(1)], words(&w)), (P2, vec![Keep, Return, Keep, Return]));
    w.run_for(Span::secs(3));
    assert_eq!((w.hosts[0].fdb[&mac(1)], words(&w).len()), (P2, 4));
}

#[test]
fn a_guest_that_nobody_takes_over_is_held_no_longer_than_configured() {
    let mut w = before();
    w.step_at_stop(0, mac(1), RELEASE);
    w.run_for(Span::millis(999));
    assert_eq!(words(&w), [Keep]);
    w.run_for(Span::millis(2));
    assert_eq!((w.hosts[0].fdb[&mac(1)], words(&w)), (P1, vec![Keep, Return]));
    assert_eq!(w.status(0).counters["holds_timed_out"], 1);
}

#[test]
fn a_guest_whose_port_goes_is_held_until_somebody_has_it() {
    for taken_over in [true, false] {
        let mut w = before();
        w.step(1, mac(1), &[], prepare("p2"));
        w.step(0, mac(1), &[], MoveStep::Leave(Leave::Stopped));
        w.kernel(0, KernelEvent::LinkGone(P1));
        w.run_for(Span::millis(10));
        assert!(w.macs(0).is_empty(), "its route is withdrawn as ever");
        assert_eq!((w.hosts[0].fdb[&mac(1)], words(&w)), (HOLD, vec![Keep]));
        if taken_over {
            w.step(1, mac(1), &[], activate("p2"));
            w.run_for(Span::millis(10));
            assert_eq!((w.mac_row(0, mac(1)), words(&w)), (relayed(1), vec![Keep, Relay(VXLAN)]));
        }
        w.run_for(Span::secs(3));
        assert_eq!(words(&w).last(), Some(&Return));
        let row = taken_over.then(|| remote(1, false)).flatten();
        assert_eq!((w.mac_row(0, mac(1)), w.hosts[0].fdb.contains_key(&mac(1))), (row, taken_over));
    }
}

#[test]
fn a_port_that_goes_before_its_row_is_back_leaves_nothing_on_the_hold_port() {
    let mut w = before();
    w.step(0, mac(1), &[], MoveStep::Leave(Leave::Stopped));
    w.hosts[0].paused = true;
    w.step(0, mac(1), &[], MoveStep::Leave(Leave::Stays));
    w.kernel(0, KernelEvent::LinkGone(P1));
    assert_eq!(w.hosts[0].fdb[&mac(1)], HOLD);
    go_on(&mut w);
    assert_eq!(
        (w.mac_row(0, mac(1)), w.hosts[0].fdb.get(&mac(1)), words(&w)),
        (None, None, vec![Keep, Return])
    );
}

#[test]
fn a_hold_port_that_goes_takes_nobodys_row_along_and_is_made_anew() {
    let mut w = before();
    w.step(0, mac(1), &[], MoveStep::Leave(Leave::Stopped));
    w.kernel(0, KernelEvent::LinkGone(HOLD));
    w.run_for(MS);
    assert_eq!(w.mac_row(0, mac(1)), local(P1));
    // The next one that leaves has it made again; who has stopped meanwhile waits for it.
    let id = w.step(0, mac(1), &[], MoveStep::Leave(Leave::Stopped));
    assert_eq!((state(&w, 0, id).as_str(), w.hosts[0].hold_ports.len()), ("held", 2));
    assert_eq!(w.mac_row(0, mac(1)), local(P1));
    make_port(&mut w, 0);
    assert_eq!(w.mac_row(0, mac(1)), local(HOLD));
}

#[test]
fn a_port_that_cannot_be_made_is_told_and_nothing_is_held() {
    let mut w = World::converged(2, MS);
    w.frame(0, P1, mac(1), Some(garp()));
    w.step(0, mac(1), &[], MoveStep::Leave(Leave::Stopped));
    w.input(0, Input::HoldPort { vni: vni(), made: Err("no /dev/net/tun".into()) });
    w.run_for(Span::secs(3));
    assert_eq!((w.mac_row(0, mac(1)), w.hosts[0].held.len()), (None, 0));
    let told =
        |(_, e): &(_, Event)| matches!(e, Event::DeviceProblem { device, .. } if device == "vtepd-h100");
    assert_eq!(w.hosts[0].events.iter().filter(|e| told(e)).count(), 1);
}

#[test]
fn nothing_is_held_where_it_would_do_harm_or_is_not_wanted() {
    // A port that is isolated from others: the hold port is not.
    let mut w = before();
    w.kernel(0, device(P1, "p1", "veth", true));
    let id = w.step(0, mac(1), &[], MoveStep::Leave(Leave::Stopped));
    assert_eq!((state(&w, 0, id).as_str(), words(&w).len()), ("nothing", 0));
    // A guest that is elsewhere already, or unknown.
    for (node, who) in [(1, mac(1)), (0, mac(7))] {
        let id = w.step(node, who, &[], MoveStep::Leave(Leave::Stopped));
        assert_eq!(state(&w, node, id), "nothing");
    }
    // Somebody's static row: the kernel side refuses, and the wish is given up.
    let mut w = before();
    w.hosts[0].refused.insert(mac(1));
    w.step(0, mac(1), &[], MoveStep::Leave(Leave::Stopped));
    w.run_for(MS);
    assert_eq!((w.hosts[0].fdb[&mac(1)], w.status(0).counters["holds_failed"]), (P1, 1));
    assert_eq!(
        w.hosts[0].node.want().iter().filter(|(_, r)| matches!(r, Row::Local { port: HOLD, .. })).count(),
        0
    );
    // Switched off.
    let mut w = World::with(2, MS, |c| c.mobility.hold_time = Span::ZERO);
    w.run_for(Span::secs(10));
    w.frame(0, P1, mac(1), Some(garp()));
    w.step_at_stop(0, mac(1), RELEASE);
    w.run_for(Span::secs(2));
    assert_eq!(w.hosts[0].hold_ports.len() + w.hosts[0].held.len(), 0);
}

/// Something that happens, at the source (0) or elsewhere.
#[derive(Clone, Debug)]
enum Happening {
    Step(usize, u8, bool),
    Leave(u8),
    Pass(u64),
    Stall(bool),
    Speak(usize, u8),
    Port(bool),
    HoldPort(bool),
    Cut(usize),
}

fn happening() -> impl Strategy<Value = Happening> {
    use Happening::{Cut, HoldPort, Leave, Pass, Port, Speak, Stall, Step};
    prop_oneof![
        8 => (0..3usize, 0..4u8, any::<bool>()).prop_map(|(n, s, at_stop)| Step(n, s, at_stop)),
        6 => (0..3u8).prop_map(Leave),
        8 => prop_oneof![Just(0u64), Just(1), Just(3), Just(40), Just(1_200)].prop_map(Pass),
        2 => any::<bool>().prop_map(Stall),
        4 => (0..3usize, 0..2u8).prop_map(|(n, p)| Speak(n, p)),
        2 => any::<bool>().prop_map(Port),
        1 => any::<bool>().prop_map(HoldPort),
        1 => (1..3usize).prop_map(Cut),
    ]
}

/// Frames that the bridge sends into the hold port find somebody who knows what to do with them; and what is relayed has
/// a way out.
fn sound(w: &World) {
    let (row, at) = (w.mac_row(0, mac(1)), w.hosts[0].fdb.get(&mac(1)));
    let word = w.hosts[0].held.last().map(|(_, _, word)| *word);
    // A kernel that has not answered for a second is not waited for.
    if at == Some(&HOLD) && !w.hosts[0].paused {
        assert!(matches!(word, Some(Keep | Relay(_))), "{row:?} {word:?}");
    }
    if let Some(Relay(_)) = word {
        assert!(!matches!(row, Some(Row::Local { port: HOLD, .. })) || w.hosts[0].paused, "{row:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever happens in whatever order: no frame is sent on before its way is there, and when all is quiet nothing is
    /// held any more, nothing points to the hold port, and what was kept has been given away.
    #[test]
    fn whatever_happens_nothing_stays_held(happenings in proptest::collection::vec(happening(), 1..24)) {
        let mut w = before();
        let mut there = true;
        for h in happenings {
            match h {
                Happening::Step(node, step, at_stop) => {
                    let step = match step {
                        0 => prepare("p1"),
                        1 => activate("p1"),
                        2 => MoveStep::Abort,
                        _ => RELEASE,
                    };
                    if at_stop && !matches!(step, MoveStep::Activate { .. } | MoveStep::Abort) {
                        w.step_at_stop(node, mac(1), step);
                    } else {
                        w.step(node, mac(1), &[], step);
                    }
                }
                Happening::Leave(l) => {
                    let leave = [Leave::Begins, Leave::Stopped, Leave::Stays][usize::from(l)];
                    w.step(0, mac(1), &[], MoveStep::Leave(leave));
                }
                Happening::Pass(ms) => w.run_for(Span::millis(ms)),
                Happening::Stall(true) => w.hosts[0].paused = true,
                Happening::Stall(false) => go_on(&mut w),
                Happening::Speak(node, port) => {
                    w.frame(node, if port == 0 { P1 } else { P2 }, mac(1), Some(garp()));
                }
                Happening::Port(true) => w.kernel(0, device(P1, "p1", "veth", false)),
                Happening::Port(false) => {
                    if w.hosts[0].fdb.get(&mac(1)) == Some(&P1) {
                        w.hosts[0].fdb.remove(&mac(1));
                    }
                    w.kernel(0, KernelEvent::LinkGone(P1));
                }
                Happening::HoldPort(true) if !there => {
                    there = true;
                    make_port(&mut w, 0);
                }
                Happening::HoldPort(false) if there => {
                    there = false;
                    if w.hosts[0].fdb.get(&mac(1)) == Some(&HOLD) {
                        w.hosts[0].fdb.remove(&mac(1));
                    }
                    w.kernel(0, KernelEvent::LinkGone(HOLD));
                }
                Happening::HoldPort(_) => {}
                Happening::Cut(node) => w.cut(0, node),
            }
            sound(&w);
        }
        go_on(&mut w);
        w.run_for(Span::secs(150));
        sound(&w);
        prop_assert_ne!(w.hosts[0].fdb.get(&mac(1)), Some(&HOLD));
        let row = w.mac_row(0, mac(1));
        prop_assert!(!matches!(row, Some(Row::Relayed { .. } | Row::Local { port: HOLD, .. })), "{:?}", row);
        prop_assert!(matches!(w.hosts[0].held.last(), None | Some((_, _, Return))), "{:?}", w.hosts[0].held);
    }
}
