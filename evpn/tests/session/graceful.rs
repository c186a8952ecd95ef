//! Graceful restart as one session sees it: BGP-GR-01 to -04, -09, -10, -15, -16, BGP-LLGR-01, -02, BGP-COLL-03.

use crate::kit::{Probe, config, digest, keepalive, notification, open_bytes, peer_open};
use bytes::Bytes;
use evpn::session::{Config, Graceful, GracefulMode, Input, Output, State};
use evpn::types::{ConnId, Span};
use evpn::wire::{Capability, Family, GrFamily, LlgrFamily, Message, Notification, Open};

fn capability(restarting: bool, notification: bool, families: &[(Family, bool)]) -> Capability {
    let families =
        families.iter().map(|(family, forwarding)| GrFamily { family: *family, forwarding: *forwarding });
    Capability::GracefulRestart { restarting, notification, time: 77, families: families.collect() }
}

/// The peer's OPEN with these on top.
fn with(more: impl IntoIterator<Item = Capability>) -> Open {
    let mut open = peer_open();
    open.capabilities.extend(more);
    open
}

/// A peer that restarts gracefully; `n`: it knows of RFC 8538.
fn peer(n: bool) -> Open {
    with([capability(false, n, &[(Family::EVPN, true)])])
}

fn up(config: Config, open: Open) -> Probe {
    let mut p = Probe::new(config);
    p.feed(Input::Start);
    p.feed(Input::Connected(ConnId(1)));
    p.bytes(1, &open_bytes(open));
    p.bytes(1, &keepalive());
    assert_eq!(p.s.state(), State::Established);
    p
}

fn our_open(out: &[Output]) -> Open {
    let sent = out.iter().find_map(|o| match o {
        Output::Send(_, b) if b[18] == 1 => Some(b.clone()),
        _ => None,
    });
    let ctx = evpn::wire::DecodeCtx { max_len: 4096, ..Default::default() };
    match evpn::wire::decode(&sent.expect("an OPEN"), &ctx).expect("it decodes").message {
        Message::Open(o) => o,
        m => panic!("{m:?}"),
    }
}

fn open_of(p: &mut Probe) -> Open {
    p.feed(Input::Start);
    our_open(&p.feed(Input::Connected(ConnId(1))))
}

/// Whether the routes stay, and the NOTIFICATION that was sent.
fn down(out: &[Output]) -> (bool, Option<Notification>) {
    let found = out.iter().find_map(|o| match o {
        Output::Down { was_up: true, kept, sent, .. } => Some((*kept, sent.clone())),
        _ => None,
    });
    found.expect("the session went down")
}

/// BGP-GR-01, -02, -03, BGP-LLGR-01
#[test]
fn our_open_says_what_we_are() {
    let first = open_of(&mut Probe::new(config()));
    let gr = |r, f| Capability::GracefulRestart {
        restarting: r,
        notification: true,
        time: 120,
        families: vec![GrFamily { family: Family::EVPN, forwarding: f }],
    };
    assert_eq!(first.graceful_restart(), Some(&gr(false, false)), "nothing was there before");
    assert!(first.llgr().is_empty(), "off by default");

    let mut p = Probe::new(config());
    p.s.set_restarting(true, true);
    assert_eq!(open_of(&mut p).graceful_restart(), Some(&gr(true, true)));
    // Selection is over: the next OPEN is that of somebody who has not restarted and forwards.
    p.s.set_restarting(false, true);
    p.feed(Input::Closed(ConnId(1), "gone"));
    let (_, out) = p.fire();
    let Some(Output::Dial(conn)) = out.first() else { panic!("{}", digest(&out)) };
    let again = our_open(&p.feed(Input::Connected(*conn)));
    assert_eq!(again.graceful_restart(), Some(&gr(false, true)));

    let mode = |mode, long_lived| Config {
        graceful: Graceful { mode, long_lived, restart_time: 5000, ..Graceful::default() },
        ..config()
    };
    let helper = open_of(&mut Probe::new(mode(GracefulMode::Helper, 60)));
    let Some(Capability::GracefulRestart { notification: true, time: 4095, families, .. }) =
        helper.graceful_restart()
    else {
        panic!("{helper:?}")
    };
    assert!(families.is_empty() && helper.llgr().is_empty(), "nothing of ours is kept");
    let off = open_of(&mut Probe::new(mode(GracefulMode::Off, 0)));
    assert!(
        matches!(off.graceful_restart(), Some(Capability::GracefulRestart { notification: false, families, .. }) if families.is_empty())
    );
    let long = open_of(&mut Probe::new(mode(GracefulMode::On, 3600)));
    assert_eq!(long.llgr(), [LlgrFamily { family: Family::EVPN, forwarding: false, time: 3600 }]);
}

