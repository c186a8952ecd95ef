//! The two kernels behind one face, with names instead of indexes.
#![allow(clippy::unwrap_used, reason = "test helpers may panic")]

use crate::common::{Plane, device, index, ip, mac, port, underlay, vtep, wait};
use evpn::fabric::{FdbRow, KernelEvent};
use evpn::types::{IfIndex, Mac, Vni};
use netlink::fake::{FakeKernel, Out};
use netlink::linux::dump::Reader;
use netlink::linux::{Interest, Monitor, Tap, Writer};
use netlink::{Kernel, Op, OpResult};
use std::net::Ipv6Addr;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

/// Where a frame came out.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Where {
    Port(u8),
    Vtep(u8),
}

/// A bridge with ports 1 and 2 and a suppressing VXLAN port.
pub(crate) trait World {
    fn vxlan(&self) -> IfIndex;
    fn bridge(&self) -> IfIndex;
    fn port(&self, n: u8) -> IfIndex;
    fn op(&mut self, op: Op) -> OpResult;
    /// Where the frame, or an answer to it, came out, in order.
    fn inject(&mut self, port: u8, frame: &[u8]) -> Vec<Where>;
    fn inject_vxlan(&mut self, vtep: u8, frame: &[u8]) -> Vec<Where>;
    fn carrier(&mut self, port: u8, on: bool);
    fn bridge_mac(&mut self, mac: Mac);
    /// Rows of a host's MAC.
    fn rows(&mut self, n: u32) -> Vec<String>;
    /// Notifications about hosts since the last call, sorted.
    fn events(&mut self) -> Vec<String>;
    /// All frames with their octets, rows and events so far.
    fn transcript(&self) -> &[String];
}

/// Used to see that everything before has come through; not shown.
const FENCE: u32 = 0xfe00_0000;
const FENCE_VTEP: u8 = 9;

fn host(m: Mac) -> Option<u32> {
    let [2, 0, a, b, c, d] = m.0 else { return None };
    let n = u32::from_be_bytes([a, b, c, d]);
    (n < 0x1000).then_some(n)
}

fn show_row(row: &FdbRow, vxlan: IfIndex, ports: [IfIndex; 2]) -> Option<(u32, String)> {
    let mut out;
    let n = match row {
        FdbRow::Bridge(r) => {
            let n = host(r.mac)?;
            out = if r.port == vxlan {
                "br vx".to_owned()
            } else if r.port == r.bridge {
                "br own".to_owned()
            } else {
                format!("br port{}", ports.iter().position(|p| *p == r.port)? + 1)
            };
            for (on, s) in [
                (r.ext_learned, " ext"),
                (r.sticky, " sticky"),
                (r.is_static, " static"),
                (r.permanent, " perm"),
            ] {
                if on {
                    out += s;
                }
            }
            n
        }
        FdbRow::Vxlan(r) => {
            let n = host(r.mac)?;
            let last = r.vtep?.to_string().rsplit('.').next()?.to_owned();
            out = format!("self {last}");
            if r.ext_learned {
                out += " ext";
            }
            n
        }
    };
    Some((n, out))
}

fn show_event(ev: &KernelEvent, vxlan: IfIndex, ports: [IfIndex; 2]) -> Option<String> {
    match ev {
        KernelEvent::Fdb(r) => show_row(r, vxlan, ports).map(|(n, s)| format!("fdb {n} {s}")),
        KernelEvent::FdbGone(r) => show_row(r, vxlan, ports).map(|(n, s)| format!("gone {n} {s}")),
        KernelEvent::Neigh(r) => Some(format!("neigh {} {}", r.ip, host(r.mac?)?)),
        KernelEvent::NeighGone(r) => Some(format!("gone {} {}", r.ip, r.mac.and_then(host)?)),
        KernelEvent::Overrun => Some("overrun".to_owned()),
        KernelEvent::Link(_)
        | KernelEvent::LinkGone(_)
        | KernelEvent::NeighAsked { .. }
        | KernelEvent::Synced => None,
    }
}

