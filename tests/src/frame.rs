//! Frames as guests and hypervisors send them, built by hand: the tests must not lean on the code that they test.

use evpn::types::Mac;
use std::net::{Ipv4Addr, Ipv6Addr};

pub(crate) fn ethernet(dst: Mac, src: Mac, kind: u16, body: &[u8]) -> Vec<u8> {
    let mut f = Vec::with_capacity(14 + body.len());
    f.extend(dst.0);
    f.extend(src.0);
    f.extend(kind.to_be_bytes());
    f.extend(body);
    f.resize(f.len().max(60), 0);
    f
}

fn arp_body(op: u16, sender: (Mac, Ipv4Addr), target: (Mac, Ipv4Addr)) -> Vec<u8> {
    let mut b = vec![0, 1, 8, 0, 6, 4];
    b.extend(op.to_be_bytes());
    b.extend(sender.0.0);
    b.extend(sender.1.octets());
    b.extend(target.0.0);
    b.extend(target.1.octets());
    b
}

/// RARP as QEMU sends it after a migration: "reverse request self", no addresses.
pub fn rarp(mac: Mac) -> Vec<u8> {
    let none = Ipv4Addr::UNSPECIFIED;
    ethernet(Mac::BROADCAST, mac, 0x8035, &arp_body(3, (mac, none), (mac, none)))
}

/// Gratuitous ARP request: sender and target are the same address.
pub fn garp(mac: Mac, ip: Ipv4Addr) -> Vec<u8> {
    ethernet(Mac::BROADCAST, mac, 0x0806, &arp_body(1, (mac, ip), (Mac::ZERO, ip)))
}

/// ARP request.
pub fn arp_request(mac: Mac, ip: Ipv4Addr, wanted: Ipv4Addr) -> Vec<u8> {
    ethernet(Mac::BROADCAST, mac, 0x0806, &arp_body(1, (mac, ip), (Mac::ZERO, wanted)))
}

/// ARP reply.
pub fn arp_reply(from: (Mac, Ipv4Addr), to: (Mac, Ipv4Addr)) -> Vec<u8> {
    ethernet(to.0, from.0, 0x0806, &arp_body(2, from, to))
}

/// The MAC and IP that an ARP reply in this frame announces.
pub fn as_arp_reply(frame: &[u8]) -> Option<(Mac, Ipv4Addr)> {
    let b = frame.get(..42)?;
    if b[12..14] != [8, 6] || b[20..22] != [0, 2] {
        return None;
    }
    let ip: [u8; 4] = b[28..32].try_into().ok()?;
    Some((Mac::from_slice(&b[22..28])?, ip.into()))
}

pub(crate) fn icmpv6(src: Ipv6Addr, dst: Ipv6Addr, mut message: Vec<u8>) -> Vec<u8> {
    let mut sum: u32 = 58 + message.len() as u32;
    for a in [src, dst] {
        sum += a.segments().iter().map(|s| u32::from(*s)).sum::<u32>();
    }
    for pair in message.chunks(2) {
        sum += u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
    }
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    message[2..4].copy_from_slice(&(!(sum as u16)).to_be_bytes());
    let mut p = vec![0x60, 0, 0, 0];
    p.extend((message.len() as u16).to_be_bytes());
    p.extend([58, 255]);
    p.extend(src.octets());
    p.extend(dst.octets());
    p.extend(message);
    p
}

/// Unsolicited neighbour advertisement to all nodes, with the override flag.
pub fn unsolicited_na(mac: Mac, ip: Ipv6Addr) -> Vec<u8> {
    let all = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    let mut m = vec![136, 0, 0, 0, 0x20, 0, 0, 0];
    m.extend(ip.octets());
    m.extend([2, 1]);
    m.extend(mac.0);
    ethernet(Mac([0x33, 0x33, 0, 0, 0, 1]), mac, 0x86dd, &icmpv6(ip, all, m))
}

/// Neighbour solicitation for `wanted`, to its solicited-node group.
pub fn neighbor_solicitation(mac: Mac, ip: Ipv6Addr, wanted: Ipv6Addr) -> Vec<u8> {
    solicitation_with(mac, ip, wanted, &[&[1, 1][..], &mac.0].concat())
}

