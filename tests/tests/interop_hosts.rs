//! vtepd beside FRR: MAC and MAC+IP routes both ways, ARP and ND answered locally. Asserted on both sides.

use evpn::types::Mac;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;
use vtepd_tests::fabric::{Fabric, Guest, Place};
use vtepd_tests::frame;
use vtepd_tests::need::{Need, met};
use vtepd_tests::packet::Wire;
use vtepd_tests::poll::{LATER, SOON, eventually, same};
use vtepd_tests::speaker::{Attributes, Speaker, mac_ip};
use vtepd_tests::vtepd::{Conf, Vtepd};

const NEEDS: [Need; 2] = [Need::Root, Need::Frr];

/// Scenario 16: a MAC that speaks behind vtepd is a remote MAC at FRR, in bgpd, zebra and both kernel tables.
#[test]
fn a_local_mac_is_remote_at_frr() {
    if !met(&NEEDS) {
        return;
    }
    let f = Fabric::new(2);
    let [a, b] = [&f.vteps[0], &f.vteps[1]];
    let v = f.start_vtepd(0);
    let frr = f.start_frr(1);
    v.converge();
    let g = Guest::new(1);
    f.guest_port(0, "p1").send(&g.rarp());
    eventually(SOON, "FRR's kernel sends it to us", || b.sends_to(100, g.mac, &Place::vtep(a)));
    let row = b.bridge_row(100, g.mac);
    assert!(row["flags"].to_string().contains("extern_learn"), "{row}");
    let mac = frr.mac(100, &g.mac.to_string());
    assert_eq!((&mac["type"], &mac["remoteVtep"]), (&"remote".into(), &"10.0.0.1".into()), "{mac}");
    let ours = v.mac(&g.mac.to_string());
    assert_eq!((&ours["place"]["port"], &ours["seq"]), (&"p1".into(), &0.into()), "{ours}");
    // EVPN-MOB-02: the first advertisement carries no mobility community.
    let routes = frr.route_details("macip");
    assert!(!routes.contains("MM:"), "{routes}");
}

/// Scenario 17: MAC+IP both ways, IPv4 and IPv6: neighbour rows in both kernels, ours with our protocol number.
#[test]
fn bindings_travel_both_ways() {
    if !met(&NEEDS) {
        return;
    }
    let f = Fabric::new(2);
    let [a, b] = [&f.vteps[0], &f.vteps[1]];
    let v = f.start_vtepd(0);
    let frr = f.start_frr(1);
    v.converge();
    let g = Guest::new(2);
    let six: Ipv6Addr = "fd00:100::2".parse().expect("an address");
    let wire = f.guest_port(0, "p1");
    wire.send(&g.garp());
    wire.send(&frame::unsolicited_na(g.mac, six));
    for ip in [IpAddr::from(g.ip), IpAddr::from(six)] {
        eventually(SOON, "FRR answers for it", || {
            same(b.neigh_row(100, ip)["lladdr"].clone(), g.mac.to_string().into())
        });
    }
    let mac = frr.mac(100, &g.mac.to_string());
    assert!(mac["neighbors"]["active"].to_string().contains("192.168.100.2"), "{mac}");

    // FRR learns a host from the kernel's neighbour table, which a request for the bridge's own address fills.
    b.ns.sh("ip addr add 192.168.100.251/24 dev br100");
    let h = Guest::new(3);
    let asks = frame::arp_request(h.mac, h.ip, "192.168.100.251".parse().expect("an address"));
    f.guest_port(1, "p1").send(&asks);
    eventually(SOON, "we answer for FRR's host", || {
        let row = a.neigh_row(100, h.ip.into());
        if row["lladdr"] == h.mac.to_string().as_str() {
            Ok(())
        } else {
            Err((row, frr.routes("type macip")))
        }
    });
    let row = a.neigh_row(100, h.ip.into());
    let text = row.to_string();
    assert!(text.contains("NOARP") && text.contains("extern_learn"), "{row}");
    assert_eq!(row["protocol"].to_string().trim_matches('"'), "158", "{row}");
    let host = v.show("hosts", &["--ip", "192.168.100.3"]);
    assert_eq!(host[0]["place"]["vtep"], "10.0.0.2", "{host:?}");
}

/// Scenario 18: MAC+IP without a MAC-only route: the MAC is reachable too.
#[test]
fn a_binding_without_a_mac_route_makes_the_mac_reachable() {
    if !met(&[Need::Root]) {
        return;
    }
    let f = Fabric::new(2);
    let [a, b] = [&f.vteps[0], &f.vteps[1]];
    let _v = f.start_vtepd(0);
    let s = Speaker::accept(&b.ns, b.address, 65000);
    let g = Guest::new(4);
    let both = mac_ip(100, g.mac, Some(g.ip.into()));
    s.announce(&Attributes::new(b.address, 100), std::slice::from_ref(&both));
    eventually(SOON, "the MAC has a row", || a.sends_to(100, g.mac, &Place::vtep(b)));
    s.withdraw(&[both]);
    eventually(SOON, "and loses it", || a.sends_to(100, g.mac, &Place::Nowhere));
    assert!(a.neigh_row(100, g.ip.into()).is_null());
}

