//! Three VTEPs with vtepd, ports that many hosts share, and Linux hosts on ports of their own.

use super::Plan;
use super::steps::Dice;
use crate::asking::Party;
use crate::fabric::{Fabric, Host};
use crate::frame;
use crate::packet::Wire;
use crate::poll::{LATER, eventually, same};
use crate::vtepd::{Conf, Vtepd};
use evpn::types::Mac;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub(super) const VTEPS: usize = 3;
/// Ports of each VTEP that hosts share.
const PORTS: [&str; 2] = ["p1", "p2"];

/// How a host behaves.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Kind {
    /// Announces nothing, and asks when it begins to talk: Linux by default.
    Asks,
    /// Probes before use and announces twice (RFC 5227).
    Careful,
    /// Answers, and never speaks first.
    Silent,
    /// Announces itself, and never answers.
    Rude,
}

impl Kind {
    pub(super) fn answers(self) -> bool {
        self != Self::Rude
    }
}

/// A host that is nothing but its frames.
#[derive(Clone, Debug)]
pub(super) struct Guest {
    pub(super) kind: Kind,
    pub(super) mac: Mac,
    pub(super) ips: [IpAddr; 2],
    /// The mouth where it is, if it runs.
    pub(super) at: Option<usize>,
    /// It uses its addresses; otherwise it checks them.
    pub(super) has: bool,
    /// Counts its lives: what was planned in an earlier one is not done.
    pub(super) life: u32,
    /// Left in peace until then.
    pub(super) rests: u64,
}

/// The far end of a shared port, and a host there that asks and is always there.
#[derive(Debug)]
pub(super) struct Mouth {
    pub(super) vtep: usize,
    pub(super) wire: Wire,
    pub(super) asker: [Party; 2],
}

/// A Linux host behind a port of its own.
#[derive(Debug)]
pub(super) struct Linux {
    pub(super) vtep: usize,
    pub(super) port: String,
    pub(super) host: Host,
    pub(super) ips: [IpAddr; 2],
    pub(super) ear: Wire,
    pub(super) mouth: Wire,
}

/// See the module.
#[derive(Debug)]
pub(super) struct World {
    pub(super) mouths: Vec<Mouth>,
    pub(super) linux: Vec<Linux>,
    /// Addresses that go from one Linux host to another.
    pub(super) floating: Vec<[IpAddr; 2]>,
    pub(super) confs: Vec<Conf>,
    pub(super) fabric: Fabric,
}

pub(super) fn ips(n: u16) -> [IpAddr; 2] {
    let [a, b] = n.to_be_bytes();
    [Ipv4Addr::new(10, 66, a, b).into(), Ipv6Addr::new(0xfd00, 0x66, 0, 0, 0, 0, 0, n).into()]
}

/// The MAC of host `n` in its life with this number; no other has it.
pub(super) fn mac(n: u16, life: u32) -> Mac {
    let ([a, b], [_, x, y, z]) = (n.to_be_bytes(), life.to_be_bytes());
    Mac([2 | (x << 4), 0xd0, y, z, a, b])
}

pub(super) fn announcement((mac, ip): Party) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => frame::garp(mac, ip),
        IpAddr::V6(ip) => frame::unsolicited_na(mac, ip),
    }
}

const FIRST_GUEST: u16 = 0x1000;
const FIRST_LINUX: u16 = 0x2000;
const FIRST_FLOATING: u16 = 0x3000;
const FIRST_ASKER: u16 = 0x4000;
const FLOATING: u16 = 3;

impl World {
    pub(super) fn new(plan: &Plan) -> (Self, Vec<Vtepd>) {
        let fabric = Fabric::new(VTEPS);
        for v in &fabric.vteps {
            v.add_port(&fabric.guests, PORTS[1]);
            v.make_devices(100, &PORTS);
        }
        let linux: Vec<_> = (0..plan.linux).map(|n| Linux::new(&fabric, n)).collect();
        let confs: Vec<_> = (0..VTEPS)
            .map(|i| {
                let mut c = fabric.conf(i);
                let own = linux.iter().filter(|l| l.vtep == i).map(|l| l.port.clone());
                c.vnis[0].1 = PORTS.iter().map(|p| (*p).to_owned()).chain(own).collect();
                c.sections = format!("[arp]\nconfirm-time = \"{}s\"", plan.confirm.as_secs());
                c
            })
            .collect();
        let daemons: Vec<_> = (0..VTEPS).map(|i| Vtepd::start(&fabric.vteps[i].ns, &confs[i])).collect();
        for (v, d) in fabric.vteps.iter().zip(&daemons) {
            eventually(LATER, "everybody floods to everybody", || same(v.flood_list(100).len(), VTEPS - 1));
            d.converge();
        }
        let mouths = (0..VTEPS * PORTS.len()).map(|m| {
            let (vtep, n) = (m / PORTS.len(), FIRST_ASKER + m as u16);
            let wire = Wire::incoming(&fabric.guests, &format!("x{}{}", vtep + 1, PORTS[m % PORTS.len()]));
            Mouth { vtep, wire, asker: ips(n).map(|ip| (mac(n, 0), ip)) }
        });
        let mouths = mouths.collect();
        let floating = (0..FLOATING.min(plan.linux)).map(|n| ips(FIRST_FLOATING + n)).collect();
        (Self { mouths, linux, floating, confs, fabric }, daemons)
    }

    pub(super) fn guests(plan: &Plan) -> Vec<Guest> {
        let kind = |n: u16| match n % 8 {
            0 | 4 => Kind::Careful,
            1 | 5 => Kind::Silent,
            7 => Kind::Rude,
            _ => Kind::Asks,
        };
        (0..plan.hosts.saturating_sub(plan.linux))
            .map(|n| {
                let number = FIRST_GUEST + n;
                let (mac, ips) = (mac(number, 0), ips(number));
                Guest { kind: kind(n), mac, ips, at: None, has: false, life: 0, rests: 0 }
            })
            .collect()
    }

    /// Whom a host asks when it begins to talk: somebody behind another VTEP.
    pub(super) fn stranger(&self, mouth: usize, dice: &mut Dice) -> [Party; 2] {
        let vtep = self.mouths[mouth].vtep;
        let others: Vec<_> = self.mouths.iter().filter(|m| m.vtep != vtep).collect();
        others[dice.below(others.len())].asker
    }
}

impl Linux {
    fn new(f: &Fabric, n: u16) -> Self {
        let (vtep, port, number) = (usize::from(n) % VTEPS, format!("l{n}"), FIRST_LINUX + n);
        let ips = ips(number);
        let host =
            f.host(vtep, &port, mac(number, 0), &[&format!("{}/16", ips[0]), &format!("{}/64", ips[1])]);
        f.vteps[vtep].ns.sh(&format!("ip link set {port} master br100"));
        let (ear, mouth) = (Wire::incoming(&host.ns, "eth0"), Wire::deaf(&host.ns, "eth0"));
        Self { vtep, port, host, ips, ear, mouth }
    }

    /// Its MAC in its life with this number.
    pub(super) fn mac(n: usize, life: u32) -> Mac {
        mac(FIRST_LINUX + n as u16, life)
    }
}

#[cfg(test)]
mod tests {
    use super::mac;

    #[test]
    fn macs_are_unicast_and_differ_in_every_life() {
        let all: std::collections::BTreeSet<_> =
            (0..50).flat_map(|n| (0..5000).map(move |life| mac(n, life))).collect();
        assert_eq!(all.len(), 250_000);
        assert!(all.iter().all(|m| m.0[0] & 3 == 2));
    }
}
