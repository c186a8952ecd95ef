//! The table and the JSON.

use super::{Samples, System};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::process::Command;

/// One figure.
#[derive(Clone, Debug)]
pub struct Line {
    /// What was measured.
    pub what: String,
    /// Whose; `None`: the bare kernel or the observer.
    pub system: Option<System>,
    /// `ms`, `MB`, or what else the number counts.
    pub unit: &'static str,
    /// How many samples.
    pub n: usize,
    /// Median.
    pub median: f64,
    /// 99th percentile.
    pub p99: f64,
    /// Maximum.
    pub max: f64,
}

/// What it was measured on.
#[derive(Clone, Debug)]
pub struct Machine {
    text: Vec<(&'static str, String)>,
}

impl Machine {
    /// This one, now.
    pub fn here() -> Self {
        let out = |program: &str, args: &[&str]| {
            let path = crate::need::program(program).unwrap_or_else(|| program.into());
            let o = Command::new(path).args(args).output().ok()?;
            String::from_utf8_lossy(&o.stdout).lines().next().map(|l| l.trim().to_owned())
        };
        let cpu = std::fs::read_to_string("/proc/cpuinfo").ok().and_then(|t| {
            t.lines()
                .find(|l| l.starts_with("model name"))
                .and_then(|l| Some(l.split_once(": ")?.1.to_owned()))
        });
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        let vtepd = crate::need::our("vtepd");
        let text = [
            ("date", out("date", &["-u", "+%F %H:%M UTC"])),
            ("machine", Some(format!("{cores} cores, {}", cpu.unwrap_or_default()))),
            ("kernel", out("uname", &["-sr"])),
            ("FRR", out("bgpd", &["--version"])),
            ("vtepd", out(&vtepd.display().to_string(), &["--version"])),
            ("load before", std::fs::read_to_string("/proc/loadavg").ok().map(|l| l.trim().to_owned())),
        ];
        Self { text: text.into_iter().filter_map(|(k, v)| Some((k, v?))).collect() }
    }

    /// What is known of it, for people.
    pub fn text(&self) -> &[(&'static str, String)] {
        &self.text
    }

    /// The same for programs.
    pub fn json(&self) -> Value {
        let map: serde_json::Map<_, _> =
            self.text.iter().map(|(k, v)| ((*k).to_owned(), Value::from(v.as_str()))).collect();
        map.into()
    }
}

/// All figures of a run.
#[derive(Clone, Debug)]
pub struct Report {
    machine: Machine,
    lines: Vec<Line>,
    codec: Option<String>,
}

impl Report {
    /// Empty.
    pub fn new(machine: Machine) -> Self {
        Self { machine, lines: Vec::new(), codec: None }
    }

    /// Times.
    pub fn times(&mut self, what: impl Into<String>, system: Option<System>, s: &Samples) {
        let (median, p99, max) = (s.percentile(50.0), s.percentile(99.0), s.percentile(100.0));
        self.push(Line { what: what.into(), system, unit: "ms", n: s.len(), median, p99, max });
    }

    /// Memory.
    pub fn memory(&mut self, what: impl Into<String>, system: System, mb: f64) {
        let what = what.into();
        self.push(Line { what, system: Some(system), unit: "MB", n: 1, median: mb, p99: mb, max: mb });
    }

    /// A number that is no time.
    pub fn number(&mut self, what: impl Into<String>, system: System, unit: &'static str, v: f64) {
        self.push(Line { what: what.into(), system: Some(system), unit, n: 1, median: v, p99: v, max: v });
    }

    /// What the codec bench printed.
    pub fn codec(&mut self, text: String) {
        self.codec = Some(text);
    }

    /// All figures so far.
    pub fn lines(&self) -> &[Line] {
        &self.lines
    }

    fn push(&mut self, l: Line) {
        eprintln!(
            "  {:<46} {:<6} median {:.3} {}",
            l.what,
            l.system.map_or("-", System::name),
            l.median,
            l.unit
        );
        self.lines.push(l);
    }

    fn of(&self, what: &str, system: System) -> Option<&Line> {
        self.lines.iter().find(|l| l.what == what && l.system == Some(system))
    }

    /// As a Markdown table that a terminal shows well too.
    pub fn table(&self) -> String {
        let mut out = String::new();
        for (k, v) in &self.machine.text {
            let _ = writeln!(out, "- {k}: {v}");
        }
        let wide = self.lines.iter().map(|l| l.what.chars().count()).max().unwrap_or(0).max(46);
        let _ = writeln!(
            out,
            "\n| {:<wide$} | {:<6} | {:>5} | {:>9} | {:>9} | {:>9} | unit | {:>9} |",
            "what", "who", "n", "median", "p99", "max", "FRR/vtepd"
        );
        let _ = writeln!(
            out,
            "|{:-<rule$}|{:-<8}|{:->7}|{:->11}|{:->11}|{:->11}|------|{:->11}|",
            "",
            "",
            ":",
            ":",
            ":",
            ":",
            ":",
            rule = wide + 2
        );
        for l in &self.lines {
            let ratio = match (l.system, self.of(&l.what, System::Frr)) {
                (Some(System::Vtepd), Some(frr)) if l.median > 0.0 => format!("{:.1}", frr.median / l.median),
                _ => String::new(),
            };
            let who = l.system.map_or("-", System::name);
            let _ = writeln!(
                out,
                "| {:<wide$} | {who:<6} | {:>5} | {:>9.3} | {:>9.3} | {:>9.3} | {:<4} | {ratio:>9} |",
                l.what, l.n, l.median, l.p99, l.max, l.unit
            );
        }
        if let Some(c) = &self.codec {
            let _ = writeln!(out, "\n```text\n{}\n```", c.trim_end());
        }
        out
    }

    /// As JSON.
    pub fn json(&self) -> Value {
        let figures: Vec<_> = self
            .lines
            .iter()
            .map(|l| {
                json!({
                    "what": l.what, "system": l.system.map(System::name), "unit": l.unit, "n": l.n,
                    "median": l.median, "p99": l.p99, "max": l.max,
                })
            })
            .collect();
        json!({ "version": 1, "machine": self.machine.json(), "figures": figures, "codec": self.codec })
    }
}
