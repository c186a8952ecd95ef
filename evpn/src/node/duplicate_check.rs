//! Duplicate checks of hosts: ARP probes (RFC 5227 §2.1.1) and duplicate address detection (RFC 4862 §5.4) are for the owner
//! of the address, and never answered from memory (PIT-14, HOST-ARP-03, HOST-DAD-02; PROXY-REPLY-04 would have them answered).
//!
//! A bridge with suppression keeps both from the overlay, so the VTEP that hears one carries it, by unicast, to the VTEP of
//! the owner; if nobody is known, to each VTEP of the VNI, unless `unknown-targets` keeps such questions here. An ARP reply comes back as any unicast frame. An NA to all nodes does not:
//! the owner's VTEP suppresses it, and so that VTEP carries it back; since one that is not ours does not, the owner is
//! asked from our probe MAC as well, and its answer is handed on.
//!
//! Who is asked and says nothing for [`PATIENCE`] has lost: what the prober says next counts at once. So it does if the
//! route is stale, or a hypervisor has prepared or released the move. A host is not asked about its own address.

use super::frames::is_host_ip;
use super::probe_mac::link_local;
use super::tell::Pace;
use super::{Node, Output, Unknown};
use crate::types::{IfIndex, Mac, Span, Time, Vni};
use crate::wire::frame::{self, Body, Frame};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;

/// The owner answers within this time or has lost the address (PIT-14).
pub(super) const PATIENCE: Span = Span::millis(200);
/// How long the table may take to show the MAC on the port that its check came from (PIT-07).
const TABLE: Span = Span::millis(20);
/// For how long an unanswered check speaks for the prober: three probes up to 2 s apart and 2 s of waiting (RFC 5227 §1.1),
/// or one solicitation a second and the question that follows it.
const GRANTED: Span = Span::secs(30);
/// For how long an advertisement of ours may be the answer to a check from afar: RFC 4862 waits a second.
const ASKED: Span = Span::secs(2);
/// Checks, grants, and checks from afar at a time; further ones are not watched, and the answers come all the same.
const LIMIT: usize = 4096;
/// Checks that wait for the table.
const WAITING: usize = 256;
/// No host's check is longer.
const LONGEST: usize = 512;
/// For how long a port is not told again what somebody behind it checks: until the next probe, or the end (RFC 5227 §1.1).
const HUSH: Span = Span::secs(3);
/// Such checks remembered; the oldest give way.
const HUSHED: usize = 1024;
/// Checks of one port: a hundred a second, some at once.
const EACH: Span = Span::millis(10);
/// Frames of checks that are late to be read make an answer late.
const OVERDUE: Span = Span::secs(1);

/// VNI, address, who checks.
type Key = (Vni, IpAddr, Mac);

#[derive(Clone, Copy, Debug)]
struct Check {
    port: IfIndex,
    /// Who has the address.
    owner: Mac,
    until: Time,
}

#[derive(Clone, Copy, Debug)]
struct Grant {
    /// Who had it and did not answer.
    owner: Mac,
    until: Time,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Checks {
    open: BTreeMap<Key, Check>,
    due: BTreeSet<(Time, Key)>,
    granted: BTreeMap<Key, Grant>,
    /// Checks that came from the overlay, oldest first: the address and who checks.
    afar: VecDeque<(Time, Key)>,
    waiting: BTreeMap<(Vni, IfIndex, Mac), (Time, IpAddr, Bytes)>,
    pace: BTreeMap<IfIndex, Pace>,
    /// Checks of local hosts of addresses that others have, oldest first.
    heard: VecDeque<(Time, Vni, IpAddr, IfIndex)>,
}

impl Checks {
    fn note(&mut self, vni: Vni, ip: IpAddr, port: IfIndex, at: Time) {
        while self.heard.front().is_some_and(|(t, ..)| at.since(*t) >= HUSH) || self.heard.len() >= HUSHED {
            self.heard.pop_front();
        }
        self.heard.push_back((at, vni, ip, port));
    }

    /// Whether somebody behind a port checks this address. Repeating there whose it is said to be would answer the check from
    /// memory (PIT-14); its owner defends it.
    pub(super) fn hushes(&self, vni: Vni, ip: IpAddr, port: IfIndex, at: Time) -> bool {
        let of_it = |(t, v, i, p): &(Time, Vni, IpAddr, IfIndex)| {
            at.since(*t) < HUSH && (*v, *i, *p) == (vni, ip, port)
        };
        self.heard.iter().any(of_it)
    }

