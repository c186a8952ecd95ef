//! Waiting for a condition: a deadline instead of a sleep, and the last thing seen in the failure.

use std::fmt::Debug;
use std::time::{Duration, Instant};

/// Deadline for things that take well below a second when all is right: generous, because the machine may be busy.
pub const SOON: Duration = Duration::from_secs(20);
/// Deadline for things that wait for a peer's timer (FRR's first UPDATE, a retry).
pub const LATER: Duration = Duration::from_secs(60);

/// Asks again and again until the answer is `Ok`.
///
/// # Panics
/// At the deadline, with the last error.
#[track_caller]
pub fn eventually<T, E: Debug>(limit: Duration, what: &str, mut ask: impl FnMut() -> Result<T, E>) -> T {
    let begun = Instant::now();
    let mut pause = Duration::from_millis(2);
    loop {
        crate::interrupt::check();
        match ask() {
            Ok(v) => return v,
            Err(_) if begun.elapsed() < limit => {}
            Err(last) => panic!("not within {limit:?}: {what}\nlast seen: {last:#?}"),
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(100));
    }
}

/// Asks for `span` and wants the answer to stay `Ok`.
///
/// # Panics
/// As soon as it is not.
#[track_caller]
pub fn throughout<E: Debug>(span: Duration, what: &str, mut ask: impl FnMut() -> Result<(), E>) {
    let begun = Instant::now();
    while begun.elapsed() < span {
        crate::interrupt::check();
        if let Err(e) = ask() {
            panic!("after {:?} no more: {what}\nseen: {e:#?}", begun.elapsed());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// `Ok(())` if equal, the difference otherwise; for use within [`eventually`].
pub fn same<T: PartialEq + Debug>(got: T, want: T) -> Result<(), String> {
    if got == want { Ok(()) } else { Err(format!("got {got:#?}\nwant {want:#?}")) }
}
