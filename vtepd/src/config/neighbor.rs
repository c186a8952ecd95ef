//! `[[neighbor]]` and `[neighbor-group.NAME]`.

use super::keys::{PeerKeyAt, Peers};
use super::terms::{Terms, shared};
use super::vtep::{Vtep, is_unicast};
use super::walk::{At, Collector, Place, Section, nearest};
use evpn::node::{NeighborConfig, RestartConfig};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Keys of `[[neighbor]]` besides those of its group.
const OWN: [&str; 3] = ["address", "group", "description"];

/// Groups by name.
pub(super) type Groups = BTreeMap<String, Terms>;

/// What all `[[neighbor]]` say.
#[derive(Debug, Default)]
pub(super) struct Neighbors {
    pub(super) configs: Vec<NeighborConfig>,
    pub(super) keys: Vec<PeerKeyAt>,
}

/// `[neighbor-group.NAME]`.
pub(super) fn groups(root: &Section<'_>, c: &mut Collector) -> Groups {
    let sections = root.named_sections("neighbor-group", &shared(), c);
    sections.into_iter().map(|(name, s)| (name, Terms::read(&s, c))).collect()
}

/// `restart`: what `[bgp]` says of it.
pub(super) fn neighbors(
    root: &Section<'_>,
    vtep: &Vtep,
    groups: &Groups,
    restart: RestartConfig,
    c: &mut Collector,
) -> Neighbors {
    let known = [OWN.as_slice(), &shared()].concat();
    let mut seen = BTreeMap::new();
    let mut out = Neighbors::default();
    for s in root.sections("neighbor", &known, c) {
        let address = address(&s, vtep, &mut seen, c);
        let terms = Terms::read(&s, c);
        let terms = match group(&s, groups, c) {
            Group::None => terms,
            Group::Is(group) => terms.over(group),
            // What it would have given is not missing too.
            Group::Unknown => continue,
        };
        let description = description(&s, c);
        let neighbor = terms.neighbor(&s, address, vtep, c);
        if let (Some(n), Some(at)) = (&neighbor, terms.password) {
            out.keys.push(PeerKeyAt { peers: Peers { ip: n.address, bits: None }, at });
        }
        let restart = terms.restart.config(restart);
        out.configs.extend(neighbor.map(|n| NeighborConfig { description, restart, ..n }));
    }
    out
}

/// What `group` names.
pub(super) enum Group<'g> {
    None,
    Is(&'g Terms),
    Unknown,
}

pub(super) fn group<'g>(s: &Section<'_>, groups: &'g Groups, c: &mut Collector) -> Group<'g> {
    if s.get("group").is_none() {
        return Group::None;
    }
    let Some(At { value, place }) = s.text("group", c) else { return Group::Unknown };
    if let Some(terms) = groups.get(value) {
        return Group::Is(terms);
    }
    let names: Vec<&str> = groups.keys().map(String::as_str).collect();
    let p = s.problem("group", place, format!("there is no group `{value}`"));
    c.push(match nearest(value, &names) {
        Some(near) => p.label(format!("did you mean `{near}`?")),
        None => p.help(format!("write a section `[neighbor-group.{value}]`")),
    });
    Group::Unknown
}

pub(super) fn description(s: &Section<'_>, c: &mut Collector) -> Option<String> {
    let At { value, place } = s.text("description", c)?;
    if value.chars().count() > 255 || value.chars().any(char::is_control) {
        c.push(s.problem("description", place, "must be one line of at most 255 characters"));
        return None;
    }
    Some(value.to_owned())
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
