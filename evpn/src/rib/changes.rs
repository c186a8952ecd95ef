//! What forwarding has to look at again.

use super::Change;
use crate::types::{Mac, Time, Vni};
use std::collections::{BTreeMap, BTreeSet, btree_map};
use std::net::IpAddr;

/// Dirty keys in two generations: one is handed out while the next fills, so that keys that change all the
/// time cannot keep others waiting. With each MAC goes the time of its first change since it was looked at.
///
/// A MAC with more than one route has moved or is moving, and traffic follows it: those go first, but never take more than
/// three quarters.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// What is noted now happened then.
    pub(super) now: Time,
    floods: BTreeSet<(Vni, IpAddr)>,
    moved: BTreeMap<(Vni, Mac), Time>,
    macs: BTreeMap<(Vni, Mac), Time>,
    leaving: btree_map::IntoIter<(Vni, Mac), Time>,
}

impl Changes {
    pub(super) fn mac(&mut self, vni: Vni, mac: Mac, moved: bool) {
        if moved {
            let since = self.macs.remove(&(vni, mac)).unwrap_or(self.now);
            self.moved.entry((vni, mac)).or_insert(since);
        } else if !self.moved.contains_key(&(vni, mac)) {
            self.macs.entry((vni, mac)).or_insert(self.now);
        }
    }

    pub(super) fn flood(&mut self, vni: Vni, vtep: IpAddr) {
        self.floods.insert((vni, vtep));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.floods.is_empty() && self.moved.is_empty() && self.macs.is_empty() && self.leaving.len() == 0
    }

    /// Up to `max` changes, flood lists first, each key once.
    pub(super) fn take(&mut self, max: usize) -> Vec<(Change, Time)> {
        let due = self.floods.len() + self.moved.len() + self.leaving.len() + self.macs.len();
        let mut out = Vec::with_capacity(due.min(max));
        while out.len() < max {
            let Some((vni, vtep)) = self.floods.pop_first() else { break };
            out.push((Change::Flood(vni, vtep), self.now));
        }
        let first = out.len();
        let others = (max - first).min(max / 4).min(self.leaving.len() + self.macs.len());
        while out.len() < max - others {
            let Some(((v, m), t)) = self.moved.pop_first() else { break };
            out.push((Change::Mac(v, m), t));
        }
        let moved = out.len();
        while out.len() < max {
            let Some(((v, m), t)) = self.leaving.next() else { break };
            let change = Change::Mac(v, m);
            if out[first..moved].binary_search_by(|(c, _)| c.cmp(&change)).is_err() {
                out.push((change, t));
            }
        }
        if out.len() < max && !self.macs.is_empty() {
            self.leaving = core::mem::take(&mut self.macs).into_iter();
            let taken = out.len();
            while out.len() < max {
                let Some(((v, m), t)) = self.leaving.next() else { break };
                // Changed again after it was queued in the last generation: once is enough.
                let change = Change::Mac(v, m);
                let known = |part: &[(Change, Time)]| part.binary_search_by(|(c, _)| c.cmp(&change)).is_ok();
                if !known(&out[first..moved]) && !known(&out[moved..taken]) {
                    out.push((change, t));
                }
            }
        }
        // Of the others there were fewer than it seemed.
        while out.len() < max {
            let Some(((v, m), t)) = self.moved.pop_first() else { break };
            out.push((Change::Mac(v, m), t));
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mac(n: u16) -> Mac {
        let [a, b] = n.to_be_bytes();
        Mac([2, 0, 0, 0, a, b])
    }

    fn vni() -> Vni {
        Vni::new(100).expect("valid")
    }

    fn taken(c: &mut Changes, max: usize) -> Vec<u16> {
        let number = |m: Mac| u16::from_be_bytes([m.0[4], m.0[5]]);
        let macs = c.take(max).into_iter().filter_map(|(change, _)| match change {
            Change::Mac(_, m) => Some(number(m)),
            Change::Flood(..) => None,
        });
        macs.collect()
    }

    #[test]
    fn those_that_moved_pass_those_that_are_new_and_starve_nobody() {
        let mut c = Changes::default();
        (0..1_000).for_each(|n| c.mac(vni(), mac(n), false));
        c.mac(vni(), mac(5_000), true);
        assert_eq!(taken(&mut c, 8)[0], 5_000);
        (6_000..7_000).for_each(|n| c.mac(vni(), mac(n), true));
        let slice = taken(&mut c, 8);
        assert_eq!(slice.iter().filter(|n| **n >= 6_000).count(), 6);
        assert_eq!(slice.len(), 8);
        // Each once, and all of them.
        let mut seen = slice;
        while !c.is_empty() {
            let more = taken(&mut c, 100);
            assert!(more.len() == 100 || c.is_empty(), "a slice is full while there is more");
            seen.extend(more);
        }
        seen.sort_unstable();
        let want: Vec<u16> = (7..1_000).chain(6_000..7_000).collect();
        assert_eq!(seen, want);
    }

    #[test]
    fn one_that_moves_after_it_was_noted_is_noted_once_with_its_first_time() {
        let mut c = Changes { now: Time(1), ..Changes::default() };
        c.mac(vni(), mac(1), false);
        c.now = Time(2);
        c.mac(vni(), mac(1), true);
        c.mac(vni(), mac(1), false);
        assert_eq!(c.take(10), [(Change::Mac(vni(), mac(1)), Time(1))]);
        assert!(c.is_empty());
    }

    /// Noted in the generation that is being handed out, and again as moved: full slices all the same.
    #[test]
    fn a_slice_is_full_although_the_generations_overlap() {
        let mut c = Changes::default();
        (0..20).for_each(|n| c.mac(vni(), mac(n), false));
        assert_eq!(taken(&mut c, 4).len(), 4);
        (4..20).for_each(|n| c.mac(vni(), mac(n), true));
        let mut seen = Vec::new();
        while !c.is_empty() {
            let more = taken(&mut c, 8);
            assert!(more.len() == 8 || c.is_empty());
            seen.extend(more);
        }
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen, (4..20).collect::<Vec<_>>());
    }
}
