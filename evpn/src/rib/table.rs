//! Where routes lie: Type-2 routes by importing VNIs, all others in one table.

use super::OWN;
use super::sets::SetIx;
use super::slab::Slab;
use crate::types::{EthTag, Label, Mac, PeerId, Rd, Vni};
use crate::wire::{EvpnRoute, RouteKey};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Number of a [`Group`].
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct GroupIx(pub(super) u32);

/// Number of a route distinguisher.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct RdIx(u32);

/// MAC and IP of a Type-2 route in the order of [`RouteKey`]: by MAC, without IP first, IPv4 before IPv6.
///
/// Two integers instead of `(Mac, Option<IpAddr>)`, because they compare in a third of the time.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Host {
    /// MAC in bits 16 to 63; 0, 4 or 6 for the kind of `ip` in bits 0 to 15.
    head: u64,
    ip: u128,
}

impl Host {
    pub(super) fn new(mac: Mac, ip: Option<IpAddr>) -> Self {
        let [a, b, c, d, e, f] = mac.0;
        let mac = u64::from_be_bytes([a, b, c, d, e, f, 0, 0]);
        match ip {
            None => Self { head: mac, ip: 0 },
            Some(IpAddr::V4(ip)) => Self { head: mac | 4, ip: u128::from(ip.to_bits()) },
            Some(IpAddr::V6(ip)) => Self { head: mac | 6, ip: ip.to_bits() },
        }
    }

    pub(super) fn mac(self) -> Mac {
        let [a, b, c, d, e, f, _, _] = self.head.to_be_bytes();
        Mac([a, b, c, d, e, f])
    }

    pub(super) fn ip(self) -> Option<IpAddr> {
        match self.head & 0xffff {
            0 => None,
            4 => Some(IpAddr::V4(Ipv4Addr::from_bits(self.ip as u32))),
            _ => Some(IpAddr::V6(Ipv6Addr::from_bits(self.ip))),
        }
    }

    /// First and last conceivable host of a MAC.
    fn all_of(mac: Mac) -> (Self, Self) {
        let first = Self::new(mac, None);
        (first, Self { head: first.head | 0xffff, ip: u128::MAX })
    }
}

/// A Type-2 route of one neighbour, Ethernet tag 0.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct HostKey {
    pub(super) host: Host,
    pub(super) rd: RdIx,
    pub(super) peer: PeerId,
}

impl HostKey {
    /// The last conceivable route of a host.
    pub(super) const fn last_of(host: Host) -> Self {
        Self { host, rd: RdIx(u32::MAX), peer: OWN }
    }
}

/// An address and a MAC that it is bound to.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
struct Binding {
    kind: u16,
    /// The halves of the address: two words pack better than one of 16 octets.
    ip: [u64; 2],
    mac: Mac,
}

impl Binding {
    fn new(host: Host) -> Self {
        Self { kind: host.head as u16, ip: [(host.ip >> 64) as u64, host.ip as u64], mac: host.mac() }
    }
}

/// Type-2 routes that the same VNIs import.
#[derive(Debug, Default)]
pub(super) struct Group {
    pub(super) vnis: Vec<Vni>,
    /// Sets that point here.
    refs: u32,
    routes: BTreeMap<HostKey, SetIx>,
    bindings: BTreeSet<Binding>,
}

impl Group {
    /// Routes of a MAC, our own included.
    pub(super) fn of_mac(&self, mac: Mac) -> impl Iterator<Item = (HostKey, SetIx)> {
        let (first, last) = Host::all_of(mac);
        self.range(first, last)
    }

    /// Whether routes of more than one VTEP, by their RDs, claim a MAC; ours count.
    pub(super) fn is_claimed_twice(&self, mac: Mac) -> bool {
        let mut rds = self.of_mac(mac).map(|(k, _)| k.rd);
        rds.next().is_some_and(|first| rds.any(|rd| rd != first))
    }

