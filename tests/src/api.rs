//! HTTP requests on a daemon's socket, without its own client in between.

use serde_json::Value;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// Asks and gives back the status and the body as JSON.
///
/// # Errors
/// The socket does not answer, or not in HTTP with JSON.
pub fn request(
    socket: &Path,
    method: &str,
    path: &str,
    body: Option<&Value>,
) -> Result<(u16, Value), String> {
    let at = |e: std::io::Error| format!("{method} {path} at {}: {e}", socket.display());
    let mut s = UnixStream::connect(socket).map_err(at)?;
    s.set_read_timeout(Some(Duration::from_secs(30))).map_err(at)?;
    let text = body.map(Value::to_string).unwrap_or_default();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: vtepd\r\nConnection: close\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{text}",
        text.len()
    );
    s.write_all(head.as_bytes()).map_err(at)?;
    let mut answer = String::new();
    s.read_to_string(&mut answer).map_err(at)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or("no HTTP answer")?;
    let status = head.split(' ').nth(1).and_then(|c| c.parse().ok()).ok_or("no HTTP status")?;
    let body = serde_json::from_str(body).map_err(|e| format!("{method} {path}: {e}: {body}"))?;
    Ok((status, body))
}

/// All rows of a table.
///
/// # Errors
/// As [`request`]; or the answer is no success.
pub fn rows(socket: &Path, table: &str) -> Result<Vec<Value>, String> {
    let (mut out, mut cursor) = (Vec::new(), None::<String>);
    loop {
        let path = match &cursor {
            None => format!("/v1/{table}"),
            Some(c) => format!("/v1/{table}?cursor={c}"),
        };
        let (status, page) = request(socket, "GET", &path, None)?;
        if status != 200 {
            return Err(format!("{path}: {status}: {page}"));
        }
        out.extend(page["rows"]["rows"].as_array().cloned().ok_or("no rows")?);
        match page["next"].as_str() {
            Some(c) => cursor = Some(c.to_owned()),
            None => return Ok(out),
        }
    }
}
