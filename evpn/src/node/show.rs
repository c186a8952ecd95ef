//! Answers to commands: slices of the tables as views.

mod hosts;
mod kernel;
mod routes;

use super::event::Event;
use super::input::{About, Command, Query, Show};
use super::output::{Output, Reply};
use super::view::{MacView, NeighborView, Page, Place, Rows, StatusView, VERSION, VniView};
use super::{Node, Segment};
use crate::hosts::{MacEntry, Owner};
use crate::session::State;
use crate::types::{Mac, Time, Vni};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Most rows of a slice.
const SLICE: usize = 256;

impl Node {
    pub(super) fn answer(&mut self, id: u64, command: &Command, at: Time) {
        let reply = match command {
            Command::Events { after, limit } => {
                let (lagged, events) = self.journal.after(*after, *limit);
                Reply::Events { lagged, events }
            }
            Command::Neighbor(request) => self.handle_neighbor(request, at),
            Command::Move(request) => return self.handle_move(id, request, at),
            Command::ClearDuplicate { vni, address } => self.clear_duplicate(*vni, *address, at),
            Command::Why(q) => self.why(q, at).map_or_else(Reply::Error, |v| Reply::Why(Box::new(v))),
            Command::Tell { guest, text, warn } => {
                let (guest, text, warn) = (guest.clone(), text.clone(), *warn);
                self.journal.event(Event::Guest { guest, text, warn }, at);
                Reply::Told
            }
            Command::Show(q) => match self.show(q, at) {
                Ok((rows, next)) => {
                    Reply::Page(Page { version: VERSION, revision: self.revision, rows, next })
                }
                Err(why) => Reply::Error(why),
            },
        };
        self.journal.push(Output::Reply { id, reply });
    }

    fn show(&mut self, q: &Query, at: Time) -> Result<(Rows, Option<String>), String> {
        let limit = q.limit.clamp(1, SLICE);
        Ok(match q.show {
            Show::Status => (Rows::Status(vec![self.status(at)]), None),
            Show::Neighbors => {
                let there: Vec<usize> = (0..self.peers.len()).filter(|i| self.peers[*i].exists()).collect();
                let (rows, next) = slice(&there, q, limit)?;
                (Rows::Neighbors(rows.map(|(_, i)| self.neighbor(*i, at)).collect()), next)
            }
            Show::Vnis => {
                let all: Vec<&Segment> = self
                    .segments
                    .values()
                    .filter(|s| q.filter.vni.is_none_or(|v| v == s.config.vni))
                    .collect();
                let (rows, next) = slice(&all, q, limit)?;
                (Rows::Vnis(rows.map(|(_, s)| self.vni(s)).collect()), next)
            }
            Show::Macs => self.macs(q, limit, at)?,
            Show::Hosts => self.hosts(q, limit, at)?,
            Show::Routes => self.routes(q, limit)?,
            Show::Moves => {
                let after =
                    q.cursor.as_deref().map_or(Ok(0), |c| c.parse::<u64>().map_err(|_| bad_cursor(c)))?;
                let found = self.moves.after(after);
                let mut found = found.into_iter().filter(|m| {
                    q.filter.vni.is_none_or(|v| v == m.vni)
                        && q.filter.mac.is_none_or(|x| x == m.mac || Some(x) == m.mac_before)
                        && q.filter.moves.matches(m)
                        && q.filter.ip.is_none_or(|ip| m.ips.contains(&ip))
                });
                let rows: Vec<_> = found.by_ref().take(limit).cloned().collect();
                let next = found.next().and(rows.last()).map(|m| m.id.to_string());
                (Rows::Moves(rows), next)
            }
            Show::Duplicates => self.duplicate_rows(q, limit, at)?,
            Show::Kernel => self.kernel(q, limit)?,
        })
    }

    fn status(&self, at: Time) -> StatusView {
        let mut counters: BTreeMap<String, u64> =
            self.journal.counters.iter().map(|(k, v)| ((*k).to_owned(), *v)).collect();
        counters.extend(self.journal.refused_frames.iter().map(|(k, v)| (format!("frames_refused_{k}"), *v)));
        counters.insert("wanted_rows".into(), self.want.len() as u64);
        counters.insert("duplicates".into(), self.duplicated.len() as u64);
        counters.insert("refused_moves".into(), self.moderation.len() as u64);
        counters.insert("duplicates_untracked".into(), self.duplicated.untracked());
        counters.insert("moves_pending".into(), self.prepare.len() as u64);
        counters.insert("macs_released_now".into(), self.prepare.releases.len() as u64);
        counters.insert("stale_rows".into(), self.stale.len() as u64);
        counters.insert(
            "sequences_remembered".into(),
            self.segments.values().map(|s| s.memory.len() as u64).sum(),
        );
        let crowded_out = self.segments.values().map(|s| s.memory.crowded_out()).sum();
        counters.insert("sequences_crowded_out".into(), crowded_out);
        StatusView {
            program: env!("CARGO_PKG_VERSION").into(),
            vtep: self.config.vtep,
            asn: self.config.asn,
            router_id: IpAddr::V4(self.config.router_id),
            uptime: at.since(self.started),
            established: self.peers.iter().filter(|p| p.up.is_some()).count(),
            neighbors: self.peers.iter().filter(|p| p.exists()).count(),
            converged: self.converged(),
            local_macs: self.segments.values().map(|s| s.hosts.locals()).sum(),
            remote_macs: self.segments.values().map(Segment::remote_macs).sum(),
            counters,
            gauges: self.gauges(),
            port_drops: self.port_drops(),
            port_hosts: self.port_hosts(),
            wall: self.unix(at),
        }
    }

