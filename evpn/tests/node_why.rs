//! `vtepd why` on whole nodes: what it says is what the tables, the routes and the records say.

mod world;

use evpn::node::view::{AnsweredBy, MoveKind, Place, WhyView};
use evpn::node::{About, MoveStep};
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
    assert_eq!(
        (b.mac, &*b.origin, b.answered_by, rule(&v)),
        (mac(1), "bgp", AnsweredBy::Kernel, "only-claim")
    );
    w.frame(1, P1, mac(2), Some(garp(mac(2), ip(1))));
    w.run_for(Span::millis(10));
    for i in 0..3 {
        let v = w.why(i, vni(), About::Ip(ip(1).into())).expect("known");
        assert_eq!(v.mac, Some(mac(2)), "node {i}: {}", said(&v));
        let owner = if i == 1 { Place::Port("p1".into()) } else { Place::Vtep(vtep(1)) };
        assert_eq!((v.owner, v.history.last().map(|m| m.kind)), (owner, Some(MoveKind::ChangedMac)));
        let answers = if i == 1 { AnsweredBy::Owner } else { AnsweredBy::Kernel };
        assert_eq!(v.binding.map(|b| b.answered_by), Some(answers));
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

/// EVPN-MOB-08: the loser of a tie has withdrawn its own claim; what decided is told all the same.
#[test]
fn the_loser_of_a_tie_says_so() {
    let mut w = World::converged(2, Span::millis(5));
    w.frame(1, P2, mac(1), None);
    w.frame(0, P1, mac(1), None);
    w.run_for(Span::millis(200));
    let v = why_mac(&mut w, 1, mac(1));
    assert_eq!((v.owner.clone(), rule(&v)), (Place::Vtep(vtep(0)), "only-claim"));
    let text = said(&v);
    assert!(text.contains("Port p2 here lost it "), "{text}");
    assert!(
        text.contains("to VTEP 10.255.0.1, whose VTEP address is the lower one at equal sequence numbers 0"),
        "{text}"
    );
    // After a hot move it is the sequence.
    w.run_for(Span::secs(2));
    w.frame(1, P2, mac(1), Some(garp(mac(1), ip(1))));
    w.run_for(Span::millis(100));
    let text = said(&why_mac(&mut w, 0, mac(1)));
    assert!(
        text.contains("to VTEP 10.255.0.2, which has the higher sequence number, 1 against 0 (EVPN-MOB-06)"),
        "{text}"
    );
}

/// PIT-04
#[test]
fn a_release_names_its_port_and_its_end() {
    let mut w = World::converged(2, MS);
    w.frame(0, P1, mac(1), Some(garp(mac(1), ip(1))));
    w.run_for(Span::millis(10));
    w.step(0, mac(1), &[], MoveStep::Release { timeout: Some(Span::secs(30)) });
    w.run_for(Span::secs(10));
    let v = w.why(0, vni(), About::Ip(ip(1).into())).expect("known");
    for text in [said(&v), said(&why_mac(&mut w, 0, mac(1)))] {
        assert!(
            text.contains("released it here: for another 20.0 s frames from port p1 are no claim"),
            "{text}"
        );
    }
    w.run_for(Span::secs(21));
    let text = said(&why_mac(&mut w, 0, mac(1)));
    assert!(!text.contains("released"), "{text}");
}

/// What is refused says by which of the reasons, who is refused, and until when.
#[test]
fn a_refusal_says_who_and_why_and_until_when() {
    // Nodes 0 and 1 are the domain, node 2 is not.
    let mut w = World::with(3, MS, |c| {
        c.vnis[0].mobility.domain = if c.vtep == vtep(2) {
            vec![]
        } else {
            vec!["10.255.0.1/32".parse().expect("valid"), "10.255.0.2/32".parse().expect("valid")]
        };
    });
    w.run_for(Span::secs(10));
    w.frame(0, P1, mac(1), Some(garp(mac(1), ip(1))));
    w.run_for(Span::secs(2));
    w.frame(2, P1, mac(1), Some(garp(mac(1), ip(1))));
    w.run_for(Span::millis(10));
    let v = why_mac(&mut w, 1, mac(1));
    assert_eq!((v.owner.clone(), rule(&v)), (Place::Vtep(vtep(0)), "not-admitted"));
    let text = said(&v);
    assert!(text.contains("VTEP 10.255.0.3 claims it and is refused: outside the mobility domain"), "{text}");

    let mut w = World::with(3, MS, |c| c.vnis[0].mobility.moves_per_minute = 1);
    w.run_for(Span::secs(10));
    w.frame(0, P1, mac(1), Some(garp(mac(1), ip(1))));
    w.run_for(Span::secs(2));
    for node in [1, 2] {
        w.frame(node, P1, mac(1), Some(garp(mac(1), ip(1))));
        w.run_for(Span::secs(2));
    }
    let text = said(&why_mac(&mut w, 2, mac(1)));
    assert!(text.contains("Port p1 of this VTEP claims it and is refused: too many moves within a minute; it is tried again in "), "{text}");
}

/// A MAC that is nowhere because there is no room for it.
#[test]
fn limits_that_are_reached_are_named_where_nothing_is_known() {
    let mut w =
        World::with(2, MS, |c| (c.vnis[0].mobility.port_mac_limit, c.vnis[0].mobility.mac_limit) = (2, 3));
    w.run_for(Span::secs(10));
    for n in 1..=3 {
        w.frame(0, P1, mac(n), None);
    }
    w.run_for(Span::millis(10));
    let e = w.why(0, vni(), About::Mac(mac(3))).expect_err("not learned");
    assert!(
        e.ends_with("What is not learned now: port p1 takes no new MAC (`port-mac-limit` 2 is reached)"),
        "{e}"
    );
    w.frame(0, P2, mac(4), None);
    w.frame(0, P2, mac(5), None);
    let e = w.why(0, vni(), About::Mac(mac(5))).expect_err("not learned");
    assert!(e.contains("VNI 100 takes no new local MAC (`mac-limit` 3 is reached)"), "{e}");
    let e = w.why(1, vni(), About::Mac(mac(5))).expect_err("nobody told");
    assert!(!e.contains("not learned now"), "{e}");
}
