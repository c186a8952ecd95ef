//! General queries: which groups does a port want (PIT-08)?

use super::build::{ethernet, finish};
use super::ethertype;
use super::nd::{self, ICMPV6};
use crate::types::Mac;
use bytes::{BufMut, Bytes};
use std::net::Ipv6Addr;

/// ff02::1
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
/// Hop-by-hop header: ICMPv6 next, router alert for MLD (RFC 2711), padding.
const ROUTER_ALERT: [u8; 8] = [ICMPV6, 0, 5, 2, 0, 0, 1, 0];

/// MLDv2 general query (RFC 3810 §5.1) that is to be answered within a millisecond; `src` is link-local.
pub fn mld_query(mac: Mac, src: Ipv6Addr) -> Bytes {
    let mut m = [0u8; 28];
    m[0] = 130;
    // Maximum response code in ms, then the group (none), robustness 2, and the interval between queries in seconds.
    m[5] = 1;
    (m[24], m[25]) = (2, 125);
    let sum = nd::checksum(src, ALL_NODES, &m);
    m[2..4].copy_from_slice(&sum.to_be_bytes());
    let mut out = ethernet(Mac([0x33, 0x33, 0, 0, 0, 1]), mac, ethertype::IPV6);
    out.put_u32(6 << 28);
    out.put_u16((ROUTER_ALERT.len() + m.len()) as u16);
    out.put_slice(&[0, 1]);
    out.put_slice(&src.octets());
    out.put_slice(&ALL_NODES.octets());
    out.put_slice(&ROUTER_ALERT);
    out.put_slice(&m);
    finish(out)
}

/// IGMPv3 general query (RFC 3376 §4.1) that is to be answered within 0.1 s, from nobody's address as a proxy's
/// (RFC 4541 §2.1.1).
pub fn igmp_query(mac: Mac) -> Bytes {
    let mut m = [0x11u8, 1, 0, 0, 0, 0, 0, 0, 2, 125, 0, 0];
    let sum = sum(&m);
    m[2..4].copy_from_slice(&sum.to_be_bytes());
    // To 224.0.0.1, one hop, with the router alert option (RFC 2113).
    let mut ip = [0x46u8, 0xc0, 0, 36, 0, 0, 0x40, 0, 1, 2, 0, 0, 0, 0, 0, 0, 224, 0, 0, 1, 0x94, 4, 0, 0];
    let head = self::sum(&ip);
    ip[10..12].copy_from_slice(&head.to_be_bytes());
    let mut out = ethernet(Mac([1, 0, 0x5e, 0, 0, 1]), mac, ethertype::IPV4);
    out.put_slice(&ip);
    out.put_slice(&m);
    finish(out)
}

/// RFC 1071.
fn sum(b: &[u8]) -> u16 {
    let mut sum: u32 = b.chunks(2).map(|c| u32::from(c[0]) << 8 | u32::from(*c.get(1).unwrap_or(&0))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: Mac = Mac([2, 0, 0, 0, 0, 1]);

    /// Octets as RFC 3810 §5.1 and RFC 3376 §4.1 have them; the sums are right if all of it adds up to nothing.
    #[test]
    fn queries_are_general_short_and_with_right_sums() {
        let q = mld_query(OWN, Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1));
        assert_eq!(q[..14], [0x33, 0x33, 0, 0, 0, 1, 2, 0, 0, 0, 0, 1, 0x86, 0xdd]);
        assert_eq!((&q[18..22], &q[54..62]), (&[0, 36, 0, 1][..], &[58, 0, 5, 2, 0, 0, 1, 0][..]));
        assert_eq!((q[62], &q[66..68], &q[70..86]), (130, &[0, 1][..], &[0; 16][..]));
        assert_eq!(q.len(), 62 + 28);
        let pseudo = [&q[22..54], &[0, 0, 0, 28, 0, 0, 0, 58], &q[62..90]].concat();
        assert_eq!(sum(&pseudo), 0);
        let q = igmp_query(OWN);
        assert_eq!(q[..6], [1, 0, 0x5e, 0, 0, 1]);
        assert_eq!((q[14], q[22], q[23], &q[30..34]), (0x46, 1, 2, &[224, 0, 0, 1][..]));
        assert_eq!((sum(&q[14..38]), sum(&q[38..50]), q[38]), (0, 0, 0x11));
    }
}
