//! Two copies of one VM, both alive: a WAN that was cut, a VM restarted at the other site, the WAN healed (PIT-24). Who is
//! told, who keeps the address, and that the network comes to rest.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use vtepd_tests::fabric::{Fabric, Guest, test_mac};
use vtepd_tests::frame;
use vtepd_tests::mixed::Mixed;
use vtepd_tests::moves::Mentions;
use vtepd_tests::need::{Need, met};
use vtepd_tests::packet::{Wire, now};
use vtepd_tests::poll::{LATER, SOON, eventually, throughout};

/// How long nothing may happen where nothing should.
const QUIET: Duration = Duration::from_secs(2);

/// A living guest on a port: answers ARP requests for its address and says something every 50 ms.
fn live(port: &Wire, g: &Guest, stop: &AtomicBool) {
    let mut n = 0;
    while !stop.load(Ordering::Relaxed) {
        let asked = port.find(Duration::from_millis(50), |f| {
            let b = f.get(..42)?;
            let asks = b[12..14] == [8, 6]
                && b[20..22] == [0, 1]
                && b[38..42] == g.ip.octets()
                && b[6..12] != g.mac.0;
            let from: [u8; 4] = b[28..32].try_into().ok()?;
            asks.then_some((evpn::types::Mac::from_slice(&b[22..28])?, from.into()))
        });
        if let Some((_, asker)) = asked {
            port.send(&frame::arp_reply((g.mac, g.ip), asker));
        } else {
            n += 1;
            port.send(&frame::data(test_mac(0xfff), g.mac, n));
        }
    }
}

/// The duplicate that a vtepd has told of this guest, if any: the event.
fn told(m: &Mixed, at: usize, g: &Guest) -> Option<serde_json::Value> {
    let events = m.vtepd(at).show("events", &[]);
    events.into_iter().find(|e| e["event"] == "duplicate" && e.to_string().contains(&g.mac.to_string()))
}

/// VTEPs 0 and 2 are one site, VTEP 1 is the other; `frr` says which of them runs FRR, if any. The guest runs at VTEP 0
/// and, while the WAN was cut, has been started at VTEP 1. Gives the fabric just before it is healed.
fn split_brain(frr: Option<usize>, action: &str, g: &Guest) -> Mixed {
    let mut m = Mixed::new(Fabric::new(3));
    if let Some(f) = frr {
        m.start_frr(f);
    }
    let vtepds: Vec<usize> = (0..3).filter(|i| Some(*i) != frr).collect();
    for i in &vtepds {
        let mut conf = m.fabric.conf(*i);
        conf.neighbor_extra = "hold-time = 3".into();
        conf.sections = format!("[mobility]\nduplicates = {{ action = \"{action}\" }}");
        m.start_vtepd_with(*i, &conf);
    }
    m.converge();
    m.appears(g, 0);
    m.wan(1, false);
    eventually(LATER, "both sides notice the cut", || {
        for i in &vtepds {
            for peer in (0..3).filter(|p| p != i && (*p == 1 || *i == 1)) {
                let s = m.vtepd(*i).neighbor_state(m.vtep(peer).address);
                if s == "Established" {
                    return Err(format!("VTEP {i} still has {peer}"));
                }
            }
        }
        if frr == Some(1) { m.is_silent(1, g.ip.into()) } else { Ok(()) }
    });
    m.guest(1).send(&g.garp());
    eventually(SOON, "it runs at both sites", || m.sends_home(1, 1, g).and(m.sends_home(0, 0, g)));
    m
}

/// Both copies live while `check` runs, after the WAN has been healed. `check` gets the time of healing.
fn healed<T>(m: &Mixed, g: &Guest, check: impl FnOnce(u64) -> T) -> T {
    let stops = [AtomicBool::new(false), AtomicBool::new(false)];
    let ports = [m.guest(0), m.guest(1)];
    std::thread::scope(|s| {
        for (port, stop) in ports.iter().zip(&stops) {
            s.spawn(move || live(port, g, stop));
        }
        // However it ends, the guests end too.
        let _end = End(&stops);
        m.wan(1, true);
        check(now())
    })
}

