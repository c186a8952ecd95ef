//! What every node and its kernel say, in words that can be compared, kept and read again.

use super::world::{VNI, World};
use crate::api;
use crate::frr::Frr;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Things by name, in words that both sides use.
pub(super) type Facts = BTreeMap<String, String>;

/// Names of the tables that are compared.
pub(super) mod table {
    pub(in crate::soak) const FDB: &str = "kernel forwarding table";
    pub(in crate::soak) const NEIGH: &str = "kernel neighbour table";
    pub(in crate::soak) const SEQS: &str = "sequences";
    pub(in crate::soak) const FRR_MACS: &str = "show evpn mac";
    pub(in crate::soak) const FRR_ARP: &str = "show evpn arp-cache";
    pub(in crate::soak) const FRR_ROUTES: &str = "show bgp l2vpn evpn route";
    pub(in crate::soak) const MACS: &str = "show macs";
    pub(in crate::soak) const HOSTS: &str = "show hosts";
    pub(in crate::soak) const ROUTES: &str = "show routes";
    pub(in crate::soak) const DUPLICATES: &str = "show duplicates";
}

/// All nodes, one read after the other.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Snapshot {
    pub(super) nodes: Vec<NodeFacts>,
}

/// One VTEP.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct NodeFacts {
    /// VTEP and what runs there.
    pub(super) name: String,
    pub(super) address: IpAddr,
    pub(super) frr: bool,
    /// Its tables, in the order in which they were read.
    pub(super) tables: Vec<(String, Facts)>,
    /// FRR alone: routes of its own that bgpd calls valid and best, and so advertises.
    pub(super) originates: Vec<Originated>,
    /// FRR alone: zebra's words about every MAC, those included that only a neighbour row mentions.
    pub(super) zebra: Facts,
}

impl NodeFacts {
    /// A table by its name; empty when it was not read.
    pub(super) fn table(&self, name: &str) -> Facts {
        self.tables.iter().find(|(n, _)| n == name).map(|(_, f)| f.clone()).unwrap_or_default()
    }
}

/// A route that bgpd originates.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Originated {
    pub(super) mac: String,
    pub(super) ip: Option<IpAddr>,
    /// Of its MAC Mobility community; without one it is 0 (EVPN-MOB-02).
    pub(super) seq: u32,
    /// As bgpd printed it.
    pub(super) printed: String,
}

impl Snapshot {
    /// Reads everything.
    ///
    /// # Errors
    /// A node does not answer.
    pub(super) fn take(w: &World) -> Result<Self, String> {
        (0..w.nodes.len()).map(|i| node(w, i)).collect::<Result<_, _>>().map(|nodes| Self { nodes })
    }
}

fn node(w: &World, i: usize) -> Result<NodeFacts, String> {
    // The kernel first, then those who hear of it: what a daemon says is never older than what its kernel said.
    let mut tables = vec![(table::FDB, fdb(w, i)), (table::NEIGH, neighbors(w, i))];
    let (mut originates, mut zebra) = (Vec::new(), Facts::new());
    if let Some(frr) = w.frr(i) {
        let macs = frr_entries(&frr.json(&format!("show evpn mac vni {VNI} json")));
        tables.push((table::SEQS, frr_seqs(&macs)));
        tables.push((table::FRR_MACS, frr_macs(&macs)));
        tables.push((table::FRR_ARP, frr_arp(frr)));
        zebra = macs.into_iter().map(|(mac, r)| (mac, r.to_string())).collect();
        let routes = printed_routes(&frr.routes("type macip"));
        tables.push((table::FRR_ROUTES, routes.iter().map(Printed::fact).collect()));
        let own = w.address(i).to_string();
        originates = routes.iter().filter_map(|r| r.originated(&own)).collect();
    } else {
        let rows = |table: &str| api::rows(&w.socket(i), table).map_err(|e| format!("{}: {e}", w.name(i)));
        let macs = rows("macs")?;
        tables.push((table::SEQS, macs.iter().map(|r| (text(&r["mac"]), text(&r["seq"]))).collect()));
        tables.push((table::MACS, vtepd_places(&macs)));
        tables.push((table::HOSTS, vtepd_hosts(&rows("hosts")?)));
        tables.push((table::ROUTES, vtepd_routes(w, i, &rows("routes")?)));
        tables.push((table::DUPLICATES, duplicates(&rows("duplicates")?)));
    }
    let tables = tables.into_iter().map(|(n, f)| (n.to_owned(), f)).collect();
    let (name, address, frr) = (w.name(i), w.address(i), w.frr(i).is_some());
    Ok(NodeFacts { name, address, frr, tables, originates, zebra })
}

