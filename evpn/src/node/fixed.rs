//! MACs that never move: static ones of our own (EVPN-MOB-17, -18) and those of gateways (EVPN-MOB-19).
//!
//! A static MAC is configured together with its port. It is ours while that port is in the bridge with carrier,
//! whether or not the host has spoken, with sequence 0 and the sticky bit. Its bridge row is an ordinary wanted
//! one: a frame on another port turns it for a moment, is told, and the reconciler turns it back. (A static
//! row in the kernel would hold by itself, but could not be told from a foreign one after a restart, PIT-27,
//! and the bridge would be silent about the intruder.)

use super::segment::Segment;
use super::{Event, Node};
use crate::mobility::{self, Claim};
use crate::types::{IfIndex, Mac, Seq, Time, Vni};
use core::cmp::Ordering;
use std::net::IpAddr;

impl Segment {
    /// Configured as sticky here.
    pub(super) fn is_static(&self, mac: Mac) -> bool {
        self.config.mobility.sticky.contains_key(&mac)
    }

    /// What we claim for a local MAC with this sequence.
    pub(super) fn our_claim(&self, mac: Mac, seq: Seq, vtep: IpAddr) -> Claim {
        Claim { seq, sticky: self.is_static(mac), gateway: false, stale: false, vtep }
    }
}

impl Node {
    /// A MAC was seen on a port, by a frame or in the forwarding table. `true`: it has no business there, people
    /// have been told, and nothing is to be learned from it.
    pub(super) fn fixed_elsewhere(&mut self, vni: Vni, mac: Mac, port: IfIndex, at: Time) -> bool {
        let Some(seg) = self.segments.get(&vni) else { return false };
        let rules = &seg.config.mobility;
        if rules.gateway_macs.contains(&mac) {
            self.journal.count("gateway_macs_seen");
            if self.alarm(vni, mac, at) {
                let port = self.dev_name(port);
                self.journal.event(Event::GatewaySeen { vni, mac, port }, at);
            }
            return true;
        }
        let Some(home) = rules.sticky.get(&mac).filter(|home| self.by_name.get(*home) != Some(&port)) else {
            return false;
        };
        let home = home.clone();
        if let Some(key) = seg.mac_key(mac) {
            self.want.mark(key, true);
        }
        self.journal.count("sticky_misplaced");
        if self.alarm(vni, mac, at) {
            let seen = self.dev_name(port);
            self.journal.event(Event::StickyMisplaced { vni, mac, port: home, seen }, at);
        }
        true
    }

    /// The port of a static MAC, while it is in the bridge and has carrier.
    fn static_port(&self, vni: Vni, mac: Mac) -> Option<IfIndex> {
        let seg = self.segments.get(&vni)?;
        let port = self.by_name.get(seg.config.mobility.sticky.get(&mac)?)?;
        let l = self.links.get(port)?;
        (l.up && l.carrier && l.master.is_some() && l.master == seg.bridge).then_some(*port)
    }

    /// The devices of a VNI changed: static MACs come and go with their ports.
    pub(super) fn review_static(&mut self, vni: Vni, at: Time) {
        let Some(seg) = self.segments.get(&vni) else { return };
        let macs: Vec<Mac> = seg.config.mobility.sticky.keys().copied().collect();
        for mac in macs {
            let home = self.static_port(vni, mac);
            let has = self.segments[&vni].hosts.macs.get(&mac).and_then(|e| e.local()).map(|l| l.port);
            if let Some(port) = has.filter(|p| Some(*p) != home) {
                self.local_gone(vni, mac, port, "its port lost carrier or left the bridge", at);
            }
            self.hold_static(vni, mac, at);
        }
    }

    /// A static MAC is ours unless somebody better calls it sticky, too (EVPN-MOB-18).
    pub(super) fn hold_static(&mut self, vni: Vni, mac: Mac, at: Time) {
        let Some(port) = self.static_port(vni, mac) else { return };
        let Some(seg) = self.segments.get(&vni) else { return };
        let entry = seg.hosts.macs.get(&mac);
        if entry.is_some_and(|e| e.local().is_some()) {
            return;
        }
        let from = entry.and_then(|e| e.remote()).map(|r| r.claim);
        let ours = seg.our_claim(mac, Seq::ZERO, self.config.vtep);
        if from.is_none_or(|b| mobility::compare(&b, &ours) != Ordering::Greater) {
            self.claim(vni, mac, port, from, at);
        }
    }

    /// The forwarding table dropped a static MAC (ageing); while its port is there the row is written again.
    pub(super) fn static_stays(&mut self, vni: Vni, mac: Mac, port: IfIndex) -> bool {
        let Some(seg) = self.segments.get(&vni) else { return false };
        if !seg.is_static(mac) || self.static_port(vni, mac) != Some(port) {
            return false;
        }
        if let Some(key) = seg.mac_key(mac) {
            self.want.mark(key, true);
        }
        true
    }

    /// A peer has a route for a static MAC of ours: people are told, whoever wins.
    pub(super) fn static_claimed(
        &mut self,
        vni: Vni,
        mac: Mac,
        port: IfIndex,
        ours: &Claim,
        by: &Claim,
        at: Time,
    ) {
        if by.stale || !ours.sticky {
            return;
        }
        self.journal.count("sticky_claimed");
        if !self.alarm(vni, mac, at) {
            return;
        }
        let event = if by.sticky {
            let lost = mobility::compare(by, ours) == Ordering::Greater;
            let (owner, rival) = if lost { (by.vtep, ours.vtep) } else { (ours.vtep, by.vtep) };
            Event::StickyTwice { vni, mac, owner, rival }
        } else {
            Event::StickyClaimed { vni, mac, port: self.dev_name(port), vtep: by.vtep }
        };
        self.journal.event(event, at);
    }
}
