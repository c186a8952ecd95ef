//! Case (c): 100,000 Type-2 routes from one peer until the kernel holds the last row, then withdrawn; and the memory
//! that took. The peer is a speaker of ours that sends octets encoded beforehand.

use super::{Daemon, Report, Samples, Sizes, System, last_of, mac};
use crate::fabric::Fabric;
use crate::packet::{Monitor, RowWriter, now};
use crate::speaker::{Attributes, Speaker, announce, imet, mac_ip, withdraw};
use evpn::types::Mac;
use std::time::Duration;

const SET: u8 = 4;
const LIMIT: Duration = Duration::from_secs(300);
/// Type-2 routes in an UPDATE of at most 4096 octets.
const PER_UPDATE: usize = 90;

pub(super) fn run(system: System, sizes: &Sizes, report: &mut Report) {
    let (mut up, mut down) = (Samples::default(), Samples::default());
    let mut peak: f64 = 0.0;
    for _ in 0..sizes.loads {
        let f = Fabric::new(2);
        let daemon = Daemon::start(&f, 0, system);
        let b = &f.vteps[1];
        let speaker = Speaker::accept(&b.ns, b.address, 65000);
        let at = Attributes::new(b.address, 100);
        speaker.announce(&at.clone().ingress_replication(100, b.address), &[imet(b.address)]);
        speaker.end_of_rib();
        // FRR's own first UPDATE waits a second; until then it is not at rest.
        std::thread::sleep(Duration::from_secs(3));
        let macs: Vec<Mac> = (0..sizes.routes).map(|n| mac(SET, n)).collect();
        let nlri = |c: &[Mac]| c.iter().map(|m| mac_ip(100, *m, None)).collect::<Vec<_>>();
        let there: Vec<u8> = macs.chunks(PER_UPDATE).flat_map(|c| announce(&at, &nlri(c))).collect();
        let gone: Vec<u8> = macs.chunks(PER_UPDATE).flat_map(|c| withdraw(&nlri(c))).collect();
        let mut observer = Monitor::open(&f.vteps[0].ns);
        for (octets, new, samples) in [(&there, true, &mut up), (&gone, false, &mut down)] {
            let took = std::thread::scope(|s| {
                let sender = s.spawn(|| {
                    let begun = now();
                    speaker.send(octets);
                    begun
                });
                // The bridge row and the VXLAN device's own are one request or two; the later of both counts.
                let last =
                    last_of(&mut observer, SET, sizes.routes, LIMIT, |n| n.new == new && n.vtep.is_some());
                let begun = sender.join().expect("the peer keeps the session up");
                last.unwrap_or_else(|missing| panic!("{missing} of {} rows never came", sizes.routes)) - begun
            });
            samples.push(took);
            while observer.read(Duration::from_millis(500), |_| {}) {}
        }
        peak = peak.max(daemon.peak_mb());
    }
    let k = sizes.routes;
    report.times(format!("{k} routes from one peer: until the last row"), Some(system), &up);
    report.times(format!("{k} routes withdrawn: until the last row"), Some(system), &down);
    report.memory(format!("{k} routes: peak resident memory"), system, peak);
    if system == System::Vtepd {
        bare(sizes, report);
    }
}

/// The same rows written by nothing but netlink.
fn bare(sizes: &Sizes, report: &mut Report) {
    let (mut up, mut down) = (Samples::default(), Samples::default());
    for _ in 0..sizes.loads {
        let f = Fabric::new(2);
        let v = &f.vteps[0];
        v.make_devices(100, &["p1"]);
        let writer = RowWriter::open(&v.ns, "vx100");
        let mut observer = Monitor::open(&v.ns);
        for (new, samples) in [(true, &mut up), (false, &mut down)] {
            let batches = writer.batches((0..sizes.routes).map(|n| mac(SET, n)), f.vteps[1].address, new);
            let took = std::thread::scope(|s| {
                let sender = s.spawn(|| {
                    let begun = now();
                    writer.send(&batches);
                    begun
                });
                let last =
                    last_of(&mut observer, SET, sizes.routes, LIMIT, |n| n.new == new && n.vtep.is_some());
                last.expect("the kernel reports every row")
                    - sender.join().expect("the writer does not panic")
            });
            samples.push(took);
        }
    }
    let k = sizes.routes;
    report.times(format!("{k} rows written by the bare kernel"), None, &up);
    report.times(format!("{k} rows deleted by the bare kernel"), None, &down);
}
