//! Recorded FRR and GoBGP peers: their octets drive a session, which must come up and hand out every UPDATE.

use crate::kit::{Probe, config};
use crate::pcap::{Stream, streams};
use evpn::session::{Config, Input, Output, State};
use evpn::types::ConnId;
use evpn::wire::{DecodeCtx, Family, Message, Treatment, decode};
use std::path::Path;

fn capture(name: &str) -> Vec<Stream> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/captures").join(name);
    streams(&std::fs::read(&path).expect("capture"))
}

fn open_of(octets: &[u8]) -> evpn::wire::Open {
    let len = usize::from(u16::from_be_bytes([octets[16], octets[17]]));
    let ctx = DecodeCtx {
        as4: true,
        ibgp: true,
        families: Vec::new(),
        add_path: Vec::new(),
        max_len: 4096,
        enhanced_refresh: false,
    };
    match decode(&octets[..len], &ctx).expect("OPEN").message {
        Message::Open(o) => o,
        other => panic!("{other:?}"),
    }
}

/// Types of the messages of a stream.
fn kinds(mut octets: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    while octets.len() >= 19 {
        out.push(octets[18]);
        let len = usize::from(u16::from_be_bytes([octets[16], octets[17]]));
        octets = octets.get(len..).unwrap_or_default();
    }
    out
}

/// Plays the peer's octets to a session in the place of `us`.
fn play(name: &str, us: &Stream, peer: &Stream, piece: Option<usize>) {
    let (ours, theirs) = (open_of(&us.octets()), open_of(&peer.octets()));
    let c = Config {
        local_as: ours.asn(),
        peer_as: theirs.asn().into(),
        router_id: ours.id,
        hold_time: ours.hold_time,
        families: vec![Family::EVPN],
        passive: peer.initiator,
        ..config()
    };
    let mut p = Probe::new(c);
    p.feed(Input::Start);
    let conn = if peer.initiator { Input::Accepted(ConnId(1)) } else { Input::Connected(ConnId(1)) };
    p.feed(conn);

    let whole = peer.octets();
    let segments: Vec<&[u8]> = match piece {
        None => peer.segments.iter().map(|s| &s[..]).collect(),
        Some(n) => whole.chunks(n).collect(),
    };
    let out: Vec<Output> = segments.into_iter().flat_map(|s| p.bytes(1, s)).collect();

    let kinds = kinds(&whole);
    let count = |kind: u8| kinds.iter().map(|k| usize::from(*k == kind)).sum::<usize>();
    let label = format!("{name}, peer {} {theirs:?}", peer.name);
    let up = out.iter().find_map(|o| match o {
        Output::Up(_, agreed) => Some(agreed),
        _ => None,
    });
    let agreed = up.unwrap_or_else(|| panic!("{label}: not established: {out:?}"));
    assert_eq!(agreed.families, [Family::EVPN], "{label}");
    assert_eq!(agreed.ibgp, ours.asn() == theirs.asn(), "{label}");
    assert_eq!(agreed.hold_time, ours.hold_time.min(theirs.hold_time), "{label}");

    let updates: Vec<_> = out
        .iter()
        .filter_map(|o| match o {
            Output::Update { update, treatment, faults, .. } => Some((update, treatment, faults)),
            _ => None,
        })
        .collect();
    assert_eq!(updates.len(), count(2), "{label}");
    assert!(!updates.is_empty(), "{label}");
    for (u, treatment, faults) in &updates {
        let weak = treatment.is_none_or(|t| t <= Treatment::SkipNlri);
        assert!(weak, "{label}: {faults:?} in {u:?}");
    }
    assert_eq!(p.s.stats().received.total() as usize, kinds.len(), "{label}");
    let refreshes = out.iter().filter(|o| matches!(o, Output::Refresh(_))).count();
    assert!(refreshes <= count(5), "{label}");
    let ended = count(3) > 0;
    assert_eq!(p.s.state(), if ended { State::Idle } else { State::Established }, "{label}");
    if ended {
        assert!(p.s.stats().last_received.is_some(), "{label}");
    }
    assert_eq!(p.s.buffered(), 0, "{label}");
}

#[test]
fn recorded_peers_come_up_and_every_update_is_delivered() {
    for name in ["frr-8.4.4.pcap", "frr-10.3.pcap", "gobgp-3.10.pcap", "gobgp-3.36.pcap"] {
        let all = capture(name);
        assert!(all.len() >= 2, "{name}: {} directions", all.len());
        for pair in all.chunks(2) {
            let [a, b] = pair else { panic!("{name}: a direction without its other") };
            for piece in [None, Some(1), Some(19), Some(1000), Some(65536)] {
                play(name, a, b, piece);
                play(name, b, a, piece);
            }
        }
    }
}
