//! The clock and the queue: everything that happens in a run happens here, in one order.

use super::frr::{self, FrrEv};
use super::guest::{Place, Vm};
use super::mutants::Mutant;
use super::net::{Item, Tcp};
use super::plan::{By, Plan};
use super::reflector::Reflector;
use super::rng::Rng;
use super::stack::Act;
use super::truth::{Finding, IpTruth, MacTruth, Tally, us};
use super::vtep::{Vtep, ports};
use bytes::Bytes;
use evpn::fabric::KernelEvent;
use evpn::types::{IfIndex, Mac, Span, Time};
use netlink::Batch;
use netlink::reconcile::Scope;
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::fmt::Write as _;
use std::net::IpAddr;

/// Sessions must be up again after this long without a fault; the longest idle hold is a minute.
const PATIENCE: Span = Span::secs(150);
/// A duplicate is over when one of its owners has been silent for so long, with some reserve.
const DUPLICATE: Span = Span::secs(8);
/// Watched after the last check: longer than guests are left in peace that may be checking their address, because what they
/// answer when they are asked then is news (PIT-16).
const REST: Span = Span::secs(14);
/// Most events of a run, in case it never comes to rest.
const EVENTS: u64 = 5_000_000;
/// From the overlay to the tap on the VXLAN device.
const HEARD: Span = Span::micros(20);

/// Something that happens.
pub(super) enum Ev {
    /// A step of the plan.
    Step(usize),
    /// A node's timer.
    Wake(usize),
    /// A node's look at what nobody reports.
    House(usize, u32),
    /// Notifications wait.
    Kernel(usize),
    /// A tap saw a frame.
    Tap(usize, u32, IfIndex, Bytes),
    /// A dump has been read.
    Dumped(usize, u32, (u64, Scope), Vec<KernelEvent>),
    /// A batch gets its turn.
    Applied(usize, u32, Box<Batch>),
    /// Something arrives at one end of a connection.
    Tcp(usize, usize, Item),
    /// A frame arrives in VXLAN.
    Frame(usize, usize, Vec<u8>),
    /// A guest announces itself.
    Say(usize, Place, By),
    /// A guest's answer.
    Answer(usize, Place, Bytes),
    /// What a guest does by itself.
    Stack(usize, Act),
    /// A late frame of a MAC.
    Late(Place, Mac),
    /// A port loses carrier, unless a guest has come.
    Unplug(Place),
    /// A guest begins to run.
    Begin(usize, Place, By),
    /// A hypervisor says again that a guest has come back.
    Welcome(usize, Place),
    /// What follows a preparation.
    Hand(usize),
    /// A reflector's pause is over.
    Reflect(usize, u32),
    /// A reflector's look at its sessions.
    Tick(usize, u32),
    /// Something that waits at an FRR-like VTEP.
    Frr(usize, u32, FrrEv),
    /// One of two copies stops.
    Single(usize, bool),
    /// A fault ends.
    Heal(Fault),
    /// An address is asked for everywhere.
    Probe(IpAddr),
}

/// A fault that ends by itself.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Fault {
    Cut(usize, usize),
    Down(usize),
    Queue(usize),
    Broken(usize, IfIndex),
    Slow(usize),
    Short(usize),
    /// The next writes fail.
    Writes(usize),
    /// Repairs are under way.
    Repair,
}

struct Entry {
    at: Time,
    n: u64,
    ev: Ev,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.n == other.n
    }
}
impl Eq for Entry {}
impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Entry {
    /// The earliest is the greatest.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.n).cmp(&(self.at, self.n))
    }
}

/// What came of a run.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// What is wrong; empty if all is well.
    pub findings: Vec<Finding>,
    /// Events on the queue.
    pub events: u64,
    /// UPDATEs on the wire.
    pub updates: u64,
    /// Moves of guests.
    pub moves: u64,
    /// What happened, if asked for.
    pub trace: String,
}

