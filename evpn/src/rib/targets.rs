//! Which VNIs import a route: decided by its route targets and nothing else (EVPN-VXLAN-07).

use super::Import;
use crate::types::Vni;
use crate::wire::{ExtCommunity, RouteTarget};
use std::collections::{BTreeMap, BTreeSet};

/// Import policies, indexed so that a route target finds its VNIs without a walk over all of them.
#[derive(Debug, Default)]
pub(super) struct Targets {
    policies: BTreeMap<Vni, Import>,
    listed: BTreeMap<RouteTarget, BTreeSet<Vni>>,
}

impl Targets {
    /// Sets the policy of a VNI. Returns whether anything changed.
    pub(super) fn add(&mut self, vni: Vni, import: Import) -> bool {
        if self.policies.get(&vni) == Some(&import) {
            return false;
        }
        self.remove(vni);
        if let Import::List(targets) = &import {
            for t in targets {
                self.listed.entry(*t).or_default().insert(vni);
            }
        }
        self.policies.insert(vni, import);
        true
    }

    /// Returns whether the VNI was there.
    pub(super) fn remove(&mut self, vni: Vni) -> bool {
        let Some(old) = self.policies.remove(&vni) else { return false };
        if let Import::List(targets) = old {
            for t in targets {
                if let Some(vnis) = self.listed.get_mut(&t) {
                    vnis.remove(&vni);
                    if vnis.is_empty() {
                        self.listed.remove(&t);
                    }
                }
            }
        }
        true
    }

    /// The policy of each VNI.
    pub(super) fn policies(&self) -> impl Iterator<Item = (Vni, &Import)> {
        self.policies.iter().map(|(v, i)| (*v, i))
    }

    /// VNIs that import a route with these communities, ascending.
    pub(super) fn imports(&self, communities: &[ExtCommunity]) -> Vec<Vni> {
        let mut vnis = Vec::new();
        for target in communities.iter().copied().filter(|c| c.is_route_target()) {
            if let Some(listed) = self.listed.get(&target) {
                vnis.extend(listed);
            }
            if let Some(vni) = auto_vni(target).filter(|v| self.policies.get(v) == Some(&Import::Auto)) {
                vnis.push(vni);
            }
        }
        vnis.sort_unstable();
        vnis.dedup();
        vnis
    }
}

/// The VNI whose automatic import this route target meets, whatever its AS.
///
/// FRR writes the VNI as it is, or with `0x10000000` in front (RFC 8365 §5.1.2.1: automatic, type VXLAN,
/// domain 0; EVPN-VXLAN-09, -10). The forms with a four-octet administrator have two octets left for it.
fn auto_vni(target: RouteTarget) -> Option<Vni> {
    match target.0 {
        [1 | 2, 2, .., y, z] => Vni::new(u32::from_be_bytes([0, 0, y, z])),
        _ => target.auto_vni(),
    }
}
