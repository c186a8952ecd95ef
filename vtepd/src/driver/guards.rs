//! Ports that make MACs up, on a thread of its own: writing the filter of such a port takes the kernel milliseconds, and
//! counting what it drops is never urgent.

use evpn::node::{GuardChange, GuardNews};
use evpn::types::{IfIndex, Mac};
use netlink::linux::FloodGuard;
use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// Between two reports of what was dropped.
const EVERY: Duration = Duration::from_secs(1);
/// News that may wait for the core; more is said a second later.
const NEWS: usize = 256;

/// What is to become of a port, since the thread last looked. What comes meanwhile is one thing for each MAC, however
/// often it changes.
#[derive(Debug, Default)]
struct Order {
    /// Guarded from now on, with these; or not any more.
    anew: Option<Option<(String, Vec<Mac>)>>,
    /// Whether they come in.
    macs: BTreeMap<Mac, bool>,
}

#[derive(Debug, Default)]
struct Orders {
    ports: BTreeMap<IfIndex, Order>,
    stop: bool,
}

type Shared = Arc<(Mutex<Orders>, Condvar)>;
type News = (IfIndex, GuardNews);

/// The core's end of the thread, which there is from the first guarded port on.
#[derive(Debug)]
pub(super) struct Guards {
    shared: Shared,
    tell: mpsc::Sender<News>,
    news: mpsc::Receiver<News>,
    thread: Option<JoinHandle<()>>,
}

impl Default for Guards {
    fn default() -> Self {
        let (tell, news) = mpsc::channel(NEWS);
        Self { shared: Shared::default(), tell, news, thread: None }
    }
}

impl Guards {
    /// Changes what a port lets in; what came of it is among the news.
    pub(super) fn order(&mut self, port: IfIndex, change: GuardChange) {
        if self.thread.is_none() {
            let mut worker = Worker { filter: None, counted: Instant::now(), tell: self.tell.clone() };
            let orders = Arc::clone(&self.shared);
            let thread = std::thread::Builder::new().name("guards".into()).spawn(move || worker.run(&orders));
            match thread {
                Ok(thread) => self.thread = Some(thread),
                Err(e) => {
                    let _ = self.tell.try_send((port, GuardNews::Refused(e.to_string())));
                    return;
                }
            }
        }
        let (orders, bell) = &*self.shared;
        let mut held = orders.lock().unwrap_or_else(PoisonError::into_inner);
        let order = held.ports.entry(port).or_default();
        match change {
            GuardChange::On { device, allowed } => {
                *order = Order { anew: Some(Some((device, allowed))), macs: BTreeMap::new() };
            }
            GuardChange::Off => *order = Order { anew: Some(None), macs: BTreeMap::new() },
            GuardChange::Macs { add, remove } => {
                order.macs.extend(add.into_iter().map(|m| (m, true)));
                order.macs.extend(remove.into_iter().map(|m| (m, false)));
            }
        }
        bell.notify_one();
    }

    /// The next news, if there are any.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Option<News> {
        match self.news.poll_recv(cx) {
            Poll::Ready(news) => news,
            Poll::Pending => None,
        }
    }
}

impl Drop for Guards {
    fn drop(&mut self) {
        let (orders, bell) = &*self.shared;
        orders.lock().unwrap_or_else(PoisonError::into_inner).stop = true;
        bell.notify_one();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Worker {
    /// There while a port is guarded.
    filter: Option<FloodGuard>,
    counted: Instant,
    tell: mpsc::Sender<News>,
}

impl Worker {
    fn run(&mut self, shared: &Shared) {
        let (orders, bell) = &**shared;
        loop {
            let ports = {
                let held = orders.lock().unwrap_or_else(PoisonError::into_inner);
                let nothing = |o: &mut Orders| o.ports.is_empty() && !o.stop;
                // Without a guarded port there is nothing to count either.
                let mut held = if self.filter.is_some() {
                    bell.wait_timeout_while(held, EVERY.saturating_sub(self.counted.elapsed()), nothing)
                        .map(|(held, _)| held)
                        .ok()
                } else {
                    bell.wait_while(held, nothing).ok()
                }
                .unwrap_or_else(|| orders.lock().unwrap_or_else(PoisonError::into_inner));
                if held.stop {
                    return;
                }
                std::mem::take(&mut held.ports)
            };
            for (port, order) in ports {
                self.obey(port, order);
            }
            if self.counted.elapsed() >= EVERY {
                self.counted = Instant::now();
                self.count();
            }
        }
    }

    fn obey(&mut self, port: IfIndex, order: Order) {
        match order.anew {
            Some(Some((device, allowed))) => {
                let done = self.guard(port, &device, &allowed);
                self.report(port, done.map(|()| GuardNews::On));
            }
            Some(None) => {
                if let Some(f) = &mut self.filter {
                    f.open(port);
                }
            }
            None => {}
        }
        let of = |come_in| order.macs.iter().filter(move |(_, c)| **c == come_in).map(|(m, _)| *m);
        let (add, remove): (Vec<Mac>, Vec<Mac>) = (of(true).collect(), of(false).collect());
        if let Some(f) = &mut self.filter
            && let Err(e) = f.allow(port, &add, &remove)
        {
            // Better all than not even those that are known.
            f.open(port);
            self.report(port, Err(e));
        }
        if self.filter.as_ref().is_some_and(|f| f.ports().next().is_none()) {
            self.filter = None;
        }
    }

    fn guard(&mut self, port: IfIndex, device: &str, allowed: &[Mac]) -> io::Result<()> {
        if self.filter.is_none() {
            self.filter = Some(FloodGuard::install()?);
        }
        self.filter.as_mut().map_or(Ok(()), |f| f.guard(port, device, allowed))
    }

    fn count(&mut self) {
        let Some(f) = &mut self.filter else { return };
        for port in f.ports().collect::<Vec<_>>() {
            if let Ok(n) = f.dropped(port) {
                let _ = self.tell.try_send((port, GuardNews::Dropped(n)));
            }
        }
    }

    fn report(&self, port: IfIndex, done: io::Result<GuardNews>) {
        let news = done.unwrap_or_else(|e| {
            GuardNews::Refused(format!(
                "{e}; load nf_tables with its netdev family, or set `flood-guard = 0`"
            ))
        });
        let _ = self.tell.try_send((port, news));
    }
}
