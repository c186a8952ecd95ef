//! What must outlive the process: the sequences of moves, in `vtep.state-dir` (EVPN-MOB-12).
//!
//! | file | what |
//! |---|---|
//! | `sequences.journal` | an append-only journal of [`evpn::mobility::Record`]s, see `format.rs` |
//! | `sequences.journal.new` | its successor while it is being written (compaction) |
//! | `sequences.journal.corrupt-N` | one that was damaged, set aside |
//! | `hosts.journal` | local bindings, to be asked after a restart, see `hosts.rs` |
//!
//! The core appends with one write(2) before anything that depends on it reaches a socket, so that a kill of the
//! process loses nothing. A thread of its own brings the file to disk within a second and compacts it; what a crash of
//! the machine may have lost in that second is made up for by raising every sequence at the next start
//! (docs/decisions/0008).

mod disk;
mod format;
mod hosts;
mod keeper;
mod open;
mod table;
mod trouble;

pub use keeper::Keeper;
pub use open::{Damage, Restored};

use crate::driver::host;
use evpn::types::Span;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The journal.
const NAME: &str = "sequences.journal";

/// What the file system refused at start.
#[derive(Debug, thiserror::Error)]
#[error("cannot {doing} `{}`: {why}", .path.display())]
pub struct StateError {
    /// What was tried.
    pub doing: &'static str,
    /// On what.
    pub path: PathBuf,
    /// Answer.
    pub why: io::Error,
}

impl StateError {
    /// The way out.
    pub const HELP: &str = "`vtep.state-dir` has to be a directory that vtepd may read and write: correct its owner and mode, or set another";
}

fn failed<'a>(doing: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> StateError + 'a {
    move |why| StateError { doing, path: path.to_owned(), why }
}

/// How the journal is looked after.
#[derive(Clone, Copy, Debug)]
pub struct Care {
    /// How long a sequence is remembered (`[mobility] memory-time`).
    pub hold: Span,
    /// How long an append waits for its fsync, so that one serves many.
    pub batch: Duration,
    /// A journal is compacted when it is twice what its last compaction left, but not below this size.
    pub least: u64,
}

impl Care {
    /// As the daemon does it.
    pub const fn new(hold: Span) -> Self {
        Self { hold, batch: Duration::from_millis(500), least: 1 << 20 }
    }
}

/// The running kernel's id. If it is not known, every start is taken for one after a boot.
fn boot_id() -> format::BootId {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let digits: Vec<u8> = text.chars().filter_map(|c| c.to_digit(16)).map(|d| d as u8).collect();
    let mut id = [0; 16];
    if digits.len() != 32 {
        id[..8].copy_from_slice(&host::seed().to_be_bytes());
        return id;
    }
    for (octet, pair) in id.iter_mut().zip(digits.chunks_exact(2)) {
        *octet = pair.iter().fold(0, |n, d| n << 4 | d);
    }
    id
}

#[cfg(test)]
mod tests;
