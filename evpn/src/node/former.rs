//! Ports that lost a MAC, over a short time in which nobody had it.
//!
//! A move to and fro reaches the others by several ways: the withdrawal of one VTEP may come before the route of the next.
//! In between the MAC is nobody's, and everything else about it is forgotten. The port that has lost it goes on having its
//! last frames (PIT-04), and rows of ours that are told late (MIG-HOT-03).

use super::Node;
use crate::hosts::MacEntry;
use crate::types::{Mac, Time, Vni};

impl Node {
    /// Nobody has a MAC any more.
    pub(super) fn keep_losses(&mut self, vni: Vni, mac: Mac, entry: &MacEntry, at: Time) {
        let guard = self.config.mobility.guard_time;
        if entry.lost.latest().is_some_and(|l| at.since(l.at) < guard) {
            self.former.insert((vni, mac), entry.lost.clone());
        }
    }

    /// Somebody has it again.
    pub(super) fn recall_losses(&mut self, vni: Vni, mac: Mac, at: Time) {
        let guard = self.config.mobility.guard_time;
        let Some(before) = self.former.remove((vni, mac)) else { return };
        if before.latest().is_some_and(|l| at.since(l.at) < guard)
            && let Some(e) = self.segments.get_mut(&vni).and_then(|s| s.hosts.macs.get_mut(&mac))
        {
            e.lost.restore(before);
        }
    }
}
