//! A thread that changes what ports let in: writing filters takes the kernel milliseconds, for which the core does not
//! wait. Of what is ordered for a port, only what it comes to waits for the thread; what came of it is told in any case.

use evpn::types::IfIndex;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// Between two reports of what was dropped.
const EVERY: Duration = Duration::from_secs(1);
/// News that may wait for the core; the thread keeps what does not fit.
const NEWS: usize = 1024;

/// What such a thread does.
pub(super) trait Job: Default + Send + 'static {
    /// The thread's.
    const NAME: &'static str;
    /// What is to become of a port, since the thread last looked.
    type Order: Default + Send;
    /// What is told of a port.
    type News: Send;

    /// Carries out what was ordered. How each ended is to be told.
    fn obey(&mut self, orders: BTreeMap<IfIndex, Self::Order>, out: &mut Outbox<Self::News>);
    /// Tells what was dropped.
    fn count(&mut self, out: &mut Outbox<Self::News>);
    /// Whether there is nothing to count.
    fn is_idle(&self) -> bool;
    /// The news that an order could not be carried out.
    fn refused(e: &io::Error) -> Self::News;
}

/// News on the way to the core.
#[derive(Debug)]
pub(super) struct Outbox<N> {
    unsaid: VecDeque<(IfIndex, N)>,
    tell: mpsc::Sender<(IfIndex, N)>,
}

impl<N> Outbox<N> {
    /// Told in any case, and in order.
    pub(super) fn say(&mut self, port: IfIndex, news: N) {
        self.unsaid.push_back((port, news));
        self.send();
    }

    /// Told if there is room. Returns whether there was.
    pub(super) fn may_say(&mut self, port: IfIndex, news: N) -> bool {
        self.unsaid.is_empty() && self.tell.try_send((port, news)).is_ok()
    }

    fn send(&mut self) {
        while !self.unsaid.is_empty() {
            let Ok(room) = self.tell.try_reserve() else { return };
            let Some(first) = self.unsaid.pop_front() else { return };
            room.send(first);
        }
    }
}

/// What each port is to become.
#[derive(Debug)]
struct Orders<O> {
    ports: BTreeMap<IfIndex, O>,
    stop: bool,
}

/// With the bell that wakes the thread.
#[derive(Debug)]
struct Desk<O> {
    orders: Mutex<Orders<O>>,
    bell: Condvar,
}

impl<O> Desk<O> {
    fn lock(&self) -> MutexGuard<'_, Orders<O>> {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The core's end of the thread, which there is from the first order on.
#[derive(Debug)]
pub(super) struct Worker<J: Job> {
    desk: Arc<Desk<J::Order>>,
    tell: mpsc::Sender<(IfIndex, J::News)>,
    news: mpsc::Receiver<(IfIndex, J::News)>,
    thread: Option<JoinHandle<()>>,
}

impl<J: Job> Default for Worker<J> {
    fn default() -> Self {
        let (tell, news) = mpsc::channel(NEWS);
        let orders = Mutex::new(Orders { ports: BTreeMap::new(), stop: false });
        Self { desk: Arc::new(Desk { orders, bell: Condvar::new() }), tell, news, thread: None }
    }
}

impl<J: Job> Worker<J> {
    /// Changes what is ordered for a port; what came of it is among the news.
    pub(super) fn order(&mut self, port: IfIndex, change: impl FnOnce(&mut J::Order)) {
        if self.thread.is_none() {
            let out = Outbox { unsaid: VecDeque::new(), tell: self.tell.clone() };
            let desk = Arc::clone(&self.desk);
            let name = J::NAME.to_string();
            match std::thread::Builder::new().name(name).spawn(move || run(&desk, &mut J::default(), out)) {
                Ok(thread) => self.thread = Some(thread),
                Err(e) => {
                    let _ = self.tell.try_send((port, J::refused(&e)));
                    return;
                }
            }
        }
        change(self.desk.lock().ports.entry(port).or_default());
        self.desk.bell.notify_one();
    }

    /// The next news, if there are any.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Option<(IfIndex, J::News)> {
        match self.news.poll_recv(cx) {
            Poll::Ready(news) => news,
            Poll::Pending => None,
        }
    }
}

impl<J: Job> Drop for Worker<J> {
    fn drop(&mut self) {
        self.desk.lock().stop = true;
        self.desk.bell.notify_one();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn run<J: Job>(desk: &Desk<J::Order>, job: &mut J, mut out: Outbox<J::News>) {
    let mut counted = Instant::now();
    loop {
        let ports = {
            let held = desk.lock();
            let nothing = |o: &mut Orders<J::Order>| o.ports.is_empty() && !o.stop;
            let mut held = if job.is_idle() && out.unsaid.is_empty() {
                desk.bell.wait_while(held, nothing).unwrap_or_else(PoisonError::into_inner)
            } else {
                let wait = EVERY.saturating_sub(counted.elapsed());
                let woken = desk.bell.wait_timeout_while(held, wait, nothing);
                woken.unwrap_or_else(PoisonError::into_inner).0
            };
            if held.stop {
                return;
            }
            std::mem::take(&mut held.ports)
        };
        if !ports.is_empty() {
            job.obey(ports, &mut out);
        }
        if counted.elapsed() >= EVERY {
            counted = Instant::now();
            out.send();
            // What is counted after an order begins at 0: not before that is told.
            if out.unsaid.is_empty() {
                job.count(&mut out);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::Waker;

    /// Says everything that is ordered back, and counts for ever.
    #[derive(Default)]
    struct Echo;

    impl Job for Echo {
        const NAME: &'static str = "echo";
        type Order = Vec<u32>;
        type News = Vec<u32>;

        fn obey(&mut self, orders: BTreeMap<IfIndex, Vec<u32>>, out: &mut Outbox<Vec<u32>>) {
            for (port, n) in orders {
                out.say(port, n);
            }
        }

        fn count(&mut self, out: &mut Outbox<Vec<u32>>) {
            out.may_say(IfIndex(0), Vec::new());
        }

        fn is_idle(&self) -> bool {
            false
        }

        fn refused(_: &io::Error) -> Vec<u32> {
            Vec::new()
        }
    }

    /// A core that does not read for long misses no word about an order, and the order of words about a port stays.
    #[test]
    fn what_came_of_an_order_is_told_although_the_core_reads_late() {
        let ports = 3 * NEWS as u32;
        let mut worker = Worker::<Echo>::default();
        for n in 0..2 {
            (1..=ports).for_each(|port| worker.order(IfIndex(port), |o| o.push(n)));
        }
        let mut told: BTreeMap<IfIndex, Vec<u32>> = BTreeMap::new();
        let mut cx = Context::from_waker(Waker::noop());
        let deadline = Instant::now() + Duration::from_secs(60);
        while told.values().flatten().count() < 2 * ports as usize {
            assert!(Instant::now() < deadline, "{} of {}", told.values().flatten().count(), 2 * ports);
            match worker.poll(&mut cx) {
                Some((IfIndex(0), _)) => {}
                Some((port, n)) => told.entry(port).or_default().extend(n),
                None => std::thread::yield_now(),
            }
        }
        assert!(told.values().all(|n| *n == [0, 1]));
    }
}
