//! The guest has stopped at its source and does not run at its target yet: the source's VTEP says so in BGP, and the
//! target's activates at once (PIT-26, `activate-at = "stop"`).
//!
//! QEMU's target hears nothing when the source stops the guest, 29 to 97 ms before it runs again. The source's VTEP
//! hears it, and has a session. So *release* with `at_stop` puts the mark [`ExtCommunity::GOING`] on the MAC's own
//! route, which changes nothing for anybody: sequence, next hop and owner are what they were. Only a node with a
//! preparation for exactly this VNI and MAC that was made with `at_stop` acts on it: as if *activate* had been said.
//!
//! - Only a mark that was put on while the preparation stood counts: the owner's route must have been seen without it
//!   before. A mark that is left over from an earlier migration does nothing, and each one acts once.
//! - A mark stands as long as the release, at most [`MobilityConfig::prepare_time`](super::MobilityConfig).
//! - The guest goes on at the source: the mark goes and the MAC is advertised two numbers higher. The target may have
//!   taken the number in between, and its route may be under way.
//! - Sticky MACs are not marked. A mark on a stale route does nothing (PIT-23).

use super::prepare::{Key, Stage};
use super::{Event, MoveRequest, MoveStep, Node};
use crate::hosts::Owner;
use crate::rib::Candidate;
use crate::types::{Mac, Span, Time, Vni};
use crate::wire::{Attrs, ExtCommunity};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

/// Our MACs whose routes are marked. As many as there may be releases.
#[derive(Debug, Default)]
pub(super) struct Going {
    marked: BTreeMap<Key, Time>,
    timers: BTreeSet<(Time, Key)>,
}

impl Going {
    pub(super) fn is_marked(&self, key: Key) -> bool {
        self.marked.contains_key(&key)
    }

    fn put(&mut self, key: Key, until: Time) {
        self.take(key);
        self.marked.insert(key, until);
        self.timers.insert((until, key));
    }

    /// Whether it was marked.
    fn take(&mut self, key: Key) -> bool {
        let Some(until) = self.marked.remove(&key) else { return false };
        self.timers.remove(&(until, key))
    }

    pub(super) fn timeout(&self) -> Option<Time> {
        self.timers.first().map(|(t, _)| *t)
    }
}

/// What a preparation makes of marks.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Heed {
    /// It was made with `at_stop`.
    pub(super) wanted: bool,
    /// This VTEP had the MAC while the preparation stood, and its route was not marked.
    unmarked: Option<IpAddr>,
}

impl Heed {
    /// Of a preparation that is made, or repeated. What was seen before is not forgotten, nor what was wished: a hook
    /// and a QMP socket may prepare for the same guest, and only one of them knows of the stop.
    pub(super) fn renewed(old: Option<Self>, wanted: bool) -> Self {
        let old = old.unwrap_or_default();
        Self { wanted: wanted || old.wanted, unmarked: old.unmarked }
    }
}

impl Node {
    /// Attributes of a MAC's own route, with the marks that it has.
    pub(super) fn marked_attrs(&self, vni: Vni, mac: Mac, attrs: Arc<Attrs>) -> Arc<Attrs> {
        let going = self.prepare.going.is_marked((vni, mac));
        if !going && self.duplicated.found.is_empty() {
            return attrs;
        }
        let mut attrs = Arc::unwrap_or_clone(attrs);
        if going {
            attrs.ext_communities.push(ExtCommunity::GOING);
        }
        self.mark_contested(vni, mac, &mut attrs);
        Arc::new(attrs)
    }

    /// A guest that is behind a port of ours has stopped, to run elsewhere next.
    pub(super) fn mark_going(&mut self, key: Key, timeout: Span, at: Time) {
        let (vni, mac) = key;
        let fixed = self.segments.get(&vni).is_none_or(|s| s.is_static(mac));
        if fixed || !matches!(self.owner_now(key), Some(Owner::Local(_))) {
            return;
        }
        self.prepare.going.put(key, at + timeout.min(self.config.mobility.prepare_time));
        self.journal.count("moves_marked");
        self.originate_mac(vni, mac, true);
    }

    /// The MAC is not ours any more: its route goes, and the mark with it.
    pub(super) fn forget_mark(&mut self, key: Key) {
        self.prepare.going.take(key);
    }

    /// The guest goes on here: what a target may have made of the mark is beaten.
    pub(super) fn retract_mark(&mut self, key: Key, at: Time) {
        if !self.prepare.going.take(key) {
            return;
        }
        let (vni, mac) = key;
        let Some(Owner::Local(l)) = self.owner_now(key) else { return };
        self.journal.count("marks_retracted");
        if self.segments.get(&vni).is_some_and(|s| s.is_static(mac)) {
            self.originate_mac(vni, mac, true);
        } else {
            self.raise_seq(vni, mac, l.seq.next().next(), at);
        }
    }

    /// Marks whose time is up: nobody has taken the guest over.
    pub(super) fn due_marks(&mut self, at: Time) {
        while let Some(&(t, key)) = self.prepare.going.timers.first() {
            if t > at {
                break;
            }
            self.prepare.going.take(key);
            self.originate_mac(key.0, key.1, false);
        }
    }

    /// The owner's routes have been looked at: is this the moment that a preparation waits for?
    pub(super) fn heed_mark(&mut self, vni: Vni, mac: Mac, candidates: &[Candidate], at: Time) {
        let key = (vni, mac);
        let Some(p) = self.prepare.get(key).filter(|p| p.heed.wanted && matches!(p.stage, Stage::Prepared))
        else {
            return;
        };
        let owner = match self.owner_now(key) {
            Some(Owner::Remote(r)) if !r.claim.stale => Some(r.claim.vtep),
            Some(Owner::Remote(_) | Owner::Local(_)) | None => None,
        };
        let marked = candidates.iter().any(|c| Some(c.vtep) == owner && c.going && !c.stale);
        let now = owner.filter(|_| marked && p.heed.unmarked == owner);
        let request = MoveRequest {
            vni: Some(vni),
            mac,
            ips: Vec::new(),
            step: MoveStep::Activate { port: None, timeout: None },
            by: p.by,
            at_stop: false,
        };
        // The row is held as long as the preparation would have stood; RESUME makes it longer.
        let (name, left) = (p.name.clone(), p.deadline.since(at));
        if let Some(p) = self.prepare.get_mut(key) {
            p.heed.unmarked = owner.filter(|_| !marked);
        }
        let Some(vtep) = now else { return };
        match self.activate_move(None, &request, Some(&name), Some(left), at) {
            Ok(()) => {
                self.journal.count("marks_heeded");
                self.journal.event(Event::MoveMarked { vni, mac, vtep, port: name }, at);
            }
            // When the guest runs, its hypervisor asks for the same and is told why not.
            Err(_) => self.journal.count("marks_refused"),
        }
    }

    /// A preparation has been made: how the owner's route looks now.
    pub(super) fn note_unmarked(&mut self, (vni, mac): Key, at: Time) {
        let candidates = self.rib.mac_candidates(vni, mac);
        if candidates.iter().any(|c| c.going) {
            // Whether it is new will be seen; the change may still be waiting to be looked at.
            return;
        }
        self.heed_mark(vni, mac, &candidates, at);
    }
}
