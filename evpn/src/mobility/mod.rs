//! Whose MAC is it: the decisions of RFC 7432 §15 and RFC 9721 as free functions on plain data.

mod memory;

pub use memory::{Memory, Record, Remembered};

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

/// The port that lost a MAC to a remote VTEP, and when.
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
}

/// The late-frame rule (design section 6, PIT-04).
///
/// On the port that just lost the MAC, a learn within the guard time is no claim by itself; a strong sign
/// (RARP, gratuitous ARP, unsolicited NA, an answer to our probe) makes it one, as do frames that still
/// come after the guard time.
pub fn judge(
    remote: &Claim,
    lost: Option<&Lost>,
    port: IfIndex,
    strong: bool,
    guard: Span,
    at: Time,
) -> LocalSign {
    if (remote.sticky || remote.gateway) && !remote.stale {
        return LocalSign::Refused;
    }
    match lost {
        Some(l) if l.port == port && at.since(l.at) < guard && !strong => LocalSign::Late,
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

    /// PIT-04
    #[test]
    fn the_late_frame_rule() {
        let r = claim(5, 2);
        let (port, other, guard) = (IfIndex(7), IfIndex(8), Span::secs(1));
        let lost = Lost { port, at: Time(1_000), late: None, frames: 0 };
        let soon = Time(2_000);
        assert_eq!(judge(&r, Some(&lost), port, false, guard, soon), LocalSign::Late);
        assert_eq!(judge(&r, Some(&lost), port, true, guard, soon), LocalSign::Claim);
        assert_eq!(judge(&r, Some(&lost), other, false, guard, soon), LocalSign::Claim);
        assert_eq!(judge(&r, Some(&lost), port, false, guard, Time(1_000) + guard), LocalSign::Claim);
        assert_eq!(judge(&r, None, port, false, guard, soon), LocalSign::Claim);
    }
}
