//! Hot moves between vtepd and FRR, both ways, and between two vtepd through an FRR reflector. FRR has no test of its own
//! for any of this; what it does was measured (docs/pitfalls.md and the reference test beside this one).

use evpn::types::Mac;
use std::net::Ipv4Addr;
use std::time::Duration;
use vtepd_tests::fabric::{Fabric, Guest, Place};
use vtepd_tests::frame;
use vtepd_tests::mixed::Mixed;
use vtepd_tests::need::{Need, met};
use vtepd_tests::packet::{Monitor, Wire, now};
use vtepd_tests::poll::{LATER, SOON, eventually, same, throughout};
use vtepd_tests::speaker::{Attributes, Speaker, mac_ip};

const NEEDS: [Need; 2] = [Need::Root, Need::Frr];

/// A guest with MAC and IP at `home` (VTEP 0: vtepd, 1: FRR), known at the other.
fn with_guest(n: u8, home: usize) -> (Mixed, Guest) {
    let m = Mixed::converged_pair();
    let g = Guest::new(n);
    m.appears(&g, home);
    (m, g)
}

/// Scenario 28: the VM leaves FRR for vtepd and says nothing but RARP. vtepd sends the MAC with sequence + 1
/// (EVPN-MOB-03); FRR withdraws MAC and MAC+IP and turns both of its rows; the row that we had on the VXLAN device
/// towards FRR is gone.
#[test]
fn a_move_to_vtepd_by_rarp_turns_the_rows_of_frr() {
    if !met(&NEEDS) {
        return;
    }
    let (m, g) = with_guest(71, 1);
    let (a, b) = (m.vtep(0), m.vtep(1));
    eventually(SOON, "FRR sends both routes", || m.routes_are(0, Some(1), &g, [true, true], 0));
    let mut monitor = Monitor::open(&b.ns);
    let carrier = m.carrier_changes();
    let moved = m.guest(0).send(&g.rarp());
    let turned = monitor
        .find(SOON, |n| n.new && n.mac == g.mac && n.vtep == Some(a.address))
        .expect("FRR's row turns");
    eventually(SOON, "FRR sends to us", || b.sends_to(100, g.mac, &Place::vtep(a)));
    eventually(SOON, "FRR withdraws both of its routes", || m.routes_are(0, Some(1), &g, [false, false], 0));
    eventually(SOON, "FRR has our sequence", || m.frr_says(1, &g, "remote", 1));
    assert_eq!(a.place(100, g.mac), Place::port("p1"));
    assert!(a.vxlan_row(100, g.mac).is_null(), "{}", a.vxlan_row(100, g.mac));
    let ours = m.vtepd(0).mac(&g.mac.to_string());
    assert_eq!((&ours["place"]["port"], &ours["seq"]), (&"p1".into(), &1.into()), "{ours}");
    let record = m.last_move(0, &g);
    assert_eq!(
        (&record["role"], &record["from"]["vtep"]),
        (&"arrived".into(), &"10.0.0.2".into()),
        "{record}"
    );
    assert_eq!((&record["seq_before"], &record["seq"]), (&0.into(), &1.into()), "{record}");
    let sent = record["sent"].as_u64().unwrap() - record["seen"].as_u64().unwrap();
    println!(
        "FRR to vtepd: UPDATE {:?} after the first sign (vtepd's record), FRR's row {:?} after the frame",
        Duration::from_nanos(sent),
        Duration::from_nanos(turned.at - moved)
    );
    assert_eq!(m.carrier_changes(), carrier);
}

