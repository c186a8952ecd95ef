//! What a conflict that one VTEP has found out means at the others (PROXY-DUP-04).
//!
//! With the policy `first` or `last` there is nothing to say: the routes say who has the address. With `none` nobody is to
//! answer in place of the two, wherever the question is put; the VTEP that has the claim knows that, and the others have a
//! route for the address. So the finder puts a mark on the own route of the MAC that claims it
//! ([`ExtCommunity::contested`]), which changes nothing else about that. Where it is read, no row answers for the address, and
//! its binding stays: questions go to both hosts. The mark goes when the conflict is over, or with the route; on a stale
//! route it means nothing (PIT-23).

use super::input::About;
use super::{ConflictPolicy, Event, Node};
use crate::types::{Mac, Time, Vni};
use crate::wire::{Attrs, ExtCommunity};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// Addresses that one MAC's route names; further ones are answered for elsewhere.
const PER_MAC: usize = 8;
/// MACs of peers with such addresses; the marks of further ones are not heeded.
const MACS: usize = 4096;

/// What peers have marked.
#[derive(Debug, Default)]
pub(super) struct Contested {
    by_mac: BTreeMap<(Vni, Mac), BTreeSet<ExtCommunity>>,
    /// How many of those name it.
    named: BTreeMap<(Vni, ExtCommunity), u32>,
}

impl Contested {
    fn has(&self, vni: Vni, ip: IpAddr) -> bool {
        !self.named.is_empty() && self.named.contains_key(&(vni, ExtCommunity::contested(ip)))
    }

    /// Marks that have come or gone for all.
    fn set(&mut self, key: (Vni, Mac), marks: BTreeSet<ExtCommunity>) -> BTreeSet<ExtCommunity> {
        let new = if marks.is_empty() { None } else { Some(marks) };
        let old = match &new {
            Some(m) => self.by_mac.insert(key, m.clone()),
            None => self.by_mac.remove(&key),
        };
        let (new, old) = (new.unwrap_or_default(), old.unwrap_or_default());
        let mut changed = BTreeSet::new();
        for mark in new.difference(&old) {
            let n = self.named.entry((key.0, *mark)).or_default();
            *n += 1;
            if *n == 1 {
                changed.insert(*mark);
            }
        }
        for mark in old.difference(&new) {
            if let Some(n) = self.named.get_mut(&(key.0, *mark)) {
                *n -= 1;
                if *n == 0 {
                    self.named.remove(&(key.0, *mark));
                    changed.insert(*mark);
                }
            }
        }
        changed
    }
}

impl Node {
    /// Whether a peer has said that two hosts have this address.
    pub(super) fn is_contested_afar(&self, vni: Vni, ip: IpAddr) -> bool {
        self.contested.has(vni, ip)
    }

    /// Marks for the own route of a MAC of ours.
    pub(super) fn mark_contested(&self, vni: Vni, mac: Mac, attrs: &mut Attrs) {
        use std::net::{Ipv4Addr, Ipv6Addr};
        let first = (vni, About::Ip(Ipv4Addr::UNSPECIFIED.into()));
        let last = (vni, About::Ip(Ipv6Addr::from_bits(u128::MAX).into()));
        let of_it = self.duplicated.found.range(first..=last).filter(|(_, f)| f.mute && f.mac == mac);
        let ips = of_it.filter_map(|((_, about), _)| match about {
            About::Ip(ip) => Some(*ip),
            About::Mac(_) => None,
        });
        attrs.ext_communities.extend(ips.take(PER_MAC).map(ExtCommunity::contested));
    }

    /// A conflict with a claim of this MAC has begun or is over.
    pub(super) fn tell_contested(&mut self, vni: Vni, mac: Mac) {
        self.originate_mac(vni, mac, true);
    }

    /// The routes of a MAC have changed: what do they say of its addresses?
    pub(super) fn heed_contested(&mut self, vni: Vni, mac: Mac, at: Time) {
        let none = self.config.arp.conflict == ConflictPolicy::None;
        let marks = if none { self.rib.contested(vni, mac) } else { BTreeSet::new() };
        let known = self.contested.by_mac.contains_key(&(vni, mac));
        if !known && (marks.is_empty() || self.contested.by_mac.len() >= MACS) {
            return;
        }
        let marks: BTreeSet<ExtCommunity> = marks.into_iter().take(PER_MAC).collect();
        let changed = self.contested.set((vni, mac), marks);
        if changed.is_empty() {
            return;
        }
        let Some(seg) = self.segments.get(&vni) else { return };
        let named = seg.hosts.bindings().map(|(ip, b)| (*ip, b.mac, b.is_local()));
        let named: Vec<(IpAddr, Mac, bool)> =
            named.filter(|(ip, ..)| changed.contains(&ExtCommunity::contested(*ip))).collect();
        let vtep = self.rib.best_mac(vni, mac).map(|c| c.vtep);
        for (ip, holder, local) in named {
            let mute = self.contested.has(vni, ip);
            self.journal.count(if mute { "contested_afar" } else { "contested_no_more" });
            if let Some(vtep) = vtep.filter(|_| mute && self.alarm(vni, mac, at)) {
                self.journal.event(Event::ContestedAfar { vni, ip, holder, mac, vtep }, at);
            }
            if !local {
                self.decide_ip(vni, ip, at);
            }
        }
    }
}
