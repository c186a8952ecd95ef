//! What a tap hears, and what not.
#![allow(clippy::unwrap_used, reason = "test helpers may panic")]

mod common;

use common::*;
use netlink::linux::{Tap, Writer};
use netlink::{Kernel as _, Op};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

fn frame(kind: &[u8], rest: &[u8]) -> Vec<u8> {
    let mut f = vec![0xff; 6];
    f.extend(mac(1).0);
    f.extend(kind);
    f.extend(rest);
    f.resize(f.len().max(60), 0);
    f
}

fn icmp6(kind: u8) -> Vec<u8> {
    let mut b = vec![0x60, 0, 0, 0, 0, 8, 58, 255];
    b.extend([0; 32]);
    b.extend([kind, 0, 0, 0, 0, 0, 0, 0]);
    b
}

const RARP: [u8; 2] = [0x80, 0x35];
const ARP: [u8; 2] = [0x08, 0x06];
const IP6: [u8; 2] = [0x86, 0xdd];
const IP4: [u8; 2] = [0x08, 0x00];

/// Everything up to the last of `until`, which must come.
/// UDP over IPv4 to this port, the header so many words long; a later fragment if `offset`.
fn udp4(words: u8, port: u16, offset: u16) -> Vec<u8> {
    let mut out = vec![0x40 | words, 0, 0, 60, 0, 1];
    out.extend(offset.to_be_bytes());
    out.extend([64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    out.resize(usize::from(words) * 4, 1);
    out.extend(9999u16.to_be_bytes());
    out.extend(port.to_be_bytes());
    out.resize(60, 0);
    out
}

/// UDP over IPv6 to this port.
fn udp6(port: u16) -> Vec<u8> {
    let mut out = vec![0x60, 0, 0, 0, 0, 20, 17, 64];
    out.resize(42, 0);
    out.extend(port.to_be_bytes());
    out.resize(60, 0);
    out
}

fn heard(tap: &mut Tap, until: &[u8]) -> Vec<Vec<u8>> {
    let deadline = Instant::now() + Duration::from_secs(5);
    let mut out = Vec::new();
    let mut buf = [0; 2048];
    loop {
        while let Some(n) = tap.recv(&mut buf).unwrap() {
            let f = buf[..n].to_vec();
            if f == until {
                return out;
            }
            out.push(f);
        }
        assert!(Instant::now() < deadline, "heard only {out:02x?}");
        wait(&[tap.as_raw_fd()], 50);
    }
}

#[test]
fn a_tap_hears_announcements_of_guests_also_behind_a_tag_and_nothing_else() {
    in_netns(|| {
        port("p1");
        ip("link add br0 type bridge");
        quiet("br0");
        ip("link set p1 master br0");
        ip("link set br0 up");
        let guest = Tap::open_all(index("p1g")).unwrap();
        let mut tap = Tap::open(index("p1")).unwrap();
        let last = frame(&RARP, &[9; 28]);
        let wanted = [
            frame(&ARP, &[1; 28]),
            frame(&RARP, &[2; 28]),
            frame(&IP6, &icmp6(133)),
            frame(&IP6, &icmp6(135)),
            frame(&IP6, &icmp6(136)),
            frame(&IP6, &icmp6(137)),
            frame(&[0x81, 0, 0, 5, 0x08, 0x06], &[3; 28]),
            frame(&[0x81, 0, 0x20, 7, 0x80, 0x35], &[4; 28]),
            frame(&[[0x81, 0, 0, 6].as_slice(), &IP6].concat(), &icmp6(135)),
            frame(&IP4, &udp4(5, 67, 0)),
            frame(&IP4, &udp4(5, 68, 0x4000)),
            frame(&IP4, &udp4(7, 68, 0)),
            frame(&IP6, &udp6(546)),
            frame(&IP6, &udp6(547)),
            frame(&[[0x81, 0, 0, 6].as_slice(), &IP4].concat(), &udp4(6, 67, 0)),
            frame(&[[0x81, 0, 0, 6].as_slice(), &IP6].concat(), &udp6(547)),
        ];
        let unwanted = [
            frame(&[0x08, 0x00], &[1; 40]),
            frame(&IP6, &icmp6(128)),
            frame(&IP6, &icmp6(132)),
            frame(&IP6, &icmp6(138)),
            frame(&IP6, &[0x60; 50]),
            frame(&[0x88, 0xb5], &[1; 28]),
            frame(&[0x81, 0, 0, 5, 0x08, 0x00], &[3; 40]),
            vec![0xff; 14],
            frame(&IP4, &udp4(5, 66, 0)),
            frame(&IP4, &udp4(5, 69, 0)),
            frame(&IP4, &udp4(5, 67, 0x0010)),
            frame(&IP4, &udp4(7, 53, 0)),
            frame(&IP6, &udp6(545)),
            frame(&IP6, &udp6(548)),
            frame(&[[0x81, 0, 0, 6].as_slice(), &IP6].concat(), &udp6(53)),
        ];
        for (w, u) in wanted.iter().zip(&unwanted) {
            guest.send(u).unwrap();
            guest.send(w).unwrap();
        }
        guest.send(&wanted[wanted.len() - 1]).unwrap();
        // Our own frames towards the guest are not heard.
        tap.send(&frame(&ARP, &[7; 28])).unwrap();
        guest.send(&last).unwrap();
        assert_eq!(heard(&mut tap, &last), wanted);
        // And the guest got ours.
        let mut guest = guest;
        let mut others = heard(&mut guest, &frame(&ARP, &[7; 28]));
        // The port's own kernel says IGMP when it likes.
        others.retain(|f| f[12..14] != [8, 0]);
        assert_eq!(others, Vec::<Vec<u8>>::new());
    });
}

/// PIT-07: the tap sees what the bridge refuses, so a frame alone says nothing about where a MAC is.
#[test]
fn a_frame_that_a_locked_port_refuses_is_heard_and_not_learned() {
    in_netns(|| {
        underlay();
        port("p1");
        let p = Plane::synced(vec![device(&["p1"])]);
        p.plane.stop(false).unwrap();
        if !std::process::Command::new("bridge")
            .args(["link", "set", "dev", "p1", "locked", "on", "learning", "off"])
            .status()
            .is_ok_and(|s| s.success())
        {
            return unmet("the kernel or iproute2 has no locked ports");
        }
        let vxlan = index("vx100");
        let mut results = Vec::new();
        let op = Op::SetRemote { vxlan, mac: mac(1), vtep: vtep(2) };
        Writer::open().unwrap().apply(&[op], &mut results);
        let guest = Tap::open_all(index("p1g")).unwrap();
        let mut tap = Tap::open(index("p1")).unwrap();
        let spoofed = frame(&RARP, &[1; 28]);
        guest.send(&spoofed).unwrap();
        assert_eq!(heard(&mut tap, &spoofed), Vec::<Vec<u8>>::new());
        let rows = bridge("fdb show dev vx100");
        assert!(
            rows.contains("02:00:00:00:00:01 extern_learn master br100") || rows.contains("master br100"),
            "{rows}"
        );
        assert!(!bridge("fdb show dev p1").contains("02:00:00:00:00:01"));
    });
}

#[test]
fn a_tap_outlives_its_port_going_down_and_up() {
    in_netns(|| {
        port("p1");
        let guest = Tap::open_all(index("p1g")).unwrap();
        let mut tap = Tap::open(index("p1")).unwrap();
        ip("link set p1 down");
        assert_eq!(tap.recv(&mut [0; 2048]).unwrap(), None);
        ip("link set p1 up");
        let hello = frame(&RARP, &[1; 28]);
        let deadline = Instant::now() + Duration::from_secs(5);
        let mut buf = [0; 2048];
        loop {
            let _ = guest.send(&hello);
            wait(&[tap.as_raw_fd()], 20);
            if tap.recv(&mut buf).unwrap() == Some(hello.len()) {
                break;
            }
            assert!(Instant::now() < deadline, "nothing heard after the port came up");
        }
        tap.send(&hello).unwrap();
    });
}

/// The error of the time when the port was down stands in front of the first frame after it. One wake-up, and the frame
/// is there: nobody sends a second one for a reader that stopped at the error.
#[test]
fn the_first_frame_after_a_port_was_down_is_heard_without_a_second_one() {
    in_netns(|| {
        port("p1");
        let guest = Tap::open_all(index("p1g")).unwrap();
        let mut tap = Tap::open(index("p1")).unwrap();
        ip("link set p1 down");
        ip("link set p1 up");
        let hello = frame(&RARP, &[1; 28]);
        let deadline = Instant::now() + Duration::from_secs(5);
        // The guest's end is told of the same, and has its carrier back a moment later.
        while guest.send(&hello).is_err() {
            assert!(Instant::now() < deadline, "the guest cannot send");
        }
        let mut buf = [0; 2048];
        assert_eq!(tap.recv(&mut buf).unwrap(), Some(hello.len()));
    });
}
