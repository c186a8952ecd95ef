//! Whose MAC is it: the decisions of RFC 7432 §15 and RFC 9721 as free functions on plain data.

mod duplicate;
mod explain;
mod lost;
mod memory;
mod port_mark;

pub use duplicate::{Contest, Holder, IpPrefix, MacPattern};
pub use explain::{Rule, difference, explain};
pub use lost::{Losses, Lost};
pub use memory::{Memory, Record, Released, Remembered};
pub use port_mark::PortMark;

use crate::types::{IfIndex, Seq, Span, Time};
use core::cmp::Ordering;
use std::net::IpAddr;

/// A claim on a MAC, ours or a peer's.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Claim {
    /// Mobility sequence; 0 when the community is absent (EVPN-MOB-02).
    pub seq: Seq,
    /// Sticky bit of the MAC Mobility community.
    pub sticky: bool,
    /// Default Gateway community (EVPN-BEST-01).
    pub gateway: bool,
    /// Stale under graceful restart: defends nothing (PIT-23).
    pub stale: bool,
    /// The VTEP that claims it.
    pub vtep: IpAddr,
}

impl Claim {
    /// No frame seen elsewhere moves this MAC: it is sticky, or a gateway's (EVPN-MOB-17, EVPN-MOB-19).
    pub fn is_fixed(&self) -> bool {
        (self.sticky || self.gateway) && !self.stale
    }
}

/// The VTEP that loses when two of them call a MAC sticky (EVPN-MOB-18): the claim after the winner's.
/// `None` while there is one origin only.
pub fn second_sticky<'a>(winner: &Claim, mut others: impl Iterator<Item = &'a Claim>) -> Option<IpAddr> {
    let rival = |c: &&Claim| c.sticky && !c.gateway && !c.stale && c.vtep != winner.vtep;
    if !winner.sticky || winner.gateway || winner.stale {
        return None;
    }
    others.find(rival).map(|c| c.vtep)
}

/// Which of two claims is the better one.
///
/// Not stale, then Default Gateway (EVPN-BEST-01), sticky (EVPN-MOB-18), higher sequence (EVPN-MOB-06),
/// and on a tie the lower VTEP address (EVPN-MOB-08, EVPN-BEST-02). `Greater`: `a` wins.
pub fn compare(a: &Claim, b: &Claim) -> Ordering {
    b.stale
        .cmp(&a.stale)
        .then_with(|| a.gateway.cmp(&b.gateway))
        .then_with(|| a.sticky.cmp(&b.sticky))
        .then_with(|| a.seq.serial_cmp(b.seq))
        .then_with(|| vtep_order(b.vtep, a.vtep))
}

/// Numeric order of VTEP addresses, IPv4 before IPv6.
fn vtep_order(a: IpAddr, b: IpAddr) -> Ordering {
    a.cmp(&b)
}

/// Sequence for a MAC that shows up behind a local port.
///
/// * a remote route exists: its sequence + 1 (EVPN-MOB-03, without community → 1)
/// * none, but one is remembered: ours is kept (EVPN-MOB-05), another's is beaten (EVPN-MOB-12)
/// * none at all: 0 (EVPN-MOB-02)
pub fn local_seq(remote: Option<Seq>, remembered: Option<Remembered>) -> Seq {
    let past = remembered.map(|r| if r.ours { r.seq } else { r.seq.next() });
    match (remote.map(Seq::next), past) {
        (None, None) => Seq::ZERO,
        (Some(s), None) | (None, Some(s)) => s,
        (Some(a), Some(b)) => a.max(b),
    }
}

/// Sequence of a local MAC `m2` that takes over an IP bound elsewhere to another MAC with sequence `n`
/// (RFC 9721 §3.2.2, EVPN-XMOB-06): `max(k, n) + 1`, `k` being `m2`'s own.
pub fn takeover_seq(k: Seq, n: Seq) -> Seq {
    k.max(n).next()
}

