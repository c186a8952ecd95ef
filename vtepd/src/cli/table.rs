//! Aligned tables that fit the terminal.

use super::out::{Color, Look};
use evpn::types::Span;

/// A column.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    head: &'static str,
    right: bool,
    flexible: bool,
}

/// A column of text.
pub const fn left(head: &'static str) -> Column {
    Column { head, right: false, flexible: false }
}
/// A column of numbers.
pub const fn right(head: &'static str) -> Column {
    Column { head, right: true, flexible: false }
}
/// A column of text that is cut short when the terminal is narrow.
pub const fn flexible(head: &'static str) -> Column {
    Column { head, right: false, flexible: true }
}

/// A cell.
#[derive(Clone, Debug)]
pub struct Cell {
    text: String,
    color: Color,
}

/// A cell of plain text; control characters, which would move the cursor, are made visible.
pub fn cell(value: impl ToString) -> Cell {
    colored(value, Color::Plain)
}

/// A cell in a colour.
pub fn colored(value: impl ToString, color: Color) -> Cell {
    let text = value.to_string();
    let text = if text.chars().any(char::is_control) { text.escape_debug().to_string() } else { text };
    Cell { text: if text.is_empty() { "-".into() } else { text }, color }
}

/// A cell that may be absent.
pub fn maybe(value: Option<impl ToString>) -> Cell {
    cell(value.map_or_else(|| "-".to_owned(), |v| v.to_string()))
}

/// A list in a cell.
pub fn list(values: &[impl ToString]) -> Cell {
    cell(values.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "))
}

const GAP: usize = 2;
/// A flexible column is not cut below this.
const LEAST: usize = 8;

/// Rows below their heads, one line each.
pub fn render(columns: &[Column], rows: &[Vec<Cell>], look: Look) -> String {
    let widths = widths(columns, rows, look.width);
    let mut out = String::new();
    let heads: Vec<Cell> = columns.iter().map(|c| colored(c.head, Color::Bold)).collect();
    for row in std::iter::once(&heads).chain(rows) {
        let mut line = String::new();
        let mut pending = 0;
        for ((cell, column), width) in row.iter().zip(columns).zip(&widths) {
            let text = cut(&cell.text, *width);
            let fill = width - text.chars().count();
            let (before, after) = if column.right { (fill, 0) } else { (0, fill) };
            line.push_str(&" ".repeat(pending + before));
            line.push_str(&cell.color.paint(&text, look.color));
            pending = after + GAP;
        }
        out.push_str(&line);
        out.push('\n');
    }
    out
}

fn widths(columns: &[Column], rows: &[Vec<Cell>], limit: Option<usize>) -> Vec<usize> {
    let mut widths: Vec<usize> = columns.iter().map(|c| c.head.chars().count()).collect();
    for row in rows {
        for (w, cell) in widths.iter_mut().zip(row) {
            *w = (*w).max(cell.text.chars().count());
        }
    }
    let Some(limit) = limit else { return widths };
    let gaps = GAP * columns.len().saturating_sub(1);
    // The widest flexible column gives way first, one character at a time; tables are short enough for that.
    while widths.iter().sum::<usize>() + gaps > limit {
        let widest = (0..columns.len())
            .filter(|i| columns[*i].flexible && widths[*i] > LEAST.max(columns[*i].head.chars().count()))
            .max_by_key(|i| widths[*i]);
        let Some(i) = widest else { break };
        widths[i] -= 1;
    }
    widths
}

fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let mut out: String = text.chars().take(width.saturating_sub(1)).collect();
    out.push('…');
    out
}

/// A length of time as a person says it.
pub fn span(s: Span) -> String {
    let secs = s.0 / 1_000_000_000;
    match secs {
        0 => s.to_string(),
        1..10 => format!("{:.1} s", s.as_secs_f64()),
        10..60 => format!("{secs} s"),
        60..3600 => format!("{}m {:02}s", secs / 60, secs % 60),
        3600..86_400 => format!("{}h {:02}m", secs / 3600, secs / 60 % 60),
        _ => format!("{}d {:02}h", secs / 86_400, secs / 3600 % 24),
    }
}

/// Time of day (UTC) of milliseconds since 1970.
pub fn time_of_day(unix_ms: u64) -> String {
    let (s, ms) = (unix_ms / 1000 % 86_400, unix_ms % 1000);
    format!("{:02}:{:02}:{:02}.{ms:03}Z", s / 3600, s / 60 % 60, s % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Look = Look { color: false, width: None };

    #[test]
    fn columns_line_up_and_numbers_are_right_aligned() {
        let rows = vec![vec![cell("a"), cell(5), cell("x")], vec![cell("long"), cell(12345), cell("")]];
        let out = render(&[left("NAME"), right("N"), flexible("NOTE")], &rows, PLAIN);
        assert_eq!(out, "NAME      N  NOTE\na         5  x\nlong  12345  -\n");
    }

    #[test]
    fn a_narrow_terminal_cuts_flexible_columns_only() {
        let rows = vec![vec![cell("52:54:00:00:00:01"), cell("a very long text that does not fit")]];
        let out = render(&[left("MAC"), flexible("NOTE")], &rows, Look { width: Some(30), ..PLAIN });
        assert!(out.contains("52:54:00:00:00:01  a very lon…"), "{out}");
        assert!(out.lines().all(|l| l.chars().count() <= 30), "{out}");
    }

    #[test]
    fn control_characters_cannot_reach_the_terminal() {
        let out = render(&[left("X")], &[vec![cell("a\x1b[2Jb\n")]], PLAIN);
        assert!(!out.contains('\x1b') && out.lines().count() == 2, "{out:?}");
    }

    #[test]
    fn lengths_of_time_are_readable() {
        let shown: Vec<String> = [
            Span(900),
            Span::millis(3),
            Span::millis(2500),
            Span::secs(12),
            Span::secs(192),
            Span::secs(7500),
            Span::secs(100_000),
        ]
        .into_iter()
        .map(span)
        .collect();
        assert_eq!(shown, ["900 ns", "3000.0 µs", "2.5 s", "12 s", "3m 12s", "2h 05m", "1d 03h"]);
        assert_eq!(time_of_day(86_400_000 + 3_723_004), "01:02:03.004Z");
    }
}
