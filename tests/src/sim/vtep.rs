//! One VTEP: a whole node with the real reconciler on a fake kernel, driven as the daemon drives them.

use super::frr::{self, is_frr};
use super::guest;
use super::mutants::Mutant;
use super::plan::{Fabric, Guest};
use super::world::{Ev, Fault, World};
use bytes::Bytes;
use evpn::fabric::{KernelEvent, RowKey, WriteResult};
use evpn::hosts::KeptHost;
use evpn::mobility::Record;
use evpn::node::{
    ArpConfig, Config, ConnEvent, Event, Flooding, Input, MobilityConfig, NeighborConfig, Node, Output,
    RestartConfig, Targets, VniConfig, VniHosts, VniMobility,
};
use evpn::session::{Graceful, GracefulMode};
use evpn::types::{Asn, ConnId, IfIndex, Mac, Span, Time, Vni};
use evpn::wire::frame;
use netlink::fake::FakeKernel;
use netlink::op::{Kernel as _, Op, OpResult};
use netlink::reconcile::Scope;
use netlink::{Batch, Reconciler};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

/// Batches of more ops than this go to the kernel thread, as in the daemon.
const INLINE: usize = 64;
/// Rounds of one turn, as in the daemon.
const ROUNDS: usize = 16;
/// Notifications per turn, as in the daemon.
const BUDGET: usize = 1024;
/// Rows per audit, as in the daemon.
const AUDIT: usize = 512;
/// What a connection holds unless the plan says otherwise.
pub(super) const ROOM: usize = 65_536;

pub(super) fn vni() -> Vni {
    Vni::new(100).expect("valid")
}

/// Address of a VTEP.
pub(super) fn address(i: usize) -> IpAddr {
    // Every other FRR-like one is below all nodes, where ties are concerned.
    let net = if is_frr(i) && i.is_multiple_of(2) { 254 } else { 255 };
    IpAddr::V4(Ipv4Addr::new(10, net, 0, i as u8 + 1))
}

/// The daemon: what a kill takes away.
pub(super) struct Daemon {
    pub(super) node: Node,
    pub(super) rec: Reconciler,
    taps: BTreeSet<IfIndex>,
    /// Connections whose room has to be told again.
    sent: BTreeSet<ConnId>,
}

/// See the module.
pub(super) struct Vtep {
    pub(super) daemon: Option<Box<Daemon>>,
    /// A daemon runs; it is elsewhere while it has its turn.
    alive: bool,
    /// Counts daemons, so that what was meant for an earlier one is dropped.
    pub(super) epoch: u32,
    pub(super) kernel: FakeKernel,
    pub(super) bridge: IfIndex,
    pub(super) vxlan: IfIndex,
    pub(super) ports: Vec<IfIndex>,
    /// Connections: which, and which end of it.
    pub(super) conns: BTreeMap<ConnId, (usize, usize)>,
    pub(super) accepted: u64,
    next_wake: Option<Time>,
    kernel_due: bool,
    /// Longest time for a batch, in microseconds; 0: at once.
    pub(super) slow: u64,
    /// State directory.
    pub(super) kept: BTreeMap<(Vni, Mac), Record>,
    /// Hosts in it, by address.
    kept_hosts: BTreeMap<IpAddr, KeptHost>,
    booted: Time,
    /// Withdrawals that did not wait for the kernel any longer.
    pub(super) forced: u64,
}

impl Vtep {
    /// A machine with bridge, VXLAN device and ports; no daemon yet.
    pub(super) fn new(i: usize, ports: usize) -> Self {
        let mut kernel = FakeKernel::new();
        let own = |n: usize| Mac([2, 0, 0, 1, i as u8, n as u8]);
        let bridge = kernel.add_bridge("br100", own(0));
        let vxlan = kernel.add_vxlan("vx100", vni(), address(i), bridge, true);
        // The fake numbers these by device index, which would be the same everywhere.
        let ports = (0..ports).map(|p| kernel.add_port(&format!("p{p}"), own(p + 10), bridge)).collect();
        Self {
            daemon: None,
            alive: false,
            epoch: 0,
            kernel,
            bridge,
            vxlan,
            ports,
            conns: BTreeMap::new(),
            accepted: 0,
            next_wake: None,
            kernel_due: false,
            slow: 0,
            kept: BTreeMap::new(),
            kept_hosts: BTreeMap::new(),
            booted: Time(0),
            forced: 0,
        }
    }
}

