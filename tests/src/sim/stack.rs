//! What a guest's own ARP and ND do: it keeps what it was told, asks before it sends, answers when it is asked, and may check
//! an address before it uses it. Nothing of `evpn`'s rules is used; these are those of hosts.
//!
//! | habit | |
//! |---|---|
//! | plain | answers, and says what its plan says |
//! | caches | as plain; for a while after a migration that its hypervisor announces it hears nothing, as a guest does whose processors come back one by one |
//! | silent | never names its address unless it is asked for it |
//! | checks | RFC 5227 and RFC 4862 §5.4 for every address that it begins to use; defends it once in ten seconds, and then gives it up |
//!
//! What is cached follows Linux: a gratuitous ARP changes what is there at once and makes nothing new, other ARP changes
//! nothing within a second of the last change, an unsolicited NA with the override flag changes what is there, and whoever
//! asks for us is remembered. What is older than [`AGE`] is confirmed by its owner before it is used, or asked for anew.

use super::frr::is_frr;
use super::guest::{Place, data_to};
use super::plan::{By, Habit};
use super::truth::us;
use super::world::{Ev, World};
use evpn::types::{Mac, Span, Time};
use evpn::wire::frame::{self, Body, Frame};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Entries that are older are confirmed before they are used.
const AGE: Span = Span::secs(12);
/// Linux's `locktime`.
const LOCKTIME: Span = Span::secs(1);
/// Between two questions, and how many there are.
const AGAIN: Span = Span::secs(1);
const TIMES: u8 = 3;
/// RFC 5227 §1.1 in microseconds: `PROBE_WAIT`, `PROBE_MIN` and `PROBE_MAX`, `ANNOUNCE_WAIT`, `ANNOUNCE_INTERVAL`.
const PROBE_WAIT: u64 = 1_000_000;
const PROBE_MIN: u64 = 1_000_000;
const PROBE_MAX: u64 = 2_000_000;
const ANNOUNCE_WAIT: u64 = 2_000_000;
const ANNOUNCE_INTERVAL: u64 = 2_000_000;
/// RFC 5227: `PROBE_NUM`, and announcements after them.
const PROBES: u8 = 3;
const ANNOUNCEMENTS: u8 = 2;
/// RFC 5227 §2.4: `DEFEND_INTERVAL`.
const DEFEND_INTERVAL: Span = Span::secs(10);
/// RFC 4862 §5.4: `RetransTimer`, with one solicitation.
const RETRANS: u64 = 1_000_000;
/// Longest time for which a guest hears nothing after it was migrated, in microseconds.
const DEAF: u64 = 1_500_000;
/// From the news of a changed MAC to the last cache behind its VTEP: the second round of four, and some.
const TOLD: Span = Span::millis(80);

/// For how long a changed MAC is told.
const ROUNDS: Span = Span::millis(2100);

/// What a guest does by itself.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Act {
    /// The next step of a check of an address: which check, which step.
    Check(IpAddr, u32, u8),
    /// A question was not answered yet.
    Again(IpAddr, u32),
    /// An owner was asked whether an entry is right still.
    Confirmed(IpAddr, u32),
    /// Does any cache still have what was before?
    Caches(IpAddr),
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    mac: Mac,
    at: Time,
}

#[derive(Clone, Copy, Debug)]
struct Asking {
    n: u32,
    times: u8,
    since: Time,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub(super) struct Stack {
    pub(super) habit: Habit,
    cache: BTreeMap<IpAddr, Entry>,
    asking: BTreeMap<IpAddr, Asking>,
    /// Addresses that it may not use yet, and the number of their check.
    checking: BTreeMap<IpAddr, u32>,
    n: u32,
    /// When it began to use an address.
    changed: Time,
    deaf_until: Time,
    /// When it has defended its address last.
    defended: Option<Time>,
    /// When its last check of an IPv4 address began.
    probed: Option<Time>,
}

impl Stack {
    pub(super) fn new(habit: Habit) -> Self {
        Self { habit, ..Self::default() }
    }

    /// Whether it uses this address.
    pub(super) fn uses(&self, ip: IpAddr) -> bool {
        !self.checking.contains_key(&ip)
    }

