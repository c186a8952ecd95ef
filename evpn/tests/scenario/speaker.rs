//! A scripted BGP peer: real octets through the codec, and no mind of its own. It offers a hold time of 0, so that
//! it has nothing to say except what the scenario makes it say.

use super::Route;
use crate::world::{World, vni};
use evpn::node::{ConnEvent, Input, NeighborConfig};
use evpn::types::{Asn, ConnId, Esi, EthTag, Label, Mac, Rd, Seq, Span, Time};
use evpn::wire::{
    self, AsPath, Attrs, Capability, Community, DecodeCtx, EncodeCtx, EvpnNlri, EvpnRoute, ExtCommunity,
    Family, Imet, MacIp, Message, MpUnreach, NextHop, Nlri, Open, Origin, Pmsi, RouteKey, TunnelId, Update,
    UpdateBuilder,
};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

const AS: Asn = Asn(65000);

/// What a peer holds of a node: address and community of each Type-2 route.
pub type Held = BTreeMap<(Mac, Option<IpAddr>), Option<(Seq, bool)>>;

/// A node's configuration of such a peer.
pub fn passive(address: IpAddr) -> NeighborConfig {
    NeighborConfig { passive: true, connect_retry: Span::secs(5), ..NeighborConfig::new(address, AS.into()) }
}

/// One peer, with a session to every node.
#[derive(Debug)]
pub struct Speaker {
    pub address: IpAddr,
    conns: Vec<ConnId>,
}

fn id(address: IpAddr) -> Ipv4Addr {
    match address {
        IpAddr::V4(a) => a,
        IpAddr::V6(_) => Ipv4Addr::new(192, 0, 2, 6),
    }
}

impl Speaker {
    pub fn new(address: IpAddr) -> Self {
        Self { address, conns: Vec::new() }
    }

    /// Connects to every node; its End-of-RIB follows at once.
    pub fn connect(&mut self, w: &mut World) {
        let open = Open {
            my_as: AS.0 as u16,
            hold_time: 0,
            id: id(self.address),
            capabilities: vec![
                Capability::Multiprotocol(Family::EVPN),
                Capability::RouteRefresh,
                Capability::As4(AS),
            ],
            extended: false,
        };
        self.conns = (0..w.hosts.len()).map(|i| w.accept(i, self.address)).collect();
        for octets in [
            Message::Open(open).encode(&EncodeCtx::default()),
            wire::keepalive(),
            wire::end_of_rib(Family::EVPN),
        ] {
            self.send(w, &octets);
        }
    }

    /// All sessions end.
    pub fn leave(&mut self, w: &mut World) {
        for (i, conn) in self.conns.drain(..).enumerate() {
            w.outside_event(i, conn, ConnEvent::Closed { why: "gone".into() });
        }
    }

    /// No node has hung up.
    pub fn is_up(&self, w: &World) -> bool {
        !self.conns.is_empty() && self.conns.iter().enumerate().all(|(i, c)| w.outside.contains_key(&(i, *c)))
    }

    fn send(&self, w: &mut World, octets: &bytes::Bytes) {
        for (i, conn) in self.conns.iter().enumerate() {
            w.outside_event(i, *conn, ConnEvent::Bytes(octets.clone()));
        }
    }

    fn rd(&self) -> Rd {
        Rd::type1(id(self.address), 100)
    }

    pub fn announce(&self, w: &mut World, r: &Route) {
        self.send(w, &self.update(r));
    }

    /// Its IMET route: it wants what is flooded, and says that it tells its hosts of changed MACs, or does not.
    pub fn floods(&self, w: &mut World, tells: bool) {
        let mut ext_communities = vec![ExtCommunity::auto_target(AS, vni()), ExtCommunity::VXLAN];
        ext_communities.extend(tells.then_some(ExtCommunity::TELLS));
        let pmsi =
            Pmsi { flags: 0, tunnel_type: 6, label: Label::from(vni()), tunnel: TunnelId::Ip(self.address) };
        let attrs = Attrs {
            origin: Some(Origin::Igp),
            as_path: Some(AsPath::default()),
            local_pref: Some(100),
            pmsi: Some(pmsi),
            ext_communities,
            ..Attrs::default()
        };
        let mut b = UpdateBuilder::reach(&attrs, NextHop::from(self.address), 4096, true);
        let imet = Imet { rd: self.rd(), tag: EthTag(0), originator: self.address };
        assert!(b.push(&EvpnRoute::Imet(imet)), "one route fits");
        self.send(w, &b.finish().expect("it has a route"));
    }

