//! UPDATE: decoding under RFC 7606 and RFC 7432bis §7.14, encoding in the order of RFC 7606 §5.1.

use super::attr::Attrs;
use super::attr_codec::{self, As4, Flaw, OPTIONAL_ERROR, code, known_flags, merge_as4};
use super::community_kind::ExtKind;
use super::error::{Fault, MessageError, Notification, Treatment};
use super::message::{DecodeCtx, EncodeCtx, Family, MpReach, MpUnreach, NextHop, Nlri, Update};
use super::nlri::EvpnRoute;
use super::nlri_codec::{
    evpn_len, evpn_list, ipv4_list, ipv6_list, put_evpn, put_membership, put_prefix_octets, rtc_list,
    semantic_fault,
};
use super::parse::{self, Parsed, fail, ipv4, ipv6, octets};
use bytes::{BufMut, Bytes, BytesMut};
use nom::number::complete::{be_u8, be_u16};

/// UPDATE error subcodes of RFC 4271 §6.3.
mod subcode {
    pub(super) const MALFORMED_LIST: u8 = 1;
    pub(super) const UNKNOWN_WELL_KNOWN: u8 = 2;
    pub(super) const MISSING: u8 = 3;
    pub(super) const FLAGS: u8 = 4;
    pub(super) const NETWORK_FIELD: u8 = 10;
}

/// Longest data of a NOTIFICATION that fits 4096 octets (BGP-EXTM-03).
pub(super) const MAX_DATA: usize = 4096 - 21;

/// Faults kept of one message: thousands of unknown routes need not fill the log.
const MAX_FAULTS: usize = 64;

/// A decoded UPDATE.
pub(super) struct Outcome {
    pub(super) update: Update,
    pub(super) faults: Vec<Fault>,
    pub(super) treatment: Option<Treatment>,
}

struct Decoder<'a> {
    /// The message with its header.
    msg: &'a [u8],
    ctx: &'a DecodeCtx,
    update: Update,
    faults: Vec<Fault>,
    /// NOTIFICATION of the first fault stronger than a discard, in case there is nothing to withdraw.
    first_strong: Option<(usize, &'static str, Notification)>,
    as4: As4,
    /// Attribute codes met so far.
    seen: [u64; 4],
    /// Start of the NLRI of MP_REACH_NLRI.
    reach_at: Option<&'a [u8]>,
    /// MP_REACH_NLRI was there with something in it, understood or not.
    reachable: bool,
}

/// One attribute as found.
#[derive(Clone, Copy)]
struct Raw<'a> {
    flags: u8,
    code: u8,
    value: &'a [u8],
    /// From the flags octet to the end of the value.
    whole: &'a [u8],
}

/// Decodes the body of an UPDATE; `msg` is the whole message of at least 23 octets.
pub(super) fn decode(msg: &[u8], ctx: &DecodeCtx) -> Result<Outcome, MessageError> {
    let body = msg.get(19..).unwrap_or_default();
    let d = Decoder {
        msg,
        ctx,
        update: Update::default(),
        faults: Vec::new(),
        first_strong: None,
        as4: As4::default(),
        seen: [0; 4],
        reach_at: None,
        reachable: false,
    };
    d.run(body)
}

impl<'a> Decoder<'a> {
    fn run(mut self, body: &'a [u8]) -> Result<Outcome, MessageError> {
        let (withdrawn, at_attrs, attrs, nlri) = match split(body) {
            Ok((nlri, (withdrawn, at_attrs, attrs))) => (withdrawn, at_attrs, attrs, nlri),
            Err(e) => {
                let bad = parse::bad(e, body);
                return Err(self.reset(bad.rest, bad.what, subcode::MALFORMED_LIST, &[]));
            }
        };
        let add_path = self.ctx.add_path.contains(&Family::IPV4);
        self.update.withdrawn = self.classic(withdrawn, add_path)?;
        let complete = self.attributes(attrs)?;
        self.update.nlri = self.classic(nlri, add_path)?;
        self.reachable |= !self.update.nlri.is_empty();

        merge_as4(&mut self.update.attrs, core::mem::take(&mut self.as4));
        if self.update.attrs.others.len() > 1 {
            self.update.attrs.others.sort_by_key(|o| o.code);
        }
        if self.reachable && complete {
            self.mandatory(at_attrs, attrs);
        }
        self.judge_routes();
        self.finish()
    }

