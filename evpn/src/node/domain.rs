//! Who may take an address over: mobility domains and limits of moves. "Keep the hot mobility domain small" as a
//! setting.
//!
//! What is refused stays in the RIB and is looked at again, so that the fabric is in the end as it would be without
//! limits: nothing is decided once and for all. A claim is refused only while whoever has the address still claims
//! it, too: nobody is cut off for the sake of a limit.

use super::config::VniMobility;
use super::input::About;
use super::remote::claim_of;
use super::view::Place;
use super::{Event, Node};
use crate::fabric::Row;
use crate::hosts::{Binding, Owner};
use crate::mobility::{self, Claim, Holder, LocalSign};
use crate::rib::Candidate;
use crate::types::{IfIndex, Mac, Span, Time, Vni};
use core::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;

/// MACs whose owners are remembered; those of further ones are not limited.
const OWNED: usize = 65_536;
const MINUTE: Span = Span::secs(60);
const HOUR: Span = Span::secs(3600);

/// A MAC that has been claimed and stays where it is.
#[derive(Clone, Debug)]
struct Refused {
    /// Who claims it, and why it may not have it.
    to: Place,
    why: &'static str,
    /// When it is looked at again, if it is a matter of time.
    again: Option<Time>,
    /// It waits on this port of ours, against this claim.
    waits: Option<(IfIndex, Claim)>,
}

/// What the limits have counted.
#[derive(Debug, Default)]
pub(super) struct Moderation {
    /// Per VNI: when the moves of so far would all have been allowed one by one (virtual scheduling).
    spent: BTreeMap<Vni, Time>,
    owners: BTreeMap<(Vni, Mac), Vec<(Holder, Time)>>,
    expiry: VecDeque<(Time, (Vni, Mac))>,
    refused: BTreeMap<(Vni, Mac), Refused>,
    due: BTreeSet<(Time, Vni, Mac)>,
}

impl Moderation {
    pub(super) fn poll_timeout(&self) -> Option<(Time, &'static str)> {
        self.due.first().map(|(t, ..)| (*t, "refused move"))
    }

    pub(super) fn len(&self) -> usize {
        self.refused.len()
    }

    /// Who may not have a MAC, why, and when it is tried again.
    pub(super) fn refusal(&self, vni: Vni, mac: Mac) -> Option<(&Place, &'static str, Option<Time>)> {
        self.refused.get(&(vni, mac)).map(|r| (&r.to, r.why, r.again))
    }

    /// When so many moves a minute allow the next one; `None`: now.
    fn next_move(&self, vni: Vni, limit: u32, at: Time) -> Option<Time> {
        let each = Span(MINUTE.0 / u64::from(limit.max(1)));
        let after = self.spent.get(&vni).copied().unwrap_or(Time(0)).max(at) + each;
        // A whole minute's moves may come at once.
        (limit > 0 && after.since(at) > MINUTE).then(|| after - MINUTE)
    }

    fn next_owner(&self, vni: Vni, mac: Mac, to: Holder, limit: u32, at: Time) -> Option<Time> {
        let seen = self.owners.get(&(vni, mac)).filter(|_| limit > 0)?;
        let fresh = seen.iter().filter(|(_, t)| at.since(*t) < HOUR);
        if fresh.clone().any(|(h, _)| *h == to) || fresh.clone().count() < limit as usize {
            return None;
        }
        fresh.map(|(_, t)| *t).min().map(|t| t + HOUR)
    }