    /// Whether it does not hear anything yet after a migration.
    pub(super) fn is_deaf(&self, now: Time) -> bool {
        now < self.deaf_until
    }

    fn number(&mut self) -> u32 {
        self.n += 1;
        self.n
    }
}

impl World {
    fn stack(&mut self, g: usize) -> &mut Stack {
        &mut self.vms[g].stack
    }

    /// How this guest makes itself heard when the plan wants this of it.
    pub(super) fn said_by(&self, g: usize, by: By, boots: bool) -> By {
        match (self.vms[g].stack.habit, by) {
            (Habit::Silent, By::Garp | By::Ask) if boots => By::Data,
            (Habit::Silent, By::Garp | By::Ask) => By::Rarp,
            // Nobody announces a guest that boots for it.
            (Habit::Checks, _) if boots => By::Data,
            (Habit::Plain | Habit::Caches | Habit::Silent | Habit::Checks, _) => by,
        }
    }

    /// The same for something that it says while it runs.
    pub(super) fn said_in_between(&self, g: usize, by: By) -> By {
        if self.vms[g].stack.habit == Habit::Silent { self.said_by(g, by, true) } else { by }
    }

    /// It begins to run with nothing in its memory.
    pub(super) fn boots(&mut self, g: usize, at: Place, by: By) {
        let now = self.now;
        let s = self.stack(g);
        *s = Stack { n: s.n, changed: now, ..Stack::new(s.habit) };
        if s.habit != Habit::Checks {
            return self.arrive_at(g, at, by);
        }
        // The first that anybody hears of it are its checks.
        let ips: Vec<IpAddr> = self.vms[g].ips().collect();
        self.settle_in(g, at, false);
        self.welcome(g, at);
        for ip in ips {
            self.check(g, ip, 0);
        }
    }

    /// Its hypervisor announces it after a migration: it may take a moment until it hears.
    pub(super) fn migrated(&mut self, g: usize, by: By) {
        if self.vms[g].stack.habit == Habit::Caches && matches!(by, By::Rarp | By::Qemu) {
            let time = Span::micros(self.rng.below(DEAF));
            self.stack(g).deaf_until = self.now + time;
            // Its last words have to be words that it can be asked about.
            self.act_until(time);
        }
    }

    /// It begins to use an IPv4 address while it runs; whether it says so by itself, later or never.
    pub(super) fn configures(&mut self, g: usize) -> bool {
        let Some(ip) = self.vms[g].v4.map(IpAddr::V4) else { return false };
        let now = self.now;
        self.stack(g).changed = now;
        match self.vms[g].stack.habit {
            Habit::Plain | Habit::Caches => false,
            Habit::Silent => true,
            Habit::Checks => {
                self.check(g, ip, PROBE_WAIT);
                true
            }
        }
    }

    /// Begins a check some time within `wait` microseconds.
    fn check(&mut self, g: usize, ip: IpAddr, wait: u64) {
        let wait = Span::micros(self.rng.below(wait));
        let s = self.stack(g);
        let n = s.number();
        s.checking.retain(|old, _| old.is_ipv4() != ip.is_ipv4());
        s.checking.insert(ip, n);
        let longest = PROBE_WAIT + 2 * PROBE_MAX + ANNOUNCE_WAIT + ANNOUNCE_INTERVAL;
        self.act_until(Span::micros(longest));
        self.push(wait, Ev::Stack(g, Act::Check(ip, n, 0)));
    }

    pub(super) fn acts(&mut self, g: usize, act: Act) {
        match act {
            Act::Check(ip, n, step) => self.checks(g, ip, n, step),
            Act::Again(ip, n) => self.asks_again(g, ip, n),
            Act::Confirmed(ip, n) => {
                if self.vms[g].stack.asking.get(&ip).is_some_and(|a| a.n == n) {
                    self.stack(g).asking.remove(&ip);
                    self.stack(g).cache.remove(&ip);
                    self.asks(g, ip);
                }
            }
            Act::Caches(ip) => self.check_caches(Some(ip)),
        }
    }

