//! `cargo xtask soak` in small: some moves of every kind, and after each everything is compared with everything.

use vtepd_tests::need::{Need, met};
use vtepd_tests::soak::{Plan, run};

/// Three vtepd. Whether memory is flat, so few moves do not tell.
#[test]
fn some_moves_of_every_kind_end_without_a_difference() {
    if !met(&[Need::Root, Need::Tool("ip")]) {
        return;
    }
    let report = run(&Plan { moves: 8, vms: 3, seed: 1, frr: false, record: None }).json();
    assert_eq!(
        (&report["moves"], report["differences"].as_array().map(Vec::len)),
        (&8.into(), Some(0)),
        "{report:#}"
    );
    assert!(report["comparisons"].as_u64() > Some(8), "{report:#}");
}
