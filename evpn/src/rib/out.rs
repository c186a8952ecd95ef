//! Adj-RIB-Out: what waits for a neighbour is a set of keys, what it gets is their state when there is room.
//!
//! A neighbour has exactly what its queue does not mention. A key enters the queue when its exported state
//! changes, with a note whether the neighbour has the route; it leaves when sent, or when the change cancels
//! out against a route that the neighbour never had. So nothing need be remembered per advertised route.
//! There is no minimum interval between advertisements: what changes while it waits is sent once (BGP-DEC-06).

use super::export::Scope;
use super::input::Best;
use super::sets::SetIx;
use super::table::{self, Host};
use super::{OWN, Rib, Up};
use crate::types::{EthTag, PeerId, Rd};
use crate::wire::{EvpnRoute, Family, MacIp, RouteKey, UpdateBuilder};
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};

/// Keys that one plan covers: bounds its memory; more are planned when these are sent.
const PLAN: usize = 16_384;

/// A key, small for the many Type-2 routes. Other kinds come first.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Dest {
    /// Anything else.
    Other(Box<RouteKey>),
    /// Type 2 with Ethernet tag 0.
    Host {
        /// MAC and IP.
        host: Host,
        /// Route distinguisher.
        rd: Rd,
    },
}

/// What a planned key is to become; in the order of sending.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Step {
    /// Flood lists and segments before what depends on them.
    AnnounceOther(Path),
    /// MAC-only, and MAC+IP that may share an UPDATE with it or goes without it.
    AnnounceHost(Path),
    /// MAC+IP whose MAC-only route goes first in another UPDATE (PIT-22).
    AnnounceBinding(Path),
    /// In UPDATEs of their own, after what replaces them.
    Withdraw,
}

/// What all routes of an UPDATE share: their set, and from whom they came, which a reflector writes into them.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
struct Path {
    set: SetIx,
    from: PeerId,
}

impl Step {
    const fn path(self) -> Option<Path> {
        match self {
            Self::AnnounceOther(s) | Self::AnnounceHost(s) | Self::AnnounceBinding(s) => Some(s),
            Self::Withdraw => None,
        }
    }
}

/// Keys of one urgency.
#[derive(Debug, Default)]
struct Lane {
    /// Keys, and whether the neighbour has a route under them.
    due: BTreeMap<Dest, bool>,
    /// Some of them, grouped for packing. May be outdated: `due` is the truth.
    plan: VecDeque<(Step, Dest)>,
    /// [`Rib::version`] when the plan was made.
    planned_at: u64,
    /// Where the next plan begins, so that keys that change all the time cannot starve others.
    from: Option<Dest>,
}

/// What one neighbour still has to be sent.
#[derive(Debug, Default)]
pub(super) struct Queue {
    urgent: Lane,
    normal: Lane,
    end_of_rib_due: bool,
    /// Routes that the neighbour has from us.
    pub(super) routes: usize,
    /// Routes that did not fit a message (BGP-MSG-03).
    pub(super) oversize: u64,
}

impl Queue {
    /// A session begins: End-of-RIB is due once the queue is empty.
    pub(super) fn start(&mut self) {
        *self = Self { end_of_rib_due: true, ..Self::default() };
    }

    fn lane(&mut self, urgent: bool) -> &mut Lane {
        if urgent { &mut self.urgent } else { &mut self.normal }
    }

    fn is_empty(&self) -> bool {
        self.urgent.due.is_empty() && self.normal.due.is_empty() && !self.end_of_rib_due
    }

    /// The exported state of a key changed from there (`had`) or not there to there (`now`) or not there.
    pub(super) fn mark(&mut self, dest: &Dest, had: bool, now: bool, urgent: bool) {
        // Once urgent, urgent until sent.
        let known = self.urgent.due.get(dest).copied();
        let (had, urgent) = match known {
            Some(had) => (had, true),
            None if urgent => (self.normal.due.remove(dest).unwrap_or(had), true),
            None => (self.normal.due.get(dest).copied().unwrap_or(had), false),
        };
        let lane = self.lane(urgent);
        if had || now {
            lane.due.insert(dest.clone(), had);
        } else {
            lane.due.remove(dest);
        }
    }
}

