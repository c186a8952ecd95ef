//! Route target constraint (RFC 4684), both roles: what a neighbour wants of our routes, and what it is told that we
//! and those behind us want.
//!
//! A neighbour that speaks it is sent only routes one of whose route targets it has asked for. Until it has told all it
//! wants (End-of-RIB of 1/132), or for a minute at most, its routes wait (BGP-RTC-05). Memberships are routes
//! of their own and go on as others do: a client's to everybody, and so on. A reflector's clients are told that it
//! wants everything, because it must have what it is to reflect.

use super::eligible::{self, WhyNot};
use super::input::Best;
use super::out::Dest;
use super::reflect::Kind;
use super::sets::SetIx;
use super::{Import, OWN, Peer, Rib, Up};
use crate::types::{Asn, PeerId};
use crate::wire::{
    AsPath, Attrs, EncodeCtx, ExtCommunity, Family, Membership, Message, MpReach, MpUnreach, NextHop, Nlri,
    Origin, Treatment, Update, end_of_rib,
};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

/// Memberships kept of a neighbour. One that tells more is sent every route.
const MOST: usize = 16_384;
/// Memberships in one UPDATE.
const PER_UPDATE: usize = 64;
/// Octets of attributes with which a membership is passed on: what is added on the way, and [`PER_UPDATE`] of them, fit a
/// message of 4096 octets all the same (BGP-MSG-03). One with more counts for its neighbour alone.
const ROOM: usize = 1500;
/// Everything (BGP-RTC-03).
const DEFAULT: Membership = Membership { bits: 0, origin: Asn(0), target: ExtCommunity([0; 8]) };

/// What a neighbour wants, for quick answers.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
struct Filter {
    all: bool,
    exact: BTreeSet<ExtCommunity>,
    /// Leading bits, fewer than 64, and the value; the rest of it is zero.
    prefixes: BTreeSet<(u8, u64)>,
}

impl Filter {
    fn new<'a>(told: impl Iterator<Item = &'a Membership>) -> Self {
        let mut f = Self::default();
        for m in told {
            // The origin AS says who wants it, and nothing about the route (RFC 4684 §4).
            match m.bits {
                0..=32 => f.all |= m.bits == 0 || m.bits == 32,
                33..=95 => {
                    f.prefixes.insert((m.bits - 32, u64::from_be_bytes(m.target.0)));
                }
                _ => {
                    f.exact.insert(m.target);
                }
            }
        }
        f
    }

    /// BGP-RTC-04, -06: whether one of the route targets, ES-Import among them, is wanted.
    fn passes(&self, communities: &[ExtCommunity]) -> bool {
        let is_target = |c: &ExtCommunity| c.is_route_target() || matches!(c.0, [6, 2, ..]);
        let wanted = |c: &ExtCommunity| {
            let value = u64::from_be_bytes(c.0);
            let under = |(bits, prefix): &(u8, u64)| (value ^ prefix) >> (64 - bits) == 0;
            self.exact.contains(c) || self.prefixes.iter().any(under)
        };
        self.all || communities.iter().any(|c| is_target(c) && wanted(c))
    }
}

/// Route target membership with one neighbour, while its session is up.
#[derive(Debug)]
pub(super) struct Constraint {
    /// What it has told us; with the attributes if others are told, too.
    told: BTreeMap<Membership, Option<Arc<Attrs>>>,
    filter: Filter,
    /// Its routes wait for its End-of-RIB of this family.
    waiting: bool,
    /// What we have told it.
    sent: BTreeMap<Membership, Attrs>,
    /// That may have changed.
    dirty: bool,
    end_of_rib_due: bool,
}

impl Constraint {
    pub(super) fn new() -> Self {
        Self {
            told: BTreeMap::new(),
            filter: Filter::default(),
            waiting: true,
            sent: BTreeMap::new(),
            dirty: true,
            // BGP-RTC-05: whatever was said of graceful restart.
            end_of_rib_due: true,
        }
    }

    pub(super) const fn has_updates(&self) -> bool {
        self.dirty || self.end_of_rib_due
    }
}

impl Peer {
    /// EVPN routes go to it now.
    pub(super) fn hears(&self) -> bool {
        self.up.is_some_and(|up| up.evpn) && self.rtc.as_ref().is_none_or(|c| !c.waiting)
    }

    /// It has asked for a route with these communities, or for all.
    pub(super) fn wants(&self, communities: &[ExtCommunity]) -> bool {
        self.rtc.as_ref().is_none_or(|c| c.filter.passes(communities))
    }
}

impl Rib {
    /// Whether a neighbour's routes wait until it has said what it wants. After a minute
    /// [`Self::end_wait`] is to end it (BGP-RTC-05).
    pub fn waits_for_memberships(&self, peer: PeerId) -> bool {
        self.peers.get(&peer).and_then(|p| p.rtc.as_ref()).is_some_and(|c| c.waiting)
    }

