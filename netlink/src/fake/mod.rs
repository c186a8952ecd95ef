//! A kernel for tests and for the simulation: a forwarding plane, not a row store.

/// See the module.
#[derive(Debug, Default)]
pub struct FakeKernel {}