/// Sequence of a local MAC `m2` that takes over an IP from another local MAC: not below that one's, because a
/// peer that has the old binding may call a lower number obsolete. No step up: nobody else claims it.
pub fn successor_seq(k: Seq, n: Seq) -> Seq {
    k.max(n)
}

/// The newest of some sequences: what a local claim must exceed (EVPN-XMOB-02, -03), and the effective sequence
/// of a MAC whose routes differ in it (EVPN-XMOB-11).
pub fn newest(seqs: impl Iterator<Item = Seq>) -> Option<Seq> {
    seqs.reduce(Seq::max)
}

/// Numbers left before the wrap at which people are told: a peer that compares plainly (FRR does) takes the
/// number after the wrap for older than all before it (EVPN-MOB-09).
pub const WRAP_ALARM: u32 = 1 << 16;

/// Whether a sequence is close enough to its wrap for an alarm.
pub fn near_wrap(seq: Seq) -> bool {
    u32::MAX - seq.0 < WRAP_ALARM
}

/// What a fresh local learn of a MAC that is remote means.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum LocalSign {
    /// The VM is here: claim it.
    Claim,
    /// A frame that was still under way on the port that lost it: put the row back (PIT-04).
    Late,
    /// A peer holds it as sticky or as a gateway: never moves (EVPN-MOB-17, EVPN-MOB-19).
    Refused,
    /// Not now: a duplicate, or beyond what the VNI allows. The row goes back.
    Held,
}

