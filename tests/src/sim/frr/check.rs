//! Kernels of FRR-like VTEPs compared with the truth: what nodes tell must be such that FRR follows it.

use super::{FIRST, Peer, is_frr};
use crate::sim::truth::{IpTruth, MacTruth};
use crate::sim::vtep::address;
use crate::sim::world::World;
use evpn::fabric::NeighState;
use evpn::types::Mac;
use std::net::IpAddr;

type Bad = Vec<(&'static str, String)>;

/// The node behind which a guest runs, as all know.
fn at_node(m: &MacTruth) -> Option<usize> {
    let known = m.twin.is_none() && m.spoken.is_some();
    m.place.map(|p| p.node).filter(|n| known && !is_frr(*n))
}

impl World {
    /// After the last words: do FRR's rows follow the guests of nodes, and does nobody keep addresses of FRR's guests?
    pub(in crate::sim) fn check_frrs(&self, bad: &mut Bad) {
        for (n, f) in self.frrs.iter().enumerate().filter(|(_, f)| f.alive) {
            for (mac, m) in &self.macs {
                Self::check_frr_mac(FIRST + n, f, *mac, m, bad);
            }
            for (ip, t) in &self.ips {
                self.check_frr_ip(FIRST + n, f, *ip, t, bad);
            }
        }
    }

    fn check_frr_mac(host: usize, f: &Peer, mac: Mac, m: &MacTruth, bad: &mut Bad) {
        let Some(owner) = at_node(m) else { return };
        // D.3-1 (#10468): 8.4 refuses a sequence lower than it remembers.
        if f.tables.refuses(mac) {
            return;
        }
        let v = &f.machine;
        let row = v.kernel.bridge_row(v.bridge, mac).map(|r| r.port);
        let own = v.kernel.remotes(v.vxlan, mac);
        if row != Some(v.vxlan) || own != [address(owner)] {
            bad.push((
                "frr-row",
                format!("{mac} is at node {owner}, but FRR {host} has port {row:?}, VTEPs {own:?}"),
            ));
        }
    }

    fn check_frr_ip(&self, host: usize, f: &Peer, ip: IpAddr, t: &IpTruth, bad: &mut Bad) {
        let Some((mac, m)) = t.mac.and_then(|mac| Some((mac, self.macs.get(&mac)?))) else { return };
        let row = f.neigh(ip);
        let remote = row.is_some_and(|n| n.state == NeighState::NoArp);
        if m.place.is_some_and(|p| p.node == host) && m.spoken.is_some() {
            // D.1: FRR cannot tell this address before everybody else has given it up.
            if remote && row.is_some_and(|n| n.mac == Some(mac)) {
                bad.push(("frr-kept", format!("{mac} with {ip} is at FRR {host}, and others still have it")));
            }
        } else if let Some(owner) = at_node(m).filter(|_| t.must && !f.tables.refuses(mac)) {
            let got = f.machine.kernel.answer(f.machine.bridge, ip);
            if got != Some(mac) {
                let text = format!("FRR {host} answers {got:?} for {ip} of node {owner}, should be {mac}");
                bad.push(("frr-answer", text));
            }
        }
    }

    /// B.7: FRR never asks, so a guest that was silent for the bridge's ageing time is unknown until it speaks.
    pub(in crate::sim) fn is_aged(&self, mac: Mac) -> bool {
        let Some(at) = self.macs.get(&mac).and_then(|m| m.place).filter(|p| is_frr(p.node)) else {
            return false;
        };
        let Some(f) = self.frrs.get(at.node - FIRST).filter(|f| f.kind.ages > 0) else { return false };
        let v = &f.machine;
        v.kernel.link(v.ports[at.slot]).is_some_and(|l| l.carrier)
            && v.kernel.bridge_row(v.bridge, mac).is_none()
    }
}
