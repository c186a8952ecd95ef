//! Rows in the forwarding table that show no guest, although they name a local port: notifications of rows that we
//! wrote ourselves and have taken back, rows from before this daemon began, and rows that a port without carrier
//! cannot have.

use super::Node;
use super::prepare::{Key, LIMIT};
use crate::fabric::{Row, RowKey};
use crate::mobility::{self, Claim, Lost};
use crate::types::{IfIndex, Mac, Seq, Span, Time, Vni};
use core::cmp::Ordering;
use std::collections::VecDeque;

/// No live migration is over and followed by another within this time.
const FIRST_WORDS: Span = Span::millis(50);

/// Rows of ours that were taken back a moment ago: the monitor may still have to tell of them.
#[derive(Debug, Default)]
pub(super) struct Echoes(VecDeque<(Time, Key, IfIndex)>);

impl Node {
    /// The row of a MAC on this port was written by us and is wanted no more.
    pub(super) fn expect_echo(&mut self, key: Key, port: IfIndex, at: Time) {
        let echoes = &mut self.prepare.echoes.0;
        while echoes.len() >= LIMIT || echoes.front().is_some_and(|(until, ..)| *until <= at) {
            echoes.pop_front();
        }
        echoes.push_back((at + self.config.mobility.guard_time, key, port));
    }

    /// A MAC shows up on a port where we had written it and have taken it back. Without a frame that proves the guest
    /// it is our own row that is told late (PIT-04, MIG-HOT-03).
    pub(super) fn is_echo(&mut self, vni: Vni, mac: Mac, port: IfIndex, at: Time) -> bool {
        if self.prepare.echoes.0.is_empty() {
            return false;
        }
        let strong = self.strong_sign(port, mac, at);
        let echoes = &mut self.prepare.echoes.0;
        let spot = |(until, k, p): &(Time, Key, IfIndex)| at < *until && *k == (vni, mac) && *p == port;
        // It is told once.
        let ours = echoes.iter().position(spot).is_some_and(|i| echoes.remove(i).is_some());
        if !ours || strong {
            return false;
        }
        true
    }

    /// A MAC that nobody has was on this port by our doing, and is cleared once more: a guest who is there after all is
    /// told anew by its next frame.
    pub(super) fn clear_echo(&mut self, vni: Vni, mac: Mac, port: IfIndex) {
        let Some(row) = self.segments.get(&vni).and_then(|s| s.mac_key(mac)) else { return };
        self.prepare.cleared.insert(row, port);
        self.want_set(row, Row::Cleared { port }, true);
        self.want.mark(row, true);
    }

    /// What the first read shows on a port was there at some time within the bridge's ageing time; a route of another
    /// VTEP that beats what we would advertise for it is newer. The row goes to that VTEP, as it would have if its
    /// session had come up after the read; whether the guest is here, its frames say (EVPN-MOB-06, PIT-04).
    pub(super) fn is_left_over(
        &mut self,
        vni: Vni,
        mac: Mac,
        port: IfIndex,
        remote: &Claim,
        at: Time,
    ) -> bool {
        if self.synced || self.strong_sign(port, mac, at) {
            return false;
        }
        let vtep = self.config.vtep;
        let Some(seg) = self.segments.get_mut(&vni) else { return false };
        let seq = seg.memory.get(mac).filter(|m| m.ours).map_or(Seq::ZERO, |m| m.seq);
        let ours = seg.our_claim(mac, seq, vtep);
        if remote.stale || mobility::compare(remote, &ours) != Ordering::Greater {
            return false;
        }
        if let Some(e) = seg.hosts.macs.get_mut(&mac) {
            e.lost.note(Lost::new(port, at));
        }
        self.put_back(vni, mac, port);
        true
    }

    /// A guest was activated here so short a while ago that no guest can have run here and left again: what comes from its port are first words.
    pub(super) fn activated_just_now(&self, vni: Vni, mac: Mac, at: Time) -> bool {
        let asked = self.prepare.get((vni, mac)).map(|p| p.asked);
        self.awaits_guest(vni, mac) && asked.is_some_and(|t| at.since(t) < FIRST_WORDS)
    }

    /// The kernel has refused the row of a local MAC. A port without carrier takes none, and no notification will
    /// ever tell that the MAC is not there: it is gone. Whether it was that.
    pub(super) fn gone_with_carrier(&mut self, key: &RowKey, at: Time) -> bool {
        let RowKey::Mac { bridge, mac } = *key else { return false };
        let Some(Row::Local { port, .. }) = self.want.get(key).copied() else { return false };
        let Some(&vni) = self.bridges.get(&bridge) else { return false };
        let dark = self.links.get(&port).is_none_or(|l| !(l.up && l.carrier));
        if !dark || self.activating(key) || self.segments.get(&vni).is_none_or(|s| s.is_static(mac)) {
            return false;
        }
        self.local_gone(vni, mac, port, "its port has no carrier", at);
        true
    }
}
