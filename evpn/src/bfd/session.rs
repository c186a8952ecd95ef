//! The state machine of one session (RFC 5880 §6.8), in the active role.

use super::packet::{Diag, LENGTH, Packet, State};
use crate::session::rng::Rng;
use crate::types::{Span, Time};
use serde::Serialize;

/// Nobody sends more often than this while not Up (BFD-07).
const SLOW: Span = Span::secs(1);
/// What a peer that has said nothing is taken to be able to receive (RFC 5880 §6.8.1).
const UNHEARD_RX: Span = Span::micros(1);

/// What an operator chooses.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
pub struct Config {
    /// We want to send this often while Up.
    pub desired_tx: Span,
    /// We can receive this often.
    pub required_rx: Span,
    /// Packets of ours in a row that the peer may miss; at least 1.
    pub multiplier: u8,
}

/// The session's state is another one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Change {
    /// What it was.
    pub from: State,
    /// What it is.
    pub to: State,
    /// Why, when it left Up.
    pub diag: Diag,
    /// The path or the peer has failed: it left Up, and neither side switched it off (BFD-09).
    pub failed: bool,
}

/// What it has done so far.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Stats {
    /// Packets sent.
    pub sent: u64,
    /// Packets taken in.
    pub received: u64,
    /// Times that Up was reached.
    pub ups: u64,
    /// Times that the path or the peer failed.
    pub failures: u64,
    /// The longest pause between two packets of the peer since Up was reached the last time.
    pub longest_gap: Span,
    /// Last change of state.
    pub since: Time,
}

/// What the peer says of itself.
#[derive(Clone, Copy, Debug)]
struct Remote {
    discriminator: u32,
    state: State,
    diag: Diag,
    desired_tx: Span,
    required_rx: Span,
    multiplier: u8,
    demand: bool,
    independent: bool,
}

const UNHEARD: Remote = Remote {
    discriminator: 0,
    state: State::Down,
    diag: Diag::NONE,
    desired_tx: SLOW,
    required_rx: UNHEARD_RX,
    multiplier: 3,
    demand: false,
    independent: false,
};

/// An interval of ours: what the packets say, and what counts here (RFC 5880 §6.8.3).
#[derive(Clone, Copy, Debug)]
struct Interval {
    told: Span,
    used: Span,
}

impl Interval {
    const fn both(s: Span) -> Self {
        Self { told: s, used: s }
    }
}

/// How far a poll sequence has come (RFC 5880 §6.5).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Poll {
    /// None is needed.
    No,
    /// Begins with a packet of the peer without F: an answer to an earlier one may still be under way.
    Wanted,
    /// P is set until F comes. `again`: the intervals have changed meanwhile.
    Running { again: bool },
}

/// One session. What it wants to send is appended to `out`, whole packets.
#[derive(Debug)]
pub struct Session {
    config: Config,
    mine: u32,
    rng: Rng,
    state: State,
    diag: Diag,
    remote: Remote,
    tx: Interval,
    rx: Interval,
    poll: Poll,
    /// The last packet that counted.
    heard: Option<Time>,
    /// When the last periodic packet went, and when the next one does.
    sent_at: Time,
    next: Option<Time>,
    /// In AdminDown: nothing is sent any more from then on (BFD-09).
    silent_at: Time,
    stats: Stats,
}

impl Session {
    /// In Down, with its first packet due at once. `discriminator` is not 0.
    pub fn new(config: Config, discriminator: u32, seed: u64, at: Time) -> Self {
        Self {
            config,
            mine: discriminator,
            rng: Rng::new(seed),
            state: State::Down,
            diag: Diag::NONE,
            remote: UNHEARD,
            tx: Interval::both(config.desired_tx.max(SLOW)),
            rx: Interval::both(config.required_rx),
            poll: Poll::No,
            heard: None,
            sent_at: at,
            next: Some(at),
            silent_at: at,
            stats: Stats { since: at, ..Stats::default() },
        }
    }