    fn count(&mut self, vni: Vni, mac: Mac, from: Holder, to: Holder, rules: &VniMobility, at: Time) {
        if rules.moves_per_minute > 0 {
            let spent = self.spent.entry(vni).or_insert(at);
            *spent = (*spent).max(at) + Span(MINUTE.0 / u64::from(rules.moves_per_minute));
            // Moves that could not be refused do not put others off for ever.
            *spent = (*spent).min(at + MINUTE + MINUTE);
        }
        if rules.owners_per_hour == 0 {
            return;
        }
        while let Some((t, key)) = self.expiry.front().copied()
            && t <= at
        {
            self.expiry.pop_front();
            if self.owners.get(&key).is_some_and(|o| o.iter().any(|(_, t)| at.since(*t) < HOUR)) {
                self.expiry.push_back((at + HOUR, key));
            } else {
                self.owners.remove(&key);
            }
        }
        if !self.owners.contains_key(&(vni, mac)) {
            if self.owners.len() >= OWNED {
                return;
            }
            self.expiry.push_back((at + HOUR, (vni, mac)));
        }
        let owners = self.owners.entry((vni, mac)).or_default();
        owners.retain(|(h, t)| at.since(*t) < HOUR && *h != from && *h != to);
        owners.extend([(from, at), (to, at)]);
    }

    fn forget(&mut self, vni: Vni, mac: Mac) {
        if let Some(r) = self.refused.remove(&(vni, mac))
            && let Some(t) = r.again
        {
            self.due.remove(&(t, vni, mac));
        }
    }
}

pub(super) fn inside(rules: &VniMobility, vtep: IpAddr) -> bool {
    rules.domain.is_empty() || rules.domain.iter().any(|p| p.contains(vtep))
}

fn unlimited(rules: &VniMobility) -> bool {
    rules.domain.is_empty() && rules.moves_per_minute == 0 && rules.owners_per_hour == 0
}

impl Node {
    /// The best claim on a MAC among those that count.
    pub(super) fn admit_mac(
        &mut self,
        vni: Vni,
        mac: Mac,
        candidates: &[Candidate],
        at: Time,
    ) -> Option<Claim> {
        if let Some(kept) = self.frozen_claim(vni, mac, candidates, at) {
            return Some(kept);
        }
        let best = candidates.first().map(claim_of);
        let seg = self.segments.get(&vni)?;
        let rules = &seg.config.mobility;
        if unlimited(rules) {
            return best;
        }
        let owner = seg.hosts.macs.get(&mac).map(|e| e.owner);
        let ours = match owner {
            Some(Owner::Local(l)) => Some(seg.our_claim(mac, l.seq, self.config.vtep)),
            Some(Owner::Remote(_)) | None => None,
        };
        let within = candidates.iter().find(|c| inside(rules, c.vtep));
        let held = ours.is_some() || within.is_some_and(|c| !c.stale);
        let admitted = if held { within.map(claim_of) } else { best };
        if let Some(b) = best.filter(|b| held && !inside(rules, b.vtep)) {
            let wins = ours.is_none_or(|o| mobility::compare(&b, &o) == Ordering::Greater);
            if wins {
                let from = self.holder_place(vni, mac, admitted);
                self.refuse_vtep(vni, mac, from, b.vtep, "outside the mobility domain", None, None, at);
            }
        } else {
            self.moderation_over(vni, mac, None);
        }
        self.moderate(vni, mac, owner, ours, admitted, candidates, at)
    }

    /// Limits, for a claim that is in the domain.
    fn moderate(
        &mut self,
        vni: Vni,
        mac: Mac,
        owner: Option<Owner>,
        ours: Option<Claim>,
        admitted: Option<Claim>,
        candidates: &[Candidate],
        at: Time,
    ) -> Option<Claim> {
        let claim = admitted?;
        let (from, kept) = match owner {
            None => return admitted,
            Some(Owner::Local(_)) => {
                if ours.is_none_or(|o| mobility::compare(&claim, &o) != Ordering::Greater) {
                    return admitted;
                }
                (Holder::Here, None)
            }
            Some(Owner::Remote(r)) if r.claim.vtep == claim.vtep => return admitted,
            Some(Owner::Remote(r)) => {
                let old = candidates.iter().find(|c| c.vtep == r.claim.vtep && !c.stale);
                (Holder::There(r.claim.vtep), old.map(claim_of))
            }
        };
        // The old owner has given it up, or a sticky claim settles it: no choice.
        let choice = (from == Holder::Here || kept.is_some()) && !claim.sticky && !claim.gateway;
        let to = Holder::There(claim.vtep);
        if choice && let Some((again, why)) = self.over_limit(vni, mac, to, at) {
            let place = self.holder_place(vni, mac, kept);
            self.refuse_vtep(vni, mac, place, claim.vtep, why, Some(again), None, at);
            return kept;
        }
        if let Some(seg) = self.segments.get(&vni) {
            self.moderation.count(vni, mac, from, to, &seg.config.mobility, at);
        }
        self.moderation_over(vni, mac, Some(at));
        admitted
    }

