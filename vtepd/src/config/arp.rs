//! `[arp]`, and the keys of `[[vni]]` about ARP, ND, the first hop and flooding.

use super::vtep::{choice, is_unicast};
use super::walk::{At, Collector, Section, kind};
use evpn::node::{ArpConfig, Conflict, Gateway, GatewayAddress, Storm, TellPeers, Unknown, VniHosts};
use evpn::types::{Mac, Span};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

const DAY: Span = Span::secs(24 * 3600);
/// Only what works is taken.
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
        claim_time: s.duration("claim-time", Span::secs(1), c).unwrap_or(d.claim_time),
        conflict: match choice(&s, "conflict", &["none", "first", "last"], c) {
            Some("first") => Conflict::First,
            Some("last") => Conflict::Last,
            _ => d.conflict,
        },
        conflict_time: s.duration("conflict-time", DAY, c).unwrap_or(d.conflict_time),
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
        gateway: gateway(s, c),
        unknown: match choice(s, "unknown-targets", &["replicate", "unicast", "drop"], c) {
            Some("unicast") => Unknown::Unicast,
            Some("drop") => Unknown::Drop,
            _ => d.unknown,
        },
        tell_peers: match choice(s, "tell-peers", &["auto", "always", "never"], c) {
            Some("always") => TellPeers::Always,
            Some("never") => TellPeers::Never,
            _ => d.tell_peers,
        },
        dhcp_servers: dhcp_servers(s, c),
        static_hosts: static_hosts(s, c),
        tagged: choice(s, "tagged", &["drop", "transparent"], c) == Some("transparent"),
        unknown_unicast: s.boolean("unknown-unicast", c).unwrap_or(d.unknown_unicast),
        storm: storm(s, c),
        ..d
    }
}

fn gateway(s: &Section<'_>, c: &mut Collector) -> Option<Gateway> {
    const HELP: &str = "write it as `gateway = { addresses = [\"10.1.0.1/24\", \"2001:db8::1/64\"], mac = \"00:00:5e:00:01:01\" }`";
    let (_, at) = s.get("gateway")?;
    let t = s.section("gateway", &["addresses", "mac", "ra"], c);
    if !t.present() {
        return None;
    }
    let mut addresses: Vec<GatewayAddress> = Vec::new();
    for At { value, place } in t.texts("addresses", c).unwrap_or_default() {
        let read = value
            .split_once('/')
            .and_then(|(ip, bits)| GatewayAddress::new(ip.parse().ok()?, bits.parse().ok()?));
        let Some(a) = read.filter(|a| is_unicast(a.ip) && !a.ip.is_loopback()) else {
            let what = format!("`{value}` is not a host's address with the length of its subnet's prefix");
            c.push(t.problem("addresses", place, what).help(HELP));
            continue;
        };
        if addresses.iter().any(|b| b.ip == a.ip) {
            c.push(t.problem("addresses", place, format!("{} given twice", a.ip)));
            continue;
        }
        addresses.push(a);
    }
    if t.get("addresses").is_none()
        || (addresses.is_empty() && t.texts("addresses", c).is_some_and(|l| l.is_empty()))
    {
        c.push(t.problem("addresses", at, "a gateway needs an address").help(HELP));
    }
    let ra = t.boolean("ra", c).unwrap_or(false);
    let mac = match t.text("mac", c) {
        Some(At { value, place }) => match value.parse::<Mac>() {
            Ok(mac) if mac.is_host() => Some(mac),
            Ok(mac) => {
                c.push(
                    t.problem("mac", place, format!("{mac} is no host's address"))
                        .label("a group address, or zero"),
                );
                None
            }
            Err(e) => {
                c.push(t.problem("mac", place, e.to_string()).help(HELP));
                None
            }
        },
        // EVPN-IRB-10: what RFC 9135 §4.1 derives for VRID 1.
        None => Some(Mac([0, 0, 0x5e, 0, 1, 1])),
    };
    Some(Gateway { addresses, mac: mac?, ra })
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

fn static_hosts(s: &Section<'_>, c: &mut Collector) -> BTreeMap<IpAddr, BTreeSet<Mac>> {
    const KEY: &str = "static-hosts";
    const HELP: &str = "write it as `static-hosts = { \"10.1.0.5\" = [\"52:54:00:00:00:01\"] }`: each address with the MACs that may have it";
    let mut out: BTreeMap<IpAddr, BTreeSet<Mac>> = BTreeMap::new();
    let Some((v, place)) = s.get(KEY) else { return out };
    let Some(table) = v.as_table() else {
        let what = format!("expected a table of addresses with MACs, found {}", kind(v));
        c.push(s.problem(KEY, place, what).help(HELP));
        return out;
    };
    for (k, v) in table {
        let ip = k.get_ref().parse::<IpAddr>().ok().filter(|ip| is_unicast(*ip));
        if ip.is_none() {
            c.push(
                s.problem(KEY, k.span(), format!("`{}` is not the address of a host", k.get_ref()))
                    .help(HELP),
            );
        }
        let texts: Option<Vec<_>> = match (v.get_ref().as_str(), v.get_ref().as_array()) {
            (Some(one), _) => Some(vec![(one, v.span())]),
            (None, Some(list)) => list.iter().map(|i| i.get_ref().as_str().map(|t| (t, i.span()))).collect(),
            (None, None) => None,
        };
        let Some(texts) = texts.filter(|t| !t.is_empty()) else {
            let what = format!("expected a MAC or a list of MACs, found {}", kind(v.get_ref()));
            c.push(s.problem(KEY, v.span(), what).help(HELP));
            continue;
        };
        for (text, place) in texts {
            match (text.parse::<Mac>(), ip) {
                (Ok(mac), Some(ip)) if mac.is_host() => {
                    out.entry(ip).or_default().insert(mac);
                }
                (Ok(mac), _) if !mac.is_host() => {
                    c.push(s.problem(KEY, place, format!("{mac} is no host's address")));
                }
                (Ok(_), _) => {}
                (Err(e), _) => c.push(s.problem(KEY, place, e.to_string()).help(HELP)),
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
