//! Whole-system tests of vtepd: the harness.
//!
//! | module | what it holds |
//! |---|---|
//! | [`tree`] | the source tree, for the tidy checks |
#![allow(clippy::print_stdout, clippy::print_stderr)]

pub mod tree;
