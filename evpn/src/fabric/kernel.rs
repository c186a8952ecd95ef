//! Kernel facts as the monitor and the dumps report them.

use crate::types::{IfIndex, Mac};
use serde::Serialize;
use std::net::IpAddr;

/// Something the kernel told us.
///
/// A row seen is a fact. A row missing from a dump is only a suspicion (PIT-13): `*Gone` is given after
/// `RTM_DELNEIGH`, or after a single-row read said so, never because a dump was short.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum KernelEvent {
    /// A device exists, or changed. Always the whole description.
    Link(Link),
    /// A device is gone; its rows go with it.
    LinkGone(IfIndex),
    /// A forwarding row exists, or changed.
    Fdb(FdbRow),
    /// A forwarding row is gone.
    FdbGone(FdbRow),
    /// A neighbour row exists, or changed.
    Neigh(NeighRow),
    /// A neighbour row is gone.
    NeighGone(NeighRow),
    /// The kernel has something to send to an address of which it does not know the MAC, and asks us before it asks the
    /// hosts (`app_solicit`, PIT-18).
    NeighAsked {
        /// Device.
        dev: IfIndex,
        /// Address.
        ip: IpAddr,
    },
    /// Every table has been read completely once since start, or since the last overrun.
    Synced,
    /// Notifications were lost (`ENOBUFS`); the driver resyncs and a `Synced` follows.
    Overrun,
}

/// A network device.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Link {
    /// Index.
    pub index: IfIndex,
    /// Name, at most 15 octets.
    pub name: String,
    /// Hardware address; zero if the device has none.
    pub mac: Mac,
    /// MTU in octets.
    pub mtu: u32,
    /// Administratively up.
    pub up: bool,
    /// Carrier (`IFF_LOWER_UP`).
    pub carrier: bool,
    /// The bridge (or other master) it belongs to.
    pub master: Option<IfIndex>,
    /// What sort of device.
    pub kind: LinkKind,
    /// Bridge port settings, when the master is a bridge.
    pub port: Option<PortFlags>,
}

/// Sort of device, with the settings that matter to us.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum LinkKind {
    /// Linux bridge.
    Bridge(BridgeLink),
    /// VXLAN device.
    Vxlan(VxlanLink),
    /// Anything else, by `IFLA_INFO_KIND` ("veth", "tun", …; empty for a physical device).
    Other(String),
}

/// Settings of a bridge.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
pub struct BridgeLink {
    /// IGMP/MLD snooping (PIT-08).
    pub mcast_snooping: bool,
    /// VLAN filtering; not supported yet.
    pub vlan_filtering: bool,
    /// The MAC was set by somebody and does not follow the ports (`addr_assign_type` 3, PIT-01).
    pub mac_fixed: bool,
    /// Seconds until a silent MAC ages out.
    pub ageing_secs: u32,
    /// Most MACs that it learns; 0: as many as there are. `None`: the kernel has no such limit (before Linux 6.7).
    pub fdb_limit: Option<u32>,
}

/// Settings of a VXLAN device.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
pub struct VxlanLink {
    /// VNI; 0 for an external (collect-metadata) device.
    pub vni: u32,
    /// Source address.
    pub local: Option<IpAddr>,
    /// UDP destination port.
    pub port: u16,
    /// Data-plane learning; must be off.
    pub learning: bool,
}

/// Bridge port settings.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
pub struct PortFlags {
    /// Source MAC learning.
    pub learning: bool,
    /// ARP/ND suppression towards this port.
    pub neigh_suppress: bool,
    /// Unknown unicast is flooded to this port.
    pub flood: bool,
    /// Locked port (802.1X, MAB).
    pub locked: bool,
    /// Isolated port.
    pub isolated: bool,
    /// Hairpin; must be off (PIT-03).
    pub hairpin: bool,
    /// Always takes all multicast where the bridge snoops (`mcast_router 2`, PIT-08).
    pub multicast_router: bool,
    /// In state forwarding.
    pub forwarding: bool,
}

/// A forwarding database row, from either of the two tables that a remote MAC needs.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum FdbRow {
    /// Row of a bridge (`master`).
    Bridge(BridgeFdb),
    /// Row of a VXLAN device (`self`).
    Vxlan(VxlanFdb),
}

/// A bridge row: frames for `mac` leave by `port`.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub struct BridgeFdb {
    /// The bridge.
    pub bridge: IfIndex,
    /// The port; the VXLAN device for a remote MAC, the bridge itself for its own addresses.
    pub port: IfIndex,
    /// MAC.
    pub mac: Mac,
    /// VLAN, 0 without VLAN filtering.
    pub vlan: u16,
    /// `NTF_EXT_LEARNED`: written by a control plane; on a VXLAN port of ours it is the ownership mark (PIT-27).
    pub ext_learned: bool,
    /// `NTF_STICKY`.
    pub sticky: bool,
    /// `NUD_NOARP` ("static").
    pub is_static: bool,
    /// `NUD_PERMANENT`: an address of the port itself, never a host.
    pub permanent: bool,
}

/// A VXLAN row: frames for `mac` are sent to `vtep`.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub struct VxlanFdb {
    /// The VXLAN device.
    pub dev: IfIndex,
    /// MAC; zero in a flood row.
    pub mac: Mac,
    /// Destination; `None` for rows that use next hop objects (never ours).
    pub vtep: Option<IpAddr>,
    /// `NTF_EXT_LEARNED`.
    pub ext_learned: bool,
    /// `NUD_PERMANENT`.
    pub permanent: bool,
}

/// A neighbour (ARP or ND) row.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub struct NeighRow {
    /// Device.
    pub dev: IfIndex,
    /// Address.
    pub ip: IpAddr,
    /// Its MAC; `None` while incomplete or failed.
    pub mac: Option<Mac>,
    /// State.
    pub state: NeighState,
    /// `NTF_EXT_LEARNED`.
    pub ext_learned: bool,
    /// `NTF_ROUTER`.
    pub router: bool,
    /// `NDA_PROTOCOL`; ours is [`NeighRow::PROTOCOL`].
    pub protocol: u8,
}

impl NeighRow {
    /// The `NDA_PROTOCOL` value that marks a neighbour row as ours (bgp is 186, zebra 11, both foreign).
    pub const PROTOCOL: u8 = 158;
    /// Whether vtepd wrote it (PIT-27).
    pub fn is_ours(&self) -> bool {
        self.protocol == Self::PROTOCOL
    }
}

/// NUD state, coarsened to what matters.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum NeighState {
    /// `NUD_NOARP`: as we write them; never ages, never updated by ARP.
    NoArp,
    /// `NUD_PERMANENT`.
    Permanent,
    /// Reachable, stale, delay or probe: learned by the kernel and usable.
    Valid,
    /// Incomplete or failed.
    Invalid,
}
