//! Frames that are carried to one host instead of all: whom DHCP is for, and the frame with another destination.

use super::dhcp::UDP;
use super::ethertype;
use crate::types::Mac;
use bytes::Bytes;

/// Whom a DHCP message is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum DhcpFor {
    /// Servers, or relays.
    Servers,
    /// A client, by its hardware address.
    Client(Mac),
}

/// The network header's family, the addresses of the packet, and its UDP datagram, untagged and unfragmented.
fn datagram(f: &[u8]) -> Option<(u16, core::ops::Range<usize>, core::ops::Range<usize>)> {
    let kind = u16::from_be_bytes(f.get(12..14)?.try_into().ok()?);
    let (addresses, from, end) = match kind {
        ethertype::IPV4 => {
            let header = usize::from(f.get(14)? & 15) * 4;
            let len = usize::from(u16::from_be_bytes(f.get(16..18)?.try_into().ok()?));
            let fragment = u16::from_be_bytes(f.get(20..22)?.try_into().ok()?) & 0x3fff;
            if *f.get(23)? != UDP || fragment != 0 || header < 20 {
                return None;
            }
            (26..34, 14 + header, 14 + len)
        }
        ethertype::IPV6 => {
            let len = usize::from(u16::from_be_bytes(f.get(18..20)?.try_into().ok()?));
            if *f.get(20)? != UDP {
                return None;
            }
            (22..54, 54, 54 + len)
        }
        _ => return None,
    };
    let len = usize::from(u16::from_be_bytes(f.get(from + 4..from + 6)?.try_into().ok()?));
    let whole = from..from.checked_add(len)?;
    (len >= 8 && whole.end <= end && whole.end <= f.len()).then_some((kind, addresses, whole))
}

/// Whom a frame is for, if it is DHCP of either family. Messages that leases are not read from count, too: discover, offer,
/// solicit, advertise and the like.
pub fn dhcp_for(f: &[u8]) -> Option<DhcpFor> {
    let (kind, _, udp) = datagram(f)?;
    let udp = f.get(udp)?;
    let port = u16::from_be_bytes(udp.get(2..4)?.try_into().ok()?);
    let message = udp.get(8..)?;
    match (kind, port, message.first()?) {
        (ethertype::IPV4, 67, 1) => Some(DhcpFor::Servers),
        (ethertype::IPV4, 68, 2) if message.get(1..3)? == [1, 6] => {
            Mac::from_slice(message.get(28..)?).filter(|m| m.is_host()).map(DhcpFor::Client)
        }
        (ethertype::IPV6, 547, _) => Some(DhcpFor::Servers),
        (ethertype::IPV6, 546, _) => Mac::from_slice(f).filter(|m| m.is_host()).map(DhcpFor::Client),
        _ => None,
    }
}

