//! What an operator does to a neighbour and sees of it: shutdown and reset with a text, refresh, the detailed view.

mod world;

use bytes::Bytes;
use evpn::node::view::NeighborDetail;
use evpn::node::{
    Command, ConnEvent, Event, NeighborAction, NeighborConfig, NeighborReply, NeighborRequest, NeighborRules,
    PrefixAction, PrefixLimit, Reply,
};
use evpn::types::{Asn, ConnId, Span};
use evpn::wire::{self, Capability, EncodeCtx, Family, Message, Open};
use std::net::{IpAddr, Ipv4Addr};
use world::{World, vtep};

const PEER: Ipv4Addr = Ipv4Addr::new(10, 255, 0, 9);

fn act(w: &mut World, i: usize, name: &str, action: NeighborAction) -> Reply {
    w.command(i, Command::Neighbor(NeighborRequest { name: name.into(), action }))
}

/// What was done, and the state after it.
fn done(w: &mut World, i: usize, name: &str, action: NeighborAction) -> (String, String) {
    match act(w, i, name, action) {
        Reply::Neighbor(NeighborReply::Done { did, state, .. }) => (did, state),
        other => panic!("{other:?}"),
    }
}

fn refused(w: &mut World, i: usize, name: &str, action: NeighborAction) -> (bool, String) {
    match act(w, i, name, action) {
        Reply::NeighborRefused { unknown, text } => (unknown, text),
        other => panic!("{other:?}"),
    }
}

fn detail(w: &mut World, i: usize, name: &str) -> NeighborDetail {
    match act(w, i, name, NeighborAction::Show) {
        Reply::Neighbor(NeighborReply::Detail(d)) => *d,
        other => panic!("{other:?}"),
    }
}

fn shutdown(text: &str) -> NeighborAction {
    NeighborAction::Shutdown { message: text.into() }
}

fn refresh(inbound: bool, outbound: bool) -> NeighborAction {
    NeighborAction::Refresh { inbound, outbound }
}

/// A peer from outside, established with node 0 of one, with these capabilities besides EVPN.
fn with_peer(rules: NeighborRules, more: &[Capability]) -> (World, ConnId) {
    let mut w = World::with(1, Span::millis(1), |c| {
        c.neighbors.push(NeighborConfig {
            passive: true,
            description: Some("the other one".into()),
            rules: rules.clone(),
            ..NeighborConfig::new(PEER.into(), Asn(65000).into())
        });
    });
    w.run_for(Span::millis(100));
    let conn = connect(&mut w, more);
    (w, conn)
}

fn connect(w: &mut World, more: &[Capability]) -> ConnId {
    let conn = w.accept(0, PEER.into());
    let mut capabilities = vec![Capability::Multiprotocol(Family::EVPN), Capability::As4(Asn(65000))];
    capabilities.extend_from_slice(more);
    let open = Open { my_as: 65000, hold_time: 0, id: PEER, capabilities, extended: false };
    say(w, conn, &Message::Open(open).encode(&EncodeCtx::default()));
    say(w, conn, &wire::keepalive());
    conn
}

fn say(w: &mut World, conn: ConnId, octets: &Bytes) {
    w.outside_event(0, conn, ConnEvent::Bytes(octets.clone()));
    w.run_for(Span::millis(10));
}

/// What the node has sent on a connection from outside, by message type.
fn heard(w: &World, conn: ConnId, kind: u8) -> Vec<Bytes> {
    let sent = w.outside.get(&(0, conn)).map(Vec::as_slice).unwrap_or_default();
    sent.iter().map(|(_, b)| b.clone()).filter(|b| b[18] == kind).collect()
}

