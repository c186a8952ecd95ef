//! vtepd beside the FRR that Debian ships: sessions, flooding, devices that come and go. Asserted on both sides.
//!
//! Numbers in the names of the tests' comments are the acceptance scenarios of docs/testing.md.

use std::time::Duration;
use vtepd_tests::fabric::{Fabric, Guest, Place, frr_conf};
use vtepd_tests::frr::Frr;
use vtepd_tests::need::{Need, met};
use vtepd_tests::packet::now;
use vtepd_tests::poll::{LATER, SOON, eventually, same, throughout};
use vtepd_tests::speaker::{Attributes, Speaker, imet, mac_ip};
use vtepd_tests::vtepd::Vtepd;

const NEEDS: [Need; 2] = [Need::Root, Need::Frr];

fn established(f: &Fabric, v: &Vtepd, frr: &Frr) {
    let [a, b] = [f.vteps[0].address, f.vteps[1].address];
    eventually(LATER, "Established on both sides", || {
        same(
            (v.neighbor_state(b), frr.neighbor_state(&a.to_string())),
            ("Established".to_owned(), "Established".to_owned()),
        )
    });
}

/// Scenarios 1, 3, 9: plain iBGP with EVPN only; unknown capabilities of FRR are ignored; its first UPDATE comes a
/// second late and "converged" waits for its End-of-RIB; IMET makes flood rows on both sides.
#[test]
fn ibgp_comes_up_and_both_sides_flood_to_each_other() {
    if !met(&NEEDS) {
        return;
    }
    let f = Fabric::new(2);
    let v = f.start_vtepd(0);
    let frr = f.start_frr(1);
    let mut too_early = None;
    eventually(LATER, "vtepd is converged", || {
        let s = v.status();
        let n = v.show("neighbors", &[]);
        if s["converged"] == true && n[0]["end_of_rib"] != true {
            too_early = Some((s.clone(), n.clone()));
        }
        if s["converged"] == true { Ok(()) } else { Err((s, n)) }
    });
    assert!(too_early.is_none(), "converged before End-of-RIB: {too_early:?}");
    established(&f, &v, &frr);
    eventually(SOON, "flood rows", || {
        same(
            (f.vteps[0].flood_list(100), f.vteps[1].flood_list(100)),
            (vec!["10.0.0.2".into()], vec!["10.0.0.1".into()]),
        )
    });
    assert_eq!(frr.flood_mode(100, "10.0.0.1").as_deref(), Some("HER"));
    let vnis = v.show("vnis", &[]);
    assert_eq!((&vnis[0]["vteps"][0], &vnis[0]["ready"]), (&"10.0.0.2".into(), &true.into()), "{vnis:?}");
    let imet = frr.route_details("multicast");
    assert!(imet.contains("PMSI Tunnel Type: Ingress Replication, label: 100"), "{imet}");
    let neighbor = frr.json("show bgp neighbors 10.0.0.1 json");
    assert_eq!(
        neighbor["10.0.0.1"]["addressFamilyInfo"]["l2VpnEvpn"]["acceptedPrefixCounter"], 1,
        "{neighbor}"
    );
}

/// Scenario 2: eBGP between different ASNs; automatic route targets match on the VNI alone, both ways.
#[test]
fn ebgp_peers_import_each_others_automatic_targets() {
    if !met(&NEEDS) {
        return;
    }
    let f = Fabric::new(2);
    let [a, b] = [&f.vteps[0], &f.vteps[1]];
    let mut conf = f.conf(0);
    conf.asn = 65001;
    conf.neighbors = vec![(b.address, 65002)];
    let v = Vtepd::start(&a.ns, &conf);
    b.make_devices(100, &["p1"]);
    let frr = Frr::start(&b.ns, &frr_conf(65002, 2, &[(a.address, 65001)], ""));
    established(&f, &v, &frr);
    let (g, h) = (Guest::new(11), Guest::new(12));
    f.guest_port(0, "p1").send(&g.garp());
    f.guest_port(1, "p1").send(&h.garp());
    eventually(LATER, "FRR imports ours", || b.sends_to(100, g.mac, &Place::vtep(a)));
    eventually(LATER, "we import FRR's", || a.sends_to(100, h.mac, &Place::vtep(b)));
    let routes = frr.route_details("macip");
    assert!(routes.contains("RT:65001:100"), "{routes}");
    let ours = v.mac(&h.mac.to_string());
    assert_eq!(ours["place"]["vtep"], "10.0.0.2", "{ours}");
}

