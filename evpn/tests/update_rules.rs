//! Reactions to faulty UPDATEs that the golden vectors do not show, each with the place of the fault.

#![allow(clippy::unwrap_used, reason = "tests")]

use evpn::types::Asn;
use evpn::wire::{
    AsPath, AsSegment, DecodeCtx, Decoded, Family, Message, MessageError, Nlri, Treatment, Update, decode,
};

const IBGP: &[u8] = &[0x40, 1, 1, 0, 0x40, 2, 0, 0x40, 5, 4, 0, 0, 0, 100];
/// MP_REACH_NLRI with the EVPN next hop 192.0.2.11, up to the routes.
const HOP: &[u8] = &[0, 25, 70, 4, 192, 0, 2, 11, 0];
/// Where the value of the first attribute begins, if its length has one octet.
const FIRST: usize = 26;

fn attr(flags: u8, code: u8, value: &[u8]) -> Vec<u8> {
    [&[flags, code, value.len() as u8][..], value].concat()
}

fn reach(routes: &[u8]) -> Vec<u8> {
    attr(0x80, 14, &[HOP, routes].concat())
}

fn update(attrs: &[&[u8]]) -> Vec<u8> {
    let attrs = attrs.concat();
    let mut out = vec![0xff; 16];
    out.extend((23 + attrs.len() as u16).to_be_bytes());
    out.extend([2, 0, 0]);
    out.extend((attrs.len() as u16).to_be_bytes());
    out.extend(attrs);
    out
}

fn ctx() -> DecodeCtx {
    DecodeCtx {
        ibgp: true,
        families: vec![Family::EVPN, Family::IPV4, Family::IPV6, Family::RTC],
        ..DecodeCtx::default()
    }
}

fn mac_route(mac: [u8; 6], ip: Option<[u8; 4]>) -> Vec<u8> {
    let mut out = vec![2, if ip.is_some() { 37 } else { 33 }];
    out.extend([0; 8 + 10 + 4]);
    out.push(48);
    out.extend(mac);
    out.push(if ip.is_some() { 32 } else { 0 });
    out.extend(ip.into_iter().flatten());
    out.extend([0, 0, 100]);
    out
}

fn good() -> Vec<u8> {
    reach(&mac_route([2, 0, 0, 0, 0, 1], None))
}

fn value(d: Decoded) -> Update {
    match d.message {
        Message::Update(u) => u,
        other => panic!("{other:?}"),
    }
}

/// The only fault: its offset and reaction.
fn fault(msg: &[u8]) -> (usize, Treatment) {
    let d = decode(msg, &ctx()).unwrap();
    assert_eq!(d.faults.len(), 1, "{:?}", d.faults);
    assert_eq!(d.treatment, Some(d.faults[0].treatment));
    (d.faults[0].offset, d.faults[0].treatment)
}

fn reset(msg: &[u8]) -> (usize, u8, u8) {
    let MessageError { offset, notification, .. } = decode(msg, &ctx()).unwrap_err();
    let n = notification.unwrap();
    (offset, n.code, n.subcode)
}

/// The routes lie in what cannot be read: nothing could be withdrawn.
#[test]
fn an_mp_attribute_that_overruns_the_attributes_ends_the_session() {
    let mut msg = update(&[IBGP, &good()]);
    let at = 23 + IBGP.len();
    msg[at + 2] += 1;
    assert_eq!(reset(&msg), (at, 3, 9));
    let msg = update(&[IBGP, &[0x80, 15]]);
    assert_eq!(reset(&msg), (at, 3, 9));
}