    /// Routes of an address, whatever the MAC, our own included.
    pub(super) fn of_ip(&self, ip: IpAddr) -> impl Iterator<Item = (HostKey, SetIx)> {
        let first = Binding::new(Host::new(Mac::ZERO, Some(ip)));
        let last = Binding { mac: Mac::BROADCAST, ..first };
        self.bindings.range(first..=last).flat_map(move |b| {
            let host = Host::new(b.mac, Some(ip));
            self.range(host, host)
        })
    }

    fn range(&self, first: Host, last: Host) -> impl Iterator<Item = (HostKey, SetIx)> {
        let from = HostKey { host: first, rd: RdIx(0), peer: PeerId(0) };
        let to = HostKey::last_of(last);
        self.routes.range(from..=to).map(|(k, s)| (*k, *s))
    }

    /// Routes after this one, in order.
    pub(super) fn after(&self, key: Option<HostKey>) -> impl Iterator<Item = (HostKey, SetIx)> {
        use core::ops::Bound::{Excluded, Unbounded};
        self.routes.range((key.map_or(Unbounded, Excluded), Unbounded)).map(|(k, s)| (*k, *s))
    }
}

/// A route distinguisher in use.
#[derive(Debug)]
struct RdEntry {
    rd: Rd,
    /// Groups that hold routes with it, and how many; nearly always one.
    groups: Vec<(GroupIx, u32)>,
    /// Holders besides the routes.
    holds: u32,
}

/// All Type-2 routes with Ethernet tag 0.
#[derive(Debug, Default)]
pub(super) struct Hosts {
    groups: Slab<Group>,
    by_vnis: BTreeMap<Vec<Vni>, GroupIx>,
    by_vni: BTreeMap<Vni, Vec<GroupIx>>,
    rds: Slab<RdEntry>,
    by_rd: BTreeMap<Rd, RdIx>,
    len: usize,
}

impl Hosts {
    /// The group of these VNIs, counted.
    pub(super) fn hold_group(&mut self, vnis: Vec<Vni>) -> GroupIx {
        if let Some(&ix) = self.by_vnis.get(&vnis) {
            self.groups.get_mut(ix.0).refs += 1;
            return ix;
        }
        let group = Group { vnis: vnis.clone(), refs: 1, ..Group::default() };
        let ix = GroupIx(self.groups.insert(group));
        for vni in &vnis {
            self.by_vni.entry(*vni).or_default().push(ix);
        }
        self.by_vnis.insert(vnis, ix);
        ix
    }

    pub(super) fn release_group(&mut self, ix: GroupIx) {
        let group = self.groups.get_mut(ix.0);
        group.refs -= 1;
        if group.refs > 0 {
            return;
        }
        debug_assert!(group.routes.is_empty(), "every route holds its set, and the set its group");
        let group = self.groups.remove(ix.0);
        for vni in &group.vnis {
            if let Some(list) = self.by_vni.get_mut(vni) {
                list.retain(|g| *g != ix);
                if list.is_empty() {
                    self.by_vni.remove(vni);
                }
            }
        }
        self.by_vnis.remove(&group.vnis);
    }

    pub(super) fn group(&self, ix: GroupIx) -> &Group {
        self.groups.get(ix.0)
    }

    /// Groups whose routes this VNI imports.
    pub(super) fn groups_of(&self, vni: Vni) -> impl Iterator<Item = &Group> {
        self.by_vni.get(&vni).into_iter().flatten().map(|g| self.groups.get(g.0))
    }

    /// All groups in the order of their numbers.
    pub(super) fn groups(&self) -> impl Iterator<Item = (GroupIx, &Group)> {
        self.groups.iter().map(|(ix, g)| (GroupIx(ix), g))
    }

    pub(super) fn rd(&self, ix: RdIx) -> Rd {
        self.rds.get(ix.0).rd
    }

    pub(super) fn find_rd(&self, rd: Rd) -> Option<RdIx> {
        self.by_rd.get(&rd).copied()
    }

