//! A daemon that is behind: frames and the rows that they caused are read far apart, and mean what they meant when they
//! happened (PIT-04, PIT-07).

mod world;

use evpn::fabric::{FdbRow, KernelEvent};
use evpn::node::{Event, Input, Node, Show, view};
use evpn::types::{IfIndex, Mac, Seq, Span, Time};
use std::net::{IpAddr, Ipv4Addr};
use world::frames::rarp;
use world::{P1, P2, VXLAN, World, bridge_row, mac};

const MS: Span = Span::millis(1);

/// MAC 1 has just moved from node 0 to node 1.
fn moved() -> World {
    let mut w = World::converged(2, MS);
    w.frame(0, P1, mac(1), None);
    w.run_for(Span::millis(10));
    w.frame(1, P1, mac(1), Some(rarp(mac(1))));
    w.run_for(Span::millis(100));
    assert_eq!(w.hosts[0].fdb.get(&mac(1)), Some(&VXLAN));
    w
}

fn node(w: &mut World) -> &mut Node {
    &mut w.hosts[0].node
}

fn said(w: &mut World) {
    w.input(0, Input::Frame { port: P1, bytes: rarp(mac(1)) });
}

fn row(w: &mut World) {
    w.hosts[0].fdb.insert(mac(1), P1);
    w.kernel(0, KernelEvent::Fdb(FdbRow::Bridge(bridge_row(mac(1), P1, false))));
    w.run_for(MS);
}

fn seq(w: &mut World) -> Seq {
    w.macs(0)[0].seq
}

/// It comes back at once and says so once. The frame is read long before its row, behind which many others were.
#[test]
fn an_announcement_holds_until_the_rows_of_its_time_have_been_read() {
    let mut w = moved();
    let now = w.now;
    node(&mut w).set_caught_up(now);
    said(&mut w);
    w.run_for(Span::millis(300));
    row(&mut w);
    assert_eq!((seq(&mut w), w.hosts[0].fdb.get(&mac(1))), (Seq(2), Some(&P1)), "it is a claim");
}

/// All rows of its time have been read, and none was the MAC's: what comes now is another frame's, and late.
#[test]
fn an_announcement_that_the_table_refused_counts_for_nothing_later() {
    let mut w = moved();
    said(&mut w);
    w.run_for(Span::millis(100));
    let now = w.now;
    node(&mut w).set_caught_up(now);
    row(&mut w);
    assert_eq!((seq(&mut w), w.hosts[0].fdb.get(&mac(1))), (Seq(1), Some(&VXLAN)), "put back");
}

/// The other way round: the row first, and the frame after a turn that took long.
#[test]
fn a_frame_that_waited_makes_a_claim_of_the_row_that_was_put_back() {
    let mut w = moved();
    row(&mut w);
    assert_eq!(w.hosts[0].fdb.get(&mac(1)), Some(&VXLAN), "late, as far as is known");
    w.run_for(Span::millis(120));
    said(&mut w);
    w.run_for(MS);
    assert_eq!(seq(&mut w), Seq(2));
}

/// Made-up MACs fill the table of signs; a known one has a place in it.
#[test]
fn strangers_do_not_crowd_out_the_announcement_of_a_mac_that_moves() {
    let mut w = moved();
    let stranger = |n: u32| {
        let [a, b, c, d] = n.to_be_bytes();
        Mac([2, 0xaa, a, b, c, d])
    };
    let at = w.now;
    let flood = |w: &mut World, port: IfIndex, at: Time, from: u32| {
        for n in from..from + 20_000 {
            node(w).handle(Input::Frame { port, bytes: rarp(stranger(n)) }, at);
        }
    };
    flood(&mut w, P2, at, 0);
    said(&mut w);
    flood(&mut w, P2, at, 20_000);
    row(&mut w);
    assert_eq!(seq(&mut w), Seq(2));
}

/// A turn at a later time, before which nothing was read.
fn later(w: &mut World, span: Span) {
    w.now = w.now + span;
    w.input(0, Input::Wall { unix: 1_800_000_000 });
}

/// A turn took longer than a binding waits for its row, which lies unread meanwhile.
#[test]
fn a_binding_is_not_refused_before_the_rows_of_its_time_have_been_read() {
    let mut w = World::converged(2, MS);
    let now = w.now;
    let address = Ipv4Addr::new(10, 0, 0, 9);
    let announced = |w: &mut World| {
        let bytes = evpn::wire::frame::gratuitous_arp(mac(9), address);
        w.input(0, Input::Frame { port: P1, bytes });
    };
    let refused =
        |w: &World| w.hosts[0].events.iter().any(|(_, e)| matches!(e, Event::BindingRefused { .. }));
    node(&mut w).set_caught_up(now);
    announced(&mut w);
    later(&mut w, Span::millis(50));
    assert!(!refused(&w));
    w.hosts[0].fdb.insert(mac(9), P1);
    w.kernel(0, KernelEvent::Fdb(FdbRow::Bridge(bridge_row(mac(9), P1, false))));
    let bound = |w: &mut World| {
        let view::Rows::Hosts(hosts) = w.ask(0, Show::Hosts) else { panic!("hosts") };
        hosts.iter().any(|h| h.ip == IpAddr::V4(address) && h.mac == mac(9))
    };
    assert!(bound(&mut w));
    // When everything has been read and the table still does not agree, it is refused (PIT-07).
    let bytes = evpn::wire::frame::gratuitous_arp(mac(8), Ipv4Addr::new(10, 0, 0, 8));
    w.input(0, Input::Frame { port: P1, bytes });
    later(&mut w, Span::millis(50));
    assert!(!refused(&w));
    let now = w.now;
    node(&mut w).set_caught_up(now);
    later(&mut w, Span::ZERO);
    assert!(refused(&w));
}
