//! Frames that we send to hosts.

use super::nd::{self, ICMPV6, SLLA, TLLA, kind};
use super::{ETHERNET_IPV4, ethertype};
use crate::types::Mac;
use bytes::{BufMut, Bytes, BytesMut};
use std::net::{Ipv4Addr, Ipv6Addr};

/// Shortest frame without its check sequence.
const MIN_FRAME: usize = 60;
/// Octets of the Ethernet header.
const ETHERNET: usize = 14;
/// Options of router advertisements.
const PREFIX: u8 = 3;
const MTU: u8 = 5;
/// ff02::1
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

pub(super) fn ethernet(dst: Mac, src: Mac, kind: u16) -> BytesMut {
    let mut out = BytesMut::with_capacity(96);
    out.put_slice(&dst.0);
    out.put_slice(&src.0);
    out.put_u16(kind);
    out
}

pub(super) fn finish(mut out: BytesMut) -> Bytes {
    if out.len() < MIN_FRAME {
        out.resize(MIN_FRAME, 0);
    }
    out.freeze()
}

fn arp(dst: Mac, kind: u16, op: u16, sender: (Mac, Ipv4Addr), target: (Mac, Ipv4Addr)) -> Bytes {
    let mut out = ethernet(dst, sender.0, kind);
    debug_assert_eq!(ETHERNET_IPV4[2..4], ethertype::IPV4.to_be_bytes());
    out.put_slice(&ETHERNET_IPV4);
    out.put_u16(op);
    for (mac, ip) in [sender, target] {
        out.put_slice(&mac.0);
        out.put_slice(&ip.octets());
    }
    finish(out)
}

/// Broadcast request: who has `target`, tell `sender`.
pub fn arp_request(mac: Mac, sender: Ipv4Addr, target: Ipv4Addr) -> Bytes {
    arp(Mac::BROADCAST, ethertype::ARP, 1, (mac, sender), (Mac::ZERO, target))
}

/// Broadcast request in the name of `sender` from another Ethernet source: a VTEP asks for its gateway, whose MAC every
/// VTEP has (PIT-18).
pub fn arp_request_for(src: Mac, sender: (Mac, Ipv4Addr), target: Ipv4Addr) -> Bytes {
    let mut out = ethernet(Mac::BROADCAST, src, ethertype::ARP);
    out.put_slice(&arp(Mac::BROADCAST, ethertype::ARP, 1, sender, (Mac::ZERO, target))[ETHERNET..]);
    finish(out)
}

/// Request to one host: whether it still has `target`. `sender` is unspecified, or the gateway's address where
/// that could make a guest give its address up (PIT-16).
pub fn arp_probe(mac: Mac, to: Mac, sender: Ipv4Addr, target: Ipv4Addr) -> Bytes {
    arp(to, ethertype::ARP, 1, (mac, sender), (Mac::ZERO, target))
}

/// Reply in the name of the owner: Ethernet source and sender are its MAC (PROXY-REPLY-01).
pub fn arp_reply(mac: Mac, ip: Ipv4Addr, to: Mac, to_ip: Ipv4Addr) -> Bytes {
    arp(to, ethertype::ARP, 2, (mac, ip), (to, to_ip))
}

/// Announcement in request form (RFC 5227 §2.3).
pub fn gratuitous_arp(mac: Mac, ip: Ipv4Addr) -> Bytes {
    arp(Mac::BROADCAST, ethertype::ARP, 1, (mac, ip), (Mac::ZERO, ip))
}

/// Announcement in reply form.
pub fn gratuitous_arp_reply(mac: Mac, ip: Ipv4Addr) -> Bytes {
    arp(Mac::BROADCAST, ethertype::ARP, 2, (mac, ip), (Mac::BROADCAST, ip))
}

/// RARP announcement as QEMU sends it (HOST-RARP-01).
pub fn rarp_announce(mac: Mac) -> Bytes {
    let who = (mac, Ipv4Addr::UNSPECIFIED);
    arp(Mac::BROADCAST, ethertype::RARP, 3, who, who)
}

/// The MAC of an IPv6 group: 33:33 and its last four octets (RFC 2464 §7).
fn group_mac(group: Ipv6Addr) -> Mac {
    let [.., a, b, c, d] = group.octets();
    Mac([0x33, 0x33, a, b, c, d])
}

/// ff02::1:ff00:0/104 with the last 24 bits of the address (RFC 4291 §2.7.1).
fn solicited_node(a: Ipv6Addr) -> Ipv6Addr {
    let [.., x, y, z] = a.octets();
    Ipv6Addr::from([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, x, y, z])
}

/// NS or NA: flags, target, and at most one link-layer address option.
fn neighbor(
    macs: (Mac, Mac),
    ips: (Ipv6Addr, Ipv6Addr),
    kind: u8,
    flags: u8,
    target: Ipv6Addr,
    option: Option<(u8, Mac)>,
) -> Bytes {
    let ((dst_mac, src_mac), (dst, src)) = (macs, ips);
    let mut m = [0u8; 32];
    m[0] = kind;
    m[4] = flags;
    m[8..24].copy_from_slice(&target.octets());
    let len = match option {
        Some((kind, mac)) => {
            m[24..26].copy_from_slice(&[kind, 1]);
            m[26..].copy_from_slice(&mac.0);
            32
        }
        None => 24,
    };
    let m = &mut m[..len];
    let sum = nd::checksum(src, dst, m);
    m[2..4].copy_from_slice(&sum.to_be_bytes());

    let mut out = ethernet(dst_mac, src_mac, ethertype::IPV6);
    out.put_u32(6 << 28);
    out.put_u16(len as u16);
    out.put_slice(&[ICMPV6, 255]);
    out.put_slice(&src.octets());
    out.put_slice(&dst.octets());
    out.put_slice(m);
    finish(out)
}

