//! `sticky` and `gateway-macs` of `[[vni]]`: MACs that never move (EVPN-MOB-17, EVPN-MOB-19). `allowed`: addresses
//! that belong to ports (PIT-07).

use super::names;
use super::walk::{At, Collector, Place, Section, kind};
use evpn::mobility::IpPrefix;
use evpn::types::Mac;
use std::collections::{BTreeMap, BTreeSet};

/// Static MACs with their ports, and gateways' MACs.
pub(super) fn fixed(s: &Section<'_>, c: &mut Collector) -> (BTreeMap<Mac, String>, BTreeSet<Mac>) {
    let mut first = BTreeMap::new();
    let sticky = sticky(s, &mut first, c);
    let mut gateways = BTreeSet::new();
    for At { value, place } in s.texts("gateway-macs", c).unwrap_or_default() {
        if let Some(mac) = host(s, "gateway-macs", value, &place, &mut first, c) {
            gateways.insert(mac);
        }
    }
    (sticky, gateways)
}

fn sticky(s: &Section<'_>, first: &mut BTreeMap<Mac, Place>, c: &mut Collector) -> BTreeMap<Mac, String> {
    let mut out = BTreeMap::new();
    let Some((v, place)) = s.get("sticky") else { return out };
    let help = "write it as `sticky = { \"52:54:00:00:00:01\" = \"tap0\" }`: each MAC with its port";
    let Some(table) = v.as_table() else {
        let what = format!("expected a table of MACs with their ports, found {}", kind(v));
        c.push(s.problem("sticky", place, what).help(help));
        return out;
    };
    for (k, v) in table {
        let mac = host(s, "sticky", k.get_ref(), &k.span(), first, c);
        let Some(port) = v.get_ref().as_str() else {
            let what = format!("expected the name of a port, found {}", kind(v.get_ref()));
            c.push(s.problem("sticky", v.span(), what).help(help));
            continue;
        };
        match names::device(port) {
            Ok(()) => out.extend(mac.map(|m| (m, port.to_owned()))),
            Err(what) => c.push(s.problem("sticky", v.span(), what)),
        }
    }
    out
}

/// `allowed`: ports with the addresses that their hosts may have (PIT-07).
pub(super) fn allowed(s: &Section<'_>, c: &mut Collector) -> BTreeMap<String, Vec<IpPrefix>> {
    let mut out = BTreeMap::new();
    let Some((v, place)) = s.get("allowed") else { return out };
    let help = "write it as `allowed = { tap0 = [\"10.1.0.5\", \"2001:db8::/64\"] }`: each port with its hosts' addresses";
    let Some(table) = v.as_table() else {
        let what = format!("expected a table of ports with addresses, found {}", kind(v));
        c.push(s.problem("allowed", place, what).help(help));
        return out;
    };
    for (k, v) in table {
        if let Err(what) = names::device(k.get_ref()) {
            c.push(s.problem("allowed", k.span(), what));
        }
        let Some(list) = v.get_ref().as_array() else {
            let what = format!("expected a list of addresses or prefixes, found {}", kind(v.get_ref()));
            c.push(s.problem("allowed", v.span(), what).help(help));
            continue;
        };
        let mut prefixes = Vec::new();
        for item in list {
            match item.get_ref().as_str().and_then(|t| t.parse().ok()) {
                Some(p) => prefixes.push(p),
                None => {
                    c.push(s.problem("allowed", item.span(), "not an address or prefix of IPs").help(help));
                }
            }
        }
        out.insert(k.get_ref().to_string(), prefixes);
    }
    out
}

/// A host's MAC that has not been named in this VNI yet.
fn host(
    s: &Section<'_>,
    key: &str,
    text: &str,
    place: &Place,
    first: &mut BTreeMap<Mac, Place>,
    c: &mut Collector,
) -> Option<Mac> {
    let mac = match text.parse::<Mac>() {
        Ok(mac) if mac.is_host() => mac,
        Ok(mac) => {
            let what = format!("{mac} is no host's address");
            c.push(s.problem(key, place.clone(), what).label("a group address, or zero"));
            return None;
        }
        Err(e) => {
            c.push(s.problem(key, place.clone(), e.to_string()));
            return None;
        }
    };
    if let Some(before) = first.insert(mac, place.clone()) {
        c.push(
            s.problem(key, place.clone(), format!("{mac} named twice"))
                .label("named again here")
                .also(before, "first named here")
                .help("a MAC has one port, and a gateway's MAC has none"),
        );
        return None;
    }
    Some(mac)
}
