//! `[arp]`, and the keys of `[[vni]]` about ARP and ND.

use super::vtep::choice;
use super::walk::{Collector, Section};
use evpn::node::{ArpConfig, TellPeers, VniHosts};
use evpn::types::{Mac, Span};

const DAY: Span = Span::secs(24 * 3600);
const KEYS: [&str; 5] = ["addresses-per-mac", "confirm-time", "probe-rate", "stale-time", "tell-rate"];

/// `[arp]`; `stale-time` is `restart_time` unless given.
pub(super) fn arp(root: &Section<'_>, restart_time: Span, c: &mut Collector) -> ArpConfig {
    let s = root.section("arp", &KEYS, c);
    let d = ArpConfig::default();
    let number = |key: &str, range: std::ops::RangeInclusive<u64>, default: u32, c: &mut Collector| {
        s.integer(key, range, c).map_or(default, |n| n.value as u32)
    };
    ArpConfig {
        confirm_time: s.duration("confirm-time", DAY, c).unwrap_or(d.confirm_time).max(Span::secs(1)),
        probe_rate: number("probe-rate", 1..=100_000, d.probe_rate, c),
        addresses_per_mac: number("addresses-per-mac", 1..=4096, d.addresses_per_mac, c),
        tell_rate: number("tell-rate", 1..=1_000_000, d.tell_rate, c),
        stale_time: s.duration("stale-time", DAY, c).unwrap_or(restart_time),
    }
}

/// Keys of `[[vni]]` that are read here.
pub(super) const VNI_KEYS: [&str; 1] = ["tell-peers"];

/// What `[[vni]]` says of its hosts; the probe MAC is the caller's.
pub(super) fn of_vni(s: &Section<'_>, c: &mut Collector) -> VniHosts {
    let d = VniHosts::new(Mac([0; 6]));
    VniHosts {
        tell_peers: match choice(s, "tell-peers", &["auto", "always", "never"], c) {
            Some("always") => TellPeers::Always,
            Some("never") => TellPeers::Never,
            _ => d.tell_peers,
        },
        ..d
    }
}
