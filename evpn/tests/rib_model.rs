//! The RIB against a model that is a plain list of routes, under random announcements, withdrawals, sessions
//! that come and go, and slow readers.

#![allow(clippy::unwrap_used)]

mod rib_support;

use evpn::rib::{Candidate, Change, Import, Rib};
use evpn::types::{PeerId, RouterId, Time};
use evpn::wire::{Attrs, Community, EvpnRoute, ExtCommunity, NextHop, RouteKey};
use proptest::prelude::*;
use rib_support::*;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

const PEERS: [u8; 6] = [2, 3, 4, 5, 6, 7];
/// Neighbours of our AS that are clients where we reflect.
const CLIENTS: [u8; 2] = [3, 7];
const OWN: u8 = 1;

const fn ibgp(n: u8) -> bool {
    n != 4 && n != 5
}

/// One route as it came.
#[derive(Clone, Debug)]
struct Kept {
    from: u8,
    route: EvpnRoute,
    attrs: Attrs,
    next_hop: Ipv4Addr,
}

/// The RIB as a list.
#[derive(Clone, Debug, Default)]
struct Model {
    kept: Vec<Kept>,
    clients: BTreeSet<u8>,
    vnis: BTreeSet<u32>,
}

impl Model {
    fn remove(&mut self, from: u8, key: &RouteKey) {
        self.kept.retain(|k| k.from != from || k.route.key() != *key);
    }

    fn put(&mut self, from: u8, route: EvpnRoute, attrs: Attrs, next_hop: Ipv4Addr) {
        self.remove(from, &route.key());
        self.kept.push(Kept { from, route, attrs, next_hop });
    }

    fn loops(k: &Kept) -> bool {
        let own_as = k.attrs.as_path.iter().flat_map(|p| &p.0).any(|s| s.asns.contains(&OUR_AS));
        let back = k.attrs.originator_id == Some(OUR_VTEP) || k.attrs.cluster_list.contains(&OUR_VTEP);
        k.from != OWN && (own_as || back || k.next_hop == OUR_VTEP)
    }

    fn imported(&self, k: &Kept, vni: u32) -> bool {
        let target = ExtCommunity::rt_as2(65000, vni);
        let other_as = ExtCommunity::rt_as2(64999, vni);
        k.from != OWN
            && !Self::loops(k)
            && self.vnis.contains(&vni)
            && k.attrs.ext_communities.iter().any(|c| *c == target || *c == other_as)
    }

    /// Best first: the best of those left, again and again.
    fn sort(mut left: Vec<&Kept>) -> Vec<&Kept> {
        let mut out = Vec::new();
        while !left.is_empty() {
            let best = Self::best(&left);
            out.push(left.remove(best));
        }
        out
    }

    /// Elimination as RFC 4271 §9.1.2.2 writes it, EVPN rules first.
    fn best(routes: &[&Kept]) -> usize {
        let mut left: Vec<usize> = (0..routes.len()).collect();
        let keep_min = |left: &mut Vec<usize>, f: &dyn Fn(&Kept) -> i64| {
            let min = left.iter().map(|i| f(routes[*i])).min().unwrap();
            left.retain(|i| f(routes[*i]) == min);
        };
        let stale = |k: &Kept| k.attrs.communities.contains(&Community(0xffff_0006));
        let gateway = |k: &Kept| k.attrs.default_gateway();
        let mobility = |k: &Kept| k.attrs.mobility().map_or((0, false), |(s, sticky)| (s.0, sticky));
        keep_min(&mut left, &|k| i64::from(stale(k)));
        keep_min(&mut left, &|k| i64::from(!gateway(k)));
        keep_min(&mut left, &|k| i64::from(!mobility(k).1));
        // All numbers here lie within a half circle around zero.
        keep_min(&mut left, &|k| -i64::from(mobility(k).0.cast_signed()));
        keep_min(&mut left, &|k| i64::from(u32::from(k.next_hop)));
        keep_min(&mut left, &|k| -i64::from(if ibgp(k.from) { k.attrs.local_pref.unwrap() } else { 100 }));
        keep_min(&mut left, &|k| k.attrs.as_path.as_ref().unwrap().count().try_into().unwrap());
        let asn = |k: &Kept| k.attrs.as_path.as_ref().unwrap().first();
        let med = |k: &Kept| k.attrs.med.unwrap_or(0);
        let all = left.clone();
        left.retain(|i| {
            let worse = |j: &usize| asn(routes[*j]) == asn(routes[*i]) && med(routes[*j]) < med(routes[*i]);
            !all.iter().any(worse)
        });
        keep_min(&mut left, &|k| i64::from(ibgp(k.from)));
        let id: fn(&Kept) -> RouterId = |k| k.attrs.originator_id.unwrap_or(vtep(k.from));
        keep_min(&mut left, &|k| i64::from(u32::from(id(k))));
        keep_min(&mut left, &|k| k.attrs.cluster_list.len().try_into().unwrap());
        keep_min(&mut left, &|k| i64::from(k.from));
        left.sort_by_key(|i| routes[*i].route.key());
        left[0]
    }

