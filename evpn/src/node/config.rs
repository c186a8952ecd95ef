//! Configuration of a node, already validated.

use super::bfd::BfdConfig;
use super::dynamic::NeighborRange;
use super::host_config::{ArpConfig, VniHosts};
use super::neighbor_rules::NeighborRules;
use super::restart::RestartConfig;
use crate::mobility::{IpPrefix, MacPattern};
use crate::types::{Asn, Mac, RemoteAs, RouterId, Span, Vni};
use crate::wire::RouteTarget;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// Everything a node is told at start.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Config {
    /// VXLAN source, BGP next hop and IMET originator; IPv4 or IPv6.
    pub vtep: IpAddr,
    /// Our AS number.
    pub asn: Asn,
    /// BGP identifier; the IPv4 VTEP address unless configured.
    pub router_id: RouterId,
    /// What a route reflector adds to CLUSTER_LIST (RFC 4456 §7); the identifier unless configured.
    pub cluster_id: RouterId,
    /// VXLAN UDP destination port.
    pub udp_port: u16,
    /// BGP listening port (179).
    pub bgp_port: u16,
    /// Address to listen on; all when absent.
    pub listen: Option<IpAddr>,
    /// BGP neighbours.
    pub neighbors: Vec<NeighborConfig>,
    /// Prefixes whose addresses may become neighbours.
    pub neighbor_ranges: Vec<NeighborRange>,
    /// VNIs.
    pub vnis: Vec<VniConfig>,
    /// How long rows adopted at start stay wanted when a neighbour never sends End-of-RIB.
    pub restart_time: Span,
    /// How long selection is deferred after a restart of ours while neighbours have not told their routes (BGP-GR-08).
    pub selection_deferral: Span,
    /// How moves are decided.
    pub mobility: MobilityConfig,
    /// How addresses are learned, kept and told.
    pub arp: ArpConfig,
}

/// How moves are decided, for all VNIs.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct MobilityConfig {
    /// The late-frame rule's guard time: frames from the port that just lost a MAC are no claim for this long.
    pub guard_time: Span,
    /// Known IPs move with their MAC in the same flush (PIT-22); `false` restores EVPN-IRB-14.
    pub move_ips_with_mac: bool,
    /// How long the highest sequence of a MAC that nobody advertises is remembered (EVPN-MOB-12).
    pub memory_time: Span,
    /// How long a prepared move waits for its activation, and an activated one for the guest's first frame,
    /// unless the request says otherwise (PIT-06).
    pub prepare_time: Span,
    /// How long a released MAC's frames from its old port are no claim (PIT-04).
    pub release_time: Span,
    /// How long what arrives for a guest that has stopped to leave is kept, and then how long it is sent on to where the
    /// guest is (PIT-26); zero: neither.
    pub hold_time: Span,
    /// Most frames kept for one MAC.
    pub hold_frames: u32,
    /// Most octets kept for one MAC; sixteen times as many for all.
    pub hold_octets: u32,
    /// Detection of duplicates.
    pub duplicates: Duplicates,
}

impl Default for MobilityConfig {
    fn default() -> Self {
        Self {
            guard_time: Span::secs(1),
            move_ips_with_mac: true,
            memory_time: Span::secs(24 * 3600),
            prepare_time: Span::secs(60),
            release_time: Span::secs(60),
            hold_time: Span::secs(1),
            hold_frames: 4096,
            hold_octets: 4 << 20,
            duplicates: Duplicates::default(),
        }
    }
}

/// Detection of duplicate MACs and IPs (RFC 7432 §15.1, RFC 9721 §8).
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Duplicates {
    /// What counts as one.
    pub mode: DuplicateMode,
    /// What is done about it.
    pub action: DuplicateAction,
    /// N: moves within `window` (EVPN-MOB-15).
    pub moves: u32,
    /// M.
    pub window: Span,
    /// R: a frozen address is let go after this time (EVPN-MOB-16); `None`: only by an operator, or when one
    /// owner falls silent.
    pub recovery: Option<Span>,
}

