//! What an FRR-like VTEP says and how it reads others, with the tests' own encoder and parser.

use super::tables::{Key, Path};
use crate::sim::sniff;
use crate::speaker::{Attributes, announce, message, withdraw};
use evpn::types::Mac;
use std::net::{IpAddr, Ipv4Addr};

const ASN: u16 = 65000;

/// Who speaks: VTEP address, which is the router id too, and VNI.
#[derive(Clone, Copy, Debug)]
pub(super) struct Voice {
    pub(super) vtep: Ipv4Addr,
    pub(super) vni: u32,
}

impl Voice {
    fn rd(self) -> [u8; 8] {
        let [a, b, c, d] = self.vtep.octets();
        [0, 1, a, b, c, d, 0, 2]
    }

    /// OPEN with EVPN, route refresh, graceful restart without a family (C.10), four-octet AS numbers.
    pub(super) fn open(self, hold: u16) -> Vec<u8> {
        let mut caps = vec![1, 4, 0, 25, 0, 70, 2, 0, 64, 2, 0xc0, 120, 65, 4];
        caps.extend(u32::from(ASN).to_be_bytes());
        let mut body = vec![4];
        body.extend(ASN.to_be_bytes());
        body.extend(hold.to_be_bytes());
        body.extend(self.vtep.octets());
        body.extend([caps.len() as u8 + 2, 2, caps.len() as u8]);
        body.extend(caps);
        message(1, &body)
    }

    fn attributes(self) -> Attributes {
        Attributes::new(self.vtep.into(), self.vni)
    }

    fn nlri(self, (mac, ip): (Mac, Option<IpAddr>), label: u32) -> Vec<u8> {
        let ip = match ip {
            Some(IpAddr::V4(a)) => a.octets().to_vec(),
            Some(IpAddr::V6(a)) => a.octets().to_vec(),
            None => Vec::new(),
        };
        let mut n = vec![2, 33 + ip.len() as u8];
        n.extend(self.rd());
        n.extend([0; 14]);
        n.push(48);
        n.extend(mac.0);
        n.push(ip.len() as u8 * 8);
        n.extend(ip);
        n.extend(&label.to_be_bytes()[1..]);
        n
    }

    /// UPDATE with a Type-2 route. No MAC mobility community when the sequence is 0 (C.5).
    pub(super) fn reach(self, own: (Mac, Option<IpAddr>), seq: u32) -> Vec<u8> {
        let at = self.attributes();
        let at = if seq == 0 { at } else { at.seq(seq) };
        announce(&at, &[self.nlri(own, self.vni)])
    }

    /// UPDATE that withdraws Type-2 routes, label 0 (C.3).
    pub(super) fn unreach(self, own: &[(Mac, Option<IpAddr>)]) -> Vec<u8> {
        let all: Vec<Vec<u8>> = own.iter().map(|o| self.nlri(*o, 0)).collect();
        withdraw(&all)
    }

    /// UPDATE with its IMET.
    pub(super) fn imet(self) -> Vec<u8> {
        let mut n = vec![3, 17];
        n.extend(self.rd());
        n.extend([0; 4]);
        n.push(32);
        n.extend(self.vtep.octets());
        announce(&self.attributes().ingress_replication(self.vni, self.vtep.into()), &[n])
    }
}

/// KEEPALIVE.
pub(super) fn keepalive() -> Vec<u8> {
    message(4, &[])
}

/// End-of-RIB.
pub(super) fn end_of_rib() -> Vec<u8> {
    withdraw(&[])
}

/// One route of an UPDATE; `None`: withdrawn.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Said {
    MacIp(Key, Option<Path>),
    /// RD and VTEP of an IMET.
    Imet([u8; 8], Option<IpAddr>),
}

/// Reads an UPDATE.
pub(super) fn read(m: &[u8], mut say: impl FnMut(Said)) {
    let seq =
        sniff::sequence_at(m).and_then(|at| m.get(at..at + 4)?.try_into().ok()).map_or(0, u32::from_be_bytes);
    for (code, range) in sniff::attributes(m) {
        let value = &m[range];
        let (rest, path) = match code {
            14 => {
                let len = value.get(3).map_or(0, |l| usize::from(*l));
                let Some(vtep) = value.get(4..4 + len).and_then(ip) else { continue };
                (value.get(5 + len..), Some(Path { seq, vtep }))
            }
            15 => (value.get(3..), None),
            _ => continue,
        };
        let mut rest = rest.unwrap_or_default();
        while let Some(&[kind, len]) = rest.first_chunk::<2>() {
            let Some(body) = rest.get(2..2 + usize::from(len)) else { break };
            if let Some(said) = route(kind, body, path) {
                say(said);
            }
            rest = &rest[2 + usize::from(len)..];
        }
    }
}

fn route(kind: u8, body: &[u8], path: Option<Path>) -> Option<Said> {
    let rd = *body.first_chunk::<8>()?;
    let octets = |at: usize| body.get(at).map(|bits| usize::from(*bits) / 8);
    match kind {
        // RD 8, ESI 10, tag 4, MAC length 1, MAC 6, IP length 1.
        2 => {
            let mac = body.get(23..).and_then(Mac::from_slice)?;
            let ip = body.get(30..30 + octets(29)?).and_then(ip);
            Some(Said::MacIp(Key { rd, mac, ip }, path))
        }
        3 => {
            let originator = body.get(13..13 + octets(12)?).and_then(ip)?;
            Some(Said::Imet(rd, path.map(|_| originator)))
        }
        _ => None,
    }
}

fn ip(octets: &[u8]) -> Option<IpAddr> {
    if let Ok(a) = <[u8; 4]>::try_from(octets) {
        return Some(IpAddr::from(a));
    }
    <[u8; 16]>::try_from(octets).ok().map(IpAddr::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_it_says_it_reads() {
        let v = Voice { vtep: Ipv4Addr::new(10, 254, 0, 1), vni: 100 };
        let mac = Mac([2, 0, 0, 0, 0, 9]);
        for ip in [None, Some("192.168.0.1".parse().expect("valid")), Some("fd00::1".parse().expect("valid"))]
        {
            for seq in [0, 7] {
                let m = v.reach((mac, ip), seq);
                let mut got = Vec::new();
                read(&m, |s| got.push(s));
                let path = Some(Path { seq, vtep: v.vtep.into() });
                assert_eq!(got, [Said::MacIp(Key { rd: v.rd(), mac, ip }, path)]);
                assert_eq!(sniff::sequence_at(&m).is_some(), seq != 0, "no community for 0");
            }
            let mut got = Vec::new();
            read(&v.unreach(&[(mac, ip)]), |s| got.push(s));
            assert_eq!(got, [Said::MacIp(Key { rd: v.rd(), mac, ip }, None)]);
        }
        let mut got = Vec::new();
        read(&v.imet(), |s| got.push(s));
        assert_eq!(got, [Said::Imet(v.rd(), Some(v.vtep.into()))]);
    }
}
