//! The golden vectors: every well-formed one decodes to its meaning and re-encodes to its octets, every defective
//! one gives its required reaction.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use evpn::types::Asn;
use evpn::wire::{
    AddPathMode, AsPath, Decoded, EvpnRoute, Family, Message, MessageError, MpReach, Nlri, Open, Origin,
    RefreshKind, Treatment, Update, decode, frame_len,
};
use serde_json::{Value, json};
use std::net::Ipv4Addr;
use support::{Vector, render, to_hex, vectors};

/// Vectors that cannot re-encode to their octets, because they show forms that one accepts but does not send.
const NOT_CANONICAL: &[(&str, &str)] = &[
    ("OPEN-04", "one parameter per capability; all of ours share one (BGP-CAP-01)"),
    ("OPEN-17", "a reserved octet that is not 0 (BGP-MP-02)"),
    ("OPEN-X2", "two parameters; all of ours share one (BGP-CAP-01)"),
    ("OPEN-X3", "an arbitrary classic length before the extended one (BGP-CAP-09)"),
    ("EVPN-T2-24", "the Extended Length flag on short attributes (BGP-UPD-03)"),
    ("EVPN-T2-25", "MP_REACH_NLRI last (BGP-UPD-04)"),
    ("EOR-04", "the Extended Length flag on a short attribute (BGP-UPD-03)"),
];

/// BGP-MP-03: MP attributes among them, with their reserved octets.
#[test]
fn every_well_formed_bgp_vector_re_encodes_to_its_octets() {
    for v in vectors().iter().filter(|v| v.is_bgp() && !v.is_defective()) {
        let mut rest = &v.bytes[..];
        let ctx = v.decode_ctx();
        while !rest.is_empty() {
            let n = frame_len(rest, ctx.max_len).unwrap().unwrap();
            let d = decode(&rest[..n], &ctx).unwrap_or_else(|e| panic!("{}: {e:?}", v.id));
            let faults: Vec<_> = d.faults.iter().map(|f| f.treatment).collect();
            // A well-formed route of a type that we do not know is counted, not an error (EVPN-ERR-01).
            let expected: &[_] = if v.id == "EVPN-T10-01" { &[Treatment::SkipNlri] } else { &[] };
            assert_eq!(faults, expected, "{}", v.id);
            let again = d.message.encode(&v.encode_ctx());
            if NOT_CANONICAL.iter().any(|(id, _)| *id == v.id) {
                assert_ne!(to_hex(&again), to_hex(&rest[..n]), "{} is canonical after all", v.id);
                assert_eq!(decode(&again, &ctx).unwrap().message, d.message, "{}", v.id);
            } else {
                assert_eq!(to_hex(&again), to_hex(&rest[..n]), "{}", v.id);
            }
            rest = &rest[n..];
        }
    }
}

#[test]
fn every_well_formed_bgp_vector_decodes_to_its_meaning() {
    for v in vectors().iter().filter(|v| v.is_bgp() && !v.is_defective()) {
        let mut got: Vec<Value> = v.messages().iter().map(|d| render::message(&d.message)).collect();
        let got = if got.len() == 1 { got.remove(0) } else { got.into() };
        assert_eq!(got, expected(v), "{}", v.id);
    }
}

/// What a vector says, less what is a property of its octets and not of the value: that is covered by the
/// re-encoding test.
fn expected(v: &Vector) -> Value {
    let mut want = v.json["decoded"].clone();
    match v.id.as_str() {
        // In how many parameters the capabilities came.
        "OPEN-04" => {
            want.as_object_mut().unwrap().remove("parameters");
        }
        // Both paths as sent; the value holds what they mean together.
        "AS4-01" => {
            let want = want.as_object_mut().unwrap();
            want.remove("as4_path");
            let effective = want.remove("effective_as_path").unwrap();
            want.insert("as_path".into(), effective);
        }
        // A type that we do not interpret: all octets are kept.
        "EVPN-T10-01" => {
            let body = "0001c000020b0005000000000020ef01010120c000020b";
            want["mp_reach"]["nlri"] = json!([{ "route_type": 10, "body": body }]);
        }
        _ => {}
    }
    want
}

