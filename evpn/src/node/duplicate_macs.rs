//! Which MACs move to and fro, and what becomes of those that two hosts have (EVPN-MOB-15, -16).

use super::config::{DuplicateAction, DuplicateMode};
use super::duplicates::{Found, IPS};
use super::input::About;
use super::{Node, Output};
use crate::fabric::Row;
use crate::hosts::Owner;
use crate::mobility::{Claim, Holder, LocalSign, MacPattern};
use crate::rib::Candidate;
use crate::types::{IfIndex, Mac, Time, Vni};
use std::net::IpAddr;

impl Node {
    pub(super) fn mac_floats(&self, vni: Vni, mac: Mac) -> bool {
        let own = self.segments.get(&vni).map_or(&[][..], |s| &s.config.mobility.floating_macs);
        MacPattern::VIRTUAL_ROUTERS.iter().chain(own).any(|p| p.contains(mac))
    }

    /// A MAC came here from another VTEP, or went there.
    pub(super) fn mac_moved(&mut self, vni: Vni, mac: Mac, from: Holder, to: Holder, at: Time) {
        if self.config.mobility.duplicates.mode == DuplicateMode::Off || self.mac_floats(vni, mac) {
            return;
        }
        let until = at + self.window();
        if let Some(c) = self.duplicated.mac(vni, mac, until) {
            c.moved(from, to, at);
        }
        let key = (vni, About::Mac(mac));
        if let Some(f) = self.duplicated.found.get_mut(&key) {
            f.changed = at;
            if f.frozen() && to == Holder::Here {
                // Not by a frame, those are held: somebody who knows has put it here.
                self.let_go(key, "it was claimed here on purpose", false, at);
            }
        }
    }

    /// Another VTEP has won a MAC that was ours. If it had been there before, its host here is asked at once.
    pub(super) fn mac_lost(
        &mut self,
        vni: Vni,
        mac: Mac,
        port: IfIndex,
        to: IpAddr,
        ips: &[IpAddr],
        at: Time,
    ) {
        self.place_free(vni, port, at);
        self.mac_moved(vni, mac, Holder::Here, Holder::There(to), at);
        let window = self.window();
        let Some(c) = self.duplicated.macs.get(&(vni, mac)) else { return };
        let oscillates = self.config.mobility.duplicates.mode == DuplicateMode::Oscillation;
        if oscillates && c.returns(window, at) > 0 {
            // Not before the kernel has the other's row: what the host says until then shows nothing. And not twice:
            // whoever loses a MAC is asked once in a while anyway.
            for ip in ips.iter().take(IPS) {
                self.may_ask(vni, *ip, at);
            }
            self.ask_soon(vni, mac, port, &ips[..ips.len().min(IPS)], at);
        }
    }

    /// What a sign of a remote MAC on a local port is worth, seen what has happened to that MAC before.
    pub(super) fn weigh(
        &mut self,
        vni: Vni,
        mac: Mac,
        port: IfIndex,
        sign: LocalSign,
        at: Time,
    ) -> LocalSign {
        if sign != LocalSign::Claim {
            return sign;
        }
        let guard = self.config.mobility.guard_time;
        if let Some(f) = self.duplicated.found.get(&(vni, About::Mac(mac))) {
            // One that is only reported goes on changing sides, but not faster than its owners' late frames would.
            return if f.frozen() || at.since(f.changed) < guard { LocalSign::Held } else { sign };
        }
        match self.config.mobility.duplicates.mode {
            DuplicateMode::Off => sign,
            DuplicateMode::Rfc7432 => self.count_move(vni, mac, port, at),
            DuplicateMode::Oscillation => self.weigh_contested(vni, mac, port, at),
        }
    }

    /// RFC 7432 §15.1 (EVPN-MOB-15).
    fn count_move(&mut self, vni: Vni, mac: Mac, port: IfIndex, at: Time) -> LocalSign {
        if self.mac_floats(vni, mac) {
            return LocalSign::Claim;
        }
        let (window, limit) = (self.window(), self.config.mobility.duplicates.moves);
        let until = at + window;
        let n = self.duplicated.mac(vni, mac, until).map_or(0, |c| c.count(window, at));
        if n >= limit { self.mac_found(vni, mac, port, at) } else { LocalSign::Claim }
    }

