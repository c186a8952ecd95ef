//! Measures what live migrations cost a guest that is pinged every millisecond; `cargo xtask gap` builds and starts it.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use clap::Parser;
use std::path::PathBuf;
use std::time::Duration;
use vtepd_tests::gap::image::Image;
use vtepd_tests::gap::probe::{Seen, median};
use vtepd_tests::gap::{Case, Way, run};
use vtepd_tests::need::{Need, met};
use vtepd_tests::qemu::PROGRAM;

/// A Linux guest goes back and forth between two VTEPs; medians for each way to know where it is.
#[derive(Parser)]
#[command(name = "vtep-gap", max_term_width = 100)]
struct Cli {
    /// Migrations for each way and delay
    #[arg(long, default_value_t = 9)]
    migrations: usize,
    /// One-way delays between the VTEPs, milliseconds
    #[arg(long, value_delimiter = ',', default_values_t = [0, 10])]
    wan: Vec<u64>,
    /// Keep the guest stopped for so long before the rest of it is sent, milliseconds; 0 leaves it to QEMU, whose pauses
    /// differ much
    #[arg(long, default_value_t = 50)]
    hold: u64,
    /// Where the guest's kernel is kept between runs; it is fetched with apt-get download
    #[arg(long, default_value = "target/guest")]
    image: PathBuf,
    /// Print every migration, too
    #[arg(long)]
    verbose: bool,
}

fn main() {
    let cli = Cli::parse();
    let needs = [
        Need::Root,
        Need::Tool("ip"),
        Need::Package { program: PROGRAM, package: "qemu-system-x86" },
        Need::Tool("apt-get"),
    ];
    if !met(&needs) {
        std::process::exit(2);
    }
    let image = match std::path::absolute(&cli.image).map_err(|e| e.to_string()).and_then(|d| Image::make(&d))
    {
        Ok(image) => image,
        Err(e) => {
            eprintln!("error: {e}");
            std::process::exit(1);
        }
    };
    println!("medians of {} migrations, milliseconds", cli.migrations);
    println!(
        "{:>6}  {:<12} {:>8} {:>8} {:>10} {:>14} {:>6}",
        "WAN", "", "pause", "gap", "gap-pause", "RESUME→answer", "lost"
    );
    for wan in &cli.wan {
        for way in Way::ALL {
            let mut all: Vec<Seen> = Vec::new();
            let mut odd = 0;
            let case =
                Case { way, delay: Duration::from_millis(*wan), hold: Duration::from_millis(cli.hold) };
            run(&image, case, cli.migrations, |seen| {
                if cli.verbose {
                    eprintln!("{wan} ms, {}: {seen:?}", way.name());
                }
                match seen {
                    Some(s) => all.push(s),
                    None => odd += 1,
                }
            });
            let median = |of: &dyn Fn(&Seen) -> f64| median(all.iter().map(of).collect());
            println!(
                "{wan:>6}  {:<12} {:>8.1} {:>8.1} {:>10.1} {:>14.1} {:>6.0}{}",
                way.name(),
                median(&|s| s.pause),
                median(&|s| s.gap),
                median(&|s| s.gap - s.pause),
                median(&|s| s.after),
                median(&|s| s.lost as f64),
                if odd > 0 { format!("  ({odd} without an answer)") } else { String::new() }
            );
        }
    }
}
