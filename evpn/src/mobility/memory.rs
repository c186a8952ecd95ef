//! Sequences that outlive the routes that carried them (EVPN-MOB-05, EVPN-MOB-12).

use super::PortMark;
use crate::types::{Mac, Seq, Span, Time, Vni};
use core::ops::Bound;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// What is remembered of a MAC.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Remembered {
    /// Highest sequence seen.
    pub seq: Seq,
    /// It was our own advertisement.
    pub ours: bool,
}

/// A release as it is kept (PIT-04).
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Released {
    /// Wall clock of its end, seconds since 1970.
    pub until: u64,
    /// The port that the guest leaves, if it is known.
    pub port: Option<PortMark>,
}

/// A line of the state directory: what must survive a restart of the daemon.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// VNI.
    pub vni: Vni,
    /// MAC.
    pub mac: Mac,
    /// Highest sequence seen or advertised.
    pub seq: Seq,
    /// It was our own advertisement.
    pub ours: bool,
    /// Wall clock, seconds since 1970, because the boot clock does not survive a boot; 0 when unknown.
    pub unix: u64,
    /// The MAC was released by its hypervisor (PIT-04).
    pub released: Option<Released>,
}

/// What is known of one MAC.
#[derive(Clone, Copy, Debug)]
struct Entry {
    what: Remembered,
    released: Option<Released>,
    /// When it is forgotten, unless somebody still advertises it.
    until: Time,
    /// The state directory has this MAC, or is about to.
    kept: bool,
}

impl Entry {
    /// What goes first when there is no room: first advertisements of others, then others', then ours.
    fn rank(&self) -> u8 {
        u8::from(self.kept) + u8::from(self.kept && self.what.ours)
    }
}

/// A walk over all entries, a slice at a time.
#[derive(Clone, Copy, Debug)]
struct Walk {
    after: Option<Mac>,
    /// Every entry is to be written again, not only those that somebody advertises.
    all: bool,
}

/// Bounded memory of one VNI; when it is full, what is worth least goes first, of equals the oldest.
#[derive(Clone, Debug)]
pub struct Memory {
    hold: Span,
    by_mac: BTreeMap<Mac, Entry>,
    /// By rank, then by age.
    order: BTreeSet<(u8, Time, Mac)>,
    /// What the state directory does not have yet.
    unsaved: BTreeSet<Mac>,
    walk: Option<Walk>,
    next_walk: Option<Time>,
    /// When [`Memory::tend`] has something to do; never later than that.
    due: Option<Time>,
    crowded_out: u64,
}

impl Memory {
    /// Most MACs remembered per VNI.
    pub const LIMIT: usize = 65_536;
    /// Entries looked at per call of [`Memory::tend`].
    const SLICE: usize = 256;
    /// Shortest memory, and shortest time between two walks.
    const LEAST: Span = Span::secs(1);

    /// `hold`: how long a sequence is remembered after the last route that carried it is gone.
    pub fn new(hold: Span) -> Self {
        Self {
            hold: hold.max(Self::LEAST),
            by_mac: BTreeMap::new(),
            order: BTreeSet::new(),
            unsaved: BTreeSet::new(),
            walk: None,
            next_walk: None,
            due: None,
            crowded_out: 0,
        }
    }

    /// How much older than `hold` a kept record may look: entries in use are written anew once in this time.
    pub const fn slack(hold: Span) -> Span {
        hold.scaled(1, 8)
    }