/// The same frame for one host. What a host on this machine has left to the network card, the sum of a UDP datagram, is
/// filled in: the frame does not pass one. `None`: it is no Ethernet frame.
pub fn readdressed(f: &[u8], to: Mac) -> Option<Bytes> {
    let mut out = f.to_vec();
    out.get_mut(..6)?.copy_from_slice(&to.0);
    if let Some((kind, addresses, udp)) = datagram(f) {
        let sum_at = udp.start + 6;
        out.get_mut(sum_at..sum_at + 2)?.fill(0);
        let length = u32::try_from(udp.len()).ok()?;
        let mut sum = u32::from(UDP) + length;
        for part in [out.get(addresses)?, out.get(udp)?] {
            for pair in part.chunks(2) {
                let low = pair.get(1).copied().unwrap_or(0);
                sum += u32::from(u16::from_be_bytes([pair[0], low]));
            }
        }
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        debug_assert!(matches!(kind, ethertype::IPV4 | ethertype::IPV6));
        // 0 would say that there is no sum (RFC 768).
        let sum = match !(sum as u16) {
            0 => 0xffff,
            n => n,
        };
        out.get_mut(sum_at..sum_at + 2)?.copy_from_slice(&sum.to_be_bytes());
    }
    Some(Bytes::from(out))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TO: Mac = Mac([2, 0, 0, 0, 0, 9]);

    fn udp4(ports: (u16, u16), payload: &[u8]) -> Vec<u8> {
        let len = 8 + payload.len() as u16;
        let mut f = [&[0xff; 6][..], &[2, 0, 0, 0, 0, 1], &[8, 0]].concat();
        f.extend([0x45, 0]);
        f.extend((20 + len).to_be_bytes());
        f.extend([0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        f.extend(ports.0.to_be_bytes());
        f.extend(ports.1.to_be_bytes());
        f.extend(len.to_be_bytes());
        f.extend([0xab, 0xcd]);
        f.extend(payload);
        f
    }

    fn udp6(ports: (u16, u16), payload: &[u8]) -> Vec<u8> {
        let len = 8 + payload.len() as u16;
        let mut f = [&TO.0[..], &[2, 0, 0, 0, 0, 1], &[0x86, 0xdd], &[0x60, 0, 0, 0]].concat();
        f.extend(len.to_be_bytes());
        f.extend([17, 64]);
        f.extend([0xfe; 32]);
        f.extend(ports.0.to_be_bytes());
        f.extend(ports.1.to_be_bytes());
        f.extend(len.to_be_bytes());
        f.extend([0, 0]);
        f.extend(payload);
        f
    }

    fn bootp(op: u8) -> Vec<u8> {
        let mut m = vec![op, 1, 6, 0];
        m.resize(28, 0);
        m.extend(TO.0);
        m.resize(240, 0);
        m
    }

    /// The sum as a receiver checks it: over everything, with the sum itself, all ones (RFC 768).
    fn checks(f: &[u8], addresses: core::ops::Range<usize>, udp: usize) -> bool {
        let len = f.len() - udp;
        let all = [&f[addresses], &[0, 17], &(len as u16).to_be_bytes(), &f[udp..], &[0][..len % 2]].concat();
        let sum: u64 = all.chunks(2).map(|c| u64::from(c[0]) * 256 + u64::from(c[1])).sum();
        sum.is_multiple_of(0xffff) && sum > 0
    }

    #[test]
    fn dhcp_of_both_families_is_told_from_the_rest() {
        let server = |f: &[u8]| dhcp_for(f) == Some(DhcpFor::Servers);
        assert!(server(&udp4((68, 67), &bootp(1))));
        assert!(server(&udp6((546, 547), &[1, 0, 0, 0])));
        assert_eq!(dhcp_for(&udp4((67, 68), &bootp(2))), Some(DhcpFor::Client(TO)));
        assert_eq!(dhcp_for(&udp6((547, 546), &[2, 0, 0, 0])), Some(DhcpFor::Client(TO)));
        for other in [
            udp4((68, 67), &bootp(2)),
            udp4((67, 68), &bootp(1)),
            udp4((1, 53), &bootp(1)),
            udp4((68, 67), &[]),
            udp6((1, 53), &[1, 0, 0, 0]),
        ] {
            assert_eq!(dhcp_for(&other), None, "{other:?}");
        }
    }

    #[test]
    fn a_readdressed_frame_has_the_new_destination_and_the_right_sum() {
        for payload in [bootp(1), vec![1, 2, 3]] {
            let f = udp4((68, 67), &payload);
            let got = readdressed(&f, TO).expect("a frame");
            assert_eq!((&got[..6], &got[6..40]), (&TO.0[..], &f[6..40]));
            assert!(checks(&got, 26..34, 34), "{got:?}");
            let got = readdressed(&udp6((546, 547), &payload), TO).expect("a frame");
            assert!(checks(&got, 22..54, 54), "{got:?}");
        }
        let arp = [&[0xff; 6][..], &[2, 0, 0, 0, 0, 1, 8, 6], &[7; 46]].concat();
        assert_eq!(readdressed(&arp, TO).expect("a frame")[6..], arp[6..]);
        assert_eq!(readdressed(&[1, 2, 3], TO), None);
    }

    #[test]
    fn no_cut_or_changed_frame_is_read_beyond_its_end() {
        for f in [udp4((67, 68), &bootp(2)), udp6((546, 547), &[1, 0, 0, 0])] {
            for n in 0..f.len() {
                let _ = (dhcp_for(&f[..n]), readdressed(&f[..n], TO));
                for value in [0, 0x7f, 0xff] {
                    let mut bad = f.clone();
                    bad[n] = value;
                    let _ = (dhcp_for(&bad), readdressed(&bad, TO));
                }
            }
        }
    }
}
