//! Routes: Adj-RIB-In per neighbour, import into MAC-VRFs by route target, best path, Adj-RIB-Out.
//!
//! # How it is laid out
//!
//! A VTEP holds many routes and few distinct sets of attributes, so a route is one ordered key and one small
//! number: `(MAC, IP, RD, neighbour) → set`. The *set* (`sets`) is interned: path attributes, next hop, segment and
//! labels, together with everything that follows from them (preference, eligibility, importing VNIs). Two routes
//! are equal if and only if their set numbers are; that is how an identical re-announcement is recognised
//! (BGP-UPD-07).
//!
//! Type-2 routes live in *groups* (`table`): all routes imported into the same VNIs share one ordered table, so that
//! Adj-RIB-In and MAC-VRF are the same memory. Our own routes are in the same tables under a neighbour number
//! that no neighbour has; they are never candidates, and always best under their key.
//!
//! Towards a neighbour there are only dirty keys (`out`), never octets: what is sent is looked up when there is
//! room to send it, so that the latest state wins.
//!
//! | file | rule |
//! |---|---|
//! | `eligible` | what keeps a route out (BGP-DEC-08, EVPN-NLRI-16, EVPN-VXLAN-05) |
//! | `targets` | import by route target (EVPN-VXLAN-07, -09, -10) |
//! | `best` | the order of routes (EVPN-BEST-\*, BGP-DEC-\*) |
//! | `stale` | routes of a neighbour that is away (BGP-GR-\*, BGP-LLGR-\*) |
//! | `export` | to whom and with which attributes (BGP-DEC-05, -07, EVPN-NLRI-15) |
//! | `reflect` | route reflection (BGP-RR-01 to -06) |
//! | `rtc` | who wants which route targets (BGP-RTC-03 to -06) |

mod best;
mod candidates;
mod changes;
mod eligible;
mod export;
mod input;
mod out;
mod reflect;
mod rtc;
mod sets;
mod show;
mod slab;
mod stale;
mod table;
mod targets;

pub use eligible::WhyNot;
pub use show::{PeerCounters, PeerRoutes, RouteCursor, RouteInfo};

use crate::session::Agreed;
use crate::types::{Asn, Esi, Label, Mac, PeerId, RouterId, Seq, Vni};
use crate::wire::{Family, RouteKey, RouteTarget};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Who we are.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Config {
    /// Our AS number.
    pub asn: Asn,
    /// Our BGP identifier.
    pub router_id: RouterId,
    /// What we put in front of CLUSTER_LIST as a route reflector (RFC 4456 §7).
    pub cluster_id: RouterId,
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
    /// O flag of the ARP/ND community, true without one: a host may replace another MAC that it holds (PROXY-EC-02). Means nothing
    /// for IPv4.
    pub r#override: bool,
    /// I flag of the ARP/ND community: the binding is its VTEP's configuration (RFC 9047 §3.2).
    pub immutable: bool,
    /// Learned over eBGP.
    pub ebgp: bool,
    /// Stale under graceful restart: never defends a MAC or an IP (PIT-23).
    pub stale: bool,
    /// Its VTEP says that the guest has stopped there, to run elsewhere next (PIT-26).
    pub going: bool,
}

/// Something changed that forwarding may depend on.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Change {
    /// The set of candidates of this MAC (and of IPs bound to it) in this VNI changed.
    Mac(Vni, Mac),
    /// The set of flood destinations of this VNI changed for this VTEP.
    Flood(Vni, IpAddr),
}

/// The "neighbour" of routes that we originate. Configured neighbours have lower numbers.
const OWN: PeerId = PeerId(u32::MAX);

/// A neighbour.
#[derive(Debug)]
struct Peer {
    address: IpAddr,
    ibgp: bool,
    /// A client of us as a route reflector.
    client: bool,
    /// Its identifier in the last session: that of the routes that came in it.
    id: RouterId,
    /// Some of its routes may be stale.
    kept: bool,
    /// Present while Established.
    up: Option<Up>,
    /// End-of-RIB received in this session.
    end_of_rib: bool,
    routes_in: usize,
    out: out::Queue,
    /// Present while Established, where route target membership is in use.
    rtc: Option<rtc::Constraint>,
}

/// What matters here of an established session.
#[derive(Clone, Copy, Debug)]
struct Up {
    as4: bool,
    max_send: usize,
    /// EVPN is in use on the session.
    evpn: bool,
}

