//! `show hosts`: who has which address, how that is known, and who answers for it.

use super::{bad_cursor, ip_cursor};
use crate::hosts::Binding;
use crate::node::input::{MacFilter, Query};
use crate::node::view::{AnsweredBy, HostView, Rows};
use crate::node::{Node, Segment};
use crate::types::{Mac, Time};
use std::net::IpAddr;

impl Node {
    /// A slice in order of VNI and address: bindings, and rows of an earlier run that answer without one.
    pub(in crate::node) fn hosts(
        &self,
        q: &Query,
        limit: usize,
        at: Time,
    ) -> Result<(Rows, Option<String>), String> {
        let start = match q.cursor.as_deref() {
            None => None,
            Some(c) => Some(ip_cursor(c).ok_or_else(|| bad_cursor(c))?),
        };
        let mut rows: Vec<HostView> = Vec::new();
        for (vni, seg) in &self.segments {
            if q.filter.vni.is_some_and(|v| v != *vni) || start.is_some_and(|(v, _)| *vni < v) {
                continue;
            }
            let after = start.filter(|(v, _)| v == vni).map(|(_, ip)| ip);
            let mut here = bound(seg, &q.filter, after).peekable();
            let mut adopted = self.adopted_after(seg, after).peekable();
            loop {
                let first_adopted = match (here.peek(), adopted.peek()) {
                    (None, None) => break,
                    (Some((ip, _)), Some((other, _))) => other < ip,
                    (Some(_), None) => false,
                    (None, Some(_)) => true,
                };
                let row = if first_adopted {
                    adopted.next().map(|(ip, mac)| self.adopted_host(seg, ip, mac, at))
                } else {
                    here.next().map(|(ip, b)| self.host(seg, ip, &b, at))
                };
                let Some(row) = row.filter(|r| matches(&q.filter, r)) else { continue };
                if rows.len() == limit {
                    let next = rows.last().map(|r| format!("{}/{}", r.vni, r.ip));
                    return Ok((Rows::Hosts(rows), next));
                }
                rows.push(row);
            }
        }
        Ok((Rows::Hosts(rows), None))
    }

    fn host(&self, seg: &Segment, ip: IpAddr, b: &Binding, at: Time) -> HostView {
        let answer = self.answerer(seg, ip, b);
        let vni = seg.config.vni;
        HostView {
            vni,
            ip,
            mac: b.mac,
            place: self.place_of(seg, b.mac),
            origin: b.known_by().into(),
            age: at.since(b.since),
            confirmed: Some(at.since(b.confirmed)),
            answered_by: answer.by,
            answered_why: answer.why,
            router: b.router,
            immutable: seg.is_static_host(b.mac, ip) || self.is_immutable(seg, b.mac, ip),
            duplicate: self.duplicated.marks(vni, b.mac, Some(ip)),
            bridge: seg.config.bridge.clone(),
        }
    }

    fn adopted_host(&self, seg: &Segment, ip: IpAddr, mac: Mac, at: Time) -> HostView {
        HostView {
            vni: seg.config.vni,
            ip,
            mac,
            place: self.place_of(seg, mac),
            origin: "adopted".into(),
            age: at.since(self.started),
            confirmed: None,
            answered_by: AnsweredBy::Kernel,
            answered_why: "its row was found at the start, and no peer has confirmed it yet".into(),
            router: false,
            immutable: false,
            duplicate: false,
            bridge: seg.config.bridge.clone(),
        }
    }
}

fn matches(f: &MacFilter, r: &HostView) -> bool {
    f.ip.is_none_or(|ip| ip == r.ip) && f.mac.is_none_or(|m| m == r.mac) && f.place.matches(&r.place)
}

/// Bindings after an address; those of one MAC or one address without reading the others.
fn bound<'a>(
    seg: &'a Segment,
    f: &MacFilter,
    after: Option<IpAddr>,
) -> impl Iterator<Item = (IpAddr, Binding)> + use<'a> {
    let some = match (f.ip, f.mac) {
        (Some(ip), _) => Some(vec![ip]),
        (None, Some(mac)) => Some(seg.hosts.ips_of(mac)),
        (None, None) => None,
    };
    let all = some.is_none().then(|| seg.hosts.bindings_after(after).map(|(ip, b)| (*ip, *b)));
    let some = some.into_iter().flatten().filter(move |ip| after.is_none_or(|a| *ip > a));
    let some = some.filter_map(|ip| Some((ip, *seg.hosts.binding(ip)?)));
    some.chain(all.into_iter().flatten())
}
