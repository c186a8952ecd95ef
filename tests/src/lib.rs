//! Whole-system tests of vtepd: the harness.
//!
//! | module | what it holds |
//! |---|---|
//! | [`need`] | root, FRR, kernel features: what a test asks of the machine |
//! | [`poll`] | deadlines instead of sleeps |
//! | [`ns`], [`proc`] | network namespaces and processes that end with the test |
//! | [`fabric`] | VTEPs on a routed underlay, with ports to send frames into |
//! | [`frr`], [`vtepd`] | what runs on a VTEP |
//! | [`mixed`] | a fabric of both, which shows its state when a test fails |
//! | [`moves`] | what tests of moves ask of it |
//! | [`speaker`] | a BGP speaker that says what it is told |
//! | [`frame`], [`packet`] | frames, packet sockets, the netlink observer |
//! | [`mod@bench`] | what `cargo xtask bench` runs |
//! | [`tree`] | the source tree, for the tidy checks |
#![allow(clippy::print_stdout, clippy::print_stderr)]

pub mod bench;
pub mod fabric;
pub mod frame;
pub mod frr;
pub mod kernel;
pub mod mixed;
pub mod moves;
pub mod need;
pub mod ns;
pub mod packet;
pub mod poll;
pub mod proc;
pub mod speaker;
pub mod tree;
pub mod vtepd;