/// Scenario 24 (with the short form of the AS): AS 4200000001 gives the target 59905:VNI.
#[test]
fn a_four_octet_as_is_cut_to_its_low_half_in_automatic_targets() {
    if !met(&NEEDS) {
        return;
    }
    let f = Fabric::new(2);
    let [a, b] = [&f.vteps[0], &f.vteps[1]];
    let mut conf = f.conf(0);
    conf.asn = 4_200_000_001;
    conf.neighbors = vec![(b.address, 65002)];
    let v = Vtepd::start(&a.ns, &conf);
    b.make_devices(100, &["p1"]);
    let frr = Frr::start(&b.ns, &frr_conf(65002, 2, &[(a.address, 4_200_000_001)], ""));
    established(&f, &v, &frr);
    let g = Guest::new(13);
    f.guest_port(0, "p1").send(&g.garp());
    eventually(LATER, "FRR imports it", || b.sends_to(100, g.mac, &Place::vtep(a)));
    let routes = frr.route_details("macip");
    assert!(routes.contains("RT:59905:100"), "{routes}");
}

/// Scenario 24: explicit targets, of the AS4 and the IPv4 kind; one of two that match is enough; none that matches is not.
#[test]
fn explicit_route_targets_of_every_kind_decide_what_is_imported() {
    if !met(&NEEDS) {
        return;
    }
    let f = Fabric::new(2);
    let [a, b] = [&f.vteps[0], &f.vteps[1]];
    let mut conf = f.conf(0);
    conf.vni_extra =
        "route-targets = { import = [\"4200000001:7\", \"192.0.2.1:8\", \"65000:9\"], export = [\"65000:77\"] }".into();
    let v = Vtepd::start(&a.ns, &conf);
    let s = Speaker::accept(&b.ns, b.address, 65000);
    s.end_of_rib();
    let encapsulation = [3, 0x0c, 0, 0, 0, 0, 0, 8];
    let as4 = [2, 2, 0xfa, 0x56, 0xea, 1, 0, 7];
    let ip = [1, 2, 192, 0, 2, 1, 0, 8];
    let other = vtepd_tests::speaker::target(65000, 1);
    let nine = vtepd_tests::speaker::target(65000, 9);
    let mut macs = Vec::new();
    for (n, c) in [vec![as4], vec![ip], vec![other, nine], vec![other]].into_iter().enumerate() {
        let g = Guest::new(20 + n as u8);
        let mut c = c;
        c.push(encapsulation);
        s.announce(&Attributes::new(b.address, 100).communities(&c), &[mac_ip(100, g.mac, None)]);
        macs.push(g.mac);
    }
    for m in &macs[..3] {
        eventually(SOON, "imported", || a.sends_to(100, *m, &Place::vtep(b)));
    }
    assert_eq!(a.place(100, macs[3]), Place::Nowhere, "{:?}", v.show("routes", &[]));
    let g = Guest::new(30);
    f.guest_port(0, "p1").send(&g.garp());
    eventually(SOON, "ours carries the export target", || {
        if s.heard_octets(&vtepd_tests::speaker::target(65000, 77)) { Ok(()) } else { Err("not yet") }
    });
    assert!(!s.heard_octets(&vtepd_tests::speaker::target(65000, 100)));
}

/// Scenario 10: twelve VNIs in one burst; every one gets its flood rows on both sides.
#[test]
fn twelve_vnis_in_one_burst_all_get_flood_rows() {
    if !met(&NEEDS) {
        return;
    }
    let f = Fabric::new(2);
    let [a, b] = [&f.vteps[0], &f.vteps[1]];
    let vnis: Vec<u32> = (201..=212).collect();
    for v in &vnis {
        b.make_devices(*v, &[]);
    }
    let mut conf = f.conf(0);
    conf.vnis = vnis.iter().map(|v| (*v, Vec::new())).collect();
    let v = Vtepd::start(&a.ns, &conf);
    let frr = Frr::start(&b.ns, &frr_conf(65000, 2, &[(a.address, 65000)], ""));
    established(&f, &v, &frr);
    for vni in vnis {
        eventually(LATER, "flood rows of every VNI", || {
            same((a.flood_list(vni), b.flood_list(vni)), (vec!["10.0.0.2".into()], vec!["10.0.0.1".into()]))
        });
    }
}