    /// Strongest reaction; with nothing to withdraw, treat-as-withdraw becomes a reset (BGP-ERR-06).
    fn finish(self) -> Result<Outcome, MessageError> {
        let treatment = self.faults.iter().map(|f| f.treatment).max();
        match self.first_strong {
            Some((offset, what, notification)) if !self.reachable => {
                Err(MessageError { offset, what, notification: Some(notification) })
            }
            _ => Ok(Outcome { update: self.update, faults: self.faults, treatment }),
        }
    }

    fn offset(&self, part: &[u8]) -> usize {
        parse::offset(self.msg, part)
    }

    #[cold]
    fn reset(&self, at: &[u8], what: &'static str, subcode: u8, data: &[u8]) -> MessageError {
        let data = Bytes::copy_from_slice(data.get(..MAX_DATA).unwrap_or(data));
        MessageError {
            offset: self.offset(at),
            what,
            notification: Some(Notification { code: 3, subcode, data }),
        }
    }

    #[cold]
    fn fault(&mut self, offset: usize, attribute: Option<u8>, what: &'static str, treatment: Treatment) {
        let fault = Fault { offset, attribute, what, treatment };
        if self.faults.len() < MAX_FAULTS {
            self.faults.push(fault);
        } else if self.faults.iter().all(|f| f.treatment < treatment) {
            // The last place goes to the fault that decides.
            self.faults[MAX_FAULTS - 1] = fault;
        }
    }

    /// Remembers the NOTIFICATION of the first fault that is stronger than a discard.
    #[cold]
    fn strong(&mut self, offset: usize, what: &'static str, subcode: u8, data: &[u8]) {
        if self.first_strong.is_none() {
            let data = Bytes::copy_from_slice(data.get(..MAX_DATA).unwrap_or(data));
            self.first_strong = Some((offset, what, Notification { code: 3, subcode, data }));
        }
    }

    /// A fault of one attribute, with the NOTIFICATION it would have been before RFC 7606.
    #[cold]
    fn attribute_fault(&mut self, raw: Raw<'_>, flaw: &Flaw<'_>) {
        let offset = self.offset(flaw.at.unwrap_or(raw.whole));
        if flaw.treatment == Treatment::TreatAsWithdraw {
            self.strong(offset, flaw.what, flaw.subcode, raw.whole);
        }
        self.fault(offset, Some(raw.code), flaw.what, flaw.treatment);
    }

    /// Classic withdrawn routes or NLRI; a syntax error ends the session (BGP-ERR-25).
    fn classic(&self, i: &'a [u8], add_path: bool) -> Result<Vec<super::nlri::Ipv4Prefix>, MessageError> {
        match ipv4_list(i, add_path) {
            Ok((_, list)) => Ok(list),
            Err(e) => {
                let bad = parse::bad(e, i);
                Err(self.reset(bad.rest, bad.what, subcode::NETWORK_FIELD, &[]))
            }
        }
    }

    /// All attributes, MP_* in any position (BGP-ERR-05); false if the list was cut off by a faulty length.
    fn attributes(&mut self, mut i: &'a [u8]) -> Result<bool, MessageError> {
        while !i.is_empty() {
            let Ok((rest, raw)) = attribute(i) else {
                let what = "attribute runs past the end of the attributes";
                // BGP-ERR-03: the total length still locates the NLRI, so this is no reason to reset,
                // unless the routes themselves are in what cannot be read.
                if let [_, code::MP_REACH | code::MP_UNREACH, ..] = i {
                    return Err(self.reset(i, what, OPTIONAL_ERROR, i));
                }
                let offset = self.offset(i);
                self.strong(offset, what, subcode::MALFORMED_LIST, &[]);
                self.fault(offset, i.get(1).copied(), what, Treatment::TreatAsWithdraw);
                return Ok(false);
            };
            self.attribute(raw)?;
            i = rest;
        }
        Ok(true)
    }

