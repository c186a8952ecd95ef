//! `cargo xtask test`: runs the stages, prints a table, ends with one line that counts.

use crate::Error;
use crate::build::{self, TestProgram};
use crate::host::{self, Consent, Need, Root};
use crate::libtest::{self, Counts, Skip};
use crate::stages::Stage;
use clap::Args;
use std::fs::File;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

/// Seconds after which a test program counts as hanging.
const PATIENCE: u32 = 1200;

/// Options of `cargo xtask test`.
#[derive(Args)]
pub(crate) struct Opts {
    #[command(flatten)]
    consent: Consent,
    /// Do not raise test programs to root, even where sudo could
    #[arg(long)]
    no_root: bool,
    /// Stages to run (fmt, clippy, build, unit, corpora, docs, deny, cli, namespaces, interop, lab) or parts of
    /// test names; everything when absent
    words: Vec<String>,
}

/// A line of the table.
struct Line {
    stage: Stage,
    what: String,
    seconds: f64,
    counts: Counts,
    log: Option<PathBuf>,
}

struct Run {
    root: Option<Root>,
    logs: PathBuf,
    bins: PathBuf,
    names: Vec<String>,
    lines: Vec<Line>,
}

/// Runs the stages.
pub(crate) fn run(o: &Opts) -> Result<ExitCode, Error> {
    let (stages, names): (Vec<_>, Vec<_>) = o.words.iter().partition(|w| Stage::named(w).is_some());
    let stages: Vec<Stage> = stages.iter().filter_map(|w| Stage::named(w)).collect();
    let names: Vec<String> = names.into_iter().cloned().collect();
    let chosen = |s: Stage| match (stages.is_empty(), names.is_empty()) {
        (true, true) => true,
        // Only names: no checks that know no names.
        (true, false) => !matches!(s, Stage::Fmt | Stage::Clippy | Stage::Deny),
        (false, _) => stages.contains(&s),
    };
    let root = prepare(o, Stage::ALL.into_iter().any(|s| s.wants_root() && chosen(s)))?;
    let target = build::target_dir()?;
    let logs = target.join("xtask-test");
    std::fs::create_dir_all(&logs).map_err(|e| Error::failed(format!("{}: {e}", logs.display())))?;
    let mut run = Run { root, logs, bins: target.join("debug"), names: names.clone(), lines: Vec::new() };

    let mut programs = Vec::new();
    let needs_build =
        Stage::ALL.into_iter().any(|s| !matches!(s, Stage::Fmt | Stage::Clippy | Stage::Deny) && chosen(s));
    for stage in Stage::ALL {
        match stage {
            Stage::Build if needs_build => match run.build() {
                Some(p) => programs = p,
                None => break,
            },
            _ if !chosen(stage) => {}
            Stage::Fmt => run.check(stage, "cargo fmt", build::cargo().args(["fmt", "--all", "--check"])),
            Stage::Clippy => run.check(
                stage,
                "cargo clippy",
                build::cargo()
                    .args(["clippy", "--locked", "--workspace", "--all-targets", "--quiet", "--"])
                    .args(["-D", "warnings"]),
            ),
            Stage::Deny => run.deny(),
            Stage::Docs => {
                run.programs(stage, &programs);
                run.docs();
            }
            _ => run.programs(stage, &programs),
        }
    }
    Ok(run.finish())
}

/// Sees to root and tools before the first test, so that nothing asks later. Nothing here is fatal: what is
/// missing makes tests skip (or fail, under CI=true) with a reason of their own.
fn prepare(o: &Opts, wanted: bool) -> Result<Option<Root>, Error> {
    if !wanted {
        return Ok(None);
    }
    let root = Root::find().filter(|r| !o.no_root || matches!(r, Root::Already));
    let Some(root) = root else {
        println!("Not root and no sudo: tests that make network namespaces will be skipped.");
        return Ok(None);
    };
    if !root.ready() {
        if !std::io::stdin().is_terminal() {
            println!(
                "Not root, and sudo would ask for a password: tests that make network namespaces will be skipped."
            );
            return Ok(None);
        }
        println!("Tests that make network namespaces run as root, through sudo (--no-root: skip them).");
        let agreed = Command::new("sudo").arg("-v").status().is_ok_and(|s| s.success());
        if !agreed {
            return Ok(None);
        }
    }
    let gone = host::missing(&Need::ALL);
    if !gone.is_empty() {
        let may_ask = std::io::stdin().is_terminal();
        match host::provide(&Need::ALL, &o.consent, &root) {
            Ok(()) => {}
            Err(e) if o.consent.yes || host::ci() => return Err(e),
            Err(e) if may_ask => println!("{e}\nTests that need them will be skipped."),
            Err(_) => println!(
                "{}\nRun with --yes to have that done; tests that need them will be skipped.",
                host::plan(&gone)
            ),
        }
    }
    Ok(Some(root))
}

