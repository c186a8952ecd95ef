//! Which routes a neighbour is sent, and what becomes of their attributes on the way.

use super::best::{DEFAULT_LOCAL_PREF, LLGR_STALE};
use super::input::Best;
use super::sets::Set;
use super::{OWN, Rib};
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

    /// How far the best route of a key goes; `None`: to nobody.
    pub(super) fn scope(&self, best: Best) -> Option<Scope> {
        let (from, set) = best?;
        let mut scope = Scope {
            from,
            // BGP-DEC-05; a reflector would look at its clients here.
            ibgp: from == OWN || self.peers.get(&from).is_some_and(|p| !p.ibgp),
            ebgp: true,
        };
        for c in &self.sets.get(set).attrs.communities {
            match *c {
                // BGP-LLGR-07: not to neighbours without that capability, which we do not offer.
                NO_ADVERTISE | LLGR_STALE => return None,
                NO_EXPORT | NO_EXPORT_SUBCONFED => scope.ebgp = false,
                _ => {}
            }
        }
        Some(scope)
    }
}

/// Which neighbours a route is for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scope {
    from: PeerId,
    ibgp: bool,
    ebgp: bool,
}

impl Scope {
    /// Whether this neighbour is one of them; never the one it came from.
    pub(super) fn includes(self, to: PeerId, ibgp: bool) -> bool {
        self.from != to && if ibgp { self.ibgp } else { self.ebgp }
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
