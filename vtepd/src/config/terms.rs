//! What a neighbour and a group of neighbours have in common: each key may be given in either, and a neighbour's own
//! wins.

use super::bfd;
use super::keys::{KeyAt, KeySource};
use super::neighbor_rules::{self, RuleTerms};
use super::problem::Problem;
use super::restart::RestartTerms;
use super::vtep::{Vtep, asn, is_unicast};
use super::walk::{At, Collector, Place, Section, nearest};
use evpn::node::{BfdConfig, NeighborConfig};
use evpn::types::{RemoteAs, Span};
use std::net::IpAddr;
use toml::de::DeValue;

const KEYS: [&str; 17] = [
    "asn",
    "bfd",
    "port",
    "local-address",
    "passive",
    "hold-time",
    "connect-retry",
    "min-hold-time",
    "require-evpn",
    "extended-open",
    "multihop",
    "ttl-security",
    "route-reflector-client",
    "rt-constraint",
    "password-file",
    "password-env",
    "graceful-restart",
];

/// Keys of `[neighbor-group.NAME]`; a neighbour has them too.
pub(super) fn shared() -> Vec<&'static str> {
    [KEYS.as_slice(), &neighbor_rules::KEYS].concat()
}

/// Hops that TTL security may allow: 255 − (hops − 1) must stay above zero.
const HOPS: std::ops::RangeInclusive<u64> = 1..=254;

/// Proposed unless something else is said, seconds (RFC 4271 §10).
const DEFAULT_HOLD: u16 = 90;

/// How far away a neighbour may be.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Distance {
    /// TTL that we send.
    Multihop(u8),
    /// Hops that packets may have come (BGP-SEC-01).
    Security(u8),
}

/// What one table says; `None` where it says nothing.
#[derive(Clone, Debug, Default)]
pub(super) struct Terms {
    asn: Option<RemoteAs>,
    asn_given: bool,
    port: Option<u16>,
    local_address: Option<(IpAddr, Place, String)>,
    passive: Option<bool>,
    hold_time: Option<u16>,
    connect_retry: Option<Span>,
    distance: Option<Distance>,
    client: Option<(bool, Place, String)>,
    /// `Some(None)`: none, whatever the group says.
    bfd: Option<Option<BfdConfig>>,
    require_evpn: Option<bool>,
    min_hold_time: Option<u16>,
    extended_open: Option<bool>,
    rt_constraint: Option<bool>,
    rules: RuleTerms,
    pub(super) restart: RestartTerms,
    /// Where the key of its connections is.
    pub(super) password: Option<KeyAt>,
}

impl Terms {
    /// Reads the keys of [`shared`].
    pub(super) fn read(s: &Section<'_>, c: &mut Collector) -> Self {
        Self {
            asn: remote_as(s, c),
            asn_given: s.get("asn").is_some(),
            port: s.integer("port", 1..=65535, c).map(|n| n.value as u16),
            local_address: local_address(s, c),
            passive: s.boolean("passive", c),
            hold_time: hold_time(s, c),
            connect_retry: s.duration("connect-retry", Span::secs(65535), c),
            distance: distance(s, c),
            client: client(s, c),
            bfd: bfd::bfd(s, c),
            require_evpn: s.boolean("require-evpn", c),
            min_hold_time: s.integer("min-hold-time", 3..=65535, c).map(|n| n.value as u16),
            extended_open: s.boolean("extended-open", c),
            rt_constraint: s.boolean("rt-constraint", c),
            rules: RuleTerms::read(s, c),
            restart: RestartTerms::read(s, c),
            password: password(s, c),
        }
    }

