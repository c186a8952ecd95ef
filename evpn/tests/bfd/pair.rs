//! Two tables on one virtual clock, with a link between them that loses, delays and reorders.

use evpn::bfd::{Arrival, Change, Config, Hops, LENGTH, Output, Packet, Path, State, Table};
use evpn::types::{PeerId, Span, Time};
use std::collections::BTreeMap;
use std::net::IpAddr;

pub(crate) const PEER: PeerId = PeerId(7);

/// How packets travel.
#[derive(Clone, Debug)]
pub(crate) struct Link {
    /// One way, at least and at most.
    pub(crate) delay: (Span, Span),
    /// Of a thousand packets so many are lost.
    pub(crate) loss: u64,
    /// But never so many in a row in one direction; 0: as it comes.
    pub(crate) never: u32,
    /// Nothing gets through from this side.
    pub(crate) cut: [bool; 2],
    pub(crate) seed: u64,
}

impl Default for Link {
    fn default() -> Self {
        Self { delay: (Span::millis(1), Span::millis(1)), loss: 0, never: 0, cut: [false; 2], seed: 1 }
    }
}

pub(crate) fn config(ms: u64) -> Config {
    Config { desired_tx: Span::millis(ms), required_rx: Span::millis(ms), multiplier: 3 }
}

#[derive(Debug)]
pub(crate) struct Pair {
    pub(crate) now: Time,
    pub(crate) sides: [Table; 2],
    pub(crate) link: Link,
    /// Everything sent.
    pub(crate) sent: Vec<(Time, usize, Packet)>,
    pub(crate) changes: Vec<(Time, usize, Change)>,
    queue: BTreeMap<(Time, u64), (usize, [u8; LENGTH])>,
    serial: u64,
    lost: [u32; 2],
}

fn address(side: usize) -> IpAddr {
    IpAddr::from([10, 0, 0, side as u8 + 1])
}

pub(crate) fn path_to(side: usize) -> Path {
    Path { peer: address(side), scope: 0, hops: Hops::Single }
}

impl Pair {
    pub(crate) fn new(configs: [Config; 2], link: Link) -> Self {
        let mut p = Self {
            now: Time(0),
            sides: [Table::new(link.seed ^ 0xaaaa), Table::new(link.seed ^ 0x5555)],
            link,
            sent: Vec::new(),
            changes: Vec::new(),
            queue: BTreeMap::new(),
            serial: 0,
            lost: [0; 2],
        };
        for (side, c) in configs.into_iter().enumerate() {
            p.act(side, |t, at, out| t.set(PEER, path_to(1 - side), c, at, out));
        }
        p
    }

    fn random(&mut self, below: u64) -> u64 {
        let s = &mut self.link.seed;
        *s = s.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        if below == 0 { 0 } else { (*s >> 33) % below }
    }

    pub(crate) fn act(&mut self, side: usize, f: impl FnOnce(&mut Table, Time, &mut Vec<Output>)) {
        let mut out = Vec::new();
        f(&mut self.sides[side], self.now, &mut out);
        for o in out {
            match o {
                Output::Send(PEER, octets) => self.send(side, octets),
                Output::Changed(PEER, c) => self.changes.push((self.now, side, c)),
                other => panic!("{other:?}"),
            }
        }
    }

    fn send(&mut self, side: usize, octets: [u8; LENGTH]) {
        self.sent.push((self.now, side, Packet::decode(&octets).unwrap()));
        let unlucky = self.random(1000) < self.link.loss;
        let may = self.link.never == 0 || self.lost[side] + 1 < self.link.never;
        if self.link.cut[side] || (unlucky && may) {
            self.lost[side] += 1;
            return;
        }
        self.lost[side] = 0;
        let (low, high) = self.link.delay;
        let at = self.now + low + Span(self.random(high.0 - low.0 + 1));
        self.serial += 1;
        self.queue.insert((at, self.serial), (1 - side, octets));
    }

    /// Lets so much time pass.
    pub(crate) fn run(&mut self, span: Span) {
        self.until(span, |_| false);
    }

    /// Until `done`, at most for so long. Says how long it took; `None`: it never was.
    pub(crate) fn until(&mut self, limit: Span, done: impl Fn(&Self) -> bool) -> Option<Span> {
        let (begun, end) = (self.now, self.now + limit);
        loop {
            if done(self) {
                return Some(self.now.since(begun));
            }
            let timers = self.sides.iter().filter_map(Table::poll_timeout).min();
            let arrival = self.queue.first_key_value().map(|((at, _), _)| *at);
            match [timers, arrival].into_iter().flatten().min() {
                Some(next) if next <= end => self.now = self.now.max(next),
                _ => {
                    self.now = end;
                    return None;
                }
            }
            // As the daemon does it: what has arrived counts before a timer.
            while let Some(e) = self.queue.first_entry().filter(|e| e.key().0 <= self.now) {
                let (side, octets) = e.remove();
                let a = Arrival { from: address(1 - side), scope: 0, multihop: false, ttl: Some(255) };
                self.act(side, |t, at, out| {
                    let _ = t.receive(&a, &octets, at, out);
                });
            }
            for side in [0, 1] {
                self.act(side, Table::due);
                assert!(self.sides[side].poll_timeout().is_none_or(|t| t > self.now), "a timer in the past");
            }
        }
    }

    pub(crate) fn state(&self, side: usize) -> State {
        self.sides[side].get(PEER).unwrap().1.state()
    }

    pub(crate) fn both_up(&self) -> bool {
        (0..2).all(|s| self.state(s) == State::Up)
    }

    /// Pauses between the packets of a side from then on.
    pub(crate) fn pauses(&self, side: usize, from: Time) -> Vec<Span> {
        let times: Vec<Time> =
            self.sent.iter().filter(|(at, s, _)| *s == side && *at >= from).map(|x| x.0).collect();
        times.windows(2).map(|w| w[1].since(w[0])).collect()
    }
}
