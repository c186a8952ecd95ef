//! What happens to the Linux hosts: new MACs, links that go down, addresses that go to another one. Their kernels have
//! default settings; what they say first is sent for them, so that it is known when.

use super::judge::Stint;
use super::steps::Dice;
use super::world::{Linux, World, announcement};
use super::{Plan, Shared, lock, pause};
use crate::asking::ask;
use crate::frame;
use crate::packet::{Wire, now};
use crate::poll::{SOON, eventually};
use evpn::types::Mac;
use std::net::IpAddr;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

struct State<'a> {
    world: &'a World,
    shared: &'a Mutex<Shared>,
    dice: Dice,
    macs: Vec<Mac>,
    lives: Vec<u32>,
    /// Down until then.
    down: Vec<Option<u64>>,
    /// Who has the floating addresses.
    has: Vec<usize>,
}

pub(super) fn run(world: &World, plan: &Plan, shared: &Mutex<Shared>, stop: &AtomicBool) {
    if world.linux.is_empty() {
        return;
    }
    let count = world.linux.len();
    let mut s = State {
        world,
        shared,
        dice: Dice::new(plan.seed ^ 0xffff),
        macs: world.linux.iter().map(|l| l.host.mac).collect(),
        lives: vec![0; count],
        down: vec![None; count],
        has: (0..world.floating.len()).collect(),
    };
    for n in 0..count {
        s.speaks(n, now());
    }
    for f in 0..s.has.len() {
        s.float(f, s.has[f]);
    }
    let every = plan.step.as_nanos() as u64 * 5;
    loop {
        let span = s.dice.between(every / 2, every * 3 / 2);
        if !pause(stop, Duration::from_nanos(span)) {
            return;
        }
        s.step();
    }
}

impl State<'_> {
    fn step(&mut self) {
        let n = self.dice.below(self.macs.len());
        let away = |v: usize| lock(self.shared).away.contains(&v);
        if away(self.world.linux[n].vtep) {
            return;
        }
        match self.down[n] {
            Some(until) if now() < until => return,
            Some(_) => {
                self.down[n] = None;
                lock(self.shared).count("Linux: link up");
                return self.up(n, self.macs[n]);
            }
            None => {}
        }
        let holds = self.has.contains(&n);
        match self.dice.below(4) {
            0 if !holds => {
                lock(self.shared).count("Linux: new MAC");
                self.gone(n);
                self.world.linux[n].host.ns.sh("ip link set eth0 down");
                self.lives[n] += 1;
                self.up(n, Linux::mac(n, self.lives[n]));
            }
            1 if !holds => {
                lock(self.shared).count("Linux: link down");
                self.gone(n);
                self.world.linux[n].host.ns.sh("ip link set eth0 down");
                let dead = lock(self.shared).ledger.dead;
                self.down[n] = Some(now() + self.dice.between(500_000_000, dead * 3 / 2));
            }
            _ if !self.has.is_empty() => {
                let f = self.dice.below(self.has.len());
                if self.has[f] != n && !away(self.world.linux[self.has[f]].vtep) {
                    lock(self.shared).count("Linux: failover of an address");
                    let old = &self.world.linux[self.has[f]];
                    let [a, b] = self.world.floating[f];
                    old.host.ns.sh(&format!("ip addr del {a}/32 dev eth0; ip addr del {b}/128 dev eth0"));
                    self.float(f, n);
                }
            }
            _ => {}
        }
    }

    fn gone(&self, n: usize) {
        let mut s = lock(self.shared);
        let at = now();
        for ip in self.world.linux[n].ips {
            s.ledger.gone(ip, at);
        }
    }

    /// The link comes up with this MAC, and it speaks as soon as it is heard.
    fn up(&mut self, n: usize, mac: Mac) {
        let l = &self.world.linux[n];
        let begun = now();
        self.macs[n] = mac;
        l.host.ns.sh(&format!(
            "ip link set eth0 address {mac} && ip link set eth0 up
             ip addr replace {}/16 dev eth0 && ip addr replace {}/64 dev eth0 nodad",
            l.ips[0], l.ips[1]
        ));
        let near = Wire::open(&self.world.fabric.vteps[l.vtep].ns, &l.port);
        let hello = frame::data(Mac::BROADCAST, Mac::ZERO, 0);
        eventually(SOON, "the port is heard again", || {
            l.mouth.send(&hello);
            let heard = near.find(Duration::from_millis(5), |f| frame::as_data(f, Mac::BROADCAST));
            heard.map(drop).ok_or("nothing")
        });
        self.speaks(n, begun);
    }

    /// It begins to talk to somebody, which takes a question.
    fn speaks(&mut self, n: usize, begun: u64) {
        let l = &self.world.linux[n];
        for ip in l.ips {
            self.now_has(ip, n, begun);
        }
        let mouths = self.world.mouths.len();
        let first = self.dice.below(mouths);
        let other = (0..mouths).map(|m| (first + m) % mouths).find(|m| self.world.mouths[*m].vtep != l.vtep);
        let Some(other) = other else { return };
        for (ip, (_, wanted)) in l.ips.into_iter().zip(self.world.mouths[other].asker) {
            l.mouth.send(&ask((self.macs[n], ip), wanted));
            lock(self.shared).ledger.announced(ip, now());
        }
    }

    /// A floating address comes to a host, which says so.
    fn float(&mut self, f: usize, n: usize) {
        let l = &self.world.linux[n];
        self.has[f] = n;
        let [a, b] = self.world.floating[f];
        let begun = now();
        l.host.ns.sh(&format!("ip addr add {a}/32 dev eth0; ip addr add {b}/128 dev eth0 nodad"));
        for ip in [a, b] {
            self.now_has(ip, n, begun);
            l.mouth.send(&announcement((self.macs[n], ip)));
            lock(self.shared).ledger.announced(ip, now());
        }
    }

    fn now_has(&self, ip: IpAddr, n: usize, begun: u64) {
        let (mac, vtep) = (self.macs[n], self.world.linux[n].vtep);
        let stint = Stint { mac, vtep, begun, announced: None, answers: true, gone: None };
        lock(self.shared).ledger.has(ip, stint);
    }
}