    /// A node gets it, but no turn to look at it yet.
    pub fn announce_unheeded(&self, w: &mut World, i: usize, r: &Route) {
        let event = ConnEvent::Bytes(self.update(r));
        let now = w.now;
        w.hosts[i].node.handle(Input::Conn { conn: self.conns[i], event }, now);
    }

    fn update(&self, r: &Route) -> bytes::Bytes {
        let mut attrs = Attrs {
            origin: Some(Origin::Igp),
            as_path: Some(AsPath::default()),
            local_pref: Some(100),
            ext_communities: vec![ExtCommunity::auto_target(AS, vni()), ExtCommunity::VXLAN],
            ..Attrs::default()
        };
        if r.seq.is_some() || r.sticky {
            attrs.ext_communities.push(ExtCommunity::mac_mobility(r.seq.unwrap_or_default(), r.sticky));
        }
        if r.gateway {
            attrs.ext_communities.push(ExtCommunity([0x03, 0x0d, 0, 0, 0, 0, 0, 0]));
        }
        if r.going {
            attrs.ext_communities.push(ExtCommunity::GOING);
        }
        if r.stale {
            attrs.communities.push(Community(0xffff_0006));
        }
        let mut b = UpdateBuilder::reach(&attrs, NextHop::from(self.address), 4096, true);
        let route = EvpnRoute::MacIp(MacIp {
            rd: self.rd(),
            esi: Esi::ZERO,
            tag: EthTag(0),
            mac: r.mac,
            ip: r.ip,
            label1: Label::from(vni()),
            label2: None,
        });
        assert!(b.push(&route), "one route fits");
        b.finish().expect("it has a route")
    }

    pub fn withdraw(&self, w: &mut World, mac: Mac, ip: Option<IpAddr>) {
        let route = EvpnRoute::MacIp(MacIp {
            rd: self.rd(),
            esi: Esi::ZERO,
            tag: EthTag(0),
            mac,
            ip,
            label1: Label(0),
            label2: None,
        });
        let nlri = Nlri::Evpn(vec![EvpnNlri { path_id: None, route }]);
        let unreach = Some(MpUnreach { family: Family::EVPN, nlri });
        self.send(w, &Message::Update(Update { unreach, ..Update::default() }).encode(&EncodeCtx::default()));
    }

    /// What node `i` has told so far, and the number of UPDATEs with Type-2 routes since `mark`. An error if the
    /// session has ended.
    pub fn held(&self, w: &World, i: usize, mark: Time) -> Result<(Held, usize), String> {
        let log = self.conns.get(i).and_then(|c| w.outside.get(&(i, *c)));
        let log = log.ok_or("the session with the observer has ended")?;
        let octets: Vec<(Time, &[u8])> = log.iter().map(|(t, b)| (*t, &b[..])).collect();
        let ctx = DecodeCtx { ibgp: true, ..DecodeCtx::default() };
        let (mut held, mut updates) = (Held::new(), 0);
        for (at, mut rest) in octets {
            while let Some(len) = rest.get(16..18).map(|l| u16::from_be_bytes([l[0], l[1]])) {
                let (msg, more) = rest.split_at(usize::from(len));
                rest = more;
                let m = wire::decode(msg, &ctx).map_err(|e| format!("undecodable message: {e:?}"))?;
                let Message::Update(u) = m.message else { continue };
                updates += usize::from(take(&mut held, &u) && at >= mark);
            }
        }
        Ok((held, updates))
    }
}

/// Files an UPDATE; whether it had Type-2 routes.
fn take(held: &mut Held, u: &Update) -> bool {
    let mut any = false;
    let key = |r: &EvpnRoute| match r.key() {
        RouteKey::MacIp(_, _, mac, ip) => Some((mac, ip)),
        _ => None,
    };
    if let Some(Nlri::Evpn(l)) = u.unreach.as_ref().map(|m| &m.nlri) {
        for k in l.iter().filter_map(|n| key(&n.route)) {
            held.remove(&k);
            any = true;
        }
    }
    if let Some(Nlri::Evpn(l)) = u.reach.as_ref().map(|m| &m.nlri) {
        for k in l.iter().filter_map(|n| key(&n.route)) {
            held.insert(k, u.attrs.mobility());
            any = true;
        }
    }
    any
}
