//! The whole VTEP as one state machine.
//!
//! Inputs and time go into [`Node::handle`]; [`Node::flush`] is called once per turn; then
//! [`Node::poll_output`] until it is empty, [`Node::want_mut`] for wanted kernel rows, and
//! [`Node::poll_timeout`] for the next wake-up. Nothing here reads a clock or touches a socket.

mod activate;
mod adverts;
mod answers;
mod ask;
mod bfd;
mod bindings;
mod carry;
mod chains;
mod claims;
mod config;
mod confirm;
mod conflicts;
mod contested;
mod deactivate;
mod devices;
mod domain;
mod duplicate_check;
mod duplicate_ips;
mod duplicate_macs;
mod duplicates;
mod dynamic;
mod echo;
mod event;
mod faults;
mod fixed;
mod former;
mod frames;
mod gateway;
mod going;
mod guard;
mod handing;
mod hold;
mod holders;
mod host_config;
mod input;
mod journal;
mod keep;
mod kept_hosts;
mod life;
mod limits;
mod local;
mod memberships;
mod moved;
mod moves;
mod neighbor_rules;
mod neighbors;
mod odd_questions;
mod originate;
mod output;
mod overlay;
mod parked;
mod past;
mod peers;
mod port_hosts;
mod port_rules;
mod prefixes;
mod prepare;
mod probe_mac;
mod questions;
mod release;
mod remote;
mod restart;
mod round_trips;
mod rows;
mod segment;
mod sends;
mod show;
mod signs;
mod snooped;
mod sometimes;
mod static_hosts;
mod strangers;
mod target;
mod tell;
pub mod view;
mod why;
mod young;

pub use bfd::{BfdConfig, BfdNews, BfdWant};
pub use config::{
    Config, DuplicateAction, DuplicateMode, Duplicates, Flooding, Hops, MobilityConfig, NeighborConfig,
    Targets, VniConfig, VniMobility,
};
pub use dynamic::NeighborRange;
pub use event::{Event, Level};
pub use guard::{GuardChange, GuardNews, MOST_ALLOWED};
pub use hold::{Held, HoldWord, Leave};
pub use host_config::{
    ArpConfig, ConflictPolicy, Gateway, GatewayAddress, TellPeers, Unknown, UnknownOptions, VniHosts,
};
pub use input::{
    About, Command, ConnEvent, Input, MacFilter, MoveFilter, MoveRequest, MoveStep, NeighborAction,
    NeighborRequest, PlaceFilter, Query, Requester, SEND_PATH, Show, WhyRequest,
};
pub use neighbor_rules::{NeighborRules, PrefixAction, PrefixLimit};
pub use output::{MoveReply, NeighborReply, Output, Refusal, Reply};
pub use port_hosts::PortHosts;
pub use port_rules::{Outward, PortDrops, PortNews, PortRules, Storm, Unasked};
pub use probe_mac::probe_mac;
pub use restart::RestartConfig;

use crate::fabric::{DeviceWant, KernelEvent, Link, PortWant, RowKey, Want};
use crate::hosts::Calendar;
use crate::mobility::Losses;
use crate::rib::{self, Rib};
use crate::types::{ConnId, IfIndex, Mac, Rd, Span, Time, Vni};
use crate::wire::RouteKey;
use contested::Contested;
use domain::Moderation;
use duplicates::Duplicated;
use journal::Journal;
use keep::Keep;
use moves::Moves;
use parked::Parking;
use peers::{Conn, Peer};
use prepare::Prepare;
use segment::Segment;
use signs::Signs;
use sometimes::Sometimes;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// RIB changes worked off per flush, so that a full table never holds a move up for more than a few ms.
const CHANGES_PER_FLUSH: usize = 512;
/// How long a withdrawal waits for the kernel's acknowledgement (design section 4).
const WITHDRAW_DEADLINE: Span = Span::millis(20);
/// One alarm per MAC in this time.
const ALARM_EVERY: Span = Span::secs(10);
/// MACs with an alarm in that time; further ones are only counted.
const ALARMS: usize = 4096;

/// Routes of a lost MAC that are withdrawn once the kernel has the remote row (EVPN-MOB-07).
#[derive(Debug)]
struct Leaving {
    vni: Vni,
    mac: Mac,
    keys: Vec<RouteKey>,
    deadline: Time,
}

