//! Solicitations with options that the kernel does not know: what a node makes of them, by policy (PROXY-REPLY-08, PROXY-FWD-01).
#![allow(clippy::unwrap_used, reason = "tests may panic")]

mod world;

use bytes::Bytes;
use evpn::node::{Config, Flooding, Gateway, GatewayAddress, Unasked, Unknown, UnknownOptions};
use evpn::types::{Mac, Span};
use evpn::wire::frame;
use std::net::{IpAddr, Ipv6Addr};
use world::{P1, P2, VXLAN, World, mac, vtep};

fn six(n: u16) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, n)
}

fn gateway() -> Mac {
    Mac([0, 0, 0x5e, 0, 1, 1])
}

/// Host 1 behind node 0, host 2 behind node 1, host 3 behind the other port of node 0.
fn world_with(tweak: impl Fn(&mut Config)) -> World {
    let mut w = World::with(3, Span::millis(1), tweak);
    w.run_for(Span::secs(10));
    for (i, port, n) in [(0, P1, 1), (1, P1, 2), (0, P2, 3)] {
        let na = frame::unsolicited_advertisement(mac(n), six(n.into()), None, false);
        w.frame(i, port, mac(n), Some(na));
    }
    w.run_for(Span::secs(5));
    w.hosts[0].emitted.clear();
    w.hosts[0].encapsulated.clear();
    w
}

fn policy(options: UnknownOptions) -> World {
    world_with(|c| c.vnis[0].hosts.unknown_options = options)
}

/// Host 1 asks; the options of its question are these.
fn question(target: u16, options: &[u8]) -> Bytes {
    let plain = frame::neighbor_solicitation(mac(1), six(1), None, six(target));
    let mut f = plain[..78].to_vec();
    f.extend(options);
    f[18..20].copy_from_slice(&(24 + options.len() as u16).to_be_bytes());
    f[56..58].fill(0);
    let words = |b: &[u8]| -> u32 {
        b.chunks(2).map(|w| u32::from(w[0]) << 8 | w.get(1).map_or(0, |b| u32::from(*b))).sum()
    };
    let mut sum = words(&f[22..54]) + (f.len() as u32 - 54) + 58 + words(&f[54..]);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    f[56..58].copy_from_slice(&(!(sum as u16)).to_be_bytes());
    f.into()
}

/// The link-layer address and a timestamp of SEND's (RFC 3971 §5.3.1).
fn odd(target: u16) -> Bytes {
    let own = [&[1, 1][..], &mac(1).0].concat();
    question(target, &[&own[..], &[13, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7]].concat())
}

/// Frames, each with where it went.
type Sent<T> = Vec<(T, Bytes)>;

/// What has left node 0 in consequence: by port and by VTEP.
fn sent(w: &mut World, f: &Bytes) -> (Sent<u32>, Sent<IpAddr>) {
    w.hosts[0].emitted.clear();
    w.hosts[0].encapsulated.clear();
    w.frame(0, P1, mac(1), Some(f.clone()));
    let same = |g: &Bytes| g[12..] == f[12..];
    let out = w.hosts[0].emitted.iter().filter(|(_, g)| same(g)).map(|(p, g)| (p.0, g.clone())).collect();
    (out, w.hosts[0].encapsulated.iter().filter(|(_, g)| same(g)).cloned().collect())
}

#[test]
fn they_go_to_everybody_as_if_nobody_were_known_unless_something_else_is_wished() {
    let f = odd(2);
    let mut w = policy(UnknownOptions::Replicate);
    assert_eq!(sent(&mut w, &f), (vec![(P2.0, f.clone())], vec![(vtep(1), f.clone()), (vtep(2), f.clone())]));
    let mut w = policy(UnknownOptions::Unicast);
    assert_eq!(sent(&mut w, &f), (vec![], vec![(vtep(1), frame::readdressed(&f, mac(2)).unwrap())]));
    // A host of ours, and one that nobody knows.
    assert_eq!(sent(&mut w, &odd(3)), (vec![(P2.0, odd(3))], vec![]));
    let unknown = odd(77);
    let all = vec![(vtep(1), unknown.clone()), (vtep(2), unknown.clone())];
    assert_eq!(sent(&mut w, &unknown), (vec![(P2.0, unknown.clone())], all));
    let mut w = policy(UnknownOptions::Drop);
    assert_eq!(sent(&mut w, &f), (vec![], vec![]));
    assert_eq!(w.status(0).counters["odd_questions_dropped"], 1);
    let mut w = policy(UnknownOptions::Reply);
    assert_eq!(sent(&mut w, &f), (vec![], vec![]));
    assert_eq!(w.hosts[0].rules[&P1].unasked, Unasked::Odd);
}

