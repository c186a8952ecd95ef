//! Sessions between vtepd and FRR, and which of each other's routes they take (route targets).

use evpn::types::Mac;
use serde_json::Value;
use std::net::IpAddr;
use std::time::Duration;
use vtepd_tests::fabric::{Fabric, Guest, Place, frr_conf};
use vtepd_tests::mixed::Mixed;
use vtepd_tests::need::{Need, met};
use vtepd_tests::poll::{LATER, SOON, eventually, same, throughout};
use vtepd_tests::speaker::{Attributes, Speaker, imet};
use vtepd_tests::vtepd::Conf;

const NEEDS: [Need; 2] = [Need::Root, Need::Frr];

/// Scenario 1: FRR with `no bgp default ipv4-unicast`. Negotiated is EVPN and nothing else; the capabilities that
/// only FRR knows are ignored (BGP-CAP-04, BGP-CAP-06); the hold time is the smaller one (BGP-OPEN-09).
#[test]
fn an_ibgp_session_with_evpn_alone_comes_up() {
    if !met(&NEEDS) {
        return;
    }
    let m = Mixed::converged_pair();
    let (v, f) = (m.vtepd(0), m.frr(1));
    eventually(SOON, "FRR has the session up", || same(f.neighbor_state("10.0.0.1"), "Established".into()));
    let theirs = f.json("show bgp neighbors 10.0.0.1 json")["10.0.0.1"].clone();
    let capable = &theirs["neighborCapabilities"];
    assert_eq!(capable["multiprotocolExtensions"]["l2VpnEvpn"]["advertisedAndReceived"], true, "{capable}");
    assert!(capable["multiprotocolExtensions"]["ipv4Unicast"].is_null(), "{capable}");
    assert_eq!(capable["4byteAs"], "advertisedAndReceived", "{capable}");
    // FRR offers what we do not know and do not echo.
    assert_eq!(capable["enhancedRouteRefresh"], "advertised", "{capable}");
    assert_eq!(theirs["bgpTimerHoldTimeMsecs"], 90_000);
    assert_eq!((&theirs["remoteRouterId"], &theirs["connectionsDropped"]), (&"10.0.0.1".into(), &0.into()));
    let ours = v.show("neighbors", &[])[0].clone();
    assert_eq!((&ours["state"], &ours["hold_time"]), (&"Established".into(), &90.into()), "{ours}");
    assert_eq!((&ours["established_count"], &ours["faults"]), (&1.into(), &0.into()), "{ours}");
    assert_eq!(ours["router_id"], "10.0.0.2");
}

/// An eBGP pair: AS of vtepd, AS of FRR.
fn ebgp(ours: u32, theirs: u32) -> Mixed {
    let fabric = Fabric::new(2);
    let mut m = Mixed::new(fabric);
    m.vtep(1).make_devices(100, &["p1"]);
    m.accept_arp(1, 100);
    let conf = frr_conf(theirs, 2, &[(m.vtep(0).address, ours)], "");
    m.start_frr_with(1, &conf);
    let mut conf = m.fabric.conf(0);
    conf.asn = ours;
    conf.neighbors = vec![(m.vtep(1).address, theirs)];
    m.start_vtepd_with(0, &conf);
    m.converge();
    m
}

/// A guest on each side is remote at the other, in both kernels.
fn guests_are_exchanged(m: &Mixed) {
    let (g, h) = (Guest::new(5), Guest::new(6));
    m.guest(0).send(&g.garp());
    m.guest(1).send(&h.garp());
    let (a, b) = (m.vtep(0), m.vtep(1));
    eventually(SOON, "FRR's kernel has our guest", || b.sends_to(100, g.mac, &Place::vtep(a)));
    eventually(SOON, "our kernel has FRR's guest", || a.sends_to(100, h.mac, &Place::vtep(b)));
}

/// Extended communities of FRR's IMET route as vtepd holds it.
fn imet_of_frr(m: &Mixed) -> Value {
    eventually(SOON, "FRR's IMET route", || m.routes(0, 3, Some(1)).pop().ok_or("none"))
}

