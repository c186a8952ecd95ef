//! The side thread: the API, the hypervisors' news and the metrics, away from the core.

use crate::api;
use crate::api::core::Core;
use crate::hypervisor::board::Board;
use crate::hypervisor::{self, HypervisorSettings};
use crate::metrics::{self, Metrics};
use std::io;
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::thread::JoinHandle;
use tokio::sync::oneshot;

/// A running side thread.
#[derive(Debug)]
pub(super) struct Side {
    stop: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl Side {
    /// Starts serving; `scrapes` is where metrics are asked for.
    pub(super) fn start(
        listener: UnixListener,
        scrapes: Option<TcpListener>,
        core: Core,
        guests: HypervisorSettings,
    ) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let listener = {
            let _in = runtime.enter();
            if let Some(scrapes) = scrapes {
                let metrics = Arc::new(Metrics::default());
                // From the first event on.
                runtime.spawn(metrics::feed(Arc::clone(&metrics), core.watch()));
                let scrapes = tokio::net::TcpListener::from_std(scrapes)?;
                let served = metrics::http::serve(scrapes, core.clone(), metrics);
                runtime.spawn(async move {
                    if let Err(e) = served.await {
                        tracing::error!(error = %e, "the metrics stopped");
                    }
                });
            }
            tokio::net::UnixListener::from_std(listener)?
        };
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::Builder::new().name("api".into()).spawn(move || {
            let until = async move {
                let _ = stopped.await;
            };
            let board = Board::new(guests.libvirt_at_stop);
            let job = async {
                hypervisor::start(&guests, &core, &board);
                api::serve(listener, core.clone(), board.clone(), until).await
            };
            if let Err(e) = runtime.block_on(job) {
                tracing::error!(error = %e, "the API stopped");
            }
        })?;
        Ok(Self { stop, thread })
    }

    /// Ends it; connections are cut.
    pub(super) fn stop(self) {
        let _ = self.stop.send(());
        let _ = self.thread.join();
    }
}
