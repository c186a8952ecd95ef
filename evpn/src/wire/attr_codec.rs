//! Path attributes on the wire, and what RFC 7606 says about faulty ones.
//!
//! | attribute | malformed when | reaction | requirement |
//! |---|---|---|---|
//! | ORIGIN | length not 1, value above 2 | treat as withdraw | BGP-ERR-11 |
//! | AS_PATH | unknown segment, overrun, empty segment, AS 0 | treat as withdraw | BGP-ERR-12, -26 |
//! | NEXT_HOP, MULTI_EXIT_DISC | length not 4 | treat as withdraw | BGP-ERR-13, -14 |
//! | LOCAL_PREF, ORIGINATOR_ID, CLUSTER_LIST | from eBGP | discard | BGP-ERR-15, -19, -20 |
//! | LOCAL_PREF, ORIGINATOR_ID | length not 4 | treat as withdraw | BGP-ERR-15, -19 |
//! | ATOMIC_AGGREGATE, AGGREGATOR, AS4_PATH, AS4_AGGREGATOR | length or content | discard | BGP-ERR-16, -17 |
//! | the community lists, CLUSTER_LIST | length zero or not a multiple of an entry | treat as withdraw | BGP-ERR-18, -20, -22, -23, BGP-LCOMM-03 |
//! | PMSI_TUNNEL, Tunnel Encapsulation | content | treat as withdraw | BGP-ERR-24 |
//! | any of them | Optional or Transitive bit wrong | treat as withdraw | BGP-ERR-08 |

use super::attr::{Aggregator, AsPath, Attrs, Origin, Pmsi, RawAttr, TunnelId};
use super::community::{Community, ExtCommunity, LargeCommunity};
use super::error::Treatment;
use super::parse::label;
use super::path;
use crate::types::{Asn, RouterId};
use bytes::{BufMut, Bytes, BytesMut};
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub(crate) const OPTIONAL: u8 = 0x80;
pub(crate) const TRANSITIVE: u8 = 0x40;
pub(crate) const PARTIAL: u8 = 0x20;
pub(crate) const EXTENDED: u8 = 0x10;

/// Type codes.
pub(crate) mod code {
    pub(crate) const ORIGIN: u8 = 1;
    pub(crate) const AS_PATH: u8 = 2;
    pub(crate) const NEXT_HOP: u8 = 3;
    pub(crate) const MED: u8 = 4;
    pub(crate) const LOCAL_PREF: u8 = 5;
    pub(crate) const ATOMIC_AGGREGATE: u8 = 6;
    pub(crate) const AGGREGATOR: u8 = 7;
    pub(crate) const COMMUNITIES: u8 = 8;
    pub(crate) const ORIGINATOR_ID: u8 = 9;
    pub(crate) const CLUSTER_LIST: u8 = 10;
    pub(crate) const MP_REACH: u8 = 14;
    pub(crate) const MP_UNREACH: u8 = 15;
    pub(crate) const EXT_COMMUNITIES: u8 = 16;
    pub(crate) const AS4_PATH: u8 = 17;
    pub(crate) const AS4_AGGREGATOR: u8 = 18;
    pub(crate) const PMSI: u8 = 22;
    pub(crate) const TUNNEL_ENCAP: u8 = 23;
    pub(crate) const IPV6_EXT_COMMUNITIES: u8 = 25;
    pub(crate) const LARGE_COMMUNITIES: u8 = 32;
}

/// Optional and Transitive bits of an attribute that we know; `None` for others.
pub(crate) const fn known_flags(code: u8) -> Option<u8> {
    match code {
        code::ORIGIN | code::AS_PATH | code::NEXT_HOP | code::LOCAL_PREF | code::ATOMIC_AGGREGATE => {
            Some(TRANSITIVE)
        }
        code::MED | code::ORIGINATOR_ID | code::CLUSTER_LIST | code::MP_REACH | code::MP_UNREACH => {
            Some(OPTIONAL)
        }
        code::AGGREGATOR
        | code::COMMUNITIES
        | code::EXT_COMMUNITIES
        | code::AS4_PATH
        | code::AS4_AGGREGATOR
        | code::PMSI
        | code::TUNNEL_ENCAP
        | code::IPV6_EXT_COMMUNITIES
        | code::LARGE_COMMUNITIES => Some(OPTIONAL | TRANSITIVE),
        _ => None,
    }
}

