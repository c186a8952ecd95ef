//! What hosts say to everybody, carried to those whom it concerns where it is not flooded (PIT-19): DHCP to the servers and
//! back, router solicitations to the routers and advertisements back, questions for addresses to their owners.
//!
//! Each copy goes to one host, with that host's MAC as its destination: no other host behind that VTEP hears it, and no frame for
//! all crosses the underlay. The VTEP at the other end needs to know nothing of it; its bridge forwards the frame as any
//! other. Announcements are routes, duplicate checks have an owner to ask (PIT-14); what is left is dropped and counted by the
//! VXLAN device.
//!
//! An answer can be faster than the route of a MAC that has just spoken for the first time: it waits for that.

use super::config::Flooding;
use super::probe_mac::link_local;
use super::{Node, Output, Unknown};
use crate::fabric::RowKey;
use crate::hosts::Binding;
use crate::types::{IfIndex, Mac, Span, Time, Vni};
use crate::wire::frame::{self, Body, DhcpFor, Frame};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr};

/// How long an answer waits for the route of the MAC that it is for.
const PATIENCE: Span = Span::secs(2);
/// Answers that wait; further ones are dropped, and asked for again.
const WAITING: usize = 1024;
/// A MAC that is remote for so short a while only may not have been when the bridge saw the frame.
const FRESH: Span = Span::millis(100);
/// Most frames a second from one port, and as many at once.
const RATE: u64 = 200;
const EACH: Span = Span(1_000_000_000 / RATE);
const SECOND: Span = Span::secs(1);
/// How long a host waits for the answer of a router (RFC 4861 §6.3.7: three solicitations, four seconds between).
const ASKED: Span = Span::secs(12);
/// Hosts that wait for a router.
const ASKERS: usize = 4096;
/// Advertisements of a router that come faster are for those alone who have asked.
const AGAIN: Span = Span::secs(3);
/// Copies of advertisements in one flush, and the time until the next ones.
const COPIES: usize = 64;
const PAUSE: Span = Span::millis(10);
/// How long the routers of a VNI are remembered.
const LOOKED: Span = Span::millis(200);
/// Routers of a VNI that are asked.
const ROUTERS: usize = 16;
/// Between two questions for a DHCP server that nobody has bound, and when a client asks for it.
const SERVER_EVERY: Span = Span::secs(10);
const SERVER_AGAIN: Span = Span::secs(1);
/// Routers whose advertisements are being carried.
const JOBS: usize = 64;

/// An advertisement on its way.
#[derive(Debug)]
struct Job {
    frame: Bytes,
    to: VecDeque<Mac>,
    begun: Time,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Carry {
    waiting: VecDeque<(Time, Vni, Mac, Bytes)>,
    /// Virtual scheduling, by port.
    spent: BTreeMap<IfIndex, Time>,
    askers: BTreeMap<(Vni, Mac), Time>,
    routers: BTreeMap<Vni, (Time, Vec<Mac>)>,
    jobs: BTreeMap<(Vni, Mac), Job>,
    due: Option<Time>,
    /// When DHCP servers that nobody has bound are asked for again.
    servers: BTreeMap<Vni, Time>,
}

impl Carry {
    pub(super) fn timeout(&self) -> Option<Time> {
        let servers = self.servers.values().min().copied();
        [self.waiting.front().map(|w| w.0), self.due, servers].into_iter().flatten().min()
    }

    /// Ports that are gone.
    pub(super) fn forget(&mut self, there: &BTreeMap<IfIndex, Vni>) {
        self.spent.retain(|p, _| there.contains_key(p));
    }