/// Where each defective message is at fault: the octet at which the offending field begins, worked out by hand
/// from the layout, and the octets that stand there.
///
/// Most are the same UPDATE: header 0–18, lengths 19–22, MP_REACH_NLRI from 23 (value 26, next-hop length 29, NLRI
/// 35: length 36, RD 37, ESI 45, tag 55, MAC length 59, MAC 60, address length 66), other attributes from 74.
const FAULTS: &[(&str, usize, &str)] = &[
    ("EVPN-E01", 35, "c803010203"),
    ("EVPN-E02", 35, "0240010100"),
    ("EVPN-E03", 36, "500001c000020b0005"),
    ("EVPN-E04", 36, "200001c000020b0005"),
    ("EVPN-E05", 36, "220001c000020b0005"),
    ("EVPN-E06", 59, "2800005e005301"),
    ("EVPN-E07", 66, "21c633640a"),
    ("EVPN-E08", 66, "80c633640a"),
    ("EVPN-E09", 45, "06000000000000000001"),
    ("EVPN-E10", 36, "180001c000020b0005"),
    ("EVPN-E11", 49, "18c000020b"),
    ("EVPN-E12", 36, "120001c000020b0005"),
    ("EVPN-E13", 45, "0000000000000000000020c000020b"),
    ("EVPN-E14", 36, "210001c000020b0002"),
    ("EVPN-E15", 59, "21cb007100"),
    ("EVPN-E16", 64, "c6336432000000"),
    ("EVPN-E17", 68, "00000040010100"),
    ("EVPN-E18", 35, "05220001c000020b0002"),
    ("EVPN-E23", 60, "01005e005301"),
    ("HDR-E01", 15, "fe001304"),
    ("HDR-E02", 16, "001204"),
    ("HDR-E03", 16, "100102"),
    ("HDR-E04", 16, "00140400"),
    ("HDR-E05", 16, "001c01"),
    ("HDR-E06", 16, "001602"),
    ("HDR-E07", 16, "00140306"),
    ("HDR-E08", 18, "00"),
    ("HDR-E09", 18, "06"),
    ("HDR-E10", 16, "100101"),
    ("OPEN-E01", 19, "03fde9"),
    ("OPEN-E02", 20, "0000005a"),
    ("OPEN-E03", 22, "0001c000020b"),
    ("OPEN-E04", 22, "0002c000020b"),
    ("OPEN-E05", 24, "0000000000"),
    ("OPEN-E06", 24, "c000020b"),
    ("OPEN-E07", 29, "010100"),
    ("OPEN-E08", 28, "140206"),
    ("OPEN-E09", 31, "010800190046"),
    ("OPEN-E10", 29, "021001040019"),
    ("OPEN-E11", 28, "0e020c"),
    ("OPEN-E12", 39, "00000000"),
    ("OPEN-E13", 20, "fde9005a"),
    ("OPEN-E14", 37, "ff00"),
    ("RR-E02", 16, "001805"),
    ("UPD-E01", 19, "00c80000"),
    ("UPD-E02", 21, "00c840010100"),
    ("UPD-E03", 100, "40050800000064"),
    ("UPD-E04", 107, "4005"),
    ("UPD-E05", 23, "4001020000"),
    ("UPD-E06", 107, "800e2c001946"),
    ("UPD-E07", 68, "800f26001946"),
    ("UPD-E08", 107, "40010102"),
    ("UPD-E09", 107, "c01008060000"),
    // An attribute that is not there is missed where the attributes begin.
    ("UPD-E10", 23, "800e30"),
    ("UPD-E11", 23, "800e30"),
    ("UPD-E12", 23, "800e30"),
    ("UPD-E13", 23, "400101"),
    ("UPD-E14", 74, "c0010100"),
    ("UPD-E15", 88, "801008"),
    ("UPD-E16", 23, "c00e30"),
    ("UPD-E17", 107, "40630101"),
    ("UPD-E20", 74, "4001020000"),
    ("UPD-E21", 77, "03400200"),
    ("UPD-E22", 81, "0200400504"),
    ("UPD-E23", 81, "05010000fdea"),
    ("UPD-E24", 81, "02030000fdea"),
    ("UPD-E25", 87, "02400504"),
    ("UPD-E27", 87, "00000000c01010"),
    ("UPD-E29", 36, "400305c000020b00"),
    ("UPD-E30", 88, "800403000001"),
    ("UPD-E31", 81, "400503000064"),
    ("UPD-E32", 87, "400504000001f4"),
    ("UPD-E33", 88, "40060100"),
    ("UPD-E34", 88, "c00707"),
    ("UPD-E35", 88, "c00706"),
    ("UPD-E36", 88, "c00805"),
    ("UPD-E37", 88, "c00800"),
    ("UPD-E38", 88, "800903"),
    ("UPD-E39", 87, "800904"),
    ("UPD-E40", 88, "800a06"),
    ("UPD-E41", 87, "800a04"),
    ("UPD-E42", 88, "c01007"),
    ("UPD-E43", 88, "c01000"),
    ("UPD-E44", 107, "c0200b"),
    ("UPD-E45", 107, "c01913"),
    ("UPD-E46", 107, "c01106"),
    ("UPD-E47", 87, "c01604"),
    ("UPD-E48", 95, "c00002"),
    ("UPD-E49", 35, "03110001c000020b"),
    // The first of the two; the stronger one stands at 92.
    ("UPD-E50", 88, "40060100"),
    ("UPD-E60", 29, "05c000020b00"),
    ("UPD-E61", 23, "800e04"),
    ("UPD-E62", 23, "800f02"),
    ("UPD-E63", 29, "10c000020b"),
    ("UPD-E64", 26, "000180"),
    ("UPD-E65", 43, "21cb00710000"),
    ("UPD-E66", 43, "18cb00"),
];

