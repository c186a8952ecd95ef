//! libvirt: its hook script prepares, releases and aborts; its lifecycle events activate (PIT-25).

pub mod domain;
pub mod guests;
pub mod hook;
pub mod lifecycle;
pub mod truth;
mod watch;

use super::board::Board;
use crate::api::core::Core;
use std::path::PathBuf;

/// Domains under way at a time; more are not followed.
pub const MAX_GUESTS: usize = 1024;

/// `[libvirt]` with `events = true`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LibvirtSettings {
    /// Connection URI.
    pub uri: String,
    /// The program.
    pub virsh: PathBuf,
    /// `activate-at = "stop"` (PIT-26).
    pub at_stop: bool,
}

/// Follows lifecycle events. Never returns.
pub(super) async fn run(settings: LibvirtSettings, core: Core, board: Board) {
    watch::run(settings, core, board).await;
}
