//! Mobility domains, limits of moves, and limits of what a port may teach.

mod world;

use evpn::fabric::Row;
use evpn::node::view::Place;
use evpn::node::{Config, DuplicateMode, Event};
use evpn::types::{Mac, Span};
use world::{P1, P2, VXLAN, World, mac, vtep};

const MS: Span = Span::millis(1);

fn world(n: usize, tweak: impl Fn(&mut Config)) -> World {
    let mut w = World::with(n, MS, |c| {
        c.mobility.duplicates.mode = DuplicateMode::Off;
        tweak(c);
    });
    w.run_for(Span::secs(10));
    for i in 0..n {
        assert!(w.status(i).converged, "node {i}");
    }
    w
}

fn place(w: &mut World, node: usize, m: Mac) -> Place {
    w.macs(node).into_iter().find(|r| r.mac == m).map_or(Place::None, |r| r.place)
}

fn refused(w: &World, node: usize) -> Vec<(Place, Place, String)> {
    let events = w.hosts[node].events.iter();
    events
        .filter_map(|(_, e)| match e {
            Event::MoveRefused { from, to, why, .. } => Some((from.clone(), to.clone(), why.clone())),
            _ => None,
        })
        .collect()
}

#[allow(clippy::unnecessary_wraps)] // compared with what the kernel may not have
fn remote(i: usize) -> Option<Row> {
    Some(Row::Remote { vxlan: VXLAN, vtep: vtep(i), sticky: false })
}

/// Nodes 0 and 1 are a domain (10.255.0.0/31 and 10.255.0.2); node 2 is outside of it, and has one of its own.
fn domains(c: &mut Config) {
    let inside = c.vtep != vtep(2);
    let list: &[&str] = if inside { &["10.255.0.1", "10.255.0.2"] } else { &["10.255.0.3/32"] };
    c.vnis[0].mobility.domain = list.iter().map(|p| p.parse().expect("valid")).collect();
}

#[test]
fn a_claim_from_outside_the_domain_is_refused_and_told_once() {
    let mut w = world(3, domains);
    w.frame(0, P1, mac(1), None);
    w.run_for(Span::secs(2));
    for _ in 0..3 {
        w.frame(2, P1, mac(1), None);
        w.run_for(Span::secs(2));
        w.forget(2, mac(1));
        w.frame(2, P1, mac(1), None);
        w.run_for(Span::millis(10));
    }
    assert_eq!(place(&mut w, 0, mac(1)), Place::Port("p1".into()), "it stays with us");
    assert_eq!(w.mac_row(1, mac(1)), remote(0), "and with us at the other one inside");
    let here = (Place::Port("p1".into()), Place::Vtep(vtep(2)), "outside the mobility domain".to_owned());
    assert_eq!(refused(&w, 0).first(), Some(&here));
    assert_eq!(refused(&w, 1).first().map(|r| &r.0), Some(&Place::Vtep(vtep(0))));
    assert!(refused(&w, 0).len() <= 4 && refused(&w, 1).len() <= 4, "once per claim that lasts");
    // The rest is not disturbed: a move inside is a move.
    w.frame(0, P1, mac(2), None);
    w.run_for(Span::secs(2));
    w.frame(1, P1, mac(2), None);
    w.run_for(Span::millis(5));
    assert_eq!(w.mac_row(0, mac(2)), remote(1));
}

/// Level-triggered: the refused route is used as soon as nobody inside has the MAC.
#[test]
fn a_cold_move_out_of_the_domain_is_none_of_its_business() {
    let mut w = world(3, domains);
    w.frame(0, P1, mac(1), None);
    w.run_for(Span::secs(2));
    w.frame(2, P1, mac(1), None);
    w.run_for(Span::secs(2));
    w.forget(0, mac(1));
    w.run_for(Span::millis(5));
    assert_eq!((w.mac_row(0, mac(1)), w.mac_row(1, mac(1))), (remote(2), remote(2)));
    assert_eq!(w.status(0).counters["refused_moves"], 0);
    // And it comes back in whenever it shows up inside.
    w.frame(1, P1, mac(1), None);
    w.run_for(Span::millis(5));
    assert_eq!(w.mac_row(0, mac(1)), remote(1));
    assert_eq!(place(&mut w, 1, mac(1)), Place::Port("p1".into()));
}

