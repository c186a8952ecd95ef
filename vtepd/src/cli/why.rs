//! `vtepd why`: the answer in sentences, then the tables that it rests on.

use super::client::Client;
use super::out::Look;
use super::table::{Cell, Column, cell, colored, flexible, left, maybe, render as table, right};
use super::{Failure, OK, WhyAbout, WhyArgs, moves, out, out::Color, rows};
use evpn::node::view::{CandidateView, WhyView};
use std::fmt::Write as _;

pub(super) async fn why(args: WhyArgs) -> Result<u8, Failure> {
    let (path, json, target) = match args.about {
        WhyAbout::Mac(a) => (format!("/v1/why/mac/{}/{}", a.vni, a.address), a.json, a.target),
        WhyAbout::Ip(a) => (format!("/v1/why/ip/{}/{}", a.vni, a.address), a.json, a.target),
    };
    let answer = Client::new(&target.socket).get(&path).await?;
    if json {
        out::print(&format!("{answer:#}\n"))?;
        return Ok(OK);
    }
    let view: WhyView = serde_json::from_value(answer)
        .map_err(|e| Failure::Other(format!("the daemon is of another version than this program: {e}")))?;
    out::print(&render(&view, Look::of_stdout()))?;
    Ok(OK)
}

const CANDIDATES: [Column; 8] = [
    left(" "),
    left("CLAIM"),
    left("FROM"),
    left("MAC"),
    left("IP"),
    right("SEQ"),
    left("FLAGS"),
    flexible("LOSES-BY"),
];

fn candidate(c: &CandidateView) -> Vec<Cell> {
    let flags: Vec<&str> = [(c.sticky, "sticky"), (c.gateway, "gateway"), (c.stale, "stale")]
        .into_iter()
        .filter_map(|(on, name)| on.then_some(name))
        .collect();
    vec![
        if c.wins { colored("*", Color::Green) } else { cell(" ") },
        cell(&c.place),
        cell(c.from.map_or_else(|| "local".to_owned(), |a| a.to_string())),
        cell(c.mac),
        maybe(c.ip),
        cell(c.seq),
        cell(flags.join(" ")),
        maybe(c.lost_by.as_ref().map(|r| r.text.clone())),
    ]
}

fn render(v: &WhyView, look: Look) -> String {
    let mut out = String::new();
    let width = look.width.unwrap_or(100).clamp(40, 100);
    out.push_str(&wrap(&v.because.join(" "), width));
    let mut section = |title: &str, body: String| {
        let _ = write!(out, "\n{}\n{body}", Color::Bold.paint(title, look.color));
    };
    if !v.candidates.is_empty() {
        let cells: Vec<_> = v.candidates.iter().map(candidate).collect();
        section("Claims", table(&CANDIDATES, &cells, look));
    }
    if !v.history.is_empty() {
        section("Last moves", rows::print(&moves::COLUMNS, &v.history, moves::row, look, ""));
    }
    if !v.kernel.is_empty() {
        section("Kernel", rows::print(&rows::KERNEL, &v.kernel, rows::kernel, look, ""));
    }
    out
}

/// Text in lines of at most `width` characters.
fn wrap(text: &str, width: usize) -> String {
    let mut out = String::new();
    let mut used = 0;
    for word in text.split_whitespace() {
        let len = word.chars().count();
        if used > 0 && used + 1 + len > width {
            out.push('\n');
            used = 0;
        } else if used > 0 {
            out.push(' ');
            used += 1;
        }
        // What came from elsewhere cannot move the cursor.
        out.extend(word.chars().map(|c| if c.is_control() { '?' } else { c }));
        used += len;
    }
    out.push('\n');
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use evpn::node::view::{KernelView, Place, RuleView, VERSION};
    use evpn::types::{Mac, Seq, Span, Vni};
    use std::net::IpAddr;

    fn view() -> WhyView {
        let mac = Mac([2, 0, 0, 0, 0, 1]);
        let vtep = |n: u8| IpAddr::from([10, 0, 0, n]);
        let claim = |n: u8, seq, wins, lost_by: Option<&str>| CandidateView {
            place: Place::Vtep(vtep(n)),
            from: Some(vtep(n)),
            mac,
            ip: None,
            seq: Seq(seq),
            sticky: false,
            gateway: false,
            stale: false,
            wins,
            lost_by: lost_by.map(|t| RuleView { name: "higher-sequence".into(), text: t.into() }),
        };
        WhyView {
            version: VERSION,
            vni: Vni::new(100).expect("valid"),
            mac: Some(mac),
            ip: None,
            owner: Place::Vtep(vtep(2)),
            since: Some(Span::secs(3)),
            seq: Some(Seq(3)),
            moves: 1,
            rule: None,
            because: vec!["It is there.".into(), "It is there because of a rule.".into()],
            candidates: vec![
                claim(2, 3, true, None),
                claim(1, 2, false, Some("higher sequence: 3 against 2")),
            ],
            binding: None,
            host_side: None,
            ips: Vec::new(),
            lost: None,
            memory: None,
            history: Vec::new(),
            kernel: vec![KernelView {
                device: "br100".into(),
                kind: "mac".into(),
                key: mac.to_string(),
                want: "vx100 to 10.0.0.2".into(),
                has: None,
                stale: false,
                wanted: true,
            }],
        }
    }

    #[test]
    fn the_answer_comes_first_and_then_what_it_rests_on() {
        let text = render(&view(), Look { color: false, width: Some(40) });
        let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
        assert_eq!(lines[..5], ["It is there. It is there because of a", "rule.", "", "Claims", lines[4]]);
        let text = render(&view(), Look { color: false, width: None });
        assert!(text.contains("\n*  10.0.0.2  10.0.0.2  02:00:00:00:00:01  -     3  -      -\n"), "{text}");
        assert!(text.contains("higher sequence: 3 against 2"), "{text}");
        assert!(text.contains("vx100 to 10.0.0.2  -          missing"), "{text}");
    }

    #[test]
    fn a_device_name_cannot_move_the_cursor() {
        assert_eq!(wrap("port a\u{1b}[2J", 80), "port a?[2J\n");
    }
}
