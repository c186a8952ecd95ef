//! The bench runner; `cargo xtask bench` builds and starts it.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use clap::{Parser, ValueEnum};
use std::process::ExitCode;
use std::time::Duration;
use vtepd_tests::bench::{Case, Machine, Part, Report, Shape, Sizes, System, control, run};
use vtepd_tests::interrupt;
use vtepd_tests::need::{Need, met};
use vtepd_tests::truth::Plan;

/// Measures vtepd beside FRR: same topology, same observer, one run.
#[derive(Parser)]
#[command(name = "vtep-bench", max_term_width = 100)]
struct Cli {
    /// Cases; all when absent
    cases: Vec<Case>,
    /// Only this system
    #[arg(long)]
    only: Option<System>,
    /// Print JSON after the table
    #[arg(long)]
    json: bool,
    /// Hot moves
    #[arg(long, default_value_t = 200)]
    moves: usize,
    /// MACs loaded besides, in the hot case
    #[arg(long, default_value_t = 10_000)]
    loaded: u32,
    /// Background moves a second, in the hot case
    #[arg(long, default_value_t = 100)]
    background: u32,
    /// MACs with an address each in the evacuation of a rack
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    evacuated: u32,
    /// MACs that a flooding port makes up, at least
    #[arg(long, default_value_t = 10_000_000)]
    flooded: u64,
    /// So many of them a second, if the machine can
    #[arg(long, default_value_t = 250_000, value_parser = clap::value_parser!(u64).range(1..))]
    flood_rate: u64,
    /// Repetitions of each bulk move
    #[arg(long, default_value_t = 10)]
    repeats: usize,
    /// Of the case `arp` only this
    #[arg(long)]
    part: Option<Part>,
    /// ARP and ND questions for a known host, of each family
    #[arg(long, default_value_t = 2_000)]
    answers: usize,
    /// Hosts behind one VTEP, half of them silent
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(2..=1_000_000))]
    silent: u32,
    /// How long those are to be kept, in seconds
    #[arg(long, default_value_t = 600, value_parser = clap::value_parser!(u64).range(1..))]
    kept: u64,
    /// After so many seconds the daemon asks who has not confirmed an address
    #[arg(long, default_value_t = 240, value_parser = clap::value_parser!(u64).range(1..))]
    confirm: u64,
    /// Frames of an ARP storm a second
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..))]
    storm_rate: u64,
    /// How long the truth of answers is watched, in minutes
    #[arg(long, default_value_t = 30.0)]
    minutes: f64,
    /// Hosts meanwhile
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u16).range(10..=4000))]
    hosts: u16,
    /// Decides what happens to them
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Routes from one peer
    #[arg(long, default_value_t = 100_000)]
    routes: u32,
    /// Repetitions of the load, each with fresh daemons
    #[arg(long, default_value_t = 5)]
    loads: usize,
    /// Repetitions of each shape of the case `bgp`
    #[arg(long, default_value_t = 3)]
    reflections: usize,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    interrupt::in_order(|| measure(cli))
}

fn measure(cli: Cli) -> ExitCode {
    let sizes = Sizes {
        moves: cli.moves,
        loaded: cli.loaded,
        background: cli.background,
        bulk: [1_000, 10_000],
        evacuated: cli.evacuated,
        repeats: cli.repeats,
        flooded: cli.flooded,
        flood_rate: cli.flood_rate,
        part: cli.part,
        answers: cli.answers,
        silent: cli.silent,
        kept: Duration::from_secs(cli.kept),
        confirm: Duration::from_secs(cli.confirm),
        storm_rate: cli.storm_rate,
        truth: Plan {
            span: Duration::from_secs_f64(cli.minutes.max(0.1) * 60.0),
            hosts: cli.hosts,
            linux: (cli.hosts / 16).max(2),
            confirm: Duration::from_secs(15),
            step: Duration::from_millis(150),
            restart: Duration::from_secs(60),
            asks: 200,
            seed: cli.seed,
            liar: false,
        },
        routes: cli.routes,
        loads: cli.loads,
        shapes: [
            Shape { senders: 2, routes: cli.routes, listeners: 0 },
            Shape { senders: 50, routes: cli.routes.div_ceil(50), listeners: 0 },
            Shape { senders: 1, routes: cli.routes.div_ceil(5), listeners: 100 },
        ],
        reflections: cli.reflections,
    };
    let mut systems = vec![System::Vtepd, System::Frr];
    systems.retain(|s| cli.only.is_none_or(|o| o == *s));
    let mut reflectors = vec![System::Vtepd, System::Frr, System::GoBgp];
    reflectors.retain(|s| cli.only.is_none_or(|o| o == *s));
    if !met(&[Need::Root, Need::Tool("ip")]) || (systems.contains(&System::Frr) && !met(&[Need::Frr])) {
        return ExitCode::from(2);
    }
    let mut report = Report::new(Machine::here());
    let all = Case::value_variants().iter().copied().filter(|c| !matches!(c, Case::Truth | Case::Bgp));
    let cases = if cli.cases.is_empty() { all.collect() } else { cli.cases };
    for case in cases {
        eprintln!("{case:?}");
        match case {
            Case::Idle => control(&sizes, &mut report),
            Case::Bgp => {
                if reflectors.contains(&System::GoBgp) && !met(&[Need::GoBgp]) {
                    return ExitCode::from(2);
                }
                for s in &reflectors {
                    run(case, *s, &sizes, &mut report);
                }
                report.codec(std::env::var("VTEPD_CODECS").unwrap_or_default());
            }
            Case::Codec => report.codec(std::env::var("VTEPD_CODEC_BENCH").unwrap_or_default()),
            Case::Prepared | Case::Flood | Case::Truth => {
                if systems.contains(&System::Vtepd) {
                    run(case, System::Vtepd, &sizes, &mut report);
                }
            }
            Case::Hot
            | Case::Addresses
            | Case::Arp
            | Case::Cold
            | Case::Bulk
            | Case::Evacuation
            | Case::Load => {
                for s in &systems {
                    run(case, *s, &sizes, &mut report);
                }
            }
        }
    }
    println!("{}", report.table());
    if cli.json {
        println!("{:#}", report.json());
    }
    ExitCode::SUCCESS
}
