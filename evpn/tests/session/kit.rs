//! A session under observation: every output is checked against the laws that hold always.

use bytes::Bytes;
use evpn::session::{Config, Input, Output, Session, State};
use evpn::types::{Asn, ConnId, RouterId, Span, Time};
use evpn::wire::{Capability, EncodeCtx, Family, Message, Notification, Open, Refresh, RefreshKind, Update};
use std::collections::BTreeSet;

pub(crate) const US: Asn = Asn(65000);
pub(crate) const OUR_ID: RouterId = RouterId::new(10, 0, 0, 2);

pub(crate) fn config() -> Config {
    Config { connect_retry: Span::secs(5), ..Config::new(US, US.into(), OUR_ID) }
}

/// What the peer sends; by default its OPEN fits ours and its identifier is lower.
pub(crate) fn peer_open() -> Open {
    Open {
        my_as: 65000,
        hold_time: 90,
        id: RouterId::new(10, 0, 0, 1),
        capabilities: vec![
            Capability::Multiprotocol(Family::EVPN),
            Capability::RouteRefresh,
            Capability::ExtendedMessage,
            Capability::As4(US),
        ],
        extended: false,
    }
}

pub(crate) fn encode(m: &Message) -> Bytes {
    m.encode(&EncodeCtx::default())
}
pub(crate) fn open_bytes(o: Open) -> Bytes {
    encode(&Message::Open(o))
}
pub(crate) fn keepalive() -> Bytes {
    encode(&Message::Keepalive)
}
pub(crate) fn end_of_rib() -> Bytes {
    encode(&Message::Update(Update::default()))
}
pub(crate) fn refresh(kind: RefreshKind) -> Bytes {
    encode(&Message::Refresh(Refresh { family: Family::EVPN, kind }))
}
pub(crate) fn notification(code: u8, subcode: u8, data: &[u8]) -> Bytes {
    encode(&Message::Notification(Notification { code, subcode, data: Bytes::copy_from_slice(data) }))
}
/// An UPDATE whose withdrawn length overruns it: 3/1.
pub(crate) fn bad_update() -> Bytes {
    let mut b = end_of_rib().to_vec();
    b[19] = 0xff;
    b.into()
}
pub(crate) fn hex(b: &[u8]) -> String {
    b.iter().fold(String::new(), |s, b| s + &format!("{b:02x}"))
}
/// A session, its clock, and the laws.
#[derive(Debug)]
pub(crate) struct Probe {
    pub(crate) s: Session,
    pub(crate) now: Time,
    next_id: u64,
    hung_up: BTreeSet<ConnId>,
    /// Connections and dials that the driver holds for the session.
    held: BTreeSet<ConnId>,
    up: Option<ConnId>,
}

impl Probe {
    pub(crate) fn new(config: Config) -> Self {
        Self {
            s: Session::new(config),
            now: Time(0),
            next_id: 0,
            hung_up: BTreeSet::new(),
            held: BTreeSet::new(),
            up: None,
        }
    }

    /// Hands in an input and checks what comes out.
    pub(crate) fn feed(&mut self, input: Input<'_>) -> Vec<Output> {
        let mut out = Vec::new();
        let timer = matches!(input, Input::Timer);
        match input {
            Input::Accepted(c) => {
                self.held.insert(c);
            }
            Input::Failed(c, _) | Input::Closed(c, _) => {
                self.held.remove(&c);
            }
            _ => {}
        }
        let next_id = &mut self.next_id;
        let mut ids = || {
            *next_id += 1;
            ConnId(*next_id)
        };
        self.s.handle(input, self.now, &mut ids, &mut out);
        self.check(&out);
        if timer && let Some((due, why)) = self.s.poll_timeout() {
            assert!(due > self.now, "{why} is due at {due:?} although the timer just ran at {:?}", self.now);
        }
        out
    }

