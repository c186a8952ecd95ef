//! Guests: ARP and ND state machines behind a port. They announce themselves or not, answer when asked, go on
//! talking for a while at the place they have left, and believe what they are told.

use super::frr::is_frr;
use super::plan::By;
use super::stack::Stack;
use super::world::{Ev, World};
use bytes::Bytes;
use evpn::types::{IfIndex, Mac, Span, Time};
use evpn::wire::frame;
use netlink::fake::Out;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Pauses between QEMU's announcements, in microseconds.
const QEMU: [u64; 5] = [0, 50_000, 150_000, 300_000, 500_000];

/// Where a guest runs: VTEP and port number there.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Place {
    pub(super) node: usize,
    pub(super) slot: usize,
}

/// A VM.
#[derive(Clone, Debug)]
pub(super) struct Vm {
    pub(super) mac: Mac,
    pub(super) v4: Option<Ipv4Addr>,
    pub(super) v6: Option<Ipv6Addr>,
    pub(super) here: Option<Place>,
    /// A second copy of it.
    pub(super) twin: Option<Place>,
    /// Since when it runs there.
    pub(super) since: Time,
    /// MACs and addresses it has had.
    pub(super) changes: u8,
    pub(super) stack: Stack,
}

impl Vm {
    pub(super) fn new(i: usize, of: super::plan::Guest) -> Self {
        let n = i as u8 + 10;
        Self {
            mac: Mac([0x52, 0x54, 0, 0, i as u8, 0]),
            v4: of.v4.then(|| Ipv4Addr::new(192, 168, 0, n)),
            v6: of.v6.then(|| Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, n.into())),
            here: None,
            twin: None,
            since: Time(0),
            changes: 0,
            stack: Stack::new(of.habit),
        }
    }

    pub(super) fn ips(&self) -> impl Iterator<Item = IpAddr> {
        self.v4.map(IpAddr::V4).into_iter().chain(self.v6.map(IpAddr::V6))
    }

    /// Those that it uses: not while it checks them.
    pub(super) fn used(&self) -> impl Iterator<Item = IpAddr> {
        self.ips().filter(|ip| self.stack.uses(*ip))
    }

    /// Fresh MAC, same addresses.
    pub(super) fn change_mac(&mut self) {
        self.changes += 1;
        self.mac.0[5] = self.changes;
    }

    /// Fresh IPv4 address. Its last octet is the guest's own: one that was taken from another guest has that one's,
    /// who may come to the same number of changes.
    pub(super) fn change_ip(&mut self) {
        self.changes += 1;
        if self.v4.is_some() {
            self.v4 = Some(Ipv4Addr::new(192, 168, self.changes, self.mac.0[4] + 10));
        }
    }
}

impl World {
    /// A guest runs here now; its port has carrier.
    pub(super) fn plug(&mut self, at: Place) {
        if let Some(v) = self.machine_mut(at.node) {
            v.kernel.set_carrier(v.ports[at.slot], true);
            self.kernel_changed(at.node);
        }
    }

    /// The port goes down with its guest.
    pub(super) fn unplug(&mut self, at: Place) {
        for m in self.macs.values_mut() {
            m.residue.remove(&at);
        }
        if let Some(v) = self.machine_mut(at.node) {
            v.kernel.set_carrier(v.ports[at.slot], false);
            self.kernel_changed(at.node);
        }
    }

    /// The guest makes itself heard at a place, now or in a while.
    pub(super) fn announce(&mut self, g: usize, at: Place, by: By) {
        if by == By::Qemu {
            for pause in QEMU {
                self.push(Span::micros(pause), Ev::Say(g, at, By::Rarp));
            }
        } else {
            self.say(g, at, by);
        }
    }

    /// One announcement, if the guest still runs there.
    pub(super) fn say(&mut self, g: usize, at: Place, by: By) {
        let vm = &self.vms[g];
        if vm.here != Some(at) && vm.twin != Some(at) {
            return;
        }
        let frames = self.frames(g, by);
        let strong = matches!(by, By::Rarp | By::Garp | By::Qemu) && !frames.is_empty();
        if frames.is_empty() {
            return;
        }
        self.spoke(g, at, by, strong);
        for f in frames {
            self.emit(at, f);
        }
    }

