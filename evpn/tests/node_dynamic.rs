//! Neighbours out of a range: who becomes one, how many, and when they are forgotten.

mod scenario;
mod world;

use evpn::node::view::{NeighborView, Rows, StatusView};
use evpn::node::{NeighborConfig, NeighborRange, Show};
use evpn::types::{Mac, RemoteAs, Seq, Span};
use scenario::{Route, Speaker};
use std::net::{IpAddr, Ipv4Addr};
use world::{P1, World, mac};

const MS: Span = Span::millis(1);

fn peer(n: u8) -> IpAddr {
    Ipv4Addr::new(10, 254, 0, n).into()
}

/// One node with a range for three neighbours, and nothing else.
fn node() -> World {
    let mut w = World::with(1, MS, |c| {
        let terms = NeighborConfig {
            hold_time: 0,
            description: Some("leaf".into()),
            ..NeighborConfig::new(peer(0), RemoteAs::Internal)
        };
        let prefix = "10.254.0.0/24".parse().expect("a prefix");
        c.neighbor_ranges.push(NeighborRange { prefix, limit: 3, terms });
    });
    w.run_for(Span::secs(1));
    w
}

fn neighbors(w: &mut World) -> Vec<NeighborView> {
    match w.ask(0, Show::Neighbors) {
        Rows::Neighbors(rows) => rows,
        other => panic!("{other:?}"),
    }
}

fn connected(w: &mut World, n: u8) -> Speaker {
    let mut s = Speaker::new(peer(n));
    s.connect(w);
    w.run_for(Span::secs(1));
    s
}

fn counter(s: &StatusView, name: &str) -> u64 {
    s.counters.get(name).copied().unwrap_or(0)
}

#[test]
fn whoever_connects_from_the_range_is_a_neighbour_up_to_the_limit() {
    let mut w = node();
    let status = w.status(0);
    assert_eq!((status.neighbors, status.converged), (0, true), "nobody is waited for");
    let up: Vec<Speaker> = (1..=3).map(|n| connected(&mut w, n)).collect();
    assert!(up.iter().all(|s| s.is_up(&w)));
    let rows = neighbors(&mut w);
    assert_eq!(rows.len(), 3);
    for (r, n) in rows.iter().zip(1..) {
        let shown = (r.address, r.state.as_str(), r.range.as_deref(), r.description.as_deref());
        assert_eq!(shown, (peer(n), "Established", Some("10.254.0.0/24"), Some("leaf")));
    }
    assert_eq!((w.status(0).neighbors, w.status(0).established, w.status(0).converged), (3, 3, true));

    // One too many, and one from elsewhere: refused, and nobody else notices.
    assert!(!connected(&mut w, 4).is_up(&w), "the range is full");
    let mut stranger = Speaker::new(Ipv4Addr::new(10, 253, 0, 1).into());
    stranger.connect(&mut w);
    w.run_for(MS);
    assert!(!stranger.is_up(&w));
    assert_eq!(neighbors(&mut w).len(), 3);
    assert!(up.iter().all(|s| s.is_up(&w)));
    let status = w.status(0);
    assert_eq!(counter(&status, "dynamic_neighbors_refused"), 1);
}

/// Its routes count as anybody's, and go with its session; its place is given to the next, who has nothing of it.
#[test]
fn a_neighbour_that_is_gone_is_forgotten_after_a_while_and_its_place_used_again() {
    let mut w = node();
    let mut s: Vec<Speaker> = (1..=3).map(|n| connected(&mut w, n)).collect();
    let m: Mac = mac(9);
    let route = Route {
        mac: m,
        ip: None,
        seq: Some(Seq(4)),
        sticky: false,
        gateway: false,
        stale: false,
        going: false,
    };
    s[1].announce(&mut w, &route);
    w.run_for(Span::secs(1));
    let here = |w: &World| w.mac_row(0, m).is_some();
    assert!(here(&w), "its host is known");
    s[1].leave(&mut w);
    w.run_for(Span::secs(1));
    assert!(!here(&w));
    // It is remembered, with what it was, longer than it takes to come back.
    w.run_for(Span::secs(200));
    let row = neighbors(&mut w).into_iter().find(|r| r.address == peer(2)).expect("still shown");
    assert_eq!(row.established_count, 1);
    assert!(w.status(0).converged, "and not waited for");
    s[1].connect(&mut w);
    w.run_for(Span::secs(400));
    let row = neighbors(&mut w).into_iter().find(|r| r.address == peer(2)).expect("it is back");
    assert_eq!((row.established_count, row.state.as_str()), (2, "Established"));

    s[1].leave(&mut w);
    w.run_for(Span::secs(301));
    let left: Vec<IpAddr> = neighbors(&mut w).iter().map(|r| r.address).collect();
    assert_eq!(left, [peer(1), peer(3)]);
    assert_eq!(counter(&w.status(0), "dynamic_neighbors_forgotten"), 1);
    // The next one takes the place.
    let next = connected(&mut w, 4);
    assert!(next.is_up(&w));
    let rows = neighbors(&mut w);
    assert_eq!(rows.len(), 3);
    let row = rows.iter().find(|r| r.address == peer(4)).expect("there");
    assert_eq!((row.established_count, row.routes_in, row.last_error.as_ref()), (1, 0, None));
    w.frame(0, P1, mac(1), None);
    w.run_for(Span::secs(1));
    let rows = neighbors(&mut w);
    let out: Vec<usize> = rows.iter().map(|r| r.routes_out).collect();
    assert!(out.iter().all(|n| *n == out[0] && *n > 0), "everybody is told the same: {out:?}");
}

/// Who only connects is forgotten soon, and does not keep others out.
#[test]
fn who_never_had_a_session_is_forgotten_soon() {
    let mut w = node();
    for n in 1..=3 {
        let conn = w.accept(0, peer(n));
        w.run_for(MS);
        w.outside_event(0, conn, evpn::node::ConnEvent::Closed { why: "gone".into() });
    }
    w.run_for(Span::secs(1));
    assert_eq!(neighbors(&mut w).len(), 3);
    w.run_for(Span::secs(31));
    assert_eq!(neighbors(&mut w).len(), 0);
    assert!(connected(&mut w, 9).is_up(&w));
}