/// Asks by ARP from a guest and waits for the answer.
fn asks_v4(wire: &Wire, from: &Guest, whom: &Guest) -> Option<Mac> {
    wire.drain();
    wire.send(&frame::arp_request(from.mac, from.ip, whom.ip));
    wire.find(Duration::from_secs(1), |f| frame::as_arp_reply(f).filter(|(_, ip)| *ip == whom.ip))
        .map(|(_, (m, _))| m)
}

/// Scenario 19, with guests that have a stack: ping through both, first packet answered; ARP and ND for known
/// addresses never cross the underlay.
#[test]
fn hosts_ping_each_other_and_known_addresses_are_answered_locally() {
    if !met(&[Need::Root, Need::Frr, Need::Tool("ping")]) {
        return;
    }
    let f = Fabric::new(2);
    let [a, b] = [&f.vteps[0], &f.vteps[1]];
    let (m1, m2) = (Guest::new(61), Guest::new(62));
    let h1 = f.host(0, "h1", m1.mac, &["192.168.100.61/24", "fd00:100::61/64"]);
    let h2 = f.host(1, "h2", m2.mac, &["192.168.100.62/24", "fd00:100::62/64"]);
    let mut conf = f.conf(0);
    conf.vnis = vec![(100, vec!["p1".into(), "h1".into()])];
    let v = Vtepd::start(&a.ns, &conf);
    let _frr = f.start_frr(1);
    b.ns.sh("ip link set h2 master br100");
    v.converge();
    eventually(LATER, "ping", || h1.try_ping("192.168.100.62"));
    eventually(LATER, "ping by IPv6", || h1.try_ping("fd00:100::62"));
    eventually(SOON, "ping back", || h2.try_ping("192.168.100.61"));
    // IPv6 bindings come from advertisements only (PROXY-LEARN-02), so somebody has to ask once.
    h2.ns.sh("ip -6 neigh flush dev eth0");
    eventually(SOON, "ping back by IPv6", || h2.try_ping("fd00:100::61"));
    for ip in ["192.168.100.61", "fd00:100::61"] {
        let ip: IpAddr = ip.parse().expect("an address");
        eventually(SOON, "FRR answers for our host", || {
            same(b.neigh_row(100, ip)["lladdr"].clone(), m1.mac.to_string().into())
        });
    }
    // From now on nobody needs to ask across: look at the underlay while h2 asks again.
    let underlay = Wire::open(&f.spine, "u2");
    h2.ns.sh("ip neigh flush dev eth0");
    underlay.drain();
    eventually(SOON, "ping after a flush", || h2.try_ping("192.168.100.61"));
    eventually(SOON, "ping by IPv6 after a flush", || h2.try_ping("fd00:100::61"));
    let asked = underlay.find(Duration::from_millis(200), |f| {
        // VXLAN: outer Ethernet, IPv4, UDP, VXLAN header; then the inner frame from h2.
        let inner = f.get(50..)?;
        let from_h2 = inner.get(6..12)? == m2.mac.0;
        let arp = inner.get(12..14)? == [8, 6]
            && inner.get(20..22)? == [0, 1]
            && inner.get(38..42)? == [192, 168, 100, 61];
        let ns =
            inner.get(12..14)? == [0x86, 0xdd] && inner.get(20) == Some(&58) && inner.get(54) == Some(&135);
        (from_h2 && (arp || ns)).then(|| inner.to_vec())
    });
    assert!(asked.is_none(), "a request for a known address crossed the underlay: {asked:?}");
}

/// The same for guests of frames only: vtepd's own kernel answers for FRR's host.
#[test]
fn the_kernel_answers_arp_and_nd_for_remote_hosts() {
    if !met(&[Need::Root]) {
        return;
    }
    let f = Fabric::new(2);
    let [a, b] = [&f.vteps[0], &f.vteps[1]];
    let _v = f.start_vtepd(0);
    let s = Speaker::accept(&b.ns, b.address, 65000);
    let (me, there) = (Guest::new(5), Guest::new(6));
    let six: Ipv6Addr = "fd00:100::6".parse().expect("an address");
    let nlri = [mac_ip(100, there.mac, Some(there.ip.into())), mac_ip(100, there.mac, Some(six.into()))];
    s.announce(&Attributes::new(b.address, 100), &nlri);
    eventually(SOON, "both rows", || {
        same(
            (a.neigh_row(100, there.ip.into()).is_null(), a.neigh_row(100, six.into()).is_null()),
            (false, false),
        )
    });
    let wire = f.guest_port(0, "p1");
    eventually(SOON, "ARP is answered", || {
        let got = asks_v4(&wire, &me, &there);
        if got == Some(there.mac) { Ok(()) } else { Err(got) }
    });
    let mine: Ipv6Addr = "fd00:100::5".parse().expect("an address");
    eventually(SOON, "ND is answered", || {
        wire.drain();
        wire.send(&frame::neighbor_solicitation(me.mac, mine, six));
        let got = wire.find(Duration::from_secs(1), |f| {
            frame::as_neighbor_advertisement(f).filter(|(_, ip)| *ip == six)
        });
        if got.is_some_and(|(_, (m, _))| m == there.mac) { Ok(()) } else { Err(got) }
    });
}

