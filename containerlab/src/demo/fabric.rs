//! The VTEPs of the topology: what they should hold, what their kernels hold, what vtepd says.

use crate::error::{Error, Result};
use crate::frr::FrrNode;
use crate::iproute;
use crate::lab::Lab;
use crate::netns;
use crate::switchboard::mac_of;
use evpn::node::view::{MacView, MoveView, StatusView};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// VNI of the demo.
pub(super) const VNI: u32 = 100;
/// Bridge that vtepd makes for it.
pub(super) const BRIDGE: &str = "br100";
/// VXLAN device that vtepd makes for it.
pub(super) const VXLAN: &str = "vx100";

/// A VTEP.
pub(super) struct Vtep {
    pub(super) name: String,
    pub(super) namespace: String,
    pub(super) address: String,
    /// Its FRR, if it runs one instead of vtepd.
    pub(super) frr: Option<FrrNode>,
}

/// A VM.
#[derive(Clone, Debug)]
pub(super) struct Guest {
    pub(super) name: String,
    pub(super) namespace: String,
    pub(super) interface: String,
    pub(super) mac: [u8; 6],
    pub(super) mac_text: String,
    pub(super) ip: String,
}

/// The VTEPs and VMs of a lab.
pub(super) struct Fabric {
    pub(super) vteps: Vec<Vtep>,
    pub(super) guests: BTreeMap<String, Guest>,
    pub(super) vtepd: PathBuf,
}

impl Fabric {
    /// Finds them: VTEPs are the nodes where a VM can be, their address is the one on `lo`.
    pub(super) fn find(lab: &Lab, vtepd: PathBuf) -> Result<Self> {
        let s = &lab.state;
        let names: BTreeSet<_> =
            s.vms.values().flat_map(|v| v.wiring.sockets.iter().map(|k| k.port.node.clone())).collect();
        let mut vteps = Vec::new();
        for name in names {
            let namespace = s.node(&name)?.namespace.clone();
            let address = address_of(&namespace, "lo")?;
            vteps.push(Vtep { name, namespace, address, frr: None });
        }
        let mut guests = BTreeMap::new();
        for (name, vm) in &s.vms {
            let namespace = s.node(name)?.namespace.clone();
            let mac = mac_of(&namespace, &vm.wiring.interface)?;
            let guest = Guest {
                name: name.clone(),
                mac,
                mac_text: evpn::types::Mac(mac).to_string(),
                ip: address_of(&namespace, &vm.wiring.interface)?,
                interface: vm.wiring.interface.clone(),
                namespace,
            };
            guests.insert(name.clone(), guest);
        }
        Ok(Self { vteps, guests, vtepd })
    }

    pub(super) fn vtep(&self, name: &str) -> Result<&Vtep> {
        self.vteps.iter().find(|v| v.name == name).ok_or_else(|| Error::refused(format!("no VTEP `{name}`")))
    }

    pub(super) fn guest(&self, name: &str) -> Result<&Guest> {
        self.guests.get(name).ok_or_else(|| Error::refused(format!("the topology has no VM `{name}`")))
    }

    /// Asks a vtepd for a table, through its own command line.
    pub(super) fn show<T: DeserializeOwned>(&self, lab: &Lab, vtep: &str, table: &str) -> Result<Vec<T>> {
        let socket = lab.state.node(vtep)?.run.join("vtepd/vtepd.sock");
        let out = Command::new(&self.vtepd)
            .args(["show", table, "--json", "--socket"])
            .arg(&socket)
            .stdin(Stdio::null())
            .output()
            .map_err(Error::io(self.vtepd.display().to_string()))?;
        let failed = |output: String| Error::Command {
            command: format!("vtepd show {table} --json"),
            place: vtep.to_owned(),
            output,
        };
        if !out.status.success() {
            return Err(failed(String::from_utf8_lossy(&out.stderr).trim().replace('\n', "; ")));
        }
        let page: Value =
            serde_json::from_slice(&out.stdout).map_err(|e| failed(format!("not JSON: {e}")))?;
        serde_json::from_value(page["rows"].clone())
            .map_err(|e| failed(format!("not the table asked for: {e}")))
    }

