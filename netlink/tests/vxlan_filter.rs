//! PIT-12 on the real kernel: VXLAN from strangers is dropped, from known VTEPs it is not.
#![allow(clippy::unwrap_used, reason = "test helpers may panic")]

use netlink::linux::{VxlanFilter, netns};
use std::collections::BTreeSet;
use std::net::{IpAddr, UdpSocket};
use std::time::Duration;

fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    assert!(root || std::env::var_os("CI").is_none(), "this test needs root, and CI must give it");
    root
}

fn ip(args: &[&str]) {
    let s = std::process::Command::new("ip").args(args).status();
    assert!(s.is_ok_and(|s| s.success()), "ip {args:?}");
}

/// Whether a datagram from `from` reaches `to` within the time limit.
fn arrives(from: &str, to: &UdpSocket, limit: Duration) -> bool {
    let s = UdpSocket::bind((from, 0)).unwrap();
    s.send_to(b"vxlan?", to.local_addr().unwrap()).unwrap();
    to.set_read_timeout(Some(limit)).unwrap();
    to.recv(&mut [0; 64]).is_ok()
}

fn passes(from: &str, to: &UdpSocket) -> bool {
    arrives(from, to, Duration::from_secs(10))
}

fn dropped(from: &str, to: &UdpSocket) -> bool {
    !arrives(from, to, Duration::from_millis(200))
}

fn check(local: &'static str, known: &'static str, stranger: &'static str) {
    if !is_root() {
        println!("skipped: needs root");
        return;
    }
    netns::in_new(move || {
        ip(&["link", "set", "lo", "up"]);
        if local.contains(':') {
            for a in [local, known, stranger] {
                ip(&["addr", "add", &format!("{a}/128"), "dev", "lo", "nodad"]);
            }
        }
        let sock = UdpSocket::bind((local, 0)).unwrap();
        let port = sock.local_addr().unwrap().port();
        assert!(passes(stranger, &sock), "without the filter everything passes");
        let mut f = VxlanFilter::install(local.parse().unwrap(), port).unwrap();
        assert!(dropped(known, &sock), "nobody is known yet");
        let known_ip: IpAddr = known.parse().unwrap();
        f.allow(&BTreeSet::from([known_ip])).unwrap();
        assert!(passes(known, &sock));
        assert!(dropped(stranger, &sock));
        assert_eq!(f.dropped().unwrap(), 2);
        assert!(VxlanFilter::install(local.parse().unwrap(), port).is_err(), "one filter per namespace");
        f.allow(&BTreeSet::new()).unwrap();
        assert!(dropped(known, &sock), "a VTEP that left is a stranger");
        let many: BTreeSet<IpAddr> =
            (0..500u32).map(|i| IpAddr::from((0x0a00_0000 + i).to_be_bytes())).collect();
        f.allow(&many).unwrap();
        drop(f);
        assert!(passes(stranger, &sock), "the filter goes with its owner");
    })
    .unwrap()
    .join()
    .unwrap()
    .unwrap();
}

#[test]
fn strangers_are_dropped_ipv4() {
    check("127.0.0.1", "127.0.0.11", "127.0.0.12");
}

#[test]
fn strangers_are_dropped_ipv6() {
    check("2001:db8::1", "2001:db8::11", "2001:db8::12");
}
