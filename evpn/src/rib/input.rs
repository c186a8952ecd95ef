//! Routes in: UPDATEs of neighbours and our own originations, with all that follows from a change of one.

use super::best::{self, Contender};
use super::eligible;
use super::out::Dest;
use super::sets::{AttrsIx, SetIx, SetKey};
use super::table::{self, GroupIx, Host, HostKey, OtherPath, RdIx};
use super::{OWN, Rib};
use crate::types::{Esi, EthTag, Label, PeerId, Rd, Seq, Time, Vni};
use crate::wire::{Attrs, EvpnRoute, Family, NextHop, Nlri, RouteKey, Treatment, Update};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::net::IpAddr;
use std::sync::Arc;

/// Best route under one key in the BGP table, and from whom.
pub(super) type Best = Option<(PeerId, SetIx)>;

/// The part that all routes of an UPDATE share, and the set of the last of them.
struct Source {
    peer: PeerId,
    attrs: AttrsIx,
    next_hop: NextHop,
    urgent: bool,
    /// Held.
    last: Option<SetIx>,
    /// Held.
    rd: Option<(Rd, RdIx)>,
}

impl Rib {
    /// An UPDATE arrived, past RFC 7606: with [`Treatment::TreatAsWithdraw`] all its routes go (BGP-ERR-28), with
    /// [`Treatment::Reset`] it is not looked at. Other families than EVPN and route target membership are not looked at either.
    pub fn update(&mut self, peer: PeerId, update: &Update, treatment: Option<Treatment>, at: Time) {
        self.set_time(at);
        if !self.peers.contains_key(&peer) || treatment == Some(Treatment::Reset) {
            return;
        }
        if update.end_of_rib() == Some(Family::EVPN)
            && let Some(p) = self.peers.get_mut(&peer)
        {
            p.end_of_rib = true;
        }
        let rtc = |f: Family| f == Family::RTC;
        if update.reach.as_ref().is_some_and(|r| rtc(r.family))
            || update.unreach.as_ref().is_some_and(|u| rtc(u.family))
        {
            self.take_memberships(peer, update, treatment);
        }
        let evpn = |f: Family, nlri: &'_ Nlri| f == Family::EVPN && matches!(nlri, Nlri::Evpn(_));
        // Withdrawals first: a key in both parts is announced (RFC 4271 §4.3).
        if let Some(u) = update.unreach.as_ref().filter(|u| evpn(u.family, &u.nlri))
            && let Nlri::Evpn(routes) = &u.nlri
        {
            for n in routes {
                self.withdraw_route(peer, &n.route, false);
            }
        }
        if let Some(r) = update.reach.as_ref().filter(|r| evpn(r.family, &r.nlri))
            && let Nlri::Evpn(routes) = &r.nlri
        {
            if treatment == Some(Treatment::TreatAsWithdraw) {
                for n in routes {
                    self.withdraw_route(peer, &n.route, false);
                }
            } else if !routes.is_empty() {
                let attrs = self.sets.intern_attrs(&update.attrs);
                // A reflector passes moves on before tables: those that a neighbour tells after it has told all.
                let moved = update.attrs.mobility().is_some_and(|(seq, _)| seq != Seq::ZERO);
                let urgent = moved && self.end_of_rib(peer);
                let mut source = Source { peer, attrs, next_hop: r.next_hop, urgent, last: None, rd: None };
                for n in routes {
                    self.announce(&mut source, &n.route);
                }
                self.finish(source);
            }
        }
    }

    /// Our own route, new or replaced. `urgent`: before all other traffic to the peers (a move).
    /// An identical re-origination causes no churn (BGP-UPD-07).
    pub fn originate(&mut self, route: EvpnRoute, attrs: Arc<Attrs>, next_hop: NextHop, urgent: bool) {
        let attrs = self.sets.intern_attrs_arc(attrs);
        let mut source = Source { peer: OWN, attrs, next_hop, urgent, last: None, rd: None };
        self.announce(&mut source, &route);
        self.finish(source);
    }

    /// Withdraw our own route. One that is not there is no error (EVPN-NLRI-10).
    pub fn withdraw(&mut self, key: &RouteKey, urgent: bool) {
        self.withdraw_key(OWN, key, urgent);
    }

