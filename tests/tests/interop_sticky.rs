//! Sticky MACs of our own, and questions to hosts, beside FRR on the real kernel.

use std::net::Ipv4Addr;
use std::time::Duration;
use vtepd_tests::fabric::{Guest, Place, test_mac};
use vtepd_tests::frame;
use vtepd_tests::mixed::Mixed;
use vtepd_tests::need::{Need, met};
use vtepd_tests::poll::{LATER, SOON, eventually, same, throughout};

const NEEDS: [Need; 2] = [Need::Root, Need::Frr];
/// How long nothing may happen where nothing should.
const QUIET: Duration = Duration::from_millis(700);

/// A pair whose vtepd has ports `p1` and `p2`, and the guest as sticky on `p1`.
fn pair(g: &Guest) -> Mixed {
    let mut m = Mixed::new(vtepd_tests::fabric::Fabric::new(2));
    m.start_frr(1);
    m.vtep(0).add_port(&m.fabric.guests, "p2");
    let mut conf = m.fabric.conf(0);
    conf.vnis = vec![(100, vec!["p1".into(), "p2".into()])];
    conf.vni_extra = format!("sticky = {{ \"{}\" = \"p1\" }}", g.mac);
    m.start_vtepd_with(0, &conf);
    m.converge();
    m
}

/// Scenario 40, from vtepd: known at FRR before the host has spoken, and not to be had by anybody there (EVPN-MOB-17).
#[test]
fn a_mac_that_is_sticky_here_is_never_frrs() {
    if !met(&NEEDS) {
        return;
    }
    let g = Guest::new(60);
    let m = pair(&g);
    eventually(LATER, "FRR's kernel sends to us", || m.sends_home(1, 0, &g));
    eventually(SOON, "and ours to the port", || m.sends_home(0, 0, &g));
    let row = m.frr(1).mac(100, &g.mac.to_string());
    assert_eq!((&row["type"], &row["stickyMac"]), (&"remote".into(), &true.into()), "{row}");
    let stranger = m.guest(1);
    for n in 0..5 {
        stranger.send(&g.garp());
        stranger.send(&frame::data(test_mac(99), g.mac, n));
    }
    throughout(QUIET, "FRR gives it nothing", || {
        m.frr_says(1, &g, "remote", 0).map_err(|e| e.to_string())?;
        same(m.vtepd(0).mac(&g.mac.to_string())["place"]["port"].clone(), "p1".into())
    });
    eventually(SOON, "nor does its kernel", || m.sends_home(1, 0, &g));
    m.sends_home(0, 0, &g).unwrap();
    assert_eq!(m.seq(0, &g), 0);
}

/// EVPN-MOB-17: a frame on another port turns the kernel's row, and it is turned back; ageing does not concern it; it goes
/// and comes with its port.
#[test]
fn a_sticky_mac_stays_on_its_port_in_the_kernel() {
    if !met(&NEEDS) {
        return;
    }
    let g = Guest::new(61);
    let m = pair(&g);
    eventually(LATER, "FRR's kernel sends to us", || m.sends_home(1, 0, &g));
    let p2 = m.fabric.guest_port(0, "p2");
    for _ in 0..5 {
        p2.send(&g.rarp());
        eventually(SOON, "back on its port", || m.sends_home(0, 0, &g));
    }
    let events = m.vtepd(0).status()["counters"]["sticky_misplaced"].as_u64();
    assert!(events > Some(0), "{events:?}");
    m.vtep(0).ns.sh(&format!("bridge fdb del {} dev p1 master", g.mac));
    eventually(SOON, "written again", || m.sends_home(0, 0, &g));
    m.sends_home(1, 0, &g).unwrap();

    m.fabric.guests.sh("ip link set x1p1 down");
    eventually(SOON, "FRR has lost it", || m.vtep(1).sends_to(100, g.mac, &Place::Nowhere));
    m.fabric.guests.sh("ip link set x1p1 up");
    eventually(LATER, "and has it again", || m.sends_home(1, 0, &g));
    eventually(SOON, "so has our kernel", || m.sends_home(0, 0, &g));
}

/// EVPN-IRB-13: the loser asks the port that lost the MAC, by unicast and after it has withdrawn; whoever answers is back.
#[test]
fn the_loser_of_a_move_asks_its_port_and_an_answer_brings_the_mac_back() {
    if !met(&NEEDS) {
        return;
    }
    let m = Mixed::converged_pair();
    let g = Guest::new(62);
    m.appears(&g, 0);
    let port = m.guest(0);
    while port.poll().is_some() {}
    m.moves(&g, 1);
    let mut probe = None;
    eventually(SOON, "a probe comes out of the port", || {
        while let Some((_, f)) = port.poll() {
            // ARP, to the guest alone, for its address.
            if f.get(..6) == Some(&g.mac.0)
                && f.get(12..14) == Some(&[8, 6])
                && f.get(38..42) == Some(&g.ip.octets())
            {
                probe = Some(f);
            }
        }
        if probe.is_some() { Ok(()) } else { Err("nothing of the kind") }
    });
    let probe = probe.expect("it came");
    let asker = evpn::types::Mac::from_slice(&probe[6..12]).expect("six octets");
    let answer = frame::arp_reply((g.mac, g.ip), (asker, Ipv4Addr::UNSPECIFIED));
    port.send(&answer);
    eventually(SOON, "it is here again", || m.sends_home(0, 0, &g));
    eventually(SOON, "above the other", || same(m.seq(0, &g), 2));
    eventually(LATER, "and FRR follows", || m.sends_home(1, 0, &g));
}
