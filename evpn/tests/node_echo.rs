//! Rows in the forwarding table that show no guest: our own ones told late, those from before the start, those that a
//! port without carrier cannot have. Each was found by the simulation (`tests/sim-seeds`).

#![allow(clippy::unnecessary_wraps)] // compared with what the kernel may not have

mod world;

use bytes::Bytes;
use evpn::fabric::{FdbRow, KernelEvent, Link, LinkKind, PortFlags, Row, RowKey, VxlanFdb, WriteResult};
use evpn::node::{Command, Input, MoveRequest, MoveStep, Requester};
use evpn::types::{IfIndex, Mac, Seq, Span};
use evpn::wire::frame;
use std::net::Ipv4Addr;
use world::{BRIDGE, P1, P2, VXLAN, World, bridge_row, mac, own_mac, vni, vtep};

const MS: Span = Span::millis(1);
const IP: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 1);

fn garp() -> Option<Bytes> {
    Some(frame::gratuitous_arp(mac(1), IP))
}

fn remote(i: usize) -> Option<Row> {
    Some(Row::Remote { vxlan: VXLAN, vtep: vtep(i), sticky: false })
}

fn local(port: IfIndex) -> Option<Row> {
    Some(Row::Local { vxlan: VXLAN, port })
}

fn seen(w: &mut World, i: usize, m: Mac, port: IfIndex, ours: bool) {
    w.kernel(i, KernelEvent::Fdb(FdbRow::Bridge(bridge_row(m, port, ours))));
}

fn claimed(w: &mut World, i: usize) -> bool {
    w.macs(i).iter().any(|m| m.mac == mac(1) && m.place != evpn::node::view::Place::Vtep(vtep(0)))
}

fn called_off(w: &mut World, i: usize) {
    let activate = MoveStep::Activate { port: Some("p1".into()), timeout: None };
    for (id, step) in [(1, activate), (2, MoveStep::Abort)] {
        let (mac, by) = (mac(1), Requester::Api);
        let r = MoveRequest { vni: Some(vni()), mac, ips: vec![], step, by, at_stop: false };
        w.input(i, Input::Command { id, command: Command::Move(r) });
    }
}

/// The source withdrew the MAC for the sake of the activation, and then the target does because of the abort: nobody
/// has it when the monitor tells of the row that we wrote (PIT-04, MIG-HOT-03).
#[test]
fn an_echo_of_our_own_row_is_no_guest_even_when_nobody_has_the_mac_any_more() {
    let mut w = World::converged(2, MS);
    called_off(&mut w, 1);
    assert_eq!(w.macs(1), [], "nobody has it");
    seen(&mut w, 1, mac(1), P1, false);
    seen(&mut w, 1, mac(1), VXLAN, true);
    w.run_for(Span::millis(50));
    assert_eq!((w.macs(1).len(), w.macs(0).len()), (0, 0), "and nobody gets it");
    assert_eq!(w.mac_row(1, mac(1)), None, "a cleared port leaves no wish behind");
}

/// A guest who is there after all is learned by what it says, or by its next frame.
#[test]
fn a_guest_where_an_activation_was_called_off_is_learned_all_the_same() {
    let mut w = World::converged(2, MS);
    called_off(&mut w, 1);
    w.frame(1, P1, mac(1), None);
    assert_eq!(w.hosts[1].fdb.get(&mac(1)), None, "the port was cleared: the next frame is news");
    w.run_for(Span::millis(1100));
    w.frame(1, P1, mac(1), None);
    w.run_for(Span::millis(10));
    assert_eq!(w.mac_row(0, mac(1)), remote(1));
    let mut w = World::converged(2, MS);
    called_off(&mut w, 1);
    w.frame(1, P1, mac(1), garp());
    w.run_for(Span::millis(10));
    assert_eq!(w.mac_row(0, mac(1)), remote(1), "an announcement is no echo");
}

