//! DHCPv4 (RFC 2131) and DHCPv6 (RFC 8415), as far as they name a host and its address: signs of life, no bindings.
//!
//! The UDP checksum is not looked at: what a guest on the same machine sends has none yet when the tap sees it.

use super::nd::Upper;
use super::{Body, FrameError, ethertype};
use crate::types::Mac;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub(super) const UDP: u8 = 17;
const SERVER4: u16 = 67;
const CLIENT4: u16 = 68;
const CLIENT6: u16 = 546;
const SERVER6: u16 = 547;
/// More options than any message has that is worth reading.
const MOST_OPTIONS: usize = 64;

/// A client, and the address that it asks for or is given.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Dhcp {
    /// Whose address it is about: the hardware address of DHCPv4; of DHCPv6 the source of what the client sends, and the
    /// destination of what is sent to it.
    pub client: Mac,
    /// What is given (ACK, Reply), or asked for by who has been offered it or has it (Request, Renew, Rebind).
    pub address: Option<IpAddr>,
    /// From the client rather than to it.
    pub of_client: bool,
}

fn ports(udp: &[u8]) -> Option<(u16, u16, &[u8])> {
    let [a, b, c, d, e, f, _, _, rest @ ..] = udp else { return None };
    let len = usize::from(u16::from_be_bytes([*e, *f])).checked_sub(8)?;
    Some((u16::from_be_bytes([*a, *b]), u16::from_be_bytes([*c, *d]), rest.get(..len)?))
}

/// An IPv4 packet; what is not DHCP is [`Body::Other`].
pub(super) fn parse4(i: &[u8]) -> Result<Body, FrameError> {
    const OTHER: Result<Body, FrameError> = Ok(Body::Other(ethertype::IPV4));
    let [vihl, _, l0, l1, _, _, f0, f1, _, protocol, ..] = *i else { return Err(FrameError::Truncated) };
    let header = usize::from(vihl & 15) * 4;
    let len = usize::from(u16::from_be_bytes([l0, l1]));
    if vihl >> 4 != 4 || header < 20 || len < header {
        return Err(FrameError::Ipv4Header);
    }
    // In a fragment there is nothing to be read.
    if protocol != UDP || u16::from_be_bytes([f0, f1]) & 0x3fff != 0 {
        return OTHER;
    }
    let packet = i.get(..len).ok_or(FrameError::Ipv4Header)?;
    let Some((_, to, message)) = ports(&packet[header..]) else { return Err(FrameError::Dhcp) };
    if !matches!(to, SERVER4 | CLIENT4) {
        return OTHER;
    }
    let mut sum: u32 = packet[..header].chunks(2).map(|w| u32::from(w[0]) << 8 | u32::from(w[1])).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    if sum != 0xffff {
        return Err(FrameError::Ipv4Header);
    }
    bootp(message).map(|d| d.map_or(Body::Other(ethertype::IPV4), Body::Dhcp))
}

fn address4(b: &[u8]) -> Option<Ipv4Addr> {
    let octets: [u8; 4] = b.get(..4)?.try_into().ok()?;
    Some(Ipv4Addr::from(octets)).filter(|a| !(a.is_unspecified() || a.is_multicast() || a.is_broadcast()))
}

/// op, htype, hlen, hops, xid, secs, flags; ciaddr at 12, yiaddr at 16, chaddr at 28, the cookie at 236.
fn bootp(m: &[u8]) -> Result<Option<Dhcp>, FrameError> {
    let (Some(fixed), Some(options)) = (m.get(..236), m.get(236..)) else { return Err(FrameError::Dhcp) };
    let [op, 1, 6, ..] = *fixed else { return Err(FrameError::Dhcp) };
    let Some(options) = options.strip_prefix(&[0x63, 0x82, 0x53, 0x63]) else { return Ok(None) };
    let client = Mac::from_slice(&fixed[28..]).filter(|m| m.is_host()).ok_or(FrameError::Dhcp)?;
    let (kind, requested) = options4(options)?;
    let address = match (op, kind) {
        // Request: what was offered; of one who has the address, that.
        (1, 3) => requested.or_else(|| address4(&fixed[12..])),
        (2, 5) => address4(&fixed[16..]),
        // Other words of a client, which is about to have an address.
        (1, _) => None,
        _ => return Ok(None),
    };
    Ok(Some(Dhcp { client, address: address.map(IpAddr::V4), of_client: op == 1 }))
}

