//! Nothing is flooded, and a guest that starts at another site than its servers has all it needs, with real Linux hosts,
//! dnsmasq and dhclient; captures on the underlay say what crossed (PIT-19, PROXY-FLOOD-01, PROXY-FWD-01).

use evpn::types::Mac;
use serde_json::Value;
use std::net::IpAddr;
use std::time::{Duration, Instant};
use vtepd_tests::fabric::{Guest, Host, Place, test_mac};
use vtepd_tests::frame;
use vtepd_tests::mixed::Mixed;
use vtepd_tests::need::{Need, met, program};
use vtepd_tests::packet::Wire;
use vtepd_tests::poll::{LATER, SOON, eventually};
use vtepd_tests::proc::Proc;

const SERVER: &str = "192.168.100.63";

/// A guest behind a new port of a bridge.
fn host(m: &Mixed, i: usize, port: &str, n: u16, addresses: &[&str]) -> Host {
    let h = m.fabric.host(i, port, test_mac(n), addresses);
    m.vtep(i).ns.sh(&format!("ip link set {port} master br100"));
    h
}

fn count(m: &Mixed, i: usize, name: &str) -> u64 {
    m.vtepd(i).status()["counters"][name].as_u64().unwrap_or(0)
}

/// Inner frames of what has crossed since the last look.
fn crossed(wire: &Wire) -> Vec<Vec<u8>> {
    let vxlan = |f: &[u8]| {
        let udp = f.len() > 64 && f[12..14] == [8, 0] && f[23] == 17 && f[36..38] == [0x12, 0xb5];
        udp.then(|| f[50..].to_vec())
    };
    std::iter::from_fn(|| wire.poll()).filter_map(|(_, f)| vxlan(&f)).collect()
}

fn for_all(frames: &[Vec<u8>]) -> Vec<&Vec<u8>> {
    frames.iter().filter(|f| f[0] & 1 == 1).collect()
}

fn dnsmasq(server: &Host, dir: &std::path::Path) -> Proc {
    let path = |name: &str| dir.join(name).display().to_string();
    let args = [
        "--no-daemon".to_owned(),
        "--conf-file=/dev/null".into(),
        "--port=0".into(),
        "--interface=eth0".into(),
        "--user=root".into(),
        "--no-ping".into(),
        "--enable-ra".into(),
        "--dhcp-range=192.168.100.100,192.168.100.120,1h".into(),
        "--dhcp-range=2001:db8:100::,ra-only,64,1h".into(),
        format!("--dhcp-leasefile={}", path("leases")),
        format!("--pid-file={}", path("dnsmasq.pid")),
    ];
    Proc::start(&server.ns, &program("dnsmasq").expect("met"), &args, &dir.join("dnsmasq.log"))
}

