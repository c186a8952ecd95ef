//! One guest's QMP socket as a state machine (PIT-25, PIT-26): the recorded order of QEMU 7.2, and any other order.

use evpn::node::Leave;
use evpn::types::{Mac, Span, Time};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use vtepd::hypervisor::qmp::machine::{ANSWER_LIMIT, ActivateAt, Machine, Options, Out, Phase};
use vtepd::hypervisor::step::{Outcome, Step, Wish};

const GREETING: &str =
    r#"{"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}}, "capabilities": ["oob"]}}"#;
const NETWORK: &str = "nic0: index=0,type=nic,model=virtio-net-pci,macaddr=52:54:00:aa:00:01\r\n \\ n0: index=0,type=tap,ifname=tap0,script=no,downscript=no\r\nuser0: index=0,type=nic,model=e1000,macaddr=52:54:00:aa:00:09\r\n \\ u0: index=0,type=user\r\n";
const MAC: Mac = Mac([0x52, 0x54, 0, 0xaa, 0, 1]);

/// A QEMU that answers at once, and the machine that talks to it.
struct Talk {
    m: Machine,
    now: Time,
    /// What `query-status` says.
    status: &'static str,
    /// What `query-migrate` says.
    migration: &'static str,
    /// Whether `events` can be set.
    events: bool,
    network: String,
    rx_filter: Value,
    answering: bool,
    steps: Vec<String>,
    /// Of these, what is to become of frames for a guest that leaves.
    leaves: Vec<Leave>,
    wishes: VecDeque<Wish>,
    notes: Vec<String>,
    hung_up: Option<String>,
    asked: Vec<String>,
}

impl Talk {
    fn new(options: Options, status: &'static str) -> Self {
        Self {
            m: Machine::new(options),
            now: Time(1_000_000_000),
            status,
            migration: "",
            events: true,
            network: NETWORK.into(),
            rx_filter: json!([]),
            answering: true,
            steps: Vec::new(),
            leaves: Vec::new(),
            wishes: VecDeque::new(),
            notes: Vec::new(),
            hung_up: None,
            asked: Vec::new(),
        }
    }

    fn connected(options: Options, status: &'static str) -> Self {
        let mut t = Self::new(options, status);
        t.m.connected(Some(7), t.now);
        t.line(GREETING);
        t
    }

    fn pump(&mut self) {
        while let Some(out) = self.m.poll_output() {
            match out {
                Out::Send(line) => {
                    let v: Value = serde_json::from_slice(&line).expect("JSON");
                    let command = v["execute"].as_str().expect("a command").to_owned();
                    self.asked.push(command.clone());
                    if !self.answering {
                        continue;
                    }
                    let answer = match command.as_str() {
                        "query-status" => json!({ "status": self.status }),
                        "query-migrate" if self.migration.is_empty() => json!({}),
                        "query-migrate" => json!({ "status": self.migration }),
                        "query-name" => json!({ "name": "vm1" }),
                        "human-monitor-command" => json!(self.network),
                        "query-rx-filter" => self.rx_filter.clone(),
                        _ => json!({}),
                    };
                    let line = if command == "migrate-set-capabilities" && !self.events {
                        json!({ "id": v["id"], "error": { "class": "GenericError", "desc": "There's a migration process in progress" } })
                    } else {
                        json!({ "id": v["id"], "return": answer })
                    };
                    self.m.line(line.to_string().as_bytes(), self.now);
                }
                Out::Wish(Wish { step: Step::Leave(leave), .. }) => self.leaves.push(leave),
                Out::Wish(w) => {
                    self.steps.push(short(&w));
                    self.wishes.push_back(w);
                }
                Out::FindTap(fd) => self.m.found_tap(fd, Some(format!("vnet{fd}"))),
                Out::Note(n) => self.notes.push(format!("{}{}", if n.warn { "! " } else { "" }, n.text)),
                Out::HangUp(why) => self.hung_up = Some(why),
            }
        }
    }

    fn line(&mut self, line: &str) {
        self.m.line(line.as_bytes(), self.now);
        self.pump();
    }

