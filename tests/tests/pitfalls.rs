//! What the kernel does behind one's back, with the whole daemon (docs/pitfalls.md, lines marked A). What is a fact of
//! the kernel alone is in netlink's contract suite; docs/testing.md says which test covers which line.

use evpn::types::Mac;
use rustix::process::Signal;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;
use vtepd_tests::fabric::{Fabric, Guest, Place, Vtep, test_mac};
use vtepd_tests::frame;
use vtepd_tests::need::{Need, met};
use vtepd_tests::packet::{RowWriter, Wire, now};
use vtepd_tests::poll::{LATER, SOON, eventually, same, throughout};
use vtepd_tests::speaker::{Attributes, Speaker, mac_ip};
use vtepd_tests::vtepd::Vtepd;

fn neighbours(v: &Vtep) -> usize {
    v.ns.sh("ip neigh show dev br100 nud noarp | wc -l").trim().parse().unwrap_or(0)
}

/// PIT-01: whatever flushes the bridge's neighbour table, the rows come back.
#[test]
fn pit_01_flushed_neighbour_rows_come_back() {
    const HOSTS: usize = 10_000;
    if !met(&[Need::Root]) {
        return;
    }
    let f = Fabric::new(2);
    let [a, b] = [&f.vteps[0], &f.vteps[1]];
    let v = f.start_vtepd(0);
    let s = Speaker::accept(&b.ns, b.address, 65000);
    s.end_of_rib();
    let at = Attributes::new(b.address, 100);
    for chunk in (0..HOSTS).collect::<Vec<_>>().chunks(80) {
        let nlri: Vec<_> = chunk
            .iter()
            .map(|n| mac_ip(100, test_mac(*n as u16), Some(Ipv4Addr::from(0x0a64_0000 + *n as u32).into())))
            .collect();
        s.announce(&at, &nlri);
    }
    let all = |what: &str| {
        let begun = now();
        eventually(LATER, what, || same(neighbours(a), HOSTS));
        println!("{what}: {:?}", Duration::from_nanos(now() - begun));
    };
    all("rows at first");
    let mac = |a: &Vtep| a.ns.sh("cat /sys/class/net/br100/address");
    let before = mac(a);
    // A tap with the lowest MAC there can be joins: the bridge keeps its own.
    a.ns.sh("ip link add tap0 address 02:00:00:00:00:00 type veth peer name tap1
         ip link set tap1 up && ip link set tap0 master br100 up");
    assert_eq!(mac(a), before, "a port changed the bridge's MAC");
    all("a tap with a lower MAC joined");
    a.ns.sh("ip link set br100 down && ip link set br100 up");
    all("the bridge was down");
    f.guests.sh("ip link set x1p1 down");
    a.ns.sh("ip link set tap1 down");
    f.guests.sh("ip link set x1p1 up");
    all("the last access port lost its carrier");
    // Even when somebody sets another MAC.
    a.ns.sh("ip link set br100 address 02:aa:aa:aa:aa:aa");
    all("somebody changed the bridge's MAC");
    assert!(s.is_up(), "{:?}", v.status());
}

/// PIT-02: for a tenant the hypervisor is not there.
#[test]
fn pit_02_the_bridge_is_no_host_in_the_tenants_network() {
    if !met(&[Need::Root]) {
        return;
    }
    let f = Fabric::new(2);
    let [a, b] = [&f.vteps[0], &f.vteps[1]];
    // Everything the guests ever see, from before the devices exist.
    let ears = [f.guest_port(0, "p1"), f.guest_port(1, "p1")];
    let v = [f.start_vtepd(0), f.start_vtepd(1)];
    v[0].converge();
    v[1].converge();
    let g = Guest::new(66);
    ears[0].send(&frame::router_advertisement(g.mac, "fd00:bad::".parse().expect("a prefix")));
    ears[0].send(&frame::arp_request(g.mac, g.ip, Ipv4Addr::new(10, 0, 0, 1)));
    ears[0].send(&frame::arp_request(g.mac, g.ip, Ipv4Addr::new(10, 0, 0, 2)));
    // A frame that the other side must see: when it is there, what was sent before it has been handled.
    eventually(SOON, "the marker crosses", || {
        ears[0].send(&frame::data(Mac::BROADCAST, g.mac, 1));
        ears[1].find(Duration::from_millis(100), |f| frame::as_data(f, Mac::BROADCAST)).ok_or("not yet")
    });
    for v in [a, b] {
        let addresses = v.ns.sh("ip -o addr show dev br100");
        assert!(addresses.trim().is_empty(), "the bridge has addresses: {addresses}");
        assert!(!v.ns.sh("ip -6 route show default").contains("br100"), "a tenant's router became ours");
    }
    let bridges = [a, b].map(|v| v.ns.sh("cat /sys/class/net/br100/address").trim().to_owned());
    for ear in &ears {
        while let Some((_, f)) = ear.poll() {
            let from = Mac::from_slice(&f[6..12]).expect("six octets").to_string();
            assert!(!bridges.contains(&from), "the bridge {from} speaks to tenants: {f:02x?}");
            let claims = frame::as_arp_reply(&f).filter(|(_, ip)| ip.octets()[..3] == [10, 0, 0]);
            assert!(claims.is_none(), "ARP gives the underlay away: {claims:?}");
        }
    }
    // BGP is not reachable from inside either.
    let h = f.host(0, "h1", test_mac(67), &["10.0.0.67/24"]);
    a.ns.sh("ip link set h1 master br100");
    let reached = h.ns.enter(|| {
        TcpStream::connect_timeout(&(Ipv4Addr::new(10, 0, 0, 1), 179).into(), Duration::from_secs(2)).is_ok()
    });
    assert!(!reached, "a guest reached BGP");
}

/// PIT-03: local senders follow the moved VM at once; no port is ever in hairpin mode.
#[test]
fn pit_03_local_senders_follow_a_vm_that_left() {
    if !met(&[Need::Root]) {
        return;
    }
    let f = Fabric::new(2);
    let [a, b] = [&f.vteps[0], &f.vteps[1]];
    a.add_port(&f.guests, "p2");
    let mut conf = f.conf(0);
    conf.vnis = vec![(100, vec!["p1".into(), "p2".into()])];
    let v = [Vtepd::start(&a.ns, &conf), f.start_vtepd(1)];
    v[0].converge();
    v[1].converge();
    let (vm, friend) = (Guest::new(31), Guest::new(32));
    let (old, new, sender) = (f.guest_port(0, "p1"), f.guest_port(1, "p1"), f.guest_port(0, "p2"));
    old.send(&vm.rarp());
    sender.send(&friend.rarp());
    eventually(SOON, "B knows the VM at A", || b.sends_to(100, vm.mac, &Place::vtep(a)));
    new.send(&vm.rarp());
    eventually(SOON, "A turns", || a.sends_to(100, vm.mac, &Place::vtep(b)));
    new.drain();
    sender.send(&frame::data(vm.mac, friend.mac, 7));
    let got = new.find(SOON, |f| frame::as_data(f, vm.mac));
    assert_eq!(got.map(|(_, n)| n), Some(7), "the first frame after the row must arrive");
    for v in [a, b] {
        let ports = v.ns.sh("bridge -d link show");
        assert!(!ports.contains("hairpin on"), "{ports}");
    }
}

/// PIT-04: twenty late frames from the source are no claim; a VM that is really back is believed.
#[test]
fn pit_04_late_frames_do_not_take_the_mac_back() {
    if !met(&[Need::Root]) {
        return;
    }
    let f = Fabric::new(2);
    let [a, b] = [&f.vteps[0], &f.vteps[1]];
    let v = [f.start_vtepd(0), f.start_vtepd(1)];
    v[0].converge();
    v[1].converge();
    let vm = Guest::new(33);
    let (old, new) = (f.guest_port(0, "p1"), f.guest_port(1, "p1"));
    old.send(&vm.garp());
    eventually(SOON, "B knows the VM at A", || b.sends_to(100, vm.mac, &Place::vtep(a)));
    new.send(&vm.rarp());
    eventually(SOON, "A turns", || a.sends_to(100, vm.mac, &Place::vtep(b)));
    let mut last = 0;
    for n in 0..20 {
        last = old.send(&frame::data(Guest::new(34).mac, vm.mac, n));
        std::thread::sleep(Duration::from_millis(5));
    }
    eventually(SOON, "A's row is remote again", || a.sends_to(100, vm.mac, &Place::vtep(b)));
    println!("remote again at most {:?} after the last late frame", Duration::from_nanos(now() - last));
    for w in &v {
        assert_eq!(w.mac(&vm.mac.to_string())["seq"], 1, "the sequence must not change");
    }
    assert_eq!(b.place(100, vm.mac), Place::port("p1"));
    let late = v[0].status()["counters"]["late_frames"].as_u64().unwrap_or(0);
    assert!(late > 0, "{}", v[0].status());
    // It announces itself at the old place: now it is back, guard time or not.
    old.send(&vm.rarp());
    eventually(SOON, "A has it", || a.sends_to(100, vm.mac, &Place::port("p1")));
    eventually(SOON, "B follows", || b.sends_to(100, vm.mac, &Place::vtep(a)));
    assert_eq!(v[1].mac(&vm.mac.to_string())["seq"], 2);
}

/// PIT-04: frames that still come after the guard time make it a claim, even without an announcement.
#[test]
fn pit_04_frames_after_the_guard_time_are_a_claim() {
    if !met(&[Need::Root]) {
        return;
    }
    let f = Fabric::new(2);
    let [a, b] = [&f.vteps[0], &f.vteps[1]];
    let v = [f.start_vtepd(0), f.start_vtepd(1)];
    v[0].converge();
    v[1].converge();
    let vm = Guest::new(35);
    let (old, new) = (f.guest_port(0, "p1"), f.guest_port(1, "p1"));
    old.send(&vm.rarp());
    eventually(SOON, "B knows the VM at A", || b.sends_to(100, vm.mac, &Place::vtep(a)));
    let moved = new.send(&vm.rarp());
    eventually(SOON, "A turns", || a.sends_to(100, vm.mac, &Place::vtep(b)));
    eventually(SOON, "a VM that keeps speaking at A is believed", || {
        old.send(&frame::data(Guest::new(36).mac, vm.mac, 1));
        let seq = v[1].mac(&vm.mac.to_string())["seq"].clone();
        if seq == 2 { Ok(()) } else { Err(seq) }
    });
    let after = Duration::from_nanos(now() - moved);
    assert!(after >= Duration::from_millis(900), "claimed {after:?} after the move: inside the guard time");
}

/// PIT-05: UPDATE and first frame race for the same row fifty times; kernel and daemon always end up of one mind, without a
/// further frame.
#[test]
fn pit_05_kernel_and_daemon_agree_after_every_race() {
    if !met(&[Need::Root]) {
        return;
    }
    let f = Fabric::new(2);
    let [a, b] = [&f.vteps[0], &f.vteps[1]];
    let v = f.start_vtepd(0);
    let s = Speaker::accept(&b.ns, b.address, 65000);
    s.end_of_rib();
    let port = f.guest_port(0, "p1");
    let vm = Guest::new(37);
    for n in 0..50u32 {
        let remote = Attributes::new(b.address, 100).seq(4 * n);
        s.announce(&remote, &[mac_ip(100, vm.mac, None)]);
        // From well before the UPDATE is read to well after it is written.
        std::thread::sleep(Duration::from_micros(u64::from(n * 60)));
        port.send(&vm.rarp());
        eventually(SOON, "one mind", || {
            let view = v.mac(&vm.mac.to_string());
            let place = a.place(100, vm.mac);
            let fits = match &place {
                Place::Port(p) => view["place"]["port"] == p.as_str() && a.vxlan_row(100, vm.mac).is_null(),
                Place::Vtep(w) => view["place"]["vtep"] == w.as_str(),
                _ => false,
            };
            if fits { Ok(()) } else { Err((n, place, view)) }
        });
    }
}

/// PIT-07: what a filter on the port refuses moves nothing, though the tap saw it.
#[test]
fn pit_07_a_spoofed_announcement_that_the_bridge_refuses_changes_nothing() {
    if !met(&[Need::Root, Need::Tool("nft")]) {
        return;
    }
    let f = Fabric::new(2);
    let [a, b] = [&f.vteps[0], &f.vteps[1]];
    let v = f.start_vtepd(0);
    let s = Speaker::accept(&b.ns, b.address, 65000);
    s.end_of_rib();
    let victim = Guest::new(38);
    let nlri = [mac_ip(100, victim.mac, None), mac_ip(100, victim.mac, Some(victim.ip.into()))];
    s.announce(&Attributes::new(b.address, 100).seq(1), &nlri);
    eventually(SOON, "the victim is remote", || a.sends_to(100, victim.mac, &Place::vtep(b)));
    a.ns.sh("nft add table bridge guard
         nft add chain bridge guard pre '{ type filter hook prerouting priority -300; }'
         nft add rule bridge guard pre iifname p1 ether type '{ arp, 0x8035 }' drop");
    s.forget();
    let thief = f.guest_port(0, "p1");
    // With the victim's MAC, and with its own MAC and the victim's IP.
    let own = test_mac(39);
    for _ in 0..5 {
        thief.send(&victim.garp());
        thief.send(&victim.rarp());
        thief.send(&frame::garp(own, victim.ip));
    }
    throughout(Duration::from_millis(500), "the victim's rows stay", || {
        let ip = a.neigh_row(100, victim.ip.into())["lladdr"] == victim.mac.to_string().as_str();
        let place = a.place(100, victim.mac);
        if ip && place == Place::vtep(b) { Ok(()) } else { Err((ip, place)) }
    });
    assert!(!s.heard_octets(&victim.mac.0) && !s.heard_octets(&own.0), "a route went out");
    assert_eq!(v.mac(&victim.mac.to_string())["seq"], 1);
}

/// PIT-11: 1450 in the VNI over 1500 works with full-size frames; a hop of 1400 in the middle is named, and TCP survives.
#[test]
fn pit_11_a_hop_that_is_too_small_is_named_and_tcp_survives() {
    if !met(&[Need::Root, Need::Tool("ping")]) {
        return;
    }
    let f = Fabric::new(2);
    let [a, b] = [&f.vteps[0], &f.vteps[1]];
    // The spine becomes a router: a net on each side, VTEP addresses on loopback.
    f.spine.sh("ip link del b0; echo 1 > /proc/sys/net/ipv4/ip_forward");
    for (v, o) in [(a, b), (b, a)] {
        let n = v.number;
        f.spine.sh(&format!("ip link set u{n} up && ip addr add 10.1.{n}.1/24 dev u{n} && ip route add 10.0.0.{n} via 10.1.{n}.2"));
        v.ns.sh(&format!(
            "ip addr flush dev u0 && ip addr add 10.1.{n}.2/24 dev u0 && ip addr add 10.0.0.{n}/32 dev lo
             ip route add {} via 10.1.{n}.1 src 10.0.0.{n}",
            o.address
        ));
    }
    let h1 = f.host(0, "h1", test_mac(81), &["192.168.100.81/24"]);
    let h2 = f.host(1, "h2", test_mac(82), &["192.168.100.82/24"]);
    let mut confs = [f.conf(0), f.conf(1)];
    confs[0].vnis = vec![(100, vec!["h1".into()])];
    confs[1].vnis = vec![(100, vec!["h2".into()])];
    let v = [Vtepd::start(&a.ns, &confs[0]), Vtepd::start(&b.ns, &confs[1])];
    v[0].converge();
    v[1].converge();
    // 1422 + 28 = 1450 octets, not to be fragmented.
    eventually(LATER, "full-size frames cross", || {
        h1.ns.try_sh("ping -n -c 1 -W 1 -M do -s 1422 192.168.100.82").map(drop)
    });
    let problems = |v: &Vtepd| v.show("vnis", &[])[0]["problems"].to_string();
    assert!(!problems(&v[0]).contains("MTU"), "{}", problems(&v[0]));

    f.spine.sh("ip link set u2 mtu 1400");
    b.ns.sh("ip link set u0 mtu 1400");
    let server = h2.ns.enter(|| TcpListener::bind("192.168.100.82:7000").expect("the address is there"));
    let sent = vec![0x5a; 2 << 20];
    let got = std::thread::scope(|s| {
        let reader = s.spawn(|| {
            let (mut c, _) = server.accept().expect("a client");
            let mut all = Vec::new();
            c.set_read_timeout(Some(LATER)).expect("a timeout");
            c.read_to_end(&mut all).map(|_| all)
        });
        let mut c = h1.ns.enter(|| TcpStream::connect("192.168.100.82:7000").expect("the server listens"));
        c.set_write_timeout(Some(LATER)).expect("a timeout");
        c.write_all(&sent).expect("TCP finds the smaller size");
        drop(c);
        reader.join().expect("the reader does not panic")
    });
    assert_eq!(got.expect("all arrives").len(), sent.len());
    eventually(LATER, "the small hop is named", || {
        let p = problems(&v[0]);
        if p.contains("1400") { Ok(()) } else { Err(p) }
    });
}

/// PIT-12: a VXLAN packet from an address that is no VTEP of ours does not reach a guest.
#[test]
fn pit_12_vxlan_from_strangers_is_dropped() {
    if !met(&[Need::Root, Need::Tool("nft")]) {
        return;
    }
    let f = Fabric::new(2);
    let [a, b] = [&f.vteps[0], &f.vteps[1]];
    let v = [f.start_vtepd(0), f.start_vtepd(1)];
    v[0].converge();
    v[1].converge();
    let device = a.ns.sh("ip -d link show dev vx100");
    assert!(device.contains("srcport 49152 65535") && device.contains("nolearning"), "{device}");
    f.spine.sh("ip addr add 10.0.0.99/24 dev b0");
    let guest = f.guest_port(0, "p1");
    let packet = |n: u64| {
        let mut p = vec![8, 0, 0, 0, 0, 0, 100, 0];
        p.extend(frame::data(Mac::BROADCAST, test_mac(90), n));
        p
    };
    let stranger = f.spine.enter(|| UdpSocket::bind("10.0.0.99:50000").expect("the address is there"));
    let vtep = b.ns.enter(|| UdpSocket::bind("10.0.0.2:50000").expect("the address is there"));
    // The filter waits for all neighbours' routes, so that a restart cuts nobody off; then it holds.
    let mut n = 0;
    eventually(SOON, "only the VTEP's packet arrives", || {
        n += 2;
        guest.drain();
        stranger.send_to(&packet(n), "10.0.0.1:4789").expect("sent");
        vtep.send_to(&packet(n + 1), "10.0.0.1:4789").expect("sent");
        let mut heard = Vec::new();
        guest.find(SOON, |f| {
            heard.push(frame::as_data(f, Mac::BROADCAST)?);
            (heard.last() == Some(&(n + 1))).then_some(())
        });
        same(heard, vec![n + 1])
    });
}

/// PIT-13: notifications are lost again and again while other rows churn; not one of 20,000 untouched MACs is withdrawn.
#[test]
fn pit_13_lost_notifications_and_short_dumps_withdraw_nothing() {
    const STABLE: u32 = 20_000;
    const NOISE: u32 = 30_000;
    if !met(&[Need::Root]) {
        return;
    }
    let f = Fabric::new(2);
    let [a, b] = [&f.vteps[0], &f.vteps[1]];
    let v = f.start_vtepd(0);
    let s = Speaker::accept(&b.ns, b.address, 65000);
    s.end_of_rib();
    let mac = |set: u8, n: u32| {
        let [_, x, y, z] = n.to_be_bytes();
        Mac([2, set, 0, x, y, z])
    };
    let port = f.guest_port(0, "p1");
    for n in 0..STABLE {
        port.send(&frame::data(Mac::BROADCAST, mac(1, n), 0));
        if n % 256 == 255 {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    eventually(LATER, "all are local", || same(v.status()["local_macs"].clone(), STABLE.into()));
    // Another bridge in the same namespace, none of our business, whose rows come and go.
    a.ns.sh(
        "ip link add noise type bridge && ip link set noise up
         ip link add vx9 type vxlan id 9 local 10.0.0.1 dstport 4790 nolearning && ip link set vx9 master noise up",
    );
    let writer = RowWriter::open(&a.ns, "vx9");
    let rows = |new| writer.batches((0..NOISE).map(|n| mac(2, n)), b.address, new);
    let (come, go) = (rows(true), rows(false));
    s.forget();
    let overruns = || v.status()["counters"]["netlink_overruns"].as_u64().unwrap_or(0);
    // What really changes while nobody listens must be found all the same, and nothing else.
    let gone = |round: u32| (round * 10..round * 10 + 10).map(move |n| mac(1, n));
    for round in 1..=5 {
        v.process.signal(Signal::STOP);
        writer.send(&come);
        let deletes: Vec<_> = gone(round).map(|m| format!("fdb del {m} dev p1 master\\n")).collect();
        a.ns.sh(&format!("printf '{}' | bridge -batch -", deletes.concat()));
        port.send(&frame::data(Mac::BROADCAST, mac(3, round), 0));
        v.process.signal(Signal::CONT);
        // The resync reads the tables while these go away.
        writer.send(&go);
        eventually(LATER, "the loss is noticed", || {
            let n = overruns();
            if n >= u64::from(round) { Ok(()) } else { Err(v.status()) }
        });
        eventually(LATER, "what changed is known", || {
            let left = gone(round).filter(|m| !v.mac(&m.to_string()).is_null()).count();
            same((left, v.mac(&mac(3, round).to_string())["place"]["port"].clone()), (0, "p1".into()))
        });
    }
    let want = STABLE - 50 + 5;
    throughout(Duration::from_secs(1), "it stays so", || same(v.status()["local_macs"].clone(), want.into()));
    let mut withdrawn = std::collections::BTreeSet::new();
    for (_, _, m) in s.heard().iter().filter(|(_, k, m)| *k == 2 && m[24] == 15) {
        // An octet of 48 bits, then the MAC: set 1.
        let macs = m.windows(7).filter(|w| w[0] == 48 && w[1..4] == [2, 1, 0]);
        withdrawn.extend(macs.filter_map(|w| Mac::from_slice(&w[1..])));
    }
    let expected: std::collections::BTreeSet<_> = (1..=5).flat_map(gone).collect();
    assert_eq!(withdrawn, expected, "{}", v.status());
    assert!(s.is_up(), "{:?}", s.notified());
}

/// PIT-22 with guests of both families is in interop_moves; here the switch back to RFC 9135 (EVPN-IRB-14).
#[test]
fn pit_22_the_switch_back_leaves_ips_behind_until_they_are_confirmed() {
    if !met(&[Need::Root]) {
        return;
    }
    let f = Fabric::new(2);
    let [a, b] = [&f.vteps[0], &f.vteps[1]];
    let mut conf = f.conf(0);
    conf.sections = "[mobility]\nmove-ips-with-mac = false".into();
    let v = Vtepd::start(&a.ns, &conf);
    let s = Speaker::accept(&b.ns, b.address, 65000);
    s.end_of_rib();
    let g = Guest::new(40);
    let six: Ipv6Addr = "fd00:100::40".parse().expect("an address");
    let nlri = [
        mac_ip(100, g.mac, None),
        mac_ip(100, g.mac, Some(g.ip.into())),
        mac_ip(100, g.mac, Some(six.into())),
    ];
    s.announce(&Attributes::new(b.address, 100), &nlri);
    eventually(SOON, "all is known", || same(a.neigh_row(100, g.ip.into()).is_null(), false));
    s.forget();
    let port = f.guest_port(0, "p1");
    let ear = Wire::open(&f.guests, "x1p1");
    port.send(&g.rarp());
    let key = |ip: &[u8]| {
        let mut k = vec![48];
        k.extend(g.mac.0);
        k.push(ip.len() as u8 * 8);
        k.extend(ip);
        k
    };
    eventually(SOON, "the MAC is advertised", || {
        if s.heard_octets(&key(&[])) { Ok(()) } else { Err(s.heard()) }
    });
    // The guest is asked; its answer brings the IP.
    let asked = ear.find(SOON, |f| {
        (f.get(..6)? == g.mac.0
            && f.get(12..14)? == [8, 6]
            && f.get(20..22)? == [0, 1]
            && f.get(38..42)? == g.ip.octets())
        .then(|| (Mac::from_slice(&f[6..12]), f[28..32].to_vec()))
    });
    let (_, (prober, sender)) = asked.expect("a unicast ARP probe");
    assert!(!s.heard_octets(&key(&g.ip.octets())), "the IP was advertised before it was confirmed");
    let sender: [u8; 4] = sender.try_into().expect("four octets");
    port.send(&frame::arp_reply((g.mac, g.ip), (prober.expect("a MAC"), sender.into())));
    eventually(SOON, "the IP is advertised", || {
        if s.heard_octets(&key(&g.ip.octets())) { Ok(()) } else { Err(v.show("hosts", &[])) }
    });
}
