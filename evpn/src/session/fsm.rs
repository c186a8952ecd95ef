//! The transitions of RFC 4271 §8.2.2 that commands, connections and timers cause, one `on_*` each; how a
//! connection ends. What messages cause is in `messages`.

use super::conn::{Conn, Phase};
use super::event::{FsmEvent, Record};
use super::framer::Framer;
use super::{Output, Session, Start, State, graceful, kind, negotiate};
use crate::types::{ConnId, Span, Time};
use crate::wire::{self, EncodeCtx, Message, Notification, cease};
use bytes::Bytes;

/// HoldTimer of OpenSent: the "large value" of RFC 4271 §8.2.2.
const OPEN_HOLD: Span = Span::secs(240);
/// First idle hold after a failure, doubled per failure in a row (BGP-FSM-14).
const IDLE_HOLD: Span = Span::secs(1);
/// Longest idle hold.
const IDLE_HOLD_MAX: Span = Span::secs(60);
/// A session that was Established for so long ends the row of failures.
const STABLE: Span = Span::secs(30);
/// A configured ConnectRetryTime below this would be a busy loop.
const MIN_CONNECT_RETRY: Span = Span::millis(100);
/// A NOTIFICATION never exceeds a classic message (BGP-EXTM-03).
const MAX_NOTIFICATION_DATA: usize = kind::MAX_CLASSIC as usize - kind::HEADER - 2;

/// What one call of [`Session::handle`] works with.
pub(super) struct Turn<'a> {
    pub(super) at: Time,
    pub(super) ids: &'a mut dyn FnMut() -> ConnId,
    pub(super) out: &'a mut Vec<Output>,
}

/// How a connection ends.
pub(super) struct End {
    pub(super) event: FsmEvent,
    /// NOTIFICATION to send before hanging up.
    pub(super) send: Option<Notification>,
    /// NOTIFICATION that came.
    pub(super) received: Option<Notification>,
    /// The driver still holds the connection.
    pub(super) hangup: bool,
    /// `send` goes as it is, never inside a hard reset (RFC 8538 §5.2).
    pub(super) soft: bool,
    /// ConnectRetryCounter goes up.
    pub(super) count: bool,
    pub(super) next: Next,
    pub(super) why: String,
}

/// Where the neighbour goes when its last connection ended.
#[derive(Clone, Copy, Eq, PartialEq)]
pub(super) enum Next {
    /// Idle for good.
    Stop,
    /// Idle, held longer with each failure in a row.
    Damp,
    /// Idle, held for the shortest time: nobody is at fault.
    Again,
    /// Active with ConnectRetryTimer.
    Active,
}

impl End {
    /// A failure: counted, damped.
    pub(super) fn new(event: FsmEvent, why: String) -> Self {
        Self {
            event,
            send: None,
            received: None,
            hangup: true,
            soft: false,
            count: true,
            next: Next::Damp,
            why,
        }
    }
    pub(super) fn sending(self, n: Notification) -> Self {
        Self { send: Some(n), ..self }
    }
}

impl Session {
    /// Events 1 and 4; ignored in any state but Idle (BGP-FSM-12). In a hold it takes effect at once.
    pub(super) fn on_start(&mut self, t: &mut Turn<'_>) {
        let event = if self.config.passive { FsmEvent::ManualStartPassive } else { FsmEvent::ManualStart };
        if self.state() != State::Idle {
            let state = self.state();
            return self.record(event, state, state, None, t.at);
        }
        self.stats.connect_retry_counter = 0;
        self.streak = 0;
        self.failed_at = None;
        self.refusal = None;
        self.begin(event, t);
    }

    /// Out of Idle (BGP-FSM-02).
    fn begin(&mut self, event: FsmEvent, t: &mut Turn<'_>) {
        if self.config.passive {
            // No ConnectRetryTimer: RFC 4271 would dial when it expires, but passive means never.
            self.start = Start::Listening { retry: None };
        } else {
            self.dial(t);
        }
        self.record(event, State::Idle, self.state(), None, t.at);
    }

    fn dial(&mut self, t: &mut Turn<'_>) {
        let conn = (t.ids)();
        let retry = t.at + self.connect_retry();
        self.start = Start::Dialing { conn, retry };
        t.out.push(Output::Dial(conn));
    }

    /// A fresh ConnectRetryTime (BGP-FSM-13).
    fn connect_retry(&mut self) -> Span {
        self.rng.jitter(self.config.connect_retry.max(MIN_CONNECT_RETRY))
    }

