//! What can be lost, and how it is found again, on the real kernel.
#![allow(clippy::unwrap_used, reason = "test helpers may panic")]

mod common;

use common::*;
use evpn::fabric::{KernelEvent, Row, RowKey};
use netlink::linux::Writer;
use netlink::{Kernel as _, Op};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

fn load(p: &mut Plane, n: u32) -> (RowKey, evpn::types::IfIndex, evpn::types::IfIndex) {
    let (br, vx) = (index("br100"), index("vx100"));
    for i in 0..n {
        let key = RowKey::Mac { bridge: br, mac: mac(i) };
        p.want.set(key, Row::Remote { vxlan: vx, vtep: vtep(2), sticky: false }, false);
    }
    p.until("all rows", |p| (p.written.len() == n as usize).then_some(()));
    p.settle();
    p.written.clear();
    p.events.clear();
    (RowKey::Mac { bridge: br, mac: mac(0) }, br, vx)
}

/// PIT-13: dumps under churn are short; nothing that stays is ever taken for gone.
#[test]
fn twenty_thousand_stable_rows_survive_resyncs_under_churn_without_a_withdrawal() {
    in_netns(|| {
        underlay();
        port("p1");
        let mut p = Plane::synced(vec![device(&["p1"])]);
        // Half of them local, written as guests would be learned: their loss would be a withdrawal.
        let (_, br, vx) = load(&mut p, 10_000);
        let port = index("p1");
        let mut writer = Writer::open().unwrap();
        let locals: Vec<Op> = (50_000..60_000).map(|i| Op::SetLocal { port, mac: mac(i) }).collect();
        let mut results = Vec::new();
        writer.apply(&locals, &mut results);
        assert!(results.iter().all(Result::is_ok));
        p.until("local rows", |p| {
            let (bridge, ..) = p.plane.mirror().len();
            (bridge >= 20_000).then_some(())
        });
        let stop = Arc::new(AtomicBool::new(false));
        let churn = {
            let stop = Arc::clone(&stop);
            // A thread of this namespace.
            std::thread::spawn(move || {
                let mut w = Writer::open().unwrap();
                let mut results = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    for i in (100_000..104_000).step_by(64) {
                        let set: Vec<Op> = (i..i + 64).map(|i| Op::SetLocal { port, mac: mac(i) }).collect();
                        let del: Vec<Op> = (i..i + 64).map(|i| Op::DelMaster { port, mac: mac(i) }).collect();
                        results.clear();
                        w.apply(&set, &mut results);
                        w.apply(&del, &mut results);
                        // Churn, not a race for the monitor's buffer.
                        wait(&[], 1);
                    }
                }
            })
        };
        let stable = |e: &KernelEvent| {
            use evpn::fabric::FdbRow;
            let m = match e {
                KernelEvent::FdbGone(FdbRow::Bridge(r)) => r.mac,
                KernelEvent::FdbGone(FdbRow::Vxlan(r)) => r.mac,
                _ => return false,
            };
            let [_, _, a, b, c, d] = m.0;
            u32::from_be_bytes([a, b, c, d]) < 100_000 && m.0[0] == 2 && m.0[1] == 0
        };
        let mut withdrawn = Vec::new();
        // A hundred; on a slow machine as many as fit into twenty seconds.
        let end = Instant::now() + Duration::from_secs(20);
        for n in 0..100 {
            if n >= 5 && Instant::now() > end {
                break;
            }
            p.plane.resync().unwrap();
            p.until("Synced", |p| {
                withdrawn.extend(p.events.iter().filter(|e| stable(e)).cloned());
                let done = p.events.contains(&KernelEvent::Synced);
                p.events.clear();
                done.then_some(())
            });
            assert_eq!(withdrawn, [], "resync {n}");
        }
        stop.store(true, Ordering::Relaxed);
        churn.join().unwrap();
        p.settle();
        let c = p.plane.counters();
        println!("resyncs {}, rows that a dump did not show: {}", c.resyncs, c.short_dump_rows);
        assert_eq!(c.repairs, 0, "nothing of ours was ever missing");
        let _ = (br, vx);
    });
}

/// Lost notifications: the counter moves, the tables are read again, and what happened meanwhile is found.
#[test]
fn an_overrun_is_followed_by_a_resync_that_finds_what_was_missed() {
    in_netns(|| {
        underlay();
        port("p1");
        let mut p = Plane::synced(vec![device(&["p1"])]);
        let (first, _, vx) = load(&mut p, 2_000);
        p.plane.set_monitor_buffer(4096);
        // Somebody else deletes everything while the monitor's buffer is tiny.
        let del: Vec<Op> =
            (0..2_000).map(|i| Op::DelRemote { vxlan: vx, mac: mac(i), vtep: vtep(2) }).collect();
        let mut results = Vec::new();
        Writer::open().unwrap().apply(&del, &mut results);
        assert!(!bridge("fdb show dev vx100").contains("02:00:00:00:00:00"));
        p.until("Overrun and Synced", |p| {
            let over = p.events.iter().position(|e| *e == KernelEvent::Overrun)?;
            p.events[over..].contains(&KernelEvent::Synced).then_some(())
        });
        p.plane.set_monitor_buffer(16 << 20);
        assert!(p.plane.overruns() >= 1);
        p.settle();
        p.until("all rows back", |_| (bridge("fdb show dev vx100").lines().count() >= 4_000).then_some(()));
        let RowKey::Mac { mac, .. } = first else { unreachable!() };
        assert!(bridge("fdb show dev vx100").contains(&mac.to_string()));
        assert!(p.plane.counters().repairs >= 2_000);
    });
}