    /// A step of a check: probes, the end of the wait, announcements.
    fn checks(&mut self, g: usize, ip: IpAddr, n: u32, step: u8) {
        let vm = &self.vms[g];
        let Some(at) = vm.here else { return };
        if vm.stack.n < n || !vm.ips().any(|own| own == ip) {
            return;
        }
        let checking = vm.stack.checking.get(&ip) == Some(&n);
        let mac = vm.mac;
        let again = |w: &mut Self, low: u64, high: u64| {
            let wait = Span::micros(w.rng.range(low, high));
            w.push(wait, Ev::Stack(g, Act::Check(ip, n, step + 1)));
        };
        match ip {
            IpAddr::V4(v4) if step < PROBES && checking => {
                if step == 0 {
                    self.stack(g).probed = Some(self.now);
                }
                self.spoke(g, at, By::Data, false);
                self.emit(at, frame::arp_request(mac, Ipv4Addr::UNSPECIFIED, v4));
                if step + 1 < PROBES {
                    again(self, PROBE_MIN, PROBE_MAX);
                } else {
                    again(self, ANNOUNCE_WAIT, ANNOUNCE_WAIT);
                }
            }
            IpAddr::V4(v4) if step < PROBES + ANNOUNCEMENTS => {
                self.now_uses(g, ip);
                self.announces(g, at, v4);
                again(self, ANNOUNCE_INTERVAL, ANNOUNCE_INTERVAL);
            }
            IpAddr::V6(v6) if step == 0 && checking => {
                self.spoke(g, at, By::Data, false);
                self.emit(at, frame::neighbor_solicitation(mac, Ipv6Addr::UNSPECIFIED, None, v6));
                again(self, RETRANS, RETRANS);
            }
            // It uses it, and says nothing of it.
            IpAddr::V6(_) if checking => self.now_uses(g, ip),
            IpAddr::V4(_) | IpAddr::V6(_) => {}
        }
    }

    fn now_uses(&mut self, g: usize, ip: IpAddr) {
        let now = self.now;
        let s = self.stack(g);
        if s.checking.remove(&ip).is_some() {
            s.changed = now;
        }
    }

    /// A gratuitous ARP for this address alone.
    fn announces(&mut self, g: usize, at: Place, ip: Ipv4Addr) {
        self.spoke(g, at, By::Rarp, true);
        let must = self.would_hear(at, ip.into(), By::Garp);
        self.says_ip(g, at, ip.into(), must);
        self.frr_address(at, ip.into(), must);
        self.emit(at, frame::gratuitous_arp(self.vms[g].mac, ip));
    }

    // ---- asking ------------------------------------------------------------------------------------------

    /// A guest has something to say to another one: it asks for its address unless it knows.
    pub(super) fn talk(&mut self, g: usize, other: usize) {
        if g == other || self.vms[g].here.is_none() {
            return;
        }
        let ips: Vec<IpAddr> = self.vms[other].ips().collect();
        let own = |w: &Self, ip: IpAddr| w.source(g, ip).is_some();
        let Some(ip) = ips.into_iter().find(|ip| own(self, *ip)) else { return };
        let Some(e) = self.vms[g].stack.cache.get(&ip).copied() else { return self.asks(g, ip) };
        self.sends(g, e.mac);
        if self.now.since(e.at) >= AGE && !self.vms[g].stack.asking.contains_key(&ip) {
            let (n, since) = (self.stack(g).number(), self.now);
            self.stack(g).asking.insert(ip, Asking { n, times: 0, since });
            self.question(g, ip, Some(e.mac));
            self.act_until(AGAIN);
            self.push(AGAIN, Ev::Stack(g, Act::Confirmed(ip, n)));
        }
    }

    /// Its own address of the same family that it may use.
    fn source(&self, g: usize, ip: IpAddr) -> Option<IpAddr> {
        let vm = &self.vms[g];
        vm.ips().find(|own| own.is_ipv4() == ip.is_ipv4() && vm.stack.uses(*own))
    }

