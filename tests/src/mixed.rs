//! A fabric where some VTEPs run vtepd and some run FRR. When the test fails, it shows what each of them, and the
//! kernel beside each, believed.

use crate::fabric::{ASN, Fabric, Guest, Vtep, frr_conf};
use crate::frr::Frr;
use crate::ns::Netns;
use crate::packet::Wire;
use crate::speaker::{Attributes, Speaker};
use crate::vtepd::{Conf, Vtepd};
use rustix::process::Signal;
use serde_json::Value;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

/// The fabric and what runs on it. VTEPs count from 0, as in [`Fabric::vteps`].
#[derive(Debug)]
pub struct Mixed {
    // Ended before the namespaces go.
    vtepd: BTreeMap<usize, Vtepd>,
    frr: BTreeMap<usize, Frr>,
    /// Underlay and VTEPs.
    pub fabric: Fabric,
}

impl Mixed {
    /// Nothing runs yet.
    pub fn new(fabric: Fabric) -> Self {
        Self { vtepd: BTreeMap::new(), frr: BTreeMap::new(), fabric }
    }

    /// vtepd on VTEP 0 and FRR on VTEP 1, iBGP, VNI 100 with port `p1` on both.
    pub fn pair() -> Self {
        let mut m = Self::new(Fabric::new(2));
        m.start_frr(1);
        m.start_vtepd(0);
        m
    }

    /// The same once both have sent each other everything.
    ///
    /// # Panics
    /// When they do not get there.
    pub fn converged_pair() -> Self {
        let m = Self::pair();
        m.converge();
        m
    }

    /// vtepd on two VTEPs, with these lines in their VNI; converged.
    ///
    /// # Panics
    /// When they do not get there.
    pub fn two_vtepds(vni_extra: &str) -> Self {
        let mut m = Self::new(Fabric::new(2));
        for i in [0, 1] {
            let mut conf = m.fabric.conf(i);
            conf.vni_extra = vni_extra.into();
            m.start_vtepd_with(i, &conf);
        }
        m.converge();
        m
    }

    /// Two vtepd, VTEPs 0 and 1, whose only neighbour is an FRR reflector, which is VTEP 2 itself; VNI 100 with port `p1` on
    /// all of them. `prepare`: what VTEP 2 needs before its FRR starts. Converged.
    ///
    /// # Panics
    /// When they do not get there.
    pub fn around_reflector(prepare: impl FnOnce(&Self)) -> Self {
        let mut m = Self::new(Fabric::new(3));
        let reflector = m.vtep(2).address;
        m.vtep(2).make_devices(100, &["p1"]);
        prepare(&m);
        let client = |i: usize| format!("  neighbor {} route-reflector-client\n", m.vtep(i).address);
        let extra = [0, 1].map(client).concat();
        let clients = [0, 1].map(|i| (m.vtep(i).address, ASN));
        m.start_frr_with(2, &frr_conf(ASN, 3, &clients, &extra));
        for i in [0, 1] {
            let mut conf = m.fabric.conf(i);
            conf.neighbors = vec![(reflector, ASN)];
            m.start_vtepd_with(i, &conf);
        }
        m.converge();
        m
    }

    /// Waits until every vtepd is converged and every FRR has all sessions up.
    ///
    /// # Panics
    /// When they do not get there.
    pub fn converge(&self) {
        for v in self.vtepd.values() {
            v.converge();
        }
    }

    /// Starts vtepd as [`Fabric::start_vtepd`] does.
    pub fn start_vtepd(&mut self, i: usize) {
        let v = self.fabric.start_vtepd(i);
        self.vtepd.insert(i, v);
    }

    /// Starts vtepd with this configuration.
    pub fn start_vtepd_with(&mut self, i: usize, conf: &Conf) {
        let v = Vtepd::start(&self.vtep(i).ns, conf);
        self.vtepd.insert(i, v);
    }

