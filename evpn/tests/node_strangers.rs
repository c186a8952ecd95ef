//! MACs that nobody knows are taken in a share at a time, and those that move do not wait behind them.

mod world;

use evpn::fabric::{FdbRow, KernelEvent};
use evpn::node::view::Rows;
use evpn::node::{Command, Config, DuplicateMode, Event, Input, MacFilter, Query, Reply, Show};
use evpn::types::{IfIndex, Mac, Span};
use std::net::{IpAddr, Ipv4Addr};
use world::frames::garp;
use world::{P1, P2, World, bridge_row, mac};

const MS: Span = Span::millis(1);
/// Of MACs that nobody knows, taken in per turn.
const SHARE: usize = 128;

fn world(tweak: impl Fn(&mut Config)) -> World {
    let mut w = World::with(2, MS, |c| {
        c.mobility.duplicates.mode = DuplicateMode::Off;
        tweak(c);
    });
    w.run_for(Span::secs(10));
    assert!(w.status(0).converged);
    w
}

fn made_up(n: u32) -> Mac {
    let [a, b, c, d] = n.to_be_bytes();
    Mac([2, 0xaa, a, b, c, d])
}

/// The kernel of a node tells rows in one go, and nothing is decided in between.
fn rows_of(w: &mut World, node: usize, port: IfIndex, macs: impl Iterator<Item = Mac>) {
    for m in macs {
        w.hosts[node].fdb.insert(m, port);
        let row = FdbRow::Bridge(bridge_row(m, port, false));
        w.hosts[node].node.handle(Input::Kernel(KernelEvent::Fdb(row)), w.now);
    }
}

fn rows(w: &mut World, port: IfIndex, macs: impl Iterator<Item = Mac>) {
    rows_of(w, 0, port, macs);
}

/// MACs behind ports of a node. Whoever asks gives those that wait a turn, after the answer.
fn local(w: &mut World, node: usize) -> usize {
    w.status(node).local_macs
}

