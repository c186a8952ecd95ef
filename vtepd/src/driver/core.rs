//! The core loop: everything that can happen goes into the node, everything the node wants goes out, in one
//! turn on one thread. A kernel notification reaches the BGP sockets without a hop between tasks.
//!
//! One turn: take in what is ready, up to a budget from each source (signals, kernel, frames, connections,
//! commands); `flush`; hand out outputs; write rows; tell the node how the writes ended and how much room there
//! is, until nothing is news. Then sleep until something is ready or the node's timer is due.

mod sources;

use super::bfd::{self, Bfd};
use super::clock;
use super::conns::{Conns, ListenFault};
use super::encap::Encap;
use super::eventlog::EventLog;
use super::guards::Guards;
use super::holds::Holds;
use super::host::device_exists;
use super::requests::Requests;
use super::rules::Rules;
use super::taps::{Frame, Taps};
use super::timer::Timer;
use super::underlay::Underlay;
use super::watch::Watch;
use crate::config::keys::Keys;
use crate::state::{Keeper, Restored};
use crate::warden;
use evpn::fabric::{KernelEvent, RowKey, WriteResult};
use evpn::node::{ConnEvent, Event, Input, Node, Output};
use evpn::types::{ConnId, Span, Time};
use netlink::linux::{Dataplane, HoldWant};
use netlink::setup::DeviceProblem;
use std::collections::BTreeSet;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Kernel notifications per turn.
const KERNEL_BUDGET: usize = 1024;
/// Rounds of flush, write and room per turn; after that the sources are asked again first.
const ROUNDS: usize = 16;
/// Time for the last words when asked to stop.
const STOP_LIMIT: Span = Span::secs(2);
/// Between looks at what nobody reports: audit of rows, problems of devices.
const HOUSEKEEPING: Span = Span::secs(1);
/// Rows compared per look.
const AUDIT_ROWS: usize = 512;
/// Looks between readings of the wall clock.
const WALL_EVERY: u32 = 60;

/// Looks between those at the settings of gateways.
const GATEWAYS_EVERY: u32 = 10;

/// How far a stop has come.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Stop {
    No,
    /// The node was told.
    Asked {
        until: Time,
    },
    /// The node has handed over all that had to be sent.
    Flushing {
        until: Time,
    },
    /// A second signal.
    Now,
}

/// Why the loop ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum End {
    /// All peers were told.
    Clean,
    /// The time for it ran out.
    Late,
    /// A second signal came.
    Forced,
}

