//! Adj-RIB-Out: who gets what, in which order, in how many messages.

#![allow(clippy::unwrap_used)]

mod rib_support;

use evpn::rib::Rib;
use evpn::types::{Asn, PeerId, Time};
use evpn::wire::{Attrs, Community, EvpnRoute, ExtCommunity, NextHop, RouteKey};
use rib_support::*;

fn macs(range: core::ops::Range<u32>) -> Vec<EvpnRoute> {
    range.map(|n| mac_ip(rd(1, 1), mac(n), None)).collect()
}

fn keys(routes: &[EvpnRoute]) -> Vec<RouteKey> {
    routes.iter().map(EvpnRoute::key).collect()
}

/// A RIB with an established iBGP neighbour that has got its End-of-RIB.
fn settled() -> (Rib, PeerId, Receiver) {
    let mut rib = rib();
    let peer = establish(&mut rib, 2, true);
    let mut far = Receiver::default();
    far.drain(&mut rib, peer, true);
    assert_eq!(far.said, vec![Said::EndOfRib]);
    far.said.clear();
    (rib, peer, far)
}

#[test]
fn a_new_session_gets_the_table_then_end_of_rib() {
    let mut rib = rib();
    originate(&mut rib, &attrs(), mac_ip(rd(1, 1), mac(1), None), false);
    originate(&mut rib, &attrs().pmsi(6, OUR_VTEP), imet(rd(1, 1), OUR_VTEP), false);
    let peer = establish(&mut rib, 2, true);
    assert!(rib.has_updates(peer));
    let mut far = Receiver::default();
    far.drain(&mut rib, peer, true);
    let (flood, host) = (vec![imet(rd(1, 1), OUR_VTEP)], macs(1..2));
    assert_eq!(far.said, vec![Said::Reach(flood), Said::Reach(host), Said::EndOfRib]);
    assert_eq!(rib.counters(peer).routes_out, 2);
    rib.peer_down(peer);
    assert!(!rib.has_updates(peer));
    assert_eq!(rib.next_update(peer, 4096), None);
    assert_eq!(rib.counters(peer).routes_out, 0);
}

#[test]
fn a_session_without_evpn_gets_nothing() {
    let mut rib = rib();
    originate(&mut rib, &attrs(), mac_ip(rd(1, 1), mac(1), None), false);
    let peer = PeerId(2);
    rib.add_peer(peer, vtep(2).into(), true);
    let mut agreed = agreed(true, 2);
    agreed.families.clear();
    rib.peer_up(peer, &agreed);
    assert_eq!(rib.next_update(peer, 4096), None);
}

/// RFC 2918.
#[test]
fn a_refresh_brings_the_table_again_without_end_of_rib() {
    let (mut rib, peer, mut far) = settled();
    for route in macs(0..3) {
        originate(&mut rib, &attrs(), route, false);
    }
    far.drain(&mut rib, peer, true);
    far.said.clear();
    rib.refresh(peer);
    // One that goes meanwhile is withdrawn, not repeated.
    rib.withdraw(&macs(0..1)[0].key(), false);
    far.drain(&mut rib, peer, true);
    assert_eq!(far.said, vec![Said::Reach(macs(1..3)), Said::Unreach(keys(&macs(0..1)))]);
    assert_eq!((far.needless, rib.counters(peer).routes_out), (0, 2));
}

#[test]
fn ten_thousand_keys_need_no_more_updates_than_they_fill() {
    let (mut rib, peer, mut far) = settled();
    for route in macs(0..10_000) {
        originate(&mut rib, &attrs(), route, false);
    }
    far.drain(&mut rib, peer, true);
    let per_update = |said: &Said| match said {
        Said::Reach(r) => r.len(),
        Said::Unreach(k) => k.len(),
        Said::EndOfRib => 0,
    };
    let first = per_update(&far.said[0]);
    assert!(far.sizes[1] > 4096 - 35, "the first is full: {} octets", far.sizes[1]);
    assert_eq!(far.said.len(), 10_000_usize.div_ceil(first));
    assert_eq!(far.table.len(), 10_000);
    far.said.clear();
    for route in macs(0..10_000) {
        rib.withdraw(&route.key(), false);
    }
    far.drain(&mut rib, peer, true);
    let first = per_update(&far.said[0]);
    assert_eq!(far.said.len(), 10_000_usize.div_ceil(first));
    assert_eq!((far.table.len(), far.needless), (0, 0));
    assert_eq!((rib.route_count(), rib.attribute_count()), (0, 0));
}

