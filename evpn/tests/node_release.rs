//! What ends a release before its time, and what does not (PIT-04): the guest is expected back, its port went away, it
//! comes by another port, or nobody has it any more.

mod world;

use bytes::Bytes;
use evpn::fabric::{KernelEvent, Link, LinkKind, PortFlags, Row};
use evpn::node::{DuplicateAction, Event, MoveStep, Reply};
use evpn::types::{IfIndex, Mac, Span};
use std::net::Ipv4Addr;
use world::{BRIDGE, Guest, P1, P2, VXLAN, World, frames, mac, own_mac, vtep};

const MS: Span = Span::millis(1);
const RELEASE: MoveStep = MoveStep::Release { timeout: None };

fn garp(m: Mac) -> Bytes {
    frames::garp(m, Ipv4Addr::new(10, 1, 0, 1))
}

#[allow(clippy::unnecessary_wraps)] // compared with what the kernel may not have
fn remote(i: usize, sticky: bool) -> Option<Row> {
    Some(Row::Remote { vxlan: VXLAN, vtep: vtep(i), sticky })
}

fn step(w: &mut World, i: usize, step: MoveStep) {
    let id = w.step(i, mac(1), &[], step);
    w.run_for(Span::millis(10));
    assert!(matches!(w.hosts[i].answers.get(&id), Some(Reply::Move(_))), "{:?}", w.hosts[i].answers.get(&id));
}

fn prepare(w: &mut World, i: usize, port: &str) {
    step(w, i, MoveStep::Prepare { port: port.into(), timeout: None });
}

fn port(w: &mut World, i: usize, index: IfIndex, carrier: bool) {
    let flags = PortFlags { learning: true, flood: true, forwarding: carrier, ..PortFlags::default() };
    let (name, kind) = (if index == P1 { "p1" } else { "p2" }.into(), LinkKind::Other("veth".into()));
    let (master, port) = (Some(BRIDGE), Some(flags));
    let l = Link { index, name, mac: own_mac(i), mtu: 1450, up: true, carrier, master, kind, port };
    w.kernel(i, KernelEvent::Link(l));
}

/// The guest has gone from `p1` of node 0 to `p2` of node 1; its release at node 0 stands.
fn left() -> World {
    let mut w = World::converged(3, MS);
    w.sticky_holds = true;
    w.frame(0, P1, mac(1), Some(garp(mac(1))));
    w.run_for(Span::millis(10));
    step(&mut w, 0, RELEASE);
    step(&mut w, 1, MoveStep::Activate { port: Some("p2".into()), timeout: None });
    w.frame(1, P2, mac(1), Some(garp(mac(1))));
    w.run_for(Span::secs(2));
    assert_eq!(w.mac_row(0, mac(1)), remote(1, true));
    w.frame(0, P1, mac(1), Some(garp(mac(1))));
    w.run_for(Span::millis(10));
    assert_eq!((w.mac_row(0, mac(1)), w.mac_row(2, mac(1))), (remote(1, true), remote(1, false)));
    w
}

/// The guest boots on `p1` of node 0 again.
fn boots(w: &mut World) -> Option<Row> {
    w.frame(0, P1, mac(1), Some(garp(mac(1))));
    w.run_for(Span::millis(10));
    w.mac_row(2, mac(1))
}

#[test]
fn a_preparation_at_the_source_ends_the_release() {
    let mut w = left();
    prepare(&mut w, 0, "p1");
    assert_eq!(w.mac_row(0, mac(1)), remote(1, false));
    assert_eq!(boots(&mut w), remote(0, false), "before anybody has said activate");
}

#[test]
fn a_preparation_while_the_guest_is_still_here_does_not() {
    let mut w = World::converged(2, MS);
    w.frame(0, P1, mac(1), Some(garp(mac(1))));
    step(&mut w, 0, RELEASE);
    prepare(&mut w, 0, "p2");
    step(&mut w, 1, MoveStep::Activate { port: Some("p2".into()), timeout: None });
    assert_eq!(w.mac_row(0, mac(1)), remote(1, true));
}

#[test]
fn a_port_that_lost_its_carrier_has_no_last_frames() {
    let mut w = left();
    port(&mut w, 0, P1, false);
    assert_eq!(w.mac_row(0, mac(1)), remote(1, false));
    port(&mut w, 0, P1, true);
    assert_eq!(boots(&mut w), remote(0, false));
}

