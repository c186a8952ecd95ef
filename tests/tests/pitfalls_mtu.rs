//! MTU faults hide (PIT-11): a WAN that is just large enough, and one that is not.

use serde_json::Value;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};
use vtepd_tests::need::{Need, met};
use vtepd_tests::ns::Netns;
use vtepd_tests::poll::{LATER, eventually};
use vtepd_tests::vtepd::{Conf, Vtepd};

/// Octets that cross in each direction of each TCP test.
const STREAM: usize = 1 << 20;

/// Two VTEPs with a VM each, two routers between them.
///
/// ```text
///   VM ─ p1 VTEP 1 u0 ── r1 ══ WAN ══ r2 ── u0 VTEP 2 p1 ─ VM
/// ```
struct Wan {
    vteps: [Netns; 2],
    vms: [Netns; 2],
    _routers: [Netns; 2],
    daemons: [Vtepd; 2],
}

fn address(v6: bool, n: usize) -> IpAddr {
    let text = if v6 { format!("fd00:{n}::1") } else { format!("10.{n}.0.1") };
    text.parse().expect("an address")
}

fn wan(v6: bool, wan_mtu: u32, vni_mtu: u32) -> Wan {
    let names = ["1", "2"];
    let vteps = names.map(|n| Netns::new(&format!("v{n}")));
    let vms = names.map(|n| Netns::new(&format!("vm{n}")));
    let routers = names.map(|n| Netns::new(&format!("r{n}")));
    for r in &routers {
        r.sh("echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/ipv6/conf/all/forwarding");
    }
    routers[0].sh(&format!("ip link add wan type veth peer name wan netns {}", routers[1].name()));
    for i in 0..2 {
        let (n, other) = (i + 1, 2 - i);
        let (v, r, vm) = (&vteps[i], &routers[i], &vms[i]);
        v.sh(&format!("ip link add u0 type veth peer name d0 netns {} && ip link set u0 up", r.name()));
        r.sh(&format!("ip link set d0 up && ip link set wan mtu {wan_mtu} up"));
        if v6 {
            r.sh(&format!(
                "ip addr add fd00:{n}::fe/64 dev d0 nodad && ip addr add fd00:9::{n}/64 dev wan nodad
                           ip route add fd00:{other}::/64 via fd00:9::{other}"
            ));
            v.sh(&format!(
                "ip addr add fd00:{n}::1/64 dev u0 nodad && ip route add default via fd00:{n}::fe"
            ));
        } else {
            r.sh(&format!(
                "ip addr add 10.{n}.0.254/24 dev d0 && ip addr add 10.9.0.{n}/24 dev wan
                           ip route add 10.{other}.0.0/24 via 10.9.0.{other}"
            ));
            v.sh(&format!("ip addr add 10.{n}.0.1/24 dev u0 && ip route add default via 10.{n}.0.254"));
        }
        v.sh(&format!("ip link add p1 type veth peer name eth0 netns {} && ip link set p1 up", vm.name()));
        vm.sh(&format!(
            "ip link set eth0 address 02:00:00:00:00:0{n} mtu {vni_mtu} && ip link set eth0 up
             ip addr add 192.168.100.{n}/24 dev eth0 && ip addr add fd00:100::{n}/64 dev eth0 nodad"
        ));
    }
    let daemons = [0, 1].map(|i| {
        let mut conf = Conf::new(address(v6, i + 1), &[address(v6, 2 - i)]);
        conf.router_id = Some(format!("192.0.2.{}", i + 1));
        conf.vni_extra = format!("mtu = {vni_mtu}");
        Vtepd::start(&vteps[i], &conf)
    });
    for d in &daemons {
        d.converge();
    }
    Wan { vteps, vms, _routers: routers, daemons }
}

impl Wan {
    fn problems(&self, i: usize) -> Vec<String> {
        let vnis = self.daemons[i].show("vnis", &[]);
        let list = vnis.first().and_then(|v| v["problems"].as_array().cloned()).unwrap_or_default();
        list.iter().filter_map(|p| p.as_str().map(str::to_owned)).collect()
    }

    fn reach(&self) {
        eventually(LATER, "the VMs reach each other", || {
            self.vms[0].try_sh("ping -n -c 1 -W 1 192.168.100.2 && ping -n -c 1 -W 1 fd00:100::2")
        });
    }

