//! Laws for two machines over any link: they agree in the end, nothing short of a detection time without a packet is
//! taken for a failure, and a failure is always found.

use crate::pair::{Link, PEER, Pair, config, path_to};
use evpn::bfd::{Arrival, Config, Packet, State, Table};
use evpn::types::{PeerId, Span, Time};
use proptest::prelude::*;

fn configs() -> impl Strategy<Value = [Config; 2]> {
    let ms = || prop_oneof![Just(10u64), Just(50), 10u64..1000];
    let one = move || {
        (ms(), ms(), 1u8..6).prop_map(|(tx, rx, multiplier)| Config {
            desired_tx: Span::millis(tx),
            required_rx: Span::millis(rx),
            multiplier,
        })
    };
    [one(), one()]
}

/// How long a packet may take so that it cannot look like a lost one.
fn quick(configs: &[Config; 2]) -> Span {
    let least = configs.iter().flat_map(|c| [c.desired_tx, c.required_rx]).min().unwrap();
    least.scaled(1, 20)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn they_agree_in_the_end_whatever_was_lost_and_late_before(
        configs in configs(), seed: u64, loss in 0u64..1000, late in 0u64..3000, cuts in any::<[bool; 2]>(),
        off in prop::option::of(0usize..2), bad in 1u64..60,
    ) {
        let link = Link { delay: (Span::ZERO, Span::millis(late)), loss, cut: cuts, seed, never: 0 };
        let mut p = Pair::new(configs, link);
        p.run(Span::secs(bad));
        if let Some(side) = off {
            p.act(side, |t, at, out| t.disable(PEER, at, out));
            p.run(Span::secs(bad));
            p.act(side, |t, at, out| t.set(PEER, path_to(1 - side), configs[side], at, out));
        }
        // What is still under way may be late; then the link is good.
        p.link = Link { delay: (Span::ZERO, quick(&configs)), seed, ..Link::default() };
        p.run(Span::secs(4));
        p.until(Span::secs(20), Pair::both_up).expect("up");
        p.run(Span::secs(4));
        let before = p.changes.len();
        p.run(Span::secs(30));
        prop_assert_eq!(p.changes.len(), before, "and then nothing changes: {:?}", &p.changes[before..]);
        for side in [0, 1] {
            // Both hold to what both want (BFD-07).
            let s = p.sides[side].get(PEER).unwrap().1;
            let (ours, theirs) = (configs[side], configs[1 - side]);
            prop_assert_eq!(s.pace(), Some(ours.desired_tx.max(theirs.required_rx)));
            let wait = ours.required_rx.max(theirs.desired_tx).scaled(theirs.multiplier.into(), 1);
            prop_assert_eq!(s.detection_time(), wait);
        }
    }

    #[test]
    fn no_false_down_while_fewer_than_the_multiplier_are_lost_in_a_row(
        configs in configs(), seed: u64, loss in 0u64..700,
    ) {
        let never = configs.iter().map(|c| u32::from(c.multiplier)).min().unwrap();
        prop_assume!(never > 1);
        let mut p = Pair::new(configs, Link { delay: (Span::ZERO, quick(&configs)), seed, ..Link::default() });
        p.until(Span::secs(20), Pair::both_up).expect("up");
        p.run(Span::secs(3));
        let before = p.changes.len();
        p.link.loss = loss;
        // One less: the packet that does arrive may be the quarter of an interval and its delay late.
        p.link.never = never - 1;
        p.run(Span::secs(60));
        prop_assert_eq!(p.changes.len(), before, "{:?}", &p.changes[before..]);
    }

    #[test]
    fn a_cut_is_found_within_the_detection_time_of_each_side(configs in configs(), seed: u64, one_way: bool) {
        let mut p = Pair::new(configs, Link { delay: (Span::ZERO, quick(&configs)), seed, ..Link::default() });
        p.until(Span::secs(20), Pair::both_up).expect("up");
        p.run(Span::secs(3));
        let wait = p.sides[1].get(PEER).unwrap().1.detection_time();
        let before = p.changes.len();
        p.link.cut = [true, !one_way];
        let took = p.until(Span::secs(60), |p| p.state(1) == State::Down).expect("found");
        prop_assert!(took <= wait + quick(&configs), "{took} of {wait}");
        // A cut one way takes the other side down too: it is told.
        p.until(Span::secs(60), |p| p.changes[before..].iter().any(|c| c.1 == 0 && c.2.failed)).expect("both know");
    }

    #[test]
    fn octets_of_anybody_never_change_a_session_that_they_do_not_name(
        octets in prop::collection::vec(any::<u8>(), 0..60), ttl: Option<u8>, multihop: bool, known: bool,
    ) {
        // BFD-04: neither by chance nor by will.
        let mut t = Table::new(3);
        let mut out = Vec::new();
        t.set(PeerId(1), path_to(0), config(50), Time(0), &mut out);
        t.due(Time(0), &mut out);
        out.clear();
        let from = if known { path_to(0).peer } else { [192, 0, 2, 1].into() };
        let a = Arrival { from, scope: 0, multihop, ttl };
        let taken = t.receive(&a, &octets, Time(1), &mut out);
        let sound = Packet::decode(&octets).is_ok_and(|p| p.your == 0);
        prop_assert_eq!(taken.is_ok(), sound && known && !multihop && ttl == Some(255));
        if taken.is_err() {
            prop_assert!(out.is_empty());
            prop_assert_eq!(t.get(PeerId(1)).unwrap().1.stats().received, 0);
        }
    }

    #[test]
    fn what_is_decoded_is_encoded_the_same(octets in prop::collection::vec(any::<u8>(), 24..40)) {
        let mut octets = octets;
        octets[0] = 0x20 | (octets[0] & 0x1f);
        octets[1] &= !0x05;
        octets[3] = 24;
        if let Ok(p) = Packet::decode(&octets) {
            prop_assert_eq!(&p.encode()[..], &octets[..24]);
        }
    }
}