// Kernel.

fn fdb(w: &World, i: usize) -> Facts {
    let mut f = Facts::new();
    let node = &w.nodes[i];
    let rows = node.tables.fdb();
    let vxlan = format!("vx{VNI}");
    let name = |device: u32| node.devices.get(&device).cloned().unwrap_or_else(|| format!("device {device}"));
    for r in rows.iter().filter(|r| r.bridge) {
        f.insert(bridge_row(&r.mac.to_string()), name(r.device));
    }
    for r in rows.iter().filter(|r| !r.bridge) {
        let mac = r.mac.to_string();
        // FRR leaves the VXLAN device's own row behind when a MAC becomes local; unused while the bridge has its row.
        if w.frr(i).is_some() && f.get(&bridge_row(&mac)) != Some(&vxlan) {
            continue;
        }
        f.insert(vxlan_row(&mac), r.vtep.map_or_else(|| "nowhere".to_owned(), |v| v.to_string()));
    }
    f
}

/// Name of a MAC's row in the bridge.
pub(super) fn bridge_row(mac: &str) -> String {
    format!("bridge row of {mac}")
}

/// Name of the VXLAN device's own row of a MAC.
pub(super) fn vxlan_row(mac: &str) -> String {
    format!("VXLAN row of {mac}")
}

fn neighbors(w: &World, i: usize) -> Facts {
    w.nodes[i].tables.neighbors().into_iter().map(|n| (n.ip.to_string(), n.mac.to_string())).collect()
}

// Routes of hosts, in the form of both.

/// Name of a route: originator, MAC and IP.
pub(super) fn route_key(next_hop: &str, mac: &str, ip: Option<&str>) -> String {
    format!("{mac} {} of {next_hop}", ip.unwrap_or("-"))
}

/// MAC and IP of `[2]:[0]:[48]:[MAC]` or `[2]:[0]:[48]:[MAC]:[32]:[IP]`.
fn host_of(route: &str) -> Option<(&str, Option<&str>)> {
    let mut part = route.split("]:[").map(|p| p.trim_matches(['[', ']']));
    (part.next()? == "2").then_some(())?;
    let (mac, ip) = (part.nth(2)?, part.nth(1));
    Some((mac, ip))
}

// vtepd.

fn text(v: &Value) -> String {
    v.as_str().map_or_else(|| v.to_string(), str::to_owned)
}

fn view_place(v: &Value) -> String {
    let p = if v["port"].is_string() { &v["port"] } else { &v["vtep"] };
    text(p)
}

fn vtepd_places(rows: &[Value]) -> Facts {
    rows.iter().map(|r| (text(&r["mac"]), view_place(&r["place"]))).collect()
}

fn vtepd_hosts(rows: &[Value]) -> Facts {
    rows.iter()
        .map(|r| (text(&r["ip"]), format!("{} at {}", text(&r["mac"]), view_place(&r["place"]))))
        .collect()
}

fn vtepd_routes(w: &World, i: usize, rows: &[Value]) -> Facts {
    let mut f = Facts::new();
    for r in rows {
        let route = text(&r["route"]);
        let Some((mac, ip)) = host_of(&route) else { continue };
        let from = if r["from"].is_null() { w.address(i).to_string() } else { text(&r["next_hop"]) };
        let state = if r["why_not"].is_null() { "used".into() } else { text(&r["why_not"]) };
        f.insert(route_key(&from, mac, ip), state);
    }
    f
}

fn duplicates(rows: &[Value]) -> Facts {
    rows.iter().map(|r| (r["address"].to_string(), text(&r["state"]))).collect()
}

// FRR.

fn frr_entries(v: &Value) -> Vec<(String, Value)> {
    let table = if v["macs"].is_object() { &v["macs"] } else { v };
    let rows = table.as_object().into_iter().flatten();
    rows.filter(|(_, r)| r.is_object()).map(|(k, r)| (k.clone(), r.clone())).collect()
}