    pub(super) fn timeout(&self) -> Option<Time> {
        self.due.first().map(|(t, _)| *t)
    }

    fn put(&mut self, key: Key, c: Check) {
        if let Some(old) = self.open.insert(key, c) {
            self.due.remove(&(old.until, key));
        }
        self.due.insert((c.until, key));
    }

    fn take(&mut self, key: Key) -> Option<Check> {
        let c = self.open.remove(&key)?;
        self.due.remove(&(c.until, key));
        Some(c)
    }

    fn grant(&mut self, key: Key, owner: Mac, at: Time) {
        if self.granted.len() >= LIMIT {
            self.granted.retain(|_, g| g.until > at);
        }
        if self.granted.len() < LIMIT {
            self.granted.insert(key, Grant { owner, until: at + GRANTED });
        }
    }

    /// Somebody has answered who may have been asked: all checks of others for this address end.
    fn answered(&mut self, vni: Vni, ip: IpAddr, owner: Mac) -> Vec<(Mac, IfIndex)> {
        // Every answer that comes over the underlay asks this: nothing is looked at but the checks of this address.
        let all = (vni, ip, Mac([0; 6]))..=(vni, ip, Mac::BROADCAST);
        let of_others = |k: &&Key| k.2 != owner;
        let ended: Vec<Key> =
            self.open.range(all.clone()).map(|(k, _)| k).filter(of_others).copied().collect();
        let lost = self.granted.range(all).filter(|(k, g)| of_others(k) && g.owner == owner);
        for key in lost.map(|(k, _)| *k).collect::<Vec<_>>() {
            self.granted.remove(&key);
        }
        ended.into_iter().filter_map(|k| self.take(k).map(|c| (k.2, c.port))).collect()
    }
}

/// The address that the sender of this frame looks whether somebody has.
fn checked(f: &Frame) -> Option<IpAddr> {
    match &f.body {
        Body::Arp(a) => (a.is_probe() && a.sender_mac == f.src).then_some(IpAddr::V4(a.target_ip)),
        Body::NeighborSolicitation(ns) => ns.is_dad().then_some(IpAddr::V6(ns.target)),
        Body::Rarp(_)
        | Body::NeighborAdvertisement(_)
        | Body::RouterSolicitation(_)
        | Body::RouterAdvertisement(_)
        | Body::Dhcp(_)
        | Body::Other(_) => None,
    }
}

/// Who says to have which address, in answer to somebody.
pub(super) fn answer_of(f: &Frame) -> Option<(Mac, IpAddr)> {
    match &f.body {
        Body::Arp(a) => {
            let of_host = a.reply && a.sender_mac == f.src && !a.sender_ip.is_unspecified();
            of_host.then_some((f.src, IpAddr::V4(a.sender_ip)))
        }
        Body::NeighborAdvertisement(na) => {
            na.tlla.is_none_or(|m| m == f.src).then_some((f.src, IpAddr::V6(na.target)))
        }
        Body::Rarp(_)
        | Body::NeighborSolicitation(_)
        | Body::RouterSolicitation(_)
        | Body::RouterAdvertisement(_)
        | Body::Dhcp(_)
        | Body::Other(_) => None,
    }
}

impl Node {
    /// A frame from an access port: a check, or the answer to one that came from afar.
    pub(super) fn check_heard(&mut self, vni: Vni, port: IfIndex, f: &Frame, bytes: &[u8], at: Time) {
        if let Body::NeighborAdvertisement(na) = &f.body
            && na.dst.is_multicast()
        {
            self.carry_back(vni, f, IpAddr::V6(na.target), bytes, at);
            return;
        }
        let Some(ip) = checked(f).filter(|ip| is_host_ip(*ip)) else { return };
        if bytes.len() > LONGEST || self.has_left(vni, f.src, port) || !self.is_allowed(vni, port, ip) {
            return;
        }
        let bytes = Bytes::copy_from_slice(bytes);
        let owner = self.segments.get(&vni).and_then(|s| s.hosts.binding(ip)).map(|b| b.mac);
        if owner.is_some_and(|m| m != f.src) {
            self.checks.note(vni, ip, port, at);
        }
        let entry = self.segments.get(&vni).and_then(|s| s.hosts.macs.get(&f.src));
        if entry.and_then(|e| e.local()).is_some_and(|l| l.port == port) {
            self.carry_check(vni, port, f.src, ip, &bytes, at);
            return;
        }
        // PIT-07: what the bridge does not let in is not carried past it.
        let waiting = &mut self.checks.waiting;
        if waiting.len() >= WAITING {
            waiting.retain(|_, (t, ..)| *t > at);
        }
        if waiting.len() < WAITING {
            waiting.insert((vni, port, f.src), (at + TABLE, ip, bytes));
        }
    }

