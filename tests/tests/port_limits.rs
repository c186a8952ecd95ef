//! Flooding under control at the port, on a real kernel: tagged frames (PIT-10) and storms are dropped where they come in,
//! counted, and let in again when the daemon is gone.

use evpn::types::Mac;
use std::time::Duration;
use vtepd_tests::fabric::{Guest, Place, test_mac};
use vtepd_tests::frame;
use vtepd_tests::mixed::Mixed;
use vtepd_tests::need::{Need, met};
use vtepd_tests::packet::Wire;
use vtepd_tests::poll::{LATER, SOON, eventually};

fn dropped(m: &Mixed, i: usize, port: &str, rule: &str) -> u64 {
    let status = m.vtepd(i).status();
    let of = |p: &serde_json::Value| p["port"] == port;
    let at = status["port_drops"].as_array().and_then(|a| a.iter().find(|p| of(p))).cloned();
    at.and_then(|p| p[rule].as_u64()).unwrap_or(0)
}

/// The frame with an 802.1Q tag of VLAN 5.
fn tagged(f: &[u8]) -> Vec<u8> {
    [&f[..12], &[0x81, 0, 0, 5], &f[12..]].concat()
}

/// A tag is not among the octets that are received, the kernel keeps it beside them.
fn untagged(f: &[u8]) -> Vec<u8> {
    if f[12..14] == [0x81, 0] { [&f[..12], &f[16..]].concat() } else { f.to_vec() }
}

fn arrives(from: &Wire, to: &Wire, f: &[u8]) -> Result<(), &'static str> {
    from.send(f);
    let f = untagged(f);
    to.find(Duration::from_millis(200), |g| (g == f).then_some(())).map(drop).ok_or("not there")
}

/// Somebody says where this host is.
fn answered(wire: &Wire, ask: &[u8], asked: Guest) -> bool {
    wire.drain();
    wire.send(ask);
    let reply = |f: &[u8]| frame::as_arp_reply(f).filter(|(_, ip)| *ip == asked.ip);
    wire.find(Duration::from_millis(300), reply).is_some()
}

#[test]
fn tagged_frames_come_in_nowhere_and_are_answered_by_nobody() {
    if !met(&[Need::Root]) {
        return;
    }
    let m = Mixed::two_vtepds("");
    let [here, there] = [10, 11].map(Guest::new);
    let (near, far) = (m.guest(0), m.guest(1));
    near.send(&here.garp());
    far.send(&there.garp());
    let ask = frame::arp_request(here.mac, here.ip, there.ip);
    eventually(SOON, "the kernel answers for the remote host", || {
        if answered(&near, &ask, there) { Ok(()) } else { Err("no answer") }
    });
    eventually(LATER, "tagged frames are dropped", || {
        near.send(&tagged(&frame::data(Mac::BROADCAST, here.mac, 1)));
        match dropped(&m, 0, "p1", "tagged") {
            0 => Err("none dropped"),
            _ => Ok(()),
        }
    });
    assert!(!answered(&near, &tagged(&ask), there), "a tagged question is answered from the untagged row");
    assert!(arrives(&near, &far, &tagged(&frame::data(Mac::BROADCAST, here.mac, 2))).is_err());
    // Padded ones are as good as others.
    let mut padded = ask;
    padded.resize(200, 0);
    assert!(answered(&near, &padded, there));
    let mut padded = frame::data(Mac::BROADCAST, here.mac, 3);
    padded.resize(1400, 0);
    eventually(SOON, "untagged ones pass", || arrives(&near, &far, &padded));
    // One that another VTEP sends tagged ends at the VXLAN device (VXLAN-05).
    let overlay = Wire::deaf(&m.vtep(1).ns, "vx100");
    let f = frame::data(Mac::BROADCAST, there.mac, 4);
    eventually(SOON, "it is dropped", || {
        if arrives(&overlay, &near, &tagged(&f)).is_ok() {
            return Err("it passes");
        }
        if dropped(&m, 0, "vx100", "tagged") > 0 { Ok(()) } else { Err("not counted") }
    });
    assert_eq!(arrives(&overlay, &near, &frame::data(Mac::BROADCAST, there.mac, 5)), Ok(()));
}