/// BGP-GR-02: a session that was up once has what the peer told; its loss is no restart.
#[test]
fn after_a_loss_we_have_not_restarted_and_forward() {
    let mut p = up(config(), peer(true));
    p.feed(Input::Closed(ConnId(1), "reset"));
    let (_, out) = p.fire();
    let Some(Output::Dial(conn)) = out.first() else { panic!("{}", digest(&out)) };
    let open = our_open(&p.feed(Input::Connected(*conn)));
    let Some(Capability::GracefulRestart { restarting: false, families, .. }) = open.graceful_restart()
    else {
        panic!("{open:?}")
    };
    assert_eq!(*families, [GrFamily { family: Family::EVPN, forwarding: true }]);
}

/// BGP-GR-01, -04, BGP-LLGR-02
#[test]
fn what_the_peer_says_is_what_was_agreed() {
    let agreed = |config: Config, open: Open| {
        let p = up(config, open);
        p.s.established().expect("up").1.graceful.clone()
    };
    assert_eq!(agreed(config(), peer_open()), None);
    let two = with([capability(false, false, &[]), capability(true, true, &[(Family::EVPN, true)])]);
    let got = agreed(config(), two).expect("it has the capability");
    assert!(got.restarting && got.notification, "the last one counts (BGP-GR-04)");
    assert_eq!((got.time, got.family(Family::EVPN).map(|f| f.forwarding)), (Span::secs(77), Some(true)));
    assert_eq!(got.family(Family::IPV4), None);

    let llgr = Capability::Llgr(vec![LlgrFamily { family: Family::EVPN, forwarding: true, time: 9 }]);
    let long = Config { graceful: Graceful { long_lived: 60, ..Graceful::default() }, ..config() };
    let both = || with([capability(false, true, &[(Family::EVPN, true)]), llgr.clone()]);
    assert!(agreed(config(), both()).expect("64").long_lived(Family::EVPN).is_none(), "off by default");
    let got = agreed(long.clone(), both()).expect("64");
    assert_eq!(got.long_lived(Family::EVPN).map(|l| l.time), Some(9));
    assert_eq!(agreed(long, with([llgr.clone()])), None, "71 without 64 is nothing (BGP-LLGR-02)");
    let off = Graceful { mode: GracefulMode::Off, ..Graceful::default() };
    assert_eq!(agreed(Config { graceful: off, ..config() }, both()), None);
}

/// BGP-GR-09, BGP-GR-15, BGP-FSM-11
#[test]
fn which_ends_keep_the_routes() {
    let lost = |p: &mut Probe| p.feed(Input::Closed(ConnId(1), "reset"));
    let silent = |p: &mut Probe| {
        p.now = p.now + Span::secs(90);
        p.feed(Input::Timer)
    };
    let told = |code, subcode| move |p: &mut Probe| p.bytes(1, &notification(code, subcode, &[]));
    let hard = |p: &mut Probe| p.bytes(1, &notification(6, 9, &[6, 2]));
    let fault = |p: &mut Probe| p.bytes(1, &crate::kit::bad_update());
    type Ends<'a> = Vec<(&'a str, Box<dyn Fn(&mut Probe) -> Vec<Output>>, [bool; 3])>;
    // Without the capability, with it, and with N, too.
    let ends: Ends<'_> = vec![
        ("TCP", Box::new(lost), [false, true, true]),
        ("hold timer", Box::new(silent), [false, false, true]),
        ("told 6/4", Box::new(told(6, 4)), [false, false, true]),
        ("told 3/1", Box::new(told(3, 1)), [false, false, true]),
        ("told 4/0", Box::new(told(4, 0)), [false, false, true]),
        ("hard reset", Box::new(hard), [false, false, false]),
        ("its fault", Box::new(fault), [false, false, true]),
    ];
    for (name, end, expected) in ends {
        for (open, keeps) in [peer_open(), peer(false), peer(true)].into_iter().zip(expected) {
            let mut p = up(config(), open);
            assert_eq!(down(&end(&mut p)).0, keeps, "{name}");
        }
    }
}

