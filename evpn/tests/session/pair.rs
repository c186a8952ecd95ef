//! Two sessions on one virtual clock, with a network between them.

use crate::kit::{Probe, config};
use bytes::Bytes;
use evpn::session::{Config, Input, Output, State};
use evpn::types::{ConnId, RouterId, Span, Time};
use std::collections::BTreeMap;

/// One of the two.
pub(crate) type Side = usize;

/// How octets travel.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Net {
    /// One way.
    pub(crate) latency: Span,
    /// Added at random per delivery; order within a direction is kept, as TCP keeps it.
    pub(crate) jitter: Span,
    /// Deliver in pieces of at most so many octets.
    pub(crate) piece: usize,
    /// Nothing gets through: segments and dials vanish, nobody is told.
    pub(crate) cut: bool,
    /// Dials are refused.
    pub(crate) refuse: bool,
    pub(crate) seed: u64,
}

impl Default for Net {
    fn default() -> Self {
        Self {
            latency: Span::millis(10),
            jitter: Span::ZERO,
            piece: usize::MAX,
            cut: false,
            refuse: false,
            seed: 1,
        }
    }
}

#[derive(Debug)]
enum Event {
    Accepted,
    Connected,
    Failed,
    Bytes(Vec<u8>),
    Closed,
}

/// One end of a connection: where its octets go.
#[derive(Debug)]
struct End {
    peer: (Side, ConnId),
    /// Nothing sent later arrives earlier.
    last: Time,
    open: bool,
}

#[derive(Debug)]
pub(crate) struct Pair {
    pub(crate) now: Time,
    pub(crate) sides: [Probe; 2],
    pub(crate) net: Net,
    /// Everything that came out, in order.
    pub(crate) log: Vec<(Time, Side, Output)>,
    ends: BTreeMap<(Side, ConnId), End>,
    queue: BTreeMap<(Time, u64), (Side, ConnId, Event)>,
    serial: u64,
}

/// Identifiers 10.0.0.1 and 10.0.0.2; different seeds.
pub(crate) fn configs() -> [Config; 2] {
    let one = Config { router_id: RouterId::new(10, 0, 0, 1), seed: 11, hold_time: 9, ..config() };
    let two = Config { router_id: RouterId::new(10, 0, 0, 2), seed: 22, ..one.clone() };
    [one, two]
}

impl Pair {
    pub(crate) fn new(configs: [Config; 2], net: Net) -> Self {
        Self {
            now: Time(0),
            sides: configs.map(Probe::new),
            net,
            log: Vec::new(),
            ends: BTreeMap::new(),
            queue: BTreeMap::new(),
            serial: 0,
        }
    }

    pub(crate) fn start(&mut self) {
        self.feed(0, Input::Start);
        self.feed(1, Input::Start);
    }

    fn random(&mut self, below: u64) -> u64 {
        self.net.seed =
            self.net.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        if below == 0 { 0 } else { (self.net.seed >> 33) % below }
    }

    fn post(&mut self, at: Time, side: Side, conn: ConnId, event: Event) {
        self.serial += 1;
        self.queue.insert((at, self.serial), (side, conn, event));
    }

    fn delay(&mut self) -> Span {
        self.net.latency + Span(self.random(self.net.jitter.0))
    }

    pub(crate) fn feed(&mut self, side: Side, input: Input<'_>) {
        self.sides[side].now = self.now;
        let out = self.sides[side].feed(input);
        for o in out {
            self.act(side, &o);
            self.log.push((self.now, side, o));
        }
    }

    fn act(&mut self, side: Side, o: &Output) {
        match o {
            Output::Dial(conn) => self.dial(side, *conn),
            Output::Send(conn, bytes) => self.send(side, *conn, bytes),
            Output::Hangup(conn) => {
                let Some(end) = self.ends.get_mut(&(side, *conn)) else { return };
                end.open = false;
                let (peer, conn) = end.peer;
                let at = self.arrival(side, o);
                if !self.net.cut {
                    self.post(at, peer, conn, Event::Closed);
                }
            }
            _ => {}
        }
    }

    /// In order per direction.
    fn arrival(&mut self, side: Side, o: &Output) -> Time {
        let at = self.now + self.delay();
        let (Output::Send(conn, _) | Output::Hangup(conn)) = o else { return at };
        match self.ends.get_mut(&(side, *conn)) {
            Some(end) => {
                end.last = end.last.max(at);
                end.last
            }
            None => at,
        }
    }

    fn dial(&mut self, side: Side, conn: ConnId) {
        if self.net.cut {
            return;
        }
        let (there, back) = (self.delay(), self.delay());
        if self.net.refuse {
            return self.post(self.now + there + back, side, conn, Event::Failed);
        }
        // Ids of accepted connections come from the driver.
        let theirs = ConnId(1 << 32 | conn.0);
        let end = |peer, last| End { peer, last, open: true };
        self.ends.insert((side, conn), end((1 - side, theirs), self.now + there));
        // No octet arrives before the dialling side knows that it is connected.
        self.ends.insert((1 - side, theirs), end((side, conn), self.now + there + back));
        self.post(self.now + there, 1 - side, theirs, Event::Accepted);
        self.post(self.now + there + back, side, conn, Event::Connected);
    }

