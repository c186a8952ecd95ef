//! `POST /v1/move`: a step of a prepared move, from a hypervisor (MIG-HOT-03).
//!
//! ```json
//! {"step": "activate", "mac": "52:54:00:00:00:01", "vni": 100, "port": "vnet3", "ips": ["10.1.0.1"], "timeout": "30s"}
//! ```
//!
//! What is not understood is refused, not ignored. The answer is [`evpn::node::MoveReply`]; 400 for a request that
//! is wrong in itself, 409 for one that is not possible now, 503 when too much is under way, 504 when the kernel
//! did not take the row in time, or when not one established neighbour took the routes in time (then with the
//! answer all the same: the move is active).

use super::core::Core;
use super::{ApiError, json};
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::StatusCode;
use axum::response::Response;
use evpn::node::{Command, MoveRequest, MoveStep, Refusal, Reply, Requester};
use evpn::types::{Mac, Span, Vni};
use serde::Deserialize;
use serde_json::Value;
use std::net::IpAddr;

/// Largest body; the largest that makes sense has 64 addresses.
pub(super) const MAX_BODY: usize = 16 << 10;
/// Most addresses of a guest.
const MAX_IPS: usize = 64;
/// Longest timeout, as in the configuration.
const MAX_TIMEOUT: Span = Span::secs(3600);

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    step: String,
    mac: String,
    vni: Option<u64>,
    port: Option<String>,
    #[serde(default)]
    ips: Vec<String>,
    timeout: Option<Value>,
    by: Option<String>,
    #[serde(rename = "at-stop", default)]
    at_stop: bool,
}

pub(super) async fn step(
    State(core): State<Core>,
    libvirt_at_stop: bool,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, ApiError> {
    let body = body.map_err(|e| match e.status() {
        StatusCode::PAYLOAD_TOO_LARGE => {
            ApiError::new(e.status(), format!("a step of a move has at most {MAX_BODY} octets"))
        }
        _ => ApiError::bad_request(e.body_text()),
    })?;
    let mut request = parse(&body).map_err(ApiError::bad_request)?;
    if request.by == Requester::Libvirt && matches!(request.step, MoveStep::Prepare { .. }) {
        request.at_stop |= libvirt_at_stop;
    }
    match core.ask(Command::Move(request)).await? {
        Reply::Move(reply) => {
            let nobody = reply.sent_to.is_empty() && !reply.lagging.is_empty();
            Ok(json(if nobody { StatusCode::GATEWAY_TIMEOUT } else { StatusCode::OK }, &reply))
        }
        Reply::MoveRefused { refusal, text } => Err(ApiError::new(status_of(refusal), text)),
        Reply::Error(text) => Err(ApiError::bad_request(text)),
        Reply::Page(_)
        | Reply::Events { .. }
        | Reply::Why(_)
        | Reply::Neighbor(_)
        | Reply::NeighborRefused { .. }
        | Reply::Told
        | Reply::Cleared(_) => Err(ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "unexpected answer")),
    }
}

fn status_of(refusal: Refusal) -> StatusCode {
    match refusal {
        Refusal::Invalid => StatusCode::BAD_REQUEST,
        Refusal::Conflict => StatusCode::CONFLICT,
        Refusal::Busy => StatusCode::SERVICE_UNAVAILABLE,
        Refusal::Late => StatusCode::GATEWAY_TIMEOUT,
    }
}

/// Reads a body, strictly.
fn parse(body: &[u8]) -> Result<MoveRequest, String> {
    if body.iter().all(u8::is_ascii_whitespace) {
        return Err(
            "a step of a move is a JSON object: {\"step\": \"prepare\", \"mac\": \"...\", \"port\": \"...\"}"
                .into(),
        );
    }
    let b: Body = serde_json::from_slice(body).map_err(|e| e.to_string())?;
    let mac: Mac = b.mac.parse().map_err(|e| format!("mac: {e}"))?;
    let vni = b.vni.map(vni).transpose()?;
    if let Some(port) = &b.port {
        check_port(port)?;
    }
    if b.ips.len() > MAX_IPS {
        return Err(format!("ips: {} addresses, at most {MAX_IPS} are taken", b.ips.len()));
    }
    let ip = |s: &String| s.parse::<IpAddr>().map_err(|_| format!("ips: `{s}` is not an IP address"));
    let ips = b.ips.iter().map(ip).collect::<Result<Vec<_>, _>>()?;
    let timeout = b.timeout.as_ref().map(timeout).transpose()?;
    let step = match b.step.as_str() {
        "prepare" => {
            let port = b.port.ok_or("port: prepare needs the guest's port on this host")?;
            MoveStep::Prepare { port, timeout }
        }
        "activate" | "abort" if b.at_stop => return Err(format!("at-stop: {} takes none", b.step)),
        "activate" => MoveStep::Activate { port: b.port, timeout },
        "abort" | "release" if b.port.is_some() => return Err(format!("port: {} takes none", b.step)),
        "abort" | "release" if !ips.is_empty() => return Err(format!("ips: {} takes none", b.step)),
        "abort" if timeout.is_some() => return Err("timeout: abort takes none".into()),
        "abort" => MoveStep::Abort,
        "release" => MoveStep::Release { timeout },
        other => return Err(format!("step: `{other}` is not one of prepare, activate, abort, release")),
    };
    let by = match b.by.as_deref() {
        None | Some("api") => Requester::Api,
        Some("qmp") => Requester::Qmp,
        Some("libvirt") => Requester::Libvirt,
        Some(other) => return Err(format!("by: `{other}` is not one of api, qmp, libvirt")),
    };
    Ok(MoveRequest { vni, mac, ips, step, by, at_stop: b.at_stop })
}

