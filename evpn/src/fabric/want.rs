//! The rows we want the kernel to have.

use crate::types::{IfIndex, Mac};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// What a wanted row is about. One key, one truth: latest state wins.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum RowKey {
    /// Where a MAC is on a bridge, and with it the `self` row on the bridge's VXLAN device.
    Mac {
        /// The bridge.
        bridge: IfIndex,
        /// The MAC, a host's.
        mac: Mac,
    },
    /// Head-end replication to one VTEP: a zero-MAC row on the VXLAN device.
    Flood {
        /// The VXLAN device.
        vxlan: IfIndex,
        /// Destination.
        vtep: IpAddr,
    },
    /// What the kernel answers ARP and ND with: a neighbour row on the bridge device.
    Neigh {
        /// The bridge (or other L3 device).
        dev: IfIndex,
        /// Address.
        ip: IpAddr,
    },
}

/// Value of a wanted row. The variant always fits the key's.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Row {
    /// Remote MAC: bridge row on the VXLAN port and `self` row to the VTEP, both `extern_learn`.
    Remote {
        /// VXLAN device, a port of the key's bridge.
        vxlan: IfIndex,
        /// Destination.
        vtep: IpAddr,
        /// Written `NTF_STICKY` + static instead of `extern_learn` on the bridge: local frames cannot take it (EVPN-MOB-17).
        sticky: bool,
    },
    /// Local MAC that won a move (PIT-05): `master dynamic` on its port, and no `self` row on the VXLAN device.
    ///
    /// A bridge row on that port satisfies it whatever its flags.
    Local {
        /// VXLAN device, whose `self` row must be gone.
        vxlan: IfIndex,
        /// The port the VM is behind.
        port: IfIndex,
    },
    /// Remote MAC whose frames pass through our hold port for a while: `self` row to the VTEP as in [`Row::Remote`], and
    /// the bridge row on the hold port, `dynamic`. What others still send here because they have not heard yet would
    /// otherwise end at the VXLAN port that it came in by (PIT-03, PIT-26).
    Relayed {
        /// VXLAN device, a port of the key's bridge.
        vxlan: IfIndex,
        /// Destination.
        vtep: IpAddr,
        /// The hold port.
        port: IfIndex,
    },
    /// A MAC that we had put on this port for a guest that never came: no dynamic row there, and none of ours.
    ///
    /// Wanted only until it has been written, so that a guest which comes later is learned as usual.
    Cleared {
        /// The port.
        port: IfIndex,
    },
    /// An address of the bridge itself: permanent, `extern_learn`. Frames for it end here and none teach it (PIT-15).
    Own,
    /// Flood row.
    Flood,
    /// `NUD_NOARP`, `NTF_EXT_LEARNED`, our `NDA_PROTOCOL`.
    Neigh {
        /// MAC behind the address.
        mac: Mac,
        /// `NTF_ROUTER` (RFC 9047 R flag).
        router: bool,
    },
}

/// How a dirty key ended. Every key taken from [`Want::take_dirty`] is reported exactly once.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum WriteResult {
    /// The kernel had it already; nothing was sent.
    Unchanged,
    /// The kernel acknowledged the write (or the delete).
    Done,
    /// The kernel refused; text from its extended acknowledgement where it gave one.
    Failed {
        /// Positive errno.
        errno: i32,
        /// For people.
        text: String,
    },
}

/// Wanted rows with the set of keys that changed since the reconciler last looked.
///
/// A key that is absent means: no row of *ours* there. Rows of others are never touched.
/// `urgent` keys (moves) are handed out before the rest.
#[derive(Clone, Debug, Default)]
pub struct Want {
    rows: BTreeMap<RowKey, Row>,
    urgent: BTreeSet<RowKey>,
    dirty: BTreeSet<RowKey>,
}

impl Want {
    /// Wanted value of a row.
    pub fn get(&self, key: &RowKey) -> Option<&Row> {
        self.rows.get(key)
    }
    /// All rows in order.
    pub fn iter(&self) -> impl Iterator<Item = (&RowKey, &Row)> {
        self.rows.iter()
    }
    /// Rows from `key` on, in order.
    pub fn range_from(&self, key: RowKey) -> impl Iterator<Item = (&RowKey, &Row)> {
        self.rows.range(key..)
    }
    /// Number of wanted rows.
    pub fn len(&self) -> usize {
        self.rows.len()
    }
    /// Nothing is wanted.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }
    /// Want this row. Marks it dirty if that is news. Returns whether it was.
    pub fn set(&mut self, key: RowKey, row: Row, urgent: bool) -> bool {
        if self.rows.get(&key) == Some(&row) {
            return false;
        }
        self.rows.insert(key, row);
        self.mark(key, urgent);
        true
    }
    /// Want no row of ours there. Returns whether one was wanted.
    pub fn remove(&mut self, key: &RowKey, urgent: bool) -> bool {
        if self.rows.remove(key).is_none() {
            return false;
        }
        self.mark(*key, urgent);
        true
    }
    /// Take a row as wanted that the kernel has already (adoption at start): not dirty.
    pub fn adopt(&mut self, key: RowKey, row: Row) {
        self.rows.entry(key).or_insert(row);
    }
    /// Have the reconciler look at this key again, whether or not the wish changed.
    pub fn mark(&mut self, key: RowKey, urgent: bool) {
        if urgent {
            self.dirty.remove(&key);
            self.urgent.insert(key);
        } else if !self.urgent.contains(&key) {
            self.dirty.insert(key);
        }
    }
    /// Whether this key waits to be looked at.
    pub fn is_dirty(&self, key: &RowKey) -> bool {
        self.urgent.contains(key) || self.dirty.contains(key)
    }
    /// Keys waiting to be looked at.
    pub fn dirty_len(&self) -> usize {
        self.urgent.len() + self.dirty.len()
    }
    /// Urgent keys waiting to be looked at.
    pub fn urgent_len(&self) -> usize {
        self.urgent.len()
    }
    /// Takes up to `max` urgent keys and leaves the rest.
    pub fn take_urgent(&mut self, max: usize) -> Vec<RowKey> {
        let mut out = Vec::with_capacity(max.min(self.urgent.len()));
        while out.len() < max {
            let Some(k) = self.urgent.pop_first() else { break };
            out.push(k);
        }
        out
    }
    /// Takes up to `max` dirty keys, urgent ones first.
    pub fn take_dirty(&mut self, max: usize) -> Vec<RowKey> {
        let mut out = Vec::with_capacity(max.min(self.dirty_len()));
        while out.len() < max {
            let Some(k) = self.urgent.pop_first().or_else(|| self.dirty.pop_first()) else { break };
            out.push(k);
        }
        out
    }
}