    pub(super) fn may(&mut self, port: IfIndex, at: Time) -> bool {
        let spent = self.spent.get(&port).copied().unwrap_or(at).max(at) + EACH;
        let ok = spent.since(at) <= SECOND;
        if ok {
            self.spent.insert(port, spent);
        }
        ok
    }
}

impl Node {
    /// A frame from an access port that the bridge does not bring to everybody whom it is for.
    pub(super) fn carry(&mut self, vni: Vni, port: IfIndex, f: &Frame, bytes: &[u8], at: Time) {
        let Some(seg) = self.segments.get(&vni).filter(|s| s.ready) else { return };
        let nothing_floods = seg.config.flooding == Flooding::None;
        if !nothing_floods && seg.config.hosts.unknown == Unknown::Replicate {
            return;
        }
        // PIT-07: what the bridge does not let in is not carried past it. The host says it again once it is let in.
        let known = seg.hosts.macs.get(&f.src).and_then(|e| e.local()).is_some_and(|l| l.port == port);
        if !known && !self.takes_strangers(port) {
            self.journal.count("carried_not_let_in");
            return;
        }
        let group = !f.dst.is_host();
        match (&f.body, frame::dhcp_for(bytes)) {
            (_, Some(DhcpFor::Servers)) if nothing_floods && group => {
                self.carry_to_servers(vni, port, bytes, at);
            }
            (_, Some(DhcpFor::Client(to))) if nothing_floods => {
                self.carry_to_client(vni, port, f, to, bytes, at);
            }
            (Body::RouterSolicitation(_), _) if nothing_floods && group => {
                self.carry_to_routers(vni, port, bytes, at);
            }
            (Body::RouterAdvertisement(_), _) if nothing_floods && group => {
                self.carry_from_router(vni, f.src, bytes, at);
            }
            (Body::Arp(a), _) if group && !a.reply && !a.is_probe() && !a.is_gratuitous() => {
                self.carry_question(vni, port, IpAddr::V4(a.target_ip), bytes, at);
            }
            (Body::NeighborSolicitation(ns), _) if group && !ns.is_dad() => {
                self.carry_question(vni, port, IpAddr::V6(ns.target), bytes, at);
            }
            _ => {}
        }
    }

    /// Whether the bridge takes frames of any MAC from a port: not if it blocks it, or has it locked (802.1X).
    pub(super) fn takes_strangers(&self, port: IfIndex) -> bool {
        let flags = self.links.get(&port).and_then(|l| l.port);
        flags.is_none_or(|p| p.forwarding && !p.locked)
    }

    /// A frame for a remote host, by itself. Whether it went.
    fn carry_to(&mut self, vni: Vni, mac: Mac, bytes: &[u8]) -> bool {
        let Some(vtep) = self.vtep_of(vni, mac) else { return false };
        let Some(copy) = frame::readdressed(bytes, mac) else { return false };
        self.encap(vni, vtep, copy);
        true
    }

    fn carry_to_servers(&mut self, vni: Vni, port: IfIndex, bytes: &[u8], at: Time) {
        let Some(seg) = self.segments.get(&vni) else { return };
        let of = |ip: &IpAddr| seg.hosts.binding(*ip).map(|b| b.mac);
        let servers: BTreeSet<Mac> = seg.config.hosts.dhcp_servers.iter().filter_map(of).collect();
        if servers.is_empty() {
            self.journal.count("dhcp_without_server");
            if let Some(due) = self.carry.servers.get_mut(&vni) {
                *due = (*due).min(Time((due.0 + SERVER_AGAIN.0).saturating_sub(SERVER_EVERY.0)).max(at));
            }
            return;
        }
        if !self.carry.may(port, at) {
            self.journal.count("carried_too_many");
            return;
        }
        for mac in servers {
            if self.carry_to(vni, mac, bytes) {
                self.journal.count("carried_dhcp");
            }
        }
    }

    /// From a server of ours to a client that may be anywhere. What is for one MAC that the bridge knows goes by itself.
    fn carry_to_client(&mut self, vni: Vni, port: IfIndex, f: &Frame, to: Mac, bytes: &[u8], at: Time) {
        let Some(seg) = self.segments.get(&vni) else { return };
        let serves = |ip: &IpAddr| seg.hosts.binding(*ip).is_some_and(|b| b.mac == f.src);
        if !seg.config.hosts.dhcp_servers.iter().any(serves) {
            return;
        }
        let entry = seg.hosts.macs.get(&to);
        if entry.is_some_and(|e| e.local().is_some()) {
            return;
        }
        let known = entry.is_some_and(|e| at.since(e.since) >= FRESH);
        if f.dst.is_host() && known {
            return;
        }
        if !self.carry.may(port, at) {
            self.journal.count("carried_too_many");
            return;
        }
        if self.carry_or_wait(vni, to, bytes, at) {
            self.journal.count("carried_dhcp");
        }
    }

