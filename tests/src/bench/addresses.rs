//! Case (g): a VM with an address leaves an FRR, announced as QEMU does: five RARP and two gratuitous ARP in 0.8 s. When do
//! the others know its address at the new place, counted from when they know its MAC there? The system under test is
//! the new place; the peers are a vtepd and the FRR that had the VM.
//!
//! Times of routes are read off the peers' wires, so that both peers are judged alike.

use super::{Daemon, Report, Samples, Sizes, System, mac};
use crate::fabric::Fabric;
use crate::frame;
use crate::packet::{Monitor, Wire, now};
use crate::poll::{LATER, eventually, same};
use evpn::types::Mac;
use std::net::Ipv4Addr;
use std::time::Duration;

const SET: u8 = 8;
/// FRR has not sent the address after this time: counted as so much.
const CAP: Duration = Duration::from_secs(24);
/// Repetitions; FRR's are waited for in full.
const MOST: usize = 50;
const FRR_REPEATS: usize = 3;
const MS: u64 = 1_000_000;
/// When QEMU says what after the start of the guest: RARP, and the guest's own two gratuitous ARP.
const RARPS: [u64; 5] = [0, 50, 200, 450, 800];
const GARPS: [u64; 2] = [300, 600];

const TARGET: usize = 0;
const FRR_PEER: usize = 1;
const VTEPD_PEER: usize = 2;

pub(super) fn run(system: System, sizes: &Sizes, report: &mut Report) {
    let f = Fabric::new(3);
    let systems = [system, System::Frr, System::Vtepd];
    let daemons: Vec<_> = systems.iter().enumerate().map(|(i, s)| Daemon::start(&f, i, *s)).collect();
    // The VM's first home must have learned its address; the new one is as it is by default.
    f.vteps[FRR_PEER].ns.sh("echo 1 > /proc/sys/net/ipv4/conf/br100/arp_accept");
    for v in &f.vteps {
        eventually(LATER, "everybody floods to everybody", || same(v.flood_list(100).len(), 2));
    }
    let wires = [Wire::open(&f.spine, "u2"), Wire::open(&f.spine, "u3")];
    let mut observer = Monitor::open(&f.vteps[FRR_PEER].ns);
    let count = match system {
        System::Vtepd => sizes.moves.min(MOST),
        System::Frr | System::GoBgp => FRR_REPEATS,
    };
    let mut routes = [Samples::default(), Samples::default()];
    let mut kernel = Samples::default();
    for n in 0..count {
        let (vm, ip) = (mac(SET, n as u32), Ipv4Addr::new(192, 168, 101, n as u8 + 1));
        f.guest_port(FRR_PEER, "p1").send(&frame::garp(vm, ip));
        for i in [TARGET, VTEPD_PEER] {
            eventually(LATER, "the VM is known at home", || {
                same(f.vteps[i].neigh_row(100, ip.into())["lladdr"].clone(), vm.to_string().into())
            });
        }
        std::thread::sleep(Duration::from_millis(300));
        wires.iter().for_each(Wire::drain);
        observer.drain();
        let m = one(&f, &wires, &mut observer, vm, ip);
        for (samples, [mac, ip]) in routes.iter_mut().zip(m.routes) {
            samples.push(after(mac, ip));
        }
        kernel.push(after(m.row, m.neighbour));
    }
    drop(daemons);
    let [frr, vtepd] = &routes;
    report.times("MAC+IP after MAC: route at a vtepd peer", Some(system), vtepd);
    report.times("MAC+IP after MAC: route at an FRR peer", Some(system), frr);
    report.times("MAC+IP after MAC: kernel of an FRR peer", Some(system), &kernel);
}

/// How much later than the MAC the address was there; capped.
fn after(mac: Option<u64>, ip: Option<u64>) -> u64 {
    let cap = CAP.as_nanos() as u64;
    mac.zip(ip).map_or(cap, |(mac, ip)| ip.saturating_sub(mac).min(cap))
}

/// When what was seen.
#[derive(Debug, Default)]
struct Moments {
    /// MAC and MAC+IP route of the new place at the FRR peer and at the vtepd peer.
    routes: [[Option<u64>; 2]; 2],
    row: Option<u64>,
    neighbour: Option<u64>,
}

impl Moments {
    fn complete(&self) -> bool {
        self.routes.iter().flatten().all(Option::is_some) && self.row.is_some() && self.neighbour.is_some()
    }
}

/// Announces the VM at its new place and watches the peers until they know all, or the cap is reached.
fn one(f: &Fabric, wires: &[Wire; 2], observer: &mut Monitor, vm: Mac, ip: Ipv4Addr) -> Moments {
    let port = f.guest_port(TARGET, "p1");
    let target = f.vteps[TARGET].address;
    let mut due: Vec<(u64, Vec<u8>)> = RARPS.iter().map(|t| (*t, frame::rarp(vm))).collect();
    due.extend(GARPS.iter().map(|t| (*t, frame::garp(vm, ip))));
    due.sort();
    let mut due = due.into_iter().peekable();
    // From the MAC's length on: 48, MAC, length of the IP, IP.
    let keys: [Vec<u8>; 2] =
        [[&[48], &vm.0[..], &[0]].concat(), [&[48], &vm.0[..], &[32], &ip.octets()[..]].concat()];
    let mut m = Moments::default();
    let begun = now();
    while !m.complete() && now() - begun < CAP.as_nanos() as u64 {
        if let Some((_, frame)) = due.next_if(|(t, _)| now() - begun >= t * MS) {
            port.send(&frame);
        }
        observer.read_both(
            Duration::from_micros(100),
            |n| {
                if m.row.is_none() && n.new && n.mac == vm && n.vtep == Some(target) {
                    m.row = Some(n.at);
                }
            },
            |n| {
                if m.neighbour.is_none() && n.new && n.ip == ip && n.external && n.mac == Some(vm) {
                    m.neighbour = Some(n.at);
                }
            },
        );
        for (wire, seen) in wires.iter().zip(&mut m.routes) {
            while let Some((at, x)) = wire.poll() {
                // TCP from the new place.
                if x.get(23) != Some(&6) || x.get(26..30) != Some(&[10, 0, 0, 1]) {
                    continue;
                }
                for (key, seen) in keys.iter().zip(seen.iter_mut()) {
                    if seen.is_none() && x.windows(key.len()).any(|w| w == key.as_slice()) {
                        *seen = Some(at);
                    }
                }
            }
        }
    }
    // The rest of the announcement, so that the guest is where it is.
    port.send(&frame::garp(vm, ip));
    m
}
