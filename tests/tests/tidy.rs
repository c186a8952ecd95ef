//! Checks on the tree itself.

use serde_json::Value;
use std::collections::BTreeSet;
use std::path::Path;
use vtepd_tests::tree::{Source, cargo, ids, root, sources};

/// No source file grows beyond what a person can hold.
const MAX_LINES: usize = 900;

const PREFIXES: [&str; 9] =
    ["BFD-", "BGP-", "EVPN-", "HOST-", "INTEROP-", "MIG-", "PROXY-", "VXLAN-", "PIT-"];

fn rust() -> Vec<Source> {
    sources().into_iter().filter(Source::is_rust).collect()
}

/// Fails with every finding, one a line.
fn none_of(what: &str, findings: &[String]) {
    assert!(findings.is_empty(), "{what}:\n  {}", findings.join("\n  "));
}

/// Lines of Rust files below `dir` that contain one of `words`, except in this file.
fn lines_with(dir: &str, words: &[&str]) -> Vec<String> {
    let me = Path::new(file!()).file_name().expect("this file has a name");
    let mut out = Vec::new();
    for s in rust().iter().filter(|s| s.path.starts_with(dir) && s.path.file_name() != Some(me)) {
        for (n, l) in s.lines() {
            if let Some(w) = words.iter().find(|w| l.contains(**w)) {
                out.push(format!("{}:{n}: {w}", s.path.display()));
            }
        }
    }
    out
}

#[test]
fn no_source_file_is_longer_than_900_lines() {
    let long: Vec<_> = rust()
        .iter()
        .filter(|s| s.text.lines().count() > MAX_LINES)
        .map(|s| format!("{}: {} lines", s.path.display(), s.text.lines().count()))
        .collect();
    none_of("split these files by meaning", &long);
}

#[test]
fn the_pure_crate_touches_no_clock_no_socket_and_no_task() {
    let words = [
        "Instant::now",
        "SystemTime",
        "std::time",
        "tokio",
        "std::net::Tcp",
        "std::net::Udp",
        "net::{Tcp",
        "net::{Udp",
        "TcpStream",
        "UdpSocket",
        "thread::sleep",
        "std::thread",
        "std::fs",
        "std::env",
        "HashMap",
        "HashSet",
    ];
    let hits: Vec<_> = lines_with("evpn/src", &words)
        .into_iter()
        // The crate's own page says what it does not do.
        .filter(|h| !h.starts_with("evpn/src/lib.rs:"))
        .collect();
    none_of("evpn decides from its inputs alone", &hits);
}

#[test]
fn the_pure_crate_depends_on_exactly_these_crates() {
    let manifest = std::fs::read_to_string(root().join("evpn/Cargo.toml")).expect("evpn/Cargo.toml");
    let section = manifest.split("[dependencies]").nth(1).and_then(|s| s.split("\n[").next());
    let got: Vec<_> = section
        .expect("a [dependencies] section")
        .lines()
        .filter_map(|l| l.split_once('=').map(|(n, _)| n.trim()))
        .filter(|n| !n.starts_with('#'))
        .collect();
    assert_eq!(
        got,
        ["bytes", "nom", "serde", "thiserror"],
        "a new dependency of evpn needs a reason and a line here"
    );
}

#[test]
fn the_pure_crate_builds_without_tokio() {
    let tree =
        cargo(&["tree", "--locked", "-p", "evpn", "-e", "normal", "--prefix", "none", "--format", "{p}"]);
    let bad: Vec<_> = tree
        .lines()
        .filter(|l| ["tokio", "mio", "socket2", "libc", "rustix", "netlink"].iter().any(|b| l.starts_with(b)))
        .map(str::to_owned)
        .collect();
    none_of("evpn must not reach these, even through others", &bad);
}

#[test]
fn xtask_has_at_most_five_dependencies() {
    let manifest = std::fs::read_to_string(root().join("xtask/Cargo.toml")).expect("xtask/Cargo.toml");
    let section = manifest.split("[dependencies]").nth(1).and_then(|s| s.split("\n[").next());
    let n = section.expect("a [dependencies] section").lines().filter(|l| l.contains('=')).count();
    assert!(n <= 5, "{n} dependencies: what a newcomer builds first stays small");
}

#[test]
fn no_test_is_switched_off_and_nothing_is_left_for_later() {
    let words = ["#[ignore", "todo!(", "unimplemented!(", "FIXME", "XXX:", "HACK:", "// TODO"];
    none_of("finish these or take them out", &lines_with("", &words));
}

