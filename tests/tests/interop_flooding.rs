//! IMET routes between vtepd and FRR, and the flood rows that both kernels hold because of them.

use std::collections::BTreeSet;
use std::time::Duration;
use vtepd_tests::fabric::{Fabric, Guest, Place, frr_conf};
use vtepd_tests::frame;
use vtepd_tests::mixed::{Mixed, Voices};
use vtepd_tests::need::{Need, met};
use vtepd_tests::poll::{LATER, SOON, eventually, same, throughout};
use vtepd_tests::speaker::{Attributes, imet, mac_ip};

const NEEDS: [Need; 2] = [Need::Root, Need::Frr];

/// Scenario 9: one IMET each, PMSI with ingress replication, the VNI in the label, the VTEP as tunnel end
/// (EVPN-IMET-01, EVPN-IMET-02, EVPN-VXLAN-01); a flood row towards the other in both kernels, and a broadcast
/// from either side arrives at the other.
#[test]
fn each_floods_to_the_other_after_imet() {
    if !met(&NEEDS) {
        return;
    }
    let m = Mixed::converged_pair();
    let (a, b) = (m.vtep(0), m.vtep(1));
    eventually(SOON, "FRR floods to us", || same(m.frr(1).flood_mode(100, "10.0.0.1"), Some("HER".into())));
    eventually(SOON, "and so does its kernel", || same(b.flood_list(100), vec!["10.0.0.1".into()]));
    assert_eq!(a.flood_list(100), ["10.0.0.2"]);
    assert_eq!(m.vtepd(0).show("vnis", &[])[0]["vteps"], serde_json::json!(["10.0.0.2"]));
    let ours = m.frr(1).routes("rd 10.0.0.1:100 type multicast");
    assert!(ours.contains("[3]:[0]:[32]:[10.0.0.1]"), "{ours}");
    assert!(ours.contains("PMSI Tunnel Type: Ingress Replication, label: 100"), "{ours}");
    assert!(ours.contains("RT:65000:100 ET:8"), "{ours}");
    let theirs = m.routes(0, 3, Some(1));
    assert_eq!(theirs.len(), 1, "{theirs:#?}");
    assert_eq!((&theirs[0]["next_hop"], &theirs[0]["vni"]), (&"10.0.0.2".into(), &100.into()));
    for (from, to) in [(0, 1), (1, 0)] {
        let far = m.guest(to);
        let g = Guest::new(20 + from as u8);
        eventually(SOON, "a broadcast crosses", || {
            m.guest(from).send(&g.rarp());
            far.find(Duration::from_millis(200), |f| (*f == g.rarp()).then_some(())).ok_or("not arrived")
        });
    }
}

/// Scenario 10: ten VNIs in one burst; every one gets its flood row on both sides and is imported by its own
/// route target alone, so each UPDATE carried its own set of communities (PIT-22).
#[test]
fn ten_vnis_in_one_burst_keep_apart() {
    if !met(&NEEDS) {
        return;
    }
    let vnis: Vec<u32> = (101..=110).collect();
    let mut m = Mixed::new(Fabric::new(2));
    for vni in &vnis {
        m.vtep(1).make_devices(*vni, &[]);
    }
    m.start_frr_with(1, &frr_conf(65000, 2, &[(m.vtep(0).address, 65000)], ""));
    let mut conf = m.fabric.conf(0);
    conf.vnis = vnis.iter().map(|n| (*n, vec![])).collect();
    m.start_vtepd_with(0, &conf);
    m.converge();
    for vni in &vnis {
        eventually(SOON, "both flood to each other in every VNI", || {
            same(
                (m.vtep(0).flood_list(*vni), m.vtep(1).flood_list(*vni)),
                (vec!["10.0.0.2".into()], vec!["10.0.0.1".into()]),
            )
        });
        assert_eq!(m.frr(1).flood_mode(*vni, "10.0.0.1").as_deref(), Some("HER"), "VNI {vni}");
    }
    let rows = m.routes(0, 3, Some(1));
    let imported: BTreeSet<_> = rows.iter().map(|r| (r["imported"].to_string(), r["vni"].as_u64())).collect();
    let want = vnis.iter().map(|n| (format!("[{n}]"), Some(u64::from(*n)))).collect();
    assert_eq!(imported, want, "{rows:#?}");
    let theirs = m.frr(1).route_details("multicast");
    for vni in &vnis {
        assert_eq!(theirs.matches(&format!("RT:65000:{vni} ET:8")).count(), 1, "VNI {vni}\n{theirs}");
    }
}

