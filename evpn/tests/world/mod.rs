//! A few whole nodes on one virtual clock: connections are byte queues with a one-way delay, and each kernel
//! is a table of rows where a frame from an access port takes its MAC over, as the real bridge does.

#![allow(dead_code, unreachable_pub)]

pub mod frames;

use bytes::Bytes;
use evpn::fabric::{
    BridgeFdb, BridgeLink, FdbRow, KernelEvent, Link, LinkKind, PortFlags, Row, RowKey, VxlanLink,
    WriteResult,
};
use evpn::mobility::Record;
use evpn::node::{
    About, ArpConfig, Command, Config, ConnEvent, Event, Flooding, GuardChange, Input, MacFilter,
    MoveRequest, MoveStep, NeighborConfig, Node, Output, Query, Requester,
};
use evpn::node::{MobilityConfig, Reply, Show, Targets, VniConfig, VniHosts, VniMobility, WhyRequest, view};
use evpn::types::{Asn, ConnId, IfIndex, Mac, Seq, Span, Time, Vni};
use evpn::wire::{DecodeCtx, EvpnNlri, EvpnRoute, Message, Nlri};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// Numbers of commands from here on belong to [`World::step`].
const FIRST_STEP: u64 = 1 << 32;
pub const BRIDGE: IfIndex = IfIndex(1);
pub const VXLAN: IfIndex = IfIndex(2);
pub const P1: IfIndex = IfIndex(11);
pub const P2: IfIndex = IfIndex(12);

pub fn vni() -> Vni {
    Vni::new(100).expect("valid")
}

pub fn vtep(i: usize) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 255, 0, i as u8 + 1))
}

pub fn mac(n: u8) -> Mac {
    Mac([0x52, 0x54, 0, 0, 0, n])
}

/// Address of a node's own devices.
pub fn own_mac(i: usize) -> Mac {
    Mac([2, 0, 0, 0, 1, i as u8])
}

/// Source of a node's probes.
pub fn probe_mac(i: usize) -> Mac {
    Mac([2, 0, 0, 0, 2, i as u8])
}

pub fn config(i: usize, n: usize) -> Config {
    let own = Ipv4Addr::new(10, 255, 0, i as u8 + 1);
    Config {
        vtep: vtep(i),
        asn: Asn(65000),
        router_id: own,
        udp_port: 4789,
        bgp_port: 179,
        listen: None,
        neighbors: (0..n)
            .filter(|j| *j != i)
            .map(|j| NeighborConfig {
                address: vtep(j),
                port: 179,
                asn: Asn(65000),
                local_address: Some(vtep(i)),
                passive: false,
                hold_time: 90,
                connect_retry: Span::secs(5),
                multihop: None,
                description: None,
            })
            .collect(),
        vnis: vec![VniConfig {
            vni: vni(),
            bridge: "br100".into(),
            vxlan: "vx100".into(),
            ports: vec![],
            import: Targets::Auto,
            export: Targets::Auto,
            flooding: Flooding::Replicate,
            arp_suppression: true,
            mtu: Some(1450),
            bridge_mac: own_mac(i),
            mobility: VniMobility::default(),
            hosts: VniHosts::new(probe_mac(i)),
        }],
        restart_time: Span::secs(120),
        mobility: MobilityConfig::default(),
        arp: ArpConfig::default(),
    }
}

fn link(index: IfIndex, name: &str, kind: LinkKind, master: Option<IfIndex>, mac: Mac) -> Link {
    let port =
        master.map(|_| PortFlags { learning: true, flood: true, forwarding: true, ..PortFlags::default() });
    Link { index, name: name.into(), mac, mtu: 1450, up: true, carrier: true, master, kind, port }
}

struct Pipe {
    to: usize,
    to_conn: ConnId,
    room: usize,
}

