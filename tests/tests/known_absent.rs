//! `tests/known-absent.toml` is true of the CI machine.

use vtepd_tests::kernel::{FEATURES, has, known_absent};
use vtepd_tests::need::{Need, met};

#[test]
fn every_feature_listed_as_absent_is_absent() {
    if !met(&[Need::Root]) {
        return;
    }
    let listed = known_absent();
    let unknown: Vec<_> = listed.iter().filter(|l| FEATURES.iter().all(|(f, _)| f != l)).collect();
    assert!(unknown.is_empty(), "no probe for {unknown:?} in tests/src/kernel.rs");
    // The list speaks of the CI machine; a developer's kernel may well have more.
    if std::env::var_os("CI").is_some_and(|v| v == "true") {
        let there: Vec<_> = listed.iter().filter(|l| has(l)).collect();
        assert!(there.is_empty(), "the kernel has {there:?} now: take them off tests/known-absent.toml");
    }
}
