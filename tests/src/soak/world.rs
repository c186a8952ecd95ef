//! The nodes and the VMs of a soak: three vtepd, one FRR, and a port for each VM at each of them.

use crate::fabric::{Fabric, frr_conf};
use crate::frame;
use crate::frr::Frr;
use crate::packet::Wire;
use crate::poll::{LATER, eventually, same};
use crate::tables::Tables;
use crate::vtepd::Vtepd;
use evpn::types::Mac;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

/// The VNI of a soak.
pub(super) const VNI: u32 = 100;
/// VTEP that runs FRR, where there is one.
const FRR: usize = 3;

/// A VM, and where it truly is.
#[derive(Clone, Debug)]
pub(super) struct Vm {
    pub(super) number: usize,
    pub(super) mac: Mac,
    pub(super) ip: Ipv4Addr,
    /// Its port, of the same name on every VTEP.
    pub(super) port: String,
    /// The VTEP; `None`: shut down.
    pub(super) home: Option<usize>,
    /// The fabric can know its address: it told it where somebody listens.
    pub(super) ip_known: bool,
    /// A MAC that it had before and that is still on the port of its old home.
    pub(super) ghost: Option<(Mac, usize)>,
}

/// A VTEP.
#[derive(Debug)]
pub(super) struct Node {
    daemon: Daemon,
    pub(super) tables: Tables,
    /// Names by index.
    pub(super) devices: BTreeMap<u32, String>,
    /// Far ends of the VMs' ports.
    pub(super) wires: Vec<Wire>,
}

#[derive(Debug)]
enum Daemon {
    Vtepd(Box<Vtepd>),
    Frr(Box<Frr>),
}

/// All of it.
#[derive(Debug)]
pub(super) struct World {
    // Ended before the namespaces go.
    pub(super) nodes: Vec<Node>,
    pub(super) fabric: Fabric,
}

impl World {
    /// Three vtepd and, if asked for, one FRR, full mesh, with ports for so many VMs.
    pub(super) fn new(vms: usize, frr: bool) -> Self {
        let fabric = Fabric::new(if frr { FRR + 1 } else { FRR });
        let ports: Vec<String> = (0..vms).map(port_name).collect();
        let names: Vec<&str> = ports.iter().map(String::as_str).collect();
        let mut daemons = Vec::new();
        for (i, v) in fabric.vteps.iter().enumerate() {
            for p in &ports {
                v.add_port(&fabric.guests, p);
            }
            v.make_devices(VNI, &names);
            // VMs that are not moved for long say nothing; they must not age out.
            v.ns.sh(&format!("ip link set br{VNI} type bridge ageing_time 3600000"));
            daemons.push(if i == FRR {
                // Without it FRR hears no address but by a request for one of its own.
                v.ns.sh(&format!("echo 1 > /proc/sys/net/ipv4/conf/br{VNI}/arp_accept"));
                let neighbors: Vec<_> = fabric.others(v).into_iter().map(|a| (a, 65000)).collect();
                Daemon::Frr(Box::new(Frr::start(&v.ns, &frr_conf(65000, v.number, &neighbors, ""))))
            } else {
                let mut conf = fabric.conf(i);
                conf.vnis = vec![(VNI, ports.clone())];
                Daemon::Vtepd(Box::new(Vtepd::start(&v.ns, &conf)))
            });
        }
        let others = fabric.vteps.len() - 1;
        for v in &fabric.vteps {
            eventually(LATER, "everybody floods to everybody", || same(v.flood_list(VNI).len(), others));
        }
        let nodes = daemons.into_iter().zip(&fabric.vteps).map(|(daemon, v)| Node {
            daemon,
            tables: Tables::open(&v.ns),
            devices: ports
                .iter()
                .map(String::as_str)
                .chain(["vx100", "br100", "p1"])
                .map(|d| (v.ns.index(d), d.to_owned()))
                .collect(),
            wires: ports.iter().map(|p| Wire::open(&fabric.guests, &format!("x{}{p}", v.number))).collect(),
        });
        Self { nodes: nodes.collect(), fabric }
    }

    /// The VMs, none of which runs yet.
    pub(super) fn vms(n: usize) -> Vec<Vm> {
        let vm = |number: usize| Vm {
            number,
            mac: vm_mac(number, 0),
            ip: Ipv4Addr::new(192, 168, 100, number as u8 + 1),
            port: port_name(number),
            home: None,
            ip_known: false,
            ghost: None,
        };
        (0..n).map(vm).collect()
    }