    /// Event 2 (BGP-FSM-09).
    pub(super) fn on_stop(&mut self, subcode: u8, data: Bytes, t: &mut Turn<'_>) {
        let from = self.state();
        self.abandon_dial(t);
        self.start = Start::Stopped;
        self.stats.connect_retry_counter = 0;
        self.streak = 0;
        self.plain_next = false;
        let data = data.slice(..data.len().min(MAX_NOTIFICATION_DATA));
        let n = Notification { data, ..Notification::cease(subcode) };
        self.refusal = Some(n.clone());
        if self.conns.is_empty() {
            return self.record(FsmEvent::ManualStop, from, State::Idle, None, t.at);
        }
        while let Some(id) = self.conns.last().map(|c| c.id) {
            let why = "stopped".to_owned();
            let end = End { count: false, next: Next::Stop, ..End::new(FsmEvent::ManualStop, why) };
            self.end(id, end.sending(n.clone()), t);
        }
    }

    /// Event 8: like a stop, but counted and tried again after the hold. Ignored in Idle (BGP-FSM-09).
    pub(super) fn on_reject(&mut self, subcode: u8, t: &mut Turn<'_>) {
        let from = self.state();
        if from == State::Idle {
            return self.record(FsmEvent::AutomaticStop, from, from, None, t.at);
        }
        self.abandon_dial(t);
        if self.conns.is_empty() {
            self.stats.connect_retry_counter += 1;
            self.damp(t.at);
            self.hold_idle(Next::Damp, t.at);
            return self.record(FsmEvent::AutomaticStop, from, State::Idle, None, t.at);
        }
        while let Some(id) = self.conns.last().map(|c| c.id) {
            let why = match subcode {
                cease::BFD_DOWN => "BFD says that the neighbour is gone",
                _ => "given up by us",
            };
            let end = End::new(FsmEvent::AutomaticStop, why.to_owned());
            self.end(id, end.sending(Notification::cease(subcode)), t);
        }
    }

    /// Event 17.
    pub(super) fn on_accepted(&mut self, id: ConnId, t: &mut Turn<'_>) {
        if self.owns(id) {
            return;
        }
        match self.start {
            Start::Stopped => return self.refuse(id, "session is stopped", t),
            Start::Held { .. } if !self.may_end_hold(t.at) => {
                return self.refuse(id, "held in Idle after repeated failures", t);
            }
            Start::Dialing { .. } | Start::Listening { .. } if self.conns.len() >= Self::MAX_CONNS => {
                return self.refuse(id, "two connections already", t);
            }
            // The dial goes on: both may come up, then the collision rule decides.
            Start::Dialing { .. } => {}
            Start::Held { .. } => {
                self.start = Start::Listening { retry: None };
                let event = FsmEvent::AutomaticStartDampedPassive;
                self.record(event, State::Idle, State::Active, None, t.at);
            }
            Start::Listening { .. } => self.start = Start::Listening { retry: None },
        }
        self.open(id, false, FsmEvent::TcpConnectionConfirmed, t);
    }

    /// Whether a connection from the peer may end the hold in Idle early.
    ///
    /// RFC 4271 refuses connections in Idle, and leaves it to us when an automatic start takes us out of it.
    /// The peer's connection is the best sign that a new attempt may succeed, and a refusal can cost the
    /// peer its whole ConnectRetryTime (120 s at some), so it brings the automatic start (event 7) forward.
    /// Damping holds nevertheless: not within the shortest hold after a failure that was not the first in a row,
    /// so a peer that fails at every attempt gets one attempt per second.
    fn may_end_hold(&self, at: Time) -> bool {
        self.streak <= 1 || self.failed_at.is_none_or(|f| at.since(f) >= IDLE_HOLD)
    }

    /// Not wanted: Cease/5 says so (RFC 4486 §4); some peers come back sooner than after a bare close.
    fn refuse(&mut self, id: ConnId, why: &str, t: &mut Turn<'_>) {
        self.stats.refused += 1;
        // Who comes while an operator has it down hears his reason again, not only that it is refused.
        let stopped = self.refusal.clone().filter(|_| self.start == Start::Stopped);
        let n = stopped.unwrap_or_else(|| Notification::cease(cease::REJECTED));
        self.send_notification(id, n, t);
        t.out.push(Output::Hangup(id));
        let state = self.state();
        self.record(FsmEvent::TcpConnectionConfirmed, state, state, Some(id), t.at);
        t.out.push(Output::Note(format!("connection refused: {why}")));
    }

    /// Event 16.
    pub(super) fn on_connected(&mut self, id: ConnId, t: &mut Turn<'_>) {
        if !matches!(self.start, Start::Dialing { conn, .. } if conn == id) {
            return;
        }
        self.start = Start::Listening { retry: None };
        if self.conns.len() >= Self::MAX_CONNS {
            t.out.push(Output::Hangup(id));
            t.out.push(Output::Note("connection refused: two connections already".to_owned()));
            return;
        }
        self.open(id, true, FsmEvent::TcpCrAcked, t);
    }