/// BGP-ERR-06: without a route there is nothing to withdraw.
#[test]
fn a_strong_fault_without_a_route_ends_the_session_with_its_own_subcode() {
    for (attr, subcode) in [
        (&[0x40, 1, 1, 9][..], 6),
        (&[0x40, 3, 1, 9], 5),
        (&[0xc0, 1, 1, 0], 4),
        (&[0xc0, 8, 1, 0], 9),
        (&[0x40, 2, 1, 9], 11),
        (&[0x40, 5, 9], 1),
    ] {
        let (offset, code, got) = reset(&update(&[attr]));
        assert_eq!((code, got), (3, subcode), "{attr:?}");
        assert!((23..28).contains(&offset), "{attr:?} {offset}");
    }
    // The same beside a withdrawal: attributes other than MP_UNREACH_NLRI, no reachable route.
    let unreach = attr(0x80, 15, &[&[0, 25, 70][..], &mac_route([2, 0, 0, 0, 0, 1], None)].concat());
    assert_eq!(reset(&update(&[&unreach, &[0x40, 1, 1, 9]])).2, 6);
    // A discard is no reason.
    assert_eq!(fault(&update(&[&unreach, &[0x40, 6, 1, 9]])).1, Treatment::DiscardAttribute);
}

#[test]
fn attributes_are_judged_by_their_rows_of_the_table() {
    use Treatment::*;
    let good = good();
    let at = 23 + good.len() + IBGP.len();
    for (what, bytes, offset, want) in [
        ("AGGREGATOR with AS 0", &[0xc0, 7, 8, 0, 0, 0, 0, 1, 1, 1, 1][..], at, DiscardAttribute),
        ("tunnel TLV beyond its attribute", &[0xc0, 23, 5, 0, 8, 0, 2, 1], at + 3, TreatAsWithdraw),
        ("tunnel TLV cut", &[0xc0, 23, 3, 0, 8, 0], at + 3, TreatAsWithdraw),
        (
            "PMSI identifier of 5 octets",
            &[0xc0, 22, 10, 0, 6, 0, 0, 1, 1, 1, 1, 1, 1],
            at + 8,
            TreatAsWithdraw,
        ),
        ("LARGE_COMMUNITY of no octets", &[0xc0, 32, 0], at, TreatAsWithdraw),
        ("IPv6 communities of no octets", &[0xc0, 25, 0], at, TreatAsWithdraw),
        ("CLUSTER_LIST of no octets", &[0x80, 10, 0], at, TreatAsWithdraw),
        (
            "AS4_AGGREGATOR between capable speakers",
            &[0xc0, 18, 8, 0, 0, 0, 1, 1, 1, 1, 1],
            at,
            DiscardAttribute,
        ),
        ("MED with the flags of COMMUNITIES", &[0xc0, 4, 4, 0, 0, 0, 1], at, TreatAsWithdraw),
    ] {
        assert_eq!(fault(&update(&[&good, IBGP, bytes])), (offset, want), "{what}");
    }
}

/// The Partial bit and the four unused ones are no fault (BGP-UPD-02); unknown attributes are kept or not by
/// their flags.
#[test]
fn flags_that_mean_nothing_are_ignored() {
    let comm = attr(0xef, 8, &[0, 0, 0, 1]);
    let kept = attr(0xc0, 99, &[1, 2]);
    let tunnel = attr(0xc7, 23, &[0, 8, 0, 0]);
    let dropped = attr(0x80, 98, &[3]);
    let d = decode(&update(&[&good(), IBGP, &comm, &kept, &dropped, &tunnel]), &ctx()).unwrap();
    assert_eq!(d.faults, []);
    let attrs = value(d).attrs;
    assert_eq!(attrs.communities.len(), 1);
    let others: Vec<_> = attrs.others.iter().map(|o| (o.code, o.flags)).collect();
    assert_eq!(others, [(23, 0xc0), (99, 0xe0)], "ascending; Partial only on what we do not know");
}

/// EVPN-ERR-06
#[test]
fn the_zero_mac_is_only_the_unknown_mac_route() {
    let zero = |ip| fault(&update(&[&reach(&mac_route([0; 6], ip)), IBGP]));
    assert_eq!(zero(Some([10, 0, 0, 1])), (FIRST + 9 + 25, Treatment::TreatAsWithdraw));
    let d = decode(&update(&[&reach(&mac_route([0; 6], None)), IBGP]), &ctx()).unwrap();
    assert_eq!(d.faults, [], "EVPN-DCI-09");
}

