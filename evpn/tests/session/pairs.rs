//! Two sessions against each other: opening, collisions, losses, restarts.

use crate::kit::{end_of_rib, notification};
use crate::pair::{Net, Pair, configs};
use bytes::Bytes;
use evpn::session::{Config, Input, Output, State};
use evpn::types::{Asn, ConnId, RouterId, Span};
use evpn::wire::{Family, Notification};

fn stop(subcode: u8) -> Input<'static> {
    Input::Stop { subcode, data: Bytes::new() }
}

#[test]
fn two_sessions_come_up_and_stay_up() {
    let mut p = Pair::new(configs(), Net::default());
    p.start();
    let took = p.converge(Span::secs(1));
    assert!(took <= Span::millis(60), "{took}");
    p.run(Span::secs(3600));
    assert!(p.agreed());
    assert_eq!(p.sides.each_ref().map(|s| s.s.stats().established), [1, 1]);
    // An hour with hold time 9: a KEEPALIVE each 2.25 to 3 s.
    let sent = p.sides[0].s.stats().sent.keepalive;
    assert!((1200..=1601).contains(&sent), "{sent}");
    // All arrived but what was under way, or on the connection that lost the collision.
    let received = p.sides[1].s.stats().received.keepalive;
    assert!(sent - received <= 2, "{sent} sent, {received} received");
}

#[test]
fn a_collision_leaves_the_connection_of_the_higher_identifier() {
    // BGP-COLL-01, -02: both dial at the same moment, the connection of 10.0.0.2 survives.
    let mut p = Pair::new(configs(), Net::default());
    p.start();
    p.converge(Span::secs(1));
    let (conn, agreed) = p.sides[1].s.established().expect("up");
    assert_eq!(conn, ConnId(1), "its own dial");
    assert_eq!(agreed.peer_id, RouterId::new(10, 0, 0, 1));
    p.run(Span::secs(5));
    let collisions = p.count(0, |o| matches!(o, Output::Send(_, b) if b[18] == 3 && b[19..21] == [6, 7]))
        + p.count(1, |o| matches!(o, Output::Send(_, b) if b[18] == 3 && b[19..21] == [6, 7]));
    assert!(collisions >= 1, "no Cease/7 was sent (BGP-COLL-05)");
    assert!(p.agreed());
}

#[test]
fn equal_identifiers_in_two_as_are_decided_by_the_as_number() {
    // BGP-COLL-04
    let [one, two] = configs();
    let id = RouterId::new(10, 0, 0, 9);
    let one = Config { router_id: id, local_as: Asn(70000), peer_as: Asn(65001).into(), ..one };
    let two = Config { router_id: id, local_as: Asn(65001), peer_as: Asn(70000).into(), ..two };
    let mut p = Pair::new([one, two], Net::default());
    p.start();
    p.converge(Span::secs(1));
    let (conn, agreed) = p.sides[0].s.established().expect("up");
    assert_eq!((conn, agreed.ibgp, agreed.peer_as), (ConnId(1), false, Asn(65001)), "its own dial");
}

#[test]
fn simultaneous_opens_converge_under_every_timing() {
    let mut slowest = Span::ZERO;
    for seed in 0..400 {
        let net = Net { jitter: Span::millis(40), piece: 1 + (seed as usize % 60), seed, ..Net::default() };
        let [one, two] = configs();
        let mut p = Pair::new([Config { seed, ..one }, Config { seed: seed ^ 0xffff, ..two }], net);
        p.start();
        slowest = slowest.max(p.converge(Span::secs(10)));
        p.run(Span::secs(30));
        assert!(p.agreed(), "seed {seed}: {:#?}", p.tail());
    }
    assert!(slowest < Span::secs(5), "{slowest}");
}

#[test]
fn a_passive_side_never_dials_and_is_reached() {
    let [one, two] = configs();
    let mut p = Pair::new([Config { passive: true, ..one }, two], Net::default());
    p.start();
    p.converge(Span::secs(1));
    p.reset_connections();
    p.converge(Span::secs(2));
    assert_eq!(p.count(0, |o| matches!(o, Output::Dial(_))), 0);
}

#[test]
fn the_second_to_start_is_reached_at_once_even_after_many_refusals() {
    // While nobody answers, the retry keeps the configured pace; when the peer comes, its dial is accepted.
    let mut p = Pair::new(configs(), Net { refuse: true, ..Net::default() });
    p.feed(0, Input::Start);
    p.run(Span::secs(120));
    let dials = p.count(0, |o| matches!(o, Output::Dial(_)));
    assert!((24..=33).contains(&dials), "{dials} dials in 120 s at 5 s with jitter");
    p.net.refuse = false;
    p.feed(1, Input::Start);
    let took = p.converge(Span::secs(1));
    assert!(took <= Span::millis(60), "{took}");
}