    /// Takes in a packet that is for this session (RFC 5880 §6.8.6 from "Set bfd.RemoteDiscr" on).
    pub fn receive(&mut self, p: &Packet, at: Time, out: &mut Vec<[u8; LENGTH]>) -> Option<Change> {
        self.stats.received += 1;
        if self.state == State::AdminDown {
            return None;
        }
        if self.state == State::Up {
            let gap = self.heard.map_or(Span::ZERO, |h| at.since(h));
            self.stats.longest_gap = self.stats.longest_gap.max(gap);
        }
        self.heard = Some(at);
        let pace = self.pace();
        self.remote = Remote {
            discriminator: p.my,
            state: p.state,
            diag: p.diag,
            desired_tx: p.desired_tx,
            required_rx: p.required_rx,
            multiplier: p.multiplier,
            demand: p.demand,
            independent: p.independent,
        };
        if p.finale {
            self.polled();
        } else if self.poll == Poll::Wanted {
            self.poll = Poll::Running { again: false };
        }
        // BFD-02
        let to = match (self.state, p.state) {
            (State::Down, State::Down) => State::Init,
            (State::Down, State::Init) | (State::Init, State::Init | State::Up) => State::Up,
            (State::Init | State::Up, State::AdminDown) | (State::Up, State::Down) => State::Down,
            (state, _) => state,
        };
        let change = (to != self.state).then(|| self.enter(to, Diag::NEIGHBOR_DOWN, at));
        if change.is_some() && !p.poll {
            self.send_periodic(at, out);
        } else if self.pace() != pace {
            self.schedule(self.sent_at);
        }
        if p.poll {
            // At once, past the timer of the periodic ones (BFD-06). It tells a change too.
            self.send(true, out);
        }
        change
    }

    /// Whatever is due.
    pub fn due(&mut self, at: Time, out: &mut Vec<[u8; LENGTH]>) -> Option<Change> {
        let mut change = None;
        if self.detection().is_some_and(|d| d <= at) {
            // Whoever speaks next is a stranger until it has said who it is (RFC 5880 §6.8.1).
            self.remote = UNHEARD;
            self.heard = None;
            if self.state != State::Down {
                change = Some(self.enter(State::Down, Diag::EXPIRED, at));
                self.send_periodic(at, out);
            }
        }
        if self.state == State::AdminDown && self.silent_at <= at {
            self.next = None;
        }
        if self.next.is_some_and(|n| n <= at) {
            self.send_periodic(at, out);
        }
        change
    }

    /// When to call [`Session::due`].
    pub fn poll_timeout(&self) -> Option<Time> {
        let silent = (self.state == State::AdminDown && self.next.is_some()).then_some(self.silent_at);
        [self.next, self.detection(), silent].into_iter().flatten().min()
    }

    /// Other intervals. While Up the peer is asked first (BFD-06): until it has answered we send no less often, and
    /// expect no more often, than before (RFC 5880 §6.8.3).
    pub fn set(&mut self, config: Config, at: Time, out: &mut Vec<[u8; LENGTH]>) {
        if config == self.config {
            return;
        }
        self.config = config;
        self.retell();
        self.schedule(self.sent_at);
        if self.state != State::AdminDown {
            self.send_periodic(at, out);
        }
    }

    /// Switched off by an operator: the peer is told for as long as it needs to notice (BFD-09).
    pub fn disable(&mut self, at: Time, out: &mut Vec<[u8; LENGTH]>) -> Option<Change> {
        if self.state == State::AdminDown {
            return None;
        }
        let peers_wait = self.config.desired_tx.max(SLOW).max(self.remote.required_rx);
        let change = self.enter(State::AdminDown, Diag::ADMIN_DOWN, at);
        self.heard = None;
        self.silent_at = at + peers_wait.scaled(self.config.multiplier.into(), 1);
        self.send_periodic(at, out);
        Some(change)
    }

    /// Switched on again.
    pub fn enable(&mut self, at: Time) -> Option<Change> {
        if self.state != State::AdminDown {
            return None;
        }
        self.remote = UNHEARD;
        let change = self.enter(State::Down, Diag::NONE, at);
        self.diag = Diag::NONE;
        self.next = Some(at);
        Some(change)
    }

    /// Switched off, and the peer has had the time to hear of it.
    pub fn is_silent(&self) -> bool {
        self.state == State::AdminDown && self.next.is_none()
    }

    /// State.
    pub const fn state(&self) -> State {
        self.state
    }

    /// Why it left Up the last time; nothing while it is Up.
    pub const fn diag(&self) -> Diag {
        self.diag
    }

    /// The peer's state and why that one left Up, as it last said.
    pub const fn remote(&self) -> (State, Diag) {
        (self.remote.state, self.remote.diag)
    }

    /// Our discriminator and the peer's; 0 while it is not known.
    pub const fn discriminators(&self) -> (u32, u32) {
        (self.mine, self.remote.discriminator)
    }