/// Scenario 2: different AS numbers, automatic route targets: `AS:VNI` on the wire, and both sides import on the
/// VNI alone (EVPN-VXLAN-10).
#[test]
fn ebgp_with_automatic_route_targets_imports_on_the_vni() {
    if !met(&NEEDS) {
        return;
    }
    let m = ebgp(65001, 65002);
    let theirs = m.frr(1).route_details("multicast");
    assert!(theirs.contains("RT:65001:100"), "{theirs}");
    let in_vni = m.frr(1).vty(&["show bgp l2vpn evpn route vni 100"]);
    assert!(in_vni.contains("[3]:[0]:[32]:[10.0.0.1]"), "{in_vni}");
    let row = imet_of_frr(&m);
    assert!(row["communities"].as_array().unwrap().contains(&"RT:65002:100".into()), "{row}");
    assert_eq!((&row["imported"], &row["best"]), (&serde_json::json!([100]), &true.into()), "{row}");
    assert_eq!(m.vtep(0).flood_list(100), ["10.0.0.2"]);
    eventually(SOON, "FRR floods to us", || same(m.vtep(1).flood_list(100), vec!["10.0.0.1".into()]));
    guests_are_exchanged(&m);
    // The AS path is FRR's own AS alone, and ours at FRR.
    let summary = m.frr(1).json("show bgp l2vpn evpn summary json");
    assert_eq!(summary["peers"]["10.0.0.1"]["remoteAs"], 65001, "{summary}");
}

/// Scenario 2 as fabrics are really built: VTEP addresses on loopbacks, eBGP between them over more than one hop
/// (`multihop` here, `ebgp-multihop` there), VXLAN between the same addresses. FRR only listens, so it is our connection
/// that comes from the loopback (`local-address`).
#[test]
fn ebgp_between_loopbacks_comes_up_with_multihop() {
    if !met(&NEEDS) {
        return;
    }
    let mut fabric = Fabric::new(2);
    for (i, other) in [(0, 1), (1, 0)] {
        fabric.vteps[i].address = IpAddr::from([10, 255, 0, i as u8 + 1]);
        let (n, o) = (i + 1, other + 1);
        fabric.vteps[i].ns.sh(&format!(
            "ip addr add 10.255.0.{n}/32 dev lo && ip route add 10.255.0.{o}/32 via 10.0.0.{o}"
        ));
    }
    let mut m = Mixed::new(fabric);
    let [a, b] = [m.vtep(0).address, m.vtep(1).address];
    m.vtep(1).make_devices(100, &["p1"]);
    m.accept_arp(1, 100);
    let conf = frr_conf(65002, 2, &[(a, 65001)], "");
    let hops = format!("router bgp 65002\n neighbor {a} ebgp-multihop 2\n neighbor {a} passive\n");
    m.start_frr_with(1, &(conf + &hops));
    let mut conf = m.fabric.conf(0);
    conf.asn = 65001;
    conf.neighbors.clear();
    conf.sections = format!(
        "[[neighbor]]\naddress = \"{b}\"\nlocal-address = \"{a}\"\nasn = 65002\nmultihop = 2\nconnect-retry = 1\n"
    );
    m.start_vtepd_with(0, &conf);
    m.converge();
    eventually(SOON, "both flood to each other", || {
        same(
            (m.vtep(0).flood_list(100), m.vtep(1).flood_list(100)),
            (vec![b.to_string()], vec![a.to_string()]),
        )
    });
    assert_eq!(m.frr(1).neighbor_state(&a.to_string()), "Established");
    guests_are_exchanged(&m);
}

/// Scenario 3: FRR holds its first UPDATE and End-of-RIB back for more than a second. Whenever vtepd says
/// "converged", End-of-RIB has come (BGP-GR-06).
#[test]
fn converged_is_not_said_before_end_of_rib() {
    if !met(&NEEDS) {
        return;
    }
    let m = Mixed::pair();
    let v = m.vtepd(0);
    let mut waiting = 0;
    eventually(LATER, "vtepd converges", || {
        // In this order: what is true of the first look stays true in the second.
        let converged = v.status()["converged"] == true;
        let n = v.show("neighbors", &[])[0].clone();
        assert!(!converged || n["end_of_rib"] == true, "converged without End-of-RIB: {n}");
        waiting += u32::from(n["state"] == "Established" && n["end_of_rib"] == false && !converged);
        if converged { Ok(()) } else { Err(n) }
    });
    println!("{waiting} looks at an established session that was not complete");
    let f = m.frr(1).json("show bgp neighbors 10.0.0.1 json")["10.0.0.1"].clone();
    assert_eq!(f["gracefulRestartInfo"]["endOfRibRecv"]["l2VpnEvpn"], true, "{f}");
    assert_eq!(f["gracefulRestartInfo"]["endOfRibSend"]["l2VpnEvpn"], true, "{f}");
    assert_eq!(m.vtepd(0).neighbor_state(m.vtep(1).address), "Established");
}

