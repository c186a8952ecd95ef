//! Which bridges and VXLAN devices to create or adopt, and what is wrong with them. Pure.
//!
//! Devices that are absent are created as the pitfalls ask for (PIT-01, 02, 08, 11, 12). Present ones are
//! adopted: port flags of the VXLAN port are set, ports are enslaved, everything is brought up; whatever else
//! differs is reported and left alone.

use crate::gateway::GatewayStep;
use evpn::fabric::{DeviceWant, Link, LinkKind};
use evpn::types::{IfIndex, Mac};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// One step of device set-up.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum LinkOp {
    /// A bridge with a MAC of its own, no STP, no forward delay, no multicast snooping.
    CreateBridge {
        /// Name.
        name: String,
        /// MAC, which then does not follow the ports (PIT-01).
        mac: Mac,
        /// Most MACs learned from frames, where the kernel has such a limit; 0: no limit.
        fdb_limit: u32,
    },
    /// A VXLAN device: no learning, source ports 49152–65535, `df set`, `udp6zerocsumrx`, `localbind`
    /// (the last three where the kernel has them, PIT-12).
    CreateVxlan {
        /// Name.
        name: String,
        /// VNI.
        vni: u32,
        /// Source address.
        local: IpAddr,
        /// UDP destination port.
        port: u16,
    },
    /// Most MACs that a bridge of ours learns: the limit has changed since it was made.
    FdbLimit {
        /// The bridge.
        name: String,
        /// As in `CreateBridge`.
        limit: u32,
    },
    /// A fixed MTU.
    SetMtu {
        /// Device.
        name: String,
        /// Octets.
        mtu: u32,
    },
    /// Deletes a device that we created.
    Remove {
        /// Device.
        name: String,
    },
    /// No address of its own, no router advertisements, no ARP answers for the host (PIT-02). IPv6 stays on.
    Quiet {
        /// The bridge or VXLAN device.
        name: String,
    },
    /// No IPv6 of the host's on an access port: with an address from before it was a port it would go on sending
    /// router solicitations and MLD reports to the VM (PIT-02).
    Hush {
        /// The port.
        name: String,
    },
    /// Makes a device a port of a bridge.
    Enslave {
        /// The port.
        name: String,
        /// The bridge.
        bridge: IfIndex,
    },
    /// Learning off, hairpin off, suppression as wanted, on the VXLAN port.
    PortFlags {
        /// The VXLAN device.
        name: String,
        /// `neigh_suppress`.
        neigh_suppress: bool,
    },
    /// Takes all multicast of a bridge that snoops: what other VTEPs want, no report here says (PIT-08).
    MulticastRouter {
        /// The VXLAN device.
        name: String,
    },
    /// Whether unknown unicast goes out of a port.
    UnicastFlood {
        /// The port.
        name: String,
        /// `flood`.
        on: bool,
    },
    /// Administratively up.
    Up {
        /// Device.
        name: String,
    },
    /// The bridge becomes its VNI's first hop, or is it no more.
    Gateway {
        /// The bridge.
        name: String,
        /// Step.
        step: GatewayStep,
    },
}

impl LinkOp {
    /// The device it is about.
    pub fn device(&self) -> &str {
        match self {
            Self::CreateBridge { name, .. }
            | Self::CreateVxlan { name, .. }
            | Self::SetMtu { name, .. }
            | Self::FdbLimit { name, .. }
            | Self::Remove { name }
            | Self::Quiet { name }
            | Self::Hush { name }
            | Self::Enslave { name, .. }
            | Self::PortFlags { name, .. }
            | Self::Gateway { name, .. }
            | Self::UnicastFlood { name, .. }
            | Self::MulticastRouter { name }
            | Self::Up { name } => name,
        }
    }
}

/// Something about a device that an operator should know.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub struct DeviceProblem {
    /// Stable name of the kind of problem, such as `floating-mac`.
    pub id: &'static str,
    /// Device name.
    pub device: String,
    /// What is wrong and the way out, for people.
    pub problem: String,
    /// The VNI does not work at all because of it (otherwise it works, but less well).
    pub fatal: bool,
}

