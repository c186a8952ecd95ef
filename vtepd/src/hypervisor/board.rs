//! What is known of the hypervisors' guests, for `vtepd show hypervisors`. Lives on the side thread; the core never
//! looks at it.

use evpn::types::{Mac, Time};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

/// A guest.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub struct GuestRow {
    /// Where this is known from: the path of a QMP socket, or `libvirt` and the guest's name.
    pub source: String,
    /// Its name.
    pub guest: Option<String>,
    /// QEMU's version; empty before it was told.
    pub qemu: String,
    /// Somebody answers.
    pub connected: bool,
    /// `unknown`, `arriving`, `aborted`, `running`, `paused`, `leaving`, `left` or `split-brain`.
    pub state: String,
    /// Boot clock: since when.
    pub since: Time,
    /// Whether QEMU reports migrations by events; `null` before it was asked.
    pub migration_events: Option<bool>,
    /// NICs.
    pub nics: Vec<NicRow>,
    /// Times that a connection stood.
    pub connects: u64,
    /// Times that it was given up because of what came or did not come.
    pub faults: u64,
    /// What is wrong now.
    pub error: Option<String>,
}

/// A NIC of a guest.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct NicRow {
    /// Its name at the hypervisor.
    pub id: String,
    /// Its MAC.
    pub mac: Mac,
    /// Its port on this host.
    pub port: Option<String>,
    /// How the last step for it ended.
    pub state: Option<String>,
}

/// All guests. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Board {
    rows: Arc<Mutex<BTreeMap<String, GuestRow>>>,
    libvirt_at_stop: bool,
}

impl Board {
    /// `libvirt_at_stop`: preparations by libvirt's hook are activated when the guest stops at its source.
    pub fn new(libvirt_at_stop: bool) -> Self {
        Self { libvirt_at_stop, ..Self::default() }
    }

    /// `[libvirt] activate-at = "stop"`. The hook is a process of its own and has not read the configuration.
    pub fn libvirt_at_stop(&self) -> bool {
        self.libvirt_at_stop
    }

    /// Guests by where they are known from.
    pub fn rows(&self) -> Vec<GuestRow> {
        self.rows.lock().map(|r| r.values().cloned().collect()).unwrap_or_default()
    }

    /// Puts a guest's row.
    pub(super) fn put(&self, row: &GuestRow) {
        if let Ok(mut rows) = self.rows.lock() {
            rows.insert(row.source.clone(), row.clone());
        }
    }

    /// Removes it.
    pub(super) fn remove(&self, source: &str) {
        if let Ok(mut rows) = self.rows.lock() {
            rows.remove(source);
        }
    }
}
