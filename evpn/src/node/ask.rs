//! Asking a port whether a host is still there, when a neighbour binding and the place of its MAC disagree
//! (EVPN-XMOB-13): the MAC moved away (EVPN-IRB-13), aged out (EVPN-IRB-15), or somebody else has the address
//! (EVPN-XMOB-09).
//!
//! The routes go first and the question comes after: whoever answers is learned again by the ordinary way, with
//! a sequence above the other's. Two owners that are both alive would take turns at the pace of the network, so
//! an address is asked for once in a while only. Whoever is asked has used the address before: it is past its own
//! duplicate check (PIT-16).
//!
//! Questions wait until the routes have been given to the peers: when a rack is evacuated, ten thousand frames
//! must not stand before the withdrawals.

use super::Node;
use super::bindings::Said;
use super::frames::FIRST_PROBE;
use crate::hosts::{BindingOrigin, Local};
use crate::mobility::Lost;
use crate::rib::Candidate;
use crate::types::{IfIndex, Mac, Span, Time, Vni};
use crate::wire::RouteKey;
use std::net::IpAddr;

/// Between two such questions about the same address.
pub(super) const ASK_EVERY: Span = Span::secs(10);
/// Addresses under question; while there are so many, further ones are not asked for.
pub(super) const ASKED: usize = 16_384;
/// Addresses of one MAC that are asked for at once.
const PER_MAC: usize = 4;
/// Questions put per flush.
const PER_FLUSH: usize = 64;

/// A port that lost a MAC is asked for it when nobody has it any more for so long, and a MAC that is back for its addresses:
/// as long as bridges keep rows.
const FORMER: Span = Span::secs(300);

/// A question to be put.
#[derive(Clone, Copy, Debug)]
pub(super) struct Question {
    vni: Vni,
    mac: Mac,
    ip: IpAddr,
    port: IfIndex,
}

impl Node {
    /// Unicast probes for some addresses of a MAC on the port where it was, as soon as the peers have been served.
    pub(super) fn ask(
        &mut self,
        vni: Vni,
        mac: Mac,
        ips: impl Iterator<Item = IpAddr>,
        port: IfIndex,
        at: Time,
    ) {
        if self.links.get(&port).is_none_or(|l| !l.up || !l.carrier) {
            return;
        }
        // Its hypervisor has said that it leaves (PIT-04).
        if self.is_released(vni, mac, Some(port)) {
            return;
        }
        for ip in ips.take(PER_MAC) {
            if self.may_ask(vni, ip, at) {
                self.asking.push_back(Question { vni, mac, ip, port });
            }
        }
    }

    /// Puts some of the questions that wait.
    pub(super) fn due_questions(&mut self) {
        for _ in 0..PER_FLUSH {
            let Some(q) = self.asking.pop_front() else { break };
            self.probe_on(q.vni, q.mac, q.ip, q.port);
        }
    }

    /// A MAC was lost to another VTEP and the kernel has the row: is it really gone from its port (EVPN-IRB-13)?
    pub(super) fn ask_loser(&mut self, vni: Vni, mac: Mac, keys: &[RouteKey], at: Time) {
        let Some(entry) = self.segments.get(&vni).and_then(|s| s.hosts.macs.get(&mac)) else { return };
        let (Some(_), Some(lost)) = (entry.remote(), entry.lost.latest()) else { return };
        let port = lost.port;
        let ips = keys.iter().filter_map(|k| match k {
            RouteKey::MacIp(_, _, m, ip) if *m == mac => *ip,
            _ => None,
        });
        self.ask(vni, mac, ips, port, at);
    }

    /// Nobody has a MAC any more that was behind a port of ours: if its host has been there all the time, it is asked
    /// to say so, because it may be silent and its peers would find nobody (EVPN-MOB-11). One question per withdrawal,
    /// also shortly after another one: that was put when somebody else had the MAC.
    pub(super) fn ask_former_port(&mut self, vni: Vni, mac: Mac, lost: &Lost, at: Time) {
        let live = self.links.get(&lost.port).is_some_and(|l| l.up && l.carrier);
        let Some(ip) = lost.ip.filter(|_| live && at.since(lost.at) < FORMER) else { return };
        if self.asking.len() < ASKED && !self.is_released(vni, mac, Some(lost.port)) {
            self.asking.push_back(Question { vni, mac, ip, port: lost.port });
        }
    }

