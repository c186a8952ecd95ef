//! QMP as far as it is needed: one JSON object a line (QEMU, "QEMU Machine Protocol Specification").

use serde_json::{Value, json};

/// What QEMU sends.
#[derive(Clone, Debug, PartialEq)]
pub enum Message {
    /// The first line of a connection.
    Greeting {
        /// Such as `7.2.22`.
        version: String,
    },
    /// An event.
    Event {
        /// Its name, such as `RESUME`.
        name: String,
        /// Its data; `Null` without.
        data: Value,
    },
    /// A command worked.
    Return {
        /// The command's number.
        id: Option<u64>,
        /// What it returns.
        value: Value,
    },
    /// A command did not.
    Error {
        /// The command's number; none when QEMU could not read it.
        id: Option<u64>,
        /// For people.
        why: String,
    },
}

/// A line that is not QMP.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{0}")]
pub struct Rubbish(pub String);

/// Reads a line.
///
/// # Errors
/// It is no QMP message.
pub fn parse(line: &[u8]) -> Result<Message, Rubbish> {
    let bad = |why: &str| Rubbish(format!("{why}: `{}`", shown(line)));
    let value: Value = serde_json::from_slice(line).map_err(|_| bad("not JSON"))?;
    let Value::Object(mut o) = value else { return Err(bad("not a JSON object")) };
    let id = o.get("id").and_then(Value::as_u64);
    if let Some(v) = o.remove("QMP") {
        let v = &v["version"]["qemu"];
        let part = |k: &str| v[k].as_u64().unwrap_or(0);
        return Ok(Message::Greeting {
            version: format!("{}.{}.{}", part("major"), part("minor"), part("micro")),
        });
    }
    if let Some(name) = o.get("event").and_then(Value::as_str).map(str::to_owned) {
        return Ok(Message::Event { name, data: o.remove("data").unwrap_or_default() });
    }
    if let Some(value) = o.remove("return") {
        return Ok(Message::Return { id, value });
    }
    if let Some(e) = o.remove("error") {
        let why = e["desc"].as_str().unwrap_or("no reason given").to_owned();
        return Ok(Message::Error { id, why });
    }
    Err(bad("neither greeting, event nor answer"))
}

/// The beginning of a line, harmless for a terminal.
fn shown(line: &[u8]) -> String {
    const SHOWN: usize = 60;
    let text: String = String::from_utf8_lossy(line.get(..SHOWN * 4).unwrap_or(line))
        .chars()
        .map(|c| if c.is_control() { '.' } else { c })
        .take(SHOWN)
        .collect();
    if line.len() > text.len() { format!("{text}…") } else { text }
}

/// What QEMU is asked.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Ask {
    /// Leaves negotiation mode; must be the first.
    Capabilities,
    /// Turns the migration capability `events` on, without which there are no `MIGRATION` events.
    SetEvents,
    /// Does the guest run?
    Status,
    /// How far is the migration?
    Migration,
    /// The guest's name.
    Name,
    /// NICs and what they are plugged into.
    Network,
    /// The MACs that the guest has set.
    RxFilter,
}

impl Ask {
    /// The line to send.
    pub fn line(self, id: u64) -> Vec<u8> {
        let (command, arguments) = match self {
            Self::Capabilities => ("qmp_capabilities", None),
            Self::SetEvents => (
                "migrate-set-capabilities",
                Some(json!({ "capabilities": [{ "capability": "events", "state": true }] })),
            ),
            Self::Status => ("query-status", None),
            Self::Migration => ("query-migrate", None),
            Self::Name => ("query-name", None),
            // No QMP command tells the host's side of a NIC; this text has not changed since QEMU 1.0.
            Self::Network => ("human-monitor-command", Some(json!({ "command-line": "info network" }))),
            Self::RxFilter => ("query-rx-filter", None),
        };
        let mut o = json!({ "execute": command, "id": id });
        if let Some(a) = arguments {
            o["arguments"] = a;
        }
        let mut line = o.to_string().into_bytes();
        line.push(b'\n');
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_qemu_7_2_sends_is_read() {
        let greeting = br#"{"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}, "package": "Debian"}, "capabilities": ["oob"]}}"#;
        assert_eq!(parse(greeting), Ok(Message::Greeting { version: "7.2.22".into() }));
        let event = br#"{"timestamp": {"seconds": 1, "microseconds": 2}, "event": "MIGRATION", "data": {"status": "active"}}"#;
        assert_eq!(
            parse(event),
            Ok(Message::Event { name: "MIGRATION".into(), data: json!({ "status": "active" }) })
        );
        assert_eq!(
            parse(br#"{"return": {}, "id": 3}"#),
            Ok(Message::Return { id: Some(3), value: json!({}) })
        );
        let error = br#"{"id": 4, "error": {"class": "GenericError", "desc": "There's a migration process in progress"}}"#;
        let why = "There's a migration process in progress".to_owned();
        assert_eq!(parse(error), Ok(Message::Error { id: Some(4), why }));
    }

    #[test]
    fn rubbish_is_named_by_its_beginning_and_cannot_write_on_the_terminal() {
        for (line, want) in [
            (&b"SSH-2.0-OpenSSH_9.2"[..], "not JSON: `SSH-2.0-OpenSSH_9.2`"),
            (b"[1]", "not a JSON object: `[1]`"),
            (b"\x1b[2J\xff", "not JSON: `.[2J\u{fffd}`"),
            (br#"{"hello": 1}"#, "neither greeting, event nor answer: `{\"hello\": 1}`"),
        ] {
            assert_eq!(parse(line).expect_err("rubbish").0, want);
        }
        let long = parse(&[b'x'; 5000]).expect_err("rubbish").0;
        assert!(long.chars().count() < 80, "{long}");
        // A tower of brackets ends at the parser's own limit, not at the stack's.
        assert!(parse(&vec![b'['; 60_000]).is_err());
    }

    #[test]
    fn commands_are_one_line_each() {
        assert_eq!(Ask::Status.line(7), b"{\"execute\":\"query-status\",\"id\":7}\n");
        let line = Ask::SetEvents.line(1);
        assert_eq!(String::from_utf8_lossy(&line).lines().count(), 1);
    }
}
