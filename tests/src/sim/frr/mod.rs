//! VTEPs that behave as FRR does: bridge and VXLAN device of their own, bgpd with its pauses, zebra with its rules.
//!
//! They are hosts [`FIRST`] and up. Every other one has an address below those of all nodes, so that ties go either
//! way. What they do wrong is what FRR 8.4 to 10.7 is known to do wrong. Where the truth has to give way to that, the
//! comment names it:
//!
//! - B.3: a remote neighbour in the kernel (`NUD_NOARP`) is changed by no ARP, and nobody is told of one.
//! - B.7: FRR asks nobody; a guest that is silent for the ageing time is withdrawn.
//! - C.8: a remote MAC that is seen on a port is claimed with the next sequence, late frame or not.
//! - D.1: an address does not come along with its MAC. It is told once everybody else has withdrawn it and the guest
//!   has announced it again; without `arp_accept` only once the guest asks for the bridge.
//! - D.2-2: a neighbour of its own outlives the MAC's stay and is told again when the MAC comes back.
//! - D.2-5: the first UPDATE of a session is late.
//! - D.3-1: 8.4 refuses sequences lower than it remembers (#10468).
//! - D.3-12: a restart may forget addresses.
//!
//! | | |
//! |---|---|
//! | bgpd's work queue | 50 ms from the first input to the run |
//! | zebra's work queue | 11 ms from bgpd's decision to the row |
//! | first UPDATE | 1.05 s after the session is up |
//! | late frames | are a claim like any other: nothing like EVPN-MOB-11 |
//! | addresses | come from the kernel's neighbours, which no ARP changes while there is a remote one (B.3, D.1) |

mod check;
mod kernel;
mod sessions;
mod tables;
#[cfg(test)]
mod tables_tests;
mod truth;
mod wire;

use super::mutants::Mutant;
use super::plan::{self, By};
use super::rng::Rng;
use super::sniff;
use super::vtep::{Vtep, address, vni};
use super::world::{Ev, Fault, World};
use bytes::Bytes;
use evpn::fabric::{FdbRow, LinkKind, NeighRow, NeighState};
use evpn::types::{Mac, Span, Time};
use netlink::op::{Kernel as _, Op};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use tables::{Learned, Tables, Work, Write};
pub(super) use truth::{hosts, join};
use wire::Voice;

/// Number of the first.
pub(super) const FIRST: usize = 64;
/// bgpd's work queue holds this long.
const PAUSE: Span = Span::millis(50);
/// zebra's work queue and its dataplane.
const ZEBRA: Span = Span::millis(11);
/// A frame here takes this much longer to become a row elsewhere, as does an UPDATE that comes in.
pub(super) const HOP: Span = Span(PAUSE.0 + ZEBRA.0);
/// From the session to the first UPDATE (C.10: 1 s and 50 ms for a peer).
const COALESCE: Span = Span::millis(1050);
/// A connection attempt is given up.
const RETRY: Span = Span::secs(2);
/// Address of the bridge, which guests ask for.
const BRIDGE: Ipv4Addr = Ipv4Addr::new(192, 168, 255, 254);

/// Whether a host is one of these.
pub(super) fn is_frr(host: usize) -> bool {
    host >= FIRST
}

/// What waits at one of these.
#[derive(Clone, Copy, Debug)]
pub(super) enum FrrEv {
    /// bgpd's work queue.
    Run,
    /// zebra's work queue.
    Zebra,
    /// Rows of the flood list.
    Flood,
    /// The first UPDATE on this connection is due.
    Open(usize, (usize, usize)),
    /// Once a second.
    Tick,
    /// zebra learns of a neighbour.
    Neigh(IpAddr, Mac),
}

/// One session.
struct Session {
    at: (usize, usize),
    buffer: Vec<u8>,
    established: bool,
    /// The first UPDATE has been sent.
    open: bool,
    heard: Time,
}

/// See the module.
pub(super) struct Peer {
    machine: Vtep,
    kind: plan::Frr,
    tables: Tables,
    alive: bool,
    epoch: u32,
    sessions: BTreeMap<usize, Session>,
    /// IMETs: RD and session.
    imets: BTreeMap<([u8; 8], usize), IpAddr>,
    flooded: BTreeSet<IpAddr>,
    /// For zebra.
    learned: Vec<Learned>,
    due: bool,
    /// What it says next is because of ageing: nobody has done anything.
    aged: bool,
    /// Highest sequence that it has told, over all its lives.
    highest: BTreeMap<Mac, u32>,
}

