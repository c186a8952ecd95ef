//! `show moves` and `why` tell the truth after moves on the real kernel: what they say is compared with `bridge` and
//! `ip`, at the VTEP that lost, the one that won and one that looked on.

use serde_json::Value;
use std::process::Command;
use vtepd_tests::fabric::{Fabric, Guest, Place, Vtep, test_mac};
use vtepd_tests::need::{Need, met, our};
use vtepd_tests::packet::Wire;
use vtepd_tests::poll::{LATER, SOON, eventually};
use vtepd_tests::vtepd::Vtepd;

struct Trio {
    fabric: Fabric,
    daemons: Vec<Vtepd>,
}

impl Trio {
    fn new() -> Self {
        let fabric = Fabric::new(3);
        let daemons: Vec<Vtepd> = (0..3).map(|i| fabric.start_vtepd(i)).collect();
        daemons.iter().for_each(Vtepd::converge);
        Self { fabric, daemons }
    }

    fn port(&self, vtep: usize) -> Wire {
        self.fabric.guest_port(vtep, "p1")
    }

    fn vtep(&self, i: usize) -> &Vtep {
        &self.fabric.vteps[i]
    }

    /// All kernels send frames for the guest to where it is now.
    fn all_follow(&self, g: &Guest, home: usize) {
        for (i, v) in self.fabric.vteps.iter().enumerate() {
            let want = if i == home { Place::port("p1") } else { Place::vtep(self.vtep(home)) };
            eventually(LATER, "all kernels follow", || v.sends_to(100, g.mac, &want));
        }
    }

    /// All kernels but the owner's answer for the guest's IP with its MAC.
    fn all_answer(&self, g: &Guest, home: usize) {
        for (i, v) in self.fabric.vteps.iter().enumerate().filter(|(i, _)| *i != home) {
            let row = || v.neigh_row(100, g.ip.into())["lladdr"].clone();
            eventually(LATER, "all kernels answer", || {
                let got = row();
                if got == g.mac.to_string().as_str() { Ok(()) } else { Err(format!("{i}: {got}")) }
            });
        }
    }

    /// `why mac` at each VTEP names the owner that the kernel has, and the rows that it shows are the kernel's.
    fn why_mac_is_true(&self, g: &Guest, home: usize) {
        for (i, d) in self.daemons.iter().enumerate() {
            eventually(SOON, "the answer is complete", || {
                let why = d.why("mac", &g.mac.to_string())?;
                let kernel = self.vtep(i).place(100, g.mac);
                let owner = match (&why["owner"]["port"], &why["owner"]["vtep"]) {
                    (Value::String(p), _) => Place::Port(p.clone()),
                    (_, Value::String(v)) => Place::Vtep(v.clone()),
                    _ => Place::Nowhere,
                };
                let here = if i == home { Place::port("p1") } else { Place::vtep(self.vtep(home)) };
                let winner = why["candidates"].as_array().is_some_and(|c| {
                    c.iter().filter(|c| c["wins"] == true).count() == 1 && c[0]["place"] == why["owner"]
                });
                let rows = why["kernel"].as_array().cloned().unwrap_or_default();
                let held = rows.iter().all(|r| r["wanted"] == false || r["has"] == r["want"]);
                if owner == here && owner == kernel && winner && held && !rows.is_empty() {
                    Ok(())
                } else {
                    Err(format!("VTEP {i}: kernel {kernel:?}: {why}"))
                }
            });
        }
    }

    /// The last record of a VTEP about a MAC, once it has ended in the kernel.
    fn last_move(&self, vtep: usize, g: &Guest) -> Value {
        let mut found = Value::Null;
        eventually(SOON, "the record is there", || {
            let rows = self.daemons[vtep].show("moves", &["--mac", &g.mac.to_string(), "--last", "1"]);
            found = rows.last().cloned().unwrap_or(Value::Null);
            let hot = found["kind"] == "hot";
            let (sent, acked) = (!found["sent"].is_null(), !found["acked"].is_null());
            let complete = match found["role"].as_str() {
                Some("arrived") => sent,
                Some("left") if hot => sent && acked,
                _ => acked,
            };
            if complete { Ok(()) } else { Err(found.clone()) }
        });
        found
    }

    fn kinds(&self, g: &Guest) -> Vec<String> {
        (0..3).map(|i| self.last_move(i, g)["kind"].as_str().unwrap_or("none").to_owned()).collect()
    }
}

fn addresses(record: &Value) -> Vec<&str> {
    let mut all: Vec<&str> =
        record["peers"].as_array().into_iter().flatten().filter_map(|p| p["peer"].as_str()).collect();
    all.sort_unstable();
    all
}

/// Boot-clock times of a record in the order in which they must be.
fn in_order(record: &Value, names: &[&str]) {
    let times: Vec<u64> = names.iter().filter_map(|n| record[*n].as_u64()).collect();
    assert!(times.is_sorted() && times.len() == names.len(), "{names:?}: {record}");
}

