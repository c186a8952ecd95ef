//! The table and the JSON of a soak.

use super::{Contradiction, Difference, Plan};
use crate::bench::{Machine, Samples};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::time::Duration;

/// Memory may be filled for so many moves: histories, tables, the allocator's own.
const WARM_UP: f64 = 0.2;
/// It may grow so much after that and still counts as flat.
const GROWTH: f64 = 0.05;
/// Histories go on filling up to their bound.
const HISTORY_KB: f64 = 512.0;

/// What a soak found.
#[derive(Clone, Debug)]
pub struct Report {
    machine: Machine,
    plan: Plan,
    kinds: Vec<(&'static str, usize, f64, f64)>,
    memory: Vec<(usize, Vec<u64>)>,
    differences: Vec<(String, Difference)>,
    contradictions: Vec<(String, Contradiction)>,
    comparisons: usize,
    took: Duration,
}

impl Report {
    pub(super) fn new(machine: Machine, plan: Plan) -> Self {
        Self {
            machine,
            plan,
            kinds: Vec::new(),
            memory: Vec::new(),
            differences: Vec::new(),
            contradictions: Vec::new(),
            comparisons: 0,
            took: Duration::ZERO,
        }
    }

    pub(super) fn memory(&mut self, moves: usize, kb: Vec<u64>) {
        self.memory.push((moves, kb));
    }

    pub(super) fn kind(&mut self, name: &'static str, s: &Samples) {
        self.kinds.push((name, s.len(), s.percentile(50.0), s.percentile(100.0)));
    }

    /// What went wrong: here, or in FRR alone; with the step at which it did.
    pub(super) fn found(&mut self, ours: Vec<(String, Difference)>, frrs: Vec<(String, Contradiction)>) {
        (self.differences, self.contradictions) = (ours, frrs);
    }

    pub(super) fn end(&mut self, comparisons: usize, took: Duration) {
        (self.comparisons, self.took) = (comparisons, took);
    }

    /// Moves made.
    fn moves(&self) -> usize {
        self.kinds.iter().map(|k| k.1).sum()
    }

    /// Memory of each daemon after warming up and at the end, in kB.
    fn growth(&self) -> Vec<(u64, u64)> {
        let warm = (self.plan.moves as f64 * WARM_UP) as usize;
        let first = self.memory.iter().find(|(n, _)| *n >= warm).or(self.memory.last());
        let pair = first.zip(self.memory.last());
        pair.map(|((_, a), (_, b))| a.iter().copied().zip(b.iter().copied()).collect()).unwrap_or_default()
    }

    /// Memory stays where it was.
    pub fn flat(&self) -> bool {
        self.growth().iter().all(|(a, b)| *b as f64 <= *a as f64 * (1.0 + GROWTH) + HISTORY_KB)
    }

    /// Nothing to complain about.
    pub fn passed(&self) -> bool {
        self.differences.is_empty() && self.flat() && self.moves() == self.plan.moves
    }

    /// For people.
    pub fn table(&self) -> String {
        let mut out = String::new();
        for (k, v) in self.machine.text() {
            let _ = writeln!(out, "- {k}: {v}");
        }
        let Plan { vms, seed, frr, .. } = &self.plan;
        let with = if *frr { "three vtepd and one FRR" } else { "three vtepd" };
        let _ = writeln!(out, "- {vms} VMs on {with}, seed {seed}, {} s\n", self.took.as_secs());
        let _ = writeln!(out, "| {:<36} | {:>5} | {:>10} | {:>10} |", "moves", "n", "median", "max");
        let _ = writeln!(out, "|{:-<38}|{:->7}|{:->12}|{:->12}|", "", ":", ":", ":");
        for (name, n, median, max) in &self.kinds {
            let _ = writeln!(out, "| {name:<36} | {n:>5} | {median:>7.0} ms | {max:>7.0} ms |");
        }
        let _ = writeln!(
            out,
            "\nUntil everything agrees, the comparison included ({} made).\n",
            self.comparisons
        );
        for (i, (a, b)) in self.growth().iter().enumerate() {
            let first = self.memory.first().and_then(|(_, m)| m.get(i)).copied().unwrap_or(0);
            let _ = writeln!(
                out,
                "memory of vtepd {}: {first} kB at the start, {a} kB after a fifth, {b} kB at the end",
                i + 1
            );
        }
        let _ = writeln!(out, "memory is {}\n", if self.flat() { "flat" } else { "NOT FLAT" });
        for (step, d) in &self.differences {
            let _ = writeln!(out, "{step}: {d}");
        }
        if !self.contradictions.is_empty() {
            let n = self.contradictions.len();
            let _ = writeln!(out, "FRR contradicted itself {n} times, which is no difference of vtepd's:");
        }
        for (step, c) in &self.contradictions {
            let _ = writeln!(out, "{step}: {c}");
        }
        let _ = write!(out, "{} moves, {} differences", self.moves(), self.differences.len());
        if !self.contradictions.is_empty() {
            let _ = write!(out, ", FRR contradicted itself {} times", self.contradictions.len());
        }
        out
    }

    /// For programs.
    pub fn json(&self) -> Value {
        let kinds: Vec<_> = self
            .kinds
            .iter()
            .map(|(k, n, median, max)| json!({ "kind": k, "n": n, "median_ms": median, "max_ms": max }))
            .collect();
        let differences: Vec<_> = self
            .differences
            .iter()
            .map(|(step, d)| {
                json!({
                    "step": step, "node": d.node, "table": d.table, "row": d.row,
                    "truth": d.truth, "table_says": d.table_says,
                })
            })
            .collect();
        let contradictions: Vec<_> = self
            .contradictions
            .iter()
            .map(|(step, c)| {
                json!({
                    "step": step, "node": c.node, "route": c.route, "bgpd": c.bgpd, "zebra": c.zebra,
                    "kernel": c.kernel, "truth": c.truth, "followed": c.followed,
                })
            })
            .collect();
        let memory: Vec<_> = self.memory.iter().map(|(n, kb)| json!({ "moves": n, "kb": kb })).collect();
        json!({
            "version": 1, "machine": self.machine.json(), "vms": self.plan.vms, "seed": self.plan.seed,
            "frr": self.plan.frr, "moves": self.moves(), "comparisons": self.comparisons,
            "seconds": self.took.as_secs_f64(), "kinds": kinds, "memory": memory, "flat": self.flat(),
            "differences": differences, "contradictions": contradictions, "passed": self.passed(),
        })
    }
}
