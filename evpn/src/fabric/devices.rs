//! The devices we want: one bridge and one VXLAN device per VNI (design section 5).

use crate::types::{Mac, Vni};
use serde::Serialize;
use std::net::IpAddr;

/// Bridge and VXLAN device of one VNI. Absent devices are created and owned; present ones are adopted: their
/// port flags are set, anything else that differs is reported, and they are left behind at exit.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct DeviceWant {
    /// VNI.
    pub vni: Vni,
    /// Bridge name.
    pub bridge: String,
    /// Stable, locally administered MAC for a bridge that we create (PIT-01).
    pub bridge_mac: Mac,
    /// VXLAN device name.
    pub vxlan: String,
    /// VXLAN source address.
    pub local: IpAddr,
    /// UDP destination port.
    pub udp_port: u16,
    /// MTU of bridge and VXLAN device, when configured (PIT-11).
    pub mtu: Option<u32>,
    /// Most MACs that a bridge of ours learns from frames, where the kernel has such a limit (Linux 6.7); 0: no limit.
    pub fdb_limit: u32,
    /// `neigh_suppress` on the VXLAN port.
    pub arp_suppression: bool,
    /// Unknown unicast goes out of the ports (`flood`); `None`: as they are.
    pub unicast_flood: Option<bool>,
    /// Access ports to enslave.
    pub ports: Vec<PortWant>,
    /// What makes the bridge the first hop of the VNI's hosts.
    pub gateway: Option<GatewayWant>,
}

/// A bridge that routes for the hosts behind it: the same addresses and the same MAC at every VTEP (RFC 9135 §4.1,
/// EVPN-IRB-10).
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct GatewayWant {
    /// MAC of the bridge.
    pub mac: Mac,
    /// Addresses with the length of their subnets' prefixes; with IPv6 a link-local one is among them.
    pub addresses: Vec<(IpAddr, u8)>,
}

/// An access port.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct PortWant {
    /// Device name.
    pub name: String,
}
