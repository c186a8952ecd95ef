//! BFD with FRR's bfdd (BFD-01 to BFD-11): one hop and several, IPv4 and IPv6, found failures, polls, AdminDown.

use rustix::process::Signal;
use serde_json::Value;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::time::{Duration, Instant};
use vtepd_tests::bfdd::Bfdd;
use vtepd_tests::fabric::{Fabric, frr_conf};
use vtepd_tests::frr::Frr;
use vtepd_tests::need::{Need, met};
use vtepd_tests::poll::{SOON, eventually, same, throughout};
use vtepd_tests::speaker::Speaker;
use vtepd_tests::vtepd::Vtepd;

const NEEDS: [Need; 3] = [Need::Root, Need::Frr, Need::Bfdd];
const QUICK: &str = "bfd = { interval = \"50ms\", multiplier = 3 }";
/// Lines of a peer in bfdd that match [`QUICK`].
const TIMERS: &str = "detect-multiplier 3\n  transmit-interval 50\n  receive-interval 50\n";

/// Milliseconds of a span in JSON.
fn ms(v: &Value) -> u64 {
    v.as_u64().unwrap_or(0) / 1_000_000
}

/// Both sides are up, with the intervals of 50 ms that they have polled each other for (BFD-06).
fn both_up(v: &Vtepd, peer: IpAddr, theirs: impl Fn() -> Value) {
    eventually(SOON, "BFD is up on both sides", || {
        let (a, b) = (v.bfd(peer), theirs());
        let ready = a["state"] == "up"
            && ms(&a["interval"]) == 50
            && ms(&a["detection_time"]) == 150
            && b["status"] == "up"
            && b["remote-transmit-interval"] == 50
            && b["remote-receive-interval"] == 50;
        if ready { Ok(()) } else { Err((a, b)) }
    });
}

fn events(v: &Vtepd, kind: &str) -> Vec<Value> {
    v.show("events", &[]).into_iter().filter(|e| e["event"] == kind).collect()
}

/// vtepd with BFD to an FRR that has it too; the link is cut in the middle, where no carrier drops. The session ends at
/// once on both sides, each by its own detection (BFD-07, BFD-11), and comes back with the link.
fn a_cut_ends_the_session(ours: IpAddr, theirs: IpAddr) {
    let fabric = &Fabric::new(2);
    let (v, f) = (&fabric.vteps[0], &fabric.vteps[1]);
    if ours.is_ipv6() {
        // FRR 8 knows IPv4 VTEPs alone; the session is what runs over IPv6.
        for (at, a) in [(v, ours), (f, theirs)] {
            at.ns.sh(&format!("ip addr add {a}/64 dev u0 nodad"));
        }
    }
    f.make_devices(100, &["p1"]);
    let bgp = frr_conf(65000, 2, &[(ours, 65000)], "");
    let timers = format!("router bgp 65000\n neighbor {ours} bfd 3 50 50\n");
    let frr = Frr::start_with_bfd(&f.ns, &(bgp + &timers), "");
    let mut conf = fabric.conf(0);
    conf.neighbors = vec![(theirs, 65000)];
    conf.neighbor_extra = QUICK.into();
    let vtepd = Vtepd::start(&v.ns, &conf);
    vtepd.converge();
    both_up(&vtepd, theirs, || frr.bfd_peer(ours));
    // BFD-05: one hop, and nothing was dropped for its TTL, on either side.
    assert_eq!(vtepd.bfd(theirs)["multihop"], false);
    assert_eq!(frr.bfd_peer(ours)["multihop"], false);
    throughout(Duration::from_secs(3), "nothing flaps", || {
        let (a, b) = (vtepd.bfd(theirs), frr.bfd_peer(ours));
        same((&a["failures"], &a["ups"], &b["status"]), (&0.into(), &1.into(), &"up".into()))
    });
    let begun = Instant::now();
    fabric.spine.sh("ip link set u2 down");
    eventually(Duration::from_secs(2), "the session has ended", || {
        let n = vtepd.show("neighbors", &[])[0].clone();
        if n["state"] == "Established" { Err(n) } else { Ok(()) }
    });
    println!("{:?} from before `ip link set` to `show neighbors`", begun.elapsed());
    let down = events(&vtepd, "bfd-down");
    assert_eq!(down.len(), 1, "{down:#?}");
    assert_eq!(down[0]["why"], "control detection time expired");
    assert_eq!(down[0]["ends_session"], true);
    let n = vtepd.show("neighbors", &[])[0].clone();
    assert_eq!((&n["bfd"]["state"], &n["bfd"]["failures"]), (&"down".into(), &1.into()), "{n}");
    assert!(vtepd.show_text("bfd").contains("control detection time expired"));
    eventually(SOON, "FRR has noticed too", || same(frr.bfd_peer(ours)["status"].clone(), "down".into()));
    fabric.spine.sh("ip link set u2 up");
    both_up(&vtepd, theirs, || frr.bfd_peer(ours));
    vtepd.converge();
    assert_eq!(events(&vtepd, "bfd-up").len(), 2);
}

