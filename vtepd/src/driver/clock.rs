//! The boot clock: it goes on while the machine sleeps, and never jumps.

use evpn::types::Time;
use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds since boot.
pub fn now() -> Time {
    let t = clock_gettime(ClockId::Boottime);
    Time(t.tv_sec as u64 * 1_000_000_000 + t.tv_nsec as u64)
}

/// Seconds since 1970.
pub fn unix_seconds() -> u64 {
    u64::try_from(clock_gettime(ClockId::Realtime).tv_sec).unwrap_or(0)
}