impl Rib {
    /// Whether `next_update` has something for this peer.
    pub fn has_updates(&self, peer: PeerId) -> bool {
        self.peers.get(&peer).is_some_and(|p| {
            (p.hears() && !p.out.is_empty())
                || p.rtc.as_ref().is_some_and(super::rtc::Constraint::has_updates)
        })
    }

    /// Whether something urgent (a move) waits for this peer.
    pub fn has_urgent(&self, peer: PeerId) -> bool {
        self.peers.get(&peer).is_some_and(|p| !p.out.urgent.due.is_empty())
    }

    /// Whether a Type-2 route, or its withdrawal, still waits for this peer.
    pub fn is_due(&self, peer: PeerId, key: &RouteKey) -> bool {
        let RouteKey::MacIp(rd, _, mac, ip) = key else { return false };
        let dest = Dest::Host { host: Host::new(*mac, *ip), rd: *rd };
        let due = |lane: &Lane| lane.due.contains_key(&dest);
        self.peers.get(&peer).is_some_and(|p| due(&p.out.urgent) || due(&p.out.normal))
    }

    /// The next UPDATE for an established peer, at most `max` octets, packed with routes of equal attributes;
    /// `None` when nothing is due, or when not even one route fits into a `max` below what the session allows.
    /// Ends with End-of-RIB after `peer_up`.
    pub fn next_update(&mut self, peer: PeerId, max: usize) -> Option<Bytes> {
        let up = self.peers.get(&peer)?.up?;
        if let Some(bytes) = self.next_membership_update(peer, up, max.min(up.max_send)) {
            return Some(bytes);
        }
        if !self.peers.get(&peer)?.hears() {
            return None;
        }
        for urgent in [true, false] {
            loop {
                let lane = self.peers.get_mut(&peer)?.out.lane(urgent);
                if lane.due.is_empty() {
                    lane.plan.clear();
                    break;
                }
                let mut lane = core::mem::take(lane);
                if lane.plan.is_empty() {
                    self.plan(peer, &mut lane);
                }
                let sent = self.emit(peer, up, max, &mut lane);
                *self.peers.get_mut(&peer)?.out.lane(urgent) = lane;
                match sent {
                    Emit::Update(update) => return Some(update),
                    Emit::NoRoom => return None,
                    Emit::Outdated => {}
                }
            }
        }
        if self.unfinished {
            return None;
        }
        let out = &mut self.peers.get_mut(&peer)?.out;
        core::mem::take(&mut out.end_of_rib_due).then(|| crate::wire::end_of_rib(Family::EVPN))
    }

    /// Notes for every established neighbour that the best route of a key changed.
    pub(super) fn due(&mut self, dest: Dest, before: Best, after: Best, urgent: bool) {
        self.version += 1;
        if self.looks_alike(&dest, before, after) {
            return;
        }
        let scopes = (self.scope(before), self.scope(after));
        let sets = &self.sets;
        let with = |s: Option<Scope>, best: Best| Some((s?, &sets.get(best?.1).attrs.ext_communities));
        let (before, after) = (with(scopes.0, before), with(scopes.1, after));
        for (id, p) in &mut self.peers {
            if !p.hears() {
                continue;
            }
            let kind = p.kind();
            let had = before.is_some_and(|(s, c)| s.includes(*id, kind) && p.wants(c));
            let now = after.is_some_and(|(s, c)| s.includes(*id, kind) && p.wants(c));
            if had || now {
                p.out.mark(&dest, had, now, urgent);
            }
        }
    }

