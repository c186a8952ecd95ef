//! ARP and ND of each access port in numbers: what was asked there and by whom it is answered, what does not cross the
//! underlay, what was told, probed and refused.
//!
//! The kernel counts none of it. What the tap hears is counted, by the row that the kernel was given for the address: a frame
//! that the tap has lost is in no number, and a row that somebody has deleted counts until it is repaired.

use super::config::Flooding;
use super::view::PortHostsView;
use super::{Node, Segment, Unknown};
use crate::fabric::Row;
use crate::types::{IfIndex, Vni};
use crate::wire::frame::{Body, Frame};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Frames of ARP and ND at one port.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub struct PortHosts {
    /// Questions to all for a remote host: the kernel answers from its row, and they do not cross (PROXY-REPLY-01).
    pub answered: u64,
    /// Announcements, duplicate checks and questions for local hosts that suppression keeps here. What `flooding` and
    /// `unknown-targets` keep is not among them.
    pub suppressed: u64,
    /// Questions to all, and announcements, that cross to every VTEP of the flood list.
    pub flooded: u64,
    /// Sent to tell hosts of a changed MAC (PROXY-LEARN-05).
    pub told: u64,
    /// Questions of ours to its hosts (PROXY-MAINT-02).
    pub probed: u64,
    /// Frames that were not heeded: malformed, with an odd sender, with an address that is not allowed there, or refused by
    /// the forwarding table.
    pub refused: u64,
}

impl PortHosts {
    /// Each with its name in `show` and in the metrics.
    pub fn named(&self) -> [(&'static str, u64); 6] {
        let Self { answered, suppressed, flooded, told, probed, refused } = *self;
        [
            ("answered", answered),
            ("suppressed", suppressed),
            ("flooded", flooded),
            ("told", told),
            ("probed", probed),
            ("refused", refused),
        ]
    }
}

/// All ports that are listened to; no others.
#[derive(Debug, Default)]
pub(super) struct PortCounts {
    ports: BTreeMap<(Vni, IfIndex), PortHosts>,
}

impl PortCounts {
    /// A port is gone: its index may come back as another one's.
    pub(super) fn forget_port(&mut self, vni: Vni, port: IfIndex) {
        self.ports.remove(&(vni, port));
    }
}

/// Something that is said to all.
enum Said {
    Question(IpAddr),
    /// Of itself, or whether somebody else has its address.
    OfItself,
}

/// What becomes of it.
enum Fate {
    Answered,
    Suppressed,
    Flooded,
    /// Carried to its owner or dropped, because nothing is replicated: counted there.
    Other,
}

fn said(f: &Frame) -> Option<Said> {
    if !f.dst.is_multicast() {
        return None;
    }
    match &f.body {
        Body::Arp(a) if a.is_gratuitous() || a.is_probe() => Some(Said::OfItself),
        Body::Arp(a) if !a.reply => Some(Said::Question(a.target_ip.into())),
        Body::NeighborSolicitation(ns) if ns.is_dad() => Some(Said::OfItself),
        Body::NeighborSolicitation(ns) => Some(Said::Question(ns.target.into())),
        Body::NeighborAdvertisement(_) => Some(Said::OfItself),
        Body::Arp(_)
        | Body::Rarp(_)
        | Body::RouterSolicitation(_)
        | Body::RouterAdvertisement(_)
        | Body::Dhcp(_)
        | Body::Other(_) => None,
    }
}

impl Node {
    /// Counts something at a port that is listened to.
    pub(super) fn count_at(&mut self, vni: Vni, port: IfIndex, what: impl FnOnce(&mut PortHosts)) {
        if self.taps.get(&port) == Some(&vni) {
            what(self.port_counts.ports.entry((vni, port)).or_default());
        }
    }

    /// What becomes of a frame that was said to all at a port.
    pub(super) fn count_said(&mut self, vni: Vni, port: IfIndex, f: &Frame) {
        let Some(said) = said(f) else { return };
        let Some(seg) = self.segments.get(&vni).filter(|s| s.ready) else { return };
        let floods = seg.config.flooding == Flooding::Replicate;
        let fate = match said {
            Said::Question(ip) => match self.answering_row(seg, ip) {
                Some(true) => Fate::Answered,
                Some(false) => Fate::Suppressed,
                None if floods && seg.config.hosts.unknown == Unknown::Replicate => Fate::Flooded,
                None => Fate::Other,
            },
            Said::OfItself if seg.config.arp_suppression => Fate::Suppressed,
            Said::OfItself if floods => Fate::Flooded,
            Said::OfItself => Fate::Other,
        };
        self.count_at(vni, port, |c| match fate {
            Fate::Answered => c.answered += 1,
            Fate::Suppressed => c.suppressed += 1,
            Fate::Flooded => c.flooded += 1,
            Fate::Other => {}
        });
    }

    /// Whether the kernel answers a question from its row, or keeps it here because the host is local; `None` without a row.
    fn answering_row(&self, seg: &Segment, ip: IpAddr) -> Option<bool> {
        let row = seg.neigh_key(ip).filter(|k| !self.want.is_dirty(k)).and_then(|k| self.want.get(&k));
        let Some(Row::Neigh { mac, .. }) = row else { return None };
        Some(seg.hosts.macs.get(mac).is_none_or(|e| e.local().is_none()))
    }

    /// Ports where there was anything.
    pub(super) fn port_hosts(&self) -> Vec<PortHostsView> {
        let mut all = self.port_counts.ports.clone();
        for (key, told) in &self.tell.ports {
            all.entry(*key).or_default().told = *told;
        }
        let all = all.into_iter().filter(|(_, hosts)| *hosts != PortHosts::default());
        all.map(|((vni, port), hosts)| PortHostsView { vni, port: self.dev_name(port), hosts }).collect()
    }
}
