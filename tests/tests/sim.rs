//! The simulation in every test run: kept plans, 2,000 seeds, planted faults.

use std::sync::atomic::{AtomicU64, Ordering};
use vtepd_tests::sim::{Finding, Mutant, Plan, Wish, generate, kept, run};

/// Seeds per test run.
const SEEDS: u64 = 2_000;
/// Seeds in which each planted fault has to be found.
const MUTANT_SEEDS: u64 = 500;

fn told(name: &str, plan: &Plan, findings: &[Finding]) -> String {
    let lines: Vec<_> = findings.iter().map(|f| format!("  {} at {}: {}", f.kind, f.at, f.text)).collect();
    format!("{name}:\n{}\n{plan}", lines.join("\n"))
}

/// Calls `f` with 0 to `n` on as many threads as there are cores; the first failure by number.
fn on_all_cores(n: u64, f: impl Fn(u64) -> Option<String> + Sync) -> Option<String> {
    let next = AtomicU64::new(0);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut failures = std::thread::scope(|s| {
        let workers: Vec<_> = (0..cores)
            .map(|_| {
                s.spawn(|| {
                    let mut failures = Vec::new();
                    loop {
                        let i = next.fetch_add(1, Ordering::Relaxed);
                        if i >= n || !failures.is_empty() {
                            return failures;
                        }
                        failures.extend(f(i).map(|why| (i, why)));
                    }
                })
            })
            .collect();
        workers.into_iter().flat_map(|w| w.join().expect("a simulation panicked")).collect::<Vec<_>>()
    });
    failures.sort();
    failures.into_iter().next().map(|(_, why)| why)
}

/// Every plan that has failed once runs well for ever.
#[test]
fn plans_that_failed_once_run_well() {
    for (name, plan) in kept().expect("kept plans can be read") {
        let got = run(&plan, None, false);
        assert!(got.findings.is_empty(), "{}", told(&name, &plan, &got.findings));
    }
}

/// EVPN-MOB-03, -05, -06, -07, -08; PIT-04, PIT-05, PIT-13, PIT-22 on whole fabrics.
#[test]
fn kernels_agree_with_the_truth_after_whatever_happened() {
    let failure = on_all_cores(SEEDS, |seed| {
        let plan = generate(seed, Wish::default());
        let got = run(&plan, None, false);
        (!got.findings.is_empty()).then(|| told(&format!("seed {seed}"), &plan, &got.findings))
    });
    assert!(
        failure.is_none(),
        "`cargo xtask sim --seed N --trace` shows it\n{}",
        failure.unwrap_or_default()
    );
}

/// A checker that finds nothing proves nothing.
#[test]
fn planted_faults_are_found() {
    let all = Mutant::ALL;
    assert!(all.len() >= 20, "at least twenty faults");
    let failure = on_all_cores(all.len() as u64, |i| {
        let mutant = all[i as usize];
        let found = (0..MUTANT_SEEDS)
            .any(|seed| !run(&generate(seed, Wish::default()), Some(mutant), false).findings.is_empty());
        (!found).then(|| format!("{mutant:?} was not found in {MUTANT_SEEDS} seeds"))
    });
    assert_eq!(failure, None);
}

/// FRR's first UPDATE comes after a second, and FRR forgets sequences: no fabric of nodes alone shows who cannot bear
/// that.
#[test]
fn some_faults_show_only_beside_frr() {
    for mutant in [Mutant::Impatient, Mutant::LowerRefused] {
        let shown = (0..MUTANT_SEEDS)
            .map(|seed| generate(seed, Wish::default()))
            .filter(|plan| plan.fabric.frr[0].is_some())
            .find(|plan| !run(plan, Some(mutant), false).findings.is_empty());
        let mut plan = shown.unwrap_or_else(|| panic!("{mutant:?} was not found in {MUTANT_SEEDS} seeds"));
        plan.fabric.frr = [None; 2];
        let got = run(&plan, Some(mutant), false);
        assert!(got.findings.is_empty(), "{}", told(&format!("{mutant:?}"), &plan, &got.findings));
    }
}

/// The same plan gives the same run, and its text is the plan.
#[test]
fn runs_repeat_and_plans_survive_as_text() {
    for seed in 0..20 {
        let plan = generate(seed, Wish::default());
        let again: Plan = plan.to_string().parse().expect("its own text");
        assert_eq!(plan, again);
        let (a, b) = (run(&plan, None, true), run(&again, None, true));
        assert_eq!((a.trace, a.events, a.updates), (b.trace, b.events, b.updates), "seed {seed}");
    }
}