/// The late-frame rule (design section 6, PIT-04).
///
/// On the port that just lost the MAC, a learn within the guard time is no claim by itself; a strong sign
/// (RARP, gratuitous ARP, unsolicited NA, an answer to our probe) makes it one, as do frames that still
/// come after the guard time, and the first frame of a guest that was activated there (PIT-06).
pub fn judge(
    remote: &Claim,
    lost: Option<&Lost>,
    port: IfIndex,
    strong: bool,
    guard: Span,
    at: Time,
) -> LocalSign {
    if remote.is_fixed() {
        return LocalSign::Refused;
    }
    match lost {
        Some(l) if l.port == port && at.since(l.at) < guard && !strong && !l.told => LocalSign::Late,
        _ => LocalSign::Claim,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(seq: u32, vtep: u8) -> Claim {
        Claim {
            seq: Seq(seq),
            sticky: false,
            gateway: false,
            stale: false,
            vtep: IpAddr::from([10, 0, 0, vtep]),
        }
    }

    /// EVPN-MOB-06
    #[test]
    fn higher_sequence_wins() {
        assert_eq!(compare(&claim(2, 9), &claim(1, 1)), Ordering::Greater);
    }

    /// EVPN-MOB-08
    #[test]
    fn on_a_tie_the_lower_vtep_wins() {
        assert_eq!(compare(&claim(3, 1), &claim(3, 2)), Ordering::Greater);
        assert_eq!(compare(&claim(3, 2), &claim(3, 1)), Ordering::Less);
    }

    /// EVPN-MOB-18
    #[test]
    fn sticky_beats_any_sequence() {
        let s = Claim { sticky: true, ..claim(0, 9) };
        assert_eq!(compare(&s, &claim(1000, 1)), Ordering::Greater);
    }

    /// PIT-23
    #[test]
    fn a_stale_route_defends_nothing() {
        let s = Claim { stale: true, sticky: true, ..claim(1000, 1) };
        assert_eq!(compare(&claim(0, 9), &s), Ordering::Greater);
        assert_eq!(judge(&s, None, IfIndex(1), false, Span::secs(1), Time(0)), LocalSign::Claim);
    }

    /// EVPN-MOB-09
    #[test]
    fn the_sequence_wraps() {
        assert_eq!(compare(&claim(0, 9), &claim(u32::MAX, 1)), Ordering::Greater);
    }

    /// EVPN-MOB-02, -03, -05, -12
    #[test]
    fn local_sequences() {
        assert_eq!(local_seq(None, None), Seq(0));
        assert_eq!(local_seq(Some(Seq(0)), None), Seq(1));
        assert_eq!(local_seq(Some(Seq(4)), Some(Remembered { seq: Seq(3), ours: true })), Seq(5));
        assert_eq!(local_seq(None, Some(Remembered { seq: Seq(3), ours: true })), Seq(3));
        assert_eq!(local_seq(None, Some(Remembered { seq: Seq(3), ours: false })), Seq(4));
    }

    /// EVPN-XMOB-06
    #[test]
    fn an_ip_that_changes_its_mac_takes_the_higher_sequence() {
        assert_eq!(takeover_seq(Seq(0), Seq(7)), Seq(8));
        assert_eq!(takeover_seq(Seq(9), Seq(7)), Seq(10));
    }

    /// EVPN-XMOB-02, EVPN-MOB-09
    #[test]
    fn an_ip_that_changes_its_mac_on_one_vtep_takes_no_step_up() {
        assert_eq!(successor_seq(Seq(0), Seq(7)), Seq(7));
        assert_eq!(successor_seq(Seq(9), Seq(7)), Seq(9));
        assert_eq!(successor_seq(Seq(1), Seq(u32::MAX)), Seq(1));
    }

    /// EVPN-XMOB-11, EVPN-MOB-09
    #[test]
    fn the_newest_of_several_sequences_counts_across_the_wrap() {
        assert_eq!(newest([].into_iter()), None);
        assert_eq!(newest([Seq(3), Seq(5), Seq(4)].into_iter()), Some(Seq(5)));
        assert_eq!(newest([Seq(u32::MAX), Seq(1), Seq(u32::MAX - 1)].into_iter()), Some(Seq(1)));
    }

    /// EVPN-MOB-09
    #[test]
    fn the_wrap_is_announced_65536_numbers_before() {
        assert!(!near_wrap(Seq(0)));
        assert!(!near_wrap(Seq(u32::MAX - WRAP_ALARM)));
        assert!(near_wrap(Seq(u32::MAX - WRAP_ALARM + 1)));
        assert!(near_wrap(Seq(u32::MAX)));
    }

    /// EVPN-MOB-18
    #[test]
    fn two_sticky_origins_are_told_apart_from_one() {
        let sticky = |v| Claim { sticky: true, ..claim(0, v) };
        let (a, b) = (sticky(1), sticky(2));
        assert_eq!(second_sticky(&a, [a, b, claim(9, 3)].iter()), Some(b.vtep));
        assert_eq!(second_sticky(&a, [a, claim(9, 3)].iter()), None);
        assert_eq!(second_sticky(&a, [a, Claim { stale: true, ..b }].iter()), None);
        assert_eq!(second_sticky(&claim(9, 3), [a, b].iter()), None);
        // A gateway is the same everywhere, and meant to be (EVPN-BEST-01).
        let gateway = |v| Claim { gateway: true, ..sticky(v) };
        assert_eq!(second_sticky(&gateway(1), [gateway(1), gateway(2)].iter()), None);
    }

    /// PIT-04
    #[test]
    fn the_late_frame_rule() {
        let r = claim(5, 2);
        let (port, other, guard) = (IfIndex(7), IfIndex(8), Span::secs(1));
        let lost = Lost::new(port, Time(1_000));
        let soon = Time(2_000);
        assert_eq!(judge(&r, Some(&lost), port, false, guard, soon), LocalSign::Late);
        assert_eq!(judge(&r, Some(&lost), port, true, guard, soon), LocalSign::Claim);
        assert_eq!(judge(&r, Some(&lost), other, false, guard, soon), LocalSign::Claim);
        assert_eq!(judge(&r, Some(&lost), port, false, guard, Time(1_000) + guard), LocalSign::Claim);
        assert_eq!(judge(&r, None, port, false, guard, soon), LocalSign::Claim);
        let told = Lost { told: true, ..lost };
        assert_eq!(judge(&r, Some(&told), port, false, guard, soon), LocalSign::Claim);
    }
}
