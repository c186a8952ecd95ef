//! The thread. What has arrived counts before a timer: a thread that was late does not take that for a silent peer.

use super::row::{self, BfdRow, BfdTable};
use super::sockets::{Ear, Mouth};
use super::{Order, on_link};
use crate::driver::clock;
use evpn::bfd::{Hops, Output, Path, State, Table};
use evpn::node::{BfdNews, BfdWant};
use evpn::types::{PeerId, Span, Time};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use tokio::sync::mpsc;

/// Datagrams read from a socket before the timers are looked at: so that nobody can hold those up by talking.
const DATAGRAMS: usize = 256;
/// Between two attempts at what did not work: a socket, an address that was not there yet; and between two looks at the
/// way to a neighbour that is not up.
const AGAIN: Span = Span::secs(1);
/// Until the core has room for news.
const NEWS_AGAIN: Span = Span::millis(5);

struct Seat {
    want: BfdWant,
    mouth: Option<Mouth>,
    error: Option<String>,
}

pub(super) struct Worker {
    orders: Receiver<Order>,
    bell: Arc<OwnedFd>,
    tell: mpsc::Sender<(PeerId, BfdNews)>,
    table: Table,
    seats: BTreeMap<PeerId, Seat>,
    ears: Vec<Ear>,
    /// Why a port cannot be heard.
    deaf: Option<String>,
    /// Whose news the core has not heard.
    owed: BTreeSet<PeerId>,
    again_at: Time,
    out: Vec<Output>,
}

impl Worker {
    pub(super) fn new(
        orders: Receiver<Order>,
        bell: Arc<OwnedFd>,
        tell: mpsc::Sender<(PeerId, BfdNews)>,
        seed: u64,
    ) -> Self {
        Self {
            orders,
            bell,
            tell,
            table: Table::new(seed),
            seats: BTreeMap::new(),
            ears: Vec::new(),
            deaf: None,
            owed: BTreeSet::new(),
            again_at: clock::now(),
            out: Vec::new(),
        }
    }

    /// Until it is told to stop.
    pub(super) fn run(mut self) {
        raise_priority();
        loop {
            self.sleep();
            self.hear();
            let go_on = self.take_orders();
            let now = clock::now();
            self.table.due(now, &mut self.out);
            self.speak();
            if now >= self.again_at {
                self.again_at = now + AGAIN;
                self.look_again(now);
                self.speak();
            }
            self.tell_news();
            if !go_on {
                return;
            }
        }
    }

    /// Until a datagram, an order or a timer.
    fn sleep(&self) {
        let now = clock::now();
        let news = (!self.owed.is_empty()).then_some(now + NEWS_AGAIN);
        let until = [self.table.poll_timeout(), news].into_iter().flatten().fold(self.again_at, Time::min);
        let wait = until.since(now).0;
        let part = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        let wait = Timespec { tv_sec: part(wait / 1_000_000_000), tv_nsec: part(wait % 1_000_000_000) };
        let bell = PollFd::new(&*self.bell, PollFlags::IN);
        let mut all: Vec<PollFd<'_>> = self.ears.iter().map(Ear::poll_fd).chain([bell]).collect();
        // An interruption is a wake-up like any other.
        let _ = poll(&mut all, Some(&wait));
    }

    fn hear(&mut self) {
        for ear in &self.ears {
            for _ in 0..DATAGRAMS {
                let Some((arrival, datagram)) = ear.recv() else { break };
                // What is refused is counted there.
                let _ = self.table.receive(&arrival, datagram.as_ref(), clock::now(), &mut self.out);
            }
        }
        self.speak();
    }

    /// Returns whether to go on.
    fn take_orders(&mut self) -> bool {
        let mut count = [0; 8];
        let _ = rustix::io::read(&*self.bell, &mut count);
        while let Ok(order) = self.orders.try_recv() {
            let now = clock::now();
            match order {
                Order::Set(peer, want) => {
                    if self.seats.get(&peer).is_none_or(|s| s.want != want) {
                        self.seats.insert(peer, Seat { want, mouth: None, error: None });
                    }
                    self.set(peer, now);
                }
                Order::Off(peer) => self.table.disable(peer, now, &mut self.out),
                Order::Show(reply) => {
                    let _ = reply.send(self.rows(now));
                }
                Order::Stop => return false,
            }
            self.speak();
        }
        true
    }

    /// A session as it is wanted, over the path that leads there now.
    fn set(&mut self, peer: PeerId, now: Time) {
        let Some(seat) = self.seats.get_mut(&peer) else { return };
        let want = seat.want;
        let known = self.table.get(peer).map(|(p, _)| *p);
        let multihop = want.config.multihop.unwrap_or_else(|| {
            // Without a route nothing is known; the route may be gone together with the neighbour.
            on_link::on_link(want.address)
                .map_or(known.is_some_and(|p| p.hops.is_multi()), |on_link| !on_link)
        });
        let hops = if multihop { Hops::Multi { min_ttl: want.config.min_ttl } } else { Hops::Single };
        let path = Path { peer: want.address, scope: 0, hops };
        if known != Some(path) {
            seat.mouth = None;
        }
        self.table.set(peer, path, want.config.session, now, &mut self.out);
        self.open(peer);
    }

