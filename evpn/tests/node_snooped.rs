//! A bridge that snoops is told which groups a guest wants where it arrives (PIT-08).

mod world;

use bytes::Bytes;
use evpn::fabric::{BridgeLink, KernelEvent, Link, LinkKind};
use evpn::types::{IfIndex, Mac, Span};
use world::steps::MS;
use world::{BRIDGE, P1, P2, World, mac, own_mac};

fn world(mcast_snooping: bool) -> World {
    let mut w = World::converged(2, MS);
    let kind = LinkKind::Bridge(BridgeLink { mcast_snooping, mac_fixed: true, ..BridgeLink::default() });
    let bridge = Link {
        index: BRIDGE,
        name: "br100".into(),
        mac: own_mac(0),
        mtu: 1450,
        up: true,
        carrier: true,
        master: None,
        kind,
        port: None,
    };
    w.kernel(0, KernelEvent::Link(bridge));
    w.run_for(Span::secs(1));
    w.hosts[0].emitted.clear();
    w
}

/// Ports of node 0 that were asked: by MLD, by IGMP.
fn asked(w: &World) -> [Vec<IfIndex>; 2] {
    let is = |b: &Bytes, to: [u8; 6], at: usize, kind: u8| b[..6] == to && b.get(at) == Some(&kind);
    let of = |pick: &dyn Fn(&Bytes) -> bool| {
        w.hosts[0].emitted.iter().filter(|(_, b)| pick(b)).map(|(p, _)| *p).collect::<Vec<_>>()
    };
    [of(&|b| is(b, [0x33, 0x33, 0, 0, 0, 1], 62, 130)), of(&|b| is(b, [1, 0, 0x5e, 0, 0, 1], 38, 0x11))]
}

#[test]
fn the_port_where_a_mac_arrives_is_asked_at_once_and_no_other() {
    let mut w = world(true);
    w.frame(1, P1, mac(1), None);
    w.run_for(Span::secs(1));
    assert_eq!(asked(&w), [vec![], vec![]], "it is elsewhere");
    w.frame(0, P2, mac(1), None);
    assert_eq!(asked(&w), [vec![P2], vec![P2]]);
    w.run_for(Span::secs(1));
    w.frame(0, P2, mac(1), None);
    w.run_for(Span::secs(1));
    assert_eq!(asked(&w)[0], [P2], "it was there");
    w.frame(0, P1, mac(1), None);
    w.run_for(Span::secs(1));
    assert_eq!(asked(&w)[0], [P2, P1], "to another port of this VTEP");
}

#[test]
fn a_bridge_that_does_not_snoop_needs_nothing() {
    let mut w = world(false);
    w.frame(0, P1, mac(1), None);
    w.run_for(Span::secs(1));
    assert_eq!(asked(&w), [vec![], vec![]]);
}

#[test]
fn many_that_arrive_at_once_are_asked_for_together_and_the_last_one_is_among_them() {
    let mut w = world(true);
    for n in 0..100 {
        w.frame(0, P1, Mac([2, 0, 0, 9, 0, n]), None);
    }
    assert_eq!(asked(&w)[0], [P1]);
    w.run_for(Span::millis(30));
    assert_eq!(asked(&w)[0], [P1, P1], "once more for those that came after the first question");
    w.run_for(Span::secs(1));
    assert_eq!(asked(&w)[0].len(), 2);
}
