//! The source tree as the tidy checks see it.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The workspace's top directory.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests lies in the workspace")
}

/// A text file of the tree.
#[derive(Clone, Debug)]
pub struct Source {
    /// Path from the top directory.
    pub path: PathBuf,
    /// Content.
    pub text: String,
}

impl Source {
    /// Whether it ends in `.rs`.
    pub fn is_rust(&self) -> bool {
        self.path.extension().is_some_and(|e| e == "rs")
    }
    /// Lines with their numbers from 1.
    pub fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text.lines().enumerate().map(|(i, l)| (i + 1, l))
    }
}

/// Every text file of the tree, without what is built or ignored, in order.
pub fn sources() -> Vec<Source> {
    let mut out = Vec::new();
    walk(root(), &mut out);
    out.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(out.len() > 30, "found only {} files below {}", out.len(), root().display());
    out
}

fn walk(dir: &Path, out: &mut Vec<Source>) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        let name = entry.file_name().to_string_lossy().into_owned();
        if path.is_dir() {
            let skipped = ["target", ".git", "corpus", "artifacts", "coverage", "node_modules"];
            if !skipped.contains(&name.as_str()) {
                walk(&path, out);
            }
        } else if name == ".git" {
            // In a git worktree this is a file.
        } else if let Ok(text) = std::fs::read_to_string(&path) {
            let path = path.strip_prefix(root()).expect("walked below the root").to_owned();
            out.push(Source { path, text });
        }
    }
}

/// Output of a cargo command in the top directory.
///
/// # Panics
/// When cargo cannot be run or fails.
pub fn cargo(args: &[&str]) -> String {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let out = Command::new(cargo).current_dir(root()).args(args).output().expect("cargo runs");
    assert!(out.status.success(), "cargo {args:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8_lossy(&out.stdout).into_owned()
}

/// Ids of the form `EVPN-MOB-03` in a text that start with one of `prefixes`, for example `EVPN-`.
pub fn ids<'a>(text: &'a str, prefixes: &[&str]) -> Vec<&'a str> {
    let mut out = Vec::new();
    for word in text.split(|c: char| !(c.is_ascii_uppercase() || c.is_ascii_digit() || c == '-')) {
        let number = word.rsplit('-').next().unwrap_or("");
        let is_number = number.len() >= 2 && number.bytes().all(|b| b.is_ascii_digit());
        if is_number && prefixes.iter().any(|p| word.starts_with(p)) {
            out.push(word);
        }
    }
    out
}