    fn event(&mut self, name: &str) {
        self.line(&json!({ "event": name, "timestamp": {} }).to_string());
    }

    fn migration(&mut self, status: &str) {
        self.line(&json!({ "event": "MIGRATION", "data": { "status": status } }).to_string());
    }

    /// All steps so far, which are then forgotten.
    fn steps(&mut self) -> Vec<String> {
        std::mem::take(&mut self.steps)
    }

    /// Ends every wish that waits.
    fn answer(&mut self, outcome: &Outcome) {
        while let Some(w) = self.wishes.pop_front() {
            self.m.done(&w, outcome.clone(), self.now);
            self.pump();
        }
    }

    /// Lets time pass, with all timers on the way.
    fn wait(&mut self, span: Span) {
        let until = self.now + span;
        for _ in 0..10_000 {
            let Some(t) = self.m.poll_timeout().filter(|t| *t <= until) else {
                self.now = until;
                return;
            };
            self.now = self.now.max(t);
            self.m.timeout(self.now);
            self.pump();
        }
        panic!("timers without end");
    }
}

fn short(w: &Wish) -> String {
    assert_ne!(w.mac.to_string(), "52:54:00:aa:00:09", "a NIC without a port is none of ours");
    let mac = w.mac.0[5];
    match &w.step {
        Step::Prepare { port, at_stop } => {
            format!("prepare {mac} {port}{}", if *at_stop { " at-stop" } else { "" })
        }
        Step::Activate { port } => format!("activate {mac} {port}"),
        Step::Abort => format!("abort {mac}"),
        Step::Leave(leave) => format!("{leave:?} {mac}"),
        Step::Release { at_stop } => format!("release {mac}{}", if *at_stop { " at-stop" } else { "" }),
        Step::TakeBack { port, left, released } => {
            format!("take back {mac} {port} left={left} released={released}")
        }
    }
}

fn vtep() -> IpAddr {
    "10.0.0.2".parse().expect("an address")
}

#[test]
fn the_target_prepares_when_qemu_waits_and_activates_when_the_guest_runs() {
    let mut t = Talk::connected(Options::default(), "inmigrate");
    assert_eq!(t.steps(), ["prepare 1 tap0"]);
    assert_eq!(t.m.phase(), Phase::Arriving);
    assert_eq!(t.asked[..3], ["qmp_capabilities", "migrate-set-capabilities", "query-status"]);
    // As recorded.
    t.migration("active");
    assert_eq!(t.steps(), [""; 0]);
    t.status = "running";
    t.event("RESUME");
    assert_eq!(t.steps(), ["activate 1 tap0"]);
    t.migration("completed");
    t.event("NIC_RX_FILTER_CHANGED");
    t.wait(Span::secs(1000));
    assert_eq!(t.steps(), [""; 0], "nothing after the arrival");
    assert_eq!((t.m.phase(), t.m.name(), t.m.events()), (Phase::Running, Some("vm1"), Some(true)));
}

#[test]
fn a_target_that_starts_paused_is_activated_when_it_is_continued() {
    // libvirt's way: `-S`, and `cont` after its own handshake.
    let mut t = Talk::connected(Options::default(), "inmigrate");
    t.migration("active");
    t.status = "paused";
    t.migration("completed");
    assert_eq!(t.steps(), ["prepare 1 tap0"]);
    t.wait(Span::secs(900));
    assert!(t.steps().len() >= 3, "a long pause does not let the preparation run out");
    t.event("RESUME");
    assert_eq!(t.steps(), ["activate 1 tap0"]);
}

#[test]
fn a_missed_resume_is_made_up_for_by_the_status_after_a_new_connection() {
    let mut t = Talk::connected(Options::default(), "inmigrate");
    assert_eq!(t.steps(), ["prepare 1 tap0"]);
    t.m.closed(false, t.now);
    t.status = "running";
    t.m.connected(Some(7), t.now);
    t.line(GREETING);
    assert_eq!(t.steps(), ["activate 1 tap0"]);
    // Another process at the same path is another guest.
    t.m.closed(false, t.now);
    t.m.connected(Some(8), t.now);
    t.line(GREETING);
    assert_eq!(t.steps(), ["abort 1"], "the first one ended before it can have said much");
    assert_eq!(t.m.phase(), Phase::Running);
}

