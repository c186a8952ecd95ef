//! `vtepd watch`: events as they happen.

use super::client::Client;
use super::out::{Color, Look};
use super::{FAILED, Failure, Filter, OK, WatchArgs, moves, out, path_with, table};
use crate::api::core::EventLine;
use evpn::node::Level;
use evpn::node::view::MoveView;
use serde_json::{Value, json};
use std::fmt::Write as _;

pub(super) async fn watch(args: WatchArgs) -> Result<u8, Failure> {
    let client = Client::new(&args.target.socket);
    let after = match args.after {
        Some(n) => n,
        None => last_number(&client).await?,
    };
    let color = Look::of_stdout().color;
    let mut stream = client.events(&path_with("/v1/events", &[("after", after.to_string())])).await?;
    loop {
        let next = tokio::select! {
            next = stream.next() => next?,
            _ = tokio::signal::ctrl_c() => return Ok(OK),
        };
        let Some((kind, data)) = next else {
            out::complain("vtepd stopped\n");
            return Ok(FAILED);
        };
        let value: Value = serde_json::from_str(&data).unwrap_or_default();
        let text = match kind.as_str() {
            "event" if !matches(&args.filter, &value) => continue,
            "event" | "lagged" if args.json => format!("{value}\n"),
            "event" => human(&value, color),
            "lagged" => lagged_line(value["lagged"].as_u64().unwrap_or(0), color),
            _ => return Err(Failure::Other(value["error"].as_str().unwrap_or("unknown error").to_owned())),
        };
        out::print(&text)?;
    }
}

/// Number of the newest event, so that `watch` starts with what happens next.
async fn last_number(client: &Client) -> Result<u64, Failure> {
    let mut after = 0;
    loop {
        let parameters = [("after", after.to_string()), ("follow", "false".to_owned())];
        match client.get(&path_with("/v1/events", &parameters)).await?["next"].as_u64() {
            Some(n) if n > after => after = n,
            _ => return Ok(after),
        }
    }
}

/// Whether an event is about what was asked for; one that names no VNI, MAC or IP is not.
pub(super) fn matches(filter: &Filter, line: &Value) -> bool {
    let vni = filter.vni.is_none_or(|v| line["vni"] == json!(v));
    let mac = filter.mac.is_none_or(|m| {
        [&line["mac"], &line["mac_before"], &line["address"]["mac"]].into_iter().any(|v| *v == json!(m))
    });
    let ip = filter.ip.is_none_or(|i| {
        line["ip"] == json!(i)
            || line["address"]["ip"] == json!(i)
            || line["ips"].as_array().is_some_and(|ips| ips.contains(&json!(i)))
    });
    vni && mac && ip
}

pub(super) fn lagged_line(n: u64, color: bool) -> String {
    format!("{}\n", Color::Yellow.paint(&format!("… {n} events lost"), color))
}

/// One line for a person: time, name, then every field as `name=value`.
pub(super) fn human(line: &Value, color: bool) -> String {
    let level = EventLine::deserialize_level(line);
    let paint = match level {
        Some(Level::Warn) => Color::Yellow,
        Some(Level::Info) => Color::Bold,
        Some(Level::Debug) | None => Color::Plain,
    };
    let time = table::time_of_day(line["unix_ms"].as_u64().unwrap_or(0));
    let name = line["event"].as_str().unwrap_or("?");
    let mut out =
        format!("{} {}", Color::Dim.paint(&time, color), paint.paint(&format!("{name:<16}"), color));
    if name == "move"
        && let Ok(m) = serde_json::from_value::<MoveView>(line.clone())
    {
        let _ = writeln!(out, " {}", moves::line(&m));
        return out;
    }
    for (key, value) in line.as_object().into_iter().flatten() {
        if ["n", "at", "unix_ms", "event"].contains(&key.as_str()) || value.is_null() {
            continue;
        }
        let _ = write!(out, " {}{}", Color::Dim.paint(&format!("{key}="), color), field(value));
    }
    out.push('\n');
    out
}

fn field(value: &Value) -> String {
    match value {
        Value::String(s) if s.is_empty() || s.contains(|c: char| c.is_whitespace() || c.is_control()) => {
            format!("{s:?}")
        }
        Value::String(s) => s.clone(),
        Value::Array(list) => list.iter().map(field).collect::<Vec<_>>().join(","),
        // `{"port": "p1"}` and `{"vtep": "10.0.0.2"}`: the place itself says which it is.
        Value::Object(o) if o.len() == 1 => o.values().map(field).collect(),
        other => other.to_string(),
    }
}

impl EventLine {
    fn deserialize_level(line: &Value) -> Option<Level> {
        serde_json::from_value::<Self>(line.clone()).ok().map(|l| l.event.level())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use evpn::node::Event;
    use evpn::types::{Mac, Seq, Time, Vni};

    fn line() -> Value {
        let event = Event::MacLocal {
            vni: Vni::new(100).expect("valid"),
            mac: Mac([2, 0, 0, 0, 0, 1]),
            port: "p 1".into(),
            seq: Seq(3),
        };
        serde_json::to_value(EventLine { n: 7, at: Time(5), unix_ms: 3_723_004, event }).expect("serialises")
    }

    #[test]
    fn an_event_is_one_line_with_its_fields() {
        assert_eq!(
            human(&line(), false),
            "01:02:03.004Z mac-local        mac=02:00:00:00:00:01 port=\"p 1\" seq=3 vni=100\n"
        );
    }

    #[test]
    fn filters_compare_what_the_event_names() {
        let line = line();
        let vni = |n| Filter { vni: Vni::new(n), ..Filter::default() };
        assert!(matches(&vni(100), &line) && !matches(&vni(101), &line));
        let ip = Filter { ip: Some("10.0.0.1".parse().expect("valid")), ..Filter::default() };
        assert!(!matches(&ip, &line));
    }
}
