//! A network namespace of its own per test, on a thread of its own: nothing is left behind and tests do not
//! see each other.
#![allow(dead_code, clippy::unwrap_used, reason = "each test file uses its part, and tests may panic")]

use evpn::fabric::{DeviceWant, KernelEvent, PortWant, RowKey, Want, WriteResult};
use evpn::types::{IfIndex, Mac, Vni};
use netlink::linux::{Dataplane, DataplaneConfig, netns};
use std::net::IpAddr;
use std::process::Command;
use std::time::{Duration, Instant};

/// Runs `f` as root in a new network namespace. Without the right to make one: skipped, or failed under
/// CI=true.
pub(crate) fn in_netns(f: impl FnOnce() + Send + 'static) {
    let ran = netns::in_new(f).unwrap().join();
    match ran {
        Ok(Ok(())) => {}
        Ok(Err(e)) => unmet(&format!("cannot make a network namespace ({e}); run as root")),
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// What the test needs is not there.
pub(crate) fn unmet(why: &str) {
    assert!(std::env::var("CI").as_deref() != Ok("true"), "unmet under CI=true: {why}");
    println!("skipped: {why}");
}

/// Runs `ip …` in the namespace of this thread; panics with its output if it fails.
pub(crate) fn ip(args: &str) -> String {
    run("ip", args)
}

/// Runs `bridge …`.
pub(crate) fn bridge(args: &str) -> String {
    run("bridge", args)
}

fn run(tool: &str, args: &str) -> String {
    let out = Command::new(tool).args(args.split_whitespace()).output();
    let out = out.unwrap_or_else(|e| panic!("{tool}: {e} (install iproute2)"));
    let err = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{tool} {args}: {err}");
    String::from_utf8_lossy(&out.stdout).into_owned()
}

/// A veth pair `p` – `pg`: `p` for the bridge, `pg` is where the guest speaks. The host itself stays silent on
/// both.
pub(crate) fn port(name: &str) {
    let guest = format!("{name}g");
    ip(&format!("link add {name} type veth peer name {guest}"));
    quiet(name);
    quiet(&guest);
    // The guest's end is a device of this host too; it must not answer in the guest's place.
    std::fs::write(format!("/proc/sys/net/ipv4/conf/{guest}/arp_ignore"), "8").unwrap();
    ip(&format!("link set {name} up"));
    ip(&format!("link set {guest} up"));
}

/// No IPv6 on this device.
pub(crate) fn quiet(name: &str) {
    std::fs::write(format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6"), "1").unwrap();
}

/// Index of a device.
pub(crate) fn index(name: &str) -> IfIndex {
    let out = ip(&format!("-o link show dev {name}"));
    IfIndex(out.split(':').next().unwrap().parse().unwrap())
}

pub(crate) fn mac(n: u32) -> Mac {
    let [a, b, c, d] = n.to_be_bytes();
    Mac([2, 0, a, b, c, d])
}

pub(crate) fn vtep(n: u8) -> IpAddr {
    IpAddr::from([10, 0, 0, n])
}

/// VNI 100 with bridge `br100`, device `vx100` and these ports.
pub(crate) fn device(ports: &[&str]) -> DeviceWant {
    DeviceWant {
        vni: Vni::new(100).unwrap(),
        bridge: "br100".to_owned(),
        bridge_mac: Mac([2, 0xbb, 0, 0, 0, 1]),
        vxlan: "vx100".to_owned(),
        local: vtep(1),
        udp_port: 4789,
        mtu: None,
        fdb_limit: 0,
        arp_suppression: true,
        unicast_flood: None,
        ports: ports.iter().map(|p| PortWant { name: (*p).to_owned() }).collect(),
        gateway: None,
    }
}

/// The host's underlay: `u0` with 10.0.0.1, and `u1` on the other side, where tests listen and speak.
/// 10.0.0.2 to 10.0.0.9 are behind it.
pub(crate) fn underlay() {
    port("u0");
    ip("link set u0g name u1");
    ip("link set lo up");
    ip("addr add 10.0.0.1/24 dev u0");
    let far = ip("-o link show dev u1");
    let far = far.split("link/ether ").nth(1).unwrap().split(' ').next().unwrap().to_owned();
    for n in 2..10 {
        ip(&format!("neigh replace 10.0.0.{n} lladdr {far} dev u0 nud permanent"));
    }
    for dev in ["all", "u0"] {
        std::fs::write(format!("/proc/sys/net/ipv4/conf/{dev}/rp_filter"), "0").unwrap();
    }
}

/// A [`Dataplane`] with what it said so far.
pub(crate) struct Plane {
    #[allow(clippy::struct_field_names, reason = "it is one")]
    pub(crate) plane: Dataplane,
    pub(crate) want: Want,
    pub(crate) events: Vec<KernelEvent>,
    pub(crate) written: Vec<(RowKey, WriteResult)>,
}

impl Plane {
    pub(crate) fn open(devices: Vec<DeviceWant>) -> Self {
        let plane = Dataplane::open(DataplaneConfig { devices, ..DataplaneConfig::default() }).unwrap();
        Self { plane, want: Want::default(), events: Vec::new(), written: Vec::new() }
    }

    /// Open and read completely.
    pub(crate) fn synced(devices: Vec<DeviceWant>) -> Self {
        let mut p = Self::open(devices);
        p.until("the first complete read", |p| p.events.contains(&KernelEvent::Synced).then_some(()));
        p
    }

    /// One turn of the loop, waiting at most a few milliseconds.
    pub(crate) fn turn(&mut self) {
        self.plane.write(&mut self.want, &mut self.written).unwrap();
        wait(&[self.plane.monitor_fd(), self.plane.thread_fd()], 5);
        self.plane.drain(8192, &mut self.events, &mut self.written).unwrap();
    }

    /// Turns until `f` gives something, for at most ten seconds.
    pub(crate) fn until<T>(&mut self, what: &str, mut f: impl FnMut(&mut Self) -> Option<T>) -> T {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            if let Some(t) = f(self) {
                return t;
            }
            let problems = self.plane.problems().to_vec();
            let last = self.events.iter().rev().take(5).collect::<Vec<_>>();
            assert!(
                Instant::now() < deadline,
                "no {what} in time; problems {problems:?}; last events {last:?}; written {:?}; {:?}, {} overruns",
                self.written.last(),
                self.plane.counters(),
                self.plane.overruns()
            );
            self.turn();
        }
    }

    /// Until nothing is dirty and nothing is on its way.
    pub(crate) fn settle(&mut self) {
        self.until("settled state", |p| (!p.plane.has_work(&p.want) && !p.plane.busy()).then_some(()));
    }
}

/// Waits until one of the descriptors is readable.
pub(crate) fn wait(fds: &[i32], millis: i64) {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    use std::os::fd::BorrowedFd;
    // SAFETY: the descriptors belong to objects that outlive this call.
    #[allow(unsafe_code)]
    let borrowed: Vec<_> = fds.iter().map(|f| unsafe { BorrowedFd::borrow_raw(*f) }).collect();
    let mut polls: Vec<_> = borrowed.iter().map(|f| PollFd::new(f, PollFlags::IN)).collect();
    let _ = poll(&mut polls, Some(&Timespec { tv_sec: 0, tv_nsec: millis * 1_000_000 }));
}
