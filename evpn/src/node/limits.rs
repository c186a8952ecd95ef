//! Limits of what local ports may teach: a host that makes MACs up must not fill the tables of the whole fabric.
//!
//! Only MACs that nobody knows are limited. One that is known and moves here is no new one, so a flooding port does
//! not keep others from moving. What is beyond the limit is counted and not kept, whatever its number.

use super::{Event, Node, Output};
use crate::fabric::{BridgeFdb, FdbRow};
use crate::types::{IfIndex, Span, Time, Vni};
use std::collections::BTreeSet;

/// Between two looks at what had found no place.
const LOOK_EVERY: Span = Span::secs(10);

/// Ports and VNIs whose limit has been reached.
#[derive(Debug, Default)]
pub(super) struct Full {
    ports: BTreeSet<(Vni, IfIndex)>,
    vnis: BTreeSet<Vni>,
    /// VNIs in which a place has become free since the last look.
    freed: BTreeSet<Vni>,
    looked: Option<Time>,
    look_at: Option<Time>,
}

impl Full {
    pub(super) fn poll_timeout(&self) -> Option<(Time, &'static str)> {
        self.look_at.map(|t| (t, "place for MACs"))
    }
}

/// What the kernel may learn: somewhat more than we take, so that the limit is noticed and told.
pub(super) fn of_kernel(mac_limit: u32) -> u32 {
    if mac_limit == 0 { 0 } else { mac_limit.saturating_add(mac_limit / 16).saturating_add(16) }
}

/// Room again: not at every single one that goes.
fn roomy(count: usize, limit: u32) -> bool {
    count < limit as usize - limit as usize / 10
}

impl Node {
    /// Ports of a VNI whose limit has been reached, and whether its own has.
    pub(super) fn full_of(&self, vni: Vni) -> (Vec<IfIndex>, bool) {
        let ports = self.full.ports.iter().filter(|(v, _)| *v == vni).map(|(_, p)| *p).collect();
        (ports, self.full.vnis.contains(&vni))
    }

    /// Whether a MAC that nobody knows may be learned on this port.
    pub(super) fn has_place(&mut self, vni: Vni, port: IfIndex, at: Time) -> bool {
        let Some(seg) = self.segments.get(&vni) else { return false };
        let rules = &seg.config.mobility;
        let (limit, port_limit) = (rules.mac_limit, rules.port_mac_limit);
        let (on_port, all) = (
            seg.hosts.on_port(port) + self.strangers.on_port(port),
            seg.hosts.locals() + self.strangers.of_vni(vni),
        );
        if port_limit > 0 && on_port >= port_limit as usize {
            self.journal.count("macs_over_limit");
            self.beyond_limit(vni, port, at);
            if self.full.ports.insert((vni, port)) {
                let what = format!("MAC addresses on port {} of VNI {vni}", self.dev_name(port));
                self.journal.event(Event::Limit { what, limit: u64::from(port_limit) }, at);
            }
            return false;
        }
        if limit > 0 && all >= limit as usize {
            self.journal.count("macs_over_limit");
            self.beyond_limit(vni, port, at);
            if self.full.vnis.insert(vni) {
                let what = format!("local MAC addresses of VNI {vni}");
                self.journal.event(Event::Limit { what, limit: u64::from(limit) }, at);
            }
            return false;
        }
        true
    }

    /// A local MAC is gone: there may be a place for one that the kernel knows and we do not.
    pub(super) fn place_free(&mut self, vni: Vni, port: IfIndex, at: Time) {
        if self.full.ports.is_empty() && self.full.vnis.is_empty() {
            return;
        }
        let Some(seg) = self.segments.get(&vni) else { return };
        let rules = &seg.config.mobility;
        let mut freed = false;
        if roomy(seg.hosts.on_port(port), rules.port_mac_limit) {
            freed |= self.full.ports.remove(&(vni, port));
        }
        if roomy(seg.hosts.locals(), rules.mac_limit) {
            freed |= self.full.vnis.remove(&vni);
        }
        if freed {
            self.full.freed.insert(vni);
        }
        if freed && self.full.look_at.is_none() {
            let earliest = self.full.looked.map_or(at, |t| t + LOOK_EVERY);
            self.full.look_at = Some(earliest.max(at));
        }
    }

    /// The kernel tells a row once, and a complete read tells what is different from before: rows that found no place are
    /// asked for.
    pub(super) fn due_look(&mut self, at: Time) {
        if self.full.look_at.is_some_and(|t| t <= at) {
            self.full.look_at = None;
            self.full.looked = Some(at);
            for vni in std::mem::take(&mut self.full.freed) {
                if let Some(bridge) = self.segments.get(&vni).and_then(|s| s.bridge) {
                    self.journal.push(Output::Recall(bridge));
                }
            }
        }
    }

    /// Rows of local ports as the kernel has them. Those of MACs that are known are old news, and no sign of life.
    pub(super) fn recalled(&mut self, rows: &[BridgeFdb], at: Time) {
        for row in rows {
            let Some(vni) = self.bridges.get(&row.bridge) else { continue };
            let Some(seg) = self.segments.get(vni) else { continue };
            let rules = &seg.config.mobility;
            if seg.hosts.macs.contains_key(&row.mac) || self.strangers.waits(*vni, row.mac, row.port) {
                continue;
            }
            // Not counted once more: it is one MAC that has no place, however often it is looked at.
            let full = |limit: u32, n: usize| limit > 0 && n >= limit as usize;
            if full(rules.port_mac_limit, seg.hosts.on_port(row.port) + self.strangers.on_port(row.port)) {
                self.full.ports.insert((*vni, row.port));
            } else if full(rules.mac_limit, seg.hosts.locals() + self.strangers.of_vni(*vni)) {
                self.full.vnis.insert(*vni);
            } else {
                self.fdb_seen(FdbRow::Bridge(*row), at);
            }
        }
    }
}
