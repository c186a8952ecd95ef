//! A session driven by fuzzed events and octets, with the laws that always hold.

use evpn::session::{Config, Graceful, Input, Output, Session, State};
use evpn::types::{Asn, ConnId, RouterId, Span, Time};
use evpn::wire::{
    Capability, EncodeCtx, Family, Message, Notification, Open, Refresh, RefreshKind, Update, end_of_rib,
};
use std::collections::BTreeSet;

/// A driver: which connections it holds for the session, and what it was told.
struct World {
    session: Session,
    now: Time,
    next: u64,
    /// Connected ones, oldest first.
    conns: Vec<ConnId>,
    dial: Option<ConnId>,
    hung_up: BTreeSet<ConnId>,
    up: Option<ConnId>,
}

/// First octet: bit 0 passive, 1 extended messages, 2 hold time 9, 3 hold time 0. Then one event after the
/// other: an octet that says which, and what it needs.
pub fn session(data: &[u8]) {
    let Some((choice, mut rest)) = data.split_first() else { return };
    let mut w = World {
        session: Session::new(Config {
            hold_time: if choice & 8 != 0 {
                0
            } else if choice & 4 != 0 {
                9
            } else {
                90
            },
            send_hold_time: None,
            connect_retry: Span::secs(5),
            passive: choice & 1 != 0,
            extended_message: choice & 2 != 0,
            graceful: Graceful::default(),
            seed: u64::from(*choice),
            ..Config::new(Asn(65000), Asn(65000).into(), RouterId::new(10, 0, 0, 2))
        }),
        now: Time(0),
        next: 0,
        conns: Vec::new(),
        dial: None,
        hung_up: BTreeSet::new(),
        up: None,
    };
    w.feed(Input::Start);
    while let Some(op) = take(&mut rest) {
        w.apply(op, &mut rest);
    }
    w.feed(Input::Stop { subcode: 2, data: bytes_of(b"\x03bye") });
    assert_eq!((w.session.state(), w.session.poll_timeout()), (State::Idle, None));
    assert!(w.conns.is_empty() && w.dial.is_none(), "a stop leaves nothing behind");
}

fn take(rest: &mut &[u8]) -> Option<u8> {
    let (first, later) = rest.split_first()?;
    *rest = later;
    Some(*first)
}

fn bytes_of(b: &[u8]) -> bytes::Bytes {
    bytes::Bytes::copy_from_slice(b)
}

/// A sound message, or nearly.
fn message(kind: u8, detail: u8) -> Vec<u8> {
    let m = match kind % 6 {
        0 => Message::Open(Open {
            my_as: if detail & 1 != 0 { 65001 } else { 65000 },
            hold_time: [90, 0, 3, 9][usize::from(detail >> 1 & 3)],
            id: RouterId::new(10, 0, 0, if detail & 8 != 0 { 3 } else { 1 }),
            capabilities: if detail & 16 != 0 {
                Vec::new()
            } else {
                vec![
                    Capability::Multiprotocol(Family::EVPN),
                    Capability::RouteRefresh,
                    Capability::ExtendedMessage,
                    Capability::EnhancedRefresh,
                ]
            },
            extended: detail & 32 != 0,
        }),
        1 => Message::Keepalive,
        2 => return end_of_rib(Family::EVPN).to_vec(),
        3 => Message::Notification(Notification {
            code: detail >> 4,
            subcode: detail & 15,
            data: bytes_of(b"\x02hi"),
        }),
        4 => Message::Refresh(Refresh {
            family: Family::EVPN,
            kind: match detail {
                0 => RefreshKind::Request,
                1 => RefreshKind::Begin,
                2 => RefreshKind::End,
                n => RefreshKind::Unknown(n),
            },
        }),
        _ => Message::Update(Update::default()),
    };
    m.encode(&EncodeCtx::default()).to_vec()
}

