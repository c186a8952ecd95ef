//! What a test needs of the machine. Unmet: the test says so and passes, or fails under CI=true.

use std::path::{Path, PathBuf};

/// A need.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Need {
    /// Effective user id 0 and the right to make network namespaces.
    Root,
    /// FRR's zebra, bgpd and vtysh.
    Frr,
    /// FRR's zebra, bfdd and vtysh.
    Bfdd,
    /// GoBGP's gobgpd and gobgp.
    GoBgp,
    /// A program, by name.
    Tool(&'static str),
    /// A program whose package has another name.
    Package {
        /// The program.
        program: &'static str,
        /// Debian's package.
        package: &'static str,
    },
    /// A kernel feature, by the name used in `tests/known-absent.toml`.
    Kernel(&'static str),
}

impl Need {
    /// Why it is not met, and the way out; `None` if it is met.
    fn unmet(self) -> Option<String> {
        match self {
            Self::Root => (!rustix::process::geteuid().is_root())
                .then(|| "needs root (run as root, or have sudo)".into()),
            Self::Frr => ["zebra", "bgpd", "vtysh"]
                .iter()
                .any(|p| program(p).is_none())
                .then(|| "needs FRR (apt-get install frr)".into()),
            Self::Bfdd => ["zebra", "bfdd", "vtysh"]
                .iter()
                .any(|p| program(p).is_none())
                .then(|| "needs FRR's bfdd (apt-get install frr)".into()),
            Self::GoBgp => ["gobgpd", "gobgp"]
                .iter()
                .any(|p| program(p).is_none())
                .then(|| "needs GoBGP (apt-get install gobgpd)".into()),
            Self::Tool(t) => program(t).is_none().then(|| format!("needs the program {t}")),
            Self::Package { program: name, package } => {
                program(name).is_none().then(|| format!("needs {name} (apt-get install {package})"))
            }
            Self::Kernel(f) => (!crate::kernel::has(f)).then(|| {
                if crate::kernel::known_absent().iter().any(|k| k == f) {
                    format!("known-absent: {f}")
                } else {
                    format!("needs the kernel feature {f}")
                }
            }),
        }
    }
}

/// Whether every need is met. If not, prints `skipped: <why>`, which `cargo xtask test` counts.
///
/// # Panics
/// Under `CI=true` when a need is not met, unless it is a kernel feature that `tests/known-absent.toml` lists.
pub fn met(needs: &[Need]) -> bool {
    let Some(why) = needs.iter().find_map(|n| n.unmet()) else { return true };
    assert!(
        std::env::var_os("CI").is_none_or(|v| v != "true") || why.starts_with("known-absent: "),
        "under CI=true nothing is skipped: {why}"
    );
    println!("skipped: {why}");
    false
}

/// Where a program is: `PATH`, then where administrators' and FRR's programs lie.
pub fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin", "/usr/lib/frr"].map(PathBuf::from))
        .map(|d| d.join(name))
        .find(|p| p.is_file())
}

/// A program of this workspace.
///
/// `VTEPD_BIN_DIR` says where they are (set by `cargo xtask`); otherwise they are built, next to the test that asks.
///
/// # Panics
/// When it is not there and cannot be built.
pub fn our(name: &str) -> PathBuf {
    if let Some(dir) = std::env::var_os("VTEPD_BIN_DIR") {
        let p = Path::new(&dir).join(name);
        assert!(p.is_file(), "VTEPD_BIN_DIR has no {name}");
        return p;
    }
    static BUILT: std::sync::Once = std::sync::Once::new();
    BUILT.call_once(|| {
        crate::tree::cargo(&["build", "--quiet", "--locked", "-p", "vtepd", "-p", "vtep-lab", "--bins"]);
    });
    let mut dir = std::env::current_exe().expect("a test knows its own path");
    dir.pop();
    if dir.ends_with("deps") {
        dir.pop();
    }
    let p = dir.join(name);
    assert!(p.is_file(), "{} was not built", p.display());
    p
}
