//! Routes of a neighbour that is away: BGP-GR-09, -11, -12, BGP-LLGR-03, -06, -07, PIT-23.

#![allow(clippy::unwrap_used, reason = "tests")]

mod rib_support;

use evpn::rib::{Candidate, Rib};
use evpn::types::{PeerId, Seq};
use evpn::wire::Community;
use rib_support::*;

const LLGR_STALE: Community = Community(0xffff_0006);
const NO_LLGR: Community = Community(0xffff_0007);

fn candidates(rib: &Rib, n: u32) -> Vec<(u8, bool)> {
    let last = |c: &Candidate| match c.vtep {
        std::net::IpAddr::V4(a) => a.octets()[3],
        std::net::IpAddr::V6(_) => 0,
    };
    rib.mac_candidates(vni(100), mac(n)).iter().map(|c| (last(c), c.stale)).collect()
}

/// Neighbour 2 with a flood destination, MACs 1 and 2 and an address of 1.
fn two(rib: &mut Rib) -> PeerId {
    let peer = establish(rib, 2, true);
    announce(rib, 2, &attrs().pmsi(6, vtep(2)), vec![imet(rd(2, 100), vtep(2))]);
    let routes = [(1, None), (1, Some(ip(1))), (2, None)];
    let routes = routes.map(|(n, ip)| mac_ip(rd(2, 100), mac(n), ip));
    announce(rib, 2, &attrs().seq(7), routes.to_vec());
    peer
}

#[test]
fn a_lost_neighbours_routes_stay_until_it_has_told_them_again() {
    let mut rib = rib();
    let peer = two(&mut rib);
    rib.take_changes(100);
    rib.peer_lost(peer, false);
    assert_eq!(rib.stale_count(peer), 4);
    assert_eq!(candidates(&rib, 1), [(2, true), (2, true)]);
    assert!(rib.ip_candidates(vni(100), ip(1))[0].stale);
    assert_eq!(rib.flood_vteps(vni(100)), [vtep(2)], "forwarding unchanged (BGP-GR-09)");
    let flood_changed = rib.take_changes(100).iter().any(|c| matches!(c, evpn::rib::Change::Flood(..)));
    assert!(!flood_changed, "nor is anybody told that it had changed");

    rib.peer_up(peer, &agreed(true, 2));
    assert_eq!(rib.stale_count(peer), 4, "a session alone refreshes nothing");
    announce(&mut rib, 2, &attrs().seq(7), vec![mac_ip(rd(2, 100), mac(1), None)]);
    announce(&mut rib, 2, &attrs().pmsi(6, vtep(2)), vec![imet(rd(2, 100), vtep(2))]);
    withdraw(&mut rib, 2, vec![mac_ip(rd(2, 100), mac(1), Some(ip(1)))]);
    assert_eq!((rib.stale_count(peer), candidates(&rib, 1)), (1, vec![(2, false)]));
    assert_eq!(rib.drop_stale(peer), 1);
    assert_eq!((candidates(&rib, 2), rib.route_count()), (vec![], 2));
    assert_eq!(rib.drop_stale(peer), 0);
    rib.peer_down(peer);
    assert!(rib.is_pristine());
}

/// BGP-GR-12
#[test]
fn a_second_loss_ends_what_was_stale_already_unless_it_may_stay() {
    for (twice, left) in [(false, 1), (true, 4)] {
        let mut rib = rib();
        let peer = two(&mut rib);
        rib.peer_lost(peer, false);
        rib.peer_up(peer, &agreed(true, 2));
        announce(&mut rib, 2, &attrs().seq(8), vec![mac_ip(rd(2, 100), mac(2), None)]);
        rib.peer_lost(peer, twice);
        assert_eq!(rib.stale_count(peer), left);
        // And a loss for good ends all of it, with or without a session.
        rib.peer_down(peer);
        assert!(rib.is_pristine());
    }
}

