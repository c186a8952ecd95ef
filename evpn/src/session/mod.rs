//! The RFC 4271 §8 state machine of one neighbour, sans-IO: octets and time in, octets and events out.
//!
//! One [`Session`] per configured neighbour. It owns up to two connections at a time (collision, RFC 4271
//! §6.8), does the framing, the capability negotiation and the timers, and hands decoded UPDATEs up.
//!
//! RFC 4271 §8.2.1 asks for a state machine per connection and one for the neighbour while it has none. So
//! does this module: `Start` is the neighbour's (Idle, Connect, Active), `Phase` a connection's (OpenSent,
//! OpenConfirm, Established).
//!
//! | file | what it holds |
//! |---|---|
//! | `fsm`, `messages` | the transitions |
//! | `conn`, `framer` | a connection, messages out of its octets |
//! | `negotiate` | our OPEN, and what both OPENs together mean |
//! | `graceful` | restarts, ours and the peer's (RFC 4724, RFC 8538, RFC 9494) |
//! | `event`, `stats` | what a person is told |
//! | `send_hold` | peers that never read (RFC 9687) |
//! | `ring` | the last messages, as octets |
//! | `rng` | jitter |

mod conn;
mod event;
mod framer;
mod fsm;
mod graceful;
mod messages;
mod negotiate;
pub(crate) mod ring;
pub(crate) mod rng;
mod send_hold;
mod stats;

pub use event::{FsmEvent, Record};
pub use graceful::{Graceful, GracefulMode, PeerRestart};
pub use ring::{FaultyMessage, MessageLine};
pub use stats::{Counters, Stats};

use crate::types::{Asn, ConnId, RemoteAs, RouterId, Span, Time};
use crate::wire::{DecodeCtx, Family, Fault, Notification, Open, Refresh, Treatment, Update};
use bytes::Bytes;
use conn::{Conn, Phase};
use event::History;
use fsm::Turn;
use ring::Ring;
use rng::Rng;
use serde::Serialize;

/// Message types and sizes (RFC 4271 §4.1, RFC 2918 §3, RFC 8654 §3).
mod kind {
    pub(super) const OPEN: u8 = 1;
    pub(super) const UPDATE: u8 = 2;
    pub(super) const NOTIFICATION: u8 = 3;
    pub(super) const KEEPALIVE: u8 = 4;
    pub(super) const REFRESH: u8 = 5;
    /// Marker, length, type.
    pub(super) const HEADER: usize = 19;
    pub(super) const MAX_CLASSIC: u16 = 4096;
    pub(super) const MAX_EXTENDED: u16 = 65535;
}

/// What a session is told at start.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Config {
    /// Our AS number.
    pub local_as: Asn,
    /// Which AS the neighbour may be in.
    pub peer_as: RemoteAs,
    /// Our BGP identifier.
    pub router_id: RouterId,
    /// Proposed hold time in seconds; 0 or at least 3.
    pub hold_time: u16,
    /// Seconds of the send hold timer; `None`: 8 minutes or twice the hold time, `Some(0)`: off (RFC 9687 §4.4).
    pub send_hold_time: Option<u32>,
    /// Base of the ConnectRetryTimer before jitter (BGP-FSM-13).
    pub connect_retry: Span,
    /// Never dial.
    pub passive: bool,
    /// Families to offer, in order.
    pub families: Vec<Family>,
    /// Offer messages of up to 65535 octets (RFC 8654).
    pub extended_message: bool,
    /// Graceful restart.
    pub graceful: Graceful,
    /// Families without which there is no session (BGP-CAP-05).
    pub required: Vec<Family>,
    /// Shortest hold time of the neighbour's that is accepted, besides 0 (BGP-OPEN-04).
    pub min_hold_time: u16,
    /// Our OPEN has its parameters in the extended form however few they are (BGP-CAP-07).
    pub extended_open: bool,
    /// Seed of this session's random numbers (jitter).
    pub seed: u64,
}

