//! Where the node meets the world: sockets, kernel, clock, signals.

pub mod clock;

/// `vtepd run`. Returns the exit code.
pub fn main(_args: &crate::cli::RunArgs) -> u8 {
    crate::cli::FAILED
}
