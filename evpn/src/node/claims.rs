//! Claims: an address that is bound to one MAC is named by another one on a port of ours.
//!
//! It counts at once if the old binding has nothing to defend it with: its route is stale, a hypervisor has released or
//! prepared the move, a duplicate check was left unanswered, its port is dark. Any other is checked first: the old owner is
//! asked by unicast, behind our port or through the underlay from our probe MAC, and has [`ArpConfig::claim_time`] to answer,
//! or a round trip to its VTEP and a few ms where that is longer. Silence gives the claim what it wants; an answer makes
//! it a conflict ([`super::conflicts`]). RFC 9161 §3.7 (b) asks for the same within 30 s (PROXY-DUP-03).
//!
//! A MAC that moves with its addresses is no claim, and never waits.
//!
//! [`ArpConfig::claim_time`]: super::ArpConfig::claim_time

use super::bindings::Said;
use super::probe_mac::link_local;
use super::{Node, Output};
use crate::hosts::{Binding, BindingOrigin};
use crate::types::{IfIndex, Mac, Span, Time, Vni};
use crate::wire::frame;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

/// Claims that are being checked; further ones count at once, as they do where nothing is checked.
const LIMIT: usize = 4096;
/// An answer that comes later than this is none to our question.
const LATE: Span = Span::secs(1);
/// What was answered may wait to be read, but not for ever.
const OVERDUE: Span = Span::millis(200);

type Key = (Vni, IpAddr);

/// A claim that is being checked.
#[derive(Clone, Copy, Debug)]
struct Open {
    said: Said,
    /// It answers a question of ours, rather than having spoken by itself.
    answer: bool,
    /// Who is asked.
    owner: Mac,
    asked: Time,
    due: Time,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Claims {
    open: BTreeMap<Key, Open>,
    due: BTreeSet<(Time, Key)>,
    /// Owners that have lost by their silence, and when they were asked: an answer that comes late says how far they are.
    lost: BTreeMap<Key, (Mac, Time)>,
    /// What has just been heard in answer to a question.
    answer: Option<(Key, Mac, Time)>,
}

impl Claims {
    pub(super) fn timeout(&self) -> Option<Time> {
        self.due.first().map(|(t, _)| *t)
    }

    fn take(&mut self, key: Key) -> Option<Open> {
        let o = self.open.remove(&key)?;
        self.due.remove(&(o.due, key));
        Some(o)
    }
}

impl Node {
    /// A binding that the forwarding table agrees with: the MAC is local on the port where it was seen.
    pub(super) fn learn_binding(&mut self, vni: Vni, ip: IpAddr, said: Said, at: Time) {
        let answer = self.claims.answer == Some(((vni, ip), said.mac, at));
        if self.static_refuses(vni, said.mac, ip, !answer, at) {
            return;
        }
        if !self.claim_waits(vni, ip, said, at) {
            self.bind_local(vni, ip, said, at);
        }
    }

    /// Whether a claim is to be checked before it counts, or is refused.
    fn claim_waits(&mut self, vni: Vni, ip: IpAddr, said: Said, at: Time) -> bool {
        let (key, mac) = ((vni, ip), said.mac);
        let Some(seg) = self.segments.get(&vni) else { return false };
        let Some(old) = seg.hosts.binding(ip).copied().filter(|b| b.mac != mac) else { return false };
        let answer = self.claims.answer == Some((key, mac, at));
        // Who speaks with the address has finished its own check of it (PIT-16).
        if said.origin == BindingOrigin::Arp {
            self.has_settled(vni, mac, ip, at);
        }
        if let Some(o) = self.claims.open.get_mut(&key) {
            if o.said.mac == mac {
                (o.said, o.answer) = (said, o.answer && answer);
            }
            return true;
        }
        if self.is_in_conflict(vni, ip) {
            self.conflict_goes_on(vni, ip, mac);
            return true;
        }
        if self.counts_at_once(vni, mac, ip, &old, at) || self.claims.open.len() >= LIMIT {
            self.end_grant(vni, ip, mac);
            return false;
        }
        if !self.ask_owner(vni, old.mac, ip) {
            return false;
        }
        self.journal.count("claims_checked");
        let patience = self.round_trips.patience(self.vtep_of(vni, old.mac), self.config.arp.claim_time);
        let open = Open { said, answer, owner: old.mac, asked: at, due: at + patience };
        self.claims.due.insert((open.due, key));
        self.claims.open.insert(key, open);
        true
    }

