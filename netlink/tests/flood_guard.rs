//! The filter of a port that makes MACs up, on the real kernel: known sources come in, others do not, and no other port
//! is touched.
#![allow(clippy::unwrap_used, reason = "test helpers may panic")]

mod common;

use common::*;
use evpn::node::MOST_ALLOWED;
use evpn::types::Mac;
use netlink::linux::{FloodGuard, Tap};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

fn arp(from: Mac, n: u8) -> Vec<u8> {
    let mut f = [&[0xff; 6][..], &from.0, &[0x08, 0x06], &[n; 28]].concat();
    f.resize(60, 0);
    f
}

/// Two ports of a bridge, what is said at their far ends, and what a third one hears.
struct Net {
    guests: [Tap; 2],
    far: Tap,
    number: u8,
}

impl Net {
    fn new() -> Self {
        for p in ["p1", "p2", "p3"] {
            port(p);
        }
        ip("link add br0 type bridge");
        quiet("br0");
        for p in ["p1", "p2", "p3"] {
            ip(&format!("link set {p} master br0"));
        }
        ip("link set br0 up");
        let guests = [Tap::open_all(index("p1g")).unwrap(), Tap::open_all(index("p2g")).unwrap()];
        let mut new = Self { guests, far: Tap::open(index("p3g")).unwrap(), number: 0 };
        // Ports of a bridge forward a moment after they came up.
        let deadline = Instant::now() + Duration::from_secs(5);
        while new.arrive(0, &[90]) != [true] || new.arrive(1, &[91]) != [true] {
            assert!(Instant::now() < deadline, "the bridge does not forward");
        }
        new
    }

    /// One frame of each MAC from a port; which of them arrive. A frame of the other port, which arrives always, is the
    /// last.
    fn arrive(&mut self, port: usize, macs: &[u32]) -> Vec<bool> {
        self.number += 1;
        let frames: Vec<_> = macs.iter().map(|m| arp(mac(*m), self.number)).collect();
        for f in &frames {
            self.guests[port].send(f).unwrap();
        }
        let deadline = Instant::now() + Duration::from_millis(300);
        let (mut seen, mut buf) = (vec![false; frames.len()], [0; 2048]);
        while Instant::now() < deadline && seen.contains(&false) {
            wait(&[self.far.as_raw_fd()], 20);
            while let Some(n) = self.far.recv(&mut buf).unwrap() {
                if let Some(i) = frames.iter().position(|f| *f == buf[..n]) {
                    seen[i] = true;
                }
            }
        }
        seen
    }
}

#[test]
fn a_guarded_port_lets_known_sources_in_and_no_other_port_is_touched() {
    in_netns(|| {
        let mut net = Net::new();
        let (p1, p2) = (index("p1"), index("p2"));
        let mut near = Tap::open(p1).unwrap();
        let mut g = FloodGuard::install().unwrap();
        assert_eq!(net.arrive(0, &[1, 2]), [true, true], "nothing is guarded yet");
        g.guard(p1, "p1", &[mac(1)]).unwrap();
        while near.recv(&mut [0; 2048]).unwrap().is_some() {}
        assert_eq!(net.arrive(0, &[1, 2, 3]), [true, false, false]);
        assert_eq!(net.arrive(1, &[1, 2, 3]), [true; 3], "the other port");
        assert_eq!((g.dropped(p1).unwrap(), g.dropped(p2).unwrap()), (2, 0));
        let (mut heard, mut buf) = (Vec::new(), [0; 2048]);
        while let Some(n) = near.recv(&mut buf).unwrap() {
            heard.push(Mac::from_slice(&buf[6..12]).unwrap());
            assert!(n >= 42);
        }
        assert!(heard.contains(&mac(2)), "the tap hears them all the same: {heard:?}");
        assert!(
            !bridge("fdb show br br0 brport p1").contains(&mac(2).to_string()),
            "they are not learned there"
        );
        g.allow(p1, &[mac(2), mac(1)], &[mac(1), mac(7)]).unwrap();
        assert_eq!(net.arrive(0, &[1, 2, 3]), [false, true, false]);
        // Both at a time, and the same one anew.
        g.guard(p2, "p2", &[]).unwrap();
        g.guard(p1, "p1", &[mac(3)]).unwrap();
        assert_eq!(net.arrive(0, &[1, 2, 3]), [false, false, true]);
        assert_eq!(net.arrive(1, &[1]), [false]);
        assert_eq!(g.ports().collect::<Vec<_>>(), [p1, p2]);
        assert!(FloodGuard::install().is_err(), "one filter per namespace");
        g.open(p1);
        assert_eq!((net.arrive(0, &[1, 2, 3]), net.arrive(1, &[1])), (vec![true; 3], vec![false]));
        drop(g);
        assert_eq!(net.arrive(1, &[1, 2]), [true, true], "the filter goes with its owner");
    });
}

/// As many MACs as are ever let in: written in pieces, and no more than that.
#[test]
fn a_full_filter_takes_what_it_holds_and_the_rest_is_left_out() {
    in_netns(|| {
        let mut net = Net::new();
        let p1 = index("p1");
        let mut g = FloodGuard::install().unwrap();
        let many: Vec<Mac> = (0..MOST_ALLOWED as u32 + 10).map(|n| mac(100_000 + n)).collect();
        let begun = Instant::now();
        g.guard(p1, "p1", &many).unwrap();
        println!("{MOST_ALLOWED} MACs written in {:?}", begun.elapsed());
        let last = 100_000 + MOST_ALLOWED as u32 - 1;
        assert_eq!(net.arrive(0, &[100_000, last, last + 1, 1]), [true, true, false, false]);
        g.allow(p1, &[mac(1)], &[]).unwrap();
        assert_eq!(net.arrive(0, &[1]), [false], "no room");
        g.allow(p1, &[mac(1)], &[mac(last)]).unwrap();
        assert_eq!(net.arrive(0, &[1, last]), [true, false]);
    });
}

/// The port goes while it is guarded, and one of that name comes: once the guard of the old one has ended, it is open, and
/// can be guarded. (Linux 6.16 and later give the old filter to a new device of the same name, others end it with the old.)
#[test]
fn a_port_that_goes_and_comes_again_is_open() {
    in_netns(|| {
        let mut net = Net::new();
        let p1 = index("p1");
        let mut g = FloodGuard::install().unwrap();
        g.guard(p1, "p1", &[]).unwrap();
        assert_eq!(net.arrive(0, &[1]), [false]);
        ip("link del p1");
        port("p1");
        ip("link set p1 master br0");
        net.guests[0] = Tap::open_all(index("p1g")).unwrap();
        g.open(p1);
        let deadline = Instant::now() + Duration::from_secs(5);
        while net.arrive(0, &[1]) != [true] {
            assert!(Instant::now() < deadline, "the new port is not open");
        }
        g.guard(index("p1"), "p1", &[mac(2)]).unwrap();
        assert_eq!(net.arrive(0, &[1, 2]), [false, true]);
        // A device that is not there (any more) is refused, or waited for; nobody else's frames are dropped for it.
        let _ = g.guard(index("p2"), "no-such-device", &[]);
        assert_eq!(net.arrive(1, &[5]), [true]);
    });
}
