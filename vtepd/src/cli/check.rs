//! `vtepd check`: the configuration file, the devices it names, and with `--host` the host.

use super::out::Color;
use super::{CheckArgs, FAILED, Failure, OK, USAGE, out};
use crate::config::{self, Settings};
use crate::driver::host;
use netlink::linux::hostcheck::{Finding, Severity};
use std::fmt::Write as _;

pub(super) fn check(args: &CheckArgs) -> Result<u8, Failure> {
    let settings = match args.config.as_deref().map(read).transpose() {
        Ok(settings) => settings,
        Err(report) => {
            out::complain(&report.render(out::Look::stderr_color()));
            return Ok(USAGE);
        }
    };
    if let (Some(s), Some(file)) = (&settings, &args.config) {
        let (n, v) = (s.node.neighbors.len(), s.node.vnis.len());
        out::print(&format!("`{}` is valid: {n} neighbors, {v} VNIs\n", file.display()))?;
    }
    if !args.host {
        return Ok(OK);
    }
    let findings = host::findings(settings.as_ref().map(|s| &s.node));
    out::print(&render(&findings, out::Look::of_stdout().color))?;
    let failed = findings.iter().any(|f| f.severity == Severity::Error);
    Ok(if failed { FAILED } else { OK })
}

fn read(file: &std::path::Path) -> Result<Settings, Box<config::Report>> {
    let settings = config::load(file)?;
    settings.keys()?;
    match settings.missing_ports(host::device_exists) {
        Some(report) => Err(report),
        None => Ok(settings),
    }
}

fn render(findings: &[Finding], color: bool) -> String {
    if findings.is_empty() {
        return "this host is fit for vtepd\n".into();
    }
    let mut out = String::new();
    for f in findings {
        let (word, paint) = match f.severity {
            Severity::Error => ("error", Color::Red),
            Severity::Warning => ("warning", Color::Yellow),
        };
        let word = paint.paint(&format!("{word}[{}]:", f.id), color);
        let _ = writeln!(out, "{word} {}\n  why:  {}\n  help: {}", f.what, f.why, f.way_out);
    }
    let errors = findings.iter().filter(|f| f.severity == Severity::Error).count();
    let _ = writeln!(out, "{errors} errors, {} warnings", findings.len() - errors);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_says_what_why_and_the_way_out() {
        let finding = Finding {
            id: "br-netfilter",
            severity: Severity::Error,
            what: "what".into(),
            why: "why".into(),
            way_out: "do this".into(),
        };
        let text = render(&[finding], false);
        let want = "error[br-netfilter]: what\n  why:  why\n  help: do this\n1 errors, 0 warnings\n";
        assert_eq!(text, want);
        assert_eq!(render(&[], false), "this host is fit for vtepd\n");
    }
}
