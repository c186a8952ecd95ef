//! A kernel for tests and for the simulation: a forwarding plane, not a row store.
//!
//! It learns, ages, floods, answers ARP and ND for its guests, lets a late frame steal a row back, loses
//! notifications and gives short dumps, as Linux does. `tests/contract.rs` injects the same frames into it and
//! into the real kernel and compares what comes out. Time is virtual and nothing happens by itself.

mod fdb;
mod forward;
mod neigh;

use crate::op::{Kernel, Op, OpError, OpResult};
use crate::reconcile::Scope;
use evpn::fabric::{
    BridgeFdb, BridgeLink, FdbRow, KernelEvent, Link, LinkKind, NeighRow, PortFlags, VxlanFdb, VxlanLink,
};
use evpn::types::{IfIndex, Mac, Span, Time, Vni};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;

/// Where a frame left the machine.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Out {
    /// By an access port, towards the guest.
    Port(IfIndex),
    /// Encapsulated, to this VTEP.
    Vtep(IfIndex, IpAddr),
}

/// Frames with where they went.
pub type Frames = Vec<(Out, Vec<u8>)>;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Learned {
    port: IfIndex,
    ext: bool,
    sticky: bool,
    fixed: bool,
    permanent: bool,
    updated: Time,
}

#[derive(Clone, Debug, Default, Eq, PartialEq)]
struct Remotes {
    vteps: Vec<IpAddr>,
    ext: bool,
    permanent: bool,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct FakeKernel {
    now: Time,
    next_index: u32,
    links: BTreeMap<IfIndex, Link>,
    fdb: BTreeMap<(IfIndex, Mac), Learned>,
    vxlan: BTreeMap<(IfIndex, Mac), Remotes>,
    neigh: BTreeMap<(IfIndex, IpAddr), NeighRow>,
    queue: VecDeque<KernelEvent>,
    queue_limit: usize,
    overrun: bool,
    overruns: u64,
    /// One row in so many is left out of the next dumps.
    short: Option<(u32, u64)>,
    /// The next ops fail with this errno.
    failing: VecDeque<i32>,
    /// Ops on these devices fail with this errno.
    broken: BTreeMap<IfIndex, i32>,
    ops: u64,
}

impl Default for FakeKernel {
    fn default() -> Self {
        Self {
            now: Time(0),
            next_index: 1,
            links: BTreeMap::new(),
            fdb: BTreeMap::new(),
            vxlan: BTreeMap::new(),
            neigh: BTreeMap::new(),
            queue: VecDeque::new(),
            queue_limit: 200_000,
            overrun: false,
            overruns: 0,
            short: None,
            failing: VecDeque::new(),
            broken: BTreeMap::new(),
            ops: 0,
        }
    }
}

impl FakeKernel {
    /// No device, no row, time zero.
    pub fn new() -> Self {
        Self::default()
    }

    // ---- devices -------------------------------------------------------------------------------------

    /// A bridge as vtepd makes it: fixed MAC, no snooping, 300 s ageing, up.
    pub fn add_bridge(&mut self, name: &str, mac: Mac) -> IfIndex {
        let set = BridgeLink {
            mcast_snooping: false,
            vlan_filtering: false,
            mac_fixed: true,
            ageing_secs: 300,
            fdb_limit: None,
        };
        self.add(name, mac, LinkKind::Bridge(set), None)
    }

    /// A VXLAN device, a port of `bridge`: no learning, suppression as given.
    pub fn add_vxlan(
        &mut self,
        name: &str,
        vni: Vni,
        local: IpAddr,
        bridge: IfIndex,
        suppress: bool,
    ) -> IfIndex {
        let set = VxlanLink { vni: vni.get(), local: Some(local), port: 4789, learning: false };
        let flags =
            PortFlags { neigh_suppress: suppress, flood: true, forwarding: true, ..PortFlags::default() };
        let mac = Mac([0x0e, 0, 0, 0, 0, self.next_index as u8]);
        let index = self.add(name, mac, LinkKind::Vxlan(set), Some((bridge, flags)));
        self.recompute(bridge);
        index
    }