/// What a node decides does not depend on which route it heard first.
#[test]
fn a_node_that_starts_late_decides_like_the_others() {
    let mut w = world(3, domains);
    w.frame(2, P1, mac(1), None);
    w.run_for(Span::secs(2));
    w.frame(0, P1, mac(1), None);
    w.run_for(Span::secs(2));
    assert_eq!(w.mac_row(1, mac(1)), remote(0));
    w.cut(1, 0);
    w.cut(1, 2);
    w.run_for(Span::secs(130));
    assert_eq!(w.mac_row(1, mac(1)), remote(0));
}

fn owners_are(w: &mut World, nodes: usize, macs: impl Iterator<Item = u8>, owner: usize) {
    for n in macs {
        for i in 0..nodes {
            let at = place(w, i, mac(n));
            let want = if i == owner { Place::Port("p1".into()) } else { Place::Vtep(vtep(owner)) };
            assert_eq!(at, want, "MAC {n} at node {i}");
        }
    }
}

/// A rack is evacuated under a limit: what is beyond it waits for its turn, and all of it arrives.
#[test]
fn moves_beyond_the_limit_wait_and_the_fabric_converges() {
    let mut w = world(3, |c| c.vnis[0].mobility.moves_per_minute = 10);
    for n in 1..=40 {
        w.frame(0, P1, mac(n), None);
    }
    w.run_for(Span::secs(2));
    for n in 1..=40 {
        w.frame(1, P1, mac(n), None);
    }
    w.run_for(Span::millis(20));
    let moved = w.macs(1).iter().filter(|m| matches!(m.place, Place::Port(_))).count();
    assert_eq!(moved, 10, "a minute's moves at once, the others wait");
    assert_eq!(refused(&w, 1).len(), 30);
    w.run_for(Span::secs(30));
    let moved = w.macs(1).iter().filter(|m| matches!(m.place, Place::Port(_))).count();
    assert!((14..=16).contains(&moved), "{moved} after half a minute");
    w.run_for(Span::secs(400));
    owners_are(&mut w, 3, 1..=40, 1);
    assert_eq!((0..3).map(|i| w.status(i).counters["refused_moves"]).collect::<Vec<_>>(), [0, 0, 0]);
}

/// The loser alone has the limit: it keeps what it has for a while, and gives in.
#[test]
fn a_loser_with_a_limit_gives_in_in_time() {
    let mut w = world(3, |c| {
        if c.vtep == vtep(0) {
            c.vnis[0].mobility.moves_per_minute = 6;
        }
    });
    for n in 1..=12 {
        w.frame(0, P1, mac(n), None);
    }
    w.run_for(Span::secs(2));
    for n in 1..=12 {
        w.frame(1, P1, mac(n), None);
    }
    w.run_for(Span::millis(50));
    assert_eq!(refused(&w, 0).len(), 6);
    assert_eq!(w.mac_row(2, mac(12)), remote(1), "the others follow the higher sequence");
    w.run_for(Span::secs(120));
    owners_are(&mut w, 3, 1..=12, 1);
}

#[test]
fn a_mac_with_too_many_owners_in_an_hour_stays_where_it_is() {
    let mut w = world(4, |c| {
        c.mobility.duplicates.mode = DuplicateMode::Oscillation;
        c.vnis[0].mobility.owners_per_hour = 2;
    });
    w.frame(0, P1, mac(1), None);
    for to in [1, 0, 1] {
        w.run_for(Span::secs(2));
        w.frame(to, P1, mac(1), None);
    }
    w.run_for(Span::secs(2));
    owners_are(&mut w, 3, 1..=1, 1);
    // A third one has seen the two, and does not claim.
    w.frame(2, P2, mac(1), None);
    w.run_for(Span::secs(2));
    assert_eq!(place(&mut w, 1, mac(1)), Place::Port("p1".into()));
    assert_eq!(refused(&w, 2).len(), 1);
    assert!(refused(&w, 2)[0].2.contains("owners"));
    assert_eq!(w.hosts[2].fdb.get(&mac(1)), Some(&VXLAN), "put back");
    w.run_for(Span::secs(3700));
    assert_eq!(w.mac_row(1, mac(1)), remote(2), "an hour later it may");
    assert_eq!(place(&mut w, 2, mac(1)), Place::Port("p2".into()));
}