    /// Sends [`STREAM`] octets from VM `from` to the other; how long it took.
    fn stream(&self, from: usize, to_address: IpAddr) -> Duration {
        let to = 1 - from;
        let listener = self.vms[to].enter(|| TcpListener::bind((to_address, 5001)).expect("bound"));
        let begun = Instant::now();
        std::thread::scope(|s| {
            let reader = s.spawn(move || {
                let (mut c, _) = listener.accept().expect("accepted");
                c.set_read_timeout(Some(LATER)).expect("set");
                let mut all = Vec::with_capacity(STREAM);
                c.read_to_end(&mut all).map(|_| all)
            });
            let to = SocketAddr::new(to_address, 5001);
            let mut c = self.vms[from].enter(|| TcpStream::connect_timeout(&to, LATER).expect("connected"));
            c.set_write_timeout(Some(LATER)).expect("set");
            let sent: Vec<u8> = (0..STREAM).map(|i| (i % 251) as u8).collect();
            c.write_all(&sent).expect("the stream is taken");
            drop(c);
            let got = reader.join().expect("the reader ends").expect("the stream ends in order");
            assert!(got == sent, "{} of {} octets arrived, or others", got.len(), sent.len());
        });
        begun.elapsed()
    }

    fn streams(&self, what: &str) {
        for (from, to) in [(0, "192.168.100.2"), (1, "192.168.100.1"), (0, "fd00:100::2"), (1, "fd00:100::1")]
        {
            let took = self.stream(from, to.parse().expect("an address"));
            println!("PIT-11: {what}: 1 MiB to {to} in {:.0} ms", took.as_secs_f64() * 1e3);
        }
    }
}

fn just_large_enough(v6: bool, vni_mtu: u32) {
    let w = wan(v6, 1500, vni_mtu);
    w.reach();
    // Whole packets with DF, both ways.
    for (i, to) in [(0, 2), (1, 1)] {
        let size = vni_mtu - 28;
        w.vms[i].sh(&format!("ping -n -M do -s {size} -c 2 -W 5 192.168.100.{to}"));
        let size = vni_mtu - 48;
        w.vms[i].sh(&format!("ping -n -M do -s {size} -c 2 -W 5 fd00:100::{to}"));
    }
    w.streams("WAN of 1500");
    for i in 0..2 {
        assert_eq!(w.problems(i), Vec::<String>::new());
        let link = w.vteps[i].json("ip -j link show dev br100");
        assert_eq!(link[0]["mtu"], vni_mtu, "the bridge has a fixed MTU");
    }
}

fn too_small(v6: bool, vni_mtu: u32) {
    let w = wan(v6, 1400, vni_mtu);
    let needs = vni_mtu + if v6 { 70 } else { 50 };
    for i in 0..2 {
        let far = address(v6, 2 - i).to_string();
        // Nobody has sent anything large yet: the daemon's own probe finds it.
        eventually(LATER, "the alarm is in `show vnis`", || {
            let p = w.problems(i);
            let named =
                p.iter().any(|p| p.contains(&far) && p.contains("1400") && p.contains(&needs.to_string()));
            if named { Ok(()) } else { Err(p) }
        });
        let events = w.daemons[i].show("events", &[]);
        let told = |e: &Value| {
            e["event"] == "device-problem" && e["problem"].as_str().is_some_and(|p| p.contains("path MTU"))
        };
        assert!(events.iter().any(told), "and told as an event: {events:#?}");
    }
    w.reach();
    w.streams("hop of 1400");
}

#[test]
fn a_wan_of_1500_carries_1450_in_the_vni_without_an_alarm_over_ipv4() {
    if met(&[Need::Root, Need::Tool("ping")]) {
        just_large_enough(false, 1450);
    }
}

#[test]
fn a_wan_of_1500_carries_1430_in_the_vni_without_an_alarm_over_ipv6() {
    if met(&[Need::Root, Need::Tool("ping")]) {
        just_large_enough(true, 1430);
    }
}

#[test]
fn a_hop_of_1400_raises_the_alarm_and_tcp_survives_by_path_mtu_discovery_over_ipv4() {
    if met(&[Need::Root, Need::Tool("ping")]) {
        too_small(false, 1450);
    }
}

#[test]
fn a_hop_of_1400_raises_the_alarm_and_tcp_survives_by_path_mtu_discovery_over_ipv6() {
    if met(&[Need::Root, Need::Tool("ping")]) {
        too_small(true, 1430);
    }
}
