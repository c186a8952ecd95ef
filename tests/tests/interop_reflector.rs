//! vtepd as the route reflector of a fabric: between two FRR, and between FRR and GoBGP. It has no VNI and no device.

use std::net::IpAddr;
use vtepd_tests::fabric::{ASN, Fabric, Guest, Place, frr_conf};
use vtepd_tests::gobgp::{GoBgp, Peer};
use vtepd_tests::mixed::Mixed;
use vtepd_tests::need::{Need, met};
use vtepd_tests::poll::{LATER, SOON, eventually, same};

const NEEDS: [Need; 3] = [Need::Root, Need::Frr, Need::GoBgp];
/// Index of the reflector among the VTEPs; the others are its clients.
const REFLECTOR: usize = 0;
const GOBGP: usize = 3;

/// `[[neighbor]]` of GoBGP with route target membership.
const CONSTRAINED: &str = "[[neighbor]]
address = \"10.0.0.4\"
asn = 65000
connect-retry = 1
route-reflector-client = true
rt-constraint = true
";

/// The reflector, FRR on VTEPs 1 and 2, GoBGP on VTEP 3. Nobody but the reflector is anybody's neighbour.
fn star(rtc: bool) -> (GoBgp, Mixed) {
    let mut m = Mixed::new(Fabric::new(4));
    let reflector = m.vtep(REFLECTOR).address;
    for i in [1, 2] {
        m.vtep(i).make_devices(100, &["p1"]);
        m.vtep(i).make_devices(200, &[]);
        m.accept_arp(i, 100);
        m.start_frr_with(i, &frr_conf(ASN, i + 1, &[(reflector, ASN)], ""));
    }
    let at = m.vtep(GOBGP);
    let gobgp = GoBgp::start(&at.ns, at.address, &[Peer { rtc, ..Peer::ibgp(reflector) }]);
    let mut conf = m.fabric.conf(REFLECTOR);
    conf.vnis.clear();
    conf.neighbor_extra = "route-reflector-client = true".into();
    if rtc {
        conf.neighbors.retain(|(a, _)| *a != at.address);
        conf.sections = CONSTRAINED.into();
    }
    m.start_vtepd_with(REFLECTOR, &conf);
    eventually(LATER, "all clients are up", || {
        let rows = m.vtepd(REFLECTOR).show("neighbors", &[]);
        let up = |r: &serde_json::Value| r["state"] == "Established";
        if rows.len() == 3 && rows.iter().all(up) { Ok(()) } else { Err(rows) }
    });
    (gobgp, m)
}

/// BGP-RR-01, -03, -04, -06: the two FRR flood to each other, find each other's guests, and follow a move, by nothing
/// but what the reflector has passed on.
#[test]
fn two_frr_find_each_others_guests_and_follow_a_move_through_the_reflector() {
    if !met(&NEEDS) {
        return;
    }
    let (_gobgp, m) = star(false);
    for (i, other) in [(1, 2), (2, 1)] {
        let want = vec![m.vtep(other).address.to_string()];
        eventually(LATER, "FRR floods to the other", || same(m.vtep(i).flood_list(100), want.clone()));
    }
    let g = Guest::new(5);
    m.guest(1).send(&g.garp());
    let at = |i: usize, place: &Place| m.vtep(i).sends_to(100, g.mac, place);
    eventually(SOON, "VTEP 2 sends to VTEP 1", || at(2, &Place::vtep(m.vtep(1))));
    let detail = m.frr(2).route_details("macip");
    assert!(detail.contains("Originator: 10.0.0.2, Cluster list: 10.0.0.1"), "{detail}");
    // To VTEP 2 and back again.
    for (to, from) in [(2, 1), (1, 2)] {
        m.guest(to).send(&g.garp());
        eventually(SOON, "the old VTEP sends to the new one", || at(from, &Place::vtep(m.vtep(to))));
        at(to, &Place::port("p1")).unwrap();
    }
    let rows = m.vtepd(REFLECTOR).show("routes", &[]);
    assert!(
        rows.iter().all(|r| r["imported"].as_array().is_some_and(Vec::is_empty)),
        "no VNI here: {rows:?}"
    );
}

