//! The first hop of real Linux guests with default settings: two VNIs, two VTEPs, the same gateway everywhere
//! (EVPN-IRB-07, EVPN-IRB-08, EVPN-IRB-10, PIT-18).

use evpn::types::Mac;
use evpn::wire::frame::{self as wire, Body};
use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, TcpListener, TcpStream};
use std::time::Duration;
use vtepd_tests::fabric::{Fabric, Host, Place, frr_conf, test_mac};
use vtepd_tests::frame;
use vtepd_tests::frr::Frr;
use vtepd_tests::need::{Need, met};
use vtepd_tests::ns::Netns;
use vtepd_tests::packet::Wire;
use vtepd_tests::poll::{LATER, SOON, eventually, same};
use vtepd_tests::vtepd::{Conf, Vtepd};

const GATEWAY: Mac = Mac([0, 0, 0x5e, 0, 1, 1]);
const LINK_LOCAL: &str = "fe80::200:5eff:fe00:101";

/// VNI 100 is 10.1.0.0/24 and 2001:db8:1::/64, VNI 200 the same with 2.
fn conf(f: &Fabric, vtep: usize, ports: [&[&str]; 2], extra: &str) -> Conf {
    let mut conf = f.conf(vtep);
    conf.vnis.clear();
    for (n, ports) in (1..).zip(ports) {
        let _ = write!(
            conf.sections,
            "[[vni]]\nvni = {n}00\nports = {ports:?}\n\
             gateway = {{ addresses = [\"10.{n}.0.1/24\", \"2001:db8:{n}::1/64\"] }}\n{extra}\n"
        );
    }
    conf
}

fn start(f: &Fabric, ports: [[&[&str]; 2]; 2], extra: &str) -> [Vtepd; 2] {
    let [a, b] = [0, 1].map(|i| Vtepd::start(&f.vteps[i].ns, &conf(f, i, ports[i], extra)));
    a.converge();
    b.converge();
    [a, b]
}

/// A guest of VNI `n`00 with its default routes.
fn guest(f: &Fabric, vtep: usize, port: &str, n: u8, number: u8) -> Host {
    let mac = test_mac(u16::from_be_bytes([n, number]));
    let addresses = [format!("10.{n}.0.{number}/24"), format!("2001:db8:{n}::{number}/64")];
    let host = f.host(vtep, port, mac, &addresses.each_ref().map(String::as_str));
    default_routes(&host.ns, n);
    host
}

fn default_routes(ns: &Netns, n: u8) {
    ns.sh(&format!(
        "ip route add default via 10.{n}.0.1 && ip -6 route add default via {LINK_LOCAL} dev eth0"
    ));
}

/// What the guest holds for an address.
fn cached(ns: &Netns, ip: &str) -> Option<Mac> {
    let family = if ip.contains(':') { "-6" } else { "-4" };
    let rows = ns.json(&format!("ip -j {family} neigh show to {ip} dev eth0"));
    rows[0]["lladdr"].as_str()?.parse().ok()
}

fn counter(d: &Vtepd, name: &str) -> u64 {
    d.status()["counters"][name].as_u64().unwrap_or(0)
}

/// Inner frames of what has crossed the underlay since the last time.
fn crossed(underlay: &Wire) -> Vec<Vec<u8>> {
    let inner = |f: Vec<u8>| {
        let vxlan =
            f.get(12..14)? == [8, 0] && f.get(23) == Some(&17) && f.get(36..38)? == 4789u16.to_be_bytes();
        vxlan.then(|| f[50..].to_vec())
    };
    std::iter::from_fn(|| underlay.poll()).filter_map(|(_, f)| inner(f)).collect()
}

/// Nothing of it announces the gateway, asks for it or answers for it; whoever asks in its name is a probe MAC.
fn nothing_of_the_gateway(frames: &[Vec<u8>]) {
    let own = |ip: IpAddr| {
        matches!(
            ip.to_string().as_str(),
            "10.1.0.1" | "10.2.0.1" | "2001:db8:1::1" | "2001:db8:2::1" | LINK_LOCAL
        )
    };
    for f in frames.iter().filter_map(|f| wire::parse(f).ok()) {
        let (about, says) = match f.body {
            Body::Arp(a) if a.reply => (own(a.sender_ip.into()), "answers"),
            Body::Arp(a) => (own(a.target_ip.into()), "asks for, or announces"),
            Body::NeighborAdvertisement(na) => (own(na.target.into()), "advertises"),
            Body::NeighborSolicitation(ns) => (own(ns.target.into()), "solicits"),
            Body::RouterAdvertisement(_) => (true, "is a router advertisement of"),
            _ => (false, ""),
        };
        assert!(!about, "{f:?} {says} the gateway");
        let question =
            matches!(&f.body, Body::Arp(a) if !a.reply) || matches!(f.body, Body::NeighborSolicitation(_));
        assert!(!(question && f.src == GATEWAY), "{f:?} is the kernel's own question");
    }
}

