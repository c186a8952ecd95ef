//! Frames of hosts, octet by octet: what the parser must understand, not what our own builders make.

use bytes::{BufMut, Bytes, BytesMut};
use evpn::types::Mac;
use std::net::Ipv4Addr;

/// RARP announce as QEMU sends it, padded (HOST-RARP-01).
pub fn rarp(m: Mac) -> Bytes {
    let mut b = BytesMut::new();
    b.put_slice(&[0xff; 6]);
    b.put_slice(&m.0);
    b.put_slice(&[0x80, 0x35, 0, 1, 8, 0, 6, 4, 0, 3]);
    b.put_slice(&m.0);
    b.put_slice(&[0; 4]);
    b.put_slice(&m.0);
    b.put_slice(&[0; 4]);
    b.resize(60, 0);
    b.freeze()
}

/// ARP request of a host for some address.
pub fn arp(m: Mac, from: Ipv4Addr, target: Ipv4Addr) -> Bytes {
    let mut b = BytesMut::new();
    b.put_slice(&[0xff; 6]);
    b.put_slice(&m.0);
    b.put_slice(&[0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 1]);
    b.put_slice(&m.0);
    b.put_slice(&from.octets());
    b.put_slice(&[0; 6]);
    b.put_slice(&target.octets());
    b.freeze()
}

/// The same for its own address: gratuitous (HOST-GARP-01).
pub fn garp(m: Mac, ip: Ipv4Addr) -> Bytes {
    arp(m, ip, ip)
}
