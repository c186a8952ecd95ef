//! The life of an activation: row, acknowledgement, routes, the guest's first frame (PIT-06).
//!
//! The kernel has the MAC on its port, and no `self` row to the old VTEP, before any peer hears of it: a peer's
//! frames would otherwise die here on split horizon. From then on the MAC is local like any other, except that
//! its row is held and its unanswered addresses are kept until the guest has been heard.

use super::bindings::Said;
use super::going::Heed;
use super::handing::Handing;
use super::prepare::{Key, LIMIT, No, Pending, Stage, busy, conflict};
use super::rows::RETRIES;
use super::{Event, MoveRequest, Node, Refusal};
use crate::fabric::{Row, RowKey, WriteResult};
use crate::hosts::{Binding, BindingOrigin, Evidence, Hosts, Owner};
use crate::types::{IfIndex, Mac, Span, Time, Vni};
use std::net::IpAddr;

/// How long the kernel may take to acknowledge the row.
const ACKNOWLEDGED_WITHIN: Span = Span::secs(1);
/// Until a refused row is tried again: a port that has just got its carrier is forwarding a moment later.
const TRY_AGAIN: Span = Span::millis(20);
/// Commands that may wait for one activation.
const WAITING: usize = 64;

impl Node {
    pub(super) fn activate_move(
        &mut self,
        id: Option<u64>,
        r: &MoveRequest,
        port: Option<&str>,
        timeout: Option<Span>,
        at: Time,
    ) -> Result<(), No> {
        let name = match port {
            Some(p) => p.to_owned(),
            None => self.prepared_port(r)?,
        };
        let t = self.target(r, &name)?;
        let key = (t.vni, r.mac);
        if self.prepare.handings.len() >= LIMIT {
            return Err(busy("activations"));
        }
        let hold = Self::move_timeout(timeout, self.config.mobility.prepare_time);
        let mut ips: Vec<IpAddr> = self.prepare.get(key).map(|p| p.ips.clone()).unwrap_or_default();
        ips.extend(&r.ips);
        ips.sort_unstable();
        ips.dedup();
        ips.truncate(Hosts::IPS_PER_MAC);
        let same = self.prepare.get(key).is_some_and(|p| p.port == t.port);
        if same
            && let Some(p) = self.prepare.get_mut(key)
            && let Stage::Writing { hold: old, waiting, .. } = &mut p.stage
        {
            if waiting.len() >= WAITING {
                return Err(busy("activations of one MAC"));
            }
            *old = hold;
            waiting.extend(id);
            p.ips = ips;
            return Ok(());
        }
        if self.prepare.get(key).is_some_and(|p| p.port != t.port && !matches!(p.stage, Stage::Prepared)) {
            self.abandon(key, "it is activated on another port", at);
        }
        let here = matches!(self.owner_now(key), Some(Owner::Local(l)) if l.port == t.port);
        let active = self.prepare.get(key).is_some_and(|p| matches!(p.stage, Stage::Active));
        if self.prepare.get(key).is_none() && self.prepare.len() >= LIMIT {
            return Err(busy("prepared moves"));
        }
        self.end_release(key, at);
        self.end_hold(key, at);
        let mut p = Pending {
            stage: Stage::Active,
            port: t.port,
            name,
            ips,
            by: r.by,
            asked: at,
            deadline: at + hold,
            heard: here && !active,
            from: None,
            heed: Heed::default(),
            told: here,
        };
        if here {
            // Here already: activated before, or the guest was faster.
            if let Some(old) = self.prepare.get(key).filter(|_| active) {
                (p.heard, p.from, p.told) = (old.heard, old.from, old.told);
            }
            self.prepare.put(key, p);
            self.add_ips(key, at);
            if let Some(id) = id {
                self.hand_over(id, key, t.notes, at);
            }
            return Ok(());
        }
        let Some((row, vxlan)) = self.segments.get(&t.vni).and_then(|s| Some((s.mac_key(r.mac)?, s.vxlan?)))
        else {
            return Err(conflict(format!("VNI {} has no devices", t.vni)));
        };
        p.stage = Stage::Writing { hold, waiting: id.into_iter().collect(), why: None };
        p.deadline = at + ACKNOWLEDGED_WITHIN;
        let port = p.port;
        self.prepare.put(key, p);
        self.want_set(row, Row::Local { vxlan, port }, true);
        // Even if the wish is what it was, the answer to this mark starts the advertisement.
        self.want.mark(row, true);
        Ok(())
    }

    fn prepared_port(&self, r: &MoveRequest) -> Result<String, No> {
        let mut found =
            self.prepare.iter().filter(|((v, m), _)| *m == r.mac && r.vni.is_none_or(|x| x == *v));
        match (found.next(), found.next()) {
            (Some((_, p)), None) => Ok(p.name.clone()),
            (None, _) => Err(conflict(format!(
                "there is no preparation for {}, or it timed out: prepare it first, or name the port",
                r.mac
            ))),
            (Some(((a, _), _)), Some(((b, _), _))) => {
                Err(conflict(format!("{} is prepared in VNI {a} and in VNI {b}: name the VNI", r.mac)))
            }
        }
    }

