//! `[arp]`, and the keys of `[[vni]]` about ARP and ND.

use super::static_hosts;
use super::vtep::{choice, is_unicast};
use super::walk::{At, Collector, Section};
use evpn::node::{ArpConfig, ConflictPolicy, Flooding, Storm, TellPeers, Unknown, UnknownOptions, VniHosts};
use evpn::types::{Mac, Span};
use std::collections::BTreeSet;
use std::net::IpAddr;

const DAY: Span = Span::secs(24 * 3600);
/// The owner of an address is not waited for any longer: a claim that counts so late is an outage.
const LONGEST_CLAIM: Span = Span::secs(1);
const KEYS: [&str; 8] = [
    "addresses-per-mac",
    "claim-time",
    "confirm-time",
    "conflict",
    "conflict-time",
    "probe-rate",
    "stale-time",
    "tell-rate",
];

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
        claim_time: s.duration("claim-time", LONGEST_CLAIM, c).unwrap_or(d.claim_time),
        conflict: match choice(&s, "conflict", &["none", "first", "last"], c) {
            Some("first") => ConflictPolicy::First,
            Some("last") => ConflictPolicy::Last,
            _ => d.conflict,
        },
        conflict_time: s.duration("conflict-time", DAY, c).unwrap_or(d.conflict_time).max(Span::secs(1)),
        stale_time: s.duration("stale-time", DAY, c).unwrap_or(restart_time),
    }
}

/// Keys of `[[vni]]` that are read here.
pub(super) const VNI_KEYS: [&str; 8] = [
    "dhcp-servers",
    "static-hosts",
    "storm-limits",
    "tagged",
    "tell-peers",
    "unknown-options",
    "unknown-targets",
    "unknown-unicast",
];

/// What `[[vni]]` says of its hosts; the probe MAC is the caller's.
pub(super) fn of_vni(s: &Section<'_>, flooding: Flooding, c: &mut Collector) -> VniHosts {
    let d = VniHosts::new(Mac([0; 6]));
    VniHosts {
        tell_peers: match choice(s, "tell-peers", &["auto", "always", "never"], c) {
            Some("always") => TellPeers::Always,
            Some("never") => TellPeers::Never,
            _ => d.tell_peers,
        },
        unknown: match choice(s, "unknown-targets", &["replicate", "unicast", "drop"], c) {
            Some("unicast") => Unknown::Unicast,
            Some("drop") => Unknown::Drop,
            // PIT-19: where nothing is flooded, nobody floods by hand either unless told to.
            None if flooding == Flooding::None => Unknown::Unicast,
            Some(_) | None => d.unknown,
        },
        unknown_options: match choice(s, "unknown-options", &["replicate", "unicast", "drop", "reply"], c) {
            Some("unicast") => UnknownOptions::Unicast,
            Some("drop") => UnknownOptions::Drop,
            Some("reply") => UnknownOptions::Reply,
            _ => d.unknown_options,
        },
        dhcp_servers: dhcp_servers(s, c),
        static_hosts: static_hosts::static_hosts(s, c),
        unknown_unicast: s.boolean("unknown-unicast", c),
        tagged: tagged(s, c),
        storm: storm(s, c),
        ..d
    }
}

/// PIT-10: the kernel answers a tagged request untagged, from the untagged row.
fn tagged(s: &Section<'_>, c: &mut Collector) -> bool {
    let transparent = choice(s, "tagged", &["drop", "transparent"], c) == Some("transparent");
    if transparent && s.get("arp-suppression").is_some_and(|(v, _)| v.as_bool() == Some(true)) {
        let place = s.get("tagged").map(|(_, place)| place).unwrap_or_default();
        c.push(
            s.problem("tagged", place, "tagged frames cannot pass where the kernel answers ARP and ND")
                .label("turns suppression off")
                .help("the kernel answers a tagged request from the untagged hosts; leave `arp-suppression` out"),
        );
    }
    transparent
}

fn dhcp_servers(s: &Section<'_>, c: &mut Collector) -> BTreeSet<IpAddr> {
    let mut out = BTreeSet::new();
    for At { value, place } in s.texts("dhcp-servers", c).unwrap_or_default() {
        match value.parse::<IpAddr>() {
            Ok(ip) if is_unicast(ip) => {
                out.insert(ip);
            }
            _ => {
                let help = "write the addresses of DHCP servers in this VNI, such as \"10.1.0.2\"";
                c.push(s.problem("dhcp-servers", place, "not the address of a host").help(help));
            }
        }
    }
    out
}

fn storm(s: &Section<'_>, c: &mut Collector) -> Storm {
    let t = s.section("storm-limits", &["arp", "nd", "broadcast", "multicast"], c);
    let mut limit = |key: &str| t.integer(key, 0..=10_000_000, c).map_or(0, |n| n.value as u32);
    Storm { arp: limit("arp"), nd: limit("nd"), broadcast: limit("broadcast"), multicast: limit("multicast") }
}