    /// Others claim a MAC that is ours and stays ours: on a tie, or their routes are late. What they say of its addresses
    /// goes with their routes, so its port is asked; what answers is announced (EVPN-MOB-08, MIG-HOT-02). It has been heard
    /// with them a moment ago: it is past its own duplicate check (PIT-16).
    ///
    /// If we won it by a higher sequence while we could not hear them, its addresses come along now as they would have
    /// come then (PIT-22); on a tie nobody knows yet which of us has the guest.
    pub(super) fn ask_for_claimed(&mut self, vni: Vni, mac: Mac, candidates: &[Candidate], at: Time) {
        let Some(seg) = self.segments.get(&vni) else { return };
        let Some(local) = seg.hosts.macs.get(&mac).and_then(|e| e.local().copied()) else { return };
        let nobodys = |ip: &IpAddr| seg.hosts.binding(*ip).is_none_or(|b| !b.is_local());
        let fresh = candidates.iter().filter(|c| !c.stale);
        let (mut ips, mut along) = (Vec::new(), Vec::new());
        for (c, ip) in fresh.filter_map(|c| Some((c, c.ip?))).filter(|(_, ip)| nobodys(ip)) {
            if self.comes_late(vni, mac, local, c, ip) {
                along.push((ip, c.router));
            } else {
                ips.push(ip);
            }
        }
        along.retain(|(ip, _)| self.is_allowed(vni, local.port, *ip) && self.may_ask(vni, *ip, at));
        for (ip, router) in along {
            self.is_past_its_check(vni, mac, at);
            self.learn_binding(vni, ip, Said { mac, origin: BindingOrigin::Moved, router }, at);
            self.probes.put(at + FIRST_PROBE, vni, ip);
        }
        self.ask_allowed(vni, mac, ips, local.port, at);
    }

    /// Whether this is a route that would have brought an address along if it had been here when we won the MAC. None that
    /// anybody else claims.
    fn comes_late(&self, vni: Vni, mac: Mac, local: Local, c: &Candidate, ip: IpAddr) -> bool {
        let bound = self.segments.get(&vni).and_then(|s| s.hosts.binding(ip)).map(|b| b.mac);
        self.config.mobility.move_ips_with_mac
            && local.seq.newer_than(c.seq)
            && bound.is_none_or(|m| m == mac)
            && self.rivals(vni, mac, ip).is_empty()
    }

    /// A MAC that was gone is back by a live migration: it has said so by RARP, or its hypervisor has. If its old port
    /// died before that, its addresses were withdrawn with it and have not come along (MIG-HOT-02); it is asked for them.
    /// Not when it just appears: it may be booting, and looking for duplicates of its address (PIT-16).
    pub(super) fn ask_for_former(&mut self, vni: Vni, mac: Mac, port: IfIndex, at: Time) {
        let mut ips = self.moves.past.addresses_of(vni, mac, FORMER, at);
        ips.retain(|ip| self.segments.get(&vni).is_some_and(|s| s.hosts.binding(*ip).is_none()));
        self.ask_allowed(vni, mac, ips, port, at);
    }

    fn ask_allowed(&mut self, vni: Vni, mac: Mac, mut ips: Vec<IpAddr>, port: IfIndex, at: Time) {
        ips.retain(|ip| self.is_allowed(vni, port, *ip));
        if !ips.is_empty() {
            self.is_past_its_check(vni, mac, at);
        }
        self.ask(vni, mac, ips.into_iter(), port, at);
    }

    /// Whether an address may be asked for now; notes that it is.
    pub(super) fn may_ask(&mut self, vni: Vni, ip: IpAddr, at: Time) -> bool {
        self.asking.len() < ASKED && self.asked.may((vni, ip), at)
    }
}
