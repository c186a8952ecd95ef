//! What BFD says of a neighbour and what follows for its session (BFD-09, BFD-11, PIT-23).

#![allow(clippy::unwrap_used, reason = "tests")]

mod world;

use evpn::bfd::{Config, Diag, State};
use evpn::node::{
    BfdConfig, BfdNews, ConnEvent, Event, Input, NeighborConfig, NeighborRange, Node, Output, Show, view,
};
use evpn::types::{ConnId, PeerId, RemoteAs, Span, Time};
use std::net::IpAddr;
use world::{P1, World, mac, vtep};

const PEER: PeerId = PeerId(0);

fn bfd() -> BfdConfig {
    let session = Config { desired_tx: Span::millis(50), required_rx: Span::millis(50), multiplier: 3 };
    BfdConfig { session, multihop: None, min_ttl: 1 }
}

fn news(state: State, diag: Diag, failures: u64) -> BfdNews {
    BfdNews { state, diag, remote: State::Down, failures }
}

/// Two nodes with BFD, converged, and node 0 has heard that its neighbour is up. A host behind node 1.
fn up() -> World {
    let mut w = World::with(2, Span::millis(1), |c| {
        c.neighbors.iter_mut().for_each(|n| n.bfd = Some(bfd()));
    });
    w.run_for(Span::secs(10));
    w.frame(1, P1, mac(1), None);
    w.run_for(Span::millis(50));
    assert_eq!(w.macs(0).len(), 1);
    say(&mut w, news(State::Up, Diag::NONE, 0));
    w
}

fn say(w: &mut World, news: BfdNews) {
    w.input(0, Input::Bfd { peer: PEER, news });
    w.run_for(Span::millis(5));
}

fn neighbor(w: &mut World) -> view::NeighborView {
    let view::Rows::Neighbors(mut rows) = w.ask(0, Show::Neighbors) else { panic!("no neighbours") };
    rows.remove(0)
}

/// Events of BFD at node 0: whether up, why, whether it ends the session.
fn told(w: &World) -> Vec<(bool, &str, bool)> {
    let of = |e: &'_ Event| -> Option<(bool, String, bool)> {
        match e {
            Event::BfdUp { .. } => Some((true, String::new(), false)),
            Event::BfdDown { why, ends_session, .. } => Some((false, why.clone(), *ends_session)),
            _ => None,
        }
    };
    w.hosts[0]
        .events
        .iter()
        .filter_map(|(_, e)| of(e))
        .map(|(up, why, ends)| (up, &*why.leak(), ends))
        .collect()
}

#[test]
fn a_failure_ends_an_established_session_with_cease_10_and_its_routes_at_once() {
    // BFD-11
    let mut w = up();
    assert_eq!(neighbor(&mut w).bfd.unwrap().state, State::Up);
    w.input(0, Input::Bfd { peer: PEER, news: news(State::Down, Diag::EXPIRED, 1) });
    assert!(w.macs(0).is_empty(), "its routes are gone in the same turn");
    let n = neighbor(&mut w);
    assert_eq!(
        (n.state.as_str(), n.last_error.as_deref()),
        ("Idle", Some("BFD says that the neighbour is gone"))
    );
    let b = n.bfd.unwrap();
    assert_eq!(
        (b.state, b.diag.as_deref(), b.failures),
        (State::Down, Some("control detection time expired"), 1)
    );
    assert_eq!(told(&w), [(true, "", false), (false, "control detection time expired", true)]);
    // The other side has the NOTIFICATION, whatever it thinks of BFD.
    w.run_for(Span::millis(10));
    let view::Rows::Neighbors(theirs) = w.ask(1, Show::Neighbors) else { panic!() };
    let why = theirs[0].last_error.clone().unwrap();
    assert!(why.contains("6/10"), "{why}");
    // It comes back by itself; BFD need not be up for that.
    w.run_for(Span::secs(10));
    assert_eq!((neighbor(&mut w).state.as_str(), w.macs(0).len()), ("Established", 1));
}