#[test]
fn why_and_the_records_are_true_after_a_hot_a_cold_and_a_changed_mac_move() {
    if !met(&[Need::Root]) {
        return;
    }
    let t = Trio::new();
    let g = Guest::new(5);
    let unknown = t.daemons[0].why("mac", &g.mac.to_string()).expect_err("nobody knows it yet");
    assert!(unknown.contains("nothing is known of 02:00:00:00:00:05 in VNI 100"), "{unknown}");
    t.port(0).send(&g.garp());
    t.all_follow(&g, 0);
    t.all_answer(&g, 0);
    t.why_mac_is_true(&g, 0);

    // Hot, by RARP.
    t.port(1).send(&g.rarp());
    t.all_follow(&g, 1);
    t.why_mac_is_true(&g, 1);
    assert_eq!(t.kinds(&g), ["hot", "hot", "hot"]);
    let m = t.last_move(1, &g);
    assert_eq!((&m["role"], &m["seq"]), (&"arrived".into(), &1.into()), "{m}");
    assert!(m["cause"] == "frame" || m["cause"] == "fdb", "whichever was read first: {m}");
    assert_eq!(addresses(&m), ["10.0.0.1", "10.0.0.3"]);
    in_order(&m, &["seen", "decided", "sent"]);
    in_order(&m, &["seen", "decided", "acked"]);
    let left = t.last_move(0, &g);
    assert_eq!((&left["role"], &left["from"]["port"]), (&"left".into(), &"p1".into()));
    assert_eq!(addresses(&left), ["10.0.0.2", "10.0.0.3"], "its withdrawal");
    in_order(&left, &["seen", "decided", "acked", "sent"]);
    // What one VTEP sent the others received after that: all records are on one clock here.
    for i in [0, 2] {
        let other = t.last_move(i, &g);
        let to = t.vtep(i).address.to_string();
        let peers = m["peers"].as_array().expect("peers");
        let sent = peers.iter().find(|p| p["peer"] == to.as_str()).and_then(|p| p["at"].as_u64());
        // The socket has it a moment before we look at the clock.
        let slack = 2_000_000;
        assert!(sent < other["seen"].as_u64().map(|t| t + slack), "{m} {other}");
    }
    let why = t.daemons[0].why("ip", &g.ip.to_string()).expect("known");
    assert_eq!((&why["mac"], &why["binding"]["answered_by"]), (&g.mac.to_string().into(), &"kernel".into()));

    // Cold, the same MAC: its port goes, then it is somewhere else.
    t.vtep(1).ns.sh("ip link set p1 down");
    eventually(LATER, "everybody has forgotten it", || match t.vtep(2).place(100, g.mac) {
        Place::Nowhere => Ok(()),
        other => Err(other),
    });
    let why = t.daemons[2].why("mac", &g.mac.to_string()).expect("remembered");
    assert_eq!(why["memory"]["seq"], 1, "{why}");
    let said = why["because"].to_string();
    assert!(said.contains("Nobody has 02:00:00:00:00:05") && said.contains("VTEP 10.0.0.2"), "{said}");
    t.vtep(1).ns.sh("ip link set p1 up");
    t.port(2).send(&g.garp());
    t.all_follow(&g, 2);
    t.all_answer(&g, 2);
    t.why_mac_is_true(&g, 2);
    assert_eq!(t.kinds(&g), ["cold", "cold", "cold"]);
    let m = t.last_move(2, &g);
    assert_eq!((&m["from"]["vtep"], &m["seq"]), (&"10.0.0.2".into(), &2.into()), "{m}");

    // The address goes to another MAC at another place (RFC 9721 §3.2.2).
    let other = Guest { mac: test_mac(6), ip: g.ip };
    t.port(0).send(&other.garp());
    t.all_follow(&other, 0);
    t.all_answer(&other, 0);
    for (i, d) in t.daemons.iter().enumerate() {
        let why = d.why("ip", &g.ip.to_string()).expect("known");
        assert_eq!(why["mac"], other.mac.to_string().as_str(), "VTEP {i}: {why}");
        let last = why["history"].as_array().and_then(|h| h.last().cloned()).unwrap_or(Value::Null);
        assert_eq!(
            (&last["kind"], &last["mac_before"]),
            (&"changed-mac".into(), &g.mac.to_string().into()),
            "VTEP {i}: {why}"
        );
    }
    t.why_mac_is_true(&other, 0);
    // Filters and the words for people.
    let hot = t.daemons[1].show("moves", &["--kind", "hot", "--role", "arrived", "--since", "10m"]);
    assert_eq!(hot.len(), 1);
    assert!(t.daemons[1].show("moves", &["--slow", "1h"]).is_empty());
    let mut c = Command::new(our("vtepd"));
    c.args(["why", "mac", "100", &g.mac.to_string(), "--socket"]).arg(t.daemons[0].socket());
    let text = String::from_utf8(c.output().expect("runs").stdout).expect("UTF-8");
    println!("{text}");
    for part in ["is behind VTEP 10.0.0.3 with sequence 2", "nobody else claims it", "Last moves", "Kernel"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let table = t.daemons[1].show_text("moves");
    assert!(table.contains("; sent: n ") && table.contains(" moves; decided: n "), "{table}");
    println!("{table}");
}