/// PIT-18: nobody has heard any of them over IPv4, and the first packet of each arrives.
#[test]
fn silent_guests_of_two_vnis_reach_each_other_by_the_gateway_of_their_own_vtep() {
    if !met(&[Need::Root, Need::Tool("ping")]) {
        return;
    }
    let f = Fabric::new(2);
    let underlay = Wire::open(&f.spine, "u1");
    // Numbers 2 and 3 of VNI 100, 2 and 3 of VNI 200: one of each at each VTEP.
    let hosts = [
        guest(&f, 0, "a0", 1, 2),
        guest(&f, 1, "a1", 1, 3),
        guest(&f, 0, "b0", 2, 2),
        guest(&f, 1, "b1", 2, 3),
    ];
    let [d0, d1] = start(&f, [[&["a0"], &["b0"]], [&["a1"], &["b1"]]], "");
    let reach = |from: &Host, to: &str| {
        let family = if to.contains(':') { "-6" } else { "-4" };
        from.ns.sh(&format!("ping {family} -n -c 1 -W 3 {to}"))
    };
    reach(&hosts[0], "10.2.0.3");
    assert!(counter(&d0, "gateway_questions") > 0, "{}", d0.status());
    let row = f.vteps[0].neigh_row(200, "10.2.0.3".parse().expect("an address"));
    assert_eq!(row["lladdr"], hosts[3].mac.to_string().as_str(), "{row}");
    assert!(row.to_string().contains("extern_learn"), "{row}");
    for (n, from) in [(1, &hosts[0]), (1, &hosts[1]), (2, &hosts[2]), (2, &hosts[3])] {
        for to in [
            "10.1.0.2",
            "10.1.0.3",
            "10.2.0.2",
            "10.2.0.3",
            "2001:db8:1::2",
            "2001:db8:1::3",
            "2001:db8:2::2",
            "2001:db8:2::3",
        ] {
            reach(from, to);
        }
        assert_eq!(cached(&from.ns, &format!("10.{n}.0.1")), Some(GATEWAY));
        assert_eq!(cached(&from.ns, LINK_LOCAL), Some(GATEWAY));
    }
    // A packet that is routed is one hop, wherever its destination is.
    let hops = hosts[0].ns.sh("ping -n -c 1 -W 3 10.2.0.3");
    assert!(hops.contains("ttl=63"), "{hops}");
    // EVPN-IRB-08: neighbours, and no routes of hosts.
    for v in &f.vteps {
        let routes = v.ns.sh("ip route show; ip -6 route show");
        assert!(!routes.contains("10.1.0.2 ") && !routes.contains("2001:db8:2::3 "), "{routes}");
    }
    // The rows of hosts that are here are there to route by, and answer nobody.
    for (d, here) in [(&d0, ["10.1.0.2", "10.2.0.2"]), (&d1, ["10.1.0.3", "10.2.0.3"])] {
        for host in
            d.show("hosts", &[]).iter().filter(|h| h["ip"].as_str().is_some_and(|ip| ip.starts_with("10.")))
        {
            let local = here.iter().any(|ip| host["ip"] == *ip);
            assert_eq!(host["answered_by"], if local { "owner" } else { "kernel" }, "{host}");
        }
    }
    let seen = crossed(&underlay);
    assert!(seen.len() > 20, "{} frames", seen.len());
    nothing_of_the_gateway(&seen);
    for d in [&d0, &d1] {
        assert_eq!((counter(d, "gateway_macs_seen"), counter(d, "gateway_addresses_refused")), (0, 0));
        assert_eq!(counter(d, "gateway_repairs"), 0);
        assert!(d.show("macs", &[]).iter().all(|m| m["mac"] != GATEWAY.to_string().as_str()));
    }
    // Without the daemon the kernel goes on routing.
    let _dir = d0.stop();
    for to in ["10.2.0.2", "2001:db8:2::2"] {
        reach(&hosts[0], to);
    }
}

