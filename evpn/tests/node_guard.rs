//! A port that goes on making MACs up lets only known ones in, and is opened again when it is quiet.

mod world;

use evpn::node::{Config, DuplicateMode, Event, GuardNews, Input};
use evpn::types::{IfIndex, Mac, Span};
use world::{P1, P2, World, mac};

const MS: Span = Span::millis(1);

fn world(tweak: impl Fn(&mut Config)) -> World {
    let mut w = World::with(2, MS, |c| {
        c.mobility.duplicates.mode = DuplicateMode::Off;
        let m = &mut c.vnis[0].mobility;
        (m.port_mac_limit, m.mac_limit, m.flood_guard) = (50, 80, 100);
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

fn flood(w: &mut World, port: IfIndex, macs: core::ops::Range<u32>) {
    for n in macs {
        w.frame(0, port, made_up(n), None);
    }
}

/// Each time a port of node 0 was guarded: how long it had to be quiet.
fn holds(w: &World) -> Vec<Span> {
    let events = w.hosts[0].events.iter();
    events
        .filter_map(|(_, e)| if let Event::PortGuarded { hold, .. } = e { Some(*hold) } else { None })
        .collect()
}

fn opened(w: &World) -> usize {
    w.hosts[0].events.iter().filter(|(_, e)| matches!(e, Event::PortOpened { .. })).count()
}

/// The filter of a port of node 0 tells what it has dropped so far, as it does every second, for so long.
fn report(w: &mut World, seconds: u64) {
    for _ in 0..seconds {
        w.run_for(Span::secs(1));
        if let Some((_, n)) = w.hosts[0].guarded.get(&P1) {
            let news = GuardNews::Dropped(*n);
            w.input(0, Input::Guard { port: P1, news });
        }
    }
}

/// Where a node has a MAC, as `show macs` writes it.
fn place(w: &mut World, node: usize, m: Mac) -> String {
    w.macs(node).into_iter().find(|r| r.mac == m).map_or_else(String::new, |r| r.place.to_string())
}

fn problems(w: &mut World) -> Vec<String> {
    w.vnis(0).into_iter().flat_map(|v| v.problems).collect()
}

#[test]
fn a_flooding_port_lets_known_macs_in_and_no_others() {
    let mut w = world(|_| {});
    w.frame(0, P1, mac(1), None);
    w.frame(0, P2, mac(2), None);
    w.frame(1, P1, mac(3), None);
    w.run_for(Span::secs(1));
    flood(&mut w, P1, 0..20_000);
    assert_eq!(holds(&w), [Span::secs(10)], "told once");
    // 50 places, one of them mac(1)'s; the hundredth beyond them is one too many.
    assert_eq!(w.hosts[0].guarded[&P1].1, 20_000 - 49 - 100, "the rest is dropped where it comes in");
    assert_eq!(w.status(0).counters["macs_over_limit"], 100, "and costs nothing any more");
    assert_eq!(w.status(0).counters["guards_begun"], 1);
    assert_eq!(w.status(0).gauges["ports_guarded"], 1);
    assert!(problems(&mut w).iter().any(|p| p.contains("port p1 makes MACs up")), "{:?}", problems(&mut w));
    // Those that are known come in: its own, one of another port, one of another VTEP, which move here as ever.
    for n in [1, 2, 3] {
        w.frame(0, P1, mac(n), None);
        w.run_for(Span::millis(5));
        assert_eq!(place(&mut w, 0, mac(n)), "p1", "MAC {n}");
    }
    // So does one that becomes known elsewhere while the port is guarded, and moves here.
    w.frame(1, P1, mac(4), None);
    w.run_for(Span::millis(5));
    w.frame(0, P1, mac(4), None);
    w.run_for(Span::millis(5));
    assert_eq!(place(&mut w, 0, mac(4)), "p1");
    // Another port lets everything in.
    w.frame(0, P2, mac(5), None);
    w.run_for(Span::millis(5));
    assert_eq!(place(&mut w, 1, mac(5)), "10.255.0.1");
    assert_eq!(w.hosts[0].guarded.len(), 1);
}

/// Remote MACs that are gone do not stay in the filter; a host behind the port that was silent for long is let in.
#[test]
fn the_filter_forgets_what_others_had_and_keeps_what_was_here() {
    let mut w = world(|_| {});
    w.frame(0, P1, mac(1), None);
    w.frame(1, P1, mac(3), None);
    w.run_for(Span::secs(1));
    flood(&mut w, P1, 0..1000);
    w.forget(1, mac(3));
    w.forget(0, mac(1));
    w.run_for(Span::millis(5));
    let (allowed, _) = &w.hosts[0].guarded[&P1];
    assert!(!allowed.contains(&mac(3)) && allowed.contains(&mac(1)), "{allowed:?}");
}

#[test]
fn a_port_is_opened_when_it_has_been_quiet_and_later_after_each_relapse() {
    let mut w = world(|_| {});
    let mut next = 0;
    let mut again = |w: &mut World, n: u32| {
        flood(w, P1, next..next + n);
        next += n;
    };
    again(&mut w, 1000);
    for _ in 0..20 {
        again(&mut w, 100);
        report(&mut w, 1);
    }
    assert_eq!((holds(&w).len(), opened(&w)), (1, 0), "as long as it floods");
    report(&mut w, 8);
    assert_eq!(opened(&w), 0);
    report(&mut w, 3);
    assert_eq!((opened(&w), w.hosts[0].guarded.len()), (1, 0), "quiet for ten seconds");
    assert!(problems(&mut w).is_empty(), "{:?}", problems(&mut w));
    assert_eq!(w.status(0).gauges["ports_guarded"], 0);
    for hold in [20, 40, 80, 160, 320, 600, 600] {
        again(&mut w, 1000);
        assert_eq!(holds(&w).last(), Some(&Span::secs(hold)));
        let before = opened(&w);
        report(&mut w, hold - 1);
        assert_eq!(opened(&w), before, "hold {hold}");
        report(&mut w, 3);
        assert_eq!(opened(&w), before + 1, "hold {hold}");
    }
    // Ten minutes without a relapse: it begins anew.
    w.run_for(Span::secs(601));
    again(&mut w, 1000);
    assert_eq!(holds(&w).last(), Some(&Span::secs(10)));
}

/// A few frames of somebody who is new here are no flood.
#[test]
fn a_talkative_stranger_does_not_keep_the_port_shut() {
    let mut w = world(|_| {});
    flood(&mut w, P1, 0..1000);
    for _ in 0..12 {
        flood(&mut w, P1, 5000..5010);
        report(&mut w, 1);
    }
    assert_eq!(opened(&w), 1);
    w.forget(0, made_up(0));
    w.frame(0, P1, mac(9), None);
    w.run_for(Span::millis(5));
    assert_eq!(place(&mut w, 1, mac(9)), "10.255.0.1", "and then the next one is learned");
}

#[test]
fn a_slow_trickle_beyond_the_limit_is_no_flood() {
    let mut w = world(|_| {});
    flood(&mut w, P1, 0..50);
    for n in 0..1000 {
        flood(&mut w, P1, 100 + n..101 + n);
        w.run_for(Span::millis(150));
    }
    assert_eq!(holds(&w), [], "a hundred within ten seconds would be one");
}

#[test]
fn a_port_may_be_left_alone() {
    let mut w = world(|c| c.vnis[0].mobility.unguarded = ["p1".to_owned()].into());
    flood(&mut w, P1, 0..5000);
    assert!(w.hosts[0].guarded.is_empty());
    flood(&mut w, P2, 5000..10_000);
    assert!(w.hosts[0].guarded.contains_key(&P2), "the VNI's limit is one, too");
    let mut w = world(|c| c.vnis[0].mobility.flood_guard = 0);
    flood(&mut w, P1, 0..5000);
    assert!(w.hosts[0].guarded.is_empty());
}

/// A kernel without the filter: it is said, and not tried at once again.
#[test]
fn a_kernel_that_refuses_is_told_of_and_asked_later() {
    let mut w = world(|_| {});
    flood(&mut w, P1, 0..200);
    let news = GuardNews::Refused("no nf_tables".into());
    w.input(0, Input::Guard { port: P1, news });
    w.hosts[0].guarded.get_mut(&P1).unwrap().0.extend((0..100_000).map(made_up));
    assert!(problems(&mut w).iter().any(|p| p.contains("no nf_tables")));
    let told =
        |w: &World| w.hosts[0].events.iter().filter(|(_, e)| matches!(e, Event::GuardRefused { .. })).count();
    flood(&mut w, P1, 200..5000);
    assert_eq!((told(&w), holds(&w).len()), (1, 1));
    w.run_for(Span::secs(11));
    flood(&mut w, P1, 5000..10_000);
    assert_eq!(holds(&w), [Span::secs(10), Span::secs(20)]);
}

#[test]
fn a_port_that_goes_takes_its_guard_along() {
    let mut w = world(|_| {});
    flood(&mut w, P1, 0..1000);
    assert_eq!(w.hosts[0].guarded.len(), 1);
    w.kernel(0, evpn::fabric::KernelEvent::LinkGone(P1));
    w.run_for(Span::millis(5));
    assert_eq!((w.hosts[0].guarded.len(), opened(&w)), (0, 1));
    // What its filter still says concerns nobody.
    w.input(0, Input::Guard { port: P1, news: GuardNews::Dropped(7) });
    assert_eq!(w.status(0).counters.get("frames_guarded").copied().unwrap_or(0), 0);
}
