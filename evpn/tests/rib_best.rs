//! The order of candidates, rule by rule, and that it does not depend on the order of arrival.

#![allow(clippy::unwrap_used)]

mod rib_support;

use evpn::rib::{Candidate, Import, Rib};
use evpn::types::{PeerId, Rd, Time};
use evpn::wire::{Community, ExtCommunity, Origin};
use proptest::prelude::*;
use rib_support::*;
use std::net::Ipv4Addr;

/// A route for the one MAC: neighbour, eBGP, attributes, next hop.
#[derive(Clone, Debug)]
struct Route {
    peer: u8,
    ebgp: bool,
    attrs: A,
    next_hop: Ipv4Addr,
    rd: Rd,
}

fn route(peer: u8, attrs: A) -> Route {
    Route { peer, ebgp: false, attrs, next_hop: vtep(peer), rd: rd(peer, 1) }
}

impl Route {
    fn via(mut self, n: u8) -> Self {
        self.next_hop = vtep(n);
        self
    }
    fn ebgp(mut self) -> Self {
        self.ebgp = true;
        self
    }
}

fn candidates(routes: &[Route]) -> Vec<Candidate> {
    let mut rib = Rib::new(config());
    rib.add_vni(vni(100), Import::Auto);
    let mut known = Vec::new();
    for r in routes {
        if !known.contains(&r.peer) {
            known.push(r.peer);
            establish(&mut rib, r.peer, !r.ebgp);
        }
        let update = reach(&r.attrs, r.next_hop, vec![mac_ip(r.rd, mac(1), None)]);
        rib.update(PeerId(u32::from(r.peer)), &update, None, Time(0));
    }
    let sorted = rib.mac_candidates(vni(100), mac(1));
    assert_eq!(rib.best_mac(vni(100), mac(1)).as_ref(), sorted.first());
    sorted
}

/// `expected` lists neighbours, best first; every order of arrival must give it.
#[track_caller]
fn check(routes: &[Route], expected: &[u8]) {
    assert!(routes.len() <= 4, "all permutations are tried");
    let mut order: Vec<usize> = (0..routes.len()).collect();
    permute(&mut order, 0, &mut |order| {
        let routes: Vec<Route> = order.iter().map(|i| routes[*i].clone()).collect();
        let got: Vec<u8> = candidates(&routes).iter().map(|c| c.peer.0 as u8).collect();
        assert_eq!(got, expected, "arrival order {order:?}");
    });
}

fn permute(order: &mut Vec<usize>, from: usize, f: &mut dyn FnMut(&[usize])) {
    if from == order.len() {
        return f(order);
    }
    for i in from..order.len() {
        order.swap(from, i);
        permute(order, from + 1, f);
        order.swap(from, i);
    }
}

/// EVPN-BEST-01 (1).
#[test]
fn a_default_gateway_beats_sticky_and_every_sequence() {
    let gateway = attrs().community(ExtCommunity::DEFAULT_GATEWAY);
    check(&[route(2, attrs().seq(9)), route(3, gateway), route(4, attrs().sticky())], &[3, 4, 2]);
}

/// EVPN-BEST-01: among gateways neither sticky nor sequence count, the lowest VTEP decides.
#[test]
fn among_default_gateways_the_sequence_is_not_looked_at() {
    let gateway = || attrs().community(ExtCommunity::DEFAULT_GATEWAY);
    check(&[route(3, gateway().seq(9)), route(4, gateway().sticky()), route(2, gateway())], &[2, 3, 4]);
}

/// EVPN-BEST-01 (3).
#[test]
fn sticky_beats_a_higher_sequence() {
    check(&[route(2, attrs().seq(100)), route(3, attrs().sticky())], &[3, 2]);
}

/// EVPN-BEST-01 (4).
#[test]
fn the_highest_sequence_beats_address_and_local_preference() {
    let preferred = attrs().with(|a| a.local_pref = Some(500));
    check(&[route(2, preferred), route(4, attrs().seq(2)), route(3, attrs().seq(1))], &[4, 3, 2]);
}