/// Beside an FRR host that has the same first hop by its operator's hand: guests of two VNIs reach each other through
/// the gateway of their own VTEP, and neither side takes the other's gateway for a host.
#[test]
fn an_frr_host_with_the_same_gateway_is_a_first_hop_among_others() {
    if !met(&[Need::Root, Need::Frr, Need::Tool("ping")]) {
        return;
    }
    let f = Fabric::new(2);
    let hosts = [
        guest(&f, 0, "a0", 1, 2),
        guest(&f, 0, "b0", 2, 2),
        guest(&f, 1, "a1", 1, 3),
        guest(&f, 1, "b1", 2, 3),
    ];
    let (ours, theirs) = (&f.vteps[0], &f.vteps[1]);
    for (n, port) in [(1, "a1"), (2, "b1")] {
        theirs.make_devices(n * 100, &[port]);
        theirs.ns.sh(&format!(
            "ip link set br{n}00 address {GATEWAY} && ip addr add 10.{n}.0.1/24 dev br{n}00
             echo 1 > /proc/sys/net/ipv4/conf/br{n}00/arp_accept"
        ));
    }
    theirs.ns.sh("echo 1 > /proc/sys/net/ipv4/ip_forward");
    let frr = Frr::start(&theirs.ns, &frr_conf(65000, theirs.number, &[(ours.address, 65000)], ""));
    let d = Vtepd::start(&ours.ns, &conf(&f, 0, [&["a0"], &["b0"]], ""));
    d.converge();
    // Within the VNI, across it, both ways.
    for (from, to) in
        [(0, "10.1.0.3"), (0, "10.2.0.3"), (1, "10.1.0.3"), (2, "10.2.0.2"), (3, "10.1.0.2"), (2, "10.1.0.2")]
    {
        eventually(LATER, "the packet arrives", || {
            hosts[from].try_ping(to).map_err(|e| format!("{from} to {to}: {e}"))
        });
    }
    // A packet that is routed is one hop.
    let hops = hosts[0].ns.sh("ping -n -c 1 -W 3 10.2.0.3");
    assert!(hops.contains("ttl=63"), "{hops}");
    for (h, n) in hosts.iter().zip([1, 2, 1, 2]) {
        assert_eq!(cached(&h.ns, &format!("10.{n}.0.1")), Some(GATEWAY));
    }
    assert!(d.show("macs", &[]).iter().all(|m| m["mac"] != GATEWAY.to_string().as_str()));
    assert!(d.show("hosts", &[]).iter().all(|h| h["ip"] != "10.1.0.1" && h["ip"] != "10.2.0.1"));
    assert_eq!(counter(&d, "gateway_repairs"), 0);
    let told = frr.routes("type macip");
    assert!(!told.contains(&GATEWAY.to_string()), "{told}");
}

/// A guest on a cable that ends at either site. Its carrier never drops (PIT-21).
struct Mover {
    host: Host,
    /// Joins its cable with the port of a site.
    switch: Netns,
    at: usize,
}

impl Mover {
    fn new(f: &Fabric, n: u8, number: u8) -> Self {
        let switch = Netns::new("switch");
        switch.sh("echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6; echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6
                   ip link add s0 type bridge mcast_snooping 0 && ip link set s0 up");
        let ns = Netns::new("mover");
        let mac = test_mac(u16::from_be_bytes([n, number]));
        switch.sh(&format!(
            "ip link add g type veth peer name eth0 netns {} && ip link set g master s0 up",
            ns.name()
        ));
        for v in &f.vteps {
            let at = v.number - 1;
            v.ns.sh(&format!(
                "ip link add site type veth peer name m{at} netns {} && ip link set site up",
                switch.name()
            ));
            switch.sh(&format!("ip link set m{at} up"));
        }
        switch.sh("ip link set m0 master s0");
        ns.sh(&format!(
            "ip link set eth0 address {mac} mtu 1450 && ip link set eth0 up
             ip addr add 10.{n}.0.{number}/24 dev eth0 && ip addr add 2001:db8:{n}::{number}/64 dev eth0 nodad"
        ));
        default_routes(&ns, n);
        Self { host: Host { ns, mac }, switch, at: 0 }
    }

    /// To the other site; the hypervisor says so, and the guest does not.
    fn r#move(&mut self) {
        let (from, to) = (self.at, 1 - self.at);
        self.at = to;
        self.switch.sh(&format!("ip link set m{from} nomaster && ip link set m{to} master s0"));
        Wire::deaf(&self.switch, &format!("m{to}")).send(&frame::rarp(self.host.mac));
    }
}

