//! The judge on facts in the words of bgpd, zebra, the kernel and vtepd: faults of FRR alone are told apart, and nothing else
//! is. One of them is what a soak recorded (seed 1, move 977; it was the same 2 s before); the others differ from that by a step
//! each, on a smaller fabric.

use super::facts::{Facts, NodeFacts, Originated, Snapshot, printed_routes, table};
use super::judge::{Difference, contradictions, differences, proven, zebras_own};
use super::truth::Presence;
use serde::Deserialize;
use std::collections::BTreeSet;

const M1: &str = "02:50:00:00:00:00";
const M2: &str = "02:50:01:00:00:00";
const M3: &str = "02:50:01:00:00:01";
const GHOST: &str = "02:50:01:00:00:00 - of 10.0.0.3";

/// bgpd 8.4.4 with a VM that is at 10.0.0.1, and one that was shut down behind bgpd's own VTEP.
const BGPD: &str = "\
BGP table version is 61, local router ID is 10.0.0.3
Status codes: s suppressed, d damped, h history, * valid, > best, i - internal

   Network          Next Hop            Metric LocPrf Weight Path
                    Extended Community
Route Distinguisher: 10.0.0.1:100
*>i[2]:[0]:[48]:[02:50:00:00:00:00]
                    10.0.0.1                      100      0 i
                    RT:65000:100 ET:8 MM:3
*>i[2]:[0]:[48]:[02:50:00:00:00:00]:[32]:[192.168.100.1]
                    10.0.0.1                      100      0 i
                    RT:65000:100 ET:8 MM:3
Route Distinguisher: 10.0.0.3:2
*> [2]:[0]:[48]:[02:50:01:00:00:00]
                    10.0.0.3                           32768 i
                    ET:8 RT:65000:100 MM:5

Displayed 3 prefixes (3 paths) (of requested type)
";

/// What `--record` wrote.
#[derive(Deserialize)]
struct Recorded {
    truth: Vec<Presence>,
    now: Snapshot,
}

fn recorded() -> Recorded {
    serde_json::from_str(include_str!("recorded/frr-8.4.4-move-977.json")).expect("as it was written")
}

#[test]
fn the_recorded_fault_is_frrs_and_vtepd_followed_it_to_the_row() {
    let Recorded { truth, now: s } = recorded();
    // Five rows of each vtepd and one of bgpd.
    assert_eq!(differences(&s, &truth, &BTreeSet::new()).len(), 16);
    let proven = proven(&s, &s, &truth);
    assert_eq!(proven, keys(&["02:50:0a:00:01:06 - of 10.0.0.4"]));
    assert_eq!(told(&differences(&s, &truth, &proven)), [""; 0]);
    assert_eq!(contradictions(&s, &truth, &proven)[0].followed, 15);
}

#[test]
fn no_row_of_the_recording_can_go_or_change_unnoticed() {
    let Recorded { truth, now } = recorded();
    let mut tried = 0;
    for (i, n) in now.nodes.iter().enumerate() {
        for (t, (name, facts)) in n.tables.iter().enumerate() {
            for row in facts.keys() {
                let mut gone = now.clone();
                gone.nodes[i].tables[t].1.remove(row);
                let mut other = now.clone();
                other.nodes[i].tables[t].1.insert(row.clone(), "something else".into());
                let mut more = now.clone();
                more.nodes[i].tables[t].1.insert(format!("{row} and more"), "used".into());
                // What zebra's cache alone lacks is zebra's fault.
                let zebras = *name == table::FRR_ARP && facts[row].ends_with(" remote");
                for s in [gone, other, more].into_iter().skip(usize::from(zebras)) {
                    tried += 1;
                    assert_ne!(left(&s, &truth), [], "{}, {name}, {row}", n.name);
                }
            }
        }
    }
    assert!(tried > 1000, "only {tried} changes");
}

