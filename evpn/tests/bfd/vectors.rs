//! The golden vectors BFD-*: whole Ethernet frames.

use crate::support::{Vector, vectors};
use evpn::bfd::{
    Arrival, Config, Hops, LENGTH, MULTIHOP_PORT, Output, Packet, Path, Reject, SINGLE_HOP_PORT, State, Table,
};
use evpn::types::{PeerId, Span, Time};
use std::net::{IpAddr, Ipv4Addr};

/// What the edge would say of a frame, and the UDP payload.
fn arrival(v: &Vector) -> (Arrival, &[u8]) {
    let ip = &v.bytes[14..];
    assert_eq!((ip[0], ip[9]), (0x45, 17), "{}: IPv4 without options, UDP", v.id);
    let port = u16::from_be_bytes([ip[22], ip[23]]);
    assert!([SINGLE_HOP_PORT, MULTIHOP_PORT].contains(&port), "{}", v.id);
    let from = IpAddr::V4(Ipv4Addr::new(ip[12], ip[13], ip[14], ip[15]));
    let source = u16::from_be_bytes([ip[20], ip[21]]);
    assert!((49152..=65535).contains(&source), "{} (BFD-05)", v.id);
    (Arrival { from, scope: 0, multihop: port == MULTIHOP_PORT, ttl: Some(ip[8]) }, &ip[28..])
}

fn ours(prefix: &str) -> Vec<&'static Vector> {
    let found: Vec<_> = vectors().iter().filter(|v| v.id.starts_with(prefix)).collect();
    assert_eq!(found.len(), 6, "{prefix}");
    found
}

/// A table with a session towards the vectors' sender.
fn table(hops: Hops) -> Table {
    let mut t = Table::new(5);
    let path = Path { peer: "192.0.2.11".parse().unwrap(), scope: 0, hops };
    let config = Config { desired_tx: Span::millis(300), required_rx: Span::millis(300), multiplier: 3 };
    let mut out = Vec::new();
    t.set(PeerId(0), path, config, Time(0), &mut out);
    t.due(Time(0), &mut out);
    t
}

#[test]
fn every_packet_decodes_to_its_meaning_and_encodes_to_its_octets() {
    // BFD-01
    for v in ours("BFD-V") {
        let (a, octets) = arrival(v);
        let p = Packet::decode(octets).unwrap_or_else(|e| panic!("{}: {e}", v.id));
        assert_eq!(p.encode().as_slice(), octets, "{}", v.id);
        let want = &v.json["decoded"];
        let is = |key: &str, got: serde_json::Value| {
            assert!(want[key].is_null() || want[key] == got, "{} {key}: {got}", v.id);
        };
        is("state", p.state.as_str().into());
        is("diag", p.diag.number().into());
        is("my_disc", p.my.into());
        is("your_disc", p.your.into());
        is("desired_tx_us", (p.desired_tx.0 / 1000).into());
        is("required_rx_us", (p.required_rx.0 / 1000).into());
        is("detect_mult", p.multiplier.into());
        is("poll", p.poll.into());
        is("final", p.finale.into());
        is("ttl", a.ttl.into());
        is("udp_dst", (if a.multihop { MULTIHOP_PORT } else { SINGLE_HOP_PORT }).into());
    }
}

#[test]
fn defective_packets_are_dropped_and_change_nothing() {
    // BFD-04, BFD-05
    let reasons = [
        ("BFD-E01", Reject::Ttl),
        ("BFD-E02", Reject::MyDiscriminator),
        ("BFD-E03", Reject::Multiplier),
        ("BFD-E04", Reject::YourDiscriminator),
        ("BFD-E05", Reject::Version),
        ("BFD-E06", Reject::Length),
    ];
    for (v, (id, why)) in ours("BFD-E").into_iter().zip(reasons) {
        assert_eq!((v.id.as_str(), &v.json["expect"]["reaction"]), (id, &"drop-packet".into()));
        let (a, octets) = arrival(v);
        let mut t = table(Hops::Single);
        let mut out = Vec::new();
        assert_eq!(t.receive(&a, octets, Time(1), &mut out), Err(why), "{id}");
        assert_eq!((out.len(), t.get(PeerId(0)).unwrap().1.state()), (0, State::Down), "{id}");
        assert_eq!(t.rejected().collect::<Vec<_>>(), [(why, 1)], "{id}");
    }
}

