//! The guest stands still for the last part of its migration, and nobody has heard yet where it will run: what arrives
//! here for it is held, and goes after it (PIT-26).
//!
//! Without this it ends in the tap queue of a guest that never reads it. The row of the MAC points to the *hold port*, a
//! tap of our own in the bridge ([`crate::fabric::Row::Local`] on that port), and the driver keeps what comes out of it:
//!
//! | who has the MAC | its row | what comes out of the hold port |
//! |---|---|---|
//! | this VTEP | on the hold port | is kept |
//! | another one, its row is acknowledged | [`crate::fabric::Row::Relayed`] | is sent on to it, first what was kept |
//! | the hold is over, the row elsewhere | as ever | goes back into the bridge, which knows where to |
//!
//! - It is relayed for as long as others may send here because they have not heard: a bridge never gives a frame back to
//!   the VXLAN port that it came in by (PIT-03).
//! - The row is a dynamic one: a guest that speaks at its port takes it back by itself, and that ends the hold.
//! - No route, sequence or owner changes. Broadcast is not held. A port that is isolated from others has no hold, because
//!   the hold port could not keep that up.
//! - The hold port lives as long as the daemon. It is made ahead, when a migration begins.

use super::prepare::Key;
use super::{Event, MoveReply, MoveRequest, Node, Output};
use crate::fabric::{Link, LinkKind, Row, RowKey, WriteResult};
use crate::hosts::Owner;
use crate::types::{IfIndex, Mac, Span, Time, Vni};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Guests held at a time; what arrives for more is lost as it was without this.
const LIMIT: usize = 256;
/// Until the kernel has acknowledged the last row; then the driver forgets the MAC in any case.
const LAST: Span = Span::secs(1);

/// How far a guest is on its way out of this host, as its hypervisor tells.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Leave {
    /// Its migration begins: what a hold needs is made ready.
    Begins,
    /// It has stopped: what arrives for it is held.
    Stopped,
    /// It goes on here.
    Stays,
}

/// What the driver does with frames for a MAC that come out of a hold port.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum HoldWord {
    /// Keep them.
    Keep,
    /// Send them out of this VXLAN device, those first that are kept.
    Relay(IfIndex),
    /// Put those that are kept back into the hold port, and what still comes; then forget the MAC.
    Return,
}

/// What became of the frames that were held for a MAC.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Held {
    /// Frames that were kept and then sent on or back.
    pub kept: u64,
    /// Frames that were sent on without being kept.
    pub relayed: u64,
    /// Frames that were not kept, because a limit was reached, or that the kernel did not take.
    pub dropped: u64,
}

/// One guest that stands still.
#[derive(Debug)]
struct Hold {
    /// The guest's port.
    from: IfIndex,
    port: IfIndex,
    until: Time,
    /// The kernel has the row that sends on.
    relayed: bool,
}

/// All of it.
#[derive(Debug, Default)]
pub(super) struct Holds {
    open: BTreeMap<Key, Hold>,
    /// Over, but the kernel has not acknowledged the row that ends it.
    ending: BTreeMap<Key, (IfIndex, Time)>,
    timers: BTreeSet<(Time, Key)>,
    ports: BTreeMap<Vni, IfIndex>,
    /// A hold port was asked for and is not there yet.
    asked: BTreeSet<Vni>,
    /// Guests that have stopped and wait for it.
    waiting: BTreeMap<Key, Time>,
}

impl Holds {
    pub(super) fn timeout(&self) -> Option<Time> {
        self.timers.first().map(|(t, _)| *t)
    }
}

impl Node {
    /// Name of the hold port of a VNI.
    pub fn hold_port_name(vni: Vni) -> String {
        format!("vtepd-h{vni}")
    }

    /// Whether a device is the hold port of a bridge of ours, and so nobody's access port.
    pub(super) fn is_hold_port(&self, l: &Link) -> bool {
        matches!(&l.kind, LinkKind::Other(kind) if kind == "tun")
            && l.master.and_then(|m| self.bridges.get(&m)).is_some_and(|v| {
                self.holds.ports.get(v) == Some(&l.index) || l.name == Self::hold_port_name(*v)
            })
    }

