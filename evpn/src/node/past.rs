//! What was a short while ago: last owners of MACs and addresses that nobody has now, and MACs that have just
//! moved. Only for telling moves apart; nothing is decided from it.

use super::view::Place;
use crate::types::{Mac, Seq, Time, Vni};
use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;

/// Numbers that are not worth a sweep.
const SWEEP: usize = 64;

/// A table of the latest entries: a new one pushes the oldest out.
#[derive(Debug)]
pub(super) struct Latest<K, V> {
    entries: BTreeMap<K, (V, u64)>,
    order: VecDeque<(K, u64)>,
    next: u64,
    limit: usize,
}

impl<K: Ord + Copy, V> Latest<K, V> {
    pub(super) fn new(limit: usize) -> Self {
        Self { entries: BTreeMap::new(), order: VecDeque::new(), next: 0, limit }
    }

    pub(super) fn insert(&mut self, key: K, value: V) {
        self.next += 1;
        self.entries.insert(key, (value, self.next));
        self.order.push_back((key, self.next));
        while self.entries.len() > self.limit {
            let Some((key, n)) = self.order.pop_front() else { break };
            if self.is(key, n) {
                self.entries.remove(&key);
            }
        }
        // Numbers of entries that were replaced or removed are swept out when they are the most.
        if self.order.len() > 2 * self.entries.len().max(SWEEP) {
            let entries = &self.entries;
            self.order.retain(|(k, n)| entries.get(k).is_some_and(|(_, m)| m == n));
        }
    }

    pub(super) fn get(&self, key: K) -> Option<&V> {
        self.entries.get(&key).map(|(v, _)| v)
    }

    pub(super) fn remove(&mut self, key: K) -> Option<V> {
        self.entries.remove(&key).map(|(v, _)| v)
    }

    fn is(&self, key: K, n: u64) -> bool {
        self.entries.get(&key).is_some_and(|(_, m)| *m == n)
    }
}

/// The last owner of a MAC that nobody has.
#[derive(Clone, Debug)]
pub(super) struct Gone {
    pub(super) place: Place,
    pub(super) seq: Seq,
    pub(super) at: Time,
}

/// The last MAC of an address that nobody has.
#[derive(Clone, Debug)]
pub(super) struct Unbound {
    pub(super) mac: Mac,
    pub(super) place: Place,
    pub(super) seq: Seq,
    pub(super) at: Time,
}

/// A MAC's last move.
#[derive(Clone, Debug)]
pub(super) struct Moved {
    pub(super) from: Place,
    pub(super) seq_before: Seq,
    pub(super) at: Time,
}

/// All of it. Each table keeps the latest [`Past::LIMIT`].
#[derive(Debug)]
pub(super) struct Past {
    pub(super) macs: Latest<(Vni, Mac), Gone>,
    pub(super) ips: Latest<(Vni, IpAddr), Unbound>,
    pub(super) moved: Latest<(Vni, Mac), Moved>,
}

impl Past {
    pub(super) const LIMIT: usize = 16_384;
}

impl Default for Past {
    fn default() -> Self {
        Self {
            macs: Latest::new(Self::LIMIT),
            ips: Latest::new(Self::LIMIT),
            moved: Latest::new(Self::LIMIT),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_gives_way_and_a_renewed_one_is_young_again() {
        let mut t = Latest::new(2);
        t.insert(1, "a");
        t.insert(2, "b");
        t.insert(1, "c");
        t.insert(3, "d");
        assert_eq!((t.get(1), t.get(2), t.get(3)), (Some(&"c"), None, Some(&"d")));
        assert_eq!(t.remove(1), Some("c"));
        t.insert(4, "e");
        assert_eq!((t.get(3), t.get(4)), (Some(&"d"), Some(&"e")));
    }

    #[test]
    fn it_stays_bounded_when_the_same_key_comes_again_and_again() {
        let mut t = Latest::new(4);
        for n in 0..1000 {
            t.insert(0, n);
            assert!(t.order.len() <= 2 * SWEEP);
        }
        assert_eq!(t.get(0), Some(&999));
        for n in 0..1000 {
            t.insert(n, n);
            t.remove(n);
        }
        assert_eq!((t.entries.len(), t.order.len() <= 2 * SWEEP), (0, true));
    }
}