    fn asks(&mut self, g: usize, ip: IpAddr) {
        if self.vms[g].stack.asking.contains_key(&ip) {
            return;
        }
        let (n, since) = (self.stack(g).number(), self.now);
        self.stack(g).asking.insert(ip, Asking { n, times: 1, since });
        self.question(g, ip, None);
        self.act_until(Span(AGAIN.0 * u64::from(TIMES)));
        self.push(AGAIN, Ev::Stack(g, Act::Again(ip, n)));
    }

    fn asks_again(&mut self, g: usize, ip: IpAddr, n: u32) {
        let Some(a) = self.vms[g].stack.asking.get(&ip).copied().filter(|a| a.n == n) else { return };
        if a.times >= TIMES || self.vms[g].here.is_none() {
            self.stack(g).asking.remove(&ip);
            self.unanswered(g, ip, a.since);
            return;
        }
        self.stack(g).asking.insert(ip, Asking { times: a.times + 1, ..a });
        self.question(g, ip, None);
        self.push(AGAIN, Ev::Stack(g, Act::Again(ip, n)));
    }

    /// Asks all, or one.
    fn question(&mut self, g: usize, ip: IpAddr, to: Option<Mac>) {
        let (Some(at), Some(own)) = (self.vms[g].here, self.source(g, ip)) else { return };
        let mac = self.vms[g].mac;
        let (f, by) = match (own, ip) {
            (IpAddr::V4(own), IpAddr::V4(ip)) => (
                to.map_or_else(|| frame::arp_request(mac, own, ip), |to| frame::arp_probe(mac, to, own, ip)),
                By::Ask,
            ),
            (IpAddr::V6(own), IpAddr::V6(ip)) => (frame::neighbor_solicitation(mac, own, to, ip), By::Data),
            _ => return,
        };
        self.spoke(g, at, by, false);
        self.emit(at, f);
    }

    fn sends(&mut self, g: usize, to: Mac) {
        if let Some(at) = self.vms[g].here {
            self.spoke(g, at, By::Data, false);
            self.emit(at, data_to(to, self.vms[g].mac));
        }
    }

    /// Three questions and no answer: that may be only if there is nobody.
    fn unanswered(&mut self, g: usize, ip: IpAddr, since: Time) {
        let settle = self.settle();
        let owner = |v: &&super::guest::Vm| v.ips().any(|own| own == ip) && v.stack.uses(ip);
        let Some(vm) = self.vms.iter().find(owner) else { return };
        let quiet = |v: &super::guest::Vm| {
            v.here.is_some_and(|p| !is_frr(p.node)) && v.twin.is_none() && v.since + settle <= since
        };
        let clear = |mac: &Mac| self.macs.get(mac).is_some_and(|m| !m.muddled && m.spoken.is_some());
        let asker = &self.vms[g];
        let sure = quiet(vm) && quiet(asker) && clear(&vm.mac) && clear(&asker.mac);
        let known = self.ips.get(&ip).is_none_or(|t| !t.muddled && t.mac == Some(vm.mac));
        if sure && known && vm.stack.deaf_until.max(vm.stack.changed) <= since && self.calm_around_now(since)
        {
            let text = format!("guest {g} asked three times for {ip} of {} from {} on", vm.mac, us(since));
            self.find("unreachable", text);
        }
    }

    // ---- hearing -----------------------------------------------------------------------------------------

