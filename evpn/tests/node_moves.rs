//! Whole nodes on a virtual clock: learning, hot moves both ways, the late-frame rule, silent moves of IPs.

mod world;

use evpn::fabric::{FdbRow, KernelEvent, Row, RowKey, VxlanFdb};
use evpn::node::{Event, Input};
use evpn::types::{Seq, Span, Time};
use std::net::{IpAddr, Ipv4Addr};
use world::frames::{arp, rarp};
use world::{BRIDGE, P1, P2, VXLAN, World, mac, own_mac, vni, vtep};

fn ip(n: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 1, 0, n)
}

#[allow(clippy::unnecessary_wraps)] // compared with what the kernel may not have
fn remote(i: usize) -> Option<Row> {
    Some(Row::Remote { vxlan: VXLAN, vtep: vtep(i), sticky: false })
}

const MS: Span = Span::millis(1);

#[test]
fn a_local_mac_becomes_a_remote_row_at_every_other_vtep() {
    let mut w = World::converged(3, MS);
    w.frame(0, P1, mac(1), None);
    w.run_for(Span::millis(2));
    assert_eq!(w.mac_row(1, mac(1)), remote(0));
    assert_eq!(w.mac_row(2, mac(1)), remote(0));
    assert_eq!(w.mac_row(0, mac(1)), None, "a MAC that never moved needs no row of ours where it lives");
    w.forget(0, mac(1));
    w.run_for(Span::millis(2));
    assert_eq!(w.mac_row(1, mac(1)), None, "aged out: gone everywhere");
}

/// A guest with the address of another VTEP's bridge: that VTEP's kernel refuses the row, so it is not wanted there;
/// the others reach it, and so does that VTEP once its bridge has another address.
#[test]
fn a_mac_that_is_an_own_address_of_a_vtep_is_not_installed_there() {
    let mut w = World::converged(3, MS);
    let m = own_mac(1);
    w.frame(0, P1, m, Some(arp(m, ip(9), ip(9))));
    w.run_for(Span::millis(2));
    assert_eq!((w.mac_row(1, m), w.mac_row(2, m)), (None, remote(0)));
    let neigh = RowKey::Neigh { dev: BRIDGE, ip: ip(9).into() };
    assert_eq!(w.hosts[1].rows.get(&neigh), None, "nor is its address answered for");
    assert_eq!(w.hosts[2].rows.get(&neigh), Some(&Row::Neigh { mac: m, router: false }));
    w.devices(1, mac(200));
    assert_eq!(w.mac_row(1, m), remote(0), "the bridge has another address");
    assert_eq!(w.hosts[1].rows.get(&neigh), Some(&Row::Neigh { mac: m, router: false }));
    w.devices(1, m);
    assert_eq!(w.mac_row(1, m), None, "and has it again");
    assert_eq!(w.hosts[1].rows.get(&neigh), None);
    assert_eq!(w.mac_row(0, mac(200)), None);
}

/// EVPN-IMET-01, -06
#[test]
fn vteps_flood_to_each_other_while_their_sessions_are_up() {
    let mut w = World::forgetful(3, MS);
    let key = |j| RowKey::Flood { vxlan: VXLAN, vtep: vtep(j) };
    assert_eq!(w.hosts[0].rows.get(&key(1)), Some(&Row::Flood));
    assert_eq!(w.hosts[0].rows.get(&key(2)), Some(&Row::Flood));
    w.cut(0, 1);
    w.run_for(Span::millis(3));
    assert_eq!(w.hosts[0].rows.get(&key(1)), None);
    assert_eq!(w.hosts[0].rows.get(&key(2)), Some(&Row::Flood));
    w.run_for(Span::secs(120));
    assert_eq!(w.hosts[0].rows.get(&key(1)), Some(&Row::Flood), "the session came back");
}

/// HOST-ARP-02, PROXY-LEARN-01, -03
#[test]
fn an_arp_binding_becomes_a_neighbour_row_elsewhere() {
    let mut w = World::converged(2, MS);
    w.frame(0, P1, mac(1), Some(arp(mac(1), ip(1), ip(9))));
    w.run_for(Span::millis(2));
    assert_eq!(w.neigh_row(1, ip(1).into()), Some(Row::Neigh { mac: mac(1), router: false }));
    assert_eq!(w.neigh_row(0, ip(1).into()), None, "a local host answers itself");
}

