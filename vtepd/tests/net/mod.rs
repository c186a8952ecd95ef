//! Network namespaces and daemons for tests. Everything goes away with its value.
#![allow(dead_code, unreachable_pub)] // each test file uses its part of it

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Generous: correctness is tested here, not speed.
pub const LIMIT: Duration = Duration::from_secs(20);

/// Skips the test (or fails it under `CI=true`) unless it runs as root with iproute2.
#[macro_export]
macro_rules! needs_namespaces {
    () => {
        if let Err(why) = net::can_have_namespaces() {
            assert!(std::env::var("CI").as_deref() != Ok("true"), "cannot run: {why}");
            println!("skipped: {why}");
            return;
        }
    };
}

/// Whether namespaces can be made here.
pub fn can_have_namespaces() -> Result<(), String> {
    if !rustix::process::geteuid().is_root() {
        return Err("needs root; run the tests as root".into());
    }
    let ip = Command::new("ip").arg("-V").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if !ip.is_ok_and(|s| s.success()) {
        return Err("needs `ip`; install iproute2".into());
    }
    Ok(())
}

/// Waits until `check` is content; its last complaint is in the failure.
pub fn eventually(what: &str, mut check: impl FnMut() -> Result<(), String>) {
    let end = Instant::now() + LIMIT;
    loop {
        match check() {
            Ok(()) => return,
            Err(last) if Instant::now() > end => panic!("{what}: not within {LIMIT:?}; last seen: {last}"),
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

/// A named network namespace.
pub struct Ns {
    pub name: String,
}

impl Ns {
    pub fn new(role: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let ns = Self { name: format!("d{}-{n}-{role}", std::process::id()) };
        run(&["ip", "netns", "add", &ns.name]);
        ns.ip("link set lo up");
        ns
    }

    /// `ip` in the namespace, words split at blanks; must succeed.
    pub fn ip(&self, words: &str) -> String {
        let mut all = vec!["ip", "-n", &self.name];
        all.extend(words.split_whitespace());
        run(&all)
    }

    /// Any program in the namespace.
    pub fn command(&self, program: &str) -> Command {
        let mut c = Command::new("ip");
        c.args(["netns", "exec", &self.name, program]);
        c
    }

    /// A program's output in the namespace; must succeed.
    pub fn run(&self, words: &str) -> String {
        let mut all = vec!["ip", "netns", "exec", &self.name];
        all.extend(words.split_whitespace());
        run(&all)
    }

    /// Sets a value below `/proc/sys`, as seen from inside.
    pub fn set(&self, key: &str, value: &str) {
        run(&["ip", "netns", "exec", &self.name, "sh", "-c", &format!("echo {value} > /proc/sys/{key}")]);
    }

    pub fn has_device(&self, name: &str) -> bool {
        let all = ["-n", &self.name, "link", "show", name];
        Command::new("ip").args(all).output().is_ok_and(|o| o.status.success())
    }

    /// Forwarding rows of a device, one a line.
    pub fn fdb(&self, dev: &str) -> String {
        self.run(&format!("bridge fdb show dev {dev}"))
    }
}

impl Drop for Ns {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.name]).output();
    }
}

fn run(words: &[&str]) -> String {
    let out = Command::new(words[0]).args(&words[1..]).output().expect("the program starts");
    let text = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
    assert!(out.status.success(), "{words:?}: {}{}", text(&out.stdout), text(&out.stderr));
    text(&out.stdout)
}

/// A veth pair between two namespaces, both ends up.
pub fn wire(a: &Ns, a_name: &str, b: &Ns, b_name: &str) {
    a.ip(&format!("link add {a_name} type veth peer name {b_name} netns {}", b.name));
    a.ip(&format!("link set {a_name} up"));
    b.ip(&format!("link set {b_name} up"));
}

/// A configuration and where a daemon that uses it keeps its things.
pub struct Setup {
    pub dir: tempfile::TempDir,
    pub file: PathBuf,
    pub socket: PathBuf,
}

impl Setup {
    /// `vtep` lines, then everything else; the state directory and the socket are added.
    pub fn new(vtep: &str, rest: &str) -> Self {
        let dir = tempfile::tempdir().expect("directory");
        let (file, socket) = (dir.path().join("vtepd.toml"), dir.path().join("vtepd.sock"));
        let state = dir.path().join("state");
        let text = format!(
            "[vtep]\n{vtep}\nstate-dir = \"{}\"\n[api]\nsocket = \"{}\"\n[log]\nlevel = \"debug\"\n{rest}\n",
            state.display(),
            socket.display()
        );
        std::fs::write(&file, text).expect("written");
        Self { dir, file, socket }
    }

