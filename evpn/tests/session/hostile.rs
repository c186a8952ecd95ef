//! A peer that means harm, or is broken.

use crate::kit::{Probe, config, digest, end_of_rib, hex, keepalive, open_bytes, peer_open, refresh};
use evpn::session::{Config, Input, Output, State};
use evpn::types::{Asn, ConnId, RouterId, Span};
use evpn::wire::{Family, Message, Open, Refresh, RefreshKind};
use serde_json::Value;
use std::path::Path;

fn at(state: State, c: Config) -> Probe {
    let mut p = Probe::new(c);
    p.reach(state);
    p
}

/// Header with a length and a type, and so many octets of zero after it.
fn message(len: usize, kind: u8, body: usize) -> Vec<u8> {
    let mut b = vec![0xff; 16];
    b.extend_from_slice(&u16::try_from(len).expect("fits").to_be_bytes());
    b.push(kind);
    b.resize(19 + body, 0);
    b
}

#[test]
fn garbage_ends_the_connection_with_1_1_at_the_first_wrong_octet() {
    // BGP-HDR-01
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"\x16\x03\x01", b"\0", b"SSH-2.0-x"] {
        for state in [State::OpenSent, State::OpenConfirm, State::Established] {
            let mut p = at(state, config());
            assert!(
                digest(&p.bytes(1, garbage)).starts_with("1/1 on 1, hangup 1"),
                "{garbage:?} in {state:?}"
            );
            assert_eq!(p.s.state(), State::Idle);
        }
    }
}

#[test]
fn lengths_outside_the_limits_get_1_2_with_the_length() {
    // BGP-HDR-02, -03; BGP-EXTM-02
    let short = Config { extended_message: false, ..config() };
    let cases = [
        (State::OpenSent, config(), message(18, 4, 0), "1/2 0012"),
        (State::OpenSent, config(), message(4097, 1, 0), "1/2 1001"),
        (State::OpenSent, config(), message(4097, 2, 0), "1/2 1001"),
        (State::Established, config(), message(4097, 1, 0), "1/2 1001"),
        (State::Established, config(), message(20, 4, 0), "1/2 0014"),
        (State::Established, config(), message(22, 2, 0), "1/2 0016"),
        (State::Established, short, message(4097, 2, 0), "1/2 1001"),
        (State::Established, config(), message(22, 5, 3), "1/2 0016"),
        (State::Established, config(), message(19, 6, 0), "1/3 06"),
        (State::Established, config(), message(19, 0, 0), "1/3 00"),
    ];
    for (state, c, octets, want) in cases {
        let got = digest(&at(state, c).bytes(1, &octets));
        assert!(got.starts_with(&format!("{want} on 1, hangup 1")), "{}: {got}", hex(&octets[16..19]));
    }
}

#[test]
fn a_notification_that_is_too_short_closes_in_silence() {
    // BGP-NOTIF-02
    for len in [19, 20] {
        let mut p = at(State::Established, config());
        assert_eq!(digest(&p.bytes(1, &message(len, 3, len - 19))), "hangup 1, down");
    }
}

#[test]
fn a_message_of_65535_octets_arrives_whole_if_we_promised_it() {
    // One unknown optional attribute fills it: withdrawn length 0, attribute length, flags 0xd0 type 250.
    let mut b = message(65535, 2, 65535 - 19);
    let attrs = 65535 - 23u16;
    b[21..23].copy_from_slice(&attrs.to_be_bytes());
    b[23..27].copy_from_slice(&[0xd0, 250, 0, 0]);
    b[25..27].copy_from_slice(&(attrs - 4).to_be_bytes());
    for piece in [65535, 40000, 1448, 7] {
        let mut p = at(State::Established, config());
        let mut out = Vec::new();
        for c in b.chunks(piece) {
            out.extend(p.bytes(1, c));
            assert!(p.s.buffered() < 65535);
        }
        assert_eq!((digest(&out).as_str(), p.s.buffered()), ("update", 0), "pieces of {piece}");
    }
}

