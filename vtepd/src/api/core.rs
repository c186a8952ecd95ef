//! What the API's threads know of the core: a bounded queue of requests and a stream of events.

use crate::driver::bfd::{Asker, BfdTable};
use evpn::node::{Command, Event, Reply};
use evpn::types::Time;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{broadcast, mpsc, oneshot};

/// Requests that may wait for the core. More are refused with 503, so that a flood of `show` never delays a move.
pub const REQUEST_QUEUE: usize = 64;
/// Events that a watcher may be behind before it loses some and is told so (`lagged`). A rack of 10,000 VMs that
/// moves at once fits.
pub const EVENT_QUEUE: usize = 16_384;
/// The core answers within microseconds; when it does not, it is in trouble and the caller must know.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// A request on its way to the core.
#[derive(Debug)]
pub struct Request {
    /// What is asked.
    pub command: Command,
    /// Where the answer goes.
    pub reply: oneshot::Sender<Reply>,
}

/// An event with its number and time, as `watch` shows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EventLine {
    /// Running number from 1.
    pub n: u64,
    /// Boot clock, nanoseconds.
    pub at: Time,
    /// Milliseconds since 1970.
    pub unix_ms: u64,
    /// The event.
    #[serde(flatten)]
    pub event: Event,
}

/// The API's side of the core. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Core {
    requests: mpsc::Sender<Request>,
    events: broadcast::Sender<Arc<EventLine>>,
    bfd: Option<Asker>,
}

/// The core's side of the API.
#[derive(Debug)]
pub struct CoreEnd {
    /// Requests that wait.
    pub requests: mpsc::Receiver<Request>,
    /// Where events go.
    pub events: broadcast::Sender<Arc<EventLine>>,
}

/// Why the core gave no answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum CoreError {
    /// The queue is full.
    #[error("vtepd is busy; try again")]
    Busy,
    /// The core stopped, or is stopping.
    #[error("vtepd is stopping")]
    Stopped,
    /// No answer in time.
    #[error("vtepd did not answer within 5 seconds")]
    Late,
}

/// Both ends.
pub fn pair() -> (Core, CoreEnd) {
    let (requests, waiting) = mpsc::channel(REQUEST_QUEUE);
    let (events, _) = broadcast::channel(EVENT_QUEUE);
    (Core { requests, events: events.clone(), bfd: None }, CoreEnd { requests: waiting, events })
}

impl Core {
    /// Asks. The answer is to be awaited with [`Core::answer`]; what is asked first is done first.
    ///
    /// # Errors
    /// The queue is full, or the core is gone.
    pub fn send(&self, command: Command) -> Result<oneshot::Receiver<Reply>, CoreError> {
        let (reply, answer) = oneshot::channel();
        self.requests.try_send(Request { command, reply }).map_err(|e| match e {
            mpsc::error::TrySendError::Full(_) => CoreError::Busy,
            mpsc::error::TrySendError::Closed(_) => CoreError::Stopped,
        })?;
        Ok(answer)
    }

    /// The same, with the way to the BFD thread.
    #[must_use]
    pub fn with_bfd(self, asker: Asker) -> Self {
        Self { bfd: Some(asker), ..self }
    }

    /// BFD sessions, as their thread has them now.
    pub async fn bfd(&self) -> BfdTable {
        match &self.bfd {
            Some(asker) => asker.table().await,
            None => BfdTable::default(),
        }
    }

    /// Waits for an answer.
    ///
    /// # Errors
    /// The core is gone, or it does not answer.
    pub async fn answer(answer: oneshot::Receiver<Reply>) -> Result<Reply, CoreError> {
        match tokio::time::timeout(ANSWER_LIMIT, answer).await {
            Ok(Ok(reply)) => Ok(reply),
            Ok(Err(_)) => Err(CoreError::Stopped),
            Err(_) => Err(CoreError::Late),
        }
    }

    /// Asks and waits for the answer.
    ///
    /// # Errors
    /// The queue is full, or the core is gone, or it does not answer.
    pub async fn ask(&self, command: Command) -> Result<Reply, CoreError> {
        Self::answer(self.send(command)?).await
    }

    /// Events from now on.
    pub fn watch(&self) -> broadcast::Receiver<Arc<EventLine>> {
        self.events.subscribe()
    }

    /// How many watch.
    pub fn watchers(&self) -> usize {
        self.events.receiver_count()
    }
}

/// Milliseconds since 1970 of a boot-clock time.
pub fn unix_ms(at: Time) -> u64 {
    let wall = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
    let wall_ns = wall.tv_sec as u64 * 1_000_000_000 + wall.tv_nsec as u64;
    wall_ns.saturating_sub(crate::driver::clock::now().since(at).0) / 1_000_000
}
