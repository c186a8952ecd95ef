//! BGP messages (RFC 4271 §4, RFC 2918, RFC 7313).

use super::attr::Attrs;
use super::error::Notification;
use super::nlri::{EvpnNlri, Ipv4Prefix, Ipv6Prefix, Membership};
use crate::types::{Asn, RouterId};
use bytes::Bytes;
use serde::Serialize;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A whole message.
#[expect(clippy::large_enum_variant, reason = "nearly every message is an UPDATE, and none is stored")]
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Message {
    /// Type 1.
    Open(Open),
    /// Type 2.
    Update(Update),
    /// Type 3.
    Notification(Notification),
    /// Type 4.
    Keepalive,
    /// Type 5.
    Refresh(Refresh),
}

/// Address family: AFI and SAFI.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub struct Family {
    /// Address family identifier.
    pub afi: u16,
    /// Subsequent address family identifier.
    pub safi: u8,
}

impl Family {
    /// L2VPN EVPN, 25/70.
    pub const EVPN: Self = Self { afi: 25, safi: 70 };
    /// IPv4 unicast, 1/1.
    pub const IPV4: Self = Self { afi: 1, safi: 1 };
    /// IPv6 unicast, 2/1.
    pub const IPV6: Self = Self { afi: 2, safi: 1 };
    /// Route target membership, 1/132.
    pub const RTC: Self = Self { afi: 1, safi: 132 };
}

/// OPEN (RFC 4271 §4.2).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Open {
    /// The two-octet AS field; 23456 when the real one is in capability 65.
    pub my_as: u16,
    /// Seconds; 0 or at least 3.
    pub hold_time: u16,
    /// BGP identifier, not zero.
    pub id: RouterId,
    /// Capabilities in wire order, several type-2 parameters joined (BGP-CAP-02).
    pub capabilities: Vec<Capability>,
    /// Encode (or came) in the extended parameter format of RFC 9072 although short.
    pub extended: bool,
}

/// A capability (RFC 5492).
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Capability {
    /// 1: MP family.
    Multiprotocol(Family),
    /// 2: route refresh.
    RouteRefresh,
    /// 5: NLRI family and next-hop AFI (RFC 8950).
    ExtendedNextHop(Vec<(Family, u16)>),
    /// 6: messages up to 65535 octets (RFC 8654).
    ExtendedMessage,
    /// 64: graceful restart (RFC 4724).
    GracefulRestart {
        /// R bit.
        restarting: bool,
        /// N bit (RFC 8538).
        notification: bool,
        /// Seconds, 12 bits.
        time: u16,
        /// Families and F bits.
        families: Vec<GrFamily>,
    },
    /// 65: four-octet AS number (RFC 6793).
    As4(Asn),
    /// 69: ADD-PATH (RFC 7911).
    AddPath(Vec<(Family, AddPathMode)>),
    /// 70: enhanced route refresh (RFC 7313).
    EnhancedRefresh,
    /// 71: long-lived graceful restart (RFC 9494).
    Llgr(Vec<LlgrFamily>),
    /// Any other code (128 included), value octets as received.
    Unknown {
        /// Capability code.
        code: u8,
        /// Value.
        value: Bytes,
    },
}

/// A family of capability 64.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct GrFamily {
    /// Family.
    pub family: Family,
    /// F bit: forwarding state kept.
    pub forwarding: bool,
}

/// A family of capability 71.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct LlgrFamily {
    /// Family.
    pub family: Family,
    /// F bit.
    pub forwarding: bool,
    /// Stale time in seconds, 24 bits.
    pub time: u32,
}

/// Mode octet of an ADD-PATH entry.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum AddPathMode {
    /// 1
    Receive,
    /// 2
    Send,
    /// 3
    Both,
    /// Anything else: the entry is not understood (BGP-ADDP-02).
    Unknown(u8),
}

/// ROUTE-REFRESH (RFC 2918 §3, RFC 7313 §3).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Refresh {
    /// Family.
    pub family: Family,
    /// Request, begin or end.
    pub kind: RefreshKind,
}

/// Subtype octet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum RefreshKind {
    /// 0
    Request,
    /// 1: BoRR
    Begin,
    /// 2: EoRR
    End,
    /// Ignored and logged (BGP-REFR-05).
    Unknown(u8),
}

