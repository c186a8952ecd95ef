//! The whole VTEP as one state machine.

mod config;
mod event;
mod input;
mod output;
pub mod view;

pub use config::{Config, Flooding, NeighborConfig, Targets, VniConfig};
pub use event::{Event, Level};
pub use input::{Command, ConnEvent, Input, MacFilter, Query, Show};
pub use output::{Output, Reply};

use crate::fabric::{DeviceWant, Want};
use crate::types::Time;

/// One VTEP: configuration and inputs in, outputs and wanted rows out. Deterministic.
#[derive(Debug)]
pub struct Node {
    config: Config,
    want: Want,
}

impl Node {
    /// A node at rest. Its first outputs (`Listen`, dials) come from the first `flush`.
    pub fn new(config: Config, _seed: u64, _at: Time) -> Self {
        Self { config, want: Want::default() }
    }
    /// Takes one input. Cheap; what it causes is worked out in `flush`.
    pub fn handle(&mut self, _input: Input, _at: Time) {}
    /// Once per turn of the driver, after a budget of inputs: due timers, decisions, outputs.
    pub fn flush(&mut self, _at: Time) {}
    /// Next thing to do. Call until `None` after each `flush`.
    pub fn poll_output(&mut self) -> Option<Output> {
        None
    }
    /// When `flush` wants to be called at the latest, and why.
    pub fn poll_timeout(&self) -> Option<(Time, &'static str)> {
        None
    }
    /// Wanted rows; the reconciler takes the dirty keys from here and answers with `Input::Written`.
    pub fn want_mut(&mut self) -> &mut Want {
        &mut self.want
    }
    /// Wanted rows.
    pub fn want(&self) -> &Want {
        &self.want
    }
    /// Devices to create or adopt.
    pub fn devices(&self) -> Vec<DeviceWant> {
        let _ = &self.config;
        Vec::new()
    }
}