/// The same with a peer that says nothing until it is asked to: its routes alone do not make it complete.
#[test]
fn routes_without_end_of_rib_do_not_make_a_peer_complete() {
    if !met(&[Need::Root]) {
        return;
    }
    let mut m = Mixed::new(Fabric::new(2));
    m.start_vtepd(0);
    let peer = m.vtep(1).address;
    let s = Speaker::accept(&m.vtep(1).ns, peer, 65000);
    s.announce(&Attributes::new(peer, 100).ingress_replication(100, peer), &[imet(peer)]);
    eventually(SOON, "vtepd floods to it", || same(m.vtep(0).flood_list(100), vec!["10.0.0.2".into()]));
    let n = m.vtepd(0).show("neighbors", &[])[0].clone();
    assert_eq!((&n["state"], &n["end_of_rib"]), (&"Established".into(), &false.into()));
    assert_eq!(m.vtepd(0).status()["converged"], false);
    s.end_of_rib();
    m.converge();
    assert!(s.is_up(), "vtepd said {:?}", s.notified());
}

/// Scenario 24: an automatic route target holds the low 16 bits of a four-octet AS, both ways (EVPN-VXLAN-10).
#[test]
fn four_octet_as_numbers_give_the_same_automatic_route_targets() {
    if !met(&NEEDS) {
        return;
    }
    let m = ebgp(4_200_000_001, 4_200_000_002);
    let theirs = m.frr(1).route_details("multicast");
    assert!(theirs.contains("RT:59905:100"), "{theirs}");
    let row = imet_of_frr(&m);
    assert!(row["communities"].as_array().unwrap().contains(&"RT:59906:100".into()), "{row}");
    assert_eq!(row["imported"], serde_json::json!([100]), "{row}");
    guests_are_exchanged(&m);
}

/// vtepd and FRR, iBGP, with these lines for vtepd's VNIs and FRR's EVPN family.
fn with_targets(vnis: &[u32], vni_extra: &str, frr_family: &str) -> Mixed {
    let mut m = Mixed::new(Fabric::new(2));
    for vni in vnis {
        m.vtep(1).make_devices(*vni, if *vni == 100 { &["p1"] } else { &[] });
    }
    let conf = frr_conf(65000, 2, &[(m.vtep(0).address, 65000)], frr_family);
    m.start_frr_with(1, &conf);
    let mut conf: Conf = m.fabric.conf(0);
    conf.vnis = vnis.iter().map(|n| (*n, if *n == 100 { vec!["p1".into()] } else { vec![] })).collect();
    conf.vni_extra = vni_extra.into();
    m.start_vtepd_with(0, &conf);
    m.converge();
    m
}

/// Scenario 24: the form of RFC 8365 §5.1.2.1 (`0x10000000 | VNI`), both ways (EVPN-VXLAN-09).
#[test]
fn rfc_8365_route_targets_are_sent_and_matched() {
    if !met(&NEEDS) {
        return;
    }
    let form = "route-targets = { import = \"auto-rfc8365\", export = \"auto-rfc8365\" }";
    let m = with_targets(&[100], form, "  autort rfc8365-compatible\n");
    let theirs = m.frr(1).route_details("multicast");
    assert_eq!(theirs.matches("RT:65000:268435556").count(), 2, "{theirs}");
    let row = imet_of_frr(&m);
    assert!(row["communities"].as_array().unwrap().contains(&"RT:65000:268435556".into()), "{row}");
    guests_are_exchanged(&m);
}

/// Scenario 24: manual route targets of all three types; one that matches is enough, none that matches is none
/// (VNI 200), and a MAC of a VNI that is not imported is nowhere in the kernel (EVPN-VXLAN-07).
#[test]
fn one_matching_route_target_of_several_is_enough() {
    if !met(&NEEDS) {
        return;
    }
    let family = "  vni 100\n   route-target import 4200000001:33\n   route-target import 65000:9\n   \
                  route-target export 65000:1111\n   route-target export 10.9.9.9:22\n  exit-vni\n  \
                  vni 200\n   route-target import 65000:8\n   route-target export 65000:7\n  exit-vni\n";
    // FRR's VNI 200 exports 65000:7 and imports 65000:8: neither is ours.
    let ours = "route-targets = { import = [\"10.9.9.9:22\", \"65000:6\"], export = [\"65000:44\", \"4200000001:33\"] }";
    let m = with_targets(&[100], ours, family);
    m.vtep(1).make_devices(200, &[]);
    eventually(SOON, "FRR's second VNI reaches us", || same(m.routes(0, 3, Some(1)).len(), 2));
    let rows = m.routes(0, 3, Some(1));
    let of =
        |rt: &str| rows.iter().find(|r| r["communities"].as_array().unwrap().contains(&rt.into())).unwrap();
    assert_eq!(of("RT:10.9.9.9:22")["imported"], serde_json::json!([100]), "{rows:#?}");
    assert!(of("RT:10.9.9.9:22")["communities"].as_array().unwrap().contains(&"RT:65000:1111".into()));
    assert_eq!(of("RT:65000:7")["imported"], serde_json::json!([]), "{rows:#?}");
    let theirs = m.frr(1).route_details("multicast");
    assert!(theirs.contains("RT:65000:44") && theirs.contains("RT:4200000001:33"), "{theirs}");
    assert_eq!(m.vtep(0).flood_list(100), ["10.0.0.2"]);
    eventually(SOON, "FRR floods to us in VNI 100", || {
        same(m.vtep(1).flood_list(100), vec!["10.0.0.1".into()])
    });
    assert!(m.vtep(1).flood_list(200).is_empty());
    guests_are_exchanged(&m);
    // A MAC in FRR's VNI 200 comes over the session and goes no further.
    let stranger = Mac([2, 0, 0, 0, 2, 1]);
    m.vtep(1).add_port(&m.fabric.guests, "p2");
    m.vtep(1).ns.sh("ip link set p2 master br200");
    m.fabric.guest_port(1, "p2").send(&vtepd_tests::frame::rarp(stranger));
    eventually(SOON, "the route is held", || {
        let rows = m.routes(0, 2, Some(1));
        rows.iter()
            .find(|r| r["route"].as_str().is_some_and(|s| s.contains(&stranger.to_string())))
            .cloned()
            .ok_or(rows)
    });
    assert_eq!(m.vtep(0).place(100, stranger), Place::Nowhere);
    assert!(m.vtepd(0).mac(&stranger.to_string()).is_null());
}

