//! What the kernel and the access ports tell: MACs that appear, move here, leave.

use super::frames::FIRST_PROBE;
use super::remote::claim_of;
use super::segment::Segment;
use super::view::Place;
use super::{Event, Leaving, Node};
use crate::fabric::Row;
use crate::hosts::{Binding, BindingOrigin, Evidence, Hosts, Local, Owner};
use crate::mobility::{self, Claim, Holder, LocalSign, Lost};
use crate::rib::Candidate;
use crate::types::{IfIndex, Mac, Seq, Span, Time, Vni};
use core::cmp::Ordering;
use std::net::IpAddr;

impl Node {
    /// The forwarding table shows a MAC on a local port.
    pub(super) fn local_seen(&mut self, vni: Vni, mac: Mac, port: IfIndex, at: Time) {
        self.revision += 1;
        self.held_guest_seen((vni, mac), at);
        if self.fixed_elsewhere(vni, mac, port, at) || self.activation_seen(vni, mac, port, at) {
            return;
        }
        let echo = self.is_echo(vni, mac, port, at);
        let Some(seg) = self.segments.get(&vni) else { return };
        let Some(entry) = seg.hosts.macs.get(&mac) else {
            if echo {
                self.clear_echo(vni, mac, port);
            } else if self.is_its_turn(vni, mac, port, at) {
                self.claim(vni, mac, port, None, at);
            }
            return;
        };
        match entry.owner {
            Owner::Local(l) if l.port == port => {
                self.heard(vni, mac, at);
                self.unpark(vni, mac, port, at);
            }
            Owner::Local(l) => self.change_port(vni, mac, l, port, at),
            Owner::Remote(_) if self.is_released(vni, mac, Some(port)) => {
                self.released_frame(vni, mac, port, at);
            }
            Owner::Remote(_) if echo => self.put_back(vni, mac, port),
            Owner::Remote(r) => {
                let lost = entry.lost.on(port).copied();
                if self.is_left_over(vni, mac, port, &r.claim, at) {
                    return;
                }
                let strong = self.strong_sign(port, mac, at);
                let sign = mobility::judge(
                    &r.claim,
                    lost.as_ref(),
                    port,
                    strong,
                    self.config.mobility.guard_time,
                    at,
                );
                let sign = self.weigh(vni, mac, port, sign, at);
                match self.moderate_claim(vni, mac, port, &r.claim, sign, at) {
                    LocalSign::Held => self.put_back(vni, mac, port),
                    LocalSign::Claim => self.claim(vni, mac, port, Some(r.claim), at),
                    LocalSign::Late => self.late_frame(vni, mac, port, at),
                    LocalSign::Refused => self.refuse(vni, mac, port, &r.claim, at),
                }
            }
        }
    }

    /// The MAC is ours from now on (EVPN-MOB-02, -03, -05, -12).
    pub(super) fn claim(&mut self, vni: Vni, mac: Mac, port: IfIndex, remote: Option<Claim>, at: Time) {
        self.announced_again(vni, mac, port, at);
        // PIT-16: who comes from elsewhere has its address; who begins to speak may be checking it.
        if remote.is_some() || self.announced_by_rarp(port, mac, at) {
            self.is_past_its_check(vni, mac, at);
        } else {
            self.may_check_itself(vni, mac, None, at);
        }
        self.arrived_where_groups_are_snooped(vni, port, at);
        let held = self.end_hold((vni, mac), at);
        let seen = self.activation_sign(vni, mac).unwrap_or_else(|| self.first_sign(port, mac, at));
        let place = Place::Port(self.dev_name(port));
        // Above every route for this MAC, with or without address, whoever has the best (EVPN-XMOB-02, -03, -05).
        let candidates = self.rib.mac_candidates(vni, mac);
        let known =
            mobility::newest(remote.map(|r| r.seq).into_iter().chain(candidates.iter().map(|c| c.seq)));
        let leaving = known.is_none() && self.is_released(vni, mac, Some(port));
        let Some(seg) = self.segments.get_mut(&vni) else { return };
        let fixed = seg.is_static(mac);
        let past = seg.memory.get(mac);
        let seq = match past {
            _ if fixed => Seq::ZERO,
            // Reachable here for as long as nobody else has it, and never above the VTEP that it leaves for (PIT-04).
            Some(past) if leaving => past.seq,
            _ => mobility::local_seq(known, past),
        };
        let owned = seg.hosts.own(mac, Owner::Local(Local { port, seq }), at).is_some();
        seg.memory.note(mac, seq, true, at);
        let key = seg.mac_key(mac);
        if !owned {
            self.recall_losses(vni, mac, at);
        }
        let Some(seg) = self.segments.get_mut(&vni) else { return };
        if let Some(e) = seg.hosts.macs.get_mut(&mac) {
            e.lost.forget(port);
            e.shadow = None;
            e.moves += u32::from(remote.is_some());
        }
        if let (Some(key), Some(vxlan)) = (key, seg.vxlan) {
            // A MAC that won a move is a wanted row: a remote write that was under way is overwritten (PIT-05).
            let adopted = self.stale.contains(&key);
            if remote.is_some() || adopted || fixed || held {
                self.want_set(key, Row::Local { vxlan, port }, true);
            }
        }
        let left = key.and_then(|k| self.leaving.remove(&k));
        if let Some(r) = remote {
            self.mac_moved(vni, mac, Holder::There(r.vtep), Holder::Here, at);
        }
        self.originate_mac(vni, mac, true);
        let mut ips = Vec::new();
        if remote.is_some() {
            ips = self.take_ips_along(vni, mac, port, at);
        }
        if !self.record_arrival(vni, mac, remote, ips.clone(), seen, at) {
            self.journal.event(Event::MacLocal { vni, mac, port: place.to_string(), seq }, at);
        }
        self.withdraw_leftovers(left, mac, &ips);
        if remote.is_none() && self.announced_by_rarp(port, mac, at) {
            self.ask_for_former(vni, mac, port, at);
        }
        self.watch_wrap(vni, mac, seq, at);
        self.bind_static(vni, mac, port, at);
        self.unpark(vni, mac, port, at);
    }

