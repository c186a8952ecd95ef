//! Send Hold Timer (RFC 9687): a peer whose TCP takes nothing is given up, however lively it is otherwise.
//!
//! A peer that sends and never reads keeps the HoldTimer happy for ever, while what it has from us grows old. The
//! timer runs in Established and is set back whenever the connection has taken something of ours.

use super::conn::Phase;
use super::event::FsmEvent;
use super::fsm::{End, Turn};
use super::{Config, Session, State};
use crate::types::{ConnId, Span, Time};
use crate::wire::Notification;
use bytes::Bytes;

/// Least SendHoldTime unless configured (RFC 9687 §6).
const DEFAULT: u32 = 8 * 60;

/// SendHoldTime for this negotiated hold time; `None`: the timer does not run (BGP-SHT-01, -02).
pub(super) fn time(config: &Config, hold_time: u16) -> Option<Span> {
    let hold = u32::from(hold_time);
    let seconds = match config.send_hold_time {
        _ if hold == 0 => return None,
        Some(0) => return None,
        // Never before the peer could have given us up (RFC 9687 §4.4).
        Some(n) => n.max(hold + 1),
        None => DEFAULT.max(2 * hold),
    };
    Some(Span::secs(seconds.into()))
}

impl Session {
    /// The established connection's socket has taken something of what it was given: the send hold timer starts
    /// anew (BGP-SHT-01).
    pub fn note_taken(&mut self, conn: ConnId, at: Time) {
        if let Some(i) = self.index(conn) {
            self.rearm_send_hold(i, at);
        }
    }

    /// Only in Established: before, an OPEN that is not taken is the HoldTimer's business.
    pub(super) fn rearm_send_hold(&mut self, i: usize, at: Time) {
        if let Phase::Established { running, .. } = &mut self.conns[i].phase {
            running.send_hold = time(&self.config, running.agreed.hold_time).map(|t| at + t);
        }
    }

    /// Event 29 (BGP-SHT-03). The NOTIFICATION goes behind what is stuck and delays nothing: the routes go now, and
    /// the driver closes a moment later whether or not it is out.
    pub(super) fn on_send_hold(&mut self, id: ConnId, t: &mut Turn<'_>) {
        let why = "send hold time without a word taken by the peer's TCP (8/0)".to_owned();
        let end = End::new(FsmEvent::SendHoldTimerExpires, why);
        self.end(id, end.sending(Notification { code: 8, subcode: 0, data: Bytes::new() }), t);
    }

    /// The connection whose send hold timer is due.
    pub(super) fn send_hold_due(&self, id: ConnId, at: Time) -> bool {
        self.conns
            .iter()
            .any(|c| c.id == id && c.state() == State::Established && c.send_hold().is_some_and(|s| s <= at))
    }
}
