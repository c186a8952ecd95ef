//! Records as a picture: a lane per VTEP, time from left to right.

use super::Story;
use evpn::node::view::{MoveKind, MoveView};
use evpn::types::{Span, Time};
use std::fmt::Write as _;
use std::net::IpAddr;

/// An SVG file.
#[derive(Clone, Debug)]
pub struct Picture {
    /// Its name.
    pub file: String,
    /// Its text.
    pub text: String,
}

const WIDTH: f64 = 960.0;
const LEFT: f64 = 150.0;
const RIGHT: f64 = 30.0;
const TOP: f64 = 64.0;
const LANE: f64 = 92.0;
const NAMES: [&str; 3] = ["source", "target", "looks on"];

const STYLE: &str = "text{font:13px system-ui,sans-serif;fill:#1f2328}.t{font-size:15px;font-weight:600}.s{font-size:11.5px;fill:#59636e}\
.bg{fill:#fff}.lane{stroke:#d1d9e0}.bar{stroke:#afb8c1;stroke-width:5;stroke-linecap:round}.way{stroke:#1a7f37;fill:none;stroke-width:1.4}\
.gone{stroke:#9a6700;stroke-dasharray:4 3}.sign{fill:#0969da}.dec{fill:#bf8700}.sent{fill:#1a7f37}.row{fill:#8250df}.out{fill:#cf222e}\
@media(prefers-color-scheme:dark){text{fill:#e6edf3}.s{fill:#9198a1}.bg{fill:#0d1117}.lane{stroke:#3d444d}.bar{stroke:#59636e}\
.way{stroke:#3fb950}.gone{stroke:#d29922}.sign{fill:#4493f8}.dec{fill:#d29922}.sent{fill:#3fb950}.row{fill:#ab7df8}.out{fill:#f85149}}";

struct Scale {
    from: Time,
    per_ns: f64,
}

impl Scale {
    fn x(&self, t: Time) -> f64 {
        LEFT + t.since(self.from).0 as f64 * self.per_ns
    }
}

fn lane_y(lane: usize) -> f64 {
    TOP + 30.0 + lane as f64 * LANE
}

/// The lane of a VTEP of the fabric (10.0.0.n).
fn lane_of(peer: IpAddr) -> Option<usize> {
    match peer {
        IpAddr::V4(a) => usize::from(a.octets()[3]).checked_sub(1).filter(|l| *l < NAMES.len()),
        IpAddr::V6(_) => None,
    }
}

/// Draws a story.
pub fn draw(story: &Story) -> Picture {
    let ends = story.records.iter().map(|(_, m)| m.seen + m.took());
    let marks = || story.marks.iter().map(|m| m.at);
    let from =
        story.records.iter().map(|(_, m)| m.seen).chain(marks()).min_by_key(|t| t.0).unwrap_or_default();
    let until = ends.chain(marks()).max_by_key(|t| t.0).unwrap_or_default();
    let total = until.since(from).0.max(1);
    let scale = Scale { from, per_ns: (WIDTH - LEFT - RIGHT) / (total as f64 * 1.04) };
    let height = TOP + LANE * NAMES.len() as f64 + 64.0;
    let mut out = String::new();
    let _ = write!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{}\">\n\
         <style>{STYLE}</style>\n<rect class=\"bg\" width=\"{WIDTH}\" height=\"{height}\" rx=\"6\"/>\n\
         <text class=\"t\" x=\"16\" y=\"26\">{}</text>\n",
        escape(story.title),
        escape(story.title)
    );
    legend(&mut out);
    axis(&mut out, &scale, total, height);
    for (lane, name) in NAMES.iter().enumerate() {
        let y = lane_y(lane);
        let _ = writeln!(
            out,
            "<line class=\"lane\" x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{y}\" y2=\"{y}\"/><text x=\"16\" y=\"{:.1}\">VTEP {}</text>\
             <text class=\"s\" x=\"16\" y=\"{:.1}\">{name}</text>",
            WIDTH - RIGHT,
            y - 2.0,
            lane + 1,
            y + 14.0
        );
        let here: Vec<&MoveView> = story.records.iter().filter(|(l, _)| *l == lane).map(|(_, m)| m).collect();
        let _ = writeln!(
            out,
            "<text class=\"s\" x=\"{LEFT}\" y=\"{:.1}\">{}</text>",
            y + 30.0,
            escape(&words(&here, from))
        );
    }
    // Ways below the points.
    for (lane, m) in &story.records {
        ways(&mut out, &scale, *lane, m, story);
    }
    for (lane, m) in &story.records {
        points(&mut out, &scale, *lane, m);
    }
    for m in &story.marks {
        let (x, y) = (scale.x(m.at), lane_y(m.lane));
        let _ = writeln!(
            out,
            "<path class=\"out\" d=\"M{x:.1} {:.1}l5 -9h-10z\"/><text class=\"s\" x=\"{:.1}\" y=\"{:.1}\"{}>{}</text>",
            y - 8.0,
            x,
            y - 20.0,
            if x > WIDTH - 150.0 { " text-anchor=\"end\"" } else { "" },
            escape(&m.text)
        );
    }
    out.push_str("</svg>\n");
    Picture { file: format!("{}.svg", story.name), text: out }
}

