//! How many routes a neighbour may send (RFC 4271 §6.7): a warning on the way there, an end beyond.
//!
//! Looked at after every UPDATE, so that there is never more than the limit and one message.

use super::neighbor_rules::PrefixAction;
use super::neighbors::HeldDown;
use super::{Event, Node};
use crate::session::Input;
use crate::types::{PeerId, Time};
use crate::wire::Family;
use bytes::{BufMut as _, Bytes, BytesMut};

/// What has been told of a neighbour's number of routes in this session.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Told {
    /// Nothing.
    #[default]
    Nothing,
    /// That it comes near the limit.
    Near,
    /// That it is beyond it.
    Beyond,
}

/// Data of a Cease 6/1: family and limit (BGP-NOTIF-05).
pub(super) fn cease_data(limit: u32) -> Bytes {
    let mut data = BytesMut::with_capacity(7);
    data.put_u16(Family::EVPN.afi);
    data.put_u8(Family::EVPN.safi);
    data.put_u32(limit);
    data.freeze()
}

impl Node {
    /// After an UPDATE of a neighbour.
    pub(super) fn check_prefixes(&mut self, i: usize, at: Time) {
        let Some(rule) = self.peers[i].config.rules.max_prefixes else { return };
        let routes = self.rib.counters(PeerId(i as u32)).routes_in as u64;
        let limit = u64::from(rule.limit);
        let stage = if routes > limit {
            Told::Beyond
        } else if routes * 100 >= limit * u64::from(rule.warning) {
            Told::Near
        } else {
            Told::Nothing
        };
        let before = self.peers[i].prefixes_told;
        if stage <= before {
            // Told again only after it had fallen well below, or a neighbour at the edge would fill the log.
            if routes * 100 < limit * u64::from(rule.warning) / 10 * 9 {
                self.peers[i].prefixes_told = stage;
            }
            return;
        }
        self.peers[i].prefixes_told = stage;
        let address = self.peers[i].config.address;
        let what = match (stage, rule.action) {
            (Told::Beyond, PrefixAction::Teardown) => {
                format!("neighbour {address} has sent {routes} routes, more than it may: its session ends")
            }
            (Told::Beyond, PrefixAction::Warn) => {
                format!("neighbour {address} has sent {routes} routes, more than it may: they are kept")
            }
            (Told::Near | Told::Nothing, _) => format!("neighbour {address} has sent {routes} routes"),
        };
        self.journal.event(Event::Limit { what, limit }, at);
        if stage == Told::Beyond && rule.action == PrefixAction::Teardown {
            let until = rule.restart.map(|s| at + s);
            self.peers[i].held_down = Some(HeldDown::Prefixes { limit: rule.limit, until });
            if let Some(stop) = self.stop_of(i) {
                self.drive(i, stop, at);
            }
        }
    }

    /// When a neighbour that had too many routes is tried again.
    pub(super) fn prefix_restart(&self, i: usize) -> Option<Time> {
        match self.peers[i].held_down {
            Some(HeldDown::Prefixes { until, .. }) => until,
            Some(HeldDown::Operator(_)) | None => None,
        }
    }

    /// Tries it again when it is time.
    pub(super) fn due_prefixes(&mut self, i: usize, at: Time) {
        if self.prefix_restart(i).is_some_and(|t| t <= at) {
            self.peers[i].held_down = None;
            self.drive(i, Input::Start, at);
        }
    }
}