    /// Ends vtepd in good order.
    ///
    /// # Panics
    /// When none runs there, or it does not end well.
    pub fn stop_vtepd(&mut self, i: usize) {
        let mut v = self.vtepd.remove(&i).expect("vtepd runs there");
        let status = v.process.terminate(Duration::from_secs(10));
        assert!(status.success(), "{status}\n{}", v.process.log());
    }

    /// Ends vtepd for good: no peer is to keep its routes.
    ///
    /// # Panics
    /// When none runs there, or it does not end well.
    pub fn stop_vtepd_for_good(&mut self, i: usize) {
        let mut v = self.vtepd.remove(&i).expect("vtepd runs there");
        v.process.signal(Signal::QUIT);
        let status = v.process.wait(Duration::from_secs(10));
        assert!(status.success(), "{status}\n{}", v.process.log());
    }

    /// Ends vtepd in good order and starts it with another configuration.
    ///
    /// # Panics
    /// When none runs there.
    pub fn restart_vtepd_with(&mut self, i: usize, conf: &Conf) {
        let old = self.vtepd.remove(&i).expect("vtepd runs there");
        let new = old.restart(&self.vtep(i).ns, conf);
        self.vtepd.insert(i, new);
    }

    /// Starts FRR as [`Fabric::start_frr`] does: with the devices of VNI 100. Its kernel learns addresses from
    /// gratuitous ARP, as FRR's users are told to set it.
    pub fn start_frr(&mut self, i: usize) {
        let f = self.fabric.start_frr(i);
        self.frr.insert(i, f);
        self.accept_arp(i, 100);
    }

    /// Starts FRR with this bgpd configuration; devices are the caller's.
    pub fn start_frr_with(&mut self, i: usize, conf: &str) {
        let f = Frr::start(&self.vtep(i).ns, conf);
        self.frr.insert(i, f);
    }

    /// Ends FRR without a word to anybody (SIGKILL).
    ///
    /// # Panics
    /// When none runs there.
    pub fn kill_frr(&mut self, i: usize) {
        let mut f = self.frr.remove(&i).expect("FRR runs there");
        f.bgpd.kill();
        f.zebra.kill();
    }

    /// Ends vtepd without a word to anybody (SIGKILL).
    ///
    /// # Panics
    /// When none runs there.
    pub fn kill_vtepd(&mut self, i: usize) {
        drop(self.vtepd.remove(&i).expect("vtepd runs there").kill());
    }

    /// Kills vtepd (SIGKILL) and starts it again with its state directory.
    ///
    /// # Panics
    /// When none runs there, or it does not come up.
    pub fn kill_and_start_vtepd(&mut self, i: usize, conf: &Conf) {
        let dir = self.vtepd.remove(&i).expect("vtepd runs there").kill();
        let v = Vtepd::start_again(&self.vtep(i).ns, conf, dir);
        self.vtepd.insert(i, v);
    }

    /// vtepd on VTEPs 0 and 2, FRR on VTEP 1, with `change` made to vtepd's configuration; all have sent each other
    /// everything.
    ///
    /// # Panics
    /// When they do not get there.
    pub fn two_and_frr(change: impl Fn(&mut Conf)) -> Self {
        let mut m = Self::new(Fabric::new(3));
        m.start_frr(1);
        for i in [0, 2] {
            let mut conf = m.fabric.conf(i);
            change(&mut conf);
            m.start_vtepd_with(i, &conf);
        }
        m.converge();
        m
    }

    /// FRR learns addresses from the kernel's neighbour table only, which by default ignores gratuitous ARP.
    pub fn accept_arp(&self, i: usize, vni: u32) {
        self.vtep(i).ns.sh(&format!("echo 1 > /proc/sys/net/ipv4/conf/br{vni}/arp_accept"));
    }

    /// The vtepd on a VTEP.
    ///
    /// # Panics
    /// When none runs there.
    pub fn vtepd(&self, i: usize) -> &Vtepd {
        self.vtepd.get(&i).expect("vtepd runs there")
    }

    /// The FRR on a VTEP.
    ///
    /// # Panics
    /// When none runs there.
    pub fn frr(&self, i: usize) -> &Frr {
        self.frr.get(&i).expect("FRR runs there")
    }