/// Scenarios 29, 42: the same move, and the guest is silent afterwards. vtepd sends MAC+IP with the next sequence
/// together with the MAC, in one segment (PIT-22, EVPN-XMOB-05), and FRR's kernel answers for the IP with our
/// binding. FRR in vtepd's place never sends the IP in this case. Our own remote binding is gone, and the guest is
/// asked to confirm itself by a unicast probe.
#[test]
fn a_move_to_vtepd_by_rarp_takes_the_ip_along_at_once() {
    if !met(&NEEDS) {
        return;
    }
    let (m, g) = with_guest(72, 1);
    let (a, b) = (m.vtep(0), m.vtep(1));
    let underlay = Wire::open(&m.fabric.spine, "u1");
    let port = m.guest(0);
    port.send(&g.rarp());
    // Key part of an NLRI from the MAC's length on: 48, MAC, length of the IP, IP.
    let (mac_only, with_ip) =
        ([&[48], &g.mac.0[..], &[0]].concat(), [&[48], &g.mac.0[..], &[32], &g.ip.octets()].concat());
    let holds = |f: &[u8], k: &[u8]| f.windows(k.len()).any(|w| w == k);
    let (_, segment) = underlay
        .find(SOON, |f| {
            (f.get(23) == Some(&6) && f[26..30] == [10, 0, 0, 1] && holds(f, &mac_only)).then(|| f.to_vec())
        })
        .expect("vtepd's UPDATE");
    assert!(holds(&segment, &with_ip), "MAC+IP leaves in the same segment: {segment:02x?}");
    assert!(holds(&segment, &[6, 0, 0, 0, 0, 0, 0, 1]), "with sequence 1: {segment:02x?}");
    let asked = port.find(SOON, |f| {
        let probe = f.get(..6)? == g.mac.0
            && f[12..14] == [8, 6]
            && f[20..22] == [0, 1]
            && f[38..42] == g.ip.octets();
        probe.then_some(())
    });
    assert!(asked.is_some(), "the guest is asked whether the address is still its");
    port.send(&frame::arp_reply((g.mac, g.ip), (Mac::ZERO, Ipv4Addr::UNSPECIFIED)));
    eventually(SOON, "FRR sends to us", || b.sends_to(100, g.mac, &Place::vtep(a)));
    eventually(SOON, "FRR answers for the IP with our binding", || {
        let row = b.neigh_row(100, g.ip.into());
        let right = row["lladdr"] == g.mac.to_string().as_str()
            && row["state"] == serde_json::json!(["NOARP"])
            && !row["extern_learn"].is_boolean()
            && row.get("extern_learn").is_some();
        if right { Ok(()) } else { Err(row) }
    });
    eventually(SOON, "FRR has MAC and IP as ours", || {
        let row = m.frr(1).mac(100, &g.mac.to_string());
        let right = row["remoteVtep"] == "10.0.0.1"
            && row["neighbors"]["active"] == serde_json::json!([g.ip.to_string()]);
        if right { Ok(()) } else { Err(row) }
    });
    eventually(SOON, "our routes carry the sequence", || m.routes_are(0, None, &g, [true, true], 1));
    assert!(
        !a.neigh_row(100, g.ip.into()).to_string().contains("extern_learn"),
        "nobody answers for a local host"
    );
    let host = m.vtepd(0).show("hosts", &["--ip", &g.ip.to_string()]);
    assert_eq!(
        (&host[0]["place"]["port"], &host[0]["answered_by"]),
        (&"p1".into(), &"owner".into()),
        "{host:?}"
    );
    assert_eq!(m.last_move(0, &g)["ips"], serde_json::json!([g.ip.to_string()]));
}

