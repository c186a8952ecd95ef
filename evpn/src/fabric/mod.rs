//! Forwarding state: what we want in the kernel, and what the kernel says it has.
//!
//! These types are the seam to the `netlink` crate, which compares [`Want`] with its mirror of the kernel
//! and applies the difference. Nothing here decides whose MAC it is; that is [`crate::mobility`].

mod devices;
mod kernel;
mod want;

pub use devices::{DeviceWant, GatewayWant, PortWant};
pub use kernel::{
    BridgeFdb, BridgeLink, FdbRow, KernelEvent, Link, LinkKind, NeighRow, NeighState, PortFlags, VxlanFdb,
    VxlanLink,
};
pub use want::{Row, RowKey, Want, WriteResult};