/// One VTEP: configuration and inputs in, outputs and wanted rows out. Deterministic.
#[derive(Debug)]
pub struct Node {
    config: Config,
    started: Time,
    rib: Rib,
    peers: Vec<Peer>,
    dynamic: dynamic::Dynamic,
    conns: BTreeMap<ConnId, Conn>,
    next_conn: u64,
    segments: BTreeMap<Vni, Segment>,
    links: BTreeMap<IfIndex, Link>,
    by_name: BTreeMap<String, IfIndex>,
    /// Configured device names and the VNI they belong to.
    named: BTreeMap<String, Vni>,
    bridges: BTreeMap<IfIndex, Vni>,
    taps: BTreeMap<IfIndex, Vni>,
    /// VXLAN devices with a tap: what comes in from the overlay.
    overlay_taps: BTreeMap<IfIndex, Vni>,
    want: Want,
    /// Rows adopted at start that nobody confirmed yet.
    stale: BTreeSet<RowKey>,
    swept: bool,
    /// Every kernel table has been read once.
    synced: bool,
    leaving: BTreeMap<RowKey, Leaving>,
    leaving_queue: VecDeque<(Time, RowKey)>,
    parked: Parking,
    /// The kernel has more to say than was read.
    behind: bool,
    /// Ports have more frames than were read.
    unread: BTreeSet<IfIndex>,
    signs: Signs,
    probes: chains::Chains,
    retries: BTreeSet<(Time, RowKey)>,
    alarmed: Sometimes<(Vni, Mac)>,
    asked: Sometimes<(Vni, IpAddr)>,
    asking: VecDeque<ask::Question>,
    questions: questions::Questions,
    confirmations: Calendar,
    kept_hosts: kept_hosts::KeptHosts,
    port_counts: port_hosts::PortCounts,
    young: young::Young,
    /// When the input or the turn at hand came.
    clock: Time,
    path_mtu: BTreeMap<IpAddr, u32>,
    vteps: BTreeSet<IpAddr>,
    vteps_changed: bool,
    journal: Journal,
    moves: Moves,
    /// Ports that lost MACs which nobody has at the moment.
    former: past::Latest<(Vni, Mac), Losses>,
    /// When what is being decided was received.
    news_at: Time,
    prepare: Prepare,
    duplicated: Duplicated,
    contested: Contested,
    checks: duplicate_check::Checks,
    claims: claims::Claims,
    round_trips: round_trips::RoundTrips,
    moderation: Moderation,
    full: limits::Full,
    guards: guard::Guards,
    rules: port_rules::Rules,
    tell: tell::Tell,
    strangers: strangers::Strangers,
    gateway: gateway::Gateways,
    adverts: adverts::Adverts,
    holds: hold::Holds,
    carry: carry::Carry,
    snooped: snooped::Snooped,
    statics: static_hosts::StaticHosts,
    more_changes: bool,
    begun: bool,
    stopping: bool,
    restart: restart::Restart,
    overruns: u64,
    revision: u64,
    wall: Option<(Time, u64)>,
    keep: Keep,
    cursors: VecDeque<(u64, rib::RouteCursor)>,
    next_cursor: u64,
}