    /// A frame that was still under way at a place that the guest has left.
    pub(super) fn late(&mut self, at: Place, mac: Mac) {
        self.emit(at, data(mac));
    }

    fn frames(&self, g: usize, by: By) -> Vec<Bytes> {
        let vm = &self.vms[g];
        let (v4, v6) = (vm.v4.filter(|ip| vm.stack.uses((*ip).into())), vm.v6);
        let v6 = v6.filter(|ip| vm.stack.uses((*ip).into()));
        match by {
            By::Rarp | By::Qemu => vec![frame::rarp_announce(vm.mac)],
            By::Garp => {
                let v4 = v4.map(|ip| frame::gratuitous_arp(vm.mac, ip));
                let v6 = v6.map(|ip| frame::neighbor_advertisement(vm.mac, ip, None, false, true));
                let all: Vec<Bytes> = v4.into_iter().chain(v6).collect();
                if all.is_empty() { vec![frame::rarp_announce(vm.mac)] } else { all }
            }
            By::Data => vec![data(vm.mac)],
            By::Ask => match v4 {
                Some(ip) => vec![frame::arp_request(vm.mac, ip, Ipv4Addr::new(192, 168, 255, 254))],
                None => vec![data(vm.mac)],
            },
        }
    }

    /// A guest asks for the address of another.
    pub(super) fn ask(&mut self, g: usize, other: usize) {
        let (Some(at), Some(own), Some(ip)) = (self.vms[g].here, self.vms[g].v4, self.vms[other].v4) else {
            return;
        };
        if !self.vms[g].stack.uses(own.into()) {
            return;
        }
        let f = frame::arp_request(self.vms[g].mac, own, ip);
        self.spoke(g, at, By::Ask, false);
        self.emit(at, f);
    }

    /// A frame leaves a guest: through the bridge, past the tap.
    pub(super) fn emit(&mut self, at: Place, f: Bytes) {
        let now = self.now;
        let Some(v) = self.machine_mut(at.node) else { return };
        let port = v.ports[at.slot];
        if v.kernel.link(port).is_none_or(|l| !l.carrier) {
            return;
        }
        v.kernel.advance(now);
        let out = v.kernel.inject(port, &f);
        if self.trace.is_some() {
            self.note(&format!("guest at node {} port {}: {}", at.node, at.slot, told(&f)));
        }
        let Some(v) = self.machine_mut(at.node) else { return };
        let epoch = v.epoch;
        // Guests behind one port hear each other without the bridge.
        for g in 0..self.vms.len() {
            let vm = &self.vms[g];
            if vm.here == Some(at) && f.get(6..).and_then(Mac::from_slice) != Some(vm.mac) {
                self.frame_for(g, at, &f);
            }
        }
        self.kernel_changed(at.node);
        if is_frr(at.node) {
            self.frr_hears(at.node, &f);
        } else if matches!(f.get(12..14), Some([0x08, 0x06] | [0x80, 0x35] | [0x86, 0xdd])) {
            let lag = self.lag();
            self.push(lag, Ev::Tap(at.node, epoch, port, f));
        }
        self.spread(at.node, out);
    }

    /// Frames that left a bridge.
    pub(super) fn spread(&mut self, node: usize, out: Vec<(Out, Vec<u8>)>) {
        for (to, f) in out {
            // Only what somebody answers or learns from is worth carrying.
            if !matches!(f.get(12..14), Some([0x08, 0x06] | [0x86, 0xdd])) {
                continue;
            }
            match to {
                Out::Port(port) => self.out_of_port(node, port, &f),
                Out::Vtep(_, ip) => self.encapsulated(node, ip, f),
            }
        }
    }

    /// A frame comes out of an access port.
    pub(super) fn out_of_port(&mut self, node: usize, port: IfIndex, f: &[u8]) {
        let ports = self.machine(node).map(|v| v.ports.iter());
        let Some(slot) = ports.and_then(|mut p| p.position(|p| *p == port)) else { return };
        let at = Place { node, slot };
        for g in 0..self.vms.len() {
            let vm = &self.vms[g];
            if vm.here == Some(at) || vm.twin == Some(at) {
                self.frame_for(g, at, f);
            }
        }
    }