/// What is wrong with one attribute.
#[derive(Debug)]
pub(crate) struct Flaw<'a> {
    /// Offending field; `None`: the attribute as a whole.
    pub(crate) at: Option<&'a [u8]>,
    pub(crate) what: &'static str,
    pub(crate) treatment: Treatment,
    /// UPDATE error subcode of RFC 4271 §6.3, for when the fault has to end the session (RFC 7606 §5.2).
    pub(crate) subcode: u8,
}

/// Attribute Length Error.
pub(crate) const LENGTH: u8 = 5;
/// Invalid ORIGIN Attribute.
pub(crate) const BAD_ORIGIN: u8 = 6;
/// Optional Attribute Error.
pub(crate) const OPTIONAL_ERROR: u8 = 9;
/// Malformed AS_PATH.
pub(crate) const BAD_AS_PATH: u8 = 11;

fn withdraw<'a, T>(at: Option<&'a [u8]>, what: &'static str, subcode: u8) -> Result<T, Flaw<'a>> {
    Err(Flaw { at, what, treatment: Treatment::TreatAsWithdraw, subcode })
}

fn discard<'a, T>(what: &'static str) -> Result<T, Flaw<'a>> {
    Err(Flaw { at: None, what, treatment: Treatment::DiscardAttribute, subcode: OPTIONAL_ERROR })
}

/// What AS4_PATH and AS4_AGGREGATOR said, until [`merge_as4`].
#[derive(Debug, Default)]
pub(crate) struct As4 {
    pub(crate) path: Option<AsPath>,
    pub(crate) aggregator: Option<Aggregator>,
}

