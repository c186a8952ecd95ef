//! Solicitations with options that the kernel does not know (PROXY-REPLY-08, RFC 9161 §3.3 f).
//!
//! The bridge would answer them as any other, so that a rule at the port keeps them from it ([`super::port_rules`]); the tap
//! hears them before that. Here they go on as if nobody were known: to the other ports and to every VTEP; or to the owner
//! alone, if that is wished or questions for all do not cross. Our own gateway is the bridge's, which has not heard them either, and is answered for by its MAC.
//!
//! What the forwarding table shows elsewhere is not carried past it (PIT-07).

use super::config::Flooding;
use super::{Node, Output, Unknown, UnknownOptions};
use crate::hosts::Owner;
use crate::types::{IfIndex, Time, Vni};
use crate::wire::frame::{self, Body, Frame};
use bytes::Bytes;
use std::net::IpAddr;

impl Node {
    /// Whether a frame of an access port is such a question: it has been seen to, and the kernel has not heard it.
    pub(super) fn odd_question(
        &mut self,
        vni: Vni,
        port: IfIndex,
        f: &Frame,
        bytes: &[u8],
        at: Time,
    ) -> bool {
        let Body::NeighborSolicitation(ns) = &f.body else { return false };
        if !frame::has_unknown_options(bytes) {
            return false;
        }
        let Some(seg) = self.segments.get(&vni).filter(|s| s.ready && s.config.arp_suppression) else {
            return false;
        };
        let policy = seg.config.hosts.unknown_options;
        let crosses =
            seg.config.hosts.unknown == Unknown::Replicate && seg.config.flooding == Flooding::Replicate;
        let unicast = match policy {
            UnknownOptions::Reply => return false,
            UnknownOptions::Drop => {
                self.journal.count("odd_questions_dropped");
                return true;
            }
            UnknownOptions::Unicast => true,
            // Where questions do not go to all, who has the address is still to be found.
            UnknownOptions::Replicate => !crosses,
        };
        let let_in = match seg.hosts.macs.get(&f.src).map(|e| e.owner) {
            Some(Owner::Local(l)) => l.port == port,
            Some(Owner::Remote(_)) => false,
            None => self.takes_strangers(port) && !self.guards.shuts(port),
        };
        if !let_in {
            self.journal.count("carried_not_let_in");
            return true;
        }
        if !self.carry.may(port, at) {
            self.journal.count("carried_too_many");
            return true;
        }
        let target = IpAddr::V6(ns.target);
        if let Some(g) = self.gateway_of(vni).filter(|g| g.has(target)) {
            let to = Some((f.src, ns.src));
            let answer = frame::neighbor_advertisement(g.mac, ns.target, to, true, true);
            self.journal.count("odd_questions_answered");
            self.journal.push(Output::Emit { port, frame: answer });
            return true;
        }
        self.journal.count("odd_questions_carried");
        let Some(seg) = self.segments.get(&vni) else { return true };
        let owner = seg.hosts.binding(target).map(|b| b.mac);
        let place = owner.and_then(|m| seg.hosts.macs.get(&m)).map(|e| e.local().map(|l| l.port));
        let copy = Bytes::copy_from_slice(bytes);
        match (owner, place) {
            (Some(_), Some(Some(its))) if unicast => {
                if its != port {
                    self.journal.push(Output::Emit { port: its, frame: copy });
                }
            }
            (Some(mac), Some(None)) if unicast => {
                if let Some(copy) = frame::readdressed(bytes, mac) {
                    self.encap_to_owner(vni, mac, copy);
                }
            }
            _ => self.flood_by_hand(vni, port, &copy, crosses),
        }
        true
    }

    /// As the bridge and the VXLAN device would flood it.
    fn flood_by_hand(&mut self, vni: Vni, port: IfIndex, frame: &Bytes, crosses: bool) {
        let ports: Vec<IfIndex> =
            self.taps.iter().filter(|(p, v)| **v == vni && **p != port).map(|(p, _)| *p).collect();
        let vxlan = self.segments.get(&vni).and_then(|s| s.vxlan);
        for p in ports.into_iter().filter(|p| Some(*p) != vxlan) {
            self.journal.push(Output::Emit { port: p, frame: frame.clone() });
        }
        if crosses {
            self.encap_to_all(vni, frame);
        }
    }
}
