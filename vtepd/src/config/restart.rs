//! `graceful-restart = { … }` in `[bgp]`, for all neighbours, and in a `[[neighbor]]` or a group, for those.

use super::vtep::choice;
use super::walk::{Collector, Section};
use evpn::node::RestartConfig;
use evpn::session::{Graceful, GracefulMode};
use evpn::types::Span;

const KEYS: [&str; 4] = ["mode", "stale-time", "long-lived-time", "hard-reset"];
/// 24 bits of seconds (RFC 9494 §3.1).
const LONGEST: Span = Span::secs(0x00ff_ffff);

/// What one table says; `None` where it says nothing.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct RestartTerms {
    mode: Option<GracefulMode>,
    stale_time: Option<Span>,
    long_lived: Option<u32>,
    hard_reset: Option<bool>,
}

impl RestartTerms {
    /// Reads the table in `s`.
    pub(super) fn read(s: &Section<'_>, c: &mut Collector) -> Self {
        let s = s.section("graceful-restart", &KEYS, c);
        let seconds = |time: Span| (time.0 / 1_000_000_000) as u32;
        Self {
            mode: match choice(&s, "mode", &["on", "helper", "off"], c) {
                Some("on") => Some(GracefulMode::On),
                Some("helper") => Some(GracefulMode::Helper),
                Some("off") => Some(GracefulMode::Off),
                _ => None,
            },
            stale_time: s.duration("stale-time", Span::secs(86_400), c),
            long_lived: s.duration("long-lived-time", LONGEST, c).map(seconds),
            hard_reset: s.boolean("hard-reset", c),
        }
    }

    /// These, and where they say nothing, the group's.
    pub(super) fn over(self, group: Self) -> Self {
        Self {
            mode: self.mode.or(group.mode),
            stale_time: self.stale_time.or(group.stale_time),
            long_lived: self.long_lived.or(group.long_lived),
            hard_reset: self.hard_reset.or(group.hard_reset),
        }
    }

    /// These, and where they say nothing, as in `default`.
    pub(super) fn config(self, default: RestartConfig) -> RestartConfig {
        let d = default.graceful;
        RestartConfig {
            graceful: Graceful {
                mode: self.mode.unwrap_or(d.mode),
                long_lived: self.long_lived.unwrap_or(d.long_lived),
                hard_reset: self.hard_reset.unwrap_or(d.hard_reset),
                ..d
            },
            stale_time: self.stale_time.unwrap_or(default.stale_time),
        }
    }
}
