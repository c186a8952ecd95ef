//! What ports drop where it comes in (PIT-10), on a thread of its own: writing rules takes the kernel milliseconds, and
//! counting what they drop is never urgent.

use evpn::node::{PortDrops, PortNews, PortRules};
use evpn::types::IfIndex;
use netlink::linux::IngressRules;
use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// Between two reports of what was dropped.
const EVERY: Duration = Duration::from_secs(1);
/// News that may wait for the core; more is said a second later.
const NEWS: usize = 1024;
/// Devices in one message to the kernel, which takes some 200 KB at once.
const AT_ONCE: usize = 64;

/// The latest wish for each device.
#[derive(Debug, Default)]
struct Orders {
    ports: BTreeMap<IfIndex, (String, PortRules)>,
    stop: bool,
}

type Shared = Arc<(Mutex<Orders>, Condvar)>;
type News = (IfIndex, PortNews);

/// The core's end of the thread, which there is from the first rules on.
#[derive(Debug)]
pub(super) struct Rules {
    shared: Shared,
    tell: mpsc::Sender<News>,
    news: mpsc::Receiver<News>,
    thread: Option<JoinHandle<()>>,
}

impl Default for Rules {
    fn default() -> Self {
        let (tell, news) = mpsc::channel(NEWS);
        Self { shared: Shared::default(), tell, news, thread: None }
    }
}

impl Rules {
    /// Gives a device these rules and no others; what came of it is among the news.
    pub(super) fn order(&mut self, port: IfIndex, device: String, rules: PortRules) {
        if self.thread.is_none() {
            let mut worker =
                Worker { filter: None, told: BTreeMap::new(), unsaid: Vec::new(), tell: self.tell.clone() };
            let orders = Arc::clone(&self.shared);
            let thread =
                std::thread::Builder::new().name("port-rules".into()).spawn(move || worker.run(&orders));
            match thread {
                Ok(thread) => self.thread = Some(thread),
                Err(e) => {
                    let _ = self.tell.try_send((port, PortNews::Refused(e.to_string())));
                    return;
                }
            }
        }
        let (orders, bell) = &*self.shared;
        orders.lock().unwrap_or_else(PoisonError::into_inner).ports.insert(port, (device, rules));
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

impl Drop for Rules {
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
    /// There while a device has rules.
    filter: Option<IngressRules>,
    /// What was last told of each.
    told: BTreeMap<IfIndex, PortDrops>,
    /// How orders ended, for which there was no room.
    unsaid: Vec<News>,
    tell: mpsc::Sender<News>,
}

impl Worker {
    fn run(&mut self, shared: &Shared) {
        let (orders, bell) = &**shared;
        let mut counted = Instant::now();
        loop {
            let ports = {
                let held = orders.lock().unwrap_or_else(PoisonError::into_inner);
                let nothing = |o: &mut Orders| o.ports.is_empty() && !o.stop;
                // Without rules there is nothing to count either.
                let mut held = if self.filter.is_some() || !self.unsaid.is_empty() {
                    bell.wait_timeout_while(held, EVERY.saturating_sub(counted.elapsed()), nothing)
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
            let wants: Vec<_> =
                ports.into_iter().map(|(port, (device, rules))| (port, device, rules)).collect();
            for some in wants.chunks(AT_ONCE) {
                self.obey(some);
            }
            if counted.elapsed() >= EVERY {
                counted = Instant::now();
                self.count();
            }
        }
    }

    fn obey(&mut self, wants: &[(IfIndex, String, PortRules)]) {
        if self.filter.is_none() {
            match IngressRules::install() {
                Ok(f) => self.filter = Some(f),
                Err(e) => {
                    let refused = wants.iter().filter(|(.., r)| !r.is_empty()).map(|(p, ..)| *p);
                    let news = refused.map(|p| (p, PortNews::Refused(way_out(&e)))).collect::<Vec<_>>();
                    self.say(news);
                    return;
                }
            }
        }
        let Some(f) = &mut self.filter else { return };
        let ended = f.set(wants);
        if f.is_empty() {
            self.filter = None;
        }
        for (port, ..) in wants {
            self.told.remove(port);
        }
        let news = ended.into_iter().map(|(port, done)| match done {
            Ok(()) => (port, PortNews::On),
            Err(e) => (port, PortNews::Refused(way_out(&e))),
        });
        self.say(news.collect());
    }

    /// How an order ended is told in any case: what is counted after it begins at 0.
    fn say(&mut self, news: Vec<News>) {
        self.unsaid.extend(news);
        while let Some(first) = self.unsaid.first() {
            if self.tell.try_send(first.clone()).is_err() {
                return;
            }
            self.unsaid.remove(0);
        }
    }

    fn count(&mut self) {
        self.say(Vec::new());
        if !self.unsaid.is_empty() {
            return;
        }
        let Some(drops) = self.filter.as_mut().and_then(|f| f.drops().ok()) else { return };
        for (port, n) in drops {
            if self.told.get(&port).copied().unwrap_or_default() != n
                && self.tell.try_send((port, PortNews::Dropped(n))).is_ok()
            {
                self.told.insert(port, n);
            }
        }
    }
}

fn way_out(e: &std::io::Error) -> String {
    format!(
        "{e}; load nf_tables with its netdev family, or set `tagged = \"transparent\"` and leave out `storm-limits`"
    )
}