fn legend(out: &mut String) {
    let y = 44.0;
    let items = [
        ("out", "frame sent"),
        ("sign", "first sign"),
        ("dec", "decided"),
        ("sent", "in a peer's socket"),
        ("row", "kernel has the row"),
    ];
    let mut x = 20.0;
    for (class, text) in items {
        let _ = write!(
            out,
            "<circle class=\"{class}\" cx=\"{x:.1}\" cy=\"{:.1}\" r=\"4\"/><text class=\"s\" x=\"{:.1}\" y=\"{y}\">{text}</text>",
            y - 4.0,
            x + 8.0
        );
        x += 40.0 + 6.2 * text.chars().count() as f64;
    }
    out.push('\n');
}

/// Ticks at round times.
fn axis(out: &mut String, scale: &Scale, total: u64, height: f64) {
    let mut step = 1_000u64;
    while total / step > 8 {
        let digits = step.ilog10();
        let leading = step / 10u64.pow(digits);
        step = if leading == 2 { 5 * 10u64.pow(digits) } else { step * 2 };
    }
    let y = height - 38.0;
    let mut t = 0;
    while t <= total {
        let x = scale.x(scale.from + Span(t));
        let _ = write!(
            out,
            "<line class=\"lane\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{TOP}\" y2=\"{y}\" opacity=\".5\"/>\
             <text class=\"s\" x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            y + 16.0,
            plain(Span(t))
        );
        t += step;
    }
    out.push('\n');
}

fn points(out: &mut String, scale: &Scale, lane: usize, m: &MoveView) {
    let y = lane_y(lane);
    let end = scale.x(m.seen + m.took());
    let _ = write!(
        out,
        "<line class=\"bar\" x1=\"{:.1}\" x2=\"{end:.1}\" y1=\"{y}\" y2=\"{y}\"/>",
        scale.x(m.seen)
    );
    let mut dot = |class: &str, t: Time, dy: f64| {
        let _ = write!(
            out,
            "<circle class=\"{class}\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"4.5\"/>",
            scale.x(t),
            y + dy
        );
    };
    // Points that would hide each other lie a little above and below the line.
    dot("sign", m.seen, -3.0);
    dot("dec", m.decided, 3.0);
    m.peers.iter().for_each(|h| dot("sent", h.at, -3.0));
    if let Some(t) = m.acked {
        dot("row", t, 3.0);
    }
    out.push('\n');
}

/// From a socket to where the UPDATE was received; a withdrawal of the loser ends at the lane's height only.
fn ways(out: &mut String, scale: &Scale, lane: usize, m: &MoveView, story: &Story) {
    for h in &m.peers {
        let Some(to) = lane_of(h.peer) else { continue };
        let heard = story.records.iter().filter(|(l, r)| *l == to && r.seq == m.seq && r.cause == "bgp");
        let seen = heard.map(|(_, r)| r.seen).find(|_| m.role == "arrived");
        let (x1, y1, y2) = (scale.x(h.at), lane_y(lane), lane_y(to));
        let (class, x2) = match seen {
            Some(t) => ("way", scale.x(t)),
            None => ("way gone", x1 + 14.0),
        };
        let y2 = if seen.is_some() { y2 } else { y1 + (y2 - y1).signum() * 26.0 };
        let _ = writeln!(out, "<path class=\"{class}\" d=\"M{x1:.1} {y1:.1}L{x2:.1} {y2:.1}\"/>");
    }
}