#[test]
fn few_attribute_sets_in_any_mixture_need_few_updates() {
    let (mut rib, peer, mut far) = settled();
    for (i, route) in macs(0..1000).into_iter().enumerate() {
        originate(&mut rib, &attrs().seq(1 + i as u32 % 3), route, false);
    }
    far.drain(&mut rib, peer, true);
    // 334, 333 and 333 routes of 35 octets.
    assert_eq!(far.said.len(), 9);
    assert_eq!(far.table.len(), 1000);
}

#[test]
fn a_move_overtakes_what_waits() {
    let (mut rib, peer, mut far) = settled();
    for route in macs(0..500) {
        originate(&mut rib, &attrs(), route, false);
    }
    assert!(far.step(&mut rib, peer, true, 4096));
    far.said.clear();
    originate(&mut rib, &attrs().seq(1), mac_ip(rd(1, 1), mac(499), None), true);
    assert!(far.step(&mut rib, peer, true, 4096));
    assert_eq!(far.said, vec![Said::Reach(macs(499..500))]);
    // Its older state is not sent any more.
    far.drain(&mut rib, peer, true);
    let times = far.said.iter().filter(|s| matches!(s, Said::Reach(r) if r.contains(&macs(499..500)[0])));
    assert_eq!(times.count(), 1);
    assert_eq!(far.table.len(), 500);
}

/// BGP-DEC-06: no interval, and what waits is sent once.
#[test]
fn what_changes_while_it_waits_is_sent_in_its_last_state_only() {
    let (mut rib, peer, mut far) = settled();
    let route = || mac_ip(rd(1, 1), mac(1), None);
    originate(&mut rib, &attrs(), route(), false);
    originate(&mut rib, &attrs().seq(1), route(), false);
    rib.withdraw(&route().key(), false);
    assert!(!rib.has_updates(peer), "never advertised, never withdrawn");
    originate(&mut rib, &attrs().seq(2), route(), false);
    far.drain(&mut rib, peer, true);
    assert_eq!(far.said.len(), 1);
    assert_eq!(far.table[&route().key()].1.mobility().map(|(s, _)| s.0), Some(2));
    // A withdrawal and a new announcement collapse into the announcement.
    far.said.clear();
    rib.withdraw(&route().key(), true);
    originate(&mut rib, &attrs().seq(4), route(), true);
    far.drain(&mut rib, peer, true);
    assert_eq!(far.said, vec![Said::Reach(vec![route()])]);
    assert_eq!(far.table[&route().key()].1.mobility().map(|(s, _)| s.0), Some(4));
}

/// BGP-UPD-07.
#[test]
fn an_identical_origination_sends_nothing() {
    let (mut rib, peer, mut far) = settled();
    for _ in 0..2 {
        originate(&mut rib, &attrs(), mac_ip(rd(1, 1), mac(1), Some(ip(1))), false);
        originate(&mut rib, &attrs().pmsi(6, OUR_VTEP), imet(rd(1, 1), OUR_VTEP), true);
        far.drain(&mut rib, peer, true);
    }
    assert_eq!(far.said.len(), 2);
}

/// PIT-22.
#[test]
fn a_mac_and_its_ips_share_an_update_when_their_attributes_are_equal() {
    let (mut rib, peer, mut far) = settled();
    let routes = [Some(ip(2)), None, Some(ip(1))].map(|ip| mac_ip(rd(1, 1), mac(1), ip));
    for route in &routes {
        originate(&mut rib, &attrs().seq(1), route.clone(), true);
    }
    far.drain(&mut rib, peer, true);
    let [two, only, one] = routes;
    assert_eq!(far.said, vec![Said::Reach(vec![only, one, two])], "MAC-only first");
}

