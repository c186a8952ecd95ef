//! Applies device set-up with rtnetlink, and reads what only `/proc/sys` knows.

use super::dump::Reader;
use super::gateway;
use crate::gateway::{GatewayStep, plan_gateway};
use crate::setup::{BridgeSysctl, DeviceProblem, LinkOp, plan_devices};
use evpn::fabric::{DeviceWant, LinkKind};
use evpn::types::IfIndex;
use netlink_packet_core::DefaultNla;
use netlink_packet_route::link::{
    BridgeMulticastRouterType, BridgeStpState, InfoBridge, InfoVxlan, LinkAttribute, VxlanDf,
};
use rtnetlink::{Handle, LinkBridge, LinkBridgePort, LinkMessageBuilder, LinkUnspec, LinkVxlan};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;

/// `IFLA_BR_FDB_MAX_LEARNED` (Linux 6.7), likewise.
const IFLA_BR_FDB_MAX_LEARNED: u16 = 49;
/// `IFLA_VXLAN_LOCALBIND` (Linux 6.7), which the crate does not know.
const IFLA_VXLAN_LOCALBIND: u16 = 31;
/// Removal, creation, enslaving and bringing up, creation once more where a socket cannot be shared; the last
/// shows that nothing is left.
const ROUNDS: usize = 7;
/// `IFLA_IFALIAS` of devices that we create: how a later run knows them.
const OURS: &str = "vtepd";

/// Creates and adopts devices. Remembers which ones it created.
#[derive(Debug, Default)]
pub struct Installer {
    created: BTreeSet<String>,
    /// What gateways have had, by the steps that give it to them.
    had: BTreeSet<(String, GatewayStep)>,
    repairs: u64,
    /// VXLAN devices that have to share their UDP socket with somebody's device that lacks our settings.
    sharing: BTreeSet<String>,
}

impl Installer {
    /// Has created nothing yet.
    pub fn new() -> Self {
        Self::default()
    }
    /// Names of the devices that it created.
    pub fn created(&self) -> &BTreeSet<String> {
        &self.created
    }
    /// How often something was missing from a gateway that it had been given.
    pub fn repairs(&self) -> u64 {
        self.repairs
    }

    /// Brings the devices to what is wanted, as far as that is ours to do; idempotent. Returns what is wrong,
    /// including steps that the kernel refused.
    pub fn ensure(&mut self, wants: &[DeviceWant]) -> io::Result<Vec<DeviceProblem>> {
        let mut refused: BTreeMap<String, DeviceProblem> = BTreeMap::new();
        let mut problems = Vec::new();
        with_handle(async |handle| {
            self.recognize_with(&handle, wants).await;
            for _ in 0..ROUNDS {
                let (ops, found) = self.look_with(&handle, wants).await?;
                problems = found;
                let todo: Vec<&LinkOp> = ops.iter().filter(|op| !refused.contains_key(op.device())).collect();
                if todo.is_empty() {
                    self.note_gateways(wants);
                    break;
                }
                for op in todo {
                    let shares = self.sharing.contains(op.device());
                    if let Err(e) = apply(&handle, op, shares).await {
                        if self.cannot_share(op, &e) {
                            let again = LinkOp::Remove { name: op.device().to_owned() };
                            apply(&handle, &again, false).await?;
                            self.sharing.insert(op.device().to_owned());
                            continue;
                        }
                        let device = op.device().to_owned();
                        let problem = format!("{}: {e}", doing(op));
                        refused.insert(
                            device.clone(),
                            DeviceProblem { id: "refused", device, problem, fatal: true },
                        );
                        continue;
                    }
                    if let LinkOp::CreateBridge { name, .. } | LinkOp::CreateVxlan { name, .. } = op {
                        self.created.insert(name.clone());
                    }
                    self.note_step(op);
                }
            }
            Ok(())
        })?;
        problems.extend(refused.into_values());
        problems.extend(self.sharing.iter().map(|name| DeviceProblem {
            id: "shared-socket",
            device: name.clone(),
            problem: "another VXLAN device has the UDP port with other settings, so this one was created without \
                      `udp6zerocsumrx` and `localbind`"
                .to_owned(),
            fatal: false,
        }));
        Ok(problems)
    }

    /// VXLAN devices of one UDP port share a socket only if their receive settings are equal: beside a device of
    /// somebody else with plain settings, ours does not come up.
    fn cannot_share(&self, op: &LinkOp, e: &io::Error) -> bool {
        matches!(op, LinkOp::Up { name } if self.created.contains(name) && !self.sharing.contains(name))
            && e.kind() == io::ErrorKind::AddrInUse
    }

