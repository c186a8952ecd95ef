//! Case (h): hot moves of one MAC while another port of a site makes MACs up, beside the same moves with nothing else
//! to do, and with a sender that has the same work and whom no bridge hears. Under the load of case (a).

use super::{Daemon, Report, Samples, Sizes, Stop, System, hot, mac, quiet};
use crate::fabric::Fabric;
use crate::frame;
use crate::packet::{Monitor, Wire, now};
use crate::poll::{LATER, eventually, same};
use crate::vtepd::Vtepd;
use evpn::types::Mac;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

const MOVED: u8 = 7;
const STORMING: u8 = 15;
const LIMIT: Duration = Duration::from_secs(5);
/// Frames of one system call.
const BURST: usize = 64;
/// The port that floods; the next is one that is in no bridge.
pub(super) const FLOODING: &str = "p2";
pub(super) const NOWHERE: &str = "p9";

/// What the port says: each frame has another source.
#[derive(Clone, Copy, Debug)]
pub(super) enum Noise {
    /// To addresses that are made up as well: the bridge sends them everywhere.
    Data,
    /// Gratuitous ARP: the daemon hears them besides.
    Arp,
    /// Few hosts that ask for made-up addresses, and announce themselves with every fourth frame.
    Storm,
}

/// Who made the flooding port's bridge.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Bridge {
    /// The daemon: as it likes bridges to be.
    Own,
    /// Somebody else, who has not limited what it learns.
    Adopted,
}

pub(super) fn run(system: System, sizes: &Sizes, report: &mut Report) {
    for bridge in [Bridge::Own, Bridge::Adopted] {
        on(bridge, system, sizes, report);
    }
}

fn on(bridge: Bridge, system: System, sizes: &Sizes, report: &mut Report) {
    let f = Fabric::new(3);
    f.vteps[0].add_port(&f.guests, FLOODING);
    f.vteps[0].add_port(&f.guests, NOWHERE);
    if bridge == Bridge::Adopted {
        f.vteps[0].make_devices(100, &["p1", FLOODING]);
    }
    let daemons: Vec<_> = (0..3)
        .map(|i| {
            let mut conf = f.conf(i);
            if i == 0 {
                conf.vnis[0].1.push(FLOODING.into());
            }
            Daemon::Vtepd(Box::new(Vtepd::start(&f.vteps[i].ns, &conf)))
        })
        .collect();
    for v in &f.vteps {
        eventually(LATER, "everybody floods to everybody", || same(v.flood_list(100).len(), 2));
    }
    quiet(&f);
    hot::load(&f, sizes);
    let of = match bridge {
        Bridge::Own => "own bridge",
        Bridge::Adopted => "adopted bridge",
    };
    let stop = AtomicBool::new(false);
    std::thread::scope(|s| {
        let stopping = Stop(&stop);
        s.spawn(|| hot::background(&f, sizes, &stop));
        let mut moves = Moves::new(&f, &daemons);
        report.times(format!("hot move, {of}: nothing else"), Some(system), &moves.some(sizes.moves));
        let (row, _) = beside(&f, sizes, &mut moves, NOWHERE, Noise::Data, 0);
        report.times(format!("hot move, {of}: a sender into nowhere"), Some(system), &row);
        for (noise, name) in [(Noise::Data, "data"), (Noise::Arp, "ARP")] {
            let before = guards(&daemons[0]);
            let done = AtomicBool::new(false);
            let (begun, (row, (sent, seconds)), guarded) = std::thread::scope(|s| {
                let _stopping = Stop(&done);
                let begun = now();
                let watch = s.spawn(|| guarded(&daemons[0], before, &done));
                let got = beside(&f, sizes, &mut moves, FLOODING, noise, sizes.flooded);
                done.store(true, Ordering::Relaxed);
                (begun, got, watch.join().ok().flatten())
            });
            report.times(format!("hot move, {of}: made-up MACs, {name}"), Some(system), &row);
            if let Some(at) = guarded {
                let ms = Duration::from_nanos(at - begun).as_secs_f64() * 1e3;
                report.number(
                    format!("made-up MACs, {of}, {name}: until the port is guarded"),
                    system,
                    "ms",
                    ms,
                );
            }
            report.number(format!("made-up MACs, {of}, {name}: sent"), system, "", sent as f64);
            report.number(format!("made-up MACs, {of}, {name}: rate"), system, "1/s", sent as f64 / seconds);
        }
        drop(stopping);
    });
    for key in ["macs_over_limit", "netlink_overruns"] {
        let n = daemons[0].counters()[key].as_f64().unwrap_or(0.0);
        report.number(format!("made-up MACs, {of}: {key}"), system, "", n);
    }
    report.memory(format!("made-up MACs, {of}: peak resident memory"), system, daemons[0].peak_mb());
}

