//! The soak runner; `cargo xtask soak` builds and starts it.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use clap::Parser;
use std::process::ExitCode;
use vtepd_tests::interrupt;
use vtepd_tests::need::{Need, met};
use vtepd_tests::soak::{Plan, run};

/// Moves VMs among vtepd and FRR and compares everything with everything after each move.
#[derive(Parser)]
#[command(name = "vtep-soak", max_term_width = 100)]
struct Cli {
    /// Moves
    #[arg(long, default_value_t = 1000)]
    moves: usize,
    /// VMs
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u8).range(1..=60))]
    vms: u8,
    /// Decides who moves where; the same seed gives the same moves
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Three vtepd alone
    #[arg(long)]
    no_frr: bool,
    /// Write what all nodes said into this directory whenever they do not agree
    #[arg(long, value_name = "DIR")]
    record: Option<std::path::PathBuf>,
    /// Print JSON after the table
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    interrupt::in_order(|| soak(cli))
}

fn soak(cli: Cli) -> ExitCode {
    if !met(&[Need::Root, Need::Tool("ip")]) || (!cli.no_frr && !met(&[Need::Frr])) {
        return ExitCode::from(2);
    }
    let report = run(&Plan {
        moves: cli.moves,
        vms: cli.vms.into(),
        seed: cli.seed,
        frr: !cli.no_frr,
        record: cli.record,
    });
    if cli.json {
        println!("{:#}", report.json());
    }
    println!("{}", report.table());
    ExitCode::from(u8::from(!report.passed()))
}
