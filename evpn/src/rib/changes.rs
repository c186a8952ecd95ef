//! What forwarding has to look at again.

use super::Change;
use crate::types::{Mac, Vni};
use std::collections::{BTreeSet, btree_set};
use std::net::IpAddr;

/// Dirty keys in two generations: one is handed out while the next fills, so that keys that change all the
/// time cannot keep others waiting.
#[derive(Debug, Default)]
pub(super) struct Changes {
    floods: BTreeSet<(Vni, IpAddr)>,
    macs: BTreeSet<(Vni, Mac)>,
    leaving: btree_set::IntoIter<(Vni, Mac)>,
}

impl Changes {
    pub(super) fn mac(&mut self, vni: Vni, mac: Mac) {
        self.macs.insert((vni, mac));
    }

    pub(super) fn flood(&mut self, vni: Vni, vtep: IpAddr) {
        self.floods.insert((vni, vtep));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.floods.is_empty() && self.macs.is_empty() && self.leaving.len() == 0
    }

    /// Up to `max` changes, flood lists first, each key once.
    pub(super) fn take(&mut self, max: usize) -> Vec<Change> {
        let due = self.floods.len() + self.leaving.len() + self.macs.len();
        let mut out = Vec::with_capacity(due.min(max));
        while out.len() < max {
            let Some((vni, vtep)) = self.floods.pop_first() else { break };
            out.push(Change::Flood(vni, vtep));
        }
        let first = out.len();
        out.extend(self.leaving.by_ref().take(max - first).map(|(v, m)| Change::Mac(v, m)));
        if out.len() < max && !self.macs.is_empty() {
            self.leaving = core::mem::take(&mut self.macs).into_iter();
            let taken = out.len();
            while out.len() < max {
                let Some((v, m)) = self.leaving.next() else { break };
                // Changed again after it was queued in the last generation: once is enough.
                if out[first..taken].binary_search(&Change::Mac(v, m)).is_err() {
                    out.push(Change::Mac(v, m));
                }
            }
        }
        out
    }
}