/// Stores the attribute `code` with value `v` in `out`; `wide`: AS numbers have four octets. MP_* and the check
/// of `flags` are the caller's.
pub(crate) fn read<'a>(
    code: u8,
    flags: u8,
    v: &'a [u8],
    wide: bool,
    out: &mut Attrs,
    as4: &mut As4,
) -> Result<(), Flaw<'a>> {
    match code {
        code::ORIGIN => {
            out.origin = Some(match v {
                [0] => Origin::Igp,
                [1] => Origin::Egp,
                [2] => Origin::Incomplete,
                [_] => return withdraw(Some(v), "ORIGIN value is not 0, 1 or 2", BAD_ORIGIN),
                _ => return withdraw(None, "ORIGIN length is not 1", LENGTH),
            });
        }
        code::AS_PATH => match path::read(v, wide) {
            Ok((_, p)) => out.as_path = Some(p),
            Err(e) => {
                let bad = super::parse::bad(e, v);
                return withdraw(Some(bad.rest), bad.what, BAD_AS_PATH);
            }
        },
        code::NEXT_HOP => match <[u8; 4]>::try_from(v) {
            Ok(b) => out.next_hop = Some(Ipv4Addr::from(b)),
            Err(_) => return withdraw(None, "NEXT_HOP length is not 4", LENGTH),
        },
        code::MED => match v.try_into() {
            Ok(b) => out.med = Some(u32::from_be_bytes(b)),
            Err(_) => return withdraw(None, "MULTI_EXIT_DISC length is not 4", LENGTH),
        },
        code::LOCAL_PREF => match v.try_into() {
            Ok(b) => out.local_pref = Some(u32::from_be_bytes(b)),
            Err(_) => return withdraw(None, "LOCAL_PREF length is not 4", LENGTH),
        },
        code::ATOMIC_AGGREGATE => {
            if !v.is_empty() {
                return discard("ATOMIC_AGGREGATE length is not 0");
            }
            out.atomic_aggregate = true;
        }
        code::AGGREGATOR => match aggregator(v, wide) {
            Some(a) if a.asn.0 == 0 => return discard("AGGREGATOR with AS 0"),
            Some(a) => out.aggregator = Some(a),
            None => return discard("AGGREGATOR length does not fit the AS number width"),
        },
        code::COMMUNITIES => {
            let c = list::<4>(v, "COMMUNITIES length is not a non-zero multiple of 4")?;
            out.communities = c.iter().map(|b| Community(u32::from_be_bytes(*b))).collect();
        }
        code::ORIGINATOR_ID => match <[u8; 4]>::try_from(v) {
            Ok(b) => out.originator_id = Some(RouterId::from(b)),
            Err(_) => return withdraw(None, "ORIGINATOR_ID length is not 4", LENGTH),
        },
        code::CLUSTER_LIST => {
            let c = list::<4>(v, "CLUSTER_LIST length is not a non-zero multiple of 4")?;
            out.cluster_list = c.iter().map(|b| RouterId::from(*b)).collect();
        }
        code::EXT_COMMUNITIES => {
            let c = list::<8>(v, "EXTENDED_COMMUNITIES length is not a non-zero multiple of 8")?;
            ext_communities(c, &mut out.ext_communities);
        }
        code::AS4_PATH => {
            // BGP-AS4-04, -06
            if wide {
                return discard("AS4_PATH from a speaker of four-octet AS numbers");
            }
            match path::read(v, true) {
                Ok((_, p)) => as4.path = Some(p),
                Err(e) => {
                    let bad = super::parse::bad(e, v);
                    if bad.what == path::AS_ZERO {
                        return withdraw(Some(bad.rest), bad.what, BAD_AS_PATH);
                    }
                    return discard(bad.what);
                }
            }
        }
        code::AS4_AGGREGATOR => {
            if wide {
                return discard("AS4_AGGREGATOR from a speaker of four-octet AS numbers");
            }
            match aggregator(v, true) {
                Some(a) if a.asn.0 == 0 => return discard("AS4_AGGREGATOR with AS 0"),
                Some(a) => as4.aggregator = Some(a),
                None => return discard("AS4_AGGREGATOR length is not 8"),
            }
        }
        code::PMSI => out.pmsi = Some(pmsi(v)?),
        code::TUNNEL_ENCAP => {
            tunnel_encap(v)?;
            out.others.push(raw(flags, code, v));
        }
        code::IPV6_EXT_COMMUNITIES => {
            list::<20>(v, "IPv6 extended communities length is not a non-zero multiple of 20")?;
            out.others.push(raw(flags, code, v));
        }
        code::LARGE_COMMUNITIES => {
            // Duplicates are dropped without being an error (BGP-LCOMM-01).
            let mut seen = BTreeSet::new();
            for b in list::<12>(v, "LARGE_COMMUNITY length is not a non-zero multiple of 12")? {
                let n = |i| u32::from_be_bytes([b[i], b[i + 1], b[i + 2], b[i + 3]]);
                let c = LargeCommunity(n(0), n(4), n(8));
                if seen.insert(c) {
                    out.large_communities.push(c);
                }
            }
        }
        // Unknown: optional transitive ones are passed on with the Partial bit (BGP-UPD-05), others are
        // ignored (BGP-UPD-06).
        _ if flags & TRANSITIVE != 0 => out.others.push(raw(flags | PARTIAL, code, v)),
        _ => {}
    }
    Ok(())
}

fn raw(flags: u8, code: u8, v: &[u8]) -> RawAttr {
    RawAttr { flags: flags & (OPTIONAL | TRANSITIVE | PARTIAL), code, value: Bytes::copy_from_slice(v) }
}

/// Entries of `N` octets, at least one, with nothing left over.
fn list<'a, const N: usize>(v: &'a [u8], what: &'static str) -> Result<&'a [[u8; N]], Flaw<'a>> {
    match v.as_chunks::<N>() {
        (entries @ [_, ..], []) => Ok(entries),
        _ => withdraw(None, what, OPTIONAL_ERROR),
    }
}

/// Keeps order; a second Router's MAC or ARP/ND community is neither stored nor passed on (EVPN-IRB-05,
/// PROXY-EC-05).
fn ext_communities(c: &[[u8; 8]], out: &mut Vec<ExtCommunity>) {
    out.reserve_exact(c.len());
    let (mut router_mac, mut arp_nd) = (false, false);
    for b in c {
        let seen = match b {
            [0x06, 0x03, ..] => core::mem::replace(&mut router_mac, true),
            [0x06, 0x08, ..] => core::mem::replace(&mut arp_nd, true),
            _ => false,
        };
        if !seen {
            out.push(ExtCommunity(*b));
        }
    }
}