/// PIT-22: whatever the attributes, and for several MACs crosswise.
#[test]
fn a_mac_goes_before_its_ips_when_their_attributes_differ() {
    for (first, second) in [(0, 1), (1, 0)] {
        let (mut rib, peer, mut far) = settled();
        let route = |m, i| mac_ip(rd(1, 1), mac(m), i);
        originate(&mut rib, &attrs().seq(first), route(1, None), true);
        originate(&mut rib, &attrs().seq(second), route(1, Some(ip(1))), true);
        originate(&mut rib, &attrs().seq(second), route(2, None), true);
        originate(&mut rib, &attrs().seq(first), route(2, Some(ip(2))), true);
        far.drain(&mut rib, peer, true);
        let sent: Vec<EvpnRoute> = far
            .said
            .iter()
            .flat_map(|s| match s {
                Said::Reach(r) => r.clone(),
                Said::Unreach(_) | Said::EndOfRib => vec![],
            })
            .collect();
        let place = |r: EvpnRoute| sent.iter().position(|s| *s == r).unwrap();
        for m in [1, 2] {
            assert!(place(route(m, None)) < place(route(m, Some(ip(m)))), "{sent:?}");
        }
        assert_eq!(sent.len(), 4);
    }
}

#[test]
fn withdrawals_come_in_updates_of_their_own_after_what_replaces_them() {
    let (mut rib, peer, mut far) = settled();
    originate(&mut rib, &attrs(), mac_ip(rd(1, 1), mac(1), Some(ip(1))), false);
    far.drain(&mut rib, peer, true);
    far.said.clear();
    // The address goes from one local MAC to another.
    rib.withdraw(&mac_ip(rd(1, 1), mac(1), Some(ip(1))).key(), true);
    originate(&mut rib, &attrs().seq(1), mac_ip(rd(1, 1), mac(2), Some(ip(1))), true);
    far.drain(&mut rib, peer, true);
    let (new, old) = (mac_ip(rd(1, 1), mac(2), Some(ip(1))), mac_ip(rd(1, 1), mac(1), Some(ip(1))).key());
    assert_eq!(far.said, vec![Said::Reach(vec![new]), Said::Unreach(vec![old])]);
}

#[test]
fn too_little_room_loses_nothing() {
    let (mut rib, peer, mut far) = settled();
    originate(&mut rib, &attrs(), mac_ip(rd(1, 1), mac(1), None), false);
    assert_eq!(rib.next_update(peer, 60), None);
    assert!(rib.has_updates(peer));
    far.drain(&mut rib, peer, true);
    assert_eq!(far.table.len(), 1);
}

/// BGP-MSG-03: and what the neighbour had under the key does not stay.
#[test]
fn a_route_that_fits_no_message_is_counted_and_its_older_state_withdrawn() {
    let (mut rib, peer, mut far) = settled();
    originate(&mut rib, &attrs(), mac_ip(rd(1, 1), mac(1), None), false);
    originate(&mut rib, &attrs(), mac_ip(rd(1, 1), mac(2), None), false);
    far.drain(&mut rib, peer, true);
    far.said.clear();
    let huge = attrs().with(|a| a.communities = (0..1100).map(Community).collect());
    originate(&mut rib, &huge, mac_ip(rd(1, 1), mac(1), None), false);
    originate(&mut rib, &huge, mac_ip(rd(1, 1), mac(3), None), false);
    far.drain(&mut rib, peer, true);
    assert_eq!(far.said, vec![Said::Unreach(keys(&macs(1..2)))]);
    assert_eq!(far.table.len(), 1);
    let counters = rib.counters(peer);
    assert_eq!((counters.oversize, counters.routes_out), (2, 1));
}

