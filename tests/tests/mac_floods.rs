//! "Bad input": a port that makes MACs up, on a real kernel. It reaches its limit and lets only known MACs in; nobody else
//! notices, and it is open again when it is quiet, or when the daemon is gone.

use evpn::types::Mac;
use serde_json::Value;
use std::time::Duration;
use vtepd_tests::fabric::{Fabric, Guest, Place};
use vtepd_tests::frame;
use vtepd_tests::mixed::Mixed;
use vtepd_tests::need::{Need, met};
use vtepd_tests::packet::Wire;
use vtepd_tests::poll::{LATER, SOON, eventually};

/// Two VTEPs; the first one has a second port, and small limits.
fn fabric(make_bridge: bool) -> Mixed {
    let mut m = Mixed::new(Fabric::new(2));
    m.vtep(0).add_port(&m.fabric.guests, "p2");
    if make_bridge {
        m.vtep(0).make_devices(100, &["p1", "p2"]);
    }
    for i in [0, 1] {
        let mut conf = m.fabric.conf(i);
        if i == 0 {
            conf.vnis[0].1.push("p2".into());
            conf.vni_extra = "port-mac-limit = 200\nmac-limit = 1000\nflood-guard = 100".into();
        }
        m.start_vtepd_with(i, &conf);
    }
    m.converge();
    m
}

/// A stranger's MAC, never the same.
fn made_up(n: u32) -> Mac {
    let [a, b, c, d] = n.to_be_bytes();
    Mac([2, 0xfa, a, b, c, d])
}

fn flood(wire: &Wire, from: u32, count: u32) {
    let frames: Vec<_> = (from..from + count).map(|n| frame::data(Mac::BROADCAST, made_up(n), 5)).collect();
    let mut rest = frames.as_slice();
    while !rest.is_empty() {
        rest = &rest[wire.send_many(&rest[..rest.len().min(64)])..];
    }
}

fn status(m: &Mixed, part: &str, name: &str) -> u64 {
    m.vtepd(0).status()[part][name].as_u64().unwrap_or(0)
}

fn guarded(m: &Mixed) -> Result<(), Value> {
    let vnis = m.vtepd(0).show("vnis", &[]);
    let told = vnis.iter().any(|v| v["problems"].to_string().contains("port p2 makes MACs up"));
    // The kernel has the filter: it has dropped something.
    if told && status(m, "counters", "frames_guarded") > 0 { Ok(()) } else { Err(vnis.into()) }
}

/// The port floods until it is guarded.
fn until_guarded(m: &Mixed, wire: &Wire) {
    let mut next = 0;
    eventually(LATER, "the port is guarded", || {
        flood(wire, next, 1000);
        next += 1000;
        guarded(m)
    });
}

/// Frames of a stranger on the port arrive behind a VTEP.
fn strangers_pass(m: &Mixed, wire: &Wire, to: usize, who: u32) -> Result<(), &'static str> {
    let far = m.guest(to);
    let marked = frame::data(Mac::BROADCAST, made_up(who), 77);
    wire.send(&marked);
    far.find(Duration::from_millis(200), |f| (f == marked).then_some(())).map(drop).ok_or("dropped")
}