    /// The peer's BFD goes on while its control plane restarts (the C bit, RFC 5882 §4.3).
    pub const fn peer_is_independent(&self) -> bool {
        self.remote.independent
    }

    /// What it was told.
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// What it has done so far.
    pub const fn stats(&self) -> &Stats {
        &self.stats
    }

    /// Between two periodic packets of ours, before jitter: no more often than we want and the peer can (BFD-07).
    /// `None`: none are sent.
    pub fn pace(&self) -> Option<Span> {
        let r = &self.remote;
        let asleep = r.demand && self.state == State::Up && r.state == State::Up && !self.polls();
        (r.required_rx != Span::ZERO && !asleep).then(|| self.tx.used.max(r.required_rx))
    }

    /// After so long without a packet the peer, or the way to it, has failed (BFD-07).
    pub fn detection_time(&self) -> Span {
        self.rx.used.max(self.remote.desired_tx).scaled(self.remote.multiplier.into(), 1)
    }

    fn detection(&self) -> Option<Time> {
        let heard = self.heard.filter(|_| self.state != State::AdminDown)?;
        Some(heard + self.detection_time())
    }

    const fn polls(&self) -> bool {
        matches!(self.poll, Poll::Running { .. })
    }

    fn enter(&mut self, to: State, why: Diag, at: Time) -> Change {
        let from = self.state;
        self.state = to;
        self.stats.since = at;
        let mut failed = false;
        match to {
            State::Up => {
                self.diag = Diag::NONE;
                self.stats.ups += 1;
                self.stats.longest_gap = Span::ZERO;
            }
            State::Down | State::AdminDown => {
                self.diag = why;
                self.poll = Poll::No;
                // BFD-09: neither side's operator has switched it off.
                failed = from == State::Up && to == State::Down && self.remote.state != State::AdminDown;
                self.stats.failures += u64::from(failed);
            }
            State::Init => {}
        }
        self.retell();
        Change { from, to, diag: self.diag, failed }
    }

    /// What the packets are to say of our intervals now, and from when on it counts here.
    fn retell(&mut self) {
        let up = self.state == State::Up;
        let tx = if up { self.config.desired_tx } else { self.config.desired_tx.max(SLOW) };
        let rx = self.config.required_rx;
        let changed = tx != self.tx.told || rx != self.rx.told;
        self.tx.told = tx;
        self.rx.told = rx;
        if !up {
            self.tx.used = tx;
            self.rx.used = rx;
            return;
        }
        self.tx.used = self.tx.used.min(tx);
        self.rx.used = self.rx.used.max(rx);
        if changed {
            self.poll = match self.poll {
                Poll::No => Poll::Running { again: false },
                Poll::Wanted => Poll::Wanted,
                Poll::Running { .. } => Poll::Running { again: true },
            };
        }
    }

    /// The peer has answered.
    fn polled(&mut self) {
        match self.poll {
            // It may have answered a packet with the values before: those of now are asked about anew.
            Poll::Running { again: true } => self.poll = Poll::Wanted,
            Poll::Running { again: false } => {
                self.poll = Poll::No;
                self.tx.used = self.tx.told;
                self.rx.used = self.rx.told;
            }
            Poll::No | Poll::Wanted => {}
        }
    }

    /// The next periodic packet after one at `last`: up to a quarter earlier than the interval, and with a multiplier
    /// of 1 at least a tenth earlier (BFD-07).
    fn schedule(&mut self, last: Time) {
        let ends = if self.config.multiplier == 1 { 900 } else { 1000 };
        self.next = self.pace().map(|pace| last + self.rng.between(pace, 750, ends));
    }

    fn send_periodic(&mut self, at: Time, out: &mut Vec<[u8; LENGTH]>) {
        self.sent_at = at;
        self.schedule(at);
        self.send(false, out);
    }

    fn send(&mut self, finale: bool, out: &mut Vec<[u8; LENGTH]>) {
        self.stats.sent += 1;
        let packet = Packet {
            diag: self.diag,
            state: self.state,
            poll: self.polls() && !finale,
            finale,
            independent: false,
            demand: false,
            multiplier: self.config.multiplier,
            my: self.mine,
            your: self.remote.discriminator,
            desired_tx: self.tx.told,
            required_rx: self.rx.told,
            required_echo_rx: Span::ZERO,
        };
        out.push(packet.encode());
    }
}