    /// OPEN out, → OpenSent (BGP-FSM-03).
    fn open(&mut self, id: ConnId, outgoing: bool, event: FsmEvent, t: &mut Turn<'_>) {
        let from = if outgoing { State::Connect } else { State::Active };
        let plain = core::mem::take(&mut self.plain_next);
        self.conns.push(Conn {
            id,
            begun: t.at,
            outgoing,
            plain,
            framer: Framer::default(),
            decode: negotiate::before_open(&self.config, plain),
            phase: Phase::OpenSent { hold: t.at + OPEN_HOLD },
        });
        let message = Message::Open(negotiate::our_open(&self.config, plain, self.graceful));
        self.send(id, kind::OPEN, message.encode(&EncodeCtx::default()), t);
        self.record(event, from, State::OpenSent, Some(id), t.at);
    }

    /// Event 18 on a dial or a connection.
    pub(super) fn on_lost(&mut self, id: ConnId, why: &str, t: &mut Turn<'_>) {
        let event = FsmEvent::TcpConnectionFails;
        if matches!(self.start, Start::Dialing { conn, .. } if conn == id) {
            self.start = Start::Listening { retry: None };
            if !self.conns.is_empty() {
                // The peer's connection goes on alone.
                return self.record(event, State::Connect, self.state(), Some(id), t.at);
            }
            // Idle (BGP-FSM-04). Nothing oscillates while nobody answers, so the hold does not grow.
            self.start = Start::Held { until: t.at + self.connect_retry() };
            self.record(event, State::Connect, State::Idle, Some(id), t.at);
            let end = End::new(event, why.to_owned());
            return self.tell_down(false, false, end, t);
        }
        let Some(conn) = self.conns.iter().find(|c| c.id == id) else { return };
        let why = match conn.framer.pending() {
            0 => why.to_owned(),
            n => format!("{why} ({n} octets into a message)"),
        };
        // OpenSent: → Active, not counted (BGP-FSM-05).
        let early = conn.state() == State::OpenSent;
        let next = if early { Next::Active } else { Next::Damp };
        self.end(id, End { hangup: false, count: !early, next, ..End::new(event, why) }, t);
    }

    /// Whatever is due.
    pub(super) fn on_timer(&mut self, t: &mut Turn<'_>) {
        match self.start {
            Start::Held { until } if until <= t.at => {
                self.record(FsmEvent::IdleHoldTimerExpires, State::Idle, State::Idle, None, t.at);
                let event = if self.config.passive {
                    FsmEvent::AutomaticStartDampedPassive
                } else {
                    FsmEvent::AutomaticStartDamped
                };
                self.begin(event, t);
            }
            // BGP-FSM-04: drop it, dial again.
            Start::Dialing { retry, .. } if retry <= t.at => {
                self.abandon_dial(t);
                self.dial(t);
                self.record(FsmEvent::ConnectRetryTimerExpires, State::Connect, State::Connect, None, t.at);
            }
            Start::Listening { retry: Some(retry) } if retry <= t.at => {
                self.dial(t);
                self.record(FsmEvent::ConnectRetryTimerExpires, State::Active, State::Connect, None, t.at);
            }
            Start::Stopped | Start::Held { .. } | Start::Dialing { .. } | Start::Listening { .. } => {}
        }
        for id in [0, 1].map(|i| self.conns.get(i).map(|c| c.id)).into_iter().flatten() {
            let Some(i) = self.index(id) else { continue };
            if self.conns[i].hold().is_some_and(|h| h <= t.at) {
                // BGP-FSM-08
                let why = match self.conns[i].state() {
                    State::OpenSent => "no OPEN from the peer in time",
                    _ => "hold time without a word from the peer",
                };
                let end = End::new(FsmEvent::HoldTimerExpires, why.to_owned());
                self.end(id, end.sending(Notification { code: 4, subcode: 0, data: Bytes::new() }), t);
            } else if self.send_hold_due(id, t.at) {
                self.on_send_hold(id, t);
            } else if self.conns[i].keepalive().is_some_and(|k| k <= t.at) {
                self.send(id, kind::KEEPALIVE, wire::keepalive(), t);
                self.rearm_keepalive(i, t.at);
            }
        }
    }

