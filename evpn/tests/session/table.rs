//! RFC 4271 §8.2.2 as a table: every event in every state (BGP-FSM-01, -02, -03, -04, -05, -06, -07, -08, -09, -10, -11, -12;
//! BGP-FSME-01, -02, -03).

use crate::kit::{
    Probe, bad_update, config, digest, end_of_rib, keepalive, notification, open_bytes, peer_open, refresh,
};
use bytes::Bytes;
use evpn::session::{Input, State};
use evpn::types::{Asn, ConnId, RouterId, Span};
use evpn::wire::RefreshKind;

const STATES: [State; 6] =
    [State::Idle, State::Connect, State::Active, State::OpenSent, State::OpenConfirm, State::Established];

/// Next state, `+1` where ConnectRetryCounter grows, outputs. `=`: nothing happens. `-`: cannot happen there.
/// Connection 1 is ours, 9 comes from the peer.
///
/// Not in the table, because their options are not built and nothing produces them: 3 and 5 (automatic start
/// without damping), 12 and 20 (DelayOpen), 14 and 15 (connection requests before TCP completes them).
const TABLE: &str = "
event                 | Idle                            | Connect                | Active           | OpenSent                                   | OpenConfirm                                | Established
1 ManualStart         | Connect: dial 1                 | =                      | =                | =                                          | =                                          | =
2 ManualStop          | =                               | Idle: hangup 1         | Idle:            | Idle: 6/2 on 1, hangup 1, failed           | Idle: 6/2 on 1, hangup 1, failed           | Idle: 6/2 on 1, hangup 1, down
4 start, passive      | Active:                         | -                      | =                | =                                          | =                                          | =
6 start after hold    | Connect: dial 2                 | -                      | -                | -                                          | -                                          | -
7 same, passive       | Active:                         | -                      | -                | -                                          | -                                          | -
8 AutomaticStop       | =                               | Idle +1: hangup 1      | Idle +1:         | Idle +1: 6/8 on 1, hangup 1, failed        | Idle +1: 6/8 on 1, hangup 1, failed        | Idle +1: 6/8 on 1, hangup 1, down
9 ConnectRetryTimer   | =                               | Connect: hangup 1, dial 2 | Connect: dial 2 | =                                        | =                                          | =
10 HoldTimer          | -                               | -                      | -                | Idle +1: 4/0 on 1, hangup 1, failed        | Idle +1: 4/0 on 1, hangup 1, failed        | Idle +1: 4/0 on 1, hangup 1, down
11 KeepaliveTimer     | -                               | -                      | -                | -                                          | OpenConfirm: KEEPALIVE on 1                | Established: KEEPALIVE on 1
13 IdleHoldTimer      | Connect: dial 2                 | -                      | -                | -                                          | -                                          | -
16 dial succeeded     | =                               | OpenSent: OPEN on 1    | =                | =                                          | =                                          | =
17 peer connected     | Idle: 6/5 on 9, hangup 9, note  | OpenSent: OPEN on 9    | OpenSent: OPEN on 9 | OpenSent: OPEN on 9                     | OpenConfirm: OPEN on 9                     | Established: OPEN on 9
18 TCP failed         | =                               | Idle: failed           | =                | Active: failed                             | Idle +1: failed                            | Idle +1: down
19 OPEN               | =                               | =                      | =                | OpenConfirm: KEEPALIVE on 1                | Idle +1: 5/2 01 on 1, hangup 1, failed     | Idle +1: 5/3 01 on 1, hangup 1, down
21 bad header         | =                               | =                      | =                | Idle +1: 1/1 on 1, hangup 1, failed        | Idle +1: 1/1 on 1, hangup 1, failed        | Idle +1: 1/1 on 1, hangup 1, down
22 bad OPEN           | =                               | =                      | =                | Idle +1: 2/2 on 1, hangup 1, failed        | Idle +1: 5/2 01 on 1, hangup 1, failed     | Idle +1: 5/3 01 on 1, hangup 1, down
23 collision, lost    | -                               | -                      | -                | OpenConfirm +1: 6/7 on 1, hangup 1, note   | OpenConfirm +1: 6/7 on 1, hangup 1, note, KEEPALIVE on 9 | Established +1: 6/7 on 9, hangup 9, note
24 version refused    | =                               | =                      | =                | Idle: hangup 1, failed                     | Idle: hangup 1, failed                     | Idle +1: hangup 1, down
25 NOTIFICATION       | =                               | =                      | =                | Idle +1: hangup 1, failed                  | Idle +1: hangup 1, failed                  | Idle +1: hangup 1, down
26 KEEPALIVE          | =                               | =                      | =                | Idle +1: 5/1 04 on 1, hangup 1, failed     | Established: up 1                          | =
27 UPDATE             | =                               | =                      | =                | Idle +1: 5/1 02 on 1, hangup 1, failed     | Idle +1: 5/2 02 on 1, hangup 1, failed     | Established: update
27 ROUTE-REFRESH      | =                               | =                      | =                | Idle +1: 5/1 05 on 1, hangup 1, failed     | Idle +1: 5/2 05 on 1, hangup 1, failed     | Established: refresh
28 bad UPDATE         | =                               | =                      | =                | Idle +1: 5/1 02 on 1, hangup 1, failed     | Idle +1: 5/2 02 on 1, hangup 1, failed     | Idle +1: 3/1 on 1, hangup 1, down
29 SendHoldTimer      | -                               | -                      | -                | -                                          | -                                          | Idle +1: 8/0 on 1, hangup 1, down
";

