//! Our OPEN octet by octet, and what follows from the peer's.

use crate::kit::{Probe, US, config, digest, hex, keepalive, open_bytes, peer_open};
use evpn::session::{Config, Input, Output, State};
use evpn::types::{Asn, ConnId, RouterId};
use evpn::wire::{Capability, Family, GrFamily, Open};

fn our_open(c: Config) -> String {
    let mut p = Probe::new(c);
    p.feed(Input::Start);
    match &p.feed(Input::Connected(ConnId(1)))[..] {
        [Output::Send(_, b)] => hex(b),
        other => panic!("{other:?}"),
    }
}

const MARKER: &str = "ffffffffffffffffffffffffffffffff";

#[test]
fn our_open_is_these_octets() {
    // BGP-MSG-06, BGP-CAP-01, BGP-MP-01, BGP-AS4-01: AS 65000, hold 90, 10.0.0.2; one parameter with
    // MP 25/70, route refresh, extended message, graceful restart with N, 120 s and 25/70 (BGP-GR-01), AS4.
    assert_eq!(
        our_open(config()),
        format!(
            "{MARKER}0037 01 04 fde8 005a 0a000002 1a 02 18 010400190046 0200 0600 4006407800194600 41040000fde8"
        )
        .replace(' ', "")
    );
    // AS_TRANS for a number that does not fit; two families in their order; no extended messages.
    let c = Config {
        local_as: Asn(4_200_000_001),
        families: vec![Family::EVPN, Family::IPV6],
        extended_message: false,
        hold_time: 9,
        ..config()
    };
    assert_eq!(
        our_open(c),
        format!("{MARKER}003f 01 04 5ba0 0009 0a000002 22 02 20 010400190046 010400020001 0200 400a4078 00194600 00020100 4104fa56ea01")
            .replace(' ', "")
    );
}

/// What an OPEN leads to, on an external session with AS 65001 unless `c` says otherwise.
fn answer(c: Config, o: Open) -> (State, String) {
    let mut p = Probe::new(c);
    p.reach(State::OpenSent);
    let out = p.bytes(1, &open_bytes(o));
    (p.s.state(), digest(&out))
}

#[test]
fn an_open_that_does_not_fit_is_refused_with_the_right_subcode() {
    let ebgp = Config { peer_as: Asn(65001).into(), ..config() };
    let from = |asn: u32| Open {
        my_as: u16::try_from(asn).unwrap_or(Asn::TRANS),
        capabilities: vec![Capability::Multiprotocol(Family::EVPN), Capability::As4(Asn(asn))],
        ..peer_open()
    };
    let refused = |code: &str| (State::Idle, format!("{code} on 1, hangup 1, failed"));
    // BGP-OPEN-03, BGP-AS4-03: the capability counts, not the two octets; AS 0 never.
    assert_eq!(answer(ebgp.clone(), from(65002)), refused("2/2"));
    assert_eq!(answer(ebgp.clone(), Open { my_as: 65001, ..from(65002) }), refused("2/2"));
    assert_eq!(answer(ebgp.clone(), Open { my_as: 65002, ..from(65001) }).0, State::OpenConfirm);
    // BGP-OPEN-04
    assert_eq!(answer(config(), Open { hold_time: 1, ..peer_open() }), refused("2/6"));
    assert_eq!(answer(config(), Open { hold_time: 2, ..peer_open() }), refused("2/6"));
    // BGP-OPEN-05, -06: our own identifier only on an internal session.
    assert_eq!(answer(config(), Open { id: RouterId::UNSPECIFIED, ..peer_open() }), refused("2/3"));
    assert_eq!(answer(config(), Open { id: config().router_id, ..peer_open() }), refused("2/3"));
    assert_eq!(answer(ebgp.clone(), Open { id: config().router_id, ..from(65001) }).0, State::OpenConfirm);
    assert_eq!(answer(ebgp, Open { id: RouterId::BROADCAST, ..from(65001) }).0, State::OpenConfirm);
}

#[test]
fn octets_of_an_open_that_are_wrong_get_their_subcode() {
    let base = open_bytes(peer_open()).to_vec();
    let with = |at: usize, value: u8| {
        let mut b = base.clone();
        b[at] = value;
        let mut p = Probe::new(config());
        p.reach(State::OpenSent);
        digest(&p.bytes(1, &b))
    };
    assert_eq!(with(19, 3), "2/1 0004 on 1, hangup 1, failed", "BGP-OPEN-01");
    assert_eq!(with(29, 1), "2/4 on 1, hangup 1, failed", "BGP-OPEN-07");
    assert!(with(30, 200).starts_with("2/0"), "BGP-OPEN-08: {}", with(30, 200));
    assert!(with(17, 28).starts_with("1/2"), "BGP-HDR-03: {}", with(17, 28));
}

fn agreed_with(c: Config, o: Open) -> Probe {
    let mut p = Probe::new(c);
    p.reach(State::OpenSent);
    p.bytes(1, &open_bytes(o));
    p.bytes(1, &keepalive());
    assert_eq!(p.s.state(), State::Established);
    p
}

#[test]
fn a_peer_with_every_capability_we_do_not_offer_is_met_on_what_we_do() {
    // BGP-CAP-03, -04, -06; BGP-GR-01: decoded, not in use.
    let o = Open {
        capabilities: vec![
            Capability::Multiprotocol(Family::IPV4),
            Capability::Multiprotocol(Family::EVPN),
            Capability::Multiprotocol(Family::EVPN),
            Capability::RouteRefresh,
            Capability::EnhancedRefresh,
            Capability::As4(US),
            Capability::GracefulRestart {
                restarting: false,
                notification: true,
                time: 120,
                families: vec![GrFamily { family: Family::EVPN, forwarding: true }],
            },
            Capability::Unknown { code: 73, value: bytes::Bytes::from_static(b"\x03pe1\x00") },
            Capability::Unknown { code: 128, value: bytes::Bytes::new() },
        ],
        ..peer_open()
    };
    let p = agreed_with(config(), o.clone());
    let a = p.s.established().expect("up").1;
    assert_eq!(a.families, [Family::EVPN]);
    assert!(a.refresh && a.enhanced_refresh && a.as4 && a.decode.enhanced_refresh);
    assert_eq!((a.max_send, a.decode.max_len), (4096, 65535));
    assert!(a.decode.add_path.is_empty());
    assert_eq!(p.s.peer_open(), Some(&o));
}

#[test]
fn a_peer_without_capabilities_is_met_on_ipv4_unicast() {
    let o = Open { capabilities: Vec::new(), ..peer_open() };
    let p = agreed_with(Config { families: vec![Family::EVPN, Family::IPV4], ..config() }, o.clone());
    let a = p.s.established().expect("up").1;
    assert_eq!((&a.families[..], a.as4, a.refresh), (&[Family::IPV4][..], false, false));
    assert!(!a.decode.as4);
    // And if we have nothing but EVPN it is told.
    let mut p = Probe::new(config());
    p.reach(State::OpenSent);
    assert_eq!(digest(&p.bytes(1, &open_bytes(o))), "note, KEEPALIVE on 1");
}
