//! `cargo xtask bench truth`: hosts move, change their MAC, fall silent and come back, daemons are started again, and every
//! answer to ARP and ND that any host hears is compared with who truly has the address.
//!
//! Most hosts are nothing but their frames: one thread answers for them at the far ends of shared ports. Some are Linux
//! hosts of default settings in namespaces of their own. Nothing is announced at a VTEP whose daemon is away: nobody would
//! hear it.

mod board;
mod judge;
#[cfg(test)]
mod judge_tests;
mod linux;
mod restarts;
mod steps;
mod world;

use crate::bench::Samples;
use crate::packet::now;
use judge::{Asked, Ledger, Seen, Service, Verdict};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use world::{Guest, World};

/// How much.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// How long.
    pub span: Duration,
    /// Hosts, Linux ones among them.
    pub hosts: u16,
    /// Linux hosts in namespaces.
    pub linux: u16,
    /// After this time the daemons ask who has not confirmed an address.
    pub confirm: Duration,
    /// Between two steps.
    pub step: Duration,
    /// Between two starts of a daemon.
    pub restart: Duration,
    /// Requests a second.
    pub asks: u32,
    /// Decides who goes where; times are the machine's.
    pub seed: u64,
    /// Somebody lies once: whether that is found.
    pub liar: bool,
}

/// What was found.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Steps of each kind.
    pub steps: BTreeMap<&'static str, u64>,
    /// Answers heard.
    pub frames: u64,
    /// Rows of kernels looked at.
    pub rows: u64,
    /// Wrong answers heard, each in words.
    pub wrong: Vec<String>,
    /// Wrong rows.
    pub wrong_rows: Vec<String>,
    /// Bindings of dead hosts that stayed too long, heard or in a kernel: addresses.
    pub dead: Vec<String>,
    /// Hosts that were told that their address is somebody else's.
    pub refused: Vec<String>,
    /// How long requests for live hosts took.
    pub took: Samples,
    /// By how much a sleep of one millisecond was late meanwhile.
    pub control: Samples,
    /// Requests for live hosts.
    pub asked: u64,
    /// Those that were not answered in time, and how many of them beside a daemon's start.
    pub late: u64,
    /// See `late`.
    pub late_beside: u64,
    /// Those that nobody answered.
    pub unanswered: u64,
}

impl Outcome {
    /// Requests for live hosts answered in time, in per cent.
    pub fn in_time(&self) -> f64 {
        100.0 * (self.asked - self.late) as f64 / (self.asked.max(1)) as f64
    }
}

/// What all threads know.
#[derive(Debug)]
struct Shared {
    ledger: Ledger,
    guests: Vec<Guest>,
    by_ip: BTreeMap<IpAddr, usize>,
    /// Requests that are not answered yet, by mouth and address.
    pending: BTreeMap<(usize, IpAddr), usize>,
    asked: Vec<Asked>,
    /// Answers that did not name the holder of the moment.
    suspects: Vec<Seen>,
    refused: Vec<String>,
    frames: u64,
    rows: u64,
    /// VTEPs whose daemon is away or about to go.
    away: BTreeSet<usize>,
    steps: BTreeMap<&'static str, u64>,
}

impl Shared {
    fn count(&mut self, step: &'static str) {
        *self.steps.entry(step).or_default() += 1;
    }

    /// An answer, from a frame or a row.
    fn note(&mut self, seen: Seen) {
        let right = self.ledger.holder(seen.ip).is_some_and(|h| h.mac == seen.mac);
        if !right && !self.ledger.history(seen.ip).is_empty() {
            self.suspects.push(seen);
        }
    }
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Ends the threads, also when one gives up.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Sleeps; `false` if it is over.
fn pause(stop: &AtomicBool, span: Duration) -> bool {
    let end = now() + span.as_nanos() as u64;
    while now() < end && !stop.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_nanos(end.saturating_sub(now())).min(Duration::from_millis(50)));
    }
    !stop.load(Ordering::Relaxed)
}

/// Three unanswered questions, a second each, and some time for a machine that is busy.
const GIVEN_UP: Duration = Duration::from_secs(5);

