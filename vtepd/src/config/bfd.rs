//! `bfd` of a neighbour: `true`, or a table of how (BFD-07, BFD-08).

use super::walk::{Collector, Section, kind};
use evpn::bfd::Config;
use evpn::node::BfdConfig;
use evpn::types::Span;

/// The quickest that is allowed: three packets then take longer than a busy host's scheduler does.
const QUICKEST: Span = Span::millis(10);
const SLOWEST: Span = Span::secs(60);
/// What other implementations have by default.
const INTERVAL: Span = Span::millis(300);
const MULTIPLIER: u8 = 3;
const KEYS: [&str; 5] = ["interval", "minimum-ttl", "multihop", "multiplier", "receive-interval"];

/// `None`: it says nothing.
pub(super) fn bfd(s: &Section<'_>, c: &mut Collector) -> Option<Option<BfdConfig>> {
    let (v, place) = s.get("bfd")?;
    if let Some(on) = v.as_bool() {
        return Some(on.then(|| how(&Section::absent("bfd"), c)));
    }
    if v.as_table().is_none() {
        let what = format!("expected `true`, `false` or a table, found {}", kind(v));
        let help = "write `bfd = true`, or `bfd = { interval = \"50ms\", multiplier = 3 }`";
        c.push(s.problem("bfd", place, what).help(help));
        return None;
    }
    let t = s.section("bfd", &KEYS, c);
    Some(Some(how(&t, c)))
}

fn how(t: &Section<'_>, c: &mut Collector) -> BfdConfig {
    let desired_tx = interval(t, "interval", c).unwrap_or(INTERVAL);
    let required_rx = interval(t, "receive-interval", c).unwrap_or(desired_tx);
    let multiplier = t.integer("multiplier", 1..=255, c).map_or(MULTIPLIER, |n| n.value as u8);
    let multihop = t.boolean("multihop", c);
    let min_ttl = t.integer("minimum-ttl", 1..=255, c);
    if let Some(ttl) = &min_ttl
        && multihop == Some(false)
    {
        let what = "over one hop nothing but 255 is ever taken (RFC 5881 §5)";
        c.push(
            t.problem("minimum-ttl", ttl.place.clone(), what).help("leave it out, or set `multihop = true`"),
        );
    }
    BfdConfig {
        session: Config { desired_tx, required_rx, multiplier },
        multihop,
        min_ttl: min_ttl.map_or(1, |n| n.value as u8),
    }
}

/// Whole microseconds are all that a packet can say; units down to milliseconds are all that can be written.
fn interval(t: &Section<'_>, key: &str, c: &mut Collector) -> Option<Span> {
    let span = t.duration(key, SLOWEST, c)?;
    if span < QUICKEST {
        let place = t.get(key).map(|(_, place)| place).unwrap_or_default();
        c.push(t.problem(key, place, "shorter than 10 ms").help("write at least \"10ms\""));
        return None;
    }
    Some(span)
}
