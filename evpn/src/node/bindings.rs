//! Which addresses the MACs behind our ports have: bound, taken along, yielded, given up. Who may have one that another
//! MAC has is decided before ([`super::claims`]).

use super::frames::FIRST_PROBE;
use super::remote::claim_of;
use super::segment::Segment;
use super::{Event, Node};
use crate::hosts::{Binding, BindingOrigin, Evidence, Hosts};
use crate::mobility::{self, Claim};
use crate::rib::Candidate;
use crate::types::{IfIndex, Mac, Seq, Span, Time, Vni};
use core::cmp::Ordering;
use std::net::IpAddr;

/// A local MAC that is said to have an address.
#[derive(Clone, Copy, Debug)]
pub(super) struct Said {
    pub(super) mac: Mac,
    /// How that is known.
    pub(super) origin: BindingOrigin,
    /// It is a router (RFC 9047).
    pub(super) router: bool,
}

impl Node {
    /// A MAC of ours has this address: it has claimed it, and nobody else defends it.
    pub(super) fn bind_local(&mut self, vni: Vni, ip: IpAddr, said: Said, at: Time) {
        let Said { mac, origin, router } = said;
        let Some(seg) = self.segments.get_mut(&vni) else { return };
        if seg.config.hosts.gateway.as_ref().is_some_and(|g| g.has(ip)) {
            self.gateway_refused(vni, mac, ip, at);
            return;
        }
        let Some(local) = seg.hosts.macs.get(&mac).and_then(|e| e.local().copied()) else { return };
        let old = seg.hosts.binding(ip).copied();
        if let Some(o) = old.filter(|o| o.mac == mac && o.is_local()) {
            seg.hosts.touch(ip, |b| {
                (b.origin, b.confirmed, b.by, b.probes) = (origin, at, Evidence::Plain, 0);
                b.router = router;
            });
            self.confirmed(vni, mac, ip, origin, at);
            if o.router != router {
                self.local_neighbour(vni, ip);
                self.originate_ip(vni, mac, ip, false);
            }
            return;
        }
        // An immutable route has come while the claim was checked.
        if self.static_refuses(vni, mac, ip, false, at) {
            return;
        }
        if let Some(o) = old.filter(|o| o.mac != mac)
            && self.ip_taken(vni, ip, &o, mac, at)
        {
            return;
        }
        let per_mac = self.config.arp.addresses_per_mac as usize;
        let Some(seg) = self.segments.get_mut(&vni) else { return };
        if seg.hosts.binding(ip).is_none_or(|b| b.mac != mac) && ips_full(&seg.hosts, mac, per_mac) {
            self.journal.count("ip_limit_refusals");
            return;
        }
        let ours = seg.our_claim(mac, local.seq, self.config.vtep);
        let rivals = self.rivals(vni, mac, ip);
        if let Some((owner, claim)) = rivals.first().copied()
            && claim.is_fixed()
            && mobility::compare(&claim, &ours) == Ordering::Greater
        {
            self.refuse_address(vni, mac, ip, owner, &claim, at);
            return;
        }
        self.revision += 1;
        let before = old.map(|o| (o, self.place_and_seq(vni, o.mac)));
        let Some(seg) = self.segments.get_mut(&vni) else { return };
        seg.hosts.bind(ip, Binding::new(mac, origin, router, at));
        let key = seg.neigh_key(ip);
        let adopted = key.and_then(|k| self.adopted_mac(&k)).filter(|m| *m != mac);
        // It answers itself (PROXY-REPLY-02).
        self.local_neighbour(vni, ip);
        // The address was another MAC's: theirs goes, and a remote one is beaten (EVPN-XMOB-02, -06, -08).
        let mut seq = local.seq;
        if let Some(o) = old.filter(|o| o.mac != mac && o.is_local()) {
            let seg = &self.segments[&vni];
            let theirs = seg.hosts.macs.get(&o.mac).and_then(|e| e.local()).map_or(Seq::ZERO, |l| l.seq);
            seq = mobility::successor_seq(seq, theirs);
            let key = seg.type2_key(o.mac, Some(ip));
            self.rib.withdraw(&key, true);
        }
        if let Some(n) = mobility::newest(rivals.iter().map(|(_, c)| c.seq)) {
            seq = mobility::takeover_seq(seq, n);
        }
        // The sticky bit beats them all, and its sequence is 0 (EVPN-MOB-17).
        if seq != local.seq && !ours.sticky {
            self.raise_seq(vni, mac, seq, at);
        }
        self.originate_ip(vni, mac, ip, true);
        self.confirmed(vni, mac, ip, origin, at);
        self.moves.joined(vni, mac, ip);
        self.record_binding(vni, mac, ip, before, at);
        if let Some(before) = adopted {
            self.tell_changed(vni, ip, mac, before, at);
        }
    }

