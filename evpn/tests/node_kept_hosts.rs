//! Silent hosts over a restart of the daemon (PROXY-MAINT-02, EVPN-IRB-15): what was bound is asked for, at the configured pace;
//! who answers is advertised again, who does not is forgotten.
#![allow(clippy::unwrap_used, reason = "tests may panic")]

mod world;

use evpn::types::{Mac, Span};
use std::net::{IpAddr, Ipv4Addr};
use world::frames::{arp, garp};
use world::{Guest, P1, P2, World, mac, probe_mac};

const MS: Span = Span::millis(1);

fn ip(n: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 1, 0, n)
}

fn known(w: &World, i: usize, n: u8) -> bool {
    w.neigh_row(i, IpAddr::V4(ip(n))).is_some()
}

fn counter(w: &mut World, i: usize, name: &str) -> u64 {
    w.status(i).counters.get(name).copied().unwrap_or(0)
}

/// Silent hosts 1 to `n` behind `p1` of node 0; they answer when asked.
fn silent(n: u8) -> World {
    silent_in(World::converged(2, MS), n)
}

fn silent_in(mut w: World, n: u8) -> World {
    for n in 1..=n {
        w.guests.push(Guest { node: 0, port: P1, mac: mac(n), ip: ip(n) });
        w.frame(0, P1, mac(n), Some(garp(mac(n), ip(n))));
    }
    w.run_for(Span::secs(2));
    w
}

/// Restarts node 0 `down` after it was killed.
fn restart(w: &mut World, down: Span, with_state: bool) {
    w.kill(0);
    w.run_for(down);
    w.hosts[0].emitted.clear();
    w.start(0, with_state);
}

#[test]
fn a_silent_host_is_found_again_after_a_restart() {
    let mut w = silent(1);
    assert_eq!(w.hosts[0].kept_hosts.len(), 1);
    restart(&mut w, Span::secs(5), true);
    // End-of-RIB waits for its answer: it is known to the peer all the time (BGP-GR-07).
    for _ in 0..800 {
        assert!(known(&w, 1, 1), "at {:?}", w.now);
        w.run_for(Span::millis(10));
    }
    let asked = &w.hosts[0].emitted;
    assert_eq!(asked.len(), 1, "asked once, by unicast: {asked:?}");
    assert_eq!(
        (asked[0].0, Mac::from_slice(&asked[0].1), Mac::from_slice(&asked[0].1[6..])),
        (P1, Some(mac(1)), Some(probe_mac(0)))
    );
    // Without the state directory it would be lost until it speaks.
    restart(&mut w, Span::secs(5), false);
    w.run_for(Span::secs(60));
    assert!(!known(&w, 1, 1) && w.hosts[0].emitted.is_empty());
}

/// The bridge has dropped its MAC meanwhile: it is asked on the port where it was, even if the port has another number.
#[test]
fn a_host_whose_mac_has_aged_out_is_asked_where_it_was() {
    let mut w = silent(1);
    w.kill(0);
    w.hosts[0].fdb.clear();
    w.run_for(Span::secs(5));
    w.start(0, true);
    w.run_for(Span::secs(8));
    assert!(known(&w, 1, 1));
    assert_eq!(w.hosts[0].fdb.get(&mac(1)), Some(&P1));
}

/// Not answering ends it, also in the state directory; nothing is advertised on the strength of a memory.
#[test]
fn a_host_that_does_not_answer_is_forgotten_and_never_advertised() {
    let mut w = silent_in(World::forgetful(2, MS), 2);
    w.guests.remove(0);
    restart(&mut w, Span::secs(5), true);
    for _ in 0..80 {
        w.run_for(Span::millis(100));
        assert!(!known(&w, 1, 1));
    }
    assert!(known(&w, 1, 2));
    assert_eq!(w.hosts[0].kept_hosts.keys().copied().collect::<Vec<_>>(), [IpAddr::V4(ip(2))]);
    let to_it = w.hosts[0].emitted.iter().filter(|(_, f)| Mac::from_slice(f) == Some(mac(1))).count();
    assert_eq!(to_it, 3);
    assert_eq!(counter(&mut w, 0, "restored_hosts_asked"), 2);
}

/// A peer that keeps its stale route loses it when the questions are over, and not later (BGP-GR-07).
#[test]
fn a_host_that_does_not_answer_is_swept_at_the_peer_when_it_has_been_asked() {
    let mut w = silent(2);
    w.guests.remove(0);
    restart(&mut w, Span::secs(5), true);
    assert!(known(&w, 1, 1) && known(&w, 1, 2));
    w.run_for(Span::secs(12));
    assert!(!known(&w, 1, 1) && known(&w, 1, 2));
}