fn aggregator(v: &[u8], as4: bool) -> Option<Aggregator> {
    match (as4, v) {
        (true, [a, b, c, d, id @ ..]) => {
            let id: [u8; 4] = id.try_into().ok()?;
            Some(Aggregator { asn: Asn(u32::from_be_bytes([*a, *b, *c, *d])), id: id.into() })
        }
        (false, [a, b, id @ ..]) => {
            let id: [u8; 4] = id.try_into().ok()?;
            Some(Aggregator { asn: Asn(u32::from(u16::from_be_bytes([*a, *b]))), id: id.into() })
        }
        _ => None,
    }
}

/// PMSI_TUNNEL (EVPN-IMET-02): flags, type, label, tunnel identifier.
fn pmsi(v: &[u8]) -> Result<Pmsi, Flaw<'_>> {
    let [flags, tunnel_type, at_label @ ..] = v else {
        return withdraw(None, "PMSI_TUNNEL is shorter than 5 octets", OPTIONAL_ERROR);
    };
    let Ok((id, label)) = label(at_label) else {
        return withdraw(None, "PMSI_TUNNEL is shorter than 5 octets", OPTIONAL_ERROR);
    };
    let tunnel = match tunnel_type {
        6 | 10 => {
            if let Ok(b) = <[u8; 4]>::try_from(id) {
                TunnelId::Ip(IpAddr::V4(Ipv4Addr::from(b)))
            } else if let Ok(b) = <[u8; 16]>::try_from(id) {
                TunnelId::Ip(IpAddr::V6(Ipv6Addr::from(b)))
            } else {
                return withdraw(Some(id), "PMSI_TUNNEL identifier is not an address", OPTIONAL_ERROR);
            }
        }
        _ => TunnelId::Raw(Bytes::copy_from_slice(id)),
    };
    Ok(Pmsi { flags: *flags, tunnel_type: *tunnel_type, label, tunnel })
}

/// Tunnel Encapsulation: TLVs of a two-octet type and a two-octet length (EVPN-TUN-01).
fn tunnel_encap(mut v: &[u8]) -> Result<(), Flaw<'_>> {
    while !v.is_empty() {
        let rest = match v {
            [_, _, a, b, rest @ ..] => rest.get(usize::from(u16::from_be_bytes([*a, *b]))..),
            _ => None,
        };
        match rest {
            Some(rest) => v = rest,
            None => return withdraw(Some(v), "tunnel TLV runs past its attribute", OPTIONAL_ERROR),
        }
    }
    Ok(())
}

/// Puts the four-octet numbers back that a two-octet speaker had to hide (BGP-AS4-05).
pub(crate) fn merge_as4(attrs: &mut Attrs, as4: As4) {
    if let (Some(mapped), Some(real)) = (attrs.aggregator, as4.aggregator) {
        if mapped.asn.0 != u32::from(Asn::TRANS) {
            return;
        }
        attrs.aggregator = Some(real);
    }
    if let (Some(p), Some(real)) = (&mut attrs.as_path, as4.path) {
        path::merge(p, real);
    }
}

/// Appends flags, type, length; the value of `len` octets must follow.
pub(crate) fn put_header(out: &mut BytesMut, flags: u8, code: u8, len: usize) {
    if len > 255 {
        out.put_slice(&[flags | EXTENDED, code]);
        out.put_u16(len as u16);
    } else {
        out.put_slice(&[flags, code, len as u8]);
    }
}