/// Scenario 30: the VM leaves vtepd for FRR by RARP. We withdraw MAC and MAC+IP, both our rows turn, no local
/// neighbour stays behind, and nothing is advertised again (EVPN-MOB-06, EVPN-XMOB-09). FRR sends the IP once the
/// guest speaks ARP after that.
#[test]
fn a_move_to_frr_leaves_nothing_behind() {
    if !met(&NEEDS) {
        return;
    }
    let (m, g) = with_guest(73, 0);
    let (a, b) = (m.vtep(0), m.vtep(1));
    let mut monitor = Monitor::open(&a.ns);
    let moved = m.guest(1).send(&g.rarp());
    let turned =
        monitor.find(LATER, |n| n.new && n.mac == g.mac && n.vtep == Some(b.address)).expect("our row turns");
    println!("vtepd to FRR: our row {:?} after the frame", Duration::from_nanos(turned.at - moved));
    eventually(SOON, "we send to FRR", || a.sends_to(100, g.mac, &Place::vtep(b)));
    eventually(SOON, "we hold FRR's route", || m.routes_are(0, Some(1), &g, [true, false], 1));
    eventually(SOON, "we withdraw both of ours", || m.routes_are(0, None, &g, [false, false], 0));
    eventually(SOON, "and FRR has heard it", || {
        let text = m.frr(1).routes("rd 10.0.0.1:100 type macip");
        if text.contains(&g.mac.to_string()) { Err(text) } else { Ok(()) }
    });
    eventually(SOON, "FRR has it as its own", || m.frr_says(1, &g, "local", 1));
    let record = m.last_move(0, &g);
    assert_eq!((&record["role"], &record["to"]["vtep"]), (&"left".into(), &"10.0.0.2".into()), "{record}");
    let quiet = || {
        a.sends_to(100, g.mac, &Place::vtep(b)).map_err(|p| format!("{p:?}"))?;
        let row = a.neigh_row(100, g.ip.into());
        if row.is_null() { Ok(()) } else { Err(format!("a neighbour stayed: {row}")) }
    };
    eventually(SOON, "nobody answers for the IP", quiet);
    throughout(Duration::from_millis(500), "we do not claim it again", quiet);
    // FRR drops its remote binding with our withdrawal; only then its kernel listens to the guest.
    eventually(SOON, "FRR's own remote binding is gone", || {
        let row = b.neigh_row(100, g.ip.into());
        if row.to_string().contains("NOARP") { Err(row) } else { Ok(()) }
    });
    m.guest(1).send(&g.garp());
    eventually(SOON, "the IP follows once the guest speaks", || m.answers(0, &g));
    m.routes_are(0, Some(1), &g, [true, true], 1).unwrap();
}

/// Scenarios 4, 31: two vtepd whose only neighbour is an FRR reflector, which is a VTEP itself. The next hop is the
/// VTEP, not the reflector (BGP-RR-06); ORIGINATOR_ID and CLUSTER_LIST are accepted (BGP-RR-05); our own routes do not
/// come back as somebody's. The VM moves there and back, with its IP.
#[test]
fn a_move_between_two_vtepd_through_an_frr_reflector() {
    if !met(&NEEDS) {
        return;
    }
    let m = Mixed::around_reflector(|m| m.accept_arp(2, 100));
    for (i, others) in
        [(0, ["10.0.0.2", "10.0.0.3"]), (1, ["10.0.0.1", "10.0.0.3"]), (2, ["10.0.0.1", "10.0.0.2"])]
    {
        eventually(LATER, "each floods to both others", || {
            same(m.vtep(i).flood_list(100), others.map(String::from).to_vec())
        });
    }
    let g = Guest::new(74);
    let mut home = 0;
    m.guest(home).send(&g.garp());
    for n in 0..=2 {
        let there = 1 - home;
        for i in [there, 2] {
            eventually(LATER, "the MAC is where it is", || {
                m.vtep(i).sends_to(100, g.mac, &Place::vtep(m.vtep(home)))
            });
            eventually(LATER, "and the IP with it", || m.answers(i, &g));
        }
        assert_eq!(m.vtep(home).place(100, g.mac), Place::port("p1"));
        assert!(m.vtep(home).vxlan_row(100, g.mac).is_null());
        eventually(SOON, "both agree on the sequence", || same([m.seq(home, &g), m.seq(there, &g)], [n, n]));
        // What the other vtepd uses came through the reflector and points to the VTEP.
        let home_address = m.vtep(home).address.to_string();
        eventually(SOON, "MAC and MAC+IP by way of the reflector", || {
            let rows = m.guest_routes(there, Some(2), &g);
            let right = rows.iter().flatten().filter(|r| {
                r["imported"] == serde_json::json!([100]) && r["next_hop"] == home_address.as_str()
            });
            let right = right.count() == 2;
            if right { Ok(()) } else { Err(rows) }
        });
        // What is ours comes back from FRR and is not used.
        let mut back = m.routes(home, 2, Some(2));
        back.retain(|r| r["next_hop"] == home_address.as_str());
        assert!(back.iter().all(|r| r["why_not"] == "ORIGINATOR_ID is ours"), "{back:#?}");
        let text = m.frr(2).routes(&format!("rd {home_address}:100 type macip"));
        assert!(text.contains("valid") && text.contains("best"), "{text}");
        if n < 2 {
            let mut monitor = Monitor::open(&m.vtep(home).ns);
            let moved = m.guest(there).send(&g.rarp());
            let to = Some(m.vtep(there).address);
            let turned =
                monitor.find(LATER, |r| r.new && r.mac == g.mac && r.vtep == to).expect("the row turns");
            println!("vtepd to vtepd through FRR: {:?}", Duration::from_nanos(turned.at - moved));
            home = there;
        }
    }
    for i in [0, 1] {
        assert_eq!(m.vtepd(i).neighbor_state(m.vtep(2).address), "Established");
        assert_eq!(m.vtepd(i).show("neighbors", &[])[0]["faults"], 0);
    }
}

