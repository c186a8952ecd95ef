//! Mobility beside FRR beyond the plain hot move: cold moves, changed MACs and addresses, late withdrawals, many moves
//! in a short time. Each both ways, and asserted on both sides.

use rustix::process::Signal;
use std::time::Duration;
use vtepd_tests::fabric::{Fabric, Guest, Place, test_mac};
use vtepd_tests::frame;
use vtepd_tests::mixed::Mixed;
use vtepd_tests::moves::Mentions;
use vtepd_tests::need::{Need, met};
use vtepd_tests::poll::{LATER, SOON, eventually, same, throughout};

const NEEDS: [Need; 2] = [Need::Root, Need::Frr];
/// How long nothing may happen where nothing should.
const QUIET: Duration = Duration::from_millis(700);

/// FRR has forgotten the MAC altogether, and with it the sequence.
fn frr_forgot(m: &Mixed, vtep: usize, g: &Guest) -> Result<(), String> {
    let row = m.frr(vtep).mac(100, &g.mac.to_string());
    if row["type"].is_null() { Ok(()) } else { Err(row.to_string()) }
}

/// Scenario 43: one gratuitous ARP at vtepd moves MAC and address. FRR in its place never sends the address then.
#[test]
fn one_gratuitous_arp_at_vtepd_moves_mac_and_address() {
    if !met(&NEEDS) {
        return;
    }
    let m = Mixed::converged_pair();
    let g = Guest::new(43);
    m.appears(&g, 1);
    let carrier = m.carrier_changes();
    m.guest(0).send(&g.garp());
    eventually(SOON, "FRR's kernel follows", || m.sends_home(1, 0, &g));
    eventually(SOON, "and answers with our binding", || m.answers(1, &g));
    eventually(SOON, "ours carry the next sequence", || m.routes_are(0, None, &g, [true, true], 1));
    eventually(SOON, "FRR has withdrawn both", || m.routes_are(0, Some(1), &g, [false, false], 0));
    eventually(SOON, "FRR has MAC", || m.frr_says(1, &g, "remote", 1));
    eventually(SOON, "and address as ours", || m.frr_ip_is(1, &g, "remote"));
    m.sends_home(0, 0, &g).unwrap();
    m.is_silent(0, g.ip.into()).unwrap();
    assert_eq!(m.carrier_changes(), carrier);
}

/// Scenario 43 the other way: FRR learns the MAC from the one gratuitous ARP, but not the address, because its kernel holds
/// our binding at that moment. What vtepd owes: it withdraws both, answers for nobody, and takes the address as soon
/// as FRR sends it.
#[test]
fn one_gratuitous_arp_at_frr_moves_the_mac_and_leaves_no_false_answer() {
    if !met(&NEEDS) {
        return;
    }
    let m = Mixed::converged_pair();
    let g = Guest::new(44);
    m.appears(&g, 0);
    m.guest(1).send(&g.garp());
    eventually(SOON, "our kernel follows", || m.sends_home(0, 1, &g));
    eventually(SOON, "we withdraw both", || m.routes_are(0, None, &g, [false, false], 0));
    eventually(SOON, "FRR has the MAC as its own", || m.frr_says(1, &g, "local", 1));
    let clean = || {
        m.sends_home(0, 1, &g).map_err(|p| format!("{p:?}"))?;
        m.is_silent(0, g.ip.into())
    };
    eventually(SOON, "nobody answers for the address", clean);
    throughout(QUIET, "nor later", clean);
    eventually(SOON, "FRR's remote binding is gone", || m.is_silent(1, g.ip.into()));
    m.guest(1).send(&g.garp());
    eventually(SOON, "the address follows the next one", || m.answers(0, &g));
    m.routes_are(0, Some(1), &g, [true, true], 1).unwrap();
}

