//! `vtep-lab`: brings containerlab topologies up in plain network namespaces, moves VMs, runs the demo.

pub mod cli;
pub mod delay;
pub mod demo;
mod error;
pub mod frr;
pub mod inspect;
pub mod iproute;
pub mod lab;
pub mod mounts;
pub mod netns;
mod patch;
pub mod process;
pub mod state;
pub mod switchboard;
pub mod sys;
pub mod topology;
pub mod traffic;

pub use error::{Error, Result};