fn hex(b: &[u8]) -> String {
    b.iter().fold(String::new(), |s, o| s + &format!("{o:02x}"))
}

pub(crate) struct Fake {
    k: FakeKernel,
    vxlan: IfIndex,
    bridge: IfIndex,
    ports: [IfIndex; 2],
    log: Vec<String>,
}

impl Fake {
    pub(crate) fn new() -> Self {
        let mut k = FakeKernel::new();
        let bridge = k.add_bridge("br100", Mac([2, 0xbb, 0, 0, 0, 1]));
        let vxlan = k.add_vxlan("vx100", Vni::new(100).unwrap(), vtep(1), bridge, true);
        let ports = [1, 2].map(|n| k.add_port(&format!("p{n}"), Mac([6, 0, 0, 0, 0, n]), bridge));
        k.recv(usize::MAX, &mut Vec::new());
        Self { k, vxlan, bridge, ports, log: Vec::new() }
    }

    fn came_out(&mut self, frames: Vec<(Out, Vec<u8>)>) -> Vec<Where> {
        let mut out: Vec<(Where, Vec<u8>)> = frames
            .into_iter()
            .map(|(o, f)| match o {
                Out::Port(p) => (Where::Port(self.ports.iter().position(|q| *q == p).unwrap() as u8 + 1), f),
                Out::Vtep(_, v) => {
                    (Where::Vtep(v.to_string().rsplit('.').next().unwrap().parse().unwrap()), f)
                }
            })
            .collect();
        out.sort();
        self.log.extend(out.iter().map(|(w, f)| format!("{w:?} {}", hex(f))));
        out.into_iter().map(|(w, _)| w).collect()
    }
}

impl World for Fake {
    fn vxlan(&self) -> IfIndex {
        self.vxlan
    }
    fn bridge(&self) -> IfIndex {
        self.bridge
    }
    fn port(&self, n: u8) -> IfIndex {
        self.ports[usize::from(n) - 1]
    }
    fn op(&mut self, op: Op) -> OpResult {
        let mut results = Vec::new();
        self.k.apply(&[op], &mut results);
        results.remove(0)
    }
    fn inject(&mut self, port: u8, frame: &[u8]) -> Vec<Where> {
        let port = self.port(port);
        let frames = self.k.inject(port, frame);
        self.came_out(frames)
    }
    fn inject_vxlan(&mut self, from: u8, frame: &[u8]) -> Vec<Where> {
        let frames = self.k.inject_vxlan(self.vxlan, vtep(from), frame);
        self.came_out(frames)
    }
    fn carrier(&mut self, port: u8, on: bool) {
        let port = self.port(port);
        self.k.set_carrier(port, on);
    }
    fn bridge_mac(&mut self, mac: Mac) {
        self.k.change(self.bridge, |l| l.mac = mac);
    }
    fn rows(&mut self, n: u32) -> Vec<String> {
        let (vxlan, ports) = (self.vxlan, self.ports);
        let rows = self.k.snapshot();
        let out: Vec<String> = rows
            .iter()
            .filter_map(|r| show_row(r, vxlan, ports).filter(|(m, _)| *m == n).map(|(_, s)| s))
            .collect();
        self.log.push(format!("rows {n} {out:?}"));
        out
    }
    fn events(&mut self) -> Vec<String> {
        let mut all = Vec::new();
        self.k.recv(usize::MAX, &mut all);
        let mut out: Vec<String> = all.iter().filter_map(|e| show_event(e, self.vxlan, self.ports)).collect();
        out.sort();
        self.log.push(format!("events {out:?}"));
        out
    }
    fn transcript(&self) -> &[String] {
        &self.log
    }
}

pub(crate) struct Real {
    writer: Writer,
    reader: Reader,
    monitor: Monitor,
    interest: Interest,
    vxlan: IfIndex,
    bridge: IfIndex,
    ports: [IfIndex; 2],
    guests: [Tap; 2],
    wire: Tap,
    u0: [u8; 6],
    u1: [u8; 6],
    fences: u8,
    up: [bool; 2],
    pending: Vec<KernelEvent>,
    log: Vec<String>,
}