fn place(w: &mut World, node: usize, m: Mac) -> String {
    let filter = MacFilter { mac: Some(m), ..MacFilter::default() };
    let query = Query { show: Show::Macs, filter, cursor: None, limit: 1 };
    match w.command(node, Command::Show(query)) {
        Reply::Page(p) => match p.rows {
            Rows::Macs(rows) => rows.first().map_or_else(String::new, |r| r.place.to_string()),
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_mac_that_moves_passes_thousands_that_are_new() {
    let mut w = world(|_| {});
    w.frame(1, P1, mac(1), None);
    w.run_for(Span::secs(2));
    rows(&mut w, P1, (0..5_000).map(made_up));
    rows(&mut w, P2, std::iter::once(mac(1)));
    // Before anything else is done, it is claimed already, and with one share of the others it is on its way.
    assert_eq!(local(&mut w, 0), SHARE + 1);
    assert_eq!(place(&mut w, 0, mac(1)), "p2");
    w.run_for(MS);
    assert_eq!(place(&mut w, 1, mac(1)), world::vtep(0).to_string());
    // The others come after it, all of them.
    w.run_for(Span::secs(1));
    assert_eq!(local(&mut w, 0), 5_001);
    assert_eq!(w.status(1).remote_macs, 5_001);
    assert_eq!(w.status(0).gauges["macs_waiting"], 0);
    assert!(w.status(0).converged);
}

#[test]
fn a_few_new_macs_do_not_wait() {
    let mut w = world(|_| {});
    rows(&mut w, P1, (0..100).map(made_up));
    assert_eq!(local(&mut w, 0), 100);
    assert!(!w.status(0).counters.contains_key("strangers_waited"));
}

#[test]
fn ports_have_their_turns() {
    let mut w = world(|_| {});
    rows(&mut w, P1, (0..2_000).map(made_up));
    rows(&mut w, P2, (9_000..9_010).map(made_up));
    w.hosts[0].node.flush(w.now);
    assert_eq!(local(&mut w, 0), 2 * SHARE);
    assert_eq!(place(&mut w, 0, made_up(9_009)), "p2");
}

/// The processors are there for others, too.
#[test]
fn thousands_that_are_new_come_at_once_and_the_rest_at_a_pace() {
    let mut w = world(|_| {});
    rows(&mut w, P1, (0..10_000).map(made_up));
    w.run_for(MS);
    let now = local(&mut w, 0);
    assert!((4_096..=4_130).contains(&now), "as a host that boots has: {now}");
    w.run_for(Span::millis(100));
    let now = local(&mut w, 0);
    assert!((6_100..=6_160).contains(&now), "20 a ms: {now}");
    // That is its own affair.
    rows(&mut w, P2, (20_000..20_100).map(made_up));
    w.run_for(MS);
    assert_eq!(place(&mut w, 0, made_up(20_099)), "p2");
    w.run_for(Span::secs(1));
    assert_eq!(local(&mut w, 0), 10_100);
}

#[test]
fn what_has_gone_or_gone_elsewhere_is_not_taken_in_where_it_was() {
    let mut w = world(|_| {});
    rows(&mut w, P1, (0..1_000).map(made_up));
    // Gone again, gone to another port, and claimed by another VTEP, before it had its turn.
    let (gone, changed, remote) = (made_up(900), made_up(901), made_up(902));
    w.hosts[0].fdb.remove(&gone);
    let row = FdbRow::Bridge(bridge_row(gone, P1, false));
    w.hosts[0].node.handle(Input::Kernel(KernelEvent::FdbGone(row)), w.now);
    rows(&mut w, P2, std::iter::once(changed));
    w.frame(1, P1, remote, None);
    w.run_for(Span::secs(1));
    assert_eq!(place(&mut w, 0, gone), "");
    assert_eq!(place(&mut w, 1, gone), "");
    assert_eq!(place(&mut w, 0, changed), "p2");
    // Both have it with the first sequence: the lower address keeps it (EVPN-MOB-06), as if the row had been read at once.
    assert_eq!(place(&mut w, 0, remote), "p1");
    assert_eq!(place(&mut w, 1, remote), world::vtep(0).to_string());
    assert_eq!(local(&mut w, 0), 999);
}

/// PIT-07: the table agrees with what a frame has said, although its row has not had its turn.
#[test]
fn bindings_wait_with_their_macs() {
    let mut w = world(|_| {});
    rows(&mut w, P1, (0..1_000).map(made_up));
    let (m, ip) = (mac(7), Ipv4Addr::new(10, 1, 0, 7));
    w.hosts[0].node.handle(Input::Frame { port: P1, bytes: garp(m, ip) }, w.now);
    rows(&mut w, P1, std::iter::once(m));
    // So long that patience would have had its end.
    w.now = w.now + Span::millis(100);
    w.run_for(Span::secs(1));
    assert!(w.neigh_row(1, IpAddr::V4(ip)).is_some());
    assert!(!w.hosts[0].events.iter().any(|(_, e)| matches!(e, Event::BindingRefused { .. })));
}

#[test]
fn what_waits_counts_against_the_limits() {
    let mut w = world(|c| {
        let m = &mut c.vnis[0].mobility;
        (m.port_mac_limit, m.mac_limit, m.flood_guard) = (300, 400, 0);
    });
    rows(&mut w, P1, (0..1_000).map(made_up));
    rows(&mut w, P2, (5_000..6_000).map(made_up));
    assert_eq!(w.status(0).gauges["macs_waiting"], 400 - SHARE as u64);
    w.run_for(Span::secs(1));
    assert_eq!(local(&mut w, 0), 400, "300 of one port, and the rest of the VNI's");
    assert_eq!(w.status(0).counters["macs_over_limit"], 1_600);
}

/// It need not have filled its limit: no rack is so large and comes so fast.
#[test]
fn a_port_of_which_too_much_waits_is_guarded() {
    let mut w = world(|_| {});
    let guarded = |w: &World| w.hosts[0].events.iter().any(|(_, e)| matches!(e, Event::PortGuarded { .. }));
    rows(&mut w, P1, (0..16_000).map(made_up));
    w.hosts[0].node.flush(w.now);
    assert!(!guarded(&w));
    rows(&mut w, P1, (16_000..17_000).map(made_up));
    w.run_for(MS);
    assert!(guarded(&w));
    assert_eq!(w.status(0).counters.get("macs_over_limit"), None, "before it has gone beyond its limit");
    // An evacuated rack of known MACs is no flood, whatever its size.
    let mut w = world(|_| {});
    for n in 0..18 {
        rows_of(&mut w, 1, P1, (n * 1_000..(n + 1) * 1_000).map(made_up));
        w.run_for(Span::millis(10));
    }
    w.run_for(Span::secs(5));
    rows(&mut w, P1, (0..18_000).map(made_up));
    w.run_for(Span::secs(5));
    assert!(!guarded(&w));
    assert_eq!(local(&mut w, 0), 18_000);
}