#[test]
fn a_migration_that_fails_at_the_target_is_aborted_however_that_is_seen() {
    let mut t = Talk::connected(Options::default(), "inmigrate");
    t.migration("active");
    t.migration("failed");
    t.m.closed(true, t.now);
    t.pump();
    assert_eq!(t.steps(), ["prepare 1 tap0", "abort 1"]);

    let mut t = Talk::connected(Options::default(), "inmigrate");
    t.m.closed(false, t.now);
    t.pump();
    assert_eq!(t.steps(), ["prepare 1 tap0"], "a lost connection alone says nothing");
    t.m.closed(true, t.now);
    t.pump();
    assert_eq!(t.steps(), ["abort 1"], "killed");

    let mut t = Talk::connected(Options::default(), "inmigrate");
    t.event("SHUTDOWN");
    assert_eq!(t.steps(), ["prepare 1 tap0", "abort 1"]);
    t.migration("setup");
    assert_eq!(t.steps(), ["prepare 1 tap0"], "a second try of the same QEMU");
}

#[test]
fn the_source_releases_when_its_migration_is_completed_and_not_before() {
    let mut t = Talk::connected(Options::default(), "running");
    for status in ["setup", "active"] {
        t.migration(status);
    }
    t.status = "finish-migrate";
    t.event("STOP");
    assert_eq!((t.steps(), t.m.phase()), (vec![], Phase::Leaving));
    t.migration("completed");
    assert_eq!((t.steps(), t.m.phase()), (vec!["release 1".to_owned()], Phase::Left));
    t.m.closed(true, t.now);
    t.pump();
    assert_eq!(t.steps(), [""; 0], "QEMU's end at the source is no news");
}

#[test]
fn without_migration_events_the_source_is_watched_by_its_status() {
    let mut t = Talk::new(Options::default(), "running");
    t.events = false;
    t.m.connected(None, t.now);
    t.line(GREETING);
    assert_eq!(t.m.events(), Some(false));
    assert!(t.notes[0].contains("reports no migration events (There's a migration process"), "{:?}", t.notes);
    t.status = "finish-migrate";
    t.event("STOP");
    t.wait(Span::millis(500));
    assert_eq!(t.steps(), [""; 0]);
    t.status = "postmigrate";
    t.wait(Span::millis(60));
    assert_eq!(t.steps(), ["release 1"]);
    let asked = t.asked.len();
    t.wait(Span::secs(60));
    assert_eq!(t.asked.len(), asked, "and then it is left alone");
}

#[test]
fn a_pause_by_an_administrator_is_no_move() {
    let mut t = Talk::connected(Options::default(), "running");
    t.status = "paused";
    t.event("STOP");
    t.wait(Span::secs(5));
    t.status = "running";
    t.event("RESUME");
    assert_eq!((t.steps(), t.m.phase()), (vec![], Phase::Running));
    // Nor is a snapshot to a file, which stops it for a moment.
    t.status = "save-vm";
    t.event("STOP");
    t.event("RESUME");
    assert_eq!(t.steps(), [""; 0]);
}

#[test]
fn a_cancelled_migration_leaves_the_running_source_alone() {
    let mut t = Talk::connected(Options::default(), "running");
    for status in ["setup", "active", "cancelling", "cancelled"] {
        t.migration(status);
    }
    t.wait(Span::secs(10));
    assert_eq!((t.steps(), t.m.phase()), (vec![], Phase::Running));
}