/// See the module.
pub(super) struct World {
    pub(super) plan: Plan,
    pub(super) mutant: Option<Mutant>,
    pub(super) now: Time,
    pub(super) rng: Rng,
    queue: BinaryHeap<Entry>,
    n: u64,
    pub(super) vteps: Vec<Vtep>,
    pub(super) reflectors: Vec<Reflector>,
    pub(super) frrs: Vec<frr::Peer>,
    pub(super) vms: Vec<Vm>,
    pub(super) tcps: Vec<Tcp>,
    /// One-way delays in microseconds, from × to.
    pub(super) delays: Vec<u64>,
    pub(super) cuts: BTreeSet<(usize, usize)>,
    faults: BTreeMap<Fault, u32>,
    /// Established, as each side sees it.
    up: BTreeSet<(usize, IpAddr)>,
    /// How often each was established.
    pub(super) ups: BTreeMap<(usize, usize), u32>,
    pub(super) calm_since: Option<Time>,
    pub(super) calm: Vec<(Time, Time)>,
    pub(super) macs: BTreeMap<Mac, MacTruth>,
    pub(super) ips: BTreeMap<IpAddr, IpTruth>,
    pub(super) foreign: BTreeSet<(usize, Mac)>,
    pub(super) tally: Tally,
    /// When a hypervisor said that a guest leaves a node.
    pub(super) released: BTreeMap<(usize, Mac), Time>,
    /// Faults that make nodes say again what they have said.
    pub(super) upsets: u32,
    /// What restarts may add to a sequence.
    pub(super) leaps: u32,
    /// Addresses went from guest to guest.
    pub(super) shared: bool,
    /// Nodes whose kernel was slow or broken at some time.
    pub(super) slowed: BTreeSet<usize>,
    pub(super) updates: u64,
    pub(super) last_update: Time,
    /// When something was last done to a guest or a kernel.
    pub(super) last_act: Time,
    pub(super) findings: Vec<Finding>,
    pub(super) trace: Option<String>,
    pub(super) heard: Vec<KernelEvent>,
    pub(super) mutated: Vec<Bytes>,
    /// For a planted fault: when a node has last asked a host.
    pub(super) asked: BTreeMap<(usize, Mac), Time>,
}

/// Runs a plan and gives what `measure` says while the daemons live less what it says without them: what they hold.
pub fn held_by_daemons(plan: &Plan, measure: impl Fn() -> i64) -> (Outcome, i64) {
    let mut w = World::new(plan, None, false);
    let events = w.run();
    let before = measure();
    w.vteps.iter_mut().for_each(|v| v.daemon = None);
    let held = before - measure();
    let moves = w.macs.values().map(|m| u64::from(m.moves)).sum();
    (Outcome { findings: w.findings, events, updates: w.updates, moves, trace: String::new() }, held)
}

/// Runs a plan to its end.
pub fn run(plan: &Plan, mutant: Option<Mutant>, trace: bool) -> Outcome {
    let mut w = World::new(plan, mutant, trace);
    let events = w.run();
    let moves = w.macs.values().map(|m| u64::from(m.moves)).sum();
    Outcome { findings: w.findings, events, updates: w.updates, moves, trace: w.trace.unwrap_or_default() }
}

impl World {
    pub(super) fn new(plan: &Plan, mutant: Option<Mutant>, trace: bool) -> Self {
        let f = plan.fabric;
        let mut rng = Rng::new(f.seed);
        let hosts = f.nodes + f.reflectors;
        let delays = (0..hosts * hosts).map(|_| rng.range(f.delay.0, f.delay.1)).collect();
        let slots = ports(&plan.guests);
        let mut w = Self {
            plan: plan.clone(),
            mutant,
            now: Time(0),
            rng,
            queue: BinaryHeap::new(),
            n: 0,
            vteps: (0..f.nodes).map(|i| Vtep::new(i, slots)).collect(),
            reflectors: (0..f.reflectors).map(|_| Reflector::default()).collect(),
            frrs: frr::hosts(&f).zip(f.frr).filter_map(|(i, k)| Some(frr::Peer::new(i, k?, slots))).collect(),
            vms: plan.guests.iter().enumerate().map(|(i, g)| Vm::new(i, *g)).collect(),
            tcps: Vec::new(),
            delays,
            cuts: BTreeSet::new(),
            faults: BTreeMap::new(),
            up: BTreeSet::new(),
            ups: BTreeMap::new(),
            calm_since: None,
            calm: Vec::new(),
            macs: BTreeMap::new(),
            ips: BTreeMap::new(),
            foreign: BTreeSet::new(),
            tally: Tally::default(),
            released: BTreeMap::new(),
            upsets: 0,
            leaps: 0,
            shared: false,
            slowed: BTreeSet::new(),
            updates: 0,
            last_update: Time(0),
            last_act: Time(0),
            findings: Vec::new(),
            trace: trace.then(String::new),
            heard: Vec::new(),
            mutated: Vec::new(),
            asked: BTreeMap::new(),
        };
        for (i, vm) in w.vms.iter().enumerate() {
            w.macs.insert(vm.mac, MacTruth { guest: i, ..MacTruth::default() });
        }
        w
    }

