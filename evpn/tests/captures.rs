//! Captures of real FRR and GoBGP: every message decodes without a fault, means what tshark says it means, and
//! re-encodes to its octets apart from the order and length form of attributes.
//!
//! `*.golden.json` was made once with tshark 4.0.17 (`-Y bgp -T json --no-duplicate-keys`), reduced to the main
//! fields. tshark shows the label of types 1 and 2 as a 20-bit MPLS label (`label1_20`), that of type 5 in full.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use evpn::wire::{
    Capability, DecodeCtx, EncodeCtx, EvpnNlri, EvpnRoute, ExtCommunity, ExtKind, Family, Message, Nlri,
    Origin, TunnelId, Update, decode, frame_len,
};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use support::{dir, pcap, to_hex};

const CAPTURES: &[(&str, bool)] =
    &[("frr-8.4.4", true), ("frr-10.3", true), ("gobgp-3.10", false), ("gobgp-3.36", false)];

fn ctx(ibgp: bool) -> DecodeCtx {
    DecodeCtx { ibgp, max_len: 65535, enhanced_refresh: true, ..DecodeCtx::default() }
}

/// Sender and octets of every message, in the order of the capture.
fn messages(name: &str) -> Vec<(Ipv4Addr, Vec<u8>)> {
    let mut streams: BTreeMap<pcap::Flow, Vec<u8>> = BTreeMap::new();
    let mut out = Vec::new();
    for a in pcap::tcp(&dir("captures").join(format!("{name}.pcap"))) {
        let buf = streams.entry(a.flow).or_default();
        buf.extend(a.bytes);
        while let Some(n) = frame_len(buf, 65535).unwrap() {
            out.push((a.flow.src.0, buf.drain(..n).collect()));
        }
    }
    assert!(streams.values().all(Vec::is_empty), "{name}: octets left over");
    out
}

#[test]
fn every_message_of_every_capture_decodes_without_a_fault_to_what_tshark_says() {
    for (name, ibgp) in CAPTURES {
        let golden = std::fs::read(dir("captures").join(format!("{name}.golden.json"))).unwrap();
        let golden: Vec<Value> = serde_json::from_slice(&golden).unwrap();
        let messages = messages(name);
        assert_eq!(messages.len(), golden.len(), "{name}");
        for (i, ((src, bytes), want)) in messages.iter().zip(&golden).enumerate() {
            let d = decode(bytes, &ctx(*ibgp)).unwrap_or_else(|e| panic!("{name} {i}: {e}"));
            assert_eq!(d.faults, [], "{name} {i}");
            let mut got = reduced(&d.message);
            got["src"] = json!(src);
            assert_eq!(&got, want, "{name} message {i}");
        }
    }
}

#[test]
fn every_message_of_every_capture_re_encodes_to_its_octets_in_our_order() {
    let mut exact = 0;
    for (name, ibgp) in CAPTURES {
        for (i, (_, bytes)) in messages(name).iter().enumerate() {
            let d = decode(bytes, &ctx(*ibgp)).unwrap();
            let again = d.message.encode(&EncodeCtx::default());
            if let Message::Open(_) = d.message {
                // One parameter for all capabilities instead of one each: only the meaning is kept.
                assert_eq!(decode(&again, &ctx(*ibgp)).unwrap().message, d.message, "{name} {i}");
                continue;
            }
            assert_eq!(to_hex(&again), to_hex(&canonical(bytes)), "{name} message {i}");
            exact += usize::from(again == bytes[..]);
        }
    }
    // KEEPALIVEs, withdrawals, End-of-RIB, notifications.
    assert!(exact > 100, "only {exact} were equal as they stood");
}

/// An UPDATE with short lengths where they are enough, and the MP attribute first; without the codec's help.
fn canonical(msg: &[u8]) -> Vec<u8> {
    if msg[18] != 2 {
        return msg.to_vec();
    }
    assert_eq!(msg[19..21], [0, 0], "no classic withdrawals in these captures");
    let mut attrs: Vec<Vec<u8>> = Vec::new();
    let mut rest = &msg[23..];
    while !rest.is_empty() {
        let (head, len) = match rest[0] & 0x10 {
            0 => (3, usize::from(rest[2])),
            _ => (4, usize::from(rest[2]) << 8 | usize::from(rest[3])),
        };
        let mut attr = match len {
            0..256 => vec![rest[0] & !0x10, rest[1], len as u8],
            _ => vec![rest[0] | 0x10, rest[1], (len >> 8) as u8, len as u8],
        };
        attr.extend_from_slice(&rest[head..head + len]);
        attrs.push(attr);
        rest = &rest[head + len..];
    }
    attrs.sort_by_key(|a| !matches!(a[1], 14 | 15));
    let attrs = attrs.concat();
    let mut out = msg[..19].to_vec();
    out.extend([0, 0]);
    out.extend((attrs.len() as u16).to_be_bytes());
    out.extend(attrs);
    let len = out.len() as u16;
    out[16..18].copy_from_slice(&len.to_be_bytes());
    out
}

/// The fields of the golden files.
fn reduced(m: &Message) -> Value {
    match m {
        Message::Open(o) => json!({
            "type": "open", "my_as": o.my_as, "hold_time": o.hold_time, "id": o.id,
            "capabilities": o.capabilities.iter().map(code).collect::<Vec<_>>(),
        }),
        Message::Update(u) => update(u),
        Message::Notification(n) => {
            json!({ "type": "notification", "code": n.code, "subcode": n.subcode })
        }
        Message::Keepalive => json!({ "type": "keepalive" }),
        Message::Refresh(_) => json!({ "type": "refresh" }),
    }
}