    /// Who else claims an address under another MAC, the best first. Stale claims are none (PIT-23).
    pub(super) fn rivals(&self, vni: Vni, mac: Mac, ip: IpAddr) -> Vec<(Mac, Claim)> {
        let of = |c: &Candidate| Some((candidate_mac(&c.key)?, claim_of(c)));
        let all = self.rib.ip_candidates(vni, ip);
        all.iter().filter_map(of).filter(|(m, c)| *m != mac && !c.stale).collect()
    }

    /// An address of a gateway, or of a sticky MAC, stays where it is (EVPN-MOB-18, -19).
    fn refuse_address(&mut self, vni: Vni, mac: Mac, ip: IpAddr, owner: Mac, claim: &Claim, at: Time) {
        self.journal.count("addresses_refused");
        if self.alarm(vni, mac, at) {
            self.journal.event(Event::AddressRefused { vni, mac, ip, owner, vtep: claim.vtep }, at);
        }
    }

    /// Known addresses come with their MAC, in the same flush (MIG-HOT-02, PIT-22; a step beyond EVPN-IRB-14 with a
    /// switch back), and are confirmed by a unicast probe.
    pub(super) fn take_ips_along(&mut self, vni: Vni, mac: Mac, port: IfIndex, at: Time) -> Vec<IpAddr> {
        let along = self.config.mobility.move_ips_with_mac;
        let known = self.segments.get(&vni).map(|s| s.hosts.ips_of(mac)).unwrap_or_default();
        let ips: Vec<IpAddr> = known.iter().copied().filter(|ip| self.is_allowed(vni, port, *ip)).collect();
        let taken: Vec<IpAddr> =
            ips.iter().copied().filter(|ip| along && !self.is_beaten(vni, mac, *ip)).collect();
        let Some(seg) = self.segments.get_mut(&vni) else { return Vec::new() };
        for &ip in &taken {
            seg.hosts.touch(ip, |b| {
                (b.origin, b.by, b.probes) = (BindingOrigin::Moved, Evidence::Plain, 0);
            });
        }
        for ip in &known {
            self.local_neighbour(vni, *ip);
        }
        for &ip in &taken {
            self.originate_ip(vni, mac, ip, true);
        }
        for ip in ips {
            // One that did not come along is not advertised before its host has confirmed it.
            let wait = if taken.contains(&ip) { FIRST_PROBE } else { Span(0) };
            self.probes.put(at + wait, vni, ip);
        }
        for ip in known {
            if !taken.contains(&ip) {
                self.yield_address(vni, ip, at);
            }
        }
        taken
    }

    /// A better route gives this address to another MAC (one that has moved here, too, and whose old route still
    /// stands): it is not taken along, and if the host confirms it, it goes above that route (EVPN-XMOB-02).
    fn is_beaten(&self, vni: Vni, mac: Mac, ip: IpAddr) -> bool {
        let Some(seg) = self.segments.get(&vni) else { return false };
        let Some(local) = seg.hosts.macs.get(&mac).and_then(|e| e.local()) else { return false };
        if seg.is_static_host(mac, ip) {
            return false;
        }
        if self.immutable_rival(vni, mac, ip).is_some() {
            return true;
        }
        let ours = seg.our_claim(mac, local.seq, self.config.vtep);
        let rival = self.rivals(vni, mac, ip);
        rival.first().is_some_and(|(_, c)| mobility::compare(c, &ours) == Ordering::Greater)
    }

    /// A local address is given up: it did not answer, or somebody else has it.
    pub(super) fn drop_local_ip(&mut self, vni: Vni, ip: IpAddr, at: Time) {
        let Some(seg) = self.segments.get_mut(&vni) else { return };
        let Some(b) = seg.hosts.binding(ip).copied().filter(Binding::is_local) else { return };
        self.revision += 1;
        seg.hosts.unbind(ip);
        let key = seg.type2_key(b.mac, Some(ip));
        self.rib.withdraw(&key, false);
        let (place, seq) = self.place_and_seq(vni, b.mac);
        self.note_unbound(vni, b.mac, &[ip], &place, seq, at);
        self.decide_ip(vni, ip, at);
    }
}

/// Removes the bindings of a MAC that are ours; returns their addresses.
pub(super) fn unbind_locals(seg: &mut Segment, mac: Mac) -> Vec<IpAddr> {
    let ips: Vec<IpAddr> = seg
        .hosts
        .ips_of(mac)
        .into_iter()
        .filter(|ip| seg.hosts.binding(*ip).is_some_and(Binding::is_local))
        .collect();
    for ip in &ips {
        seg.hosts.unbind(*ip);
    }
    ips
}

fn ips_full(hosts: &Hosts, mac: Mac, per_mac: usize) -> bool {
    hosts.ips_of(mac).len() >= per_mac
}

/// MAC of a Type-2 key.
pub(super) fn candidate_mac(key: &crate::wire::RouteKey) -> Option<Mac> {
    if let crate::wire::RouteKey::MacIp(_, _, mac, _) = key { Some(*mac) } else { None }
}
