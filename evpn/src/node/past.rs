//! What was a short while ago: last owners of MACs and addresses that nobody has now, and MACs that have just
//! moved. For telling moves apart, and for asking a MAC that is back for the addresses that it had; nothing is
//! decided from it.

use super::view::Place;
use crate::types::{Mac, Seq, Span, Time, Vni};
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
    /// Addresses that a MAC had last, the latest first; [`Past::ips`] says whether they are still nobody's.
    of_mac: Latest<(Vni, Mac), Vec<IpAddr>>,
}

impl Past {
    pub(super) const LIMIT: usize = 16_384;
    /// Addresses remembered of one MAC: as many as are asked for at once.
    const PER_MAC: usize = 4;

    /// An address has lost its binding.
    pub(super) fn unbound(&mut self, vni: Vni, ip: IpAddr, last: Unbound) {
        let key = (vni, last.mac);
        let mut ips = self.of_mac.remove(key).unwrap_or_default();
        ips.retain(|x| *x != ip);
        ips.insert(0, ip);
        ips.truncate(Self::PER_MAC);
        self.of_mac.insert(key, ips);
        self.ips.insert((vni, ip), last);
    }

    /// Addresses that a MAC had not longer ago than `within`, and that no other has had since.
    pub(super) fn addresses_of(&self, vni: Vni, mac: Mac, within: Span, at: Time) -> Vec<IpAddr> {
        let still =
            |ip: &IpAddr| self.ips.get((vni, *ip)).is_some_and(|u| u.mac == mac && at.since(u.at) <= within);
        let all = self.of_mac.get((vni, mac)).map(Vec::as_slice).unwrap_or_default();
        all.iter().copied().filter(still).collect()
    }
}

impl Default for Past {
    fn default() -> Self {
        Self {
            macs: Latest::new(Self::LIMIT),
            ips: Latest::new(Self::LIMIT),
            moved: Latest::new(Self::LIMIT),
            of_mac: Latest::new(Self::LIMIT),
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
    fn the_addresses_of_a_mac_are_the_latest_that_nobody_else_had_since() {
        let vni = Vni::new(100).expect("valid");
        let (m, other) = (Mac([2, 0, 0, 0, 0, 1]), Mac([2, 0, 0, 0, 0, 2]));
        let ip = |n: u8| IpAddr::from([10, 1, 0, n]);
        let last = |mac, at| Unbound { mac, place: Place::None, seq: Seq::ZERO, at: Time(at) };
        let mut p = Past::default();
        for n in 1..=6 {
            p.unbound(vni, ip(n), last(m, u64::from(n)));
        }
        let of = |p: &Past, within, at| p.addresses_of(vni, m, Span(within), Time(at));
        assert_eq!(of(&p, 100, 10), [ip(6), ip(5), ip(4), ip(3)], "a few, the latest");
        p.unbound(vni, ip(4), last(m, 7));
        assert_eq!(of(&p, 100, 10), [ip(4), ip(6), ip(5), ip(3)]);
        p.unbound(vni, ip(5), last(other, 8));
        p.ips.remove((vni, ip(6)));
        assert_eq!(of(&p, 100, 10), [ip(4), ip(3)], "another had one, and one is in use");
        assert_eq!(of(&p, 3, 10), [ip(4)], "and not for ever");
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