#[test]
fn no_file_names_a_place_on_somebodys_machine() {
    let places = ["/home/", "/Users/", concat!("/wo", "rk/"), concat!("/ro", "ot/")];
    let mut hits = Vec::new();
    for s in sources() {
        for (n, l) in s.lines() {
            if let Some(p) = places.iter().find(|p| l.contains(**p)) {
                hits.push(format!("{}:{n}: {p}", s.path.display()));
            }
        }
    }
    hits.retain(|h| !h.starts_with("tests/tests/tidy.rs"));
    none_of("paths of one machine mean nothing on another", &hits);
}

#[test]
fn every_cited_requirement_is_listed() {
    let mut listed = BTreeSet::new();
    for doc in ["docs/requirements.md", "docs/pitfalls.md"] {
        let text = std::fs::read_to_string(root().join(doc)).expect("the list is committed");
        for l in text.lines().filter_map(|l| l.strip_prefix("- **")) {
            listed.extend(ids(l.split("**").next().unwrap_or(""), &PREFIXES).into_iter().map(str::to_owned));
        }
    }
    assert!(listed.len() > 300, "read only {} ids", listed.len());
    let mut unknown = Vec::new();
    for s in rust() {
        for (n, l) in s.lines() {
            for id in ids(l, &PREFIXES).into_iter().filter(|id| !listed.contains(*id)) {
                unknown.push(format!("{}:{n}: {id}", s.path.display()));
            }
        }
    }
    // Names of golden vectors look the same; they live in the vectors' own files.
    unknown.retain(|u| !u.starts_with("evpn/tests/"));
    none_of("these ids are in neither docs/requirements.md nor docs/pitfalls.md", &unknown);
}

#[test]
fn the_readme_names_the_two_commands() {
    let readme = std::fs::read_to_string(root().join("README.md")).expect("README.md");
    for command in ["cargo xtask demo", "cargo xtask test"] {
        assert!(readme.contains(command), "README.md does not say `{command}`");
    }
}

#[test]
fn every_link_between_the_documents_leads_somewhere() {
    let mut dead = Vec::new();
    for s in sources().iter().filter(|s| s.path.extension().is_some_and(|e| e == "md")) {
        let dir = root().join(&s.path).parent().expect("a file has a directory").to_owned();
        for (n, l) in s.lines() {
            for target in l.split("](").skip(1).filter_map(|t| t.split(')').next()) {
                let file = target.split('#').next().unwrap_or("");
                let outside = ["http:", "https:", "mailto:"].iter().any(|p| target.starts_with(p));
                if !outside && !file.is_empty() && !dir.join(file).exists() {
                    dead.push(format!("{}:{n}: {target}", s.path.display()));
                }
            }
        }
    }
    none_of("dead links", &dead);
}

#[test]
fn every_published_topology_has_a_test() {
    let tests: String = rust()
        .iter()
        .filter(|s| s.path.components().any(|c| c.as_os_str() == "tests"))
        .map(|s| s.text.as_str())
        .collect();
    let untested: Vec<_> = std::fs::read_dir(root().join("containerlab"))
        .expect("containerlab/")
        .flatten()
        .filter_map(|f| f.file_name().into_string().ok())
        // One test walks the directory; without it each file has to be named somewhere.
        .filter(|f| f.ends_with(".clab.yml") && !tests.contains("fn every_published_topology_comes_up"))
        .collect();
    none_of("topologies that no test brings up", &untested);
}

#[test]
fn every_dependency_comes_from_crates_io_under_a_free_licence() {
    let allowed = [
        "MIT",
        "Apache-2.0",
        "Apache-2.0 WITH LLVM-exception",
        "BSD-2-Clause",
        "BSD-3-Clause",
        "ISC",
        "Unicode-3.0",
        "Zlib",
    ];
    let meta: Value = serde_json::from_str(&cargo(&["metadata", "--locked", "--format-version", "1"]))
        .expect("cargo's JSON");
    let mut bad = Vec::new();
    for p in meta["packages"].as_array().expect("packages") {
        let (name, licence) = (p["name"].as_str().unwrap_or("?"), p["license"].as_str().unwrap_or(""));
        match p["source"].as_str() {
            None | Some("registry+https://github.com/rust-lang/crates.io-index") => {}
            Some(other) => bad.push(format!("{name}: comes from {other}")),
        }
        // `A OR B` needs one of them, `(A OR B) AND C` one of the group and C.
        let fits = licence.replace('/', " OR ").split(" AND ").all(|all| {
            let all = all.trim().trim_start_matches('(').trim_end_matches(')');
            all.split(" OR ").any(|one| allowed.contains(&one.trim()))
        });
        if !fits {
            bad.push(format!("{name}: licence {licence:?}"));
        }
    }
    none_of("deny.toml would refuse these", &bad);
}
