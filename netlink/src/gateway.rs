//! What a bridge lacks to be the first hop of its VNI's hosts, and what is left of one that is it no more. Pure.
//!
//! Ours are the addresses that carry our protocol number ([`evpn::fabric::NeighRow::PROTOCOL`], `IFA_PROTO`, Linux 5.18):
//! they are repaired, and go when the configuration drops them, also in a later run. An address that somebody else has given
//! the bridge does the same work and is left alone.
//!
//! A bridge that we created has the gateway's MAC from the start, and gets it back. An adopted one gets it once: setting it
//! flushes all neighbour rows (PIT-01), and whoever sets another one afterwards is told what that means, and not fought.

use crate::setup::{DeviceProblem, LinkOp};
use evpn::fabric::{DeviceWant, GatewayWant, Link};
use evpn::types::Mac;
use std::net::IpAddr;

/// One step on a bridge that is, or was, a gateway.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum GatewayStep {
    /// This MAC, of its own.
    Mac(Mac),
    /// Settings of a router ([`BridgeFacts::routes`]).
    Route,
    /// No router any more.
    Rest,
    /// An address with the length of its prefix. Without duplicate address detection: every VTEP has it.
    Add(IpAddr, u8),
    /// An address of ours goes.
    Delete(IpAddr, u8),
}

/// An address of a bridge.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct BridgeAddress {
    /// Address.
    pub ip: IpAddr,
    /// Length of the prefix.
    pub bits: u8,
    /// It carries our protocol number.
    pub ours: bool,
}

/// What no link message shows of a bridge.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct BridgeFacts {
    /// Its addresses.
    pub addresses: Vec<BridgeAddress>,
    /// It forwards what comes in by it, answers ARP for its own addresses only and asks with them, and asks us first.
    pub routes: bool,
    /// It can forward IPv6 without making a router of the whole host (`force_forwarding`, Linux 6.17), or that is one.
    pub routes_v6: bool,
    /// We have given it the gateway's MAC in this run.
    pub had_mac: bool,
    /// It was created by us.
    pub created: bool,
}

/// What to do now, and what is wrong; nothing when all is as wanted.
pub fn plan_gateway(w: &DeviceWant, l: &Link, facts: &BridgeFacts) -> (Vec<LinkOp>, Vec<DeviceProblem>) {
    let mut steps = Vec::new();
    let mut problems = Vec::new();
    match &w.gateway {
        Some(g) => gateway(g, l, facts, &mut steps, &mut problems),
        None => no_gateway(w, l, facts, &mut steps),
    }
    (steps.into_iter().map(|step| LinkOp::Gateway { name: l.name.clone(), step }).collect(), problems)
}

fn gateway(
    g: &GatewayWant,
    l: &Link,
    facts: &BridgeFacts,
    steps: &mut Vec<GatewayStep>,
    problems: &mut Vec<DeviceProblem>,
) {
    let name = &l.name;
    let mut problem = |id, text: String| {
        problems.push(DeviceProblem { id, device: name.clone(), problem: text, fatal: false });
    };
    if l.mac != g.mac {
        if facts.created || !facts.had_mac {
            steps.push(GatewayStep::Mac(g.mac));
        } else {
            let text = format!(
                "its MAC is {}, not the gateway's, so hosts that hold the gateway's do not reach it; `ip link set {name} address {}`",
                l.mac, g.mac
            );
            problem("gateway-mac", text);
        }
    }
    if !facts.routes {
        steps.push(GatewayStep::Route);
    }
    let wanted = |a: &BridgeAddress| g.addresses.contains(&(a.ip, a.bits));
    let leftover = facts.addresses.iter().filter(|a| a.ours && !wanted(a));
    steps.extend(leftover.map(|a| GatewayStep::Delete(a.ip, a.bits)));
    for &(ip, bits) in &g.addresses {
        match facts.addresses.iter().find(|a| a.ip == ip && !(a.ours && a.bits != bits)) {
            None => steps.push(GatewayStep::Add(ip, bits)),
            Some(a) if a.bits == bits => {}
            Some(a) => {
                let text = format!(
                    "somebody has given it {ip}/{}, and the gateway's subnet is {ip}/{bits}; `ip addr del {ip}/{} dev {name}` frees it",
                    a.bits, a.bits
                );
                problem("gateway-address", text);
            }
        }
    }
    if g.addresses.iter().any(|(ip, _)| ip.is_ipv6()) && !facts.routes_v6 {
        let text = "this kernel forwards IPv6 on all interfaces or on none (before Linux 6.17); \
                    `sysctl net.ipv6.conf.all.forwarding=1`, and accept_ra=2 where this host needs router advertisements";
        problem("ipv6-forwarding", text.to_owned());
    }
}

