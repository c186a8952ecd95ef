//! The one place where events become log lines, with their fields. On a thread of its own: a line takes some
//! microseconds to format, and ten thousand moves at once make ten thousand lines.

use evpn::node::{Event, Level};
use evpn::types::Time;
use std::io;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;
use tracing::level_filters::LevelFilter;
use tracing::{debug, info, warn};

/// Events that may wait to be logged. More are not logged, only counted; `show events` has them all the same.
const QUEUE: usize = 16_384;
/// Events of a kind that comes in masses, logged one by one per second.
const PER_SECOND: u64 = 50;

/// See the module.
#[derive(Debug)]
pub(super) struct EventLog {
    queue: Option<SyncSender<(u64, Event)>>,
    thread: Option<JoinHandle<()>>,
    lost: u64,
    moves: Masses,
    forced: Masses,
}

/// Events of one kind: the second of the boot clock, and how many came in it.
#[derive(Debug, Default)]
struct Masses {
    second: u64,
    seen: u64,
}

impl Masses {
    /// Takes one in. Whether it is to be logged, and how many of an earlier second were not.
    fn take(&mut self, at: Time) -> (bool, u64) {
        let second = at.0 / 1_000_000_000;
        let mut more = 0;
        if self.second != second {
            more = self.seen.saturating_sub(PER_SECOND);
            *self = Self { second, seen: 0 };
        }
        self.seen += 1;
        (self.seen <= PER_SECOND, more)
    }
}

impl EventLog {
    /// Starts the thread.
    pub(super) fn start() -> io::Result<Self> {
        let (queue, waiting) = sync_channel::<(u64, Event)>(QUEUE);
        let run = move || waiting.iter().for_each(|(n, event)| log(n, &event));
        let thread = std::thread::Builder::new().name("events".into()).spawn(run)?;
        Ok(Self {
            queue: Some(queue),
            thread: Some(thread),
            lost: 0,
            moves: Masses::default(),
            forced: Masses::default(),
        })
    }

    /// Logs an event of that time if its level is wanted. Never waits. Of many moves at once (a rack is
    /// evacuated), and of what follows from them, the first of each second are logged one by one and the rest by
    /// their number.
    pub(super) fn push(&mut self, at: Time, n: u64, event: Event) {
        let (listed, more, kind) = if matches!(event, Event::Move(_)) {
            let (listed, more) = self.moves.take(at);
            (listed, more, "moves not listed here, see `vtepd show moves`")
        } else if matches!(event, Event::WithdrawForced { .. }) {
            let (listed, more) = self.forced.take(at);
            (listed, more, "withdrawals that did not wait for the kernel, not listed here")
        } else {
            (true, 0, "")
        };
        if more > 0 {
            info!(count = more, "{kind}");
        }
        if !listed {
            return;
        }
        let level = match event.level() {
            Level::Debug => LevelFilter::DEBUG,
            Level::Info => LevelFilter::INFO,
            Level::Warn => LevelFilter::WARN,
        };
        let Some(queue) = self.queue.as_ref().filter(|_| level <= LevelFilter::current()) else { return };
        if queue.try_send((n, event)).is_err() {
            self.lost += 1;
        } else if self.lost > 0 {
            warn!(count = self.lost, "events were not logged");
            self.lost = 0;
        }
    }
}

