//! Hot moves between vtepd and FRR, both ways, and between two vtepd through an FRR reflector. FRR has no test of its own
//! for any of this; what it does was measured (docs/pitfalls.md and the reference test beside this one).

use std::time::Duration;
use vtepd_tests::fabric::{Fabric, Guest, Place, frr_conf};
use vtepd_tests::frame;
use vtepd_tests::frr::Frr;
use vtepd_tests::need::{Need, met};
use vtepd_tests::packet::now;
use vtepd_tests::poll::{LATER, SOON, eventually, same, throughout};
use vtepd_tests::speaker::{Attributes, Speaker, mac_ip};
use vtepd_tests::vtepd::Vtepd;

const NEEDS: [Need; 2] = [Need::Root, Need::Frr];

fn seq(v: &Vtepd, g: &Guest) -> u64 {
    v.mac(&g.mac.to_string())["seq"].as_u64().unwrap_or(u64::MAX)
}

/// The guest's IP is answered for in FRR's kernel, and says who is behind it.
fn answers(f: &Fabric, vtep: usize, g: &Guest) -> Result<(), String> {
    same(f.vteps[vtep].neigh_row(100, g.ip.into())["lladdr"].clone(), g.mac.to_string().into())
}

/// Scenarios 28, 29, 42: the VM leaves FRR for vtepd and says nothing but RARP. vtepd advertises MAC *and* IP with the
/// next sequence; FRR turns its rows; vtepd's own old row is gone. FRR itself never sends the IP in this case.
#[test]
fn a_move_to_vtepd_by_rarp_alone_takes_the_ip_along() {
    if !met(&NEEDS) {
        return;
    }
    let f = Fabric::new(2);
    let [a, b] = [&f.vteps[0], &f.vteps[1]];
    let v = f.start_vtepd(0);
    let frr = f.start_frr(1);
    v.converge();
    b.ns.sh("ip addr add 192.168.100.251/24 dev br100");
    let g = Guest::new(71);
    f.guest_port(1, "p1").send(&frame::arp_request(
        g.mac,
        g.ip,
        "192.168.100.251".parse().expect("an address"),
    ));
    eventually(SOON, "vtepd knows MAC and IP at FRR", || {
        a.sends_to(100, g.mac, &Place::vtep(b)).map_err(|p| format!("{p:?}"))?;
        answers(&f, 0, &g)
    });
    let moved = f.guest_port(0, "p1").send(&g.rarp());
    eventually(SOON, "FRR sends to us", || b.sends_to(100, g.mac, &Place::vtep(a)));
    println!("FRR's row after {:?}", Duration::from_nanos(now() - moved));
    eventually(SOON, "FRR answers for the IP", || {
        let row = b.neigh_row(100, g.ip.into());
        let text = row.to_string();
        if text.contains(&g.mac.to_string()) && text.contains("NOARP") {
            Ok(())
        } else {
            Err((row, frr.routes("type macip")))
        }
    });
    let mac = frr.mac(100, &g.mac.to_string());
    assert_eq!((&mac["type"], &mac["remoteSequence"]), (&"remote".into(), &1.into()), "{mac}");
    // EVPN-MOB-03; our own old row towards FRR is gone, and nobody answers for a local host.
    assert_eq!(seq(&v, &g), 1);
    assert_eq!(a.place(100, g.mac), Place::port("p1"));
    assert!(a.vxlan_row(100, g.mac).is_null(), "{}", a.vxlan_row(100, g.mac));
    assert!(!a.neigh_row(100, g.ip.into()).to_string().contains("extern_learn"));
    let moves = v.show("moves", &[]);
    let last = moves.iter().rfind(|m| m["mac"] == g.mac.to_string().as_str()).expect("a record of the move");
    assert_eq!(
        (&last["role"], &last["seq_before"], &last["seq"], &last["ips"][0]),
        (&"arrived".into(), &0.into(), &1.into(), &g.ip.to_string().into()),
        "{last}"
    );
}

/// Scenario 30: the VM leaves vtepd for FRR. We withdraw MAC and IP, our row turns, no local neighbour stays behind.
#[test]
fn a_move_to_frr_leaves_nothing_behind() {
    if !met(&NEEDS) {
        return;
    }
    let f = Fabric::new(2);
    let [a, b] = [&f.vteps[0], &f.vteps[1]];
    let v = f.start_vtepd(0);
    let frr = f.start_frr(1);
    v.converge();
    let g = Guest::new(72);
    f.guest_port(0, "p1").send(&g.garp());
    eventually(SOON, "FRR knows MAC and IP", || {
        b.sends_to(100, g.mac, &Place::vtep(a)).map_err(|p| format!("{p:?}"))?;
        answers(&f, 1, &g)
    });
    f.guest_port(1, "p1").send(&g.rarp());
    eventually(LATER, "we send to FRR", || a.sends_to(100, g.mac, &Place::vtep(b)));
    eventually(SOON, "our routes are gone at FRR", || {
        let routes = frr.routes("type macip");
        if routes.contains("10.0.0.1:") && routes.contains(&g.mac.to_string()) {
            let ours =
                routes.split("Route Distinguisher: ").find(|s| s.starts_with("10.0.0.1:")).unwrap_or("");
            if ours.contains(&g.mac.to_string()) {
                return Err(routes);
            }
        }
        Ok(())
    });
    assert_eq!(seq(&v, &g), 1);
    let row = a.neigh_row(100, g.ip.into());
    assert!(row.is_null() || row.to_string().contains("extern_learn"), "a local neighbour stayed: {row}");
    let mac = frr.mac(100, &g.mac.to_string());
    assert_eq!((&mac["type"], &mac["localSequence"]), (&"local".into(), &1.into()), "{mac}");
    throughout(Duration::from_millis(500), "we do not claim it again", || {
        a.sends_to(100, g.mac, &Place::vtep(b))
    });
}

