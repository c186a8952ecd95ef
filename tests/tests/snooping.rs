//! A bridge that snoops MLD, with a querier about, still brings questions to a silent guest that has just arrived (PIT-08).

use evpn::types::Mac;
use evpn::wire::frame::mld_query;
use std::net::Ipv6Addr;
use std::time::{Duration, Instant};
use vtepd_tests::fabric::{Fabric, Place, test_mac};
use vtepd_tests::frame;
use vtepd_tests::mixed::Mixed;
use vtepd_tests::need::{Need, met};
use vtepd_tests::packet::Wire;
use vtepd_tests::poll::{SOON, eventually};

#[test]
fn a_guest_that_arrives_by_rarp_alone_is_found_by_a_fresh_question_from_afar() {
    if !met(&[Need::Root]) {
        return;
    }
    let mut m = Mixed::new(Fabric::new(2));
    for i in [0, 1] {
        m.vtep(i).make_devices(100, &["p1"]);
        m.vtep(i).ns.sh("ip link set br100 type bridge mcast_snooping 1");
        m.start_vtepd(i);
    }
    m.converge();
    eventually(SOON, "the VXLAN device takes all multicast", || {
        let port = m.vtep(1).ns.sh("ip -d link show dev vx100");
        if port.contains("mcast_router 2") { Ok(()) } else { Err(port) }
    });
    // A guest that has told its groups long ago, and elsewhere; it speaks no more.
    let at: Ipv6Addr = "2001:db8:100::64".parse().expect("an address");
    let guest = m.fabric.host(1, "h1", test_mac(0x64), &["2001:db8:100::64/64"]);
    let querier = test_mac(0x70);
    let query = mld_query(querier, "fe80::70".parse().expect("an address"));
    let (near, beside) = (m.guest(0), m.guest(1));
    // The bridge knows the querier, and gives groups to those alone who have asked for them.
    eventually(SOON, "the querier is there", || {
        beside.send(&query);
        m.vtep(0).sends_to(100, querier, &Place::vtep(m.vtep(1)))
    });
    m.vtep(1).ns.sh("ip link set h1 master br100");
    let mouth = Wire::deaf(&guest.ns, "eth0");
    eventually(SOON, "the port forwards, and the guest is known", || {
        mouth.send(&frame::rarp(guest.mac));
        m.vtep(0).sends_to(100, guest.mac, &Place::vtep(m.vtep(1)))
    });
    let asker: (Mac, Ipv6Addr) = (test_mac(0x71), "2001:db8:100::71".parse().expect("an address"));
    near.drain();
    let answer =
        |f: &[u8]| frame::as_neighbor_advertisement(f).filter(|(mac, ip)| (*mac, *ip) == (guest.mac, at));
    // The guest takes some milliseconds to tell its groups; whoever asks in between is not heard, and asks again.
    let begun = Instant::now();
    let answered = (0..50).any(|_| {
        near.send(&frame::neighbor_solicitation(asker.0, asker.1, at));
        near.find(Duration::from_millis(20), answer).is_some()
    });
    println!("answered {answered}, {:?} after the first question", begun.elapsed());
    let sent = m.vtepd(1).status()["counters"]["group_queries_sent"].as_u64();
    assert!(sent >= Some(1), "{sent:?}");
    assert!(answered, "a fresh question is answered");
}
