//! Neighbours: sessions, their connections, and the way of UPDATEs in both directions.

use super::dynamic::Guest;
use super::faults::Faults;
use super::input::ConnEvent;
use super::neighbors::HeldDown;
use super::prefixes::Told;
use super::{Config, Event, NeighborConfig, Node, Output, SEND_PATH, memberships};
use crate::rib::Rib;
use crate::session::{self, Agreed, Session};
use crate::types::{ConnId, PeerId, Time};
use crate::wire::{Family, Fault, RefreshKind, Treatment, Update};
use bytes::Bytes;
use std::net::{IpAddr, SocketAddr};

/// Ids of dialled connections have this bit; the driver's own never do.
const DIALLED: u64 = 1 << 63;
/// UPDATEs are encoded only while so much room is left, so that they are packed well.
const MIN_ROOM: usize = 4096;
/// UPDATEs handed out per peer and flush; the rest waits for the next turn, so that others get theirs.
const UPDATES_PER_FLUSH: usize = 64;

/// A neighbour at work.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) config: NeighborConfig,
    pub(super) session: Session,
    pub(super) up: Option<(ConnId, Box<Agreed>)>,
    pub(super) end_of_rib: bool,
    /// Its routes are stale.
    pub(super) stale: Option<super::restart::Stale>,
    pub(super) since: Time,
    pub(super) established_count: u64,
    pub(super) updates_in: u64,
    pub(super) updates_out: u64,
    pub(super) faults: u64,
    pub(super) faults_by: Faults,
    /// Nothing is tried, and why.
    pub(super) held_down: Option<HeldDown>,
    pub(super) prefixes_told: Told,
    pub(super) last_error: Option<String>,
    /// It came out of a range.
    pub(super) guest: Option<Guest>,
    /// When its routes are sent although it has not said all that it wants (BGP-RTC-05).
    pub(super) memberships_by: Option<Time>,
    pub(super) bfd: Option<super::bfd::Known>,
}

/// A connection of a neighbour.
#[derive(Debug)]
pub(super) struct Conn {
    peer: usize,
    room: usize,
    /// Octets given to the driver, and how many of them the socket has taken.
    pub(super) given: u64,
    pub(super) taken: u64,
}

