//! What keeps a received route out of a MAC-VRF, or out of the BGP table altogether.

use super::Config;
use crate::wire::{Attrs, NextHop};
use core::fmt;
use std::net::IpAddr;

/// Why a route is kept in Adj-RIB-In but not used.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum WhyNot {
    /// Our AS number is in AS_PATH (BGP-DEC-08).
    OwnAs,
    /// ORIGINATOR_ID is our identifier (BGP-RR-05).
    OwnOriginator,
    /// Our cluster id is in CLUSTER_LIST (BGP-RR-05).
    OwnCluster,
    /// The next hop is our VTEP (EVPN-NLRI-16).
    OwnNextHop,
    /// The next hop is unspecified, multicast, broadcast or loopback (EVPN-NLRI-16).
    UnusableNextHop,
    /// Encapsulations are listed and VXLAN is not among them (EVPN-VXLAN-05).
    NotVxlan,
    /// The Ethernet tag is not 0, which the VLAN-based service does not have (EVPN-VXLAN-06).
    EthernetTag,
    /// IMET whose tunnel is not ingress replication: no flood entry (EVPN-IMET-05).
    TunnelType,
    /// No route target that a VNI of ours imports (EVPN-VXLAN-07).
    NoTarget,
}

impl WhyNot {
    /// The route takes no part in the BGP table either: it is neither best nor passed on.
    pub(super) const fn bars_bgp(self) -> bool {
        match self {
            Self::OwnAs
            | Self::OwnOriginator
            | Self::OwnCluster
            | Self::OwnNextHop
            | Self::UnusableNextHop => true,
            Self::NotVxlan | Self::EthernetTag | Self::TunnelType | Self::NoTarget => false,
        }
    }
}

impl fmt::Display for WhyNot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OwnAs => "our AS is in AS_PATH",
            Self::OwnOriginator => "ORIGINATOR_ID is ours",
            Self::OwnCluster => "our cluster id is in CLUSTER_LIST",
            Self::OwnNextHop => "next hop is our own VTEP",
            Self::UnusableNextHop => "next hop is not usable",
            Self::NotVxlan => "no VXLAN among its encapsulations",
            Self::EthernetTag => "Ethernet tag is not 0",
            Self::TunnelType => "tunnel is not ingress replication",
            Self::NoTarget => "no VNI imports its route targets",
        })
    }
}

/// The tunnel end point that a next hop names.
pub(super) const fn vtep(next_hop: NextHop) -> IpAddr {
    match next_hop {
        NextHop::V4(a) => IpAddr::V4(a),
        NextHop::V6(a) | NextHop::V6Both(a, _) => IpAddr::V6(a),
    }
}

/// First fault of a received attribute set; the same for all routes that carry it.
pub(super) fn bar(config: &Config, attrs: &Attrs, next_hop: NextHop) -> Option<WhyNot> {
    if attrs.as_path.as_ref().is_some_and(|p| p.contains(config.asn)) {
        return Some(WhyNot::OwnAs);
    }
    if attrs.originator_id == Some(config.router_id) {
        return Some(WhyNot::OwnOriginator);
    }
    if attrs.cluster_list.contains(&config.cluster_id) {
        return Some(WhyNot::OwnCluster);
    }
    let vtep = vtep(next_hop);
    if vtep == config.vtep {
        return Some(WhyNot::OwnNextHop);
    }
    let broadcast = matches!(vtep, IpAddr::V4(a) if a.is_broadcast());
    if vtep.is_unspecified() || vtep.is_multicast() || vtep.is_loopback() || broadcast {
        return Some(WhyNot::UnusableNextHop);
    }
    (!attrs.allows_vxlan()).then_some(WhyNot::NotVxlan)
}
