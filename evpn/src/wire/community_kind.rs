//! Extended communities by meaning (RFC 4360, RFC 7153, RFC 7432 §7, RFC 9012 §4.1, RFC 9047, RFC 9135 §8.1).

use super::attr::Attrs;
use super::community::{ExtCommunity, RouteTarget};
use crate::types::{Asn, Mac, Seq, Vni};
use core::fmt;
use core::str::FromStr;
use std::net::{IpAddr, Ipv4Addr};

/// Administrator and number of a route target and its kin.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Admin {
    /// Two-octet AS, four-octet number.
    As2(u16, u32),
    /// IPv4 address, two-octet number.
    Ip(Ipv4Addr, u16),
    /// Four-octet AS, two-octet number.
    As4(Asn, u16),
}

/// What an extended community says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ExtKind {
    /// 0x0002, 0x0102, 0x0202 (BGP-EXTC-02).
    RouteTarget(Admin),
    /// 0x0003, 0x0103, 0x0203.
    SiteOfOrigin(Admin),
    /// 0x030c: tunnel type, 8 is VXLAN (EVPN-VXLAN-02).
    Encapsulation(u16),
    /// 0x030d (EVPN-GW-01).
    DefaultGateway,
    /// 0x0600 (EVPN-MOB-01).
    MacMobility {
        /// Never moves.
        sticky: bool,
        /// Sequence number.
        seq: Seq,
    },
    /// 0x0601 (EVPN-MH-02).
    EsiLabel {
        /// Single-active rather than all-active.
        single_active: bool,
        /// MPLS label of 20 bits, unlike all other labels here; may be 0 with local bias.
        label: u32,
    },
    /// 0x0602 (EVPN-ES-04).
    EsImport(Mac),
    /// 0x0603 (EVPN-IRB-04).
    RouterMac(Mac),
    /// 0x0604: B 0x0001, P 0x0002, C 0x0004, F 0x0008 (EVPN-MH-13).
    L2Attr {
        /// Control flags.
        flags: u16,
        /// MTU, 0 when not given.
        mtu: u16,
    },
    /// 0x0606 (EVPN-DF-05).
    DfElection {
        /// 0 modulo, 1 HRW, 2 highest preference, 3 lowest preference.
        alg: u8,
        /// 0x8000 don't preempt, 0x4000 AC-DF.
        bitmap: u16,
        /// Preference of algorithms 2 and 3.
        preference: u16,
    },
    /// 0x0608 (PROXY-EC-01).
    ArpNd(ArpNd),
    /// 0x0609: IGMP proxy 0x0001, MLD proxy 0x0002 (EVPN-MC-02).
    MulticastFlags(u16),
    /// 0x060a to 0x060c (EVPN-MC-07).
    EviRt(Admin),
    /// Anything else; kept and passed on (BGP-EXTC-01).
    Unknown,
}

/// Flags of the ARP/ND community (RFC 9047 §2).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct ArpNd {
    /// R: the address is a router's.
    pub router: bool,
    /// O: the binding may replace a cached one.
    pub r#override: bool,
    /// I: configured, does not move to another MAC.
    pub immutable: bool,
}

impl ExtCommunity {
    /// Default Gateway (EVPN-GW-01).
    pub const DEFAULT_GATEWAY: Self = Self([0x03, 0x0d, 0, 0, 0, 0, 0, 0]);

    /// Our own: the guest with this MAC has stopped here, and runs at the VTEP that is prepared for it next (PIT-26).
    ///
    /// Type 0x8f, transitive and reserved for experiments (RFC 7153 §5.1), so that it passes reflectors and borders;
    /// sub-type 0x67; the four letters `vtep`, so that another one's experiment is not taken for it; version 1 in two
    /// octets. [`ExtKind::Unknown`] to everybody who does not look for it.
    pub const GOING: Self = Self([0x8f, 0x67, b'v', b't', b'e', b'p', 0, 1]);

    /// Our own, on an IMET route: this VTEP tells the hosts behind it when the MAC of an address changes (PIT-17). Of
    /// the form of [`Self::GOING`], number 2.
    pub const TELLS: Self = Self([0x8f, 0x67, b'v', b't', b'e', b'p', 0, 2]);

