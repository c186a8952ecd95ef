//! What forwarding may choose from.

use super::sets::SetIx;
use super::table::{Group, HostKey};
use super::{Candidate, Change, Rib, best};
use crate::types::{EthTag, Label, Mac, Time, Vni};
use crate::wire::{ExtCommunity, RouteKey};
use std::collections::BTreeSet;
use std::net::IpAddr;

impl Rib {
    /// Takes up to `max` changes since the last call, each key once, flood lists first.
    pub fn take_changes(&mut self, max: usize) -> Vec<Change> {
        self.changes.take(max).into_iter().map(|(change, _)| change).collect()
    }

    /// As [`Self::take_changes`]; a MAC comes with the time of its first change since it was taken last.
    pub fn take_timed_changes(&mut self, max: usize) -> Vec<(Change, Time)> {
        self.changes.take(max)
    }

    /// What changes from now on changed at that time.
    pub fn set_time(&mut self, at: Time) {
        self.changes.now = at;
    }

    /// Whether [`Self::take_changes`] has something.
    pub fn has_changes(&self) -> bool {
        !self.changes.is_empty()
    }

    /// Eligible candidates for a MAC, best first (EVPN-BEST-*). Includes MAC+IP routes.
    ///
    /// The sequence is that of each route; the effective one of a VTEP is the newest among its candidates
    /// (EVPN-XMOB-11).
    pub fn mac_candidates(&self, vni: Vni, mac: Mac) -> Vec<Candidate> {
        self.sorted(self.hosts.groups_of(vni).flat_map(|g| g.of_mac(mac)))
    }

    /// Eligible candidates for an IP, whatever the MAC, best first.
    pub fn ip_candidates(&self, vni: Vni, ip: IpAddr) -> Vec<Candidate> {
        self.sorted(self.hosts.groups_of(vni).flat_map(|g| g.of_ip(ip)))
    }

    /// Addresses of a MAC that its VTEPs call contested ([`ExtCommunity::contested`]), by routes that are not stale.
    pub fn contested(&self, vni: Vni, mac: Mac) -> BTreeSet<ExtCommunity> {
        let sets = self.hosts.groups_of(vni).flat_map(|g| g.of_mac(mac)).map(|(_, set)| self.sets.get(set));
        let marks = sets.filter(|s| !s.key.own && !s.rank.stale).flat_map(|s| &s.attrs.ext_communities);
        marks.filter(|c| c.is_contested()).copied().collect()
    }

    /// First of [`Self::mac_candidates`], without a list of them when there is only one.
    pub fn best_mac(&self, vni: Vni, mac: Mac) -> Option<Candidate> {
        self.best_candidate(self.hosts.groups_of(vni).flat_map(|g| g.of_mac(mac)))
    }

    /// First of [`Self::ip_candidates`], without a list of them when there is only one.
    pub fn best_ip(&self, vni: Vni, ip: IpAddr) -> Option<Candidate> {
        self.best_candidate(self.hosts.groups_of(vni).flat_map(|g| g.of_ip(ip)))
    }

    /// Every candidate of a VNI by MAC and IP, unordered among routes of the same host; for audits.
    pub fn candidates(&self, vni: Vni) -> impl Iterator<Item = Candidate> {
        self.hosts.groups_of(vni).flat_map(|g| Group::after(g, None)).map(|(k, s)| self.candidate(k, s))
    }

    /// Flood destinations of a VNI, ascending (EVPN-IMET-03).
    pub fn flood_vteps(&self, vni: Vni) -> Vec<IpAddr> {
        let mut vteps: Vec<IpAddr> = self.flood_targets(vni).map(|(vtep, _)| vtep).collect();
        vteps.dedup();
        vteps
    }

    /// Flood destinations of a VNI with the VNI that each wants to be sent (EVPN-VXLAN-07).
    pub fn flood_targets(&self, vni: Vni) -> impl Iterator<Item = (IpAddr, Label)> {
        use std::net::{Ipv4Addr, Ipv6Addr};
        let first = (vni, IpAddr::V4(Ipv4Addr::UNSPECIFIED), Label(0));
        let last = (vni, IpAddr::V6(Ipv6Addr::from_bits(u128::MAX)), Label(u32::MAX));
        self.others.flood.range(first..=last).map(|((_, vtep, label), _)| (*vtep, *label))
    }

    /// Whether a VTEP has said that it tells its hosts of changed MACs (PIT-17).
    pub fn tells_hosts(&self, vni: Vni, vtep: IpAddr) -> bool {
        self.others.tells.contains_key(&(vni, vtep))
    }

    fn best_candidate(&self, mut routes: impl Iterator<Item = (HostKey, SetIx)>) -> Option<Candidate> {
        let first = routes.next()?;
        match routes.next() {
            None => Some(self.candidate(first.0, first.1)),
            Some(second) => {
                let all = [first, second].into_iter().chain(routes);
                self.sorted(all).into_iter().next()
            }
        }
    }

    fn sorted(&self, mut routes: impl Iterator<Item = (HostKey, SetIx)>) -> Vec<Candidate> {
        let Some(first) = routes.next() else { return Vec::new() };
        let Some(second) = routes.next() else { return vec![self.candidate(first.0, first.1)] };
        let routes = [first, second].into_iter().chain(routes);
        let mut routes: Vec<_> = routes
            .map(|(k, s)| self.contender(k.peer, s, self.hosts.rd(k.rd), (k.host, k.rd, s.0)))
            .collect();
        best::order(&mut routes);
        routes
            .into_iter()
            .map(|c| {
                let (host, rd, set) = c.last;
                self.candidate(HostKey { host, rd, peer: c.peer }, SetIx(set))
            })
            .collect()
    }

    fn candidate(&self, key: HostKey, set: SetIx) -> Candidate {
        let set = self.sets.get(set);
        let (mac, ip) = (key.host.mac(), key.host.ip());
        Candidate {
            peer: key.peer,
            key: RouteKey::MacIp(self.hosts.rd(key.rd), EthTag(0), mac, ip),
            ip,
            vtep: set.rank.vtep,
            label: set.key.label1,
            esi: set.key.esi,
            seq: set.rank.seq,
            sticky: set.rank.sticky,
            gateway: set.rank.gateway,
            router: set.router,
            r#override: set.over,
            immutable: set.immutable,
            ebgp: self.peers.get(&key.peer).is_some_and(|p| !p.ibgp),
            stale: set.rank.stale,
            going: set.going,
        }
    }
}