    /// A frame for a guest, or for all. Whether it hears anything.
    pub(super) fn hears(&mut self, g: usize, at: Place, f: &Frame) -> bool {
        if self.vms[g].stack.is_deaf(self.now) {
            return false;
        }
        self.conflicts(g, at, f);
        let now = self.now;
        let vm = &mut self.vms[g];
        let (mac, v4, v6) = (vm.mac, vm.v4, vm.v6);
        let s = &mut vm.stack;
        let own =
            |ip: IpAddr| (v4.map(IpAddr::V4) == Some(ip) || v6.map(IpAddr::V6) == Some(ip)) && s.uses(ip);
        // Whom, whether that makes a new entry, whether it counts within the lock time.
        let (ip, whose, new, at_once): (IpAddr, Mac, bool, bool) = match &f.body {
            Body::Arp(a) if !a.sender_ip.is_unspecified() && a.sender_mac != mac => {
                let (ip, gratuitous) = (IpAddr::V4(a.sender_ip), a.is_gratuitous());
                let (asked, for_us) = (s.asking.contains_key(&ip), !a.reply && own(a.target_ip.into()));
                (ip, a.sender_mac, for_us && !gratuitous || a.reply && asked, gratuitous || for_us)
            }
            Body::NeighborAdvertisement(na) if f.src != mac => {
                let ip = IpAddr::V6(na.target);
                let asked = na.solicited && s.asking.contains_key(&ip);
                if !asked && !na.r#override {
                    return true;
                }
                (ip, na.tlla.unwrap_or(f.src), asked, true)
            }
            Body::NeighborSolicitation(ns) if !ns.is_dad() && own(ns.target.into()) => {
                let Some(slla) = ns.slla.filter(|m| *m != mac) else { return true };
                (ns.src.into(), slla, true, true)
            }
            Body::Arp(_)
            | Body::NeighborAdvertisement(_)
            | Body::NeighborSolicitation(_)
            | Body::Rarp(_)
            | Body::RouterSolicitation(_)
            | Body::RouterAdvertisement(_)
            | Body::Dhcp(_)
            | Body::Other(_) => return true,
        };
        let waited = s.asking.remove(&ip).is_some();
        let old = s.cache.get(&ip).copied();
        if old.is_none_or(|o| at_once || waited || now.since(o.at) >= LOCKTIME) && (new || old.is_some()) {
            s.cache.insert(ip, Entry { mac: whose, at: now });
        }
        if waited && old.is_none() {
            self.sends(g, whose);
        }
        true
    }

    /// Somebody else says that an address of this guest is theirs, or checks it too (RFC 5227 §2.1.1, §2.4).
    fn conflicts(&mut self, g: usize, at: Place, f: &Frame) {
        let vm = &self.vms[g];
        if vm.stack.habit != Habit::Checks {
            return;
        }
        let (ip, from): (IpAddr, Mac) = match (&f.body, vm.v4, vm.v6) {
            (Body::Arp(a), Some(v4), _) if a.sender_mac != vm.mac => {
                let asked = a.sender_ip.is_unspecified() && !a.reply && a.target_ip == v4;
                let disturbed = asked && !vm.stack.uses(v4.into());
                if a.sender_ip != v4 && !disturbed {
                    return;
                }
                (v4.into(), a.sender_mac)
            }
            (Body::NeighborAdvertisement(na), _, Some(v6)) if na.target == v6 && f.src != vm.mac => {
                (v6.into(), f.src)
            }
            (Body::NeighborSolicitation(ns), _, Some(v6))
                if ns.target == v6 && ns.is_dad() && f.src != vm.mac && !vm.stack.uses(v6.into()) =>
            {
                (v6.into(), f.src)
            }
            _ => return,
        };
        let (now, uses, defended) = (self.now, vm.stack.uses(ip), vm.stack.defended);
        // Who has it, or had it so short a while ago that its words may still be under way: its own too, from under an
        // earlier MAC, whose last probe a VTEP has carried on.
        let news = self.longest() + Span::micros(self.plan.fabric.lag) + Span::millis(5);
        // A guest that has not sent its first probe yet is known to nobody: what is told of the last change goes on.
        let begun = vm.stack.uses(ip) || vm.stack.probed.is_some_and(|t| t >= vm.stack.changed);
        let news = if begun { news } else { news + ROUNDS };
        let rival = |v: &super::guest::Vm| {
            v.mac != self.vms[g].mac && v.ips().any(|i| i == ip)
                || v.mac == from && now.since(v.stack.changed) < news
        };
        let own = self.macs.get(&from).is_some_and(|m| m.guest == g) && now.since(vm.stack.changed) < news;
        if own || self.vms.iter().any(rival) || self.check_is_news(g, ip, news) {
            return;
        }
        match ip {
            IpAddr::V4(v4) if uses && defended.is_none_or(|t| now.since(t) >= DEFEND_INTERVAL) => {
                self.stack(g).defended = Some(now);
                if self.trace.is_some() {
                    self.note(&format!("guest {g} defends {ip} against {from}"));
                }
                self.announces(g, at, v4);
            }
            IpAddr::V6(_) if uses => {}
            IpAddr::V4(_) | IpAddr::V6(_) => {
                let when = if uses { "uses" } else { "checks" };
                self.find(
                    "gave-up",
                    format!("guest {g} {when} {ip}, which nobody else has, and gives it up to {from}"),
                );
            }
        }
    }

