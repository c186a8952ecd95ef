//! Keys of a neighbour that say what it may do, and what is believed of it.

use super::walk::{At, Collector, Section};
use evpn::node::NeighborRules;

/// The keys.
pub(super) const KEYS: [&str; 1] = ["send-hold-time"];

/// As written; what is absent is `None`.
#[derive(Clone, Debug, Default)]
pub(super) struct RuleTerms {
    send_hold_time: Option<u32>,
}

impl RuleTerms {
    /// Reads the keys of a section; `hold_time` is the one that it proposes.
    pub(super) fn read(s: &Section<'_>, hold_time: u16, c: &mut Collector) -> Self {
        Self { send_hold_time: send_hold_time(s, hold_time, c) }
    }

    /// With what is absent at its default.
    pub(super) fn rules(self) -> NeighborRules {
        NeighborRules { send_hold_time: self.send_hold_time }
    }
}

/// Zero, or more than the hold time (RFC 9687 §4.4, BGP-SHT-02).
fn send_hold_time(s: &Section<'_>, hold_time: u16, c: &mut Collector) -> Option<u32> {
    let At { value, place } = s.integer("send-hold-time", 0..=604_800, c)?;
    if value != 0 && value <= u64::from(hold_time) {
        let what = format!("not longer than the hold time ({hold_time} s)");
        let help =
            "use 0 to switch it off, or leave it away for 8 minutes or twice the hold time (RFC 9687 §4.4)";
        c.push(s.problem("send-hold-time", place, what).help(help));
        return None;
    }
    u32::try_from(value).ok()
}