/// Scenario 32: four moves within 180 s, back and forth: sequences rise by one each time, nothing freezes, the last
/// place wins, and neither side keeps a row, a route or a binding of the other places (EVPN-MOB-15).
#[test]
fn ping_pong_of_four_moves_leaves_nothing_stale() {
    if !met(&NEEDS) {
        return;
    }
    let begun = now();
    let (m, g) = with_guest(75, 0);
    let (a, b) = (m.vtep(0), m.vtep(1));
    let carrier = m.carrier_changes();
    for n in 1..=4u64 {
        let to = (n % 2) as usize;
        let (here, there) = (m.vtep(to), m.vtep(1 - to));
        m.guest(to).send(&g.rarp());
        eventually(LATER, "the other side follows", || there.sends_to(100, g.mac, &Place::vtep(here)));
        eventually(SOON, "the sequence rose by one", || same(m.seq(0, &g), n));
        let kind = if to == 1 { "local" } else { "remote" };
        // FRR's loser needs its 50 ms to withdraw before the next move is one.
        eventually(SOON, "FRR agrees", || m.frr_says(1, &g, kind, n));
        assert_eq!(here.place(100, g.mac), Place::port("p1"));
    }
    // It ended at vtepd. FRR never sent the IP, so nobody knows it until the guest speaks.
    eventually(SOON, "FRR has withdrawn its routes", || m.routes_are(0, Some(1), &g, [false, false], 0));
    m.routes_are(0, None, &g, [true, false], 4).unwrap();
    assert!(a.vxlan_row(100, g.mac).is_null());
    for v in [a, b] {
        let row = v.neigh_row(100, g.ip.into());
        assert!(!row.to_string().contains("NOARP"), "{row}");
    }
    m.guest(0).send(&g.garp());
    eventually(SOON, "the IP is back", || m.answers(1, &g));
    eventually(SOON, "with the same sequence", || m.routes_are(0, None, &g, [true, true], 4));
    m.frr_says(1, &g, "remote", 4).unwrap();
    let row = m.frr(1).mac(100, &g.mac.to_string());
    assert_eq!(row["isDuplicate"], false, "{row}");
    let moves = m.vtepd(0).show("moves", &[]);
    let seqs: Vec<_> = moves.iter().filter_map(|r| r["seq"].as_u64()).collect();
    assert_eq!(seqs, [1, 2, 3, 4], "{moves:#?}");
    let took = Duration::from_nanos(now() - begun);
    assert!(took < Duration::from_secs(180), "{took:?} is no test of four moves in 180 s");
    assert_eq!(m.carrier_changes(), carrier);
}