    fn attribute(&mut self, raw: Raw<'a>) -> Result<(), MessageError> {
        let (word, bit) = (usize::from(raw.code) / 64, 1u64 << (raw.code % 64));
        let again = self.seen[word] & bit != 0;
        self.seen[word] |= bit;
        let is_mp = matches!(raw.code, code::MP_REACH | code::MP_UNREACH);
        if again {
            if is_mp {
                // BGP-ERR-04
                let what = "MP attribute more than once";
                return Err(self.reset(raw.whole, what, subcode::MALFORMED_LIST, &[]));
            }
            self.discard(raw, "attribute more than once");
            return Ok(());
        }
        let from_ibgp_only = matches!(raw.code, code::LOCAL_PREF | code::ORIGINATOR_ID | code::CLUSTER_LIST);
        if from_ibgp_only && !self.ctx.ibgp {
            self.discard(raw, "attribute of internal sessions from an external neighbour");
            return Ok(());
        }
        match known_flags(raw.code) {
            Some(f) if f == raw.flags & (attr_codec::OPTIONAL | attr_codec::TRANSITIVE) => {}
            // BGP-ERR-09
            Some(_) if is_mp => {
                let what = "flags contradict the attribute's definition";
                return Err(self.reset(raw.whole, what, OPTIONAL_ERROR, raw.whole));
            }
            // BGP-ERR-08
            Some(_) => {
                let flaw = Flaw {
                    at: None,
                    what: "flags contradict the attribute's definition",
                    treatment: Treatment::TreatAsWithdraw,
                    subcode: subcode::FLAGS,
                };
                self.attribute_fault(raw, &flaw);
                return Ok(());
            }
            // BGP-ERR-10
            None if raw.flags & attr_codec::OPTIONAL == 0 => {
                let what = "unrecognised well-known attribute";
                return Err(self.reset(raw.whole, what, subcode::UNKNOWN_WELL_KNOWN, raw.whole));
            }
            None => {}
        }
        match raw.code {
            code::MP_REACH => self.reach(raw),
            code::MP_UNREACH => self.unreach(raw),
            _ => {
                let flaw = attr_codec::read(
                    raw.code,
                    raw.flags,
                    raw.value,
                    self.ctx.as4,
                    &mut self.update.attrs,
                    &mut self.as4,
                );
                if let Err(flaw) = flaw {
                    self.attribute_fault(raw, &flaw);
                }
                Ok(())
            }
        }
    }

    #[cold]
    fn discard(&mut self, raw: Raw<'_>, what: &'static str) {
        let offset = self.offset(raw.whole);
        self.fault(offset, Some(raw.code), what, Treatment::DiscardAttribute);
    }