/// EVPN-MOB-09: numbers go on past 2^32.
#[test]
fn sequence_zero_beats_the_largest_number_after_a_wrap() {
    check(&[route(2, attrs().seq(u32::MAX)), route(3, attrs()), route(4, attrs().seq(1))], &[4, 3, 2]);
}

/// Three numbers a third of the circle apart: each beats another. The plainly largest stands in for the newest.
#[test]
fn numbers_all_around_the_circle_still_have_one_order() {
    let third = u32::MAX / 3;
    let seqs = [route(2, attrs()), route(3, attrs().seq(third)), route(4, attrs().seq(2 * third))];
    check(&seqs, &[4, 3, 2]);
    // Opposite ends of the circle: neither is newer.
    check(&[route(2, attrs().seq(0)), route(3, attrs().seq(1 << 31))], &[3, 2]);
}

/// EVPN-BEST-02: as a number, not as text.
#[test]
fn the_lowest_vtep_address_beats_local_preference() {
    let preferred = attrs().with(|a| a.local_pref = Some(500));
    check(&[route(10, preferred), route(9, attrs())], &[9, 10]);
}

/// PIT-23, BGP-LLGR-06.
#[test]
fn a_stale_route_loses_against_everything() {
    let stale = |a: A| a.with(|a| a.communities.push(Community(0xffff_0006)));
    let gateway = attrs().community(ExtCommunity::DEFAULT_GATEWAY);
    check(
        &[route(2, stale(gateway)), route(3, attrs()), route(4, stale(attrs().seq(9)))],
        // Among themselves the usual rules.
        &[3, 2, 4],
    );
    assert!(candidates(&[route(2, stale(attrs()))])[0].stale);
}

/// BGP-DEC-01, BGP-DEC-02 in their order; all routes have one VTEP and sequence.
#[test]
fn then_the_rules_of_rfc_4271_decide_one_after_the_other() {
    let at = |peer, a: A| route(peer, a).via(7);
    let lp = |n| attrs().with(|a| a.local_pref = Some(n));
    check(&[at(2, lp(100)), at(3, lp(200)), at(4, lp(50))], &[3, 2, 4]);
    check(&[at(2, attrs().path(&[1, 2])), at(3, attrs().path(&[1]))], &[3, 2]);
    let origin = |o| attrs().with(|a| a.origin = Some(o));
    check(
        &[at(2, origin(Origin::Incomplete)), at(3, origin(Origin::Egp)), at(4, origin(Origin::Igp))],
        &[4, 3, 2],
    );
    check(&[at(2, attrs()), at(3, attrs()).ebgp()], &[3, 2]);
    // Identifiers are those of the neighbours unless ORIGINATOR_ID replaces them.
    check(&[at(3, attrs()), at(2, attrs())], &[2, 3]);
    let reflected = |id, clusters| {
        attrs().with(|a| {
            a.originator_id = Some(vtep(id));
            a.cluster_list = vec![vtep(250); clusters];
        })
    };
    check(&[at(2, reflected(9, 1)), at(3, reflected(8, 1))], &[3, 2]);
    check(&[at(2, reflected(8, 2)), at(3, reflected(8, 1))], &[3, 2]);
    check(&[at(3, reflected(8, 1)), at(2, reflected(8, 1))], &[2, 3]);
}

/// BGP-DEC-02: LOCAL_PREF of an eBGP route is ours to give.
#[test]
fn local_preference_sent_over_ebgp_does_not_count() {
    let mut loud = attrs().path(&[65103]);
    loud.0.local_pref = Some(4_000_000_000);
    let quiet = attrs().path(&[65102]);
    check(&[route(3, loud).via(7).ebgp(), route(2, quiet).via(7).ebgp()], &[2, 3]);
}

