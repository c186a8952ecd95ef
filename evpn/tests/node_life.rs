//! Signs of life that bind nothing by themselves, and guests that check their own address.
#![allow(clippy::unwrap_used, reason = "tests may panic")]

mod world;

use bytes::Bytes;
use evpn::fabric::{KernelEvent, Link, LinkKind, PortFlags};
use evpn::node::{Gateway, GatewayAddress, MoveStep};
use evpn::types::{IfIndex, Mac, Span};
use evpn::wire::frame::{self, Body};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use world::frames::{arp, garp, rarp};
use world::{BRIDGE, Guest, P1, P2, World, mac, own_mac, probe_mac};

const MS: Span = Span::millis(1);
const GATEWAY: Mac = Mac([0, 0, 0x5e, 0, 1, 1]);
const NOBODY: Ipv4Addr = Ipv4Addr::UNSPECIFIED;

fn ip(n: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 1, 0, n)
}

fn ip6(n: u16) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, n)
}

fn known(w: &World, i: usize, a: impl Into<IpAddr>) -> bool {
    w.neigh_row(i, a.into()).is_some()
}

/// Questions put so far: port, MAC, sender, target.
fn asked(w: &World) -> Vec<(IfIndex, Mac, IpAddr, IpAddr)> {
    let of = |(port, f): &(IfIndex, Bytes)| {
        let f = frame::parse(f).unwrap();
        match f.body {
            Body::Arp(a) if !a.reply && !a.is_gratuitous() => {
                // Hosts update what they hold from the sender: in the gateway's name it is the gateway's MAC.
                let own = if a.sender_ip == NOBODY { probe_mac(0) } else { GATEWAY };
                assert_eq!((f.src, a.sender_mac), (own, own));
                Some((*port, f.dst, a.sender_ip.into(), a.target_ip.into()))
            }
            Body::NeighborSolicitation(n) => Some((*port, f.dst, n.src.into(), n.target.into())),
            _ => None,
        }
    };
    w.hosts[0].emitted.iter().filter_map(of).collect()
}

fn question(m: Mac, sender: Ipv4Addr, target: Ipv4Addr) -> (IfIndex, Mac, IpAddr, IpAddr) {
    (P1, m, sender.into(), target.into())
}

fn counter(w: &mut World, name: &str) -> u64 {
    w.status(0).counters.get(name).copied().unwrap_or(0)
}

fn with_gateway() -> World {
    let mut w = World::with(2, MS, |c| {
        let addresses = vec![GatewayAddress::new(ip(254).into(), 24).unwrap()];
        c.vnis[0].hosts.gateway = Some(Gateway { addresses, mac: GATEWAY, ra: false });
    });
    w.run_for(Span::secs(10));
    w
}

/// HOST-ARP-01, PIT-16: nothing is bound by a probe; the host is asked when its check is over, and its answer binds.
#[test]
fn a_host_that_probes_and_announces_nothing_is_asked_when_its_check_is_over() {
    let mut w = World::converged(2, MS);
    w.guests.push(Guest { node: 0, port: P1, mac: mac(1), ip: ip(1) });
    for _ in 0..3 {
        w.frame(0, P1, mac(1), Some(arp(mac(1), NOBODY, ip(1))));
        w.run_for(Span::secs(1));
    }
    w.run_for(Span::millis(8900));
    assert_eq!(asked(&w), [], "not within ten seconds of its last probe");
    assert!(!known(&w, 1, ip(1)));
    w.run_for(Span::millis(200));
    assert_eq!(asked(&w), [question(mac(1), NOBODY, ip(1))]);
    assert!(known(&w, 1, ip(1)));
}

/// PIT-16, PROXY-MAINT-02: a guest that checks for ever is left in peace for ever, and keeps what it has.
#[test]
fn a_host_that_probes_all_the_time_is_never_asked_without_a_sender() {
    let mut w = World::converged(2, MS);
    w.frame(0, P1, mac(1), Some(garp(mac(1), ip(1))));
    for _ in 0..200 {
        w.run_for(Span::secs(2));
        w.frame(0, P1, mac(1), Some(arp(mac(1), NOBODY, ip(1))));
    }
    assert_eq!(asked(&w), []);
    assert!(known(&w, 1, ip(1)));
}