/// The line below a lane.
fn words(records: &[&MoveView], from: Time) -> String {
    let at = |t: Time| plain(t.since(from));
    let [m] = records else {
        let seqs: Vec<String> = records.iter().map(|m| format!("{}→{}", m.seq_before, m.seq)).collect();
        return format!("{} records, sequences {}", records.len(), seqs.join(", "));
    };
    let mut out = format!("{} {}: first sign ({}) {}", m.kind, m.role, m.cause, at(m.seen));
    let _ = write!(out, ", decided {}", at(m.decided));
    if let Some(t) = m.sent {
        let what = match (&*m.role, m.kind) {
            ("left", MoveKind::Hot | MoveKind::Warm) => "withdrawn at all peers",
            _ => "in all peers' sockets",
        };
        let _ = write!(out, ", {what} {}", at(t));
    }
    if let Some(t) = m.acked {
        let _ = write!(out, ", kernel {}", at(t));
    }
    let _ = write!(out, "; sequence {}→{}", m.seq_before, m.seq);
    if let Some(s) = m.silent.filter(|_| m.kind == MoveKind::Warm) {
        let _ = write!(out, ", silent for {} s", s.0 / 1_000_000_000);
    }
    out
}

/// A time without needless digits.
fn plain(s: Span) -> String {
    match s.0 {
        0 => "0".into(),
        n if n < 1_000_000 => format!("{} µs", n / 1000),
        n if n < 10_000_000 => format!("{:.2} ms", s.as_millis_f64()),
        n => format!("{} ms", n / 1_000_000),
    }
}

fn escape(s: &str) -> String {
    s.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::timelines::Mark;
    use evpn::node::view::{Handed, Place};
    use evpn::types::{Mac, Seq, Vni};

    fn record(role: &'static str, seen: u64, peers: &[(u8, u64)]) -> MoveView {
        let handed = |(n, at): &(u8, u64)| Handed { peer: IpAddr::from([10, 0, 0, *n]), at: Time(*at) };
        MoveView {
            id: 1,
            kind: MoveKind::Hot,
            vni: Vni::new(100).expect("valid"),
            mac: Mac([2, 0, 0, 0, 0, 1]),
            mac_before: None,
            ips: Vec::new(),
            role: role.into(),
            cause: if role == "arrived" { "frame" } else { "bgp" }.into(),
            from: Place::None,
            to: Place::Port("<p1>".into()),
            seq_before: Seq(0),
            seq: Seq(1),
            silent: None,
            seen: Time(seen),
            decided: Time(seen + 1_000),
            peers: peers.iter().map(handed).collect(),
            sent: peers.last().map(|(_, at)| Time(*at)),
            acked: Some(Time(seen + 90_000)),
            told: None,
        }
    }

    #[test]
    fn a_picture_has_a_lane_per_vtep_and_a_way_per_update() {
        let story = Story {
            name: "move-x",
            title: "a <b> & \"c\"",
            records: vec![
                (1, record("arrived", 1_000, &[(1, 50_000), (3, 60_000)])),
                (0, record("left", 130_000, &[(2, 300_000)])),
                (2, record("remote", 140_000, &[])),
            ],
            marks: vec![Mark { lane: 1, at: Time(0), text: "RARP".into() }],
        };
        let p = draw(&story);
        assert_eq!(p.file, "move-x.svg");
        assert_eq!(p.text.matches("class=\"way\"").count(), 2, "{}", p.text);
        assert_eq!(p.text.matches("class=\"way gone\"").count(), 1);
        assert_eq!(p.text.matches("class=\"bar\"").count(), 3);
        assert!(p.text.contains("a &lt;b&gt; &amp; &quot;c&quot;"));
        let line = "hot arrived: first sign (frame) 1 µs, decided 2 µs, in all peers' sockets 60 µs, kernel 91 µs; \
                    sequence 0→1";
        assert!(p.text.contains(line), "{}", p.text);
        assert!(!p.text.contains("NaN") && !p.text.contains("inf"));
        assert_eq!(p.text.matches('<').count(), p.text.matches('>').count());
    }

    #[test]
    fn ticks_are_round_and_few() {
        for total in [1, 900, 5_000, 77_777, 1_000_000, 50_000_000, 3_000_000_000] {
            let mut out = String::new();
            let scale = Scale { from: Time(0), per_ns: 1.0 };
            axis(&mut out, &scale, total, 300.0);
            let n = out.matches("<line").count();
            assert!((1..=9).contains(&n), "{total}: {n}");
        }
    }
}