fn frr_macs(rows: &[(String, Value)]) -> Facts {
    let place = |r: &Value| match r["type"].as_str() {
        Some("local") => Some(text(&r["intf"])),
        Some("remote") => Some(text(&r["remoteVtep"])),
        // FRR keeps MACs that only an old neighbour row mentions; it sends nothing there.
        _ => None,
    };
    rows.iter().filter_map(|(mac, r)| Some((mac.clone(), place(r)?))).collect()
}

fn frr_seqs(rows: &[(String, Value)]) -> Facts {
    let seq = |r: &Value| match r["type"].as_str() {
        Some("local") => Some(text(&r["localSequence"])),
        Some("remote") => Some(text(&r["remoteSequence"])),
        _ => None,
    };
    rows.iter().filter_map(|(mac, r)| Some((mac.clone(), seq(r)?))).collect()
}

fn frr_arp(frr: &Frr) -> Facts {
    frr_entries(&frr.json(&format!("show evpn arp-cache vni {VNI} json")))
        .into_iter()
        .filter(|(_, r)| r["state"] == "active")
        .map(|(ip, r)| (ip, format!("{} {}", text(&r["mac"]), text(&r["type"]))))
        .collect()
}

/// A route of `show bgp l2vpn evpn route type macip`: flags and NLRI, next hop and attributes, communities, a line each.
#[derive(Debug)]
pub(super) struct Printed {
    best: bool,
    mac: String,
    ip: Option<String>,
    next_hop: String,
    seq: u32,
    text: String,
}

impl Printed {
    pub(super) fn fact(&self) -> (String, String) {
        let state = if self.best { "used" } else { "not best" };
        (route_key(&self.next_hop, &self.mac, self.ip.as_deref()), state.into())
    }

    /// The route as one of this VTEP's own, if it is that and goes out to others.
    pub(super) fn originated(&self, own: &str) -> Option<Originated> {
        // Only what bgpd itself originates has a weight.
        let own = self.best && self.next_hop == own && self.text.contains("32768");
        let ip = self.ip.as_ref().and_then(|ip| ip.parse().ok());
        own.then(|| Originated { mac: self.mac.clone(), ip, seq: self.seq, printed: self.text.clone() })
    }
}

pub(super) fn printed_routes(all: &str) -> Vec<Printed> {
    let mut out: Vec<Printed> = Vec::new();
    // The route whose lines these are.
    let mut open = false;
    for line in all.lines() {
        if let Some((flags, route)) = line.split_once("[2]:[0]:") {
            let route = format!("[2]:[0]:{}", route.trim());
            let host = host_of(route.split_whitespace().next().unwrap_or_default());
            open = host.is_some();
            if let Some((mac, ip)) = host {
                out.push(Printed {
                    best: flags.contains('*') && flags.contains('>'),
                    mac: mac.to_owned(),
                    ip: ip.map(str::to_owned),
                    next_hop: String::new(),
                    seq: 0,
                    text: line.trim().to_owned(),
                });
            }
        } else if !line.starts_with([' ', '\t']) {
            open = false;
        } else if open && let Some(r) = out.last_mut() {
            let mut words = line.split_whitespace();
            if r.next_hop.is_empty() {
                words.next().unwrap_or_default().clone_into(&mut r.next_hop);
            } else if let Some(seq) = words.find_map(|w| w.strip_prefix("MM:")) {
                r.seq = seq.trim_end_matches(',').parse().unwrap_or(0);
            }
            r.text = format!("{} | {}", r.text, line.split_whitespace().collect::<Vec<_>>().join(" "));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::host_of;

    #[test]
    fn routes_are_read_in_the_form_of_both() {
        let m = "02:00:00:00:00:01";
        assert_eq!(host_of(&format!("[2]:[0]:[48]:[{m}]")), Some((m, None)));
        assert_eq!(host_of(&format!("[2]:[0]:[48]:[{m}]:[32]:[10.0.0.1]")), Some((m, Some("10.0.0.1"))));
        assert_eq!(host_of("[3]:[0]:[32]:[10.0.0.1]"), None);
    }
}