/// Scenario 20: the port goes away: MAC and MAC+IP are withdrawn at once; and the reverse.
#[test]
fn a_port_that_disappears_takes_its_hosts_along() {
    if !met(&NEEDS) {
        return;
    }
    let f = Fabric::new(2);
    let [a, b] = [&f.vteps[0], &f.vteps[1]];
    let v = f.start_vtepd(0);
    let frr = f.start_frr(1);
    v.converge();
    let (g, h) = (Guest::new(7), Guest::new(8));
    f.guest_port(0, "p1").send(&g.garp());
    f.guest_port(1, "p1").send(&h.rarp());
    eventually(SOON, "all is known", || {
        a.sends_to(100, h.mac, &Place::vtep(b))?;
        b.sends_to(100, g.mac, &Place::vtep(a))?;
        if b.neigh_row(100, g.ip.into()).is_null() { Err(Place::Nowhere) } else { Ok(()) }
    });
    a.ns.sh("ip link del p1");
    eventually(SOON, "FRR drops both rows and the IP", || {
        same((b.place(100, g.mac), b.neigh_row(100, g.ip.into()).is_null()), (Place::Nowhere, true))
    });
    assert!(b.vxlan_row(100, g.mac).is_null(), "the VXLAN device's row too");
    assert!(!frr.routes("type macip").contains(&g.mac.to_string()));
    b.ns.sh("ip link del p1");
    eventually(SOON, "we drop FRR's", || a.sends_to(100, h.mac, &Place::Nowhere));
    assert!(a.vxlan_row(100, h.mac).is_null());
}

/// The underlay can be IPv6: two vtepd, since FRR 8.4.4 knows no IPv6 VTEPs.
#[test]
fn two_vtepd_work_over_an_ipv6_underlay() {
    if !met(&[Need::Root]) {
        return;
    }
    let f = Fabric::new_v6(2);
    let [a, b] = [&f.vteps[0], &f.vteps[1]];
    let v = [f.start_vtepd(0), f.start_vtepd(1)];
    v[0].converge();
    v[1].converge();
    assert_eq!((a.flood_list(100), b.flood_list(100)), (vec!["fd00:f::2".into()], vec!["fd00:f::1".into()]));
    let g = Guest::new(9);
    f.guest_port(0, "p1").send(&g.garp());
    eventually(SOON, "the MAC is remote", || b.sends_to(100, g.mac, &Place::vtep(a)));
    eventually(SOON, "the IP is answered", || {
        same(b.neigh_row(100, g.ip.into())["lladdr"].clone(), g.mac.to_string().into())
    });
    // A frame across: the VXLAN device really reaches the other.
    let (x, y) = (f.guest_port(0, "p1"), f.guest_port(1, "p1"));
    eventually(SOON, "data crosses", || {
        y.send(&frame::data(g.mac, Guest::new(10).mac, 1));
        x.find(Duration::from_millis(200), |f| frame::as_data(f, g.mac)).ok_or("nothing yet")
    });
}

/// Scenario 26: communities that mean nothing to us do not hinder.
#[test]
fn unknown_communities_are_ignored() {
    if !met(&[Need::Root]) {
        return;
    }
    let f = Fabric::new(2);
    let [a, b] = [&f.vteps[0], &f.vteps[1]];
    let conf = Conf::new(a.address, &[b.address]);
    let _v = Vtepd::start(&a.ns, &conf);
    let s = Speaker::accept(&b.ns, b.address, 65000);
    let g = Guest::new(14);
    let mut at = Attributes::new(b.address, 100);
    // Site of origin, and two kinds that nobody has assigned.
    at.communities.extend([
        [0, 3, 0xfd, 0xe8, 0, 0, 0, 1],
        [0x46, 0x77, 1, 2, 3, 4, 5, 6],
        [6, 0x77, 0, 0, 0, 0, 0, 9],
    ]);
    s.announce(&at, &[mac_ip(100, g.mac, None)]);
    eventually(SOON, "the route is used", || a.sends_to(100, g.mac, &Place::vtep(b)));
    assert!(s.is_up(), "{:?}", s.notified());
}
