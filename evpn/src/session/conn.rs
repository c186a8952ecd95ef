//! One transport connection: RFC 4271 runs a state machine per connection, from OpenSent on.

use super::framer::Framer;
use super::{Agreed, State, kind};
use crate::types::{ConnId, Time};
use crate::wire::{DecodeCtx, Open};

/// A connection on which our OPEN was sent.
#[derive(Debug)]
pub(super) struct Conn {
    pub(super) id: ConnId,
    /// Since when it is there.
    pub(super) begun: Time,
    /// We dialled it.
    pub(super) outgoing: bool,
    /// Our OPEN had no optional parameters (BGP-CAP-10).
    pub(super) plain: bool,
    pub(super) framer: Framer,
    /// How to decode: what our OPEN alone allows, later what was agreed.
    pub(super) decode: DecodeCtx,
    pub(super) phase: Phase,
}

/// Where it stands, with what only exists there.
#[derive(Debug)]
pub(super) enum Phase {
    /// Waits for the peer's OPEN until `hold`.
    OpenSent { hold: Time },
    /// Waits for the first KEEPALIVE.
    OpenConfirm(Box<Running>),
    /// Routes flow, since `since`.
    Established { running: Box<Running>, since: Time },
}

/// What an accepted OPEN brings.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) agreed: Agreed,
    pub(super) open: Open,
    /// HoldTimer; `None` with hold time 0 (BGP-FSM-10).
    pub(super) hold: Option<Time>,
    /// KeepaliveTimer; `None` with hold time 0.
    pub(super) keepalive: Option<Time>,
    /// SendHoldTimer; `None` outside Established, and where it is off (BGP-SHT-01).
    pub(super) send_hold: Option<Time>,
}

impl Conn {
    pub(super) const fn state(&self) -> State {
        match self.phase {
            Phase::OpenSent { .. } => State::OpenSent,
            Phase::OpenConfirm(_) => State::OpenConfirm,
            Phase::Established { .. } => State::Established,
        }
    }

    pub(super) const fn running(&self) -> Option<&Running> {
        match &self.phase {
            Phase::OpenSent { .. } => None,
            Phase::OpenConfirm(r) | Phase::Established { running: r, .. } => Some(r),
        }
    }

    pub(super) const fn running_mut(&mut self) -> Option<&mut Running> {
        match &mut self.phase {
            Phase::OpenSent { .. } => None,
            Phase::OpenConfirm(r) | Phase::Established { running: r, .. } => Some(r),
        }
    }

    /// Hold deadline: the long one of OpenSent, then the negotiated one.
    pub(super) fn hold(&self) -> Option<Time> {
        match &self.phase {
            Phase::OpenSent { hold } => Some(*hold),
            Phase::OpenConfirm(r) | Phase::Established { running: r, .. } => r.hold,
        }
    }

    pub(super) fn keepalive(&self) -> Option<Time> {
        self.running().and_then(|r| r.keepalive)
    }

    pub(super) fn send_hold(&self) -> Option<Time> {
        self.running().and_then(|r| r.send_hold)
    }

    /// Largest message to accept now. Before the peer's OPEN nothing legitimate is longer than 4096 octets;
    /// after it what our own OPEN promised (BGP-EXTM-02).
    pub(super) const fn max_len(&self) -> u16 {
        match self.phase {
            Phase::OpenSent { .. } => kind::MAX_CLASSIC,
            Phase::OpenConfirm(_) | Phase::Established { .. } => self.decode.max_len,
        }
    }
}
