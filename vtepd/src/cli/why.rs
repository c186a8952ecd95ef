//! `vtepd why`: the answer in sentences, then the tables that it rests on.

use super::client::Client;
use super::out::Look;
use super::table::{Cell, Column, cell, colored, flexible, left, maybe, render as table, right};
use super::{Failure, OK, WhyAbout, WhyArgs, moves, out, out::Color, rows};
use evpn::node::view::{CandidateView, WhyView};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fmt::Write as _;

pub(super) async fn why(args: WhyArgs) -> Result<u8, Failure> {
    let (kind, table, vni, address, json, target) = match args.about {
        WhyAbout::Mac(a) => ("mac", "macs", a.vni, a.address.to_string(), a.json, a.target),
        WhyAbout::Ip(a) => ("ip", "hosts", a.vni, a.address.to_string(), a.json, a.target),
    };
    let client = Client::new(&target.socket);
    let vni = if let Some(vni) = vni {
        vni.get()
    } else {
        let has_it = client.get(&format!("/v1/{table}?{kind}={address}")).await?;
        let all = client.get("/v1/vnis").await?;
        the_one(&address, &vnis(&has_it), &vnis(&all)).map_err(Failure::Other)?
    };
    let answer = client.get(&format!("/v1/why/{kind}/{vni}/{address}")).await?;
    if json {
        out::print(&format!("{answer:#}\n"))?;
        return Ok(OK);
    }
    let view: WhyView = serde_json::from_value(answer)
        .map_err(|e| Failure::Other(format!("the daemon is of another version than this program: {e}")))?;
    out::print(&render(&view, Look::of_stdout()))?;
    Ok(OK)
}

/// The VNIs in the first rows of a list.
fn vnis(page: &Value) -> BTreeSet<u32> {
    let rows = page["rows"]["rows"].as_array().map(Vec::as_slice).unwrap_or_default();
    rows.iter().filter_map(|r| u32::try_from(r["vni"].as_u64()?).ok()).collect()
}

/// The VNI that is meant when none is named: the only one that has the address, or the only one that there is.
fn the_one(address: &str, has_it: &BTreeSet<u32>, all: &BTreeSet<u32>) -> Result<u32, String> {
    match (has_it.first(), all.first()) {
        (Some(one), _) if has_it.len() == 1 => Ok(*one),
        (None, Some(one)) if all.len() == 1 => Ok(*one),
        (Some(one), _) => {
            let list: Vec<String> = has_it.iter().map(u32::to_string).collect();
            Err(format!("{address} is in the VNIs {}: name one, such as `{one} {address}`", list.join(", ")))
        }
        (None, _) => Err(format!("no VNI has {address} now: name one, to see who had it there")),
    }
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
    fn the_vni_may_be_left_out_where_there_is_no_doubt() {
        let page = |of: &[u32]| {
            let rows: Vec<Value> = of.iter().map(|v| serde_json::json!({ "vni": v })).collect();
            vnis(&serde_json::json!({ "rows": { "table": "macs", "rows": rows } }))
        };
        let one = |has: &[u32], all: &[u32]| the_one("10.1.0.1", &page(has), &page(all));
        assert_eq!(one(&[200, 200], &[100, 200]), Ok(200));
        assert_eq!(one(&[], &[100]), Ok(100), "its history may be known");
        assert!(
            one(&[100, 200], &[100, 200, 300])
                .is_err_and(|e| e.contains("100, 200") && e.contains("`100 10.1.0.1`"))
        );
        assert!(one(&[], &[100, 200]).is_err_and(|e| e.contains("no VNI has")));
        assert!(one(&[], &[]).is_err());
        assert_eq!(vnis(&Value::Null), BTreeSet::new());
    }

    #[test]
    fn a_device_name_cannot_move_the_cursor() {
        assert_eq!(wrap("port a\u{1b}[2J", 80), "port a?[2J\n");
    }
}
