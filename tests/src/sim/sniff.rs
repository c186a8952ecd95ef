//! What UPDATEs say, read off the wire without `evpn::wire`, so that a fault there cannot hide itself.

use evpn::types::Mac;

/// One Type-2 route in an UPDATE.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Seen {
    pub(super) mac: Mac,
    /// It has an IP.
    pub(super) ip: bool,
    /// MAC mobility sequence; `None` in a withdrawal.
    pub(super) seq: Option<u32>,
}

/// Splits octets into whole messages; what is left over is not looked at.
pub(super) fn messages(mut octets: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let len = usize::from(u16::from_be_bytes([*octets.get(16)?, *octets.get(17)?]));
        let (one, rest) = octets.split_at_checked(len)?;
        octets = rest;
        Some(one)
    })
}

/// Whether a message is an UPDATE.
pub(super) fn is_update(message: &[u8]) -> bool {
    message.get(18) == Some(&2)
}

/// Path attributes of an UPDATE: code and where its value lies.
pub(super) fn attributes(message: &[u8]) -> Vec<(u8, std::ops::Range<usize>)> {
    let mut out = Vec::with_capacity(8);
    let mut at = 23;
    while let Some(&[flags, code]) = message.get(at..at + 2).and_then(|b| b.first_chunk::<2>()) {
        let long = flags & 0x10 != 0;
        let len = match message.get(at + 2..at + 4) {
            Some(&[a, b]) if long => usize::from(u16::from_be_bytes([a, b])),
            Some(&[a, _]) => usize::from(a),
            _ => break,
        };
        let from = at + if long { 4 } else { 3 };
        if from + len > message.len() {
            break;
        }
        out.push((code, from..from + len));
        at = from + len;
    }
    out
}

/// Where in the message the sequence number of the MAC mobility community lies.
pub(super) fn sequence_at(message: &[u8]) -> Option<usize> {
    let (_, r) = attributes(message).into_iter().find(|(c, _)| *c == 16)?;
    let at = message[r.clone()].chunks(8).position(|c| c.starts_with(&[6, 0]))?;
    Some(r.start + at * 8 + 4)
}

/// Type-2 routes of an UPDATE.
pub(super) fn routes(message: &[u8], mut see: impl FnMut(Seen)) {
    let seq = sequence_at(message)
        .and_then(|at| message.get(at..at + 4)?.try_into().ok())
        .map_or(0, u32::from_be_bytes);
    for (code, r) in attributes(message) {
        let value = &message[r];
        let (nlri, seq) = match code {
            14 => {
                let hop = value.get(3).map_or(0, |l| usize::from(*l));
                (value.get(5 + hop..), Some(seq))
            }
            15 => (value.get(3..), None),
            _ => continue,
        };
        let mut rest = nlri.unwrap_or_default();
        while let Some(&[kind, len]) = rest.first_chunk::<2>() {
            let Some(body) = rest.get(2..2 + usize::from(len)) else { break };
            // RD 8, ESI 10, tag 4, MAC length 1, MAC 6, IP length 1.
            if kind == 2
                && let Some(mac) = body.get(23..).and_then(Mac::from_slice)
            {
                see(Seen { mac, ip: body.get(29).is_some_and(|l| *l != 0), seq });
            }
            rest = &rest[2 + usize::from(len)..];
        }
    }
}