pub struct Host {
    pub node: Node,
    pub rows: BTreeMap<RowKey, Row>,
    /// Where the bridge has a MAC.
    pub fdb: BTreeMap<Mac, IfIndex>,
    pub events: Vec<(Time, Event)>,
    pub emitted: Vec<(IfIndex, Bytes)>,
    /// Frames sent to one VTEP through the underlay.
    pub encapsulated: Vec<(IpAddr, Bytes)>,
    pub blocked: BTreeSet<(IfIndex, Mac)>,
    /// Ports that let only these in, and how many frames they have dropped.
    pub guarded: BTreeMap<IfIndex, (BTreeSet<Mac>, u64)>,
    recalls: u64,
    pub taps: Vec<IfIndex>,
    pub writes: u64,
    /// Kernel writes wait.
    pub paused: bool,
    /// The state directory: what a kill leaves.
    pub kept: BTreeMap<(Vni, Mac), Record>,
    /// Records written, ever.
    pub records: u64,
    /// Type-2 routes announced, in order: MAC and sequence.
    pub announced: Vec<(Time, Mac, Seq)>,
    config: Config,
    starts: u64,
    /// Between kill and start.
    dead: bool,
    conns: BTreeMap<ConnId, Pipe>,
    accepted: u64,
    replies: Vec<Reply>,
    /// Answers to [`World::step`], by the number of the command.
    pub answers: BTreeMap<u64, Reply>,
    /// The kernel refuses to put these on a local port (`EPERM`: the port is not forwarding).
    pub refused: BTreeSet<Mac>,
    /// Rows written and octets sent, in order.
    pub trace: Vec<Trace>,
    /// Peers whose socket takes nothing: what it was given waits here.
    pub stalled: BTreeMap<usize, Vec<(ConnId, Bytes)>>,
}

impl Host {
    fn guarding(&mut self, port: IfIndex, change: GuardChange) {
        match change {
            GuardChange::On { allowed, .. } => {
                let set = (allowed.into_iter().collect(), 0);
                assert!(self.guarded.insert(port, set).is_none(), "{port:?} is guarded already");
            }
            GuardChange::Macs { add, remove } => {
                let (set, _) = self.guarded.get_mut(&port).expect("it is guarded");
                set.extend(add);
                set.retain(|m| !remove.contains(m));
            }
            GuardChange::Off => drop(self.guarded.remove(&port).expect("it is guarded")),
        }
    }
}

/// What a node did, in order.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Trace {
    /// The row of a MAC is written.
    Wrote(Mac, Option<Row>),
    /// A Type-2 route was sent: to whom, MAC and sequence.
    Told(usize, Mac, Seq),
}

/// A host that answers.
#[derive(Clone, Debug, PartialEq)]
pub struct Guest {
    pub node: usize,
    pub port: IfIndex,
    pub mac: Mac,
    pub ip: Ipv4Addr,
}

enum Due {
    Input(Input),
    Frame(IfIndex, Mac, Bytes),
}

pub struct World {
    pub now: Time,
    pub delay: Span,
    pub hosts: Vec<Host>,
    queue: BTreeMap<(Time, u64), (usize, Due)>,
    /// Hosts with a stack: they answer ARP for their addresses.
    pub guests: Vec<Guest>,
    /// Rows written sticky hold against frames, and the kernel says nothing of those.
    pub sticky_holds: bool,
    seq: u64,
    pub sent_bytes: u64,
    /// Connections from peers outside, and what was sent on them.
    pub outside: BTreeMap<(usize, ConnId), Vec<(Time, Bytes)>>,
}

impl World {
    pub fn new(n: usize, delay: Span) -> Self {
        Self::with(n, delay, |_| {})
    }