/// Something without which the daemon cannot go on.
#[derive(Debug, thiserror::Error)]
pub(super) enum CoreFault {
    #[error("cannot listen for BGP on {on}: {why}")]
    Listen { on: SocketAddr, why: io::Error },
    #[error("the kernel does not take the TCP MD5 key of neighbour {peer}: {why}")]
    Key { peer: IpAddr, why: io::Error },
    #[error("the kernel interface failed: {0}")]
    Kernel(io::Error),
    #[error("{0}")]
    Io(#[from] io::Error),
}

impl CoreFault {
    fn listen(on: SocketAddr, fault: ListenFault) -> Self {
        match fault {
            ListenFault::Socket(why) => Self::Listen { on, why },
            ListenFault::Key { peer, why } => Self::Key { peer, why },
        }
    }
}

/// See the module. The watches stand before the dataplane whose descriptors they watch.
#[derive(Debug)]
pub(super) struct Core {
    node: Node,
    monitor: Watch,
    thread: Watch,
    plane: Dataplane,
    conns: Conns,
    taps: Taps,
    encap: Encap,
    requests: Requests,
    /// What outlives this process.
    keeper: Keeper,
    log: EventLog,
    timer: Timer,
    term: Signal,
    int: Signal,
    hup: Signal,
    /// We go, and do not come back soon: nobody is to keep our routes.
    quit: Signal,
    stop: Stop,
    /// More waits than a turn took.
    again: bool,
    /// Nothing was ready when it was last looked.
    slept: bool,
    ready_said: bool,
    housekeeping: Time,
    looks: u32,
    underlay: Underlay,
    guards: Guards,
    rules: Rules,
    warden: Option<warden::Link>,
    holds: Holds,
    bfd: Bfd,
    /// Frames that a hold port has room for in the kernel.
    hold_queue: u32,
    /// Neighbours that have not told all their routes yet; the source filter waits for them, or until.
    unsettled: BTreeSet<IpAddr>,
    filter_at: Option<Time>,
    problems: Vec<DeviceProblem>,
    scratch: Scratch,
}

/// Buffers that keep their memory between turns.
#[derive(Debug, Default)]
struct Scratch {
    kernel: Vec<KernelEvent>,
    written: Vec<(RowKey, WriteResult)>,
    frames: Vec<Frame>,
    conns: Vec<(ConnId, ConnEvent)>,
    inputs: Vec<Input>,
    /// Logged and published after the turn's sends and writes, not before.
    events: Vec<(Time, u64, Event)>,
}

impl Core {
    /// The node's first outputs (listening sockets) are carried out before the kernel is touched: `plane` is
    /// opened after that.
    pub(super) fn start(
        (config, keys): (evpn::node::Config, Keys),
        seed: u64,
        source_filter: bool,
        requests: Requests,
        (mut keeper, restored): (Keeper, Restored),
        open: impl FnOnce(&Node) -> io::Result<Dataplane>,
    ) -> Result<Self, CoreFault> {
        let at = clock::now();
        let mut conns = Conns::new(&config, keys);
        let mut node = Node::new(config.clone(), seed, at);
        node.handle(Input::Wall { unix: clock::unix_seconds() }, at);
        for event in keeper.news() {
            node.handle(Input::Tell(event), at);
        }
        node.handle(Input::Restored(restored.records), at);
        node.handle(Input::RestoredHosts(restored.hosts), at);
        // BGP-GR-02: not after a boot, and not if somebody has removed the devices.
        if restored.same_boot && config.vnis.iter().all(|v| device_exists(&v.vxlan)) {
            node.handle(Input::Restarted, at);
        }
        node.flush(at);
        let mut early = Vec::new();
        while let Some(output) = node.poll_output() {
            match output {
                Output::Listen(on) => conns.listen(on).map_err(|e| CoreFault::listen(on, e))?,
                other => early.push(other),
            }
        }
        // Before the tables are read: what an earlier run's warden deletes later would be missing from them.
        let warden = warden::Link::call(&config);
        let plane = open(&node).map_err(CoreFault::Kernel)?;
        let mut core = Self {
            node,
            monitor: Watch::new(plane.monitor_fd())?,
            thread: Watch::new(plane.thread_fd())?,
            plane,
            conns,
            taps: Taps::default(),
            encap: Encap::new(config.vtep, config.udp_port),
            requests,
            keeper,
            log: EventLog::start()?,
            timer: Timer::new()?,
            term: signal(SignalKind::terminate())?,
            int: signal(SignalKind::interrupt())?,
            hup: signal(SignalKind::hangup())?,
            quit: signal(SignalKind::quit())?,
            stop: Stop::No,
            again: true,
            slept: false,
            ready_said: false,
            housekeeping: at + HOUSEKEEPING,
            looks: 0,
            guards: Guards::default(),
            rules: Rules::default(),
            warden,
            holds: Holds::new(&config.mobility),
            bfd: Bfd::new(seed)?,
            hold_queue: config.mobility.hold_frames,
            underlay: Underlay::start(config.vtep, config.udp_port)?,
            unsettled: config.neighbors.iter().map(|n| n.address).collect(),
            filter_at: source_filter.then_some(at + config.restart_time),
            problems: Vec::new(),
            scratch: Scratch::default(),
        };
        for output in early {
            core.carry_out(output)?;
        }
        Ok(core)
    }

    /// Runs until stopped.
    pub(super) async fn run(&mut self) -> Result<End, CoreFault> {
        loop {
            poll_fn(|cx| self.poll_inputs(cx)).await?;
            self.turn()?;
            if let Some(end) = self.ended() {
                return Ok(end);
            }
            // Lets the reactor look at all sources, so that one which is always ready cannot hide the others.
            tokio::task::yield_now().await;
        }
    }

