//! All sessions: which one a datagram is for (RFC 5880 §6.3, RFC 5881 §3, §5, RFC 5883 §4, §5), whose timer is next.

use super::packet::{LENGTH, Packet, Reject, State};
use super::session::{Change, Config, Session};
use crate::session::rng::Rng;
use crate::types::{PeerId, Time};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// How far the peer is.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Hops {
    /// On a link of ours: sent with TTL 255, and taken with that alone (BFD-05).
    Single,
    /// Behind routers (BFD-08).
    Multi {
        /// Taken with this TTL or more.
        min_ttl: u8,
    },
}

impl Hops {
    /// Over several hops.
    pub const fn is_multi(self) -> bool {
        matches!(self, Self::Multi { .. })
    }

    const fn least_ttl(self) -> u8 {
        match self {
            Self::Single => 255,
            Self::Multi { min_ttl } => min_ttl,
        }
    }
}

/// Between whom a session is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Path {
    /// The peer.
    pub peer: IpAddr,
    /// Index of the link that a link-local peer is on; 0 with any other.
    pub scope: u32,
    /// How far it is.
    pub hops: Hops,
}

/// Where a datagram has come from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Arrival {
    /// Its source.
    pub from: IpAddr,
    /// Index of the link it came in by, where the source is link-local; else 0.
    pub scope: u32,
    /// On the port for sessions over several hops.
    pub multihop: bool,
    /// TTL or hop limit; `None`: the kernel did not say.
    pub ttl: Option<u8>,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Output {
    /// Send this to the peer.
    Send(PeerId, [u8; LENGTH]),
    /// Its state is another one.
    Changed(PeerId, Change),
}

#[derive(Debug)]
struct Entry {
    path: Path,
    session: Session,
    /// Where it stands in [`Table::due`].
    due: Option<Time>,
    /// It is forgotten when it is silent.
    leaving: bool,
}

/// See the module. At most one session per neighbour.
#[derive(Debug)]
pub struct Table {
    rng: Rng,
    sessions: BTreeMap<PeerId, Entry>,
    /// Our discriminators.
    numbers: BTreeMap<u32, PeerId>,
    due: BTreeSet<(Time, PeerId)>,
    rejected: BTreeMap<Reject, u64>,
}

impl Table {
    /// No session. Discriminators and jitter come from `seed`.
    pub fn new(seed: u64) -> Self {
        Self {
            rng: Rng::new(seed),
            sessions: BTreeMap::new(),
            numbers: BTreeMap::new(),
            due: BTreeSet::new(),
            rejected: BTreeMap::new(),
        }
    }

    /// There is to be a session with this neighbour, like this. One over the same path goes on, also when it was
    /// switched off.
    pub fn set(&mut self, id: PeerId, path: Path, config: Config, at: Time, out: &mut Vec<Output>) {
        if self.sessions.get(&id).is_none_or(|e| e.path != path) {
            self.forget(id);
            let number = self.fresh_number(id);
            let session = Session::new(config, number, self.rng.next(), at);
            self.sessions.insert(id, Entry { path, session, due: None, leaving: false });
        }
        self.with(id, out, |e, sends| {
            e.leaving = false;
            e.session.set(config, at, sends);
            e.session.enable(at)
        });
    }

    /// An operator has switched it off (BFD-09).
    pub fn disable(&mut self, id: PeerId, at: Time, out: &mut Vec<Output>) {
        self.with(id, out, |e, sends| e.session.disable(at, sends));
    }

    /// As [`Table::disable`], and forgotten when the peer has had the time to hear of it.
    pub fn remove(&mut self, id: PeerId, at: Time, out: &mut Vec<Output>) {
        self.with(id, out, |e, sends| {
            e.leaving = true;
            e.session.disable(at, sends)
        });
    }

    /// Takes in a datagram's payload.
    ///
    /// # Errors
    /// It was discarded and counted; no session has changed (BFD-04, BFD-05, BFD-08).
    pub fn receive(
        &mut self,
        arrival: &Arrival,
        octets: &[u8],
        at: Time,
        out: &mut Vec<Output>,
    ) -> Result<(), Reject> {
        match self.judge(arrival, octets) {
            Ok((id, packet)) => {
                self.with(id, out, |e, sends| e.session.receive(&packet, at, sends));
                Ok(())
            }
            Err(why) => {
                *self.rejected.entry(why).or_default() += 1;
                Err(why)
            }
        }
    }