/// PIT-22, scenario 28: MAC and IPs leave in one flush, MAC first, all with the next sequence.
#[test]
fn mac_and_ips_leave_in_one_flush_mac_first() {
    if !met(&[Need::Root]) {
        return;
    }
    let f = Fabric::new(2);
    let [a, b] = [&f.vteps[0], &f.vteps[1]];
    let _v = f.start_vtepd(0);
    let s = Speaker::accept(&b.ns, b.address, 65000);
    s.end_of_rib();
    let g = Guest::new(75);
    let six = "fd00:100::75".parse().expect("an address");
    let nlri =
        [mac_ip(100, g.mac, None), mac_ip(100, g.mac, Some(g.ip.into())), mac_ip(100, g.mac, Some(six))];
    s.announce(&Attributes::new(b.address, 100).seq(6), &nlri);
    eventually(SOON, "all is known", || {
        same((a.neigh_row(100, g.ip.into()).is_null(), a.neigh_row(100, six).is_null()), (false, false))
    });
    s.forget();
    let moved = f.guest_port(0, "p1").send(&g.rarp());
    // Key part of an NLRI from the MAC's length on: 48, MAC, length of the IP, IP.
    let key = |ip: &[u8]| {
        let mut k = vec![48];
        k.extend(g.mac.0);
        k.push(ip.len() as u8 * 8);
        k.extend(ip);
        k
    };
    let std::net::IpAddr::V6(v6) = six else { unreachable!("parsed from IPv6 text") };
    let keys = [key(&[]), key(&g.ip.octets()), key(&v6.octets())];
    eventually(SOON, "all three routes", || {
        if keys.iter().all(|k| s.heard_octets(k)) { Ok(()) } else { Err(s.heard()) }
    });
    let heard = s.heard();
    let at = |k: &[u8]| {
        let (i, (t, _, m)) = heard
            .iter()
            .enumerate()
            .find(|(_, (_, kind, m))| *kind == 2 && m.windows(k.len()).any(|w| w == k))
            .expect("heard");
        // Sequence 7 on each: 06 00, flags, reserved, 00 00 00 07.
        assert!(m.windows(8).any(|w| w == [6, 0, 0, 0, 0, 0, 0, 7]), "sequence of {m:02x?}");
        (i, m.windows(k.len()).position(|w| w == k), *t)
    };
    let [mac, v4, v6] = [at(&keys[0]), at(&keys[1]), at(&keys[2])];
    assert!(
        (mac.0, mac.1) < (v4.0, v4.1) && (mac.0, mac.1) < (v6.0, v6.1),
        "MAC first: {mac:?} {v4:?} {v6:?}"
    );
    let between = v4.2.max(v6.2) - mac.2;
    println!(
        "first route {:?} after the frame, all within {:?}",
        Duration::from_nanos(mac.2 - moved),
        Duration::from_nanos(between)
    );
    // Between them nothing else was sent: one flush.
    let (first, last) = (mac.0, v4.0.max(v6.0));
    assert!(heard[first..=last].iter().all(|(_, kind, _)| *kind == 2), "{heard:?}");
}