fn address(dev: &str) -> [u8; 6] {
    let out = ip(&format!("-o link show dev {dev}"));
    let text = out.split("link/ether ").nth(1).unwrap().split(' ').next().unwrap();
    text.parse::<Mac>().unwrap().0
}

impl Real {
    pub(crate) fn new() -> Self {
        underlay();
        port("p1");
        port("p2");
        let wants = vec![device(&["p1", "p2"])];
        let plane = Plane::synced(wants.clone());
        assert_eq!(plane.plane.problems(), &[]);
        plane.plane.stop(false).unwrap();
        let (bridge, vxlan) = (index("br100"), index("vx100"));
        let ports = [index("p1"), index("p2")];
        let guests = [index("p1g"), index("p2g")].map(|i| Tap::open_all(i).unwrap());
        let wire = Tap::open_all(index("u1")).unwrap();
        let mut reader = Reader::open().unwrap();
        let mut interest = Interest::devices(&wants);
        let mut monitor = Monitor::open(interest.clone()).unwrap();
        for l in reader.links().unwrap() {
            interest.note(&l);
            monitor.note_link(&l);
        }
        let mut new = Self {
            writer: Writer::open().unwrap(),
            reader,
            monitor,
            interest,
            vxlan,
            bridge,
            ports,
            guests,
            wire,
            u0: address("u0"),
            u1: address("u1"),
            fences: 0,
            up: [true; 2],
            pending: Vec::new(),
            log: Vec::new(),
        };
        new.op(Op::SetRemote { vxlan, mac: mac(FENCE), vtep: vtep(FENCE_VTEP) }).unwrap();
        new.fence();
        new
    }

    /// Sends marked frames over every path, and takes all frames up to the last of them.
    fn fence(&mut self) -> Vec<(Where, Vec<u8>)> {
        self.fences = self.fences.wrapping_add(1);
        let mark = self.fences;
        let fence_frame = |to: Mac, from: u32| {
            let mut f = frame(to, mac(FENCE + from), mark);
            f[12..14].copy_from_slice(&[0x88, 0xb6]);
            f
        };
        for (i, g) in self.guests.iter().enumerate() {
            // A port without carrier drops it; then nothing can be on its way there either.
            let _ = g.send(&fence_frame(Mac::BROADCAST, i as u32 + 1));
            let _ = g.send(&fence_frame(mac(FENCE), i as u32 + 1));
        }
        let both = self.up[0] && self.up[1];
        let senders = self.up.iter().filter(|u| **u).count();
        let mut out = Vec::new();
        let (mut at_guests, mut at_wire) = (0, 0);
        let deadline = Instant::now() + Duration::from_secs(5);
        while at_wire < senders || at_guests < if both { 2 } else { 0 } {
            assert!(Instant::now() < deadline, "fence {mark}: {at_guests} at guests, {at_wire} on the wire");
            wait(&[self.guests[0].as_raw_fd(), self.guests[1].as_raw_fd(), self.wire.as_raw_fd()], 5);
            let mut buf = [0; 2048];
            for i in 0..2 {
                while let Some(n) = self.guests[i].recv(&mut buf).unwrap() {
                    let f = &buf[..n];
                    if f.get(12..14) == Some(&[0x88, 0xb6]) {
                        at_guests += usize::from(f[14] == mark);
                    } else {
                        out.push((Where::Port(i as u8 + 1), f.to_vec()));
                    }
                }
            }
            while let Some(n) = self.wire.recv(&mut buf).unwrap() {
                let f = &buf[..n];
                // Ethernet, IPv4 without options, UDP to 4789, VXLAN.
                if n < 64 || f[12..14] != [8, 0] || f[23] != 17 || f[36..38] != 4789u16.to_be_bytes() {
                    continue;
                }
                assert_eq!(f[46..49], [0, 0, 100], "VNI on the wire");
                assert!(u16::from_be_bytes([f[34], f[35]]) >= 49152, "source port (PIT-12)");
                assert_eq!(f[20] & 0x40, 0x40, "DF set (PIT-11)");
                let inner = &f[50..];
                if inner.get(12..14) == Some(&[0x88, 0xb6]) {
                    at_wire += usize::from(inner[14] == mark && f[33] == FENCE_VTEP);
                } else {
                    out.push((Where::Vtep(f[33]), inner.to_vec()));
                }
            }
        }
        out.sort();
        out
    }

