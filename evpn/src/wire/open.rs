//! OPEN: capabilities, extended parameters (RFC 9072), and the checks of RFC 4271 §6.2.

use super::error::{MessageError, Notification};
use super::message::{AddPathMode, Capability, Family, GrFamily, LlgrFamily, Open};
use super::parse::{self, Bad, Parsed, fail, ipv4, octets};
use crate::types::{Asn, RemoteAs, RouterId};
use bytes::{BufMut, Bytes, BytesMut};
use nom::number::complete::{be_u8, be_u16, be_u24, be_u32};

/// OPEN error subcodes of RFC 4271 §6.2 and RFC 5492 §5.
mod subcode {
    pub(super) const UNSPECIFIC: u8 = 0;
    pub(super) const VERSION: u8 = 1;
    pub(super) const PEER_AS: u8 = 2;
    pub(super) const IDENTIFIER: u8 = 3;
    pub(super) const PARAMETER: u8 = 4;
    pub(super) const HOLD_TIME: u8 = 6;
    pub(super) const CAPABILITY: u8 = 7;
}

/// Offsets of the fixed fields from the start of the message.
const AT_VERSION: usize = 19;
const AT_AS: usize = 20;
const AT_HOLD_TIME: usize = 22;
const AT_ID: usize = 24;
const AT_LENGTH: usize = 28;

/// Parameter type of capabilities; 255 announces the extended format.
const CAPABILITIES: u8 = 2;
const EXTENDED: u8 = 255;

fn error(offset: usize, what: &'static str, subcode: u8, data: &[u8]) -> MessageError {
    let data = Bytes::copy_from_slice(data);
    MessageError { offset, what, notification: Some(Notification { code: 2, subcode, data }) }
}

/// Decodes an OPEN; `msg` is the whole message of at least 29 octets.
pub(super) fn decode(msg: &[u8]) -> Result<Open, MessageError> {
    let fixed = msg.get(AT_VERSION..).unwrap_or_default();
    let head = be_u8::<_, Bad<'_>>(fixed).and_then(|(i, version)| {
        let (i, my_as) = be_u16(i)?;
        let (i, hold_time) = be_u16(i)?;
        let (i, id) = ipv4(i)?;
        Ok((i, (version, my_as, hold_time, id)))
    });
    let Ok((parameters, (version, my_as, hold_time, id))) = head else {
        return Err(error(AT_VERSION, "OPEN is too short", subcode::UNSPECIFIC, &[]));
    };
    // BGP-OPEN-01: the data is the version that we speak.
    if version != 4 {
        return Err(error(AT_VERSION, "BGP version is not 4", subcode::VERSION, &[0, 4]));
    }
    if my_as == 0 {
        return Err(error(AT_AS, "AS number is 0", subcode::PEER_AS, &[]));
    }
    if matches!(hold_time, 1 | 2) {
        return Err(error(AT_HOLD_TIME, "hold time is 1 or 2 seconds", subcode::HOLD_TIME, &[]));
    }
    // BGP-OPEN-05
    if id.is_unspecified() {
        return Err(error(AT_ID, "BGP identifier is zero", subcode::IDENTIFIER, &[]));
    }
    let at = |part: &[u8]| parse::offset(msg, part);
    let fault = |e: nom::Err<Bad<'_>>| {
        let bad = parse::bad(e, parameters);
        let subcode = match bad.what {
            UNKNOWN_PARAMETER => subcode::PARAMETER,
            AS_ZERO => subcode::PEER_AS,
            _ => subcode::UNSPECIFIC,
        };
        error(at(bad.rest), bad.what, subcode, &[])
    };
    let (_, (extended, capabilities)) = parameters_list(parameters).map_err(fault)?;
    Ok(Open { my_as, hold_time, id, capabilities, extended })
}

/// BGP-OPEN-07
const UNKNOWN_PARAMETER: &str = "optional parameter type is unknown";
const AS_ZERO: &str = "AS number in capability 65 is 0";

