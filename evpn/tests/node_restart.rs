//! Graceful restart of whole nodes: BGP-GR-07 to -12, -17, BGP-LLGR-03 to -05, PIT-20, PIT-23, PIT-28.

mod world;

use evpn::fabric::{FdbRow, KernelEvent, Row, RowKey, VxlanFdb};
use evpn::node::{Event, Input};
use evpn::session::{Graceful, GracefulMode};
use evpn::types::{Seq, Span};
use std::net::Ipv4Addr;
use world::steps::remote;
use world::{Guest, P1, P2, Trace, VXLAN, World, frames, mac, own_mac, vtep};

const MS: Span = Span::millis(1);

fn ip(n: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 1, 0, n)
}

/// Three nodes with these terms of graceful restart; guest 1 with its address is behind `p1` of node 0.
fn with(graceful: Graceful) -> World {
    let mut w = World::with(3, MS, |c| c.neighbors.iter_mut().for_each(|n| n.restart.graceful = graceful));
    w.run_for(Span::secs(10));
    w.guests.push(Guest { node: 0, port: P1, mac: mac(1), ip: ip(1) });
    w.frame(0, P1, mac(1), Some(frames::garp(mac(1), ip(1))));
    w.run_for(Span::millis(100));
    assert!(at(&w, 1, 0) && at(&w, 2, 0));
    for h in &mut w.hosts {
        h.events.clear();
        h.trace.clear();
    }
    w
}

fn usual() -> World {
    with(Graceful::default())
}

/// Whether a node sends guest 1 to another one, answers for it, and floods there.
fn at(w: &World, i: usize, to: usize) -> bool {
    let flood = w.hosts[i].rows.get(&RowKey::Flood { vxlan: VXLAN, vtep: vtep(to) });
    let neigh = Some(Row::Neigh { mac: mac(1), router: false });
    w.mac_row(i, mac(1)) == remote(to, false)
        && w.neigh_row(i, ip(1).into()) == neigh
        && flood == Some(&Row::Flood)
}

fn nowhere(w: &World, i: usize) -> bool {
    w.mac_row(i, mac(1)).is_none() && w.neigh_row(i, ip(1).into()).is_none()
}

fn dropped(w: &World, i: usize) -> Vec<String> {
    let why = |e: &Event| match e {
        Event::StaleRoutesDropped { why, .. } => Some(why.clone()),
        _ => None,
    };
    w.hosts[i].events.iter().filter_map(|(_, e)| why(e)).collect()
}

fn writes(w: &World, i: usize) -> usize {
    w.hosts[i].trace.iter().filter(|t| matches!(t, Trace::Wrote(m, _) if *m == mac(1))).count()
}

/// BGP-GR-09: the kernel's rows are not even touched, all the time until the daemon is back and longer.
#[test]
fn hosts_of_a_killed_daemon_stay_reachable_until_it_is_back() {
    let mut w = usual();
    w.kill(0);
    for _ in 0..20 {
        w.run_for(Span::secs(1));
        assert!(at(&w, 1, 0) && at(&w, 2, 0));
    }
    w.start(0, true);
    for _ in 0..3000 {
        w.run_for(Span::millis(10));
        assert!(at(&w, 1, 0) && at(&w, 2, 0), "at {:?}", w.now);
    }
    assert_eq!((writes(&w, 1), writes(&w, 2)), (0, 0));
    let away = w.hosts[1].events.iter().any(|(_, e)| matches!(e, Event::NeighborAway { routes: 4, .. }));
    assert!(away, "{:?}", w.hosts[1].events);
    assert_eq!((w.status(0).converged, w.status(1).converged), (true, true));
    assert!(w.macs(1).iter().all(|m| !m.stale));
}

/// BGP-GR-11: what it does not tell again goes with its End-of-RIB, the rest stays.
#[test]
fn a_guest_that_left_while_the_daemon_was_away_is_swept_by_its_end_of_rib() {
    let mut w = usual();
    w.frame(0, P2, mac(2), None);
    w.run_for(Span::millis(100));
    w.kill(0);
    w.hosts[0].fdb.remove(&mac(2));
    w.run_for(Span::secs(3));
    assert_eq!(w.mac_row(1, mac(2)), remote(0, false));
    w.start(0, true);
    w.run_for(Span::secs(15));
    assert_eq!((w.mac_row(1, mac(2)), w.mac_row(1, mac(1))), (None, remote(0, false)));
    assert_eq!(dropped(&w, 1), ["not told again before End-of-RIB"]);
}

