//! What is dropped where it comes in, on the real kernel: tagged frames (PIT-10) and storms, each counted by its rule, and
//! nothing else.
#![allow(clippy::unwrap_used, reason = "test helpers may panic")]

mod common;

use common::*;
use evpn::node::{Outward, PortDrops, PortRules, Storm};
use evpn::types::IfIndex;
use netlink::linux::{IngressRules, Tap};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

const ALL: [u8; 6] = [0xff; 6];

/// Two ports of a bridge; a frame from the first one's guest arrives at the second one's, or not.
struct Net {
    guest: Tap,
    far: Tap,
}

impl Net {
    fn new() -> Self {
        port("p1");
        port("p2");
        ip("link add br0 type bridge mcast_snooping 0");
        quiet("br0");
        ip("link set p1 master br0");
        ip("link set p2 master br0");
        ip("link set br0 up");
        let mut new =
            Self { guest: Tap::open_all(index("p1g")).unwrap(), far: Tap::open_all(index("p2g")).unwrap() };
        let deadline = Instant::now() + Duration::from_secs(5);
        // Ports of a bridge forward a moment after they came up.
        while new.count(&[ether(ALL, [0x90, 0], &[0; 46])]) == 0 {
            assert!(Instant::now() < deadline, "the bridge does not forward");
        }
        new
    }

    /// How many of these arrive. A frame of a kind that no rule is about is the last one.
    fn count(&mut self, frames: &[Vec<u8>]) -> usize {
        let end = ether([2, 9, 9, 9, 9, 9], [0x90, 1], &[7; 46]);
        for f in frames.iter().chain([&end]) {
            self.guest.send(f).unwrap();
        }
        let deadline = Instant::now() + Duration::from_secs(2);
        let (mut n, mut buf) = (0, [0; 2048]);
        while Instant::now() < deadline {
            wait(&[self.far.as_raw_fd()], 20);
            while let Some(len) = self.far.recv(&mut buf).unwrap() {
                if buf[..len] == end[..] {
                    return n;
                }
                n += usize::from(frames.iter().any(|f| f[..] == buf[..len]));
            }
        }
        n
    }
}

fn ether(to: [u8; 6], kind: [u8; 2], rest: &[u8]) -> Vec<u8> {
    let mut f = [&to[..], &[2, 0, 0, 0, 0, 1], &kind, rest].concat();
    f.resize(f.len().max(60), 0);
    f
}

fn arp() -> Vec<u8> {
    ether(ALL, [0x08, 0x06], &[1; 28])
}

/// IPv6 with this next header and payload.
fn v6(next: u8, payload: &[u8]) -> Vec<u8> {
    let head = [&[0x60, 0, 0, 0, 0, payload.len() as u8, next, 255][..], &[0xfe; 32], payload].concat();
    ether([0x33, 0x33, 0, 0, 0, 1], [0x86, 0xdd], &head)
}

fn icmp6(kind: u8) -> Vec<u8> {
    v6(58, &[kind, 0, 0, 0, 0, 0, 0, 0])
}

fn mld() -> Vec<u8> {
    v6(0, &[58, 0, 5, 2, 0, 0, 1, 0, 143, 0, 0, 0, 0, 0, 0, 0])
}

fn v4(to: [u8; 6], protocol: u8) -> Vec<u8> {
    let mut head = [0x45, 0, 0, 46, 0, 0, 0, 0, 1, protocol, 0, 0, 10, 0, 0, 1, 224, 0, 0, 5];
    // Where `br_netfilter` looks, a header has to be right, and padding is cut off.
    let sum: u32 = head.chunks(2).map(|c| u32::from(c[0]) << 8 | u32::from(c[1])).sum();
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    head[10..12].copy_from_slice(&sum.to_be_bytes());
    let head = [&head[..], &[0; 26]].concat();
    ether(to, [0x08, 0x00], &head)
}

