//! Two daemons in two namespaces with a wire between them: sessions, convergence, forwarding, moves.

mod net;

use net::{Daemon, Ns, Setup, eventually, wire};
use serde_json::Value;

/// A host with one VTEP and a guest behind port `p1`.
struct Site {
    host: Ns,
    guest: Ns,
    setup: Setup,
    vtep: String,
}

/// Site `n` of 2; `v6`: IPv6 underlay; `more`: further sections of the configuration.
fn site(n: u8, v6: bool, more: &str) -> Site {
    let (host, guest) = (Ns::new(&format!("host{n}")), Ns::new(&format!("guest{n}")));
    let other = 3 - n;
    let address = |n: u8| if v6 { format!("2001:db8::{n}") } else { format!("10.255.0.{n}") };
    wire(&host, "p1", &guest, "eth0");
    guest.ip(&format!("link set eth0 address 02:00:00:00:00:0{n}"));
    guest.ip(&format!("addr add 192.0.2.{n}/24 dev eth0"));
    let vtep = address(n);
    let head = format!("address = \"{vtep}\"\nasn = 65000\nrouter-id = \"192.0.2.{n}\"");
    let rest = format!(
        "[[neighbor]]\naddress = \"{}\"\nasn = 65000\nconnect-retry = \"500ms\"\n\
         [[vni]]\nvni = 100\nports = [\"p1\"]\nmtu = 1400\n{more}",
        address(other)
    );
    Site { host, guest, setup: Setup::new(&head, &rest), vtep }
}

/// Both sites, wired, underlay addresses set.
fn both(v6: bool) -> (Site, Site) {
    both_with(v6, "")
}

/// As [`both`], with further sections for the first.
fn both_with(v6: bool, more: &str) -> (Site, Site) {
    let (a, b) = (site(1, v6, more), site(2, v6, ""));
    wire(&a.host, "under", &b.host, "under");
    for s in [&a, &b] {
        let (prefix, extra) = if v6 { (64, "nodad") } else { (24, "") };
        s.host.ip(&format!("addr add {}/{prefix} dev under {extra}", s.vtep));
    }
    (a, b)
}

fn established(d: &Daemon) {
    d.until("neighbors", "the session is up and complete", |rows| {
        rows.len() == 1 && rows[0]["state"] == "Established" && rows[0]["end_of_rib"] == true
    });
}

fn mac_at(rows: &[Value], mac: &str, kind: &str, place: &str) -> bool {
    rows.iter().any(|r| r["mac"] == mac && r["place"][kind] == place)
}

fn ping(from: &Site, to: &str) -> bool {
    from.guest.command("ping").args(["-c", "1", "-W", "1", to]).output().is_ok_and(|o| o.status.success())
}

fn two_daemons_carry_frames(v6: bool) {
    let (a, b) = both(v6);
    let (da, db) = (a.setup.start(&a.host), b.setup.start(&b.host));
    established(&da);
    established(&db);
    let (ma, mb) = ("02:00:00:00:00:01", "02:00:00:00:00:02");
    // The guests say something, so that they are known.
    eventually("the guests reach each other", || {
        if ping(&a, "192.0.2.2") { Ok(()) } else { Err(a.host.fdb("vx100")) }
    });
    da.until("macs", "A has B's guest behind B", |r| {
        mac_at(r, mb, "vtep", &b.vtep) && mac_at(r, ma, "port", "p1")
    });
    db.until("macs", "B has A's guest behind A", |r| {
        mac_at(r, ma, "vtep", &a.vtep) && mac_at(r, mb, "port", "p1")
    });
    // Both rows of a remote MAC, and the neighbour row that answers ARP.
    for d in [&da, &db] {
        d.until("kernel", "the kernel has every wanted row", |rows| {
            let kinds = |k: &str| rows.iter().any(|r| r["kind"] == k);
            kinds("mac") && kinds("flood") && rows.iter().all(|r| r["has"] == r["want"])
        });
    }
    assert!(a.host.fdb("vx100").contains(&format!("{mb} dst {}", b.vtep)), "{}", a.host.fdb("vx100"));
    assert!(da.show_text("kernel").contains(" ok"), "{}", da.show_text("kernel"));
    // B stops, and may come back: A keeps its routes and rows, stale; what B wrote stays (RFC 4724).
    let (status, took) = db.stop();
    assert_eq!(status.code(), Some(0));
    assert!(took < std::time::Duration::from_secs(2), "{took:?}");
    da.until("neighbors", "A has noticed", |r| r[0]["state"] != "Established" && r[0]["routes_stale"] != 0);
    da.until("macs", "A still has B's guest", |r| mac_at(r, mb, "vtep", &b.vtep));
    assert!(a.host.fdb("vx100").contains(&format!("{mb} dst {}", b.vtep)), "{}", a.host.fdb("vx100"));
    assert!(b.host.fdb("vx100").contains(ma), "forwarding goes on: {}", b.host.fdb("vx100"));
    // B comes back and takes up its rows.
    let db = b.setup.start(&b.host);
    established(&db);
    db.until("macs", "B has A's guest again", |r| mac_at(r, ma, "vtep", &a.vtep));
    da.until("macs", "A has B's guest again", |r| mac_at(r, mb, "vtep", &b.vtep));
}