/// Establishes neighbour 2 (iBGP), 3 (iBGP), 4 and 5 (eBGP); returns what each has after `f`.
fn exported(f: impl FnOnce(&mut Rib)) -> [Option<(Attrs, NextHop)>; 4] {
    let mut rib = rib();
    for n in 2..6 {
        establish(&mut rib, n, n < 4);
    }
    f(&mut rib);
    [2, 3, 4, 5].map(|n: u8| {
        let mut far = Receiver::default();
        far.drain(&mut rib, PeerId(u32::from(n)), n < 4);
        assert!(far.table.len() <= 1);
        far.table.into_values().next().map(|(_, attrs, next_hop)| (attrs, next_hop))
    })
}

fn asns(a: &Attrs) -> Vec<u32> {
    a.as_path.iter().flat_map(|p| &p.0).flat_map(|s| &s.asns).map(|a| a.0).collect()
}

/// BGP-DEC-07, BGP-DEC-01, BGP-MP-04.
#[test]
fn our_routes_go_to_all_with_local_pref_inside_and_our_as_outside() {
    let got = exported(|rib| {
        let a = bare().target(ExtCommunity::rt_as2(65000, 100)).with(|a| a.local_pref = None);
        originate(rib, &a, mac_ip(rd(1, 1), mac(1), None), false);
    });
    for (i, got) in got.iter().enumerate() {
        let (a, next_hop) = got.as_ref().unwrap();
        assert_eq!((*next_hop, a.next_hop), (NextHop::V4(OUR_VTEP), None));
        assert!(a.origin.is_some() && a.as_path.is_some());
        let inside = i < 2;
        assert_eq!(a.local_pref, inside.then_some(100));
        assert_eq!(asns(a), if inside { vec![] } else { vec![65000] });
    }
}

/// BGP-DEC-05, and never back to where it came from.
#[test]
fn what_ibgp_taught_goes_to_ebgp_only() {
    let [two, three, four, five] = exported(|rib| {
        announce(rib, 2, &attrs().with(|a| a.med = Some(5)), vec![mac_ip(rd(2, 1), mac(1), None)]);
    });
    assert_eq!((two, three), (None, None));
    for got in [four, five] {
        let (a, next_hop) = got.unwrap();
        assert_eq!((asns(&a), a.local_pref, a.med), (vec![65000], None, None));
        // EVPN-NLRI-15
        assert_eq!(next_hop, NextHop::V4(vtep(2)));
    }
}

#[test]
fn what_ebgp_taught_goes_to_all_others() {
    let [two, three, four, five] = exported(|rib| {
        announce(rib, 4, &attrs().path(&[65104]), vec![mac_ip(rd(4, 1), mac(1), None)]);
    });
    assert_eq!(two, three);
    let (a, next_hop) = two.unwrap();
    assert_eq!((asns(&a), a.local_pref), (vec![65104], Some(100)));
    assert_eq!(next_hop, NextHop::V4(vtep(4)), "EVPN-NLRI-15");
    assert_eq!(four, None);
    let (a, next_hop) = five.unwrap();
    assert_eq!((asns(&a), a.local_pref, next_hop), (vec![65000, 65104], None, NextHop::V4(vtep(4))));
}

/// BGP-EXTC-01, RFC 4456 §8, RFC 4271 §5.1.4.
#[test]
fn what_belongs_inside_an_as_stays_there() {
    let non_transitive = ExtCommunity([0x43, 1, 2, 3, 4, 5, 6, 7]);
    let unknown = ExtCommunity([0x3f, 1, 2, 3, 4, 5, 6, 7]);
    let [.., four, _] = exported(|rib| {
        let a = attrs().community(non_transitive).community(unknown).with(|a| {
            a.originator_id = Some(vtep(9));
            a.cluster_list = vec![vtep(8)];
        });
        announce(rib, 2, &a, vec![mac_ip(rd(2, 1), mac(1), None)]);
    });
    let (a, _) = four.unwrap();
    assert!(!a.ext_communities.contains(&non_transitive));
    assert!(a.ext_communities.contains(&unknown), "unknown ones are passed on");
    assert_eq!((a.originator_id, a.cluster_list), (None, vec![]));
}

