//! The real kernel, driven as the daemon drives it.
#![allow(clippy::unwrap_used, reason = "test helpers may panic")]

mod common;

use common::*;
use evpn::fabric::{FdbRow, KernelEvent, Row, RowKey, WriteResult};

#[test]
fn absent_devices_are_created_as_the_pitfalls_ask_and_a_second_run_changes_nothing() {
    in_netns(|| {
        underlay();
        port("p1");
        let p = Plane::synced(vec![device(&["p1"])]);
        assert_eq!(p.plane.problems(), &[]);
        let br = ip("-d -o link show dev br100");
        for s in ["address", "mcast_snooping 0", "stp_state 0", "02:bb:00:00:00:01", "UP"] {
            assert!(s == "address" || br.contains(s), "{s} in {br}");
        }
        let vx = ip("-d -o link show dev vx100");
        for s in [
            "id 100",
            "local 10.0.0.1",
            "srcport 49152 65535",
            "dstport 4789",
            "nolearning",
            "df set",
            "udp6zerocsumrx",
            "master br100",
        ] {
            assert!(vx.contains(s), "{s} in {vx}");
        }
        let flags = bridge("-d -o link show dev vx100");
        assert!(flags.contains("learning off") && flags.contains("neigh_suppress on"), "{flags}");
        assert!(bridge("-o link show dev p1").contains("master br100"));
        let conf = |k: &str| std::fs::read_to_string(format!("/proc/sys/net/{k}")).unwrap().trim().to_owned();
        assert_eq!(conf("ipv4/conf/br100/arp_ignore"), "8");
        assert_eq!(conf("ipv6/conf/br100/accept_ra"), "0");
        assert_eq!(conf("ipv6/conf/br100/addr_gen_mode"), "1");
        assert!(!ip("-6 -o addr show dev br100").contains("inet6"));
        p.plane.stop(false).unwrap();
        // Once more, on what is there.
        let p = Plane::synced(vec![device(&["p1"])]);
        assert_eq!(p.plane.problems(), &[]);
        p.plane.stop(false).unwrap();
        assert!(ip("-o link show").contains("vx100"));
    });
}

#[test]
fn a_remote_mac_gets_both_rows_moves_between_vteps_and_goes_again() {
    in_netns(|| {
        underlay();
        port("p1");
        let mut p = Plane::synced(vec![device(&["p1"])]);
        let (br, vx) = (index("br100"), index("vx100"));
        let key = RowKey::Mac { bridge: br, mac: mac(1) };
        for n in [2, 3] {
            p.want.set(key, Row::Remote { vxlan: vx, vtep: vtep(n), sticky: false }, true);
            p.written.clear();
            p.until("result", |p| p.written.iter().find(|(k, _)| *k == key).cloned());
            assert_eq!(p.written, [(key, WriteResult::Done)]);
            let rows = bridge("fdb show dev vx100");
            let rows: Vec<&str> = rows.lines().filter(|l| l.contains("02:00:00:00:00:01")).collect();
            assert_eq!(rows.len(), 2, "{rows:?}");
            assert!(
                rows.iter().any(|r| r.contains("master br100") && r.contains("extern_learn")),
                "{rows:?}"
            );
            assert!(
                rows.iter().any(|r| r.contains(&format!("dst 10.0.0.{n} self extern_learn"))),
                "{rows:?}"
            );
        }
        p.want.remove(&key, false);
        p.written.clear();
        p.until("result", |p| p.written.iter().find(|(k, _)| *k == key).cloned());
        assert!(!bridge("fdb show").contains("02:00:00:00:00:01"));
        p.settle();
        assert_eq!(p.plane.counters().repairs, 0);
    });
}

/// PIT-04, PIT-06: the rows of a prepared move, one after the other, over what the guest's own frames left.
#[test]
fn a_released_mac_is_pinned_an_activated_one_is_on_its_port_and_an_aborted_one_is_nowhere() {
    in_netns(|| {
        underlay();
        port("p1");
        let mut p = Plane::synced(vec![device(&["p1"])]);
        let (br, vxlan, port) = (index("br100"), index("vx100"), index("p1"));
        let key = RowKey::Mac { bridge: br, mac: mac(1) };
        bridge("fdb add 02:00:00:00:00:01 dev p1 master dynamic");
        let rows = || {
            let all = bridge("fdb show");
            let mut rows: Vec<String> = all
                .lines()
                .filter_map(|l| l.strip_prefix("02:00:00:00:00:01 "))
                .map(|l| l.trim().to_owned())
                .collect();
            rows.sort();
            rows
        };
        let own = "dev vx100 dst 10.0.0.2 self extern_learn";
        let remote = |sticky| Row::Remote { vxlan, vtep: vtep(2), sticky };
        let relayed = Row::Relayed { vxlan, vtep: vtep(2), port };
        for (row, wanted) in [
            (remote(true), vec![own, "dev vx100 sticky master br100 static"]),
            (remote(false), vec![own, "dev vx100 extern_learn master br100"]),
            (remote(true), vec![own, "dev vx100 sticky master br100 static"]),
            (Row::Local { vxlan, port }, vec!["dev p1 master br100"]),
            (Row::Cleared { port }, vec![]),
            (Row::Local { vxlan, port }, vec!["dev p1 master br100"]),
            (remote(false), vec![own, "dev vx100 extern_learn master br100"]),
            // On its way through a port of ours, from and to each of the others (PIT-26).
            (relayed, vec!["dev p1 master br100", own]),
            (remote(true), vec![own, "dev vx100 sticky master br100 static"]),
            (relayed, vec!["dev p1 master br100", own]),
            (Row::Local { vxlan, port }, vec!["dev p1 master br100"]),
            (relayed, vec!["dev p1 master br100", own]),
            (Row::Cleared { port }, vec![]),
        ] {
            p.want.set(key, row, true);
            p.written.clear();
            let result = p.until("result", |p| p.written.iter().find(|(k, _)| *k == key).cloned());
            assert_eq!(result.1, WriteResult::Done, "{row:?}");
            assert_eq!(rows(), wanted, "{row:?}");
        }
        p.settle();
        assert_eq!(p.plane.counters().repairs, 0);
    });
}

