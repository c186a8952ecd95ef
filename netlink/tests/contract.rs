//! One suite for the fake and for the real kernel: the same ops, the same frames, and the same frames, rows and
//! notifications must come of it. What stands here is what vtepd relies on.

#![allow(clippy::unwrap_used, reason = "test helpers may panic")]

mod common;
#[path = "common/world.rs"]
mod world;

use common::{in_netns, mac, vtep};
use evpn::types::Mac;
use netlink::Op;
use world::{Fake, Real, Where, World, arp, frame, garp, nd_na, nd_ns, probe, rarp};

/// Runs the scenario on both, and compares all they did.
fn both(scenario: fn(&mut dyn World)) {
    let mut fake = Fake::new();
    scenario(&mut fake);
    let expected = fake.transcript().to_vec();
    in_netns(move || {
        let mut real = Real::new();
        scenario(&mut real);
        let got = real.transcript();
        for (i, (f, r)) in expected.iter().zip(got).enumerate() {
            assert_eq!(f, r, "step {i}: left the fake, right the kernel");
        }
        assert_eq!(expected.len(), got.len());
    });
}

const P1: Where = Where::Port(1);
const P2: Where = Where::Port(2);
const fn v(n: u8) -> Where {
    Where::Vtep(n)
}
fn remote(w: &dyn World, n: u32, to: u8) -> Op {
    Op::SetRemote { vxlan: w.vxlan(), mac: mac(n), vtep: vtep(to) }
}

#[test]
fn broadcast_floods_once_per_vtep_and_unicast_follows_what_was_learned() {
    both(|w| {
        let vxlan = w.vxlan();
        for n in [2, 3] {
            w.op(Op::AddFlood { vxlan, vtep: vtep(n) }).unwrap();
        }
        let hello = frame(Mac::BROADCAST, mac(1), 1);
        assert_eq!(w.inject(1, &hello), [P2, v(2), v(3)]);
        assert_eq!(w.inject(2, &frame(mac(1), mac(2), 2)), [P1]);
        // Unknown unicast is flooded.
        assert_eq!(w.inject(1, &frame(mac(77), mac(1), 3)), [P2, v(2), v(3)]);
        assert_eq!(w.rows(1), ["br port1"]);
        // From the overlay: to the guests only, and nothing is learned there.
        assert_eq!(w.inject_vxlan(2, &frame(Mac::BROADCAST, mac(5), 4)), [P1, P2]);
        assert_eq!(w.rows(5), Vec::<String>::new());
    });
}

/// Kernel facts 1 and 6 of the row format: two rows from one request, and silence when nothing changes.
#[test]
fn one_request_writes_both_rows_of_a_remote_mac_and_a_repeat_is_silent() {
    both(|w| {
        let op = remote(w, 1, 2);
        w.op(op).unwrap();
        assert_eq!(w.rows(1), ["br vx ext", "self 2 ext"]);
        assert_eq!(w.events(), ["fdb 1 br vx ext", "fdb 1 self 2 ext"]);
        w.op(op).unwrap();
        assert_eq!(w.events(), Vec::<String>::new());
        assert_eq!(w.inject(1, &frame(mac(1), mac(9), 1)), [v(2)]);
        // Another VTEP: only the self row changes.
        let op = remote(w, 1, 3);
        w.op(op).unwrap();
        assert_eq!(w.rows(1), ["br vx ext", "self 3 ext"]);
        assert_eq!(w.inject(1, &frame(mac(1), mac(9), 2)), [v(3)]);
        let vxlan = w.vxlan();
        w.op(Op::DelRemote { vxlan, mac: mac(1), vtep: vtep(3) }).unwrap();
        assert_eq!(w.rows(1), Vec::<String>::new());
    });
}

