//! Path attributes (RFC 4271 §5 and the RFCs that add to it).

use super::community::{Community, ExtCommunity, LargeCommunity};
use crate::types::{Asn, Label, RouterId};
use bytes::Bytes;
use serde::Serialize;
use std::net::{IpAddr, Ipv4Addr};

/// Every path attribute of an UPDATE except MP_REACH_NLRI and MP_UNREACH_NLRI.
///
/// Two routes with equal `Attrs` (and equal next hop) may share an UPDATE (PIT-22).
#[derive(Clone, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Attrs {
    /// ORIGIN (1).
    pub origin: Option<Origin>,
    /// AS_PATH (2), rebuilt from AS4_PATH where needed (BGP-AS4-05).
    pub as_path: Option<AsPath>,
    /// NEXT_HOP (3), classic IPv4 only.
    pub next_hop: Option<Ipv4Addr>,
    /// MULTI_EXIT_DISC (4).
    pub med: Option<u32>,
    /// LOCAL_PREF (5).
    pub local_pref: Option<u32>,
    /// ATOMIC_AGGREGATE (6).
    pub atomic_aggregate: bool,
    /// AGGREGATOR (7).
    pub aggregator: Option<Aggregator>,
    /// COMMUNITIES (8).
    pub communities: Vec<Community>,
    /// ORIGINATOR_ID (9).
    pub originator_id: Option<RouterId>,
    /// CLUSTER_LIST (10).
    pub cluster_list: Vec<RouterId>,
    /// EXTENDED_COMMUNITIES (16), order kept, first of a repeated kind counts (EVPN-ERR-07).
    pub ext_communities: Vec<ExtCommunity>,
    /// PMSI_TUNNEL (22).
    pub pmsi: Option<Pmsi>,
    /// LARGE_COMMUNITY (32), duplicates removed.
    pub large_communities: Vec<LargeCommunity>,
    /// Everything else that must be kept, ascending by type code.
    pub others: Vec<RawAttr>,
}

/// ORIGIN.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// 0
    Igp,
    /// 1
    Egp,
    /// 2
    Incomplete,
}

/// AS_PATH.
#[derive(Clone, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub struct AsPath(pub Vec<AsSegment>);

/// One AS_PATH segment.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub struct AsSegment {
    /// 1 AS_SET, 2 AS_SEQUENCE, 3 AS_CONFED_SEQUENCE, 4 AS_CONFED_SET.
    pub kind: u8,
    /// 1 to 255 numbers.
    pub asns: Vec<Asn>,
}

/// AGGREGATOR.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub struct Aggregator {
    /// AS of the aggregating speaker.
    pub asn: Asn,
    /// Its identifier.
    pub id: RouterId,
}

/// PMSI_TUNNEL (RFC 6514 §5, RFC 8365 §9).
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub struct Pmsi {
    /// Flags octet.
    pub flags: u8,
    /// 6 is ingress replication.
    pub tunnel_type: u8,
    /// The VNI.
    pub label: Label,
    /// End point.
    pub tunnel: TunnelId,
}

/// Tunnel identifier of a PMSI attribute.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(untagged)]
pub enum TunnelId {
    /// Types 6 and 0x0a: the VTEP.
    Ip(IpAddr),
    /// Any other tunnel type, octets as received.
    #[serde(skip)]
    Raw(Bytes),
}

/// An attribute carried as octets.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct RawAttr {
    /// Flags as to be sent (the Extended Length bit is recomputed; Partial is set on unknown transitive ones).
    pub flags: u8,
    /// Type code.
    pub code: u8,
    /// Value.
    pub value: Bytes,
}