#[test]
fn a_cut_ends_a_session_over_ipv4_within_the_detection_time() {
    if met(&NEEDS) {
        a_cut_ends_the_session([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
    }
}

#[test]
fn a_cut_ends_a_session_over_ipv6_within_the_detection_time() {
    if met(&NEEDS) {
        a_cut_ends_the_session("fd00:6::1".parse().unwrap(), "fd00:6::2".parse().unwrap());
    }
}

/// vtepd with BFD; the peer's BGP is a scripted speaker, its BFD is bfdd.
fn beside_a_speaker(fabric: &Fabric, peer_lines: &str) -> (Vtepd, Speaker, Bfdd) {
    let (v, f) = (&fabric.vteps[0], &fabric.vteps[1]);
    let mut conf = fabric.conf(0);
    conf.neighbor_extra = QUICK.into();
    let vtepd = Vtepd::start(&v.ns, &conf);
    let bfdd = Bfdd::start(&f.ns, &format!(" peer {}\n  {TIMERS}  {peer_lines}\n", v.address));
    let speaker = Speaker::accept(&f.ns, f.address, 65000);
    both_up(&vtepd, f.address, || bfdd.peer(v.address));
    (vtepd, speaker, bfdd)
}

/// Two octets of the NOTIFICATION that the speaker has heard.
fn cease(s: &Speaker) -> Result<(), String> {
    same(s.notified(), Some((6, 10)))
}

#[test]
fn a_peer_that_falls_silent_is_told_cease_6_10() {
    // BFD-11: the TCP connection is sound, its other end alone is gone.
    if !met(&NEEDS) {
        return;
    }
    let fabric = Fabric::new(2);
    let (vtepd, speaker, mut bfdd) = beside_a_speaker(&fabric, "");
    assert!(speaker.is_up());
    let begun = Instant::now();
    bfdd.bfdd.kill();
    eventually(Duration::from_secs(2), "Cease/10", || cease(&speaker));
    println!("{:?} from before the kill to the NOTIFICATION", begun.elapsed());
    let n = vtepd.show("neighbors", &[])[0].clone();
    assert_eq!(n["last_error"], "BFD says that the neighbour is gone", "{n}");
}

#[test]
fn a_frozen_bfdd_is_found_and_found_again_when_it_goes_on() {
    if !met(&NEEDS) {
        return;
    }
    let fabric = Fabric::new(2);
    let (v, f) = (&fabric.vteps[0], &fabric.vteps[1]);
    let (vtepd, speaker, bfdd) = beside_a_speaker(&fabric, "passive-mode");
    bfdd.bfdd.signal(Signal::STOP);
    eventually(Duration::from_secs(2), "Cease/10", || cease(&speaker));
    assert_eq!(vtepd.bfd(f.address)["state"], "down");
    bfdd.bfdd.signal(Signal::CONT);
    both_up(&vtepd, f.address, || bfdd.peer(v.address));
}

#[test]
fn admin_down_of_the_peer_and_new_intervals_leave_the_session_alone() {
    // BFD-09 and BFD-06.
    if !met(&NEEDS) {
        return;
    }
    let fabric = Fabric::new(2);
    let (v, f) = (&fabric.vteps[0], &fabric.vteps[1]);
    let (vtepd, speaker, bfdd) = beside_a_speaker(&fabric, "");
    let peer = format!("peer {}", v.address);
    // Slower by a poll of FRR's, then faster again.
    for (interval, text) in [(200, "200"), (50, "50")] {
        let (tx, rx) = (format!("transmit-interval {text}"), format!("receive-interval {text}"));
        bfdd.configure(&[&peer, &tx, &rx]);
        eventually(SOON, "the new interval holds", || {
            let a = vtepd.bfd(f.address);
            same((ms(&a["interval"]), ms(&a["detection_time"])), (interval, 3 * interval))
        });
    }
    assert_eq!(vtepd.bfd(f.address)["failures"], 0);
    bfdd.configure(&[&peer, "shutdown"]);
    eventually(SOON, "it is down here", || {
        let a = vtepd.bfd(f.address);
        same((&a["state"], &a["remote_state"]), (&"down".into(), &"admin-down".into()))
    });
    throughout(Duration::from_secs(2), "the session stays", || {
        if speaker.is_up() { Ok(()) } else { Err(speaker.notified()) }
    });
    assert_eq!(vtepd.neighbor_state(f.address), "Established");
    let down = events(&vtepd, "bfd-down");
    assert_eq!(down.len(), 1, "{down:#?}");
    assert_eq!(down[0]["why"], "switched off by the neighbour");
    bfdd.configure(&[&peer, "no shutdown"]);
    both_up(&vtepd, f.address, || bfdd.peer(v.address));
    assert_eq!((vtepd.bfd(f.address)["failures"].clone(), speaker.is_up()), (0.into(), true));
}

#[test]
fn our_own_stop_is_admin_down_at_the_peer() {
    // BFD-09: diag 7, not an expired detection time.
    if !met(&NEEDS) {
        return;
    }
    let fabric = Fabric::new(2);
    let v = &fabric.vteps[0];
    let (mut vtepd, _speaker, bfdd) = beside_a_speaker(&fabric, "");
    vtepd.process.terminate(Duration::from_secs(10));
    eventually(SOON, "FRR has heard it", || {
        let p = bfdd.peer(v.address);
        let heard = p["status"] == "down" && p["remote-diagnostic"] == "administratively down";
        if heard { Ok(()) } else { Err(p) }
    });
}

/// BFD between loopbacks over a router (BFD-08), eBGP with `multihop`; both families.
fn several_hops(
    fabric: &mut Fabric,
    net: impl Fn(usize) -> IpAddr,
    lo: impl Fn(usize) -> IpAddr,
    minimum: u8,
) -> (Vtepd, Bfdd) {
    // A router of its own between the two: each is in a network of its own, so that the TTL is 254 on arrival.
    let bits = if net(1).is_ipv4() { (24, 32) } else { (64, 128) };
    fabric.spine.sh("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1; \
                     ip link set u1 nomaster && ip link set u2 nomaster");
    for i in 1..=2 {
        let (mut here, mut host) = (String::new(), String::new());
        let (gw, own, far) = (net(i), lo(i), lo(3 - i));
        let nodad = if gw.is_ipv4() { "" } else { "nodad" };
        let own_link = match gw {
            IpAddr::V4(a) => IpAddr::from([a.octets()[0], a.octets()[1], a.octets()[2], 2]),
            IpAddr::V6(a) => {
                let mut s = a.segments();
                s[7] = 2;
                IpAddr::from(s)
            }
        };
        let _ = writeln!(
            here,
            "ip addr add {gw}/{} dev u{i} {nodad}; ip route add {own}/{} via {own_link}",
            bits.0, bits.1
        );
        let _ = writeln!(
            host,
            "ip addr flush dev u0 scope global; ip addr add {own_link}/{} dev u0 {nodad}; \
             ip addr add {own}/{} dev lo; ip route add {far}/{} via {gw}",
            bits.0, bits.1, bits.1
        );
        fabric.spine.sh(&here);
        fabric.vteps[i - 1].ns.sh(&host);
        fabric.vteps[i - 1].address = own;
    }
    let (a, b) = (lo(1), lo(2));
    let mut conf = fabric.conf(0);
    conf.neighbors.clear();
    conf.sections = format!(
        "[[neighbor]]\naddress = \"{b}\"\nlocal-address = \"{a}\"\nasn = 65002\nmultihop = 3\nconnect-retry = 1\n\
         bfd = {{ interval = \"50ms\", multiplier = 3, minimum-ttl = {minimum} }}\n"
    );
    let vtepd = Vtepd::start(&fabric.vteps[0].ns, &conf);
    let lines = format!(" peer {a} multihop local-address {b}\n  {TIMERS}  minimum-ttl 250\n");
    let bfdd = Bfdd::start(&fabric.vteps[1].ns, &lines);
    (vtepd, bfdd)
}

#[test]
fn loopbacks_over_a_router_are_watched_by_multihop_sessions() {
    if !met(&NEEDS) {
        return;
    }
    for v6 in [false, true] {
        let ip = |v4: [u8; 4], text: String| if v6 { text.parse().unwrap() } else { IpAddr::from(v4) };
        let net = |i: usize| ip([10, 1, i as u8, 1], format!("fd00:1:{i}::1"));
        let lo = |i: usize| ip([10, 255, 0, i as u8], format!("fd00:ff::{i}"));
        let mut fabric = if v6 { Fabric::new_v6(2) } else { Fabric::new(2) };
        let (vtepd, bfdd) = several_hops(&mut fabric, net, lo, 254);
        both_up(&vtepd, lo(2), || bfdd.peer(lo(1)));
        assert_eq!(vtepd.bfd(lo(2))["multihop"], true, "found by the route");
        drop(vtepd);
        // With a minimum above what arrives, nothing is taken (BFD-08).
        let mut fabric = if v6 { Fabric::new_v6(2) } else { Fabric::new(2) };
        let (vtepd, _bfdd) = several_hops(&mut fabric, net, lo, 255);
        eventually(SOON, "packets are dropped for their TTL", || {
            let text = vtepd.show_text("bfd");
            if text.contains("packets dropped: ttl") { Ok(()) } else { Err(text) }
        });
        assert_eq!(vtepd.bfd(lo(2))["state"], "down");
    }
}

#[test]
fn a_packet_over_a_router_is_nobodys_on_the_port_for_one_hop() {
    // BFD-05: TTL 254, from the right address, to the right port.
    if !met(&NEEDS) {
        return;
    }
    let fabric = Fabric::new(2);
    let (v, f) = (&fabric.vteps[0], &fabric.vteps[1]);
    let mut conf = fabric.conf(0);
    conf.neighbor_extra = QUICK.into();
    let vtepd = Vtepd::start(&v.ns, &conf);
    // Down, discriminator 17: what would bring the session to Init.
    let packet: Vec<u8> = [
        &[0x20, 0x40, 3, 24, 0, 0, 0, 17][..],
        &[0; 4],
        &[0, 0xf, 0x42, 0x40],
        &[0, 0xf, 0x42, 0x40],
        &[0; 4],
    ]
    .concat();
    let say = |ttl: u32| {
        f.ns.enter(|| {
            let s = std::net::UdpSocket::bind((f.address, 49_200)).expect("a socket");
            s.set_ttl(ttl).expect("a TTL");
            s.send_to(&packet, (v.address, 3784)).expect("sent");
        });
    };
    eventually(SOON, "it is dropped", || {
        say(254);
        let text = vtepd.show_text("bfd");
        if text.contains("packets dropped: ttl") { Ok(()) } else { Err(text) }
    });
    assert_eq!(vtepd.bfd(f.address)["received"], 0);
    eventually(SOON, "with TTL 255 it counts", || {
        say(255);
        same(vtepd.bfd(f.address)["state"].clone(), "init".into())
    });
}
