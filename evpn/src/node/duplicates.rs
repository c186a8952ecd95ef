//! Duplicate MACs and IPs: found out, told, contained, let go (EVPN-MOB-15, -16, EVPN-XMOB-16, -17).
//!
//! The VTEP that has lost a contested address asks its own host on the port where that was. A host that has moved
//! away is silent; one that answers is alive, and so is whoever had the address claimed. Which VTEP finds out is
//! decided by who loses, so that two of them never freeze an address each for the other.

use super::config::{DuplicateAction, DuplicateMode};
use super::input::About;
use super::output::{Output, Reply};
use super::view::{DuplicateView, Place};
use super::{Event, Node};
use crate::fabric::Row;
use crate::hosts::{Binding, Owner};
use crate::mobility::{Claim, Contest, Holder, LocalSign, MacPattern};
use crate::rib::Candidate;
use crate::types::{IfIndex, Mac, Span, Time, Vni};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;

/// Addresses whose owners are watched; those of further ones are not, and counted.
const TRACKED: usize = 65_536;
/// Duplicates kept at a time; further ones are only counted.
const FOUND: usize = 4096;
/// Hosts that are to be asked a little later.
const ASKS: usize = 4096;
/// Addresses of a host that it is asked for.
const IPS: usize = 2;
/// Between two questions to our side of a duplicate.
const ASK_EVERY: Span = Span::secs(1);
/// Unanswered questions after which our side is taken for gone.
const UNANSWERED: u8 = 3;
/// A duplicate that is only reported is over when it has stayed with one owner for so long.
const QUIET: Span = Span::secs(30);
/// Until the kernel has the row that lets the answer in.
const SETTLE: Span = Span::millis(5);

type Key = (Vni, About);

/// A duplicate, as this VTEP has found it out.
#[derive(Debug)]
struct Found {
    since: Time,
    changed: Time,
    action: DuplicateAction,
    /// Our side of it: port, host, and what it is asked for.
    port: IfIndex,
    mac: Mac,
    ips: Vec<IpAddr>,
    unanswered: u8,
    owners: Vec<String>,
    /// Who keeps an IP that is frozen.
    keeper: Option<Mac>,
}

impl Found {
    fn frozen(&self) -> bool {
        self.action != DuplicateAction::Report
    }

    fn state(&self) -> &'static str {
        match self.action {
            DuplicateAction::Report => "reported",
            DuplicateAction::Freeze => "frozen",
            DuplicateAction::Block => "blocked",
        }
    }
}

/// Contested and duplicate addresses of a node.
#[derive(Debug, Default)]
pub(super) struct Duplicated {
    macs: BTreeMap<(Vni, Mac), Contest<Holder>>,
    ips: BTreeMap<(Vni, IpAddr), Contest<Mac>>,
    /// When to look whether a contest may be forgotten; one entry each.
    expiry: VecDeque<(Time, Key)>,
    found: BTreeMap<Key, Found>,
    due: BTreeSet<(Time, Key)>,
    asks: BTreeSet<(Time, Vni, Mac, IfIndex, IpAddr)>,
    blocked: BTreeSet<(IfIndex, Mac)>,
    untracked: u64,
}

impl Duplicated {
    /// The contest of a MAC, unless there are too many.
    fn mac(&mut self, vni: Vni, mac: Mac, until: Time) -> Option<&mut Contest<Holder>> {
        if !self.macs.contains_key(&(vni, mac)) {
            self.room((vni, About::Mac(mac)), until)?;
        }
        Some(self.macs.entry((vni, mac)).or_default())
    }

    fn ip(&mut self, vni: Vni, ip: IpAddr, until: Time) -> Option<&mut Contest<Mac>> {
        if !self.ips.contains_key(&(vni, ip)) {
            self.room((vni, About::Ip(ip)), until)?;
        }
        Some(self.ips.entry((vni, ip)).or_default())
    }

    fn room(&mut self, key: Key, until: Time) -> Option<()> {
        if self.macs.len() + self.ips.len() >= TRACKED {
            self.untracked += 1;
            return None;
        }
        self.expiry.push_back((until, key));
        Some(())
    }

    pub(super) fn poll_timeout(&self) -> Option<(Time, &'static str)> {
        let times = [
            self.due.first().map(|(t, _)| (*t, "duplicate")),
            self.asks.first().map(|(t, ..)| (*t, "question to a host")),
            self.expiry.front().map(|(t, _)| (*t, "end of a contest")),
        ];
        times.into_iter().flatten().min_by_key(|(t, _)| *t)
    }

    /// Whether this MAC, or this IP (with its MAC), is a duplicate.
    pub(super) fn marks(&self, vni: Vni, mac: Mac, ip: Option<IpAddr>) -> bool {
        !self.found.is_empty()
            && (self.found.contains_key(&(vni, About::Mac(mac)))
                || ip.is_some_and(|ip| self.found.contains_key(&(vni, About::Ip(ip)))))
    }