/// BGP-SHUT-01: the text of a shutdown is shown at the far side, nothing is tried until the start, and everything may be
/// asked for twice.
#[test]
fn a_shutdown_with_its_text_is_seen_at_the_far_side_and_lasts_until_the_start() {
    let mut w = World::converged(2, Span::millis(1));
    let (a, b) = (vtep(0).to_string(), vtep(1).to_string());
    let (did, state) = done(&mut w, 0, &b, shutdown("new line card"));
    assert_eq!((did.as_str(), state.as_str()), ("shut down; the neighbour was told", "Idle"));
    w.run_for(Span::secs(1));
    let there = detail(&mut w, 1, &a);
    let told = there.notification_received.expect("it was told").text;
    assert_eq!(told, "cease/administrative shutdown (6/2): \"new line card\"");
    assert!(there.summary.last_error.is_some_and(|e| e.contains("new line card")));
    assert!(
        w.hosts[1]
            .events
            .iter()
            .any(|(_, e)| matches!(e, Event::NeighborDown { why, .. } if why.contains("\"new line card\"")))
    );
    // Here, too, and however often the other side comes.
    let here = detail(&mut w, 0, &b);
    assert_eq!(here.held_down.as_deref(), Some("shut down by an operator: \"new line card\""));
    assert!(here.notification_sent.expect("sent").text.contains("new line card"));
    w.run_for(Span::secs(300));
    let here = detail(&mut w, 0, &b);
    assert_eq!((here.summary.state.as_str(), here.summary.established_count), ("Idle", 1));
    assert!(here.connections_refused > 0, "the other side tries");
    assert_eq!(
        done(&mut w, 0, &b, shutdown("new line card")).0,
        "was shut down already; nothing was changed"
    );
    assert_eq!(done(&mut w, 0, &b, shutdown("it is broken")).0, "was down already; the reason is a new one");
    assert!(detail(&mut w, 0, &b).held_down.is_some_and(|h| h.contains("it is broken")));
    let (unknown, why) = refused(&mut w, 0, &b, NeighborAction::Reset { message: String::new() });
    assert!(!unknown && why.contains("`start` it"), "{why}");
    assert_eq!(done(&mut w, 0, &b, NeighborAction::Start).0, "started");
    w.run_for(Span::secs(130));
    assert_eq!(detail(&mut w, 0, &b).summary.state, "Established");
    assert_eq!(done(&mut w, 0, &b, NeighborAction::Start).0, "runs already; nothing was changed");
}

/// BGP-SHUT-01: the same with a reset, after which the session comes back by itself.
#[test]
fn a_reset_tells_its_text_and_the_session_comes_back() {
    let mut w = World::converged(2, Span::millis(1));
    let (a, b) = (vtep(0).to_string(), vtep(1).to_string());
    let (did, _) = done(&mut w, 0, &b, NeighborAction::Reset { message: "Grüße".into() });
    assert_eq!(did, "reset; the neighbour was told");
    w.run_for(Span::secs(130));
    let there = detail(&mut w, 1, &a);
    assert_eq!((there.summary.state.as_str(), there.summary.established_count), ("Established", 2));
    let told = there.notification_received.expect("it was told").text;
    assert_eq!(told, "cease/administrative reset (6/4): \"Grüße\"");
}

/// BGP-SHUT-02, -03: what an operator writes is sent whole or refused.
#[test]
fn a_text_that_does_not_fit_is_refused() {
    let mut w = World::converged(2, Span::millis(1));
    let b = vtep(1).to_string();
    let (unknown, why) = refused(&mut w, 0, &b, shutdown(&"ü".repeat(65)));
    assert!(!unknown && why.contains("130 octets") && why.contains("128"), "{why}");
    let (_, why) = refused(&mut w, 0, &b, NeighborAction::Reset { message: "a\nb".into() });
    assert!(why.contains("control characters"), "{why}");
    assert_eq!(detail(&mut w, 0, &b).summary.state, "Established");
    done(&mut w, 0, &b, shutdown(&"ü".repeat(64)));
    w.run_for(Span::millis(100));
    let told = detail(&mut w, 1, &vtep(0).to_string()).notification_received.expect("told").text;
    assert!(told.contains(&"ü".repeat(64)), "{told}");
}

/// BGP-SHUT-04, -05: what a peer sends as a text is shown as octets where it is none, and the session closes as usual.
#[test]
fn a_text_that_is_none_is_shown_as_octets() {
    for (data, shown) in [
        (&[3, 0xff, 0xfe, 0x41][..], "(6/2): 0x03fffe41"),
        (&[9, 0x41][..], "(6/2): 0x0941"),
        (&[][..], "(6/2)"),
        (&[2, b'a', 0x1b][..], "(6/2): \"a\\u{1b}\""),
    ] {
        let (mut w, conn) = with_peer(NeighborRules::default(), &[]);
        let n = wire::Notification { code: 6, subcode: 2, data: Bytes::copy_from_slice(data) };
        say(&mut w, conn, &Message::Notification(n).encode(&EncodeCtx::default()));
        let d = detail(&mut w, 0, "the other one");
        assert_eq!(d.summary.state, "Idle");
        let told = d.notification_received.expect("received").text;
        assert!(told.ends_with(shown), "{data:?}: {told}");
    }
}

