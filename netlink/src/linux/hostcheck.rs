//! `vtepd check --host`: what on this machine would keep VMs from talking, each with the way out (PIT-09).

use evpn::fabric::DeviceWant;
use serde::Serialize;
use std::net::IpAddr;

/// How bad.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// It works, but less well or less safely.
    Warning,
    /// It does not work.
    Error,
}

/// One finding.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Finding {
    /// Stable name, such as `br-netfilter`.
    pub id: &'static str,
    /// How bad.
    pub severity: Severity,
    /// What is so.
    pub what: String,
    /// Why it matters.
    pub why: String,
    /// What to do about it.
    pub way_out: String,
}

/// Looks at the host as it is for these devices; `peers` are VTEPs to check the path MTU to. Changes nothing.
pub fn run(_devices: &[DeviceWant], _peers: &[IpAddr]) -> Vec<Finding> {
    Vec::new()
}
