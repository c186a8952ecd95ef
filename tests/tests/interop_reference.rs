//! Two FRRs with each other: the facts that the interop tests build on, measured by the same harness. When one of
//! these fails, the harness or FRR is to blame, not vtepd.

use std::time::Duration;
use vtepd_tests::fabric::{Fabric, Guest, Place};
use vtepd_tests::need::{Need, met};
use vtepd_tests::poll::{LATER, SOON, eventually, same};
use vtepd_tests::speaker::{Attributes, Speaker, imet, mac_ip};

const NEEDS: [Need; 2] = [Need::Root, Need::Frr];

#[test]
fn frr_and_frr_agree_on_sessions_flooding_and_hosts() {
    if !met(&NEEDS) {
        return;
    }
    let f = Fabric::new(2);
    let [a, b] = [&f.vteps[0], &f.vteps[1]];
    let frr = [f.start_frr(0), f.start_frr(1)];
    eventually(LATER, "the session is up", || same(frr[0].neighbor_state("10.0.0.2"), "Established".into()));
    eventually(LATER, "both flood to each other", || {
        same((a.flood_list(100), b.flood_list(100)), (vec!["10.0.0.2".into()], vec!["10.0.0.1".into()]))
    });
    assert_eq!(frr[0].flood_mode(100, "10.0.0.2").as_deref(), Some("HER"));

    let g = Guest::new(5);
    let wire = f.guest_port(0, "p1");
    wire.send(&g.garp());
    eventually(SOON, "the MAC is local at its VTEP", || a.sends_to(100, g.mac, &Place::port("p1")));
    eventually(SOON, "and remote at the other", || b.sends_to(100, g.mac, &Place::vtep(a)));
    let row = frr[1].mac(100, &g.mac.to_string());
    assert_eq!((&row["type"], &row["remoteVtep"]), (&"remote".into(), &"10.0.0.1".into()), "{row}");
    // FRR learns IPs from the kernel's neighbour table only, which ignores a gratuitous ARP of a stranger.
    assert!(b.neigh_row(100, g.ip.into()).is_null());

    // The hot move, as slow as FRR is: two work queues of 50 ms.
    let moved = f.guest_port(1, "p1").send(&g.rarp());
    eventually(SOON, "the MAC moved", || a.sends_to(100, g.mac, &Place::vtep(b)));
    let took = Duration::from_nanos(vtepd_tests::packet::now() - moved);
    println!("FRR to FRR: {took:?}");
    let row = frr[0].mac(100, &g.mac.to_string());
    assert_eq!((&row["localSequence"], &row["remoteSequence"]), (&0.into(), &1.into()), "{row}");
}

#[test]
fn frr_takes_what_the_scripted_speaker_says() {
    if !met(&NEEDS) {
        return;
    }
    let f = Fabric::new(2);
    let [a, b] = [&f.vteps[0], &f.vteps[1]];
    let frr = f.start_frr(0);
    let s = Speaker::accept(&b.ns, b.address, 65000);
    s.end_of_rib();
    let g = Guest::new(7);
    s.announce(&Attributes::new(b.address, 100).ingress_replication(100, b.address), &[imet(b.address)]);
    s.announce(
        &Attributes::new(b.address, 100).seq(3),
        &[mac_ip(100, g.mac, None), mac_ip(100, g.mac, Some(g.ip.into()))],
    );
    eventually(SOON, "the MAC is remote", || a.sends_to(100, g.mac, &Place::vtep(b)));
    eventually(SOON, "the IP is answered", || {
        same(a.neigh_row(100, g.ip.into())["lladdr"].clone(), g.mac.to_string().into())
    });
    assert_eq!(frr.mac(100, &g.mac.to_string())["remoteSequence"], 3);
    s.withdraw(&[mac_ip(100, g.mac, None), mac_ip(100, g.mac, Some(g.ip.into()))]);
    eventually(SOON, "the MAC is gone", || a.sends_to(100, g.mac, &Place::Nowhere));
    assert!(s.is_up(), "FRR said {:?}", s.notified());
    // Its own IMET arrives once the first-UPDATE delay is over.
    eventually(LATER, "FRR's End-of-RIB", || if s.heard_end_of_rib() { Ok(()) } else { Err(s.heard()) });
}