    /// Everything that this neighbour may have is due, again (`had`) or for the first time.
    pub(super) fn everything_due(&mut self, peer: PeerId, had: bool) {
        let Some(p) = self.peers.get(&peer) else { return };
        if !p.hears() {
            return;
        }
        let learned = self.passes_on();
        let goes = |best| self.goes(best, peer);
        let mut due = Vec::new();
        for (key, _) in self.hosts.groups().flat_map(|(_, g)| g.after(None)) {
            if (key.peer == OWN || learned) && goes(self.best_host(key.rd, key.host)) {
                due.push(Dest::Host { host: key.host, rd: self.hosts.rd(key.rd) });
            }
        }
        for (key, from) in self.others.routes.keys() {
            if (*from == OWN || learned) && goes(self.best_other(key)) {
                due.push(Dest::Other(Box::new(key.clone())));
            }
        }
        let Some(p) = self.peers.get_mut(&peer) else { return };
        for dest in due {
            if !p.out.urgent.due.contains_key(&dest) {
                p.out.normal.due.entry(dest).or_insert(had);
            }
        }
    }

    /// What a key is for this neighbour now.
    fn step(&self, dest: &Dest, peer: PeerId) -> Step {
        let best = match dest {
            Dest::Host { host, rd } => self.hosts.find_rd(*rd).and_then(|ix| self.best_host(ix, *host)),
            Dest::Other(key) => self.best_other(key),
        };
        match best.filter(|_| self.goes(best, peer)) {
            None => Step::Withdraw,
            Some((from, set)) => match dest {
                Dest::Host { .. } => Step::AnnounceHost(Path { set, from }),
                Dest::Other(_) => Step::AnnounceOther(Path { set, from }),
            },
        }
    }

    /// Groups due keys so that those of equal attributes follow each other. O(n log n).
    fn plan(&self, peer: PeerId, lane: &mut Lane) {
        use core::ops::Bound::{Excluded, Included, Unbounded};
        let start = lane.from.as_ref().map_or(Unbounded, Included);
        let mut keys: Vec<&Dest> =
            lane.due.range::<Dest, _>((start, Unbounded)).map(|(d, _)| d).take(PLAN).collect();
        if let Some(from) = &lane.from {
            let wrapped = lane.due.range::<Dest, _>((Unbounded, Excluded(from))).map(|(d, _)| d);
            keys.extend(wrapped.take(PLAN - keys.len()));
        }
        let last = keys.last().map(|d| match d {
            // From the first route of the MAC, so that its MAC-only route is never behind.
            Dest::Host { host, .. } => Dest::Host { host: Host::new(host.mac(), None), rd: Rd::default() },
            Dest::Other(_) => (*d).clone(),
        });
        keys.sort_unstable();
        // MAC-only routes of the MAC at hand: MAC-only sorts before MAC+IP.
        let mut parents: Vec<(Host, Rd, Step)> = Vec::new();
        let mut plan: Vec<(Step, Dest)> = Vec::with_capacity(keys.len());
        for dest in keys {
            let mut step = self.step(dest, peer);
            if let (Dest::Host { host, rd }, Step::AnnounceHost(path)) = (dest, step) {
                if host.ip().is_none() {
                    parents.retain(|(h, ..)| h == host);
                    parents.push((*host, *rd, step));
                } else if parents.iter().any(|(h, r, s)| h.mac() == host.mac() && r == rd && *s != step) {
                    step = Step::AnnounceBinding(path);
                }
            }
            plan.push((step, dest.clone()));
        }
        plan.sort_unstable();
        lane.plan = plan.into();
        lane.planned_at = self.version;
        lane.from = last;
    }