/// A session in `state`, the way that suits `event`.
fn prepare(event: &str, state: State) -> Probe {
    let mut c = config();
    let number: u8 = event.split(' ').next().and_then(|n| n.parse().ok()).expect("event number");
    if matches!(number, 4 | 7) {
        c.passive = true;
    }
    let mut p;
    match (number, state) {
        (4, State::Active | State::OpenSent | State::OpenConfirm | State::Established) => {
            p = Probe::new(c);
            p.feed(Input::Start);
            if state >= State::OpenSent {
                p.feed(Input::Accepted(ConnId(1)));
            }
            if state >= State::OpenConfirm {
                p.bytes(1, &open_bytes(peer_open()));
            }
            if state >= State::Established {
                p.bytes(1, &keepalive());
            }
        }
        (6 | 13, _) => {
            p = Probe::new(c);
            p.reach(State::Established);
            p.feed(Input::Closed(ConnId(1), "closed"));
        }
        (7, _) => {
            p = Probe::new(c);
            p.feed(Input::Start);
            p.feed(Input::Accepted(ConnId(1)));
            p.bytes(1, &notification(6, 4, &[]));
        }
        (23, _) => {
            // The peer's identifier is the higher one where connection 1 has to lose against 9.
            p = Probe::new(c);
            p.reach(State::OpenSent);
            if state == State::Established {
                p.bytes(1, &open_bytes(higher()));
                p.bytes(1, &keepalive());
            }
            p.feed(Input::Accepted(ConnId(9)));
            match state {
                State::OpenSent => {
                    p.bytes(9, &open_bytes(higher()));
                }
                State::OpenConfirm => {
                    p.bytes(1, &open_bytes(higher()));
                }
                _ => {}
            }
        }
        _ => {
            p = Probe::new(c);
            p.reach(state);
        }
    }
    p
}

fn higher() -> evpn::wire::Open {
    evpn::wire::Open { id: RouterId::new(10, 0, 0, 3), ..peer_open() }
}

fn inject(event: &str, state: State, p: &mut Probe) -> String {
    let stop = Input::Stop { subcode: 2, data: Bytes::new() };
    let out = match event {
        "1 ManualStart" | "4 start, passive" => p.feed(Input::Start),
        "2 ManualStop" => p.feed(stop),
        "6 start after hold" | "7 same, passive" | "13 IdleHoldTimer" => {
            let (why, out) = p.fire();
            assert_eq!(why, "idle hold");
            out
        }
        "8 AutomaticStop" => p.feed(Input::Reject { subcode: 8 }),
        "9 ConnectRetryTimer" => p.advance(Span::secs(5)),
        "10 HoldTimer" => p.advance(Span::secs(if state == State::OpenSent { 240 } else { 90 })),
        "11 KeepaliveTimer" => {
            let (why, out) = p.fire();
            assert_eq!(why, "keepalive");
            out
        }
        "16 dial succeeded" => {
            let id = if state == State::Connect { 1 } else { 77 };
            p.feed(Input::Connected(ConnId(id)))
        }
        "17 peer connected" => p.feed(Input::Accepted(ConnId(9))),
        "18 TCP failed" if state == State::Connect => p.feed(Input::Failed(ConnId(1), "refused")),
        "18 TCP failed" => p.feed(Input::Closed(ConnId(1), "reset by peer")),
        "19 OPEN" => p.bytes(1, &open_bytes(peer_open())),
        "21 bad header" => p.bytes(1, &[0; 19]),
        "22 bad OPEN" => {
            let mut o = peer_open();
            o.my_as = 65001;
            o.capabilities.clear();
            assert_eq!(o.asn(), Asn(65001));
            p.bytes(1, &open_bytes(o))
        }
        "23 collision, lost" => match state {
            State::OpenSent => p.bytes(1, &open_bytes(higher())),
            _ => p.bytes(9, &open_bytes(higher())),
        },
        "24 version refused" => p.bytes(1, &notification(2, 1, &[0, 4])),
        "25 NOTIFICATION" => p.bytes(1, &notification(6, 4, &[])),
        "26 KEEPALIVE" => p.bytes(1, &keepalive()),
        "27 UPDATE" => p.bytes(1, &end_of_rib()),
        "27 ROUTE-REFRESH" => p.bytes(1, &refresh(RefreshKind::Request)),
        "28 bad UPDATE" => p.bytes(1, &bad_update()),
        // BGP-SHT-03: the peer is lively, and takes nothing.
        "29 SendHoldTimer" => {
            for _ in 0..8 {
                p.now = p.now + Span::secs(60);
                p.bytes(1, &keepalive());
            }
            p.feed(Input::Timer)
        }
        other => panic!("unknown event {other}"),
    };
    digest(&out)
}

