//! Real QEMU processes are migrated between two vtepd, and a third one watches (PIT-06, PIT-25, PIT-26).
//!
//! The guest says nothing at all, and QEMU's own announcements are switched off: whatever is known of its move, QMP told.

use evpn::types::Mac;
use serde_json::{Value, json};
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;
use vtepd::hypervisor::nics::tap_of;
use vtepd_tests::fabric::{Fabric, Place};
use vtepd_tests::need::{Need, met, our};
use vtepd_tests::poll::{SOON, eventually, throughout};
use vtepd_tests::qemu::{PROGRAM, Qemu, sockets};
use vtepd_tests::vtepd::Vtepd;

const MAC: &str = "52:54:00:aa:00:01";

fn mac() -> Mac {
    MAC.parse().expect("a MAC")
}

/// Source, target and a third VTEP; a guest that runs at the source and was announced there.
struct World {
    // Ended before the namespaces go.
    source: Qemu,
    vtepd: Vec<Vtepd>,
    fabric: Fabric,
    dir: TempDir,
}

impl World {
    fn new(more: &str) -> Self {
        let dir = tempfile::Builder::new().prefix("vt-qmp-").tempdir().expect("a scratch directory");
        let fabric = Fabric::new(3);
        let mut vtepd = Vec::new();
        for (i, v) in fabric.vteps.iter().enumerate() {
            v.ns.sh("ip tuntap add tap0 mode tap && ip link set tap0 up");
            let (_, section) = sockets(&dir, i, more);
            let mut conf = fabric.conf(i);
            conf.vnis = vec![(100, vec!["tap0".into()])];
            conf.sections = section;
            vtepd.push(Vtepd::start(&v.ns, &conf));
        }
        for v in &vtepd {
            v.converge();
        }
        let mut source = Qemu::start(&fabric.vteps[0].ns, MAC, &dir.path().join("v0/vm1.sock"), &[]);
        eventually(SOON, "the source's vtepd knows the guest", || state(&vtepd[0], "running"));
        source.announce();
        let w = Self { source, vtepd, fabric, dir };
        w.seen_at(0, "the guest is announced at the source");
        w
    }

    /// The QEMU that waits at the target, prepared for.
    fn target(&self) -> Qemu {
        let mut q = Qemu::start(
            &self.fabric.vteps[1].ns,
            MAC,
            &self.dir.path().join("v1/vm1.sock"),
            &["-incoming", "tcp:10.0.0.2:4444"],
        );
        q.silent();
        eventually(SOON, "the target is prepared", || {
            let row = guest(&self.vtepd[1]);
            if row["state"] == "arriving" && row["nics"][0]["state"] == "prepared" {
                Ok(())
            } else {
                Err(row)
            }
        });
        q
    }

    fn migrate(&mut self) {
        self.source.ask("migrate", &json!({ "uri": "tcp:10.0.0.2:4444" }));
    }

    /// Everybody's kernel sends frames for the guest to that VTEP.
    #[track_caller]
    fn seen_at(&self, owner: usize, what: &str) {
        eventually(SOON, what, || {
            self.fabric.vteps.iter().enumerate().try_for_each(|(i, v)| {
                let place =
                    if i == owner { Place::port("tap0") } else { Place::vtep(&self.fabric.vteps[owner]) };
                v.sends_to(100, mac(), &place).map_err(|p| (i, p))
            })
        });
    }

    fn seq(&self, vtep: usize) -> u64 {
        self.vtepd[vtep].mac(MAC)["seq"].as_u64().expect("a sequence")
    }

    /// Frames that have come out of a guest.
    fn frames_from(&self, vtep: usize) -> u64 {
        let link = self.fabric.vteps[vtep].ns.json("ip -s -j link show dev tap0");
        link[0]["stats64"]["rx"]["packets"].as_u64().expect("a number")
    }
}

