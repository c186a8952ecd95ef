//! Slices of the route table.

use crate::node::Node;
use crate::node::input::{MacFilter, Query};
use crate::node::view::{RouteView, Rows};
use crate::rib::RouteInfo;
use crate::wire::{EvpnRoute, NextHop};

/// Cursors into the route table that are still good.
const CURSORS: usize = 64;
/// Slices of the route table looked at for one answer.
const SLICES_PER_ANSWER: usize = 8;

impl Node {
    pub(super) fn routes(&mut self, q: &Query, limit: usize) -> Result<(Rows, Option<String>), String> {
        let mut from =
            match q.cursor.as_deref() {
                None => None,
                Some(c) => {
                    let n = c.parse::<u64>().ok();
                    let held =
                        n.and_then(|n| self.cursors.iter().find(|(id, _)| *id == n)).map(|(_, c)| c.clone());
                    Some(held.ok_or_else(|| {
                        format!("cursor `{c}` is unknown or too old: start again without one")
                    })?)
                }
            };
        let mut rows = Vec::new();
        // A filtered listing looks at a bounded number of routes per slice.
        for _ in 0..SLICES_PER_ANSWER {
            let found = self.rib.routes_after(from.as_ref(), limit);
            let Some(last) = found.last().map(|r| r.cursor.clone()) else {
                return Ok((Rows::Routes(rows), None));
            };
            let full = found.len() == limit;
            rows.extend(found.iter().filter(|r| route_matches(r, &q.filter)).map(|r| self.route(r)));
            if !full {
                return Ok((Rows::Routes(rows), None));
            }
            from = Some(last);
            if rows.len() >= limit {
                break;
            }
        }
        self.next_cursor += 1;
        if self.cursors.len() == CURSORS {
            self.cursors.pop_front();
        }
        self.cursors.extend(from.map(|c| (self.next_cursor, c)));
        Ok((Rows::Routes(rows), Some(self.next_cursor.to_string())))
    }

    fn route(&self, r: &RouteInfo) -> RouteView {
        let (route_type, rd, label) = match &r.route {
            EvpnRoute::EthernetAd(x) => (1, Some(x.rd), Some(x.label)),
            EvpnRoute::MacIp(x) => (2, Some(x.rd), Some(x.label1)),
            EvpnRoute::Imet(x) => (3, Some(x.rd), r.attrs.pmsi.as_ref().map(|p| p.label)),
            EvpnRoute::EthernetSegment(x) => (4, Some(x.rd), None),
            EvpnRoute::Prefix(x) => (5, Some(x.rd), Some(x.label)),
            EvpnRoute::Smet(x) => (6, Some(x.rd), None),
            EvpnRoute::JoinSync(x) => (7, Some(x.key.rd), None),
            EvpnRoute::LeaveSync(x) => (8, Some(x.key.rd), None),
            EvpnRoute::Unknown(x) => (x.route_type, None, None),
        };
        RouteView {
            route: r.route.to_string(),
            route_type,
            rd: rd.map_or_else(|| "-".into(), |r| r.to_string()),
            from: r.peer.and_then(|p| self.peer_address(p)),
            next_hop: Some(match r.next_hop {
                NextHop::V4(a) => a.into(),
                NextHop::V6(a) | NextHop::V6Both(a, _) => a.into(),
            }),
            vni: label.map(|l| l.0),
            seq: r.seq,
            sticky: r.sticky,
            communities: r.attrs.ext_communities.iter().map(ToString::to_string).collect(),
            imported: r.imported.clone(),
            best: r.best,
            why_not: r.why_not.map(|w| w.to_string()),
        }
    }
}

fn route_matches(r: &RouteInfo, f: &MacFilter) -> bool {
    let (mac, ip) = match &r.route {
        EvpnRoute::MacIp(x) => (Some(x.mac), x.ip),
        EvpnRoute::Imet(x) => (None, Some(x.originator)),
        _ => (None, None),
    };
    let label = match &r.route {
        EvpnRoute::MacIp(x) => x.label1.vni(),
        EvpnRoute::Imet(_) => r.attrs.pmsi.as_ref().and_then(|p| p.label.vni()),
        _ => None,
    };
    f.vni.is_none_or(|v| label == Some(v) || r.imported.contains(&v))
        && f.mac.is_none_or(|m| mac == Some(m))
        && f.ip.is_none_or(|i| ip == Some(i))
}
