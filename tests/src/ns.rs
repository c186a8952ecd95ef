//! Network namespaces with unique names, removed when dropped.

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde_json::Value;
use std::fs::File;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// A network namespace of our own.
#[derive(Debug)]
pub struct Netns {
    name: String,
}

impl Netns {
    /// A fresh one; `label` (a few letters) is part of its name. Loopback is up.
    ///
    /// # Panics
    /// When it cannot be made.
    pub fn new(label: &str) -> Self {
        let n = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("vt{}-{n}-{label}", std::process::id());
        // Removed also if making it was interrupted half-way.
        let ns = Self { name };
        let out = Command::new("ip").args(["netns", "add", &ns.name]).output().expect("ip runs");
        assert!(out.status.success(), "ip netns add {}: {}", ns.name, String::from_utf8_lossy(&out.stderr));
        ns.sh("ip link set lo up");
        ns
    }

    /// Its name, as in `ip netns list`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file that stands for it.
    pub fn path(&self) -> PathBuf {
        PathBuf::from("/run/netns").join(&self.name)
    }

    /// A command that will run inside, with `/sys` to match.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut c = Command::new("ip");
        c.args(["netns", "exec", &self.name]).arg(program);
        c
    }

    /// Runs a shell script inside.
    ///
    /// # Panics
    /// When it fails.
    pub fn sh(&self, script: &str) -> String {
        self.try_sh(script).unwrap_or_else(|e| panic!("in {}: {script}: {e}", self.name))
    }

    /// Runs a shell script inside; the error is what it wrote to standard error.
    pub fn try_sh(&self, script: &str) -> Result<String, String> {
        text(self.command("sh").args(["-ec", script]).output())
    }

    /// Standard output of a command with `-j`, as JSON (`[]` if it printed nothing).
    ///
    /// # Panics
    /// When the command fails or prints something else.
    pub fn json(&self, script: &str) -> Value {
        let out = self.sh(script);
        if out.trim().is_empty() {
            return Value::Array(Vec::new());
        }
        serde_json::from_str(&out).unwrap_or_else(|e| panic!("{script}: {e}: {out}"))
    }

    /// Runs `f` on a thread of its own that lives in this namespace: for sockets, which stay in the namespace
    /// where they were made.
    ///
    /// # Panics
    /// When the namespace cannot be entered, or `f` panics.
    pub fn enter<T: Send>(&self, f: impl FnOnce() -> T + Send) -> T {
        let file = File::open(self.path()).expect("the namespace is there");
        std::thread::scope(|s| {
            s.spawn(|| {
                move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
                    .expect("root may enter");
                f()
            })
            .join()
            .unwrap_or_else(|p| std::panic::resume_unwind(p))
        })
    }

    /// Index of an interface inside.
    ///
    /// # Panics
    /// When there is none of that name.
    pub fn index(&self, device: &str) -> u32 {
        let out = self.sh(&format!("ip -j link show dev {device}"));
        let v: Value = serde_json::from_str(&out).expect("ip prints JSON");
        v[0]["ifindex"].as_u64().expect("an index") as u32
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.name]).output();
    }
}

/// Standard output, or standard error as the error.
pub(crate) fn text(out: std::io::Result<Output>) -> Result<String, String> {
    match out {
        Ok(o) if o.status.success() => Ok(String::from_utf8_lossy(&o.stdout).into_owned()),
        Ok(o) => Err(format!("{}{}", String::from_utf8_lossy(&o.stdout), String::from_utf8_lossy(&o.stderr))),
        Err(e) => Err(e.to_string()),
    }
}