fn no_gateway(w: &DeviceWant, l: &Link, facts: &BridgeFacts, steps: &mut Vec<GatewayStep>) {
    if facts.addresses.iter().all(|a| !a.ours) {
        return;
    }
    // The addresses go last: as long as one is there, the rest is known to be ours.
    if facts.created && l.mac != w.bridge_mac {
        steps.push(GatewayStep::Mac(w.bridge_mac));
    }
    steps.push(GatewayStep::Rest);
    let ours = facts.addresses.iter().filter(|a| a.ours);
    steps.extend(ours.map(|a| GatewayStep::Delete(a.ip, a.bits)));
}

#[cfg(test)]
mod tests {
    use super::*;
    use evpn::fabric::{BridgeLink, LinkKind};
    use evpn::types::{IfIndex, Vni};

    const GATEWAY: Mac = Mac([0, 0, 0x5e, 0, 1, 1]);
    const OWN: Mac = Mac([2, 0xbb, 0, 0, 0, 1]);

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn want(addresses: &[(&str, u8)]) -> DeviceWant {
        let list: Vec<_> = addresses.iter().map(|(a, bits)| (ip(a), *bits)).collect();
        DeviceWant {
            vni: Vni::new(100).expect("in range"),
            bridge: "br100".into(),
            bridge_mac: OWN,
            vxlan: "vx100".into(),
            local: ip("10.0.0.1"),
            udp_port: 4789,
            mtu: None,
            fdb_limit: 0,
            arp_suppression: true,
            unicast_flood: None,
            ports: vec![],
            gateway: (!list.is_empty()).then_some(GatewayWant { mac: GATEWAY, addresses: list }),
        }
    }

    fn link(mac: Mac) -> Link {
        Link {
            index: IfIndex(1),
            name: "br100".into(),
            mac,
            mtu: 1500,
            up: true,
            carrier: true,
            master: None,
            kind: LinkKind::Bridge(BridgeLink::default()),
            port: None,
        }
    }

    fn facts(addresses: &[(&str, u8, bool)]) -> BridgeFacts {
        let of = |(a, bits, ours): &(&str, u8, bool)| BridgeAddress { ip: ip(a), bits: *bits, ours: *ours };
        let addresses = addresses.iter().map(of).collect();
        BridgeFacts { addresses, routes: true, routes_v6: true, had_mac: true, created: false }
    }

    fn steps(w: &DeviceWant, mac: Mac, f: &BridgeFacts) -> Vec<GatewayStep> {
        let of = |op: LinkOp| if let LinkOp::Gateway { step, .. } = op { Some(step) } else { None };
        plan_gateway(w, &link(mac), f).0.into_iter().filter_map(of).collect()
    }