    fn announce(&mut self, source: &mut Source, route: &EvpnRoute) {
        match route {
            EvpnRoute::MacIp(r) if r.tag == EthTag(0) => {
                let set = self.set_for(source, r.esi, r.label1, r.label2);
                self.put_host(source, r.rd, Host::new(r.mac, r.ip), set);
            }
            // EVPN-IMET-04: without PMSI treat-as-withdraw, for this route alone.
            EvpnRoute::Imet(_) if source.peer != OWN && self.sets.attrs(source.attrs).pmsi.is_none() => {
                self.withdraw_key(source.peer, &route.key(), source.urgent);
            }
            EvpnRoute::MacIp(_)
            | EvpnRoute::Imet(_)
            | EvpnRoute::EthernetAd(_)
            | EvpnRoute::EthernetSegment(_)
            | EvpnRoute::Prefix(_)
            | EvpnRoute::Smet(_)
            | EvpnRoute::JoinSync(_)
            | EvpnRoute::LeaveSync(_)
            | EvpnRoute::Unknown(_) => {
                let set = self.set_for(source, Esi::ZERO, Label(0), None);
                self.put_other(source, route, set);
            }
        }
    }

    /// The set for one route of an UPDATE; held by `source` until the next one differs.
    fn set_for(&mut self, source: &mut Source, esi: Esi, label1: Label, label2: Option<Label>) -> SetIx {
        let own = source.peer == OWN;
        let (attrs, next_hop) = (source.attrs, source.next_hop);
        let key = SetKey { attrs, next_hop, esi, label1, label2, own, stale: false };
        if let Some(last) = source.last {
            if self.sets.get(last).key == key {
                return last;
            }
            self.release_set(last);
        }
        let set = self.sets.find(&key).unwrap_or_else(|| {
            let attrs = self.sets.attrs(key.attrs);
            let bar = if own { None } else { eligible::bar(&self.config, attrs, key.next_hop) };
            let vnis =
                if own || bar.is_some() { Vec::new() } else { self.targets.imports(&attrs.ext_communities) };
            let group = self.hosts.hold_group(vnis);
            self.sets.add(key, bar, group)
        });
        source.last = Some(set);
        set
    }

    fn finish(&mut self, source: Source) {
        if let Some(set) = source.last {
            self.release_set(set);
        }
        if let Some((_, rd)) = source.rd {
            self.hosts.release_rd(rd);
        }
        self.sets.release_attrs(source.attrs);
    }

    pub(super) fn release_set(&mut self, set: SetIx) {
        if let Some(group) = self.sets.release(set) {
            self.hosts.release_group(group);
        }
    }

    fn put_host(&mut self, source: &mut Source, rd: Rd, host: Host, set: SetIx) {
        let visible = self.visible(source.peer);
        let ix = match source.rd {
            Some((held, ix)) if held == rd => ix,
            other => {
                if let Some((_, ix)) = other {
                    self.hosts.release_rd(ix);
                }
                let ix = self.hosts.hold_rd(rd);
                source.rd = Some((rd, ix));
                ix
            }
        };
        let before = if visible { self.best_host(ix, host) } else { None };
        let group = self.sets.get(set).group;
        let old = self.hosts.insert(group, HostKey { host, rd: ix, peer: source.peer }, set);
        if old.is_none_or(|(_, s)| s != set) {
            self.sets.retain(set);
            if source.peer != OWN {
                self.mark_mac(group, host);
                if let Some((g, _)) = old.filter(|(g, _)| *g != group) {
                    self.mark_mac(g, host);
                }
            }
            if old.is_none() {
                self.count_in(source.peer, 1);
            }
            if visible {
                let after = self.best_host(ix, host);
                if before != after {
                    self.due(Dest::Host { host, rd }, before, after, source.urgent);
                }
            }
            if let Some((_, s)) = old {
                self.release_set(s);
            }
        }
    }

    fn put_other(&mut self, source: &Source, route: &EvpnRoute, set: SetIx) {
        let peer = source.peer;
        let path = OtherPath { set, whole: table::rest(route) };
        let at = (route.key(), peer);
        if self.others.routes.get(&at).is_some_and(|o| o.set == set && o.whole == path.whole) {
            return;
        }
        let visible = self.visible(peer);
        let before = if visible { self.best_other(&at.0) } else { None };
        self.sets.retain(set);
        // In before out, so that a destination that stays causes no change.
        self.flood(&at.0, peer, set, true);
        let old = self.others.routes.insert(at.clone(), path);
        match &old {
            Some(old) => self.flood(&at.0, peer, old.set, false),
            None => self.count_in(peer, 1),
        }
        if visible {
            let after = self.best_other(&at.0);
            // The same set may come with another rest (labels, flags).
            if before != after || after == Some((peer, set)) {
                self.due(Dest::Other(Box::new(at.0)), before, after, source.urgent);
            }
        }
        if let Some(old) = old {
            self.release_set(old.set);
        }
    }

