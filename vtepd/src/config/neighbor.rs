//! `[[neighbor]]`.

use super::neighbor_rules::{self, RuleTerms};
use super::vtep::{Vtep, asn, is_unicast};
use super::walk::{At, Collector, Place, Section};
use evpn::node::NeighborConfig;
use evpn::types::Span;
use std::collections::BTreeMap;
use std::net::IpAddr;

const KEYS: [&str; 9] = [
    "address",
    "asn",
    "port",
    "local-address",
    "passive",
    "hold-time",
    "connect-retry",
    "multihop",
    "description",
];

pub(super) fn neighbors(root: &Section<'_>, vtep: &Vtep, c: &mut Collector) -> Vec<NeighborConfig> {
    let mut seen = BTreeMap::new();
    let mut out = Vec::new();
    let known = [KEYS.as_slice(), &neighbor_rules::KEYS].concat();
    for s in root.sections("neighbor", &known, c) {
        out.extend(neighbor(&s, vtep, &mut seen, c));
    }
    out
}

fn neighbor(
    s: &Section<'_>,
    vtep: &Vtep,
    seen: &mut BTreeMap<IpAddr, Place>,
    c: &mut Collector,
) -> Option<NeighborConfig> {
    let address = address(s, vtep, seen, c);
    let asn = asn(s, c);
    if s.get("asn").is_none() {
        let help = "the neighbour's AS; the same as `vtep.asn` for iBGP";
        s.missing("asn", help, c);
    }
    let local_address = local_address(s, address, c).or_else(|| {
        // iBGP runs between the VTEPs' own addresses: without this a host with several would dial from the one
        // of its outgoing interface, which the neighbour does not know.
        let ibgp = asn.as_ref().map(|a| a.value) == vtep.asn;
        let same_family = |v: &IpAddr| address.is_some_and(|a| a.is_ipv4() == v.is_ipv4());
        vtep.address.filter(same_family).filter(|_| ibgp && s.get("local-address").is_none())
    });
    let hold_time = hold_time(s, c);
    let rules = RuleTerms::read(s, hold_time, c).rules();
    let multihop = s.integer("multihop", 1..=255, c).map(|n| n.value as u8);
    let description = s.text("description", c).and_then(|At { value, place }| {
        if value.chars().count() > 255 || value.chars().any(char::is_control) {
            c.push(s.problem("description", place, "must be one line of at most 255 characters"));
            return None;
        }
        Some(value.to_owned())
    });
    let passive = s.boolean("passive", c).unwrap_or(false);
    let connect_retry = s.duration("connect-retry", Span::secs(65535), c).unwrap_or(Span::secs(120));
    let port = s.integer("port", 1..=65535, c).map_or(179, |n| n.value as u16);
    Some(NeighborConfig {
        address: address?,
        port,
        asn: asn?.value,
        local_address,
        passive,
        hold_time,
        connect_retry,
        multihop,
        description,
        rules,
    })
}

fn address(
    s: &Section<'_>,
    vtep: &Vtep,
    seen: &mut BTreeMap<IpAddr, Place>,
    c: &mut Collector,
) -> Option<IpAddr> {
    if s.get("address").is_none() {
        s.missing("address", "the neighbour's address, such as `address = \"10.255.0.2\"`", c);
        return None;
    }
    let At { value, place } = s.address("address", c)?;
    if !is_unicast(value) {
        c.push(s.problem("address", place, "not the address of one neighbour"));
        return None;
    }
    if vtep.address == Some(value) {
        c.push(
            s.problem("address", place, "this is our own address")
                .label("the same as `vtep.address`")
                .also(vtep.address_at.clone(), "our own address")
                .help("a VTEP is not its own neighbour; remove this [[neighbor]]"),
        );
        return None;
    }
    if let Some(first) = seen.get(&value) {
        c.push(
            s.problem("address", place, format!("neighbour {value} given twice"))
                .label("given again here")
                .also(first.clone(), "first given here"),
        );
        return None;
    }
    seen.insert(value, place);
    Some(value)
}

fn local_address(s: &Section<'_>, remote: Option<IpAddr>, c: &mut Collector) -> Option<IpAddr> {
    let At { value, place } = s.address("local-address", c)?;
    if let Some(remote) = remote {
        if value == remote {
            c.push(s.problem("local-address", place, "this is the neighbour's own address"));
            return None;
        }
        if value.is_ipv4() != remote.is_ipv4() {
            let what = "not of the same address family as the neighbour's address";
            c.push(s.problem("local-address", place, what));
            return None;
        }
    }
    if !is_unicast(value) {
        c.push(s.problem("local-address", place, "not an address of this host"));
        return None;
    }
    Some(value)
}

/// Zero or at least three seconds (RFC 4271 §4.2, BGP-OPEN-04).
fn hold_time(s: &Section<'_>, c: &mut Collector) -> u16 {
    match s.integer("hold-time", 0..=65535, c) {
        Some(At { value: 1 | 2, place }) => {
            let help = "use 0 to switch keepalives off, or at least 3 (RFC 4271 §4.2)";
            c.push(s.problem("hold-time", place, "a hold time of 1 or 2 seconds is not allowed").help(help));
            90
        }
        Some(At { value, .. }) => value as u16,
        None => 90,
    }
}