    fn check(&mut self, out: &[Output]) {
        let mut must_hang_up = None;
        for o in out {
            if let Some(conn) = must_hang_up.take() {
                assert!(
                    matches!(o, Output::Hangup(c) if *c == conn),
                    "a NOTIFICATION on {conn:?} is followed by {o:?}"
                );
            }
            match o {
                Output::Dial(c) | Output::Send(c, _) | Output::Hangup(c) | Output::Up(c, _) => {
                    assert!(!self.hung_up.contains(c), "{o:?} after hanging up");
                }
                _ => {}
            }
            match o {
                Output::Send(c, b) if b[18] == 3 => must_hang_up = Some(*c),
                Output::Dial(c) => {
                    self.held.insert(*c);
                }
                Output::Hangup(c) => {
                    self.held.remove(c);
                    self.hung_up.insert(*c);
                }
                Output::Up(c, _) => {
                    assert_eq!(self.up, None, "a second connection came up");
                    self.up = Some(*c);
                }
                Output::Down { was_up, .. } => {
                    assert_eq!(*was_up, self.up.is_some(), "Down does not agree with Up");
                    self.up = None;
                }
                _ => {}
            }
        }
        assert_eq!(must_hang_up, None, "a NOTIFICATION without a hangup");
        assert_eq!(
            self.s.established().map(|e| e.0),
            self.up,
            "established() does not agree with Up and Down"
        );
        assert_eq!(self.s.state() == State::Established, self.up.is_some());
        for c in &self.held {
            assert!(self.s.owns(*c), "{c:?} is forgotten but not hung up");
        }
        assert!(self.held.len() <= Session::MAX_CONNS + 1, "{:?}", self.held);
        assert!(self.s.buffered() <= 65535 * Session::MAX_CONNS);
        assert!(self.s.history().count() <= 32);
    }

    pub(crate) fn bytes(&mut self, conn: u64, b: &[u8]) -> Vec<Output> {
        self.feed(Input::Bytes(ConnId(conn), b))
    }

    pub(crate) fn advance(&mut self, by: Span) -> Vec<Output> {
        self.now = self.now + by;
        self.feed(Input::Timer)
    }

    /// Goes to the next deadline and fires it.
    pub(crate) fn fire(&mut self) -> (&'static str, Vec<Output>) {
        let (at, why) = self.s.poll_timeout().expect("a timer runs");
        self.now = self.now.max(at);
        (why, self.feed(Input::Timer))
    }

    /// Dials (connection 1) and goes on to `state`.
    pub(crate) fn reach(&mut self, state: State) {
        if state >= State::Connect {
            self.feed(Input::Start);
        }
        if state >= State::Active {
            self.feed(Input::Connected(ConnId(1)));
        }
        if state == State::Active {
            self.feed(Input::Closed(ConnId(1), "closed"));
        }
        if state >= State::OpenConfirm {
            self.bytes(1, &open_bytes(peer_open()));
        }
        if state >= State::Established {
            self.bytes(1, &keepalive());
        }
        assert_eq!(self.s.state(), state);
    }
}

/// Outputs in short words, one each.
pub(crate) fn digest(out: &[Output]) -> String {
    out.iter().map(word).collect::<Vec<_>>().join(", ")
}

fn word(o: &Output) -> String {
    match o {
        Output::Dial(c) => format!("dial {}", c.0),
        Output::Send(c, b) => match b[18] {
            1 => format!("OPEN on {}", c.0),
            2 => format!("UPDATE on {}", c.0),
            3 if b.len() > 21 => format!("{}/{} {} on {}", b[19], b[20], hex(&b[21..]), c.0),
            3 => format!("{}/{} on {}", b[19], b[20], c.0),
            4 => format!("KEEPALIVE on {}", c.0),
            n => format!("type {n} on {}", c.0),
        },
        Output::Hangup(c) => format!("hangup {}", c.0),
        Output::Up(c, _) => format!("up {}", c.0),
        Output::Down { was_up: true, .. } => "down".to_owned(),
        Output::Down { was_up: false, .. } => "failed".to_owned(),
        Output::Update { .. } => "update".to_owned(),
        Output::Refresh(_) => "refresh".to_owned(),
        Output::Note(_) => "note".to_owned(),
    }
}