/// Runs the whole plan.
///
/// # Panics
/// When the topology does not come up.
pub fn run(plan: &Plan) -> Outcome {
    let (world, daemons) = World::new(plan);
    let guests = World::guests(plan);
    let by_ip = guests.iter().enumerate().flat_map(|(n, g)| g.ips.map(|ip| (ip, n))).collect();
    let shared = Mutex::new(Shared {
        ledger: Ledger::new((plan.confirm + GIVEN_UP).as_nanos() as u64),
        guests,
        by_ip,
        pending: BTreeMap::new(),
        asked: Vec::new(),
        suspects: Vec::new(),
        refused: Vec::new(),
        frames: 0,
        rows: 0,
        away: BTreeSet::new(),
        steps: BTreeMap::new(),
    });
    let stop = AtomicBool::new(false);
    let control = std::thread::scope(|s| {
        let stopping = Stop(&stop);
        let control = s.spawn(|| board::control(&stop));
        let threads = [
            s.spawn(|| board::listen(&world, &shared, &stop)),
            s.spawn(|| board::read_rows(&world, &shared, &stop)),
            s.spawn(|| linux::run(&world, plan, &shared, &stop)),
            s.spawn(|| restarts::run(&world, daemons, plan, &shared, &stop)),
        ];
        steps::run(&world, plan, &shared, || threads.iter().any(std::thread::ScopedJoinHandle::is_finished));
        drop(stopping);
        control.join().unwrap_or_default()
    });
    let shared = shared.into_inner().unwrap_or_else(PoisonError::into_inner);
    Outcome { control: Samples::of(control), ..conclude(&shared) }
}

fn conclude(s: &Shared) -> Outcome {
    let mut out = Outcome {
        steps: s.steps.clone(),
        frames: s.frames,
        rows: s.rows,
        refused: s.refused.clone(),
        ..Outcome::default()
    };
    let mut dead = BTreeMap::new();
    for seen in &s.suspects {
        match s.ledger.judge(seen) {
            Verdict::Right => {}
            Verdict::Wrong { after } => {
                let words = told(s, seen, after);
                match seen.how {
                    judge::How::Frame => out.wrong.push(words),
                    judge::How::Row => out.wrong_rows.push(words),
                }
            }
            Verdict::Dead { after } => {
                dead.entry((seen.ip, seen.vtep)).or_insert_with(|| told(s, seen, Some(after)));
            }
        }
    }
    out.dead = dead.into_values().collect();
    let mut times = Vec::new();
    for a in &s.asked {
        let service = s.ledger.service(a);
        if service == Service::NotCounted {
            continue;
        }
        out.asked += 1;
        times.extend(a.took);
        out.unanswered += u64::from(a.took.is_none());
        if service == Service::Late {
            out.late += 1;
            out.late_beside += u64::from(s.ledger.beside_outage(a.at));
            if out.late - out.late_beside <= 10 && !s.ledger.beside_outage(a.at) {
                let took = a.took.map_or("never".into(), ms);
                eprintln!(
                    "  late: {} asked at VTEP {} at {}: {took}{}",
                    a.ip,
                    a.vtep,
                    ms(a.at),
                    history(s, a.ip, a.at)
                );
            }
        }
    }
    out.took = Samples::of(times);
    out
}

fn ms(t: u64) -> String {
    format!("{:.3} ms", Duration::from_nanos(t).as_secs_f64() * 1e3)
}

fn told(s: &Shared, seen: &Seen, after: Option<u64>) -> String {
    let after = after.map_or("which never had it then".into(), |t| format!("{} too old", ms(t)));
    let how = match seen.how {
        judge::How::Frame => "a host hears",
        judge::How::Row => "the kernel has",
    };
    let (ip, mac, vtep) = (seen.ip, seen.mac, seen.vtep);
    format!("{how} {ip} at {mac}, {after}, at VTEP {vtep} at {}{}", ms(seen.from), history(s, ip, seen.from))
}

/// Who had it around this time.
fn history(s: &Shared, ip: IpAddr, at: u64) -> String {
    let of = s.ledger.history(ip);
    let next = of.partition_point(|h| h.begun <= at);
    let mut out = String::new();
    for h in &of[next.saturating_sub(3)..of.len().min(next + 1)] {
        let said = h.announced.map_or("never".into(), ms);
        let gone = h.gone.map_or(String::new(), |t| format!(", gone {}", ms(t)));
        let since = ms(h.begun);
        let _ = write!(out, "\n      {} at VTEP {} since {since}, announced {said}{gone}", h.mac, h.vtep);
    }
    out
}
