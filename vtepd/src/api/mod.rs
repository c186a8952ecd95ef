//! HTTP/1.1 + JSON under `/v1` on a unix socket. Runs on the side thread; the core only sees [`core::Request`]s.
//!
//! | path | answer |
//! |---|---|
//! | `/v1/status`, `/v1/neighbors`, `/v1/vnis`, `/v1/macs`, `/v1/hosts`, `/v1/routes`, `/v1/moves`, `/v1/duplicates`, `/v1/kernel` | one slice of a table ([`evpn::node::view::Page`]); `next` is the `cursor` of the next one |
//! | `/v1/why/mac/{vni}/{mac}`, `/v1/why/ip/{vni}/{ip}` | who has it, by which rule, and what the kernel holds ([`evpn::node::view::WhyView`]) |
//! | `/v1/neighbors/{name}` | one neighbour in full ([`evpn::node::view::NeighborDetail`]); `POST`: what an operator does to it |
//! | `POST /v1/clear` | a duplicate is let go |
//! | `POST /v1/move` | a step of a prepared move ([`evpn::node::MoveReply`]) |
//! | `/v1/hypervisors` | guests, as QEMU and libvirt tell them: `{"rows": [...]}` |
//! | `/v1/bfd` | BFD sessions, as their thread has them: `{"rows": [...], "dropped": {...}}` |
//! | `/v1/events` | server-sent events, history first; with `follow=false` the history as JSON |
//!
//! Errors are `{"error": "..."}` with 400, 404, 405, 409, 413, 503 or 504.

mod clear;
pub mod core;
mod events;
pub mod listener;
mod moves;
mod neighbors;
pub mod query;
pub mod socket;

use crate::api::core::{Core, CoreError};
use crate::hypervisor::board::Board;
use axum::Router;
use axum::extract::rejection::QueryRejection;
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use evpn::node::{Command, Reply};

/// Parameters of a request in their order.
pub(crate) type Parameters = Result<Query<Vec<(String, String)>>, QueryRejection>;

/// An answer that is no success.
#[derive(Debug)]
pub struct ApiError {
    status: StatusCode,
    text: String,
}

impl ApiError {
    fn new(status: StatusCode, text: impl Into<String>) -> Self {
        Self { status, text: text.into() }
    }
    pub(crate) fn bad_request(text: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, text)
    }
    pub(crate) fn busy(text: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, text)
    }
}

impl From<CoreError> for ApiError {
    fn from(e: CoreError) -> Self {
        Self::busy(e.to_string())
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = json(self.status, &serde_json::json!({ "error": self.text }));
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            return ([(header::RETRY_AFTER, "1")], body).into_response();
        }
        body
    }
}

/// A JSON answer with a newline at its end, for people with curl.
pub(crate) fn json(status: StatusCode, value: &impl serde::Serialize) -> Response {
    match serde_json::to_string(value) {
        Ok(mut text) => {
            text.push('\n');
            (status, [(header::CONTENT_TYPE, "application/json")], text).into_response()
        }
        Err(e) => (StatusCode::INTERNAL_SERVER_ERROR, e.to_string()).into_response(),
    }
}

/// All routes.
pub fn router(core: Core, board: Board) -> Router {
    let at_stop = board.libvirt_at_stop();
    let step = move |state, body| moves::step(state, at_stop, body);
    Router::new()
        .route("/v1/hypervisors", get(move || async move { hypervisors(&board) }))
        .route("/v1/bfd", get(bfd))
        .route("/v1/events", get(events::events))
        .route("/v1/why/{kind}/{vni}/{address}", get(why))
        .route("/v1/move", post(step).layer(DefaultBodyLimit::max(moves::MAX_BODY)))
        .route("/v1/clear", post(clear::clear).layer(DefaultBodyLimit::max(clear::MAX_BODY)))
        .route(
            "/v1/neighbors/{name}",
            get(neighbors::show).post(neighbors::act).layer(DefaultBodyLimit::max(neighbors::MAX_BODY)),
        )
        .route("/v1/{table}", get(show))
        .fallback(|| async { ApiError::new(StatusCode::NOT_FOUND, "no such path; everything is under /v1") })
        .method_not_allowed_fallback(|| async {
            ApiError::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "only GET is understood here, and only POST at /v1/move and /v1/clear; both at /v1/neighbors/NAME",
            )
        })
        .with_state(core)
}

fn hypervisors(board: &Board) -> Response {
    let rows = board.rows();
    json(StatusCode::OK, &serde_json::json!({ "rows": rows }))
}

async fn bfd(State(core): State<Core>) -> Response {
    json(StatusCode::OK, &core.bfd().await)
}

async fn show(
    State(core): State<Core>,
    Path(table): Path<String>,
    parameters: Parameters,
) -> Result<Response, ApiError> {
    let Some(show) = query::table(&table) else {
        return Err(ApiError::new(StatusCode::NOT_FOUND, format!("no table `{table}`")));
    };
    let Query(parameters) = parameters.map_err(|e| ApiError::bad_request(e.body_text()))?;
    let query = query::parse(show, &parameters).map_err(ApiError::bad_request)?;
    match core.ask(Command::Show(query)).await? {
        Reply::Page(page) => Ok(json(StatusCode::OK, &page)),
        Reply::Error(text) => Err(ApiError::bad_request(text)),
        Reply::Events { .. }
        | Reply::Move(_)
        | Reply::MoveRefused { .. }
        | Reply::Neighbor(_)
        | Reply::NeighborRefused { .. }
        | Reply::Told
        | Reply::Why(_)
        | Reply::Cleared(_) => Err(ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "unexpected answer")),
    }
}

async fn why(
    State(core): State<Core>,
    Path((kind, vni, address)): Path<(String, String, String)>,
) -> Result<Response, ApiError> {
    let Some(request) = query::why(&kind, &vni, &address).transpose() else {
        return Err(ApiError::new(StatusCode::NOT_FOUND, format!("no `why/{kind}`; known: mac, ip")));
    };
    match core.ask(Command::Why(request.map_err(ApiError::bad_request)?)).await? {
        Reply::Why(view) => Ok(json(StatusCode::OK, &view)),
        Reply::Error(text) => Err(ApiError::new(StatusCode::NOT_FOUND, text)),
        Reply::Page(_)
        | Reply::Events { .. }
        | Reply::Move(_)
        | Reply::MoveRefused { .. }
        | Reply::Neighbor(_)
        | Reply::NeighborRefused { .. }
        | Reply::Told
        | Reply::Cleared(_) => Err(ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "unexpected answer")),
    }
}

/// Serves until `stop` resolves.
///
/// # Errors
/// The listener failed.
pub async fn serve(
    listener: tokio::net::UnixListener,
    core: Core,
    board: Board,
    stop: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let app = router(core, board);
    let listener = listener::Limited::new(listener, listener::MAX_CONNECTIONS);
    let server = axum::serve(listener, app);
    tokio::select! {
        r = server => r,
        () = stop => Ok(()),
    }
}
