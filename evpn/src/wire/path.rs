//! AS_PATH and AS4_PATH: reading, writing, merging (RFC 4271 §5.1.2, RFC 6793 §4.2).

use super::attr::{AsPath, AsSegment};
use super::parse::{Parsed, fail};
use crate::types::Asn;
use bytes::{BufMut, BytesMut};

/// AS_SEQUENCE.
const SEQUENCE: u8 = 2;
/// AS_SET counts as one AS in the length of a path.
const SET: u8 = 1;

/// The one fault of an AS4_PATH that is more than a reason to discard it (RFC 7607 §2).
pub(crate) const AS_ZERO: &str = "AS 0 in an AS path";

/// A whole AS_PATH value with AS numbers of two or four octets.
pub(crate) fn read(mut i: &[u8], as4: bool) -> Parsed<'_, AsPath> {
    let mut out = Vec::new();
    let width = if as4 { 4 } else { 2 };
    while !i.is_empty() {
        let [kind, n, rest @ ..] = i else {
            return fail(i, "AS path ends inside a segment header");
        };
        if !matches!(kind, 1..=4) {
            return fail(i, "AS path segment type is unknown");
        }
        if *n == 0 {
            return fail(i, "AS path segment is empty");
        }
        let Some((numbers, rest)) = rest.split_at_checked(usize::from(*n) * width) else {
            return fail(i, "AS path segment runs past the attribute");
        };
        let mut asns = Vec::with_capacity(usize::from(*n));
        for b in numbers.chunks_exact(width) {
            let n = b.iter().fold(0, |n, b| n << 8 | u32::from(*b));
            if n == 0 {
                return fail(b, AS_ZERO);
            }
            asns.push(Asn(n));
        }
        out.push(AsSegment { kind: *kind, asns });
        i = rest;
    }
    Ok((i, AsPath(out)))
}

/// The number as a two-octet field holds it.
pub(crate) fn as2(a: Asn) -> u16 {
    u16::try_from(a.0).unwrap_or(Asn::TRANS)
}

/// Octets of these segments.
pub(crate) fn len(segments: &[AsSegment], as4: bool) -> usize {
    let width = if as4 { 4 } else { 2 };
    segments.iter().flat_map(|s| s.asns.chunks(255)).map(|c| 2 + c.len() * width).sum()
}

/// Appends segments; one of more than 255 numbers is written as several.
pub(crate) fn put(out: &mut BytesMut, segments: &[AsSegment], as4: bool) {
    for s in segments {
        for part in s.asns.chunks(255) {
            out.put_slice(&[s.kind, part.len() as u8]);
            for a in part {
                if as4 {
                    out.put_u32(a.0);
                } else {
                    out.put_u16(as2(*a));
                }
            }
        }
    }
}

/// What goes into AS4_PATH towards a two-octet speaker; `None` when every number fits two octets.
///
/// Confederation segments may not occur in it. Where all numbers up to the last of them fit, only what follows
/// is sent, so that the receiver keeps that segment in its place when it merges.
pub(crate) fn as4_path(p: &AsPath) -> Option<Vec<AsSegment>> {
    let wide = |s: &AsSegment| s.asns.iter().any(|a| a.0 > u32::from(u16::MAX));
    if !p.0.iter().any(wide) {
        return None;
    }
    let after = p.0.iter().rposition(AsSegment::is_confederation).map_or(0, |at| at + 1);
    let (head, tail) = p.0.split_at(after);
    Some(if head.iter().any(wide) {
        p.0.iter().filter(|s| !s.is_confederation()).cloned().collect()
    } else {
        tail.to_vec()
    })
}

/// Rebuilds the real path from AS_PATH and AS4_PATH (RFC 6793 §4.2.3).
pub(crate) fn merge(mapped: &mut AsPath, real: AsPath) {
    let real: Vec<_> = real.0.into_iter().filter(|s| !s.is_confederation()).collect();
    let count = |s: &[AsSegment]| s.iter().map(AsSegment::count).sum::<usize>();
    let Some(mut need) = count(&mapped.0).checked_sub(count(&real)) else {
        return;
    };
    let mut out: Vec<AsSegment> = Vec::with_capacity(mapped.0.len() + real.len());
    for s in core::mem::take(&mut mapped.0) {
        let n = s.count();
        if n <= need {
            need -= n;
            out.push(s);
        } else {
            // Of a set all or nothing; of a sequence the leading part.
            let asns: Vec<_> = s.asns.into_iter().take(need).collect();
            if !asns.is_empty() {
                out.push(AsSegment { kind: s.kind, asns });
            }
            break;
        }
    }
    let mut real = real.into_iter();
    match (out.last_mut(), real.next()) {
        // The two parts of a sequence that the cut went through become one again.
        (Some(last), Some(first))
            if last.kind == SEQUENCE
                && first.kind == SEQUENCE
                && last.asns.len() + first.asns.len() <= 255 =>
        {
            last.asns.extend(first.asns);
        }
        (_, first) => out.extend(first),
    }
    out.extend(real);
    mapped.0 = out;
}

impl AsSegment {
    /// AS_CONFED_SEQUENCE or AS_CONFED_SET (RFC 5065 §3).
    pub const fn is_confederation(&self) -> bool {
        matches!(self.kind, 3 | 4)
    }
    /// How many ASes it counts for in the length of the path (BGP-DEC-02).
    pub fn count(&self) -> usize {
        match self.kind {
            SEQUENCE => self.asns.len(),
            SET => 1,
            _ => 0,
        }
    }
}

impl AsPath {
    /// Length for route selection: an AS_SET counts one, confederation segments none (BGP-DEC-02).
    pub fn count(&self) -> usize {
        self.0.iter().map(AsSegment::count).sum()
    }
    /// Whether `asn` occurs anywhere: a loop if it is ours (BGP-DEC-08).
    pub fn contains(&self, asn: Asn) -> bool {
        self.0.iter().any(|s| s.asns.contains(&asn))
    }
    /// The leftmost AS, that of the neighbour on an eBGP session (BGP-ERR-12).
    pub fn first(&self) -> Option<Asn> {
        self.0.first().and_then(|s| s.asns.first()).copied()
    }
    /// The path with `asn` put in front, as for an eBGP neighbour (BGP-DEC-07).
    pub fn prepended(&self, asn: Asn) -> Self {
        let mut out = self.0.clone();
        match out.first_mut() {
            Some(s) if s.kind == SEQUENCE && s.asns.len() < 255 => s.asns.insert(0, asn),
            _ => out.insert(0, AsSegment { kind: SEQUENCE, asns: vec![asn] }),
        }
        Self(out)
    }
}