/// Kernel facts 3 and 4.
#[test]
fn flood_rows_append_twice_without_effect_and_an_absent_one_is_deleted_with_success() {
    both(|w| {
        let vxlan = w.vxlan();
        w.op(Op::AddFlood { vxlan, vtep: vtep(2) }).unwrap();
        w.op(Op::AddFlood { vxlan, vtep: vtep(3) }).unwrap();
        w.events();
        w.op(Op::AddFlood { vxlan, vtep: vtep(3) }).unwrap();
        assert_eq!(w.events(), Vec::<String>::new());
        w.op(Op::DelFlood { vxlan, vtep: vtep(7) }).unwrap();
        assert_eq!(w.inject(1, &frame(Mac::BROADCAST, mac(1), 1)), [P2, v(2), v(3)]);
        w.op(Op::DelFlood { vxlan, vtep: vtep(2) }).unwrap();
        assert_eq!(w.inject(1, &frame(Mac::BROADCAST, mac(1), 2)), [P2, v(3)]);
        w.op(Op::DelFlood { vxlan, vtep: vtep(3) }).unwrap();
        assert_eq!(w.inject(1, &frame(Mac::BROADCAST, mac(1), 3)), [P2]);
    });
}

/// Kernel fact 7: one notification, no delete, and the `self` row is left behind.
#[test]
fn a_local_frame_takes_a_remote_row_with_one_notification_and_the_self_row_stays() {
    both(|w| {
        let op = remote(w, 1, 2);
        w.op(op).unwrap();
        w.events();
        w.inject(1, &rarp(mac(1)));
        assert_eq!(w.events(), ["fdb 1 br port1"]);
        assert_eq!(w.rows(1), ["br port1", "self 2 ext"]);
        // Late deletes name the device, so they cannot hit the guest's row; the self row goes.
        let vxlan = w.vxlan();
        w.op(Op::DelMaster { port: vxlan, mac: mac(1) }).unwrap();
        assert_eq!(w.rows(1), ["br port1", "self 2 ext"]);
        w.op(Op::DelRemote { vxlan, mac: mac(1), vtep: vtep(2) }).unwrap();
        assert_eq!(w.rows(1), ["br port1"]);
    });
}

/// PIT-04, and PIT-06: what happens to a MAC that moved away when its old port speaks once more.
#[test]
fn one_late_frame_steals_a_remote_row_and_a_sticky_one_holds() {
    both(|w| {
        w.inject(1, &frame(Mac::BROADCAST, mac(1), 1));
        let op = remote(w, 1, 2);
        w.op(op).unwrap();
        assert_eq!(w.rows(1), ["br vx ext", "self 2 ext"]);
        assert_eq!(w.inject(2, &frame(mac(1), mac(2), 2)), [v(2)]);
        w.inject(1, &frame(Mac::BROADCAST, mac(1), 3));
        assert_eq!(w.rows(1), ["br port1", "self 2 ext"]);
        assert_eq!(w.inject(2, &frame(mac(1), mac(2), 4)), [P1]);
        // Sticky: the mark only on the self row.
        let vxlan = w.vxlan();
        w.op(Op::SetSelf { vxlan, mac: mac(1), vtep: vtep(2) }).unwrap();
        w.op(Op::SetSticky { vxlan, mac: mac(1) }).unwrap();
        assert_eq!(w.rows(1), ["br vx sticky static", "self 2 ext"]);
        w.inject(1, &frame(Mac::BROADCAST, mac(1), 5));
        assert_eq!(w.rows(1), ["br vx sticky static", "self 2 ext"]);
        // Why a static row is deleted first: a marked write over it keeps what it was.
        w.op(op).unwrap();
        assert_eq!(w.rows(1), ["br vx ext sticky static", "self 2 ext"]);
        w.op(Op::DelMaster { port: vxlan, mac: mac(1) }).unwrap();
        w.op(op).unwrap();
        assert_eq!(w.rows(1), ["br vx ext", "self 2 ext"]);
    });
}

/// PIT-03.
#[test]
fn a_frame_from_the_overlay_for_a_remote_mac_dies_on_split_horizon() {
    both(|w| {
        let op = remote(w, 1, 2);
        w.op(op).unwrap();
        assert_eq!(w.inject_vxlan(3, &frame(mac(1), mac(5), 1)), []);
        // PIT-06: with the MAC on its port it arrives, before the guest has said a word.
        let (vxlan, port) = (w.vxlan(), w.port(1));
        w.op(Op::DelRemote { vxlan, mac: mac(1), vtep: vtep(2) }).unwrap();
        w.op(Op::SetLocal { port, mac: mac(1) }).unwrap();
        assert_eq!(w.rows(1), ["br port1"]);
        assert_eq!(w.inject_vxlan(3, &frame(mac(1), mac(5), 2)), [P1]);
    });
}