impl Run {
    fn build(&mut self) -> Option<Vec<TestProgram>> {
        let begun = Self::begin(Stage::Build, "programs and tests");
        let bins = build::binaries("dev", &["vtepd", "vtep-lab"]).is_ok();
        let out = build::cargo()
            .args(["test", "--locked", "--workspace", "--no-run", "--message-format=json-render-diagnostics"])
            .stderr(Stdio::inherit())
            .output();
        let ok = bins && out.as_ref().is_ok_and(|o| o.status.success());
        self.end(Stage::Build, "programs and tests", begun, check_counts(ok), None);
        if !ok {
            return None;
        }
        Some(build::test_programs(&String::from_utf8_lossy(&out.ok()?.stdout)))
    }

    /// A command that passes or fails as a whole.
    fn check(&mut self, stage: Stage, what: &str, cmd: &mut Command) {
        let begun = Self::begin(stage, what);
        let log = self.logs.join(format!("{}.log", what.replace([' ', '/'], "-")));
        let ok = into_log(cmd, &log).and_then(Command::status).is_ok_and(|s| s.success());
        self.end(stage, what, begun, check_counts(ok), Some(log));
    }

    fn deny(&mut self) {
        if host::find("cargo-deny").is_some() || home_bin("cargo-deny") {
            let mut c = build::cargo();
            self.check(
                Stage::Deny,
                "cargo deny",
                c.args(["deny", "--offline", "check", "bans", "licenses", "sources"]),
            );
            return;
        }
        let begun = Instant::now();
        let why =
            "known-absent: cargo-deny (cargo install cargo-deny --locked); tidy checks licences and sources";
        let counts = Counts {
            skipped: vec![Skip { test: "cargo deny".into(), why: why.into() }],
            ..Counts::default()
        };
        self.end(Stage::Deny, "cargo deny", begun, counts, None);
    }

    fn docs(&mut self) {
        if !self.names.is_empty() {
            return;
        }
        let begun = Self::begin(Stage::Docs, "doc examples");
        let log = self.logs.join("doc-examples.log");
        let mut c = build::cargo();
        c.args(["test", "--locked", "--doc", "-p", "evpn", "-p", "netlink", "-p", "vtepd", "-p", "vtep-lab"]);
        let ok = into_log(&mut c, &log).and_then(Command::status).is_ok_and(|s| s.success());
        let mut counts = read_counts(&log).unwrap_or_default();
        if !ok && counts.failed == 0 {
            counts.failed = 1;
        }
        self.end(Stage::Docs, "doc examples", begun, counts, Some(log));
        let mut c = build::cargo();
        c.args(["doc", "--locked", "--workspace", "--no-deps", "--quiet"]).env("RUSTDOCFLAGS", "-D warnings");
        self.check(Stage::Docs, "cargo doc", &mut c);
    }

    fn programs(&mut self, stage: Stage, programs: &[TestProgram]) {
        for p in programs.iter().filter(|p| Stage::of(p) == stage) {
            let what = if p.integration {
                format!("{}/{}", p.package, p.target)
            } else {
                format!("{} (inside)", p.package)
            };
            let begun = Self::begin(stage, &what);
            let log = self.logs.join(format!("{}-{}-{}.log", stage.name(), p.package, p.target));
            let ok = self.program(stage, p, &log).is_ok_and(|s| s.success());
            let mut counts = read_counts(&log).unwrap_or_default();
            if !ok && counts.failed == 0 {
                // It crashed, hung or could not be started.
                counts.failed = 1;
            }
            if counts != Counts::default() {
                self.end(stage, &what, begun, counts, Some(log));
            }
        }
    }

