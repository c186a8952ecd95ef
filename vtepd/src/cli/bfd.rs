//! `vtepd show bfd`.

use super::out::{Color, Look};
use super::table::{Cell, Column, cell, colored, flexible, left, maybe, render as table, right, span};
use crate::driver::bfd::{BfdRow, BfdTable};
use evpn::bfd::State;
use std::fmt::Write as _;

const COLUMNS: [Column; 10] = [
    left("NEIGHBOR"),
    left("HOPS"),
    left("STATE"),
    right("FOR"),
    left("PEER"),
    right("INTERVAL"),
    right("DETECTION"),
    right("LONGEST GAP"),
    right("FAILURES"),
    flexible("LAST REASON"),
];

/// The table, and what was discarded.
pub(super) fn render(t: &BfdTable, look: Look) -> String {
    if t.rows.is_empty() {
        return "no BFD sessions; `bfd = true` in a `[[neighbor]]` of the configuration asks for one\n"
            .into();
    }
    let cells: Vec<_> = t.rows.iter().map(row).collect();
    let mut text = table(&COLUMNS, &cells, look);
    if !t.dropped.is_empty() {
        let all: Vec<String> = t.dropped.iter().map(|(why, n)| format!("{why} {n}")).collect();
        let _ = writeln!(text, "packets dropped: {}", all.join(", "));
    }
    text
}

fn row(r: &BfdRow) -> Vec<Cell> {
    let state = match r.state {
        State::Up => colored(r.state.as_str(), Color::Green),
        State::Down => colored(r.state.as_str(), Color::Red),
        State::Init | State::AdminDown => cell(r.state.as_str()),
    };
    let reason = match (&r.error, &r.diag) {
        (Some(e), _) => colored(e, Color::Red),
        (None, Some(d)) => cell(d.as_str()),
        (None, None) => maybe(None::<String>),
    };
    let peer = match &r.remote_diag {
        Some(d) if r.state != State::Up => format!("{} ({d})", r.remote_state),
        Some(_) | None => r.remote_state.to_string(),
    };
    vec![
        cell(r.neighbor.to_string()),
        cell(if r.multihop { "many" } else { "one" }),
        state,
        cell(span(r.since)),
        cell(peer),
        maybe(r.interval.map(|i| format!("{:.0} ms", i.as_millis_f64()))),
        cell(format!("{:.0} ms", r.detection_time.as_millis_f64())),
        cell(format!("{:.1} ms", r.longest_gap.as_millis_f64())),
        cell(r.failures.to_string()),
        reason,
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use evpn::types::Span;

    #[test]
    fn sessions_show_their_pace_and_why_they_are_down() {
        let up = BfdRow {
            neighbor: [10, 0, 0, 2].into(),
            local: None,
            multihop: false,
            state: State::Up,
            diag: None,
            remote_state: State::Up,
            remote_diag: Some("control detection time expired".into()),
            since: Span::secs(5),
            discriminator: 1,
            remote_discriminator: 2,
            interval: Some(Span::millis(50)),
            detection_time: Span::millis(150),
            multiplier: 3,
            sent: 10,
            received: 11,
            ups: 1,
            failures: 0,
            longest_gap: Span::micros(51_234),
            error: None,
        };
        let down = BfdRow {
            state: State::Down,
            multihop: true,
            diag: Some("neighbor signaled session down".into()),
            interval: None,
            ..up.clone()
        };
        let deaf = BfdRow { error: Some("cannot send: no route".into()), ..down.clone() };
        let dropped = [("ttl".to_owned(), 3)].into();
        let text =
            render(&BfdTable { rows: vec![up, down, deaf], dropped }, Look { color: false, width: None });
        let lines: Vec<&str> = text.lines().collect();
        for want in ["one", "up", "50 ms", "150 ms", "51.2 ms"] {
            assert!(lines[1].contains(want), "{want}: {}", lines[1]);
        }
        assert!(!lines[1].contains("expired"), "what is over is not told: {}", lines[1]);
        for want in ["many", "down", "up (control detection time expired)", "neighbor signaled session down"]
        {
            assert!(lines[2].contains(want), "{want}: {}", lines[2]);
        }
        assert!(lines[3].ends_with("cannot send: no route"), "{}", lines[3]);
        assert_eq!(lines[4], "packets dropped: ttl 3");
        assert!(render(&BfdTable::default(), Look { color: false, width: None }).contains("bfd = true"));
    }
}
