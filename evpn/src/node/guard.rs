//! A port that goes on making MACs up lets only known ones in.
//!
//! Beyond a limit nothing is kept ([`super::limits`]), but each made-up MAC still costs a row of the bridge, a
//! notification, and a copy of its frame for every VTEP. So frames from sources that nobody knows are dropped where they
//! come in, at this port alone. Known are all MACs of the VNI, wherever they are: a VM that moves to this port is heard as
//! ever. The port is opened again when it has been quiet for some time, which grows with every relapse.

use super::{Event, Node, Output};
use crate::hosts::Hosts;
use crate::types::{IfIndex, Mac, Span, Time, Vni};
use std::collections::BTreeMap;

/// MACs beyond the limit are counted in stretches of this length.
const WINDOW: Span = Span::secs(10);
/// How long a port has to be quiet at first.
const HOLD: Span = Span::secs(10);
/// And at most.
const LONGEST: Span = Span::secs(600);
/// A port that has been open for so long begins anew.
const FORGIVEN: Span = Span::secs(600);
/// Dropped frames between two reports of the filter that are no flood: a VM that is new here talks, too.
const QUIET: u64 = 20;
/// Most MACs that a port lets in; those behind it come first. The filter takes no more.
pub const MOST_ALLOWED: usize = 131_072;

/// What is to change at a port.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum GuardChange {
    /// From now on frames with these source addresses come in and no others.
    On {
        /// Its name.
        device: String,
        /// In order.
        allowed: Vec<Mac>,
    },
    /// The addresses that come in change. Those of hosts behind ports of ours stay for as long as the guard does: who
    /// was silent for long is no stranger.
    Macs {
        /// These come in, too.
        add: Vec<Mac>,
        /// These do not any more.
        remove: Vec<Mac>,
    },
    /// All frames come in.
    Off,
}

/// What became of it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum GuardNews {
    /// The filter is there.
    On,
    /// The kernel would not have it.
    Refused(String),
    /// Frames dropped since it is there; about once a second.
    Dropped(u64),
}

/// A port that lets only known MACs in.
#[derive(Debug)]
pub(super) struct Guard {
    pub(super) vni: Vni,
    pub(super) since: Time,
    pub(super) dropped: u64,
    /// Why the kernel refused.
    pub(super) refused: Option<String>,
    /// The last sign of the flood.
    loud: Time,
    hold: Span,
}

impl Guard {
    fn until(&self) -> Time {
        self.loud + self.hold
    }
}

/// MACs beyond the limit on a port.
#[derive(Debug)]
struct Over {
    from: Time,
    count: u32,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Guards {
    over: BTreeMap<IfIndex, Over>,
    pub(super) on: BTreeMap<IfIndex, Guard>,
    /// Ports that were guarded: how long they had to be quiet, and since when they are open.
    past: BTreeMap<IfIndex, (Span, Time)>,
}

impl Guards {
    /// A stranger's frames do not come in here.
    pub(super) fn shuts(&self, port: IfIndex) -> bool {
        self.on.get(&port).is_some_and(|g| g.refused.is_none())
    }

    pub(super) fn poll_timeout(&self) -> Option<(Time, &'static str)> {
        self.on.values().map(Guard::until).min().map(|t| (t, "guarded port"))
    }
}

impl Node {
    /// One more MAC on this port that found no place.
    pub(super) fn beyond_limit(&mut self, vni: Vni, port: IfIndex, at: Time) {
        let Some(rules) = self.segments.get(&vni).map(|s| &s.config.mobility) else { return };
        let limit = rules.flood_guard;
        if limit == 0 || self.guards.on.contains_key(&port) {
            return;
        }
        let o = self.guards.over.entry(port).or_insert(Over { from: at, count: 0 });
        if at.since(o.from) >= WINDOW {
            *o = Over { from: at, count: 0 };
        }
        o.count += 1;
        if o.count >= limit && !rules.unguarded.contains(&self.dev_name(port)) {
            self.guard(vni, port, limit, at);
        }
    }

    /// MACs come from this port faster than they can be taken in, and more of them than any rack has.
    pub(super) fn makes_up(&mut self, vni: Vni, port: IfIndex, at: Time) {
        let Some(rules) = self.segments.get(&vni).map(|s| &s.config.mobility) else { return };
        let limit = rules.flood_guard;
        if limit > 0 && !self.guards.on.contains_key(&port) && !rules.unguarded.contains(&self.dev_name(port))
        {
            self.guard(vni, port, limit, at);
        }
    }

    fn guard(&mut self, vni: Vni, port: IfIndex, limit: u32, at: Time) {
        let device = self.dev_name(port);
        let Some(seg) = self.segments.get_mut(&vni) else { return };
        seg.hosts.watch(true);
        let mut allowed = known(&seg.hosts, port);
        allowed.extend(&seg.config.mobility.gateway_macs);
        allowed.sort_unstable();
        allowed.dedup();
        let relapse = self.guards.past.remove(&port).filter(|(_, open)| at.since(*open) < FORGIVEN);
        let hold = relapse.map_or(HOLD, |(hold, _)| Span(hold.0 * 2).min(LONGEST));
        let count = allowed.len();
        let guard = Guard { vni, since: at, dropped: 0, refused: None, loud: at, hold };
        self.guards.over.remove(&port);
        self.guards.on.insert(port, guard);
        self.revision += 1;
        self.journal.count("guards_begun");
        self.journal
            .push(Output::Guard { port, change: GuardChange::On { device: device.clone(), allowed } });
        self.journal.event(Event::PortGuarded { vni, port: device, limit, allowed: count, hold }, at);
    }

