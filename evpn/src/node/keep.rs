//! Memory of sequences: what is kept in the state directory before it is told, and what comes back after a restart
//! (EVPN-MOB-05, EVPN-MOB-12).

use super::{Node, Output};
use crate::mobility::{Memory, Record};
use crate::rib::Candidate;
use crate::types::{Mac, Seq, Span, Time, Vni};

/// What is left to do for the memories of all VNIs.
#[derive(Debug, Default)]
pub(super) struct Keep {
    /// When some memory is to be tended next.
    due: Option<Time>,
}

impl Node {
    /// The highest sequence that peers advertise for a MAC, be it the best route's or not.
    pub(super) fn note_heard(&mut self, vni: Vni, mac: Mac, candidates: &[Candidate], at: Time) {
        let Some(first) = candidates.first() else { return };
        let highest = candidates.iter().fold(first.seq, |high: Seq, c| high.max(c.seq));
        if let Some(seg) = self.segments.get_mut(&vni) {
            seg.memory.heard(mac, highest, at);
        }
    }

    /// What an earlier run kept. A VNI that is no longer configured is skipped; its records stay where they are
    /// until they are too old.
    pub(super) fn restored(&mut self, records: &[Record], at: Time) {
        let now = self.unix(at);
        let mut n = 0;
        for r in records {
            let Some(seg) = self.segments.get_mut(&r.vni) else { continue };
            let age = match (r.unix, now) {
                (0, _) | (_, None) => 0,
                (then, Some(now)) => now.saturating_sub(then),
            };
            seg.memory.restore(r, Span(age.saturating_mul(1_000_000_000)), at);
            n += 1;
            self.restore_release(r, at);
        }
        self.journal.add("sequences_restored", n);
    }

    /// The driver tells the wall clock. When it was set, the ages that are kept are wrong and are written anew.
    pub(super) fn wall_told(&mut self, unix: u64, at: Time) {
        let slack = Memory::slack(self.config.mobility.memory_time).0 / 1_000_000_000;
        let jumped = self.unix(at).is_some_and(|was| was.abs_diff(unix) > slack.max(1));
        self.wall = Some((at, unix));
        if jumped {
            self.keep_again(at);
        }
    }

    /// Everything is handed over again, in slices.
    pub(super) fn keep_again(&mut self, at: Time) {
        for seg in self.segments.values_mut() {
            seg.memory.keep_all_again(at);
        }
    }

    /// Wall clock at this time.
    pub(super) fn unix(&self, at: Time) -> Option<u64> {
        self.wall.map(|(t, unix)| unix + at.since(t).0 / 1_000_000_000)
    }

    /// Once per flush, before anything of it is sent: a sequence that reaches a peer is in the state directory, so
    /// that not even `kill -9` makes us forget it. At most one record per MAC.
    pub(super) fn keep(&mut self, at: Time) {
        let wall = self.unix(at);
        let mut records = Vec::new();
        self.keep.due = None;
        for (vni, seg) in &mut self.segments {
            if !seg.memory.is_empty() {
                let macs = &seg.hosts.macs;
                let due = seg.memory.tend(at, |mac| macs.contains_key(&mac));
                self.keep.due = [self.keep.due, due].into_iter().flatten().min();
            }
            if seg.memory.has_unsaved() {
                seg.memory.take_unsaved(*vni, at, wall, &mut records);
            }
        }
        if !records.is_empty() {
            self.journal.add("sequences_kept", records.len() as u64);
            self.journal.push(Output::Persist(records));
        }
    }

    /// When [`Node::keep`] has something to do.
    pub(super) fn keep_due(&self) -> Option<Time> {
        self.keep.due
    }
}
