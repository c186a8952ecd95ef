//! Where a prepared move is to end, and what speaks against it.

use super::frames::is_host_ip;
use super::prepare::{Key, No, conflict, invalid};
use super::{MoveRequest, Node};
use crate::fabric::Link;
use crate::hosts::{Hosts, Owner};
use crate::types::{IfIndex, Mac, Vni};
use std::net::IpAddr;

/// Where a guest is to appear.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) vni: Vni,
    pub(super) port: IfIndex,
    pub(super) notes: Vec<String>,
}

impl Node {
    /// The VNI that a step without a port is about.
    pub(super) fn vni_of_move(&self, r: &MoveRequest) -> Result<Option<Vni>, No> {
        check_mac(r.mac)?;
        if let Some(vni) = r.vni {
            return self.known_vni(vni).map(Some);
        }
        let told = |v: &Vni| {
            let key = (*v, r.mac);
            self.prepare.get(key).is_some() || self.prepare.releases.contains_key(&key)
        };
        let known = |v: &Vni| self.segments.get(v).is_some_and(|s| s.hosts.macs.contains_key(&r.mac));
        let mut vnis: Vec<Vni> = self.segments.keys().copied().filter(told).collect();
        if vnis.is_empty() {
            vnis = self.segments.keys().copied().filter(known).collect();
        }
        if vnis.is_empty() && self.segments.len() == 1 {
            vnis = self.segments.keys().copied().collect();
        }
        match vnis.as_slice() {
            [] => Ok(None),
            [one] => Ok(Some(*one)),
            [a, b, ..] => Err(invalid(format!("{} is in VNI {a} and in VNI {b}: name the VNI", r.mac))),
        }
    }

    fn known_vni(&self, vni: Vni) -> Result<Vni, No> {
        if self.segments.contains_key(&vni) {
            return Ok(vni);
        }
        let known: Vec<String> = self.segments.keys().take(8).map(ToString::to_string).collect();
        Err(invalid(format!("VNI {vni} is not configured here; there are: {}", known.join(", "))))
    }

    /// Everything that must be so before a guest can be reached on a port.
    pub(super) fn target(&self, r: &MoveRequest, port: &str) -> Result<Target, No> {
        let mac = r.mac;
        check_mac(mac)?;
        check_ips(&r.ips)?;
        if let Some(vni) = r.vni {
            self.known_vni(vni)?;
        }
        let Some(link) = self.link_named(port) else {
            return Err(invalid(format!("there is no port `{port}` on this host")));
        };
        let vni = match (link.master.and_then(|m| self.bridges.get(&m).copied()), r.vni) {
            (Some(has), Some(asked)) if has != asked => {
                return Err(conflict(format!("port {port} is in VNI {has}, not in VNI {asked}")));
            }
            (Some(has), _) => has,
            (None, asked) => {
                let bridge = asked.and_then(|v| self.segments.get(&v)).map(|s| s.config.bridge.clone());
                let bridge = bridge.unwrap_or_else(|| "BRIDGE".into());
                return Err(conflict(format!(
                    "port {port} is in no bridge of a VNI; `ip link set {port} master {bridge}` puts it there"
                )));
            }
        };
        let seg =
            self.segments.get(&vni).ok_or_else(|| invalid(format!("VNI {vni} is not configured here")))?;
        if seg.vxlan == Some(link.index) {
            return Err(invalid(format!(
                "{port} is the VXLAN device of VNI {vni}, no guest can be behind it"
            )));
        }
        if !seg.ready {
            return Err(conflict(format!("VNI {vni} is not ready: {}", seg.problems.join("; "))));
        }
        if !self.synced {
            return Err(conflict("the kernel's tables have not been read yet; try again in a moment".into()));
        }
        if !link.up {
            return Err(conflict(format!("port {port} is down; `ip link set {port} up`")));
        }
        self.may_be_claimed((vni, mac), link)?;
        let mut notes = Vec::new();
        self.port_notes(link, &mut notes);
        notes.extend(seg.problems.iter().cloned());
        for p in self.peers.iter().filter(|p| p.up.is_none() && p.expected()) {
            notes.push(format!("neighbour {} is down and will not be told", p.config.address));
        }
        for ip in r.ips.iter().filter(|ip| !self.is_allowed(vni, link.index, **ip)) {
            notes.push(format!(
                "{ip} is not among the addresses that `allowed` gives port {port}, and stays out"
            ));
        }
        Ok(Target { vni, port: link.index, notes })
    }

    /// MACs that cannot move here, whoever says so (EVPN-MOB-17, EVPN-MOB-19).
    fn may_be_claimed(&self, key: Key, link: &Link) -> Result<(), No> {
        let (vni, mac) = key;
        let Some(seg) = self.segments.get(&vni) else { return Ok(()) };
        if seg.own.contains(&mac) {
            return Err(conflict(format!("{mac} is an address of this host's own devices in VNI {vni}")));
        }
        if seg.config.mobility.gateway_macs.contains(&mac) {
            return Err(conflict(format!(
                "{mac} is configured as a gateway's address in VNI {vni} and cannot move"
            )));
        }
        if let Some(name) = seg.config.mobility.sticky.get(&mac).filter(|n| **n != link.name) {
            return Err(conflict(format!("{mac} is configured as sticky on port {name} of this host")));
        }
        match self.owner_now(key) {
            Some(Owner::Remote(r)) if (r.claim.sticky || r.claim.gateway) && !r.claim.stale => {
                let what = if r.claim.gateway { "a gateway's address" } else { "sticky" };
                Err(conflict(format!("{mac} is {what} at {} and cannot move", r.claim.vtep)))
            }
            Some(Owner::Remote(_) | Owner::Local(_)) | None => Ok(()),
        }
    }

    fn port_notes(&self, link: &Link, notes: &mut Vec<String>) {
        let name = &link.name;
        if !link.carrier {
            notes.push(format!("port {name} has no carrier: the kernel takes the MAC only when it has"));
        }
        if let Some(f) = &link.port {
            let flags = [
                (!f.learning, "does not learn"),
                (link.carrier && !f.forwarding, "is not forwarding yet"),
                (f.locked, "is locked"),
                (f.isolated, "is isolated"),
                (!f.flood, "gets no unknown unicast"),
            ];
            for (_, what) in flags.iter().filter(|(on, _)| *on) {
                notes.push(format!("port {name} {what}"));
            }
        }
        let bridge = link.master.and_then(|m| self.links.get(&m));
        if let Some(b) = bridge.filter(|b| b.mtu != link.mtu) {
            notes.push(format!("MTU of port {name} is {}, of bridge {} {}", link.mtu, b.name, b.mtu));
        }
    }
}

fn check_mac(mac: Mac) -> Result<(), No> {
    if mac.is_host() {
        return Ok(());
    }
    Err(invalid(format!("{mac} is not the address of a host")))
}

fn check_ips(ips: &[IpAddr]) -> Result<(), No> {
    if ips.len() > Hosts::IPS_PER_MAC {
        return Err(invalid(format!(
            "{} addresses are too many for one MAC, at most {}",
            ips.len(),
            Hosts::IPS_PER_MAC
        )));
    }
    match ips.iter().find(|ip| !is_host_ip(**ip)) {
        Some(ip) => Err(invalid(format!("{ip} is not the address of a host"))),
        None => Ok(()),
    }
}