    fn writing(&self, key: Key) -> Option<&Pending> {
        self.prepare.get(key).filter(|p| matches!(p.stage, Stage::Writing { .. }))
    }

    /// What is wanted for a MAC that is being activated is its row on its port, whatever the peers say meanwhile;
    /// and the remote row of a released or frozen MAC is one that no late frame can take (PIT-04).
    pub(super) fn shape_row(&self, key: &RowKey, row: Row) -> Row {
        if self.prepare.is_idle() && self.duplicated.len() == 0 {
            return row;
        }
        let RowKey::Mac { bridge, mac } = *key else { return row };
        let Some(key) = self.bridges.get(&bridge).map(|v| (*v, mac)) else { return row };
        match (row, self.writing(key)) {
            (Row::Remote { vxlan, .. } | Row::Local { vxlan, .. }, Some(p)) => {
                Row::Local { vxlan, port: p.port }
            }
            (Row::Remote { vxlan, vtep, .. }, None)
                if self.is_pinned(key.0, mac) || self.duplicated.is_frozen(key.0, mac) =>
            {
                Row::Remote { vxlan, vtep, sticky: true }
            }
            _ => row,
        }
    }

    /// A port that is to lose a MAC has not lost it yet, and the row that would have overwritten it is not wanted any
    /// more: it is cleared by itself, because no notification would ever tell of it again.
    pub(super) fn clear_instead(&mut self, key: &RowKey, urgent: bool) -> bool {
        let Some(&port) = self.prepare.cleared.get(key) else { return false };
        self.want.set(*key, Row::Cleared { port }, urgent);
        true
    }

    /// The row of this key is one that the kernel is being asked for.
    pub(super) fn activating(&self, key: &RowKey) -> bool {
        let RowKey::Mac { bridge, mac } = *key else { return false };
        self.bridges.get(&bridge).is_some_and(|v| self.writing((*v, mac)).is_some())
    }

    /// A row was written, or not.
    pub(super) fn activation_written(&mut self, row: &RowKey, result: &WriteResult, at: Time) {
        if self.prepare.is_idle() {
            return;
        }
        let RowKey::Mac { bridge, mac } = *row else { return };
        let Some(key) = self.bridges.get(&bridge).map(|v| (*v, mac)) else { return };
        let want = self.want.get(row).copied();
        if !matches!(result, WriteResult::Failed { .. })
            && self.prepare.cleared.remove(row).is_some()
            && matches!(want, Some(Row::Cleared { .. }))
        {
            self.want.remove(row, false);
        }
        let Some(port) = self.writing(key).map(|p| p.port) else { return };
        match result {
            WriteResult::Done | WriteResult::Unchanged => {
                if matches!(want, Some(Row::Local { port: p, .. }) if p == port) {
                    self.activated(key, at);
                } else if let Some(vxlan) = self.segments.get(&key.0).and_then(|s| s.vxlan) {
                    self.want_set(*row, Row::Local { vxlan, port }, true);
                }
            }
            WriteResult::Failed { text, .. } => {
                if let Some(p) = self.prepare.get_mut(key)
                    && let Stage::Writing { why, .. } = &mut p.stage
                {
                    *why = Some(text.clone());
                }
                if self.retries.len() < RETRIES {
                    self.retries.insert((at + TRY_AGAIN, *row));
                }
            }
        }
    }

    /// The table shows the MAC on the port that it is being activated on: as good as an acknowledgement.
    pub(super) fn activation_seen(&mut self, vni: Vni, mac: Mac, port: IfIndex, at: Time) -> bool {
        if self.prepare.is_idle() {
            return false;
        }
        // A guest has come after all: its row is its own.
        let row = self.segments.get(&vni).and_then(|s| s.mac_key(mac));
        if let Some(row) = row
            && self.prepare.cleared.remove(&row).is_some()
            && matches!(self.want.get(&row), Some(Row::Cleared { .. }))
        {
            self.want.remove(&row, false);
        }
        if let Some(p) = self.prepare.get_mut((vni, mac)).filter(|p| p.port == port) {
            p.told = true;
        }
        if self.writing((vni, mac)).is_none_or(|p| p.port != port) {
            return false;
        }
        self.activated((vni, mac), at);
        true
    }

    /// When and by whom a MAC that is being activated was first spoken of; for its record.
    pub(super) fn activation_sign(&self, vni: Vni, mac: Mac) -> Option<(Time, &'static str)> {
        self.writing((vni, mac)).map(|p| (p.asked, p.by.as_str()))
    }