/// Scenario 32: four moves, back and forth: sequences rise one by one, the last place wins on both sides.
#[test]
fn ping_pong_ends_where_it_ended() {
    if !met(&NEEDS) {
        return;
    }
    let f = Fabric::new(2);
    let [a, b] = [&f.vteps[0], &f.vteps[1]];
    let v = f.start_vtepd(0);
    let frr = f.start_frr(1);
    v.converge();
    let g = Guest::new(73);
    let ports = [f.guest_port(0, "p1"), f.guest_port(1, "p1")];
    ports[0].send(&g.garp());
    eventually(SOON, "it is known", || b.sends_to(100, g.mac, &Place::vtep(a)));
    for n in 1..=4 {
        let (to, [here, there]) = if n % 2 == 1 { (1, [b, a]) } else { (0, [a, b]) };
        ports[to].send(&g.rarp());
        eventually(LATER, "the other side follows", || there.sends_to(100, g.mac, &Place::vtep(here)));
        eventually(SOON, "the sequence rose by one", || same(seq(&v, &g), n));
        // FRR's loser needs its 50 ms to withdraw before the next move is one.
        eventually(SOON, "FRR agrees", || {
            let m = frr.mac(100, &g.mac.to_string());
            let (kind, field) =
                if to == 1 { ("local", "localSequence") } else { ("remote", "remoteSequence") };
            if m["type"] == kind && m[field] == n { Ok(()) } else { Err(m) }
        });
    }
    assert_eq!((a.place(100, g.mac), b.place(100, g.mac)), (Place::port("p1"), Place::vtep(a)));
    assert!(a.vxlan_row(100, g.mac).is_null());
    // FRR never had the IP, so nobody remembers it until the guest speaks: an old one must not come back by itself.
    assert!(b.neigh_row(100, g.ip.into()).is_null());
    ports[0].send(&g.garp());
    eventually(SOON, "the IP is back", || answers(&f, 1, &g));
}

/// Scenarios 4, 31: two vtepd whose only neighbour is an FRR reflector.
#[test]
fn a_move_between_two_vtepd_through_an_frr_reflector() {
    if !met(&NEEDS) {
        return;
    }
    let f = Fabric::new(3);
    let [a, b, r] = [&f.vteps[0], &f.vteps[1], &f.vteps[2]];
    let only = |i: usize| {
        let mut c = f.conf(i);
        c.neighbors = vec![(r.address, 65000)];
        c
    };
    let v = [Vtepd::start(&a.ns, &only(0)), Vtepd::start(&b.ns, &only(1))];
    let extra = "  neighbor 10.0.0.1 route-reflector-client\n  neighbor 10.0.0.2 route-reflector-client\n";
    let clients = [(a.address, 65000), (b.address, 65000)];
    let frr = Frr::start(&r.ns, &frr_conf(65000, 3, &clients, extra));
    for w in &v {
        w.converge();
    }
    let g = Guest::new(74);
    let ports = [f.guest_port(0, "p1"), f.guest_port(1, "p1")];
    ports[0].send(&g.garp());
    eventually(LATER, "B knows MAC and IP at A", || {
        b.sends_to(100, g.mac, &Place::vtep(a)).map_err(|p| format!("{p:?}"))?;
        answers(&f, 1, &g)
    });
    // The next hop is A, not the reflector; nothing of ours came back to us as a remote route.
    assert_eq!(a.place(100, g.mac), Place::port("p1"));
    ports[1].send(&g.rarp());
    eventually(LATER, "A follows", || a.sends_to(100, g.mac, &Place::vtep(b)));
    eventually(LATER, "the IP follows", || answers(&f, 0, &g));
    assert_eq!((seq(&v[0], &g), seq(&v[1], &g)), (1, 1));
    let routes = frr.route_details("macip");
    assert!(routes.contains("MM:1"), "{routes}");
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
    let mut monitor = vtepd_tests::packet::Monitor::open(&a.ns);
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
    let f = Fabric::new(2);
    let [a, b] = [&f.vteps[0], &f.vteps[1]];
    let v = f.start_vtepd(0);
    let frr = f.start_frr(1);
    v.converge();
    let g = Guest::new(77);
    // FRR has it locally and so do we, both since before they could know: the session is down meanwhile.
    frr.vty(&["configure terminal", "router bgp 65000", "neighbor 10.0.0.1 shutdown"]);
    eventually(SOON, "the session is down", || {
        let s = v.neighbor_state(b.address);
        if s == "Established" { Err(s) } else { Ok(()) }
    });
    f.guest_port(0, "p1").send(&g.garp());
    f.guest_port(1, "p1").send(&g.rarp());
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
