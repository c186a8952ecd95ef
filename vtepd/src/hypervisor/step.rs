//! What a hypervisor's news ask of the core, for one NIC, and how that ended.

use evpn::node::Leave;
use evpn::types::Mac;
use std::net::IpAddr;

/// A step for one MAC.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Wish {
    /// The NIC's MAC.
    pub mac: Mac,
    /// What is to happen.
    pub step: Step,
}

/// What is to happen.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Step {
    /// The guest is on its way here.
    Prepare {
        /// The NIC's port.
        port: String,
        /// When the source's VTEP says that the guest has stopped, it counts as activated (PIT-26).
        at_stop: bool,
    },
    /// The guest runs here from now on.
    Activate {
        /// The NIC's port.
        port: String,
    },
    /// The guest does not come after all.
    Abort,
    /// The guest is leaving, or has left.
    Release {
        /// It has just stopped: the target's VTEP is told so (PIT-26).
        at_stop: bool,
    },
    /// The guest begins to leave, stands still, or stays after all: what arrives for it meanwhile is held (PIT-26).
    Leave(Leave),
    /// The guest goes on here although it was leaving. What that means depends on who has the MAC now.
    TakeBack {
        /// The NIC's port.
        port: String,
        /// Its migration had been completed: if another VTEP has the MAC now, two guests run.
        left: bool,
        /// It was released: that must be undone.
        released: bool,
    },
}

impl Step {
    /// For people.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Prepare { .. } => "prepare",
            Self::Activate { .. } => "activate",
            Self::Abort => "abort",
            Self::Release { .. } => "release",
            Self::Leave(_) => "hold what arrives for",
            Self::TakeBack { .. } => "take back",
        }
    }
}

/// How a step ended.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// As asked; the core's word for what is now.
    Done(String),
    /// Taking back was not needed: the MAC had never left.
    NotNeeded,
    /// Taking back was refused: another VTEP has the MAC, and the guest runs there.
    Elsewhere(IpAddr),
    /// The core refused, or gave no answer.
    Refused(String),
}

/// Something worth telling.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Note {
    /// An operator should look.
    pub warn: bool,
    /// What.
    pub text: String,
}
