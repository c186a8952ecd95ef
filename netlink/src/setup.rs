//! Which bridges and VXLAN devices to create or adopt, and what is wrong with them. Pure.

use serde::Serialize;

/// Something about a device that an operator should know.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub struct DeviceProblem {
    /// Device name.
    pub device: String,
    /// What is wrong and the way out, for people.
    pub problem: String,
    /// The VNI does not work at all because of it (otherwise it works, but less well).
    pub fatal: bool,
}