#[test]
fn what_somebody_deletes_or_changes_is_put_back() {
    in_netns(|| {
        underlay();
        port("p1");
        let mut p = Plane::synced(vec![device(&["p1"])]);
        let (br, vx) = (index("br100"), index("vx100"));
        let host = RowKey::Mac { bridge: br, mac: mac(1) };
        let ip4 = RowKey::Neigh { dev: br, ip: "192.0.2.7".parse().unwrap() };
        let flood = RowKey::Flood { vxlan: vx, vtep: vtep(2) };
        let own = RowKey::Mac { bridge: br, mac: mac(2) };
        p.want.set(own, Row::Own, false);
        p.want.set(host, Row::Remote { vxlan: vx, vtep: vtep(2), sticky: false }, false);
        p.want.set(ip4, Row::Neigh { mac: mac(1), router: false }, false);
        p.want.set(flood, Row::Flood, false);
        p.until("four rows", |p| (p.written.len() == 4).then_some(()));
        bridge("fdb del 02:00:00:00:00:01 dev vx100 self");
        bridge("fdb del 02:00:00:00:00:01 dev vx100 master");
        bridge("fdb del 00:00:00:00:00:00 dev vx100 dst 10.0.0.2 self");
        ip("neigh del 192.0.2.7 dev br100");
        bridge("fdb add 02:00:00:00:00:01 dev p1 master dynamic");
        // PIT-15: and a guest speaks with the address before it is back.
        bridge("fdb del 02:00:00:00:00:02 dev br100 self");
        bridge("fdb add 02:00:00:00:00:02 dev p1 master dynamic");
        p.until("repair", |_| {
            let rows = bridge("fdb show");
            (rows.contains("02:00:00:00:00:01 dev vx100 dst 10.0.0.2 self extern_learn")
                && rows.contains("02:00:00:00:00:01 dev vx100 extern_learn master br100")
                && !rows.contains("02:00:00:00:00:01 dev p1")
                && rows.contains("00:00:00:00:00:00 dev vx100 dst 10.0.0.2")
                && rows.contains("02:00:00:00:00:02 dev br100 extern_learn master br100 permanent")
                && !rows.contains("02:00:00:00:00:02 dev p1")
                && ip("neigh show dev br100 nud all").contains("192.0.2.7 lladdr 02:00:00:00:00:01"))
            .then_some(())
        });
        assert!(p.plane.counters().repairs >= 4, "{:?}", p.plane.counters());
    });
}

#[test]
fn rows_that_are_there_at_the_start_are_told_before_synced_and_kept_if_adopted() {
    in_netns(|| {
        underlay();
        port("p1");
        let p = Plane::synced(vec![device(&["p1"])]);
        p.plane.stop(false).unwrap();
        bridge("fdb replace 02:00:00:00:00:01 dev vx100 dst 10.0.0.2 self master dynamic extern_learn");
        let mut p = Plane::open(vec![device(&["p1"])]);
        let (br, vx) = (index("br100"), index("vx100"));
        let key = RowKey::Mac { bridge: br, mac: mac(1) };
        p.until("the row", |p| {
            p.events
                .iter()
                .find(|e| matches!(e, KernelEvent::Fdb(FdbRow::Vxlan(r)) if r.mac == mac(1)))
                .cloned()
        });
        p.want.adopt(key, Row::Remote { vxlan: vx, vtep: vtep(2), sticky: false });
        p.until("the first complete read", |p| p.events.contains(&KernelEvent::Synced).then_some(()));
        p.settle();
        p.plane.audit(&p.want, 1000);
        p.settle();
        assert_eq!(p.written, []);
        assert!(bridge("fdb show").contains("02:00:00:00:00:01 dev vx100 dst 10.0.0.2"));
        // Nobody wants it: an audit removes it.
        p.want = evpn::fabric::Want::default();
        p.plane.audit(&p.want, 1000);
        p.settle();
        assert!(!bridge("fdb show").contains("02:00:00:00:00:01"));
    });
}
