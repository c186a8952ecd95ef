//! Claims that contradict each other: who is asked, whose number counts, what people are told.

mod world;

use bytes::{BufMut, Bytes, BytesMut};
use evpn::fabric::Row;
use evpn::node::Event;
use evpn::types::{Mac, Seq, Span};
use std::net::{IpAddr, Ipv4Addr};
use world::{P1, P2, VXLAN, World, mac, own_mac, probe_mac, vtep};

const MS: Span = Span::millis(1);

fn ip(n: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 1, 0, n)
}

/// Gratuitous ARP (HOST-GARP-01).
fn announce(m: Mac, own: Ipv4Addr) -> Bytes {
    let mut b = BytesMut::new();
    b.put_slice(&[0xff; 6]);
    b.put_slice(&m.0);
    b.put_slice(&[0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 1]);
    b.put_slice(&m.0);
    b.put_slice(&own.octets());
    b.put_slice(&[0; 6]);
    b.put_slice(&own.octets());
    b.freeze()
}

/// ARP answer to a probe of the VTEP.
fn answer(m: Mac, own: Ipv4Addr, to: Mac) -> Bytes {
    let mut b = BytesMut::new();
    b.put_slice(&to.0);
    b.put_slice(&m.0);
    b.put_slice(&[0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 2]);
    b.put_slice(&m.0);
    b.put_slice(&own.octets());
    b.put_slice(&to.0);
    b.put_slice(&[0; 4]);
    b.freeze()
}

#[allow(clippy::unnecessary_wraps)] // compared with what the kernel may not have
fn remote(i: usize) -> Option<Row> {
    Some(Row::Remote { vxlan: VXLAN, vtep: vtep(i), sticky: false })
}

/// EVPN-IRB-13, EVPN-XMOB-13: the loser asks its port; whoever answers has the MAC back with a higher sequence.
#[test]
fn the_loser_of_a_move_asks_its_port_once_and_an_answer_takes_the_mac_back() {
    let mut w = World::converged(2, MS);
    w.frame(0, P1, mac(1), Some(announce(mac(1), ip(1))));
    w.run_for(Span::secs(2));
    w.frame(1, P1, mac(1), Some(announce(mac(1), ip(1))));
    w.run_for(Span::millis(3));
    assert_eq!(w.mac_row(0, mac(1)), remote(1));
    let asked: Vec<_> = w.hosts[0].emitted.iter().map(|(p, f)| (*p, Mac::from_slice(&f[..6]))).collect();
    assert_eq!(asked, [(P1, Some(mac(1)))], "one unicast probe on the old port");
    w.frame(0, P1, mac(1), Some(answer(mac(1), ip(1), probe_mac(0))));
    w.run_for(Span::millis(3));
    assert_eq!(w.mac_row(1, mac(1)), remote(0), "it is there after all");
    assert_eq!(w.macs(0)[0].seq, Seq(2));
    // It goes to and fro: asked once more, because that is how a duplicate is told from a move, and no more.
    w.frame(1, P1, mac(1), Some(announce(mac(1), ip(1))));
    w.run_for(Span::secs(5));
    assert_eq!(w.hosts[0].emitted.len(), 2, "not asked again and again");
}

/// EVPN-IRB-15, MIG-WARM-01, EVPN-MOB-05
#[test]
fn a_silent_host_whose_mac_aged_out_is_asked_and_returns_with_its_sequence() {
    let mut w = World::converged(2, MS);
    w.frame(1, P1, mac(1), Some(announce(mac(1), ip(1))));
    w.run_for(Span::secs(2));
    w.frame(0, P1, mac(1), Some(announce(mac(1), ip(1))));
    w.run_for(Span::secs(200));
    let before = w.hosts[0].emitted.len();
    w.forget(0, mac(1));
    w.run_for(Span::millis(3));
    assert_eq!(w.mac_row(1, mac(1)), None, "withdrawn at once");
    assert_eq!(w.hosts[0].emitted.len(), before + 1);
    w.frame(0, P1, mac(1), Some(answer(mac(1), ip(1), probe_mac(0))));
    w.run_for(Span::millis(3));
    assert_eq!(w.mac_row(1, mac(1)), remote(0));
    assert_eq!(w.neigh_row(1, ip(1).into()), Some(Row::Neigh { mac: mac(1), router: false }));
    assert_eq!(w.macs(0)[0].seq, Seq(1), "nobody else had it meanwhile");
}