    /// What is still missing until this VTEP is as it should be; `Ok` when nothing is.
    pub(super) fn converged(&self, lab: &Lab, v: &Vtep) -> Result<(), String> {
        let text = |e: Error| e.to_string();
        if v.frr.is_none() {
            let rows: Vec<StatusView> = self.show(lab, &v.name, "status").map_err(text)?;
            let s = rows.first().ok_or("no status")?;
            if !s.converged || s.established != s.neighbors {
                return Err(format!(
                    "{} of {} sessions up, converged: {}",
                    s.established, s.neighbors, s.converged
                ));
            }
        }
        let fdb = iproute::json("bridge", &v.namespace, &["fdb", "show", "dev", VXLAN]).map_err(text)?;
        let flood: BTreeSet<_> = fdb
            .iter()
            .filter(|r| r["mac"] == "00:00:00:00:00:00")
            .filter_map(|r| r["dst"].as_str())
            .collect();
        let wanted: BTreeSet<_> =
            self.vteps.iter().filter(|o| o.name != v.name).map(|o| o.address.as_str()).collect();
        if flood != wanted {
            return Err(format!("floods to {flood:?}, not to {wanted:?}"));
        }
        let neighbours =
            iproute::json("ip", &v.namespace, &["neigh", "show", "dev", BRIDGE]).map_err(text)?;
        for g in self.guests.values() {
            let at = &lab.state.vms[&g.name].at;
            if *at == v.name {
                continue;
            }
            let home = self.vtep(at).map_err(text)?;
            let rows = fdb.iter().filter(|r| r["mac"] == g.mac_text.as_str());
            let to: Vec<_> = rows.clone().filter_map(|r| r["dst"].as_str()).collect();
            if to != [home.address.as_str()] {
                return Err(format!(
                    "{} ({}) is sent to {to:?}, not to {}",
                    g.name, g.mac_text, home.address
                ));
            }
            if !rows.clone().any(|r| r["master"] == BRIDGE) {
                return Err(format!("{} ({}) has no row in {BRIDGE}", g.name, g.mac_text));
            }
            // FRR learns a VM's address only when the VM asks for the bridge's own, which it has none of.
            let known =
                neighbours.iter().any(|n| n["dst"] == g.ip.as_str() && n["lladdr"] == g.mac_text.as_str());
            if home.frr.is_none() && !known {
                return Err(format!("{} ({}) is not answered for", g.name, g.ip));
            }
        }
        Ok(())
    }

    /// Sequence number of a VM's MAC at a VTEP.
    pub(super) fn sequence(&self, lab: &Lab, v: &Vtep, guest: &Guest) -> Option<u32> {
        if let Some(frr) = &v.frr {
            let mac = frr.vtysh_json(&format!("show evpn mac vni {VNI} mac {} json", guest.mac_text)).ok()?;
            // Some versions put it below the MAC.
            let mac = mac.get(&guest.mac_text).unwrap_or(&mac);
            let key = if mac["type"] == "local" { "localSequence" } else { "remoteSequence" };
            return mac[key].as_u64().map(|n| n as u32);
        }
        let macs: Vec<MacView> = self.show(lab, &v.name, "macs").ok()?;
        macs.iter().find(|m| m.mac.0 == guest.mac).map(|m| m.seq.0)
    }

    /// vtepd's newest record of a move of this MAC.
    pub(super) fn last_move(&self, lab: &Lab, vtep: &str, guest: &Guest) -> Result<Option<MoveView>> {
        let moves: Vec<MoveView> = self.show(lab, vtep, "moves")?;
        Ok(moves.into_iter().filter(|m| m.mac.0 == guest.mac).max_by_key(|m| m.id))
    }

    /// Kernel rows of a VM at a VTEP, as iproute2 words them.
    pub(super) fn kernel_rows(v: &Vtep, g: &Guest) -> Vec<String> {
        let run = |program: &str, args: &[&str]| {
            let out = Command::new(program).args(["-n", &v.namespace]).args(args).output();
            out.map(|o| String::from_utf8_lossy(&o.stdout).into_owned()).unwrap_or_default()
        };
        let fdb = run("bridge", &["fdb", "show", "br", BRIDGE]);
        let rows = fdb.lines().filter(|l| l.starts_with(&g.mac_text)).map(|l| format!("fdb {}", l.trim()));
        let neigh = run("ip", &["neigh", "show", "dev", BRIDGE, "to", &g.ip]);
        let neigh = neigh.lines().map(|l| format!("neigh {}", l.trim()));
        rows.chain(neigh).collect()
    }
}