#[test]
fn the_carrier_of_another_port_changes_nothing() {
    let mut w = left();
    port(&mut w, 0, P2, false);
    port(&mut w, 0, P2, true);
    assert_eq!((boots(&mut w), w.mac_row(0, mac(1))), (remote(1, false), remote(1, true)));
}

/// While the MAC is ours the release waits for the carrier's return.
#[test]
fn a_port_that_goes_down_before_the_guest_is_elsewhere_ends_the_release_when_it_is_back() {
    let mut w = World::converged(3, MS);
    w.sticky_holds = true;
    w.frame(0, P1, mac(1), Some(garp(mac(1))));
    step(&mut w, 0, RELEASE);
    port(&mut w, 0, P1, false);
    w.forget(0, mac(1));
    step(&mut w, 1, MoveStep::Activate { port: Some("p2".into()), timeout: None });
    assert_eq!(w.mac_row(0, mac(1)), remote(1, true));
    port(&mut w, 0, P1, true);
    assert_eq!(boots(&mut w), remote(0, false));
}

#[test]
fn a_port_that_is_gone_ends_the_release() {
    let mut w = left();
    w.kernel(0, KernelEvent::LinkGone(P1));
    w.run_for(Span::millis(10));
    assert_eq!(w.mac_row(0, mac(1)), remote(1, false));
}

/// PIT-07: the frame only lets the bridge learn; the next one moves the MAC.
#[test]
fn a_guest_that_comes_by_another_port_is_let_in_and_the_old_port_still_claims_nothing() {
    let mut w = left();
    w.frame(0, P2, mac(1), Some(garp(mac(1))));
    w.run_for(Span::millis(10));
    assert_eq!((w.mac_row(0, mac(1)), w.mac_row(2, mac(1))), (remote(1, false), remote(1, false)));
    assert_eq!(boots(&mut w), remote(1, false), "from the old port");
    w.frame(0, P2, mac(1), Some(garp(mac(1))));
    w.run_for(Span::millis(10));
    assert_eq!(w.mac_row(2, mac(1)), remote(0, false));
}

#[test]
fn when_nobody_has_the_guest_any_more_its_announcement_ends_the_release() {
    let mut w = left();
    w.forget(1, mac(1));
    w.run_for(Span::millis(10));
    assert_eq!(boots(&mut w), remote(0, false));
    // It moves on by itself, and the row is an ordinary one.
    w.frame(2, P1, mac(1), Some(garp(mac(1))));
    w.run_for(Span::millis(10));
    assert_eq!(w.mac_row(0, mac(1)), remote(2, false));
}

/// A release that is over does not unpin the row of a MAC that is frozen as a duplicate (EVPN-MOB-16).
#[test]
fn the_end_of_a_release_leaves_a_frozen_duplicate_pinned() {
    let mut w = World::with(2, MS, |c| c.mobility.duplicates.action = DuplicateAction::Freeze);
    w.sticky_holds = true;
    w.run_for(Span::secs(10));
    for node in 0..2 {
        w.guests.push(Guest { node, port: P1, mac: mac(1), ip: Ipv4Addr::new(10, 1, 0, 1) });
    }
    let found = |w: &World| {
        (0..2).find(|i| w.hosts[*i].events.iter().any(|(_, e)| matches!(e, Event::Duplicate { .. })))
    };
    for n in 0..40 {
        if found(&w).is_none() {
            w.frame(n % 2, P1, mac(1), Some(garp(mac(1))));
            w.run_for(Span::secs(1));
        }
    }
    let i = found(&w).expect("two that are alive are a duplicate");
    assert_eq!(w.mac_row(i, mac(1)), remote(1 - i, true));
    step(&mut w, i, RELEASE);
    step(&mut w, i, MoveStep::Abort);
    assert_eq!(w.mac_row(i, mac(1)), remote(1 - i, true), "still frozen");
}

#[test]
fn a_repeated_preparation_is_told_once_and_a_changed_one_again() {
    let mut w = World::converged(2, MS);
    for p in ["p1", "p1", "p2", "p2"] {
        prepare(&mut w, 1, p);
    }
    let told = w.hosts[1].events.iter().filter(|(_, e)| matches!(e, Event::MovePrepared { .. })).count();
    assert_eq!((told, w.status(1).counters["moves_prepared"]), (2, 2));
}
