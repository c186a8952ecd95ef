//! What the peers tell: MACs, IPs and VTEPs that the RIB says have changed.

use super::bindings::{candidate_mac, unbind_locals};
use super::static_hosts::is_fixed;
use super::view::Place;
use super::{Event, Leaving, Node, WITHDRAW_DEADLINE};
use crate::fabric::Row;
use crate::hosts::{Binding, BindingOrigin, Local, Owner, RemoteMac};
use crate::mobility::{self, Claim, Lost};
use crate::rib::Candidate;
use crate::types::{Mac, Time, Vni};
use core::cmp::Ordering;
use std::net::IpAddr;

pub(super) fn claim_of(c: &Candidate) -> Claim {
    Claim { seq: c.seq, sticky: c.sticky, gateway: c.gateway, stale: c.stale, vtep: c.vtep }
}

impl Node {
    /// The candidates of a MAC changed: who owns it now?
    pub(super) fn decide_mac(&mut self, vni: Vni, mac: Mac, at: Time) {
        self.no_stranger(vni, mac, at);
        let candidates = self.rib.mac_candidates(vni, mac);
        if self.selection_waits(vni, mac, &candidates) {
            return;
        }
        self.note_heard(vni, mac, &candidates, at);
        let admitted = self.admit_mac(vni, mac, &candidates, at);
        self.heed_contested(vni, mac, at);
        let Some(seg) = self.segments.get_mut(&vni) else { return };
        // What the bridge or a port of it has as its own address is nobody's host (FRR drops such routes, too).
        let own = seg.own.contains(&mac);
        let best = admitted.filter(|_| !own);
        let owner = seg.hosts.macs.get(&mac).map(|e| e.owner);
        let key = seg.mac_key(mac);
        match (best, candidates.first()) {
            (None, Some(c)) if own => self.own_address(vni, mac, c, at),
            (Some(b), _) => self.watch_claims(vni, mac, &b, &candidates, at),
            (None, _) => {}
        }
        let Some(seg) = self.segments.get_mut(&vni) else { return };
        match (owner, best) {
            (Some(Owner::Local(l)), Some(b)) => {
                let vtep = self.config.vtep;
                let ours = seg.our_claim(mac, l.seq, vtep);
                self.static_claimed(vni, mac, l.port, &ours, &b, at);
                // A claim below ours stays among the candidates and changes nothing; nothing is said (EVPN-MOB-10).
                if mobility::compare(&b, &ours) == Ordering::Greater {
                    self.lose(vni, mac, l, b, at);
                } else {
                    self.ask_for_claimed(vni, mac, &candidates, at);
                }
            }
            (Some(Owner::Local(_)), None) => {}
            (Some(Owner::Remote(old)), Some(b)) => {
                if old.claim != b {
                    self.remote_changed(vni, mac, old.claim, b, at);
                }
            }
            (None, Some(b)) => {
                seg.hosts.own(mac, Owner::Remote(RemoteMac { claim: b }), at);
                if let (Some(key), Some(row)) = (key, seg.remote_row(b.vtep, b.sticky)) {
                    self.want_set(key, row, false);
                }
                self.recall_losses(vni, mac, at);
                self.record_remote(vni, mac, None, &b, at);
            }
            (Some(Owner::Remote(old)), None) => {
                seg.memory.note(mac, old.claim.seq, false, at);
                let entry = seg.hosts.disown(mac);
                let shadow = entry.as_ref().and_then(|e| e.shadow);
                let lost = entry.as_ref().and_then(|e| e.lost.latest().copied());
                if let Some(e) = &entry {
                    self.keep_losses(vni, mac, e, at);
                }
                if let Some(key) = key {
                    self.want_remove(&key, false);
                }
                self.note_gone(vni, mac, Place::Vtep(old.claim.vtep), old.claim.seq, at);
                if let Some(lost) = lost.filter(|_| shadow.is_none()) {
                    self.ask_former_port(vni, mac, &lost, at);
                }
                // The row on a local port was never overwritten, and no further frame will tell (EVPN-MOB-11).
                if let Some(port) = shadow {
                    self.claim(vni, mac, port, None, at);
                    // A write of the remote row may still be under way (PIT-05).
                    let vxlan = self.segments.get(&vni).and_then(|s| s.vxlan);
                    if let (Some(key), Some(vxlan)) = (key, vxlan) {
                        self.want_set(key, Row::Local { vxlan, port }, true);
                    }
                }
            }
            (None, None) => {
                if let Some(key) = key {
                    self.want_remove(&key, false);
                }
            }
        }
        if self.segments.get(&vni).is_some_and(|s| s.is_static(mac)) {
            self.hold_static(vni, mac, at);
        }
        self.heed_mark(vni, mac, &candidates, at);
        let Some(seg) = self.segments.get(&vni) else { return };
        let bound = if seg.hosts.has_ips(mac) { seg.hosts.ips_of(mac) } else { Vec::new() };
        for ip in candidates.iter().filter_map(|c| c.ip) {
            if !bound.contains(&ip) {
                self.decide_ip(vni, ip, at);
            }
        }
        for ip in bound {
            self.decide_ip(vni, ip, at);
        }
    }

