//! The fuzz targets over their committed corpora, on a stable compiler.

#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "../fuzz/src/lib.rs"]
#[allow(unreachable_pub, clippy::collapsible_if, reason = "shared with a crate of its own")]
mod targets;

use std::path::Path;

fn replay(name: &str, target: fn(&[u8])) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
    let mut n = 0;
    for entry in std::fs::read_dir(&dir).unwrap() {
        let path = entry.unwrap().path();
        let data = std::fs::read(&path).unwrap();
        // Names the file that a panic comes from.
        println!("{}", path.display());
        target(&data);
        n += 1;
    }
    assert!(n > 10, "{n} files in {}", dir.display());
}

#[test]
fn message_corpus_replays() {
    replay("message", targets::message);
}

#[test]
fn update_corpus_replays() {
    replay("update", targets::update);
}

#[test]
fn frame_corpus_replays() {
    replay("frame", targets::frame);
}

#[test]
fn session_corpus_replays() {
    replay("session", targets::session);
}

#[test]
fn bfd_corpus_replays() {
    replay("bfd", targets::bfd);
}