/// Optional parameters from their length octet on (BGP-CAP-07, BGP-CAP-08, BGP-CAP-09).
fn parameters_list(i: &[u8]) -> Parsed<'_, (bool, Vec<Capability>)> {
    let (rest, extended) = match i {
        [0] => return Ok((&[], (false, Vec::new()))),
        [n, EXTENDED, rest @ ..] if *n != 0 => {
            let (rest, len) = be_u16(rest)?;
            if rest.len() != usize::from(len) {
                return fail(i, "optional parameters length does not match the message");
            }
            (rest, true)
        }
        [n, rest @ ..] if rest.len() == usize::from(*n) => (rest, false),
        _ => return fail(i, "optional parameters length does not match the message"),
    };
    let mut out = Vec::new();
    let mut left = rest;
    while !left.is_empty() {
        let (rest, kind) = be_u8(left)?;
        if kind != CAPABILITIES {
            return fail(left, UNKNOWN_PARAMETER);
        }
        let (rest, len) =
            if extended { be_u16(rest)? } else { be_u8(rest).map(|(r, n)| (r, u16::from(n)))? };
        let Ok((rest, mut value)) = octets(rest, usize::from(len)) else {
            return fail(left, "optional parameter runs past the parameters");
        };
        while !value.is_empty() {
            let (rest, c) = capability(value)?;
            out.push(c);
            value = rest;
        }
        left = rest;
    }
    Ok((left, (extended, out)))
}

fn family(i: &[u8]) -> Parsed<'_, Family> {
    let (i, afi) = be_u16(i)?;
    let (i, safi) = be_u8(i)?;
    Ok((i, Family { afi, safi }))
}

/// Entries until the end of `v`; one cut short is a malformed capability.
fn entries<'a, T>(mut v: &'a [u8], mut one: impl FnMut(&'a [u8]) -> Parsed<'a, T>) -> Parsed<'a, Vec<T>> {
    let mut out = Vec::new();
    while !v.is_empty() {
        let (rest, entry) = one(v)?;
        out.push(entry);
        v = rest;
    }
    Ok((v, out))
}

/// One capability TLV (BGP-CAP-01). A value that its RFC does not allow is malformed (BGP-OPEN-08).
fn capability(i: &[u8]) -> Parsed<'_, Capability> {
    let [code, len, rest @ ..] = i else {
        return fail(i, "capability is cut short");
    };
    let Some((value, rest)) = rest.split_at_checked(usize::from(*len)) else {
        return fail(i, "capability runs past its parameter");
    };
    let read = match code {
        1 => family_capability(value),
        2 => Ok((value, Capability::RouteRefresh)),
        5 => entries(value, |i| {
            let (i, afi) = be_u16(i)?;
            let (i, safi) = be_u16(i)?;
            let (i, hop) = be_u16(i)?;
            // The field is one octet wider than a SAFI (BGP-ENH-01): such an entry names no family.
            Ok((i, u8::try_from(safi).ok().map(|safi| (Family { afi, safi }, hop))))
        })
        .map(|(r, l)| (r, Capability::ExtendedNextHop(l.into_iter().flatten().collect()))),
        6 => Ok((value, Capability::ExtendedMessage)),
        64 => graceful_restart(value),
        65 => match be_u32::<_, Bad<'_>>(value) {
            Ok((_, 0)) => return fail(value, AS_ZERO),
            Ok((r, n)) => Ok((r, Capability::As4(Asn(n)))),
            Err(e) => Err(e),
        },
        // BGP-ADDP-01
        69 => entries(value, |i| {
            let (i, family) = family(i)?;
            let (i, mode) = be_u8(i)?;
            let mode = match mode {
                1 => AddPathMode::Receive,
                2 => AddPathMode::Send,
                3 => AddPathMode::Both,
                n => AddPathMode::Unknown(n),
            };
            Ok((i, (family, mode)))
        })
        .map(|(r, l)| (r, Capability::AddPath(l))),
        70 => Ok((value, Capability::EnhancedRefresh)),
        71 => entries(value, |i| {
            let (i, family) = family(i)?;
            let (i, flags) = be_u8(i)?;
            let (i, time) = be_u24(i)?;
            Ok((i, LlgrFamily { family, forwarding: flags & 0x80 != 0, time }))
        })
        .map(|(r, l)| (r, Capability::Llgr(l))),
        // BGP-CAP-04
        _ => Ok((&[][..], Capability::Unknown { code: *code, value: Bytes::copy_from_slice(value) })),
    };
    match read {
        Ok(([], c)) => Ok((rest, c)),
        _ => fail(i, "capability length is not legal for its code"),
    }
}