    /// These, and where they say nothing, the group's.
    pub(super) fn over(self, group: &Self) -> Self {
        Self {
            asn: self.asn.or(group.asn.filter(|_| !self.asn_given)),
            asn_given: self.asn_given || group.asn_given,
            port: self.port.or(group.port),
            local_address: self.local_address.or_else(|| group.local_address.clone()),
            passive: self.passive.or(group.passive),
            hold_time: self.hold_time.or(group.hold_time),
            connect_retry: self.connect_retry.or(group.connect_retry),
            distance: self.distance.or(group.distance),
            client: self.client.or_else(|| group.client.clone()),
            require_evpn: self.require_evpn.or(group.require_evpn),
            min_hold_time: self.min_hold_time.or(group.min_hold_time),
            extended_open: self.extended_open.or(group.extended_open),
            rt_constraint: self.rt_constraint.or(group.rt_constraint),
            bfd: self.bfd.or(group.bfd),
            rules: self.rules.over(&group.rules),
            restart: self.restart.over(group.restart),
            password: self.password.or_else(|| group.password.clone()),
        }
    }

    /// A neighbour on these terms; `s` is where it is configured.
    pub(super) fn neighbor(
        &self,
        s: &Section<'_>,
        address: Option<IpAddr>,
        vtep: &Vtep,
        c: &mut Collector,
    ) -> Option<NeighborConfig> {
        if !self.asn_given {
            let help = "the neighbour's AS; the same as `vtep.asn`, or \"internal\", for iBGP";
            s.missing("asn", help, c);
        }
        let local_address = self.local_address_for(address, vtep, c);
        let route_reflector_client = self.is_client(vtep, c);
        let hold_time = self.hold_time.unwrap_or(DEFAULT_HOLD);
        let rules = self.rules.rules(hold_time, c);
        let default = NeighborConfig::new(address?, self.asn?);
        Some(NeighborConfig {
            port: self.port.unwrap_or(default.port),
            local_address,
            passive: self.passive.unwrap_or(default.passive),
            hold_time,
            connect_retry: self.connect_retry.unwrap_or(default.connect_retry),
            multihop: self.distance.and_then(|d| match d {
                Distance::Multihop(ttl) => Some(ttl),
                Distance::Security(_) => None,
            }),
            ttl_security: self.distance.and_then(|d| match d {
                Distance::Security(hops) => Some(hops),
                Distance::Multihop(_) => None,
            }),
            route_reflector_client,
            rt_constraint: self.rt_constraint.unwrap_or(default.rt_constraint),
            bfd: self.bfd.flatten(),
            rules,
            require_evpn: self.require_evpn.unwrap_or(default.require_evpn),
            min_hold_time: self.min_hold_time.unwrap_or(default.min_hold_time),
            extended_open: self.extended_open.unwrap_or(default.extended_open),
            signed: self.password.is_some(),
            ..default
        })
    }

    /// Only neighbours of our own AS can be clients (RFC 4456 §4).
    fn is_client(&self, vtep: &Vtep, c: &mut Collector) -> bool {
        let Some((client, place, key)) = &self.client else { return false };
        let external = self.asn.zip(vtep.asn).is_some_and(|(theirs, ours)| !theirs.is_internal(ours));
        if *client && external {
            let p = Problem::new(key.clone(), place.clone(), "a neighbour of another AS cannot be a client");
            let help = "routes go to and from neighbours of other ASes without it; remove the key";
            c.push_once(p.help(help));
        }
        *client && !external
    }

    fn local_address_for(&self, remote: Option<IpAddr>, vtep: &Vtep, c: &mut Collector) -> Option<IpAddr> {
        let Some((value, place, key)) = &self.local_address else {
            // iBGP runs between the VTEPs' own addresses: without this a host with several would dial from the one
            // of its outgoing interface, which the neighbour does not know.
            let ibgp = self.asn.zip(vtep.asn).is_some_and(|(theirs, ours)| theirs.is_internal(ours));
            let same_family = |v: &IpAddr| remote.is_some_and(|a| a.is_ipv4() == v.is_ipv4());
            return vtep.address.filter(same_family).filter(|_| ibgp);
        };
        let remote = remote?;
        let what = if *value == remote {
            "this is the neighbour's own address".to_owned()
        } else if value.is_ipv4() != remote.is_ipv4() {
            "not of the same address family as the neighbour's address".to_owned()
        } else {
            return Some(*value);
        };
        c.push_once(Problem::new(key.clone(), place.clone(), what));
        None
    }
}