/// MIG-HOT-01, PIT-22, EVPN-MOB-03, -06, -07: RARP only, the guest says nothing else.
/// A port loses its carrier and gets it back, and the tap hears the guest before the monitor tells of either.
#[test]
fn what_a_guest_said_just_before_its_port_was_reported_down_is_not_forgotten() {
    let mut w = World::converged(2, Span::millis(1));
    w.frame(1, P1, mac(1), Some(arp(mac(1), ip(1), ip(9))));
    w.run_for(Span::millis(100));
    let said = Input::Frame { port: P1, bytes: arp(mac(1), ip(1), ip(9)) };
    w.input(1, said);
    w.run_for(Span::millis(2));
    w.forget(1, mac(1));
    w.frame(1, P1, mac(1), None);
    w.run_for(Span::millis(10));
    let row = Some(Row::Neigh { mac: mac(1), router: false });
    assert_eq!(w.neigh_row(0, ip(1).into()), row, "the address is known");

    // Nothing is said afterwards: the address goes with its MAC, and nobody is blamed.
    w.run_for(Span::millis(100));
    w.forget(1, mac(1));
    w.run_for(Span::millis(100));
    assert_eq!(w.neigh_row(0, ip(1).into()), None);
    assert!(!w.hosts[1].events.iter().any(|(_, e)| matches!(e, Event::BindingRefused { .. })));
}

/// HOST-RARP-01: the MAC at once, and its addresses with it.
#[test]
fn a_hot_move_by_rarp_takes_the_address_along_in_the_same_flush() {
    let mut w = World::converged(3, MS);
    w.frame(0, P1, mac(1), Some(arp(mac(1), ip(1), ip(1))));
    w.run_for(Span::millis(10));
    let start = w.now;
    w.frame(1, P2, mac(1), Some(rarp(mac(1))));
    assert_eq!(
        w.mac_row(1, mac(1)),
        Some(Row::Local { vxlan: VXLAN, port: P2 }),
        "the old self row goes (PIT-05)"
    );
    w.run_for(MS);
    // One one-way delay after the frame everybody has the row.
    assert_eq!(w.mac_row(0, mac(1)), remote(1));
    assert_eq!(w.mac_row(2, mac(1)), remote(1));
    assert_eq!(w.neigh_row(0, ip(1).into()), Some(Row::Neigh { mac: mac(1), router: false }));
    assert_eq!(w.neigh_row(2, ip(1).into()), Some(Row::Neigh { mac: mac(1), router: false }));
    assert_eq!(w.neigh_row(1, ip(1).into()), None);
    w.run_for(Span::millis(5));
    assert_eq!(
        w.neigh_row(2, ip(1).into()),
        Some(Row::Neigh { mac: mac(1), router: false }),
        "no gap in answering"
    );
    let m = w.moves(1).pop().expect("a record");
    assert_eq!((&*m.role, &*m.cause, m.seq_before, m.seq), ("arrived", "frame", Seq(0), Seq(1)));
    assert_eq!((m.ips, m.seen), (vec![IpAddr::V4(ip(1))], start));
    assert!(m.sent.is_some() && m.acked.is_some());
    let left = w.moves(0).pop().expect("a record");
    assert_eq!((&*left.role, left.seq), ("left", Seq(1)));
    assert!(left.sent.is_some() && left.acked.is_some());
    assert_eq!(w.moves(2).pop().expect("a record").role, "remote");
    assert_eq!(w.hosts[1].emitted.len(), 0, "the guest may still say it by itself");
    w.run_for(Span::millis(20));
    assert_eq!(w.hosts[1].emitted.len(), 1, "the address is confirmed by one unicast probe on the port");
    assert_eq!(&w.hosts[1].emitted[0].1[..6], &mac(1).0);
}