    fn came_out(&mut self) -> Vec<Where> {
        let out = self.fence();
        self.log.extend(out.iter().map(|(w, f)| format!("{w:?} {}", hex(f))));
        out.into_iter().map(|(w, _)| w).collect()
    }
}

impl World for Real {
    fn vxlan(&self) -> IfIndex {
        self.vxlan
    }
    fn bridge(&self) -> IfIndex {
        self.bridge
    }
    fn port(&self, n: u8) -> IfIndex {
        self.ports[usize::from(n) - 1]
    }
    fn op(&mut self, op: Op) -> OpResult {
        let mut results = Vec::new();
        self.writer.apply(&[op], &mut results);
        results.remove(0)
    }
    fn inject(&mut self, port: u8, frame: &[u8]) -> Vec<Where> {
        self.guests[usize::from(port) - 1].send(frame).unwrap();
        self.came_out()
    }
    fn inject_vxlan(&mut self, from: u8, inner: &[u8]) -> Vec<Where> {
        let mut f = Vec::new();
        f.extend(self.u0);
        f.extend(self.u1);
        f.extend([8, 0, 0x45, 0]);
        f.extend(((inner.len() + 36) as u16).to_be_bytes());
        f.extend([0, 0, 0x40, 0, 64, 17, 0, 0, 10, 0, 0, from, 10, 0, 0, 1]);
        let sum: u32 = f[14..34].chunks(2).map(|c| u32::from(c[0]) << 8 | u32::from(c[1])).sum();
        let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
        f[24..26].copy_from_slice(&sum.to_be_bytes());
        f.extend(50000u16.to_be_bytes());
        f.extend(4789u16.to_be_bytes());
        f.extend(((inner.len() + 16) as u16).to_be_bytes());
        f.extend([0, 0, 8, 0, 0, 0, 0, 0, 100, 0]);
        f.extend(inner);
        self.wire.send(&f).unwrap();
        self.came_out()
    }
    fn carrier(&mut self, port: u8, on: bool) {
        ip(&format!("link set p{port}g {}", if on { "up" } else { "down" }));
        let deadline = Instant::now() + Duration::from_secs(5);
        let there = |on: bool| {
            let link = ip(&format!("-o link show dev p{port}"));
            let forwarding =
                crate::common::bridge(&format!("-o link show dev p{port}")).contains("forwarding");
            link.contains("LOWER_UP") == on && forwarding == on
        };
        while !there(on) {
            assert!(
                Instant::now() < deadline,
                "carrier of p{port}: {}",
                ip(&format!("link show dev p{port}"))
            );
        }
        self.up[usize::from(port) - 1] = on;
    }
    fn bridge_mac(&mut self, mac: Mac) {
        ip(&format!("link set br100 address {mac}"));
    }
    fn rows(&mut self, n: u32) -> Vec<String> {
        let mut rows = std::collections::BTreeSet::new();
        self.reader
            .fdb(&self.interest, &mut |chunk| {
                for ev in chunk {
                    if let KernelEvent::Fdb(r) = ev {
                        rows.insert(*r);
                    }
                }
            })
            .unwrap();
        let out: Vec<String> = rows
            .iter()
            .filter_map(|r| show_row(r, self.vxlan, self.ports).filter(|(m, _)| *m == n).map(|(_, s)| s))
            .collect();
        self.log.push(format!("rows {n} {out:?}"));
        out
    }
    fn events(&mut self) -> Vec<String> {
        while self.monitor.recv(1000, &mut self.pending).unwrap() > 0 {}
        let all = core::mem::take(&mut self.pending);
        let mut out: Vec<String> = all.iter().filter_map(|e| show_event(e, self.vxlan, self.ports)).collect();
        out.sort();
        self.log.push(format!("events {out:?}"));
        out
    }
    fn transcript(&self) -> &[String] {
        &self.log
    }
}

