//! What a person types: `cargo xtask demo | test | bench | sim | soak | timelines | fuzz`.
//!
//! Builds as the caller, installs what is missing only with consent, and raises nothing to root but the
//! program that was built.
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod build;
mod host;
mod libtest;
mod stages;
mod test;

use clap::{Args, Parser, Subcommand};
use host::{Consent, Need};
use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::ExitCode;

/// vtepd's front door: show it, test it, measure it.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", max_term_width = 100)]
#[command(
    after_help = "Start with:\n  cargo xtask demo     watch a VM move between two data centres, its TCP session open\n  \
    cargo xtask test     run every test\n\nExit codes: 0 all well, 1 something failed, 2 not started (what is missing is printed)."
)]
struct Cli {
    #[command(subcommand)]
    command: Cmd,
}

#[derive(Subcommand)]
enum Cmd {
    /// Bring up two data centres in network namespaces and move a VM between them
    ///
    /// Runs real vtepd processes on `containerlab/two-dc.clab.yml`: four VTEPs, routed sites, a WAN with 10 ms
    /// delay each way. A TCP stream and a 1 ms UDP probe run while the server VM moves to the other data
    /// centre. Ends with a report of what was lost, for how long, and what the kernels hold.
    Demo(Demo),
    /// Run every test and print a table of the stages
    ///
    /// Tests that need root, a tool or a kernel feature that is not there are counted as skipped and say what
    /// they need; with CI=true they fail instead.
    Test(test::Opts),
    /// Measure vtepd beside FRR on the same topology, in one run
    Bench(Bench),
    /// Move VMs among vtepd and FRR and compare everything with everything after each move
    ///
    /// Hot moves (RARP, gratuitous ARP, data frames only), prepared and cold ones, and new MACs for the same address, on
    /// three vtepd and one FRR. After each move the kernels' tables, the daemons' and what the peers hold must be what is true.
    /// A difference is printed with both sides.
    Soak(Soak),
    /// Simulate whole fabrics on a virtual clock and compare every kernel with the truth
    ///
    /// Nodes with the real reconciler on fake kernels; moves, cuts, kills and kernel faults drawn from a seed.
    /// Failing seeds are shrunk and saved in `tests/sim-seeds`, and replayed by every test run from then on.
    Sim(Sim),
    /// Draw the pictures of docs/mobility.md from one real move of each kind
    Timelines(Timelines),
    /// Measure what live migrations of a real Linux guest cost it (docs/hypervisors.md)
    Gap(Gap),
    /// Fuzz the decoders (needs the nightly toolchain and cargo-fuzz)
    Fuzz(Fuzz),
}

#[derive(Args)]
struct Demo {
    #[command(flatten)]
    consent: Consent,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
    /// Leave the lab running afterwards
    #[arg(long)]
    keep: bool,
    /// One VTEP in each data centre is an FRR
    #[arg(long)]
    frr: bool,
    /// Further arguments for `vtep-lab demo`
    #[arg(last = true)]
    rest: Vec<OsString>,
}

#[derive(Args)]
struct Bench {
    #[command(flatten)]
    consent: Consent,
    /// Print the results as JSON too
    #[arg(long)]
    json: bool,
    /// Cases to run; hot, prepared, addresses, arp, cold, bulk, evacuation, flood, load, codec, idle when absent; truth and
    /// bgp only when named
    cases: Vec<String>,
    /// How long the case `truth` watches, 30 when absent
    #[arg(long)]
    minutes: Option<f64>,
    /// Further arguments for the bench runner, for instance `--only vtepd`
    #[arg(last = true)]
    rest: Vec<OsString>,
}

#[derive(Args)]
struct Soak {
    #[command(flatten)]
    consent: Consent,
    /// Moves
    #[arg(long, default_value_t = 1000)]
    moves: u32,
    /// Print the results as JSON too
    #[arg(long)]
    json: bool,
    /// Further arguments for the soak runner, for instance `--seed 7` or `--no-frr`
    #[arg(last = true)]
    rest: Vec<OsString>,
}

#[derive(Args)]
struct Sim {
    /// Seeds to run
    #[arg(long, default_value_t = 2_000)]
    seeds: u64,
    /// Nodes of every fabric; 3 to 5, and 20 to 50 in one seed of a hundred, when absent
    #[arg(long)]
    nodes: Option<usize>,
    /// Only this seed
    #[arg(long)]
    seed: Option<u64>,
    /// Plant faults, one after the other, and look whether each is found
    #[arg(long)]
    mutants: bool,
    /// Print what happens, event by event
    #[arg(long)]
    trace: bool,
    /// Further arguments for the runner, for instance `--plan FILE`
    #[arg(last = true)]
    rest: Vec<OsString>,
}

#[derive(Args)]
struct Timelines {
    #[command(flatten)]
    consent: Consent,
    /// Further arguments for the runner, for instance `--out DIR`
    #[arg(last = true)]
    rest: Vec<OsString>,
}

