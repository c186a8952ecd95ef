//! Routes of a neighbour that is away (RFC 4724 §4.2, RFC 9494 §4.2): kept, but marked, until it has told them again.
//!
//! The mark is part of a route's set. So a route that is told again differs from the stale one even with equal attributes,
//! everything that hangs on the set (rank, candidates) follows by itself, and what is stale can be found and swept.

use super::best::{LLGR_STALE, NO_LLGR};
use super::input::Best;
use super::out::Dest;
use super::sets::{SetIx, SetKey};
use super::table::{HostKey, OtherPath};
use super::{Rib, out};
use crate::types::{PeerId, Rd};
use crate::wire::{Attrs, RouteKey};
use std::collections::BTreeMap;

/// What becomes of a neighbour's routes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Mark {
    /// Stale (BGP-GR-09).
    Stale,
    /// Long-lived stale: with LLGR_STALE, or gone with NO_LLGR (BGP-LLGR-03).
    LongLived,
}

impl Rib {
    /// The session ended, and the neighbour may come back: its routes stay and are stale (BGP-GR-09). `twice`: those that are
    /// stale already stay, too (BGP-GR-12).
    pub fn peer_lost(&mut self, peer: PeerId, twice: bool) {
        if !twice {
            self.drop_stale(peer);
        }
        let Some(p) = self.peers.get_mut(&peer) else { return };
        p.out = out::Queue::default();
        let told = p.rtc.take().is_some();
        p.end_of_rib = false;
        if let Some(up) = &mut p.up {
            up.evpn = false;
        }
        self.mark(peer, Mark::Stale);
        if let Some(p) = self.peers.get_mut(&peer) {
            p.up = None;
            p.kept = true;
        }
        if told {
            self.memberships_changed();
        }
    }

    /// The restart time is over: what is still stale becomes long-lived stale (BGP-LLGR-03).
    pub fn long_lived(&mut self, peer: PeerId) {
        self.mark(peer, Mark::LongLived);
    }

    /// What is still stale goes (BGP-GR-11). Returns how many.
    pub fn drop_stale(&mut self, peer: PeerId) -> usize {
        let Some(p) = self.peers.get_mut(&peer).filter(|p| p.kept) else { return 0 };
        p.kept = false;
        let (hosts, others) = self.marked(peer, true);
        let gone = hosts.len() + others.len();
        for (key, rd, _) in hosts {
            self.remove_host(peer, rd, key.host, false);
        }
        for (key, _) in others {
            self.remove_other(peer, &key, false);
        }
        gone
    }

    /// After a restart of ours: End-of-RIB, by which the neighbours sweep, waits until all of them have told their routes
    /// (BGP-GR-07).
    pub fn hold_end_of_rib(&mut self, hold: bool) {
        self.unfinished = hold;
    }

    /// How many routes of a neighbour are stale. Looks at all routes if any is.
    pub fn stale_count(&self, peer: PeerId) -> usize {
        if !self.peers.get(&peer).is_some_and(|p| p.kept) {
            return 0;
        }
        let (hosts, others) = self.marked(peer, true);
        hosts.len() + others.len()
    }

    /// Routes of a neighbour that are stale, or that are not.
    #[allow(clippy::type_complexity, reason = "two lists, used three times in this file")]
    fn marked(&self, peer: PeerId, stale: bool) -> (Vec<(HostKey, Rd, SetIx)>, Vec<(RouteKey, SetIx)>) {
        let is = |set: SetIx| self.sets.get(set).key.stale == stale;
        let hosts = self.hosts.groups().flat_map(|(_, g)| g.after(None));
        let hosts = hosts.filter(|(k, s)| k.peer == peer && is(*s));
        let hosts = hosts.map(|(k, s)| (k, self.hosts.rd(k.rd), s)).collect();
        let others = self.others.routes.iter().filter(|((_, p), o)| *p == peer && is(o.set));
        (hosts, others.map(|((k, _), o)| (k.clone(), o.set)).collect())
    }

