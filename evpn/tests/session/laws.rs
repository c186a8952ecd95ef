//! Random sequences of events. The laws themselves are in [`Probe`]: nothing after a hangup, NOTIFICATION then
//! hangup, one Established connection, no timer left in the past, nothing leaked, everything bounded.

use crate::kit::{
    Probe, bad_update, config, end_of_rib, keepalive, notification, open_bytes, peer_open, refresh,
};
use bytes::Bytes;
use evpn::session::{Config, Input, State};
use evpn::types::{ConnId, RouterId, Span};
use evpn::wire::{Open, RefreshKind};
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Op {
    Start,
    Stop,
    Reject,
    Accept,
    /// The dial under way.
    Connected,
    Failed,
    /// Octets on the n-th connection from the newest.
    Bytes(usize, Bytes),
    Closed(usize),
    Advance(u64),
    Fire,
    Sent,
}

fn message() -> impl Strategy<Value = Bytes> {
    let open = (any::<[bool; 3]>(), prop_oneof![Just(0u16), Just(3), Just(90)]).prop_map(|(f, hold_time)| {
        let mut o = Open { hold_time, ..peer_open() };
        if f[0] {
            o.id = RouterId::new(10, 0, 0, 3);
        }
        if f[1] && f[2] {
            o.capabilities.clear();
        }
        open_bytes(o)
    });
    let bad_as = Just(open_bytes(Open { my_as: 1, capabilities: Vec::new(), ..peer_open() }));
    let sound = prop_oneof![
        6 => open,
        6 => Just(keepalive()),
        3 => Just(end_of_rib()),
        1 => Just(refresh(RefreshKind::Request)),
        1 => Just(refresh(RefreshKind::Unknown(9))),
        1 => (0u8..9, 0u8..11).prop_map(|(c, s)| notification(c, s, b"\x02hi")),
        1 => Just(bad_update()),
        1 => bad_as,
    ];
    prop_oneof![
        12 => sound.clone(),
        // In pieces, in a row, cut off, and no message at all.
        2 => (sound.clone(), 1usize..40).prop_map(|(b, n)| b.slice(..n.min(b.len()))),
        2 => (sound.clone(), 1usize..40).prop_map(|(b, n)| b.slice(n.min(b.len())..)),
        2 => prop::collection::vec(sound, 2..5).prop_map(|v| Bytes::from(v.concat())),
        1 => prop::collection::vec(any::<u8>(), 0..80).prop_map(Bytes::from),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        2 => Just(Op::Start),
        1 => Just(Op::Stop),
        1 => Just(Op::Reject),
        4 => Just(Op::Accept),
        4 => Just(Op::Connected),
        1 => Just(Op::Failed),
        16 => (0usize..3, message()).prop_map(|(n, b)| Op::Bytes(n, b)),
        2 => (0usize..3).prop_map(Op::Closed),
        2 => (0u64..20_000).prop_map(Op::Advance),
        3 => Just(Op::Fire),
        1 => Just(Op::Sent),
    ]
}

/// A driver that knows which connections it holds.
struct World {
    p: Probe,
    accepted: u64,
    conns: Vec<ConnId>,
    dial: Option<ConnId>,
}

