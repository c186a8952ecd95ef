//! `show hosts` and the host side of `why ip` on whole nodes: place, origin, age, confirmation, and who answers (PROXY-REPLY-01,
//! -02): the kernel for remote hosts by a row, never for local ones.
#![allow(clippy::unwrap_used, reason = "tests may panic")]

mod world;

use bytes::Bytes;
use evpn::fabric::{KernelEvent, NeighRow, NeighState};
use evpn::node::view::{AnsweredBy, HostView, Place, Rows, WhyView};
use evpn::node::{About, Command, Flooding, MacFilter, PlaceFilter, Query, Reply, Show};
use evpn::types::{Mac, Span};
use std::net::{IpAddr, Ipv4Addr};
use world::frames::{arp, garp};
use world::steps::{activate, prepare};
use world::{BRIDGE, Guest, P1, P2, World, mac, own_mac, vni, vtep};

const MS: Span = Span::millis(1);

fn ip(n: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 1, 0, n)
}

/// A slice with this filter, from the start or after a cursor.
fn slice(
    w: &mut World,
    i: usize,
    filter: MacFilter,
    cursor: Option<String>,
) -> (Vec<HostView>, Option<String>) {
    let q = Query { show: Show::Hosts, filter, cursor, limit: 256 };
    match w.command(i, Command::Show(q)) {
        Reply::Page(p) => match p.rows {
            Rows::Hosts(rows) => (rows, p.next),
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    }
}

fn hosts(w: &mut World, i: usize) -> Vec<HostView> {
    slice(w, i, MacFilter::default(), None).0
}

fn host(w: &mut World, i: usize, n: u8) -> HostView {
    let all = hosts(w, i);
    all.iter().find(|h| h.ip == IpAddr::V4(ip(n))).unwrap_or_else(|| panic!("{all:?}")).clone()
}

fn why(w: &mut World, i: usize, n: u8) -> WhyView {
    w.why(i, vni(), About::Ip(ip(n).into())).expect("known")
}

fn said(v: &WhyView) -> String {
    v.because.join(" ")
}

/// PROXY-MAINT-02: the age is that of the binding, the confirmation the host's last word, and an answer is called one.
#[test]
fn a_host_has_place_origin_age_and_last_confirmation() {
    let mut w = World::converged(2, MS);
    w.guests.push(Guest { node: 0, port: P1, mac: mac(1), ip: ip(1) });
    w.frame(0, P1, mac(1), Some(garp(mac(1), ip(1))));
    w.run_for(Span::secs(100));
    let h = host(&mut w, 0, 1);
    assert_eq!((&*h.origin, h.place, h.answered_by), ("arp", Place::Port("p1".into()), AnsweredBy::Owner));
    assert_eq!((h.age, h.confirmed), (Span::secs(100), Some(Span::secs(100))));
    let h = host(&mut w, 1, 1);
    assert_eq!((&*h.origin, h.place, h.answered_by), ("bgp", Place::Vtep(vtep(0)), AnsweredBy::Kernel));
    w.run_for(Span::secs(200));
    let h = host(&mut w, 0, 1);
    assert_eq!((&*h.origin, h.age), ("answer", Span::secs(300)));
    assert!(h.confirmed.is_some_and(|t| t < Span::secs(100)), "{h:?}");
    // It speaks by itself again.
    w.frame(0, P1, mac(1), Some(arp(mac(1), ip(1), ip(9))));
    let h = host(&mut w, 0, 1);
    assert_eq!((&*h.origin, h.age, h.confirmed), ("arp", Span::secs(300), Some(Span::ZERO)));
    // A move brings the binding along, as old as it is; another MAC begins anew.
    w.guests[0] = Guest { node: 1, port: P2, ..w.guests[0] };
    w.frame(1, P2, mac(1), None);
    w.run_for(Span::millis(5));
    let h = host(&mut w, 1, 1);
    assert_eq!((&*h.origin, h.place.clone()), ("moved", Place::Port("p2".into())));
    assert!(h.age > Span::secs(299) && h.answered_by == AnsweredBy::Owner, "{h:?}");
    w.guests.clear();
    w.frame(0, P2, mac(2), Some(garp(mac(2), ip(1))));
    w.run_for(Span::millis(10));
    assert_eq!(host(&mut w, 0, 1).age, Span::millis(10));
}

fn nth(n: u32) -> (Mac, Ipv4Addr) {
    let [_, a, b, c] = n.to_be_bytes();
    (Mac([0x52, 0x54, 1, a, b, c]), Ipv4Addr::from(0x0a01_0000 + n + 1))
}

#[test]
fn hosts_are_paged_and_filtered_by_every_column_that_places_them() {
    const HOSTS: u32 = 600;
    let mut w = World::converged(2, MS);
    for n in 0..HOSTS {
        let (m, a) = nth(n);
        w.frame((n % 2) as usize, if n % 3 == 0 { P2 } else { P1 }, m, Some(garp(m, a)));
    }
    w.run_for(Span::secs(2));
    let whole = |w: &mut World, f: &MacFilter| {
        let (mut all, mut cursor) = (Vec::new(), None);
        loop {
            let (rows, next) = slice(w, 0, f.clone(), cursor);
            assert!(rows.len() <= 256);
            all.extend(rows);
            match next {
                Some(n) => cursor = Some(n),
                None => return all,
            }
        }
    };
    let all = whole(&mut w, &MacFilter::default());
    let ips: Vec<IpAddr> = all.iter().map(|h| h.ip).collect();
    let expected: Vec<IpAddr> = (0..HOSTS).map(|n| nth(n).1.into()).collect();
    assert_eq!(ips, expected, "each once, in order");
    let at = |place: PlaceFilter| MacFilter { place, ..MacFilter::default() };
    let port = at(PlaceFilter { port: Some("p2".into()), vtep: None });
    let behind = whole(&mut w, &port);
    assert!(
        behind.len() == 100 && behind.iter().all(|h| h.place == Place::Port("p2".into())),
        "{}",
        behind.len()
    );
    let remote = whole(&mut w, &at(PlaceFilter { port: None, vtep: Some(vtep(1)) }));
    assert!(
        remote.len() == 300 && remote.iter().all(|h| h.place == Place::Vtep(vtep(1))),
        "{}",
        remote.len()
    );
    assert_eq!(whole(&mut w, &at(PlaceFilter { port: Some("p9".into()), vtep: None })), []);
    let (m, a) = nth(77);
    for f in [
        MacFilter { mac: Some(m), ..MacFilter::default() },
        MacFilter { ip: Some(a.into()), vni: Some(vni()), ..MacFilter::default() },
    ] {
        let rows = whole(&mut w, &f);
        assert_eq!(rows.iter().map(|h| (h.mac, h.ip)).collect::<Vec<_>>(), [(m, a.into())]);
    }
    let both = MacFilter { mac: Some(m), ip: Some(nth(78).1.into()), ..MacFilter::default() };
    assert_eq!(whole(&mut w, &both), []);
}

/// Who answers is what is so, not what is meant to be.
#[test]
fn who_answers_is_said_with_the_reason() {
    let mut w = World::converged(2, MS);
    w.frame(0, P1, mac(1), Some(garp(mac(1), ip(1))));
    w.hosts[1].paused = true;
    w.run_for(Span::millis(10));
    // Its row waits to be written.
    let h = host(&mut w, 1, 1);
    assert_eq!(h.answered_by, AnsweredBy::Owner, "{h:?}");
    assert!(h.answered_why.contains("still to be written"), "{h:?}");
    w.hosts[1].paused = false;
    w.run_for(Span::millis(10));
    w.input(1, evpn::node::Input::Wall { unix: 0 });
    assert_eq!(host(&mut w, 1, 1).answered_by, AnsweredBy::Kernel);
    // The port of the host goes down: its MAC is still in the table, and nobody is there.
    w.devices_with(0, own_mac(0), &[(P1, "p1", false)]);
    let h = host(&mut w, 0, 1);
    assert_eq!((h.answered_by, &*h.answered_why), (AnsweredBy::Nobody, "port p1 has no carrier"));
}

#[test]
fn without_suppression_the_owner_answers_and_without_flooding_nobody() {
    for (flooding, by, why) in [
        (Flooding::Replicate, AnsweredBy::Owner, "questions are flooded to its VTEP"),
        (Flooding::None, AnsweredBy::Nobody, "nothing is flooded"),
    ] {
        let mut w = World::with(2, MS, |c| {
            c.vnis[0].arp_suppression = false;
            c.vnis[0].flooding = flooding;
        });
        w.run_for(Span::secs(10));
        w.frame(0, P1, mac(1), Some(garp(mac(1), ip(1))));
        w.run_for(Span::millis(10));
        let h = host(&mut w, 1, 1);
        assert_eq!(h.answered_by, by, "{h:?}");
        assert!(h.answered_why.contains(why), "{h:?}");
        assert_eq!(w.neigh_row(1, ip(1).into()), None);
    }
}

/// A guest that has been activated and says nothing is nobody yet; what its hypervisor has named is called so (PIT-06).
#[test]
fn an_activated_guest_answers_when_it_has_been_heard() {
    let mut w = World::converged(2, MS);
    w.step(1, mac(1), &[ip(7).into()], prepare("p1"));
    w.run_for(Span::millis(5));
    w.step(1, mac(1), &[], activate(None));
    w.run_for(Span::millis(50));
    let h = host(&mut w, 1, 7);
    assert_eq!((&*h.origin, h.answered_by), ("prepared", AnsweredBy::Nobody), "{h:?}");
    assert!(h.answered_why.contains("has not been heard"), "{h:?}");
    w.frame(1, P1, mac(1), Some(garp(mac(1), ip(7))));
    w.run_for(Span::millis(5));
    let h = host(&mut w, 1, 7);
    assert_eq!((&*h.origin, h.answered_by), ("arp", AnsweredBy::Owner), "{h:?}");
}

/// PIT-27: rows of an earlier run answer, bound or not; a peer that confirms them takes them over.
#[test]
fn rows_found_at_the_start_are_shown_until_they_are_confirmed_or_swept() {
    let mut w = World::converged(2, MS);
    w.frame(1, P1, mac(2), Some(garp(mac(2), ip(2))));
    w.run_for(Span::millis(10));
    w.kill(0);
    w.start_with(0, |w| {
        w.devices(0, own_mac(0));
        for n in [1, 2, 3] {
            w.kernel(0, KernelEvent::Neigh(neigh(n)));
        }
        w.kernel(0, KernelEvent::Synced);
    });
    let all = hosts(&mut w, 0);
    assert_eq!(all.iter().map(|h| h.ip).collect::<Vec<_>>(), [1, 2, 3].map(|n| IpAddr::V4(ip(n))));
    assert!(all.iter().all(|h| h.origin == "adopted" && h.answered_by == AnsweredBy::Kernel), "{all:?}");
    assert!(all.iter().all(|h| h.confirmed.is_none()), "{all:?}");
    w.run_for(Span::secs(10));
    let all = hosts(&mut w, 0);
    assert_eq!(all.iter().map(|h| (h.ip, &*h.origin)).collect::<Vec<_>>(), [(ip(2).into(), "bgp")]);
}

fn neigh(n: u8) -> NeighRow {
    NeighRow {
        dev: BRIDGE,
        ip: ip(n).into(),
        mac: Some(mac(n)),
        state: NeighState::NoArp,
        ext_learned: true,
        router: false,
        protocol: NeighRow::PROTOCOL,
    }
}

/// Open questions, the next confirmation, who holds it and what hosts were told: PROXY-MAINT-02, PROXY-LEARN-05.
#[test]
fn why_ip_tells_of_questions_holders_and_of_what_hosts_were_told() {
    let mut w = World::converged(2, MS);
    w.frame(0, P1, mac(1), Some(garp(mac(1), ip(1))));
    w.frame(0, P2, mac(3), Some(arp(mac(3), ip(3), ip(1))));
    w.run_for(Span::secs(20));
    let v = why(&mut w, 0, 1);
    let h = v.host_side.clone().unwrap();
    assert_eq!((h.holders, h.questions, h.told), (vec![mac(3)], vec![], None));
    assert!(h.next_question.is_some_and(|t| t > Span::secs(150) && t < Span::secs(240)), "{v:?}");
    let text = said(&v);
    assert!(text.contains("The host itself answers ARP and ND for it: it is behind port p1"), "{text}");
    assert!(text.contains("Unless it speaks, it is asked to confirm the address in"), "{text}");
    assert!(text.contains(&format!("Known to hold it here: {}.", mac(3))), "{text}");
    // The address takes another MAC at the other VTEP.
    w.frame(1, P1, mac(2), Some(garp(mac(2), ip(1))));
    w.run_for(Span::secs(5));
    let v = why(&mut w, 0, 1);
    let t = v.host_side.clone().unwrap().told.unwrap();
    assert_eq!((t.mac, t.rounds, t.of, t.unicasts, t.vteps), (mac(2), 4, 4, 1, 0));
    assert!(t.broadcasts >= 3, "{t:?}");
    let text = said(&v);
    assert!(
        text.contains("This VTEP's kernel answers ARP and ND for it: it has the row of a remote host."),
        "{text}"
    );
    assert!(text.contains(&format!("Hosts were told of {} ", mac(2))), "{text}");
    assert!(text.contains("4 of 4 rounds: "), "{text}");
    // A sign of life that names an address, of a host that does not answer.
    w.frame(0, P2, mac(5), Some(dad(mac(5))));
    w.run_for(Span::millis(2500));
    let a = IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, 5]);
    w.frame(1, P2, mac(6), Some(na(mac(6))));
    w.run_for(Span::millis(5));
    let v = w.why(0, vni(), About::Ip(a)).expect("bound elsewhere");
    let q = &v.host_side.clone().unwrap().questions;
    assert_eq!(
        q.iter().map(|q| (q.mac, &*q.port, q.asked)).collect::<Vec<_>>(),
        [(mac(5), "p2", 2)],
        "{v:?}"
    );
    assert!(
        said(&v).contains(&format!("{} has been asked for it 2 times on port p2", mac(5))),
        "{}",
        said(&v)
    );
}

/// A duplicate check for `fd00::5`.
fn dad(m: Mac) -> Bytes {
    let target = "fd00::5".parse().unwrap();
    evpn::wire::frame::neighbor_solicitation(m, std::net::Ipv6Addr::UNSPECIFIED, None, target)
}

/// `fd00::5` announces itself.
fn na(m: Mac) -> Bytes {
    evpn::wire::frame::unsolicited_advertisement(m, "fd00::5".parse().unwrap(), None, false)
}
