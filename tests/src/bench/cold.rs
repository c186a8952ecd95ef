//! Case (h): a VM is shut down at one site, its routes are withdrawn everywhere, and it boots at the other.

use super::{Report, Samples, Sizes, System, mac, three};
use crate::frame;
use crate::packet::{Monitor, now};
use std::time::Duration;

const MOVED: u8 = 7;
const LIMIT: Duration = Duration::from_secs(10);
/// More say nothing new.
const MOST: usize = 100;

pub(super) fn run(system: System, sizes: &Sizes, report: &mut Report) {
    let (f, _daemons) = three(system);
    let mut observer = Monitor::open(&f.vteps[2].ns);
    let sites = [f.guest_port(0, "p1"), f.guest_port(1, "p1")];
    let vm = mac(MOVED, 1);
    let mut took = Samples::default();
    for i in 0..=sizes.moves.min(MOST) {
        let site = i % 2;
        let there = f.vteps[site].address;
        observer.drain();
        let begun = sites[site].send(&frame::rarp(vm));
        let row = observer.find(LIMIT, |n| n.new && n.mac == vm && n.vtep == Some(there));
        let row = row.expect("the row after the boot").at;
        // The first boot is no move.
        if i > 0 {
            took.push(row - begun);
        }
        // It runs for a while; then its port goes, as a tap does.
        std::thread::sleep(Duration::from_millis(150));
        f.vteps[site].pull_port(&f.guests, "p1");
        let gone = observer.find(LIMIT, |n| !n.new && n.mac == vm && n.vtep == Some(there));
        assert!(gone.is_some(), "the row goes when the VM has been shut down, {} ns", now() - row);
        // All have forgotten it, FRR's queues of 50 ms included; not in step with anything.
        std::thread::sleep(Duration::from_millis(200 + (i as u64 * 37) % 53));
    }
    report.times("cold move: first frame to row at a third VTEP", Some(system), &took);
}