    /// Our own, on a MAC's own route: the host with this MAC and another one have this address, and nobody is to answer for it
    /// in their place (PROXY-DUP-04).
    ///
    /// Type 0x8f as [`Self::GOING`], sub-type 0x68, the letters `vt`, and four octets that stand for the address: an IPv4
    /// address itself, of an IPv6 address the FNV-1a hash. Two addresses with one hash cost the second one its answers from memory,
    /// and its owner is asked.
    pub fn contested(ip: IpAddr) -> Self {
        let [a, b, c, d] = match ip {
            IpAddr::V4(v4) => v4.octets(),
            IpAddr::V6(v6) => {
                let hash = v6
                    .octets()
                    .iter()
                    .fold(0x811c_9dc5_u32, |h, o| (h ^ u32::from(*o)).wrapping_mul(0x0100_0193));
                hash.to_be_bytes()
            }
        };
        Self([0x8f, 0x68, b'v', b't', a, b, c, d])
    }

    /// Whether this is a [`Self::contested`].
    pub fn is_contested(&self) -> bool {
        self.0[..4] == [0x8f, 0x68, b'v', b't']
    }

    /// Tunnel encapsulation by its type.
    pub const fn encapsulation(tunnel: u16) -> Self {
        let [a, b] = tunnel.to_be_bytes();
        Self([0x03, 0x0c, 0, 0, 0, 0, a, b])
    }
    /// MAC Mobility (EVPN-MOB-01).
    pub const fn mac_mobility(seq: Seq, sticky: bool) -> Self {
        let [a, b, c, d] = seq.0.to_be_bytes();
        Self([0x06, 0x00, sticky as u8, 0, a, b, c, d])
    }
    /// Default Gateway (EVPN-GW-01).
    pub const fn default_gateway() -> Self {
        Self::DEFAULT_GATEWAY
    }
    /// Router's MAC (EVPN-IRB-04).
    pub const fn router_mac(mac: Mac) -> Self {
        let [a, b, c, d, e, f] = mac.0;
        Self([0x06, 0x03, a, b, c, d, e, f])
    }
    /// ES-Import route target (EVPN-ES-04).
    pub const fn es_import(mac: Mac) -> Self {
        let [a, b, c, d, e, f] = mac.0;
        Self([0x06, 0x02, a, b, c, d, e, f])
    }
    /// ARP/ND flags (PROXY-EC-01).
    pub const fn arp_nd(flags: ArpNd) -> Self {
        let f = flags.router as u8 | (flags.r#override as u8) << 1 | (flags.immutable as u8) << 3;
        Self([0x06, 0x08, f, 0, 0, 0, 0, 0])
    }
    /// Route target `asn:n` with a two-octet AS.
    pub const fn rt_as2(asn: u16, n: u32) -> Self {
        Self::admin(0x00, 0x02, Admin::As2(asn, n))
    }
    /// Route target `ip:n`.
    pub const fn rt_ip(ip: Ipv4Addr, n: u16) -> Self {
        Self::admin(0x01, 0x02, Admin::Ip(ip, n))
    }
    /// Route target `asn:n` with a four-octet AS.
    pub const fn rt_as4(asn: Asn, n: u16) -> Self {
        Self::admin(0x02, 0x02, Admin::As4(asn, n))
    }
    /// Automatic route target of RFC 8365 §5.1.2.1, domain 0 (EVPN-VXLAN-09); `None` for an AS of four octets.
    pub fn auto_target_rfc8365(asn: Asn, vni: Vni) -> Option<Self> {
        let asn = u16::try_from(asn.0).ok()?;
        Some(Self::rt_as2(asn, 0x1000_0000 | vni.get()))
    }

    const fn admin(kind: u8, sub: u8, a: Admin) -> Self {
        match a {
            Admin::As2(asn, n) => {
                let ([a, b], [w, x, y, z]) = (asn.to_be_bytes(), n.to_be_bytes());
                Self([kind, sub, a, b, w, x, y, z])
            }
            Admin::Ip(ip, n) => {
                let ([a, b, c, d], [y, z]) = (ip.octets(), n.to_be_bytes());
                Self([kind, sub, a, b, c, d, y, z])
            }
            Admin::As4(asn, n) => {
                let ([a, b, c, d], [y, z]) = (asn.0.to_be_bytes(), n.to_be_bytes());
                Self([kind, sub, a, b, c, d, y, z])
            }
        }
    }

    /// What it says.
    pub fn kind(self) -> ExtKind {
        let [t, s, a, b, c, d, e, f] = self.0;
        let mac = Mac([a, b, c, d, e, f]);
        let as2 = Admin::As2(u16::from_be_bytes([a, b]), u32::from_be_bytes([c, d, e, f]));
        let ip = Admin::Ip(Ipv4Addr::new(a, b, c, d), u16::from_be_bytes([e, f]));
        let as4 = Admin::As4(Asn(u32::from_be_bytes([a, b, c, d])), u16::from_be_bytes([e, f]));
        match (t, s) {
            (0x00, 0x02) => ExtKind::RouteTarget(as2),
            (0x01, 0x02) => ExtKind::RouteTarget(ip),
            (0x02, 0x02) => ExtKind::RouteTarget(as4),
            (0x00, 0x03) => ExtKind::SiteOfOrigin(as2),
            (0x01, 0x03) => ExtKind::SiteOfOrigin(ip),
            (0x02, 0x03) => ExtKind::SiteOfOrigin(as4),
            (0x03, 0x0c) => ExtKind::Encapsulation(u16::from_be_bytes([e, f])),
            (0x03, 0x0d) => ExtKind::DefaultGateway,
            (0x06, 0x00) => {
                ExtKind::MacMobility { sticky: a & 1 == 1, seq: Seq(u32::from_be_bytes([c, d, e, f])) }
            }
            (0x06, 0x01) => {
                ExtKind::EsiLabel { single_active: a & 3 == 1, label: u32::from_be_bytes([0, d, e, f]) >> 4 }
            }
            (0x06, 0x02) => ExtKind::EsImport(mac),
            (0x06, 0x03) => ExtKind::RouterMac(mac),
            (0x06, 0x04) => {
                ExtKind::L2Attr { flags: u16::from_be_bytes([a, b]), mtu: u16::from_be_bytes([c, d]) }
            }
            (0x06, 0x06) => ExtKind::DfElection {
                alg: a & 0x1f,
                bitmap: u16::from_be_bytes([b, c]),
                preference: u16::from_be_bytes([e, f]),
            },
            (0x06, 0x08) => {
                ExtKind::ArpNd(ArpNd { router: a & 1 != 0, r#override: a & 2 != 0, immutable: a & 8 != 0 })
            }
            (0x06, 0x09) => ExtKind::MulticastFlags(u16::from_be_bytes([a, b])),
            (0x06, 0x0a) => ExtKind::EviRt(as2),
            (0x06, 0x0b) => ExtKind::EviRt(ip),
            (0x06, 0x0c) => ExtKind::EviRt(as4),
            _ => ExtKind::Unknown,
        }
    }

    /// A route target of the three ordinary forms; ES-Import is not one of them.
    pub const fn is_route_target(self) -> bool {
        matches!(self.0, [0..=2, 2, ..])
    }
    /// Whether it may cross to another AS (BGP-EXTC-01).
    pub const fn is_transitive(self) -> bool {
        self.0[0] & 0x40 == 0
    }
    /// The VNI that an automatic route target of either form carries (EVPN-VXLAN-09, EVPN-VXLAN-10): the local
    /// part with the RFC 8365 type bits for VXLAN, or a plain number.
    pub const fn auto_vni(self) -> Option<Vni> {
        match self.0 {
            [0, 2, _, _, 0x00 | 0x10, a, b, c] => Vni::new(u32::from_be_bytes([0, a, b, c])),
            _ => None,
        }
    }
}

impl fmt::Display for Admin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::As2(a, n) => write!(f, "{a}:{n}"),
            Self::Ip(a, n) => write!(f, "{a}:{n}"),
            Self::As4(a, n) => write!(f, "{a}:{n}"),
        }
    }
}

