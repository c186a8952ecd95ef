//! The command line. `run` is the daemon; everything else is a client of its API, or looks at files.
//!
//! Exit codes: 0 done, 1 failed, 2 wrong usage or configuration.

mod bfd;
mod check;
mod clear;
pub mod client;
mod guests;
mod hook;
mod moves;
mod neighbor;
pub mod out;
mod rows;
mod show;
mod step;
pub mod table;
mod watch;
mod why;

use crate::config;
use clap::{Args, Parser, Subcommand, ValueEnum};
use client::ClientError;
use evpn::node::view::{MoveKind, MoveView};
use evpn::types::{Mac, Vni};
use std::fmt::Write as _;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;

/// Success.
pub const OK: u8 = 0;
/// It did not work.
pub const FAILED: u8 = 1;
/// Wrong usage or configuration; nothing was touched.
pub const USAGE: u8 = 2;

/// VXLAN overlay daemon with a BGP EVPN control plane, built around the moving VM
#[derive(Debug, Parser)]
#[command(name = "vtepd", version, max_term_width = 100, arg_required_else_help = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Cmd,
}

#[derive(Debug, Subcommand)]
enum Cmd {
    /// Run the daemon in the foreground
    Run(RunArgs),
    /// Validate a configuration; every error is listed with its line and key
    Check(CheckArgs),
    /// Print a table of a running daemon
    Show(ShowArgs),
    /// Say who has an address, by which rule, and what the kernel holds
    Why(WhyArgs),
    /// Print events as they happen
    Watch(WatchArgs),
    /// Announce that a guest moves to this host, or away from it
    Move(step::MoveArgs),
    /// Shut a BGP neighbour down, start it, reset it, or exchange all routes again
    Neighbor(neighbor::NeighborArgs),
    /// Let a duplicate go
    Clear(clear::ClearArgs),
    /// For hook scripts of hypervisors
    Hook(hook::HookArgs),
    /// Delete the daemon's answers to ARP and ND when it has been silent for `arp.stale-time`; the daemon starts one itself
    Warden(WardenArgs),
}

/// `vtepd warden`
#[derive(Args, Clone, Debug)]
struct WardenArgs {
    /// The daemon's configuration file
    #[arg(long, short, value_name = "FILE", required_unless_present = "vtep", conflicts_with = "vtep")]
    config: Option<PathBuf>,
    /// The daemon's VTEP address
    #[arg(long, value_name = "IP")]
    vtep: Option<IpAddr>,
    /// Go on after rows have been deleted, as a service of its own
    #[arg(long)]
    stay: bool,
    /// The socket is standard input: how the daemon starts it
    #[arg(long, hide = true)]
    listening: bool,
}

fn warden(args: &WardenArgs) -> u8 {
    let vtep = match (args.vtep, &args.config) {
        (Some(vtep), _) => vtep,
        (None, Some(file)) => match config::load(file) {
            Ok(settings) => settings.node.vtep,
            Err(report) => {
                out::complain(&report.render(out::Look::stderr_color()));
                return USAGE;
            }
        },
        (None, None) => return USAGE,
    };
    crate::warden::main(vtep, args.listening, args.stay)
}

/// `vtepd run`
#[derive(Args, Clone, Debug)]
pub struct RunArgs {
    /// Configuration file
    #[arg(long, short, value_name = "FILE")]
    pub config: PathBuf,
    /// Unix socket of the API, instead of `api.socket`
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
}

#[derive(Args, Debug)]
struct CheckArgs {
    /// Configuration file
    #[arg(long, short, value_name = "FILE", required_unless_present = "host")]
    config: Option<PathBuf>,
    /// Check this host too: capabilities, kernel features, sysctls, firewall, MTU
    #[arg(long)]
    host: bool,
}

#[derive(Args, Clone, Debug)]
struct Target {
    /// Unix socket of the daemon
    #[arg(long, value_name = "PATH", default_value = config::DEFAULT_SOCKET)]
    socket: PathBuf,
}

