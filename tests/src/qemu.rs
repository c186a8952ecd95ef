//! Real QEMU processes: guests without a disk, whose NIC is a tap of a namespace, and a QMP client for the test itself.
//!
//! The guest is QEMU's firmware that finds nothing to boot. It never sends a frame: what is heard of it, QEMU or its
//! manager has said.

use crate::need::program;
use crate::ns::Netns;
use crate::poll::{SOON, eventually};
use crate::proc::Proc;
use serde_json::{Value, json};
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// The program; bookworm's package is `qemu-system-x86`.
pub const PROGRAM: &str = "qemu-system-x86_64";

/// A QEMU with one NIC on `tap0`.
#[derive(Debug)]
pub struct Qemu {
    /// The process.
    pub process: Proc,
    qmp: BufReader<UnixStream>,
    events: Vec<(Instant, Value)>,
    _dir: TempDir,
}

impl Qemu {
    /// Starts one. `adapter`: where vtepd looks for its QMP socket; `extra`: further arguments, such as `-incoming`.
    ///
    /// # Panics
    /// When it does not come up.
    pub fn start(ns: &Netns, mac: &str, adapter: &Path, extra: &[&str]) -> Self {
        let dir = tempfile::Builder::new().prefix("vt-qemu-").tempdir().expect("a scratch directory");
        let own = dir.path().join("test.sock");
        let monitor = |p: &Path| format!("unix:{},server=on,wait=off", p.display());
        let mut args: Vec<String> = [
            "-name",
            "vm1",
            "-nodefaults",
            "-no-user-config",
            "-display",
            "none",
            // Software emulation outright: a KVM that opens may still not run a guest.
            "-machine",
            "pc",
            "-accel",
            "tcg,tb-size=16",
            "-cpu",
            "qemu64",
            "-smp",
            "1",
            "-m",
            "64",
            "-netdev",
            "tap,id=n0,ifname=tap0,script=no,downscript=no",
        ]
        .map(str::to_owned)
        .to_vec();
        args.extend(["-device".into(), format!("virtio-net-pci,netdev=n0,id=nic0,mac={mac},romfile=")]);
        for socket in [adapter, &own] {
            args.extend(["-qmp".into(), monitor(socket)]);
        }
        args.extend(extra.iter().map(|a| (*a).to_owned()));
        let qemu = program(PROGRAM).expect("needed by the test");
        let mut process = Proc::start(ns, &qemu, &args, &dir.path().join("qemu.log"));
        let stream = eventually(SOON, "QEMU listens", || {
            assert!(process.running(), "QEMU ended:\n{}", process.log());
            UnixStream::connect(&own).map_err(|e| e.to_string())
        });
        stream.set_read_timeout(Some(Duration::from_millis(20))).expect("a timeout can be set");
        let mut q = Self { process, qmp: BufReader::new(stream), events: Vec::new(), _dir: dir };
        q.ask("qmp_capabilities", &json!({}));
        q.capability("events");
        q
    }

    /// One command.
    ///
    /// # Panics
    /// When it is refused, or QEMU does not answer.
    pub fn ask(&mut self, command: &str, arguments: &Value) -> Value {
        let mut line = json!({ "execute": command, "arguments": arguments }).to_string();
        line.push('\n');
        self.qmp.get_mut().write_all(line.as_bytes()).expect("QEMU reads");
        let begun = Instant::now();
        loop {
            if let Some(v) = self.read() {
                assert!(v["error"].is_null(), "{command}: {v}");
                if let Some(r) = v.get("return") {
                    return r.clone();
                }
            }
            assert!(begun.elapsed() < SOON, "{command}: no answer");
        }
    }

    /// Turns a migration capability on.
    pub fn capability(&mut self, name: &str) {
        self.ask(
            "migrate-set-capabilities",
            &json!({ "capabilities": [{ "capability": name, "state": true }] }),
        );
    }

    /// No announcements of QEMU's own after a migration to here: only vtepd tells where the guest is.
    pub fn silent(&mut self) {
        self.ask("migrate-set-parameters", &json!({ "announce-rounds": 0 }));
    }

    /// Sends one RARP on behalf of the guest.
    pub fn announce(&mut self) {
        self.ask("announce-self", &json!({ "initial": 20, "max": 20, "rounds": 1, "step": 20 }));
    }

    /// Waits for an event, `NAME` or `MIGRATION status`. Returns when it was read.
    ///
    /// # Panics
    /// When it does not come.
    pub fn event(&mut self, want: &str) -> Instant {
        let begun = Instant::now();
        loop {
            if let Some((at, _)) = self.events.iter().find(|(_, e)| named(e) == want) {
                return *at;
            }
            assert!(begun.elapsed() < SOON, "no {want}; there were {:?}", self.names());
            let _ = self.read();
        }
    }

    /// When an event happened by QEMU's own stamp, microseconds of the wall clock; waits for it.
    ///
    /// # Panics
    /// When it does not come.
    pub fn stamp(&mut self, want: &str) -> u64 {
        self.event(want);
        let event = self.events.iter().rev().find(|(_, e)| named(e) == want).map(|(_, e)| &e["timestamp"]);
        let part = |k: &str| event.and_then(|t| t[k].as_u64()).expect("QEMU stamps its events");
        part("seconds") * 1_000_000 + part("microseconds")
    }

    /// Events so far.
    pub fn names(&self) -> Vec<String> {
        self.events.iter().map(|(_, e)| named(e)).collect()
    }

    /// One line, when there is one soon. Events are kept.
    fn read(&mut self) -> Option<Value> {
        let mut line = String::new();
        // A line that has begun is read to its end: QEMU writes whole ones.
        match self.qmp.read_line(&mut line) {
            Ok(n) if n > 0 => {
                let v: Value = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line}"));
                if v["event"].is_string() {
                    self.events.push((Instant::now(), v.clone()));
                }
                Some(v)
            }
            Ok(_) | Err(_) => None,
        }
    }
}

fn named(event: &Value) -> String {
    let name = event["event"].as_str().unwrap_or_default();
    match event["data"]["status"].as_str() {
        Some(status) => format!("{name} {status}"),
        None => name.to_owned(),
    }
}

/// A directory for the QMP sockets of one VTEP, and the section of vtepd's configuration for it.
pub fn sockets(dir: &TempDir, vtep: usize, more: &str) -> (PathBuf, String) {
    let own = dir.path().join(format!("v{vtep}"));
    std::fs::create_dir(&own).expect("writable");
    let section = format!("[[qmp]]\nsocket = \"{}/*.sock\"\n{more}\n", own.display());
    (own, section)
}
