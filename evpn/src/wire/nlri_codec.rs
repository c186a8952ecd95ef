//! NLRI on the wire: EVPN routes, IPv4 and IPv6 prefixes, route target memberships.

use super::community::ExtCommunity;
use super::nlri::{
    EthernetAd, EthernetSegment, EvpnNlri, EvpnRoute, Imet, Ipv4Prefix, Ipv6Prefix, JoinSync, LeaveSync,
    MacIp, Membership, MulticastKey, PrefixRoute, UnknownRoute,
};
use super::parse::{Parsed, esi, fail, ip, ipv4, ipv6, label, mac, octets, opt_ip, rd, tag};
use crate::types::{Asn, Esi, Label};
use bytes::{BufMut, Bytes, BytesMut};
use nom::number::complete::{be_u8, be_u32};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Reads EVPN NLRI until the end of `i` (EVPN-NLRI-01), each with a path identifier in front where that was agreed
/// (BGP-ADDP-03).
pub(crate) fn evpn_list(mut i: &[u8], add_path: bool) -> Parsed<'_, Vec<EvpnNlri>> {
    // 35 octets is the shortest Type 2, by far the most frequent route.
    let mut out = Vec::with_capacity(i.len() / 35 + 1);
    while !i.is_empty() {
        let (rest, path_id) = path_id(i, add_path)?;
        let (rest, route) = evpn_route(rest)?;
        out.push(EvpnNlri { path_id, route });
        i = rest;
    }
    Ok((i, out))
}

fn path_id(i: &[u8], add_path: bool) -> Parsed<'_, Option<u32>> {
    if add_path { be_u32(i).map(|(r, n)| (r, Some(n))) } else { Ok((i, None)) }
}

/// One route with its type and length octets. Structural faults are errors here (EVPN-ERR-02, -03, -04);
/// values that are well-formed but wrong are found by [`semantic_fault`].
fn evpn_route(i: &[u8]) -> Parsed<'_, EvpnRoute> {
    let [kind, len, rest @ ..] = i else {
        return fail(i, "fewer than two octets left for an EVPN route");
    };
    let Some((body, rest)) = rest.split_at_checked(usize::from(*len)) else {
        return fail(i.get(1..).unwrap_or_default(), "EVPN route length runs past the attribute");
    };
    let route = match kind {
        1 => ethernet_ad(i, body)?,
        2 => mac_ip(i, body)?,
        3 => imet(i, body)?,
        4 => segment(i, body)?,
        5 => prefix(i, body)?,
        6 => multicast(body)
            .and_then(|(b, key)| flags(b, key))
            .and_then(|(b, key)| end(b, EvpnRoute::Smet(key)))?,
        7 => join_sync(body)?,
        8 => leave_sync(body)?,
        _ => EvpnRoute::Unknown(UnknownRoute { route_type: *kind, body: Bytes::copy_from_slice(body) }),
    };
    Ok((rest, route))
}

/// Points at the length octet of the route that starts at `i`.
#[cold]
fn bad_length<T>(i: &[u8]) -> Result<T, nom::Err<super::parse::Bad<'_>>> {
    fail(i.get(1..).unwrap_or_default(), "EVPN route length is not legal for its type").map(|(_, t)| t)
}

type Route<'a> = Result<EvpnRoute, nom::Err<super::parse::Bad<'a>>>;

fn end(rest: &[u8], route: EvpnRoute) -> Route<'_> {
    if rest.is_empty() { Ok(route) } else { fail(rest, "EVPN route longer than its fields").map(|(_, r)| r) }
}

/// Type 1 (EVPN-NLRI-04).
fn ethernet_ad<'a>(i: &'a [u8], body: &'a [u8]) -> Route<'a> {
    if body.len() != 25 {
        return bad_length(i);
    }
    let (b, rd) = rd(body)?;
    let (b, esi) = esi(b)?;
    let (b, tag) = tag(b)?;
    let (_, label) = label(b)?;
    Ok(EvpnRoute::EthernetAd(EthernetAd { rd, esi, tag, label }))
}

