//! The state machine: every transition of RFC 5880 §6.8.6, timers, poll sequences, AdminDown.

use crate::pair::{Link, PEER, Pair, config, path_to};
use evpn::bfd::{Change, Config, Diag, Packet, Session, State, Table};
use evpn::types::{PeerId, Span, Time};
use std::collections::BTreeSet;

const MS: fn(u64) -> Span = Span::millis;

fn word(state: State) -> Packet {
    Packet {
        diag: Diag::NONE,
        state,
        poll: false,
        finale: false,
        independent: false,
        demand: false,
        multiplier: 3,
        my: 9,
        your: 5,
        desired_tx: MS(50),
        required_rx: MS(50),
        required_echo_rx: Span::ZERO,
    }
}

fn at(ms: u64) -> Time {
    Time(0) + MS(ms)
}

fn hear(s: &mut Session, p: Packet, ms: u64) -> (Option<Change>, Vec<Packet>) {
    let mut out = Vec::new();
    let change = s.receive(&p, at(ms), &mut out);
    (change, out.iter().map(|o| Packet::decode(o).unwrap()).collect())
}

/// A session brought into a state by what RFC 5880 says leads there.
fn in_state(state: State) -> Session {
    let mut s = Session::new(config(50), 5, 3, at(0));
    let words: &[State] = match state {
        State::AdminDown | State::Down => &[],
        State::Init => &[State::Down],
        State::Up => &[State::Down, State::Init],
    };
    for w in words {
        hear(&mut s, word(*w), 0);
    }
    if state == State::AdminDown {
        s.disable(at(0), &mut Vec::new());
    }
    assert_eq!(s.state(), state);
    s
}

#[test]
fn every_word_in_every_state_leads_where_rfc_5880_says() {
    // BFD-02: rows are our state, columns what comes.
    use State::{AdminDown, Down, Init, Up};
    let table = [
        (AdminDown, [AdminDown, AdminDown, AdminDown, AdminDown]),
        (Down, [Down, Init, Up, Down]),
        (Init, [Down, Init, Up, Up]),
        (Up, [Down, Down, Up, Up]),
    ];
    for (from, ends) in table {
        for (heard, to) in [AdminDown, Down, Init, Up].into_iter().zip(ends) {
            let mut s = in_state(from);
            let (change, sent) = hear(&mut s, word(heard), 1);
            assert_eq!(s.state(), to, "{heard} in {from}");
            assert_eq!(change.is_some(), from != to, "{heard} in {from}");
            if let Some(c) = change {
                assert_eq!((c.from, c.to), (from, to));
                assert_eq!(sent.len(), 1, "a change is told at once");
                assert_eq!(sent[0].state, to);
                // What is a failure, and what is not (BFD-09, BFD-11).
                assert_eq!(c.failed, from == Up && heard == Down, "{heard} in {from}");
                if to == Down {
                    assert_eq!((c.diag, sent[0].diag), (Diag::NEIGHBOR_DOWN, Diag::NEIGHBOR_DOWN));
                }
            }
        }
    }
}

#[test]
fn silence_for_the_detection_time_is_down_with_diag_1_and_not_a_moment_earlier() {
    // BFD-07: remote multiplier × max(our required RX, remote desired TX).
    for (theirs, multiplier, required, ms) in
        [(50, 3, 50, 150), (50, 3, 300, 900), (400, 5, 50, 2000), (50, 1, 50, 50)]
    {
        let c = Config { required_rx: MS(required), ..config(50) };
        let mut s = Session::new(c, 5, 3, at(0));
        let say = |state| Packet { desired_tx: MS(theirs), multiplier, ..word(state) };
        hear(&mut s, say(State::Down), 10);
        hear(&mut s, say(State::Init), 20);
        assert_eq!((s.state(), s.detection_time()), (State::Up, MS(ms)));
        let mut out = Vec::new();
        assert_eq!(s.due(at(20 + ms) - Span(1), &mut out), None);
        out.clear();
        let c = s.due(at(20 + ms), &mut out).unwrap();
        assert_eq!((c.from, c.to, c.diag, c.failed), (State::Up, State::Down, Diag::EXPIRED, true));
        let told = Packet::decode(&out[0]).unwrap();
        // The peer's discriminator is forgotten, the pace slow again.
        assert_eq!((told.state, told.diag, told.your), (State::Down, Diag::EXPIRED, 0));
        assert_eq!(told.desired_tx, Span::secs(1));
        assert_eq!(s.stats().failures, 1);
    }
}