fn rows(all: &[(&str, &str)]) -> Facts {
    all.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

fn tables(all: Vec<(&str, Facts)>) -> Vec<(String, Facts)> {
    all.into_iter().map(|(n, f)| (n.to_owned(), f)).collect()
}

fn vtepd(number: u8, name: &str, place: &str) -> NodeFacts {
    let mut fdb = rows(&[
        ("bridge row of 02:50:00:00:00:00", if number == 1 { "g0" } else { "vx100" }),
        ("bridge row of 02:50:01:00:00:00", "vx100"),
        ("VXLAN row of 02:50:01:00:00:00", "10.0.0.3"),
    ]);
    let mut neigh = Facts::new();
    if number != 1 {
        fdb.insert("VXLAN row of 02:50:00:00:00:00".into(), "10.0.0.1".into());
        neigh.insert("192.168.100.1".into(), M1.into());
    }
    let routes = [
        "02:50:00:00:00:00 - of 10.0.0.1",
        "02:50:00:00:00:00 192.168.100.1 of 10.0.0.1",
        "02:50:01:00:00:00 - of 10.0.0.3",
    ];
    NodeFacts {
        name: name.into(),
        address: [10, 0, 0, number].into(),
        frr: false,
        tables: tables(vec![
            (table::FDB, fdb),
            (table::NEIGH, neigh),
            (table::SEQS, rows(&[(M1, "3"), (M2, "5")])),
            (table::MACS, rows(&[(M1, place), (M2, "10.0.0.3")])),
            (table::HOSTS, rows(&[("192.168.100.1", &format!("{M1} at {place}"))])),
            (table::ROUTES, routes.iter().map(|r| ((*r).to_owned(), "used".to_owned())).collect()),
            (table::DUPLICATES, Facts::new()),
        ]),
        originates: Vec::new(),
        zebra: Facts::new(),
    }
}

/// bgpd has a route of the VM that was shut down; the kernel has no row and zebra, for an old neighbour row, an `auto` MAC.
fn frr() -> NodeFacts {
    let mut n = NodeFacts {
        name: "VTEP 3 (FRR)".into(),
        address: [10, 0, 0, 3].into(),
        frr: true,
        tables: tables(vec![
            (
                table::FDB,
                rows(&[
                    ("bridge row of 02:50:00:00:00:00", "vx100"),
                    ("VXLAN row of 02:50:00:00:00:00", "10.0.0.1"),
                ]),
            ),
            (table::NEIGH, rows(&[("192.168.100.1", M1)])),
            (table::SEQS, rows(&[(M1, "3")])),
            (table::FRR_MACS, rows(&[(M1, "10.0.0.1")])),
            (table::FRR_ARP, rows(&[("192.168.100.1", "02:50:00:00:00:00 remote")])),
            (table::FRR_ROUTES, Facts::new()),
        ]),
        originates: Vec::new(),
        zebra: rows(&[(M1, r#"{"type":"remote","remoteVtep":"10.0.0.1"}"#), (M2, r#"{"type":"auto"}"#)]),
    };
    bgpd(&mut n, BGPD);
    n
}

fn bgpd(n: &mut NodeFacts, printed: &str) {
    let printed = printed_routes(printed);
    n.originates = printed.iter().filter_map(|r| r.originated("10.0.0.3")).collect();
    *of(n, table::FRR_ROUTES) = printed.iter().map(super::facts::Printed::fact).collect();
}

fn of<'a>(n: &'a mut NodeFacts, table: &str) -> &'a mut Facts {
    &mut n.tables.iter_mut().find(|(n, _)| n == table).expect("the table was read").1
}

fn snapshot() -> Snapshot {
    Snapshot { nodes: vec![vtepd(1, "VTEP 1 (vtepd)", "g0"), vtepd(2, "VTEP 2 (vtepd)", "10.0.0.1"), frr()] }
}

fn presence(mac: &str, home: usize, port: &str, ip: &str) -> Presence {
    Presence {
        mac: mac.into(),
        home,
        port: port.into(),
        ip: Some(ip.parse().expect("an address")),
        probe: false,
    }
}

fn truth() -> Vec<Presence> {
    vec![presence(M1, 0, "g0", "192.168.100.1")]
}

fn keys(all: &[&str]) -> BTreeSet<String> {
    all.iter().map(|k| (*k).to_owned()).collect()
}

/// What remains when all is excused that FRR's tables prove.
fn left(s: &Snapshot, truth: &[Presence]) -> Vec<Difference> {
    differences(s, truth, &proven(s, s, truth))
}

fn told(d: &[Difference]) -> Vec<String> {
    d.iter().map(ToString::to_string).collect()
}

#[test]
fn a_route_that_frrs_own_tables_deny_is_frrs_fault() {
    let (s, t) = (snapshot(), truth());
    // Five rows of each vtepd and one of bgpd.
    assert_eq!(differences(&s, &t, &BTreeSet::new()).len(), 11);
    let proven = proven(&s, &s, &t);
    assert_eq!(proven, keys(&[GHOST]));
    assert_eq!(told(&differences(&s, &t, &proven)), [""; 0]);
    let [c] = &contradictions(&s, &t, &proven)[..] else { panic!("one route") };
    assert_eq!(c.followed, 10);
    assert_eq!(
        c.to_string(),
        "VTEP 3 (FRR) contradicts itself about 02:50:01:00:00:00 - of 10.0.0.3: bgpd advertises it (*> \
         [2]:[0]:[48]:[02:50:01:00:00:00] | 10.0.0.3 32768 i | ET:8 RT:65000:100 MM:5), zebra has {\"type\":\"auto\"} of \
         the MAC, the bridge nothing; truly it is shut down. 10 rows of others follow the route"
    );
}

/// PIT-15: the bridge's own at its VTEP, a row at the others, a route everywhere, and in no list of vtepd's.
#[test]
fn the_mac_that_a_vtepd_asks_from_is_in_the_tables_that_must_have_it_and_in_no_other() {
    const PROBE: &str = "72:d5:87:a0:09:dd";
    let mut t = truth();
    t.push(Presence { mac: PROBE.into(), home: 0, port: String::new(), ip: None, probe: true });
    let missing = left(&snapshot(), &t);
    let mut s = snapshot();
    let route = format!("{PROBE} - of 10.0.0.1");
    for (i, n) in s.nodes.iter_mut().enumerate() {
        of(n, if n.frr { table::FRR_ROUTES } else { table::ROUTES }).insert(route.clone(), "used".into());
        if i != 0 {
            of(n, table::FDB).insert(format!("bridge row of {PROBE}"), "vx100".into());
            of(n, table::FDB).insert(format!("VXLAN row of {PROBE}"), "10.0.0.1".into());
        }
    }
    of(&mut s.nodes[2], table::SEQS).insert(PROBE.into(), "0".into());
    of(&mut s.nodes[2], table::FRR_MACS).insert(PROBE.into(), "10.0.0.1".into());
    assert_eq!(told(&left(&s, &t)), [""; 0]);
    assert_eq!(missing.len(), 9, "each of them is missed: {missing:#?}");
    of(&mut s.nodes[1], table::MACS).insert(PROBE.into(), "10.0.0.1".into());
    assert_eq!(
        told(&left(&s, &t)),
        [format!("VTEP 2 (vtepd), show macs, {PROBE}: is nothing, the table says 10.0.0.1")]
    );
}

#[test]
fn a_row_that_zebras_cache_alone_lacks_is_frrs_fault() {
    let (mut s, t) = (snapshot(), truth());
    of(&mut s.nodes[2], table::FRR_ARP).remove("192.168.100.1");
    assert_eq!(told(&left(&s, &t)), [""; 0]);
    assert_eq!(zebras_own(&s), ["VTEP 3 (FRR) 192.168.100.1"]);
    // The VM ends, and zebra does not know what to take out of its kernel.
    let mut off = s.clone();
    for n in &mut off.nodes {
        for (_, rows) in &mut n.tables {
            rows.retain(|k, v| !k.contains(M1) && !v.contains(M1));
        }
    }
    assert_eq!(told(&left(&off, &[])), [""; 0]);
    of(&mut off.nodes[2], table::NEIGH).insert("192.168.100.1".into(), M1.into());
    assert_eq!(told(&left(&off, &[])), [""; 0]);
    of(&mut off.nodes[2], table::FRR_ARP).insert("192.168.100.1".into(), format!("{M1} remote"));
    assert_eq!(left(&off, &[]).len(), 2, "it knows of it");
    // Without its kernel's row, or with another MAC in the cache, something is wrong.
    let mut other = s.clone();
    of(&mut other.nodes[2], table::NEIGH).remove("192.168.100.1");
    assert_eq!(left(&other, &t).len(), 2);
    of(&mut s.nodes[2], table::FRR_ARP).insert("192.168.100.1".into(), format!("{M2} remote"));
    assert_eq!(left(&s, &t).len(), 1);
}

#[test]
fn an_address_that_frr_goes_on_advertising_is_followed_too() {
    let (mut s, t) = (snapshot(), truth());
    let with_ip = BGPD.replace("[02:50:01:00:00:00]\n", "[02:50:01:00:00:00]:[32]:[192.168.100.2]\n");
    bgpd(&mut s.nodes[2], &with_ip);
    for n in &mut s.nodes[..2] {
        let routes = of(n, table::ROUTES);
        routes.remove(GHOST);
        routes.insert(format!("{M2} 192.168.100.2 of 10.0.0.3"), "used".into());
        of(n, table::HOSTS).insert("192.168.100.2".into(), format!("{M2} at 10.0.0.3"));
        of(n, table::NEIGH).insert("192.168.100.2".into(), M2.into());
    }
    assert_eq!(told(&left(&s, &t)), [""; 0]);
    assert_eq!(contradictions(&s, &t, &proven(&s, &s, &t))[0].followed, 14);
    // A vtepd that answers with it without such a route, or does not answer, is at fault.
    of(&mut s.nodes[1], table::NEIGH).insert("192.168.100.2".into(), M3.into());
    of(&mut s.nodes[0], table::HOSTS).remove("192.168.100.2");
    assert_eq!(
        told(&left(&s, &t)),
        [
            "VTEP 1 (vtepd), show hosts, 192.168.100.2: is 02:50:01:00:00:00 at 10.0.0.3, the table says nothing",
            "VTEP 2 (vtepd), kernel neighbour table, 192.168.100.2: is 02:50:01:00:00:00, the table says \
             02:50:01:00:00:01",
        ]
    );
}

#[test]
fn rows_of_a_route_that_nobody_advertises_are_vtepds_fault() {
    let (mut s, t) = (snapshot(), truth());
    let withdrawn = BGPD.split("Route Distinguisher: 10.0.0.3:2").next().expect("the part before");
    bgpd(&mut s.nodes[2], withdrawn);
    assert_eq!(proven(&snapshot(), &s, &t), BTreeSet::new());
    // Not even when it was proven before.
    assert_eq!(differences(&s, &t, &keys(&[GHOST])).len(), 10);
    assert_eq!(contradictions(&s, &t, &keys(&[GHOST])), []);
}

#[test]
fn a_route_that_is_not_the_best_or_not_frrs_own_proves_nothing() {
    let t = truth();
    for (what, printed) in [
        ("not best", BGPD.replace("*> [2]", "*  [2]")),
        (
            "heard from a peer",
            BGPD.replace("10.0.0.3                           32768 i", "10.0.0.3  100  0 i"),
        ),
        ("another VTEP's", BGPD.replace("10.0.0.3                           32768", "10.0.0.9       32768")),
    ] {
        let mut s = snapshot();
        bgpd(&mut s.nodes[2], &printed);
        assert_eq!(proven(&s, &s, &t), BTreeSet::new(), "{what}");
        assert!(left(&s, &t).len() >= 10, "{what}");
    }
}

#[test]
fn frr_must_deny_the_mac_in_both_of_its_tables_and_twice() {
    let t = truth();
    let (mut kernel, mut zebra) = (snapshot(), snapshot());
    of(&mut kernel.nodes[2], table::FDB).insert("bridge row of 02:50:01:00:00:00".into(), "g1".into());
    of(&mut zebra.nodes[2], table::FRR_MACS).insert(M2.into(), "g1".into());
    for s in [&kernel, &zebra] {
        assert_eq!(proven(s, s, &t), BTreeSet::new());
        // All eleven, and the row itself.
        assert_eq!(left(s, &t).len(), 12);
        // What was so for a moment only is under way.
        assert_eq!(proven(s, &snapshot(), &t), BTreeSet::new());
        assert_eq!(proven(&snapshot(), s, &t), BTreeSet::new());
    }
    // The VM runs there: its kernel's loss is no contradiction of bgpd's.
    let mut there = truth();
    there.push(presence(M2, 2, "g1", "192.168.100.2"));
    assert_eq!(proven(&snapshot(), &snapshot(), &there), BTreeSet::new());
}

#[test]
fn a_vtepd_that_does_not_follow_what_bgp_says_is_not_excused() {
    let (mut s, t) = (snapshot(), truth());
    of(&mut s.nodes[1], table::FDB).insert("VXLAN row of 02:50:01:00:00:00".into(), "10.0.0.1".into());
    of(&mut s.nodes[1], table::SEQS).insert(M2.into(), "4".into());
    of(&mut s.nodes[0], table::MACS).remove(M2);
    of(&mut s.nodes[0], table::ROUTES).remove(GHOST);
    of(&mut s.nodes[0], table::DUPLICATES).insert("\"x\"".into(), "frozen".into());
    assert_eq!(
        told(&left(&s, &t)),
        [
            "VTEP 1 (vtepd), show macs, 02:50:01:00:00:00: is 10.0.0.3, the table says nothing",
            "VTEP 1 (vtepd), show routes, 02:50:01:00:00:00 - of 10.0.0.3: is used, the table says nothing",
            "VTEP 1 (vtepd), show duplicates, \"x\": is nothing, the table says frozen",
            "VTEP 2 (vtepd), kernel forwarding table, VXLAN row of 02:50:01:00:00:00: is 10.0.0.3, the table says \
             10.0.0.1",
            "VTEP 2 (vtepd), sequences, 02:50:01:00:00:00: is 5, the table says 4",
        ]
    );
}

#[test]
fn another_vms_difference_is_not_excused() {
    let (mut s, t) = (snapshot(), truth());
    of(&mut s.nodes[1], table::FDB).remove("VXLAN row of 02:50:00:00:00:00");
    of(&mut s.nodes[2], table::FRR_MACS).remove(M1);
    assert_eq!(
        told(&left(&s, &t)),
        [
            "VTEP 2 (vtepd), kernel forwarding table, VXLAN row of 02:50:00:00:00:00: is 10.0.0.1, the table says nothing",
            "VTEP 3 (FRR), show evpn mac, 02:50:00:00:00:00: is 10.0.0.1, the table says nothing",
        ]
    );
}

/// The VM of the phantom boots behind VTEP 1, which tells everybody.
fn booted(mac: &str, seq: &str, routes_of_frr: bool) -> Snapshot {
    let mut s = snapshot();
    for (i, n) in s.nodes.iter_mut().enumerate() {
        let here = i == 0;
        let (device, place) = if here { ("g1", "g1") } else { ("vx100", "10.0.0.1") };
        let (places, routes) =
            if n.frr { (table::FRR_MACS, table::FRR_ROUTES) } else { (table::MACS, table::ROUTES) };
        for ip in ["-", "192.168.100.2"] {
            of(n, routes).insert(format!("{mac} {ip} of 10.0.0.1"), "used".into());
        }
        of(n, places).insert(mac.into(), place.into());
        of(n, table::SEQS).insert(mac.into(), seq.into());
        let fdb = of(n, table::FDB);
        fdb.insert(format!("bridge row of {mac}"), device.into());
        fdb.remove(&format!("VXLAN row of {mac}"));
        if !here {
            fdb.insert(format!("VXLAN row of {mac}"), "10.0.0.1".into());
            of(n, table::NEIGH).insert("192.168.100.2".into(), mac.into());
        }
        if n.frr {
            of(n, table::FRR_ARP).insert("192.168.100.2".into(), format!("{mac} remote"));
        } else {
            of(n, table::HOSTS).insert("192.168.100.2".into(), format!("{mac} at {place}"));
        }
        if routes_of_frr && n.frr {
            let (ip, printed) = ("192.168.100.2".parse().ok(), "*> … 32768".to_owned());
            n.originates.push(Originated { mac: M2.into(), ip, seq: 5, printed });
        }
        if routes_of_frr {
            of(n, routes).insert(format!("{M2} 192.168.100.2 of 10.0.0.3"), "used".into());
        }
    }
    s
}

#[test]
fn a_vm_that_runs_behind_a_vtepd_is_there_whatever_frr_advertises() {
    let mut t = truth();
    t.push(presence(M2, 0, "g1", "192.168.100.2"));
    let s = booted(M2, "6", false);
    assert_eq!(
        proven(&s, &s, &t),
        keys(&[GHOST]),
        "zebra knows that it is remote, bgpd says that it is local"
    );
    assert_eq!(told(&left(&s, &t)), [""; 0]);

    // A vtepd that follows FRR instead is at fault: whoever has the VM claims above what it heard (EVPN-MOB-03).
    let mut s = booted(M2, "5", false);
    of(&mut s.nodes[1], table::MACS).insert(M2.into(), "10.0.0.3".into());
    of(&mut s.nodes[1], table::FDB).insert("VXLAN row of 02:50:01:00:00:00".into(), "10.0.0.3".into());
    assert_eq!(
        told(&left(&s, &t)),
        [
            "VTEP 2 (vtepd), kernel forwarding table, VXLAN row of 02:50:01:00:00:00: is 10.0.0.1, the table says \
             10.0.0.3",
            "VTEP 2 (vtepd), show macs, 02:50:01:00:00:00: is 10.0.0.1, the table says 10.0.0.3",
        ]
    );
}

#[test]
fn an_address_of_a_vm_with_a_new_mac_is_never_the_old_macs() {
    let mut t = truth();
    t.push(presence(M3, 0, "g1", "192.168.100.2"));
    let s = booted(M3, "6", true);
    assert_eq!(proven(&s, &s, &t).len(), 2);
    assert_eq!(told(&left(&s, &t)), [""; 0]);

    let mut s = booted(M3, "6", true);
    of(&mut s.nodes[1], table::NEIGH).insert("192.168.100.2".into(), M2.into());
    assert_eq!(
        told(&left(&s, &t)),
        ["VTEP 2 (vtepd), kernel neighbour table, 192.168.100.2: is 02:50:01:00:00:01, the table says \
          02:50:01:00:00:00"]
    );
}

#[test]
fn a_difference_shows_both_sides() {
    let d = Difference {
        node: "VTEP 1 (vtepd)".into(),
        table: "show macs",
        row: "02:00:00:00:00:01".into(),
        truth: Some("p1".into()),
        table_says: None,
    };
    assert_eq!(d.to_string(), "VTEP 1 (vtepd), show macs, 02:00:00:00:00:01: is p1, the table says nothing");
}