    /// The kernel has the row: now the peers are told (PIT-06).
    fn activated(&mut self, key: Key, at: Time) {
        let (vni, mac) = key;
        let Some(port) = self.writing(key).map(|p| p.port) else { return };
        let heard = self.first_sign(port, mac, at).1 == "frame";
        let mut from = None;
        match self.owner_now(key) {
            Some(Owner::Remote(r)) if (r.claim.sticky || r.claim.gateway) && !r.claim.stale => {
                let why = format!("{mac} has become sticky at {} and cannot move", r.claim.vtep);
                return self.activation_failed(key, Refusal::Conflict, why, at);
            }
            Some(Owner::Remote(r)) => self.claim(vni, mac, port, Some(r.claim), at),
            Some(Owner::Local(l)) if l.port == port => {}
            Some(Owner::Local(l)) => {
                from = Some(l.port);
                self.change_port(vni, mac, l, port, at);
            }
            None => self.claim(vni, mac, port, None, at),
        }
        let Some(Owner::Local(l)) =
            self.owner_now(key).filter(|o| matches!(o, Owner::Local(l) if l.port == port))
        else {
            let why = format!("{mac} may not move to this host now");
            return self.activation_failed(key, Refusal::Conflict, why, at);
        };
        let Some(p) = self.prepare.get_mut(key) else { return };
        let Stage::Writing { hold, waiting, .. } = core::mem::replace(&mut p.stage, Stage::Active) else {
            return;
        };
        (p.from, p.heard) = (from, heard);
        let (name, by) = (p.name.clone(), p.by);
        self.prepare.rearm(key, at + hold);
        self.add_ips(key, at);
        self.journal.count("moves_activated");
        self.journal.event(Event::MoveActivated { vni, mac, port: name, seq: l.seq, by }, at);
        for id in waiting {
            self.hand_over(id, key, Vec::new(), at);
        }
    }

    /// Addresses that the hypervisor knows: advertised like those that came with the MAC, and probed like them.
    fn add_ips(&mut self, key: Key, at: Time) {
        let (vni, mac) = key;
        let Some((port, ips)) = self.prepare.get(key).map(|p| (p.port, p.ips.clone())) else { return };
        for ip in ips.into_iter().filter(|ip| self.is_allowed(vni, port, *ip)).collect::<Vec<_>>() {
            let known = self
                .segments
                .get(&vni)
                .and_then(|s| s.hosts.binding(ip))
                .is_some_and(|b| b.mac == mac && b.is_local());
            if !known {
                let said = Said { mac, origin: BindingOrigin::Moved, router: false };
                self.learn_binding(vni, ip, said, at);
                self.binding_by(vni, mac, ip, Evidence::Named, at);
                self.probes.put(at, vni, ip);
            }
        }
    }

    /// A frame of a local MAC came from its port.
    pub(super) fn activation_heard(&mut self, vni: Vni, mac: Mac, at: Time) {
        let key = (vni, mac);
        let Some(p) = self.prepare.get_mut(key).filter(|p| matches!(p.stage, Stage::Active) && !p.heard)
        else {
            return;
        };
        p.heard = true;
        let port = p.port;
        self.journal.count("activations_heard");
        self.ask_for_former(vni, mac, port, at);
        // Addresses that have not answered so far get their full number of probes from now on.
        let Some(seg) = self.segments.get_mut(&vni) else { return };
        for ip in seg.hosts.ips_of(mac) {
            if seg.hosts.binding(ip).is_some_and(|b| b.origin == BindingOrigin::Moved) {
                seg.hosts.touch(ip, |b| b.probes = 0);
                self.probes.put(at, vni, ip);
            }
        }
    }

    /// Activated, and not a sound from the guest yet: it may still be stopped.
    pub(super) fn awaits_guest(&self, vni: Vni, mac: Mac) -> bool {
        self.prepare.get((vni, mac)).is_some_and(|p| matches!(p.stage, Stage::Active) && !p.heard)
    }

    /// A row that was dropped from the table is held: written again, whatever the bridge's ageing says (PIT-06).
    pub(super) fn row_held(&mut self, vni: Vni, mac: Mac, port: IfIndex) -> bool {
        let held = self.awaits_guest(vni, mac)
            && self.prepare.get((vni, mac)).is_some_and(|p| p.port == port)
            && self.links.get(&port).is_some_and(|l| l.up && l.carrier);
        if !held {
            return false;
        }
        if let Some(p) = self.prepare.get_mut((vni, mac)) {
            p.told = false;
        }
        let Some(seg) = self.segments.get(&vni) else { return false };
        if let (Some(key), Some(vxlan)) = (seg.mac_key(mac), seg.vxlan) {
            self.want_set(key, Row::Local { vxlan, port }, true);
            self.want.mark(key, true);
            self.journal.count("activations_held");
        }
        true
    }

    /// The answer to *activate* waits until every established peer's socket has the routes.
    fn hand_over(&mut self, id: u64, key: Key, notes: Vec<String>, at: Time) {
        let (vni, mac) = key;
        let Some(seg) = self.segments.get(&vni) else { return };
        let mut keys = vec![seg.type2_key(mac, None)];
        let ips = seg.hosts.ips_of(mac).into_iter();
        let ours = |ip: &IpAddr| seg.hosts.binding(*ip).is_some_and(Binding::is_local);
        keys.extend(ips.filter(ours).map(|ip| seg.type2_key(mac, Some(ip))));
        let left =
            self.peers.iter().enumerate().filter_map(|(i, p)| Some((i, p.up.as_ref()?.0, None))).collect();
        self.prepare.handings.push(Handing::new(id, key, keys, left, notes, at));
    }
}