#[test]
fn the_first_packet_finds_its_session_by_its_sender_and_is_answered() {
    // BFD-V01 in Down: Init, with the sender's discriminator in the answer (BFD-02).
    let v = ours("BFD-V")[0];
    let (a, octets) = arrival(v);
    let mut t = table(Hops::Single);
    let mut out = Vec::new();
    t.receive(&a, octets, Time(1), &mut out).unwrap();
    let Output::Send(PeerId(0), answer) = out[0] else { panic!("{out:?}") };
    let p = Packet::decode(&answer).unwrap();
    assert_eq!((p.state, p.your), (State::Init, 0x11));
    // From somebody else, or on the other port, it is nobody's.
    let other = Arrival { from: "192.0.2.13".parse().unwrap(), ..a };
    assert_eq!(t.receive(&other, octets, Time(2), &mut out), Err(Reject::Stranger));
    let port = Arrival { multihop: true, ..a };
    assert_eq!(t.receive(&port, octets, Time(2), &mut out), Err(Reject::Stranger));
    // BFD-V02 carries a discriminator that is not ours.
    let (a, octets) = arrival(ours("BFD-V")[1]);
    assert_eq!(t.receive(&a, octets, Time(3), &mut out), Err(Reject::UnknownDiscriminator));
}

/// The vector with our discriminator in it.
fn for_us(octets: &[u8], t: &Table) -> [u8; LENGTH] {
    let mut p: [u8; LENGTH] = octets.try_into().unwrap();
    let mine = t.get(PeerId(0)).unwrap().1.discriminators().0;
    p[8..12].copy_from_slice(&mine.to_be_bytes());
    p
}

#[test]
fn several_hops_are_taken_with_the_configured_ttl_and_more() {
    // BFD-V06, BFD-08: TTL 254, Up; in Down that is no way up, but it counts.
    let (a, octets) = arrival(ours("BFD-V")[5]);
    for (least, want) in [(254, Ok(())), (1, Ok(())), (255, Err(Reject::Ttl))] {
        let mut t = table(Hops::Multi { min_ttl: least });
        let p = for_us(octets, &t);
        assert_eq!(t.receive(&a, &p, Time(1), &mut Vec::new()), want, "minimum {least}");
        let heard = t.get(PeerId(0)).unwrap().1.stats().received;
        assert_eq!(heard, u64::from(want.is_ok()));
        // Without a TTL nothing is taken.
        let untold = Arrival { ttl: None, ..a };
        assert_eq!(t.receive(&untold, &p, Time(1), &mut Vec::new()), Err(Reject::Ttl));
    }
}

#[test]
fn a_poll_is_answered_and_admin_down_is_believed() {
    // BFD-V02 to BFD-V05 as a session of ours would get them.
    let all = ours("BFD-V");
    let mut t = table(Hops::Single);
    let mut feed = |n: usize, at: u64| {
        let (a, octets) = arrival(all[n]);
        let octets = if n == 0 { octets.try_into().unwrap() } else { for_us(octets, &t) };
        let mut out = Vec::new();
        t.receive(&a, &octets, Time(at), &mut out).unwrap();
        let sent: Vec<Packet> = out
            .iter()
            .filter_map(|o| match o {
                Output::Send(_, p) => Some(Packet::decode(p).unwrap()),
                Output::Changed(..) => None,
            })
            .collect();
        (t.get(PeerId(0)).unwrap().1.state(), sent)
    };
    assert_eq!(feed(0, 1).0, State::Init);
    // Init in Init: Up (BFD-02), and the interval that holds from now on is polled for (BFD-06).
    let (state, sent) = feed(1, 2);
    assert_eq!((state, sent[0].state, sent[0].poll), (State::Up, State::Up, true));
    assert_eq!(sent[0].desired_tx, Span::millis(300));
    // The answer to P is F, and never P as well.
    let (_, sent) = feed(2, 3);
    assert_eq!((sent.len(), sent[0].finale, sent[0].poll), (1, true, false));
    // F ends our poll: the next packet asks no more.
    feed(3, 4);
    let (_, sent) = feed(2, 5);
    assert_eq!((sent[0].finale, sent[0].poll), (true, false));
    let (state, sent) = feed(4, 6);
    assert_eq!((state, sent[0].state, sent[0].diag.number()), (State::Down, State::Down, 3));
}
