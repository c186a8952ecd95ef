//! Ground truth, what each node and kernel believes, and the difference.

use super::world::{VNI, Vm, World};
use crate::api;
use crate::frr::Frr;
use evpn::types::Mac;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

/// Things by name, in words that both sides use.
type Facts = BTreeMap<String, String>;

/// One thing that two do not agree on.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Difference {
    /// VTEP and what runs there.
    pub node: String,
    /// Which of its tables.
    pub table: &'static str,
    /// Row.
    pub row: String,
    /// What the runner knows to be true; `None`: there must be no such row.
    pub truth: Option<String>,
    /// What the table says.
    pub table_says: Option<String>,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let side = |s: &Option<String>| s.clone().unwrap_or_else(|| "nothing".into());
        let Self { node, table, row, .. } = self;
        write!(f, "{node}, {table}, {row}: is {}, ", side(&self.truth))?;
        write!(f, "the table says {}", side(&self.table_says))
    }
}

/// Where a MAC is.
#[derive(Clone, Debug)]
struct Presence {
    mac: Mac,
    home: usize,
    port: String,
    ip: Option<IpAddr>,
}

fn presences(vms: &[Vm]) -> Vec<Presence> {
    let mut out = Vec::new();
    for v in vms {
        if let Some(home) = v.home {
            let ip = v.ip_known.then_some(IpAddr::V4(v.ip));
            out.push(Presence { mac: v.mac, home, port: v.port.clone(), ip });
        }
        if let Some((mac, home)) = v.ghost {
            out.push(Presence { mac, home, port: v.port.clone(), ip: None });
        }
    }
    out
}

/// Compares everything with everything.
///
/// # Errors
/// A node does not answer.
pub(super) fn differences(w: &World, vms: &[Vm]) -> Result<Vec<Difference>, String> {
    let truth = presences(vms);
    let mut out = Vec::new();
    let mut seqs = BTreeMap::new();
    for i in 0..w.nodes.len() {
        seqs.insert(i, if let Some(frr) = w.frr(i) { frr_seqs(frr) } else { vtepd_seqs(w, i)? });
    }
    for i in 0..w.nodes.len() {
        let mut compare = |table: &'static str, want: Facts, have: Facts| {
            let rows: BTreeSet<_> = want.keys().chain(have.keys()).cloned().collect();
            for row in rows {
                let (truth, says) = (want.get(&row).cloned(), have.get(&row).cloned());
                if truth != says {
                    out.push(Difference { node: w.name(i), table, row, truth, table_says: says });
                }
            }
        };
        compare("kernel forwarding table", fdb_truth(w, i, &truth), fdb(w, i));
        compare("kernel neighbour table", neigh_truth(i, &truth), neighbors(w, i));
        let home_seqs = truth
            .iter()
            .filter_map(|p| Some((p.mac.to_string(), seqs.get(&p.home)?.get(&p.mac.to_string())?.clone())));
        compare("sequences", home_seqs.collect(), seqs.get(&i).cloned().unwrap_or_default());
        if let Some(frr) = w.frr(i) {
            compare("show evpn mac", place_truth(w, i, &truth), frr_macs(frr));
            compare("show evpn arp-cache", frr_arp_truth(i, &truth), frr_arp(frr));
            compare("show bgp l2vpn evpn route", route_truth(w, &truth), frr_routes(frr));
        } else {
            let rows =
                |table: &str| api::rows(&w.socket(i), table).map_err(|e| format!("{}: {e}", w.name(i)));
            compare("show macs", place_truth(w, i, &truth), vtepd_places(&rows("macs")?, "mac"));
            compare("show hosts", host_truth(w, i, &truth), vtepd_hosts(&rows("hosts")?));
            compare("show routes", route_truth(w, &truth), vtepd_routes(w, i, &rows("routes")?));
            // VMs that move much are no duplicates (EVPN-MOB-15).
            compare("show duplicates", Facts::new(), duplicates(&rows("duplicates")?));
        }
    }
    Ok(out)
}

fn place(w: &World, i: usize, p: &Presence) -> String {
    if p.home == i { p.port.clone() } else { w.address(p.home).to_string() }
}

// Kernel.

fn fdb_truth(w: &World, i: usize, truth: &[Presence]) -> Facts {
    let mut f = Facts::new();
    for p in truth {
        if p.home == i {
            f.insert(format!("bridge row of {}", p.mac), p.port.clone());
        } else {
            f.insert(format!("bridge row of {}", p.mac), format!("vx{VNI}"));
            f.insert(format!("VXLAN row of {}", p.mac), w.address(p.home).to_string());
        }
    }
    f
}

fn fdb(w: &World, i: usize) -> Facts {
    let mut f = Facts::new();
    let node = &w.nodes[i];
    let rows = node.tables.fdb();
    let vxlan = format!("vx{VNI}");
    let name = |device: u32| node.devices.get(&device).cloned().unwrap_or_else(|| format!("device {device}"));
    for r in rows.iter().filter(|r| r.bridge) {
        f.insert(format!("bridge row of {}", r.mac), name(r.device));
    }
    for r in rows.iter().filter(|r| !r.bridge) {
        let bridge = f.get(&format!("bridge row of {}", r.mac));
        // FRR leaves the VXLAN device's own row behind when a MAC becomes local; unused while the bridge has its row.
        if w.frr(i).is_some() && bridge != Some(&vxlan) {
            continue;
        }
        let to = r.vtep.map_or_else(|| "nowhere".to_owned(), |v| v.to_string());
        f.insert(format!("VXLAN row of {}", r.mac), to);
    }
    f
}

