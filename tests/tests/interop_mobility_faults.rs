//! Moves while something is broken: a source that dies without a word, a site that is cut off and comes back with a
//! second copy of a VM (PIT-24). Between vtepd, and with FRR on one side.

use std::net::IpAddr;
use std::time::Duration;
use vtepd_tests::fabric::{Fabric, Guest, test_mac};
use vtepd_tests::mixed::Mixed;
use vtepd_tests::moves::Mentions;
use vtepd_tests::need::{Need, met};
use vtepd_tests::packet::Wire;
use vtepd_tests::poll::{LATER, SOON, eventually, throughout};
use vtepd_tests::vtepd::Conf;

const NEEDS: [Need; 2] = [Need::Root, Need::Frr];
/// How long nothing may happen where nothing should.
const QUIET: Duration = Duration::from_secs(2);

/// Sessions notice a cut within 3 s, the shortest there is.
fn impatient(c: &mut Conf) {
    c.neighbor_extra = "hold-time = 3".into();
}

/// Three vtepd; 0 and 2 are one site, 1 is the other.
fn three() -> Mixed {
    let mut m = Mixed::new(Fabric::new(3));
    for i in 0..3 {
        let mut conf = m.fabric.conf(i);
        impatient(&mut conf);
        m.start_vtepd_with(i, &conf);
    }
    m.converge();
    m
}

/// A vtepd has no session with `peer`.
fn has_lost(m: &Mixed, at: usize, peer: usize) -> Result<(), String> {
    let s = m.vtepd(at).neighbor_state(m.vtep(peer).address);
    if s == "Established" { Err(s) } else { Ok(()) }
}

/// Cuts VTEP 1 off until everybody has noticed.
fn cut(m: &Mixed, frr: bool) {
    m.wan(1, false);
    for i in [0, 2] {
        eventually(LATER, "the site notices", || has_lost(m, i, 1));
        eventually(LATER, "so does the other", || {
            if frr {
                let s = m.frr(1).neighbor_state(&m.vtep(i).address.to_string());
                if s == "Established" { Err(s) } else { Ok(()) }
            } else {
                has_lost(m, 1, i)
            }
        });
    }
}

/// Puts VTEP 1 back and waits until its sessions are complete.
fn heal(m: &Mixed) {
    m.wan(1, true);
    m.converge();
}

/// Owner of a guest after two claims met: its place in every kernel, routes of nobody else, and nothing is said any more.
fn one_owner(m: &Mixed, g: &Guest, owner: usize, loser: usize) {
    for i in 0..3 {
        eventually(SOON, "all kernels agree", || m.sends_home(i, owner, g));
    }
    eventually(SOON, "the loser's routes are gone", || m.routes_are(2, Some(loser), g, [false, false], 0));
    let said = Mentions::open(m, 2, g.mac);
    throughout(QUIET, "it stays so", || (0..3).try_for_each(|i| m.sends_home(i, owner, g)));
    assert_eq!(said.heard(), Vec::<IpAddr>::new(), "no flapping");
}

/// Gratuitous ARP for an IP that a port was sent since the last call.
fn told(port: &Wire, g: &Guest) -> usize {
    std::iter::from_fn(|| port.poll())
        .filter(|(_, f)| {
            f.len() >= 42 && f[12..14] == [8, 6] && f[28..32] == g.ip.octets() && f[28..32] == f[38..42]
        })
        .count()
}

/// Scenario 36: FRR's host loses its power while the VM is restarted at vtepd. The new place is right at once, stays
/// right when the dead one's session times out, and each route is said once.
#[test]
fn an_frr_that_dies_without_a_word_disturbs_nobody() {
    if !met(&NEEDS) {
        return;
    }
    let mut m = Mixed::two_and_frr(impatient);
    let g = Guest::new(36);
    m.appears(&g, 1);
    let said = Mentions::open(&m, 2, g.mac);
    m.wan(1, false);
    m.kill_frr(1);
    m.guest(0).send(&g.garp());
    let right = || {
        m.sends_home(0, 0, &g).map_err(|p| format!("{p:?}"))?;
        m.sends_home(2, 0, &g).map_err(|p| format!("{p:?}"))?;
        m.answers(2, &g)?;
        m.routes_are(2, Some(0), &g, [true, true], 1)
    };
    eventually(SOON, "the new place is known", right);
    eventually(LATER, "the dead one is given up", || {
        right().expect("right all the time");
        [0, 2].into_iter().try_for_each(|i| {
            has_lost(&m, i, 1)?;
            m.routes_are(i, Some(1), &g, [false, false], 0)
        })
    });
    throughout(QUIET, "and stays right", right);
    for i in [0, 2] {
        let floods = m.vtep(i).flood_list(100);
        assert!(!floods.contains(&"10.0.0.2".into()), "no copies to the dead: {floods:?}");
    }
    // MAC and MAC+IP with the next sequence, once. Nothing was withdrawn or said again.
    assert_eq!(said.heard(), vec![m.vtep(0).address; 2]);
}

