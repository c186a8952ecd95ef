//! Links: which devices belong to which VNI, and whether it is ready to forward.

use super::{Event, Node, Output};
use crate::fabric::{BridgeFdb, FdbRow, Link, LinkKind, NeighRow, Row, RowKey};
use crate::types::{IfIndex, Mac, Time, Vni};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

impl Node {
    pub(super) fn link_seen(&mut self, l: Link, at: Time) {
        let index = l.index;
        let news = self.links.get(&index) != Some(&l);
        if !news {
            return;
        }
        let name = l.name.clone();
        let master = l.master;
        let before = self.links.insert(index, l.clone());
        let was_up = before.as_ref().is_some_and(|b| b.up && b.carrier);
        if let Some(b) = before.as_ref().filter(|b| b.name != name) {
            self.by_name.remove(&b.name);
        }
        self.by_name.insert(name.clone(), index);
        self.released_port_found(index);
        let mut affected = self.affected(&name, master);
        if let Some(b) = &before {
            affected.extend(self.affected(&b.name, b.master));
        }
        // A port that changed its master took its MACs along (the kernel deletes them, but may tell too late).
        if let Some(b) = before
            && b.master != l.master
            && let Some(vni) = b.master.and_then(|m| self.bridges.get(&m).copied())
        {
            self.port_left(vni, index, "port left the bridge", at);
        }
        if l.master != self.holds_bridge(index) {
            self.hold_port_gone(index, at);
        }
        self.review(affected, at);
        if l.up && l.carrier {
            self.released_port_up(index, at);
            if !was_up {
                self.port_came_up(index, at);
            }
        } else {
            self.port_without_carrier(index, at);
            self.released_port_down(index, at);
        }
    }

    /// VNIs that a device of this name, or in this bridge, concerns.
    fn affected(&self, name: &str, master: Option<IfIndex>) -> BTreeSet<Vni> {
        let by_name = self.named.get(name).copied();
        by_name.into_iter().chain(master.and_then(|m| self.bridges.get(&m).copied())).collect()
    }

    fn review(&mut self, vnis: BTreeSet<Vni>, at: Time) {
        for vni in vnis {
            self.review_segment(vni, at);
        }
        self.review_taps(at);
    }

    pub(super) fn link_gone(&mut self, index: IfIndex, at: Time) {
        let Some(l) = self.links.remove(&index) else { return };
        if self.by_name.get(&l.name) == Some(&index) {
            self.by_name.remove(&l.name);
        }
        let affected = self.affected(&l.name, l.master);
        if let Some(vni) = l.master.and_then(|m| self.bridges.get(&m).copied()) {
            self.port_left(vni, index, "port removed", at);
        }
        self.released_port_down(index, at);
        self.hold_port_gone(index, at);
        self.questions.forget_port(index);
        self.review(affected, at);
    }

    fn port_left(&mut self, vni: Vni, port: IfIndex, why: &str, at: Time) {
        let Some(seg) = self.segments.get(&vni) else { return };
        let gone: Vec<Mac> = seg
            .hosts
            .macs
            .iter()
            .filter(|(_, e)| e.local().is_some_and(|l| l.port == port) || e.shadow == Some(port))
            .map(|(m, _)| *m)
            .collect();
        for mac in gone {
            self.local_gone(vni, mac, port, why, at);
        }
    }

    /// Works out anew which devices each VNI has, and acts on what changed.
    pub(super) fn review_segments(&mut self, at: Time) {
        self.review(self.segments.keys().copied().collect(), at);
    }

    pub(super) fn link_named(&self, name: &str) -> Option<&Link> {
        self.by_name.get(name).and_then(|i| self.links.get(i))
    }

