//! The report: as JSON, and as text made from the same data.

use crate::inspect::table;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write;

/// Version of the JSON.
pub const VERSION: u32 = 1;

/// One check.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Check {
    /// Stable name.
    pub name: &'static str,
    /// Passed.
    pub ok: bool,
    /// What was seen.
    pub detail: String,
}

/// What a VTEP did in the move. Times in milliseconds after the first frame at the new site.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct VtepRow {
    /// Node.
    pub vtep: String,
    /// `vtepd` or `frr`.
    pub runs: &'static str,
    /// `new site`, `old site` or `other`.
    pub role: &'static str,
    /// Observer: the forwarding row (at the new site: the first frame itself).
    pub row_ms: Option<f64>,
    /// vtepd's own record of the same.
    pub record_ms: Option<f64>,
    /// By how much the two differ.
    pub difference_ms: Option<f64>,
    /// Sequence number before and after, as the VTEP holds it.
    pub sequence: Option<(u32, u32)>,
}

/// Loss and gaps.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Traffic {
    /// Probes sent.
    pub probes: u64,
    /// Probes without an answer.
    pub lost: u64,
    /// Longest time without a probe reaching the VM, milliseconds, around the move.
    pub longest_gap_ms: f64,
    /// The same before the move: what the machine itself does.
    pub idle_gap_ms: f64,
    /// Limit: one WAN round trip and 5 ms.
    pub gap_limit_ms: f64,
    /// Round trip before the move, median, milliseconds.
    pub round_trip_before_ms: f64,
    /// Round trip after the move, median, milliseconds.
    pub round_trip_after_ms: f64,
    /// TCP octets in order, in all.
    pub tcp_bytes: u64,
    /// Of these, after the move.
    pub tcp_bytes_after: u64,
    /// TCP segments sent again.
    pub tcp_retransmitted: u32,
    /// TCP segment size.
    pub tcp_segment: u32,
    /// Longest IP packet that the VM got after the move.
    pub longest_packet: usize,
    /// Longest IP packet on the WAN.
    pub longest_wan_packet: usize,
}

/// The whole.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// [`VERSION`].
    pub version: u32,
    /// All checks passed.
    pub ok: bool,
    /// Names of the checks that did not.
    pub failed: Vec<&'static str>,
    /// Prefix of the lab.
    pub lab: String,
    /// The VM.
    pub vm: String,
    /// From and to.
    pub from: String,
    /// See `from`.
    pub to: String,
    /// How long the VM stood still (as in a real migration, only shorter), milliseconds.
    pub still_ms: f64,
    /// What the guest's traffic saw; absent if it never ran.
    pub traffic: Option<Traffic>,
    /// What each VTEP did.
    pub vteps: Vec<VtepRow>,
    /// Kernel rows of the VM at each VTEP afterwards.
    pub kernel: BTreeMap<String, Vec<String>>,
    /// In the order they were made.
    pub checks: Vec<Check>,
}

impl Report {
    /// Adds a check.
    pub fn check(&mut self, name: &'static str, result: Result<String, String>) -> bool {
        let ok = result.is_ok();
        let (Ok(detail) | Err(detail)) = result;
        self.checks.push(Check { name, ok, detail });
        ok
    }

    /// Sums up.
    pub fn finish(&mut self) {
        self.version = VERSION;
        self.failed = self.checks.iter().filter(|c| !c.ok).map(|c| c.name).collect();
        self.ok = self.failed.is_empty();
    }

    /// For people.
    pub fn text(&self) -> String {
        let mut out = String::new();
        if let Some(t) = &self.traffic {
            let _ = writeln!(
                out,
                "\n{} moved from {} to {} (standing still for {:.1} ms)\n",
                self.vm, self.from, self.to, self.still_ms
            );
            let rows = [
                ("frames lost", format!("{} of {} probes, one each millisecond", t.lost, t.probes)),
                (
                    "longest gap",
                    format!(
                        "{:.1} ms at the VM (limit {:.1}: a WAN round trip + 5); before the move {:.1} ms",
                        t.longest_gap_ms, t.gap_limit_ms, t.idle_gap_ms
                    ),
                ),
                (
                    "round trip",
                    format!("{:.2} ms before, {:.2} ms after", t.round_trip_before_ms, t.round_trip_after_ms),
                ),
                (
                    "TCP",
                    format!(
                        "{} octets in order, {} of them after the move; {} segments of {} sent again",
                        t.tcp_bytes, t.tcp_bytes_after, t.tcp_retransmitted, t.tcp_segment
                    ),
                ),
                (
                    "packets",
                    format!(
                        "up to {} octets at the VM, up to {} on the WAN, none fragmented",
                        t.longest_packet, t.longest_wan_packet
                    ),
                ),
            ];
            out.push_str(&table(&rows.map(|(k, v)| vec![format!("  {k}"), v])));
        }
        if !self.vteps.is_empty() {
            out.push_str(
                "\ntimes in ms after the first frame at the new site; sequence number of the VM's route\n\n",
            );
            let ms = |v: Option<f64>| v.map_or("-".to_owned(), |v| format!("{v:.3}"));
            let mut rows = vec![
                ["  VTEP", "RUNS", "ROLE", "OBSERVED", "OWN RECORD", "DIFFERENCE", "SEQUENCE"]
                    .map(str::to_owned)
                    .to_vec(),
            ];
            for v in &self.vteps {
                rows.push(vec![
                    format!("  {}", v.vtep),
                    v.runs.to_owned(),
                    v.role.to_owned(),
                    ms(v.row_ms),
                    ms(v.record_ms),
                    ms(v.difference_ms),
                    v.sequence.map_or("-".to_owned(), |(a, b)| format!("{a} → {b}")),
                ]);
            }
            out.push_str(&table(&rows));
        }
        if !self.kernel.is_empty() {
            let _ = writeln!(out, "\nkernel rows of {} afterwards\n", self.vm);
            let rows: Vec<_> = self
                .kernel
                .iter()
                .flat_map(|(vtep, rows)| rows.iter().map(move |r| vec![format!("  {vtep}"), r.clone()]))
                .collect();
            out.push_str(&table(&rows));
        }
        out.push('\n');
        let rows: Vec<_> = self
            .checks
            .iter()
            .map(|c| {
                vec![if c.ok { "  ok" } else { "  FAILED" }.to_owned(), c.name.to_owned(), c.detail.clone()]
            })
            .collect();
        out.push_str(&table(&rows));
        if self.ok {
            let _ = writeln!(out, "\nall {} checks passed", self.checks.len());
        } else {
            let _ = writeln!(out, "\nfailed: {}", self.failed.join(", "));
        }
        out
    }
}