/// What scenario 11 starts from: a guest with an address on each side, known on the other.
fn with_guests() -> (Mixed, Guest, Guest) {
    let m = Mixed::converged_pair();
    let (g, h) = (Guest::new(5), Guest::new(6));
    m.guest(0).send(&g.garp());
    m.guest(1).send(&h.garp());
    let (a, b) = (m.vtep(0), m.vtep(1));
    for (there, guest, at) in [(a, h, b), (b, g, a)] {
        eventually(SOON, "the MAC is remote", || there.sends_to(100, guest.mac, &Place::vtep(at)));
        eventually(SOON, "the IP is answered", || {
            same(there.neigh_row(100, guest.ip.into())["lladdr"].clone(), guest.mac.to_string().into())
        });
    }
    eventually(SOON, "FRR floods to us", || same(b.flood_list(100), vec!["10.0.0.1".into()]));
    (m, g, h)
}

/// Scenario 11: FRR's VXLAN device is deleted. Its IMET and hosts are withdrawn; our flood row, MAC rows and
/// neighbour rows of it go (EVPN-IMET-06). When it is back, so are they.
#[test]
fn a_vxlan_device_removed_at_frr_takes_its_rows_away_here() {
    if !met(&NEEDS) {
        return;
    }
    let (m, _, h) = with_guests();
    let (a, b) = (m.vtep(0), m.vtep(1));
    b.ns.sh("ip link del vx100");
    eventually(SOON, "our flood row goes", || same(a.flood_list(100), vec![]));
    eventually(SOON, "our MAC row goes", || a.sends_to(100, h.mac, &Place::Nowhere));
    assert!(a.vxlan_row(100, h.mac).is_null());
    eventually(SOON, "our neighbour row goes", || {
        let row = a.neigh_row(100, h.ip.into());
        if row.is_null() { Ok(()) } else { Err(row) }
    });
    eventually(SOON, "nothing of it is left", || {
        let routes = [m.routes(0, 2, Some(1)), m.routes(0, 3, Some(1))].concat();
        if routes.is_empty() { Ok(()) } else { Err(routes) }
    });
    assert_eq!(m.vtepd(0).neighbor_state(b.address), "Established");
    b.ns.sh("ip link add vx100 type vxlan id 100 local 10.0.0.2 dstport 4789 nolearning
         ip link set vx100 master br100 mtu 1450 addrgenmode none
         bridge link set dev vx100 learning off neigh_suppress on
         ip link set vx100 up");
    eventually(LATER, "our flood row is back", || same(a.flood_list(100), vec!["10.0.0.2".into()]));
    eventually(LATER, "and FRR's", || same(b.flood_list(100), vec!["10.0.0.1".into()]));
    m.guest(1).send(&h.garp());
    eventually(SOON, "and the MAC", || a.sends_to(100, h.mac, &Place::vtep(b)));
}

/// Scenario 11, the other direction: the VXLAN device below vtepd is taken away (renamed, so that no other can be
/// made with its VNI). vtepd withdraws what it had announced, FRR's rows go, FRR's own host is untouched; once the
/// VNI is free, vtepd makes the device and everything returns.
#[test]
fn a_vxlan_device_taken_away_here_takes_its_rows_away_at_frr() {
    if !met(&NEEDS) {
        return;
    }
    let (m, g, h) = with_guests();
    let (a, b) = (m.vtep(0), m.vtep(1));
    a.ns.sh("ip link set vx100 name gone0");
    eventually(SOON, "FRR's flood row goes", || same(b.flood_list(100), vec![]));
    eventually(SOON, "FRR's MAC row goes", || b.sends_to(100, g.mac, &Place::Nowhere));
    eventually(SOON, "FRR's neighbour row goes", || {
        let row = b.neigh_row(100, g.ip.into());
        if row.is_null() { Ok(()) } else { Err(row) }
    });
    assert_eq!(b.place(100, h.mac), Place::port("p1"));
    assert_eq!(m.frr(1).neighbor_state("10.0.0.1"), "Established");
    let vni = m.vtepd(0).show("vnis", &[])[0].clone();
    assert_eq!(vni["ready"], false, "{vni}");
    assert!(vni["problems"].to_string().contains("vx100 is missing"), "{vni}");
    a.ns.sh("ip link del gone0");
    all_is_back(&m, &g, &h);
}

/// Scenario 11: deleted, the device is made again at once.
#[test]
fn a_vxlan_device_deleted_below_vtepd_is_made_again() {
    if !met(&NEEDS) {
        return;
    }
    let (m, g, h) = with_guests();
    let a = m.vtep(0);
    let before = a.ns.index("vx100");
    a.ns.sh("ip link del vx100");
    eventually(SOON, "another one is there", || {
        let link = a.ns.json("ip -j link show");
        let of = |l: &serde_json::Value| l["ifname"] == "vx100" && l["ifindex"] != before;
        if link.as_array().is_some_and(|l| l.iter().any(of)) { Ok(()) } else { Err(link) }
    });
    all_is_back(&m, &g, &h);
}

/// Both sides hold what they held in [`with_guests`].
fn all_is_back(m: &Mixed, g: &Guest, h: &Guest) {
    let (a, b) = (m.vtep(0), m.vtep(1));
    eventually(LATER, "FRR's flood row is back", || same(b.flood_list(100), vec!["10.0.0.1".into()]));
    eventually(LATER, "our flood row is back", || same(a.flood_list(100), vec!["10.0.0.2".into()]));
    eventually(SOON, "FRR's MAC row is back", || b.sends_to(100, g.mac, &Place::vtep(a)));
    eventually(SOON, "our MAC row is back", || a.sends_to(100, h.mac, &Place::vtep(b)));
    for (there, guest) in [(a, h), (b, g)] {
        eventually(SOON, "the IP is answered again", || {
            same(there.neigh_row(100, guest.ip.into())["lladdr"].clone(), guest.mac.to_string().into())
        });
    }
    eventually(SOON, "vtepd is content", || same(m.vtepd(0).status()["converged"].clone(), true.into()));
}

/// Scenario 11: a VNI is taken out of vtepd's configuration; the other VNI stays as it is.
#[test]
fn a_vni_taken_out_of_the_configuration_leaves_the_flood_list_of_frr() {
    if !met(&NEEDS) {
        return;
    }
    let mut m = Mixed::new(Fabric::new(2));
    m.vtep(1).make_devices(200, &[]);
    m.start_frr(1);
    let mut conf = m.fabric.conf(0);
    conf.vnis.push((200, vec![]));
    m.start_vtepd_with(0, &conf);
    m.converge();
    for vni in [100, 200] {
        eventually(SOON, "FRR floods to us", || same(m.vtep(1).flood_list(vni), vec!["10.0.0.1".into()]));
    }
    conf.vnis.remove(0);
    m.restart_vtepd_with(0, &conf);
    m.converge();
    eventually(SOON, "only the VNI that is left is flooded", || {
        same((m.vtep(1).flood_list(100), m.vtep(1).flood_list(200)), (vec![], vec!["10.0.0.1".into()]))
    });
    let of_frr = m.frr(1).flood_mode(100, "10.0.0.1");
    assert_eq!(of_frr, None);
    assert_eq!(m.vtep(0).flood_list(200), ["10.0.0.2"]);
}

/// vtepd, FRR and a VTEP that is a scripted speaker, which says the same to both. In this order, so that a failure
/// shows the state before the speaker leaves.
fn with_voices() -> (Voices, Mixed) {
    let mut m = Mixed::new(Fabric::new(3));
    m.start_frr(1);
    m.start_vtepd(0);
    let voices = Voices::accept(&m.vtep(2).ns, m.vtep(2).address, 2);
    voices.end_of_rib();
    m.converge();
    eventually(SOON, "FRR floods to us", || same(m.vtep(1).flood_list(100), vec!["10.0.0.1".into()]));
    (voices, m)
}

/// Neither side floods to the speaker, and both sessions with it stay up.
fn nobody_floods_to_the_speaker(m: &Mixed, voices: &Voices, why: &str) {
    // A route behind it: once it is there, what came before it has been worked on.
    let (s, g) = (m.vtep(2), Guest::new(90));
    voices.announce(&Attributes::new(s.address, 100), &[mac_ip(100, g.mac, None)]);
    for v in [m.vtep(0), m.vtep(1)] {
        eventually(SOON, why, || v.sends_to(100, g.mac, &Place::vtep(s)));
    }
    let lists = || {
        same(
            (m.vtep(0).flood_list(100), m.vtep(1).flood_list(100)),
            (vec!["10.0.0.2".into()], vec!["10.0.0.1".into()]),
        )
    };
    eventually(SOON, why, lists);
    throughout(Duration::from_millis(300), why, lists);
    voices.withdraw(&[mac_ip(100, g.mac, None)]);
    for v in [m.vtep(0), m.vtep(1)] {
        eventually(SOON, why, || v.sends_to(100, g.mac, &Place::Nowhere));
    }
    voices.assert_up();
}

/// Scenario 13: IMET without PMSI (EVPN-IMET-04), then with PMSI of type PIM-SM (EVPN-IMET-05): no flood row on
/// either side, sessions stay up, hosts of that VTEP are reached. A proper one then gives the row, and losing its
/// PMSI again takes it away.
#[test]
fn imet_without_ingress_replication_gives_no_flood_row() {
    if !met(&NEEDS) {
        return;
    }
    let (voices, m) = with_voices();
    let s = m.vtep(2).address;
    let bare = Attributes::new(s, 100);
    voices.announce(&bare, &[imet(s)]);
    nobody_floods_to_the_speaker(&m, &voices, "without PMSI");

    let mut tree = bare.clone();
    // RFC 6514 §5: PIM-SM tree, sender and group.
    tree.pmsi = Some(vec![0, 3, 0, 0, 100, 10, 0, 0, 3, 239, 1, 1, 1]);
    voices.announce(&tree, &[imet(s)]);
    nobody_floods_to_the_speaker(&m, &voices, "with a PIM-SM tree");

    let proper = bare.ingress_replication(100, s);
    voices.announce(&proper, &[imet(s)]);
    eventually(SOON, "we flood to it as soon as its PMSI says so", || {
        same(m.vtep(0).flood_list(100), vec!["10.0.0.2".into(), "10.0.0.3".into()])
    });
    // FRR 8.4.4 does not see that only the PMSI changed; it does see a route that was away, if it had the time to
    // forget it: its queue joins a withdrawal and what follows at once.
    let again = std::cell::Cell::new(0);
    eventually(SOON, "both flood to it", || {
        if again.replace(again.get() + 1) % 100 == 0 {
            voices.withdraw(&[imet(s)]);
            eventually(SOON, "FRR has forgotten it", || {
                same(
                    (
                        m.frr(1).flood_mode(100, "10.0.0.3"),
                        m.frr(1).routes("type multicast").contains(":[10.0.0.3]"),
                    ),
                    (None, false),
                )
            });
            voices.announce(&proper, &[imet(s)]);
        }
        let lists = [0, 1].map(|i| m.vtep(i).flood_list(100));
        same(lists, [vec!["10.0.0.2".into(), "10.0.0.3".into()], vec!["10.0.0.1".into(), "10.0.0.3".into()]])
    });
    voices.announce(&tree, &[imet(s)]);
    eventually(SOON, "we stop as soon as its PMSI says so", || {
        same(m.vtep(0).flood_list(100), vec!["10.0.0.2".into()])
    });
    voices.withdraw(&[imet(s)]);
    nobody_floods_to_the_speaker(&m, &voices, "after its withdrawal");
    assert_eq!(m.vtepd(0).neighbor_state(s), "Established");
    assert_eq!(m.frr(1).neighbor_state("10.0.0.3"), "Established");
}

/// Scenario 15: Type-2 routes of a VTEP whose IMET has not arrived are forwarded to on both sides; a frame really
/// goes there; flooding begins with the IMET (EVPN-IMET-01).
#[test]
fn hosts_of_a_vtep_are_reached_before_its_imet() {
    if !met(&NEEDS) {
        return;
    }
    let (voices, m) = with_voices();
    let (s, g, h) = (m.vtep(2), Guest::new(7), Guest::new(8));
    voices.announce(
        &Attributes::new(s.address, 100),
        &[mac_ip(100, g.mac, None), mac_ip(100, g.mac, Some(g.ip.into()))],
    );
    let underlay = vtepd_tests::packet::Wire::open(&m.fabric.spine, "u3");
    for (i, other) in [(0, "10.0.0.2"), (1, "10.0.0.1")] {
        let v = m.vtep(i);
        eventually(SOON, "the MAC is remote", || v.sends_to(100, g.mac, &Place::vtep(s)));
        eventually(SOON, "the IP is answered", || {
            same(v.neigh_row(100, g.ip.into())["lladdr"].clone(), g.mac.to_string().into())
        });
        assert_eq!(v.flood_list(100), [other]);
        let frame = frame::data(g.mac, h.mac, 77 + i as u64);
        m.guest(i).send(&frame);
        underlay
            .find(SOON, |f| f.get(50..50 + frame.len()).filter(|inner| *inner == frame).map(drop))
            .expect("the frame goes to that VTEP");
    }
    voices.announce(&Attributes::new(s.address, 100).ingress_replication(100, s.address), &[imet(s.address)]);
    for (i, other) in [(0, "10.0.0.2"), (1, "10.0.0.1")] {
        eventually(SOON, "now it is flooded to", || {
            same(m.vtep(i).flood_list(100), vec![other.into(), "10.0.0.3".into()])
        });
        assert_eq!(m.vtep(i).place(100, g.mac), Place::vtep(s));
    }
    assert_eq!(m.vtepd(0).mac(&g.mac.to_string())["place"]["vtep"], "10.0.0.3");
    assert_eq!(m.frr(1).mac(100, &g.mac.to_string())["remoteVtep"], "10.0.0.3");
}