    fn candidates(&self, vni: u32, want: &dyn Fn(&EvpnRoute) -> bool) -> Vec<(u8, RouteKey)> {
        let routes = self.kept.iter().filter(|k| self.imported(k, vni) && want(&k.route)).collect();
        Self::sort(routes).into_iter().map(|k| (k.from, k.route.key())).collect()
    }

    fn flood(&self, vni: u32) -> Vec<IpAddr> {
        let imets = self.kept.iter().filter(|k| matches!(k.route, EvpnRoute::Imet(_)));
        let heads = imets.filter(|k| k.attrs.pmsi.as_ref().is_some_and(|p| p.tunnel_type == 6));
        let vteps: BTreeSet<IpAddr> =
            heads.filter(|k| self.imported(k, vni)).map(|k| k.next_hop.into()).collect();
        vteps.into_iter().collect()
    }

    /// What neighbour `to` should have.
    fn exported(&self, to: u8) -> BTreeMap<RouteKey, (EvpnRoute, Attrs, NextHop)> {
        let mut keys: BTreeMap<RouteKey, Vec<&Kept>> = BTreeMap::new();
        for k in self.kept.iter().filter(|k| !Self::loops(k)) {
            keys.entry(k.route.key()).or_default().push(k);
        }
        let mut out = BTreeMap::new();
        for (key, routes) in keys {
            let own = routes.iter().find(|k| k.from == OWN).copied();
            let best = own.unwrap_or_else(|| routes[Self::best(&routes)]);
            let no_export = best.attrs.communities.contains(&Community(0xffff_ff01));
            let stale = best.attrs.communities.contains(&Community(0xffff_0006));
            let between = best.from != OWN && ibgp(best.from) && ibgp(to);
            // BGP-DEC-05, BGP-RR-01
            let inside = between && !self.clients.contains(&best.from) && !self.clients.contains(&to);
            if best.from == to || inside || stale || (no_export && !ibgp(to)) {
                continue;
            }
            let mut a = best.attrs.clone();
            if ibgp(to) {
                a.local_pref = a.local_pref.or(Some(100));
                if between {
                    a.originator_id = a.originator_id.or(Some(vtep(best.from)));
                    a.cluster_list.insert(0, OUR_VTEP);
                }
            } else {
                a.local_pref = None;
                a.as_path = Some(a.as_path.unwrap().prepended(OUR_AS));
                a.med = a.med.filter(|_| best.from == OWN);
                a.originator_id = None;
                a.cluster_list.clear();
            }
            out.insert(key, (best.route.clone(), a, NextHop::V4(best.next_hop)));
        }
        out
    }
}