impl Default for Duplicates {
    fn default() -> Self {
        Self {
            mode: DuplicateMode::Oscillation,
            action: DuplicateAction::Report,
            moves: 5,
            window: Span::secs(180),
            recovery: None,
        }
    }
}

/// What counts as a duplicate.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum DuplicateMode {
    /// Nothing does.
    Off,
    /// N moves in M seconds, as RFC 7432 §15.1 counts them.
    Rfc7432,
    /// An address that goes to and fro between owners that are both alive.
    Oscillation,
}

/// What is done about a duplicate.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DuplicateAction {
    /// Told to the operator.
    Report,
    /// The address stays where it is, its routes are neither sent nor processed.
    Freeze,
    /// Frames of the address are dropped at the loser's port.
    Block,
}

/// A BGP neighbour.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct NeighborConfig {
    /// Its address.
    pub address: IpAddr,
    /// Its port when we connect.
    pub port: u16,
    /// Its AS; ours: iBGP.
    pub asn: RemoteAs,
    /// Source address of our connections.
    pub local_address: Option<IpAddr>,
    /// Never connect, only accept.
    pub passive: bool,
    /// Seconds; 0 or at least 3.
    pub hold_time: u16,
    /// Base of the connect-retry timer, before jitter (BGP-FSM-13).
    pub connect_retry: Span,
    /// IPv4 TTL / IPv6 hop limit for eBGP; `None`: 1 for eBGP, system default for iBGP (BGP-SEC-02).
    pub multihop: Option<u8>,
    /// Hops that its packets may have come: sent is 255, and accepted no less than 255 − (hops − 1) (BGP-SEC-01).
    pub ttl_security: Option<u8>,
    /// No session without L2VPN EVPN: the neighbour is told, and there is no further attempt (BGP-CAP-05).
    pub require_evpn: bool,
    /// Shortest hold time of its that is accepted, seconds; 0 is accepted always (BGP-OPEN-04).
    pub min_hold_time: u16,
    /// OPEN with extended optional parameters however few there are (BGP-CAP-07).
    pub extended_open: bool,
    /// Its connections are signed (BGP-SEC-03); the key is the driver's.
    pub signed: bool,
    /// A client of us as a route reflector (RFC 4456); only for neighbours of our own AS.
    pub route_reflector_client: bool,
    /// Graceful restart.
    pub restart: RestartConfig,
    /// Route target membership (RFC 4684) is offered: only routes that the other side has asked for are sent.
    pub rt_constraint: bool,
    /// Bidirectional forwarding detection (RFC 5882 §4); `None`: none.
    pub bfd: Option<BfdConfig>,
    /// Text for people.
    pub description: Option<String>,
    /// What it may do, and what is believed of it.
    pub rules: NeighborRules,
}

impl NeighborConfig {
    /// With every setting at its default.
    pub fn new(address: IpAddr, asn: RemoteAs) -> Self {
        Self {
            address,
            port: 179,
            asn,
            local_address: None,
            passive: false,
            hold_time: 90,
            connect_retry: Span::secs(120),
            multihop: None,
            ttl_security: None,
            require_evpn: false,
            min_hold_time: 0,
            extended_open: false,
            signed: false,
            route_reflector_client: false,
            restart: RestartConfig::default(),
            rt_constraint: false,
            bfd: None,
            description: None,
            rules: NeighborRules::default(),
        }
    }

    /// TTL or hop limit of its connections; `ours` is our own AS.
    pub fn hops(&self, ours: Asn) -> Hops {
        match self.ttl_security {
            Some(hops) => Hops { ttl: Some(255), least: Some(255 - hops.saturating_sub(1)) },
            // BGP-SEC-02
            None => Hops { ttl: self.multihop.or((!self.asn.is_internal(ours)).then_some(1)), least: None },
        }
    }
}

