//! Laws of the codec over arbitrary values and octets.

#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "support/arbitrary.rs"]
mod arbitrary;
mod support;

use evpn::wire::{
    Attrs, DecodeCtx, EncodeCtx, EvpnRoute, Family, Message, Nlri, Treatment, Update, UpdateBuilder, decode,
    end_of_rib, frame, frame_len, keepalive,
};
use proptest::collection::vec;
use proptest::prelude::*;
use std::net::Ipv4Addr;
use support::vectors;

const ALL: [Family; 4] = [Family::EVPN, Family::IPV4, Family::IPV6, Family::RTC];

fn ctx(as4: bool, path_ids: bool) -> (DecodeCtx, EncodeCtx) {
    let add_path = if path_ids { vec![Family::EVPN, Family::IPV4, Family::IPV6] } else { vec![] };
    let d = DecodeCtx {
        as4,
        ibgp: true,
        families: ALL.to_vec(),
        add_path: add_path.clone(),
        max_len: 65535,
        enhanced_refresh: true,
    };
    (d, EncodeCtx { as4, add_path })
}

/// An UPDATE comes back as it was, but for the attributes that a faultless one without routes cannot keep.
fn round_trip(u: Update, as4: bool, path_ids: bool) -> Result<(), TestCaseError> {
    let (d, e) = ctx(as4, path_ids);
    let msg = Message::Update(u);
    let bytes = msg.encode(&e);
    prop_assert!(!bytes.is_empty());
    let back = decode(&bytes, &d).map_err(|e| TestCaseError::fail(format!("{e:?}")))?;
    // Unknown families and route types are counted, nothing worse.
    prop_assert!(matches!(back.treatment, None | Some(Treatment::SkipNlri)), "{:?}", back.faults);
    prop_assert_eq!(back.message, msg);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, ..ProptestConfig::default() })]

    #[test]
    fn an_update_decodes_to_what_was_encoded(u in arbitrary::update(true, false)) {
        round_trip(u, true, false)?;
    }

    #[test]
    fn an_update_with_path_identifiers_decodes_to_what_was_encoded(u in arbitrary::update(true, true)) {
        round_trip(u, true, true)?;
    }

    /// AS4_PATH and AS4_AGGREGATOR carry what two octets cannot (BGP-AS4-05).
    #[test]
    fn an_update_of_a_two_octet_session_keeps_its_as_path_and_aggregator(u in arbitrary::update(false, false)) {
        let (d, e) = ctx(false, false);
        let path = u.attrs.as_path.clone().unwrap();
        let aggregator = u.attrs.aggregator;
        let wide = path.0.iter().flat_map(|s| &s.asns).any(|a| a.0 > 65535);
        let back = decode(&Message::Update(u).encode(&e), &d).map_err(|e| TestCaseError::fail(format!("{e:?}")))?;
        let Message::Update(back) = back.message else { panic!("not an UPDATE") };
        prop_assert_eq!(back.attrs.aggregator, aggregator);
        let back = back.attrs.as_path.unwrap();
        // Neighbouring sequences may come back as one.
        let flat = |p: &evpn::wire::AsPath| {
            p.0.iter().flat_map(|s| s.asns.iter().map(move |a| (s.kind, *a))).collect::<Vec<_>>()
        };
        prop_assert_eq!(flat(&back), flat(&path), "wide: {}", wide);
    }

    #[test]
    fn every_other_message_decodes_to_what_was_encoded(m in arbitrary::small_message()) {
        let (d, e) = ctx(true, false);
        let bytes = m.encode(&e);
        let back = decode(&bytes, &d).map_err(|e| TestCaseError::fail(format!("{e:?}")))?;
        prop_assert_eq!(back.message, m);
    }

    /// BGP-MSG-02: however the stream is cut, the same messages come out.
    #[test]
    fn a_stream_split_anywhere_gives_the_same_messages(cuts in vec(1usize..200, 0..40)) {
        let sent: Vec<Vec<u8>> = vectors()
            .iter()
            .filter(|v| v.is_bgp() && !v.is_defective() && v.bytes.len() <= 4096)
            .flat_map(|v| split(&v.bytes, &v.decode_ctx()))
            .collect();
        let stream = sent.concat();
        let (mut got, mut buf, mut at, mut cuts) = (Vec::new(), Vec::new(), 0, cuts.into_iter().cycle());
        while at < stream.len() {
            let n = cuts.next().unwrap_or(stream.len()).min(stream.len() - at);
            buf.extend_from_slice(&stream[at..at + n]);
            at += n;
            while let Some(n) = frame_len(&buf, 4096).unwrap() {
                got.push(buf.drain(..n).collect::<Vec<u8>>());
            }
        }
        prop_assert!(buf.is_empty());
        prop_assert_eq!(got, sent);
    }

    /// No octets from the network make the codec panic, and what it accepts it can write and read again.
    #[test]
    fn a_damaged_vector_never_panics_and_accepted_values_are_stable(
        which in any::<prop::sample::Index>(),
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let all = vectors();
        let v = which.get(all);
        let mut bytes = v.bytes.clone();
        for (at, with) in damage {
            let at = at.index(bytes.len());
            bytes[at] = with;
        }
        if v.is_bgp() {
            let (d, e) = (v.decode_ctx(), v.encode_ctx());
            if let Ok(first) = decode(&bytes, &d) {
                for f in &first.faults {
                    prop_assert!(f.offset <= bytes.len());
                }
                if first.treatment.is_none() {
                    let again = decode(&first.message.encode(&e), &d);
                    prop_assert_eq!(again.unwrap().message, first.message);
                }
            }
        } else {
            let _ = frame::parse(&bytes);
        }
    }

    /// The builder writes what `Message::encode` would write for the same routes, packs as many as fit and
    /// never exceeds its limit (BGP-MSG-03).
    #[test]
    fn the_builder_writes_the_same_octets_and_keeps_its_limit(
        routes in vec(arbitrary::route(), 1..130),
        attrs in arbitrary::attrs(true),
        max in prop_oneof![Just(4096usize), 400usize..5000, Just(65535)],
        withdraw in any::<bool>(),
    ) {
        let attrs = Attrs { next_hop: None, ..attrs };
        let hop = Ipv4Addr::new(10, 255, 0, 1);
        let new = || if withdraw {
            UpdateBuilder::unreach(max)
        } else {
            UpdateBuilder::reach(&attrs, evpn::wire::NextHop::V4(hop), max, true)
        };
        let mut left = &routes[..];
        while let Some(first) = left.first() {
            let mut b = new();
            prop_assert!(b.is_empty());
            if !b.push(first) {
                // Only attributes larger than the message can be the reason.
                prop_assert!(encoded(&attrs, &left[..1], withdraw).len() > max.min(4096) || max > 4096);
                prop_assert!(b.finish().is_none());
                return Ok(());
            }
            let n = 1 + left[1..].iter().take_while(|r| b.push(r)).count();
            prop_assert_eq!(b.len(), n);
            let bytes = b.finish().unwrap();
            prop_assert!(bytes.len() <= max);
            prop_assert_eq!(&bytes, &encoded(&attrs, &left[..n], withdraw));
            if n < left.len() {
                // One octet is at stake where the length of the MP attribute grows.
                prop_assert!(encoded(&attrs, &left[..=n], withdraw).len() + 1 > max);
            }
            left = &left[n..];
        }
    }
}