    /// Opens what the session needs and has not got.
    fn open(&mut self, peer: PeerId) {
        let Some((path, session)) = self.table.get(peer) else { return };
        let Some(seat) = self.seats.get_mut(&peer) else { return };
        let (multihop, v6) = (path.hops.is_multi(), path.peer.is_ipv6());
        if !self.ears.iter().any(|e| e.is(multihop, v6)) {
            match Ear::open(multihop, v6) {
                Ok(ear) => {
                    self.ears.push(ear);
                    self.deaf = None;
                }
                Err(e) => {
                    let port = if multihop { evpn::bfd::MULTIHOP_PORT } else { evpn::bfd::SINGLE_HOP_PORT };
                    let way_out = match e.kind() {
                        io::ErrorKind::AddrInUse => "; another program does BFD here (bfdd?)",
                        _ => "",
                    };
                    let why = format!("cannot listen on UDP port {port}: {e}{way_out}");
                    if self.deaf.as_ref() != Some(&why) {
                        tracing::error!(port, error = %e, "BFD hears nothing; tried again every second");
                    }
                    self.deaf = Some(why);
                }
            }
        }
        if seat.mouth.is_none() {
            let seed = session.discriminators().0;
            match Mouth::open(path.peer, path.scope, seat.want.from, multihop, seed) {
                Ok(mouth) => {
                    seat.mouth = Some(mouth);
                    seat.error = None;
                }
                Err(e) => seat.error = Some(format!("cannot open a socket: {e}")),
            }
        }
    }

    /// What did not work, and neighbours that may have come nearer or gone farther.
    fn look_again(&mut self, now: Time) {
        let resting = |t: &Table, peer: PeerId| {
            t.get(peer).is_some_and(|(_, s)| !matches!(s.state(), State::Up | State::AdminDown))
        };
        let all: Vec<PeerId> = self.seats.keys().copied().collect();
        for peer in all {
            if resting(&self.table, peer) {
                self.set(peer, now);
            } else {
                self.open(peer);
            }
        }
    }

    /// Sends what waits.
    fn speak(&mut self) {
        for o in self.out.drain(..) {
            match o {
                Output::Send(peer, octets) => {
                    let Some(seat) = self.seats.get_mut(&peer) else { continue };
                    let Some(mouth) = &seat.mouth else { continue };
                    seat.error = mouth.send(&octets).err().map(|e| format!("cannot send: {e}"));
                }
                Output::Changed(peer, _) => {
                    self.owed.insert(peer);
                }
            }
        }
    }

    /// The core hears how each changed session stands now. What it has no room for is told later, as it stands then.
    fn tell_news(&mut self) {
        let (table, tell) = (&self.table, &self.tell);
        self.owed.retain(|peer| {
            let Some((_, s)) = table.get(*peer) else { return false };
            let news = BfdNews {
                state: s.state(),
                diag: s.diag(),
                remote: s.remote().0,
                failures: s.stats().failures,
            };
            matches!(tell.try_send((*peer, news)), Err(mpsc::error::TrySendError::Full(_)))
        });
    }

    fn rows(&self, now: Time) -> BfdTable {
        let row = |(peer, path, s): (PeerId, &Path, &evpn::bfd::Session)| {
            let seat = self.seats.get(&peer)?;
            let since = now.since(s.stats().since);
            let mut row = BfdRow::new(path.peer, seat.want.from, path.hops.is_multi(), s, since);
            row.error = self.deaf.clone().or_else(|| seat.error.clone());
            Some(row)
        };
        BfdTable {
            rows: self.table.iter().filter_map(row).collect(),
            dropped: row::dropped(self.table.rejected()),
        }
    }
}

/// 50 ms × 3 must hold while both cores are busy: before all threads without a real-time priority, where that is allowed
/// (root, or `LimitRTPRIO`); else as far ahead as the process may be.
fn raise_priority() {
    let param = libc::sched_param { sched_priority: 1 };
    // SAFETY: 0 is this thread, and `param` lives across the call.
    #[allow(unsafe_code)]
    let rc = unsafe {
        libc::sched_setscheduler(0, libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK, &raw const param)
    };
    if rc == 0 {
        return;
    }
    let why = io::Error::last_os_error();
    let nice = rustix::process::setpriority_process(Some(rustix::thread::gettid()), -15);
    tracing::warn!(error = %why, niced = nice.is_ok(), "BFD has no real-time priority; on a busy host it may miss a peer's pace (LimitRTPRIO=1 allows it)");
}
