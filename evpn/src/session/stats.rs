//! What a person may ask about a session.

use crate::types::Time;
use crate::wire::Notification;
use serde::{Deserialize, Serialize};

/// Messages of one direction by type.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub struct Counters {
    /// OPEN.
    pub open: u64,
    /// UPDATE.
    pub update: u64,
    /// NOTIFICATION.
    pub notification: u64,
    /// KEEPALIVE.
    pub keepalive: u64,
    /// ROUTE-REFRESH.
    pub refresh: u64,
}

impl Counters {
    pub(super) fn count(&mut self, kind: u8) {
        match kind {
            super::kind::OPEN => self.open += 1,
            super::kind::UPDATE => self.update += 1,
            super::kind::NOTIFICATION => self.notification += 1,
            super::kind::KEEPALIVE => self.keepalive += 1,
            super::kind::REFRESH => self.refresh += 1,
            _ => {}
        }
    }

    /// All types together.
    pub const fn total(&self) -> u64 {
        self.open + self.update + self.notification + self.keepalive + self.refresh
    }
}

/// Counters and the last errors of a session; never reset while the session object lives.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
pub struct Stats {
    /// Whole messages received, also those that then proved faulty.
    pub received: Counters,
    /// Messages sent; UPDATEs as told by [`super::Session::note_sent_updates`].
    pub sent: Counters,
    /// Octets received on connections of this session.
    pub octets_received: u64,
    /// Faults in UPDATEs that did not end the session (BGP-ERR-28).
    pub faults: u64,
    /// How often it became Established.
    pub established: u64,
    /// When it last became Established.
    pub established_at: Option<Time>,
    /// When it last left Established.
    pub lost_at: Option<Time>,
    /// When the state last changed.
    pub since: Time,
    /// ConnectRetryCounter of RFC 4271 §8: failures since the last manual start or stop.
    pub connect_retry_counter: u64,
    /// Connections refused: in Idle, or a third one.
    pub refused: u64,
    /// Last NOTIFICATION sent.
    pub last_sent: Option<(Time, Notification)>,
    /// Last NOTIFICATION received.
    pub last_received: Option<(Time, Notification)>,
    /// Why the last attempt or the last Established session ended.
    pub last_down: Option<(Time, String)>,
}
