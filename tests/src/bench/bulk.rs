//! Case (b): many MACs move at once, until the last row at a third VTEP; beside it the bare kernel with the same rows.
//!
//! The VMs show up by a data frame each to a neighbour on their own port. A broadcast would be replicated to both
//! other VTEPs by the kernel: 20 µs each, and the sender would be measured instead of the control plane.

use super::{Report, Samples, Sizes, System, cpu_of, last_of, mac, rows_at_least, three};
use crate::fabric::Fabric;
use crate::frame;
use crate::packet::{Monitor, RowWriter, now};
use std::net::IpAddr;
use std::time::Duration;

const SET: u8 = 3;
/// The neighbours that the frames are for, one per site.
const HOME: u8 = 9;
/// Past the guard time of a move; nothing has changed for so long.
const QUIET: Duration = Duration::from_millis(1500);
const LIMIT: Duration = Duration::from_secs(120);

pub(super) fn run(system: System, sizes: &Sizes, report: &mut Report) {
    let (f, daemons) = three(system);
    for count in sizes.bulk {
        let wires = [f.guest_port(0, "p1"), f.guest_port(1, "p1")];
        let frames: [Vec<_>; 2] = [0, 1].map(|site| {
            wires[site as usize].send(&frame::rarp(mac(HOME, site)));
            (0..count).map(|n| frame::data(mac(HOME, site), mac(SET, n), 0)).collect()
        });
        // Past the guard time of the moves before: a data frame at the old place would not be a claim yet.
        std::thread::sleep(Duration::from_millis(1500));
        for (i, frame) in frames[1].iter().enumerate() {
            wires[1].send(frame);
            if i % 256 == 255 {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        rows_at_least(&f.vteps[2].ns, "vx100", 2 * count);
        let mut observer = Monitor::open(&f.vteps[2].ns);
        let (mut took, mut sending, mut cpu) = (Samples::default(), Samples::default(), Samples::default());
        while observer.read(QUIET, |_| {}) {}
        for i in 0..sizes.repeats {
            let used = cpu_of(&daemons);
            let site = i % 2;
            let there = f.vteps[site].address;
            let took_one = std::thread::scope(|s| {
                let sender = s.spawn(|| {
                    let begun = now();
                    for frame in &frames[site] {
                        wires[site].send(frame);
                    }
                    (begun, now())
                });
                let last = last_of(&mut observer, SET, count, LIMIT, |n| n.new && n.vtep == Some(there));
                let (begun, sent) = sender.join().expect("the sender does not panic");
                sending.push(sent - begun);
                let last = last.unwrap_or_else(|missing| panic!("{missing} of {count} MACs never moved"));
                last - begun
            });
            took.push(took_one);
            // What follows a move is part of its price.
            while observer.read(QUIET, |_| {}) {}
            cpu.push(cpu_of(&daemons) - used);
        }
        report.times(format!("{count} MACs moved at once: until the last row"), Some(system), &took);
        report.times(format!("{count} MACs moved at once: processor time"), Some(system), &cpu);
        // What the sender itself needs, learning by the bridge included.
        report.times(
            format!("{count} MACs moved at once: until the last frame is sent"),
            Some(system),
            &sending,
        );
    }
    drop(daemons);
    if system == System::Vtepd {
        for count in sizes.bulk {
            bare(&f, count, sizes, report);
        }
    }
}

/// The same rows written by nothing but netlink.
fn bare(f: &Fabric, count: u32, sizes: &Sizes, report: &mut Report) {
    let v = &f.vteps[2];
    let writer = RowWriter::open(&v.ns, "vx100");
    let mut observer = Monitor::open(&v.ns);
    let mut took = Samples::default();
    for i in 0..=sizes.repeats {
        // The first round, which is not measured, goes where no row has been.
        let there = if i == 0 { IpAddr::from([10, 0, 0, 77]) } else { f.vteps[i % 2].address };
        let batches = writer.batches((0..count).map(|n| mac(SET, n)), there, true);
        let took_one = std::thread::scope(|s| {
            let sender = s.spawn(|| {
                let begun = now();
                writer.send(&batches);
                begun
            });
            let last = last_of(&mut observer, SET, count, LIMIT, |n| n.new && n.vtep == Some(there));
            last.expect("the kernel reports every row") - sender.join().expect("the writer does not panic")
        });
        if i > 0 {
            took.push(took_one);
        }
        while observer.read(Duration::from_millis(50), |_| {}) {}
    }
    report.times(format!("{count} rows changed by the bare kernel"), None, &took);
}
