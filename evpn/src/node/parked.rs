//! Bindings that frames told and that wait for the forwarding table to show their MAC on that port (PIT-07).

use crate::hosts::BindingOrigin;
use crate::types::{IfIndex, Mac, Time, Vni};
use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;

/// Bindings that wait at a time; the oldest give way.
const LIMIT: usize = 16_384;

/// Where a MAC is said to be.
pub(super) type Spot = (Vni, IfIndex, Mac);

/// A binding that waits for the forwarding table.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Parked {
    pub(super) ip: IpAddr,
    pub(super) origin: BindingOrigin,
    pub(super) router: bool,
    /// It was bound already when the table let its MAC go: no refusal if that does not come back.
    pub(super) known: bool,
    pub(super) deadline: Time,
}

/// All that wait. Found by MAC, because a rack that moves announces thousands at once.
#[derive(Debug, Default)]
pub(super) struct Parking {
    by_spot: BTreeMap<Spot, Vec<Parked>>,
    /// In the order of deadlines; also of those that have left since.
    queue: VecDeque<(Time, Spot, IpAddr)>,
    len: usize,
}

impl Parking {
    /// Parks a binding, or renews what is said of one that waits. Returns whether an older one had to give way.
    pub(super) fn put(&mut self, spot: Spot, p: Parked) -> bool {
        if let Some(old) = self.by_spot.get_mut(&spot).and_then(|v| v.iter_mut().find(|o| o.ip == p.ip)) {
            (old.origin, old.router) = (p.origin, p.router);
            return false;
        }
        let full = self.len >= LIMIT;
        while self.len >= LIMIT && self.pop_until(Time(u64::MAX)).is_some() {}
        self.by_spot.entry(spot).or_default().push(p);
        self.queue.push_back((p.deadline, spot, p.ip));
        self.len += 1;
        full
    }

    /// Everything that waits for this MAC on this port.
    pub(super) fn take(&mut self, spot: Spot) -> Vec<Parked> {
        let all = self.by_spot.remove(&spot).unwrap_or_default();
        self.len -= all.len();
        if self.len == 0 {
            self.queue.clear();
        }
        all
    }

    /// The oldest, if its time has come.
    pub(super) fn due(&mut self, at: Time) -> Option<(Spot, Parked)> {
        self.pop_until(at)
    }

    fn pop_until(&mut self, at: Time) -> Option<(Spot, Parked)> {
        while self.timeout()? <= at {
            let (deadline, spot, ip) = self.queue.pop_front()?;
            let Some(v) = self.by_spot.get_mut(&spot) else { continue };
            let Some(i) = v.iter().position(|p| p.ip == ip && p.deadline == deadline) else { continue };
            let p = v.swap_remove(i);
            if v.is_empty() {
                self.by_spot.remove(&spot);
            }
            self.len -= 1;
            return Some((spot, p));
        }
        None
    }

    /// When the next one may be due; it may have left by then.
    pub(super) fn timeout(&self) -> Option<Time> {
        self.queue.front().map(|(t, _, _)| *t)
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// There is room for one more without anything giving way.
    pub(super) fn has_room(&self) -> bool {
        self.len() < LIMIT
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spot(n: u32) -> Spot {
        let [a, b, c, d] = n.to_be_bytes();
        (Vni::new(100).expect("valid"), IfIndex(7), Mac([2, 0, a, b, c, d]))
    }

    fn parked(n: u8, deadline: u64) -> Parked {
        let ip = IpAddr::from([10, 0, 0, n]);
        Parked { ip, origin: BindingOrigin::Arp, router: false, known: false, deadline: Time(deadline) }
    }

    #[test]
    fn what_was_taken_is_never_due_and_the_rest_is_in_its_order() {
        let mut w = Parking::default();
        for n in 0..4u8 {
            assert!(!w.put(spot(u32::from(n) % 2), parked(n, 10 + u64::from(n))));
        }
        assert_eq!(
            w.take(spot(0)).iter().map(|p| p.ip).collect::<Vec<_>>(),
            [parked(0, 0).ip, parked(2, 0).ip]
        );
        assert_eq!(w.due(Time(9)), None);
        assert_eq!(w.due(Time(20)).map(|d| d.1.ip), Some(parked(1, 0).ip));
        assert_eq!(w.due(Time(12)), None, "not before its time");
        assert_eq!(w.due(Time(20)).map(|d| d.1.ip), Some(parked(3, 0).ip));
        assert_eq!((w.due(Time(99)), w.len(), w.timeout()), (None, 0, None));
    }

    #[test]
    fn a_repeated_claim_keeps_its_deadline_and_the_oldest_give_way() {
        let mut w = Parking::default();
        w.put(spot(0), parked(1, 10));
        w.put(spot(0), Parked { router: true, ..parked(1, 50) });
        assert_eq!(w.due(Time(10)).map(|d| d.1.router), Some(true));
        for n in 0..LIMIT as u32 {
            assert!(!w.put(spot(n), parked(1, 10)));
        }
        assert!(w.put(spot(LIMIT as u32), parked(1, 10)));
        assert_eq!((w.len(), w.take(spot(0)).len(), w.take(spot(1)).len()), (LIMIT, 0, 1));
    }
}
