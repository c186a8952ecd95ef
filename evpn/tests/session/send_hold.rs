//! Send Hold Timer (RFC 9687): a peer that talks and never reads is given up.

use crate::kit::{Probe, config, digest, keepalive, notification, open_bytes, peer_open};
use evpn::session::{Config, Input, State};
use evpn::types::{ConnId, Span};
use evpn::wire::Open;

fn established(c: Config, hold: u16) -> Probe {
    let mut p = Probe::new(c);
    p.feed(Input::Start);
    p.feed(Input::Connected(ConnId(1)));
    p.bytes(1, &open_bytes(Open { hold_time: hold, ..peer_open() }));
    p.bytes(1, &keepalive());
    assert_eq!(p.s.state(), State::Established);
    p
}

/// The peer says something every second and takes nothing; how many seconds until the session ends, at most `most`.
fn unread(p: &mut Probe, most: u64) -> Option<u64> {
    for n in 1..=most {
        p.now = p.now + Span::secs(1);
        p.bytes(1, &keepalive());
        let out = p.feed(Input::Timer);
        if p.s.state() != State::Established {
            assert_eq!(digest(&out), "8/0 on 1, hangup 1, down");
            return Some(n);
        }
    }
    None
}

/// BGP-SHT-02: 8 minutes or twice the hold time; a configured time is never below the hold time; off with 0, and with
/// a hold time of 0.
#[test]
fn the_send_hold_time_follows_the_hold_time_and_the_configuration() {
    for (configured, hold, seconds) in [
        (None, 90, Some(480)),
        (None, 3, Some(480)),
        (Some(100), 90, Some(100)),
        (Some(5), 9, Some(10)),
        (Some(0), 90, None),
        (None, 0, None),
        (Some(100), 0, None),
    ] {
        let mut p = established(Config { send_hold_time: configured, ..config() }, hold);
        assert_eq!(unread(&mut p, 600), seconds, "{configured:?} with a hold time of {hold}");
    }
    let mut p = established(Config { hold_time: 600, ..config() }, 600);
    assert_eq!(unread(&mut p, 1300), Some(1200));
}

/// BGP-SHT-01: whatever TCP has taken starts it anew, and what was only handed over does not.
#[test]
fn what_the_socket_takes_starts_it_anew_and_what_waits_does_not() {
    let mut p = established(Config { send_hold_time: Some(100), ..config() }, 90);
    for _ in 0..5 {
        assert_eq!(unread(&mut p, 99), None);
        p.s.note_taken(ConnId(1), p.now);
    }
    // An UPDATE that waits in the send path is no sign of life, nor is another connection's.
    assert_eq!(unread(&mut p, 99), None);
    p.s.note_sent(p.now);
    p.s.note_taken(ConnId(2), p.now);
    assert_eq!(unread(&mut p, 2), Some(1));
}

/// BGP-SHT-03: counted, logged as what it is, and tried again from Idle like any failure.
#[test]
fn its_end_is_a_failure_that_names_the_reason() {
    let mut p = established(config(), 90);
    let before = p.s.stats().connect_retry_counter;
    assert_eq!(unread(&mut p, 480), Some(480));
    assert_eq!((p.s.state(), p.s.stats().connect_retry_counter), (State::Idle, before + 1));
    assert_eq!(p.s.history().last().map(|r| r.event.number()), Some(29));
    let why = p.s.stats().last_down.clone().expect("it went down").1;
    assert!(why.contains("send hold") && why.contains("8/0"), "{why}");
    assert_eq!(
        p.s.stats().last_sent.as_ref().map(|n| n.1.to_string()),
        Some("send hold timer expired (8/0)".into())
    );
    assert_eq!(p.s.poll_timeout().map(|t| t.1), Some("idle hold"));
}

/// It belongs to the connection that is Established: a later one begins with a timer of its own.
#[test]
fn a_session_that_ended_leaves_no_timer_behind() {
    let mut p = established(Config { send_hold_time: Some(100), ..config() }, 90);
    p.bytes(1, &notification(6, 4, &[]));
    assert_eq!(p.s.poll_timeout().map(|t| t.1), Some("idle hold"));
    p.feed(Input::Start);
    p.feed(Input::Connected(ConnId(2)));
    p.now = p.now + Span::secs(60);
    p.bytes(2, &open_bytes(peer_open()));
    p.bytes(2, &keepalive());
    p.now = p.now + Span::secs(60);
    p.bytes(2, &keepalive());
    p.feed(Input::Timer);
    assert_eq!(p.s.state(), State::Established);
}

/// What a peer says it got is not what matters: events of the past do not keep a dead connection.
#[test]
fn a_connection_that_is_gone_takes_nothing() {
    let mut p = established(config(), 90);
    p.feed(Input::Closed(ConnId(1), "closed"));
    p.s.note_taken(ConnId(1), p.now);
    assert_eq!(p.s.poll_timeout().map(|t| t.1), Some("idle hold"));
}