#[test]
fn a_dial_into_a_black_hole_is_tried_again() {
    let mut p = Pair::new(configs(), Net { cut: true, ..Net::default() });
    p.start();
    p.run(Span::secs(60));
    assert!(p.count(0, |o| matches!(o, Output::Dial(_))) >= 12);
    assert_eq!(p.sides[0].s.state(), State::Connect);
    p.net.cut = false;
    p.converge(Span::secs(6));
}

#[test]
fn a_cut_is_noticed_by_the_hold_timer_and_heals() {
    let mut p = Pair::new(configs(), Net::default());
    p.start();
    p.converge(Span::secs(1));
    p.run(Span::secs(100));
    p.cut();
    p.run(Span::secs(10));
    for side in [0, 1] {
        let down = p.log.iter().rev().find_map(|(_, s, o)| match o {
            Output::Down { was_up: true, sent: Some(n), .. } if *s == side => Some(n.clone()),
            _ => None,
        });
        assert_eq!(down, Some(Notification { code: 4, subcode: 0, data: Bytes::new() }), "BGP-FSM-08");
    }
    p.run(Span::secs(300));
    p.net.cut = false;
    p.converge(Span::secs(6));
}

#[test]
fn a_restart_of_the_peer_converges_at_once() {
    let mut p = Pair::new(configs(), Net::default());
    p.start();
    p.converge(Span::secs(1));
    p.run(Span::secs(50));
    p.feed(1, stop(2));
    p.run(Span::millis(100));
    assert_eq!(p.sides[0].s.state(), State::Idle);
    p.feed(1, Input::Start);
    let took = p.converge(Span::secs(2));
    assert!(took <= Span::millis(100), "{took}: the peer's connection ends the hold");
}

#[test]
fn half_open_sessions_end_when_the_peer_comes_back() {
    // The peer's machine dies without a word; our session lives on until the hold timer, its new connection
    // loses against the Established one (BGP-COLL-03), and afterwards it comes up.
    let mut p = Pair::new(configs(), Net::default());
    p.start();
    p.converge(Span::secs(1));
    p.cut();
    let (conn, _) = p.sides[1].s.established().expect("up");
    p.feed(1, Input::Closed(conn, "power failure"));
    p.run(Span::secs(2));
    p.net.cut = false;
    p.converge(Span::secs(30));
    p.run(Span::secs(60));
    assert!(p.agreed());
}

#[test]
fn a_wrong_as_number_is_refused_and_damped_up_to_a_minute() {
    // BGP-OPEN-03, BGP-FSM-14
    let [one, two] = configs();
    let mut p = Pair::new([Config { peer_as: Asn(65009).into(), ..one }, two], Net::default());
    p.start();
    p.run(Span::secs(3600));
    assert_eq!(p.sides.each_ref().map(|s| s.s.stats().established), [0, 0]);
    let bad_as = p.count(0, |o| matches!(o, Output::Send(_, b) if b[18] == 3 && b[19..21] == [2, 2]));
    assert!((40..600).contains(&bad_as), "{bad_as} attempts in an hour");
    let last: Vec<_> =
        p.log.iter().filter(|(_, s, o)| *s == 0 && matches!(o, Output::Dial(_))).map(|(t, ..)| *t).collect();
    for w in last.windows(2) {
        assert!(w[1].since(w[0]) >= Span::millis(700), "dialled after {}", w[1].since(w[0]));
    }
}

#[test]
fn a_stable_session_resets_the_damping() {
    let mut p = Pair::new(configs(), Net::default());
    p.start();
    for _ in 0..20 {
        p.converge(Span::secs(10));
        p.run(Span::secs(31));
        p.reset_connections();
        assert_eq!(p.sides[0].s.state(), State::Idle);
        let (due, why) = p.sides[0].s.poll_timeout().expect("held");
        assert_eq!(why, "idle hold");
        let hold = due.since(p.now);
        assert!(hold >= Span::millis(750) && hold <= Span::secs(1), "{hold}");
    }
}