impl Peer {
    pub(super) fn new(host: usize, kind: plan::Frr, slots: usize) -> Self {
        let mut machine = Vtep::new(host, slots);
        if kind.ages > 0 {
            machine.kernel.change(machine.bridge, |l| {
                if let LinkKind::Bridge(set) = &mut l.kind {
                    set.ageing_secs = kind.ages;
                }
            });
        }
        Self {
            machine,
            kind,
            tables: Tables::new(address(host), kind.remembers),
            alive: false,
            epoch: 0,
            sessions: BTreeMap::new(),
            imets: BTreeMap::new(),
            flooded: BTreeSet::new(),
            learned: Vec::new(),
            due: false,
            aged: false,
            highest: BTreeMap::new(),
        }
    }

    /// The kernel's neighbour.
    fn neigh(&self, ip: IpAddr) -> Option<&NeighRow> {
        self.machine.kernel.neighbours().find(|n| n.ip == ip)
    }

    /// Puts what zebra wants into the kernel.
    fn write(&mut self, what: &[Write]) {
        let (dev, vxlan) = (self.machine.bridge, self.machine.vxlan);
        for w in what {
            let op = match *w {
                Write::Remote(mac, vtep) => Op::SetRemote { vxlan, mac, vtep },
                Write::NoRemote(mac, vtep) => Op::DelRemote { vxlan, mac, vtep },
                Write::Neigh(ip, mac) => Op::SetNeigh { dev, ip, mac, router: false },
                Write::NoNeigh(ip) => Op::DelNeigh { dev, ip },
            };
            self.machine.kernel.apply(&[op], &mut Vec::new());
        }
    }

    /// What zebra does when it starts: rows of its former life go, the kernel's own are learned, sequences begin anew.
    fn start(&mut self) {
        self.tables = Tables::new(self.tables.vtep(), self.kind.remembers);
        self.machine.kernel.recv(usize::MAX, &mut Vec::new());
        let (dev, vxlan) = (self.machine.bridge, self.machine.vxlan);
        let neighs: Vec<NeighRow> = self.machine.kernel.neighbours().copied().collect();
        let mut ops = Vec::new();
        for row in self.machine.kernel.snapshot() {
            match row {
                FdbRow::Bridge(r) if r.permanent || r.port == vxlan => {}
                FdbRow::Bridge(r) => self.tables.seen(r.mac, r.port),
                FdbRow::Vxlan(r) => ops.extend(r.vtep.map(|vtep| {
                    if r.mac.is_zero() {
                        Op::DelFlood { vxlan, vtep }
                    } else {
                        Op::DelRemote { vxlan, mac: r.mac, vtep }
                    }
                })),
            }
        }
        for n in neighs {
            match (n.state, n.mac) {
                (NeighState::NoArp, _) => ops.push(Op::DelNeigh { dev, ip: n.ip }),
                (_, Some(mac)) => self.tables.heard(n.ip, mac),
                (_, None) => {}
            }
        }
        self.machine.kernel.apply(&ops, &mut Vec::new());
        self.machine.kernel.recv(usize::MAX, &mut Vec::new());
    }
}

impl World {
    fn frr(&mut self, host: usize) -> &mut Peer {
        &mut self.frrs[host - FIRST]
    }

    fn voice(host: usize) -> Voice {
        let vtep = match address(host) {
            IpAddr::V4(a) => a,
            IpAddr::V6(_) => Ipv4Addr::UNSPECIFIED,
        };
        Voice { vtep, vni: vni().get() }
    }

    // ---- what the rest of the simulation asks --------------------------------------------------------------

    /// Whoever speaks BGP.
    pub(super) fn all_hosts(&self) -> impl Iterator<Item = usize> + use<> {
        (0..self.hosts()).chain(FIRST..FIRST + self.frrs.len())
    }

    /// Bridge, VXLAN device and ports of a VTEP of either sort.
    pub(super) fn machine(&self, host: usize) -> Option<&Vtep> {
        match host.checked_sub(FIRST) {
            Some(n) => self.frrs.get(n).map(|f| &f.machine),
            None => self.vteps.get(host),
        }
    }

    pub(super) fn machine_mut(&mut self, host: usize) -> Option<&mut Vtep> {
        match host.checked_sub(FIRST) {
            Some(n) => self.frrs.get_mut(n).map(|f| &mut f.machine),
            None => self.vteps.get_mut(host),
        }
    }

    /// A daemon runs there, and has had the time to look.
    pub(super) fn listens(&self, host: usize) -> bool {
        match host.checked_sub(FIRST) {
            Some(n) => self.frrs.get(n).is_some_and(|f| f.alive),
            None => self.vteps.get(host).is_some_and(|v| v.listens(self.now)),
        }
    }

