//! Neighbours that nobody has configured one by one: whoever connects from a prefix becomes one, on the prefix's terms,
//! up to its limit, and is forgotten when its session has been gone for a while.
//!
//! A neighbour's number is its place in `Node::peers`; the place of one that was forgotten is vacant until the next one
//! comes. There are never more places than the limits allow together.

use super::peers::Peer;
use super::sometimes::Sometimes;
use super::{Event, NeighborConfig, Node, Output};
use crate::mobility::IpPrefix;
use crate::session::{self, State};
use crate::types::{PeerId, Span, Time};
use serde::Serialize;
use std::net::IpAddr;

/// How long a neighbour is remembered whose session was up: longer than it needs to start again.
const LINGER: Span = Span::secs(300);
/// The same for one that has never come so far. Its failures are damped as long as it is remembered (BGP-FSM-14).
const LINGER_NEVER_UP: Span = Span::secs(30);
/// That a prefix is full is told once in this time.
const TELL_FULL: Span = Span::secs(60);

/// A prefix whose addresses may become neighbours.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct NeighborRange {
    /// The prefix.
    #[serde(serialize_with = "as_text")]
    pub prefix: IpPrefix,
    /// Most of them at a time.
    pub limit: usize,
    /// On which terms. They are never dialled; the address is that of whoever connects.
    pub terms: NeighborConfig,
}

fn as_text<S: serde::Serializer>(prefix: &IpPrefix, s: S) -> Result<S::Ok, S::Error> {
    s.collect_str(prefix)
}

/// What a peer is that came out of a range.
#[derive(Debug)]
pub(super) struct Guest {
    /// Which range.
    pub(super) range: usize,
    /// When it is forgotten, while it has no connection.
    until: Option<Time>,
    /// It has been forgotten: the place is free.
    vacant: bool,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Dynamic {
    seed: u64,
    /// So many were made.
    made: u64,
    told: Sometimes<usize>,
}

impl Dynamic {
    pub(super) fn new(seed: u64) -> Self {
        Self { seed, made: 0, told: Sometimes::new(TELL_FULL, 64) }
    }
}

impl Peer {
    /// Whether there is such a neighbour: not a place that waits for one.
    pub(super) fn exists(&self) -> bool {
        self.guest.as_ref().is_none_or(|g| !g.vacant)
    }

    /// Whether it is waited for: it is configured, or its session is up.
    pub(super) fn expected(&self) -> bool {
        self.guest.is_none() || self.up.is_some()
    }

    /// When it is forgotten.
    pub(super) fn forgotten_at(&self) -> Option<Time> {
        self.guest.as_ref()?.until
    }
}

impl Node {
    /// A place for whoever connects from `address`, if a range has room for it.
    pub(super) fn welcome(&mut self, address: IpAddr, at: Time) -> Option<usize> {
        let range = self.config.neighbor_ranges.iter().position(|r| r.prefix.contains(address))?;
        let r = &self.config.neighbor_ranges[range];
        let of_range = |p: &&Peer| p.exists() && p.guest.as_ref().is_some_and(|g| g.range == range);
        if self.peers.iter().filter(of_range).count() >= r.limit {
            self.journal.count("dynamic_neighbors_refused");
            if self.dynamic.told.may(range, at) {
                let text = format!("connection refused: {} neighbours of {} are there", r.limit, r.prefix);
                self.journal.event(Event::SessionNote { address, text }, at);
            }
            return None;
        }
        let terms = NeighborConfig { address, passive: true, ..r.terms.clone() };
        let free = self.peers.iter().position(|p| !p.exists());
        let i = free.unwrap_or(self.peers.len());
        self.dynamic.made += 1;
        let seed = self.dynamic.seed ^ self.dynamic.made.wrapping_mul(0xd134_2543_de82_ef95);
        self.rib.add_peer(PeerId(i as u32), address, terms.asn.is_internal(self.config.asn));
        if terms.route_reflector_client {
            self.rib.set_client(PeerId(i as u32));
        }
        let mut peer = Peer::new(terms, &self.config, seed, at);
        peer.guest = Some(Guest { range, until: None, vacant: false });
        match self.peers.get_mut(i) {
            Some(place) => *place = peer,
            None => self.peers.push(peer),
        }
        self.revision += 1;
        self.journal.count("dynamic_neighbors_made");
        if self.peers[i].held_down.is_none() {
            self.drive(i, session::Input::Start, at);
        }
        Some(i)
    }

    /// After anything that concerned a session: when its neighbour is to be forgotten.
    pub(super) fn mind_guest(&mut self, i: usize, at: Time) {
        let p = &mut self.peers[i];
        let lingers = if p.established_count == 0 { LINGER_NEVER_UP } else { LINGER };
        // What an operator has said of it is not forgotten either.
        let busy = p.session.state() >= State::OpenSent || p.held_down.is_some() || p.stale.is_some();
        let Some(g) = p.guest.as_mut().filter(|g| !g.vacant) else { return };
        g.until = match g.until {
            _ if busy => None,
            Some(until) => Some(until),
            None => Some(at + lingers),
        };
    }

    /// Forgets those that have been gone for long enough.
    pub(super) fn due_guests(&mut self, at: Time) {
        for i in 0..self.peers.len() {
            self.mind_guest(i, at);
            if self.peers[i].forgotten_at().is_none_or(|t| t > at) {
                continue;
            }
            self.rib.remove_peer(PeerId(i as u32));
            if self.peers[i].config.bfd.is_some() {
                self.journal.push(Output::Bfd { peer: PeerId(i as u32), want: None });
            }
            let (config, range) = {
                let p = &self.peers[i];
                (p.config.clone(), p.guest.as_ref().map_or(0, |g| g.range))
            };
            // A session that was never started has no timers and no connections.
            let mut place = Peer::new(config, &self.config, 0, at);
            place.guest = Some(Guest { range, until: None, vacant: true });
            self.peers[i] = place;
            self.revision += 1;
            self.journal.count("dynamic_neighbors_forgotten");
        }
    }
}
