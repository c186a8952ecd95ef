//! Frames of access ports: the golden vectors parse to their meaning and are what our builders send; everything
//! that breaks a rule of its RFC is refused with its reason.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use evpn::types::Mac;
use evpn::wire::frame::{self, Body, Frame, FrameError};
use serde_json::{Value, json};
use std::net::{Ipv4Addr, Ipv6Addr};
use support::{Vector, to_hex, vectors};

const VM: Mac = Mac([0, 0, 0x5e, 0, 0x53, 1]);
const PEER: Mac = Mac([0, 0, 0x5e, 0, 0x53, 2]);
const VTEP: Mac = Mac([0, 0, 0x5e, 0, 0x53, 0xf1]);
const VM4: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 10);
const PEER4: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 11);
const VM6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x100, 0, 0, 0, 0, 0x10);
const PEER6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x100, 0, 0, 0, 0, 0x11);

fn frame_vectors() -> Vec<&'static Vector> {
    vectors().iter().filter(|v| v.file == "arp_nd_frames").collect()
}

fn bytes_of(id: &str) -> Vec<u8> {
    frame_vectors().iter().find(|v| v.id == id).unwrap().bytes.clone()
}

/// Every field of a frame, by the names of the vectors.
fn render(f: &Frame, bytes: &[u8]) -> Value {
    let mut out = match f.body {
        Body::Arp(a) => json!({
            "type": "arp", "op": if a.reply { 2 } else { 1 },
            "sender_mac": a.sender_mac, "sender_ip": a.sender_ip,
            "target_mac": a.target_mac, "target_ip": a.target_ip,
            "gratuitous": a.is_gratuitous(), "probe": a.is_probe(),
        }),
        Body::Rarp(r) => json!({
            "type": "rarp", "op": 3, "sender_mac": r.sender_mac, "target_mac": r.target_mac,
            // A value of this type has no addresses: none is learned from it.
            "sender_ip": "0.0.0.0", "target_ip": "0.0.0.0", "length": bytes.len(),
        }),
        Body::NeighborSolicitation(n) => json!({
            "type": "ns", "src": n.src, "dst": n.dst, "target": n.target, "slla": n.slla,
            "dad": n.is_dad(), "nud": n.is_unicast(),
        }),
        Body::NeighborAdvertisement(n) => json!({
            "type": "na", "src": n.src, "dst": n.dst, "target": n.target, "tlla": n.tlla,
            "router": n.router, "solicited": n.solicited, "override": n.r#override,
            // Checked by the parser.
            "hop_limit": 255,
        }),
        ref other => json!({ "type": format!("{other:?}") }),
    };
    out["eth_src"] = json!(f.src);
    out["eth_dst"] = json!(f.dst);
    out["vlan"] = json!(f.vlan);
    out
}

#[test]
fn every_frame_vector_parses_to_its_meaning() {
    let all = frame_vectors();
    assert_eq!(all.len(), 15);
    for v in all {
        let f = frame::parse(&v.bytes).unwrap_or_else(|e| panic!("{}: {e}", v.id));
        let got = render(&f, &v.bytes);
        for (key, want) in v.json["decoded"].as_object().unwrap() {
            assert_eq!(&got[key], want, "{} {key} in {got}", v.id);
        }
        // What the vector does not mention is absent or false.
        for key in ["gratuitous", "probe", "dad", "nud", "vlan"] {
            if v.json["decoded"].get(key).is_none() {
                assert!(matches!(got[key], Value::Null | Value::Bool(false)), "{} {key} in {got}", v.id);
            }
        }
    }
}

