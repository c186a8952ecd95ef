//! Prometheus metrics: what `show status` has, and a histogram of every phase of every move.
//!
//! All of it lives on the side thread. A scrape costs the core one `show status`; moves are counted from the
//! event stream that `vtepd watch` reads, and what that stream loses under load is counted, too.

mod bfd;
pub mod http;

use crate::api::core::EventLine;
use crate::driver::bfd::BfdTable;
use crate::state::Keeper;
use evpn::node::view::{MoveView, StatusView};
use evpn::node::{Event, Level};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};
use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::broadcast::{self, error::RecvError};

/// Upper ends of the buckets, in seconds: from what one row costs to what a person notices.
const BUCKETS: [f64; 18] = [
    10e-6, 25e-6, 50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, 0.1, 0.25, 0.5,
    1.0, 2.5, 5.0,
];

/// What `show status` lists among its counters although it can fall; the gauges have it.
const NOT_COUNTERS: [&str; 3] = ["wanted_rows", "stale_rows", "sequences_remembered"];

fn is_counter(name: &str) -> bool {
    !NOT_COUNTERS.contains(&name) && !Keeper::GAUGES.contains(&name)
}

#[derive(Clone, Debug, Eq, Hash, PartialEq, EncodeLabelSet)]
struct OfMove {
    kind: &'static str,
    role: Cow<'static, str>,
    cause: Cow<'static, str>,
}

#[derive(Clone, Debug, Eq, Hash, PartialEq, EncodeLabelSet)]
struct OfPhase {
    phase: &'static str,
    kind: &'static str,
    role: Cow<'static, str>,
}

#[derive(Clone, Debug, Eq, Hash, PartialEq, EncodeLabelSet)]
struct OfLevel {
    level: &'static str,
}

#[derive(Clone, Debug, Eq, Hash, PartialEq, EncodeLabelSet)]
struct OfPlace {
    place: &'static str,
}

#[derive(Clone, Debug, Eq, Hash, PartialEq, EncodeLabelSet)]
struct OfState {
    state: &'static str,
}

#[derive(Clone, Debug, Eq, Hash, PartialEq, EncodeLabelSet)]
struct AtPort {
    vni: u32,
    port: String,
    what: &'static str,
}

#[derive(Clone, Debug, Eq, Hash, PartialEq, EncodeLabelSet)]
struct OfPort {
    vni: u32,
    port: String,
    rule: &'static str,
}

#[derive(Clone, Debug, Eq, Hash, PartialEq, EncodeLabelSet)]
struct Named {
    name: String,
}

type Seconds = Gauge<f64, AtomicU64>;

/// All metrics of a daemon.
pub struct Metrics {
    registry: Registry,
    moves: Family<OfMove, Counter>,
    phases: Family<OfPhase, Histogram, fn() -> Histogram>,
    events: Family<OfLevel, Counter>,
    missed: Counter,
    uptime: Seconds,
    converged: Gauge,
    neighbors: Family<OfState, Gauge>,
    vnis: Family<OfState, Gauge>,
    macs: Family<OfPlace, Gauge>,
    hosts: Gauge,
    guarded: Gauge,
    rows: Family<OfState, Gauge>,
    sequences: Gauge,
    state: Gauge,
    records: Family<OfState, Gauge>,
    moves_open: Gauge,
    memory: Gauge,
    counters: Family<Named, Counter>,
    dropped: Family<OfPort, Counter>,
    bfd: bfd::Figures,
    port_hosts: Family<AtPort, Counter>,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Default for Metrics {
    fn default() -> Self {
        let histogram: fn() -> Histogram = || Histogram::new(BUCKETS);
        let mut m = Self {
            registry: Registry::default(),
            moves: Family::default(),
            phases: Family::new_with_constructor(histogram),
            events: Family::default(),
            missed: Counter::default(),
            uptime: Seconds::default(),
            converged: Gauge::default(),
            neighbors: Family::default(),
            vnis: Family::default(),
            macs: Family::default(),
            hosts: Gauge::default(),
            guarded: Gauge::default(),
            rows: Family::default(),
            sequences: Gauge::default(),
            state: Gauge::default(),
            records: Family::default(),
            moves_open: Gauge::default(),
            memory: Gauge::default(),
            counters: Family::default(),
            dropped: Family::default(),
            bfd: bfd::Figures::default(),
            port_hosts: Family::default(),
        };
        let mut registry = Registry::with_prefix("vtepd");
        let r = &mut registry;
        let version = vec![("version", env!("CARGO_PKG_VERSION"))];
        r.register("build", "The running program", Info::new(version));
        r.register_with_unit("uptime", "Time since the start", Unit::Seconds, m.uptime.clone());
        r.register("converged", "1: all neighbours told all, nothing waits", m.converged.clone());
        r.register("neighbors", "BGP neighbours by state", m.neighbors.clone());
        r.register("vnis", "VNIs by state", m.vnis.clone());
        r.register("macs", "MACs by place", m.macs.clone());
        r.register("hosts", "IP bindings", m.hosts.clone());
        r.register("ports_guarded", "Ports that make MACs up: known ones alone come in", m.guarded.clone());
        r.register("rows", "Kernel rows by state", m.rows.clone());
        r.register("sequences_remembered", "MACs whose sequence is remembered", m.sequences.clone());
        r.register_with_unit("state", "The journal in the state directory", Unit::Bytes, m.state.clone());
        r.register("state_records", "Records of it by state", m.records.clone());
        r.register("moves_open", "Moves that have not ended", m.moves_open.clone());
        r.register_with_unit("resident_memory", "Memory in use", Unit::Bytes, m.memory.clone());
        r.register("counter", "What `show status` counts, by name", m.counters.clone());
        r.register("port_host_frames", "ARP and ND at a port, by what became of it", m.port_hosts.clone());
        r.register("port_frames_dropped", "Frames dropped where they came in", m.dropped.clone());
        m.bfd.register(r);
        r.register("moves", "Moves that have ended", m.moves.clone());
        r.register_with_unit(
            "move_phase",
            "From the first sign of a move to the end of a phase",
            Unit::Seconds,
            m.phases.clone(),
        );
        r.register("events", "Events by level", m.events.clone());
        r.register("events_missed", "Events that these metrics lost under load", m.missed.clone());
        m.registry = registry;
        m
    }
}

impl Metrics {
    /// Counts an event.
    pub fn event(&self, line: &EventLine) {
        let level = match line.event.level() {
            Level::Debug => "debug",
            Level::Info => "info",
            Level::Warn => "warn",
        };
        self.events.get_or_create(&OfLevel { level }).inc();
        if let Event::Move(m) = &line.event {
            self.moved(m);
        }
    }

