//! Frames through the bridge.

use super::neigh::Suppress;
use super::{FakeKernel, Frames, Out};
use evpn::fabric::{Link, LinkKind};
use evpn::types::{IfIndex, Mac};
use std::net::IpAddr;

impl FakeKernel {
    /// A guest behind an access port sends a frame. What leaves the machine because of it.
    pub fn inject(&mut self, port: IfIndex, frame: &[u8]) -> Frames {
        self.bridged(port, frame)
    }

    /// A frame arrives encapsulated from a VTEP. (Without learning the sender's address does not matter.)
    pub fn inject_vxlan(&mut self, vxlan: IfIndex, _from: IpAddr, frame: &[u8]) -> Frames {
        self.bridged(vxlan, frame)
    }

    fn bridged(&mut self, from: IfIndex, frame: &[u8]) -> Frames {
        let mut out = Vec::new();
        let Some(ingress) = self.links.get(&from).filter(|l| usable(l)).cloned() else { return out };
        let (Some(bridge), Some(flags)) = (ingress.master, ingress.port) else { return out };
        if !self.links.get(&bridge).is_some_and(|b| b.up) {
            return out;
        }
        let (Some(to), Some(source)) = (Mac::from_slice(frame), frame.get(6..).and_then(Mac::from_slice))
        else {
            return out;
        };
        // 01:80:c2:00:00:0x stays on the link.
        let [a @ .., last] = to.0;
        if !source.is_host() || frame.len() < 14 || a == [0x01, 0x80, 0xc2, 0, 0] && last < 0x10 {
            return out;
        }
        if flags.locked && self.fdb.get(&(bridge, source)).is_none_or(|r| r.port != from) {
            return out;
        }
        if flags.learning {
            self.learn(bridge, from, source);
        }
        let verdict = if flags.neigh_suppress { Suppress::Pass } else { self.suppress(bridge, frame) };
        let keep = !matches!(verdict, Suppress::Pass);
        if let Suppress::Answer(reply) = verdict {
            self.leave(&ingress, &reply, &mut out);
        }
        let row = if to.is_multicast() { None } else { self.fdb.get(&(bridge, to)).copied() };
        match row {
            // An address of the bridge or of a port: for the host.
            Some(r) if r.permanent => {}
            // Same port in, same port out (PIT-03).
            Some(r) if r.port == from => {}
            Some(r) => {
                if let Some(egress) = self.links.get(&r.port).filter(|l| usable(l)).cloned()
                    && !isolated(&ingress, &egress)
                {
                    self.leave(&egress, frame, &mut out);
                }
            }
            None if !to.is_multicast() && self.links.get(&bridge).is_some_and(|b| b.mac == to) => {}
            None => {
                for port in self.ports(bridge) {
                    let Some(egress) = self.links.get(&port).filter(|l| usable(l)).cloned() else { continue };
                    let set = egress.port.unwrap_or_default();
                    let skip = port == from
                        || keep && set.neigh_suppress
                        || !to.is_multicast() && !set.flood
                        || isolated(&ingress, &egress);
                    if !skip {
                        self.leave(&egress, frame, &mut out);
                    }
                }
            }
        }
        out
    }

    fn leave(&self, by: &Link, frame: &[u8], out: &mut Frames) {
        if !matches!(by.kind, LinkKind::Vxlan(_)) {
            out.push((Out::Port(by.index), frame.to_vec()));
            return;
        }
        let to = Mac::from_slice(frame).unwrap_or_default();
        let rows = self.vxlan.get(&(by.index, to)).or_else(|| self.vxlan.get(&(by.index, Mac::ZERO)));
        for vtep in rows.into_iter().flat_map(|r| &r.vteps) {
            out.push((Out::Vtep(by.index, *vtep), frame.to_vec()));
        }
    }
}

fn usable(l: &Link) -> bool {
    l.up && l.carrier && l.port.is_some_and(|p| p.forwarding)
}

fn isolated(a: &Link, b: &Link) -> bool {
    let set = |l: &Link| l.port.is_some_and(|p| p.isolated);
    set(a) && set(b)
}