#[test]
fn an_endless_message_is_bounded_and_ends_with_the_hold_timer() {
    let mut p = at(State::Established, config());
    let b = message(65535, 2, 65534 - 19);
    let mut out = Vec::new();
    for c in b.chunks(500) {
        p.now = p.now + Span::secs(1);
        out.extend(p.bytes(1, c));
        out.extend(p.feed(Input::Timer));
        if p.s.state() == State::Idle {
            break;
        }
        assert!(p.s.buffered() <= 65534);
    }
    assert!(digest(&out).ends_with("4/0 on 1, hangup 1, down"), "{}", digest(&out));
    assert_eq!(p.s.buffered(), 0);
}

#[test]
fn octets_behind_a_fatal_one_are_not_looked_at() {
    let mut p = at(State::Established, config());
    let mut b = end_of_rib().to_vec();
    b.extend_from_slice(&open_bytes(peer_open()));
    b.extend_from_slice(&end_of_rib());
    b.extend_from_slice(&[0; 40]);
    assert_eq!(digest(&p.bytes(1, &b)), "update, 5/3 01 on 1, hangup 1, down");
    assert_eq!(digest(&p.bytes(1, &end_of_rib())), "", "octets that were under way");
}

#[test]
fn a_third_connection_is_hung_up_and_harms_nobody() {
    let mut p = at(State::Established, config());
    assert_eq!(digest(&p.feed(Input::Accepted(ConnId(90)))), "OPEN on 90");
    for n in 91..200 {
        assert_eq!(digest(&p.feed(Input::Accepted(ConnId(n)))), format!("6/5 on {n}, hangup {n}, note"));
    }
    // Rubbish on the second one costs only that one.
    assert_eq!(digest(&p.bytes(90, &[1; 64])), "1/1 on 90, hangup 90, note");
    assert_eq!(p.s.state(), State::Established);
    assert_eq!(digest(&p.bytes(1, &end_of_rib())), "update");
}

#[test]
fn a_dial_that_succeeds_beside_two_connections_is_hung_up() {
    let mut p = at(State::Connect, config());
    p.feed(Input::Accepted(ConnId(90)));
    p.feed(Input::Accepted(ConnId(91)));
    assert_eq!(digest(&p.feed(Input::Connected(ConnId(1)))), "hangup 1, note");
    p.bytes(91, &open_bytes(peer_open()));
    assert_eq!(digest(&p.bytes(91, &keepalive())), "up 91");
}

#[test]
fn the_newer_of_two_connections_from_the_peer_wins() {
    let mut p = at(State::Connect, config());
    p.feed(Input::Accepted(ConnId(90)));
    p.bytes(90, &open_bytes(peer_open()));
    p.feed(Input::Accepted(ConnId(91)));
    assert_eq!(digest(&p.bytes(91, &open_bytes(peer_open()))), "6/7 on 90, hangup 90, note, KEEPALIVE on 91");
}

#[test]
fn the_dial_under_way_is_dropped_once_the_peer_s_connection_is_up() {
    let mut p = at(State::Connect, config());
    p.feed(Input::Accepted(ConnId(90)));
    p.bytes(90, &open_bytes(peer_open()));
    assert_eq!(digest(&p.bytes(90, &keepalive())), "up 90, hangup 1");
}

#[test]
fn route_refresh_that_does_not_concern_us_is_noted() {
    // BGP-REFR-02, -05
    let mut p = at(State::Established, config());
    assert_eq!(digest(&p.bytes(1, &refresh(RefreshKind::Request))), "refresh");
    assert_eq!(digest(&p.bytes(1, &refresh(RefreshKind::Unknown(9)))), "note");
    assert_eq!(digest(&p.bytes(1, &refresh(RefreshKind::Begin))), "note");
    let other = Message::Refresh(Refresh { family: Family::IPV6, kind: RefreshKind::Request });
    assert_eq!(digest(&p.bytes(1, &crate::kit::encode(&other))), "note");
    assert_eq!(p.s.state(), State::Established);
}

