//! The daemon around [`evpn::node::Node`]: sockets, one loop, configuration, API, command line.

pub mod api;
pub mod cli;
pub mod config;
pub mod driver;
pub mod hypervisor;
pub mod log;
pub mod metrics;
pub mod state;
mod warden;
