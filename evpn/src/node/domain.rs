//! Who may take an address over: frozen duplicates, mobility domains, limits of moves.

use super::Node;
use super::remote::claim_of;
use crate::mobility::Claim;
use crate::rib::Candidate;
use crate::types::{Mac, Time, Vni};
use std::net::IpAddr;

impl Node {
    /// The best claim on a MAC among those that count.
    pub(super) fn admit_mac(
        &mut self,
        vni: Vni,
        mac: Mac,
        candidates: &[Candidate],
        at: Time,
    ) -> Option<Claim> {
        if let Some(kept) = self.frozen_claim(vni, mac, candidates, at) {
            return Some(kept);
        }
        candidates.first().map(claim_of)
    }

    /// The candidates for an IP that count.
    pub(super) fn admit_ip(
        &mut self,
        vni: Vni,
        ip: IpAddr,
        candidates: Vec<Candidate>,
        at: Time,
    ) -> Vec<Candidate> {
        self.frozen_binding(vni, ip, candidates, at)
    }
}
