//! When which binding is to be confirmed: a calendar of seconds with so many places each.
//!
//! Whoever was heard at the same moment (a switch came back, a rack moved) would be due at the same moment; a second that
//! is full sends them to an earlier one, so that all are asked in time and never more than so many in a second.
//! Deterministic: no dice, only a hash of the address.

use crate::types::{Span, Time, Vni};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;

/// What is to be confirmed.
pub type Slot = (Vni, IpAddr);

const SECOND: u64 = 1_000_000_000;

/// Where an entry stands.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Entry {
    place: Place,
    /// Questions since the last answer.
    pub asked: u8,
    /// When the first of these was put; without any, when the entry was made.
    pub since: Time,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Place {
    Second(u64),
    Later(Time),
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Calendar {
    /// Places of a second.
    rate: usize,
    seconds: BTreeMap<u64, VecDeque<Slot>>,
    entries: BTreeMap<Slot, Entry>,
    /// Those that were asked, or could not be; they take nobody's place.
    later: BTreeSet<(Time, Slot)>,
    /// Seconds that were full, as runs without a gap: first and last.
    full: BTreeMap<u64, u64>,
    /// Earliest time of the next question.
    next: Time,
}

impl Calendar {
    /// With so many places a second, at least one.
    pub fn new(rate: u32) -> Self {
        Self {
            rate: rate.max(1) as usize,
            seconds: BTreeMap::new(),
            entries: BTreeMap::new(),
            later: BTreeSet::new(),
            full: BTreeMap::new(),
            next: Time(0),
        }
    }

    /// How many are in it.
    pub fn len(&self) -> usize {
        self.entries.len()
    }
    /// Nobody is in it.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
    /// Whether this one is in it.
    pub fn has(&self, slot: Slot) -> bool {
        self.entries.contains_key(&slot)
    }

    /// When this one is asked next, at the earliest, and how often it has been asked since its last answer.
    pub fn when(&self, slot: Slot) -> Option<(Time, u8)> {
        self.entries.get(&slot).map(|e| match e.place {
            Place::Second(s) => (Time(s * SECOND), e.asked),
            Place::Later(t) => (t, e.asked),
        })
    }

    /// Puts one in, or moves one that has been taken out by [`Calendar::due`]: as late as there is room, but not after `latest`.
    /// False, and nothing has changed, if every second until then is full.
    pub fn before(&mut self, slot: Slot, latest: Time, now: Time) -> bool {
        let first = now.0 / SECOND + 1;
        let last = (latest.0 / SECOND).max(first);
        let second = match self.run_of(last) {
            None => last,
            Some((from, _)) if from > first => from - 1,
            Some(_) => return false,
        };
        self.put(slot, second, now);
        true
    }

    /// As [`Calendar::before`], or as early after it as there is room.
    pub fn around(&mut self, slot: Slot, time: Time, now: Time) {
        if !self.before(slot, time, now) {
            let last = (time.0 / SECOND).max(now.0 / SECOND + 1);
            let second = self.run_of(last).map_or(last, |(_, to)| to + 1);
            self.put(slot, second, now);
        }
    }

    /// Puts one in again that was asked (so often, since then) or could not be.
    pub fn after(&mut self, slot: Slot, earliest: Time, asked: u8, since: Time) {
        let old = self.entries.insert(slot, Entry { place: Place::Later(earliest), asked, since });
        if let Some(Entry { place: Place::Later(t), .. }) = old {
            self.later.remove(&(t, slot));
        }
        self.later.insert((earliest, slot));
    }

    /// The next one whose time has come, taken out of its place. It is to be put in again, or forgotten.
    pub fn due(&mut self, now: Time) -> Option<(Slot, Entry)> {
        if now < self.next {
            return None;
        }
        if let Some((t, slot)) = self.later.first().copied().filter(|(t, _)| *t <= now) {
            self.later.remove(&(t, slot));
            return self.entries.get(&slot).map(|e| (slot, *e));
        }
        loop {
            let mut e = self.seconds.first_entry().filter(|e| e.key() * SECOND <= now.0)?;
            let second = *e.key();
            let slot = e.get_mut().pop_front();
            if e.get().is_empty() {
                e.remove();
                self.passed(second);
            }
            // Those that were put in again elsewhere have left a place behind.
            if let Some(slot) = slot
                && let Some(entry) = self.entries.get(&slot).filter(|e| e.place == Place::Second(second))
            {
                return Some((slot, *entry));
            }
        }
    }

    /// A question was put: the next one is a while later. Whoever looks rarely may make up for a few.
    pub fn asked(&mut self, now: Time) {
        let gap = SECOND / self.rate as u64;
        self.next = Time(self.next.0.max(now.0.saturating_sub(4 * gap)) + gap);
    }

    /// It needs no confirmation any more.
    pub fn forget(&mut self, slot: Slot) {
        if let Some(Entry { place: Place::Later(t), .. }) = self.entries.remove(&slot) {
            self.later.remove(&(t, slot));
        }
    }

    /// When [`Calendar::due`] may have something.
    pub fn timeout(&self) -> Option<Time> {
        let second = self.seconds.first_key_value().map(|(s, _)| Time(s * SECOND));
        let later = self.later.first().map(|(t, _)| *t);
        second.into_iter().chain(later).min().map(|t| t.max(self.next))
    }

    fn put(&mut self, slot: Slot, second: u64, now: Time) {
        self.forget(slot);
        self.entries.insert(slot, Entry { place: Place::Second(second), asked: 0, since: now });
        let places = self.seconds.entry(second).or_default();
        places.push_back(slot);
        if places.len() >= self.rate {
            self.filled(second);
        }
    }

    /// The run of full seconds that this one is in.
    fn run_of(&self, second: u64) -> Option<(u64, u64)> {
        let (from, to) = self.full.range(..=second).next_back()?;
        (second <= *to).then_some((*from, *to))
    }

    fn filled(&mut self, second: u64) {
        if self.run_of(second).is_some() {
            return;
        }
        let (mut from, mut to) = (second, second);
        if let Some((f, _)) = second.checked_sub(1).and_then(|s| self.run_of(s)) {
            from = f;
        }
        if let Some(t) = self.full.remove(&(second + 1)) {
            to = t;
        }
        self.full.insert(from, to);
    }

    /// Nothing is put there any more.
    fn passed(&mut self, second: u64) {
        while let Some((from, to)) = self.full.first_key_value().map(|(f, t)| (*f, *t))
            && from <= second
        {
            self.full.remove(&from);
            if to > second {
                self.full.insert(second + 1, to);
                break;
            }
        }
    }
}

/// By how much an address is asked for earlier than it needs to be: less than an eighth of the time.
pub fn jitter(slot: Slot, time: Span) -> Span {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut mix = |b: u8| hash = (hash ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3);
    slot.0.get().to_be_bytes().into_iter().for_each(&mut mix);
    match slot.1 {
        IpAddr::V4(a) => a.octets().into_iter().for_each(&mut mix),
        IpAddr::V6(a) => a.octets().into_iter().for_each(&mut mix),
    }
    // Neighbours differ in the last octet only: its bits go everywhere.
    hash = (hash ^ hash >> 31).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    Span((hash ^ hash >> 32) % (time.0 / 8).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    const T: Span = Span::secs(240);

    fn slot(n: u32) -> Slot {
        (Vni::new(100).expect("valid"), Ipv4Addr::from(0x0a00_0000 + n).into())
    }

    /// A host that answers each question at once; counts the questions of each second.
    fn run(c: &mut Calendar, heard: &mut BTreeMap<Slot, Time>, until: Time) -> (BTreeMap<u64, usize>, Span) {
        let (mut asked, mut oldest) = (BTreeMap::new(), Span(0));
        while let Some(now) = c.timeout().filter(|t| *t <= until) {
            while let Some((s, e)) = c.due(now) {
                let latest = Time((heard[&s] + T).0 - jitter(s, T).0);
                if heard[&s] > e.since && c.before(s, latest, now) {
                    continue;
                }
                oldest = oldest.max(now.since(heard[&s]));
                *asked.entry(now.0 / SECOND).or_insert(0) += 1;
                c.asked(now);
                heard.insert(s, now);
                c.around(s, Time((now + T).0 - jitter(s, T).0), now);
            }
        }
        (asked, oldest)
    }

    #[test]
    fn ten_thousand_that_spoke_at_once_are_asked_in_time_and_never_more_than_fifty_in_a_second() {
        let mut c = Calendar::new(50);
        let mut heard = BTreeMap::new();
        for n in 0..10_000 {
            heard.insert(slot(n), Time(0));
            c.around(slot(n), Time(T.0 - jitter(slot(n), T).0), Time(0));
        }
        let (asked, oldest) = run(&mut c, &mut heard, Time(0) + Span::secs(3000));
        assert!(asked.values().all(|n| *n <= 51), "{:?}", asked.values().max());
        assert!(oldest <= T + Span::secs(2), "{oldest:?}");
        let total: usize = asked.values().sum();
        assert!((110_000..150_000).contains(&total), "{total}");
        // All of them speak at the same moment once more.
        let now = Time(0) + Span::secs(3000);
        for t in heard.values_mut() {
            *t = now;
        }
        let (asked, oldest) = run(&mut c, &mut heard, now + Span::secs(1000));
        assert!(asked.values().all(|n| *n <= 51), "{:?}", asked.values().max());
        assert!(oldest <= T + Span::secs(2), "{oldest:?}");
        assert_eq!(c.len(), 10_000);
    }

    #[test]
    fn a_few_are_asked_shortly_before_their_time_and_apart() {
        let mut c = Calendar::new(50);
        let mut heard: BTreeMap<_, _> = (0..100).map(|n| (slot(n), Time(0))).collect();
        for s in heard.keys() {
            c.before(*s, Time(T.0 - jitter(*s, T).0), Time(0));
        }
        let (asked, oldest) = run(&mut c, &mut heard, Time(0) + T);
        assert!(*asked.first_key_value().expect("asked").0 >= 209, "{asked:?}");
        assert!(asked.len() > 20 && oldest <= T, "{asked:?}");
    }

    #[test]
    fn too_many_take_their_turn_and_nobody_is_lost() {
        let mut c = Calendar::new(2);
        let mut heard = BTreeMap::new();
        for n in 0..3000 {
            heard.insert(slot(n), Time(0));
            c.around(slot(n), Time(T.0), Time(0));
        }
        let (asked, _) = run(&mut c, &mut heard, Time(0) + Span::secs(1700));
        assert!(asked.values().all(|n| *n <= 3));
        assert!(heard.values().all(|t| *t > Time(0)), "all had their turn");
    }

    #[test]
    fn who_is_put_off_or_forgotten_is_not_due_in_between() {
        let mut c = Calendar::new(1);
        let at = |s| Time(0) + Span::secs(s);
        c.before(slot(1), at(5), at(0));
        assert_eq!(c.due(at(4)), None);
        c.after(slot(1), at(7), 1, at(5));
        assert_eq!(c.due(at(6)), None);
        let (s, e) = c.due(at(7)).expect("its time");
        assert_eq!((s, e.asked, e.since), (slot(1), 1, at(5)));
        c.after(slot(1), at(8), 2, at(5));
        c.forget(slot(1));
        assert_eq!((c.due(at(20)), c.len(), c.is_empty(), c.has(slot(1))), (None, 0, true, false));
        assert_eq!(c.timeout(), None);
    }
}
