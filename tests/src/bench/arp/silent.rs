//! Many hosts behind one VTEP, half of which answer when they are asked and never speak first. They are found by somebody's
//! questions; from then on it is the daemon's work to keep them. All sit at the far end of one port, where one thread
//! answers for them.

use crate::asking::{Party, answer, as_question, ask};
use crate::bench::{Daemon, Report, Sizes, Stop, System, mac};
use crate::fabric::Fabric;
use crate::packet::{Monitor, Wire, now};
use crate::poll::{LATER, eventually, same};
use crate::tables::Tables;
use crate::vtepd::Vtepd;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const SET: u8 = 13;
const ASKERS: u8 = 14;
/// Those who speak do so this often in a confirmation time.
const TIMES: u32 = 2;
/// First words and first questions a second: no more than a daemon's tap holds.
const FIRST: u32 = 1000;

/// Every other one is silent, and every other pair has IPv6.
fn host(n: u32) -> Party {
    let ip = if n & 2 == 0 {
        IpAddr::from([10, 64 | (n >> 16) as u8, (n >> 8) as u8, n as u8])
    } else {
        IpAddr::from([0xfd00, 0x64, 0, 0, 0, 0, (n >> 16) as u16, n as u16])
    };
    (mac(SET, n), ip)
}

fn is_silent(n: u32) -> bool {
    n % 2 == 1
}

/// Who asks for the silent ones, of either family.
fn asker(of: IpAddr) -> Party {
    let ip = if of.is_ipv4() { "10.127.255.254" } else { "fd00:64::ffff:1" };
    (mac(ASKERS, 1), ip.parse().expect("an address"))
}

pub(super) fn run(sizes: &Sizes, report: &mut Report) {
    let f = Fabric::new(2);
    let daemons = [0, 1].map(|i| {
        f.vteps[i].make_devices(100, &["p1"]);
        // Rows of the bridge age a little later than addresses are confirmed, as by default (PROXY-MAINT-01).
        let ageing = sizes.confirm.as_millis() / 10 * 5 / 4;
        f.vteps[i].ns.sh(&format!("ip link set br100 type bridge ageing_time {ageing}"));
        let mut conf = f.conf(i);
        conf.sections = format!("[arp]\nconfirm-time = \"{}s\"", sizes.confirm.as_secs());
        Daemon::Vtepd(Box::new(Vtepd::start(&f.vteps[i].ns, &conf)))
    });
    for v in &f.vteps {
        eventually(LATER, "they flood to each other", || same(v.flood_list(100).len(), 1));
    }
    let stop = AtomicBool::new(false);
    let (heard, seen) = std::thread::scope(|s| {
        let stopping = Stop(&stop);
        let answering = s.spawn(|| answer_for_all(&f, sizes.silent, &stop));
        let seen = watch(&f, &daemons, sizes);
        drop(stopping);
        (answering.join().expect("the hosts answer"), seen)
    });
    let us = System::Vtepd;
    let hosts = sizes.silent;
    let number = |report: &mut Report, what: &str, unit, v: f64| {
        report.number(format!("{hosts} hosts, half of them silent: {what}"), us, unit, v);
    };
    number(report, "bindings lost", "", seen.lost.len() as f64);
    let during = heard.iter().filter(|t| seen.span.contains(t)).copied().collect::<Vec<_>>();
    let seconds = Duration::from_nanos(seen.span.end - seen.span.start).as_secs_f64();
    number(report, "questions a second", "1/s", during.len() as f64 / seconds);
    number(report, "questions in the busiest second", "1/s", busiest(&during) as f64);
    for (cpu, what) in seen.cpu.iter().zip(["their VTEP", "the other one"]) {
        number(report, &format!("processor, {what}"), "%", *cpu as f64 / 1e7 / seconds);
    }
    report.memory(
        format!("{hosts} hosts, half of them silent: peak resident memory"),
        us,
        daemons[0].peak_mb(),
    );
    for ip in seen.lost.iter().take(10) {
        eprintln!("  lost: {ip}");
    }
}

/// Answers for all hosts until the end. Says when they were asked by somebody who is no host.
fn answer_for_all(f: &Fabric, hosts: u32, stop: &AtomicBool) -> Vec<u64> {
    let wire = f.guest_port(0, "p1");
    let of: BTreeMap<IpAddr, Party> = (0..hosts).map(host).map(|h| (h.1, h)).collect();
    let mut asked = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let Some((at, frame)) = wire.receive(Duration::from_millis(100)) else { continue };
        let Some(q) = as_question(&frame) else { continue };
        let Some(h) = of.get(&q.wanted) else { continue };
        if q.mac != mac(ASKERS, 1) {
            asked.push(at);
        }
        if let Some(a) = answer(*h, &q) {
            wire.send(&a);
        }
    }
    asked
}

