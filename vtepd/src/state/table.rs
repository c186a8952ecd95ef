//! What a journal comes to: the newest record of each MAC, without those that are too old or too many.

use super::format::{Frame, SLOT};
use evpn::mobility::{Memory, Record};
use evpn::types::{Mac, Seq, Span, Vni};
use std::collections::BTreeMap;

/// By how much a sequence is raised when the last records before a crash of the machine may be lost: at most a
/// second of moves of one MAC.
pub(super) const RAISE: u32 = 16;

/// See the module.
#[derive(Clone, Debug, Default)]
pub(super) struct Table {
    newest: BTreeMap<(Vni, Mac), Record>,
}

impl Table {
    /// What comes later in the journal is newer.
    pub(super) fn take(&mut self, frame: Frame) {
        if let Frame::Record(r) = frame {
            self.newest.insert((r.vni, r.mac), r);
        }
    }

    pub(super) fn records(&self) -> impl Iterator<Item = &Record> {
        self.newest.values()
    }

    pub(super) fn len(&self) -> usize {
        self.newest.len()
    }

    /// Octets of a journal that has just these.
    pub(super) fn octets(&self) -> u64 {
        (self.newest.len() * SLOT) as u64
    }

    /// Every sequence beats any that may have been told and lost.
    pub(super) fn raise(&mut self) {
        for r in self.newest.values_mut() {
            r.seq = Seq(r.seq.0.wrapping_add(RAISE));
        }
    }

    /// Drops what is older than `hold` (with the slack of [`Memory::slack`]), and of each VNI the oldest above the
    /// bound of the memory.
    pub(super) fn prune(&mut self, hold: Span, unix: u64) {
        let hold = (hold + Memory::slack(hold)).0 / 1_000_000_000;
        let over = |r: &Record| {
            let released = r.released.is_some_and(|x| x.until > unix);
            r.unix != 0 && !released && unix.saturating_sub(r.unix) > hold
        };
        self.newest.retain(|_, r| !over(r));
        let mut count: BTreeMap<Vni, usize> = BTreeMap::new();
        for (vni, _) in self.newest.keys() {
            *count.entry(*vni).or_default() += 1;
        }
        for (vni, n) in count.into_iter().filter(|(_, n)| *n > Memory::LIMIT) {
            let of_it = self.newest.iter().filter(|((v, _), _)| *v == vni);
            let mut by_age: Vec<_> = of_it.map(|(key, r)| (r.ours, r.unix, *key)).collect();
            by_age.sort_unstable();
            for (_, _, key) in by_age.into_iter().take(n - Memory::LIMIT) {
                self.newest.remove(&key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(n: u32, seq: u32, unix: u64) -> Record {
        let [a, b, c, d] = n.to_be_bytes();
        let vni = Vni::new(100).expect("valid");
        Record { vni, mac: Mac([2, 0, a, b, c, d]), seq: Seq(seq), ours: false, unix, released: None }
    }

    fn table(records: impl IntoIterator<Item = Record>) -> Table {
        let mut t = Table::default();
        records.into_iter().for_each(|r| t.take(Frame::Record(r)));
        t
    }

    #[test]
    fn the_last_record_counts_and_the_too_old_go() {
        let day = Span::secs(24 * 3600);
        let now = 10 * 24 * 3600;
        let mut t = table([
            record(1, 9, now),
            record(1, 2, now),
            record(2, 1, now - 28 * 3600),
            record(3, 1, now - 26 * 3600),
            record(4, 1, 0),
            record(5, 1, now + 99),
            Record {
                released: Some(evpn::mobility::Released { until: now + 1, port: None }),
                ..record(6, 1, 1)
            },
        ]);
        t.prune(day, now);
        let left: Vec<_> = t.records().map(|r| (r.mac.0[5], r.seq.0)).collect();
        assert_eq!(left, [(1, 2), (3, 1), (4, 1), (5, 1), (6, 1)]);
    }

    #[test]
    fn of_too_many_the_oldest_go_and_ours_last() {
        let limit = Memory::LIMIT as u32;
        let ours = Record { ours: true, ..record(limit + 9, 1, 1) };
        let mut t = table((0..limit + 2).map(|n| record(n, 1, 1000 + u64::from(n))).chain([ours]));
        t.prune(Span::secs(1 << 30), 2000);
        assert_eq!(t.len(), Memory::LIMIT);
        let oldest = t.records().map(|r| r.unix).filter(|u| *u != 1).min();
        assert_eq!((oldest, t.records().any(|r| r.ours)), (Some(1003), true));
    }

    #[test]
    fn a_raised_sequence_wraps_as_sequences_do() {
        let mut t = table([record(1, u32::MAX, 1)]);
        t.raise();
        assert_eq!(t.records().next().map(|r| r.seq), Some(Seq(15)));
    }
}