/// Scenario 36 the other way: vtepd's host loses its power, the VM is restarted at FRR. The other vtepd follows the MAC at
/// once and the address when FRR sends it; the dead one's routes are dropped with its session.
#[test]
fn a_vtepd_that_dies_without_a_word_disturbs_nobody() {
    if !met(&NEEDS) {
        return;
    }
    let mut m = Mixed::two_and_frr(|c| {
        impatient(c);
        c.neighbor_extra += "\ngraceful-restart = { mode = \"off\" }";
    });
    let g = Guest::new(37);
    m.appears(&g, 0);
    m.wan(0, false);
    m.kill_vtepd(0);
    m.guest(1).send(&g.garp());
    eventually(SOON, "FRR's sequence wins", || m.sends_home(2, 1, &g));
    m.routes_are(2, Some(1), &g, [true, false], 1).unwrap();
    eventually(LATER, "the dead one's routes are dropped", || {
        m.sends_home(2, 1, &g).expect("right all the time");
        has_lost(&m, 2, 0)?;
        m.routes_are(2, Some(0), &g, [false, false], 0)
    });
    eventually(SOON, "FRR has dropped its binding too", || m.is_silent(1, g.ip.into()));
    m.guest(1).send(&g.garp());
    eventually(SOON, "the address is at FRR", || m.answers(2, &g));
    throughout(QUIET, "and stays", || m.sends_home(2, 1, &g));
}

/// PIT-24, same MAC, vtepd everywhere: the WAN is cut, the VM restarted in the other data centre, the WAN healed while the
/// first copy is still there. The restarted one wins, because its VTEP remembered the sequence it had to beat; the old
/// site gives way in one step, and says so.
#[test]
fn a_healed_wan_finds_the_restarted_vm_as_the_owner() {
    if !met(&[Need::Root]) {
        return;
    }
    let m = three();
    let g = Guest::new(50);
    m.appears(&g, 0);
    cut(&m, false);
    m.guest(1).send(&g.garp());
    eventually(SOON, "it runs at both", || m.sends_home(1, 1, &g));
    m.routes_are(1, None, &g, [true, true], 1).expect("above what was known before the cut");
    m.sends_home(2, 0, &g).expect("the old site serves its own copy");
    let said = Mentions::open(&m, 2, g.mac);
    let ports = [m.guest(0), m.guest(2)];
    heal(&m);
    one_owner(&m, &g, 1, 0);
    for i in [0, 2] {
        m.answers(i, &g).unwrap();
    }
    m.routes_are(0, None, &g, [false, false], 0).unwrap();
    let record = m.last_move(0, &g);
    assert_eq!((&record["role"], &record["to"]["vtep"]), (&"left".into(), &"10.0.0.2".into()), "{record}");
    // The new owner's two routes, and the loser's two withdrawals.
    let heard = said.heard();
    assert!(heard.len() <= 4, "{heard:?}");
    for p in &ports {
        assert!(told(p, &g) <= 1, "hosts are told at most once");
    }
}

/// The same with FRR in the site that was cut off. FRR forgot the sequence with the session and starts at 0: a tie, which
/// the lower address wins everywhere (EVPN-MOB-08). The VM in the other site is the loser, and everybody agrees.
#[test]
fn a_healed_wan_with_an_frr_that_started_at_nothing_ends_in_a_tie_that_all_judge_alike() {
    if !met(&NEEDS) {
        return;
    }
    let m = Mixed::two_and_frr(impatient);
    let g = Guest::new(51);
    m.appears(&g, 0);
    cut(&m, true);
    eventually(LATER, "FRR's binding went with the session", || m.is_silent(1, g.ip.into()));
    m.guest(1).send(&g.rarp());
    eventually(SOON, "it runs at both", || m.sends_home(1, 1, &g));
    eventually(SOON, "FRR starts at 0", || m.frr_says(1, &g, "local", 0));
    heal(&m);
    one_owner(&m, &g, 0, 1);
    m.routes_are(0, None, &g, [true, true], 0).unwrap();
    eventually(SOON, "FRR has it as remote", || m.frr_says(1, &g, "remote", 0));
    m.answers(1, &g).unwrap();
}