impl Vtep {
    /// A daemon runs, and has had the time to open its taps.
    pub(super) fn listens(&self, now: Time) -> bool {
        self.epoch > 0 && self.alive && now.since(self.booted) > Span::millis(50)
    }

    /// Its daemon began later, and has not heard what was then.
    pub(super) fn started_since(&self, then: Time) -> bool {
        self.booted >= then
    }
}

/// Configuration of a node.
pub(super) fn config(i: usize, f: &Fabric, mutant: Option<Mutant>) -> Config {
    let own = address(i);
    let mut mobility = MobilityConfig::default();
    if mutant == Some(Mutant::NoGuardTime) {
        mobility.guard_time = Span::ZERO;
    }
    let peers: Vec<usize> = if f.reflectors > 0 {
        (f.nodes..f.nodes + f.reflectors).collect()
    } else {
        (0..f.nodes).chain(frr::hosts(f)).collect()
    };
    Config {
        vtep: own,
        asn: Asn(65000),
        router_id: Ipv4Addr::new(10, 255, 0, i as u8 + 1),
        cluster_id: Ipv4Addr::new(10, 255, 0, i as u8 + 1),
        udp_port: 4789,
        bgp_port: 179,
        listen: None,
        neighbors: peers
            .into_iter()
            .filter(|j| *j != i)
            .map(|j| NeighborConfig {
                local_address: Some(own),
                passive: !f.both && i > j && j < f.nodes,
                hold_time: f.hold as u16,
                connect_retry: Span::secs(2),
                restart: no_graceful_restart(),
                ..NeighborConfig::new(address(j), Asn(65000).into())
            })
            .collect(),
        neighbor_ranges: vec![],
        vnis: vec![VniConfig {
            vni: vni(),
            bridge: "br100".into(),
            vxlan: "vx100".into(),
            ports: vec![],
            import: Targets::Auto,
            export: Targets::Auto,
            flooding: Flooding::Replicate,
            arp_suppression: true,
            mtu: None,
            bridge_mac: Mac([2, 0, 0, 1, i as u8, 0]),
            mobility: VniMobility::default(),
            hosts: VniHosts::new(evpn::node::probe_mac(address(i), vni())),
        }],
        restart_time: Span::secs(20),
        selection_deferral: Span::secs(5),
        mobility,
        arp: ArpConfig::default(),
    }
}

/// The simulation's peers drop what a daemon that is away had told.
fn no_graceful_restart() -> RestartConfig {
    let graceful = Graceful { mode: GracefulMode::Off, ..Graceful::default() };
    RestartConfig { graceful, ..RestartConfig::default() }
}

impl World {
    /// Starts a daemon.
    pub(super) fn boot(&mut self, i: usize) {
        let config = config(i, &self.plan.fabric, self.mutant);
        let v = &mut self.vteps[i];
        v.epoch += 1;
        let seed = self.plan.fabric.seed.wrapping_mul(1000) + i as u64 * 16 + u64::from(v.epoch);
        let mut node = Node::new(config, seed, self.now);
        node.handle(Input::Wall { unix: 1_800_000_000 + self.now.0 / 1_000_000_000 }, self.now);
        if self.plan.fabric.memory && self.mutant != Some(Mutant::NothingRestored) {
            let kept = v.kept.values().copied().collect();
            node.handle(Input::Restored(kept), self.now);
            let hosts = v.kept_hosts.values().copied().collect();
            node.handle(Input::RestoredHosts(hosts), self.now);
        }
        let mut rec = Reconciler::new();
        rec.manage(&node.devices());
        // A new socket hears nothing of before.
        v.kernel.recv(usize::MAX, &mut Vec::new());
        v.daemon = Some(Box::new(Daemon { node, rec, taps: BTreeSet::new(), sent: BTreeSet::new() }));
        v.next_wake = None;
        v.alive = true;
        v.booted = self.now;
        // A first read that is short has nothing to be compared with.
        v.kernel.set_short_dumps(0, 0);
        self.push(Span::secs(1), Ev::House(i, self.vteps[i].epoch));
        self.turn(i);
    }

    /// `kill -9`: the kernel closes its sockets and keeps its rows.
    pub(super) fn kill(&mut self, i: usize) {
        self.vteps[i].daemon = None;
        self.vteps[i].alive = false;
        let conns = std::mem::take(&mut self.vteps[i].conns);
        for (tcp, side) in conns.into_values() {
            self.close(tcp, side);
        }
        self.sessions_gone(i);
    }