/// Defective vectors that the codec must accept without a fault, the layer whose job the reaction is, and what the
/// codec hands it for that.
const ELSEWHERE: &[(&str, &str)] = &[
    ("EVPN-E19", "wire: the second Router's MAC is dropped on reading"),
    ("EVPN-E20", "wire: Attrs::mobility is None on a gateway route"),
    ("EVPN-E21", "rib: Attrs::allows_vxlan"),
    ("EVPN-E22", "rib: the next hop is compared with our VTEP addresses"),
    ("EVPN-E24", "rib: ORIGINATOR_ID is compared with our identifier"),
    ("NOTIF-E01", "session: closes as for any NOTIFICATION"),
    ("NOTIF-E02", "session: closes as for any NOTIFICATION"),
    ("NOTIF-E03", "session: closes as for any NOTIFICATION"),
    ("OPEN-E15", "session: Open::llgr is empty"),
    ("OPEN-E16", "session: Open::add_path is None"),
    ("RR-E01", "session: RefreshKind::Unknown"),
    ("RR-E03", "session: the family is not among the agreed ones"),
    ("UPD-E18", "wire: the attribute is not among Attrs::others"),
    ("UPD-E26", "rib: AsPath::first, only when first-AS enforcement is on"),
    ("UPD-E28", "rib: AsPath::contains"),
];

/// Vectors of other protocols.
const OTHER_WIRE: &[(&str, &str)] = &[
    ("ARP-", "tests/frames.rs"),
    ("RARP-", "tests/frames.rs"),
    ("ND-", "tests/frames.rs"),
    ("VXLAN-", "the kernel's VXLAN driver encapsulates and checks; tests of the data plane see to it"),
    ("BFD-", "BFD is not built: the kernel-independent part belongs to a later piece of work"),
];

#[test]
fn every_defective_bgp_vector_gives_its_reaction_and_points_at_the_fault() {
    for v in vectors().iter().filter(|v| v.is_bgp() && v.is_defective()) {
        if ELSEWHERE.iter().any(|(id, _)| *id == v.id) {
            continue;
        }
        let expect = &v.json["expect"];
        let reaction = expect["reaction"].as_str().unwrap();
        let outcome = v.receive();
        let offset = match (&outcome, reaction) {
            (Err(e), "session-reset") => {
                let got = e.notification.as_ref().map(|n| (n.code, n.subcode));
                let n = &expect["notification"];
                let code = |k: &str| n[k].as_u64().map(|n| n as u8);
                assert_eq!(got, code("code").zip(code("subcode")), "{}", v.id);
                if let Some(data) = n["data"].as_str() {
                    assert_eq!(to_hex(&e.notification.as_ref().unwrap().data), data, "{}", v.id);
                }
                e.offset
            }
            (Ok(d), _) => {
                let want = match reaction {
                    "treat-as-withdraw" => Treatment::TreatAsWithdraw,
                    "attribute-discard" => Treatment::DiscardAttribute,
                    "ignore-nlri" => Treatment::SkipNlri,
                    other => panic!("{}: {other}", v.id),
                };
                assert_eq!(d.treatment, Some(want), "{} {:?}", v.id, d.faults);
                assert_eq!(d.faults.iter().map(|f| f.treatment).max(), Some(want), "{}", v.id);
                d.faults[0].offset
            }
            (Err(e), _) => panic!("{}: {reaction} wanted, got {e:?}", v.id),
        };
        let (_, at, octets) =
            FAULTS.iter().find(|(id, ..)| *id == v.id).unwrap_or_else(|| panic!("{}", v.id));
        assert_eq!(offset, *at, "{}", v.id);
        assert!(to_hex(&v.bytes[*at..]).starts_with(octets), "{}: table is wrong", v.id);
    }
}