#[test]
fn two_daemons_carry_frames_over_an_ipv4_underlay() {
    needs_namespaces!();
    two_daemons_carry_frames(false);
}

#[test]
fn two_daemons_carry_frames_over_an_ipv6_underlay() {
    needs_namespaces!();
    two_daemons_carry_frames(true);
}

#[test]
fn a_killed_peer_is_noticed_and_another_peer_is_not_harmed() {
    needs_namespaces!();
    let (a, b) = both(false);
    let (da, db) = (a.setup.start(&a.host), b.setup.start(&b.host));
    established(&da);
    drop(db); // SIGKILL: the kernel closes its sockets
    da.until("neighbors", "the session is down and says why", |rows| {
        rows[0]["state"] != "Established" && rows[0]["last_error"].is_string()
    });
    let db = b.setup.start(&b.host);
    established(&da);
    established(&db);
}

#[test]
fn a_guest_that_appears_at_the_other_site_has_moved_with_its_address() {
    needs_namespaces!();
    let (a, b) = both(false);
    let (da, db) = (a.setup.start(&a.host), b.setup.start(&b.host));
    established(&da);
    established(&db);
    let mac = "02:00:00:00:00:01";
    eventually("the guests reach each other", || {
        if ping(&a, "192.0.2.2") { Ok(()) } else { Err("no answer".into()) }
    });
    db.until("hosts", "B knows A's guest by address", |rows| {
        rows.iter().any(|r| r["ip"] == "192.0.2.1" && r["place"]["vtep"] == a.vtep.as_str())
    });
    // The guest goes silent at A, without a loss of carrier, and speaks at B: same MAC, same address.
    a.guest.set("net/ipv6/conf/eth0/disable_ipv6", "1");
    a.guest.ip("addr flush dev eth0");
    a.guest.ip("link set eth0 arp off");
    b.guest.ip("link set eth0 down");
    b.guest.ip(&format!("link set eth0 address {mac}"));
    b.guest.ip("addr flush dev eth0");
    b.guest.ip("addr add 192.0.2.1/24 dev eth0");
    b.guest.ip("link set eth0 up");
    db.until("macs", "B owns the MAC with a higher sequence", |rows| {
        rows.iter().any(|r| r["mac"] == mac && r["place"]["port"] == "p1" && r["seq"].as_u64() > Some(0))
    });
    da.until("macs", "A sees it behind B", |rows| mac_at(rows, mac, "vtep", &b.vtep));
    for (d, role) in [(&db, "arrived"), (&da, "left")] {
        d.until("moves", role, |rows| rows.iter().any(|r| r["mac"] == mac && r["role"] == role));
    }
    eventually("A's kernel sends to B", || {
        let rows = a.host.fdb("vx100");
        if rows.contains(&format!("{mac} dst {}", b.vtep)) { Ok(()) } else { Err(rows) }
    });
    assert!(da.show_text("moves").contains("left"), "{}", da.show_text("moves"));
}

#[test]
fn an_underlay_that_is_too_small_is_named_in_show_vnis_while_it_is() {
    needs_namespaces!();
    // PIT-11: 1400 in the VNI needs 1450 underneath.
    let (a, b) = both(false);
    let (da, db) = (a.setup.start(&a.host), b.setup.start(&b.host));
    established(&da);
    established(&db);
    let named = |rows: &[Value]| rows[0]["problems"].to_string().contains("path MTU to 10.255.0.2 is 1440");
    da.until("vnis", "no problem yet", |rows| rows[0]["ready"] == true && !named(rows));
    a.host.ip("link set under mtu 1440");
    da.until("vnis", "the small path is named", named);
    a.host.ip("link set under mtu 1500");
    da.until("vnis", "it is not named any more", |rows| !named(rows));
}

/// A VXLAN packet for VNI 100 with a broadcast frame from `mac`, sent from `source` to `to`.
fn inject(host: &Ns, source: &str, to: &str, mac: [u8; 6]) {
    let mut packet = vec![0x08, 0, 0, 0, 0, 0, 100, 0];
    packet.extend([0xff; 6]);
    packet.extend(mac);
    packet.extend([0x88, 0xb5]); // local experimental EtherType
    packet.extend([0; 46]);
    let (source, to) = (format!("{source}:0"), format!("{to}:4789"));
    let sent = netlink::linux::netns::in_named(&host.name, move || {
        std::net::UdpSocket::bind(source).and_then(|s| s.send_to(&packet, to))
    });
    sent.expect("namespace").expect("sent");
}

