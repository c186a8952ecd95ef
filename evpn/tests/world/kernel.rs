//! The kernel of a node, and the hosts behind it.

use super::config::link;
use super::{BRIDGE, Due, P1, P2, Trace, VXLAN, World, bridge_row, own_mac, vtep};
use bytes::Bytes;
use evpn::fabric::{
    BridgeLink, FdbRow, KernelEvent, Link, LinkKind, PortFlags, Row, RowKey, VxlanLink, WriteResult,
};
use evpn::node::Input;
use evpn::types::{IfIndex, Mac, Span};

impl World {
    /// Bridge, VXLAN device and ports of a node, all with this address.
    pub fn devices(&mut self, i: usize, base: Mac) {
        self.devices_with(i, base, &[(P1, "p1", true), (P2, "p2", true)]);
    }

    /// The same with these ports: index, name, carrier.
    pub fn devices_with(&mut self, i: usize, base: Mac, ports: &[(IfIndex, &str, bool)]) {
        let vx = LinkKind::Vxlan(VxlanLink { vni: 100, local: Some(vtep(i)), port: 4789, learning: false });
        let bridge = link(BRIDGE, "br100", LinkKind::Bridge(BridgeLink::default()), None, base);
        self.kernel(i, KernelEvent::Link(bridge));
        self.kernel(i, KernelEvent::Link(link(VXLAN, "vx100", vx, Some(BRIDGE), base)));
        for (p, name, carrier) in ports {
            let port = link(*p, name, LinkKind::Other("veth".into()), Some(BRIDGE), base);
            self.kernel(i, KernelEvent::Link(Link { carrier: *carrier, ..port }));
        }
    }

    /// The bridge of a node with other settings.
    pub fn bridge_with(&mut self, i: usize, set: BridgeLink) {
        let bridge = link(BRIDGE, "br100", LinkKind::Bridge(set), None, own_mac(i));
        self.kernel(i, KernelEvent::Link(bridge));
    }

    /// A port of a node with other flags.
    pub fn port_with(&mut self, i: usize, port: IfIndex, set: impl Fn(&mut PortFlags)) {
        let mut l = link(port, "p1", LinkKind::Other("veth".into()), Some(BRIDGE), own_mac(i));
        l.port.as_mut().into_iter().for_each(set);
        self.kernel(i, KernelEvent::Link(l));
    }

    pub fn kernel(&mut self, i: usize, ev: KernelEvent) {
        self.input(i, Input::Kernel(ev));
    }

    /// A frame of `mac` enters by `port`: the tap sees it, the bridge learns it.
    pub fn frame(&mut self, i: usize, port: IfIndex, mac: Mac, bytes: Option<Bytes>) {
        if let Some(bytes) = &bytes {
            self.across(i, port, bytes);
        }
        if let Some(bytes) = bytes.filter(|_| !self.hosts[i].dead) {
            self.hosts[i].node.handle(Input::Frame { port, bytes }, self.now);
        }
        if let Some((_, dropped)) = self.hosts[i].guarded.get_mut(&port).filter(|(ok, _)| !ok.contains(&mac))
        {
            *dropped += 1;
            self.turn(i);
            return;
        }
        let key = RowKey::Mac { bridge: BRIDGE, mac };
        if self.sticky_holds && matches!(self.hosts[i].rows.get(&key), Some(Row::Remote { sticky: true, .. }))
        {
            // The kernel lets no frame take such a row.
        } else if self.hosts[i].fdb.insert(mac, port) != Some(port) && !self.hosts[i].dead {
            let row = FdbRow::Bridge(bridge_row(mac, port, false));
            self.hosts[i].node.handle(Input::Kernel(KernelEvent::Fdb(row)), self.now);
        }
        self.turn(i);
    }

    /// The bridge drops a MAC (ageing, carrier loss).
    pub fn forget(&mut self, i: usize, mac: Mac) {
        if let Some(port) = self.hosts[i].fdb.remove(&mac) {
            self.kernel(i, KernelEvent::FdbGone(FdbRow::Bridge(bridge_row(mac, port, false))));
        }
    }

    pub(super) fn write(&mut self, i: usize, key: RowKey) -> WriteResult {
        let h = &mut self.hosts[i];
        let want = h.node.want().get(&key).copied();
        let had = h.rows.get(&key).copied();
        let mut changed = want != had;
        if let (RowKey::Mac { mac, .. }, Some(Row::Local { .. })) = (key, want)
            && h.refused.contains(&mac)
        {
            return WriteResult::Failed { errno: 1, text: "operation not permitted".into() };
        }
        if let RowKey::Mac { mac, .. } = key {
            h.trace.push(Trace::Wrote(mac, want));
        }
        match want {
            Some(row) => h.rows.insert(key, row),
            None => h.rows.remove(&key),
        };
        if let RowKey::Mac { mac, .. } = key {
            match want {
                Some(Row::Remote { .. }) => changed |= h.fdb.insert(mac, VXLAN) != Some(VXLAN),
                Some(Row::Local { port, .. } | Row::Relayed { port, .. }) => {
                    changed |= h.fdb.insert(mac, port) != Some(port);
                }
                Some(Row::Cleared { port }) => {
                    if h.fdb.get(&mac) == Some(&port) {
                        h.fdb.remove(&mac);
                    }
                }
                _ => {
                    if h.fdb.get(&mac) == Some(&VXLAN) {
                        h.fdb.remove(&mac);
                    }
                }
            }
        }
        if changed {
            h.writes += 1;
            WriteResult::Done
        } else {
            WriteResult::Unchanged
        }
    }

    /// What a host on this port says to an ARP request for its address, some microseconds later.
    pub(super) fn answer_arp(&mut self, i: usize, port: IfIndex, f: &[u8]) {
        let request = f.len() >= 42 && f[12..14] == [8, 6] && f[20..22] == [0, 1];
        let broadcast = f.starts_with(&[0xff; 6]) && f.get(28..32) != f.get(38..42);
        let found = self.guests.iter().find(|g| {
            let for_it = request && (broadcast || f[..6] == g.mac.0);
            (g.node, g.port) == (i, port) && for_it && f[38..42] == g.ip.octets()
        });
        let Some(g) = found else { return };
        let reply =
            [&f[6..12], &g.mac.0, &[8, 6, 0, 1, 8, 0, 6, 4, 0, 2], &g.mac.0, &g.ip.octets(), &f[22..32]]
                .concat();
        let due = Due::Frame(port, g.mac, Bytes::from(reply));
        self.seq += 1;
        self.queue.insert((self.now + Span::micros(100), self.seq), (i, due));
    }
}
