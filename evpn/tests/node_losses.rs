//! Ports that have lost a MAC: last frames may come from several of them, and also when nobody had the MAC for a moment
//! (PIT-04). Each case was found by the simulation (`tests/sim-seeds`).

mod world;

use bytes::Bytes;
use evpn::fabric::{FdbRow, KernelEvent, Row};
use evpn::types::{IfIndex, Span};
use evpn::wire::frame;
use std::net::Ipv4Addr;
use world::{P1, P2, VXLAN, World, bridge_row, mac, vtep};

const MS: Span = Span::millis(1);
const SOON: Span = Span::millis(10);

#[allow(clippy::unnecessary_wraps)] // as `World::frame` wants it
fn garp() -> Option<Bytes> {
    Some(frame::gratuitous_arp(mac(1), Ipv4Addr::new(10, 1, 0, 1)))
}

#[allow(clippy::unnecessary_wraps)] // compared with what the kernel may not have
fn remote(i: usize) -> Option<Row> {
    Some(Row::Remote { vxlan: VXLAN, vtep: vtep(i), sticky: false })
}

/// Frames that were under way at node 0 when the guest went to node 1.
fn late_frames_claim_nothing(w: &mut World, ports: &[IfIndex]) {
    for port in ports {
        w.frame(0, *port, mac(1), None);
        w.run_for(SOON);
        assert_eq!(w.mac_row(0, mac(1)), remote(1), "a late frame from {port:?} is no claim");
        assert_ne!(w.mac_row(1, mac(1)), remote(0));
    }
}

/// The guest changes its port and moves on at once; frames that were under way on either port come after it has left.
#[test]
fn last_frames_may_come_from_every_port_that_a_guest_has_left() {
    let mut w = World::converged(2, MS);
    w.frame(0, P1, mac(1), garp());
    w.run_for(SOON);
    w.frame(0, P2, mac(1), garp());
    w.run_for(SOON);
    w.frame(1, P1, mac(1), garp());
    w.run_for(SOON);
    late_frames_claim_nothing(&mut w, &[P1, P2, P1]);
    // A guest that is there announces itself, or goes on speaking.
    w.frame(0, P1, mac(1), garp());
    w.run_for(SOON);
    assert_eq!(w.mac_row(1, mac(1)), remote(0));
}

/// The same by way of another VTEP: it comes back to another port and leaves again, all within the guard time.
#[test]
fn a_port_that_lost_a_mac_before_still_has_late_frames_when_another_port_loses_it() {
    let mut w = World::converged(2, MS);
    w.frame(0, P1, mac(1), garp());
    w.run_for(SOON);
    w.frame(1, P1, mac(1), garp());
    w.run_for(SOON);
    w.frame(0, P2, mac(1), garp());
    w.run_for(SOON);
    w.frame(1, P1, mac(1), garp());
    w.run_for(SOON);
    late_frames_claim_nothing(&mut w, &[P1, P2]);
    w.run_for(Span::secs(1));
    w.frame(0, P2, mac(1), None);
    w.run_for(SOON);
    assert_eq!(w.mac_row(1, mac(1)), remote(0), "frames after the guard time are a guest's");
}

/// The withdrawal of one VTEP may come before the route of the next: for a moment nobody has the MAC.
#[test]
fn a_late_frame_is_late_although_the_mac_was_nobodys_for_a_moment() {
    let mut w = World::converged(3, MS);
    w.frame(0, P1, mac(1), garp());
    w.run_for(SOON);
    w.frame(1, P1, mac(1), garp());
    w.run_for(SOON);
    w.forget(1, mac(1));
    w.run_for(SOON);
    assert_eq!(w.macs(0), [], "nobody has it");
    w.frame(2, P1, mac(1), garp());
    w.run_for(SOON);
    w.frame(0, P1, mac(1), None);
    w.run_for(SOON);
    assert_eq!((w.mac_row(0, mac(1)), w.mac_row(1, mac(1))), (remote(2), remote(2)));
    // Not for longer than if somebody had had it all the time.
    w.run_for(Span::secs(1));
    w.frame(0, P1, mac(1), None);
    w.run_for(SOON);
    assert_eq!(w.mac_row(2, mac(1)), remote(0));
}

/// While nobody has the MAC, who speaks has it (EVPN-MOB-11): there is nobody else for whom to keep it.
#[test]
fn a_frame_from_the_port_that_lost_it_is_a_claim_when_nobody_has_the_mac() {
    let mut w = World::converged(2, MS);
    w.frame(0, P1, mac(1), garp());
    w.run_for(SOON);
    w.frame(1, P1, mac(1), garp());
    w.run_for(SOON);
    w.forget(1, mac(1));
    w.run_for(SOON);
    w.frame(0, P1, mac(1), None);
    w.run_for(SOON);
    assert_eq!(w.mac_row(1, mac(1)), remote(0));
}

/// A marked row on a port never showed us a guest, and its end does not take one away: the reconciler replaces it by an
/// ordinary one when it is what is left of a remote row (PIT-06).
#[test]
fn the_end_of_a_marked_row_on_a_port_is_no_end_of_a_guest() {
    let mut w = World::converged(2, MS);
    w.frame(0, P1, mac(1), garp());
    w.run_for(SOON);
    let marked = FdbRow::Bridge(bridge_row(mac(1), P1, true));
    w.kernel(0, KernelEvent::FdbGone(marked));
    w.run_for(SOON);
    assert_eq!(w.mac_row(1, mac(1)), remote(0));
    w.forget(0, mac(1));
    w.run_for(SOON);
    assert_eq!(w.mac_row(1, mac(1)), None);
}
