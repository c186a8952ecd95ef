//! `[mobility]`.

use super::names;
use super::vtep::{Vtep, choice};
use super::walk::{At, Collector, Section};
use evpn::mobility::{IpPrefix, MacPattern};
use evpn::node::{DuplicateAction, DuplicateMode, Duplicates, MobilityConfig, VniMobility};
use evpn::types::Span;
use std::collections::BTreeSet;

const DAY: Span = Span::secs(24 * 3600);
const KEYS: [&str; 9] = [
    "guard-time",
    "move-ips-with-mac",
    "memory-time",
    "prepare-time",
    "release-time",
    "hold-time",
    "hold-frames",
    "hold-octets",
    "duplicates",
];

pub(super) fn mobility(root: &Section<'_>, c: &mut Collector) -> MobilityConfig {
    let s = root.section("mobility", &KEYS, c);
    let d = MobilityConfig::default();
    MobilityConfig {
        guard_time: s.duration("guard-time", Span::secs(60), c).unwrap_or(d.guard_time),
        move_ips_with_mac: s.boolean("move-ips-with-mac", c).unwrap_or(d.move_ips_with_mac),
        memory_time: s.duration("memory-time", Span(30 * DAY.0), c).unwrap_or(d.memory_time),
        prepare_time: s.duration("prepare-time", Span::secs(3600), c).unwrap_or(d.prepare_time),
        release_time: s.duration("release-time", Span::secs(3600), c).unwrap_or(d.release_time),
        hold_time: s.duration("hold-time", Span::secs(60), c).unwrap_or(d.hold_time),
        hold_frames: s.integer("hold-frames", 1..=65_536, c).map_or(d.hold_frames, |n| n.value as u32),
        hold_octets: s
            .integer("hold-octets", 65_536..=1_073_741_824, c)
            .map_or(d.hold_octets, |n| n.value as u32),
        duplicates: duplicates(&s, c),
    }
}

fn duplicates(mobility: &Section<'_>, c: &mut Collector) -> Duplicates {
    let s = mobility.section("duplicates", &["mode", "action", "moves", "window", "recovery"], c);
    let d = Duplicates::default();
    let mode = match choice(&s, "mode", &["off", "rfc7432", "oscillation"], c) {
        Some("off") => DuplicateMode::Off,
        Some("rfc7432") => DuplicateMode::Rfc7432,
        _ => d.mode,
    };
    Duplicates {
        mode,
        action: match choice(&s, "action", &["report", "freeze", "block"], c) {
            Some("freeze") => DuplicateAction::Freeze,
            Some("block") => DuplicateAction::Block,
            Some("report") => DuplicateAction::Report,
            // What the RFC asks for (EVPN-MOB-15).
            _ if mode == DuplicateMode::Rfc7432 => DuplicateAction::Freeze,
            _ => d.action,
        },
        moves: s.integer("moves", 2..=1000, c).map_or(d.moves, |n| n.value as u32),
        window: s.duration("window", Span::secs(3600), c).unwrap_or(d.window),
        recovery: s.duration("recovery", DAY, c).or(d.recovery),
    }
}

/// Keys of `[[vni]]` that are read here.
pub(super) const VNI_KEYS: [&str; 8] = [
    "floating",
    "mobility-domain",
    "moves-per-minute",
    "owners-per-hour",
    "mac-limit",
    "port-mac-limit",
    "flood-guard",
    "unguarded-ports",
];

/// What may move in a VNI, and how often.
pub(super) fn of_vni(s: &Section<'_>, vtep: &Vtep, c: &mut Collector) -> VniMobility {
    let d = VniMobility::default();
    let (floating_macs, floating_ips) = floating(s, c);
    let limit = |key: &str, max: u64, default: u32, c: &mut Collector| {
        s.integer(key, 0..=max, c).map_or(default, |n| n.value as u32)
    };
    VniMobility {
        floating_macs,
        floating_ips,
        domain: domain(s, vtep, c),
        moves_per_minute: limit("moves-per-minute", 1_000_000, d.moves_per_minute, c),
        owners_per_hour: limit("owners-per-hour", 64, d.owners_per_hour, c),
        mac_limit: limit("mac-limit", 10_000_000, d.mac_limit, c),
        port_mac_limit: limit("port-mac-limit", 10_000_000, d.port_mac_limit, c),
        flood_guard: limit("flood-guard", 1_000_000, d.flood_guard, c),
        unguarded: unguarded(s, c),
        ..d
    }
}

/// Ports by name; they may be in the bridge without being listed in `ports`.
fn unguarded(s: &Section<'_>, c: &mut Collector) -> BTreeSet<String> {
    const KEY: &str = "unguarded-ports";
    let mut out = BTreeSet::new();
    for At { value, place } in s.texts(KEY, c).unwrap_or_default() {
        match names::device(value) {
            Ok(()) => drop(out.insert(value.to_owned())),
            Err(what) => c.push(s.problem(KEY, place, what)),
        }
    }
    out
}

fn floating(s: &Section<'_>, c: &mut Collector) -> (Vec<MacPattern>, Vec<IpPrefix>) {
    let (mut macs, mut ips) = (Vec::new(), Vec::new());
    for At { value, place } in s.texts("floating", c).unwrap_or_default() {
        match (value.parse(), value.parse()) {
            (Ok(mac), _) => macs.push(mac),
            (_, Ok(ip)) => ips.push(ip),
            _ => {
                let help = "write a MAC with the length of its prefix in bits, such as \"00:00:5e:00:01:00/40\", or an \
                            address or prefix of IPs, such as \"192.0.2.10\" or \"192.0.2.0/28\"";
                c.push(s.problem("floating", place, "neither a MAC pattern nor an IP prefix").help(help));
            }
        }
    }
    (macs, ips)
}

fn domain(s: &Section<'_>, vtep: &Vtep, c: &mut Collector) -> Vec<IpPrefix> {
    const KEY: &str = "mobility-domain";
    let Some((_, at)) = s.get(KEY) else { return Vec::new() };
    let before = c.problems.len();
    let mut out: Vec<IpPrefix> = Vec::new();
    for At { value, place } in s.texts(KEY, c).unwrap_or_default() {
        if let Ok(prefix) = value.parse() {
            out.push(prefix);
        } else {
            let help = "write the addresses of VTEPs as prefixes, such as \"10.255.1.0/24\"";
            c.push(s.problem(KEY, place, "not a prefix of IP addresses").help(help));
        }
    }
    let own = vtep.address.filter(|own| !out.iter().any(|p| p.contains(*own)));
    if let Some(own) = own.filter(|_| c.problems.len() == before) {
        let help = "a domain is the VTEPs among which addresses move, this one among them; leave the key out for all";
        let what = format!("does not contain our own VTEP address {own}");
        let p = s.problem(KEY, at, what).also(vtep.address_at.clone(), "our address").help(help);
        c.push(p);
    }
    out
}