/// A neighbour that is shut down by configuration is not tried and not let in until it is started.
#[test]
fn a_shutdown_by_configuration_lasts_until_the_start() {
    let rules = NeighborRules { shutdown: Some("later".into()), ..NeighborRules::default() };
    let (mut w, _) = with_peer(rules, &[]);
    let d = detail(&mut w, 0, &PEER.to_string());
    assert_eq!((d.summary.state.as_str(), d.summary.established_count), ("Idle", 0));
    assert_eq!(d.held_down.as_deref(), Some("shut down by an operator: \"later\""));
    assert!(d.summary.held_down);
    assert_eq!(
        done(&mut w, 0, &PEER.to_string(), NeighborAction::Start),
        ("started".into(), "Active".into())
    );
    connect(&mut w, &[]);
    assert_eq!(detail(&mut w, 0, &PEER.to_string()).summary.state, "Established");
}

/// BGP-REFR-01: asked for with capability 2 only, and our side is sent again over the session as it is.
#[test]
fn a_refresh_asks_and_sends_again_without_ending_the_session() {
    let (mut w, conn) = with_peer(NeighborRules::default(), &[Capability::RouteRefresh]);
    let before = heard(&w, conn, 2).len();
    let (did, state) = done(&mut w, 0, "the other one", refresh(true, false));
    assert_eq!((did.as_str(), state.as_str()), ("the neighbour is asked for all its routes", "Established"));
    w.run_for(Span::millis(10));
    assert_eq!(heard(&w, conn, 5).iter().map(|b| b[19..].to_vec()).collect::<Vec<_>>(), [vec![0, 25, 0, 70]]);
    assert_eq!(heard(&w, conn, 2).len(), before);
    assert_eq!(done(&mut w, 0, "the other one", refresh(false, true)).0, "it is sent all of ours");
    w.run_for(Span::millis(10));
    assert_eq!(heard(&w, conn, 5).len(), 1);
    let d = detail(&mut w, 0, "the other one");
    assert_eq!((d.sent.refresh, d.summary.established_count), (1, 1));
}

#[test]
fn a_refresh_that_is_not_possible_says_why() {
    let (mut w, conn) = with_peer(NeighborRules::default(), &[]);
    let (_, why) = refused(&mut w, 0, "the other one", refresh(true, true));
    assert!(why.contains("capability 2"), "{why}");
    assert_eq!(done(&mut w, 0, "the other one", refresh(false, true)).0, "it is sent all of ours");
    w.outside_event(0, conn, ConnEvent::Closed { why: "gone".into() });
    w.run_for(Span::millis(10));
    let (_, why) = refused(&mut w, 0, "the other one", refresh(false, true));
    assert!(why.contains("not established"), "{why}");
}

#[test]
fn a_neighbour_that_is_not_there_is_named() {
    let mut w = World::converged(2, Span::millis(1));
    let (unknown, why) = refused(&mut w, 0, "10.9.9.9", NeighborAction::Start);
    assert!(unknown && why.contains("no neighbour 10.9.9.9"), "{why}");
    let (unknown, why) = refused(&mut w, 0, "spine", NeighborAction::Show);
    assert!(unknown && why.contains("`spine` is neither"), "{why}");
}

/// Both OPENs, what follows from them, counters, the last events and messages.
#[test]
fn the_detail_says_what_both_sides_offer_and_what_was_said() {
    let unknown = Capability::Unknown { code: 128, value: Bytes::new() };
    let (mut w, conn) = with_peer(NeighborRules::default(), &[Capability::RouteRefresh, unknown]);
    say(&mut w, conn, &wire::end_of_rib(Family::EVPN));
    let d = detail(&mut w, 0, &PEER.to_string());
    let remote = d.remote.expect("its OPEN");
    assert_eq!((remote.asn, remote.router_id, remote.hold_time), (Asn(65000), IpAddr::V4(PEER), 0));
    assert_eq!(
        remote.capabilities,
        ["L2VPN EVPN", "four-octet AS 65000", "route refresh", "code 128, 0 octets"]
    );
    assert!(d.local.capabilities.contains(&"extended messages".to_owned()), "{:?}", d.local);
    assert!(d.agreed.contains(&"messages up to 4096 octets".to_owned()), "{:?}", d.agreed);
    assert_eq!((d.received.open, d.received.keepalive, d.received.update), (1, 1, 1));
    let events: Vec<u8> = d.events.iter().map(|e| e.number).collect();
    assert_eq!(events, [4, 17, 19, 26]);
    let texts: Vec<&str> = d.messages.iter().map(|m| m.text.as_str()).collect();
    assert!(texts.contains(&"OPEN AS 65000, identifier 10.255.0.9, hold time 0"), "{texts:?}");
    assert!(texts.contains(&"UPDATE End-of-RIB, family 25/70"), "{texts:?}");
    assert!(d.messages.iter().any(|m| m.sent && m.text.starts_with("UPDATE")), "{texts:?}");
}

