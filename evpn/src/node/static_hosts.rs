//! Static hosts: addresses that an operator has bound to one or more MACs (PROXY-LEARN-03, -04), and those that a peer calls
//! immutable (RFC 9047 §3, PROXY-EC-04).
//!
//! A binding of ours is there while one of its MACs is behind a port of ours. With one MAC it begins as soon as that is
//! seen; of several only the one that answers for the address, or says that it has it, gets it. It is advertised with I=1, and
//! stays for as long as its MAC does, whether or not the host answers: many are bound by hand because they do not.
//!
//! No other MAC gets the address. A local host that claims it is refused, told, and the hosts behind our ports are told again
//! whose it is. A route with another MAC is refused as well, also an immutable one: what is configured here counts here.
//!
//! An immutable binding of a peer goes before all others, whatever their sequences; where it is follows its MAC, which may
//! move. Of several the one that came last counts, and an operator is told.

use super::bindings::{Said, candidate_mac};
use super::domain::inside;
use super::frames::FIRST_PROBE;
use super::segment::Segment;
use super::sometimes::Sometimes;
use super::view::Place;
use super::{Event, Node};
use crate::hosts::{BindingOrigin, Evidence};
use crate::rib::Candidate;
use crate::types::{IfIndex, Mac, Seq, Span, Time, Vni};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// After a spoofed announcement the hosts are told at most so often.
const TELL_EVERY: Span = Span::millis(100);
/// Spoofed addresses that are told of in that time.
const TOLD: usize = 4096;

/// See the module.
#[derive(Debug)]
pub(super) struct StaticHosts {
    told: Sometimes<(Vni, IpAddr)>,
    /// Of addresses with several immutable routes, the MACs in the order in which they came. As many as there are such
    /// routes.
    order: BTreeMap<(Vni, IpAddr), Vec<(Mac, Seq)>>,
}

impl Default for StaticHosts {
    fn default() -> Self {
        Self { told: Sometimes::new(TELL_EVERY, TOLD), order: BTreeMap::new() }
    }
}

impl Segment {
    /// The MACs that may have an address, if that is configured.
    fn permitted(&self, ip: IpAddr) -> Option<&BTreeSet<Mac>> {
        self.config.hosts.static_hosts.get(&ip)
    }

    /// Whether this MAC is configured for this address.
    pub(super) fn is_static_host(&self, mac: Mac, ip: IpAddr) -> bool {
        self.permitted(ip).is_some_and(|l| l.contains(&mac))
    }
}

impl Node {
    /// Addresses that are handed over between several MACs on purpose are no duplicates (PROXY-DUP-01).
    pub(super) fn is_static_ip(&self, vni: Vni, ip: IpAddr) -> bool {
        self.segments.get(&vni).is_some_and(|s| s.permitted(ip).is_some())
    }

    /// A MAC has come to a port: addresses that are configured for it are active from now on (PROXY-LEARN-04).
    pub(super) fn bind_static(&mut self, vni: Vni, mac: Mac, port: IfIndex, at: Time) {
        let Some(seg) = self.segments.get(&vni) else { return };
        let ips = seg.static_ips(mac);
        if ips.is_empty() || self.is_released(vni, mac, Some(port)) {
            return;
        }
        for ip in ips {
            let Some(seg) = self.segments.get(&vni) else { return };
            let taken = seg
                .hosts
                .binding(ip)
                .is_some_and(|b| b.is_local() || b.mac != mac && seg.is_static_host(b.mac, ip));
            let only = seg.permitted(ip).is_some_and(|l| l.len() == 1);
            if taken || !self.is_allowed(vni, port, ip) {
                continue;
            }
            if only {
                let said = Said { mac, origin: BindingOrigin::Moved, router: false };
                self.bind_local(vni, ip, said, at);
                self.binding_by(vni, mac, ip, Evidence::Configured, at);
                self.probes.put(at + FIRST_PROBE, vni, ip);
            } else {
                self.question(vni, mac, ip, port, at + FIRST_PROBE, false, at);
            }
        }
    }

    /// Whether an address cannot be a local MAC's, because it is bound to others here, or to another one by a peer.
    /// `heard`: others may have heard the claim.
    pub(super) fn static_refuses(&mut self, vni: Vni, mac: Mac, ip: IpAddr, heard: bool, at: Time) -> bool {
        let Some(seg) = self.segments.get(&vni) else { return false };
        let bound = seg.hosts.binding(ip).copied();
        if bound.is_some_and(|b| b.mac == mac && b.is_local()) {
            return false;
        }
        let owner = match seg.permitted(ip) {
            Some(l) if l.contains(&mac) => None,
            Some(l) => bound.map(|b| b.mac).filter(|m| l.contains(m)).or_else(|| l.first().copied()),
            None => self.immutable_rival(vni, mac, ip),
        };
        let Some(owner) = owner else { return false };
        self.journal.count("static_host_claims_refused");
        if self.alarm(vni, mac, at) {
            let place = self.segments.get(&vni).map_or(Place::None, |s| self.place_of(s, mac));
            self.journal.event(Event::StaticHostClaimed { vni, ip, owner, mac, place }, at);
        }
        if heard && bound.is_some_and(|b| b.mac == owner) && self.statics.told.may((vni, ip), at) {
            self.tell_changed(vni, ip, owner, mac, at);
        }
        true
    }

