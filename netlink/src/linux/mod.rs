//! The real kernel.

mod answers;
mod codec;
mod dataplane;
pub mod dump;
mod firewall;
mod gateway;
mod hold;
pub mod hostcheck;
mod links;
mod monitor;
pub mod mtu;
pub mod netns;
mod nft;
mod nft_guard;
mod nft_ports;
mod nft_rules;
mod nl;
mod taps;
mod tcp;
mod thread;
mod writer;

pub use answers::delete_answers;
pub use dataplane::{Dataplane, DataplaneConfig};
pub use hold::{HoldPort, HoldWant, LONGEST_FRAME};
pub use links::Installer;
pub use monitor::{Interest, Monitor};
pub use nft::VxlanFilter;
pub use nft_guard::FloodGuard;
pub use nft_ports::PortFilter;
pub use nft_rules::IngressRules;
pub use taps::Tap;
pub use tcp::{MD5_KEY_MAX, set_least_ttl, set_md5_key};
pub use thread::{KernelThread, Request, Response};
pub use writer::Writer;