/// The same with FRR in the site that keeps the first copy: vtepd in the other one remembers the sequence and wins.
#[test]
fn a_healed_wan_takes_the_vm_from_an_frr_that_kept_the_first_copy() {
    if !met(&NEEDS) {
        return;
    }
    let mut m = Mixed::new(Fabric::new(3));
    m.start_frr(0);
    for i in [1, 2] {
        let mut conf = m.fabric.conf(i);
        impatient(&mut conf);
        m.start_vtepd_with(i, &conf);
    }
    m.converge();
    let g = Guest::new(52);
    m.appears(&g, 0);
    m.wan(1, false);
    eventually(LATER, "the cut is noticed", || {
        has_lost(&m, 1, 0).and(has_lost(&m, 1, 2)).and(has_lost(&m, 2, 1))
    });
    m.guest(1).send(&g.garp());
    eventually(SOON, "it runs at both", || m.routes_are(1, None, &g, [true, true], 1));
    heal(&m);
    one_owner(&m, &g, 1, 0);
    eventually(SOON, "FRR has it as remote", || m.frr_says(0, &g, "remote", 1));
    eventually(SOON, "and the address", || m.frr_ip_is(0, &g, "remote"));
    for i in [0, 2] {
        m.answers(i, &g).unwrap();
    }
}

/// PIT-24, new MAC: the VM is rebuilt in the other data centre with the same address. Both claims of the address have
/// sequence 0: the lower VTEP address wins on every node, the loser keeps its MAC and withdraws the address.
#[test]
fn a_healed_wan_leaves_one_mac_for_an_address_that_was_given_twice() {
    if !met(&[Need::Root]) {
        return;
    }
    let m = three();
    let old = Guest::new(53);
    let new = Guest { mac: test_mac(0x153), ..old };
    m.appears(&old, 0);
    cut(&m, false);
    m.guest(1).send(&new.garp());
    eventually(SOON, "the new one is up", || m.sends_home(1, 1, &new));
    let port = m.guest(2);
    heal(&m);
    for i in [1, 2] {
        eventually(SOON, "all answer with the same MAC", || m.answers(i, &old));
        eventually(SOON, "both MACs are reachable", || {
            m.sends_home(i, 0, &old).and(m.sends_home(i, 1, &new))
        });
    }
    eventually(SOON, "the loser keeps its MAC alone", || m.routes_are(1, None, &new, [true, false], 0));
    let said = [Mentions::open(&m, 2, old.mac), Mentions::open(&m, 2, new.mac)];
    throughout(QUIET, "it stays so", || {
        m.answers(1, &old)?;
        m.answers(2, &old)?;
        m.is_silent(0, old.ip.into())
    });
    for s in said {
        assert_eq!(s.heard(), Vec::<IpAddr>::new(), "no flapping");
    }
    assert!(told(&port, &old) <= 1, "hosts are told at most once");
}

/// The same with FRR in the site that was cut off.
#[test]
fn a_healed_wan_leaves_one_mac_for_an_address_given_twice_beside_frr() {
    if !met(&NEEDS) {
        return;
    }
    let m = Mixed::two_and_frr(impatient);
    let old = Guest::new(54);
    let new = Guest { mac: test_mac(0x154), ..old };
    m.appears(&old, 0);
    cut(&m, true);
    eventually(LATER, "FRR's binding went with the session", || m.is_silent(1, old.ip.into()));
    m.guest(1).send(&new.garp());
    eventually(SOON, "the new one is up", || m.frr_ip_is(1, &new, "local"));
    heal(&m);
    for i in [1, 2] {
        eventually(SOON, "all answer with the same MAC", || m.answers(i, &old));
    }
    eventually(SOON, "FRR gives up the address alone", || m.routes_are(2, Some(1), &new, [true, false], 0));
    m.routes_are(0, None, &old, [true, true], 0).unwrap();
    let said = [Mentions::open(&m, 2, old.mac), Mentions::open(&m, 2, new.mac)];
    throughout(QUIET, "it stays so", || {
        m.answers(1, &old)?;
        m.answers(2, &old)?;
        m.is_silent(0, old.ip.into())
    });
    for s in said {
        assert_eq!(s.heard(), Vec::<IpAddr>::new(), "no flapping");
    }
}

/// A port that was down and is up again is heard: the tap's error of the time when it was down is no end.
#[test]
fn a_guest_is_heard_after_its_port_was_down() {
    if !met(&[Need::Root]) {
        return;
    }
    let m = three();
    for n in 60..63 {
        let g = Guest::new(n);
        m.shut_down(0);
        m.appears(&g, 0);
    }
}
