//! Messages: cutting them out of a stream, decoding, encoding.

use super::error::{Fault, MessageError, Notification, Treatment};
use super::message::{DecodeCtx, EncodeCtx, Family, Message, Refresh, RefreshKind};
use super::{open, update};
use bytes::{BufMut, Bytes, BytesMut};

/// Marker, length, type (BGP-MSG-01).
pub(super) const HEADER: usize = 19;
/// Limit of OPEN and KEEPALIVE, and of everything without RFC 8654.
const CLASSIC_MAX: u16 = 4096;

/// Message types.
mod kind {
    pub(super) const OPEN: u8 = 1;
    pub(super) const UPDATE: u8 = 2;
    pub(super) const NOTIFICATION: u8 = 3;
    pub(super) const KEEPALIVE: u8 = 4;
    pub(super) const REFRESH: u8 = 5;
}
pub(super) const UPDATE: u8 = kind::UPDATE;

/// A decoded message.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Decoded {
    /// The message, past RFC 7606: attributes that had to be discarded are gone.
    pub message: Message,
    /// What was wrong with an UPDATE without ending the session, in the order of discovery: the first 64, with the
    /// one that decides. Empty for others.
    pub faults: Vec<Fault>,
    /// The strongest reaction to `faults`, never [`Treatment::Reset`]. With [`Treatment::TreatAsWithdraw`] every
    /// reachable route of the message counts as withdrawn.
    pub treatment: Option<Treatment>,
}

#[cold]
fn header_error(offset: usize, what: &'static str, subcode: u8, data: &[u8]) -> MessageError {
    let data = Bytes::copy_from_slice(data);
    MessageError { offset, what, notification: Some(Notification { code: 1, subcode, data }) }
}

/// Looks at the start of a stream (BGP-MSG-02): `Ok(None)`, more octets are needed; `Ok(Some(n))`, the first `n`
/// octets are a whole message with a sound header.
///
/// `max_len` is 4096, or 65535 if we sent capability 6 (BGP-EXTM-02).
///
/// # Errors
/// Marker, length or type is wrong (BGP-HDR-01, -02, -03, -04); told as soon as the octets that show it are there.
pub fn frame_len(buf: &[u8], max_len: u16) -> Result<Option<usize>, MessageError> {
    if let Some(at) = buf.iter().take(16).position(|b| *b != 0xff) {
        return Err(header_error(at, "marker is not all ones", 1, &[]));
    }
    let Some([l0, l1, kind]) = buf.get(16..).and_then(|b| b.first_chunk::<3>()) else {
        return Ok(None);
    };
    let len = u16::from_be_bytes([*l0, *l1]);
    let bad_length = |what| header_error(16, what, 2, &[*l0, *l1]);
    if len < HEADER as u16 {
        return Err(bad_length("message length is below 19"));
    }
    if len > max_len {
        return Err(bad_length("message length is above the maximum"));
    }
    // BGP-MSG-06
    let (min, max) = match *kind {
        kind::OPEN => (29, CLASSIC_MAX),
        kind::UPDATE => (23, u16::MAX),
        kind::NOTIFICATION => (21, u16::MAX),
        kind::KEEPALIVE => (19, 19),
        // Its length is judged together with its subtype (BGP-REFR-06).
        kind::REFRESH => (19, u16::MAX),
        _ => return Err(header_error(18, "message type is unknown", 3, &[*kind])),
    };
    if len < min || len > max {
        let mut e = bad_length("message length is not legal for its type");
        if *kind == kind::NOTIFICATION {
            // BGP-NOTIF-02: an error in a NOTIFICATION is never answered by one.
            e.notification = None;
        }
        return Err(e);
    }
    Ok((buf.len() >= usize::from(len)).then_some(usize::from(len)))
}