#[inline]
fn mac_ip<'a>(i: &'a [u8], body: &'a [u8]) -> Route<'a> {
    if !matches!(body.len(), 33 | 36 | 37 | 40 | 49 | 52) {
        return bad_length(i);
    }
    let (b, rd) = rd(body)?;
    let (b, esi) = esi(b)?;
    let (b, tag) = tag(b)?;
    let (b, mac) = mac(b)?;
    let (rest, ip) = match (b, body.len()) {
        ([0, rest @ ..], 33 | 36) => (rest, None),
        ([32, rest @ ..], 37 | 40) => {
            let (rest, a) = ipv4(rest)?;
            (rest, Some(IpAddr::V4(a)))
        }
        ([128, rest @ ..], 49 | 52) => {
            let (rest, a) = ipv6(rest)?;
            (rest, Some(IpAddr::V6(a)))
        }
        ([0 | 32 | 128, ..], _) => {
            return fail(b, "IP address length contradicts the route length").map(|(_, r)| r);
        }
        _ => return fail(b, "IP address length is not 0, 32 or 128 bits").map(|(_, r)| r),
    };
    let (rest, label1) = label(rest)?;
    // The presence of the second label follows from the route length alone (EVPN-NLRI-05).
    let label2 = if rest.is_empty() { None } else { Some(label(rest)?.1) };
    Ok(EvpnRoute::MacIp(MacIp { rd, esi, tag, mac, ip, label1, label2 }))
}

/// Type 3 (EVPN-NLRI-06).
fn imet<'a>(i: &'a [u8], body: &'a [u8]) -> Route<'a> {
    if !matches!(body.len(), 17 | 29) {
        return bad_length(i);
    }
    let (b, rd) = rd(body)?;
    let (b, tag) = tag(b)?;
    let (rest, originator) = originator(b)?;
    end(rest, EvpnRoute::Imet(Imet { rd, tag, originator }))
}

/// Type 4 (EVPN-NLRI-07).
fn segment<'a>(i: &'a [u8], body: &'a [u8]) -> Route<'a> {
    if !matches!(body.len(), 23 | 35) {
        return bad_length(i);
    }
    let (b, rd) = rd(body)?;
    let (b, esi) = esi(b)?;
    let (rest, originator) = originator(b)?;
    end(rest, EvpnRoute::EthernetSegment(EthernetSegment { rd, esi, originator }))
}

/// The last field of types 3 and 4: its length must use up the route exactly (EVPN-ERR-04).
fn originator(i: &[u8]) -> Parsed<'_, IpAddr> {
    match (i, i.len()) {
        ([32, ..], 5) | ([128, ..], 17) => ip(i),
        ([32 | 128, ..], _) => fail(i, "IP address length contradicts the route length"),
        _ => fail(i, "IP address length is not 32 or 128 bits"),
    }
}

fn prefix<'a>(i: &'a [u8], body: &'a [u8]) -> Route<'a> {
    let v6 = match body.len() {
        34 => false,
        58 => true,
        _ => return bad_length(i),
    };
    let (b, rd) = rd(body)?;
    let (b, esi) = esi(b)?;
    let (at_len, tag) = tag(b)?;
    let (b, prefix_len) = be_u8(at_len)?;
    if prefix_len > if v6 { 128 } else { 32 } {
        return fail(at_len, "prefix length is beyond the address").map(|(_, r)| r);
    }
    let (b, prefix, gateway) = if v6 {
        let (b, p) = ipv6(b)?;
        let (b, g) = ipv6(b)?;
        (b, IpAddr::V6(mask6(p, prefix_len)), IpAddr::V6(g))
    } else {
        let (b, p) = ipv4(b)?;
        let (b, g) = ipv4(b)?;
        (b, IpAddr::V4(mask4(p, prefix_len)), IpAddr::V4(g))
    };
    let (_, label) = label(b)?;
    Ok(EvpnRoute::Prefix(PrefixRoute { rd, esi, tag, prefix, prefix_len, gateway, label }))
}

/// Tag, source, group and originator, shared by types 6, 7 and 8 (RFC 9251 §9); flags are left at 0.
fn multicast(i: &[u8]) -> Parsed<'_, MulticastKey> {
    let (b, rd) = rd(i)?;
    multicast_rest(b, rd)
}

fn multicast_rest(i: &[u8], rd: crate::types::Rd) -> Parsed<'_, MulticastKey> {
    let (b, tag) = tag(i)?;
    let (b, source) = opt_ip(b)?;
    let (b, group) = opt_ip(b)?;
    let (b, originator) = ip(b)?;
    Ok((b, MulticastKey { rd, tag, source, group, originator, flags: 0 }))
}

fn flags(i: &[u8], key: MulticastKey) -> Parsed<'_, MulticastKey> {
    let (b, flags) = be_u8(i)?;
    Ok((b, MulticastKey { flags, ..key }))
}

