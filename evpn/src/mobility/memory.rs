//! Sequences that outlive the routes that carried them (EVPN-MOB-05, EVPN-MOB-12).

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
    /// The MAC was released by its hypervisor, until this wall clock (PIT-04).
    pub released_until: Option<u64>,
}

/// What is known of one MAC.
#[derive(Clone, Copy, Debug)]
struct Entry {
    what: Remembered,
    /// Wall clock, see [`Record::released_until`].
    released_until: Option<u64>,
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
        let released_until = old.and_then(|o| o.released_until);
        self.put(mac, Entry { what, released_until, until: at + self.hold, kept }, at);
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

    /// The hypervisor released the MAC until this wall clock (seconds since 1970), or `None`: not any more (PIT-04).
    pub fn release(&mut self, mac: Mac, until: Option<u64>, at: Time) {
        let old = self.by_mac.get(&mac).copied();
        if old.and_then(|o| o.released_until) == until {
            return;
        }
        let first = Remembered { seq: Seq::ZERO, ours: true };
        let what = old.map_or(first, |o| o.what);
        self.unsaved.insert(mac);
        self.put(mac, Entry { what, released_until: until, until: at + self.hold, kept: true }, at);
    }

    /// What an earlier run kept. `age`: how long ago that was. Not to be kept again: it is there.
    pub fn restore(&mut self, r: &Record, age: Span, at: Time) {
        let hold = self.hold + Self::slack(self.hold);
        if age >= hold || self.by_mac.get(&r.mac).is_some_and(|e| !r.seq.newer_than(e.what.seq)) {
            return;
        }
        let what = Remembered { seq: r.seq, ours: r.ours };
        let until = at + Span(hold.0 - age.0).min(self.hold);
        self.put(r.mac, Entry { what, released_until: r.released_until, until, kept: true }, at);
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
        self.by_mac.get(&mac).and_then(|e| e.released_until)
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
            let (seq, ours, released_until) = (e.what.seq, e.what.ours, e.released_until);
            out.push(Record { vni, mac, seq, ours, unix, released_until });
        }
    }

    /// Something waits for [`Memory::take_unsaved`].
    pub fn has_unsaved(&self) -> bool {
        !self.unsaved.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Span = Span::secs(24 * 3600);
    const HOUR: Span = Span::secs(3600);

    fn vni() -> Vni {
        Vni::new(100).expect("valid")
    }

    fn mac(n: u32) -> Mac {
        let [a, b, c, d] = n.to_be_bytes();
        Mac([2, 0, a, b, c, d])
    }

    fn unsaved(m: &mut Memory, at: Time) -> Vec<Record> {
        let mut out = Vec::new();
        m.take_unsaved(vni(), at, Some(1_000_000 + at.0 / 1_000_000_000), &mut out);
        out
    }

    fn nobody(_: Mac) -> bool {
        false
    }

    /// Calls `tend` whenever it wants to be called, as the node does.
    fn tend_until(m: &mut Memory, end: Time, in_use: impl Fn(Mac) -> bool) -> u32 {
        let mut calls = 0;
        let mut at = Time(0);
        while let Some(due) = m.tend(at, &in_use)
            && due <= end
        {
            at = due.max(at);
            calls += 1;
            assert!(calls < 100_000, "it never comes to rest");
        }
        m.tend(end, &in_use);
        calls
    }

    /// EVPN-MOB-12
    #[test]
    fn the_highest_sequence_is_kept() {
        let mut m = Memory::new(DAY);
        m.note(mac(1), Seq(5), false, Time(1));
        m.note(mac(1), Seq(3), true, Time(2));
        assert_eq!(m.get(mac(1)), Some(Remembered { seq: Seq(5), ours: false }));
        m.note(mac(1), Seq(6), true, Time(3));
        assert_eq!(m.get(mac(1)), Some(Remembered { seq: Seq(6), ours: true }));
    }

    /// EVPN-MOB-09: after a wrap 0 is the higher one, and as worth keeping as any.
    #[test]
    fn the_highest_sequence_may_be_a_wrapped_one() {
        let mut m = Memory::new(DAY);
        m.note(mac(1), Seq(u32::MAX), false, Time(1));
        m.note(mac(1), Seq(0), true, Time(2));
        assert_eq!(m.get(mac(1)), Some(Remembered { seq: Seq(0), ours: true }));
        assert_eq!(unsaved(&mut m, Time(3))[0].seq, Seq(0));
    }

    #[test]
    fn it_is_bounded_and_forgets_the_oldest() {
        let mut m = Memory::new(DAY);
        for i in 0..=Memory::LIMIT as u32 {
            m.note(mac(i), Seq(1), true, Time(i as u64));
        }
        assert_eq!((m.len(), m.crowded_out()), (Memory::LIMIT, 1));
        assert_eq!(m.get(mac(0)), None);
        assert_eq!(m.order.len(), m.by_mac.len());
        assert_eq!(unsaved(&mut m, Time(0)).len(), Memory::LIMIT);
    }

    /// A peer that withdraws a full table must not make us forget what we have advertised ourselves.
    #[test]
    fn first_advertisements_of_others_do_not_crowd_out_ours() {
        let mut m = Memory::new(DAY);
        m.note(mac(1), Seq(9), true, Time(0));
        m.note(mac(2), Seq(9), false, Time(0));
        for i in 10..100_010 {
            m.note(mac(i), Seq(0), false, Time(i as u64));
        }
        assert_eq!(m.get(mac(1)), Some(Remembered { seq: Seq(9), ours: true }));
        assert_eq!(m.get(mac(2)), Some(Remembered { seq: Seq(9), ours: false }));
        for i in 10..100_010 {
            m.heard(mac(i), Seq(1), Time(200_000 + i as u64));
        }
        assert_eq!(m.get(mac(1)), Some(Remembered { seq: Seq(9), ours: true }));
        assert_eq!(m.get(mac(2)), None, "older than the others");
    }

    #[test]
    fn first_advertisements_are_not_worth_the_disk() {
        let mut m = Memory::new(DAY);
        for i in 0..100_000 {
            m.heard(mac(i), Seq(0), Time(1));
        }
        assert!(m.is_empty(), "and while they are advertised, nor the memory");
        m.note(mac(1), Seq(0), true, Time(1));
        assert!(m.is_empty());
        m.note(mac(1), Seq(0), false, Time(1));
        assert_eq!(m.len(), 1, "of another's that is gone we remember that it was there");
        assert!(!m.has_unsaved());
    }

    #[test]
    fn what_is_not_news_is_not_written_again() {
        let mut m = Memory::new(DAY);
        m.note(mac(1), Seq(5), true, Time(1));
        assert_eq!(unsaved(&mut m, Time(1)).len(), 1);
        m.note(mac(1), Seq(5), true, Time(2));
        m.note(mac(1), Seq(4), false, Time(3));
        m.heard(mac(1), Seq(4), Time(3));
        assert!(!m.has_unsaved());
        m.heard(mac(1), Seq(5), Time(4));
        let r = unsaved(&mut m, Time(4));
        assert!(!r[0].ours, "somebody else advertises the same: ours is not to be continued");
        m.heard(mac(1), Seq(7), Time(5));
        m.heard(mac(1), Seq(8), Time(5));
        assert_eq!(unsaved(&mut m, Time(5)).iter().map(|r| r.seq).collect::<Vec<_>>(), [Seq(8)]);
    }

    #[test]
    fn it_forgets_after_its_time_and_not_before() {
        let mut m = Memory::new(DAY);
        m.note(mac(1), Seq(5), false, Time(0));
        m.note(mac(2), Seq(0), false, Time(0) + HOUR);
        tend_until(&mut m, Time(0) + Span(DAY.0 - 1), nobody);
        assert_eq!(m.len(), 2);
        tend_until(&mut m, Time(0) + DAY, nobody);
        assert_eq!((m.get(mac(1)), m.len()), (None, 1));
        tend_until(&mut m, Time(0) + DAY + HOUR, nobody);
        assert!(m.is_empty());
        assert_eq!(m.tend(Time(0) + DAY + DAY, nobody), None, "an empty memory wants no attention");
    }

    #[test]
    fn what_is_advertised_is_never_forgotten_and_is_written_anew_now_and_then() {
        let mut m = Memory::new(DAY);
        m.note(mac(1), Seq(5), true, Time(0));
        m.note(mac(2), Seq(5), true, Time(0));
        unsaved(&mut m, Time(0));
        let end = Time(0) + Span(7 * DAY.0);
        let calls = tend_until(&mut m, end, |x| x == mac(1));
        assert!(calls <= 7 * 8 + 2, "looked at {calls} times in a week");
        assert_eq!(m.get(mac(2)), None);
        let r = unsaved(&mut m, end);
        assert_eq!((r.len(), r[0].seq), (1, Seq(5)));
        let age = 1_000_000 + end.0 / 1_000_000_000 - r[0].unix;
        assert!(age <= Memory::slack(DAY).0 / 1_000_000_000, "kept with an age of {age} s");
    }

    /// A restart neither prolongs nor shortens it: the age comes back.
    #[test]
    fn the_age_survives_a_restart() {
        let r = |n, seq| Record {
            vni: vni(),
            mac: mac(n),
            seq: Seq(seq),
            ours: true,
            unix: 1,
            released_until: (n == 3).then_some(77),
        };
        // Just booted: the boot clock is younger than the records.
        let boot = Time(1_000_000_000);
        let mut m = Memory::new(DAY);
        m.restore(&r(1, 5), Span(DAY.0 - HOUR.0), boot);
        m.restore(&r(2, 6), Span(2 * DAY.0), boot);
        m.restore(&r(3, 0), Span::ZERO, boot);
        m.restore(&r(3, 9), Span::ZERO, boot);
        m.restore(&r(3, 8), Span::ZERO, boot);
        assert_eq!(m.get(mac(1)), Some(Remembered { seq: Seq(5), ours: true }));
        assert_eq!(m.get(mac(2)), None, "outlived its time while no daemon ran");
        assert_eq!(m.get(mac(3)), Some(Remembered { seq: Seq(9), ours: true }), "the highest");
        assert_eq!(m.released_until(mac(3)), Some(77));
        assert!(!m.has_unsaved(), "what was kept is there");
        tend_until(&mut m, boot + HOUR, nobody);
        assert!(m.get(mac(1)).is_some());
        tend_until(&mut m, boot + HOUR + Memory::slack(DAY), nobody);
        assert!(m.get(mac(1)).is_none() && m.get(mac(3)).is_some());
    }

    #[test]
    fn everything_can_be_written_again_in_slices() {
        let mut m = Memory::new(DAY);
        for i in 0..1000 {
            m.note(mac(i), Seq(1), true, Time(0));
        }
        m.note(mac(2000), Seq(0), false, Time(0));
        unsaved(&mut m, Time(0));
        let later = Time(0) + HOUR;
        m.keep_all_again(later);
        let mut got = Vec::new();
        while m.tend(later, nobody) == Some(later) {
            let slice = unsaved(&mut m, later);
            assert!(slice.len() <= Memory::SLICE);
            got.extend(slice);
        }
        got.extend(unsaved(&mut m, later));
        assert_eq!(got.len(), 1000);
        assert!(got.iter().all(|r| r.unix == 1_000_000), "with the age that they have");
    }

    /// PIT-04: a release is kept with the sequence and goes with its own end, not with a new sequence.
    #[test]
    fn a_release_is_kept() {
        let mut m = Memory::new(DAY);
        m.release(mac(1), Some(99), Time(0));
        let r = unsaved(&mut m, Time(0));
        assert_eq!((r[0].seq, r[0].ours, r[0].released_until), (Seq(0), true, Some(99)));
        m.release(mac(1), Some(99), Time(1));
        assert!(!m.has_unsaved());
        m.heard(mac(1), Seq(3), Time(2));
        assert_eq!(unsaved(&mut m, Time(2))[0].released_until, Some(99));
        m.release(mac(1), None, Time(3));
        assert_eq!((m.released_until(mac(1)), unsaved(&mut m, Time(3))[0].released_until), (None, None));
    }
}
