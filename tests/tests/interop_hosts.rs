//! MAC and IP routes between vtepd and FRR: what a host on one side means for the kernel on the other.

use evpn::types::Mac;
use std::net::Ipv6Addr;
use std::time::Duration;
use vtepd_tests::fabric::{Fabric, Guest, Host, Place, Vtep, test_mac};
use vtepd_tests::frame;
use vtepd_tests::mixed::{Mixed, Voices};
use vtepd_tests::need::{Need, met};
use vtepd_tests::packet::{Monitor, Wire};
use vtepd_tests::poll::{SOON, eventually, same, throughout};
use vtepd_tests::speaker::{Attributes, Speaker, mac_ip};

const NEEDS: [Need; 2] = [Need::Root, Need::Frr];

/// Both rows of a remote MAC, with the flags that they must have.
fn mac_rows_are_right(at: &Vtep, mac: Mac, owner: &Vtep) {
    eventually(SOON, "the MAC is remote", || at.sends_to(100, mac, &Place::vtep(owner)));
    for row in [at.bridge_row(100, mac), at.vxlan_row(100, mac)] {
        assert!(row["flags"].to_string().contains("extern_learn"), "{row}");
    }
}

/// The neighbour row of a remote IP, with the owner's mark.
fn neigh_row_is_right(at: &Vtep, g: &Guest, protocol: &str) {
    eventually(SOON, "the IP is answered", || {
        let row = at.neigh_row(100, g.ip.into());
        same(row["lladdr"].clone(), g.mac.to_string().into()).map_err(|e| format!("{e}\n{row}"))
    });
    let row = at.neigh_row(100, g.ip.into());
    assert_eq!((&row["state"], &row["extern_learn"]), (&serde_json::json!(["NOARP"]), &().into()), "{row}");
    let text = at.ns.sh(&format!("ip neigh show to {} dev br100 nud all", g.ip));
    assert!(text.contains(&format!("proto {protocol}")), "{text}");
}

fn no_neigh_row(at: &Vtep, g: &Guest) {
    eventually(SOON, "nobody answers for the IP", || {
        let row = at.neigh_row(100, g.ip.into());
        if row.is_null() { Ok(()) } else { Err(row) }
    });
}

/// Scenario 16: a guest that has said no more than a RARP is a MAC-only route (EVPN-MOB-02: no mobility community)
/// and both rows at the other side, in both directions.
#[test]
fn a_local_mac_is_a_remote_mac_at_the_other_side() {
    if !met(&NEEDS) {
        return;
    }
    let m = Mixed::converged_pair();
    let (g, h) = (Guest::new(5), Guest::new(6));
    m.guest(0).send(&g.rarp());
    m.guest(1).send(&h.rarp());
    mac_rows_are_right(m.vtep(1), g.mac, m.vtep(0));
    mac_rows_are_right(m.vtep(0), h.mac, m.vtep(1));
    let row = m.frr(1).mac(100, &g.mac.to_string());
    assert_eq!((&row["type"], &row["remoteVtep"]), (&"remote".into(), &"10.0.0.1".into()), "{row}");
    assert_eq!((&row["localSequence"], &row["remoteSequence"]), (&0.into(), &0.into()), "{row}");
    let theirs = m.vtepd(0).mac(&h.mac.to_string());
    assert_eq!((&theirs["place"]["vtep"], &theirs["seq"]), (&"10.0.0.2".into(), &0.into()), "{theirs}");
    let [mac_only, with_ip] = m.guest_routes(0, Some(1), &h);
    assert!(mac_only.is_some_and(|r| r["seq"].is_null()) && with_ip.is_none());
    let [ours, none] = m.guest_routes(0, None, &g);
    assert!(ours.is_some_and(|r| r["seq"].is_null()) && none.is_none());
    // A frame for a known MAC goes to its owner and nowhere else: it is no longer flooded.
    for (from, to, here, there) in [(0, 1, g, h), (1, 0, h, g)] {
        let far = m.guest(to);
        m.guest(from).send(&frame::data(there.mac, here.mac, 5));
        far.find(SOON, |f| frame::as_data(f, there.mac)).expect("it arrives");
    }
}

