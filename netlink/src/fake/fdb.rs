//! Forwarding rows of bridges and VXLAN devices.

use super::{FakeKernel, Learned, Remotes};
use crate::op::Op;
use evpn::fabric::{FdbRow, KernelEvent, LinkKind};
use evpn::types::{IfIndex, Mac};
use std::net::IpAddr;

/// The device that an op names.
pub(super) fn device(op: &Op) -> IfIndex {
    match *op {
        Op::SetRemote { vxlan, .. }
        | Op::SetSelf { vxlan, .. }
        | Op::SetSticky { vxlan, .. }
        | Op::DelRemote { vxlan, .. }
        | Op::DelSelf { vxlan, .. }
        | Op::AddFlood { vxlan, .. }
        | Op::DelFlood { vxlan, .. } => vxlan,
        Op::SetLocal { port, .. } | Op::DelMaster { port, .. } => port,
        Op::SetOwn { bridge, .. } | Op::DelOwn { bridge, .. } => bridge,
        Op::SetNeigh { dev, .. } | Op::DelNeigh { dev, .. } => dev,
    }
}

impl FakeKernel {
    /// One request; errno on refusal.
    pub(super) fn one(&mut self, op: &Op) -> Result<(), i32> {
        match *op {
            Op::SetRemote { vxlan, mac, vtep } => {
                self.set_ext(vxlan, mac)?;
                self.set_self(vxlan, mac, vtep)
            }
            Op::SetSelf { vxlan, mac, vtep } => self.set_self(vxlan, mac, vtep),
            Op::SetSticky { vxlan, mac } => self.set_master(vxlan, mac, true, true),
            Op::SetLocal { port, mac } => self.set_master(port, mac, false, false),
            Op::SetOwn { bridge, mac } => self.set_own(bridge, mac),
            Op::DelOwn { bridge, mac } => self.del_own(bridge, mac),
            Op::DelRemote { vxlan, mac, vtep } => match self.del_master(vxlan, mac) {
                Ok(()) | Err(libc::ENOENT) => self.del_self(vxlan, mac, vtep),
                Err(e) => Err(e),
            },
            Op::DelMaster { port, mac } => self.del_master(port, mac),
            Op::DelSelf { vxlan, mac, vtep } => self.del_self(vxlan, mac, vtep),
            Op::AddFlood { vxlan, vtep } => self.add_flood(vxlan, vtep),
            Op::DelFlood { vxlan, vtep } => self.del_flood(vxlan, vtep),
            Op::SetNeigh { dev, ip, mac, router } => self.set_neigh(dev, ip, mac, router),
            Op::DelNeigh { dev, ip } => self.del_neigh(dev, ip),
        }
    }

    fn bridge_of(&self, port: IfIndex) -> Result<IfIndex, i32> {
        let link = self.links.get(&port).ok_or(libc::ENODEV)?;
        link.master.ok_or(libc::EOPNOTSUPP)
    }

    /// `NTF_MASTER | NTF_EXT_LEARNED`: moves the row, keeps what else it is (static, sticky).
    fn set_ext(&mut self, port: IfIndex, mac: Mac) -> Result<(), i32> {
        let bridge = self.bridge_of(port)?;
        let now = self.now;
        let new = Learned { port, ext: true, sticky: false, fixed: false, permanent: false, updated: now };
        let row = match self.fdb.get(&(bridge, mac)) {
            None => new,
            Some(old) => Learned { port, ext: true, updated: now, ..*old },
        };
        self.put_fdb(bridge, mac, row);
        Ok(())
    }

    /// `NTF_MASTER` by a user: the mark stays on a row that had it.
    fn set_master(&mut self, port: IfIndex, mac: Mac, fixed: bool, sticky: bool) -> Result<(), i32> {
        let bridge = self.bridge_of(port)?;
        let forwarding = self.links.get(&port).and_then(|l| l.port).is_some_and(|p| p.forwarding);
        if !fixed && !forwarding {
            return Err(libc::EPERM);
        }
        let ext = self.fdb.get(&(bridge, mac)).is_some_and(|r| r.ext);
        let row = Learned { port, ext, sticky, fixed, permanent: false, updated: self.now };
        self.put_fdb(bridge, mac, row);
        Ok(())
    }

    fn del_master(&mut self, port: IfIndex, mac: Mac) -> Result<(), i32> {
        let bridge = self.bridge_of(port)?;
        if self.fdb.get(&(bridge, mac)).is_none_or(|r| r.port != port) {
            return Err(libc::ENOENT);
        }
        self.drop_fdb(bridge, mac);
        Ok(())
    }

    /// `NTF_SELF | NTF_EXT_LEARNED` on the bridge device: the row becomes the bridge's own, whatever it was.
    fn set_own(&mut self, bridge: IfIndex, mac: Mac) -> Result<(), i32> {
        self.is_bridge(bridge)?;
        let old = self.fdb.get(&(bridge, mac));
        let (sticky, fixed) = old.map_or((false, false), |o| (o.sticky, o.fixed));
        let row = Learned { port: bridge, ext: true, sticky, fixed, permanent: true, updated: self.now };
        self.put_fdb(bridge, mac, row);
        Ok(())
    }

    fn del_own(&mut self, bridge: IfIndex, mac: Mac) -> Result<(), i32> {
        self.is_bridge(bridge)?;
        if self.fdb.get(&(bridge, mac)).is_none_or(|r| r.port != bridge) {
            return Err(libc::ENOENT);
        }
        self.drop_fdb(bridge, mac);
        Ok(())
    }

