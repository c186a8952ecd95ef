//! Frames for a guest that stands still at its source: the hold port keeps them and they follow the guest, on a real
//! kernel (PIT-26).

use std::time::Duration;
use vtepd_tests::fabric::{Fabric, Guest, Place, test_mac};
use vtepd_tests::frame;
use vtepd_tests::mixed::Mixed;
use vtepd_tests::need::{Need, met};
use vtepd_tests::packet::Wire;
use vtepd_tests::poll::{LATER, SOON, eventually, same};

const HOLD: &str = "vtepd-h100";

/// A source, a target, and a third one that hears of nothing: it goes on sending to the source for ever, as one does
/// that has not heard yet.
struct World {
    m: Mixed,
    guest: Guest,
    source: Wire,
    target: Wire,
    sender: Wire,
    sent: u64,
}

impl World {
    fn new(number: u8, extra: &str) -> Self {
        let mut m = Mixed::new(Fabric::new(3));
        for i in [0, 1] {
            let mut conf = m.fabric.conf(i);
            conf.neighbors.truncate(1);
            // The third one is in no flood list.
            conf.vtep_extra += "\nsource-filter = false";
            extra.clone_into(&mut conf.sections);
            m.start_vtepd_with(i, &conf);
        }
        m.converge();
        let guest = Guest::new(number);
        m.guest(0).send(&guest.garp());
        eventually(LATER, "the target knows where it is", || {
            m.vtep(1).sends_to(100, guest.mac, &Place::vtep(m.vtep(0)))
        });
        let third = m.vtep(2);
        third.make_devices(100, &["p1"]);
        third.ns.sh(&format!("bridge fdb add {} dev vx100 master static", guest.mac));
        third.ns.sh(&format!("bridge fdb add {} dev vx100 dst {} self", guest.mac, m.vtep(0).address));
        let (source, target) = (m.fabric.guest_port(0, "p1"), m.fabric.guest_port(1, "p1"));
        let sender = m.fabric.guest_mouth(2, "p1");
        let mut w = Self { m, guest, source, target, sender, sent: 0 };
        w.send(3);
        assert_eq!(w.heard(&w.source, 3), [0, 1, 2], "the way there is right");
        w
    }

    fn mac(&self) -> String {
        self.guest.mac.to_string()
    }

    /// So many frames, of different lengths.
    fn send(&mut self, n: u64) {
        for _ in 0..n {
            let mut f = frame::data(self.guest.mac, test_mac(77), self.sent);
            f.resize(if self.sent.is_multiple_of(3) { 1464 } else { 64 + (self.sent % 7) as usize }, 0);
            self.sender.send(&f);
            self.sent += 1;
            // As a ping flood does; the underlay's queues are not what is tested.
            if self.sent.is_multiple_of(50) {
                std::thread::yield_now();
            }
        }
    }

    /// Frames that arrive, until there are so many or none comes any more; and none doubled after that.
    fn heard(&self, wire: &Wire, most: usize) -> Vec<u64> {
        let mut out = Vec::new();
        let mut limit = Duration::from_secs(5);
        while let Some((_, n)) = wire.find(limit, |f| frame::as_data(f, self.guest.mac)) {
            out.push(n);
            if out.len() >= most {
                limit = Duration::from_millis(50);
            }
        }
        out
    }

    fn place(&self, vtep: usize, place: &Place) {
        eventually(SOON, "the row is where it belongs", || {
            self.m.vtep(vtep).sends_to(100, self.guest.mac, place)
        });
    }

    /// The guest stops; the kernel has the row.
    fn stop(&self) {
        self.m.vtepd(0).step("release", &["--mac", &self.mac(), "--at-stop"]).expect("released");
        self.place(0, &Place::port(HOLD));
    }

    fn counter(&self, name: &str) -> u64 {
        self.m.vtepd(0).show("status", &[])[0]["counters"][name].as_u64().unwrap_or(0)
    }
}