/// Scenario 17: after gratuitous ARP, or an unsolicited NA, the address follows, both ways: `NOARP`, `extern_learn`,
/// with the mark of the one who wrote it (EVPN-NLRI-05, PIT-27), and the other side's kernel answers ARP and ND by
/// itself (PROXY-REPLY-01).
#[test]
fn an_address_is_answered_at_the_other_side() {
    if !met(&NEEDS) {
        return;
    }
    let m = Mixed::converged_pair();
    let (g, h) = (Guest::new(5), Guest::new(6));
    m.guest(0).send(&g.garp());
    m.guest(1).send(&h.garp());
    neigh_row_is_right(m.vtep(1), &g, "zebra");
    neigh_row_is_right(m.vtep(0), &h, "158");
    let [six, theirs6]: [Ipv6Addr; 2] = ["fd00:100::5", "fd00:100::6"].map(|a| a.parse().unwrap());
    m.guest(0).send(&frame::unsolicited_na(g.mac, six));
    eventually(SOON, "the IPv6 address is answered at FRR", || {
        same(m.vtep(1).neigh_row(100, six.into())["lladdr"].clone(), g.mac.to_string().into())
    });
    let row = m.frr(1).mac(100, &g.mac.to_string());
    let mut active: Vec<_> = row["neighbors"]["active"].as_array().into_iter().flatten().cloned().collect();
    active.sort_by_key(ToString::to_string);
    assert_eq!(active, [g.ip.to_string(), six.to_string()], "{row}");
    let hosts = m.vtepd(0).show("hosts", &[]);
    let of = |ip: String| hosts.iter().find(|r| r["ip"] == ip.as_str()).cloned().unwrap_or_default();
    let theirs = of(h.ip.to_string());
    assert_eq!((&theirs["mac"], &theirs["place"]["vtep"]), (&h.mac.to_string().into(), &"10.0.0.2".into()));
    assert_eq!((&theirs["origin"], &theirs["answered_by"]), (&"bgp".into(), &"kernel".into()));
    assert_eq!(of(g.ip.to_string())["place"]["port"], "p1");
    for (i, here, there) in [(0, g, h), (1, h, g)] {
        let wire = m.guest(i);
        wire.send(&frame::arp_request(here.mac, here.ip, there.ip));
        let (_, answer) = wire.find(SOON, frame::as_arp_reply).expect("the kernel answers");
        assert_eq!(answer, (there.mac, there.ip));
    }
    let wire = m.guest(1);
    wire.send(&frame::neighbor_solicitation(h.mac, theirs6, six));
    let (_, answer) = wire.find(SOON, frame::as_neighbor_advertisement).expect("FRR's kernel answers");
    assert_eq!(answer, (g.mac, six));
}

/// Scenario 17, PROXY-REPLY-03: ND is answered by the kernel below vtepd. FRR's kernel learns no IPv6 address unasked, so the peer is
/// the scripted speaker.
#[test]
fn the_kernel_below_vtepd_answers_nd_for_a_remote_host() {
    if !met(&[Need::Root]) {
        return;
    }
    let mut m = Mixed::new(Fabric::new(2));
    m.start_vtepd(0);
    let peer = m.vtep(1).address;
    let s = Speaker::accept(&m.vtep(1).ns, peer, 65000);
    let (me, there) = (Guest::new(5), Guest::new(6));
    let [mine, six]: [Ipv6Addr; 2] = ["fd00:100::5", "fd00:100::6"].map(|a| a.parse().unwrap());
    s.announce(&Attributes::new(peer, 100), &[mac_ip(100, there.mac, Some(six.into()))]);
    eventually(SOON, "the IPv6 address has its row", || {
        same(m.vtep(0).neigh_row(100, six.into())["lladdr"].clone(), there.mac.to_string().into())
    });
    mac_rows_are_right(m.vtep(0), there.mac, m.vtep(1));
    let wire = m.guest(0);
    wire.send(&frame::neighbor_solicitation(me.mac, mine, six));
    let (_, answer) = wire.find(SOON, frame::as_neighbor_advertisement).expect("the kernel answers");
    assert_eq!(answer, (there.mac, six));
}