    /// A neighbour that has not said all that it wants gets its routes now.
    pub fn end_wait(&mut self, peer: PeerId) {
        let Some(p) = self.peers.get_mut(&peer) else { return };
        let Some(c) = p.rtc.as_mut().filter(|c| c.waiting) else { return };
        c.waiting = false;
        p.out.start();
        self.everything_due(peer, false);
    }

    /// Whether the best route of a key is for this neighbour.
    pub(super) fn goes(&self, best: Best, to: PeerId) -> bool {
        let (Some(scope), Some((_, set)), Some(p)) = (self.scope(best), best, self.peers.get(&to)) else {
            return false;
        };
        scope.includes(to, p.kind()) && p.wants(&self.sets.get(set).attrs.ext_communities)
    }

    /// What we want, or somebody behind us, has changed: everybody may have to be told.
    pub(super) fn memberships_changed(&mut self) {
        for c in self.peers.values_mut().filter_map(|p| p.rtc.as_mut()) {
            c.dirty = true;
        }
    }

    /// The memberships of an UPDATE.
    pub(super) fn take_memberships(&mut self, peer: PeerId, update: &Update, treatment: Option<Treatment>) {
        let part = |nlri: &Nlri| match nlri {
            Nlri::Rtc(list) => list.clone(),
            Nlri::Evpn(_) | Nlri::Ipv4(_) | Nlri::Ipv6(_) | Nlri::Unknown(_) => Vec::new(),
        };
        let mut gone = update.unreach.as_ref().map(|u| part(&u.nlri)).unwrap_or_default();
        let mut new = update.reach.as_ref().map(|r| part(&r.nlri)).unwrap_or_default();
        // BGP-RR-05, BGP-DEC-08: what has been here before counts for nothing.
        let loops = update.reach.as_ref().is_some_and(|r| {
            let bar = eligible::bar(&self.config, &update.attrs, r.next_hop);
            matches!(bar, Some(WhyNot::OwnAs | WhyNot::OwnOriginator | WhyNot::OwnCluster))
        });
        if loops || treatment == Some(Treatment::TreatAsWithdraw) {
            gone.append(&mut new);
        }
        let Some(c) = self.peers.get_mut(&peer).and_then(|p| p.rtc.as_mut()) else { return };
        let alone = Message::Update(Update { attrs: update.attrs.clone(), ..Update::default() });
        let fits = alone.encode(&EncodeCtx::default()).len() <= ROOM;
        let attrs = fits.then(|| Arc::new(update.attrs.clone()));
        let mut changed = false;
        for m in gone {
            changed |= c.told.remove(&m).is_some();
        }
        for m in new {
            if c.told.len() < MOST || c.told.contains_key(&m) {
                changed |= c.told.insert(m, attrs.clone()).as_ref() != Some(&attrs);
            }
        }
        if changed {
            let mut filter = Filter::new(c.told.keys());
            filter.all |= c.told.len() >= MOST;
            let old = core::mem::replace(&mut c.filter, filter);
            self.memberships_changed();
            self.refilter(peer, &old);
        }
        if update.end_of_rib() == Some(Family::RTC) {
            self.end_wait(peer);
        }
    }

    /// BGP-RTC-04: only what is wanted now and was not, or the other way round, is sent or withdrawn.
    fn refilter(&mut self, peer: PeerId, old: &Filter) {
        let Some(p) = self.peers.get(&peer).filter(|p| p.hears()) else { return };
        let Some(now) = p.rtc.as_ref().map(|c| &c.filter) else { return };
        let differs = |c: &[ExtCommunity]| old.passes(c) != now.passes(c);
        let sets: BTreeMap<SetIx, bool> = self
            .sets
            .iter()
            .filter(|(_, s)| differs(&s.attrs.ext_communities))
            .map(|(ix, s)| (ix, old.passes(&s.attrs.ext_communities)))
            .collect();
        if sets.is_empty() {
            return;
        }
        let reaches = |best: Best| self.scope(best).is_some_and(|s| s.includes(peer, p.kind()));
        let mut due = Vec::new();
        for (key, set) in self.hosts.groups().flat_map(|(_, g)| g.after(None)) {
            let Some(had) = sets.get(&set) else { continue };
            let best = self.best_host(key.rd, key.host);
            if best == Some((key.peer, set)) && reaches(best) {
                due.push((Dest::Host { host: key.host, rd: self.hosts.rd(key.rd) }, *had));
            }
        }
        for ((key, from), route) in &self.others.routes {
            let Some(had) = sets.get(&route.set) else { continue };
            let best = self.best_other(key);
            if best == Some((*from, route.set)) && reaches(best) {
                due.push((Dest::Other(Box::new(key.clone())), *had));
            }
        }
        // Plans made before looked at other wishes.
        self.version += 1;
        let Some(p) = self.peers.get_mut(&peer) else { return };
        for (dest, had) in due {
            p.out.mark(&dest, had, !had, false);
        }
    }

