//! Mobility cases as text: every file of `evpn/tests/scenarios` runs on whole nodes and scripted BGP peers.

mod scenario;
mod world;

use scenario::{Failure, Scenario, Step, parse, run};
use std::fs;
use std::path::PathBuf;

fn files() -> Vec<(String, String)> {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    let mut all: Vec<(String, String)> = fs::read_dir(&dir)
        .expect("the directory is there")
        .map(|e| e.expect("readable").path())
        .filter(|p| p.extension().is_some_and(|x| x == "scn"))
        .map(|p| {
            let text = fs::read_to_string(&p).expect("readable");
            (p.file_name().expect("a file").to_string_lossy().into_owned(), text)
        })
        .collect();
    all.sort();
    all
}

fn read(name: &str, text: &str) -> Scenario {
    parse(text).unwrap_or_else(|f| panic!("{name}:{}: {}", f.line, f.what))
}

#[test]
fn every_scenario_holds() {
    let files = files();
    assert!(files.len() >= 20, "only {} scenarios found", files.len());
    let mut failed = Vec::new();
    for (name, text) in &files {
        for f in run(&read(name, text)) {
            let line = text.lines().nth(f.line - 1).unwrap_or_default().trim();
            failed.push(format!("{name}:{}: {}\n    {line}", f.line, f.what));
        }
    }
    assert!(failed.is_empty(), "\n{}", failed.join("\n"));
}

/// An expectation that holds whatever happens proves nothing: without some of its steps every scenario fails.
#[test]
fn no_scenario_holds_without_what_happens_in_it() {
    for (name, text) in &files() {
        let whole = read(name, text);
        let acts = |s: &Step| matches!(s, Step::Host { .. } | Step::Peer { .. });
        let found = (0..whole.steps.len()).filter(|i| acts(&whole.steps[*i].1)).any(|i| {
            let mut less = whole.clone();
            less.steps.remove(i);
            !run(&less).is_empty()
        });
        assert!(found, "{name} holds whatever happens");
    }
}

/// Requirements and pitfalls that a scenario names are there.
#[test]
fn what_a_scenario_cites_exists() {
    let docs = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs");
    let read = |name: &str| fs::read_to_string(docs.join(name)).expect("readable");
    let known = read("requirements.md") + &read("pitfalls.md");
    for (name, text) in files() {
        let mut cited = 0;
        for id in text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-')) {
            if ["EVPN-", "MIG-", "PIT-", "HOST-", "BGP-"].iter().any(|p| id.starts_with(p)) {
                assert!(known.contains(&format!("**{id}")), "{name} cites {id}, which nobody knows");
                cited += 1;
            }
        }
        let bug = name.starts_with("frr-") && text.starts_with("# FRR #");
        let rfc = text.starts_with("# RFC ");
        assert!(cited > 0 || bug || rfc, "{name} does not say what it is about");
    }
}

const SMALL: &str = "\
vteps A B
speakers F
at 0s A hears garp aa 10.1.0.1 on p1
at 1s F announces aa seq 5
after 5ms
";

/// One wrong word in an expectation, and the runner names the line and what it saw instead.
#[test]
fn a_false_expectation_is_found_and_says_what_was_seen() {
    let truth = [
        ("expect B has aa behind F seq 5", "expect B has aa behind F seq 4", "at F (10.255.0.3) seq 5"),
        ("expect B has aa behind F seq 5", "expect B has aa behind A seq 5", "at F (10.255.0.3) seq 5"),
        ("expect B has aa behind F seq 5", "expect B has aa behind F seq 5 sticky", "seq 5"),
        ("expect B has aa behind F seq 5", "expect B has no aa", "seq 5"),
        ("expect B has no ab", "expect B has ab behind F", "does not know 52:54:00:00:00:ab"),
        ("expect A forwards aa to F", "expect A forwards aa to p1", "to F (10.255.0.3)"),
        ("expect A forwards aa to F", "expect A forwards aa nowhere", "to F (10.255.0.3)"),
        ("expect A forwards ab nowhere", "expect A forwards ab to p1", "nowhere"),
        ("expect A advertises no aa", "expect A advertises aa", "no route at all"),
        ("expect A advertises no aa 10.1.0.1", "expect A advertises aa 10.1.0.1 seq 5", "no route at all"),
        ("expect B answers not for 10.1.0.1", "expect B answers for 10.1.0.1 with aa", "with nothing"),
        (
            "expect A probes aa 10.1.0.1 on p1 once",
            "expect A probes aa 10.1.0.1 on p1 2 times",
            "probed 1 times",
        ),
        ("expect A probes aa 10.1.0.1 on p1 once", "expect A probes no aa", "probed 1 times"),
        ("expect A probes no aa on p2", "expect A probes aa on p2", "probed 0 times"),
        ("expect A tells mac-local about aa once", "expect A tells no mac-local about aa", "told 1 times"),
        ("expect A tells no late-frame about aa", "expect A tells late-frame about aa", "mac-local"),
        ("expect A sends 2 updates", "expect A sends nothing", "sent 2 UPDATEs"),
        ("expect A records hot aa from p1 to F", "expect A records cold aa from p1 to F", "hot from p1"),
        ("expect A records hot aa from p1 to F", "expect A records hot aa from B to F", "hot from p1"),
    ];
    for (right, wrong, seen) in truth {
        let with = |line: &str| run(&parse(&format!("{SMALL}{line}\n")).expect("it is readable"));
        assert_eq!(with(right), [], "{right}");
        match &with(wrong)[..] {
            [Failure { line: 6, what }] => assert!(what.contains(seen), "{wrong}: {what}"),
            other => panic!("{wrong}: {other:?}"),
        }
    }
}

#[test]
fn a_line_that_makes_no_sense_is_named() {
    let cases = [
        ("expect A advertises ag", 6, "`ag` is no MAC"),
        ("expect C has no aa", 6, "`C` is no VTEP of this scenario"),
        ("expect F has no aa", 6, "expectations are about A, B"),
        ("G announces aa", 6, "`G` is no node of this scenario, which has A, B, F"),
        ("F announces aa seq five", 6, "`five` is no sequence number"),
        ("F announces aa seq", 6, "a sequence is missing at the end"),
        ("F announces aa sequence 5", 6, "expected the end of the line, found `sequence`"),
        ("F shouts aa", 6, "a speaker does not `shouts`"),
        ("A announces aa", 6, "a VTEP does not `announces`"),
        ("A sees aa on p3", 6, "`p3` is no port"),
        ("A hears garp aa 2001:db8::1 on p1", 6, "use `na`"),
        ("at 1ms A sees aa on p1", 6, "time goes backwards"),
        ("after 5 A sees aa on p1", 6, "`5` is no length of time"),
        ("vteps C", 6, "the fabric is described before"),
        ("expect A tells moves about aa", 6, "`moves` is no event"),
        ("expect A records fast aa from B to F", 6, "`fast` is no kind of move"),
        ("# nothing", 6, "nothing is expected"),
    ];
    for (text, line, what) in cases {
        let f = parse(&format!("{SMALL}{text}\n")).expect_err(text);
        assert_eq!(f.line, line, "{text}");
        assert!(f.what.contains(what), "{text}: {}", f.what);
    }
    assert_eq!(parse("vteps A A\n").expect_err("twice").what, "`A` is named twice");
    assert_eq!(parse("expect A has no aa\n").map(|_| ()).expect_err("unknown").line, 1);
}