    pub fn with(n: usize, delay: Span, tweak: impl Fn(&mut Config)) -> Self {
        let hosts = (0..n)
            .map(|i| {
                let mut c = config(i, n);
                tweak(&mut c);
                Host {
                    node: Node::new(c.clone(), i as u64 + 1, Time(0)),
                    kept: BTreeMap::new(),
                    records: 0,
                    announced: vec![],
                    config: c,
                    starts: 1,
                    dead: false,
                    rows: BTreeMap::new(),
                    fdb: BTreeMap::new(),
                    events: vec![],
                    emitted: vec![],
                    encapsulated: vec![],
                    blocked: BTreeSet::new(),
                    guarded: BTreeMap::new(),
                    recalls: 0,
                    taps: vec![],
                    writes: 0,
                    paused: false,
                    conns: BTreeMap::new(),
                    accepted: 0,
                    replies: vec![],
                    answers: BTreeMap::new(),
                    refused: BTreeSet::new(),
                    trace: vec![],
                    stalled: BTreeMap::new(),
                }
            })
            .collect();
        let mut w = Self {
            now: Time(0),
            delay,
            hosts,
            queue: BTreeMap::new(),
            seq: 0,
            sent_bytes: 0,
            outside: BTreeMap::new(),
            guests: vec![],
            sticky_holds: false,
        };
        for i in 0..n {
            w.hosts[i].node.handle(Input::Wall { unix: 0 }, Time(0));
            w.devices(i, own_mac(i));
            w.kernel(i, KernelEvent::Synced);
        }
        w
    }

    /// Bridge, VXLAN device and ports of a node, all with this address.
    pub fn devices(&mut self, i: usize, base: Mac) {
        let vx = LinkKind::Vxlan(VxlanLink { vni: 100, local: Some(vtep(i)), port: 4789, learning: false });
        let bridge = link(BRIDGE, "br100", LinkKind::Bridge(BridgeLink::default()), None, base);
        self.kernel(i, KernelEvent::Link(bridge));
        self.kernel(i, KernelEvent::Link(link(VXLAN, "vx100", vx, Some(BRIDGE), base)));
        for (p, name) in [(P1, "p1"), (P2, "p2")] {
            let port = link(p, name, LinkKind::Other("veth".into()), Some(BRIDGE), base);
            self.kernel(i, KernelEvent::Link(port));
        }
    }

    /// N nodes, all sessions up, all tables exchanged.
    pub fn converged(n: usize, delay: Span) -> Self {
        let mut w = Self::new(n, delay);
        w.run_for(Span::secs(10));
        for i in 0..n {
            let s = w.status(i);
            assert!(s.converged, "node {i} has not converged: {s:?}");
        }
        w
    }

    pub fn kernel(&mut self, i: usize, ev: KernelEvent) {
        self.input(i, Input::Kernel(ev));
    }

    pub fn input(&mut self, i: usize, input: Input) {
        if self.hosts[i].dead {
            return;
        }
        self.hosts[i].node.handle(input, self.now);
        self.turn(i);
    }

    /// A frame of `mac` enters by `port`: the tap sees it, the bridge learns it.
    pub fn frame(&mut self, i: usize, port: IfIndex, mac: Mac, bytes: Option<Bytes>) {
        if let Some(bytes) = bytes.filter(|_| !self.hosts[i].dead) {
            self.hosts[i].node.handle(Input::Frame { port, bytes }, self.now);
        }
        if let Some((_, dropped)) = self.hosts[i].guarded.get_mut(&port).filter(|(ok, _)| !ok.contains(&mac))
        {
            *dropped += 1;
            self.turn(i);
            return;
        }
        let key = RowKey::Mac { bridge: BRIDGE, mac };
        if self.sticky_holds && matches!(self.hosts[i].rows.get(&key), Some(Row::Remote { sticky: true, .. }))
        {
            // The kernel lets no frame take such a row.
        } else if self.hosts[i].fdb.insert(mac, port) != Some(port) && !self.hosts[i].dead {
            let row = FdbRow::Bridge(bridge_row(mac, port, false));
            self.hosts[i].node.handle(Input::Kernel(KernelEvent::Fdb(row)), self.now);
        }
        self.turn(i);
    }

