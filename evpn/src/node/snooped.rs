//! Bridges that snoop IGMP and MLD (PIT-08): adopted ones, ours do not.
//!
//! With a querier about, the bridge gives a group to those ports alone where it has heard a report. A guest that has moved says
//! nothing by itself, and is not found any more: its solicited-node group is unknown at its new port. So a port where a MAC
//! arrives is asked at once which groups it wants, in the name of our probe MAC; only that port hears it.

use super::probe_mac::link_local;
use super::{Node, Output};
use crate::fabric::LinkKind;
use crate::types::{IfIndex, Span, Time, Vni};
use crate::wire::frame;
use std::collections::{BTreeMap, BTreeSet};

/// Between two questions to one port: whole racks arrive at once.
const EVERY: Span = Span::millis(20);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Snooped {
    asked: BTreeMap<IfIndex, Time>,
    due: BTreeSet<(Time, IfIndex)>,
}

impl Snooped {
    pub(super) fn timeout(&self) -> Option<Time> {
        self.due.first().map(|(t, _)| *t)
    }
}

impl Node {
    /// A MAC has arrived at a port.
    pub(super) fn arrived_where_groups_are_snooped(&mut self, vni: Vni, port: IfIndex, at: Time) {
        let bridge = self.segments.get(&vni).and_then(|s| s.bridge).and_then(|b| self.links.get(&b));
        let snoops = |l: &crate::fabric::Link| match &l.kind {
            LinkKind::Bridge(b) => b.mcast_snooping,
            LinkKind::Vxlan(_) | LinkKind::Other(_) => false,
        };
        if !bridge.is_some_and(snoops) || self.snooped.due.iter().any(|(_, p)| *p == port) {
            return;
        }
        let next = self.snooped.asked.get(&port).map_or(at, |t| (*t + EVERY).max(at));
        self.snooped.due.insert((next, port));
    }

    /// Ports that are to be asked for their groups.
    pub(super) fn due_group_queries(&mut self, at: Time) {
        while let Some(&(t, port)) = self.snooped.due.first()
            && t <= at
        {
            self.snooped.due.pop_first();
            let Some(own) = self.taps.get(&port).and_then(|vni| self.probe_mac(*vni)) else { continue };
            self.snooped.asked.retain(|_, t| at.since(*t) < EVERY);
            self.snooped.asked.insert(port, at);
            self.journal.count("group_queries_sent");
            for frame in [frame::mld_query(own, link_local(own)), frame::igmp_query(own)] {
                self.journal.push(Output::Emit { port, frame });
            }
        }
    }
}
