//! One error type. Every text says what was tried, where, and the way out where there is one.

use crate::topology::Faults;
use std::io;

/// What can go wrong in the lab.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The topology file cannot be used; one entry per fault, each with file, line and column.
    #[error("{0}")]
    Topology(Faults),
    /// The operating system refused something.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// Its answer.
        source: io::Error,
    },
    /// A program that the lab ran reported failure.
    #[error("`{command}` failed in {place}: {output}")]
    Command {
        /// The command line.
        command: String,
        /// Node or namespace.
        place: String,
        /// What it printed.
        output: String,
    },
    /// The lab itself refuses; the text says why and what to do.
    #[error("{0}")]
    Refused(String),
    /// SIGINT, SIGTERM or SIGHUP came.
    #[error("interrupted")]
    Interrupted,
}

/// Short form.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// For `map_err`: an I/O error with what was tried.
    pub fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
    /// For `map_err`: the same for errors of `rustix`.
    pub fn errno(what: impl Into<String>) -> impl FnOnce(rustix::io::Errno) -> Self {
        let what = what.into();
        move |e| Self::Io { what, source: e.into() }
    }
    /// A refusal.
    pub fn refused(text: impl Into<String>) -> Self {
        Self::Refused(text.into())
    }
}
