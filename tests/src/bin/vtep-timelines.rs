//! Draws what happens in each kind of move, from the records of real daemons; `cargo xtask timelines` builds and
//! starts it.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use clap::Parser;
use std::path::PathBuf;
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

fn main() {
    let cli = Cli::parse();
    if !met(&[Need::Root, Need::Tool("ip")]) {
        std::process::exit(2);
    }
    if let Err(e) = std::fs::create_dir_all(&cli.out) {
        eprintln!("error: cannot make `{}`: {e}", cli.out.display());
        std::process::exit(1);
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
    std::process::exit(i32::from(failed));
}
