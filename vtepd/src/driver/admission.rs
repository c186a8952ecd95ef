//! Who may connect, and how its connection is treated. A stranger is refused here, before anything is kept of it.

use evpn::mobility::IpPrefix;
use evpn::node::{Config, Hops};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Admission {
    neighbors: BTreeMap<IpAddr, Hops>,
    ranges: Vec<(IpPrefix, Hops)>,
    /// Connections that were refused.
    pub(super) strangers: u64,
}

impl Admission {
    /// Those that are configured.
    pub(super) fn new(config: &Config) -> Self {
        let asn = config.asn;
        Self {
            neighbors: config.neighbors.iter().map(|n| (n.address, n.hops(asn))).collect(),
            ranges: config.neighbor_ranges.iter().map(|r| (r.prefix, r.terms.hops(asn))).collect(),
            strangers: 0,
        }
    }

    /// TTL of a connection from there (BGP-SEC-01, -02); `None`: nobody is expected from there.
    pub(super) fn ask(&mut self, from: IpAddr) -> Option<Hops> {
        let from = from.to_canonical();
        let range = || self.ranges.iter().find(|(p, _)| p.contains(from)).map(|(_, h)| *h);
        let found = self.neighbors.get(&from).copied().or_else(range);
        self.strangers += u64::from(found.is_none());
        found
    }
}
