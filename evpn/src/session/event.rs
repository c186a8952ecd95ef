//! The events of RFC 4271 §8.1 under their numbers, and a short memory of the last ones.

use super::State;
use crate::types::{ConnId, Time};
use serde::Serialize;
use std::collections::VecDeque;

/// An event by its RFC number (BGP-FSM-01).
///
/// Options that are not built never produce their event: automatic start without damping (3, 5: every
/// automatic start here is damped, 6 or 7), DelayOpen (12, 20), and connection requests seen before TCP has
/// completed them (14, 15: the driver accepts or refuses).
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[repr(u8)]
pub enum FsmEvent {
    /// Operator starts the session.
    ManualStart = 1,
    /// Operator stops the session.
    ManualStop = 2,
    /// Not produced.
    AutomaticStart = 3,
    /// Operator starts a session that never dials.
    ManualStartPassive = 4,
    /// Not produced.
    AutomaticStartPassive = 5,
    /// The hold in Idle is over; we dial.
    AutomaticStartDamped = 6,
    /// The hold in Idle is over; we wait for the peer.
    AutomaticStartDampedPassive = 7,
    /// We cannot go on with this peer.
    AutomaticStop = 8,
    /// ConnectRetryTimer.
    ConnectRetryTimerExpires = 9,
    /// HoldTimer.
    HoldTimerExpires = 10,
    /// KeepaliveTimer.
    KeepaliveTimerExpires = 11,
    /// Not produced.
    DelayOpenTimerExpires = 12,
    /// IdleHoldTimer.
    IdleHoldTimerExpires = 13,
    /// Not produced.
    TcpConnectionValid = 14,
    /// Not produced.
    TcpCrInvalid = 15,
    /// Our dial succeeded.
    TcpCrAcked = 16,
    /// The peer connected to us.
    TcpConnectionConfirmed = 17,
    /// A connection or a dial ended.
    TcpConnectionFails = 18,
    /// A valid OPEN.
    BgpOpen = 19,
    /// Not produced.
    BgpOpenDelayOpen = 20,
    /// A bad message header.
    BgpHeaderErr = 21,
    /// A bad OPEN.
    BgpOpenMsgErr = 22,
    /// Lost a connection collision.
    OpenCollisionDump = 23,
    /// NOTIFICATION 2/1.
    NotifMsgVerErr = 24,
    /// Any other NOTIFICATION.
    NotifMsg = 25,
    /// KEEPALIVE.
    KeepAliveMsg = 26,
    /// A valid UPDATE (here also a valid ROUTE-REFRESH, which RFC 4271 does not know).
    UpdateMsg = 27,
    /// A bad UPDATE (or ROUTE-REFRESH).
    UpdateMsgErr = 28,
    /// SendHoldTimer (RFC 9687).
    SendHoldTimerExpires = 29,
}

impl FsmEvent {
    /// Number in RFC 4271 §8.1 (29: RFC 9687 §4.2).
    pub const fn number(self) -> u8 {
        self as u8
    }
}

/// One event and what it did.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
pub struct Record {
    /// When.
    pub at: Time,
    /// What.
    pub event: FsmEvent,
    /// State of the connection (or, without one, of the session) before.
    pub from: State,
    /// And after.
    pub to: State,
    /// On which connection.
    pub conn: Option<ConnId>,
}

/// The last events, oldest first. What keeps an Established session going (events 11, 26, 27) is left out:
/// it would push out what explains how the session got there.
#[derive(Clone, Debug, Default)]
pub(super) struct History(VecDeque<Record>);

impl History {
    /// How many events are remembered.
    pub(super) const LEN: usize = 32;

    pub(super) fn push(&mut self, record: Record) {
        if self.0.len() == Self::LEN {
            self.0.pop_front();
        }
        self.0.push_back(record);
    }

    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = &Record> {
        self.0.iter()
    }
}
