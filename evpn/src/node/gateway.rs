//! The first hop of a VNI's hosts: the same addresses and the same MAC on the bridge of every VTEP (RFC 9135 §4.1,
//! EVPN-IRB-10), so that a guest finds it at its new site without a question of its own.
//!
//! - Its MAC and addresses are nobody's host: never learned, neither from frames nor from routes, and never advertised
//!   (EVPN-MOB-19). Whoever speaks for them on an access port is refused, and the hosts are told again who has them.
//! - The kernel answers for it, and only to the hosts behind its own ports: with suppression on, a bridge does not forward
//!   questions for its own addresses.
//! - Routing is asymmetric (EVPN-IRB-07, -08): the ingress VTEP routes and then bridges to where the host is. That takes a
//!   neighbour row for each host of the subnet, and nothing in the routing table: remote hosts have one anyway, and in a VNI
//!   with a gateway local ones get one, too. So a move changes where the MAC is, and not the row.
//! - Hosts that nobody knows are asked for in the gateway's name (PIT-18): the kernel tells us first whom it looks for. The
//!   question goes to every port and every VTEP. What is answered ends at the bridge of the VTEP that the host is behind,
//!   because that bridge is the gateway, too; but its vtepd has heard it, and its route completes the row here. The Ethernet
//!   source is our probe MAC, the sender is the gateway: hosts update what they hold from the sender of every question.

use super::sometimes::Sometimes;
use super::{Config, Event, Gateway, GatewayAddress, Node, Output};
use crate::fabric::{GatewayWant, Row};
use crate::types::{IfIndex, Mac, Span, Time, Vni};
use crate::wire::frame::{self, Body, Frame};
use bytes::Bytes;
use std::net::{IpAddr, Ipv6Addr};

/// Hosts are told again after somebody has spoken for the gateway, at most so often for each address.
const AGAIN: Span = Span::millis(100);
/// Addresses with such a claim in that time; further ones are only counted.
const CLAIMS: usize = 1024;
/// The kernel asks three times, a second apart by default; more often nobody is asked for an address.
const ASK_EVERY: Span = Span::millis(900);
/// Addresses looked for in that time, all VNIs together: a guest may walk through a subnet. The kernel asks for the others
/// itself, when it has asked us in vain.
const ASKED: usize = 256;

/// See the module.
#[derive(Debug)]
pub(super) struct Gateways {
    claimed: Sometimes<(Vni, IpAddr)>,
    asked: Sometimes<(Vni, IpAddr)>,
}

impl Default for Gateways {
    fn default() -> Self {
        Self { claimed: Sometimes::new(AGAIN, CLAIMS), asked: Sometimes::new(ASK_EVERY, ASKED) }
    }
}

impl Gateway {
    /// Whether an address is the gateway's own.
    pub fn has(&self, ip: IpAddr) -> bool {
        self.addresses.iter().any(|a| a.ip == ip) || self.link_local().is_some_and(|own| own == ip)
    }

    /// Its link-local address, if it has an IPv6 address at all: a configured one, or the one that its MAC makes
    /// (RFC 4291 appendix A), the same everywhere. Without it the kernel could ask nobody, and routers advertise
    /// themselves by it.
    pub fn link_local(&self) -> Option<Ipv6Addr> {
        let v6 =
            || self.addresses.iter().filter_map(|a| if let IpAddr::V6(ip) = a.ip { Some(ip) } else { None });
        let own = v6().find(Ipv6Addr::is_unicast_link_local);
        own.or_else(|| v6().next().map(|_| super::probe_mac::link_local(self.mac)))
    }

    /// What the bridge is to have.
    pub(super) fn wanted(&self) -> GatewayWant {
        let mut addresses: Vec<(IpAddr, u8)> = self.addresses.iter().map(|a| (a.ip, a.bits)).collect();
        if let Some(own) = self.link_local().map(IpAddr::V6)
            && addresses.iter().all(|(ip, _)| *ip != own)
        {
            addresses.push((own, 64));
        }
        GatewayWant { mac: self.mac, addresses }
    }

    /// Who asks for an address, in the gateway's name: its own address in that subnet.
    fn asks_for(&self, ip: IpAddr) -> Option<IpAddr> {
        match ip {
            IpAddr::V4(_) => {
                self.addresses.iter().find(|a: &&GatewayAddress| a.ip != ip && a.contains(ip)).map(|a| a.ip)
            }
            IpAddr::V6(_) => self.link_local().map(IpAddr::V6),
        }
    }
}

/// The MAC of our own gateway is one of those that nobody may have (EVPN-MOB-19).
pub(super) fn is_nobodys_host(config: &mut Config) {
    for vni in &mut config.vnis {
        let gateway = vni.hosts.gateway.as_ref().map(|g| g.mac);
        vni.mobility.gateway_macs.extend(gateway);
    }
}