    /// Whether it went, or waits.
    fn carry_or_wait(&mut self, vni: Vni, to: Mac, bytes: &[u8], at: Time) -> bool {
        if self.carry_to(vni, to, bytes) {
            return true;
        }
        if self.carry.waiting.len() >= WAITING {
            self.journal.count("carried_too_many");
            return false;
        }
        self.carry.waiting.push_back((at + PATIENCE, vni, to, Bytes::copy_from_slice(bytes)));
        true
    }

    fn carry_to_routers(&mut self, vni: Vni, port: IfIndex, bytes: &[u8], at: Time) {
        if !self.carry.may(port, at) {
            self.journal.count("carried_too_many");
            return;
        }
        for mac in self.routers(vni, at) {
            if self.carry_to(vni, mac, bytes) {
                self.journal.count("carried_solicitations");
            }
        }
    }

    /// Routers behind other VTEPs: hosts whose advertisements have the R flag (PROXY-EC-02).
    fn routers(&mut self, vni: Vni, at: Time) -> Vec<Mac> {
        if let Some((until, known)) = self.carry.routers.get(&vni)
            && *until > at
        {
            return known.clone();
        }
        let Some(seg) = self.segments.get(&vni) else { return Vec::new() };
        let of = seg.hosts.bindings().filter(|(ip, b)| ip.is_ipv6() && b.router && !b.is_local());
        let macs: BTreeSet<Mac> = of.map(|(_, b)| b.mac).take(ROUTERS).collect();
        let macs: Vec<Mac> = macs.into_iter().collect();
        self.carry.routers.insert(vni, (at + LOOKED, macs.clone()));
        macs
    }

    /// A host behind another VTEP asks for routers: what they say next is for it, too.
    pub(super) fn router_asked_from_afar(&mut self, vni: Vni, f: &Frame, at: Time) {
        let none = self.segments.get(&vni).is_some_and(|s| s.config.flooding == Flooding::None);
        if !none || !matches!(f.body, Body::RouterSolicitation(_)) {
            return;
        }
        if self.carry.askers.len() >= ASKERS {
            self.carry.askers.retain(|_, t| at.since(*t) < ASKED);
        }
        if self.carry.askers.len() < ASKERS {
            self.carry.askers.insert((vni, f.src), at);
        }
    }

    /// A router speaks to all nodes: to those that have asked at once, to all others that use IPv6 now and then.
    fn carry_from_router(&mut self, vni: Vni, router: Mac, bytes: &[u8], at: Time) {
        self.carry.askers.retain(|_, t| at.since(*t) < ASKED);
        let asked: Vec<Mac> = self.carry.askers.keys().filter(|(v, _)| *v == vni).map(|(_, m)| *m).collect();
        self.carry.askers.retain(|(v, _), _| *v != vni);
        for mac in &asked {
            if self.carry_or_wait(vni, *mac, bytes, at) {
                self.journal.count("carried_advertisements");
            }
        }
        let Some(seg) = self.segments.get(&vni) else { return };
        let again = self.carry.jobs.get(&(vni, router)).is_some_and(|j| at.since(j.begun) < AGAIN);
        if again || (self.carry.jobs.len() >= JOBS && !self.carry.jobs.contains_key(&(vni, router))) {
            return;
        }
        let uses = seg.hosts.bindings().filter(|(ip, b)| ip.is_ipv6() && !b.is_local());
        let mut to: BTreeSet<Mac> = uses.map(|(_, b)| b.mac).filter(|m| !seg.is_probe_mac(*m)).collect();
        for mac in &asked {
            to.remove(mac);
        }
        let job = Job { frame: Bytes::copy_from_slice(bytes), to: to.into_iter().collect(), begun: at };
        self.carry.jobs.insert((vni, router), job);
        self.carry.due = Some(at);
    }

