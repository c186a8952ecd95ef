//! Duplicate checks of hosts: carried to the owner's VTEP, never answered from memory, and what silence means (PIT-14,
//! HOST-ARP-03, HOST-DAD-02, PROXY-REPLY-04).

mod world;

use bytes::Bytes;
use evpn::node::{Config, Flooding, Input, Show, Unknown, view};
use evpn::types::{IfIndex, Mac, Span};
use evpn::wire::frame::{self, Body};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use world::steps::{MS, garp, ip, prepare};
use world::{Guest, P1, P2, VXLAN, World, frames, mac, probe_mac, vtep};

fn world_with(tweak: impl Fn(&mut Config)) -> World {
    let mut w = World::with(3, MS, |c| {
        c.arp.claim_time = Span::millis(10);
        tweak(c);
    });
    w.run_for(Span::secs(10));
    w
}

fn v4(n: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 1, 0, n)
}

fn v6(n: u8) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, n.into())
}

/// RFC 5227 §2.1.1, by hand.
fn probe(m: u8, n: u8) -> Bytes {
    frames::arp(mac(m), Ipv4Addr::UNSPECIFIED, v4(n))
}

fn dad(m: u8, n: u8) -> Bytes {
    frame::neighbor_solicitation(mac(m), Ipv6Addr::UNSPECIFIED, None, v6(n))
}

/// The owner's advertisement to all nodes.
fn na(m: u8, n: u8) -> Bytes {
    frame::neighbor_advertisement(mac(m), v6(n), None, false, true)
}

fn sent(w: &mut World, i: usize) -> Vec<(IpAddr, Bytes)> {
    std::mem::take(&mut w.hosts[i].encapsulated)
}

fn hear(w: &mut World, i: usize, port: IfIndex, m: u8, f: &Bytes) {
    w.frame(i, port, mac(m), Some(f.clone()));
}

fn bound(w: &mut World, i: usize, a: IpAddr) -> Option<Mac> {
    match w.ask(i, Show::Hosts) {
        view::Rows::Hosts(v) => v.iter().find(|h| h.ip == a).map(|h| h.mac),
        other => panic!("{other:?}"),
    }
}

fn count(w: &mut World, i: usize, name: &str) -> u64 {
    w.status(i).counters.get(name).copied().unwrap_or(0)
}

/// MAC 1 with both addresses behind node 0.
fn owner(w: &mut World, answers: bool) {
    hear(w, 0, P1, 1, &garp(mac(1), ip(1)));
    hear(w, 0, P1, 1, &frame::unsolicited_advertisement(mac(1), v6(1), None, false));
    if answers {
        w.guests.push(Guest { node: 0, port: P1, mac: mac(1), ip: v4(1) });
    }
    w.run_for(Span::millis(50));
    for i in 0..3 {
        sent(w, i);
        w.hosts[i].emitted.clear();
    }
}

#[test]
fn a_probe_for_an_address_that_is_bound_elsewhere_goes_to_its_owners_vtep_and_to_no_other() {
    let mut w = world_with(|_| {});
    owner(&mut w, true);
    hear(&mut w, 1, P1, 2, &probe(2, 1));
    assert_eq!(sent(&mut w, 1), [(vtep(0), probe(2, 1))], "as it was said");
    hear(&mut w, 1, P1, 2, &dad(2, 1));
    let all = sent(&mut w, 1);
    assert!(all.contains(&(vtep(0), dad(2, 1))) && all.iter().all(|(to, _)| *to == vtep(0)), "{all:?}");
    // FRR would not carry its answer back: the owner is asked in a way that it answers by unicast.
    assert!(all.iter().any(|(_, f)| f[..6] == mac(1).0 && f[6..12] == probe_mac(1).0), "{all:?}");
    assert!(w.hosts[1].emitted.is_empty(), "nothing is answered from memory: {:?}", w.hosts[1].emitted);
}

#[test]
fn nobody_is_asked_about_the_askers_own_address_or_one_of_this_vtep() {
    let mut w = world_with(|_| {});
    owner(&mut w, true);
    // It has moved here, and checks what it has (HOST-DAD-02).
    w.guests[0].node = 1;
    hear(&mut w, 1, P1, 1, &garp(mac(1), ip(1)));
    w.run_for(Span::millis(50));
    sent(&mut w, 1);
    hear(&mut w, 1, P1, 1, &probe(1, 1));
    hear(&mut w, 1, P1, 1, &dad(1, 1));
    hear(&mut w, 1, P2, 2, &probe(2, 1));
    hear(&mut w, 1, P2, 2, &dad(2, 1));
    assert_eq!(sent(&mut w, 1), []);
    assert_eq!(bound(&mut w, 1, ip(1)), Some(mac(1)));
}