    /// When it may be tried again, and why not now.
    fn over_limit(&self, vni: Vni, mac: Mac, to: Holder, at: Time) -> Option<(Time, &'static str)> {
        let rules = &self.segments.get(&vni)?.config.mobility;
        if let Some(t) = self.moderation.next_owner(vni, mac, to, rules.owners_per_hour, at) {
            return Some((t, "too many owners within an hour"));
        }
        let each = Span(MINUTE.0 / u64::from(rules.moves_per_minute.max(1)));
        let t = self.moderation.next_move(vni, rules.moves_per_minute, at)?;
        // Whoever waits has a turn of its own.
        let queue = self.moderation.due.len() as u64;
        Some((t + Span(each.0.saturating_mul(queue)), "too many moves within a minute"))
    }

    /// A MAC that another VTEP has shows up on a port of ours: may it move now?
    pub(super) fn moderate_claim(
        &mut self,
        vni: Vni,
        mac: Mac,
        port: IfIndex,
        remote: &Claim,
        sign: LocalSign,
        at: Time,
    ) -> LocalSign {
        let Some(seg) = self.segments.get(&vni).filter(|s| !unlimited(&s.config.mobility)) else {
            return sign;
        };
        if sign != LocalSign::Claim {
            return sign;
        }
        let (from, rules) = (Holder::There(remote.vtep), &seg.config.mobility);
        if !remote.stale
            && let Some((again, why)) = self.over_limit(vni, mac, Holder::Here, at)
        {
            let to = Place::Port(self.dev_name(port));
            let waits = Some((port, *remote));
            self.refuse_place(vni, mac, Place::Vtep(remote.vtep), to, why, Some(again), waits, at);
            return LocalSign::Held;
        }
        self.moderation.count(vni, mac, from, Holder::Here, rules, at);
        self.moderation_over(vni, mac, Some(at));
        sign
    }

    fn holder_place(&self, vni: Vni, mac: Mac, claim: Option<Claim>) -> Place {
        let entry = self.segments.get(&vni).and_then(|s| s.hosts.macs.get(&mac));
        match (entry.and_then(|e| e.local()), claim) {
            (Some(l), _) => Place::Port(self.dev_name(l.port)),
            (None, Some(c)) => Place::Vtep(c.vtep),
            (None, None) => Place::None,
        }
    }

    fn refuse_vtep(
        &mut self,
        vni: Vni,
        mac: Mac,
        from: Place,
        to: IpAddr,
        why: &'static str,
        again: Option<Time>,
        waits: Option<(IfIndex, Claim)>,
        at: Time,
    ) {
        self.refuse_place(vni, mac, from, Place::Vtep(to), why, again, waits, at);
    }

