//! The simulation from the command line; `cargo xtask sim` builds and starts it.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use clap::Parser;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;
use vtepd_tests::sim::{Finding, Mutant, Plan, Wish, generate, held_by_daemons, kept_dir, long, run, shrink};

/// Counts what is allocated.
mod counted {
    #![allow(unsafe_code)]

    use std::alloc::{GlobalAlloc, Layout, System};
    use std::sync::atomic::{AtomicI64, Ordering};

    /// Octets allocated now.
    pub(crate) static LIVE: AtomicI64 = AtomicI64::new(0);

    pub(crate) struct Counted;

    // SAFETY: every call is passed on as it is; only a number is kept beside.
    unsafe impl GlobalAlloc for Counted {
        unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
            LIVE.fetch_add(layout.size().cast_signed() as i64, Ordering::Relaxed);
            // SAFETY: the caller's promises are passed on.
            unsafe { System.alloc(layout) }
        }
        unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
            LIVE.fetch_sub(layout.size().cast_signed() as i64, Ordering::Relaxed);
            // SAFETY: the caller's promises are passed on.
            unsafe { System.dealloc(at, layout) }
        }
    }
}

#[global_allocator]
static ALLOCATOR: counted::Counted = counted::Counted;

/// Moves after which the bounded histories of events and moves are full.
const WARM_UP: usize = 6_000;

/// Runs fabrics of whole nodes on a virtual clock and compares every kernel with the truth.
#[derive(Parser)]
#[command(name = "vtep-sim", max_term_width = 100)]
struct Cli {
    /// Seeds to run
    #[arg(long, default_value_t = 2_000)]
    seeds: u64,
    /// First seed
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Only this seed
    #[arg(long)]
    seed: Option<u64>,
    /// Nodes of every fabric; drawn from the seed when absent
    #[arg(long)]
    nodes: Option<usize>,
    /// Print what happens, event by event
    #[arg(long)]
    trace: bool,
    /// Plant faults, one after the other, and look whether each is found
    #[arg(long)]
    mutants: bool,
    /// Only the planted faults whose name has this in it
    #[arg(long, requires = "mutants")]
    only: Option<String>,
    /// What the daemons hold after 1,000, 10,000 and 100,000 moves
    #[arg(long)]
    growth: bool,
    /// Run this plan instead of seeds
    #[arg(long)]
    plan: Option<PathBuf>,
    /// Print the plan of a seed before it is run
    #[arg(long)]
    show: bool,
    /// Failing plans to shrink and save; further ones are only counted
    #[arg(long, default_value_t = 3)]
    keep: usize,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let wish = Wish { nodes: cli.nodes };
    if cli.growth {
        return growth();
    }
    if cli.mutants {
        return mutants(&cli, wish);
    }
    let plans: Box<dyn Iterator<Item = (String, Plan)>> = if let Some(path) = &cli.plan {
        match std::fs::read_to_string(path)
            .map_err(|e| e.to_string())
            .and_then(|t| t.parse::<Plan>().map_err(|e| e.to_string()))
        {
            Ok(plan) => Box::new(std::iter::once(("plan".to_owned(), plan))),
            Err(e) => {
                eprintln!("error: {}: {e}", path.display());
                return ExitCode::from(2);
            }
        }
    } else {
        let seeds = cli.seed.map_or(cli.from..cli.from + cli.seeds, |s| s..s + 1);
        Box::new(seeds.map(move |s| (s.to_string(), generate(s, wish))))
    };
    let begun = Instant::now();
    let (mut runs, mut failed, mut events, mut updates, mut moves) = (0u64, 0usize, 0, 0, 0);
    for (name, plan) in plans {
        if cli.show {
            println!("{plan}");
        }
        let got = run(&plan, None, cli.trace);
        print!("{}", got.trace);
        runs += 1;
        events += got.events;
        updates += got.updates;
        moves += got.moves;
        if let Some(first) = got.findings.first() {
            failed += 1;
            println!("seed {name}: {}", line(first));
            if failed <= cli.keep && cli.plan.is_none() && !cli.trace {
                keep(&name, &plan, first);
            }
        }
    }
    let secs = begun.elapsed().as_secs_f64();
    println!(
        "{runs} seeds, {failed} failed, {moves} moves, {updates} UPDATEs, {events} events in {secs:.1} s: \
         {:.0} seeds/s",
        runs as f64 / secs
    );
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn line(f: &Finding) -> String {
    format!("{} at {}: {}", f.kind, f.at, f.text)
}

/// Shrinks a failing plan and saves it.
fn keep(name: &str, plan: &Plan, first: &Finding) {
    let small = shrink(plan, first.kind, None);
    let what = run(&small, None, false).findings.first().map(line).unwrap_or_default();
    let path = kept_dir().join(format!("{}-{name}.txt", first.kind));
    let text = format!("# {what}\n{small}");
    println!("  shrunk to {} steps: {}", small.steps.len(), path.display());
    if let Err(e) = std::fs::write(&path, text) {
        eprintln!("  cannot save it: {e}");
    }
}

fn growth() -> ExitCode {
    let mut first = None;
    for moves in [1_000, 10_000, 100_000] {
        let live = || counted::LIVE.load(std::sync::atomic::Ordering::Relaxed);
        let (got, held) = held_by_daemons(&long(WARM_UP + moves), live);
        let first = *first.get_or_insert(held);
        let percent = (held - first) as f64 * 100.0 / first as f64;
        println!("{} moves: {held} octets held by three daemons, {percent:+.2} %", got.moves);
        if let Some(f) = got.findings.first() {
            println!("  {}", line(f));
            return ExitCode::FAILURE;
        }
        if percent.abs() > 2.0 {
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

fn mutants(cli: &Cli, wish: Wish) -> ExitCode {
    let (mut missed, mut tried) = (0, 0);
    let wanted = |m: &Mutant| cli.only.as_ref().is_none_or(|o| format!("{m:?}").contains(o));
    for m in Mutant::ALL.into_iter().filter(wanted) {
        tried += 1;
        let found = (cli.from..cli.from + cli.seeds)
            .find_map(|s| Some((s, run(&generate(s, wish), Some(m), false).findings.into_iter().next()?)));
        if let Some((s, f)) = found {
            println!("{m:?}: seed {s}: {}", line(&f));
        } else {
            missed += 1;
            println!("{m:?}: NOT FOUND in {} seeds", cli.seeds);
        }
    }
    println!("{tried} mutants, {missed} not found");
    if missed == 0 && tried > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