#[test]
fn a_port_that_makes_macs_up_is_guarded_and_nobody_else_notices() {
    if !met(&[Need::Root]) {
        return;
    }
    for make_bridge in [false, true] {
        let m = fabric(make_bridge);
        let bad = m.fabric.guest_port(0, "p2");
        let [here, there, fresh, late] = [10, 11, 12, 13].map(Guest::new);
        bad.send(&here.garp());
        m.guest(1).send(&there.garp());
        eventually(SOON, "one here, one there", || {
            m.vtep(1).sends_to(100, here.mac, &Place::vtep(m.vtep(0)))?;
            m.vtep(0).sends_to(100, there.mac, &Place::vtep(m.vtep(1)))
        });
        until_guarded(&m, &bad);
        assert!(
            m.vtepd(0).show("events", &[]).iter().any(|e| e["event"] == "port-guarded" && e["port"] == "p2")
        );
        assert_eq!((status(&m, "gauges", "ports_guarded"), status(&m, "counters", "guards_begun")), (1, 1));
        assert!(m.vtepd(1).status()["remote_macs"].as_u64() <= Some(210), "the fabric hears of no more");
        assert_eq!(strangers_pass(&m, &bad, 1, 900_001), Err("dropped"));
        // A VM that starts at another port is known to all; one that moves to the bad port is, too; so is who was there.
        m.guest(0).send(&fresh.garp());
        bad.send(&there.garp());
        eventually(SOON, "others come and go", || {
            m.vtep(1).sends_to(100, fresh.mac, &Place::vtep(m.vtep(0)))?;
            m.vtep(1).sends_to(100, there.mac, &Place::vtep(m.vtep(0)))?;
            m.vtep(0).sends_to(100, there.mac, &Place::port("p2"))
        });
        let far = m.guest(1);
        let marked = frame::data(Mac::BROADCAST, here.mac, 78);
        bad.send(&marked);
        assert!(far.find(SOON, |f| (f == marked).then_some(())).is_some(), "its own VM is cut off");
        // Nothing has been set at the port that would have to be put back.
        let port = m.vtep(0).ns.json("bridge -d -j link show dev p2");
        assert_eq!((&port[0]["learning"], &port[0]["locked"]), (&true.into(), &false.into()), "{port}");
        // Quiet for ten seconds: it is open, and the next VM is learned there.
        eventually(Duration::from_secs(30), "the port is open again", || {
            match status(&m, "gauges", "ports_guarded") {
                0 => Ok(()),
                n => Err(n),
            }
        });
        eventually(SOON, "strangers come in", || strangers_pass(&m, &bad, 1, 900_002));
        assert!(
            m.vtepd(0).show("events", &[]).iter().any(|e| e["event"] == "port-opened" && e["port"] == "p2")
        );
        // 200 made-up ones are still there, and have the places.
        m.guest(0).send(&late.garp());
        eventually(SOON, "learned as ever", || m.vtep(1).sends_to(100, late.mac, &Place::vtep(m.vtep(0))));
    }
}

#[test]
fn no_filter_outlives_the_daemon_however_it_ends() {
    if !met(&[Need::Root]) {
        return;
    }
    let mut m = fabric(false);
    let bad = m.fabric.guest_port(0, "p2");
    until_guarded(&m, &bad);
    assert_eq!(strangers_pass(&m, &bad, 0, 900_001), Err("dropped"));
    m.kill_vtepd(0);
    // Behind another port of the same bridge: the other VTEP accepts nothing from one that it does not know.
    eventually(SOON, "open after a kill", || strangers_pass(&m, &bad, 0, 900_002));
    let mut m = fabric(false);
    let bad = m.fabric.guest_port(0, "p2");
    until_guarded(&m, &bad);
    m.stop_vtepd(0);
    eventually(SOON, "open after a stop", || strangers_pass(&m, &bad, 0, 900_003));
}

/// What found no place is in the bridge all the same. When others go it gets theirs, without saying another word.
#[test]
fn a_vm_that_found_no_place_gets_the_one_of_another_that_has_gone() {
    if !met(&[Need::Root]) {
        return;
    }
    let mut m = Mixed::new(Fabric::new(2));
    for i in [0, 1] {
        let mut conf = m.fabric.conf(i);
        conf.vni_extra = "port-mac-limit = 20".into();
        m.start_vtepd_with(i, &conf);
    }
    m.converge();
    let vms: Vec<Guest> = (100..125).map(Guest::new).collect();
    for g in &vms {
        m.guest(0).send(&g.garp());
    }
    let known = || m.vtepd(1).status()["remote_macs"].as_u64().unwrap_or(0);
    eventually(SOON, "the limit", || if known() == 20 { Ok(()) } else { Err(known()) });
    let (first, last) = vms.split_at(20);
    for g in last {
        assert_eq!(m.vtep(0).sends_to(100, g.mac, &Place::port("p1")), Ok(()), "the bridge has it");
        assert_eq!(m.vtep(1).sends_to(100, g.mac, &Place::Nowhere), Ok(()), "and nobody else");
    }
    for g in &first[..10] {
        m.vtep(0).ns.sh(&format!("bridge fdb del {} dev p1 master", g.mac));
    }
    eventually(LATER, "all that are left are known", || {
        for g in &vms[10..] {
            m.vtep(1).sends_to(100, g.mac, &Place::vtep(m.vtep(0))).map_err(|p| (g.mac, p))?;
        }
        Ok::<_, (Mac, Place)>(())
    });
    assert_eq!(known(), 15);
}
