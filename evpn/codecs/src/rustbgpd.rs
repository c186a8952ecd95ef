//! rustbgpd-wire.

use crate::Codec;
use crate::fold::Fold;
use bytes::Bytes;
use rustbgpd_wire::attribute::{AsPathSegment, PathAttribute};
use rustbgpd_wire::evpn::{EvpnIpPrefixValue, EvpnRoute};
use rustbgpd_wire::pmsi::PmsiTunnelIdentifier;
use rustbgpd_wire::{Ipv4UnicastMode, Message, ParsedUpdate, UpdateMessage, decode_message, encode_message};

/// See the module.
pub struct Rustbgpd;

impl Codec for Rustbgpd {
    type Message = ParsedUpdate;

    fn decode(&self, octets: &[u8]) -> Option<ParsedUpdate> {
        let mut octets = Bytes::copy_from_slice(octets);
        let Message::Update(u) = decode_message(&mut octets, 4096).ok()? else { return None };
        let revised = u.parse_revised(true, true, false, &[]).ok()?;
        revised.malformed.is_empty().then_some(revised.update)
    }

    fn fold(&self, u: &ParsedUpdate) -> Option<Fold> {
        let (mut origin, mut ases, mut pref, mut ext, mut pmsi, mut reach) =
            (None, None, None, None, None, None);
        for a in &u.attributes {
            match a {
                PathAttribute::Origin(o) => origin = Some(*o as u8),
                PathAttribute::AsPath(p) => ases = Some(p),
                PathAttribute::LocalPref(p) => pref = Some(*p),
                PathAttribute::ExtendedCommunities(c) => ext = Some(c),
                PathAttribute::PmsiTunnel(p) => pmsi = Some(p),
                PathAttribute::MpReachNlri(r) => reach = Some(r),
                _ => return None,
            }
        }
        let mut f = Fold::default();
        let reach = reach?;
        let ases = ases?.segments.iter().flat_map(|s| match s {
            AsPathSegment::AsSet(a) | AsPathSegment::AsSequence(a) => a,
        });
        f.attributes(origin?, ases.copied(), pref?, reach.next_hop);
        f.communities(ext?.iter().map(|c| c.as_u64()));
        if let Some(p) = pmsi {
            let PmsiTunnelIdentifier::Ipv4(end) = p.tunnel_identifier else { return None };
            f.pmsi(p.flags, p.tunnel_type.as_u8(), p.mpls_label, end.into());
        }
        for r in &reach.evpn_announced {
            match r {
                EvpnRoute::MacIp(r) => {
                    f.mac_ip(r.rd.0, &r.esi.0, r.ethernet_tag.0, &r.mac.0, r.ip, r.label1.value());
                }
                EvpnRoute::Imet(r) => f.imet(r.rd.0, r.ethernet_tag.0, r.originator_ip),
                EvpnRoute::IpPrefix(r) => {
                    let (prefix, len) = match r.prefix {
                        EvpnIpPrefixValue::V4(p) => (p.addr.into(), p.len),
                        EvpnIpPrefixValue::V6(p) => (p.addr.into(), p.len),
                    };
                    f.prefix(r.rd.0, &r.esi.0, r.ethernet_tag.0, prefix, len, r.gateway, r.label.value());
                }
                _ => return None,
            }
        }
        Some(f)
    }

    fn encode(&self, u: &ParsedUpdate) -> Option<Vec<u8>> {
        let m = UpdateMessage::try_build(&[], &[], &u.attributes, true, false, Ipv4UnicastMode::Body).ok()?;
        Some(encode_message(&Message::Update(m)).ok()?.into())
    }
}