#[test]
fn a_flapping_session_is_held_longer_each_time() {
    let mut p = Pair::new(configs(), Net::default());
    p.start();
    let mut holds = Vec::new();
    for _ in 0..9 {
        // Passive waiting: only the hold brings it back.
        p.converge(Span::secs(100));
        p.reset_connections();
        let (due, _) = p.sides[0].s.poll_timeout().expect("held");
        holds.push(due.since(p.now).as_secs_f64());
        p.run(Span::secs(1));
    }
    for (i, hold) in holds.iter().enumerate() {
        let full = f64::from(1 << i).min(60.0);
        assert!(*hold >= full * 0.75 && *hold <= full, "hold {i} of {holds:?}");
    }
}

#[test]
fn hold_time_zero_runs_no_timer() {
    // BGP-FSM-10
    let mut c = configs();
    c[1].hold_time = 0;
    let mut p = Pair::new(c, Net::default());
    p.start();
    p.converge(Span::secs(1));
    p.run(Span::secs(1));
    assert_eq!(p.sides.each_ref().map(|s| s.s.poll_timeout()), [None, None]);
    p.run(Span::secs(100_000));
    assert!(p.agreed());
    assert_eq!(p.sides[0].s.established().expect("up").1.hold_time, 0);
    assert_eq!(p.sides[0].s.stats().sent.keepalive, p.sides[0].s.stats().established + collided(&p));
}

/// KEEPALIVEs that went to a connection which then lost the collision.
fn collided(p: &Pair) -> u64 {
    p.count(0, |o| matches!(o, Output::Send(_, b) if b[18] == 4)) as u64 - 1
}

#[test]
fn updates_arrive_whole_in_order_whatever_the_pieces() {
    for piece in [1, 2, 18, 19, 20, 23, 24, usize::MAX] {
        let mut p = Pair::new(configs(), Net { piece, ..Net::default() });
        p.start();
        p.converge(Span::secs(1));
        for _ in 0..50 {
            p.inject(0, &end_of_rib());
        }
        p.run(Span::secs(1));
        assert_eq!(p.count(1, |o| matches!(o, Output::Update { .. })), 50, "pieces of {piece}");
        assert_eq!(p.sides[1].s.stats().received.update, 50);
        assert_eq!(p.sides[0].s.stats().sent.update, 50);
    }
}

#[test]
fn updates_sent_stand_in_for_keepalives() {
    // BGP-FSM-07
    let mut p = Pair::new(configs(), Net::default());
    p.start();
    p.converge(Span::secs(1));
    let before = p.sides[0].s.stats().sent.keepalive;
    for _ in 0..100 {
        p.inject(0, &end_of_rib());
        p.run(Span::secs(1));
    }
    assert_eq!(p.sides[0].s.stats().sent.keepalive, before);
    assert!(p.agreed());
}

#[test]
fn families_and_limits_are_what_both_sides_have() {
    // BGP-CAP-06, BGP-MP-01, BGP-EXTM-01
    let [one, two] = configs();
    let one = Config { families: vec![Family::EVPN, Family::IPV4], extended_message: false, ..one };
    let two = Config { families: vec![Family::IPV6, Family::EVPN], ..two };
    let mut p = Pair::new([one, two], Net::default());
    p.start();
    p.converge(Span::secs(1));
    let a = p.sides[0].s.established().expect("up").1.clone();
    let b = p.sides[1].s.established().expect("up").1.clone();
    assert_eq!((a.families, b.families), (vec![Family::EVPN], vec![Family::EVPN]));
    assert_eq!((a.max_send, b.max_send), (4096, 4096));
    assert_eq!((a.decode.max_len, b.decode.max_len), (4096, 65535), "BGP-EXTM-02: what each one promised");
    assert!(a.as4 && b.as4 && a.ibgp && a.refresh && !a.enhanced_refresh);
}

#[test]
fn a_peer_from_before_capabilities_is_met_without_them() {
    // BGP-CAP-10
    let [_, two] = configs();
    let mut q = crate::kit::Probe::new(two);
    q.feed(Input::Start);
    let with = q.feed(Input::Connected(ConnId(1)));
    q.bytes(1, &notification(2, 4, &[]));
    let (why, out) = q.fire();
    assert_eq!((why, crate::kit::digest(&out).as_str()), ("idle hold", "dial 2"));
    let without = q.feed(Input::Connected(ConnId(2)));
    let lens = [&with, &without].map(|o| match &o[0] {
        Output::Send(_, b) => b.len(),
        other => panic!("{other:?}"),
    });
    assert!(lens[0] > 29 && lens[1] == 29, "{lens:?}");
    // Once: after a second refusal the OPEN is complete again.
    q.bytes(2, &notification(2, 4, &[]));
    q.fire();
    let again = q.feed(Input::Connected(ConnId(3)));
    assert!(matches!(&again[0], Output::Send(_, b) if b.len() == lens[0]));
}
