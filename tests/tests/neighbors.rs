//! What an operator wants of a neighbour: that a deaf one is dropped, and others are not harmed.

use std::io::Write as _;
use std::net::TcpStream;
use std::time::{Duration, Instant};
use vtepd_tests::fabric::{Fabric, Guest};
use vtepd_tests::mixed::Mixed;
use vtepd_tests::need::{Need, met};
use vtepd_tests::poll::{LATER, SOON, eventually, same};
use vtepd_tests::speaker::{Door, Speaker, message};

/// BGP-SHT-03: a peer that sends and never reads is given up when the send hold time is over, however lively it is;
/// the session with another peer goes on, and moves are told there at once.
#[test]
fn a_peer_that_never_reads_is_dropped_and_others_are_not_harmed() {
    if !met(&[Need::Root]) {
        return;
    }
    let mut m = Mixed::new(Fabric::new(3));
    let [deaf_at, lively_at] = [m.vtep(1).address, m.vtep(2).address];
    let mut conf = m.fabric.conf(0);
    conf.neighbor_extra = "hold-time = 30\nsend-hold-time = 31\n".into();
    m.start_vtepd_with(0, &conf);
    let lively = Speaker::accept(&m.vtep(2).ns, lively_at, 65000);
    lively.end_of_rib();
    let door = Door::open(&m.vtep(1).ns, deaf_at, 65000);
    let deaf = door.accept_deaf(Duration::from_secs(60)).expect("vtepd connects");
    let guests: Vec<Guest> = (1..=200).map(Guest::new).collect();
    for g in &guests {
        m.guest(0).send(&g.garp());
    }
    // A speaker answers KEEPALIVEs, which do not come while UPDATEs do.
    let both_alive = || say(&deaf, &message(4, &[])) && lively.try_send(&message(4, &[]));
    eventually(LATER, "the lively one has them all", || {
        assert!(both_alive(), "one is gone");
        same(guests.iter().filter(|g| lively.heard_octets(&g.mac.0)).count(), guests.len())
    });
    // It asks for everything again and again, so that there is much that it does not read.
    let begun = Instant::now();
    let ended = eventually(2 * LATER, "the deaf one is given up", || {
        let up = say(&deaf, &message(5, &[0, 25, 0, 70])) && both_alive();
        let n = m.vtepd(0).show("neighbors", &[]);
        let down =
            n.iter().find(|r| r["address"] == deaf_at.to_string().as_str()).cloned().unwrap_or_default();
        let told = down["last_error"].as_str().is_some_and(|e| e.contains("send hold time"));
        if told { Ok(begun.elapsed()) } else { Err((up, down)) }
    });
    assert!(ended >= Duration::from_secs(20), "given up after {ended:?}");
    assert!(lively.is_up(), "vtepd told the lively one {:?}", lively.notified());
    let late = Guest::new(201);
    m.guest(0).send(&late.garp());
    eventually(SOON, "moves are told", || same(lively.heard_octets(&late.mac.0), true));
    let n = m.vtepd(0).show("neighbors", &[]);
    let of = |a: std::net::IpAddr| {
        n.iter().find(|r| r["address"] == a.to_string().as_str()).cloned().unwrap_or_default()
    };
    assert_eq!(of(lively_at)["established_count"], 1, "{n:?}");
    eventually(LATER, "the deaf one may try again", || match door.accept_deaf(Duration::from_millis(100)) {
        Some(_) => Ok(()),
        None => Err(m.vtepd(0).show_text("neighbors")),
    });
}

fn say(mut to: &TcpStream, octets: &[u8]) -> bool {
    to.write_all(octets).is_ok()
}

const FRR: [Need; 2] = [Need::Root, Need::Frr];