    /// Ends the kernel thread. Devices and rows stay: forwarding goes on while no daemon runs.
    pub(super) fn close(self) -> io::Result<()> {
        let Self { monitor, thread, plane, keeper, .. } = self;
        drop((monitor, thread));
        keeper.close();
        plane.stop(false)
    }

    fn ended(&self) -> Option<End> {
        match self.stop {
            Stop::No => None,
            Stop::Now => Some(End::Forced),
            Stop::Flushing { .. } if self.conns.at_rest() => Some(End::Clean),
            Stop::Asked { until } | Stop::Flushing { until } => (clock::now() >= until).then_some(End::Late),
        }
    }

    /// For the API.
    pub(super) fn bfd(&self) -> bfd::Asker {
        self.bfd.asker()
    }

    fn tell_conns(&mut self, at: Time) {
        for (conn, event) in self.scratch.conns.drain(..) {
            self.node.handle(Input::Conn { conn, event }, at);
        }
    }

    /// What the node asked for again, a piece in each turn.
    fn tell_recalled(&mut self, at: Time) {
        let (rows, more) = self.plane.recalled(KERNEL_BUDGET);
        if !rows.is_empty() {
            self.node.handle(Input::Recalled(rows), at);
        }
        self.again |= more;
    }

    /// Decides and acts until nothing is news.
    fn turn(&mut self) -> Result<(), CoreFault> {
        let now = clock::now();
        self.conns.expire(now);
        if now >= self.housekeeping {
            self.keep_house(now);
        }
        self.tell_recalled(now);
        let mut news = true;
        for _ in 0..ROUNDS {
            news = self.round()?;
            if !news {
                break;
            }
        }
        self.again |= news;
        for (at, n, event) in self.scratch.events.drain(..) {
            if let Event::EndOfRib { address, .. } = &event {
                self.unsettled.remove(address);
            }
            self.requests.publish(at, n, &event);
            self.log.push(at, n, event);
        }
        let stop = match self.stop {
            Stop::Asked { until } | Stop::Flushing { until } => Some(until),
            Stop::No | Stop::Now => None,
        };
        let node = self.node.poll_timeout().map(|(at, _why)| at);
        let holds = self.holds.deadline();
        let taps = self.taps.deadline();
        let at = [node, self.conns.deadline(), stop, holds, taps, Some(self.housekeeping)]
            .into_iter()
            .flatten()
            .min();
        // Work that is left over from this turn goes on after one look at the sources, without a timer.
        if at.is_some_and(|at| at <= clock::now()) {
            self.again = true;
            return Ok(());
        }
        self.timer.set(at)?;
        Ok(())
    }

    /// One flush with what follows from it. Returns whether the node was told something new.
    fn round(&mut self) -> Result<bool, CoreFault> {
        self.node.flush(clock::now());
        while let Some(output) = self.node.poll_output() {
            self.carry_out(output)?;
        }
        // BGP first: an origination or a won move never waits for the kernel. What must wait for the kernel, a
        // withdrawal after a lost move (EVPN-MOB-07), the node holds back until `Written`.
        self.conns.write_out();
        // The sockets have it now, not when the kernel has answered; move records say when.
        let sent = clock::now();
        self.conns.news_of_room(&mut self.scratch.conns);
        let mut written = std::mem::take(&mut self.scratch.written);
        // A daemon that stops leaves its rows: forwarding goes on, and the next one adopts them.
        if self.stop == Stop::No {
            self.plane.write(self.node.want_mut(), &mut written).map_err(CoreFault::Kernel)?;
        }
        let mut news = !self.scratch.conns.is_empty();
        self.tell_conns(sent);
        if !written.is_empty() {
            news = true;
            self.node.handle(Input::Written(written), clock::now());
        }
        Ok(news)
    }