struct Seen {
    /// From when to when they were to be kept.
    span: std::ops::Range<u64>,
    /// Addresses that the other VTEP did not answer for all the time.
    lost: BTreeSet<IpAddr>,
    cpu: [u64; 2],
}

fn watch(f: &Fabric, daemons: &[Daemon; 2], sizes: &Sizes) -> Seen {
    let tables = Tables::open(&f.vteps[1].ns);
    let mouths = [0, 1].map(|i| f.guest_mouth(i, "p1"));
    let all: BTreeSet<Party> = (0..sizes.silent).map(host).collect();
    let missing = || {
        let got: BTreeSet<Party> = tables.neighbors().into_iter().map(|n| (n.mac, n.ip)).collect();
        all.difference(&got).copied().collect::<BTreeSet<_>>()
    };
    find(&mouths, sizes.silent, &|_| true);
    eventually(LATER * 2, "all are bound", || {
        let left = missing();
        if left.is_empty() {
            return Ok(());
        }
        // What was lost on the way, or asked for before its time, is said once more.
        find(&mouths, sizes.silent, &|h| left.contains(h));
        Err(left.len())
    });
    let mut monitor = Monitor::open(&f.vteps[1].ns);
    let before = [0, 1].map(|i| daemons[i].cpu_ns());
    let begun = now();
    let end = begun + sizes.kept.as_nanos() as u64;
    let mut lost = BTreeSet::new();
    let stop = AtomicBool::new(false);
    std::thread::scope(|s| {
        let stopping = Stop(&stop);
        s.spawn(|| speak(&mouths[0], sizes, &stop));
        while now() < end {
            monitor.read_both(
                Duration::from_millis(200),
                |_| {},
                |n| {
                    if !n.new && n.external {
                        lost.insert(n.ip);
                    }
                },
            );
        }
        drop(stopping);
    });
    let end = now();
    let cpu = [0, 1].map(|i| daemons[i].cpu_ns() - before[i]);
    lost.extend(missing().into_iter().map(|h| h.1));
    Seen { span: begun..end, lost, cpu }
}

/// Those who speak say who they are; somebody at the other VTEP asks for the others.
fn find(mouths: &[Wire; 2], hosts: u32, which: &dyn Fn(&Party) -> bool) {
    for n in 0..hosts {
        let h = host(n);
        if which(&h) {
            if is_silent(n) {
                mouths[1].send(&ask(asker(h.1), h.1));
            } else {
                mouths[0].send(&super::announcement(h));
            }
            std::thread::sleep(Duration::from_secs(1) / FIRST);
        }
    }
}

/// Those who speak go on speaking, one after the other.
fn speak(mouth: &Wire, sizes: &Sizes, stop: &AtomicBool) {
    let pause = sizes.confirm / TIMES / sizes.silent.div_ceil(2);
    let mut due = now();
    for n in (0..sizes.silent).cycle().filter(|n| !is_silent(*n)) {
        due += pause.as_nanos() as u64;
        while now() < due {
            if stop.load(Ordering::Relaxed) {
                return;
            }
            std::thread::sleep(
                Duration::from_nanos(due.saturating_sub(now())).min(Duration::from_millis(100)),
            );
        }
        mouth.send(&super::announcement(host(n)));
    }
}

/// The most of these times, in order, that are within one second.
fn busiest(times: &[u64]) -> usize {
    let mut first = 0;
    let of = times.iter().enumerate().map(|(n, t)| {
        while t - times[first] >= 1_000_000_000 {
            first += 1;
        }
        n + 1 - first
    });
    of.max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::{busiest, host, is_silent};

    #[test]
    fn the_busiest_second_may_begin_at_any_time() {
        let ms = |v: &[u64]| v.iter().map(|t| t * 1_000_000).collect::<Vec<_>>();
        assert_eq!(busiest(&ms(&[])), 0);
        assert_eq!(busiest(&ms(&[0, 600, 1200, 1500, 1599, 2700])), 4);
        assert_eq!(busiest(&ms(&[0, 1000, 2000])), 1);
    }

    #[test]
    fn hosts_differ_and_all_four_kinds_are_there() {
        let all: std::collections::BTreeSet<_> = (0..10_000).map(host).collect();
        assert_eq!(all.len(), 10_000);
        let kinds: std::collections::BTreeSet<_> =
            (0..10_000).map(|n| (is_silent(n), host(n).1.is_ipv4())).collect();
        assert_eq!(kinds.len(), 4);
    }
}