    pub(super) fn frr(&self, i: usize) -> Option<&Frr> {
        match &self.nodes[i].daemon {
            Daemon::Frr(f) => Some(f),
            Daemon::Vtepd(_) => None,
        }
    }

    pub(super) fn vtepd(&self, i: usize) -> Option<&Vtepd> {
        match &self.nodes[i].daemon {
            Daemon::Vtepd(v) => Some(v),
            Daemon::Frr(_) => None,
        }
    }

    /// Places of the vtepd.
    pub(super) fn vtepds(&self) -> impl Iterator<Item = usize> {
        (0..self.nodes.len()).filter(|i| self.vtepd(*i).is_some())
    }

    pub(super) fn socket(&self, i: usize) -> PathBuf {
        self.vtepd(i).map(Vtepd::socket).unwrap_or_default()
    }

    pub(super) fn address(&self, i: usize) -> IpAddr {
        self.fabric.vteps[i].address
    }

    pub(super) fn name(&self, i: usize) -> String {
        let what = if self.frr(i).is_some() { "FRR" } else { "vtepd" };
        format!("VTEP {} ({what})", i + 1)
    }

    /// The VM says something at a VTEP.
    pub(super) fn say(&self, at: usize, vm: &Vm, frame: &[u8]) {
        self.nodes[at].wires[vm.number].send(frame);
    }

    /// The VM's port at a VTEP goes away and comes back empty.
    pub(super) fn pull(&self, at: usize, vm: &Vm) {
        self.fabric.vteps[at].pull_port(&self.fabric.guests, &vm.port);
    }

    /// Resident memory of every vtepd in kB.
    pub(super) fn resident_kb(&self) -> Vec<u64> {
        let daemons = (0..self.nodes.len()).filter_map(|i| self.vtepd(i));
        daemons.map(|v| v.process.memory_kb("VmRSS").unwrap_or(0)).collect()
    }

    /// Answers for the VMs what is asked of them by ARP, each where it truly is, until told to stop.
    pub(super) fn answer(&self, vms: &Mutex<Vec<Vm>>, stop: &AtomicBool) {
        let all: Vec<(usize, usize, &Wire)> = self
            .nodes
            .iter()
            .enumerate()
            .flat_map(|(i, n)| n.wires.iter().enumerate().map(move |(k, w)| (i, k, w)))
            .collect();
        while !stop.load(Ordering::Relaxed) {
            let mut fds: Vec<_> = all.iter().map(|(_, _, w)| PollFd::new(*w, PollFlags::IN)).collect();
            let limit = Timespec { tv_sec: 0, tv_nsec: 200_000_000 };
            if !matches!(poll(&mut fds, Some(&limit)), Ok(1..)) {
                continue;
            }
            let ready: Vec<bool> = fds.iter().map(|f| f.revents().contains(PollFlags::IN)).collect();
            drop(fds);
            for ((at, number, wire), _) in all.iter().zip(ready).filter(|(_, r)| *r) {
                while let Some((_, f)) = wire.poll() {
                    let vm = vms.lock().expect("nobody panics with the lock held")[*number].clone();
                    if vm.home == Some(*at)
                        && let Some(asker) = asks_for(&f, vm.ip)
                        && asker.0 != vm.mac
                    {
                        wire.send(&frame::arp_reply((vm.mac, vm.ip), asker));
                    }
                }
            }
        }
    }
}

/// Who asks in this frame for an IP, by an ARP request that is not gratuitous.
fn asks_for(f: &[u8], ip: Ipv4Addr) -> Option<(Mac, Ipv4Addr)> {
    let b = f.get(..42)?;
    let asks =
        b[12..14] == [8, 6] && b[20..22] == [0, 1] && b[38..42] == ip.octets() && b[28..32] != b[38..42];
    asks.then_some(())?;
    let from: [u8; 4] = b[28..32].try_into().ok()?;
    Some((Mac::from_slice(&b[22..28])?, from.into()))
}

fn port_name(vm: usize) -> String {
    format!("g{vm}")
}

/// The `n`-th MAC that a VM has had.
pub(super) fn vm_mac(vm: usize, n: u32) -> Mac {
    let [_, a, b, c] = n.to_be_bytes();
    Mac([2, 0x50, vm as u8, a, b, c])
}