/// How often a port was guarded.
fn guards(d: &Daemon) -> u64 {
    let Some(socket) = d.socket() else { return 0 };
    let answer = crate::api::rows(&socket, "status").unwrap_or_default();
    answer.first().and_then(|s| s["counters"]["guards_begun"].as_u64()).unwrap_or(0)
}

/// When a port is guarded once more, to 20 ms.
fn guarded(d: &Daemon, before: u64, stop: &AtomicBool) -> Option<u64> {
    while !stop.load(Ordering::Relaxed) {
        if guards(d) > before {
            return Some(now());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    None
}

/// Moves while a port is noisy; the noise lasts for all of them, and for at least so many frames.
pub(super) fn beside(
    f: &Fabric,
    sizes: &Sizes,
    moves: &mut Moves<'_>,
    port: &str,
    noise: Noise,
    frames: u64,
) -> (Samples, (u64, f64)) {
    let (stop, sent) = (AtomicBool::new(false), AtomicU64::new(0));
    let wire = f.guest_mouth(0, port);
    std::thread::scope(|s| {
        let stopping = Stop(&stop);
        let begun = now();
        s.spawn(|| make_noise(&wire, noise, sizes.flood_rate, &sent, &stop));
        let row = moves.some(sizes.moves);
        while sent.load(Ordering::Relaxed) < frames {
            std::thread::sleep(Duration::from_millis(20));
        }
        drop(stopping);
        let took = Duration::from_nanos(now() - begun).as_secs_f64();
        (row, (sent.load(Ordering::Relaxed), took))
    })
}

fn make_noise(wire: &Wire, noise: Noise, rate: u64, sent: &AtomicU64, stop: &AtomicBool) {
    let mut random = Random(0x9e37_79b9_7f4a_7c15 ^ now());
    let mut frames = vec![Vec::new(); BURST];
    let begun = now();
    while !stop.load(Ordering::Relaxed) {
        let due = u128::from(now() - begun) * u128::from(rate) / 1_000_000_000;
        if u128::from(sent.load(Ordering::Relaxed)) >= due {
            std::thread::sleep(Duration::from_micros(200));
            continue;
        }
        for frame in &mut frames {
            *frame = match noise {
                Noise::Data => frame::data(random.mac(), random.mac(), 0),
                Noise::Arp => frame::garp(random.mac(), (random.next() as u32).into()),
                Noise::Storm => random.storm(),
            };
        }
        sent.fetch_add(wire.send_many(&frames) as u64, Ordering::Relaxed);
    }
}

/// Xorshift: no two of the first 10 million are likely to be equal, which is all that is asked of it.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn mac(&mut self) -> Mac {
        let [_, _, b, c, d, e, f, g] = self.next().to_be_bytes();
        // No other set of the bench begins so.
        Mac([0x06 | (b & 0xf0), c, d, e, f, g])
    }

    fn storm(&mut self) -> Vec<u8> {
        let [who, what, c, d, ..] = self.next().to_be_bytes();
        let own = (mac(STORMING, u32::from(who % 16)), Ipv4Addr::new(10, 65, 0, who % 16 + 1));
        match what % 4 {
            0 => frame::garp(own.0, own.1),
            _ => frame::arp_request(own.0, own.1, Ipv4Addr::new(10, 65, c | 1, d)),
        }
    }
}

/// One MAC that moves between two sites, seen from a third.
pub(super) struct Moves<'a> {
    observer: Monitor,
    sites: [(Wire, std::net::IpAddr); 2],
    at: usize,
    daemons: &'a [Daemon],
}

impl<'a> Moves<'a> {
    pub(super) fn new(f: &Fabric, daemons: &'a [Daemon]) -> Self {
        let sites = [0, 1].map(|i| (f.guest_mouth(i, "p1"), f.vteps[i].address));
        let mut new = Self { observer: Monitor::open(&f.vteps[2].ns), sites, at: 0, daemons };
        new.one();
        new
    }

    pub(super) fn some(&mut self, n: usize) -> Samples {
        let mut out = Samples::default();
        for i in 0..n {
            std::thread::sleep(Duration::from_millis(150 + (i as u64 * 37) % 53));
            out.push(self.one());
        }
        out
    }

    fn one(&mut self) -> u64 {
        self.observer.drain();
        self.at = 1 - self.at;
        let (site, vtep) = &self.sites[self.at];
        let begun = site.send(&frame::rarp(mac(MOVED, 1)));
        let there = |n: &crate::packet::FdbNote| n.new && n.mac == mac(MOVED, 1) && n.vtep == Some(*vtep);
        if let Some(n) = self.observer.find(LIMIT, there) {
            return n.at - begun;
        }
        for d in self.daemons {
            if let Daemon::Vtepd(d) = d {
                eprintln!("{}\n{:?}", d.status(), d.why("mac", &mac(MOVED, 1).to_string()));
            }
        }
        panic!("the move to {vtep} did not end");
    }
}