    /// It was migrated in the middle of its check, and those where it is now cannot have heard of that yet: its first probe is
    /// still on its way, or was not carried: by FRR, whose bridge keeps probes to itself, or while something was broken.
    fn check_is_news(&self, g: usize, ip: IpAddr, news: Span) -> bool {
        let vm = &self.vms[g];
        if vm.stack.uses(ip) {
            return false;
        }
        let Some(begun) = vm.stack.probed else { return false };
        let of_frr =
            self.macs.get(&vm.mac).is_some_and(|m| m.left.iter().any(|(n, t)| is_frr(*n) && *t >= begun));
        let restarted =
            vm.here.is_some_and(|p| self.vteps.get(p.node).is_some_and(|v| v.started_since(begun)));
        vm.since > begun
            && (self.now.since(begun) < news || of_frr || restarted || !self.calm_around_now(begun))
    }

    /// FRR may never have told what was before (D.1), so that nobody can know that it has changed.
    fn was_at_frr(&self, mac: Mac) -> bool {
        let Some(m) = self.macs.get(&mac) else { return false };
        m.left.keys().any(|n| is_frr(*n)) || m.speaker.is_some_and(|(n, _)| is_frr(n))
    }

    /// The daemon there does not know what was before it began.
    fn has_restarted(&self, node: usize) -> bool {
        self.vteps.get(node).is_some_and(|v| v.epoch > 1)
    }

    // ---- the truth about caches ----------------------------------------------------------------------------

    /// An address has another MAC from now on: when should all know?
    pub(super) fn expect_told(&mut self, ip: IpAddr, grace: Span) {
        let lag = Span::micros(2 * self.plan.fabric.lag);
        self.push(grace + lag + TOLD, Ev::Stack(0, Act::Caches(ip)));
    }

    /// Hosts hold nothing that was before (PIT-17): some time after the change of one address, and of all at the end.
    pub(super) fn check_caches(&mut self, only: Option<IpAddr>) {
        let mut bad = Vec::new();
        let settle = self.settle();
        for (g, vm) in self.vms.iter().enumerate() {
            let Some(here) = vm.here.filter(|_| vm.twin.is_none()) else { continue };
            for (ip, e) in &vm.stack.cache {
                let Some(t) = self.ips.get(ip).filter(|_| only.is_none_or(|o| o == *ip)) else { continue };
                let (Some(mac), Some(said)) = (t.mac, t.said) else { continue };
                let Some(m) = self.macs.get(&mac) else { continue };
                let clear = t.must && !t.muddled && !m.muddled && m.twin.is_none();
                let Some(place) = m.place.filter(|_| clear && e.mac != mac && e.mac != vm.mac) else {
                    continue;
                };
                // A guest that has taken an address itself asks nobody for it, and uses no cached MAC for it.
                if mac == vm.mac {
                    continue;
                }
                // FRR tells nobody; nor does a daemon that does not know what was before it began.
                if is_frr(here.node) && is_frr(place.node)
                    || self.was_at_frr(e.mac)
                    || self.owner_is_deaf(*ip, mac)
                    || self.has_restarted(here.node)
                {
                    continue;
                }
                // Whoever came with its cache while it was told is told again until two seconds after.
                let calm = match only {
                    Some(_) => self.calm_around_now(said) && vm.since + settle <= said,
                    None => self.calm_around(said),
                };
                if calm {
                    bad.push(format!(
                        "guest {g} holds {} for {ip}, which {mac} announced at {}",
                        e.mac,
                        us(said)
                    ));
                }
            }
        }
        for text in bad {
            self.find("stale-cache", text);
        }
    }
}
