//! `cargo xtask soak`: VMs move among vtepd and FRR in every way there is, and after each move the kernels, the daemons'
//! tables and what the peers hold are compared with where the VMs truly are.
//!
//! The truth is the runner's own. It reads kernels by its own netlink code, vtepd through the API, FRR through vtysh.

mod facts;
mod judge;
#[cfg(test)]
mod judge_tests;
mod report;
mod truth;
mod world;

pub use judge::{Contradiction, Difference};
pub use report::Report;

use crate::api::request;
use crate::bench::{Machine, Samples};
use crate::frame;
use crate::packet::now;
use facts::Snapshot;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use truth::Presence;
use world::{Vm, World, vm_mac};

/// A difference that is still there after this time is one.
const LIMIT: Duration = Duration::from_secs(20);
/// What FRR says against itself twice, so long after one another, it means.
const AGAIN: Duration = Duration::from_secs(2);
/// A VM that says nothing of itself still talks.
const TALKS: Duration = Duration::from_millis(300);
/// Further moves make no sense after so many that went wrong.
const ENOUGH: usize = 3;

/// How much.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Moves.
    pub moves: usize,
    /// VMs.
    pub vms: usize,
    /// Decides who goes where.
    pub seed: u64,
    /// One of the VTEPs runs FRR.
    pub frr: bool,
    /// Directory for what all nodes said, whenever they did not agree.
    pub record: Option<PathBuf>,
}

/// Kinds of moves, in turn.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Kind {
    HotRarp,
    HotGarp,
    HotSilent,
    Prepared,
    Cold,
    ColdNewMac,
    HotNewMac,
}

impl Kind {
    const ALL: [Self; 7] = [
        Self::HotRarp,
        Self::HotGarp,
        Self::HotSilent,
        Self::Prepared,
        Self::Cold,
        Self::ColdNewMac,
        Self::HotNewMac,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::HotRarp => "hot, RARP",
            Self::HotGarp => "hot, gratuitous ARP",
            Self::HotSilent => "hot, data frames only",
            Self::Prepared => "prepared",
            Self::Cold => "cold",
            Self::ColdNewMac => "cold, new MAC",
            Self::HotNewMac => "new MAC while the old one is there",
        }
    }
}

/// A small generator; the same seed gives the same run.
#[derive(Debug)]
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        // Marsaglia's xorshift.
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % n as u64) as usize
    }
}

/// A run in progress.
#[derive(Debug)]
struct Run<'a> {
    world: &'a World,
    vms: &'a Mutex<Vec<Vm>>,
    dice: Dice,
    macs: u32,
    step: String,
    found: Vec<(String, Difference)>,
    /// Routes by which FRR contradicts itself, as long as it does.
    proven: BTreeSet<String>,
    contradictions: Vec<(String, Contradiction)>,
    /// Rows that zebra's kernel has and its cache lacks, whenever that was seen.
    zebras: BTreeSet<String>,
    record: Option<PathBuf>,
    comparisons: usize,
}

/// Runs the whole plan.
///
/// # Panics
/// When the topology does not come up.
pub fn run(plan: &Plan) -> Report {
    let machine = Machine::here();
    let world = World::new(plan.vms, plan.frr);
    let vms = Mutex::new(World::vms(plan.vms));
    let stop = AtomicBool::new(false);
    std::thread::scope(|s| {
        s.spawn(|| world.answer(&vms, &stop));
        let mut run = Run {
            world: &world,
            vms: &vms,
            dice: Dice(plan.seed | 1),
            macs: 0,
            step: String::new(),
            found: Vec::new(),
            proven: BTreeSet::new(),
            contradictions: Vec::new(),
            zebras: BTreeSet::new(),
            record: plan.record.clone(),
            comparisons: 0,
        };
        let report = run.all(plan, machine);
        stop.store(true, Ordering::Relaxed);
        report
    })
}

