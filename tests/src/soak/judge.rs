//! Whose fault a difference is. FRR 8.4.4 goes on advertising, now and then, a route of a VM that its own kernel and zebra
//! have dropped. That is proven here from FRR's own tables, route by route; vtepd then has to follow what
//! BGP says, row by row, and anything else is a difference.

use super::facts::{NodeFacts, Originated, Snapshot, bridge_row, route_key, table};
use super::truth::{Presence, told_tables, true_tables};
use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

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

/// A route that bgpd advertises although zebra and the kernel beside it have no such MAC at a port, and there is none.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Phantom {
    /// The FRR, by its place in the snapshot.
    pub(super) node: usize,
    pub(super) mac: String,
    pub(super) ip: Option<IpAddr>,
    pub(super) seq: u32,
    /// Name of the route.
    pub(super) key: String,
    evidence: Evidence,
}

/// Both sides of a contradiction, in FRR's own words.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Evidence {
    bgpd: String,
    zebra: Option<String>,
    kernel: Option<String>,
    truth: String,
}

/// What was proven, for the report.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Contradiction {
    /// VTEP and what runs there.
    pub node: String,
    /// The route: MAC, IP, originator.
    pub route: String,
    /// bgpd's words.
    pub bgpd: String,
    /// zebra's; `None`: it does not know the MAC.
    pub zebra: Option<String>,
    /// Device of the bridge's row; `None`: there is none.
    pub kernel: Option<String>,
    /// Where the MAC truly is.
    pub truth: String,
    /// Rows elsewhere that are as BGP has it and not as it truly is.
    pub followed: usize,
}

impl fmt::Display for Contradiction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let side = |s: &Option<String>| s.clone().unwrap_or_else(|| "nothing".into());
        let Self { node, route, bgpd, truth, followed, .. } = self;
        write!(f, "{node} contradicts itself about {route}: bgpd advertises it ({bgpd}), ")?;
        write!(f, "zebra has {} of the MAC, the bridge {}; ", side(&self.zebra), side(&self.kernel))?;
        write!(f, "truly it is {truth}. {followed} rows of others follow the route")
    }
}

/// Every route of which FRR's own tables say opposite things in this snapshot.
pub(super) fn phantoms(s: &Snapshot, truth: &[Presence]) -> Vec<Phantom> {
    let of = |(i, n): (usize, &NodeFacts)| -> Vec<Phantom> {
        n.originates.iter().filter_map(|r| phantom(s, truth, i, r)).collect()
    };
    s.nodes.iter().enumerate().filter(|(_, n)| n.frr).flat_map(of).collect()
}

/// All three must say that the MAC is at no port there: zebra, the kernel, and the one who moves the VMs.
fn phantom(s: &Snapshot, truth: &[Presence], node: usize, r: &Originated) -> Option<Phantom> {
    let n = &s.nodes[node];
    let home = truth.iter().find(|p| p.mac == r.mac).map(|p| p.home);
    let at_a_port = |place: &String| s.nodes.iter().all(|n| n.address.to_string() != *place);
    let zebra_has_it = n.table(table::FRR_MACS).get(&r.mac).is_some_and(at_a_port);
    let kernel = n.table(table::FDB).get(&bridge_row(&r.mac)).cloned();
    let kernel_has_it = kernel.as_deref().is_some_and(|device| !device.starts_with("vx"));
    if home == Some(node) || zebra_has_it || kernel_has_it {
        return None;
    }
    let ip = r.ip.map(|ip| ip.to_string());
    let truth = home.map_or_else(|| "shut down".to_owned(), |h| format!("at {}", s.nodes[h].name));
    let zebra = n.zebra.get(&r.mac).cloned();
    Some(Phantom {
        node,
        mac: r.mac.clone(),
        ip: r.ip,
        seq: r.seq,
        key: route_key(&n.address.to_string(), &r.mac, ip.as_deref()),
        evidence: Evidence { bgpd: r.printed.clone(), zebra, kernel, truth },
    })
}

/// Routes that contradict FRR's own tables in both snapshots. With time between them, none of it is merely under way.
pub(super) fn proven(earlier: &Snapshot, now: &Snapshot, truth: &[Presence]) -> BTreeSet<String> {
    let keys = |s| phantoms(s, truth).into_iter().map(|p| p.key).collect::<BTreeSet<_>>();
    &keys(earlier) & &keys(now)
}