/// UPDATE with ORIGIN of two octets: treat-as-withdraw.
fn faulty_update() -> Bytes {
    let mut attrs = vec![0x80, 14, 44, 0, 25, 70, 4, 10, 255, 0, 9, 0];
    attrs.extend([2, 33, 0, 1, 10, 255, 0, 9, 0, 1]);
    attrs.extend([0; 14]);
    attrs.extend([48, 2, 0, 0, 0, 0, 7, 0, 0, 0, 100]);
    attrs.extend([0x40, 1, 2, 0, 0, 0x40, 2, 0, 0x40, 5, 4, 0, 0, 0, 100]);
    let mut m = vec![0xff; 16];
    m.extend((23 + attrs.len() as u16).to_be_bytes());
    m.extend([2, 0, 0]);
    m.extend((attrs.len() as u16).to_be_bytes());
    m.extend(attrs);
    m.into()
}

/// BGP-ERR-28: a fault is told with its attribute, place, reaction, routes and octets, counted by attribute, and a storm of
/// them is told in part and counted in full.
#[test]
fn faults_are_told_with_routes_and_octets_and_counted() {
    let (mut w, conn) = with_peer(NeighborRules::default(), &[]);
    let update = faulty_update();
    say(&mut w, conn, &update);
    let told = |w: &World| -> Vec<Event> {
        let faults = w.hosts[0].events.iter().filter(|(_, e)| matches!(e, Event::UpdateFault { .. }));
        faults.map(|(_, e)| e.clone()).collect()
    };
    let Some(Event::UpdateFault { attribute, treatment, routes, octets, offset, .. }) = told(&w).pop() else {
        panic!("{:?}", w.hosts[0].events);
    };
    assert_eq!((attribute, treatment.as_str()), (Some(1), "treat-as-withdraw"));
    assert!(routes.contains("02:00:00:00:00:07"), "{routes}");
    let hex: String = update.iter().fold(String::new(), |s, b| s + &format!("{b:02x}"));
    assert_eq!(octets, hex);
    assert_eq!(&update[offset..offset + 2], [0x40, 1], "where the attribute is");
    for _ in 0..1000 {
        w.outside_event(0, conn, ConnEvent::Bytes(update.clone()));
    }
    w.run_for(Span::secs(2));
    say(&mut w, conn, &update);
    assert!(told(&w).len() < 40, "{} events", told(&w).len());
    assert!(
        w.hosts[0]
            .events
            .iter()
            .any(|(_, e)| matches!(e, Event::SessionNote { text, .. } if text.contains("more faults")))
    );
    let d = detail(&mut w, 0, &PEER.to_string());
    assert_eq!((d.summary.state.as_str(), d.summary.faults), ("Established", 1002));
    assert_eq!(d.faults_by.iter().map(|f| (f.attribute, f.count)).collect::<Vec<_>>(), [(Some(1), 1002)]);
    assert_eq!((d.faulty.len(), d.faulty[0].hex == hex), (4, true));
    assert_eq!(d.messages.len(), 32);
}

/// What ends a session is kept with its octets.
#[test]
fn the_message_that_ended_a_session_can_be_looked_at() {
    let (mut w, conn) = with_peer(NeighborRules::default(), &[]);
    say(&mut w, conn, &Bytes::from_static(&[0x42; 19]));
    let d = detail(&mut w, 0, &PEER.to_string());
    assert_eq!(d.summary.state, "Idle");
    assert_eq!(d.faulty.len(), 1);
    assert!(d.faulty[0].hex.starts_with("4242") && d.faulty[0].what.starts_with("header"), "{:?}", d.faulty);
    assert!(d.last_down.expect("it ended").text.contains("header"));
    assert!(d.notification_sent.expect("told").text.contains("(1/1)"));
}