    fn judge(&self, arrival: &Arrival, octets: &[u8]) -> Result<(PeerId, Packet), Reject> {
        // Before anything is read: what came over a router is nobody's on the port for one hop.
        if !arrival.multihop && arrival.ttl != Some(255) {
            return Err(Reject::Ttl);
        }
        let packet = Packet::decode(octets)?;
        let is_from = |p: &Path| {
            p.peer == arrival.from && p.scope == arrival.scope && p.hops.is_multi() == arrival.multihop
        };
        let (id, entry) = if packet.your == 0 {
            let found = self.sessions.iter().find(|(_, e)| is_from(&e.path));
            found.ok_or(Reject::Stranger)?
        } else {
            let id = self.numbers.get(&packet.your).ok_or(Reject::UnknownDiscriminator)?;
            let found = self.sessions.get_key_value(id).filter(|(_, e)| is_from(&e.path));
            found.ok_or(Reject::Stranger)?
        };
        if arrival.ttl.is_none_or(|t| t < entry.path.hops.least_ttl()) {
            return Err(Reject::Ttl);
        }
        Ok((*id, packet))
    }

    /// Whatever is due.
    pub fn due(&mut self, at: Time, out: &mut Vec<Output>) {
        while let Some((t, id)) = self.due.first().copied()
            && t <= at
        {
            self.with(id, out, |e, sends| e.session.due(at, sends));
            if self.sessions.get(&id).is_some_and(|e| e.leaving && e.session.is_silent()) {
                self.forget(id);
            }
        }
    }

    /// When to call [`Table::due`].
    pub fn poll_timeout(&self) -> Option<Time> {
        self.due.first().map(|(t, _)| *t)
    }

    /// A session.
    pub fn get(&self, id: PeerId) -> Option<(&Path, &Session)> {
        self.sessions.get(&id).map(|e| (&e.path, &e.session))
    }

    /// All sessions.
    pub fn iter(&self) -> impl Iterator<Item = (PeerId, &Path, &Session)> {
        self.sessions.iter().map(|(id, e)| (*id, &e.path, &e.session))
    }

    /// Packets that were discarded, by reason.
    pub fn rejected(&self) -> impl Iterator<Item = (Reject, u64)> {
        self.rejected.iter().map(|(why, n)| (*why, *n))
    }

    /// Any session that is not switched off.
    pub fn is_active(&self) -> bool {
        self.sessions.values().any(|e| e.session.state() != State::AdminDown)
    }

    /// Lets a session act, and hands on what came of it.
    fn with(
        &mut self,
        id: PeerId,
        out: &mut Vec<Output>,
        act: impl FnOnce(&mut Entry, &mut Vec<[u8; LENGTH]>) -> Option<Change>,
    ) {
        let Some(e) = self.sessions.get_mut(&id) else { return };
        let mut sends = Vec::new();
        let change = act(e, &mut sends);
        out.extend(sends.into_iter().map(|octets| Output::Send(id, octets)));
        out.extend(change.map(|c| Output::Changed(id, c)));
        let due = e.session.poll_timeout();
        if due != e.due {
            if let Some(t) = e.due {
                self.due.remove(&(t, id));
            }
            if let Some(t) = due {
                self.due.insert((t, id));
            }
            e.due = due;
        }
    }

    fn forget(&mut self, id: PeerId) {
        if let Some(e) = self.sessions.remove(&id) {
            self.numbers.remove(&e.session.discriminators().0);
            self.due.retain(|(_, of)| *of != id);
        }
    }

    /// Not 0, and no other session's (BFD-01).
    fn fresh_number(&mut self, id: PeerId) -> u32 {
        loop {
            let n = self.rng.next() as u32;
            if n != 0 && !self.numbers.contains_key(&n) {
                self.numbers.insert(n, id);
                return n;
            }
        }
    }
}