    /// From the filter.
    pub(super) fn guard_news(&mut self, port: IfIndex, news: GuardNews, at: Time) {
        let device = self.dev_name(port);
        let Some(g) = self.guards.on.get_mut(&port) else { return };
        self.revision += 1;
        match news {
            GuardNews::On => g.refused = None,
            GuardNews::Refused(why) => {
                g.refused = Some(why.clone());
                // What is tried again after a while may be refused again: `hold` grows all the same.
                let event = Event::GuardRefused { vni: g.vni, port: device, why };
                self.journal.event(event, at);
            }
            GuardNews::Dropped(frames) => {
                let more = frames.saturating_sub(g.dropped);
                g.dropped = frames.max(g.dropped);
                if more > QUIET {
                    g.loud = at;
                }
                self.journal.add("frames_guarded", more);
            }
        }
    }

    /// Ports that have been quiet are opened; the filters of the others follow what is known.
    pub(super) fn due_guards(&mut self, at: Time) {
        if self.guards.on.is_empty() {
            return;
        }
        let due = self.guards.on.iter().filter(|(_, g)| g.until() <= at).map(|(p, _)| *p);
        for port in due.collect::<Vec<_>>() {
            self.open_port(port, at);
        }
        self.tell_guards();
    }

    /// Frames of all sources come in again.
    fn open_port(&mut self, port: IfIndex, at: Time) {
        let Some(g) = self.guards.on.remove(&port) else { return };
        self.guards.past.insert(port, (g.hold, at));
        self.end_guard(port, &g, at);
    }

    fn end_guard(&mut self, port: IfIndex, g: &Guard, at: Time) {
        self.revision += 1;
        self.journal.push(Output::Guard { port, change: GuardChange::Off });
        if !self.guards.on.values().any(|o| o.vni == g.vni)
            && let Some(seg) = self.segments.get_mut(&g.vni)
        {
            seg.hosts.watch(false);
        }
        let (vni, after, frames) = (g.vni, at.since(g.since), g.dropped);
        self.journal.event(Event::PortOpened { vni, port: self.dev_name(port), after, frames }, at);
    }

    /// A port that is no port of its VNI any more has nothing to guard.
    pub(super) fn review_guards(&mut self, at: Time) {
        let taps = &self.taps;
        self.guards.past.retain(|p, _| taps.contains_key(p));
        self.guards.over.retain(|p, _| taps.contains_key(p));
        let gone = self.guards.on.iter().filter(|(p, g)| taps.get(p) != Some(&g.vni)).map(|(p, _)| *p);
        for port in gone.collect::<Vec<_>>() {
            if let Some(g) = self.guards.on.remove(&port) {
                self.end_guard(port, &g, at);
            }
        }
    }

    fn tell_guards(&mut self) {
        for (vni, seg) in &mut self.segments {
            let changed = seg.hosts.take_changed();
            if changed.is_empty() {
                continue;
            }
            let (add, remove): (Vec<Mac>, Vec<Mac>) =
                changed.into_iter().partition(|m| seg.hosts.macs.contains_key(m));
            let remove: Vec<Mac> =
                remove.into_iter().filter(|m| !seg.config.mobility.gateway_macs.contains(m)).collect();
            for (port, _) in self.guards.on.iter().filter(|(_, g)| g.vni == *vni) {
                let change = GuardChange::Macs { add: add.clone(), remove: remove.clone() };
                self.journal.push(Output::Guard { port: *port, change });
            }
        }
    }

    /// What `show vnis` says of the guarded ports of a VNI.
    pub(super) fn guards_of(&self, vni: Vni) -> impl Iterator<Item = String> {
        self.guards.on.iter().filter(move |(_, g)| g.vni == vni).map(|(port, g)| {
            let name = self.dev_name(*port);
            match &g.refused {
                None => format!(
                    "port {name} makes MACs up, so that it lets only known ones in ({} frames dropped)",
                    g.dropped
                ),
                Some(why) => format!("port {name} makes MACs up, and they are not dropped: {why}"),
            }
        })
    }
}

/// MACs of a VNI, those of one port first, as many as are let in.
fn known(hosts: &Hosts, port: IfIndex) -> Vec<Mac> {
    let here = |e: &crate::hosts::MacEntry| e.local().is_some_and(|l| l.port == port);
    let first = hosts.macs.iter().filter(|(_, e)| here(e));
    let rest = hosts.macs.iter().filter(|(_, e)| !here(e));
    first.chain(rest).take(MOST_ALLOWED).map(|(m, _)| *m).collect()
}
