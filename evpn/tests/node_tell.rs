//! Hosts are told when the MAC of an address changes: by their VTEP, or by the new owner where their VTEP does not
//! (PIT-17, PROXY-LEARN-05, HOST-GARP-01, HOST-ND-01).

mod scenario;
mod world;

use bytes::Bytes;
use evpn::fabric::{KernelEvent, NeighRow, NeighState};
use evpn::node::view::{self, MoveKind};
use evpn::node::{Gateway, GatewayAddress, Show, TellPeers};
use evpn::types::{IfIndex, Mac, Span};
use evpn::wire::frame::{self, Body};
use scenario::{Route, Speaker, passive};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use world::frames::{arp, garp};
use world::rng::Rng;
use world::{BRIDGE, P1, P2, World, mac, probe_mac, vtep};

const MS: Span = Span::millis(1);

fn ip(n: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 1, 0, n)
}

fn ip6(n: u16) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, n)
}

/// What a host is told: the address, its MAC, to whom, and for IPv6 the R flag.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
struct Word {
    ip: IpAddr,
    mac: Mac,
    to: Mac,
    router: bool,
}

/// Reads a frame that tells a host something, and checks all that every one of them must be.
fn word(bytes: &Bytes) -> Option<Word> {
    let f = frame::parse(bytes).expect("our own frames can be read");
    assert!(bytes.len() >= 60 && f.vlan.is_none());
    let w = match f.body {
        Body::Arp(a) if a.is_gratuitous() => {
            assert_eq!((a.reply, a.sender_mac, a.target_mac), (false, f.src, Mac::ZERO));
            Word { ip: a.sender_ip.into(), mac: a.sender_mac, to: f.dst, router: false }
        }
        Body::NeighborAdvertisement(na) => {
            assert!(!na.solicited && na.r#override && na.src == na.target && na.tlla == Some(f.src));
            assert_eq!(na.dst, "ff02::1".parse::<Ipv6Addr>().expect("address"));
            Word { ip: na.target.into(), mac: f.src, to: f.dst, router: na.router }
        }
        _ => return None,
    };
    Some(w)
}

/// What the hosts behind a node have been told since the last look.
fn told(w: &mut World, i: usize) -> Vec<(IfIndex, Word)> {
    let all = std::mem::take(&mut w.hosts[i].emitted);
    all.iter().filter_map(|(port, bytes)| Some((*port, word(bytes)?))).collect()
}

/// What a node has told hosts behind other VTEPs since the last look.
fn told_peers(w: &mut World, i: usize) -> Vec<(IpAddr, Word)> {
    let all = std::mem::take(&mut w.hosts[i].encapsulated);
    all.iter().filter_map(|(vtep, bytes)| Some((*vtep, word(bytes)?))).collect()
}

fn everybody(n: u8, m: u8) -> Word {
    Word { ip: ip(n).into(), mac: mac(m), to: Mac::BROADCAST, router: false }
}

/// The MAC that a node knows for an address.
fn binding(w: &mut World, i: usize, ip: IpAddr) -> Option<Mac> {
    match w.ask(i, Show::Hosts) {
        view::Rows::Hosts(v) => v.iter().find(|h| h.ip == ip).map(|h| h.mac),
        other => panic!("{other:?}"),
    }
}

fn counter(w: &mut World, i: usize, name: &str) -> u64 {
    w.status(i).counters.get(name).copied().unwrap_or(0)
}

/// `mac(1)` has the address at node 0; everything has come to rest.
fn settled(n: usize, a: u8) -> World {
    let mut w = World::converged(n, MS);
    w.frame(0, P1, mac(1), Some(garp(mac(1), ip(a))));
    w.run_for(Span::secs(5));
    for i in 0..n {
        assert_eq!(told(&mut w, i), [], "a new address corrects nobody");
    }
    w
}

/// PIT-14: whoever checks an address (RFC 5227, RFC 4862) hears from its owner whether somebody has it, and not from the rounds
/// that are still to come; hosts behind other ports do.
#[test]
fn who_checks_an_address_is_not_told_again_whose_it_was() {
    for checks in [true, false] {
        let mut w = settled(3, 1);
        w.frame(1, P1, mac(2), Some(garp(mac(2), ip(1))));
        w.run_for(Span::millis(150));
        assert!(told(&mut w, 2).contains(&(P1, everybody(1, 2))), "the change itself is news");
        if checks {
            w.frame(2, P1, mac(3), Some(arp(mac(3), Ipv4Addr::UNSPECIFIED, ip(1))));
        }
        w.run_for(Span::millis(2500));
        let (at_p1, at_p2): (Vec<_>, Vec<_>) = told(&mut w, 2).into_iter().partition(|(p, _)| *p == P1);
        assert_eq!(at_p2, [(P2, everybody(1, 2)); 2]);
        assert_eq!(at_p1.len(), if checks { 0 } else { 2 }, "{at_p1:?}");
    }
}

/// The host was shut down, or dies, or lives on; another one takes its address behind node 1.
#[test]
fn a_changed_mac_is_told_out_of_every_other_port_four_times() {
    for cold in [false, true] {
        let mut w = settled(3, 1);
        if cold {
            w.forget(0, mac(1));
            w.run_for(Span::secs(30));
        }
        let start = w.now;
        w.frame(1, P2, mac(2), Some(garp(mac(2), ip(1))));
        assert_eq!(told(&mut w, 1), [(P1, everybody(1, 2))], "its own port is spared, cold: {cold}");
        w.run_for(MS);
        assert_eq!(told(&mut w, 2), [(P1, everybody(1, 2)), (P2, everybody(1, 2))], "with the route");
        for (wait, both) in [(48, 0), (2, 2), (447, 0), (3, 2), (1490, 0), (10, 2), (60_000, 0)] {
            w.run_for(Span::millis(wait));
            assert_eq!(told(&mut w, 2), [P1, P2].map(|p| (p, everybody(1, 2)))[..both], "{:?}", w.now);
        }
        let m = w.moves(2).pop().expect("a record");
        assert_eq!((m.kind, m.told), (MoveKind::ChangedMac, Some(start + MS)));
        let m = w.moves(1).pop().expect("a record");
        assert_eq!((m.kind, m.told), (MoveKind::ChangedMac, Some(start)));
        assert_eq!(counter(&mut w, 2, "hosts_told"), 8);
        assert_eq!(told_peers(&mut w, 1), [], "all of them tell their hosts");
        // The host that had the address is not told so: it may still have it (RFC 5227 §2.4).
        let spared = if cold { P1 } else { P2 };
        assert!(told(&mut w, 0).iter().all(|(p, _)| *p == P2 || *p == spared));
    }
}

/// PROXY-REPLY-03, -07: R as learned, O=1, to all nodes.
#[test]
fn a_changed_mac_of_an_ipv6_address_is_told_by_an_unsolicited_advertisement() {
    for router in [false, true] {
        let mut w = World::converged(2, MS);
        let na = |m: Mac| frame::neighbor_advertisement(m, ip6(1), None, router, true);
        w.frame(0, P1, mac(1), Some(na(mac(1))));
        w.run_for(Span::secs(5));
        w.forget(0, mac(1));
        w.run_for(MS + MS);
        w.frame(0, P2, mac(2), Some(na(mac(2))));
        w.run_for(MS + MS);
        let all = Mac([0x33, 0x33, 0, 0, 0, 1]);
        let want = Word { ip: ip6(1).into(), mac: mac(2), to: all, router };
        assert_eq!(told(&mut w, 1), [(P1, want), (P2, want)]);
        assert_eq!(told(&mut w, 0), [(P1, want)]);
    }
}

#[test]
fn nobody_is_told_before_the_kernel_has_the_new_rows() {
    let mut w = settled(2, 1);
    w.hosts[1].paused = true;
    w.frame(0, P2, mac(2), Some(garp(mac(2), ip(1))));
    w.run_for(Span::millis(400));
    assert_eq!(told(&mut w, 1), []);
    w.hosts[1].paused = false;
    let start = w.now;
    w.frame(1, P1, mac(9), None);
    assert_eq!(told(&mut w, 1).len(), 2, "at once");
    let m = w.moves(1).pop().expect("a record");
    assert_eq!((m.acked, m.told), (Some(start), Some(start)));
    // A kernel that never answers is not waited for for ever: the bridge floods what it does not know.
    w.hosts[1].paused = true;
    w.frame(0, P1, mac(3), Some(garp(mac(3), ip(1))));
    w.run_for(Span::millis(480));
    assert_eq!(told(&mut w, 1).iter().filter(|(_, t)| t.mac == mac(3)).count(), 0);
    w.run_for(Span::millis(100));
    assert!(told(&mut w, 1).contains(&(P2, everybody(1, 3))));
}

/// A port behind which both the old and the new host sit is told nothing; another one is.
#[test]
fn an_address_that_changes_sides_behind_one_vtep_is_told_where_neither_host_is() {
    let mut w = settled(2, 1);
    w.frame(0, P1, mac(2), Some(garp(mac(2), ip(1))));
    w.run_for(Span::secs(5));
    assert!(told(&mut w, 0).iter().all(|t| *t == (P2, everybody(1, 2))));
    assert_eq!(told(&mut w, 1).len(), 8);
    // Now from port to port: the former port has the host that had the address, so only others behind it are told, if
    // they are known to hold it.
    w.frame(0, P1, mac(7), Some(arp(mac(7), ip(7), ip(1))));
    w.frame(0, P2, mac(3), Some(garp(mac(3), ip(1))));
    w.run_for(Span::secs(5));
    let all = told(&mut w, 0);
    let want = (P1, Word { to: mac(7), ..everybody(1, 3) });
    assert_eq!(all, [want, (P1, everybody(1, 3)), want, want], "one broadcast is no two conflicts");
}

#[test]
fn hosts_that_asked_for_the_address_are_told_first_and_alone() {
    let mut w = settled(2, 1);
    // One asks, one answers the owner, one asks for something else, one asked and is gone.
    w.frame(1, P2, mac(11), Some(arp(mac(11), ip(11), ip(1))));
    let reply = frame::arp_reply(mac(12), ip(12), mac(1), ip(1));
    w.frame(1, P2, mac(12), Some(reply));
    w.frame(1, P1, mac(13), Some(arp(mac(13), ip(13), ip(99))));
    w.frame(1, P1, mac(14), None);
    w.frame(1, P1, mac(14), Some(arp(mac(14), ip(14), ip(1))));
    w.forget(1, mac(14));
    w.run_for(Span::secs(1));
    told(&mut w, 1);
    w.frame(0, P2, mac(2), Some(garp(mac(2), ip(1))));
    w.run_for(MS);
    let to = |n| (P2, Word { to: mac(n), ..everybody(1, 2) });
    assert_eq!(told(&mut w, 1), [to(11), to(12), (P1, everybody(1, 2))]);
    w.run_for(Span::millis(60));
    assert_eq!(told(&mut w, 1), [(P1, everybody(1, 2)), (P2, everybody(1, 2))], "who learned it unheard");
}

#[test]
fn the_same_for_ipv6_and_a_unicast_advertisement_goes_to_all_nodes_of_one_host() {
    let mut w = World::converged(2, MS);
    let na = |m: Mac| frame::neighbor_advertisement(m, ip6(1), None, false, true);
    w.frame(0, P1, mac(1), Some(na(mac(1))));
    w.run_for(Span::secs(5));
    let ns = |m: Mac, own| frame::neighbor_solicitation(m, own, None, ip6(1));
    w.frame(1, P2, mac(11), None);
    w.frame(1, P2, mac(11), Some(ns(mac(11), ip6(11))));
    // A duplicate check is no question of a holder.
    w.frame(1, P1, mac(12), None);
    w.frame(1, P1, mac(12), Some(ns(mac(12), Ipv6Addr::UNSPECIFIED)));
    w.run_for(MS);
    told(&mut w, 1);
    w.frame(0, P2, mac(2), Some(na(mac(2))));
    w.run_for(MS);
    let tos: Vec<_> = told(&mut w, 1).iter().map(|(p, t)| (*p, t.to)).collect();
    assert_eq!(tos, [(P2, mac(11)), (P1, Mac([0x33, 0x33, 0, 0, 0, 1]))]);
}

#[test]
fn a_hot_move_with_the_same_mac_and_a_new_address_are_told_to_nobody() {
    let mut w = settled(3, 1);
    w.frame(1, P2, mac(1), Some(garp(mac(1), ip(1))));
    w.run_for(Span::secs(5));
    w.frame(1, P2, mac(1), Some(garp(mac(1), ip(2))));
    w.forget(1, mac(1));
    w.run_for(Span::secs(5));
    w.frame(2, P2, mac(1), Some(garp(mac(1), ip(1))));
    w.run_for(Span::secs(5));
    for i in 0..3 {
        assert_eq!(told(&mut w, i), [], "node {i}");
        assert!(w.moves(i).iter().all(|m| m.told.is_none()));
    }
}

#[test]
fn only_the_latest_mac_is_told_and_nothing_of_an_address_that_is_gone() {
    let mut w = settled(2, 1);
    for m in [2, 3, 4] {
        w.frame(0, P1, mac(m), Some(garp(mac(m), ip(1))));
        w.run_for(Span::millis(2));
    }
    let macs: Vec<_> = told(&mut w, 1).iter().map(|(_, t)| t.mac).collect();
    assert_eq!(macs, [mac(2), mac(2), mac(3), mac(3), mac(4), mac(4)]);
    w.run_for(Span::millis(100));
    assert!(told(&mut w, 1).iter().all(|(_, t)| t.mac == mac(4)), "the repeats of the others are off");
    w.forget(0, mac(4));
    w.run_for(Span::secs(5));
    assert_eq!(told(&mut w, 1), [], "nobody has it");
}

/// `tell-rate`: what is too much waits, in the order of news before repeats; nothing is lost, and the latest is told.
#[test]
fn a_rack_of_changed_macs_is_told_at_the_rate_that_is_allowed() {
    const RATE: u32 = 200;
    let mut w = World::with(2, MS, |c| c.arp.tell_rate = RATE);
    w.run_for(Span::secs(10));
    for n in 0..100 {
        w.frame(0, P1, mac(n), Some(garp(mac(n), ip(n))));
    }
    w.run_for(Span::secs(5));
    for n in 0..100 {
        w.frame(0, P2, mac(n + 100), Some(garp(mac(n + 100), ip(n))));
    }
    let (mut all, mut fullest) = (Vec::new(), 0);
    for tenth in 0..100 {
        w.run_for(Span::millis(100));
        let t = told(&mut w, 1);
        fullest = fullest.max(t.len());
        if tenth == 11 {
            let first: std::collections::BTreeSet<_> = t.iter().chain(&all).map(|(_, t)| t.ip).collect();
            assert_eq!(first.len(), 100, "all have been told once before any is told again");
        }
        all.extend(t);
    }
    // 32 frames may come at once, and a tenth of the rate follows.
    assert!(fullest <= 32 + RATE as usize / 10 + 2, "{fullest} frames in 100 ms");
    assert_eq!(all.len(), 100 * 2 * 4);
    assert!(counter(&mut w, 1, "tells_late") > 0);
    assert_eq!(counter(&mut w, 1, "tells_dropped"), 0);
}

const FRR: Ipv4Addr = Ipv4Addr::new(10, 255, 0, 77);

/// Two nodes and a peer that is no vtepd.
fn with_peer(policy: TellPeers, marked: bool) -> (World, Speaker) {
    let mut w = World::with(2, MS, |c| {
        c.neighbors.push(passive(FRR.into()));
        c.vnis[0].hosts.tell_peers = policy;
    });
    let mut s = Speaker::new(FRR.into());
    w.run_for(MS);
    s.connect(&mut w);
    w.run_for(MS);
    s.floods(&mut w, marked);
    w.run_for(Span::secs(10));
    w.frame(0, P1, mac(1), Some(garp(mac(1), ip(1))));
    w.run_for(Span::secs(5));
    w.forget(0, mac(1));
    w.run_for(Span::secs(5));
    (w, s)
}

/// PIT-17: by the new owner, and nobody else.
#[test]
fn hosts_behind_a_vtep_that_does_not_tell_them_are_told_by_the_new_owner() {
    let other = vtep(0);
    for (policy, marked, want) in [
        (TellPeers::Auto, false, vec![FRR.into()]),
        (TellPeers::Auto, true, vec![]),
        (TellPeers::Never, false, vec![]),
        (TellPeers::Always, true, vec![other, FRR.into()]),
    ] {
        let (mut w, s) = with_peer(policy, marked);
        w.frame(1, P2, mac(2), Some(garp(mac(2), ip(1))));
        let at_once: Vec<_> = want.iter().map(|v: &IpAddr| (*v, everybody(1, 2))).collect();
        assert_eq!(told_peers(&mut w, 1), at_once, "{policy:?}");
        w.run_for(Span::secs(10));
        assert_eq!(told_peers(&mut w, 1).len(), 3 * want.len(), "{policy:?}");
        assert_eq!(told_peers(&mut w, 0), []);
        assert_eq!(counter(&mut w, 1, "peers_told"), 4 * want.len() as u64);
        assert!(s.is_up(&w));
    }
}

/// The mark may come later, with a new version of the peer, and goes with its route.
#[test]
fn the_mark_of_a_peer_counts_as_long_as_its_route_has_it() {
    let (mut w, mut s) = with_peer(TellPeers::Auto, false);
    let mut n = 1;
    let mut change = |w: &mut World| {
        n += 1;
        w.frame(1, P2, mac(n), Some(garp(mac(n), ip(1))));
        w.run_for(Span::secs(5));
        told_peers(w, 1).len()
    };
    assert_eq!(change(&mut w), 4);
    s.floods(&mut w, true);
    w.run_for(Span::secs(1));
    assert_eq!(change(&mut w), 0);
    s.floods(&mut w, false);
    w.run_for(Span::secs(1));
    assert_eq!(change(&mut w), 4);
    // A VTEP that has a host and no IMET route (its own policy) is told as well; one that is gone is not.
    s.leave(&mut w);
    w.run_for(Span::secs(130));
    assert_eq!(change(&mut w), 0);
    s.connect(&mut w);
    w.run_for(Span::secs(1));
    let r = Route {
        mac: mac(50),
        ip: None,
        seq: None,
        sticky: false,
        gateway: false,
        stale: false,
        going: false,
    };
    s.announce(&mut w, &r);
    w.run_for(Span::secs(1));
    assert_eq!(change(&mut w), 4);
}

/// The change happened while the daemon was down: its own neighbour rows know the MAC that the hosts still hold.
#[test]
fn a_change_during_a_restart_is_told_after_it() {
    let mut w = settled(3, 1);
    w.kill(2);
    w.frame(1, P2, mac(2), Some(garp(mac(2), ip(1))));
    w.forget(0, mac(1));
    w.run_for(Span::secs(5));
    told(&mut w, 2);
    w.start_with(2, |w| {
        w.devices(2, world::own_mac(2));
        let row = NeighRow {
            dev: BRIDGE,
            ip: ip(1).into(),
            mac: Some(mac(1)),
            state: NeighState::NoArp,
            ext_learned: true,
            router: false,
            protocol: NeighRow::PROTOCOL,
        };
        w.kernel(2, KernelEvent::Neigh(row));
        w.kernel(2, KernelEvent::Synced);
    });
    w.run_for(Span::secs(10));
    let all = told(&mut w, 2);
    assert_eq!(all.len(), 8, "{all:?}");
    assert!(all.iter().all(|(_, t)| *t == everybody(1, 2)));
}

/// A cache as every host has one: it learns from answers, and corrects what it has by what it is told.
type Cache = BTreeMap<IpAddr, Mac>;

/// After a while of rest, whatever happened before, no host holds a MAC that its VTEP knows to be wrong.
#[test]
fn after_a_rest_every_host_holds_the_latest_mac() {
    for seed in 0..80 {
        truth_is_told(seed);
    }
}

fn truth_is_told(seed: u64) {
    const N: usize = 3;
    let rate = if seed.is_multiple_of(3) { 40 } else { 2000 };
    let mut w = World::with(N, MS, |c| c.arp.tell_rate = rate);
    w.run_for(Span::secs(10));
    let mut r = Rng(seed);
    let mut caches: BTreeMap<(usize, IfIndex), Cache> = BTreeMap::new();
    // Somebody with a cache is behind every port.
    for (i, n) in (0..N).zip(100..) {
        w.frame(i, P1, mac(n), None);
        w.frame(i, P2, mac(n + 10), None);
    }
    let listen = |w: &mut World, caches: &mut BTreeMap<(usize, IfIndex), Cache>| {
        for i in 0..N {
            for (port, t) in told(w, i) {
                let cache = caches.entry((i, port)).or_default();
                if let Some(held) = cache.get_mut(&t.ip).filter(|_| t.to == Mac::BROADCAST) {
                    *held = t.mac;
                }
            }
        }
    };
    for _ in 0..60 {
        let (i, port) = (r.below(N as u64) as usize, [P1, P2][r.below(2) as usize]);
        let (m, a) = (mac(r.below(6) as u8 + 1), ip(r.below(3) as u8 + 1));
        match r.below(8) {
            0 => w.forget(i, m),
            1 => w.cut(i, (i + 1) % N),
            2 | 3 => {
                // Some host asks, or hears of it unasked, and believes what its VTEP believes.
                let rows: Vec<_> = binding(&mut w, i, a.into()).into_iter().collect();
                caches.entry((i, port)).or_default().extend(rows.into_iter().map(|m| (IpAddr::from(a), m)));
            }
            _ => {
                w.frame(i, port, m, Some(garp(m, a)));
                // Who is behind the same port hears it, too.
                if binding(&mut w, i, a.into()) == Some(m)
                    && let Some(held) = caches.get_mut(&(i, port)).and_then(|c| c.get_mut(&IpAddr::from(a)))
                {
                    *held = m;
                }
            }
        }
        w.run_for(Span::millis([1, 3, 30, 400][r.below(4) as usize]));
        listen(&mut w, &mut caches);
    }
    w.run_for(Span::secs(120));
    listen(&mut w, &mut caches);
    for ((i, port), cache) in &caches {
        for (ip, held) in cache {
            let Some(now) = binding(&mut w, *i, *ip) else { continue };
            // Behind the port of either host, the hosts hear it themselves.
            let macs = w.macs(*i);
            let on = |m: &Mac| macs.iter().any(|v| v.mac == *m && v.place.to_string() == port_name(*port));
            if on(held) || on(&now) {
                continue;
            }
            assert_eq!(*held, now, "seed {seed}: node {i} {port:?} {ip}");
        }
    }
}

fn port_name(p: IfIndex) -> &'static str {
    if p == P1 { "p1" } else { "p2" }
}

