//! How an activation ends that no guest has confirmed: refused, called off, timed out, or gone with its port.
//!
//! Nothing of it is left in the kernel, and its routes are withdrawn; the sequence that was told is remembered
//! (EVPN-MOB-12).

use super::prepare::{Key, No, Pending, Stage};
use super::{Event, Node, Refusal};
use crate::fabric::Row;
use crate::hosts::Owner;
use crate::mobility::Lost;
use crate::types::{IfIndex, Mac, Time, Vni};

impl Node {
    /// The guest's device went away, or its QEMU did: what was activated on it is over.
    pub(super) fn port_without_carrier(&mut self, port: IfIndex, at: Time) {
        let gone: Vec<Key> = self
            .prepare
            .iter()
            .filter(|(_, p)| p.port == port && matches!(p.stage, Stage::Active) && !p.heard)
            .map(|(k, _)| *k)
            .collect();
        for key in gone {
            self.abandon(key, "its port has no carrier", at);
        }
    }

    /// An active MAC went elsewhere: to another port than `to`, or away.
    pub(super) fn activation_left(&mut self, vni: Vni, mac: Mac, to: Option<IfIndex>, why: &str, at: Time) {
        let key = (vni, mac);
        let over = |p: &Pending| matches!(p.stage, Stage::Active) && to != Some(p.port);
        if !self.prepare.get(key).is_some_and(over) {
            return;
        }
        if let Some(p) = self.prepare.take(key).filter(|p| !p.heard) {
            self.journal.event(Event::MoveAborted { vni, mac, port: p.name, why: why.into() }, at);
        }
    }

    /// The row could not be had; nothing was advertised and no trace is left.
    pub(super) fn activation_failed(&mut self, key: Key, refusal: Refusal, why: String, at: Time) {
        let Some(p) = self.prepare.take(key) else { return };
        self.journal.count("activations_failed");
        self.take_back_row(key, p.port, p.told, at);
        self.journal.event(Event::MoveAborted { vni: key.0, mac: key.1, port: p.name, why: why.clone() }, at);
        if let Stage::Writing { waiting, .. } = p.stage {
            for id in waiting {
                self.refuse_move(id, No { refusal, text: why.clone() });
            }
        }
    }

    /// The row of a MAC that is not activated after all, as its owner wants it.
    fn take_back_row(&mut self, key: Key, port: IfIndex, told: bool, at: Time) {
        let owner = self.owner_now(key);
        // The monitor may still have to tell of the row that we wrote: that is no guest (PIT-04).
        if let Some(e) = self.segments.get_mut(&key.0).and_then(|s| s.hosts.macs.get_mut(&key.1))
            && matches!(e.owner, Owner::Remote(_))
        {
            e.lost.note(Lost::new(port, at));
        }
        let Some(seg) = self.segments.get(&key.0) else { return };
        let (Some(row), Some(vxlan)) = (seg.mac_key(key.1), seg.vxlan) else { return };
        let want = match owner {
            Some(Owner::Local(l)) => Some(Row::Local { vxlan, port: l.port }),
            Some(Owner::Remote(r)) => seg.remote_row(r.claim.vtep, r.claim.sticky),
            None => Some(Row::Cleared { port }),
        };
        let Some(want) = want else { return self.want_remove(&row, true) };
        if !matches!(owner, Some(Owner::Local(_))) {
            self.prepare.cleared.insert(row, port);
            if !told {
                self.expect_echo(key, port, at);
            }
        }
        self.want_set(row, want, true);
        self.want.mark(row, true);
    }

    /// Ends a preparation or an activation whose guest was not heard, without a trace but its sequence.
    pub(super) fn abandon(&mut self, key: Key, why: &str, at: Time) {
        let (vni, mac) = key;
        match self.prepare.get(key).map(|p| &p.stage) {
            Some(Stage::Writing { .. }) => {
                return self.activation_failed(
                    key,
                    Refusal::Conflict,
                    format!("the activation of {mac}: {why}"),
                    at,
                );
            }
            Some(Stage::Prepared | Stage::Active) => {}
            None => return,
        }
        let Some(p) = self.prepare.take(key) else { return };
        self.withdraw_activation(key, &p, why, at);
        self.journal.count("moves_aborted");
        self.journal.event(Event::MoveAborted { vni, mac, port: p.name, why: why.into() }, at);
    }

    fn withdraw_activation(&mut self, key: Key, p: &Pending, why: &str, at: Time) {
        let (vni, mac) = key;
        let Some(Owner::Local(l)) =
            self.owner_now(key).filter(|_| matches!(p.stage, Stage::Active) && !p.heard)
        else {
            return;
        };
        let back = p.from.filter(|f| {
            self.links.get(f).is_some_and(|x| Some(x.index) != Some(p.port) && x.master.is_some())
        });
        if let Some(back) = back {
            self.change_port(vni, mac, l, back, at);
        } else {
            self.local_gone(vni, mac, p.port, why, at);
        }
        self.take_back_row(key, p.port, p.told, at);
    }

    /// The time of a preparation or activation is up.
    pub(super) fn pending_due(&mut self, key: Key, at: Time) {
        let (vni, mac) = key;
        let Some(p) = self.prepare.get(key) else { return };
        let why = match &p.stage {
            Stage::Prepared => "it was not activated in time",
            Stage::Writing { why, .. } => {
                let kernel = why.as_ref().map_or_else(String::new, |w| format!(": {w}"));
                let text = format!(
                    "the kernel did not put {mac} on {} within 1 s{kernel}; has the port its carrier?",
                    p.name
                );
                return self.activation_failed(key, Refusal::Late, text, at);
            }
            Stage::Active => "its guest was never heard",
        };
        let Some(p) = self.prepare.take(key) else { return };
        if p.heard {
            return;
        }
        self.withdraw_activation(key, &p, why, at);
        self.journal.count("moves_timed_out");
        self.journal.event(Event::MoveTimedOut { vni, mac, port: p.name, why: why.into() }, at);
    }
}