#[test]
fn a_migration_that_fails_after_the_stop_is_taken_back_at_the_source() {
    // PIT-26: the target may have been activated between STOP and RESUME.
    let stop = Options { activate_at: ActivateAt::Stop, ..Options::default() };
    for (options, released) in [(Options::default(), false), (stop, true)] {
        let mut t = Talk::connected(options, "running");
        t.migration("setup");
        t.migration("active");
        t.status = "finish-migrate";
        t.event("STOP");
        t.migration("pre-switchover");
        let release: &[&str] = if released { &["release 1 at-stop"] } else { &[] };
        assert_eq!(t.steps(), release);
        t.migration("cancelling");
        t.status = "running";
        t.event("RESUME");
        t.migration("cancelled");
        assert_eq!(t.steps(), [format!("take back 1 tap0 left=false released={released}")]);
        t.answer(&Outcome::Done("active".into()));
        t.wait(Span::secs(10));
        assert_eq!((t.steps(), t.m.phase()), (vec![], Phase::Running));
    }
}

#[test]
fn what_arrives_for_a_guest_is_held_from_its_stop_in_a_migration_until_it_goes_on() {
    use Leave::{Begins, Stays, Stopped};
    let mut t = Talk::connected(Options::default(), "running");
    // Not when somebody pauses it.
    t.status = "paused";
    t.event("STOP");
    t.status = "running";
    t.event("RESUME");
    assert_eq!(t.leaves, []);
    t.migration("setup");
    t.migration("active");
    assert_eq!(t.leaves, [Begins], "once, and long before");
    t.status = "finish-migrate";
    t.event("STOP");
    assert_eq!(t.leaves, [Begins, Stopped]);
    t.status = "running";
    t.event("RESUME");
    t.migration("failed");
    assert_eq!(t.leaves, [Begins, Stopped, Stays]);
    // One that succeeds ends elsewhere.
    t.migration("setup");
    t.status = "finish-migrate";
    t.event("STOP");
    t.migration("completed");
    t.wait(Span::secs(2));
    assert_eq!((&t.leaves[3..], t.m.phase()), (&[Begins, Stopped][..], Phase::Left));
    // At the stop the release does it.
    let stop = Options { activate_at: ActivateAt::Stop, ..Options::default() };
    let mut t = Talk::connected(stop, "running");
    t.migration("active");
    t.status = "";
    t.event("STOP");
    assert_eq!(t.steps(), ["release 1 at-stop"]);
    assert_eq!(t.leaves, [Begins]);
}

#[test]
fn at_stop_the_source_releases_with_the_stop_alone_and_the_target_is_prepared_for_that() {
    let stop = || Options { activate_at: ActivateAt::Stop, ..Options::default() };
    let mut t = Talk::connected(stop(), "inmigrate");
    assert_eq!(t.steps(), ["prepare 1 tap0 at-stop"]);
    t.wait(Span::secs(240));
    assert_eq!(t.steps(), ["prepare 1 tap0 at-stop"], "and again in a long migration");
    // Without `pause-before-switchover` there is nothing but the STOP: QEMU answers nothing until all is over.
    let mut t = Talk::connected(stop(), "running");
    t.migration("setup");
    t.migration("active");
    t.status = "";
    t.event("STOP");
    assert_eq!((t.steps(), t.m.phase()), (vec!["release 1 at-stop".to_owned()], Phase::Leaving));
    t.migration("completed");
    t.status = "postmigrate";
    t.wait(Span::secs(2));
    assert_eq!((t.steps(), t.m.phase()), (vec![], Phase::Left), "once");
    // A guest that somebody stops in the middle of its migration: its status says so, and it stays.
    let mut t = Talk::connected(stop(), "running");
    t.migration("active");
    t.status = "paused";
    t.event("STOP");
    assert_eq!(t.steps(), ["release 1 at-stop", "take back 1 tap0 left=false released=true"]);
    assert_eq!(t.m.phase(), Phase::Paused);
    t.status = "running";
    t.event("RESUME");
    t.status = "";
    t.event("STOP");
    assert_eq!(t.steps(), ["release 1 at-stop"], "its end is another one");
    // A stop without a migration is none.
    let mut t = Talk::connected(stop(), "running");
    t.status = "paused";
    t.event("STOP");
    assert_eq!((t.steps(), t.m.phase()), (vec![], Phase::Paused));
}