/// Decodes one whole message, header included.
///
/// # Errors
/// Faults that end the session, with the NOTIFICATION to send. All weaker ones are in [`Decoded::faults`].
pub fn decode(msg: &[u8], ctx: &DecodeCtx) -> Result<Decoded, MessageError> {
    match frame_len(msg, ctx.max_len)? {
        Some(n) if n == msg.len() => {}
        _ => {
            let length = msg.get(16..18).unwrap_or_default();
            return Err(header_error(16, "message length is not that of the octets given", 2, length));
        }
    }
    let body = msg.get(HEADER..).unwrap_or_default();
    let plain = |message| Decoded { message, faults: Vec::new(), treatment: None };
    Ok(match msg.get(18).copied().unwrap_or(0) {
        kind::OPEN => plain(Message::Open(open::decode(msg)?)),
        kind::UPDATE => {
            let o = update::decode(msg, ctx)?;
            Decoded { message: Message::Update(o.update), faults: o.faults, treatment: o.treatment }
        }
        kind::NOTIFICATION => {
            let (code, subcode, data) = match body {
                [code, subcode, data @ ..] => (*code, *subcode, Bytes::copy_from_slice(data)),
                _ => (0, 0, Bytes::new()),
            };
            plain(Message::Notification(Notification { code, subcode, data }))
        }
        kind::KEEPALIVE => plain(Message::Keepalive),
        _ => plain(Message::Refresh(refresh(msg, body, ctx)?)),
    })
}

/// ROUTE-REFRESH: AFI, subtype, SAFI.
fn refresh(msg: &[u8], body: &[u8], ctx: &DecodeCtx) -> Result<Refresh, MessageError> {
    let subtype = body.get(2).copied();
    match *body {
        [a, b, subtype, safi] => {
            let kind = match subtype {
                0 => RefreshKind::Request,
                1 => RefreshKind::Begin,
                2 => RefreshKind::End,
                n => RefreshKind::Unknown(n),
            };
            Ok(Refresh { family: Family { afi: u16::from_be_bytes([a, b]), safi }, kind })
        }
        // BGP-REFR-06
        _ if ctx.enhanced_refresh && matches!(subtype, Some(1 | 2)) => {
            let data = Bytes::copy_from_slice(msg.get(..update::MAX_DATA).unwrap_or(msg));
            Err(MessageError {
                offset: 16,
                what: "BoRR or EoRR length is not 23",
                notification: Some(Notification { code: 7, subcode: 1, data }),
            })
        }
        // BGP-REFR-05: a subtype that we do not know may have any length.
        [a, b, n @ 3..=u8::MAX, safi, ..] => Ok(Refresh {
            family: Family { afi: u16::from_be_bytes([a, b]), safi },
            kind: RefreshKind::Unknown(n),
        }),
        _ => Err(header_error(16, "ROUTE-REFRESH length is not 23", 2, msg.get(16..18).unwrap_or_default())),
    }
}

/// An empty message: the header with its length still open.
pub(super) fn begin(kind: u8) -> BytesMut {
    let mut out = BytesMut::with_capacity(256);
    out.put_slice(&[0xff; 16]);
    out.put_slice(&[0, 0, kind]);
    out
}

/// Fills the length in; `None` if it cannot hold it.
pub(super) fn close(mut out: BytesMut) -> Option<Bytes> {
    let len = u16::try_from(out.len()).ok()?;
    out.get_mut(16..18)?.copy_from_slice(&len.to_be_bytes());
    Some(out.freeze())
}

impl Message {
    /// The whole message with its header. Empty if it does not fit 65535 octets, which only a huge UPDATE can
    /// bring about: the sending side builds those with [`super::UpdateBuilder`], which never exceeds its limit.
    ///
    /// Data of a NOTIFICATION beyond what fits 4096 octets is cut off (BGP-EXTM-03).
    pub fn encode(&self, ctx: &EncodeCtx) -> Bytes {
        self.try_encode(ctx).unwrap_or_default()
    }

    fn try_encode(&self, ctx: &EncodeCtx) -> Option<Bytes> {
        let mut out;
        match self {
            Self::Open(o) => {
                out = begin(kind::OPEN);
                open::put(&mut out, o);
            }
            Self::Update(u) => {
                out = begin(kind::UPDATE);
                if !update::put(&mut out, u, ctx) {
                    return None;
                }
            }
            Self::Notification(n) => {
                out = begin(kind::NOTIFICATION);
                out.put_slice(&[n.code, n.subcode]);
                out.put_slice(n.data.get(..update::MAX_DATA).unwrap_or(&n.data));
            }
            Self::Keepalive => out = begin(kind::KEEPALIVE),
            Self::Refresh(r) => {
                out = begin(kind::REFRESH);
                out.put_u16(r.family.afi);
                out.put_u8(match r.kind {
                    RefreshKind::Request => 0,
                    RefreshKind::Begin => 1,
                    RefreshKind::End => 2,
                    RefreshKind::Unknown(n) => n,
                });
                out.put_u8(r.family.safi);
            }
        }
        close(out)
    }
}