/// BGP-GR-11, PIT-20: the peers' patience is as long as our rows answer without us.
#[test]
fn what_does_not_come_back_goes_after_the_restart_time() {
    let mut w = usual();
    w.kill(0);
    w.run_for(Span::secs(119));
    assert!(at(&w, 1, 0));
    w.run_for(Span::secs(2));
    assert!(nowhere(&w, 1) && nowhere(&w, 2));
    assert_eq!(w.hosts[1].rows.get(&RowKey::Flood { vxlan: VXLAN, vtep: vtep(0) }), None);
    assert_eq!(dropped(&w, 1), ["the restart time is over"]);
    assert_eq!(w.status(1).remote_macs, 0);
}

/// PIT-23: a stale route defends nothing, neither against a guest that shows up here nor against a route with a lower
/// sequence; what comes back with the old daemon has lost.
#[test]
fn a_guest_that_moved_meanwhile_is_not_defended() {
    let mut w = usual();
    // Sequence 2 at node 0, so that a fresh claim of nobody's memory would be lower.
    w.frame(1, P1, mac(1), Some(frames::garp(mac(1), ip(1))));
    w.run_for(Span::secs(2));
    w.frame(0, P1, mac(1), Some(frames::garp(mac(1), ip(1))));
    w.run_for(Span::secs(2));
    assert!(at(&w, 1, 0) && at(&w, 2, 0));
    w.kill(0);
    w.run_for(Span::secs(2));
    w.guests[0] = Guest { node: 2, port: P2, mac: mac(1), ip: ip(1) };
    w.frame(2, P2, mac(1), Some(frames::garp(mac(1), ip(1))));
    w.run_for(Span::millis(3));
    assert!(at(&w, 1, 2), "one flush and one way later");
    assert_eq!(w.neigh_row(2, ip(1).into()), None, "the guest answers itself");
    // The old daemon comes back with the MAC still in its bridge.
    w.start(0, true);
    w.run_for(Span::secs(20));
    assert!(at(&w, 0, 2) && at(&w, 1, 2));
    assert_eq!(w.macs(1).iter().map(|m| m.seq).collect::<Vec<_>>(), [Seq(3)]);
}

/// PIT-23: the same guest started anew elsewhere with another MAC: its address is not held by the stale binding.
#[test]
fn an_address_that_moved_to_another_mac_is_not_defended() {
    let mut w = usual();
    w.kill(0);
    w.run_for(Span::secs(2));
    w.guests[0] = Guest { node: 2, port: P2, mac: mac(9), ip: ip(1) };
    w.frame(2, P2, mac(9), Some(frames::garp(mac(9), ip(1))));
    w.run_for(Span::millis(30));
    let neigh = Some(Row::Neigh { mac: mac(9), router: false });
    assert_eq!((w.neigh_row(1, ip(1).into()), w.mac_row(1, mac(9))), (neigh, remote(2, false)));
    w.run_for(Span::secs(5));
    assert_eq!(w.neigh_row(1, ip(1).into()), neigh);
}

/// BGP-GR-09: without the capability nothing is kept; nor by who takes no part.
#[test]
fn routes_of_a_peer_without_graceful_restart_go_with_the_session() {
    let mut w = with(Graceful { mode: GracefulMode::Off, ..Graceful::default() });
    w.kill(0);
    w.run_for(Span::millis(10));
    assert!(nowhere(&w, 1));
    let mut w = with(Graceful { mode: GracefulMode::Helper, ..Graceful::default() });
    w.kill(0);
    w.run_for(Span::millis(10));
    assert!(nowhere(&w, 1), "it lists no family (BGP-GR-03)");
}

/// RFC 4724 §4, RFC 8538 §4: a daemon that is stopped comes back, unless it says otherwise.
#[test]
fn a_stop_is_a_restart_unless_it_is_for_good() {
    for for_good in [false, true] {
        let mut w = usual();
        w.input(0, Input::Shutdown { for_good });
        w.run_for(Span::millis(20));
        assert_eq!(nowhere(&w, 1), for_good);
        assert_eq!(at(&w, 1, 0), !for_good);
    }
}

/// BGP-GR-17: a peer that is back and never ends its telling.
#[test]
fn a_peer_that_never_ends_its_telling_is_swept_after_the_stale_time() {
    let mut w = usual();
    w.kill(0);
    w.run_for(Span::secs(1));
    w.start(0, true);
    // Its routes and its End-of-RIB stay in the socket from the first UPDATE on.
    w.hosts[0].mute = true;
    w.run_for(Span::secs(170));
    assert!(at(&w, 1, 0));
    w.run_for(Span::secs(20));
    assert!(nowhere(&w, 1));
    assert_eq!(dropped(&w, 1), ["not told again in time"]);
}

/// BGP-GR-11: F=0 in the new OPEN (a machine that booted) and a missing capability end it at once.
#[test]
fn a_daemon_that_has_kept_nothing_says_so() {
    let mut w = usual();
    w.kill(0);
    w.run_for(Span::secs(2));
    assert!(at(&w, 1, 0));
    w.boot(0);
    w.hosts[0].mute = true;
    w.run_for(Span::secs(8));
    assert!(nowhere(&w, 1));
    assert_eq!(dropped(&w, 1), ["its new OPEN says that it has kept nothing"]);
}