#[test]
fn a_source_that_is_continued_after_the_move_is_a_split_brain_and_no_claim() {
    let mut t = Talk::connected(Options::default(), "running");
    t.migration("active");
    t.status = "finish-migrate";
    t.event("STOP");
    t.migration("completed");
    assert_eq!(t.steps(), ["release 1"]);
    t.answer(&Outcome::Done("released".into()));
    t.status = "running";
    t.event("RESUME");
    assert_eq!(t.steps(), ["take back 1 tap0 left=true released=true"]);
    t.answer(&Outcome::Elsewhere(vtep()));
    assert_eq!(t.m.phase(), Phase::SplitBrain);
    let told = t.notes.iter().filter(|n| n.starts_with("! SPLIT BRAIN")).count();
    assert_eq!(told, 1, "{:?}", t.notes);
    // Looked at again, told once.
    t.wait(Span::secs(5));
    assert_eq!(t.steps().len(), 2);
    t.answer(&Outcome::Elsewhere(vtep()));
    assert_eq!(t.notes.iter().filter(|n| n.starts_with("! SPLIT BRAIN")).count(), 1);
    // The other copy ends: this one is the guest.
    t.wait(Span::secs(2));
    t.answer(&Outcome::Done("active".into()));
    assert_eq!(t.m.phase(), Phase::Running);
    t.steps();
    t.wait(Span::secs(20));
    assert_eq!(t.steps(), [""; 0]);
}

#[test]
fn ports_come_from_the_configuration_first_then_from_qemu() {
    let by = |key: &str| {
        let ports = BTreeMap::from([(key.to_owned(), "p9".to_owned())]);
        let mut t = Talk::connected(Options { ports, ..Options::default() }, "inmigrate");
        t.steps()
    };
    for key in ["nic0", "n0", "52:54:00:aa:00:01"] {
        assert_eq!(by(key), ["prepare 1 p9"], "{key}");
    }
    assert_eq!(by("other"), ["prepare 1 tap0"]);
    // libvirt hands over descriptors; the kernel knows their names.
    let mut t = Talk::new(Options::default(), "inmigrate");
    t.network =
        "net0: index=0,type=nic,macaddr=52:54:00:aa:00:01\r\n \\ hostnet0: index=0,type=tap,fd=33\r\n".into();
    t.m.connected(Some(7), t.now);
    t.line(GREETING);
    assert_eq!(t.steps(), ["prepare 1 vnet33"]);
}

#[test]
fn a_mac_that_the_guest_has_set_itself_is_followed_once_it_is_known() {
    let mut t = Talk::connected(Options::default(), "inmigrate");
    t.rx_filter = json!([{ "name": "nic0", "main-mac": "52:54:00:aa:00:02" }]);
    t.event("RESUME");
    assert_eq!(t.steps(), ["prepare 1 tap0", "activate 1 tap0", "abort 1", "activate 2 tap0"]);
}

