//! One number out of everything that an UPDATE says. Each codec's types are folded field by field in the same order, so that
//! equal numbers mean equal contents and nothing can be left undecoded.

use std::net::IpAddr;

/// The number so far.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Fold(pub u64);

const MIX: u64 = 0x9e37_79b9_7f4a_7c15;

impl Fold {
    /// One field of at most 64 bits.
    #[inline]
    pub fn number(&mut self, n: u64) {
        self.0 = (self.0 ^ n).wrapping_mul(MIX).rotate_left(23);
    }

    /// A field of octets.
    #[inline]
    pub fn octets(&mut self, octets: &[u8]) {
        for chunk in octets.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.number(u64::from_be_bytes(word));
        }
    }

    /// An address, its family too.
    #[inline]
    pub fn ip(&mut self, ip: IpAddr) {
        match ip {
            IpAddr::V4(a) => self.number(0x4_0000_0000 | u64::from(a.to_bits())),
            IpAddr::V6(a) => self.octets(&a.octets()),
        }
    }

    /// Communities as a set: one of the codecs sorts them.
    #[inline]
    pub fn communities(&mut self, all: impl Iterator<Item = u64>) {
        self.number(all.fold(0u64, |sum, c| sum.wrapping_add(c.wrapping_mul(MIX))));
    }

    /// What is said once for all routes.
    #[inline]
    pub fn attributes(
        &mut self,
        origin: u8,
        ases: impl Iterator<Item = u32>,
        local_pref: u32,
        next_hop: IpAddr,
    ) {
        self.number(origin.into());
        ases.for_each(|a| self.number(a.into()));
        self.number(local_pref.into());
        self.ip(next_hop);
    }

    /// PMSI_TUNNEL of ingress replication.
    #[inline]
    pub fn pmsi(&mut self, flags: u8, kind: u8, label: u32, end: IpAddr) {
        self.number(u64::from(flags) << 32 | u64::from(kind) << 24 | u64::from(label));
        self.ip(end);
    }

    /// Type 2.
    #[inline]
    #[allow(clippy::too_many_arguments)]
    pub fn mac_ip(
        &mut self,
        rd: [u8; 8],
        esi: &[u8; 10],
        tag: u32,
        mac: &[u8; 6],
        ip: Option<IpAddr>,
        label: u32,
    ) {
        self.octets(&rd);
        self.octets(esi);
        self.number(tag.into());
        self.octets(mac);
        match ip {
            Some(ip) => self.ip(ip),
            None => self.number(1),
        }
        self.number(label.into());
    }

    /// Type 3.
    #[inline]
    pub fn imet(&mut self, rd: [u8; 8], tag: u32, originator: IpAddr) {
        self.octets(&rd);
        self.number(tag.into());
        self.ip(originator);
    }

    /// Type 5.
    #[inline]
    #[allow(clippy::too_many_arguments)]
    pub fn prefix(
        &mut self,
        rd: [u8; 8],
        esi: &[u8; 10],
        tag: u32,
        prefix: IpAddr,
        len: u8,
        gateway: IpAddr,
        label: u32,
    ) {
        self.octets(&rd);
        self.octets(esi);
        self.number(tag.into());
        self.ip(prefix);
        self.number(len.into());
        self.ip(gateway);
        self.number(label.into());
    }
}
