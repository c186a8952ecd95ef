//! What a moving MAC meets on the real kernel: late frames, split horizon, overtaken writes, spoofed frames, and
//! what leaves in one flush (PIT-03, 04, 05, 07, 22).

use std::collections::BTreeSet;
use std::time::{Duration, Instant};
use vtepd_tests::fabric::{Fabric, Guest, Place, test_mac};
use vtepd_tests::need::{Need, met};
use vtepd_tests::packet::{Monitor, Wire, now};
use vtepd_tests::poll::{SOON, eventually, same, throughout};
use vtepd_tests::speaker::{Attributes, Speaker, imet, mac_ip};
use vtepd_tests::vtepd::Vtepd;
use vtepd_tests::{frame, speaker};

/// The late frames of a test come within this guard time, however slow the machine is.
const LONG_GUARD: &str = "[mobility]\nguard-time = \"30s\"";

fn us(ns: u64) -> String {
    format!("{:.3} ms", ns as f64 / 1e6)
}

/// Late-frame rule (PIT-04, EVPN-MOB-07): data frames that were still under way at the source.
#[test]
fn twenty_late_frames_from_the_source_raise_no_sequence_and_the_row_is_remote_again() {
    if !met(&[Need::Root]) {
        return;
    }
    let f = Fabric::new(2);
    let [a, b] = [&f.vteps[0], &f.vteps[1]];
    let mut conf = f.conf(0);
    conf.sections = LONG_GUARD.into();
    let (da, db) = (Vtepd::start(&a.ns, &conf), f.start_vtepd(1));
    da.converge();
    db.converge();
    let g = Guest::new(5);
    let (old, new) = (f.guest_port(0, "p1"), f.guest_port(1, "p1"));
    old.send(&g.garp());
    eventually(SOON, "the MAC is known at the other site", || b.sends_to(100, g.mac, &Place::vtep(a)));
    new.send(&g.rarp());
    eventually(SOON, "the MAC moved", || a.sends_to(100, g.mac, &Place::vtep(b)));

    let (port, vxlan) = (a.ns.index("p1"), a.ns.index("vx100"));
    let mut monitor = Monitor::open(&a.ns);
    let mut stolen = 0;
    let mut took = Vec::new();
    for n in 0..20 {
        let sent = old.send(&frame::data(test_mac(99), g.mac, n));
        let theft = monitor.find(SOON, |x| x.mac == g.mac && x.bridge && x.new && x.device == port);
        assert!(theft.is_some(), "one late frame takes the row back: that is what this test is about");
        stolen += 1;
        let back = monitor.find(SOON, |x| x.mac == g.mac && x.bridge && x.new && x.device == vxlan);
        took.push(back.expect("the row goes back to the winner").at - sent);
    }
    println!(
        "PIT-04: {stolen} late frames, row remote again after {} (last), {} (worst)",
        us(took[19]),
        us(took.iter().copied().max().unwrap_or(0))
    );
    throughout(Duration::from_millis(300), "the row stays remote", || {
        a.sends_to(100, g.mac, &Place::vtep(b))
    });
    for (d, who) in [(&da, "loser"), (&db, "winner")] {
        assert_eq!(d.mac(&g.mac.to_string())["seq"], 1, "{who}: the sequence of the one real move");
    }
    assert_eq!(db.mac(&g.mac.to_string())["place"]["port"], "p1");
    let late = da.show("events", &[]).iter().filter(|e| e["event"] == "late-frame").count();
    assert!(late >= 1, "late frames are told");
    // A burst, one right behind the other.
    monitor.drain();
    let mut last = 0;
    for n in 0..20 {
        last = old.send(&frame::data(test_mac(99), g.mac, n));
    }
    let mut back = 0;
    while monitor.read(Duration::from_millis(500), |x| {
        if x.mac == g.mac && x.bridge && x.new && x.device == vxlan {
            back = x.at;
        }
    }) {}
    println!("PIT-04: burst of 20, row remote again {} after the last", us(back.saturating_sub(last)));
    eventually(SOON, "the row is remote after the burst", || a.sends_to(100, g.mac, &Place::vtep(b)));
    assert_eq!(db.mac(&g.mac.to_string())["seq"], 1);
    // It announces itself at the old place: now it is back, guard time or not.
    old.send(&g.rarp());
    eventually(SOON, "it is back", || a.sends_to(100, g.mac, &Place::port("p1")));
    eventually(SOON, "and the other site follows", || b.sends_to(100, g.mac, &Place::vtep(a)));
    assert_eq!(db.mac(&g.mac.to_string())["seq"], 2);
}

