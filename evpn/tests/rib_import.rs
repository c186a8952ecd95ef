//! Adj-RIB-In, eligibility and import: which routes become candidates and flood entries.

#![allow(clippy::unwrap_used)]

mod rib_support;

use evpn::rib::{Change, Import, WhyNot};
use evpn::types::{Asn, EthTag, Label, PeerId, Time};
use evpn::wire::{AsPath, EvpnRoute, ExtCommunity, Family, MacIp, MpUnreach, Nlri, Treatment, Update};
use rib_support::*;
use std::net::Ipv4Addr;

#[test]
fn a_mac_ip_route_is_a_candidate_for_its_mac_and_its_ip() {
    let mut rib = rib();
    let peer = establish(&mut rib, 2, true);
    announce(&mut rib, 2, &attrs().seq(7), vec![mac_ip(rd(2, 1), mac(1), Some(ip(1)))]);
    assert_eq!(rib.take_changes(10), vec![Change::Mac(vni(100), mac(1))]);
    let by_mac = rib.mac_candidates(vni(100), mac(1));
    assert_eq!(by_mac, rib.ip_candidates(vni(100), ip(1)));
    assert_eq!(by_mac.len(), 1);
    let c = &by_mac[0];
    assert_eq!((c.peer, c.ip, c.vtep, c.label), (peer, Some(ip(1)), vtep(2).into(), Label(100)));
    assert_eq!((c.seq.0, c.sticky, c.gateway, c.stale, c.ebgp), (7, false, false, false, false));
    assert_eq!(rib.best_mac(vni(100), mac(1)).as_ref(), Some(c));
    assert_eq!(rib.best_ip(vni(100), ip(1)).as_ref(), Some(c));
    assert_eq!(rib.mac_candidates(vni(101), mac(1)), vec![]);
}

#[test]
fn one_ip_with_two_macs_is_one_contest() {
    let mut rib = rib();
    establish(&mut rib, 2, true);
    establish(&mut rib, 3, true);
    announce(&mut rib, 2, &attrs(), vec![mac_ip(rd(2, 1), mac(1), Some(ip(1)))]);
    announce(&mut rib, 3, &attrs().seq(1), vec![mac_ip(rd(3, 1), mac(2), Some(ip(1)))]);
    let c = rib.ip_candidates(vni(100), ip(1));
    assert_eq!(vteps(&c), vec![vtep(3), vtep(2)]);
    assert_eq!(vteps(&rib.mac_candidates(vni(100), mac(1))), vec![vtep(2)]);
}

/// EVPN-IRB-07: a symmetric VTEP's route has two targets and two labels; the MAC-VRF's target imports it, the first label is
/// where it is bridged to, and the second says nothing to us. One without the MAC-VRF's target is not ours.
#[test]
fn the_second_label_and_target_of_a_symmetric_route_change_nothing() {
    let vrf = ExtCommunity::auto_target(OUR_AS, vni(5000));
    let route = |label2| {
        let EvpnRoute::MacIp(r) = mac_ip(rd(2, 1), mac(1), Some(ip(1))) else { panic!("a Type-2 route") };
        vec![EvpnRoute::MacIp(MacIp { label2, ..r })]
    };
    let symmetric = attrs().target(vrf).community(ExtCommunity::router_mac(mac(9)));
    let mut candidates = Vec::new();
    for (attrs, label2) in [(attrs(), None), (attrs(), Some(Label(0))), (symmetric, Some(Label(5000)))] {
        let mut rib = rib();
        establish(&mut rib, 2, true);
        announce(&mut rib, 2, &attrs, route(label2));
        candidates.push((rib.mac_candidates(vni(100), mac(1)), rib.ip_candidates(vni(100), ip(1))));
    }
    assert_eq!(candidates[0].0.len(), 1);
    assert_eq!(candidates[0].0[0].label, Label(100));
    assert!(candidates.iter().all(|c| c.0 == candidates[0].0 && c.1 == candidates[0].1), "{candidates:#?}");
    let mut rib = rib();
    establish(&mut rib, 2, true);
    announce(&mut rib, 2, &bare().target(vrf).community(ExtCommunity::VXLAN), route(Some(Label(5000))));
    assert_eq!(rib.ip_candidates(vni(100), ip(1)), vec![]);
}