#[test]
fn an_address_that_nobody_is_known_to_have_is_looked_for_at_every_vtep() {
    let mut w = world_with(|_| {});
    hear(&mut w, 1, P1, 2, &probe(2, 9));
    assert_eq!(sent(&mut w, 1), [(vtep(0), probe(2, 9)), (vtep(2), probe(2, 9))]);
}

/// PROXY-FLOOD-01, PIT-14: as other questions for addresses that nobody has told; an owner that is known is asked all the same.
#[test]
fn where_unknown_targets_stay_at_home_so_do_checks_of_unknown_addresses_and_no_others() {
    for (unknown, all) in [(Unknown::Replicate, true), (Unknown::Unicast, false), (Unknown::Drop, false)] {
        for flooding in [Flooding::Replicate, Flooding::None] {
            let mut w = world_with(|c| {
                c.vnis[0].hosts.unknown = unknown;
                c.vnis[0].flooding = flooding;
            });
            owner(&mut w, true);
            for (f, n) in [(probe(2, 9), 1), (dad(2, 9), 2)] {
                hear(&mut w, 1, P1, 2, &f);
                let to: Vec<IpAddr> = sent(&mut w, 1).into_iter().map(|(to, _)| to).collect();
                let expected = if all { vec![vtep(0), vtep(2)] } else { vec![] };
                assert_eq!(to, expected, "{unknown:?} {flooding:?}");
                let kept = if all { 0 } else { n };
                assert_eq!(count(&mut w, 1, "duplicate_checks_kept_here"), kept);
            }
            hear(&mut w, 1, P1, 2, &probe(2, 1));
            assert_eq!(sent(&mut w, 1), [(vtep(0), probe(2, 1))], "{unknown:?} {flooding:?}");
            hear(&mut w, 1, P1, 2, &dad(2, 1));
            assert!(sent(&mut w, 1).contains(&(vtep(0), dad(2, 1))), "{unknown:?} {flooding:?}");
        }
    }
}

#[test]
fn a_bridge_that_floods_by_itself_is_left_to_it() {
    let mut w = world_with(|c| c.vnis[0].arp_suppression = false);
    owner(&mut w, true);
    hear(&mut w, 1, P1, 2, &probe(2, 1));
    assert_eq!(sent(&mut w, 1), []);
}

/// PIT-07: a filter on the port may have dropped it.
#[test]
fn what_the_bridge_does_not_let_in_is_not_carried_past_it() {
    let mut w = world_with(|_| {});
    owner(&mut w, true);
    w.input(1, Input::Frame { port: P1, bytes: probe(2, 1) });
    w.run_for(Span::millis(50));
    assert_eq!(sent(&mut w, 1), []);
    w.hosts[1].node.handle(Input::Frame { port: P1, bytes: probe(2, 1) }, w.now);
    hear(&mut w, 1, P1, 2, &garp(mac(2), ip(7)));
    assert_eq!(sent(&mut w, 1), [(vtep(0), probe(2, 1))], "the table shows it a moment later");
}

#[test]
fn an_advertisement_to_all_is_carried_back_to_whoever_has_checked_and_otherwise_to_nobody() {
    let mut w = world_with(|_| {});
    owner(&mut w, false);
    hear(&mut w, 0, P1, 1, &na(1, 1));
    assert_eq!(sent(&mut w, 0), [], "nobody has asked");
    hear(&mut w, 1, P1, 2, &dad(2, 1));
    w.run_for(Span::millis(5));
    hear(&mut w, 0, P1, 1, &na(1, 1));
    assert_eq!(sent(&mut w, 0), [(vtep(1), na(1, 1))]);
    hear(&mut w, 0, P1, 1, &na(1, 1));
    assert_eq!(sent(&mut w, 0), [], "once");
    w.run_for(Span::millis(300));
    assert_eq!(count(&mut w, 1, "duplicate_checks_unanswered"), 0);
    // The asker's route is not here yet: to all.
    w.input(0, Input::Frame { port: VXLAN, bytes: dad(9, 1) });
    hear(&mut w, 0, P1, 1, &na(1, 1));
    assert_eq!(sent(&mut w, 0), [(vtep(1), na(1, 1)), (vtep(2), na(1, 1))]);
    // Late.
    w.input(0, Input::Frame { port: VXLAN, bytes: dad(9, 1) });
    w.run_for(Span::secs(3));
    hear(&mut w, 0, P1, 1, &na(1, 1));
    assert_eq!(sent(&mut w, 0), []);
}

