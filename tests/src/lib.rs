//! Whole-system tests of vtepd: the harness.
//!
//! | module | what it holds |
//! |---|---|
//! | [`need`] | root, FRR, kernel features: what a test asks of the machine |
//! | [`poll`] | deadlines instead of sleeps |
//! | [`interrupt`] | a run that is interrupted leaves nothing |
//! | [`ns`], [`proc`] | network namespaces and processes that end with the test |
//! | [`fabric`] | VTEPs on a routed underlay, with ports to send frames into |
//! | [`frr`], [`bfdd`], [`vtepd`], [`gobgp`] | what runs on a VTEP |
//! | [`mixed`] | a fabric of both, which shows its state when a test fails |
//! | [`moves`] | what tests of moves ask of it |
//! | [`qemu`] | real QEMU processes, to be migrated |
//! | [`speaker`], [`heard`] | a BGP speaker that says what it is told; what it heard |
//! | [`frame`], [`packet`] | frames, packet sockets, the netlink observer |
//! | [`tables`] | kernel tables, read by netlink code of their own |
//! | [`talkers`] | a host that talks to an address which changes its MAC |
//! | [`api`] | HTTP requests on a daemon's socket |
//! | [`mod@soak`] | what `cargo xtask soak` runs |
//! | [`mod@timelines`] | what `cargo xtask timelines` runs and draws |
//! | [`mod@bench`] | what `cargo xtask bench` runs |
//! | [`sim`] | whole fabrics on a virtual clock |
//! | [`tree`] | the source tree, for the tidy checks |
#![allow(clippy::print_stdout, clippy::print_stderr)]

pub mod api;
pub mod asking;
pub mod bench;
pub mod bfdd;
pub mod fabric;
pub mod frame;
pub mod frr;
pub mod gap;
pub mod gobgp;
pub mod heard;
pub mod interrupt;
pub mod kernel;
pub mod libvirt;
pub mod mixed;
pub mod moves;
pub mod need;
pub mod ns;
pub mod packet;
pub mod poll;
pub mod proc;
pub mod qemu;
pub mod sim;
pub mod soak;
pub mod speaker;
pub mod tables;
pub mod talkers;
pub mod timelines;
pub mod tree;
pub mod truth;
pub mod vtepd;
