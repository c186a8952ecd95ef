//! Communities: ordinary (RFC 1997), extended (RFC 4360), large (RFC 8092).

use crate::types::Vni;
use serde::{Serialize, Serializer};

/// Ordinary community.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(transparent)]
pub struct Community(pub u32);

/// Large community: global administrator and two local parts.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub struct LargeCommunity(pub u32, pub u32, pub u32);

/// Extended community, eight octets as on the wire; unknown ones are kept (BGP-EXTC-01).
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ExtCommunity(pub [u8; 8]);

/// A route target: an [`ExtCommunity`] of a route-target type; equality is on all eight octets (BGP-EXTC-02).
pub type RouteTarget = ExtCommunity;

impl ExtCommunity {
    /// Encapsulation VXLAN (RFC 8365 §5.1.3, EVPN-VXLAN-02).
    pub const VXLAN: Self = Self([0x03, 0x0c, 0, 0, 0, 0, 0, 8]);

    /// Automatic route target as FRR builds it: `(AS & 0xffff):VNI` (EVPN-VXLAN-10).
    pub fn auto_target(asn: crate::types::Asn, vni: Vni) -> Self {
        let [a, b] = (asn.0 as u16).to_be_bytes();
        let [w, x, y, z] = vni.get().to_be_bytes();
        Self([0x00, 0x02, a, b, w, x, y, z])
    }
}

impl Serialize for ExtCommunity {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        use core::fmt::Write as _;
        let mut out = String::with_capacity(16);
        for b in self.0 {
            let _ = write!(out, "{b:02x}");
        }
        s.serialize_str(&out)
    }
}
