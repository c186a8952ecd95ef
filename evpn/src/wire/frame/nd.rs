//! Neighbour discovery behind an IPv6 header (RFC 4861 §6.1, §7.1; HOST-ND-02).

use super::{
    Body, FrameError, NeighborAdvertisement, NeighborSolicitation, RouterAdvertisement, RouterSolicitation,
    dhcp, ethertype,
};
use crate::types::Mac;
use crate::wire::parse::{Parsed, array, ipv6};
use nom::number::complete::{be_u8, be_u16};
use std::net::Ipv6Addr;

pub(super) const ICMPV6: u8 = 58;
/// More extension headers than any host sends before neighbour discovery.
const MAX_EXTENSIONS: usize = 8;

/// Message types.
pub(super) mod kind {
    pub(in super::super) const RS: u8 = 133;
    pub(in super::super) const RA: u8 = 134;
    pub(in super::super) const NS: u8 = 135;
    pub(in super::super) const NA: u8 = 136;
}

/// Option types.
pub(super) const SLLA: u8 = 1;
pub(super) const TLLA: u8 = 2;
const NONCE: u8 = 14;

pub(super) struct Header<'a> {
    src: Ipv6Addr,
    dst: Ipv6Addr,
    next: u8,
    hop_limit: u8,
    /// As long as the header says; padding of the frame is cut off.
    payload: &'a [u8],
}

fn header(i: &[u8]) -> Parsed<'_, (u8, u16, Header<'_>)> {
    let (i, [version, ..]) = array::<4>(i)?;
    let (i, len) = be_u16(i)?;
    let (i, next) = be_u8(i)?;
    let (i, hop_limit) = be_u8(i)?;
    let (i, src) = ipv6(i)?;
    let (i, dst) = ipv6(i)?;
    Ok((&[], (version >> 4, len, Header { src, dst, next, hop_limit, payload: i })))
}

/// Reads an IPv6 packet; what is neither neighbour discovery nor DHCP is [`Body::Other`].
pub(super) fn parse(to: Mac, from: Mac, i: &[u8]) -> Result<Body, FrameError> {
    let Ok((_, (version, len, mut h))) = header(i) else { return Err(FrameError::Truncated) };
    if version != 6 {
        return Err(FrameError::Ipv6Header);
    }
    h.payload = h.payload.get(..usize::from(len)).ok_or(FrameError::Ipv6Header)?;
    let m = match upper(&h)? {
        Some(Upper { protocol: ICMPV6, payload }) => payload,
        Some(u) => {
            let lease = dhcp::parse6(to, from, &u)?;
            return Ok(lease.map_or(Body::Other(ethertype::IPV6), Body::Dhcp));
        }
        None => return Ok(Body::Other(ethertype::IPV6)),
    };
    let [kind, code, ..] = *m else { return Ok(Body::Other(ethertype::IPV6)) };
    if !matches!(kind, kind::RS | kind::RA | kind::NS | kind::NA) {
        return Ok(Body::Other(ethertype::IPV6));
    }
    if h.hop_limit != 255 {
        return Err(FrameError::HopLimit);
    }
    if checksum(h.src, h.dst, m) != 0 {
        return Err(FrameError::Checksum);
    }
    if code != 0 {
        return Err(FrameError::Code);
    }
    message(&h, kind, m)
}

/// What an IPv6 packet carries.
pub(super) struct Upper<'a> {
    pub(super) protocol: u8,
    pub(super) payload: &'a [u8],
}

/// The ICMPv6 message or UDP datagram behind a bounded number of extension headers.
fn upper<'a>(h: &Header<'a>) -> Result<Option<Upper<'a>>, FrameError> {
    let (mut next, mut rest) = (h.next, h.payload);
    for _ in 0..=MAX_EXTENSIONS {
        match next {
            ICMPV6 | dhcp::UDP => return Ok(Some(Upper { protocol: next, payload: rest })),
            // Hop-by-hop, routing, destination options: next header, length in units of 8 without the first.
            0 | 43 | 60 => {
                let [n, len, _, left, ..] = *rest else { return Err(FrameError::ExtensionHeaders) };
                if next == 43 && left != 0 {
                    return Err(FrameError::ExtensionHeaders);
                }
                next = n;
                rest = rest.get((usize::from(len) + 1) * 8..).ok_or(FrameError::ExtensionHeaders)?;
            }
            // Fragment: 8 octets. Neighbour discovery may not be fragmented.
            44 => {
                return match rest.first() {
                    Some(&ICMPV6) => Err(FrameError::Fragment),
                    Some(_) => Ok(None),
                    None => Err(FrameError::ExtensionHeaders),
                };
            }
            // Authentication: length in units of 4 without the first two.
            51 => {
                let [n, len, ..] = *rest else { return Err(FrameError::ExtensionHeaders) };
                next = n;
                rest = rest.get((usize::from(len) + 2) * 4..).ok_or(FrameError::ExtensionHeaders)?;
            }
            _ => return Ok(None),
        }
    }
    Err(FrameError::ExtensionHeaders)
}

