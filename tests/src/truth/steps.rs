//! What happens to the hosts that are nothing but their frames, and who asks for whom.

use super::judge::{Asked, Stint};
use super::world::{Guest, Kind, World, announcement, mac};
use super::{Plan, Shared, lock};
use crate::asking::{ask, check};
use crate::frame;
use crate::packet::now;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Mutex;
use std::time::Duration;

const MS: u64 = 1_000_000;
/// A host that was just moved is left where it is for so long.
const REST: u64 = 3000 * MS;
/// RFC 5227 §2.1.1 and §2.3, with shorter pauses before the address is used.
const CHECKS: u8 = 3;
const CHECK_GAP: u64 = 300 * MS;
const CHECK_WAIT: u64 = 500 * MS;
const ANNOUNCE_GAP: u64 = 2000 * MS;
/// All hosts start within this time.
const FIRST: u64 = 3000 * MS;
/// Most requests in one turn, and how far they may be behind.
const PER_TURN: usize = 20;
const ARREARS: u64 = 200 * MS;
/// Turns of the loop.
const TURN: Duration = Duration::from_millis(2);

/// Random numbers; the same seed gives the same.
#[derive(Debug)]
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(super) fn below(&mut self, n: usize) -> usize {
        // Marsaglia's xorshift.
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % n.max(1) as u64) as usize
    }

    /// Between these, in nanoseconds.
    pub(super) fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below((high - low) as usize) as u64
    }
}

/// What is to happen to a guest later.
#[derive(Clone, Copy, Debug)]
enum Act {
    Boot { mouth: usize },
    Check { done: u8 },
    Announce { done: u8 },
}

#[derive(Clone, Copy, Debug)]
struct Planned {
    guest: usize,
    life: u32,
    act: Act,
}

struct Run<'a> {
    world: &'a World,
    shared: &'a Mutex<Shared>,
    dice: Dice,
    /// By time; the second number keeps them apart.
    later: BTreeMap<(u64, u64), Planned>,
    number: u64,
    dead: u64,
    all: Vec<IpAddr>,
}

/// Goes on for the span of the plan, or until something else has given up.
pub(super) fn run(world: &World, plan: &Plan, shared: &Mutex<Shared>, given_up: impl Fn() -> bool) {
    let begun = now();
    let mut r = Run {
        world,
        shared,
        dice: Dice::new(plan.seed),
        later: BTreeMap::new(),
        number: 0,
        dead: lock(shared).ledger.dead,
        all: Vec::new(),
    };
    r.begin();
    let (mut step, mut asks) = (begun + FIRST + CHECK_GAP * 4, begun);
    let every = plan.step.as_nanos() as u64;
    let mut lie = plan.liar.then_some(begun + plan.span.as_nanos() as u64 / 2);
    while now() < begun + plan.span.as_nanos() as u64 && !given_up() {
        crate::interrupt::check();
        while let Some(e) = r.later.first_entry().filter(|e| e.key().0 <= now()) {
            let p = e.remove();
            r.act(p);
        }
        if now() >= step {
            step = now() + r.dice.between(every / 2, every * 3 / 2);
            r.step();
        }
        if lie.is_some_and(|t| now() >= t) {
            lie = None;
            r.lie();
        }
        // A machine that is too slow for it asks less.
        asks = asks.max(now().saturating_sub(ARREARS));
        for _ in 0..PER_TURN {
            if now() < asks {
                break;
            }
            asks += 1_000_000_000 / u64::from(plan.asks.max(1));
            r.ask();
        }
        std::thread::sleep(TURN);
    }
}