/// With a gateway there is a sender that disturbs nobody's check.
#[test]
fn with_a_gateway_a_young_host_is_asked_in_its_name() {
    let mut w = with_gateway();
    w.guests.push(Guest { node: 0, port: P1, mac: mac(1), ip: ip(1) });
    w.frame(0, P1, mac(2), Some(arp(mac(2), NOBODY, ip(2))));
    w.frame(0, P2, mac(9), Some(garp(mac(9), ip(9))));
    w.frame(0, P1, mac(1), Some(lease(5, mac(9), mac(1), ip(1))));
    w.run_for(Span::millis(100));
    w.frame(0, P1, mac(1), None);
    w.frame(0, P2, mac(9), Some(lease(5, mac(9), mac(1), ip(1))));
    w.run_for(Span::secs(2));
    assert_eq!(asked(&w), [question(mac(1), ip(254), ip(1))]);
    assert!(known(&w, 1, ip(1)));
}

/// DHCPv4 of a client or to it; only what the parser looks at.
fn lease(kind: u8, from: Mac, client: Mac, a: Ipv4Addr) -> Bytes {
    let of_client = kind == 3;
    let mut m = vec![0u8; 236];
    m[..3].copy_from_slice(&[if of_client { 1 } else { 2 }, 1, 6]);
    if !of_client {
        m[16..20].copy_from_slice(&a.octets());
    }
    m[28..34].copy_from_slice(&client.0);
    m.extend([0x63, 0x82, 0x53, 0x63, 53, 1, kind]);
    if of_client {
        m.extend([50, 4]);
        m.extend(a.octets());
    }
    m.push(255);
    let (sport, dport) = if of_client { (68u16, 67u16) } else { (67, 68) };
    let len = (m.len() + 8) as u16;
    let mut ip = vec![0x45, 0];
    ip.extend((len + 20).to_be_bytes());
    ip.extend([0, 0, 0, 0, 64, 17, 0, 0, 10, 1, 0, 9, 255, 255, 255, 255]);
    let mut sum: u32 = ip.chunks(2).map(|w| u32::from(w[0]) << 8 | u32::from(w[1])).sum();
    sum = (sum & 0xffff) + (sum >> 16);
    ip[10..12].copy_from_slice(&(!(sum as u16)).to_be_bytes());
    let mut f = vec![0xff; 6];
    f.extend(from.0);
    f.extend([8, 0]);
    f.extend(ip);
    for w in [sport, dport, len, 0] {
        f.extend(w.to_be_bytes());
    }
    f.extend(m);
    Bytes::from(f)
}

/// The ACK is seen on the server's port; the client, which says nothing, is asked on its own.
#[test]
fn a_lease_seen_at_the_server_has_its_client_asked() {
    let mut w = World::converged(2, MS);
    w.guests.push(Guest { node: 0, port: P1, mac: mac(1), ip: ip(1) });
    w.frame(0, P2, mac(9), Some(garp(mac(9), ip(9))));
    w.frame(0, P1, mac(1), Some(lease(1, mac(1), mac(1), NOBODY)));
    w.run_for(Span::millis(10));
    w.frame(0, P2, mac(9), Some(lease(5, mac(9), mac(1), ip(1))));
    w.run_for(Span::millis(9900));
    assert_eq!(asked(&w), [], "it may check what it was given (PIT-16)");
    w.run_for(Span::millis(200));
    assert_eq!(asked(&w), [question(mac(1), NOBODY, ip(1))]);
    assert!(known(&w, 1, ip(1)));
    // A client elsewhere is not ours to ask, nor is one whose lease says nothing new.
    w.frame(0, P2, mac(9), Some(lease(5, mac(9), mac(5), ip(5))));
    w.frame(0, P2, mac(9), Some(lease(5, mac(9), mac(1), ip(1))));
    w.run_for(Span::secs(20));
    assert_eq!(asked(&w).len(), 1);
}

