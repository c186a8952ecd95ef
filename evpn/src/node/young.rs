//! Guests that may still be in their own duplicate check (RFC 5227 §2.1.1): a question without a sender's address makes
//! them give up theirs (PIT-16, PROXY-MAINT-02).
//!
//! Those are the MACs whose port has just come up, that have just spoken for the first time, that probe themselves, or that
//! have just been given a lease. A guest that has moved here has its address already, whatever its new port did before; and
//! who speaks with the address has finished its check.
//!
//! A guest whose first frame is that of a host that starts (a check of its link-local address, a DHCP client without an address)
//! may be about to check its IPv4 address, wherever its MAC was before.
//!
//! A guest that was started anew checks an address whose routes of its last life still stand, and may be migrated in the
//! middle of that: its new VTEP has the routes, and would ask. So whoever checks what its own routes tell is named to the
//! other VTEPs: its probe goes to the MAC with which each of them probes (PIT-15), where no host hears it.

use super::Node;
use super::probe_mac::probe_mac;
use crate::types::{IfIndex, Mac, Span, Time, Vni};
use crate::wire::frame::{Body, Frame, readdressed};
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr};

/// How long a guest is left in peace.
pub(super) const YOUTH: Span = Span::secs(10);
/// The news of a port's carrier may be read so long after a frame that has come through it.
const CARRIER: Span = Span::millis(20);
/// MACs remembered; the oldest give way.
const LIMIT: usize = 65_536;

#[derive(Clone, Copy, Debug)]
struct Youth {
    at: Time,
    /// It has moved here, or has spoken with its address: what its port did before counts for nothing.
    past: bool,
    /// What it checks, as far as it has said so.
    checks: Option<Ipv4Addr>,
    /// It has said something that only a host says that starts.
    starts: bool,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Young {
    macs: BTreeMap<(Vni, Mac), Youth>,
    order: VecDeque<(Time, (Vni, Mac))>,
    /// When a port got its carrier.
    ports: BTreeMap<IfIndex, Time>,
}

impl Young {
    fn note(&mut self, key: (Vni, Mac), past: bool, checks: Option<Ipv4Addr>, at: Time) {
        while let Some((t, old)) = self.order.front().copied()
            && (at.since(t) >= YOUTH || self.order.len() >= LIMIT)
        {
            self.order.pop_front();
            if self.macs.get(&old).is_some_and(|y| y.at == t) {
                self.macs.remove(&old);
            }
        }
        // Whoever has moved here and checks one more address has the others.
        let past =
            past || checks.is_some() && self.macs.get(&key).is_some_and(|y| y.past && at.since(y.at) < YOUTH);
        let youth = Youth { at, past, checks, starts: false };
        if self.macs.insert(key, youth).is_none_or(|y| y.at != at) {
            self.order.push_back((at, key));
        }
    }

    /// It has its addresses, but for one that it is checking just now: its frame may be read before the row that it caused.
    fn pass(&mut self, key: (Vni, Mac), at: Time) {
        let fresh = |y: &&mut Youth| (y.checks.is_some() || y.starts) && at.since(y.at) < YOUTH;
        match self.macs.get_mut(&key).filter(fresh) {
            // It comes from elsewhere as its old routes say; that is where its last life was.
            Some(y) if y.starts => {}
            Some(y) => y.past = true,
            None => self.note(key, true, None, at),
        }
    }

    /// Until when this one is left in peace.
    fn until(&self, key: (Vni, Mac), port: IfIndex, ip: Ipv4Addr, at: Time) -> Option<Time> {
        let own = self.macs.get(&key).filter(|y| at.since(y.at) < YOUTH);
        let port = self.ports.get(&port).copied().filter(|t| at.since(*t) < YOUTH);
        // A link that has come up since may be that of a guest that was started anew.
        let known = |y: &Youth| y.past && y.checks != Some(ip) && port.is_none_or(|up| up <= y.at + CARRIER);
        if own.is_some_and(known) {
            return None;
        }
        own.map(|y| y.at).max(port).map(|t| t + YOUTH)
    }