/// PIT-03: frames of local ports follow the new row at once; what comes from the overlay dies on split horizon
/// rather than being multiplied; hairpin is never on, even if somebody sets it.
#[test]
fn local_ports_follow_a_move_at_once_and_nothing_is_ever_sent_back_into_the_overlay() {
    if !met(&[Need::Root]) {
        return;
    }
    let f = Fabric::new(2);
    let [a, b] = [&f.vteps[0], &f.vteps[1]];
    a.add_port(&f.guests, "p2");
    let mut conf = f.conf(0);
    conf.vnis = vec![(100, vec!["p1".into(), "p2".into()])];
    let (da, db) = (Vtepd::start(&a.ns, &conf), f.start_vtepd(1));
    da.converge();
    db.converge();
    let (g, sender) = (Guest::new(5), Guest::new(6));
    let (old, new, p2) = (f.guest_port(0, "p1"), f.guest_port(1, "p1"), f.guest_port(0, "p2"));
    old.send(&g.garp());
    p2.send(&sender.garp());
    eventually(SOON, "the MAC is known at the other site", || b.sends_to(100, g.mac, &Place::vtep(a)));
    p2.send(&frame::data(g.mac, sender.mac, 1));
    assert!(
        old.find(SOON, |x| frame::as_data(x, g.mac)).is_some(),
        "before the move frames reach the old port"
    );

    new.drain();
    let moved = new.send(&g.rarp());
    let begun = Instant::now();
    let (mut sent, mut got) = (1, None);
    while got.is_none() && begun.elapsed() < SOON {
        sent += 1;
        p2.send(&frame::data(g.mac, sender.mac, sent));
        got = new.find(Duration::from_millis(1), |x| frame::as_data(x, g.mac));
    }
    let (at, number) = got.expect("frames of a local port reach the new site");
    println!(
        "PIT-03: local port served at the new site {} after the RARP, {} frame(s) before it lost",
        us(at - moved),
        number - 2
    );
    eventually(SOON, "the row is remote", || a.sends_to(100, g.mac, &Place::vtep(b)));

    // A sender that is not updated yet: its frame for the MAC comes out of the overlay at the old site.
    new.drain();
    old.drain();
    let spine = Wire::open(&f.spine, "u1");
    vxlan_to(&f, 1, a.address, &frame::data(g.mac, test_mac(77), 4242));
    let seen = new.find(Duration::from_millis(300), |x| frame::as_data(x, g.mac).filter(|n| *n == 4242));
    assert!(seen.is_none(), "same port in, same port out is dropped");
    let copies =
        std::iter::from_fn(|| spine.poll()).filter(|(_, x)| holds(x, &4242u64.to_be_bytes())).count();
    assert!(copies <= 1, "only the frame itself on the wire, no copy: {copies}");

    for who in [a, b] {
        who.ns.sh("bridge link set dev vx100 hairpin on");
        eventually(SOON, "hairpin is off again", || {
            let port = who.ns.json("bridge -d -j link show dev vx100");
            same(port[0]["hairpin"].clone(), false.into())
        });
    }
    drop((da, db));
}

/// Sends a frame of VNI 100 in VXLAN from VTEP number `from + 1` to `to`, past the kernel's tables.
fn vxlan_to(f: &Fabric, from: usize, to: std::net::IpAddr, inner: &[u8]) {
    let v = &f.vteps[from];
    let socket = v.ns.enter(|| std::net::UdpSocket::bind((v.address, 0)).expect("bound"));
    let mut p = vec![8, 0, 0, 0, 0, 0, 100, 0];
    p.extend(inner);
    socket.send_to(&p, (to, 4789)).expect("sent");
}

fn holds(frame: &[u8], octets: &[u8]) -> bool {
    frame.windows(octets.len()).any(|w| w == octets)
}

