//! vtepd as a route reflector (RFC 4456): who gets what, and how it is marked.

#![allow(clippy::unwrap_used)]

mod rib_support;
mod support;

use evpn::rib::{Config, Rib};
use evpn::session::Agreed;
use evpn::types::{Asn, PeerId, RouterId, Time};
use evpn::wire::{self, Attrs, Community, EvpnRoute, ExtCommunity, Message, NextHop, UnknownRoute};
use rib_support::*;
use std::net::Ipv4Addr;

const CLUSTER: RouterId = Ipv4Addr::new(192, 0, 2, 200);

/// No VNI at all: a pure reflector. Neighbours 2 and 3 are clients, 4 and 5 internal ones that are none, 6 and 7 of
/// other ASes.
fn reflector() -> Rib {
    let mut rib = Rib::new(Config { cluster_id: CLUSTER, ..config() });
    for n in 2..8u8 {
        let peer = PeerId(u32::from(n));
        rib.add_peer(peer, vtep(n).into(), n < 6);
        if n < 4 {
            rib.set_client(peer);
        }
        rib.peer_up(peer, &agreed(n < 6, n));
    }
    rib
}

fn drained(rib: &mut Rib, n: u8) -> Receiver {
    let mut far = Receiver::default();
    far.drain(rib, PeerId(u32::from(n)), n < 6);
    far
}

fn route() -> EvpnRoute {
    mac_ip(rd(9, 1), mac(1), Some(ip(1)))
}

/// Who has the route after `from` has announced it.
fn reached(from: u8, attrs: &A) -> Vec<u8> {
    let mut rib = reflector();
    announce(&mut rib, from, attrs, vec![route()]);
    (2..8).filter(|n| !drained(&mut rib, *n).table.is_empty()).collect()
}

/// BGP-RR-01, BGP-DEC-05: and nobody gets his own route back.
#[test]
fn a_clients_route_goes_to_all_and_another_internal_one_to_clients_only() {
    assert_eq!(reached(2, &attrs()), [3, 4, 5, 6, 7]);
    assert_eq!(reached(4, &attrs()), [2, 3, 6, 7]);
    assert_eq!(reached(6, &attrs().path(&[65106])), [2, 3, 4, 5, 7]);
    let own = {
        let mut rib = reflector();
        originate(&mut rib, &attrs(), route(), false);
        (2..8).filter(|n| !drained(&mut rib, *n).table.is_empty()).collect::<Vec<u8>>()
    };
    assert_eq!(own, [2, 3, 4, 5, 6, 7]);
}

/// BGP-COMM-01 at a reflector.
#[test]
fn communities_bind_a_reflector_too() {
    let with = |c| attrs().with(|a| a.communities = vec![Community(c)]);
    assert_eq!(reached(2, &with(0xffff_ff01)), [3, 4, 5], "NO_EXPORT");
    assert_eq!(reached(2, &with(0xffff_ff03)), [3, 4, 5], "NO_EXPORT_SUBCONFED");
    assert_eq!(reached(2, &with(0xffff_ff02)), [0_u8; 0], "NO_ADVERTISE");
}

/// BGP-RR-03, -04, -06, BGP-UPD-05: two marks are added, the rest is as it came.
#[test]
fn a_reflected_route_is_marked_and_otherwise_unchanged() {
    let sent =
        attrs().seq(7).community(ExtCommunity([0x43, 1, 2, 3, 4, 5, 6, 7])).path(&[65300, 65301]).with(|a| {
            a.local_pref = Some(333);
            a.med = Some(44);
            a.communities = vec![Community(0xfde8_0001)];
            a.large_communities = vec![wire::LargeCommunity(1, 2, 3)];
            a.others = vec![wire::RawAttr { flags: 0xe0, code: 250, value: vec![1, 2, 3].into() }];
        });
    let mut rib = reflector();
    rib.update(PeerId(2), &reach(&sent, vtep(77), vec![route()]), None, Time(0));
    for n in [3, 4] {
        let (_, got, next_hop) = drained(&mut rib, n).table.remove(&route().key()).unwrap();
        assert_eq!((got.originator_id, &got.cluster_list[..]), (Some(vtep(2)), &[CLUSTER][..]));
        assert_eq!(next_hop, NextHop::V4(vtep(77)));
        assert_eq!(Attrs { originator_id: None, cluster_list: vec![], ..got }, sent.0);
    }
    // EVPN-NLRI-15: nothing of reflection crosses the border of the AS, but the next hop does.
    let (_, got, next_hop) = drained(&mut rib, 6).table.remove(&route().key()).unwrap();
    assert_eq!((got.originator_id, got.cluster_list.len(), got.local_pref), (None, 0, None));
    assert_eq!(next_hop, NextHop::V4(vtep(77)));
    assert!(!got.ext_communities.iter().any(|c| c.0[0] == 0x43), "BGP-EXTC-01");
    assert_eq!(got.others, sent.0.others);
}

