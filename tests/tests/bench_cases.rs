//! Cases of `cargo xtask bench` in small: each runs to its end and says what it is to say. How long things take is not
//! looked at here.

use std::time::Duration;
use vtepd_tests::bench::{Case, Machine, Part, Report, Shape, Sizes, System, run};
use vtepd_tests::need::{Need, met};
use vtepd_tests::truth::{self, Plan};

/// Few hosts, and one start of a daemon.
const PLAN: Plan = Plan {
    span: Duration::from_secs(14),
    hosts: 20,
    linux: 3,
    confirm: Duration::from_secs(4),
    step: Duration::from_millis(200),
    restart: Duration::from_secs(5),
    asks: 50,
    seed: 1,
    liar: false,
};

/// A few of everything.
const FEW: Sizes = Sizes {
    moves: 3,
    loaded: 20,
    background: 10,
    bulk: [10, 20],
    evacuated: 20,
    repeats: 1,
    flooded: 1000,
    flood_rate: 5000,
    part: None,
    answers: 50,
    silent: 40,
    kept: Duration::from_secs(7),
    confirm: Duration::from_secs(3),
    storm_rate: 2000,
    truth: PLAN,
    routes: 100,
    loads: 1,
    shapes: [
        Shape { senders: 2, routes: 200, listeners: 0 },
        Shape { senders: 5, routes: 100, listeners: 0 },
        Shape { senders: 1, routes: 100, listeners: 10 },
    ],
    reflections: 1,
};

/// Runs one part of the case `arp`; gives its figures by name.
fn figures(part: Part) -> Report {
    let mut report = Report::new(Machine::here());
    run(Case::Arp, System::Vtepd, &Sizes { part: Some(part), ..FEW }, &mut report);
    println!("{}", report.table());
    report
}

/// The median of a figure whose name contains this.
fn of(report: &Report, what: &str) -> f64 {
    let all = report.lines();
    let hit = all.iter().find(|l| l.what.contains(what));
    hit.unwrap_or_else(|| panic!("{what} is not among {all:#?}")).median
}

/// PROXY-REPLY-01, -07: the kernel answers where the asker is.
#[test]
fn known_hosts_are_answered_for_and_nothing_crosses() {
    if !met(&[Need::Root]) {
        return;
    }
    let r = figures(Part::Known);
    for family in ["ARP", "ND"] {
        assert!(of(&r, &format!("{family} for a known host: VXLAN frames")) < 1.0);
        assert!(of(&r, &format!("{family} for a known host: median to")) > 0.0);
    }
}

/// PROXY-MAINT-01: who only answers is asked in time and stays.
#[test]
fn silent_hosts_are_kept() {
    if !met(&[Need::Root]) {
        return;
    }
    let r = figures(Part::Silent);
    assert!(of(&r, "bindings lost") < 1.0);
    assert!(of(&r, "questions a second") > 1.0, "they are asked");
}

#[test]
fn a_storm_reaches_its_rate_and_moves_end_beside_it() {
    if !met(&[Need::Root]) {
        return;
    }
    let r = figures(Part::Storm);
    assert!(of(&r, "ARP storm: rate") > 0.0);
    assert!(of(&r, "hot move: beside an ARP storm") > 0.0);
    assert!(of(&r, "peak resident memory") >= of(&r, "resident memory before"));
}

/// PIT-14: whoever checks its address is not told by anybody that a lost VTEP's guest has it.
#[test]
fn a_guest_of_a_lost_vtep_starts_elsewhere_and_keeps_its_address() {
    if !met(&[Need::Root, Need::Package { program: "arping", package: "iputils-arping" }]) {
        return;
    }
    let mut report = Report::new(Machine::here());
    let sizes = Sizes { part: Some(Part::Disaster), moves: 1, ..FEW };
    run(Case::Arp, System::Vtepd, &sizes, &mut report);
    println!("{}", report.table());
    for family in ["IPv4", "IPv6"] {
        assert!(of(&report, &format!("refused at the first try, {family}")) < 1.0);
        assert!(of(&report, &format!("first packet, {family}")) < 5000.0, "a cache's time");
    }
}

/// Not how soon: a busy machine is late with everything.
#[test]
fn the_truth_of_answers_is_watched_while_hosts_move_and_daemons_start() {
    if !met(&[Need::Root]) {
        return;
    }
    let o = truth::run(&PLAN);
    let restarts = o.steps.iter().filter(|(k, _)| k.starts_with("daemon")).map(|(_, n)| n).sum::<u64>();
    assert!(restarts >= 1, "{:?}", o.steps);
    assert!(o.steps.len() >= 5, "{:?}", o.steps);
    assert!(o.frames > 300 && o.rows > 300 && o.asked > 200, "{o:#?}");
    assert!(o.refused.is_empty(), "{:#?}", o.refused);
    assert!(o.in_time() > 50.0, "{o:#?}");
}

#[test]
fn a_lie_is_found() {
    if !met(&[Need::Root]) {
        return;
    }
    let o = truth::run(&Plan { span: Duration::from_secs(6), liar: true, ..PLAN });
    let victim = "10.66.64.0 ";
    assert!(o.wrong.iter().any(|w| w.contains(victim)), "{o:#?}");
}

/// BGP-RR-01: every peer hears every route of the others, none of its own, from each of the reflectors.
#[test]
fn reflectors_pass_everything_on() {
    if !met(&[Need::Root, Need::Frr, Need::GoBgp]) {
        return;
    }
    let mut report = Report::new(Machine::here());
    for system in [System::Vtepd, System::Frr, System::GoBgp] {
        run(Case::Bgp, system, &FEW, &mut report);
    }
    let of = |s| report.lines().iter().filter(|l| l.system == Some(s)).count();
    assert_eq!([System::Vtepd, System::Frr, System::GoBgp].map(of), [9; 3]);
    assert!(report.lines().iter().all(|l| l.median > 0.0), "{}", report.table());
}
