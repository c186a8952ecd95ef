//! Sequences of MACs that nobody advertises at the moment (EVPN-MOB-12).

use crate::types::{Mac, Seq, Time, Vni};
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

/// Bounded memory of one VNI; when full the longest forgotten goes first.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    by_mac: BTreeMap<Mac, (Remembered, Time)>,
    by_age: BTreeSet<(Time, Mac)>,
}

impl Memory {
    /// Most MACs remembered per VNI.
    pub const LIMIT: usize = 65_536;

    /// Remember `seq`, unless something newer is remembered. A first advertisement (sequence 0) of ours is
    /// worth no memory.
    pub fn note(&mut self, mac: Mac, seq: Seq, ours: bool, at: Time) {
        let new = match self.by_mac.get(&mac) {
            Some((old, _)) if old.seq.newer_than(seq) => *old,
            Some((old, _)) if old.seq == seq => Remembered { seq, ours: ours && old.ours },
            _ if ours && seq == Seq::ZERO => return,
            _ => Remembered { seq, ours },
        };
        if let Some((_, since)) = self.by_mac.insert(mac, (new, at)) {
            self.by_age.remove(&(since, mac));
        }
        self.by_age.insert((at, mac));
        while self.by_mac.len() > Self::LIMIT {
            let Some((_, old)) = self.by_age.pop_first() else { break };
            self.by_mac.remove(&old);
        }
    }

    /// What is remembered of this MAC.
    pub fn get(&self, mac: Mac) -> Option<Remembered> {
        self.by_mac.get(&mac).map(|(r, _)| *r)
    }

    /// Number of MACs remembered.
    pub fn len(&self) -> usize {
        self.by_mac.len()
    }

    /// Nothing is remembered.
    pub fn is_empty(&self) -> bool {
        self.by_mac.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_sequence_is_kept() {
        let mut m = Memory::default();
        let mac = Mac([2, 0, 0, 0, 0, 1]);
        m.note(mac, Seq(5), false, Time(1));
        m.note(mac, Seq(3), true, Time(2));
        assert_eq!(m.get(mac), Some(Remembered { seq: Seq(5), ours: false }));
        m.note(mac, Seq(6), true, Time(3));
        assert_eq!(m.get(mac), Some(Remembered { seq: Seq(6), ours: true }));
    }

    #[test]
    fn it_is_bounded_and_forgets_the_oldest() {
        let mut m = Memory::default();
        for i in 0..=Memory::LIMIT as u32 {
            let [a, b, c, d] = i.to_be_bytes();
            m.note(Mac([2, 0, a, b, c, d]), Seq(1), true, Time(i as u64));
        }
        assert_eq!(m.len(), Memory::LIMIT);
        assert_eq!(m.get(Mac([2, 0, 0, 0, 0, 0])), None);
    }
}
