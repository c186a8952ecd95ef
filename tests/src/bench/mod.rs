//! `cargo xtask bench`: vtepd beside FRR, on the same topology, seen by the same outside observer.
//!
//! Times are taken with CLOCK_MONOTONIC: before a frame is handed to a packet socket, and after a netlink notification (or
//! a frame) was read from one. What the observer itself costs is the control case.

mod addresses;
mod arp;
mod bulk;
mod cold;
mod control;
mod evacuation;
mod flood;
mod hot;
mod load;
mod prepared;
mod reflect;
mod report;
mod stats;
mod truth;

pub use arp::Part;
pub use reflect::Shape;
pub use report::{Line, Machine, Report};
pub use stats::Samples;

use crate::fabric::{Fabric, frr_conf};
use crate::frr::Frr;
use crate::ns::Netns;
use crate::packet::{DeviceLock, Monitor, now};
use crate::poll::{LATER, eventually, same};
use crate::vtepd::Vtepd;
use clap::ValueEnum;
use evpn::types::Mac;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// What is measured.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum System {
    /// vtepd
    Vtepd,
    /// FRR: zebra and bgpd
    Frr,
    /// GoBGP, as a route reflector only: it writes nothing into the kernel
    #[value(name = "gobgp")]
    GoBgp,
}

impl System {
    /// For the table.
    pub fn name(self) -> &'static str {
        match self {
            Self::Vtepd => "vtepd",
            Self::Frr => "FRR",
            Self::GoBgp => "GoBGP",
        }
    }
}

/// A case.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum Case {
    /// Hot move of one MAC, with others loaded and moving
    Hot,
    /// Hot move of one MAC that the target's hypervisor has announced (vtepd alone: FRR knows no such thing)
    Prepared,
    /// A VM's addresses after its MAC, at a vtepd peer and at an FRR peer
    Addresses,
    /// An address under another MAC, seen by a Linux host that has cached the old one
    Arp,
    /// Boot at another site after the old one has withdrawn
    Cold,
    /// Many MACs moved at once
    Bulk,
    /// A rack's MACs with their addresses moved at once
    Evacuation,
    /// Hot moves while a port makes MACs up (vtepd alone: it is vtepd's limits that are measured)
    Flood,
    /// Many routes from one peer, then withdrawn
    Load,
    /// A route reflector between many speakers, beside FRR and GoBGP; and the codec beside the public ones, run by xtask
    /// (only when named)
    Bgp,
    /// Half an hour of moves, new MACs, silences and restarts; every answer to ARP and ND compared with the truth (vtepd
    /// alone; only when named)
    Truth,
    /// Decode and encode of UPDATEs (figures of the codec bench, run by xtask)
    Codec,
    /// The observer's own cost and the machine's jitter
    Idle,
}

/// How much of everything.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Hot moves measured.
    pub moves: usize,
    /// MACs loaded besides, in the hot case.
    pub loaded: u32,
    /// Background moves a second, in the hot case.
    pub background: u32,
    /// MACs moved at once.
    pub bulk: [u32; 2],
    /// MACs with an address each that leave a rack.
    pub evacuated: u32,
    /// Times each bulk move is repeated.
    pub repeats: usize,
    /// MACs that a flooding port makes up, at least.
    pub flooded: u64,
    /// So many of them a second, if the machine can.
    pub flood_rate: u64,
    /// Of the case `arp` only this.
    pub part: Option<Part>,
    /// ARP and ND questions for a known host, of each family.
    pub answers: usize,
    /// Hosts behind one VTEP, half of them silent.
    pub silent: u32,
    /// How long they are to be kept.
    pub kept: Duration,
    /// After this time the daemon asks who has not confirmed an address.
    pub confirm: Duration,
    /// Frames of an ARP storm a second.
    pub storm_rate: u64,
    /// Hosts that move and change, and for how long.
    pub truth: crate::truth::Plan,
    /// Routes from one peer.
    pub routes: u32,
    /// Times the load is repeated, each with fresh daemons.
    pub loads: usize,
    /// Who sends to whom through a reflector.
    pub shapes: [Shape; 3],
    /// Times each of them is repeated, with fresh daemons.
    pub reflections: usize,
}

/// What runs on one VTEP.
#[derive(Debug)]
enum Daemon {
    Vtepd(Box<Vtepd>),
    Frr(Box<Frr>),
}

impl Daemon {
    fn start(f: &Fabric, vtep: usize, system: System) -> Self {
        let v = &f.vteps[vtep];
        v.make_devices(100, &["p1"]);
        // Hosts of the bench speak once; they must not age out while it runs.
        v.ns.sh("ip link set br100 type bridge ageing_time 360000");
        match system {
            System::Vtepd => Self::Vtepd(Box::new(Vtepd::start(&v.ns, &f.conf(vtep)))),
            System::Frr => {
                let neighbors: Vec<_> = f.others(v).into_iter().map(|a| (a, 65000)).collect();
                Self::Frr(Box::new(Frr::start(&v.ns, &frr_conf(65000, v.number, &neighbors, ""))))
            }
            System::GoBgp => panic!("GoBGP is no VTEP"),
        }
    }

    /// The API socket of vtepd.
    fn socket(&self) -> Option<std::path::PathBuf> {
        match self {
            Self::Vtepd(v) => Some(v.socket()),
            Self::Frr(_) => None,
        }
    }