fn join_sync(body: &[u8]) -> Route<'_> {
    let (b, rd) = rd(body)?;
    let (b, esi) = esi(b)?;
    let (b, key) = multicast_rest(b, rd)?;
    let (b, key) = flags(b, key)?;
    end(b, EvpnRoute::JoinSync(JoinSync { esi, key }))
}

fn leave_sync(body: &[u8]) -> Route<'_> {
    let (b, rd) = rd(body)?;
    let (b, esi) = esi(b)?;
    let (b, key) = multicast_rest(b, rd)?;
    let (b, _reserved) = octets(b, 4)?;
    let (b, max_response) = be_u8(b)?;
    let (b, key) = flags(b, key)?;
    end(b, EvpnRoute::LeaveSync(LeaveSync { esi, key, max_response }))
}

/// A value that has the right form but may not occur in an advertised route, with the octets between the start
/// of the route and the offending field (EVPN-ERR-05, EVPN-ERR-06, EVPN-T5-08). Withdrawn routes are not judged:
/// only their keys count (EVPN-NLRI-09).
pub(crate) fn semantic_fault(route: &EvpnRoute) -> Option<(usize, &'static str)> {
    // Type and length octet, route distinguisher.
    const ESI: usize = 2 + 8;
    const MAC: usize = ESI + 10 + 4 + 1;
    let assigned = |e: Esi| e.0[0] <= 5;
    let bad_esi = (ESI, "ESI type is not assigned");
    match route {
        EvpnRoute::MacIp(r) => {
            // EVPN-ES-02; MAX-ESI is allowed here alone.
            if !assigned(r.esi) && r.esi != Esi::MAX {
                Some(bad_esi)
            } else if r.mac.is_multicast() {
                Some((MAC, "multicast MAC address in a Type-2 route"))
            } else if r.mac.is_zero() && r.ip.is_some() {
                // Without an address it is the Unknown MAC Route (EVPN-DCI-09).
                Some((MAC, "zero MAC address in a Type-2 route"))
            } else {
                None
            }
        }
        EvpnRoute::EthernetAd(r) => (!assigned(r.esi)).then_some(bad_esi),
        EvpnRoute::EthernetSegment(r) if r.esi.is_zero() => Some((ESI, "ESI is zero in a Type-4 route")),
        EvpnRoute::EthernetSegment(r) => (!assigned(r.esi)).then_some(bad_esi),
        EvpnRoute::Prefix(r) => {
            if !assigned(r.esi) {
                Some(bad_esi)
            } else if !r.esi.is_zero() && !r.gateway.is_unspecified() {
                let address = if r.prefix.is_ipv4() { 4 } else { 16 };
                Some((ESI + 10 + 4 + 1 + address, "both ESI and gateway address in a Type-5 route"))
            } else {
                None
            }
        }
        EvpnRoute::JoinSync(r) => (!assigned(r.esi)).then_some(bad_esi),
        EvpnRoute::LeaveSync(r) => (!assigned(r.esi)).then_some(bad_esi),
        EvpnRoute::Imet(_) | EvpnRoute::Smet(_) | EvpnRoute::Unknown(_) => None,
    }
}

/// Octets of this route on the wire, type and length included, path identifier not.
pub(crate) fn evpn_len(route: &EvpnRoute) -> usize {
    fn ip(a: Option<&IpAddr>) -> usize {
        match a {
            None => 1,
            Some(IpAddr::V4(_)) => 5,
            Some(IpAddr::V6(_)) => 17,
        }
    }
    fn key(k: &MulticastKey) -> usize {
        8 + 4 + ip(k.source.as_ref()) + ip(k.group.as_ref()) + ip(Some(&k.originator)) + 1
    }
    2 + match route {
        EvpnRoute::EthernetAd(_) => 25,
        EvpnRoute::MacIp(r) => {
            8 + 10 + 4 + 7 + ip(r.ip.as_ref()) + 3 + if r.label2.is_some() { 3 } else { 0 }
        }
        EvpnRoute::Imet(r) => 8 + 4 + ip(Some(&r.originator)),
        EvpnRoute::EthernetSegment(r) => 8 + 10 + ip(Some(&r.originator)),
        EvpnRoute::Prefix(r) => {
            if r.prefix.is_ipv4() {
                34
            } else {
                58
            }
        }
        EvpnRoute::Smet(k) => key(k),
        EvpnRoute::JoinSync(r) => 10 + key(&r.key),
        EvpnRoute::LeaveSync(r) => 10 + key(&r.key) + 5,
        EvpnRoute::Unknown(r) => r.body.len().min(255),
    }
}

