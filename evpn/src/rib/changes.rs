//! What forwarding has to look at again.

use super::Change;
use crate::types::{Mac, Time, Vni};
use std::collections::{BTreeMap, BTreeSet, btree_map};
use std::net::IpAddr;

/// Dirty keys in two generations: one is handed out while the next fills, so that keys that change all the
/// time cannot keep others waiting. With each MAC goes the time of its first change since it was looked at.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// What is noted now happened then.
    pub(super) now: Time,
    floods: BTreeSet<(Vni, IpAddr)>,
    macs: BTreeMap<(Vni, Mac), Time>,
    leaving: btree_map::IntoIter<(Vni, Mac), Time>,
}

impl Changes {
    pub(super) fn mac(&mut self, vni: Vni, mac: Mac) {
        self.macs.entry((vni, mac)).or_insert(self.now);
    }

    pub(super) fn flood(&mut self, vni: Vni, vtep: IpAddr) {
        self.floods.insert((vni, vtep));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.floods.is_empty() && self.macs.is_empty() && self.leaving.len() == 0
    }

    /// Up to `max` changes, flood lists first, each key once.
    pub(super) fn take(&mut self, max: usize) -> Vec<(Change, Time)> {
        let due = self.floods.len() + self.leaving.len() + self.macs.len();
        let mut out = Vec::with_capacity(due.min(max));
        while out.len() < max {
            let Some((vni, vtep)) = self.floods.pop_first() else { break };
            out.push((Change::Flood(vni, vtep), self.now));
        }
        let first = out.len();
        out.extend(self.leaving.by_ref().take(max - first).map(|((v, m), t)| (Change::Mac(v, m), t)));
        if out.len() < max && !self.macs.is_empty() {
            self.leaving = core::mem::take(&mut self.macs).into_iter();
            let taken = out.len();
            while out.len() < max {
                let Some(((v, m), t)) = self.leaving.next() else { break };
                // Changed again after it was queued in the last generation: once is enough.
                let change = Change::Mac(v, m);
                if out[first..taken].binary_search_by(|(c, _)| c.cmp(&change)).is_err() {
                    out.push((change, t));
                }
            }
        }
        out
    }
}
