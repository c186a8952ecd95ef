//! How moves look: a row, a line of `watch`, and what many of them amount to.

use super::out::Color;
use super::table::{Cell, Column, cell, colored, flexible, left, maybe, right, span};
use crate::driver::clock;
use evpn::node::view::{MoveKind, MoveView};
use evpn::types::Span;
use serde_json::{Value, json};
use std::fmt::Write as _;

pub(super) const COLUMNS: [Column; 15] = [
    right("ID"),
    right("VNI"),
    left("MAC"),
    left("KIND"),
    left("ROLE"),
    left("CAUSE"),
    left("FROM"),
    left("TO"),
    right("SEQ"),
    right("DECIDED"),
    right("SENT"),
    right("KERNEL"),
    right("TOLD"),
    right("AGO"),
    flexible("IPS"),
];

/// All phases count from the first sign of the move.
pub(super) fn row(m: &MoveView) -> Vec<Cell> {
    let [decided, sent, kernel, told] = m.phases();
    let ago: Span = clock::now().since(m.seen);
    let mut ips: Vec<String> = m.ips.iter().map(ToString::to_string).collect();
    ips.extend(m.mac_before.map(|before| format!("(was {before})")));
    let kind = match m.kind {
        MoveKind::ChangedMac | MoveKind::NewIp => colored(m.kind, Color::Yellow),
        MoveKind::Hot | MoveKind::Warm | MoveKind::Cold => cell(m.kind),
    };
    vec![
        cell(m.id),
        cell(m.vni),
        cell(m.mac),
        kind,
        cell(&m.role),
        cell(&m.cause),
        cell(&m.from),
        cell(&m.to),
        cell(format!("{}→{}", m.seq_before, m.seq)),
        maybe(decided),
        maybe(sent),
        maybe(kernel),
        maybe(told),
        cell(span(ago)),
        cell(ips.join(" ")),
    ]
}

/// A move with its phases, for one line of `watch`.
pub(super) fn line(m: &MoveView) -> String {
    let mut out = format!(
        "{} {} {} {}→{} vni={} seq={}→{} by {}",
        m.kind, m.mac, m.role, m.from, m.to, m.vni, m.seq_before, m.seq, m.cause
    );
    if let Some(before) = m.mac_before {
        let _ = write!(out, " was={before}");
    }
    if !m.ips.is_empty() {
        let ips: Vec<_> = m.ips.iter().map(ToString::to_string).collect();
        let _ = write!(out, " ips={}", ips.join(","));
    }
    if let Some(silent) = m.silent {
        let _ = write!(out, " silent={}", span(silent));
    }
    let [decided, _, kernel, told] = m.phases();
    let mut step = |name: &str, after: Option<Span>| {
        if let Some(after) = after {
            let _ = write!(out, " {name} +{after}");
        }
    };
    step("decided", decided);
    for h in &m.peers {
        step(&format!("to {}", h.peer), Some(h.at.since(m.seen)));
    }
    step("kernel", kernel);
    step("told", told);
    out
}

/// Number, median, 99th percentile and longest of each phase that any of these moves had. The percentile is a value
/// that was measured (nearest rank), never one in between.
fn phases(moves: &[MoveView]) -> Vec<(&'static str, usize, Span, Span, Span)> {
    let mut out = Vec::new();
    for (i, name) in MoveView::PHASES.into_iter().enumerate() {
        let mut spans: Vec<u64> = moves.iter().filter_map(|m| m.phases()[i]).map(|s| s.0).collect();
        spans.sort_unstable();
        let rank = |percent: usize| {
            let n = (spans.len() * percent).div_ceil(100).max(1);
            spans.get(n - 1).copied().map(Span)
        };
        if let (Some(median), Some(p99), Some(max)) = (rank(50), rank(99), rank(100)) {
            out.push((name, spans.len(), median, p99, max));
        }
    }
    out
}

/// One line below the table.
pub(super) fn summary(moves: &[MoveView]) -> String {
    if moves.is_empty() {
        return String::new();
    }
    let mut out = format!("{} moves", moves.len());
    for (name, n, median, p99, max) in phases(moves) {
        let _ = write!(out, "; {name}: n {n}, median {median}, p99 {p99}, max {max}");
    }
    out.push('\n');
    out
}