/// Why a marked row is deleted before a local one is written: the mark would stay, and the row never age.
#[test]
fn a_plain_write_over_a_marked_row_keeps_the_mark() {
    both(|w| {
        let op = remote(w, 1, 2);
        w.op(op).unwrap();
        let port = w.port(1);
        w.op(Op::SetLocal { port, mac: mac(1) }).unwrap();
        assert_eq!(w.rows(1), ["br port1 ext", "self 2 ext"]);
    });
}

#[test]
fn carrier_loss_flushes_what_was_learned_and_spares_what_was_written() {
    both(|w| {
        for n in 1..4 {
            w.inject(1, &frame(Mac::BROADCAST, mac(n), n as u8));
        }
        let op = remote(w, 9, 2);
        w.op(op).unwrap();
        w.events();
        w.carrier(1, false);
        assert_eq!(w.events(), ["gone 1 br port1", "gone 2 br port1", "gone 3 br port1"]);
        assert_eq!(w.rows(9), ["br vx ext", "self 2 ext"]);
        w.carrier(1, true);
        w.inject(1, &frame(Mac::BROADCAST, mac(1), 9));
        assert_eq!(w.rows(1), ["br port1"]);
    });
}

const A: [u8; 4] = [192, 0, 2, 1];
const B: [u8; 4] = [192, 0, 2, 2];

/// The heart of suppression, and what it swallows (PIT-14, PIT-17, PROXY-REPLY-01).
#[test]
fn arp_for_a_known_remote_host_is_answered_locally_and_announcements_do_not_cross() {
    both(|w| {
        let (vxlan, dev) = (w.vxlan(), w.bridge());
        w.op(Op::AddFlood { vxlan, vtep: vtep(2) }).unwrap();
        // Unknown: flooded everywhere.
        assert_eq!(w.inject(1, &arp(mac(1), A, B)), [P2, v(2)]);
        let op = remote(w, 2, 2);
        w.op(op).unwrap();
        w.op(Op::SetNeigh { dev, ip: B.into(), mac: mac(2), router: false }).unwrap();
        // Known: answered to the asker; local guests still hear the question, the overlay does not.
        assert_eq!(w.inject(1, &arp(mac(1), A, B)), [P1, P2]);
        // Gratuitous ARP and probes stay here, RARP passes.
        assert_eq!(w.inject(1, &garp(mac(1), A)), [P2]);
        assert_eq!(w.inject(1, &probe(mac(1), A)), [P2]);
        assert_eq!(w.inject(1, &rarp(mac(1))), [P2, v(2)]);
        // A neighbour row without a forwarding row answers nothing.
        w.op(Op::DelRemote { vxlan, mac: mac(2), vtep: vtep(2) }).unwrap();
        assert_eq!(w.inject(1, &arp(mac(1), A, B)), [P2, v(2)]);
        // PROXY-REPLY-02: a host known as local is not answered for, and not asked for in the overlay either.
        w.inject(2, &frame(Mac::BROADCAST, mac(2), 1));
        assert_eq!(w.inject(1, &arp(mac(1), A, B)), [P2]);
        // From the overlay nothing is answered.
        assert_eq!(w.inject_vxlan(2, &arp(mac(7), [192, 0, 2, 7], B)), [P1, P2]);
        w.op(Op::DelNeigh { dev, ip: B.into() }).unwrap();
        assert_eq!(w.inject(1, &arp(mac(1), A, B)), [P2, v(2)]);
    });
}

#[test]
fn nd_for_a_known_remote_host_is_answered_locally_and_announcements_do_not_cross() {
    both(|w| {
        let (vxlan, dev) = (w.vxlan(), w.bridge());
        w.op(Op::AddFlood { vxlan, vtep: vtep(2) }).unwrap();
        let (a, b) = ("2001:db8::1".parse().unwrap(), "2001:db8::2".parse().unwrap());
        assert_eq!(w.inject(1, &nd_ns(mac(1), a, b)), [P2, v(2)]);
        let op = remote(w, 2, 2);
        w.op(op).unwrap();
        for router in [false, true] {
            w.op(Op::SetNeigh { dev, ip: b.into(), mac: mac(2), router }).unwrap();
            assert_eq!(w.inject(1, &nd_ns(mac(1), a, b)), [P1, P2]);
        }
        // Unsolicited advertisement and duplicate detection stay here.
        assert_eq!(w.inject(1, &nd_na(mac(1), a)), [P2]);
        assert_eq!(w.inject(1, &nd_ns(mac(1), std::net::Ipv6Addr::UNSPECIFIED, a)), [P2]);
    });
}

