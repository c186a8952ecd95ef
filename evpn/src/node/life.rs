//! Signs of life that bind nothing by themselves: RARP, ARP probes, NS, RS, duplicate checks, leases. They name an address
//! (or a MAC whose addresses are known), its host is asked, and the binding comes from the answer (PROXY-LEARN-02,
//! HOST-DAD-01, HOST-ARP-01, HOST-RARP-02).

use super::Node;
use super::frames::{is_host_ip, is_host_v6};
use super::questions::heard_since;
use super::young::YOUTH;
use crate::hosts::{Binding, BindingOrigin};
use crate::types::{IfIndex, Mac, Span, Time, Vni};
use crate::wire::frame::{Body, Dhcp, Frame};
use std::net::IpAddr;

/// Whoever has confirmed an address so short a while ago is not asked because of a sign.
const FRESH: Span = Span::secs(10);
/// When a host may answer for an IPv6 address that it checks: RFC 4862 §5.1 has it wait a second, and up to one before.
const DAD: Span = Span::millis(1200);

impl Node {
    /// What a frame says of its sender beyond a binding.
    pub(super) fn sign_of_life(&mut self, vni: Vni, port: IfIndex, f: &Frame, at: Time) {
        match &f.body {
            Body::Rarp(_) => {
                // Nobody but a hypervisor says so, for a guest that has been running (PIT-16).
                self.is_past_its_check(vni, f.src, at);
                let Some(seg) = self.segments.get(&vni) else { return };
                // What another VTEP tells comes along if the MAC has moved here, and is asked for then.
                let ips = seg.hosts.ips_of(f.src).into_iter();
                let ours: Vec<IpAddr> =
                    ips.filter(|ip| seg.hosts.binding(*ip).is_some_and(Binding::is_local)).collect();
                for ip in ours {
                    self.sign(vni, f.src, ip, port, at, at);
                }
            }
            Body::Arp(a) if a.is_probe() && a.sender_mac == f.src => {
                self.may_check_itself(vni, f.src, Some(a.target_ip), at);
                self.sign(vni, f.src, IpAddr::V4(a.target_ip), port, at + YOUTH, at);
            }
            Body::NeighborSolicitation(ns) if ns.is_dad() => {
                if ns.target.is_unicast_link_local() {
                    self.starts_anew(vni, f.src, at);
                }
                self.sign(vni, f.src, IpAddr::V6(ns.target), port, at + DAD, at);
            }
            Body::NeighborSolicitation(ns) if ns.slla.is_none_or(|m| m == f.src) => {
                self.speaks_from(vni, f.src, IpAddr::V6(ns.src), port, at);
                self.answer_for_prober(vni, port, f, ns.target);
            }
            Body::RouterSolicitation(rs) if is_host_v6(rs.src) && rs.slla.is_none_or(|m| m == f.src) => {
                self.speaks_from(vni, f.src, IpAddr::V6(rs.src), port, at);
            }
            // PIT-19: that it is a router is in its answer.
            Body::RouterAdvertisement(ra) if is_host_v6(ra.src) => {
                self.sign(vni, f.src, IpAddr::V6(ra.src), port, at, at);
            }
            Body::Dhcp(d) => self.lease_seen(vni, port, f, d, at),
            Body::Arp(_)
            | Body::NeighborSolicitation(_)
            | Body::NeighborAdvertisement(_)
            | Body::RouterSolicitation(_)
            | Body::RouterAdvertisement(_)
            | Body::Other(_) => {}
        }
    }

    /// Why what a frame says of its sender is not heeded, if it is not.
    pub(super) fn odd_sender(&self, f: &Frame) -> Option<&'static str> {
        let (mac, ip) = match &f.body {
            Body::Arp(a) => (a.sender_mac, IpAddr::V4(a.sender_ip)),
            Body::NeighborAdvertisement(na) => (na.tlla.unwrap_or(f.src), IpAddr::V6(na.target)),
            Body::NeighborSolicitation(ns) => (ns.slla.unwrap_or(f.src), IpAddr::V6(ns.src)),
            Body::Rarp(_)
            | Body::RouterSolicitation(_)
            | Body::RouterAdvertisement(_)
            | Body::Dhcp(_)
            | Body::Other(_) => return None,
        };
        if mac != f.src {
            Some("sender-mac")
        } else if ip == self.config.vtep {
            Some("own-address")
        } else if !ip.is_unspecified() && !is_host_ip(ip) {
            Some("sender-address")
        } else {
            None
        }
    }

    /// A client speaks of an address, or a server gives one: on the server's port, the client may be anywhere.
    fn lease_seen(&mut self, vni: Vni, port: IfIndex, f: &Frame, d: &Dhcp, at: Time) {
        let client = d.client;
        if d.of_client && client != f.src {
            return;
        }
        let Some(seg) = self.segments.get(&vni) else { return };
        let here = seg.hosts.macs.get(&client).and_then(|e| e.local()).map(|l| l.port);
        let Some(port) = here.or(d.of_client.then_some(port)) else { return };
        let bound = d.address.and_then(|ip| self.segments.get(&vni)?.hosts.binding(ip).copied());
        // A renewal.
        if bound.is_some_and(|b| b.mac == client && b.is_local()) {
            return;
        }
        match d.address {
            None => self.starts_anew(vni, client, at),
            Some(IpAddr::V4(ip)) => self.may_check_itself(vni, client, Some(ip), at),
            Some(IpAddr::V6(_)) => {}
        }
        let Some(ip) = d.address else { return };
        self.sign(vni, client, ip, port, at + DAD, at);
    }

    /// A host uses an address. One that it has confirmed within `confirm-time` has its turn anyway: hosts that talk ask for
    /// each other all the time.
    fn speaks_from(&mut self, vni: Vni, mac: Mac, ip: IpAddr, port: IfIndex, at: Time) {
        let since = Time(at.0.saturating_sub(self.confirm_time(vni).0));
        let binding = self.segments.get(&vni).and_then(|s| s.hosts.binding(ip));
        if binding.is_none_or(|b| b.mac != mac || !heard_since(b, since)) {
            self.sign(vni, mac, ip, port, at, at);
        }
    }

    /// A MAC has named an address as its own, or is known to have it.
    fn sign(&mut self, vni: Vni, mac: Mac, ip: IpAddr, port: IfIndex, first: Time, at: Time) {
        if !is_host_ip(ip) || !self.is_allowed(vni, port, ip) || self.has_left(vni, mac, port) {
            return;
        }
        let Some(seg) = self.segments.get(&vni) else { return };
        let fresh = Time(at.0.saturating_sub(FRESH.0));
        // Those that came with their MAC are asked for already.
        let known = |b: &Binding| heard_since(b, fresh) || b.origin == BindingOrigin::Moved;
        if seg.hosts.binding(ip).is_some_and(|b| b.mac == mac && known(b)) {
            return;
        }
        self.journal.count("signs_of_life");
        self.question(vni, mac, ip, port, first, false, at);
    }

    /// A host that has answered us wants to know that we are there: or it forgets us, and asks all for us.
    fn answer_for_prober(&mut self, vni: Vni, port: IfIndex, f: &Frame, target: std::net::Ipv6Addr) {
        let Some(own) = self.probe_mac(vni) else { return };
        let Body::NeighborSolicitation(ns) = &f.body else { return };
        if target == super::probe_mac::link_local(own) {
            let to = Some((f.src, ns.src));
            let frame = crate::wire::frame::neighbor_advertisement(own, target, to, false, true);
            self.journal.push(super::Output::Emit { port, frame });
        }
    }
}