    fn is_bridge(&self, dev: IfIndex) -> Result<(), i32> {
        let link = self.links.get(&dev).ok_or(libc::ENODEV)?;
        if matches!(link.kind, LinkKind::Bridge(_)) { Ok(()) } else { Err(libc::EOPNOTSUPP) }
    }

    fn is_vxlan(&self, dev: IfIndex) -> Result<(), i32> {
        let link = self.links.get(&dev).ok_or(libc::ENODEV)?;
        if matches!(link.kind, LinkKind::Vxlan(_)) { Ok(()) } else { Err(libc::EOPNOTSUPP) }
    }

    fn set_self(&mut self, dev: IfIndex, mac: Mac, vtep: IpAddr) -> Result<(), i32> {
        self.is_vxlan(dev)?;
        let new = Remotes { vteps: vec![vtep], ext: true, permanent: false };
        if self.vxlan.get(&(dev, mac)) != Some(&new) {
            let row = new.rows(dev, mac).next();
            self.vxlan.insert((dev, mac), new);
            row.map(KernelEvent::Fdb).into_iter().for_each(|ev| self.emit(ev));
        }
        Ok(())
    }

    fn del_self(&mut self, dev: IfIndex, mac: Mac, vtep: IpAddr) -> Result<(), i32> {
        self.is_vxlan(dev)?;
        if self.vxlan.get(&(dev, mac)).is_none_or(|r| !r.vteps.contains(&vtep)) {
            return Err(libc::ENOENT);
        }
        self.drop_remotes(dev, mac);
        Ok(())
    }

    fn add_flood(&mut self, dev: IfIndex, vtep: IpAddr) -> Result<(), i32> {
        self.is_vxlan(dev)?;
        let row = self.vxlan.entry((dev, Mac::ZERO)).or_default();
        // A duplicate succeeds and changes nothing.
        let news = !row.vteps.contains(&vtep) || !row.ext;
        row.ext = true;
        row.permanent = true;
        if !row.vteps.contains(&vtep) {
            row.vteps.push(vtep);
        }
        if news {
            let shown =
                row.rows(dev, Mac::ZERO).find(|r| matches!(r, FdbRow::Vxlan(v) if v.vtep == Some(vtep)));
            shown.map(KernelEvent::Fdb).into_iter().for_each(|ev| self.emit(ev));
        }
        Ok(())
    }

    /// Deleting a destination that is not in the list succeeds too.
    fn del_flood(&mut self, dev: IfIndex, vtep: IpAddr) -> Result<(), i32> {
        self.is_vxlan(dev)?;
        let Some(row) = self.vxlan.get_mut(&(dev, Mac::ZERO)) else { return Err(libc::ENOENT) };
        let shown = row.rows(dev, Mac::ZERO).find(|r| matches!(r, FdbRow::Vxlan(v) if v.vtep == Some(vtep)));
        row.vteps.retain(|v| *v != vtep);
        if row.vteps.is_empty() {
            self.vxlan.remove(&(dev, Mac::ZERO));
        }
        shown.map(KernelEvent::FdbGone).into_iter().for_each(|ev| self.emit(ev));
        Ok(())
    }

    pub(super) fn put_fdb(&mut self, bridge: IfIndex, mac: Mac, row: Learned) {
        let old = self.fdb.insert((bridge, mac), row);
        // A write that changes nothing is not told.
        if old.is_none_or(|o| Learned { updated: row.updated, ..o } != row) {
            self.emit(KernelEvent::Fdb(row.row(bridge, mac)));
        }
    }

    pub(super) fn drop_fdb(&mut self, bridge: IfIndex, mac: Mac) {
        if let Some(row) = self.fdb.remove(&(bridge, mac)) {
            self.emit(KernelEvent::FdbGone(row.row(bridge, mac)));
        }
    }

    pub(super) fn drop_remotes(&mut self, dev: IfIndex, mac: Mac) {
        if let Some(row) = self.vxlan.remove(&(dev, mac)) {
            for r in row.rows(dev, mac) {
                self.emit(KernelEvent::FdbGone(r));
            }
        }
    }

    /// What was learned on a port goes; `all`: everything that points to it.
    pub(super) fn flush_port(&mut self, port: IfIndex, all: bool) {
        if let Ok(bridge) = self.bridge_of(port) {
            self.flush_port_of(bridge, port, all);
        }
    }

    pub(super) fn flush_port_of(&mut self, bridge: IfIndex, port: IfIndex, all: bool) {
        let rows = self.fdb.iter().filter(|((b, _), r)| *b == bridge && r.port == port);
        let gone: Vec<Mac> =
            rows.filter(|(_, r)| all || !(r.ext || r.fixed || r.permanent)).map(|((_, m), _)| *m).collect();
        for mac in gone {
            self.drop_fdb(bridge, mac);
        }
    }

    /// `br_fdb_update`: a frame from `mac` came in by `port`.
    pub(super) fn learn(&mut self, bridge: IfIndex, port: IfIndex, mac: Mac) {
        let now = self.now;
        let new = Learned { port, ext: false, sticky: false, fixed: false, permanent: false, updated: now };
        let row = match self.fdb.get(&(bridge, mac)) {
            None => new,
            // Somebody speaks with an address of ours; nothing is learned.
            Some(old) if old.permanent => return,
            Some(old) if old.port == port || old.sticky => Learned { updated: now, ..*old },
            // The one that gets it: static but not sticky is no help, the mark is cleared.
            Some(old) => Learned { port, ext: false, updated: now, ..*old },
        };
        self.put_fdb(bridge, mac, row);
    }
}
