//! Route reflection (RFC 4456): which neighbours are clients, and the marks of a reflected route.
//!
//! A reflector need not take part in any VNI: routes that nothing here imports are passed on all the same, and so are
//! route types that we do not know (EVPN-ERR-01).

use super::{OWN, Rib};
use crate::types::{PeerId, RouterId};
use crate::wire::Attrs;

/// What a neighbour is to us, as far as it decides which routes it gets and how they look.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Kind {
    /// Of another AS.
    External,
    /// Of our AS, and no client: it hears the others itself.
    Internal,
    /// Of our AS, and hears the others through us.
    Client,
}

impl Rib {
    /// Makes a configured neighbour a client of us as a route reflector; one of another AS never is one. Counts from
    /// its next session on.
    pub fn set_client(&mut self, peer: PeerId) {
        if let Some(p) = self.peers.get_mut(&peer) {
            p.client = true;
        }
    }

    /// What a neighbour is.
    pub(super) fn kind(&self, peer: PeerId) -> Kind {
        self.peers.get(&peer).map_or(Kind::External, super::Peer::kind)
    }

    /// Whether a neighbour may be sent what another one taught us: without clients only across the border of the AS
    /// (BGP-DEC-05).
    pub(super) fn passes_on(&self) -> bool {
        self.peers.values().any(|p| p.kind() != Kind::Internal)
    }

    /// ORIGINATOR_ID and CLUSTER_LIST of a route that goes from one neighbour of our AS to another; everything else
    /// stays (BGP-RR-06).
    pub(super) fn mark_reflected(&self, attrs: &mut Attrs, from: PeerId) {
        if from == OWN || self.kind(from) == Kind::External {
            return;
        }
        // BGP-RR-03: whoever reflects first names who the route came from.
        let id = self.peers.get(&from).map_or(RouterId::UNSPECIFIED, |p| p.id);
        attrs.originator_id.get_or_insert(id);
        // BGP-RR-04
        attrs.cluster_list.insert(0, self.config.cluster_id);
    }
}

impl super::Peer {
    pub(super) const fn kind(&self) -> Kind {
        match (self.ibgp, self.client) {
            (false, _) => Kind::External,
            (true, false) => Kind::Internal,
            (true, true) => Kind::Client,
        }
    }
}