    fn program(
        &self,
        stage: Stage,
        p: &TestProgram,
        log: &Path,
    ) -> std::io::Result<std::process::ExitStatus> {
        let mut env =
            vec![("VTEPD_BIN_DIR", self.bins.clone().into_os_string()), ("RUST_BACKTRACE", "1".into())];
        // Snapshots are looked for below the workspace, which insta would ask cargo for: root may have none.
        env.push(("INSTA_WORKSPACE_ROOT", build::root().into()));
        // No files of root's among the sources.
        env.push(("INSTA_UPDATE", "no".into()));
        for k in ["CI", "RUST_LOG", "PROPTEST_CASES"] {
            env.extend(std::env::var_os(k).map(|v| (k, v)));
        }
        if let Some(n) = stage.threads() {
            env.push(("RUST_TEST_THREADS", n.to_string().into()));
        }
        let env: Vec<_> = env.iter().map(|(k, v)| (*k, v.as_os_str())).collect();
        // coreutils' timeout stands next to the program, so that it can end one that runs as root.
        let timeout = host::find("timeout").unwrap_or_else(|| "timeout".into());
        let mut c = match &self.root {
            Some(root) if stage.wants_root() => root.command(&timeout, &env),
            _ => Root::Already.command(&timeout, &env),
        };
        c.args(["--foreground", "--kill-after=10"])
            .arg(PATIENCE.to_string())
            .arg(&p.exe)
            .arg("--show-output")
            .args(&self.names);
        into_log(&mut c, log)?;
        let mut child = c.current_dir(&p.dir).spawn()?;
        let begun = Instant::now();
        loop {
            if let Some(status) = child.try_wait()? {
                return Ok(status);
            }
            if std::io::stdout().is_terminal() {
                let done = std::fs::read_to_string(log).unwrap_or_default();
                let done = done.lines().filter(|l| l.starts_with("test ") && l.contains(" ... ")).count();
                print!(
                    "\r  {:<12}{:<40}{:>6} s  {done} tests",
                    stage.name(),
                    p.target,
                    begun.elapsed().as_secs()
                );
                let _ = std::io::stdout().flush();
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn begin(stage: Stage, what: &str) -> Instant {
        if std::io::stdout().is_terminal() {
            print!("\r  {:<12}{what:<40} …", stage.name());
            let _ = std::io::stdout().flush();
        }
        Instant::now()
    }

    fn end(&mut self, stage: Stage, what: &str, begun: Instant, mut counts: Counts, log: Option<PathBuf>) {
        if host::ci() {
            let (known, unmet): (Vec<_>, Vec<_>) = counts.skipped.into_iter().partition(Skip::known_absent);
            counts.failed += unmet.len();
            for s in &unmet {
                println!("FAILED {}: skipped under CI=true: {}", s.test, s.why);
            }
            counts.skipped = known;
        }
        let line = Line { stage, what: what.to_owned(), seconds: begun.elapsed().as_secs_f64(), counts, log };
        if std::io::stdout().is_terminal() {
            print!("\r\x1b[K");
        }
        println!("{}", row(&line));
        if line.counts.failed > 0
            && let Some(log) = &line.log
        {
            show_failure(log);
        }
        self.lines.push(line);
    }

    fn finish(self) -> ExitCode {
        let mut sum = Counts::default();
        println!("\n  stage       seconds  passed  failed  skipped");
        for stage in Stage::ALL {
            let of: Vec<_> = self.lines.iter().filter(|l| l.stage == stage).collect();
            if of.is_empty() {
                continue;
            }
            let seconds: f64 = of.iter().map(|l| l.seconds).sum();
            let mut c = Counts::default();
            for l in of {
                c.add(l.counts.clone());
            }
            println!(
                "  {:<12}{seconds:>7.1}{:>8}{:>8}{:>9}",
                stage.name(),
                c.passed,
                c.failed,
                c.skipped.len()
            );
            sum.add(c);
        }
        if !sum.skipped.is_empty() {
            println!("\nskipped:");
            for s in &sum.skipped {
                println!("  {}: {}", s.test, s.why);
            }
        }
        let broken: Vec<_> = self.lines.iter().filter(|l| l.counts.failed > 0).collect();
        if !broken.is_empty() {
            println!("\nfailed:");
            for l in &broken {
                let log = l.log.as_ref().map(|p| format!(": {}", p.display())).unwrap_or_default();
                println!("  {} {}{log}", l.stage.name(), l.what);
            }
        }
        println!("\n{} passed, {} failed, {} skipped", sum.passed, sum.failed, sum.skipped.len());
        if sum.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

fn row(l: &Line) -> String {
    use std::fmt::Write as _;
    let mut out =
        format!("  {:<12}{:<40}{:>7.1} s  {:>5} passed", l.stage.name(), l.what, l.seconds, l.counts.passed);
    if l.counts.failed > 0 {
        let _ = write!(out, ", {} FAILED", l.counts.failed);
    }
    if !l.counts.skipped.is_empty() {
        let _ = write!(out, ", {} skipped", l.counts.skipped.len());
    }
    out
}

fn check_counts(ok: bool) -> Counts {
    Counts { passed: usize::from(ok), failed: usize::from(!ok), skipped: Vec::new() }
}

/// Counts of a log that may hold several libtest runs.
fn read_counts(log: &Path) -> Option<Counts> {
    let bytes = std::fs::read(log).ok()?;
    libtest::parse(&String::from_utf8_lossy(&bytes))
}

fn into_log<'a>(c: &'a mut Command, log: &Path) -> std::io::Result<&'a mut Command> {
    let file = File::create(log)?;
    Ok(c.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file))
}

fn home_bin(program: &str) -> bool {
    std::env::var_os("HOME").is_some_and(|h| Path::new(&h).join(".cargo/bin").join(program).is_file())
}

/// Prints the part of a log that says what went wrong.
fn show_failure(log: &Path) {
    let text = String::from_utf8_lossy(&std::fs::read(log).unwrap_or_default()).into_owned();
    let from = text.find("\nfailures:\n").unwrap_or(0);
    let lines: Vec<_> = text[from..].lines().collect();
    let skip = if from == 0 { lines.len().saturating_sub(60) } else { 0 };
    for l in lines.iter().skip(skip).take(120) {
        println!("    {l}");
    }
}
