//! Walks a parsed TOML document and collects every error instead of stopping at the first, as serde does.

pub(super) use super::problem::Place;
use super::problem::Problem;
use evpn::types::Span;
use std::net::IpAddr;
use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

/// Errors found so far.
#[derive(Debug, Default)]
pub(super) struct Collector {
    pub(super) problems: Vec<Problem>,
}

impl Collector {
    pub(super) fn push(&mut self, problem: Problem) {
        self.problems.push(problem);
    }

    /// A problem with a value that several use: told once.
    pub(super) fn push_once(&mut self, problem: Problem) {
        if !self.problems.contains(&problem) {
            self.problems.push(problem);
        }
    }
}

/// A value with its place.
pub(super) struct At<T> {
    pub(super) value: T,
    pub(super) place: Place,
}

/// One table of the document with the keys that it may have.
pub(super) struct Section<'d> {
    name: String,
    table: Option<&'d DeTable<'d>>,
    /// Where to point when a required key is missing.
    place: Place,
}

impl<'d> Section<'d> {
    /// A table, after complaining about keys that are not in `known`.
    pub(super) fn new(
        name: &str,
        table: &'d DeTable<'d>,
        place: Place,
        known: &[&str],
        c: &mut Collector,
    ) -> Self {
        for key in table.keys() {
            if !known.contains(&key.get_ref().as_ref()) {
                c.push(unknown(name, key, known));
            }
        }
        Self { name: name.to_owned(), table: Some(table), place }
    }

    /// A table that is not there; everything in it is absent.
    pub(super) fn absent(name: &str) -> Self {
        Self { name: name.to_owned(), table: None, place: 0..0 }
    }

    /// Whether the table is in the file.
    pub(super) fn present(&self) -> bool {
        self.table.is_some()
    }

    /// Full name of a key.
    pub(super) fn key(&self, key: &str) -> String {
        if self.name.is_empty() { key.to_owned() } else { format!("{}.{key}", self.name) }
    }

    /// The raw value.
    pub(super) fn get(&self, key: &str) -> Option<(&'d DeValue<'d>, Place)> {
        let (_, v) = self.table?.iter().find(|(k, _)| k.get_ref() == key)?;
        Some((v.get_ref(), v.span()))
    }

    /// Complains that a required key is missing.
    pub(super) fn missing(&self, key: &str, help: &str, c: &mut Collector) {
        let what = if self.present() { "missing" } else { "missing, and so is its section" };
        c.push(
            Problem::new(self.key(key), self.place.clone(), what)
                .label(format!("`{key}` is required here"))
                .help(help),
        );
    }

    /// A problem with the value of a key.
    pub(super) fn problem(&self, key: &str, place: Place, what: impl Into<String>) -> Problem {
        Problem::new(self.key(key), place, what)
    }

    fn wrong_type(&self, key: &str, want: &str, v: &DeValue<'_>, place: Place, c: &mut Collector) {
        c.push(self.problem(key, place, format!("expected {want}, found {}", kind(v))));
    }