    /// An access port of `bridge`.
    pub fn add_port(&mut self, name: &str, mac: Mac, bridge: IfIndex) -> IfIndex {
        let flags = PortFlags { learning: true, flood: true, forwarding: true, ..PortFlags::default() };
        let index = self.add(name, mac, LinkKind::Other("veth".to_owned()), Some((bridge, flags)));
        self.recompute(bridge);
        index
    }

    fn add(&mut self, name: &str, mac: Mac, kind: LinkKind, port: Option<(IfIndex, PortFlags)>) -> IfIndex {
        let index = IfIndex(self.next_index);
        self.next_index += 1;
        let link = Link {
            index,
            name: name.to_owned(),
            mac,
            mtu: 1500,
            up: true,
            carrier: true,
            master: port.map(|p| p.0),
            kind,
            port: port.map(|p| p.1),
        };
        self.links.insert(index, link.clone());
        self.emit(KernelEvent::Link(link));
        if let Some((bridge, _)) = port {
            // The port's own address, as the kernel keeps it.
            let row = Learned {
                port: index,
                ext: false,
                sticky: false,
                fixed: false,
                permanent: true,
                updated: self.now,
            };
            self.put_fdb(bridge, mac, row);
        }
        index
    }

    /// Changes a device, tells so, and does what the kernel does with its rows.
    pub fn change(&mut self, index: IfIndex, f: impl FnOnce(&mut Link)) {
        let Some(old) = self.links.get(&index).cloned() else { return };
        let mut new = old.clone();
        f(&mut new);
        if new == old {
            return;
        }
        self.links.insert(index, new.clone());
        self.emit(KernelEvent::Link(new.clone()));
        let bridge = matches!(new.kind, LinkKind::Bridge(_));
        if bridge && (old.mac != new.mac || old.up && !new.up || old.carrier && !new.carrier) {
            self.flush_neigh(index);
        }
        if bridge && old.up && !new.up {
            for port in self.ports(index) {
                self.flush_port(port, false);
            }
        }
        if let Some(b) = old.master {
            if old.carrier && !new.carrier || old.up && !new.up {
                self.flush_port(index, false);
            }
            if new.master != Some(b) {
                self.flush_port_of(b, index, true);
            }
            self.recompute(b);
        }
    }

    /// Carrier of a port on or off. Off flushes what was learned on it, one delete per MAC.
    pub fn set_carrier(&mut self, index: IfIndex, on: bool) {
        self.change(index, |l| {
            l.carrier = on;
            if let Some(p) = &mut l.port {
                p.forwarding = on;
            }
        });
    }

    /// Removes a device with its rows.
    pub fn remove(&mut self, index: IfIndex) {
        let Some(l) = self.links.get(&index).cloned() else { return };
        if let Some(b) = l.master {
            self.flush_port_of(b, index, true);
        }
        self.flush_neigh(index);
        let own: Vec<Mac> = self.vxlan.keys().filter(|(d, _)| *d == index).map(|(_, m)| *m).collect();
        for mac in own {
            self.drop_remotes(index, mac);
        }
        self.links.remove(&index);
        self.emit(KernelEvent::LinkGone(index));
        if let Some(b) = l.master {
            self.recompute(b);
        }
    }

    /// A device.
    pub fn link(&self, index: IfIndex) -> Option<&Link> {
        self.links.get(&index)
    }

    fn ports(&self, bridge: IfIndex) -> Vec<IfIndex> {
        self.links.values().filter(|l| l.master == Some(bridge)).map(|l| l.index).collect()
    }