pub(super) fn build(config: &Config, seed: u64, rib: &mut Rib, at: Time) -> Vec<Peer> {
    let peer = |(i, n): (usize, &NeighborConfig)| {
        rib.add_peer(PeerId(i as u32), n.address, n.asn.is_internal(config.asn));
        if n.route_reflector_client {
            rib.set_client(PeerId(i as u32));
        }
        let seed = seed.wrapping_add((i as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        Peer::new(n.clone(), config, seed, at)
    };
    config.neighbors.iter().enumerate().map(peer).collect()
}

impl Peer {
    /// One that has not been started.
    pub(super) fn new(n: NeighborConfig, config: &Config, seed: u64, at: Time) -> Self {
        let session = Session::new(session::Config {
            hold_time: n.hold_time,
            send_hold_time: n.rules.send_hold_time,
            connect_retry: n.connect_retry,
            passive: n.passive,
            graceful: n.restart.graceful,
            families: memberships::families(&n),
            required: if n.require_evpn { vec![Family::EVPN] } else { Vec::new() },
            min_hold_time: n.min_hold_time,
            extended_open: n.extended_open,
            seed,
            ..session::Config::new(config.asn, n.asn, config.router_id)
        });
        let held_down = n.rules.shutdown.clone().map(HeldDown::Operator);
        Self {
            config: n,
            session,
            up: None,
            end_of_rib: false,
            stale: None,
            since: at,
            established_count: 0,
            updates_in: 0,
            updates_out: 0,
            faults: 0,
            faults_by: Faults::default(),
            held_down,
            prefixes_told: Told::default(),
            last_error: None,
            bfd: None,
            guest: None,
            memberships_by: None,
        }
    }
}

impl Node {
    pub(super) fn start_sessions(&mut self, at: Time) {
        for i in 0..self.peers.len() {
            match self.stop_of(i) {
                Some(stop) => self.drive(i, stop, at),
                None => self.drive(i, session::Input::Start, at),
            }
        }
    }

    /// Cease/2 to everybody; their routes of ours go with the session. `back`: not at those that can keep them.
    pub(super) fn stop_sessions(&mut self, back: bool, at: Time) {
        for i in 0..self.peers.len() {
            let stop = session::Input::Stop { subcode: 2, data: Bytes::new() };
            self.drive(i, if back { session::Input::Away } else { stop }, at);
        }
    }

    pub(super) fn due_sessions(&mut self, at: Time) {
        for i in 0..self.peers.len() {
            self.due_prefixes(i, at);
            // A session has few timers; more rounds would mean one that never moves on.
            for _ in 0..8 {
                match self.peers[i].session.poll_timeout() {
                    Some((t, _)) if t <= at => self.drive(i, session::Input::Timer, at),
                    _ => break,
                }
            }
        }
    }

    pub(super) fn handle_conn(&mut self, conn: ConnId, event: ConnEvent, at: Time) {
        if let ConnEvent::Accepted { remote, .. } = &event {
            self.accepted(conn, *remote, at);
            return;
        }
        let Some(c) = self.conns.get_mut(&conn) else { return };
        let peer = c.peer;
        match event {
            ConnEvent::Accepted { .. } => {}
            ConnEvent::Room(n) => {
                c.room = n;
                let before = c.taken;
                c.taken = c.given.saturating_sub(SEND_PATH.saturating_sub(n) as u64);
                if c.taken > before {
                    self.peers[peer].session.note_taken(conn, at);
                }
                self.socket_took(conn, peer, at);
            }
            ConnEvent::Connected { .. } => self.drive(peer, session::Input::Connected(conn), at),
            ConnEvent::Failed { why } => {
                self.conns.remove(&conn);
                self.drive(peer, session::Input::Failed(conn, &why), at);
            }
            ConnEvent::Bytes(b) => self.drive(peer, session::Input::Bytes(conn, &b), at),
            ConnEvent::Closed { why } => {
                self.conns.remove(&conn);
                self.drive(peer, session::Input::Closed(conn, &why), at);
            }
        }
    }

    fn accepted(&mut self, conn: ConnId, remote: SocketAddr, at: Time) {
        let address = remote.ip().to_canonical();
        let known = self.peers.iter().position(|p| p.exists() && p.config.address == address);
        let Some(i) = known.or_else(|| self.welcome(address, at)).filter(|_| !self.stopping) else {
            self.journal.count("connections_from_strangers");
            self.journal.push(Output::Hangup { conn });
            return;
        };
        self.conns.insert(conn, Conn { peer: i, room: 0, given: 0, taken: 0 });
        self.drive(i, session::Input::Accepted(conn), at);
        if !self.peers[i].session.owns(conn) {
            self.conns.remove(&conn);
        }
    }

    /// Gives a session one input and acts on its outputs.
    pub(super) fn drive(&mut self, i: usize, input: session::Input<'_>, at: Time) {
        self.want_bfd(i, &input);
        let mut out = Vec::new();
        let next = &mut self.next_conn;
        let mut ids = || {
            *next += 1;
            ConnId(DIALLED | *next)
        };
        self.peers[i].session.handle(input, at, &mut ids, &mut out);
        for o in out {
            self.session_output(i, o, at);
        }
        self.mind_guest(i, at);
    }

    fn session_output(&mut self, i: usize, o: session::Output, at: Time) {
        match o {
            session::Output::Dial(conn) => {
                self.conns.insert(conn, Conn { peer: i, room: 0, given: 0, taken: 0 });
                let n = &self.peers[i].config;
                let to = SocketAddr::new(n.address, n.port);
                let (from, hops) = (n.local_address, n.hops(self.config.asn));
                self.journal.push(Output::Dial { conn, to, from, hops });
            }
            session::Output::Send(conn, bytes) => {
                if let Some(c) = self.conns.get_mut(&conn) {
                    c.room = c.room.saturating_sub(bytes.len());
                    c.given += bytes.len() as u64;
                    self.journal.push(Output::Send { conn, bytes });
                }
            }
            session::Output::Hangup(conn) => {
                self.conns.remove(&conn);
                self.journal.push(Output::Hangup { conn });
            }
            session::Output::Up(conn, agreed) => self.session_up(i, conn, agreed, at),
            session::Output::Down { was_up, kept, why, .. } => {
                self.session_down(i, was_up.then_some(kept), why, at);
            }
            // What came in the same read as the message that ended the session.
            session::Output::Update { .. } if self.peers[i].up.is_none() => {}
            session::Output::Update { update, treatment, faults, raw } => {
                self.session_update(i, &update, treatment, (&faults, &raw), at);
            }
            session::Output::Refresh(r) => {
                if r.kind == RefreshKind::Request && r.family == Family::EVPN {
                    self.rib.refresh(PeerId(i as u32));
                }
                if r.kind == RefreshKind::Request && r.family == Family::RTC {
                    self.rib.refresh_memberships(PeerId(i as u32));
                }
            }
            session::Output::Note(text) => {
                let address = self.peers[i].config.address;
                self.journal.count("session_notes");
                self.journal.event(Event::SessionNote { address, text }, at);
            }
        }
    }

    fn session_up(&mut self, i: usize, conn: ConnId, agreed: Box<Agreed>, at: Time) {
        self.revision += 1;
        let p = &mut self.peers[i];
        p.since = at;
        p.established_count += 1;
        p.end_of_rib = false;
        let hold_time = agreed.hold_time;
        self.rib.peer_up(PeerId(i as u32), &agreed);
        p.memberships_by = memberships::deadline(&self.rib, PeerId(i as u32), at);
        let evpn = agreed.families.contains(&Family::EVPN);
        p.up = Some((conn, agreed));
        let address = p.config.address;
        self.neighbor_back(i, at);
        self.journal.event(Event::NeighborUp { peer: PeerId(i as u32), address, hold_time }, at);
        if !evpn {
            let what = format!("neighbour {address} does not speak L2VPN EVPN: no routes are exchanged");
            self.journal.event(Event::SessionNote { address, text: what }, at);
        }
    }

    /// `kept`: it was Established, and whether its routes may stay.
    fn session_down(&mut self, i: usize, kept: Option<bool>, why: String, at: Time) {
        self.revision += 1;
        let p = &mut self.peers[i];
        let up = p.up.take();
        let lost = self.moves.sends.gone(i);
        self.moves.handed(lost, None, at, &mut self.journal);
        let p = &mut self.peers[i];
        p.prefixes_told = Told::default();
        p.last_error = Some(why.clone());
        let address = p.config.address;
        if let Some(kept) = kept {
            p.since = at;
            p.end_of_rib = false;
            self.neighbor_lost(i, kept, up.as_ref().map(|(_, a)| &**a), at);
        }
        self.journal.event(Event::NeighborDown { peer: PeerId(i as u32), address, why }, at);
    }

    fn session_update(
        &mut self,
        i: usize,
        u: &Update,
        treatment: Option<Treatment>,
        (faults, raw): (&[Fault], &[u8]),
        at: Time,
    ) {
        let peer = PeerId(i as u32);
        let p = &mut self.peers[i];
        p.updates_in += 1;
        p.faults += faults.len() as u64;
        let address = p.config.address;
        p.faults_by.take(address, u, faults, raw, &mut self.journal, at);
        self.rib.update(peer, u, treatment, at);
        self.check_prefixes(i, at);
        if !self.peers[i].end_of_rib && self.rib.end_of_rib(peer) {
            self.peers[i].end_of_rib = true;
            self.journal.event(Event::EndOfRib { peer, address }, at);
            self.neighbor_told_all(i, at);
        }
    }

    /// Encodes what is due for each established neighbour, within the room its connection has.
    pub(super) fn pump(&mut self, at: Time) {
        if self.moves.sends.has_fresh() {
            let up: Vec<usize> = (0..self.peers.len()).filter(|i| self.hears_routes(*i)).collect();
            self.moves.give_out(&up, at, &mut self.journal);
        }
        for i in 0..self.peers.len() {
            let Some((conn, max_send)) =
                self.peers[i].up.as_ref().map(|(c, a)| (*c, usize::from(a.max_send)))
            else {
                continue;
            };
            let peer = PeerId(i as u32);
            let mut sent = 0;
            while sent < UPDATES_PER_FLUSH
                && let Some(c) = self.conns.get_mut(&conn)
                && c.room >= MIN_ROOM
                && let Some(bytes) = self.rib.next_update(peer, max_send.min(c.room))
            {
                c.room = c.room.saturating_sub(bytes.len());
                c.given += bytes.len() as u64;
                self.peers[i].session.keep_sent(&bytes, at);
                self.journal.push(Output::Send { conn, bytes });
                sent += 1;
            }
            let (given, taken) = self.conns.get(&conn).map_or((0, 0), |c| (c.given, c.taken));
            let rib = &self.rib;
            self.moves.sends.encoded(i, !rib.has_urgent(peer), given, |key| rib.is_due(peer, key));
            if given == taken {
                // Nothing had to be said after all: the peer never had what was to be withdrawn.
                let none = self.moves.sends.written(i, given);
                self.moves.handed(none, None, at, &mut self.journal);
            }
            self.more_changes |= sent == UPDATES_PER_FLUSH;
            if sent > 0 {
                self.peers[i].updates_out += sent as u64;
                self.peers[i].session.note_sent_updates(sent as u64, at);
            }
        }
    }

    /// Established, EVPN was agreed on, and nothing is waited for.
    fn hears_routes(&self, i: usize) -> bool {
        self.peers[i].up.as_ref().is_some_and(|(_, a)| a.families.contains(&Family::EVPN))
            && !self.rib.waits_for_memberships(PeerId(i as u32))
    }

    /// The socket of a peer's connection has taken more.
    fn socket_took(&mut self, conn: ConnId, peer: usize, at: Time) {
        let Some(taken) = self.conns.get(&conn).map(|c| c.taken) else { return };
        if self.peers[peer].up.as_ref().is_some_and(|(c, _)| *c == conn) {
            let address = self.peers[peer].config.address;
            let tickets = self.moves.sends.written(peer, taken);
            self.moves.handed(tickets, Some(address), at, &mut self.journal);
        }
    }

    pub(super) fn peer_address(&self, peer: PeerId) -> Option<IpAddr> {
        self.peers.get(peer.0 as usize).map(|p| p.config.address)
    }
}