    /// The number of an RD; stays valid until [`Self::release_rd`].
    pub(super) fn hold_rd(&mut self, rd: Rd) -> RdIx {
        if let Some(&ix) = self.by_rd.get(&rd) {
            self.rds.get_mut(ix.0).holds += 1;
            return ix;
        }
        let ix = RdIx(self.rds.insert(RdEntry { rd, groups: Vec::new(), holds: 1 }));
        self.by_rd.insert(rd, ix);
        ix
    }

    pub(super) fn release_rd(&mut self, ix: RdIx) {
        self.rds.get_mut(ix.0).holds -= 1;
        self.drop_rd_if_unused(ix);
    }

    fn drop_rd_if_unused(&mut self, ix: RdIx) {
        let entry = self.rds.get(ix.0);
        if entry.holds == 0 && entry.groups.is_empty() {
            let rd = entry.rd;
            self.rds.remove(ix.0);
            self.by_rd.remove(&rd);
        }
    }

    /// Puts a route into a group, out of any other that held it. Returns what it replaced.
    pub(super) fn insert(&mut self, to: GroupIx, key: HostKey, set: SetIx) -> Option<(GroupIx, SetIx)> {
        use std::collections::btree_map::Entry;
        let group = self.groups.get_mut(to.0);
        match group.routes.entry(key) {
            Entry::Occupied(mut e) => return Some((to, e.insert(set))),
            Entry::Vacant(e) => e.insert(set),
        };
        if key.host.head as u16 != 0 {
            group.bindings.insert(Binding::new(key.host));
        }
        self.len += 1;
        let rd = self.rds.get_mut(key.rd.0);
        let elsewhere = rd.groups.iter().any(|(g, _)| *g != to);
        if let Some((_, n)) = rd.groups.iter_mut().find(|(g, _)| *g == to) {
            *n += 1;
        } else {
            rd.groups.push((to, 1));
        }
        if elsewhere { self.remove_except(Some(to), key) } else { None }
    }

    /// Takes a route out. The number of the RD may be free afterwards.
    pub(super) fn remove(&mut self, key: HostKey) -> Option<(GroupIx, SetIx)> {
        self.remove_except(None, key)
    }

    fn remove_except(&mut self, except: Option<GroupIx>, key: HostKey) -> Option<(GroupIx, SetIx)> {
        let rd = self.rds.get_mut(key.rd.0);
        let mut found = None;
        for (i, (g, _)) in rd.groups.iter().enumerate() {
            if Some(*g) == except {
                continue;
            }
            if let Some(set) = self.groups.get_mut(g.0).routes.remove(&key) {
                found = Some((i, *g, set));
                break;
            }
        }
        let (i, g, set) = found?;
        rd.groups[i].1 -= 1;
        if rd.groups[i].1 == 0 {
            rd.groups.remove(i);
        }
        self.len -= 1;
        let group = self.groups.get_mut(g.0);
        if key.host.head as u16 != 0 && group.range(key.host, key.host).next().is_none() {
            group.bindings.remove(&Binding::new(key.host));
        }
        self.drop_rd_if_unused(key.rd);
        Some((g, set))
    }

    /// Takes out all routes of a neighbour in one sweep. The groups stay until the sets are released.
    pub(super) fn remove_all_of(&mut self, peer: PeerId) -> Vec<(GroupIx, Host, SetIx)> {
        let mut gone = Vec::new();
        let groups: Vec<GroupIx> = self.groups.iter().map(|(ix, _)| GroupIx(ix)).collect();
        for ix in groups {
            let group = self.groups.get_mut(ix.0);
            let first = gone.len();
            let mut rds: BTreeMap<RdIx, u32> = BTreeMap::new();
            group.routes.retain(|k, set| {
                if k.peer == peer {
                    gone.push((ix, k.host, *set));
                    *rds.entry(k.rd).or_insert(0) += 1;
                }
                k.peer != peer
            });
            if group.routes.is_empty() {
                group.bindings.clear();
            } else {
                for (_, host, _) in gone.iter().skip(first).filter(|(_, h, _)| h.ip().is_some()) {
                    if group.range(*host, *host).next().is_none() {
                        group.bindings.remove(&Binding::new(*host));
                    }
                }
            }
            for (rd, n) in rds {
                let groups = &mut self.rds.get_mut(rd.0).groups;
                for (_, count) in groups.iter_mut().filter(|(g, _)| *g == ix) {
                    *count -= n;
                }
                groups.retain(|(_, count)| *count > 0);
                self.drop_rd_if_unused(rd);
            }
        }
        self.len -= gone.len();
        gone
    }

