//! The tables as people see them.

use super::eligible::WhyNot;
use super::sets::SetIx;
use super::table::{self, GroupIx, Host, HostKey};
use super::{OWN, Rib};
use crate::types::{EthTag, PeerId, Rd, Seq, Vni};
use crate::wire::{Attrs, EvpnRoute, MacIp, NextHop, RouteKey};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

/// A route with what was decided about it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RouteInfo {
    /// Neighbour it came from; `None`: ours.
    pub peer: Option<PeerId>,
    /// The route.
    pub route: EvpnRoute,
    /// Its attributes.
    pub attrs: Arc<Attrs>,
    /// Its next hop.
    pub next_hop: NextHop,
    /// Mobility sequence; `None` without the community or for other types.
    pub seq: Option<Seq>,
    /// Sticky bit.
    pub sticky: bool,
    /// VNIs that import it.
    pub imported: Vec<Vni>,
    /// First of the candidates for its MAC (MAC-only) or IP in the VNI that imports it; for routes that are not
    /// imported, and our own: the one that is passed on.
    pub best: bool,
    /// Why it is not used.
    pub why_not: Option<WhyNot>,
    /// Where to go on after it.
    pub cursor: RouteCursor,
}

/// A place in the table of routes; stays good when routes come and go.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RouteCursor(At);

#[derive(Clone, Debug, Eq, PartialEq)]
enum At {
    Other(RouteKey, PeerId),
    Host(GroupIx, Host, Rd, PeerId),
}

/// What was counted for a neighbour.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct PeerCounters {
    /// Routes in Adj-RIB-In.
    pub routes_in: usize,
    /// Routes that the neighbour has from us.
    pub routes_out: usize,
    /// Routes that were too large for a message (BGP-MSG-03).
    pub oversize: u64,
}

/// What became of a neighbour's routes.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct PeerRoutes {
    /// The best of their key in the BGP table.
    pub best: usize,
    /// Kept and not used, by reason.
    pub filtered: BTreeMap<WhyNot, usize>,
}

impl Rib {
    /// What became of a neighbour's routes. One pass over all tables; for people who ask, not for every turn.
    pub fn peer_routes(&self, peer: PeerId) -> PeerRoutes {
        let mut out = PeerRoutes::default();
        for (_, group) in self.hosts.groups() {
            let (mut host, mut paths) = (None, Vec::new());
            for (key, set) in group.after(None) {
                if host != Some((key.host, key.rd)) {
                    out.best += usize::from(self.is_best_of(peer, &paths));
                    paths.clear();
                    host = Some((key.host, key.rd));
                }
                paths.push((key.peer, set));
                if key.peer == peer {
                    let s = self.sets.get(set);
                    if let Some(why) = s.bar.or(group.vnis.is_empty().then_some(WhyNot::NoTarget)) {
                        *out.filtered.entry(why).or_insert(0) += 1;
                    }
                }
            }
            out.best += usize::from(self.is_best_of(peer, &paths));
        }
        for ((key, from), path) in &self.others.routes {
            if *from == peer {
                let info = self.other_info(key, peer, path);
                out.best += usize::from(info.best);
                if let Some(why) = info.why_not {
                    *out.filtered.entry(why).or_insert(0) += 1;
                }
            }
        }
        out
    }

    /// Routes of one key in one group: the same key in two groups (peers with different route targets) counts
    /// for each of them.
    fn is_best_of(&self, peer: PeerId, paths: &[(PeerId, SetIx)]) -> bool {
        paths.iter().any(|(p, _)| *p == peer)
            && self.best_of(paths.iter().copied()).is_some_and(|(p, _)| p == peer)
    }

    /// Routes of all neighbours and ours.
    pub fn route_count(&self) -> usize {
        self.hosts.len() + self.others.routes.len()
    }

    /// Distinct attribute sets held.
    pub fn attribute_count(&self) -> usize {
        self.sets.len().1
    }

    /// Counters of a neighbour; zero for one that is not configured.
    pub fn counters(&self, peer: PeerId) -> PeerCounters {
        self.peers.get(&peer).map_or_else(PeerCounters::default, |p| PeerCounters {
            routes_in: p.routes_in,
            routes_out: p.out.routes,
            oversize: p.out.oversize,
        })
    }

    /// Whether nothing at all is stored for routes: tests of leaks end with this.
    pub fn is_pristine(&self) -> bool {
        self.route_count() == 0 && self.sets.len() == (0, 0) && self.hosts.is_pristine()
    }