/// What the VTEP wrote before it was killed is half of a row when a guest has come meanwhile: the bridge's half is the
/// guest's, and the VXLAN device's half must not bring the other back (PIT-27, PIT-05).
#[test]
fn the_rest_of_an_old_row_is_not_adopted_for_a_mac_that_is_local_now() {
    let mut w = World::converged(2, MS);
    w.kill(1);
    w.run_for(Span::millis(10));
    w.hosts[1].rows.clear();
    // As `start` does it, but the tables are read bridge first.
    w.hosts[1].fdb.insert(mac(1), P1);
    w.start_with(1, |w| {
        w.devices(1, own_mac(1));
        seen(w, 1, mac(1), P1, false);
        let vtep = Some(vtep(0));
        let own = VxlanFdb { dev: VXLAN, mac: mac(1), vtep, ext_learned: true, permanent: false };
        w.kernel(1, KernelEvent::Fdb(FdbRow::Vxlan(own)));
        w.kernel(1, KernelEvent::Synced);
    });
    assert_eq!(w.mac_row(1, mac(1)), local(P1), "its row is held and the other half goes");
    w.run_for(Span::secs(10));
    assert_eq!((w.mac_row(1, mac(1)), w.hosts[1].fdb.get(&mac(1))), (local(P1), Some(&P1)));
    assert_eq!(w.mac_row(0, mac(1)), remote(1));
}

/// The sessions of a restarted daemon may be up before the kernel's tables are read. A row from before must not steal
/// the guest from where it has gone meanwhile (EVPN-MOB-06).
#[test]
fn a_row_of_the_first_read_does_not_beat_a_route_that_has_come_before_it() {
    let mut w = World::converged(2, MS);
    w.frame(1, P1, mac(1), None);
    w.run_for(Span::millis(10));
    w.kill(1);
    w.run_for(Span::millis(10));
    w.frame(0, P2, mac(1), garp());
    w.run_for(Span::millis(10));
    w.start_with(1, |w| {
        w.devices(1, own_mac(1));
        w.run_for(Span::secs(10));
        seen(w, 1, mac(1), P1, false);
        w.kernel(1, KernelEvent::Synced);
    });
    w.run_for(Span::secs(1));
    assert_eq!((w.mac_row(1, mac(1)), w.hosts[1].fdb.get(&mac(1))), (remote(0), Some(&VXLAN)));
    assert!(!claimed(&mut w, 1), "{:?}", w.macs(1));
    let at0 = w.macs(0).into_iter().find(|m| m.mac == mac(1)).expect("known");
    assert_eq!(at0.seq, Seq(1), "nobody has contested it");
    // If it is there after all, it speaks.
    w.frame(1, P1, mac(1), garp());
    w.run_for(Span::millis(10));
    assert_eq!(w.mac_row(0, mac(1)), remote(1));
}

/// A row to a VTEP was written, but another part of the same write was refused: the port does not have the MAC any
/// more, and does not get it back when the VTEP withdraws (EVPN-MOB-11).
#[test]
fn a_row_that_the_kernel_shows_elsewhere_is_not_come_back_to() {
    let mut w = World::converged(2, MS);
    w.frame(1, P1, mac(1), None);
    w.run_for(Span::millis(10));
    w.hosts[1].paused = true;
    w.frame(0, P2, mac(1), garp());
    w.run_for(Span::millis(5));
    let key = RowKey::Mac { bridge: BRIDGE, mac: mac(1) };
    let dirty = w.hosts[1].node.want_mut().take_dirty(16);
    assert!(dirty.contains(&key), "{dirty:?}");
    let failed = WriteResult::Failed { errno: 105, text: "no buffer space".into() };
    w.input(1, Input::Written(vec![(key, failed)]));
    seen(&mut w, 1, mac(1), VXLAN, true);
    w.forget(0, mac(1));
    w.run_for(Span::millis(100));
    assert_eq!((w.macs(0).len(), w.macs(1).len()), (0, 0), "nobody has it");
}