    /// Inputs for a node, then its turn.
    pub(super) fn input(&mut self, i: usize, input: Input) {
        let now = self.now;
        if let Some(d) = &mut self.vteps[i].daemon {
            d.node.handle(input, now);
            self.turn(i);
        }
    }

    pub(super) fn conn_event(&mut self, i: usize, conn: ConnId, event: ConnEvent) {
        self.input(i, Input::Conn { conn, event });
    }

    /// A frame that the tap of a port saw.
    pub(super) fn tapped(&mut self, i: usize, epoch: u32, port: IfIndex, bytes: Bytes) {
        let now = self.now;
        if self.vteps[i].epoch != epoch || self.mutant == Some(Mutant::Deaf) {
            return;
        }
        self.checks_answered_from_memory(i, port, &bytes);
        if let Some(d) = &mut self.vteps[i].daemon
            && d.taps.contains(&port)
        {
            d.node.handle(Input::Frame { port, bytes }, now);
            self.turn(i);
        }
    }

    /// The kernel has something to say soon.
    pub(super) fn kernel_changed(&mut self, i: usize) {
        if is_frr(i) {
            return self.frr_kernel(i);
        }
        let v = &mut self.vteps[i];
        if v.daemon.is_some() && !v.kernel_due && v.kernel.readable() {
            v.kernel_due = true;
            let lag = self.lag();
            self.push(lag, Ev::Kernel(i));
        }
    }

    /// Reads notifications.
    pub(super) fn monitor(&mut self, i: usize) {
        self.vteps[i].kernel_due = false;
        if let Some(mut d) = self.vteps[i].daemon.take() {
            self.hear(i, &mut d);
            self.vteps[i].daemon = Some(d);
            self.kernel_changed(i);
            self.turn(i);
        }
    }

    fn hear(&mut self, i: usize, d: &mut Daemon) {
        let mut news = std::mem::take(&mut self.heard);
        self.vteps[i].kernel.recv(BUDGET, &mut news);
        for ev in news.drain(..) {
            if self.mutant.is_some_and(|m| m.swallows(&ev)) {
                continue;
            }
            d.rec.observe(&ev);
            d.node.handle(Input::Kernel(ev), self.now);
        }
        self.heard = news;
    }

    /// A dump has been read.
    pub(super) fn dumped(&mut self, i: usize, epoch: u32, read: (u64, Scope), rows: Vec<KernelEvent>) {
        if self.vteps[i].epoch != epoch {
            return;
        }
        let Some(mut d) = self.vteps[i].daemon.take() else { return };
        let (generation, scope) = read;
        let rows = if self.plan.fabric.parts {
            let percent = (37 * generation + 13 * u64::from(epoch)) % 100;
            self.vteps[i].kernel.resume_dump(scope, &rows, percent as usize)
        } else {
            rows
        };
        self.hear(i, &mut d);
        let mut news = Vec::new();
        for chunk in rows.chunks(256) {
            d.rec.dumped(generation, chunk, &mut news);
        }
        let suspects = d.rec.end_dump(generation, true);
        let verdicts = if self.mutant == Some(Mutant::ShortDumpsBelieved) {
            suspects
        } else {
            self.vteps[i].kernel.confirm(&suspects)
        };
        d.rec.confirmed(generation, &verdicts, &mut news);
        for ev in news {
            d.node.handle(Input::Kernel(ev), self.now);
        }
        self.vteps[i].daemon = Some(d);
        self.turn(i);
    }

    /// A batch that waited for the kernel thread.
    pub(super) fn applied(&mut self, i: usize, epoch: u32, batch: Batch) {
        if self.vteps[i].epoch != epoch {
            return;
        }
        let Some(mut d) = self.vteps[i].daemon.take() else { return };
        let mut written = Vec::new();
        self.apply(i, &mut d, batch, &mut written);
        self.told(&mut d, written);
        self.vteps[i].daemon = Some(d);
        self.turn(i);
    }

    /// Once a second: what nobody reports.
    pub(super) fn house(&mut self, i: usize, epoch: u32) {
        if self.vteps[i].epoch != epoch {
            return;
        }
        if let Some(d) = &mut self.vteps[i].daemon {
            d.rec.audit_slice(d.node.want(), AUDIT);
            self.push(Span::secs(1), Ev::House(i, epoch));
            self.turn(i);
        }
    }

