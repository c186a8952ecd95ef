//! The first hop of a VNI on its bridge: MAC, addresses, settings. What is to be done says [`crate::gateway`].

use super::links::{index, plain};
use crate::gateway::{BridgeAddress, BridgeFacts, GatewayStep};
use evpn::fabric::NeighRow;
use evpn::types::IfIndex;
use futures_util::TryStreamExt as _;
use netlink_packet_route::address::{
    AddressAttribute, AddressHeaderFlags, AddressMessage, AddressProtocol, AddressScope,
};
use rtnetlink::{Handle, LinkUnspec};
use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;

/// Settings of a bridge that routes, by family, group and name, with the value and the reason:
///
/// - `forwarding`: what comes in by the bridge is forwarded, and no other interface of this host begins to.
///   `force_forwarding` is what that takes with IPv6, where `forwarding` alone only sets the router flag in advertisements.
/// - `arp_ignore` 1: ARP is answered for the bridge's own addresses, and not for the host's others (PIT-02).
/// - `arp_announce` 2: the kernel asks with an address of the bridge, and never with the underlay's (PIT-02).
/// - `app_solicit` 3: the kernel asks us for a host that it does not know, three times a second apart, before it asks the
///   hosts itself (PIT-18).
///
/// `rp_filter` stays as it is: both ways of a flow enter at the bridge whose subnet their source is in, which even the
/// strict filter accepts. `accept_ra`, `autoconf` and `addr_gen_mode` stay as on every bridge.
const SETTINGS: [(&str, &str, &str, &str); 7] = [
    ("ipv4", "conf", "forwarding", "1"),
    ("ipv4", "conf", "arp_ignore", "1"),
    ("ipv4", "conf", "arp_announce", "2"),
    ("ipv4", "neigh", "app_solicit", "3"),
    ("ipv6", "conf", "forwarding", "1"),
    ("ipv6", "conf", "force_forwarding", "1"),
    ("ipv6", "neigh", "app_solicit", "3"),
];

fn path(family: &str, group: &str, dev: &str, key: &str) -> String {
    format!("/proc/sys/net/{family}/{group}/{dev}/{key}")
}

fn is(path: &str, value: &str) -> Option<bool> {
    std::fs::read_to_string(path).ok().map(|t| t.trim() == value)
}

/// Addresses of all devices, by index.
pub(super) async fn addresses(handle: &Handle) -> io::Result<BTreeMap<IfIndex, Vec<BridgeAddress>>> {
    let mut all = handle.address().get().execute();
    let mut out: BTreeMap<IfIndex, Vec<BridgeAddress>> = BTreeMap::new();
    while let Some(m) = all.try_next().await.map_err(plain)? {
        out.entry(IfIndex(m.header.index)).or_default().extend(read(&m));
    }
    Ok(out)
}

/// What the bridge has; `created` and `had_mac` are the caller's. Settings are read where they are `wanted`.
pub(super) fn facts(name: &str, addresses: Vec<BridgeAddress>, wanted: bool) -> BridgeFacts {
    // A setting that this kernel lacks is as it should be.
    let has = |(family, group, key, value): &(&str, &str, &str, &str)| {
        is(&path(family, group, name, key), value).unwrap_or(true)
    };
    let alone = || std::fs::exists(path("ipv6", "conf", name, "force_forwarding")).unwrap_or(false);
    let routes_v6 = !wanted || alone() || is(&path("ipv6", "conf", "all", "forwarding"), "1").unwrap_or(true);
    let routes = wanted && SETTINGS.iter().all(has);
    BridgeFacts { addresses, routes, routes_v6, had_mac: false, created: false }
}

fn read(m: &AddressMessage) -> Option<BridgeAddress> {
    let find = |local: bool| {
        m.attributes.iter().find_map(|a| match a {
            AddressAttribute::Local(ip) if local => Some(*ip),
            AddressAttribute::Address(ip) if !local => Some(*ip),
            _ => None,
        })
    };
    let ours = AddressAttribute::Protocol(AddressProtocol::Other(NeighRow::PROTOCOL));
    Some(BridgeAddress {
        ip: find(true).or_else(|| find(false))?,
        bits: m.header.prefix_len,
        ours: m.attributes.contains(&ours),
    })
}

/// Takes one step.
pub(super) async fn apply(handle: &Handle, name: &str, step: GatewayStep) -> io::Result<()> {
    match step {
        GatewayStep::Mac(mac) => {
            let msg = LinkUnspec::new_with_index(index(handle, name).await?).address(mac.0.to_vec()).build();
            handle.link().set(msg).execute().await.map_err(plain)
        }
        GatewayStep::Route => settle(name),
        GatewayStep::Rest => rest(name),
        GatewayStep::Add(ip, bits) => {
            let at = index(handle, name).await?;
            let mut request = handle.address().add(at, ip, bits);
            mark(request.message_mut(), ip);
            match request.execute().await.map_err(plain) {
                // Somebody was faster.
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
                other => other,
            }
        }
        GatewayStep::Delete(ip, bits) => {
            let at = index(handle, name).await?;
            let mut message = handle.address().add(at, ip, bits).message_mut().clone();
            message.attributes.retain(|a| {
                matches!(a, AddressAttribute::Local(_))
                    || (ip.is_ipv6() && matches!(a, AddressAttribute::Address(_)))
            });
            match handle.address().del(message).execute().await.map_err(plain) {
                Err(e) if e.kind() == io::ErrorKind::AddrNotAvailable => Ok(()),
                other => other,
            }
        }
    }
}

/// Ours, and in use at once.
fn mark(m: &mut AddressMessage, ip: IpAddr) {
    m.attributes.push(AddressAttribute::Protocol(AddressProtocol::Other(NeighRow::PROTOCOL)));
    if let IpAddr::V6(v6) = ip {
        m.header.flags |= AddressHeaderFlags::Nodad;
        if v6.is_unicast_link_local() {
            m.header.scope = AddressScope::Link;
        }
    }
}

fn settle(name: &str) -> io::Result<()> {
    for (family, group, key, value) in SETTINGS {
        write(&path(family, group, name, key), value)?;
    }
    Ok(())
}

/// As on a bridge that never routed: what new interfaces of this host get, and quiet towards the tenant (PIT-02).
fn rest(name: &str) -> io::Result<()> {
    for (family, group, key, _) in SETTINGS {
        let default = std::fs::read_to_string(path(family, group, "default", key));
        let value = if key == "arp_ignore" { "8" } else { default.as_deref().map_or("0", str::trim) };
        write(&path(family, group, name, key), value)?;
    }
    Ok(())
}

fn write(path: &str, value: &str) -> io::Result<()> {
    match std::fs::write(path, value) {
        // A kernel without IPv6, or without this setting.
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
