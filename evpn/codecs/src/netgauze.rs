//! netgauze-bgp-pkt.

use crate::Codec;
use crate::fold::Fold;
use netgauze_bgp_pkt::BgpMessage;
use netgauze_bgp_pkt::community::{
    EvpnExtendedCommunity, ExtendedCommunity, TransitiveOpaqueExtendedCommunity,
    TransitiveTwoOctetExtendedCommunity,
};
use netgauze_bgp_pkt::nlri::{L2EvpnIpPrefixRoute, L2EvpnRoute, MplsLabel, RouteDistinguisher};
use netgauze_bgp_pkt::path_attribute::{AsPath, MpReach, PathAttributeValue};
use netgauze_bgp_pkt::wire::deserializer::BgpParsingContext;
use netgauze_parse_utils::WritablePdu;
use netgauze_parse_utils::reader::SliceReader;
use netgauze_parse_utils::traits::ParseFromWithOneInput;
use std::net::Ipv4Addr;

/// See the module.
pub struct Netgauze;

fn rd(rd: RouteDistinguisher) -> Option<[u8; 8]> {
    let RouteDistinguisher::Ipv4Administrator { ip, number } = rd else { return None };
    let ([a, b, c, d], [e, f]) = (ip.octets(), number.to_be_bytes());
    Some([0, 1, a, b, c, d, e, f])
}

fn label(l: &MplsLabel) -> u32 {
    let [a, b, c] = *l.value();
    u32::from_be_bytes([0, a, b, c])
}

fn community(c: &ExtendedCommunity) -> Option<u64> {
    Some(match c {
        ExtendedCommunity::TransitiveTwoOctet(TransitiveTwoOctetExtendedCommunity::RouteTarget {
            global_admin,
            local_admin,
        }) => 0x0002 << 48 | u64::from(*global_admin) << 32 | u64::from(*local_admin),
        ExtendedCommunity::TransitiveOpaque(TransitiveOpaqueExtendedCommunity::Unassigned {
            sub_type,
            value,
        }) => {
            let [a, b, c, d, e, f] = *value;
            u64::from_be_bytes([3, *sub_type, a, b, c, d, e, f])
        }
        ExtendedCommunity::Evpn(EvpnExtendedCommunity::MacMobility { flags, seq_no }) => {
            0x0600 << 48 | u64::from(*flags) << 40 | u64::from(*seq_no)
        }
        _ => return None,
    })
}

impl Codec for Netgauze {
    type Message = BgpMessage;

    fn decode(&self, octets: &[u8]) -> Option<BgpMessage> {
        let mut ctx = BgpParsingContext::asn2_default();
        ctx.set_asn4(true);
        BgpMessage::parse(&mut SliceReader::new(octets), &mut ctx).ok()
    }

    fn fold(&self, message: &BgpMessage) -> Option<Fold> {
        let BgpMessage::Update(u) = message else { return None };
        let (mut origin, mut ases, mut pref, mut ext, mut pmsi, mut reach) =
            (None, None, None, None, None, None);
        for a in u.path_attributes() {
            match a.value() {
                PathAttributeValue::Origin(o) => origin = Some(*o as u8),
                PathAttributeValue::AsPath(AsPath::As4PathSegments(s)) => ases = Some(s),
                PathAttributeValue::LocalPreference(p) => pref = Some(p.metric()),
                PathAttributeValue::ExtendedCommunities(c) => ext = Some(c),
                PathAttributeValue::UnknownAttribute(a) if a.code() == 22 => pmsi = Some(a.value()),
                PathAttributeValue::MpReach(MpReach::L2Evpn { next_hop, nlri }) => {
                    reach = Some((*next_hop, nlri))
                }
                _ => return None,
            }
        }
        let (next_hop, nlri) = reach?;
        let mut f = Fold::default();
        let ases = ases?.iter().flat_map(|s| s.as_numbers().iter().copied());
        f.attributes(origin?, ases, pref?, next_hop);
        let ext = ext?.communities();
        if ext.iter().any(|c| community(c).is_none()) {
            return None;
        }
        f.communities(ext.iter().filter_map(community));
        // Not taken apart by this codec: only octets.
        if let Some(p) = pmsi {
            let [flags, kind, a, b, c, e, g, h, i] = *<&[u8; 9]>::try_from(p).ok()?;
            f.pmsi(flags, kind, u32::from_be_bytes([0, a, b, c]), Ipv4Addr::new(e, g, h, i).into());
        }
        for n in nlri {
            match n.route() {
                L2EvpnRoute::MacIpAdvertisement(r) => f.mac_ip(
                    rd(r.rd())?,
                    r.segment_id().value(),
                    r.tag().value(),
                    r.mac().value(),
                    r.ip(),
                    label(r.mpls_label1()),
                ),
                L2EvpnRoute::InclusiveMulticastEthernetTagRoute(r) => {
                    f.imet(rd(r.rd())?, r.tag().value(), r.ip())
                }
                L2EvpnRoute::IpPrefixRoute(L2EvpnIpPrefixRoute::V4(r)) => f.prefix(
                    rd(r.rd())?,
                    r.segment_id().value(),
                    r.tag().value(),
                    r.prefix().addr().into(),
                    r.prefix().prefix_len(),
                    r.gateway().into(),
                    label(r.label()),
                ),
                L2EvpnRoute::IpPrefixRoute(L2EvpnIpPrefixRoute::V6(r)) => f.prefix(
                    rd(r.rd())?,
                    r.segment_id().value(),
                    r.tag().value(),
                    r.prefix().addr().into(),
                    r.prefix().prefix_len(),
                    r.gateway().into(),
                    label(r.label()),
                ),
                _ => return None,
            }
        }
        Some(f)
    }

    fn encode(&self, message: &BgpMessage) -> Option<Vec<u8>> {
        let mut out = Vec::with_capacity(message.len());
        message.write(&mut out).ok()?;
        Some(out)
    }
}
