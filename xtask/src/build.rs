//! Runs cargo: builds binaries and test programs as the caller.

use crate::Error;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The workspace's top directory.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the workspace")
}

/// The cargo that runs us, in the workspace's top directory.
pub(crate) fn cargo() -> Command {
    let mut c = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    c.current_dir(root()).stdin(Stdio::null());
    c
}

/// The `cargo` of rustup, which understands `+toolchain`, without what the running cargo exported.
pub(crate) fn plain_cargo() -> Command {
    let mut c = Command::new("cargo");
    c.current_dir(root()).env_remove("CARGO").env_remove("RUSTUP_TOOLCHAIN").stdin(Stdio::null());
    c
}

/// Builds the binaries of `packages` and says in which directory they are.
pub(crate) fn binaries(profile: &str, packages: &[&str]) -> Result<PathBuf, Error> {
    let mut c = cargo();
    c.args(["build", "--locked", "--bins", "--profile", profile]);
    for p in packages {
        c.args(["-p", p]);
    }
    match c.stdout(Stdio::null()).status() {
        Ok(s) if s.success() => Ok(target_dir()?.join(if profile == "dev" { "debug" } else { profile })),
        Ok(_) => Err(Error::failed("the build failed")),
        Err(e) => Err(Error::failed(format!("cannot run cargo: {e}"))),
    }
}

/// Where cargo puts what it builds.
pub(crate) fn target_dir() -> Result<PathBuf, Error> {
    let out = cargo()
        .args(["metadata", "--no-deps", "--format-version", "1", "--locked"])
        .output()
        .map_err(|e| Error::failed(format!("cannot run cargo: {e}")))?;
    let meta: Value = serde_json::from_slice(&out.stdout).map_err(|e| {
        Error::failed(format!("cargo metadata: {e}: {}", String::from_utf8_lossy(&out.stderr)))
    })?;
    meta["target_directory"]
        .as_str()
        .map(Into::into)
        .ok_or_else(|| Error::failed("cargo metadata: no target"))
}

/// A compiled test program.
#[derive(Clone, Debug)]
pub(crate) struct TestProgram {
    /// Package name.
    pub(crate) package: String,
    /// Target name: the file in `tests/` without `.rs`, or the crate's own name.
    pub(crate) target: String,
    /// An integration test (`tests/*.rs`), not the unit tests of a library or binary.
    pub(crate) integration: bool,
    /// The program.
    pub(crate) exe: PathBuf,
    /// Directory to run it in, as cargo does.
    pub(crate) dir: PathBuf,
}

/// Reads cargo's JSON messages and picks the test programs.
pub(crate) fn test_programs(messages: &str) -> Vec<TestProgram> {
    let mut out: Vec<TestProgram> =
        messages.lines().filter_map(|l| test_program(&serde_json::from_str(l).ok()?)).collect();
    out.sort_by(|a, b| (&a.package, a.integration, &a.target).cmp(&(&b.package, b.integration, &b.target)));
    out
}

fn test_program(m: &Value) -> Option<TestProgram> {
    if m["reason"] != "compiler-artifact" || m["profile"]["test"] != true {
        return None;
    }
    let manifest = Path::new(m["manifest_path"].as_str()?);
    let kinds = m["target"]["kind"].as_array()?;
    let name = m["target"]["name"].as_str()?;
    Some(TestProgram {
        // `…/path#name@version`, or `…/name#version` when directory and package agree.
        package: m["package_id"].as_str().and_then(package_name)?,
        target: name.to_owned(),
        integration: kinds.iter().any(|k| k == "test"),
        exe: m["executable"].as_str()?.into(),
        dir: manifest.parent()?.to_owned(),
    })
}

fn package_name(id: &str) -> Option<String> {
    let (path, tail) = id.rsplit_once('#')?;
    let name = match tail.split_once('@') {
        Some((name, _)) => name,
        None => path.rsplit('/').next()?,
    };
    Some(name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::{package_name, test_programs};

    #[test]
    fn package_names_are_read_from_both_forms_of_id() {
        assert_eq!(package_name("path+file:///x/evpn#0.1.0").as_deref(), Some("evpn"));
        assert_eq!(package_name("path+file:///x/tests#vtepd-tests@0.1.0").as_deref(), Some("vtepd-tests"));
    }

    #[test]
    fn only_test_programs_are_picked_from_cargo_messages() {
        let lines = concat!(
            r#"{"reason":"compiler-artifact","package_id":"path+file:///x/evpn#0.1.0","manifest_path":"/x/evpn/Cargo.toml","target":{"kind":["lib"],"name":"evpn"},"profile":{"test":true},"executable":"/x/target/debug/deps/evpn-1"}"#,
            "\n",
            r#"{"reason":"compiler-artifact","package_id":"path+file:///x/evpn#0.1.0","manifest_path":"/x/evpn/Cargo.toml","target":{"kind":["lib"],"name":"evpn"},"profile":{"test":false},"executable":null}"#,
            "\nnot json\n",
            r#"{"reason":"build-finished","success":true}"#
        );
        let got = test_programs(lines);
        assert_eq!(got.len(), 1);
        assert_eq!((got[0].package.as_str(), got[0].integration), ("evpn", false));
    }
}
