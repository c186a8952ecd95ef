//! NOTIFICATIONs in words (RFC 4271 §4.5 and the registries), shutdown communication (RFC 9003).

use crate::wire::Notification;
use bytes::{BufMut, Bytes, BytesMut};
use core::fmt::Write;

/// Longest text that we send: all that a peer of RFC 8203 vintage accepts (BGP-SHUT-03).
const MAX_TEXT: usize = 128;
/// Octets of data that a description shows.
const MAX_HEX: usize = 64;

/// The data of a Cease 6/2 or 6/4 that carries `text` (RFC 9003 §2): a length octet and UTF-8, cut at a
/// character boundary to 128 octets (BGP-SHUT-02). Empty for an empty text.
pub fn shutdown_communication(text: &str) -> Bytes {
    let end = (0..=text.len().min(MAX_TEXT)).rev().find(|&i| text.is_char_boundary(i)).unwrap_or(0);
    if end == 0 {
        return Bytes::new();
    }
    let mut out = BytesMut::with_capacity(end + 1);
    out.put_u8(end as u8);
    out.put_slice(&text.as_bytes()[..end]);
    out.freeze()
}

/// A NOTIFICATION for people: `Cease/Administrative Shutdown (6/2): "text"`.
///
/// Unknown codes keep their numbers (BGP-NOTIF-01). Text of a peer is escaped, invalid UTF-8 shown in hex
/// (BGP-SHUT-04), a wrong length octet tolerated (BGP-SHUT-05).
pub fn describe(n: &Notification) -> String {
    let mut s = match name(n.code, n.subcode) {
        (Some(code), Some(sub)) => format!("{code}/{sub} ({}/{})", n.code, n.subcode),
        (Some(code), None) => format!("{code} ({}/{})", n.code, n.subcode),
        (None, _) => format!("unknown code ({}/{})", n.code, n.subcode),
    };
    match (n.code, n.subcode, &n.data[..]) {
        (_, _, []) => {}
        // Hard Reset: the real NOTIFICATION is inside (RFC 8538 §3).
        (6, 9, [code, subcode, rest @ ..]) if *code != 6 || *subcode != 9 => {
            let inner = Notification { code: *code, subcode: *subcode, data: Bytes::copy_from_slice(rest) };
            s.push_str(": ");
            s.push_str(&describe(&inner));
        }
        (6, 2 | 4, [0]) => {}
        (6, 2 | 4, [len, rest @ ..]) => {
            let text = rest.get(..usize::from(*len)).unwrap_or(rest);
            match core::str::from_utf8(text) {
                Ok(t) => {
                    let _ = write!(s, ": \"{}\"", t.escape_debug());
                }
                Err(_) => hex(&mut s, text),
            }
            if rest.len() < usize::from(*len) {
                s.push_str(" (cut short)");
            }
        }
        (_, _, data) => hex(&mut s, data),
    }
    s
}

fn hex(s: &mut String, data: &[u8]) {
    s.push_str(": 0x");
    for b in data.iter().take(MAX_HEX) {
        let _ = write!(s, "{b:02x}");
    }
    if data.len() > MAX_HEX {
        let _ = write!(s, "... ({} octets)", data.len());
    }
}

/// Names from the IANA registries of BGP error codes and subcodes.
fn name(code: u8, subcode: u8) -> (Option<&'static str>, Option<&'static str>) {
    let (code, subs): (_, &[&str]) = match code {
        1 => (
            "Message Header Error",
            &["", "Connection Not Synchronized", "Bad Message Length", "Bad Message Type"],
        ),
        2 => (
            "OPEN Message Error",
            &[
                "Unspecific",
                "Unsupported Version Number",
                "Bad Peer AS",
                "Bad BGP Identifier",
                "Unsupported Optional Parameter",
                "",
                "Unacceptable Hold Time",
                "Unsupported Capability",
                "",
                "",
                "",
                "Role Mismatch",
            ],
        ),
        3 => (
            "UPDATE Message Error",
            &[
                "Unspecific",
                "Malformed Attribute List",
                "Unrecognized Well-known Attribute",
                "Missing Well-known Attribute",
                "Attribute Flags Error",
                "Attribute Length Error",
                "Invalid ORIGIN Attribute",
                "",
                "Invalid NEXT_HOP Attribute",
                "Optional Attribute Error",
                "Invalid Network Field",
                "Malformed AS_PATH",
            ],
        ),
        4 => ("Hold Timer Expired", &[]),
        5 => (
            "Finite State Machine Error",
            &[
                "Unspecified Error",
                "Unexpected Message in OpenSent State",
                "Unexpected Message in OpenConfirm State",
                "Unexpected Message in Established State",
            ],
        ),
        6 => (
            "Cease",
            &[
                "",
                "Maximum Number of Prefixes Reached",
                "Administrative Shutdown",
                "Peer De-configured",
                "Administrative Reset",
                "Connection Rejected",
                "Other Configuration Change",
                "Connection Collision Resolution",
                "Out of Resources",
                "Hard Reset",
                "BFD Down",
            ],
        ),
        7 => ("ROUTE-REFRESH Message Error", &["", "Invalid Message Length"]),
        8 => ("Send Hold Timer Expired", &[]),
        _ => return (None, None),
    };
    (Some(code), subs.get(usize::from(subcode)).copied().filter(|s| !s.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(code: u8, subcode: u8, data: &[u8]) -> String {
        describe(&Notification { code, subcode, data: Bytes::copy_from_slice(data) })
    }

    #[test]
    fn notifications_read_as_words() {
        assert_eq!(shown(4, 0, &[]), "Hold Timer Expired (4/0)");
        assert_eq!(shown(6, 7, &[]), "Cease/Connection Collision Resolution (6/7)");
        assert_eq!(shown(2, 2, &[0xff]), "OPEN Message Error/Bad Peer AS (2/2): 0xff");
        assert_eq!(shown(6, 200, &[]), "Cease (6/200)");
        assert_eq!(shown(77, 3, &[]), "unknown code (77/3)");
        assert_eq!(
            shown(6, 9, &[6, 4, 2, b'o', b'k']),
            "Cease/Hard Reset (6/9): Cease/Administrative Reset (6/4): \"ok\""
        );
        assert_eq!(shown(6, 9, &[6, 9, 6, 9]), "Cease/Hard Reset (6/9): 0x06090609");
    }

    #[test]
    fn shutdown_text_is_escaped_and_tolerates_nonsense() {
        assert_eq!(shown(6, 2, b"\x05a\x1bb\ncd"), "Cease/Administrative Shutdown (6/2): \"a\\u{1b}b\\nc\"");
        assert_eq!(shown(6, 2, b"\x0aoops"), "Cease/Administrative Shutdown (6/2): \"oops\" (cut short)");
        assert_eq!(shown(6, 4, &[2, 0xc3, 0x28]), "Cease/Administrative Reset (6/4): 0xc328");
        assert_eq!(shown(6, 2, &[0]), "Cease/Administrative Shutdown (6/2)");
    }

    #[test]
    fn shutdown_communication_is_cut_at_a_character() {
        assert_eq!(&shutdown_communication("")[..], b"");
        assert_eq!(&shutdown_communication("bye")[..], b"\x03bye");
        let long = shutdown_communication(&"ü".repeat(100));
        assert_eq!(long.len(), 129);
        let odd = shutdown_communication(&format!("x{}", "ü".repeat(100)));
        assert_eq!(odd[0], 127);
        assert!(core::str::from_utf8(&odd[1..]).is_ok());
    }
}
