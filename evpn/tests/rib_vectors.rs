//! Golden vectors whose required reaction is the RIB's: the route is kept and not used.

#![allow(clippy::unwrap_used)]

mod support;

use evpn::rib::{Config, Import, Rib, WhyNot};
use evpn::session::Agreed;
use evpn::types::{Asn, PeerId, Time, Vni};
use evpn::wire::{self, Message, Treatment};
use std::net::{IpAddr, Ipv4Addr};
use support::Vector;

const PEER: PeerId = PeerId(0);

/// Feeds the vector from a neighbour as its context says; the RIB has its VNI.
fn feed(v: &Vector) -> (Rib, Option<Treatment>) {
    let context = &v.json["context"];
    let vtep = context["local_vtep"].as_str().map_or("192.0.2.99".parse().unwrap(), |a| a.parse().unwrap());
    let asn = Asn(context["local_as"].as_u64().unwrap() as u32);
    let router_id = Ipv4Addr::new(192, 0, 2, 99);
    let mut rib = Rib::new(Config { asn, router_id, cluster_id: router_id, vtep });
    rib.add_vni(Vni::new(10100).unwrap(), Import::Auto);
    let ctx = v.decode_ctx();
    rib.add_peer(PEER, IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), ctx.ibgp);
    let agreed = Agreed {
        peer_as: if ctx.ibgp { asn } else { Asn(65002) },
        peer_id: Ipv4Addr::new(192, 0, 2, 1),
        ibgp: ctx.ibgp,
        hold_time: 90,
        families: ctx.families.clone(),
        as4: ctx.as4,
        max_send: 4096,
        refresh: true,
        enhanced_refresh: true,
        graceful: None,
        decode: ctx.clone(),
    };
    rib.peer_up(PEER, &agreed);
    let decoded = wire::decode(&v.bytes, &ctx).unwrap();
    let Message::Update(update) = decoded.message else { panic!("{}: not an UPDATE", v.id) };
    rib.update(PEER, &update, decoded.treatment, Time(0));
    (rib, decoded.treatment)
}

fn vector(id: &str) -> &'static Vector {
    support::vectors().iter().find(|v| v.id == id).unwrap()
}

#[test]
fn routes_that_are_not_to_be_used_are_kept_and_say_why() {
    let mut seen = 0;
    for v in support::vectors() {
        let reaction = v.json["expect"]["reaction"].as_str().unwrap_or_default();
        if !["route-not-eligible", "route-not-installed"].contains(&reaction) {
            continue;
        }
        seen += 1;
        let (mut rib, treatment) = feed(v);
        assert_eq!(treatment, None, "{}: well-formed", v.id);
        let routes = rib.routes_after(None, 10);
        assert_eq!(routes.len(), 1, "{}: kept", v.id);
        let expected = match v.id.as_str() {
            "EVPN-E21" => WhyNot::NotVxlan,
            "EVPN-E22" => WhyNot::OwnNextHop,
            "UPD-E28" => WhyNot::OwnAs,
            other => panic!("{other}: a vector without an expected reason"),
        };
        assert_eq!(routes[0].why_not, Some(expected), "{}", v.id);
        assert_eq!(rib.take_changes(10), vec![], "{}: forwarding does not hear of it", v.id);
    }
    assert_eq!(seen, 3);
}

/// The same routes without the defect are used: the vectors above do not pass for another reason.
#[test]
fn well_formed_mac_and_imet_vectors_are_imported() {
    for (id, macs, floods) in [("EVPN-T2-01", 1, 0), ("EVPN-T2-02", 1, 0), ("EVPN-T3-01", 0, 1)] {
        let (rib, _) = feed(vector(id));
        let vni = Vni::new(10100).unwrap();
        assert_eq!(rib.candidates(vni).count(), macs, "{id}");
        assert_eq!(rib.flood_vteps(vni).len(), floods, "{id}");
    }
}

/// EVPN-IMET-04, -05.
#[test]
fn imet_without_a_usable_tunnel_floods_nowhere() {
    // Assisted replication; a broken tunnel identifier; no PMSI at all.
    for (id, kept) in [("EVPN-T3-04", 1), ("UPD-E48", 0), ("UPD-E49", 0)] {
        let (rib, _) = feed(vector(id));
        assert_eq!(rib.route_count(), kept, "{id}");
        assert_eq!(rib.flood_vteps(Vni::new(10100).unwrap()).len(), 0, "{id}");
    }
}

/// Nothing that decodes makes the RIB panic or keep what is treated as withdrawn.
#[test]
fn every_vector_that_decodes_can_be_fed() {
    let mut fed = 0;
    for v in support::vectors().iter().filter(|v| v.is_bgp()) {
        let Ok(decoded) = wire::decode(&v.bytes, &v.decode_ctx()) else { continue };
        if !matches!(decoded.message, Message::Update(_)) {
            continue;
        }
        fed += 1;
        let (rib, treatment) = feed(v);
        if treatment == Some(Treatment::TreatAsWithdraw) {
            assert_eq!(rib.route_count(), 0, "{}", v.id);
        }
        assert_eq!(rib.routes_after(None, 1000).len(), rib.route_count(), "{}", v.id);
    }
    assert!(fed > 100, "only {fed} vectors");
}