    pub(super) fn frr_alive(&self, host: usize) -> bool {
        is_frr(host) && self.listens(host)
    }

    /// What these add to the way of news: one is left or reached, or one is left and another reached.
    pub(super) fn frr_hops(&self) -> Span {
        Span(HOP.0 * self.frrs.len().min(2) as u64)
    }

    /// All their sessions are up.
    pub(super) fn frrs_are_up(&self) -> bool {
        let reflectors = self.plan.fabric.reflectors;
        let each = if reflectors > 0 { reflectors } else { self.vteps.len() + self.frrs.len() - 1 };
        self.frrs.iter().all(|f| f.sessions.values().filter(|s| s.established).count() == each)
    }

    /// One-way delay of a path to or from one of these.
    pub(super) fn frr_delay(&self, from: usize, to: usize) -> Option<u64> {
        let (low, high) = self.plan.fabric.delay;
        let seed = self.plan.fabric.seed ^ (from as u64) << 40 ^ (to as u64) << 20;
        (is_frr(from) || is_frr(to)).then(|| Rng::new(seed).range(low, high))
    }

    /// Whether a VTEP learns this address from what a guest there says now. FRR does not while its kernel holds a
    /// remote neighbour for it (B.3), nor from a gratuitous ARP alone unless `arp_accept` is set (D.1).
    pub(super) fn hears_address(&self, host: usize, ip: IpAddr, by: By) -> bool {
        let Some(f) = host.checked_sub(FIRST).and_then(|n| self.frrs.get(n)) else { return true };
        match f.neigh(ip) {
            Some(n) => n.state != NeighState::NoArp,
            None => f.kind.accepts && by == By::Garp,
        }
    }

    /// An address of a guest behind one of these that it does not know and has no way to learn: its kernel answers
    /// for another VTEP's guest (B.3), or takes no gratuitous ARP (D.1). What the others have of it is then whatever
    /// was told last.
    pub(super) fn is_deaf_to(&self, host: usize, ip: IpAddr, mac: Mac) -> bool {
        let Some(f) = host.checked_sub(FIRST).and_then(|n| self.frrs.get(n)) else { return false };
        match f.neigh(ip) {
            Some(n) => n.state == NeighState::NoArp && n.mac != Some(mac),
            None => !f.kind.accepts,
        }
    }

    // ---- life ----------------------------------------------------------------------------------------------

    pub(super) fn frr_boot(&mut self, host: usize) {
        let f = self.frr(host);
        f.alive = true;
        f.epoch += 1;
        f.start();
        self.frr_later(host, Span::secs(1), FrrEv::Tick);
        self.frr_dial(host);
        self.frr_turn(host);
    }

    /// bgpd and zebra die; sockets are closed, rows stay.
    pub(super) fn frr_kill(&mut self, host: usize, time: Span) {
        let f = self.frr(host);
        if std::mem::take(&mut f.alive) {
            let sessions = std::mem::take(&mut f.sessions);
            f.imets.clear();
            f.flooded.clear();
            f.learned.clear();
            f.due = false;
            for s in sessions.into_values() {
                self.close(s.at.0, s.at.1);
            }
        }
        self.begin(Fault::Down(host), time);
    }

    fn frr_later(&mut self, host: usize, after: Span, ev: FrrEv) {
        let epoch = self.frr(host).epoch;
        self.push(after, Ev::Frr(host, epoch, ev));
    }

    /// Work for bgpd gets its pause.
    fn frr_turn(&mut self, host: usize) {
        let f = self.frr(host);
        if f.alive && f.tables.is_due() && !std::mem::replace(&mut f.due, true) {
            self.frr_later(host, PAUSE, FrrEv::Run);
        }
    }

    pub(super) fn frr_happens(&mut self, host: usize, epoch: u32, ev: FrrEv) {
        let f = self.frr(host);
        if f.epoch != epoch || !f.alive {
            return;
        }
        match ev {
            FrrEv::Run => {
                f.due = false;
                let work = f.tables.run();
                self.frr_says(host, work);
            }
            FrrEv::Zebra => {
                let mut out = Vec::new();
                for l in std::mem::take(&mut f.learned) {
                    f.tables.install(l, &mut out);
                }
                f.write(&out);
                if self.trace.is_some() && !out.is_empty() {
                    self.note(&format!("frr {host}: {out:?}"));
                }
                self.frr_kernel(host);
            }
            FrrEv::Flood => {
                let want: BTreeSet<IpAddr> = f.imets.values().copied().collect();
                let vxlan = f.machine.vxlan;
                let new = want.difference(&f.flooded).map(|v| Op::AddFlood { vxlan, vtep: *v });
                let old = f.flooded.difference(&want).map(|v| Op::DelFlood { vxlan, vtep: *v });
                let ops: Vec<Op> = new.chain(old).collect();
                f.machine.kernel.apply(&ops, &mut Vec::new());
                f.flooded = want;
            }
            FrrEv::Open(to, at) => self.frr_opens(host, to, at),
            FrrEv::Tick => self.frr_tick(host),
            FrrEv::Neigh(ip, mac) => {
                if f.neigh(ip).is_some_and(|n| n.state != NeighState::NoArp && n.mac == Some(mac)) {
                    f.tables.heard(ip, mac);
                }
            }
        }
        self.frr_turn(host);
    }

