//! SIGINT, SIGTERM and SIGHUP end a run in order: whoever waits or sends next unwinds, and what it has made goes with it,
//! namespaces, processes and scratch directories.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind, set_hook, take_hook};
use std::process::ExitCode;

/// What a run unwinds with.
struct Interrupted;

/// As a shell reports a program that SIGINT ended.
const CODE: u8 = 130;

/// Whether one of these signals came; never, unless the program runs within [`in_order`].
pub fn came() -> bool {
    vtep_lab::sys::interrupted()
}

/// Unwinds if one of these signals came. Called wherever a run waits or sends.
#[inline]
pub fn check() {
    if came() && !std::thread::panicking() {
        resume_unwind(Box::new(Interrupted));
    }
}

/// Runs a program's work. When a signal ends it, nothing is left, and the code says so.
#[allow(clippy::print_stderr)]
pub fn in_order(work: impl FnOnce() -> ExitCode) -> ExitCode {
    vtep_lab::sys::catch_signals();
    let said = take_hook();
    // What fails because its helpers were interrupted, too, is no news.
    set_hook(Box::new(move |p| {
        if !came() {
            said(p);
        }
    }));
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(code) if !came() => code,
        Err(p) if !came() => resume_unwind(p),
        Ok(_) | Err(_) => {
            eprintln!("interrupted; what was made is removed");
            ExitCode::from(CODE)
        }
    }
}
