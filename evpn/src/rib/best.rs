//! The order of routes, best first.
//!
//! For Type 2 the EVPN rules come before those of RFC 4271: stale last (BGP-LLGR-06, PIT-23); Default Gateway;
//! sticky; highest mobility sequence; lowest VTEP address (EVPN-BEST-01, -02, as FRR: EVPN-BEST-03). Then
//! LOCAL_PREF, AS_PATH length, ORIGIN, MED among routes of one neighbouring AS, eBGP, BGP identifier or
//! ORIGINATOR_ID, CLUSTER_LIST length, neighbour address (BGP-DEC-01, -02), and at last the key itself.
//! The same order serves the MAC-VRF and the BGP table, so that what is passed on is what is used.
//!
//! The result is the same for every order of arrival (BGP-DEC-03). Two rules are no total orders and are made so:
//!
//! * **Sequence numbers** wrap (EVPN-MOB-09). As long as one of them beats all others serially, routes are
//!   ordered by their distance below it. Numbers spread over more than half the circle have no newest;
//!   the plainly largest then stands in for it.
//! * **MED** compares only within one neighbouring AS. Each AS forms a queue in its own order, and the queues
//!   are merged by their heads without MED, which is what RFC 4271 §9.1.2.2 c) does when it is repeated.

use crate::types::{Asn, PeerId, Rd, RouterId, Seq};
use crate::wire::{ArpNd, AsPath, Attrs, Community, Origin};
use core::cmp::Ordering;
use std::net::IpAddr;

/// LLGR_STALE (RFC 9494 §3.2).
pub(super) const LLGR_STALE: Community = Community(0xffff_0006);
/// NO_LLGR (RFC 9494 §3.3).
pub(super) const NO_LLGR: Community = Community(0xffff_0007);
/// Preference of a route without LOCAL_PREF, and of eBGP routes (BGP-DEC-01).
pub(super) const DEFAULT_LOCAL_PREF: u32 = 100;

/// What of the attributes counts in the order.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Rank {
    pub(super) stale: bool,
    pub(super) gateway: bool,
    pub(super) sticky: bool,
    /// The mobility community is there.
    pub(super) mobility: bool,
    pub(super) seq: Seq,
    pub(super) vtep: IpAddr,
    pub(super) local_pref: Option<u32>,
    pub(super) as_len: usize,
    pub(super) origin: Origin,
    pub(super) med: u32,
    pub(super) neighbor_as: Option<Asn>,
    pub(super) originator: Option<RouterId>,
    pub(super) cluster_len: usize,
}

impl Rank {
    /// Reads the attributes once. The second value are the flags of the ARP/ND community (RFC 9047 §2).
    pub(super) fn new(attrs: &Attrs, vtep: IpAddr) -> (Self, Option<ArpNd>) {
        let mobility = attrs.mobility();
        let path = attrs.as_path.as_ref();
        let rank = Self {
            stale: attrs.communities.contains(&LLGR_STALE),
            gateway: attrs.default_gateway(),
            sticky: mobility.is_some_and(|(_, sticky)| sticky),
            mobility: mobility.is_some(),
            seq: mobility.map_or(Seq::ZERO, |(seq, _)| seq),
            vtep,
            local_pref: attrs.local_pref,
            as_len: path.map_or(0, AsPath::count),
            origin: attrs.origin.unwrap_or(Origin::Incomplete),
            med: attrs.med.unwrap_or(0),
            neighbor_as: path.and_then(AsPath::first),
            originator: attrs.originator_id,
            cluster_len: attrs.cluster_list.len(),
        };
        (rank, attrs.arp_nd())
    }
}

/// A route that takes part.
#[derive(Clone, Copy, Debug)]
pub(super) struct Contender<'a, T> {
    pub(super) rank: &'a Rank,
    pub(super) ebgp: bool,
    /// Identifier of the neighbour.
    pub(super) id: RouterId,
    pub(super) peer: PeerId,
    pub(super) address: IpAddr,
    pub(super) rd: Rd,
    /// Last word: what else is in the key.
    pub(super) last: T,
}