/// BGP-UPD-07.
#[test]
fn an_identical_announcement_changes_nothing_and_another_replaces() {
    let mut rib = rib();
    establish(&mut rib, 2, true);
    let route = || vec![mac_ip(rd(2, 1), mac(1), None)];
    announce(&mut rib, 2, &attrs(), route());
    assert_eq!(rib.take_changes(10).len(), 1);
    announce(&mut rib, 2, &attrs(), route());
    assert_eq!(rib.take_changes(10), vec![]);
    announce(&mut rib, 2, &attrs().seq(3), route());
    assert_eq!(rib.take_changes(10), vec![Change::Mac(vni(100), mac(1))]);
    let c = rib.mac_candidates(vni(100), mac(1));
    assert_eq!((c.len(), c[0].seq.0), (1, 3));
    assert_eq!((rib.route_count(), rib.attribute_count()), (1, 1));
}

/// EVPN-NLRI-08, EVPN-NLRI-09: label and ESI are no part of the key, in announcements and in withdrawals.
#[test]
fn a_new_label_replaces_and_a_withdrawal_matches_by_key() {
    let mut rib = rib();
    establish(&mut rib, 2, true);
    announce(&mut rib, 2, &attrs(), vec![mac_ip(rd(2, 1), mac(1), None)]);
    let mut relabelled = mac_ip(rd(2, 1), mac(1), None);
    if let EvpnRoute::MacIp(r) = &mut relabelled {
        r.label1 = Label(777);
    }
    announce(&mut rib, 2, &attrs(), vec![relabelled]);
    let c = rib.mac_candidates(vni(100), mac(1));
    // EVPN-VXLAN-07: the label is what to send with, not what to import by.
    assert_eq!((c.len(), c[0].label), (1, Label(777)));
    withdraw(&mut rib, 2, vec![mac_ip(rd(2, 1), mac(1), None)]);
    assert_eq!(rib.mac_candidates(vni(100), mac(1)), vec![]);
    assert_eq!((rib.route_count(), rib.attribute_count()), (0, 0));
}

/// EVPN-NLRI-10.
#[test]
fn withdrawing_what_is_not_there_is_no_error_and_no_change() {
    let mut rib = rib();
    establish(&mut rib, 2, true);
    withdraw(&mut rib, 2, vec![mac_ip(rd(2, 1), mac(1), None), imet(rd(2, 1), vtep(2))]);
    assert_eq!(rib.take_changes(10), vec![]);
}

/// BGP-ERR-28.
#[test]
fn treat_as_withdraw_takes_all_routes_of_the_message() {
    let mut rib = rib();
    let peer = establish(&mut rib, 2, true);
    let routes = || vec![mac_ip(rd(2, 1), mac(1), None), mac_ip(rd(2, 1), mac(2), None)];
    announce(&mut rib, 2, &attrs(), routes());
    let bad = reach(&attrs().seq(1), vtep(2), routes());
    rib.update(peer, &bad, Some(Treatment::TreatAsWithdraw), Time(0));
    assert_eq!(rib.route_count(), 0);
    // What only lost an attribute stays a route.
    rib.update(peer, &bad, Some(Treatment::DiscardAttribute), Time(0));
    assert_eq!(rib.route_count(), 2);
}

#[test]
fn a_key_in_both_parts_of_an_update_is_announced() {
    let mut rib = rib();
    let peer = establish(&mut rib, 2, true);
    let mut update = reach(&attrs(), vtep(2), vec![mac_ip(rd(2, 1), mac(1), None)]);
    update.unreach = unreach(vec![mac_ip(rd(2, 1), mac(1), None)]).unreach;
    rib.update(peer, &update, None, Time(0));
    assert_eq!(rib.mac_candidates(vni(100), mac(1)).len(), 1);
}

