//! zettabgp.

use crate::Codec;
use crate::fold::Fold;
use std::net::{IpAddr, Ipv4Addr};
use zettabgp::prelude::*;
use zettabgp::{BgpCapability, BgpSessionParams, BgpTransportMode};

/// See the module.
pub struct Zetta {
    params: BgpSessionParams,
}

impl Zetta {
    pub fn new() -> Self {
        let caps = vec![BgpCapability::SafiEVPN, BgpCapability::CapASN32(65000)];
        let mut params =
            BgpSessionParams::new(65000, 180, BgpTransportMode::IPv4, Ipv4Addr::new(10, 255, 0, 2), caps);
        // It must not guess whether there are path identifiers: there are none.
        params.fuzzy_pathid = false;
        Self { params }
    }
}

fn rd(rd: &BgpRD) -> [u8; 8] {
    (u64::from(rd.rdh) << 32 | u64::from(rd.rdl)).to_be_bytes()
}

fn esi(kind: u8, rest: &EVPNESI) -> [u8; 10] {
    let mut all = [kind; 10];
    all[1..].copy_from_slice(&rest.v);
    all
}

/// Kept the other way round.
fn mac(m: &MacAddress) -> [u8; 6] {
    let mut octets = [0; 6];
    m.write_to_network_bytes(&mut octets);
    octets
}

/// 20 bits are read; the routes here have VNIs whose last four are zero.
fn label(l: &MplsLabels) -> Option<u32> {
    match l.labels[..] {
        [label] => Some(label << 4),
        _ => None,
    }
}

impl Codec for Zetta {
    type Message = BgpUpdateMessage;

    fn decode(&self, octets: &[u8]) -> Option<BgpUpdateMessage> {
        let (kind, len) = self.params.decode_message_head(octets).ok()?;
        if kind != BgpMessageType::Update {
            return None;
        }
        let mut u = BgpUpdateMessage::new();
        u.decode_from(&self.params, octets.get(19..19 + len)?).ok()?;
        Some(u)
    }

    fn fold(&self, u: &BgpUpdateMessage) -> Option<Fold> {
        let (mut origin, mut ases, mut pref, mut ext, mut pmsi, mut reach) =
            (None, None, None, None, None, None);
        for a in &u.attrs {
            match a {
                BgpAttrItem::Origin(o) => {
                    origin = Some(match o.value {
                        BgpAttrOrigin::Igp => 0,
                        BgpAttrOrigin::Egp => 1,
                        BgpAttrOrigin::Incomplete => 2,
                    });
                }
                BgpAttrItem::ASPath(p) => ases = Some(p),
                BgpAttrItem::LocalPref(p) => pref = Some(p.value),
                BgpAttrItem::ExtCommunityList(c) => ext = Some(c),
                BgpAttrItem::PMSITunnel(p) => pmsi = Some(p),
                BgpAttrItem::MPUpdates(r) => reach = Some(r),
                _ => return None,
            }
        }
        let reach = reach?;
        let next_hop: IpAddr = match &reach.nexthop {
            BgpAddr::V4(a) => (*a).into(),
            BgpAddr::V6(a) => (*a).into(),
            _ => return None,
        };
        let mut f = Fold::default();
        let ases = ases?.value.iter().flat_map(|s| match s {
            BgpASitem::Seq(s) => &s.value[..],
            BgpASitem::Set(_) => &[],
        });
        f.attributes(origin?, ases.map(|a| a.value), pref?, next_hop);
        f.communities(ext?.value.iter().map(|c| {
            u64::from(c.ctype) << 56 | u64::from(c.subtype) << 48 | u64::from(c.a) << 32 | u64::from(c.b)
        }));
        if let Some(p) = pmsi {
            let BgpPMSITunnelAttr::IngressRepl(end) = &p.tunnel_attribute else { return None };
            f.pmsi(p.flags, p.tunnel_type, label(&p.label)?, end.endpoint.into());
        }
        let BgpAddrs::EVPN(routes) = &reach.addrs else { return None };
        for r in routes {
            match r {
                BgpEVPN::EVPN2(r) => f.mac_ip(
                    rd(&r.rd),
                    &esi(r.esi_type, &r.esi),
                    r.ether_tag,
                    &mac(&r.mac),
                    r.ip,
                    label(&r.labels)?,
                ),
                BgpEVPN::EVPN3(r) => f.imet(rd(&r.rd), r.ether_tag, r.ip),
                BgpEVPN::EVPN5(r) => f.prefix(
                    rd(&r.rd),
                    &esi(r.esi_type, &r.esi),
                    r.ether_tag,
                    r.prefix,
                    r.len,
                    r.gw_ip,
                    label(&r.labels)?,
                ),
                _ => return None,
            }
        }
        Some(f)
    }

    fn encode(&self, u: &BgpUpdateMessage) -> Option<Vec<u8>> {
        let mut out = vec![0; 65535];
        let n = u.encode_to(&self.params, &mut out[19..]).ok()?;
        let n = self.params.prepare_message_buf(&mut out, BgpMessageType::Update, n).ok()?;
        out.truncate(n);
        Some(out)
    }
}
