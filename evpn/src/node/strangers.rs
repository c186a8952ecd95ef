//! MACs that nobody knows, a fair share of them at a time.
//!
//! A port that makes MACs up tells tens of thousands a second, and each costs ten times what it costs to notice that it
//! is a new one: a route, a sequence, an UPDATE for each peer, a row at each of them. So what is new in a turn is taken in
//! up to a [`SHARE`], and of a port no more than [`AT_ONCE`] and then one per [`EACH`]; the rest waits, as if its row had
//! not been read yet. A MAC that is known and moves never waits: it stands behind no more than one share, here and at every
//! peer, and the processors are there for it.
//!
//! What waits is bounded by the limits of its port and its VNI. A port of which so much waits is making MACs up, and is
//! guarded before it has filled its limit.

use super::{Node, Output};
use crate::types::{IfIndex, Mac, Span, Time, Vni};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// New MACs taken in per flush. Under a ms of work.
const SHARE: usize = 128;
/// New MACs of a port that are taken in as fast as shares allow: the guests of a host that boots.
const AT_ONCE: u64 = 4096;
/// After that, one in this time.
const EACH: Span = Span::micros(50);
/// Most that wait, of all ports. Further ones are asked for when there is room again.
const LIMIT: usize = 131_072;
/// That so many wait of one port is no sign of a flood: racks are that large.
const RACK: usize = 16_384;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Strangers {
    /// Where each MAC waits, and its turn.
    at: BTreeMap<(Vni, Mac), (IfIndex, u64)>,
    /// In the order of their coming; also of those that have left since.
    queues: BTreeMap<IfIndex, VecDeque<(Vni, Mac, u64)>>,
    count: BTreeMap<IfIndex, usize>,
    vnis: BTreeMap<Vni, usize>,
    next: u64,
    /// Taken in since the last flush.
    taken: usize,
    /// One of those that waited is taken in.
    turn: bool,
    /// Per port: when all that was taken in would have been at one per [`EACH`].
    spent: BTreeMap<IfIndex, Time>,
    /// The port that had the last turn.
    last: Option<IfIndex>,
    /// VNIs of which something did not even find a place to wait.
    missed: BTreeSet<Vni>,
}

impl Strangers {
    /// Something waits.
    pub(super) fn any(&self) -> bool {
        !self.at.is_empty()
    }

    /// How many MACs of a port wait.
    pub(super) fn on_port(&self, port: IfIndex) -> usize {
        self.count.get(&port).copied().unwrap_or(0)
    }

    /// How many MACs of a VNI wait.
    pub(super) fn of_vni(&self, vni: Vni) -> usize {
        self.vnis.get(&vni).copied().unwrap_or(0)
    }

    /// How many MACs wait.
    pub(super) fn len(&self) -> usize {
        self.at.len()
    }

    /// Whether a MAC waits on this port.
    pub(super) fn waits(&self, vni: Vni, mac: Mac, port: IfIndex) -> bool {
        self.at.get(&(vni, mac)).is_some_and(|(p, _)| *p == port)
    }

    /// One that waits is not there any more, or not there.
    pub(super) fn remove(&mut self, vni: Vni, mac: Mac) {
        let Some((port, _)) = self.at.remove(&(vni, mac)) else { return };
        self.left(vni, port);
    }

    fn left(&mut self, vni: Vni, port: IfIndex) {
        if let Some(n) = self.vnis.get_mut(&vni) {
            *n -= 1;
        }
        let Some(n) = self.count.get_mut(&port) else { return };
        *n -= 1;
        if *n == 0 {
            self.count.remove(&port);
            self.queues.remove(&port);
        }
    }

    fn put(&mut self, vni: Vni, mac: Mac, port: IfIndex) {
        self.next += 1;
        if let Some((was, _)) = self.at.insert((vni, mac), (port, self.next)) {
            self.left(vni, was);
        }
        *self.vnis.entry(vni).or_default() += 1;
        *self.count.entry(port).or_default() += 1;
        let most = 2 * self.on_port(port).max(SHARE);
        let queue = self.queues.entry(port).or_default();
        queue.push_back((vni, mac, self.next));
        // Turns of those that came and went again are swept out when they are the most.
        if queue.len() > most {
            let at = &self.at;
            queue.retain(|(v, m, n)| at.get(&(*v, *m)).is_some_and(|(_, turn)| turn == n));
        }
    }