/// First address of an interface that others can use.
fn address_of(namespace: &str, interface: &str) -> Result<String> {
    let rows = iproute::json("ip", namespace, &["address", "show", "dev", interface])?;
    let all = rows.first().and_then(|r| r["addr_info"].as_array()).cloned().unwrap_or_default();
    all.iter()
        .filter(|a| a["scope"] == "global")
        .find_map(|a| a["local"].as_str().map(str::to_owned))
        .ok_or_else(|| Error::refused(format!("{namespace}:{interface} has no address")))
}

/// Index of a device.
pub(super) fn index_of(namespace: &str, device: &str) -> Option<u32> {
    let rows = iproute::json("ip", namespace, &["link", "show", "dev", device]).ok()?;
    rows.first()?["ifindex"].as_u64().map(|n| n as u32)
}

/// What vtepd does by itself, done for an FRR: bridge, VXLAN device, ports; then FRR on top.
pub(super) fn start_frr(lab: &mut Lab, fabric: &mut Fabric, name: &str) -> Result<()> {
    let v = fabric.vtep(name)?;
    let (namespace, address) = (v.namespace.clone(), v.address.clone());
    let number = address.rsplit('.').next().and_then(|n| n.parse::<u8>().ok()).unwrap_or(1);
    let mut lines = vec![
        format!(
            "link add name {BRIDGE} address 02:ff:00:00:00:{number:02x} type bridge stp_state 0 mcast_snooping 0"
        ),
        format!("link add name {VXLAN} type vxlan id {VNI} local {address} dstport 4789 nolearning"),
        format!("link set dev {BRIDGE} addrgenmode none mtu 1450"),
        format!("link set dev {VXLAN} addrgenmode none mtu 1450 master {BRIDGE}"),
    ];
    for vm in lab.state.vms.values() {
        if let Some(k) = vm.wiring.socket_at(name) {
            lines.push(format!("link set dev {} master {BRIDGE}", k.port.interface));
        }
    }
    iproute::ip_batch(Some(&namespace), &lines)?;
    netns::inside(&namespace, || {
        // PIT-02: the bridge is no host in the tenant's segment. FRR leaves this to the operator.
        [("ipv4/conf", "arp_ignore", "8"), ("ipv6/conf", "accept_ra", "0"), ("ipv6/conf", "autoconf", "0")]
            .into_iter()
            .try_for_each(|(tree, key, value)| {
                let path = format!("/proc/sys/net/{tree}/{BRIDGE}/{key}");
                std::fs::write(&path, value).map_err(Error::io(path))
            })
    })?;
    let up = [format!("link set dev {VXLAN} up"), format!("link set dev {BRIDGE} up")];
    iproute::ip_batch(Some(&namespace), &up)?;
    iproute::bridge_batch(
        Some(&namespace),
        &[format!("link set dev {VXLAN} neigh_suppress on learning off")],
    )?;
    let mut config = format!(
        "hostname {name}\nrouter bgp 65000\n bgp router-id {address}\n no bgp default ipv4-unicast\n"
    );
    let peers: Vec<_> = fabric.vteps.iter().filter(|o| o.name != name).map(|o| o.address.clone()).collect();
    for p in &peers {
        config.extend([
            format!(" neighbor {p} remote-as 65000\n"),
            format!(" neighbor {p} update-source {address}\n"),
            format!(" neighbor {p} timers connect 1\n"),
        ]);
    }
    config += " address-family l2vpn evpn\n";
    config.extend(peers.iter().map(|p| format!("  neighbor {p} activate\n")));
    config += "  advertise-all-vni\n exit-address-family\n";
    let directory = lab.state.directory.join("nodes").join(name).join("frr");
    let frr = FrrNode::start(&namespace, &directory, &config)?;
    for p in frr.processes() {
        lab.state.processes.push(crate::state::Tracked { node: name.to_owned(), process: p.clone() });
    }
    lab.state.save()?;
    if let Some(v) = fabric.vteps.iter_mut().find(|v| v.name == name) {
        v.frr = Some(frr);
    }
    Ok(())
}
