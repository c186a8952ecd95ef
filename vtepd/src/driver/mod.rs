//! Where the node meets the world: sockets, kernel, clock, signals (design section 4).

mod admission;
pub mod bfd;
pub mod clock;
pub mod conn;
pub mod conns;
mod core;
mod desk;
mod encap;
mod eventlog;
mod guards;
mod holds;
pub mod host;
mod requests;
mod rules;
mod side;
mod sockopt;
mod start;
mod taps;
mod timer;
mod underlay;
pub(crate) mod watch;
mod worker;

/// `vtepd run`. Returns the exit code.
pub fn main(args: &crate::cli::RunArgs) -> u8 {
    start::run(args)
}
