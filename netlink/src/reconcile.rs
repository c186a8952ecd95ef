//! When to look at which row, and what became of it. Sans-IO: used by the daemon and by the simulation.
//!
//! Rules for the driver:
//! 1. Give every kernel event to the reconciler **and** to the node before the next [`Reconciler::next_batch`]:
//!    the plan obeys `Want`, so the node must have had its say first.
//! 2. Credit: at most two batches are out, one with the kernel and one behind it, so that neither side waits
//!    for the other; meanwhile changes collapse per row. [`Reconciler::next_urgent`] gives moves and repairs at
//!    any time (a few rows, to be applied inline at once). A key that is on its way is in no other batch until
//!    it is back, so that an old write never overtakes a newer one.
//! 3. Hand results back with [`Reconciler::done`], in any order between the urgent and the bulk batch.

use crate::again::{After, Again};
use crate::mirror::Mirror;
use crate::op::{Op, OpResult};
use crate::plan::{Refused, plan_row};
use evpn::fabric::{DeviceWant, KernelEvent, Row, RowKey, Want, WriteResult};
use evpn::types::IfIndex;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

/// Ops of some keys. Hand it back to [`Reconciler::done`] with one result per op.
#[derive(Debug)]
pub struct Batch {
    /// What to apply, in order.
    pub ops: Vec<Op>,
    rows: Vec<Planned>,
    id: u64,
}

#[derive(Debug)]
struct Planned {
    key: RowKey,
    row: Option<Row>,
    /// How many of the batch's ops belong to it.
    ops: u32,
    /// The node asked (it is told in any case), or we repair (it is told only if something was written).
    asked: bool,
    refused: Option<Refused>,
}

/// What to read again.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Scope {
    /// Links, forwarding rows, neighbours.
    All,
    /// Neighbours of one device (PIT-01).
    Neigh(IfIndex),
}

/// Running totals.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Counters {
    /// Ops acknowledged.
    pub ops: u64,
    /// Ops refused by the kernel.
    pub failed: u64,
    /// Rows written although the wish had not changed: somebody deleted or changed them.
    pub repairs: u64,
    /// Complete reads begun.
    pub resyncs: u64,
    /// Rows that a complete read did not show and that a single read then found (PIT-13).
    pub short_dump_rows: u64,
}

/// A complete read in progress.
#[derive(Debug)]
struct Dump {
    generation: u64,
    scope: Scope,
    /// Rows seen in this generation, or touched by a notification since it began.
    fresh: BTreeSet<RowId>,
    /// Something went meanwhile, or the kernel called the read interrupted: rows that stay may be missing (PIT-13).
    short: bool,
}

/// Identity of a row, without its value.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum RowId {
    Bridge(IfIndex, evpn::types::Mac),
    Own(IfIndex, evpn::types::Mac),
    Flood(IfIndex, IpAddr),
    Neigh(IfIndex, IpAddr),
    Link(IfIndex),
}

/// Batches that may be out at a time.
const CREDIT: usize = 2;

/// A batch on its way: its keys in order, each with whether a notification has touched the row since.
#[derive(Debug)]
struct Flight {
    id: u64,
    keys: Vec<(RowKey, bool)>,
}

impl Flight {
    fn find(&self, key: &RowKey) -> Option<usize> {
        self.keys.binary_search_by(|(k, _)| k.cmp(key)).ok()
    }
}

/// See the module.
#[derive(Debug, Default)]
pub struct Reconciler {
    mirror: Mirror,
    /// Keys to look at on our own account.
    dirty: BTreeSet<RowKey>,
    /// Devices whose wanted rows all want a look.
    recheck: BTreeSet<IfIndex>,
    /// Batches on their way.
    flights: Vec<Flight>,
    next_id: u64,
    /// Complete read done at least once: rows that nobody wants may go.
    synced: bool,
    wanted_scope: BTreeSet<Scope>,
    dump: Option<Dump>,
    again: Again,
    generation: u64,
    audit: Option<RowKey>,
    /// Refusals already reported, so that an audit does not report them again and again.
    failed: BTreeMap<RowKey, i32>,
    counters: Counters,
}