    /// Carrier of a bridge is that of any port; its MAC, unless fixed, that of the lowest port (PIT-01).
    fn recompute(&mut self, bridge: IfIndex) {
        let ports = self.ports(bridge);
        let ports: Vec<&Link> = ports.iter().filter_map(|p| self.links.get(p)).collect();
        let carrier = ports.is_empty() || ports.iter().any(|p| p.carrier && p.up);
        let lowest = ports.iter().map(|p| p.mac).min();
        self.change(bridge, |l| {
            l.carrier = carrier;
            if let (LinkKind::Bridge(set), Some(mac)) = (&l.kind, lowest)
                && !set.mac_fixed
            {
                l.mac = mac;
            }
        });
    }

    // ---- time ----------------------------------------------------------------------------------------

    /// Virtual time.
    pub fn now(&self) -> Time {
        self.now
    }

    /// Moves time on and ages out learned rows.
    pub fn advance(&mut self, to: Time) {
        self.now = to;
        let old: Vec<(IfIndex, Mac)> = self
            .fdb
            .iter()
            .filter(|((b, _), r)| {
                let ageing = match self.links.get(b).map(|l| &l.kind) {
                    Some(LinkKind::Bridge(set)) => Span::secs(set.ageing_secs.into()),
                    _ => Span::secs(300),
                };
                !(r.ext || r.fixed || r.permanent) && to.since(r.updated) > ageing
            })
            .map(|(k, _)| *k)
            .collect();
        for (bridge, mac) in old {
            self.drop_fdb(bridge, mac);
        }
    }

    /// When the next row ages out, if nobody speaks until then.
    pub fn next_ageing(&self) -> Option<Time> {
        let ageing = |b: &IfIndex| match self.links.get(b).map(|l| &l.kind) {
            Some(LinkKind::Bridge(set)) => Span::secs(set.ageing_secs.into()),
            _ => Span::secs(300),
        };
        let learned = self.fdb.iter().filter(|(_, r)| !(r.ext || r.fixed || r.permanent));
        learned.map(|((b, _), r)| r.updated + ageing(b) + Span(1)).min()
    }

    // ---- notifications, dumps, faults ----------------------------------------------------------------

    fn emit(&mut self, ev: KernelEvent) {
        if self.queue.len() >= self.queue_limit {
            if !self.overrun {
                self.overruns += 1;
            }
            self.overrun = true;
        } else {
            self.queue.push_back(ev);
        }
    }

    /// Notifications as the monitor gives them: at most `budget`. After a loss, `Overrun` first.
    pub fn recv(&mut self, budget: usize, out: &mut Vec<KernelEvent>) -> usize {
        let before = out.len();
        if core::mem::take(&mut self.overrun) {
            out.push(KernelEvent::Overrun);
        }
        while out.len() - before < budget
            && let Some(ev) = self.queue.pop_front()
        {
            out.push(ev);
        }
        out.len() - before
    }

    /// Something waits for [`FakeKernel::recv`].
    pub fn readable(&self) -> bool {
        self.overrun || !self.queue.is_empty()
    }

    /// So many notifications fit; what comes when it is full is lost.
    pub fn set_queue(&mut self, notifications: usize) {
        self.queue_limit = notifications;
    }

    /// How often notifications were lost.
    pub fn overruns(&self) -> u64 {
        self.overruns
    }

    /// From now on one row in `one_in` is missing from dumps, another one each time (PIT-13). 0: none.
    pub fn set_short_dumps(&mut self, one_in: u32, seed: u64) {
        self.short = (one_in > 0).then_some((one_in, seed | 1));
    }

    /// The next op fails with this errno; may be called several times.
    pub fn fail_next(&mut self, errno: i32) {
        self.failing.push_back(errno);
    }

    /// No op fails any more because of [`FakeKernel::fail_next`].
    pub fn fail_no_more(&mut self) {
        self.failing.clear();
    }

    /// Every op on this device fails with this errno, until called with `None`.
    pub fn fail_device(&mut self, device: IfIndex, errno: Option<i32>) {
        match errno {
            Some(e) => self.broken.insert(device, e),
            None => self.broken.remove(&device),
        };
    }

