//! EVPN routes (RFC 7432 §7, RFC 9136 §3, RFC 9251 §9) and the NLRI of the other families that we decode.

use crate::types::{Asn, Esi, EthTag, Label, Mac, Rd};
use bytes::Bytes;
use serde::Serialize;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::community::ExtCommunity;

/// One NLRI of AFI 25 SAFI 70, with its path identifier when ADD-PATH is in use (RFC 7911 §3).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct EvpnNlri {
    /// ADD-PATH identifier; `None` unless negotiated.
    pub path_id: Option<u32>,
    /// The route.
    pub route: EvpnRoute,
}

/// An EVPN route. Fields that are not part of the key are attributes of it (EVPN-NLRI-08).
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(tag = "route_type", rename_all = "kebab-case")]
pub enum EvpnRoute {
    /// Type 1.
    EthernetAd(EthernetAd),
    /// Type 2.
    MacIp(MacIp),
    /// Type 3.
    Imet(Imet),
    /// Type 4.
    EthernetSegment(EthernetSegment),
    /// Type 5.
    Prefix(PrefixRoute),
    /// Type 6.
    Smet(MulticastKey),
    /// Type 7.
    JoinSync(JoinSync),
    /// Type 8.
    LeaveSync(LeaveSync),
    /// Any other type: kept octet for octet, so that a reflector can pass it on.
    Unknown(UnknownRoute),
}

/// Type 1, Ethernet auto-discovery (RFC 7432 §7.1). Length 25.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct EthernetAd {
    /// Route distinguisher.
    pub rd: Rd,
    /// Segment.
    pub esi: Esi,
    /// [`EthTag::MAX`] for a per-ES route.
    pub tag: EthTag,
    /// 0 for a per-ES route. Not part of the key.
    pub label: Label,
}

/// Type 2, MAC/IP advertisement (RFC 7432 §7.2). Length 33, 37 or 49, plus 3 with a second label.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct MacIp {
    /// Route distinguisher.
    pub rd: Rd,
    /// Segment; not part of the key.
    pub esi: Esi,
    /// 0 with VLAN-based service.
    pub tag: EthTag,
    /// The host's MAC.
    pub mac: Mac,
    /// The host's address; `None` for a MAC-only route.
    pub ip: Option<IpAddr>,
    /// Layer-2 VNI; not part of the key.
    pub label1: Label,
    /// Layer-3 VNI of symmetric IRB (RFC 9135 §5.1); not part of the key.
    pub label2: Option<Label>,
}

/// Type 3, inclusive multicast Ethernet tag (RFC 7432 §7.3). Length 17 or 29.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Imet {
    /// Route distinguisher.
    pub rd: Rd,
    /// 0 with VLAN-based service.
    pub tag: EthTag,
    /// The originating VTEP.
    pub originator: IpAddr,
}

/// Type 4, Ethernet segment (RFC 7432 §7.4). Length 23 or 35.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct EthernetSegment {
    /// Route distinguisher.
    pub rd: Rd,
    /// Segment.
    pub esi: Esi,
    /// The originating VTEP.
    pub originator: IpAddr,
}

/// Type 5, IP prefix (RFC 9136 §3.1). Length 34 or 58.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct PrefixRoute {
    /// Route distinguisher.
    pub rd: Rd,
    /// Overlay index; not part of the key.
    pub esi: Esi,
    /// Ethernet tag.
    pub tag: EthTag,
    /// Prefix with host bits cleared (EVPN-T5-02).
    pub prefix: IpAddr,
    /// Bits, at most 32 or 128.
    pub prefix_len: u8,
    /// Same family as the prefix, unspecified when unused; not part of the key.
    pub gateway: IpAddr,
    /// Layer-3 VNI; not part of the key.
    pub label: Label,
}

/// Key and flags of the multicast routes, type 6 and the shared part of 7 and 8 (RFC 9251 §9).
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct MulticastKey {
    /// Route distinguisher.
    pub rd: Rd,
    /// Ethernet tag.
    pub tag: EthTag,
    /// `None`: any source.
    pub source: Option<IpAddr>,
    /// `None`: any group.
    pub group: Option<IpAddr>,
    /// The originating VTEP.
    pub originator: IpAddr,
    /// v1 0x01, v2 0x02, v3 0x04, exclude 0x08; not part of the key.
    pub flags: u8,
}

