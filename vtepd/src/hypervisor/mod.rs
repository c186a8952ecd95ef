//! News from hypervisors: guests that arrive, leave, or fail to (PIT-25, PIT-26).
//!
//! ```text
//!   QMP sockets ── qmp::session ── qmp::machine ─┐
//!                                                ├─ step::Wish ── keeper ── Command::Move ──► core
//!   virsh event ── libvirt::watch ───────────────┘
//!   /etc/libvirt/hooks/qemu ── libvirt::hook ── POST /v1/move ──────────────────────────────► API
//! ```
//!
//! All of it runs on the side thread, beside the API: however a socket behaves, the core thread only sees requests.

pub mod board;
mod keeper;
pub mod libvirt;
pub mod nics;
pub mod qmp;
pub mod step;

use crate::api::core::Core;
use board::Board;
use libvirt::LibvirtSettings;
use qmp::QmpSettings;

/// What is configured.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct HypervisorSettings {
    /// `[[qmp]]`.
    pub qmp: Vec<QmpSettings>,
    /// `[libvirt]`, when its events are asked for.
    pub libvirt: Option<LibvirtSettings>,
    /// `[libvirt] activate-at = "stop"`; for the hook without events, too.
    pub libvirt_at_stop: bool,
}

/// Starts everything that is configured, on the current runtime.
pub fn start(settings: &HypervisorSettings, core: &Core, board: &Board) {
    for one in &settings.qmp {
        tokio::spawn(qmp::run(one.clone(), core.clone(), board.clone()));
    }
    if let Some(one) = &settings.libvirt {
        tokio::spawn(libvirt::run(one.clone(), core.clone(), board.clone()));
    }
}
