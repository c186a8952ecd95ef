//! Proptest strategies for whole messages, in the form in which decoding gives them.

#![allow(unreachable_pub, reason = "a test module")]

use bytes::Bytes;
use evpn::types::{Asn, Esi, EthTag, Label, Mac, Rd, Seq};
use evpn::wire::{
    AddPathMode, Aggregator, ArpNd, AsPath, AsSegment, Attrs, Capability, Community, EthernetAd,
    EthernetSegment, EvpnNlri, EvpnRoute, ExtCommunity, Family, GrFamily, Imet, Ipv4Prefix, Ipv6Prefix,
    JoinSync, LargeCommunity, LeaveSync, LlgrFamily, MacIp, Membership, Message, MpReach, MpUnreach,
    MulticastKey, NextHop, Nlri, Notification, Open, Origin, Pmsi, PrefixRoute, RawAttr, Refresh,
    RefreshKind, TunnelId, UnknownRoute, Update,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

fn bytes(max: usize) -> BoxedStrategy<Bytes> {
    vec(any::<u8>(), 0..max).prop_map(Bytes::from).boxed()
}

fn rd() -> BoxedStrategy<Rd> {
    any::<[u8; 8]>().prop_map(Rd).boxed()
}

fn label() -> BoxedStrategy<Label> {
    (0u32..1 << 24).prop_map(Label).boxed()
}

/// An ESI of an assigned type that is not zero.
fn esi() -> BoxedStrategy<Esi> {
    (0u8..=5, any::<[u8; 8]>())
        .prop_map(|(t, rest)| {
            let mut b = [1; 10];
            b[0] = t;
            b[1..9].copy_from_slice(&rest);
            Esi(b)
        })
        .boxed()
}

fn any_esi() -> BoxedStrategy<Esi> {
    prop_oneof![Just(Esi::ZERO), esi()].boxed()
}

fn mac() -> BoxedStrategy<Mac> {
    any::<[u8; 6]>()
        .prop_map(|mut b| {
            b[0] &= 0xfe;
            b[5] |= 1;
            Mac(b)
        })
        .boxed()
}

fn tag() -> BoxedStrategy<EthTag> {
    any::<u32>().prop_map(EthTag).boxed()
}

fn key() -> BoxedStrategy<MulticastKey> {
    let ip = || option::of(any::<IpAddr>());
    (rd(), tag(), ip(), ip(), any::<IpAddr>(), any::<u8>())
        .prop_map(|(rd, tag, source, group, originator, flags)| MulticastKey {
            rd,
            tag,
            source,
            group,
            originator,
            flags,
        })
        .boxed()
}

fn prefix_route() -> BoxedStrategy<PrefixRoute> {
    let v4 = (any::<u32>(), 0u8..=32).prop_map(|(a, len)| {
        let a = if len == 0 { 0 } else { a >> (32 - len) << (32 - len) };
        (IpAddr::V4(a.into()), len, IpAddr::V4(Ipv4Addr::UNSPECIFIED))
    });
    let v6 = (any::<u128>(), 0u8..=128).prop_map(|(a, len)| {
        let a = if len == 0 { 0 } else { a >> (128 - len) << (128 - len) };
        (IpAddr::V6(a.into()), len, IpAddr::V6(Ipv6Addr::UNSPECIFIED))
    });
    // Without a label there has to be an overlay index (EVPN-T5-08).
    (rd(), any_esi(), tag(), prop_oneof![v4, v6], 1u32..1 << 24)
        .prop_map(|(rd, esi, tag, (prefix, prefix_len, gateway), label)| PrefixRoute {
            rd,
            esi,
            tag,
            prefix,
            prefix_len,
            gateway,
            label: Label(label),
        })
        .boxed()
}

/// Any route that gives no fault when it is advertised with a PMSI attribute.
pub fn route() -> BoxedStrategy<EvpnRoute> {
    prop_oneof![
        6 => (rd(), any_esi(), tag(), mac(), any::<Option<IpAddr>>(), label(), option::of(label())).prop_map(
            |(rd, esi, tag, mac, ip, label1, label2)| {
                EvpnRoute::MacIp(MacIp { rd, esi, tag, mac, ip, label1, label2 })
            }
        ),
        2 => (rd(), tag(), any::<IpAddr>())
            .prop_map(|(rd, tag, originator)| EvpnRoute::Imet(Imet { rd, tag, originator })),
        1 => (rd(), any_esi(), tag(), label()).prop_map(|(rd, esi, tag, label)| {
            EvpnRoute::EthernetAd(EthernetAd { rd, esi, tag, label })
        }),
        1 => (rd(), esi(), any::<IpAddr>()).prop_map(|(rd, esi, originator)| {
            EvpnRoute::EthernetSegment(EthernetSegment { rd, esi, originator })
        }),
        1 => prefix_route().prop_map(EvpnRoute::Prefix),
        1 => key().prop_map(EvpnRoute::Smet),
        1 => (any_esi(), key()).prop_map(|(esi, key)| EvpnRoute::JoinSync(JoinSync { esi, key })),
        1 => (any_esi(), key(), any::<u8>()).prop_map(|(esi, key, max_response)| {
            EvpnRoute::LeaveSync(LeaveSync { esi, key, max_response })
        }),
    ]
    .boxed()
}

/// Also types that nobody knows.
fn any_route() -> BoxedStrategy<EvpnRoute> {
    prop_oneof![
        9 => route(),
        1 => (9u8..=255, bytes(256)).prop_map(|(route_type, body)| {
            EvpnRoute::Unknown(UnknownRoute { route_type, body })
        }),
    ]
    .boxed()
}

fn evpn_list(path_ids: bool) -> BoxedStrategy<Nlri> {
    vec((any::<u32>(), any_route()), 0..12)
        .prop_map(move |list| {
            Nlri::Evpn(
                list.into_iter()
                    .map(|(id, route)| EvpnNlri { path_id: path_ids.then_some(id), route })
                    .collect(),
            )
        })
        .boxed()
}

fn ipv4_prefixes(path_ids: bool) -> BoxedStrategy<Vec<Ipv4Prefix>> {
    vec((any::<u32>(), any::<u32>(), 0u8..=32), 0..6)
        .prop_map(move |list| {
            list.into_iter()
                .map(|(id, a, len)| Ipv4Prefix {
                    path_id: path_ids.then_some(id),
                    addr: if len == 0 { 0 } else { a >> (32 - len) << (32 - len) }.into(),
                    len,
                })
                .collect()
        })
        .boxed()
}

fn nlri(path_ids: bool) -> BoxedStrategy<(Family, Nlri)> {
    let ipv6 = vec((any::<u32>(), any::<u128>(), 0u8..=128), 0..6).prop_map(move |list| {
        Nlri::Ipv6(
            list.into_iter()
                .map(|(id, a, len)| Ipv6Prefix {
                    path_id: path_ids.then_some(id),
                    addr: if len == 0 { 0 } else { a >> (128 - len) << (128 - len) }.into(),
                    len,
                })
                .collect(),
        )
    });
    let membership = prop_oneof![
        Just(Membership { bits: 0, origin: Asn(0), target: ExtCommunity([0; 8]) }),
        (32u8..=96, any::<u32>(), any::<u64>()).prop_map(|(bits, origin, target)| {
            let keep = u64::MAX.checked_shl(96 - u32::from(bits)).unwrap_or(0);
            Membership { bits, origin: Asn(origin), target: ExtCommunity((target & keep).to_be_bytes()) }
        }),
    ];
    prop_oneof![
        6 => evpn_list(path_ids).prop_map(|n| (Family::EVPN, n)),
        1 => ipv4_prefixes(path_ids).prop_map(|l| (Family::IPV4, Nlri::Ipv4(l))),
        1 => ipv6.prop_map(|n| (Family::IPV6, n)),
        1 => vec(membership, 0..6).prop_map(|l| (Family::RTC, Nlri::Rtc(l))),
        1 => bytes(40).prop_map(|b| (Family { afi: 1, safi: 128 }, Nlri::Unknown(b))),
    ]
    .boxed()
}

fn next_hop(family: Family) -> BoxedStrategy<NextHop> {
    let v4 = any::<Ipv4Addr>().prop_map(NextHop::V4);
    let v6 = any::<Ipv6Addr>().prop_map(NextHop::V6);
    let both = (any::<Ipv6Addr>(), any::<Ipv6Addr>()).prop_map(|(a, b)| NextHop::V6Both(a, b));
    match family {
        Family::IPV6 => prop_oneof![v6, both].boxed(),
        Family::IPV4 => prop_oneof![v4, v6, both].boxed(),
        _ => prop_oneof![v4, v6].boxed(),
    }
}

fn ext_community() -> BoxedStrategy<ExtCommunity> {
    prop_oneof![
        any::<[u8; 8]>().prop_map(ExtCommunity),
        (any::<u32>(), any::<bool>()).prop_map(|(n, sticky)| ExtCommunity::mac_mobility(Seq(n), sticky)),
        (any::<u16>(), any::<u32>()).prop_map(|(a, n)| ExtCommunity::rt_as2(a, n)),
        mac().prop_map(ExtCommunity::router_mac),
        any::<[bool; 3]>().prop_map(|[router, r#override, immutable]| {
            ExtCommunity::arp_nd(ArpNd { router, r#override, immutable })
        }),
        Just(ExtCommunity::VXLAN),
    ]
    .boxed()
}

/// Only the first Router's MAC and ARP/ND community survive decoding.
fn ext_communities() -> BoxedStrategy<Vec<ExtCommunity>> {
    vec(ext_community(), 0..40)
        .prop_map(|mut list| {
            for sub in [3, 8] {
                let mut seen = false;
                list.retain(|c| c.0[..2] != [6, sub] || !core::mem::replace(&mut seen, true));
            }
            // A multicast Router's MAC would be a fault on a Type-5 route.
            list.retain(|c| c.0[..2] != [6, 3] || c.0[2] & 1 == 0);
            list
        })
        .boxed()
}

/// With AS numbers of four octets, or only such as fit two.
fn as_path(as4: bool) -> BoxedStrategy<AsPath> {
    let max = if as4 { u32::MAX } else { 65535 };
    vec((1u8..=4, vec((1..=max).prop_map(Asn), 1..6)), 0..4)
        .prop_map(|l| AsPath(l.into_iter().map(|(kind, asns)| AsSegment { kind, asns }).collect()))
        .boxed()
}

/// A path as a two-octet session can carry it: confederation segments, whose numbers fit, in front, then others.
pub fn as_path_of_two_octet_session() -> BoxedStrategy<AsPath> {
    let small = (3u8..=4, vec((1u32..65536).prop_map(Asn), 1..4));
    let large = (1u8..=2, vec((1..=u32::MAX).prop_map(Asn), 1..6));
    (vec(small, 0..2), vec(large, 0..4))
        .prop_map(|(a, b)| {
            AsPath(a.into_iter().chain(b).map(|(kind, asns)| AsSegment { kind, asns }).collect())
        })
        .boxed()
}

fn pmsi() -> BoxedStrategy<Pmsi> {
    let ip = (prop_oneof![Just(6u8), Just(10)], any::<IpAddr>()).prop_map(|(t, a)| (t, TunnelId::Ip(a)));
    let raw = (prop_oneof![0u8..6, 11u8..], bytes(300)).prop_map(|(t, b)| (t, TunnelId::Raw(b)));
    (any::<u8>(), prop_oneof![4 => ip, 1 => raw], label())
        .prop_map(|(flags, (tunnel_type, tunnel), label)| Pmsi { flags, tunnel_type, label, tunnel })
        .boxed()
}

fn others() -> BoxedStrategy<Vec<RawAttr>> {
    // Unknown codes below and above the known ones; optional transitive, hence with the Partial bit.
    vec((prop_oneof![11u8..14, 26u8..32, 33u8..], bytes(300)), 0..4)
        .prop_map(|mut l| {
            l.sort_by_key(|(c, _)| *c);
            l.dedup_by_key(|(c, _)| *c);
            l.into_iter().map(|(code, value)| RawAttr { flags: 0xe0, code, value }).collect()
        })
        .boxed()
}

/// All attributes of a complete iBGP announcement.
pub fn attrs(as4: bool) -> BoxedStrategy<Attrs> {
    let path = if as4 { as_path(true).boxed() } else { as_path_of_two_octet_session().boxed() };
    let origin = prop_oneof![Just(Origin::Igp), Just(Origin::Egp), Just(Origin::Incomplete)];
    let max = if as4 { u32::MAX } else { 65535 };
    let aggregator =
        ((1..=max).prop_map(Asn), any::<Ipv4Addr>()).prop_map(|(asn, id)| Aggregator { asn, id });
    let large = vec(any::<(u32, u32, u32)>(), 0..4).prop_map(|mut l| {
        l.sort_unstable();
        l.dedup();
        l.into_iter().map(|(a, b, c)| LargeCommunity(a, b, c)).collect::<Vec<_>>()
    });
    (
        (origin, path, any::<Ipv4Addr>(), option::of(any::<u32>()), any::<u32>(), any::<bool>()),
        (
            option::of(aggregator),
            vec(any::<u32>().prop_map(Community), 0..80),
            option::of(any::<Ipv4Addr>()),
            vec(any::<Ipv4Addr>(), 0..4),
        ),
        (ext_communities(), pmsi(), large, others()),
    )
        .prop_map(
            |(
                (origin, path, hop, med, pref, atomic),
                (agg, comm, orig, cluster),
                (ext, pmsi, large, others),
            )| {
                Attrs {
                    origin: Some(origin),
                    as_path: Some(path),
                    next_hop: Some(hop),
                    med,
                    local_pref: Some(pref),
                    atomic_aggregate: atomic,
                    aggregator: agg,
                    communities: comm,
                    originator_id: orig,
                    cluster_list: cluster,
                    ext_communities: ext,
                    pmsi: Some(pmsi),
                    large_communities: large,
                    others,
                }
            },
        )
        .boxed()
}

/// An UPDATE of an iBGP session; `path_ids`: ADD-PATH for every family but RTC.
pub fn update(as4: bool, path_ids: bool) -> BoxedStrategy<Update> {
    let reach = nlri(path_ids).prop_flat_map(|(family, nlri)| {
        next_hop(family).prop_map(move |next_hop| MpReach { family, next_hop, nlri: nlri.clone() })
    });
    let unreach = nlri(path_ids).prop_map(|(family, nlri)| MpUnreach { family, nlri });
    (ipv4_prefixes(path_ids), ipv4_prefixes(path_ids), option::of(reach), option::of(unreach), attrs(as4))
        .prop_map(|(withdrawn, nlri, reach, unreach, attrs)| Update {
            withdrawn,
            nlri,
            attrs,
            reach,
            unreach,
        })
        .boxed()
}

fn family() -> BoxedStrategy<Family> {
    (any::<u16>(), any::<u8>()).prop_map(|(afi, safi)| Family { afi, safi }).boxed()
}

fn capability() -> BoxedStrategy<Capability> {
    let mode = prop_oneof![
        Just(AddPathMode::Receive),
        Just(AddPathMode::Send),
        Just(AddPathMode::Both),
        (4u8..).prop_map(AddPathMode::Unknown),
    ];
    let gr = (family(), any::<bool>()).prop_map(|(family, forwarding)| GrFamily { family, forwarding });
    let llgr = (family(), any::<bool>(), 0u32..1 << 24).prop_map(|(family, forwarding, time)| LlgrFamily {
        family,
        forwarding,
        time,
    });
    let known = [1, 2, 5, 6, 64, 65, 69, 70, 71];
    prop_oneof![
        family().prop_map(Capability::Multiprotocol),
        Just(Capability::RouteRefresh),
        vec((family(), any::<u16>()), 0..5).prop_map(Capability::ExtendedNextHop),
        Just(Capability::ExtendedMessage),
        (any::<bool>(), any::<bool>(), 0u16..4096, vec(gr, 0..4)).prop_map(
            |(restarting, notification, time, families)| Capability::GracefulRestart {
                restarting,
                notification,
                time,
                families,
            }
        ),
        (1..=u32::MAX).prop_map(|n| Capability::As4(Asn(n))),
        vec((family(), mode), 0..4).prop_map(Capability::AddPath),
        Just(Capability::EnhancedRefresh),
        vec(llgr, 0..4).prop_map(Capability::Llgr),
        (any::<u8>().prop_filter("known", move |c| !known.contains(c)), bytes(256))
            .prop_map(|(code, value)| Capability::Unknown { code, value }),
    ]
    .boxed()
}

fn open() -> BoxedStrategy<Open> {
    let hold = any::<u16>().prop_filter("1 and 2 are refused", |n| !matches!(n, 1 | 2));
    let id = (1..=u32::MAX).prop_map(Ipv4Addr::from);
    (1..=u16::MAX, hold, id, vec(capability(), 0..9))
        .prop_map(|(my_as, hold_time, id, capabilities)| {
            // The extended form is always accepted and kept; whether it is needed is the encoder's business.
            Open { my_as, hold_time, id, capabilities, extended: true }
        })
        .boxed()
}

/// Any message that a session may see, UPDATEs apart.
pub fn small_message() -> BoxedStrategy<Message> {
    let kind = prop_oneof![
        Just(RefreshKind::Request),
        Just(RefreshKind::Begin),
        Just(RefreshKind::End),
        (3u8..).prop_map(RefreshKind::Unknown),
    ];
    prop_oneof![
        3 => open().prop_map(Message::Open),
        2 => (any::<u8>(), any::<u8>(), bytes(300))
            .prop_map(|(code, subcode, data)| Message::Notification(Notification { code, subcode, data })),
        1 => Just(Message::Keepalive),
        1 => (family(), kind).prop_map(|(family, kind)| Message::Refresh(Refresh { family, kind })),
    ]
    .boxed()
}