/// BGP-RR-03: the first reflector's word stands; BGP-RR-04: ours goes in front.
#[test]
fn a_route_reflected_before_keeps_its_originator() {
    let sent = attrs().with(|a| {
        a.originator_id = Some(vtep(99));
        a.cluster_list = vec![vtep(50)];
    });
    let mut rib = reflector();
    announce(&mut rib, 4, &sent, vec![route()]);
    let (_, got, _) = drained(&mut rib, 2).table.remove(&route().key()).unwrap();
    assert_eq!((got.originator_id, got.cluster_list), (Some(vtep(99)), vec![CLUSTER, vtep(50)]));
}

/// What comes from another AS is no reflection: no marks.
#[test]
fn a_route_of_another_as_gets_no_marks() {
    let mut rib = reflector();
    announce(&mut rib, 6, &attrs().path(&[65106]), vec![route()]);
    let (_, got, _) = drained(&mut rib, 2).table.remove(&route().key()).unwrap();
    assert_eq!((got.originator_id, got.cluster_list.len(), got.local_pref), (None, 0, Some(100)));
}

/// BGP-RR-05, with a cluster id of its own.
#[test]
fn what_has_been_here_before_is_ignored() {
    type Case<'a> = (fn(&mut Attrs), &'a [u8]);
    let cases: [Case<'_>; 4] = [
        (|a| a.originator_id = Some(OUR_VTEP), &[]),
        (|a| a.cluster_list = vec![vtep(50), CLUSTER], &[]),
        // Our identifier is no cluster id of ours here.
        (|a| a.cluster_list = vec![OUR_VTEP], &[3, 4, 5, 6, 7]),
        (|a| a.originator_id = Some(CLUSTER), &[3, 4, 5, 6, 7]),
    ];
    for (i, (f, expected)) in cases.into_iter().enumerate() {
        assert_eq!(reached(2, &attrs().with(f)), expected, "case {i}");
    }
}

/// Two clients with the same attributes, and two routes that differ in nothing but who sent them: each keeps its own
/// originator although all else would let them share an UPDATE.
#[test]
fn routes_of_two_clients_never_share_an_originator() {
    let mut rib = reflector();
    for n in [2u8, 3] {
        let one = mac_ip(rd(n, 1), mac(u32::from(n)), None);
        rib.update(PeerId(u32::from(n)), &reach(&attrs(), vtep(77), vec![one]), None, Time(0));
    }
    let far = drained(&mut rib, 4);
    let got: Vec<_> = far.table.values().map(|(_, a, _)| a.originator_id.unwrap()).collect();
    assert_eq!(got, [vtep(2), vtep(3)]);
}

/// EVPN-ERR-01: octets of a type that nobody knows come out as they came in, and go as they came.
#[test]
fn unknown_route_types_are_reflected_octet_for_octet() {
    let strange =
        EvpnRoute::Unknown(UnknownRoute { route_type: 99, body: vec![0xde, 0xad, 0, 0xff, 7].into() });
    let mut rib = reflector();
    announce(&mut rib, 2, &attrs(), vec![strange.clone(), route()]);
    let mut far = Receiver::default();
    far.drain(&mut rib, PeerId(3), true);
    assert_eq!(far.table[&strange.key()].0, strange);
    withdraw(&mut rib, 2, vec![strange]);
    far.drain(&mut rib, PeerId(3), true);
    assert_eq!((far.table.len(), far.needless), (1, 0));
}

/// EVPN-BEST-04: the same host behind two VTEPs is two keys, and each is reflected.
#[test]
fn each_rd_is_reflected_separately() {
    let mut rib = reflector();
    for n in [2u8, 3] {
        announce(&mut rib, n, &attrs().seq(u32::from(n)), vec![mac_ip(rd(n, 1), mac(1), None)]);
    }
    assert_eq!(drained(&mut rib, 4).table.len(), 2);
}