/// EVPN-NLRI-09: only the key of a withdrawn route counts.
#[test]
fn values_in_withdrawn_routes_are_not_judged() {
    let unreach = attr(0x80, 15, &[&[0, 25, 70][..], &mac_route([1, 0, 0, 0, 0, 1], None)].concat());
    assert_eq!(decode(&update(&[&unreach]), &ctx()).unwrap().treatment, None);
    let mut broken = mac_route([1, 0, 0, 0, 0, 1], None);
    broken[24] = 47;
    let unreach = attr(0x80, 15, &[&[0, 25, 70][..], &broken].concat());
    assert_eq!(reset(&update(&[&unreach])), (FIRST + 3 + 24, 3, 9), "but their form is");
}

#[test]
fn the_fault_of_a_later_route_is_pointed_at_past_path_identifiers() {
    let ok = mac_route([2, 0, 0, 0, 0, 1], None);
    let bad = mac_route([1, 0, 0, 0, 0, 1], None);
    let routes = [&[0, 0, 0, 1][..], &ok, &[0, 0, 0, 2], &bad].concat();
    let c = DecodeCtx { add_path: vec![Family::EVPN], ..ctx() };
    let d = decode(&update(&[&reach(&routes), IBGP]), &c).unwrap();
    assert_eq!(d.faults[0].offset, FIRST + 9 + 4 + 35 + 4 + 25);
}

/// BGP-RTC-02, BGP-MP-07
#[test]
fn routes_and_next_hops_of_other_families_are_held_to_their_form() {
    let mp = |family: [u8; 3], hop: usize, nlri: &[u8]| {
        let value = [&family[..], &[hop as u8], &vec![1; hop], &[0], nlri].concat();
        update(&[&attr(0x80, 14, &value), IBGP])
    };
    const RTC: [u8; 3] = [0, 1, 132];
    const V6: [u8; 3] = [0, 2, 1];
    assert_eq!(reset(&mp(RTC, 4, &[16, 0, 0])), (FIRST + 9, 3, 9));
    assert_eq!(reset(&mp(RTC, 4, &[97, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])), (FIRST + 9, 3, 9));
    assert_eq!(reset(&mp(V6, 16, &[129])), (FIRST + 21, 3, 9));
    assert_eq!(reset(&mp(V6, 16, &[64, 0x20, 1])), (FIRST + 21, 3, 9), "truncated");
    assert_eq!(reset(&mp(V6, 4, &[0])), (FIRST + 3, 3, 9), "IPv6 needs an IPv6 next hop");
    assert_eq!(reset(&mp(RTC, 32, &[0])), (FIRST + 3, 3, 9));
    let u = value(decode(&mp(V6, 32, &[7, 0xff]), &ctx()).unwrap());
    match u.reach.unwrap().nlri {
        Nlri::Ipv6(l) => assert_eq!((l[0].addr.to_string(), l[0].len), ("fe00::".to_owned(), 7)),
        other => panic!("{other:?}"),
    }
}