fn family_capability(v: &[u8]) -> Parsed<'_, Capability> {
    let (i, afi) = be_u16(v)?;
    // BGP-MP-01; reserved, ignored (BGP-MP-02).
    let (i, _) = be_u8(i)?;
    let (i, safi) = be_u8(i)?;
    Ok((i, Capability::Multiprotocol(Family { afi, safi })))
}

fn graceful_restart(v: &[u8]) -> Parsed<'_, Capability> {
    let (i, head) = be_u16(v)?;
    let (i, families) = entries(i, |i| {
        let (i, family) = family(i)?;
        let (i, flags) = be_u8(i)?;
        Ok((i, GrFamily { family, forwarding: flags & 0x80 != 0 }))
    })?;
    let c = Capability::GracefulRestart {
        restarting: head & 0x8000 != 0,
        notification: head & 0x4000 != 0,
        time: head & 0x0fff,
        families,
    };
    Ok((i, c))
}

/// Appends the TLV. A value holds at most 255 octets: entries beyond that are left out.
fn put_capability(out: &mut BytesMut, c: &Capability) {
    let mut v = BytesMut::new();
    let code = match c {
        Capability::Multiprotocol(f) => {
            v.put_u16(f.afi);
            v.put_slice(&[0, f.safi]);
            1
        }
        Capability::RouteRefresh => 2,
        Capability::ExtendedNextHop(list) => {
            for (f, hop) in list.iter().take(255 / 6) {
                v.put_u16(f.afi);
                v.put_u16(u16::from(f.safi));
                v.put_u16(*hop);
            }
            5
        }
        Capability::ExtendedMessage => 6,
        Capability::GracefulRestart { restarting, notification, time, families } => {
            let flags = u16::from(*restarting) << 15 | u16::from(*notification) << 14;
            v.put_u16(flags | time & 0x0fff);
            for f in families.iter().take(253 / 4) {
                put_family(&mut v, f.family);
                v.put_u8(u8::from(f.forwarding) << 7);
            }
            64
        }
        Capability::As4(asn) => {
            v.put_u32(asn.0);
            65
        }
        Capability::AddPath(list) => {
            for (f, mode) in list.iter().take(255 / 4) {
                put_family(&mut v, *f);
                v.put_u8(match mode {
                    AddPathMode::Receive => 1,
                    AddPathMode::Send => 2,
                    AddPathMode::Both => 3,
                    AddPathMode::Unknown(n) => *n,
                });
            }
            69
        }
        Capability::EnhancedRefresh => 70,
        Capability::Llgr(list) => {
            for f in list.iter().take(255 / 7) {
                put_family(&mut v, f.family);
                v.put_u8(u8::from(f.forwarding) << 7);
                v.put_uint(u64::from(f.time & 0x00ff_ffff), 3);
            }
            71
        }
        Capability::Unknown { code, value } => {
            v.put_slice(value.get(..255).unwrap_or(value));
            *code
        }
    };
    out.put_slice(&[code, v.len() as u8]);
    out.put_slice(&v);
}

fn put_family(out: &mut BytesMut, f: Family) {
    out.put_u16(f.afi);
    out.put_u8(f.safi);
}

/// Appends the body of an OPEN: all capabilities in one parameter (BGP-CAP-01), in the extended format when
/// they need it or `o.extended` says so (BGP-CAP-07).
pub(super) fn put(out: &mut BytesMut, o: &Open) {
    out.put_u8(4);
    out.put_u16(o.my_as);
    out.put_u16(o.hold_time);
    out.put_slice(&o.id.octets());
    let mut caps = BytesMut::new();
    for c in &o.capabilities {
        put_capability(&mut caps, c);
    }
    // The classic form counts the parameter's own two octets in its one length octet.
    if o.extended || caps.len() > 253 {
        let parameter = if caps.is_empty() { 0 } else { caps.len() + 3 };
        out.put_slice(&[EXTENDED, EXTENDED]);
        out.put_u16(parameter as u16);
        if !caps.is_empty() {
            out.put_u8(CAPABILITIES);
            out.put_u16(caps.len() as u16);
        }
    } else if caps.is_empty() {
        out.put_u8(0);
    } else {
        out.put_slice(&[caps.len() as u8 + 2, CAPABILITIES, caps.len() as u8]);
    }
    out.put_slice(&caps);
}

