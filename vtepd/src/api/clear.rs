//! `POST /v1/clear`: a duplicate is let go (EVPN-XMOB-17).
//!
//! ```json
//! {"vni": 100, "mac": "52:54:00:00:00:01"}
//! ```
//!
//! or with `ip` instead of `mac`. The answer is `{"cleared": "..."}` for people; 400 for a request that is wrong in
//! itself, 404 when there is no such duplicate.

use super::core::Core;
use super::{ApiError, json};
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::StatusCode;
use axum::response::Response;
use evpn::node::{About, Command, Reply};
use evpn::types::{Mac, Vni};
use serde::Deserialize;
use std::net::IpAddr;

/// Largest body.
pub(super) const MAX_BODY: usize = 1 << 10;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    vni: u64,
    mac: Option<String>,
    ip: Option<String>,
}

pub(super) async fn clear(
    State(core): State<Core>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, ApiError> {
    let body = body.map_err(|e| ApiError::new(e.status(), e.body_text()))?;
    let (vni, address) = parse(&body).map_err(ApiError::bad_request)?;
    match core.ask(Command::ClearDuplicate { vni, address }).await? {
        Reply::Cleared(text) => Ok(json(StatusCode::OK, &serde_json::json!({ "cleared": text }))),
        Reply::Error(text) => Err(ApiError::new(StatusCode::NOT_FOUND, text)),
        Reply::Page(_)
        | Reply::Events { .. }
        | Reply::Move(_)
        | Reply::MoveRefused { .. }
        | Reply::Why(_)
        | Reply::Neighbor(_)
        | Reply::NeighborRefused { .. }
        | Reply::Told => Err(ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "unexpected answer")),
    }
}

/// Reads a body, strictly.
fn parse(body: &[u8]) -> Result<(Vni, About), String> {
    let b: Body = serde_json::from_slice(body)
        .map_err(|e| format!("{e}; expected {{\"vni\": 100, \"mac\": \"...\"}}, or `ip` instead of `mac`"))?;
    let vni = u32::try_from(b.vni).ok().and_then(Vni::new);
    let vni = vni.ok_or_else(|| format!("vni: {} is not between 1 and 16777215", b.vni))?;
    let address = match (b.mac, b.ip) {
        (Some(mac), None) => About::Mac(mac.parse::<Mac>().map_err(|e| format!("mac: {e}"))?),
        (None, Some(ip)) => {
            About::Ip(ip.parse::<IpAddr>().map_err(|_| format!("ip: `{ip}` is not an IP address"))?)
        }
        (Some(_), Some(_)) | (None, None) => return Err("give either `mac` or `ip`".into()),
    };
    Ok((vni, address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_of_one_vni_is_read() {
        let read = |s: &str| parse(s.as_bytes());
        let vni = Vni::new(100).expect("valid");
        let mac = "52:54:00:00:00:01".parse().expect("valid");
        assert_eq!(read(r#"{"vni":100,"mac":"52:54:00:00:00:01"}"#), Ok((vni, About::Mac(mac))));
        let ip = "fd00::1".parse().expect("valid");
        assert_eq!(read(r#"{"vni":100,"ip":"fd00::1"}"#), Ok((vni, About::Ip(ip))));
        for (bad, part) in [
            ("", "expected {"),
            ("{}", "vni"),
            (r#"{"vni":100}"#, "either"),
            (r#"{"vni":100,"ip":"10.0.0.1","mac":"52:54:00:00:00:01"}"#, "either"),
            (r#"{"vni":0,"ip":"10.0.0.1"}"#, "vni: 0"),
            (r#"{"vni":4294967297,"ip":"10.0.0.1"}"#, "vni: 4294967297"),
            (r#"{"vni":100,"mac":"52:54"}"#, "mac: "),
            (r#"{"vni":100,"ip":"10.0.0.1/24"}"#, "ip: `10.0.0.1/24`"),
            (r#"{"vni":100,"ip":"10.0.0.1","all":true}"#, "unknown field `all`"),
        ] {
            let why = read(bad).expect_err(bad);
            assert!(why.contains(part), "{bad}: {why}");
        }
    }
}