/// Scenario 33: seven moves within 180 s, four of them to vtepd. FRR calls the MAC a duplicate and goes on; both sides
/// follow the highest sequence to the end, nothing is frozen (EVPN-MOB-15).
#[test]
fn seven_moves_in_a_row_freeze_nothing() {
    if !met(&NEEDS) {
        return;
    }
    let m = Mixed::converged_pair();
    let g = Guest::new(33);
    m.appears(&g, 1);
    for n in 1..=7u64 {
        let to = (n as usize + 1) % 2;
        m.moves(&g, to);
        eventually(SOON, "the sequence rose by one", || same(m.seq(0, &g), n));
        let kind = if to == 1 { "local" } else { "remote" };
        eventually(SOON, "FRR agrees", || m.frr_says(1, &g, kind, n));
    }
    let row = m.frr(1).mac(100, &g.mac.to_string());
    assert_eq!(row["isDuplicate"], true, "FRR counts five moves in 180 s: {row}");
    eventually(SOON, "the loser has withdrawn", || m.routes_are(0, Some(1), &g, [false, false], 0));
    m.routes_are(0, None, &g, [true, false], 7).unwrap();
    m.guest(0).send(&g.garp());
    eventually(SOON, "the address too is where it is", || m.answers(1, &g));
    m.routes_are(0, None, &g, [true, true], 7).unwrap();
}

/// Scenario 34: the VM is shut down at one vtepd, FRR still remembers its sequence (because its kernel has an old
/// neighbour row of its own), and the VM boots at the other vtepd. A sequence of 0 FRR 8.4 would ignore for ever;
/// ours is above the remembered one (EVPN-MOB-12).
#[test]
fn a_cold_move_beats_an_frr_that_remembers() {
    if !met(&NEEDS) {
        return;
    }
    // Without its addresses, so that FRR keeps the row that it has learned itself.
    let m = Mixed::two_and_frr(|c| c.sections = "[mobility]\nmove-ips-with-mac = false".into());
    let g = Guest::new(34);
    m.guest(1).send(&g.garp());
    eventually(LATER, "known with its address", || m.answers(0, &g));
    m.moves(&g, 0);
    m.moves(&g, 1);
    m.moves(&g, 0);
    eventually(SOON, "FRR has the sequence", || m.frr_says(1, &g, "remote", 3));
    m.shut_down(0);
    eventually(SOON, "our routes are gone", || m.routes_are(2, Some(0), &g, [false, false], 0));
    eventually(SOON, "FRR remembers it nevertheless", || {
        let row = m.frr(1).mac(100, &g.mac.to_string());
        if row["type"] == "auto" && row["localSequence"] == 2 { Ok(()) } else { Err(row) }
    });
    eventually(SOON, "nobody sends it anywhere", || m.vtep(1).sends_to(100, g.mac, &Place::Nowhere));
    m.guest(2).send(&g.garp());
    for i in [0, 1] {
        eventually(SOON, "all send to the new place", || m.sends_home(i, 2, &g));
        eventually(SOON, "and answer for it", || m.answers(i, &g));
    }
    eventually(SOON, "the sequence is above the old one", || m.routes_are(2, None, &g, [true, true], 4));
    m.frr_says(1, &g, "remote", 4).unwrap();
}

/// Scenario 35: the VM is shut down at vtepd and boots at an FRR that knows nothing and sends no sequence. The withdrawn
/// higher one is no hindrance; the next hot move is above both.
#[test]
fn a_cold_move_to_an_frr_that_starts_at_nothing_is_followed() {
    if !met(&NEEDS) {
        return;
    }
    let m = Mixed::two_and_frr(|_| {});
    let g = Guest::new(35);
    m.appears(&g, 0);
    m.moves(&g, 2);
    m.moves(&g, 0);
    eventually(SOON, "the sequence", || same(m.seq(2, &g), 2));
    m.shut_down(0);
    eventually(SOON, "FRR has forgotten it", || frr_forgot(&m, 1, &g));
    m.appears(&g, 1);
    eventually(SOON, "FRR starts at 0", || m.routes_are(0, Some(1), &g, [true, true], 0));
    for i in [0, 2] {
        m.routes_are(i, None, &g, [false, false], 0).unwrap();
        same(m.seq(i, &g), 0).unwrap();
    }
    m.moves(&g, 2);
    eventually(SOON, "above what was remembered", || m.routes_are(2, None, &g, [true, true], 3));
    eventually(SOON, "FRR follows", || m.frr_says(1, &g, "remote", 3));
    eventually(SOON, "with the address", || m.frr_ip_is(1, &g, "remote"));
}