#[test]
fn the_builders_send_the_octets_of_the_vectors() {
    let none4 = Ipv4Addr::UNSPECIFIED;
    let built = [
        ("ARP-01", frame::gratuitous_arp(VM, VM4)),
        ("ARP-02", frame::gratuitous_arp_reply(VM, VM4)),
        ("ARP-03", frame::arp_request(VM, none4, VM4)),
        ("ARP-04", frame::arp_request(PEER, PEER4, VM4)),
        ("ARP-05", frame::arp_reply(VM, VM4, PEER, PEER4)),
        ("ARP-06", frame::arp_probe(VTEP, VM, none4, VM4)),
        ("RARP-01", frame::rarp_announce(VM)),
        ("ND-01", frame::neighbor_advertisement(VM, VM6, None, false, true)),
        ("ND-02", frame::neighbor_solicitation(VM, Ipv6Addr::UNSPECIFIED, None, VM6)),
        ("ND-03", frame::neighbor_solicitation(PEER, PEER6, None, VM6)),
        ("ND-04", frame::neighbor_advertisement(VM, VM6, Some((PEER, PEER6)), false, true)),
        ("ND-05", frame::neighbor_advertisement(VM, VM6, None, false, true)),
        ("ND-06", frame::neighbor_solicitation(PEER, PEER6, Some(VM), VM6)),
        ("ND-07", frame::neighbor_advertisement(VM, VM6, None, false, false)),
    ];
    for (id, frame) in built {
        assert_eq!(to_hex(&frame), to_hex(&bytes_of(id)), "{id}");
    }
}

#[test]
fn a_frame_cut_anywhere_in_its_fields_is_refused_without_a_panic() {
    for v in frame_vectors() {
        for n in 0..v.bytes.len() {
            let got = frame::parse(&v.bytes[..n]);
            // Only padding may be missing: ARP has 42 octets, 46 with a tag; neighbour discovery none.
            let needed = match v.id.as_str() {
                "RARP-02" => 46,
                id if id.starts_with("ND") => v.bytes.len(),
                _ => 42,
            };
            assert_eq!(got.is_ok(), n >= needed, "{} cut to {n}: {got:?}", v.id);
        }
    }
}

/// `id` with octets replaced at `at`, and the ICMPv6 checksum made right again.
fn changed(id: &str, at: usize, with: &[u8]) -> Vec<u8> {
    let mut b = bytes_of(id);
    b[at..at + with.len()].copy_from_slice(with);
    if id.starts_with("ND") {
        fix_checksum(&mut b, 54);
    }
    b
}

/// Plain recomputation over pseudo-header and message, written apart from the one under test.
fn fix_checksum(b: &mut [u8], icmp: usize) {
    b[icmp + 2..icmp + 4].fill(0);
    let len = (b.len() - icmp) as u32;
    let mut all = b[22..54].to_vec();
    all.extend_from_slice(&len.to_be_bytes());
    all.extend_from_slice(&[0, 0, 0, 58]);
    all.extend_from_slice(&b[icmp..]);
    let mut sum: u64 =
        all.chunks(2).map(|w| u64::from(w[0]) * 256 + u64::from(*w.get(1).unwrap_or(&0))).sum();
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    b[icmp + 2..icmp + 4].copy_from_slice(&(!(sum as u16)).to_be_bytes());
}

#[test]
fn arp_that_breaks_rfc_826_is_refused_with_its_reason() {
    use FrameError::*;
    for (what, at, with, want) in [
        ("hardware type 6", 14, &[0, 6][..], ArpFormat),
        ("protocol IPv6", 16, &[0x86, 0xdd], ArpFormat),
        ("hardware length 8", 18, &[8], ArpFormat),
        ("protocol length 16", 19, &[16], ArpFormat),
        ("operation 8", 20, &[0, 8], ArpFormat),
        ("RARP's operation", 20, &[0, 3], ArpFormat),
        ("sender MAC is a group", 22, &[1], ArpSender),
        ("sender MAC is zero", 22, &[0; 6], ArpSender),
        ("sender IP is a group", 28, &[224, 0, 0, 1], ArpSender),
        ("sender IP is the broadcast address", 28, &[255; 4], ArpSender),
        ("Ethernet source is a group", 6, &[1], SourceMac),
        ("Ethernet source is zero", 6, &[0; 6], SourceMac),
    ] {
        assert_eq!(frame::parse(&changed("ARP-01", at, with)), Err(want), "{what}");
    }
    assert_eq!(frame::parse(&changed("RARP-01", 20, &[0, 1])), Err(ArpFormat));
    let reply = frame::parse(&changed("RARP-01", 20, &[0, 4])).unwrap();
    assert_eq!(reply.body, Body::Other(0x8035), "a RARP reply announces nobody");
}