/// BGP-LLGR-03, -04: the long-lived time begins when the restart time is over, and a session does not stop it.
#[test]
fn beyond_the_restart_time_routes_are_kept_where_both_sides_want_it() {
    let long = Graceful { long_lived: 600, ..Graceful::default() };
    let mut w = with(long);
    w.kill(0);
    w.run_for(Span::secs(121));
    assert!(at(&w, 1, 0) && at(&w, 2, 0));
    w.frame(2, P2, mac(1), None);
    w.run_for(Span::millis(3));
    assert_eq!(w.mac_row(1, mac(1)), remote(2, false), "still it defends nothing");
    w.run_for(Span::secs(597));
    assert!(w.hosts[1].rows.contains_key(&RowKey::Flood { vxlan: VXLAN, vtep: vtep(0) }));
    w.run_for(Span::secs(5));
    assert_eq!(dropped(&w, 1), ["the long-lived stale time is over"]);
    assert!(!w.hosts[1].rows.contains_key(&RowKey::Flood { vxlan: VXLAN, vtep: vtep(0) }));

    let mut w = with(long);
    w.kill(0);
    w.run_for(Span::secs(700));
    w.start(0, true);
    w.hosts[0].mute = true;
    w.run_for(Span::secs(15));
    assert!(at(&w, 1, 0), "it is back, and is waited for as long as is left");
    w.run_for(Span::secs(10));
    assert!(nowhere(&w, 1));
}

/// BGP-LLGR-04: End-of-RIB stops it.
#[test]
fn a_daemon_that_is_back_within_the_long_lived_time_loses_nothing() {
    let mut w = with(Graceful { long_lived: 600, ..Graceful::default() });
    w.kill(0);
    w.run_for(Span::secs(300));
    w.start(0, true);
    for _ in 0..100 {
        w.run_for(Span::secs(8));
        assert!(at(&w, 1, 0) && at(&w, 2, 0));
    }
}

/// BGP-GR-07, -08: a row that was kept waits for the VTEP that it names; a higher sequence is a move, and does not wait.
#[test]
fn selection_waits_for_what_was_kept_and_not_for_moves() {
    let mut w = usual();
    // Nodes 0 and 1 do not hear each other for a moment, and both tell of MAC 2; the lower VTEP has it (EVPN-MOB-08).
    w.cut(0, 1);
    w.frame(0, P2, mac(2), None);
    w.frame(1, P2, mac(2), None);
    w.run_for(Span::millis(10));
    assert_eq!(w.mac_row(2, mac(2)), remote(0, false));
    w.kill(0);
    w.kill(2);
    w.guests[0] = Guest { node: 1, port: P2, mac: mac(1), ip: ip(1) };
    w.frame(1, P2, mac(1), Some(frames::garp(mac(1), ip(1))));
    w.run_for(Span::millis(100));
    w.hosts[1].events.clear();
    let rows = w.hosts[2].rows.clone();
    w.start_with(2, |w| {
        w.devices(2, own_mac(2));
        for (key, row) in &rows {
            let vxlan = |mac, vtep| {
                FdbRow::Vxlan(VxlanFdb {
                    dev: VXLAN,
                    mac,
                    vtep: Some(vtep),
                    ext_learned: true,
                    permanent: false,
                })
            };
            match (*key, *row) {
                (RowKey::Mac { mac, .. }, Row::Remote { vtep, .. }) => {
                    w.kernel(2, KernelEvent::Fdb(vxlan(mac, vtep)));
                }
                (RowKey::Flood { vtep, .. }, _) => {
                    w.kernel(2, KernelEvent::Fdb(vxlan(evpn::types::Mac::ZERO, vtep)));
                }
                _ => {}
            }
        }
        w.hosts[2].rows.clone_from(&rows);
        w.kernel(2, KernelEvent::Synced);
    });
    w.run_for(Span::secs(10));
    assert_eq!(w.mac_row(2, mac(1)), remote(1, false), "a move");
    assert_eq!(w.mac_row(2, mac(2)), remote(0, false), "node 1 tells nothing newer, and node 0 nothing yet");
    let told = |w: &World| {
        w.hosts[1]
            .events
            .iter()
            .any(|(_, e)| matches!(e, Event::EndOfRib { address, .. } if *address == vtep(2)))
    };
    assert!(!told(&w), "End-of-RIB waits for node 0");
    w.run_for(Span::secs(55));
    assert_eq!(w.mac_row(2, mac(2)), remote(1, false), "but not for ever");
    assert!(told(&w));
}