#[test]
fn peer_down_takes_its_routes_and_no_others() {
    let mut rib = rib();
    let two = establish(&mut rib, 2, true);
    establish(&mut rib, 3, true);
    for n in [2, 3] {
        announce(&mut rib, n, &attrs(), vec![mac_ip(rd(n, 1), mac(1), Some(ip(1)))]);
        announce(&mut rib, n, &attrs().pmsi(6, vtep(n)), vec![imet(rd(n, 1), vtep(n))]);
    }
    rib.take_changes(usize::MAX);
    rib.peer_down(two);
    assert_eq!(
        rib.take_changes(usize::MAX),
        vec![Change::Flood(vni(100), vtep(2).into()), Change::Mac(vni(100), mac(1))]
    );
    assert_eq!(vteps(&rib.mac_candidates(vni(100), mac(1))), vec![vtep(3)]);
    assert_eq!(vteps(&rib.ip_candidates(vni(100), ip(1))), vec![vtep(3)]);
    assert_eq!(rib.flood_vteps(vni(100)), vec![vtep(3)]);
    assert_eq!((rib.counters(two).routes_in, rib.counters(PeerId(3)).routes_in), (0, 2));
}

#[test]
fn end_of_rib_is_noted_per_session() {
    let mut rib = rib();
    let peer = establish(&mut rib, 2, true);
    assert!(!rib.end_of_rib(peer));
    let eor = Update {
        unreach: Some(MpUnreach { family: Family::EVPN, nlri: Nlri::Evpn(vec![]) }),
        ..Update::default()
    };
    rib.update(peer, &eor, None, Time(0));
    assert!(rib.end_of_rib(peer));
    rib.peer_down(peer);
    assert!(!rib.end_of_rib(peer));
}

/// EVPN-VXLAN-09, EVPN-VXLAN-10, FRR's import (frr-and-linux C.2): the number counts, the AS does not.
#[test]
fn automatic_import_takes_any_route_target_whose_local_part_is_the_vni() {
    let imported = |t: ExtCommunity| {
        let mut rib = rib();
        establish(&mut rib, 2, true);
        announce(&mut rib, 2, &bare().target(t), vec![mac_ip(rd(2, 1), mac(1), None)]);
        let info = rib.routes_after(None, 10);
        assert_eq!(info.len(), 1, "kept in any case");
        let taken = !rib.mac_candidates(vni(100), mac(1)).is_empty();
        assert_eq!(info[0].why_not, (!taken).then_some(WhyNot::NoTarget));
        taken
    };
    assert!(imported(ExtCommunity::rt_as2(65000, 100)));
    assert!(imported(ExtCommunity::rt_as2(64999, 100)), "another AS");
    assert!(imported(ExtCommunity::auto_target(Asn(4_200_000_001), vni(100))), "a folded four-octet AS");
    assert!(imported(ExtCommunity::auto_target_rfc8365(Asn(65000), vni(100)).unwrap()));
    assert!(imported(ExtCommunity::rt_as4(Asn(4_200_000_001), 100)));
    assert!(imported(ExtCommunity::rt_ip(Ipv4Addr::new(192, 0, 2, 1), 100)));
    assert!(!imported(ExtCommunity::rt_as2(65000, 101)));
    assert!(!imported(ExtCommunity::rt_as2(65000, 0x1100_0064)), "another domain");
    assert!(!imported(ExtCommunity::rt_as2(65000, 0x8000_0064)), "not automatic");
    assert!(!imported(ExtCommunity::VXLAN), "no route target, no import");
    assert!(!imported(ExtCommunity([0x06, 0x02, 0, 0, 0, 0, 0, 100])), "ES-Import is none");
}

#[test]
fn a_listed_route_target_is_matched_whole_and_one_of_several_is_enough() {
    let mut rib = rib();
    let mine = ExtCommunity::rt_as2(65000, 5);
    rib.add_vni(vni(100), Import::List(vec![mine, ExtCommunity::rt_as2(65000, 6)]));
    establish(&mut rib, 2, true);
    let other = ExtCommunity::rt_as2(65001, 5);
    announce(&mut rib, 2, &bare().target(other).target(mine), vec![mac_ip(rd(2, 1), mac(1), None)]);
    announce(&mut rib, 2, &bare().target(other), vec![mac_ip(rd(2, 1), mac(2), None)]);
    announce(&mut rib, 2, &attrs(), vec![mac_ip(rd(2, 1), mac(3), None)]);
    assert_eq!(rib.mac_candidates(vni(100), mac(1)).len(), 1);
    assert_eq!(rib.mac_candidates(vni(100), mac(2)).len(), 0, "another AS is another route target");
    assert_eq!(rib.mac_candidates(vni(100), mac(3)).len(), 0, "a list replaces the automatic one");
}