    /// One message from the front of the plan.
    fn emit(&mut self, peer: PeerId, up: Up, max: usize, lane: &mut Lane) -> Emit {
        let limit = max.min(up.max_send);
        let fresh = lane.planned_at == self.version;
        let mut message: Option<(Step, UpdateBuilder)> = None;
        let (mut sent, mut gone, mut oversize) = (0, 0, 0);
        let mut no_room = false;
        while let Some((step, dest)) = lane.plan.front() {
            let step = *step;
            if message.as_ref().is_some_and(|(s, _)| *s != step) {
                break;
            }
            if !fresh && (!lane.due.contains_key(dest) || self.step(dest, peer).path() != step.path()) {
                lane.plan.pop_front();
                continue;
            }
            let (_, builder) = message.get_or_insert_with(|| (step, self.builder(step, peer, limit)));
            if !builder.push(&self.route(dest, step)) {
                if !builder.is_empty() {
                    break;
                }
                if max < up.max_send {
                    no_room = true;
                    break;
                }
                // Can never be sent. What the neighbour has instead must not stay.
                oversize += 1;
                let had = lane.due.remove(dest) == Some(true);
                let key = dest.key();
                lane.plan.pop_front();
                if had {
                    gone += 1;
                    let mut withdrawal = UpdateBuilder::unreach(limit);
                    withdrawal.push(&key.to_withdraw_route());
                    message = Some((Step::Withdraw, withdrawal));
                    break;
                }
                continue;
            }
            match (lane.due.remove(dest), step) {
                (Some(true), Step::Withdraw) => gone += 1,
                (Some(false), Step::AnnounceOther(_) | Step::AnnounceHost(_) | Step::AnnounceBinding(_)) => {
                    sent += 1;
                }
                (Some(_) | None, _) => {}
            }
            lane.plan.pop_front();
        }
        if let Some(p) = self.peers.get_mut(&peer) {
            p.out.routes = (p.out.routes + sent).saturating_sub(gone);
            p.out.oversize += oversize;
        }
        match message.and_then(|(_, b)| b.finish()) {
            Some(bytes) => Emit::Update(bytes),
            None if no_room => Emit::NoRoom,
            None => Emit::Outdated,
        }
    }

    fn builder(&self, step: Step, peer: PeerId, limit: usize) -> UpdateBuilder {
        let p = self.peers.get(&peer);
        match step.path() {
            None => UpdateBuilder::unreach(limit),
            Some(Path { set, from }) => {
                let attrs = self.attrs_for(from, set, self.kind(peer));
                let as4 = p.and_then(|p| p.up).is_none_or(|up| up.as4);
                UpdateBuilder::reach(&attrs, self.sets.get(set).key.next_hop, limit, as4)
            }
        }
    }

    /// The NLRI of a planned key.
    fn route(&self, dest: &Dest, step: Step) -> EvpnRoute {
        let Some(Path { set, .. }) = step.path() else { return dest.key().to_withdraw_route() };
        match dest {
            Dest::Host { host, rd } => {
                let set = &self.sets.get(set).key;
                EvpnRoute::MacIp(MacIp {
                    rd: *rd,
                    esi: set.esi,
                    tag: EthTag(0),
                    mac: host.mac(),
                    ip: host.ip(),
                    label1: set.label1,
                    label2: set.label2,
                })
            }
            Dest::Other(key) => self.other_route(key),
        }
    }

    /// The best route under a key that is not in the host tables.
    fn other_route(&self, key: &RouteKey) -> EvpnRoute {
        let best = self.best_other(key).and_then(|(peer, _)| self.others.routes.get(&(key.clone(), peer)));
        table::whole(key, best.and_then(|o| o.whole.as_deref()))
    }
}

/// Outcome of an attempt to fill a message.
enum Emit {
    Update(Bytes),
    /// The caller's limit is too small for the next route.
    NoRoom,
    /// All that was planned has changed since.
    Outdated,
}

impl Dest {
    /// The key as the rest of the world knows it.
    fn key(&self) -> RouteKey {
        match self {
            Self::Host { host, rd } => RouteKey::MacIp(*rd, EthTag(0), host.mac(), host.ip()),
            Self::Other(key) => RouteKey::clone(key),
        }
    }
}
