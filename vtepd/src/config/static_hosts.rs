//! `static-hosts` of `[[vni]]`: addresses with the MACs that they belong to (PROXY-LEARN-04).

use super::vtep::is_unicast;
use super::walk::{Collector, Section, kind};
use evpn::node::Gateway;
use evpn::types::Mac;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

const KEY: &str = "static-hosts";
const HELP: &str = "write it as `static-hosts = { \"10.1.0.5\" = [\"52:54:00:00:00:01\"] }`: each address with the MACs that may have it";

/// Each address has at least one MAC.
pub(super) fn static_hosts(s: &Section<'_>, c: &mut Collector) -> BTreeMap<IpAddr, BTreeSet<Mac>> {
    let mut out: BTreeMap<IpAddr, BTreeSet<Mac>> = BTreeMap::new();
    let Some((v, place)) = s.get(KEY) else { return out };
    let Some(table) = v.as_table() else {
        let what = format!("expected a table of addresses with MACs, found {}", kind(v));
        c.push(s.problem(KEY, place, what).help(HELP));
        return out;
    };
    for (k, v) in table {
        let ip = k.get_ref().parse::<IpAddr>().ok().filter(|ip| is_unicast(*ip) && !ip.is_loopback());
        if ip.is_none() {
            let what = format!("`{}` is not the address of a host", k.get_ref());
            c.push(s.problem(KEY, k.span(), what).help(HELP));
        }
        if ip.is_some_and(|ip| out.contains_key(&ip)) {
            c.push(s.problem(KEY, k.span(), format!("{} named twice", k.get_ref())).help(HELP));
            continue;
        }
        let texts: Option<Vec<_>> = match (v.get_ref().as_str(), v.get_ref().as_array()) {
            (Some(one), _) => Some(vec![(one, v.span())]),
            (None, Some(list)) => list.iter().map(|i| i.get_ref().as_str().map(|t| (t, i.span()))).collect(),
            (None, None) => None,
        };
        let Some(texts) = texts else {
            let what = "expected a MAC or a list of MACs";
            c.push(s.problem(KEY, v.span(), what).help(HELP));
            continue;
        };
        if texts.is_empty() {
            c.push(s.problem(KEY, v.span(), "an address that no MAC may have").help(HELP));
        }
        for (text, place) in texts {
            match text.parse::<Mac>() {
                Ok(mac) if !mac.is_host() => {
                    c.push(s.problem(KEY, place, format!("{mac} is no host's address")));
                }
                Ok(mac) => {
                    if let Some(ip) = ip {
                        out.entry(ip).or_default().insert(mac);
                    }
                }
                Err(e) => c.push(s.problem(KEY, place, e.to_string()).help(HELP)),
            }
        }
    }
    out
}

/// The gateway's address is the bridge's, and no host has it.
pub(super) fn not_the_gateway(
    s: &Section<'_>,
    hosts: &BTreeMap<IpAddr, BTreeSet<Mac>>,
    gateway: Option<&Gateway>,
    c: &mut Collector,
) {
    let (Some(g), Some((v, _))) = (gateway, s.get(KEY)) else { return };
    for (k, _) in v.as_table().into_iter().flatten() {
        if k.get_ref().parse::<IpAddr>().is_ok_and(|ip| hosts.contains_key(&ip) && g.has(ip)) {
            c.push(
                s.problem(KEY, k.span(), format!("{} is an address of the gateway", k.get_ref()))
                    .help("the bridge has the gateway's addresses, and no host gets them; leave it out here"),
            );
        }
    }
}