/// Scenario 18: vtepd sends both routes. From a peer that sends only MAC+IP, both sides take MAC and IP: FRR 8.4.4
/// already does.
#[test]
fn a_route_with_mac_and_ip_alone_is_enough() {
    if !met(&NEEDS) {
        return;
    }
    let mut m = Mixed::new(Fabric::new(3));
    m.start_frr(1);
    m.start_vtepd(0);
    let s = m.vtep(2).address;
    let voices = Voices::accept(&m.vtep(2).ns, s, 2);
    let m = (voices, m);
    let (voices, m) = (&m.0, &m.1);
    voices.end_of_rib();
    m.converge();
    let (g, h) = (Guest::new(5), Guest::new(7));
    m.guest(0).send(&g.garp());
    eventually(SOON, "FRR has both of our routes", || {
        let text = m.frr(1).routes("rd 10.0.0.1:100 type macip");
        let both = [format!("[{}]\n", g.mac), format!("[{}]:[32]:[{}]", g.mac, g.ip)];
        let text = text.replace(" VNI 100", "");
        if both.iter().all(|b| text.contains(b)) { Ok(()) } else { Err(text) }
    });
    let ours = m.guest_routes(0, None, &g);
    assert!(ours.iter().all(Option::is_some), "{ours:?}");

    let route = mac_ip(100, h.mac, Some(h.ip.into()));
    voices.announce(&Attributes::new(s, 100), std::slice::from_ref(&route));
    for (i, protocol) in [(0, "158"), (1, "zebra")] {
        mac_rows_are_right(m.vtep(i), h.mac, m.vtep(2));
        neigh_row_is_right(m.vtep(i), &h, protocol);
    }
    assert_eq!(m.vtepd(0).mac(&h.mac.to_string())["place"]["vtep"], "10.0.0.3");
    assert_eq!(m.frr(1).mac(100, &h.mac.to_string())["remoteVtep"], "10.0.0.3");
    voices.withdraw(&[route]);
    for i in [0, 1] {
        eventually(SOON, "the MAC goes", || m.vtep(i).sends_to(100, h.mac, &Place::Nowhere));
        no_neigh_row(m.vtep(i), &h);
    }
    voices.assert_up();
}

/// A pair with a host that has a network stack on either side.
fn with_hosts() -> (Mixed, [Host; 2]) {
    let mut m = Mixed::new(Fabric::new(2));
    m.start_frr(1);
    let hosts = [0, 1].map(|i| {
        let addresses = [format!("192.168.100.{}/24", 101 + i), format!("fd00:100::{}/64", 101 + i)];
        m.fabric.host(i, "h1", test_mac(0x100 + i as u16), &addresses.each_ref().map(String::as_str))
    });
    m.vtep(1).ns.sh("ip link set h1 master br100");
    let mut conf = m.fabric.conf(0);
    conf.vnis[0].1.push("h1".into());
    conf.vni_extra = "mtu = 1450".into();
    m.start_vtepd_with(0, &conf);
    m.converge();
    (m, hosts)
}

/// ARP inside VXLAN, or a solicitation of this IPv6 address, if this frame of the underlay is that.
fn asked_in_vxlan(f: &[u8], six: Ipv6Addr) -> Option<Vec<u8>> {
    let vxlan = f.get(12..14)? == [8, 0] && f[23] == 17 && f.get(36..38)? == 4789u16.to_be_bytes();
    let inner = f.get(50..).filter(|_| vxlan)?;
    let arp = inner.get(12..14)? == [8, 6];
    let ns = inner.get(12..14)? == [0x86, 0xdd]
        && inner.get(20) == Some(&58)
        && inner.get(54) == Some(&135)
        && inner.get(62..78)? == six.octets();
    (arp || ns).then(|| inner.to_vec())
}