/// HOST-ND-02 and the validation lists of RFC 4861 §7.1.
#[test]
fn neighbour_discovery_that_breaks_rfc_4861_is_refused_with_its_reason() {
    use FrameError::*;
    const HOP: usize = 14 + 7;
    const SRC: usize = 14 + 8;
    const DST: usize = 14 + 24;
    const ICMP: usize = 14 + 40;
    const TARGET: usize = ICMP + 8;
    const OPTION: usize = ICMP + 24;
    for (what, id, at, with, want) in [
        ("hop limit 254", "ND-01", HOP, &[254][..], HopLimit),
        ("code 1", "ND-01", ICMP + 1, &[1], Code),
        ("target is a group", "ND-01", TARGET, &[0xff], Target),
        ("option of length 0", "ND-01", OPTION + 1, &[0], Option),
        ("option beyond the message", "ND-01", OPTION + 1, &[2], Option),
        ("link-layer address is a group", "ND-01", OPTION + 2, &[0x33], Option),
        ("solicited but to all nodes", "ND-01", ICMP + 4, &[0x60], Addresses),
        ("source is a group", "ND-01", SRC, &[0xff], Addresses),
        ("version 4", "ND-01", 14, &[0x45], Ipv6Header),
        ("payload length beyond the frame", "ND-01", 14 + 4, &[0, 0x21], Ipv6Header),
        ("DAD with a link-layer address", "ND-03", SRC, &[0; 16], Addresses),
        ("DAD to one host", "ND-02", DST, &VM6.octets(), Addresses),
        ("target of an NS is a group", "ND-03", TARGET, &[0xff], Target),
    ] {
        assert_eq!(frame::parse(&changed(id, at, with)), Err(want), "{what}");
    }
    let mut wrong = bytes_of("ND-01");
    wrong[ICMP + 2] ^= 1;
    assert_eq!(frame::parse(&wrong), Err(Checksum));
    let mut wrong = bytes_of("ND-01");
    wrong[OPTION + 7] ^= 1;
    assert_eq!(frame::parse(&wrong), Err(Checksum), "the options are covered too");
}

/// Puts extension headers in front of the ICMPv6 message of ND-01.
fn with_extensions(first: u8, headers: &[u8]) -> Vec<u8> {
    let mut b = bytes_of("ND-01");
    b[14 + 6] = first;
    let len = 32 + headers.len() as u16;
    b[14 + 4..14 + 6].copy_from_slice(&len.to_be_bytes());
    b.splice(54..54, headers.iter().copied());
    b
}

#[test]
fn extension_headers_are_walked_but_bounded() {
    let hop_by_hop = |next: u8| [next, 0, 1, 4, 0, 0, 0, 0];
    let ok = frame::parse(&with_extensions(0, &hop_by_hop(58))).unwrap();
    assert!(matches!(ok.body, Body::NeighborAdvertisement(_)));
    let ok = frame::parse(&with_extensions(51, &[58, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])).unwrap();
    assert!(matches!(ok.body, Body::NeighborAdvertisement(_)), "authentication header");

    let mut eight: Vec<u8> = Vec::new();
    for n in 0..8 {
        eight.extend(hop_by_hop(if n == 7 { 58 } else { 60 }));
    }
    assert!(frame::parse(&with_extensions(60, &eight)).is_ok());
    eight.splice(0..0, hop_by_hop(60));
    assert_eq!(frame::parse(&with_extensions(60, &eight)), Err(FrameError::ExtensionHeaders), "nine");

    let routing = [58, 0, 0, 1, 0, 0, 0, 0];
    assert_eq!(frame::parse(&with_extensions(43, &routing)), Err(FrameError::ExtensionHeaders));
    let fragment = [58, 0, 0, 1, 0, 0, 0, 1];
    assert_eq!(frame::parse(&with_extensions(44, &fragment)), Err(FrameError::Fragment));
    let fragment_of_udp = [17, 0, 0, 1, 0, 0, 0, 1];
    assert_eq!(frame::parse(&with_extensions(44, &fragment_of_udp)).unwrap().body, Body::Other(0x86dd));
    let beyond = [58, 200, 0, 0, 0, 0, 0, 0];
    assert_eq!(frame::parse(&with_extensions(0, &beyond)), Err(FrameError::ExtensionHeaders));
}