    /// The bridge drops a MAC (ageing, carrier loss).
    pub fn forget(&mut self, i: usize, mac: Mac) {
        if let Some(port) = self.hosts[i].fdb.remove(&mac) {
            self.kernel(i, KernelEvent::FdbGone(FdbRow::Bridge(bridge_row(mac, port, false))));
        }
    }

    fn turn(&mut self, i: usize) {
        while !self.hosts[i].dead {
            self.hosts[i].node.flush(self.now);
            while let Some(o) = self.hosts[i].node.poll_output() {
                self.output(i, o);
            }
            if self.hosts[i].paused {
                break;
            }
            let keys = self.hosts[i].node.want_mut().take_dirty(usize::MAX);
            if keys.is_empty() {
                break;
            }
            let results = keys.into_iter().map(|k| (k, self.write(i, k))).collect();
            self.hosts[i].node.handle(Input::Written(results), self.now);
        }
    }

    fn write(&mut self, i: usize, key: RowKey) -> WriteResult {
        let h = &mut self.hosts[i];
        let want = h.node.want().get(&key).copied();
        let had = h.rows.get(&key).copied();
        let mut changed = want != had;
        if let (RowKey::Mac { mac, .. }, Some(Row::Local { .. })) = (key, want)
            && h.refused.contains(&mac)
        {
            return WriteResult::Failed { errno: 1, text: "operation not permitted".into() };
        }
        if let RowKey::Mac { mac, .. } = key {
            h.trace.push(Trace::Wrote(mac, want));
        }
        match want {
            Some(row) => h.rows.insert(key, row),
            None => h.rows.remove(&key),
        };
        if let RowKey::Mac { mac, .. } = key {
            match want {
                Some(Row::Remote { .. }) => changed |= h.fdb.insert(mac, VXLAN) != Some(VXLAN),
                Some(Row::Local { port, .. }) => changed |= h.fdb.insert(mac, port) != Some(port),
                Some(Row::Cleared { port }) => {
                    if h.fdb.get(&mac) == Some(&port) {
                        h.fdb.remove(&mac);
                    }
                }
                _ => {
                    if h.fdb.get(&mac) == Some(&VXLAN) {
                        h.fdb.remove(&mac);
                    }
                }
            }
        }
        if changed {
            h.writes += 1;
            WriteResult::Done
        } else {
            WriteResult::Unchanged
        }
    }

    fn send(&mut self, to: usize, after: Span, input: Input) {
        self.seq += 1;
        self.queue.insert((self.now + after, self.seq), (to, Due::Input(input)));
    }

    /// What a host on this port says to an ARP request for its address, some microseconds later.
    fn answer_arp(&mut self, i: usize, port: IfIndex, f: &[u8]) {
        let request = f.len() >= 42 && f[12..14] == [8, 6] && f[20..22] == [0, 1];
        let found = self.guests.iter().find(|g| {
            (g.node, g.port) == (i, port) && request && f[..6] == g.mac.0 && f[38..42] == g.ip.octets()
        });
        let Some(g) = found else { return };
        let reply =
            [&f[6..12], &g.mac.0, &[8, 6, 0, 1, 8, 0, 6, 4, 0, 2], &g.mac.0, &g.ip.octets(), &f[22..32]]
                .concat();
        let due = Due::Frame(port, g.mac, Bytes::from(reply));
        self.seq += 1;
        self.queue.insert((self.now + Span::micros(100), self.seq), (i, due));
    }