    /// Whether nothing defends the old binding, or nobody is to be asked.
    fn counts_at_once(&self, vni: Vni, mac: Mac, ip: IpAddr, old: &Binding, at: Time) -> bool {
        let Some(seg) = self.segments.get(&vni) else { return true };
        let entry = seg.hosts.macs.get(&old.mac);
        let dark = |port: IfIndex| self.links.get(&port).is_none_or(|l| !(l.up && l.carrier));
        let gone = match entry.map(|e| (e.local(), e.remote())) {
            Some((Some(l), _)) => dark(l.port),
            Some((None, Some(r))) => r.claim.is_fixed(),
            Some((None, None)) | None => true,
        };
        gone || self.config.arp.claim_time == Span(0)
            || seg.is_static(mac)
            || seg.is_static(old.mac)
            || self.gives_way(vni, old.mac, ip)
            || self.is_granted(vni, ip, mac, old.mac, at)
            || self.ip_floats(vni, ip)
            || self.mac_floats(vni, mac)
            || self.mac_floats(vni, old.mac)
    }

    /// Asks whoever has an address whether it still has it, wherever it is. False if that is not possible: a guest that may be
    /// checking its address is not asked without a sender (PIT-16).
    pub(super) fn ask_owner(&mut self, vni: Vni, owner: Mac, ip: IpAddr) -> bool {
        let Some(entry) = self.segments.get(&vni).and_then(|s| s.hosts.macs.get(&owner)) else {
            return false;
        };
        let port = entry.local().map(|l| l.port);
        let Some(frame) = self.question_to(vni, owner, ip, port) else { return false };
        self.journal.count("owners_asked");
        match port {
            Some(port) => self.journal.push(Output::Emit { port, frame }),
            None => return self.encap_to_owner(vni, owner, frame),
        }
        true
    }

    fn question_to(&self, vni: Vni, owner: Mac, ip: IpAddr, port: Option<IfIndex>) -> Option<Bytes> {
        let from = self.probe_mac(vni)?;
        Some(match ip {
            IpAddr::V4(v4) => {
                let gateway = match port {
                    Some(port) => self.arp_sender(vni, owner, port, v4, self.clock).ok()?,
                    None => None,
                };
                let (from, sender) = gateway.unwrap_or((from, Ipv4Addr::UNSPECIFIED));
                frame::arp_probe(from, owner, sender, v4)
            }
            IpAddr::V6(v6) => frame::neighbor_solicitation(from, link_local(from), Some(owner), v6),
        })
    }

    /// A host has answered a question of ours, from our port or through the overlay.
    pub(super) fn owner_answered(&mut self, vni: Vni, ip: IpAddr, mac: Mac, at: Time) {
        let key = (vni, ip);
        self.claims.answer = Some((key, mac, at));
        self.conflict_heard(vni, ip, mac);
        if let Some((_, asked)) = self.claims.lost.get(&key).copied().filter(|(m, _)| *m == mac) {
            self.claims.lost.remove(&key);
            self.journal.count("claims_answered_late");
            if let Some(vtep) = self.vtep_of(vni, mac).filter(|_| at.since(asked) < LATE) {
                self.round_trips.took(vtep, at.since(asked));
            }
        }
        let Some(o) = self.claims.open.get(&key).copied().filter(|o| o.owner == mac) else { return };
        if let Some(vtep) = self.vtep_of(vni, mac) {
            self.round_trips.took(vtep, at.since(o.asked));
        }
        self.claims.take(key);
        self.journal.count("claims_answered");
        if let Some(seg) = self.segments.get_mut(&vni)
            && seg.hosts.binding(ip).is_some_and(|b| b.mac == mac)
        {
            seg.hosts.touch(ip, |b| b.confirmed = at);
            self.conflict(vni, ip, mac, o.said, o.answer, at);
        }
    }

    /// Owners that were asked and have said nothing.
    pub(super) fn due_claims(&mut self, at: Time) {
        let due: Vec<_> = self.claims.due.iter().take_while(|(t, _)| *t <= at).copied().collect();
        for (t, key) in due {
            let Some(owner) = self.claims.open.get(&key).map(|o| o.owner) else { continue };
            if at.since(t) < OVERDUE && self.may_have_answered(key.0, owner) {
                continue;
            }
            let Some(o) = self.claims.take(key) else { continue };
            let (vni, ip) = key;
            let bound = self.segments.get(&vni).and_then(|s| s.hosts.binding(ip)).map(|b| b.mac);
            // Somebody else has it by now, and is asked in turn.
            if bound.is_some_and(|m| m != o.owner && m != o.said.mac) {
                self.learn_binding(vni, ip, o.said, at);
                continue;
            }
            self.journal.count("claims_unanswered");
            let lost = &mut self.claims.lost;
            if lost.len() >= LIMIT {
                lost.retain(|_, (_, asked)| at.since(*asked) < LATE);
            }
            if lost.len() < LIMIT {
                lost.insert(key, (o.owner, o.asked));
            }
            self.bind_local(vni, ip, o.said, at);
        }
    }
}