/// The value that the vector's `route` or `note` promises after the weak faults.
#[test]
fn what_is_left_after_a_weak_fault_is_the_rest_of_the_route() {
    let update = |id: &str| {
        let v = vector(id);
        match v.receive().unwrap_or_else(|e| panic!("{id}: {e}")).message {
            Message::Update(u) => u,
            other => panic!("{id}: {other:?}"),
        }
    };
    assert_eq!(update("UPD-E08").attrs.origin, Some(Origin::Igp));
    assert_eq!(update("UPD-E09").attrs.mobility(), None);
    assert_eq!(update("UPD-E32").attrs.local_pref, None);
    assert!(!update("UPD-E33").attrs.atomic_aggregate);
    assert_eq!(update("UPD-E34").attrs.aggregator, None);
    assert_eq!(update("UPD-E35").attrs.aggregator, None);
    assert_eq!(update("UPD-E39").attrs.originator_id, None);
    assert_eq!(update("UPD-E41").attrs.cluster_list, [] as [Ipv4Addr; 0]);
    assert_eq!(update("UPD-E46").attrs.as_path, Some(AsPath::default()));
    assert_eq!(update("UPD-E18").attrs.others, []);
    // EVPN-E01: the unknown route is kept for reflection, the second one is used.
    let keys: Vec<_> = evpn_routes(&update("EVPN-E01")).iter().map(|r| r.key().to_string()).collect();
    assert_eq!(keys, ["[200]:[010203]", "[3]:[0]:[32]:[192.0.2.11]"]);
    // Treat-as-withdraw needs the routes.
    for v in vectors().iter().filter(|v| v.json["expect"]["reaction"] == "treat-as-withdraw") {
        let u = update(&v.id);
        assert!(!u.nlri.is_empty() || !evpn_routes(&u).is_empty(), "{}", v.id);
    }
}

#[test]
fn what_other_layers_react_to_passes_the_codec_with_the_facts_they_need() {
    for (id, _) in ELSEWHERE {
        let d = vector(id).receive().unwrap_or_else(|e| panic!("{id}: {e}"));
        assert_eq!((d.treatment, d.faults), (None, vec![]), "{id}");
    }
    let attrs = |id: &str| match vector(id).receive().unwrap().message {
        Message::Update(u) => u.attrs,
        other => panic!("{id}: {other:?}"),
    };
    // EVPN-IRB-05
    let macs: Vec<_> =
        attrs("EVPN-E19").ext_communities.iter().filter(|c| c.0[..2] == [6, 3]).map(|c| c.0).collect();
    assert_eq!(macs, [[6, 3, 0, 0, 0x5e, 0, 0x53, 0xf1]]);
    // EVPN-GW-05
    assert!(attrs("EVPN-E20").default_gateway());
    assert_eq!(attrs("EVPN-E20").mobility(), None);
    // EVPN-VXLAN-05
    assert!(!attrs("EVPN-E21").allows_vxlan());
    assert!(attrs("EVPN-E22").allows_vxlan());
    // BGP-RR-05
    assert_eq!(attrs("EVPN-E24").originator_id, Some(Ipv4Addr::new(192, 0, 2, 11)));
    // BGP-ERR-12, BGP-DEC-08
    assert_eq!(attrs("UPD-E26").as_path.unwrap().first(), Some(Asn(65009)));
    assert!(attrs("UPD-E28").as_path.unwrap().contains(Asn(65001)));

    let open = |id: &str| match vector(id).receive().unwrap().message {
        Message::Open(o) => o,
        other => panic!("{id}: {other:?}"),
    };
    // BGP-LLGR-02
    assert_eq!(open("OPEN-E15").llgr(), []);
    assert_eq!(open_of("OPEN-07").llgr().len(), 1);
    // BGP-ADDP-02
    assert_eq!(open("OPEN-E16").add_path(Family::EVPN), None);
    assert_eq!(open_of("OPEN-08").add_path(Family::IPV4), Some(AddPathMode::Receive));

    let refresh = |id: &str| match vector(id).receive().unwrap().message {
        Message::Refresh(r) => r,
        other => panic!("{id}: {other:?}"),
    };
    assert_eq!(refresh("RR-E01").kind, RefreshKind::Unknown(3));
    assert_eq!(refresh("RR-E03").family, Family::IPV6);

    let text = |id: &str| match vector(id).receive().unwrap().message {
        Message::Notification(n) => n.to_string(),
        other => panic!("{id}: {other:?}"),
    };
    // BGP-SHUT-05, BGP-SHUT-04, BGP-NOTIF-01
    assert_eq!(text("NOTIF-E01"), "cease/administrative shutdown (6/2): 0x0a6f6f7073");
    assert_eq!(text("NOTIF-E02"), "cease/administrative shutdown (6/2): 0x02c328");
    assert_eq!(text("NOTIF-E03"), "unknown (200/17): 0x00");
    assert_eq!(
        text("NOTIF-01"),
        "cease/administrative shutdown (6/2): \"maintenance: host evacuation CHG-1042\""
    );
    assert_eq!(text("NOTIF-06"), "cease/hard reset (6/9): cease/administrative reset (6/4)");
}