impl Reconciler {
    /// With an empty mirror; a complete read is due ([`Reconciler::take_scope`]).
    pub fn new() -> Self {
        Self { wanted_scope: BTreeSet::from([Scope::All]), ..Self::default() }
    }
    /// What the kernel holds.
    pub fn mirror(&self) -> &Mirror {
        &self.mirror
    }
    /// Running totals.
    pub fn counters(&self) -> Counters {
        self.counters
    }
    /// Every table has been read completely since start or since the last overrun.
    pub fn synced(&self) -> bool {
        self.synced
    }
    /// A batch is on its way.
    pub fn busy(&self) -> bool {
        !self.flights.is_empty()
    }
    /// Another batch may be handed out.
    pub fn has_credit(&self) -> bool {
        self.flights.len() < CREDIT
    }
    fn flying(&self, key: &RowKey) -> bool {
        self.flights.iter().any(|f| f.find(key).is_some())
    }
    /// Notes that a row on its way is not what it was when it was planned. Whether it is on its way.
    fn touch(&mut self, key: &RowKey) -> bool {
        for f in &mut self.flights {
            if let Some(i) = f.find(key) {
                f.keys[i].1 = true;
                return true;
            }
        }
        false
    }
    /// Something waits to be looked at.
    pub fn pending(&self, want: &Want) -> usize {
        want.dirty_len() + self.dirty.len() + self.recheck.len()
    }

    /// Which devices are ours.
    pub fn manage(&mut self, devices: &[DeviceWant]) {
        if self.mirror.manage(devices) {
            self.wanted_scope.insert(Scope::All);
        }
    }

    /// Have the tables read again.
    pub fn resync(&mut self, scope: Scope) {
        self.wanted_scope.insert(scope);
    }

    /// Takes in what the kernel said. Rows that are different from before are looked at again.
    pub fn observe(&mut self, ev: &KernelEvent) {
        if *ev == KernelEvent::Overrun {
            self.synced = false;
            self.again.restart();
            self.wanted_scope.insert(Scope::All);
            return;
        }
        if let Some(d) = &mut self.dump
            && let Some(id) = id_of(ev)
        {
            d.fresh.insert(id);
            d.short |=
                matches!(ev, KernelEvent::FdbGone(_) | KernelEvent::NeighGone(_) | KernelEvent::LinkGone(_));
        }
        self.take_in(ev);
    }

    fn take_in(&mut self, ev: &KernelEvent) -> bool {
        let c = self.mirror.observe(ev);
        if let Some(key) = c.key
            && !self.touch(&key)
        {
            self.dirty.insert(key);
        }
        if let Some(dev) = c.device {
            self.recheck.insert(dev);
            if self.synced && self.mirror.manages_bridge(dev) {
                // A change of MAC, state or carrier may have flushed the neighbours (PIT-01).
                self.wanted_scope.insert(Scope::Neigh(dev));
            }
        }
        c.key.is_some() || c.device.is_some()
    }

    /// The next rows to write, urgent ones first; `None` without credit or if nothing is to be done.
    /// At most `max_rows` keys are in a batch. A batch without ops goes straight to
    /// [`Reconciler::done`].
    pub fn next_batch(&mut self, want: &mut Want, max_rows: usize) -> Option<Batch> {
        if !self.has_credit() {
            return None;
        }
        self.expand_recheck(want);
        // A slice in which all is well is no reason to stop: nobody would come back for the rest.
        let batch = loop {
            let mut rows = self.take_own(max_rows.div_ceil(2));
            let asked = want.take_dirty(max_rows.saturating_sub(rows.len()).max(1));
            self.hold_back(want, asked, &mut rows);
            match self.build(want, rows) {
                Some(batch) => break batch,
                None if self.dirty.is_empty() => return None,
                None => {}
            }
        };
        if !batch.ops.is_empty() {
            let mut keys: Vec<_> = batch.rows.iter().map(|r| (r.key, false)).collect();
            keys.sort_unstable();
            self.flights.push(Flight { id: batch.id, keys });
        }
        Some(batch)
    }

    /// Moves and repairs, to be applied inline at once, whether or not batches are out.
    pub fn next_urgent(&mut self, want: &mut Want, max_rows: usize) -> Option<Batch> {
        if want.urgent_len() == 0 && self.dirty.is_empty() {
            return None;
        }
        let mut rows = self.take_own(max_rows.div_ceil(2));
        let asked = want.take_urgent(max_rows.saturating_sub(rows.len()).max(1));
        self.hold_back(want, asked, &mut rows);
        self.build(want, rows)
    }

    /// Adds what the node asked for. Keys that are on their way wait for the next turn; each key is in a batch
    /// once, whoever asked.
    fn hold_back(&mut self, want: &mut Want, asked: Vec<RowKey>, rows: &mut Vec<(RowKey, bool)>) {
        rows.reserve(asked.len());
        let own = rows.len();
        for key in asked {
            if self.flying(&key) {
                want.mark(key, true);
            } else if let Ok(i) = rows[..own].binary_search_by(|(k, _)| k.cmp(&key)) {
                rows[i].1 = true;
            } else {
                self.dirty.remove(&key);
                rows.push((key, true));
            }
        }
    }

