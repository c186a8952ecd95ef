//! What the fuzz targets do with their input. `evpn/tests/fuzz_corpus.rs` includes this file and does the same
//! with every committed corpus file on a stable compiler.
//!
//! The first octet of `message` and `update` chooses what the session has agreed on; see [`ctx`].

mod bfd;
mod session;

pub use bfd::bfd;
pub use session::session;

use evpn::wire::{DecodeCtx, EncodeCtx, Family, Message, Treatment, decode, frame as frames, frame_len};

/// Bit 0 four-octet AS numbers, 1 internal, 2 path identifiers, 3 long messages, 4 enhanced refresh, 5 all
/// families rather than EVPN only.
pub fn ctx(choice: u8) -> DecodeCtx {
    let bit = |n: u8| choice & 1 << n != 0;
    let all = [Family::EVPN, Family::IPV4, Family::IPV6, Family::RTC];
    DecodeCtx {
        as4: bit(0),
        ibgp: bit(1),
        families: all[..if bit(5) { 4 } else { 1 }].to_vec(),
        add_path: if bit(2) { all[..3].to_vec() } else { Vec::new() },
        max_len: if bit(3) { 65535 } else { 4096 },
        enhanced_refresh: bit(4),
    }
}

/// A whole message with its header.
pub fn message(data: &[u8]) {
    if let [choice, msg @ ..] = data {
        check(msg, &ctx(*choice));
    }
}

/// The body of an UPDATE; the header is put in front.
pub fn update(data: &[u8]) {
    let [choice, body @ ..] = data else { return };
    let Ok(len) = u16::try_from(body.len() + 19) else { return };
    let mut msg = vec![0xff; 16];
    msg.extend(len.to_be_bytes());
    msg.push(2);
    msg.extend_from_slice(body);
    check(&msg, &ctx(*choice));
}

/// What is accepted can be written and read again as the same value; what is refused names a place in the
/// message.
fn check(msg: &[u8], ctx: &DecodeCtx) {
    let first = match decode(msg, ctx) {
        Ok(d) => d,
        Err(e) => {
            assert!(e.offset <= msg.len().max(18), "{e:?}");
            if let Some(n) = e.notification {
                assert!(matches!(n.code, 1 | 2 | 3 | 7) && n.data.len() <= 4096 - 21, "{n:?}");
            }
            return;
        }
    };
    assert_eq!(frame_len(msg, ctx.max_len).ok().flatten(), Some(msg.len()));
    assert_eq!(first.treatment, first.faults.iter().map(|f| f.treatment).max());
    assert!(first.faults.iter().all(|f| f.offset <= msg.len() && f.treatment < Treatment::Reset));
    if let Message::Notification(n) = &first.message {
        let _ = n.to_string();
        if n.data.len() > 4096 - 21 {
            return;
        }
    }
    let again = first.message.encode(&EncodeCtx { as4: ctx.as4, add_path: ctx.add_path.clone() });
    if again.is_empty() {
        // An AS4_PATH that was cut short on the way in may not fit on the way out.
        assert!(msg.len() > 30_000);
        return;
    }
    // It may be longer than what came, for the same reason.
    let wide = DecodeCtx { max_len: 65535, ..ctx.clone() };
    let second = match decode(&again, &wide) {
        Ok(d) => d,
        Err(e) => panic!("refused what was accepted: {e:?}"),
    };
    assert_eq!(second.message, first.message);
}

/// An Ethernet frame.
pub fn frame(data: &[u8]) {
    let Ok(f) = frames::parse(data) else { return };
    assert!(f.src.is_host());
    // Padding changes nothing.
    let mut padded = data.to_vec();
    padded.extend([0; 18]);
    assert_eq!(frames::parse(&padded), Ok(f));
    if let frames::Body::Arp(a) = f.body {
        if !a.reply && a.target_mac.is_zero() {
            let built = frames::arp_probe(a.sender_mac, f.dst, a.sender_ip, a.target_ip);
            assert_eq!(frames::parse(&built).map(|f| f.body), Ok(f.body));
        }
    }
    if let frames::Body::NeighborSolicitation(n) = f.body {
        let built = frames::neighbor_solicitation(f.src, n.src, Some(f.src), n.target);
        // To one host it is no duplicate address detection.
        assert_eq!(frames::parse(&built).is_ok(), !n.is_dad());
    }
}
