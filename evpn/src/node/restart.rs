//! Graceful restart (RFC 4724, RFC 8538, RFC 9494): how long a neighbour's routes stay when it is away, and what we do after
//! a restart of our own.
//!
//! A stale route forwards and is answered for like any other, but defends nothing (PIT-23): `mobility::compare` and
//! the order of candidates put it behind every route that is not.
//!
//! After our own restart the kernel has what the last run told it. Selection is deferred (BGP-GR-07) where that means
//! something: a MAC whose row was kept stays where it is until all neighbours have told their routes, unless one tells
//! a higher sequence than any known, which is a move. What was not kept is decided at once, and what is ours is told at once;
//! our End-of-RIB, by which the neighbours sweep, comes after.

use super::{Event, Node};
use crate::fabric::Row;
use crate::rib::Candidate;
use crate::session::{Agreed, Graceful, PeerRestart};
use crate::types::{Mac, PeerId, Seq, Span, Time, Vni};
use crate::wire::Family;
use serde::Serialize;
use std::collections::BTreeSet;

/// Graceful restart with one neighbour.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
pub struct RestartConfig {
    /// What our OPEN says.
    #[serde(flatten)]
    pub graceful: Graceful,
    /// How long stale routes stay once the neighbour is back and has not told them again (BGP-GR-17).
    pub stale_time: Span,
}

impl Default for RestartConfig {
    fn default() -> Self {
        Self { graceful: Graceful::default(), stale_time: Span::secs(180) }
    }
}

/// What is awaited of a neighbour whose routes are stale.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Stage {
    /// That it comes back within the restart time.
    Away,
    /// The same, beyond it (BGP-LLGR-03).
    LongAway,
    /// Its End-of-RIB.
    Telling,
}

/// Stale routes of a neighbour.
#[derive(Clone, Debug)]
pub(super) struct Stale {
    stage: Stage,
    /// When the stage ends, and the routes with it.
    until: Time,
    /// When the first of them became stale: the second loss of a neighbour that keeps failing is no new beginning.
    first: Time,
    /// What it said before it went.
    terms: PeerRestart,
    /// The long-lived timer, once it runs: no new session stops it (BGP-LLGR-04).
    long_until: Option<Time>,
}

/// Our own restart.
#[derive(Debug, Default)]
pub(super) struct Restart {
    /// Selection is deferred until then at the latest (BGP-GR-08).
    until: Option<Time>,
    /// MACs whose kept row stands against a route that may not be the last word.
    deferred: BTreeSet<(Vni, Mac)>,
}

impl Node {
    /// An earlier run of this boot has left the kernel's tables as they were (BGP-GR-02).
    pub(super) fn restarted(&mut self, at: Time) {
        self.restart.until = Some(at + self.config.selection_deferral);
        self.rib.hold_end_of_rib(true);
        for p in &mut self.peers {
            p.session.set_restarting(true, true);
        }
    }

    /// The session ended. Returns whether the neighbour's routes stay.
    pub(super) fn neighbor_lost(&mut self, i: usize, kept: bool, agreed: Option<&Agreed>, at: Time) {
        let peer = PeerId(i as u32);
        let terms = agreed.and_then(|a| a.graceful.clone()).filter(|_| kept);
        let terms = terms.filter(|t| t.family(Family::EVPN).is_some());
        let before = self.peers[i].stale.take();
        let long = |t: &PeerRestart| t.long_lived(Family::EVPN).is_some();
        let Some(terms) = terms.filter(|t| t.time > Span::ZERO || long(t)) else {
            return self.rib.peer_down(peer);
        };
        // BGP-GR-12
        self.rib.peer_lost(peer, terms.notification || long(&terms));
        let routes = self.rib.stale_count(peer);
        if routes == 0 {
            return;
        }
        let p = &mut self.peers[i];
        let first = before.as_ref().map_or(at, |s| s.first);
        let bound = first + terms.time + p.config.restart.stale_time;
        let long_until = before.and_then(|s| s.long_until);
        let (stage, until) = match long_until {
            Some(until) => (Stage::LongAway, until),
            None => (Stage::Away, (at + terms.time).min(bound)),
        };
        let event = Event::NeighborAway { peer, address: p.config.address, routes, keep: until.since(at) };
        p.stale = Some(Stale { stage, until, first, terms, long_until });
        if long_until.is_some() {
            self.rib.long_lived(peer);
        }
        self.journal.event(event, at);
    }

    /// It is back: what its OPEN says of what it had told before (BGP-GR-11, BGP-LLGR-05).
    pub(super) fn neighbor_back(&mut self, i: usize, at: Time) {
        let p = &mut self.peers[i];
        let Some(mut stale) = p.stale.take() else { return };
        let terms = p.up.as_ref().and_then(|(_, a)| a.graceful.clone());
        let forwards = |t: &PeerRestart| t.family(Family::EVPN).is_some_and(|f| f.forwarding);
        let long = |t: &PeerRestart| t.long_lived(Family::EVPN).is_some_and(|f| f.forwarding);
        let Some(terms) = terms.filter(|t| forwards(t) && (stale.long_until.is_none() || long(t))) else {
            return self.sweep_neighbor(i, "its new OPEN says that it has kept nothing", at);
        };
        stale.stage = Stage::Telling;
        stale.terms = terms;
        stale.until = stale.long_until.unwrap_or(at + p.config.restart.stale_time);
        p.stale = Some(stale);
    }