/// PIT-05 with real rows: remote updates are being written in bulk while the guests speak, once each.
#[test]
fn guests_that_spoke_once_while_remote_rows_were_being_written_end_up_local() {
    if !met(&[Need::Root]) {
        return;
    }
    let f = Fabric::new(2);
    let [a, b] = [&f.vteps[0], &f.vteps[1]];
    let da = f.start_vtepd(0);
    let s = Speaker::accept(&b.ns, b.address, 65000);
    let at = Attributes::new(b.address, 100);
    s.announce(&at.clone().ingress_replication(100, b.address), &[imet(b.address)]);
    s.end_of_rib();
    da.converge();
    let port = f.guest_port(0, "p1");
    for round in 0..4u32 {
        let targets: Vec<Guest> = (0..8).map(|n| Guest::new(10 * (round as u8 + 1) + n)).collect();
        let known: Vec<_> = targets.iter().map(|g| mac_ip(100, g.mac, None)).collect();
        s.announce(&at, &known);
        eventually(SOON, "the targets are remote", || {
            targets.iter().try_for_each(|g| a.sends_to(100, g.mac, &Place::vtep(b)))
        });
        // Thousands of other rows, the targets' updates among them, and each guest's one frame in between.
        let mut bulk = Vec::new();
        for chunk in 0..64u16 {
            let macs: Vec<_> =
                (0..80u16).map(|n| mac_ip(100, test_mac(0x1000 + chunk * 80 + n), None)).collect();
            bulk.extend(speaker::announce(&at.clone().seq(round + 1), &macs));
            if let Some(t) = known.get(usize::from(chunk / 8)).filter(|_| chunk % 8 == 3) {
                bulk.extend(speaker::announce(&at.clone().seq(1), std::slice::from_ref(t)));
            }
        }
        std::thread::scope(|scope| {
            scope.spawn(|| s.send(&bulk));
            for (n, g) in targets.iter().enumerate() {
                // Spread over the time that the bulk takes; which comes first is left to chance.
                let wait = Instant::now() + Duration::from_millis(3 * n as u64);
                while Instant::now() < wait {
                    std::hint::spin_loop();
                }
                port.send(&g.rarp());
            }
        });
        for g in &targets {
            eventually(SOON, "a guest that spoke once is local", || {
                a.sends_to(100, g.mac, &Place::port("p1"))?;
                let row = a.vxlan_row(100, g.mac);
                if row.is_null() { Ok(()) } else { Err(Place::Broken) }
            });
        }
        throughout(Duration::from_millis(200), "they stay local", || {
            targets.iter().try_for_each(|g| a.sends_to(100, g.mac, &Place::port("p1")))
        });
    }
    assert!(s.is_up(), "{:?}", s.notified());
}

/// PIT-07: the packet socket sees what the bridge refuses.
#[test]
fn a_spoofed_gratuitous_arp_that_nft_drops_changes_no_route() {
    if !met(&[Need::Root, Need::Tool("nft")]) {
        return;
    }
    let f = Fabric::new(2);
    let [a, b] = [&f.vteps[0], &f.vteps[1]];
    let (da, db) = (f.start_vtepd(0), f.start_vtepd(1));
    da.converge();
    db.converge();
    let victim = Guest::new(5);
    f.guest_port(1, "p1").send(&victim.garp());
    eventually(SOON, "the victim is remote", || a.sends_to(100, victim.mac, &Place::vtep(b)));
    eventually(SOON, "its address is answered", || {
        same(a.neigh_row(100, victim.ip.into())["lladdr"].clone(), victim.mac.to_string().into())
    });
    a.ns.sh(
        "nft 'add table bridge guard; add chain bridge guard in { type filter hook prerouting priority -300; }; \
         add rule bridge guard in iifname p1 ether type arp drop; add rule bridge guard in iifname p1 ether type 0x8035 drop'",
    );
    let before = db.show("routes", &[]);
    let attacker = f.guest_port(0, "p1");
    for _ in 0..3 {
        // With a MAC of its own that the bridge does not know, and with the victim's.
        attacker.send(&frame::garp(test_mac(39), victim.ip));
        attacker.send(&victim.garp());
        attacker.send(&victim.rarp());
    }
    eventually(SOON, "the refusal is told", || {
        let events = da.show("events", &[]);
        let hit = events.iter().any(|e| {
            e["event"] == "binding-refused"
                && e["mac"] == victim.mac.to_string().as_str()
                && e["port"] == "p1"
        });
        if hit { Ok(()) } else { Err(events) }
    });
    assert_eq!(a.sends_to(100, victim.mac, &Place::vtep(b)), Ok(()));
    assert_eq!(a.neigh_row(100, victim.ip.into())["lladdr"], victim.mac.to_string());
    assert_eq!(da.mac(&victim.mac.to_string())["seq"], 0);
    assert_eq!(da.mac(&test_mac(39).to_string()), serde_json::Value::Null);
    assert_eq!(keys(&db.show("routes", &[])), keys(&before), "no route came, went or changed at the peer");
    assert!(da.show("moves", &[]).is_empty() && db.show("moves", &[]).is_empty(), "nothing moved");
}