    /// How much there is of what can grow; for `show status` and the metrics.
    fn gauges(&self) -> BTreeMap<String, u64> {
        let sum = |of: fn(&Segment) -> usize| self.segments.values().map(of).sum::<usize>() as u64;
        let all = [
            ("hosts", sum(|s| s.hosts.bindings_len())),
            ("macs_waiting", self.strangers.len() as u64),
            ("moves_open", self.moves.open_len() as u64),
            ("ports_guarded", self.guards.on.len() as u64),
            ("rows_dirty", self.want.dirty_len() as u64),
            ("rows_stale", self.stale.len() as u64),
            ("rows_wanted", self.want.len() as u64),
            ("sequences_remembered", sum(|s| s.memory.len())),
            ("vnis", self.segments.len() as u64),
            ("vnis_ready", sum(|s| usize::from(s.ready))),
        ];
        all.into_iter().map(|(name, n)| (name.to_owned(), n)).collect()
    }

    /// All neighbours sent End-of-RIB, all VNIs are ready, and nothing waits to be written or sent.
    fn converged(&self) -> bool {
        self.synced
            && !self.more_changes
            && !self.strangers.any()
            && self.want.dirty_len() == 0
            && self.leaving.is_empty()
            && self.segments.values().all(|s| s.ready)
            && self.peers.iter().enumerate().all(|(i, p)| {
                let done = p.up.is_some() && p.end_of_rib;
                !p.expected() || done && !self.rib.has_updates(crate::types::PeerId(i as u32))
            })
    }

    pub(super) fn neighbor(&self, i: usize, at: Time) -> NeighborView {
        let p = &self.peers[i];
        let id = crate::types::PeerId(i as u32);
        let agreed = p.up.as_ref().map(|(_, a)| a);
        let counters = self.rib.counters(id);
        NeighborView {
            address: p.config.address,
            asn: p.config.asn.number(self.config.asn).or(agreed.map(|a| a.peer_as)),
            state: match p.session.state() {
                State::Idle => "Idle",
                State::Connect => "Connect",
                State::Active => "Active",
                State::OpenSent => "OpenSent",
                State::OpenConfirm => "OpenConfirm",
                State::Established => "Established",
            }
            .into(),
            since: at.since(p.since),
            established_count: p.established_count,
            hold_time: agreed.map(|a| a.hold_time),
            router_id: agreed.map(|a| IpAddr::V4(a.peer_id)),
            end_of_rib: p.end_of_rib,
            routes_in: counters.routes_in,
            routes_stale: self.rib.stale_count(id),
            routes_out: counters.routes_out,
            updates_in: p.updates_in,
            updates_out: p.updates_out,
            faults: p.faults,
            held_down: p.held_down.is_some(),
            last_error: p.last_error.clone(),
            bfd: self.bfd_view(i, at),
            description: p.config.description.clone(),
            range: p
                .guest
                .as_ref()
                .and_then(|g| self.config.neighbor_ranges.get(g.range))
                .map(|r| r.prefix.to_string()),
        }
    }

    fn vni(&self, s: &Segment) -> VniView {
        let ports =
            self.taps.iter().filter(|(_, v)| **v == s.config.vni).map(|(i, _)| self.dev_name(*i)).collect();
        VniView {
            vni: s.config.vni,
            bridge: s.config.bridge.clone(),
            vxlan: s.config.vxlan.clone(),
            ready: s.ready,
            problems: s
                .problems
                .iter()
                .cloned()
                .chain(self.guards_of(s.config.vni))
                .chain(self.rules_refused(s.config.vni))
                .collect(),
            ports,
            vteps: self.rib.flood_vteps(s.config.vni),
            local_macs: s.hosts.locals(),
            remote_macs: s.remote_macs(),
            hosts: s.hosts.bindings_len(),
            mtu: s.bridge.and_then(|b| self.links.get(&b)).map(|l| l.mtu),
        }
    }