/// An IPv6 packet from `src` to ff02::1 or ff02::2 with this ICMPv6 message.
fn icmp(src: Ipv6Addr, last: u16, m: &[u8]) -> Vec<u8> {
    let mut b = vec![0x33, 0x33, 0, 0, 0, last as u8];
    b.extend(VM.0);
    b.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
    b.extend((m.len() as u16).to_be_bytes());
    b.extend([58, 255]);
    b.extend(src.octets());
    b.extend(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, last).octets());
    b.extend(m);
    fix_checksum(&mut b, 54);
    b
}

#[test]
fn router_solicitations_and_advertisements_are_read() {
    let link_local = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
    let slla = [1, 1, 0, 0, 0x5e, 0, 0x53, 1];
    let rs = [&[133, 0, 0, 0, 0, 0, 0, 0][..], &slla].concat();
    match frame::parse(&icmp(link_local, 2, &rs)).unwrap().body {
        Body::RouterSolicitation(r) => assert_eq!((r.src, r.slla), (link_local, Some(VM))),
        other => panic!("{other:?}"),
    }
    assert_eq!(frame::parse(&icmp(Ipv6Addr::UNSPECIFIED, 2, &rs)), Err(FrameError::Addresses));
    let ra = [&[134, 0, 0, 0, 64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0][..], &slla].concat();
    match frame::parse(&icmp(link_local, 1, &ra)).unwrap().body {
        Body::RouterAdvertisement(r) => {
            assert_eq!((r.src, r.lifetime, r.slla), (link_local, 0x0708, Some(VM)));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(frame::parse(&icmp(VM6, 1, &ra)), Err(FrameError::Addresses), "not link-local");
    assert_eq!(frame::parse(&icmp(link_local, 1, &ra[..12])), Err(FrameError::Truncated));
    let echo = frame::parse(&icmp(link_local, 1, &[128, 0, 0, 0, 0, 1, 0, 1])).unwrap();
    assert_eq!(echo.body, Body::Other(0x86dd));
}

#[test]
fn an_ns_with_unknown_options_says_so() {
    let mut b = bytes_of("ND-03");
    b.extend([14, 1, 1, 2, 3, 4, 5, 6]);
    b[14 + 5] = 40;
    fix_checksum(&mut b, 54);
    let other = |b: &[u8]| match frame::parse(b).unwrap().body {
        Body::NeighborSolicitation(n) => n.other_options,
        other => panic!("{other:?}"),
    };
    assert!(!other(&b), "the nonce of RFC 7527 is known");
    b[86] = 200;
    fix_checksum(&mut b, 54);
    assert!(other(&b));
}

#[test]
fn tags_are_read_once() {
    assert_eq!(frame::parse(&bytes_of("RARP-02")).unwrap().vlan, Some(10));
    let mut double = bytes_of("RARP-02");
    double.splice(12..12, [0x81, 0, 0, 5]);
    let f = frame::parse(&double).unwrap();
    assert_eq!((f.vlan, f.body), (Some(5), Body::Other(0x8100)));
}

#[test]
fn every_error_has_its_own_counter_name() {
    let mut names: Vec<_> = FrameError::ALL.iter().map(|e| e.name()).collect();
    for e in FrameError::ALL {
        assert_eq!(serde_json::to_value(e).unwrap(), e.name());
    }
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), FrameError::ALL.len());
}

/// DHCPv6 from here to there; the identity association holds one address.
fn dhcp6(kind: u8, to_port: u16, valid: u32) -> Vec<u8> {
    let mut m = vec![kind, 1, 2, 3, 0, 1, 0, 2, 9, 9, 0, 3, 0, 40];
    m.extend([0; 12]);
    m.extend([0, 5, 0, 24]);
    m.extend(VM6.octets());
    m.extend(100u32.to_be_bytes());
    m.extend(valid.to_be_bytes());
    let mut f = [VM.0, PEER.0].concat();
    f.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
    let len = (m.len() + 8) as u16;
    f.extend(len.to_be_bytes());
    f.extend([17, 64]);
    f.extend(PEER6.octets());
    f.extend(VM6.octets());
    for w in [1000, to_port, len, 0] {
        f.extend(w.to_be_bytes());
    }
    f.extend(m);
    f
}