#[test]
fn a_route_with_the_targets_of_two_vnis_is_in_both() {
    let mut rib = rib();
    rib.add_vni(vni(200), Import::Auto);
    establish(&mut rib, 2, true);
    let both = attrs().target(ExtCommunity::rt_as2(65000, 200));
    announce(&mut rib, 2, &both, vec![mac_ip(rd(2, 1), mac(1), Some(ip(1)))]);
    let changes = rib.take_changes(10);
    assert_eq!(changes, vec![Change::Mac(vni(100), mac(1)), Change::Mac(vni(200), mac(1))]);
    assert_eq!(rib.ip_candidates(vni(100), ip(1)), rib.ip_candidates(vni(200), ip(1)));
    // And moves out of one with its targets.
    announce(&mut rib, 2, &attrs(), vec![mac_ip(rd(2, 1), mac(1), Some(ip(1)))]);
    assert_eq!(rib.take_changes(10), changes, "left one, has other attributes in the other");
    assert_eq!(rib.mac_candidates(vni(200), mac(1)), vec![]);
    assert_eq!(rib.ip_candidates(vni(200), ip(1)), vec![]);
    assert_eq!(rib.ip_candidates(vni(100), ip(1)).len(), 1);
}

#[test]
fn a_vni_that_comes_late_imports_what_is_there_and_one_that_goes_gives_it_back() {
    let mut rib = rib();
    establish(&mut rib, 2, true);
    let a = bare().target(ExtCommunity::rt_as2(1, 200));
    announce(&mut rib, 2, &a, vec![mac_ip(rd(2, 1), mac(1), Some(ip(1)))]);
    announce(&mut rib, 2, &a.clone().pmsi(6, vtep(2)), vec![imet(rd(2, 1), vtep(2))]);
    assert_eq!(rib.take_changes(10), vec![]);
    let both = vec![Change::Flood(vni(200), vtep(2).into()), Change::Mac(vni(200), mac(1))];
    rib.add_vni(vni(200), Import::Auto);
    assert_eq!(rib.take_changes(10), both);
    assert_eq!(rib.ip_candidates(vni(200), ip(1)).len(), 1);
    assert_eq!(rib.flood_vteps(vni(200)), vec![vtep(2)]);
    rib.remove_vni(vni(200));
    assert_eq!(rib.take_changes(10), both);
    assert_eq!(rib.mac_candidates(vni(200), mac(1)), vec![]);
    assert_eq!(rib.flood_vteps(vni(200)), Vec::<std::net::IpAddr>::new());
    assert_eq!(rib.route_count(), 2, "Adj-RIB-In keeps them");
}

fn why_not(a: &A, next_hop: Ipv4Addr, route: EvpnRoute) -> Option<WhyNot> {
    let mut rib = rib();
    let peer = establish(&mut rib, 2, false);
    rib.update(peer, &reach(a, next_hop, vec![route]), None, Time(0));
    let info = rib.routes_after(None, 10);
    assert_eq!(info.len(), 1, "kept in Adj-RIB-In");
    let used = rib.mac_candidates(vni(100), mac(1)).len() + rib.flood_vteps(vni(100)).len();
    assert_eq!(used == 0, info[0].why_not.is_some(), "{:?}", info[0].why_not);
    assert_eq!(info[0].imported.is_empty(), info[0].why_not.is_some());
    assert_eq!(!rib.take_changes(10).is_empty(), used != 0);
    info[0].why_not
}