fn tagged(tpid: [u8; 2], tci: [u8; 2]) -> Vec<u8> {
    let untagged = arp();
    [&untagged[..12], &tpid, &tci, &untagged[12..]].concat()
}

fn rules(tagged: bool, arp: u32, nd: u32, broadcast: u32, multicast: u32) -> PortRules {
    PortRules { tagged, storm: Storm { arp, nd, broadcast, multicast }, ..PortRules::default() }
}

fn set(r: &mut IngressRules, port: IfIndex, device: &str, rules: PortRules) {
    for (_, done) in r.set(&[(port, device.to_owned(), rules)]) {
        done.unwrap();
    }
}

#[test]
fn tagged_frames_are_dropped_and_counted_and_padded_ones_are_not() {
    in_netns(|| {
        let mut net = Net::new();
        let p1 = index("p1");
        let mut r = IngressRules::install().unwrap();
        let tags = [tagged([0x81, 0], [0, 5]), tagged([0x81, 0], [0xe0, 0]), tagged([0x88, 0xa8], [0, 5])];
        assert_eq!(net.count(&tags), 3, "no rules yet");
        set(&mut r, p1, "p1", rules(true, 0, 0, 0, 0));
        assert_eq!(net.count(&tags), 0);
        let mut padded = arp();
        padded.resize(1400, 0);
        assert_eq!(net.count(&[arp(), padded, icmp6(135), mld(), v4(ALL, 17)]), 5);
        assert_eq!(r.drops().unwrap()[&p1], PortDrops { tagged: 3, ..PortDrops::default() });
        assert!(IngressRules::install().is_err(), "one table per namespace");
        // On the other device nothing is dropped.
        set(&mut r, p1, "p1", PortRules::default());
        assert!(r.is_empty());
        assert_eq!(net.count(&tags), 3);
        set(&mut r, p1, "p1", rules(true, 0, 0, 0, 0));
        assert_eq!((net.count(&tags), r.drops().unwrap()[&p1].tagged), (0, 3), "counted anew");
        drop(r);
        assert_eq!(net.count(&tags), 3, "the rules go with their owner");
    });
}

#[test]
fn each_kind_has_a_rate_of_its_own_and_igmp_and_mld_have_none() {
    in_netns(|| {
        let mut net = Net::new();
        let p1 = index("p1");
        let mut r = IngressRules::install().unwrap();
        // So slow that none is allowed again while the test sends.
        set(&mut r, p1, "p1", rules(true, 2, 3, 4, 5));
        let mut expected = PortDrops::default();
        let rarp = ether(ALL, [0x80, 0x35], &[2; 28]);
        let burst = |f: &[Vec<u8>]| f.iter().cycle().take(200).cloned().collect::<Vec<_>>();
        let begun = Instant::now();
        let check = |net: &mut Net, frames: &[Vec<u8>], rate: usize| {
            let passed = net.count(&burst(frames));
            let most = rate + (begun.elapsed().as_secs_f64() * rate as f64) as usize + 1;
            assert!((1..=most).contains(&passed), "{passed} of at most {most} passed");
            200 - passed as u64
        };
        expected.arp = check(&mut net, &[arp(), rarp], 2);
        expected.nd = check(&mut net, &[icmp6(133), icmp6(134), icmp6(135), icmp6(136), icmp6(137)], 3);
        expected.broadcast = check(&mut net, &[v4(ALL, 17), ether(ALL, [0x90, 3], &[0; 46])], 4);
        let group = [1, 0, 0x5e, 0, 0, 5];
        expected.multicast = check(&mut net, &[v4(group, 17), icmp6(128), icmp6(138)], 5);
        assert_eq!(r.drops().unwrap()[&p1], expected);
        assert_eq!(net.count(&burst(&[v4(group, 2), mld()])), 200, "IGMP and MLD");
        let unicast = v4([2, 0, 0, 0, 0, 9], 17);
        assert_eq!(net.count(&burst(&[unicast])), 200);
        assert_eq!(r.drops().unwrap()[&p1], expected);
    });
}

