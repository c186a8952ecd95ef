//! The named rule is the one that decided.

use evpn::mobility::{Claim, Rule, compare, difference, explain};
use evpn::types::Seq;
use proptest::prelude::*;
use std::cmp::Ordering;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Claims that are often equal in some respect, so that every rule gets its turn.
fn claim() -> impl Strategy<Value = Claim> {
    let seq = prop_oneof![0u32..4, Just(u32::MAX), Just(1 << 31), any::<u32>()];
    let vtep = prop_oneof![
        (1u8..4).prop_map(|n| IpAddr::V4(Ipv4Addr::new(10, 0, 0, n))),
        (1u16..3).prop_map(|n| IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, n))),
    ];
    let flag = || prop::bool::weighted(0.2);
    (seq, flag(), flag(), flag(), vtep).prop_map(|(seq, sticky, gateway, stale, vtep)| Claim {
        seq: Seq(seq),
        sticky,
        gateway,
        stale,
        vtep,
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4096, ..ProptestConfig::default() })]

    #[test]
    fn the_explanation_agrees_with_the_decision(a in claim(), b in claim()) {
        let (order, rule) = explain(&a, &b);
        prop_assert_eq!(order, compare(&a, &b));
        prop_assert_eq!(order == Ordering::Equal, rule == Rule::SameClaim);
    }

    /// Making the two equal in what the rule names changes the outcome or the rule: it was that which decided.
    #[test]
    fn the_named_rule_is_the_one_that_decided(a in claim(), b in claim()) {
        let (_, rule) = explain(&a, &b);
        let mut c = b;
        match rule {
            Rule::NotStale => c.stale = a.stale,
            Rule::Gateway => c.gateway = a.gateway,
            Rule::Sticky => c.sticky = a.sticky,
            Rule::HigherSequence => c.seq = a.seq,
            Rule::LowerVtep => c.vtep = a.vtep,
            Rule::SameClaim => return Ok(()),
            Rule::OnlyClaim | Rule::NotAdmitted | Rule::RouteOrder => prop_assert!(false, "not for two claims"),
        }
        prop_assert!(explain(&a, &c).1 > rule);
    }
}

#[test]
fn the_difference_names_both_values_the_winners_first() {
    let claim = |seq, vtep| Claim {
        seq: Seq(seq),
        sticky: false,
        gateway: false,
        stale: false,
        vtep: IpAddr::from([10, 0, 0, vtep]),
    };
    let text = |a, b| difference(explain(&a, &b).1, &a, &b);
    assert_eq!(text(claim(3, 9), claim(2, 1)).as_deref(), Some("3 against 2"));
    assert_eq!(text(claim(3, 1), claim(3, 2)).as_deref(), Some("10.0.0.1 against 10.0.0.2"));
    assert_eq!(text(claim(3, 1), claim(3, 1)), None);
}