    /// When a port may have the next one taken in.
    fn next_of(&self, port: IfIndex) -> Time {
        let most = Span(EACH.0 * AT_ONCE);
        self.spent.get(&port).map_or(Time(0), |t| Time(t.0.saturating_sub(most.0)))
    }

    /// One of this port is taken in.
    fn spend(&mut self, port: IfIndex, at: Time) {
        self.taken += 1;
        let spent = self.spent.entry(port).or_insert(at);
        *spent = (*spent).max(at) + EACH;
    }

    /// The next one, of the ports in turn.
    fn pop(&mut self, at: Time) -> Option<(Vni, Mac, IfIndex)> {
        let ready = |(port, _): &(&IfIndex, &VecDeque<_>)| self.next_of(**port) <= at;
        let first = self.last.map_or(IfIndex(0), |l| IfIndex(l.0.saturating_add(1)));
        let after = self.queues.range(first..).find(ready);
        let (&port, _) = after.or_else(|| self.queues.iter().find(ready))?;
        self.last = Some(port);
        while let Some((vni, mac, turn)) = self.queues.get_mut(&port).and_then(VecDeque::pop_front) {
            if self.at.get(&(vni, mac)).is_some_and(|(_, n)| *n == turn) {
                self.remove(vni, mac);
                return Some((vni, mac, port));
            }
        }
        None
    }
}

impl Node {
    /// The forwarding table shows a MAC that nobody knows on a port of ours. Whether it is taken in now; it waits else,
    /// or finds no place.
    pub(super) fn is_its_turn(&mut self, vni: Vni, mac: Mac, port: IfIndex, at: Time) -> bool {
        // What the first read shows is not new, and all of it is to be known when it is over.
        if !self.synced || self.strangers.turn {
            return self.has_place(vni, port, at);
        }
        if self.strangers.waits(vni, mac, port) {
            return false;
        }
        self.strangers.remove(vni, mac);
        if !self.has_place(vni, port, at) {
            return false;
        }
        let s = &mut self.strangers;
        if s.taken < SHARE && s.on_port(port) == 0 && s.next_of(port) <= at {
            s.spend(port, at);
            return true;
        }
        if self.strangers.len() >= LIMIT {
            self.journal.count("strangers_missed");
            self.strangers.missed.insert(vni);
            return false;
        }
        self.journal.count("strangers_waited");
        self.strangers.put(vni, mac, port);
        let limit = self.segments.get(&vni).map_or(0, |s| s.config.mobility.port_mac_limit as usize);
        if limit > 0 && self.strangers.on_port(port) > (limit / 2).max(RACK) {
            self.makes_up(vni, port, at);
        }
        false
    }

    fn take_in(&mut self, vni: Vni, mac: Mac, port: IfIndex, at: Time) {
        if self.taps.get(&port) == Some(&vni) {
            self.strangers.turn = true;
            self.local_seen(vni, mac, port, at);
            self.strangers.turn = false;
        }
    }

    /// Something is to be decided about this MAC: its row came first.
    pub(super) fn no_stranger(&mut self, vni: Vni, mac: Mac, at: Time) {
        if let Some((port, _)) = self.strangers.at.get(&(vni, mac)).copied() {
            self.strangers.remove(vni, mac);
            self.take_in(vni, mac, port, at);
        }
    }

    /// When those that wait have their turn.
    pub(super) fn strangers_due(&self) -> Option<(Time, &'static str)> {
        self.strangers.queues.keys().map(|p| self.strangers.next_of(*p)).min().map(|t| (t, "new MACs"))
    }

    /// Some of those that wait.
    pub(super) fn due_strangers(&mut self, at: Time) {
        self.strangers.taken = 0;
        while self.strangers.taken < SHARE
            && let Some((vni, mac, port)) = self.strangers.pop(at)
        {
            self.strangers.spend(port, at);
            self.take_in(vni, mac, port, at);
        }
        if !self.strangers.any() {
            self.strangers.spent.retain(|_, t| *t > at);
            for vni in std::mem::take(&mut self.strangers.missed) {
                if let Some(bridge) = self.segments.get(&vni).and_then(|s| s.bridge) {
                    self.journal.push(Output::Recall(bridge));
                }
            }
        }
    }
}