/// Numbers that come back one after the other.
struct Talk {
    stream: TcpStream,
    next: u64,
}

impl Talk {
    fn begin(client: &Netns, server: &Netns, to: &str) -> Self {
        let listener = server.enter(|| TcpListener::bind(to).expect("the address is there"));
        std::thread::spawn(move || {
            let Ok((mut s, _)) = listener.accept() else { return };
            let mut number = [0; 8];
            while s.read_exact(&mut number).is_ok() && s.write_all(&number).is_ok() {}
        });
        let stream = client.enter(|| TcpStream::connect(to).expect("reachable"));
        stream.set_nodelay(true).expect("TCP");
        stream.set_read_timeout(Some(LATER)).expect("a socket");
        Self { stream, next: 0 }
    }

    fn go_on(&mut self, times: u64) {
        for _ in 0..times {
            let mut number = [0; 8];
            self.stream.write_all(&self.next.to_be_bytes()).expect("the connection lives");
            self.stream.read_exact(&mut number).expect("the connection lives");
            assert_eq!(u64::from_be_bytes(number), self.next);
            self.next += 1;
        }
    }
}

/// EVPN-IRB-10: hot moves there and back, with flows through the gateway; the guest asks for nothing at its new site.
#[test]
fn a_guest_that_moves_keeps_its_first_hop_and_its_flows() {
    if !met(&[Need::Root, Need::Tool("ping")]) {
        return;
    }
    let f = Fabric::new(2);
    let underlay = Wire::open(&f.spine, "u1");
    let mut mover = Mover::new(&f, 1, 9);
    let far = [guest(&f, 0, "b0", 2, 2), guest(&f, 1, "b1", 2, 3)];
    let [d0, d1] = start(&f, [[&["site"], &["b0"]], [&["site"], &["b1"]]], "");
    let mut talks = [
        Talk::begin(&mover.host.ns, &far[0].ns, "10.2.0.2:7000"),
        Talk::begin(&mover.host.ns, &far[1].ns, "10.2.0.3:7000"),
        Talk::begin(&mover.host.ns, &far[0].ns, "[2001:db8:2::2]:7000"),
        Talk::begin(&far[1].ns, &mover.host.ns, "[2001:db8:1::9]:7000"),
    ];
    for t in &mut talks {
        t.go_on(3);
    }
    for round in 0..4 {
        // The guest's own reachability checks are unicast and may come at any time; a question to all is one too many.
        let cable = Wire::open(&mover.switch, "g");
        mover.r#move();
        for t in &mut talks {
            t.go_on(10);
        }
        let here = mover.at;
        for (i, v) in f.vteps.iter().enumerate() {
            let place = if i == here { Place::port("site") } else { Place::vtep(&f.vteps[here]) };
            eventually(SOON, "the kernel agrees", || v.sends_to(100, mover.host.mac, &place));
        }
        while let Some((_, bytes)) = cable.poll() {
            let Ok(fr) = wire::parse(&bytes) else { continue };
            let asks = match fr.body {
                Body::Arp(a) => !a.reply && fr.dst == Mac::BROADCAST,
                Body::NeighborSolicitation(_) => fr.dst.is_multicast(),
                _ => false,
            };
            assert!(!(asks && fr.src == mover.host.mac), "round {round}: the guest asks: {fr:?}");
        }
        for ip in ["10.1.0.1", LINK_LOCAL] {
            assert_eq!(cached(&mover.host.ns, ip), Some(GATEWAY), "round {round}");
        }
    }
    nothing_of_the_gateway(&crossed(&underlay));
    for d in [&d0, &d1] {
        assert_eq!(counter(d, "gateway_repairs"), 0);
        assert_eq!(counter(d, "gateway_macs_seen"), 0);
    }
}

/// PIT-18 where nothing is flooded: the question is carried by unicast.
#[test]
fn a_silent_guest_is_found_where_nothing_is_flooded() {
    if !met(&[Need::Root, Need::Tool("ping")]) {
        return;
    }
    let f = Fabric::new(2);
    let hosts = [guest(&f, 0, "a0", 1, 2), guest(&f, 1, "b1", 2, 3)];
    let _d = start(&f, [[&["a0"], &[]], [&[], &["b1"]]], "flooding = \"none\"");
    hosts[0].ns.sh("ping -n -c 1 -W 3 10.2.0.3");
    hosts[0].ns.sh("ping -6 -n -c 1 -W 3 2001:db8:2::3");
}

