//! Draws what happens in each kind of move, from the records of real daemons; `cargo xtask timelines` builds and
//! starts it.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use clap::Parser;
use std::path::PathBuf;
use std::process::ExitCode;
use vtepd_tests::interrupt;
use vtepd_tests::need::{Need, met};
use vtepd_tests::timelines::{draw, run};

/// One move of each kind between three vtepd in network namespaces, and a picture of each.
#[derive(Parser)]
#[command(name = "vtep-timelines", max_term_width = 100)]
struct Cli {
    /// Directory for the pictures
    #[arg(long, default_value = "docs/images")]
    out: PathBuf,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    interrupt::in_order(|| all(&cli))
}

fn all(cli: &Cli) -> ExitCode {
    if !met(&[Need::Root, Need::Tool("ip")]) {
        return ExitCode::from(2);
    }
    if let Err(e) = std::fs::create_dir_all(&cli.out) {
        eprintln!("error: cannot make `{}`: {e}", cli.out.display());
        return ExitCode::FAILURE;
    }
    let mut failed = false;
    run(|story| {
        let p = draw(story);
        let path = cli.out.join(p.file);
        match std::fs::write(&path, p.text) {
            Ok(()) => println!("{}", path.display()),
            Err(e) => {
                failed = true;
                eprintln!("error: cannot write `{}`: {e}", path.display());
            }
        }
    });
    ExitCode::from(u8::from(failed))
}