/// Appends a route with its type and length octets.
pub(crate) fn put_evpn(out: &mut BytesMut, route: &EvpnRoute) {
    let len = (evpn_len(route) - 2) as u8;
    match route {
        EvpnRoute::MacIp(r) => {
            // The longest form is 54 octets: one bounds check for all fields.
            let mut b = [0u8; 54];
            b[0] = 2;
            b[1] = len;
            b[2..10].copy_from_slice(&r.rd.0);
            b[10..20].copy_from_slice(&r.esi.0);
            b[20..24].copy_from_slice(&r.tag.0.to_be_bytes());
            b[24] = 48;
            b[25..31].copy_from_slice(&r.mac.0);
            let mut at = 32;
            match r.ip {
                None => {}
                Some(IpAddr::V4(a)) => {
                    b[31] = 32;
                    b[32..36].copy_from_slice(&a.octets());
                    at = 36;
                }
                Some(IpAddr::V6(a)) => {
                    b[31] = 128;
                    b[32..48].copy_from_slice(&a.octets());
                    at = 48;
                }
            }
            for l in [Some(r.label1), r.label2].into_iter().flatten() {
                b[at..at + 3].copy_from_slice(&l.0.to_be_bytes()[1..]);
                at += 3;
            }
            out.extend_from_slice(&b[..at]);
        }
        EvpnRoute::EthernetAd(r) => {
            out.put_slice(&[1, len]);
            out.put_slice(&r.rd.0);
            out.put_slice(&r.esi.0);
            out.put_u32(r.tag.0);
            put_label(out, r.label);
        }
        EvpnRoute::Imet(r) => {
            out.put_slice(&[3, len]);
            out.put_slice(&r.rd.0);
            out.put_u32(r.tag.0);
            put_ip(out, Some(r.originator));
        }
        EvpnRoute::EthernetSegment(r) => {
            out.put_slice(&[4, len]);
            out.put_slice(&r.rd.0);
            out.put_slice(&r.esi.0);
            put_ip(out, Some(r.originator));
        }
        EvpnRoute::Prefix(r) => put_prefix(out, len, r),
        EvpnRoute::Smet(k) => {
            out.put_slice(&[6, len]);
            out.put_slice(&k.rd.0);
            put_multicast(out, k);
            out.put_u8(k.flags);
        }
        EvpnRoute::JoinSync(r) => {
            out.put_slice(&[7, len]);
            out.put_slice(&r.key.rd.0);
            out.put_slice(&r.esi.0);
            put_multicast(out, &r.key);
            out.put_u8(r.key.flags);
        }
        EvpnRoute::LeaveSync(r) => {
            out.put_slice(&[8, len]);
            out.put_slice(&r.key.rd.0);
            out.put_slice(&r.esi.0);
            put_multicast(out, &r.key);
            out.put_slice(&[0, 0, 0, 0, r.max_response, r.key.flags]);
        }
        EvpnRoute::Unknown(r) => {
            out.put_slice(&[r.route_type, len]);
            out.put_slice(r.body.get(..usize::from(len)).unwrap_or_default());
        }
    }
}

fn put_prefix(out: &mut BytesMut, len: u8, r: &PrefixRoute) {
    out.put_slice(&[5, len]);
    out.put_slice(&r.rd.0);
    out.put_slice(&r.esi.0);
    out.put_u32(r.tag.0);
    out.put_u8(r.prefix_len);
    match (r.prefix, r.gateway) {
        (IpAddr::V4(p), IpAddr::V4(g)) => {
            out.put_slice(&p.octets());
            out.put_slice(&g.octets());
        }
        (IpAddr::V6(p), IpAddr::V6(g)) => {
            out.put_slice(&p.octets());
            out.put_slice(&g.octets());
        }
        // A gateway of the other family cannot be written: unused.
        (IpAddr::V4(p), IpAddr::V6(_)) => {
            out.put_slice(&p.octets());
            out.put_u32(0);
        }
        (IpAddr::V6(p), IpAddr::V4(_)) => {
            out.put_slice(&p.octets());
            out.put_u128(0);
        }
    }
    put_label(out, r.label);
}

fn put_multicast(out: &mut BytesMut, k: &MulticastKey) {
    out.put_u32(k.tag.0);
    put_ip(out, k.source);
    put_ip(out, k.group);
    put_ip(out, Some(k.originator));
}