    pub(super) fn push(&mut self, after: Span, ev: Ev) {
        self.push_at(self.now + after, ev);
    }

    pub(super) fn push_at(&mut self, at: Time, ev: Ev) {
        self.n += 1;
        self.queue.push(Entry { at, n: self.n, ev });
    }

    pub(super) fn note(&mut self, text: &str) {
        let now = us(self.now);
        if let Some(t) = &mut self.trace {
            let _ = writeln!(t, "{:>5}.{:06} {text}", now / 1_000_000, now % 1_000_000);
        }
    }

    /// Longest time that news may take from one node to another; a reflector on the way pauses for 50 ms, and may
    /// have begun to just before.
    pub(super) fn longest(&self) -> Span {
        let one = self.plan.fabric.delay.1 * 5 / 4 + 1;
        let way = Span::micros(if self.plan.fabric.reflectors > 0 { 2 * one + 50_000 } else { one });
        way + self.frr_hops()
    }

    /// Until tap or monitor tells.
    pub(super) fn lag(&mut self) -> Span {
        let most = self.plan.fabric.lag;
        // Mostly at once, as on an idle machine.
        if most == 0 || self.rng.percent(50) { Span::ZERO } else { Span::micros(self.rng.below(most)) }
    }

    // ---- quiet and unquiet -------------------------------------------------------------------------------

    pub(super) fn begin(&mut self, fault: Fault, time: Span) {
        *self.faults.entry(fault).or_default() += 1;
        self.push(time, Ev::Heal(fault));
        self.look();
    }

    /// Ends a fault, unless the same has begun again. Whether it is over.
    fn over(&mut self, fault: Fault) -> bool {
        let Some(n) = self.faults.get_mut(&fault) else { return false };
        *n -= 1;
        if *n > 0 {
            return false;
        }
        self.faults.remove(&fault);
        true
    }

    pub(super) fn session(&mut self, i: usize, peer: IpAddr, up: bool) {
        if up {
            self.up.insert((i, peer));
            let to = self.all_hosts().find(|j| super::vtep::address(*j) == peer).unwrap_or(0);
            *self.ups.entry((i, to)).or_default() += 1;
        } else {
            self.up.remove(&(i, peer));
        }
        self.look();
    }

    pub(super) fn sessions_gone(&mut self, i: usize) {
        self.up.retain(|(n, _)| *n != i);
        self.look();
    }

    /// Sessions that there have to be, counted at the nodes' ends.
    fn needed(&self) -> usize {
        let f = &self.plan.fabric;
        if f.reflectors > 0 { f.nodes * f.reflectors } else { f.nodes * (f.nodes - 1 + self.frrs.len()) }
    }

    /// Notes when quiet begins and ends.
    pub(super) fn look(&mut self) {
        let calm = self.faults.is_empty() && self.up.len() == self.needed() && self.frrs_are_up();
        match (calm, self.calm_since) {
            (true, None) => self.calm_since = Some(self.now),
            (false, Some(since)) => {
                self.calm.push((since, self.now));
                self.calm_since = None;
            }
            (true, Some(_)) | (false, None) => {}
        }
    }

    // ---- the run -----------------------------------------------------------------------------------------

    fn run(&mut self) -> u64 {
        for i in self.plan.fabric.nodes..self.hosts() {
            self.rr_boot(i);
        }
        for i in 0..self.plan.fabric.nodes {
            self.boot(i);
        }
        for i in frr::hosts(&self.plan.fabric) {
            self.frr_boot(i);
        }
        for i in 0..self.plan.steps.len() {
            let at = Time(self.plan.steps[i].at * 1000);
            self.push_at(at, Ev::Step(i));
        }
        let last = self.plan.steps.last().map_or(0, |s| s.at);
        let mut events = self.until(Time(last * 1000) + Span::millis(1));
        // What ends by itself has to end, and sessions have to come back.
        let limit = self.now + PATIENCE;
        while (self.calm_since.is_none() || self.acting()) && self.now < limit && events < EVENTS {
            events += self.until(self.now + Span::millis(200));
        }
        if self.calm_since.is_none() {
            let (up, needed, faults) = (self.up.len(), self.needed(), &self.faults);
            let text = format!("{up} of {needed} sessions are up {PATIENCE} after the last step; {faults:?}");
            self.find("session", text);
            return events;
        }
        let quiet = self.calm_since.unwrap_or_default().max(self.last_act) + self.settle();
        events += self.until(quiet.max(self.now));
        self.check_kernels(false);
        if self.macs.values().any(|m| m.twinned) {
            // Where a duplicate was seen, claims are slow for a while.
            events += self.until(self.now + DUPLICATE);
        }
        self.last_words();
        events += self.until(self.now + self.settle());
        if !self.frrs.is_empty() {
            // An address is heard at FRR only after all others have given it up (D.1).
            self.last_words();
            events += self.until(self.now + self.settle());
        }
        self.check_kernels(true);
        events += self.until(self.now + REST);
        self.check_kernels(true);
        self.check_caches(None);
        if self.now.since(self.last_update) < Span::secs(2) {
            let at = us(self.last_update);
            self.find("restless", format!("UPDATEs are still sent at {at}, with nothing left to tell"));
        }
        self.check_wire();
        if events >= EVENTS {
            self.find("restless", format!("{EVENTS} events and no end"));
        }
        events
    }