    /// A string.
    pub(super) fn text(&self, key: &str, c: &mut Collector) -> Option<At<&'d str>> {
        let (v, place) = self.get(key)?;
        if let Some(value) = v.as_str() {
            return Some(At { value, place });
        }
        self.wrong_type(key, "a string", v, place, c);
        None
    }

    /// A boolean.
    pub(super) fn boolean(&self, key: &str, c: &mut Collector) -> Option<bool> {
        let (v, place) = self.get(key)?;
        let b = v.as_bool();
        if b.is_none() {
            self.wrong_type(key, "`true` or `false`", v, place, c);
        }
        b
    }

    /// An integer within `range`.
    pub(super) fn integer(
        &self,
        key: &str,
        range: std::ops::RangeInclusive<u64>,
        c: &mut Collector,
    ) -> Option<At<u64>> {
        let (v, place) = self.get(key)?;
        let Some(n) = v.as_integer() else {
            self.wrong_type(key, "an integer", v, place, c);
            return None;
        };
        match i128::from_str_radix(&n.as_str().replace('_', ""), n.radix()) {
            Ok(n) if n >= i128::from(*range.start()) && n <= i128::from(*range.end()) => {
                Some(At { value: n as u64, place })
            }
            _ => {
                let (low, high) = (range.start(), range.end());
                c.push(self.problem(key, place, format!("must be between {low} and {high}")).label(""));
                None
            }
        }
    }

    /// An IP address.
    pub(super) fn address(&self, key: &str, c: &mut Collector) -> Option<At<IpAddr>> {
        let At { value, place } = self.text(key, c)?;
        if let Ok(value) = value.parse::<IpAddr>() {
            Some(At { value, place })
        } else {
            let help = "write an IPv4 or IPv6 address without a prefix length, such as \"10.255.0.1\"";
            c.push(self.problem(key, place, "not an IP address").help(help));
            None
        }
    }

    /// A length of time: a number of seconds, or a string with a unit (`"500ms"`, `"5s"`, `"2m"`).
    pub(super) fn duration(&self, key: &str, max: Span, c: &mut Collector) -> Option<Span> {
        let (v, place) = self.get(key)?;
        let span = match v {
            DeValue::Integer(n) if n.radix() == 10 => {
                n.as_str().replace('_', "").parse().ok().and_then(|n: u64| n.checked_mul(1_000_000_000))
            }
            DeValue::String(s) => parse_duration(s),
            _ => None,
        };
        match span {
            Some(ns) if ns <= max.0 => Some(Span(ns)),
            _ => {
                let help =
                    "write seconds as a number, or a number with a unit: \"500ms\", \"5s\", \"2m\", \"24h\"";
                let what = format!("not a length of time up to {} seconds", max.0 / 1_000_000_000);
                c.push(self.problem(key, place, what).help(help));
                None
            }
        }
    }

    /// A list of strings.
    pub(super) fn texts(&self, key: &str, c: &mut Collector) -> Option<Vec<At<&'d str>>> {
        let (v, place) = self.get(key)?;
        let Some(list) = v.as_array() else {
            self.wrong_type(key, "a list of strings", v, place, c);
            return None;
        };
        let mut out = Vec::new();
        for item in list {
            match item.get_ref().as_str() {
                Some(value) => out.push(At { value, place: item.span() }),
                None => self.wrong_type(key, "a string in this list", item.get_ref(), item.span(), c),
            }
        }
        Some(out)
    }

    /// A sub-table.
    pub(super) fn section(&self, key: &str, known: &[&str], c: &mut Collector) -> Self {
        let name = self.key(key);
        match self.get(key) {
            None => Section::absent(&name),
            Some((v, place)) => {
                if let Some(t) = v.as_table() {
                    Section::new(&name, t, place, known, c)
                } else {
                    self.wrong_type(key, &format!("a table `[{name}]`"), v, place, c);
                    Section::absent(&name)
                }
            }
        }
    }

    /// The tables of a table, `[key.NAME]`, each with its name.
    pub(super) fn named_sections(&self, key: &str, known: &[&str], c: &mut Collector) -> Vec<(String, Self)> {
        let Some((v, place)) = self.get(key) else { return Vec::new() };
        let Some(table) = v.as_table() else {
            c.push(
                self.problem(key, place, format!("expected a table of tables, found {}", kind(v)))
                    .help(format!("write `[{key}.NAME]` with a name of your choice")),
            );
            return Vec::new();
        };
        let mut out = Vec::new();
        for (name, item) in table {
            let full = format!("{}.{}", self.key(key), name.get_ref());
            match item.get_ref().as_table() {
                Some(t) => {
                    let section = Section::new(&full, t, name.span(), known, c);
                    out.push((name.get_ref().to_string(), section));
                }
                None => c.push(
                    Problem::new(
                        full,
                        item.span(),
                        format!("expected a table, found {}", kind(item.get_ref())),
                    )
                    .help(format!("write `[{key}.NAME]` with a name of your choice")),
                ),
            }
        }
        out
    }

    /// An array of tables, `[[key]]`.
    pub(super) fn sections(&self, key: &str, known: &[&str], c: &mut Collector) -> Vec<Self> {
        let Some((v, place)) = self.get(key) else { return Vec::new() };
        let Some(list) = v.as_array() else {
            c.push(
                self.problem(key, place, format!("expected a list of tables, found {}", kind(v)))
                    .help(format!("write `[[{key}]]` with two brackets; it may occur many times")),
            );
            return Vec::new();
        };
        let mut out = Vec::new();
        for item in list {
            match item.get_ref().as_table() {
                Some(t) => out.push(Section::new(&self.key(key), t, item.span(), known, c)),
                None => self.wrong_type(key, "a table", item.get_ref(), item.span(), c),
            }
        }
        out
    }
}

/// A TOML value's sort, with its article.
pub(super) fn kind(v: &DeValue<'_>) -> &'static str {
    match v {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a float",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

fn unknown(section: &str, key: &Spanned<DeString<'_>>, known: &[&str]) -> Problem {
    let full =
        if section.is_empty() { key.get_ref().to_string() } else { format!("{section}.{}", key.get_ref()) };
    let p = Problem::new(full, key.span(), "unknown key");
    if let Some(near) = nearest(key.get_ref(), known) {
        p.label(format!("did you mean `{near}`?"))
    } else {
        let mut all = known.to_vec();
        all.sort_unstable();
        let list = all.iter().map(|k| format!("`{k}`")).collect::<Vec<_>>().join(", ");
        p.label("not a key of vtepd").help(format!("known here: {list}"))
    }
}

/// Nanoseconds of a length of time with a unit.
pub(crate) fn parse_duration(s: &str) -> Option<u64> {
    let digits = s.find(|c: char| !c.is_ascii_digit())?;
    let (n, unit) = s.split_at(digits);
    let scale = match unit.trim() {
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return None,
    };
    n.parse::<u64>().ok()?.checked_mul(scale)
}

/// The known word that `word` is most likely a misspelling of.
pub(crate) fn nearest<'k>(word: &str, known: &[&'k str]) -> Option<&'k str> {
    let limit = (word.chars().count() / 3).max(1);
    known
        .iter()
        .map(|k| (distance(&word.replace('_', "-").to_lowercase(), k), *k))
        .filter(|(d, _)| *d <= limit)
        .min()
        .map(|(_, k)| k)
}

/// Edit distance where swapping two neighbours counts once.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![(0..=b.len()).collect::<Vec<usize>>()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let cost = usize::from(a[i - 1] != b[j - 1]);
            let mut d = (rows[i - 1][j] + 1).min(row[j - 1] + 1).min(rows[i - 1][j - 1] + cost);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                d = d.min(rows[i - 2][j - 2] + 1);
            }
            row.push(d);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_key_finds_its_neighbour() {
        let known = ["address", "asn", "hold-time", "local-address"];
        assert_eq!(nearest("adress", &known), Some("address"));
        assert_eq!(nearest("hold_time", &known), Some("hold-time"));
        assert_eq!(nearest("ans", &known), Some("asn"));
        assert_eq!(nearest("password", &known), None);
    }

    #[test]
    fn durations_need_a_unit_that_is_known() {
        assert_eq!(parse_duration("500ms"), Some(500_000_000));
        assert_eq!(parse_duration("2m"), Some(120_000_000_000));
        for bad in ["", "5", "s", "-1s", "1d", "99999999999999999999s"] {
            assert_eq!(parse_duration(bad), None, "{bad}");
        }
    }
}
