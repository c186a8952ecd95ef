//! What the tests of this crate share.
#![allow(dead_code, reason = "each test file uses its part")]

use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// Whether this machine has what the test needs. If not: under `CI=true` a failure, else a line and `false`.
pub(crate) fn ready(needs: &[&str]) -> bool {
    let missing: Vec<_> = needs
        .iter()
        .filter(|need| match **need {
            "root" => !vtep_lab::state::is_root(),
            "frr" => !vtep_lab::frr::installed(),
            other => panic!("unknown need {other}"),
        })
        .collect();
    if missing.is_empty() {
        return true;
    }
    assert!(std::env::var("CI").as_deref() != Ok("true"), "this machine lacks {missing:?}");
    eprintln!("skipped: needs {missing:?}");
    false
}

/// A name that no other test has.
pub(crate) fn unique(what: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("l{}{}{what}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A network namespace that goes with its owner.
pub(crate) struct Namespace {
    pub(crate) name: String,
}

impl Namespace {
    pub(crate) fn new(what: &str) -> Self {
        let name = unique(what);
        ip(&["netns", "add", &name]);
        ip(&["-n", &name, "link", "set", "lo", "up"]);
        Self { name }
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.name]).status();
    }
}

pub(crate) fn ip(args: &[&str]) -> String {
    let out = Command::new("ip").args(args).output().expect("iproute2");
    assert!(out.status.success(), "ip {}: {}", args.join(" "), String::from_utf8_lossy(&out.stderr));
    String::from_utf8_lossy(&out.stdout).into_owned()
}
