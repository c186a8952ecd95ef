//! Applies device set-up with rtnetlink, and reads what only `/proc/sys` knows.

use super::dump::Reader;
use crate::setup::{BridgeSysctl, DeviceProblem, LinkOp, plan_devices};
use evpn::fabric::DeviceWant;
use evpn::types::IfIndex;
use netlink_packet_core::DefaultNla;
use netlink_packet_route::link::{BridgeStpState, InfoVxlan, VxlanDf};
use rtnetlink::{Handle, LinkBridge, LinkBridgePort, LinkMessageBuilder, LinkUnspec, LinkVxlan};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;

/// `IFLA_VXLAN_LOCALBIND` (Linux 6.7), which the crate does not know.
const IFLA_VXLAN_LOCALBIND: u16 = 31;
/// Creation, enslaving and bringing up take three rounds; one more shows that nothing is left.
const ROUNDS: usize = 5;

/// Creates and adopts devices. Remembers which ones it created.
#[derive(Debug, Default)]
pub struct Installer {
    created: BTreeSet<String>,
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

    /// Brings the devices to what is wanted, as far as that is ours to do; idempotent. Returns what is wrong,
    /// including steps that the kernel refused.
    pub fn ensure(&mut self, wants: &[DeviceWant]) -> io::Result<Vec<DeviceProblem>> {
        let mut refused: BTreeMap<String, DeviceProblem> = BTreeMap::new();
        let mut problems = Vec::new();
        with_handle(async |handle| {
            for _ in 0..ROUNDS {
                let (ops, found) = self.look(wants)?;
                problems = found;
                let todo: Vec<&LinkOp> = ops.iter().filter(|op| !refused.contains_key(op.device())).collect();
                if todo.is_empty() {
                    break;
                }
                for op in todo {
                    if let Err(e) = apply(&handle, op).await {
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
                }
            }
            Ok(())
        })?;
        problems.extend(refused.into_values());
        Ok(problems)
    }

    /// What is to be done and what is wrong; changes nothing.
    pub fn look(&self, wants: &[DeviceWant]) -> io::Result<(Vec<LinkOp>, Vec<DeviceProblem>)> {
        let links = Reader::open()?.links().map_err(|e| io::Error::from_raw_os_error(e.errno))?;
        let links: BTreeMap<IfIndex, _> = links.into_iter().map(|l| (l.index, l)).collect();
        let sysctl = wants.iter().filter_map(|w| Some((w.bridge.clone(), read_sysctl(&w.bridge)?))).collect();
        Ok(plan_devices(wants, &links, &self.created, &sysctl))
    }

    /// Removes what it created.
    pub fn remove_created(&mut self) -> io::Result<()> {
        let links = Reader::open()?.links().map_err(|e| io::Error::from_raw_os_error(e.errno))?;
        let created = core::mem::take(&mut self.created);
        with_handle(async |handle| {
            for l in links.iter().filter(|l| created.contains(&l.name)) {
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
        LinkOp::Quiet { .. } => "cannot write its sysctl settings (is /proc/sys read-only?)",
        LinkOp::Enslave { .. } => "cannot make it a port of the bridge",
        LinkOp::PortFlags { .. } => "cannot set the port's flags",
        LinkOp::Up { .. } => "cannot bring it up",
    }
}

/// Runs `f` with an rtnetlink handle on a runtime of its own: set-up is rare and may block.
fn with_handle<T>(f: impl AsyncFnOnce(Handle) -> io::Result<T>) -> io::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(async {
        let (connection, handle, _) = rtnetlink::new_connection()?;
        let connection = tokio::spawn(connection);
        let out = f(handle).await;
        connection.abort();
        out
    })
}

async fn index(handle: &Handle, name: &str) -> io::Result<u32> {
    use futures_util::TryStreamExt as _;
    let found = handle.link().get().match_name(name.to_owned()).execute().try_next().await;
    match found {
        Ok(Some(m)) => Ok(m.header.index),
        Ok(None) => Err(io::ErrorKind::NotFound.into()),
        Err(e) => Err(plain(e)),
    }
}

/// The kernel's errno without the crate's wrapping.
fn plain(e: rtnetlink::Error) -> io::Error {
    match e {
        rtnetlink::Error::NetlinkError(m) => m.to_io(),
        other => io::Error::other(other),
    }
}

async fn apply(handle: &Handle, op: &LinkOp) -> io::Result<()> {
    match op {
        LinkOp::CreateBridge { name, mac } => {
            let msg = LinkBridge::new(name)
                .address(mac.0.to_vec())
                .stp_state(BridgeStpState::Disabled)
                .forward_delay(0)
                .mcast_snooping(false)
                .build();
            handle.link().add(msg).execute().await.map_err(plain)
        }
        LinkOp::CreateVxlan { name, vni, local, port } => {
            let full = vxlan(name, *vni, *local, *port)
                .df(VxlanDf::Set)
                .append_info_data(InfoVxlan::Other(DefaultNla::new(IFLA_VXLAN_LOCALBIND, vec![1])));
            if handle.link().add(full.build()).execute().await.is_ok() {
                return Ok(());
            }
            let newer = vxlan(name, *vni, *local, *port).df(VxlanDf::Set);
            if handle.link().add(newer.build()).execute().await.is_ok() {
                return Ok(());
            }
            handle.link().add(vxlan(name, *vni, *local, *port).build()).execute().await.map_err(plain)
        }
        LinkOp::SetMtu { name, mtu } => {
            let msg = LinkUnspec::new_with_index(index(handle, name).await?).mtu(*mtu).build();
            handle.link().set(msg).execute().await.map_err(plain)
        }
        LinkOp::Quiet { name } => quiet(name),
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
        LinkOp::Up { name } => {
            let msg = LinkUnspec::new_with_index(index(handle, name).await?).up().build();
            handle.link().set(msg).execute().await.map_err(plain)
        }
    }
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
