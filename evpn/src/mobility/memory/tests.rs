//! Tests of the memory of sequences.

use super::*;

const LEAVES: Released = Released { until: 77, port: Some(PortMark(5)) };
const DAY: Span = Span::secs(24 * 3600);
const HOUR: Span = Span::secs(3600);

fn vni() -> Vni {
    Vni::new(100).expect("valid")
}

fn mac(n: u32) -> Mac {
    let [a, b, c, d] = n.to_be_bytes();
    Mac([2, 0, a, b, c, d])
}

fn unsaved(m: &mut Memory, at: Time) -> Vec<Record> {
    let mut out = Vec::new();
    m.take_unsaved(vni(), at, Some(1_000_000 + at.0 / 1_000_000_000), &mut out);
    out
}

fn nobody(_: Mac) -> bool {
    false
}

/// Calls `tend` whenever it wants to be called, as the node does.
fn tend_until(m: &mut Memory, end: Time, in_use: impl Fn(Mac) -> bool) -> u32 {
    let mut calls = 0;
    let mut at = Time(0);
    while let Some(due) = m.tend(at, &in_use)
        && due <= end
    {
        at = due.max(at);
        calls += 1;
        assert!(calls < 100_000, "it never comes to rest");
    }
    m.tend(end, &in_use);
    calls
}

/// EVPN-MOB-12
#[test]
fn the_highest_sequence_is_kept() {
    let mut m = Memory::new(DAY);
    m.note(mac(1), Seq(5), false, Time(1));
    m.note(mac(1), Seq(3), true, Time(2));
    assert_eq!(m.get(mac(1)), Some(Remembered { seq: Seq(5), ours: false }));
    m.note(mac(1), Seq(6), true, Time(3));
    assert_eq!(m.get(mac(1)), Some(Remembered { seq: Seq(6), ours: true }));
}

/// EVPN-MOB-09: after a wrap 0 is the higher one, and as worth keeping as any.
#[test]
fn the_highest_sequence_may_be_a_wrapped_one() {
    let mut m = Memory::new(DAY);
    m.note(mac(1), Seq(u32::MAX), false, Time(1));
    m.note(mac(1), Seq(0), true, Time(2));
    assert_eq!(m.get(mac(1)), Some(Remembered { seq: Seq(0), ours: true }));
    assert_eq!(unsaved(&mut m, Time(3))[0].seq, Seq(0));
}

#[test]
fn it_is_bounded_and_forgets_the_oldest() {
    let mut m = Memory::new(DAY);
    for i in 0..=Memory::LIMIT as u32 {
        m.note(mac(i), Seq(1), true, Time(i as u64));
    }
    assert_eq!((m.len(), m.crowded_out()), (Memory::LIMIT, 1));
    assert_eq!(m.get(mac(0)), None);
    assert_eq!(m.order.len(), m.by_mac.len());
    assert_eq!(unsaved(&mut m, Time(0)).len(), Memory::LIMIT);
}

/// A peer that withdraws a full table must not make us forget what we have advertised ourselves.
#[test]
fn first_advertisements_of_others_do_not_crowd_out_ours() {
    let mut m = Memory::new(DAY);
    m.note(mac(1), Seq(9), true, Time(0));
    m.note(mac(2), Seq(9), false, Time(0));
    for i in 10..100_010 {
        m.note(mac(i), Seq(0), false, Time(i as u64));
    }
    assert_eq!(m.get(mac(1)), Some(Remembered { seq: Seq(9), ours: true }));
    assert_eq!(m.get(mac(2)), Some(Remembered { seq: Seq(9), ours: false }));
    for i in 10..100_010 {
        m.heard(mac(i), Seq(1), Time(200_000 + i as u64));
    }
    assert_eq!(m.get(mac(1)), Some(Remembered { seq: Seq(9), ours: true }));
    assert_eq!(m.get(mac(2)), None, "older than the others");
}

#[test]
fn first_advertisements_are_not_worth_the_disk() {
    let mut m = Memory::new(DAY);
    for i in 0..100_000 {
        m.heard(mac(i), Seq(0), Time(1));
    }
    assert!(m.is_empty(), "and while they are advertised, nor the memory");
    m.note(mac(1), Seq(0), true, Time(1));
    assert!(m.is_empty());
    m.note(mac(1), Seq(0), false, Time(1));
    assert_eq!(m.len(), 1, "of another's that is gone we remember that it was there");
    assert!(!m.has_unsaved());
}

#[test]
fn what_is_not_news_is_not_written_again() {
    let mut m = Memory::new(DAY);
    m.note(mac(1), Seq(5), true, Time(1));
    assert_eq!(unsaved(&mut m, Time(1)).len(), 1);
    m.note(mac(1), Seq(5), true, Time(2));
    m.note(mac(1), Seq(4), false, Time(3));
    m.heard(mac(1), Seq(4), Time(3));
    assert!(!m.has_unsaved());
    m.heard(mac(1), Seq(5), Time(4));
    let r = unsaved(&mut m, Time(4));
    assert!(!r[0].ours, "somebody else advertises the same: ours is not to be continued");
    m.heard(mac(1), Seq(7), Time(5));
    m.heard(mac(1), Seq(8), Time(5));
    assert_eq!(unsaved(&mut m, Time(5)).iter().map(|r| r.seq).collect::<Vec<_>>(), [Seq(8)]);
}

