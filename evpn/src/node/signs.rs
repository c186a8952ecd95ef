//! Signs of life: what a frame said of a MAC that the forwarding table does not show there yet.
//!
//! A frame and the notification of its row reach us by two ways, in any order. Under load they may be far apart although they
//! happened together: then it counts what was known when, not how long we took to read it. A guest announces itself
//! a few times at most; whoever misses that has lost it.

use super::Node;
use super::frames::PATIENCE;
use crate::types::{IfIndex, Mac, Span, Time};
use std::collections::BTreeMap;

/// Signs kept at a time.
const SIGNS: usize = 8192;
/// Of these, for MACs that nobody knows: who makes them up must not crowd out those that move.
const STRANGERS: usize = SIGNS / 2;
/// Between two looks through a full table: not at every stranger's frame.
const SWEEP_EVERY: Span = Span::millis(5);
/// How long a frame may wait to be read, after the row that it caused has been put back (PIT-04). A new frame that
/// comes so late causes a row of its own, and says the same.
pub(super) const BACKLOG: Span = Span::millis(200);

/// The last frame of a MAC on a port where the table does not show it yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sign {
    pub(super) at: Time,
    pub(super) strong: bool,
    /// It answers a probe of ours.
    pub(super) answer: bool,
    /// It is a RARP: a hypervisor says for its guest that it is here now.
    pub(super) rarp: bool,
}

/// All of them.
#[derive(Debug)]
pub(super) struct Signs {
    of: BTreeMap<(IfIndex, Mac), Sign>,
    /// When old ones were last taken out of a full table.
    swept: Time,
    /// See [`Node::set_caught_up`].
    caught_up: Time,
}

impl Default for Signs {
    fn default() -> Self {
        Self { of: BTreeMap::new(), swept: Time(0), caught_up: Time(u64::MAX) }
    }
}

impl Signs {
    fn get(&self, port: IfIndex, mac: Mac, at: Time) -> Option<&Sign> {
        self.of.get(&(port, mac)).filter(|s| fresh(self.caught_up, s, at))
    }

    pub(super) fn remove(&mut self, spot: (IfIndex, Mac)) {
        self.of.remove(&spot);
    }

    pub(super) fn put(&mut self, spot: (IfIndex, Mac), known: bool, sign: Sign) {
        let room = if known { SIGNS } else { STRANGERS };
        if self.of.len() >= room && sign.at.since(self.swept) >= SWEEP_EVERY {
            let caught_up = self.caught_up;
            self.of.retain(|_, s| fresh(caught_up, s, sign.at));
            self.swept = sign.at;
        }
        if self.of.len() < room {
            self.of.insert(spot, sign);
        }
    }
}

/// A sign is old when the row that belongs to it should have been read by now. Rows that wait unread make it no older: the
/// table may have agreed long ago.
fn fresh(caught_up: Time, sign: &Sign, at: Time) -> bool {
    at.min(caught_up).since(sign.at) < PATIENCE
}

impl Node {
    /// Whether the kernel has more notifications than were read.
    pub fn set_behind(&mut self, behind: bool) {
        self.behind = behind;
    }

    /// All notifications that the kernel had at this time have been handled. Who never says so is never behind.
    pub fn set_caught_up(&mut self, at: Time) {
        self.signs.caught_up = at;
    }

    /// Until when all that the kernel had to say has been handled; not later than now.
    pub(super) fn caught_up(&self, at: Time) -> Time {
        at.min(self.signs.caught_up)
    }

    /// Whether a MAC has announced itself on this port, just now.
    pub(super) fn strong_sign(&self, port: IfIndex, mac: Mac, at: Time) -> bool {
        self.signs.get(port, mac, at).is_some_and(|s| s.strong)
    }

    /// Whether a MAC has just been announced on this port by its hypervisor.
    pub(super) fn announced_by_rarp(&self, port: IfIndex, mac: Mac, at: Time) -> bool {
        self.signs.get(port, mac, at).is_some_and(|s| s.rarp)
    }

    /// Whether a MAC has just answered a probe of ours on this port.
    pub(super) fn answered(&self, port: IfIndex, mac: Mac, at: Time) -> bool {
        self.signs.get(port, mac, at).is_some_and(|s| s.answer)
    }

    /// When the first sign of a MAC on this port was seen, and what it was.
    pub(super) fn first_sign(&self, port: IfIndex, mac: Mac, at: Time) -> (Time, &'static str) {
        self.signs.get(port, mac, at).map_or((at, "fdb"), |s| (s.at.min(at), "frame"))
    }
}