/// The same with these options, whether they are any or not.
pub fn solicitation_with(mac: Mac, ip: Ipv6Addr, wanted: Ipv6Addr, options: &[u8]) -> Vec<u8> {
    let [.., x, y, z] = wanted.octets();
    let group = Ipv6Addr::from([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, x, y, z]);
    let mut m = vec![135, 0, 0, 0, 0, 0, 0, 0];
    m.extend(wanted.octets());
    m.extend(options);
    ethernet(Mac([0x33, 0x33, 0xff, x, y, z]), mac, 0x86dd, &icmpv6(ip, group, m))
}

/// Duplicate address detection for an address, with these options.
pub fn duplicate_check(mac: Mac, wanted: Ipv6Addr, options: &[u8]) -> Vec<u8> {
    solicitation_with(mac, Ipv6Addr::UNSPECIFIED, wanted, options)
}

/// The MAC and IP that a neighbour advertisement in this frame announces.
pub fn as_neighbor_advertisement(frame: &[u8]) -> Option<(Mac, Ipv6Addr)> {
    let b = frame.get(..86)?;
    if b[12..14] != [0x86, 0xdd] || b[20] != 58 || b[54] != 136 || b[78..80] != [2, 1] {
        return None;
    }
    let ip: [u8; 16] = b[62..78].try_into().ok()?;
    Some((Mac::from_slice(&b[80..86])?, ip.into()))
}

/// Router advertisement with a prefix and a lifetime, as a VM could send it (PIT-02).
pub fn router_advertisement(mac: Mac, prefix: Ipv6Addr) -> Vec<u8> {
    let all = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    let from = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0x99);
    let mut m = vec![134, 0, 0, 0, 64, 0, 0x07, 0x08];
    m.extend([0; 8]);
    // Prefix information: 64 bits, on-link and autonomous, valid and preferred for an hour.
    m.extend([3, 4, 64, 0xc0, 0, 0, 0x0e, 0x10, 0, 0, 0x0e, 0x10, 0, 0, 0, 0]);
    m.extend(prefix.octets());
    ethernet(Mac([0x33, 0x33, 0, 0, 0, 1]), mac, 0x86dd, &icmpv6(from, all, m))
}

/// A data frame that nobody takes for control traffic: experimental EtherType, eight octets of payload.
pub fn data(dst: Mac, src: Mac, number: u64) -> Vec<u8> {
    ethernet(dst, src, 0x88b5, &number.to_be_bytes())
}

/// Payload of a frame made by [`data`] for this destination.
pub fn as_data(frame: &[u8], dst: Mac) -> Option<u64> {
    let b = frame.get(..22)?;
    (b[..6] == dst.0 && b[12..14] == [0x88, 0xb5])
        .then(|| u64::from_be_bytes(b[14..22].try_into().unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_arp_reply_is_read_back() {
        let (a, b) = (Mac([2, 0, 0, 0, 0, 1]), Mac([2, 0, 0, 0, 0, 2]));
        let (x, y) = (Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2));
        assert_eq!(as_arp_reply(&arp_reply((a, x), (b, y))), Some((a, x)));
        assert_eq!(as_arp_reply(&garp(a, x)), None);
    }

    #[test]
    fn a_neighbour_advertisement_is_read_back_and_its_checksum_holds() {
        let (m, ip) = (Mac([2, 0, 0, 0, 0, 1]), "fd00::5".parse().unwrap());
        let f = unsolicited_na(m, ip);
        assert_eq!(as_neighbor_advertisement(&f), Some((m, ip)));
        // One's complement sum over pseudo header and message, checksum included, is all ones.
        let len = usize::from(u16::from_be_bytes([f[18], f[19]]));
        let mut sum: u32 = 58 + len as u32;
        for pair in f[22..54 + len].chunks(2) {
            sum += u32::from(u16::from_be_bytes([pair[0], pair[1]]));
        }
        while sum >> 16 != 0 {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        assert_eq!(sum, 0xffff);
    }

    #[test]
    fn a_data_frame_is_told_by_its_destination() {
        let (a, b) = (Mac([2, 0, 0, 0, 0, 1]), Mac([2, 0, 0, 0, 0, 2]));
        assert_eq!(as_data(&data(a, b, 7), a), Some(7));
        assert_eq!(as_data(&data(a, b, 7), b), None);
    }
}