    pub(super) fn wake(&mut self, i: usize) {
        if self.vteps[i].next_wake == Some(self.now) {
            self.vteps[i].next_wake = None;
            self.turn(i);
        }
    }

    /// Decides and acts until nothing is news.
    pub(super) fn turn(&mut self, i: usize) {
        let Some(mut d) = self.vteps[i].daemon.take() else { return };
        for _ in 0..ROUNDS {
            d.node.flush(self.now);
            while let Some(o) = d.node.poll_output() {
                self.output(i, &mut d, o);
            }
            let mut written = Vec::new();
            self.write(i, &mut d, &mut written);
            let mut news = !written.is_empty();
            self.told(&mut d, written);
            for conn in std::mem::take(&mut d.sent) {
                news = true;
                d.node.handle(Input::Conn { conn, event: ConnEvent::Room(ROOM) }, self.now);
            }
            if !news {
                break;
            }
        }
        if let Some((t, _)) = d.node.poll_timeout() {
            let t = t.max(self.now + Span(1));
            if self.vteps[i].next_wake.is_none_or(|w| w > t || w < self.now) {
                self.vteps[i].next_wake = Some(t);
                self.push_at(t, Ev::Wake(i));
            }
        }
        self.vteps[i].daemon = Some(d);
        self.kernel_changed(i);
    }

    fn told(&mut self, d: &mut Daemon, mut written: Vec<(RowKey, WriteResult)>) {
        if self.mutant == Some(Mutant::WrittenSwallowed) {
            written.clear();
        }
        if !written.is_empty() {
            d.node.handle(Input::Written(written), self.now);
        }
    }

    fn write(&mut self, i: usize, d: &mut Daemon, written: &mut Vec<(RowKey, WriteResult)>) {
        if let Some(b) = d.rec.next_urgent(d.node.want_mut(), INLINE) {
            self.apply(i, d, b, written);
        }
        while let Some(b) = d.rec.next_batch(d.node.want_mut(), 2048) {
            let slow = self.vteps[i].slow;
            if slow > 0 && !b.ops.is_empty() {
                let lag = Span::micros(self.rng.range(1, slow));
                self.push(lag, Ev::Applied(i, self.vteps[i].epoch, Box::new(b)));
            } else {
                self.apply(i, d, b, written);
            }
        }
        if let Some((generation, scope)) = d.rec.take_scope() {
            let rows = self.vteps[i].kernel.dump(scope);
            let mut lag = self.lag();
            if self.plan.fabric.parts {
                lag += Span::micros(7_919 * (generation + u64::from(self.vteps[i].epoch)) % 20_000);
            }
            self.push(lag, Ev::Dumped(i, self.vteps[i].epoch, (generation, scope), rows));
        }
    }

    fn apply(&mut self, i: usize, d: &mut Daemon, b: Batch, written: &mut Vec<(RowKey, WriteResult)>) {
        let mut results: Vec<OpResult> = Vec::with_capacity(b.ops.len());
        let v = &mut self.vteps[i];
        if let Some(m) = self.mutant {
            for op in &b.ops {
                match m.bends(op) {
                    Some(ops) => {
                        v.kernel.apply(&ops, &mut Vec::new());
                        results.push(Ok(()));
                    }
                    None => v.kernel.apply(std::slice::from_ref(op), &mut results),
                }
            }
        } else {
            v.kernel.apply(&b.ops, &mut results);
        }
        let answers: Vec<IpAddr> = b
            .ops
            .iter()
            .filter_map(|op| if let Op::SetNeigh { ip, .. } = op { Some(*ip) } else { None })
            .collect();
        if results.iter().any(Result::is_err) {
            // Refused rows are tried again after a second.
            self.begin(Fault::Repair, Span::millis(1100));
        }
        written.extend(d.rec.done(b, &results));
        for ip in answers {
            self.check_answer(i, ip);
        }
    }