    #[test]
    fn a_bridge_gets_what_it_lacks_and_then_nothing() {
        let w = want(&[("10.1.0.1", 24), ("2001:db8::1", 64)]);
        let bare = BridgeFacts::default();
        let all = [
            GatewayStep::Mac(GATEWAY),
            GatewayStep::Route,
            GatewayStep::Add(ip("10.1.0.1"), 24),
            GatewayStep::Add(ip("2001:db8::1"), 64),
        ];
        assert_eq!(steps(&w, OWN, &bare), all);
        let done = facts(&[("10.1.0.1", 24, true), ("2001:db8::1", 64, true)]);
        assert_eq!(plan_gateway(&w, &link(GATEWAY), &done), (vec![], vec![]));
    }

    #[test]
    fn what_somebody_else_has_given_it_counts_and_stays() {
        let w = want(&[("10.1.0.1", 24)]);
        let theirs = facts(&[("10.1.0.1", 24, false), ("10.9.0.1", 24, false), ("fe80::7", 64, false)]);
        assert_eq!(plan_gateway(&w, &link(GATEWAY), &theirs), (vec![], vec![]));
        let none = want(&[]);
        assert_eq!(plan_gateway(&none, &link(GATEWAY), &theirs), (vec![], vec![]));
    }

    #[test]
    fn an_address_of_another_subnet_is_changed_if_it_is_ours_and_reported_if_it_is_not() {
        let w = want(&[("10.1.0.1", 24)]);
        let ours = facts(&[("10.1.0.1", 16, true)]);
        let both = [GatewayStep::Delete(ip("10.1.0.1"), 16), GatewayStep::Add(ip("10.1.0.1"), 24)];
        assert_eq!(steps(&w, GATEWAY, &ours), both);
        let (ops, problems) = plan_gateway(&w, &link(GATEWAY), &facts(&[("10.1.0.1", 16, false)]));
        assert!(ops.is_empty());
        let ids: Vec<_> = problems.iter().map(|p| p.id).collect();
        assert_eq!(ids, ["gateway-address"]);
    }

    /// PIT-01: each change of it flushes the neighbour table, and an operator who changes it again means it.
    #[test]
    fn an_adopted_bridge_gets_the_mac_once_and_one_of_ours_again() {
        let w = want(&[("10.1.0.1", 24)]);
        let mut f = facts(&[("10.1.0.1", 24, true)]);
        let (ops, problems) = plan_gateway(&w, &link(OWN), &f);
        assert_eq!((ops.len(), problems.len(), problems[0].id), (0, 1, "gateway-mac"));
        f.had_mac = false;
        assert_eq!(steps(&w, OWN, &f), [GatewayStep::Mac(GATEWAY)]);
        (f.had_mac, f.created) = (true, true);
        assert_eq!(steps(&w, OWN, &f), [GatewayStep::Mac(GATEWAY)]);
    }

    #[test]
    fn one_that_is_no_gateway_any_more_loses_what_was_ours_and_only_that() {
        let w = want(&[]);
        let mut f = facts(&[("10.1.0.1", 24, true), ("10.9.0.1", 24, false)]);
        let gone = [GatewayStep::Rest, GatewayStep::Delete(ip("10.1.0.1"), 24)];
        assert_eq!(steps(&w, GATEWAY, &f), gone, "the MAC of an adopted one is the operator's");
        f.created = true;
        assert_eq!(steps(&w, GATEWAY, &f)[0], GatewayStep::Mac(OWN));
    }

    #[test]
    fn a_kernel_that_cannot_forward_ipv6_on_one_interface_is_reported_where_it_matters() {
        let mut f = facts(&[("10.1.0.1", 24, true), ("2001:db8::1", 64, true)]);
        f.routes_v6 = false;
        let both = want(&[("10.1.0.1", 24), ("2001:db8::1", 64)]);
        let ids = |w: &DeviceWant, f| {
            plan_gateway(w, &link(GATEWAY), f).1.into_iter().map(|p| p.id).collect::<Vec<_>>()
        };
        assert_eq!(ids(&both, &f), ["ipv6-forwarding"]);
        assert!(ids(&want(&[("10.1.0.1", 24)]), &facts(&[("10.1.0.1", 24, true)])).is_empty());
    }
}