/// Type 7, IGMP/MLD join synch (RFC 9251 §9.2).
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct JoinSync {
    /// Segment.
    pub esi: Esi,
    /// Key and flags.
    pub key: MulticastKey,
}

/// Type 8, IGMP/MLD leave synch (RFC 9251 §9.3).
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct LeaveSync {
    /// Segment.
    pub esi: Esi,
    /// Key and flags.
    pub key: MulticastKey,
    /// Maximum response time; not part of the key.
    pub max_response: u8,
}

/// A route of a type that we do not know.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub struct UnknownRoute {
    /// Type octet.
    pub route_type: u8,
    /// The `Length` octets after the length octet.
    #[serde(skip)]
    pub body: Bytes,
}

/// What identifies a route (table of requirements 2.1): two routes with the same key replace each other.
///
/// Ordered so that MAC-only sorts before the MAC+IP routes of the same MAC.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum RouteKey {
    /// Type 1.
    EthernetAd(Rd, Esi, EthTag),
    /// Type 2.
    MacIp(Rd, EthTag, Mac, Option<IpAddr>),
    /// Type 3.
    Imet(Rd, EthTag, IpAddr),
    /// Type 4.
    EthernetSegment(Rd, Esi, IpAddr),
    /// Type 5: prefix and length.
    Prefix(Rd, EthTag, IpAddr, u8),
    /// Type 6: source, group, originator.
    Smet(Rd, EthTag, Option<IpAddr>, Option<IpAddr>, IpAddr),
    /// Type 7.
    JoinSync(Rd, Esi, EthTag, Option<IpAddr>, Option<IpAddr>, IpAddr),
    /// Type 8.
    LeaveSync(Rd, Esi, EthTag, Option<IpAddr>, Option<IpAddr>, IpAddr),
    /// Unknown type: all octets count.
    Unknown(u8, Bytes),
}

impl EvpnRoute {
    /// The key of this route.
    pub fn key(&self) -> RouteKey {
        match self {
            Self::EthernetAd(r) => RouteKey::EthernetAd(r.rd, r.esi, r.tag),
            Self::MacIp(r) => RouteKey::MacIp(r.rd, r.tag, r.mac, r.ip),
            Self::Imet(r) => RouteKey::Imet(r.rd, r.tag, r.originator),
            Self::EthernetSegment(r) => RouteKey::EthernetSegment(r.rd, r.esi, r.originator),
            Self::Prefix(r) => RouteKey::Prefix(r.rd, r.tag, r.prefix, r.prefix_len),
            Self::Smet(k) => RouteKey::Smet(k.rd, k.tag, k.source, k.group, k.originator),
            Self::JoinSync(j) => {
                RouteKey::JoinSync(j.key.rd, j.esi, j.key.tag, j.key.source, j.key.group, j.key.originator)
            }
            Self::LeaveSync(l) => {
                RouteKey::LeaveSync(l.key.rd, l.esi, l.key.tag, l.key.source, l.key.group, l.key.originator)
            }
            Self::Unknown(u) => RouteKey::Unknown(u.route_type, u.body.clone()),
        }
    }
}

/// An IPv4 prefix, host bits cleared.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Ipv4Prefix {
    /// ADD-PATH identifier; `None` unless negotiated.
    pub path_id: Option<u32>,
    /// Network address.
    pub addr: Ipv4Addr,
    /// Bits, at most 32.
    pub len: u8,
}

/// An IPv6 prefix, host bits cleared.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Ipv6Prefix {
    /// ADD-PATH identifier; `None` unless negotiated.
    pub path_id: Option<u32>,
    /// Network address.
    pub addr: Ipv6Addr,
    /// Bits, at most 128.
    pub len: u8,
}

/// Route target membership NLRI (RFC 4684 §4).
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Membership {
    /// Prefix length in bits: 0 (everything) or 32 to 96.
    pub bits: u8,
    /// Origin AS.
    pub origin: Asn,
    /// Route target; octets beyond `bits` are zero.
    pub target: ExtCommunity,
}