fn neigh_truth(i: usize, truth: &[Presence]) -> Facts {
    let remote = truth.iter().filter(|p| p.home != i);
    remote.filter_map(|p| Some((p.ip?.to_string(), p.mac.to_string()))).collect()
}

fn neighbors(w: &World, i: usize) -> Facts {
    w.nodes[i].tables.neighbors().into_iter().map(|n| (n.ip.to_string(), n.mac.to_string())).collect()
}

// Both daemons.

fn place_truth(w: &World, i: usize, truth: &[Presence]) -> Facts {
    truth.iter().map(|p| (p.mac.to_string(), place(w, i, p))).collect()
}

/// Routes of hosts: key is originator, MAC and IP; all are usable.
fn route_truth(w: &World, truth: &[Presence]) -> Facts {
    let mut f = Facts::new();
    for p in truth {
        let from = w.address(p.home);
        f.insert(route_key(&from.to_string(), &p.mac.to_string(), None), "used".into());
        if let Some(ip) = p.ip {
            f.insert(route_key(&from.to_string(), &p.mac.to_string(), Some(&ip.to_string())), "used".into());
        }
    }
    f
}

fn route_key(next_hop: &str, mac: &str, ip: Option<&str>) -> String {
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

fn vtepd_seqs(w: &World, i: usize) -> Result<Facts, String> {
    let rows = api::rows(&w.socket(i), "macs").map_err(|e| format!("{}: {e}", w.name(i)))?;
    Ok(rows.iter().map(|r| (text(&r["mac"]), text(&r["seq"]))).collect())
}

fn text(v: &Value) -> String {
    v.as_str().map_or_else(|| v.to_string(), str::to_owned)
}

fn view_place(v: &Value) -> String {
    let p = if v["port"].is_string() { &v["port"] } else { &v["vtep"] };
    text(p)
}

fn vtepd_places(rows: &[Value], key: &str) -> Facts {
    rows.iter().map(|r| (text(&r[key]), view_place(&r["place"]))).collect()
}

fn host_truth(w: &World, i: usize, truth: &[Presence]) -> Facts {
    let host = |p: &Presence| Some((p.ip?.to_string(), format!("{} at {}", p.mac, place(w, i, p))));
    truth.iter().filter_map(host).collect()
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

fn frr_mac_rows(frr: &Frr) -> Vec<(String, Value)> {
    frr_entries(&frr.json(&format!("show evpn mac vni {VNI} json")))
}

fn frr_macs(frr: &Frr) -> Facts {
    let place = |r: &Value| match r["type"].as_str() {
        Some("local") => Some(text(&r["intf"])),
        Some("remote") => Some(text(&r["remoteVtep"])),
        // FRR keeps MACs that only an old neighbour row mentions; it sends nothing there.
        _ => None,
    };
    frr_mac_rows(frr).into_iter().filter_map(|(mac, r)| Some((mac, place(&r)?))).collect()
}

fn frr_seqs(frr: &Frr) -> Facts {
    let seq = |r: &Value| match r["type"].as_str() {
        Some("local") => Some(text(&r["localSequence"])),
        Some("remote") => Some(text(&r["remoteSequence"])),
        _ => None,
    };
    frr_mac_rows(frr).into_iter().filter_map(|(mac, r)| Some((mac, seq(&r)?))).collect()
}

fn frr_arp_truth(i: usize, truth: &[Presence]) -> Facts {
    let kind = |p: &Presence| if p.home == i { "local" } else { "remote" };
    truth.iter().filter_map(|p| Some((p.ip?.to_string(), format!("{} {}", p.mac, kind(p))))).collect()
}

fn frr_arp(frr: &Frr) -> Facts {
    frr_entries(&frr.json(&format!("show evpn arp-cache vni {VNI} json")))
        .into_iter()
        .filter(|(_, r)| r["state"] == "active")
        .map(|(ip, r)| (ip, format!("{} {}", text(&r["mac"]), text(&r["type"]))))
        .collect()
}

fn frr_routes(frr: &Frr) -> Facts {
    let mut f = Facts::new();
    let all = frr.routes("type macip");
    let mut lines = all.lines().peekable();
    while let Some(line) = lines.next() {
        let Some((flags, route)) = line.split_once("[2]:[0]:") else { continue };
        let route = format!("[2]:[0]:{}", route.trim());
        let Some((mac, ip)) = host_of(route.split_whitespace().next().unwrap_or_default()) else { continue };
        let hop = lines.peek().and_then(|l| l.split_whitespace().next()).unwrap_or_default();
        let state = if flags.contains('*') && flags.contains('>') { "used" } else { "not best" };
        f.insert(route_key(hop, mac, ip), state.into());
    }
    f
}

#[cfg(test)]
mod tests {
    use super::{Difference, host_of};

    #[test]
    fn routes_are_read_in_the_form_of_both() {
        let m = "02:00:00:00:00:01";
        assert_eq!(host_of(&format!("[2]:[0]:[48]:[{m}]")), Some((m, None)));
        assert_eq!(host_of(&format!("[2]:[0]:[48]:[{m}]:[32]:[10.0.0.1]")), Some((m, Some("10.0.0.1"))));
        assert_eq!(host_of("[3]:[0]:[32]:[10.0.0.1]"), None);
    }

    #[test]
    fn a_difference_shows_both_sides() {
        let d = Difference {
            node: "VTEP 1 (vtepd)".into(),
            table: "show macs",
            row: "02:00:00:00:00:01".into(),
            truth: Some("p1".into()),
            table_says: None,
        };
        assert_eq!(
            d.to_string(),
            "VTEP 1 (vtepd), show macs, 02:00:00:00:00:01: is p1, the table says nothing"
        );
    }
}