/// Scenario 19: hosts with real stacks ping each other, packets of full size too; once both sides know both
/// addresses, no ARP and no solicitation for them crosses the underlay although both hosts forget and ask again: the
/// local kernel answers.
#[test]
fn hosts_ping_each_other_and_known_addresses_are_answered_locally() {
    if !met(&[Need::Root, Need::Frr, Need::Tool("ping")]) {
        return;
    }
    let (m, hosts) = with_hosts();
    let ip = ["192.168.100.101", "192.168.100.102"];
    let six: Ipv6Addr = "fd00:100::101".parse().unwrap();
    // Before anybody is known: found by flooding.
    eventually(SOON, "the first ping", || hosts[0].try_ping(ip[1]));
    eventually(SOON, "the first ping by IPv6", || hosts[1].try_ping(&six.to_string()));
    // Each announces itself; FRR's kernel learns from gratuitous ARP here.
    for (i, h) in hosts.iter().enumerate() {
        let g = Guest { mac: h.mac, ip: ip[i].parse().unwrap() };
        Wire::open(&h.ns, "eth0").send(&g.garp());
    }
    for i in [0, 1] {
        let g = Guest { mac: hosts[1 - i].mac, ip: ip[1 - i].parse().unwrap() };
        neigh_row_is_right(m.vtep(i), &g, ["158", "zebra"][i]);
        mac_rows_are_right(m.vtep(i), g.mac, m.vtep(1 - i));
    }
    eventually(SOON, "the IPv6 address is known at FRR", || {
        same(m.vtep(1).neigh_row(100, six.into())["lladdr"].clone(), hosts[0].mac.to_string().into())
    });
    let underlay = Wire::open(&m.fabric.spine, "u1");
    for round in 0..3 {
        for i in [0, 1] {
            hosts[i].ns.sh("ip neigh flush dev eth0");
            let options = if round == 2 { "-M do -s 1422" } else { "" };
            hosts[i].ns.sh(&format!("ping -n -c 2 -i 0.2 -W 5 {options} {}", ip[1 - i]));
            let row = hosts[i].ns.sh(&format!("ip neigh show {}", ip[1 - i]));
            assert!(row.contains(&hosts[1 - i].mac.to_string()), "{row}");
        }
        hosts[1].ns.sh(&format!("ping -n -c 2 -i 0.2 -W 5 {six}"));
    }
    let mut echoes = 0;
    while let Some((_, f)) = underlay.poll() {
        assert_eq!(asked_in_vxlan(&f, six), None, "asked across the underlay");
        echoes += u32::from(f.get(62..64) == Some(&[8, 0]) && f[23] == 17);
    }
    assert!(echoes >= 24, "the capture saw {echoes} inner packets of 12 echoes and 12 replies");
    // An address that nobody knows is asked for across the underlay: the capture would have seen it.
    let _ = hosts[0].try_ping("192.168.100.250");
    underlay.find(SOON, |f| asked_in_vxlan(f, six)).expect("ARP for an unknown address crosses");
}

/// Scenario 20: a port with a guest is deleted, or loses carrier. MAC and MAC+IP are withdrawn at once, both rows
/// and the neighbour row at the other side go; the other guest stays. Both directions.
#[test]
fn a_removed_port_takes_its_guest_away_at_the_other_side() {
    if !met(&NEEDS) {
        return;
    }
    let m = Mixed::converged_pair();
    for i in [0, 1] {
        m.vtep(i).add_port(&m.fabric.guests, "p2");
        m.vtep(i).ns.sh("ip link set p2 master br100");
    }
    for (here, there) in [(0, 1), (1, 0)] {
        let (stays, removed, unplugged) =
            (Guest::new(40 + here as u8), Guest::new(50 + here as u8), Guest::new(60 + here as u8));
        let (a, b) = (m.vtep(here), m.vtep(there));
        let p2 = m.fabric.guest_port(here, "p2");
        m.guest(here).send(&stays.garp());
        p2.send(&removed.garp());
        let protocol = ["158", "zebra"][there];
        for g in [&stays, &removed] {
            mac_rows_are_right(b, g.mac, a);
            neigh_row_is_right(b, g, protocol);
        }
        let mut monitor = Monitor::open(&b.ns);
        let begun = vtepd_tests::packet::now();
        a.ns.sh("ip link del p2");
        let gone = monitor.find(SOON, |n| !n.new && n.bridge && n.mac == removed.mac).expect("the row goes");
        let took = Duration::from_nanos(gone.at - begun);
        println!("port of VTEP {here} deleted; its MAC left the other kernel after {took:?}");
        eventually(SOON, "both rows go", || b.sends_to(100, removed.mac, &Place::Nowhere));
        assert!(b.vxlan_row(100, removed.mac).is_null());
        no_neigh_row(b, &removed);
        neigh_row_is_right(b, &stays, protocol);
        mac_rows_are_right(b, stays.mac, a);

        // The same by loss of carrier: the far end goes down.
        a.add_port(&m.fabric.guests, "p3");
        a.ns.sh("ip link set p3 master br100");
        let p3 = m.fabric.guest_port(here, "p3");
        p3.send(&unplugged.garp());
        mac_rows_are_right(b, unplugged.mac, a);
        neigh_row_is_right(b, &unplugged, protocol);
        m.fabric.guests.sh(&format!("ip link set x{}p3 down", here + 1));
        eventually(SOON, "the unplugged guest goes", || b.sends_to(100, unplugged.mac, &Place::Nowhere));
        no_neigh_row(b, &unplugged);
    }
    // Nothing of them is advertised any more.
    let none = |rows: Vec<serde_json::Value>| {
        let text = serde_json::to_string(&rows).unwrap();
        ["0:32\"", "0:33\"", "0:3c\"", "0:3d\""].iter().all(|m| !text.contains(m)).then_some(()).ok_or(text)
    };
    eventually(SOON, "vtepd holds none of their routes", || none(m.vtepd(0).show("macs", &[])));
    let routes = m.frr(1).routes("type macip");
    for n in [50, 51, 60, 61] {
        assert!(!routes.contains(&format!("[{}]", Guest::new(n).mac)), "{n}\n{routes}");
    }
}