/// The server is behind another VTEP: the client's request names the address.
#[test]
fn a_client_of_a_remote_server_is_asked_for_what_it_requests() {
    let mut w = World::converged(2, MS);
    w.guests.push(Guest { node: 0, port: P1, mac: mac(1), ip: ip(1) });
    w.frame(0, P1, mac(1), Some(lease(3, mac(1), mac(1), ip(1))));
    assert!(!known(&w, 1, ip(1)), "no frame of DHCP binds");
    w.run_for(Span::secs(11));
    assert_eq!(asked(&w), [question(mac(1), NOBODY, ip(1))]);
    assert!(known(&w, 1, ip(1)));
    // Somebody else's client in its own name: no sign of that one.
    w.frame(0, P1, mac(2), Some(lease(3, mac(2), mac(3), ip(3))));
    w.run_for(Span::secs(20));
    assert_eq!(asked(&w).len(), 1);
}

/// The NA of a host to a question of ours.
fn answer6(m: Mac, a: Ipv6Addr) -> Bytes {
    let to = probe_mac(0);
    let [x, y, z, p, q, r] = to.0;
    let w = |h: u8, l: u8| u16::from_be_bytes([h, l]);
    let ours = Ipv6Addr::new(0xfe80, 0, 0, 0, w(x ^ 2, y), w(z, 0xff), w(0xfe, p), w(q, r));
    frame::neighbor_advertisement(m, a, Some((to, ours)), false, true)
}

/// PROXY-LEARN-02: an NS binds nothing; its sender is asked at once, and once.
#[test]
fn the_sender_of_a_solicitation_is_asked_and_bound_by_its_answer() {
    let mut w = World::converged(2, MS);
    let ns = || frame::neighbor_solicitation(mac(1), ip6(1), None, ip6(2));
    w.frame(0, P1, mac(1), Some(ns()));
    w.run_for(Span::millis(10));
    assert!(!known(&w, 1, ip6(1)));
    let q = asked(&w);
    assert_eq!((q.len(), q[0].0, q[0].1, q[0].3), (1, P1, mac(1), ip6(1).into()));
    w.frame(0, P1, mac(1), Some(answer6(mac(1), ip6(1))));
    w.run_for(Span::millis(10));
    assert!(known(&w, 1, ip6(1)));
    w.frame(0, P1, mac(1), Some(ns()));
    w.run_for(Span::secs(5));
    assert_eq!(asked(&w).len(), 1);
    // Whoever does not answer is asked three times.
    w.frame(0, P1, mac(2), Some(frame::neighbor_solicitation(mac(2), ip6(3), None, ip6(2))));
    w.run_for(Span::secs(30));
    assert_eq!(asked(&w).len(), 4);
    assert!(!known(&w, 1, ip6(3)));
    assert_eq!(counter(&mut w, "signs_unanswered"), 1);
}

/// HOST-DAD-01: the same for an address under its check, when that is over.
#[test]
fn a_duplicate_check_has_the_host_asked_afterwards() {
    let mut w = World::converged(2, MS);
    let dad = frame::neighbor_solicitation(mac(1), Ipv6Addr::UNSPECIFIED, None, ip6(1));
    w.frame(0, P1, mac(1), Some(dad));
    w.run_for(Span::millis(1100));
    assert_eq!(asked(&w), []);
    assert!(!known(&w, 1, ip6(1)));
    w.run_for(Span::millis(200));
    let q = asked(&w);
    assert_eq!((q.len(), q[0].1, q[0].3), (1, mac(1), ip6(1).into()));
    w.frame(0, P1, mac(1), Some(answer6(mac(1), ip6(1))));
    w.run_for(Span::millis(10));
    assert!(known(&w, 1, ip6(1)));
}