    /// Told once as long as it lasts.
    fn refuse_place(
        &mut self,
        vni: Vni,
        mac: Mac,
        from: Place,
        to: Place,
        why: &'static str,
        again: Option<Time>,
        waits: Option<(IfIndex, Claim)>,
        at: Time,
    ) {
        let key = (vni, mac);
        if let Some(r) = self.moderation.refused.get_mut(&key) {
            // It keeps its turn.
            r.waits = waits.or(r.waits);
            (r.to, r.why) = (to, why);
            if r.again.is_none_or(|t| t <= at)
                && let Some(t) = again
            {
                r.again = Some(t);
                self.moderation.due.insert((t, vni, mac));
            }
            return;
        }
        self.moderation.refused.insert(key, Refused { to: to.clone(), why, again, waits });
        self.moderation.due.extend(again.map(|t| (t, vni, mac)));
        self.journal.count("moves_refused");
        let event = Event::MoveRefused { vni, address: About::Mac(mac), from, to, why: why.to_owned() };
        self.journal.event(event, at);
    }

    /// Not refused (any more). `None`: only what was refused because of where it comes from.
    fn moderation_over(&mut self, vni: Vni, mac: Mac, moved: Option<Time>) {
        if self.moderation.refused.get(&(vni, mac)).is_some_and(|r| moved.is_some() || r.again.is_none()) {
            self.moderation.forget(vni, mac);
        }
    }

    /// Moves that were refused are tried again when the limits allow them.
    pub(super) fn due_refused(&mut self, at: Time) {
        while let Some(&(t, vni, mac)) = self.moderation.due.first()
            && t <= at
        {
            self.moderation.due.pop_first();
            let waits = self.moderation.refused.get(&(vni, mac)).and_then(|r| r.waits);
            let entry = self.segments.get(&vni).and_then(|s| s.hosts.macs.get(&mac));
            let same = entry.and_then(|e| e.remote()).map(|r| r.claim);
            if let Some((port, claim)) = waits
                && same == Some(claim)
                && self.taps.get(&port) == Some(&vni)
            {
                if self.moderate_claim(vni, mac, port, &claim, LocalSign::Claim, at) == LocalSign::Claim {
                    self.claim_waiting(vni, mac, port, claim, at);
                }
                continue;
            }
            if let Some(r) = self.moderation.refused.get_mut(&(vni, mac)) {
                r.again = None;
                r.waits = None;
            }
            self.decide_mac(vni, mac, at);
            // Whoever is not refused again has moved, or there is nothing to move any more.
            if self.moderation.refused.get(&(vni, mac)).is_some_and(|r| r.again.is_none()) {
                self.moderation_over(vni, mac, None);
            }
        }
    }

    fn claim_waiting(&mut self, vni: Vni, mac: Mac, port: IfIndex, remote: Claim, at: Time) {
        self.claim(vni, mac, port, Some(remote), at);
        // The kernel shows it elsewhere: it was put back when it was refused.
        let Some(seg) = self.segments.get(&vni) else { return };
        if let (Some(key), Some(vxlan)) = (seg.mac_key(mac), seg.vxlan) {
            self.want_set(key, Row::Local { vxlan, port }, true);
            self.want.mark(key, true);
        }
    }

    /// The candidates for an IP that count.
    pub(super) fn admit_ip(
        &mut self,
        vni: Vni,
        ip: IpAddr,
        candidates: Vec<Candidate>,
        at: Time,
    ) -> Vec<Candidate> {
        // A gateway's address is nobody's host at any VTEP (EVPN-MOB-19).
        if self.is_gateways(vni, ip) {
            self.journal.add("gateway_routes_refused", candidates.len() as u64);
            return Vec::new();
        }
        let (mut candidates, fixed) = self.fixed_routes(vni, ip, candidates, at);
        if !fixed {
            candidates = self.frozen_binding(vni, ip, candidates, at);
        }
        let Some(seg) = self.segments.get(&vni) else { return candidates };
        let rules = &seg.config.mobility;
        if rules.domain.is_empty() {
            return candidates;
        }
        let here = seg.hosts.binding(ip).is_some_and(Binding::is_local);
        if here || candidates.iter().any(|c| !c.stale && inside(rules, c.vtep)) {
            let before = candidates.len();
            candidates.retain(|c| inside(rules, c.vtep));
            if candidates.len() < before {
                self.journal.count("ip_moves_refused");
            }
        }
        candidates
    }
}