#[test]
fn admin_down_on_either_side_leaves_the_session_alone() {
    // BFD-09
    for (remote, why) in
        [(State::AdminDown, "switched off by the neighbour"), (State::Down, "switched off here")]
    {
        let mut w = up();
        let news = BfdNews { remote, ..news(State::Down, Diag::NEIGHBOR_DOWN, 0) };
        say(&mut w, news);
        assert_eq!(told(&w)[1..], [(false, why, false)]);
        w.run_for(Span::secs(5));
        assert_eq!((neighbor(&mut w).state.as_str(), w.macs(0).len()), ("Established", 1));
        assert_eq!(neighbor(&mut w).established_count, 1);
    }
}

#[test]
fn a_failure_between_two_looks_counts_although_it_is_over() {
    let mut w = up();
    say(&mut w, news(State::Up, Diag::NONE, 1));
    assert_eq!(told(&w)[1..], [(false, "it failed and came back", true), (true, "", false)]);
    assert_eq!(neighbor(&mut w).state, "Idle");
    // The same news again say nothing new.
    let before = w.hosts[0].events.len();
    say(&mut w, news(State::Up, Diag::NONE, 1));
    assert_eq!(w.hosts[0].events.len(), before);
}

#[test]
fn a_failure_without_an_established_session_ends_no_attempt() {
    let mut w = up();
    say(&mut w, news(State::Down, Diag::EXPIRED, 1));
    w.run_for(Span::millis(100));
    let before = neighbor(&mut w);
    assert_ne!(before.state, "Established");
    say(&mut w, news(State::Up, Diag::NONE, 1));
    say(&mut w, news(State::Down, Diag::EXPIRED, 2));
    assert_eq!(told(&w).last(), Some(&(false, "control detection time expired", false)));
    w.run_for(Span::secs(10));
    assert_eq!(neighbor(&mut w).state, "Established");
}

/// What a node orders: whose session, where, from where and how.
type Order = (PeerId, Option<(IpAddr, Option<IpAddr>, BfdConfig)>);

fn orders(node: &mut Node, at: Time) -> Vec<Order> {
    node.flush(at);
    let mut found = Vec::new();
    while let Some(o) = node.poll_output() {
        if let Output::Bfd { peer, want } = o {
            found.push((peer, want.map(|w| (w.address, w.from, w.config))));
        }
    }
    found
}

/// A neighbour out of a prefix is watched while there is one; its number may be another one's afterwards.
#[test]
fn a_dynamic_neighbour_that_is_forgotten_is_not_watched_any_more() {
    let mut config = world::config(0, 1);
    let guest: IpAddr = [10, 254, 0, 7].into();
    let terms = NeighborConfig { bfd: Some(bfd()), ..NeighborConfig::new(guest, RemoteAs::Internal) };
    let prefix = "10.254.0.0/24".parse().unwrap();
    config.neighbor_ranges.push(NeighborRange { prefix, limit: 2, terms });
    let mut node = Node::new(config, 1, Time(0));
    let (conn, at) = (ConnId(1), |secs| Time(0) + Span::secs(secs));
    assert!(orders(&mut node, at(0)).is_empty());
    let [remote, local] = [(guest, 40_000).into(), (vtep(0), 179).into()];
    node.handle(Input::Conn { conn, event: ConnEvent::Accepted { remote, local } }, at(1));
    let [(peer, Some((address, ..)))] = orders(&mut node, at(1))[..] else { panic!("no order") };
    assert_eq!(address, guest);
    node.handle(Input::Conn { conn, event: ConnEvent::Closed { why: "gone".into() } }, at(2));
    assert!(orders(&mut node, at(2)).is_empty(), "it may come back");
    assert_eq!(orders(&mut node, at(60)), [(peer, None)]);
}

#[test]
fn sessions_are_wanted_with_the_start_and_switched_off_with_the_stop() {
    let mut config = world::config(0, 2);
    config.neighbors[0].bfd = Some(bfd());
    let mut node = Node::new(config, 1, Time(0));
    let want: (IpAddr, Option<IpAddr>, BfdConfig) = (vtep(1), Some(vtep(0)), bfd());
    assert_eq!(orders(&mut node, Time(1)), [(PEER, Some(want))]);
    assert!(orders(&mut node, Time(1)).is_empty(), "once");
    // BFD-09: whoever stops says so.
    node.handle(Input::Shutdown { for_good: false }, Time(2));
    assert_eq!(orders(&mut node, Time(2)), [(PEER, None)]);
    // News of a neighbour that does not exist change nothing.
    node.handle(Input::Bfd { peer: PeerId(99), news: news(State::Up, Diag::NONE, 3) }, Time(3));
}
