//! Case (e): what the observer and the machine cost by themselves.

use super::{Report, Samples, Sizes, mac};
use crate::fabric::Fabric;
use crate::frame;
use crate::packet::{Monitor, now};
use std::time::Duration;

pub(super) fn run(sizes: &Sizes, report: &mut Report) {
    let mut late = Samples::default();
    for _ in 0..1000 {
        let due = now() + 1_000_000;
        std::thread::sleep(Duration::from_millis(1));
        late.push(now().saturating_sub(due));
    }
    report.times("idle control: a 1 ms sleep is late by", None, &late);

    // A frame, the bridge's own learning, the notification: what every figure of the hot case contains.
    let f = Fabric::new(1);
    let v = &f.vteps[0];
    v.make_devices(100, &["p1"]);
    let wire = f.guest_port(0, "p1");
    let mut observer = Monitor::open(&v.ns);
    let mut seen = Samples::default();
    for n in 0..sizes.moves.max(200) as u32 {
        std::thread::sleep(Duration::from_millis(3));
        let m = mac(5, n);
        let begun = wire.send(&frame::rarp(m));
        if let Some(note) = observer.find(Duration::from_secs(1), |x| x.mac == m) {
            seen.push(note.at - begun);
        }
    }
    report.times("idle control: frame to the local bridge's row", None, &seen);
}