    fn macs(&self, q: &Query, limit: usize, at: Time) -> Result<(Rows, Option<String>), String> {
        use std::ops::Bound::{Excluded, Included, Unbounded};
        let start = match q.cursor.as_deref() {
            None => None,
            Some(c) => Some(mac_cursor(c).ok_or_else(|| bad_cursor(c))?),
        };
        let mut rows: Vec<MacView> = Vec::new();
        for (vni, s) in &self.segments {
            if q.filter.vni.is_some_and(|v| v != *vni) || start.is_some_and(|(v, _)| *vni < v) {
                continue;
            }
            let from = match (start, q.filter.mac) {
                (Some((v, mac)), _) if v == *vni => Excluded(mac),
                (_, Some(mac)) => Included(mac),
                (Some(_) | None, None) => Unbounded,
            };
            for (mac, e) in s.hosts.macs.range((from, Unbounded)) {
                if q.filter.mac.is_some_and(|m| m != *mac) {
                    break;
                }
                // No host (PIT-15), unless somebody asks for it.
                if q.filter.mac.is_none() && s.is_probe_mac(*mac) {
                    continue;
                }
                if q.filter.ip.is_some_and(|ip| !s.hosts.ips_of(*mac).contains(&ip)) {
                    continue;
                }
                let row = self.mac(s, *mac, e, at);
                if !q.filter.place.matches(&row.place) {
                    continue;
                }
                if rows.len() == limit {
                    let next = rows.last().map(|r| format!("{}/{}", r.vni, r.mac));
                    return Ok((Rows::Macs(rows), next));
                }
                rows.push(row);
            }
        }
        Ok((Rows::Macs(rows), None))
    }

    fn mac(&self, s: &Segment, mac: Mac, e: &MacEntry, at: Time) -> MacView {
        let (place, seq, sticky) = match &e.owner {
            Owner::Local(l) => (Place::Port(self.dev_name(l.port)), l.seq, s.is_static(mac)),
            Owner::Remote(r) => (Place::Vtep(r.claim.vtep), r.claim.seq, r.claim.sticky),
        };
        MacView {
            vni: s.config.vni,
            mac,
            place,
            seq,
            sticky,
            stale: s.mac_key(mac).is_some_and(|k| self.stale.contains(&k)),
            duplicate: self.duplicated.marks(s.config.vni, mac, None),
            ips: s.hosts.ips_of(mac),
            moves: e.moves,
            since: at.since(e.since),
        }
    }

    pub(super) fn place_of(&self, s: &Segment, mac: Mac) -> Place {
        match s.hosts.macs.get(&mac).map(|e| e.owner) {
            Some(Owner::Local(l)) => Place::Port(self.dev_name(l.port)),
            Some(Owner::Remote(r)) => Place::Vtep(r.claim.vtep),
            None => Place::None,
        }
    }

    fn duplicate_rows(&self, q: &Query, limit: usize, at: Time) -> Result<(Rows, Option<String>), String> {
        let mut after = match q.cursor.as_deref() {
            None => None,
            Some(c) => Some(address_cursor(c).ok_or_else(|| bad_cursor(c))?),
        };
        let f = &q.filter;
        let mut rows = Vec::new();
        loop {
            let (found, more) = self.duplicates(after, limit, at);
            for (key, row) in found {
                after = Some(key);
                let matches = f.vni.is_none_or(|v| v == row.vni)
                    && f.mac.is_none_or(|m| row.address == About::Mac(m))
                    && f.ip.is_none_or(|i| row.address == About::Ip(i));
                if matches {
                    rows.push(row);
                }
                if rows.len() == limit {
                    return Ok((Rows::Duplicates(rows), Some(format!("{}/{}", key.0, key.1))));
                }
            }
            if !more {
                return Ok((Rows::Duplicates(rows), None));
            }
        }
    }
}

/// A slice of a list whose cursor is an index.
fn slice<'a, T>(
    all: &'a [T],
    q: &Query,
    limit: usize,
) -> Result<(impl Iterator<Item = (usize, &'a T)> + use<'a, T>, Option<String>), String> {
    let from = q.cursor.as_deref().map_or(Ok(0), |c| c.parse::<usize>().map_err(|_| bad_cursor(c)))?;
    let next = (from.saturating_add(limit) < all.len()).then(|| (from + limit).to_string());
    Ok((all.iter().enumerate().skip(from).take(limit), next))
}

fn bad_cursor(c: &str) -> String {
    format!("cursor `{c}` is not one that this table gave out")
}

fn mac_cursor(c: &str) -> Option<(Vni, Mac)> {
    let (vni, mac) = c.split_once('/')?;
    Some((Vni::new(vni.parse().ok()?)?, mac.parse().ok()?))
}

fn address_cursor(c: &str) -> Option<(Vni, About)> {
    mac_cursor(c).map(|(v, m)| (v, About::Mac(m))).or_else(|| ip_cursor(c).map(|(v, i)| (v, About::Ip(i))))
}

fn ip_cursor(c: &str) -> Option<(Vni, IpAddr)> {
    let (vni, ip) = c.split_once('/')?;
    Some((Vni::new(vni.parse().ok()?)?, ip.parse().ok()?))
}
