//! A daemon that is behind: frames and the rows that they caused are read far apart, and mean what they meant when they
//! happened (PIT-04, PIT-07).

mod world;

use bytes::{BufMut, Bytes, BytesMut};
use evpn::fabric::{FdbRow, KernelEvent};
use evpn::node::{Input, Node};
use evpn::types::{IfIndex, Mac, Seq, Span, Time};
use world::{P1, P2, VXLAN, World, bridge_row, mac};

const MS: Span = Span::millis(1);

/// RARP announce as QEMU sends it (HOST-RARP-01).
fn rarp(m: Mac) -> Bytes {
    let mut b = BytesMut::new();
    b.put_slice(&[0xff; 6]);
    b.put_slice(&m.0);
    b.put_slice(&[0x80, 0x35, 0, 1, 8, 0, 6, 4, 0, 3]);
    b.put_slice(&m.0);
    b.put_slice(&[0; 4]);
    b.put_slice(&m.0);
    b.put_slice(&[0; 4]);
    b.resize(60, 0);
    b.freeze()
}

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
