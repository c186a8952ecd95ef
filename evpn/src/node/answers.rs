//! Who answers ARP and ND for an address here, and why: for `vtepd show hosts` and `vtepd why ip`. Nothing is decided from
//! it; it reads what the tables decide (PROXY-REPLY-01, -02).

use super::Node;
use super::config::Flooding;
use super::segment::Segment;
use super::view::AnsweredBy;
use crate::fabric::{Row, RowKey};
use crate::hosts::{Binding, Evidence};
use crate::types::{IfIndex, Mac, Time, Vni};
use std::net::IpAddr;

/// Who answers, and why.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Answer {
    pub(super) by: AnsweredBy,
    pub(super) why: String,
}

fn answer(by: AnsweredBy, why: impl Into<String>) -> Answer {
    Answer { by, why: why.into() }
}

impl Node {
    /// A binding has just been taught or confirmed by this; for people.
    pub(super) fn binding_by(&mut self, vni: Vni, mac: Mac, ip: IpAddr, by: Evidence, at: Time) {
        let Some(seg) = self.segments.get_mut(&vni) else { return };
        if seg.hosts.binding(ip).is_some_and(|b| b.mac == mac && b.is_local() && b.confirmed == at) {
            seg.hosts.touch(ip, |b| b.by = by);
        }
    }

    /// Who answers for a bound address. The driver, which sees the kernel's rows, has the last word on a row.
    pub(super) fn answerer(&self, seg: &Segment, ip: IpAddr, b: &Binding) -> Answer {
        let local = seg.hosts.macs.get(&b.mac).and_then(|e| e.local());
        match local {
            Some(l) if b.is_local() => self.local_answerer(seg, b, l.port),
            // Its routes are about to be looked at.
            Some(_) => answer(AnsweredBy::Owner, "its MAC is behind a port here, where it answers itself"),
            None => self.remote_answerer(seg, ip, b),
        }
    }

    fn local_answerer(&self, seg: &Segment, b: &Binding, port: IfIndex) -> Answer {
        let name = self.dev_name(port);
        if self.links.get(&port).is_none_or(|l| !(l.up && l.carrier)) {
            return answer(AnsweredBy::Nobody, format!("port {name} has no carrier"));
        }
        if self.awaits_guest(seg.config.vni, b.mac) {
            let why = format!("it was activated on port {name} and has not been heard yet");
            return answer(AnsweredBy::Nobody, why);
        }
        let why = match b.probes {
            0 => format!("it is behind port {name}: the kernel never answers for a local host"),
            n => format!("it is behind port {name}; it was asked {n} times and has not answered yet"),
        };
        answer(AnsweredBy::Owner, why)
    }

    fn remote_answerer(&self, seg: &Segment, ip: IpAddr, b: &Binding) -> Answer {
        let flooded = seg.config.flooding == Flooding::Replicate;
        // Without a row the bridge floods the question, if it may.
        let without = |why: &str| {
            if flooded {
                answer(AnsweredBy::Owner, format!("{why}: questions are flooded to its VTEP"))
            } else {
                answer(AnsweredBy::Nobody, format!("{why}, and nothing is flooded"))
            }
        };
        if !seg.ready {
            let why = seg.problems.first().map_or("not looked at yet", String::as_str);
            return answer(AnsweredBy::Nobody, format!("the VNI is not ready: {why}"));
        }
        let Some(key) = seg.neigh_key(ip) else { return without("`arp-suppression` is off") };
        match self.want.get(&key) {
            _ if self.want.is_dirty(&key) => without("the kernel's row is still to be written"),
            Some(Row::Neigh { mac, .. }) if *mac == b.mac => {
                answer(AnsweredBy::Kernel, "it has the row of a remote host")
            }
            _ if self.is_mute(seg.config.vni, ip) => without("two hosts have it"),
            _ if self.is_anycast(seg.config.vni, ip, b.mac) => {
                without("it is an anycast address (O=0), for which the kernel has no answer")
            }
            Some(_) | None => without("no row is wanted"),
        }
    }

    /// Addresses for which the kernel answers from a row of an earlier run that nobody has confirmed yet (PIT-27).
    pub(super) fn adopted_after(
        &self,
        seg: &Segment,
        after: Option<IpAddr>,
    ) -> impl Iterator<Item = (IpAddr, Mac)> {
        use std::ops::Bound::{Excluded, Included, Unbounded};
        let least = IpAddr::from([0, 0, 0, 0]);
        let range = seg.bridge.map(|dev| {
            let from = after
                .map_or(Included(RowKey::Neigh { dev, ip: least }), |ip| Excluded(RowKey::Neigh { dev, ip }));
            let rows = self.stale.range((from, Unbounded));
            rows.take_while(move |k| matches!(k, RowKey::Neigh { dev: d, .. } if *d == dev))
        });
        range.into_iter().flatten().filter_map(|key| match key {
            RowKey::Neigh { ip, .. } if seg.hosts.binding(*ip).is_none() => {
                Some((*ip, self.adopted_mac(key)?))
            }
            RowKey::Neigh { .. } | RowKey::Mac { .. } | RowKey::Flood { .. } => None,
        })
    }
}
