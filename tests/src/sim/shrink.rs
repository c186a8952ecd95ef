//! A failing plan made small: steps are dropped while it still fails in the same way.

use super::mutants::Mutant;
use super::plan::{Frr, Plan, Step};
use super::world::run;

/// Most runs spent on one plan.
const RUNS: usize = 400;

/// The smallest plan found that still has a finding of this kind.
pub fn shrink(plan: &Plan, kind: &str, mutant: Option<Mutant>) -> Plan {
    let mut best = plan.clone();
    let mut runs = 0;
    let mut fails = |p: &Plan| {
        runs += 1;
        runs <= RUNS && run(p, mutant, false).findings.iter().any(|f| f.kind == kind)
    };
    let mut chunk = best.steps.len() / 2;
    while chunk > 0 {
        let mut from = 0;
        while from < best.steps.len() {
            let mut less = best.clone();
            less.steps.drain(from..(from + chunk).min(less.steps.len()));
            if fails(&less) {
                best = less;
            } else {
                from += chunk;
            }
        }
        chunk /= 2;
    }
    for simpler in simpler(&best) {
        if fails(&simpler) {
            best = simpler;
        }
    }
    best
}

/// The same steps on a plainer fabric, one thing at a time.
fn simpler(p: &Plan) -> Vec<Plan> {
    let mut out = Vec::new();
    let mut with = |f: &dyn Fn(&mut Plan)| {
        let mut new = p.clone();
        f(&mut new);
        if new != *p {
            out.push(new);
        }
    };
    with(&|p| p.fabric.room = 0);
    with(&|p| p.fabric.both = false);
    with(&|p| p.fabric.lag = 0);
    with(&|p| p.fabric.frr = [None; 2]);
    with(&|p| p.fabric.frr[1] = None);
    with(&|p| {
        let plain = Frr { remembers: false, accepts: true, ages: 0 };
        p.fabric.frr.iter_mut().flatten().for_each(|f| *f = plain);
    });
    with(&|p| p.fabric.delay.1 = p.fabric.delay.0);
    // Everything at a round time.
    with(&|p| p.steps.iter_mut().for_each(|s: &mut Step| s.at = s.at.next_multiple_of(1_000)));
    out
}