    fn output(&mut self, i: usize, o: Output) {
        match o {
            Output::Dial { conn, to, .. } => {
                let Some(j) = (0..self.hosts.len()).find(|j| vtep(*j) == to.ip()) else { return };
                if self.hosts[j].dead {
                    let why = "connection refused".into();
                    return self.send(i, self.delay, Input::Conn { conn, event: ConnEvent::Failed { why } });
                }
                self.hosts[j].accepted += 1;
                let theirs = ConnId(self.hosts[j].accepted);
                self.hosts[i].conns.insert(conn, Pipe { to: j, to_conn: theirs, room: 65536 });
                self.hosts[j].conns.insert(theirs, Pipe { to: i, to_conn: conn, room: 65536 });
                let (a, b) = (SocketAddr::new(vtep(i), 40000), SocketAddr::new(vtep(j), 179));
                let d = self.delay;
                self.send(
                    j,
                    d,
                    Input::Conn { conn: theirs, event: ConnEvent::Accepted { remote: a, local: b } },
                );
                self.send(j, d, Input::Conn { conn: theirs, event: ConnEvent::Room(65536) });
                self.send(i, d + d, Input::Conn { conn, event: ConnEvent::Connected { local: a } });
                self.send(i, d + d, Input::Conn { conn, event: ConnEvent::Room(65536) });
            }
            Output::Send { conn, bytes } => {
                self.check_kept(i, &bytes);
                let to = self.hosts[i].conns.get(&conn).map(|p| p.to);
                if let Some(waiting) = to.and_then(|to| self.hosts[i].stalled.get_mut(&to)) {
                    return waiting.push((conn, bytes));
                }
                self.trace_routes(i, conn, &bytes);
                self.sent_bytes += bytes.len() as u64;
                let d = self.delay;
                if let Some(sent) = self.outside.get_mut(&(i, conn)) {
                    sent.push((self.now, bytes));
                    self.send(i, d, Input::Conn { conn, event: ConnEvent::Room(65536) });
                } else if let Some(p) = self.hosts[i].conns.get(&conn) {
                    let (to, c) = (p.to, p.to_conn);
                    self.send(to, d, Input::Conn { conn: c, event: ConnEvent::Bytes(bytes) });
                    self.send(i, d, Input::Conn { conn, event: ConnEvent::Room(65536) });
                }
            }
            Output::Hangup { conn } => {
                let d = self.delay;
                self.outside.remove(&(i, conn));
                if let Some(p) = self.hosts[i].conns.remove(&conn) {
                    let event = ConnEvent::Closed { why: "closed by peer".into() };
                    self.send(p.to, d, Input::Conn { conn: p.to_conn, event });
                }
            }
            Output::Tap(p) => self.hosts[i].taps.push(p),
            Output::Untap(p) => self.hosts[i].taps.retain(|t| *t != p),
            Output::Emit { port, frame } => {
                self.answer_arp(i, port, &frame);
                self.hosts[i].emitted.push((port, frame));
            }
            Output::Encap { vtep, frame, .. } => self.hosts[i].encapsulated.push((vtep, frame)),
            Output::Blocked(set) => self.hosts[i].blocked = set,
            Output::Guard { port, change } => self.hosts[i].guarding(port, change),
            Output::Event { at, event, .. } => self.hosts[i].events.push((at, event)),
            Output::Reply { id, reply } if id >= FIRST_STEP => {
                assert!(self.hosts[i].answers.insert(id, reply).is_none(), "step {id} is answered twice");
            }
            Output::Reply { reply, .. } => self.hosts[i].replies.push(reply),
            Output::Persist(records) => {
                let macs: BTreeSet<_> = records.iter().map(|r| (r.vni, r.mac)).collect();
                assert_eq!(macs.len(), records.len(), "one record per MAC and flush: {records:?}");
                self.hosts[i].records += records.len() as u64;
                self.hosts[i].kept.extend(records.into_iter().map(|r| ((r.vni, r.mac), r)));
            }
            Output::Recall(bridge) => {
                assert_eq!(bridge, BRIDGE);
                self.hosts[i].recalls += 1;
                let rows = self.hosts[i].fdb.iter().map(|(m, p)| bridge_row(*m, *p, false)).collect();
                self.hosts[i].node.handle(Input::Recalled(rows), self.now);
            }
            Output::Resync | Output::Listen(_) | Output::Vteps(_) | Output::Stopped => {}
        }
    }

