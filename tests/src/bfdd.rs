//! FRR's bfdd alone, with the zebra that it needs: a BFD peer that speaks no BGP.

use crate::frr::{daemon, give, vtysh};
use crate::ns::Netns;
use crate::proc::Proc;
use serde_json::Value;
use std::net::IpAddr;
use tempfile::TempDir;

/// A running bfdd.
#[derive(Debug)]
pub struct Bfdd {
    /// bfdd.
    pub bfdd: Proc,
    /// zebra.
    pub zebra: Proc,
    dir: TempDir,
}

impl Bfdd {
    /// Starts it with these lines below `bfd`.
    ///
    /// # Panics
    /// When it does not come up.
    pub fn start(ns: &Netns, lines: &str) -> Self {
        let dir = tempfile::Builder::new().prefix("vt-bfdd-").tempdir().expect("a scratch directory");
        let at = |f: &str| dir.path().join(f);
        std::fs::write(at("zebra.conf"), "hostname zebra\n").expect("writable");
        std::fs::write(at("bfdd.conf"), format!("hostname bfdd\nbfd\n{lines}\nexit\n")).expect("writable");
        give(dir.path());
        let zebra = daemon(ns, dir.path(), "zebra");
        let bfdd = daemon(ns, dir.path(), "bfdd");
        Self { bfdd, zebra, dir }
    }

    /// Configuration lines below `bfd`.
    ///
    /// # Panics
    /// When vtysh fails.
    pub fn configure(&self, lines: &[&str]) {
        let mut c = vec!["configure terminal", "bfd"];
        c.extend(lines);
        vtysh(self.dir.path(), &c).unwrap_or_else(|e| panic!("vtysh {c:?}: {e}"));
    }

    /// The session with a peer as bfdd tells it; `Null` if it has none, or does not answer yet.
    pub fn peer(&self, address: IpAddr) -> Value {
        of_peer(&vtysh(self.dir.path(), &["show bfd peers json"]).unwrap_or_default(), address)
    }
}

/// The session with a peer in what `show bfd peers json` prints.
pub(crate) fn of_peer(text: &str, address: IpAddr) -> Value {
    let all: Value = serde_json::from_str(text).unwrap_or(Value::Null);
    let address = address.to_string();
    let found = all.as_array().and_then(|a| a.iter().find(|p| p["peer"] == address.as_str()));
    found.cloned().unwrap_or(Value::Null)
}
