//! What bridges and VXLAN devices do by themselves, and what vtepd makes of it (PIT-01, 02, 12).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};
use vtepd_tests::fabric::{Fabric, Guest, Place, Vtep, test_mac};
use vtepd_tests::frame;
use vtepd_tests::need::{Need, met};
use vtepd_tests::packet::Wire;
use vtepd_tests::poll::{LATER, SOON, eventually, same};
use vtepd_tests::speaker::{Attributes, Speaker, imet, mac_ip};
use vtepd_tests::vtepd::Vtepd;

/// Neighbour rows of PIT-01.
const ROWS: u16 = 10_000;

fn answers(v: &Vtep) -> usize {
    let all = v.ns.sh("ip -4 neigh show dev br100 nud noarp");
    all.lines().filter(|l| l.contains("extern_learn")).count()
}

fn all_answers(v: &Vtep) -> Result<(), usize> {
    let n = answers(v);
    if n == usize::from(ROWS) { Ok(()) } else { Err(n) }
}

fn row(n: u16) -> (evpn::types::Mac, Ipv4Addr) {
    let [a, b] = n.to_be_bytes();
    (test_mac(0x100 + n), Ipv4Addr::new(10, 77, a, b))
}

/// A speaker behind VTEP 2 that has announced [`ROWS`] hosts.
fn hosts(b: &Vtep) -> Speaker {
    let s = Speaker::accept(&b.ns, b.address, 65000);
    let at = Attributes::new(b.address, 100);
    s.announce(&at.clone().ingress_replication(100, b.address), &[imet(b.address)]);
    let all: Vec<_> = (0..ROWS).map(row).collect();
    for chunk in all.chunks(40) {
        let routes: Vec<_> = chunk
            .iter()
            .flat_map(|(m, ip)| [mac_ip(100, *m, None), mac_ip(100, *m, Some((*ip).into()))])
            .collect();
        s.announce(&at, &routes);
    }
    s.end_of_rib();
    s
}

