//! Runs a scenario on whole nodes.

use super::speaker::{Speaker, passive};
use super::{Failure, Frame, FrameKind, HostAct, PeerAct, Port, Scenario, Setting, Step, check};
use crate::world::{BRIDGE, P1, P2, World, own_mac, probe_mac, vtep};
use bytes::Bytes;
use evpn::fabric::{KernelEvent, Link, LinkKind};
use evpn::node::{Input, MoveStep};
use evpn::types::{IfIndex, Mac, Span, Time};
use evpn::wire::frame;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The fabric has so long to come up before a scenario's time begins.
const WARM_UP: Span = Span::secs(10);
/// The peer that tells what the nodes advertise.
const OBSERVER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 255, 0, 250));

/// A scenario under way.
pub(super) struct Stage {
    pub(super) w: World,
    pub(super) observer: Speaker,
    pub(super) start: Time,
    pub(super) mark: Time,
    /// Frames emitted by each node before the mark.
    pub(super) emitted: Vec<usize>,
    pub(super) names: Vec<(IpAddr, String)>,
    speakers: Vec<Speaker>,
}

/// Runs it to its end; all expectations that fail, in the order of their lines.
pub fn run(s: &Scenario) -> Vec<Failure> {
    let mut stage = Stage::new(s);
    let mut failures = Vec::new();
    for (line, step) in &s.steps {
        if let Err(what) = stage.step(step) {
            failures.push(Failure { line: *line, what });
        }
    }
    failures
}

impl Stage {
    fn new(s: &Scenario) -> Self {
        let n = s.vteps.len();
        let addresses: Vec<IpAddr> = s.speakers.iter().map(|(_, a)| *a).chain([OBSERVER]).collect();
        let mut w = World::with(n, s.delay.unwrap_or(Span::millis(1)), |c| {
            for a in &addresses {
                c.neighbors.push(passive(*a));
            }
            for setting in &s.settings {
                let mine = |i: usize| c.vtep == vtep(i);
                let rules = &mut c.vnis[0].mobility;
                match setting {
                    Setting::Sticky { vtep, mac, port } if mine(*vtep) => {
                        rules.sticky.insert(*mac, port.clone());
                    }
                    Setting::GatewayMac { vtep, mac } if mine(*vtep) => {
                        rules.gateway_macs.insert(*mac);
                    }
                    Setting::Sticky { .. } | Setting::GatewayMac { .. } => {}
                    Setting::MoveIpsWithMac(on) => c.mobility.move_ips_with_mac = *on,
                    Setting::GuardTime(t) => c.mobility.guard_time = *t,
                }
            }
        });
        let mut speakers: Vec<Speaker> = addresses.iter().map(|a| Speaker::new(*a)).collect();
        for p in &mut speakers {
            p.connect(&mut w);
        }
        w.run_for(WARM_UP);
        for i in 0..n {
            assert!(w.status(i).converged, "node {i} has not converged");
        }
        let names = s.vteps.iter().enumerate().map(|(i, name)| (vtep(i), name.clone()));
        let names = names.chain(s.speakers.iter().map(|(name, a)| (*a, name.clone()))).collect();
        let observer = speakers.pop().expect("the observer is the last");
        let (start, emitted) = (w.now, w.hosts.iter().map(|h| h.emitted.len()).collect());
        Self { w, observer, start, mark: start, emitted, names, speakers }
    }

    fn step(&mut self, step: &Step) -> Result<(), String> {
        match step {
            Step::At(t) => {
                let until = self.start + t.since(Time(0));
                self.w.run_for(until.since(self.w.now));
            }
            Step::Mark => {
                self.mark = self.w.now;
                self.emitted = self.w.hosts.iter().map(|h| h.emitted.len()).collect();
            }
            Step::Host { vtep, act } => self.host(*vtep, act),
            Step::Peer { speaker, act } => return self.peer(*speaker, act),
            Step::Cut(a, b) => self.w.cut(*a, *b),
            Step::Expect { vtep, fact } => return check::check(self, *vtep, fact),
        }
        Ok(())
    }

    fn peer(&mut self, i: usize, act: &PeerAct) -> Result<(), String> {
        let p = &mut self.speakers[i];
        let speaks = matches!(act, PeerAct::Announces(_) | PeerAct::Withdraws { .. });
        if speaks && !p.is_up(&self.w) {
            return Err(
                "it has no session (a node accepts it again some seconds after the last one ended)".into()
            );
        }
        match act {
            PeerAct::Announces(r) => p.announce(&mut self.w, r),
            PeerAct::Withdraws { mac, ip } => p.withdraw(&mut self.w, *mac, *ip),
            PeerAct::Leaves => p.leave(&mut self.w),
            PeerAct::Returns => p.connect(&mut self.w),
        }
        Ok(())
    }