/// EVPN-MOB-07: when a better route comes, the kernel has it before our withdrawal is on the wire.
#[test]
fn a_lost_mac_is_withdrawn_after_the_kernel_has_turned() {
    if !met(&[Need::Root]) {
        return;
    }
    let f = Fabric::new(2);
    let [a, b] = [&f.vteps[0], &f.vteps[1]];
    let v = f.start_vtepd(0);
    let s = Speaker::accept(&b.ns, b.address, 65000);
    s.end_of_rib();
    let g = Guest::new(76);
    f.guest_port(0, "p1").send(&g.garp());
    eventually(SOON, "we advertise it", || if s.heard_octets(&g.mac.0) { Ok(()) } else { Err(s.heard()) });
    s.forget();
    let mut monitor = Monitor::open(&a.ns);
    s.announce(&Attributes::new(b.address, 100).seq(1), &[mac_ip(100, g.mac, None)]);
    let row =
        monitor.find(SOON, |n| n.new && n.mac == g.mac && n.vtep == Some(b.address)).expect("the row turns");
    let withdrawn = eventually(SOON, "the withdrawal", || {
        // MP_UNREACH_NLRI is attribute 15.
        s.heard()
            .into_iter()
            .find(|(_, k, m)| *k == 2 && m[24] == 15 && m.windows(6).any(|w| w == g.mac.0))
            .ok_or(s.heard())
    });
    assert!(row.at < withdrawn.0 + 1_000_000, "row {} ns after the withdrawal", row.at - withdrawn.0);
    assert_eq!(v.status()["counters"]["withdrawals_forced"].as_u64().unwrap_or(0), 0, "{}", v.status());
    assert!(
        a.neigh_row(100, g.ip.into()).is_null()
            || a.neigh_row(100, g.ip.into()).to_string().contains("extern_learn")
    );
}

/// EVPN-MOB-08, scenario 41: both claim sequence 0; the lower VTEP address wins on every node.
#[test]
fn the_lower_address_wins_a_tie() {
    if !met(&NEEDS) {
        return;
    }
    let m = Mixed::converged_pair();
    let (a, b, v, frr) = (m.vtep(0), m.vtep(1), m.vtepd(0), m.frr(1));
    let g = Guest::new(77);
    // FRR has it locally and so do we, both since before they could know: the session is down meanwhile.
    frr.vty(&["configure terminal", "router bgp 65000", "neighbor 10.0.0.1 shutdown"]);
    eventually(SOON, "the session is down", || {
        let s = v.neighbor_state(b.address);
        if s == "Established" { Err(s) } else { Ok(()) }
    });
    m.guest(0).send(&g.garp());
    m.guest(1).send(&g.rarp());
    eventually(SOON, "local at both", || {
        same((a.place(100, g.mac), b.place(100, g.mac)), (Place::port("p1"), Place::port("p1")))
    });
    frr.vty(&["configure terminal", "router bgp 65000", "no neighbor 10.0.0.1 shutdown"]);
    eventually(LATER, "ours (10.0.0.1) wins at FRR", || b.sends_to(100, g.mac, &Place::vtep(a)));
    throughout(Duration::from_millis(500), "and stays", || a.sends_to(100, g.mac, &Place::port("p1")));
}

/// Scenario 40, one way: a MAC that a peer calls sticky is never taken over by local frames.
#[test]
fn a_sticky_mac_does_not_move() {
    if !met(&[Need::Root]) {
        return;
    }
    let f = Fabric::new(2);
    let [a, b] = [&f.vteps[0], &f.vteps[1]];
    let v = f.start_vtepd(0);
    let s = Speaker::accept(&b.ns, b.address, 65000);
    s.end_of_rib();
    let g = Guest::new(78);
    let mut at = Attributes::new(b.address, 100);
    at.communities.push([6, 0, 1, 0, 0, 0, 0, 0]);
    s.announce(&at, &[mac_ip(100, g.mac, None)]);
    eventually(SOON, "it is remote", || a.sends_to(100, g.mac, &Place::vtep(b)));
    s.forget();
    let port = f.guest_port(0, "p1");
    for _ in 0..5 {
        port.send(&g.garp());
    }
    throughout(Duration::from_millis(300), "it stays remote", || {
        let got = a.place(100, g.mac);
        if got == Place::port("p1") { Err(got) } else { Ok(()) }
    });
    eventually(SOON, "the row is right", || a.sends_to(100, g.mac, &Place::vtep(b)));
    assert!(!s.heard_octets(&g.mac.0), "we must not advertise it: {:?}", v.show("events", &[]));
}
