//! ARP and ND of each port in numbers: what is answered, suppressed, flooded, told, probed and refused (PROXY-REPLY-01,
//! PROXY-LEARN-05, PROXY-MAINT-02).
#![allow(clippy::unwrap_used, reason = "tests may panic")]

mod world;

use bytes::Bytes;
use evpn::node::{Flooding, Input, PortHosts};
use evpn::types::Span;
use evpn::wire::frame;
use std::net::{Ipv4Addr, Ipv6Addr};
use world::frames::{arp, garp};
use world::{P1, P2, World, mac};

fn ip(n: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 1, 0, n)
}

fn six(n: u16) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, n)
}

fn at(w: &mut World, i: usize, port: &str) -> PortHosts {
    let all = w.status(i).port_hosts;
    all.iter().find(|p| p.port == port).map(|p| p.hosts).unwrap_or_default()
}

/// A guest at each node, both known everywhere.
fn pair(flooding: Flooding) -> World {
    let mut w = World::with(2, Span::millis(1), |c| c.vnis[0].flooding = flooding);
    w.run_for(Span::secs(10));
    w.frame(0, P1, mac(1), Some(garp(mac(1), ip(1))));
    w.frame(1, P1, mac(2), Some(garp(mac(2), ip(2))));
    let na = frame::unsolicited_advertisement(mac(2), six(2), None, false);
    w.frame(1, P1, mac(2), Some(na));
    w.run_for(Span::secs(1));
    w
}

#[test]
fn questions_are_counted_by_what_becomes_of_them() {
    let mut w = pair(Flooding::Replicate);
    let before = at(&mut w, 0, "p1");
    assert_eq!(before, PortHosts { suppressed: 1, ..PortHosts::default() }, "its announcement stays here");
    let hear = |w: &mut World, f: Bytes| w.frame(0, P1, mac(1), Some(f));
    // For a remote host, by ARP and ND: the kernel answers.
    hear(&mut w, arp(mac(1), ip(1), ip(2)));
    hear(&mut w, frame::neighbor_solicitation(mac(1), six(1), None, six(2)));
    // To its owner alone: none of those.
    hear(&mut w, frame::neighbor_solicitation(mac(1), six(1), Some(mac(2)), six(2)));
    // For nobody that is known.
    hear(&mut w, arp(mac(1), ip(1), ip(99)));
    // Duplicate checks.
    hear(&mut w, arp(mac(1), Ipv4Addr::UNSPECIFIED, ip(98)));
    hear(&mut w, frame::neighbor_solicitation(mac(1), Ipv6Addr::UNSPECIFIED, None, six(98)));
    let now = at(&mut w, 0, "p1");
    assert_eq!((now.answered, now.flooded, now.suppressed), (2, 1, 3), "{now:?}");
    assert_eq!(at(&mut w, 0, "p2"), PortHosts::default());
}

#[test]
fn where_nothing_is_flooded_nothing_is_counted_as_flooded() {
    let mut w = pair(Flooding::None);
    w.frame(0, P1, mac(1), Some(arp(mac(1), ip(1), ip(99))));
    let now = at(&mut w, 0, "p1");
    // Its own announcement; the question is carried or dropped, and that is counted elsewhere.
    assert_eq!((now.flooded, now.suppressed), (0, 1), "{now:?}");
}

#[test]
fn what_is_told_asked_and_refused_is_counted_at_its_port() {
    let mut w = pair(Flooding::Replicate);
    w.frame(0, P2, mac(3), Some(garp(mac(3), ip(3))));
    // Malformed, and with another sender than the frame's.
    w.input(0, Input::Frame { port: P2, bytes: garp(mac(3), ip(3)).slice(..30) });
    let mut odd = garp(mac(3), ip(3)).to_vec();
    odd[22..28].copy_from_slice(&mac(9).0);
    w.frame(0, P2, mac(3), Some(odd.into()));
    // The address of the remote host takes a new MAC: told at both ports. The silent ones are asked in time.
    w.frame(1, P1, mac(4), Some(garp(mac(4), ip(2))));
    w.run_for(Span::secs(300));
    let (one, two) = (at(&mut w, 0, "p1"), at(&mut w, 0, "p2"));
    assert_eq!((one.told, two.told), (4, 4));
    assert_eq!((one.refused, two.refused), (0, 2));
    assert_eq!((one.probed, two.probed), (3, 3), "three questions without an answer");
    // A port that goes takes its numbers along.
    w.kernel(0, evpn::fabric::KernelEvent::LinkGone(P2));
    assert_eq!(at(&mut w, 0, "p2"), PortHosts::default());
}
