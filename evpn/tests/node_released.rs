//! What a release does at the source (MIG-HOT-03, PIT-04): forwarding goes on until the new route is here, then
//! nothing local wins the MAC back.

mod world;

use evpn::fabric::{FdbRow, KernelEvent};
use evpn::mobility::Released;
use evpn::node::Event;
use evpn::types::{IfIndex, Seq, Span};
use world::steps::{RELEASE, activate, before, done, garp, ip, local, names, remote, told};
use world::{P1, P2, VXLAN, World, bridge_row, mac, own_mac};

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

/// The guest was silent for so long that its host does not know it any more when it is released. A last frame shows it
/// there, before the route of the target comes, and takes no step up: it would be one against that route.
#[test]
fn the_last_frame_of_a_released_guest_whom_nobody_knew_any_more_does_not_contest_the_target() {
    let mut w = before();
    w.frame(2, P1, mac(1), Some(garp(mac(1), ip(1))));
    w.run_for(Span::millis(10));
    w.forget(2, mac(1));
    w.run_for(Span::secs(5));
    assert_eq!(w.macs(0), [], "nobody has it");
    w.step(0, mac(1), &[], RELEASE);
    w.step(1, mac(1), &[], activate(Some("p2")));
    w.frame(0, P1, mac(1), None);
    w.run_for(Span::millis(20));
    assert_eq!((w.mac_row(1, mac(1)), w.mac_row(2, mac(1))), (local(P2), remote(1, false)));
    assert_eq!(w.mac_row(0, mac(1)), remote(1, true), "and it is a leaving guest's still");
}

/// Without a target the last frames of a released guest show where it is.
#[test]
fn a_released_guest_whom_nobody_has_is_reached_where_it_is_seen() {
    let mut w = before();
    done(&mut w, 0, RELEASE);
    w.forget(0, mac(1));
    w.run_for(Span::secs(5));
    assert_eq!(w.macs(2), [], "aged out");
    w.frame(0, P1, mac(1), None);
    w.run_for(Span::millis(10));
    assert_eq!(w.mac_row(2, mac(1)), remote(0, false));
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

/// The guest left by `p1` of node 0, whose daemon is killed and comes back with what it had kept; `before` happens while
/// it is away.
fn restarted(before: impl FnOnce(&mut World)) -> World {
    let mut w = before_the_kill();
    w.kill(0);
    before(&mut w);
    w.run_for(Span::secs(1));
    w
}

fn before_the_kill() -> World {
    let mut w = before();
    w.sticky_holds = true;
    done(&mut w, 0, RELEASE);
    done(&mut w, 1, activate(Some("p2")));
    w.frame(1, P2, mac(1), Some(garp(mac(1), ip(1))));
    w.run_for(Span::secs(5));
    w
}

/// The tables of node 0 at a start at which its ports have these indices.
fn start(w: &mut World, ports: &[(IfIndex, &str, bool)]) {
    w.start_with(0, |w| {
        w.devices_with(0, own_mac(0), ports);
        w.kernel(0, KernelEvent::Fdb(FdbRow::Bridge(bridge_row(mac(1), VXLAN, true))));
        w.kernel(0, KernelEvent::Synced);
    });
    w.run_for(Span::secs(10));
}

/// PIT-04: after a restart the release is about the port that the guest left, as before it.
#[test]
fn a_restart_does_not_make_a_release_one_of_every_port() {
    let mut w = restarted(|_| ());
    start(&mut w, &[(P1, "p1", true), (P2, "p2", true)]);
    w.frame(0, P1, mac(1), Some(garp(mac(1), ip(1))));
    w.run_for(Span::millis(10));
    assert_eq!(
        (w.mac_row(0, mac(1)), w.mac_row(2, mac(1))),
        (remote(1, true), remote(1, false)),
        "last frames"
    );
    // Announced on another port: let in, as without a restart. The row is not pinned any more, the next frame moves it.
    for _ in 0..2 {
        w.frame(0, P2, mac(1), Some(garp(mac(1), ip(1))));
        w.run_for(Span::millis(10));
    }
    assert_eq!(w.mac_row(2, mac(1)), remote(0, false));
}

/// The device was made anew while no daemon ran: another index, the same name.
#[test]
fn the_port_of_a_release_is_found_by_its_name_after_a_restart() {
    const NEW: IfIndex = IfIndex(77);
    let mut w = restarted(|_| ());
    start(&mut w, &[(P2, "p2", true), (NEW, "p1", true)]);
    w.frame(0, NEW, mac(1), Some(garp(mac(1), ip(1))));
    w.run_for(Span::millis(10));
    assert_eq!((w.mac_row(0, mac(1)), w.mac_row(2, mac(1))), (remote(1, true), remote(1, false)));
}

/// No last frame can come from a port that is gone or dark, be it that no daemon saw it go.
#[test]
fn a_release_does_not_outlive_its_port_over_a_restart() {
    for ports in [&[(P2, "p2", true)][..], &[(P1, "p1", false), (P2, "p2", true)]] {
        let mut w = restarted(|_| ());
        start(&mut w, ports);
        assert_eq!(w.mac_row(0, mac(1)), remote(1, false), "an ordinary row: {ports:?}");
        w.frame(0, P2, mac(1), Some(garp(mac(1), ip(1))));
        w.run_for(Span::millis(10));
        assert_eq!(w.mac_row(2, mac(1)), remote(0, false), "{ports:?}");
    }
}

/// What an earlier release of this program kept has no port: every port's frames are last words, as they were.
#[test]
fn a_kept_release_without_a_port_is_about_every_port() {
    let mut w = restarted(|w| {
        for r in w.hosts[0].kept.values_mut() {
            r.released = r.released.map(|x| Released { port: None, ..x });
        }
    });
    start(&mut w, &[(P1, "p1", true), (P2, "p2", true)]);
    for port in [P1, P2] {
        w.frame(0, port, mac(1), Some(garp(mac(1), ip(1))));
        w.run_for(Span::millis(10));
        assert_eq!((w.mac_row(0, mac(1)), w.mac_row(2, mac(1))), (remote(1, true), remote(1, false)));
    }
}

/// Killed twice within one release: the second start knows as much as the first.
#[test]
fn the_port_of_a_release_survives_two_restarts() {
    let mut w = restarted(|_| ());
    start(&mut w, &[(P1, "p1", true), (P2, "p2", true)]);
    done(&mut w, 0, RELEASE);
    w.kill(0);
    w.run_for(Span::secs(1));
    start(&mut w, &[(P1, "p1", true), (P2, "p2", true)]);
    w.frame(0, P1, mac(1), Some(garp(mac(1), ip(1))));
    w.run_for(Span::millis(10));
    assert_eq!((w.mac_row(0, mac(1)), w.mac_row(2, mac(1))), (remote(1, true), remote(1, false)));
    for _ in 0..2 {
        w.frame(0, P2, mac(1), Some(garp(mac(1), ip(1))));
        w.run_for(Span::millis(10));
    }
    assert_eq!(w.mac_row(2, mac(1)), remote(0, false));
}
