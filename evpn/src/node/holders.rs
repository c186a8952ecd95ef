//! Which local hosts are known to hold an address in their cache: those that were heard asking for it, or answering its
//! owner's question. They are told first, and alone, when its MAC changes; who learned it unheard gets the broadcast that
//! follows.
//!
//! A host may also learn from a frame that comes over the overlay, before the route does; if the owner goes at once, that
//! route never comes. The same from one that a host here has sent, and that binds nothing: it asks others, and is gone before
//! it has answered us. So it is kept what such frames say of addresses that nobody has: if another MAC has the address
//! afterwards, it has changed for the hosts here (PIT-17). Nothing else is concluded from it.

use super::Node;
use super::past::Latest;
use crate::types::{Mac, Time, Vni};
use crate::wire::frame::{Body, Frame};
use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;

/// Addresses with holders; the oldest give way.
const ADDRESSES: usize = 16_384;
/// Holders of one address; the oldest give way.
const PER_ADDRESS: usize = 8;

/// Addresses of nobody that were heard; the oldest give way.
const OVERHEARD: usize = 4096;

/// What hosts here may have learned from others of addresses that nobody has, and when.
#[derive(Debug)]
pub(super) struct Overheard(Latest<(Vni, IpAddr), (Mac, Time)>);

impl Default for Overheard {
    fn default() -> Self {
        Self(Latest::new(OVERHEARD))
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Holders {
    by_ip: BTreeMap<(Vni, IpAddr), Vec<Mac>>,
    /// Every key once, oldest first.
    order: VecDeque<(Vni, IpAddr)>,
}

impl Holders {
    pub(super) fn note(&mut self, key: (Vni, IpAddr), mac: Mac) {
        let room = self.by_ip.len() < ADDRESSES;
        let list = self.by_ip.entry(key).or_default();
        if list.is_empty() {
            self.order.push_back(key);
        }
        if list.last() == Some(&mac) {
            return;
        }
        list.retain(|m| *m != mac);
        if list.len() >= PER_ADDRESS {
            list.remove(0);
        }
        list.push(mac);
        if !room
            && self.by_ip.len() > ADDRESSES
            && let Some(oldest) = self.order.pop_front()
        {
            self.by_ip.remove(&oldest);
        }
    }

    /// The latest last.
    pub(super) fn of(&self, key: (Vni, IpAddr)) -> &[Mac] {
        self.by_ip.get(&key).map_or(&[], Vec::as_slice)
    }
}

/// The address that the sender of this frame has in its cache from now on.
fn holds(f: &Frame) -> Option<IpAddr> {
    match &f.body {
        Body::Arp(a) => (!a.is_gratuitous() && !a.is_probe() && !a.target_ip.is_unspecified())
            .then_some(IpAddr::V4(a.target_ip)),
        Body::NeighborSolicitation(ns) => (!ns.is_dad()).then_some(IpAddr::V6(ns.target)),
        Body::NeighborAdvertisement(na) => {
            (na.solicited && !na.dst.is_multicast()).then_some(IpAddr::V6(na.dst))
        }
        Body::Rarp(_)
        | Body::RouterSolicitation(_)
        | Body::RouterAdvertisement(_)
        | Body::Dhcp(_)
        | Body::Other(_) => None,
    }
}

/// What a host has in its cache from now on that gets this frame: the address and MAC of its sender.
fn shows(f: &Frame) -> Option<(IpAddr, Mac)> {
    match &f.body {
        Body::Arp(a) => (!a.is_gratuitous() && !a.is_probe() && !a.sender_ip.is_unspecified())
            .then_some((a.sender_ip.into(), a.sender_mac)),
        Body::NeighborSolicitation(ns) if !ns.is_dad() => Some((ns.src.into(), ns.slla?)),
        Body::NeighborAdvertisement(na) => {
            (na.solicited && !na.dst.is_multicast()).then(|| (na.target.into(), na.tlla.unwrap_or(f.src)))
        }
        Body::NeighborSolicitation(_)
        | Body::Rarp(_)
        | Body::RouterSolicitation(_)
        | Body::RouterAdvertisement(_)
        | Body::Dhcp(_)
        | Body::Other(_) => None,
    }
}

impl Node {
    /// A frame goes to hosts here, from the overlay or from one of them.
    pub(super) fn note_overheard(&mut self, vni: Vni, f: &Frame, at: Time) {
        let Some((ip, mac)) = shows(f).filter(|(_, mac)| mac.is_host()) else { return };
        if self.segments.get(&vni).is_some_and(|s| s.hosts.binding(ip).is_none()) {
            self.tell.overheard.0.insert((vni, ip), (mac, at));
        }
    }

    /// An address that nobody had is bound: whose hosts here may hold it to be, if that is another one.
    pub(super) fn overheard_before(&mut self, vni: Vni, ip: IpAddr, mac: Mac) -> Option<(Mac, Time)> {
        self.tell.overheard.0.remove((vni, ip)).filter(|(before, _)| *before != mac)
    }

    /// A local host has spoken. Addresses that nobody has are not noted: a scan costs nothing.
    pub(super) fn note_holder(&mut self, vni: Vni, f: &Frame) {
        let Some(ip) = holds(f) else { return };
        let bound = self.segments.get(&vni).and_then(|s| s.hosts.binding(ip)).map(|b| b.mac);
        if bound.is_some_and(|m| m != f.src) {
            self.tell.holders.note((vni, ip), f.src);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u32) -> (Vni, IpAddr) {
        (Vni::new(100).expect("valid"), IpAddr::from(n.to_be_bytes()))
    }

    fn mac(n: u8) -> Mac {
        Mac([2, 0, 0, 0, 0, n])
    }

    #[test]
    fn the_latest_holders_of_the_latest_addresses_are_kept() {
        let mut h = Holders::default();
        for n in 0..=PER_ADDRESS as u8 {
            h.note(key(1), mac(n));
            h.note(key(1), mac(n));
        }
        h.note(key(1), mac(2));
        let want: Vec<Mac> = [1, 3, 4, 5, 6, 7, 8, 2].map(mac).to_vec();
        assert_eq!(h.of(key(1)), want);
        for n in 2..2 + ADDRESSES as u32 {
            h.note(key(n), mac(1));
        }
        assert_eq!((h.by_ip.len(), h.order.len()), (ADDRESSES, ADDRESSES));
        assert!(h.of(key(1)).is_empty());
        assert_eq!(h.of(key(2)), [mac(1)]);
    }
}