/// A local row is refused because its port has no carrier. No notification will ever say that the MAC is gone.
#[test]
fn a_mac_whose_row_a_port_without_carrier_refuses_is_gone() {
    let mut w = World::converged(2, MS);
    w.frame(0, P2, mac(1), garp());
    w.run_for(Span::millis(10));
    w.hosts[1].refused.insert(mac(1));
    w.frame(1, P1, mac(1), garp());
    w.run_for(Span::millis(10));
    assert_eq!(w.mac_row(0, mac(1)), remote(1), "it is claimed, and the row will be tried again");
    let port = PortFlags { learning: true, flood: true, ..PortFlags::default() };
    let dark = Link {
        index: P1,
        name: "p1".into(),
        mac: own_mac(1),
        mtu: 1450,
        up: true,
        carrier: false,
        master: Some(BRIDGE),
        kind: LinkKind::Other("veth".into()),
        port: Some(port),
    };
    w.kernel(1, KernelEvent::Link(dark));
    w.run_for(Span::secs(2));
    assert_eq!((w.mac_row(0, mac(1)), w.macs(1).len()), (None, 0), "told to nobody any more");
}

/// The guest was activated here and then claimed elsewhere, by a frame that was still under way there. Its first frame
/// here is a claim, however weak: the hypervisor has said that it runs here (PIT-04, PIT-06).
#[test]
fn the_first_frame_of_an_activated_guest_is_no_late_one() {
    let mut w = World::converged(2, MS);
    let step = MoveStep::Activate { port: Some("p1".into()), timeout: None };
    w.step(1, mac(1), &[], step);
    w.run_for(Span::millis(10));
    assert_eq!(w.mac_row(0, mac(1)), remote(1));
    w.frame(0, P2, mac(1), None);
    w.run_for(Span::millis(10));
    assert_eq!(w.mac_row(1, mac(1)), remote(0), "it has lost it");
    w.frame(1, P1, mac(1), None);
    w.run_for(Span::millis(10));
    assert_eq!((w.mac_row(0, mac(1)), w.mac_row(1, mac(1))), (remote(1), local(P1)));
    // And a frame from the other port is late.
    w.frame(0, P2, mac(1), None);
    w.run_for(Span::millis(10));
    assert_eq!(w.mac_row(0, mac(1)), remote(1));
}

/// A guest whose frames are all data is never heard, and moves on like any other: its last frames are late ones (PIT-04).
#[test]
fn a_silent_guest_that_was_activated_a_while_ago_leaves_late_frames_as_any_other() {
    let mut w = World::converged(2, MS);
    let step = MoveStep::Activate { port: Some("p1".into()), timeout: None };
    w.step(1, mac(1), &[], step);
    w.run_for(Span::millis(300));
    w.frame(0, P2, mac(1), garp());
    w.run_for(Span::millis(10));
    assert_eq!(w.mac_row(1, mac(1)), remote(0), "it has moved on");
    w.frame(1, P1, mac(1), None);
    w.run_for(Span::millis(10));
    assert_eq!((w.mac_row(0, mac(1)), w.mac_row(1, mac(1))), (local(P2), remote(0)));
}

/// Between the abort and its echo the guest has announced itself at another VTEP: the row that we had written is no claim
/// against that one either (PIT-04).
#[test]
fn an_echo_of_our_own_row_is_no_guest_when_another_vtep_has_the_mac_by_then() {
    let mut w = World::converged(2, MS);
    called_off(&mut w, 1);
    w.frame(0, P2, mac(1), garp());
    w.run_for(Span::millis(10));
    assert_eq!(w.mac_row(1, mac(1)), remote(0));
    seen(&mut w, 1, mac(1), P1, false);
    w.run_for(Span::millis(50));
    assert_eq!(w.mac_row(1, mac(1)), remote(0), "it stays where it was announced");
    assert!(!claimed(&mut w, 1), "{:?}", w.macs(1));
}