impl fmt::Display for ExtCommunity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind() {
            ExtKind::RouteTarget(a) => write!(f, "RT:{a}"),
            ExtKind::SiteOfOrigin(a) => write!(f, "SoO:{a}"),
            ExtKind::Encapsulation(8) => f.write_str("ET:VXLAN"),
            ExtKind::Encapsulation(n) => write!(f, "ET:{n}"),
            ExtKind::DefaultGateway => f.write_str("Default-Gateway"),
            ExtKind::MacMobility { sticky: true, seq: Seq(0) } => f.write_str("MM:sticky"),
            ExtKind::MacMobility { sticky: true, seq } => write!(f, "MM:{seq}:sticky"),
            ExtKind::MacMobility { sticky: false, seq } => write!(f, "MM:{seq}"),
            ExtKind::EsiLabel { single_active, label } => {
                write!(f, "ESI-label:{label}:{}", if single_active { "SA" } else { "AA" })
            }
            ExtKind::EsImport(m) => write!(f, "ES-import:{m}"),
            ExtKind::RouterMac(m) => write!(f, "Rmac:{m}"),
            ExtKind::L2Attr { flags, mtu } => write!(f, "L2:{flags:#06x}:mtu-{mtu}"),
            ExtKind::DfElection { alg, bitmap, preference } => {
                write!(f, "DF:alg-{alg}:{bitmap:#06x}:pref-{preference}")
            }
            ExtKind::ArpNd(n) => {
                f.write_str("ND:")?;
                let all = [(n.router, 'R'), (n.r#override, 'O'), (n.immutable, 'I')];
                all.iter().filter(|(set, _)| *set).try_for_each(|(_, c)| write!(f, "{c}"))
            }
            ExtKind::MulticastFlags(n) => write!(f, "MF:{n:#06x}"),
            ExtKind::EviRt(a) => write!(f, "EVI-RT:{a}"),
            ExtKind::Unknown if *self == Self::GOING => f.write_str("vtepd:going"),
            ExtKind::Unknown if *self == Self::TELLS => f.write_str("vtepd:tells"),
            ExtKind::Unknown if self.is_contested() => {
                let [.., a, b, c, d] = self.0;
                write!(f, "vtepd:contested-{a:02x}{b:02x}{c:02x}{d:02x}")
            }
            ExtKind::Unknown => {
                f.write_str("0x")?;
                self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
            }
        }
    }
}