    /// Up to `limit` routes after the cursor: first all but Type 2 by key, then Type 2 by VNI, MAC and IP.
    pub fn routes_after(&self, cursor: Option<&RouteCursor>, limit: usize) -> Vec<RouteInfo> {
        use core::ops::Bound::{Excluded, Unbounded};
        let mut out = Vec::with_capacity(limit.min(256));
        let others_from = match cursor {
            None => Some(Unbounded),
            Some(RouteCursor(At::Other(key, peer))) => Some(Excluded((key.clone(), *peer))),
            Some(RouteCursor(At::Host(..))) => None,
        };
        if let Some(from) = others_from {
            for ((key, peer), path) in self.others.routes.range((from, Unbounded)).take(limit) {
                out.push(self.other_info(key, *peer, path));
            }
        }
        let (first_group, mut after) = match cursor {
            Some(RouteCursor(At::Host(group, host, rd, peer))) => (*group, self.position(*host, *rd, *peer)),
            Some(RouteCursor(At::Other(..))) | None => (GroupIx(0), None),
        };
        for (ix, group) in self.hosts.groups().skip_while(|(ix, _)| *ix < first_group) {
            let from = if ix == first_group { after.take() } else { None };
            for (key, set) in group.after(from).take(limit - out.len()) {
                out.push(self.host_info(ix, key, set));
            }
            if out.len() >= limit {
                break;
            }
        }
        out
    }

    /// The key to go on after. An RD that is gone has no routes left, so any place within the host will do.
    fn position(&self, host: Host, rd: Rd, peer: PeerId) -> Option<HostKey> {
        self.hosts.find_rd(rd).map(|rd| HostKey { host, rd, peer }).or_else(|| Some(HostKey::last_of(host)))
    }

    fn host_info(&self, group: GroupIx, key: HostKey, set: SetIx) -> RouteInfo {
        let s = self.sets.get(set);
        let rd = self.hosts.rd(key.rd);
        let (mac, ip) = (key.host.mac(), key.host.ip());
        let imported = self.hosts.group(group).vnis.clone();
        let best = match (imported.first(), ip) {
            (Some(vni), None) => self
                .best_mac(*vni, mac)
                .is_some_and(|c| c.peer == key.peer && c.key == RouteKey::MacIp(rd, EthTag(0), mac, ip)),
            (Some(vni), Some(ip)) => self.best_ip(*vni, ip).is_some_and(|c| {
                c.peer == key.peer && c.key == RouteKey::MacIp(rd, EthTag(0), mac, Some(ip))
            }),
            (None, _) => self.best_host(key.rd, key.host) == Some((key.peer, set)),
        };
        let why_not = s.bar.or((imported.is_empty() && key.peer != OWN).then_some(WhyNot::NoTarget));
        RouteInfo {
            peer: Some(key.peer).filter(|p| *p != OWN),
            route: EvpnRoute::MacIp(MacIp {
                rd,
                esi: s.key.esi,
                tag: EthTag(0),
                mac,
                ip,
                label1: s.key.label1,
                label2: s.key.label2,
            }),
            attrs: Arc::clone(&s.attrs),
            next_hop: s.key.next_hop,
            seq: s.rank.mobility.then_some(s.rank.seq),
            sticky: s.rank.sticky,
            imported,
            best,
            why_not,
            cursor: RouteCursor(At::Host(group, key.host, rd, key.peer)),
        }
    }

    fn other_info(&self, key: &RouteKey, peer: PeerId, path: &table::OtherPath) -> RouteInfo {
        let s = self.sets.get(path.set);
        let own = peer == OWN;
        let mut imported = self.hosts.group(s.group).vnis.clone();
        let tag = match key {
            RouteKey::MacIp(_, tag, ..) | RouteKey::Imet(_, tag, _) => *tag,
            _ => EthTag(0),
        };
        let is_imet = matches!(key, RouteKey::Imet(..));
        let why_not = if own {
            None
        } else if s.bar.is_some() {
            s.bar
        } else if tag != EthTag(0) {
            Some(WhyNot::EthernetTag)
        } else if is_imet && self.flood_target(key, peer, path.set).is_none() {
            Some(WhyNot::TunnelType)
        } else {
            imported.is_empty().then_some(WhyNot::NoTarget)
        };
        if why_not.is_some() {
            imported.clear();
        }
        RouteInfo {
            peer: Some(peer).filter(|_| !own),
            route: table::whole(key, path.whole.as_deref()),
            attrs: Arc::clone(&s.attrs),
            next_hop: s.key.next_hop,
            seq: None,
            sticky: false,
            imported,
            best: self.best_other(key) == Some((peer, path.set)),
            why_not,
            cursor: RouteCursor(At::Other(key.clone(), peer)),
        }
    }

    /// Whether a neighbour's routes are more than this; what then happens is the caller's decision.
    pub fn exceeds(&self, peer: PeerId, limit: usize) -> bool {
        self.peers.get(&peer).is_some_and(|p| p.routes_in > limit)
    }

    /// Address of a configured neighbour.
    pub fn peer_address(&self, peer: PeerId) -> Option<IpAddr> {
        self.peers.get(&peer).map(|p| p.address)
    }
}