    /// MP_REACH_NLRI (BGP-MP-03): family, next hop, a reserved octet, routes.
    fn reach(&mut self, raw: Raw<'a>) -> Result<(), MessageError> {
        let reset = |d: &Self, bad: parse::Bad<'_>| d.reset(bad.rest, bad.what, OPTIONAL_ERROR, raw.whole);
        if raw.value.len() < 5 {
            return Err(self.reset(
                raw.whole,
                "MP_REACH_NLRI is shorter than 5 octets",
                OPTIONAL_ERROR,
                raw.whole,
            ));
        }
        let head = family(raw.value).and_then(|(i, family)| {
            let (hop, len) = be_u8(i)?;
            let Ok((rest, hop)) = octets(hop, usize::from(len)) else {
                return fail(i, "next hop runs past MP_REACH_NLRI");
            };
            let Ok((nlri, _reserved)) = be_u8::<_, parse::Bad<'_>>(rest) else {
                return fail(rest, "MP_REACH_NLRI ends before the reserved octet");
            };
            Ok((nlri, (family, i, hop)))
        });
        let (nlri, (family, at_len, hop)) = head.map_err(|e| reset(self, parse::bad(e, raw.value)))?;
        let next_hop = next_hop(hop);
        if !self.ctx.families.contains(&family) || !is_known(family) {
            // BGP-MP-08: not our business, and its next hop may have any form.
            let offset = self.offset(raw.value);
            let what = "address family was not negotiated";
            self.fault(offset, Some(raw.code), what, Treatment::SkipNlri);
            self.reachable |= !nlri.is_empty();
            self.update.reach = next_hop.map(|next_hop| MpReach {
                family,
                next_hop,
                nlri: Nlri::Unknown(Bytes::copy_from_slice(nlri)),
            });
            return Ok(());
        }
        let Some(next_hop) = next_hop.filter(|h| hop_fits(family, *h)) else {
            let what = "next hop length does not fit the address family";
            return Err(self.reset(at_len, what, OPTIONAL_ERROR, raw.whole));
        };
        let nlri_start = nlri;
        let nlri = self.nlri(nlri, family).map_err(|e| reset(self, parse::bad(e, raw.value)))?;
        self.reachable |= !nlri_start.is_empty();
        self.reach_at = Some(nlri_start);
        self.update.reach = Some(MpReach { family, next_hop, nlri });
        Ok(())
    }

    /// MP_UNREACH_NLRI: family, routes; without routes an End-of-RIB.
    fn unreach(&mut self, raw: Raw<'a>) -> Result<(), MessageError> {
        let Ok((rest, family)) = family(raw.value) else {
            let what = "MP_UNREACH_NLRI is shorter than 3 octets";
            return Err(self.reset(raw.whole, what, OPTIONAL_ERROR, raw.whole));
        };
        let nlri = if self.ctx.families.contains(&family) && is_known(family) {
            self.nlri(rest, family).map_err(|e| {
                let bad = parse::bad(e, raw.value);
                self.reset(bad.rest, bad.what, OPTIONAL_ERROR, raw.whole)
            })?
        } else {
            let offset = self.offset(raw.value);
            let what = "address family was not negotiated";
            self.fault(offset, Some(raw.code), what, Treatment::SkipNlri);
            Nlri::Unknown(Bytes::copy_from_slice(rest))
        };
        self.update.unreach = Some(MpUnreach { family, nlri });
        Ok(())
    }

    fn nlri(&self, i: &'a [u8], family: Family) -> Result<Nlri, nom::Err<parse::Bad<'a>>> {
        let add_path = !self.ctx.add_path.is_empty() && self.ctx.add_path.contains(&family);
        Ok(match family {
            Family::EVPN => Nlri::Evpn(evpn_list(i, add_path)?.1),
            Family::IPV4 => Nlri::Ipv4(ipv4_list(i, add_path)?.1),
            Family::IPV6 => Nlri::Ipv6(ipv6_list(i, add_path)?.1),
            Family::RTC => Nlri::Rtc(rtc_list(i)?.1),
            _ => Nlri::Unknown(Bytes::copy_from_slice(i)),
        })
    }

    /// BGP-ERR-07. `at_attrs` begins with the total length, which is where an absent attribute is missed.
    fn mandatory(&mut self, at_attrs: &[u8], attrs: &[u8]) {
        let has = |d: &Self, c: u8| d.seen[0] & 1 << c != 0;
        let offset = self.offset(if attrs.is_empty() { at_attrs } else { attrs });
        for (code, wanted, what) in [
            (code::ORIGIN, true, "ORIGIN is missing"),
            (code::AS_PATH, true, "AS_PATH is missing"),
            (code::LOCAL_PREF, self.ctx.ibgp, "LOCAL_PREF is missing"),
            (code::NEXT_HOP, !self.update.nlri.is_empty(), "NEXT_HOP is missing"),
        ] {
            if wanted && !has(self, code) {
                self.strong(offset, what, subcode::MISSING, &[code]);
                self.fault(offset, Some(code), what, Treatment::TreatAsWithdraw);
            }
        }
    }

    /// Rules about single advertised EVPN routes and what must accompany them.
    fn judge_routes(&mut self) {
        let Some(MpReach { nlri: Nlri::Evpn(routes), .. }) = &self.update.reach else { return };
        let Some(start) = self.reach_at else { return };
        let attrs = &self.update.attrs;
        let mut at = self.offset(start);
        let mut router_mac = None;
        let mut found = Vec::new();
        for n in routes {
            let here = at + if n.path_id.is_some() { 4 } else { 0 };
            at = here + evpn_len(&n.route);
            let flaw = match &n.route {
                EvpnRoute::Unknown(_) => {
                    // EVPN-ERR-01: counted, kept for reflection, never used.
                    found.push((here, "EVPN route type is unknown", Treatment::SkipNlri));
                    continue;
                }
                // EVPN-IMET-04
                EvpnRoute::Imet(_) if attrs.pmsi.is_none() => Some((0, "Type-3 route without PMSI_TUNNEL")),
                EvpnRoute::Prefix(r) => semantic_fault(&n.route).or_else(|| {
                    let mac = *router_mac.get_or_insert_with(|| attrs.router_mac());
                    let label = evpn_len(&n.route) - 3;
                    match mac {
                        // EVPN-T5-09
                        Some(m) if m.is_multicast() => {
                            Some((0, "Type-5 route with a multicast Router's MAC"))
                        }
                        // EVPN-T5-08
                        None if r.label.0 == 0 && r.esi.is_zero() && r.gateway.is_unspecified() => {
                            Some((label, "Type-5 route without label and overlay index"))
                        }
                        _ => None,
                    }
                }),
                r => semantic_fault(r),
            };
            if let Some((within, what)) = flaw {
                found.push((here + within, what, Treatment::TreatAsWithdraw));
            }
        }
        for (offset, what, treatment) in found {
            self.fault(offset, Some(code::MP_REACH), what, treatment);
        }
    }
}

