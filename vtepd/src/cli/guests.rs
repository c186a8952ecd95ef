//! `vtepd show hypervisors`.

use super::out::{Color, Look};
use super::table::{Cell, Column, cell, colored, flexible, left, list, maybe, render as table, right, span};
use crate::driver::clock;
use crate::hypervisor::board::{GuestRow, NicRow};

const GUESTS: [Column; 7] = [
    left("GUEST"),
    left("STATE"),
    right("FOR"),
    left("CONNECTED"),
    left("EVENTS"),
    flexible("NICS"),
    flexible("SOURCE"),
];

/// The table.
pub(super) fn render(rows: &[GuestRow], look: Look) -> String {
    if rows.is_empty() {
        return "no guests; `[[qmp]]` and `[libvirt]` in the configuration say where to look for them\n"
            .into();
    }
    let cells: Vec<_> = rows.iter().map(guest).collect();
    table(&GUESTS, &cells, look)
}

fn guest(g: &GuestRow) -> Vec<Cell> {
    let state = match g.state.as_str() {
        "split-brain" => colored(&g.state, Color::Red),
        "running" => colored(&g.state, Color::Green),
        other => cell(other),
    };
    let connected = match &g.error {
        None => cell(if g.connected { "yes" } else { "no" }),
        Some(_) => colored("no", Color::Red),
    };
    let nic = |n: &NicRow| {
        let port = n.port.as_deref().unwrap_or("-");
        let state = n.state.as_deref().map_or_else(String::new, |s| format!(" ({s})"));
        format!("{}@{port}{state}", n.mac)
    };
    let nics: Vec<String> = g.nics.iter().map(nic).collect();
    let source = g.error.as_ref().map_or_else(|| g.source.clone(), |e| format!("{}: {e}", g.source));
    vec![
        maybe(g.guest.clone()),
        state,
        cell(span(clock::now().since(g.since))),
        connected,
        maybe(g.migration_events.map(|e| if e { "yes" } else { "no" })),
        list(&nics),
        cell(source),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guests_show_their_nics_and_what_is_wrong() {
        let row = GuestRow {
            source: "/run/qemu/a.sock".into(),
            guest: Some("vm1".into()),
            connected: true,
            state: "arriving".into(),
            since: clock::now(),
            migration_events: Some(true),
            nics: vec![NicRow {
                id: "nic0".into(),
                mac: "52:54:00:aa:00:01".parse().expect("a MAC"),
                port: Some("tap0".into()),
                state: Some("prepared".into()),
            }],
            ..GuestRow::default()
        };
        let broken = GuestRow {
            source: "/run/qemu/b.sock".into(),
            error: Some("not JSON: `x`".into()),
            state: "unknown".into(),
            since: clock::now(),
            ..GuestRow::default()
        };
        let text = render(&[row, broken], Look { color: false, width: None });
        let fields: Vec<Vec<&str>> = text
            .lines()
            .skip(1)
            .map(|l| l.split("  ").map(str::trim).filter(|f| !f.is_empty()).collect())
            .collect();
        assert_eq!(fields[0][..2], ["vm1", "arriving"]);
        assert_eq!(fields[0][3..], ["yes", "yes", "52:54:00:aa:00:01@tap0 (prepared)", "/run/qemu/a.sock"]);
        assert_eq!(fields[1].last(), Some(&"/run/qemu/b.sock: not JSON: `x`"));
        assert!(render(&[], Look { color: false, width: None }).contains("[[qmp]]"));
    }
}
