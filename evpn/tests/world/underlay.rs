//! Frames between the nodes, as far as hosts or nodes answer them.

use super::{Due, VXLAN, World, probe_mac, vtep};
use bytes::Bytes;
use evpn::fabric::{Row, RowKey};
use evpn::node::Input;
use evpn::types::{IfIndex, Mac};
use std::net::IpAddr;

impl World {
    /// A frame for one VTEP enters the overlay.
    pub(super) fn encapsulate(&mut self, i: usize, to: IpAddr, bytes: Bytes) {
        let Some(j) = (0..self.hosts.len()).find(|j| vtep(*j) == to && *j != i) else { return };
        self.seq += 1;
        self.queue.insert((self.now + self.delay, self.seq), (j, Due::Overlay(bytes)));
    }

    /// A frame comes out of it: the tap hears it, hosts answer.
    pub fn out_of_overlay(&mut self, i: usize, bytes: Bytes) {
        for port in [super::P1, super::P2] {
            self.answer_arp(i, port, &bytes);
        }
        if !self.hosts[i].dead && self.hosts[i].taps.contains(&VXLAN) {
            self.input(i, Input::Frame { port: VXLAN, bytes });
        }
    }

    /// A host's unicast frame goes on to the VTEP that its destination is behind.
    pub(super) fn across(&mut self, i: usize, port: IfIndex, bytes: &Bytes) {
        let Some(dst) = bytes.first_chunk::<6>().map(|m| Mac(*m)).filter(|m| m.0[0] & 1 == 0) else { return };
        if port == VXLAN || self.hosts[i].fdb.get(&dst).is_some_and(|p| *p != VXLAN) {
            return;
        }
        let of_probe = (0..self.hosts.len()).find(|j| probe_mac(*j) == dst).map(vtep);
        let to = match self.hosts[i].rows.get(&RowKey::Mac { bridge: super::BRIDGE, mac: dst }) {
            Some(Row::Remote { vtep, .. }) => Some(*vtep),
            _ => of_probe,
        };
        if let Some(to) = to.filter(|t| *t != vtep(i)) {
            self.encapsulate(i, to, bytes.clone());
        }
    }
}
