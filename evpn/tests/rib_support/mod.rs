//! Shared by the tests of the RIB: short names for routes, and a receiver at the other end of Adj-RIB-Out.

#![allow(dead_code, unreachable_pub, clippy::unwrap_used, reason = "each test binary uses its part")]

use evpn::rib::{Candidate, Config, Import, Rib};
use evpn::session::Agreed;
use evpn::types::{Asn, Esi, EthTag, Label, Mac, PeerId, Rd, Seq, Time, Vni};
use evpn::wire::{
    self, AsPath, AsSegment, Attrs, DecodeCtx, EvpnNlri, EvpnRoute, ExtCommunity, Family, Imet, MacIp,
    Message, MpReach, MpUnreach, NextHop, Nlri, Origin, Pmsi, RouteKey, TunnelId, Update,
};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

pub const OUR_AS: Asn = Asn(65000);
pub const OUR_VTEP: Ipv4Addr = Ipv4Addr::new(10, 255, 0, 1);

pub fn config() -> Config {
    Config { asn: OUR_AS, router_id: OUR_VTEP, cluster_id: OUR_VTEP, vtep: OUR_VTEP.into() }
}

pub fn vni(n: u32) -> Vni {
    Vni::new(n).unwrap()
}

pub fn mac(n: u32) -> Mac {
    let [a, b, c, d] = n.to_be_bytes();
    Mac([0x52, 0x54, a, b, c, d])
}

/// A neighbour's VTEP: 10.255.0.`n`.
pub fn vtep(n: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 255, 0, n)
}

pub fn ip(n: u32) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0000 | n))
}

pub fn rd(n: u8, number: u16) -> Rd {
    Rd::type1(vtep(n), number)
}

/// A RIB with VNI 100 on automatic import.
pub fn rib() -> Rib {
    let mut rib = Rib::new(config());
    rib.add_vni(vni(100), Import::Auto);
    rib
}

pub fn agreed(ibgp: bool, id: u8) -> Agreed {
    let peer_as = if ibgp { OUR_AS } else { Asn(65100 + u32::from(id)) };
    Agreed {
        peer_as,
        peer_id: vtep(id),
        ibgp,
        hold_time: 90,
        families: vec![Family::EVPN],
        as4: true,
        max_send: 4096,
        refresh: true,
        enhanced_refresh: true,
        graceful: None,
        decode: decode_ctx(ibgp),
    }
}

pub fn decode_ctx(ibgp: bool) -> DecodeCtx {
    DecodeCtx {
        as4: true,
        ibgp,
        families: vec![Family::EVPN],
        add_path: Vec::new(),
        max_len: 4096,
        enhanced_refresh: true,
    }
}

/// Configures neighbour `n` with address 10.255.0.`n` and establishes its session.
pub fn establish(rib: &mut Rib, n: u8, ibgp: bool) -> PeerId {
    let peer = PeerId(u32::from(n));
    rib.add_peer(peer, vtep(n).into(), ibgp);
    rib.peer_up(peer, &agreed(ibgp, n));
    peer
}

/// Attributes under construction.
#[derive(Clone, Debug)]
pub struct A(pub Attrs);

/// As an iBGP neighbour sends them, with the automatic route target of VNI 100.
pub fn attrs() -> A {
    bare().target(ExtCommunity::auto_target(OUR_AS, vni(100))).community(ExtCommunity::VXLAN)
}

/// Without any community.
pub fn bare() -> A {
    A(Attrs {
        origin: Some(Origin::Igp),
        as_path: Some(AsPath::default()),
        local_pref: Some(100),
        ..Attrs::default()
    })
}

impl A {
    pub fn target(self, t: ExtCommunity) -> Self {
        self.community(t)
    }
    pub fn community(mut self, c: ExtCommunity) -> Self {
        self.0.ext_communities.push(c);
        self
    }
    pub fn seq(self, n: u32) -> Self {
        self.community(ExtCommunity::mac_mobility(Seq(n), false))
    }
    pub fn sticky(self) -> Self {
        self.community(ExtCommunity::mac_mobility(Seq(0), true))
    }
    pub fn with(mut self, f: impl FnOnce(&mut Attrs)) -> Self {
        f(&mut self.0);
        self
    }
    pub fn path(self, asns: &[u32]) -> Self {
        let segment = AsSegment { kind: 2, asns: asns.iter().map(|n| Asn(*n)).collect() };
        self.with(|a| {
            a.as_path = Some(AsPath(vec![segment]));
            a.local_pref = None;
        })
    }
    pub fn pmsi(self, tunnel_type: u8, to: Ipv4Addr) -> Self {
        let tunnel = match tunnel_type {
            6 => TunnelId::Ip(to.into()),
            _ => TunnelId::Raw(to.octets().to_vec().into()),
        };
        self.with(|a| a.pmsi = Some(Pmsi { flags: 0, tunnel_type, label: Label(100), tunnel }))
    }
    pub fn arc(self) -> Arc<Attrs> {
        Arc::new(self.0)
    }
}

