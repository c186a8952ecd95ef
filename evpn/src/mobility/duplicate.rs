//! Is it one host that moves, or are there two of them? Plain data, one value per address.
//!
//! A live migration makes an address appear up to six times: announcements at the target while late frames still
//! leave the source. RFC 7432 §15.1 counts these and takes the VM for a duplicate. Here an address has to *return*:
//! to an owner that had lost it. Only then is it looked at, and only what its owners say on their own ports while
//! they do not have it counts as evidence, because a host that has moved away is silent where it was.

use crate::types::{Mac, Span, Time};
use std::collections::VecDeque;
use std::net::IpAddr;

/// Pieces of evidence that make a duplicate. A VTEP that trusts late frames (FRR) may take an address back twice
/// in one migration although nobody is there; a third time it is somebody.
const EVIDENCE: usize = 3;
/// Returns after which an address is contested: A→B→A→B.
const CONTESTED: usize = 2;
/// How long a piece of evidence counts: two lively owners give one in milliseconds, two migrations are further apart.
const FRESH: Span = Span::secs(30);
/// Changes of owner kept per address.
const DEPTH: usize = 16;

/// Who has a MAC, as far as this VTEP is concerned.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Holder {
    /// Behind a port of ours.
    Here,
    /// Behind that VTEP.
    There(IpAddr),
}

/// The recent owners of one address: VTEPs of a MAC, or MACs of an IP.
#[derive(Clone, Debug)]
pub struct Contest<O> {
    owners: VecDeque<(O, Time)>,
    evidence: VecDeque<Time>,
    /// Begin of the RFC's window, and moves in it.
    counted: (Time, u32),
    last: Time,
}

impl<O> Default for Contest<O> {
    fn default() -> Self {
        Self { owners: VecDeque::new(), evidence: VecDeque::new(), counted: (Time(0), 0), last: Time(0) }
    }
}

impl<O: Copy + Eq> Contest<O> {
    /// The address went from one owner to another.
    pub fn moved(&mut self, from: O, to: O, at: Time) {
        self.last = at;
        if self.owners.back().is_none_or(|(o, _)| *o != from) {
            self.owners.push_back((from, at));
        }
        self.owners.push_back((to, at));
        while self.owners.len() > DEPTH {
            self.owners.pop_front();
        }
    }

    /// How often it came, within the window, to an owner that had lost it before.
    pub fn returns(&self, window: Span, at: Time) -> usize {
        self.owners
            .iter()
            .enumerate()
            .filter(|(i, (o, t))| {
                at.since(*t) < window && self.owners.iter().take(*i).any(|(before, _)| before == o)
            })
            .count()
    }

    /// It went to and fro: from now on who wants it has to prove that it is there.
    pub fn contested(&self, window: Span, at: Time) -> bool {
        self.returns(window, at) >= CONTESTED
    }

    /// Counts a move detected by local learning (RFC 7432 §15.1): a window begins with the first and holds the
    /// result. Gives the number in it.
    pub fn count(&mut self, window: Span, at: Time) -> u32 {
        self.last = at;
        let (since, n) = self.counted;
        self.counted =
            if n == 0 || at.since(since) >= window { (at, 1) } else { (since, n.saturating_add(1)) };
        self.counted.1
    }

    /// An owner that had lost it has shown, on its own port, that it is alive. Whether that makes a duplicate.
    pub fn alive(&mut self, at: Time) -> bool {
        self.last = at;
        while self.evidence.front().is_some_and(|t| at.since(*t) >= FRESH) {
            self.evidence.pop_front();
        }
        if self.evidence.len() < EVIDENCE {
            self.evidence.push_back(at);
        }
        self.evidence.len() >= EVIDENCE
    }

    /// Owners within the window, each once, the oldest first.
    pub fn owners(&self, window: Span, at: Time) -> Vec<O> {
        let mut out = Vec::new();
        for (o, t) in &self.owners {
            if at.since(*t) < window && !out.contains(o) {
                out.push(*o);
            }
        }
        out
    }

    /// When the owner changed last.
    pub fn changed(&self) -> Time {
        self.owners.back().map_or(Time(0), |(_, t)| *t)
    }

    /// When anything happened last.
    pub fn last(&self) -> Time {
        self.last
    }
}

/// A group of addresses that may be anywhere at any time, such as virtual routers: their moves are no reason for
/// an alarm.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, serde::Serialize)]
pub struct MacPattern {
    mac: Mac,
    bits: u8,
}