/// TTL (IPv4) or hop limit (IPv6) of a connection.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Hops {
    /// What we send; `None`: the system's.
    pub ttl: Option<u8>,
    /// What packets must have left when they come; `None`: anything.
    pub least: Option<u8>,
}

/// A VNI with its bridge domain.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct VniConfig {
    /// VNI.
    pub vni: Vni,
    /// Bridge name; default `br<vni>`.
    pub bridge: String,
    /// VXLAN device name; default `vx<vni>`.
    pub vxlan: String,
    /// Access ports to enslave. Ports that are in the bridge already count too.
    pub ports: Vec<String>,
    /// Route targets to import; [`Targets::Auto`] takes any target whose local part is the VNI.
    pub import: Targets,
    /// Route targets to export.
    pub export: Targets,
    /// Head-end replication, or none.
    pub flooding: Flooding,
    /// Kernel answers ARP and ND for remote hosts.
    pub arp_suppression: bool,
    /// MTU of the VNI; checked against the underlay (PIT-11).
    pub mtu: Option<u32>,
    /// MAC of a bridge that we create; derived from VTEP and VNI.
    pub bridge_mac: Mac,
    /// What may move in this VNI.
    pub mobility: VniMobility,
    /// ARP, ND and flooding.
    pub hosts: VniHosts,
}

/// What may move in a VNI.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct VniMobility {
    /// Static MACs of our own and their ports: advertised sticky, sequence 0 (EVPN-MOB-17).
    pub sticky: BTreeMap<Mac, String>,
    /// MACs of gateways: never learned as hosts (EVPN-MOB-19).
    pub gateway_macs: BTreeSet<Mac>,
    /// Ports whose hosts may have these addresses and no others; a port that is not named has no such limit (PIT-07).
    pub allowed: BTreeMap<String, Vec<IpPrefix>>,
    /// MACs that are never taken for duplicates, besides [`MacPattern::VIRTUAL_ROUTERS`].
    pub floating_macs: Vec<MacPattern>,
    /// IPs that are never taken for duplicates.
    pub floating_ips: Vec<IpPrefix>,
    /// VTEPs among which addresses move; empty: all. What an outside VTEP says of an address that is inside counts
    /// for nothing.
    pub domain: Vec<IpPrefix>,
    /// Most moves a minute; 0: no limit.
    pub moves_per_minute: u32,
    /// Most different owners of one MAC in an hour; 0: no limit.
    pub owners_per_hour: u32,
    /// Most MACs learned on local ports that are advertised; 0: no limit.
    pub mac_limit: u32,
    /// The same for each port.
    pub port_mac_limit: u32,
    /// So many MACs beyond these limits on one port within ten seconds, and it lets only known ones in; 0: never.
    pub flood_guard: u32,
    /// Ports that let everything in all the same.
    pub unguarded: BTreeSet<String>,
}

impl Default for VniMobility {
    fn default() -> Self {
        Self {
            sticky: BTreeMap::new(),
            gateway_macs: BTreeSet::new(),
            allowed: BTreeMap::new(),
            floating_macs: Vec::new(),
            floating_ips: Vec::new(),
            domain: Vec::new(),
            moves_per_minute: 0,
            owners_per_hour: 0,
            mac_limit: 131_072,
            port_mac_limit: 32_768,
            flood_guard: 1000,
            unguarded: BTreeSet::new(),
        }
    }
}

/// Route targets of one direction.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Targets {
    /// `(AS & 0xffff):VNI` out, `*:VNI` in, as FRR does (EVPN-VXLAN-10).
    Auto,
    /// RFC 8365 §5.1.2.1 form: `AS:(0x10000000 | VNI)` out and in, any AS in.
    AutoRfc8365,
    /// Exactly these.
    List(Vec<RouteTarget>),
}

/// What happens to broadcast, unknown unicast and multicast of a VNI.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Flooding {
    /// One copy per remote VTEP that sent IMET.
    Replicate,
    /// None crosses the underlay.
    None,
}
