//! What the kernel holds, as far as it concerns us.

use crate::op::Op;
use evpn::fabric::{
    BridgeFdb, DeviceWant, FdbRow, KernelEvent, Link, LinkKind, NeighRow, NeighState, RowKey, VxlanFdb,
};
use evpn::types::{IfIndex, Mac};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

/// Bridge row without its key: 8 octets.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct BridgeEntry {
    /// The port.
    pub port: IfIndex,
    flags: u8,
}

/// `self` row of a VXLAN device without its key.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct SelfEntry {
    /// Destination; `None` for a row with a next hop object.
    pub vtep: Option<IpAddr>,
    flags: u8,
}

const EXT: u8 = 1;
const STICKY: u8 = 2;
const STATIC: u8 = 4;
const PERMANENT: u8 = 8;

fn bit(on: bool, b: u8) -> u8 {
    if on { b } else { 0 }
}

impl BridgeEntry {
    /// `NTF_EXT_LEARNED`.
    pub fn ext_learned(self) -> bool {
        self.flags & EXT != 0
    }
    /// `NTF_STICKY`.
    pub fn sticky(self) -> bool {
        self.flags & STICKY != 0
    }
    /// `NUD_NOARP`.
    pub fn is_static(self) -> bool {
        self.flags & STATIC != 0
    }
    /// `NUD_PERMANENT`: an address of the port itself.
    pub fn permanent(self) -> bool {
        self.flags & PERMANENT != 0
    }
    fn of(r: &BridgeFdb) -> Self {
        let flags = bit(r.ext_learned, EXT)
            | bit(r.sticky, STICKY)
            | bit(r.is_static, STATIC)
            | bit(r.permanent, PERMANENT);
        Self { port: r.port, flags }
    }
}

impl SelfEntry {
    /// `NTF_EXT_LEARNED`: ours, on a managed device (PIT-27).
    pub fn ext_learned(self) -> bool {
        self.flags & EXT != 0
    }
    /// `NUD_PERMANENT`.
    pub fn permanent(self) -> bool {
        self.flags & PERMANENT != 0
    }
    fn of(r: &VxlanFdb) -> Self {
        Self { vtep: r.vtep, flags: bit(r.ext_learned, EXT) | bit(r.permanent, PERMANENT) }
    }
}

/// What an observed event changed.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Change {
    /// The key whose row is different from before.
    pub key: Option<RowKey>,
    /// A device that we manage appeared, came up, changed its MAC or its master: its rows want a new look
    /// (PIT-01).
    pub device: Option<IfIndex>,
}

/// Rows and devices of the kernel. Only rows of managed devices are kept; about 70 octets per remote MAC.
#[derive(Clone, Debug, Default)]
pub struct Mirror {
    links: BTreeMap<IfIndex, Link>,
    names: BTreeMap<String, IfIndex>,
    /// Names of managed bridges.
    want_bridges: BTreeSet<String>,
    /// Names of managed VXLAN devices with their VNI.
    want_vxlans: BTreeMap<String, u32>,
    bridges: BTreeSet<IfIndex>,
    vxlans: BTreeSet<IfIndex>,
    bridge_rows: BTreeMap<(IfIndex, Mac), BridgeEntry>,
    self_rows: BTreeMap<(IfIndex, Mac), SelfEntry>,
    /// Zero-MAC rows by destination, and whether they carry `NTF_EXT_LEARNED`.
    flood: BTreeMap<(IfIndex, IpAddr), bool>,
    neigh: BTreeMap<(IfIndex, IpAddr), NeighRow>,
}

impl Mirror {
    /// An empty mirror that manages nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Which devices are ours, by name. A VXLAN device counts only while its VNI is the wanted one.
    ///
    /// Returns whether a device that exists already is newly managed: its rows were not kept so far, so
    /// the tables have to be read again.
    pub fn manage(&mut self, devices: &[DeviceWant]) -> bool {
        self.want_bridges = devices.iter().map(|d| d.bridge.clone()).collect();
        self.want_vxlans = devices.iter().map(|d| (d.vxlan.clone(), d.vni.get())).collect();
        let before: BTreeSet<_> = self.bridges.union(&self.vxlans).copied().collect();
        let links: Vec<Link> = self.links.values().cloned().collect();
        for l in &links {
            self.classify(l);
        }
        for dev in &before {
            if !self.manages(*dev) {
                self.forget_rows(*dev);
            }
        }
        self.bridges.union(&self.vxlans).any(|i| !before.contains(i))
    }

