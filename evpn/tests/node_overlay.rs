//! What comes in from the overlay: heard by a tap of its own, never learned from (PROXY-LEARN-01, PROXY-LEARN-02).

mod world;

use bytes::Bytes;
use evpn::node::{Input, Show, view};
use evpn::types::{IfIndex, Mac, Span};
use evpn::wire::frame;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use world::steps::{MS, garp, ip};
use world::{P1, P2, VXLAN, World, mac, own_mac, probe_mac, vtep};

fn hosts(w: &mut World, i: usize) -> Vec<view::HostView> {
    match w.ask(i, Show::Hosts) {
        view::Rows::Hosts(v) => v,
        other => panic!("{other:?}"),
    }
}

/// EUI-64 of RFC 4291 appendix A, written out on its own.
fn link_local(m: Mac) -> Ipv6Addr {
    let [a, b, c, d, e, f] = m.0;
    Ipv6Addr::from([0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f])
}

#[test]
fn the_vxlan_device_has_a_tap_as_long_as_the_vni_forwards() {
    let mut w = World::converged(2, MS);
    assert_eq!(w.hosts[0].taps.iter().filter(|p| **p == VXLAN).count(), 1);
    w.kernel(0, evpn::fabric::KernelEvent::LinkGone(VXLAN));
    assert!(!w.hosts[0].taps.contains(&VXLAN));
    w.devices(0, own_mac(0));
    assert_eq!(w.hosts[0].taps.iter().filter(|p| **p == VXLAN).count(), 1);
}

#[test]
fn nothing_from_the_overlay_is_learned_or_takes_anything_from_anybody() {
    let mut w = World::converged(2, MS);
    w.frame(0, P1, mac(1), Some(garp(mac(1), ip(1))));
    w.run_for(Span::millis(50));
    let before = (hosts(&mut w, 0).len(), w.macs(0).len());
    let v6: Ipv6Addr = "2001:db8::9".parse().expect("address");
    let v4 = |n| Ipv4Addr::new(10, 1, 0, n);
    let frames = [
        garp(mac(9), ip(1)),
        garp(mac(9), ip(9)),
        garp(mac(1), ip(8)),
        frame::arp_reply(mac(9), v4(9), probe_mac(0), v4(200)),
        frame::rarp_announce(mac(9)),
        frame::unsolicited_advertisement(mac(9), v6, None, false),
        frame::neighbor_advertisement(
            mac(9),
            v6,
            Some((probe_mac(0), link_local(probe_mac(0)))),
            false,
            true,
        ),
        Bytes::from_static(&[1, 2, 3]),
    ];
    for f in frames {
        w.input(0, Input::Frame { port: VXLAN, bytes: f });
        w.run_for(Span::millis(200));
    }
    assert_eq!((hosts(&mut w, 0).len(), w.macs(0).len()), before);
    let bound = hosts(&mut w, 0);
    assert_eq!(bound.iter().find(|h| h.ip == ip(1)).map(|h| h.mac), Some(mac(1)), "{bound:?}");
    let refused = w.status(0).counters.get("frames_refused_truncated").copied();
    assert_eq!(refused, Some(1), "the one that is none");
}

#[test]
fn a_host_behind_another_vtep_that_looks_for_our_probe_address_is_answered_there() {
    let mut w = World::converged(2, MS);
    w.frame(1, P1, mac(1), Some(garp(mac(1), ip(1))));
    w.run_for(Span::millis(50));
    w.hosts[0].encapsulated.clear();
    let host: Ipv6Addr = "2001:db8::1".parse().expect("address");
    let target = link_local(probe_mac(0));
    let ns = frame::neighbor_solicitation(mac(1), host, Some(probe_mac(0)), target);
    w.input(0, Input::Frame { port: VXLAN, bytes: ns });
    let [(to, bytes)]: [(IpAddr, Bytes); 1] = w.hosts[0].encapsulated.clone().try_into().expect("one answer");
    assert_eq!(to, vtep(1));
    let f = frame::parse(&bytes).expect("our own");
    assert_eq!((f.dst, f.src), (mac(1), probe_mac(0)));
    let frame::Body::NeighborAdvertisement(na) = f.body else { panic!("{f:?}") };
    assert_eq!((na.target, na.dst, na.solicited), (target, host, true));
}

/// ARP out of the ports since the last look: port, what it says of which MAC.
fn said(w: &mut World, i: usize) -> Vec<(IfIndex, IpAddr, Mac)> {
    let all = std::mem::take(&mut w.hosts[i].emitted);
    let arp = |f: frame::Frame| match f.body {
        frame::Body::Arp(a) => Some((IpAddr::V4(a.sender_ip), a.sender_mac)),
        _ => None,
    };
    all.iter().filter_map(|(port, b)| arp(frame::parse(b).ok()?).map(|(ip, m)| (*port, ip, m))).collect()
}

