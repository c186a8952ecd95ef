//! Keys of a neighbour that say what it may do, and what is believed of it.

use super::problem::{Place, Problem};
use super::walk::{At, Collector, Section};
use evpn::node::{NeighborRules, PrefixAction, PrefixLimit};
use evpn::types::Span;

/// The keys.
pub(super) const KEYS: [&str; 4] = ["send-hold-time", "shutdown", "shutdown-message", "max-prefixes"];

/// As written, by a neighbour or its group; what is absent is `None`.
#[derive(Clone, Debug, Default)]
pub(super) struct RuleTerms {
    send_hold_time: Option<Seconds>,
    shutdown: Option<bool>,
    shutdown_message: Option<String>,
    max_prefixes: Option<PrefixLimit>,
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
            max_prefixes: max_prefixes(s, c),
        }
    }

    /// These, and where they say nothing, the group's.
    pub(super) fn over(self, group: &Self) -> Self {
        Self {
            send_hold_time: self.send_hold_time.or_else(|| group.send_hold_time.clone()),
            shutdown: self.shutdown.or(group.shutdown),
            shutdown_message: self.shutdown_message.or_else(|| group.shutdown_message.clone()),
            max_prefixes: self.max_prefixes.or(group.max_prefixes),
        }
    }

    /// With what is absent at its default; `hold_time` is the one that is proposed.
    pub(super) fn rules(&self, hold_time: u16, c: &mut Collector) -> NeighborRules {
        let text = self.shutdown_message.clone().unwrap_or_default();
        NeighborRules {
            send_hold_time: self.send_hold_time.as_ref().and_then(|s| longer(s, hold_time, c)),
            shutdown: self.shutdown.unwrap_or(false).then_some(text),
            max_prefixes: self.max_prefixes,
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

/// `max-prefixes = { limit = 10000, warning = 75, action = "teardown", restart = "5m" }`.
fn max_prefixes(s: &Section<'_>, c: &mut Collector) -> Option<PrefixLimit> {
    s.get("max-prefixes")?;
    let t = s.section("max-prefixes", &["limit", "warning", "action", "restart"], c);
    if !t.present() {
        return None;
    }
    if t.get("limit").is_none() {
        t.missing("limit", "the most routes that the neighbour may send, such as `limit = 10000`", c);
    }
    let limit = t.integer("limit", 1..=u64::from(u32::MAX), c);
    let warning = t.integer("warning", 1..=100, c).map_or(75, |n| n.value as u8);
    let action = match t.text("action", c) {
        None | Some(At { value: "teardown", .. }) => PrefixAction::Teardown,
        Some(At { value: "warn", .. }) => PrefixAction::Warn,
        Some(At { place, .. }) => {
            let help = "write \"teardown\" to end the session, or \"warn\" to keep it";
            c.push(t.problem("action", place, "not an action").help(help));
            return None;
        }
    };
    let restart = t.duration("restart", Span::secs(7 * 24 * 3600), c).filter(|r| *r > Span::ZERO);
    Some(PrefixLimit { limit: limit?.value as u32, warning, action, restart })
}