/// UPDATE that announces Type-2 routes for these MACs.
fn routes(macs: std::ops::Range<u16>) -> Bytes {
    let mut reach = vec![0, 25, 70, 4, 10, 255, 0, 9, 0];
    for n in macs {
        reach.extend([2, 33, 0, 1, 10, 255, 0, 9, 0, 1]);
        reach.extend([0; 14]);
        let [a, b] = n.to_be_bytes();
        reach.extend([48, 2, 0, 0, 0, a, b, 0, 0, 0, 100]);
    }
    let mut attrs = vec![0x90, 14];
    attrs.extend((reach.len() as u16).to_be_bytes());
    attrs.extend(reach);
    attrs.extend([0x40, 1, 1, 0, 0x40, 2, 0, 0x40, 5, 4, 0, 0, 0, 100]);
    let mut m = vec![0xff; 16];
    m.extend((23 + attrs.len() as u16).to_be_bytes());
    m.extend([2, 0, 0]);
    m.extend((attrs.len() as u16).to_be_bytes());
    m.extend(attrs);
    m.into()
}

fn limited(action: PrefixAction, restart: Option<Span>) -> (World, ConnId) {
    let limit = PrefixLimit { limit: 100, warning: 50, action, restart };
    with_peer(NeighborRules { max_prefixes: Some(limit), ..NeighborRules::default() }, &[])
}

/// What was told of limits: the number that was reached in words.
fn limits(w: &World) -> Vec<String> {
    let told = |e: &Event| match e {
        Event::Limit { what, limit: 100 } => Some(what.clone()),
        _ => None,
    };
    w.hosts[0].events.iter().filter_map(|(_, e)| told(e)).collect()
}

/// BGP-NOTIF-05: a warning at half of it, Cease 6/1 with family and limit beyond, nothing left, and nobody is let in until an
/// operator starts it. What came in the same read counts for nothing.
#[test]
fn too_many_routes_end_the_session_with_the_limit_as_data() {
    let (mut w, conn) = limited(PrefixAction::Teardown, None);
    say(&mut w, conn, &routes(0..49));
    assert_eq!(limits(&w).len(), 0);
    say(&mut w, conn, &routes(0..60));
    say(&mut w, conn, &routes(0..100));
    assert_eq!(limits(&w), ["neighbour 10.255.0.9 has sent 60 routes"]);
    assert_eq!(
        detail(&mut w, 0, "the other one").summary.state,
        "Established",
        "the limit itself is allowed"
    );
    let mut read = routes(100..101).to_vec();
    read.extend_from_slice(&routes(200..260));
    say(&mut w, conn, &read.into());
    let told = &limits(&w)[1];
    assert!(told.contains("101 routes") && told.contains("its session ends"), "{told}");
    let d = detail(&mut w, 0, "the other one");
    assert_eq!((d.summary.state.as_str(), d.summary.routes_in, d.max_prefixes), ("Idle", 0, Some(100)));
    assert_eq!(d.held_down.as_deref(), Some("down: it sent more than 100 routes"));
    let sent = d.notification_sent.expect("told").text;
    assert!(sent.contains("(6/1)") && sent.ends_with("0x00194600000064"), "{sent}");
    w.run_for(Span::secs(600));
    connect(&mut w, &[]);
    let d = detail(&mut w, 0, "the other one");
    assert_eq!((d.summary.established_count, d.connections_refused), (1, 1));
    assert_eq!(done(&mut w, 0, "the other one", NeighborAction::Start).0, "started");
    connect(&mut w, &[]);
    assert_eq!(detail(&mut w, 0, "the other one").summary.established_count, 2);
}

/// The neighbour may come back when the time is over, and is judged anew.
#[test]
fn after_the_restart_time_a_neighbour_with_too_many_routes_may_come_back() {
    let (mut w, conn) = limited(PrefixAction::Teardown, Some(Span::secs(60)));
    say(&mut w, conn, &routes(0..101));
    w.run_for(Span::secs(55));
    connect(&mut w, &[]);
    assert_eq!(detail(&mut w, 0, "the other one").summary.established_count, 1);
    w.run_for(Span::secs(6));
    let conn = connect(&mut w, &[]);
    let d = detail(&mut w, 0, "the other one");
    assert_eq!((d.summary.established_count, d.held_down), (2, None));
    say(&mut w, conn, &routes(0..101));
    assert!(detail(&mut w, 0, "the other one").held_down.is_some());
}

/// One warning on the way and one beyond, however often the number goes to and fro at the edge; everything is kept.
#[test]
fn where_too_many_routes_are_only_told_they_are_kept() {
    let (mut w, conn) = limited(PrefixAction::Warn, None);
    for _ in 0..5 {
        say(&mut w, conn, &routes(0..300));
    }
    let d = detail(&mut w, 0, "the other one");
    assert_eq!((d.summary.state.as_str(), d.summary.routes_in), ("Established", 300));
    assert_eq!(limits(&w).len(), 1, "{:?}", limits(&w));
    assert!(limits(&w)[0].contains("they are kept"));
}