/// Appends all attributes in the order of their type codes, MP_* excepted (BGP-UPD-02, BGP-UPD-03).
pub(crate) fn put_attrs(out: &mut BytesMut, a: &Attrs, as4: bool) {
    const BOTH: u8 = OPTIONAL | TRANSITIVE;
    let mut others = a.others.iter().peekable();
    let mut put_others = |out: &mut BytesMut, below: u16| {
        while let Some(o) = others.next_if(|o| u16::from(o.code) < below) {
            put_header(out, o.flags & !EXTENDED, o.code, o.value.len());
            out.put_slice(&o.value);
        }
    };
    if let Some(o) = a.origin {
        put_header(out, TRANSITIVE, code::ORIGIN, 1);
        out.put_u8(match o {
            Origin::Igp => 0,
            Origin::Egp => 1,
            Origin::Incomplete => 2,
        });
    }
    if let Some(p) = &a.as_path {
        put_header(out, TRANSITIVE, code::AS_PATH, path::len(&p.0, as4));
        path::put(out, &p.0, as4);
    }
    if let Some(n) = a.next_hop {
        put_header(out, TRANSITIVE, code::NEXT_HOP, 4);
        out.put_slice(&n.octets());
    }
    if let Some(n) = a.med {
        put_header(out, OPTIONAL, code::MED, 4);
        out.put_u32(n);
    }
    if let Some(n) = a.local_pref {
        put_header(out, TRANSITIVE, code::LOCAL_PREF, 4);
        out.put_u32(n);
    }
    if a.atomic_aggregate {
        put_header(out, TRANSITIVE, code::ATOMIC_AGGREGATE, 0);
    }
    if let Some(g) = a.aggregator {
        put_header(out, BOTH, code::AGGREGATOR, if as4 { 8 } else { 6 });
        if as4 {
            out.put_u32(g.asn.0);
        } else {
            out.put_u16(path::as2(g.asn));
        }
        out.put_slice(&g.id.octets());
    }
    if !a.communities.is_empty() {
        put_header(out, BOTH, code::COMMUNITIES, a.communities.len() * 4);
        for c in &a.communities {
            out.put_u32(c.0);
        }
    }
    if let Some(id) = a.originator_id {
        put_header(out, OPTIONAL, code::ORIGINATOR_ID, 4);
        out.put_slice(&id.octets());
    }
    if !a.cluster_list.is_empty() {
        put_header(out, OPTIONAL, code::CLUSTER_LIST, a.cluster_list.len() * 4);
        for id in &a.cluster_list {
            out.put_slice(&id.octets());
        }
    }
    put_others(out, u16::from(code::EXT_COMMUNITIES));
    if !a.ext_communities.is_empty() {
        put_header(out, BOTH, code::EXT_COMMUNITIES, a.ext_communities.len() * 8);
        for c in &a.ext_communities {
            out.put_slice(&c.0);
        }
    }
    if !as4 {
        if let Some(real) = a.as_path.as_ref().and_then(path::as4_path) {
            put_header(out, BOTH, code::AS4_PATH, path::len(&real, true));
            path::put(out, &real, true);
        }
        if let Some(g) = a.aggregator.filter(|g| g.asn.0 > u32::from(u16::MAX)) {
            put_header(out, BOTH, code::AS4_AGGREGATOR, 8);
            out.put_u32(g.asn.0);
            out.put_slice(&g.id.octets());
        }
    }
    put_others(out, u16::from(code::PMSI));
    if let Some(p) = &a.pmsi {
        let (v4, v6);
        let id: &[u8] = match &p.tunnel {
            TunnelId::Ip(IpAddr::V4(a)) => {
                v4 = a.octets();
                &v4
            }
            TunnelId::Ip(IpAddr::V6(a)) => {
                v6 = a.octets();
                &v6
            }
            TunnelId::Raw(b) => b,
        };
        put_header(out, BOTH, code::PMSI, 5 + id.len());
        out.put_slice(&[p.flags, p.tunnel_type]);
        super::nlri_codec::put_label(out, p.label);
        out.put_slice(id);
    }
    put_others(out, u16::from(code::LARGE_COMMUNITIES));
    if !a.large_communities.is_empty() {
        put_header(out, BOTH, code::LARGE_COMMUNITIES, a.large_communities.len() * 12);
        for c in &a.large_communities {
            out.put_u32(c.0);
            out.put_u32(c.1);
            out.put_u32(c.2);
        }
    }
    put_others(out, u16::MAX);
}