#[test]
fn a_hard_reset_nested_to_the_limit_is_told_in_a_line() {
    // BGP-NOTIF-01: 6/9 inside 6/9 and so on, as long as a message may be.
    let mut b = message(65535, 3, 65535 - 19);
    for pair in b[19..].chunks_mut(2) {
        pair.copy_from_slice(&[6, 9][..pair.len()]);
    }
    let mut p = at(State::Established, config());
    assert_eq!(digest(&p.bytes(1, &b)), "hangup 1, down");
    let why = p.s.stats().last_down.clone().expect("it went down").1;
    assert!(why.len() < 300, "{} octets: {why:.300}", why.len());
}

#[test]
fn a_stop_carries_the_operator_s_words() {
    // BGP-SHUT-01, BGP-NOTIF-03
    let mut p = at(State::Established, config());
    let data = evpn::wire::Notification::shutdown(2, "maintenance").data;
    let out = p.feed(Input::Stop { subcode: 2, data });
    assert_eq!(digest(&out), format!("6/2 {} on 1, hangup 1, down", hex(b"\x0bmaintenance")));
}

fn vectors(file: &str) -> Vec<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors").join(file);
    let text = std::fs::read_to_string(&path).expect("vectors");
    serde_json::from_str(&text).expect("json")
}

fn octets(v: &Value) -> Vec<u8> {
    let s = v["hex"].as_str().expect("hex");
    (0..s.len() / 2).map(|i| u8::from_str_radix(&s[2 * i..2 * i + 2], 16).expect("hex")).collect()
}

/// Our side as the vector's context describes it.
fn context(v: &Value) -> Config {
    let asn = Asn(v["context"]["local_as"].as_u64().expect("AS") as u32);
    let extended_message = v["context"]["extended_message"] == true;
    // What two vectors say in words: our identifier, and the neighbour's AS number.
    let router_id = RouterId::new(192, 0, 2, if v["id"] == "OPEN-E06" { 11 } else { 1 });
    let peer_as = match v["id"].as_str() {
        Some("OPEN-E13") => Asn(65002),
        _ if v["context"]["peer"] == "ibgp" => asn,
        _ => Asn(64999),
    };
    Config { local_as: asn, peer_as: peer_as.into(), router_id, extended_message, ..config() }
}

#[test]
fn the_malformed_vectors_end_a_session_with_the_required_notification() {
    let mut checked = 0;
    for (file, state) in [
        ("open_malformed.json", State::OpenSent),
        ("header_malformed.json", State::Established),
        ("route_refresh_malformed.json", State::Established),
    ] {
        for v in vectors(file) {
            let expect = &v["expect"];
            if expect["reaction"] != "session-reset" || v["id"] == "OPEN-E11" {
                continue;
            }
            let c = context(&v);
            let mut p = Probe::new(c.clone());
            p.feed(Input::Start);
            p.feed(Input::Connected(ConnId(1)));
            if state == State::Established {
                let my_as = u16::try_from(c.peer_as.number(c.local_as).expect("given").0).expect("short");
                let mut o = Open { my_as, ..peer_open() };
                o.capabilities.retain(|c| !matches!(c, evpn::wire::Capability::As4(_)));
                o.capabilities.push(evpn::wire::Capability::EnhancedRefresh);
                p.bytes(1, &open_bytes(o));
                p.bytes(1, &keepalive());
            }
            assert_eq!(p.s.state(), state, "{}", v["id"]);
            // A header may announce more than the vector holds; the session must not wait for it.
            let out = p.bytes(1, &octets(&v));
            let n = &expect["notification"];
            let got = out.iter().find_map(|o| match o {
                Output::Send(_, b) if b[18] == 3 => Some((b[19], b[20], hex(&b[21..]))),
                _ => None,
            });
            let want = n.is_object().then(|| {
                let data = n["data"].as_str().unwrap_or_default();
                (
                    n["code"].as_u64().expect("code") as u8,
                    n["subcode"].as_u64().expect("sub") as u8,
                    data.to_owned(),
                )
            });
            assert_eq!(got, want, "{}: {} gave {}", v["id"], v["description"], digest(&out));
            assert_eq!(p.s.state(), State::Idle, "{}", v["id"]);
            checked += 1;
        }
    }
    assert!(checked >= 20, "only {checked} vectors");
}