impl MacPattern {
    /// VRRP for IPv4 and IPv6 (RFC 5798 §7.3), HSRP version 1, and version 2 for IPv4.
    pub const VIRTUAL_ROUTERS: [Self; 4] = [
        Self { mac: Mac([0x00, 0x00, 0x5e, 0x00, 0x01, 0x00]), bits: 40 },
        Self { mac: Mac([0x00, 0x00, 0x5e, 0x00, 0x02, 0x00]), bits: 40 },
        Self { mac: Mac([0x00, 0x00, 0x0c, 0x07, 0xac, 0x00]), bits: 40 },
        Self { mac: Mac([0x00, 0x00, 0x0c, 0x9f, 0xf0, 0x00]), bits: 36 },
    ];

    /// The first `bits` of `mac`; `None` above 48.
    pub fn new(mac: Mac, bits: u8) -> Option<Self> {
        (bits <= 48).then_some(Self { mac, bits })
    }

    /// Whether a MAC is one of them.
    pub fn contains(&self, mac: Mac) -> bool {
        let n = |m: Mac| m.0.iter().fold(0u64, |n, o| n << 8 | u64::from(*o));
        let shift = 48 - u32::from(self.bits);
        (n(self.mac) ^ n(mac)) >> shift == 0
    }
}

impl std::str::FromStr for MacPattern {
    type Err = ();
    fn from_str(s: &str) -> Result<Self, ()> {
        let (mac, bits) = match s.split_once('/') {
            Some((mac, bits)) => (mac, bits.parse().map_err(drop)?),
            None => (s, 48),
        };
        Self::new(mac.parse().map_err(drop)?, bits).ok_or(())
    }
}

/// Addresses with the same first bits.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, serde::Serialize)]
pub struct IpPrefix {
    ip: IpAddr,
    bits: u8,
}

impl IpPrefix {
    /// `None` when the length does not fit the family.
    pub fn new(ip: IpAddr, bits: u8) -> Option<Self> {
        (bits <= if ip.is_ipv4() { 32 } else { 128 }).then_some(Self { ip, bits })
    }

    /// Its first part, as given.
    pub fn ip(&self) -> IpAddr {
        self.ip
    }

