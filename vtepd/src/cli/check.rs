//! `vtepd check`: the configuration file, and with `--host` the host.

use super::{CheckArgs, Failure, OK, USAGE, out};
use crate::config;

pub(super) fn check(args: &CheckArgs) -> Result<u8, Failure> {
    if let Some(file) = &args.config {
        match config::load(file) {
            Ok(s) => {
                let (n, v) = (s.node.neighbors.len(), s.node.vnis.len());
                let file = file.display();
                out::print(&format!("`{file}` is valid: {n} neighbors, {v} VNIs\n"))?;
            }
            Err(report) => {
                out::complain(&report.render(out::Look::stderr_color()));
                return Ok(USAGE);
            }
        }
    }
    Ok(OK)
}
