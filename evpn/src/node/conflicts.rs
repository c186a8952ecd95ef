//! Conflicts: two live hosts have one address. Found when the owner of an address answers while another MAC claims it
//! ([`super::claims`]), and kept among the duplicates (PROXY-DUP-04): told, shown, and cleared when one side falls silent, by an
//! operator, or after `conflict-time`.
//!
//! [`ConflictPolicy`] says who is answered for. The claim changes no binding under `none` and `first`: whoever answers for an address
//! keeps it, however often somebody else announces it.

use super::bindings::Said;
use super::config::DuplicateAction;
use super::duplicates::Found;
use super::input::About;
use super::{ConflictPolicy, Node};
use crate::fabric::Row;
use crate::types::{Mac, Time, Vni};
use std::net::IpAddr;

impl Node {
    /// Two live hosts have this address: `first` had it, the other one claims it.
    pub(super) fn conflict(&mut self, vni: Vni, ip: IpAddr, first: Mac, claim: Said, answer: bool, at: Time) {
        let mac = claim.mac;
        let here = |m: Mac| self.segments.get(&vni)?.hosts.macs.get(&m)?.local().map(|l| l.port);
        let Some(port) = here(mac) else { return };
        let policy = self.config.arp.conflict;
        self.journal.count("conflicts_found");
        // Who only answers a question of ours is not the last to claim it: the two would take it from each other for ever.
        if policy == ConflictPolicy::Last && !answer {
            self.bind_local(vni, ip, claim, at);
        }
        let action =
            if policy == ConflictPolicy::Last { DuplicateAction::Report } else { DuplicateAction::Freeze };
        let owners = vec![first.to_string(), mac.to_string()];
        let found = Found {
            keeper: (policy != ConflictPolicy::Last).then_some(first),
            other_side: Some(0),
            mute: policy == ConflictPolicy::None,
            ..Found::new(action, (port, mac), vec![ip], owners, at)
        };
        self.found((vni, About::Ip(ip)), found, at);
        self.decide_ip(vni, ip, at);
    }

    /// Whether an address is held in a conflict.
    pub(super) fn is_in_conflict(&self, vni: Vni, ip: IpAddr) -> bool {
        let found = self.duplicated.found.get(&(vni, About::Ip(ip)));
        found.is_some_and(|f| f.other_side.is_some() && f.frozen())
    }

    /// Whether nobody answers for an address in place of its owners.
    pub(super) fn is_mute(&self, vni: Vni, ip: IpAddr) -> bool {
        !self.duplicated.found.is_empty()
            && self.duplicated.found.get(&(vni, About::Ip(ip))).is_some_and(|f| f.mute)
    }

    /// A row that answers for an address, unless nobody is to.
    pub(super) fn audible(&self, vni: Vni, ip: IpAddr, row: Row) -> Option<Row> {
        (!self.is_mute(vni, ip)).then_some(row)
    }

    /// The address is claimed once more; nothing changes.
    pub(super) fn conflict_goes_on(&mut self, vni: Vni, ip: IpAddr, mac: Mac, at: Time) -> bool {
        let _ = (ip, at);
        self.journal.count("claims_refused");
        self.duplicated.found.get_mut(&(vni, About::Ip(ip))).is_some_and(|f| {
            if f.mac == mac {
                f.unanswered = 0;
            }
            true
        })
    }

    /// A host has answered for an address.
    pub(super) fn conflict_heard(&mut self, vni: Vni, ip: IpAddr, mac: Mac) {
        if let Some(f) = self.duplicated.found.get_mut(&(vni, About::Ip(ip)))
            && f.mac != mac
            && f.other_side.is_some()
        {
            f.other_side = Some(0);
        }
    }

    /// Asks the side of a conflict that has the address. True when it has been silent for so long that it has lost.
    pub(super) fn other_side_is_gone(&mut self, vni: Vni, ip: IpAddr, most: u8) -> bool {
        let key = (vni, About::Ip(ip));
        let Some(f) = self.duplicated.found.get(&key) else { return false };
        let (Some(silent), Some(keeper)) = (f.other_side, f.keeper) else { return false };
        let bound = self.segments.get(&vni).and_then(|s| s.hosts.binding(ip)).map(|b| b.mac);
        if silent >= most || bound != Some(keeper) {
            return true;
        }
        if self.ask_owner(vni, keeper, ip)
            && let Some(f) = self.duplicated.found.get_mut(&key)
        {
            f.other_side = Some(silent + 1);
        }
        false
    }
}
