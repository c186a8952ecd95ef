//! NOTIFICATION by meaning: names, shutdown communication (RFC 9003), hard reset (RFC 8538), prefix limit.

use super::error::Notification;
use super::message::Family;
use bytes::{BufMut, Bytes, BytesMut};
use core::fmt;

/// Error codes.
mod code {
    pub(super) const OPEN: u8 = 2;
    pub(super) const UPDATE: u8 = 3;
    pub(super) const FSM: u8 = 5;
    pub(super) const CEASE: u8 = 6;
}

/// Cease subcodes (BGP-NOTIF-04).
pub mod cease {
    /// 1: maximum number of prefixes reached.
    pub const MAX_PREFIXES: u8 = 1;
    /// 2: administrative shutdown.
    pub const SHUTDOWN: u8 = 2;
    /// 3: peer de-configured.
    pub const DECONFIGURED: u8 = 3;
    /// 4: administrative reset.
    pub const RESET: u8 = 4;
    /// 5: connection rejected.
    pub const REJECTED: u8 = 5;
    /// 6: other configuration change.
    pub const CONFIG_CHANGE: u8 = 6;
    /// 7: connection collision resolution.
    pub const COLLISION: u8 = 7;
    /// 8: out of resources.
    pub const OUT_OF_RESOURCES: u8 = 8;
    /// 9: hard reset (RFC 8538).
    pub const HARD_RESET: u8 = 9;
    /// 10: BFD down (RFC 9384).
    pub const BFD_DOWN: u8 = 10;
}

/// Octets of data that `Display` shows: a peer must not fill our log with one message.
const MAX_SHOWN: usize = 64;

