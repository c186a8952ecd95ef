//! Guests that check an address before they use it, where their MAC was somewhere else a moment ago (PIT-16, RFC 5227): whom a
//! question would make give its address up, and who has to be asked all the same.

mod world;

use bytes::Bytes;
use evpn::node::{Input, Unknown};
use evpn::types::Span;
use evpn::wire::frame::neighbor_solicitation;
use std::net::{Ipv4Addr, Ipv6Addr};
use world::frames::{arp, garp, rarp};
use world::steps::{MS, activate, done, prepare, remote};
use world::{Guest, P1, P2, World, mac};

const IP: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 1);

/// RFC 5227 §2.1.1: "who has it?", asked by nobody.
fn checks() -> Bytes {
    arp(mac(1), Ipv4Addr::UNSPECIFIED, IP)
}

fn announces() -> Bytes {
    garp(mac(1), IP)
}

/// Questions of node 1 to the guest that name nobody as asking.
fn asked_by_nobody(w: &World) -> usize {
    let of_guest = |f: &Bytes| f[..6] == mac(1).0 && f[28..32] == [0; 4] && f[38..42] == IP.octets();
    w.hosts[1].emitted.iter().filter(|(_, f)| of_guest(f)).count()
}

/// A guest whose host has died is started anew behind node 1 while node 0's routes still stand: its MAC comes from elsewhere,
/// and yet it checks its address. It is left in peace until it has spoken with it, whatever a hypervisor announces.
#[test]
fn a_guest_that_is_started_anew_elsewhere_is_left_in_peace_while_it_checks_its_address() {
    for announced in [false, true] {
        let mut w = World::converged(3, MS);
        w.frame(0, P1, mac(1), Some(announces()));
        w.run_for(Span::secs(20));
        w.frame(1, P2, mac(1), Some(checks()));
        w.run_for(Span::millis(50));
        if announced {
            w.frame(1, P2, mac(1), Some(rarp(mac(1))));
        }
        w.run_for(Span::secs(1));
        assert_eq!(w.mac_row(2, mac(1)), remote(1, false));
        w.frame(1, P2, mac(1), Some(checks()));
        w.run_for(Span::secs(2));
        assert_eq!(asked_by_nobody(&w), 0, "announced: {announced}");
        w.frame(1, P2, mac(1), Some(announces()));
        w.run_for(Span::millis(10));
        assert!(w.neigh_row(2, IP.into()).is_some(), "announced: {announced}");
    }
}

/// Whoever has moved here without a check has its addresses and is asked for them as before.
#[test]
fn a_guest_that_has_moved_and_checks_nothing_is_asked() {
    let mut w = World::converged(3, MS);
    w.frame(0, P1, mac(1), Some(announces()));
    w.run_for(Span::secs(20));
    w.frame(1, P2, mac(1), Some(rarp(mac(1))));
    w.run_for(Span::millis(50));
    assert_eq!(asked_by_nobody(&w), 1);
}

/// A MAC that went to and fro has to prove that it is there. It had begun to check its address, and its only announcement
/// says that it has finished: it can be asked for the proof, although the table does not show it here (EVPN-MOB-16, PIT-04).
#[test]
fn an_announcement_where_the_mac_is_contested_ends_its_check() {
    let mut w = World::converged(3, MS);
    for node in [0, 1, 0, 1, 0] {
        w.frame(node, if node == 0 { P1 } else { P2 }, mac(1), Some(announces()));
        w.run_for(Span::millis(1500));
        let seen = w.mac_row(2, mac(1));
        assert_eq!(seen, remote(node, false), "not faster than any guard");
    }
    // Again, too soon for an announcement alone.
    w.frame(1, P2, mac(1), Some(announces()));
    w.run_for(Span::millis(1500));
    w.frame(0, P1, mac(1), Some(announces()));
    w.run_for(Span::millis(300));
    assert_eq!(w.mac_row(2, mac(1)), remote(0, false));
    w.guests = vec![Guest { node: 1, port: P2, mac: mac(1), ip: IP }];
    w.hosts[1].emitted.clear();
    w.frame(1, P2, mac(1), Some(checks()));
    w.run_for(Span::millis(100));
    assert_eq!((w.mac_row(2, mac(1)), asked_by_nobody(&w)), (remote(0, false), 0), "it checks its address");
    w.frame(1, P2, mac(1), Some(announces()));
    w.run_for(Span::millis(20));
    assert_eq!(w.mac_row(2, mac(1)), remote(1, false));
}