    /// Whether this is a bridge or VXLAN device of ours.
    pub fn manages(&self, dev: IfIndex) -> bool {
        self.bridges.contains(&dev) || self.vxlans.contains(&dev)
    }
    /// Whether this is a VXLAN device of ours.
    pub fn manages_vxlan(&self, dev: IfIndex) -> bool {
        self.vxlans.contains(&dev)
    }
    /// Whether this is a bridge of ours.
    pub fn manages_bridge(&self, dev: IfIndex) -> bool {
        self.bridges.contains(&dev)
    }
    /// Managed VXLAN devices that are ports of this bridge (normally one).
    pub fn vxlans_of(&self, bridge: IfIndex) -> impl Iterator<Item = IfIndex> + '_ {
        self.vxlans.iter().copied().filter(move |v| self.master_of(*v) == Some(bridge))
    }
    /// The master of a device.
    pub fn master_of(&self, dev: IfIndex) -> Option<IfIndex> {
        self.links.get(&dev).and_then(|l| l.master)
    }
    /// A device.
    pub fn link(&self, dev: IfIndex) -> Option<&Link> {
        self.links.get(&dev)
    }
    /// A device by name.
    pub fn link_by_name(&self, name: &str) -> Option<&Link> {
        self.names.get(name).and_then(|i| self.links.get(i))
    }
    /// All devices by index.
    pub fn links(&self) -> &BTreeMap<IfIndex, Link> {
        &self.links
    }
    /// Name of a device, or its number.
    pub fn name(&self, dev: IfIndex) -> String {
        self.links.get(&dev).map_or_else(|| format!("if{}", dev.0), |l| l.name.clone())
    }

    /// Bridge row of a MAC.
    pub fn bridge_row(&self, bridge: IfIndex, mac: Mac) -> Option<BridgeEntry> {
        self.bridge_rows.get(&(bridge, mac)).copied()
    }
    /// `self` row of a MAC.
    pub fn self_row(&self, vxlan: IfIndex, mac: Mac) -> Option<SelfEntry> {
        self.self_rows.get(&(vxlan, mac)).copied()
    }
    /// Whether there is a flood row, and if so whether it carries `NTF_EXT_LEARNED`.
    pub fn flood_row(&self, vxlan: IfIndex, vtep: IpAddr) -> Option<bool> {
        self.flood.get(&(vxlan, vtep)).copied()
    }
    /// Neighbour row.
    pub fn neigh_row(&self, dev: IfIndex, ip: IpAddr) -> Option<&NeighRow> {
        self.neigh.get(&(dev, ip))
    }

    /// Whether the bridge row of a MAC is ours: on a VXLAN port of ours, and marked or sticky. The bridge cannot
    /// keep mark and stickiness together (PIT-04), so a sticky row is ours by its `self` row: marked, or
    /// deleted by somebody. On the bridge itself a permanent row with the mark is ours; it stays permanent, and ours, if
    /// somebody turns it to a VXLAN port.
    pub fn owns_bridge_row(&self, row: BridgeEntry, mac: Mac) -> bool {
        if self.bridges.contains(&row.port) {
            return row.permanent() && row.ext_learned();
        }
        self.vxlans.contains(&row.port)
            && (row.ext_learned()
                || row.sticky()
                    && !row.permanent()
                    && self.self_row(row.port, mac).is_none_or(SelfEntry::ext_learned))
    }

    /// Number of (bridge, `self`, flood, neighbour) rows.
    pub fn len(&self) -> (usize, usize, usize, usize) {
        (self.bridge_rows.len(), self.self_rows.len(), self.flood.len(), self.neigh.len())
    }
    /// Holds no row.
    pub fn is_empty(&self) -> bool {
        self.len() == (0, 0, 0, 0)
    }

    /// Takes in what the kernel said.
    pub fn observe(&mut self, ev: &KernelEvent) -> Change {
        match ev {
            KernelEvent::Link(l) => Change { key: None, device: self.link_seen(l) },
            KernelEvent::LinkGone(i) => {
                self.link_gone(*i);
                Change::default()
            }
            KernelEvent::Fdb(r) => Change { key: self.fdb_seen(r), device: None },
            KernelEvent::FdbGone(r) => Change { key: self.fdb_gone(r), device: None },
            KernelEvent::Neigh(r) => {
                let new = self.bridges.contains(&r.dev) && self.neigh.insert((r.dev, r.ip), *r) != Some(*r);
                Change { key: new.then_some(RowKey::Neigh { dev: r.dev, ip: r.ip }), device: None }
            }
            KernelEvent::NeighGone(r) => {
                let was = self.neigh.remove(&(r.dev, r.ip)).is_some();
                Change { key: was.then_some(RowKey::Neigh { dev: r.dev, ip: r.ip }), device: None }
            }
            KernelEvent::NeighAsked { .. } | KernelEvent::Synced | KernelEvent::Overrun => Change::default(),
        }
    }

    /// Takes in what the kernel acknowledged, exactly as its notification will show it.
    pub fn applied(&mut self, op: &Op) {
        let ext = |mac, vtep: IpAddr, dev| ((dev, mac), SelfEntry { vtep: Some(vtep), flags: EXT });
        match *op {
            Op::SetRemote { vxlan, mac, vtep } => {
                if let Some(bridge) = self.master_of(vxlan) {
                    self.bridge_rows.insert((bridge, mac), BridgeEntry { port: vxlan, flags: EXT });
                }
                let (k, v) = ext(mac, vtep, vxlan);
                self.self_rows.insert(k, v);
            }
            Op::SetSelf { vxlan, mac, vtep } => {
                let (k, v) = ext(mac, vtep, vxlan);
                self.self_rows.insert(k, v);
            }
            Op::SetSticky { vxlan, mac } => {
                if let Some(bridge) = self.master_of(vxlan) {
                    self.bridge_rows
                        .insert((bridge, mac), BridgeEntry { port: vxlan, flags: STICKY | STATIC });
                }
            }
            Op::SetLocal { port, mac } => {
                if let Some(bridge) = self.master_of(port) {
                    self.bridge_rows.insert((bridge, mac), BridgeEntry { port, flags: 0 });
                }
            }
            Op::SetOwn { bridge, mac } => {
                let row = BridgeEntry { port: bridge, flags: EXT | PERMANENT };
                self.bridge_rows.insert((bridge, mac), row);
            }
            Op::DelOwn { bridge, mac } => {
                if self.bridge_row(bridge, mac).is_some_and(|e| e.port == bridge) {
                    self.bridge_rows.remove(&(bridge, mac));
                }
            }
            Op::DelRemote { vxlan, mac, .. } => {
                self.drop_bridge_row(vxlan, mac);
                self.self_rows.remove(&(vxlan, mac));
            }
            Op::DelMaster { port, mac } => self.drop_bridge_row(port, mac),
            Op::DelSelf { vxlan, mac, .. } => {
                self.self_rows.remove(&(vxlan, mac));
            }
            Op::AddFlood { vxlan, vtep } => {
                self.flood.insert((vxlan, vtep), true);
            }
            Op::DelFlood { vxlan, vtep } => {
                self.flood.remove(&(vxlan, vtep));
            }
            Op::SetNeigh { dev, ip, mac, router } => {
                let protocol = NeighRow::PROTOCOL;
                let (mac, state) = (Some(mac), NeighState::NoArp);
                let row = NeighRow { dev, ip, mac, state, ext_learned: true, router, protocol };
                self.neigh.insert((dev, ip), row);
            }
            Op::DelNeigh { dev, ip } => {
                self.neigh.remove(&(dev, ip));
            }
        }
    }

    /// The key that a forwarding row belongs to; `None` if it is not on a device of ours.
    pub fn key_of(&self, row: &FdbRow) -> Option<RowKey> {
        match row {
            FdbRow::Bridge(r) => (r.vlan == 0 && self.bridges.contains(&r.bridge))
                .then_some(RowKey::Mac { bridge: r.bridge, mac: r.mac }),
            FdbRow::Vxlan(r) if !self.vxlans.contains(&r.dev) => None,
            FdbRow::Vxlan(r) if r.mac.is_zero() => r.vtep.map(|vtep| RowKey::Flood { vxlan: r.dev, vtep }),
            FdbRow::Vxlan(r) => self.master_of(r.dev).map(|bridge| RowKey::Mac { bridge, mac: r.mac }),
        }
    }

    /// Keys, from `after` on in order and at most `max`, under which the mirror holds rows of ours.
    pub fn own_keys(&self, after: Option<RowKey>, max: usize) -> Vec<RowKey> {
        let mut out = BTreeSet::new();
        for b in &self.bridges {
            let start = match after {
                None => Some(Mac::ZERO),
                Some(RowKey::Mac { bridge, mac }) if bridge == *b => Some(mac),
                Some(RowKey::Mac { bridge, .. }) if bridge < *b => Some(Mac::ZERO),
                Some(_) => None,
            };
            let Some(start) = start else { continue };
            for v in self.vxlans_of(*b) {
                let ours = self.self_rows.range((v, start)..).take_while(|((d, _), _)| *d == v);
                out.extend(
                    ours.filter(|(_, e)| e.ext_learned())
                        .map(|((_, mac), _)| RowKey::Mac { bridge: *b, mac: *mac })
                        .filter(|k| Some(*k) > after)
                        .take(max),
                );
            }
            let rows = self.bridge_rows.range((*b, start)..).take_while(|((d, _), _)| d == b);
            out.extend(
                rows.filter(|((_, mac), e)| self.owns_bridge_row(**e, *mac))
                    .map(|((_, mac), _)| RowKey::Mac { bridge: *b, mac: *mac })
                    .filter(|k| Some(*k) > after)
                    .take(max),
            );
        }
        let flood = self.flood.iter().filter(|((d, _), ext)| **ext && self.vxlans.contains(d));
        out.extend(
            flood
                .map(|((vxlan, vtep), _)| RowKey::Flood { vxlan: *vxlan, vtep: *vtep })
                .filter(|k| Some(*k) > after)
                .take(max),
        );
        let from = match after {
            Some(RowKey::Neigh { dev, ip }) => (dev, ip),
            _ => (IfIndex(0), IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
        };
        let neigh = self.neigh.range(from..).filter(|(_, r)| r.is_ours());
        out.extend(
            neigh
                .map(|((dev, ip), _)| RowKey::Neigh { dev: *dev, ip: *ip })
                .filter(|k| Some(*k) > after)
                .take(max),
        );
        out.into_iter().take(max).collect()
    }

    /// Every row as the event that would report it, for comparison with a complete read.
    pub fn rows(&self) -> impl Iterator<Item = KernelEvent> + '_ {
        let bridge =
            self.bridge_rows.iter().map(|((b, mac), e)| KernelEvent::Fdb(FdbRow::Bridge(e.row(*b, *mac))));
        let own = self.self_rows.iter().map(|((d, mac), e)| KernelEvent::Fdb(FdbRow::Vxlan(e.row(*d, *mac))));
        let flood = self.flood.iter().map(|((dev, vtep), ext)| {
            let (mac, vtep) = (Mac::ZERO, Some(*vtep));
            KernelEvent::Fdb(FdbRow::Vxlan(VxlanFdb {
                dev: *dev,
                mac,
                vtep,
                ext_learned: *ext,
                permanent: true,
            }))
        });
        let neigh = self.neigh.values().map(|r| KernelEvent::Neigh(*r));
        bridge.chain(own).chain(flood).chain(neigh)
    }

    /// Rows of hosts behind the local ports of a bridge, of `max` rows after a MAC; and the last MAC looked at, if there
    /// may be more.
    pub fn local_rows(
        &self,
        bridge: IfIndex,
        after: Option<Mac>,
        max: usize,
    ) -> (Vec<BridgeFdb>, Option<Mac>) {
        use std::ops::Bound::{Excluded, Included};
        let from = after.map_or(Included((bridge, Mac::ZERO)), |m| Excluded((bridge, m)));
        let (mut out, mut last, mut seen) = (Vec::new(), None, 0);
        let rows = self.bridge_rows.range((from, Included((bridge, Mac::BROADCAST))));
        for ((_, mac), e) in rows.take(max) {
            seen += 1;
            last = Some(*mac);
            if !self.vxlans.contains(&e.port) && e.port != bridge && !e.permanent() && !e.ext_learned() {
                out.push(e.row(bridge, *mac));
            }
        }
        (out, last.filter(|_| seen == max))
    }

    fn classify(&mut self, l: &Link) {
        let bridge = matches!(l.kind, LinkKind::Bridge(_)) && self.want_bridges.contains(&l.name);
        let vxlan = match &l.kind {
            LinkKind::Vxlan(v) => self.want_vxlans.get(&l.name) == Some(&v.vni),
            LinkKind::Bridge(_) | LinkKind::Other(_) => false,
        };
        if bridge {
            self.bridges.insert(l.index)
        } else {
            self.bridges.remove(&l.index)
        };
        if vxlan {
            self.vxlans.insert(l.index)
        } else {
            self.vxlans.remove(&l.index)
        };
    }

    fn link_seen(&mut self, l: &Link) -> Option<IfIndex> {
        let before = self.links.get(&l.index);
        if before == Some(l) {
            return None;
        }
        let was = self.manages(l.index);
        let old = before.map(|b| (b.mac, b.up, b.carrier, b.master, b.name.clone()));
        if let Some((.., name)) = &old
            && *name != l.name
        {
            self.names.remove(name);
        }
        self.names.insert(l.name.clone(), l.index);
        self.classify(l);
        self.links.insert(l.index, l.clone());
        if was && !self.manages(l.index) {
            self.forget_rows(l.index);
        }
        let same = old.is_some_and(|(mac, up, carrier, master, _)| {
            (mac, up, carrier, master) == (l.mac, l.up, l.carrier, l.master)
        });
        (self.manages(l.index) && !(was && same)).then_some(l.index)
    }

    fn link_gone(&mut self, i: IfIndex) {
        if let Some(l) = self.links.remove(&i)
            && self.names.get(&l.name) == Some(&i)
        {
            self.names.remove(&l.name);
        }
        self.forget_rows(i);
        self.bridges.remove(&i);
        self.vxlans.remove(&i);
    }

    fn forget_rows(&mut self, dev: IfIndex) {
        self.bridge_rows.retain(|(b, _), e| *b != dev && e.port != dev);
        self.self_rows.retain(|(d, _), _| *d != dev);
        self.flood.retain(|(d, _), _| *d != dev);
        self.neigh.retain(|(d, _), _| *d != dev);
    }

    fn fdb_seen(&mut self, row: &FdbRow) -> Option<RowKey> {
        let key = self.key_of(row);
        let new = match row {
            FdbRow::Bridge(r) => {
                let e = BridgeEntry::of(r);
                key.is_some() && self.bridge_rows.insert((r.bridge, r.mac), e) != Some(e)
            }
            FdbRow::Vxlan(r) if !self.vxlans.contains(&r.dev) => false,
            FdbRow::Vxlan(r) if r.mac.is_zero() => r
                .vtep
                .is_some_and(|vtep| self.flood.insert((r.dev, vtep), r.ext_learned) != Some(r.ext_learned)),
            FdbRow::Vxlan(r) => {
                let e = SelfEntry::of(r);
                self.self_rows.insert((r.dev, r.mac), e) != Some(e)
            }
        };
        key.filter(|_| new)
    }

    fn fdb_gone(&mut self, row: &FdbRow) -> Option<RowKey> {
        let key = self.key_of(row);
        let was = match row {
            // A row that moved to another port since is not the one that went.
            FdbRow::Bridge(r) if r.vlan == 0 => match self.bridge_rows.get(&(r.bridge, r.mac)) {
                Some(e) if e.port == r.port => self.bridge_rows.remove(&(r.bridge, r.mac)).is_some(),
                _ => false,
            },
            FdbRow::Bridge(_) => false,
            FdbRow::Vxlan(r) if r.mac.is_zero() => {
                r.vtep.is_some_and(|vtep| self.flood.remove(&(r.dev, vtep)).is_some())
            }
            FdbRow::Vxlan(r) => self.self_rows.remove(&(r.dev, r.mac)).is_some(),
        };
        key.filter(|_| was)
    }

    fn drop_bridge_row(&mut self, port: IfIndex, mac: Mac) {
        if let Some(bridge) = self.master_of(port)
            && self.bridge_rows.get(&(bridge, mac)).is_some_and(|e| e.port == port)
        {
            self.bridge_rows.remove(&(bridge, mac));
        }
    }
}

impl BridgeEntry {
    fn row(self, bridge: IfIndex, mac: Mac) -> BridgeFdb {
        BridgeFdb {
            bridge,
            port: self.port,
            mac,
            vlan: 0,
            ext_learned: self.ext_learned(),
            sticky: self.sticky(),
            is_static: self.is_static(),
            permanent: self.permanent(),
        }
    }
}

impl SelfEntry {
    fn row(self, dev: IfIndex, mac: Mac) -> VxlanFdb {
        VxlanFdb { dev, mac, vtep: self.vtep, ext_learned: self.ext_learned(), permanent: self.permanent() }
    }
}