/// The one row of `show hypervisors`, or `Null`.
fn guest(v: &Vtepd) -> Value {
    v.show("hypervisors", &[]).into_iter().next().unwrap_or(Value::Null)
}

fn state(v: &Vtepd, want: &str) -> Result<(), Value> {
    let row = guest(v);
    if row["state"] == want { Ok(()) } else { Err(row) }
}

/// What happened to the guest, in order: names of events, texts where it is the hypervisor's news.
fn story(v: &Vtepd) -> Vec<String> {
    let told = |e: &Value| {
        let name = e["event"].as_str().unwrap_or_default();
        match name {
            "guest" => e["text"].as_str().map(str::to_owned),
            "move" | "move-prepared" | "move-marked" | "move-activated" | "move-aborted"
            | "move-released" | "mac-local" => Some(name.to_owned()),
            _ => None,
        }
    };
    v.show("events", &[]).iter().filter_map(told).collect()
}

fn ready() -> bool {
    met(&[Need::Root, Need::Package { program: PROGRAM, package: "qemu-system-x86" }])
}

#[test]
fn a_migration_is_prepared_activated_and_released_before_the_guest_says_a_word() {
    if !ready() {
        return;
    }
    let mut w = World::new("");
    let mut target = w.target();
    // What is asked of the kernel where a manager handed the tap over as a descriptor.
    let pid = i32::try_from(target.process.pid()).expect("a process id");
    let taps: Vec<String> = (0..256).filter_map(|fd| tap_of(pid, fd)).collect();
    assert_eq!(taps, ["tap0"]);
    // Prepared, and nobody else knows.
    throughout(Duration::from_millis(300), "the guest stays at the source", || {
        w.fabric.vteps[2].sends_to(100, mac(), &Place::vtep(&w.fabric.vteps[0]))
    });
    let before = w.seq(2);
    w.migrate();
    target.event("RESUME");
    w.seen_at(1, "the guest moves");
    assert_eq!(w.frames_from(1), 0, "nothing was heard of the guest");
    assert_eq!(w.seq(2), before + 1);
    let record = w.vtepd[1].show("moves", &["--mac", MAC]).pop().expect("a record");
    assert_eq!(
        (record["cause"].as_str(), record["role"].as_str()),
        (Some("qmp"), Some("arrived")),
        "{record:#}"
    );
    let micros = |k: &str| record[k].as_u64().map(|t| (t - record["seen"].as_u64().unwrap_or(t)) / 1000);
    println!("µs from RESUME: sent {:?}, kernel {:?}", micros("sent"), micros("acked"));
    eventually(SOON, "the source has released it", || {
        let row = guest(&w.vtepd[0]);
        if row["state"] == "left" && row["nics"][0]["state"] == "released" { Ok(()) } else { Err(row) }
    });
    let story_of = |i: usize| story(&w.vtepd[i]);
    let order = |all: &[String], want: &[&str]| {
        let at = want.iter().map(|s| all.iter().position(|e| e == s));
        let at: Option<Vec<usize>> = at.collect();
        assert!(at.as_ref().is_some_and(|a| a.is_sorted()), "{want:?} in {all:#?}");
    };
    order(&story_of(1), &["is expected here", "move-prepared", "runs here now", "move-activated"]);
    order(&story_of(0), &["has left", "move-released"]);
    assert!(!story_of(0).iter().any(|e| e == "move-prepared" || e == "move-activated"));
    // QEMU's end at the source takes nothing along.
    w.source.ask("quit", &json!({}));
    throughout(Duration::from_millis(500), "it stays at the target", || {
        w.fabric.vteps[2].sends_to(100, mac(), &Place::vtep(&w.fabric.vteps[1]))
    });
    let told = story(&w.vtepd[1]);
    assert_eq!(told.iter().filter(|e| *e == "move-activated").count(), 1, "{told:#?}");
}

