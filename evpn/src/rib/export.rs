//! Which routes a neighbour is sent, and what becomes of their attributes on the way.

use super::best::{DEFAULT_LOCAL_PREF, LLGR_STALE};
use super::input::Best;
use super::reflect::Kind;
use super::sets::SetIx;
use super::{OWN, Rib};
use crate::types::PeerId;
use crate::wire::{Attrs, Community};

/// NO_EXPORT, NO_ADVERTISE, NO_EXPORT_SUBCONFED (RFC 1997, BGP-COMM-01).
const NO_EXPORT: Community = Community(0xffff_ff01);
const NO_ADVERTISE: Community = Community(0xffff_ff02);
const NO_EXPORT_SUBCONFED: Community = Community(0xffff_ff03);

impl Rib {
    /// Whether changes of routes from here can matter to any neighbour; saves the work when none can.
    pub(super) fn visible(&self, from: PeerId) -> bool {
        let established = self.peers.values().any(|p| p.up.is_some_and(|up| up.evpn));
        established && (from == OWN || self.passes_on())
    }

    /// How far the best route of a key goes; `None`: to nobody.
    pub(super) fn scope(&self, best: Best) -> Option<Scope> {
        let (from, set) = best?;
        // BGP-RR-01, BGP-DEC-05: what comes from a client, from another AS or from us goes to everybody.
        let internal = from == OWN || self.kind(from) != Kind::Internal;
        let mut scope = Scope { from, internal, external: true };
        for c in &self.sets.get(set).attrs.communities {
            match *c {
                // BGP-LLGR-07: not to neighbours without that capability, which we do not offer.
                NO_ADVERTISE | LLGR_STALE => return None,
                NO_EXPORT | NO_EXPORT_SUBCONFED => scope.external = false,
                _ => {}
            }
        }
        Some(scope)
    }

    /// Attributes as this kind of neighbour gets them (BGP-MP-04). The next hop stays what it is (EVPN-NLRI-15,
    /// BGP-RR-06).
    pub(super) fn attrs_for(&self, from: PeerId, set: SetIx, to: Kind) -> Attrs {
        self.outgoing(&self.sets.get(set).attrs, from, to)
    }

    /// The same for attributes of any family.
    pub(super) fn outgoing(&self, attrs: &Attrs, from: PeerId, to: Kind) -> Attrs {
        let mut a = attrs.clone();
        a.next_hop = None;
        let path = a.as_path.take().unwrap_or_default();
        if to != Kind::External {
            // BGP-DEC-07: always there on iBGP; what came by eBGP has the policy value (BGP-DEC-01).
            a.local_pref = a.local_pref.or(Some(DEFAULT_LOCAL_PREF));
            a.as_path = Some(path);
            self.mark_reflected(&mut a, from);
            return a;
        }
        a.as_path = Some(path.prepended(self.config.asn));
        a.local_pref = None;
        if from != OWN {
            // Another AS's MED is not handed to a third (RFC 4271 §5.1.4).
            a.med = None;
        }
        a.originator_id = None;
        a.cluster_list.clear();
        // BGP-EXTC-01: 0x40 marks what does not cross an AS boundary.
        a.ext_communities.retain(|c| c.is_transitive());
        a
    }
}

/// Which neighbours a route is for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scope {
    from: PeerId,
    /// Neighbours of our AS that are no clients.
    internal: bool,
    external: bool,
}

impl Scope {
    /// Whether this neighbour is one of them; never the one it came from.
    pub(super) fn includes(self, to: PeerId, kind: Kind) -> bool {
        self.from != to
            && match kind {
                Kind::External => self.external,
                Kind::Internal => self.internal,
                Kind::Client => true,
            }
    }
}
