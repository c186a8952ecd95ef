//! HTTP requests on a daemon's socket, without its own client in between.

use serde_json::Value;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// A connection that has not asked yet: what is measured need not contain its making.
#[derive(Debug)]
pub struct Connection {
    stream: UnixStream,
}

impl Connection {
    /// Connects.
    ///
    /// # Errors
    /// Nobody listens on the socket.
    pub fn open(socket: &Path) -> Result<Self, String> {
        let at = |e: std::io::Error| format!("{}: {e}", socket.display());
        let stream = UnixStream::connect(socket).map_err(at)?;
        stream.set_read_timeout(Some(Duration::from_secs(30))).map_err(at)?;
        Ok(Self { stream })
    }

    /// The same connection twice: one end asks, the other waits for the answer, perhaps on a thread of its own.
    ///
    /// # Errors
    /// Too many descriptors.
    pub fn split(self) -> Result<(Self, Self), String> {
        let other = self.stream.try_clone().map_err(|e| e.to_string())?;
        Ok((self, Self { stream: other }))
    }

    /// Sends a request; the answer is [`Connection::answer`].
    ///
    /// # Errors
    /// The daemon has closed.
    pub fn ask(&mut self, method: &str, path: &str, body: Option<&Value>) -> Result<(), String> {
        let text = body.map(Value::to_string).unwrap_or_default();
        let whole = format!(
            "{method} {path} HTTP/1.1\r\nHost: vtepd\r\nConnection: close\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{text}",
            text.len()
        );
        self.stream.write_all(whole.as_bytes()).map_err(|e| format!("{method} {path}: {e}"))
    }

    /// Status and body.
    ///
    /// # Errors
    /// No answer, or none in HTTP with JSON.
    pub fn answer(mut self) -> Result<(u16, Value), String> {
        let mut answer = String::new();
        self.stream.read_to_string(&mut answer).map_err(|e| e.to_string())?;
        let (head, body) = answer.split_once("\r\n\r\n").ok_or("no HTTP answer")?;
        let status = head.split(' ').nth(1).and_then(|c| c.parse().ok()).ok_or("no HTTP status")?;
        let body = serde_json::from_str(body).map_err(|e| format!("{e}: {body}"))?;
        Ok((status, body))
    }
}

/// Asks and gives back status and body.
///
/// # Errors
/// As of [`Connection`].
pub fn request(
    socket: &Path,
    method: &str,
    path: &str,
    body: Option<&Value>,
) -> Result<(u16, Value), String> {
    let mut c = Connection::open(socket)?;
    c.ask(method, path, body)?;
    c.answer()
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