/// PIT-07: what a port's hosts may be called is the operator's word; a spoofed claim stays at the port it came from.
#[test]
fn a_claim_on_an_address_that_the_port_may_not_have_changes_nothing_anywhere() {
    if !met(&[Need::Root]) {
        return;
    }
    let f = Fabric::new(2);
    let [a, b] = [&f.vteps[0], &f.vteps[1]];
    let (victim, attacker, honest) = (Guest::new(5), Guest::new(6), Guest::new(7));
    let mut conf = f.conf(0);
    conf.vni_extra = format!("allowed = {{ p1 = [\"{}\", \"{}\"] }}", attacker.ip, honest.ip);
    let (da, db) = (Vtepd::start(&a.ns, &conf), f.start_vtepd(1));
    da.converge();
    db.converge();
    f.guest_port(1, "p1").send(&victim.garp());
    let answered = |v: &vtepd_tests::fabric::Vtep, g: &Guest| {
        same(v.neigh_row(100, g.ip.into())["lladdr"].clone(), g.mac.to_string().into())
    };
    eventually(SOON, "the victim is answered", || answered(a, &victim));
    let port = f.guest_port(0, "p1");
    port.send(&frame::garp(attacker.mac, victim.ip));
    eventually(SOON, "the claim is told", || {
        let events = da.show("events", &[]);
        let hit = events.iter().any(|e| e["event"] == "address-not-allowed" && e["port"] == "p1");
        if hit { Ok(()) } else { Err(events) }
    });
    // Behind the claim on the same wire: when this one has arrived, the other would have.
    port.send(&honest.garp());
    eventually(SOON, "an address that is allowed is answered", || answered(b, &honest));
    assert_eq!(answered(a, &victim), Ok(()));
    let of_attacker = |d: &Vtepd| {
        let hosts = d.show("hosts", &[]);
        hosts.into_iter().filter(|h| h["mac"] == attacker.mac.to_string().as_str()).collect::<Vec<_>>()
    };
    assert_eq!((of_attacker(&da), of_attacker(&db)), (vec![], vec![]));
    assert_eq!(da.status()["counters"]["addresses_not_allowed"], 1);
}

fn keys(routes: &[serde_json::Value]) -> BTreeSet<String> {
    routes.iter().map(|r| format!("{} {} {} {}", r["route"], r["from"], r["next_hop"], r["seq"])).collect()
}

/// PIT-22: MAC and MAC+IP routes of one move leave in one socket write, MAC first, whatever UPDATEs they need.
#[test]
fn mac_and_addresses_of_one_move_leave_in_one_tcp_segment_mac_first() {
    if !met(&[Need::Root]) {
        return;
    }
    let f = Fabric::new(2);
    let [a, b] = [&f.vteps[0], &f.vteps[1]];
    let da = f.start_vtepd(0);
    let s = Speaker::accept(&b.ns, b.address, 65000);
    s.announce(&Attributes::new(b.address, 100).ingress_replication(100, b.address), &[imet(b.address)]);
    let g = Guest::new(5);
    let six: std::net::Ipv6Addr = "fd00:100::5".parse().expect("address");
    s.announce(
        &Attributes::new(b.address, 100),
        &[
            mac_ip(100, g.mac, None),
            mac_ip(100, g.mac, Some(g.ip.into())),
            mac_ip(100, g.mac, Some(six.into())),
        ],
    );
    s.end_of_rib();
    da.converge();
    eventually(SOON, "the MAC is remote", || a.sends_to(100, g.mac, &Place::vtep(b)));
    eventually(SOON, "its IPv6 address is answered", || {
        same(a.neigh_row(100, six.into())["lladdr"].clone(), g.mac.to_string().into())
    });
    let nlri = |ip: &[u8]| {
        let mut x = vec![48];
        x.extend(g.mac.0);
        x.push(ip.len() as u8 * 8);
        x.extend(ip);
        x
    };
    let (alone, with4, with6) = (nlri(&[]), nlri(&g.ip.octets()), nlri(&six.octets()));
    let wire = Wire::open(&b.ns, "u0");
    let sent = f.guest_port(0, "p1").send(&g.rarp());
    let at = |x: &[u8], part: &[u8]| x.windows(part.len()).position(|w| w == part);
    let (when, order) = wire
        .find(SOON, |x| {
            let seen = (at(x, &alone), at(x, &with4), at(x, &with6));
            (seen != (None, None, None)).then_some(seen)
        })
        .expect("the move reaches the peer");
    let (Some(m), Some(m4), Some(m6)) = order else {
        panic!("the first segment of the move has only some of its routes: {order:?}");
    };
    assert!(m < m4 && m < m6, "MAC first: {m} {m4} {m6}");
    println!("PIT-22: three routes in one segment, {} after the RARP", us(when - sent));
    eventually(SOON, "the sequence is one higher", || {
        same(da.mac(&g.mac.to_string())["seq"].clone(), 1.into())
    });
    assert!(now() > sent && s.is_up(), "{:?}", s.notified());
}