/// Scenario 27: a guest has the MAC of an interface of the other node. FRR drops such a route ("self mac"); vtepd
/// keeps it away from its kernel, which would otherwise lose its own address to the overlay. Sessions and other
/// hosts are not harmed.
#[test]
fn a_guest_with_the_mac_of_the_other_nodes_bridge_is_not_installed_there() {
    if !met(&NEEDS) {
        return;
    }
    let m = Mixed::converged_pair();
    for (here, there) in [(0, 1), (1, 0)] {
        let (a, b) = (m.vtep(here), m.vtep(there));
        let link = b.ns.json("ip -j link show dev br100");
        let own: Mac = link[0]["address"].as_str().unwrap().parse().unwrap();
        let permanent = b.bridge_row(100, own);
        assert_eq!(permanent["state"], "permanent", "{permanent}");
        let wire = m.guest(here);
        wire.send(&frame::rarp(own));
        eventually(SOON, "it is learned where it is", || a.sends_to(100, own, &Place::port("p1")));
        // Another guest after it: once that one is there, the first has been worked on.
        let next = Guest::new(70 + here as u8);
        wire.send(&next.garp());
        mac_rows_are_right(b, next.mac, a);
        let unharmed = || {
            same(
                (b.bridge_row(100, own), b.vxlan_row(100, own)),
                (permanent.clone(), serde_json::Value::Null),
            )
        };
        throughout(Duration::from_millis(300), "its own row is unharmed", unharmed);
    }
    assert_eq!(m.vtepd(0).neighbor_state(m.vtep(1).address), "Established");
    assert_eq!(m.frr(1).neighbor_state("10.0.0.1"), "Established");
    let failures = m.vtepd(0).status()["counters"]["write_failures"].clone();
    assert!(failures.is_null() || failures == 0, "{failures}");
}

/// A next hop that is our own address is no way to a host (EVPN-NLRI-16).
#[test]
fn routes_that_point_at_ourselves_are_not_installed() {
    if !met(&[Need::Root]) {
        return;
    }
    let mut m = Mixed::new(Fabric::new(2));
    m.start_vtepd(0);
    let (a, b) = (m.vtep(0), m.vtep(1));
    let s = Speaker::accept(&b.ns, b.address, 65000);
    let (g, h) = (Guest::new(53), Guest::new(54));
    s.announce(&Attributes::new(a.address, 100), &[mac_ip(100, g.mac, None)]);
    s.announce(&Attributes::new(b.address, 100), &[mac_ip(100, h.mac, None)]);
    eventually(SOON, "the later route is there", || a.sends_to(100, h.mac, &Place::vtep(b)));
    assert_eq!(a.place(100, g.mac), Place::Nowhere);
    assert!(s.is_up(), "{:?}", s.notified());
}

