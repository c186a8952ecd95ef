//! The mark of a guest that has stopped (PIT-26) crosses an FRR reflector that is a VTEP itself: FRR passes it on and makes
//! nothing of it.

use vtepd_tests::fabric::{Guest, Place};
use vtepd_tests::mixed::Mixed;
use vtepd_tests::need::{Need, met};
use vtepd_tests::poll::{LATER, SOON, eventually, same};

#[test]
fn frr_passes_the_mark_of_a_stopped_guest_on_and_makes_nothing_of_it() {
    if !met(&[Need::Root, Need::Frr]) {
        return;
    }
    let m = Mixed::around_reflector(|_| ());
    let g = Guest::new(75);
    let mac = g.mac.to_string();
    m.guest(0).send(&g.garp());
    for i in [1, 2] {
        eventually(LATER, "the MAC is where it is", || {
            m.vtep(i).sends_to(100, g.mac, &Place::vtep(m.vtep(0)))
        });
    }
    let marks = |i: usize| {
        let rows = m.routes(i, 2, Some(2));
        let marked = |r: &&serde_json::Value| {
            r["communities"].as_array().is_some_and(|c| c.iter().any(|c| c == "vtepd:going"))
        };
        rows.iter().filter(marked).count()
    };
    // Nobody waits for it: it arrives, and everything stays as it is; at FRR, too.
    m.vtepd(0).step("release", &["--mac", &mac, "--at-stop"]).expect("released");
    eventually(SOON, "the mark has come through FRR", || same(marks(1), 1));
    for i in [1, 2] {
        assert_eq!(m.vtep(i).place(100, g.mac), Place::vtep(m.vtep(0)));
    }
    m.frr_says(2, &g, "remote", 0).expect("FRR has the sequence that it had");
    // The guest goes on: two higher, without the mark.
    m.vtepd(0).step("abort", &["--mac", &mac]).expect("aborted");
    eventually(SOON, "FRR has the new sequence", || m.frr_says(2, &g, "remote", 2));
    eventually(SOON, "the mark is gone", || same(marks(1), 0));
    // A target waits for it.
    m.vtepd(1).step("prepare", &["--mac", &mac, "--port", "p1", "--at-stop"]).expect("prepared");
    m.vtepd(0).step("release", &["--mac", &mac, "--at-stop"]).expect("released");
    for i in [0, 2] {
        eventually(SOON, "the guest is at the target", || {
            m.vtep(i).sends_to(100, g.mac, &Place::vtep(m.vtep(1)))
        });
    }
    assert_eq!(m.vtep(1).place(100, g.mac), Place::port("p1"));
    eventually(SOON, "FRR has its sequence", || m.frr_says(2, &g, "remote", 3));
    for i in [0, 1] {
        assert_eq!(m.vtepd(i).neighbor_state(m.vtep(2).address), "Established");
        assert_eq!(m.vtepd(i).show("neighbors", &[])[0]["faults"], 0);
    }
}
