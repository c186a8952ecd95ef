//! What the host gives us: devices, capabilities, randomness.

use evpn::node::{Config, Node};
use evpn::types::Time;
use netlink::linux::hostcheck::{self, Finding, Severity};
use rustix::net::{AddressFamily, SocketType, socket};
use rustix::thread::CapabilitySet;
use std::net::IpAddr;

/// The way out of a missing capability.
pub const CAPABILITY_HELP: &str = "run as root, or let systemd grant it: AmbientCapabilities=CAP_NET_ADMIN CAP_NET_RAW CAP_NET_BIND_SERVICE";

/// Whether a network device of this name exists in our network namespace.
pub fn device_exists(name: &str) -> bool {
    let Ok(any) = socket(AddressFamily::INET, SocketType::DGRAM, None) else { return true };
    rustix::net::netdevice::name_to_index(&any, name).is_ok()
}

/// Capabilities that `run` needs and this process does not have.
pub fn missing_capabilities(config: &Config) -> Vec<&'static str> {
    let Ok(sets) = rustix::thread::capabilities(None) else { return Vec::new() };
    let mut need = vec![("CAP_NET_ADMIN", CapabilitySet::NET_ADMIN), ("CAP_NET_RAW", CapabilitySet::NET_RAW)];
    if config.bgp_port < 1024 {
        need.push(("CAP_NET_BIND_SERVICE", CapabilitySet::NET_BIND_SERVICE));
    }
    need.retain(|(_, c)| !sets.effective.contains(*c));
    need.into_iter().map(|(name, _)| name).collect()
}

/// A number that differs between starts and hosts; jitter comes from it, secrets do not.
pub fn seed() -> u64 {
    use std::hash::{BuildHasher as _, Hasher as _};
    std::collections::hash_map::RandomState::new().build_hasher().finish()
}

/// What is wrong with this host: capabilities first, then what the kernel side finds (PIT-09).
pub fn findings(config: Option<&Config>) -> Vec<Finding> {
    let mut out: Vec<Finding> =
        config.map_or_else(Vec::new, missing_capabilities).into_iter().map(lacks).collect();
    let devices = config.map_or_else(Vec::new, |c| Node::new(c.clone(), 0, Time(0)).devices());
    let peers: Vec<IpAddr> = config.into_iter().flat_map(|c| &c.neighbors).map(|n| n.address).collect();
    out.extend(hostcheck::run(&devices, &peers));
    out
}

fn lacks(capability: &'static str) -> Finding {
    Finding {
        id: "capability",
        severity: Severity::Error,
        what: format!("this process lacks {capability}"),
        why: "without it devices, forwarding rows, frame taps or the BGP port cannot be had".into(),
        way_out: CAPABILITY_HELP.into(),
    }
}
