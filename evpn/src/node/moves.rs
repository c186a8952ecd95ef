//! Move records: from the first sign to the kernel's acknowledgement and the last peer's socket.

use super::event::Event;
use super::journal::Journal;
use super::past::{Moved, Past};
use super::sends::Sends;
use super::view::{Handed, MoveKind, MoveView, Place};
use crate::types::{Mac, Seq, Span, Time, Vni};
use crate::wire::RouteKey;
use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;

/// Finished records kept.
const HISTORY: usize = 4096;
/// Records open at a time; above it the oldest is closed as it is.
const OPEN: usize = 16_384;
/// A record is closed as it is when its end has not come by then: the kernel refuses, or a peer does not read.
const LINGER: Span = Span::secs(5);

/// What a record is about.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Subject {
    Mac(Vni, Mac),
    Ip(Vni, IpAddr),
}

/// A record by subject and number: a later one of the same subject is another one.
pub(super) type Ticket = (Subject, u64);

/// What a move makes us tell our peers.
#[derive(Debug)]
pub(super) enum Tell {
    /// Nothing.
    Nothing,
    /// These routes, which are due already.
    Now(Vec<RouteKey>),
    /// A withdrawal once the kernel has the row (EVPN-MOB-07).
    Later,
}

/// What a record starts with.
#[derive(Debug)]
pub(super) struct Opening {
    pub(super) kind: MoveKind,
    pub(super) vni: Vni,
    pub(super) mac: Mac,
    pub(super) mac_before: Option<Mac>,
    pub(super) ips: Vec<IpAddr>,
    pub(super) role: &'static str,
    pub(super) cause: &'static str,
    pub(super) from: Place,
    pub(super) to: Place,
    pub(super) seq_before: Seq,
    pub(super) seq: Seq,
    pub(super) silent: Option<Span>,
    pub(super) seen: Time,
    /// A row is to be written: its acknowledgement is awaited.
    pub(super) kernel: bool,
    /// The row was acknowledged before the move was decided on (PIT-06).
    pub(super) acked: Option<Time>,
    pub(super) tell: Tell,
    /// Local hosts are to be told of another MAC.
    pub(super) hosts: bool,
}

impl Opening {
    fn subject(&self) -> Subject {
        match (self.kind, self.ips.first()) {
            (MoveKind::ChangedMac | MoveKind::NewIp, Some(ip)) => Subject::Ip(self.vni, *ip),
            (MoveKind::Hot | MoveKind::Warm | MoveKind::Cold | MoveKind::ChangedMac | MoveKind::NewIp, _) => {
                Subject::Mac(self.vni, self.mac)
            }
        }
    }
}

/// How far the peers have been told.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Telling {
    /// The routes are not given to the peers' queues yet.
    Pending,
    /// So many peers are still to get it.
    Peers(usize),
}

#[derive(Debug)]
struct Open {
    /// Apart, because an ordered map moves its entries about.
    view: Box<MoveView>,
    kernel: bool,
    telling: Telling,
    /// Local hosts are still to be told.
    hosts: bool,
}

impl Open {
    fn complete(&self) -> bool {
        self.telling == Telling::Peers(0) && !self.hosts && (!self.kernel || self.view.acked.is_some())
    }
}

/// Open and finished records.
#[derive(Debug, Default)]
pub(super) struct Moves {
    open: BTreeMap<Subject, Open>,
    /// When open records end at the latest, oldest first; also those that have ended since.
    deadlines: VecDeque<(Time, Ticket)>,
    pub(super) sends: Sends,
    /// Records of addresses that are open, to spare looking for one at every neighbour row.
    open_ips: usize,
    done: VecDeque<Arc<MoveView>>,
    next: u64,
    /// Whose move has just been, and who was where.
    pub(super) past: Past,
}

impl Moves {
    /// Opens a record; one that is still open for the same subject ends as it is.
    pub(super) fn open(&mut self, o: Opening, at: Time, journal: &mut Journal) {
        let subject = o.subject();
        self.close(subject, at, journal);
        while self.open.len() >= OPEN
            && let Some((_, (oldest, id))) = self.deadlines.pop_front()
        {
            if self.is_open((oldest, id)) {
                self.close(oldest, at, journal);
            }
        }
        if let Subject::Mac(vni, mac) = subject {
            let moved = Moved { from: o.from.clone(), seq_before: o.seq_before, at };
            self.past.moved.insert((vni, mac), moved);
        }
        self.next += 1;
        let view = MoveView {
            id: self.next,
            kind: o.kind,
            vni: o.vni,
            mac: o.mac,
            mac_before: o.mac_before,
            ips: o.ips,
            role: o.role.into(),
            cause: o.cause.into(),
            from: o.from,
            to: o.to,
            seq_before: o.seq_before,
            seq: o.seq,
            silent: o.silent,
            seen: o.seen,
            decided: at,
            peers: Vec::new(),
            sent: None,
            acked: o.acked,
            told: None,
        };
        let ticket = (subject, view.id);
        let telling = if matches!(o.tell, Tell::Nothing) { Telling::Peers(0) } else { Telling::Pending };
        self.open_ips += usize::from(matches!(subject, Subject::Ip(..)));
        let view = Box::new(view);
        self.open.insert(subject, Open { view, kernel: o.kernel, telling, hosts: o.hosts });
        self.deadlines.push_back((at + LINGER, ticket));
        if let Tell::Now(keys) = o.tell {
            self.sends.due(ticket, keys);
        }
        self.close_if_complete(subject, at, journal);
    }