impl Run<'_> {
    fn begin(&mut self) {
        let mut s = lock(self.shared);
        let at = now();
        for m in &self.world.mouths {
            for (mac, ip) in m.asker {
                let stint =
                    Stint { mac, vtep: m.vtep, begun: at, announced: Some(at), answers: true, gone: None };
                s.ledger.has(ip, stint);
                m.wire.send(&announcement((mac, ip)));
            }
        }
        let floating = self.world.floating.iter().flatten();
        let of_linux = self.world.linux.iter().flat_map(|l| &l.ips);
        self.all = s.by_ip.keys().chain(floating).chain(of_linux).copied().collect();
        let count = s.guests.len();
        drop(s);
        for guest in 0..count {
            let mouth = self.dice.below(self.world.mouths.len());
            let when = at + self.dice.between(0, FIRST);
            self.plan(when, guest, 0, Act::Boot { mouth });
        }
    }

    fn plan(&mut self, at: u64, guest: usize, life: u32, act: Act) {
        self.number += 1;
        self.later.insert((at, self.number), Planned { guest, life, act });
    }

    fn act(&mut self, p: Planned) {
        let (guest, life) = (p.guest, p.life);
        let mut s = lock(self.shared);
        let Some(g) = s.guests.get(guest).filter(|g| g.life == life).cloned() else { return };
        let mouth = match (p.act, g.at) {
            (Act::Boot { mouth }, _) | (Act::Check { .. } | Act::Announce { .. }, Some(mouth)) => mouth,
            (Act::Check { .. } | Act::Announce { .. }, None) => return,
        };
        // Nobody would hear it.
        if s.away.contains(&self.world.mouths[mouth].vtep) {
            drop(s);
            self.plan(now() + 200 * MS, guest, life, p.act);
            return;
        }
        let wire = &self.world.mouths[mouth].wire;
        match p.act {
            Act::Boot { mouth } => {
                s.guests[guest].at = Some(mouth);
                if g.kind == Kind::Careful {
                    drop(s);
                    self.plan(now(), guest, life, Act::Check { done: 0 });
                } else {
                    self.begins(&mut s, guest);
                    drop(s);
                    self.speaks_first(guest, &g, mouth);
                }
            }
            Act::Check { done } => {
                for ip in g.ips {
                    // One is enough for IPv6 (RFC 4862 §5.1).
                    if ip.is_ipv4() || done == 0 {
                        wire.send(&check(g.mac, ip));
                    }
                }
                drop(s);
                let (gap, next) = match done + 1 {
                    CHECKS => (CHECK_WAIT, Act::Announce { done: 0 }),
                    done => (CHECK_GAP, Act::Check { done }),
                };
                self.plan(now() + gap, guest, life, next);
            }
            Act::Announce { done } => {
                if done == 0 {
                    self.begins(&mut s, guest);
                }
                for ip in g.ips {
                    wire.send(&announcement((g.mac, ip)));
                    s.ledger.announced(ip, now());
                }
                drop(s);
                if done == 0 {
                    self.plan(now() + ANNOUNCE_GAP, guest, life, Act::Announce { done: 1 });
                }
            }
        }
    }

    /// From now on it answers.
    fn begins(&self, s: &mut Shared, guest: usize) {
        let begun = now();
        s.guests[guest].has = true;
        s.guests[guest].rests = begun + REST;
        let g = s.guests[guest].clone();
        let Some(mouth) = g.at else { return };
        let vtep = self.world.mouths[mouth].vtep;
        for ip in g.ips {
            let answers = g.kind.answers();
            s.ledger.has(ip, Stint { mac: g.mac, vtep, begun, announced: None, answers, gone: None });
        }
    }

    fn speaks_first(&mut self, guest: usize, g: &Guest, mouth: usize) {
        let wire = &self.world.mouths[mouth].wire;
        let stranger = self.world.stranger(mouth, &mut self.dice);
        for (ip, (_, wanted)) in g.ips.into_iter().zip(stranger) {
            match g.kind {
                Kind::Silent | Kind::Careful => return,
                Kind::Asks => wire.send(&ask((g.mac, ip), wanted)),
                Kind::Rude => wire.send(&announcement((g.mac, ip))),
            };
            let mut s = lock(self.shared);
            if s.guests[guest].life == g.life {
                s.ledger.announced(ip, now());
            }
        }
    }

    /// Something happens to somebody.
    fn step(&mut self) {
        let mut s = lock(self.shared);
        let guest = self.dice.below(s.guests.len());
        let Some(g) = s.guests.get(guest).filter(|g| g.has && now() > g.rests).cloned() else { return };
        let Some(from) = g.at else { return };
        let to = self.dice.below(self.world.mouths.len());
        let away = |m: usize| s.away.contains(&self.world.mouths[m].vtep);
        if to == from || away(from) || away(to) {
            return;
        }
        let what = self.dice.below(100);
        // Who says nothing tells nobody of a new MAC either.
        let renewed = g.kind != Kind::Silent && what >= 60;
        if what < 35 {
            s.count("hot move");
            return self.hot(s, guest, to);
        }
        if renewed && what >= 85 {
            s.count("failover to a new MAC");
            return self.failover(s, guest, to);
        }
        let silent = (50..60).contains(&what);
        s.count(match (silent, renewed) {
            (true, _) => "silent for long",
            (false, false) => "cold move",
            (false, true) => "cold move, new MAC",
        });
        let at = now();
        for ip in g.ips {
            s.ledger.gone(ip, at);
        }
        let g = &mut s.guests[guest];
        (g.at, g.has, g.life) = (None, false, g.life + 1);
        let life = g.life;
        if renewed {
            g.mac = renew(g);
        }
        drop(s);
        let off = if silent {
            self.dice.between(self.dead, self.dead * 2)
        } else {
            self.dice.between(200 * MS, REST)
        };
        self.plan(at + off, guest, life, Act::Boot { mouth: to });
    }

    /// It runs there from now on; its hypervisor says RARP, or it announces itself.
    fn hot(&mut self, mut s: std::sync::MutexGuard<'_, Shared>, guest: usize, to: usize) {
        s.guests[guest].at = Some(to);
        s.guests[guest].life += 1;
        self.begins(&mut s, guest);
        let g = s.guests[guest].clone();
        let wire = &self.world.mouths[to].wire;
        if g.kind == Kind::Silent || self.dice.below(2) == 0 {
            wire.send(&frame::rarp(g.mac));
        } else {
            for ip in g.ips {
                wire.send(&announcement((g.mac, ip)));
            }
        }
    }

    /// Another one takes the addresses over at once, as a cluster's manager does.
    fn failover(&mut self, mut s: std::sync::MutexGuard<'_, Shared>, guest: usize, to: usize) {
        let g = &mut s.guests[guest];
        (g.at, g.life) = (Some(to), g.life + 1);
        g.mac = renew(g);
        self.begins(&mut s, guest);
        let g = s.guests[guest].clone();
        for ip in g.ips {
            self.world.mouths[to].wire.send(&announcement((g.mac, ip)));
            s.ledger.announced(ip, now());
        }
    }

    /// Somebody says that an asker's address is his.
    fn lie(&mut self) {
        let victim = self.world.mouths[0].asker[0].1;
        let last = self.world.mouths.len() - 1;
        self.world.mouths[last].wire.send(&announcement((mac(u16::MAX, 0), victim)));
    }

    /// Somebody asks for somebody.
    fn ask(&mut self) {
        let mouth = self.dice.below(self.world.mouths.len());
        let ip = self.all[self.dice.below(self.all.len())];
        let m = &self.world.mouths[mouth];
        let mut s = lock(self.shared);
        // Behind the same port they hear each other without the VTEP.
        if s.by_ip.get(&ip).is_some_and(|n| s.guests[*n].at == Some(mouth)) {
            return;
        }
        let asker = m.asker[usize::from(ip.is_ipv6())];
        let index = s.asked.len();
        s.asked.push(Asked { vtep: m.vtep, ip, at: now(), took: None });
        s.pending.insert((mouth, ip), index);
        m.wire.send(&ask(asker, ip));
    }
}

/// A MAC that nobody had before.
fn renew(g: &Guest) -> evpn::types::Mac {
    let [.., a, b] = g.mac.0;
    mac(u16::from_be_bytes([a, b]), g.life)
}