/// Scenario 37: FRR's bgpd is held while the VM moves to vtepd and its port at FRR goes. The withdrawals of MAC and MAC+IP
/// come late: row, neighbours and routes of the new owner are untouched, and it says nothing again (EVPN-MOB-10).
#[test]
fn late_withdrawals_of_frr_touch_nothing_here() {
    if !met(&NEEDS) {
        return;
    }
    let m = Mixed::two_and_frr(|_| {});
    let g = Guest::new(37);
    m.appears(&g, 1);
    let said = Mentions::open(&m, 2, g.mac);
    m.frr(1).bgpd.signal(Signal::STOP);
    m.guest(0).send(&g.rarp());
    for i in [0, 2] {
        eventually(SOON, "the vtepd agree", || m.sends_home(i, 0, &g));
    }
    m.shut_down(1);
    eventually(SOON, "it is no more at FRR", || {
        let p = m.vtep(1).place(100, g.mac);
        if p == Place::port("p1") { Err(p) } else { Ok(()) }
    });
    m.routes_are(0, Some(1), &g, [true, true], 0).expect("FRR has not withdrawn yet");
    m.frr(1).bgpd.signal(Signal::CONT);
    let right = || {
        for i in [0, 2] {
            m.sends_home(i, 0, &g).map_err(|p| format!("{p:?}"))?;
        }
        m.routes_are(0, None, &g, [true, true], 1)?;
        m.answers(2, &g)?;
        m.is_silent(0, g.ip.into())
    };
    eventually(SOON, "now it has", || {
        right().expect("untouched on the way");
        m.routes_are(0, Some(1), &g, [false, false], 0)
    });
    throughout(QUIET, "all stays as it was", right);
    eventually(SOON, "FRR follows", || m.sends_home(1, 0, &g));
    eventually(SOON, "with the address", || m.answers(1, &g));
    let ours = said.heard().into_iter().filter(|a| *a == m.vtep(0).address).count();
    assert_eq!(ours, 2, "MAC and MAC+IP were said once");
}

/// Scenario 37 the other way: vtepd is held while the VM moves to FRR, and its port here goes. What vtepd says when it
/// wakes does not disturb the new owner, and it claims nothing.
#[test]
fn late_withdrawals_of_vtepd_touch_nothing_at_frr() {
    if !met(&NEEDS) {
        return;
    }
    let m = Mixed::two_and_frr(|_| {});
    let g = Guest::new(38);
    m.appears(&g, 0);
    m.vtepd(0).process.signal(Signal::STOP);
    m.guest(1).send(&g.rarp());
    eventually(SOON, "the other vtepd agrees with FRR", || m.sends_home(2, 1, &g));
    m.shut_down(0);
    m.routes_are(2, Some(0), &g, [true, true], 0).expect("the held one has not withdrawn yet");
    m.vtepd(0).process.signal(Signal::CONT);
    eventually(SOON, "now it has", || m.routes_are(2, Some(0), &g, [false, false], 0));
    eventually(SOON, "and follows", || m.sends_home(0, 1, &g));
    throughout(QUIET, "FRR keeps it", || {
        m.sends_home(1, 1, &g).map_err(|p| format!("{p:?}"))?;
        m.frr_says(1, &g, "local", 1).map_err(|e| e.to_string())?;
        m.routes_are(0, None, &g, [false, false], 0)?;
        m.routes_are(2, Some(1), &g, [true, false], 1)
    });
    eventually(SOON, "FRR's remote binding is gone", || m.is_silent(1, g.ip.into()));
    m.guest(1).send(&g.garp());
    for i in [0, 2] {
        eventually(SOON, "the address is there once the guest speaks", || m.answers(i, &g));
    }
}