impl<T: Ord + Copy> Contender<'_, T> {
    /// Stale, then gateway, then sticky; the last not among gateways (EVPN-BEST-01).
    fn class(&self) -> (bool, bool, bool) {
        (self.rank.stale, !self.rank.gateway, !self.rank.gateway && !self.rank.sticky)
    }

    fn local_pref(&self) -> u32 {
        match self.rank.local_pref {
            Some(lp) if !self.ebgp => lp,
            _ => DEFAULT_LOCAL_PREF,
        }
    }

    /// From the sequence to ORIGIN, given the number that counts as the newest of the class.
    fn by_preference(&self, other: &Self, newest: Seq) -> Ordering {
        let distance = |c: &Self| if c.rank.gateway { 0 } else { newest.0.wrapping_sub(c.rank.seq.0) };
        distance(self)
            .cmp(&distance(other))
            .then_with(|| self.rank.vtep.cmp(&other.rank.vtep))
            .then_with(|| other.local_pref().cmp(&self.local_pref()))
            .then_with(|| self.rank.as_len.cmp(&other.rank.as_len))
            .then_with(|| self.rank.origin.cmp(&other.rank.origin))
    }

    /// From eBGP over iBGP to the end.
    fn by_source(&self, other: &Self) -> Ordering {
        let key = |c: &Self| {
            let id = c.rank.originator.unwrap_or(c.id);
            (!c.ebgp, id, c.rank.cluster_len, c.address, c.peer)
        };
        key(self).cmp(&key(other)).then_with(|| (self.rd, self.last).cmp(&(other.rd, other.last)))
    }
}

/// Sorts, best first.
pub(super) fn order<T: Ord + Copy>(routes: &mut [Contender<'_, T>]) {
    if routes.len() < 2 {
        return;
    }
    routes.sort_unstable_by_key(Contender::class);
    for class in routes.chunk_by_mut(|a, b| a.class() == b.class()) {
        let newest = newest(class);
        class.sort_unstable_by(|a, b| a.by_preference(b, newest));
        for tied in class.chunk_by_mut(|a, b| a.by_preference(b, newest).is_eq()) {
            order_tied(tied);
        }
    }
}

/// The sequence number that beats all others, or the plainly largest if none does.
fn newest<T>(class: &[Contender<'_, T>]) -> Seq {
    let seqs = || class.iter().map(|c| c.rank.seq);
    // If one beats all others, the fold finds it: whatever precedes it loses against it, and so does what follows.
    let candidate = seqs().reduce(Seq::max).unwrap_or_default();
    if seqs().all(|s| s == candidate || candidate.newer_than(s)) {
        candidate
    } else {
        seqs().max_by_key(|s| s.0).unwrap_or(candidate)
    }
}

/// MED within each neighbouring AS, the rest across all.
fn order_tied<T: Ord + Copy>(tied: &mut [Contender<'_, T>]) {
    if tied.len() < 2 {
        return;
    }
    if tied.iter().all(|c| c.rank.med == tied[0].rank.med) {
        tied.sort_unstable_by(Contender::by_source);
        return;
    }
    tied.sort_unstable_by(|a, b| {
        (a.rank.neighbor_as, a.rank.med).cmp(&(b.rank.neighbor_as, b.rank.med)).then_with(|| a.by_source(b))
    });
    let mut queues: Vec<Vec<Contender<'_, T>>> = tied
        .chunk_by(|a, b| a.rank.neighbor_as == b.rank.neighbor_as)
        .map(|q| q.iter().rev().copied().collect())
        .collect();
    for slot in tied {
        let heads = queues.iter().enumerate().filter_map(|(i, q)| Some((i, q.last()?)));
        let Some((best, _)) = heads.min_by(|(_, a), (_, b)| a.by_source(b)) else { return };
        if let Some(head) = queues[best].pop() {
            *slot = head;
        }
    }
}
