//! `docs/rfc-compliance.md` against the requirements, the code and the tests.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::read_to_string;
use vtepd_tests::tree::root;

/// Sections of `docs/requirements.md` that the table covers.
const SECTIONS: &[&str] = &[
    "BGP-GR-",
    "BGP-LLGR-",
    "BGP-COLL-03",
    "BGP-NOTIF-",
    "BGP-REFR-",
    "BGP-UPD-",
    "BGP-DEC-",
    "BGP-ERR-",
    "BGP-EXTM-",
    "BGP-EXTC-",
    "BGP-COMM-",
    "BGP-LCOMM-",
    "BGP-ENH-",
    "BGP-ADDP-",
    "EVPN-NLRI-",
    "EVPN-ES-",
    "EVPN-VXLAN-",
    "EVPN-ERR-",
    "EVPN-BEST-",
    "EVPN-IMET-",
    "BFD-",
    "BGP-SHUT-",
    "BGP-MSG-",
    "BGP-HDR-",
    "BGP-OPEN-",
    "BGP-FSM-",
    "BGP-FSME-",
    "BGP-COLL-",
    "BGP-CAP-",
    "BGP-MP-",
    "BGP-AS4-",
    "BGP-SEC-",
    "BGP-UNN-",
    "BGP-SHT-",
    "EVPN-MOB-",
    "EVPN-XMOB-",
    "MIG-",
    "PROXY-",
    "HOST-",
    "VXLAN-03",
    "VXLAN-05",
    "EVPN-IRB-07",
    "EVPN-IRB-08",
    "EVPN-IRB-09",
    "EVPN-IRB-10",
    "BGP-RR-",
    "BGP-RTC-",
];

/// A row of the table.
#[derive(Debug)]
struct Row {
    id: String,
    code: Vec<String>,
    tests: Vec<String>,
    remark: String,
}

fn document(name: &str) -> String {
    read_to_string(root().join("docs").join(name)).unwrap_or_else(|e| panic!("docs/{name}: {e}"))
}

fn backticked(cell: &str) -> Vec<String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

fn table(text: &str) -> Vec<Row> {
    let cells = text.lines().map(|l| l.split('|').map(str::trim).collect::<Vec<_>>());
    cells
        .filter_map(|c| match c[..] {
            ["", id, code, tests, remark, ""] if SECTIONS.iter().any(|s| id.starts_with(s)) => Some(Row {
                id: id.into(),
                code: backticked(code),
                tests: backticked(tests),
                remark: remark.into(),
            }),
            _ => None,
        })
        .collect()
}

/// Ids of the sections with what they ask for: `[M]`, `[P]`, …
fn required(text: &str) -> BTreeMap<String, String> {
    let lines = text.lines().filter_map(|l| l.strip_prefix("- **")?.split_once("** "));
    lines
        .filter(|(id, _)| SECTIONS.iter().any(|s| id.starts_with(s)))
        .map(|(id, rest)| (id.to_owned(), rest.chars().take(3).collect()))
        .collect()
}

/// Whether a text cites an id, in full or as `-03` behind another one of its section.
fn cites(text: &str, id: &str) -> bool {
    let Some((section, number)) = id.rsplit_once('-') else { return false };
    let words = |l: &'_ str| -> Vec<String> {
        l.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-')).map(str::to_owned).collect()
    };
    text.lines().any(|l| {
        let words = words(l);
        let short = format!("-{number}");
        let full = words.iter().position(|w| w == id);
        let first = words.iter().position(|w| w.strip_prefix(section).is_some_and(|r| r.starts_with('-')));
        full.is_some() || first.is_some_and(|i| words[i + 1..].contains(&short))
    })
}

/// What is wrong with a row; `read` gives the text of a file.
fn faults(row: &Row, read: &dyn Fn(&str) -> Option<String>) -> Vec<String> {
    let mut out = Vec::new();
    let open = row.remark.strip_prefix("open: ").is_some_and(|reason| !reason.is_empty());
    if open != (row.code.is_empty() && row.tests.is_empty()) || row.code.is_empty() != row.tests.is_empty() {
        out.push("names code and test, or says `open: ` and why".into());
    }
    for (place, is_test) in row.code.iter().map(|c| (c, false)).chain(row.tests.iter().map(|t| (t, true))) {
        let (file, name) = place.split_once("::").map_or((place.as_str(), None), |(f, n)| (f, Some(n)));
        let tested = file.contains("/tests/") || file.starts_with("tests/") || name.is_some();
        if is_test != tested {
            out.push(format!("{place} is in the wrong column"));
        }
        let Some(text) = read(file) else {
            out.push(format!("{file} is not there"));
            continue;
        };
        if !cites(&text, &row.id) {
            out.push(format!("{file} does not cite it"));
        }
        if let Some(name) = name
            && !text.contains(&format!("fn {name}("))
        {
            out.push(format!("{file} has no test {name}"));
        }
    }
    out.into_iter().map(|f: String| format!("{}: {f}", row.id)).collect()
}

