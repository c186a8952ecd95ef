//! Bidirectional forwarding detection (BFD-01 to BFD-09): packets, transitions, two machines over a bad link.

#![allow(clippy::unwrap_used, reason = "tests")]

mod link;
mod machine;
mod pair;
#[path = "../support/mod.rs"]
mod support;
mod vectors;