/// Settings of an adopted bridge or VXLAN device that no link message shows.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct BridgeSysctl {
    /// `net.ipv6.conf.BR.disable_ipv6`.
    pub disable_ipv6: bool,
    /// `net.ipv6.conf.BR.accept_ra` is not 0.
    pub accept_ra: bool,
    /// `net.ipv6.conf.BR.addr_gen_mode` is not 1 (none).
    pub own_address: bool,
    /// `net.ipv4.conf.BR.arp_ignore` is less than 8.
    pub answers_arp: bool,
}

/// What to do now, and what is wrong. Empty when all is as wanted; run it again after applying, and on link
/// events: later steps need the index of what earlier ones created, and ports may come late.
///
/// `created` names devices that we made, now or in an earlier run. `sysctl` is what [`BridgeSysctl`] holds per device name.
pub fn plan_devices(
    wants: &[DeviceWant],
    links: &BTreeMap<IfIndex, Link>,
    created: &BTreeSet<String>,
    sysctl: &BTreeMap<String, BridgeSysctl>,
) -> (Vec<LinkOp>, Vec<DeviceProblem>) {
    let mut p = Planner { links, created, ops: Vec::new(), problems: Vec::new() };
    for w in wants {
        p.vni(w, sysctl);
    }
    (p.ops, p.problems)
}

struct Planner<'a> {
    links: &'a BTreeMap<IfIndex, Link>,
    created: &'a BTreeSet<String>,
    ops: Vec<LinkOp>,
    problems: Vec<DeviceProblem>,
}