impl World {
    fn apply(&mut self, op: &Op) {
        let nth = |w: &Self, n: usize| w.conns.iter().rev().nth(n).copied();
        match op {
            Op::Start => self.feed(Input::Start),
            Op::Stop => self.feed(Input::Stop { subcode: 2, data: Bytes::from_static(b"\x03bye") }),
            Op::Reject => self.feed(Input::Reject { subcode: 8 }),
            Op::Accept => {
                self.accepted += 1;
                let id = ConnId(1 << 32 | self.accepted);
                self.conns.push(id);
                self.feed(Input::Accepted(id));
            }
            Op::Connected => {
                if let Some(id) = self.dial.take() {
                    self.conns.push(id);
                    self.feed(Input::Connected(id));
                }
            }
            Op::Failed => {
                if let Some(id) = self.dial.take() {
                    self.feed(Input::Failed(id, "refused"));
                }
            }
            Op::Bytes(n, b) => {
                if let Some(id) = nth(self, *n) {
                    self.feed(Input::Bytes(id, b));
                }
            }
            Op::Closed(n) => {
                if let Some(id) = nth(self, *n) {
                    self.conns.retain(|c| *c != id);
                    self.feed(Input::Closed(id, "closed"));
                }
            }
            Op::Advance(ms) => {
                self.p.now = self.p.now + Span::millis(*ms);
                self.feed(Input::Timer);
            }
            Op::Fire => {
                if let Some((at, _)) = self.p.s.poll_timeout() {
                    self.p.now = self.p.now.max(at);
                    self.feed(Input::Timer);
                }
            }
            Op::Sent => {
                let now = self.p.now;
                self.p.s.note_sent(now);
            }
        }
    }

    fn feed(&mut self, input: Input<'_>) {
        use evpn::session::Output;
        for o in self.p.feed(input) {
            match o {
                Output::Dial(c) => self.dial = Some(c),
                Output::Hangup(c) => {
                    self.conns.retain(|x| *x != c);
                    self.dial = self.dial.filter(|d| *d != c);
                }
                _ => {}
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn the_laws_hold_over_every_sequence_of_events(
        ops in prop::collection::vec(op(), 1..120), passive: bool, seed: u64, hold in prop_oneof![Just(0u16), Just(3), Just(90)],
    ) {
        let c = Config { passive, seed, hold_time: hold, ..config() };
        let mut w = World { p: Probe::new(c), accepted: 0, conns: Vec::new(), dial: None };
        for op in &ops {
            w.apply(op);
        }

        // From here on the peer is silent: what waits for it ends.
        let (from, silence) = (w.p.now, Span::secs(241));
        let endless = w.p.s.established().is_some_and(|e| e.1.hold_time == 0);
        let opening = w.p.s.peer_open().is_some() && hold == 0;
        let mut fired = 0;
        while let Some((at, _)) = w.p.s.poll_timeout().filter(|t| t.0.since(from) <= silence) {
            w.p.now = w.p.now.max(at);
            w.feed(Input::Timer);
            fired += 1;
            prop_assert!(fired < 2000, "{} timers in {}", fired, w.p.now.since(from));
        }
        if !endless {
            prop_assert_ne!(w.p.s.state(), State::Established);
            let open_confirm_without_timers = opening || w.p.s.peer_open().is_some();
            prop_assert!(
                w.conns.is_empty() || open_confirm_without_timers,
                "{:?} outlived the silence in {:?}", w.conns, w.p.s.state()
            );
        }
        w.apply(&Op::Stop);
        prop_assert_eq!(w.p.s.state(), State::Idle);
        prop_assert_eq!(w.p.s.poll_timeout(), None);
        prop_assert!(w.conns.is_empty() && w.dial.is_none(), "a stop leaves nothing behind");
    }

    #[test]
    fn how_octets_are_cut_changes_nothing(cuts in prop::collection::vec(1usize..70, 1..60), seed: u64) {
        let mut stream = open_bytes(peer_open()).to_vec();
        stream.extend_from_slice(&keepalive());
        for i in 0..20u8 {
            stream.extend_from_slice(if i % 3 == 0 { keepalive() } else { end_of_rib() }.as_ref());
        }
        stream.extend_from_slice(&notification(6, 4, b""));
        let run = |cuts: &[usize]| {
            let mut p = Probe::new(Config { seed, ..config() });
            p.reach(State::OpenSent);
            let mut out = Vec::new();
            let mut rest = &stream[..];
            for n in cuts.iter().chain(std::iter::repeat(&70)) {
                let (now, later) = rest.split_at((*n).min(rest.len()));
                out.extend(p.bytes(1, now));
                rest = later;
                if rest.is_empty() {
                    break;
                }
            }
            crate::kit::digest(&out)
        };
        prop_assert_eq!(run(&cuts), run(&[stream.len()]));
    }
}
