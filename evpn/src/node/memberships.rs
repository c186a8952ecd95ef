//! Route target membership (RFC 4684) beside the sessions: what is offered, and how long routes wait for it.

use super::{NeighborConfig, Node};
use crate::rib::Rib;
use crate::types::{PeerId, Span, Time};
use crate::wire::Family;

/// How long the routes of a neighbour wait for what it wants (BGP-RTC-05).
const WAIT: Span = Span::secs(60);

/// Families that a neighbour is offered (BGP-RTC-01).
pub(super) fn families(n: &NeighborConfig) -> Vec<Family> {
    let mut families = vec![Family::EVPN];
    families.extend(n.rt_constraint.then_some(Family::RTC));
    families
}

/// When the wait for a neighbour that is up since now ends, if there is one.
pub(super) fn deadline(rib: &Rib, peer: PeerId, at: Time) -> Option<Time> {
    rib.waits_for_memberships(peer).then(|| at + WAIT)
}

impl Node {
    /// When the first wait ends that has not ended by itself.
    pub(super) fn memberships_timeout(&self) -> Option<(Time, &'static str)> {
        let waits = |i: &usize| self.rib.waits_for_memberships(PeerId(*i as u32));
        let peers = self.peers.iter().enumerate().filter(|(i, p)| p.up.is_some() && waits(i));
        peers.filter_map(|(_, p)| p.memberships_by).min().map(|t| (t, "memberships"))
    }

    pub(super) fn due_memberships(&mut self, at: Time) {
        for (i, p) in self.peers.iter_mut().enumerate() {
            if p.memberships_by.is_some_and(|t| t <= at) {
                p.memberships_by = None;
                self.rib.end_wait(PeerId(i as u32));
            }
        }
    }
}
