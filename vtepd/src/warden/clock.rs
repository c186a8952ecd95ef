//! When the rows go: the warden's rule, without sockets and with the time given.

use super::Hello;
use std::collections::BTreeSet;
use std::time::Duration;

/// A daemon that is connected beats once a second; so long it may be busy, however short `stale-time` is.
const PATIENCE: Duration = Duration::from_secs(5);
/// The kernel's tables may not be had at the moment (no memory): tried again so often, about once a second.
const TRIES: u32 = 60;

/// What is to be done now.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Step {
    /// Nothing.
    Wait,
    /// The rows go. [`Clock::deleted`] or [`Clock::failed`] follows.
    Delete,
    /// There is nothing left to wait for.
    End,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Daemon {
    /// None has come yet.
    None,
    /// Connected; its last sign of life.
    Beats(Duration),
    /// Its connection ended.
    Gone(Duration),
    /// Another warden follows.
    Replaced,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Clock {
    daemon: Daemon,
    stale: Duration,
    bridges: BTreeSet<String>,
    /// The rows of this silence are gone.
    done: bool,
    /// Tries in a row that have failed.
    failures: u32,
    deleted: usize,
    stay: bool,
}

impl Clock {
    pub(super) fn new(stay: bool) -> Self {
        let (daemon, stale) = (Daemon::None, Duration::ZERO);
        Self { daemon, stale, bridges: BTreeSet::new(), done: true, failures: 0, deleted: 0, stay }
    }

    pub(super) fn bridges(&self) -> &BTreeSet<String> {
        &self.bridges
    }

    /// A daemon starts. Returns how many rows were deleted since the last one did.
    pub(super) fn hello(&mut self, h: Hello, now: Duration) -> usize {
        (self.daemon, self.done) = (Daemon::Beats(now), false);
        self.stale = Duration::from_millis(h.stale_ms);
        self.bridges = h.bridges;
        std::mem::take(&mut self.deleted)
    }

    /// Its core loop turns.
    pub(super) fn beat(&mut self, now: Duration) {
        if let Daemon::Beats(_) = self.daemon {
            (self.daemon, self.done) = (Daemon::Beats(now), false);
        }
    }

    /// Another release's daemon brings its own warden.
    pub(super) fn end(&mut self) {
        self.daemon = Daemon::Replaced;
    }

    /// Its connection ended: it stopped, or died.
    pub(super) fn gone(&mut self, now: Duration) {
        match self.daemon {
            Daemon::Beats(_) => self.daemon = Daemon::Gone(now),
            Daemon::None | Daemon::Gone(_) | Daemon::Replaced => {}
        }
    }

    pub(super) fn step(&self, now: Duration) -> Step {
        let due = match self.daemon {
            Daemon::None => return Step::Wait,
            Daemon::Replaced => return Step::End,
            Daemon::Beats(last) => last + self.stale.max(PATIENCE),
            Daemon::Gone(at) => at + self.stale,
        };
        match (now >= due, self.done, self.daemon) {
            (true, false, _) => Step::Delete,
            (_, true, Daemon::Gone(_)) if !self.stay => Step::End,
            _ => Step::Wait,
        }
    }

    pub(super) fn deleted(&mut self, n: usize) {
        (self.done, self.failures) = (true, 0);
        self.deleted += n;
    }

    /// It could not be done; it stays due for a while.
    pub(super) fn failed(&mut self) {
        self.failures += 1;
        if self.failures >= TRIES {
            self.deleted(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn s(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    fn hello(stale_ms: u64) -> Hello {
        Hello { version: super::super::VERSION, stale_ms, bridges: BTreeSet::from(["br100".to_owned()]) }
    }

    #[test]
    fn rows_go_when_the_daemon_has_been_gone_for_the_stale_time() {
        let mut c = Clock::new(false);
        assert_eq!(c.step(s(1000)), Step::Wait, "nobody has come");
        assert_eq!(c.hello(hello(120_000), s(1000)), 0);
        for t in 1001..1100 {
            c.beat(s(t));
            assert_eq!(c.step(s(t)), Step::Wait);
        }
        c.gone(s(1100));
        assert_eq!(c.step(s(1219)), Step::Wait);
        assert_eq!(c.step(s(1220)), Step::Delete);
        c.deleted(7);
        assert_eq!(c.step(s(1221)), Step::End);
    }

    #[test]
    fn a_daemon_that_comes_back_in_time_keeps_its_rows() {
        let mut c = Clock::new(false);
        c.hello(hello(120_000), s(0));
        c.gone(s(10));
        assert_eq!(c.hello(hello(120_000), s(129)), 0);
        assert_eq!(c.step(s(131)), Step::Wait);
        c.beat(s(140));
        assert_eq!(c.step(s(259)), Step::Wait);
    }

    #[test]
    fn a_core_loop_that_hangs_is_as_good_as_dead_and_may_come_back() {
        let mut c = Clock::new(false);
        c.hello(hello(0), s(0));
        assert_eq!(c.step(s(4)), Step::Wait, "busy, not dead");
        assert_eq!(c.step(s(5)), Step::Delete);
        c.deleted(3);
        assert_eq!(c.step(s(6)), Step::Wait, "it is still connected");
        c.beat(s(7));
        assert_eq!(c.step(s(11)), Step::Wait);
        assert_eq!(c.step(s(12)), Step::Delete, "once for every silence");
        c.deleted(1);
        assert_eq!(c.hello(hello(0), s(13)), 4, "the next one is told");
    }

    #[test]
    fn what_cannot_be_deleted_now_is_tried_again_for_a_while() {
        let mut c = Clock::new(false);
        c.hello(hello(1000), s(0));
        c.gone(s(1));
        for t in 2..10 {
            assert_eq!(c.step(s(t)), Step::Delete);
            c.failed();
        }
        c.deleted(5);
        assert_eq!(c.step(s(11)), Step::End);
        c.hello(hello(1000), s(12));
        c.gone(s(13));
        for t in 0..u64::from(TRIES) {
            assert_eq!(c.step(s(14 + t)), Step::Delete);
            c.failed();
        }
        assert_eq!(c.step(s(100)), Step::End, "not for ever");
    }

    #[test]
    fn as_a_service_it_stays() {
        let mut c = Clock::new(true);
        c.hello(hello(1000), s(0));
        c.gone(s(1));
        assert_eq!(c.step(s(2)), Step::Delete);
        c.deleted(1);
        assert_eq!(c.step(s(100)), Step::Wait);
        assert_eq!(c.hello(hello(1000), s(101)), 1);
        assert_eq!(c.hello(hello(1000), s(102)), 0);
    }
}
