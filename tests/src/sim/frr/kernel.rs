//! The kernel below an FRR-like VTEP: what zebra hears of it, and how its neighbours come about.

use super::{BRIDGE, FrrEv, ZEBRA};
use crate::sim::plan::By;
use crate::sim::world::World;
use evpn::fabric::{FdbRow, KernelEvent, NeighRow, NeighState};
use evpn::types::{Mac, Span};
use evpn::wire::frame;
use std::net::IpAddr;

impl World {
    /// zebra reads what its kernel tells.
    pub(in crate::sim) fn frr_kernel(&mut self, host: usize) {
        let f = self.frr(host);
        if !f.alive {
            return;
        }
        let vxlan = f.machine.vxlan;
        let mut news = Vec::new();
        f.machine.kernel.recv(usize::MAX, &mut news);
        for ev in news {
            match ev {
                KernelEvent::Fdb(FdbRow::Bridge(r)) if !r.permanent && r.port != vxlan => {
                    f.tables.seen(r.mac, r.port);
                }
                KernelEvent::FdbGone(FdbRow::Bridge(r)) if !r.permanent => f.tables.gone(r.mac, r.port),
                _ => {}
            }
        }
        self.frr_turn(host);
    }

    /// The kernel looks at a guest's ARP or unsolicited NA: B.3.
    pub(in crate::sim) fn frr_hears(&mut self, host: usize, f: &[u8]) {
        let Ok(parsed) = frame::parse(f) else { return };
        let (ip, mac, asks): (IpAddr, Mac, bool) = match parsed.body {
            frame::Body::Arp(a) if a.is_gratuitous() => (a.sender_ip.into(), a.sender_mac, false),
            frame::Body::Arp(a) if !a.reply && !a.is_probe() => {
                (a.sender_ip.into(), a.sender_mac, a.target_ip == BRIDGE)
            }
            frame::Body::NeighborAdvertisement(n) if !n.solicited => (n.target.into(), parsed.src, false),
            _ => return,
        };
        let by = if asks || matches!(parsed.body, frame::Body::Arp(a) if !a.is_gratuitous()) {
            By::Ask
        } else {
            By::Garp
        };
        if !asks && !self.hears_address(host, ip, by) {
            return;
        }
        let peer = self.frr(host);
        if peer.neigh(ip).is_some_and(|n| n.state == NeighState::NoArp) {
            return;
        }
        let (dev, state) = (peer.machine.bridge, NeighState::Valid);
        let row = NeighRow { dev, ip, mac: Some(mac), state, ext_learned: false, router: false, protocol: 0 };
        peer.machine.kernel.put_neigh(row);
        // After the MAC, which bgpd may be telling already.
        let after = self.rng.pick(&[Span::ZERO, Span::millis(5), ZEBRA]);
        self.frr_later(host, after, FrrEv::Neigh(ip, mac));
    }
}