    /// Remember `seq`, unless something newer is remembered. A first advertisement (sequence 0) of ours is
    /// worth no memory, and one of a peer's is not worth the disk.
    pub fn note(&mut self, mac: Mac, seq: Seq, ours: bool, at: Time) {
        let old = self.by_mac.get(&mac).copied();
        let what = match old.map(|o| o.what) {
            Some(o) if o.seq.newer_than(seq) => o,
            Some(o) if o.seq == seq => Remembered { seq, ours: ours && o.ours },
            None if ours && seq == Seq::ZERO => return,
            // After a wrap 0 is higher than what is remembered (EVPN-MOB-09).
            Some(_) | None => Remembered { seq, ours },
        };
        let kept = seq != Seq::ZERO || old.is_some_and(|o| o.kept);
        if kept && old.is_none_or(|o| o.what != what) {
            self.unsaved.insert(mac);
        }
        let released = old.and_then(|o| o.released);
        self.put(mac, Entry { what, released, until: at + self.hold, kept }, at);
    }

    /// A peer advertises `seq`. Unlike [`Memory::note`] for those that are gone, a first advertisement leaves no trace.
    pub fn heard(&mut self, mac: Mac, seq: Seq, at: Time) {
        match self.by_mac.get(&mac) {
            None if seq == Seq::ZERO => {}
            // Nothing news: its age is looked after while it is advertised.
            Some(e) if e.what.seq.newer_than(seq) => {}
            Some(e) if e.what == (Remembered { seq, ours: false }) => {}
            Some(_) | None => self.note(mac, seq, false, at),
        }
    }

    /// The hypervisor released the MAC, or `None`: not any more (PIT-04).
    pub fn release(&mut self, mac: Mac, released: Option<Released>, at: Time) {
        let old = self.by_mac.get(&mac).copied();
        if old.and_then(|o| o.released) == released {
            return;
        }
        let first = Remembered { seq: Seq::ZERO, ours: true };
        let what = old.map_or(first, |o| o.what);
        self.unsaved.insert(mac);
        self.put(mac, Entry { what, released, until: at + self.hold, kept: true }, at);
    }

    /// What an earlier run kept. `age`: how long ago that was. Not to be kept again: it is there.
    pub fn restore(&mut self, r: &Record, age: Span, at: Time) {
        let hold = self.hold + Self::slack(self.hold);
        if age >= hold || self.by_mac.get(&r.mac).is_some_and(|e| !r.seq.newer_than(e.what.seq)) {
            return;
        }
        let what = Remembered { seq: r.seq, ours: r.ours };
        let until = at + Span(hold.0 - age.0).min(self.hold);
        self.put(r.mac, Entry { what, released: r.released, until, kept: true }, at);
    }

    fn put(&mut self, mac: Mac, entry: Entry, at: Time) {
        if let Some(old) = self.by_mac.insert(mac, entry) {
            self.order.remove(&(old.rank(), old.until, mac));
        }
        self.order.insert((entry.rank(), entry.until, mac));
        let walk = *self.next_walk.get_or_insert(at + Self::slack(self.hold).max(Self::LEAST));
        self.due = Some(self.due.map_or(entry.until, |d| d.min(entry.until)).min(walk));
        while self.by_mac.len() > Self::LIMIT {
            let Some((_, _, old)) = self.order.pop_first() else { break };
            self.by_mac.remove(&old);
            self.unsaved.remove(&old);
            self.crowded_out += 1;
        }
    }

    /// What is remembered of this MAC.
    pub fn get(&self, mac: Mac) -> Option<Remembered> {
        self.by_mac.get(&mac).map(|e| e.what)
    }

    /// Until which wall clock the MAC is released.
    pub fn released_until(&self, mac: Mac) -> Option<u64> {
        self.by_mac.get(&mac).and_then(|e| e.released).map(|r| r.until)
    }

    /// Number of MACs remembered.
    pub fn len(&self) -> usize {
        self.by_mac.len()
    }

    /// Nothing is remembered.
    pub fn is_empty(&self) -> bool {
        self.by_mac.is_empty()
    }

    /// Sequences forgotten for want of room.
    pub fn crowded_out(&self) -> u64 {
        self.crowded_out
    }

