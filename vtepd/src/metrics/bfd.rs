//! Metrics of BFD sessions.

use crate::driver::bfd::BfdTable;
use evpn::bfd::State;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use std::sync::atomic::Ordering;

#[derive(Clone, Debug, Eq, Hash, PartialEq, EncodeLabelSet)]
struct With {
    neighbor: String,
}

#[derive(Clone, Debug, Eq, Hash, PartialEq, EncodeLabelSet)]
struct Because {
    reason: String,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Figures {
    up: Family<With, Gauge>,
    failures: Family<With, Counter>,
    sent: Family<With, Counter>,
    received: Family<With, Counter>,
    dropped: Family<Because, Counter>,
}

impl Figures {
    pub(super) fn register(&self, r: &mut Registry) {
        r.register("bfd_up", "1: BFD with this neighbour is up", self.up.clone());
        r.register("bfd_failures", "Times that BFD has lost this neighbour", self.failures.clone());
        r.register("bfd_packets_sent", "BFD packets to this neighbour", self.sent.clone());
        r.register("bfd_packets_received", "BFD packets of this neighbour", self.received.clone());
        r.register("bfd_packets_dropped", "BFD packets that were discarded, by reason", self.dropped.clone());
    }

    pub(super) fn take(&self, table: &BfdTable) {
        // Neighbours that are gone are not told of any more.
        self.up.clear();
        for family in [&self.failures, &self.sent, &self.received] {
            family.clear();
        }
        let store = |family: &Family<With, Counter>, with: &With, n: u64| {
            family.get_or_create(with).inner().store(n, Ordering::Relaxed);
        };
        for r in &table.rows {
            let with = With { neighbor: r.neighbor.to_string() };
            self.up.get_or_create(&with).set(i64::from(r.state == State::Up));
            store(&self.failures, &with, r.failures);
            store(&self.sent, &with, r.sent);
            store(&self.received, &with, r.received);
        }
        for (reason, n) in &table.dropped {
            let because = Because { reason: reason.clone() };
            self.dropped.get_or_create(&because).inner().store(*n, Ordering::Relaxed);
        }
    }
}