    fn review_segment(&mut self, vni: Vni, at: Time) {
        let Some(seg) = self.segments.get(&vni) else { return };
        let bridge = self.link_named(&seg.config.bridge);
        let vxlan = self.link_named(&seg.config.vxlan);
        let mut problems = Vec::new();
        match bridge {
            None => problems.push(format!("bridge {} is missing", seg.config.bridge)),
            Some(b) => match &b.kind {
                LinkKind::Bridge(_) if !b.up => problems.push(format!("bridge {} is down", b.name)),
                LinkKind::Bridge(_) => {}
                LinkKind::Vxlan(_) | LinkKind::Other(_) => {
                    problems.push(format!("{} is not a bridge", b.name));
                }
            },
        }
        match vxlan {
            None => problems.push(format!("VXLAN device {} is missing", seg.config.vxlan)),
            Some(v) => match &v.kind {
                LinkKind::Vxlan(x) => {
                    if x.vni != vni.get() {
                        problems.push(format!("{} has VNI {}, not {vni}", v.name, x.vni));
                    }
                    if x.local != Some(self.config.vtep) {
                        let has = x.local.map_or_else(|| "none".to_owned(), |l| l.to_string());
                        problems
                            .push(format!("{} has local address {has}, not {}", v.name, self.config.vtep));
                    }
                    if !v.up {
                        problems.push(format!("{} is down", v.name));
                    }
                    if bridge.is_some_and(|b| v.master != Some(b.index)) {
                        problems.push(format!("{} is not a port of {}", v.name, seg.config.bridge));
                    }
                }
                LinkKind::Bridge(_) | LinkKind::Other(_) => {
                    problems.push(format!("{} is no VXLAN device", v.name));
                }
            },
        }
        let ready = problems.is_empty();
        let ids = (
            bridge.filter(|b| matches!(b.kind, LinkKind::Bridge(_))).map(|b| b.index),
            vxlan.filter(|v| matches!(v.kind, LinkKind::Vxlan(_))).map(|v| v.index),
        );
        if let Some(inner) = bridge.map(|b| b.mtu) {
            self.mtu_problems(vni, inner, &mut problems);
        }
        for name in &seg.config.ports {
            let port = self.link_named(name);
            if port.is_none_or(|p| p.master.is_none() || p.master != ids.0) {
                problems.push(format!("port {name} is not in the bridge"));
            }
        }
        let before = (seg.bridge, seg.vxlan, seg.ready);
        if seg.problems != problems {
            for p in problems.iter().filter(|p| !seg.problems.contains(p)) {
                if self.synced {
                    let e = Event::DeviceProblem {
                        device: seg.config.bridge.clone(),
                        problem: p.clone(),
                        index: ids.0,
                    };
                    self.journal.event(e, at);
                }
            }
        }
        let mut own = self.own_addresses(ids.0);
        let seg = self.segments.get_mut(&vni).expect("looked up above");
        own.extend(ids.0.map(|_| seg.config.hosts.probe_mac));
        seg.problems = problems;
        let before_own = std::mem::replace(&mut seg.own, own);
        let changed: Vec<Mac> = seg.own.symmetric_difference(&before_own).copied().collect();
        let gateway = seg.config.hosts.gateway.as_ref().is_some_and(|g| changed.contains(&g.mac));
        if before != (ids.0, ids.1, ready) {
            self.switch_devices(vni, ids.0, ids.1, ready, at);
        }
        for mac in changed {
            self.decide_mac(vni, mac, at);
        }
        self.review_static(vni, at);
        self.advertise_when_ready(vni, at);
        if gateway {
            self.tell_gateway(vni, at);
        }
    }

    /// Addresses of a bridge and its ports.
    fn own_addresses(&self, bridge: Option<IfIndex>) -> BTreeSet<Mac> {
        let Some(bridge) = bridge else { return BTreeSet::new() };
        let of = |l: &&Link| l.index == bridge || l.master == Some(bridge);
        self.links.values().filter(of).map(|l| l.mac).collect()
    }

    /// PIT-11: the underlay must carry the VNI's MTU and the encapsulation (VXLAN-06).
    fn mtu_problems(&self, vni: Vni, inner: u32, problems: &mut Vec<String>) {
        let overhead = if self.config.vtep.is_ipv4() { 50 } else { 70 };
        for vtep in self.rib.flood_vteps(vni) {
            if let Some(&mtu) = self.path_mtu.get(&vtep)
                && mtu < inner + overhead
            {
                problems.push(format!(
                    "path MTU to {vtep} is {mtu}, but MTU {inner} in the VNI needs {}: lower `mtu` to {} or raise the underlay's",
                    inner + overhead,
                    mtu.saturating_sub(overhead)
                ));
            }
        }
    }