/// BGP-DEC-03, the classic: A and C from one AS, B from another. Compared in pairs the result depends on the
/// order; grouped by AS it does not.
#[test]
fn med_counts_within_one_neighbouring_as_only() {
    let med =
        |peer: u8, asn, med| route(peer, attrs().path(&[asn]).with(|a| a.med = Some(med))).via(7).ebgp();
    // Within AS 1 the lower MED wins whatever the identifier; across, the identifier decides.
    check(&[med(2, 1, 20), med(3, 2, 99), med(4, 1, 10)], &[3, 4, 2]);
    check(&[med(2, 1, 20), med(4, 1, 10)], &[4, 2]);
    // Missing is 0.
    let missing = route(4, attrs().path(&[1])).via(7).ebgp();
    check(&[med(2, 1, 1), missing], &[4, 2]);
}

/// EVPN-XMOB-11: the sequence is exposed for every route.
#[test]
fn mac_only_and_mac_ip_routes_are_all_listed_with_their_own_sequence() {
    let mut rib = rib();
    establish(&mut rib, 2, true);
    establish(&mut rib, 3, true);
    announce(&mut rib, 2, &attrs().seq(1), vec![mac_ip(rd(2, 1), mac(1), None)]);
    announce(&mut rib, 2, &attrs().seq(4), vec![mac_ip(rd(2, 1), mac(1), Some(ip(1)))]);
    announce(&mut rib, 3, &attrs().seq(3), vec![mac_ip(rd(3, 1), mac(1), None)]);
    let got: Vec<_> =
        rib.mac_candidates(vni(100), mac(1)).iter().map(|c| (c.peer.0, c.seq.0, c.ip)).collect();
    assert_eq!(got, vec![(2, 4, Some(ip(1))), (3, 3, None), (2, 1, None)]);
    // Equal in all: MAC-only first.
    announce(&mut rib, 2, &attrs().seq(4), vec![mac_ip(rd(2, 1), mac(1), None)]);
    assert_eq!(rib.mac_candidates(vni(100), mac(1))[0].ip, None);
}

fn any_route() -> impl Strategy<Value = Route> {
    let seqs = prop_oneof![Just(0u32), Just(1), Just(u32::MAX), Just(1 << 31), any::<u32>()];
    let marks = (0..6u8, 0..3u8, seqs, 0..3u8);
    let plain = (0..2u32, 0..2u32, 0..2u32, 0..3u32, 7..9u8);
    (2..8u8, marks, plain).prop_map(|(peer, (mark, numbered, seq, clusters), (lp, origin, asn, med, via))| {
        let mut a = attrs();
        match mark {
            0 => a = a.community(ExtCommunity::DEFAULT_GATEWAY),
            1 => a = a.sticky(),
            2 => a.0.communities.push(Community(0xffff_0006)),
            _ => {}
        }
        if numbered > 0 {
            a = a.seq(seq);
        }
        let ebgp = peer >= 5;
        let a = a.path(&[1 + asn]).with(|a| {
            a.local_pref = Some(100 + lp);
            a.origin = Some(if origin == 0 { Origin::Igp } else { Origin::Egp });
            a.med = Some(med);
            a.cluster_list = vec![vtep(250); usize::from(clusters)];
        });
        let route = route(peer, a).via(via);
        if ebgp { route.ebgp() } else { route }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    /// BGP-DEC-03. Each route has its own RD, so that all of them compete after import (EVPN-BEST-04).
    #[test]
    fn the_order_is_the_same_for_every_order_of_arrival(
        (routes, shuffled) in prop::collection::vec(any_route(), 1..9).prop_flat_map(|mut routes| {
            for (i, r) in routes.iter_mut().enumerate() {
                r.rd = rd(200, i as u16);
            }
            (Just(routes.clone()), Just(routes).prop_shuffle())
        })
    ) {
        prop_assert_eq!(candidates(&routes), candidates(&shuffled));
    }
}
