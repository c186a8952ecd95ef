//! The side thread: the API and the hypervisors' news, away from the core.

use crate::api;
use crate::api::core::Core;
use crate::hypervisor::board::Board;
use crate::hypervisor::{self, HypervisorSettings};
use std::io;
use std::os::unix::net::UnixListener;
use std::thread::JoinHandle;
use tokio::sync::oneshot;

/// A running side thread.
#[derive(Debug)]
pub(super) struct Side {
    stop: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl Side {
    /// Starts serving.
    pub(super) fn start(listener: UnixListener, core: Core, guests: HypervisorSettings) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let listener = {
            let _in = runtime.enter();
            tokio::net::UnixListener::from_std(listener)?
        };
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::Builder::new().name("api".into()).spawn(move || {
            let until = async move {
                let _ = stopped.await;
            };
            let board = Board::default();
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