    /// The table shows a MAC on a port: what it has just looked for is carried on.
    pub(super) fn check_let_in(&mut self, vni: Vni, port: IfIndex, mac: Mac, at: Time) {
        if self.checks.waiting.is_empty() {
            return;
        }
        if let Some((until, ip, bytes)) = self.checks.waiting.remove(&(vni, port, mac))
            && at <= until
        {
            self.carry_check(vni, port, mac, ip, &bytes, at);
        }
    }

    fn carry_check(&mut self, vni: Vni, port: IfIndex, mac: Mac, ip: IpAddr, bytes: &Bytes, at: Time) {
        let Some(seg) = self.segments.get(&vni).filter(|s| s.ready) else { return };
        // Without suppression the bridge floods it by itself.
        let floods = !seg.config.arp_suppression && seg.config.flooding == super::Flooding::Replicate;
        // Our own gateway answers for itself.
        if floods || seg.config.hosts.gateway.as_ref().is_some_and(|g| g.has(ip)) {
            return;
        }
        let unknown = seg.config.hosts.unknown;
        let bound = seg.hosts.binding(ip).copied();
        let own = bound.is_some_and(|b| b.mac == mac);
        // A local owner hears the check from the bridge.
        if !own && bound.is_some_and(|b| seg.hosts.macs.get(&b.mac).is_some_and(|e| e.local().is_some())) {
            return;
        }
        let key = (vni, ip, mac);
        let owner = bound.map(|b| b.mac);
        if let Some(owner) = owner.filter(|o| !own && self.gives_way(vni, *o, ip)) {
            self.checks.grant(key, owner, at);
            self.journal.count("duplicate_checks_granted");
            return;
        }
        let pace = self.checks.pace.entry(port).or_default();
        if pace.next(EACH) > at {
            self.journal.count("duplicate_checks_over_rate");
            return;
        }
        pace.spend(1, EACH, at);
        if own {
            // Nobody answers it; and nobody is to ask it without a name meanwhile (PIT-16).
            if ip.is_ipv4() {
                self.tell_of_own_check(vni, bytes);
            }
            return;
        }
        let Some(owner) = owner else {
            // PROXY-FLOOD-01: the hosts behind our own ports hear it from the bridge.
            if unknown != Unknown::Replicate {
                self.journal.count("duplicate_checks_kept_here");
                return;
            }
            self.journal.count("duplicate_checks_to_all");
            self.encap_to_all(vni, bytes);
            return;
        };
        if !self.encap_to_owner(vni, owner, bytes.clone()) {
            return;
        }
        self.journal.count("duplicate_checks_carried");
        if let (IpAddr::V6(v6), Some(from)) = (ip, self.probe_mac(vni)) {
            let ns = frame::neighbor_solicitation(from, link_local(from), Some(owner), v6);
            self.encap_to_owner(vni, owner, ns);
        }
        if self.checks.open.len() < LIMIT || self.checks.open.contains_key(&key) {
            self.checks.put(key, Check { port, owner, until: at + PATIENCE });
        }
    }

    /// Whether the owner of an address has nothing to defend it with: a stale route, or a move that its hypervisor has
    /// released or prepared (PIT-14, PIT-23).
    pub(super) fn gives_way(&self, vni: Vni, owner: Mac, ip: IpAddr) -> bool {
        let entry = self.segments.get(&vni).and_then(|s| s.hosts.macs.get(&owner));
        let stale = entry.and_then(|e| e.remote()).is_some_and(|r| r.claim.stale);
        stale || self.is_released(vni, owner, None) || self.is_prepared_for(vni, owner, ip)
    }