    /// The bridge of this hold port; `None` if it is no such port.
    pub(super) fn holds_bridge(&self, port: IfIndex) -> Option<IfIndex> {
        let vni = self.holds.ports.iter().find(|(_, p)| **p == port).map(|(v, _)| *v)?;
        self.segments.get(&vni).and_then(|s| s.bridge)
    }

    /// A step of a guest on its way out, as told by an adapter.
    pub(super) fn leave_move(
        &mut self,
        r: &MoveRequest,
        leave: Leave,
        at: Time,
    ) -> Result<MoveReply, super::prepare::No> {
        let nothing = || super::prepare::plain(None, r.mac, "nothing", Vec::new());
        let Some(vni) = self.vni_of_move(r)? else { return Ok(nothing()) };
        let key = (vni, r.mac);
        let done = match leave {
            Leave::Begins => self.ready_to_hold(key),
            Leave::Stopped => self.begin_hold(key, at),
            Leave::Stays => self.end_hold(key, at),
        };
        let state = match leave {
            _ if !done => return Ok(nothing()),
            Leave::Begins => "leaving",
            Leave::Stopped => "held",
            Leave::Stays => "here",
        };
        Ok(super::prepare::plain(Some(vni), r.mac, state, Vec::new()))
    }

    /// Has the hold port of a VNI made, if that makes sense for this MAC.
    fn ready_to_hold(&mut self, (vni, mac): Key) -> bool {
        let Some(seg) = self.segments.get(&vni).filter(|s| s.ready && !s.is_static(mac)) else {
            return false;
        };
        let (Some(bridge), false) = (seg.bridge, self.config.mobility.hold_time == Span::ZERO) else {
            return false;
        };
        if !self.holds.ports.contains_key(&vni) && self.holds.asked.insert(vni) {
            self.journal.push(Output::HoldPort { vni, bridge, name: Self::hold_port_name(vni) });
        }
        true
    }

    /// The guest has stopped: what arrives for it from now on is held. Whether it is, or will be.
    pub(super) fn begin_hold(&mut self, key: Key, at: Time) -> bool {
        let Some(Owner::Local(l)) = self.owner_now(key) else { return false };
        // A hold port is not isolated, and would carry frames to and from those that the guest must not hear.
        let fit = |p: &Link| p.port.is_none_or(|f| !f.isolated);
        if !self.links.get(&l.port).is_some_and(fit) || !self.ready_to_hold(key) {
            return false;
        }
        if self.holds.open.contains_key(&key) {
            return true;
        }
        if self.holds.open.len() + self.holds.waiting.len() >= LIMIT {
            self.journal.count("holds_refused");
            return false;
        }
        let until = at + self.config.mobility.hold_time;
        let Some(&port) = self.holds.ports.get(&key.0) else {
            self.holds.waiting.insert(key, until);
            self.holds.timers.insert((until, key));
            return true;
        };
        let Some(seg) = self.segments.get(&key.0) else { return false };
        let (Some(row), Some(vxlan)) = (seg.mac_key(key.1), seg.vxlan) else { return false };
        self.forget_ending(key);
        self.holds.open.insert(key, Hold { from: l.port, port, until, relayed: false });
        self.holds.timers.insert((until, key));
        self.journal.count("holds_begun");
        self.journal.push(Output::Hold { port, mac: key.1, word: HoldWord::Keep });
        self.want_set(row, Row::Local { vxlan, port: l.port }, true);
        true
    }

    /// The driver has made a hold port, or could not.
    pub(super) fn hold_port(&mut self, vni: Vni, made: Result<IfIndex, String>, at: Time) {
        if !self.holds.asked.remove(&vni) {
            return;
        }
        let waiting: Vec<Key> = self.holds.waiting.keys().filter(|k| k.0 == vni).copied().collect();
        match made {
            Ok(port) => {
                self.holds.ports.insert(vni, port);
            }
            Err(problem) => {
                self.journal.count("hold_ports_failed");
                let device = Self::hold_port_name(vni);
                self.journal.event(Event::DeviceProblem { device, problem, index: None }, at);
            }
        }
        for key in waiting {
            let until = self.holds.waiting.remove(&key).unwrap_or(at);
            self.holds.timers.remove(&(until, key));
            if self.holds.ports.contains_key(&vni) && at < until {
                self.begin_hold(key, at);
            }
        }
    }