#[test]
fn every_event_in_every_state_does_what_rfc_4271_says() {
    let mut wrong = Vec::new();
    let mut cells = 0;
    for row in TABLE.lines().skip(2).filter(|l| !l.is_empty()) {
        let cols: Vec<&str> = row.split('|').map(str::trim).collect();
        assert_eq!(cols.len(), 7, "{row}");
        for (state, want) in STATES.into_iter().zip(&cols[1..]) {
            if *want == "-" {
                continue;
            }
            cells += 1;
            let mut p = prepare(cols[0], state);
            let (before, count) = (p.s.state(), p.s.stats().connect_retry_counter);
            let outputs = inject(cols[0], state, &mut p);
            let grown = match p.s.stats().connect_retry_counter.saturating_sub(count) {
                0 => String::new(),
                n => format!(" +{n}"),
            };
            let got = if p.s.state() == before && outputs.is_empty() && grown.is_empty() {
                "=".to_owned()
            } else {
                format!("{:?}{grown}: {outputs}", p.s.state()).trim_end().to_owned()
            };
            if got != *want {
                wrong.push(format!("{} in {state:?}:\n  want {want}\n  got  {got}", cols[0]));
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {cells} cells differ:\n{}", wrong.len(), wrong.join("\n"));
    assert!(cells > 110, "only {cells} cells");
}

#[test]
fn events_appear_in_the_history_under_their_rfc_numbers() {
    use State::*;
    let mut p = Probe::new(config());
    p.reach(Established);
    p.bytes(1, &notification(6, 4, &[]));
    p.fire();
    p.feed(Input::Failed(ConnId(2), "refused"));
    p.feed(Input::Accepted(ConnId(9)));
    let seen: Vec<(u8, State, State)> = p.s.history().map(|r| (r.event.number(), r.from, r.to)).collect();
    assert_eq!(
        seen,
        [
            (1, Idle, Connect),
            (16, Connect, OpenSent),
            (19, OpenSent, OpenConfirm),
            (26, OpenConfirm, Established),
            (25, Established, Idle),
            (13, Idle, Idle),
            (6, Idle, Connect),
            (18, Connect, Idle),
            (7, Idle, Active),
            (17, Active, OpenSent),
        ]
    );
}

#[test]
fn a_notification_is_described_and_remembered_both_ways() {
    let mut p = Probe::new(config());
    p.reach(State::Established);
    let out = p.bytes(1, &notification(6, 2, b"\x05hello"));
    let text = format!("{out:?}");
    assert!(text.contains("cease/administrative shutdown (6/2): \\\"hello\\\""), "{text}");
    assert_eq!(p.s.stats().last_received.as_ref().map(|n| (n.1.code, n.1.subcode)), Some((6, 2)));
    p.fire();
    p.feed(Input::Connected(ConnId(2)));
    p.bytes(2, &keepalive());
    assert_eq!(p.s.stats().last_sent.as_ref().map(|n| (n.1.code, n.1.subcode)), Some((5, 1)));
    let why = p.s.stats().last_down.clone().expect("it went down").1;
    assert_eq!(why, "unexpected KEEPALIVE in OpenSent");
}

#[test]
fn a_fault_names_message_and_offset() {
    let mut p = Probe::new(config());
    p.reach(State::Established);
    p.bytes(1, &bad_update());
    let why = p.s.stats().last_down.clone().expect("it went down").1;
    assert!(why.starts_with("UPDATE: ") && why.contains("at byte "), "{why}");
}