    /// What an operator should know about the claims on a MAC.
    fn watch_claims(&mut self, vni: Vni, mac: Mac, best: &Claim, candidates: &[Candidate], at: Time) {
        self.watch_wrap(vni, mac, best.seq, at);
        if candidates.len() < 2 || !best.sticky {
            return;
        }
        let claims: Vec<Claim> = candidates.iter().map(claim_of).collect();
        if let Some(rival) = mobility::second_sticky(best, claims.iter()) {
            self.journal.count("sticky_twice");
            if self.alarm(vni, mac, at) {
                self.journal.event(Event::StickyTwice { vni, mac, owner: best.vtep, rival }, at);
            }
        }
    }

    /// What the bridge or a port of it has as its own address is nobody's host: the kernel would refuse the row.
    /// The MAC of an anycast gateway is everybody's own, and no fault (RFC 9135 §4.1).
    fn own_address(&mut self, vni: Vni, mac: Mac, c: &Candidate, at: Time) {
        self.journal.count("own_mac_refusals");
        let anycast = c.gateway
            || self.segments.get(&vni).is_some_and(|s| s.config.mobility.gateway_macs.contains(&mac));
        if !anycast && self.alarm(vni, mac, at) {
            self.journal.event(Event::OwnAddress { vni, mac, vtep: c.vtep }, at);
        }
    }

    fn remote_changed(&mut self, vni: Vni, mac: Mac, old: Claim, new: Claim, at: Time) {
        let Some(seg) = self.segments.get_mut(&vni) else { return };
        let moved = old.vtep != new.vtep;
        seg.hosts.own(mac, Owner::Remote(RemoteMac { claim: new }), at);
        if let Some(e) = seg.hosts.macs.get_mut(&mac) {
            e.moves += u32::from(moved);
        }
        if let (Some(key), Some(row)) = (seg.mac_key(mac), seg.remote_row(new.vtep, new.sticky)) {
            self.want_set(key, row, moved);
        }
        if moved {
            self.record_remote(vni, mac, Some(old), &new, at);
        }
    }

    /// A remote route beats ours (EVPN-MOB-06): row first, withdrawal once the kernel has it (EVPN-MOB-07). The addresses go
    /// with it, those too that the MAC has left behind here (EVPN-XMOB-07, -09).
    fn lose(&mut self, vni: Vni, mac: Mac, l: Local, best: Claim, at: Time) {
        let told = self.activated_just_now(vni, mac, at);
        self.activation_left(vni, mac, None, "another VTEP advertises it with a better route", at);
        self.forget_mark((vni, mac));
        let Some(seg) = self.segments.get_mut(&vni) else { return };
        let ips = unbind_locals(seg, mac);
        let mut keys = vec![seg.type2_key(mac, None)];
        keys.extend(ips.iter().map(|ip| seg.type2_key(mac, Some(*ip))));
        let heard = seg.hosts.macs.get(&mac).map_or(at, |e| e.heard);
        let ip = ips.first().copied();
        seg.hosts.own(mac, Owner::Remote(RemoteMac { claim: best }), at);
        if let Some(e) = seg.hosts.macs.get_mut(&mac) {
            e.moves += 1;
            e.lost.note(Lost { told, ip, ..Lost::new(l.port, at) });
            e.shadow = Some(l.port);
        }
        let row = seg.mac_key(mac).zip(seg.remote_row(best.vtep, best.sticky));
        self.record_loss(vni, mac, (l, heard), ips.clone(), &best, at);
        let port = Place::Port(self.dev_name(l.port));
        self.note_unbound(vni, mac, &ips, &port, l.seq, at);
        self.mac_lost(vni, mac, l.port, best.vtep, &ips, at);
        if let Some((key, row)) = row {
            self.want_set(key, row, true);
            // Even if the wish is what it was, the answer to this mark releases the withdrawal.
            self.want.mark(key, true);
            let deadline = at + WITHDRAW_DEADLINE;
            self.leaving.insert(key, Leaving { vni, mac, keys, deadline });
            self.leaving_queue.push_back((deadline, key));
        } else {
            for k in &keys {
                self.rib.withdraw(k, true);
            }
        }
        for ip in ips {
            self.decide_ip(vni, ip, at);
        }
    }

    /// An address of a MAC that is here now did not come along. If a route gives it to a MAC that is elsewhere, that
    /// one is answered with; else the binding waits for its probe (EVPN-IRB-14).
    pub(super) fn yield_address(&mut self, vni: Vni, ip: IpAddr, at: Time) {
        let Some(seg) = self.segments.get(&vni) else { return };
        let elsewhere = |m: Mac| seg.hosts.macs.get(&m).is_some_and(|e| e.remote().is_some());
        if self.rib.ip_candidates(vni, ip).iter().filter_map(|c| candidate_mac(&c.key)).any(elsewhere) {
            self.decide_ip(vni, ip, at);
        }
    }