    fn output(&mut self, i: usize, d: &mut Daemon, o: Output) {
        match o {
            Output::Dial { conn, to, .. } => self.dial(i, conn, to.ip()),
            Output::Send { conn, bytes } => {
                if self.plan.fabric.room == 0 {
                    d.sent.insert(conn);
                }
                self.send(i, conn, bytes);
            }
            Output::Hangup { conn } => {
                if let Some((tcp, side)) = self.vteps[i].conns.remove(&conn) {
                    self.close(tcp, side);
                }
            }
            Output::Tap(port) => {
                d.taps.insert(port);
            }
            Output::Untap(port) => {
                d.taps.remove(&port);
            }
            Output::Emit { port, frame } => {
                if self.trace.is_some() {
                    self.note(&format!("node {i} out of {port:?}: {}", guest::told(&frame)));
                }
                if !self.is_forgotten(i, &frame) {
                    self.out_of_port(i, port, &frame);
                }
            }
            Output::Encap { vtep, frame, .. } => {
                if self.trace.is_some() {
                    self.note(&format!("node {i} to {vtep}: {}", guest::told(&frame)));
                }
                if !self.is_forgotten(i, &frame) {
                    self.encapsulated(i, vtep, frame.to_vec());
                }
            }
            Output::KeepHosts(hosts) => {
                for h in hosts.into_iter().filter(|_| self.mutant != Some(Mutant::HostsForgotten)) {
                    self.vteps[i].kept_hosts.remove(&h.ip);
                    if h.here {
                        self.vteps[i].kept_hosts.insert(h.ip, h);
                    }
                }
            }
            Output::Persist(records) => {
                for mut r in records {
                    if self.mutant == Some(Mutant::KeptTooLow) {
                        r.seq.0 = 0;
                    }
                    self.vteps[i].kept.insert((r.vni, r.mac), r);
                }
            }
            Output::Resync => {
                if self.mutant != Some(Mutant::ResyncSkipped) {
                    d.rec.resync(Scope::All);
                }
            }
            Output::Event { event, .. } => self.node_event(i, &event),
            // Blocking is not configured here.
            Output::Blocked(_) => {}
            // No seed has that many guests.
            Output::Guard { .. } | Output::Recall(_) => {}
            // Nobody here tags frames, and no limits are configured.
            Output::PortRules { .. } => {}
            // There are no frames here that could be held: as on a host where no tap can be made.
            Output::HoldPort { .. } | Output::HoldPortGone { .. } | Output::Hold { .. } => {}
            Output::Bfd { .. }
            | Output::Listen(_)
            | Output::Vteps(_)
            | Output::Reply { .. }
            | Output::Stopped => {}
        }
    }

    /// A planted fault: whoever checks an address is told what is known of it (PIT-14).
    fn checks_answered_from_memory(&mut self, i: usize, port: IfIndex, bytes: &[u8]) {
        let v = &self.vteps[i];
        if self.mutant != Some(Mutant::CheckAnswered) || !v.ports.contains(&port) {
            return;
        }
        let Ok(frame::Body::Arp(a)) = frame::parse(bytes).map(|f| f.body) else { return };
        let known = v.kernel.answer(v.bridge, a.target_ip.into());
        if let Some(mac) = known.filter(|m| a.is_probe() && *m != a.sender_mac) {
            let reply = frame::arp_reply(mac, a.target_ip, a.sender_mac, a.sender_ip);
            self.out_of_port(i, port, &reply);
        }
    }

    /// A planted fault: this frame is never sent to a host.
    fn is_forgotten(&mut self, i: usize, f: &[u8]) -> bool {
        let Some(m) = self.mutant else { return false };
        let question = f.get(6..).and_then(Mac::from_slice) == Some(evpn::node::probe_mac(address(i), vni()));
        match m {
            Mutant::ProbesLost => question,
            Mutant::TellForgotten => !question,
            Mutant::ProbeChainLost if question => {
                // The first question to this host within three seconds is the only one.
                let to = Mac::from_slice(f).unwrap_or_default();
                let last = self.asked.insert((i, to), self.now);
                last.is_some_and(|t| self.now.since(t) < Span::millis(2500))
            }
            _ => false,
        }
    }

    fn node_event(&mut self, i: usize, event: &Event) {
        if self.trace.is_some() {
            let text = format!("node {i}: {event:?}");
            self.note(&text);
        }
        match event {
            Event::NeighborUp { address, .. } => self.session(i, *address, true),
            Event::NeighborDown { address, .. } => self.session(i, *address, false),
            Event::WithdrawForced { .. } => self.vteps[i].forced += 1,
            _ => {}
        }
    }
}

/// Number of ports of each VTEP: one per guest, and one for guests that change their port.
pub(super) fn ports(guests: &[Guest]) -> usize {
    guests.len() + 1
}
