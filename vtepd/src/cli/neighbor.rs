//! `vtepd neighbor NAME …`, and `vtepd show neighbors NAME`.

use super::client::{Client, ClientError};
use super::out::{Color, Look};
use super::table::{Cell, Column, cell, colored, flexible, left, render as table, right, span};
use super::{Failure, OK, Target, out};
use clap::{Args, Subcommand};
use evpn::node::view::{EventView, Happened, MessageView, NeighborDetail, OpenView};
use serde_json::{Value, json};
use std::fmt::Write as _;

#[derive(Args, Debug)]
pub(super) struct NeighborArgs {
    /// Its address, or its description
    name: String,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// End the session and try nothing until `start`
    Shutdown(Text),
    /// End a shutdown, or the wait before the next attempt
    Start(Bare),
    /// End the session and begin a new one at once
    Reset(Text),
    /// Exchange all routes again without ending the session
    Refresh(Ways),
}

#[derive(Args, Debug)]
struct Text {
    /// Told to the other side (RFC 9003), at most 128 octets
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    message: String,
    #[command(flatten)]
    target: Target,
}

#[derive(Args, Debug)]
struct Bare {
    #[command(flatten)]
    target: Target,
}

#[derive(Args, Debug)]
struct Ways {
    /// Only ask for its routes
    #[arg(long = "in", conflicts_with = "outbound")]
    inbound: bool,
    /// Only send ours
    #[arg(long = "out")]
    outbound: bool,
    #[command(flatten)]
    target: Target,
}

/// The path of a neighbour; a description may have any character.
fn path(name: &str) -> String {
    let mut path = "/v1/neighbors/".to_owned();
    for b in name.bytes() {
        if b.is_ascii_alphanumeric() || b"-._~:".contains(&b) {
            path.push(b as char);
        } else {
            let _ = write!(path, "%{b:02X}");
        }
    }
    path
}

pub(super) async fn neighbor(args: NeighborArgs) -> Result<u8, Failure> {
    let (body, target) = match args.action {
        Action::Shutdown(t) => (json!({ "action": "shutdown", "message": t.message }), t.target),
        Action::Start(t) => (json!({ "action": "start" }), t.target),
        Action::Reset(t) => (json!({ "action": "reset", "message": t.message }), t.target),
        Action::Refresh(w) => {
            let both = !w.inbound && !w.outbound;
            (json!({ "action": "refresh", "in": both || w.inbound, "out": both || w.outbound }), w.target)
        }
    };
    let (status, value) = Client::new(&target.socket).post(&path(&args.name), &body).await?;
    if !status.is_success() {
        let text = value["error"].as_str().unwrap_or("no reason given").to_owned();
        return Err(ClientError::Refused { status: status.as_u16(), text }.into());
    }
    let of = |key: &str| value[key].as_str().unwrap_or("-").to_owned();
    out::print(&format!("{}: {} ({})\n", of("address"), of("did"), of("state")))?;
    Ok(OK)
}

/// `vtepd show neighbors NAME`.
pub(super) async fn show(client: &Client, name: &str, as_json: bool) -> Result<u8, Failure> {
    let mut answer = client.get(&path(name)).await?;
    if as_json {
        if let Value::Object(o) = &mut answer {
            o.insert("version".into(), json!(evpn::node::view::VERSION));
        }
        out::print(&format!("{answer:#}\n"))?;
        return Ok(OK);
    }
    let view: NeighborDetail = serde_json::from_value(answer)
        .map_err(|e| Failure::Other(format!("the daemon is of another version than this program: {e}")))?;
    out::print(&render(&view, Look::of_stdout()))?;
    Ok(OK)
}

const EVENTS: [Column; 5] = [right("AGO"), right("EVENT"), left("NAME"), left("FROM"), left("TO")];

fn event(e: &EventView) -> Vec<Cell> {
    vec![cell(span(e.ago)), cell(e.number), cell(&e.name), cell(&e.from), cell(&e.to)]
}

const MESSAGES: [Column; 4] = [right("AGO"), left("WAY"), right("OCTETS"), flexible("MESSAGE")];

fn message(m: &MessageView) -> Vec<Cell> {
    vec![cell(span(m.ago)), cell(if m.sent { "out" } else { "in" }), cell(m.octets), cell(&m.text)]
}