    /// What vtepd has counted; FRR counts nothing of the kind.
    fn counters(&self) -> serde_json::Value {
        match self {
            Self::Vtepd(v) => v.status()["counters"].clone(),
            Self::Frr(_) => serde_json::Value::Null,
        }
    }

    /// Processor time so far, in nanoseconds: all processes of the daemon.
    fn cpu_ns(&self) -> u64 {
        match self {
            Self::Vtepd(v) => v.process.cpu_ns(),
            Self::Frr(f) => f.bgpd.cpu_ns() + f.zebra.cpu_ns(),
        }
    }

    /// Resident memory now, in MB; of vtepd.
    fn resident_mb(&self) -> f64 {
        match self {
            Self::Vtepd(v) => v.process.memory_kb("VmRSS").unwrap_or(0) as f64 / 1000.0,
            Self::Frr(_) => 0.0,
        }
    }

    /// Peak resident memory so far, in MB: all processes of the daemon.
    fn peak_mb(&self) -> f64 {
        let kb = match self {
            Self::Vtepd(v) => v.process.memory_kb("VmHWM"),
            Self::Frr(f) => f.bgpd.memory_kb("VmHWM").zip(f.zebra.memory_kb("VmHWM")).map(|(a, b)| a + b),
        };
        kb.unwrap_or(0) as f64 / 1000.0
    }
}

/// Ends the threads that look at it, also when the one that measures gives up.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Three VTEPs that run the same thing and know each other.
fn three(system: System) -> (Fabric, Vec<Daemon>) {
    let f = Fabric::new(3);
    let daemons: Vec<_> = (0..3).map(|i| Daemon::start(&f, i, system)).collect();
    for v in &f.vteps {
        eventually(LATER, "everybody floods to everybody", || same(v.flood_list(100).len(), 2));
    }
    quiet(&f);
    (f, daemons)
}

/// Waits until nobody changes devices any more: the namespaces of what was measured before are removed in the background, under
/// the kernel's one lock for devices, which every row needs too. A machine that never is so quiet is told.
fn quiet(f: &Fabric) {
    const AT_REST: u32 = 250;
    let lock = DeviceLock::open(&f.spine);
    let end = now() + LATER.as_nanos() as u64;
    let mut rest = 0;
    while rest < AT_REST {
        if now() > end {
            eprintln!("  the machine's network devices do not come to rest; outliers may be others'");
            return;
        }
        rest = if lock.wait() < Duration::from_millis(2) { rest + 1 } else { 0 };
        std::thread::sleep(Duration::from_millis(4));
    }
}

/// Processor time of daemons so far, in nanoseconds.
fn cpu_of(daemons: &[Daemon]) -> u64 {
    daemons.iter().map(Daemon::cpu_ns).sum()
}

/// MAC number `n` of a set; sets do not overlap.
fn mac(set: u8, n: u32) -> Mac {
    let [_, a, b, c] = n.to_be_bytes();
    Mac([2, 0xb0 | set, 0, a, b, c])
}

/// The number of a MAC of this set.
fn number(set: u8, m: Mac) -> Option<u32> {
    let [two, s, zero, a, b, c] = m.0;
    (two == 2 && s == 0xb0 | set && zero == 0).then(|| u32::from_be_bytes([0, a, b, c]))
}

/// Waits for the last of `count` MACs to be reported with `pick`, and says when that was.
fn last_of(
    monitor: &mut Monitor,
    set: u8,
    count: u32,
    limit: Duration,
    pick: impl Fn(&crate::packet::FdbNote) -> bool,
) -> Result<u64, u32> {
    let mut seen = vec![false; count as usize];
    let (mut missing, mut last) = (count, 0);
    let end = now() + limit.as_nanos() as u64;
    while missing > 0 && now() < end {
        monitor.read(Duration::from_millis(100), |n| {
            if pick(&n)
                && let Some(i) = number(set, n.mac)
                && let Some(s) = seen.get_mut(i as usize)
                && !*s
            {
                *s = true;
                missing -= 1;
                last = n.at;
            }
        });
    }
    if missing == 0 { Ok(last) } else { Err(missing) }
}

/// Waits until the bridge of a namespace holds at least so many rows.
fn rows_at_least(ns: &Netns, device: &str, count: u32) {
    eventually(Duration::from_secs(120), "rows are there", || {
        let text = ns.sh(&format!("bridge fdb show dev {device} | wc -l"));
        let n: u32 = text.trim().parse().unwrap_or(0);
        if n >= count { Ok(()) } else { Err(n) }
    });
}

/// Runs one case for one system.
pub fn run(case: Case, system: System, sizes: &Sizes, report: &mut Report) {
    match case {
        Case::Hot => hot::run(system, sizes, report),
        Case::Bulk => bulk::run(system, sizes, report),
        Case::Load => load::run(system, sizes, report),
        Case::Bgp => reflect::run(system, sizes, report),
        Case::Prepared => prepared::run(system, sizes, report),
        Case::Addresses => addresses::run(system, sizes, report),
        Case::Arp => arp::run(system, sizes, report),
        Case::Cold => cold::run(system, sizes, report),
        Case::Evacuation => evacuation::run(system, sizes, report),
        Case::Flood => flood::run(system, sizes, report),
        Case::Truth => truth::run(&sizes.truth, report),
        Case::Codec | Case::Idle => {}
    }
}

/// Runs the case that needs no system.
pub fn control(sizes: &Sizes, report: &mut Report) {
    control::run(sizes, report);
}