    fn carry_out(&mut self, output: Output) -> Result<(), CoreFault> {
        match output {
            Output::Listen(on) => self.conns.listen(on).map_err(|e| CoreFault::listen(on, e))?,
            Output::Dial { conn, to, from, hops } => self.conns.dial(conn, to, from, hops),
            Output::Send { conn, bytes } => self.conns.send(conn, bytes),
            Output::Hangup { conn } => self.conns.hangup(conn),
            Output::Bfd { peer, want } => self.bfd.order(peer, want),
            Output::Tap(port) => {
                if let Err(e) = self.taps.open(port) {
                    let device = self.plane.mirror().name(port);
                    tracing::warn!(device, error = %e, "cannot watch the frames of a port");
                }
            }
            Output::Untap(port) => self.taps.close(port),
            Output::Emit { port, frame } => {
                if let Err(e) = self.taps.send(port, &frame) {
                    tracing::debug!(port = port.0, error = %e, "a frame could not be sent");
                }
            }
            Output::Encap { vni, vtep, frame } => {
                if let Err(e) = self.encap.send(vni, vtep, &frame) {
                    tracing::debug!(%vni, %vtep, error = %e, "a frame could not be sent to a VTEP");
                }
            }
            // Once per flush, and before the octets that tell a peer: those go out in `write_out`.
            Output::Persist(records) => self.keeper.append(&records),
            Output::KeepHosts(hosts) => self.keeper.keep_hosts(&hosts),
            Output::Blocked(set) => self.underlay.block(set),
            Output::Guard { port, change } => self.guards.order(port, |o| o.add(change)),
            Output::PortRules { port, device, rules } => self.rules.order(port, |o| *o = (device, rules)),
            Output::HoldPort { vni, bridge, name } => {
                self.holds.remove(vni);
                let queue = self.hold_queue;
                self.plane
                    .make_hold_port(HoldWant { vni, bridge, name, queue })
                    .map_err(CoreFault::Kernel)?;
            }
            Output::HoldPortGone { vni } => {
                self.holds.remove(vni);
                self.plane.forget_hold_port(vni);
            }
            Output::Hold { port, mac, word } => self.holds.word(port, mac, word),
            Output::Resync => self.plane.resync().map_err(CoreFault::Kernel)?,
            Output::Recall(bridge) => {
                self.plane.recall(bridge);
                self.again = true;
            }
            Output::Vteps(vteps) => self.underlay.set_vteps(vteps),
            Output::Reply { id, reply } => {
                let mut counted = self.keeper.counters().to_vec();
                counted.push(("connections_from_strangers", self.conns.strangers()));
                counted.push(("gateway_repairs", self.plane.gateway_repairs()));
                self.requests.answer(id, reply, self.plane.mirror(), &self.problems, &counted);
            }
            Output::Event { at, n, event } => self.scratch.events.push((at, n, event)),
            Output::Stopped => {
                if let Stop::Asked { until } = self.stop {
                    self.stop = Stop::Flushing { until };
                }
            }
        }
        Ok(())
    }

    fn say_ready(&mut self) {
        if !self.ready_said {
            self.ready_said = true;
            tracing::info!("all kernel tables are read, ready");
            let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
        }
    }

    /// What nobody reports.
    fn keep_house(&mut self, now: Time) {
        self.housekeeping = now + HOUSEKEEPING;
        self.looks = self.looks.wrapping_add(1);
        if self.looks.is_multiple_of(WALL_EVERY) {
            self.requests.set_wall();
            self.node.handle(Input::Wall { unix: clock::unix_seconds() }, now);
        }
        if self.looks.is_multiple_of(GATEWAYS_EVERY)
            && let Err(e) = self.plane.look_at_gateways()
        {
            tracing::warn!(error = %e, "cannot look at the gateways");
        }
        if self.keeper.tick() {
            self.node.handle(Input::KeepAgain, now);
        }
        for event in self.keeper.news() {
            self.node.handle(Input::Tell(event), now);
        }
        if let Some(w) = &mut self.warden {
            w.keep();
        }
        self.plane.audit(self.node.want(), AUDIT_ROWS);
        if self.filter_at.is_some_and(|at| self.unsettled.is_empty() || now >= at) {
            self.filter_at = None;
            self.underlay.enforce_filter();
        }
        let problems = self.plane.problems().to_vec();
        for p in problems.iter().filter(|p| !self.problems.contains(p)) {
            tracing::warn!(device = p.device, problem = p.problem, fatal = p.fatal, "device");
        }
        for p in self.problems.iter().filter(|p| !problems.contains(p)) {
            tracing::info!(device = p.device, problem = p.problem, "solved");
        }
        self.problems = problems;
    }
}