/// The tables below the facts.
fn list<T>(title: &str, columns: &[Column], rows: &[T], row: fn(&T) -> Vec<Cell>, look: Look) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let cells: Vec<_> = rows.iter().map(row).collect();
    format!("\n{title}\n{}", table(columns, &cells, look))
}

fn facts(d: &NeighborDetail) -> Vec<(&'static str, Cell)> {
    let s = &d.summary;
    let up = s.state == "Established";
    let ago = |h: &Happened| cell(format!("{} ago: {}", span(h.ago), h.text));
    let open = |o: &OpenView| {
        format!("AS {}, id {}, hold {} s: {}", o.asn, o.router_id, o.hold_time, o.capabilities.join("; "))
    };
    let count = |c: &evpn::session::Counters| {
        format!(
            "{} OPEN, {} UPDATE, {} NOTIFICATION, {} KEEPALIVE, {} ROUTE-REFRESH",
            c.open, c.update, c.notification, c.keepalive, c.refresh
        )
    };
    let mut out = vec![
        ("neighbor", cell(s.address)),
        ("state", colored(&s.state, if up { Color::Green } else { Color::Red })),
        ("for", cell(span(d.established_for.unwrap_or(s.since)))),
    ];
    let mut add = |name, value: Option<Cell>| out.extend(value.map(|v| (name, v)));
    let bfd = |b: &evpn::node::view::BfdView| {
        let why = b.diag.as_ref().map_or(String::new(), |d| format!(", {d}"));
        let since = b.since.map_or(String::new(), |s| format!(" for {}", span(s)));
        cell(format!("{}{since}{why}, failed {} times", b.state, b.failures))
    };
    add("BFD", s.bfd.as_ref().map(bfd));
    add("description", s.description.as_ref().map(cell));
    add("held down", d.held_down.as_ref().map(|t| colored(t, Color::Yellow)));
    add("we offer", Some(cell(open(&d.local))));
    add("it offers", d.remote.as_ref().map(|o| cell(open(o))));
    add("in use", up.then(|| cell(d.agreed.join("; "))));
    add("received", Some(cell(format!("{}; {} octets", count(&d.received), d.octets_received))));
    add("sent", Some(cell(count(&d.sent))));
    let limit = d.max_prefixes.map_or(String::new(), |n| format!(" of at most {n}"));
    add("routes in", Some(cell(format!("{}{limit}, {} best", s.routes_in, d.routes_best))));
    for (why, n) in &d.routes_filtered {
        add("not used", Some(cell(format!("{n}: {why}"))));
    }
    add("routes out", Some(cell(format!("{}, {} too large", s.routes_out, d.routes_oversize))));
    for f in &d.faults_by {
        let attribute = f.attribute.map_or_else(|| "no attribute".into(), |a| format!("attribute {a}"));
        add("faults", Some(cell(format!("{} in {attribute}: {}", f.count, f.treatment))));
    }
    add("established", Some(cell(format!("{} times", s.established_count))));
    add("failed attempts", Some(cell(d.attempts_failed)));
    add("refused", Some(cell(format!("{} connections", d.connections_refused))));
    add("last end", d.last_down.as_ref().map(ago));
    add("told it", d.notification_sent.as_ref().map(ago));
    add("it told us", d.notification_received.as_ref().map(ago));
    out
}

fn render(d: &NeighborDetail, look: Look) -> String {
    let rows: Vec<Vec<Cell>> = facts(d).into_iter().map(|(name, value)| vec![cell(name), value]).collect();
    let body = table(&[left(""), flexible("")], &rows, look);
    // The empty heads make an empty first line.
    let mut text = body.split_once('\n').map_or(String::new(), |(_, rest)| rest.to_owned());
    text.push_str(&list("Events of the state machine", &EVENTS, &d.events, event, look));
    text.push_str(&list("Messages", &MESSAGES, &d.messages, message, look));
    for f in &d.faulty {
        let _ = write!(text, "\nAt fault {} ago, {} octets: {}\n{}\n", span(f.ago), f.octets, f.what, f.hex);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_description_survives_the_path() {
        assert_eq!(path("10.0.0.2"), "/v1/neighbors/10.0.0.2");
        assert_eq!(path("spine 1/é"), "/v1/neighbors/spine%201%2F%C3%A9");
    }
}