#[derive(Clone, Debug)]
enum Step {
    Announce { from: u8, attrs: Attrs, next_hop: u8, routes: Vec<EvpnRoute> },
    Withdraw { from: u8, routes: Vec<EvpnRoute> },
    Originate { attrs: Attrs, route: EvpnRoute, urgent: bool },
    Retract { route: EvpnRoute, urgent: bool },
    Down(u8),
    Up(u8),
    Refresh(u8),
    Read { peer: u8, messages: usize, max: usize },
    AddVni(u32),
    RemoveVni(u32),
}

/// Few keys, so that they meet. RD 9 is used by everybody.
fn any_route() -> impl Strategy<Value = EvpnRoute> {
    let rd = prop_oneof![Just(rd(9, 1)), Just(rd(9, 2))];
    prop_oneof![
        6 => (rd.clone(), 1..4u32, prop::option::of(1..3u32))
            .prop_map(|(rd, m, i)| mac_ip(rd, mac(m), i.map(ip))),
        1 => rd.prop_map(|rd| imet(rd, vtep(9))),
    ]
}

fn any_attrs(from: u8) -> impl Strategy<Value = Attrs> {
    let seqs = prop::sample::select(vec![0u32, 1, 2, u32::MAX]);
    let marks = (prop::option::of(seqs), 0..8u8, 0..3u8);
    (marks, 0..8u8, 0..2u32, 0..3u32, prop::bool::ANY, 0..6u8).prop_map(
        move |((seq, mark, targets), path, lp, med, pim, cluster)| {
            let mut a = bare();
            if targets != 1 {
                a = a.target(ExtCommunity::rt_as2(65000, 100));
            }
            if targets > 0 {
                a = a.target(ExtCommunity::rt_as2(64999, 200));
            }
            a = match mark {
                0 => a.community(ExtCommunity::DEFAULT_GATEWAY),
                1 => a.sticky(),
                2 => a.with(|a| a.communities.push(Community(0xffff_0006))),
                3 => a.with(|a| a.communities.push(Community(0xffff_ff01))),
                _ => a,
            };
            if let Some(n) = seq {
                a = a.seq(n);
            }
            let outside = u32::from(from) + 65100;
            a = match path {
                0 if from != OWN => a.path(&[outside, 65000]),
                1 => a.path(&[outside, 7]),
                2 => a.path(&[8]),
                _ if ibgp(from) || from == OWN => a,
                _ => a.path(&[outside]),
            };
            a = a.pmsi(if pim { 3 } else { 6 }, vtep(from));
            a.with(|a| {
                a.local_pref = ibgp(from).then_some(100 + lp);
                a.med = (med > 0).then_some(med);
                if ibgp(from) {
                    a.originator_id = (cluster > 3).then_some(vtep(200));
                    a.cluster_list = match cluster {
                        3 => vec![OUR_VTEP],
                        4 => vec![vtep(201)],
                        _ => vec![],
                    };
                }
            })
            .0
        },
    )
}

fn any_step() -> impl Strategy<Value = Step> {
    let peer = prop::sample::select(PEERS.to_vec());
    let routes = || prop::collection::vec(any_route(), 1..4);
    prop_oneof![
        8 => peer.clone().prop_flat_map(move |from| {
            // Next hop 1 is ours.
            (any_attrs(from), prop::sample::select(vec![1u8, 6, 7, 7]), routes())
                .prop_map(move |(attrs, next_hop, routes)| Step::Announce { from, attrs, next_hop, routes })
        }),
        3 => (peer.clone(), routes()).prop_map(|(from, routes)| Step::Withdraw { from, routes }),
        3 => (any_attrs(OWN), any_route(), any::<bool>())
            .prop_map(|(attrs, route, urgent)| Step::Originate { attrs, route, urgent }),
        2 => (any_route(), any::<bool>()).prop_map(|(route, urgent)| Step::Retract { route, urgent }),
        1 => peer.clone().prop_map(Step::Down),
        2 => peer.clone().prop_map(Step::Up),
        1 => peer.clone().prop_map(Step::Refresh),
        5 => (peer, 1..3usize, prop::sample::select(vec![150usize, 200, 4096]))
            .prop_map(|(peer, messages, max)| Step::Read { peer, messages, max }),
        1 => prop::sample::select(vec![100, 200]).prop_map(Step::AddVni),
        1 => prop::sample::select(vec![100, 200]).prop_map(Step::RemoveVni),
    ]
}

