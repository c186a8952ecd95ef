//! `ip`, `bridge` and `tc` of iproute2: commands in batches, answers as JSON.

use crate::error::{Error, Result};
use serde_json::Value;
use std::io::Write;
use std::process::{Command, Stdio};

/// Runs lines through one `ip -batch`, in a namespace or (`None`) in the caller's.
pub fn ip_batch(namespace: Option<&str>, lines: &[String]) -> Result<()> {
    batch("ip", namespace, lines)
}

/// Runs lines through one `tc -batch`.
pub fn tc_batch(namespace: Option<&str>, lines: &[String]) -> Result<()> {
    batch("tc", namespace, lines)
}

/// Runs lines through one `bridge -batch`.
pub fn bridge_batch(namespace: Option<&str>, lines: &[String]) -> Result<()> {
    batch("bridge", namespace, lines)
}

fn batch(program: &str, namespace: Option<&str>, lines: &[String]) -> Result<()> {
    if lines.is_empty() {
        return Ok(());
    }
    let mut command = Command::new(program);
    if let Some(n) = namespace {
        command.args(["-n", n]);
    }
    let mut child = command
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(missing(program))?;
    let text = lines.join("\n") + "\n";
    if let Some(mut stdin) = child.stdin.take() {
        // A failure here shows in the exit status too, with the reason on stderr.
        let _ = stdin.write_all(text.as_bytes());
    }
    let out = child.wait_with_output().map_err(Error::io(program))?;
    if out.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&out.stderr).trim().replace('\n', "; ");
    // "Command failed -:3" names the line.
    let line = said
        .rsplit_once("-:")
        .and_then(|(_, n)| n.trim().parse::<usize>().ok())
        .and_then(|n| lines.get(n.saturating_sub(1)));
    Err(Error::Command {
        command: format!("{program} {}", line.map_or("-batch", String::as_str)),
        place: namespace.unwrap_or("the host").to_owned(),
        output: said,
    })
}

/// Runs one command in a namespace and parses what it prints, which must be asked for with `-j`.
pub fn json(program: &str, namespace: &str, args: &[&str]) -> Result<Vec<Value>> {
    let out = Command::new(program)
        .args(["-n", namespace, "-j"])
        .args(args)
        .stdin(Stdio::null())
        .output()
        .map_err(missing(program))?;
    let command = || format!("{program} -j {}", args.join(" "));
    if !out.status.success() {
        return Err(Error::Command {
            command: command(),
            place: namespace.to_owned(),
            output: String::from_utf8_lossy(&out.stderr).trim().to_owned(),
        });
    }
    // No rows at all are printed as nothing.
    if out.stdout.iter().all(u8::is_ascii_whitespace) {
        return Ok(Vec::new());
    }
    serde_json::from_slice(&out.stdout).map_err(|e| Error::Command {
        command: command(),
        place: namespace.to_owned(),
        output: format!("not JSON: {e}"),
    })
}

fn missing(program: &str) -> impl FnOnce(std::io::Error) -> Error {
    let what = format!("{program} (package iproute2)");
    Error::io(what)
}
