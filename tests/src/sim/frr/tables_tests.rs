//! What is known of FRR, rule by rule.

use super::tables::{Key, Path, Tables, Work, Write};
use evpn::types::{IfIndex, Mac};
use std::net::IpAddr;

const MAC: Mac = Mac([0x52, 0x54, 0, 0, 0, 1]);
const PORT: IfIndex = IfIndex(7);

fn a(s: &str) -> IpAddr {
    s.parse().expect("valid")
}

fn key(rd: u8, ip: Option<&str>) -> Key {
    Key { rd: [rd; 8], mac: MAC, ip: ip.map(a) }
}

fn tables(remembers: bool) -> Tables {
    Tables::new(a("10.255.0.9"), remembers)
}

fn path(seq: u32, vtep: &str) -> Path {
    Path { seq, vtep: a(vtep) }
}

/// A run of both, without pauses.
fn run(t: &mut Tables) -> (Work, Vec<Write>) {
    let (mut all, mut out) = (Work::default(), Vec::new());
    while t.is_due() {
        let mut w = t.run();
        for l in &w.learned {
            t.install(*l, &mut out);
        }
        all.announce.append(&mut w.announce);
        all.withdraw.append(&mut w.withdraw);
    }
    (all, out)
}

#[test]
fn a_mac_that_comes_here_counts_on_and_leaves_its_address_behind() {
    let mut t = tables(false);
    t.update(1, key(1, None), Some(path(4, "10.255.0.1")));
    t.update(1, key(1, Some("192.168.0.1")), Some(path(4, "10.255.0.1")));
    let (_, out) = run(&mut t);
    assert_eq!(out.len(), 2, "{out:?}");
    t.seen(MAC, PORT);
    let (w, _) = run(&mut t);
    assert_eq!(w.announce, [((MAC, None), 5)], "D.1: the address does not come along");
    // The source withdraws; only then the neighbour goes, and the next gratuitous ARP makes one.
    t.update(1, key(1, None), None);
    t.update(1, key(1, Some("192.168.0.1")), None);
    let (_, out) = run(&mut t);
    assert_eq!(out, [Write::NoNeigh(a("192.168.0.1"))]);
    t.heard(a("192.168.0.1"), MAC);
    let (w, _) = run(&mut t);
    assert_eq!(w.announce, [((MAC, Some(a("192.168.0.1"))), 5)]);
}

#[test]
fn a_higher_sequence_or_a_lower_vtep_takes_mac_and_addresses() {
    for (seq, vtep, lost) in [(1, "10.255.0.99", true), (0, "10.255.0.1", true), (0, "10.255.0.99", false)] {
        let mut t = tables(false);
        t.seen(MAC, PORT);
        t.heard(a("192.168.0.1"), MAC);
        run(&mut t);
        t.update(1, key(1, None), Some(path(seq, vtep)));
        let (w, out) = run(&mut t);
        assert_eq!(w.withdraw.len(), if lost { 2 } else { 0 }, "{seq} from {vtep}");
        assert_eq!(out.is_empty(), !lost);
    }
}

#[test]
fn sequences_are_forgotten_after_a_withdrawal_or_remembered_for_ever() {
    for remembers in [false, true] {
        let mut t = tables(remembers);
        t.update(1, key(1, None), Some(path(6, "10.255.0.1")));
        run(&mut t);
        t.seen(MAC, PORT);
        run(&mut t);
        t.update(1, key(1, None), None);
        t.gone(MAC, PORT);
        run(&mut t);
        t.update(1, key(1, None), Some(path(0, "10.255.0.1")));
        let (_, out) = run(&mut t);
        assert_eq!(out.is_empty(), remembers, "#10468");
        t.update(1, key(1, None), None);
        run(&mut t);
        t.seen(MAC, PORT);
        let (w, _) = run(&mut t);
        assert_eq!(w.announce, [((MAC, None), if remembers { 7 } else { 0 })]);
    }
}

#[test]
fn an_old_address_comes_back_with_its_mac() {
    let mut t = tables(false);
    t.seen(MAC, PORT);
    t.heard(a("192.168.0.1"), MAC);
    run(&mut t);
    t.update(1, key(1, None), Some(path(1, "10.255.0.1")));
    run(&mut t);
    t.seen(MAC, PORT);
    let (w, _) = run(&mut t);
    assert_eq!(w.announce, [((MAC, None), 2), ((MAC, Some(a("192.168.0.1"))), 2)], "D.2-2");
}