    /// Finds out which of the devices an earlier run has created; changes nothing.
    pub fn recognize(&mut self, wants: &[DeviceWant]) -> io::Result<()> {
        with_handle(async |handle| {
            self.recognize_with(&handle, wants).await;
            Ok(())
        })
    }

    async fn recognize_with(&mut self, handle: &Handle, wants: &[DeviceWant]) {
        for name in wants.iter().flat_map(|w| [&w.bridge, &w.vxlan]) {
            // Somebody may have put another device in its place.
            if is_ours(handle, name).await {
                self.created.insert(name.clone());
            } else {
                self.created.remove(name);
            }
        }
    }

    /// What is to be done and what is wrong; changes nothing.
    pub fn look(&self, wants: &[DeviceWant]) -> io::Result<(Vec<LinkOp>, Vec<DeviceProblem>)> {
        with_handle(async |handle| self.look_with(&handle, wants).await)
    }

    async fn look_with(
        &self,
        handle: &Handle,
        wants: &[DeviceWant],
    ) -> io::Result<(Vec<LinkOp>, Vec<DeviceProblem>)> {
        let links = Reader::open()?.links().map_err(|e| io::Error::from_raw_os_error(e.errno))?;
        let links: BTreeMap<IfIndex, _> = links.into_iter().map(|l| (l.index, l)).collect();
        let names = wants.iter().flat_map(|w| [&w.bridge, &w.vxlan]);
        let sysctl = names.filter_map(|name| Some((name.clone(), read_sysctl(name)?))).collect();
        let (mut ops, mut problems) = plan_devices(wants, &links, &self.created, &sysctl);
        // Before ports are enslaved: there is the less to flush.
        let mut first = Vec::new();
        let mut addresses = gateway::addresses(handle).await?;
        for w in wants {
            let Some(l) =
                links.values().find(|l| l.name == w.bridge && matches!(l.kind, LinkKind::Bridge(_)))
            else {
                continue;
            };
            let has = addresses.remove(&l.index).unwrap_or_default();
            let mut facts = gateway::facts(&l.name, has, w.gateway.is_some());
            facts.created = self.created.contains(&l.name);
            let given = w.gateway.as_ref().map(|g| (l.name.clone(), GatewayStep::Mac(g.mac)));
            facts.had_mac = given.is_some_and(|step| self.had.contains(&step));
            let (steps, found) = plan_gateway(w, l, &facts);
            first.extend(steps);
            problems.extend(found);
        }
        first.append(&mut ops);
        Ok((first, problems))
    }

    /// A step on a gateway that had all of it before is a repair.
    fn note_step(&mut self, op: &LinkOp) {
        let LinkOp::Gateway { name, step } = op else { return };
        match step {
            GatewayStep::Mac(_) | GatewayStep::Route | GatewayStep::Add(..) => {
                self.repairs += u64::from(self.had.contains(&(name.clone(), *step)));
            }
            GatewayStep::Delete(..) => {}
            GatewayStep::Rest => self.had.retain(|(n, _)| n != name),
        }
    }

    /// Nothing is left to be done: the gateways have what they are to have.
    fn note_gateways(&mut self, wants: &[DeviceWant]) {
        for (w, g) in wants.iter().filter_map(|w| Some((w, w.gateway.as_ref()?))) {
            let adds = g.addresses.iter().map(|(ip, bits)| GatewayStep::Add(*ip, *bits));
            let steps = [GatewayStep::Mac(g.mac), GatewayStep::Route].into_iter().chain(adds);
            self.had.extend(steps.map(|step| (w.bridge.clone(), step)));
        }
    }

    /// Removes what it created.
    pub fn remove_created(&mut self) -> io::Result<()> {
        let links = Reader::open()?.links().map_err(|e| io::Error::from_raw_os_error(e.errno))?;
        let created = core::mem::take(&mut self.created);
        with_handle(async |handle| {
            for l in links.iter().filter(|l| created.contains(&l.name)) {
                if !is_ours(&handle, &l.name).await {
                    continue;
                }
                handle.link().del(l.index.0).execute().await.map_err(io::Error::other)?;
            }
            Ok(())
        })
    }
}