pub fn mac_ip(rd: Rd, mac: Mac, ip: Option<IpAddr>) -> EvpnRoute {
    EvpnRoute::MacIp(MacIp { rd, esi: Esi::ZERO, tag: EthTag(0), mac, ip, label1: Label(100), label2: None })
}

pub fn imet(rd: Rd, originator: Ipv4Addr) -> EvpnRoute {
    EvpnRoute::Imet(Imet { rd, tag: EthTag(0), originator: originator.into() })
}

fn nlri(routes: Vec<EvpnRoute>) -> Nlri {
    Nlri::Evpn(routes.into_iter().map(|route| EvpnNlri { path_id: None, route }).collect())
}

pub fn reach(attrs: &A, next_hop: Ipv4Addr, routes: Vec<EvpnRoute>) -> Update {
    let reach = MpReach { family: Family::EVPN, next_hop: NextHop::V4(next_hop), nlri: nlri(routes) };
    Update { attrs: attrs.0.clone(), reach: Some(reach), ..Update::default() }
}

pub fn unreach(routes: Vec<EvpnRoute>) -> Update {
    let unreach = MpUnreach { family: Family::EVPN, nlri: nlri(routes) };
    Update { unreach: Some(unreach), ..Update::default() }
}

/// Announces from neighbour and VTEP `n`.
pub fn announce(rib: &mut Rib, n: u8, attrs: &A, routes: Vec<EvpnRoute>) {
    rib.update(PeerId(u32::from(n)), &reach(attrs, vtep(n), routes), None, Time(0));
}

pub fn withdraw(rib: &mut Rib, n: u8, routes: Vec<EvpnRoute>) {
    rib.update(PeerId(u32::from(n)), &unreach(routes), None, Time(0));
}

/// Originates with our VTEP as next hop.
pub fn originate(rib: &mut Rib, attrs: &A, route: EvpnRoute, urgent: bool) {
    rib.originate(route, attrs.clone().arc(), NextHop::V4(OUR_VTEP), urgent);
}

pub fn vteps(c: &[Candidate]) -> Vec<IpAddr> {
    c.iter().map(|c| c.vtep).collect()
}

/// What one UPDATE said.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Said {
    Reach(Vec<EvpnRoute>),
    Unreach(Vec<RouteKey>),
    EndOfRib,
}

/// The far end of a session: decodes what it is sent and keeps a table of it.
#[derive(Debug, Default)]
pub struct Receiver {
    pub table: BTreeMap<RouteKey, (EvpnRoute, Attrs, NextHop)>,
    pub said: Vec<Said>,
    /// Withdrawals of routes that it did not have.
    pub needless: usize,
    /// Sizes of the messages.
    pub sizes: Vec<usize>,
}

impl Receiver {
    /// Takes all that is due.
    pub fn drain(&mut self, rib: &mut Rib, peer: PeerId, ibgp: bool) {
        while self.step(rib, peer, ibgp, 4096) {}
        assert!(!rib.has_updates(peer), "nothing came, but something is due");
    }

    /// Takes one UPDATE.
    pub fn step(&mut self, rib: &mut Rib, peer: PeerId, ibgp: bool, max: usize) -> bool {
        let Some(bytes) = rib.next_update(peer, max) else { return false };
        assert!(bytes.len() <= max, "{} octets where {max} are allowed", bytes.len());
        self.sizes.push(bytes.len());
        let decoded = wire::decode(&bytes, &decode_ctx(ibgp)).expect("what we send decodes");
        // A route of a type that nobody knows is passed on as it is (EVPN-ERR-01).
        let faults: Vec<_> =
            decoded.faults.iter().filter(|f| f.treatment != wire::Treatment::SkipNlri).collect();
        assert!(faults.is_empty(), "what we send is without fault: {faults:?}");
        let Message::Update(update) = decoded.message else { panic!("not an UPDATE") };
        self.take(update);
        true
    }

    fn take(&mut self, update: Update) {
        if update.end_of_rib() == Some(Family::EVPN) {
            self.said.push(Said::EndOfRib);
            return;
        }
        assert!(update.reach.is_none() || update.unreach.is_none(), "BGP-UPD-04: one kind in an UPDATE");
        if let Some(u) = update.unreach {
            let Nlri::Evpn(routes) = u.nlri else { panic!("not EVPN") };
            let keys: Vec<RouteKey> = routes.iter().map(|n| n.route.key()).collect();
            for key in &keys {
                self.needless += usize::from(self.table.remove(key).is_none());
            }
            self.said.push(Said::Unreach(keys));
        }
        if let Some(r) = update.reach {
            let Nlri::Evpn(routes) = r.nlri else { panic!("not EVPN") };
            let routes: Vec<EvpnRoute> = routes.into_iter().map(|n| n.route).collect();
            for route in &routes {
                self.table.insert(route.key(), (route.clone(), update.attrs.clone(), r.next_hop));
            }
            self.said.push(Said::Reach(routes));
        }
    }
}