/// Scenario 11: a VXLAN device or a whole VNI goes away on either side; the other drops its flood row and all rows of the VNI.
#[test]
fn a_vni_that_goes_away_leaves_no_rows_at_the_other_side() {
    if !met(&NEEDS) {
        return;
    }
    let f = Fabric::new(2);
    let [a, b] = [&f.vteps[0], &f.vteps[1]];
    let v = f.start_vtepd(0);
    let _frr = f.start_frr(1);
    let (g, h) = (Guest::new(41), Guest::new(42));
    f.guest_port(0, "p1").send(&g.garp());
    f.guest_port(1, "p1").send(&h.garp());
    eventually(LATER, "both know both", || {
        a.sends_to(100, h.mac, &Place::vtep(b)).and_then(|()| b.sends_to(100, g.mac, &Place::vtep(a)))
    });
    // FRR's side loses its device.
    b.ns.sh("ip link del vx100");
    eventually(SOON, "ours is clean", || {
        same((a.flood_list(100), a.place(100, h.mac)), (vec![], Place::Nowhere))
    });
    b.ns.sh("ip link add vx100 type vxlan id 100 local 10.0.0.2 dstport 4789 nolearning
         ip link set vx100 master br100 mtu 1450 addrgenmode none
         bridge link set dev vx100 learning off neigh_suppress on
         ip link set vx100 up");
    f.guest_port(1, "p1").send(&h.garp());
    eventually(LATER, "and back", || {
        same((a.flood_list(100), a.place(100, h.mac)), (vec!["10.0.0.2".into()], Place::vtep(b)))
    });
    // Ours stops: withdrawals, Cease, nothing left at FRR.
    drop(v);
    let mut v = f.start_vtepd(0);
    f.guest_port(0, "p1").send(&g.garp());
    eventually(LATER, "FRR has it again", || b.sends_to(100, g.mac, &Place::vtep(a)));
    let status = v.process.terminate(Duration::from_secs(10));
    assert!(status.success(), "{status}\n{}", v.process.log());
    eventually(SOON, "FRR is clean", || {
        same((b.flood_list(100), b.place(100, g.mac)), (vec![], Place::Nowhere))
    });
}

/// Scenario 13: IMET without PMSI, or with another tunnel type than ingress replication: no flood row, the session goes on.
#[test]
fn imet_without_ingress_replication_makes_no_flood_row() {
    if !met(&[Need::Root]) {
        return;
    }
    let f = Fabric::new(2);
    let [a, b] = [&f.vteps[0], &f.vteps[1]];
    let v = f.start_vtepd(0);
    let s = Speaker::accept(&b.ns, b.address, 65000);
    let at = Attributes::new(b.address, 100);
    s.announce(&at, &[imet(b.address)]);
    let g = Guest::new(50);
    s.announce(&at, &[mac_ip(100, g.mac, None)]);
    eventually(SOON, "what came after it is there", || a.sends_to(100, g.mac, &Place::vtep(b)));
    assert_eq!(a.flood_list(100), Vec::<String>::new());
    // PIM-SM, sender 10.0.0.2, group 239.1.1.1.
    let mut pim = at.clone();
    pim.pmsi = Some(vec![0, 3, 0, 0, 100, 10, 0, 0, 2, 239, 1, 1, 1]);
    s.announce(&pim, &[imet(b.address)]);
    let h = Guest::new(51);
    s.announce(&at, &[mac_ip(100, h.mac, None)]);
    eventually(SOON, "what came after it is there", || a.sends_to(100, h.mac, &Place::vtep(b)));
    assert_eq!(a.flood_list(100), Vec::<String>::new());
    s.announce(&at.ingress_replication(100, b.address), &[imet(b.address)]);
    eventually(SOON, "with PMSI it floods", || same(a.flood_list(100), vec!["10.0.0.2".to_owned()]));
    assert!(s.is_up() && s.notified().is_none(), "{:?} {:?}", s.notified(), v.show("neighbors", &[]));
}

/// Scenario 15: a host of a VTEP whose IMET has not come.
#[test]
fn hosts_of_a_vtep_without_imet_are_reachable() {
    if !met(&[Need::Root]) {
        return;
    }
    let f = Fabric::new(2);
    let [a, b] = [&f.vteps[0], &f.vteps[1]];
    let _v = f.start_vtepd(0);
    let s = Speaker::accept(&b.ns, b.address, 65000);
    let g = Guest::new(52);
    s.announce(&Attributes::new(b.address, 100), &[mac_ip(100, g.mac, Some(g.ip.into()))]);
    eventually(SOON, "the row is there", || a.sends_to(100, g.mac, &Place::vtep(b)));
    eventually(SOON, "the IP is answered", || {
        same(a.neigh_row(100, g.ip.into())["lladdr"].clone(), g.mac.to_string().into())
    });
}

/// Scenario 27: next hops of our own and MACs of our own are not installed; the bridges of two VTEPs differ in their MACs
/// (FRR drops routes with a MAC of its own).
#[test]
fn routes_that_point_at_ourselves_are_not_installed() {
    if !met(&[Need::Root]) {
        return;
    }
    let f = Fabric::new(2);
    let [a, b] = [&f.vteps[0], &f.vteps[1]];
    let v = f.start_vtepd(0);
    let s = Speaker::accept(&b.ns, b.address, 65000);
    let (g, h) = (Guest::new(53), Guest::new(54));
    s.announce(&Attributes::new(a.address, 100), &[mac_ip(100, g.mac, None)]);
    s.announce(&Attributes::new(b.address, 100), &[mac_ip(100, h.mac, None)]);
    eventually(SOON, "the later route is there", || a.sends_to(100, h.mac, &Place::vtep(b)));
    assert_eq!(a.place(100, g.mac), Place::Nowhere, "{:?}", v.show("routes", &[]));
    let bridge =
        |v: &vtepd_tests::fabric::Vtep| v.ns.sh("cat /sys/class/net/br100/address").trim().to_owned();
    let own = bridge(a).parse().expect("a MAC");
    let i = Guest::new(57);
    s.announce(&Attributes::new(b.address, 100), &[mac_ip(100, own, None)]);
    s.announce(&Attributes::new(b.address, 100), &[mac_ip(100, i.mac, None)]);
    eventually(SOON, "the later route is there", || a.sends_to(100, i.mac, &Place::vtep(b)));
    let row = a.bridge_row(100, own);
    assert_eq!((&row["ifname"], &row["state"]), (&"br100".into(), &"permanent".into()), "{row}");
    assert!(s.is_up(), "{:?}", s.notified());
    drop(s);
    let _w = f.start_vtepd(1);
    assert_ne!(bridge(a), bridge(b));
}

/// Scenario 5: FRR asks for everything again (route refresh); nothing flaps.
#[test]
fn a_soft_clear_at_frr_changes_nothing() {
    if !met(&NEEDS) {
        return;
    }
    let f = Fabric::new(2);
    let [a, b] = [&f.vteps[0], &f.vteps[1]];
    let v = f.start_vtepd(0);
    let frr = f.start_frr(1);
    let g = Guest::new(55);
    f.guest_port(0, "p1").send(&g.garp());
    eventually(LATER, "FRR knows the MAC", || b.sends_to(100, g.mac, &Place::vtep(a)));
    let sent = || v.show("neighbors", &[])[0]["updates_out"].as_u64().unwrap_or(0);
    let before = sent();
    frr.vty(&["clear bgp l2vpn evpn * soft in"]);
    eventually(SOON, "vtepd sends everything again", || if sent() > before { Ok(()) } else { Err(sent()) });
    throughout(Duration::from_millis(500), "nothing flaps", || {
        b.sends_to(100, g.mac, &Place::vtep(a))?;
        same(frr.flood_mode(100, "10.0.0.1"), Some("HER".into())).map_err(|_| Place::Broken)
    });
}

/// A session that FRR ends comes back by itself, with everything.
#[test]
fn a_session_that_frr_resets_comes_back() {
    if !met(&NEEDS) {
        return;
    }
    let f = Fabric::new(2);
    let [a, b] = [&f.vteps[0], &f.vteps[1]];
    let v = f.start_vtepd(0);
    let frr = f.start_frr(1);
    let g = Guest::new(56);
    f.guest_port(0, "p1").send(&g.garp());
    eventually(LATER, "FRR knows the MAC", || b.sends_to(100, g.mac, &Place::vtep(a)));
    let begun = now();
    frr.vty(&["clear bgp *"]);
    eventually(LATER, "it comes back", || {
        let n = v.show("neighbors", &[]);
        if n[0]["established_count"].as_u64() >= Some(2) && n[0]["state"] == "Established" {
            Ok(())
        } else {
            Err(n)
        }
    });
    eventually(LATER, "with the MAC", || b.sends_to(100, g.mac, &Place::vtep(a)));
    println!("back after {:?}", Duration::from_nanos(now() - begun));
    let n = v.show("neighbors", &[]);
    assert!(n[0]["last_error"].as_str().is_some_and(|e| !e.is_empty()), "it says why: {n:?}");
}