#[test]
fn an_address_that_nobody_confirms_after_the_move_is_given_up() {
    let mut w = World::converged(2, MS);
    w.frame(0, P1, mac(1), Some(arp(mac(1), ip(1), ip(1))));
    w.run_for(Span::millis(10));
    w.frame(1, P1, mac(1), Some(rarp(mac(1))));
    w.run_for(Span::secs(10));
    assert_eq!(w.hosts[1].emitted.len(), 3);
    assert_eq!(w.neigh_row(0, ip(1).into()), None);
    assert_eq!(w.mac_row(0, mac(1)), remote(1), "the MAC stays");
}

#[test]
fn an_answer_to_the_probe_confirms_the_address() {
    let mut w = World::converged(2, MS);
    w.frame(0, P1, mac(1), Some(arp(mac(1), ip(1), ip(1))));
    w.run_for(Span::millis(10));
    w.frame(1, P1, mac(1), Some(rarp(mac(1))));
    w.run_for(Span::millis(21));
    w.frame(1, P1, mac(1), Some(arp(mac(1), ip(1), ip(1))));
    w.run_for(Span::secs(10));
    assert_eq!(w.hosts[1].emitted.len(), 1);
    assert!(w.neigh_row(0, ip(1).into()).is_some());
}

/// As QEMU's guests do: an address that its guest announces by itself is not asked for. Nor while frames wait to be read,
/// of which the announcement may be one.
#[test]
fn an_address_that_is_announced_after_the_move_is_not_asked_for() {
    let mut w = World::converged(2, MS);
    w.frame(0, P1, mac(1), Some(arp(mac(1), ip(1), ip(1))));
    w.frame(0, P1, mac(2), Some(arp(mac(2), ip(2), ip(2))));
    w.run_for(Span::millis(10));
    w.frame(1, P1, mac(1), Some(rarp(mac(1))));
    w.run_for(Span::millis(19));
    w.frame(1, P1, mac(1), Some(arp(mac(1), ip(1), ip(1))));
    w.run_for(Span::secs(10));
    assert_eq!(w.hosts[1].emitted.len(), 0);
    w.hosts[1].node.set_unread([P1].into());
    w.frame(1, P1, mac(2), Some(rarp(mac(2))));
    w.run_for(Span::millis(500));
    w.frame(1, P1, mac(2), Some(arp(mac(2), ip(2), ip(2))));
    w.hosts[1].node.set_unread([].into());
    w.run_for(Span::secs(10));
    assert_eq!(w.hosts[1].emitted.len(), 0);
    assert!(w.neigh_row(0, ip(1).into()).is_some() && w.neigh_row(0, ip(2).into()).is_some());
}

/// A flood of frames puts off no question for ever.
#[test]
fn a_question_waits_for_unread_frames_a_second_at_most() {
    let mut w = World::converged(2, MS);
    w.frame(0, P1, mac(1), Some(arp(mac(1), ip(1), ip(1))));
    w.run_for(Span::millis(10));
    w.hosts[1].node.set_unread([P1].into());
    w.frame(1, P1, mac(1), Some(rarp(mac(1))));
    for _ in 0..11 {
        assert_eq!(w.hosts[1].emitted.len(), 0);
        w.run_for(Span::millis(100));
        w.frame(1, P1, mac(9), None);
    }
    assert_eq!(w.hosts[1].emitted.len(), 1);
}

/// EVPN-IRB-14: the switch back.
#[test]
fn without_the_step_beyond_the_rfc_the_address_follows_its_confirmation() {
    let mut w = World::with(2, MS, |c| c.mobility.move_ips_with_mac = false);
    w.run_for(Span::secs(10));
    w.frame(0, P1, mac(1), Some(arp(mac(1), ip(1), ip(1))));
    w.run_for(Span::millis(10));
    w.frame(1, P1, mac(1), Some(rarp(mac(1))));
    w.run_for(Span::millis(5));
    assert_eq!(w.neigh_row(0, ip(1).into()), None, "MAC-only went out");
    assert_eq!(w.hosts[1].emitted.len(), 1);
    w.frame(1, P1, mac(1), Some(arp(mac(1), ip(1), ip(1))));
    w.run_for(Span::millis(2));
    assert!(w.neigh_row(0, ip(1).into()).is_some());
}

