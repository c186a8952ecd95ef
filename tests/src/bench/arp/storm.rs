//! A port that says ARP as fast as it can, while a MAC moves between other ports. In the same run: nothing else to do, and
//! the same sender on a port that is in no bridge.

use crate::bench::flood::{FLOODING, Moves, NOWHERE, Noise, beside};
use crate::bench::{Daemon, Report, Sizes, System, quiet};
use crate::fabric::Fabric;
use crate::poll::{LATER, eventually, same};
use crate::vtepd::Vtepd;

pub(super) fn run(sizes: &Sizes, report: &mut Report) {
    let f = Fabric::new(3);
    f.vteps[0].add_port(&f.guests, FLOODING);
    f.vteps[0].add_port(&f.guests, NOWHERE);
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
    let us = System::Vtepd;
    let sizes = &Sizes { flood_rate: sizes.storm_rate, ..*sizes };
    let mut moves = Moves::new(&f, &daemons);
    report.times("hot move: nothing else", Some(us), &moves.some(sizes.moves));
    let (idle, _) = beside(&f, sizes, &mut moves, NOWHERE, Noise::Storm, 0);
    report.times("hot move: an ARP storm into nowhere", Some(us), &idle);
    let before = daemons[0].resident_mb();
    let (row, (sent, seconds)) = beside(&f, sizes, &mut moves, FLOODING, Noise::Storm, 0);
    report.times("hot move: beside an ARP storm", Some(us), &row);
    report.number("ARP storm: rate", us, "1/s", sent as f64 / seconds);
    report.number("hot move: p99 beside the storm, less the control's", us, "ms", {
        row.percentile(99.0) - idle.percentile(99.0)
    });
    report.memory("ARP storm: resident memory before", us, before);
    report.memory("ARP storm: peak resident memory", us, daemons[0].peak_mb());
}
