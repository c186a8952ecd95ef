//! Connections and frames between VTEPs: delays of their own in each direction, order kept within a connection
//! and nowhere else, cuts in which TCP retransmits, resets in which it gives up.

use super::frr::is_frr;
use super::mutants::Mutant;
use super::sniff;
use super::vtep::{ROOM, address};
use super::world::{Ev, Fault, World};
use bytes::Bytes;
use evpn::node::ConnEvent;
use evpn::types::{ConnId, Span, Time};
use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};

/// What travels on a connection.
#[derive(Clone, Debug)]
pub(super) enum Item {
    Syn,
    SynAck,
    Bytes(Bytes),
    Fin,
    /// So many octets have arrived at the other end.
    Ack(u64),
    /// What was lost in a cut arrives now, in its order.
    Again,
}

/// One end of a connection.
pub(super) struct End {
    pub(super) host: usize,
    conn: ConnId,
    open: bool,
    /// When the last item for this end arrives.
    last: Time,
    /// Arrived while the path was cut.
    parked: VecDeque<Item>,
    /// Octets from here that have not arrived.
    flight: u64,
}

/// A connection.
pub(super) struct Tcp {
    pub(super) ends: [End; 2],
}

impl World {
    /// One-way delay of a packet, jitter included.
    fn delay(&mut self, from: usize, to: usize) -> Span {
        let known = self.frr_delay(from, to);
        let base = known.unwrap_or_else(|| self.delays[from * self.hosts() + to]);
        Span::micros(base + self.rng.below(base / 4 + 1))
    }

    /// Whoever speaks BGP.
    pub(super) fn hosts(&self) -> usize {
        self.plan.fabric.nodes + self.plan.fabric.reflectors
    }

    fn host_of(&self, address_of: IpAddr) -> Option<usize> {
        self.all_hosts().find(|i| address(*i) == address_of)
    }

    pub(super) fn is_cut(&self, a: usize, b: usize) -> bool {
        self.cuts.contains(&(a.min(b), a.max(b)))
    }

    /// Something listens there.
    fn alive(&self, i: usize) -> bool {
        match self.vteps.get(i) {
            Some(v) => v.daemon.is_some(),
            None if is_frr(i) => self.frr_alive(i),
            None => self.reflectors.get(i - self.vteps.len()).is_some_and(|r| r.alive),
        }
    }

    pub(super) fn dial(&mut self, i: usize, conn: ConnId, to: IpAddr) {
        let Some(j) = self.host_of(to) else { return };
        let end =
            |host, conn| End { host, conn, open: true, last: Time(0), parked: VecDeque::new(), flight: 0 };
        let mut ends = [end(i, conn), end(j, ConnId(0))];
        ends[1].open = false;
        self.tcps.push(Tcp { ends });
        let tcp = self.tcps.len() - 1;
        if let Some(v) = self.vteps.get_mut(i) {
            v.conns.insert(conn, (tcp, 0));
        }
        self.carry(tcp, 1, Item::Syn);
    }

    /// Sends an item towards an end.
    fn carry(&mut self, tcp: usize, side: usize, item: Item) {
        let (from, to) = (self.tcps[tcp].ends[1 - side].host, self.tcps[tcp].ends[side].host);
        let mut at = self.now + self.delay(from, to);
        let end = &mut self.tcps[tcp].ends[side];
        at = at.max(end.last + Span(1));
        end.last = at;
        self.push_at(at, Ev::Tcp(tcp, side, item));
    }

    /// Octets from a node.
    pub(super) fn send(&mut self, i: usize, conn: ConnId, bytes: Bytes) {
        let Some(&(tcp, side)) = self.vteps[i].conns.get(&conn) else { return };
        let to = self.tcps[tcp].ends[1 - side].host;
        let bytes = match self.mutant {
            Some(m) => m.distorts(&bytes, &mut self.mutated),
            None => bytes,
        };
        if bytes.is_empty() {
            return;
        }
        self.count(i, to, &bytes);
        self.transmit(tcp, side, bytes);
        if self.mutant == Some(Mutant::Chatter) {
            let again = self.mutated.clone();
            for b in again {
                self.count(i, to, &b);
                self.transmit(tcp, side, b);
            }
        }
    }