struct End<'a>(&'a [AtomicBool; 2]);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.iter().for_each(|s| s.store(true, Ordering::Relaxed));
    }
}

/// Who told of the duplicate. Prints when, counted from the healing: sessions have to come up first, and FRR's first
/// UPDATE waits for a second.
fn reported(m: &Mixed, g: &Guest, of: &[usize], healed: u64) -> usize {
    let who = eventually(LATER, "the duplicate is reported", || {
        of.iter().copied().find(|i| told(m, *i, g).is_some()).ok_or("nobody told")
    });
    println!("reported by VTEP {who} within {:?} of healing", Duration::from_nanos(now() - healed));
    who
}

/// Everybody agrees on one owner, and nobody says anything about it for a while. Gives the owner.
fn at_rest(m: &Mixed, g: &Guest) -> usize {
    let owner = eventually(LATER, "all kernels agree on one owner", || {
        let said = Mentions::open(m, 2, g.mac);
        std::thread::sleep(Duration::from_millis(500));
        let n = said.heard().len();
        let owner = [0, 1].into_iter().find(|o| (0..3).all(|i| m.sends_home(i, *o, g).is_ok()));
        owner.filter(|_| n == 0).ok_or(n)
    });
    let said = Mentions::open(m, 2, g.mac);
    throughout(QUIET, "they go on agreeing", || (0..3).try_for_each(|i| m.sends_home(i, owner, g)));
    assert_eq!(said.heard().len(), 0, "no flapping");
    owner
}

/// Told as it is by default, and no more than that: the address may go to and fro, at most once per guard time and side.
#[test]
fn two_living_copies_are_reported_and_bounded() {
    if !met(&[Need::Root]) {
        return;
    }
    let g = Guest::new(55);
    let m = split_brain(None, "report", &g);
    healed(&m, &g, |at| {
        reported(&m, &g, &[0, 1], at);
        let said = Mentions::open(&m, 2, g.mac);
        std::thread::sleep(QUIET);
        // MAC and MAC+IP, announced by one and withdrawn by the other: at most twice a second and side.
        let n = said.heard().len();
        println!("{n} routes said within {QUIET:?}");
        assert!(n <= 40, "{n} routes within {QUIET:?}");
    });
    // Once one copy is gone, the other has it.
    m.shut_down(0);
    m.guest(1).send(&g.garp());
    assert_eq!(at_rest(&m, &g), 1);
}

/// Frozen: one owner everywhere although both go on talking; when the owner falls silent the other one gets it.
#[test]
fn two_living_copies_are_frozen_until_one_is_gone() {
    if !met(&[Need::Root]) {
        return;
    }
    let g = Guest::new(56);
    let m = split_brain(None, "freeze", &g);
    healed(&m, &g, |at| {
        let who = reported(&m, &g, &[0, 1], at);
        let row = m.vtepd(who).show("duplicates", &[]);
        assert!(row.iter().any(|r| r["state"] == "frozen"), "{row:?}");
        let owner = at_rest(&m, &g);
        assert_ne!(owner, who, "it is found out by the site that has lost it");
        m.shut_down(owner);
    });
    // The owner's port has gone with its copy: the other one is found, without a word of its own.
    let other = eventually(LATER, "the other copy has it", || {
        [0, 1].into_iter().find(|o| m.sends_home(2, *o, &g).is_ok()).ok_or("nobody")
    });
    m.guest(other).send(&g.garp());
    assert_eq!(at_rest(&m, &g), other);
}

/// The same with FRR in the site that was cut off: FRR claims with every frame. vtepd finds out, freezes, and the fabric
/// is at rest with FRR as the owner.
#[test]
fn two_living_copies_beside_frr_are_frozen() {
    if !met(&[Need::Root, Need::Frr]) {
        return;
    }
    let g = Guest::new(57);
    let m = split_brain(Some(1), "freeze", &g);
    healed(&m, &g, |at| {
        reported(&m, &g, &[0], at);
        assert_eq!(at_rest(&m, &g), 1);
    });
}