/// Routes of GoBGP at FRR and of FRR at GoBGP, both with the marks of a reflector and the next hop of their VTEP
/// (EVPN-NLRI-15); what is withdrawn, and what is lost with its session, goes.
#[test]
fn frr_and_gobgp_exchange_routes_through_the_reflector() {
    if !met(&NEEDS) {
        return;
    }
    let (gobgp, m) = star(false);
    let own = IpAddr::from([10, 0, 0, 4]);
    assert_eq!(m.vtep(GOBGP).address, own);
    let change = |verb: &str| {
        let host = "macadv 02:00:00:00:00:77 192.168.100.77 esi 0 etag 0 label 100 rd 10.0.0.4:2 rt 65000:100 encap vxlan";
        let flood =
            "multicast 10.0.0.4 etag 0 rd 10.0.0.4:2 rt 65000:100 encap vxlan pmsi ingress-repl 100 10.0.0.4";
        for route in [host, flood] {
            let line = format!("global rib {verb} -a evpn {route}");
            gobgp.ctl(&line.split(' ').collect::<Vec<_>>());
        }
    };
    change("add");
    let mac = evpn::types::Mac([2, 0, 0, 0, 0, 0x77]);
    let place = Place::vtep(m.vtep(GOBGP));
    for i in [1, 2] {
        eventually(SOON, "FRR sends to GoBGP's host", || m.vtep(i).sends_to(100, mac, &place));
        eventually(SOON, "and floods to it", || {
            let list = m.vtep(i).flood_list(100);
            if list.contains(&own.to_string()) { Ok(()) } else { Err(list) }
        });
    }
    let detail = m.frr(1).route_details("macip");
    assert!(detail.contains("Originator: 10.0.0.4, Cluster list: 10.0.0.1"), "{detail}");
    let g = Guest::new(6);
    m.guest(2).send(&g.garp());
    let line = eventually(SOON, "GoBGP has FRR's guest", || {
        let all = gobgp.routes();
        let mac = g.mac.to_string();
        all.lines().find(|l| l.contains(&mac) && l.contains("192.168.100.6")).map(str::to_owned).ok_or(all)
    });
    for what in ["10.0.0.3 ", "{Originator: 10.0.0.3}", "{ClusterList: [10.0.0.1]}", "{LocalPref: 100}"] {
        assert!(line.contains(what), "{what}: {line}");
    }
    change("del");
    eventually(SOON, "FRR does not send to it any more", || m.vtep(1).sends_to(100, mac, &Place::Nowhere));
    // Its session goes, and with it what it had told.
    change("add");
    eventually(SOON, "FRR sends to it again", || m.vtep(1).sends_to(100, mac, &place));
    drop(gobgp);
    eventually(LATER, "FRR has lost it with its session", || {
        m.vtep(1).sends_to(100, mac, &Place::Nowhere)?;
        let list = m.vtep(1).flood_list(100);
        if list == ["10.0.0.3"] { Ok(()) } else { Err(Place::Vtep(list.join(","))) }
    });
}

/// BGP-RTC-01, -04: GoBGP is sent the routes whose targets its VRFs import and no others, also those of a VRF that is made
/// later; what it has goes out, because the reflector asks for everything (BGP-RTC-03). FRR 8.4 does not know the family.
#[test]
fn gobgp_is_sent_what_its_vrfs_import() {
    if !met(&NEEDS) {
        return;
    }
    let (gobgp, m) = star(true);
    let vrf = |line: &str| gobgp.ctl(&line.split(' ').collect::<Vec<_>>());
    vrf("vrf add blue rd 10.0.0.4:100 rt both 65000:100");
    let imets = |vni: u32| {
        let all = gobgp.routes();
        let target = format!("[65000:{vni}]");
        let n = all.lines().filter(|l| l.contains("type:multicast") && l.contains(&target)).count();
        (n, all)
    };
    let has = |vni: u32, want: usize| {
        let (n, all) = imets(vni);
        if n == want { Ok(()) } else { Err(all) }
    };
    eventually(LATER, "the targets of blue, from both FRR", || has(100, 2));
    has(200, 0).unwrap();
    vrf("vrf add green rd 10.0.0.4:200 rt both 65000:200");
    eventually(SOON, "the targets of green", || has(200, 2));
    has(100, 2).unwrap();
    // No VRF is deleted here: gobgpd 3.10 dies of that while it holds a default route target.
    // The other way: everything is wanted.
    let mac = evpn::types::Mac([2, 0, 0, 0, 0, 0x78]);
    vrf(
        "global rib add -a evpn macadv 02:00:00:00:00:78 0.0.0.0 esi 0 etag 0 label 100 rd 10.0.0.4:3 rt 65000:100 encap vxlan",
    );
    let place = Place::vtep(m.vtep(GOBGP));
    eventually(SOON, "FRR sends to GoBGP's host", || m.vtep(1).sends_to(100, mac, &place));
}
