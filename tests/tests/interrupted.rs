//! Programs that make namespaces and processes leave nothing behind when they are interrupted.

use rustix::process::{Pid, Signal, kill_process};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use vtepd_tests::need::{Need, met, our};
use vtepd_tests::poll::{LATER, eventually};

/// A bench with a scratch directory of its own, ended with the test.
struct Bench {
    child: Child,
    scratch: tempfile::TempDir,
}

impl Bench {
    fn start() -> Self {
        let scratch = tempfile::tempdir().expect("a scratch directory");
        // The daemon is built before the clock of anybody's deadline runs.
        let bins = our("vtepd").parent().expect("programs are in a directory").to_owned();
        let child = Command::new(env!("CARGO_BIN_EXE_vtep-bench"))
            .args(["hot", "--only", "vtepd", "--moves", "100000", "--loaded", "100"])
            .env("VTEPD_BIN_DIR", bins)
            .env("TMPDIR", scratch.path())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the bench starts");
        Self { child, scratch }
    }

    /// Namespaces that it has made.
    fn namespaces(&self) -> Vec<String> {
        let mine = format!("vt{}-", self.child.id());
        names(Path::new("/run/netns")).into_iter().filter(|n| n.starts_with(&mine)).collect()
    }

    /// Processes whose command line names its scratch directory: the daemons.
    fn daemons(&self) -> Vec<String> {
        let mine = self.scratch.path().display().to_string();
        let line = |pid: &String| std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        names(Path::new("/proc")).iter().map(line).filter(|l| l.contains(&mine)).collect()
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        for n in self.namespaces() {
            let _ = Command::new("ip").args(["netns", "del", &n]).status();
        }
    }
}

fn names(dir: &Path) -> Vec<String> {
    let Ok(all) = std::fs::read_dir(dir) else { return Vec::new() };
    all.flatten().map(|e| e.file_name().to_string_lossy().into_owned()).collect()
}

fn interrupted_by(signal: Signal) {
    if !met(&[Need::Root, Need::Tool("ip")]) {
        return;
    }
    let mut bench = Bench::start();
    eventually(LATER, "three daemons run", || match bench.daemons().len() {
        3 => Ok(()),
        n => Err(n),
    });
    assert_eq!(bench.namespaces().len(), 5, "three VTEPs, underlay, guests");
    let pid = Pid::from_raw(bench.child.id().cast_signed()).expect("a number");
    kill_process(pid, signal).expect("it runs");
    let status = eventually(Duration::from_secs(20), "it ends", || {
        bench.child.try_wait().map_err(|e| e.to_string())?.ok_or_else(|| "it runs".to_owned())
    });
    assert_eq!(status.code(), Some(130));
    assert_eq!(bench.namespaces(), Vec::<String>::new());
    assert_eq!(bench.daemons(), Vec::<String>::new());
    assert_eq!(names(bench.scratch.path()), Vec::<String>::new());
}

#[test]
fn a_bench_that_is_interrupted_leaves_nothing() {
    interrupted_by(Signal::INT);
}

#[test]
fn a_bench_that_is_told_to_end_leaves_nothing() {
    interrupted_by(Signal::TERM);
}
