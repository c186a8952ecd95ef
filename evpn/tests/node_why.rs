//! `vtepd why` on whole nodes: what it says is what the tables, the routes and the records say.

mod world;

use evpn::node::About;
use evpn::node::view::{MoveKind, Place, WhyView};
use evpn::types::{Mac, Seq, Span, Vni};
use std::net::{IpAddr, Ipv4Addr};
use world::frames::garp;
use world::{P1, P2, World, mac, own_mac, vni, vtep};

const MS: Span = Span::millis(1);

fn ip(n: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 1, 0, n)
}

fn why_mac(w: &mut World, i: usize, m: Mac) -> WhyView {
    w.why(i, vni(), About::Mac(m)).expect("known")
}

fn rule(v: &WhyView) -> &str {
    v.rule.as_ref().map_or("none", |r| &*r.name)
}

fn said(v: &WhyView) -> String {
    v.because.join(" ")
}

#[test]
fn the_only_claim_wins_and_after_a_hot_move_the_higher_sequence() {
    let mut w = World::converged(3, MS);
    w.frame(0, P1, mac(1), Some(garp(mac(1), ip(1))));
    w.run_for(Span::millis(10));
    let v = why_mac(&mut w, 2, mac(1));
    assert_eq!((rule(&v), v.owner.clone(), v.candidates.len()), ("only-claim", Place::Vtep(vtep(0)), 2));
    assert!(said(&v).contains("behind VTEP 10.255.0.1 with sequence 0"), "{}", said(&v));
    // While the loser's kernel does not answer, both routes are there.
    w.hosts[0].paused = true;
    w.frame(1, P2, mac(1), Some(garp(mac(1), ip(1))));
    w.run_for(Span::millis(5));
    let v = why_mac(&mut w, 2, mac(1));
    assert_eq!((rule(&v), v.owner.clone(), v.seq), ("higher-sequence", Place::Vtep(vtep(1)), Some(Seq(1))));
    let loser = v.candidates.iter().find(|c| c.place == Place::Vtep(vtep(0))).expect("still told");
    let text = &loser.lost_by.as_ref().expect("it lost").text;
    assert_eq!(text, "higher sequence number (RFC 7432 §15, EVPN-MOB-06): 1 against 0");
    let wins: Vec<bool> = v.candidates.iter().map(|c| c.wins).collect();
    assert_eq!(wins.iter().filter(|w| **w).count(), 1, "{wins:?}");
    assert!(v.candidates[0].wins);
    let v = why_mac(&mut w, 1, mac(1));
    assert_eq!((rule(&v), v.owner.clone()), ("higher-sequence", Place::Port("p2".into())));
    assert_eq!((v.candidates[0].from, v.candidates[0].place.clone()), (None, Place::Port("p2".into())));
    assert_eq!(v.history.iter().map(|m| m.kind).collect::<Vec<_>>(), [MoveKind::Hot]);
    // The port that lost it is under guard.
    let v = why_mac(&mut w, 0, mac(1));
    let lost = v.lost.expect("just now");
    assert_eq!((&*lost.port, lost.late_frames, lost.guarded > Span::ZERO), ("p1", 0, true));
}

/// PIT-04
#[test]
fn late_frames_are_counted_in_the_answer() {
    let mut w = World::converged(2, MS);
    w.frame(0, P1, mac(1), None);
    w.run_for(Span::millis(10));
    w.frame(1, P1, mac(1), None);
    w.run_for(Span::millis(10));
    w.frame(0, P1, mac(1), None);
    let v = why_mac(&mut w, 0, mac(1));
    assert_eq!(v.lost.as_ref().map(|l| l.late_frames), Some(1));
    assert!(said(&v).contains("did not win it back (late-frame rule, PIT-04)"), "{}", said(&v));
}

/// EVPN-MOB-12
#[test]
fn a_mac_that_is_gone_has_its_last_owner_and_its_sequence() {
    let mut w = World::converged(2, MS);
    w.frame(0, P1, mac(1), None);
    w.run_for(Span::millis(10));
    w.frame(1, P1, mac(1), None);
    w.run_for(Span::millis(10));
    w.forget(1, mac(1));
    w.run_for(Span::millis(10));
    let v = why_mac(&mut w, 0, mac(1));
    assert_eq!((v.owner.clone(), rule(&v)), (Place::None, "none"));
    assert_eq!(v.memory.as_ref().map(|m| (m.seq, m.ours)), Some((Seq(1), false)));
    assert!(said(&v).contains("Its last owner was VTEP 10.255.0.2 with sequence 1"), "{}", said(&v));
}

/// EVPN-XMOB-06: an IP that went to another MAC.
#[test]
fn an_ip_is_explained_by_its_binding_and_the_owner_of_its_mac() {
    let mut w = World::converged(3, MS);
    w.frame(0, P1, mac(1), Some(garp(mac(1), ip(1))));
    w.run_for(Span::millis(10));
    let v = w.why(2, vni(), About::Ip(ip(1).into())).expect("known");
    let b = v.binding.clone().expect("bound");
    assert_eq!((b.mac, &*b.origin, &*b.answered_by, rule(&v)), (mac(1), "bgp", "kernel", "only-claim"));
    w.frame(1, P1, mac(2), Some(garp(mac(2), ip(1))));
    w.run_for(Span::millis(10));
    for i in 0..3 {
        let v = w.why(i, vni(), About::Ip(ip(1).into())).expect("known");
        assert_eq!(v.mac, Some(mac(2)), "node {i}: {}", said(&v));
        let owner = if i == 1 { Place::Port("p1".into()) } else { Place::Vtep(vtep(1)) };
        assert_eq!((v.owner, v.history.last().map(|m| m.kind)), (owner, Some(MoveKind::ChangedMac)));
        let answers = if i == 1 { "host" } else { "kernel" };
        assert_eq!(v.binding.map(|b| b.answered_by).as_deref(), Some(answers));
    }
    w.forget(1, mac(2));
    w.run_for(Span::millis(10));
    let v = w.why(2, vni(), About::Ip(ip(1).into())).expect("on record");
    assert!(said(&v).contains("bound to no MAC now"), "{}", said(&v));
    assert!(said(&v).contains("last bound to 52:54:00:00:00:02 behind VTEP 10.255.0.2"), "{}", said(&v));
}

#[test]
fn an_address_of_our_own_bridge_is_nobodys() {
    let mut w = World::converged(2, MS);
    w.frame(0, P1, own_mac(1), None);
    w.run_for(Span::millis(10));
    let v = why_mac(&mut w, 1, own_mac(1));
    assert_eq!((v.owner.clone(), rule(&v)), (Place::None, "none"));
    assert!(said(&v).contains("no route can have it"), "{}", said(&v));
    assert!(v.candidates.iter().all(|c| !c.wins));
}

#[test]
fn what_is_not_known_says_what_was_searched() {
    let mut w = World::converged(2, MS);
    let other = Vni::new(200).expect("valid");
    let e = w.why(0, other, About::Mac(mac(1))).expect_err("not configured");
    assert_eq!(e, "VNI 200 is not configured here; configured: 100");
    let e = w.why(0, vni(), About::Mac(mac(1))).expect_err("unknown");
    assert!(e.starts_with("nothing is known of 52:54:00:00:00:01 in VNI 100: it is behind no port"), "{e}");
    let e = w.why(0, vni(), About::Ip(IpAddr::V4(ip(1)))).expect_err("unknown");
    assert!(e.starts_with("nothing is known of 10.1.0.1 in VNI 100: no host here uses it"), "{e}");
}