impl<'a> Planner<'a> {
    fn find(&self, name: &str) -> Option<&'a Link> {
        self.links.values().find(|l| l.name == name)
    }

    fn problem(&mut self, id: &'static str, fatal: bool, device: &str, problem: String) {
        self.problems.push(DeviceProblem { id, device: device.to_owned(), problem, fatal });
    }

    fn vni(&mut self, w: &DeviceWant, sysctl: &BTreeMap<String, BridgeSysctl>) {
        let bridge = match self.find(&w.bridge) {
            None => {
                // A gateway's from the start: to change it later would flush what is there by then (PIT-01).
                let (name, mac) = (w.bridge.clone(), w.gateway.as_ref().map_or(w.bridge_mac, |g| g.mac));
                self.ops.push(LinkOp::CreateBridge { name: name.clone(), mac, fdb_limit: w.fdb_limit });
                self.ops.push(LinkOp::Quiet { name });
                None
            }
            Some(l) if matches!(l.kind, LinkKind::Bridge(_)) => Some(l),
            Some(_) => {
                let text = "exists but is not a bridge; rename it, or set `bridge` to another name";
                self.problem("not-a-bridge", true, &w.bridge, text.to_owned());
                return;
            }
        };
        let vxlan = match self.find(&w.vxlan) {
            None => {
                let name = w.vxlan.clone();
                self.ops.push(LinkOp::CreateVxlan {
                    name,
                    vni: w.vni.get(),
                    local: w.local,
                    port: w.udp_port,
                });
                // A link-local address of its own would speak in the tenant's network (PIT-02).
                self.ops.push(LinkOp::Quiet { name: w.vxlan.clone() });
                None
            }
            Some(l) if self.outdated(w, l) => {
                // Created by an earlier run with another address or port, and never anybody else's.
                self.ops.push(LinkOp::Remove { name: l.name.clone() });
                None
            }
            Some(l) if matches!(l.kind, LinkKind::Vxlan(_)) => Some(l),
            Some(_) => {
                let text = "exists but is not a VXLAN device; rename it, or set `vxlan` to another name";
                self.problem("not-a-vxlan", true, &w.vxlan, text.to_owned());
                return;
            }
        };
        if let Some(b) = bridge {
            self.bridge(w, b, sysctl.get(&b.name).copied());
        }
        let (Some(b), Some(v)) = (bridge, vxlan) else { return };
        if !self.vxlan(w, v, sysctl.get(&v.name).copied()) {
            return;
        }
        self.port(b, v, true, w.arp_suppression);
        self.unicast_flood(b, v, w.unicast_flood);
        let snoops = matches!(&b.kind, LinkKind::Bridge(set) if set.mcast_snooping);
        if snoops && v.master == Some(b.index) && !v.port.unwrap_or_default().multicast_router {
            self.ops.push(LinkOp::MulticastRouter { name: v.name.clone() });
        }
        for p in &w.ports {
            match self.find(&p.name) {
                None => self.problem("port-missing", false, &p.name, "port is not there yet".to_owned()),
                Some(l) if l.index == b.index || l.index == v.index => {
                    let text = "is the bridge or the VXLAN device itself; take it out of `ports`";
                    self.problem("port-is-bridge", true, &p.name, text.to_owned());
                }
                Some(l) => {
                    self.port(b, l, false, false);
                    self.unicast_flood(b, l, w.unicast_flood);
                }
            }
        }
    }

    /// A VXLAN device of ours that cannot carry the VNI as it is: made anew, because its sockets are bound to
    /// what it was created with.
    fn outdated(&self, w: &DeviceWant, l: &Link) -> bool {
        let LinkKind::Vxlan(set) = &l.kind else { return false };
        self.created.contains(&l.name)
            && (set.vni, set.local, set.port) != (w.vni.get(), Some(w.local), w.udp_port)
    }

    fn bridge(&mut self, w: &DeviceWant, l: &Link, sysctl: Option<BridgeSysctl>) {
        let LinkKind::Bridge(set) = &l.kind else { return };
        let name = l.name.clone();
        if let Some(mtu) = w.mtu
            && l.mtu != mtu
        {
            if self.created.contains(&name) {
                self.ops.push(LinkOp::SetMtu { name: name.clone(), mtu });
            } else {
                let text = format!("MTU is {}, the VNI wants {mtu}; `ip link set {name} mtu {mtu}`", l.mtu);
                self.problem("mtu", false, &name, text);
            }
        }
        if !l.up {
            self.ops.push(LinkOp::Up { name: name.clone() });
        }
        if set.vlan_filtering {
            let text = "VLAN filtering is on, which is not supported; \
                        `ip link set NAME type bridge vlan_filtering 0`";
            self.problem("vlan-filtering", true, &name, text.replace("NAME", &name));
        }
        if set.mcast_snooping {
            let text = "multicast snooping is on and can keep a silent IPv6 guest from being found after a move; \
                        `ip link set NAME type bridge mcast_snooping 0`";
            self.problem("snooping", false, &name, text.replace("NAME", &name));
        }
        if !set.mac_fixed && !self.created.contains(&name) {
            let text = "its MAC follows its ports, and each change flushes all ARP/ND answers; \
                        `ip link set NAME address MAC`";
            self.problem(
                "floating-mac",
                false,
                &name,
                text.replace("NAME", &name).replace("MAC", &l.mac.to_string()),
            );
        }
        if self.created.contains(&name) {
            if set.fdb_limit.is_some_and(|n| n != w.fdb_limit) {
                self.ops.push(LinkOp::FdbLimit { name: name.clone(), limit: w.fdb_limit });
            }
        } else if set.fdb_limit == Some(0) && w.fdb_limit > 0 {
            let text = format!(
                "learns MACs without limit, so a guest that makes them up fills its table until it is guarded; \
                 `ip link set {name} type bridge fdb_max_learned {}` (iproute2 6.8 or later)",
                w.fdb_limit
            );
            self.problem("fdb-limit", false, &name, text);
        }
        let Some(s) = sysctl else { return };
        if s.disable_ipv6 && w.arp_suppression {
            let text = "IPv6 is disabled, so the kernel can keep no ND answers and ND crosses the underlay; \
                        `sysctl net.ipv6.conf.NAME.disable_ipv6=0` with addr_gen_mode=1 and accept_ra=0";
            self.problem("disable-ipv6", true, &name, text.replace("NAME", &name));
        }
        for (id, wrong, setting, danger) in [
            (
                "accept-ra",
                s.accept_ra,
                "ipv6.conf.NAME.accept_ra=0",
                "a tenant's router advertisement configures this host",
            ),
            (
                "own-address",
                s.own_address,
                "ipv6.conf.NAME.addr_gen_mode=1",
                "this host has an IPv6 address in the tenant's network",
            ),
            (
                "answers-arp",
                s.answers_arp && w.gateway.is_none(),
                "ipv4.conf.NAME.arp_ignore=8",
                "this host answers the tenant's ARP for its own addresses",
            ),
        ] {
            if wrong {
                let setting = setting.replace("NAME", &name);
                self.problem(id, false, &name, format!("{danger}; `sysctl net.{setting}`"));
            }
        }
    }

    /// Whether the device can be used.
    fn vxlan(&mut self, w: &DeviceWant, l: &Link, sysctl: Option<BridgeSysctl>) -> bool {
        let LinkKind::Vxlan(set) = &l.kind else { return false };
        let name = l.name.clone();
        if set.vni != w.vni.get() {
            let text = if set.vni == 0 {
                "is an external (collect-metadata) device, which is not supported yet".to_owned()
            } else {
                format!("carries VNI {}, not {}; remove it or set `vxlan` to another name", set.vni, w.vni)
            };
            self.problem("vni", true, &name, text);
            return false;
        }
        if let Some(mtu) = w.mtu
            && l.mtu != mtu
        {
            if self.created.contains(&name) {
                self.ops.push(LinkOp::SetMtu { name: name.clone(), mtu });
            } else {
                let text = format!("MTU is {}, the VNI wants {mtu}; `ip link set {name} mtu {mtu}`", l.mtu);
                self.problem("mtu", false, &name, text);
            }
        }
        if set.local != Some(w.local) {
            let is = set.local.map_or_else(|| "none".to_owned(), |a| a.to_string());
            let text =
                format!("source address is {is}, not {}; peers drop what comes from elsewhere", w.local);
            self.problem("source-address", false, &name, text);
        }
        if set.port != w.udp_port {
            let text = format!("UDP port is {}, not {}", set.port, w.udp_port);
            self.problem("udp-port", true, &name, text);
        }
        if set.learning {
            let text = "learning is on, so data frames overwrite what BGP says; \
                        `ip link set NAME type vxlan nolearning`";
            self.problem("learning", false, &name, text.replace("NAME", &name));
        }
        if sysctl.is_some_and(|s| s.own_address) {
            let text = "has an IPv6 address of its own and speaks in the tenant's network; \
                        `ip link set NAME addrgenmode none` before it comes up";
            self.problem("own-address", false, &name, text.replace("NAME", &name));
        }
        true
    }

    fn unicast_flood(&mut self, bridge: &Link, l: &Link, want: Option<bool>) {
        let Some(on) = want else { return };
        if l.master == Some(bridge.index) && l.port.unwrap_or_default().flood != on {
            self.ops.push(LinkOp::UnicastFlood { name: l.name.clone(), on });
        }
    }

    fn port(&mut self, bridge: &Link, l: &Link, vxlan: bool, neigh_suppress: bool) {
        let name = l.name.clone();
        match l.master {
            None => {
                if !vxlan {
                    self.ops.push(LinkOp::Hush { name: name.clone() });
                }
                self.ops.push(LinkOp::Enslave { name: name.clone(), bridge: bridge.index });
                if vxlan {
                    self.ops.push(LinkOp::PortFlags { name: name.clone(), neigh_suppress });
                }
            }
            Some(m) if m == bridge.index => {
                let flags = l.port.unwrap_or_default();
                if vxlan && (flags.learning || flags.hairpin || flags.neigh_suppress != neigh_suppress) {
                    self.ops.push(LinkOp::PortFlags { name: name.clone(), neigh_suppress });
                }
            }
            Some(m) => {
                let other = self.links.get(&m).map_or_else(|| format!("if{}", m.0), |o| o.name.clone());
                let text =
                    format!("belongs to {other}, not to {}; `ip link set {name} nomaster`", bridge.name);
                self.problem("other-master", true, &name, text);
                return;
            }
        }
        if !l.up {
            self.ops.push(LinkOp::Up { name });
        }
    }
}