    fn switch_devices(
        &mut self,
        vni: Vni,
        bridge: Option<IfIndex>,
        vxlan: Option<IfIndex>,
        ready: bool,
        at: Time,
    ) {
        let seg = self.segments.get_mut(&vni).expect("caller has it");
        let (old_bridge, old_vxlan, was_ready) = (seg.bridge, seg.vxlan, seg.ready);
        if (old_bridge, old_vxlan) != (bridge, vxlan) {
            // Rows on devices that are gone went with them; rows on devices that we leave are not wanted.
            let stale: Vec<RowKey> = self
                .want
                .iter()
                .filter(|(k, _)| match k {
                    RowKey::Mac { bridge, .. } => Some(*bridge) == old_bridge,
                    RowKey::Flood { vxlan, .. } => Some(*vxlan) == old_vxlan,
                    RowKey::Neigh { dev, .. } => Some(*dev) == old_bridge,
                })
                .map(|(k, _)| *k)
                .collect();
            for k in stale {
                self.stale.remove(&k);
                self.want.remove(&k, false);
            }
        }
        let seg = self.segments.get_mut(&vni).expect("caller has it");
        (seg.bridge, seg.vxlan, seg.ready) = (bridge, vxlan, ready);
        if old_bridge != bridge {
            if let Some(b) = old_bridge {
                self.hold_bridge_gone(vni, at);
                self.bridges.remove(&b);
                self.forget_locals(vni, at);
            }
            if let Some(b) = bridge {
                self.bridges.insert(b, vni);
                // Rows that were there before the VNI was known have been told to nobody.
                if self.synced {
                    self.journal.push(Output::Resync);
                }
            }
        }
        if ready && !was_ready {
            self.round_trips.ask_again(at);
        }
        if was_ready != ready && self.synced {
            let seg = &self.segments[&vni];
            let why = seg.problems.join("; ");
            self.journal.event(Event::VniReady { vni, ready, why }, at);
        }
        if !ready {
            self.stop_advertising(vni);
        }
        self.want_all(vni, at);
    }

    fn forget_locals(&mut self, vni: Vni, at: Time) {
        let seg = &self.segments[&vni];
        let locals: Vec<(Mac, IfIndex)> =
            seg.hosts.macs.iter().filter_map(|(m, e)| e.local().map(|l| (*m, l.port))).collect();
        for (mac, port) in locals {
            self.local_gone(vni, mac, port, "bridge is gone", at);
        }
    }

    /// One tap per access port, none elsewhere.
    fn review_taps(&mut self, at: Time) {
        let mut want: BTreeMap<IfIndex, Vni> = BTreeMap::new();
        for l in self.links.values() {
            if let Some(vni) = l.master.and_then(|m| self.bridges.get(&m))
                && self.segments.get(vni).is_some_and(|s| s.vxlan != Some(l.index))
                && !matches!(l.kind, LinkKind::Vxlan(_))
                && !self.is_hold_port(l)
            {
                want.insert(l.index, *vni);
            }
        }
        let gone: Vec<(IfIndex, Vni)> =
            self.taps.iter().filter(|(i, _)| !want.contains_key(i)).map(|(i, v)| (*i, *v)).collect();
        for (i, vni) in gone {
            self.journal.push(Output::Untap(i));
            self.tell.forget_port(vni, i);
            self.forget_checks(i);
            self.port_counts.forget_port(vni, i);
        }
        for (i, _) in want.iter().filter(|(i, _)| !self.taps.contains_key(i)) {
            self.journal.push(Output::Tap(*i));
        }
        self.taps = want;
        self.review_overlay_taps();
        self.review_guards(at);
        self.review_port_rules();
        self.carry.forget(&self.taps);
    }

    /// Wants every row of a VNI anew: its devices changed.
    fn want_all(&mut self, vni: Vni, at: Time) {
        let seg = &self.segments[&vni];
        if !seg.ready {
            return;
        }
        let mut rows = Vec::with_capacity(seg.hosts.macs.len());
        for (mac, e) in &seg.hosts.macs {
            if let (Some(key), Some(r)) = (seg.mac_key(*mac), e.remote())
                && let Some(row) = seg.remote_row(r.claim.vtep, r.claim.sticky)
            {
                rows.push((key, row));
            }
        }
        let routed = seg.config.hosts.gateway.is_some();
        for (ip, b) in seg.hosts.bindings().filter(|(_, b)| routed || !b.is_local()) {
            let row = if b.is_local() {
                Some(Row::Neigh { mac: b.mac, router: b.router })
            } else {
                self.audible(vni, *ip, b.mac, b.router)
            };
            if let (Some(key), Some(row)) = (seg.neigh_key(*ip), row) {
                rows.push((key, row));
            }
        }
        for (key, row) in rows {
            self.want_set(key, row, false);
        }
        self.hold_rows(vni);
        self.want_probe_mac(vni);
        for vtep in self.rib.flood_vteps(vni) {
            self.decide_flood(vni, vtep, at);
        }
    }

    pub(super) fn fdb_seen(&mut self, row: FdbRow, at: Time) {
        match row {
            FdbRow::Vxlan(v) => {
                if !self.synced
                    && v.ext_learned
                    && let Some(vtep) = v.vtep
                {
                    self.adopt_vxlan(v.dev, v.mac, vtep);
                }
            }
            FdbRow::Bridge(b) => self.bridge_row(b, at),
        }
    }

