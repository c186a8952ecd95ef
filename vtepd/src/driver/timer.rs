//! One timer on the boot clock, to the nanosecond; tokio's wheel is a millisecond coarse.

use evpn::types::Time;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use std::io;
use std::os::fd::OwnedFd;
use std::task::{Context, Poll};
use tokio::io::unix::AsyncFd;

/// See the module.
#[derive(Debug)]
pub(super) struct Timer {
    fd: AsyncFd<OwnedFd>,
    set: Option<Time>,
}

impl Timer {
    /// Not set. Needs a runtime.
    pub(super) fn new() -> io::Result<Self> {
        let fd = timerfd_create(TimerfdClockId::Boottime, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        Ok(Self { fd: super::watch::register(fd)?, set: None })
    }

    /// Rings at `at`, at once if that has passed; `None`: never.
    pub(super) fn set(&mut self, at: Option<Time>) -> io::Result<()> {
        if self.set == at {
            return Ok(());
        }
        self.set = at;
        // Zero would disarm it.
        let ns = at.map_or(0, |t| t.0.max(1));
        let part = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        let value = Timespec { tv_sec: part(ns / 1_000_000_000), tv_nsec: part(ns % 1_000_000_000) };
        let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
        let spec = Itimerspec { it_interval: zero, it_value: value };
        timerfd_settime(self.fd.get_ref(), TimerfdTimerFlags::ABSTIME, &spec)?;
        Ok(())
    }

    /// `Ready` once it has rung; it is not set any more then.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let Poll::Ready(guard) = self.fd.poll_read_ready(cx) else { return Poll::Pending };
            let Ok(mut guard) = guard else { return Poll::Ready(()) };
            let mut count = [0u8; 8];
            if rustix::io::read(self.fd.get_ref(), &mut count).is_ok() {
                self.set = None;
                return Poll::Ready(());
            }
            guard.clear_ready();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::clock;
    use super::*;
    use evpn::types::Span;
    use std::future::poll_fn;

    #[tokio::test]
    async fn it_rings_at_its_time_and_at_once_when_that_has_passed() {
        let mut timer = Timer::new().expect("timer");
        let at = clock::now() + Span::millis(5);
        timer.set(Some(at)).expect("set");
        poll_fn(|cx| timer.poll(cx)).await;
        assert!(clock::now() >= at);
        timer.set(Some(Time(1))).expect("set");
        poll_fn(|cx| timer.poll(cx)).await;
    }

    #[tokio::test]
    async fn a_timer_that_was_set_off_does_not_ring() {
        let mut timer = Timer::new().expect("timer");
        timer.set(Some(clock::now() + Span::millis(1))).expect("set");
        timer.set(None).expect("off");
        let rung = tokio::time::timeout(std::time::Duration::from_millis(20), poll_fn(|cx| timer.poll(cx)));
        assert!(rung.await.is_err());
    }
}