impl Run<'_> {
    fn all(&mut self, plan: &Plan, machine: Machine) -> Report {
        let begun = now();
        self.step = "first boot".into();
        for n in 0..plan.vms {
            let home = self.dice.below(self.world.nodes.len());
            self.boots(n, home);
        }
        self.settle(None);
        let mut report = Report::new(machine, plan.clone());
        report.memory(0, self.world.resident_kb());
        let (mut failed, mut took) = (0, BTreeMap::<Kind, Samples>::new());
        for i in 1..=plan.moves {
            let before = self.found.len();
            let (kind, ns) = self.one_move(i);
            took.entry(kind).or_default().push(ns);
            failed += usize::from(self.found.len() > before);
            if i % (plan.moves / 20).max(1) == 0 || failed >= ENOUGH {
                report.memory(i, self.world.resident_kb());
                let so_far = Duration::from_nanos(now() - begun).as_secs();
                let (d, c) = (self.found.len(), self.contradictions.len());
                eprintln!("  {i:>6} moves, {d} differences, FRR contradicted itself {c} times, {so_far} s");
            }
            if failed >= ENOUGH {
                break;
            }
        }
        // What comes late, comes now.
        std::thread::sleep(Duration::from_secs(2));
        self.step = "2 s after the last move".into();
        self.settle(None);
        for (kind, samples) in &took {
            report.kind(kind.name(), samples);
        }
        report.found(std::mem::take(&mut self.found), std::mem::take(&mut self.contradictions));
        for row in &self.zebras {
            eprintln!("{row}: in zebra's kernel and not in its cache, which is no difference of vtepd's");
        }
        report.end(self.comparisons, Duration::from_nanos(now() - begun));
        report
    }

    fn one_move(&mut self, number: usize) -> (Kind, u64) {
        let mut kind = Kind::ALL[number % Kind::ALL.len()];
        let vms = self.lock().len();
        let n = self.dice.below(vms);
        let vm = self.vm(n);
        let home = vm.home.expect("every VM runs between moves");
        let to = (home + 1 + self.dice.below(self.world.nodes.len() - 1)) % self.world.nodes.len();
        if self.is_frr(to) {
            kind = match kind {
                // FRR's kernel holds the old binding as somebody's and hears no other until the old MAC is gone.
                Kind::HotNewMac => Kind::ColdNewMac,
                // It takes no orders from hypervisors.
                Kind::Prepared => Kind::HotRarp,
                Kind::HotRarp | Kind::HotGarp | Kind::HotSilent | Kind::Cold | Kind::ColdNewMac => kind,
            };
        }
        self.step = format!(
            "move {number} ({}): {} {} from {} to {}",
            kind.name(),
            vm.mac,
            vm.ip,
            self.world.name(home),
            self.world.name(to)
        );
        let begun = now();
        match kind {
            Kind::HotRarp => self.hot(n, to, &frame::rarp(vm.mac), false),
            Kind::HotGarp => self.hot(n, to, &frame::garp(vm.mac, vm.ip), false),
            // On the port that lost it less than a guard time ago, a data frame is a claim only if more follow (PIT-04).
            Kind::HotSilent => self.hot(n, to, &frame::data(vm_mac(0xff, 0), vm.mac, 0), true),
            Kind::Prepared => self.prepared(&vm, home, to),
            Kind::Cold | Kind::ColdNewMac => {
                self.change(n, |v| (v.home, v.ip_known) = (None, false));
                self.world.pull(home, &vm);
                self.settle(None);
                if kind == Kind::ColdNewMac {
                    self.new_mac(n);
                }
                self.boots(n, to);
                self.settle(None);
            }
            Kind::HotNewMac => {
                self.change(n, |v| v.ghost = Some((v.mac, home)));
                self.new_mac(n);
                self.boots(n, to);
                self.settle(None);
                self.change(n, |v| v.ghost = None);
                self.world.pull(home, &vm);
                self.settle(None);
            }
        }
        (kind, now() - begun)
    }

    /// The VM runs at `to` from now on and says this, once or `again` and again.
    fn hot(&mut self, n: usize, to: usize, frame: &[u8], again: bool) {
        let frr = self.is_frr(to);
        self.change(n, |v| (v.home, v.ip_known) = (Some(to), !frr));
        let vm = self.vm(n);
        self.world.say(to, &vm, frame);
        self.settle(again.then_some((to, &vm, frame)));
        if frr {
            // FRR hears the address only after it has dropped its remote binding.
            self.change(n, |v| v.ip_known = true);
            self.world.say(to, &vm, &frame::garp(vm.mac, vm.ip));
            self.settle(None);
        }
    }

    /// The hypervisors announce the move; the VM speaks only when all has been compared.
    fn prepared(&mut self, vm: &Vm, home: usize, to: usize) {
        self.step(to, vm, "prepare");
        if !self.is_frr(home) {
            self.step(home, vm, "release");
        }
        self.change(vm.number, |v| v.home = Some(to));
        self.step(to, vm, "activate");
        self.settle(None);
        self.world.say(to, vm, &frame::garp(vm.mac, vm.ip));
        self.settle(None);
        if !self.is_frr(home) {
            // It may come back at any time, and without a hypervisor that says so.
            self.step(home, vm, "abort");
        }
    }

    fn step(&mut self, at: usize, vm: &Vm, step: &str) {
        let mut body = json!({ "step": step, "vni": world::VNI, "mac": vm.mac.to_string() });
        if step == "prepare" {
            body["port"] = vm.port.clone().into();
        }
        let answer = match request(&self.world.socket(at), "POST", "/v1/move", Some(&body)) {
            Ok((200, _)) => return,
            Ok((status, answer)) => format!("{status}: {answer}"),
            Err(e) => e,
        };
        let d = Difference {
            node: self.world.name(at),
            table: "POST /v1/move",
            row: step.into(),
            truth: Some("200".into()),
            table_says: Some(answer),
        };
        self.differs(d);
    }

    /// The VM starts and says gratuitous ARP.
    fn boots(&mut self, n: usize, at: usize) {
        self.change(n, |v| (v.home, v.ip_known) = (Some(at), true));
        let vm = self.vm(n);
        self.world.say(at, &vm, &frame::garp(vm.mac, vm.ip));
    }

    fn new_mac(&mut self, n: usize) {
        self.macs += 1;
        let mac = vm_mac(n, self.macs);
        self.change(n, |v| v.mac = mac);
    }

    /// Waits until everything agrees; what still does not is noted. `talks`: a VM that goes on talking meanwhile.
    fn settle(&mut self, talks: Option<(usize, &Vm, &[u8])>) {
        let begun = now();
        let mut said = begun;
        let mut truth = truth::presences(&self.lock());
        truth.extend(truth::probes(self.world));
        loop {
            self.comparisons += 1;
            let got = Snapshot::take(self.world);
            let late = now() - begun > LIMIT.as_nanos() as u64;
            match got {
                Ok(s) if judge::differences(&s, &truth, &self.proven).is_empty() => {
                    self.zebras
                        .extend(judge::zebras_own(&s).into_iter().map(|row| format!("{}: {row}", self.step)));
                    // Whatever FRR withdraws in the end has to be proven anew.
                    self.proven = &self.proven & &judge::proven(&s, &s, &truth);
                    return;
                }
                Ok(s) if late => return self.conclude(&s, &truth),
                Err(e) if late => return self.silent(e),
                Ok(_) | Err(_) => {}
            }
            if let Some((at, vm, frame)) = talks.filter(|_| now() - said > TALKS.as_nanos() as u64) {
                said = now();
                self.world.say(at, vm, frame);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// The time is over. What FRR says against itself is told apart from differences, which are all the rest.
    fn conclude(&mut self, earlier: &Snapshot, truth: &[Presence]) {
        std::thread::sleep(AGAIN);
        self.comparisons += 1;
        let s = match Snapshot::take(self.world) {
            Ok(s) => s,
            Err(e) => return self.silent(e),
        };
        self.record(earlier, &s, truth);
        let proven = judge::proven(earlier, &s, truth);
        let new = &proven - &self.proven;
        self.proven = proven;
        for c in judge::contradictions(&s, truth, &new) {
            eprintln!("{}: {c}", self.step);
            self.contradictions.push((self.step.clone(), c));
        }
        for d in judge::differences(&s, truth, &self.proven) {
            self.differs(d);
        }
    }

    fn differs(&mut self, d: Difference) {
        eprintln!("{}: {d}", self.step);
        self.found.push((self.step.clone(), d));
    }

    fn silent(&mut self, node: String) {
        let (table, row, truth) = ("all", "all".into(), Some("an answer".into()));
        self.differs(Difference { node, table, row, truth, table_says: None });
    }

    fn record(&self, earlier: &Snapshot, now: &Snapshot, truth: &[Presence]) {
        let Some(dir) = &self.record else { return };
        if let Err(e) = std::fs::create_dir_all(dir) {
            eprintln!("{}: {e}", dir.display());
        }
        let said = json!({ "step": self.step, "truth": truth, "earlier": earlier, "now": now });
        let path = dir.join(format!("{}.json", self.comparisons));
        if let Err(e) = std::fs::write(&path, format!("{said:#}\n")) {
            eprintln!("{}: {e}", path.display());
        }
    }

    fn is_frr(&self, i: usize) -> bool {
        self.world.frr(i).is_some()
    }

    fn vm(&self, n: usize) -> Vm {
        self.lock()[n].clone()
    }

    fn change(&self, n: usize, f: impl FnOnce(&mut Vm)) {
        f(&mut self.lock()[n]);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Vm>> {
        self.vms.lock().expect("nobody panics with the lock held")
    }
}
