//! The underlay, on a thread of its own: the source filter (PIT-12) and the path MTU to every VTEP (PIT-11).
//! Both ask the kernel for things that may take milliseconds, and neither is in the path of a move.

use evpn::types::Span;
use evpn::types::{IfIndex, Mac};
use netlink::linux::mtu::{probe, underlay_mtu};
use netlink::linux::{PortFilter, VxlanFilter};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::mpsc;

/// Between measurements.
const EVERY: Span = Span::secs(10);
/// How long a hop may take to say that a probe was too large for it.
const SETTLE: Span = Span::millis(400);
/// Results that may wait for the core; more are measured again next time.
const RESULTS: usize = 1024;

/// What the thread is to do; only the latest counts, so nothing piles up.
#[derive(Debug, Default)]
struct Orders {
    vteps: BTreeSet<IpAddr>,
    blocked: BTreeSet<(IfIndex, Mac)>,
    /// The filter is to be in force.
    filter: bool,
    news: bool,
    stop: bool,
}

type Shared = Arc<(Mutex<Orders>, Condvar)>;

/// The core's end of the thread.
#[derive(Debug)]
pub(super) struct Underlay {
    shared: Shared,
    /// Measured path MTUs that differ from the last measurement.
    pub(super) mtus: mpsc::Receiver<(IpAddr, u32)>,
    thread: Option<JoinHandle<()>>,
}

impl Underlay {
    /// Starts the thread for our VTEP address and VXLAN port.
    pub(super) fn start(local: IpAddr, port: u16) -> io::Result<Self> {
        let shared = Shared::default();
        let (results, mtus) = mpsc::channel(RESULTS);
        let worker = Worker {
            local,
            port,
            filter: None,
            refused: false,
            blocking: None,
            known: BTreeMap::new(),
            results,
        };
        let orders = Arc::clone(&shared);
        let thread =
            std::thread::Builder::new().name("underlay".into()).spawn(move || worker.run(&orders))?;
        Ok(Self { shared, mtus, thread: Some(thread) })
    }

    fn tell(&self, change: impl FnOnce(&mut Orders)) {
        let (orders, bell) = &*self.shared;
        let mut orders = orders.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut orders);
        orders.news = true;
        bell.notify_one();
    }

    /// The VTEPs in use.
    pub(super) fn set_vteps(&self, vteps: BTreeSet<IpAddr>) {
        self.tell(|o| o.vteps = vteps);
    }

    /// Frames with these source addresses are dropped on these ports (EVPN-MOB-16).
    pub(super) fn block(&self, blocked: BTreeSet<(IfIndex, Mac)>) {
        self.tell(|o| o.blocked = blocked);
    }

    /// From now on VXLAN is accepted from the VTEPs in use only. Not before all neighbours have told theirs:
    /// after a restart, traffic of VTEPs that we only have rows for must go on.
    pub(super) fn enforce_filter(&self) {
        self.tell(|o| o.filter = true);
    }
}

impl Drop for Underlay {
    fn drop(&mut self) {
        self.tell(|o| o.stop = true);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Worker {
    local: IpAddr,
    port: u16,
    filter: Option<VxlanFilter>,
    /// The kernel would not have the filter; said once.
    refused: bool,
    /// There while there is something to block.
    blocking: Option<PortFilter>,
    known: BTreeMap<IpAddr, u32>,
    results: mpsc::Sender<(IpAddr, u32)>,
}

impl Worker {
    fn run(mut self, shared: &Shared) {
        let (orders, bell) = &**shared;
        loop {
            let (vteps, filter, blocked) = {
                let held = orders.lock().unwrap_or_else(PoisonError::into_inner);
                let every = Duration::from_nanos(EVERY.0);
                let waited = bell.wait_timeout_while(held, every, |o| !o.news && !o.stop);
                let (mut held, _) = waited.unwrap_or_else(PoisonError::into_inner);
                if held.stop {
                    return;
                }
                held.news = false;
                (held.vteps.clone(), held.filter, held.blocked.clone())
            };
            self.block(&blocked);
            if filter {
                self.allow(&vteps);
            }
            for vtep in &vteps {
                self.probe(*vtep);
            }
            // News do not wait for the answers; they begin a round of their own.
            let held = orders.lock().unwrap_or_else(PoisonError::into_inner);
            let settle = Duration::from_nanos(SETTLE.0);
            drop(bell.wait_timeout_while(held, settle, |o| !o.news && !o.stop));
            self.measure(&vteps);
        }
    }

    /// A packet as large as the path is believed to carry: faults hide from those who send nothing (PIT-11).
    fn probe(&self, vtep: IpAddr) {
        let sent = underlay_mtu(self.local, vtep).and_then(|mtu| probe(self.local, vtep, self.port, mtu));
        if let Err(e) = sent {
            tracing::debug!(%vtep, error = %e, "path MTU not probed");
        }
    }

    fn allow(&mut self, vteps: &BTreeSet<IpAddr>) {
        if self.filter.is_none() && !self.refused {
            match VxlanFilter::install(self.local, self.port) {
                Ok(filter) => self.filter = Some(filter),
                Err(e) => {
                    self.refused = true;
                    let help = "load nf_tables, or set `vtep.source-filter = false`";
                    tracing::warn!(error = %e, help, "VXLAN is accepted from everybody: no source filter");
                }
            }
        }
        if let Some(filter) = &mut self.filter
            && let Err(e) = filter.allow(vteps)
        {
            tracing::warn!(error = %e, "the source filter could not be changed; it is removed");
            self.filter = None;
        }
    }

    /// Without the filter the row still holds: what the host says is not learned, only heard.
    fn block(&mut self, blocked: &BTreeSet<(IfIndex, Mac)>) {
        if blocked.is_empty() {
            self.blocking = None;
            return;
        }
        let filter = match self.blocking.take() {
            Some(filter) => Ok(filter),
            None => PortFilter::install(),
        };
        match filter.and_then(|mut f| f.block(blocked).map(|()| f)) {
            Ok(filter) => self.blocking = Some(filter),
            Err(e) => {
                let help = "load nf_tables with its bridge family, or set `action = \"freeze\"` in [mobility.duplicates]";
                tracing::warn!(error = %e, help, "frames of duplicate MACs are not dropped");
            }
        }
    }

    fn measure(&mut self, vteps: &BTreeSet<IpAddr>) {
        self.known.retain(|v, _| vteps.contains(v));
        for vtep in vteps {
            // No route just now: BGP says that better than an MTU could.
            let Ok(mtu) = underlay_mtu(self.local, *vtep) else { continue };
            if self.known.get(vtep) != Some(&mtu) && self.results.try_send((*vtep, mtu)).is_ok() {
                self.known.insert(*vtep, mtu);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_path_is_measured_once_per_change_and_the_thread_ends() {
        let local: IpAddr = "127.0.0.1".parse().expect("address");
        let far: IpAddr = "127.0.0.2".parse().expect("address");
        let mut underlay = Underlay::start(local, 4789).expect("thread");
        underlay.set_vteps([far].into());
        let got = tokio::time::timeout(Duration::from_secs(10), underlay.mtus.recv()).await.expect("in time");
        assert!(matches!(got, Some((v, mtu)) if v == far && mtu >= 1280), "{got:?}");
        underlay.set_vteps([far, "127.0.0.3".parse().expect("address")].into());
        let got = tokio::time::timeout(Duration::from_secs(10), underlay.mtus.recv()).await.expect("in time");
        assert!(matches!(got, Some((v, _)) if v != far), "{got:?}");
        drop(underlay);
    }
}