/// DHCPv4 to a client: message type and address, with these options behind them.
fn dhcp4(kind: u8, more: &[u8]) -> Vec<u8> {
    let mut m = vec![2, 1, 6];
    m.resize(236, 0);
    m[16..20].copy_from_slice(&VM4.octets());
    m[28..34].copy_from_slice(&VM.0);
    m.extend([0x63, 0x82, 0x53, 0x63, 53, 1, kind]);
    m.extend(more);
    let mut ip = vec![0x45, 0];
    ip.extend((m.len() as u16 + 28).to_be_bytes());
    ip.extend([0, 0, 0x40, 0, 64, 17, 0, 0, 10, 0, 0, 1, 255, 255, 255, 255]);
    let sum: u32 = ip.chunks(2).map(|w| u32::from(w[0]) << 8 | u32::from(w[1])).sum();
    let sum = !((sum & 0xffff) as u16 + (sum >> 16) as u16);
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    let mut f = [Mac::BROADCAST.0, PEER.0].concat();
    f.extend([8, 0]);
    f.extend(ip);
    for w in [67, 68, m.len() as u16 + 8, 0] {
        f.extend(w.to_be_bytes());
    }
    f.extend(m);
    f
}

#[test]
fn leases_name_their_client_and_its_address() {
    let body = |f: &[u8]| frame::parse(f).map(|f| f.body);
    let given = |ip: std::net::IpAddr, of_client| {
        Ok(Body::Dhcp(frame::Dhcp { client: VM, address: Some(ip), of_client }))
    };
    assert_eq!(body(&dhcp4(5, &[255])), given(VM4.into(), false));
    assert_eq!(body(&dhcp4(5, &[0, 0, 12, 1, 1])), given(VM4.into(), false), "options need no end");
    assert_eq!(body(&dhcp6(7, 546, 1)), given(VM6.into(), false));
    let asked = frame::Dhcp { client: PEER, address: Some(VM6.into()), of_client: true };
    assert_eq!(body(&dhcp6(3, 547, 0)), Ok(Body::Dhcp(asked)));
    // An offer, a refusal, a lease that ends, an advertisement name nobody.
    for f in [dhcp4(2, &[]), dhcp4(6, &[])] {
        assert_eq!(body(&f), Ok(Body::Other(0x0800)));
    }
    assert_eq!(
        body(&dhcp6(7, 546, 0)),
        Ok(Body::Dhcp(frame::Dhcp { client: VM, address: None, of_client: false }))
    );
    assert_eq!(body(&dhcp6(2, 546, 1)), Ok(Body::Other(0x86dd)));
}

#[test]
fn malformed_leases_are_refused_with_their_reason() {
    let reason = |f: &[u8]| frame::parse(f).unwrap_err();
    assert_eq!(reason(&dhcp4(5, &[50, 9, 1])), FrameError::Dhcp);
    assert_eq!(reason(&dhcp4(5, &[50])), FrameError::Dhcp);
    let with = |at: usize, v: u8| {
        let mut f = dhcp4(5, &[255]);
        f[at] = v;
        f
    };
    assert_eq!(reason(&with(14, 0x44)), FrameError::Ipv4Header, "header of 16 octets");
    assert_eq!(reason(&with(14, 0x65)), FrameError::Ipv4Header, "version 6");
    assert_eq!(reason(&with(25, 1)), FrameError::Ipv4Header, "checksum");
    assert_eq!(reason(&with(39, 7)), FrameError::Dhcp, "UDP length");
    assert_eq!(reason(&with(44, 16)), FrameError::Dhcp, "hardware address of 16 octets");
    assert_eq!(reason(&with(70, 1)), FrameError::Dhcp, "a group is no client");
    let mut v6 = dhcp6(7, 546, 1);
    let at = v6.len() - 25;
    v6[at] = 99;
    assert_eq!(reason(&v6), FrameError::Dhcp, "an address option longer than its association");
    for whole in [dhcp4(5, &[12, 3, 1, 2, 3, 255]), dhcp6(7, 546, 1), dhcp6(6, 547, 1)] {
        for n in 0..whole.len() {
            let _ = frame::parse(&whole[..n]);
        }
    }
}
