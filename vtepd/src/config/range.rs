//! `[[neighbor-range]]`: whoever connects from a prefix is a neighbour.

use super::keys::{PeerKeyAt, Peers};
use super::neighbor::{Group, Groups, Neighbors, description, group};
use super::terms::{Terms, shared};
use super::vtep::Vtep;
use super::walk::{At, Collector, Section};
use evpn::mobility::IpPrefix;
use evpn::node::{NeighborConfig, NeighborRange, RestartConfig};

/// Keys besides those of a group.
const OWN: [&str; 4] = ["prefix", "limit", "group", "description"];
/// Most neighbours of one range, and how many unless something else is said.
const LIMITS: std::ops::RangeInclusive<u64> = 1..=1000;
const LIMIT: usize = 100;

/// Reads them, and the keys that sign their connections, into `out`.
pub(super) fn ranges(
    root: &Section<'_>,
    vtep: &Vtep,
    groups: &Groups,
    restart: RestartConfig,
    out: &mut Neighbors,
    c: &mut Collector,
) -> Vec<NeighborRange> {
    let known = [OWN.as_slice(), &shared()].concat();
    let mut all: Vec<NeighborRange> = Vec::new();
    for s in root.sections("neighbor-range", &known, c) {
        let prefix = prefix(&s, &all, c);
        let terms = Terms::read(&s, c);
        let terms = match group(&s, groups, c) {
            Group::None => terms,
            Group::Is(group) => terms.over(group),
            Group::Unknown => continue,
        };
        let limit = s.integer("limit", LIMITS, c).map_or(LIMIT, |n| n.value as usize);
        let description = description(&s, c);
        let restart = terms.restart.config(restart);
        let neighbor = terms.neighbor(&s, prefix.map(|p| p.ip()), vtep, c);
        let (Some(prefix), Some(n)) = (prefix, neighbor) else { continue };
        if let Some(at) = terms.password {
            out.keys.push(PeerKeyAt { peers: Peers { ip: prefix.ip(), bits: Some(prefix.bits()) }, at });
        }
        all.push(NeighborRange {
            prefix,
            limit,
            terms: NeighborConfig { description, restart, passive: true, ..n },
        });
    }
    all
}

fn prefix(s: &Section<'_>, others: &[NeighborRange], c: &mut Collector) -> Option<IpPrefix> {
    if s.get("prefix").is_none() {
        s.missing("prefix", "where neighbours may connect from, such as `prefix = \"10.255.0.0/24\"`", c);
        return None;
    }
    let At { value, place } = s.text("prefix", c)?;
    let Some(prefix) = value.parse::<IpPrefix>().ok().filter(|_| value.contains('/')) else {
        let help = "write an address and a length, such as \"10.255.0.0/24\"";
        c.push(s.problem("prefix", place, "not an IP prefix").help(help));
        return None;
    };
    if prefix.bits() == 0 {
        let help = "name the prefixes that neighbours really have";
        c.push(s.problem("prefix", place, "everybody would be a neighbour").help(help));
        return None;
    }
    if prefix.network() != prefix.ip() {
        let help = format!("write \"{}/{}\"", prefix.network(), prefix.bits());
        c.push(s.problem("prefix", place, "has bits set behind its length").help(help));
        return None;
    }
    if let Some(o) =
        others.iter().map(|r| r.prefix).find(|o| o.contains(prefix.ip()) || prefix.contains(o.ip()))
    {
        c.push(s.problem("prefix", place, format!("overlaps with the range {o}")));
        return None;
    }
    Some(prefix)
}