/// A frame of 60 octets with a payload of its own.
pub(crate) fn frame(to: Mac, from: Mac, payload: u8) -> Vec<u8> {
    let mut f = Vec::new();
    f.extend(to.0);
    f.extend(from.0);
    f.extend([0x88, 0xb5]);
    f.resize(60, payload);
    f
}

fn arp_frame(
    to: Mac,
    kind: u16,
    op: u8,
    from: Mac,
    sender: [u8; 4],
    target_mac: Mac,
    target: [u8; 4],
) -> Vec<u8> {
    let mut f = Vec::new();
    f.extend(to.0);
    f.extend(from.0);
    f.extend(kind.to_be_bytes());
    f.extend([0, 1, 8, 0, 6, 4, 0, op]);
    f.extend(from.0);
    f.extend(sender);
    f.extend(target_mac.0);
    f.extend(target);
    f
}

/// ARP request.
pub(crate) fn arp(from: Mac, sender: [u8; 4], target: [u8; 4]) -> Vec<u8> {
    arp_frame(Mac::BROADCAST, 0x0806, 1, from, sender, Mac::ZERO, target)
}

/// Gratuitous ARP request.
pub(crate) fn garp(from: Mac, ip: [u8; 4]) -> Vec<u8> {
    arp(from, ip, ip)
}

/// ARP probe (RFC 5227).
pub(crate) fn probe(from: Mac, ip: [u8; 4]) -> Vec<u8> {
    arp(from, [0; 4], ip)
}

/// RARP as QEMU announces a moved guest.
pub(crate) fn rarp(from: Mac) -> Vec<u8> {
    arp_frame(Mac::BROADCAST, 0x8035, 3, from, [0; 4], from, [0; 4])
}

fn nd(from: Mac, to: Mac, source: Ipv6Addr, dest: Ipv6Addr, mut icmp: Vec<u8>) -> Vec<u8> {
    let mut sum: u32 = 0;
    let pseudo =
        [&source.octets()[..], &dest.octets()[..], &(icmp.len() as u32).to_be_bytes(), &[0, 0, 0, 58], &icmp]
            .concat();
    for c in pseudo.chunks(2) {
        sum += u32::from(c[0]) << 8 | u32::from(*c.get(1).unwrap_or(&0));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    icmp[2..4].copy_from_slice(&(!(sum as u16)).to_be_bytes());
    let mut f = Vec::new();
    f.extend(to.0);
    f.extend(from.0);
    f.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
    f.extend((icmp.len() as u16).to_be_bytes());
    f.extend([58, 255]);
    f.extend(source.octets());
    f.extend(dest.octets());
    f.extend(icmp);
    f
}

/// Neighbour solicitation; from the unspecified address it is duplicate detection.
pub(crate) fn nd_ns(from: Mac, source: Ipv6Addr, target: Ipv6Addr) -> Vec<u8> {
    let t = target.octets();
    let dest = Ipv6Addr::from([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, t[13], t[14], t[15]]);
    let to = Mac([0x33, 0x33, 0xff, t[13], t[14], t[15]]);
    let mut icmp = vec![135, 0, 0, 0, 0, 0, 0, 0];
    icmp.extend(t);
    if !source.is_unspecified() {
        icmp.extend([1, 1]);
        icmp.extend(from.0);
    }
    nd(from, to, source, dest, icmp)
}

/// Unsolicited neighbour advertisement to all nodes.
pub(crate) fn nd_na(from: Mac, ip: Ipv6Addr) -> Vec<u8> {
    let mut icmp = vec![136, 0, 0, 0, 0x20, 0, 0, 0];
    icmp.extend(ip.octets());
    icmp.extend([2, 1]);
    icmp.extend(from.0);
    nd(from, Mac([0x33, 0x33, 0, 0, 0, 1]), ip, "ff02::1".parse().unwrap(), icmp)
}
