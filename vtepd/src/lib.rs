//! The daemon around [`evpn::node::Node`]: sockets, one loop, configuration, API, command line.

pub mod config;