    /// Everything is written again, a slice at a time: the wall clock was set, and the kept ages are wrong.
    pub fn keep_all_again(&mut self, at: Time) {
        if !self.by_mac.is_empty() {
            self.walk = Some(Walk { after: None, all: true });
            self.next_walk = Some(at);
            self.due = Some(at);
        }
    }

    /// Looks after ages, at most a slice at a time: what is `in_use` is as good as new, what has outlived its time
    /// goes. Returns when to come back.
    pub fn tend(&mut self, at: Time, in_use: impl Fn(Mac) -> bool) -> Option<Time> {
        if self.due.is_none_or(|due| due > at) {
            return self.due;
        }
        self.expire(at, &in_use);
        if self.walk.is_some() || self.next_walk.is_some_and(|t| t <= at) {
            self.walk_on(at, &in_use);
        }
        let over = (0..=2).filter_map(|rank| self.oldest(rank).map(|(until, _)| until));
        self.due = over.chain(self.next_walk).min();
        self.due
    }

    fn oldest(&self, rank: u8) -> Option<(Time, Mac)> {
        let from = (rank, Time(0), Mac([0; 6]));
        self.order.range(from..).next().filter(|(r, _, _)| *r == rank).map(|(_, t, m)| (*t, *m))
    }

    fn expire(&mut self, at: Time, in_use: &impl Fn(Mac) -> bool) {
        let mut left = Self::SLICE;
        for rank in 0..=2 {
            while let Some((until, mac)) = self.oldest(rank)
                && until <= at
                && left > 0
            {
                left -= 1;
                if in_use(mac) {
                    self.renew(mac, at);
                } else {
                    self.order.remove(&(rank, until, mac));
                    self.by_mac.remove(&mac);
                    self.unsaved.remove(&mac);
                }
            }
        }
    }

    fn renew(&mut self, mac: Mac, at: Time) {
        let Some(&e) = self.by_mac.get(&mac) else { return };
        if e.kept {
            self.unsaved.insert(mac);
        }
        self.put(mac, Entry { until: at + self.hold, ..e }, at);
    }

    fn walk_on(&mut self, at: Time, in_use: &impl Fn(Mac) -> bool) {
        let walk = self.walk.unwrap_or(Walk { after: None, all: false });
        let from = walk.after.map_or(Bound::Unbounded, Bound::Excluded);
        let slice: Vec<Mac> =
            self.by_mac.range((from, Bound::Unbounded)).take(Self::SLICE).map(|(m, _)| *m).collect();
        let more = slice.len() == Self::SLICE;
        let last = slice.last().copied();
        for mac in slice {
            if in_use(mac) {
                self.renew(mac, at);
            } else if walk.all && self.by_mac.get(&mac).is_some_and(|e| e.kept) {
                self.unsaved.insert(mac);
            }
        }
        self.walk = more.then_some(Walk { after: last, all: walk.all });
        let rest = (!self.by_mac.is_empty()).then(|| at + Self::slack(self.hold).max(Self::LEAST));
        self.next_walk = if more { Some(at) } else { rest };
    }

    /// Takes what the state directory does not have yet. `wall`: the wall clock at `at`, if known.
    pub fn take_unsaved(&mut self, vni: Vni, at: Time, wall: Option<u64>, out: &mut Vec<Record>) {
        for mac in std::mem::take(&mut self.unsaved) {
            let Some(e) = self.by_mac.get(&mac) else { continue };
            let age = Span(self.hold.0.saturating_sub(e.until.since(at).0));
            let unix = wall.map_or(0, |w| w.saturating_sub(age.0 / 1_000_000_000).max(1));
            let (seq, ours, released) = (e.what.seq, e.what.ours, e.released);
            out.push(Record { vni, mac, seq, ours, unix, released });
        }
    }

    /// Something waits for [`Memory::take_unsaved`].
    pub fn has_unsaved(&self) -> bool {
        !self.unsaved.is_empty()
    }
}

#[cfg(test)]
mod tests;