    /// The prefix's own address: nothing is set behind its length.
    pub fn network(&self) -> IpAddr {
        match self.ip {
            IpAddr::V4(a) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.bits)).unwrap_or(0);
                IpAddr::V4((a.to_bits() & mask).into())
            }
            IpAddr::V6(a) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.bits)).unwrap_or(0);
                IpAddr::V6((a.to_bits() & mask).into())
            }
        }
    }

    /// Its length.
    pub fn bits(&self) -> u8 {
        self.bits
    }

    /// Whether its addresses are IPv6.
    pub fn is_ipv6(&self) -> bool {
        self.ip.is_ipv6()
    }

    /// Whether an address is in it.
    pub fn contains(&self, ip: IpAddr) -> bool {
        match (self.ip, ip) {
            (IpAddr::V4(a), IpAddr::V4(b)) => {
                (a.to_bits() ^ b.to_bits()).checked_shr(32 - u32::from(self.bits)).unwrap_or(0) == 0
            }
            (IpAddr::V6(a), IpAddr::V6(b)) => {
                (a.to_bits() ^ b.to_bits()).checked_shr(128 - u32::from(self.bits)).unwrap_or(0) == 0
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

impl std::str::FromStr for IpPrefix {
    type Err = ();
    fn from_str(s: &str) -> Result<Self, ()> {
        let (ip, bits) = match s.split_once('/') {
            Some((ip, bits)) => (ip, Some(bits.parse().map_err(drop)?)),
            None => (s, None),
        };
        let ip: IpAddr = ip.parse().map_err(drop)?;
        Self::new(ip, bits.unwrap_or(if ip.is_ipv4() { 32 } else { 128 })).ok_or(())
    }
}

impl std::fmt::Display for IpPrefix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.ip, self.bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const M: Span = Span::secs(180);

    fn t(ms: u64) -> Time {
        Time(ms * 1_000_000)
    }

    #[test]
    fn a_to_b_and_on_to_c_is_no_return() {
        let mut c = Contest::default();
        for (i, w) in ["a", "b", "c", "d", "e"].windows(2).enumerate() {
            c.moved(w[0], w[1], t(i as u64));
        }
        assert_eq!(c.returns(M, t(10)), 0);
    }

    #[test]
    fn to_and_fro_twice_is_contested() {
        let mut c = Contest::default();
        c.moved("a", "b", t(1));
        assert_eq!(c.returns(M, t(1)), 0);
        c.moved("b", "a", t(2));
        assert_eq!((c.returns(M, t(2)), c.contested(M, t(2))), (1, false));
        c.moved("a", "b", t(3));
        assert!(c.contested(M, t(3)));
        assert!(!c.contested(M, t(3) + M), "it is forgotten");
        assert_eq!(c.owners(M, t(3)), ["a", "b"]);
    }

    /// RFC 7432 §15.1: N moves within M, counted from the first.
    #[test]
    fn moves_are_counted_in_a_window_that_begins_with_the_first() {
        let mut c = Contest::<Holder>::default();
        let n: Vec<u32> = [0, 50, 100, 179, 181, 182].map(|s| c.count(M, t(s * 1000))).to_vec();
        assert_eq!(n, [1, 2, 3, 4, 1, 2]);
    }

    #[test]
    fn the_third_fresh_piece_of_evidence_decides() {
        let mut c = Contest::<Holder>::default();
        assert!(!c.alive(t(0)));
        assert!(!c.alive(t(10_000)));
        assert!(!c.alive(t(31_000)), "the first is too old");
        assert!(c.alive(t(32_000)));
    }

    #[test]
    fn virtual_routers_float() {
        let m = |s: &str| s.parse::<Mac>().expect("valid");
        let floats = |s: &str| MacPattern::VIRTUAL_ROUTERS.iter().any(|p| p.contains(m(s)));
        for yes in [
            "00:00:5e:00:01:07",
            "00:00:5e:00:02:ff",
            "00:00:0c:07:ac:01",
            "00:00:0c:9f:f0:01",
            "00:00:0c:9f:ff:ff",
        ] {
            assert!(floats(yes), "{yes}");
        }
        for no in ["00:00:5e:00:03:07", "00:00:0c:9f:e0:01", "00:00:0c:07:ad:01", "52:54:00:00:00:01"] {
            assert!(!floats(no), "{no}");
        }
        let p: MacPattern = "02:00:00:00:00:00/8".parse().expect("valid");
        assert!(p.contains(m("02:ff:00:00:00:00")) && !p.contains(m("03:ff:00:00:00:00")));
        assert!("02:00:00:00:00:00/49".parse::<MacPattern>().is_err());
        let all: MacPattern = "00:00:00:00:00:00/0".parse().expect("valid");
        assert!(all.contains(m("ff:ff:ff:ff:ff:fe")));
    }

    #[test]
    fn prefixes_hold_their_own_family_only() {
        let p = |s: &str| s.parse::<IpPrefix>();
        let a = |s: &str| s.parse::<IpAddr>().expect("valid");
        assert!(p("10.1.0.0/16").expect("valid").contains(a("10.1.255.1")));
        assert!(!p("10.1.0.0/16").expect("valid").contains(a("10.2.0.1")));
        assert!(p("0.0.0.0/0").expect("valid").contains(a("10.2.0.1")));
        assert!(!p("0.0.0.0/0").expect("valid").contains(a("::1")));
        assert!(p("2001:db8::/32").expect("valid").contains(a("2001:db8:1::1")));
        assert!(p("::/0").expect("valid").contains(a("2001:db8:1::1")));
        assert!(p("10.0.0.1").expect("valid").contains(a("10.0.0.1")));
        assert!(p("10.0.0.0/33").is_err() && p("10.0.0/8").is_err() && p("::/129").is_err());
    }

    proptest! {
        /// However an address wanders, what is kept of it stays small, and returns need an owner that was there.
        #[test]
        fn a_contest_is_bounded(steps in prop::collection::vec((0u8..5, 0u64..200_000), 0..200)) {
            let mut c = Contest::default();
            let (mut owner, mut now) = (0u8, 0);
            for (to, wait) in steps {
                now += wait;
                if to != owner {
                    c.moved(owner, to, t(now));
                    owner = to;
                }
                prop_assert!(c.owners.len() <= DEPTH && c.evidence.len() <= EVIDENCE);
                let owners = c.owners(M, t(now));
                prop_assert!(owners.len() <= 5);
                prop_assert!(c.returns(M, t(now)) < DEPTH);
            }
        }

        /// One migration: the source S and the target T alternate as often as late frames and announcements like,
        /// at most six times. Nobody answers at S, T answers whenever it is asked.
        #[test]
        fn six_apparent_moves_of_one_migration_are_no_duplicate(gaps in prop::collection::vec(0u64..400, 1..=6)) {
            let mut at_target = Contest::default();
            let mut now = 0;
            for (i, gap) in gaps.iter().enumerate() {
                now += gap;
                let (from, to) = if i % 2 == 0 { ("S", "T") } else { ("T", "S") };
                at_target.moved(from, to, t(now));
                if to == "S" && at_target.contested(M, t(now)) {
                    prop_assert!(!at_target.alive(t(now)));
                }
            }
        }
    }
}
