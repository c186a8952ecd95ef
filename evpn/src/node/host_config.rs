//! Configuration of ARP and ND: how addresses are learned, kept and told.

use super::port_rules::Storm;
use crate::mobility::IpPrefix;
use crate::types::{Mac, Span};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// ARP and ND, for all VNIs.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct ArpConfig {
    /// A host that has confirmed an address for so long no more is asked for it (PROXY-MAINT-02); after four fifths of the
    /// bridge's ageing time if that is sooner, so that the row of a host that answers never ages.
    pub confirm_time: Span,
    /// Most such questions a second, all VNIs together; what is suspected is asked for at once and does not count.
    pub probe_rate: u32,
    /// Most addresses that are learned for one MAC.
    pub addresses_per_mac: u32,
    /// Most unsolicited ARP and ND frames a second that tell hosts of a changed MAC, all VNIs together.
    pub tell_rate: u32,
    /// How long neighbour rows answer after the daemon has stopped (PIT-20).
    pub stale_time: Span,
    /// How long the owner of an address has to answer when another MAC claims it; one behind another VTEP a round trip and
    /// a few ms more. 0: claims are not checked.
    pub claim_time: Span,
    /// Who is answered for when two live hosts have one address.
    pub conflict: ConflictPolicy,
    /// A conflict is looked at anew after this time (PROXY-DUP-04).
    pub conflict_time: Span,
}

/// Two live hosts have one address: who is answered for.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ConflictPolicy {
    /// Nobody: both answer for themselves (PROXY-DUP-04).
    None,
    /// Who had it before.
    First,
    /// Who claimed it last.
    Last,
}

impl Default for ArpConfig {
    fn default() -> Self {
        Self {
            confirm_time: Span::secs(240),
            probe_rate: 50,
            addresses_per_mac: 64,
            tell_rate: 2000,
            stale_time: Span::secs(120),
            claim_time: Span::millis(10),
            conflict: ConflictPolicy::None,
            conflict_time: Span::secs(540),
        }
    }
}

/// ARP and ND of one VNI.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct VniHosts {
    /// Source of our probes: one per VNI and VTEP, a permanent address of the bridge, advertised sticky, and no
    /// host's (PIT-15).
    pub probe_mac: Mac,
    /// The first hop, the same at every VTEP (RFC 9135 §4.1).
    pub gateway: Option<Gateway>,
    /// Whether hosts behind VTEPs that do not tell them are told by us (PIT-17).
    pub tell_peers: TellPeers,
    /// ARP requests and NS for addresses that the kernel does not answer for.
    pub unknown: Unknown,
    /// Solicitations with options that the kernel does not know.
    pub unknown_options: UnknownOptions,
    /// DHCP servers that requests are carried to where nothing is flooded (PIT-19).
    pub dhcp_servers: BTreeSet<IpAddr>,
    /// Addresses that belong to these MACs and to no others (PROXY-LEARN-04), advertised as immutable while one of them is here
    /// (PROXY-EC-04). None of the lists is empty.
    pub static_hosts: BTreeMap<IpAddr, BTreeSet<Mac>>,
    /// Whether unknown unicast goes out of the ports; `None`: as they are.
    pub unknown_unicast: Option<bool>,
    /// Tagged frames pass; suppression is off then, because the kernel answers them from the untagged rows (PIT-10).
    pub tagged: bool,
    /// Frames a second that an access port may send.
    pub storm: Storm,
}

impl VniHosts {
    /// Everything as it is unless configured.
    pub fn new(probe_mac: Mac) -> Self {
        Self {
            probe_mac,
            gateway: None,
            tell_peers: TellPeers::Auto,
            unknown: Unknown::Replicate,
            unknown_options: UnknownOptions::Replicate,
            dhcp_servers: BTreeSet::new(),
            static_hosts: BTreeMap::new(),
            unknown_unicast: None,
            tagged: false,
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
    /// It advertises itself to IPv6 hosts (RFC 4861 §6.2).
    pub ra: bool,
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

/// What happens to questions for addresses that the kernel does not answer for (PROXY-FLOOD-01).
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unknown {
    /// They go to every VTEP.
    Replicate,
    /// They go to the owner if there is one, else they are dropped (PROXY-FWD-01).
    Unicast,
    /// They do not cross the underlay.
    Drop,
}

/// What happens to solicitations with options other than a link-layer address (PROXY-REPLY-08): who asks in a special way may want
/// an answer in a special way, which its owner alone can give (RFC 9161 §3.3 f).
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum UnknownOptions {
    /// The kernel answers them as any other.
    Reply,
    /// They go to all, as if nothing were known.
    Replicate,
    /// They go to the owner; to all if there is none (PROXY-FWD-01).
    Unicast,
    /// Nobody gets them.
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
