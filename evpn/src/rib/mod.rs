//! Routes: Adj-RIB-In per neighbour, import into MAC-VRFs by route target, best path, Adj-RIB-Out.

use crate::session::Agreed;
use crate::types::{Asn, Esi, Label, Mac, PeerId, RouterId, Seq, Time, Vni};
use crate::wire::{Attrs, EvpnRoute, NextHop, RouteKey, RouteTarget, Treatment, Update};
use bytes::Bytes;
use std::net::IpAddr;
use std::sync::Arc;

/// Who we are.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Config {
    /// Our AS number.
    pub asn: Asn,
    /// Our BGP identifier.
    pub router_id: RouterId,
    /// Our VTEP address: routes with it as next hop are never installed (EVPN-NLRI-16).
    pub vtep: IpAddr,
}

/// Import policy of a VNI.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Import {
    /// Any route target whose local part is the VNI, in FRR's form or the RFC 8365 form, whatever the AS.
    Auto,
    /// Exactly these.
    List(Vec<RouteTarget>),
}

/// A Type-2 route imported into a VNI: a candidate for its MAC, and for its IP if it has one.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Candidate {
    /// Neighbour it came from.
    pub peer: PeerId,
    /// Full key with the RD.
    pub key: RouteKey,
    /// Address of the host; `None` for MAC-only.
    pub ip: Option<IpAddr>,
    /// The VTEP to send to.
    pub vtep: IpAddr,
    /// VNI to send with.
    pub label: Label,
    /// Segment.
    pub esi: Esi,
    /// Mobility sequence; 0 when absent (EVPN-MOB-02).
    pub seq: Seq,
    /// Sticky bit.
    pub sticky: bool,
    /// Default Gateway community.
    pub gateway: bool,
    /// R flag of the ARP/ND community.
    pub router: bool,
    /// Learned over eBGP.
    pub ebgp: bool,
    /// Stale under graceful restart: never defends a MAC or an IP (PIT-23).
    pub stale: bool,
}

/// Something changed that forwarding may depend on.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Change {
    /// The set of candidates of this MAC (and of IPs bound to it) in this VNI changed.
    Mac(Vni, Mac),
    /// The set of flood destinations of this VNI changed for this VTEP.
    Flood(Vni, IpAddr),
}

/// The tables.
#[derive(Debug)]
pub struct Rib {
    config: Config,
}

impl Rib {
    /// Empty tables.
    pub fn new(config: Config) -> Self {
        Self { config }
    }
    /// A MAC-VRF and what it imports.
    pub fn add_vni(&mut self, _vni: Vni, _import: Import) {
        let _ = &self.config;
    }
    /// A configured neighbour.
    pub fn add_peer(&mut self, _peer: PeerId, _address: IpAddr, _ibgp: bool) {}
    /// The session came up: everything advertisable becomes due for this peer, then End-of-RIB.
    pub fn peer_up(&mut self, _peer: PeerId, _agreed: &Agreed) {}
    /// The session went down: its routes go.
    pub fn peer_down(&mut self, _peer: PeerId) {}
    /// An UPDATE arrived.
    pub fn update(&mut self, _peer: PeerId, _update: &Update, _treatment: Option<Treatment>, _at: Time) {}
    /// The peer asks for everything again (RFC 2918).
    pub fn refresh(&mut self, _peer: PeerId) {}
    /// Our own route, new or replaced. `urgent`: before all other traffic to the peers (a move).
    /// An identical re-origination causes no churn (BGP-UPD-07).
    pub fn originate(&mut self, _route: EvpnRoute, _attrs: Arc<Attrs>, _next_hop: NextHop, _urgent: bool) {}
    /// Withdraw our own route.
    pub fn withdraw(&mut self, _key: &RouteKey, _urgent: bool) {}
    /// Takes up to `max` changes since the last call, each key once.
    pub fn take_changes(&mut self, _max: usize) -> Vec<Change> {
        Vec::new()
    }
    /// Eligible candidates for a MAC, best first (EVPN-BEST-*). Includes MAC+IP routes.
    pub fn mac_candidates(&self, _vni: Vni, _mac: Mac) -> Vec<Candidate> {
        Vec::new()
    }
    /// Eligible candidates for an IP, whatever the MAC, best first.
    pub fn ip_candidates(&self, _vni: Vni, _ip: IpAddr) -> Vec<Candidate> {
        Vec::new()
    }
    /// Flood destinations of a VNI.
    pub fn flood_vteps(&self, _vni: Vni) -> Vec<IpAddr> {
        Vec::new()
    }
    /// The next UPDATE for an established peer, at most `max` octets, packed with routes of equal attributes;
    /// `None` when nothing is due. Ends with End-of-RIB after `peer_up`.
    pub fn next_update(&mut self, _peer: PeerId, _max: usize) -> Option<Bytes> {
        None
    }
    /// Whether `next_update` has something for this peer.
    pub fn has_updates(&self, _peer: PeerId) -> bool {
        false
    }
    /// End-of-RIB received for EVPN.
    pub fn end_of_rib(&self, _peer: PeerId) -> bool {
        false
    }
}
