//! Messages for the sending side: UPDATEs filled route by route up to a limit, KEEPALIVE, End-of-RIB.

use super::attr::Attrs;
use super::attr_codec::{EXTENDED, OPTIONAL, code, put_attrs};
use super::codec::{HEADER, UPDATE, close};
use super::message::{EncodeCtx, Family, Message, MpUnreach, NextHop, Nlri, Update};
use super::nlri::EvpnRoute;
use super::nlri_codec::{evpn_len, put_evpn};
use super::update::hop_octets;
use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Fills one UPDATE with EVPN routes of equal attributes and next hop, without encoding the attributes for
/// each (PIT-22). The MP attribute comes first (BGP-UPD-04).
#[derive(Clone, Debug)]
pub struct UpdateBuilder {
    /// Room for [`HEAD`] octets, then the value of the MP attribute.
    out: BytesMut,
    /// Which MP attribute.
    code: u8,
    /// What follows the MP attribute.
    attrs: BytesMut,
    /// Octets that routes may still use.
    room: usize,
    /// Routes so far.
    routes: usize,
}

/// Octets before the value of the MP attribute: header, length of withdrawn routes, length of attributes,
/// attribute flags, code and two-octet length. With a one-octet length it is one less.
const HEAD: usize = HEADER + 2 + 2 + 4;

impl UpdateBuilder {
    /// An UPDATE that advertises, of at most `max` octets; `as4`: the neighbour understands four-octet AS
    /// numbers.
    pub fn reach(attrs: &Attrs, next_hop: NextHop, max: usize, as4: bool) -> Self {
        let mut encoded = BytesMut::with_capacity(96);
        put_attrs(&mut encoded, attrs, as4);
        let (hop, n) = hop_octets(next_hop);
        let mut b = Self::new(code::MP_REACH, encoded, max);
        b.out.put_u8(n as u8);
        b.out.put_slice(hop.get(..n).unwrap_or(&hop));
        b.out.put_u8(0);
        b.room = b.room.saturating_sub(n + 2);
        b
    }

    /// An UPDATE that withdraws, of at most `max` octets.
    pub fn unreach(max: usize) -> Self {
        Self::new(code::MP_UNREACH, BytesMut::new(), max)
    }

    fn new(code: u8, attrs: BytesMut, max: usize) -> Self {
        let mut out = BytesMut::with_capacity(max.min(256) + attrs.len());
        out.put_slice(&[0; HEAD]);
        out.put_u16(Family::EVPN.afi);
        out.put_u8(Family::EVPN.safi);
        let room = max.min(usize::from(u16::MAX)).saturating_sub(out.len() + attrs.len());
        Self { out, code, attrs, room, routes: 0 }
    }

    /// Adds a route; false if it does not fit any more, then nothing has changed. False on an empty builder means
    /// that the route does not fit a message at all (BGP-MSG-03).
    pub fn push(&mut self, route: &EvpnRoute) -> bool {
        let len = evpn_len(route);
        if len > self.room {
            return false;
        }
        put_evpn(&mut self.out, route);
        self.room -= len;
        self.routes += 1;
        true
    }

    /// Routes in it.
    pub fn len(&self) -> usize {
        self.routes
    }

    /// Nothing in it yet.
    pub fn is_empty(&self) -> bool {
        self.routes == 0
    }

    /// The message; `None` without routes.
    pub fn finish(self) -> Option<Bytes> {
        let Self { mut out, code, attrs, routes, .. } = self;
        if routes == 0 {
            return None;
        }
        let value = out.len() - HEAD;
        out.put_slice(&attrs);
        // Where the message begins: a one-octet length leaves the first octet unused.
        let start = usize::from(value <= 255);
        let [a, b] = ((out.len() - HEAD + 4 - start) as u16).to_be_bytes();
        let [v, w] = (value as u16).to_be_bytes();
        let lengths = if start == 1 {
            [0, 0, a, b, OPTIONAL, code, w, 0]
        } else {
            [0, 0, a, b, OPTIONAL | EXTENDED, code, v, w]
        };
        let head = out.get_mut(start..HEAD)?;
        let (header, rest) = head.split_at_mut_checked(HEADER)?;
        header.fill(0xff);
        header[18] = UPDATE;
        rest.copy_from_slice(lengths.get(..rest.len())?);
        out.advance(start);
        close(out)
    }
}

/// The 19 octets of a KEEPALIVE.
pub fn keepalive() -> Bytes {
    Bytes::from_static(&[
        0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0,
        19, 4,
    ])
}

/// End-of-RIB for a family (RFC 4724 §2): an empty UPDATE for IPv4 unicast, otherwise an MP_UNREACH_NLRI without
/// routes.
pub fn end_of_rib(family: Family) -> Bytes {
    let unreach = (family != Family::IPV4).then(|| MpUnreach { family, nlri: Nlri::Unknown(Bytes::new()) });
    Message::Update(Update { unreach, ..Update::default() }).encode(&EncodeCtx::default())
}