#[test]
fn an_answer_to_our_own_question_is_handed_on_to_the_host_that_checks() {
    let mut w = world_with(|_| {});
    owner(&mut w, false);
    hear(&mut w, 1, P1, 2, &dad(2, 1));
    w.hosts[1].emitted.clear();
    let to = Some((probe_mac(1), Ipv6Addr::LOCALHOST));
    let answer = frame::neighbor_advertisement(mac(1), v6(1), to, false, true);
    w.input(1, Input::Frame { port: VXLAN, bytes: answer.clone() });
    let [(port, f)]: [(IfIndex, Bytes); 1] = w.hosts[1].emitted.clone().try_into().expect("one");
    assert_eq!(port, P1);
    let f = frame::parse(&f).expect("our own");
    let Body::NeighborAdvertisement(n) = f.body else { panic!("{f:?}") };
    assert_eq!((n.target, n.tlla, n.solicited, f.src), (v6(1), Some(mac(1)), false, mac(1)));
    assert!(n.dst.is_multicast(), "RFC 4862 §5.4.4: it has no address to be answered at");
    // Nobody checks any more.
    w.hosts[1].emitted.clear();
    w.input(1, Input::Frame { port: VXLAN, bytes: answer });
    assert_eq!(w.hosts[1].emitted, []);
}

#[test]
fn silence_gives_the_prober_the_address_at_once_when_it_announces_it() {
    let mut w = world_with(|_| {});
    owner(&mut w, false);
    for m in [2, 3] {
        hear(&mut w, 1, P1, m, &probe(m, 1));
    }
    w.run_for(Span::millis(250));
    assert_eq!(count(&mut w, 1, "duplicate_checks_unanswered"), 2);
    assert_eq!(bound(&mut w, 1, ip(1)), Some(mac(1)), "a check alone moves nothing (HOST-ARP-01)");
    w.run_for(Span::secs(7));
    hear(&mut w, 1, P1, 2, &garp(mac(2), ip(1)));
    assert_eq!(bound(&mut w, 1, ip(1)), Some(mac(2)), "no further question");
    assert_eq!(count(&mut w, 1, "claims_checked"), 0);
    w.run_for(Span::millis(5));
    assert_eq!(bound(&mut w, 2, ip(1)), Some(mac(2)));
    // That was said of the old owner; the new one is asked as any.
    hear(&mut w, 1, P1, 3, &garp(mac(3), ip(1)));
    assert_eq!(bound(&mut w, 1, ip(1)), Some(mac(2)));
    assert_eq!(count(&mut w, 1, "claims_checked"), 1);
}

#[test]
fn an_answered_check_and_an_old_one_give_nothing() {
    let mut w = world_with(|_| {});
    owner(&mut w, true);
    hear(&mut w, 1, P1, 2, &probe(2, 1));
    w.run_for(Span::millis(250));
    assert_eq!(
        (count(&mut w, 1, "duplicate_checks_answered"), count(&mut w, 1, "duplicate_checks_unanswered")),
        (1, 0)
    );
    hear(&mut w, 1, P1, 2, &garp(mac(2), ip(1)));
    assert_eq!(bound(&mut w, 1, ip(1)), Some(mac(1)));
    w.run_for(Span::millis(20));
    assert_eq!(w.duplicates(1).len(), 1, "who does not heed the answer is in a conflict");
    // Unanswered, and long ago.
    let mut w = world_with(|_| {});
    owner(&mut w, false);
    hear(&mut w, 1, P1, 2, &probe(2, 1));
    w.run_for(Span::secs(31));
    hear(&mut w, 1, P1, 2, &garp(mac(2), ip(1)));
    assert_eq!(bound(&mut w, 1, ip(1)), Some(mac(1)), "it is asked once more");
}

#[test]
fn a_prepared_move_is_not_asked_for_at_all() {
    let mut w = world_with(|_| {});
    owner(&mut w, true);
    w.step(1, mac(2), &[ip(1)], prepare("p1"));
    hear(&mut w, 1, P1, 2, &probe(2, 1));
    assert_eq!(sent(&mut w, 1), []);
    hear(&mut w, 1, P1, 2, &garp(mac(2), ip(1)));
    assert_eq!(bound(&mut w, 1, ip(1)), Some(mac(2)));
}

#[test]
fn a_flood_of_checks_is_carried_at_a_rate_and_takes_no_memory() {
    let mut w = world_with(|_| {});
    owner(&mut w, true);
    hear(&mut w, 1, P1, 2, &garp(mac(2), ip(2)));
    w.run_for(MS);
    sent(&mut w, 1);
    for _ in 0..1000 {
        hear(&mut w, 1, P1, 2, &probe(2, 1));
        w.run_for(MS);
    }
    let n = sent(&mut w, 1).len();
    assert!((100..=150).contains(&n), "{n} in a second");
    assert!(count(&mut w, 1, "duplicate_checks_over_rate") > 800);
}