    /// Another MAC that a peer calls an address's only one.
    pub(super) fn immutable_rival(&self, vni: Vni, mac: Mac, ip: IpAddr) -> Option<Mac> {
        let rules = &self.segments.get(&vni)?.config.mobility;
        let all = self.rib.ip_candidates(vni, ip);
        let fixed = all.iter().filter(|c| is_fixed(c) && inside(rules, c.vtep));
        let macs: Vec<Mac> = fixed.filter_map(|c| candidate_mac(&c.key)).collect();
        if macs.contains(&mac) { None } else { macs.first().copied() }
    }

    /// Whether a peer calls this binding immutable.
    pub(super) fn is_immutable(&self, seg: &Segment, mac: Mac, ip: IpAddr) -> bool {
        let all = self.rib.ip_candidates(seg.config.vni, ip);
        all.iter().any(|c| is_fixed(c) && candidate_mac(&c.key) == Some(mac))
    }

    /// Routes for an address that count beside what is configured here and what peers call immutable. `true`: one of these
    /// decides, and no duplicate can be frozen (PROXY-DUP-01, PROXY-DUP-04).
    pub(super) fn fixed_routes(
        &mut self,
        vni: Vni,
        ip: IpAddr,
        mut candidates: Vec<Candidate>,
        at: Time,
    ) -> (Vec<Candidate>, bool) {
        let key = (vni, ip);
        let Some(seg) = self.segments.get(&vni) else { return (candidates, false) };
        let permitted = seg.permitted(ip).cloned();
        let bound = seg.hosts.binding(ip).map(|b| b.mac);
        if let Some(list) = &permitted {
            let may = |c: &Candidate| candidate_mac(&c.key).is_some_and(|m| list.contains(&m));
            let (ours, others): (Vec<_>, Vec<_>) = candidates.into_iter().partition(may);
            candidates = ours;
            let owner = bound.filter(|m| list.contains(m)).or_else(|| list.first().copied());
            for c in others.iter().filter(|c| !c.stale) {
                self.route_refused(vni, ip, owner, c, at);
            }
        }
        let Some(seg) = self.segments.get(&vni) else { return (candidates, false) };
        let rules = &seg.config.mobility;
        let mut fixed: Vec<(Mac, Seq)> = Vec::new();
        for c in candidates.iter().filter(|c| is_fixed(c) && inside(rules, c.vtep)) {
            if let Some(mac) = candidate_mac(&c.key).filter(|m| fixed.iter().all(|(f, _)| f != m)) {
                fixed.push((mac, c.seq));
            }
        }
        let Some((first, _)) = fixed.first().copied() else {
            self.statics.order.remove(&key);
            return (candidates, permitted.is_some());
        };
        let winner = if fixed.len() == 1 {
            self.statics.order.remove(&key);
            first
        } else {
            self.latest_immutable(key, &fixed, bound, at).unwrap_or(first)
        };
        candidates.retain(|c| candidate_mac(&c.key) == Some(winner));
        (candidates, true)
    }

    /// Of several immutable MACs, best first, the one that came last; of those that came together the best.
    fn latest_immutable(
        &mut self,
        key: (Vni, IpAddr),
        fixed: &[(Mac, Seq)],
        bound: Option<Mac>,
        at: Time,
    ) -> Option<Mac> {
        let (vni, ip) = key;
        let order = self.statics.order.entry(key).or_default();
        order.retain(|o| fixed.contains(o));
        if order.is_empty() {
            order.extend(fixed.iter().find(|(m, _)| Some(*m) == bound));
        }
        let known = order.clone();
        order.extend(fixed.iter().rev().filter(|f| !known.contains(f)));
        let (owner, _) = *order.last()?;
        let (rival, _) = *order.iter().rev().find(|(m, _)| *m != owner)?;
        self.journal.count("immutable_twice");
        if self.alarm(vni, owner, at) {
            self.journal.event(Event::StaticHostTwice { vni, ip, owner, rival }, at);
        }
        Some(owner)
    }

    /// A peer gives an address to a MAC that may not have it.
    fn route_refused(&mut self, vni: Vni, ip: IpAddr, owner: Option<Mac>, c: &Candidate, at: Time) {
        let (Some(owner), Some(mac)) = (owner, candidate_mac(&c.key)) else { return };
        self.journal.count("static_host_routes_refused");
        if !self.alarm(vni, mac, at) {
            return;
        }
        let event = if c.immutable {
            Event::StaticHostTwice { vni, ip, owner, rival: mac }
        } else {
            Event::StaticHostClaimed { vni, ip, owner, mac, place: Place::Vtep(c.vtep) }
        };
        self.journal.event(event, at);
    }
}

/// Counts as immutable: not if it is stale (PIT-23).
pub(super) fn is_fixed(c: &Candidate) -> bool {
    c.immutable && !c.stale
}