/// UPDATE (RFC 4271 §4.3), already past RFC 7606.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Update {
    /// Classic IPv4 withdrawals.
    pub withdrawn: Vec<Ipv4Prefix>,
    /// Attributes other than MP_*.
    pub attrs: Attrs,
    /// MP_REACH_NLRI.
    pub reach: Option<MpReach>,
    /// MP_UNREACH_NLRI.
    pub unreach: Option<MpUnreach>,
    /// Classic IPv4 NLRI.
    pub nlri: Vec<Ipv4Prefix>,
}

/// MP_REACH_NLRI (RFC 4760 §3).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct MpReach {
    /// Family.
    pub family: Family,
    /// Next hop: for EVPN the VTEP.
    pub next_hop: NextHop,
    /// Routes.
    pub nlri: Nlri,
}

/// MP_UNREACH_NLRI (RFC 4760 §4). Empty: End-of-RIB (RFC 4724 §2).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct MpUnreach {
    /// Family.
    pub family: Family,
    /// Routes; only their keys count (EVPN-NLRI-09).
    pub nlri: Nlri,
}

/// Next hop of MP_REACH_NLRI by its length.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum NextHop {
    /// 4 octets.
    V4(Ipv4Addr),
    /// 16 octets.
    V6(Ipv6Addr),
    /// 32 octets: global and link-local.
    V6Both(Ipv6Addr, Ipv6Addr),
}

/// NLRI by family.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Nlri {
    /// 25/70.
    Evpn(Vec<EvpnNlri>),
    /// 1/1 in MP form.
    Ipv4(Vec<Ipv4Prefix>),
    /// 2/1.
    Ipv6(Vec<Ipv6Prefix>),
    /// 1/132.
    Rtc(Vec<Membership>),
    /// A family that was not negotiated or that we do not know (BGP-MP-08).
    Unknown(Bytes),
}

/// What the session has agreed on and the decoder must know.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct DecodeCtx {
    /// Four-octet AS numbers on the wire.
    pub as4: bool,
    /// The neighbour has our AS number.
    pub ibgp: bool,
    /// Families in use.
    pub families: Vec<Family>,
    /// Families whose received NLRI carry a path identifier.
    pub add_path: Vec<Family>,
    /// Largest acceptable message: 4096, or 65535 if we sent capability 6.
    pub max_len: u16,
    /// Capability 70 was received (BGP-REFR-06).
    pub enhanced_refresh: bool,
}

/// How to write a message.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct EncodeCtx {
    /// Four-octet AS numbers on the wire.
    pub as4: bool,
    /// Families whose NLRI are sent with a path identifier.
    pub add_path: Vec<Family>,
}

impl Default for EncodeCtx {
    fn default() -> Self {
        Self { as4: true, add_path: Vec::new() }
    }
}

impl Default for DecodeCtx {
    /// As before any agreement: four-octet AS numbers, EVPN only, external, 4096 octets.
    fn default() -> Self {
        Self {
            as4: true,
            ibgp: false,
            families: vec![Family::EVPN],
            add_path: Vec::new(),
            max_len: 4096,
            enhanced_refresh: false,
        }
    }
}

impl NextHop {
    /// The address traffic goes to: the global one.
    pub const fn addr(self) -> IpAddr {
        match self {
            Self::V4(a) => IpAddr::V4(a),
            Self::V6(a) | Self::V6Both(a, _) => IpAddr::V6(a),
        }
    }
}

impl From<IpAddr> for NextHop {
    fn from(a: IpAddr) -> Self {
        match a {
            IpAddr::V4(a) => Self::V4(a),
            IpAddr::V6(a) => Self::V6(a),
        }
    }
}

impl Nlri {
    /// No routes at all.
    pub fn is_empty(&self) -> bool {
        match self {
            Self::Evpn(l) => l.is_empty(),
            Self::Ipv4(l) => l.is_empty(),
            Self::Ipv6(l) => l.is_empty(),
            Self::Rtc(l) => l.is_empty(),
            Self::Unknown(b) => b.is_empty(),
        }
    }
}

impl Update {
    /// The family whose End-of-RIB this is (BGP-GR-06): an empty UPDATE for IPv4 unicast, otherwise one that
    /// holds nothing but an empty MP_UNREACH_NLRI.
    pub fn end_of_rib(&self) -> Option<Family> {
        let bare = self.withdrawn.is_empty()
            && self.nlri.is_empty()
            && self.reach.is_none()
            && self.attrs == Attrs::default();
        match &self.unreach {
            _ if !bare => None,
            None => Some(Family::IPV4),
            Some(m) => m.nlri.is_empty().then_some(m.family),
        }
    }
}