type Parts<'a> = (&'a [u8], &'a [u8], &'a [u8]);

/// Withdrawn routes, the attributes with and without their length; the NLRI are the rest (BGP-UPD-01). Lengths that do not fit are a reset (BGP-ERR-02).
fn split(i: &[u8]) -> Parsed<'_, Parts<'_>> {
    let (rest, n) = be_u16(i)?;
    let Ok((at_attrs, withdrawn)) = octets(rest, usize::from(n)) else {
        return fail(i, "withdrawn routes length runs past the message");
    };
    let Ok((rest, n)) = be_u16::<_, parse::Bad<'_>>(at_attrs) else {
        return fail(i, "withdrawn routes length leaves no room for the attributes length");
    };
    let Ok((nlri, attrs)) = octets(rest, usize::from(n)) else {
        return fail(at_attrs, "total path attribute length runs past the message");
    };
    Ok((nlri, (withdrawn, at_attrs, attrs)))
}

/// Cuts one attribute off.
fn attribute(i: &[u8]) -> Parsed<'_, Raw<'_>> {
    let (rest, flags) = be_u8(i)?;
    let (rest, code) = be_u8(rest)?;
    let (rest, len) = if flags & attr_codec::EXTENDED == 0 {
        be_u8(rest).map(|(r, n)| (r, usize::from(n)))?
    } else {
        be_u16(rest).map(|(r, n)| (r, usize::from(n)))?
    };
    let (rest, value) = octets(rest, len)?;
    let whole = i.get(..i.len() - rest.len()).unwrap_or(i);
    Ok((rest, Raw { flags, code, value, whole }))
}

/// AFI and SAFI.
fn family(i: &[u8]) -> Parsed<'_, Family> {
    let (i, afi) = be_u16(i)?;
    let (i, safi) = be_u8(i)?;
    Ok((i, Family { afi, safi }))
}

fn is_known(f: Family) -> bool {
    matches!(f, Family::EVPN | Family::IPV4 | Family::IPV6 | Family::RTC)
}

/// By its length; `None` for any other.
fn next_hop(b: &[u8]) -> Option<NextHop> {
    let hop = match b.len() {
        4 => NextHop::V4(ipv4(b).ok()?.1),
        16 => NextHop::V6(ipv6(b).ok()?.1),
        32 => {
            let (rest, global) = ipv6(b).ok()?;
            NextHop::V6Both(global, ipv6(rest).ok()?.1)
        }
        _ => return None,
    };
    Some(hop)
}

/// BGP-MP-07, BGP-ENH-02, BGP-RTC-01; for EVPN 4 or 16 octets, whatever addresses the routes have (EVPN-NLRI-14).
fn hop_fits(family: Family, hop: NextHop) -> bool {
    match hop {
        NextHop::V4(_) => family != Family::IPV6,
        NextHop::V6(_) => true,
        NextHop::V6Both(..) => matches!(family, Family::IPV4 | Family::IPV6),
    }
}