impl Config {
    /// A neighbour for EVPN with every setting at its default.
    pub fn new(local_as: Asn, peer_as: RemoteAs, router_id: RouterId) -> Self {
        Self {
            local_as,
            peer_as,
            router_id,
            hold_time: 90,
            send_hold_time: None,
            connect_retry: Span::secs(120),
            passive: false,
            families: vec![Family::EVPN],
            extended_message: true,
            graceful: Graceful::default(),
            required: Vec::new(),
            min_hold_time: 0,
            extended_open: false,
            seed: 1,
        }
    }
}

/// What both sides agreed on (BGP-CAP-06).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Agreed {
    /// The neighbour's AS number.
    pub peer_as: Asn,
    /// The neighbour's identifier.
    pub peer_id: RouterId,
    /// Same AS.
    pub ibgp: bool,
    /// Negotiated hold time in seconds.
    pub hold_time: u16,
    /// Families in use.
    pub families: Vec<Family>,
    /// Four-octet AS numbers on the wire.
    pub as4: bool,
    /// Largest message that we may send.
    pub max_send: u16,
    /// The neighbour understands ROUTE-REFRESH.
    pub refresh: bool,
    /// The neighbour understands BoRR/EoRR.
    pub enhanced_refresh: bool,
    /// What the neighbour's restarts mean; `None`: it has no such capability, or we take no part.
    pub graceful: Option<PeerRestart>,
    /// How to decode what it sends.
    pub decode: DecodeCtx,
}

/// State by its RFC 4271 name, least advanced first.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub enum State {
    /// Idle
    Idle,
    /// Connect
    Connect,
    /// Active
    Active,
    /// OpenSent
    OpenSent,
    /// OpenConfirm
    OpenConfirm,
    /// Established
    Established,
}