    /// It was heard checking this address.
    fn checks(&self, key: (Vni, Mac), ip: Ipv4Addr, at: Time) -> bool {
        self.macs.get(&key).is_some_and(|y| y.checks == Some(ip) && at.since(y.at) < YOUTH)
    }
}

impl Node {
    /// A MAC is about to check this or some address, or has begun to speak.
    pub(super) fn may_check_itself(&mut self, vni: Vni, mac: Mac, checks: Option<Ipv4Addr>, at: Time) {
        self.young.note((vni, mac), false, checks, at);
    }

    /// A MAC begins: whatever is known of it was before.
    pub(super) fn starts_anew(&mut self, vni: Vni, mac: Mac, at: Time) {
        let checks =
            self.young.macs.get(&(vni, mac)).is_some_and(|y| y.checks.is_some() && at.since(y.at) < YOUTH);
        if !checks {
            self.young.note((vni, mac), false, None, at);
            if let Some(y) = self.young.macs.get_mut(&(vni, mac)) {
                y.starts = true;
            }
        }
    }

    /// A host checks an address that its own routes tell, of its last life: to each VTEP that probes, wherever it goes.
    pub(super) fn tell_of_own_check(&mut self, vni: Vni, bytes: &Bytes) {
        let Some(seg) = self.segments.get(&vni) else { return };
        let vteps: Vec<_> = seg.hosts.vteps().collect();
        let probers = vteps.into_iter().map(|v| (v, probe_mac(v, vni))).filter(|(_, m)| seg.is_probe_mac(*m));
        let told: Vec<_> = probers.filter_map(|(v, m)| Some((v, readdressed(bytes, m)?))).collect();
        self.journal.add("own_checks_told", told.len() as u64);
        for (vtep, frame) in told {
            self.encap(vni, vtep, frame);
        }
    }

    /// A host behind another VTEP checks an address. Only what is known here can come here with an address.
    pub(super) fn checks_afar(&mut self, vni: Vni, f: &Frame, at: Time) {
        let known = |m: Mac| self.segments.get(&vni).is_some_and(|s| s.hosts.macs.contains_key(&m));
        if let Body::Arp(a) = &f.body
            && a.is_probe()
            && a.sender_mac == f.src
            && known(f.src)
        {
            self.may_check_itself(vni, f.src, Some(a.target_ip), at);
        }
    }

    /// A MAC has moved here, or its hypervisor announces it. What it checks all the same, it says itself: it may have been
    /// started anew here while the routes of its last life still stand.
    pub(super) fn is_past_its_check(&mut self, vni: Vni, mac: Mac, at: Time) {
        self.young.pass((vni, mac), at);
    }

    /// What a frame says of its sender's check, whether the forwarding table agrees with it or not: who is asked for proof
    /// where its MAC is contested has to be one that may be asked.
    pub(super) fn has_announced(&mut self, vni: Vni, mac: Mac, rarp: bool, ip: Option<IpAddr>, at: Time) {
        if rarp {
            self.is_past_its_check(vni, mac, at);
        }
        if let Some(ip) = ip {
            self.has_settled(vni, mac, ip, at);
        }
    }

    /// A MAC had an address before this daemon began: that its row is new here says nothing. One that is heard checking an
    /// address is left in peace all the same.
    pub(super) fn had_an_address(&mut self, vni: Vni, mac: Mac, at: Time) {
        let checks =
            self.young.macs.get(&(vni, mac)).filter(|y| at.since(y.at) < YOUTH).and_then(|y| y.checks);
        if checks.is_none() {
            self.is_past_its_check(vni, mac, at);
        }
    }

    /// A host has spoken with an IPv4 address: if it has checked that, it has finished.
    pub(super) fn has_settled(&mut self, vni: Vni, mac: Mac, ip: IpAddr, at: Time) {
        let IpAddr::V4(ip) = ip else { return };
        let youth = self.young.macs.get(&(vni, mac)).filter(|y| at.since(y.at) < YOUTH);
        let on_port = self.young.ports.values().any(|t| at.since(*t) < YOUTH);
        if youth.map_or(on_port, |y| y.checks.map_or(!y.past, |c| c == ip)) {
            self.young.note((vni, mac), true, None, at);
        }
    }