#[test]
fn a_cancelled_migration_leaves_no_trace() {
    if !ready() {
        return;
    }
    let mut w = World::new("");
    let mut target = w.target();
    let before = (w.seq(0), w.seq(2));
    w.source.ask("migrate-set-parameters", &json!({ "max-bandwidth": 50_000 }));
    w.migrate();
    target.event("MIGRATION active");
    w.source.ask("migrate_cancel", &json!({}));
    w.source.event("MIGRATION cancelled");
    target.process.wait(SOON);
    eventually(SOON, "the preparation is aborted", || {
        let told = story(&w.vtepd[1]);
        if told.iter().any(|e| e == "move-aborted") { Ok(()) } else { Err(told) }
    });
    w.seen_at(0, "the guest is where it was");
    assert_eq!((w.seq(0), w.seq(2)), before);
    for v in &w.vtepd {
        assert_eq!(v.show("moves", &["--mac", MAC]), [Value::Null; 0]);
    }
    state(&w.vtepd[0], "running").expect("it goes on at the source");
    let told = story(&w.vtepd[0]);
    assert!(!told.iter().any(|e| e.starts_with("move")), "{told:#?}");
}

#[test]
fn a_source_that_is_continued_after_the_move_is_told_as_a_split_brain_until_one_copy_ends() {
    if !ready() {
        return;
    }
    let mut w = World::new("");
    let mut target = w.target();
    w.migrate();
    target.event("RESUME");
    w.seen_at(1, "the guest moves");
    let seq = w.seq(2);
    w.source.event("MIGRATION completed");
    w.source.ask("cont", &json!({}));
    eventually(SOON, "the split brain is told", || {
        let told = story(&w.vtepd[0]);
        let warned = told.iter().any(|e| e.starts_with("SPLIT BRAIN") && e.contains("10.0.0.2"));
        if warned { state(&w.vtepd[0], "split-brain") } else { Err(json!(told)) }
    });
    throughout(Duration::from_secs(3), "it is no claim", || {
        w.fabric.vteps[2].sends_to(100, mac(), &Place::vtep(&w.fabric.vteps[1]))
    });
    assert_eq!(w.seq(2), seq);
    target.ask("quit", &json!({}));
    w.seen_at(0, "the copy that is left is the guest");
    eventually(SOON, "and that is told", || state(&w.vtepd[0], "running"));
}

#[test]
fn a_stop_at_the_source_activates_the_target_without_anybody_between_them() {
    if !ready() {
        return;
    }
    // With the pause before the switchover, where QEMU tells each step, and without it, where STOP is all there is.
    for pause in [true, false] {
        let mut w = World::new("activate-at = \"stop\"");
        if pause {
            w.fabric.vteps[1].ns.sh("ip link set tap0 txqueuelen 20");
        }
        let mut target = w.target();
        let warned = story(&w.vtepd[1]).iter().filter(|e| e.contains("keeps only 20 frames")).count();
        assert_eq!(warned, usize::from(pause), "{:#?}", story(&w.vtepd[1]));
        if pause {
            w.source.capability("pause-before-switchover");
        }
        w.migrate();
        if pause {
            w.source.event("MIGRATION pre-switchover");
            w.seen_at(1, "everybody sends to the target");
            assert!(!target.names().contains(&"RESUME".to_owned()), "before the guest runs there");
            w.source.ask("migrate-continue", &json!({ "state": "pre-switchover" }));
        }
        let resumed = target.event("RESUME");
        let stopped = w.source.event("STOP");
        w.seen_at(1, "and it stays there");
        eventually(SOON, "it runs", || state(&w.vtepd[1], "running"));
        assert_eq!(w.seq(2), 1, "RESUME is no second move");
        assert_eq!(w.frames_from(1), 0);
        let told = story(&w.vtepd[1]);
        let count = |what: &str| told.iter().filter(|e| *e == what).count();
        assert_eq!((count("move-marked"), count("move-activated")), (1, 1), "{told:#?}");
        let record = w.vtepd[1].show("moves", &["--mac", MAC]).pop().expect("a record");
        let us = |k: &str| record[k].as_u64().map(|t| (t - record["seen"].as_u64().unwrap_or(t)) / 1000);
        println!(
            "pause {pause}: STOP to RESUME {:?}; µs from the mark: sent {:?}, kernel {:?}",
            resumed.saturating_duration_since(stopped),
            us("sent"),
            us("acked")
        );
    }
}