/// What an operator wrote into a Cease (RFC 9003).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Shutdown<'a> {
    /// Text, possibly empty.
    Text(&'a str),
    /// Not UTF-8, or its length octet is beyond the data: shown as octets, never interpreted (BGP-SHUT-04,
    /// BGP-SHUT-05).
    Invalid(&'a [u8]),
}

impl Notification {
    /// Most octets of text that any receiver understands (BGP-SHUT-03).
    const MAX_TEXT: usize = 128;

    /// Cease without data.
    pub const fn cease(subcode: u8) -> Self {
        Self { code: code::CEASE, subcode, data: Bytes::new() }
    }
    /// Finite state machine error: an unexpected message of this type (BGP-FSME-01 to -03).
    pub fn unexpected_message(subcode: u8, kind: u8) -> Self {
        Self { code: code::FSM, subcode, data: Bytes::copy_from_slice(&[kind]) }
    }
    /// Cease 2 or 4 with a text, cut at a character to 128 octets (BGP-SHUT-02, BGP-SHUT-03).
    pub fn shutdown(subcode: u8, text: &str) -> Self {
        let mut end = text.len().min(Self::MAX_TEXT);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let text = text.get(..end).unwrap_or_default();
        let mut data = BytesMut::with_capacity(1 + text.len());
        data.put_u8(text.len() as u8);
        data.put_slice(text.as_bytes());
        Self { code: code::CEASE, subcode, data: data.freeze() }
    }

    /// Text of a Cease 2 or 4; `None` when there is no data or it is another NOTIFICATION.
    pub fn shutdown_communication(&self) -> Option<Shutdown<'_>> {
        if self.code != code::CEASE || !matches!(self.subcode, cease::SHUTDOWN | cease::RESET) {
            return None;
        }
        let [len, rest @ ..] = &*self.data else { return None };
        let text = rest.get(..usize::from(*len)).and_then(|b| core::str::from_utf8(b).ok());
        Some(text.map_or(Shutdown::Invalid(&self.data), Shutdown::Text))
    }
    /// What a Cease 9 really means (BGP-GR-16). Another hard reset inside means nothing; a peer could nest
    /// thousands.
    pub fn hard_reset_reason(&self) -> Option<Self> {
        match (self.code, self.subcode, &*self.data) {
            (code::CEASE, cease::HARD_RESET, [code::CEASE, cease::HARD_RESET, ..]) => None,
            (code::CEASE, cease::HARD_RESET, [code, subcode, ..]) => {
                Some(Self { code: *code, subcode: *subcode, data: self.data.slice(2..) })
            }
            _ => None,
        }
    }
    /// Family and bound of a Cease 1 (BGP-NOTIF-05).
    pub fn prefix_limit(&self) -> Option<(Family, u32)> {
        match (self.code, self.subcode, &*self.data) {
            (code::CEASE, cease::MAX_PREFIXES, [a, b, safi, w, x, y, z]) => {
                let family = Family { afi: u16::from_be_bytes([*a, *b]), safi: *safi };
                Some((family, u32::from_be_bytes([*w, *x, *y, *z])))
            }
            _ => None,
        }
    }
    /// Type of the message that came at the wrong time.
    pub fn unexpected_type(&self) -> Option<u8> {
        if self.code == code::FSM { self.data.first().copied() } else { None }
    }

    /// Names of code and subcode as in their RFCs; unknown ones are legal (BGP-NOTIF-01).
    pub fn names(&self) -> (&'static str, &'static str) {
        let code = match self.code {
            1 => "message header error",
            code::OPEN => "OPEN error",
            code::UPDATE => "UPDATE error",
            4 => "hold timer expired",
            code::FSM => "finite state machine error",
            code::CEASE => "cease",
            7 => "ROUTE-REFRESH error",
            8 => "send hold timer expired",
            _ => "unknown",
        };
        let subcode = match (self.code, self.subcode) {
            (1, 1) => "connection not synchronized",
            (1, 2) => "bad message length",
            (1, 3) => "bad message type",
            (2, 1) => "unsupported version",
            (2, 2) => "bad peer AS",
            (2, 3) => "bad BGP identifier",
            (2, 4) => "unsupported optional parameter",
            (2, 6) => "unacceptable hold time",
            (2, 7) => "unsupported capability",
            (3, 1) => "malformed attribute list",
            (3, 2) => "unrecognised well-known attribute",
            (3, 3) => "missing well-known attribute",
            (3, 4) => "attribute flags",
            (3, 5) => "attribute length",
            (3, 6) => "invalid ORIGIN",
            (3, 8) => "invalid NEXT_HOP",
            (3, 9) => "optional attribute",
            (3, 10) => "invalid network field",
            (3, 11) => "malformed AS_PATH",
            (5, 1) => "unexpected message in OpenSent",
            (5, 2) => "unexpected message in OpenConfirm",
            (5, 3) => "unexpected message in Established",
            (6, cease::MAX_PREFIXES) => "maximum number of prefixes reached",
            (6, cease::SHUTDOWN) => "administrative shutdown",
            (6, cease::DECONFIGURED) => "peer de-configured",
            (6, cease::RESET) => "administrative reset",
            (6, cease::REJECTED) => "connection rejected",
            (6, cease::CONFIG_CHANGE) => "other configuration change",
            (6, cease::COLLISION) => "connection collision resolution",
            (6, cease::OUT_OF_RESOURCES) => "out of resources",
            (6, cease::HARD_RESET) => "hard reset",
            (6, cease::BFD_DOWN) => "BFD down",
            (7, 1) => "invalid message length",
            _ => "",
        };
        (code, subcode)
    }
}

/// `cease/administrative shutdown (6/2): "text"`; octets that are no text are shown in hex, control characters
/// escaped.
impl fmt::Display for Notification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (code, subcode) = self.names();
        f.write_str(code)?;
        if !subcode.is_empty() {
            write!(f, "/{subcode}")?;
        }
        write!(f, " ({}/{})", self.code, self.subcode)?;
        if let Some(inner) = self.hard_reset_reason() {
            return write!(f, ": {inner}");
        }
        match self.shutdown_communication() {
            Some(Shutdown::Text("")) => Ok(()),
            Some(Shutdown::Text(t)) => write!(f, ": {t:?}"),
            _ if self.data.is_empty() => Ok(()),
            _ => {
                f.write_str(": 0x")?;
                self.data.iter().take(MAX_SHOWN).try_for_each(|b| write!(f, "{b:02x}"))?;
                if self.data.len() > MAX_SHOWN {
                    write!(f, "... ({} octets)", self.data.len())?;
                }
                Ok(())
            }
        }
    }
}