    /// A wish as it is while the MAC is held.
    pub(super) fn held_row(&self, key: &RowKey, row: Row) -> Row {
        let RowKey::Mac { bridge, mac } = *key else { return row };
        if self.holds.open.is_empty() {
            return row;
        }
        let hold = self.bridges.get(&bridge).and_then(|v| self.holds.open.get(&(*v, mac)));
        match (row, hold) {
            (Row::Local { vxlan, port }, Some(h)) if port == h.from => Row::Local { vxlan, port: h.port },
            (Row::Remote { vxlan, vtep, .. }, Some(h)) => Row::Relayed { vxlan, vtep, port: h.port },
            _ => row,
        }
    }

    /// The row of this key stays, although nobody has the MAC: somebody will, or the time runs out.
    pub(super) fn row_is_held(&self, key: &RowKey) -> bool {
        let RowKey::Mac { bridge, mac } = *key else { return false };
        !self.holds.open.is_empty()
            && self.bridges.get(&bridge).is_some_and(|v| self.holds.open.contains_key(&(*v, mac)))
    }

    /// The row that was to end a hold is wanted no more: the hold port has to lose the MAC all the same.
    pub(super) fn clear_hold_port(&mut self, key: &RowKey) {
        let RowKey::Mac { bridge, mac } = *key else { return };
        let ending = self.bridges.get(&bridge).and_then(|v| self.holds.ending.get(&(*v, mac)));
        if let Some((port, _)) = ending {
            self.prepare.cleared.insert(*key, *port);
        }
    }

    /// A row was written, or not: the moment to send on what is held.
    pub(super) fn hold_written(&mut self, row: &RowKey, result: &WriteResult, at: Time) {
        if self.holds.open.is_empty() && self.holds.ending.is_empty() {
            return;
        }
        let RowKey::Mac { bridge, mac } = *row else { return };
        let Some(key) = self.bridges.get(&bridge).map(|v| (*v, mac)) else { return };
        // An answer to an older wish says nothing of this one.
        if self.want.is_dirty(row) {
            return;
        }
        let failed = matches!(result, WriteResult::Failed { .. });
        if let Some(h) = self.holds.open.get_mut(&key) {
            if failed {
                // Somebody's static row is in the way, or the port is gone.
                self.journal.count("holds_failed");
                self.end_hold(key, at);
            } else if let Some(Row::Relayed { vxlan, .. }) = self.want.get(row).copied()
                && !std::mem::replace(&mut h.relayed, true)
            {
                let until = at + self.config.mobility.hold_time;
                self.holds.timers.remove(&(h.until, key));
                self.holds.timers.insert((until, key));
                h.until = until;
                let port = h.port;
                self.journal.push(Output::Hold { port, mac, word: HoldWord::Relay(vxlan) });
            }
        } else if !failed && self.holds.ending.contains_key(&key) {
            self.hand_back(key);
        }
    }

    /// The last row is there, or never will be.
    fn hand_back(&mut self, key: Key) {
        if let Some((port, until)) = self.holds.ending.remove(&key) {
            self.holds.timers.remove(&(until, key));
            self.journal.push(Output::Hold { port, mac: key.1, word: HoldWord::Return });
        }
    }

    fn forget_ending(&mut self, key: Key) {
        if let Some((_, until)) = self.holds.ending.remove(&key) {
            self.holds.timers.remove(&(until, key));
        }
    }

