//! Wanted kernel rows and what the kernel answers: acknowledgements, refusals, what was adopted at start.

use super::{Event, Node};
use crate::fabric::{Row, RowKey, WriteResult};
use crate::types::{Mac, Span, Time};

/// Until a refused row is tried again.
const RETRY: Span = Span::secs(1);
/// Rows waiting for a retry; above it they are left to the audit.
pub(super) const RETRIES: usize = 16_384;

impl Node {
    pub(super) fn handle_written(&mut self, results: Vec<(RowKey, WriteResult)>, at: Time) {
        for (key, result) in results {
            self.hold_written(&key, &result, at);
            self.activation_written(&key, &result, at);
            if let WriteResult::Failed { errno, text } = &result {
                self.journal.count("write_failures");
                let row = self.row_name(&key);
                self.journal.event(Event::WriteFailed { row, errno: *errno, text: text.clone() }, at);
                if !self.gone_with_carrier(&key, at) && self.retries.len() < RETRIES {
                    self.retries.insert((at + RETRY, key));
                }
                continue;
            }
            self.release_leaving(&key, at);
            self.tell_written(&key, at);
            if let RowKey::Mac { bridge, mac } = key
                && let Some(&vni) = self.bridges.get(&bridge)
            {
                if let Some(e) = self.segments.get_mut(&vni).and_then(|s| s.hosts.macs.get_mut(&mac)) {
                    e.shadow = None;
                }
                self.moves.acked(vni, mac, at, &mut self.journal);
            }
            if let RowKey::Neigh { dev, ip } = key
                && let Some(&vni) = self.bridges.get(&dev)
            {
                self.moves.acked_ip(vni, ip, at, &mut self.journal);
            }
        }
    }

    /// The kernel has the remote row (or never will): nobody sees neither route when ours go now (EVPN-MOB-07).
    pub(super) fn release_leaving(&mut self, key: &RowKey, at: Time) {
        let Some(l) = self.leaving.remove(key) else { return };
        for k in &l.keys {
            self.rib.withdraw(k, true);
        }
        self.ask_loser(l.vni, l.mac, &l.keys, at);
        self.moves.withdrawing(l.vni, l.mac, l.keys);
    }

    pub(super) fn due_leaving(&mut self, at: Time) {
        while let Some((t, key)) = self.leaving_queue.front().copied() {
            let current = self.leaving.get(&key).is_some_and(|l| l.deadline == t);
            if current && t > at {
                break;
            }
            self.leaving_queue.pop_front();
            if current {
                let (vni, mac) = self.leaving.get(&key).map(|l| (l.vni, l.mac)).expect("just looked up");
                self.journal.count("withdrawals_forced");
                self.journal.event(Event::WithdrawForced { vni, mac }, at);
                self.release_leaving(&key, at);
            }
        }
    }

    pub(super) fn due_retries(&mut self, at: Time) {
        while let Some(&(t, key)) = self.retries.first() {
            if t > at {
                break;
            }
            self.retries.pop_first();
            self.want.mark(key, false);
        }
    }

    pub(super) fn sweep_at(&self) -> Time {
        self.started + self.config.restart_time
    }

    /// Adopted rows go after End-of-RIB from every configured neighbour, or after the restart time; never
    /// because a table is still empty (design section 5).
    pub(super) fn due_sweep(&mut self, at: Time) {
        if self.swept || !self.synced {
            return;
        }
        let complete = self.peers.iter().all(|p| p.end_of_rib || !p.expected()) && !self.more_changes;
        if !complete && at < self.sweep_at() {
            return;
        }
        self.swept = true;
        let stale = std::mem::take(&mut self.stale);
        if !stale.is_empty() {
            self.journal.event(Event::StaleSwept { rows: stale.len() }, at);
        }
        for key in stale {
            self.want.remove(&key, false);
        }
    }

    /// Wants a row, and takes it for confirmed.
    pub(super) fn want_set(&mut self, key: RowKey, row: Row, urgent: bool) {
        self.stale.remove(&key);
        let row = self.held_row(&key, self.shape_row(&key, row));
        self.want.set(key, row, urgent);
    }

    /// Wants no row, unless an adopted one still waits to be confirmed. Who has a MAC does not matter for one that is
    /// the bridge's own.
    pub(super) fn want_remove(&mut self, key: &RowKey, urgent: bool) {
        if matches!(self.want.get(key), Some(Row::Own)) {
            return;
        }
        let kept = self.stale.contains(key) || self.activating(key) || self.row_is_held(key);
        if kept {
            return;
        }
        self.clear_hold_port(key);
        if !self.clear_instead(key, urgent) {
            self.want.remove(key, urgent);
        }
    }

    /// The MAC of a neighbour row of an earlier run that nobody has confirmed yet.
    pub(super) fn adopted_mac(&self, key: &RowKey) -> Option<Mac> {
        match self.want.get(key).filter(|_| self.stale.contains(key))? {
            Row::Neigh { mac, .. } => Some(*mac),
            Row::Remote { .. }
            | Row::Local { .. }
            | Row::Relayed { .. }
            | Row::Cleared { .. }
            | Row::Own
            | Row::Flood => None,
        }
    }

    pub(super) fn row_name(&self, key: &RowKey) -> String {
        match key {
            RowKey::Mac { bridge, mac } => format!("mac {mac} on {}", self.dev_name(*bridge)),
            RowKey::Flood { vxlan, vtep } => format!("flood {vtep} on {}", self.dev_name(*vxlan)),
            RowKey::Neigh { dev, ip } => format!("neighbour {ip} on {}", self.dev_name(*dev)),
        }
    }
}