#[test]
fn it_forgets_after_its_time_and_not_before() {
    let mut m = Memory::new(DAY);
    m.note(mac(1), Seq(5), false, Time(0));
    m.note(mac(2), Seq(0), false, Time(0) + HOUR);
    tend_until(&mut m, Time(0) + Span(DAY.0 - 1), nobody);
    assert_eq!(m.len(), 2);
    tend_until(&mut m, Time(0) + DAY, nobody);
    assert_eq!((m.get(mac(1)), m.len()), (None, 1));
    tend_until(&mut m, Time(0) + DAY + HOUR, nobody);
    assert!(m.is_empty());
    assert_eq!(m.tend(Time(0) + DAY + DAY, nobody), None, "an empty memory wants no attention");
}

#[test]
fn what_is_advertised_is_never_forgotten_and_is_written_anew_now_and_then() {
    let mut m = Memory::new(DAY);
    m.note(mac(1), Seq(5), true, Time(0));
    m.note(mac(2), Seq(5), true, Time(0));
    unsaved(&mut m, Time(0));
    let end = Time(0) + Span(7 * DAY.0);
    let calls = tend_until(&mut m, end, |x| x == mac(1));
    assert!(calls <= 7 * 8 + 2, "looked at {calls} times in a week");
    assert_eq!(m.get(mac(2)), None);
    let r = unsaved(&mut m, end);
    assert_eq!((r.len(), r[0].seq), (1, Seq(5)));
    let age = 1_000_000 + end.0 / 1_000_000_000 - r[0].unix;
    assert!(age <= Memory::slack(DAY).0 / 1_000_000_000, "kept with an age of {age} s");
}

/// A restart neither prolongs nor shortens it: the age comes back.
#[test]
fn the_age_survives_a_restart() {
    let r = |n, seq| Record {
        vni: vni(),
        mac: mac(n),
        seq: Seq(seq),
        ours: true,
        unix: 1,
        released: (n == 3).then_some(LEAVES),
    };
    // Just booted: the boot clock is younger than the records.
    let boot = Time(1_000_000_000);
    let mut m = Memory::new(DAY);
    m.restore(&r(1, 5), Span(DAY.0 - HOUR.0), boot);
    m.restore(&r(2, 6), Span(2 * DAY.0), boot);
    m.restore(&r(3, 0), Span::ZERO, boot);
    m.restore(&r(3, 9), Span::ZERO, boot);
    m.restore(&r(3, 8), Span::ZERO, boot);
    assert_eq!(m.get(mac(1)), Some(Remembered { seq: Seq(5), ours: true }));
    assert_eq!(m.get(mac(2)), None, "outlived its time while no daemon ran");
    assert_eq!(m.get(mac(3)), Some(Remembered { seq: Seq(9), ours: true }), "the highest");
    assert_eq!(m.released_until(mac(3)), Some(77));
    assert!(!m.has_unsaved(), "what was kept is there");
    tend_until(&mut m, boot + HOUR, nobody);
    assert!(m.get(mac(1)).is_some());
    tend_until(&mut m, boot + HOUR + Memory::slack(DAY), nobody);
    assert!(m.get(mac(1)).is_none() && m.get(mac(3)).is_some());
}

#[test]
fn everything_can_be_written_again_in_slices() {
    let mut m = Memory::new(DAY);
    for i in 0..1000 {
        m.note(mac(i), Seq(1), true, Time(0));
    }
    m.note(mac(2000), Seq(0), false, Time(0));
    unsaved(&mut m, Time(0));
    let later = Time(0) + HOUR;
    m.keep_all_again(later);
    let mut got = Vec::new();
    while m.tend(later, nobody) == Some(later) {
        let slice = unsaved(&mut m, later);
        assert!(slice.len() <= Memory::SLICE);
        got.extend(slice);
    }
    got.extend(unsaved(&mut m, later));
    assert_eq!(got.len(), 1000);
    assert!(got.iter().all(|r| r.unix == 1_000_000), "with the age that they have");
}

/// PIT-04: a release is kept with the sequence and goes with its own end, not with a new sequence.
#[test]
fn a_release_is_kept() {
    let mut m = Memory::new(DAY);
    m.release(mac(1), Some(LEAVES), Time(0));
    let r = unsaved(&mut m, Time(0));
    assert_eq!((r[0].seq, r[0].ours, r[0].released), (Seq(0), true, Some(LEAVES)));
    m.release(mac(1), Some(LEAVES), Time(1));
    assert!(!m.has_unsaved());
    m.heard(mac(1), Seq(3), Time(2));
    assert_eq!(unsaved(&mut m, Time(2))[0].released, Some(LEAVES));
    m.release(mac(1), None, Time(3));
    assert_eq!((m.released_until(mac(1)), unsaved(&mut m, Time(3))[0].released), (None, None));
}