    /// It has told everything (BGP-GR-11).
    pub(super) fn neighbor_told_all(&mut self, i: usize, at: Time) {
        if self.peers[i].stale.take().is_some() {
            self.sweep_neighbor(i, "not told again before End-of-RIB", at);
        }
    }

    fn sweep_neighbor(&mut self, i: usize, why: &str, at: Time) {
        let peer = PeerId(i as u32);
        let routes = self.rib.drop_stale(peer);
        self.revision += 1;
        if routes > 0 {
            self.journal.add("stale_routes_dropped", routes as u64);
            let address = self.peers[i].config.address;
            self.journal.event(Event::StaleRoutesDropped { peer, address, routes, why: why.into() }, at);
        }
    }

    /// Times that are up.
    pub(super) fn due_restarts(&mut self, at: Time) {
        for i in 0..self.peers.len() {
            let Some(stale) = self.peers[i].stale.clone().filter(|s| s.until <= at) else { continue };
            let long = stale.terms.long_lived(Family::EVPN).map(|l| Span::secs(u64::from(l.time)));
            match (stale.stage, long.filter(|l| *l > Span::ZERO)) {
                (Stage::Away, Some(time)) => {
                    let time =
                        time.min(Span::secs(u64::from(self.peers[i].config.restart.graceful.long_lived)));
                    let until = at + time;
                    let stage = Stage::LongAway;
                    self.peers[i].stale = Some(Stale { stage, until, long_until: Some(until), ..stale });
                    self.rib.long_lived(PeerId(i as u32));
                    self.revision += 1;
                }
                (Stage::Away, None) => self.drop_stale_of(i, "the restart time is over", at),
                (Stage::LongAway, _) => self.drop_stale_of(i, "the long-lived stale time is over", at),
                (Stage::Telling, _) => self.drop_stale_of(i, "not told again in time", at),
            }
        }
        self.due_selection(at);
    }

    fn drop_stale_of(&mut self, i: usize, why: &str, at: Time) {
        self.peers[i].stale = None;
        self.sweep_neighbor(i, why, at);
    }

    pub(super) fn restart_timeout(&self) -> Option<(Time, &'static str)> {
        let stale = self.peers.iter().filter_map(|p| p.stale.as_ref()).map(|s| (s.until, "stale routes"));
        stale.chain(self.restart.until.map(|t| (t, "selection after a restart"))).min()
    }

    /// Whether the owner of a MAC is not decided yet (BGP-GR-07): its row was kept, the VTEP that it names has not told
    /// anything, and what another one tells may be older.
    pub(super) fn selection_waits(&mut self, vni: Vni, mac: Mac, candidates: &[Candidate]) -> bool {
        if self.restart.until.is_none() {
            return false;
        }
        let (Some(seg), Some(best)) = (self.segments.get(&vni), candidates.first()) else { return false };
        let Some(key) = seg.mac_key(mac).filter(|k| self.stale.contains(k)) else { return false };
        let Some(Row::Remote { vtep, .. }) = self.want.get(&key).copied() else { return false };
        let known = seg.memory.get(mac).map_or(Seq::ZERO, |r| r.seq);
        let waits = !candidates.iter().any(|c| c.vtep == vtep) && !best.seq.newer_than(known);
        if waits {
            self.restart.deferred.insert((vni, mac));
        }
        waits
    }

    /// All neighbours that are to be waited for have told their routes, and hosts of the last run have been asked; or the
    /// time is up (BGP-GR-07, -08).
    fn due_selection(&mut self, at: Time) {
        let Some(until) = self.restart.until else { return };
        let told = |p: &super::peers::Peer| match &p.up {
            // One that has no End-of-RIB to offer, or has restarted itself, is not waited for.
            Some((_, a)) => p.end_of_rib || a.graceful.as_ref().is_none_or(|g| g.restarting),
            None => !p.expected(),
        };
        // End-of-RIB would take the addresses of silent hosts away that are being asked (PROXY-MAINT-02).
        let asked = self.kept_hosts.is_settled();
        let complete = self.synced && !self.more_changes && asked && self.peers.iter().all(told);
        if !complete && at < until {
            return;
        }
        self.restart.until = None;
        self.rib.hold_end_of_rib(false);
        for p in &mut self.peers {
            p.session.set_restarting(false, true);
        }
        for (vni, mac) in std::mem::take(&mut self.restart.deferred) {
            self.decide_mac(vni, mac, at);
        }
    }
}
