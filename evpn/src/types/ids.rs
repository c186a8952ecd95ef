//! Identifiers of the protocol and of the host.

use core::cmp::Ordering;
use core::fmt;
use serde::{Deserialize, Serialize, Serializer};
use std::net::Ipv4Addr;

/// 24-bit VXLAN network identifier (RFC 7348 §5); 0 is not used here.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Vni(u32);

impl Vni {
    /// `None` unless `1 <= n < 2^24`.
    pub const fn new(n: u32) -> Option<Self> {
        if n != 0 && n < 1 << 24 { Some(Self(n)) } else { None }
    }
    /// The number.
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Display for Vni {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The 3-octet label field of an EVPN route: with VXLAN all 24 bits are the VNI (RFC 8365 §5.1.3, EVPN-VXLAN-01).
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(transparent)]
pub struct Label(pub u32);

impl Label {
    /// The label read as a VNI; `None` for 0.
    pub const fn vni(self) -> Option<Vni> {
        Vni::new(self.0 & 0x00ff_ffff)
    }
}

impl From<Vni> for Label {
    fn from(v: Vni) -> Self {
        Self(v.get())
    }
}

/// Autonomous system number, four octets (RFC 6793).
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Asn(pub u32);

impl Asn {
    /// 23456, what a two-octet field carries for a number that does not fit (RFC 6793 §4.2.1).
    pub const TRANS: u16 = 23456;
}

impl fmt::Display for Asn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Which AS a neighbour may be in (BGP-OPEN-03).
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum RemoteAs {
    /// This one.
    Exactly(Asn),
    /// Ours, whatever it is (BGP-UNN-02).
    Internal,
    /// Any but ours (BGP-UNN-02).
    External,
}

impl RemoteAs {
    /// Whether a neighbour in `theirs` is the one that is meant; `ours` is our own AS.
    pub fn admits(self, theirs: Asn, ours: Asn) -> bool {
        match self {
            Self::Exactly(asn) => theirs == asn,
            Self::Internal => theirs == ours,
            Self::External => theirs != ours,
        }
    }
    /// Whether the session is an internal one. Known before the neighbour has said anything.
    pub fn is_internal(self, ours: Asn) -> bool {
        match self {
            Self::Exactly(asn) => asn == ours,
            Self::Internal => true,
            Self::External => false,
        }
    }
    /// The AS number, unless only the neighbour knows it.
    pub fn number(self, ours: Asn) -> Option<Asn> {
        match self {
            Self::Exactly(asn) => Some(asn),
            Self::Internal => Some(ours),
            Self::External => None,
        }
    }
}

impl From<Asn> for RemoteAs {
    fn from(asn: Asn) -> Self {
        Self::Exactly(asn)
    }
}

/// BGP identifier (RFC 6286): any non-zero 4-octet value, printed as an IPv4 address, compared as a number.
pub type RouterId = Ipv4Addr;

/// Ethernet segment identifier, ten octets (RFC 7432 §5).
#[derive(Clone, Copy, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Esi(pub [u8; 10]);

impl Esi {
    /// Single-homed.
    pub const ZERO: Self = Self([0; 10]);
    /// Reserved MAX-ESI (RFC 7432 §5).
    pub const MAX: Self = Self([0xff; 10]);
    /// All zero: single-homed.
    pub fn is_zero(self) -> bool {
        self == Self::ZERO
    }
}

impl fmt::Display for Esi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, b) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str(":")?;
            }
            write!(f, "{b:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Esi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Esi {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

/// Ethernet tag (RFC 7432 §7): 0 for a VLAN-based service.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(transparent)]
pub struct EthTag(pub u32);

impl EthTag {
    /// MAX-ET: an Ethernet A-D route per ES (RFC 7432 §8.2.1).
    pub const MAX: Self = Self(0xffff_ffff);
}

/// Route distinguisher, eight opaque octets (RFC 4364 §4.2); only compared, never interpreted (EVPN-NLRI-12).
#[derive(Clone, Copy, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Rd(pub [u8; 8]);

impl Rd {
    /// Type 1: IPv4 address and a 16-bit number; what we originate.
    pub fn type1(ip: Ipv4Addr, n: u16) -> Self {
        let [a, b, c, d] = ip.octets();
        let [x, y] = n.to_be_bytes();
        Self([0, 1, a, b, c, d, x, y])
    }
}

impl fmt::Display for Rd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [_, t, a, b, c, d, x, y] = self.0;
        match (self.0[0], t) {
            (0, 0) => write!(f, "{}:{}", u16::from_be_bytes([a, b]), u32::from_be_bytes([c, d, x, y])),
            (0, 1) => write!(f, "{}:{}", Ipv4Addr::new(a, b, c, d), u16::from_be_bytes([x, y])),
            (0, 2) => write!(f, "{}:{}", u32::from_be_bytes([a, b, c, d]), u16::from_be_bytes([x, y])),
            _ => {
                for o in self.0 {
                    write!(f, "{o:02x}")?;
                }
                Ok(())
            }
        }
    }
}

impl fmt::Debug for Rd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Rd {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

/// MAC mobility sequence number (RFC 7432 §7.7).
///
/// Ordered by [`Seq::newer_than`], serial-number arithmetic in the manner of RFC 1982, so that
/// `0xffff_ffff + 1` still beats `0xffff_ffff` (EVPN-MOB-09). Deliberately not `Ord`.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Seq(pub u32);

impl Seq {
    /// What an absent community means (EVPN-MOB-02).
    pub const ZERO: Self = Self(0);
    /// The number that beats this one.
    pub const fn next(self) -> Self {
        Self(self.0.wrapping_add(1))
    }
    /// Whether `self` beats `other`.
    pub const fn newer_than(self, other: Self) -> bool {
        self.0 != other.0 && self.0.wrapping_sub(other.0) < 1 << 31
    }
    /// `Greater` when `self` beats `other`. Not a total order across more than 2^31 numbers.
    pub fn serial_cmp(self, other: Self) -> Ordering {
        if self == other {
            Ordering::Equal
        } else if self.newer_than(other) {
            Ordering::Greater
        } else {
            Ordering::Less
        }
    }
    /// The one that beats the other.
    pub fn max(self, other: Self) -> Self {
        if other.newer_than(self) { other } else { self }
    }
}

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Kernel interface index within our network namespace; never 0.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(transparent)]
pub struct IfIndex(pub u32);

/// One transport connection. Never reused, so that a late event cannot hit a newer connection.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ConnId(pub u64);

/// Index of a configured BGP neighbour.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PeerId(pub u32);