    /// Guests still do something that the plan has asked for.
    fn acting(&self) -> bool {
        self.now < self.last_act
    }

    fn until(&mut self, end: Time) -> u64 {
        let mut events = 0;
        while let Some(e) = self.queue.peek() {
            if e.at > end || events > EVENTS {
                break;
            }
            let Some(e) = self.queue.pop() else { break };
            self.now = e.at;
            events += 1;
            self.happen(e.ev);
        }
        self.now = end;
        events
    }

    fn happen(&mut self, ev: Ev) {
        match ev {
            Ev::Step(n) => self.step(n),
            Ev::Wake(i) => self.wake(i),
            Ev::House(i, epoch) => self.house(i, epoch),
            Ev::Kernel(i) => self.monitor(i),
            Ev::Tap(i, epoch, port, f) => self.tapped(i, epoch, port, f),
            Ev::Dumped(i, epoch, read, rows) => self.dumped(i, epoch, read, rows),
            Ev::Applied(i, epoch, batch) => self.applied(i, epoch, *batch),
            Ev::Tcp(tcp, side, item) => self.arrive(tcp, side, item),
            Ev::Frame(i, from, f) => self.decapsulated(i, from, &f),
            Ev::Say(g, at, by) => self.say(g, at, by),
            Ev::Answer(g, at, f) => self.answer(g, at, f),
            Ev::Stack(g, act) => self.acts(g, act),
            Ev::Late(at, mac) => self.late(at, mac),
            Ev::Unplug(at) => {
                if !self.vms.iter().any(|v| v.here == Some(at) || v.twin == Some(at)) {
                    self.unplug(at);
                }
            }
            Ev::Begin(g, at, by) => {
                if self.vms[g].here.is_none() {
                    self.boots(g, at, by);
                }
            }
            Ev::Welcome(g, at) => self.welcome(g, at),
            Ev::Hand(n) => self.hand(n),
            Ev::Reflect(host, epoch) => self.reflect(host, epoch),
            Ev::Tick(host, epoch) => self.rr_tick(host, epoch),
            Ev::Frr(host, epoch, ev) => self.frr_happens(host, epoch, ev),
            Ev::Single(g, first) => self.single(g, first),
            Ev::Heal(fault) => {
                if self.over(fault) {
                    self.healed(fault);
                    self.look();
                }
            }
            Ev::Probe(ip) => self.probe(ip),
        }
    }

    fn decapsulated(&mut self, i: usize, from: usize, f: &[u8]) {
        let Some(v) = self.machine_mut(i) else { return };
        let out = v.kernel.inject_vxlan(v.vxlan, super::vtep::address(from), f);
        let (vxlan, epoch) = (v.vxlan, v.epoch);
        if !frr::is_frr(i) {
            self.push(HEARD, Ev::Tap(i, epoch, vxlan, Bytes::copy_from_slice(f)));
        }
        // Never back into the overlay (split horizon); the fake keeps to that.
        self.spread(i, out);
    }

    /// Those that moved while not all could know tell it again.
    fn last_words(&mut self) {
        for g in 0..self.vms.len() {
            let vm = &self.vms[g];
            let (Some(at), None) = (vm.here, vm.twin) else { continue };
            let Some(m) = self.macs.get(&vm.mac) else { continue };
            let unclear = |ip: IpAddr| {
                let t = self.ips.get(&ip);
                t.is_some_and(|t| t.muddled || t.said.is_some_and(|s| !self.calm_around(s)))
                    || self.is_untold(at, ip)
            };
            if m.muddled
                || self.is_aged(vm.mac)
                || m.spoken.is_none_or(|t| !self.calm_around(t))
                || vm.ips().any(unclear)
            {
                self.say(g, at, By::Garp);
            }
        }
    }
}
