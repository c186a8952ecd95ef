//! Keys of a neighbour that say what it may do, and what is believed of it.

use super::problem::{Place, Problem};
use super::walk::{At, Collector, Section};
use evpn::node::NeighborRules;

/// The keys.
pub(super) const KEYS: [&str; 3] = ["send-hold-time", "shutdown", "shutdown-message"];

/// As written, by a neighbour or its group; what is absent is `None`.
#[derive(Clone, Debug, Default)]
pub(super) struct RuleTerms {
    send_hold_time: Option<Seconds>,
    shutdown: Option<bool>,
    shutdown_message: Option<String>,
}

/// A number of seconds, and where it is written.
#[derive(Clone, Debug)]
struct Seconds {
    value: u32,
    key: String,
    place: Place,
}

impl RuleTerms {
    /// Reads the keys of a section.
    pub(super) fn read(s: &Section<'_>, c: &mut Collector) -> Self {
        let send_hold_time = s.integer("send-hold-time", 0..=604_800, c);
        Self {
            send_hold_time: send_hold_time.map(|n| Seconds {
                value: n.value as u32,
                key: s.key("send-hold-time"),
                place: n.place,
            }),
            shutdown: s.boolean("shutdown", c),
            shutdown_message: shutdown_message(s, c),
        }
    }

    /// These, and where they say nothing, the group's.
    pub(super) fn over(self, group: &Self) -> Self {
        Self {
            send_hold_time: self.send_hold_time.or_else(|| group.send_hold_time.clone()),
            shutdown: self.shutdown.or(group.shutdown),
            shutdown_message: self.shutdown_message.or_else(|| group.shutdown_message.clone()),
        }
    }

    /// With what is absent at its default; `hold_time` is the one that is proposed.
    pub(super) fn rules(&self, hold_time: u16, c: &mut Collector) -> NeighborRules {
        let text = self.shutdown_message.clone().unwrap_or_default();
        NeighborRules {
            send_hold_time: self.send_hold_time.as_ref().and_then(|s| longer(s, hold_time, c)),
            shutdown: self.shutdown.unwrap_or(false).then_some(text),
        }
    }
}

/// Zero, or more than the hold time (RFC 9687 §4.4, BGP-SHT-02).
fn longer(s: &Seconds, hold_time: u16, c: &mut Collector) -> Option<u32> {
    if s.value != 0 && s.value <= u32::from(hold_time) {
        let what = format!("not longer than the hold time ({hold_time} s)");
        let help =
            "use 0 to switch it off, or leave it away for 8 minutes or twice the hold time (RFC 9687 §4.4)";
        c.push_once(Problem::new(s.key.clone(), s.place.clone(), what).help(help));
        return None;
    }
    Some(s.value)
}

/// One line of at most 128 octets: so much every neighbour understands (BGP-SHUT-03).
fn shutdown_message(s: &Section<'_>, c: &mut Collector) -> Option<String> {
    let At { value, place } = s.text("shutdown-message", c)?;
    if value.len() > 128 || value.chars().any(char::is_control) {
        c.push(s.problem("shutdown-message", place, "must be one line of at most 128 octets (RFC 9003)"));
        return None;
    }
    Some(value.to_owned())
}
