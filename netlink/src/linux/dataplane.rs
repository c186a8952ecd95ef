//! Monitor, kernel thread, reconciler and inline writer as one object for the daemon's core loop.

use super::hold::{HoldPort, HoldWant};
use super::monitor::{Interest, Monitor};
use super::thread::{KernelThread, Request, Response};
use super::writer::Writer;
use crate::mirror::Mirror;
use crate::op::{Kernel as _, OpResult};
use crate::reconcile::{Batch, Counters, Reconciler, Scope};
use crate::setup::{DeviceProblem, plan_devices};
use evpn::fabric::{BridgeFdb, DeviceWant, FdbRow, KernelEvent, RowKey, Want, WriteResult};
use evpn::types::{IfIndex, Mac, Vni};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::os::fd::{AsRawFd as _, RawFd};

/// What a [`Dataplane`] is told at start.
#[derive(Clone, Debug)]
pub struct DataplaneConfig {
    /// Bridges and VXLAN devices to create or adopt.
    pub devices: Vec<DeviceWant>,
    /// Batches of at most so many keys are written on the calling thread, larger ones on the kernel thread.
    pub inline_rows: usize,
    /// Keys per batch for the kernel thread.
    pub batch_rows: usize,
}

impl Default for DataplaneConfig {
    fn default() -> Self {
        Self { devices: Vec::new(), inline_rows: 64, batch_rows: 2048 }
    }
}

/// The kernel as the core loop sees it. One turn of the loop:
///
/// 1. when [`Dataplane::monitor_fd`] or [`Dataplane::thread_fd`] is readable: [`Dataplane::drain`]; give every
///    event to the node (`Input::Kernel`) and the results as `Input::Written`;
/// 2. let the node handle the rest, `flush`;
/// 3. [`Dataplane::write`] with the node's `Want`; results go to the node as `Input::Written`, flush again if any.
///
/// Everything happens in the network namespace of the thread that calls [`Dataplane::open`].
#[derive(Debug)]
pub struct Dataplane {
    config: DataplaneConfig,
    reconciler: Reconciler,
    monitor: Monitor,
    thread: KernelThread,
    writer: Writer,
    problems: Vec<DeviceProblem>,
    /// How often something was missing from a gateway that it had been given.
    gateway_repairs: u64,
    /// Set-up has been asked for and not answered.
    installing: bool,
    /// Something changed that set-up may have to look at.
    look_again: bool,
    /// The first set-up is over: tables may be read.
    ready: bool,
    /// Bridges whose local rows are to be told again, from which MAC on.
    recalls: VecDeque<(IfIndex, Option<Mac>)>,
    /// Hold ports to be made; the first one is being made if `making`.
    holds: VecDeque<HoldWant>,
    making: bool,
    /// Made, or not; not told before the bridge is known to have it.
    made: Vec<(Vni, Result<HoldPort, String>)>,
    inbox: Vec<KernelEvent>,
    results: Vec<OpResult>,
}

impl Dataplane {
    /// Opens the monitor, starts the kernel thread, and has it set up the devices and read all tables.
    pub fn open(config: DataplaneConfig) -> io::Result<Self> {
        let mut reconciler = Reconciler::new();
        reconciler.manage(&config.devices);
        // Subscribed before anything is read or made, so that nothing happens unseen.
        let monitor = Monitor::open(Interest::devices(&config.devices))?;
        let thread = KernelThread::start()?;
        let writer = Writer::open()?;
        let mut new = Self {
            config,
            reconciler,
            monitor,
            thread,
            writer,
            problems: Vec::new(),
            gateway_repairs: 0,
            installing: false,
            look_again: false,
            ready: false,
            recalls: VecDeque::new(),
            holds: VecDeque::new(),
            making: false,
            made: Vec::new(),
            inbox: Vec::new(),
            results: Vec::new(),
        };
        new.install()?;
        Ok(new)
    }

    fn install(&mut self) -> io::Result<()> {
        if self.installing {
            self.look_again = true;
            return Ok(());
        }
        self.look_again = false;
        self.installing = true;
        self.thread.request(Request::EnsureDevices(self.config.devices.clone()))
    }

    /// Readable when the kernel has something to say.
    pub fn monitor_fd(&self) -> RawFd {
        self.monitor.as_raw_fd()
    }
    /// Readable when the kernel thread has something to say.
    pub fn thread_fd(&self) -> RawFd {
        self.thread.as_raw_fd()
    }