    /// Octets from one end to the other.
    pub(super) fn transmit(&mut self, tcp: usize, side: usize, bytes: Bytes) {
        let n = bytes.len() as u64;
        self.tcps[tcp].ends[side].flight += n;
        // TCP knows no messages.
        if bytes.len() > 2 && self.rng.percent(10) {
            let cut = self.rng.range(1, bytes.len() as u64 - 1) as usize;
            self.carry(tcp, 1 - side, Item::Bytes(bytes.slice(..cut)));
            self.carry(tcp, 1 - side, Item::Bytes(bytes.slice(cut..)));
        } else {
            self.carry(tcp, 1 - side, Item::Bytes(bytes));
        }
    }

    /// An end is closed by its host.
    pub(super) fn close(&mut self, tcp: usize, side: usize) {
        let end = &mut self.tcps[tcp].ends[side];
        if std::mem::take(&mut end.open) {
            self.carry(tcp, 1 - side, Item::Fin);
        }
    }

    /// Both ends see the connection break at once.
    pub(super) fn reset(&mut self, a: usize, b: usize) {
        for tcp in 0..self.tcps.len() {
            let ends = &self.tcps[tcp].ends;
            let hosts = (ends[0].host, ends[1].host);
            if hosts == (a, b) || hosts == (b, a) {
                for side in 0..2 {
                    self.broken(tcp, side, "reset");
                }
            }
        }
    }

    /// An end sees its connection break.
    fn broken(&mut self, tcp: usize, side: usize, why: &str) {
        let end = &mut self.tcps[tcp].ends[side];
        if !std::mem::take(&mut end.open) {
            return;
        }
        let (host, conn) = (end.host, end.conn);
        self.host_event(host, conn, (tcp, side), ConnEvent::Closed { why: why.to_owned() });
    }

    fn host_event(&mut self, host: usize, conn: ConnId, (tcp, side): (usize, usize), event: ConnEvent) {
        let gone = matches!(event, ConnEvent::Closed { .. } | ConnEvent::Failed { .. });
        if is_frr(host) {
            return self.frr_event(host, tcp, side, event);
        }
        if host >= self.vteps.len() {
            return self.rr_event(host, tcp, side, event);
        }
        if gone {
            self.vteps[host].conns.remove(&conn);
            if self.mutant == Some(Mutant::CloseUnnoticed) && matches!(event, ConnEvent::Closed { .. }) {
                return;
            }
        }
        self.conn_event(host, conn, event);
    }

    /// An item arrives.
    pub(super) fn arrive(&mut self, tcp: usize, side: usize, item: Item) {
        let [a, b] = [self.tcps[tcp].ends[0].host, self.tcps[tcp].ends[1].host];
        if self.is_cut(a, b) {
            // A lost SYN is not worth a retransmission: the node dials again. The end of this cut retransmits all.
            if !matches!(item, Item::Syn | Item::Again) {
                self.tcps[tcp].ends[side].parked.push_back(item);
            }
            return;
        }
        if matches!(item, Item::Again) {
            for item in std::mem::take(&mut self.tcps[tcp].ends[side].parked) {
                self.arrive(tcp, side, item);
            }
            return;
        }
        if !self.tcps[tcp].ends[side].parked.is_empty() {
            self.tcps[tcp].ends[side].parked.push_back(item);
            return;
        }
        let (host, conn, open) = {
            let e = &self.tcps[tcp].ends[side];
            (e.host, e.conn, e.open)
        };
        match item {
            Item::Syn => self.accept(tcp, side),
            Item::SynAck if open => {
                let local = SocketAddr::new(address(host), 40_000);
                self.host_event(host, conn, (tcp, side), ConnEvent::Connected { local });
                self.tell_room(tcp, side);
            }
            Item::Bytes(b) if open => {
                let n = b.len() as u64;
                self.host_event(host, conn, (tcp, side), ConnEvent::Bytes(b));
                if self.plan.fabric.room > 0 {
                    self.carry(tcp, 1 - side, Item::Ack(n));
                }
            }
            Item::Ack(n) if open => {
                let e = &mut self.tcps[tcp].ends[side];
                e.flight = e.flight.saturating_sub(n);
                self.tell_room(tcp, side);
            }
            Item::Fin if open => self.broken(tcp, side, "closed by peer"),
            Item::Bytes(_) => {
                // Nobody is there any more: RST.
                self.carry(tcp, 1 - side, Item::Fin);
            }
            Item::SynAck | Item::Ack(_) | Item::Fin | Item::Again => {}
        }
    }