/// PIT-04
#[test]
fn twenty_late_frames_change_no_sequence_and_lose_every_time() {
    let mut w = World::converged(3, MS);
    w.frame(0, P1, mac(1), None);
    w.run_for(Span::millis(10));
    w.frame(1, P1, mac(1), Some(rarp(mac(1))));
    w.run_for(Span::millis(10));
    for _ in 0..20 {
        w.frame(0, P1, mac(1), None);
        assert_eq!(w.hosts[0].fdb.get(&mac(1)), Some(&VXLAN), "put back in the same turn");
        w.run_for(MS);
    }
    for i in 0..3 {
        assert_eq!(w.macs(i)[0].seq, Seq(1), "node {i}");
    }
    let told = w.hosts[0].events.iter().filter(|(_, e)| matches!(e, Event::LateFrame { .. })).count();
    assert_eq!(told, 1);
    assert_eq!(w.status(0).counters["late_frames"], 20);
}

#[test]
fn after_the_guard_time_a_frame_on_the_old_port_is_a_claim() {
    let mut w = World::converged(2, MS);
    w.frame(0, P1, mac(1), None);
    w.run_for(Span::millis(10));
    w.frame(1, P1, mac(1), None);
    w.run_for(Span::secs(2));
    w.frame(0, P1, mac(1), None);
    w.run_for(Span::millis(5));
    assert_eq!(w.mac_row(1, mac(1)), remote(0));
    assert_eq!(w.macs(1)[0].seq, Seq(2));
}

#[test]
fn an_announcement_on_the_old_port_within_the_guard_time_is_a_claim() {
    for frame_first in [true, false] {
        let mut w = World::converged(2, MS);
        w.frame(0, P1, mac(1), None);
        w.run_for(Span::millis(10));
        w.frame(1, P1, mac(1), Some(rarp(mac(1))));
        w.run_for(Span::millis(10));
        if frame_first {
            w.frame(0, P1, mac(1), Some(rarp(mac(1))));
        } else {
            w.frame(0, P1, mac(1), None);
            w.input(0, Input::Frame { port: P1, bytes: rarp(mac(1)) });
        }
        w.run_for(Span::millis(5));
        assert_eq!(w.mac_row(1, mac(1)), remote(0), "frame first: {frame_first}");
        assert_eq!(w.macs(0)[0].seq, Seq(2));
    }
}

/// PIT-07: the tap saw a frame that the bridge refused.
#[test]
fn a_frame_that_the_bridge_refused_moves_nothing() {
    let mut w = World::converged(2, MS);
    w.frame(0, P1, mac(1), Some(arp(mac(1), ip(1), ip(1))));
    w.run_for(Span::millis(10));
    w.input(1, Input::Frame { port: P1, bytes: arp(mac(1), ip(1), ip(1)) });
    w.input(1, Input::Frame { port: P1, bytes: arp(mac(2), ip(1), ip(1)) });
    w.run_for(Span::secs(1));
    assert_eq!(w.mac_row(1, mac(1)), remote(0));
    assert_eq!(w.neigh_row(1, ip(1).into()), Some(Row::Neigh { mac: mac(1), router: false }));
    assert_eq!(w.status(1).counters["bindings_refused"], 2);
    assert!(w.macs(0).iter().all(|m| m.seq == Seq(0)));
}

/// PIT-05: the remote write was queued when the guest spoke, and overtakes it.
#[test]
fn a_queued_remote_write_does_not_outlive_a_local_claim() {
    let mut w = World::converged(2, MS);
    w.frame(0, P1, mac(1), None);
    w.run_for(Span::millis(10));
    w.hosts[1].paused = true;
    w.forget(0, mac(1));
    w.frame(0, P1, mac(1), None);
    w.run_for(Span::millis(5));
    w.frame(1, P1, mac(1), Some(rarp(mac(1))));
    // The queued write lands after the guest's frame.
    w.hosts[1].fdb.insert(mac(1), VXLAN);
    w.hosts[1].paused = false;
    w.run_for(Span::millis(5));
    w.frame(1, P2, mac(9), None);
    assert_eq!(w.hosts[1].fdb.get(&mac(1)), Some(&P1));
    w.run_for(Span::millis(5));
    assert_eq!(w.mac_row(0, mac(1)), remote(1));
}