/// PIT-01: whatever empties the bridge's neighbour table, 10,000 rows are back at once, and no forwarding row
/// was lost.
#[test]
fn ten_thousand_neighbours_come_back_after_each_way_of_losing_them() {
    in_netns(|| {
        underlay();
        port("p1");
        ip("link set p1 address 06:00:00:00:00:05");
        // Adopted, with a MAC that follows its ports.
        ip("link add br100 type bridge mcast_snooping 0");
        let mut p = Plane::synced(vec![device(&["p1"])]);
        assert!(p.plane.problems().iter().any(|d| d.id == "floating-mac"), "{:?}", p.plane.problems());
        let (br, vx) = (index("br100"), index("vx100"));
        let neigh = |i: u32| IpAddr::from(Ipv4Addr::from(0xc633_0000 + i));
        for i in 0..10_000 {
            let key = RowKey::Neigh { dev: br, ip: neigh(i) };
            p.want.set(key, Row::Neigh { mac: mac(i), router: false }, false);
        }
        let key = RowKey::Mac { bridge: br, mac: mac(1) };
        p.want.set(key, Row::Remote { vxlan: vx, vtep: vtep(2), sticky: false }, false);
        p.until("all rows", |p| (p.written.len() == 10_001).then_some(()));
        let rows = || ip("neigh show dev br100 nud all").lines().filter(|l| l.contains("proto 158")).count();
        p.until("all neighbours", |_| (rows() == 10_000).then_some(()));
        let ways: [(&str, &dyn Fn()); 3] = [
            ("a port with a lower MAC joins", &|| {
                port("p2");
                ip("link set p2 address 02:00:00:00:00:05");
                ip("link set p2 master br100");
            }),
            ("the bridge goes down and up", &|| {
                ip("link set br100 down");
                ip("link set br100 up");
            }),
            ("the bridge gets another MAC", &|| {
                ip("link set br100 address 02:bb:00:00:00:77");
            }),
        ];
        for (what, f) in ways {
            let repaired = p.plane.counters().repairs;
            f();
            p.until(what, |p| {
                (p.plane.counters().repairs >= repaired + 10_000 && rows() == 10_000).then_some(())
            });
            p.settle();
            assert!(bridge("fdb show dev vx100").contains("02:00:00:00:00:01"), "{what}");
        }
    });
}

/// A port that comes later than the daemon, and one that is taken away and comes back.
#[test]
fn late_ports_and_late_devices_are_taken_in_when_they_come() {
    in_netns(|| {
        underlay();
        let mut p = Plane::synced(vec![device(&["p1"])]);
        assert!(p.plane.problems().iter().any(|d| d.id == "port-missing" && d.device == "p1"));
        port("p1");
        p.until("p1 enslaved", |_| bridge("-o link show").contains("p1").then_some(()));
        p.until("no problem left", |p| p.plane.problems().is_empty().then_some(()));
        let key = RowKey::Mac { bridge: index("br100"), mac: mac(1) };
        let vx = index("vx100");
        p.want.set(key, Row::Remote { vxlan: vx, vtep: vtep(2), sticky: false }, true);
        p.settle();
        ip("link del vx100");
        p.until("vx100 made again", |_| ip("-o link show").contains("vx100").then_some(()));
        p.until("told as gone", |p| p.events.contains(&KernelEvent::LinkGone(vx)).then_some(()));
    });
}

/// One acknowledgement stands for a whole send: failures in it, also at its end, are told of the row they belong
/// to, and the rows around them are written.
#[test]
fn failures_within_a_batch_are_told_of_their_rows_alone() {
    in_netns(|| {
        ip("link add br0 type bridge");
        ip("link add vx0 type vxlan id 1 local 10.0.0.1 dstport 4789 nolearning");
        ip("link set vx0 master br0 up");
        ip("link set br0 up");
        let vxlan = index("vx0");
        let nowhere = evpn::types::IfIndex(999_999);
        let bad = |n: u32| [63, 64, 100, 199].contains(&n);
        let op =
            |n| Op::SetRemote { vxlan: if bad(n) { nowhere } else { vxlan }, mac: mac(n), vtep: vtep(2) };
        let ops: Vec<Op> = (0..200).map(op).collect();
        let mut results = Vec::new();
        let mut writer = Writer::open().unwrap();
        writer.apply(&ops, &mut results);
        let failed: Vec<u32> = (0..200).filter(|n| results[*n as usize].is_err()).collect();
        assert_eq!(failed, [63, 64, 100, 199]);
        let errno = |n: usize| results[n].as_ref().unwrap_err().errno;
        assert_eq!((errno(64), errno(199)), (libc::ENODEV, libc::ENODEV));
        let rows = bridge("fdb show dev vx0");
        for n in 0..200 {
            assert_eq!(rows.contains(&format!("{} dst 10.0.0.2 self", mac(n))), !bad(n), "row {n}: {rows}");
        }
        // The same writer goes on as if nothing had been wrong.
        results.clear();
        writer.apply(&[op(63), op(1)], &mut results);
        assert!(results[0].is_err() && results[1].is_ok(), "{results:?}");
    });
}