    /// EVPN-NLRI-09: only the key counts.
    fn withdraw_route(&mut self, peer: PeerId, route: &EvpnRoute, urgent: bool) {
        if let EvpnRoute::MacIp(r) = route
            && r.tag == EthTag(0)
        {
            self.remove_host(peer, r.rd, Host::new(r.mac, r.ip), urgent);
        } else {
            self.withdraw_key(peer, &route.key(), urgent);
        }
    }

    fn withdraw_key(&mut self, peer: PeerId, key: &RouteKey, urgent: bool) {
        match table::host_of(key) {
            Some((rd, host)) => self.remove_host(peer, rd, host, urgent),
            None => self.remove_other(peer, key, urgent),
        }
    }

    pub(super) fn remove_host(&mut self, peer: PeerId, rd: Rd, host: Host, urgent: bool) {
        let Some(ix) = self.hosts.find_rd(rd) else { return };
        let visible = self.visible(peer);
        let before = if visible { self.best_host(ix, host) } else { None };
        let Some((group, set)) = self.hosts.remove(HostKey { host, rd: ix, peer }) else { return };
        self.count_in(peer, -1);
        if peer != OWN {
            self.mark_mac(group, host);
        }
        if visible {
            // The last route of an RD takes its number along.
            let after = self.hosts.find_rd(rd).and_then(|ix| self.best_host(ix, host));
            if before != after {
                self.due(Dest::Host { host, rd }, before, after, urgent);
            }
        }
        self.release_set(set);
    }

    pub(super) fn remove_other(&mut self, peer: PeerId, key: &RouteKey, urgent: bool) {
        let at = (key.clone(), peer);
        if !self.others.routes.contains_key(&at) {
            return;
        }
        let visible = self.visible(peer);
        let before = if visible { self.best_other(key) } else { None };
        let Some(old) = self.others.routes.remove(&at) else { return };
        self.count_in(peer, -1);
        self.flood(key, peer, old.set, false);
        if visible {
            let after = self.best_other(key);
            if before != after {
                self.due(Dest::Other(Box::new(at.0)), before, after, urgent);
            }
        }
        self.release_set(old.set);
    }

    /// All routes of a neighbour go.
    pub(super) fn drop_routes_of(&mut self, peer: PeerId) {
        if self.visible(peer) {
            let hosts: Vec<(Rd, Host)> = self
                .hosts
                .groups()
                .flat_map(|(_, g)| g.after(None))
                .filter(|(k, _)| k.peer == peer)
                .map(|(k, _)| (self.hosts.rd(k.rd), k.host))
                .collect();
            for (rd, host) in hosts {
                self.remove_host(peer, rd, host, false);
            }
        } else {
            // Nobody is told, so one sweep will do: a session with 100,000 routes must not hold up the others.
            for (group, host, set) in self.hosts.remove_all_of(peer) {
                self.count_in(peer, -1);
                self.mark_mac(group, host);
                self.release_set(set);
            }
        }
        let others: Vec<RouteKey> =
            self.others.routes.keys().filter(|(_, p)| *p == peer).map(|(k, _)| k.clone()).collect();
        for key in others {
            self.remove_other(peer, &key, false);
        }
    }

    /// Import policy changed: sets that now belong to other VNIs move with all their routes.
    pub(super) fn reimport(&mut self) {
        let mut moved: BTreeMap<SetIx, (GroupIx, Vec<Vni>)> = BTreeMap::new();
        for (ix, set) in self.sets.iter().filter(|(_, s)| !s.key.own && s.bar.is_none()) {
            let vnis = self.targets.imports(&set.attrs.ext_communities);
            if vnis != self.hosts.group(set.group).vnis {
                moved.insert(ix, (set.group, vnis));
            }
        }
        if moved.is_empty() {
            return;
        }
        let others: Vec<(RouteKey, PeerId, SetIx)> = self
            .others
            .routes
            .iter()
            .filter(|(_, o)| moved.contains_key(&o.set))
            .map(|((k, p), o)| (k.clone(), *p, o.set))
            .collect();
        let hosts: Vec<(HostKey, SetIx)> = self
            .hosts
            .groups()
            .flat_map(|(_, g)| g.after(None))
            .filter(|(_, s)| moved.contains_key(s))
            .collect();
        for (key, peer, set) in &others {
            self.flood(key, *peer, *set, false);
        }
        let mut left = Vec::with_capacity(moved.len());
        for (ix, (old, vnis)) in moved {
            self.sets.get_mut(ix).group = self.hosts.hold_group(vnis);
            left.push(old);
        }
        for (key, peer, set) in &others {
            self.flood(key, *peer, *set, true);
        }
        for (key, set) in hosts {
            let group = self.sets.get(set).group;
            let from = self.hosts.insert(group, key, set);
            self.mark_mac(group, key.host);
            if let Some((from, _)) = from {
                self.mark_mac(from, key.host);
            }
        }
        for group in left {
            self.hosts.release_group(group);
        }
    }