/// A guest is started anew where its address is bound already, and migrated live in the middle of its check: its new VTEP has
/// the routes of its last life, and has heard from the old one that the address is being checked, whatever is flooded. It
/// is asked when that must be over, or believed when it announces itself; one that has come later than that is asked as ever.
#[test]
fn a_guest_that_is_migrated_in_the_middle_of_its_check_is_left_in_peace() {
    for unknown in [Unknown::Replicate, Unknown::Drop] {
        for (pause, announces_itself, asked) in
            [(Span::millis(300), true, 0), (Span::millis(300), false, 0), (Span::secs(11), false, 1)]
        {
            let mut w = World::with(3, MS, |c| c.vnis[0].hosts.unknown = unknown);
            w.run_for(Span::secs(5));
            w.frame(0, P1, mac(1), Some(announces()));
            w.run_for(Span::secs(20));
            w.hosts[0].encapsulated.clear();
            w.frame(0, P1, mac(1), Some(checks()));
            assert_eq!(w.hosts[0].encapsulated, [], "no host hears of it");
            w.run_for(pause);
            w.frame(1, P2, mac(1), Some(rarp(mac(1))));
            w.run_for(Span::secs(1));
            assert_eq!(w.mac_row(2, mac(1)), remote(1, false));
            assert_eq!(asked_by_nobody(&w).min(1), asked, "{unknown:?} {pause}");
            if announces_itself {
                w.frame(1, P2, mac(1), Some(announces()));
                w.run_for(Span::millis(50));
                assert!(w.neigh_row(2, IP.into()).is_some());
            } else if asked == 0 {
                w.run_for(Span::secs(10));
                assert!(asked_by_nobody(&w) > 0, "{unknown:?}: its check is over");
            }
        }
    }
}

/// The same when its move was prepared, and it stands still when it is handed over.
#[test]
fn a_prepared_guest_that_checks_its_address_is_left_in_peace() {
    let mut w = World::converged(3, MS);
    w.frame(0, P1, mac(1), Some(announces()));
    w.run_for(Span::secs(20));
    w.frame(0, P1, mac(1), Some(checks()));
    w.run_for(Span::millis(100));
    done(&mut w, 1, prepare("p2"));
    done(&mut w, 1, activate(None));
    w.run_for(Span::millis(100));
    w.frame(1, P2, mac(1), Some(rarp(mac(1))));
    w.run_for(Span::secs(2));
    assert_eq!((w.mac_row(2, mac(1)), asked_by_nobody(&w)), (remote(1, false), 0));
}

/// It comes back to a port that it has left a moment ago, and checks its address there: the table says so before the tap.
#[test]
fn a_late_frame_that_is_a_check_is_not_asked_about() {
    let mut w = World::converged(3, MS);
    w.frame(1, P2, mac(1), Some(announces()));
    w.run_for(Span::secs(20));
    w.frame(0, P1, mac(1), Some(announces()));
    w.run_for(Span::millis(40));
    assert_eq!(w.mac_row(2, mac(1)), remote(0, false));
    w.hosts[1].emitted.clear();
    w.frame(1, P2, mac(1), None);
    w.run_for(Span::micros(300));
    w.input(1, Input::Frame { port: P2, bytes: checks() });
    w.run_for(Span::millis(500));
    assert_eq!(asked_by_nobody(&w), 0);
}

/// A guest is started anew behind node 1 while its old routes stand, and its first frame is the check of its link-local address:
/// its IPv4 address is looked for only when it must have finished with that, too. The table may show its MAC before or after
/// the frame is read. One that was running checks other addresses of its own.
#[test]
fn a_guest_whose_first_frame_shows_that_it_starts_is_left_in_peace() {
    let link_local = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
    let other = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
    for (target, row_first, asked) in
        [(link_local, false, 0), (link_local, true, 0), (other, false, 1), (other, true, 1)]
    {
        let mut w = World::converged(3, MS);
        w.frame(0, P1, mac(1), Some(announces()));
        w.run_for(Span::secs(20));
        let dad = neighbor_solicitation(mac(1), Ipv6Addr::UNSPECIFIED, None, target);
        if row_first {
            w.frame(1, P2, mac(1), None);
        }
        w.frame(1, P2, mac(1), Some(dad));
        w.run_for(Span::secs(1));
        assert_eq!(w.mac_row(2, mac(1)), remote(1, false));
        assert_eq!(asked_by_nobody(&w), asked, "{target}, row first: {row_first}");
        w.run_for(Span::secs(10));
        assert!(asked_by_nobody(&w) > 0, "{target}, row first: {row_first}");
    }
}
