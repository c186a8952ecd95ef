//! Neighbour rows, and what a bridge answers from them.

use super::FakeKernel;
use evpn::fabric::{KernelEvent, NeighRow, NeighState};
use evpn::types::{IfIndex, Mac};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What suppression makes of a frame that came in by a port without `neigh_suppress`.
pub(super) enum Suppress {
    /// Nothing to do with it.
    Pass,
    /// Not to be flooded to suppressing ports.
    Keep,
    /// As `Keep`, and this goes back out of the ingress port.
    Answer(Vec<u8>),
}

impl FakeKernel {
    pub(super) fn set_neigh(&mut self, dev: IfIndex, ip: IpAddr, mac: Mac, router: bool) -> Result<(), i32> {
        if !self.links.contains_key(&dev) {
            return Err(libc::ENODEV);
        }
        let protocol = NeighRow::PROTOCOL;
        let (mac, state) = (Some(mac), NeighState::NoArp);
        self.put_neigh(NeighRow { dev, ip, mac, state, ext_learned: true, router, protocol });
        Ok(())
    }

    /// A row of any kind, as the operator or the kernel itself makes them.
    pub fn put_neigh(&mut self, row: NeighRow) {
        if self.neigh.insert((row.dev, row.ip), row) != Some(row) {
            self.emit(KernelEvent::Neigh(row));
        }
    }

    pub(super) fn del_neigh(&mut self, dev: IfIndex, ip: IpAddr) -> Result<(), i32> {
        let Some(row) = self.neigh.remove(&(dev, ip)) else { return Err(libc::ENOENT) };
        self.emit(KernelEvent::NeighGone(row));
        Ok(())
    }

    /// PIT-01: a change of the bridge's MAC, state or carrier empties its table.
    pub(super) fn flush_neigh(&mut self, dev: IfIndex) {
        let gone: Vec<IpAddr> = self.neigh.keys().filter(|(d, _)| *d == dev).map(|(_, ip)| *ip).collect();
        for ip in gone {
            let _ = self.del_neigh(dev, ip);
        }
    }

    fn known(&self, bridge: IfIndex, ip: IpAddr) -> Option<(Mac, bool)> {
        let row = self.neigh.get(&(bridge, ip)).filter(|r| r.state != NeighState::Invalid)?;
        Some((row.mac?, row.router))
    }

    /// Whether the bridge has a row for the MAC, and whether that points to a suppressing port.
    fn behind_suppress(&self, bridge: IfIndex, mac: Mac) -> Option<bool> {
        let row = self.fdb.get(&(bridge, mac))?;
        Some(self.links.get(&row.port).and_then(|l| l.port).is_some_and(|p| p.neigh_suppress))
    }

    /// What the bridge answers a guest on an ordinary port that asks for this address, if it answers at all.
    pub fn answer(&self, bridge: IfIndex, ip: IpAddr) -> Option<Mac> {
        let (mac, _) = self.known(bridge, ip)?;
        self.behind_suppress(bridge, mac)?.then_some(mac)
    }

    pub(super) fn suppress(&self, bridge: IfIndex, frame: &[u8]) -> Suppress {
        let enabled =
            self.links.values().any(|l| l.master == Some(bridge) && l.port.is_some_and(|p| p.neigh_suppress));
        if !enabled {
            return Suppress::Pass;
        }
        match frame.get(12..14) {
            Some([0x08, 0x06]) => self.suppress_arp(bridge, frame).unwrap_or(Suppress::Pass),
            Some([0x86, 0xdd]) => self.suppress_nd(bridge, frame).unwrap_or(Suppress::Pass),
            _ => Suppress::Pass,
        }
    }

    fn suppress_arp(&self, bridge: IfIndex, f: &[u8]) -> Option<Suppress> {
        let arp = f.get(14..42)?;
        let op = arp[7];
        let ip = |at: usize| arp.get(at..at + 4)?.try_into().ok().map(|o: [u8; 4]| Ipv4Addr::from(o));
        let (sender, target) = (ip(14)?, ip(24)?);
        if matches!(op, 1 | 2) && (sender.octets()[0] == 0 || sender == target) {
            return Some(Suppress::Keep);
        }
        if op != 1 {
            return None;
        }
        let (mac, _) = self.known(bridge, target.into())?;
        if !self.behind_suppress(bridge, mac)? {
            return Some(Suppress::Keep);
        }
        let asker = Mac::from_slice(&arp[8..])?;
        let mut out = Vec::with_capacity(42);
        out.extend(asker.0);
        out.extend(mac.0);
        out.extend([0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 2]);
        out.extend(mac.0);
        out.extend(target.octets());
        out.extend(asker.0);
        out.extend(sender.octets());
        Some(Suppress::Answer(out))
    }

    fn suppress_nd(&self, bridge: IfIndex, f: &[u8]) -> Option<Suppress> {
        let (ip, nd) = (f.get(14..54)?, f.get(54..78)?);
        if ip[6] != 58 {
            return None;
        }
        let solicited = nd[4] & 0x40 != 0;
        if nd[0] == 136 && !solicited {
            return Some(Suppress::Keep);
        }
        if nd[0] != 135 {
            return None;
        }
        let addr = |b: &[u8]| b.try_into().ok().map(|o: [u8; 16]| Ipv6Addr::from(o));
        let (from, to, target) = (addr(&ip[8..24])?, addr(&ip[24..40])?, addr(&nd[8..24])?);
        if from.is_unspecified() || from == to {
            return Some(Suppress::Keep);
        }
        let (mac, router) = self.known(bridge, target.into())?;
        if !self.behind_suppress(bridge, mac)? {
            return Some(Suppress::Keep);
        }
        // Source link-layer address option, else the frame's sender.
        let asker = match f.get(78..86) {
            Some([1, 1, rest @ ..]) => Mac::from_slice(rest)?,
            _ => Mac::from_slice(&f[6..])?,
        };
        let mut icmp = vec![136, 0, 0, 0, if router { 0xe0 } else { 0x60 }, 0, 0, 0];
        icmp.extend(target.octets());
        icmp.extend([2, 1]);
        icmp.extend(mac.0);
        let sum = checksum(target, from, &icmp).to_be_bytes();
        icmp[2..4].copy_from_slice(&sum);
        let mut out = Vec::with_capacity(86);
        out.extend(asker.0);
        out.extend(mac.0);
        out.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 32, 58, 255]);
        out.extend(target.octets());
        out.extend(from.octets());
        out.extend(icmp);
        Some(Suppress::Answer(out))
    }
}

/// ICMPv6 checksum (RFC 4443 §2.3).
fn checksum(from: Ipv6Addr, to: Ipv6Addr, icmp: &[u8]) -> u16 {
    let mut all = Vec::with_capacity(icmp.len() + 40);
    all.extend(from.octets());
    all.extend(to.octets());
    all.extend((icmp.len() as u32).to_be_bytes());
    all.extend([0, 0, 0, 58]);
    all.extend_from_slice(icmp);
    let mut sum: u32 = all.chunks(2).map(|c| u32::from(c[0]) << 8 | u32::from(*c.get(1).unwrap_or(&0))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}