fn doing(op: &LinkOp) -> &'static str {
    match op {
        LinkOp::CreateBridge { .. } => "cannot create the bridge (CONFIG_BRIDGE? CAP_NET_ADMIN?)",
        LinkOp::CreateVxlan { .. } => "cannot create the VXLAN device (CONFIG_VXLAN? CAP_NET_ADMIN?)",
        LinkOp::SetMtu { .. } => "cannot set the MTU",
        LinkOp::FdbLimit { .. } => "cannot set how many MACs it learns",
        LinkOp::Remove { .. } => "cannot remove it to make it anew",
        LinkOp::Quiet { .. } | LinkOp::Hush { .. } => {
            "cannot write its sysctl settings (is /proc/sys read-only?)"
        }
        LinkOp::Enslave { .. } => "cannot make it a port of the bridge",
        LinkOp::PortFlags { .. } | LinkOp::UnicastFlood { .. } | LinkOp::MulticastRouter { .. } => {
            "cannot set the port's flags"
        }
        LinkOp::Up { .. } => "cannot bring it up",
        LinkOp::Gateway { step, .. } => match step {
            GatewayStep::Mac(_) => "cannot give it the gateway's MAC",
            GatewayStep::Add(..) | GatewayStep::Delete(..) => "cannot set the gateway's addresses",
            GatewayStep::Route | GatewayStep::Rest => {
                "cannot write the settings of a gateway (is /proc/sys read-only?)"
            }
        },
    }
}

/// Runs `f` with an rtnetlink handle on a runtime of its own: set-up is rare and may block.
pub(super) fn with_handle<T>(f: impl AsyncFnOnce(Handle) -> io::Result<T>) -> io::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(async {
        let (connection, handle, _) = rtnetlink::new_connection()?;
        let connection = tokio::spawn(connection);
        let out = f(handle).await;
        connection.abort();
        out
    })
}

/// Marks a device as ours; the kernel does not take the mark at creation.
async fn mark(handle: &Handle, name: &str) -> io::Result<()> {
    let alias = LinkAttribute::IfAlias(OURS.to_owned());
    let msg = LinkUnspec::new_with_index(index(handle, name).await?).append_extra_attribute(alias).build();
    handle.link().set(msg).execute().await.map_err(plain)
}

/// Whether we created a device, going by the mark that it carries.
async fn is_ours(handle: &Handle, name: &str) -> bool {
    use futures_util::TryStreamExt as _;
    let found = handle.link().get().match_name(name.to_owned()).execute().try_next().await;
    found.ok().flatten().is_some_and(|m| {
        m.attributes.iter().any(|a| matches!(a, LinkAttribute::IfAlias(mark) if mark == OURS))
    })
}

pub(super) async fn index(handle: &Handle, name: &str) -> io::Result<u32> {
    use futures_util::TryStreamExt as _;
    let found = handle.link().get().match_name(name.to_owned()).execute().try_next().await;
    match found {
        Ok(Some(m)) => Ok(m.header.index),
        Ok(None) => Err(io::ErrorKind::NotFound.into()),
        Err(e) => Err(plain(e)),
    }
}

/// The kernel's errno without the crate's wrapping.
pub(super) fn plain(e: rtnetlink::Error) -> io::Error {
    match e {
        rtnetlink::Error::NetlinkError(m) => m.to_io(),
        other => io::Error::other(other),
    }
}