    fn take_own(&mut self, max: usize) -> Vec<(RowKey, bool)> {
        let mut out = Vec::new();
        while out.len() < max
            && let Some(k) = self.dirty.pop_first()
        {
            // A key on its way is compared when it comes back.
            if !self.touch(&k) {
                out.push((k, false));
            }
        }
        out
    }

    fn expand_recheck(&mut self, want: &Want) {
        for dev in core::mem::take(&mut self.recheck) {
            let bridge = if self.mirror.manages_vxlan(dev) { self.mirror.master_of(dev) } else { Some(dev) };
            let any = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
            let mut mark = |from: RowKey, on: &dyn Fn(&RowKey) -> bool| {
                self.dirty.extend(want.range_from(from).map(|(k, _)| *k).take_while(|k| on(k)));
            };
            if let Some(b) = bridge {
                let on = |k: &RowKey| matches!(k, RowKey::Mac { bridge, .. } if *bridge == b);
                mark(RowKey::Mac { bridge: b, mac: evpn::types::Mac::ZERO }, &on);
            }
            let on = |k: &RowKey| matches!(k, RowKey::Flood { vxlan, .. } if *vxlan == dev);
            mark(RowKey::Flood { vxlan: dev, vtep: any }, &on);
            let on = |k: &RowKey| matches!(k, RowKey::Neigh { dev: d, .. } if *d == dev);
            mark(RowKey::Neigh { dev, ip: any }, &on);
        }
    }

    fn build(&mut self, want: &Want, keys: Vec<(RowKey, bool)>) -> Option<Batch> {
        let mut batch =
            Batch { ops: Vec::with_capacity(keys.len()), rows: Vec::with_capacity(keys.len()), id: 0 };
        for (key, asked) in keys {
            let row = want.get(&key).copied();
            // Before the first complete read nobody has had a chance to adopt what is there.
            if row.is_none() && !asked && !self.synced {
                continue;
            }
            let before = batch.ops.len();
            let refused = plan_row(row.as_ref(), &self.mirror, key, &mut batch.ops).err();
            let ops = (batch.ops.len() - before) as u32;
            if !asked && ops == 0 && refused.is_none() {
                continue;
            }
            if !asked && ops > 0 {
                self.counters.repairs += 1;
            }
            batch.rows.push(Planned { key, row, ops, asked, refused });
        }
        if batch.rows.is_empty() {
            return None;
        }
        self.next_id += 1;
        batch.id = self.next_id;
        Some(batch)
    }

    /// Takes back a batch with one result per op, and gives exactly one result per key the node asked for,
    /// and one per repaired key.
    pub fn done(&mut self, batch: Batch, results: &[OpResult]) -> Vec<(RowKey, WriteResult)> {
        let flight = self.flights.iter().position(|f| f.id == batch.id).map(|i| self.flights.remove(i));
        let mut out = Vec::with_capacity(batch.rows.len());
        let mut at = 0;
        for p in batch.rows {
            let end = at + p.ops as usize;
            let ops = &batch.ops[at..end];
            let res = results.get(at..end).unwrap_or(&[]);
            at = end;
            let touched = flight.as_ref().is_some_and(|f| f.find(&p.key).is_some_and(|i| f.keys[i].1));
            let mut verdict = match p.refused {
                Some(r) => WriteResult::Failed { errno: r.errno, text: r.text },
                None if ops.is_empty() => WriteResult::Unchanged,
                None => WriteResult::Done,
            };
            for (i, op) in ops.iter().enumerate() {
                match res.get(i) {
                    Some(Ok(())) => {
                        self.counters.ops += 1;
                        // Told by a notification already, and perhaps by a later one that it is different again.
                        if !touched {
                            self.mirror.applied(op);
                            if let Some(d) = &mut self.dump {
                                d.fresh.extend(ids_of(&self.mirror, op));
                            }
                        }
                    }
                    Some(Err(e)) => {
                        self.counters.failed += 1;
                        if !matches!(verdict, WriteResult::Failed { .. }) {
                            verdict = WriteResult::Failed { errno: e.errno, text: e.to_string() };
                        }
                    }
                    None => verdict = WriteResult::Failed { errno: libc::EIO, text: "no answer".to_owned() },
                }
            }
            let news = match &verdict {
                WriteResult::Failed { errno, .. } => self.failed.insert(p.key, *errno) != Some(*errno),
                WriteResult::Unchanged | WriteResult::Done => {
                    self.failed.remove(&p.key);
                    true
                }
            };
            // Also a refusal may be out of date: the device was down then and is up now (PIT-01). Once, not for
            // ever; after that the audit tries.
            if touched && news {
                let mut again = Vec::new();
                if plan_row(p.row.as_ref(), &self.mirror, p.key, &mut again).is_ok() && !again.is_empty() {
                    self.dirty.insert(p.key);
                }
            }
            if p.asked || news {
                out.push((p.key, verdict));
            }
        }
        out
    }

