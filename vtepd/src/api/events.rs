//! `/v1/events`: history, then what happens, as server-sent events.

use super::core::{Core, EventLine, unix_ms};
use super::{ApiError, Parameters, json};
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::sse;
use axum::response::{IntoResponse, Response, Sse};
use evpn::node::{Command, Reply};
use futures_util::stream::{self, Stream};
use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::broadcast::{self, error::RecvError};

/// Watchers at a time; each costs its place in the stream.
const MAX_WATCHERS: usize = 64;
/// Events of one request to the core.
const SLICE: usize = 256;

#[derive(Debug, Eq, PartialEq)]
struct Options {
    after: u64,
    follow: bool,
    limit: usize,
}

fn options(parameters: &[(String, String)]) -> Result<Options, String> {
    let mut o = Options { after: 0, follow: true, limit: SLICE };
    for (key, value) in parameters {
        match key.as_str() {
            "after" => o.after = value.parse().map_err(|_| "after: must be the number of an event")?,
            "follow" => o.follow = value.parse().map_err(|_| "follow: must be `true` or `false`")?,
            "limit" => {
                o.limit = match value.parse() {
                    Ok(n) if (1..=SLICE).contains(&n) => n,
                    _ => return Err(format!("limit: must be between 1 and {SLICE}")),
                }
            }
            _ => return Err(format!("unknown parameter `{key}`; known: after, follow, limit")),
        }
    }
    Ok(o)
}

pub(super) async fn events(State(core): State<Core>, parameters: Parameters) -> Result<Response, ApiError> {
    let Query(parameters) = parameters.map_err(|e| ApiError::bad_request(e.body_text()))?;
    let o = options(&parameters).map_err(ApiError::bad_request)?;
    if !o.follow {
        let (lagged, events) = history(&core, o.after, o.limit).await?;
        let next = events.last().map(|e| e.n);
        let version = evpn::node::view::VERSION;
        let body =
            serde_json::json!({ "version": version, "lagged": lagged, "events": events, "next": next });
        return Ok(json(StatusCode::OK, &body));
    }
    if core.watchers() >= MAX_WATCHERS {
        return Err(ApiError::busy(format!("{MAX_WATCHERS} watchers are connected already")));
    }
    // Subscribed before the history is read, so that nothing falls between the two.
    let live = core.watch();
    let watcher = Watcher { core, live, last: o.after, ready: VecDeque::new(), caught_up: false };
    let stream = stream::unfold(watcher, |mut w| async move { w.next().await.map(|e| (e, w)) });
    Ok(sse_response(stream))
}

fn sse_response(stream: impl Stream<Item = Result<sse::Event, Infallible>> + Send + 'static) -> Response {
    let beat = sse::KeepAlive::new().interval(Duration::from_secs(10)).text("still here");
    Sse::new(stream).keep_alive(beat).into_response()
}

async fn history(core: &Core, after: u64, limit: usize) -> Result<(u64, Vec<EventLine>), ApiError> {
    match core.ask(Command::Events { after, limit }).await? {
        Reply::Events { lagged, events } => {
            let line = |(n, at, event)| EventLine { n, at, unix_ms: unix_ms(at), event };
            Ok((lagged, events.into_iter().map(line).collect()))
        }
        Reply::Error(text) => Err(ApiError::bad_request(text)),
        Reply::Page(_)
        | Reply::Move(_)
        | Reply::MoveRefused { .. }
        | Reply::Neighbor(_)
        | Reply::NeighborRefused { .. }
        | Reply::Told
        | Reply::Why(_)
        | Reply::Cleared(_) => Err(ApiError::bad_request("unexpected answer")),
    }
}

/// One connected watcher: first the history in slices, then the live stream.
struct Watcher {
    core: Core,
    live: broadcast::Receiver<Arc<EventLine>>,
    /// Number of the last event sent.
    last: u64,
    ready: VecDeque<sse::Event>,
    caught_up: bool,
}

impl Watcher {
    async fn next(&mut self) -> Option<Result<sse::Event, Infallible>> {
        loop {
            if let Some(e) = self.ready.pop_front() {
                return Some(Ok(e));
            }
            if !self.caught_up {
                self.read_history().await;
                continue;
            }
            match self.live.recv().await {
                Ok(line) => self.push(&line),
                Err(RecvError::Lagged(n)) => self.ready.push_back(lagged(n)),
                Err(RecvError::Closed) => return None,
            }
        }
    }

    async fn read_history(&mut self) {
        match history(&self.core, self.last, SLICE).await {
            Ok((lost, lines)) => {
                if lost > 0 {
                    self.ready.push_back(lagged(lost));
                }
                self.caught_up = lines.is_empty();
                for line in &lines {
                    self.push(line);
                }
            }
            Err(e) => {
                let body = serde_json::json!({ "error": e.text });
                self.ready.push_back(sse::Event::default().event("error").data(body.to_string()));
                self.caught_up = true;
            }
        }
    }

    fn push(&mut self, line: &EventLine) {
        if line.n <= self.last {
            return;
        }
        self.last = line.n;
        if let Ok(data) = serde_json::to_string(line) {
            self.ready.push_back(sse::Event::default().id(line.n.to_string()).event("event").data(data));
        }
    }
}

/// Tells a watcher that it lost events, instead of making the core wait for it.
fn lagged(n: u64) -> sse::Event {
    sse::Event::default().event("lagged").data(serde_json::json!({ "lagged": n }).to_string())
}
