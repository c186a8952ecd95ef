//! What local ports may do, on the real kernel: frames of one MAC are dropped at one port and nothing else is
//! (EVPN-MOB-16), and a host that makes MACs up does not fill the bridge's table.
#![allow(clippy::unwrap_used, reason = "test helpers may panic")]

mod common;

use common::*;
use evpn::fabric::LinkKind;
use evpn::types::Mac;
use netlink::linux::{PortFilter, Tap};
use std::collections::BTreeSet;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

fn arp(from: Mac, n: u8) -> Vec<u8> {
    let mut f = [&[0xff; 6][..], &from.0, &[0x08, 0x06], &[n; 28]].concat();
    f.resize(60, 0);
    f
}

/// What of these a tap hears before the last one, which comes through.
fn heard(tap: &mut Tap, last: &[u8]) -> Vec<Vec<u8>> {
    let deadline = Instant::now() + Duration::from_secs(5);
    let (mut out, mut buf) = (Vec::new(), [0; 2048]);
    loop {
        while let Some(n) = tap.recv(&mut buf).unwrap() {
            if &buf[..n] == last {
                return out;
            }
            out.push(buf[..n].to_vec());
        }
        assert!(Instant::now() < deadline, "the last frame never came, heard {out:02x?}");
        wait(&[tap.as_raw_fd()], 50);
    }
}

#[test]
fn frames_of_a_blocked_mac_are_dropped_at_that_port_only_and_still_heard_by_its_tap() {
    in_netns(|| {
        for p in ["p1", "p2", "p3"] {
            port(p);
        }
        ip("link add br0 type bridge");
        quiet("br0");
        for p in ["p1", "p2", "p3"] {
            ip(&format!("link set {p} master br0"));
        }
        ip("link set br0 up");
        let senders = [Tap::open_all(index("p1g")).unwrap(), Tap::open_all(index("p2g")).unwrap()];
        let mut far = Tap::open(index("p3g")).unwrap();
        let mut near = Tap::open(index("p1")).unwrap();
        let mut number = 0;
        // Sends one frame of each MAC from each port and tells which arrived.
        let mut arrived = |far: &mut Tap| {
            number += 1;
            let frames: Vec<_> = [(0, 1), (0, 2), (1, 1)]
                .map(|(s, m)| (s, arp(mac(m), number * 8 + s as u8 * 4 + m as u8)))
                .to_vec();
            for (s, f) in &frames {
                senders[*s].send(f).unwrap();
            }
            let last = arp(mac(9), number);
            senders[1].send(&last).unwrap();
            // Frames of two ports may overtake each other: those of the first are waited for as well.
            let first = arp(mac(8), number);
            senders[0].send(&first).unwrap();
            let mut got = heard(far, &last);
            if !got.contains(&first) {
                got.extend(heard(far, &first));
            }
            frames.iter().map(|(_, f)| got.contains(f)).collect::<Vec<_>>()
        };
        // Ports of a bridge forward a moment after they came up.
        let deadline = Instant::now() + Duration::from_secs(5);
        let probe = arp(mac(7), 7);
        loop {
            senders[0].send(&probe).unwrap();
            senders[1].send(&probe).unwrap();
            wait(&[far.as_raw_fd()], 50);
            if far.recv(&mut [0; 2048]).unwrap().is_some() {
                break;
            }
            assert!(Instant::now() < deadline, "the bridge does not forward");
        }
        assert_eq!(arrived(&mut far), [true, true, true], "without the filter everything passes");
        let mut f = PortFilter::install().unwrap();
        assert_eq!(arrived(&mut far), [true, true, true], "nothing is blocked yet");
        let p1 = index("p1");
        f.block(&BTreeSet::from([(p1, mac(1))])).unwrap();
        while near.recv(&mut [0; 2048]).unwrap().is_some() {}
        assert_eq!(arrived(&mut far), [false, true, true], "this MAC at this port");
        assert_eq!(f.dropped().unwrap(), 1);
        let here = heard(&mut near, &arp(mac(8), 3));
        assert!(here.iter().any(|b| b[6..12] == mac(1).0), "the tap hears it all the same: {here:02x?}");
        f.block(&BTreeSet::from([(p1, mac(2)), (index("p2"), mac(1))])).unwrap();
        assert_eq!(arrived(&mut far), [true, false, false], "only the difference is written");
        assert!(PortFilter::install().is_err(), "one filter per namespace");
        let many: BTreeSet<_> = (0..500).map(|n| (p1, mac(1000 + n))).collect();
        f.block(&many).unwrap();
        drop(f);
        assert_eq!(arrived(&mut far), [true, true, true], "the filter goes with its owner");
    });
}

/// The bridges that we create have a limit of their own (Linux 6.7): beyond it nothing is learned, and nobody is told.
/// A MAC that the table has already moves all the same.
#[test]
fn a_bridge_of_ours_stops_learning_at_its_limit_and_known_macs_still_move() {
    in_netns(|| {
        underlay();
        port("p1");
        port("p2");
        let mut want = device(&["p1", "p2"]);
        want.fdb_limit = 100;
        let mut p = Plane::synced(vec![want]);
        let (flooder, other) = (Tap::open_all(index("p1g")).unwrap(), Tap::open_all(index("p2g")).unwrap());
        let rows = |p: &Plane| p.plane.mirror().len().0;
        let known = mac(5);
        let br = index("br100");
        p.until("a MAC is known", |p| {
            flooder.send(&arp(known, 1)).unwrap();
            p.plane.mirror().bridge_row(br, known).map(|_| ())
        });
        for n in 0..5_000 {
            flooder.send(&arp(mac(10_000 + n), 2)).unwrap();
        }
        let learned = |dev: &str| bridge(&format!("fdb show br br100 brport {dev}")).lines().count();
        if learned("p1") > 1_000 {
            return unmet("the kernel has no limit for bridges (Linux 6.7)");
        }
        other.send(&arp(known, 3)).unwrap();
        p.until("the known one has moved", |p| {
            let port = p.plane.mirror().bridge_row(br, known).map(|r| r.port);
            (port == Some(index("p2"))).then_some(())
        });
        assert!(rows(&p) < 150, "{} rows in the mirror", rows(&p));
        assert!(learned("p1") < 150);
        // Another limit in the configuration of the next run is taken over, also by a bridge that is there.
        drop(p);
        let mut want = device(&["p1", "p2"]);
        want.fdb_limit = 300;
        let mut p = Plane::synced(vec![want]);
        p.until("the new limit", |p| {
            let LinkKind::Bridge(b) = &p.plane.mirror().link(br)?.kind else { return None };
            (b.fdb_limit == Some(300)).then_some(())
        });
    });
}
