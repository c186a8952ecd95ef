//! Linux hosts with the kernel's default settings reach an address again whose MAC has changed, because they are told: by
//! their own VTEP, or by the new owner when theirs is FRR (PIT-17, HOST-GARP-01, HOST-ND-01, PROXY-LEARN-05).

use std::time::Duration;
use vtepd_tests::fabric::Fabric;
use vtepd_tests::mixed::Mixed;
use vtepd_tests::need::{Need, met};
use vtepd_tests::poll::{LATER, SOON, eventually, same};
use vtepd_tests::talkers::{ADDRESSES, Change, Talkers};

/// Left alone, the host's cache would hold the old MAC for 20 s and more.
const BOUND: Duration = Duration::from_secs(3);

/// Moves each address there and back, and prints the gaps.
fn found_again(f: &Fabric, t: &Talkers, change: Change, who: &str) {
    for ip in ADDRESSES {
        t.settle(ip, 0);
        for to in [1, 0] {
            let gap = t.change(f, ip, to, change, Duration::from_secs(10));
            println!("{who}, {change:?}, {ip}: {:?}", gap.map(Duration::from_nanos));
            let gap = gap.map(Duration::from_nanos).expect("the host finds the new MAC");
            assert!(gap < BOUND, "{gap:?}");
            eventually(SOON, "both ways", || t.settled(ip));
        }
    }
}

fn count(m: &Mixed, i: usize, name: &str) -> u64 {
    m.vtepd(i).status()["counters"][name].as_u64().unwrap_or(0)
}

#[test]
fn a_host_with_the_old_mac_cached_is_told_by_its_vtep() {
    if !met(&[Need::Root]) {
        return;
    }
    let mut m = Mixed::new(Fabric::new(3));
    for i in 0..3 {
        m.vtep(i).make_devices(100, &["p1"]);
        m.start_vtepd(i);
    }
    m.converge();
    let t = Talkers::new(&m.fabric);
    for change in [Change::Cold, Change::Failover] {
        found_again(&m.fabric, &t, change, "vtepd");
    }
    assert!(count(&m, 2, "hosts_told") > 0);
    for i in 0..3 {
        assert_eq!((count(&m, i, "peers_told"), count(&m, i, "tells_dropped")), (0, 0), "VTEP {i}");
    }
    let moves = m.vtepd(2).show("moves", &[]);
    let changed: Vec<_> = moves.iter().filter(|r| r["kind"] == "changed-mac").collect();
    assert!(changed.len() >= 4, "{moves:#?}");
    assert!(changed.iter().all(|r| r["told"].as_u64() >= r["acked"].as_u64()), "{changed:#?}");
}

#[test]
fn a_host_behind_frr_is_told_by_the_new_owner() {
    if !met(&[Need::Root, Need::Frr]) {
        return;
    }
    let mut m = Mixed::new(Fabric::new(3));
    m.start_frr(2);
    for i in [0, 1] {
        m.vtep(i).make_devices(100, &["p1"]);
        m.start_vtepd(i);
    }
    m.converge();
    let t = Talkers::new(&m.fabric);
    for change in [Change::Cold, Change::Failover] {
        found_again(&m.fabric, &t, change, "a host behind FRR");
    }
    assert!(count(&m, 0, "peers_told") > 0 && count(&m, 1, "peers_told") > 0);
    // What was sent has taught FRR's bridge nothing: the host's MAC is on its port and nowhere else.
    let routes = m.routes(0, 2, Some(2));
    let of =
        |mac: &str| routes.iter().filter(|r| r["route"].as_str().is_some_and(|s| s.contains(mac))).count();
    assert!(of(&t.host_mac().to_string()) > 0, "{routes:#?}");
    for mac in t.site_macs() {
        assert_eq!(of(&mac.to_string()), 0, "FRR claims a guest of vtepd's: {routes:#?}");
    }
}

/// The mark on the IMET route is passed on by a reflector that knows nothing of it.
#[test]
fn a_vtep_behind_a_reflector_is_known_to_tell_its_hosts() {
    if !met(&[Need::Root, Need::Frr]) {
        return;
    }
    let m = Mixed::around_reflector(|_| ());
    let marked = |vtep: usize| {
        let rows = m.routes(0, 3, Some(2));
        let of = rows.iter().filter(|r| r["next_hop"] == m.vtep(vtep).address.to_string().as_str());
        let has = |r: &serde_json::Value| {
            r["communities"].as_array().is_some_and(|c| c.iter().any(|c| c == "vtepd:tells"))
        };
        of.map(has).collect::<Vec<_>>()
    };
    eventually(LATER, "the mark comes through the reflector", || same(marked(1), vec![true]));
    eventually(LATER, "the reflector's own route has none", || same(marked(2), vec![false]));
}
