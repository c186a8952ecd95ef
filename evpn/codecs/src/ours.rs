//! The codec of this project; it also makes the UPDATEs that all of them read.

use crate::fold::Fold;
use crate::{Codec, Kind};
use evpn::types::{Asn, Esi, EthTag, Label, Mac, Rd, Seq, Vni};
use evpn::wire::{
    AsPath, AsSegment, Attrs, DecodeCtx, EncodeCtx, EvpnNlri, EvpnRoute, ExtCommunity, Family, Imet, MacIp,
    Message, MpReach, NextHop, Nlri, Origin, Pmsi, PrefixRoute, TunnelId, Update, decode,
};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const VTEP: Ipv4Addr = Ipv4Addr::new(10, 255, 0, 1);
/// A multiple of 16: one of the codecs reads labels of 20 bits only.
const VNI: u32 = 10_000;

fn route(kind: Kind, i: u32) -> EvpnRoute {
    let [_, a, b, c] = i.to_be_bytes();
    let v6 = |a: u16| IpAddr::V6(Ipv6Addr::new(0xfd00, a, 0, 0, 0, 0, i as u16, 0));
    let mac_ip = |ip| {
        EvpnRoute::MacIp(MacIp {
            rd: Rd::type1(VTEP, 2),
            esi: Esi::ZERO,
            tag: EthTag(0),
            mac: Mac([0x52, 0x54, 0, a, b, c]),
            ip,
            label1: Label(VNI),
            label2: None,
        })
    };
    let prefix = |prefix, prefix_len, gateway| {
        EvpnRoute::Prefix(PrefixRoute {
            rd: Rd::type1(VTEP, 3),
            esi: Esi::ZERO,
            tag: EthTag(0),
            prefix,
            prefix_len,
            gateway,
            label: Label(VNI),
        })
    };
    match kind {
        Kind::Mac => mac_ip(None),
        Kind::MacIpv4 => mac_ip(Some(Ipv4Addr::new(10, a, b, c).into())),
        Kind::MacIpv6 => mac_ip(Some(v6(1))),
        Kind::Imet => {
            EvpnRoute::Imet(Imet { rd: Rd::type1(VTEP, i as u16), tag: EthTag(0), originator: VTEP.into() })
        }
        Kind::Prefix4 => prefix(Ipv4Addr::new(10, b, c, 0).into(), 24, Ipv4Addr::new(10, 0, 0, 1).into()),
        Kind::Prefix6 => prefix(v6(2), 112, v6(3)),
    }
}

fn update(kind: Kind, n: u32) -> Message {
    let mut ext_communities =
        vec![ExtCommunity::auto_target(Asn(65000), Vni::new(VNI).expect("in range")), ExtCommunity::VXLAN];
    if matches!(kind, Kind::Mac | Kind::MacIpv4 | Kind::MacIpv6) {
        ext_communities.push(ExtCommunity::mac_mobility(Seq(7), false));
    }
    let pmsi = Pmsi { flags: 0, tunnel_type: 6, label: Label(VNI), tunnel: TunnelId::Ip(VTEP.into()) };
    let nlri = (0..n).map(|i| EvpnNlri { path_id: None, route: route(kind, i) }).collect();
    Message::Update(Update {
        attrs: Attrs {
            origin: Some(Origin::Igp),
            as_path: Some(AsPath(vec![AsSegment { kind: 2, asns: vec![Asn(65001), Asn(4_200_000_000)] }])),
            local_pref: Some(100),
            ext_communities,
            pmsi: matches!(kind, Kind::Imet).then_some(pmsi),
            ..Attrs::default()
        },
        reach: Some(MpReach { family: Family::EVPN, next_hop: NextHop::V4(VTEP), nlri: Nlri::Evpn(nlri) }),
        ..Update::default()
    })
}

/// One UPDATE with `n` routes of a kind.
pub fn octets(kind: Kind, n: u32) -> Vec<u8> {
    update(kind, n).encode(&EncodeCtx::default()).to_vec()
}

/// See the module.
pub struct Ours {
    ctx: DecodeCtx,
}

impl Ours {
    pub fn new() -> Self {
        Self { ctx: DecodeCtx { ibgp: true, ..DecodeCtx::default() } }
    }
}

impl Codec for Ours {
    type Message = Message;

    fn decode(&self, octets: &[u8]) -> Option<Message> {
        let d = decode(octets, &self.ctx).ok()?;
        d.faults.is_empty().then_some(d.message)
    }

    fn fold(&self, message: &Message) -> Option<Fold> {
        let Message::Update(u) = message else { return None };
        let reach = u.reach.as_ref()?;
        let NextHop::V4(next_hop) = reach.next_hop else { return None };
        let mut f = Fold::default();
        let path = u.attrs.as_path.as_ref()?;
        let ases = path.0.iter().flat_map(|s| &s.asns).map(|a| a.0);
        f.attributes(u.attrs.origin? as u8, ases, u.attrs.local_pref?, next_hop.into());
        f.communities(u.attrs.ext_communities.iter().map(|c| u64::from_be_bytes(c.0)));
        if let Some(p) = &u.attrs.pmsi {
            let TunnelId::Ip(end) = p.tunnel else { return None };
            f.pmsi(p.flags, p.tunnel_type, p.label.0, end);
        }
        let Nlri::Evpn(routes) = &reach.nlri else { return None };
        for n in routes {
            match &n.route {
                EvpnRoute::MacIp(r) => f.mac_ip(r.rd.0, &r.esi.0, r.tag.0, &r.mac.0, r.ip, r.label1.0),
                EvpnRoute::Imet(r) => f.imet(r.rd.0, r.tag.0, r.originator),
                EvpnRoute::Prefix(r) => {
                    f.prefix(r.rd.0, &r.esi.0, r.tag.0, r.prefix, r.prefix_len, r.gateway, r.label.0);
                }
                _ => return None,
            }
        }
        Some(f)
    }

    fn encode(&self, message: &Message) -> Option<Vec<u8>> {
        Some(message.encode(&EncodeCtx::default()).into())
    }
}
