//! BFD towards the neighbours, on a thread of its own: a neighbour at 3 × 50 ms must not be declared dead, nor take us for
//! dead, because the core has ten thousand routes to look at. The core and the API send it orders, it tells the core news;
//! nobody holds a lock that it needs.
//!
//! | file | what it holds |
//! |---|---|
//! | `worker` | the thread: its loop, its priority |
//! | `sockets` | one socket per port and family to hear, one per session to speak |
//! | `on_link` | whether a neighbour is one hop away |
//! | `row` | what `show bfd` shows |

mod on_link;
mod row;
mod sockets;
mod worker;

pub use row::{BfdRow, BfdTable};

use evpn::node::{BfdNews, BfdWant};
use evpn::types::PeerId;
use rustix::event::{EventfdFlags, eventfd};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::task::{Context, Poll};
use std::thread::JoinHandle;
use tokio::sync::{mpsc, oneshot};
use worker::Worker;

/// Orders that may wait. The thread takes them in microseconds; a full queue means that it is gone.
const ORDERS: usize = 4096;
/// News that may wait for the core. More than that are told as one per neighbour, later.
const NEWS: usize = 256;

/// How a neighbour's session stands.
type News = (PeerId, BfdNews);

/// What the thread is to do.
#[derive(Debug)]
enum Order {
    /// A session is to be there.
    Set(PeerId, BfdWant),
    /// A session is switched off.
    Off(PeerId),
    /// Tell all.
    Show(oneshot::Sender<BfdTable>),
    /// End, after what was ordered before.
    Stop,
}

/// The way to the thread: a queue and a bell.
#[derive(Clone, Debug)]
struct Line {
    orders: SyncSender<Order>,
    bell: Arc<OwnedFd>,
}

impl Line {
    fn send(&self, order: Order) -> Result<(), TrySendError<Order>> {
        self.orders.try_send(order)?;
        // Cannot fail but when the counter is full, and then it rings anyway.
        let _ = rustix::io::write(&*self.bell, &1u64.to_ne_bytes());
        Ok(())
    }
}

/// For the API: asks the thread itself, past the core.
#[derive(Clone, Debug)]
pub struct Asker {
    line: Line,
    running: Arc<AtomicBool>,
}

impl Asker {
    /// All sessions; empty while none is configured, and when the thread has ended.
    pub async fn table(&self) -> BfdTable {
        let (reply, answer) = oneshot::channel();
        if !self.running.load(Ordering::Acquire) || self.line.send(Order::Show(reply)).is_err() {
            return BfdTable::default();
        }
        answer.await.unwrap_or_default()
    }
}

/// The core's end. The thread begins with the first session.
#[derive(Debug)]
pub(super) struct Bfd {
    line: Line,
    running: Arc<AtomicBool>,
    /// What the thread starts with.
    start: Option<(Receiver<Order>, mpsc::Sender<News>)>,
    news: mpsc::Receiver<News>,
    thread: Option<JoinHandle<()>>,
    seed: u64,
}

impl Bfd {
    /// No session yet. Discriminators and jitter come from `seed`.
    pub(super) fn new(seed: u64) -> io::Result<Self> {
        let (orders, waiting) = sync_channel(ORDERS);
        let (tell, news) = mpsc::channel(NEWS);
        let bell = Arc::new(eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?);
        Ok(Self {
            line: Line { orders, bell },
            running: Arc::default(),
            start: Some((waiting, tell)),
            news,
            thread: None,
            seed,
        })
    }

    /// For the API.
    pub(super) fn asker(&self) -> Asker {
        Asker { line: self.line.clone(), running: Arc::clone(&self.running) }
    }

    /// A session is to be there, or is switched off.
    pub(super) fn order(&mut self, peer: PeerId, want: Option<BfdWant>) {
        let order = match want {
            Some(want) => {
                self.begin();
                Order::Set(peer, want)
            }
            None if self.thread.is_none() => return,
            None => Order::Off(peer),
        };
        if self.line.send(order).is_err() {
            tracing::error!(peer = peer.0, "the BFD thread takes no orders");
        }
    }

    fn begin(&mut self) {
        let Some((orders, tell)) = self.start.take() else { return };
        let (bell, seed) = (Arc::clone(&self.line.bell), self.seed);
        let run = move || Worker::new(orders, bell, tell, seed).run();
        match std::thread::Builder::new().name("bfd".into()).spawn(run) {
            Ok(thread) => {
                self.thread = Some(thread);
                self.running.store(true, Ordering::Release);
            }
            Err(e) => tracing::error!(error = %e, "BFD does not run: no thread"),
        }
    }

    /// The next news, if there are any.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Option<News> {
        match self.news.poll_recv(cx) {
            Poll::Ready(news) => news,
            Poll::Pending => None,
        }
    }
}

impl Drop for Bfd {
    /// What was ordered is still carried out: the neighbours hear that we are switched off (BFD-09).
    fn drop(&mut self) {
        let Some(thread) = self.thread.take() else { return };
        if self.line.send(Order::Stop).is_ok() {
            let _ = thread.join();
        }
    }
}