    /// Takes up to `budget` notifications, and what the kernel thread has done. Appends events for the node
    /// (rows of managed devices, and all links) and results of earlier writes. Returns whether more waits.
    pub fn drain(
        &mut self,
        budget: usize,
        events: &mut Vec<KernelEvent>,
        written: &mut Vec<(RowKey, WriteResult)>,
    ) -> io::Result<bool> {
        let mut inbox = core::mem::take(&mut self.inbox);
        let got = self.monitor.recv(budget, &mut inbox)?;
        let mut links_changed = false;
        for ev in inbox.drain(..) {
            links_changed |= matches!(ev, KernelEvent::Link(_) | KernelEvent::LinkGone(_));
            self.reconciler.observe(&ev);
            if relevant(self.reconciler.mirror(), &ev) {
                events.push(ev);
            }
        }
        self.inbox = inbox;
        let mut more = got >= budget;
        self.thread.acknowledge();
        let mut answers = 0;
        while let Some(r) = self.thread.response()? {
            answers += 1;
            links_changed |= self.answered(r, events, written)?;
            // The rest keeps: what a chunk brings is old by its nature, and frames are waiting.
            if answers * super::dump::CHUNK >= budget {
                more = true;
                self.thread.wake();
                break;
            }
        }
        let gateways = self.monitor.gateways_changed();
        if self.ready && (gateways || (links_changed && self.unfinished())) {
            self.install()?;
        }
        self.make_next()?;
        self.start_read()?;
        Ok(more)
    }

    fn answered(
        &mut self,
        r: Response,
        events: &mut Vec<KernelEvent>,
        written: &mut Vec<(RowKey, WriteResult)>,
    ) -> io::Result<bool> {
        let from = events.len();
        match r {
            Response::Applied(batch, results) => written.extend(self.reconciler.done(batch, &results)),
            Response::Rows { generation, rows } => {
                for ev in &rows {
                    if let KernelEvent::Link(l) = ev {
                        self.monitor.note_link(l);
                    }
                }
                self.reconciler.dumped(generation, &rows, events);
            }
            Response::ReadEnd { generation, result } => {
                if let Err(e) = &result {
                    tracing::warn!(error = %e, "reading the kernel's tables failed, trying again");
                }
                if result == Ok(false) {
                    self.reconciler.interrupted(generation);
                }
                let suspects = self.reconciler.end_dump(generation, result.is_ok());
                if suspects.is_empty() {
                    self.reconciler.confirmed(generation, &[], events);
                } else {
                    self.thread.request(Request::Confirm { generation, suspects })?;
                }
            }
            Response::Confirmed { generation, rows } => self.reconciler.confirmed(generation, &rows, events),
            Response::Hold(want, made) => {
                self.making = false;
                // One that was called off meanwhile goes with its descriptor.
                if self.holds.front() == Some(&want) {
                    self.holds.pop_front();
                    self.made.push((want.vni, made));
                }
            }
            Response::Devices(problems, repairs) => {
                self.problems = problems;
                self.gateway_repairs = repairs;
                self.installing = false;
                self.ready = true;
                if self.look_again {
                    self.install()?;
                }
            }
        }
        Ok(events[from..].iter().any(|e| matches!(e, KernelEvent::Link(_) | KernelEvent::LinkGone(_))))
    }

    /// Whether set-up would do something now: a port came late, a device went.
    fn unfinished(&self) -> bool {
        let links = self.reconciler.mirror().links();
        !plan_devices(&self.config.devices, links, &BTreeSet::new(), &BTreeMap::new()).0.is_empty()
    }

    fn start_read(&mut self) -> io::Result<()> {
        if self.ready
            && let Some((generation, scope)) = self.reconciler.take_scope()
        {
            self.thread.request(Request::Read { generation, scope })?;
        }
        Ok(())
    }

    /// Plans what is dirty; writes moves, repairs and small batches at once and hands large ones to the kernel
    /// thread. Appends results of what was written at once; the others come with a later [`Dataplane::drain`].
    pub fn write(&mut self, want: &mut Want, written: &mut Vec<(RowKey, WriteResult)>) -> io::Result<()> {
        let inline = self.config.inline_rows;
        if let Some(b) = self.reconciler.next_urgent(want, inline) {
            self.write_inline(b, written);
        }
        while let Some(b) = self.reconciler.next_batch(want, self.config.batch_rows) {
            if b.ops.len() <= inline {
                self.write_inline(b, written);
            } else {
                self.thread.request(Request::Apply(b))?;
            }
        }
        self.start_read()
    }

    fn write_inline(&mut self, b: Batch, written: &mut Vec<(RowKey, WriteResult)>) {
        self.results.clear();
        self.writer.apply(&b.ops, &mut self.results);
        written.extend(self.reconciler.done(b, &self.results));
    }

    /// A batch is with the kernel thread.
    pub fn busy(&self) -> bool {
        self.reconciler.busy()
    }
    /// Whether [`Dataplane::write`] could do something now.
    pub fn has_work(&self, want: &Want) -> bool {
        want.urgent_len() > 0 || (self.reconciler.has_credit() && self.reconciler.pending(want) > 0)
    }

