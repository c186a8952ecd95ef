//! The last messages of a neighbour, as octets: read only when somebody asks.
//!
//! A message is copied once, at most [`KEPT`] octets of it, into a slot that is used again and again. KEEPALIVEs of an
//! Established session are left out; they would push out everything else. What was at fault is kept apart and at more
//! length, so that it can still be looked at after a storm (BGP-ERR-28).

use super::kind;
use crate::types::Time;
use crate::wire::{self, DecodeCtx, Message, Nlri, RefreshKind, Update};
use serde::Serialize;
use std::collections::VecDeque;
use std::fmt::Write as _;

/// Messages kept.
pub(super) const LEN: usize = 32;
/// Octets kept of each: a move's UPDATE fits.
pub(super) const KEPT: usize = 512;
/// Faulty messages kept.
pub(super) const FAULTY: usize = 4;
/// Octets kept of each of them.
pub(super) const FAULTY_KEPT: usize = 4096;
/// Routes named in a line.
const NAMED: usize = 3;

/// A message as it went over the wire.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Slot {
    at: Time,
    sent: bool,
    len: usize,
    octets: Vec<u8>,
}

/// A message that was at fault.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Faulty {
    at: Time,
    what: String,
    len: usize,
    octets: Vec<u8>,
}

/// A message in a line.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct MessageLine {
    /// When.
    pub at: Time,
    /// We sent it.
    pub sent: bool,
    /// Its length, octets.
    pub octets: usize,
    /// What it says.
    pub text: String,
}

/// A message that was at fault.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct FaultyMessage {
    /// When.
    pub at: Time,
    /// Its length, octets.
    pub octets: usize,
    /// What is wrong with it.
    pub what: String,
    /// It, or its first 4096 octets.
    pub hex: String,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub(super) struct Ring {
    slots: VecDeque<Slot>,
    faulty: VecDeque<Faulty>,
}

impl Ring {
    /// One more message.
    pub(super) fn push(&mut self, at: Time, sent: bool, message: &[u8]) {
        let mut octets = if self.slots.len() == LEN {
            self.slots.pop_front().map(|s| s.octets).unwrap_or_default()
        } else {
            Vec::new()
        };
        octets.clear();
        octets.extend_from_slice(message.get(..KEPT).unwrap_or(message));
        self.slots.push_back(Slot { at, sent, len: message.len(), octets });
    }

    /// A message was at fault.
    pub(super) fn fault(&mut self, at: Time, what: String, message: &[u8]) {
        if self.faulty.len() == FAULTY {
            self.faulty.pop_front();
        }
        let octets = message.get(..FAULTY_KEPT).unwrap_or(message).to_vec();
        self.faulty.push_back(Faulty { at, what, len: message.len(), octets });
    }

    /// Every message in a line, oldest first; `ctx` as received ones are to be read.
    pub(super) fn lines(&self, ctx: &DecodeCtx) -> Vec<MessageLine> {
        let line = |s: &Slot| MessageLine {
            at: s.at,
            sent: s.sent,
            octets: s.len,
            text: describe(&s.octets, s.len, ctx),
        };
        self.slots.iter().map(line).collect()
    }

    /// What was at fault, oldest first.
    pub(super) fn faulty(&self) -> Vec<FaultyMessage> {
        let line =
            |f: &Faulty| FaultyMessage { at: f.at, octets: f.len, what: f.what.clone(), hex: hex(&f.octets) };
        self.faulty.iter().map(line).collect()
    }
}

/// Octets as people compare them with a capture.
pub(crate) fn hex(octets: &[u8]) -> String {
    octets.iter().fold(String::with_capacity(octets.len() * 2), |mut s, b| {
        let _ = write!(s, "{b:02x}");
        s
    })
}

/// Name of a message type.
pub(super) const fn name(kind: u8) -> &'static str {
    match kind {
        kind::OPEN => "OPEN",
        kind::UPDATE => "UPDATE",
        kind::NOTIFICATION => "NOTIFICATION",
        kind::KEEPALIVE => "KEEPALIVE",
        kind::REFRESH => "ROUTE-REFRESH",
        _ => "message",
    }
}

/// A message in a line; `len` is its whole length, of which `octets` are there.
fn describe(octets: &[u8], len: usize, ctx: &DecodeCtx) -> String {
    let name = name(octets.get(kind::HEADER - 1).copied().unwrap_or(0));
    if octets.len() < len {
        return format!("{name}, too long to be kept whole");
    }
    let ctx = DecodeCtx { max_len: kind::MAX_EXTENDED, ..ctx.clone() };
    match wire::decode(octets, &ctx) {
        Err(e) => format!("{name}, faulty: {e}"),
        Ok(d) => match d.message {
            Message::Keepalive => name.to_owned(),
            Message::Notification(n) => format!("{name} {n}"),
            Message::Open(o) => {
                format!("{name} AS {}, identifier {}, hold time {}", o.asn(), o.id, o.hold_time)
            }
            Message::Refresh(r) => {
                let what = match r.kind {
                    RefreshKind::Request => "request",
                    RefreshKind::Begin => "begins",
                    RefreshKind::End => "ends",
                    RefreshKind::Unknown(_) => "of an unknown kind",
                };
                format!("{name} {what}, family {}/{}", r.family.afi, r.family.safi)
            }
            Message::Update(u) => format!("{name} {}", routes_of(&u)),
        },
    }
}

/// The routes of an UPDATE in a few words.
pub(crate) fn routes_of(u: &Update) -> String {
    if let Some(f) = u.end_of_rib() {
        return format!("End-of-RIB, family {}/{}", f.afi, f.safi);
    }
    let mut parts = Vec::new();
    if let Some(m) = &u.unreach {
        parts.push(format!("withdraws {}", nlri(&m.nlri)));
    }
    if let Some(m) = &u.reach {
        parts.push(format!("announces {} by {}", nlri(&m.nlri), m.next_hop.addr()));
    }
    if !u.withdrawn.is_empty() || !u.nlri.is_empty() {
        parts.push(format!("IPv4: withdraws {}, announces {}", u.withdrawn.len(), u.nlri.len()));
    }
    if parts.is_empty() { "without routes".to_owned() } else { parts.join("; ") }
}

fn nlri(n: &Nlri) -> String {
    let (count, what) = match n {
        Nlri::Evpn(l) => {
            let named: Vec<String> = l.iter().take(NAMED).map(|n| n.route.key().to_string()).collect();
            let more = if l.len() > NAMED { " …" } else { "" };
            return format!("{}: {}{more}", l.len(), named.join(" "));
        }
        Nlri::Ipv4(l) => (l.len(), "IPv4 routes"),
        Nlri::Ipv6(l) => (l.len(), "IPv6 routes"),
        Nlri::Rtc(l) => (l.len(), "route targets"),
        Nlri::Unknown(b) => (b.len(), "octets of a family that is not in use"),
    };
    format!("{count} {what}")
}
