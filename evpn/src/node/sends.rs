//! Which peers' sockets have what a move makes us say.
//!
//! A record's routes are in a peer's queue (`queued`) until the RIB has encoded them all, then in the send path
//! of its connection (`written`) until the socket has taken every octet up to there. What the driver tells as
//! room says how much that is, so the times are those of the socket and not those of the encoder.

use super::moves::Ticket;
use crate::wire::RouteKey;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// Records of a peer that are looked at one by one per flush while its urgent queue is not empty.
const LOOKS: usize = 256;
/// Records that may wait for one peer that does not read; above it the oldest are no more followed.
const WAITING: usize = 32_768;

#[derive(Clone, Debug)]
struct Due {
    ticket: Ticket,
    keys: Arc<[RouteKey]>,
}

/// One peer's part.
#[derive(Debug, Default)]
struct Lane {
    queued: VecDeque<Due>,
    /// Octets of the connection after which a batch is out.
    written: VecDeque<(u64, Vec<Ticket>)>,
    waiting: usize,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Sends {
    fresh: Vec<Due>,
    lanes: BTreeMap<usize, Lane>,
}

impl Sends {
    /// These routes have become due for all peers.
    pub(super) fn due(&mut self, ticket: Ticket, keys: Vec<RouteKey>) {
        self.fresh.push(Due { ticket, keys: keys.into() });
    }

    /// Something is to be given out.
    pub(super) fn has_fresh(&self) -> bool {
        !self.fresh.is_empty()
    }

    /// Puts what has become due into the queues of the peers that are up.
    pub(super) fn give_out(&mut self, up: &[usize]) -> Vec<Ticket> {
        let fresh = std::mem::take(&mut self.fresh);
        for peer in up {
            let lane = self.lanes.entry(*peer).or_default();
            lane.waiting += fresh.len();
            lane.queued.extend(fresh.iter().cloned());
            while lane.waiting > WAITING {
                let gone = match lane.written.pop_front() {
                    Some((_, batch)) => batch.len(),
                    None => usize::from(lane.queued.pop_front().is_some()),
                };
                lane.waiting -= gone.min(lane.waiting).max(1);
            }
        }
        fresh.into_iter().map(|d| d.ticket).collect()
    }

    /// A peer's share of a flush has been encoded: `empty` when nothing urgent is left in its queue, `at` octets
    /// of its connection are encoded by now, `is_due` tells what is not.
    pub(super) fn encoded(&mut self, peer: usize, empty: bool, at: u64, is_due: impl Fn(&RouteKey) -> bool) {
        let Some(lane) = self.lanes.get_mut(&peer).filter(|l| !l.queued.is_empty()) else { return };
        let mut batch = Vec::new();
        if empty {
            batch.extend(lane.queued.drain(..).map(|d| d.ticket));
        } else {
            for _ in 0..lane.queued.len().min(LOOKS) {
                let Some(d) = lane.queued.pop_front() else { break };
                if d.keys.iter().any(&is_due) {
                    lane.queued.push_back(d);
                } else {
                    batch.push(d.ticket);
                }
            }
        }
        if !batch.is_empty() {
            lane.written.push_back((at, batch));
        }
    }

    /// A peer's socket has taken so many octets of its connection. Returns what is out with that.
    pub(super) fn written(&mut self, peer: usize, octets: u64) -> Vec<Ticket> {
        let mut out = Vec::new();
        let Some(lane) = self.lanes.get_mut(&peer) else { return out };
        while lane.written.front().is_some_and(|(until, _)| *until <= octets) {
            out.extend(lane.written.pop_front().into_iter().flat_map(|(_, batch)| batch));
        }
        lane.waiting = lane.waiting.saturating_sub(out.len());
        out
    }

    /// A peer is gone. Returns what it did not get.
    pub(super) fn gone(&mut self, peer: usize) -> Vec<Ticket> {
        let Some(lane) = self.lanes.remove(&peer) else { return Vec::new() };
        let written = lane.written.into_iter().flat_map(|(_, batch)| batch);
        written.chain(lane.queued.into_iter().map(|d| d.ticket)).collect()
    }
}
