//! Slices of the wanted rows.

use super::bad_cursor;
use crate::fabric::{Row, RowKey};
use crate::node::Node;
use crate::node::input::{MacFilter, Query};
use crate::node::view::{KernelView, Rows};

impl Node {
    pub(super) fn kernel(&self, q: &Query, limit: usize) -> Result<(Rows, Option<String>), String> {
        // The cursor is the number of wanted rows passed: rows may shift between slices, `revision` tells.
        let skip = q.cursor.as_deref().map_or(Ok(0), |c| c.parse::<usize>().map_err(|_| bad_cursor(c)))?;
        let mut rows = Vec::new();
        let mut passed = skip;
        for (key, row) in self.want.iter().skip(skip) {
            passed += 1;
            if !self.kernel_matches(key, row, &q.filter) {
                continue;
            }
            rows.push(self.kernel_row(key, Some(row)));
            if rows.len() == limit {
                break;
            }
        }
        let next = (passed < self.want.len()).then(|| passed.to_string());
        Ok((Rows::Kernel(rows), next))
    }

    fn kernel_matches(&self, key: &RowKey, row: &Row, f: &MacFilter) -> bool {
        let dev_vni = |i| self.bridges.get(&i).copied();
        let (vni, mac, ip) = match key {
            RowKey::Mac { bridge, mac } => (dev_vni(*bridge), Some(*mac), None),
            RowKey::Flood { vxlan, vtep } => {
                let vni = self.segments.values().find(|s| s.vxlan == Some(*vxlan)).map(|s| s.config.vni);
                (vni, None, Some(*vtep))
            }
            RowKey::Neigh { dev, ip } => {
                let mac = if let Row::Neigh { mac, .. } = row { Some(*mac) } else { None };
                (dev_vni(*dev), mac, Some(*ip))
            }
        };
        f.vni.is_none_or(|v| Some(v) == vni)
            && f.mac.is_none_or(|m| Some(m) == mac)
            && f.ip.is_none_or(|i| Some(i) == ip)
    }

    pub(in crate::node) fn kernel_row(&self, key: &RowKey, row: Option<&Row>) -> KernelView {
        let (device, kind, name) = match key {
            RowKey::Mac { bridge, mac } => (self.dev_name(*bridge), "mac", mac.to_string()),
            RowKey::Flood { vxlan, vtep } => (self.dev_name(*vxlan), "flood", vtep.to_string()),
            RowKey::Neigh { dev, ip } => (self.dev_name(*dev), "neigh", ip.to_string()),
        };
        let want = match row {
            None => "nothing of ours".into(),
            Some(Row::Remote { vxlan, vtep, sticky }) => {
                format!("{} to {vtep}{}", self.dev_name(*vxlan), if *sticky { " sticky" } else { "" })
            }
            Some(Row::Local { port, .. }) => format!("{} local", self.dev_name(*port)),
            Some(Row::Relayed { vtep, port, .. }) => format!("{} to {vtep}", self.dev_name(*port)),
            Some(Row::Cleared { port }) => format!("nothing on {}", self.dev_name(*port)),
            Some(Row::Own) => format!("{device} local"),
            Some(Row::Flood) => "replicate".into(),
            Some(Row::Neigh { mac, router }) => format!("{mac}{}", if *router { " router" } else { "" }),
        };
        let (stale, wanted) = (self.stale.contains(key), row.is_some());
        KernelView { device, kind: kind.into(), key: name, want, has: None, stale, wanted }
    }
}
