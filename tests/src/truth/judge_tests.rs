//! The judge finds what is planted, and nothing else.

use super::judge::{Asked, How, Ledger, Outage, Seen, Service, Stint, Verdict};
use evpn::types::Mac;
use std::net::IpAddr;

const MS: u64 = 1_000_000;
const S: u64 = 1000 * MS;
const A: Mac = Mac([2, 0, 0, 0, 0, 1]);
const B: Mac = Mac([2, 0, 0, 0, 0, 2]);

fn ip() -> IpAddr {
    "10.0.0.1".parse().unwrap()
}

fn stint(mac: Mac, vtep: usize, begun: u64) -> Stint {
    Stint { mac, vtep, begun, announced: Some(begun + MS), answers: true, gone: None }
}

/// A from 1 s on at VTEP 0; B from 10 s on at VTEP 1, announced at 10.001 s. The dead are forgotten in 20 s.
fn ledger() -> Ledger {
    let mut l = Ledger::new(20 * S);
    l.has(ip(), stint(A, 0, S));
    l.gone(ip(), 9 * S);
    l.has(ip(), stint(B, 1, 10 * S));
    l
}

fn seen(mac: Mac, at: u64) -> Seen {
    Seen { how: How::Frame, vtep: 2, ip: ip(), mac, from: at, to: at }
}

#[test]
fn the_old_mac_is_wrong_50_ms_after_the_new_one_was_announced() {
    let l = ledger();
    assert_eq!(l.judge(&seen(A, 5 * S)), Verdict::Right);
    assert_eq!(l.judge(&seen(A, 9500 * MS)), Verdict::Right, "dead, and nobody knows yet");
    assert_eq!(l.judge(&seen(A, 10_051 * MS)), Verdict::Right);
    assert_eq!(l.judge(&seen(A, 10_052 * MS)), Verdict::Wrong { after: Some(51 * MS) });
    assert_eq!(l.judge(&seen(A, 100 * S)), Verdict::Wrong { after: Some(89_999 * MS) });
}

#[test]
fn a_mac_is_wrong_before_its_time_and_if_it_never_had_the_address() {
    let l = ledger();
    assert_eq!(l.judge(&seen(B, 9999 * MS)), Verdict::Wrong { after: None });
    assert_eq!(l.judge(&seen(B, 10 * S)), Verdict::Right);
    assert_eq!(l.judge(&seen(Mac([2, 9, 9, 9, 9, 9]), 15 * S)), Verdict::Wrong { after: None });
    assert_eq!(
        l.judge(&Seen { ip: "10.0.0.2".parse().unwrap(), ..seen(A, 5 * S) }),
        Verdict::Wrong { after: None }
    );
}

#[test]
fn a_row_is_wrong_only_if_it_was_for_all_the_time_of_reading() {
    let l = ledger();
    let row = |mac, from, to| Seen { how: How::Row, from, to, ..seen(mac, 0) };
    assert_eq!(l.judge(&row(A, 10_040 * MS, 10_300 * MS)), Verdict::Right);
    assert_eq!(l.judge(&row(A, 10_060 * MS, 10_300 * MS)), Verdict::Wrong { after: Some(59 * MS) });
    assert_eq!(l.judge(&row(B, 9900 * MS, 10_001 * MS)), Verdict::Right);
    assert_eq!(l.judge(&row(B, 9900 * MS, 9950 * MS)), Verdict::Wrong { after: None });
}

#[test]
fn who_takes_an_address_back_is_right_again() {
    let mut l = ledger();
    l.has(ip(), stint(A, 0, 30 * S));
    assert_eq!(l.judge(&seen(A, 20 * S)), Verdict::Wrong { after: Some(9999 * MS) });
    assert_eq!(l.judge(&seen(A, 30 * S)), Verdict::Right);
    assert_eq!(l.judge(&seen(B, 30_051 * MS)), Verdict::Right);
    assert_eq!(l.judge(&seen(B, 30_052 * MS)), Verdict::Wrong { after: Some(51 * MS) });
}

#[test]
fn the_dead_are_forgotten_in_the_configured_time() {
    let mut l = ledger();
    l.gone(ip(), 40 * S);
    assert_eq!(l.judge(&seen(B, 59 * S)), Verdict::Right);
    assert_eq!(l.judge(&seen(B, 60 * S + 1)), Verdict::Dead { after: 20 * S + 1 });
}