/// A guest whose source has stopped it, with `activate-at = "stop"`, and QEMU waits for leave to go on.
fn stopped_before_switchover() -> (World, Qemu) {
    let mut w = World::new("activate-at = \"stop\"");
    let target = w.target();
    w.source.capability("pause-before-switchover");
    w.migrate();
    w.source.event("MIGRATION pre-switchover");
    (w, target)
}

#[test]
fn a_migration_that_is_cancelled_after_the_stop_leaves_the_guest_at_its_source() {
    if !ready() {
        return;
    }
    let (mut w, mut target) = stopped_before_switchover();
    // At once: the target's route may be anywhere.
    w.source.ask("migrate_cancel", &json!({}));
    w.source.event("RESUME");
    w.seen_at(0, "the guest is where it was");
    target.process.wait(SOON);
    eventually(SOON, "it runs at the source", || state(&w.vtepd[0], "running"));
    throughout(Duration::from_secs(1), "it stays there", || {
        w.fabric.vteps[2].sends_to(100, mac(), &Place::vtep(&w.fabric.vteps[0]))
    });
    assert_eq!(w.seq(2), 2, "above what the target may have told");
}

/// `vtepd move activate`, as whoever drives the migration says it.
fn activate(v: &Vtepd) -> Value {
    let out = Command::new(our("vtepd"))
        .args(["move", "activate", "--mac", MAC, "--json", "--socket"])
        .arg(v.socket())
        .output()
        .expect("vtepd runs");
    assert!(out.status.success(), "{out:?}");
    serde_json::from_slice(&out.stdout).expect("JSON")
}

#[test]
fn a_guest_is_reached_at_the_target_while_it_is_still_stopped() {
    if !ready() {
        return;
    }
    let (mut w, mut target) = stopped_before_switchover();
    eventually(SOON, "the source releases it", || {
        let told = story(&w.vtepd[0]);
        if told.iter().any(|e| e == "move-released") { Ok(()) } else { Err(told) }
    });
    activate(&w.vtepd[1]);
    w.seen_at(1, "everybody sends to the target");
    assert!(!target.names().contains(&"RESUME".to_owned()), "before the guest runs there");
    w.source.ask("migrate-continue", &json!({ "state": "pre-switchover" }));
    target.event("RESUME");
    eventually(SOON, "it runs", || state(&w.vtepd[1], "running"));
    w.seen_at(1, "and stays there");
    assert_eq!(w.seq(2), 1, "RESUME is no second move");
    assert_eq!(w.frames_from(1), 0);
}

#[test]
fn a_migration_that_fails_after_the_activation_is_taken_back_with_the_next_sequence() {
    if !ready() {
        return;
    }
    let (mut w, mut target) = stopped_before_switchover();
    activate(&w.vtepd[1]);
    w.seen_at(1, "everybody sends to the target");
    // Its QEMU is lost: the source's fails, and the guest goes on there.
    target.process.kill();
    w.source.ask("migrate_cancel", &json!({}));
    w.source.event("RESUME");
    w.seen_at(0, "the guest is back");
    eventually(SOON, "it runs at the source", || state(&w.vtepd[0], "running"));
    assert!(w.seq(2) >= 2, "a sequence of its own: {}", w.seq(2));
    throughout(Duration::from_millis(500), "it stays there", || {
        w.fabric.vteps[2].sends_to(100, mac(), &Place::vtep(&w.fabric.vteps[0]))
    });
}
