//! The real kernel.

mod dataplane;
pub mod hostcheck;
pub mod mtu;
pub mod netns;
mod taps;

pub use dataplane::{Dataplane, DataplaneConfig};
pub use taps::Tap;