/// PIT-17: an address changes its MAC before the first one's route has come. A host here has that one all the same: from a
/// question of its own that the first owner has answered, or from a question of the owner.
#[test]
fn what_a_host_learned_over_the_overlay_of_an_address_of_nobody_is_corrected() {
    let v4 = |n| Ipv4Addr::new(10, 1, 0, n);
    let answer = frame::arp_reply(mac(9), v4(1), mac(5), v4(5));
    let question = frame::arp_request(mac(9), v4(1), v4(5));
    for (bytes, heard) in [
        (answer.clone(), true),
        (question, true),
        // Caches of hosts make nothing of these.
        (garp(mac(9), ip(1)), false),
        (frame::arp_request(mac(9), Ipv4Addr::UNSPECIFIED, v4(1)), false),
        (frame::arp_reply(mac(9), v4(1), probe_mac(0), Ipv4Addr::UNSPECIFIED), false),
    ] {
        let mut w = World::converged(3, MS);
        w.input(0, Input::Frame { port: VXLAN, bytes: bytes.clone() });
        w.run_for(Span::secs(1));
        w.hosts[0].emitted.clear();
        w.frame(1, P1, mac(1), Some(garp(mac(1), ip(1))));
        w.run_for(Span::millis(10));
        let told = [P1, P2].map(|p| (p, ip(1), mac(1)));
        assert_eq!(said(&mut w, 0), if heard { &told[..] } else { &[] }, "{bytes:?}");
        assert_eq!(said(&mut w, 2), [], "nothing was heard there");
    }
    // The route was only slower than the frame; what has an owner is told by its routes.
    for first in [true, false] {
        let mut w = World::converged(2, MS);
        for step in [first, !first] {
            if step {
                w.input(0, Input::Frame { port: VXLAN, bytes: answer.clone() });
            } else {
                w.frame(1, P1, mac(9), Some(garp(mac(9), ip(1))));
                w.run_for(Span::millis(10));
            }
        }
        w.run_for(Span::secs(5));
        assert_eq!(said(&mut w, 0), [], "frame first: {first}");
    }
}

#[test]
fn the_same_for_ipv6() {
    let v6 = |n: u16| Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, n);
    let answer = frame::neighbor_advertisement(mac(9), v6(1), Some((mac(5), v6(5))), false, true);
    let question = frame::neighbor_solicitation(mac(9), v6(1), None, v6(5));
    for bytes in [answer, question] {
        let mut w = World::converged(2, MS);
        w.input(0, Input::Frame { port: VXLAN, bytes });
        w.hosts[0].emitted.clear();
        let new = frame::unsolicited_advertisement(mac(1), v6(1), None, false);
        w.frame(1, P1, mac(1), Some(new));
        w.run_for(Span::millis(10));
        let of = |b: &Bytes| match frame::parse(b).ok()?.body {
            frame::Body::NeighborAdvertisement(na) => Some((na.target, na.tlla)),
            _ => None,
        };
        let told: Vec<_> = w.hosts[0].emitted.iter().filter_map(|(_, b)| of(b)).collect();
        assert_eq!(told, [(v6(1), Some(mac(1))); 2]);
    }
}

/// A host here asks another one, which has its address from that (RFC 4861 §7.2.3), and is gone before it has answered us: its
/// address was never bound, and comes back under another MAC elsewhere.
#[test]
fn what_a_host_learned_from_the_question_of_one_that_was_never_bound_is_corrected() {
    let v6 = |n: u16| Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, n);
    for silent in [true, false] {
        let mut w = World::converged(2, MS);
        let question = frame::neighbor_solicitation(mac(9), v6(1), None, v6(5));
        w.frame(0, P1, mac(9), (!silent).then_some(question));
        w.run_for(Span::millis(300));
        w.forget(0, mac(9));
        w.run_for(Span::secs(5));
        w.hosts[0].emitted.clear();
        w.frame(1, P1, mac(1), Some(frame::unsolicited_advertisement(mac(1), v6(1), None, false)));
        w.run_for(Span::millis(10));
        let told = w.hosts[0].emitted.iter().filter(|(_, b)| {
            matches!(frame::parse(b).map(|f| f.body), Ok(frame::Body::NeighborAdvertisement(na)) if na.target == v6(1))
        });
        assert_eq!(told.count(), if silent { 0 } else { 2 }, "silent: {silent}");
    }
}