    /// A port has carrier (again).
    pub(super) fn port_came_up(&mut self, port: IfIndex, at: Time) {
        if self.synced {
            self.young.ports.retain(|_, t| at.since(*t) < YOUTH);
            self.young.ports.insert(port, at);
            self.ask_again_behind(port, at);
        }
    }

    /// The sender of a question to this guest for an IPv4 address: nobody, or while it may be checking its own the gateway,
    /// with its MAC, because the guest updates what it holds from the sender.
    ///
    /// # Errors
    /// There is no gateway: it may be asked from this time on.
    pub(super) fn arp_sender(
        &self,
        vni: Vni,
        mac: Mac,
        port: IfIndex,
        ip: Ipv4Addr,
        at: Time,
    ) -> Result<Option<(Mac, Ipv4Addr)>, Time> {
        // Whoever was handed over while it stands still has what its port never saw, unless it was heard checking it.
        let checks = self.young.checks((vni, mac), ip, at);
        let until = self.young.until((vni, mac), port, ip, at);
        let Some(until) = until.filter(|_| checks || !self.awaits_guest(vni, mac)) else {
            return Ok(None);
        };
        let of_subnet = self.gateway_of(vni).and_then(|g| {
            g.addresses.iter().find_map(|a| match a.ip {
                IpAddr::V4(own) if own != ip && a.contains(ip.into()) => Some((g.mac, own)),
                IpAddr::V4(_) | IpAddr::V6(_) => None,
            })
        });
        of_subnet.map(Some).ok_or(until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VNI: Vni = Vni::new(100).expect("valid");
    const M: (Vni, Mac) = (VNI, Mac([2, 0, 0, 0, 0, 1]));
    const P: IfIndex = IfIndex(7);
    const IP: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);

    fn at(s: u64) -> Time {
        Time(0) + Span::secs(s)
    }

    #[test]
    fn the_last_of_its_signs_counts_and_a_move_ends_it() {
        let mut y = Young::default();
        assert_eq!(y.until(M, P, IP, at(1)), None);
        y.ports.insert(P, at(1));
        assert_eq!(y.until(M, P, IP, at(2)), Some(at(11)));
        y.note(M, false, None, at(5));
        assert_eq!(y.until(M, P, IP, at(14)), Some(at(15)));
        assert_eq!(y.until(M, P, IP, at(15)), None);
        y.ports.insert(P, at(20));
        y.note(M, true, None, at(21));
        assert_eq!(y.until(M, P, IP, at(22)), None, "it has moved");
        y.note(M, false, None, at(23));
        assert_eq!(y.until(M, P, IP, at(24)), Some(at(33)), "and probes by itself");
        y.note(M, true, None, at(40));
        y.note(M, false, Some(IP), at(41));
        assert_eq!(y.until(M, P, IP, at(42)), Some(at(51)));
        assert_eq!(y.until(M, P, Ipv4Addr::new(10, 0, 0, 2), at(42)), None, "that one it had before");
        y.pass(M, at(43));
        assert_eq!(y.until(M, P, IP, at(44)), Some(at(51)), "it is moved in the middle of its check");
        y.note(M, true, None, at(45));
        assert_eq!(y.until(M, P, IP, at(46)), None, "and speaks with the address");
    }

    #[test]
    fn who_makes_macs_up_fills_no_memory() {
        let mut y = Young::default();
        for n in 0..3 * LIMIT as u64 {
            let [.., a, b, c, d] = n.to_be_bytes();
            y.note((VNI, Mac([2, 0, a, b, c, d])), false, None, Time(n));
        }
        assert!(y.macs.len() <= LIMIT && y.order.len() <= LIMIT);
        y.note(M, false, None, at(100));
        assert_eq!((y.macs.len(), y.order.len()), (1, 1));
    }
}