/// `ra = true`: a guest with default settings has its address and its default route from the gateway.
#[test]
fn a_guest_configures_itself_by_the_gateways_advertisements() {
    if !met(&[Need::Root, Need::Tool("ping")]) {
        return;
    }
    let f = Fabric::new(2);
    let underlay = Wire::open(&f.spine, "u1");
    let far = guest(&f, 1, "b1", 2, 3);
    let mac = test_mac(0x0109);
    let host = f.host(0, "a0", mac, &[]);
    let _d = [0, 1].map(|i| {
        let mut conf = conf(&f, i, [[&["a0"][..], &[]], [&[], &["b1"]]][i], "");
        conf.sections = conf.sections.replace(" }", ", ra = true }");
        Vtepd::start(&f.vteps[i].ns, &conf)
    });
    eventually(LATER, "it has an address and a router", || {
        let has = host.ns.sh("ip -6 addr show dev eth0 scope global; ip -6 route show default");
        let all = ["2001:db8:1:", LINK_LOCAL, "proto ra"];
        if all.iter().all(|a| has.contains(a)) && !has.contains("tentative") { Ok(()) } else { Err(has) }
    });
    eventually(LATER, "it reaches another subnet", || host.try_ping("2001:db8:2::3"));
    far.ns.sh("ping -6 -n -c 1 -W 3 2001:db8:1::1");
    nothing_of_the_gateway(&crossed(&underlay));
}

/// EVPN-MOB-19: who claims the gateway's address is believed by nobody for long, here or elsewhere.
#[test]
fn a_guest_that_claims_the_gateways_address_is_refused_and_the_others_hear_the_truth() {
    if !met(&[Need::Root, Need::Tool("ping")]) {
        return;
    }
    let f = Fabric::new(2);
    let hosts = [guest(&f, 0, "a0", 1, 2), guest(&f, 1, "a1", 1, 3)];
    let [d0, d1] = start(&f, [[&["a0", "p1"], &[]], [&["a1"], &[]]], "");
    for h in &hosts {
        h.ns.sh("ping -n -c 1 -W 3 10.1.0.1");
    }
    let liar = test_mac(0x666);
    f.guest_mouth(0, "p1").send(&frame::garp(liar, "10.1.0.1".parse().expect("an address")));
    eventually(SOON, "counted", || match counter(&d0, "gateway_addresses_refused") {
        0 => Err("not yet"),
        _ => Ok(()),
    });
    for h in &hosts {
        eventually(SOON, "the gateway is the gateway", || same(cached(&h.ns, "10.1.0.1"), Some(GATEWAY)));
        h.ns.sh("ping -n -c 1 -W 3 10.1.0.1");
    }
    let told = d0.show("events", &[]);
    assert!(told.iter().any(|e| e.to_string().contains("address-refused")), "{told:#?}");
    assert_eq!(f.vteps[1].neigh_row(100, "10.1.0.1".parse().expect("an address")), serde_json::Value::Null);
    assert_eq!(counter(&d1, "gateway_addresses_refused"), 0);
}

/// What somebody takes from the bridge is back within a second (and counted), with the daemon's rows.
#[test]
fn an_address_that_somebody_takes_from_the_bridge_is_back_within_a_second() {
    if !met(&[Need::Root, Need::Tool("ping")]) {
        return;
    }
    let f = Fabric::new(2);
    let host = guest(&f, 0, "a0", 1, 2);
    let [d0, _d1] = start(&f, [[&["a0"], &[]], [&[], &[]]], "");
    host.ns.sh("ping -n -c 1 -W 3 10.1.0.1");
    let v = &f.vteps[0].ns;
    for take in [
        "ip addr del 10.1.0.1/24 dev br100",
        "ip addr flush dev br100",
        "ip link set br100 address 02:00:00:00:00:77",
    ] {
        v.sh(take);
        eventually(Duration::from_secs(1), take, || {
            let has = v.sh("ip -o addr show dev br100; ip -o link show dev br100");
            let all = ["10.1.0.1/24", "2001:db8:1::1/64", LINK_LOCAL, "00:00:5e:00:01:01"];
            if all.iter().all(|a| has.contains(a)) { Ok(()) } else { Err(has) }
        });
        host.ns.sh("ping -n -c 1 -W 3 10.1.0.1");
    }
    // `ip addr flush` goes on until it finds nothing, or gives up.
    eventually(SOON, "counted", || match counter(&d0, "gateway_repairs") {
        n if n >= 5 => Ok(()),
        n => Err(n),
    });
}