#[test]
fn one_limit_leaves_all_other_kinds_alone() {
    in_netns(|| {
        let mut net = Net::new();
        let p1 = index("p1");
        let mut r = IngressRules::install().unwrap();
        let kinds = [arp(), icmp6(135), v4(ALL, 17), v4([1, 0, 0x5e, 0, 0, 5], 17)];
        for i in 0..4 {
            let rate = |n: usize| u32::from(n == i);
            set(&mut r, p1, "p1", rules(false, rate(0), rate(1), rate(2), rate(3)));
            for (n, frame) in kinds.iter().enumerate() {
                let frames = vec![frame.clone(); 50];
                let passed = net.count(&frames);
                assert_eq!(passed < 10, n == i, "limit {i}, kind {n}: {passed} of 50 passed");
            }
            let named = r.drops().unwrap()[&p1].named();
            assert!(named.iter().enumerate().all(|(n, d)| (d.1 > 0) == (n == i + 1)), "{named:?}");
        }
    });
}

/// What goes out of one device is not what goes out of another (PIT-19, PROXY-FLOOD-01).
#[test]
fn what_does_not_go_out_is_counted_and_the_rest_goes() {
    in_netns(|| {
        let mut net = Net::new();
        let p2 = index("p2");
        let mut r = IngressRules::install().unwrap();
        let mut request = arp();
        request[14..22].copy_from_slice(&[0, 1, 8, 0, 6, 4, 0, 1]);
        let mut reply = request.clone();
        reply[21] = 2;
        let unicast = |f: &[u8]| [&[2, 0, 0, 0, 0, 9][..], &f[6..]].concat();
        let asks = [request.clone(), icmp6(135)];
        let groups = [reply.clone(), icmp6(136), v4(ALL, 17), mld()];
        let singles = [unicast(&request), unicast(&icmp6(135)), v4([2, 0, 0, 0, 0, 9], 17)];
        let out = |r: &mut IngressRules, outward, net: &mut Net| {
            set(r, p2, "p2", PortRules { outward, ..PortRules::default() });
            [&asks[..], &groups, &singles].map(|f| net.count(f))
        };
        assert_eq!(out(&mut r, Outward::NoQuestions, &mut net), [0, 4, 3]);
        assert_eq!(r.drops().unwrap()[&p2], PortDrops { flooded: 2, ..PortDrops::default() });
        assert_eq!(out(&mut r, Outward::NoGroups, &mut net), [0, 0, 3]);
        assert_eq!(r.drops().unwrap()[&p2], PortDrops { flooded: 6, ..PortDrops::default() });
        assert_eq!(out(&mut r, Outward::All, &mut net), [2, 4, 3]);
        assert!(r.is_empty());
    });
}

/// Devices come and go: one that is not there keeps no other from its rules, and one that comes again can have some.
#[test]
fn a_device_that_is_not_there_is_refused_alone() {
    in_netns(|| {
        let mut net = Net::new();
        let p1 = index("p1");
        let mut r = IngressRules::install().unwrap();
        let tag = [tagged([0x81, 0], [0, 5])];
        let want = |port, device: &str| (port, device.to_owned(), rules(true, 0, 0, 0, 0));
        let ended = r.set(&[want(IfIndex(999), "no-such-device"), want(p1, "p1")]);
        assert!(ended[1].1.is_ok(), "{ended:?}");
        assert_eq!(net.count(&tag), 0);
        ip("link del p1");
        port("p1");
        ip("link set p1 master br0");
        net.guest = Tap::open_all(index("p1g")).unwrap();
        let new = index("p1");
        set(&mut r, p1, "", PortRules::default());
        let deadline = Instant::now() + Duration::from_secs(5);
        while net.count(&tag) != 1 {
            assert!(Instant::now() < deadline, "the new port has the old one's rules");
        }
        set(&mut r, new, "p1", rules(true, 0, 0, 0, 0));
        assert_eq!((net.count(&tag), r.drops().unwrap()[&new].tagged), (0, 1));
    });
}