    /// Ends one connection, and says where the neighbour goes if it was the last.
    pub(super) fn end(&mut self, id: ConnId, mut end: End, t: &mut Turn<'_>) {
        let Some(i) = self.index(id) else { return };
        let conn = self.conns.remove(i);
        let from = conn.state();
        let peer = conn.running().and_then(|r| r.agreed.graceful.as_ref());
        if !end.soft {
            end.send = end.send.map(|n| graceful::hardened(&self.config.graceful, peer, n));
        }
        let kept = graceful::survives(peer, end.send.as_ref(), end.received.as_ref());
        if let Some(n) = &end.send {
            self.send_notification(id, n.clone(), t);
        }
        if end.hangup {
            t.out.push(Output::Hangup(id));
        }
        let mut was_up = false;
        if let Phase::Established { since, .. } = conn.phase {
            was_up = true;
            self.stats.lost_at = Some(t.at);
            if t.at.since(since) >= STABLE {
                self.streak = 0;
            }
        }
        if end.count {
            self.stats.connect_retry_counter += 1;
        }
        if end.next == Next::Damp {
            self.damp(t.at);
        }
        let last = self.conns.is_empty() && !matches!(self.start, Start::Dialing { .. });
        if last {
            self.leave(end.next, t.at);
        }
        let to = match end.next {
            Next::Active => State::Active,
            Next::Stop | Next::Damp | Next::Again => State::Idle,
        };
        self.record(end.event, from, to, Some(id), t.at);
        if was_up || self.conns.is_empty() {
            self.tell_down(was_up, was_up && kept, end, t);
        } else {
            t.out.push(Output::Note(format!("one of two connections ended: {}", end.why)));
        }
    }

    /// The last connection is gone.
    fn leave(&mut self, next: Next, at: Time) {
        match next {
            Next::Stop => self.start = Start::Stopped,
            Next::Active if self.config.passive => self.start = Start::Listening { retry: None },
            Next::Active => {
                let retry = at + self.connect_retry();
                self.start = Start::Listening { retry: Some(retry) };
            }
            Next::Damp | Next::Again => self.hold_idle(next, at),
        }
    }

    /// Idle until a manual start, once the connections that are left have ended too.
    pub(super) fn stand_still(&mut self) {
        self.start = Start::Stopped;
    }

    fn damp(&mut self, at: Time) {
        self.streak = self.streak.saturating_add(1);
        self.failed_at = Some(at);
    }

    /// IdleHoldTimer: 1 s after the first failure, 2 s after the second in a row, up to a minute (BGP-FSM-14).
    fn hold_idle(&mut self, next: Next, at: Time) {
        let doublings = if next == Next::Damp { self.streak.saturating_sub(1).min(16) } else { 0 };
        let hold = IDLE_HOLD.scaled(1 << doublings, 1).min(IDLE_HOLD_MAX);
        self.start = Start::Held { until: at + self.rng.jitter(hold) };
    }

    pub(super) fn abandon_dial(&mut self, t: &mut Turn<'_>) {
        if let Start::Dialing { conn, .. } = self.start {
            t.out.push(Output::Hangup(conn));
            self.start = Start::Listening { retry: None };
        }
    }

    fn tell_down(&mut self, was_up: bool, kept: bool, end: End, t: &mut Turn<'_>) {
        self.stats.last_down = Some((t.at, end.why.clone()));
        t.out.push(Output::Down { was_up, kept, why: end.why, sent: end.send, received: end.received });
    }

    /// BGP-FSM-07: on KEEPALIVE and UPDATE.
    pub(super) fn rearm_hold(&mut self, i: usize, at: Time) {
        if let Some(r) = self.conns[i].running_mut()
            && r.agreed.hold_time != 0
        {
            r.hold = Some(at + Span::secs(r.agreed.hold_time.into()));
        }
    }

    /// A third of the hold time with jitter, but never more often than once a second (BGP-OPEN-09).
    pub(super) fn rearm_keepalive(&mut self, i: usize, at: Time) {
        if let Some(r) = self.conns[i].running_mut()
            && r.agreed.hold_time != 0
        {
            let third = Span::secs(r.agreed.hold_time.into()).scaled(1, 3);
            r.keepalive = Some(at + self.rng.jitter(third).max(Span::secs(1)));
        }
    }

    fn send_notification(&mut self, id: ConnId, n: Notification, t: &mut Turn<'_>) {
        self.stats.last_sent = Some((t.at, n.clone()));
        self.send(id, kind::NOTIFICATION, Message::Notification(n).encode(&EncodeCtx::default()), t);
    }

    pub(super) fn send(&mut self, id: ConnId, kind: u8, octets: Bytes, t: &mut Turn<'_>) {
        self.stats.sent.count(kind);
        if kind != kind::KEEPALIVE || self.state() != State::Established {
            self.ring.push(t.at, true, &octets);
        }
        t.out.push(Output::Send(id, octets));
    }

    pub(super) fn index(&self, id: ConnId) -> Option<usize> {
        self.conns.iter().position(|c| c.id == id)
    }

    pub(super) fn record(&mut self, event: FsmEvent, from: State, to: State, conn: Option<ConnId>, at: Time) {
        self.history.push(Record { at, event, from, to, conn });
    }
}