#[test]
fn every_requirement_on_mobility_and_hosts_is_met_and_proven_or_open_with_a_reason() {
    let rows = table(&document("rfc-compliance.md"));
    let required = required(&document("requirements.md"));
    assert!(required.len() >= 75, "read only {} requirements", required.len());
    let mut found: Vec<String> =
        rows.iter().flat_map(|r| faults(r, &|f| read_to_string(root().join(f)).ok())).collect();
    let listed: BTreeSet<&String> = rows.iter().map(|r| &r.id).collect();
    if listed.len() != rows.len() {
        found.push("an id has two rows".into());
    }
    let must = required.iter().filter(|(_, kind)| ["[M]", "[P]"].contains(&kind.as_str()));
    found.extend(
        must.filter(|(id, _)| !listed.contains(id)).map(|(id, kind)| format!("{id} {kind} has no row")),
    );
    found.extend(
        listed.iter().filter(|id| !required.contains_key(**id)).map(|id| format!("{id} is required nowhere")),
    );
    assert!(found.is_empty(), "docs/rfc-compliance.md:\n  {}", found.join("\n  "));
}

#[test]
fn a_row_that_promises_too_much_is_found() {
    let read = |f: &str| match f {
        "a/src/x.rs" => Some("/// Wins (EVPN-MOB-02, -03).".to_owned()),
        "a/tests/y.rs" => Some("/// EVPN-MOB-03\nfn it_wins() {}".to_owned()),
        _ => None,
    };
    let faults = |line: &str| {
        let rows = table(line);
        assert_eq!(rows.len(), 1, "{line}");
        faults(&rows[0], &read)
    };
    assert_eq!(faults("| EVPN-MOB-03 | `a/src/x.rs` | `a/tests/y.rs::it_wins` |  |"), [""; 0]);
    assert_eq!(faults("| EVPN-MOB-04 | – | – | open: no segments |"), [""; 0]);
    for (line, fault) in [
        ("| EVPN-MOB-03 | `a/src/z.rs` | `a/tests/y.rs` | |", "a/src/z.rs is not there"),
        ("| EVPN-MOB-03 | `a/src/x.rs` | `a/tests/y.rs::it_loses` | |", "has no test it_loses"),
        ("| EVPN-MOB-02 | `a/src/x.rs` | `a/tests/y.rs` | |", "a/tests/y.rs does not cite it"),
        ("| EVPN-MOB-03 | `a/src/x.rs` | `a/src/x.rs` | |", "a/src/x.rs is in the wrong column"),
        ("| EVPN-MOB-03 | `a/src/x.rs` | – | |", "names code and test"),
        ("| EVPN-MOB-03 | – | – | open: |", "names code and test"),
        ("| EVPN-MOB-03 | – | – | later |", "names code and test"),
        ("| EVPN-MOB-03 | `a/src/x.rs` | `a/tests/y.rs` | open: nearly |", "names code and test"),
    ] {
        let got = faults(line);
        assert!(got.iter().any(|f| f.contains(fault)), "{line}: {got:?}");
    }
}

#[test]
fn ids_are_cited_in_full_or_behind_another_of_their_section() {
    for (text, id, is) in [
        ("(EVPN-MOB-02, -03)", "EVPN-MOB-03", true),
        ("(EVPN-XMOB-02, -03)", "EVPN-MOB-03", false),
        ("(EVPN-MOB-02) and -3", "EVPN-MOB-03", false),
        ("-03 of (EVPN-MOB-02)", "EVPN-MOB-03", false),
        (concat!("EVPN-MOB-0", "33"), "EVPN-MOB-03", false),
        ("MIG-HOT-02", "MIG-HOT-02", true),
    ] {
        assert_eq!(cites(text, id), is, "{text}: {id}");
    }
}
