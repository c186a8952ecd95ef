//! The stages of `cargo xtask test`, in order, and which test program belongs to which.

use crate::build::TestProgram;

/// A stage. What is cheap and likely to fail comes first.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Stage {
    /// `cargo fmt --check`.
    Fmt,
    /// `cargo clippy -D warnings`.
    Clippy,
    /// Everything that is tested, and the programs that the tests start.
    Build,
    /// Unit tests, golden vectors, captures, properties.
    Unit,
    /// Committed fuzz corpora, replayed.
    Corpora,
    /// Whole fabrics on a virtual clock.
    Sim,
    /// The real kernel, in network namespaces.
    Namespaces,
    /// The daemon beside real BGP speakers.
    Interop,
    /// Configuration and command line.
    Cli,
    /// Published topologies, the demo, sabotage.
    Lab,
    /// Tidy checks, examples in the documentation, `cargo doc`.
    Docs,
    /// Licences, bans and sources of dependencies.
    Deny,
}

impl Stage {
    /// In running order.
    pub(crate) const ALL: [Self; 12] = [
        Self::Fmt,
        Self::Clippy,
        Self::Build,
        Self::Unit,
        Self::Corpora,
        Self::Sim,
        Self::Docs,
        Self::Deny,
        Self::Cli,
        Self::Namespaces,
        Self::Interop,
        Self::Lab,
    ];

    /// As typed and printed.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Fmt => "fmt",
            Self::Clippy => "clippy",
            Self::Build => "build",
            Self::Unit => "unit",
            Self::Corpora => "corpora",
            Self::Sim => "sim",
            Self::Namespaces => "namespaces",
            Self::Interop => "interop",
            Self::Cli => "cli",
            Self::Lab => "lab",
            Self::Docs => "docs",
            Self::Deny => "deny",
        }
    }

    /// The stage of this name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|s| s.name() == name)
    }

    /// Its test programs are raised to root where that is possible.
    pub(crate) fn wants_root(self) -> bool {
        matches!(self, Self::Namespaces | Self::Interop | Self::Cli | Self::Lab)
    }

    /// Tests at a time; `None` leaves it to libtest. Interop tests mostly wait for timers of the peer.
    pub(crate) fn threads(self) -> Option<usize> {
        match self {
            Self::Interop => Some(4),
            _ => None,
        }
    }

    /// Where a test program belongs.
    pub(crate) fn of(p: &TestProgram) -> Self {
        if !p.integration {
            return Self::Unit;
        }
        match p.package.as_str() {
            "evpn" if p.target.contains("corpus") || p.target.contains("corpora") => Self::Corpora,
            "evpn" | "xtask" => Self::Unit,
            "vtepd" => Self::Cli,
            "vtep-lab" => Self::Lab,
            "vtepd-tests" if p.target.starts_with("interop") || p.target.starts_with("pitfalls") => {
                Self::Interop
            }
            "vtepd-tests" if p.target == "sim" => Self::Sim,
            "vtepd-tests" if ["tidy", "compliance"].contains(&p.target.as_str()) => Self::Docs,
            "vtepd-tests" if p.target.starts_with("cli") => Self::Cli,
            "vtepd-tests" if p.target.starts_with("demo") || p.target.starts_with("lab") => Self::Lab,
            _ => Self::Namespaces,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Stage;
    use crate::build::TestProgram;

    fn of(package: &str, target: &str, integration: bool) -> Stage {
        let exe = "/x".into();
        let dir = "/".into();
        Stage::of(&TestProgram { package: package.into(), target: target.into(), integration, exe, dir })
    }

    #[test]
    fn every_test_program_finds_its_stage() {
        assert_eq!(of("netlink", "netlink", false), Stage::Unit);
        assert_eq!(of("netlink", "contract", true), Stage::Namespaces);
        assert_eq!(of("evpn", "fuzz_corpus", true), Stage::Corpora);
        assert_eq!(of("vtepd-tests", "interop_session", true), Stage::Interop);
        assert_eq!(of("vtepd-tests", "sim", true), Stage::Sim);
        assert_eq!(of("vtepd-tests", "tidy", true), Stage::Docs);
        assert_eq!(of("vtepd-tests", "compliance", true), Stage::Docs);
        assert_eq!(of("vtep-lab", "sabotage", true), Stage::Lab);
    }

    #[test]
    fn every_stage_is_found_by_its_name() {
        for s in Stage::ALL {
            assert_eq!(Stage::named(s.name()), Some(s));
        }
    }
}
