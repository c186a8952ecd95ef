//! What the kernel and the access ports tell: MACs that appear, move here, leave.

use super::bindings::unbind_locals;
use super::view::Place;
use super::{Event, Leaving, Node};
use crate::fabric::Row;
use crate::hosts::{Local, Owner};
use crate::mobility::{self, Claim, Holder, LocalSign, Lost};
use crate::types::{IfIndex, Mac, Seq, Time, Vni};
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
            // HOST-RARP-03: a hypervisor repeats what it announces, and nothing changes.
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
            // Its frame may say that it checks its address, and be read after its row (PIT-16).
            self.ask_soon(vni, mac, port, &ips, at);
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

    /// A sign of life of a local MAC.
    pub(super) fn heard(&mut self, vni: Vni, mac: Mac, at: Time) {
        if let Some(e) = self.segments.get_mut(&vni).and_then(|s| s.hosts.macs.get_mut(&mac)) {
            e.heard = at;
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
}