    pub(super) fn len(&self) -> usize {
        self.found.len()
    }

    /// Moves that nobody watches, because too many addresses move at once.
    pub(super) fn untracked(&self) -> u64 {
        self.untracked
    }
}

impl Node {
    fn window(&self) -> Span {
        self.config.mobility.duplicates.window
    }

    fn mac_floats(&self, vni: Vni, mac: Mac) -> bool {
        let own = self.segments.get(&vni).map_or(&[][..], |s| &s.config.mobility.floating_macs);
        MacPattern::VIRTUAL_ROUTERS.iter().chain(own).any(|p| p.contains(mac))
    }

    fn ip_floats(&self, vni: Vni, ip: IpAddr) -> bool {
        self.segments.get(&vni).is_some_and(|s| s.config.mobility.floating_ips.iter().any(|p| p.contains(ip)))
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

    fn ask_soon(&mut self, vni: Vni, mac: Mac, port: IfIndex, ips: &[IpAddr], at: Time) {
        // A host whose hypervisor has said that it leaves is not asked (PIT-04).
        if self.duplicated.asks.len() < ASKS && !self.is_released(vni, mac, Some(port)) {
            self.duplicated.asks.extend(ips.iter().map(|ip| (at + SETTLE, vni, mac, port, *ip)));
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
        let lost = seg.hosts.macs.get(&mac).and_then(|e| e.lost.as_deref());
        let Some(lost) = lost.filter(|l| l.port == port) else { return LocalSign::Claim };
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
        let found =
            Found { since: at, changed: at, action, port, mac, ips, unanswered: 0, owners, keeper: None };
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

    fn found(&mut self, key: Key, f: Found, at: Time) -> bool {
        self.journal.count("duplicates_found");
        if self.duplicated.found.len() >= FOUND {
            self.journal.count("duplicates_over_limit");
            return false;
        }
        self.revision += 1;
        let event = Event::Duplicate {
            vni: key.0,
            address: key.1,
            owners: f.owners.clone(),
            port: self.dev_name(f.port),
            action: f.action,
        };
        self.journal.event(event, at);
        self.duplicated.due.insert((at + ASK_EVERY, key));
        self.duplicated.found.insert(key, f);
        match key.1 {
            About::Mac(mac) => self.duplicated.macs.remove(&(key.0, mac)).is_some(),
            About::Ip(ip) => self.duplicated.ips.remove(&(key.0, ip)).is_some(),
        };
        true
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
        let of_keeper = |c: &Candidate| super::local::candidate_mac(&c.key) == Some(keeper);
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
        let found = Found {
            since: at,
            changed: at,
            action,
            port,
            mac,
            ips: vec![ip],
            unanswered: 0,
            owners,
            keeper: Some(keeper),
        };
        self.found((vni, About::Ip(ip)), found, at) && action != DuplicateAction::Report
    }

    /// Any frame of our side of a duplicate is a sign of life; the bridge may not show it any more.
    pub(super) fn duplicate_heard(&mut self, vni: Vni, mac: Mac, port: IfIndex, ip: Option<IpAddr>) {
        if self.duplicated.found.is_empty() {
            return;
        }
        for key in [Some(About::Mac(mac)), ip.map(About::Ip)].into_iter().flatten() {
            if let Some(f) = self.duplicated.found.get_mut(&(vni, key))
                && f.port == port
                && f.mac == mac
            {
                f.unanswered = 0;
            }
        }
    }

    pub(super) fn due_duplicates(&mut self, at: Time) {
        while let Some(&ask) = self.duplicated.asks.first()
            && ask.0 <= at
        {
            self.duplicated.asks.pop_first();
            let (_, vni, mac, port, ip) = ask;
            self.probe_on(vni, mac, ip, port);
        }
        while let Some(&(t, key)) = self.duplicated.due.first()
            && t <= at
        {
            self.duplicated.due.pop_first();
            self.review_duplicate(key, at);
        }
        let window = self.window();
        while let Some(&(t, key)) = self.duplicated.expiry.front()
            && t <= at
        {
            self.duplicated.expiry.pop_front();
            let last = match key.1 {
                About::Mac(m) => self.duplicated.macs.get(&(key.0, m)).map(Contest::last),
                About::Ip(ip) => self.duplicated.ips.get(&(key.0, ip)).map(Contest::last),
            };
            match (last, key.1) {
                (Some(last), _) if at.since(last) < window => {
                    // Later than its turn at most by one window, and the queue stays in order.
                    self.duplicated.expiry.push_back((at + window, key));
                }
                (Some(_), About::Mac(m)) => drop(self.duplicated.macs.remove(&(key.0, m))),
                (Some(_), About::Ip(ip)) => drop(self.duplicated.ips.remove(&(key.0, ip))),
                (None, _) => {}
            }
        }
    }

    /// Asks our side of a duplicate, and sees whether it is one still (EVPN-MOB-16).
    fn review_duplicate(&mut self, key: Key, at: Time) {
        let recovery = self.config.mobility.duplicates.recovery;
        let Some(f) = self.duplicated.found.get_mut(&key) else { return };
        let why = if !self.taps.contains_key(&f.port) {
            Some(("its port is gone", false))
        } else if recovery.is_some_and(|r| at.since(f.since) >= r) {
            Some(("its recovery time is over", true))
        } else if f.unanswered >= UNANSWERED {
            Some(("the host here is silent", false))
        } else if !f.frozen() && at.since(f.changed) >= QUIET {
            Some(("it has stayed with one owner", false))
        } else {
            None
        };
        if let Some((why, ask)) = why {
            self.let_go(key, why, ask, at);
            self.decide_again(key, at);
            return;
        }
        // A host without a known address cannot be asked; it stays until its owner withdraws it, or its time is over.
        f.unanswered += u8::from(!f.ips.is_empty());
        let (ips, mac, port) = (f.ips.clone(), f.mac, f.port);
        for ip in ips {
            self.probe_on(key.0, mac, ip, port);
        }
        self.duplicated.due.insert((at + ASK_EVERY, key));
    }

    /// Not a duplicate any more. With `ask`, our host is asked as soon as the kernel lets its answer in: if it is
    /// there, it claims the address with a sequence above the other's (EVPN-XMOB-17).
    fn let_go(&mut self, key: Key, why: &str, ask: bool, at: Time) {
        let Some(f) = self.duplicated.found.remove(&key) else { return };
        self.duplicated.due.retain(|(_, k)| *k != key);
        self.revision += 1;
        let (vni, address) = key;
        if let About::Mac(mac) = address {
            if self.duplicated.blocked.remove(&(f.port, mac)) {
                self.journal.push(Output::Blocked(self.duplicated.blocked.clone()));
            }
            self.release_row(vni, mac);
        }
        if ask {
            self.ask_soon(vni, f.mac, f.port, &f.ips, at);
        }
        self.journal.event(Event::DuplicateEnded { vni, address, why: why.to_owned() }, at);
    }

    fn release_row(&mut self, vni: Vni, mac: Mac) {
        let Some(seg) = self.segments.get_mut(&vni) else { return };
        let Some(e) = seg.hosts.macs.get_mut(&mac) else { return };
        e.lost = None;
        let Owner::Remote(r) = e.owner else { return };
        if let (Some(key), Some(row)) = (seg.mac_key(mac), seg.remote_row(r.claim.vtep, r.claim.sticky))
            && matches!(self.want.get(&key), Some(Row::Remote { .. }))
        {
            self.want_set(key, row, true);
        }
    }

    fn decide_again(&mut self, (vni, address): Key, at: Time) {
        match address {
            About::Mac(mac) => self.decide_mac(vni, mac, at),
            About::Ip(ip) => self.decide_ip(vni, ip, at),
        }
    }

    /// `vtepd clear duplicate`.
    pub(super) fn clear_duplicate(&mut self, vni: Vni, address: About, at: Time) -> Reply {
        if !self.segments.contains_key(&vni) {
            return Reply::Error(format!("VNI {vni} is not configured here; see `vtepd show vnis`"));
        }
        let key = (vni, address);
        let Some(f) = self.duplicated.found.get(&key) else {
            return Reply::Error(format!(
                "{address} is no duplicate in VNI {vni} as far as this VTEP has found out; see `vtepd show duplicates`"
            ));
        };
        let port = self.dev_name(f.port);
        self.let_go(key, "cleared by an operator", true, at);
        self.decide_again(key, at);
        Reply::Cleared(format!(
            "{address} in VNI {vni} is let go; the host behind {port} gets it if it answers, otherwise it stays where it is"
        ))
    }

    pub(super) fn duplicates(
        &self,
        after: Option<Key>,
        limit: usize,
        at: Time,
    ) -> (Vec<(Key, DuplicateView)>, bool) {
        use std::ops::Bound::{Excluded, Unbounded};
        let from = after.map_or(Unbounded, Excluded);
        let mut rows = Vec::new();
        for (key, f) in self.duplicated.found.range((from, Unbounded)) {
            if rows.len() == limit {
                return (rows, true);
            }
            let (vni, address) = *key;
            let mac = match address {
                About::Mac(m) => Some(m),
                About::Ip(ip) => self.segments.get(&vni).and_then(|s| s.hosts.binding(ip)).map(|b| b.mac),
            };
            let holder = self.segments.get(&vni).zip(mac).map_or(Place::None, |(s, m)| self.place_of(s, m));
            let row = DuplicateView {
                vni,
                address,
                owners: f.owners.clone(),
                holder,
                port: self.dev_name(f.port),
                since: at.since(f.since),
                state: f.state().to_owned(),
                action: f.action,
            };
            rows.push((*key, row));
        }
        (rows, false)
    }
}