fn limits(c: &mut Config) {
    c.vnis[0].mobility.port_mac_limit = 50;
    c.vnis[0].mobility.mac_limit = 80;
    // The limits alone; `node_guard` has what comes on top.
    c.vnis[0].mobility.flood_guard = 0;
}

fn made_up(n: u32) -> Mac {
    let [a, b, c, d] = n.to_be_bytes();
    Mac([2, 0xaa, a, b, c, d])
}

fn told_of_limits(w: &World, node: usize) -> Vec<String> {
    let events = w.hosts[node].events.iter();
    events
        .filter_map(|(_, e)| if let Event::Limit { what, .. } = e { Some(what.clone()) } else { None })
        .collect()
}

/// "Bad input": a port that makes MACs up reaches its limit; nothing of the rest is kept or told to anybody.
#[test]
fn a_flood_of_macs_stops_at_the_limit_of_its_port() {
    let mut w = world(2, limits);
    for n in 0..20_000 {
        w.frame(0, P1, made_up(n), None);
    }
    w.run_for(Span::secs(1));
    assert_eq!((w.status(0).local_macs, w.status(1).remote_macs), (50, 50));
    assert_eq!(w.status(0).counters["macs_over_limit"], 19_950);
    assert_eq!(told_of_limits(&w, 0), ["MAC addresses on port p1 of VNI 100"], "told once");
    // Another port of the VNI has places, and a VM that is known moves here although its port has none.
    w.frame(0, P2, mac(1), None);
    w.frame(1, P1, mac(2), None);
    w.run_for(Span::secs(2));
    w.frame(0, P1, mac(2), None);
    w.run_for(Span::millis(5));
    assert_eq!((w.mac_row(1, mac(1)), w.mac_row(1, mac(2))), (remote(0), remote(0)));
    // The VNI's limit is another one.
    for n in 0..100 {
        w.frame(0, P2, made_up(100_000 + n), None);
    }
    assert_eq!(w.status(0).local_macs, 80);
    assert_eq!(told_of_limits(&w, 0).len(), 2);
}

#[test]
fn macs_that_age_out_free_places_and_the_kernel_is_asked_once() {
    let mut w = world(2, |c| {
        limits(c);
        c.vnis[0].mobility.flood_guard = 5;
    });
    for n in 0..54 {
        w.frame(0, P1, made_up(n), None);
    }
    assert_eq!(w.status(0).local_macs, 50);
    w.run_for(Span::secs(20));
    for n in 0..8 {
        w.forget(0, made_up(n));
    }
    w.run_for(Span::millis(5));
    assert_eq!(w.recalls(0), 1, "not at every single one");
    assert_eq!((w.status(0).local_macs, w.status(1).remote_macs), (46, 46), "all that are there");
    assert!(w.mac_row(1, made_up(53)).is_some());
    // The limit reached again, and places freed again after the look: there is another one.
    for n in 54..62 {
        w.frame(0, P1, made_up(n), None);
    }
    w.run_for(Span::secs(20));
    for n in 8..14 {
        w.forget(0, made_up(n));
    }
    w.forget(0, made_up(14));
    w.run_for(Span::secs(11));
    assert_eq!(w.status(0).local_macs, 47);
    // What is only looked at again is no new sign of a flood, and no sign of life.
    for n in 62..67 {
        w.frame(0, P1, made_up(n), None);
    }
    w.run_for(Span::secs(10));
    let over = w.status(0).counters["macs_over_limit"];
    for n in 20..26 {
        w.forget(0, made_up(n));
        w.run_for(Span::secs(11));
    }
    assert_eq!(w.status(0).counters["macs_over_limit"], over);
    assert!(w.hosts[0].guarded.is_empty());
    assert_eq!(w.status(0).local_macs, 46);
}
