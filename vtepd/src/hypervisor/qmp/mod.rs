//! QEMU's own monitors, one socket per guest.

pub mod lines;
pub mod machine;
pub mod message;
pub mod scan;
mod session;

pub(super) use session::tell;

use super::board::Board;
use super::step::Note;
use crate::api::core::Core;
use machine::Options;
use scan::{Identity, Scan};
use session::Session;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

/// `[[qmp]]`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct QmpSettings {
    /// The sockets; the last part of the path may contain `*` and `?`.
    pub socket: PathBuf,
    /// Sockets looked after; more are left alone, which is reported.
    pub max_sockets: usize,
    /// What is the same for all of them.
    pub options: Options,
}

/// A socket's task.
struct Guest {
    task: JoinHandle<()>,
    kick: Arc<Notify>,
    identity: Identity,
}

/// Looks after the sockets of one section. Never returns.
pub(super) async fn run(settings: QmpSettings, core: Core, board: Board) {
    let pattern = settings.socket.display().to_string();
    let mut scan = Scan::new(&settings.socket, settings.max_sockets);
    let mut guests: BTreeMap<PathBuf, Guest> = BTreeMap::new();
    let mut left_out = 0;
    let ended = Arc::new(Notify::new());
    loop {
        let found = scan.look();
        if found.left_out > left_out {
            let max = settings.max_sockets;
            let text =
                format!("{} QMP sockets more than `qmp.max-sockets` = {max} are not used", found.left_out);
            tell(&core, pattern.clone(), &Note { warn: true, text });
        }
        left_out = found.left_out;
        // A task ends by itself when its socket is gone and the guest with it.
        guests.retain(|_, g| !g.task.is_finished());
        for (path, identity) in found.sockets {
            if let Some(g) = guests.get_mut(&path) {
                // Somebody new listens there.
                if g.identity != identity {
                    g.identity = identity;
                    g.kick.notify_one();
                }
                continue;
            }
            let session = Session::new(path.clone(), settings.options.clone(), core.clone(), board.clone());
            let kick = Arc::new(Notify::new());
            let (kicked, ended) = (Arc::clone(&kick), Arc::clone(&ended));
            let task = tokio::spawn(async move {
                session.run(kicked).await;
                ended.notify_one();
            });
            guests.insert(path, Guest { task, kick, identity });
        }
        tokio::select! {
            () = scan.changed() => {}
            // Its path may have been taken again meanwhile.
            () = ended.notified() => tokio::task::yield_now().await,
        }
    }
}