/// Who has answered wants to know that we are there; otherwise it would ask all hosts for us.
#[test]
fn a_host_that_looks_for_the_prober_finds_it() {
    let mut w = World::converged(2, MS);
    w.frame(0, P1, mac(1), Some(frame::neighbor_solicitation(mac(1), ip6(1), None, ip6(2))));
    w.run_for(Span::millis(10));
    let IpAddr::V6(ours) = asked(&w)[0].2 else { panic!("IPv6") };
    w.frame(0, P1, mac(1), Some(frame::neighbor_solicitation(mac(1), ip6(1), Some(probe_mac(0)), ours)));
    let (port, f) = w.hosts[0].emitted.last().unwrap().clone();
    let f = frame::parse(&f).unwrap();
    let Body::NeighborAdvertisement(na) = f.body else { panic!("{f:?}") };
    assert_eq!((port, f.dst, na.target, na.tlla, na.dst), (P1, mac(1), ours, Some(probe_mac(0)), ip6(1)));
}

/// HOST-RARP-02: no address is learned from it, those that are known are asked for.
#[test]
fn a_rarp_has_the_known_addresses_of_its_mac_asked_for() {
    let mut w = World::converged(2, MS);
    w.frame(0, P1, mac(1), Some(garp(mac(1), ip(1))));
    w.run_for(Span::secs(20));
    w.frame(0, P1, mac(1), Some(rarp(mac(1))));
    w.frame(0, P1, mac(2), Some(rarp(mac(2))));
    w.run_for(Span::millis(10));
    assert_eq!(asked(&w), [question(mac(1), NOBODY, ip(1))], "at once, whatever its port has done");
    // Five of them in half a second are one sign.
    for _ in 0..4 {
        w.frame(0, P1, mac(1), Some(rarp(mac(1))));
        w.run_for(Span::millis(100));
    }
    assert_eq!(asked(&w).len(), 1);
}

fn port(up: bool) -> KernelEvent {
    let flags = PortFlags { learning: true, flood: true, forwarding: true, ..PortFlags::default() };
    KernelEvent::Link(Link {
        index: P1,
        name: "p1".into(),
        mac: own_mac(0),
        mtu: 1450,
        up: true,
        carrier: up,
        master: Some(BRIDGE),
        kind: LinkKind::Other("veth".into()),
        port: Some(flags),
    })
}

fn flap(w: &mut World) {
    w.kernel(0, port(false));
    w.forget(0, mac(1));
    w.run_for(Span::secs(1));
    assert!(!known(w, 1, ip(1)));
    w.kernel(0, port(true));
}

/// A port that was down for a moment: who was behind it is asked, with a gateway at once, else when it has had the time to
/// check its address, also one that had announced itself shortly before that (PIT-16).
#[test]
fn silent_hosts_behind_a_port_that_flapped_are_found_again() {
    for (gateway, heard) in [(true, 20), (false, 20), (true, 3), (false, 3)] {
        let mut w = if gateway { with_gateway() } else { World::converged(2, MS) };
        w.guests.push(Guest { node: 0, port: P1, mac: mac(1), ip: ip(1) });
        w.frame(0, P1, mac(1), Some(garp(mac(1), ip(1))));
        w.run_for(Span::secs(heard));
        flap(&mut w);
        w.run_for(Span::millis(50));
        assert_eq!(known(&w, 1, ip(1)), gateway, "heard {heard} s before");
        w.run_for(Span::secs(10));
        assert!(known(&w, 1, ip(1)), "gateway {gateway}, heard {heard} s before");
        let sender = if gateway { ip(254) } else { NOBODY };
        assert_eq!(asked(&w), [question(mac(1), sender, ip(1))]);
    }
}

/// A host that names addresses without end is asked for a few of them.
#[test]
fn signs_without_end_are_bounded() {
    let mut w = World::converged(2, MS);
    for n in 0..500 {
        w.frame(0, P1, mac(1), Some(frame::neighbor_solicitation(mac(1), ip6(n + 1), None, ip6(0xffff))));
        w.run_for(MS);
    }
    assert!(asked(&w).len() <= 8, "{}", asked(&w).len());
    assert!(counter(&mut w, "questions_refused") >= 490);
    // Another one is asked nevertheless.
    w.frame(0, P1, mac(2), Some(frame::neighbor_solicitation(mac(2), ip6(0x7777), None, ip6(0xffff))));
    w.run_for(MS);
    assert_eq!(asked(&w).last().unwrap().1, mac(2));
}