#[derive(Args)]
struct Gap {
    #[command(flatten)]
    consent: Consent,
    /// Further arguments for the runner, for instance `--migrations 21 --hold 0`
    #[arg(last = true)]
    rest: Vec<OsString>,
}

#[derive(Args)]
struct Fuzz {
    /// Minutes for each target
    #[arg(long, default_value_t = 1)]
    minutes: u32,
    /// Targets to run; all when absent
    targets: Vec<String>,
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Cmd::Demo(o) => demo(&o),
        Cmd::Test(o) => test::run(&o),
        Cmd::Bench(o) => bench(&o),
        Cmd::Soak(o) => soak(&o),
        Cmd::Sim(o) => sim(&o),
        Cmd::Timelines(o) => timelines(&o),
        Cmd::Gap(o) => gap(&o),
        Cmd::Fuzz(o) => fuzz(&o),
    };
    match done {
        Ok(code) => code,
        Err(e) => {
            eprintln!("error: {e}");
            ExitCode::from(e.code)
        }
    }
}

/// Why a command did not get going or ended badly.
#[derive(Debug)]
struct Error {
    text: String,
    code: u8,
}

impl Error {
    /// Something failed: exit code 1.
    fn failed(text: impl Into<String>) -> Self {
        Self { text: text.into(), code: 1 }
    }
    /// Nothing was started: exit code 2.
    fn not_started(text: impl Into<String>) -> Self {
        Self { text: text.into(), code: 2 }
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

fn demo(o: &Demo) -> Result<ExitCode, Error> {
    let mut needs = vec![Need::Ip, Need::Tc, Need::Ping];
    if o.frr {
        needs.push(Need::Frr);
    }
    let root = host::Root::find().ok_or_else(|| {
        Error::not_started(
            "the demo makes network namespaces, which needs root: run it as root, or install sudo and run it again",
        )
    })?;
    host::provide(&needs, &o.consent, &root)?;
    eprintln!("building vtepd and vtep-lab (release) …");
    let bins = build::binaries("release", &["vtepd", "vtep-lab"])?;
    let mut cmd = root.command(&bins.join("vtep-lab"), &[("VTEPD_BIN_DIR", bins.as_os_str())]);
    cmd.current_dir(build::root()).arg("demo");
    for (on, flag) in [(o.json, "--json"), (o.keep, "--keep"), (o.frr, "--frr")] {
        if on {
            cmd.arg(flag);
        }
    }
    // The runner takes our place, so that Ctrl-C reaches it alone and the shell waits for its clean-up.
    Err(Error::failed(format!("cannot start vtep-lab: {}", cmd.args(&o.rest).exec())))
}

fn bench(o: &Bench) -> Result<ExitCode, Error> {
    let root = host::Root::find().ok_or_else(|| {
        Error::not_started(
            "the bench makes network namespaces, which needs root: run it as root, or install sudo",
        )
    })?;
    host::provide(&[Need::Ip, Need::Frr], &o.consent, &root)?;
    if o.cases.iter().any(|c| c == "bgp") {
        host::provide(&[Need::GoBgp], &o.consent, &root)?;
    }
    eprintln!("building vtepd and the bench runner (dist: fat LTO, takes minutes the first time) …");
    let bins = build::binaries("dist", &["vtepd", "vtepd-tests"])?;
    let codec = o.cases.is_empty() || o.cases.iter().any(|c| c == "codec");
    let mut env = vec![("VTEPD_BIN_DIR", bins.clone().into_os_string())];
    if codec {
        eprintln!("building and running the codec bench …");
        let out = build::cargo()
            .args(["bench", "--locked", "-p", "evpn", "--bench", "codec"])
            .stderr(std::process::Stdio::inherit())
            .output()
            .map_err(|e| Error::failed(format!("cargo bench: {e}")))?;
        if !out.status.success() {
            return Err(Error::failed("the codec bench failed"));
        }
        env.push(("VTEPD_CODEC_BENCH", String::from_utf8_lossy(&out.stdout).into_owned().into()));
    }
    if o.cases.iter().any(|c| c == "bgp") {
        eprintln!("building and running the public codecs beside ours …");
        let out = build::plain_cargo()
            .current_dir(build::root().join("evpn/codecs"))
            .args(["run", "--locked", "--release", "--quiet"])
            .stderr(std::process::Stdio::inherit())
            .output()
            .map_err(|e| Error::failed(format!("cargo run: {e}")))?;
        if !out.status.success() {
            return Err(Error::failed("the comparison of codecs failed"));
        }
        env.push(("VTEPD_CODECS", String::from_utf8_lossy(&out.stdout).into_owned().into()));
    }
    let env: Vec<_> = env.iter().map(|(k, v)| (*k, v.as_os_str())).collect();
    let mut cmd = root.command(&bins.join("vtep-bench"), &env);
    cmd.current_dir(build::root());
    if o.json {
        cmd.arg("--json");
    }
    if let Some(n) = o.minutes {
        cmd.args(["--minutes", &n.to_string()]);
    }
    Err(Error::failed(format!("cannot start vtep-bench: {}", cmd.args(&o.cases).args(&o.rest).exec())))
}

fn soak(o: &Soak) -> Result<ExitCode, Error> {
    let root = host::Root::find().ok_or_else(|| {
        Error::not_started(
            "the soak makes network namespaces, which needs root: run it as root, or install sudo",
        )
    })?;
    host::provide(&[Need::Ip, Need::Frr], &o.consent, &root)?;
    eprintln!("building vtepd and the soak runner (release) …");
    let bins = build::binaries("release", &["vtepd", "vtepd-tests"])?;
    let mut cmd = root.command(&bins.join("vtep-soak"), &[("VTEPD_BIN_DIR", bins.as_os_str())]);
    cmd.current_dir(build::root()).args(["--moves", &o.moves.to_string()]);
    if o.json {
        cmd.arg("--json");
    }
    Err(Error::failed(format!("cannot start vtep-soak: {}", cmd.args(&o.rest).exec())))
}

fn sim(o: &Sim) -> Result<ExitCode, Error> {
    eprintln!("building the simulation (release) …");
    let bins = build::binaries("release", &["vtepd-tests"])?;
    let mut cmd = std::process::Command::new(bins.join("vtep-sim"));
    cmd.current_dir(build::root()).arg("--seeds").arg(o.seeds.to_string());
    for (key, n) in [("--nodes", o.nodes.map(|n| n as u64)), ("--seed", o.seed)] {
        if let Some(n) = n {
            cmd.arg(key).arg(n.to_string());
        }
    }
    for (on, flag) in [(o.mutants, "--mutants"), (o.trace, "--trace")] {
        if on {
            cmd.arg(flag);
        }
    }
    Err(Error::failed(format!("cannot start vtep-sim: {}", cmd.args(&o.rest).exec())))
}

fn timelines(o: &Timelines) -> Result<ExitCode, Error> {
    let root = host::Root::find().ok_or_else(|| {
        Error::not_started(
            "the moves happen in network namespaces, which needs root: run it as root, or install sudo",
        )
    })?;
    host::provide(&[Need::Ip], &o.consent, &root)?;
    eprintln!("building vtepd and the runner (release) …");
    let bins = build::binaries("release", &["vtepd", "vtepd-tests"])?;
    let mut cmd = root.command(&bins.join("vtep-timelines"), &[("VTEPD_BIN_DIR", bins.as_os_str())]);
    cmd.current_dir(build::root());
    Err(Error::failed(format!("cannot start vtep-timelines: {}", cmd.args(&o.rest).exec())))
}

fn gap(o: &Gap) -> Result<ExitCode, Error> {
    let root = host::Root::find().ok_or_else(|| {
        Error::not_started(
            "the guest's hosts are network namespaces, which needs root: run it as root, or install sudo",
        )
    })?;
    host::provide(&[Need::Ip, Need::Ping, Need::Qemu], &o.consent, &root)?;
    eprintln!("building vtepd and the runner (release) …");
    let bins = build::binaries("release", &["vtepd", "vtepd-tests"])?;
    let mut cmd = root.command(&bins.join("vtep-gap"), &[("VTEPD_BIN_DIR", bins.as_os_str())]);
    cmd.current_dir(build::root());
    Err(Error::failed(format!("cannot start vtep-gap: {}", cmd.args(&o.rest).exec())))
}

fn fuzz(o: &Fuzz) -> Result<ExitCode, Error> {
    let dir = build::root().join("evpn/fuzz");
    let mut targets = o.targets.clone();
    if targets.is_empty() {
        let list = std::fs::read_dir(dir.join("fuzz_targets"))
            .map_err(|e| Error::not_started(format!("{}: {e}", dir.display())))?;
        targets.extend(list.flatten().filter_map(|f| {
            let name = f.file_name().into_string().ok()?;
            name.strip_suffix(".rs").map(str::to_owned)
        }));
        targets.sort();
    }
    let have = build::plain_cargo().args(["+nightly", "fuzz", "--version"]).output();
    if !have.is_ok_and(|o| o.status.success()) {
        return Err(Error::not_started(
            "fuzzing needs the nightly toolchain and cargo-fuzz:\n  rustup toolchain install nightly\n  \
             cargo install cargo-fuzz --locked",
        ));
    }
    let seconds = u64::from(o.minutes) * 60;
    let mut bad = Vec::new();
    for t in &targets {
        eprintln!("fuzzing {t} for {} min …", o.minutes);
        let ok = build::plain_cargo()
            .current_dir(build::root().join("evpn"))
            .args(["+nightly", "fuzz", "run", t, "--", &format!("-max_total_time={seconds}")])
            .arg("-print_final_stats=1")
            .status()
            .is_ok_and(|s| s.success());
        if !ok {
            bad.push(t.as_str());
        }
    }
    if bad.is_empty() {
        println!("{} targets, {} min each, no finding", targets.len(), o.minutes);
        return Ok(ExitCode::SUCCESS);
    }
    Err(Error::failed(format!("findings in: {} (see evpn/fuzz/artifacts)", bad.join(", "))))
}

#[cfg(test)]
mod tests {
    use super::Cli;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