/// EVPN-XMOB-12: on a tie of sequences a wrong binding may win. The right one is asked for and ends above it.
#[test]
fn an_address_lost_on_a_tie_is_asked_for_and_ends_above_the_stale_binding() {
    let mut w = World::converged(2, Span::millis(5));
    w.frame(0, P1, mac(1), Some(announce(mac(1), ip(1))));
    w.run_for(Span::millis(1));
    // Before the first binding arrives here, the address is learned under another MAC: both have sequence 0.
    w.frame(1, P1, mac(2), Some(announce(mac(2), ip(1))));
    w.run_for(Span::millis(30));
    assert_eq!(w.neigh_row(1, ip(1).into()), Some(Row::Neigh { mac: mac(1), router: false }), "lower VTEP");
    // The other port is told of the change; whoever loses the address is not, but asked.
    assert_eq!(w.hosts[1].emitted.iter().filter(|(port, _)| *port == P1).count(), 1);
    w.frame(1, P1, mac(2), Some(answer(mac(2), ip(1), probe_mac(1))));
    w.run_for(Span::millis(30));
    assert_eq!(w.neigh_row(0, ip(1).into()), Some(Row::Neigh { mac: mac(2), router: false }));
    assert_eq!(w.neigh_row(1, ip(1).into()), None);
    let m2 = w.macs(0).into_iter().find(|m| m.mac == mac(2)).expect("remote");
    assert_eq!(m2.seq, Seq(1));
    let sent = w.sent_bytes;
    w.run_for(Span::secs(20));
    assert!(w.sent_bytes - sent < 400, "only keepalives: it has stopped");
}

/// EVPN-XMOB-02: a peer with the old binding must not call the new one obsolete, so the new MAC has no lower number.
#[test]
fn an_address_that_changes_its_mac_behind_one_vtep_keeps_the_sequence() {
    let mut w = World::converged(2, MS);
    w.frame(1, P1, mac(1), Some(announce(mac(1), ip(1))));
    w.run_for(Span::secs(2));
    w.frame(0, P1, mac(1), Some(announce(mac(1), ip(1))));
    w.run_for(Span::secs(2));
    w.frame(0, P2, mac(2), Some(announce(mac(2), ip(1))));
    w.run_for(Span::millis(5));
    assert_eq!(w.neigh_row(1, ip(1).into()), Some(Row::Neigh { mac: mac(2), router: false }));
    let seqs: Vec<_> = w.macs(1).iter().map(|m| (m.mac, m.seq)).collect();
    assert_eq!(seqs, [(mac(1), Seq(1)), (mac(2), Seq(1))]);
}

/// EVPN-MOB-19
#[test]
fn an_address_of_our_own_bridge_as_a_peers_host_is_told_once() {
    let mut w = World::converged(2, MS);
    for _ in 0..5 {
        w.frame(0, P1, own_mac(1), Some(announce(own_mac(1), ip(9))));
        w.run_for(Span::millis(100));
        w.forget(0, own_mac(1));
        w.run_for(Span::millis(100));
    }
    let told: Vec<_> =
        w.hosts[1].events.iter().filter(|(_, e)| matches!(e, Event::OwnAddress { .. })).collect();
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(told[0].1, Event::OwnAddress { vni: world::vni(), mac: own_mac(1), vtep: vtep(0) });
    assert_eq!(w.mac_row(1, own_mac(1)), None);
}

/// EVPN-MOB-11: what aged out of the port while a remote row waited to be written is not there to come back to.
#[test]
fn a_mac_that_left_its_port_before_the_remote_row_was_written_is_not_claimed_again() {
    let mut w = World::converged(2, MS);
    w.frame(0, P1, mac(1), None);
    w.run_for(Span::millis(10));
    w.hosts[0].paused = true;
    w.frame(1, P1, mac(1), None);
    w.run_for(Span::millis(10));
    w.forget(0, mac(1));
    w.forget(1, mac(1));
    w.run_for(Span::millis(10));
    assert!(w.macs(0).is_empty(), "{:?}", w.macs(0));
    w.hosts[0].paused = false;
    w.run_for(Span::millis(10));
    assert!(w.macs(1).is_empty(), "{:?}", w.macs(1));
}