#[test]
fn nothing_is_sent_faster_than_once_a_second_while_not_up() {
    // BFD-07, with a peer that never answers.
    let link = Link { cut: [true, true], ..Link::default() };
    let mut p = Pair::new([config(50), config(50)], link);
    p.run(Span::secs(600));
    let pauses = p.pauses(0, Time(0));
    assert!(pauses.len() > 600 && pauses.iter().all(|g| (MS(750)..=Span::secs(1)).contains(g)), "{pauses:?}");
    assert!(p.sent.iter().all(|(_, _, k)| k.state == State::Down && k.desired_tx == Span::secs(1)));
    // The jitter uses its whole range.
    assert!(pauses.iter().any(|g| *g < MS(770)) && pauses.iter().any(|g| *g > MS(980)));
}

#[test]
fn up_packets_go_at_the_slower_of_both_wishes_less_jitter() {
    // BFD-07. One wants 50 ms, the other can take one each 120 ms.
    let slow = Config { required_rx: MS(120), ..config(50) };
    let mut p = Pair::new([config(50), slow], Link::default());
    p.until(Span::secs(5), Pair::both_up).unwrap();
    p.run(Span::secs(2));
    let from = p.now;
    p.run(Span::secs(60));
    let (quick, slow) = (p.pauses(1, from), p.pauses(0, from));
    assert!(quick.len() > 1200 && quick.iter().all(|g| (Span::micros(37_500)..=MS(50)).contains(g)));
    assert!(slow.len() > 500 && slow.iter().all(|g| (MS(90)..=MS(120)).contains(g)));
    assert_eq!(p.changes.iter().filter(|c| c.2.failed).count(), 0);
}

#[test]
fn with_a_multiplier_of_one_packets_go_a_tenth_earlier_at_least() {
    // BFD-07: 10 to 25 % jitter.
    let one = Config { multiplier: 1, ..config(100) };
    let mut p = Pair::new([one, one], Link::default());
    p.until(Span::secs(5), Pair::both_up).unwrap();
    p.run(Span::secs(2));
    let from = p.now;
    p.run(Span::secs(60));
    let pauses = p.pauses(0, from);
    assert!(pauses.len() > 600 && pauses.iter().all(|g| (MS(75)..=MS(90)).contains(g)), "{pauses:?}");
    assert_eq!(p.changes.iter().filter(|c| c.2.failed).count(), 0);
}

#[test]
fn two_come_up_and_poll_for_their_quick_intervals() {
    // BFD-06: from 1 s to 50 ms, by P and F, and then no P any more.
    let mut p = Pair::new([config(50), config(50)], Link::default());
    p.until(Span::secs(5), Pair::both_up).unwrap();
    p.run(MS(500));
    for side in [0, 1] {
        assert!(p.sent.iter().any(|(_, s, k)| *s == side && k.poll && k.desired_tx == MS(50)));
        assert!(p.sent.iter().any(|(_, s, k)| *s == side && k.finale));
        let s = p.sides[side].get(PEER).unwrap().1;
        assert_eq!(s.detection_time(), MS(150));
        assert!(!p.sent.iter().rev().find(|x| x.1 == side).unwrap().2.poll, "the poll has ended");
    }
    assert!(p.sent.iter().all(|(_, _, k)| !(k.poll && k.finale)), "never both");
    assert!(p.sent.iter().all(|(_, _, k)| k.required_echo_rx == Span::ZERO && !k.demand));
}

#[test]
fn slower_packets_wait_until_the_peer_has_answered_the_poll() {
    // BFD-06, RFC 5880 §6.8.3: from 50 to 400 ms while the peer's answers are lost.
    let mut p = Pair::new([config(50), config(50)], Link::default());
    p.until(Span::secs(5), Pair::both_up).unwrap();
    p.run(Span::secs(1));
    p.link.cut[1] = true;
    let from = p.now;
    p.act(0, |t, at, out| t.set(PEER, path_to(1), config(400), at, out));
    p.run(MS(600));
    p.link.cut[1] = false;
    assert!(p.pauses(0, from).iter().all(|g| *g <= MS(50)), "no less often than before");
    p.run(Span::secs(2));
    let from = p.now;
    p.run(Span::secs(20));
    assert!(p.pauses(0, from).iter().all(|g| *g >= MS(300)), "the peer knows");
    assert_eq!(p.sides[1].get(PEER).unwrap().1.detection_time(), MS(1200));
    // The other expects no more than it is asked for, and it is asked for less.
    assert!(p.pauses(1, from).iter().all(|g| *g >= MS(300)));
    assert_eq!(p.changes.iter().filter(|c| c.2.failed).count(), 0);
}