impl Node {
    /// A node at rest. Its first outputs (`Listen`, dials) come from the first `flush`.
    pub fn new(mut config: Config, seed: u64, at: Time) -> Self {
        gateway::is_nobodys_host(&mut config);
        let mut rib = Rib::new(rib::Config {
            asn: config.asn,
            router_id: config.router_id,
            cluster_id: config.cluster_id,
            vtep: config.vtep,
        });
        let mut segments = BTreeMap::new();
        let mut numbers = BTreeSet::new();
        for c in &config.vnis {
            rib.add_vni(c.vni, Segment::import(c));
            let rd = Rd::type1(config.router_id, rd_number(c.vni, &mut numbers));
            segments.insert(c.vni, Segment::new(c.clone(), config.asn, rd, config.mobility.memory_time));
        }
        let mut named = BTreeMap::new();
        for v in &config.vnis {
            for name in v.ports.iter().chain([&v.bridge, &v.vxlan]) {
                named.insert(name.clone(), v.vni);
            }
        }
        let peers = peers::build(&config, seed, &mut rib, at);
        let confirmations = confirm::calendar(config.arp.probe_rate);
        Self {
            config,
            started: at,
            rib,
            peers,
            dynamic: dynamic::Dynamic::new(seed),
            conns: BTreeMap::new(),
            next_conn: 0,
            segments,
            links: BTreeMap::new(),
            by_name: BTreeMap::new(),
            named,
            bridges: BTreeMap::new(),
            taps: BTreeMap::new(),
            overlay_taps: BTreeMap::new(),
            want: Want::default(),
            stale: BTreeSet::new(),
            swept: false,
            synced: false,
            leaving: BTreeMap::new(),
            leaving_queue: VecDeque::new(),
            parked: Parking::default(),
            behind: false,
            unread: BTreeSet::new(),
            signs: Signs::default(),
            probes: chains::Chains::default(),
            retries: BTreeSet::new(),
            alarmed: Sometimes::new(ALARM_EVERY, ALARMS),
            asked: Sometimes::new(ask::ASK_EVERY, ask::ASKED),
            asking: VecDeque::new(),
            questions: questions::Questions::default(),
            confirmations,
            kept_hosts: kept_hosts::KeptHosts::default(),
            port_counts: port_hosts::PortCounts::default(),
            young: young::Young::default(),
            clock: at,
            path_mtu: BTreeMap::new(),
            vteps: BTreeSet::new(),
            vteps_changed: false,
            journal: Journal::default(),
            moves: Moves::default(),
            former: past::Latest::new(past::Past::LIMIT),
            news_at: at,
            prepare: Prepare::default(),
            duplicated: Duplicated::default(),
            contested: Contested::default(),
            checks: duplicate_check::Checks::default(),
            claims: claims::Claims::default(),
            round_trips: round_trips::RoundTrips::default(),
            moderation: Moderation::default(),
            full: limits::Full::default(),
            guards: guard::Guards::default(),
            rules: port_rules::Rules::default(),
            tell: tell::Tell::default(),
            strangers: strangers::Strangers::default(),
            gateway: gateway::Gateways::default(),
            adverts: adverts::Adverts::default(),
            holds: hold::Holds::default(),
            carry: carry::Carry::default(),
            snooped: snooped::Snooped::default(),
            statics: static_hosts::StaticHosts::default(),
            more_changes: false,
            begun: false,
            stopping: false,
            restart: restart::Restart::default(),
            overruns: 0,
            revision: 0,
            wall: None,
            keep: Keep::default(),
            cursors: VecDeque::new(),
            next_cursor: 0,
        }
    }

    /// Takes one input.
    pub fn handle(&mut self, input: Input, at: Time) {
        self.news_at = at;
        self.clock = at;
        self.rib.set_time(at);
        match input {
            Input::Kernel(ev) => self.handle_kernel(ev, at),
            Input::Frame { port, bytes } => self.handle_frame(port, &bytes, at),
            Input::Conn { conn, event } => self.handle_conn(conn, event, at),
            Input::Written(results) => self.handle_written(results, at),
            Input::Command { id, command } => self.answer(id, &command, at),
            Input::PathMtu { vtep, mtu } => self.handle_path_mtu(vtep, mtu, at),
            Input::Bfd { peer, news } => self.bfd_news(peer, news, at),
            Input::Recalled(rows) => self.recalled(&rows, at),
            Input::Guard { port, news } => self.guard_news(port, news, at),
            Input::PortRules { port, news } => self.port_news(port, news, at),
            Input::HoldPort { vni, made } => self.hold_port(vni, made, at),
            Input::Held { port, mac, held } => self.held(port, mac, held, at),
            Input::Wall { unix } => self.wall_told(unix, at),
            Input::Restored(records) => self.restored(&records, at),
            Input::RestoredHosts(hosts) => self.hosts_restored(hosts),
            Input::KeepAgain => self.keep_again(at),
            Input::Tell(event) => self.journal.event(event, at),
            Input::Restarted => self.restarted(at),
            Input::Shutdown { for_good } => self.shutdown(for_good, at),
        }
    }

