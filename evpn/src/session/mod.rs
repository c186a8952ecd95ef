//! The RFC 4271 §8 state machine of one neighbour, sans-IO: octets and time in, octets and events out.
//!
//! One [`Session`] per configured neighbour. It owns up to two connections at a time (collision, RFC 4271
//! §6.8), does the framing, the capability negotiation and the timers, and hands decoded UPDATEs up.

use crate::types::{Asn, ConnId, RouterId, Span, Time};
use crate::wire::{DecodeCtx, Family, Fault, Notification, Refresh, Treatment, Update};
use bytes::Bytes;

/// What a session is told at start.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Config {
    /// Our AS number.
    pub local_as: Asn,
    /// The neighbour's AS number.
    pub peer_as: Asn,
    /// Our BGP identifier.
    pub router_id: RouterId,
    /// Proposed hold time in seconds; 0 or at least 3.
    pub hold_time: u16,
    /// Base of the ConnectRetryTimer before jitter (BGP-FSM-13).
    pub connect_retry: Span,
    /// Never dial.
    pub passive: bool,
    /// Families to offer, in order.
    pub families: Vec<Family>,
    /// Offer messages of up to 65535 octets (RFC 8654).
    pub extended_message: bool,
    /// Seed of this session's random numbers (jitter).
    pub seed: u64,
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
    /// How to decode what it sends.
    pub decode: DecodeCtx,
}

/// State by its RFC 4271 name.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
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
    /// The peer connected to us (event 17).
    Accepted(ConnId),
    /// Our dial succeeded (event 16).
    Connected(ConnId),
    /// Our dial failed (event 18).
    Failed(ConnId),
    /// Octets arrived.
    Bytes(ConnId, &'a [u8]),
    /// Closed by the peer or an error (event 18).
    Closed(ConnId, &'a str),
    /// `poll_timeout` has come.
    Timer,
    /// We cannot go on with this peer for a reason of our own (for instance a RIB limit): Cease with subcode.
    Reject {
        /// Cease subcode.
        subcode: u8,
    },
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
    /// Left Established, or an attempt failed. `was_up`: routes of the peer must go.
    Down {
        /// It was Established.
        was_up: bool,
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
    },
    /// A ROUTE-REFRESH that concerns us.
    Refresh(Refresh),
    /// A fault that changed nothing (ignored message, unknown capability …), for the log.
    Note(String),
}

/// One neighbour's state machine.
#[derive(Debug)]
pub struct Session {
    config: Config,
}

impl Session {
    /// In Idle until `Start`.
    pub fn new(config: Config) -> Self {
        Self { config }
    }
    /// Takes an input; outputs are appended to `out`. `ids` yields fresh connection ids for dials.
    pub fn handle(
        &mut self,
        _input: Input<'_>,
        _at: Time,
        _ids: &mut dyn FnMut() -> ConnId,
        _out: &mut Vec<Output>,
    ) {
        let _ = &self.config;
    }
    /// When to call again with `Input::Timer`, and why.
    pub fn poll_timeout(&self) -> Option<(Time, &'static str)> {
        None
    }
    /// State of the most advanced connection.
    pub fn state(&self) -> State {
        State::Idle
    }
    /// The established connection and what was agreed on it.
    pub fn established(&self) -> Option<(ConnId, &Agreed)> {
        None
    }
    /// Whether this session knows this connection.
    pub fn owns(&self, _conn: ConnId) -> bool {
        false
    }
    /// A message was handed to the connection (restarts the keepalive timer, BGP-FSM-07).
    pub fn note_sent(&mut self, _at: Time) {}
}
