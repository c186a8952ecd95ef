//! What UPDATEs say about MACs, read by a decoder of the tests' own.

use evpn::types::Mac;

/// One Type-2 route in an UPDATE.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct HeardMac {
    /// MAC.
    pub mac: Mac,
    /// With an IP.
    pub ip: bool,
    /// Sequence of the announcement, 0 without the community; `None`: withdrawn.
    pub seq: Option<u32>,
}

/// Type-2 routes of a whole UPDATE message, withdrawals first. Empty for other messages and for what it cannot read.
pub fn macs(message: &[u8]) -> Vec<HeardMac> {
    read(message).unwrap_or_default()
}

fn read(m: &[u8]) -> Option<Vec<HeardMac>> {
    if *m.get(18)? != 2 {
        return None;
    }
    let withdrawn = usize::from(u16::from_be_bytes([*m.get(19)?, *m.get(20)?]));
    let attrs = m.get(21 + withdrawn + 2..)?;
    let (mut reach, mut unreach, mut seq) = (None, None, 0);
    let mut rest = attrs;
    while !rest.is_empty() {
        let (flags, code) = (*rest.first()?, *rest.get(1)?);
        let (len, head) = if flags & 0x10 == 0 {
            (usize::from(*rest.get(2)?), 3)
        } else {
            (usize::from(u16::from_be_bytes([*rest.get(2)?, *rest.get(3)?])), 4)
        };
        let value = rest.get(head..head + len)?;
        rest = rest.get(head + len..)?;
        match code {
            // AFI, SAFI, next hop, one reserved octet, NLRI.
            14 if value.starts_with(&[0, 25, 70]) => reach = value.get(5 + usize::from(*value.get(3)?)..),
            15 if value.starts_with(&[0, 25, 70]) => unreach = value.get(3..),
            16 => {
                for c in value.chunks_exact(8).filter(|c| c.starts_with(&[6, 0])) {
                    seq = u32::from_be_bytes([c[4], c[5], c[6], c[7]]);
                }
            }
            _ => {}
        }
    }
    let mut out = nlri(unreach.unwrap_or_default(), None)?;
    out.extend(nlri(reach.unwrap_or_default(), Some(seq))?);
    Some(out)
}

fn nlri(mut rest: &[u8], seq: Option<u32>) -> Option<Vec<HeardMac>> {
    let mut out = Vec::new();
    while !rest.is_empty() {
        let (kind, len) = (*rest.first()?, usize::from(*rest.get(1)?));
        let route = rest.get(2..2 + len)?;
        rest = rest.get(2 + len..)?;
        if kind == 2 {
            // RD 8, ESI 10, tag 4, MAC length 1, MAC 6, IP length 1.
            let mac = Mac(route.get(23..29)?.try_into().ok()?);
            out.push(HeardMac { mac, ip: *route.get(29)? != 0, seq });
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::speaker::{Attributes, announce, mac_ip, withdraw};
    use std::net::{IpAddr, Ipv4Addr};

    #[test]
    fn it_reads_what_the_speaker_writes() {
        let (a, b) = (Mac([2, 0, 0, 0, 0, 1]), Mac([2, 0, 0, 0, 0, 2]));
        let ip = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 9));
        let at = Attributes::new(ip, 100);
        let routes = [mac_ip(100, a, None), mac_ip(100, b, Some(ip))];
        let heard = |mac, ip, seq| HeardMac { mac, ip, seq };
        let both = |seq| vec![heard(a, false, seq), heard(b, true, seq)];
        assert_eq!(macs(&announce(&at.clone().seq(0x0102_0304), &routes)), both(Some(0x0102_0304)));
        assert_eq!(macs(&announce(&at, &routes)), both(Some(0)));
        assert_eq!(macs(&withdraw(&routes)), both(None));
        assert!(macs(&withdraw(&[])).is_empty() && macs(&crate::speaker::message(4, &[])).is_empty());
    }
}