    fn moved(&self, m: &MoveView) {
        let kind = m.kind.as_str();
        let labels = OfMove { kind, role: m.role.clone(), cause: m.cause.clone() };
        self.moves.get_or_create(&labels).inc();
        for (phase, after) in MoveView::PHASES.into_iter().zip(m.phases()) {
            if let Some(after) = after {
                let labels = OfPhase { phase, kind, role: m.role.clone() };
                self.phases.get_or_create(&labels).observe(after.as_secs_f64());
            }
        }
    }

    /// Counts events that were lost.
    pub fn missed(&self, n: u64) {
        self.missed.inc_by(n);
    }

    /// Takes over what `show status` says.
    pub fn status(&self, s: &StatusView) {
        let signed = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        let gauge = |name: &str| s.gauges.get(name).copied().unwrap_or(0);
        self.uptime.set(s.uptime.as_secs_f64());
        self.converged.set(i64::from(s.converged));
        let of_state = |family: &Family<OfState, Gauge>, state, n: u64| {
            family.get_or_create(&OfState { state }).set(signed(n));
        };
        let down = s.neighbors.saturating_sub(s.established);
        of_state(&self.neighbors, "established", s.established as u64);
        of_state(&self.neighbors, "down", down as u64);
        of_state(&self.vnis, "ready", gauge("vnis_ready"));
        of_state(&self.vnis, "not-ready", gauge("vnis").saturating_sub(gauge("vnis_ready")));
        for (state, name) in [("wanted", "rows_wanted"), ("dirty", "rows_dirty"), ("stale", "rows_stale")] {
            of_state(&self.rows, state, gauge(name));
        }
        self.macs.get_or_create(&OfPlace { place: "local" }).set(signed(s.local_macs as u64));
        self.macs.get_or_create(&OfPlace { place: "remote" }).set(signed(s.remote_macs as u64));
        self.hosts.set(signed(gauge("hosts")));
        self.guarded.set(signed(gauge("ports_guarded")));
        self.sequences.set(signed(gauge("sequences_remembered")));
        self.state.set(signed(gauge("state_bytes")));
        of_state(&self.records, "kept", gauge("state_records"));
        of_state(&self.records, "not-kept", gauge("state_records_not_kept"));
        self.moves_open.set(signed(gauge("moves_open")));
        for (name, n) in s.counters.iter().filter(|(name, _)| is_counter(name)) {
            let counter = self.counters.get_or_create(&Named { name: name.clone() });
            counter.inner().store(*n, Ordering::Relaxed);
        }
        // Ports that are gone are not told of any more.
        self.dropped.clear();
        for p in &s.port_drops {
            for (rule, n) in p.drops.named() {
                let labels = OfPort { vni: p.vni.get(), port: p.port.clone(), rule };
                self.dropped.get_or_create(&labels).inner().store(n, Ordering::Relaxed);
            }
        }
        self.port_hosts.clear();
        for p in &s.port_hosts {
            for (what, n) in p.hosts.named() {
                let labels = AtPort { vni: p.vni.get(), port: p.port.clone(), what };
                self.port_hosts.get_or_create(&labels).inner().store(n, Ordering::Relaxed);
            }
        }
    }

    /// Takes over what `show bfd` says.
    pub fn bfd(&self, table: &BfdTable) {
        self.bfd.take(table);
    }

    /// The text of a scrape.
    ///
    /// # Errors
    /// Never: writing to a string does not fail.
    pub fn text(&self) -> Result<String, fmt::Error> {
        self.memory.set(resident_memory().unwrap_or(0));
        let mut out = String::new();
        encode(&mut out, &self.registry)?;
        Ok(out)
    }
}

/// Octets of memory that this process has in use.
fn resident_memory() -> Option<i64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<i64>().ok()?.checked_mul(1024)
}

/// Counts events until the core is gone.
pub async fn feed(metrics: Arc<Metrics>, mut events: broadcast::Receiver<Arc<EventLine>>) {
    loop {
        match events.recv().await {
            Ok(line) => metrics.event(&line),
            Err(RecvError::Lagged(n)) => metrics.missed(n),
            Err(RecvError::Closed) => return,
        }
    }
}