/// The tables.
#[derive(Debug)]
pub struct Rib {
    config: Config,
    peers: BTreeMap<PeerId, Peer>,
    targets: targets::Targets,
    sets: sets::Sets,
    hosts: table::Hosts,
    others: table::Others,
    changes: changes::Changes,
    /// Raised by every change that neighbours may see; plans made at the same number still hold.
    version: u64,
    /// Nobody is sent End-of-RIB yet.
    unfinished: bool,
}

impl Rib {
    /// Empty tables.
    pub fn new(config: Config) -> Self {
        Self {
            config,
            peers: BTreeMap::new(),
            targets: targets::Targets::default(),
            sets: sets::Sets::default(),
            hosts: table::Hosts::default(),
            others: table::Others::default(),
            changes: changes::Changes::default(),
            version: 0,
            unfinished: false,
        }
    }

    /// A MAC-VRF and what it imports. Routes that are already here are imported now; the policy of a VNI that
    /// exists is replaced.
    pub fn add_vni(&mut self, vni: Vni, import: Import) {
        if self.targets.add(vni, import) {
            self.memberships_changed();
            self.reimport();
        }
    }

    /// The MAC-VRF is gone: nothing is imported into it any more.
    pub fn remove_vni(&mut self, vni: Vni) {
        if self.targets.remove(vni) {
            self.memberships_changed();
            self.reimport();
        }
    }

    /// A configured neighbour. Its number must be below `u32::MAX`; adding one twice changes nothing.
    pub fn add_peer(&mut self, peer: PeerId, address: IpAddr, ibgp: bool) {
        debug_assert!(peer != OWN, "this number is ours");
        self.peers.entry(peer).or_insert_with(|| Peer {
            address,
            ibgp,
            client: false,
            id: RouterId::UNSPECIFIED,
            kept: false,
            up: None,
            end_of_rib: false,
            routes_in: 0,
            out: out::Queue::default(),
            rtc: None,
        });
    }

    /// The neighbour is no longer configured: its routes go.
    pub fn remove_peer(&mut self, peer: PeerId) {
        self.peer_down(peer);
        self.peers.remove(&peer);
    }

    /// The session came up: everything advertisable becomes due for this peer, then End-of-RIB. Its stale routes stay
    /// stale.
    pub fn peer_up(&mut self, peer: PeerId, agreed: &Agreed) {
        if self.peers.get(&peer).is_some_and(|p| p.up.is_some()) {
            self.peer_down(peer);
        }
        let evpn = agreed.families.contains(&Family::EVPN);
        let Some(p) = self.peers.get_mut(&peer) else { return };
        p.ibgp = agreed.ibgp;
        p.id = agreed.peer_id;
        p.up = Some(Up { as4: agreed.as4, max_send: usize::from(agreed.max_send), evpn });
        if agreed.families.contains(&Family::RTC) {
            // Its routes wait until it has said what it wants (BGP-RTC-05).
            p.rtc = Some(rtc::Constraint::new());
        } else if evpn {
            p.out.start();
            self.everything_due(peer, false);
        }
    }

    /// The session went down: its routes go, stale ones too.
    pub fn peer_down(&mut self, peer: PeerId) {
        let Some(p) = self.peers.get_mut(&peer) else { return };
        p.out = out::Queue::default();
        let told = p.rtc.take().is_some();
        p.end_of_rib = false;
        if told {
            self.memberships_changed();
        }
        let Some(p) = self.peers.get_mut(&peer) else { return };
        if p.up.is_none() && !p.kept {
            return;
        }
        // Nothing more for this one.
        if let Some(up) = &mut p.up {
            up.evpn = false;
        }
        p.kept = false;
        self.drop_routes_of(peer);
        if let Some(p) = self.peers.get_mut(&peer) {
            p.up = None;
        }
    }

    /// The peer asks for everything again (RFC 2918, BGP-REFR-01).
    pub fn refresh(&mut self, peer: PeerId) {
        if self.peers.get(&peer).is_some_and(Peer::hears) {
            self.everything_due(peer, true);
        }
    }

    /// End-of-RIB received for EVPN in this session.
    pub fn end_of_rib(&self, peer: PeerId) -> bool {
        self.peers.get(&peer).is_some_and(|p| p.end_of_rib)
    }
}