/// EVPN-MOB-07: no receiver ever sees neither route.
#[test]
fn the_loser_withdraws_only_after_its_kernel_has_the_new_row() {
    let mut w = World::converged(2, MS);
    w.frame(0, P1, mac(1), None);
    w.run_for(Span::millis(10));
    w.hosts[0].paused = true;
    w.frame(1, P1, mac(1), Some(rarp(mac(1))));
    w.run_for(Span::millis(10));
    assert!(w.moves(0).pop().expect("open").sent.is_none(), "not withdrawn yet");
    w.run_for(Span::millis(20));
    let forced = w.hosts[0].events.iter().any(|(_, e)| matches!(e, Event::WithdrawForced { .. }));
    assert!(forced, "20 ms are the limit");
    assert!(w.moves(0).pop().expect("open").sent.is_some());
}

/// A.2-32
#[test]
fn ping_pong_raises_the_sequence_by_one_each_time() {
    let mut w = World::converged(3, MS);
    w.frame(0, P1, mac(1), Some(arp(mac(1), ip(1), ip(1))));
    for n in 1..=6u32 {
        w.run_for(Span::secs(2));
        let to = n as usize % 2;
        w.frame(to, P1, mac(1), Some(rarp(mac(1))));
        w.run_for(Span::millis(5));
        assert_eq!(w.macs(2)[0].seq, Seq(n));
        assert_eq!(w.mac_row(2, mac(1)), remote(to));
        assert_eq!(w.mac_row(1 - to, mac(1)), remote(to));
        assert!(w.neigh_row(2, ip(1).into()).is_some());
        w.frame(to, P1, mac(1), Some(arp(mac(1), ip(1), ip(1))));
    }
}

/// EVPN-MOB-08: both claim sequence 0; the lower VTEP wins at both, and at a third.
#[test]
fn equal_sequences_are_won_by_the_lower_vtep_everywhere() {
    let mut w = World::converged(3, Span::millis(5));
    w.frame(0, P1, mac(1), None);
    w.frame(1, P1, mac(1), None);
    w.run_for(Span::millis(50));
    assert_eq!(w.mac_row(1, mac(1)), remote(0));
    assert_eq!(w.mac_row(2, mac(1)), remote(0));
    assert_eq!(w.mac_row(0, mac(1)), None);
}

/// EVPN-XMOB-06: cold move, same IP under a new MAC, the old one never withdrawn.
#[test]
fn an_address_under_a_new_mac_beats_the_old_binding() {
    let mut w = World::converged(3, MS);
    w.frame(0, P1, mac(1), Some(arp(mac(1), ip(1), ip(1))));
    w.run_for(Span::millis(10));
    w.frame(1, P1, mac(2), Some(arp(mac(2), ip(1), ip(1))));
    w.run_for(Span::millis(10));
    let new = Some(Row::Neigh { mac: mac(2), router: false });
    assert_eq!(w.neigh_row(0, ip(1).into()), new);
    assert_eq!(w.neigh_row(2, ip(1).into()), new);
    assert_eq!(w.neigh_row(1, ip(1).into()), None);
    assert_eq!(w.mac_row(2, mac(1)), remote(0), "the old MAC itself stays where it is");
}