    /// The candidates of an address changed: which MAC do we answer with (PROXY-LEARN-03)? The kernel answers from the row
    /// with its MAC, and R as learned (PROXY-REPLY-01, -03, -07, PROXY-EC-02); the MAC stays when the address goes (PROXY-EC-06).
    pub(super) fn decide_ip(&mut self, vni: Vni, ip: IpAddr, at: Time) {
        let candidates = self.rib.ip_candidates(vni, ip);
        let candidates = self.admit_ip(vni, ip, candidates, at);
        let Some(seg) = self.segments.get(&vni) else { return };
        if let Some(b) = seg.hosts.binding(ip).copied().filter(Binding::is_local) {
            self.contest_ip(vni, ip, b, &candidates, at);
            return;
        }
        // The location follows the MAC; the binding only says which MAC. A MAC that is ours answers itself.
        let pick = candidates.iter().find_map(|c| {
            let mac = candidate_mac(&c.key)?;
            seg.hosts.macs.get(&mac).and_then(|e| e.remote()).map(|_| (mac, c.router))
        });
        let key = seg.neigh_key(ip);
        let ready = seg.ready;
        let old = seg.hosts.binding(ip).copied();
        let other = old.filter(|o| pick.is_none_or(|(mac, _)| mac != o.mac));
        let before = other.map(|o| (o, self.place_and_seq(vni, o.mac)));
        let adopted = key.and_then(|k| self.adopted_mac(&k));
        let last = self.moves.past.ips.get((vni, ip)).map(|u| u.mac);
        let seg = self.segments.get_mut(&vni).expect("looked up above");
        if let Some((mac, router)) = pick {
            if old.is_none_or(|o| o.mac != mac || o.router != router) {
                seg.hosts.bind(ip, Binding::new(mac, BindingOrigin::Bgp, router, at));
            }
            let row = self.audible(vni, ip, mac, router);
            if let Some(key) = key.filter(|_| ready) {
                let before = old.map(|o| o.mac).or(last);
                let urgent = before.is_some_and(|m| m != mac);
                match row {
                    Some(row) => self.want_set(key, row, urgent),
                    None => self.want_remove(&key, true),
                }
            }
            if old.is_none_or(|o| o.mac != mac) {
                self.record_binding(vni, mac, ip, before, at);
            }
            if let Some(before) = adopted.filter(|m| *m != mac) {
                self.tell_changed(vni, ip, mac, before, at);
            }
        } else {
            seg.hosts.unbind(ip);
            if let Some(key) = key {
                self.want_remove(&key, false);
            }
            if let Some((o, (place, seq))) = before {
                self.note_unbound(vni, o.mac, &[ip], &place, seq, at);
            }
        }
    }

    /// A peer has a route for an address that is bound to a local MAC.
    fn contest_ip(&mut self, vni: Vni, ip: IpAddr, b: Binding, candidates: &[Candidate], at: Time) {
        let Some(seg) = self.segments.get(&vni) else { return };
        let Some(local) = seg.hosts.macs.get(&b.mac).and_then(|e| e.local().copied()) else { return };
        let ours = seg.our_claim(b.mac, local.seq, self.config.vtep);
        let fixed = seg.is_static_host(b.mac, ip);
        let beaten = candidates
            .iter()
            .filter(|c| candidate_mac(&c.key) != Some(b.mac))
            .find(|c| match (fixed, is_fixed(c)) {
                // PROXY-EC-04: whatever the sequence.
                (true, false) => false,
                (false, true) => true,
                (true, true) | (false, false) => mobility::compare(&claim_of(c), &ours) == Ordering::Greater,
            })
            .and_then(|c| Some((candidate_mac(&c.key)?, is_fixed(c) && !fixed)));
        if let Some((_, true)) = beaten {
            // There is nothing to ask the host for: it cannot have it.
            self.journal.count("bindings_lost_to_immutable");
            self.drop_local_ip(vni, ip, at);
        } else if let Some((winner, false)) = beaten {
            // RFC 9721 §6.3: the other binding is the newer one. If the host is here after all, it says so when
            // asked, and is learned above the other (EVPN-XMOB-09, -12).
            self.ip_lost(vni, ip, b.mac, winner, at);
            self.drop_local_ip(vni, ip, at);
            self.ask(vni, b.mac, [ip].into_iter(), local.port, at);
        }
    }

    /// A VTEP joined or left the flood list of a VNI.
    pub(super) fn decide_flood(&mut self, vni: Vni, vtep: IpAddr, at: Time) {
        self.vteps_changed = true;
        let present = self.rib.flood_vteps(vni).contains(&vtep);
        let Some(seg) = self.segments.get(&vni) else { return };
        let Some(key) = seg.flood_key(vtep) else { return };
        let had = self.want.get(&key).is_some();
        if present {
            self.want_set(key, Row::Flood, false);
        } else {
            self.want_remove(&key, false);
        }
        match (had, self.want.get(&key).is_some()) {
            (false, true) => self.journal.event(Event::VtepJoined { vni, vtep }, at),
            (true, false) => self.journal.event(Event::VtepLeft { vni, vtep }, at),
            (true, true) | (false, false) => {}
        }
    }
}