    /// Once per turn of the driver, after a budget of inputs: due timers, decisions, outputs.
    pub fn flush(&mut self, at: Time) {
        self.clock = at;
        if !self.begun {
            self.begin(at);
        }
        self.due_sessions(at);
        self.due_restarts(at);
        self.due_guests(at);
        self.due_memberships(at);
        self.due_leaving(at);
        self.due_parked(at);
        self.due_probes(at);
        self.due_open_questions(at);
        self.due_checks(at);
        self.due_claims(at);
        self.due_round_trips(at);
        self.due_confirmations(at);
        self.due_kept_hosts(at);
        self.due_retries(at);
        self.due_prepared(at);
        self.due_holds(at);
        self.due_duplicates(at);
        self.due_refused(at);
        self.due_look(at);
        self.due_strangers(at);
        let changes = self.rib.take_timed_changes(CHANGES_PER_FLUSH);
        self.more_changes = changes.len() == CHANGES_PER_FLUSH;
        for (change, since) in changes {
            self.revision += 1;
            self.news_at = since;
            match change {
                rib::Change::Mac(vni, mac) => self.decide_mac(vni, mac, at),
                rib::Change::Flood(vni, vtep) => self.decide_flood(vni, vtep, at),
            }
        }
        self.due_sweep(at);
        self.tell_vteps(at);
        self.due_carried(at);
        self.due_group_queries(at);
        self.due_guards(at);
        self.keep(at);
        self.keep_hosts();
        self.pump(at);
        self.due_questions();
        self.due_tells(at);
        self.due_adverts(at);
        self.moves.expire(at, &mut self.journal);
        self.due_handings(at);
        if self.stopping {
            self.finish_stop();
        }
    }