    /// A guest gets a frame.
    fn frame_for(&mut self, g: usize, at: Place, f: &[u8]) {
        let vm = &self.vms[g];
        let to = Mac::from_slice(f).unwrap_or_default();
        if to != vm.mac && !to.is_multicast() {
            return;
        }
        let Ok(parsed) = frame::parse(f) else { return };
        if !self.hears(g, at, &parsed) {
            return;
        }
        let vm = &self.vms[g];
        let uses = |ip: IpAddr| vm.stack.uses(ip);
        let answer = match parsed.body {
            frame::Body::Arp(a) if a.sender_mac == vm.mac || a.is_gratuitous() => None,
            frame::Body::Arp(a) if !a.reply && Some(a.target_ip) == vm.v4 && uses(a.target_ip.into()) => {
                Some(frame::arp_reply(vm.mac, a.target_ip, a.sender_mac, a.sender_ip))
            }
            frame::Body::Arp(a) if a.reply && to == vm.mac => {
                self.told_address(g, a.sender_ip.into(), a.sender_mac);
                None
            }
            frame::Body::NeighborAdvertisement(na) if na.solicited && to == vm.mac => {
                self.told_address(g, na.target.into(), na.tlla.unwrap_or(parsed.src));
                None
            }
            frame::Body::NeighborSolicitation(ns) if Some(ns.target) == vm.v6 && uses(ns.target.into()) => {
                // Whoever checks an address has none yet: all are told (RFC 4861 §7.2.4).
                let back = (!ns.is_dad()).then_some((parsed.src, ns.src));
                Some(frame::neighbor_advertisement(vm.mac, ns.target, back, false, true))
            }
            _ => None,
        };
        if let Some(answer) = answer {
            let think = Span::micros(self.rng.range(20, 500));
            self.push(think, Ev::Answer(g, at, answer));
        }
    }

    /// The guest answers, if it still runs there.
    pub(super) fn answer(&mut self, g: usize, at: Place, f: Bytes) {
        let vm = &self.vms[g];
        if (vm.here == Some(at) || vm.twin == Some(at))
            && f.get(6..).and_then(Mac::from_slice) == Some(vm.mac)
        {
            let ip = match vm.v4 {
                Some(ip) if f.get(12..14) == Some(&[0x08, 0x06]) => Some(IpAddr::V4(ip)),
                _ => vm.v6.map(IpAddr::V6),
            };
            // A guest that has another address by now does not answer for the one it had.
            if ip.is_none_or(|ip| tells(&f) != Some(ip) || !vm.stack.uses(ip)) {
                return;
            }
            // To a prober it proves that the guest is there; to anybody else it may have been under way.
            let asker = Mac::from_slice(&f).unwrap_or_default();
            let strong = asker.is_multicast() || !self.vms.iter().any(|v| v.mac == asker);
            self.spoke(g, at, By::Data, strong);
            if let Some(ip) = ip {
                self.says_ip(g, at, ip, false);
            }
            self.emit(at, f);
        }
    }
}

/// What a frame says, for a trace.
pub(super) fn told(f: &[u8]) -> String {
    frame::parse(f).map_or_else(|e| e.name().to_owned(), |f| format!("{} to {}: {:?}", f.src, f.dst, f.body))
}

/// The address that an answer is about.
fn tells(f: &[u8]) -> Option<IpAddr> {
    match frame::parse(f).ok()?.body {
        frame::Body::Arp(a) => Some(a.sender_ip.into()),
        frame::Body::NeighborAdvertisement(na) => Some(na.target.into()),
        frame::Body::Rarp(_)
        | frame::Body::NeighborSolicitation(_)
        | frame::Body::RouterSolicitation(_)
        | frame::Body::RouterAdvertisement(_)
        | frame::Body::Dhcp(_)
        | frame::Body::Other(_) => None,
    }
}

/// A frame that only shows that its sender is there.
fn data(mac: Mac) -> Bytes {
    data_to(Mac([0x52, 0x54, 0xff, 0xff, 0xff, 0xfe]), mac)
}

/// The same for somebody.
pub(super) fn data_to(to: Mac, mac: Mac) -> Bytes {
    let mut f = to.0.to_vec();
    f.extend(mac.0);
    f.extend([0x08, 0x00]);
    f.resize(60, 0);
    f.into()
}