/// BGP-GR-16: vector NOTIF-06 is such a NOTIFICATION; `evpn/tests/vectors.rs` reads and writes it.
#[test]
fn what_is_to_flush_goes_inside_a_hard_reset_to_those_who_know_it() {
    let text = Notification::shutdown(2, "bye");
    let stop = |subcode, data: &Bytes| Input::Stop { subcode, data: data.clone() };
    let mut p = up(config(), peer(true));
    let (kept, sent) = down(&p.feed(stop(2, &text.data)));
    let sent = sent.expect("told");
    assert_eq!((kept, sent.code, sent.subcode), (false, 6, 9));
    assert_eq!(sent.hard_reset_reason(), Some(text.clone()), "with the text inside");
    let mut p = up(config(), peer(false));
    assert_eq!(down(&p.feed(stop(2, &text.data))), (false, Some(text)), "not to peers without N");

    let none = Bytes::new();
    for (subcode, hard_reset, as_9) in [
        (1, false, true),
        (3, false, true),
        (10, false, true),
        (4, false, false),
        (4, true, true),
        (8, false, false),
    ] {
        let graceful = Graceful { hard_reset, ..Graceful::default() };
        let mut p = up(Config { graceful, ..config() }, peer(true));
        let (kept, sent) = down(&p.feed(stop(subcode, &none)));
        let sent = sent.expect("told");
        assert_eq!(sent.subcode == 9, as_9, "{subcode}");
        assert_eq!(kept, !as_9, "{subcode}: both sides do the same");
    }
}

/// RFC 4724 §4: who comes back does not ask to be forgotten.
#[test]
fn going_away_asks_nobody_to_forget_who_would_not() {
    for (open, expected) in [
        (peer_open(), "6/2 on 1, hangup 1, down"),
        (peer(false), "hangup 1, down"),
        (peer(true), "6/4 0a72657374617274696e67 on 1, hangup 1, down"),
    ] {
        let mut p = up(config(), open);
        assert_eq!(digest(&p.feed(Input::Away)), expected);
        assert_eq!(p.s.state(), State::Idle);
    }
    // Nor is a reset that is otherwise hard, hard now; who has not asked to be kept is forgotten.
    let mode = |mode, hard_reset| Config {
        graceful: Graceful { mode, hard_reset, ..Graceful::default() },
        ..config()
    };
    let out = up(mode(GracefulMode::On, true), peer(true)).feed(Input::Away);
    assert!(digest(&out).starts_with("6/4 "), "{}", digest(&out));
    let out = up(mode(GracefulMode::Helper, false), peer(true)).feed(Input::Away);
    assert_eq!(digest(&out), "6/9 0602 on 1, hangup 1, down");
}

/// BGP-GR-10, BGP-COLL-03
#[test]
fn a_new_connection_of_a_peer_that_restarts_replaces_the_old_one() {
    let second = |open: Open, after: Span| {
        let mut p = up(config(), open.clone());
        p.now = p.now + after;
        p.feed(Input::Accepted(ConnId(9)));
        let out = p.bytes(9, &open_bytes(open));
        (p, out)
    };
    let (mut p, out) = second(peer(false), Span::secs(5));
    assert_eq!(digest(&out), "hangup 1, down, KEEPALIVE on 9", "without a NOTIFICATION");
    assert!(down(&out).0, "its routes stay");
    assert_eq!(digest(&p.bytes(9, &keepalive())), "up 9");
    // Without the capability the new one goes, and so it does where it may have been under way when the first came up.
    let (p, out) = second(peer_open(), Span::secs(5));
    assert_eq!((digest(&out).as_str(), p.s.state()), ("6/7 on 9, hangup 9, note", State::Established));
    let (p, out) = second(peer(true), Span::millis(900));
    assert_eq!((digest(&out).as_str(), p.s.state()), ("6/7 on 9, hangup 9, note", State::Established));
    // An attacker from that address needs a whole OPEN: a connection alone does nothing.
    let mut p = up(config(), peer(true));
    p.now = p.now + Span::secs(5);
    p.feed(Input::Accepted(ConnId(9)));
    assert_eq!(p.s.state(), State::Established);
    p.bytes(9, &notification(6, 5, &[]));
    assert_eq!(p.s.state(), State::Established);
}
