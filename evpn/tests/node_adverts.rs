//! Router advertisements of a gateway, where they are asked for (RFC 4861 §6.2).
#![allow(clippy::unwrap_used, reason = "tests may panic")]

mod world;

use bytes::Bytes;
use evpn::node::{Gateway, GatewayAddress};
use evpn::types::{IfIndex, Mac, Span};
use evpn::wire::frame::{self, Body};
use std::net::Ipv6Addr;
use world::{P1, P2, World, mac};

const MS: Span = Span::millis(1);
const GW: Mac = Mac([0, 0, 0x5e, 0, 1, 1]);
const ALL: Mac = Mac([0x33, 0x33, 0, 0, 0, 1]);

fn link_local() -> Ipv6Addr {
    "fe80::200:5eff:fe00:101".parse().unwrap()
}

fn world(ra: bool) -> World {
    let mut w = World::with(2, MS, |c| {
        let address = |ip: &str, bits| GatewayAddress::new(ip.parse().unwrap(), bits).unwrap();
        let addresses = vec![address("10.1.0.1", 24), address("2001:db8:1::1", 64)];
        c.vnis[0].hosts.gateway = Some(Gateway { addresses, mac: GW, ra });
    });
    for i in 0..2 {
        w.devices(i, GW);
    }
    w.run_for(Span::secs(10));
    w
}

/// Router advertisements sent since the last time: port, destination, frame.
fn adverts(w: &mut World) -> Vec<(IfIndex, Mac, Bytes)> {
    let is = |f: &Bytes| matches!(frame::parse(f).unwrap().body, Body::RouterAdvertisement(_));
    let all = std::mem::take(&mut w.hosts[0].emitted);
    all.into_iter().filter(|(_, f)| is(f)).map(|(p, f)| (p, Mac::from_slice(&f[..6]).unwrap(), f)).collect()
}

/// RS (RFC 4861 §4.1).
fn solicitation(src_mac: Mac, src: Ipv6Addr) -> Bytes {
    let all: Ipv6Addr = "ff02::2".parse().unwrap();
    let mut m = vec![133, 0, 0, 0, 0, 0, 0, 0];
    let mut sum = 58 + m.len() as u32;
    for a in [src, all] {
        sum += a.segments().iter().map(|s| u32::from(*s)).sum::<u32>();
    }
    sum += u32::from(u16::from_be_bytes([m[0], m[1]]));
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    m[2..4].copy_from_slice(&(!(sum as u16)).to_be_bytes());
    let mut f = vec![0x33, 0x33, 0, 0, 0, 2];
    f.extend(src_mac.0);
    f.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 8, 58, 255]);
    f.extend(src.octets());
    f.extend(all.octets());
    f.extend(m);
    f.into()
}

#[test]
fn all_hosts_are_told_from_the_gateways_own_address_and_then_every_few_minutes() {
    let mut w = world(true);
    let first = adverts(&mut w);
    let ports: Vec<_> = first.iter().map(|(p, to, _)| (*p, *to)).collect();
    assert_eq!(ports, [(P1, ALL), (P2, ALL)]);
    let f = &first[0].2;
    let Body::RouterAdvertisement(ra) = frame::parse(f).unwrap().body else { panic!("{f:?}") };
    assert_eq!((ra.src, ra.lifetime, ra.slla, &f[6..12]), (link_local(), 1800, Some(GW), &GW.0[..]));
    // MTU, and the prefix: on-link, autonomous, for 30 and 7 days.
    assert_eq!(f[78..86], [5, 1, 0, 0, 0, 0, 0x05, 0xaa]);
    let lives = [0, 0x27, 0x8d, 0, 0, 0x09, 0x3a, 0x80, 0, 0, 0, 0];
    let prefix: Ipv6Addr = "2001:db8:1::".parse().unwrap();
    assert_eq!(f[86..], [&[3, 4, 64, 0xc0][..], &lives, &prefix.octets()].concat());
    w.run_for(Span::secs(32));
    assert_eq!(adverts(&mut w).len(), 4, "two more soon after");
    w.run_for(Span::secs(3600));
    let more = adverts(&mut w).len() / 2;
    assert!((5..=18).contains(&more), "{more} in an hour");
    assert!(w.hosts.iter().all(|h| h.encapsulated.is_empty()));
}

#[test]
fn who_solicits_is_answered_alone_and_soon() {
    let mut w = world(true);
    adverts(&mut w);
    let host: Ipv6Addr = "fe80::1".parse().unwrap();
    for _ in 0..3 {
        w.frame(0, P2, mac(1), Some(solicitation(mac(1), host)));
    }
    w.frame(0, P1, mac(2), Some(solicitation(mac(2), Ipv6Addr::UNSPECIFIED)));
    w.run_for(Span::millis(500));
    let mut to: Vec<_> = adverts(&mut w).into_iter().map(|(p, to, _)| (p, to)).collect();
    to.sort_unstable();
    assert_eq!(to, [(P1, ALL), (P2, mac(1))]);
    let many = (0..2000u16).map(|n| Mac([2, 1, 0, 0, (n >> 8) as u8, n as u8]));
    for m in many {
        w.frame(0, P1, m, Some(solicitation(m, host)));
    }
    w.run_for(Span::millis(500));
    assert!(adverts(&mut w).len() <= 256, "bounded");
}

#[test]
fn nobody_is_told_unless_it_is_asked_for() {
    let mut w = world(false);
    w.frame(0, P1, mac(1), Some(solicitation(mac(1), "fe80::1".parse().unwrap())));
    w.run_for(Span::secs(3600));
    assert_eq!(adverts(&mut w), []);
}

/// Before the bridge has the gateway's MAC hosts would be sent to nobody.
#[test]
fn a_bridge_without_the_gateways_mac_advertises_nothing() {
    let mut w = world(true);
    adverts(&mut w);
    w.devices(0, world::own_mac(0));
    w.run_for(Span::secs(1800));
    assert_eq!(adverts(&mut w), []);
    w.devices(0, GW);
    w.run_for(Span::secs(2));
    assert!(!adverts(&mut w).is_empty());
}