#[test]
fn frames_that_tell_have_the_form_that_hosts_take() {
    // RFC 5227 §3: request, sender and target address equal; padded to 60 octets.
    let f = frame::arp_probe(mac(2), mac(9), ip(1), ip(1));
    let want =
        [&mac(9).0[..], &mac(2).0, &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1], &mac(2).0, &[10, 1, 0, 1], &[0; 6]]
            .concat();
    assert_eq!(f[..38], want);
    assert_eq!((&f[38..42], f.len()), (&[10, 1, 0, 1][..], 60));
    // RFC 4861 §7.2.6: hop limit 255, S=0, O=1, target link-layer address.
    let f = frame::unsolicited_advertisement(mac(2), ip6(1), Some(mac(9)), true);
    assert_eq!((&f[..6], f[21], f[54], f[58]), (&mac(9).0[..], 255, 136, 0b1010_0000));
    assert_eq!(f[78..86], [&[2, 1][..], &mac(2).0].concat());
    assert_ne!(probe_mac(0), mac(2));
}

/// The first hop: hosts that hold an earlier MAC of the gateway are told by their own VTEP, as soon as the bridge has
/// the new one; nothing of it crosses the underlay (PIT-18).
#[test]
fn a_gateways_new_mac_is_told_once_the_bridge_has_it() {
    let gateway = mac(77);
    let mut w = World::with(2, MS, |c| {
        let address = |ip, bits| GatewayAddress::new(ip, bits).expect("it fits");
        let addresses = vec![address(ip(1).into(), 24), address(ip6(1).into(), 64)];
        c.vnis[0].hosts.gateway = Some(Gateway { addresses, mac: gateway, ra: false });
        c.vnis[0].hosts.tell_peers = TellPeers::Always;
    });
    w.run_for(Span::secs(10));
    w.frame(0, P2, mac(11), Some(arp(mac(11), ip(11), ip(1))));
    assert_eq!(told(&mut w, 0), [], "the bridge has another MAC: not true yet");
    w.devices(0, gateway);
    let (four, all) = (everybody(1, 77), Mac([0x33, 0x33, 0, 0, 0, 1]));
    let six = Word { ip: ip6(1).into(), to: all, router: true, ..four };
    // Its link-local address, which IPv6 hosts know their router by.
    let own = Word { ip: "fe80::5054:ff:fe00:4d".parse().expect("an address"), ..six };
    assert_eq!(told(&mut w, 0), [(P1, four), (P2, four), (P1, six), (P2, six), (P1, own), (P2, own)]);
    w.run_for(Span::secs(10));
    assert_eq!(told(&mut w, 0).len(), 18);
    assert_eq!((told(&mut w, 1), told_peers(&mut w, 0)), (vec![], vec![]));
}