/// Compares everything with everything. `proven`: routes that count as FRR's fault, as long as they are.
pub(super) fn differences(s: &Snapshot, truth: &[Presence], proven: &BTreeSet<String>) -> Vec<Difference> {
    let all = phantoms(s, truth);
    let phantoms: Vec<&Phantom> = all.iter().filter(|p| proven.contains(&p.key)).collect();
    let mut out = Vec::new();
    for (i, n) in s.nodes.iter().enumerate() {
        for (table, want) in told_tables(s, truth, &phantoms, i) {
            let have = n.table(table);
            let rows: BTreeSet<_> = want.keys().chain(have.keys()).cloned().collect();
            for row in rows {
                let (truth, table_says) = (want.get(&row).cloned(), have.get(&row).cloned());
                let zebras = zebra_forgets(s, n, table, &row, truth.as_deref())
                    || zebra_leaves(n, table, &row, truth.as_deref());
                if truth != table_says && !zebras {
                    out.push(Difference { node: n.name.clone(), table, row, truth, table_says });
                }
            }
        }
    }
    out
}

/// A remote host that zebra's cache lacks although zebra itself has put it into the kernel, and bgpd has its route: FRR 8.4.4
/// does that now and then when the host had been its own under another MAC. All that vtepd can do for it is done.
fn zebra_forgets(s: &Snapshot, n: &NodeFacts, in_table: &str, ip: &str, truth: Option<&str>) -> bool {
    let Some(mac) = truth.and_then(|t| t.strip_suffix(" remote")) else { return false };
    let route = s.nodes.iter().any(|from| {
        let key = route_key(&from.address.to_string(), mac, Some(ip));
        n.table(table::FRR_ROUTES).get(&key).is_some_and(|r| r == "used")
    });
    let lacks = in_table == table::FRR_ARP && !n.table(table::FRR_ARP).contains_key(ip);
    lacks && route && n.table(table::NEIGH).get(ip).is_some_and(|m| m == mac)
}

/// And what comes of it: a row that zebra has put into its kernel, for nobody else marks rows there so, stays when the route
/// goes, because zebra's cache does not have it. bgpd has no route for the address, and the VM is off.
fn zebra_leaves(n: &NodeFacts, in_table: &str, ip: &str, truth: Option<&str>) -> bool {
    let routed = n.table(table::FRR_ROUTES).keys().any(|k| k.split_whitespace().nth(1) == Some(ip));
    let known = ip.parse::<IpAddr>().is_ok();
    known
        && n.frr
        && in_table == table::NEIGH
        && truth.is_none()
        && !routed
        && !n.table(table::FRR_ARP).contains_key(ip)
}

/// Rows that zebra's kernel has and its cache lacks, by the node and the address.
pub(super) fn zebras_own(s: &Snapshot) -> Vec<String> {
    let mut out = Vec::new();
    for n in s.nodes.iter().filter(|n| n.frr) {
        let (kernel, cache) = (n.table(table::NEIGH), n.table(table::FRR_ARP));
        out.extend(kernel.keys().filter(|ip| !cache.contains_key(*ip)).map(|ip| format!("{} {ip}", n.name)));
    }
    out
}

/// What there is to say about proven routes.
pub(super) fn contradictions(
    s: &Snapshot,
    truth: &[Presence],
    proven: &BTreeSet<String>,
) -> Vec<Contradiction> {
    let all = phantoms(s, truth);
    let about = all.iter().filter(|p| proven.contains(&p.key)).map(|p| {
        let Evidence { bgpd, zebra, kernel, truth: is } = p.evidence.clone();
        let followed = (0..s.nodes.len()).filter(|i| *i != p.node).map(|i| followed(s, truth, p, i)).sum();
        let (node, route) = (s.nodes[p.node].name.clone(), p.key.clone());
        Contradiction { node, route, bgpd, zebra, kernel, truth: is, followed }
    });
    about.collect()
}

/// Rows of a node that follow this one route: as BGP has it, and not so without it.
fn followed(s: &Snapshot, truth: &[Presence], p: &Phantom, i: usize) -> usize {
    let told = told_tables(s, truth, &[p], i);
    let pairs = told.into_iter().zip(true_tables(s, truth, i));
    let rows = pairs.flat_map(|((name, told), (_, is))| {
        let have = s.nodes[i].table(name);
        told.into_iter().filter(move |(row, v)| is.get(row) != Some(v) && have.get(row) == Some(v))
    });
    rows.count()
}