#[test]
fn a_move_with_the_same_mac_changes_nothing_and_the_end_counts_from_the_last_place() {
    let mut l = Ledger::new(20 * S);
    l.has(ip(), stint(A, 0, S));
    l.has(ip(), stint(A, 1, 5 * S));
    l.gone(ip(), 50 * S);
    assert_eq!(l.history(ip()).len(), 1);
    assert_eq!(l.judge(&seen(A, 40 * S)), Verdict::Right);
    assert_eq!(l.judge(&seen(A, 71 * S)), Verdict::Dead { after: 21 * S });
}

#[test]
fn who_never_says_that_it_has_the_address_corrects_nobody() {
    let mut l = Ledger::new(20 * S);
    l.has(ip(), stint(A, 0, S));
    l.gone(ip(), 5 * S);
    l.has(ip(), Stint { announced: None, ..stint(B, 1, 6 * S) });
    assert_eq!(l.judge(&seen(A, 10 * S)), Verdict::Right);
    assert_eq!(l.judge(&seen(B, 10 * S)), Verdict::Right);
    assert_eq!(l.judge(&seen(A, 26 * S)), Verdict::Dead { after: 21 * S });
    l.announced(ip(), 27 * S);
    assert_eq!(l.judge(&seen(A, 28 * S)), Verdict::Wrong { after: Some(S) });
}

#[test]
fn a_daemon_that_is_away_learns_when_it_is_back_and_no_later() {
    let away = |vtep, from, to| {
        let mut l = ledger();
        l.outages.push(Outage { vtep, from, to });
        l
    };
    // The one whose hosts were told wrong, and the one that had to say it.
    for vtep in [1, 2] {
        let l = away(vtep, 9 * S, 12 * S);
        assert_eq!(l.judge(&seen(A, 12_050 * MS)), Verdict::Right);
        assert_eq!(l.judge(&seen(A, 12_051 * MS)), Verdict::Wrong { after: Some(2050 * MS) });
        let l = away(vtep, 10_040 * MS, u64::MAX);
        assert_eq!(l.judge(&seen(A, 28 * S)), Verdict::Right);
    }
    // Another one's absence, one that was over, and one that came later excuse nobody.
    for l in [away(0, 9 * S, 12 * S), away(2, 8 * S, 10 * S), away(2, 11 * S, 12 * S)] {
        assert_eq!(l.judge(&seen(A, 11_500 * MS)), Verdict::Wrong { after: Some(1499 * MS) });
    }
    // One after the other.
    let mut l = away(1, 9 * S, 12 * S);
    l.outages.push(Outage { vtep: 2, from: 12_010 * MS, to: 15 * S });
    assert_eq!(l.judge(&seen(A, 15_050 * MS)), Verdict::Right);
    assert_eq!(l.judge(&seen(A, 15_051 * MS)), Verdict::Wrong { after: Some(5050 * MS) });
}

#[test]
fn requests_count_for_live_hosts_only() {
    let mut l = ledger();
    let asked = |at, took| Asked { vtep: 2, ip: ip(), at, took };
    assert_eq!(l.service(&asked(5 * S, Some(MS))), Service::InTime);
    assert_eq!(l.service(&asked(5 * S, Some(5 * MS + 1))), Service::Late);
    assert_eq!(l.service(&asked(5 * S, None)), Service::Late);
    assert_eq!(l.service(&asked(S / 2, None)), Service::NotCounted, "not there yet");
    assert_eq!(l.service(&asked(S + MS / 2, None)), Service::NotCounted, "it has not spoken yet");
    assert_eq!(l.service(&asked(9500 * MS, None)), Service::NotCounted, "dead");
    assert_eq!(l.service(&asked(8999 * MS, None)), Service::NotCounted, "about to die");
    l.has(ip(), Stint { answers: false, ..stint(A, 0, 50 * S) });
    assert_eq!(l.service(&asked(60 * S, None)), Service::NotCounted, "it answers nobody");
    assert_eq!(l.service(&asked(45 * S, None)), Service::Late);
}
