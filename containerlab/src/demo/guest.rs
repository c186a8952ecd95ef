//! Programs in the VMs, and what the VMs' kernels hold.

use crate::error::{Error, Result};
use crate::iproute;
use crate::lab::Lab;
use crate::netns;
use crate::traffic::Status;
use serde::de::DeserializeOwned;
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};

/// A program that answers lines with JSON.
pub(super) struct Talker {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
    what: String,
}

impl Talker {
    /// Starts it and waits for its first line.
    pub(super) fn start(lab: &mut Lab, node: &str, argv: &[&str]) -> Result<Self> {
        let run = lab.state.run(node, argv.iter().copied())?;
        let what = format!("`{}` in {node}", run.text());
        let mut child = run.spawn(Stdio::piped(), Stdio::piped(), Stdio::inherit())?;
        lab.state.track(node, child.id(), &run.text())?;
        let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(Error::refused("no pipes"));
        };
        Ok(Self { child, stdin: Some(stdin), stdout: BufReader::new(stdout), what })
    }

    /// Its next line.
    pub(super) fn line<T: DeserializeOwned>(&mut self) -> Result<T> {
        let mut line = String::new();
        self.stdout.read_line(&mut line).map_err(Error::io(self.what.clone()))?;
        serde_json::from_str(&line)
            .map_err(|e| Error::refused(format!("{} said `{}`: {e}", self.what, line.trim())))
    }

    /// How far it is.
    pub(super) fn status(&mut self) -> Result<Status> {
        if let Some(stdin) = &mut self.stdin {
            stdin.write_all(b"status\n").map_err(Error::io(self.what.clone()))?;
        }
        self.line()
    }

    /// Ends it; its report.
    pub(super) fn finish<T: DeserializeOwned>(mut self) -> Result<T> {
        self.stdin = None;
        let report = self.line()?;
        let _ = self.child.wait();
        Ok(report)
    }
}

/// What a move must not change in the guest (PIT-21).
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct GuestState {
    carrier_changes: u64,
    neighbours: BTreeSet<(String, String)>,
    sockets: BTreeSet<String>,
}

impl GuestState {
    pub(super) fn read(namespace: &str, interface: &str) -> Result<Self> {
        let link = iproute::json("ip", namespace, &["-s", "-s", "link", "show", "dev", interface])?;
        let carrier_changes = link.first().and_then(|l| l["stats64"]["tx"]["carrier_changes"].as_u64());
        let neighbours = iproute::json("ip", namespace, &["neigh", "show"])?
            .iter()
            .filter_map(|n| Some((n["dst"].as_str()?.to_owned(), n["lladdr"].as_str()?.to_owned())))
            .collect();
        let sockets = netns::inside(namespace, || {
            let mut all = BTreeSet::new();
            for table in ["tcp", "tcp6", "udp", "udp6"] {
                // Of the calling thread: `/proc/net` is the one of the process.
                let path = format!("/proc/thread-self/net/{table}");
                let text = std::fs::read_to_string(&path).unwrap_or_default();
                for line in text.lines().skip(1) {
                    let f: Vec<_> = line.split_whitespace().collect();
                    // Local, remote, state and inode: the socket itself, not its queues and timers.
                    if let (Some(local), Some(remote), Some(state), Some(inode)) =
                        (f.get(1), f.get(2), f.get(3), f.get(9))
                    {
                        all.insert(format!("{table} {local} {remote} {state} {inode}"));
                    }
                }
            }
            Ok(all)
        })?;
        Ok(Self { carrier_changes: carrier_changes.unwrap_or(0), neighbours, sockets })
    }

    /// What differs.
    pub(super) fn differences(&self, after: &Self) -> Vec<String> {
        let mut out = Vec::new();
        if self.carrier_changes != after.carrier_changes {
            out.push(format!(
                "carrier changed {} times",
                after.carrier_changes.abs_diff(self.carrier_changes)
            ));
        }
        if self.neighbours != after.neighbours {
            out.push(format!("neighbours {:?} became {:?}", self.neighbours, after.neighbours));
        }
        if self.sockets != after.sockets {
            out.push(format!("sockets {:?} became {:?}", self.sockets, after.sockets));
        }
        out
    }

    pub(super) fn summary(&self) -> String {
        format!("{} neighbours, {} sockets", self.neighbours.len(), self.sockets.len())
    }
}