    /// Ops applied so far, failed ones included.
    pub fn ops(&self) -> u64 {
        self.ops
    }

    fn rows(&self, scope: Scope) -> Vec<KernelEvent> {
        let mut out = Vec::new();
        if scope == Scope::All {
            out.extend(self.links.values().cloned().map(KernelEvent::Link));
            let bridge = self.fdb.iter().map(|((b, m), r)| KernelEvent::Fdb(r.row(*b, *m)));
            out.extend(bridge);
            for ((d, m), r) in &self.vxlan {
                out.extend(r.rows(*d, *m).map(KernelEvent::Fdb));
            }
        }
        let neigh = self.neigh.values().filter(|r| match scope {
            Scope::All => true,
            Scope::Neigh(dev) => r.dev == dev,
        });
        out.extend(neigh.copied().map(KernelEvent::Neigh));
        out
    }

    /// A whole read, links first; short if [`FakeKernel::set_short_dumps`] says so.
    pub fn dump(&mut self, scope: Scope) -> Vec<KernelEvent> {
        let mut rows = self.rows(scope);
        if let Some((one_in, state)) = &mut self.short {
            rows.retain(|r| {
                // xorshift64: repeatable, and different in every dump.
                *state ^= *state << 13;
                *state ^= *state >> 7;
                *state ^= *state << 17;
                matches!(r, KernelEvent::Link(_)) || !state.is_multiple_of((*one_in).into())
            });
        }
        rows
    }

    /// The rest of a read that began with `first` some time ago. The kernel reads each table in parts and finds its
    /// place again by counting, so rows that went meanwhile hide others that stayed (PIT-13). `percent` of each
    /// table had been read then.
    pub fn resume_dump(&mut self, scope: Scope, first: &[KernelEvent], percent: usize) -> Vec<KernelEvent> {
        let now = self.dump(scope);
        let table = |ev: &KernelEvent| match ev {
            KernelEvent::Fdb(FdbRow::Bridge(_)) => 1,
            KernelEvent::Fdb(FdbRow::Vxlan(_)) => 2,
            KernelEvent::Neigh(_) => 3,
            _ => 0,
        };
        let mut out = Vec::with_capacity(now.len());
        for t in 0..4 {
            let read = first.iter().filter(|ev| table(ev) == t).count() * percent.min(100) / 100;
            out.extend(first.iter().filter(|ev| table(ev) == t).take(read).cloned());
            out.extend(now.iter().filter(|ev| table(ev) == t).skip(read).cloned());
        }
        out
    }

    /// Single-row reads: the row as it is, or the event that it is gone.
    pub fn confirm(&self, suspects: &[KernelEvent]) -> Vec<KernelEvent> {
        suspects
            .iter()
            .filter_map(|s| match s {
                KernelEvent::LinkGone(i) => {
                    Some(self.links.get(i).map_or_else(|| s.clone(), |l| KernelEvent::Link(l.clone())))
                }
                KernelEvent::FdbGone(FdbRow::Bridge(r)) => Some(
                    self.fdb
                        .get(&(r.bridge, r.mac))
                        .map_or_else(|| s.clone(), |l| KernelEvent::Fdb(l.row(r.bridge, r.mac))),
                ),
                KernelEvent::FdbGone(FdbRow::Vxlan(r)) => {
                    let found = self.vxlan.get(&(r.dev, r.mac)).and_then(|x| {
                        x.rows(r.dev, r.mac).find(|row| {
                            !r.mac.is_zero() || matches!(row, FdbRow::Vxlan(v) if v.vtep == r.vtep)
                        })
                    });
                    Some(found.map_or_else(|| s.clone(), KernelEvent::Fdb))
                }
                KernelEvent::NeighGone(r) => {
                    Some(self.neigh.get(&(r.dev, r.ip)).map_or_else(|| s.clone(), |n| KernelEvent::Neigh(*n)))
                }
                _ => None,
            })
            .collect()
    }