/// Scenario 26: communities that mean nothing to us do not hinder.
#[test]
fn unknown_communities_are_ignored() {
    if !met(&[Need::Root]) {
        return;
    }
    let mut m = Mixed::new(Fabric::new(2));
    m.start_vtepd(0);
    let (a, b) = (m.vtep(0), m.vtep(1));
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

/// The underlay can be IPv6. Two vtepd, since FRR 8.4.4 knows no IPv6 VTEPs: flood rows, host rows, an answered ARP,
/// frames both ways, and a hot move (EVPN-NLRI-14).
#[test]
fn two_vtepd_work_over_an_ipv6_underlay() {
    if !met(&[Need::Root]) {
        return;
    }
    let mut m = Mixed::new(Fabric::new_v6(2));
    m.start_vtepd(0);
    m.start_vtepd(1);
    m.converge();
    let (a, b) = (m.vtep(0), m.vtep(1));
    // Scenario 27: bridges that vtepd makes never share a MAC.
    let bridge = |v: &Vtep| v.ns.json("ip -j link show dev br100")[0]["address"].clone();
    assert_ne!(bridge(a), bridge(b));
    assert_eq!((a.flood_list(100), b.flood_list(100)), (vec!["fd00:f::2".into()], vec!["fd00:f::1".into()]));
    let (g, h) = (Guest::new(9), Guest::new(10));
    let (x, y) = (m.guest(0), m.guest(1));
    x.send(&g.garp());
    y.send(&h.garp());
    for (here, owner, guest) in [(b, a, g), (a, b, h)] {
        mac_rows_are_right(here, guest.mac, owner);
        neigh_row_is_right(here, &guest, "158");
    }
    y.send(&frame::arp_request(h.mac, h.ip, g.ip));
    let (_, answer) = y.find(SOON, frame::as_arp_reply).expect("the kernel answers");
    assert_eq!(answer, (g.mac, g.ip));
    // The VXLAN device really reaches the other.
    for (from, to, src, dst) in [(&y, &x, h, g), (&x, &y, g, h)] {
        from.send(&frame::data(dst.mac, src.mac, 1));
        to.find(SOON, |f| frame::as_data(f, dst.mac)).expect("data crosses");
    }
    y.send(&g.rarp());
    mac_rows_are_right(a, g.mac, b);
    neigh_row_is_right(a, &g, "158");
    assert_eq!(b.place(100, g.mac), Place::port("p1"));
    assert!(b.vxlan_row(100, g.mac).is_null());
    for i in [0, 1] {
        assert_eq!(m.vtepd(i).mac(&g.mac.to_string())["seq"], 1);
    }
}

/// PROXY-LEARN-03, PROXY-EC-04: an address that is bound by hand goes out as soon as its MAC is seen, with I=1. FRR, which makes
/// nothing of that, answers for it, and a vtepd that knows of it by that route alone takes no other MAC for it.
#[test]
fn a_static_host_is_answered_for_at_frr_and_spoofs_of_it_change_nothing() {
    if !met(&NEEDS) {
        return;
    }
    let g = Guest::new(5);
    let m = Mixed::two_and_frr(|conf| {
        if conf.address.to_string() == "10.0.0.1" {
            conf.vni_extra = format!("static-hosts = {{ \"{}\" = [\"{}\"] }}", g.ip, g.mac);
        }
    });
    // It says nothing of its address, now or later.
    m.guest(0).send(&g.rarp());
    neigh_row_is_right(m.vtep(1), &g, "zebra");
    neigh_row_is_right(m.vtep(2), &g, "158");
    let host = |i: usize| {
        let hosts = m.vtepd(i).show("hosts", &[]);
        hosts.iter().find(|h| h["ip"] == g.ip.to_string().as_str()).cloned().unwrap_or_default()
    };
    for i in [0, 2] {
        assert_eq!(host(i)["immutable"], true, "{}", host(i));
    }
    // Behind the other vtepd, which is not configured for it, somebody says that it is his.
    let liar = Guest { mac: Guest::new(66).mac, ..g };
    let wire = m.guest(2);
    throughout(Duration::from_secs(2), "the owner keeps it everywhere", || {
        wire.send(&liar.garp());
        for (i, at) in [1, 2].map(|i| (i, m.vtep(i))) {
            let row = at.neigh_row(100, g.ip.into());
            same(row["lladdr"].clone(), g.mac.to_string().into()).map_err(|e| format!("VTEP {i}: {e}"))?;
        }
        Ok::<(), String>(())
    });
    assert_eq!(host(2)["mac"], g.mac.to_string().as_str());
    // A host behind FRR is answered with the right one.
    let asker = Guest::new(7);
    let wire = m.guest(1);
    wire.send(&frame::arp_request(asker.mac, asker.ip, g.ip));
    let (_, answer) = wire.find(SOON, frame::as_arp_reply).expect("FRR's kernel answers");
    assert_eq!(answer, (g.mac, g.ip));
}