/// PIT-27, design section 5: rows found at start stay until every neighbour's End-of-RIB.
#[test]
fn adopted_rows_stay_until_end_of_rib_and_go_when_nobody_confirms_them() {
    let mut w = World::new(2, MS);
    // A third VTEP's row, left by an earlier run: told before the first complete read.
    let mut node = evpn::node::Node::new(world::config(0, 2), 7, Time(0));
    for ev in [
        KernelEvent::Link(evpn::fabric::Link {
            index: BRIDGE,
            name: "br100".into(),
            mac: mac(200),
            mtu: 1450,
            up: true,
            carrier: true,
            master: None,
            kind: evpn::fabric::LinkKind::Bridge(evpn::fabric::BridgeLink::default()),
            port: None,
        }),
        KernelEvent::Link(evpn::fabric::Link {
            index: VXLAN,
            name: "vx100".into(),
            mac: mac(201),
            mtu: 1450,
            up: true,
            carrier: true,
            master: Some(BRIDGE),
            kind: evpn::fabric::LinkKind::Vxlan(evpn::fabric::VxlanLink {
                vni: 100,
                local: Some(vtep(0)),
                port: 4789,
                learning: false,
            }),
            port: None,
        }),
        KernelEvent::Fdb(FdbRow::Vxlan(VxlanFdb {
            dev: VXLAN,
            mac: mac(5),
            vtep: Some(vtep(1)),
            ext_learned: true,
            permanent: false,
        })),
        KernelEvent::Synced,
    ] {
        node.handle(Input::Kernel(ev), Time(1));
    }
    node.flush(Time(1));
    let key = RowKey::Mac { bridge: BRIDGE, mac: mac(5) };
    assert_eq!(node.want().get(&key).copied(), remote(1));
    let probe = RowKey::Mac { bridge: BRIDGE, mac: world::probe_mac(0) };
    assert_eq!(node.want_mut().take_dirty(10), [probe], "adopting writes nothing");
    node.flush(Time(1) + Span::secs(119));
    assert_eq!(node.want().get(&key).copied(), remote(1), "an empty table is no reason");
    node.flush(Time(1) + Span::secs(121));
    assert_eq!(node.want().get(&key), None, "the restart time is");
    assert_eq!(node.want_mut().take_dirty(10), [key]);
    w.run_for(MS);
}

#[test]
fn a_port_that_leaves_takes_its_macs_along() {
    let mut w = World::converged(2, MS);
    w.frame(0, P1, mac(1), Some(arp(mac(1), ip(1), ip(1))));
    w.frame(0, P2, mac(2), None);
    w.run_for(Span::millis(5));
    w.kernel(0, KernelEvent::LinkGone(P1));
    w.run_for(Span::millis(5));
    assert_eq!(w.mac_row(1, mac(1)), None);
    assert_eq!(w.neigh_row(1, ip(1).into()), None);
    assert_eq!(w.mac_row(1, mac(2)), remote(0));
    assert!(!w.hosts[0].taps.contains(&P1));
}

/// A.2-11
#[test]
fn a_vxlan_device_that_goes_takes_the_vni_out_of_service() {
    let mut w = World::converged(2, MS);
    w.frame(0, P1, mac(1), None);
    w.run_for(Span::millis(5));
    w.kernel(0, KernelEvent::LinkGone(VXLAN));
    w.run_for(Span::millis(5));
    assert_eq!(w.mac_row(1, mac(1)), None);
    assert_eq!(w.hosts[1].rows.get(&RowKey::Flood { vxlan: VXLAN, vtep: vtep(0) }), None);
    let _ = vni();
}

/// HOST-RARP-03: five rounds, the first after 50 ms and each 100 ms later than the one before, as QEMU does it.
#[test]
fn a_hypervisor_that_repeats_its_announcement_raises_no_sequence() {
    let mut w = World::converged(2, Span::millis(1));
    w.frame(0, P1, mac(1), Some(rarp(mac(1))));
    w.run_for(Span::secs(1));
    w.frame(1, P2, mac(1), Some(rarp(mac(1))));
    w.run_for(Span::millis(20));
    let told = w.hosts[1].announced.len();
    assert_eq!(w.hosts[1].announced.last().map(|a| a.2), Some(Seq(1)), "it has moved");
    for pause in [50, 150, 250, 350, 450] {
        w.run_for(Span::millis(pause));
        w.frame(1, P2, mac(1), Some(rarp(mac(1))));
    }
    w.run_for(Span::secs(1));
    assert_eq!(w.hosts[1].announced.len(), told, "{:?}", w.hosts[1].announced);
}