impl Open {
    /// The real AS number: capability 65 if present, else the two-octet field (BGP-AS4-03).
    pub fn asn(&self) -> Asn {
        self.as4().unwrap_or(Asn(u32::from(self.my_as)))
    }
    /// AS number in capability 65.
    pub fn as4(&self) -> Option<Asn> {
        self.capabilities.iter().find_map(|c| match c {
            Capability::As4(n) => Some(*n),
            _ => None,
        })
    }
    /// Families of the MP capabilities in their order, each once (BGP-CAP-03). Without any such capability it
    /// is IPv4 unicast (RFC 4760 §8).
    pub fn families(&self) -> Vec<Family> {
        let mut out = Vec::new();
        for c in &self.capabilities {
            match c {
                Capability::Multiprotocol(f) if !out.contains(f) => out.push(*f),
                _ => {}
            }
        }
        if out.is_empty() {
            out.push(Family::IPV4);
        }
        out
    }
    /// Whether a capability with exactly this value is there.
    pub fn has(&self, c: &Capability) -> bool {
        self.capabilities.contains(c)
    }
    /// Capability 64: of several the last counts (BGP-GR-04).
    pub fn graceful_restart(&self) -> Option<&Capability> {
        self.capabilities.iter().rev().find(|c| matches!(c, Capability::GracefulRestart { .. }))
    }
    /// Capability 71, ignored without capability 64 (BGP-LLGR-02).
    pub fn llgr(&self) -> &[LlgrFamily] {
        if self.graceful_restart().is_none() {
            return &[];
        }
        let last = self.capabilities.iter().rev().find_map(|c| match c {
            Capability::Llgr(l) => Some(l.as_slice()),
            _ => None,
        });
        last.unwrap_or_default()
    }
    /// ADD-PATH mode of a family. A capability with any mode that is not 1, 2 or 3 counts as not understood
    /// (BGP-ADDP-02).
    pub fn add_path(&self, family: Family) -> Option<AddPathMode> {
        self.capabilities.iter().find_map(|c| match c {
            Capability::AddPath(l) if !l.iter().any(|(_, m)| matches!(m, AddPathMode::Unknown(_))) => {
                l.iter().find(|(f, _)| *f == family).map(|(_, m)| *m)
            }
            _ => None,
        })
    }
    /// The checks that need configuration: the neighbour's AS number (BGP-OPEN-03), and on an internal
    /// session an identifier other than ours (BGP-OPEN-06).
    pub fn check(&self, peer_as: RemoteAs, local_as: Asn, local_id: RouterId) -> Result<(), MessageError> {
        if !peer_as.admits(self.asn(), local_as) {
            return Err(error(AT_AS, "AS number is not the configured one", subcode::PEER_AS, &[]));
        }
        if self.asn() == local_as && self.id == local_id {
            return Err(error(AT_ID, "BGP identifier is our own", subcode::IDENTIFIER, &[]));
        }
        Ok(())
    }
    /// That the hold time is none, or no shorter than a configured minimum (BGP-OPEN-04).
    pub fn check_hold_time(&self, least: u16) -> Result<(), MessageError> {
        if self.hold_time != 0 && self.hold_time < least {
            let what = "hold time is below the configured minimum";
            return Err(error(AT_HOLD_TIME, what, subcode::HOLD_TIME, &[]));
        }
        Ok(())
    }
    /// That every one of these families is offered; otherwise 2/7 with the capabilities that are missing
    /// (BGP-CAP-05).
    pub fn require(&self, families: &[Family]) -> Result<(), MessageError> {
        let offered = self.families();
        let mut missing = BytesMut::new();
        for f in families.iter().filter(|f| !offered.contains(f)) {
            put_capability(&mut missing, &Capability::Multiprotocol(*f));
        }
        if missing.is_empty() {
            return Ok(());
        }
        Err(error(AT_LENGTH, "a required capability is missing", subcode::CAPABILITY, &missing))
    }
}
