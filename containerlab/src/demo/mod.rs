//! The demo.
use crate::error::Result;
use clap::Args;
use std::process::ExitCode;
/// Options.
#[derive(Args, Clone, Debug)]
pub struct Options {}
/// Runs it.
pub fn main(_o: &Options) -> Result<ExitCode> {
    Ok(ExitCode::SUCCESS)
}