/// RFC 6793 §4.2.3: what a two-octet speaker said, put together.
#[test]
fn as4_attributes_of_a_two_octet_speaker_are_merged_by_the_rules() {
    let c = DecodeCtx { as4: false, ..ctx() };
    // AS_PATH 10 23456 23456 with AS4_PATH and the aggregators as given.
    let run = |as4: &[u8], aggregators: &[&[u8]]| {
        let path = attr(0x40, 2, &[2, 3, 0, 10, 0x5b, 0xa0, 0x5b, 0xa0]);
        let origin = [0x40, 1, 1, 0];
        let pref = [0x40, 5, 4, 0, 0, 0, 100];
        let mut attrs: Vec<&[u8]> = vec![&origin, &path, &pref];
        let (good, as4) = (good(), attr(0xc0, 17, as4));
        attrs.extend([&good[..], &as4]);
        attrs.extend(aggregators);
        let d = decode(&update(&attrs), &c).unwrap();
        let treatment = d.treatment;
        (value(d).attrs, treatment)
    };
    let seq =
        |asns: &[u32]| AsPath(vec![AsSegment { kind: 2, asns: asns.iter().map(|n| Asn(*n)).collect() }]);
    let two = [2, 2, 0, 1, 0, 1, 0, 1, 0, 2];
    assert_eq!(run(&two, &[]).0.as_path, Some(seq(&[10, 65537, 65538])));
    let four = [2, 4, 0, 1, 0, 1, 0, 1, 0, 2, 0, 1, 0, 3, 0, 1, 0, 4];
    assert_eq!(run(&four, &[]).0.as_path, Some(seq(&[10, 23456, 23456])), "longer: ignored");
    let confed = [3, 1, 0, 1, 0, 9, 2, 1, 0, 1, 0, 2];
    assert_eq!(run(&confed, &[]).0.as_path, Some(seq(&[10, 23456, 65538])), "confederation: skipped");
    let (attrs, treatment) = run(&[2, 2, 0], &[]);
    assert_eq!(attrs.as_path, Some(seq(&[10, 23456, 23456])));
    assert_eq!(treatment, Some(Treatment::DiscardAttribute), "malformed: BGP-AS4-06");
    assert_eq!(run(&[2, 1, 0, 0, 0, 0], &[]).1, Some(Treatment::TreatAsWithdraw), "AS 0: BGP-ERR-26");

    let mapped = attr(0xc0, 7, &[0x5b, 0xa0, 1, 1, 1, 1]);
    let plain = attr(0xc0, 7, &[0, 10, 1, 1, 1, 1]);
    let real = attr(0xc0, 18, &[0, 1, 0, 9, 2, 2, 2, 2]);
    let (attrs, _) = run(&two, &[&mapped, &real]);
    assert_eq!(attrs.aggregator.map(|a| a.asn), Some(Asn(65545)));
    assert_eq!(attrs.as_path, Some(seq(&[10, 65537, 65538])));
    let (attrs, _) = run(&two, &[&plain, &real]);
    assert_eq!(attrs.aggregator.map(|a| a.asn), Some(Asn(10)));
    assert_eq!(attrs.as_path, Some(seq(&[10, 23456, 23456])), "not AS_TRANS: both are ignored");
}

/// BGP-ERR-05: MP attributes stand anywhere, beside classic routes.
#[test]
fn one_update_may_hold_all_four_kinds_of_routes() {
    let unreach = attr(0x80, 15, &[0, 2, 1, 8, 0x20]);
    let attrs = [IBGP, &unreach, &good(), &[0x40, 3, 4, 192, 0, 2, 1]].concat();
    let mut msg = vec![0xff; 16];
    msg.extend((23 + 2 + attrs.len() as u16 + 3).to_be_bytes());
    msg.extend([2, 0, 2, 8, 10]);
    msg.extend((attrs.len() as u16).to_be_bytes());
    msg.extend(attrs);
    msg.extend([16, 10, 1]);
    let d = decode(&msg, &ctx()).unwrap();
    assert_eq!(d.faults, []);
    let u = value(d);
    assert_eq!((u.withdrawn.len(), u.nlri.len()), (1, 1));
    assert!(!u.reach.unwrap().nlri.is_empty() && !u.unreach.unwrap().nlri.is_empty());
}

#[test]
fn faults_are_bounded_and_the_strongest_is_among_them() {
    let mut routes = [200u8, 0].repeat(100);
    let last = routes.len();
    routes.extend(mac_route([1, 0, 0, 0, 0, 1], None));
    let mut msg = update(&[&[0x90, 14, 0, 0], HOP, &routes, IBGP]);
    let len = (HOP.len() + routes.len()) as u16;
    msg[25..27].copy_from_slice(&len.to_be_bytes());
    let d = decode(&msg, &ctx()).unwrap();
    assert_eq!(d.faults.len(), 64);
    assert_eq!(d.treatment, Some(Treatment::TreatAsWithdraw));
    assert_eq!(d.faults[63].offset, FIRST + 1 + HOP.len() + last + 25);
    assert_eq!(d.faults[0].treatment, Treatment::SkipNlri);
}