/// An AS number, `"internal"` or `"external"` (BGP-UNN-02).
fn remote_as(s: &Section<'_>, c: &mut Collector) -> Option<RemoteAs> {
    const WORDS: [&str; 2] = ["internal", "external"];
    let (value, place) = s.get("asn")?;
    let DeValue::String(text) = value else {
        return asn(s, c).map(|a| a.value.into());
    };
    match text.as_ref() {
        "internal" => return Some(RemoteAs::Internal),
        "external" => return Some(RemoteAs::External),
        _ => {}
    }
    let p = s.problem("asn", place, "must be an AS number, \"internal\" or \"external\"");
    c.push(match nearest(text, &WORDS) {
        Some(near) => p.label(format!("did you mean \"{near}\"?")),
        None if text.bytes().all(|b| b.is_ascii_digit()) => p.help("write the number without quotes"),
        None => p,
    });
    None
}

fn local_address(s: &Section<'_>, c: &mut Collector) -> Option<(IpAddr, Place, String)> {
    let At { value, place } = s.address("local-address", c)?;
    if !is_unicast(value) {
        c.push(s.problem("local-address", place, "not an address of this host"));
        return None;
    }
    Some((value, place, s.key("local-address")))
}

fn client(s: &Section<'_>, c: &mut Collector) -> Option<(bool, Place, String)> {
    let client = s.boolean("route-reflector-client", c)?;
    let (_, place) = s.get("route-reflector-client")?;
    Some((client, place, s.key("route-reflector-client")))
}

/// Zero or at least three seconds (RFC 4271 §4.2, BGP-OPEN-04).
fn hold_time(s: &Section<'_>, c: &mut Collector) -> Option<u16> {
    match s.integer("hold-time", 0..=65535, c)? {
        At { value: 1 | 2, place } => {
            let help = "use 0 to switch keepalives off, or at least 3 (RFC 4271 §4.2)";
            c.push(s.problem("hold-time", place, "a hold time of 1 or 2 seconds is not allowed").help(help));
            None
        }
        At { value, .. } => Some(value as u16),
    }
}

/// `multihop` or `ttl-security`: one says how far our packets get, the other how far theirs may have come (BGP-SEC-01).
fn distance(s: &Section<'_>, c: &mut Collector) -> Option<Distance> {
    let multihop = s.integer("multihop", 1..=255, c);
    let security = s.integer("ttl-security", HOPS, c);
    match (multihop, security) {
        (Some(multihop), Some(At { place, .. })) => {
            let p = s.problem("ttl-security", place, "not together with `multihop`");
            c.push(p.also(multihop.place, "given here").help(
                "`ttl-security = 3` alone accepts a neighbour up to three hops away, and sends with TTL 255 (RFC 5082)",
            ));
            None
        }
        (Some(n), None) => Some(Distance::Multihop(n.value as u8)),
        (None, Some(n)) => Some(Distance::Security(n.value as u8)),
        (None, None) => None,
    }
}

/// `password-file` or `password-env` (BGP-SEC-03). Nothing is read yet.
fn password(s: &Section<'_>, c: &mut Collector) -> Option<KeyAt> {
    let path = s.text("password-file", c);
    let variable = s.text("password-env", c);
    let (key, At { value, place }) = match (path, variable) {
        (Some(path), Some(At { place, .. })) => {
            let p = s.problem("password-env", place, "not together with `password-file`");
            c.push(p.also(path.place, "given here").help("the key is in one of the two places"));
            return None;
        }
        (Some(path), None) => ("password-file", path),
        (None, Some(variable)) => ("password-env", variable),
        (None, None) => return None,
    };
    if value.is_empty() || value.contains('\0') || (key == "password-env" && value.contains('=')) {
        let what =
            if key == "password-file" { "not a path" } else { "not the name of an environment variable" };
        c.push(s.problem(key, place, what));
        return None;
    }
    let source =
        if key == "password-file" { KeySource::File(value.into()) } else { KeySource::Env(value.to_owned()) };
    Some(KeyAt { source, key: s.key(key), place })
}
