//! The Linux side of vtepd: what the kernel holds, how that differs from what is wanted, and how to apply the
//! difference.
//!
//! - [`mirror::Mirror`]: what the kernel holds, fed with [`evpn::fabric::KernelEvent`]s.
//! - [`plan`]: the pure difference between [`evpn::fabric::Want`] and the mirror, as [`op::Op`]s.
//! - [`reconcile::Reconciler`]: when to plan what, one result per key, repair, resync (sans-IO).
//! - [`setup`]: which bridges and VXLAN devices to create or adopt, and what is wrong with them (pure).
//! - [`gateway`]: what a bridge lacks to be its VNI's first hop (pure).
//! - [`fake::FakeKernel`]: a forwarding plane for tests and the simulation.
//! - [`linux`]: the real thing; [`linux::Dataplane`] is what the daemon drives.
//!
//! This crate never decides whose MAC it is; it makes the kernel agree with `Want` and tells what the kernel
//! said (design section 2).

mod again;
pub mod fake;
pub mod gateway;
pub mod linux;
pub mod mirror;
pub mod op;
pub mod plan;
pub mod reconcile;
pub mod setup;
pub mod shelf;

pub use mirror::Mirror;
pub use op::{Kernel, Op, OpError, OpResult};
pub use reconcile::{Batch, Reconciler};