#[test]
fn they_go_to_the_owner_alone_where_questions_for_all_do_not_cross() {
    for tweak in [(|c: &mut Config| c.vnis[0].hosts.unknown = Unknown::Unicast) as fn(&mut Config), |c| {
        c.vnis[0].flooding = Flooding::None;
    }] {
        let mut w = world_with(tweak);
        let to_owner = frame::readdressed(&odd(2), mac(2)).unwrap();
        assert_eq!(sent(&mut w, &odd(2)), (vec![], vec![(vtep(1), to_owner)]));
        assert_eq!(sent(&mut w, &odd(77)), (vec![(P2.0, odd(77))], vec![]));
    }
}

/// Nothing of this is about other questions: the kernel has those.
#[test]
fn other_questions_are_left_to_the_bridge() {
    let own = [&[1, 1][..], &mac(1).0].concat();
    let mut w = policy(UnknownOptions::Replicate);
    for options in [&own[..], &[]] {
        assert_eq!(sent(&mut w, &question(2, options)), (vec![], vec![]));
    }
    let to_one = frame::readdressed(&odd(2), mac(2)).unwrap();
    assert_eq!(sent(&mut w, &to_one), (vec![], vec![]));
    for options in [&[14, 1, 1, 2, 3, 4, 5, 6][..], &[1, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]] {
        assert!(frame::has_unknown_options(&question(2, options)));
    }
    // Without suppression the kernel answers nobody.
    let mut w = world_with(|c| c.vnis[0].arp_suppression = false);
    assert_eq!(sent(&mut w, &odd(2)), (vec![], vec![]));
    assert_eq!(w.hosts[0].rules.get(&P1).map(|r| r.unasked).unwrap_or_default(), Unasked::None);
    assert_eq!(w.hosts[0].rules[&VXLAN].unasked, Unasked::None);
}

/// The bridge has not heard the question for its own address, and has it all the same.
#[test]
fn for_our_own_gateway_we_answer() {
    let mut w = world_with(|c| {
        let addresses = vec![GatewayAddress::new(six(0xff).into(), 64).unwrap()];
        c.vnis[0].hosts.gateway = Some(Gateway { addresses, mac: gateway(), ra: false });
    });
    assert_eq!(sent(&mut w, &odd(0xff)), (vec![], vec![]));
    let answer = frame::neighbor_advertisement(gateway(), six(0xff), Some((mac(1), six(1))), true, true);
    assert!(w.hosts[0].emitted.contains(&(P1, answer)), "{:?}", w.hosts[0].emitted);
}

/// PIT-07: what the bridge would not let in is not carried past it. And a port has its rate.
#[test]
fn a_mac_that_is_elsewhere_and_a_port_that_asks_without_end_are_not_carried() {
    let mut w = policy(UnknownOptions::Replicate);
    w.hosts[1].emitted.clear();
    let f = odd(3);
    w.input(1, evpn::node::Input::Frame { port: P1, bytes: f.clone() });
    assert!(!w.hosts[1].emitted.iter().any(|(_, g)| *g == f), "host 1 is behind node 0");
    // A stranger at a locked port.
    let mut locked = policy(UnknownOptions::Replicate);
    locked.port_with(1, P1, |p| p.locked = true);
    locked.hosts[1].emitted.clear();
    let mut stranger = f.to_vec();
    stranger[11] = 9;
    locked.input(1, evpn::node::Input::Frame { port: P1, bytes: stranger.into() });
    assert!(!locked.hosts[1].emitted.iter().any(|(_, g)| g[12..] == f[12..]));
    assert_eq!(locked.status(1).counters["carried_not_let_in"], 1);
    let carried = (0..400).filter(|_| !sent(&mut w, &odd(2)).0.is_empty()).count();
    assert!((190..=201).contains(&carried), "{carried} of 400 at once");
}