    fn weigh_contested(&mut self, vni: Vni, mac: Mac, port: IfIndex, at: Time) -> LocalSign {
        let (window, guard) = (self.window(), self.config.mobility.guard_time);
        if !self.duplicated.macs.get(&(vni, mac)).is_some_and(|c| c.contested(window, at)) {
            return LocalSign::Claim;
        }
        let Some(seg) = self.segments.get(&vni) else { return LocalSign::Claim };
        let lost = seg.hosts.macs.get(&mac).and_then(|e| e.lost.on(port));
        let Some(lost) = lost else { return LocalSign::Claim };
        let fresh = at.since(lost.at) < guard;
        let announced = self.strong_sign(port, mac, at);
        if self.answered(port, mac, at) || (!fresh && !announced) {
            // It answers where it was; or, when it has no address that it could be asked for, goes on speaking there.
            let proven = self.duplicated.macs.get_mut(&(vni, mac)).is_some_and(|c| c.alive(at));
            return if proven { self.mac_found(vni, mac, port, at) } else { LocalSign::Claim };
        }
        let ips: Vec<IpAddr> = seg.hosts.ips_of(mac).into_iter().take(IPS).collect();
        if fresh && !ips.is_empty() {
            // An announcement may have waited in a queue of the source; the answer to a question has not.
            for ip in ips {
                self.probe_on(vni, mac, ip, port);
            }
            return LocalSign::Late;
        }
        LocalSign::Claim
    }

    /// Two hosts have this MAC; one of them is on this port, and the other one keeps it.
    fn mac_found(&mut self, vni: Vni, mac: Mac, port: IfIndex, at: Time) -> LocalSign {
        let action = self.config.mobility.duplicates.action;
        let owners =
            self.duplicated.macs.get(&(vni, mac)).map_or(Vec::new(), |c| c.owners(self.window(), at));
        let name = self.dev_name(port);
        let owners = owners
            .into_iter()
            .map(|o| match o {
                Holder::Here => name.clone(),
                Holder::There(v) => v.to_string(),
            })
            .collect();
        let ips = self.segments.get(&vni).map_or(Vec::new(), |s| s.hosts.ips_of(mac));
        let ips = ips.into_iter().take(IPS).collect();
        let found = Found::new(action, (port, mac), ips, owners, at);
        if !self.found((vni, About::Mac(mac)), found, at) || action == DuplicateAction::Report {
            return LocalSign::Claim;
        }
        self.hold_row(vni, mac);
        if action == DuplicateAction::Block {
            self.duplicated.blocked.insert((port, mac));
            self.journal.push(Output::Blocked(self.duplicated.blocked.clone()));
        }
        LocalSign::Held
    }

    /// The owner's row where no frame can take it (PIT-04).
    pub(super) fn hold_row(&mut self, vni: Vni, mac: Mac) {
        let Some(seg) = self.segments.get(&vni) else { return };
        let vtep = seg.hosts.macs.get(&mac).and_then(|e| e.remote()).map(|r| r.claim.vtep);
        let row = vtep.and_then(|v| seg.remote_row(v, true));
        if let (Some(key), Some(row)) = (seg.mac_key(mac), row) {
            self.want_set(key, row, true);
            self.want.mark(key, true);
        }
    }

    /// Rows of a VNI were wanted anew; those of frozen MACs are to be held again.
    pub(super) fn hold_rows(&mut self, vni: Vni) {
        let frozen = self.duplicated.found.iter().filter(|((v, _), f)| *v == vni && f.frozen());
        let macs: Vec<Mac> =
            frozen.filter(|((_, a), _)| matches!(a, About::Mac(_))).map(|(_, f)| f.mac).collect();
        for mac in macs {
            self.hold_row(vni, mac);
        }
    }

    /// The claim that a frozen MAC stays with, as long as it is there. `None`: not frozen (any more).
    pub(super) fn frozen_claim(
        &mut self,
        vni: Vni,
        mac: Mac,
        candidates: &[Candidate],
        at: Time,
    ) -> Option<Claim> {
        let key = (vni, About::Mac(mac));
        self.duplicated.found.get(&key).filter(|f| f.frozen())?;
        let owner = self.segments.get(&vni)?.hosts.macs.get(&mac).and_then(|e| e.remote()).map(|r| r.claim);
        let kept = owner.filter(|o| candidates.iter().any(|c| c.vtep == o.vtep && !c.stale));
        if kept.is_none() {
            self.let_go(key, "its owner has withdrawn it", true, at);
        }
        kept
    }

    pub(super) fn release_row(&mut self, vni: Vni, mac: Mac) {
        let Some(seg) = self.segments.get_mut(&vni) else { return };
        let Some(e) = seg.hosts.macs.get_mut(&mac) else { return };
        e.lost.clear();
        let Owner::Remote(r) = e.owner else { return };
        if let (Some(key), Some(row)) = (seg.mac_key(mac), seg.remote_row(r.claim.vtep, r.claim.sticky))
            && matches!(self.want.get(&key), Some(Row::Remote { .. }))
        {
            self.want_set(key, row, true);
        }
    }
}