    /// A VTEP.
    pub fn vtep(&self, i: usize) -> &Vtep {
        &self.fabric.vteps[i]
    }

    /// The far end of a VTEP's first port.
    pub fn guest(&self, i: usize) -> Wire {
        self.fabric.guest_port(i, "p1")
    }

    /// Routes that a vtepd holds of a type and a neighbour (`None`: its own).
    pub fn routes(&self, i: usize, kind: u64, from: Option<usize>) -> Vec<Value> {
        let from = from.map_or(Value::Null, |f| self.vtep(f).address.to_string().into());
        let mut rows = self.vtepd(i).show("routes", &[]);
        rows.retain(|r| r["route_type"] == kind && r["from"] == from);
        rows
    }

    /// Type-2 routes of a guest that a vtepd holds from a neighbour (`None`: its own): MAC-only, MAC+IP.
    pub fn guest_routes(&self, i: usize, from: Option<usize>, g: &Guest) -> [Option<Value>; 2] {
        let (mac, ip) = (g.mac.to_string(), g.ip.to_string());
        let of_mac: Vec<_> = self
            .routes(i, 2, from)
            .into_iter()
            .filter(|r| r["route"].as_str().is_some_and(|s| s.contains(&mac)))
            .collect();
        let has_ip = |r: &&Value| r["route"].as_str().is_some_and(|s| s.contains(&ip));
        [of_mac.iter().find(|r| !has_ip(r)).cloned(), of_mac.iter().find(has_ip).cloned()]
    }

    fn dump(&self) {
        for (i, v) in &self.vtepd {
            println!("==== vtepd on VTEP {i} ({})", self.vtep(*i).address);
            for table in ["status", "neighbors", "vnis", "macs", "hosts", "routes", "moves", "kernel"] {
                println!("-- show {table}\n{}", v.show_text(table));
            }
        }
        for (i, f) in &self.frr {
            println!("==== FRR on VTEP {i} ({})", self.vtep(*i).address);
            for c in [
                "show bgp l2vpn evpn summary",
                "show bgp l2vpn evpn route",
                "show evpn vni detail",
                "show evpn mac vni all detail",
                "show evpn arp-cache vni all detail",
            ] {
                println!("-- {c}\n{}", f.try_vty(&[c]).unwrap_or_else(|e| e));
            }
        }
        for v in &self.fabric.vteps {
            println!("==== kernel of VTEP {} ({})", v.number - 1, v.address);
            for c in ["bridge fdb show", "ip neigh show nud all", "ip -br link", "ss -tn"] {
                println!("-- {c}\n{}", v.ns.try_sh(c).unwrap_or_else(|e| e));
            }
        }
    }
}

impl Drop for Mixed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.dump();
        }
    }
}

/// A VTEP that is a scripted speaker with several sessions and says the same on all of them.
#[derive(Debug)]
pub struct Voices(Vec<Speaker>);

impl Voices {
    /// Waits for `n` neighbours to connect, all iBGP in AS 65000.
    ///
    /// # Panics
    /// When they do not.
    pub fn accept(ns: &Netns, address: IpAddr, n: usize) -> Self {
        Self((0..n).map(|_| Speaker::accept(ns, address, 65000)).collect())
    }

    /// Announces routes.
    pub fn announce(&self, at: &Attributes, nlri: &[Vec<u8>]) {
        self.0.iter().for_each(|s| s.announce(at, nlri));
    }

    /// Withdraws routes.
    pub fn withdraw(&self, nlri: &[Vec<u8>]) {
        self.0.iter().for_each(|s| s.withdraw(nlri));
    }

    /// End-of-RIB.
    pub fn end_of_rib(&self) {
        self.0.iter().for_each(Speaker::end_of_rib);
    }

    /// Every session is up.
    ///
    /// # Panics
    /// When one is not.
    pub fn assert_up(&self) {
        for s in &self.0 {
            assert!(s.is_up(), "the peer said {:?}", s.notified());
        }
    }
}