    fn mark(&mut self, peer: PeerId, mark: Mark) {
        let (hosts, others) = self.marked(peer, mark == Mark::LongLived);
        // Many routes share a set; each twin is looked for once, and held as long as it is in here.
        let mut twins: BTreeMap<SetIx, Option<SetIx>> = BTreeMap::new();
        for set in hosts.iter().map(|h| h.2).chain(others.iter().map(|o| o.1)) {
            twins.entry(set).or_insert_with(|| self.twin(set, mark));
        }
        for (key, rd, set) in hosts {
            match twins.get(&set).copied().flatten() {
                Some(twin) => self.turn_host(key, rd, twin),
                None => self.remove_host(peer, rd, key.host, false),
            }
        }
        for (key, set) in others {
            match twins.get(&set).copied().flatten() {
                Some(twin) => self.turn_other(&key, peer, twin),
                None => self.remove_other(peer, &key, false),
            }
        }
        for twin in twins.into_values().flatten() {
            self.release_set(twin);
        }
    }

    /// The set with the mark; the caller holds a count. `None`: such routes go.
    fn twin(&mut self, set: SetIx, mark: Mark) -> Option<SetIx> {
        let old = self.sets.get(set);
        let (key, bar, group) = (old.key, old.bar, old.group);
        let attrs = match mark {
            Mark::Stale => self.sets.intern_attrs_arc(std::sync::Arc::clone(&old.attrs)),
            Mark::LongLived if old.attrs.communities.contains(&NO_LLGR) => return None,
            Mark::LongLived => {
                let mut attrs = Attrs::clone(&old.attrs);
                if !attrs.communities.contains(&LLGR_STALE) {
                    attrs.communities.push(LLGR_STALE);
                }
                self.sets.intern_attrs(&attrs)
            }
        };
        let key = SetKey { attrs, stale: true, ..key };
        let twin = self.sets.find(&key).unwrap_or_else(|| {
            let vnis = self.hosts.group(group).vnis.clone();
            let group = self.hosts.hold_group(vnis);
            self.sets.add(key, bar, group)
        });
        self.sets.release_attrs(attrs);
        Some(twin)
    }

    fn turn_host(&mut self, key: HostKey, rd: Rd, twin: SetIx) {
        let visible = self.visible(key.peer);
        let before = if visible { self.best_host(key.rd, key.host) } else { None };
        let group = self.sets.get(twin).group;
        self.sets.retain(twin);
        let old = self.hosts.insert(group, key, twin);
        self.mark_mac(group, key.host);
        if visible {
            let after = self.best_host(key.rd, key.host);
            if before != after {
                self.due(Dest::Host { host: key.host, rd }, before, after, false);
            }
        }
        if let Some((_, old)) = old {
            self.release_set(old);
        }
    }

    fn turn_other(&mut self, key: &RouteKey, peer: PeerId, twin: SetIx) {
        let visible = self.visible(peer);
        let before = if visible { self.best_other(key) } else { None };
        self.sets.retain(twin);
        // In before out, so that a flood destination stays one (BGP-GR-09: forwarding unchanged).
        self.flood(key, peer, twin, true);
        let Some(path) = self.others.routes.get_mut(&(key.clone(), peer)) else { return };
        let whole = path.whole.take();
        let old = core::mem::replace(path, OtherPath { set: twin, whole });
        self.flood(key, peer, old.set, false);
        if visible {
            let after = self.best_other(key);
            if before != after {
                self.due(Dest::Other(Box::new(key.clone())), before, after, false);
            }
        }
        self.release_set(old.set);
    }

    /// Whether a change is of no interest to neighbours: the same route with or without the mark. A reflector that loses a
    /// client would tell all its routes twice for nothing.
    pub(super) fn looks_alike(&self, dest: &Dest, before: Best, after: Best) -> bool {
        let (Some((from, a)), Some((to, b)), Dest::Host { .. }) = (before, after, dest) else { return false };
        let (a, b) = (self.sets.get(a).key, self.sets.get(b).key);
        from == to && a.stale != b.stale && SetKey { stale: b.stale, ..a } == b
    }
}