/// dhclient, which puts the address on its interface.
fn dhclient(client: &Host, dir: &std::path::Path, n: u16) -> Proc {
    let path = |name: &str| dir.join(format!("{name}-{n}")).display().to_string();
    // Debian's own script would change the machine's resolver.
    let script =
        "#!/bin/sh\n[ \"$reason\" = BOUND ] && ip addr add $new_ip_address/24 dev $interface\nexit 0\n";
    std::fs::write(path("script"), script).expect("writable");
    std::fs::set_permissions(path("script"), std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .expect("ours");
    let args = ["-d", "-4", "-sf", &path("script"), "-lf", &path("lease"), "-pf", &path("pid"), "eth0"]
        .map(str::to_owned);
    let log = dir.join(format!("dhclient-{n}.log"));
    Proc::start(&client.ns, &program("dhclient").expect("met"), &args, &log)
}

/// Addresses of a guest that it has not made up itself.
fn addresses(h: &Host, family: &str) -> Vec<String> {
    let all = h.ns.json(&format!("ip -j {family} addr show dev eth0 scope global"));
    let of = |a: &Value| a["local"].as_str().map(str::to_owned);
    all[0]["addr_info"].as_array().into_iter().flatten().filter_map(of).collect()
}

#[test]
fn a_guest_that_starts_at_another_site_gets_a_lease_and_an_ipv6_address_with_no_frame_for_all_on_the_underlay()
 {
    let dnsmasq_needed = Need::Package { program: "dnsmasq", package: "dnsmasq-base" };
    let dhclient_needed = Need::Package { program: "dhclient", package: "isc-dhcp-client" };
    if !met(&[Need::Root, dnsmasq_needed, dhclient_needed]) {
        return;
    }
    let m = Mixed::two_vtepds(&format!("flooding = \"none\"\ndhcp-servers = [\"{SERVER}\"]"));
    let underlay = Wire::open(&m.fabric.spine, "u2");
    // The server says nothing by itself: its VTEP asks for it.
    let server = host(&m, 0, "h1", 0x63, &[&format!("{SERVER}/24"), "2001:db8:100::63/64"]);
    server.ns.sh("echo 1 > /proc/sys/net/ipv6/conf/all/forwarding");
    let dir = tempfile::tempdir().expect("a scratch directory");
    let _dnsmasq = dnsmasq(&server, dir.path());
    let at: IpAddr = SERVER.parse().expect("an address");
    eventually(Duration::from_secs(30), "the server is known at the other site", || {
        let row = m.vtep(1).neigh_row(100, at);
        if row["lladdr"] == server.mac.to_string().as_str() { Ok(()) } else { Err(row) }
    });
    eventually(Duration::from_secs(30), "so is the router", || {
        let rows = m.vtep(1).ns.json("ip -j -6 neigh show dev br100 nud all");
        let router = |r: &Value| r["lladdr"] == server.mac.to_string().as_str() && r.get("router").is_some();
        if rows.as_array().is_some_and(|a| a.iter().any(router)) { Ok(()) } else { Err(rows) }
    });
    crossed(&underlay);
    // A cold boot at the other site: a MAC that nobody has heard of.
    let begun = Instant::now();
    let client = host(&m, 1, "h2", 0x64, &[]);
    let dhclient = dhclient(&client, dir.path(), 1);
    let four =
        eventually(Duration::from_secs(40), "it has a lease", || match addresses(&client, "-4").pop() {
            Some(a) => Ok(a),
            None => Err(dhclient.log()),
        });
    println!("a lease after {:?}", begun.elapsed());
    let six = eventually(Duration::from_secs(40), "it has an IPv6 address", || {
        match addresses(&client, "-6").pop() {
            Some(a) => Ok(a),
            None => Err([count(&m, 1, "carried_solicitations"), count(&m, 0, "carried_advertisements")]),
        }
    });
    println!("an IPv6 address after {:?}", begun.elapsed());
    assert!(four.starts_with("192.168.100.1") && six.starts_with("2001:db8:100:"), "{four} {six}");
    let route = client.ns.sh("ip -6 route show default");
    assert!(route.contains("via fe80::"), "the router: {route}");
    // Both ways, IPv4 and IPv6. The server has never spoken with its IPv6 address, so that nobody could find it before it does.
    for peer in [four, six] {
        eventually(LATER, "it is reached", || server.try_ping(&peer));
    }
    for peer in [SERVER, "2001:db8:100::63"] {
        eventually(LATER, "it reaches the server", || client.try_ping(peer));
    }
    let frames = crossed(&underlay);
    assert!(frames.len() > 10, "the capture sees what crosses");
    assert_eq!(for_all(&frames), Vec::<&Vec<u8>>::new(), "a frame for all crossed");
    // What the server says to a client that its bridge knows by then goes by itself, router advertisements too.
    assert!(count(&m, 1, "carried_dhcp") >= 2 && count(&m, 1, "carried_solicitations") >= 1);
}

#[test]
fn nothing_for_all_and_nothing_unknown_crosses_and_what_is_known_works() {
    if !met(&[Need::Root]) {
        return;
    }
    let m = Mixed::two_vtepds("flooding = \"none\"");
    let [here, there] = [10, 11].map(Guest::new);
    let (near, far) = (m.guest(0), m.guest(1));
    near.send(&here.garp());
    far.send(&there.garp());
    eventually(SOON, "both are known", || {
        m.vtep(0).sends_to(100, there.mac, &Place::vtep(m.vtep(1)))?;
        m.vtep(1).sends_to(100, here.mac, &Place::vtep(m.vtep(0)))
    });
    assert_eq!(m.vtep(0).flood_list(100), [""; 0]);
    let underlay = Wire::open(&m.fabric.spine, "u2");
    let known = frame::data(there.mac, here.mac, 7);
    for n in 0..20 {
        near.send(&frame::data(Mac::BROADCAST, here.mac, n));
        near.send(&frame::data(Mac([1, 0, 0x5e, 0, 0, 5]), here.mac, n));
        near.send(&frame::data(test_mac(0x99), here.mac, n));
        near.send(&frame::arp_request(here.mac, here.ip, Guest::new(77).ip));
        near.send(&here.garp());
    }
    near.send(&known);
    far.find(SOON, |f| (f == known).then_some(())).expect("known unicast arrives");
    let frames = crossed(&underlay);
    assert!(frames.contains(&known));
    assert_eq!(frames.iter().filter(|f| **f != known).count(), 0, "{frames:?}");
    eventually(LATER, "what was not replicated is counted", || {
        match count(&m, 0, "frames_dropped_flooded") {
            n @ 0..60 => Err(n),
            _ => Ok(()),
        }
    });
    assert!(count(&m, 0, "questions_dropped") >= 20);
}

#[test]
fn questions_alone_stay_at_home_where_they_are_to_go_to_owners_only() {
    if !met(&[Need::Root]) {
        return;
    }
    let m = Mixed::two_vtepds("unknown-targets = \"unicast\"\narp-suppression = false");
    let [here, there] = [10, 11].map(Guest::new);
    let (near, far) = (m.guest(0), m.guest(1));
    near.send(&here.garp());
    far.send(&there.garp());
    eventually(SOON, "both are known", || m.vtep(0).sends_to(100, there.mac, &Place::vtep(m.vtep(1))));
    let marked = frame::data(Mac::BROADCAST, here.mac, 7);
    eventually(SOON, "other broadcast crosses", || {
        near.send(&marked);
        far.find(Duration::from_millis(200), |f| (f == marked).then_some(())).ok_or("not there")
    });
    let underlay = Wire::open(&m.fabric.spine, "u2");
    near.send(&frame::arp_request(here.mac, here.ip, Guest::new(77).ip));
    let ask = frame::arp_request(here.mac, here.ip, there.ip);
    near.send(&ask);
    // It comes to the owner, by itself.
    let mine = |f: &[u8]| (f[..6] == there.mac.0 && f[6..42] == ask[6..42]).then_some(());
    far.find(SOON, mine).expect("the question comes to the owner");
    let frames = crossed(&underlay);
    assert_eq!(for_all(&frames), Vec::<&Vec<u8>>::new());
    assert_eq!(frames.iter().filter(|f| f[12..14] == [8, 6]).count(), 1, "{frames:?}");
}

#[test]
fn unknown_unicast_goes_out_of_no_port_where_it_is_off() {
    if !met(&[Need::Root]) {
        return;
    }
    let m = Mixed::two_vtepds("unknown-unicast = false");
    let flags =
        |dev: &str| m.vtep(0).ns.json(&format!("bridge -d -j link show dev {dev}"))[0]["flood"].clone();
    eventually(SOON, "the flags are off", || {
        if flags("p1") == false && flags("vx100") == false {
            Ok(())
        } else {
            Err((flags("p1"), flags("vx100")))
        }
    });
    let here = Guest::new(10);
    let (near, far) = (m.guest(0), m.guest(1));
    near.send(&here.garp());
    let marked = frame::data(Mac::BROADCAST, here.mac, 7);
    eventually(SOON, "broadcast crosses", || {
        near.send(&marked);
        far.find(Duration::from_millis(200), |f| (f == marked).then_some(())).ok_or("not there")
    });
    let underlay = Wire::open(&m.fabric.spine, "u2");
    near.send(&frame::data(test_mac(0x99), here.mac, 8));
    near.send(&frame::data(Mac::BROADCAST, here.mac, 9));
    far.find(SOON, |f| (frame::as_data(f, Mac::BROADCAST) == Some(9)).then_some(())).expect("the last one");
    assert!(!crossed(&underlay).iter().any(|f| f[..6] == test_mac(0x99).0), "unknown unicast crossed");
}
