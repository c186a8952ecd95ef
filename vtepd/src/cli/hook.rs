//! `vtepd hook`.

use super::{FAILED, OK, Target, out};
use crate::hypervisor::libvirt::hook::run;
use clap::{Args, Subcommand};

/// `vtepd hook`
#[derive(Args, Debug)]
pub(super) struct HookArgs {
    #[command(subcommand)]
    of: Of,
}

#[derive(Debug, Subcommand)]
enum Of {
    /// To be called by /etc/libvirt/hooks/qemu with the arguments and the input that it gets
    Libvirt {
        /// Fail when something could not be done; libvirt then gives the guest or its migration up
        #[arg(long)]
        strict: bool,
        #[command(flatten)]
        target: Target,
        /// The domain's name
        #[arg(allow_hyphen_values = true)]
        guest: String,
        /// What libvirt is about to do: migrate, prepare, start, started, stopped, release, ...
        operation: String,
        /// begin or end
        sub: String,
        /// The reason of a release, or -
        #[arg(default_value = "-", allow_hyphen_values = true)]
        extra: String,
    },
}

/// Returns the exit code. Nothing is printed on standard output: libvirt would take it for the domain's new XML.
pub(super) fn hook(args: &HookArgs) -> u8 {
    let Of::Libvirt { strict, target, guest, operation, sub, extra } = &args.of;
    let problems = run(&target.socket, operation, sub, extra);
    for p in &problems {
        out::complain(&format!("vtepd hook libvirt: {guest:?} {operation} {sub} {extra}: {p}\n"));
    }
    if *strict && !problems.is_empty() { FAILED } else { OK }
}
