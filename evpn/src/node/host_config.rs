//! Configuration of ARP and ND: how addresses are learned, kept, told, and what may cross the underlay.

use crate::mobility::IpPrefix;
use crate::types::{Mac, Span};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// ARP and ND, for all VNIs.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct ArpConfig {
    /// A host that has confirmed an address for so long no more is asked for it (PROXY-MAINT-02). Below the bridge's
    /// ageing time, so that the row of a host that answers never ages.
    pub confirm_time: Span,
    /// Most such questions a second, all VNIs together; what is suspected is asked for at once and does not count.
    pub probe_rate: u32,
    /// How long a claim on an address that somebody else has waits for that one's answer.
    pub claim_time: Span,
    /// Who is answered for when two live hosts claim an address.
    pub conflict: Conflict,
    /// A conflict that nobody renews is over after this time (PROXY-DUP-04).
    pub conflict_time: Span,
    /// Most addresses that are learned for one MAC.
    pub addresses_per_mac: u32,
    /// Most unsolicited ARP and ND frames a second that tell hosts of a changed MAC, all VNIs together.
    pub tell_rate: u32,
    /// How long neighbour rows answer after the daemon has stopped (PIT-20).
    pub stale_time: Span,
}

impl Default for ArpConfig {
    fn default() -> Self {
        Self {
            confirm_time: Span::secs(240),
            probe_rate: 50,
            claim_time: Span::millis(10),
            conflict: Conflict::None,
            conflict_time: Span::secs(540),
            addresses_per_mac: 64,
            tell_rate: 2000,
            stale_time: Span::secs(120),
        }
    }
}

/// Who is answered for when two live hosts claim an address.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Conflict {
    /// Nobody (PROXY-DUP-04): an answer that may be wrong is not given.
    None,
    /// Whoever had it first.
    First,
    /// Whoever claimed it last.
    Last,
}

/// ARP, ND and flooding of one VNI.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct VniHosts {
    /// Source of our probes: one per VNI and VTEP, a permanent address of the bridge, advertised sticky, and no
    /// host's (PIT-15).
    pub probe_mac: Mac,
    /// The first hop, the same at every VTEP (RFC 9135 §4.1).
    pub gateway: Option<Gateway>,
    /// ARP requests and NS for addresses that nobody has told.
    pub unknown: Unknown,
    /// Whether hosts behind VTEPs that do not tell them are told by us (PIT-17).
    pub tell_peers: TellPeers,
    /// DHCP servers that requests are carried to where nothing is flooded (PIT-19).
    pub dhcp_servers: BTreeSet<IpAddr>,
    /// Addresses that belong to these MACs and to no others (PROXY-LEARN-04); advertised as immutable
    /// (PROXY-EC-04) once one of them is seen.
    pub static_hosts: BTreeMap<IpAddr, BTreeSet<Mac>>,
    /// Tagged frames pass; suppression is off then, because the kernel answers them from the untagged rows (PIT-10).
    pub tagged: bool,
    /// Unknown unicast goes out of access ports.
    pub unknown_unicast: bool,
    /// Frames a second that an access port may send.
    pub storm: Storm,
}

impl VniHosts {
    /// Everything as it is unless configured.
    pub fn new(probe_mac: Mac) -> Self {
        Self {
            probe_mac,
            gateway: None,
            unknown: Unknown::Replicate,
            tell_peers: TellPeers::Auto,
            dhcp_servers: BTreeSet::new(),
            static_hosts: BTreeMap::new(),
            tagged: false,
            unknown_unicast: true,
            storm: Storm::default(),
        }
    }
}

/// The first hop of a VNI's hosts.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Gateway {
    /// Its addresses with the prefix of their subnet; at least one.
    pub addresses: Vec<GatewayAddress>,
    /// Its MAC, which the bridge has.
    pub mac: Mac,
    /// Router advertisements are sent.
    pub ra: bool,
}

impl Gateway {
    /// Whether an address is the gateway's own.
    pub fn has(&self, ip: IpAddr) -> bool {
        self.addresses.iter().any(|a| a.ip == ip)
    }
}

/// An address of a gateway.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
pub struct GatewayAddress {
    /// Address.
    pub ip: IpAddr,
    /// Length of the subnet's prefix in bits.
    pub bits: u8,
}

impl GatewayAddress {
    /// `None` when the length does not fit the family.
    pub fn new(ip: IpAddr, bits: u8) -> Option<Self> {
        IpPrefix::new(ip, bits).map(|_| Self { ip, bits })
    }
    /// Whether an address is in the subnet.
    pub fn contains(&self, ip: IpAddr) -> bool {
        IpPrefix::new(self.ip, self.bits).is_some_and(|p| p.contains(ip))
    }
}

impl core::fmt::Display for GatewayAddress {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{}/{}", self.ip, self.bits)
    }
}

/// What happens to questions for addresses that nobody has told.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unknown {
    /// They go to every VTEP (PROXY-FLOOD-01).
    Replicate,
    /// They go to the owner's VTEP if there is one that may not be answered for, else they are dropped.
    Unicast,
    /// They do not cross the underlay.
    Drop,
}

/// Whether hosts behind other VTEPs are told of a changed MAC.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum TellPeers {
    /// Behind those that have not said that they tell their own.
    Auto,
    /// Behind all.
    Always,
    /// Behind none.
    Never,
}

/// Most frames a second from one access port; 0: no limit.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
pub struct Storm {
    /// ARP and RARP.
    pub arp: u32,
    /// Neighbour discovery.
    pub nd: u32,
    /// Other broadcast.
    pub broadcast: u32,
    /// Other multicast.
    pub multicast: u32,
}