/// Message type and requested address.
fn options4(mut i: &[u8]) -> Result<(u8, Option<Ipv4Addr>), FrameError> {
    let (mut kind, mut requested) = (0, None);
    for _ in 0..MOST_OPTIONS {
        match *i {
            [] | [255, ..] => return Ok((kind, requested)),
            [0, ref rest @ ..] => i = rest,
            [code, len, ref rest @ ..] => {
                let (value, rest) = rest.split_at_checked(len.into()).ok_or(FrameError::Dhcp)?;
                match (code, value) {
                    (53, [k]) => kind = *k,
                    (50, v) if v.len() == 4 => requested = address4(v),
                    _ => {}
                }
                i = rest;
            }
            [_] => return Err(FrameError::Dhcp),
        }
    }
    Ok((kind, requested))
}

/// The UDP datagram of an IPv6 packet, if there is one and it is DHCP's.
pub(super) fn parse6(to: Mac, from: Mac, u: &Upper<'_>) -> Result<Option<Dhcp>, FrameError> {
    if u.protocol != UDP {
        return Ok(None);
    }
    let Some((_, port, message)) = ports(u.payload) else { return Err(FrameError::Dhcp) };
    let [kind, _, _, _, ref options @ ..] = *message else {
        return if matches!(port, CLIENT6 | SERVER6) { Err(FrameError::Dhcp) } else { Ok(None) };
    };
    match (port, kind) {
        // Reply.
        (CLIENT6, 7) if to.is_host() => {
            Ok(Some(Dhcp { client: to, address: lease6(options, false)?, of_client: false }))
        }
        // Request, Renew, Rebind.
        (SERVER6, 3 | 5 | 6) => {
            Ok(Some(Dhcp { client: from, address: lease6(options, true)?, of_client: true }))
        }
        _ => Ok(None),
    }
}

/// The next option: code, length, value.
fn option6(i: &[u8]) -> Result<(u16, &[u8], &[u8]), FrameError> {
    let [a, b, c, d, rest @ ..] = i else { return Err(FrameError::Dhcp) };
    let len = usize::from(u16::from_be_bytes([*c, *d]));
    let (value, rest) = rest.split_at_checked(len).ok_or(FrameError::Dhcp)?;
    Ok((u16::from_be_bytes([*a, *b]), value, rest))
}

/// The first address of an identity association (IA_NA, IAADDR) that is asked for, or given for any time.
fn lease6(mut i: &[u8], asked: bool) -> Result<Option<IpAddr>, FrameError> {
    for _ in 0..MOST_OPTIONS {
        if i.is_empty() {
            break;
        }
        let (code, value, rest) = option6(i)?;
        i = rest;
        if code != 3 {
            continue;
        }
        let mut inner = value.get(12..).ok_or(FrameError::Dhcp)?;
        for _ in 0..MOST_OPTIONS {
            if inner.is_empty() {
                break;
            }
            let (code, value, rest) = option6(inner)?;
            inner = rest;
            let Some((octets, [_, _, _, _, valid @ ..])) = value.split_first_chunk::<16>() else {
                if code == 5 {
                    return Err(FrameError::Dhcp);
                }
                continue;
            };
            let a = Ipv6Addr::from(*octets);
            let lives = asked || valid.get(..4).is_some_and(|v| v != [0; 4]);
            if code == 5 && lives && !a.is_unspecified() && !a.is_multicast() {
                return Ok(Some(IpAddr::V6(a)));
            }
        }
    }
    Ok(None)
}
