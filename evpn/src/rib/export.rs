//! Which routes a neighbour is sent, and what becomes of their attributes on the way.

use super::best::{DEFAULT_LOCAL_PREF, LLGR_STALE};
use super::input::Best;
use super::sets::Set;
use super::{OWN, Peer, Rib};
use crate::types::{Asn, PeerId};
use crate::wire::{Attrs, Community};

/// NO_EXPORT, NO_ADVERTISE, NO_EXPORT_SUBCONFED (RFC 1997).
const NO_EXPORT: Community = Community(0xffff_ff01);
const NO_ADVERTISE: Community = Community(0xffff_ff02);
const NO_EXPORT_SUBCONFED: Community = Community(0xffff_ff03);

impl Rib {
    /// Whether changes of routes from here can matter to any neighbour; saves the work when none can.
    /// Without a route reflector only eBGP passes on what was learned (BGP-DEC-05).
    pub(super) fn visible(&self, from: PeerId) -> bool {
        let established = self.peers.values().any(|p| p.up.is_some_and(|up| up.evpn));
        established && (from == OWN || self.peers.values().any(|p| !p.ibgp))
    }

    /// Whether the best route of a key goes to this neighbour.
    pub(super) fn exportable(&self, best: Best, to: PeerId, peer: &Peer) -> bool {
        let Some((from, set)) = best else { return false };
        if from == to {
            return false;
        }
        let communities = &self.sets.get(set).attrs.communities;
        let kept = |c: &Community| match *c {
            NO_ADVERTISE => true,
            NO_EXPORT | NO_EXPORT_SUBCONFED => !peer.ibgp,
            // BGP-LLGR-07: not to neighbours without that capability, which we do not offer.
            LLGR_STALE => true,
            _ => false,
        };
        if communities.iter().any(kept) {
            return false;
        }
        // BGP-DEC-05; a reflector would look at its clients here.
        let learned_inside = from != OWN && self.peers.get(&from).is_some_and(|p| p.ibgp);
        !(learned_inside && peer.ibgp)
    }
}

/// Attributes as this kind of neighbour gets them. The next hop stays what it is (EVPN-NLRI-15).
pub(super) fn attrs(set: &Set, ours: Asn, ibgp: bool) -> Attrs {
    let mut a = Attrs::clone(&set.attrs);
    a.next_hop = None;
    let path = a.as_path.take().unwrap_or_default();
    if ibgp {
        // BGP-DEC-07: always there on iBGP; what came by eBGP has the policy value (BGP-DEC-01).
        a.local_pref = a.local_pref.or(Some(DEFAULT_LOCAL_PREF));
        a.as_path = Some(path);
        return a;
    }
    a.as_path = Some(path.prepended(ours));
    a.local_pref = None;
    if !set.key.own {
        // Another AS's MED is not handed to a third (RFC 4271 §5.1.4).
        a.med = None;
    }
    a.originator_id = None;
    a.cluster_list.clear();
    // BGP-EXTC-01: 0x40 marks what does not cross an AS boundary.
    a.ext_communities.retain(|c| c.is_transitive());
    a
}