impl Drop for EventLog {
    /// What waits is still logged.
    fn drop(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Logs at a level that is known only at run time.
macro_rules! say {
    ($level:expr, $($what:tt)+) => {
        match $level {
            Level::Debug => debug!($($what)+),
            Level::Info => info!($($what)+),
            Level::Warn => warn!($($what)+),
        }
    };
}

/// Logs an event.
fn log(n: u64, event: &Event) {
    let level = event.level();
    match event {
        Event::NeighborUp { peer: _, address, hold_time } => {
            say!(level, n, neighbor = %address, hold_time, "session established");
        }
        Event::NeighborDown { peer: _, address, why } => {
            say!(level, n, neighbor = %address, why, "session down");
        }
        Event::SessionNote { address, text } => {
            say!(level, n, neighbor = %address, text, "session");
        }
        Event::NeighborAway { peer: _, address, routes, keep } => {
            say!(level, n, neighbor = %address, routes, %keep, "neighbour is away, its routes are kept");
        }
        Event::StaleRoutesDropped { peer: _, address, routes, why } => {
            say!(level, n, neighbor = %address, routes, why, "stale routes dropped");
        }
        Event::BfdUp { address } => {
            say!(level, n, neighbor = %address, "BFD up");
        }
        Event::BfdDown { address, why, ends_session } => {
            say!(level, n, neighbor = %address, why, ends_session, "BFD down");
        }
        Event::EndOfRib { peer: _, address } => {
            say!(level, n, neighbor = %address, "initial routes complete");
        }
        Event::NeighborAdmin { address, text } => {
            say!(level, n, neighbor = %address, text, "neighbour");
        }
        Event::UpdateFault { address, offset, attribute, what, treatment, routes, octets } => {
            say!(level, n, neighbor = %address, offset, attribute, what, treatment, routes, octets, "faulty UPDATE");
        }
        Event::MacLocal { vni, mac, port, seq } => {
            say!(level, n, %vni, %mac, port, %seq, "MAC is local");
        }
        Event::MacGone { vni, mac, port, why } => {
            say!(level, n, %vni, %mac, port, why, "local MAC is gone");
        }
        Event::Move(m) => {
            let decided_us = m.decided.since(m.seen).0 / 1000;
            let (vni, mac, from, to, seq) = (m.vni, m.mac, &m.from, &m.to, m.seq);
            say!(level, n, %vni, %mac, %from, %to, %seq, role = &*m.role, cause = &*m.cause, ips = ?m.ips, decided_us, "MAC moved");
        }
        Event::MovePrepared { vni, mac, port, by, timeout } => {
            say!(level, n, %vni, %mac, port, by = by.as_str(), %timeout, "move prepared");
        }
        Event::MoveActivated { vni, mac, port, seq, by } => {
            say!(level, n, %vni, %mac, port, %seq, by = by.as_str(), "move activated");
        }
        Event::MoveAborted { vni, mac, port, why } => {
            say!(level, n, %vni, %mac, port, why, "move aborted");
        }
        Event::MoveReleased { vni, mac, by, timeout, at_stop } => {
            say!(level, n, %vni, %mac, by = by.as_str(), %timeout, at_stop, "guest released");
        }
        Event::MoveMarked { vni, mac, vtep, port } => {
            say!(level, n, %vni, %mac, %vtep, port, "the guest has stopped at its source, activated here");
        }
        Event::FramesHeld { vni, mac, kept, relayed, dropped } => {
            say!(level, n, %vni, %mac, kept, relayed, dropped, "frames for a guest that stood still went after it");
        }
        Event::MoveTimedOut { vni, mac, port, why } => {
            say!(level, n, %vni, %mac, port, why, "move timed out");
        }
        Event::LateFrame { vni, mac, port, after } => {
            say!(level, n, %vni, %mac, port, %after, "late frame from the old port, row put back");
        }
        Event::StickyConflict { vni, mac, owner, port } => {
            say!(level, n, %vni, %mac, %owner, port, "local host claims a sticky MAC");
        }
        Event::StickyTwice { vni, mac, owner, rival } => {
            say!(level, n, %vni, %mac, %owner, %rival, "two VTEPs call this MAC sticky");
        }
        Event::StickyClaimed { vni, mac, port, vtep } => {
            say!(level, n, %vni, %mac, port, %vtep, "a peer claims a MAC that is sticky here");
        }
        Event::StickyMisplaced { vni, mac, port, seen } => {
            say!(level, n, %vni, %mac, port, seen, "a sticky MAC was seen on another port");
        }
        Event::GatewaySeen { vni, mac, port } => {
            say!(level, n, %vni, %mac, port, "a gateway's MAC was seen on an access port");
        }
        Event::AddressRefused { vni, mac, ip, owner, vtep } => {
            say!(level, n, %vni, %mac, %ip, %owner, %vtep, "local host claims an address of a gateway or a sticky MAC");
        }
        Event::StaticHostClaimed { vni, ip, owner, mac, place } => {
            say!(level, n, %vni, %ip, %owner, %mac, %place, "a static host's address was claimed by another MAC");
        }
        Event::StaticHostTwice { vni, ip, owner, rival } => {
            say!(level, n, %vni, %ip, %owner, %rival, "an address is a static host's with different MACs");
        }
        Event::OwnAddress { vni, mac, vtep } => {
            say!(level, n, %vni, %mac, %vtep, "a peer advertises an address of our own bridge as a host");
        }
        Event::SequenceNearWrap { vni, mac, seq } => {
            say!(level, n, %vni, %mac, %seq, "mobility sequence near its wrap: FRR will take what follows for older");
        }
        Event::Duplicate { vni, address, owners, port, action } => {
            say!(level, n, %vni, %address, ?owners, port, ?action, "two hosts have one address");
        }
        Event::ContestedAfar { vni, ip, holder, mac, vtep } => {
            say!(level, n, %vni, %ip, %holder, %mac, %vtep, "two hosts have one address, as another VTEP has found out: nobody is answered for it");
        }
        Event::DuplicateEnded { vni, address, why } => {
            say!(level, n, %vni, %address, why, "no duplicate any more");
        }
        Event::MoveRefused { vni, address, from, to, why } => {
            say!(level, n, %vni, %address, %from, %to, why, "move refused");
        }
        Event::AddressNotAllowed { vni, mac, ip, port } => {
            say!(level, n, %vni, %mac, %ip, port, "a host claims an address that its port may not have");
        }
        Event::BindingRefused { vni, mac, ip, port } => {
            say!(level, n, %vni, %mac, ?ip, port, "binding dropped: the forwarding table never agreed");
        }
        Event::VtepJoined { vni, vtep } => {
            say!(level, n, %vni, %vtep, "VTEP joined");
        }
        Event::VtepLeft { vni, vtep } => {
            say!(level, n, %vni, %vtep, "VTEP left");
        }
        Event::VniReady { vni, ready, why } => {
            say!(level, n, %vni, ready, why, "VNI");
        }
        Event::WriteFailed { row, errno, text } => {
            say!(level, n, row, errno, text, "the kernel refused a row");
        }
        Event::RowRepaired { row } => {
            say!(level, n, row, "row repaired");
        }
        Event::WithdrawForced { vni, mac } => {
            say!(level, n, %vni, %mac, "withdrawn although the kernel has not acknowledged");
        }
        Event::Overrun { count } => {
            say!(level, n, count, "kernel notifications lost, reading all tables again");
        }
        Event::DeviceProblem { device, problem, index: _ } => {
            say!(level, n, device, problem, "device");
        }
        Event::Limit { what, limit } => {
            say!(level, n, what, limit, "limit reached");
        }
        Event::PortGuarded { vni, port, limit, allowed, hold } => {
            say!(level, n, %vni, port, limit, allowed, %hold, "a port makes MACs up, it lets only known ones in");
        }
        Event::PortOpened { vni, port, after, frames } => {
            say!(level, n, %vni, port, %after, frames, "a port lets all MACs in again");
        }
        Event::GuardRefused { vni, port, why } => {
            say!(level, n, %vni, port, why, "frames of made-up MACs are not dropped");
        }
        Event::Guest { guest, text, warn: _ } => {
            say!(level, n, guest, text, "guest");
        }
        Event::StateDamaged { path, offset, what, outcome } => {
            say!(level, n, path, offset, what, outcome, "state file damaged");
        }
        Event::StateFailing { path, why, risk } => {
            say!(level, n, path, why, risk, "sequences are not kept; tried again every second");
        }
        Event::StateRecovered { path, records, after } => {
            say!(level, n, path, records, %after, "sequences are kept again");
        }
        Event::StaleSwept { rows } => {
            say!(level, n, rows, "unconfirmed rows removed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_a_second_are_listed_and_the_rest_are_counted() {
        let mut m = Masses::default();
        let at = |ms: u64| Time(ms * 1_000_000);
        let listed = (0..200).filter(|n| m.take(at(1000 + n)).0).count();
        assert_eq!(listed as u64, PER_SECOND);
        assert_eq!(m.take(at(2000)), (true, 150));
        assert_eq!(m.take(at(2001)), (true, 0));
        assert_eq!(m.take(at(3500)), (true, 0), "nothing was left out");
    }
}