/// A prefix that hosts make their addresses from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Prefix {
    /// Any address in it.
    pub ip: Ipv6Addr,
    /// Its length.
    pub bits: u8,
}

/// RA of a default router (RFC 4861 §4.2): to one host, or to all nodes. `lifetime` in seconds. Prefixes are on-link, and
/// those of 64 bits autonomous, valid for 30 days and preferred for 7 (§6.2.1).
pub fn router_advertisement(
    mac: Mac,
    src: Ipv6Addr,
    to: Option<(Mac, Ipv6Addr)>,
    lifetime: u16,
    mtu: Option<u32>,
    prefixes: &[Prefix],
) -> Bytes {
    let mut m = vec![kind::RA, 0, 0, 0, 64, 0];
    m.put_u16(lifetime);
    m.put_bytes(0, 8);
    m.put_slice(&[SLLA, 1]);
    m.put_slice(&mac.0);
    if let Some(mtu) = mtu {
        m.put_slice(&[MTU, 1, 0, 0]);
        m.put_u32(mtu);
    }
    for p in prefixes {
        let autonomous = u8::from(p.bits == 64) << 6;
        m.put_slice(&[PREFIX, 4, p.bits, 0x80 | autonomous]);
        m.put_u32(30 * 24 * 3600);
        m.put_u32(7 * 24 * 3600);
        m.put_u32(0);
        let mask = u128::MAX.checked_shl(128 - u32::from(p.bits.min(128))).unwrap_or(0);
        m.put_u128(u128::from(p.ip) & mask);
    }
    let (dst_mac, dst) = to.unwrap_or((group_mac(ALL_NODES), ALL_NODES));
    let sum = nd::checksum(src, dst, &m);
    m[2..4].copy_from_slice(&sum.to_be_bytes());
    let mut out = ethernet(dst_mac, mac, ethertype::IPV6);
    out.put_u32(6 << 28);
    out.put_u16(m.len() as u16);
    out.put_slice(&[ICMPV6, 255]);
    out.put_slice(&src.octets());
    out.put_slice(&dst.octets());
    out.put_slice(&m);
    finish(out)
}

/// NS for `target`: to the host `to` alone (reachability probe), or to its solicited-node group. With an
/// unspecified source it carries no link-layer address (duplicate address detection).
pub fn neighbor_solicitation(mac: Mac, src: Ipv6Addr, to: Option<Mac>, target: Ipv6Addr) -> Bytes {
    let (dst_mac, dst) = match to {
        Some(m) => (m, target),
        None => (group_mac(solicited_node(target)), solicited_node(target)),
    };
    let option = (!src.is_unspecified()).then_some((SLLA, mac));
    neighbor((dst_mac, mac), (dst, src), kind::NS, 0, target, option)
}

/// NS to the solicited-node group in the name of `sender` from another Ethernet source, as [`arp_request_for`].
pub fn neighbor_solicitation_for(src: Mac, sender: (Mac, Ipv6Addr), target: Ipv6Addr) -> Bytes {
    let (group, dst) = (group_mac(solicited_node(target)), solicited_node(target));
    let whole = neighbor((group, sender.0), (dst, sender.1), kind::NS, 0, target, Some((SLLA, sender.0)));
    let mut out = ethernet(group, src, ethertype::IPV6);
    out.put_slice(&whole[ETHERNET..]);
    finish(out)
}

/// NA in the name of the owner of `target`: in answer to `to` (S=1), or unsolicited to all nodes (S=0), which is
/// also the answer to duplicate address detection (PROXY-REPLY-03, -04, -07).
pub fn neighbor_advertisement(
    mac: Mac,
    target: Ipv6Addr,
    to: Option<(Mac, Ipv6Addr)>,
    router: bool,
    r#override: bool,
) -> Bytes {
    let flags = u8::from(router) << 7 | u8::from(to.is_some()) << 6 | u8::from(r#override) << 5;
    let (dst_mac, dst) = to.unwrap_or((group_mac(ALL_NODES), ALL_NODES));
    neighbor((dst_mac, mac), (dst, target), kind::NA, flags, target, Some((TLLA, mac)))
}

/// Unsolicited NA with O=1 (RFC 4861 §7.2.6) in the name of the owner of `target`: to all nodes, or in a unicast frame to
/// one host (RFC 6085).
pub fn unsolicited_advertisement(mac: Mac, target: Ipv6Addr, host: Option<Mac>, router: bool) -> Bytes {
    let flags = u8::from(router) << 7 | 1 << 5;
    let dst = host.unwrap_or(group_mac(ALL_NODES));
    neighbor((dst, mac), (ALL_NODES, target), kind::NA, flags, target, Some((TLLA, mac)))
}