/// Scenario 5: FRR asks for everything again (route refresh, RFC 2918); it gets everything and nothing flaps.
#[test]
fn a_soft_clear_at_frr_changes_nothing() {
    if !met(&NEEDS) {
        return;
    }
    let m = Mixed::converged_pair();
    let (a, b) = (m.vtep(0), m.vtep(1));
    let g = Guest::new(55);
    m.guest(0).send(&g.garp());
    eventually(SOON, "FRR knows the MAC", || b.sends_to(100, g.mac, &Place::vtep(a)));
    let sent = || m.vtepd(0).show("neighbors", &[])[0]["updates_out"].as_u64().unwrap_or(0);
    let before = sent();
    m.frr(1).vty(&["clear bgp l2vpn evpn * soft in"]);
    eventually(SOON, "vtepd sends everything again", || if sent() > before { Ok(()) } else { Err(sent()) });
    throughout(Duration::from_millis(500), "nothing flaps", || {
        b.sends_to(100, g.mac, &Place::vtep(a))?;
        same(m.frr(1).flood_mode(100, "10.0.0.1"), Some("HER".into())).map_err(|_| Place::Broken)
    });
}

/// A session that FRR ends comes back by itself, with everything, and says why it was away.
#[test]
fn a_session_that_frr_resets_comes_back() {
    if !met(&NEEDS) {
        return;
    }
    let m = Mixed::converged_pair();
    let (a, b) = (m.vtep(0), m.vtep(1));
    let g = Guest::new(56);
    m.guest(0).send(&g.garp());
    eventually(SOON, "FRR knows the MAC", || b.sends_to(100, g.mac, &Place::vtep(a)));
    m.frr(1).vty(&["clear bgp *"]);
    eventually(LATER, "it comes back", || {
        let n = m.vtepd(0).show("neighbors", &[]);
        let back = n[0]["established_count"].as_u64() >= Some(2) && n[0]["state"] == "Established";
        if back { Ok(()) } else { Err(n) }
    });
    eventually(LATER, "with the MAC", || b.sends_to(100, g.mac, &Place::vtep(a)));
    let n = m.vtepd(0).show("neighbors", &[]);
    assert!(n[0]["last_error"].as_str().is_some_and(|e| !e.is_empty()), "it says why: {n:?}");
}

/// vtepd stops for good: FRR drops what came from it at once.
#[test]
fn after_a_stop_nothing_of_vtepd_is_left_at_frr() {
    if !met(&NEEDS) {
        return;
    }
    let mut m = Mixed::converged_pair();
    let g = Guest::new(57);
    m.guest(0).send(&g.garp());
    eventually(SOON, "FRR knows the MAC", || m.vtep(1).sends_to(100, g.mac, &Place::vtep(m.vtep(0))));
    m.stop_vtepd_for_good(0);
    eventually(SOON, "FRR is clean", || {
        same((m.vtep(1).flood_list(100), m.vtep(1).place(100, g.mac)), (vec![], Place::Nowhere))
    });
    // FRR tells a Cease from a broken connection.
    let n = m.frr(1).json("show bgp neighbors 10.0.0.1 json")["10.0.0.1"].clone();
    assert_eq!(n["lastNotificationReason"], "Cease/Administrative Shutdown", "{n}");
}
