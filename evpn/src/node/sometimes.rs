//! Once in a while for each key: alarms, questions to hosts. Bounded, and constant in the long run for each call,
//! because a flood of keys is what it is there for.

use crate::types::{Span, Time};
use std::collections::{BTreeSet, VecDeque};

/// See the module.
#[derive(Debug)]
pub(super) struct Sometimes<K> {
    every: Span,
    limit: usize,
    recent: BTreeSet<K>,
    /// The same keys, oldest first.
    order: VecDeque<(Time, K)>,
}

impl<K: Copy + Ord> Sometimes<K> {
    /// Each key once in `every`, and so many keys in that time.
    pub(super) fn new(every: Span, limit: usize) -> Self {
        Self { every, limit, recent: BTreeSet::new(), order: VecDeque::new() }
    }

    /// Whether it is this key's turn. False as well when there have been too many others.
    pub(super) fn may(&mut self, key: K, at: Time) -> bool {
        while let Some((t, old)) = self.order.front().copied() {
            if at.since(t) < self.every {
                break;
            }
            self.order.pop_front();
            self.recent.remove(&old);
        }
        if self.recent.len() >= self.limit || !self.recent.insert(key) {
            return false;
        }
        self.order.push_back((at, key));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_has_its_turn_once_in_the_time() {
        let mut s = Sometimes::new(Span(10), 8);
        assert!(s.may(1, Time(0)));
        assert!(!s.may(1, Time(9)));
        assert!(s.may(2, Time(9)));
        assert!(s.may(1, Time(10)), "asking in vain does not put it off");
        assert!(!s.may(2, Time(18)));
        assert!(s.may(2, Time(19)));
    }

    #[test]
    fn a_flood_of_keys_is_cut_off_and_forgotten_in_time() {
        let mut s = Sometimes::new(Span(10), 100);
        assert_eq!((0..10_000).filter(|k| s.may(*k, Time(1))).count(), 100);
        assert_eq!((s.recent.len(), s.order.len()), (100, 100));
        assert_eq!((0..10_000).filter(|k| s.may(*k, Time(11))).count(), 100);
    }
}