/// What moved away while nobody looked is not asked for here, and its owner keeps it.
#[test]
fn a_host_that_is_behind_another_vtep_by_now_is_not_asked() {
    let mut w = silent(1);
    w.kill(0);
    w.run_for(Span::secs(1));
    w.hosts[0].fdb.clear();
    w.guests[0] = Guest { node: 1, port: P2, mac: mac(1), ip: ip(1) };
    w.frame(1, P2, mac(1), Some(garp(mac(1), ip(1))));
    w.run_for(Span::secs(5));
    w.start(0, true);
    w.run_for(Span::secs(20));
    assert!(known(&w, 0, 1));
    assert_eq!(counter(&mut w, 0, "hosts_restored"), 1);
    assert!(w.hosts[1].emitted.is_empty(), "nobody contests it");
}

/// A rack behind one VTEP is asked evenly, not at once.
#[test]
fn many_are_asked_at_the_configured_pace_and_none_is_lost() {
    const HOSTS: u8 = 200;
    const RATE: usize = 20;
    let mut w = World::with(2, MS, |c| c.arp.probe_rate = RATE as u32);
    w.run_for(Span::secs(10));
    for n in 1..=HOSTS {
        w.guests.push(Guest { node: 0, port: P1, mac: mac(n), ip: ip(n) });
        w.frame(0, P1, mac(n), Some(garp(mac(n), ip(n))));
    }
    w.run_for(Span::secs(2));
    restart(&mut w, Span::secs(5), true);
    let mut seen = 0;
    for _ in 0..12 {
        w.run_for(Span::secs(1));
        let sent = w.hosts[0].emitted.len();
        assert!(sent - seen <= RATE + 1, "{} in a second", sent - seen);
        seen = sent;
    }
    w.run_for(Span::secs(3));
    assert!((1..=HOSTS).all(|n| known(&w, 1, n)));
}

/// Who speaks before its turn is not asked, and a binding that goes is not asked for after the next restart.
#[test]
fn what_is_kept_follows_the_bindings() {
    let mut w = silent(2);
    w.frame(1, P1, mac(2), Some(garp(mac(2), ip(2))));
    w.guests[1] = Guest { node: 1, port: P1, mac: mac(2), ip: ip(2) };
    w.run_for(Span::secs(1));
    let kept = |w: &World, i: usize| w.hosts[i].kept_hosts.keys().copied().collect::<Vec<_>>();
    assert_eq!((kept(&w, 0), kept(&w, 1)), (vec![ip(1).into()], vec![ip(2).into()]));
    w.kill(0);
    w.run_for(Span::secs(5));
    w.hosts[0].emitted.clear();
    w.start_with(0, |w| {
        w.devices(0, world::own_mac(0));
        let row = evpn::fabric::FdbRow::Bridge(world::bridge_row(mac(1), P1, false));
        w.kernel(0, evpn::fabric::KernelEvent::Fdb(row));
        w.frame(0, P1, mac(1), Some(garp(mac(1), ip(1))));
        w.kernel(0, evpn::fabric::KernelEvent::Synced);
    });
    w.run_for(Span::secs(8));
    assert!(known(&w, 1, 1) && w.hosts[0].emitted.is_empty(), "{:?}", w.hosts[0].emitted);
}

/// PIT-16: a guest that is heard checking its address is left in peace, whatever was kept of it.
#[test]
fn a_guest_that_checks_its_address_at_the_start_is_not_disturbed() {
    let mut w = silent(1);
    w.kill(0);
    w.run_for(Span::secs(5));
    w.hosts[0].emitted.clear();
    w.start_with(0, |w| {
        w.devices(0, world::own_mac(0));
        w.frame(0, P1, mac(1), Some(arp(mac(1), Ipv4Addr::UNSPECIFIED, ip(1))));
        let row = evpn::fabric::FdbRow::Bridge(world::bridge_row(mac(1), P1, false));
        w.kernel(0, evpn::fabric::KernelEvent::Fdb(row));
        w.kernel(0, evpn::fabric::KernelEvent::Synced);
    });
    w.run_for(Span::secs(9));
    assert!(w.hosts[0].emitted.is_empty(), "{:?}", w.hosts[0].emitted);
    w.run_for(Span::secs(5));
    assert!(known(&w, 1, 1), "asked when that is over");
}
