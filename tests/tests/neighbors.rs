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
    conf.neighbor_extra = "hold-time = 9\nsend-hold-time = 10\n".into();
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
    let ended = eventually(LATER, "the deaf one is given up", || {
        let up = say(&deaf, &message(5, &[0, 25, 0, 70])) && both_alive();
        let n = m.vtepd(0).show("neighbors", &[]);
        let down =
            n.iter().find(|r| r["address"] == deaf_at.to_string().as_str()).cloned().unwrap_or_default();
        let told = down["last_error"].as_str().is_some_and(|e| e.contains("send hold time"));
        if told { Ok(begun.elapsed()) } else { Err((up, down)) }
    });
    assert!(ended >= Duration::from_secs(8), "given up after {ended:?}");
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
