//! Route target membership between whole nodes, and with a neighbour that never says that it has said all.
#![allow(clippy::unwrap_used, reason = "tests may panic")]

mod world;

use bytes::Bytes;
use evpn::node::{ConnEvent, Input, Node, Output};
use evpn::types::{Asn, ConnId, Span, Time};
use evpn::wire::{self, Capability, EncodeCtx, Family, Message, Open};
use std::net::SocketAddr;
use world::{config, vtep};

const CONN: ConnId = ConnId(1);

fn sent(node: &mut Node, at: Time) -> Vec<Bytes> {
    node.flush(at);
    let mut out = Vec::new();
    while let Some(o) = node.poll_output() {
        if let Output::Send { conn: CONN, bytes } = o {
            out.push(bytes);
        }
    }
    out
}

fn ends(messages: &[Bytes], family: Family) -> bool {
    messages.iter().any(|b| *b == wire::end_of_rib(family))
}

/// BGP-RTC-05: it is told nothing for a minute, and then everything it has asked for so far; here nothing but the end.
#[test]
fn a_neighbour_that_never_ends_its_memberships_waits_for_a_minute() {
    let mut c = config(0, 2);
    c.neighbors[0].rt_constraint = true;
    c.neighbors[0].hold_time = 0;
    let mut node = Node::new(c, 1, Time(0));
    node.flush(Time(0));
    let start = Time(Span::secs(1).0);
    let open = Open {
        my_as: 65000,
        hold_time: 0,
        id: "192.0.2.9".parse().unwrap(),
        capabilities: vec![
            Capability::Multiprotocol(Family::EVPN),
            Capability::Multiprotocol(Family::RTC),
            Capability::As4(Asn(65000)),
        ],
        extended: false,
    };
    let conn = |event| Input::Conn { conn: CONN, event };
    let (remote, local) = (SocketAddr::new(vtep(1), 4711), SocketAddr::new(vtep(0), 179));
    node.handle(conn(ConnEvent::Accepted { remote, local }), start);
    node.handle(conn(ConnEvent::Room(65536)), start);
    for octets in [Message::Open(open).encode(&EncodeCtx::default()), wire::keepalive()] {
        node.handle(conn(ConnEvent::Bytes(octets)), start);
    }
    let first = sent(&mut node, start);
    assert!(ends(&first, Family::RTC), "its own end comes at once: {first:?}");
    assert!(!ends(&first, Family::EVPN), "routes wait");
    // Woken for it in time; dials of the other side's connection come before.
    let wait = start + Span::secs(60);
    let mut at = start;
    let mut told = Vec::new();
    while !ends(&told, Family::EVPN) {
        at = node.poll_timeout().expect("something is to be done").0.max(at);
        assert!(at <= wait, "not woken in time");
        told = sent(&mut node, at);
    }
    assert_eq!(at, wait);
}