/// HDR-E10: OPEN keeps its limit of 4096 octets whatever was negotiated (BGP-EXTM-02), UPDATE does not.
#[test]
fn an_open_of_4097_octets_is_too_long_even_with_extended_messages() {
    let v = vector("HDR-E10");
    let e = frame_len(&v.bytes, 65535).unwrap_err();
    assert_eq!(to_hex(&e.notification.unwrap().data), "1001");
    assert_eq!(frame_len(&vector("HDR-E03").bytes, 65535), Ok(None), "an UPDATE of 4097 octets may follow");
}

/// Nothing in the vector files is left out silently.
#[test]
fn every_vector_is_accounted_for() {
    let all = vectors();
    assert_eq!(all.len(), 270);
    for v in all {
        let other = OTHER_WIRE.iter().any(|(prefix, _)| v.id.starts_with(prefix));
        let fault = FAULTS.iter().filter(|(id, ..)| *id == v.id).count();
        let elsewhere = ELSEWHERE.iter().filter(|(id, _)| *id == v.id).count();
        let homes = usize::from(other) + fault + elsewhere + usize::from(v.is_bgp() && !v.is_defective());
        assert_eq!(homes, 1, "{} in {}", v.id, v.file);
        assert_eq!(other, v.json["wire"] == "ethernet", "{}", v.id);
    }
    let known = |id: &str| all.iter().any(|v| v.id == id);
    for (id, ..) in FAULTS {
        assert!(known(id), "{id}");
    }
    for (id, _) in ELSEWHERE.iter().chain(NOT_CANONICAL) {
        assert!(known(id), "{id}");
    }
}

fn vector(id: &str) -> &'static Vector {
    vectors().iter().find(|v| v.id == id).unwrap_or_else(|| panic!("{id}"))
}

fn open_of(id: &str) -> Open {
    match vector(id).messages().remove(0).message {
        Message::Open(o) => o,
        other => panic!("{id}: {other:?}"),
    }
}

fn evpn_routes(u: &Update) -> Vec<EvpnRoute> {
    match &u.reach {
        Some(MpReach { nlri: Nlri::Evpn(list), .. }) => list.iter().map(|n| n.route.clone()).collect(),
        _ => vec![],
    }
}

trait Receive {
    fn receive(&self) -> Result<Decoded, MessageError>;
}

impl Receive for Vector {
    /// As a session would: framing, decoding, and for an OPEN the checks against the configuration that the
    /// vector's description assumes.
    fn receive(&self) -> Result<Decoded, MessageError> {
        let ctx = self.decode_ctx();
        let n = frame_len(&self.bytes, ctx.max_len)?;
        assert_eq!(n, Some(self.bytes.len()), "{}", self.id);
        let d = decode(&self.bytes, &ctx)?;
        if let Message::Open(o) = &d.message {
            let local = Asn(65001);
            let (peer, id) = match self.id.as_str() {
                "OPEN-E13" => (Asn(65002), Ipv4Addr::new(192, 0, 2, 12)),
                "OPEN-E06" => (local, Ipv4Addr::new(192, 0, 2, 11)),
                _ => (o.asn(), Ipv4Addr::new(192, 0, 2, 12)),
            };
            o.check(peer.into(), local, id)?;
            if self.id == "OPEN-E11" {
                o.require(&[Family::EVPN])?;
            }
        }
        Ok(d)
    }
}
