//! What an operator asks of a neighbour before there is a session: its AS, a hold time, a family.

use crate::kit::{Probe, US, config, digest, open_bytes, peer_open};
use evpn::session::{Config, Input, Output, State};
use evpn::types::{Asn, ConnId, RemoteAs};
use evpn::wire::{Capability, Family, Open};

fn from(asn: Asn) -> Open {
    Open {
        my_as: u16::try_from(asn.0).unwrap_or(Asn::TRANS),
        capabilities: vec![Capability::Multiprotocol(Family::EVPN), Capability::As4(asn)],
        ..peer_open()
    }
}

/// State and answer after this OPEN.
fn answer(c: Config, o: Open) -> (State, String) {
    let mut p = Probe::new(c);
    p.reach(State::OpenSent);
    let out = p.bytes(1, &open_bytes(o));
    (p.s.state(), digest(&out))
}

/// BGP-UNN-02, BGP-OPEN-03.
#[test]
fn internal_is_our_as_and_external_any_other() {
    let other = Asn(4_200_000_009);
    let of = |peer_as, asn| answer(Config { peer_as, ..config() }, from(asn)).1;
    for (peer_as, good, bad) in [(RemoteAs::Internal, US, other), (RemoteAs::External, other, US)] {
        assert!(of(peer_as, good).starts_with("KEEPALIVE"), "{peer_as:?}: {}", of(peer_as, good));
        assert_eq!(of(peer_as, bad), "2/2 on 1, hangup 1, failed", "{peer_as:?}");
    }
    // What the peer says decides what the session is.
    let mut p = Probe::new(Config { peer_as: RemoteAs::External, ..config() });
    p.reach(State::OpenSent);
    p.bytes(1, &open_bytes(from(other)));
    p.bytes(1, &crate::kit::keepalive());
    let agreed = p.s.established().expect("up").1;
    assert_eq!((agreed.peer_as, agreed.ibgp), (other, false));
}

/// BGP-OPEN-04: a configured minimum rejects more; 0 is no short time but none.
#[test]
fn a_hold_time_below_the_configured_minimum_is_refused() {
    let of = |hold_time| answer(Config { min_hold_time: 30, ..config() }, Open { hold_time, ..peer_open() });
    assert_eq!(of(29), (State::Idle, "2/6 on 1, hangup 1, failed".into()));
    for good in [0, 30, 90] {
        assert_eq!(of(good).0, State::OpenConfirm, "{good}");
    }
}

/// BGP-CAP-05, vector OPEN-E11: 2/7 with the capability that is missing, and no further attempt of ours or theirs until
/// somebody starts the session again.
#[test]
fn a_peer_without_a_required_family_is_told_and_not_tried_again() {
    let mut p = Probe::new(Config { required: vec![Family::EVPN], ..config() });
    p.reach(State::OpenSent);
    let lacking = Open {
        capabilities: vec![Capability::Multiprotocol(Family::IPV4), Capability::As4(US)],
        ..peer_open()
    };
    let out = p.bytes(1, &open_bytes(lacking));
    assert_eq!(digest(&out), "2/7 010400190046 on 1, hangup 1, failed");
    let said =
        out.iter().any(|o| matches!(o, Output::Down { why, .. } if why.contains("until it is started")));
    assert!(said, "{out:?}");
    assert_eq!((p.s.state(), p.s.poll_timeout()), (State::Idle, None), "nothing is due any more");
    let refused = digest(&p.feed(Input::Accepted(ConnId(7))));
    assert!(refused.starts_with("6/5 on 7"), "{refused}");
    p.feed(Input::Start);
    assert_eq!(p.s.state(), State::Connect);
    // With the family there is a session; without the wish for it, too.
    let with = answer(Config { required: vec![Family::EVPN], ..config() }, peer_open());
    assert_eq!(with.0, State::OpenConfirm);
}

/// BGP-CAP-07: the extended form by configuration, whatever the length; never without capabilities (BGP-CAP-10).
#[test]
fn extended_parameters_are_forced_by_configuration() {
    let mut p = Probe::new(Config { extended_open: true, ..config() });
    p.feed(Input::Start);
    let out = p.feed(Input::Connected(ConnId(1)));
    let [Output::Send(_, b)] = &out[..] else { panic!("{out:?}") };
    let parameters = b.len() - 32;
    assert_eq!(b[28..32], [255, 255, 0, parameters as u8]);
    assert_eq!(b[32..35], [2, 0, (parameters - 3) as u8]);
    // One that does not know it says 2/4, and gets an OPEN that everybody understands.
    p.bytes(1, &crate::kit::notification(2, 4, &[]));
    p.fire();
    let out = p.feed(Input::Connected(ConnId(2)));
    let [Output::Send(_, b)] = &out[..] else { panic!("{out:?}") };
    assert_eq!((b.len(), b[28]), (29, 0));
}
