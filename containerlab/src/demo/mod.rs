//! `vtep-lab demo`: two data centres, four VTEPs, and a VM that moves with its TCP session open.

mod fabric;
mod guest;
mod judge;
mod observe;
mod report;
mod run;

pub use report::{Check, Report, Traffic, VERSION, VtepRow};
pub use run::demo;

use crate::error::{Error, Result};
use clap::{Args, ValueEnum};
use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::Instant;

/// Faults planted on purpose: each must make the demo fail and name a check.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum Sabotage {
    /// `/bin/true` instead of vtepd.
    NoDaemon,
    /// The new site's vtepd is killed between the VM's arrival and its announcement.
    KillVtep,
    /// The announcement never gets to the wire.
    DropRarp,
    /// The new site advertises its routes with a next hop that leads nowhere.
    WrongNextHop,
}

/// Options of the demo.
#[derive(Args, Clone, Debug, Default)]
pub struct Options {
    /// Print the report as JSON
    #[arg(long)]
    pub json: bool,
    /// Leave the lab up
    #[arg(long)]
    pub keep: bool,
    /// Make one VTEP in each data centre an FRR
    #[arg(long)]
    pub frr: bool,
    /// The vtepd to run [default: $VTEPD_BIN_DIR, then beside this program, then PATH]
    #[arg(long, value_name = "PATH")]
    pub vtepd: Option<PathBuf>,
    /// Topology [default: containerlab/two-dc.clab.yml of the source tree]
    #[arg(long, value_name = "FILE")]
    pub topology: Option<PathBuf>,
    /// Prefix of the namespaces [default: the lab's name and something random]
    #[arg(long)]
    pub prefix: Option<String>,
    /// Seconds to wait until all VTEPs have converged
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    pub patience: u64,
    /// Plant a fault (for tests)
    #[arg(long, hide = true)]
    pub sabotage: Option<Sabotage>,
    /// VTEPs that run FRR (for tests)
    #[arg(long, hide = true, value_delimiter = ',')]
    pub frr_at: Vec<String>,
}

/// Tells on stderr what is going on.
pub(crate) struct Progress {
    start: Instant,
    terminal: bool,
    open: Mutex<bool>,
}

impl Progress {
    fn new() -> Self {
        Self { start: Instant::now(), terminal: std::io::stderr().is_terminal(), open: Mutex::new(false) }
    }
    fn write(&self, text: &str, temporary: bool) {
        let mut err = std::io::stderr().lock();
        let mut open = self.open.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let clear = if *open { "\r\x1b[K" } else { "" };
        let end = if temporary { "" } else { "\n" };
        let _ = write!(err, "{clear}{:5.1} s  {text}{end}", self.start.elapsed().as_secs_f64());
        let _ = err.flush();
        *open = temporary;
    }
    /// A step.
    pub(crate) fn step(&self, text: impl AsRef<str>) {
        self.write(text.as_ref(), false);
    }
    /// Something that changes while a step goes on; only for terminals.
    pub(crate) fn now(&self, text: impl AsRef<str>) {
        if self.terminal {
            self.write(text.as_ref(), true);
        }
    }
}

/// Where the topology is: as told, below the working directory, or where this program was built.
fn topology(o: &Options) -> Result<PathBuf> {
    if let Some(p) = &o.topology {
        return Ok(p.clone());
    }
    let name = "two-dc.clab.yml";
    let here = PathBuf::from("containerlab").join(name);
    let built = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(name);
    [here, PathBuf::from(name), built].into_iter().find(|p| p.is_file()).ok_or_else(|| {
        Error::refused(format!("{name} not found; run this in the source tree or give --topology"))
    })
}

/// The command: runs it, prints the report, and says by its exit code how it went.
pub fn main(o: &Options) -> Result<ExitCode> {
    let report = demo(o)?;
    if o.json {
        crate::cli::say(&(serde_json::to_string_pretty(&report).expect("plain data") + "\n"));
    } else {
        crate::cli::say(&report.text());
    }
    if report.ok {
        return Ok(ExitCode::SUCCESS);
    }
    let _ = writeln!(std::io::stderr(), "failed: {}", report.failed.join(", "));
    Ok(ExitCode::FAILURE)
}
