//! Ports that have lost a MAC: where its last frames may still come from (PIT-04).

use crate::types::{IfIndex, Time};
use std::net::IpAddr;

/// A port that lost a MAC to a remote VTEP, and when.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Lost {
    /// Port.
    pub port: IfIndex,
    /// When the remote route won.
    pub at: Time,
    /// When the forwarding table last showed the MAC on that port again.
    pub late: Option<Time>,
    /// Late frames counted.
    pub frames: u32,
    /// Its hypervisor had said just then that it runs there, and nothing had been heard of it yet: its frames from that
    /// port are its first words and not its last.
    pub told: bool,
    /// An address that it had there, to ask for when nobody has the MAC any more.
    pub ip: Option<IpAddr>,
}

impl Lost {
    /// Just now, with nothing known beyond that.
    pub const fn new(port: IfIndex, at: Time) -> Self {
        Self { port, at, late: None, frames: 0, told: false, ip: None }
    }
}

/// The ports that have lost one MAC, one entry for each, the latest last. A guest that changes its port and moves on, or
/// comes back and leaves again by another port, has last frames under way from several of them.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Losses(Vec<Lost>);

impl Losses {
    /// Ports remembered of one MAC; the one that lost it first is forgotten first.
    pub const LIMIT: usize = 4;

    /// A port has lost the MAC.
    pub fn note(&mut self, lost: Lost) {
        self.forget(lost.port);
        if self.0.len() >= Self::LIMIT {
            self.0.remove(0);
        }
        self.0.push(lost);
    }

    /// The MAC is on this port: nothing that comes from there is late.
    pub fn forget(&mut self, port: IfIndex) {
        self.0.retain(|l| l.port != port);
    }

    /// Nothing is remembered any more.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// The port that lost it last.
    pub fn latest(&self) -> Option<&Lost> {
        self.0.last()
    }

    /// What is remembered of one port.
    pub fn on(&self, port: IfIndex) -> Option<&Lost> {
        self.0.iter().find(|l| l.port == port)
    }

    /// What is remembered of one port.
    pub fn on_mut(&mut self, port: IfIndex) -> Option<&mut Lost> {
        self.0.iter_mut().find(|l| l.port == port)
    }

    /// Puts what was remembered before ahead of what has happened since.
    pub fn restore(&mut self, before: Self) {
        let since = core::mem::replace(self, before);
        for lost in since.0 {
            self.note(lost);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ports(l: &Losses) -> Vec<u32> {
        l.0.iter().map(|l| l.port.0).collect()
    }

    fn noted(of: &[u32]) -> Losses {
        let mut l = Losses::default();
        for p in of {
            l.note(Lost::new(IfIndex(*p), Time(u64::from(*p))));
        }
        l
    }

    #[test]
    fn each_port_is_remembered_once_and_the_oldest_give_way() {
        assert_eq!(ports(&noted(&[1, 2, 1])), [2, 1]);
        assert_eq!(ports(&noted(&[1, 2, 3, 4, 5])), [2, 3, 4, 5]);
        let mut l = noted(&[1, 2]);
        assert_eq!(l.latest().map(|l| l.port), Some(IfIndex(2)));
        l.on_mut(IfIndex(1)).expect("noted").frames = 7;
        assert_eq!(l.on(IfIndex(1)).map(|l| l.frames), Some(7));
        l.forget(IfIndex(2));
        assert_eq!((ports(&l), l.on(IfIndex(2))), (vec![1], None));
        l.clear();
        assert_eq!(l.latest(), None);
    }

    #[test]
    fn what_comes_back_stands_before_what_has_happened_since() {
        let mut l = noted(&[3, 1]);
        l.restore(noted(&[1, 2]));
        assert_eq!(ports(&l), [2, 3, 1]);
    }
}