    /// No sequence reaches a peer that the state directory does not have (EVPN-MOB-12): `kill -9` may come between
    /// any two outputs.
    fn check_kept(&mut self, i: usize, bytes: &Bytes) {
        if bytes.get(18) != Some(&2) {
            return;
        }
        let ctx = DecodeCtx { ibgp: true, max_len: 65_535, ..DecodeCtx::default() };
        let Ok(Message::Update(u)) = evpn::wire::decode(bytes, &ctx).map(|d| d.message) else { return };
        let Some(Nlri::Evpn(routes)) = u.reach.map(|r| r.nlri) else { return };
        let seq = u.attrs.mobility().map_or(Seq::ZERO, |(s, _)| s);
        for r in routes {
            let EvpnNlri { route: EvpnRoute::MacIp(m), .. } = r else { continue };
            let (now, h) = (self.now, &mut self.hosts[i]);
            h.announced.push((now, m.mac, seq));
            if seq != Seq::ZERO {
                let kept = h.kept.get(&(vni(), m.mac));
                assert!(
                    kept.is_some_and(|k| !seq.newer_than(k.seq)),
                    "node {i} tells {} with {seq} and has kept {kept:?}",
                    m.mac
                );
            }
        }
    }

    fn trace_routes(&mut self, i: usize, conn: ConnId, bytes: &Bytes) {
        let Some(to) = self.hosts[i].conns.get(&conn).map(|p| p.to) else { return };
        let ctx = DecodeCtx { ibgp: true, max_len: 65_535, ..DecodeCtx::default() };
        let Ok(Message::Update(u)) = evpn::wire::decode(bytes, &ctx).map(|d| d.message) else { return };
        let Some(Nlri::Evpn(routes)) = u.reach.map(|r| r.nlri) else { return };
        let seq = u.attrs.mobility().map_or(Seq::ZERO, |(s, _)| s);
        for r in routes {
            if let EvpnNlri { route: EvpnRoute::MacIp(m), .. } = r {
                self.hosts[i].trace.push(Trace::Told(to, m.mac, seq));
            }
        }
    }

    /// A peer's socket takes nothing any more.
    pub fn stall(&mut self, i: usize, to: usize) {
        self.hosts[i].stalled.entry(to).or_default();
    }

    /// It takes everything again, and what has waited.
    pub fn unstall(&mut self, i: usize, to: usize) {
        for (conn, bytes) in self.hosts[i].stalled.remove(&to).unwrap_or_default() {
            self.output(i, Output::Send { conn, bytes });
        }
    }

    /// A step of a prepared move. Returns its number, by which the answer is found.
    pub fn step(&mut self, i: usize, mac: Mac, ips: &[IpAddr], step: MoveStep) -> u64 {
        self.step_of(i, mac, ips, step, false)
    }

    /// As [`World::step`], with what is said at the source's stop or waits for it (PIT-26).
    pub fn step_at_stop(&mut self, i: usize, mac: Mac, step: MoveStep) -> u64 {
        self.step_of(i, mac, &[], step, true)
    }

    fn step_of(&mut self, i: usize, mac: Mac, ips: &[IpAddr], step: MoveStep, at_stop: bool) -> u64 {
        self.seq += 1;
        let id = FIRST_STEP + self.seq;
        let by = Requester::Api;
        let request = MoveRequest { vni: Some(vni()), mac, ips: ips.to_vec(), step, by, at_stop };
        self.input(i, Input::Command { id, command: Command::Move(request) });
        id
    }

    /// `kill -9`: connections break, the kernel keeps its rows, the state directory is what was told so far.
    pub fn kill(&mut self, i: usize) {
        for j in 0..self.hosts.len() {
            self.cut(i, j);
        }
        self.queue.retain(|_, (to, _)| *to != i);
        self.hosts[i].taps.clear();
        self.hosts[i].starts += 1;
        let (config, starts) = (self.hosts[i].config.clone(), self.hosts[i].starts);
        self.hosts[i].node = Node::new(config, (starts << 8) + i as u64 + 1, self.now);
        self.hosts[i].dead = true;
    }