/// `shares`: a VXLAN device gets the receive settings that everybody has.
async fn apply(handle: &Handle, op: &LinkOp, shares: bool) -> io::Result<()> {
    match op {
        LinkOp::CreateBridge { name, mac, fdb_limit } => {
            // A kernel without it takes no notice.
            let limit = max_learned(*fdb_limit);
            let msg = LinkBridge::new(name)
                .address(mac.0.to_vec())
                .stp_state(BridgeStpState::Disabled)
                .forward_delay(0)
                .mcast_snooping(false)
                .append_info_data(limit)
                .build();
            handle.link().add(msg).execute().await.map_err(plain)?;
            mark(handle, name).await
        }
        LinkOp::CreateVxlan { name, vni, local, port } => {
            if shares {
                let msg = vxlan(name, *vni, *local, *port).udp_zero_csum6_rx(false).df(VxlanDf::Set);
                handle.link().add(msg.build()).execute().await.map_err(plain)?;
                return mark(handle, name).await;
            }
            let newer = || vxlan(name, *vni, *local, *port).df(VxlanDf::Set);
            let localbind = InfoVxlan::Other(DefaultNla::new(IFLA_VXLAN_LOCALBIND, vec![1]));
            let full = newer().append_info_data(localbind);
            if handle.link().add(full.build()).execute().await.is_err()
                && handle.link().add(newer().build()).execute().await.is_err()
            {
                let plainest = vxlan(name, *vni, *local, *port).build();
                handle.link().add(plainest).execute().await.map_err(plain)?;
            }
            mark(handle, name).await
        }
        LinkOp::FdbLimit { name, limit } => {
            let msg = LinkBridge::new(name).append_info_data(max_learned(*limit)).build();
            handle.link().change(msg).execute().await.map_err(plain)
        }
        LinkOp::SetMtu { name, mtu } => {
            let msg = LinkUnspec::new_with_index(index(handle, name).await?).mtu(*mtu).build();
            handle.link().set(msg).execute().await.map_err(plain)
        }
        LinkOp::Remove { name } => {
            handle.link().del(index(handle, name).await?).execute().await.map_err(plain)
        }
        LinkOp::Gateway { name, step } => gateway::apply(handle, name, *step).await,
        LinkOp::Quiet { name } => quiet(name),
        LinkOp::Hush { name } => hush(name),
        LinkOp::Enslave { name, bridge } => {
            let msg = LinkUnspec::new_with_index(index(handle, name).await?).controller(bridge.0).build();
            handle.link().set(msg).execute().await.map_err(plain)
        }
        LinkOp::PortFlags { name, neigh_suppress } => {
            let msg = LinkBridgePort::new(index(handle, name).await?)
                .learning(false)
                .hairpin(false)
                .neigh_suppress(*neigh_suppress)
                .build();
            handle.link().set_port(msg).execute().await.map_err(plain)
        }
        LinkOp::MulticastRouter { name } => {
            let always = BridgeMulticastRouterType::Permanent;
            let msg = LinkBridgePort::new(index(handle, name).await?).mcast_router(always).build();
            handle.link().set_port(msg).execute().await.map_err(plain)
        }
        LinkOp::UnicastFlood { name, on } => {
            let msg = LinkBridgePort::new(index(handle, name).await?).flood(*on).build();
            handle.link().set_port(msg).execute().await.map_err(plain)
        }
        LinkOp::Up { name } => {
            let msg = LinkUnspec::new_with_index(index(handle, name).await?).up().build();
            handle.link().set(msg).execute().await.map_err(plain)
        }
    }
}

fn max_learned(limit: u32) -> InfoBridge {
    InfoBridge::Other(DefaultNla::new(IFLA_BR_FDB_MAX_LEARNED, limit.to_ne_bytes().to_vec()))
}

fn vxlan(name: &str, vni: u32, local: IpAddr, port: u16) -> LinkMessageBuilder<LinkVxlan> {
    let b =
        LinkVxlan::new(name, vni).port(port).learning(false).port_range(49152, 65535).udp_zero_csum6_rx(true);
    match local {
        IpAddr::V4(a) => b.local(a),
        IpAddr::V6(a) => b.local6(a),
    }
}

fn sysctl_path(family: &str, dev: &str, key: &str) -> String {
    format!("/proc/sys/net/{family}/conf/{dev}/{key}")
}

/// PIT-02. The thread's own network namespace answers under `/proc/sys/net`.
fn quiet(name: &str) -> io::Result<()> {
    std::fs::write(sysctl_path("ipv4", name, "arp_ignore"), "8")?;
    if !std::fs::exists(sysctl_path("ipv6", name, "disable_ipv6"))? {
        // A kernel without IPv6 has nothing to quieten.
        return Ok(());
    }
    for (key, value) in [("addr_gen_mode", "1"), ("accept_ra", "0"), ("autoconf", "0"), ("disable_ipv6", "0")]
    {
        std::fs::write(sysctl_path("ipv6", name, key), value)?;
    }
    Ok(())
}

/// PIT-02. A port's frames belong to the bridge; the host has no use for IPv6 on it.
pub(super) fn hush(name: &str) -> io::Result<()> {
    match std::fs::write(sysctl_path("ipv6", name, "disable_ipv6"), "1") {
        // A kernel without IPv6, or a device too small for it.
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// `None` if the device is not there.
pub(super) fn read_sysctl(name: &str) -> Option<BridgeSysctl> {
    let read = |family: &str, key: &str| -> Option<i32> {
        std::fs::read_to_string(sysctl_path(family, name, key)).ok()?.trim().parse().ok()
    };
    Some(BridgeSysctl {
        answers_arp: read("ipv4", "arp_ignore")? < 8,
        disable_ipv6: read("ipv6", "disable_ipv6").unwrap_or(1) != 0,
        accept_ra: read("ipv6", "accept_ra").unwrap_or(0) != 0,
        own_address: read("ipv6", "addr_gen_mode").unwrap_or(1) != 1,
    })
}