    /// Whether a host has looked for an address, and its owner did not answer.
    pub(super) fn is_granted(&self, vni: Vni, ip: IpAddr, mac: Mac, owner: Mac, at: Time) -> bool {
        self.checks.granted.get(&(vni, ip, mac)).is_some_and(|g| g.owner == owner && g.until > at)
    }

    /// It has been used.
    pub(super) fn end_grant(&mut self, vni: Vni, ip: IpAddr, mac: Mac) {
        self.checks.granted.remove(&(vni, ip, mac));
    }

    /// A frame from the overlay: a check by a host that is elsewhere, or the answer to one of ours.
    pub(super) fn check_from_afar(&mut self, vni: Vni, f: &Frame, at: Time) {
        if let Some(ip @ IpAddr::V6(_)) = checked(f) {
            let afar = &mut self.checks.afar;
            while afar.front().is_some_and(|(t, _)| at.since(*t) >= ASKED) || afar.len() >= LIMIT {
                afar.pop_front();
            }
            afar.push_back((at, (vni, ip, f.src)));
        }
        self.checks_afar(vni, f, at);
        let Some((owner, ip)) = answer_of(f) else { return };
        let ended = self.checks.answered(vni, ip, owner);
        self.journal.add("duplicate_checks_answered", ended.len() as u64);
        // It has answered us: who checks has not heard it.
        if let (IpAddr::V6(v6), Some(own), Body::NeighborAdvertisement(na)) =
            (ip, self.probe_mac(vni), &f.body)
            && f.dst == own
        {
            let ports: BTreeSet<IfIndex> = ended.into_iter().map(|(_, port)| port).collect();
            let frame = frame::neighbor_advertisement(owner, v6, None, na.router, true);
            for port in ports {
                self.journal.push(Output::Emit { port, frame: frame.clone() });
            }
        }
    }

    /// An advertisement to all nodes may answer a check that came from afar: suppression keeps it here.
    fn carry_back(&mut self, vni: Vni, f: &Frame, ip: IpAddr, bytes: &[u8], at: Time) {
        let here = self.segments.get(&vni).and_then(|s| s.hosts.macs.get(&f.src));
        if self.checks.afar.is_empty() || here.is_none_or(|e| e.local().is_none()) || bytes.len() > LONGEST {
            return;
        }
        let asked = |(t, k): &&(Time, Key)| at.since(*t) < ASKED && (k.0, k.1) == (vni, ip) && k.2 != f.src;
        let askers: BTreeSet<Mac> = self.checks.afar.iter().filter(asked).map(|(_, k)| k.2).collect();
        if askers.is_empty() {
            return;
        }
        self.checks.afar.retain(|(_, k)| (k.0, k.1) != (vni, ip));
        self.journal.count("duplicate_answers_carried");
        let frame = Bytes::copy_from_slice(bytes);
        let vteps: BTreeSet<IpAddr> = askers.iter().filter_map(|m| self.vtep_of(vni, *m)).collect();
        // Its route may not be here yet.
        if vteps.is_empty() {
            self.encap_to_all(vni, &frame);
        }
        for vtep in vteps {
            self.encap(vni, vtep, frame.clone());
        }
    }

    /// Owners that have not answered in time.
    pub(super) fn due_checks(&mut self, at: Time) {
        let due: Vec<_> = self.checks.due.iter().take_while(|(t, _)| *t <= at).copied().collect();
        for (t, key) in due {
            let Some(owner) = self.checks.open.get(&key).map(|c| c.owner) else { continue };
            // What was answered may wait to be read.
            if at.since(t) < OVERDUE && self.may_have_answered(key.0, owner) {
                continue;
            }
            let Some(c) = self.checks.take(key) else { continue };
            let (vni, ip, _) = key;
            let bound = self.segments.get(&vni).and_then(|s| s.hosts.binding(ip)).map(|b| b.mac);
            if bound == Some(c.owner) {
                self.journal.count("duplicate_checks_unanswered");
                self.checks.grant(key, c.owner, at);
            }
        }
    }

    /// A port is gone: its index may come back as another one's.
    pub(super) fn forget_checks(&mut self, port: IfIndex) {
        self.checks.pace.remove(&port);
        self.checks.waiting.retain(|(_, p, _), _| *p != port);
        self.checks.heard.retain(|(.., p)| *p != port);
    }
}