/// Ignored, counted, never learned.
#[test]
fn senders_that_nobody_can_be_are_counted_by_reason() {
    let mut w = World::converged(2, MS);
    w.frame(0, P1, mac(1), Some(garp(mac(1), ip(1))));
    for bad in [Ipv4Addr::new(224, 0, 0, 1), Ipv4Addr::BROADCAST, Ipv4Addr::LOCALHOST] {
        w.frame(0, P1, mac(1), Some(arp(mac(1), bad, ip(7))));
    }
    // The address of the VTEP itself; and a sender in the packet that is not the frame's.
    w.frame(0, P1, mac(1), Some(garp(mac(1), Ipv4Addr::new(10, 255, 0, 1))));
    let mut lie = garp(mac(1), ip(8)).to_vec();
    lie[22..28].copy_from_slice(&mac(8).0);
    w.frame(0, P1, mac(1), Some(Bytes::from(lie)));
    w.frame(0, P1, mac(1), Some(frame::neighbor_solicitation(mac(1), Ipv6Addr::LOCALHOST, None, ip6(1))));
    w.run_for(Span::secs(30));
    assert_eq!(w.macs(0)[0].ips, [IpAddr::from(ip(1))]);
    assert_eq!(asked(&w), []);
    let counters = w.status(0).counters;
    for (name, n) in [("arp-sender", 2), ("sender-address", 2), ("own-address", 1), ("sender-mac", 1)] {
        assert_eq!(counters.get(&format!("frames_refused_{name}")), Some(&n), "{name} in {counters:?}");
    }
}

/// RFC 4861 §7.2.4, PROXY-LEARN-06, PROXY-DUP-06: an answer without O and with a link-layer address is that of an anycast address; a
/// brief one, as most stacks answer a unicast question, has neither.
#[test]
fn an_answer_for_an_anycast_address_binds_nothing_and_a_brief_one_does() {
    for (brief, binds) in [(false, false), (true, true)] {
        let mut w = World::converged(2, MS);
        w.frame(0, P1, mac(1), Some(frame::neighbor_solicitation(mac(1), ip6(1), None, ip6(2))));
        w.run_for(Span::millis(10));
        let IpAddr::V6(ours) = asked(&w)[0].2 else { panic!("IPv6") };
        let answer = na_to(probe_mac(0), ours, mac(1), ip6(1), brief);
        w.frame(0, P1, mac(1), Some(answer));
        w.run_for(Span::millis(10));
        assert_eq!(known(&w, 1, ip6(1)), binds, "brief: {brief}");
    }
}

/// Octet by octet: solicited, without O; with the link-layer address unless it is brief.
fn na_to(to: Mac, to_ip: Ipv6Addr, m: Mac, a: Ipv6Addr, brief: bool) -> Bytes {
    let mut icmp = [&[136, 0, 0, 0, 0x40, 0, 0, 0][..], &a.octets()].concat();
    if !brief {
        icmp.extend([&[2, 1][..], &m.0].concat());
    }
    let len = icmp.len() as u32;
    let pseudo = [&a.octets()[..], &to_ip.octets(), &len.to_be_bytes(), &[0, 0, 0, 58], &icmp].concat();
    let sum: u32 = pseudo.chunks(2).map(|w| u32::from(w[0]) << 8 | u32::from(w[1])).sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    icmp[2..4].copy_from_slice(&(!((sum & 0xffff) + (sum >> 16)) as u16).to_be_bytes());
    let head = [&to.0[..], &m.0, &[0x86, 0xdd, 0x60, 0, 0, 0]].concat();
    Bytes::from(
        [&head[..], &(len as u16).to_be_bytes(), &[58, 255], &a.octets(), &to_ip.octets(), &icmp].concat(),
    )
}