    /// The daemon starts again after [`World::kill`], with the state directory or with an empty one; wall clock
    /// and boot clock agree.
    pub fn start(&mut self, i: usize, with_state: bool) {
        if !with_state {
            self.hosts[i].kept.clear();
        }
        let unix = self.now.0 / 1_000_000_000;
        let records: Vec<Record> = self.hosts[i].kept.values().copied().collect();
        self.hosts[i].node.handle(Input::Wall { unix }, self.now);
        self.hosts[i].node.handle(Input::Restored(records), self.now);
        self.hosts[i].dead = false;
        self.hosts[i].rows.clear();
        self.devices(i, own_mac(i));
        let fdb: Vec<(Mac, IfIndex)> = self.hosts[i].fdb.iter().map(|(m, p)| (*m, *p)).collect();
        for (mac, port) in fdb {
            let row = FdbRow::Bridge(bridge_row(mac, port, port == VXLAN));
            self.kernel(i, KernelEvent::Fdb(row));
        }
        self.kernel(i, KernelEvent::Synced);
    }

    /// The daemon starts again after [`World::kill`] with what it had kept; the kernel tells what `tables` says.
    pub fn start_with(&mut self, i: usize, tables: impl FnOnce(&mut Self)) {
        let unix = self.now.0 / 1_000_000_000;
        self.hosts[i].node.handle(Input::Wall { unix }, self.now);
        self.hosts[i].dead = false;
        self.hosts[i].rows.clear();
        tables(self);
    }

    pub fn run_for(&mut self, span: Span) {
        let end = self.now + span;
        for _ in 0..10_000_000u64 {
            let timer = (0..self.hosts.len())
                .filter(|i| !self.hosts[*i].dead)
                .filter_map(|i| self.hosts[i].node.poll_timeout().map(|(t, why)| (t.max(self.now), i, why)))
                .min_by_key(|(t, i, _)| (*t, *i));
            let packet = self.queue.first_key_value().map(|((t, _), _)| *t);
            match (packet, timer) {
                (Some(p), t) if p <= end && t.is_none_or(|(t, ..)| p <= t) => {
                    let (_, (i, due)) = self.queue.pop_first().expect("just looked at it");
                    self.now = p;
                    match due {
                        Due::Input(input) => self.input(i, input),
                        Due::Frame(port, mac, bytes) => self.frame(i, port, mac, Some(bytes)),
                    }
                }
                (_, Some((t, i, _))) if t <= end => {
                    self.now = t;
                    self.turn(i);
                }
                _ => {
                    self.now = end;
                    return;
                }
            }
        }
        panic!("the world never comes to rest");
    }

    pub fn ask(&mut self, i: usize, show: Show) -> view::Rows {
        let q = Query { show, filter: MacFilter::default(), cursor: None, limit: 256 };
        self.hosts[i].replies.clear();
        self.input(i, Input::Command { id: 1, command: Command::Show(q) });
        match self.hosts[i].replies.pop() {
            Some(Reply::Page(p)) => p.rows,
            other => panic!("no page but {other:?}"),
        }
    }

    pub fn why(&mut self, i: usize, vni: Vni, about: About) -> Result<view::WhyView, String> {
        self.hosts[i].replies.clear();
        self.input(i, Input::Command { id: 1, command: Command::Why(WhyRequest { vni, about }) });
        match self.hosts[i].replies.pop() {
            Some(Reply::Why(v)) => Ok(*v),
            Some(Reply::Error(e)) => Err(e),
            other => panic!("no answer but {other:?}"),
        }
    }

    /// Complete reads asked for since the start.
    pub fn recalls(&self, i: usize) -> u64 {
        self.hosts[i].recalls
    }

    pub fn duplicates(&mut self, i: usize) -> Vec<view::DuplicateView> {
        match self.ask(i, Show::Duplicates) {
            view::Rows::Duplicates(v) => v,
            other => panic!("{other:?}"),
        }
    }

