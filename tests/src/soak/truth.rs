//! Where the VMs truly are, and what every table must say of it.

use super::facts::{Facts, NodeFacts, Snapshot, bridge_row, route_key, table, vxlan_row};
use super::judge::Phantom;
use super::world::{VNI, Vm, World};
use evpn::types::Vni;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// Where a MAC truly is.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Presence {
    pub(super) mac: String,
    /// VTEP, by its place in the snapshot.
    pub(super) home: usize,
    pub(super) port: String,
    pub(super) ip: Option<IpAddr>,
    /// A MAC that a vtepd asks its hosts from (PIT-15): the bridge's own there, a sticky route, and shown to nobody who
    /// does not ask for it.
    #[serde(default)]
    pub(super) probe: bool,
}

pub(super) fn presences(vms: &[Vm]) -> Vec<Presence> {
    let mut out = Vec::new();
    for v in vms {
        if let Some(home) = v.home {
            let ip = v.ip_known.then_some(IpAddr::V4(v.ip));
            out.push(Presence { mac: v.mac.to_string(), home, port: v.port.clone(), ip, probe: false });
        }
        if let Some((mac, home)) = v.ghost {
            let (mac, port) = (mac.to_string(), v.port.clone());
            out.push(Presence { mac, home, port, ip: None, probe: false });
        }
    }
    out
}

/// The MACs that every vtepd asks from.
pub(super) fn probes(world: &World) -> impl Iterator<Item = Presence> {
    let vni = Vni::new(VNI).expect("valid");
    world.vtepds().map(move |home| {
        let mac = evpn::node::probe_mac(world.address(home), vni).to_string();
        Presence { mac, home, port: String::new(), ip: None, probe: true }
    })
}

/// What BGP makes of the truth.
#[derive(Debug)]
struct Fabric {
    /// MAC: VTEP, its port there, sequence.
    macs: BTreeMap<String, (usize, String, u32)>,
    hosts: BTreeMap<IpAddr, String>,
    routes: Facts,
    probes: BTreeSet<String>,
}

impl Fabric {
    /// Nothing but the truth.
    fn true_one(s: &Snapshot, truth: &[Presence]) -> Self {
        let (mut macs, mut hosts, mut routes) = (BTreeMap::new(), BTreeMap::new(), Facts::new());
        for p in truth {
            // The number that its home gives it; absent there, it is missed in the home's own tables.
            let told = s.nodes[p.home].table(table::SEQS);
            let seq = told.get(&p.mac).and_then(|n| n.parse().ok()).unwrap_or(0);
            macs.insert(p.mac.clone(), (p.home, p.port.clone(), seq));
            let from = s.nodes[p.home].address.to_string();
            routes.insert(route_key(&from, &p.mac, None), "used".into());
            if let Some(ip) = p.ip {
                hosts.insert(ip, p.mac.clone());
                routes.insert(route_key(&from, &p.mac, Some(&ip.to_string())), "used".into());
            }
        }
        let probes = truth.iter().filter(|p| p.probe).map(|p| p.mac.clone()).collect();
        Self { macs, hosts, routes, probes }
    }

    /// What a vtepd has to make of it when FRR also advertises these routes. By the rules of BGP (EVPN-BEST-01,
    /// -02), written down here a second time: a higher sequence wins; but a vtepd that has the VM itself must have
    /// claimed above what it heard (EVPN-MOB-03, EVPN-XMOB-02), so against such a home a phantom never wins.
    fn with(mut self, s: &Snapshot, phantoms: &[&Phantom]) -> Self {
        for p in phantoms {
            let from = s.nodes[p.node].address.to_string();
            let ip = p.ip.map(|ip| ip.to_string());
            self.routes.insert(route_key(&from, &p.mac, ip.as_deref()), "used".into());
        }
        // First the MACs, then the addresses that they may have: of a MAC, the highest sequence of its routes counts
        // (EVPN-XMOB-11).
        let mut ghosts: BTreeMap<&str, (usize, u32)> = BTreeMap::new();
        for p in phantoms.iter().filter(|p| !self.macs.contains_key(&p.mac)) {
            let g = ghosts.entry(&p.mac).or_insert((p.node, p.seq));
            g.1 = g.1.max(p.seq);
        }
        let homed = self.macs.clone();
        for (mac, (node, seq)) in &ghosts {
            self.macs.insert((*mac).to_owned(), (*node, String::new(), *seq));
        }
        let mut best: BTreeMap<IpAddr, u32> = BTreeMap::new();
        for p in phantoms.iter().filter(|p| ghosts.contains_key(p.mac.as_str())) {
            let Some(ip) = p.ip else { continue };
            let owner = self.hosts.get(&ip).and_then(|mac| homed.get(mac));
            let defended = owner.is_some_and(|(home, _, seq)| !s.nodes[*home].frr || *seq >= p.seq);
            if !defended && best.get(&ip).is_none_or(|b| *b < p.seq) {
                best.insert(ip, p.seq);
                self.hosts.insert(ip, p.mac.clone());
            }
        }
        self
    }