/// The octets of a next hop and how many there are.
pub(super) fn hop_octets(hop: NextHop) -> ([u8; 32], usize) {
    let mut b = [0; 32];
    let n = match hop {
        NextHop::V4(a) => {
            b[..4].copy_from_slice(&a.octets());
            4
        }
        NextHop::V6(a) => {
            b[..16].copy_from_slice(&a.octets());
            16
        }
        NextHop::V6Both(a, l) => {
            b[..16].copy_from_slice(&a.octets());
            b[16..].copy_from_slice(&l.octets());
            32
        }
    };
    (b, n)
}

/// Appends the body of an UPDATE (what follows the header); MP attributes first (BGP-UPD-04). False if a
/// length field cannot hold its length.
pub(super) fn put(out: &mut BytesMut, u: &Update, ctx: &EncodeCtx) -> bool {
    let fits = |n: usize| u16::try_from(n).is_ok();
    let add_path = |f: Family| ctx.add_path.contains(&f);
    let mut part = BytesMut::new();
    put_ipv4(&mut part, &u.withdrawn, add_path(Family::IPV4));
    let mut ok = fits(part.len());
    out.put_u16(part.len() as u16);
    out.put_slice(&part);

    let mut attrs = BytesMut::with_capacity(256);
    if let Some(m) = &u.unreach {
        part.clear();
        put_family(&mut part, m.family);
        put_nlri(&mut part, &m.nlri, add_path(m.family));
        ok &= fits(part.len());
        attr_codec::put_header(&mut attrs, attr_codec::OPTIONAL, code::MP_UNREACH, part.len());
        attrs.put_slice(&part);
    }
    if let Some(m) = &u.reach {
        part.clear();
        put_family(&mut part, m.family);
        let (hop, n) = hop_octets(m.next_hop);
        part.put_u8(n as u8);
        part.put_slice(hop.get(..n).unwrap_or(&hop));
        part.put_u8(0);
        put_nlri(&mut part, &m.nlri, add_path(m.family));
        ok &= fits(part.len());
        attr_codec::put_header(&mut attrs, attr_codec::OPTIONAL, code::MP_REACH, part.len());
        attrs.put_slice(&part);
    }
    attr_codec::put_attrs(&mut attrs, &u.attrs, ctx.as4);
    ok &= fits(attrs.len());
    out.put_u16(attrs.len() as u16);
    out.put_slice(&attrs);
    put_ipv4(out, &u.nlri, add_path(Family::IPV4));
    ok
}

fn put_family(out: &mut BytesMut, f: Family) {
    out.put_u16(f.afi);
    out.put_u8(f.safi);
}

fn put_ipv4(out: &mut BytesMut, list: &[super::nlri::Ipv4Prefix], add_path: bool) {
    for p in list {
        put_path_id(out, p.path_id, add_path);
        put_prefix_octets(out, p.len, &p.addr.octets());
    }
}

fn put_path_id(out: &mut BytesMut, id: Option<u32>, add_path: bool) {
    if add_path {
        out.put_u32(id.unwrap_or(0));
    }
}

fn put_nlri(out: &mut BytesMut, nlri: &Nlri, add_path: bool) {
    match nlri {
        Nlri::Evpn(list) => {
            for n in list {
                put_path_id(out, n.path_id, add_path);
                put_evpn(out, &n.route);
            }
        }
        Nlri::Ipv4(list) => put_ipv4(out, list, add_path),
        Nlri::Ipv6(list) => {
            for p in list {
                put_path_id(out, p.path_id, add_path);
                put_prefix_octets(out, p.len, &p.addr.octets());
            }
        }
        Nlri::Rtc(list) => {
            for m in list {
                put_membership(out, m);
            }
        }
        Nlri::Unknown(b) => out.put_slice(b),
    }
}

impl Attrs {
    /// Router's MAC (EVPN-IRB-04): the first counts.
    pub fn router_mac(&self) -> Option<crate::types::Mac> {
        self.ext_communities.iter().find_map(|c| match c.kind() {
            ExtKind::RouterMac(m) => Some(m),
            _ => None,
        })
    }
}