    /// Serves everything a reconciler asks to be read, at once. Appends what is news for the node.
    pub fn serve_reads(&mut self, reconciler: &mut crate::Reconciler, news: &mut Vec<KernelEvent>) {
        while let Some((generation, scope)) = reconciler.take_scope() {
            for chunk in self.dump(scope).chunks(256) {
                reconciler.dumped(generation, chunk, news);
            }
            let suspects = reconciler.end_dump(generation, true);
            let verdicts = self.confirm(&suspects);
            reconciler.confirmed(generation, &verdicts, news);
        }
    }

    /// Every row (no links), in a fixed order, for comparison.
    pub fn snapshot(&self) -> BTreeSet<FdbRow> {
        let mut out: BTreeSet<FdbRow> = self.fdb.iter().map(|((b, m), r)| r.row(*b, *m)).collect();
        for ((d, m), r) in &self.vxlan {
            out.extend(r.rows(*d, *m));
        }
        out
    }

    /// The bridge's row of a MAC.
    pub fn bridge_row(&self, bridge: IfIndex, mac: Mac) -> Option<BridgeFdb> {
        self.fdb.get(&(bridge, mac)).map(|r| r.bridge_fdb(bridge, mac))
    }

    /// Destinations of a MAC's row on a VXLAN device; empty without a row.
    pub fn remotes(&self, dev: IfIndex, mac: Mac) -> &[IpAddr] {
        self.vxlan.get(&(dev, mac)).map_or(&[], |r| &r.vteps)
    }

    /// A bridge row as an operator or another control plane makes it.
    pub fn put_bridge_row(&mut self, row: BridgeFdb) {
        let new = Learned {
            port: row.port,
            ext: row.ext_learned,
            sticky: row.sticky,
            fixed: row.is_static,
            permanent: row.permanent,
            updated: self.now,
        };
        self.put_fdb(row.bridge, row.mac, new);
    }

    /// Every neighbour row.
    pub fn neighbours(&self) -> impl Iterator<Item = &NeighRow> {
        self.neigh.values()
    }
}

impl Learned {
    fn row(&self, bridge: IfIndex, mac: Mac) -> FdbRow {
        FdbRow::Bridge(self.bridge_fdb(bridge, mac))
    }

    fn bridge_fdb(&self, bridge: IfIndex, mac: Mac) -> BridgeFdb {
        BridgeFdb {
            bridge,
            port: self.port,
            mac,
            vlan: 0,
            ext_learned: self.ext,
            sticky: self.sticky,
            is_static: self.fixed,
            permanent: self.permanent,
        }
    }
}

impl Remotes {
    fn rows(&self, dev: IfIndex, mac: Mac) -> impl Iterator<Item = FdbRow> + '_ {
        self.vteps.iter().map(move |v| {
            let (ext_learned, permanent) = (self.ext, self.permanent);
            FdbRow::Vxlan(VxlanFdb { dev, mac, vtep: Some(*v), ext_learned, permanent })
        })
    }
}

impl Kernel for FakeKernel {
    fn apply(&mut self, ops: &[Op], results: &mut Vec<OpResult>) {
        for op in ops {
            self.ops += 1;
            let dev = fdb::device(op);
            let r = if let Some(errno) = self.failing.pop_front() {
                Err(OpError { errno, text: "injected failure".to_owned() })
            } else if let Some(errno) = self.broken.get(&dev) {
                Err(OpError { errno: *errno, text: "injected failure".to_owned() })
            } else {
                match self.one(op) {
                    Err(e) if op.tolerates(e) => Ok(()),
                    Err(e) => Err(OpError::from_errno(e)),
                    Ok(()) => Ok(()),
                }
            };
            results.push(r);
        }
    }
}