/// RIB, model and the far ends side by side.
struct Bench {
    rib: Rib,
    model: Model,
    far: BTreeMap<u8, Receiver>,
    seen: BTreeMap<Change, Vec<(u8, RouteKey)>>,
}

impl Bench {
    /// Only these neighbours exist.
    fn new(peers: &[u8], clients: &[u8]) -> Self {
        let mut rib = rib();
        for n in peers.iter().copied() {
            rib.add_peer(PeerId(u32::from(n)), vtep(n).into(), ibgp(n));
            if clients.contains(&n) {
                rib.set_client(PeerId(u32::from(n)));
            }
        }
        let clients = clients.iter().copied().collect();
        let model = Model { vnis: [100].into(), clients, ..Model::default() };
        Self { rib, model, far: BTreeMap::new(), seen: BTreeMap::new() }
    }

    fn apply(&mut self, step: Step) {
        match step {
            // Nothing comes from a neighbour whose session is down.
            Step::Announce { from, .. } | Step::Withdraw { from, .. } if !self.far.contains_key(&from) => {}
            Step::Announce { from, attrs, next_hop, routes } => {
                for route in &routes {
                    self.model.put(from, route.clone(), attrs.clone(), vtep(next_hop));
                }
                let update = reach(&A(attrs), vtep(next_hop), routes);
                self.rib.update(PeerId(u32::from(from)), &update, None, Time(0));
            }
            Step::Withdraw { from, routes } => {
                for route in &routes {
                    self.model.remove(from, &route.key());
                }
                withdraw(&mut self.rib, from, routes);
            }
            Step::Originate { mut attrs, route, urgent } => {
                attrs.local_pref = Some(100);
                self.model.put(OWN, route.clone(), attrs.clone(), OUR_VTEP);
                originate(&mut self.rib, &A(attrs), route, urgent);
            }
            Step::Retract { route, urgent } => {
                self.model.remove(OWN, &route.key());
                self.rib.withdraw(&route.key(), urgent);
            }
            Step::Down(n) => {
                self.model.kept.retain(|k| k.from != n);
                self.far.remove(&n);
                self.rib.peer_down(PeerId(u32::from(n)));
            }
            Step::Up(n) => {
                self.model.kept.retain(|k| k.from != n);
                self.far.insert(n, Receiver::default());
                self.rib.peer_up(PeerId(u32::from(n)), &agreed(ibgp(n), n));
            }
            Step::Refresh(n) => self.rib.refresh(PeerId(u32::from(n))),
            Step::Read { peer, messages, max } => {
                if let Some(far) = self.far.get_mut(&peer) {
                    for _ in 0..messages {
                        far.step(&mut self.rib, PeerId(u32::from(peer)), ibgp(peer), max);
                    }
                }
            }
            Step::AddVni(n) => {
                self.model.vnis.insert(n);
                self.rib.add_vni(vni(n), Import::Auto);
            }
            Step::RemoveVni(n) => {
                self.model.vnis.remove(&n);
                self.rib.remove_vni(vni(n));
            }
        }
    }