    /// Reads all tables again (`Output::Resync`).
    pub fn resync(&mut self) -> io::Result<()> {
        self.reconciler.resync(Scope::All);
        self.start_read()
    }
    /// Have the rows of a bridge's local ports told again (`Output::Recall`): [`Dataplane::recalled`] has them.
    pub fn recall(&mut self, bridge: IfIndex) {
        self.recalls.retain(|(b, _)| *b != bridge);
        self.recalls.push_back((bridge, None));
    }
    /// The next of them, out of `budget` rows; and whether more may follow.
    pub fn recalled(&mut self, budget: usize) -> (Vec<BridgeFdb>, bool) {
        let Some((bridge, after)) = self.recalls.pop_front() else { return (Vec::new(), false) };
        let (rows, last) = self.reconciler.mirror().local_rows(bridge, after, budget);
        if last.is_some() {
            self.recalls.push_back((bridge, last));
        }
        (rows, !self.recalls.is_empty())
    }
    /// Has a hold port made (`Output::HoldPort`), on the kernel thread: [`Dataplane::made_hold_port`] has it.
    pub fn make_hold_port(&mut self, want: HoldWant) -> io::Result<()> {
        self.forget_hold_port(want.vni);
        self.holds.push_back(want);
        self.make_next()
    }
    /// It is not wanted any more.
    pub fn forget_hold_port(&mut self, vni: Vni) {
        self.holds.retain(|w| w.vni != vni);
        self.made.retain(|(v, _)| *v != vni);
    }
    /// The next hold port that was made, or could not be. As soon as its bridge has it, so that a row may point there.
    pub fn made_hold_port(&mut self) -> Option<(Vni, Result<HoldPort, String>)> {
        let mirror = self.reconciler.mirror();
        let there = |made: &Result<HoldPort, String>| {
            made.as_ref().map_or(true, |p| mirror.master_of(p.port()) == Some(p.bridge()))
        };
        let at = self.made.iter().position(|(_, made)| there(made))?;
        Some(self.made.swap_remove(at))
    }
    fn make_next(&mut self) -> io::Result<()> {
        if !self.making
            && let Some(want) = self.holds.front()
        {
            self.making = true;
            self.thread.request(Request::Hold(want.clone()))?;
        }
        Ok(())
    }
    /// New list of devices (reload); idempotent.
    pub fn set_devices(&mut self, devices: Vec<DeviceWant>) -> io::Result<()> {
        self.reconciler.manage(&devices);
        self.monitor.set_interest(Interest::devices(&devices));
        self.config.devices = devices;
        self.install()
    }
    /// Looks at the gateways again: that somebody has changed their settings is told by nobody. Once in a while.
    pub fn look_at_gateways(&mut self) -> io::Result<()> {
        if self.ready && self.config.devices.iter().any(|w| w.gateway.is_some()) {
            self.install()?;
        }
        Ok(())
    }
    /// How often something was missing from a gateway that it had been given.
    pub fn gateway_repairs(&self) -> u64 {
        self.gateway_repairs
    }
    /// What is wrong with the devices, as of the last set-up.
    pub fn problems(&self) -> &[DeviceProblem] {
        &self.problems
    }
    /// The first device set-up is over.
    pub fn ready(&self) -> bool {
        self.ready
    }
    /// Compares up to `rows` rows with the mirror. Call it when idle, about once a second; then
    /// [`Dataplane::write`].
    pub fn audit(&mut self, want: &Want, rows: usize) {
        self.reconciler.audit_slice(want, rows);
    }
    /// Running totals.
    pub fn counters(&self) -> Counters {
        self.reconciler.counters()
    }
    /// How often notifications were lost.
    pub fn overruns(&self) -> u64 {
        self.monitor.overruns()
    }
    /// For tests of an overrun: the monitor's receive buffer in octets.
    pub fn set_monitor_buffer(&self, octets: i32) {
        self.monitor.set_buffer(octets);
    }
    /// What the kernel holds.
    pub fn mirror(&self) -> &Mirror {
        self.reconciler.mirror()
    }
    /// Stops the kernel thread after what it is doing; devices that were created are removed if asked for,
    /// otherwise they are left with their rows, and forwarding goes on.
    pub fn stop(self, remove_created: bool) -> io::Result<()> {
        let mut installer = self.thread.stop()?;
        if remove_created { installer.remove_created() } else { Ok(()) }
    }
}

/// Rows of managed devices; all links.
fn relevant(mirror: &Mirror, ev: &KernelEvent) -> bool {
    match ev {
        KernelEvent::Fdb(FdbRow::Bridge(r)) | KernelEvent::FdbGone(FdbRow::Bridge(r)) => {
            mirror.manages_bridge(r.bridge)
        }
        KernelEvent::Fdb(FdbRow::Vxlan(r)) | KernelEvent::FdbGone(FdbRow::Vxlan(r)) => {
            mirror.manages_vxlan(r.dev)
        }
        KernelEvent::Neigh(r) | KernelEvent::NeighGone(r) => mirror.manages_bridge(r.dev),
        KernelEvent::NeighAsked { dev, .. } => mirror.manages_bridge(*dev),
        KernelEvent::Link(_) | KernelEvent::LinkGone(_) | KernelEvent::Synced | KernelEvent::Overrun => true,
    }
}
