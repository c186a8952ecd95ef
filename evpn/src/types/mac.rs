//! MAC address.

use super::Vni;
use core::cmp::Ordering;
use core::fmt;
use core::str::FromStr;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::net::IpAddr;

/// A 48-bit Ethernet address in wire order.
#[derive(Clone, Copy, Default, Eq, Hash, PartialEq)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// `00:00:00:00:00:00`: flood rows; in Type 2 the Unknown MAC Route (RFC 9014 §3.5.1).
    pub const ZERO: Self = Self([0; 6]);
    /// `ff:ff:ff:ff:ff:ff`.
    pub const BROADCAST: Self = Self([0xff; 6]);

    /// Group bit set (multicast or broadcast): never a host.
    pub const fn is_multicast(self) -> bool {
        self.0[0] & 1 == 1
    }
    /// All zero.
    pub const fn is_zero(self) -> bool {
        matches!(self.0, [0, 0, 0, 0, 0, 0])
    }
    /// Neither multicast nor zero: may belong to a host.
    pub const fn is_host(self) -> bool {
        !self.is_multicast() && !self.is_zero()
    }
    /// From the first six octets of `b`.
    ///
    /// Returns `None` if there are fewer.
    pub fn from_slice(b: &[u8]) -> Option<Self> {
        b.get(..6).and_then(|b| b.try_into().ok()).map(Self)
    }
    /// A stable, locally administered address for some purpose of one VTEP in one VNI; purposes are told apart by `seed`.
    pub fn derived(seed: u64, vtep: IpAddr, vni: Vni) -> Self {
        // FNV-1a over the address and the VNI; 46 of its bits are kept.
        let mut hash = seed;
        let mut mix = |b: u8| hash = (hash ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3);
        match vtep {
            IpAddr::V4(a) => a.octets().into_iter().for_each(&mut mix),
            IpAddr::V6(a) => a.octets().into_iter().for_each(&mut mix),
        }
        vni.get().to_be_bytes().into_iter().for_each(&mut mix);
        let [_, _, a, b, c, d, e, f] = hash.to_be_bytes();
        Self([a & 0xfc | 0x02, b, c, d, e, f])
    }
}

impl Mac {
    /// As a number; sorts as the octets do.
    const fn to_bits(self) -> u64 {
        let [a, b, c, d, e, f] = self.0;
        u64::from_be_bytes([0, 0, a, b, c, d, e, f])
    }
}

// Every table is ordered by MAC: one number compares in a fraction of the time of six octets.
impl Ord for Mac {
    #[inline]
    fn cmp(&self, other: &Self) -> Ordering {
        self.to_bits().cmp(&other.to_bits())
    }
}

impl PartialOrd for Mac {
    #[inline]
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Not six colon-separated hex octets.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("not a MAC address (want six hex octets such as 52:54:00:12:34:56)")]
pub struct ParseMacError;

impl FromStr for Mac {
    type Err = ParseMacError;
    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let mut out = [0u8; 6];
        let mut parts = s.split([':', '-']);
        for o in &mut out {
            let p = parts.next().ok_or(ParseMacError)?;
            if p.len() != 2 || !p.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(ParseMacError);
            }
            *o = u8::from_str_radix(p, 16).map_err(|_| ParseMacError)?;
        }
        if parts.next().is_some() { Err(ParseMacError) } else { Ok(Self(out)) }
    }
}

impl Serialize for Mac {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Mac {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let s = String::deserialize(d)?;
        s.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::Mac;

    #[test]
    fn macs_sort_as_their_octets_do() {
        let macs = [
            [0; 6],
            [0, 0, 0, 0, 0, 1],
            [0, 0, 0, 0, 1, 0],
            [0, 0xff, 0, 0, 0, 0],
            [2, 0, 0, 0, 0, 0],
            [0xff; 6],
        ];
        for a in macs {
            for b in macs {
                assert_eq!(Mac(a).cmp(&Mac(b)), a.cmp(&b), "{a:?} {b:?}");
            }
        }
    }
}
