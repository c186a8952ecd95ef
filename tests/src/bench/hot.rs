//! Case (a): one MAC moves by RARP between two sites, seen from a third, while others are loaded and moving.

use super::{Report, Samples, Sizes, System, mac, rows_at_least, three};
use crate::fabric::Fabric;
use crate::frame;
use crate::packet::{Monitor, Wire, now};
use evpn::types::Mac;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const LOADED: u8 = 1;
const MOVED: u8 = 2;

/// How long a move may take before it counts as lost.
const LIMIT: Duration = Duration::from_secs(5);
/// Data frames towards the moving MAC.
const EVERY: Duration = Duration::from_micros(100);

pub(super) fn run(system: System, sizes: &Sizes, report: &mut Report) {
    let (f, _daemons) = three(system);
    load(&f, sizes);
    let stop = AtomicBool::new(false);
    let (row, data) = std::thread::scope(|s| {
        s.spawn(|| background(&f, sizes, &stop));
        let measured = measure(&f, sizes);
        stop.store(true, Ordering::Relaxed);
        measured
    });
    report.times("hot move: frame to row at a third VTEP", Some(system), &row);
    report.times("hot move: frame to first data delivered", Some(system), &data);
}

/// Half of the loaded MACs behind each of the two sites.
pub(super) fn load(f: &Fabric, sizes: &Sizes) {
    let wires = [f.guest_mouth(0, "p1"), f.guest_mouth(1, "p1")];
    for n in 0..sizes.loaded {
        wires[n as usize % 2].send(&frame::rarp(mac(LOADED, n)));
        if n % 256 == 255 {
            // A socket's queue is finite; so are the daemons'.
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    rows_at_least(&f.vteps[2].ns, "vx100", 2 * sizes.loaded);
}

/// Loaded MACs change sides, one after the other.
pub(super) fn background(f: &Fabric, sizes: &Sizes, stop: &AtomicBool) {
    if sizes.background == 0 || sizes.loaded == 0 {
        return;
    }
    let wires = [f.guest_mouth(0, "p1"), f.guest_mouth(1, "p1")];
    let pause = Duration::from_secs(1) / sizes.background;
    // MAC n starts on side n % 2 and changes each time its turn comes.
    let mut turn = 0u32;
    while !stop.load(Ordering::Relaxed) {
        let (n, round) = (turn % sizes.loaded, turn / sizes.loaded);
        wires[((n + round + 1) % 2) as usize].send(&frame::rarp(mac(LOADED, n)));
        turn += 1;
        std::thread::sleep(pause);
    }
}

fn measure(f: &Fabric, sizes: &Sizes) -> (Samples, Samples) {
    let mut observer = Monitor::open(&f.vteps[2].ns);
    let sites = [f.guest_port(0, "p1"), f.guest_port(1, "p1")];
    let client = f.guest_port(2, "p1");
    let (vm, client_mac) = (mac(MOVED, 1), mac(MOVED, 2));
    client.send(&frame::rarp(client_mac));
    sites[1].send(&frame::rarp(vm));
    let there = |v: IpAddr| move |n: &crate::packet::FdbNote| n.new && n.mac == vm && n.vtep == Some(v);
    observer.find(LIMIT, there(f.vteps[1].address)).expect("the VM's first row");
    let (mut row, mut data) = (Samples::default(), Samples::default());
    for i in 0..sizes.moves {
        // The loser has withdrawn (FRR takes 100 ms for that); not in step with anything.
        std::thread::sleep(Duration::from_millis(150 + (i as u64 * 37) % 53));
        observer.drain();
        let site = i % 2;
        sites[site].drain();
        let (r, d) =
            one(&mut observer, &sites[site], &client, (vm, client_mac), &there(f.vteps[site].address));
        row.push(r);
        data.push(d);
    }
    (row, data)
}

/// Announces the VM at a site and sends it data until row and data have arrived.
fn one(
    observer: &mut Monitor,
    site: &Wire,
    client: &Wire,
    (vm, from): (Mac, Mac),
    there: &dyn Fn(&crate::packet::FdbNote) -> bool,
) -> (u64, u64) {
    let (mut row, mut data) = (None, None);
    let begun = site.send(&frame::rarp(vm));
    let mut next = begun;
    while row.is_none() || data.is_none() {
        let t = now();
        assert!(t - begun < LIMIT.as_nanos() as u64, "the move did not end: row {row:?}, data {data:?}");
        if data.is_none() && t >= next {
            next = client.send(&frame::data(vm, from, t)) + EVERY.as_nanos() as u64;
        }
        if row.is_none() {
            observer.read(EVERY / 2, |n| {
                if row.is_none() && there(&n) {
                    row = Some(n.at - begun);
                }
            });
        }
        if data.is_none() {
            while let Some((at, f)) = site.poll() {
                if frame::as_data(&f, vm).is_some() {
                    data = Some(at - begun);
                    break;
                }
            }
        }
    }
    (row.unwrap_or(0), data.unwrap_or(0))
}