    /// Routes of all neighbours under one key; those with another RD are other routes (EVPN-BEST-04).
    pub(super) fn paths(&self, rd: RdIx, host: Host) -> impl Iterator<Item = (PeerId, SetIx)> {
        self.rds.get(rd.0).groups.iter().flat_map(move |(g, _)| {
            let from = HostKey { host, rd, peer: PeerId(0) };
            let to = HostKey { peer: OWN, ..from };
            self.groups.get(g.0).routes.range(from..=to).map(|(k, s)| (k.peer, *s))
        })
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// No group, no RD, no index entry is left.
    pub(super) fn is_pristine(&self) -> bool {
        self.by_vnis.is_empty() && self.by_vni.is_empty() && self.by_rd.is_empty()
    }
}

/// A route of any other kind, of one neighbour.
#[derive(Debug)]
pub(super) struct OtherPath {
    pub(super) set: SetIx,
    /// The route itself where its key does not say all.
    pub(super) whole: Option<Box<EvpnRoute>>,
}

/// All other routes, and who is flooded to.
#[derive(Debug, Default)]
pub(super) struct Others {
    pub(super) routes: BTreeMap<(RouteKey, PeerId), OtherPath>,
    /// Flood destinations by VNI, VTEP and the VNI to send with; how many IMET routes ask for it.
    pub(super) flood: BTreeMap<(Vni, IpAddr, Label), u32>,
    /// VTEPs that tell their hosts of changed MACs (PIT-17); how many of those routes say so.
    pub(super) tells: BTreeMap<(Vni, IpAddr), u32>,
}

impl Others {
    /// Routes of all neighbours under one key.
    pub(super) fn paths(&self, key: &RouteKey) -> impl Iterator<Item = (PeerId, &OtherPath)> {
        let range = (key.clone(), PeerId(0))..=(key.clone(), OWN);
        self.routes.range(range).map(|((_, p), o)| (*p, o))
    }
}

/// The route without what its key says, if anything is left.
pub(super) fn rest(route: &EvpnRoute) -> Option<Box<EvpnRoute>> {
    match route {
        EvpnRoute::Imet(_) | EvpnRoute::EthernetSegment(_) | EvpnRoute::Unknown(_) => None,
        EvpnRoute::EthernetAd(_)
        | EvpnRoute::MacIp(_)
        | EvpnRoute::Prefix(_)
        | EvpnRoute::Smet(_)
        | EvpnRoute::JoinSync(_)
        | EvpnRoute::LeaveSync(_) => Some(Box::new(route.clone())),
    }
}

/// The route under a key, given what [`rest`] kept of it.
pub(super) fn whole(key: &RouteKey, rest: Option<&EvpnRoute>) -> EvpnRoute {
    // Without a rest the key says all, and then the form for withdrawals is the route.
    rest.map_or_else(|| key.to_withdraw_route(), EvpnRoute::clone)
}

/// A key whose route is in [`Hosts`]: Type 2, Ethernet tag 0.
pub(super) fn host_of(key: &RouteKey) -> Option<(Rd, Host)> {
    match key {
        RouteKey::MacIp(rd, EthTag(0), mac, ip) => Some((*rd, Host::new(*mac, *ip))),
        RouteKey::MacIp(..)
        | RouteKey::EthernetAd(..)
        | RouteKey::Imet(..)
        | RouteKey::EthernetSegment(..)
        | RouteKey::Prefix(..)
        | RouteKey::Smet(..)
        | RouteKey::JoinSync(..)
        | RouteKey::LeaveSync(..)
        | RouteKey::Unknown(..) => None,
    }
}