#[test]
fn routes_that_must_not_be_used_are_kept_with_the_reason() {
    let route = || mac_ip(rd(2, 1), mac(1), None);
    let check = |a: &A| why_not(a, vtep(2), route());
    assert_eq!(check(&attrs()), None);
    // BGP-DEC-08
    assert_eq!(check(&attrs().path(&[65102, 65000])), Some(WhyNot::OwnAs));
    // RFC 4456 §8
    assert_eq!(check(&attrs().with(|a| a.originator_id = Some(OUR_VTEP))), Some(WhyNot::OwnOriginator));
    assert_eq!(check(&attrs().with(|a| a.cluster_list = vec![vtep(9), OUR_VTEP])), Some(WhyNot::OwnCluster));
    // EVPN-VXLAN-05, EVPN-VXLAN-04
    let target = ExtCommunity::auto_target(OUR_AS, vni(100));
    let mpls = bare().target(target).community(ExtCommunity::encapsulation(10));
    assert_eq!(check(&mpls), Some(WhyNot::NotVxlan));
    assert_eq!(check(&mpls.community(ExtCommunity::VXLAN)), None, "one in common is enough");
    assert_eq!(check(&bare().target(target)), None, "nothing said is VXLAN");
    // EVPN-NLRI-16
    assert_eq!(why_not(&attrs(), OUR_VTEP, route()), Some(WhyNot::OwnNextHop));
    for unusable in [[0, 0, 0, 0], [224, 0, 0, 1], [127, 0, 0, 1], [255, 255, 255, 255]] {
        assert_eq!(why_not(&attrs(), unusable.into(), route()), Some(WhyNot::UnusableNextHop));
    }
    // EVPN-VXLAN-06
    let mut tagged = route();
    if let EvpnRoute::MacIp(r) = &mut tagged {
        r.tag = EthTag(5);
    }
    assert_eq!(why_not(&attrs(), vtep(2), tagged), Some(WhyNot::EthernetTag));
    assert_eq!(check(&attrs().with(|a| a.as_path = Some(AsPath::default()))), None);
}

/// EVPN-IMET-03, -05, -06.
#[test]
fn imet_gives_a_flood_entry_for_its_next_hop_if_the_tunnel_is_ingress_replication() {
    assert_eq!(why_not(&attrs().pmsi(6, vtep(2)), vtep(2), imet(rd(2, 1), vtep(2))), None);
    let pim = why_not(&attrs().pmsi(3, vtep(2)), vtep(2), imet(rd(2, 1), vtep(2)));
    assert_eq!(pim, Some(WhyNot::TunnelType));

    let mut rib = rib();
    let peer = establish(&mut rib, 2, true);
    // Tunnel end point and originator differ from the next hop: the next hop counts.
    let odd = reach(&attrs().pmsi(6, vtep(7)), vtep(3), vec![imet(rd(2, 1), vtep(8))]);
    rib.update(peer, &odd, None, Time(0));
    assert_eq!(rib.flood_vteps(vni(100)), vec![vtep(3)]);
    assert_eq!(rib.take_changes(10), vec![Change::Flood(vni(100), vtep(3).into())]);
    // A second one for the same VTEP changes nothing; neither does the loss of one of two.
    let second = reach(&attrs().pmsi(6, vtep(3)), vtep(3), vec![imet(rd(3, 1), vtep(3))]);
    rib.update(peer, &second, None, Time(0));
    withdraw(&mut rib, 2, vec![imet(rd(2, 1), vtep(8))]);
    assert_eq!(rib.take_changes(10), vec![]);
    withdraw(&mut rib, 2, vec![imet(rd(3, 1), vtep(3))]);
    assert_eq!(rib.take_changes(10), vec![Change::Flood(vni(100), vtep(3).into())]);
    assert_eq!(rib.flood_vteps(vni(100)), Vec::<std::net::IpAddr>::new());
}

/// EVPN-IMET-04.
#[test]
fn imet_without_pmsi_counts_as_withdrawn() {
    let mut rib = rib();
    establish(&mut rib, 2, true);
    announce(&mut rib, 2, &attrs().pmsi(6, vtep(2)), vec![imet(rd(2, 1), vtep(2))]);
    announce(&mut rib, 2, &attrs(), vec![imet(rd(2, 1), vtep(2)), mac_ip(rd(2, 1), mac(1), None)]);
    assert_eq!(rib.flood_vteps(vni(100)), Vec::<std::net::IpAddr>::new());
    assert_eq!(rib.route_count(), 1, "the MAC of the same message is not touched");
}

