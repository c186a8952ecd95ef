//! Which addresses change their MAC to and fro, and what becomes of those that two hosts have (EVPN-XMOB-16).

use super::Node;
use super::config::{DuplicateAction, DuplicateMode};
use super::duplicates::Found;
use super::input::About;
use crate::hosts::Binding;
use crate::rib::Candidate;
use crate::types::{IfIndex, Mac, Time, Vni};
use std::net::IpAddr;

impl Node {
    pub(super) fn ip_floats(&self, vni: Vni, ip: IpAddr) -> bool {
        self.is_static_ip(vni, ip)
            || self
                .segments
                .get(&vni)
                .is_some_and(|s| s.config.mobility.floating_ips.iter().any(|p| p.contains(ip)))
    }

    /// Candidates for a frozen IP: those of the MAC that keeps it. Others as they are.
    pub(super) fn frozen_binding(
        &mut self,
        vni: Vni,
        ip: IpAddr,
        mut candidates: Vec<Candidate>,
        at: Time,
    ) -> Vec<Candidate> {
        let key = (vni, About::Ip(ip));
        let Some(keeper) = self.duplicated.found.get(&key).filter(|f| f.frozen()).and_then(|f| f.keeper)
        else {
            return candidates;
        };
        let bound = self.segments.get(&vni).and_then(|s| s.hosts.binding(ip)).copied();
        if bound.is_some_and(|b| b.mac == keeper && b.is_local()) {
            return Vec::new();
        }
        let of_keeper = |c: &Candidate| super::bindings::candidate_mac(&c.key) == Some(keeper);
        if candidates.iter().any(of_keeper) {
            candidates.retain(of_keeper);
        } else {
            self.let_go(key, "its owner has withdrawn it", true, at);
        }
        candidates
    }

    /// An IP of one MAC is heard from another one. Whether it stays where it is.
    pub(super) fn ip_taken(&mut self, vni: Vni, ip: IpAddr, old: &Binding, new: Mac, at: Time) -> bool {
        let key = (vni, About::Ip(ip));
        let guard = self.config.mobility.guard_time;
        if let Some(f) = self.duplicated.found.get(&key)
            && (f.frozen() || at.since(f.changed) < guard)
        {
            return true;
        }
        self.ip_moved(vni, ip, old.mac, new, at);
        let window = self.window();
        let d = &self.config.mobility.duplicates;
        let (mode, limit) = (d.mode, d.moves);
        let Some(c) = self.duplicated.ips.get_mut(&(vni, ip)) else { return false };
        match mode {
            DuplicateMode::Off => false,
            DuplicateMode::Rfc7432 => {
                c.count(window, at) >= limit && self.ip_found(vni, ip, new, old.mac, at)
            }
            DuplicateMode::Oscillation => {
                let asks = old.is_local() && c.returns(window, at) > 0;
                let port =
                    self.segments.get(&vni).and_then(|s| s.hosts.macs.get(&old.mac)?.local().map(|l| l.port));
                if let Some(port) = port.filter(|_| asks) {
                    self.probe_on(vni, old.mac, ip, port);
                }
                false
            }
        }
    }

    fn ip_moved(&mut self, vni: Vni, ip: IpAddr, from: Mac, to: Mac, at: Time) {
        if self.config.mobility.duplicates.mode == DuplicateMode::Off
            || self.ip_floats(vni, ip)
            || self.mac_floats(vni, from)
            || self.mac_floats(vni, to)
        {
            return;
        }
        let until = at + self.window();
        if let Some(f) = self.duplicated.found.get_mut(&(vni, About::Ip(ip))) {
            f.changed = at;
        }
        if let Some(c) = self.duplicated.ip(vni, ip, until) {
            c.moved(from, to, at);
        }
    }

    /// A peer's MAC has won an IP of a local one. If it had had it before, the local host is asked at once.
    pub(super) fn ip_lost(&mut self, vni: Vni, ip: IpAddr, loser: Mac, winner: Mac, at: Time) {
        self.ip_moved(vni, ip, loser, winner, at);
        let window = self.window();
        let Some(c) = self.duplicated.ips.get(&(vni, ip)) else { return };
        let asks =
            self.config.mobility.duplicates.mode == DuplicateMode::Oscillation && c.returns(window, at) > 0;
        let port = self.segments.get(&vni).and_then(|s| s.hosts.macs.get(&loser)?.local().map(|l| l.port));
        if let Some(port) = port.filter(|_| asks) {
            self.may_ask(vni, ip, at);
            self.probe_on(vni, loser, ip, port);
        }
    }

    /// A local host has answered our question for an IP. Whether the answer is all there is to it: the IP is
    /// another MAC's, and both are alive (EVPN-XMOB-16, PROXY-DUP-01).
    pub(super) fn ip_answer(&mut self, vni: Vni, port: IfIndex, mac: Mac, ip: IpAddr, at: Time) -> bool {
        let window = self.window();
        let Some(c) = self.duplicated.ips.get_mut(&(vni, ip)) else { return false };
        let Some(seg) = self.segments.get(&vni) else { return false };
        let here = seg.hosts.macs.get(&mac).and_then(|e| e.local()).is_some_and(|l| l.port == port);
        let Some(holder) = seg.hosts.binding(ip).map(|b| b.mac).filter(|m| *m != mac && here) else {
            return false;
        };
        if !c.contested(window, at) || !c.alive(at) {
            return false;
        }
        self.ip_found(vni, ip, mac, holder, at)
    }

    /// Two MACs have this IP: `mac` is ours and does not get it.
    fn ip_found(&mut self, vni: Vni, ip: IpAddr, mac: Mac, keeper: Mac, at: Time) -> bool {
        let action = self.config.mobility.duplicates.action;
        let Some(port) =
            self.segments.get(&vni).and_then(|s| s.hosts.macs.get(&mac)?.local().map(|l| l.port))
        else {
            return false;
        };
        let owners = self.duplicated.ips.get(&(vni, ip)).map_or(Vec::new(), |c| c.owners(self.window(), at));
        let owners = owners.iter().map(ToString::to_string).collect();
        let found = Found { keeper: Some(keeper), ..Found::new(action, (port, mac), vec![ip], owners, at) };
        self.found((vni, About::Ip(ip)), found, at) && action != DuplicateAction::Report
    }
}