    /// The row goes where the MAC is; what is held follows when the kernel has it. Whether it had been held.
    pub(super) fn end_hold(&mut self, key: Key, at: Time) -> bool {
        if let Some(until) = self.holds.waiting.remove(&key) {
            self.holds.timers.remove(&(until, key));
            return true;
        }
        let Some(h) = self.holds.open.remove(&key) else { return false };
        self.holds.timers.remove(&(h.until, key));
        let (vni, mac) = key;
        let until = at + LAST;
        self.holds.ending.insert(key, (h.port, until));
        self.holds.timers.insert((until, key));
        let Some(seg) = self.segments.get(&vni) else { return true };
        let (Some(row), Some(vxlan)) = (seg.mac_key(mac), seg.vxlan) else { return true };
        let wish = match self.owner_now(key) {
            Some(Owner::Local(l)) => Some(Row::Local { vxlan, port: l.port }),
            Some(Owner::Remote(m)) => seg.remote_row(m.claim.vtep, m.claim.sticky),
            None => {
                self.prepare.cleared.insert(row, h.port);
                Some(Row::Cleared { port: h.port })
            }
        };
        if let Some(wish) = wish {
            self.want_set(row, wish, true);
        }
        // Even if the wish is what it was, the answer to this mark sends on what is held.
        self.want.mark(row, true);
        true
    }

    /// The guest is not leaving after all, as far as we are told. What is already relayed goes on being so.
    pub(super) fn end_hold_here(&mut self, key: Key, at: Time) {
        if self.holds.open.get(&key).is_some_and(|h| !h.relayed)
            && !matches!(self.owner_now(key), Some(Owner::Remote(_)))
        {
            self.end_hold(key, at);
        }
    }

    /// The forwarding table shows a MAC on an access port: a guest that is held there speaks.
    pub(super) fn held_guest_seen(&mut self, key: Key, at: Time) {
        if self.holds.open.contains_key(&key) && matches!(self.owner_now(key), Some(Owner::Local(_))) {
            self.journal.count("holds_ended_by_guest");
            self.end_hold(key, at);
        }
    }

    pub(super) fn due_holds(&mut self, at: Time) {
        while let Some(&(t, key)) = self.holds.timers.first() {
            if t > at {
                break;
            }
            self.holds.timers.pop_first();
            if self.holds.ending.get(&key).is_some_and(|(_, until)| *until == t) {
                self.hand_back(key);
                continue;
            }
            if self.holds.open.get(&key).is_some_and(|h| !h.relayed) || self.holds.waiting.contains_key(&key)
            {
                self.journal.count("holds_timed_out");
            }
            self.end_hold(key, at);
        }
    }

    /// A device is gone, or no port of the bridge any more. If it is a hold port, what it held is lost.
    pub(super) fn hold_port_gone(&mut self, index: IfIndex, at: Time) {
        let Some(vni) = self.holds.ports.iter().find(|(_, p)| **p == index).map(|(v, _)| *v) else { return };
        self.holds.ports.remove(&vni);
        self.journal.push(Output::HoldPortGone { vni });
        let open: Vec<Key> =
            self.holds.open.iter().filter(|(_, h)| h.port == index).map(|(k, _)| *k).collect();
        for key in open {
            self.end_hold(key, at);
        }
    }

    /// The bridge of a VNI is another one, or none: the hold port went with it.
    pub(super) fn hold_bridge_gone(&mut self, vni: Vni, at: Time) {
        self.holds.asked.remove(&vni);
        if let Some(&port) = self.holds.ports.get(&vni) {
            self.hold_port_gone(port, at);
        }
    }

    /// What became of the frames of a MAC.
    pub(super) fn held(&mut self, port: IfIndex, mac: Mac, held: Held, at: Time) {
        self.journal.add("frames_held", held.kept);
        self.journal.add("frames_relayed", held.relayed);
        self.journal.add("held_frames_dropped", held.dropped);
        let vni = self.holds.ports.iter().find(|(_, p)| **p == port).map(|(v, _)| *v);
        if let Some(vni) = vni.filter(|_| held != Held::default()) {
            let Held { kept, relayed, dropped } = held;
            self.journal.event(Event::FramesHeld { vni, mac, kept, relayed, dropped }, at);
        }
    }
}
