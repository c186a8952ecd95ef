//! Reads what a libtest program prints under `--show-output`.

/// Outcome of one test program.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Counts {
    /// Tests that ran and held.
    pub(crate) passed: usize,
    /// Tests that failed.
    pub(crate) failed: usize,
    /// Tests that printed `skipped: <why>`.
    pub(crate) skipped: Vec<Skip>,
}

/// A test that could not run here.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Skip {
    /// Test name.
    pub(crate) test: String,
    /// What it needs.
    pub(crate) why: String,
}

impl Skip {
    /// The kernel lacks a feature that `tests/known-absent.toml` lists: no failure even under CI=true.
    pub(crate) fn known_absent(&self) -> bool {
        self.why.starts_with("known-absent: ")
    }
}

impl Counts {
    /// Adds another program's.
    pub(crate) fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped.extend(other.skipped);
    }
}

/// Counts tests. `None` when there is no result line: the program died.
pub(crate) fn parse(output: &str) -> Option<Counts> {
    let mut counts = Counts::default();
    let mut seen = false;
    let mut section: Option<&str> = None;
    for line in output.lines() {
        if let Some(rest) = line.strip_prefix("test result: ") {
            seen = true;
            section = None;
            for part in rest.split(['.', ';']) {
                let mut words = part.split_whitespace();
                let (Some(n), Some(what)) =
                    (words.next().and_then(|w| w.parse::<usize>().ok()), words.next())
                else {
                    continue;
                };
                match what {
                    "passed" => counts.passed += n,
                    "failed" => counts.failed += n,
                    _ => {}
                }
            }
        } else if let Some(name) = line.strip_prefix("---- ").and_then(|l| l.strip_suffix(" stdout ----")) {
            section = Some(name);
        } else if line == "successes:" || line == "failures:" {
            section = None;
        } else if let (Some(test), Some(why)) = (section, line.strip_prefix("skipped: "))
            && counts.skipped.last().is_none_or(|s: &Skip| s.test != test)
        {
            counts.skipped.push(Skip { test: test.to_owned(), why: why.trim().to_owned() });
        }
    }
    counts.passed = counts.passed.saturating_sub(counts.skipped.len());
    seen.then_some(counts)
}

#[cfg(test)]
mod tests {
    use super::{Counts, Skip, parse};

    #[test]
    fn skipped_tests_are_taken_out_of_the_passed_ones() {
        let out = "
running 3 tests
test a ... ok
test b::c ... ok
test d ... FAILED

successes:

---- a stdout ----
hello

---- b::c stdout ----
skipped: needs root

successes:
    a
    b::c

failures:

---- d stdout ----
boom

failures:
    d

test result: FAILED. 2 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s
";
        let want = Counts {
            passed: 1,
            failed: 1,
            skipped: vec![Skip { test: "b::c".into(), why: "needs root".into() }],
        };
        assert_eq!(parse(out), Some(want));
    }

    #[test]
    fn a_program_that_died_has_no_result() {
        assert_eq!(parse("running 3 tests\ntest a ... ok\n"), None);
    }

    #[test]
    fn features_known_to_be_absent_are_told_apart() {
        let skip = |why: &str| Skip { test: "t".into(), why: why.into() };
        assert!(skip("known-absent: vrf").known_absent());
        assert!(!skip("needs root").known_absent());
    }
}
