//! Case (i): all VMs of a rack, each with a MAC and an IPv4 address, are announced at another site by one gratuitous ARP
//! each, as fast as a packet socket takes them. Until the last change at a third VTEP, of whose tables each row is
//! then checked.
//!
//! FRR takes part with the MACs alone: its kernel would have to learn the addresses as ordinary neighbours, of which the
//! machine has room for 1,024 by default, and it hears none while it holds the binding of the old place.

use super::{Daemon, Report, Samples, Sizes, System, cpu_of, mac, number, rows_at_least, three};
use crate::fabric::Fabric;
use crate::frame;
use crate::packet::{Monitor, now};
use crate::poll::eventually;
use crate::tables::{Neigh, Tables};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

const SET: u8 = 9;
const LIMIT: Duration = Duration::from_secs(120);
/// Nothing has changed for so long: it is over.
const QUIET: Duration = Duration::from_millis(1500);

fn ip(n: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(172, 16, 0, 1)) + n)
}

pub(super) fn run(system: System, sizes: &Sizes, report: &mut Report) {
    let (f, daemons) = three(system);
    let count = sizes.evacuated;
    let with_ips = system == System::Vtepd;
    let frames: Vec<_> = (0..count).map(|n| frame::garp(mac(SET, n), ip(n))).collect();
    let wires = [f.guest_port(0, "p1"), f.guest_port(1, "p1")];
    for (i, frame) in frames.iter().enumerate() {
        wires[1].send(frame);
        if i % 256 == 255 {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    let third = &f.vteps[2];
    rows_at_least(&third.ns, "vx100", 2 * count);
    let tables = Tables::open(&third.ns);
    if with_ips {
        eventually(LIMIT, "all addresses are known", || {
            let n = tables.neighbors().len();
            if n >= count as usize { Ok(()) } else { Err(n) }
        });
    }
    let mut observer = Monitor::open(&third.ns);
    let (mut took, mut sending, mut cpu) = (Samples::default(), Samples::default(), Samples::default());
    while observer.read(QUIET, |_| {}) {}
    for i in 0..sizes.repeats {
        let used = cpu_of(&daemons);
        let site = i % 2;
        let (last, begun, sent) = std::thread::scope(|s| {
            let sender = s.spawn(|| {
                let begun = now();
                for frame in &frames {
                    wires[site].send(frame);
                }
                (begun, now())
            });
            let last = last_change(&mut observer, count, f.vteps[site].address);
            let (begun, sent) = sender.join().expect("the sender does not panic");
            (last, begun, sent)
        });
        took.push(last - begun);
        sending.push(sent - begun);
        // The end of the case has waited for quiet: what follows a move is in it.
        cpu.push(cpu_of(&daemons) - used);
        // A guest would answer when it is asked for an address that came without its word; these say it once more.
        if let Err(e) = check(&f, &tables, count, site, with_ips) {
            eprintln!("  {e}; they are announced again");
            for frame in &frames {
                wires[site].send(frame);
            }
        }
        eventually(LIMIT, "every row is right", || {
            let counted = || daemons.iter().map(Daemon::counters).collect::<Vec<_>>();
            check(&f, &tables, count, site, with_ips).map_err(|e| (e, counted()))
        });
        while observer.read(QUIET, |_| {}) {}
    }
    let what = if with_ips { "MAC+IP pairs" } else { "MACs" };
    report.times(format!("rack of {count} {what} moved: last change"), Some(system), &took);
    report.times(format!("rack of {count} {what} moved: last frame sent"), Some(system), &sending);
    report.times(format!("rack of {count} {what} moved: processor time"), Some(system), &cpu);
}

/// When the last of the MACs' rows, or of the neighbour rows, was reported. Neighbour rows of a VM that keeps its MAC need
/// not change at all; those that do count.
fn last_change(observer: &mut Monitor, count: u32, there: IpAddr) -> u64 {
    let mut seen = vec![false; count as usize];
    let (mut missing, mut last) = (count, 0);
    let end = now() + LIMIT.as_nanos() as u64;
    loop {
        let mut neighbours = 0;
        let more = observer.read_both(
            QUIET,
            |n| {
                if n.new
                    && n.vtep == Some(there)
                    && let Some(s) = number(SET, n.mac).and_then(|i| seen.get_mut(i as usize))
                    && !*s
                {
                    *s = true;
                    missing -= 1;
                    last = n.at;
                }
            },
            |n| neighbours = n.at,
        );
        last = last.max(neighbours);
        if missing == 0 && !more {
            return last;
        }
        assert!(now() < end, "{missing} of {count} MACs never moved");
    }
}

/// Each row at the third VTEP is there and right.
fn check(f: &Fabric, tables: &Tables, count: u32, site: usize, with_ips: bool) -> Result<(), String> {
    let there = Some(f.vteps[site].address);
    let rows = tables.fdb();
    let right = rows.iter().filter(|r| number(SET, r.mac).is_some() && r.vtep == there).count();
    if right != count as usize {
        return Err(format!("{right} of {count} rows point to the new place"));
    }
    if with_ips {
        let of = |n: &Neigh| number(SET, n.mac).is_some_and(|i| n.ip == IpAddr::V4(ip(i)));
        let right = tables.neighbors().iter().filter(|n| of(n)).count();
        if right != count as usize {
            return Err(format!("{right} of {count} addresses are answered with their MAC"));
        }
    }
    Ok(())
}
