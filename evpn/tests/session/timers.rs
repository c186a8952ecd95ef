//! Timers to the nanosecond: hold, keepalive, connect retry, idle hold.

use crate::kit::{Probe, config, digest, end_of_rib, keepalive, open_bytes, peer_open, refresh};
use evpn::session::{Config, Input, State};
use evpn::types::{ConnId, Span};
use evpn::wire::{Open, RefreshKind};

fn established(hold: u16) -> Probe {
    let mut p = Probe::new(config());
    p.feed(Input::Start);
    p.feed(Input::Connected(ConnId(1)));
    p.bytes(1, &open_bytes(Open { hold_time: hold, ..peer_open() }));
    p.bytes(1, &keepalive());
    assert_eq!(p.s.state(), State::Established);
    p
}

#[test]
fn the_hold_time_is_the_smaller_one() {
    // BGP-OPEN-09
    for (theirs, agreed) in [(0, 0), (3, 3), (30, 30), (90, 90), (180, 90), (65535, 90)] {
        assert_eq!(established(theirs).s.established().map(|e| e.1.hold_time), Some(agreed), "{theirs}");
    }
}

#[test]
fn keepalives_come_every_third_of_the_hold_time_with_jitter_but_never_twice_a_second() {
    // BGP-OPEN-09, BGP-FSM-13
    for (hold, least, most) in [(3, 1.0, 1.0), (4, 1.0, 4.0 / 3.0), (9, 2.25, 3.0), (90, 22.5, 30.0)] {
        let mut p = established(hold);
        let mut last = p.now;
        for _ in 0..50 {
            p.bytes(1, &keepalive());
            let (why, out) = p.fire();
            p.s.note_taken(ConnId(1), p.now);
            assert_eq!((why, digest(&out).as_str()), ("keepalive", "KEEPALIVE on 1"));
            let gap = p.now.since(last).as_secs_f64();
            assert!(gap >= least && gap <= most + 1e-6, "hold {hold}: {gap}");
            last = p.now;
        }
    }
}

#[test]
fn keepalive_and_update_restart_the_hold_timer_and_route_refresh_does_not() {
    // BGP-FSM-07
    for (message, restarts) in
        [(keepalive(), true), (end_of_rib(), true), (refresh(RefreshKind::Request), false)]
    {
        let mut p = established(9);
        p.now = p.now + Span::secs(8);
        p.bytes(1, &message);
        p.now = p.now + Span::secs(8);
        p.feed(Input::Timer);
        assert_eq!(p.s.state() == State::Established, restarts, "{message:?}");
    }
}

#[test]
fn part_of_a_message_does_not_restart_the_hold_timer() {
    let mut p = established(9);
    for b in &keepalive()[..8] {
        p.now = p.now + Span::secs(1);
        p.bytes(1, &[*b]);
        p.feed(Input::Timer);
    }
    assert_eq!(p.s.state(), State::Established);
    let out = p.advance(Span::secs(1));
    assert_eq!(digest(&out), "4/0 on 1, hangup 1, down");
}

#[test]
fn a_timer_call_that_comes_too_early_does_nothing() {
    let mut p = established(90);
    let (due, _) = p.s.poll_timeout().expect("keepalive");
    p.now = evpn::types::Time(due.0 - 1);
    assert_eq!(digest(&p.feed(Input::Timer)), "");
    assert_eq!(p.s.poll_timeout().map(|t| t.0), Some(due));
}

#[test]
fn connect_retry_keeps_its_jittered_pace() {
    // BGP-FSM-04, BGP-FSM-13
    let mut p = Probe::new(Config { connect_retry: Span::secs(120), ..config() });
    p.feed(Input::Start);
    let mut gaps = Vec::new();
    for _ in 0..200 {
        let from = p.now;
        let (why, out) = p.fire();
        assert_eq!(why, "connect retry");
        assert_eq!(out.len(), 2, "hangup and dial: {}", digest(&out));
        gaps.push(p.now.since(from).as_secs_f64());
    }
    let (low, high) = gaps
        .iter()
        .fold((f64::MAX, f64::MIN), |(l, h), g| (if *g < l { *g } else { l }, if *g > h { *g } else { h }));
    assert!((90.0..92.0).contains(&low) && (118.0..=120.0).contains(&high), "{low} to {high}");
}

#[test]
fn a_connect_retry_time_of_zero_does_not_spin() {
    let mut p = Probe::new(Config { connect_retry: Span::ZERO, ..config() });
    p.feed(Input::Start);
    for _ in 0..100 {
        p.fire();
    }
    assert!(p.now.0 >= 100 * Span::millis(75).0);
}

#[test]
fn equal_seeds_give_equal_runs_and_others_do_not() {
    let run = |seed| {
        let mut p = Probe::new(Config { seed, ..config() });
        p.feed(Input::Start);
        (0..20)
            .map(|_| {
                p.fire();
                p.now
            })
            .collect::<Vec<_>>()
    };
    assert_eq!(run(5), run(5));
    assert_ne!(run(5), run(6));
}

#[test]
fn a_silent_peer_after_connecting_is_given_up_after_four_minutes() {
    // BGP-FSM-03
    let mut p = Probe::new(config());
    p.reach(State::OpenSent);
    let (why, out) = p.fire();
    assert_eq!((why, p.now.0), ("hold", Span::secs(240).0));
    assert_eq!(digest(&out), "4/0 on 1, hangup 1, failed");
}

#[test]
fn a_start_ends_the_hold_in_idle() {
    let mut p = established(90);
    p.bytes(1, &crate::kit::notification(6, 4, &[]));
    assert_eq!(p.s.state(), State::Idle);
    assert_eq!(digest(&p.feed(Input::Start)), "dial 2");
}

#[test]
fn a_stop_ends_the_hold_in_idle_for_good() {
    let mut p = established(90);
    p.bytes(1, &crate::kit::notification(6, 4, &[]));
    p.feed(Input::Stop { subcode: 2, data: bytes::Bytes::new() });
    assert_eq!((p.s.state(), p.s.poll_timeout()), (State::Idle, None));
}

#[test]
fn a_peer_that_fails_at_every_connection_gets_one_attempt_a_second() {
    // BGP-FSM-14
    let mut p = Probe::new(Config { passive: true, ..config() });
    p.feed(Input::Start);
    let mut answered = 0;
    for n in 0..1000 {
        p.now = p.now + Span::millis(20);
        p.feed(Input::Timer);
        let out = p.feed(Input::Accepted(ConnId(100 + n)));
        if digest(&out).starts_with("OPEN") {
            answered += 1;
            p.bytes(100 + n, &[0; 19]);
        }
    }
    assert!((10..=22).contains(&answered), "{answered} attempts in 20 s");
    assert!(p.s.stats().refused >= 970);
}