    /// Compares up to `n` rows when there is nothing better to do; differences become dirty. Call it from time
    /// to time: it also retries what had failed. Returns how many keys were marked.
    pub fn audit_slice(&mut self, want: &Want, n: usize) -> usize {
        if !self.synced {
            return 0;
        }
        if self.again.tick() {
            self.wanted_scope.insert(Scope::All);
        }
        let mut marked = 0;
        let mut scratch = Vec::new();
        let start = self.audit.take();
        let mut last = None;
        let from = start.unwrap_or(RowKey::Mac { bridge: IfIndex(0), mac: evpn::types::Mac::ZERO });
        let mut seen = 0;
        for (k, row) in want.range_from(from).filter(|(k, _)| Some(**k) > start).take(n) {
            seen += 1;
            last = Some(*k);
            scratch.clear();
            let differs = match plan_row(Some(row), &self.mirror, *k, &mut scratch) {
                Ok(()) => !scratch.is_empty(),
                Err(r) => self.failed.get(k) != Some(&r.errno),
            };
            if differs && !self.flying(k) && self.dirty.insert(*k) {
                marked += 1;
            }
        }
        // Rows of ours that nobody wants, over the same stretch of keys.
        let upto = if seen == n { last } else { None };
        let mut after = start;
        loop {
            let own = self.mirror.own_keys(after, n.max(1));
            let mut beyond = own.is_empty();
            for k in &own {
                if upto.is_some_and(|u| *k > u) {
                    beyond = true;
                    break;
                }
                if want.get(k).is_none() && !self.flying(k) && self.dirty.insert(*k) {
                    marked += 1;
                }
            }
            after = own.last().copied();
            if beyond || after.is_none() {
                break;
            }
        }
        self.audit = upto;
        marked
    }

    /// What to read now, with the generation to label it; `None` if nothing, or if a read is in progress.
    pub fn take_scope(&mut self) -> Option<(u64, Scope)> {
        if self.dump.is_some() {
            return None;
        }
        let scope = self.wanted_scope.pop_first()?;
        if scope == Scope::All {
            self.wanted_scope.clear();
            self.counters.resyncs += 1;
        }
        self.generation += 1;
        let (generation, fresh) = (self.generation, BTreeSet::new());
        self.dump = Some(Dump { generation, scope, fresh, short: false });
        Some((generation, scope))
    }

    /// Rows of a read in progress. Those that are news go to `news`, for the node.
    /// What a notification has touched since the read began is newer than the read, and stays.
    pub fn dumped(&mut self, generation: u64, rows: &[KernelEvent], news: &mut Vec<KernelEvent>) {
        for ev in rows {
            let Some(d) = self.dump.as_mut().filter(|d| d.generation == generation) else { return };
            let Some(id) = id_of(ev) else { continue };
            if !d.fresh.insert(id) {
                continue;
            }
            let link = match ev {
                KernelEvent::Link(l) => self.mirror.link(l.index) != Some(l),
                _ => false,
            };
            if self.take_in(ev) || link {
                news.push(ev.clone());
            }
        }
    }

    /// The kernel marked the read as interrupted (`NLM_F_DUMP_INTR`), however often it was begun again.
    pub fn interrupted(&mut self, generation: u64) {
        if let Some(d) = self.dump.as_mut().filter(|d| d.generation == generation) {
            d.short = true;
        }
    }