/// PIT-01.
#[test]
fn a_new_bridge_mac_flushes_neighbours_and_spares_forwarding_rows() {
    both(|w| {
        let dev = w.bridge();
        let op = remote(w, 2, 2);
        w.op(op).unwrap();
        w.op(Op::SetNeigh { dev, ip: B.into(), mac: mac(2), router: false }).unwrap();
        w.events();
        w.bridge_mac(Mac([2, 0xbb, 0, 0, 0, 9]));
        assert_eq!(w.events(), ["gone 192.0.2.2 2"]);
        assert_eq!(w.rows(2), ["br vx ext", "self 2 ext"]);
    });
}

/// PIT-15: frames for an address of the bridge end there, whoever sends them; nobody takes it by speaking with it.
#[test]
fn an_address_of_the_bridge_takes_its_frames_and_cannot_be_taken() {
    both(|w| {
        let (bridge, vxlan) = (w.bridge(), w.vxlan());
        w.op(Op::AddFlood { vxlan, vtep: vtep(2) }).unwrap();
        w.op(Op::SetOwn { bridge, mac: mac(1) }).unwrap();
        assert_eq!(w.rows(1), ["br own ext perm"]);
        assert_eq!(w.events(), ["fdb 1 br own ext perm"]);
        w.op(Op::SetOwn { bridge, mac: mac(1) }).unwrap();
        assert_eq!(w.events(), Vec::<String>::new());
        assert_eq!(w.inject(1, &frame(mac(1), mac(2), 1)), Vec::<Where>::new());
        assert_eq!(w.inject_vxlan(2, &frame(mac(1), mac(3), 2)), Vec::<Where>::new());
        w.inject(2, &frame(Mac::BROADCAST, mac(1), 3));
        assert_eq!(w.rows(1), ["br own ext perm"]);
        w.op(Op::DelOwn { bridge, mac: mac(1) }).unwrap();
        assert_eq!(w.rows(1), Vec::<String>::new());
        // A frame was faster than we.
        w.inject(1, &frame(Mac::BROADCAST, mac(1), 4));
        assert_eq!(w.rows(1), ["br port1"]);
        w.op(Op::SetOwn { bridge, mac: mac(1) }).unwrap();
        assert_eq!(w.rows(1), ["br own ext perm"]);
    });
}

/// PIT-02: a bridge of ours is no host in the tenant's network. (The host has 10.0.0.1 on its underlay.)
#[test]
fn the_host_answers_neither_arp_nor_ping_of_a_guest_and_sends_nothing_itself() {
    both(|w| {
        assert_eq!(w.inject(1, &arp(mac(1), A, [10, 0, 0, 1])), [P2]);
        // To the bridge's own address: for the host, and nobody there.
        let mut ping = frame(Mac([2, 0xbb, 0, 0, 0, 1]), mac(1), 0);
        ping[12..14].copy_from_slice(&[8, 0]);
        ping[14..34].copy_from_slice(&[69, 0, 0, 46, 0, 0, 0, 0, 64, 1, 174, 202, 192, 0, 2, 1, 10, 0, 0, 1]);
        ping[34..42].copy_from_slice(&[8, 0, 0xf7, 0xff, 0, 0, 0, 0]);
        assert_eq!(w.inject(1, &ping), []);
        // A router advertisement reaches the other guests and changes nothing here (seen by the silence after it).
        let source = "fe80::1".parse().unwrap();
        let mut ra = nd_na(mac(1), source);
        ra[54] = 134;
        assert_eq!(w.inject(1, &ra), [P2]);
        assert_eq!(w.inject(2, &frame(Mac::BROADCAST, mac(2), 1)), [P1]);
    });
}