fn encoded(attrs: &Attrs, routes: &[EvpnRoute], withdraw: bool) -> bytes::Bytes {
    let list = routes.iter().map(|r| evpn::wire::EvpnNlri { path_id: None, route: r.clone() }).collect();
    let (family, nlri) = (Family::EVPN, Nlri::Evpn(list));
    let u = if withdraw {
        Update { unreach: Some(evpn::wire::MpUnreach { family, nlri }), ..Update::default() }
    } else {
        let next_hop = evpn::wire::NextHop::V4(Ipv4Addr::new(10, 255, 0, 1));
        let reach = Some(evpn::wire::MpReach { family, next_hop, nlri });
        Update { attrs: attrs.clone(), reach, ..Update::default() }
    };
    Message::Update(u).encode(&EncodeCtx::default())
}

fn split(stream: &[u8], ctx: &DecodeCtx) -> Vec<Vec<u8>> {
    let (mut rest, mut out) = (stream, Vec::new());
    while !rest.is_empty() {
        let n = frame_len(rest, ctx.max_len).unwrap().unwrap();
        out.push(rest[..n].to_vec());
        rest = &rest[n..];
    }
    out
}

#[test]
fn every_single_split_of_two_messages_gives_both() {
    let stream = [&keepalive()[..], &end_of_rib(Family::EVPN)].concat();
    for at in 0..=stream.len() {
        let mut buf = stream[..at].to_vec();
        let mut got = Vec::new();
        for part in [&[][..], &stream[at..]] {
            buf.extend_from_slice(part);
            while let Some(n) = frame_len(&buf, 4096).unwrap() {
                got.push(buf.drain(..n).collect::<Vec<u8>>());
            }
        }
        assert_eq!(got.concat(), stream, "split at {at}");
        assert_eq!(got.len(), 2, "split at {at}");
    }
}

/// BGP-GR-06
#[test]
fn end_of_rib_and_keepalive_are_the_octets_of_the_vectors() {
    let bytes = |id: &str| vectors().iter().find(|v| v.id == id).unwrap().bytes.clone();
    assert_eq!(end_of_rib(Family::IPV4), bytes("EOR-01"));
    assert_eq!(end_of_rib(Family::EVPN), bytes("EOR-02"));
    assert_eq!(end_of_rib(Family::RTC), bytes("EOR-03"));
    assert_eq!(keepalive(), bytes("KA-01"));
}

/// EVPN-NLRI-09
#[test]
fn a_withdrawal_made_from_a_key_has_that_key_and_label_zero() {
    use proptest::strategy::ValueTree;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    for _ in 0..200 {
        let route = arbitrary::route().new_tree(&mut runner).unwrap().current();
        let key = route.key();
        let back = key.to_withdraw_route();
        assert_eq!(back.key(), key);
        match back {
            EvpnRoute::MacIp(r) => assert_eq!((r.label1.0, r.label2), (0, None)),
            EvpnRoute::EthernetAd(r) => assert_eq!(r.label.0, 0),
            EvpnRoute::Prefix(r) => assert_eq!(r.label.0, 0),
            _ => {}
        }
    }
}