    /// The read is over. Gives what it did not show, as the events to report should a single-row read agree;
    /// answer with [`Reconciler::confirmed`], also if there are none. `complete` is false if the read failed:
    /// then it is begun again.
    pub fn end_dump(&mut self, generation: u64, complete: bool) -> Vec<KernelEvent> {
        let Some(d) = self.dump.as_ref().filter(|d| d.generation == generation) else { return Vec::new() };
        if !complete {
            self.wanted_scope.insert(d.scope);
            self.dump = None;
            return Vec::new();
        }
        let mut out = Vec::new();
        if d.scope == Scope::All {
            let gone = self.mirror.links().keys().filter(|i| !d.fresh.contains(&RowId::Link(**i)));
            out.extend(gone.map(|i| KernelEvent::LinkGone(*i)));
        }
        for ev in self.mirror.rows() {
            let in_scope = match (&ev, d.scope) {
                (_, Scope::All) => true,
                (KernelEvent::Neigh(r), Scope::Neigh(dev)) => r.dev == dev,
                _ => false,
            };
            if in_scope && id_of(&ev).is_some_and(|id| !d.fresh.contains(&id)) {
                match ev {
                    KernelEvent::Fdb(r) => out.push(KernelEvent::FdbGone(r)),
                    KernelEvent::Neigh(r) => out.push(KernelEvent::NeighGone(r)),
                    _ => {}
                }
            }
        }
        out
    }

    /// Answers to the suspicions of [`Reconciler::end_dump`]: the row as it is, or the event that it is gone.
    /// Ends the read; `Synced` is the last of `news` after a complete one.
    pub fn confirmed(&mut self, generation: u64, rows: &[KernelEvent], news: &mut Vec<KernelEvent>) {
        for ev in rows {
            let Some(d) = self.dump.as_mut().filter(|d| d.generation == generation) else { return };
            let Some(id) = id_of(ev) else { continue };
            if !d.fresh.insert(id) {
                continue;
            }
            let gone =
                matches!(ev, KernelEvent::FdbGone(_) | KernelEvent::NeighGone(_) | KernelEvent::LinkGone(_));
            if !gone {
                self.counters.short_dump_rows += 1;
            }
            let link = matches!(ev, KernelEvent::LinkGone(i) if self.mirror.link(*i).is_some());
            if self.take_in(ev) || link {
                news.push(ev.clone());
            }
        }
        let Some(d) = self.dump.take_if(|d| d.generation == generation) else { return };
        // An overrun since then asks for another one, and only that one ends with `Synced`.
        if d.scope == Scope::All && !self.wanted_scope.contains(&Scope::All) {
            if self.again.read(d.short, self.synced) == After::Repeat {
                self.wanted_scope.insert(Scope::All);
                return;
            }
            self.synced = true;
            news.push(KernelEvent::Synced);
        }
    }
}

fn id_of(ev: &KernelEvent) -> Option<RowId> {
    use evpn::fabric::FdbRow;
    Some(match ev {
        KernelEvent::Link(l) => RowId::Link(l.index),
        KernelEvent::LinkGone(i) => RowId::Link(*i),
        KernelEvent::Fdb(FdbRow::Bridge(r)) | KernelEvent::FdbGone(FdbRow::Bridge(r)) => {
            if r.vlan != 0 {
                return None;
            }
            RowId::Bridge(r.bridge, r.mac)
        }
        KernelEvent::Fdb(FdbRow::Vxlan(r)) | KernelEvent::FdbGone(FdbRow::Vxlan(r)) => {
            if r.mac.is_zero() {
                RowId::Flood(r.dev, r.vtep?)
            } else {
                RowId::Own(r.dev, r.mac)
            }
        }
        KernelEvent::Neigh(r) | KernelEvent::NeighGone(r) => RowId::Neigh(r.dev, r.ip),
        KernelEvent::NeighAsked { .. } | KernelEvent::Synced | KernelEvent::Overrun => return None,
    })
}

/// The rows that an op writes.
fn ids_of(mirror: &Mirror, op: &Op) -> Vec<RowId> {
    let bridge = |port, mac| mirror.master_of(port).map(|b| RowId::Bridge(b, mac));
    match *op {
        Op::SetRemote { vxlan, mac, .. } | Op::DelRemote { vxlan, mac, .. } => {
            bridge(vxlan, mac).into_iter().chain([RowId::Own(vxlan, mac)]).collect()
        }
        Op::SetSelf { vxlan, mac, .. } | Op::DelSelf { vxlan, mac, .. } => vec![RowId::Own(vxlan, mac)],
        Op::SetSticky { vxlan, mac } => bridge(vxlan, mac).into_iter().collect(),
        Op::SetOwn { bridge, mac } | Op::DelOwn { bridge, mac } => vec![RowId::Bridge(bridge, mac)],
        Op::SetLocal { port, mac } | Op::DelMaster { port, mac } => bridge(port, mac).into_iter().collect(),
        Op::AddFlood { vxlan, vtep } | Op::DelFlood { vxlan, vtep } => vec![RowId::Flood(vxlan, vtep)],
        Op::SetNeigh { dev, ip, .. } | Op::DelNeigh { dev, ip } => vec![RowId::Neigh(dev, ip)],
    }
}