#[derive(Args, Clone, Copy, Debug, Default)]
struct Filter {
    /// Only this VNI
    #[arg(long, value_name = "N", value_parser = parse_vni)]
    vni: Option<Vni>,
    /// Only this MAC address
    #[arg(long, value_name = "MAC")]
    mac: Option<Mac>,
    /// Only this IP address
    #[arg(long, value_name = "IP")]
    ip: Option<IpAddr>,
}

impl Filter {
    fn parameters(&self) -> Vec<(&'static str, String)> {
        let vni = self.vni.map(|v| ("vni", v.to_string()));
        let mac = self.mac.map(|m| ("mac", m.to_string()));
        let ip = self.ip.map(|i| ("ip", i.to_string()));
        [vni, mac, ip].into_iter().flatten().collect()
    }
}

#[derive(Args, Debug)]
struct ShowArgs {
    /// What to show
    table: TableName,
    /// Of neighbours: only this one, by address or description, with everything that is known of it
    name: Option<String>,
    #[command(flatten)]
    filter: Filter,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    place: PlaceArgs,
    #[command(flatten)]
    moves: MoveArgs,
}

/// Filters of `show macs` and `show hosts`.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Of MACs and hosts")]
struct PlaceArgs {
    /// Only behind this port of this VTEP
    #[arg(long, value_name = "DEV")]
    port: Option<String>,
    /// Only behind this VTEP
    #[arg(long, value_name = "IP")]
    vtep: Option<IpAddr>,
}

impl PlaceArgs {
    fn parameters(&self) -> Vec<(&'static str, String)> {
        let port = self.port.clone().map(|p| ("port", p));
        let vtep = self.vtep.map(|v| ("vtep", v.to_string()));
        port.into_iter().chain(vtep).collect()
    }
}

/// Filters of `show moves`.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Of moves")]
struct MoveArgs {
    /// Only this kind: hot, warm, cold, changed-mac, new-ip
    #[arg(long, value_name = "KIND", value_parser = MoveKind::ALL.map(MoveKind::as_str), hide_possible_values = true)]
    kind: Option<String>,
    /// Only with this first sign: frame, fdb, api, qmp, libvirt, bgp
    #[arg(long, value_name = "CAUSE", value_parser = MoveView::CAUSES, hide_possible_values = true)]
    cause: Option<String>,
    /// Only where this VTEP was: arrived, left, remote
    #[arg(long, value_name = "ROLE", value_parser = MoveView::ROLES, hide_possible_values = true)]
    role: Option<String>,
    /// Only of the last while, for instance 10m
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Only those that took at least so long, for instance 5ms
    #[arg(long, value_name = "TIME")]
    slow: Option<String>,
    /// Only the last N of them
    #[arg(long, value_name = "N")]
    last: Option<usize>,
}

impl MoveArgs {
    fn parameters(&self) -> Vec<(&'static str, String)> {
        let all = [
            ("kind", &self.kind),
            ("cause", &self.cause),
            ("role", &self.role),
            ("since", &self.since),
            ("slow", &self.slow),
        ];
        all.into_iter().filter_map(|(name, value)| Some((name, value.clone()?))).collect()
    }

    fn is_empty(&self) -> bool {
        self.parameters().is_empty() && self.last.is_none()
    }
}

#[derive(Args, Debug)]
struct WhyArgs {
    #[command(subcommand)]
    about: WhyAbout,
}

#[derive(Debug, Subcommand)]
enum WhyAbout {
    /// Who owns a MAC
    #[command(allow_missing_positional = true)]
    Mac(WhyOne<Mac>),
    /// Which MAC an IP belongs to, and where that is
    #[command(allow_missing_positional = true)]
    Ip(WhyOne<IpAddr>),
}