/// BGP-COMM-01, BGP-LLGR-07.
#[test]
fn communities_keep_routes_in() {
    let reach = |community: u32| {
        exported(|rib| {
            let a = attrs().path(&[65104]).with(|a| a.communities = vec![Community(community)]);
            announce(rib, 4, &a, vec![mac_ip(rd(4, 1), mac(1), None)]);
        })
        .map(|got| got.is_some())
    };
    assert_eq!(reach(0x0001_0001), [true, true, false, true]);
    assert_eq!(reach(0xffff_ff01), [true, true, false, false], "NO_EXPORT");
    assert_eq!(reach(0xffff_ff03), [true, true, false, false], "NO_EXPORT_SUBCONFED");
    assert_eq!(reach(0xffff_ff02), [false; 4], "NO_ADVERTISE");
    assert_eq!(reach(0xffff_0006), [false; 4], "LLGR_STALE");
}

#[test]
fn looped_and_unusable_routes_are_not_passed_on_but_unimported_ones_are() {
    let passed = |a: &A, via: std::net::Ipv4Addr| {
        let [two, ..] = exported(|rib| {
            let route = mac_ip(rd(4, 1), mac(1), None);
            rib.update(PeerId(4), &reach(a, via, vec![route]), None, Time(0));
        });
        two.is_some()
    };
    assert!(!passed(&attrs().path(&[65104, 65000]), vtep(4)));
    assert!(!passed(&attrs().path(&[65104]), OUR_VTEP));
    assert!(passed(&bare().path(&[65104]), vtep(4)), "no route target of ours");
}

/// The best of several under one key is passed on; when it becomes one that may not be, the key is withdrawn.
#[test]
fn the_best_route_of_a_key_decides_what_others_have() {
    let mut rib = rib();
    let peers: Vec<PeerId> = (2..5).map(|n| establish(&mut rib, n, n < 4)).collect();
    let mut far = Receiver::default();
    let route = || vec![mac_ip(rd(9, 1), mac(1), None)];
    announce(&mut rib, 4, &attrs().path(&[65104]), route());
    far.drain(&mut rib, peers[1], true);
    assert_eq!(far.table.len(), 1);
    // The same key with a newer sequence by iBGP: not for iBGP neighbours.
    announce(&mut rib, 2, &attrs().seq(1), route());
    far.drain(&mut rib, peers[1], true);
    assert_eq!((far.table.len(), far.needless), (0, 0));
    // And back when it goes.
    rib.peer_down(peers[0]);
    far.drain(&mut rib, peers[1], true);
    assert_eq!(far.table.len(), 1);
    // Ours beats every other under the key.
    originate(&mut rib, &attrs(), route().remove(0), false);
    far.drain(&mut rib, peers[1], true);
    assert_eq!(far.table.values().next().unwrap().2, NextHop::V4(OUR_VTEP));
}

/// BGP-AS4-*: two-octet neighbours get AS_TRANS and the real path beside it.
#[test]
fn a_neighbour_without_four_octet_as_numbers_gets_the_mapped_path() {
    let mut config = config();
    config.asn = Asn(4_200_000_001);
    let mut rib = Rib::new(config);
    let peer = PeerId(4);
    rib.add_peer(peer, vtep(4).into(), false);
    let mut agreed = agreed(false, 4);
    agreed.as4 = false;
    agreed.decode.as4 = false;
    rib.peer_up(peer, &agreed);
    originate(&mut rib, &attrs(), mac_ip(rd(1, 1), mac(1), None), false);
    let bytes = rib.next_update(peer, 4096).unwrap();
    let message = evpn::wire::decode(&bytes, &agreed.decode).unwrap().message;
    let evpn::wire::Message::Update(update) = message else { panic!("not an UPDATE") };
    assert_eq!(asns(&update.attrs), vec![4_200_000_001]);
}
