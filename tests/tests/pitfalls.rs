//! Races, lost notifications and switches, with the whole daemon (docs/pitfalls.md, lines marked A: PIT-04, 05, 13,
//! 22). The other lines are in the files beside this one; docs/testing.md says which test covers which line.

use evpn::types::Mac;
use rustix::process::Signal;
use std::net::Ipv6Addr;
use std::time::Duration;
use vtepd_tests::fabric::{Fabric, Guest, Place};
use vtepd_tests::frame;
use vtepd_tests::need::{Need, met};
use vtepd_tests::packet::{RowWriter, Wire, now};
use vtepd_tests::poll::{LATER, SOON, eventually, same, throughout};
use vtepd_tests::speaker::{Attributes, Speaker, mac_ip};
use vtepd_tests::vtepd::Vtepd;

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
