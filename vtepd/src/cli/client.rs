//! The command line's side of the API: HTTP/1.1 over the daemon's unix socket.

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::net::UnixStream;

/// Largest answer to one request.
const MAX_BODY: usize = 16 << 20;
/// How often a busy daemon is asked again.
const TRIES: usize = 3;
/// An answer takes microseconds; a daemon that takes longer than its own limit of 5 s is stuck.
const ANSWER_LIMIT: Duration = Duration::from_secs(8);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens.
    #[error("no vtepd is running on `{}`: {why}", .socket.display())]
    NoDaemon {
        /// Where.
        socket: PathBuf,
        /// What the kernel said.
        why: String,
        /// Not allowed to connect.
        denied: bool,
    },
    /// The daemon said no.
    #[error("{text}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// Its words.
        text: String,
    },
    /// Connection lost, or nonsense received.
    #[error("the connection to vtepd on `{}` failed: {why}", .socket.display())]
    Broken {
        /// Where.
        socket: PathBuf,
        /// Why.
        why: String,
    },
}

impl ClientError {
    /// The way out.
    pub fn help(&self) -> Option<&'static str> {
        match self {
            Self::NoDaemon { denied: true, .. } => {
                Some("run as root, or as a member of the group that the socket belongs to")
            }
            Self::NoDaemon { .. } => Some(
                "start it with `vtepd run --config FILE`, or name the socket of a running one with `--socket PATH`",
            ),
            Self::Refused { .. } => None,
            Self::Broken { .. } => Some("see the daemon's log; was it stopped?"),
        }
    }
}

/// A client of one daemon.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
}

impl Client {
    /// For the daemon on `socket`.
    pub fn new(socket: &Path) -> Self {
        Self { socket: socket.to_owned() }
    }

    fn broken(&self, why: impl ToString) -> ClientError {
        ClientError::Broken { socket: self.socket.clone(), why: why.to_string() }
    }

    async fn send(&self, path: &str, body: Option<Bytes>) -> Result<Response<Incoming>, ClientError> {
        let stream = UnixStream::connect(&self.socket).await.map_err(|e| {
            let why = match e.kind() {
                io::ErrorKind::NotFound => "there is no such socket".to_owned(),
                io::ErrorKind::ConnectionRefused => "nobody listens there".to_owned(),
                io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
                _ => e.to_string(),
            };
            let denied = e.kind() == io::ErrorKind::PermissionDenied;
            ClientError::NoDaemon { socket: self.socket.clone(), why, denied }
        })?;
        let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = handshake.map_err(|e| self.broken(e))?;
        tokio::spawn(connection);
        let request = match &body {
            None => Request::get(path),
            Some(_) => Request::post(path).header("content-type", "application/json"),
        };
        let request = request.header("host", "vtepd").header("accept", "*/*");
        let request = request.body(Full::new(body.unwrap_or_default())).map_err(|e| self.broken(e))?;
        sender.send_request(request).await.map_err(|e| self.broken(e))
    }

    /// One JSON document.
    ///
    /// # Errors
    /// No daemon, or it refused, or the connection broke. A busy daemon is asked a few times.
    pub async fn get(&self, path: &str) -> Result<Value, ClientError> {
        let (status, value) = self.ask(path, None).await?;
        if status.is_success() {
            return Ok(value);
        }
        let text = value["error"].as_str().unwrap_or("no reason given").to_owned();
        Err(ClientError::Refused { status: status.as_u16(), text })
    }

    /// A request with a body, and its answer whatever its status.
    ///
    /// # Errors
    /// No daemon, or the connection broke. A busy daemon is asked a few times.
    pub async fn post(&self, path: &str, body: &Value) -> Result<(StatusCode, Value), ClientError> {
        self.ask(path, Some(body.to_string().into())).await
    }

    async fn ask(&self, path: &str, body: Option<Bytes>) -> Result<(StatusCode, Value), ClientError> {
        let mut tries = 0;
        loop {
            tries += 1;
            let asked = tokio::time::timeout(ANSWER_LIMIT, self.ask_once(path, body.clone())).await;
            let (status, body) = match asked {
                Ok(r) => r?,
                Err(_) => return Err(self.broken("no answer within 8 seconds")),
            };
            let value: Value = serde_json::from_slice(&body).map_err(|e| self.broken(e))?;
            if status == StatusCode::SERVICE_UNAVAILABLE && tries < TRIES {
                tokio::time::sleep(Duration::from_secs(1)).await;
                continue;
            }
            return Ok((status, value));
        }
    }

    async fn ask_once(&self, path: &str, body: Option<Bytes>) -> Result<(StatusCode, Bytes), ClientError> {
        let response = self.send(path, body).await?;
        let status = response.status();
        let limited = http_body_util::Limited::new(response.into_body(), MAX_BODY);
        let body = limited.collect().await.map_err(|e| self.broken(e))?;
        Ok((status, body.to_bytes()))
    }

    /// The stream of events.
    ///
    /// # Errors
    /// No daemon, or it refused.
    pub async fn events(&self, path: &str) -> Result<EventStream, ClientError> {
        let response = self.send(path, None).await?;
        let status = response.status();
        if !status.is_success() {
            let body = response.into_body().collect().await.map_err(|e| self.broken(e))?.to_bytes();
            let value: Value = serde_json::from_slice(&body).unwrap_or_default();
            let text = value["error"].as_str().unwrap_or("no reason given").to_owned();
            return Err(ClientError::Refused { status: status.as_u16(), text });
        }
        Ok(EventStream { body: response.into_body(), buffer: Vec::new(), socket: self.socket.clone() })
    }
}

/// Server-sent events as they come in.
#[derive(Debug)]
pub struct EventStream {
    body: Incoming,
    buffer: Vec<u8>,
    socket: PathBuf,
}

impl EventStream {
    /// Kind (`event`, `lagged`, `error`) and data of the next event; `None` at the end.
    ///
    /// # Errors
    /// The daemon sends nonsense.
    pub async fn next(&mut self) -> Result<Option<(String, String)>, ClientError> {
        loop {
            if let Some(end) = self.buffer.windows(2).position(|w| w == b"\n\n") {
                let block: Vec<u8> = self.buffer.drain(..end + 2).collect();
                if let Some(found) = parse_block(&String::from_utf8_lossy(&block)) {
                    return Ok(Some(found));
                }
                continue;
            }
            if self.buffer.len() > MAX_BODY {
                return Err(ClientError::Broken {
                    socket: self.socket.clone(),
                    why: "an endless event".into(),
                });
            }
            match self.body.frame().await {
                // A daemon that ends cuts the stream; that is its end, however it looks.
                None | Some(Err(_)) => return Ok(None),
                Some(Ok(frame)) => {
                    if let Some(data) = frame.data_ref() {
                        self.buffer.extend_from_slice(data);
                    }
                }
            }
        }
    }
}

/// Kind and data of one block; `None` for a comment.
fn parse_block(block: &str) -> Option<(String, String)> {
    let field =
        |name: &str| block.lines().find_map(|l| l.strip_prefix(name)).map(|v| v.trim_start().to_owned());
    Some((field("event:").unwrap_or_else(|| "message".into()), field("data:")?))
}
