//! The HTTP side of the metrics: `GET /metrics` on a TCP address.

use super::Metrics;
use crate::api::core::Core;
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::serve::Listener;
use evpn::node::view::{Rows, StatusView};
use evpn::node::{Command, MacFilter, Query, Reply, Show};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Sleep;

/// Connections at a time; more wait in the socket's backlog.
const MAX_CONNECTIONS: usize = 16;
/// A connection is cut after this time, whatever its other end does; scrapers come again.
const CONNECTION_LIMIT: Duration = Duration::from_secs(60);
/// What Prometheus is told the text is.
const TEXT: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

#[derive(Clone, Debug)]
struct Shared {
    core: Core,
    metrics: Arc<Metrics>,
}

/// Serves until dropped.
///
/// # Errors
/// The listener failed.
pub async fn serve(listener: TcpListener, core: Core, metrics: Arc<Metrics>) -> io::Result<()> {
    let nothing = || async { (StatusCode::NOT_FOUND, "the metrics are at /metrics\n") };
    let app =
        Router::new().route("/metrics", get(scrape)).fallback(nothing).with_state(Shared { core, metrics });
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    axum::serve(Limited { inner: listener, permits }, app).await
}

async fn scrape(State(s): State<Shared>) -> Response {
    let query = Query { show: Show::Status, filter: MacFilter::default(), cursor: None, limit: 1 };
    let failed = |why: String| (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")).into_response();
    match s.core.ask(Command::Show(query)).await.as_ref() {
        Err(e) => return failed(e.to_string()),
        Ok(reply) => {
            let Some(status) = status_of(reply) else { return failed("unexpected answer".into()) };
            s.metrics.status(status);
        }
    }
    s.metrics.bfd(&s.core.bfd().await);
    match s.metrics.text() {
        Ok(text) => ([(header::CONTENT_TYPE, TEXT)], text).into_response(),
        Err(e) => failed(e.to_string()),
    }
}

fn status_of(reply: &Reply) -> Option<&StatusView> {
    if let Reply::Page(page) = reply
        && let Rows::Status(rows) = &page.rows
    {
        return rows.first();
    }
    None
}

/// A TCP listener that serves a limited number of connections for a limited time each.
struct Limited {
    inner: TcpListener,
    permits: Arc<Semaphore>,
}

impl Listener for Limited {
    type Io = Brief;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Brief, SocketAddr) {
        loop {
            let Ok(permit) = Arc::clone(&self.permits).acquire_owned().await else {
                std::future::pending::<()>().await;
                continue;
            };
            match self.inner.accept().await {
                Ok((stream, address)) => {
                    let end = Box::pin(tokio::time::sleep(CONNECTION_LIMIT));
                    return (Brief { stream, end, _permit: permit }, address);
                }
                Err(e) => {
                    tracing::warn!(error = %e, "cannot accept on `metrics.listen`");
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }
}

/// A connection that ends in time and gives its place back.
struct Brief {
    stream: TcpStream,
    end: Pin<Box<Sleep>>,
    _permit: OwnedSemaphorePermit,
}

impl Brief {
    fn over(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        match self.end.as_mut().poll(cx) {
            Poll::Ready(()) => Err(io::ErrorKind::TimedOut.into()),
            Poll::Pending => Ok(()),
        }
    }
}

impl AsyncRead for Brief {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        b: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.over(cx)?;
        Pin::new(&mut self.stream).poll_read(cx, b)
    }
}

impl AsyncWrite for Brief {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, b: &[u8]) -> Poll<io::Result<usize>> {
        self.over(cx)?;
        Pin::new(&mut self.stream).poll_write(cx, b)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