fn code(c: &Capability) -> u8 {
    match c {
        Capability::Multiprotocol(_) => 1,
        Capability::RouteRefresh => 2,
        Capability::ExtendedNextHop(_) => 5,
        Capability::ExtendedMessage => 6,
        Capability::GracefulRestart { .. } => 64,
        Capability::As4(_) => 65,
        Capability::AddPath(_) => 69,
        Capability::EnhancedRefresh => 70,
        Capability::Llgr(_) => 71,
        Capability::Unknown { code, .. } => *code,
    }
}

fn update(u: &Update) -> Value {
    let mut out = json!({ "type": "update" });
    let mut put = |key: &str, v: Value| out[key] = v;
    let a = &u.attrs;
    if let Some(o) = a.origin {
        put("origin", json!(if o == Origin::Igp { 0 } else { 2 }));
    }
    if let Some(p) = &a.as_path {
        put("as_path", p.0.iter().flat_map(|s| &s.asns).map(|n| json!(n)).collect());
    }
    if let Some(n) = a.med {
        put("med", n.into());
    }
    if let Some(n) = a.local_pref {
        put("local_pref", n.into());
    }
    if let Some(m) = &u.reach {
        assert_eq!(m.family, Family::EVPN);
        put("next_hop", json!(m.next_hop.addr()));
        put("reach", routes(&m.nlri));
    }
    if let Some(m) = &u.unreach {
        put("unreach_family", json!([m.family.afi, m.family.safi]));
        put("unreach", routes(&m.nlri));
    }
    if !a.ext_communities.is_empty() {
        put("ext_communities", a.ext_communities.iter().map(|c| community(*c)).collect());
    }
    if let Some(p) = &a.pmsi {
        let TunnelId::Ip(ip) = p.tunnel else { panic!("{p:?}") };
        put("pmsi", json!({ "type": p.tunnel_type, "vni": p.label, "ip": ip }));
    }
    assert_eq!(a.others, []);
    assert_eq!((a.next_hop, a.atomic_aggregate, a.aggregator), (None, false, None));
    assert!(a.communities.is_empty() && a.large_communities.is_empty() && a.cluster_list.is_empty());
    out
}

fn community(c: ExtCommunity) -> String {
    match c.kind() {
        ExtKind::Encapsulation(n) => format!("ET:{n}"),
        ExtKind::MacMobility { sticky, seq } => format!("MM:seq {seq} flags {:#04x}", u8::from(sticky)),
        ExtKind::EsiLabel { single_active, label } => {
            format!("ESI-label:{label} flags {}", u8::from(single_active))
        }
        _ => c.to_string(),
    }
}

fn routes(n: &Nlri) -> Value {
    let Nlri::Evpn(list) = n else { panic!("{n:?}") };
    list.iter().map(route).collect()
}

fn route(n: &EvpnNlri) -> Value {
    let r = &n.route;
    let mut out = match r {
        EvpnRoute::EthernetAd(r) => json!({
            "route_type": 1, "esi": r.esi, "eth_tag": r.tag, "label1_20": r.label.0 >> 4,
        }),
        EvpnRoute::MacIp(r) => {
            let mut v = json!({
                "route_type": 2, "esi": r.esi, "eth_tag": r.tag, "mac": r.mac, "label1_20": r.label1.0 >> 4,
            });
            if let Some(ip) = r.ip {
                v["ip"] = json!(ip);
            }
            if let Some(l) = r.label2 {
                v["label2_20"] = (l.0 >> 4).into();
            }
            v
        }
        EvpnRoute::Imet(r) => json!({ "route_type": 3, "eth_tag": r.tag, "ip": r.originator }),
        EvpnRoute::EthernetSegment(r) => json!({ "route_type": 4, "esi": r.esi, "ip": r.originator }),
        EvpnRoute::Prefix(r) => json!({
            "route_type": 5, "esi": r.esi, "eth_tag": r.tag, "gateway": r.gateway, "label_24": r.label,
            "prefix": format!("{}/{}", r.prefix, r.prefix_len),
        }),
        other => panic!("not in the captures: {other}"),
    };
    let rd = match r {
        EvpnRoute::EthernetAd(r) => r.rd,
        EvpnRoute::MacIp(r) => r.rd,
        EvpnRoute::Imet(r) => r.rd,
        EvpnRoute::EthernetSegment(r) => r.rd,
        EvpnRoute::Prefix(r) => r.rd,
        other => panic!("not in the captures: {other}"),
    };
    out["rd"] = to_hex(&rd.0).into();
    out
}

#[test]
fn the_captures_show_the_moves_they_are_said_to_show() {
    for name in ["frr-8.4.4", "frr-10.3"] {
        let mut seqs = Vec::new();
        for (_, bytes) in messages(name) {
            if let Message::Update(u) = decode(&bytes, &ctx(true)).unwrap().message {
                seqs.extend(u.attrs.mobility().map(|(seq, sticky)| (seq.0, sticky)));
            }
        }
        seqs.sort_unstable();
        seqs.dedup();
        assert_eq!(seqs, [(0, true), (1, false), (2, false)], "{name}");
    }
}