/// PIT-07: a port's hosts have the addresses they are allowed and no others, whether they announce them or bring
/// them along in a move.
#[test]
fn an_address_that_the_port_may_not_have_is_no_hosts() {
    let allowed = |c: &mut evpn::node::Config| {
        let list = vec!["10.1.0.1".parse().expect("valid"), "10.1.9.0/24".parse().expect("valid")];
        c.vnis[0].mobility.allowed.insert("p1".into(), list);
    };
    let mut w = World::with(2, Span::millis(1), allowed);
    w.run_for(Span::secs(10));
    for (n, own) in [(1u8, true), (2, false)] {
        w.frame(0, P1, mac(n), Some(announce(mac(n), Ipv4Addr::new(10, 1, 0, n))));
        w.run_for(Span::millis(10));
        let ip = IpAddr::from([10, 1, 0, n]);
        assert_eq!(w.neigh_row(1, ip).is_some(), own, "{ip}");
    }
    let told = |w: &World, i: usize| {
        w.hosts[i].events.iter().filter(|(_, e)| matches!(e, Event::AddressNotAllowed { .. })).count()
    };
    assert_eq!((told(&w, 0), told(&w, 1)), (1, 0));
    // The other port has no limit; from there the address moves to a port that may not have it.
    w.frame(0, P2, mac(3), Some(announce(mac(3), Ipv4Addr::new(10, 1, 0, 3))));
    w.frame(0, P2, mac(4), Some(announce(mac(4), Ipv4Addr::new(10, 1, 9, 4))));
    w.run_for(Span::millis(10));
    assert!(w.neigh_row(1, IpAddr::from([10, 1, 0, 3])).is_some());
    for n in [3, 4] {
        w.frame(1, P1, mac(n), None);
    }
    w.run_for(Span::secs(1));
    assert_eq!(w.neigh_row(0, IpAddr::from([10, 1, 0, 3])), None, "did not come along");
    assert!(w.neigh_row(0, IpAddr::from([10, 1, 9, 4])).is_some(), "came along");
    assert_eq!(w.neigh_row(1, IpAddr::from([10, 1, 0, 3])), None);
}

/// A rack that moves is announced faster than the kernel's notifications are read: while there are more of them,
/// no binding is refused for want of its row (PIT-07).
#[test]
fn bindings_wait_as_long_as_the_kernel_has_more_to_say() {
    let mut w = World::converged(2, Span::millis(1));
    let (m, own) = (mac(1), ip(1));
    w.hosts[0].node.set_behind(true);
    w.input(0, evpn::node::Input::Frame { port: P1, bytes: announce(m, own) });
    w.run_for(Span::secs(1));
    assert_eq!(w.neigh_row(1, IpAddr::V4(own)), None, "the row has not been seen yet");
    w.hosts[0].node.set_behind(false);
    w.frame(0, P1, m, None);
    w.run_for(Span::millis(10));
    assert!(w.neigh_row(1, IpAddr::V4(own)).is_some());
    let refused =
        |w: &World| w.hosts[0].events.iter().any(|(_, e)| matches!(e, Event::BindingRefused { .. }));
    assert!(!refused(&w));
    // Once everything is read, patience has its end.
    w.input(0, evpn::node::Input::Frame { port: P1, bytes: announce(mac(2), ip(2)) });
    w.run_for(Span::secs(1));
    assert!(refused(&w));
}

/// PIT-07: a hypervisor's word about a guest's addresses does not reach beyond what the port is allowed.
#[test]
fn an_activation_brings_no_address_that_the_port_may_not_have() {
    use evpn::node::{Command, Input, MoveRequest, MoveStep, Requester};
    let mut w = World::with(2, Span::millis(1), |c| {
        c.vnis[0].mobility.allowed.insert("p1".into(), vec!["10.1.0.1".parse().expect("valid")]);
    });
    w.run_for(Span::secs(10));
    let request = MoveRequest {
        vni: None,
        mac: mac(1),
        ips: vec![IpAddr::V4(ip(1)), IpAddr::V4(ip(2))],
        step: MoveStep::Activate { port: Some("p1".into()), timeout: None },
        by: Requester::Api,
        at_stop: false,
    };
    w.input(0, Input::Command { id: 7, command: Command::Move(request) });
    w.run_for(Span::millis(50));
    assert!(w.neigh_row(1, IpAddr::V4(ip(1))).is_some());
    assert_eq!(w.neigh_row(1, IpAddr::V4(ip(2))), None);
}