/// A move is sent before a table that is still on its way, as one of our own is.
#[test]
fn a_reflected_move_overtakes_a_table_that_is_being_sent() {
    let mut rib = reflector();
    let mut far = drained(&mut rib, 3);
    let end = wire::Update {
        unreach: Some(wire::MpUnreach { family: wire::Family::EVPN, nlri: wire::Nlri::Evpn(vec![]) }),
        ..wire::Update::default()
    };
    // Neighbour 4 has told all that it has; 2 is in the middle of it.
    rib.update(PeerId(4), &end, None, Time(0));
    let bulk = |n: u32| mac_ip(rd(2, 1), mac(n), None);
    announce(&mut rib, 2, &attrs().seq(1), (0..2000).map(bulk).collect());
    assert!(far.step(&mut rib, PeerId(3), true, 4096));
    let moved = mac_ip(rd(4, 1), mac(1999), None);
    announce(&mut rib, 4, &attrs().seq(2), vec![moved.clone()]);
    far.said.clear();
    assert!(far.step(&mut rib, PeerId(3), true, 4096));
    assert_eq!(far.said, [Said::Reach(vec![moved])]);
}

/// A client that is lost: its routes go from all others, and its own table is there again when it is back.
#[test]
fn a_lost_clients_routes_go_everywhere() {
    let mut rib = reflector();
    let mut far = Receiver::default();
    announce(&mut rib, 2, &attrs(), vec![route()]);
    announce(&mut rib, 3, &attrs(), vec![mac_ip(rd(3, 1), mac(3), None)]);
    far.drain(&mut rib, PeerId(5), true);
    assert_eq!(far.table.len(), 2);
    rib.peer_down(PeerId(2));
    far.drain(&mut rib, PeerId(5), true);
    assert_eq!((far.table.len(), far.needless), (1, 0));
    rib.peer_up(PeerId(2), &agreed(true, 2));
    assert_eq!(drained(&mut rib, 2).table.len(), 1);
}

/// BGP-RR-06. Golden vectors through a reflector: what comes out differs from what went in by the two marks alone.
#[test]
fn golden_vectors_are_reflected_with_nothing_but_the_marks_added() {
    let mut seen = 0;
    for v in support::vectors().iter().filter(|v| v.is_bgp() && !v.is_defective()) {
        let ctx = v.decode_ctx();
        let Ok(decoded) = wire::decode(&v.bytes, &ctx) else { continue };
        let Message::Update(update) = decoded.message else { continue };
        let evpn_reach = update.reach.as_ref().is_some_and(|r| r.family == wire::Family::EVPN);
        let told = update.attrs.communities.iter().any(|c| matches!(c.0, 0xffff_0006 | 0xffff_ff02));
        if !ctx.ibgp || !evpn_reach || told || decoded.treatment > Some(wire::Treatment::SkipNlri) {
            continue;
        }
        seen += 1;
        let mut rib = Rib::new(Config { asn: Asn(64999), cluster_id: CLUSTER, ..config() });
        for n in [2u8, 3] {
            rib.add_peer(PeerId(u32::from(n)), vtep(n).into(), true);
            rib.set_client(PeerId(u32::from(n)));
            rib.peer_up(PeerId(u32::from(n)), &Agreed { decode: ctx.clone(), ..agreed(true, n) });
        }
        rib.update(PeerId(2), &update, decoded.treatment, Time(0));
        let far = drained(&mut rib, 3);
        let wire::Nlri::Evpn(routes) = &update.reach.as_ref().unwrap().nlri else { panic!("{}", v.id) };
        let mut keys: Vec<_> = routes.iter().map(|n| n.route.key()).collect();
        keys.sort();
        keys.dedup();
        assert_eq!(far.table.keys().cloned().collect::<Vec<_>>(), keys, "{}", v.id);
        for (route, got, next_hop) in far.table.values() {
            assert!(routes.iter().any(|n| n.route == *route), "{}: {route:?}", v.id);
            assert_eq!(*next_hop, update.reach.as_ref().unwrap().next_hop, "{}", v.id);
            let mut expected = update.attrs.clone();
            expected.next_hop = None;
            expected.originator_id = expected.originator_id.or(Some(vtep(2)));
            expected.cluster_list.insert(0, CLUSTER);
            assert_eq!(*got, expected, "{}", v.id);
        }
    }
    assert!(seen > 40, "only {seen} vectors");
}
