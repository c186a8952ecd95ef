//! `[mobility]`.

use super::vtep::choice;
use super::walk::{Collector, Section};
use evpn::node::{DuplicateAction, DuplicateMode, Duplicates, MobilityConfig};
use evpn::types::Span;

const DAY: Span = Span::secs(24 * 3600);
const KEYS: [&str; 6] =
    ["guard-time", "move-ips-with-mac", "memory-time", "prepare-time", "release-time", "duplicates"];

pub(super) fn mobility(root: &Section<'_>, c: &mut Collector) -> MobilityConfig {
    let s = root.section("mobility", &KEYS, c);
    let d = MobilityConfig::default();
    MobilityConfig {
        guard_time: s.duration("guard-time", Span::secs(60), c).unwrap_or(d.guard_time),
        move_ips_with_mac: s.boolean("move-ips-with-mac", c).unwrap_or(d.move_ips_with_mac),
        memory_time: s.duration("memory-time", Span(30 * DAY.0), c).unwrap_or(d.memory_time),
        prepare_time: s.duration("prepare-time", Span::secs(3600), c).unwrap_or(d.prepare_time),
        release_time: s.duration("release-time", Span::secs(3600), c).unwrap_or(d.release_time),
        duplicates: duplicates(&s, c),
    }
}

fn duplicates(mobility: &Section<'_>, c: &mut Collector) -> Duplicates {
    let s = mobility.section("duplicates", &["mode", "action", "moves", "window", "recovery"], c);
    let d = Duplicates::default();
    Duplicates {
        mode: match choice(&s, "mode", &["off", "rfc7432", "oscillation"], c) {
            Some("off") => DuplicateMode::Off,
            Some("rfc7432") => DuplicateMode::Rfc7432,
            _ => d.mode,
        },
        action: match choice(&s, "action", &["report", "freeze", "block"], c) {
            Some("freeze") => DuplicateAction::Freeze,
            Some("block") => DuplicateAction::Block,
            _ => d.action,
        },
        moves: s.integer("moves", 2..=1000, c).map_or(d.moves, |n| n.value as u32),
        window: s.duration("window", Span::secs(3600), c).unwrap_or(d.window),
        recovery: s.duration("recovery", DAY, c).or(d.recovery),
    }
}