    fn place(&self, s: &Snapshot, i: usize, mac: &str) -> String {
        match self.macs.get(mac) {
            Some((home, port, _)) if *home == i => port.clone(),
            Some((home, ..)) => s.nodes[*home].address.to_string(),
            None => "nowhere".into(),
        }
    }

    fn places(&self, s: &Snapshot, i: usize) -> Facts {
        self.macs.keys().map(|mac| (mac.clone(), self.place(s, i, mac))).collect()
    }

    /// Addresses of MACs that are at another VTEP than `i`.
    fn remote_hosts(&self, i: usize) -> impl Iterator<Item = (&IpAddr, &String)> {
        self.hosts.iter().filter(move |(_, mac)| self.macs.get(*mac).is_none_or(|(home, ..)| *home != i))
    }

    fn fdb(&self, s: &Snapshot, i: usize) -> Facts {
        let mut f = Facts::new();
        for (mac, (home, port, _)) in &self.macs {
            if *home == i && self.probes.contains(mac) {
                // The bridge's own, of which no port is told.
            } else if *home == i {
                f.insert(bridge_row(mac), port.clone());
            } else {
                f.insert(bridge_row(mac), format!("vx{VNI}"));
                f.insert(vxlan_row(mac), s.nodes[*home].address.to_string());
            }
        }
        f
    }

    /// Each table of a node as it must be.
    fn tables(&self, s: &Snapshot, i: usize) -> Vec<(&'static str, Facts)> {
        let neigh = self.remote_hosts(i).map(|(ip, mac)| (ip.to_string(), mac.clone())).collect();
        let shown = |mac: &String| s.nodes[i].frr || !self.probes.contains(mac);
        let seqs = self.macs.iter().filter(|(mac, _)| shown(mac));
        let seqs = seqs.map(|(mac, (.., seq))| (mac.clone(), seq.to_string())).collect();
        let mut out = vec![(table::FDB, self.fdb(s, i)), (table::NEIGH, neigh), (table::SEQS, seqs)];
        if s.nodes[i].frr {
            let arp = self.hosts.iter().map(|(ip, mac)| {
                let here = self.macs.get(mac).is_some_and(|(home, ..)| *home == i);
                (ip.to_string(), format!("{mac} {}", if here { "local" } else { "remote" }))
            });
            out.push((table::FRR_MACS, self.places(s, i)));
            out.push((table::FRR_ARP, arp.collect()));
            out.push((table::FRR_ROUTES, self.routes.clone()));
        } else {
            let hosts = self
                .hosts
                .iter()
                .map(|(ip, mac)| (ip.to_string(), format!("{mac} at {}", self.place(s, i, mac))));
            let macs = self.places(s, i).into_iter().filter(|(mac, _)| shown(mac));
            out.push((table::MACS, macs.collect()));
            out.push((table::HOSTS, hosts.collect()));
            out.push((table::ROUTES, self.routes.clone()));
            // VMs that move much are no duplicates (EVPN-MOB-15).
            out.push((table::DUPLICATES, Facts::new()));
        }
        out
    }
}

/// What the tables of a node must say, by the truth alone.
pub(super) fn true_tables(s: &Snapshot, truth: &[Presence], i: usize) -> Vec<(&'static str, Facts)> {
    Fabric::true_one(s, truth).tables(s, i)
}

/// The same by what BGP says: with routes that FRR should not advertise, and does. FRR's own tables other than bgpd's
/// have nothing to follow.
pub(super) fn told_tables(
    s: &Snapshot,
    truth: &[Presence],
    phantoms: &[&Phantom],
    i: usize,
) -> Vec<(&'static str, Facts)> {
    let true_one = Fabric::true_one(s, truth);
    let node: &NodeFacts = &s.nodes[i];
    if !node.frr {
        return true_one.with(s, phantoms).tables(s, i);
    }
    let mut tables = true_one.tables(s, i);
    let routes = Fabric::true_one(s, truth).with(s, phantoms).routes;
    for (name, facts) in &mut tables {
        if *name == table::FRR_ROUTES {
            facts.clone_from(&routes);
        }
    }
    tables
}