    /// The withdrawal of a lost MAC is due now.
    pub(super) fn withdrawing(&mut self, vni: Vni, mac: Mac, keys: Vec<RouteKey>) {
        let subject = Subject::Mac(vni, mac);
        if let Some(o) = self.open.get(&subject).filter(|o| o.telling == Telling::Pending) {
            self.sends.due((subject, o.view.id), keys);
        }
    }

    /// Gives what is due to the queues of the peers that are up, by index.
    pub(super) fn give_out(&mut self, up: &[usize], at: Time, journal: &mut Journal) {
        for (subject, id) in self.sends.give_out(up) {
            if let Some(o) = self.open.get_mut(&subject).filter(|o| o.view.id == id) {
                o.telling = Telling::Peers(up.len());
                self.close_if_complete(subject, at, journal);
            }
        }
    }

    /// A peer's socket has taken all that these records make us say; `address` is `None` when the session
    /// ended before it had.
    pub(super) fn handed(
        &mut self,
        tickets: Vec<Ticket>,
        address: Option<IpAddr>,
        at: Time,
        journal: &mut Journal,
    ) {
        for (subject, id) in tickets {
            let Some(o) = self.open.get_mut(&subject).filter(|o| o.view.id == id) else { continue };
            let Telling::Peers(n @ 1..) = &mut o.telling else { continue };
            *n -= 1;
            let last = *n == 0;
            if let Some(peer) = address {
                o.view.peers.push(Handed { peer, at });
            }
            if last {
                o.view.sent = o.view.peers.last().map(|h| h.at);
                self.close_if_complete(subject, at, journal);
            }
        }
    }

    /// The kernel acknowledged a MAC's row.
    pub(super) fn acked(&mut self, vni: Vni, mac: Mac, at: Time, journal: &mut Journal) {
        self.acknowledged(Subject::Mac(vni, mac), at, journal);
    }

    /// The kernel acknowledged an address's row.
    pub(super) fn acked_ip(&mut self, vni: Vni, ip: IpAddr, at: Time, journal: &mut Journal) {
        if self.open_ips > 0 {
            self.acknowledged(Subject::Ip(vni, ip), at, journal);
        }
    }

    /// Local hosts have been told of an address's new MAC.
    pub(super) fn told(&mut self, vni: Vni, ip: IpAddr, at: Time, journal: &mut Journal) {
        let subject = Subject::Ip(vni, ip);
        if let Some(o) = self.open.get_mut(&subject).filter(|o| o.hosts) {
            o.hosts = false;
            o.view.told = Some(at);
            self.close_if_complete(subject, at, journal);
        }
    }

    fn acknowledged(&mut self, subject: Subject, at: Time, journal: &mut Journal) {
        if let Some(o) = self.open.get_mut(&subject) {
            if o.kernel {
                o.view.acked.get_or_insert(at);
            }
            self.close_if_complete(subject, at, journal);
        }
    }

    /// IPs that joined while the record is open.
    pub(super) fn joined(&mut self, vni: Vni, mac: Mac, ip: IpAddr) {
        if let Some(o) = self.open.get_mut(&Subject::Mac(vni, mac))
            && !o.view.ips.contains(&ip)
        {
            o.view.ips.push(ip);
        }
    }

    /// Closes what has been open for too long.
    pub(super) fn expire(&mut self, at: Time, journal: &mut Journal) {
        while let Some(&(deadline, ticket)) = self.deadlines.front() {
            let open = self.is_open(ticket);
            if open && deadline > at {
                break;
            }
            self.deadlines.pop_front();
            if open {
                self.close(ticket.0, at, journal);
            }
        }
    }

    /// When [`Self::expire`] wants to be called.
    pub(super) fn deadline(&self) -> Option<Time> {
        self.deadlines.front().map(|(t, _)| *t)
    }

    fn is_open(&self, (subject, id): Ticket) -> bool {
        self.open.get(&subject).is_some_and(|o| o.view.id == id)
    }

    fn close_if_complete(&mut self, subject: Subject, at: Time, journal: &mut Journal) {
        if self.open.get(&subject).is_some_and(Open::complete) {
            self.close(subject, at, journal);
        }
    }

    fn close(&mut self, subject: Subject, at: Time, journal: &mut Journal) {
        let Some(o) = self.open.remove(&subject) else { return };
        self.open_ips -= usize::from(matches!(subject, Subject::Ip(..)));
        while self.deadlines.front().is_some_and(|(_, t)| !self.is_open(*t)) {
            self.deadlines.pop_front();
        }
        // One that was opened before the oldest ended is behind it in the queue; many of them are swept out.
        if self.deadlines.len() > 2 * OPEN {
            let open = &self.open;
            self.deadlines.retain(|(_, (s, id))| open.get(s).is_some_and(|o| o.view.id == *id));
        }
        if self.done.len() == HISTORY {
            self.done.pop_front();
        }
        let m = Arc::new(*o.view);
        self.done.push_back(Arc::clone(&m));
        journal.count("moves");
        journal.event(Event::Move(m), at);
    }

    /// Number of records that have not ended.
    pub(super) fn open_len(&self) -> usize {
        self.open.len()
    }

    /// Records after number `after`, oldest first, finished and open.
    pub(super) fn after(&self, after: u64) -> Vec<&MoveView> {
        let open = self.open.values().map(|o| &*o.view);
        let mut v: Vec<_> = self.done.iter().map(|m| &**m).chain(open).filter(|m| m.id > after).collect();
        v.sort_by_key(|m| m.id);
        v
    }
}
