//! The command line.

use crate::demo;
use crate::error::{Error, Result};
use crate::lab::{Lab, UpOptions};
use crate::state::{self, State};
use crate::switchboard::Mover;
use crate::topology::Topology;
use crate::{delay, inspect, sys, traffic};
use clap::{Args, Parser, Subcommand};
use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// Brings containerlab topologies up in plain network namespaces, moves VMs, runs the demo.
#[derive(Debug, Parser)]
#[command(name = "vtep-lab", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Verb,
}

#[derive(Debug, Args)]
struct Which {
    /// The lab: its prefix, or its name where only one has it [default: the only lab]
    #[arg(long, short)]
    prefix: Option<String>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Bring a topology up
    ///
    /// Nodes become network namespaces, links become veth pairs without offloads. Each node has a /run of its own and
    /// sees its `binds` in a private mount table; `exec` lines run to their end, in order, then each node's `cmd` is
    /// started and kept. A node with the label `vtep-lab.at: NODE` is a VM; it is linked to the node with the label
    /// `vtep-lab.role: switchboard`, whose interfaces PLUG-… lead to the places where the VM can be.
    Up {
        /// Topology file (*.clab.yml)
        topology: PathBuf,
        /// Prefix of the namespaces [default: the lab's name and something random]
        #[arg(long, short)]
        prefix: Option<String>,
        /// The vtepd that nodes run [default: the one beside this program, else the one in PATH]
        #[arg(long)]
        vtepd: Option<PathBuf>,
    },
    /// End everything in a lab and remove it
    Down {
        #[command(flatten)]
        which: Which,
        /// All labs
        #[arg(long)]
        all: bool,
    },
    /// Run a program in a node
    Exec {
        #[command(flatten)]
        which: Which,
        /// Node
        node: String,
        /// Program and arguments
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        argv: Vec<String>,
    },
    /// Show labs and their nodes
    Inspect {
        #[command(flatten)]
        which: Which,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Draw a lab
    Graph {
        #[command(flatten)]
        which: Which,
    },
    /// Move a VM to another node, and announce it there as QEMU does
    Move {
        #[command(flatten)]
        which: Which,
        /// VM
        vm: String,
        /// Node
        #[arg(long)]
        to: String,
        /// How long the VM stands still
        #[arg(long, default_value = "1ms", value_parser = duration)]
        pause: Duration,
        /// Announce nothing
        #[arg(long)]
        silent: bool,
    },
    /// Two data centres, four VTEPs, and a VM that moves with its TCP session open
    Demo(demo::Options),
    /// Delay everything between two interfaces
    DelayLine {
        /// Delay of each frame
        #[arg(long, value_parser = duration)]
        delay: Duration,
        /// Who delays
        #[arg(long, default_value = "auto")]
        how: delay::How,
        /// One interface
        a: String,
        /// The other
        b: String,
    },
    /// Answer probes and check a TCP stream until standard input ends (runs inside the demo's VMs)
    TrafficServer(traffic::ServerOptions),
    /// Send probes and a TCP stream until standard input ends (runs inside the demo's VMs)
    TrafficClient(traffic::ClientOptions),
}

/// `10ms`, `2s`, `500us`.
pub(crate) fn duration(text: &str) -> std::result::Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let n: u64 = text[..digits].parse().map_err(|_| format!("`{text}` is not a time such as 10ms"))?;
    match &text[digits..] {
        "us" => Ok(Duration::from_micros(n)),
        "ms" => Ok(Duration::from_millis(n)),
        "s" => Ok(Duration::from_secs(n)),
        _ => Err(format!("`{text}`: say a unit, us, ms or s")),
    }
}

/// Where a program of ours is: as told, in `$VTEPD_BIN_DIR`, beside this one, or in `PATH`.
pub(crate) fn program(name: &str, told: Option<&PathBuf>) -> Option<PathBuf> {
    if let Some(p) = told {
        return std::path::absolute(p).ok();
    }
    let directory = std::env::var_os("VTEPD_BIN_DIR").map(PathBuf::from);
    let beside = std::env::current_exe().ok().and_then(|p| Some(p.parent()?.to_owned()));
    let path = std::env::var_os("PATH").unwrap_or_default();
    directory
        .into_iter()
        .chain(beside)
        .chain(std::env::split_paths(&path))
        .map(|d| d.join(name))
        .find(|p| p.is_file())
        .and_then(|p| std::path::absolute(p).ok())
}