impl World {
    fn apply(&mut self, op: u8, rest: &mut &[u8]) {
        let which = usize::from(op >> 4 & 3);
        let conn = self.conns.iter().rev().nth(which).copied();
        match op & 15 {
            0 => self.feed(Input::Start),
            1 => self.feed(Input::Stop { subcode: op >> 4, data: bytes_of(b"") }),
            2 => self.feed(Input::Reject { subcode: 8 }),
            3 | 4 => {
                self.next += 1;
                let id = ConnId(1 << 32 | self.next);
                self.conns.push(id);
                self.feed(Input::Accepted(id));
            }
            5 | 6 => {
                if let Some(id) = self.dial.take() {
                    self.conns.push(id);
                    self.feed(Input::Connected(id));
                }
            }
            7 => {
                if let Some(id) = self.dial.take() {
                    self.feed(Input::Failed(id, "refused"));
                }
            }
            8 => {
                if let Some(id) = conn {
                    self.conns.retain(|c| *c != id);
                    self.feed(Input::Closed(id, "closed"));
                }
            }
            9 => {
                self.now = self.now + Span::millis(u64::from(take(rest).unwrap_or(0)) * 100);
                self.feed(Input::Timer);
            }
            10 => {
                if let Some((at, _)) = self.session.poll_timeout() {
                    self.now = self.now.max(at);
                    self.feed(Input::Timer);
                }
            }
            11 => self.session.note_sent(self.now),
            // Octets as they are: so many as the next octet says.
            12 => {
                let len = usize::from(take(rest).unwrap_or(0)).min(rest.len());
                let (now, later) = rest.split_at(len);
                *rest = later;
                if let Some(id) = conn {
                    self.feed(Input::Bytes(id, now));
                }
            }
            // A message, whole or in two pieces.
            _ => {
                let (kind, detail) = (take(rest).unwrap_or(1), take(rest).unwrap_or(0));
                let m = message(kind, detail);
                if let Some(id) = conn {
                    let (a, b) = m.split_at(usize::from(kind / 6).min(m.len()));
                    self.feed(Input::Bytes(id, a));
                    self.feed(Input::Bytes(id, b));
                }
            }
        }
    }

    fn feed(&mut self, input: Input<'_>) {
        let timer = matches!(input, Input::Timer);
        let mut out = Vec::new();
        let next = &mut self.next;
        let mut ids = || {
            *next += 1;
            ConnId(*next)
        };
        self.session.handle(input, self.now, &mut ids, &mut out);
        let mut hang_up = None;
        for o in &out {
            if let Some(c) = hang_up.take() {
                assert!(matches!(o, Output::Hangup(x) if *x == c), "after a NOTIFICATION: {o:?}");
            }
            match o {
                Output::Dial(c) => {
                    assert_eq!(self.dial.replace(*c), None, "two dials");
                }
                Output::Send(c, b) => {
                    assert!(!self.hung_up.contains(c), "sent after a hangup");
                    if b[18] == 3 {
                        hang_up = Some(*c);
                    }
                }
                Output::Hangup(c) => {
                    assert!(self.hung_up.insert(*c), "hung up twice");
                    self.conns.retain(|x| x != c);
                    self.dial = self.dial.filter(|d| d != c);
                }
                Output::Up(c, _) => assert_eq!(self.up.replace(*c), None, "two connections up"),
                Output::Down { was_up, why, .. } => {
                    assert_eq!(*was_up, self.up.take().is_some());
                    assert!(why.len() < 2000, "{} octets of reason", why.len());
                }
                Output::Update { .. } | Output::Refresh(_) | Output::Note(_) => {}
            }
        }
        assert_eq!(hang_up, None, "a NOTIFICATION without a hangup");
        assert_eq!(self.session.established().map(|e| e.0), self.up);
        assert!(
            self.conns.iter().chain(&self.dial).all(|c| self.session.owns(*c)),
            "a connection is forgotten"
        );
        assert!(self.conns.len() <= Session::MAX_CONNS);
        assert!(self.session.buffered() <= 65535 * Session::MAX_CONNS);
        if timer && let Some((at, why)) = self.session.poll_timeout() {
            assert!(at > self.now, "{why} stays due");
        }
    }
}