    /// What a neighbour is to be told.
    fn memberships_for(&self, to: PeerId) -> BTreeMap<Membership, Attrs> {
        let kind = self.kind(to);
        let own = Attrs { origin: Some(Origin::Igp), as_path: Some(AsPath::default()), ..Attrs::default() };
        let own = self.outgoing(&own, OWN, kind);
        let mut out = BTreeMap::new();
        let mut autos = false;
        for (vni, import) in self.targets.policies() {
            match import {
                Import::Auto => {
                    autos = true;
                    let forms = [
                        Some(ExtCommunity::auto_target(self.config.asn, vni)),
                        ExtCommunity::auto_target_rfc8365(self.config.asn, vni),
                    ];
                    out.extend(forms.into_iter().flatten().map(|t| (self.whole(t), own.clone())));
                }
                Import::List(list) => out.extend(list.iter().map(|t| (self.whole(*t), own.clone()))),
            }
        }
        // Automatic import takes targets of any AS, and those of others are not known.
        if kind == Kind::Client || (autos && kind == Kind::External) {
            return [(DEFAULT, own)].into();
        }
        let mut learned: BTreeMap<Membership, ((usize, PeerId), Attrs)> = BTreeMap::new();
        for (from, p) in self.peers.iter().filter(|(id, _)| **id != to) {
            // As any route: BGP-DEC-05, BGP-RR-01.
            if p.kind() == Kind::Internal && kind == Kind::Internal {
                continue;
            }
            for (m, attrs) in p.rtc.iter().flat_map(|c| &c.told).filter(|(m, _)| !out.contains_key(*m)) {
                let Some(attrs) = attrs else { continue };
                let rank = (attrs.as_path.as_ref().map_or(0, AsPath::count), *from);
                if learned.get(m).is_none_or(|(best, _)| rank < *best) {
                    learned.insert(*m, (rank, self.outgoing(attrs, *from, kind)));
                }
            }
        }
        out.extend(learned.into_iter().map(|(m, (_, attrs))| (m, attrs)));
        out
    }

    const fn whole(&self, target: ExtCommunity) -> Membership {
        Membership { bits: 96, origin: self.config.asn, target }
    }

    /// The next UPDATE of this family, of at most `max` octets: withdrawals, then what is new, then End-of-RIB.
    pub(super) fn next_membership_update(&mut self, peer: PeerId, up: Up, max: usize) -> Option<Bytes> {
        let c = self.peers.get(&peer)?.rtc.as_ref().filter(|c| c.has_updates())?;
        if c.dirty {
            let want = self.memberships_for(peer);
            let gone: Vec<Membership> =
                c.sent.keys().filter(|m| !want.contains_key(m)).take(PER_UPDATE).copied().collect();
            let mut new = want.iter().filter(|(m, a)| c.sent.get(m) != Some(a));
            let mut update = Update::default();
            let mut told: Vec<Membership> = Vec::new();
            let family = Family::RTC;
            if !gone.is_empty() {
                update.unreach = Some(MpUnreach { family, nlri: Nlri::Rtc(gone.clone()) });
            } else if let Some((first, attrs)) = new.next() {
                told.push(*first);
                told.extend(new.filter(|(_, a)| *a == attrs).take(PER_UPDATE - 1).map(|(m, _)| *m));
                let next_hop = match self.config.vtep {
                    IpAddr::V4(a) => NextHop::V4(a),
                    IpAddr::V6(a) => NextHop::V6(a),
                };
                update.attrs = attrs.clone();
                update.reach = Some(MpReach { family, next_hop, nlri: Nlri::Rtc(told.clone()) });
            }
            if !gone.is_empty() || !told.is_empty() {
                let ctx = EncodeCtx { as4: up.as4, ..EncodeCtx::default() };
                let attrs = core::mem::take(&mut update.attrs);
                let bytes = Message::Update(Update { attrs: attrs.clone(), ..update }).encode(&ctx);
                if bytes.len() > max {
                    return None;
                }
                let c = self.peers.get_mut(&peer)?.rtc.as_mut()?;
                c.sent.retain(|m, _| gone.binary_search(m).is_err());
                c.sent.extend(told.into_iter().map(|m| (m, attrs.clone())));
                return Some(bytes);
            }
        }
        let c = self.peers.get_mut(&peer)?.rtc.as_mut()?;
        c.dirty = false;
        core::mem::take(&mut c.end_of_rib_due).then(|| end_of_rib(Family::RTC))
    }

    /// The peer asks for what we want again (RFC 2918).
    pub fn refresh_memberships(&mut self, peer: PeerId) {
        if let Some(c) = self.peers.get_mut(&peer).and_then(|p| p.rtc.as_mut()) {
            c.sent.clear();
            c.dirty = true;
        }
    }
}