/// Hosts ask for each other all the time: whose address is known and not old has its turn by `confirm-time`.
#[test]
fn a_host_that_asks_others_all_the_time_is_not_asked_each_time() {
    let mut w = World::converged(2, MS);
    let ns = || frame::neighbor_solicitation(mac(1), ip6(1), None, ip6(2));
    w.frame(0, P1, mac(1), Some(ns()));
    w.run_for(Span::millis(10));
    w.frame(0, P1, mac(1), Some(answer6(mac(1), ip6(1))));
    for _ in 0..10 {
        w.run_for(Span::secs(20));
        w.frame(0, P1, mac(1), Some(ns()));
    }
    assert_eq!(asked(&w).len(), 1);
    assert!(known(&w, 1, ip6(1)));
}

/// PIT-16: a guest that is cold-booted elsewhere while its old place still has its MAC checks its address with its first
/// frame, which is read before the row that it caused. It came along, is not asked without a sender while it is checked, and
/// is not given up for questions that nobody has put.
#[test]
fn a_moved_guest_in_its_check_is_left_in_peace_and_keeps_what_came_along() {
    let mut w = World::converged(2, MS);
    w.frame(1, P1, mac(1), Some(garp(mac(1), ip(1))));
    w.run_for(Span::secs(2));
    w.guests.push(Guest { node: 0, port: P1, mac: mac(1), ip: ip(1) });
    for _ in 0..3 {
        w.frame(0, P1, mac(1), Some(arp(mac(1), NOBODY, ip(1))));
        w.run_for(Span::secs(1));
    }
    for _ in 0..17 {
        assert_eq!(asked(&w), []);
        assert!(known(&w, 1, ip(1)), "it came along");
        w.run_for(Span::millis(500));
    }
    w.run_for(Span::secs(2));
    assert_eq!(asked(&w), [question(mac(1), NOBODY, ip(1))]);
    assert!(known(&w, 1, ip(1)));
    assert_eq!(counter(&mut w, "bindings_unanswered"), 0);
}

/// A MAC that goes to another port here is asked for its addresses at once; what it does not answer for is withdrawn.
#[test]
fn a_mac_behind_another_port_is_asked_for_its_addresses() {
    let mut w = World::converged(2, MS);
    w.frame(0, P1, mac(1), Some(garp(mac(1), ip(1))));
    w.frame(0, P1, mac(1), Some(garp(mac(1), ip(2))));
    w.run_for(Span::secs(20));
    w.guests.push(Guest { node: 0, port: P2, mac: mac(1), ip: ip(1) });
    w.frame(0, P2, mac(1), None);
    w.run_for(Span::millis(50));
    let q = |n| (P2, mac(1), IpAddr::V4(NOBODY), IpAddr::V4(ip(n)));
    assert_eq!(asked(&w), [q(1), q(2)]);
    w.run_for(Span::secs(4));
    assert_eq!(asked(&w)[2..], [q(2), q(2)]);
    assert_eq!((known(&w, 1, ip(1)), known(&w, 1, ip(2))), (true, false));
    // To and fro: not each time. Who says so by itself is not asked.
    for port in [P1, P2, P1, P2] {
        w.frame(0, port, mac(1), None);
        w.run_for(Span::millis(100));
    }
    w.run_for(Span::secs(20));
    let before = asked(&w).len();
    w.frame(0, P1, mac(1), Some(garp(mac(1), ip(1))));
    w.run_for(Span::secs(5));
    assert_eq!(asked(&w).len(), before);
    assert!(known(&w, 1, ip(1)));
}

/// A guest that its hypervisor moves to another port, or that is on its way out, does not answer: that says nothing.
#[test]
fn a_guest_that_stands_still_behind_its_new_port_loses_nothing() {
    for leaves in [true, false] {
        let mut w = World::converged(2, MS);
        w.frame(0, P1, mac(1), Some(garp(mac(1), ip(1))));
        w.run_for(Span::secs(20));
        if leaves {
            w.frame(0, P2, mac(1), None);
            w.step(0, mac(1), &[], MoveStep::Release { timeout: None });
        } else {
            w.step(0, mac(1), &[], MoveStep::Activate { port: Some("p2".into()), timeout: None });
        }
        w.run_for(Span::secs(30));
        assert_eq!(asked(&w), [], "leaves: {leaves}");
        assert!(known(&w, 1, ip(1)), "leaves: {leaves}");
    }
}