/// The same for `--json`; times in nanoseconds.
pub(super) fn summary_json(moves: &[MoveView]) -> Value {
    let of = |(name, n, median, p99, max): (&str, usize, Span, Span, Span)| {
        (name.to_owned(), json!({ "n": n, "median": median, "p99": p99, "max": max }))
    };
    let phases: serde_json::Map<String, Value> = phases(moves).into_iter().map(of).collect();
    json!({ "n": moves.len(), "phases": phases })
}

#[cfg(test)]
mod tests {
    use super::*;
    use evpn::node::view::{Handed, Place, Rows};
    use evpn::types::{Mac, Seq, Time, Vni};

    fn one(id: u64, sent: Option<u64>) -> MoveView {
        let peer = |n: u8| std::net::IpAddr::from([10, 255, 0, n]);
        let start = Time(1_000_000_000);
        MoveView {
            id,
            kind: MoveKind::Hot,
            vni: Vni::new(100).expect("valid"),
            mac: Mac([2, 0, 0, 0, 0, 1]),
            mac_before: None,
            ips: vec![std::net::IpAddr::from([192, 0, 2, 1])],
            role: "arrived".into(),
            cause: "frame".into(),
            from: Place::Vtep(peer(1)),
            to: Place::Port("p1".into()),
            seq_before: Seq(0),
            seq: Seq(1),
            silent: None,
            seen: start,
            decided: start + Span::micros(20),
            peers: sent
                .map(|us| Handed { peer: peer(1), at: start + Span::micros(us) })
                .into_iter()
                .collect(),
            sent: sent.map(|us| start + Span::micros(us)),
            acked: Some(start + Span::micros(300)),
            told: None,
        }
    }

    #[test]
    fn a_row_has_every_phase_from_the_first_sign_on() {
        let changed = MoveView {
            kind: MoveKind::ChangedMac,
            mac_before: Some(Mac([2, 0, 0, 0, 0, 9])),
            ..one(2, None)
        };
        let look = super::super::out::Look { color: false, width: None };
        let text = super::super::rows::render(
            &Rows::Moves(vec![MoveView { told: Some(Time(1_000_900_000)), ..one(1, Some(150)) }, changed]),
            look,
        );
        // How long ago depends on the clock.
        let lines: Vec<String> = text
            .lines()
            .map(|l| l.split("  ").map(str::trim).filter(|c| !c.is_empty()).collect::<Vec<_>>())
            .map(|mut c| {
                c.remove(13);
                c.join(" | ")
            })
            .collect();
        assert_eq!(
            lines,
            [
                "ID | VNI | MAC | KIND | ROLE | CAUSE | FROM | TO | SEQ | DECIDED | SENT | KERNEL | TOLD | IPS",
                "1 | 100 | 02:00:00:00:00:01 | hot | arrived | frame | 10.255.0.1 | p1 | 0→1 | 20.0 µs | 150.0 µs | 300.0 µs | 900.0 µs | 192.0.2.1",
                "2 | 100 | 02:00:00:00:00:01 | changed-mac | arrived | frame | 10.255.0.1 | p1 | 0→1 | 20.0 µs | - | 300.0 µs | - | 192.0.2.1 (was 02:00:00:00:00:09)",
            ]
        );
    }

    #[test]
    fn a_line_of_watch_names_each_peer_with_its_time() {
        assert_eq!(
            line(&one(1, Some(150))),
            "hot 02:00:00:00:00:01 arrived 10.255.0.1→p1 vni=100 seq=0→1 by frame ips=192.0.2.1 \
             decided +20.0 µs to 10.255.0.1 +150.0 µs kernel +300.0 µs"
        );
    }

    #[test]
    fn many_moves_amount_to_median_and_p99_of_each_phase() {
        let moves: Vec<MoveView> = (1..=200).map(|n| one(n, (n <= 100).then_some(n * 10))).collect();
        assert_eq!(
            summary(&moves),
            "200 moves; decided: n 200, median 20.0 µs, p99 20.0 µs, max 20.0 µs; \
             sent: n 100, median 500.0 µs, p99 990.0 µs, max 1000.0 µs; \
             kernel: n 200, median 300.0 µs, p99 300.0 µs, max 300.0 µs\n"
        );
        assert_eq!(summary_json(&moves)["phases"]["sent"]["p99"], 990_000);
        assert_eq!(summary(&[]), "");
    }
}