#[test]
fn our_own_routes_are_no_candidates() {
    let mut rib = rib();
    originate(&mut rib, &attrs(), mac_ip(rd(1, 1), mac(1), Some(ip(1))), false);
    originate(&mut rib, &attrs().pmsi(6, OUR_VTEP), imet(rd(1, 1), OUR_VTEP), false);
    assert_eq!(rib.mac_candidates(vni(100), mac(1)), vec![]);
    assert_eq!(rib.ip_candidates(vni(100), ip(1)), vec![]);
    assert_eq!(rib.flood_vteps(vni(100)), Vec::<std::net::IpAddr>::new());
    assert_eq!(rib.take_changes(10), vec![]);
    assert!(rib.routes_after(None, 10).iter().all(|r| r.peer.is_none() && r.best && r.why_not.is_none()));
}

#[test]
fn changes_come_once_each_in_slices_and_none_waits_for_ever() {
    let mut rib = rib();
    establish(&mut rib, 2, true);
    let all = |from: u32| (from..10).map(|n| mac_ip(rd(2, 1), mac(n), None)).collect::<Vec<_>>();
    announce(&mut rib, 2, &attrs(), all(0));
    announce(&mut rib, 2, &attrs().seq(1), all(0));
    let macs =
        |range: core::ops::Range<u32>| range.map(|n| Change::Mac(vni(100), mac(n))).collect::<Vec<_>>();
    assert_eq!(rib.take_changes(4), macs(0..4));
    // Low ones change again; the high ones still come first.
    announce(&mut rib, 2, &attrs().seq(2), vec![mac_ip(rd(2, 1), mac(0), None)]);
    announce(&mut rib, 2, &attrs().seq(2), vec![mac_ip(rd(2, 1), mac(9), None)]);
    assert_eq!(rib.take_changes(4), macs(4..8));
    let mut rest = macs(8..10);
    rest.extend(macs(0..1));
    assert_eq!(rib.take_changes(10), rest, "each once");
    assert!(!rib.has_changes());
}

#[test]
fn a_cursor_pages_through_all_routes_once() {
    let mut rib = rib();
    rib.add_vni(vni(200), Import::Auto);
    establish(&mut rib, 2, true);
    let other = bare().target(ExtCommunity::rt_as2(1, 200));
    for n in 0..7 {
        announce(&mut rib, 2, &attrs(), vec![mac_ip(rd(2, 1), mac(n), Some(ip(n)))]);
        announce(&mut rib, 2, &other, vec![mac_ip(rd(2, 2), mac(n), None)]);
        announce(&mut rib, 2, &bare().pmsi(6, vtep(2)), vec![imet(rd(2, n as u16), vtep(2))]);
    }
    let all: Vec<_> = rib.routes_after(None, usize::MAX).into_iter().map(|r| r.route.key()).collect();
    assert_eq!(all.len(), 21);
    for limit in 1..22 {
        let mut seen = Vec::new();
        let mut cursor = None;
        loop {
            let page = rib.routes_after(cursor.as_ref(), limit);
            let Some(last) = page.last() else { break };
            cursor = Some(last.cursor.clone());
            seen.extend(page.iter().map(|r| r.route.key()));
        }
        assert_eq!(seen, all, "in pages of {limit}");
    }
}

#[test]
fn a_neighbour_that_is_no_longer_configured_leaves_nothing_and_is_not_listened_to() {
    let mut rib = rib();
    let peer = establish(&mut rib, 2, true);
    announce(&mut rib, 2, &attrs(), vec![mac_ip(rd(2, 1), mac(1), Some(ip(1)))]);
    assert!(rib.exceeds(peer, 0) && !rib.exceeds(peer, 1));
    rib.remove_peer(peer);
    assert!(rib.is_pristine());
    announce(&mut rib, 2, &attrs(), vec![mac_ip(rd(2, 1), mac(1), None)]);
    assert!(rib.is_pristine());
    assert_eq!(rib.take_changes(10), vec![Change::Mac(vni(100), mac(1))]);
}