/// Not a route target.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("not a route target (want AS:number such as 65000:100, or IPv4:number)")]
pub struct ParseRouteTargetError;

/// Reads a route target: `65000:100`, `10.0.0.1:100`, `4200000001:100`, with or without `RT:` in front.
impl FromStr for RouteTarget {
    type Err = ParseRouteTargetError;
    fn from_str(s: &str) -> Result<Self, Self::Err> {
        fn number<T: FromStr>(s: &str) -> Result<T, ParseRouteTargetError> {
            // `parse` alone would take a sign.
            if s.is_empty() || !s.bytes().all(|b| b.is_ascii_digit()) {
                return Err(ParseRouteTargetError);
            }
            s.parse().map_err(|_| ParseRouteTargetError)
        }
        let s = s.strip_prefix("RT:").unwrap_or(s);
        let (admin, n) = s.rsplit_once(':').ok_or(ParseRouteTargetError)?;
        if let Ok(ip) = admin.parse::<Ipv4Addr>() {
            return Ok(Self::rt_ip(ip, number(n)?));
        }
        let asn: u32 = number(admin)?;
        match u16::try_from(asn) {
            Ok(asn) => Ok(Self::rt_as2(asn, number(n)?)),
            Err(_) => Ok(Self::rt_as4(Asn(asn), number(n)?)),
        }
    }
}

impl Attrs {
    /// Sequence and sticky bit of the first MAC Mobility community (EVPN-ERR-07). `None` on a Default Gateway
    /// route, where it is not honoured (EVPN-GW-05).
    pub fn mobility(&self) -> Option<(Seq, bool)> {
        let first = self.ext_communities.iter().find_map(|c| match c.kind() {
            ExtKind::MacMobility { sticky, seq } => Some((seq, sticky)),
            _ => None,
        });
        first.filter(|_| !self.default_gateway())
    }
    /// Tunnel type of the first Encapsulation community.
    pub fn encapsulation(&self) -> Option<u16> {
        self.encapsulations().next()
    }
    /// Tunnel types of all Encapsulation communities, one for each that the sender supports.
    pub fn encapsulations(&self) -> impl Iterator<Item = u16> + '_ {
        self.ext_communities.iter().filter_map(|c| match c.kind() {
            ExtKind::Encapsulation(n) => Some(n),
            _ => None,
        })
    }
    /// VXLAN is offered, or nothing is said (EVPN-VXLAN-04, EVPN-VXLAN-05).
    pub fn allows_vxlan(&self) -> bool {
        let mut said = false;
        self.encapsulations().any(|n| {
            said = true;
            n == 8
        }) || !said
    }
    /// Route targets of the three ordinary forms, in order.
    pub fn route_targets(&self) -> impl Iterator<Item = RouteTarget> + '_ {
        self.ext_communities.iter().copied().filter(|c| c.is_route_target())
    }
    /// ARP/ND flags: the first counts (PROXY-EC-05).
    pub fn arp_nd(&self) -> Option<ArpNd> {
        self.ext_communities.iter().find_map(|c| match c.kind() {
            ExtKind::ArpNd(n) => Some(n),
            _ => None,
        })
    }
    /// [`ExtCommunity::GOING`] present.
    pub fn is_going(&self) -> bool {
        self.ext_communities.contains(&ExtCommunity::GOING)
    }
    /// [`ExtCommunity::TELLS`] present.
    pub fn tells_hosts(&self) -> bool {
        self.ext_communities.contains(&ExtCommunity::TELLS)
    }
    /// Default Gateway community present.
    pub fn default_gateway(&self) -> bool {
        self.ext_communities.iter().any(|c| matches!(c.kind(), ExtKind::DefaultGateway))
    }
}
