//! A few whole nodes on one virtual clock: connections are byte queues with a one-way delay, and each kernel
//! is a table of rows where a frame from an access port takes its MAC over, as the real bridge does.

#![allow(dead_code, unreachable_pub)]

mod ask;
mod config;
mod conns;
pub mod frames;
mod kernel;
pub mod rng;
pub mod steps;
mod underlay;

#[allow(unused_imports)] // each test uses some of them
pub use config::{BRIDGE, P1, P2, VXLAN, bridge_row, config, mac, own_mac, probe_mac, vni, vtep};

use bytes::Bytes;
use evpn::fabric::{FdbRow, KernelEvent, Row, RowKey};
use evpn::hosts::KeptHost;
use evpn::mobility::Record;
use evpn::node::{
    Command, Config, ConnEvent, Event, GuardChange, HoldWord, Input, MoveRequest, MoveStep, Node, Output,
    PortRules, Reply, Requester,
};
use evpn::session::GracefulMode;
use evpn::types::{ConnId, IfIndex, Mac, Seq, Span, Time, Vni};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// Numbers of commands from here on belong to [`World::step`].
const FIRST_STEP: u64 = 1 << 32;

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
    /// Hold ports that were asked for, by name.
    pub hold_ports: Vec<String>,
    /// What is to be done with frames for a MAC that come out of the hold port, in order.
    pub held: Vec<(IfIndex, Mac, HoldWord)>,
    pub blocked: BTreeSet<(IfIndex, Mac)>,
    /// Ports that let only these in, and how many frames they have dropped.
    pub guarded: BTreeMap<IfIndex, (BTreeSet<Mac>, u64)>,
    /// What is dropped where it comes in.
    pub rules: BTreeMap<IfIndex, PortRules>,
    recalls: u64,
    pub taps: Vec<IfIndex>,
    pub writes: u64,
    /// Kernel writes wait.
    pub paused: bool,
    /// The state directory: what a kill leaves.
    pub kept: BTreeMap<(Vni, Mac), Record>,
    /// Local bindings in it.
    pub kept_hosts: BTreeMap<IpAddr, KeptHost>,
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
    /// Its UPDATEs are lost on the way: a peer that is up and tells nothing.
    pub mute: bool,
}

impl Host {
    fn ruled(&mut self, port: IfIndex, rules: PortRules) {
        if rules.is_empty() {
            assert!(self.rules.remove(&port).is_some(), "{port:?} has no rules");
        } else {
            assert!(self.rules.insert(port, rules).is_none(), "{port:?} has rules already");
        }
    }

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
    /// Out of the overlay.
    Overlay(Bytes),
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
                    kept_hosts: BTreeMap::new(),
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
                    hold_ports: vec![],
                    held: vec![],
                    blocked: BTreeSet::new(),
                    guarded: BTreeMap::new(),
                    rules: BTreeMap::new(),
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
                    mute: false,
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

    /// As [`World::converged`], of nodes that keep nothing of a peer whose session is down.
    pub fn forgetful(n: usize, delay: Span) -> Self {
        let mut w = Self::with(n, delay, |c| {
            c.neighbors.iter_mut().for_each(|n| n.restart.graceful.mode = GracefulMode::Off);
        });
        w.run_for(Span::secs(10));
        assert!((0..n).all(|i| w.status(i).converged));
        w
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

    pub fn input(&mut self, i: usize, input: Input) {
        if self.hosts[i].dead {
            return;
        }
        self.hosts[i].node.handle(input, self.now);
        self.turn(i);
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

    fn send(&mut self, to: usize, after: Span, input: Input) {
        self.seq += 1;
        self.queue.insert((self.now + after, self.seq), (to, Due::Input(input)));
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
            Output::Send { conn, bytes } if self.hosts[i].mute && bytes.get(18) == Some(&2) => {
                let event = ConnEvent::Room(65536 - bytes.len());
                self.send(i, self.delay, Input::Conn { conn, event });
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
            Output::Encap { vtep, frame, .. } => {
                self.encapsulate(i, vtep, frame.clone());
                // How far VTEPs are they find out among themselves.
                if !(0..self.hosts.len()).any(|j| frame[..6] == probe_mac(j).0) {
                    self.hosts[i].encapsulated.push((vtep, frame));
                }
            }
            Output::Blocked(set) => self.hosts[i].blocked = set,
            Output::PortRules { port, rules, .. } => self.hosts[i].ruled(port, rules),
            Output::Guard { port, change } => self.hosts[i].guarding(port, change),
            Output::Event { at, event, .. } => self.hosts[i].events.push((at, event)),
            Output::Reply { id, reply } if id >= FIRST_STEP => {
                assert!(self.hosts[i].answers.insert(id, reply).is_none(), "step {id} is answered twice");
            }
            Output::Reply { reply, .. } => self.hosts[i].replies.push(reply),
            Output::KeepHosts(hosts) => {
                for h in hosts {
                    self.hosts[i].kept_hosts.remove(&h.ip);
                    if h.here {
                        self.hosts[i].kept_hosts.insert(h.ip, h);
                    }
                }
            }
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
            Output::HoldPort { bridge, name, .. } => {
                assert_eq!(bridge, BRIDGE);
                self.hosts[i].hold_ports.push(name);
            }
            Output::HoldPortGone { .. } => self.hosts[i].held.clear(),
            Output::Hold { port, mac, word } => self.hosts[i].held.push((port, mac, word)),
            Output::Bfd { .. } | Output::Resync | Output::Listen(_) | Output::Vteps(_) | Output::Stopped => {}
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
        // The table goes with the daemon that has it.
        self.hosts[i].rules.clear();
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
            self.hosts[i].kept_hosts.clear();
        }
        let unix = self.now.0 / 1_000_000_000;
        let records: Vec<Record> = self.hosts[i].kept.values().copied().collect();
        self.hosts[i].node.handle(Input::Wall { unix }, self.now);
        self.hosts[i].node.handle(Input::Restored(records), self.now);
        let hosts = self.hosts[i].kept_hosts.values().copied().collect();
        self.hosts[i].node.handle(Input::RestoredHosts(hosts), self.now);
        self.hosts[i].node.handle(Input::Restarted, self.now);
        self.come_up(i);
    }

    /// The machine boots after [`World::kill`]: nothing is left of what was.
    pub fn boot(&mut self, i: usize) {
        let h = &mut self.hosts[i];
        (h.kept, h.kept_hosts, h.fdb) = <_>::default();
        self.come_up(i);
    }

    fn come_up(&mut self, i: usize) {
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
        let records = self.hosts[i].kept.values().copied().collect();
        self.hosts[i].node.handle(Input::Restored(records), self.now);
        let hosts = self.hosts[i].kept_hosts.values().copied().collect();
        self.hosts[i].node.handle(Input::RestoredHosts(hosts), self.now);
        self.hosts[i].node.handle(Input::Restarted, self.now);
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
                        Due::Overlay(bytes) => self.out_of_overlay(i, bytes),
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
}