#[test]
fn what_is_sent_to_a_stopped_guest_arrives_at_its_target_in_order_and_once() {
    if !met(&[Need::Root]) {
        return;
    }
    let mut w = World::new(81, "[mobility]\nhold-time = \"3s\"");
    w.m.vtepd(1).step("prepare", &["--mac", &w.mac(), "--port", "p1"]).expect("prepared");
    w.stop();
    let from = w.sent;
    w.send(300);
    // It lies in nobody's queue: neither is it at the source's port, nor at the target's.
    assert_eq!(w.source.find(Duration::from_millis(100), |f| frame::as_data(f, w.guest.mac)), None);
    assert_eq!(w.target.find(Duration::from_millis(1), |f| frame::as_data(f, w.guest.mac)), None);
    // It runs. What others still send to the source follows, and the withdrawal waits for nothing.
    w.m.vtepd(1).step("activate", &["--mac", &w.mac()]).expect("activated");
    w.send(300);
    let all: Vec<u64> = (from..w.sent).collect();
    assert_eq!(w.heard(&w.target, all.len()), all);
    assert_eq!(w.source.find(Duration::from_millis(1), |f| frame::as_data(f, w.guest.mac)), None);
    assert_eq!(w.m.vtep(0).vxlan_row(100, w.guest.mac)["dst"], w.m.vtep(1).address.to_string());
    eventually(SOON, "the source has no route for it any more", || {
        w.m.routes_are(1, Some(0), &w.guest, [false; 2], 0)
    });
    // Some seconds later everybody has heard, and the bridge does it alone.
    eventually(LATER, "nothing is relayed any more", || {
        w.m.vtep(0).sends_to(100, w.guest.mac, &Place::vtep(w.m.vtep(1)))
    });
    eventually(SOON, "it was counted", || same(w.counter("frames_held") + w.counter("frames_relayed"), 600));
    assert_eq!(w.counter("held_frames_dropped"), 0);
}

#[test]
fn a_guest_that_stays_gets_what_was_held_and_so_does_one_that_speaks() {
    if !met(&[Need::Root]) {
        return;
    }
    let mut w = World::new(82, "[mobility]\nhold-time = \"60s\"\nhold-frames = 100");
    for by_itself in [false, true, false] {
        w.stop();
        let from = w.sent;
        w.send(80);
        assert_eq!(w.source.find(Duration::from_millis(100), |f| frame::as_data(f, w.guest.mac)), None);
        if by_itself {
            w.m.guest(0).send(&w.guest.rarp());
        } else {
            w.m.vtepd(0).step("abort", &["--mac", &w.mac()]).expect("aborted");
        }
        w.place(0, &Place::port("p1"));
        let all: Vec<u64> = (from..w.sent).collect();
        assert_eq!(w.heard(&w.source, all.len()), all);
        w.m.vtepd(0).step("abort", &["--mac", &w.mac()]).expect("aborted");
    }
    // More than there is room for, here and in the port's own queue, which may run over before it is read: what comes
    // first is kept, in its order, and the rest is counted.
    w.stop();
    let from = w.sent;
    w.send(400);
    let full = w.m.vtep(0).ns.json(&format!("ip -j -s link show {HOLD}"))[0].clone();
    w.m.vtepd(0).step("abort", &["--mac", &w.mac()]).expect("aborted");
    let heard = w.heard(&w.source, 100);
    assert!((100..=200).contains(&heard.len()), "{heard:?}");
    assert_eq!(heard.first(), Some(&from), "{heard:?}");
    assert!(heard.is_sorted_by(|a, b| a < b) && heard.iter().all(|n| *n < w.sent), "{heard:?}");
    eventually(SOON, "what was too much is counted", || {
        let lost = w.counter("held_frames_dropped");
        if lost + full["stats64"]["tx"]["dropped"].as_u64().unwrap_or(0) > 0 {
            Ok(())
        } else {
            Err(full.clone())
        }
    });
}

/// The hold port is no access port: nothing is learned from it or flooded to it, and a daemon that dies leaves nothing.
#[test]
fn the_hold_port_is_nobodys_port_and_goes_with_the_daemon() {
    if !met(&[Need::Root]) {
        return;
    }
    let mut w = World::new(83, "");
    let before = w.m.vtep(0).ns.json("ip -j link show br100")[0].clone();
    w.stop();
    let ns = &w.m.vtep(0).ns;
    let port = ns.json(&format!("bridge -j -d link show dev {HOLD}"))[0].clone();
    for flag in ["learning", "flood", "mcast_flood", "bcast_flood", "hairpin", "neigh_suppress"] {
        assert_eq!(port[flag], false, "{flag}: {port}");
    }
    assert_eq!(port["state"], "forwarding", "{port}");
    let after = ns.json("ip -j link show br100")[0].clone();
    assert_eq!((&after["mtu"], &after["address"]), (&before["mtu"], &before["address"]), "PIT-01");
    let spoken = ns.sh(&format!("ip -6 addr show dev {HOLD}"));
    assert_eq!(spoken.trim(), "", "the host says nothing there (PIT-02)");
    let vnis = w.m.vtepd(0).show("vnis", &[]);
    assert!(!vnis[0].to_string().contains(HOLD), "{vnis:?}");
    w.m.kill_vtepd(0);
    let ns = &w.m.vtep(0).ns;
    eventually(SOON, "the port is gone", || match ns.try_sh(&format!("ip link show {HOLD}")) {
        Ok(text) => Err(text),
        Err(_) => Ok(()),
    });
    // Its rows with it: what comes for the guest is flooded, and reaches it.
    assert_eq!(w.m.vtep(0).place(100, w.guest.mac), Place::Nowhere);
    let from = w.sent;
    w.send(1);
    assert_eq!(w.heard(&w.source, 1), [from]);
}