#[test]
fn vxlan_from_a_stranger_reaches_no_guest() {
    needs_namespaces!();
    // PIT-12. The stranger's packet is sent first: when the known VTEP's arrives, it would have, too.
    let (a, b) = both(false);
    b.host.ip("addr add 10.255.0.9/24 dev under");
    let (da, db) = (a.setup.start(&a.host), b.setup.start(&b.host));
    established(&da);
    established(&db);
    let (stranger, known) = ([2, 0, 0, 0, 0, 0x99], [2, 0, 0, 0, 0, 0x98]);
    let tap = netlink::linux::netns::in_named(&a.guest.name, || {
        let any =
            rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::DGRAM, None)?;
        let index = rustix::net::netdevice::name_to_index(&any, "eth0")?;
        netlink::linux::Tap::open_all(evpn::types::IfIndex(index))
    });
    let mut tap = tap.expect("namespace").expect("tap");
    eventually("only the known VTEP's frame arrives", || {
        let mut buf = [0; 2048];
        while tap.recv(&mut buf).map_err(|e| e.to_string())?.is_some() {}
        inject(&b.host, "10.255.0.9", "10.255.0.1", stranger);
        inject(&b.host, "10.255.0.2", "10.255.0.1", known);
        let end = std::time::Instant::now() + std::time::Duration::from_secs(1);
        let mut seen = Vec::new();
        while std::time::Instant::now() < end {
            match tap.recv(&mut buf).map_err(|e| e.to_string())? {
                Some(n) if n > 12 => seen.push(buf[11]),
                Some(_) => {}
                None if seen.contains(&0x98) => break,
                None => std::thread::yield_now(),
            }
        }
        let arrived = |last: u8| seen.contains(&last);
        if arrived(0x98) && !arrived(0x99) { Ok(()) } else { Err(format!("{seen:02x?}\n{}", da.log())) }
    });
}

#[test]
fn a_peer_that_sends_rubbish_is_told_so_and_another_peer_is_not_affected() {
    needs_namespaces!();
    let rude = "[[neighbor]]\naddress = \"10.255.0.9\"\nasn = 65000\npassive = true";
    let (a, b) = both_with(false, rude);
    b.host.ip("addr add 10.255.0.9/24 dev under");
    let (da, db) = (a.setup.start(&a.host), b.setup.start(&b.host));
    established(&db);
    let header = |len: u16, kind: u8| {
        let mut m = vec![0xff; 16];
        m.extend(len.to_be_bytes());
        m.push(kind);
        m
    };
    // Marker, length and type that are none, and then simply a lot of octets (RFC 4271 §6.1).
    for (rubbish, code) in [
        (vec![0; 19], [3, 1, 1]),
        (header(18, 4), [3, 1, 2]),
        (header(19, 77), [3, 1, 3]),
        (b"GET / HTTP/1.1\r\nhost: bgp\r\n\r\n".repeat(5000), [3, 1, 1]),
    ] {
        let shown = format!("{:02x?}", &rubbish[..rubbish.len().min(24)]);
        // Damping may have the neighbour rest for a moment after each fault; it is asked again then.
        eventually("the fault is named in a NOTIFICATION", || {
            let bytes = rubbish.clone();
            let said = netlink::linux::netns::in_named(&b.host.name, move || {
                say("10.255.0.9", "10.255.0.1", &bytes)
            });
            let said = said.expect("namespace");
            if said.windows(3).any(|w| w == code) { Ok(()) } else { Err(format!("{said:02x?} to {shown}")) }
        });
    }
    da.until("neighbors", "the other session never broke", |rows| {
        rows.iter().any(|r| {
            r["address"] == "10.255.0.2" && r["state"] == "Established" && r["established_count"] == 1
        })
    });
}

/// Connects from `source` and says `bytes`; everything that comes back until the end.
fn say(source: &str, to: &str, bytes: &[u8]) -> Vec<u8> {
    use std::io::{Read as _, Write as _};
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("socket");
    let address = |ip: &str, port: u16| std::net::SocketAddr::new(ip.parse().expect("address"), port);
    socket.bind(&address(source, 0).into()).expect("bound");
    if socket.connect(&address(to, 179).into()).is_err() {
        return Vec::new();
    }
    let mut stream = std::net::TcpStream::from(socket);
    stream.set_read_timeout(Some(std::time::Duration::from_secs(5))).expect("set");
    let _ = stream.write_all(bytes);
    let mut all = Vec::new();
    let _ = stream.read_to_end(&mut all);
    all
}