/// PIT-01 on a bridge that follows its ports' MACs.
#[test]
fn ten_thousand_answers_come_back_after_a_new_bridge_mac_down_and_up_and_a_lost_carrier() {
    if !met(&[Need::Root]) {
        return;
    }
    let f = Fabric::new(2);
    let [a, b] = [&f.vteps[0], &f.vteps[1]];
    // Somebody else's bridge, whose MAC is that of its lowest port.
    a.ns.sh("ip link set p1 address 02:ff:00:00:00:01
             ip link add br100 type bridge mcast_snooping 0 && ip link set p1 master br100 && ip link set br100 up");
    let d = f.start_vtepd(0);
    let s = hosts(b);
    d.converge();
    eventually(LATER, "all addresses are answered", || all_answers(a));
    let mac = || a.ns.json("ip -j link show dev br100")[0]["address"].clone();
    let timed = |what: &str, act: &str| {
        let begun = Instant::now();
        a.ns.sh(act);
        eventually(LATER, what, || all_answers(a));
        println!(
            "PIT-01: {what}: {ROWS} rows back, seen {:.0} ms after",
            begun.elapsed().as_secs_f64() * 1e3
        );
    };
    let before = mac();
    timed(
        "a tap with a lower MAC joins",
        "ip link add low type veth peer name low-far && ip link set low address 02:00:00:00:00:fe up
         ip link set low-far up && ip link set low master br100",
    );
    assert_ne!(mac(), before, "the bridge took the lower MAC: that is what this test is about");
    timed("bridge down and up", "ip link set br100 down && ip link set br100 up");
    // The VXLAN port counts for the carrier as well; vtepd brings it up again.
    timed("the last port loses carrier", "ip link set low down; ip link set p1 down; ip link set vx100 down");
    timed("somebody sets another MAC", "ip link set br100 address 02:aa:aa:aa:aa:aa");
    a.ns.sh("ip link set p1 up");
    eventually(LATER, "and all is well after the port came back", || all_answers(a));
    eventually(SOON, "forwarding rows were never lost", || a.sends_to(100, row(7).0, &Place::vtep(b)));
    assert!(s.is_up(), "{:?}", s.notified());
    let floating = d.process.log();
    assert!(floating.contains("follows its ports"), "a floating MAC is reported:\n{floating}");
}

/// PIT-01 on a bridge of ours: its MAC is fixed, so nothing is lost in the first place.
#[test]
fn a_bridge_of_ours_keeps_its_mac_and_its_answers_when_a_port_with_a_lower_mac_joins() {
    if !met(&[Need::Root]) {
        return;
    }
    let f = Fabric::new(2);
    let [a, b] = [&f.vteps[0], &f.vteps[1]];
    let d = f.start_vtepd(0);
    let s = Speaker::accept(&b.ns, b.address, 65000);
    let g = Guest::new(5);
    s.announce(&Attributes::new(b.address, 100), &[mac_ip(100, g.mac, Some(g.ip.into()))]);
    s.end_of_rib();
    d.converge();
    eventually(SOON, "the address is answered", || {
        same(a.neigh_row(100, g.ip.into())["lladdr"].clone(), g.mac.to_string().into())
    });
    let link = || a.ns.json("ip -j link show dev br100")[0]["address"].clone();
    let before = link();
    let mut watch = a.ns.command("ip");
    let log = tempfile::NamedTempFile::new().expect("a scratch file");
    watch.args(["monitor", "neigh", "dev", "br100"]).stdout(log.reopen().expect("opened"));
    let mut watch = watch.spawn().expect("ip starts");
    // What the watcher has seen: a row of our own that is written until it shows up.
    let mark = |ip: &str| {
        eventually(SOON, "the watcher listens", || {
            a.ns.sh(&format!(
                "ip neigh replace {ip} lladdr 02:00:00:00:00:77 dev br100; ip neigh del {ip} dev br100"
            ));
            let text = std::fs::read_to_string(log.path()).expect("readable");
            if text.contains(ip) { Ok(()) } else { Err(text) }
        });
    };
    mark("10.99.0.1");
    a.ns.sh("ip link add low type veth peer name low-far && ip link set low address 00:00:00:00:00:fe up
             ip link set low-far up && ip link set low master br100");
    mark("10.99.0.2");
    let _ = watch.kill();
    let _ = watch.wait();
    let text = std::fs::read_to_string(log.path()).expect("readable");
    assert!(!text.contains(&g.ip.to_string()), "the row was never touched:\n{text}");
    assert_eq!(link(), before, "an explicit MAC does not follow the ports");
}

/// Octets 6 to 12 of a frame.
fn source(frame: &[u8]) -> Option<evpn::types::Mac> {
    evpn::types::Mac::from_slice(frame.get(6..12)?)
}

/// PIT-02: a VM cannot reach the VTEPs, cannot configure them, and hears nothing from them.
#[test]
fn a_vtep_is_no_host_in_the_tenants_network() {
    if !met(&[Need::Root, Need::Tool("ping")]) {
        return;
    }
    let f = Fabric::new(2);
    let [a, b] = [&f.vteps[0], &f.vteps[1]];
    let ears = [f.guest_port(0, "p1"), f.guest_port(1, "p1")];
    let mut conf = f.conf(0);
    let vm = f.host(0, "p2", test_mac(0x51), &["192.168.100.81/24", "fd00:100::51/64"]);
    conf.vnis = vec![(100, vec!["p1".into(), "p2".into()])];
    let daemons = [Vtepd::start(&a.ns, &conf), f.start_vtepd(1)];
    for d in &daemons {
        d.converge();
    }
    // What the ports' own ends said before they were ports is nobody's fault here.
    let early: Vec<Vec<u8>> =
        ears.iter().flat_map(|ear| std::iter::from_fn(|| ear.poll())).map(|(_, x)| x).collect();
    // A guest at the far end, so that traffic in the VNI flows while we listen.
    let g = Guest::new(5);
    f.guest_port(1, "p1").send(&g.garp());
    eventually(SOON, "the fabric works", || a.sends_to(100, g.mac, &Place::vtep(b)));

    // A router advertisement reaches every VTEP, and is nobody's default route.
    for _ in 0..3 {
        ears[0]
            .send(&frame::router_advertisement(test_mac(0x99), "2001:db8:bad::".parse().expect("address")));
    }
    ears[1]
        .find(SOON, |x| (source(x) == Some(test_mac(0x99)) && x[12..14] == [0x86, 0xdd]).then_some(()))
        .expect("the advertisement crossed the overlay");
    for v in [a, b] {
        let addresses = v.ns.sh("ip -6 addr show dev br100") + &v.ns.sh("ip -6 addr show dev vx100");
        assert!(addresses.trim().is_empty(), "no IPv6 address of the host's in the VNI: {addresses}");
        assert_eq!(v.ns.sh("ip -6 route show default").trim(), "", "no default route from a VM");
        assert!(!v.ns.sh("ip -6 addr").contains("2001:db8:bad"), "no address from a VM");
    }

    // ARP for the underlay addresses and for loopback: silence.
    for target in [a.address, b.address] {
        let IpAddr::V4(t) = target else { unreachable!("an IPv4 fabric") };
        for from in [Ipv4Addr::new(192, 168, 100, 81), Ipv4Addr::new(10, 0, 0, 200)] {
            ears[0].send(&frame::arp_request(test_mac(0x98), from, t));
        }
    }
    let said = ears[0].find(Duration::from_millis(500), frame::as_arp_reply);
    assert!(said.is_none(), "a VTEP answered a tenant's ARP: {said:?}");

    // Even with the bridge's own MAC in the VM's neighbour table: no ping, no BGP, no API.
    for v in [a, b] {
        let mac = v.ns.json("ip -j link show dev br100")[0]["address"].as_str().expect("a MAC").to_owned();
        let address = v.address;
        vm.ns.sh(&format!(
            "ip route replace {address} dev eth0; ip neigh replace {address} lladdr {mac} dev eth0
             ip -6 neigh replace fe80::1 lladdr {mac} dev eth0"
        ));
        assert!(vm.try_ping(&address.to_string()).is_err(), "VTEP {} answers a VM's ping", v.number);
        // `-L`: the VM does not hear itself.
        assert!(vm.try_ping("-L ff02::1%eth0").is_err(), "somebody answers on all-nodes");
        let connected = vm.ns.enter(|| {
            std::net::TcpStream::connect_timeout(&(address, 179).into(), Duration::from_millis(700)).is_ok()
        });
        assert!(!connected, "a VM reached BGP of VTEP {}", v.number);
    }

    // Nothing that the VMs heard was said by a device of the host.
    let mut devices = Vec::new();
    for v in [a, b] {
        for l in v.ns.json("ip -j link show").as_array().expect("a list") {
            let (name, mac) =
                (l["ifname"].as_str().unwrap_or_default(), l["address"].as_str().unwrap_or_default());
            devices.push((mac.to_owned(), name.to_owned(), v.number));
        }
    }
    let late = ears.iter().flat_map(|ear| std::iter::from_fn(|| ear.poll())).map(|(_, x)| (true, x));
    let mut own = Vec::new();
    for (late, x) in early.into_iter().map(|x| (false, x)).chain(late) {
        let Some(src) = source(&x).map(|m| m.to_string()) else { continue };
        let said_by = devices.iter().find(|(mac, name, _)| *mac == src && (late || !name.starts_with('p')));
        if let Some((_, name, number)) = said_by {
            own.push(format!("{name} of VTEP {number}: {:02x?}", &x[..x.len().min(70)]));
        }
    }
    assert!(own.is_empty(), "frames of the host's own in the VNI: {own:#?}");
}

/// PIT-12: what a created VXLAN device is like.
fn device_defaults(f: &Fabric) {
    let a = &f.vteps[0];
    let d = f.start_vtepd(0);
    eventually(SOON, "the VNI is ready", || same(d.show("vnis", &[])[0]["ready"].clone(), true.into()));
    let text = a.ns.sh("ip -d link show dev vx100");
    let link = a.ns.json("ip -d -j link show dev vx100");
    let data = &link[0]["linkinfo"]["info_data"];
    assert_eq!(
        (&data["port_range"]["low"], &data["port_range"]["high"]),
        (&49152.into(), &65535.into()),
        "{text}"
    );
    assert_eq!(data["udp_zero_csum6_rx"], true, "{text}");
    assert_eq!(data["learning"], false, "{text}");
    assert!(text.contains("df set"), "{text}");
    assert_eq!(data["port"], 4789, "{text}");
    assert_eq!(link[0]["ifalias"], "vtepd", "marked as ours: {text}");
}

#[test]
fn a_created_vxlan_device_has_proper_source_ports_checksum_and_df_settings_on_ipv4_and_ipv6() {
    if !met(&[Need::Root]) {
        return;
    }
    device_defaults(&Fabric::new(1));
    device_defaults(&Fabric::new_v6(1));
}

/// Sends a frame of VNI 100 in VXLAN from an address of the spine to `to`.
fn stranger(f: &Fabric, from: IpAddr, to: IpAddr, inner: &[u8]) {
    let socket = f.spine.enter(|| std::net::UdpSocket::bind((from, 0)).expect("bound"));
    let mut p = vec![8, 0, 0, 0, 0, 0, 100, 0];
    p.extend(inner);
    socket.send_to(&p, (to, 4789)).expect("sent");
}

/// PIT-12: VXLAN of strangers is dropped unless the knob says otherwise; that of known VTEPs is not.
fn source_filter(f: &Fabric, stranger_at: IpAddr, on: bool) {
    let a = &f.vteps[0];
    let bits = if stranger_at.is_ipv4() { "24" } else { "64 nodad" };
    f.spine.sh(&format!("ip addr add {stranger_at}/{bits} dev b0"));
    let mut conf = f.conf(0);
    if !on {
        conf.vtep_extra = "source-filter = false".into();
    }
    let (da, db) = (Vtepd::start(&a.ns, &conf), f.start_vtepd(1));
    da.converge();
    db.converge();
    let ear: Wire = f.guest_port(0, "p1");
    let mark = |x: &[u8]| (source(x) == Some(test_mac(0x66))).then_some(());
    let evil = frame::data(evpn::types::Mac::BROADCAST, test_mac(0x66), 1);
    eventually(SOON, "strangers are treated as the knob says", || {
        ear.drain();
        stranger(f, stranger_at, a.address, &evil);
        let seen = ear.find(Duration::from_millis(300), mark).is_some();
        same(seen, !on)
    });
    // A known VTEP is heard.
    f.guest_port(1, "p1").send(&frame::data(evpn::types::Mac::BROADCAST, test_mac(0x67), 1));
    ear.find(SOON, |x| (source(x) == Some(test_mac(0x67))).then_some(()))
        .expect("a known VTEP's frame arrives");
}

#[test]
fn vxlan_is_accepted_from_known_vteps_only_unless_switched_off() {
    if !met(&[Need::Root]) {
        return;
    }
    let four = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 99));
    source_filter(&Fabric::new(2), four, true);
    source_filter(&Fabric::new(2), four, false);
    let six = IpAddr::V6(Ipv6Addr::new(0xfd00, 0xf, 0, 0, 0, 0, 0, 0x99));
    source_filter(&Fabric::new_v6(2), six, true);
}