/// Something that happened to the session.
#[derive(Clone, Debug)]
pub enum Input<'a> {
    /// ManualStart (event 1), or 4 when passive.
    Start,
    /// ManualStop (event 2) with the Cease subcode and data to send.
    Stop {
        /// Cease subcode (BGP-NOTIF-04).
        subcode: u8,
        /// Shutdown communication as on the wire (RFC 9003), or empty.
        data: Bytes,
    },
    /// As `Stop`, but we come back: peers that can keep our routes are not told to drop them (RFC 4724 §4).
    Away,
    /// The peer connected to us (event 17).
    Accepted(ConnId),
    /// Our dial succeeded (event 16).
    Connected(ConnId),
    /// Our dial failed (event 18), and why.
    Failed(ConnId, &'a str),
    /// Octets arrived.
    Bytes(ConnId, &'a [u8]),
    /// Closed by the peer or an error (event 18).
    Closed(ConnId, &'a str),
    /// `poll_timeout` has come.
    Timer,
    /// We cannot go on with this peer for a reason of our own (a RIB limit, BFD-11): Cease with subcode.
    Reject {
        /// Cease subcode.
        subcode: u8,
    },
    /// Ask the peer for all its routes of this family again (RFC 2918); nothing happens where it cannot be asked.
    Refresh(Family),
}

/// Something to do.
#[derive(Clone, Debug)]
pub enum Output {
    /// Open a connection under this id.
    Dial(ConnId),
    /// Send now, past any queue: OPEN, KEEPALIVE, NOTIFICATION, ROUTE-REFRESH.
    Send(ConnId, Bytes),
    /// Close after what was sent is written.
    Hangup(ConnId),
    /// Established on this connection.
    Up(ConnId, Box<Agreed>),
    /// Left Established, or an attempt failed. `was_up`: routes of the peer must go, unless they are `kept`.
    Down {
        /// It was Established.
        was_up: bool,
        /// It may come back: routes of the families in its graceful restart capability stay, as stale (BGP-GR-09, -15).
        kept: bool,
        /// For people; names message, attribute and offset where the peer was at fault.
        why: String,
        /// NOTIFICATION sent, if any.
        sent: Option<Notification>,
        /// NOTIFICATION received, if any.
        received: Option<Notification>,
    },
    /// A decoded UPDATE, past RFC 7606.
    Update {
        /// The routes.
        update: Box<Update>,
        /// Strongest reaction to `faults`; with `TreatAsWithdraw` all reachable NLRI count as withdrawn.
        treatment: Option<Treatment>,
        /// Faults found, for log and counters.
        faults: Vec<Fault>,
        /// The whole message if there are faults (BGP-ERR-28); empty otherwise.
        raw: Bytes,
    },
    /// A ROUTE-REFRESH that concerns us.
    Refresh(Refresh),
    /// A fault that changed nothing (ignored message, unknown capability …), for the log.
    Note(String),
}

/// Where the neighbour stands apart from its connections.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Start {
    /// Idle until a manual start.
    Stopped,
    /// Idle until the IdleHoldTimer expires.
    Held { until: Time },
    /// Connect: our dial is under way; `retry` is the ConnectRetryTimer.
    Dialing { conn: ConnId, retry: Time },
    /// Active: the peer may connect; `retry` dials. `None` when passive or while there is a connection.
    Listening { retry: Option<Time> },
}

/// One neighbour's state machine.
#[derive(Debug)]
pub struct Session {
    config: Config,
    rng: Rng,
    start: Start,
    /// At most [`Session::MAX_CONNS`].
    conns: Vec<Conn>,
    /// The next OPEN goes without capabilities (BGP-CAP-10).
    plain_next: bool,
    /// What our next OPEN says of restarts.
    graceful: graceful::Now,
    /// Failures in a row that are damped (BGP-FSM-14).
    streak: u32,
    /// When the last of them was.
    failed_at: Option<Time>,
    stats: Stats,
    /// What a connection is told while the session is stopped: why it is (BGP-SHUT-01).
    refusal: Option<Notification>,
    history: History,
    ring: Ring,
}

impl Session {
    /// Connections at a time: one that we dialled and one that the peer did.
    pub const MAX_CONNS: usize = 2;

    /// In Idle until `Start`.
    pub fn new(config: Config) -> Self {
        Self {
            rng: Rng::new(config.seed),
            config,
            start: Start::Stopped,
            conns: Vec::with_capacity(Self::MAX_CONNS),
            plain_next: false,
            graceful: graceful::Now::default(),
            streak: 0,
            failed_at: None,
            stats: Stats::default(),
            refusal: None,
            history: History::default(),
            ring: Ring::default(),
        }
    }

    /// Takes an input; outputs are appended to `out`. `ids` yields fresh connection ids for dials.
    ///
    /// Inputs for connections that are not (or no longer) ours are ignored: an octet may be under way while
    /// we hang up.
    pub fn handle(
        &mut self,
        input: Input<'_>,
        at: Time,
        ids: &mut dyn FnMut() -> ConnId,
        out: &mut Vec<Output>,
    ) {
        let before = self.state();
        let t = &mut Turn { at, ids, out };
        match input {
            Input::Start => self.on_start(t),
            Input::Stop { subcode, data } => self.on_stop(subcode, data, t),
            Input::Away => self.on_away(t),
            Input::Reject { subcode } => self.on_reject(subcode, t),
            Input::Accepted(id) => self.on_accepted(id, t),
            Input::Connected(id) => self.on_connected(id, t),
            Input::Failed(id, why) => self.on_lost(id, why, t),
            Input::Closed(id, why) => self.on_lost(id, why, t),
            Input::Bytes(id, octets) => self.on_bytes(id, octets, t),
            Input::Refresh(family) => self.ask_again(family, t),
            Input::Timer => self.on_timer(t),
        }
        if self.state() != before {
            self.stats.since = at;
        }
    }

    /// When to call again with `Input::Timer`, and why.
    pub fn poll_timeout(&self) -> Option<(Time, &'static str)> {
        let start = match self.start {
            Start::Stopped | Start::Listening { retry: None } => None,
            Start::Held { until } => Some((until, "idle hold")),
            Start::Dialing { retry, .. } | Start::Listening { retry: Some(retry) } => {
                Some((retry, "connect retry"))
            }
        };
        let conns = self.conns.iter().flat_map(|c| {
            let timers = [(c.hold(), "hold"), (c.keepalive(), "keepalive"), (c.send_hold(), "send hold")];
            timers.into_iter().filter_map(|(at, why)| Some((at?, why)))
        });
        start.into_iter().chain(conns).min()
    }

    /// State of the most advanced connection.
    pub fn state(&self) -> State {
        self.conns.iter().map(Conn::state).max().unwrap_or(match self.start {
            Start::Stopped | Start::Held { .. } => State::Idle,
            Start::Dialing { .. } => State::Connect,
            Start::Listening { .. } => State::Active,
        })
    }

    /// The established connection and what was agreed on it.
    pub fn established(&self) -> Option<(ConnId, &Agreed)> {
        self.conns.iter().find_map(|c| match &c.phase {
            Phase::Established { running, .. } => Some((c.id, &running.agreed)),
            Phase::OpenSent { .. } | Phase::OpenConfirm(_) => None,
        })
    }

    /// The peer's OPEN on the most advanced connection that has one.
    pub fn peer_open(&self) -> Option<&Open> {
        self.conns
            .iter()
            .filter_map(|c| Some((c.state(), &c.running()?.open)))
            .max_by_key(|x| x.0)
            .map(|x| x.1)
    }

    /// Whether this session knows this connection.
    pub fn owns(&self, conn: ConnId) -> bool {
        self.conns.iter().any(|c| c.id == conn)
            || matches!(self.start, Start::Dialing { conn: dial, .. } if dial == conn)
    }

    /// Octets kept of messages that have not come in full, over all connections: at most one message each.
    pub fn buffered(&self) -> usize {
        self.conns.iter().map(|c| c.framer.pending()).sum()
    }

    /// An UPDATE was handed to the established connection: counts it and restarts the keepalive timer (BGP-FSM-07).
    pub fn note_sent(&mut self, at: Time) {
        self.note_sent_updates(1, at);
    }

    /// As [`Session::note_sent`], for several at once. That they were taken is told by [`Session::note_taken`].
    pub fn note_sent_updates(&mut self, updates: u64, at: Time) {
        if let Some(i) = self.conns.iter().position(|c| c.state() == State::Established) {
            self.stats.sent.update += updates;
            self.rearm_keepalive(i, at);
        }
    }

    /// Remembers an UPDATE that was handed to the established connection, for [`Session::messages`].
    pub fn keep_sent(&mut self, update: &[u8], at: Time) {
        self.ring.push(at, true, update);
    }

    /// The last messages both ways in a line each, oldest first; bounded. KEEPALIVEs of an established session
    /// are not among them.
    pub fn messages(&self) -> Vec<MessageLine> {
        let decode = self.conns.iter().max_by_key(|c| c.state()).map(|c| &c.decode);
        self.ring.lines(decode.unwrap_or(&DecodeCtx::default()))
    }

    /// The last messages of the peer that were at fault, with their octets; bounded.
    pub fn faulty_messages(&self) -> Vec<FaultyMessage> {
        self.ring.faulty()
    }

    /// Our OPEN as we would send it now.
    pub fn our_open(&self) -> Open {
        negotiate::our_open(&self.config, false, self.graceful)
    }

    /// What it was told at start.
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// Counters and last errors.
    pub const fn stats(&self) -> &Stats {
        &self.stats
    }

    /// The last events and what they did, oldest first; bounded.
    pub fn history(&self) -> impl DoubleEndedIterator<Item = &Record> {
        self.history.iter()
    }
}