#[test]
fn tagged_frames_pass_where_they_are_transparent_and_nothing_is_suppressed() {
    if !met(&[Need::Root]) {
        return;
    }
    let m = Mixed::two_vtepds("tagged = \"transparent\"");
    let [here, there] = [10, 11].map(Guest::new);
    let (near, far) = (m.guest(0), m.guest(1));
    near.send(&here.garp());
    far.send(&there.garp());
    eventually(SOON, "both are known", || m.vtep(0).sends_to(100, there.mac, &Place::vtep(m.vtep(1))));
    let f = tagged(&frame::data(Mac::BROADCAST, here.mac, 2));
    eventually(SOON, "tagged frames pass", || arrives(&near, &far, &f));
    let ask = frame::arp_request(here.mac, here.ip, there.ip);
    for ask in [tagged(&ask), ask] {
        eventually(SOON, "questions cross", || arrives(&near, &far, &ask));
        assert!(
            !answered(&near, &ask, there),
            "the kernel answers, and the guest is a raw socket that does not"
        );
    }
    let port = m.vtep(0).ns.json("bridge -d -j link show dev vx100");
    assert_eq!(port[0]["neigh_suppress"], false, "{port}");
}

#[test]
fn a_storm_on_one_port_is_cut_there_and_nowhere_else() {
    if !met(&[Need::Root]) {
        return;
    }
    let mut m = Mixed::two_vtepds("storm-limits = { arp = 50, broadcast = 20 }");
    m.vtep(0).add_port(&m.fabric.guests, "p2");
    m.vtep(0).ns.sh("ip link set p2 master br100");
    let (bad, good, far) = (m.guest(0), m.fabric.guest_port(0, "p2"), m.guest(1));
    let [noisy, calm] = [10, 11].map(Guest::new);
    let storm: Vec<_> =
        (0..64).map(|_| frame::arp_request(noisy.mac, noisy.ip, Guest::new(200).ip)).collect();
    eventually(LATER, "the storm is cut", || {
        bad.send_many(&storm);
        match dropped(&m, 0, "p1", "arp") {
            0..500 => Err(dropped(&m, 0, "p1", "arp")),
            _ => Ok(()),
        }
    });
    let status = m.vtepd(0).status();
    assert!(status["counters"]["frames_dropped_arp"].as_u64() >= Some(500), "{status:#}");
    // While it goes on, the other port's questions and announcements cross at once.
    for n in 0..10 {
        bad.send_many(&storm);
        let ask = frame::arp_request(calm.mac, calm.ip, Guest::new(201 + n).ip);
        assert_eq!(arrives(&good, &far, &ask), Ok(()), "question {n}");
    }
    assert_eq!(dropped(&m, 0, "p2", "arp"), 0);
    // What is no ARP has a limit of its own, and unicast none.
    let all: Vec<_> = (0..64).map(|n| frame::data(Mac::BROADCAST, noisy.mac, n)).collect();
    eventually(LATER, "broadcast is cut, too", || {
        bad.send_many(&all);
        match dropped(&m, 0, "p1", "broadcast") {
            0 => Err("none dropped"),
            _ => Ok(()),
        }
    });
    let one = frame::data(test_mac(99), noisy.mac, 1234);
    assert_eq!(arrives(&bad, &good, &one), Ok(()));
    // With the daemon goes the limit: 64 of 64 arrive.
    m.stop_vtepd(0);
    let marked = frame::data(Mac::BROADCAST, noisy.mac, 4321);
    for n in 0..40 {
        assert_eq!(arrives(&bad, &good, &marked), Ok(()), "frame {n} with no limit left");
    }
}
