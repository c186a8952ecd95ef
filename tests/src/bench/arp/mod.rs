//! Case (k): ARP and ND. An address goes to another MAC at another site (the old guest is shut down first), and a Linux host
//! that has cached the old one, with default settings, talks to it all the time: when does a packet reach the new guest?
//! Counted from the new guest's announcement. And what else there is to say of ARP and ND, in parts.

mod disaster;
mod known;
mod silent;
mod storm;

use super::{Daemon, Report, Samples, Sizes, System, mac, quiet, three};
use crate::asking::Party;
use crate::fabric::Fabric;
use crate::frame;
use crate::packet::{Monitor, now};
use crate::poll::{LATER, eventually, same};
use crate::talkers::{ADDRESSES, Change, Talkers};
use clap::ValueEnum;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

const SET: u8 = 11;
/// More say nothing new.
const MOST: usize = 50;
/// FRR's are waited for in full, as long as a cache keeps what nobody corrects.
const FRR_REPEATS: usize = 2;
const CAP: Duration = Duration::from_secs(90);

/// A part of the case `arp`.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum Part {
    /// A host with the old MAC cached, behind vtepd and behind FRR
    Changed,
    /// A new guest's address at all peers
    Bound,
    /// Questions of known hosts for known hosts
    Known,
    /// Hosts that only answer, for a long time
    Silent,
    /// Moves beside a port that floods ARP
    Storm,
    /// A guest that starts elsewhere after its VTEP is lost
    Disaster,
}

pub(super) fn run(system: System, sizes: &Sizes, report: &mut Report) {
    let parts: Vec<_> =
        Part::value_variants().iter().filter(|p| sizes.part.is_none_or(|o| o == **p)).collect();
    for part in parts {
        match (part, system) {
            (Part::Changed, System::Vtepd) => {
                let count = sizes.moves.min(MOST);
                changed(system, [system; 3], count, "", report);
                changed(
                    system,
                    [System::Vtepd, System::Vtepd, System::Frr],
                    count,
                    ", host behind FRR",
                    report,
                );
            }
            (Part::Changed, System::Frr) => {
                changed(system, [system; 3], FRR_REPEATS.min(sizes.moves), "", report);
            }
            (Part::Bound, System::Vtepd) => bound(sizes.moves.min(MOST), report),
            (Part::Known, System::Vtepd) => known::run(sizes, report),
            (Part::Silent, System::Vtepd) => silent::run(sizes, report),
            (Part::Storm, System::Vtepd) => storm::run(sizes, report),
            (Part::Disaster, System::Vtepd) => disaster::run(sizes, report),
            // FRR has nothing of the rest, or does it with the kernel alone; GoBGP does nothing with hosts.
            (_, System::Frr | System::GoBgp) => {}
        }
    }
}

/// Gratuitous ARP or unsolicited advertisement.
fn announcement((mac, ip): Party) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => frame::garp(mac, ip),
        IpAddr::V6(ip) => frame::unsolicited_na(mac, ip),
    }
}

fn changed(system: System, at: [System; 3], count: usize, note: &str, report: &mut Report) {
    let f = Fabric::new(3);
    let daemons: Vec<_> = at.iter().enumerate().map(|(i, s)| Daemon::start(&f, i, *s)).collect();
    for (v, s) in f.vteps.iter().zip(at) {
        eventually(LATER, "everybody floods to everybody", || same(v.flood_list(100).len(), 2));
        if s == System::Frr {
            // As FRR's users are told to set it: else it never learns an address from an announcement.
            v.ns.sh("echo 1 > /proc/sys/net/ipv4/conf/br100/arp_accept");
            let _ = v.ns.try_sh("echo 1 > /proc/sys/net/ipv6/conf/br100/accept_untracked_na");
        }
    }
    let t = Talkers::new(&f);
    quiet(&f);
    for ip in ADDRESSES {
        let mut took = Samples::default();
        t.settle(ip, 0);
        for n in 0..count {
            let gap = t.change(&f, ip, 1 - n % 2, Change::Cold, CAP);
            took.push(gap.unwrap_or(CAP.as_nanos() as u64));
            eventually(LATER, "they talk", || t.settled(ip));
        }
        let family = if ip.is_ipv4() { "IPv4" } else { "IPv6" };
        report.times(
            format!("changed MAC, host with the old one cached, {family}{note}"),
            Some(system),
            &took,
        );
    }
    drop(daemons);
}

/// A new guest's first gratuitous ARP: when do all peers' kernels answer for its address?
fn bound(count: usize, report: &mut Report) {
    let (f, daemons) = three(System::Vtepd);
    let port = f.guest_port(0, "p1");
    let mut peers = [1, 2].map(|i| Monitor::open(&f.vteps[i].ns));
    let mut took = Samples::default();
    for n in 0..count {
        let (vm, ip) = (mac(SET, n as u32), Ipv4Addr::new(192, 168, 102, n as u8 + 1));
        peers.iter_mut().for_each(Monitor::drain);
        let begun = port.send(&frame::garp(vm, ip));
        let last = peers.iter_mut().map(|m| answered(m, ip.into())).max();
        took.push(last.expect("two peers") - begun);
        std::thread::sleep(Duration::from_millis(20 + (n as u64 * 7) % 11));
    }
    drop(daemons);
    report.times("MAC+IP at all peers after the first gratuitous ARP", Some(System::Vtepd), &took);
}

fn answered(monitor: &mut Monitor, ip: IpAddr) -> u64 {
    let (end, mut seen) = (now() + LATER.as_nanos() as u64, None);
    while seen.is_none() && now() < end {
        monitor.read_both(
            Duration::from_millis(100),
            |_| {},
            |n| {
                if seen.is_none() && n.new && n.external && n.ip == ip {
                    seen = Some(n.at);
                }
            },
        );
    }
    seen.expect("the peer's kernel answers for the address")
}