#[derive(Args, Debug)]
struct WhyOne<T: std::str::FromStr + Clone + Send + Sync + 'static>
where
    T::Err: std::error::Error + Send + Sync + 'static,
{
    /// VNI; may be left out when the address is in one only
    #[arg(value_parser = parse_vni)]
    vni: Option<Vni>,
    /// Address
    #[arg(required = true)]
    address: T,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

#[derive(Args, Debug)]
struct WatchArgs {
    /// Start after this event number instead of now; 0 for all that are remembered
    #[arg(long, value_name = "N")]
    after: Option<u64>,
    #[command(flatten)]
    filter: Filter,
    /// Print one JSON object a line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum TableName {
    /// The daemon itself: who it is, since when, counters
    Status,
    /// BGP neighbours and their sessions
    Neighbors,
    /// BFD sessions with the neighbours
    Bfd,
    /// Segments, their devices, ports and remote VTEPs
    Vnis,
    /// MAC addresses, local and remote
    Macs,
    /// IP addresses, the MACs behind them, and who answers ARP and ND
    Hosts,
    /// EVPN routes, received and originated
    Routes,
    /// Moves, each with its times
    Moves,
    /// Addresses that two hosts have, and what is done about it
    Duplicates,
    /// Wanted kernel rows beside what the kernel has
    Kernel,
    /// Guests, as QEMU and libvirt tell them
    Hypervisors,
    /// What happened so far
    Events,
}

fn parse_vni(s: &str) -> Result<Vni, String> {
    s.parse().ok().and_then(Vni::new).ok_or_else(|| "must be a number between 1 and 16777215".into())
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("cannot write: {0}")]
    Output(#[from] io::Error),
    #[error("{0}")]
    Other(String),
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match cli.command {
        Cmd::Run(args) => return ExitCode::from(crate::driver::main(&args)),
        Cmd::Check(args) => check::check(&args),
        Cmd::Show(args) => client_runtime(show::show(args)),
        Cmd::Why(args) => client_runtime(why::why(args)),
        Cmd::Watch(args) => client_runtime(watch::watch(args)),
        Cmd::Move(args) => client_runtime(step::step(args)),
        Cmd::Neighbor(args) => client_runtime(neighbor::neighbor(args)),
        Cmd::Clear(args) => client_runtime(clear::clear(args)),
        Cmd::Hook(args) => return ExitCode::from(hook::hook(&args)),
        Cmd::Warden(args) => return ExitCode::from(warden(&args)),
    };
    match done {
        Ok(code) => ExitCode::from(code),
        // Somebody stopped reading (`| head`): nothing is wrong.
        Err(Failure::Output(e)) if e.kind() == io::ErrorKind::BrokenPipe => ExitCode::from(OK),
        Err(failure) => {
            let color = out::Look::stderr_color();
            let mut text = format!("{} {failure}\n", out::Color::Red.paint("error:", color));
            if let Failure::Client(e) = &failure
                && let Some(help) = e.help()
            {
                let _ = writeln!(text, "  help: {help}");
            }
            out::complain(&text);
            ExitCode::from(FAILED)
        }
    }
}

fn client_runtime(job: impl Future<Output = Result<u8, Failure>>) -> Result<u8, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(job)
}

/// A path with query parameters; the values that can be given need no more than this.
fn path_with(path: &str, parameters: &[(&str, String)]) -> String {
    let mut out = path.to_owned();
    for (i, (key, value)) in parameters.iter().enumerate() {
        out.push(if i == 0 { '?' } else { '&' });
        out.push_str(key);
        out.push('=');
        for b in value.bytes() {
            if b.is_ascii_alphanumeric() || b"-._~:".contains(&b) {
                out.push(b as char);
            } else {
                let _ = write!(out, "%{b:02X}");
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory as _;
        Cli::command().debug_assert();
    }

    #[test]
    fn cursors_survive_the_url() {
        let path = path_with("/v1/macs", &[("cursor", "a b&c=é".into()), ("vni", "1".into())]);
        assert_eq!(path, "/v1/macs?cursor=a%20b%26c%3D%C3%A9&vni=1");
    }
}