    /// A command and its answer.
    pub fn command(&mut self, i: usize, command: Command) -> Reply {
        self.hosts[i].replies.clear();
        self.input(i, Input::Command { id: 1, command });
        self.hosts[i].replies.pop().expect("an answer")
    }

    pub fn status(&mut self, i: usize) -> view::StatusView {
        match self.ask(i, Show::Status) {
            view::Rows::Status(mut v) => v.remove(0),
            other => panic!("{other:?}"),
        }
    }

    pub fn macs(&mut self, i: usize) -> Vec<view::MacView> {
        match self.ask(i, Show::Macs) {
            view::Rows::Macs(v) => v,
            other => panic!("{other:?}"),
        }
    }

    pub fn vnis(&mut self, i: usize) -> Vec<view::VniView> {
        match self.ask(i, Show::Vnis) {
            view::Rows::Vnis(v) => v,
            other => panic!("{other:?}"),
        }
    }

    pub fn moves(&mut self, i: usize) -> Vec<view::MoveView> {
        match self.ask(i, Show::Moves) {
            view::Rows::Moves(v) => v,
            other => panic!("{other:?}"),
        }
    }

    pub fn mac_row(&self, i: usize, mac: Mac) -> Option<Row> {
        self.hosts[i].rows.get(&RowKey::Mac { bridge: BRIDGE, mac }).copied()
    }

    pub fn neigh_row(&self, i: usize, ip: IpAddr) -> Option<Row> {
        self.hosts[i].rows.get(&RowKey::Neigh { dev: BRIDGE, ip }).copied()
    }

    /// The connection of a node to another.
    pub fn conn_to(&self, i: usize, to: usize) -> ConnId {
        let up = self.hosts[i].conns.iter().filter(|(_, p)| p.to == to).map(|(c, _)| *c).next();
        up.expect("they are connected")
    }

    /// The other end's id of a connection.
    pub fn other_end(&self, i: usize, conn: ConnId) -> ConnId {
        self.hosts[i].conns[&conn].to_conn
    }

    /// A peer outside connects to a node. What it is sent is in [`World::outside`].
    pub fn accept(&mut self, i: usize, from: IpAddr) -> ConnId {
        self.hosts[i].accepted += 1;
        let conn = ConnId(self.hosts[i].accepted);
        self.outside.insert((i, conn), Vec::new());
        let (remote, local) = (SocketAddr::new(from, 40000), SocketAddr::new(vtep(i), 179));
        for event in [ConnEvent::Accepted { remote, local }, ConnEvent::Room(65536)] {
            self.send(i, Span::ZERO, Input::Conn { conn, event });
        }
        conn
    }

    /// Something happens on a connection from outside, one delay from now.
    pub fn outside_event(&mut self, i: usize, conn: ConnId, event: ConnEvent) {
        self.send(i, self.delay, Input::Conn { conn, event });
    }

    /// Cuts all connections between two nodes, or of one with itself: both see them closed.
    pub fn cut(&mut self, a: usize, b: usize) {
        let gone: VecDeque<ConnId> =
            self.hosts[a].conns.iter().filter(|(_, p)| p.to == b).map(|(c, _)| *c).collect();
        for conn in gone {
            let p = self.hosts[a].conns.remove(&conn).expect("listed");
            self.hosts[b].conns.remove(&p.to_conn);
            let closed = || ConnEvent::Closed { why: "cut".into() };
            self.send(a, Span::ZERO, Input::Conn { conn, event: closed() });
            self.send(b, Span::ZERO, Input::Conn { conn: p.to_conn, event: closed() });
        }
    }
}

pub fn bridge_row(mac: Mac, port: IfIndex, ext_learned: bool) -> BridgeFdb {
    BridgeFdb {
        bridge: BRIDGE,
        port,
        mac,
        vlan: 0,
        ext_learned,
        sticky: false,
        is_static: false,
        permanent: false,
    }
}