#[test]
fn whoever_hangs_or_talks_rubbish_is_hung_up_on_with_a_reason() {
    let mut t = Talk::new(Options::default(), "running");
    t.m.connected(None, t.now);
    t.wait(ANSWER_LIMIT);
    assert!(
        t.hung_up.as_ref().is_some_and(|w| w.starts_with("no greeting within 5 seconds")),
        "{:?}",
        t.hung_up
    );

    let mut t = Talk::new(Options::default(), "running");
    t.answering = false;
    t.m.connected(None, t.now);
    t.line(GREETING);
    t.wait(ANSWER_LIMIT);
    assert_eq!(t.hung_up.as_deref(), Some("no answer to Capabilities within 5 seconds"));

    for (lines, why) in [
        (vec!["hello"], "not JSON: `hello`"),
        (vec![r#"{"event": "STOP"}"#], "something came before the greeting"),
        (vec![GREETING, GREETING], "a second greeting"),
        (vec![GREETING, r#"{"return": {}, "id": 99}"#], "an answer that nobody asked for"),
    ] {
        let mut t = Talk::new(Options::default(), "running");
        t.m.connected(None, t.now);
        for l in lines {
            t.line(l);
        }
        assert_eq!(t.hung_up.as_deref(), Some(why));
        t.wait(Span::secs(60));
        assert_eq!(t.steps(), [""; 0]);
    }
}

/// One thing that may happen to a machine.
#[derive(Clone, Debug)]
enum Happening {
    Connect(i32),
    Close(bool),
    Greet,
    Event(&'static str),
    Migration(&'static str),
    Status(&'static str),
    Outcome(u8),
    Wait(u64),
    Raw(Vec<u8>),
}

fn happening() -> impl Strategy<Value = Happening> {
    let statuses = prop::sample::select(vec![
        "inmigrate",
        "running",
        "paused",
        "finish-migrate",
        "postmigrate",
        "prelaunch",
        "save-vm",
        "odd",
    ]);
    let migrations = prop::sample::select(vec![
        "setup",
        "active",
        "pre-switchover",
        "device",
        "postcopy-active",
        "completed",
        "failed",
        "cancelling",
        "cancelled",
        "odd",
    ]);
    let events =
        prop::sample::select(vec!["RESUME", "STOP", "SHUTDOWN", "NIC_RX_FILTER_CHANGED", "RESET", "ODD"]);
    prop_oneof![
        1 => (0..3i32).prop_map(Happening::Connect),
        1 => any::<bool>().prop_map(Happening::Close),
        2 => Just(Happening::Greet),
        6 => events.prop_map(Happening::Event),
        6 => migrations.prop_map(Happening::Migration),
        4 => statuses.prop_map(Happening::Status),
        3 => (0..4u8).prop_map(Happening::Outcome),
        3 => (0..300_000u64).prop_map(Happening::Wait),
        1 => prop::collection::vec(any::<u8>(), 0..40).prop_map(Happening::Raw),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever happens: no panic, no activation without a guest that was expected and now runs, never two for one
    /// arrival, and no timer that fires without end.
    #[test]
    fn in_any_order_an_activation_needs_an_arrival_and_comes_once(
        stop in any::<bool>(), all in prop::collection::vec(happening(), 1..60),
    ) {
        let activate_at = if stop { ActivateAt::Stop } else { ActivateAt::Resume };
        let mut t = Talk::connected(Options { activate_at, ..Options::default() }, "inmigrate");
        // Arrivals that were begun (`prepare`) and not yet used up.
        let mut prepared = false;
        let mut released = BTreeSet::new();
        for h in all {
            let before = t.m.phase();
            match h {
                Happening::Connect(pid) => t.m.connected(Some(pid), t.now),
                Happening::Close(gone) => t.m.closed(gone, t.now),
                Happening::Greet => t.line(GREETING),
                Happening::Event(name) => t.event(name),
                Happening::Migration(status) => t.migration(status),
                Happening::Status(status) => {
                    t.status = status;
                    t.event("STOP");
                }
                Happening::Outcome(n) => t.answer(&match n {
                    0 => Outcome::Done("x".into()),
                    1 => Outcome::NotNeeded,
                    2 => Outcome::Elsewhere(vtep()),
                    _ => Outcome::Refused("no".into()),
                }),
                Happening::Wait(ms) => t.wait(Span::millis(ms)),
                Happening::Raw(octets) => t.m.line(&octets, t.now),
            }
            t.pump();
            for step in t.steps() {
                match step.split(' ').next().unwrap_or_default() {
                    "prepare" => prepared = true,
                    "activate" => {
                        prop_assert!(prepared, "activated although not expected; {before:?}");
                        prepared = false;
                    }
                    "abort" => prepared = false,
                    "release" => prop_assert!(released.insert(MAC), "released twice without taking back"),
                    _ => {}
                }
                if step.starts_with("take back") || step.starts_with("prepare") {
                    released.clear();
                }
            }
            // Another guest.
            if t.m.phase() == Phase::Unknown {
                released.clear();
            }
            if t.hung_up.take().is_some() {
                t.m.closed(false, t.now);
            }
        }
    }
}
