//! Frames that wait until somebody knows where they go. Pure; bounded for each MAC and for all.

use evpn::types::Mac;
use std::collections::{BTreeMap, VecDeque};

/// How much is kept.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ShelfLimits {
    /// Frames for one MAC.
    pub frames: usize,
    /// Octets for one MAC.
    pub octets: usize,
    /// Octets for all MACs.
    pub all: usize,
}

/// What waits for one MAC.
#[derive(Debug, Default)]
struct Queue {
    frames: VecDeque<Box<[u8]>>,
    octets: usize,
}

/// See the module.
#[derive(Debug)]
pub struct Shelf {
    limits: ShelfLimits,
    macs: BTreeMap<Mac, Queue>,
    octets: usize,
}

impl Shelf {
    /// Empty.
    pub fn new(limits: ShelfLimits) -> Self {
        Self { limits, macs: BTreeMap::new(), octets: 0 }
    }

    /// Keeps a frame behind those that wait for this MAC. `false`: there is no room, and those that came first stay.
    pub fn keep(&mut self, mac: Mac, frame: &[u8]) -> bool {
        let (frames, octets) = self.macs.get(&mac).map_or((0, 0), |q| (q.frames.len(), q.octets));
        let l = self.limits;
        if frames >= l.frames || octets + frame.len() > l.octets || self.octets + frame.len() > l.all {
            return false;
        }
        let queue = self.macs.entry(mac).or_default();
        queue.frames.push_back(frame.into());
        queue.octets += frame.len();
        self.octets += frame.len();
        true
    }

    /// The first that waits for a MAC.
    pub fn take(&mut self, mac: Mac) -> Option<Box<[u8]>> {
        let queue = self.macs.get_mut(&mac)?;
        let frame = queue.frames.pop_front();
        let octets = frame.as_ref().map_or(0, |f| f.len());
        queue.octets -= octets;
        self.octets -= octets;
        if queue.frames.is_empty() {
            self.macs.remove(&mac);
        }
        frame
    }

    /// Whether something waits for a MAC.
    pub fn has(&self, mac: Mac) -> bool {
        self.macs.contains_key(&mac)
    }

    /// Octets that wait, for all MACs.
    pub fn octets(&self) -> usize {
        self.octets
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Mac = Mac([2, 0, 0, 0, 0, 1]);
    const B: Mac = Mac([2, 0, 0, 0, 0, 2]);

    fn shelf() -> Shelf {
        Shelf::new(ShelfLimits { frames: 3, octets: 100, all: 150 })
    }

    fn all(s: &mut Shelf, mac: Mac) -> Vec<u8> {
        std::iter::from_fn(|| s.take(mac)).map(|f| f[0]).collect()
    }

    #[test]
    fn frames_come_back_in_order_and_each_once() {
        let mut s = shelf();
        for n in 1..=3u8 {
            assert!(s.keep(A, &[n; 10]));
            assert!(s.keep(B, &[n + 10; 4]));
        }
        assert_eq!(s.take(A).map(|f| f[0]), Some(1));
        assert!(s.keep(A, &[4; 10]), "behind those that wait");
        assert_eq!(all(&mut s, A), [2, 3, 4]);
        assert_eq!((s.has(A), s.take(A), s.has(B)), (false, None, true));
        assert_eq!(all(&mut s, B), [11, 12, 13]);
        assert_eq!(s.octets(), 0);
    }

    #[test]
    fn what_is_too_much_is_refused_and_what_came_first_stays() {
        let mut s = shelf();
        assert!((0..3).all(|_| s.keep(A, &[1; 10])));
        assert!(!s.keep(A, &[2; 1]), "three frames are the limit");
        assert_eq!((s.octets(), all(&mut s, A).len()), (30, 3));
        assert!(s.keep(A, &[1; 90]));
        assert!(!s.keep(A, &[1; 11]), "a hundred octets are");
        assert!(s.keep(A, &[1; 10]));
        assert!(!s.keep(B, &[1; 51]), "and a hundred and fifty for all");
        assert!(s.keep(B, &[1; 50]));
        assert_eq!(s.octets(), 150);
        assert_eq!(all(&mut s, A).len(), 2);
        assert!(s.keep(B, &[1; 50]), "what was taken makes room");
    }
}