    fn accept(&mut self, tcp: usize, side: usize) {
        let host = self.tcps[tcp].ends[side].host;
        let from = self.tcps[tcp].ends[1 - side].host;
        if !self.tcps[tcp].ends[1 - side].open {
            return;
        }
        if !self.alive(host) {
            self.carry(tcp, 1 - side, Item::Fin);
            return;
        }
        self.tcps[tcp].ends[side].open = true;
        let mut conn = ConnId(0);
        if let Some(v) = self.vteps.get_mut(host) {
            v.accepted += 1;
            conn = ConnId(v.accepted);
            v.conns.insert(conn, (tcp, side));
            self.tcps[tcp].ends[side].conn = conn;
        }
        self.carry(tcp, 1 - side, Item::SynAck);
        let (remote, local) = (SocketAddr::new(address(from), 40_000), SocketAddr::new(address(host), 179));
        self.host_event(host, conn, (tcp, side), ConnEvent::Accepted { remote, local });
        self.tell_room(tcp, side);
    }

    fn tell_room(&mut self, tcp: usize, side: usize) {
        let e = &self.tcps[tcp].ends[side];
        let (host, conn, flight, open) = (e.host, e.conn, e.flight, e.open);
        if !open || host >= self.vteps.len() {
            return;
        }
        let room = match self.plan.fabric.room {
            0 => ROOM,
            n => n.saturating_sub(flight) as usize,
        };
        self.conn_event(host, conn, ConnEvent::Room(room));
    }

    /// A path carries packets again: TCP retransmits what it has. What was under way when the cut ended arrives before that
    /// and waits for it: TCP hands octets over in their order.
    pub(super) fn heal(&mut self, a: usize, b: usize) {
        if !self.cuts.remove(&(a.min(b), a.max(b))) {
            return;
        }
        for tcp in 0..self.tcps.len() {
            let ends = &self.tcps[tcp].ends;
            let hosts = (ends[0].host, ends[1].host);
            if hosts != (a, b) && hosts != (b, a) {
                continue;
            }
            for side in 0..2 {
                let parked = &self.tcps[tcp].ends[side].parked;
                if parked.is_empty() {
                    continue;
                }
                if parked.iter().any(|i| matches!(i, Item::Fin)) {
                    // This end takes a session for up whose other end is gone, until it is told.
                    self.begin(Fault::Repair, self.longest() + Span::millis(1));
                }
                self.carry(tcp, side, Item::Again);
            }
        }
    }

    /// A frame in VXLAN.
    pub(super) fn encapsulated(&mut self, from: usize, to: IpAddr, frame: Vec<u8>) {
        let Some(j) = self.host_of(to) else { return };
        if self.is_cut(from, j) {
            return;
        }
        let d = self.delay(from, j);
        self.push(d, Ev::Frame(j, from, frame));
    }

    /// Notes what an UPDATE says.
    pub(super) fn count(&mut self, from: usize, to: usize, bytes: &[u8]) {
        for m in sniff::messages(bytes).filter(|m| sniff::is_update(m)) {
            self.updates += 1;
            self.last_update = self.now;
            let tally = &mut self.tally;
            sniff::routes(m, |seen| tally.note(from, to, seen));
        }
    }
}