/// Scenario 38: the VM comes up at vtepd with the same address and a new MAC, while its old incarnation is still in FRR's
/// tables. The new MAC takes a sequence above the old one's (EVPN-XMOB-06); FRR turns the address and withdraws its own
/// binding (EVPN-XMOB-09), the third site follows.
#[test]
fn an_address_that_takes_a_new_mac_at_vtepd_leaves_frr() {
    if !met(&NEEDS) {
        return;
    }
    let m = Mixed::two_and_frr(|_| {});
    let old = Guest::new(39);
    let new = Guest { mac: test_mac(0x139), ..old };
    m.appears(&old, 1);
    m.appears(&new, 0);
    eventually(SOON, "above the old MAC's sequence", || m.routes_are(0, None, &new, [true, true], 1));
    eventually(SOON, "FRR withdraws the old binding alone", || {
        m.routes_are(0, Some(1), &old, [true, false], 0)
    });
    eventually(SOON, "FRR has the address as ours", || m.frr_ip_is(1, &new, "remote"));
    throughout(QUIET, "and it stays", || {
        m.answers(1, &new)?;
        m.answers(2, &new)?;
        m.is_silent(0, new.ip.into())
    });
    m.sends_home(0, 1, &old).unwrap();
}

/// Scenario 38 the other way: shut down at vtepd, up at FRR with a new MAC. The old binding is gone with its port, and the
/// new one is taken from FRR although it carries no sequence.
#[test]
fn an_address_that_takes_a_new_mac_at_frr_leaves_vtepd() {
    if !met(&NEEDS) {
        return;
    }
    let m = Mixed::two_and_frr(|_| {});
    let old = Guest::new(40);
    let new = Guest { mac: test_mac(0x140), ..old };
    m.appears(&old, 0);
    m.moves(&old, 2);
    m.shut_down(2);
    eventually(SOON, "FRR has dropped the old one", || frr_forgot(&m, 1, &old));
    m.appears(&new, 1);
    for i in [0, 2] {
        m.routes_are(i, None, &old, [false, false], 0).unwrap();
        eventually(SOON, "nobody has the old MAC", || m.vtep(i).sends_to(100, old.mac, &Place::Nowhere));
    }
    eventually(SOON, "FRR says it", || m.frr_ip_is(1, &new, "local"));
    throughout(QUIET, "and it stays", || {
        m.answers(0, &new)?;
        m.answers(2, &new)
    });
}

/// Scenario 39: the VM leaves for FRR, gets another address there, and comes back by RARP. The first address is not
/// revived (EVPN-XMOB-07).
#[test]
fn an_address_left_behind_is_not_revived_by_the_move_back_to_vtepd() {
    if !met(&NEEDS) {
        return;
    }
    let m = Mixed::two_and_frr(|_| {});
    let first = Guest::new(41);
    let second = Guest { ip: Guest::new(141).ip, ..first };
    m.appears(&first, 0);
    m.moves(&first, 1);
    m.guest(1).send(&second.garp());
    eventually(SOON, "the new address is known", || m.answers(0, &second));
    eventually(SOON, "the old one is not", || m.is_silent(2, first.ip.into()));
    m.moves(&first, 0);
    m.guest(0).send(&second.garp());
    eventually(SOON, "with the new address", || m.routes_are(0, None, &second, [true, true], 2));
    eventually(SOON, "FRR answers for it", || m.answers(1, &second));
    throughout(QUIET, "the old address stays away", || {
        m.routes_are(0, None, &first, [true, false], 2)?;
        (0..3).try_for_each(|i| m.is_silent(i, first.ip.into()))
    });
}