/// BGP-SHUT-01: our text is shown by FRR, FRR is not let in meanwhile, and after the start all is as before.
#[test]
fn frr_shows_why_it_was_shut_out_and_comes_back() {
    if !met(&FRR) {
        return;
    }
    let m = Mixed::converged_pair();
    let (v, f) = (m.vtepd(0), m.frr(1));
    let did = v.neighbor("10.0.0.2", &["shutdown", "--message", "new line card"]).expect("possible");
    assert!(did.contains("10.0.0.2: shut down; the neighbour was told (Idle)"), "{did}");
    eventually(SOON, "FRR shows the text", || {
        let n = f.json("show bgp neighbors 10.0.0.1 json");
        if n.to_string().contains("new line card") { Ok(()) } else { Err(n) }
    });
    assert_eq!(m.vtep(0).flood_list(100), [""; 0], "its routes are gone");
    let again = v.neighbor("10.0.0.2", &["shutdown", "--message", "new line card"]).expect("possible");
    assert!(again.contains("was shut down already"), "{again}");
    let refused = v.neighbor("10.0.0.2", &["refresh"]).expect_err("there is no session");
    assert!(refused.contains("not established"), "{refused}");
    assert_eq!(v.neighbor_detail("10.0.0.2")["held_down"], "shut down by an operator: \"new line card\"");
    v.neighbor("10.0.0.2", &["start"]).expect("possible");
    m.converge();
    assert_eq!(v.neighbor_detail("10.0.0.2")["established_count"], 2);
}

/// BGP-SHUT-01: FRR's text is shown here, with its state and its capabilities.
#[test]
fn the_text_of_frr_is_shown_here() {
    if !met(&FRR) {
        return;
    }
    let m = Mixed::converged_pair();
    let (v, f) = (m.vtepd(0), m.frr(1));
    let d = v.neighbor_detail("10.0.0.2");
    let offers = d["remote"]["capabilities"].as_array().expect("a list").clone();
    assert!(
        offers.contains(&"L2VPN EVPN".into()) && offers.contains(&"enhanced route refresh".into()),
        "{d}"
    );
    f.configure(65000, &["neighbor 10.0.0.1 shutdown message off for the night"]);
    eventually(SOON, "the text is here", || {
        let d = v.neighbor_detail("10.0.0.2");
        let told = d["notification_received"]["text"].as_str().unwrap_or_default().to_owned();
        // Within a hard reset, because both sides know those (BGP-GR-16).
        let want = "cease/hard reset (6/9): cease/administrative shutdown (6/2): \"off for the night\"";
        same(told, want.to_owned()).map_err(|_| d)
    });
    let text = v.show_text("neighbors");
    assert!(text.contains("off for the night"), "{text}");
    f.configure(65000, &["no neighbor 10.0.0.1 shutdown"]);
    m.converge();
}

/// BGP-REFR-01: a refresh both ways and a reset; nothing is lost.
#[test]
fn frr_is_refreshed_and_reset() {
    if !met(&FRR) {
        return;
    }
    let m = Mixed::converged_pair();
    let (v, f) = (m.vtepd(0), m.frr(1));
    let g = Guest::new(5);
    m.guest(1).send(&g.garp());
    eventually(SOON, "the MAC is here", || {
        m.vtep(0).sends_to(100, g.mac, &vtepd_tests::fabric::Place::vtep(m.vtep(1)))
    });
    let updates = || v.neighbor_detail("10.0.0.2")["received"]["update"].as_u64().unwrap_or(0);
    let before = updates();
    v.neighbor("10.0.0.2", &["refresh", "--in"]).expect("possible");
    eventually(SOON, "FRR sends everything again", || if updates() > before { Ok(()) } else { Err(before) });
    v.neighbor("10.0.0.2", &["refresh", "--out"]).expect("possible");
    let d = v.neighbor_detail("10.0.0.2");
    assert_eq!((&d["established_count"], &d["sent"]["refresh"]), (&1.into(), &1.into()), "{d}");
    v.neighbor("10.0.0.2", &["reset", "--message", "again"]).expect("possible");
    eventually(SOON, "FRR shows the text", || {
        let n = f.json("show bgp neighbors 10.0.0.1 json");
        if n.to_string().contains("again") { Ok(()) } else { Err(n) }
    });
    m.converge();
    eventually(LATER, "the MAC is here again", || {
        m.vtep(0).sends_to(100, g.mac, &vtepd_tests::fabric::Place::vtep(m.vtep(1)))
    });
}