    /// Starts a daemon and waits until it answers.
    pub fn start(&self, ns: &Ns) -> Daemon {
        let log = self.dir.path().join("log");
        let to = std::fs::File::create(&log).expect("log file");
        let mut c = ns.command(VTEPD);
        c.args(["run", "--config"]).arg(&self.file).stdout(Stdio::null()).stderr(to).stdin(Stdio::null());
        let child = c.spawn().expect("vtepd starts");
        let mut d = Daemon { child, socket: self.socket.clone(), log };
        eventually("vtepd answers", || {
            if let Ok(Some(status)) = d.child.try_wait() {
                panic!("vtepd ended with {status}: {}", d.log());
            }
            d.try_show("status").map(|_| ())
        });
        d
    }

    /// Runs a daemon that is expected to end by itself.
    pub fn run_to_end(&self, ns: &Ns) -> Output {
        ns.command(VTEPD).args(["run", "--config"]).arg(&self.file).output().expect("vtepd starts")
    }
}

pub const VTEPD: &str = env!("CARGO_BIN_EXE_vtepd");

/// A running daemon; killed when dropped.
pub struct Daemon {
    child: Child,
    socket: PathBuf,
    log: PathBuf,
}

impl Daemon {
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Rows of a table as JSON.
    pub fn try_show(&self, table: &str) -> Result<Vec<Value>, String> {
        let words: Vec<&str> = table.split_whitespace().collect();
        let out = Command::new(VTEPD)
            .arg("show")
            .args(&words)
            .args(["--json", "--socket"])
            .arg(&self.socket)
            .output();
        let out = out.map_err(|e| e.to_string())?;
        if !out.status.success() {
            return Err(String::from_utf8_lossy(&out.stderr).into_owned());
        }
        let value: Value = serde_json::from_slice(&out.stdout).map_err(|e| e.to_string())?;
        value["rows"].as_array().cloned().ok_or_else(|| value.to_string())
    }

    pub fn show(&self, table: &str) -> Vec<Value> {
        self.try_show(table).unwrap_or_else(|e| panic!("show {table}: {e}\n{}", self.log()))
    }

    /// The table as a person sees it.
    pub fn show_text(&self, table: &str) -> String {
        let out =
            Command::new(VTEPD).args(["show", table, "--socket"]).arg(&self.socket).output().expect("runs");
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).expect("UTF-8")
    }

    /// Waits until a table is as wanted.
    pub fn until(&self, table: &str, what: &str, check: impl Fn(&[Value]) -> bool) {
        eventually(what, || {
            let rows = self.try_show(table)?;
            let seen = || format!("{}\n--- log\n{}", Value::from(rows.clone()), self.log());
            if check(&rows) { Ok(()) } else { Err(seen()) }
        });
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).expect("signalled");
    }

    /// SIGTERM, then the exit status and how long it took.
    pub fn stop(mut self) -> (ExitStatus, Duration) {
        let begin = Instant::now();
        self.signal(rustix::process::Signal::TERM);
        let mut status = None;
        eventually("vtepd ends", || {
            status = self.child.try_wait().map_err(|e| e.to_string())?;
            status.map(|_| ()).ok_or_else(|| "still running".into())
        });
        (status.expect("it ended"), begin.elapsed())
    }

    pub fn socket(&self) -> &Path {
        &self.socket
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- log of {}\n{}", self.socket.display(), self.log());
        }
    }
}

/// A small file system of its own; unmounted when dropped.
pub struct Tmpfs {
    at: PathBuf,
}

impl Tmpfs {
    pub fn mount(at: &Path, size: &str) -> Self {
        std::fs::create_dir_all(at).expect("made");
        let at = at.to_owned();
        run(&["mount", "-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs", &at.display().to_string()]);
        Self { at }
    }

    /// Leaves no octet of room; returns the file that takes it all.
    pub fn fill(&self) -> PathBuf {
        use std::io::Write as _;
        let path = self.at.join("ballast");
        let mut f = std::fs::File::create(&path).expect("made");
        while f.write_all(&[0; 4096]).is_ok() {}
        path
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.at).output();
    }
}