/// Internet checksum over pseudo-header and message; 0 when the one in the message is right.
pub(super) fn checksum(src: Ipv6Addr, dst: Ipv6Addr, m: &[u8]) -> u16 {
    fn words(b: &[u8]) -> u32 {
        b.chunks(2).map(|w| u32::from(w[0]) << 8 | w.get(1).map_or(0, |b| u32::from(*b))).sum()
    }
    // At most 32,768 words of 16 bits and the pseudo-header: no overflow.
    let mut sum = words(&src.octets()) + words(&dst.octets()) + m.len() as u32 + u32::from(ICMPV6) + words(m);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// Whether a frame is a solicitation to all, of a host that has an address, with other options than the one link-layer address
/// that RFC 4861 §4.3 has for it (PROXY-REPLY-08). What the rules at the ports look for; extension headers and tags are not
/// looked behind there, and not here.
pub fn has_unknown_options(frame: &[u8]) -> bool {
    let Some(f) = frame.get(..78) else { return false };
    let solicits = f[0] & 1 == 1 && f[12..14] == [0x86, 0xdd] && f[20] == ICMPV6 && f[54] == kind::NS;
    let len = u16::from_be_bytes([f[18], f[19]]);
    let plain = len <= 24 || (len <= 32 && frame.get(78) == Some(&SLLA));
    solicits && f[22..38] != [0; 16] && !plain
}

/// What the options say.
#[derive(Default)]
struct Options {
    slla: Option<Mac>,
    tlla: Option<Mac>,
    other: bool,
}

fn options(mut i: &[u8]) -> Result<Options, FrameError> {
    let mut out = Options::default();
    while !i.is_empty() {
        let [kind, units, ..] = *i else { return Err(FrameError::Option) };
        let len = usize::from(units) * 8;
        let (option, rest) = i.split_at_checked(len).filter(|_| len > 0).ok_or(FrameError::Option)?;
        match kind {
            SLLA | TLLA => {
                let mac = match option {
                    [_, 1, mac @ ..] => Mac::from_slice(mac).filter(|m| m.is_host()),
                    _ => None,
                };
                let mac = mac.ok_or(FrameError::Option)?;
                let slot = if kind == SLLA { &mut out.slla } else { &mut out.tlla };
                // Of a repeated option the first counts.
                slot.get_or_insert(mac);
            }
            NONCE => {}
            _ => out.other = true,
        }
        i = rest;
    }
    Ok(out)
}

/// Flags and target of NS and NA: type, code, checksum, a word, the target.
fn target(m: &[u8]) -> Result<(u8, Ipv6Addr, Options), FrameError> {
    let [_, _, _, _, flags, _, _, _, rest @ ..] = m else { return Err(FrameError::Truncated) };
    let Ok((rest, target)) = ipv6(rest) else { return Err(FrameError::Truncated) };
    if target.is_multicast() {
        return Err(FrameError::Target);
    }
    Ok((*flags, target, options(rest)?))
}

fn message(h: &Header<'_>, kind: u8, m: &[u8]) -> Result<Body, FrameError> {
    let (src, dst) = (h.src, h.dst);
    if src.is_multicast() {
        return Err(FrameError::Addresses);
    }
    match kind {
        kind::NS => {
            let (_, target, o) = target(m)?;
            // Duplicate address detection: to the solicited-node group only, without a link-layer address.
            if src.is_unspecified() && (o.slla.is_some() || !is_solicited_node(dst)) {
                return Err(FrameError::Addresses);
            }
            Ok(Body::NeighborSolicitation(NeighborSolicitation {
                src,
                dst,
                target,
                slla: o.slla,
                other_options: o.other || o.tlla.is_some(),
            }))
        }
        kind::NA => {
            let (flags, target, o) = target(m)?;
            let solicited = flags & 0x40 != 0;
            if solicited && dst.is_multicast() {
                return Err(FrameError::Addresses);
            }
            Ok(Body::NeighborAdvertisement(NeighborAdvertisement {
                src,
                dst,
                target,
                router: flags & 0x80 != 0,
                solicited,
                r#override: flags & 0x20 != 0,
                tlla: o.tlla,
            }))
        }
        kind::RS => {
            let o = options(m.get(8..).ok_or(FrameError::Truncated)?)?;
            if src.is_unspecified() && o.slla.is_some() {
                return Err(FrameError::Addresses);
            }
            Ok(Body::RouterSolicitation(RouterSolicitation { src, slla: o.slla }))
        }
        _ => {
            let [_, _, _, _, _, _, a, b, ..] = *m else { return Err(FrameError::Truncated) };
            let o = options(m.get(16..).ok_or(FrameError::Truncated)?)?;
            if !src.is_unicast_link_local() {
                return Err(FrameError::Addresses);
            }
            let lifetime = u16::from_be_bytes([a, b]);
            Ok(Body::RouterAdvertisement(RouterAdvertisement { src, lifetime, slla: o.slla }))
        }
    }
}

/// ff02::1:ffXX:XXXX.
fn is_solicited_node(a: Ipv6Addr) -> bool {
    matches!(a.segments(), [0xff02, 0, 0, 0, 0, 1, 0xff00..=0xffff, _])
}