/// Programs that nodes find first. A missing one is left out: the topology may not need it.
pub(crate) fn programs(vtepd: Option<&PathBuf>) -> BTreeMap<String, PathBuf> {
    let own = std::env::current_exe().ok();
    let found = [("vtepd", program("vtepd", vtepd)), ("vtep-lab", own)];
    found.into_iter().filter_map(|(n, p)| Some((n.to_owned(), p?))).collect()
}

/// Prints to standard output; a closed pipe ends quietly.
pub(crate) fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// The program.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    sys::catch_signals();
    match run(cli.command) {
        Ok(code) => code,
        Err(e) => {
            let mut err = std::io::stderr().lock();
            let _ = writeln!(err, "error: {e}");
            match e {
                Error::Interrupted => ExitCode::from(130),
                Error::Topology(_) | Error::Refused(_) => ExitCode::from(2),
                _ => ExitCode::FAILURE,
            }
        }
    }
}

fn run(command: Verb) -> Result<ExitCode> {
    let base = state::base();
    let find = |w: &Which| State::find(&base, w.prefix.as_deref());
    match command {
        Verb::Up { topology, prefix, vtepd } => {
            let t = Topology::read(&topology)?;
            let options = UpOptions { prefix, programs: programs(vtepd.as_ref()), ..UpOptions::default() };
            let lab = Lab::up(&t, &options)?;
            say(&inspect::text(&inspect::view(&lab.state)));
            let p = &lab.state.prefix;
            say(&format!(
                "\nenter a node:  vtep-lab exec -p {p} NODE -- COMMAND\nremove it:     vtep-lab down -p {p}\n"
            ));
        }
        Verb::Down { which, all } => {
            let labs = if all { State::all(&base).0 } else { vec![find(&which)?] };
            let mut complaints = Vec::new();
            for state in labs {
                let mut lab = Lab { state };
                complaints.extend(lab.down());
                say(&format!("{} is down\n", lab.state.prefix));
            }
            if !complaints.is_empty() {
                return Err(Error::Io {
                    what: complaints.join("\n"),
                    source: std::io::Error::other("see above"),
                });
            }
        }
        Verb::Exec { which, node, argv } => {
            let status = find(&which)?.run(&node, argv)?.attached()?;
            return Ok(ExitCode::from(status.code().map_or(128, |c| c as u8)));
        }
        Verb::Inspect { which, json } => show(&base, &which, json)?,
        Verb::Graph { which } => say(&inspect::graph(&find(&which)?)),
        Verb::Move { which, vm, to, pause, silent } => {
            let mut state = find(&which)?;
            let (moved, announcer) =
                Mover::prepare(&state, &vm, &to)?.go(&mut state, pause, silent, || ())?;
            let still = moved.resumed.saturating_sub(moved.stopped) as f64 / 1e6;
            say(&format!("{vm} is at {to}; it stood still for {still:.1} ms\n"));
            if let Some(first) = moved.announced {
                announcer.rest(first, || false)?;
            }
        }
        Verb::Demo(options) => return demo::main(&options),
        Verb::DelayLine { delay, how, a, b } => match delay::run([&a, &b], delay, how, sys::interrupted)? {
            Some([there, back]) => say(&format!("{a} to {b}: {there}\n{b} to {a}: {back}\n")),
            None => say("the kernel delayed\n"),
        },
        Verb::TrafficServer(o) => traffic::server(&o)?,
        Verb::TrafficClient(o) => traffic::client(&o)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn show(base: &std::path::Path, which: &Which, json: bool) -> Result<()> {
    let (labs, errors) = match &which.prefix {
        Some(p) => (vec![State::find(base, Some(p))?], Vec::new()),
        None => State::all(base),
    };
    let views: Vec<_> = labs.iter().map(inspect::view).collect();
    if json {
        say(&(serde_json::to_string_pretty(&views).expect("plain data") + "\n"));
    } else if views.is_empty() {
        say("no lab is up\n");
    } else {
        let texts: Vec<_> = views.iter().map(inspect::text).collect();
        say(&texts.join("\n"));
    }
    for e in errors {
        if std::io::stderr().is_terminal() {
            let _ = writeln!(std::io::stderr(), "warning: {e}");
        }
    }
    Ok(())
}