    /// What a run of bgpd has come to.
    fn frr_says(&mut self, host: usize, work: Work) {
        if self.trace.is_some() {
            self.note(&format!("frr {host}: {work:?}"));
        }
        let voice = Self::voice(host);
        let mut out: Vec<Vec<u8>> = Vec::new();
        if !work.withdraw.is_empty() {
            out.push(voice.unreach(&work.withdraw));
        }
        out.extend(work.announce.iter().map(|(own, seq)| voice.reach(*own, *seq)));
        let f = self.frr(host);
        if !work.learned.is_empty() {
            f.learned.extend(work.learned);
            self.frr_later(host, ZEBRA, FrrEv::Zebra);
        }
        let before = self.last_update;
        let open = self.frr(host).sessions.iter().filter(|(_, s)| s.open).map(|(to, s)| (*to, s.at));
        for (to, at) in open.collect::<Vec<_>>() {
            for m in &out {
                if !self.is_refused(host, to, m) {
                    self.frr_sends(at, m);
                }
            }
        }
        if std::mem::take(&mut self.frr(host).aged) {
            self.last_update = before;
        }
    }

    /// A planted fault: the node takes no lower sequence than it has seen.
    fn is_refused(&mut self, host: usize, to: usize, m: &[u8]) -> bool {
        let mut lower = false;
        let (tally, own) = (&self.tally.highest, &mut self.frrs[host - FIRST].highest);
        sniff::routes(m, |r| {
            let Some(seq) = r.seq else { return };
            let own = own.entry(r.mac).or_default();
            lower |= seq < tally.get(&r.mac).copied().unwrap_or(0).max(*own);
            *own = seq.max(*own);
        });
        lower && self.mutant == Some(Mutant::LowerRefused) && !is_frr(to)
    }

    fn frr_sends(&mut self, at: (usize, usize), message: &[u8]) {
        if sniff::is_update(message) {
            self.updates += 1;
            self.last_update = self.now;
        }
        self.transmit(at.0, at.1, Bytes::copy_from_slice(message));
    }

    /// The first UPDATE of a session, with all there is to tell.
    fn frr_opens(&mut self, host: usize, to: usize, at: (usize, usize)) {
        if self.mutant == Some(Mutant::Impatient) && !is_frr(to) {
            return self.reset(host, to);
        }
        let voice = Self::voice(host);
        let f = self.frr(host);
        let Some(s) = f.sessions.get_mut(&to).filter(|s| s.at == at && s.established) else { return };
        s.open = true;
        let all = f.tables.all();
        self.frr_sends(at, &voice.imet());
        for (own, seq) in all {
            let m = voice.reach(own, seq);
            if !self.is_refused(host, to, &m) {
                self.frr_sends(at, &m);
            }
        }
        self.frr_sends(at, &wire::end_of_rib());
    }

    /// Once a second: KEEPALIVEs, sessions that are silent, connections to be tried again, ageing.
    fn frr_tick(&mut self, host: usize) {
        let (now, hold) = (self.now, Span::secs(self.plan.fabric.hold));
        let f = self.frr(host);
        f.machine.kernel.advance(now);
        f.aged = f.machine.kernel.readable();
        let limit = |s: &Session| if s.established { hold } else { RETRY };
        let lost = f.sessions.iter().filter(|(_, s)| now.since(s.heard) > limit(s)).map(|(n, _)| *n);
        let lost: Vec<usize> = lost.collect();
        let up: Vec<(usize, usize)> = f.sessions.values().filter(|s| s.established).map(|s| s.at).collect();
        for at in up {
            self.frr_sends(at, &wire::keepalive());
        }
        for to in lost {
            self.frr_lost(host, to, true);
        }
        self.frr_dial(host);
        self.frr_kernel(host);
        self.frr_later(host, Span::secs(1), FrrEv::Tick);
    }
}
