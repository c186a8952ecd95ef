//! What a lab looks like: tables, JSON and a picture.

use crate::state::State;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write;

/// One row of `inspect`.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Node.
    pub node: String,
    /// `linux`, `bridge` or `vm`.
    pub kind: String,
    /// Network namespace.
    pub namespace: String,
    /// It exists.
    pub up: bool,
    /// Processes started by the lab that run.
    pub processes: usize,
    /// Where a VM is.
    pub at: Option<String>,
    /// Interface, far end, MTU.
    pub links: Vec<(String, String, u32)>,
    /// Output of its main program.
    pub log: String,
}

/// A lab for `inspect --json`.
#[derive(Clone, Debug, Serialize)]
pub struct View {
    /// Version of this JSON.
    pub version: u32,
    /// Lab name.
    pub name: String,
    /// Prefix of its namespaces.
    pub prefix: String,
    /// Topology file.
    pub topology: String,
    /// Nodes.
    pub nodes: Vec<Row>,
}

/// Looks at a lab.
pub fn view(s: &State) -> View {
    let row = |n: &crate::state::NodeState| {
        let ends = s.links.iter().flat_map(|l| [(&l.a, &l.b, l.mtu), (&l.b, &l.a, l.mtu)]);
        let own = format!("{}:", n.name);
        let links =
            ends.filter_map(|(a, b, mtu)| Some((a.strip_prefix(&own)?.to_owned(), b.clone(), mtu))).collect();
        let alive = s.processes.iter().filter(|t| t.node == n.name && t.process.alive()).count();
        Row {
            node: n.name.clone(),
            kind: if s.vms.contains_key(&n.name) { "vm".to_owned() } else { n.kind.clone() },
            namespace: n.namespace.clone(),
            up: crate::netns::exists(&n.namespace),
            processes: alive,
            at: s.vms.get(&n.name).map(|v| v.at.clone()),
            links,
            log: n.log.display().to_string(),
        }
    };
    View {
        version: 1,
        name: s.name.clone(),
        prefix: s.prefix.clone(),
        topology: s.topology.display().to_string(),
        nodes: s.nodes.iter().map(row).collect(),
    }
}

/// Rows of cells, aligned.
pub fn table(rows: &[Vec<String>]) -> String {
    let mut widths = Vec::new();
    for row in rows {
        for (i, cell) in row.iter().enumerate() {
            let w = cell.chars().count();
            match widths.get_mut(i) {
                None => widths.push(w),
                Some(old) => *old = w.max(*old),
            }
        }
    }
    let mut out = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, w) in row.iter().zip(&widths) {
            let _ = write!(line, "{cell:<w$}  ");
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

/// `inspect` for people.
pub fn text(v: &View) -> String {
    let mut rows = vec![["NODE", "KIND", "NAMESPACE", "UP", "PROGRAMS", "AT"].map(str::to_owned).to_vec()];
    for n in &v.nodes {
        rows.push(vec![
            n.node.clone(),
            n.kind.clone(),
            n.namespace.clone(),
            if n.up { "yes" } else { "no" }.to_owned(),
            n.processes.to_string(),
            n.at.clone().unwrap_or_default(),
        ]);
    }
    format!("lab {} ({})\n{}", v.prefix, v.topology, table(&rows))
}

/// The lab as a picture: every node with what it is joined to. A VM stands below the node where it is.
pub fn graph(s: &State) -> String {
    let v = view(s);
    let mut guests: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (name, vm) in &s.vms {
        guests.entry(&vm.at).or_default().push(name);
    }
    let board = s.switchboard.as_deref();
    let mut out = String::new();
    for n in v.nodes.iter().filter(|n| n.kind != "vm" && Some(n.node.as_str()) != board) {
        let _ = writeln!(out, "[{}]", n.node);
        let wires = n.links.iter().filter_map(|(mine, far, mtu)| {
            let (node, theirs) = far.split_once(':')?;
            (Some(node) != board).then(|| format!("{mine} ────── {theirs} [{node}]  mtu {mtu}"))
        });
        let here = guests.get(n.node.as_str()).into_iter().flatten().map(|vm| {
            let s = &s.vms[*vm];
            let port = s.wiring.socket_at(&n.node).map_or("?", |k| k.port.interface.as_str());
            format!("{port} ══════ ({vm})")
        });
        let free = s.vms.iter().filter(|(_, vm)| vm.at != n.node).filter_map(|(name, vm)| {
            let k = vm.wiring.socket_at(&n.node)?;
            Some(format!("{} ┄┄┄┄┄┄ free, for {name}", k.port.interface))
        });
        let all: Vec<_> = wires.chain(here).chain(free).collect();
        for (i, line) in all.iter().enumerate() {
            let branch = if i + 1 == all.len() { "└─" } else { "├─" };
            let _ = writeln!(out, " {branch} {line}");
        }
    }
    out
}