/// Scenario 39 the other way: the VM leaves FRR for vtepd, where it answers for a new address only. The old one came along
/// on trust, is asked for and given up; on the move back FRR does not revive it either, because its kernel had to give
/// up its row for ours.
#[test]
fn an_address_that_does_not_answer_at_vtepd_is_given_up_for_good() {
    if !met(&NEEDS) {
        return;
    }
    let m = Mixed::two_and_frr(|_| {});
    let first = Guest::new(42);
    let second = Guest { ip: Guest::new(142).ip, ..first };
    m.appears(&first, 1);
    let port = m.guest(0);
    m.moves(&first, 0);
    port.send(&second.garp());
    let asked = port.find(SOON, |f| {
        (f.get(..6)? == first.mac.0 && f[12..14] == [8, 6] && f[38..42] == first.ip.octets()).then_some(())
    });
    assert!(asked.is_some(), "it is asked for the old address");
    eventually(SOON, "the old address is given up", || m.routes_are(0, None, &first, [true, false], 1));
    eventually(SOON, "the new one is known", || m.answers(1, &second));
    for i in [1, 2] {
        eventually(SOON, "nobody answers for the old one", || m.is_silent(i, first.ip.into()));
    }
    m.moves(&first, 1);
    throughout(QUIET, "the old address stays away", || {
        m.routes_are(0, Some(1), &first, [true, false], 2).or(m.routes_are(
            0,
            Some(1),
            &first,
            [false, false],
            0,
        ))?;
        (0..3).try_for_each(|i| m.is_silent(i, first.ip.into()))
    });
}

/// Scenario 41 the other way: equal sequences, and FRR has the lower address. vtepd gives way and withdraws
/// (EVPN-MOB-08). MAC alone: FRR 8.4 lets a remote MAC+IP route of the same sequence evict its own MAC, whatever the
/// addresses of the VTEPs.
#[test]
fn vtepd_gives_way_to_a_lower_address() {
    if !met(&NEEDS) {
        return;
    }
    let mut m = Mixed::new(Fabric::new(2));
    m.start_frr(0);
    m.start_vtepd(1);
    m.converge();
    let g = Guest::new(45);
    m.frr(0).configure(65000, &["neighbor 10.0.0.2 shutdown"]);
    eventually(SOON, "the session is down", || {
        let s = m.vtepd(1).neighbor_state(m.vtep(0).address);
        if s == "Established" { Err(s) } else { Ok(()) }
    });
    for i in [0, 1] {
        m.guest(i).send(&g.rarp());
        eventually(SOON, "local at both", || m.sends_home(i, i, &g));
    }
    eventually(SOON, "FRR's bgpd has it", || {
        let text = m.frr(0).routes("type macip");
        if text.contains(&g.mac.to_string()) { Ok(()) } else { Err(text) }
    });
    m.frr(0).configure(65000, &["no neighbor 10.0.0.2 shutdown"]);
    eventually(LATER, "theirs wins here", || m.sends_home(1, 0, &g));
    eventually(SOON, "we withdraw", || m.routes_are(1, None, &g, [false, false], 0));
    throughout(QUIET, "and it stays", || {
        m.sends_home(0, 0, &g).map_err(|p| format!("{p:?}"))?;
        m.frr_says(0, &g, "local", 0).map_err(|e| e.to_string())?;
        m.sends_home(1, 0, &g).map_err(|p| format!("{p:?}"))
    });
}

/// Scenario 40, from FRR: a MAC that FRR's operator has pinned to a port. vtepd shows it sticky, and a guest here that uses
/// it gets nothing (EVPN-MOB-17).
#[test]
fn a_mac_that_is_static_at_frr_is_never_ours() {
    if !met(&NEEDS) {
        return;
    }
    let m = Mixed::converged_pair();
    let g = Guest::new(46);
    m.vtep(1).ns.sh(&format!("bridge fdb add {} dev p1 master static sticky", g.mac));
    eventually(SOON, "it is remote here", || m.sends_home(0, 1, &g));
    let row = m.vtepd(0).mac(&g.mac.to_string());
    assert_eq!(row["sticky"], true, "{row}");
    let said = Mentions::open(&m, 1, g.mac);
    let port = m.guest(0);
    for n in 0..5 {
        port.send(&g.garp());
        port.send(&frame::data(test_mac(99), g.mac, n));
    }
    throughout(QUIET, "it stays remote", || {
        let row = m.vtepd(0).mac(&g.mac.to_string());
        same(row["place"]["vtep"].clone(), "10.0.0.2".into())
    });
    eventually(SOON, "so says the kernel", || m.sends_home(0, 1, &g));
    assert_eq!(said.heard().len(), 0, "nobody said anything");
    m.frr_says(1, &g, "local", 0).unwrap();
    m.sends_home(1, 1, &g).unwrap();
}