    /// Next thing to do. Call until `None` after each `flush`.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.journal.out.pop_front()
    }

    /// When `flush` wants to be called at the latest, and why.
    pub fn poll_timeout(&self) -> Option<(Time, &'static str)> {
        let now = Time(0);
        let mut next: Option<(Time, &'static str)> = None;
        let mut offer = |t: Option<(Time, &'static str)>| {
            if let Some(t) = t
                && next.is_none_or(|n| t.0 < n.0)
            {
                next = Some(t);
            }
        };
        offer((!self.begun).then_some((now, "start")));
        offer((self.more_changes || !self.journal.out.is_empty()).then_some((now, "more work")));
        for (i, p) in self.peers.iter().enumerate() {
            offer(self.prefix_restart(i).map(|t| (t, "prefix restart")));
            offer(p.session.poll_timeout());
            offer(p.forgotten_at().map(|t| (t, "neighbour that is gone")));
        }
        offer(self.memberships_timeout());
        offer((!self.asking.is_empty()).then_some((now, "questions to hosts")));
        offer(self.leaving_queue.front().map(|(t, _)| (*t, "withdraw deadline")));
        offer(self.parked.timeout().filter(|_| !self.behind).map(|t| (t, "parked binding")));
        offer(self.probes.first().filter(|_| self.unread.is_empty()).map(|t| (t, "probe")));
        offer(self.questions.timeout().filter(|_| self.unread.is_empty()).map(|t| (t, "question to a host")));
        offer(
            self.confirmations
                .timeout()
                .filter(|_| self.unread.is_empty())
                .map(|t| (t, "confirmation of a host")),
        );
        offer(self.claims.timeout().filter(|_| self.unread.is_empty()).map(|t| (t, "claim on an address")));
        offer(self.round_trips.timeout().map(|t| (t, "distance of a VTEP")));
        offer(
            self.checks
                .timeout()
                .filter(|_| self.unread.is_empty())
                .map(|t| (t, "duplicate check of a host")),
        );
        offer(
            self.kept_hosts
                .timeout()
                .filter(|_| self.synced && self.unread.is_empty())
                .map(|t| (t, "host of an earlier run")),
        );
        offer(self.duplicated.poll_timeout());
        offer(self.moderation.poll_timeout());
        offer(self.full.poll_timeout());
        offer(self.guards.poll_timeout());
        offer(self.tell_timeout().map(|t| (t, "hosts to tell")));
        offer(self.adverts.timeout().map(|t| (t, "router advertisement")));
        offer(self.strangers_due());
        offer(self.retries.first().map(|(t, _)| (*t, "row retry")));
        offer(self.keep_due().map(|t| (t, "memory of sequences")));
        offer(self.moves.deadline().map(|t| (t, "unfinished move")));
        offer(self.prepare.timeout());
        offer(self.snooped.timeout().map(|t| (t, "groups of a port")));
        offer(self.carry.timeout().map(|t| (t, "frames that are carried")));
        offer(self.restart_timeout());
        offer(self.holds.timeout().map(|t| (t, "guest that is held")));
        offer((!self.swept).then_some((self.sweep_at(), "sweep of adopted rows")));
        next
    }

    /// Wanted rows; the reconciler takes the dirty keys from here and answers with `Input::Written`.
    pub fn want_mut(&mut self) -> &mut Want {
        &mut self.want
    }

    /// Wanted rows.
    pub fn want(&self) -> &Want {
        &self.want
    }

    /// Devices to create or adopt.
    pub fn devices(&self) -> Vec<DeviceWant> {
        self.config
            .vnis
            .iter()
            .map(|v| DeviceWant {
                vni: v.vni,
                bridge: v.bridge.clone(),
                bridge_mac: v.bridge_mac,
                vxlan: v.vxlan.clone(),
                local: self.config.vtep,
                udp_port: self.config.udp_port,
                mtu: v.mtu,
                fdb_limit: limits::of_kernel(v.mobility.mac_limit),
                arp_suppression: v.arp_suppression,
                unicast_flood: v.hosts.unknown_unicast,
                ports: v.ports.iter().map(|p| PortWant { name: p.clone() }).collect(),
                gateway: v.hosts.gateway.as_ref().map(Gateway::wanted),
            })
            .collect()
    }

    /// Tells the set of remote VTEPs in use, if it changed: those that sent IMET, and those that own a MAC.
    fn tell_vteps(&mut self, at: Time) {
        let mut changed = std::mem::take(&mut self.vteps_changed);
        for s in self.segments.values_mut() {
            changed |= s.hosts.take_vteps_changed();
        }
        if !changed {
            return;
        }
        let vteps: BTreeSet<IpAddr> = self
            .segments
            .iter()
            .flat_map(|(v, s)| self.rib.flood_vteps(*v).into_iter().chain(s.hosts.vteps()))
            .collect();
        if vteps != self.vteps {
            self.path_mtu.retain(|v, _| vteps.contains(v));
            self.round_trips.review(&vteps, at);
            self.vteps.clone_from(&vteps);
            self.journal.push(Output::Vteps(vteps));
            self.review_segments(at);
        }
    }

    fn begin(&mut self, at: Time) {
        self.begun = true;
        let v6 = self.peers.iter().any(|p| p.config.address.is_ipv6())
            || self.config.neighbor_ranges.iter().any(|r| r.prefix.is_ipv6());
        let any = if self.config.vtep.is_ipv6() || v6 {
            IpAddr::V6(Ipv6Addr::UNSPECIFIED)
        } else {
            IpAddr::V4(Ipv4Addr::UNSPECIFIED)
        };
        let ip = self.config.listen.unwrap_or(any);
        self.journal.push(Output::Listen(SocketAddr::new(ip, self.config.bgp_port)));
        self.start_sessions(at);
        self.begin_adverts(at);
    }

    fn handle_kernel(&mut self, ev: KernelEvent, at: Time) {
        self.revision += 1;
        match ev {
            KernelEvent::Link(l) => self.link_seen(l, at),
            KernelEvent::LinkGone(i) => self.link_gone(i, at),
            KernelEvent::Fdb(row) => self.fdb_seen(row, at),
            KernelEvent::FdbGone(row) => self.fdb_gone(row, at),
            KernelEvent::Neigh(row) => self.neigh_seen(&row),
            KernelEvent::NeighGone(_) => {}
            KernelEvent::NeighAsked { dev, ip } => self.neighbour_asked(dev, ip, at),
            KernelEvent::Synced => {
                self.synced = true;
                self.review_segments(at);
                self.released_ports_missing(at);
            }
            KernelEvent::Overrun => {
                self.overruns += 1;
                self.journal.count("netlink_overruns");
                self.journal.event(Event::Overrun { count: self.overruns }, at);
                self.journal.push(Output::Resync);
            }
        }
    }

    fn shutdown(&mut self, for_good: bool, at: Time) {
        if self.stopping {
            return;
        }
        self.stopping = true;
        self.stop_sessions(!for_good, at);
    }

    fn finish_stop(&mut self) {
        self.stopping = false;
        self.journal.push(Output::Stopped);
    }

    fn handle_path_mtu(&mut self, vtep: IpAddr, mtu: u32, at: Time) {
        if self.path_mtu.insert(vtep, mtu) != Some(mtu) {
            self.review_segments(at);
        }
    }

    /// Name of a device, for people.
    fn dev_name(&self, i: IfIndex) -> String {
        self.links.get(&i).map_or_else(|| format!("if{}", i.0), |l| l.name.clone())
    }
}

/// The 16-bit number of a VNI's RD: the VNI's low bits, or the next free one (EVPN-NLRI-12: unique per MAC-VRF).
fn rd_number(vni: Vni, taken: &mut BTreeSet<u16>) -> u16 {
    let mut n = vni.get() as u16;
    while n == 0 || !taken.insert(n) {
        n = n.wrapping_add(1);
    }
    n
}