/// PIT-23, BGP-LLGR-06
#[test]
fn any_other_route_comes_before_a_stale_one_whatever_their_sequences() {
    let mut rib = rib();
    let peer = two(&mut rib);
    establish(&mut rib, 3, true);
    announce(&mut rib, 3, &attrs(), vec![mac_ip(rd(3, 100), mac(1), Some(ip(1)))]);
    assert_eq!(candidates(&rib, 1)[0], (2, false), "sequence 7 before 0");
    rib.peer_lost(peer, false);
    assert_eq!(candidates(&rib, 1), [(3, false), (2, true), (2, true)]);
    assert_eq!(vteps(&rib.ip_candidates(vni(100), ip(1))), [vtep(3), vtep(2)]);
    assert_eq!(rib.best_mac(vni(100), mac(1)).unwrap().seq, Seq(0));
    // Among themselves the ordinary rules apply.
    rib.peer_lost(PeerId(3), false);
    assert_eq!(candidates(&rib, 1)[0], (2, true));
}

/// BGP-LLGR-03, -07
#[test]
fn beyond_the_restart_time_they_are_marked_for_others_too_or_go() {
    let mut rib = rib();
    let peer = two(&mut rib);
    let no = attrs().with(|a| a.communities.push(NO_LLGR));
    announce(&mut rib, 2, &no, vec![mac_ip(rd(2, 100), mac(3), None)]);
    rib.peer_lost(peer, true);
    rib.long_lived(peer);
    assert_eq!(candidates(&rib, 3), [], "NO_LLGR");
    assert_eq!((candidates(&rib, 2), rib.stale_count(peer)), (vec![(2, true)], 4));
    let marked = rib.routes_after(None, 100);
    assert!(marked.iter().all(|r| r.attrs.communities == [LLGR_STALE]), "{marked:?}");
    assert_eq!(rib.flood_vteps(vni(100)), [vtep(2)]);
    // Told again, they are ordinary routes.
    rib.peer_up(peer, &agreed(true, 2));
    announce(&mut rib, 2, &attrs().seq(7), vec![mac_ip(rd(2, 100), mac(2), None)]);
    assert_eq!(candidates(&rib, 2), [(2, false)]);
    assert_eq!(rib.drop_stale(peer), 3);
    rib.peer_down(peer);
    assert!(rib.is_pristine());
}

/// A neighbour that learns routes through us hears nothing of the mark while nothing else changes.
#[test]
fn losing_and_finding_a_neighbour_again_is_no_news_for_others() {
    let mut rib = rib();
    let far = establish(&mut rib, 9, false);
    let peer = two(&mut rib);
    let mut r = Receiver::default();
    r.drain(&mut rib, far, false);
    let told = r.sizes.len();
    rib.peer_lost(peer, false);
    rib.peer_up(peer, &agreed(true, 2));
    let routes = [(1, None), (1, Some(ip(1))), (2, None)];
    let routes = routes.map(|(n, ip)| mac_ip(rd(2, 100), mac(n), ip));
    announce(&mut rib, 2, &attrs().seq(7), routes.to_vec());
    let hosts = |r: &Receiver| r.table.len();
    let before = hosts(&r);
    r.drain(&mut rib, far, false);
    // The flood route may be told again; the hosts are not.
    assert!(r.sizes.len() - told <= 2, "{:?}", r.said);
    assert_eq!((hosts(&r), r.needless), (before, 0));
    // What changed meanwhile is told.
    announce(&mut rib, 2, &attrs().seq(8), vec![mac_ip(rd(2, 100), mac(2), None)]);
    rib.drop_stale(peer);
    r.drain(&mut rib, far, false);
    assert_eq!(hosts(&r), before - 1, "the flood route was not told again by its neighbour");
}

/// BGP-GR-07: our End-of-RIB waits, our routes do not.
#[test]
fn end_of_rib_can_be_held_back() {
    let mut rib = rib();
    rib.hold_end_of_rib(true);
    let peer = establish(&mut rib, 2, true);
    originate(&mut rib, &attrs(), mac_ip(rd(1, 100), mac(1), None), false);
    let mut r = Receiver::default();
    while r.step(&mut rib, peer, true, 4096) {}
    assert!(matches!(r.said[..], [Said::Reach(_)]), "{:?}", r.said);
    rib.hold_end_of_rib(false);
    r.drain(&mut rib, peer, true);
    assert_eq!(r.said[1..], [Said::EndOfRib]);
}