    /// Import sets and their order, and that every difference to the last time was reported.
    fn compare(&mut self) {
        let short = |c: Vec<Candidate>| -> Vec<(u8, RouteKey)> {
            c.into_iter().map(|c| (c.peer.0 as u8, c.key)).collect()
        };
        let changed: BTreeSet<Change> = self.rib.take_changes(usize::MAX).into_iter().collect();
        for n in [100, 200] {
            for m in 1..4 {
                let of_mac = |r: &EvpnRoute| matches!(r, EvpnRoute::MacIp(r) if r.mac == mac(m));
                let expected = self.model.candidates(n, &of_mac);
                let best = self.rib.best_mac(vni(n), mac(m)).map(|c| (c.peer.0 as u8, c.key));
                assert_eq!(best.as_ref(), expected.first());
                assert_eq!(short(self.rib.mac_candidates(vni(n), mac(m))), expected);
                self.noted(&changed, Change::Mac(vni(n), mac(m)), expected);
            }
            for i in 1..3 {
                let of_ip = |r: &EvpnRoute| matches!(r, EvpnRoute::MacIp(r) if r.ip == Some(ip(i)));
                let expected = self.model.candidates(n, &of_ip);
                assert_eq!(short(self.rib.ip_candidates(vni(n), ip(i))), expected);
            }
            let all = self.model.candidates(n, &|r| matches!(r, EvpnRoute::MacIp(_)));
            assert_eq!(self.rib.candidates(vni(n)).count(), all.len());
            let flood = self.model.flood(n);
            assert_eq!(self.rib.flood_vteps(vni(n)), flood);
            for v in [6, 7] {
                let there = flood.contains(&vtep(v).into());
                let state = if there { vec![(v, imet(rd(9, 1), vtep(9)).key())] } else { vec![] };
                self.noted(&changed, Change::Flood(vni(n), vtep(v).into()), state);
            }
        }
        assert_eq!(self.rib.route_count(), self.model.kept.len());
        for n in PEERS {
            let count = self.model.kept.iter().filter(|k| k.from == n).count();
            assert_eq!(self.rib.counters(PeerId(u32::from(n))).routes_in, count);
        }
    }

    fn noted(&mut self, changed: &BTreeSet<Change>, what: Change, now: Vec<(u8, RouteKey)>) {
        let before = self.seen.insert(what, now.clone()).unwrap_or_default();
        assert!(before == now || changed.contains(&what), "{what:?} changed unnoticed: {before:?} {now:?}");
    }

    /// Everybody reads all: each has exactly what the model would send.
    fn settle(&mut self) {
        for (n, far) in &mut self.far {
            let peer = PeerId(u32::from(*n));
            far.drain(&mut self.rib, peer, ibgp(*n));
            let expected = self.model.exported(*n);
            assert_eq!(far.table, expected, "at neighbour {n}");
            assert_eq!(far.needless, 0, "withdrawn without having been advertised to {n}");
            assert_eq!(self.rib.counters(peer).routes_out, expected.len());
            assert_eq!(far.said.iter().filter(|s| **s == Said::EndOfRib).count(), 1);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_rib_agrees_with_a_list_of_routes(steps in prop::collection::vec(any_step(), 1..60)) {
        run(&PEERS, &[], steps);
    }

    /// BGP-RR-01 to -06.
    #[test]
    fn it_agrees_as_a_route_reflector(steps in prop::collection::vec(any_step(), 1..60)) {
        run(&PEERS, &CLIENTS, steps);
    }

    /// Where nothing that is learned can be passed on, shorter ways are taken.
    #[test]
    fn it_agrees_with_ibgp_neighbours_only(steps in prop::collection::vec(any_step(), 1..60)) {
        run(&PEERS[..2], &[], steps);
    }
}

fn run(peers: &[u8], clients: &[u8], steps: Vec<Step>) {
    let mut bench = Bench::new(peers, clients);
    for n in peers {
        bench.apply(Step::Up(*n));
    }
    for step in steps {
        if !matches!(step, Step::Up(n) if !peers.contains(&n)) {
            bench.apply(step);
            bench.compare();
        }
    }
    bench.settle();
    // Nothing is left when all is gone: no attributes, no route distinguishers, no groups.
    for n in peers {
        bench.apply(Step::Down(*n));
    }
    bench.compare();
    for k in bench.model.kept.clone() {
        bench.apply(Step::Retract { route: k.route, urgent: false });
    }
    bench.compare();
    assert_eq!((bench.rib.route_count(), bench.rib.attribute_count()), (0, 0));
    assert!(bench.rib.is_pristine(), "{:?}", bench.rib);
}