    pub(super) fn mark_mac(&mut self, group: GroupIx, host: Host) {
        let group = self.hosts.group(group);
        // MAC-only and MAC+IP of one VTEP are the usual two.
        let moved = group.is_claimed_twice(host.mac());
        for vni in &group.vnis {
            self.changes.mac(*vni, host.mac(), moved);
        }
    }

    /// Counts an IMET route in or out as a flood destination (EVPN-IMET-06).
    pub(super) fn flood(&mut self, key: &RouteKey, peer: PeerId, set: SetIx, add: bool) {
        let Some((vtep, label)) = self.flood_target(key, peer, set) else { return };
        let tells = self.sets.get(set).attrs.tells_hosts();
        for vni in &self.hosts.group(self.sets.get(set).group).vnis {
            let at = (*vni, vtep, label);
            if tells {
                count(&mut self.others.tells, (*vni, vtep), add);
            }
            if count(&mut self.others.flood, at, add) {
                self.changes.flood(*vni, vtep);
            }
        }
    }

    /// EVPN-IMET-03, -05: the BGP next hop, with the label of the PMSI attribute, if that is ingress replication.
    pub(super) fn flood_target(&self, key: &RouteKey, peer: PeerId, set: SetIx) -> Option<(IpAddr, Label)> {
        const INGRESS_REPLICATION: u8 = 6;
        let set = self.sets.get(set);
        let pmsi = set.attrs.pmsi.as_ref().filter(|p| p.tunnel_type == INGRESS_REPLICATION)?;
        let is_imet = matches!(key, RouteKey::Imet(_, EthTag(0), _));
        (is_imet && peer != OWN).then_some((set.rank.vtep, pmsi.label))
    }

    fn count_in(&mut self, peer: PeerId, by: isize) {
        if let Some(p) = self.peers.get_mut(&peer) {
            p.routes_in = p.routes_in.saturating_add_signed(by);
        }
    }

    /// Best route of the BGP table under a Type-2 key.
    pub(super) fn best_host(&self, rd: RdIx, host: Host) -> Best {
        self.best_of(self.hosts.paths(rd, host))
    }

    /// Best route of the BGP table under any other key.
    pub(super) fn best_other(&self, key: &RouteKey) -> Best {
        self.best_of(self.others.paths(key).map(|(p, o)| (p, o.set)))
    }

    /// Ours wins over any other; those that loop or have no usable next hop do not count.
    pub(super) fn best_of(&self, paths: impl Iterator<Item = (PeerId, SetIx)>) -> Best {
        let mut first = None;
        let mut more = Vec::new();
        for (peer, set) in paths {
            if peer == OWN {
                return Some((peer, set));
            }
            if self.sets.get(set).bar.is_some_and(eligible::WhyNot::bars_bgp) {
                continue;
            }
            match first {
                None => first = Some((peer, set)),
                Some(one) => {
                    if more.is_empty() {
                        more.push(self.contender(one.0, one.1, Rd::default(), one.1.0));
                    }
                    more.push(self.contender(peer, set, Rd::default(), set.0));
                }
            }
        }
        if more.is_empty() {
            return first;
        }
        best::order(&mut more);
        more.first().map(|c| (c.peer, SetIx(c.last)))
    }

    pub(super) fn contender<T>(&self, peer: PeerId, set: SetIx, rd: Rd, last: T) -> Contender<'_, T> {
        let p = self.peers.get(&peer);
        Contender {
            rank: &self.sets.get(set).rank,
            ebgp: p.is_some_and(|p| !p.ibgp),
            id: p.map_or(std::net::Ipv4Addr::UNSPECIFIED, |p| p.id),
            peer,
            address: p.map_or(IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), |p| p.address),
            rd,
            last,
        }
    }
}

/// One more or one less; returns whether it is the first, or was the last.
fn count<K: Ord>(counts: &mut BTreeMap<K, u32>, key: K, add: bool) -> bool {
    match counts.entry(key) {
        Entry::Vacant(e) => {
            if add {
                e.insert(1);
            }
            add
        }
        Entry::Occupied(mut e) if add => {
            *e.get_mut() += 1;
            false
        }
        Entry::Occupied(mut e) => {
            *e.get_mut() -= 1;
            let last = *e.get() == 0;
            if last {
                e.remove();
            }
            last
        }
    }
}