    /// EVPN-MOB-09: long before a sequence wraps, somebody is told.
    pub(super) fn watch_wrap(&mut self, vni: Vni, mac: Mac, seq: Seq, at: Time) {
        if mobility::near_wrap(seq) {
            self.journal.count("sequences_near_wrap");
            if self.alarm(vni, mac, at) {
                self.journal.event(Event::SequenceNearWrap { vni, mac, seq }, at);
            }
        }
    }

    /// Known addresses come with their MAC, in the same flush (MIG-HOT-02, PIT-22; a step beyond EVPN-IRB-14 with a
    /// switch back), and are confirmed by a unicast probe.
    fn take_ips_along(&mut self, vni: Vni, mac: Mac, port: IfIndex, at: Time) -> Vec<IpAddr> {
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

    /// Routes that were to be withdrawn and have not been originated again.
    fn withdraw_leftovers(&mut self, left: Option<Leaving>, mac: Mac, ips: &[IpAddr]) {
        let Some(l) = left else { return };
        for k in l.keys {
            let again = matches!(&k, crate::wire::RouteKey::MacIp(_, _, m, ip)
                if *m == mac && ip.is_none_or(|ip| ips.contains(&ip)));
            if !again {
                self.rib.withdraw(&k, true);
            }
        }
    }

    /// A move between two ports of ours changes no sequence (EVPN-MOB-05).
    pub(super) fn change_port(&mut self, vni: Vni, mac: Mac, l: Local, port: IfIndex, at: Time) {
        let name = self.dev_name(port);
        self.arrived_where_groups_are_snooped(vni, port, at);
        self.activation_left(vni, mac, Some(port), "it was seen on another port of this host", at);
        let Some(seg) = self.segments.get_mut(&vni) else { return };
        seg.hosts.own(mac, Owner::Local(Local { port, seq: l.seq }), at);
        if let Some(e) = seg.hosts.macs.get_mut(&mac) {
            // Frames may still come from there when the MAC has gone on to another VTEP (PIT-04).
            e.lost.forget(port);
            e.lost.note(Lost::new(l.port, at));
        }
        if let (Some(key), Some(vxlan)) = (seg.mac_key(mac), seg.vxlan)
            && matches!(self.want.get(&key), Some(Row::Local { .. }))
        {
            self.want_set(key, Row::Local { vxlan, port }, true);
        }
        self.journal.count("port_changes");
        self.journal.event(Event::MacLocal { vni, mac, port: name, seq: l.seq }, at);
        self.unpark(vni, mac, port, at);
        self.suspect(vni, mac, port, at);
    }

    /// PIT-04: the row goes back to the winner at once; the port is asked whether the VM is really there.
    fn late_frame(&mut self, vni: Vni, mac: Mac, port: IfIndex, at: Time) {
        let name = self.dev_name(port);
        let Some(seg) = self.segments.get_mut(&vni) else { return };
        let key = seg.mac_key(mac);
        let mut first = None;
        if let Some(e) = seg.hosts.macs.get_mut(&mac) {
            e.shadow = Some(port);
            if let Some(l) = e.lost.on_mut(port) {
                l.late = Some(at);
                l.frames += 1;
                first = (l.frames == 1).then(|| at.since(l.at));
            }
        }
        let ips = seg.hosts.ips_of(mac);
        if let Some(key) = key {
            self.want.mark(key, true);
        }
        self.journal.count("late_frames");
        if let Some(after) = first {
            self.journal.event(Event::LateFrame { vni, mac, port: name, after }, at);
            for ip in ips {
                self.probe_on(vni, mac, ip, port);
            }
        }
    }

    /// EVPN-MOB-17, EVPN-MOB-19: the entry stays remote, the operator is told.
    fn refuse(&mut self, vni: Vni, mac: Mac, port: IfIndex, remote: &Claim, at: Time) {
        self.put_back(vni, mac, port);
        self.journal.count("sticky_conflicts");
        if self.alarm(vni, mac, at) {
            let port = self.dev_name(port);
            self.journal.event(
                if remote.gateway {
                    Event::GatewaySeen { vni, mac, port }
                } else {
                    Event::StickyConflict { vni, mac, owner: remote.vtep, port }
                },
                at,
            );
        }
    }

    /// The kernel shows a remote MAC on a port; it is to show it where we want it.
    pub(super) fn put_back(&mut self, vni: Vni, mac: Mac, port: IfIndex) {
        let Some(seg) = self.segments.get_mut(&vni) else { return };
        if let Some(e) = seg.hosts.macs.get_mut(&mac) {
            e.shadow = Some(port);
        }
        if let Some(key) = seg.mac_key(mac) {
            self.want.mark(key, true);
        }
    }

    /// Whether an alarm about this MAC may be raised now.
    pub(super) fn alarm(&mut self, vni: Vni, mac: Mac, at: Time) -> bool {
        self.alarmed.may((vni, mac), at)
    }

    /// The forwarding table has dropped a MAC from a local port.
    pub(super) fn local_gone(&mut self, vni: Vni, mac: Mac, port: IfIndex, why: &str, at: Time) {
        let name = self.dev_name(port);
        let Some(seg) = self.segments.get_mut(&vni) else { return };
        // Not even under a remote owner whose row is not written yet: nothing to come back to (EVPN-MOB-11).
        if let Some(e) = seg.hosts.macs.get_mut(&mac)
            && e.shadow == Some(port)
        {
            e.shadow = None;
        }
        let Some(l) = seg.hosts.macs.get(&mac).and_then(|e| e.local().copied()).filter(|l| l.port == port)
        else {
            return;
        };
        self.revision += 1;
        seg.memory.note(mac, l.seq, true, at);
        self.repark(vni, port, mac, at);
        let Some(seg) = self.segments.get_mut(&vni) else { return };
        if let Some(e) = seg.hosts.disown(mac) {
            self.keep_losses(vni, mac, &e, at);
        }
        self.place_free(vni, port, at);
        let place = Place::Port(name.clone());
        self.activation_left(vni, mac, None, why, at);
        self.forget_mark((vni, mac));
        let Some(seg) = self.segments.get_mut(&vni) else { return };
        let mut keys = vec![seg.type2_key(mac, None)];
        let ips = unbind_locals(seg, mac);
        keys.extend(ips.iter().map(|ip| seg.type2_key(mac, Some(*ip))));
        let row = seg.mac_key(mac);
        for k in &keys {
            self.rib.withdraw(k, false);
        }
        self.note_unbound(vni, mac, &ips, &place, l.seq, at);
        self.note_gone(vni, mac, place, l.seq, at);
        if let Some(row) = row {
            self.leaving.remove(&row);
            self.want_remove(&row, false);
        }
        self.journal.event(Event::MacGone { vni, mac, port: name, why: why.into() }, at);
        self.decide_mac(vni, mac, at);
        for ip in ips {
            self.decide_ip(vni, ip, at);
        }
    }

    /// A MAC of ours has this address: it has claimed it, and nobody else defends it.
    pub(super) fn bind_local(
        &mut self,
        vni: Vni,
        mac: Mac,
        ip: IpAddr,
        origin: BindingOrigin,
        router: bool,
        at: Time,
    ) {
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

    /// A sign of life of a local MAC.
    pub(super) fn heard(&mut self, vni: Vni, mac: Mac, at: Time) {
        if let Some(e) = self.segments.get_mut(&vni).and_then(|s| s.hosts.macs.get_mut(&mac)) {
            e.heard = at;
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

    /// A higher sequence for a local MAC: its route and all its children go out with it (EVPN-XMOB-04).
    pub(super) fn raise_seq(&mut self, vni: Vni, mac: Mac, seq: Seq, at: Time) {
        let Some(seg) = self.segments.get_mut(&vni) else { return };
        let Some(e) = seg.hosts.macs.get_mut(&mac) else { return };
        let Owner::Local(l) = &mut e.owner else { return };
        l.seq = seq;
        seg.memory.note(mac, seq, true, at);
        let ips = seg.hosts.ips_of(mac);
        self.originate_mac(vni, mac, true);
        for ip in ips {
            self.originate_ip(vni, mac, ip, true);
        }
        self.watch_wrap(vni, mac, seq, at);
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
