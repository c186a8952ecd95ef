//! Conflicts: two live hosts have one address. Found when the owner of an address answers while another MAC claims it
//! ([`super::claims`]), and kept among the duplicates (PROXY-DUP-04): told, shown, and cleared when one side falls silent, by an
//! operator, or after `conflict-time`.
//!
//! [`ConflictPolicy`] says who is answered for. The claim changes no binding under `none` and `first`: whoever answers for an address
//! keeps it, however often somebody else announces it. The other VTEPs are told of `none` by a mark ([`super::contested`]).

use super::bindings::Said;
use super::bindings::candidate_mac;
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
        let mute = found.mute;
        if self.found((vni, About::Ip(ip)), found, at) && mute {
            self.tell_contested(vni, mac);
        }
        self.decide_ip(vni, ip, at);
    }

    /// Whether an address is held in a conflict.
    pub(super) fn is_in_conflict(&self, vni: Vni, ip: IpAddr) -> bool {
        let found = self.duplicated.found.get(&(vni, About::Ip(ip)));
        found.is_some_and(|f| f.other_side.is_some() && f.frozen())
    }

    /// Whether nobody answers for an address in place of its owners.
    pub(super) fn is_mute(&self, vni: Vni, ip: IpAddr) -> bool {
        let here = !self.duplicated.found.is_empty()
            && self.duplicated.found.get(&(vni, About::Ip(ip))).is_some_and(|f| f.mute);
        here || self.is_contested_afar(vni, ip)
    }

    /// A row that answers for an address, unless its owners alone are to.
    pub(super) fn audible(&self, vni: Vni, ip: IpAddr, mac: Mac, router: bool) -> Option<Row> {
        let quiet = self.is_mute(vni, ip) || self.is_anycast(vni, ip, mac);
        (!quiet).then_some(Row::Neigh { mac, router })
    }

    /// Whether its route says that an address replaces nothing that hosts hold: O=0 (PROXY-EC-02), as of an anycast address
    /// (RFC 4861 §7.2.7). The kernel's answers all have O=1, so each owner answers for itself.
    ///
    /// Not with R: FRR sends the community for routers alone, and never with O. Nor where the kernel routes: it needs the row.
    pub(super) fn is_anycast(&self, vni: Vni, ip: IpAddr, mac: Mac) -> bool {
        ip.is_ipv6()
            && self.gateway_of(vni).is_none()
            && self
                .rib
                .ip_candidates(vni, ip)
                .iter()
                .any(|c| candidate_mac(&c.key) == Some(mac) && !c.r#override && !c.router)
    }

    /// The address is claimed once more; nothing changes.
    pub(super) fn conflict_goes_on(&mut self, vni: Vni, ip: IpAddr, mac: Mac) {
        self.journal.count("claims_refused");
        if let Some(f) = self.duplicated.found.get_mut(&(vni, About::Ip(ip))).filter(|f| f.mac == mac) {
            f.unanswered = 0;
        }
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
