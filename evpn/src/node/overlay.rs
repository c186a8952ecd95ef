//! Frames that come in from the overlay, as the tap on the VXLAN device hears them.
//!
//! They are for whoever they are addressed to: answers to questions of ours, and questions to us. Nothing is learned from
//! them: where a MAC or an address is in the overlay, only routes say (PROXY-LEARN-01, PROXY-LEARN-02).

use super::duplicate_check::answer_of;
use super::{Node, Output};
use crate::types::{IfIndex, Mac, Time, Vni};
use crate::wire::frame::{self, Body, Frame};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::net::IpAddr;

impl Node {
    /// The VNI whose VXLAN device this is, if it has a tap.
    pub(super) fn overlay_of(&self, dev: IfIndex) -> Option<Vni> {
        self.overlay_taps.get(&dev).copied()
    }

    /// One tap on the VXLAN device of each VNI that forwards.
    pub(super) fn review_overlay_taps(&mut self) {
        let want: BTreeMap<IfIndex, Vni> =
            self.segments.iter().filter_map(|(v, s)| Some((s.vxlan.filter(|_| s.ready)?, *v))).collect();
        for dev in self.overlay_taps.keys().filter(|d| !want.contains_key(d)) {
            self.journal.push(Output::Untap(*dev));
        }
        for dev in want.keys().filter(|d| !self.overlay_taps.contains_key(d)) {
            self.journal.push(Output::Tap(*dev));
        }
        self.overlay_taps = want;
    }

    /// A frame from the overlay. Whatever it says, nothing is learned from it.
    pub(super) fn overlay_frame(&mut self, vni: Vni, bytes: &[u8], at: Time) {
        let f = match frame::parse(bytes) {
            Ok(f) => f,
            Err(why) => {
                *self.journal.refused_frames.entry(why.name()).or_default() += 1;
                return;
            }
        };
        // PIT-10: tagged frames belong to no VLAN-based VNI.
        if f.vlan.is_some() || self.probe_mac(vni) == Some(f.src) {
            return;
        }
        self.router_asked_from_afar(vni, &f, at);
        if self.probe_mac(vni) == Some(f.dst) {
            self.asked_from_afar(vni, &f);
            if let Some((mac, ip)) = answer_of(&f) {
                self.round_trip_heard(vni, mac, ip, at);
                self.owner_answered(vni, ip, mac, at);
            }
        } else {
            self.note_overheard(vni, &f, at);
        }
        self.check_from_afar(vni, &f, at);
    }

    /// A host behind another VTEP that has answered us looks whether we are still there, as those here do.
    fn asked_from_afar(&mut self, vni: Vni, f: &Frame) {
        let Some(own) = self.probe_mac(vni) else { return };
        let Body::NeighborSolicitation(ns) = &f.body else { return };
        if ns.is_dad() || ns.target != super::probe_mac::link_local(own) {
            return;
        }
        let to = Some((f.src, ns.src));
        self.encap_to_owner(vni, f.src, frame::neighbor_advertisement(own, ns.target, to, false, true));
    }

    /// The VTEP that has a MAC, by its best route.
    pub(super) fn vtep_of(&self, vni: Vni, mac: Mac) -> Option<IpAddr> {
        let entry = self.segments.get(&vni)?.hosts.macs.get(&mac)?;
        entry.remote().map(|r| r.claim.vtep)
    }

    /// Sends a frame to the VTEP that has a MAC. Whether one is known to have it.
    pub(super) fn encap_to_owner(&mut self, vni: Vni, mac: Mac, frame: Bytes) -> bool {
        let Some(vtep) = self.vtep_of(vni, mac) else { return false };
        self.encap(vni, vtep, frame);
        true
    }

    /// Sends a frame to one VTEP, under the number that it has for the VNI.
    pub(super) fn encap(&mut self, vni: Vni, vtep: IpAddr, frame: Bytes) {
        let label = self.rib.flood_targets(vni).find(|(v, _)| *v == vtep).and_then(|(_, label)| label.vni());
        self.journal.push(Output::Encap { vni: label.unwrap_or(vni), vtep, frame });
    }

    /// The same to every VTEP that has the VNI, a copy each.
    pub(super) fn encap_to_all(&mut self, vni: Vni, frame: &Bytes) {
        let all: Vec<(IpAddr, Vni)> =
            self.rib.flood_targets(vni).map(|(vtep, label)| (vtep, label.vni().unwrap_or(vni))).collect();
        for (vtep, vni) in all {
            self.journal.push(Output::Encap { vni, vtep, frame: frame.clone() });
        }
    }
}