    fn host(&mut self, i: usize, act: &HostAct) {
        match act {
            HostAct::Sees { mac, port } => self.w.frame(i, index(*port), *mac, None),
            HostAct::Hears { frame, port, filtered } => {
                let bytes = octets(frame, probe_mac(i));
                if *filtered {
                    self.w.input(i, Input::Frame { port: index(*port), bytes });
                } else {
                    self.w.frame(i, index(*port), frame.mac, Some(bytes));
                }
            }
            HostAct::Ages(mac) => self.w.forget(i, *mac),
            HostAct::Prepares { mac, port, at_stop } => {
                let port = if *port == Port::P1 { "p1" } else { "p2" };
                self.says(i, *mac, MoveStep::Prepare { port: port.into(), timeout: None }, *at_stop);
            }
            HostAct::Releases { mac, at_stop } => {
                self.says(i, *mac, MoveStep::Release { timeout: None }, *at_stop);
            }
            HostAct::Aborts(mac) => self.says(i, *mac, MoveStep::Abort, false),
            HostAct::PortDown(p) => self.port_down(i, *p),
            HostAct::PortUp(p) => self.w.kernel(i, KernelEvent::Link(link(i, *p, true))),
            HostAct::PortGone(p) => {
                self.flush_port(i, *p);
                self.w.kernel(i, KernelEvent::LinkGone(index(*p)));
            }
            HostAct::KernelStops => self.w.hosts[i].paused = true,
            HostAct::KernelResumes => {
                self.w.hosts[i].paused = false;
                // A runt that is not used for anything gives the node a turn.
                self.w.input(i, Input::Frame { port: P1, bytes: Bytes::new() });
            }
        }
    }

    /// A step of a prepared move.
    fn says(&mut self, i: usize, mac: Mac, step: MoveStep, at_stop: bool) {
        if at_stop {
            self.w.step_at_stop(i, mac, step);
        } else {
            self.w.step(i, mac, &[], step);
        }
    }

    /// The bridge forgets what it has learned on a port before it says that the port is down, as the kernel does.
    fn port_down(&mut self, i: usize, p: Port) {
        self.flush_port(i, p);
        self.w.kernel(i, KernelEvent::Link(link(i, p, false)));
    }

    fn flush_port(&mut self, i: usize, p: Port) {
        let macs: Vec<Mac> =
            self.w.hosts[i].fdb.iter().filter(|(_, at)| **at == index(p)).map(|(m, _)| *m).collect();
        for mac in macs {
            self.w.forget(i, mac);
        }
    }
}

pub(super) fn index(p: Port) -> IfIndex {
    match p {
        Port::P1 => P1,
        Port::P2 => P2,
    }
}

pub(super) fn name(p: Port) -> &'static str {
    match p {
        Port::P1 => "p1",
        Port::P2 => "p2",
    }
}

fn link(i: usize, p: Port, carrier: bool) -> Link {
    let kind = LinkKind::Other("veth".into());
    let (index, name) = (index(p), name(p).to_owned());
    let (master, port) = (Some(BRIDGE), None);
    Link { index, name, mac: own_mac(i), mtu: 1450, up: true, carrier, master, kind, port }
}

/// A host's frame; `vtep` is where an answer goes, the address of the node's probes.
fn octets(f: &Frame, vtep: Mac) -> Bytes {
    let other = Ipv4Addr::new(10, 1, 255, 254);
    let link_local = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
    match (f.kind, f.ip) {
        (FrameKind::Rarp, _) | (_, None) => frame::rarp_announce(f.mac),
        (FrameKind::Announce, Some(IpAddr::V4(ip))) => frame::gratuitous_arp(f.mac, ip),
        (FrameKind::Announce, Some(IpAddr::V6(ip))) => {
            frame::neighbor_advertisement(f.mac, ip, None, false, true)
        }
        (FrameKind::Arp, Some(IpAddr::V4(ip))) => frame::arp_request(f.mac, ip, other),
        (FrameKind::Answer, Some(IpAddr::V4(ip))) => frame::arp_reply(f.mac, ip, vtep, Ipv4Addr::UNSPECIFIED),
        (FrameKind::Arp | FrameKind::Answer, Some(IpAddr::V6(ip))) => {
            frame::neighbor_advertisement(f.mac, ip, Some((vtep, link_local)), false, true)
        }
    }
}