    fn bridge_row(&mut self, b: BridgeFdb, at: Time) {
        let Some(&vni) = self.bridges.get(&b.bridge) else { return };
        if b.permanent || b.vlan != 0 || !b.mac.is_host() {
            return;
        }
        if self.holds_bridge(b.port).is_some() {
            return;
        }
        let Some(seg) = self.segments.get_mut(&vni) else { return };
        // Our own rows, or another control plane's; the reconciler keeps them as wanted.
        let elsewhere = seg.vxlan == Some(b.port) || b.port == b.bridge || b.ext_learned;
        if elsewhere {
            self.strangers.remove(vni, b.mac);
            // No local port has the row any more, even if the write that did it was refused in part.
            if let Some(e) = seg.hosts.macs.get_mut(&b.mac).filter(|_| seg.vxlan == Some(b.port)) {
                e.shadow = None;
            }
            return;
        }
        if !self.own_mac_seen(vni, b.mac, b.port) {
            self.local_seen(vni, b.mac, b.port, at);
        }
    }

    pub(super) fn fdb_gone(&mut self, row: FdbRow, at: Time) {
        let FdbRow::Bridge(b) = row else { return };
        let Some(&vni) = self.bridges.get(&b.bridge) else { return };
        // A marked row never showed us a guest; where it is ours, the reconciler writes another one in its place.
        if b.ext_learned && self.segments.get(&vni).is_some_and(|s| s.vxlan != Some(b.port)) {
            return;
        }
        if b.vlan == 0 && self.strangers.waits(vni, b.mac, b.port) {
            self.strangers.remove(vni, b.mac);
        }
        if b.vlan == 0 && !self.static_stays(vni, b.mac, b.port) && !self.row_held(vni, b.mac, b.port) {
            let ips = self.local_ips_on(vni, b.mac, b.port);
            self.remember_gone(vni, b.mac, &ips, b.port, at);
            self.local_gone(vni, b.mac, b.port, "aged out, or its port lost carrier", at);
            // A host that is only silent answers and is back with the same sequence (EVPN-IRB-15, MIG-WARM-01).
            self.ask(vni, b.mac, ips.into_iter(), b.port, at);
        }
    }

    /// Addresses of a MAC that is local on this port.
    fn local_ips_on(&self, vni: Vni, mac: Mac, port: IfIndex) -> Vec<IpAddr> {
        let Some(seg) = self.segments.get(&vni) else { return Vec::new() };
        if seg.hosts.macs.get(&mac).and_then(|e| e.local()).is_none_or(|l| l.port != port) {
            return Vec::new();
        }
        seg.hosts.ips_of(mac)
    }

    /// A row that a control plane (an earlier run of ours, or FRR) left on a device of ours: wanted until
    /// End-of-RIB says otherwise (PIT-27).
    fn adopt_vxlan(&mut self, dev: IfIndex, mac: Mac, vtep: IpAddr) {
        let Some((seg, bridge)) =
            self.segments.values().find(|s| s.vxlan == Some(dev)).and_then(|s| s.bridge.map(|b| (s, b)))
        else {
            return;
        };
        let (key, row) = if mac.is_zero() {
            (RowKey::Flood { vxlan: dev, vtep }, Row::Flood)
        } else {
            // The bridge has shown it on a local port before: only this half of the old row is left, and goes.
            if let Some(port) = seg.hosts.macs.get(&mac).and_then(|e| e.local()).map(|l| l.port) {
                self.want_set(RowKey::Mac { bridge, mac }, Row::Local { vxlan: dev, port }, true);
                return;
            }
            let Some(row) = seg.remote_row(vtep, false) else { return };
            (RowKey::Mac { bridge, mac }, row)
        };
        if self.want.get(&key).is_none() {
            // A released MAC's row stays pinned from the first moment on (PIT-04).
            let row = self.shape_row(&key, row);
            self.want.adopt(key, row);
            self.stale.insert(key);
            self.journal.count("rows_adopted");
        }
    }

    pub(super) fn neigh_seen(&mut self, row: &NeighRow) {
        if self.synced || !row.is_ours() || !self.bridges.contains_key(&row.dev) {
            return;
        }
        let Some(mac) = row.mac else { return };
        let key = RowKey::Neigh { dev: row.dev, ip: row.ip };
        if self.want.get(&key).is_none() {
            self.want.adopt(key, Row::Neigh { mac, router: row.router });
            self.stale.insert(key);
            self.journal.count("rows_adopted");
        }
    }
}
