//! Routes as engineers write them, and a withdrawal made from a key.

use super::nlri::{
    EthernetAd, EthernetSegment, EvpnRoute, Imet, JoinSync, LeaveSync, MacIp, MulticastKey, PrefixRoute,
    RouteKey, UnknownRoute,
};
use crate::types::{Esi, Label};
use core::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

impl RouteKey {
    /// The route to put into MP_UNREACH_NLRI: label 0 and ESI 0 where they are not part of the key
    /// (EVPN-NLRI-09).
    pub fn to_withdraw_route(&self) -> EvpnRoute {
        let multicast = |rd, tag, source, group, originator| MulticastKey {
            rd,
            tag,
            source,
            group,
            originator,
            flags: 0,
        };
        match *self {
            Self::EthernetAd(rd, esi, tag) => {
                EvpnRoute::EthernetAd(EthernetAd { rd, esi, tag, label: Label(0) })
            }
            Self::MacIp(rd, tag, mac, ip) => {
                EvpnRoute::MacIp(MacIp { rd, esi: Esi::ZERO, tag, mac, ip, label1: Label(0), label2: None })
            }
            Self::Imet(rd, tag, originator) => EvpnRoute::Imet(Imet { rd, tag, originator }),
            Self::EthernetSegment(rd, esi, originator) => {
                EvpnRoute::EthernetSegment(EthernetSegment { rd, esi, originator })
            }
            Self::Prefix(rd, tag, prefix, prefix_len) => EvpnRoute::Prefix(PrefixRoute {
                rd,
                esi: Esi::ZERO,
                tag,
                prefix,
                prefix_len,
                gateway: match prefix {
                    IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
                    IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
                },
                label: Label(0),
            }),
            Self::Smet(rd, tag, s, g, o) => EvpnRoute::Smet(multicast(rd, tag, s, g, o)),
            Self::JoinSync(rd, esi, tag, s, g, o) => {
                EvpnRoute::JoinSync(JoinSync { esi, key: multicast(rd, tag, s, g, o) })
            }
            Self::LeaveSync(rd, esi, tag, s, g, o) => {
                let key = multicast(rd, tag, s, g, o);
                EvpnRoute::LeaveSync(LeaveSync { esi, key, max_response: 0 })
            }
            Self::Unknown(route_type, ref body) => {
                EvpnRoute::Unknown(UnknownRoute { route_type, body: body.clone() })
            }
        }
    }
}

/// `[bits]:[address]`, or `[0]` for any.
struct Host(Option<IpAddr>);

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            None => f.write_str("[0]"),
            Some(a) => write!(f, "[{}]:[{a}]", if a.is_ipv4() { 32 } else { 128 }),
        }
    }
}

/// `[type]:[tag]:…` in the manner of FRR, without the route distinguisher.
impl fmt::Display for RouteKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::EthernetAd(_, esi, tag) => write!(f, "[1]:[{}]:[{esi}]", tag.0),
            Self::MacIp(_, tag, mac, None) => write!(f, "[2]:[{}]:[48]:[{mac}]", tag.0),
            Self::MacIp(_, tag, mac, ip) => write!(f, "[2]:[{}]:[48]:[{mac}]:{}", tag.0, Host(*ip)),
            Self::Imet(_, tag, ip) => write!(f, "[3]:[{}]:{}", tag.0, Host(Some(*ip))),
            Self::EthernetSegment(_, esi, ip) => write!(f, "[4]:[{esi}]:{}", Host(Some(*ip))),
            Self::Prefix(_, tag, prefix, len) => write!(f, "[5]:[{}]:[{len}]:[{prefix}]", tag.0),
            Self::Smet(_, tag, s, g, o) => {
                write!(f, "[6]:[{}]:{}:{}:{}", tag.0, Host(*s), Host(*g), Host(Some(*o)))
            }
            Self::JoinSync(_, esi, tag, s, g, o) => {
                write!(f, "[7]:[{esi}]:[{}]:{}:{}:{}", tag.0, Host(*s), Host(*g), Host(Some(*o)))
            }
            Self::LeaveSync(_, esi, tag, s, g, o) => {
                write!(f, "[8]:[{esi}]:[{}]:{}:{}:{}", tag.0, Host(*s), Host(*g), Host(Some(*o)))
            }
            Self::Unknown(t, body) => {
                write!(f, "[{t}]:[")?;
                body.iter().try_for_each(|b| write!(f, "{b:02x}"))?;
                f.write_str("]")
            }
        }
    }
}

/// As its key.
impl fmt::Display for EvpnRoute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.key().fmt(f)
    }
}