#[test]
fn what_changes_during_a_poll_is_polled_for_again() {
    let mut p = Pair::new([config(50), config(50)], Link::default());
    p.until(Span::secs(5), Pair::both_up).unwrap();
    p.run(Span::secs(1));
    for ms in [400, 90, 200, 60] {
        p.act(0, |t, at, out| t.set(PEER, path_to(1), config(ms), at, out));
        p.run(Span::micros(1500));
    }
    p.run(Span::secs(2));
    assert_eq!(p.sides[0].get(PEER).unwrap().1.pace(), Some(MS(60)));
    assert_eq!(p.sides[0].get(PEER).unwrap().1.detection_time(), MS(180));
    assert_eq!(p.sides[1].get(PEER).unwrap().1.detection_time(), MS(180));
    assert_eq!(p.changes.iter().filter(|c| c.2.failed).count(), 0);
}

#[test]
fn a_peer_in_demand_mode_or_that_wants_nothing_is_left_alone() {
    // RFC 5880 §6.8.7
    let mut s = in_state(State::Up);
    hear(&mut s, Packet { finale: true, ..word(State::Up) }, 1);
    assert!(s.pace().is_some());
    hear(&mut s, Packet { demand: true, ..word(State::Up) }, 2);
    assert_eq!(s.pace(), None);
    let (_, sent) = hear(&mut s, Packet { demand: true, poll: true, ..word(State::Up) }, 3);
    assert!(sent[0].finale, "asked, it answers all the same");
    hear(&mut s, word(State::Up), 4);
    assert_eq!(s.pace(), Some(MS(50)));
    hear(&mut s, Packet { required_rx: Span::ZERO, ..word(State::Up) }, 5);
    assert_eq!(s.pace(), None);
    assert_eq!(s.poll_timeout(), Some(at(5) + s.detection_time()), "but it is still watched");
}

#[test]
fn admin_down_is_said_for_a_detection_time_and_is_no_failure_at_the_peer() {
    // BFD-09
    let mut p = Pair::new([config(50), config(50)], Link::default());
    p.until(Span::secs(5), Pair::both_up).unwrap();
    p.run(Span::secs(1));
    let from = p.now;
    p.act(0, |t, at, out| t.remove(PEER, at, out));
    p.run(MS(20));
    let (_, _, c) = p.changes.iter().rfind(|c| c.1 == 1).unwrap();
    assert_eq!((c.to, c.diag, c.failed), (State::Down, Diag::NEIGHBOR_DOWN, false));
    p.run(Span::secs(10));
    let said: Vec<_> = p.sent.iter().filter(|(at, s, _)| *s == 0 && *at >= from).collect();
    assert!(said.len() >= 3, "{said:?}");
    assert!(said.iter().all(|(_, _, k)| k.state == State::AdminDown && k.diag == Diag::ADMIN_DOWN));
    let last = said.last().unwrap().0.since(from);
    assert!((MS(2000)..=MS(3000)).contains(&last), "three times a second: {last}");
    assert!(p.sides[0].get(PEER).is_none() && !p.sides[0].is_active(), "then it is forgotten");
    assert_eq!(p.changes.iter().filter(|c| c.2.failed).count(), 0);
    // The other one asks on, slowly, and finds it when it is there again.
    p.act(0, |t, at, out| t.set(PEER, path_to(1), config(50), at, out));
    p.until(Span::secs(3), Pair::both_up).unwrap();
}

#[test]
fn a_disabled_session_comes_back_when_it_is_enabled() {
    let mut p = Pair::new([config(50), config(50)], Link::default());
    p.until(Span::secs(5), Pair::both_up).unwrap();
    let number = p.sides[0].get(PEER).unwrap().1.discriminators().0;
    p.act(0, |t, at, out| t.disable(PEER, at, out));
    p.run(Span::secs(30));
    assert_eq!((p.state(0), p.state(1)), (State::AdminDown, State::Down));
    p.act(0, |t, at, out| t.set(PEER, path_to(1), config(50), at, out));
    p.until(Span::secs(3), Pair::both_up).unwrap();
    assert_eq!(p.sides[0].get(PEER).unwrap().1.discriminators().0, number);
}

#[test]
fn discriminators_are_unique_and_never_zero() {
    // BFD-01
    let mut t = Table::new(1);
    for n in 0..2000 {
        t.set(PeerId(n), path_to(0), config(50), Time(0), &mut Vec::new());
    }
    let all: BTreeSet<u32> = t.iter().map(|(_, _, s)| s.discriminators().0).collect();
    assert!(all.len() == 2000 && !all.contains(&0));
}