    fn send(&mut self, side: Side, conn: ConnId, bytes: &Bytes) {
        if self.net.cut {
            return;
        }
        let Some((peer, theirs)) = self.ends.get(&(side, conn)).map(|e| e.peer) else { return };
        self.sides[side].s.note_taken(conn, self.now);
        for piece in bytes.chunks(self.net.piece.min(bytes.len()).max(1)) {
            let at = self.arrival(side, &Output::Send(conn, Bytes::new()));
            // What arrives at the same time is read at once: joined.
            let joined =
                self.queue.iter_mut().rev().find(|(k, (s, c, _))| k.0 == at && (*s, *c) == (peer, theirs));
            match joined {
                Some((_, (_, _, Event::Bytes(b)))) if self.net.piece == usize::MAX => {
                    b.extend_from_slice(piece);
                }
                _ => self.post(at, peer, theirs, Event::Bytes(piece.to_vec())),
            }
        }
    }

    /// Octets as if the session's owner had sent them (UPDATEs).
    pub(crate) fn inject(&mut self, side: Side, bytes: &Bytes) {
        let (conn, _) = self.sides[side].s.established().expect("established");
        self.sides[side].s.note_sent(self.now);
        self.send(side, conn, bytes);
    }

    /// Cuts the network: nothing that is under way arrives.
    pub(crate) fn cut(&mut self) {
        self.net.cut = true;
        self.queue.clear();
    }

    /// Both kernels notice that all connections are dead.
    pub(crate) fn reset_connections(&mut self) {
        self.queue.clear();
        let open: Vec<_> = self.ends.iter().filter(|e| e.1.open).map(|e| *e.0).collect();
        for (side, conn) in open {
            self.ends.get_mut(&(side, conn)).expect("known").open = false;
            if self.sides[side].s.owns(conn) {
                self.feed(side, Input::Closed(conn, "connection reset"));
            }
        }
    }

    /// One thing happens; false when nothing will until `limit`.
    pub(crate) fn step(&mut self, limit: Time) -> bool {
        let timer = |s: Side, p: &[Probe; 2]| p[s].s.poll_timeout().map(|t| t.0);
        let network = self.queue.keys().next().map(|k| k.0);
        let next = [network, timer(0, &self.sides), timer(1, &self.sides)].into_iter().flatten().min();
        let Some(at) = next.filter(|at| *at <= limit) else {
            self.now = limit;
            return false;
        };
        self.now = self.now.max(at);
        if network == Some(at) {
            let (_, (side, conn, event)) = self.queue.pop_first().expect("just seen");
            self.deliver(side, conn, event);
        } else {
            for side in [0, 1] {
                if timer(side, &self.sides).is_some_and(|t| t <= self.now) {
                    self.feed(side, Input::Timer);
                }
            }
        }
        true
    }

    fn deliver(&mut self, side: Side, conn: ConnId, event: Event) {
        // A driver tells nothing about a connection that it was told to close.
        if matches!(&event, Event::Bytes(_) | Event::Closed | Event::Connected | Event::Accepted)
            && self.ends.get(&(side, conn)).is_none_or(|e| !e.open)
        {
            return;
        }
        match event {
            Event::Accepted => self.feed(side, Input::Accepted(conn)),
            Event::Connected => self.feed(side, Input::Connected(conn)),
            Event::Failed => self.feed(side, Input::Failed(conn, "refused")),
            Event::Bytes(b) => self.feed(side, Input::Bytes(conn, &b)),
            Event::Closed => {
                if let Some(e) = self.ends.get_mut(&(side, conn)) {
                    e.open = false;
                }
                self.feed(side, Input::Closed(conn, "closed by peer"));
            }
        }
    }

    pub(crate) fn run(&mut self, span: Span) {
        let limit = self.now + span;
        while self.step(limit) {}
    }

    /// Runs until both are Established on the two ends of one connection, and says after how long.
    pub(crate) fn converge(&mut self, within: Span) -> Span {
        let (from, limit) = (self.now, self.now + within);
        while !self.agreed() {
            let states: [State; 2] = [self.sides[0].s.state(), self.sides[1].s.state()];
            assert!(self.step(limit), "not converged after {within}: {states:?}, {:#?}", self.tail());
        }
        self.now.since(from)
    }

    /// Both Established, on the same connection.
    pub(crate) fn agreed(&self) -> bool {
        let (Some((a, _)), Some((b, _))) = (self.sides[0].s.established(), self.sides[1].s.established())
        else {
            return false;
        };
        self.ends.get(&(0, a)).is_some_and(|e| e.peer == (1, b))
    }

    pub(crate) fn tail(&self) -> Vec<String> {
        let from = self.log.len().saturating_sub(20);
        self.log[from..].iter().map(|(t, s, o)| format!("{:.3} {s} {o:?}", t.0 as f64 / 1e9)).collect()
    }

    pub(crate) fn count(&self, side: Side, what: impl Fn(&Output) -> bool) -> usize {
        self.log.iter().filter(|(_, s, o)| *s == side && what(o)).count()
    }
}
