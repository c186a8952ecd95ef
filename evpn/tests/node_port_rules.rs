//! What ports drop where it comes in: which devices have which rules, what becomes of them, and what was dropped
//! (PIT-10, VXLAN-05, HOST-RARP-02).

mod world;

use evpn::fabric::KernelEvent;
use evpn::node::{Event, Flooding, Input, Outward, PortDrops, PortNews, PortRules, Storm, Unasked, Unknown};
use evpn::types::Span;
use world::{P1, P2, VXLAN, World};

const STORM: Storm = Storm { arp: 100, nd: 200, broadcast: 0, multicast: 300 };

fn world(tagged: bool, storm: Storm) -> World {
    let mut w = World::with(1, Span::millis(1), |c| {
        c.vnis[0].hosts.tagged = tagged;
        c.vnis[0].hosts.storm = storm;
    });
    w.run_for(Span::secs(1));
    w
}

fn news(w: &mut World, news: PortNews) {
    w.input(0, Input::PortRules { port: P1, news });
    w.run_for(Span::millis(10));
}

#[test]
fn tagged_frames_are_dropped_at_each_port_and_from_the_overlay_unless_they_are_to_pass() {
    let w = world(false, Storm::default());
    let vxlan = PortRules { tagged: true, ..PortRules::default() };
    let drop = PortRules { unasked: Unasked::OddAndOptions, ..vxlan };
    assert_eq!(w.hosts[0].rules, [(P1, drop), (P2, drop), (VXLAN, vxlan)].into());
    assert!(world(true, Storm::default()).hosts[0].rules.values().all(|r| !r.tagged));
}

#[test]
fn limits_are_for_access_ports_alone() {
    let w = world(true, STORM);
    let rules = PortRules { storm: STORM, unasked: Unasked::OddAndOptions, ..PortRules::default() };
    assert_eq!(w.hosts[0].rules, [(P1, rules), (P2, rules)].into());
}

/// PIT-19, PROXY-FLOOD-01.
#[test]
fn what_does_not_go_out_to_the_overlay_follows_the_policy() {
    use Flooding::{None, Replicate};
    for (flooding, unknown, want) in [
        (Replicate, Unknown::Replicate, Outward::All),
        (Replicate, Unknown::Unicast, Outward::NoQuestions),
        (Replicate, Unknown::Drop, Outward::NoQuestions),
        (None, Unknown::Unicast, Outward::NoGroups),
        (None, Unknown::Replicate, Outward::NoGroups),
    ] {
        let mut w = World::with(1, Span::millis(1), |c| {
            c.vnis[0].flooding = flooding;
            c.vnis[0].hosts.unknown = unknown;
        });
        w.run_for(Span::secs(1));
        assert_eq!(w.hosts[0].rules[&VXLAN].outward, want, "{flooding:?}, {unknown:?}");
        assert_eq!(w.hosts[0].rules[&P1].outward, Outward::All);
    }
}

#[test]
fn a_port_that_goes_has_no_rules_and_one_that_comes_has() {
    let mut w = world(false, STORM);
    assert_eq!(w.hosts[0].rules.len(), 3);
    w.kernel(0, KernelEvent::LinkGone(P1));
    w.run_for(Span::millis(10));
    assert_eq!(w.hosts[0].rules.keys().copied().collect::<Vec<_>>(), [VXLAN, P2]);
    w.devices(0, world::own_mac(0));
    w.run_for(Span::millis(10));
    assert_eq!(
        w.hosts[0].rules[&P1],
        PortRules { tagged: true, storm: STORM, unasked: Unasked::OddAndOptions, outward: Outward::All }
    );
}

#[test]
fn what_is_dropped_is_counted_by_port_and_rule_and_never_falls() {
    let mut w = world(false, STORM);
    assert!(w.status(0).port_drops.is_empty());
    news(&mut w, PortNews::On);
    news(&mut w, PortNews::Dropped(PortDrops { tagged: 3, arp: 10, ..PortDrops::default() }));
    news(&mut w, PortNews::Dropped(PortDrops { tagged: 3, arp: 25, nd: 1, ..PortDrops::default() }));
    let s = w.status(0);
    let count = |name: &str| s.counters.get(name).copied().unwrap_or(0);
    assert_eq!(
        ["tagged", "arp", "nd", "broadcast", "multicast"].map(|k| count(&format!("frames_dropped_{k}"))),
        [3, 25, 1, 0, 0]
    );
    assert_eq!(s.port_drops.len(), 1);
    assert_eq!((s.port_drops[0].port.as_str(), s.port_drops[0].drops.arp), ("p1", 25));
    // The filter was made anew and counts from 0.
    news(&mut w, PortNews::On);
    news(&mut w, PortNews::Dropped(PortDrops { arp: 5, ..PortDrops::default() }));
    let s = w.status(0);
    assert_eq!((s.counters["frames_dropped_arp"], s.counters["frames_dropped_tagged"]), (30, 3));
    assert_eq!((s.port_drops[0].drops.arp, s.port_drops[0].drops.tagged), (30, 3));
}

#[test]
fn a_kernel_that_refuses_is_named_until_it_has_the_rules() {
    let mut w = world(false, Storm::default());
    news(&mut w, PortNews::Refused("no netdev family".into()));
    let problems = |w: &mut World| w.vnis(0).into_iter().flat_map(|v| v.problems).collect::<Vec<_>>();
    assert!(
        problems(&mut w).iter().any(|p| p.contains("port p1: no netdev family")),
        "{:?}",
        problems(&mut w)
    );
    assert!(
        w.hosts[0]
            .events
            .iter()
            .any(|(_, e)| matches!(e, Event::DeviceProblem { device, .. } if device == "p1"))
    );
    news(&mut w, PortNews::On);
    assert!(problems(&mut w).is_empty());
}
