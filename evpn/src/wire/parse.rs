//! Small parsers shared by the codec, and the way from an unread tail to a byte offset.

use crate::types::{Esi, EthTag, Label, Mac, Rd};
use nom::IResult;
use nom::error::{ErrorKind, ParseError};
use nom::number::complete::{be_u24, be_u32};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Where and why a parser stopped. Holds no offset: that is worked out once, by [`offset`], and only for input
/// that is at fault, so that good input does not pay for it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bad<'a> {
    /// What was left, beginning with the offending field.
    pub(crate) rest: &'a [u8],
    /// What is wrong.
    pub(crate) what: &'static str,
}

/// Result of a parser.
pub(crate) type Parsed<'a, T> = IResult<&'a [u8], T, Bad<'a>>;

impl<'a> ParseError<&'a [u8]> for Bad<'a> {
    fn from_error_kind(rest: &'a [u8], _: ErrorKind) -> Self {
        Bad { rest, what: "truncated" }
    }
    fn append(_: &'a [u8], _: ErrorKind, other: Self) -> Self {
        other
    }
}

/// Stops at `rest`.
#[cold]
pub(crate) fn fail<'a, T>(rest: &'a [u8], what: &'static str) -> Parsed<'a, T> {
    Err(nom::Err::Error(Bad { rest, what }))
}

/// The fault inside a nom error (`Incomplete` does not occur: all parsers are the `complete` ones).
pub(crate) fn bad<'a>(e: nom::Err<Bad<'a>>, whole: &'a [u8]) -> Bad<'a> {
    match e {
        nom::Err::Error(b) | nom::Err::Failure(b) => b,
        nom::Err::Incomplete(_) => Bad { rest: whole, what: "truncated" },
    }
}

/// Offset of `part`, a slice of `whole`, from the start of `whole`.
pub(crate) fn offset(whole: &[u8], part: &[u8]) -> usize {
    part.as_ptr().addr().wrapping_sub(whole.as_ptr().addr()).min(whole.len())
}

/// `N` octets.
pub(crate) fn array<const N: usize>(i: &[u8]) -> Parsed<'_, [u8; N]> {
    match i.split_first_chunk::<N>() {
        Some((head, rest)) => Ok((rest, *head)),
        None => fail(i, "truncated"),
    }
}

/// `n` octets.
pub(crate) fn octets(i: &[u8], n: usize) -> Parsed<'_, &[u8]> {
    match i.split_at_checked(n) {
        Some((head, rest)) => Ok((rest, head)),
        None => fail(i, "truncated"),
    }
}

/// Four octets, IPv4.
pub(crate) fn ipv4(i: &[u8]) -> Parsed<'_, Ipv4Addr> {
    let (rest, b) = array::<4>(i)?;
    Ok((rest, Ipv4Addr::from(b)))
}

/// Sixteen octets, IPv6.
pub(crate) fn ipv6(i: &[u8]) -> Parsed<'_, Ipv6Addr> {
    let (rest, b) = array::<16>(i)?;
    Ok((rest, Ipv6Addr::from(b)))
}

/// An address behind a length octet that counts bits: 0 (none), 32 or 128.
pub(crate) fn opt_ip(i: &[u8]) -> Parsed<'_, Option<IpAddr>> {
    match i.split_first() {
        Some((0, rest)) => Ok((rest, None)),
        Some((32, rest)) => ipv4(rest).map(|(r, a)| (r, Some(IpAddr::V4(a)))),
        Some((128, rest)) => ipv6(rest).map(|(r, a)| (r, Some(IpAddr::V6(a)))),
        Some(_) => fail(i, "IP address length is not 0, 32 or 128 bits"),
        None => fail(i, "truncated"),
    }
}

/// An address behind a length octet that counts bits: 32 or 128.
pub(crate) fn ip(i: &[u8]) -> Parsed<'_, IpAddr> {
    match opt_ip(i)? {
        (rest, Some(a)) => Ok((rest, a)),
        (_, None) => fail(i, "IP address length is not 32 or 128 bits"),
    }
}

/// Route distinguisher, eight opaque octets (EVPN-NLRI-12).
pub(crate) fn rd(i: &[u8]) -> Parsed<'_, Rd> {
    array::<8>(i).map(|(r, b)| (r, Rd(b)))
}

/// Ethernet segment identifier.
pub(crate) fn esi(i: &[u8]) -> Parsed<'_, Esi> {
    array::<10>(i).map(|(r, b)| (r, Esi(b)))
}

/// Ethernet tag.
pub(crate) fn tag(i: &[u8]) -> Parsed<'_, EthTag> {
    be_u32(i).map(|(r, n)| (r, EthTag(n)))
}

/// Label field: all 24 bits (EVPN-VXLAN-01).
pub(crate) fn label(i: &[u8]) -> Parsed<'_, Label> {
    be_u24(i).map(|(r, n)| (r, Label(n)))
}

/// MAC field of a Type-2 route (RFC 7432 §7.2): a length in bits, then six octets.
pub(crate) fn mac(i: &[u8]) -> Parsed<'_, Mac> {
    match i.split_first() {
        Some((48, rest)) => array::<6>(rest).map(|(r, b)| (r, Mac(b))),
        Some(_) => fail(i, "MAC address length is not 48 bits"),
        None => fail(i, "truncated"),
    }
}