/// A length in bits, then the address.
fn put_ip(out: &mut BytesMut, a: Option<IpAddr>) {
    match a {
        None => out.put_u8(0),
        Some(IpAddr::V4(a)) => {
            out.put_u8(32);
            out.put_slice(&a.octets());
        }
        Some(IpAddr::V6(a)) => {
            out.put_u8(128);
            out.put_slice(&a.octets());
        }
    }
}

/// Three octets.
pub(crate) fn put_label(out: &mut BytesMut, l: Label) {
    out.put_uint(u64::from(l.0 & 0x00ff_ffff), 3);
}

/// `a` with the bits after the first `len` cleared.
pub(crate) fn mask4(a: Ipv4Addr, len: u8) -> Ipv4Addr {
    let keep = u32::MAX.checked_shl(32 - u32::from(len.min(32))).unwrap_or(0);
    Ipv4Addr::from_bits(a.to_bits() & keep)
}

/// `a` with the bits after the first `len` cleared.
pub(crate) fn mask6(a: Ipv6Addr, len: u8) -> Ipv6Addr {
    let keep = u128::MAX.checked_shl(128 - u32::from(len.min(128))).unwrap_or(0);
    Ipv6Addr::from_bits(a.to_bits() & keep)
}

/// Octets that hold `bits` bits of a prefix, zero-filled to `N`.
fn prefix_octets<const N: usize>(i: &[u8]) -> Parsed<'_, (u8, [u8; N])> {
    let (rest, bits) = be_u8(i)?;
    if usize::from(bits) > N * 8 {
        return fail(i, "prefix length is beyond the address");
    }
    match rest.split_at_checked(usize::from(bits).div_ceil(8)) {
        Some((head, rest)) => {
            let mut b = [0; N];
            b[..head.len()].copy_from_slice(head);
            Ok((rest, (bits, b)))
        }
        None => fail(i, "prefix runs past the end of its field"),
    }
}

/// IPv4 prefixes until the end of `i`; host bits are cleared.
pub(crate) fn ipv4_list(mut i: &[u8], add_path: bool) -> Parsed<'_, Vec<Ipv4Prefix>> {
    let mut out = Vec::new();
    while !i.is_empty() {
        let (rest, path_id) = path_id(i, add_path)?;
        let (rest, (len, b)) = prefix_octets::<4>(rest)?;
        out.push(Ipv4Prefix { path_id, addr: mask4(Ipv4Addr::from(b), len), len });
        i = rest;
    }
    Ok((i, out))
}

/// IPv6 prefixes until the end of `i`; host bits are cleared.
pub(crate) fn ipv6_list(mut i: &[u8], add_path: bool) -> Parsed<'_, Vec<Ipv6Prefix>> {
    let mut out = Vec::new();
    while !i.is_empty() {
        let (rest, path_id) = path_id(i, add_path)?;
        let (rest, (len, b)) = prefix_octets::<16>(rest)?;
        out.push(Ipv6Prefix { path_id, addr: mask6(Ipv6Addr::from(b), len), len });
        i = rest;
    }
    Ok((i, out))
}

/// Route target memberships until the end of `i` (BGP-RTC-02). ADD-PATH is never negotiated for this family.
pub(crate) fn rtc_list(mut i: &[u8]) -> Parsed<'_, Vec<Membership>> {
    let mut out = Vec::new();
    while !i.is_empty() {
        let at = i;
        let (rest, (bits, b)) = prefix_octets::<12>(i)?;
        if !matches!(bits, 0 | 32..=96) {
            return fail(at, "membership length is not 0 or 32 to 96 bits");
        }
        let [o1, o2, o3, o4, target @ ..] = b;
        let origin = Asn(u32::from_be_bytes([o1, o2, o3, o4]));
        let keep = u64::MAX.checked_shl(96 - u32::from(bits.max(32))).unwrap_or(0);
        let target = u64::from_be_bytes(target) & keep;
        out.push(Membership { bits, origin, target: ExtCommunity(target.to_be_bytes()) });
        i = rest;
    }
    Ok((i, out))
}

/// Appends a prefix without its path identifier.
pub(crate) fn put_prefix_octets(out: &mut BytesMut, len: u8, octets: &[u8]) {
    out.put_u8(len);
    out.put_slice(octets.get(..usize::from(len).div_ceil(8)).unwrap_or(octets));
}

/// Appends a membership.
pub(crate) fn put_membership(out: &mut BytesMut, m: &Membership) {
    let mut b = [0; 12];
    b[..4].copy_from_slice(&m.origin.0.to_be_bytes());
    b[4..].copy_from_slice(&m.target.0);
    put_prefix_octets(out, m.bits, &b);
}