    /// A question for an address that the kernel neither answers nor floods.
    fn carry_question(&mut self, vni: Vni, port: IfIndex, target: IpAddr, bytes: &[u8], at: Time) {
        let Some(seg) = self.segments.get(&vni) else { return };
        let policy = seg.config.hosts.unknown;
        let bound = seg.hosts.binding(target).copied();
        if bound.as_ref().is_some_and(Binding::is_local) {
            return;
        }
        let answered = |key: RowKey| self.want.get(&key).is_some();
        if bound.is_some() && seg.neigh_key(target).is_some_and(answered) {
            return;
        }
        if !self.carry.may(port, at) {
            self.journal.count("carried_too_many");
            return;
        }
        match (policy, bound) {
            (Unknown::Unicast | Unknown::Replicate, Some(b)) => {
                if self.carry_to(vni, b.mac, bytes) {
                    self.journal.count("carried_questions");
                }
            }
            (Unknown::Replicate, None) => {
                let all: Vec<(IpAddr, Vni)> = self
                    .rib
                    .flood_targets(vni)
                    .map(|(vtep, label)| (vtep, label.vni().unwrap_or(vni)))
                    .collect();
                for (vtep, vni) in all {
                    self.journal.count("carried_questions");
                    self.journal.push(Output::Encap { vni, vtep, frame: Bytes::copy_from_slice(bytes) });
                }
            }
            (Unknown::Unicast, None) | (Unknown::Drop, _) => self.journal.count("questions_dropped"),
        }
    }

    /// DHCP servers may be silent: each VTEP asks for those that nobody has bound, on its own ports.
    fn ask_for_servers(&mut self, at: Time) {
        let mut frames = Vec::new();
        for (vni, seg) in &self.segments {
            let wanted = seg.ready && seg.config.flooding == Flooding::None;
            if !wanted || seg.config.hosts.dhcp_servers.is_empty() {
                self.carry.servers.remove(vni);
                continue;
            }
            if self.carry.servers.get(vni).is_some_and(|t| *t > at) {
                continue;
            }
            self.carry.servers.insert(*vni, at + SERVER_EVERY);
            let from = seg.config.hosts.probe_mac;
            for ip in seg.config.hosts.dhcp_servers.iter().filter(|ip| seg.hosts.binding(**ip).is_none()) {
                let ask = match ip {
                    IpAddr::V4(ip) => frame::arp_request(from, Ipv4Addr::UNSPECIFIED, *ip),
                    IpAddr::V6(ip) => frame::neighbor_solicitation(from, link_local(from), None, *ip),
                };
                let ports = self.taps.iter().filter(|(_, v)| *v == vni);
                frames.extend(ports.map(|(port, _)| (*port, ask.clone())));
            }
        }
        for (port, frame) in frames {
            self.journal.count("probes_sent");
            self.journal.push(Output::Emit { port, frame });
        }
    }

    /// Answers whose receiver is known by now; the next advertisements.
    pub(super) fn due_carried(&mut self, at: Time) {
        self.ask_for_servers(at);
        for _ in 0..self.carry.waiting.len() {
            let Some((until, vni, mac, bytes)) = self.carry.waiting.pop_front() else { break };
            if self.carry_to(vni, mac, &bytes) {
                continue;
            }
            if until <= at {
                self.journal.count("carried_to_nobody");
            } else {
                self.carry.waiting.push_back((until, vni, mac, bytes));
            }
        }
        if self.carry.due.is_none_or(|t| t > at) {
            return;
        }
        let mut room = COPIES;
        let mut copies = Vec::new();
        for ((vni, _), job) in &mut self.carry.jobs {
            while room > 0
                && let Some(mac) = job.to.pop_front()
            {
                copies.push((*vni, mac, job.frame.clone()));
                room -= 1;
            }
        }
        for (vni, mac, frame) in copies {
            if self.carry_to(vni, mac, &frame) {
                self.journal.count("carried_advertisements");
            }
        }
        let more = self.carry.jobs.values().any(|j| !j.to.is_empty());
        self.carry.due = more.then(|| at + PAUSE);
        self.carry.jobs.retain(|_, j| !j.to.is_empty() || at.since(j.begun) < AGAIN);
    }
}