fn vni(n: u64) -> Result<Vni, String> {
    let vni = u32::try_from(n).ok().and_then(Vni::new);
    vni.ok_or_else(|| format!("vni: {n} is not between 1 and 16777215"))
}

/// As the kernel has them.
fn check_port(port: &str) -> Result<(), String> {
    let odd = |c: char| c == '/' || c.is_whitespace() || c.is_control();
    if port.is_empty() || port.len() > 15 || port.contains(odd) {
        return Err(format!(
            "port: {port:?} cannot be the name of a device (1 to 15 octets, no `/`, no space)"
        ));
    }
    Ok(())
}

fn timeout(v: &Value) -> Result<Span, String> {
    let ns = match v {
        Value::Number(n) => n.as_u64().and_then(|n| n.checked_mul(1_000_000_000)),
        Value::String(s) => crate::config::walk::parse_duration(s),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    };
    match ns.map(Span) {
        Some(t) if t > Span::ZERO && t <= MAX_TIMEOUT => Ok(t),
        _ => Err(format!("timeout: {v} is not a length of time up to 3600 seconds (30, \"500ms\", \"2m\")")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_is_read() {
        let full = br#"{"step":"prepare","mac":"52:54:00:00:00:01","vni":100,"port":"p1","ips":["10.1.0.1","fd00::1"],"timeout":"500ms","by":"libvirt"}"#;
        let r = parse(full).expect("valid");
        assert_eq!(r.vni, Vni::new(100));
        assert_eq!(r.ips.len(), 2);
        assert_eq!(r.by, Requester::Libvirt);
        let step = MoveStep::Prepare { port: "p1".into(), timeout: Some(Span::millis(500)) };
        assert_eq!(r.step, step);
        assert!(!r.at_stop);
        for step in [
            &br#"{"step":"prepare","mac":"52:54:00:00:00:01","port":"p1","at-stop":true}"#[..],
            br#"{"step":"release","mac":"52:54:00:00:00:01","at-stop":true}"#,
        ] {
            assert!(parse(step).expect("valid").at_stop);
        }
        let activate = parse(br#"{"step":"activate","mac":"52:54:00:00:00:01","timeout":3}"#).expect("valid");
        assert_eq!(activate.step, MoveStep::Activate { port: None, timeout: Some(Span::secs(3)) });
        let abort = parse(br#"{"step":"abort","mac":"52:54:00:00:00:01"}"#).expect("valid");
        assert_eq!((abort.step, abort.by), (MoveStep::Abort, Requester::Api));
        let release =
            parse(br#"{"step":"release","mac":"52:54:00:00:00:01","timeout":"1h"}"#).expect("valid");
        assert_eq!(release.step, MoveStep::Release { timeout: Some(Span::secs(3600)) });
    }

    #[test]
    fn what_is_not_understood_is_refused_and_named() {
        let many = format!(
            r#"{{"step":"activate","mac":"52:54:00:00:00:01","ips":[{}]}}"#,
            vec!["\"10.0.0.1\""; 65].join(",")
        );
        let m = "\"mac\":\"52:54:00:00:00:01\"";
        for (body, part) in [
            (String::new(), "JSON object"),
            ("null".into(), "invalid type"),
            ("{".into(), "EOF"),
            ("{}".into(), "missing field `step`"),
            (format!(r#"{{"step":"abort",{m},"force":true}}"#), "unknown field `force`"),
            (format!(r#"{{"step":"abort",{m},{m}}}"#), "duplicate field `mac`"),
            (r#"{"step":"abort","mac":"52:54"}"#.into(), "mac: "),
            (format!(r#"{{"step":"abort",{m},"vni":0}}"#), "vni: 0"),
            (format!(r#"{{"step":"abort",{m},"vni":16777216}}"#), "vni: 16777216"),
            (format!(r#"{{"step":"abort",{m},"vni":-1}}"#), "-1"),
            (format!(r#"{{"step":"prepare",{m}}}"#), "port: prepare needs"),
            (format!(r#"{{"step":"prepare",{m},"port":""}}"#), "port: \"\""),
            (format!(r#"{{"step":"prepare",{m},"port":"a/b"}}"#), "port: \"a/b\""),
            (format!(r#"{{"step":"prepare",{m},"port":"abcdefghijklmnop"}}"#), "1 to 15"),
            (format!(r#"{{"step":"release",{m},"port":"p1"}}"#), "port: release takes none"),
            (format!(r#"{{"step":"abort",{m},"ips":["10.0.0.1"]}}"#), "ips: abort takes none"),
            (format!(r#"{{"step":"abort",{m},"timeout":1}}"#), "timeout: abort takes none"),
            (format!(r#"{{"step":"activate",{m},"ips":["10.0.0.1/24"]}}"#), "ips: `10.0.0.1/24`"),
            (many, "at most 64"),
            (format!(r#"{{"step":"release",{m},"timeout":0}}"#), "timeout: 0"),
            (format!(r#"{{"step":"release",{m},"timeout":"3601s"}}"#), "up to 3600"),
            (format!(r#"{{"step":"release",{m},"timeout":"soon"}}"#), "timeout: \"soon\""),
            (format!(r#"{{"step":"release",{m},"timeout":18446744073709551615}}"#), "up to 3600"),
            (format!(r#"{{"step":"commit",{m}}}"#), "prepare, activate, abort, release"),
            (format!(r#"{{"step":"abort",{m},"by":"me"}}"#), "by: `me`"),
        ] {
            let why = parse(body.as_bytes()).expect_err(&body);
            assert!(why.contains(part), "{body}: {why}");
        }
        assert!(parse(b"\xff\xfe").is_err());
    }
}
