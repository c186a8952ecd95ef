//! `/v1/neighbors/{name}`: one neighbour in full, and what an operator does to it. The name is its address, or its
//! description.
//!
//! ```json
//! {"action": "shutdown", "message": "new line card"}
//! {"action": "refresh", "in": true, "out": false}
//! ```
//!
//! `start` takes nothing, `reset` a `message`; without `in` and `out` a refresh goes both ways. The answer is
//! `{"address": "...", "state": "...", "did": "..."}`; 400 for a request that is wrong in itself, 404 for a neighbour
//! that is not configured, 409 for what is not possible now.

use super::core::Core;
use super::{ApiError, json};
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use evpn::node::{Command, NeighborAction, NeighborReply, NeighborRequest, Reply};
use serde::Deserialize;

/// Largest body.
pub(super) const MAX_BODY: usize = 2 << 10;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    action: String,
    message: Option<String>,
    #[serde(rename = "in")]
    inbound: Option<bool>,
    #[serde(rename = "out")]
    outbound: Option<bool>,
}

pub(super) async fn show(State(core): State<Core>, Path(name): Path<String>) -> Result<Response, ApiError> {
    ask(&core, name, NeighborAction::Show).await
}

pub(super) async fn act(
    State(core): State<Core>,
    Path(name): Path<String>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, ApiError> {
    let body = body.map_err(|e| ApiError::new(e.status(), e.body_text()))?;
    let action = parse(&body).map_err(ApiError::bad_request)?;
    ask(&core, name, action).await
}

async fn ask(core: &Core, name: String, action: NeighborAction) -> Result<Response, ApiError> {
    match core.ask(Command::Neighbor(NeighborRequest { name, action })).await? {
        Reply::Neighbor(NeighborReply::Detail(detail)) => Ok(json(StatusCode::OK, &detail)),
        Reply::Neighbor(NeighborReply::Done { address, state, did }) => {
            let done = serde_json::json!({ "address": address, "state": state, "did": did });
            Ok(json(StatusCode::OK, &done))
        }
        Reply::NeighborRefused { unknown: true, text } => Err(ApiError::new(StatusCode::NOT_FOUND, text)),
        Reply::NeighborRefused { unknown: false, text } => Err(ApiError::new(StatusCode::CONFLICT, text)),
        Reply::Page(_)
        | Reply::Events { .. }
        | Reply::Move(_)
        | Reply::MoveRefused { .. }
        | Reply::Why(_)
        | Reply::Told
        | Reply::Cleared(_)
        | Reply::Error(_) => Err(ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "unexpected answer")),
    }
}

/// Reads a body, strictly.
fn parse(body: &[u8]) -> Result<NeighborAction, String> {
    let b: Body = serde_json::from_slice(body)
        .map_err(|e| format!("{e}; expected {{\"action\": \"shutdown\", \"message\": \"...\"}}"))?;
    let takes = |message: bool, ways: bool| {
        if b.message.is_some() && !message {
            return Err(format!("message: {} takes none", b.action));
        }
        if (b.inbound.is_some() || b.outbound.is_some()) && !ways {
            return Err(format!("in, out: {} takes none", b.action));
        }
        Ok(b.message.clone().unwrap_or_default())
    };
    match b.action.as_str() {
        "shutdown" => takes(true, false).map(|message| NeighborAction::Shutdown { message }),
        "reset" => takes(true, false).map(|message| NeighborAction::Reset { message }),
        "start" => takes(false, false).map(|_| NeighborAction::Start),
        "refresh" => {
            takes(false, true)?;
            let both = b.inbound.is_none() && b.outbound.is_none();
            let (inbound, outbound) = (b.inbound.unwrap_or(both), b.outbound.unwrap_or(both));
            if !inbound && !outbound {
                return Err("in, out: a refresh goes at least one way".into());
            }
            Ok(NeighborAction::Refresh { inbound, outbound })
        }
        other => Err(format!("action: `{other}` is not one of shutdown, start, reset, refresh")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_action_is_read_and_what_it_does_not_take_is_refused() {
        let read = |s: &str| parse(s.as_bytes());
        let text = |s: &str| s.to_owned();
        assert_eq!(
            read(r#"{"action":"shutdown","message":"x"}"#),
            Ok(NeighborAction::Shutdown { message: text("x") })
        );
        assert_eq!(read(r#"{"action":"reset"}"#), Ok(NeighborAction::Reset { message: text("") }));
        assert_eq!(read(r#"{"action":"start"}"#), Ok(NeighborAction::Start));
        for (body, inbound, outbound) in [
            (r#"{"action":"refresh"}"#, true, true),
            (r#"{"action":"refresh","in":true}"#, true, false),
            (r#"{"action":"refresh","out":true}"#, false, true),
        ] {
            assert_eq!(read(body), Ok(NeighborAction::Refresh { inbound, outbound }), "{body}");
        }
        for (bad, part) in [
            ("", "expected {"),
            ("{}", "action"),
            (r#"{"action":"stop"}"#, "`stop` is not one of"),
            (r#"{"action":"start","message":"x"}"#, "message: start takes none"),
            (r#"{"action":"reset","in":true}"#, "in, out: reset takes none"),
            (r#"{"action":"refresh","in":false}"#, "at least one way"),
            (r#"{"action":"start","now":true}"#, "unknown field `now`"),
        ] {
            let why = read(bad).expect_err(bad);
            assert!(why.contains(part), "{bad}: {why}");
        }
    }
}