/// The address that a frame's sender calls its own.
fn sender(f: &Frame) -> Option<IpAddr> {
    let ip = match &f.body {
        Body::Arp(a) => IpAddr::V4(a.sender_ip),
        Body::NeighborAdvertisement(na) => IpAddr::V6(na.target),
        Body::NeighborSolicitation(ns) => IpAddr::V6(ns.src),
        Body::RouterSolicitation(rs) => IpAddr::V6(rs.src),
        Body::Rarp(_) | Body::RouterAdvertisement(_) | Body::Dhcp(_) | Body::Other(_) => return None,
    };
    (!ip.is_unspecified()).then_some(ip)
}

impl Node {
    pub(super) fn gateway_of(&self, vni: Vni) -> Option<&Gateway> {
        self.segments.get(&vni)?.config.hosts.gateway.as_ref()
    }

    /// Whether an answer to this address is one to us: to our probe MAC, or to the gateway, in whose name we ask, too.
    pub(super) fn is_to_us(&self, vni: Vni, dst: Mac) -> bool {
        self.probe_mac(vni) == Some(dst) || self.gateway_of(vni).is_some_and(|g| g.mac == dst)
    }

    /// The gateway's own address: nobody else's, whoever says so.
    pub(super) fn is_gateways(&self, vni: Vni, ip: IpAddr) -> bool {
        self.gateway_of(vni).is_some_and(|g| g.has(ip))
    }

    /// A host has spoken for an address of the gateway. `true`: nothing is to be learned from it. The hosts behind our
    /// ports may have believed it and are told again.
    pub(super) fn speaks_for_gateway(&mut self, vni: Vni, f: &Frame, at: Time) -> bool {
        let Some(ip) = sender(f).filter(|ip| self.is_gateways(vni, *ip)) else { return false };
        self.gateway_refused(vni, f.src, ip, at);
        if self.gateway.claimed.may((vni, ip), at) {
            self.tell_gateway(vni, at);
        }
        true
    }

    /// A host, or a hypervisor in its name, has claimed an address of the gateway (EVPN-MOB-19).
    pub(super) fn gateway_refused(&mut self, vni: Vni, mac: Mac, ip: IpAddr, at: Time) {
        self.journal.count("gateway_addresses_refused");
        let Some(owner) = self.gateway_of(vni).map(|g| g.mac) else { return };
        if self.alarm(vni, mac, at) {
            let vtep = self.config.vtep;
            self.journal.event(Event::AddressRefused { vni, mac, ip, owner, vtep }, at);
        }
    }

    /// The row by which the kernel reaches a host that is here: the gateway needs one, and else there is none, because the
    /// host answers for itself.
    pub(super) fn local_neighbour(&mut self, vni: Vni, ip: IpAddr) {
        let Some(seg) = self.segments.get(&vni) else { return };
        let Some(key) = seg.neigh_key(ip) else { return };
        let row = seg.hosts.binding(ip).map(|b| Row::Neigh { mac: b.mac, router: b.router });
        if let Some(row) = row.filter(|_| seg.config.hosts.gateway.is_some()) {
            self.want_set(key, row, true);
        } else {
            self.stale.remove(&key);
            self.want.remove(&key, true);
        }
    }

    /// The kernel looks for a host, for something that it routes (PIT-18).
    pub(super) fn neighbour_asked(&mut self, dev: IfIndex, ip: IpAddr, at: Time) {
        let Some(&vni) = self.bridges.get(&dev) else { return };
        let Some(seg) = self.segments.get(&vni) else { return };
        let Some(g) = seg.config.hosts.gateway.as_ref().filter(|g| !g.has(ip)) else { return };
        // Known: its row is on the way, or was taken from the kernel.
        if seg.hosts.binding(ip).is_some() {
            if let Some(key) = seg.neigh_key(ip) {
                self.want.mark(key, true);
            }
            return;
        }
        let Some((frame, own)) = g.asks_for(ip).and_then(|from| self.question_for(vni, g, from, ip)) else {
            return;
        };
        if !self.gateway.asked.may((vni, ip), at) {
            self.journal.count("gateway_questions_refused");
            return;
        }
        let ports: Vec<IfIndex> = self.listening_ports(vni, &self.segments[&vni].hosts, own).collect();
        for port in ports {
            self.journal.push(Output::Emit { port, frame: frame.clone() });
        }
        for (vtep, vni) in self.all_vteps(vni) {
            self.journal.push(Output::Encap { vni, vtep, frame: frame.clone() });
        }
        self.journal.count("gateway_questions");
    }

    fn question_for(&self, vni: Vni, g: &Gateway, from: IpAddr, ip: IpAddr) -> Option<(Bytes, Mac)> {
        let own = self.probe_mac(vni)?;
        let frame = match (from, ip) {
            (IpAddr::V4(from), IpAddr::V4(ip)) => frame::arp_request_for(own, (g.mac, from), ip),
            (IpAddr::V6(from), IpAddr::V6(ip)) => frame::neighbor_solicitation_for(own, (g.mac, from), ip),
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => return None,
        };
        Some((frame, own))
    }
}
