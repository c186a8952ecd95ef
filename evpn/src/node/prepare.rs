//! Prepared moves: what a hypervisor says before the guest does (PIT-06, MIG-HOT-03).
//!
//! *prepare* looks at everything that *activate* will need ([`super::target`]) and changes nothing. *activate* ([`super::activate`])
//! has the kernel put the MAC on its port, and advertises when it has. *abort* takes both back. *release*
//! ([`super::release`]) is said at the source. Each step may come twice, and in any order.

use super::echo::Echoes;
use super::going::{Going, Heed};
use super::handing::Handing;
use super::release::Release;
use super::{Event, MoveReply, MoveRequest, MoveStep, Node, Output, Refusal, Reply, Requester};
use crate::fabric::RowKey;
use crate::hosts::Owner;
use crate::types::{IfIndex, Mac, Span, Time, Vni};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// Preparations and activations at a time, and as many releases; more are refused.
pub(super) const LIMIT: usize = 4096;
/// Longer timeouts are cut to this.
const LONGEST: Span = Span::secs(24 * 3600);

/// A MAC of a VNI.
pub(super) type Key = (Vni, Mac);

/// How far a prepared move has come.
#[derive(Debug)]
pub(super) enum Stage {
    /// Checked; nothing else has happened.
    Prepared,
    /// The kernel has been asked for the row.
    Writing {
        /// How long the row is to be held for a silent guest.
        hold: Span,
        /// Commands that wait for it.
        waiting: Vec<u64>,
        /// The kernel's last refusal.
        why: Option<String>,
    },
    /// The kernel has the row and the routes go out. The MAC is local on the port as long as this lasts.
    Active,
}

/// A move to this host that a hypervisor has told us about.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) stage: Stage,
    pub(super) port: IfIndex,
    /// The port's name as asked for: a device may be made anew between *prepare* and *activate*.
    pub(super) name: String,
    pub(super) ips: Vec<IpAddr>,
    pub(super) by: Requester,
    /// When *activate* was asked for.
    pub(super) asked: Time,
    pub(super) deadline: Time,
    /// A frame of the guest has come from the port.
    pub(super) heard: bool,
    /// The port of ours that the MAC was behind before.
    pub(super) from: Option<IfIndex>,
    pub(super) heed: Heed,
    /// The monitor has told of the row on the port.
    pub(super) told: bool,
}

/// All of it.
#[derive(Debug, Default)]
pub(super) struct Prepare {
    pending: BTreeMap<Key, Pending>,
    timers: BTreeSet<(Time, Key)>,
    pub(super) releases: BTreeMap<Key, Release>,
    pub(super) release_timers: BTreeSet<(Time, Key)>,
    pub(super) going: Going,
    pub(super) handings: Vec<Handing>,
    /// Ports that had a MAC by our doing and are to lose it. When the row is written this is done, be it by a row to
    /// a VTEP or as [`crate::fabric::Row::Cleared`].
    pub(super) cleared: BTreeMap<RowKey, IfIndex>,
    /// Rows of ours that the monitor may still have to tell of.
    pub(super) echoes: Echoes,
}

impl Prepare {
    pub(super) fn get(&self, key: Key) -> Option<&Pending> {
        self.pending.get(&key)
    }

    pub(super) fn get_mut(&mut self, key: Key) -> Option<&mut Pending> {
        self.pending.get_mut(&key)
    }

    pub(super) fn put(&mut self, key: Key, p: Pending) {
        self.timers.insert((p.deadline, key));
        if let Some(old) = self.pending.insert(key, p)
            && self.pending.get(&key).is_some_and(|p| p.deadline != old.deadline)
        {
            self.timers.remove(&(old.deadline, key));
        }
    }

    pub(super) fn take(&mut self, key: Key) -> Option<Pending> {
        let p = self.pending.remove(&key)?;
        self.timers.remove(&(p.deadline, key));
        Some(p)
    }

    pub(super) fn rearm(&mut self, key: Key, deadline: Time) {
        if let Some(p) = self.pending.get_mut(&key) {
            self.timers.remove(&(p.deadline, key));
            p.deadline = deadline;
            self.timers.insert((deadline, key));
        }
    }

    /// Whether a move of this MAC is under way here, or of a guest that has this address.
    fn names(&self, vni: Vni, mac: Mac, ip: IpAddr) -> bool {
        let of_vni = self.pending.range((vni, Mac([0; 6]))..).take_while(|((v, _), _)| *v == vni);
        self.pending.contains_key(&(vni, mac)) || of_vni.into_iter().any(|(_, p)| p.ips.contains(&ip))
    }

    fn due(&self, at: Time) -> Option<Key> {
        self.timers.first().filter(|(t, _)| *t <= at).map(|(_, key)| *key)
    }

    /// No hypervisor has anything under way here.
    pub(super) fn is_idle(&self) -> bool {
        self.pending.is_empty() && self.releases.is_empty() && self.cleared.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.pending.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&Key, &Pending)> {
        self.pending.iter()
    }

    /// When [`Node::due_prepared`] or [`Node::due_handings`] has something to do.
    pub(super) fn timeout(&self) -> Option<(Time, &'static str)> {
        let pending = self.timers.first().map(|(t, _)| (*t, "prepared move"));
        let release = self.release_timers.first().map(|(t, _)| (*t, "released MAC"));
        let mark = self.going.timeout().map(|t| (t, "mark of a guest that has stopped"));
        let handing = self.handings.iter().map(|h| (h.until, "answer to a move")).min_by_key(|h| h.0);
        [pending, release, mark, handing].into_iter().flatten().min_by_key(|(t, _)| *t)
    }
}

/// A step that is not possible.
#[derive(Debug)]
pub(super) struct No {
    pub(super) refusal: Refusal,
    pub(super) text: String,
}

pub(super) fn invalid(text: String) -> No {
    No { refusal: Refusal::Invalid, text }
}

pub(super) fn conflict(text: String) -> No {
    No { refusal: Refusal::Conflict, text }
}

pub(super) fn busy(what: &str) -> No {
    No { refusal: Refusal::Busy, text: format!("{LIMIT} {what} at a time are the limit; try again later") }
}

/// An answer without routes.
pub(super) fn plain(vni: Option<Vni>, mac: Mac, state: &str, notes: Vec<String>) -> MoveReply {
    MoveReply {
        vni,
        mac,
        state: state.into(),
        seq: None,
        ips: Vec::new(),
        sent_to: Vec::new(),
        lagging: Vec::new(),
        notes,
    }
}

impl Node {
    /// Whether a hypervisor has prepared a move here that takes this address along.
    pub(super) fn is_prepared_for(&self, vni: Vni, mac: Mac, ip: IpAddr) -> bool {
        self.prepare.names(vni, mac, ip)
    }

    /// One step. The answer to *activate* comes later, from [`Self::due_handings`].
    pub(super) fn handle_move(&mut self, id: u64, r: &MoveRequest, at: Time) {
        self.revision += 1;
        let answer = match &r.step {
            MoveStep::Prepare { port, timeout } => self.prepare_move(r, port, *timeout, at).map(Some),
            MoveStep::Activate { port, timeout } => {
                self.activate_move(Some(id), r, port.as_deref(), *timeout, at).map(|()| None)
            }
            MoveStep::Abort => self.abort_move(r, at).map(Some),
            MoveStep::Release { timeout } => self.release_move(r, *timeout, at).map(Some),
            MoveStep::Leave(leave) => self.leave_move(r, *leave, at).map(Some),
        };
        match answer {
            Ok(Some(reply)) => self.journal.push(Output::Reply { id, reply: Reply::Move(reply) }),
            Ok(None) => {}
            Err(no) => self.refuse_move(id, no),
        }
    }

    pub(super) fn refuse_move(&mut self, id: u64, no: No) {
        self.journal.count("move_steps_refused");
        let reply = Reply::MoveRefused { refusal: no.refusal, text: no.text };
        self.journal.push(Output::Reply { id, reply });
    }

    /// A timeout as asked for, or as configured.
    pub(super) fn move_timeout(asked: Option<Span>, configured: Span) -> Span {
        asked.unwrap_or(configured).min(LONGEST)
    }

    fn prepare_move(
        &mut self,
        r: &MoveRequest,
        port: &str,
        timeout: Option<Span>,
        at: Time,
    ) -> Result<MoveReply, No> {
        let mut t = self.target(r, port)?;
        let key = (t.vni, r.mac);
        let owner = self.owner_now(key);
        match owner {
            Some(Owner::Local(l)) if l.port == t.port => {
                t.notes.push(format!("{} is behind {port} already", r.mac));
            }
            Some(Owner::Local(l)) => {
                t.notes.push(format!("{} is behind {} now", r.mac, self.dev_name(l.port)));
            }
            Some(Owner::Remote(_)) | None => {}
        }
        if let Some(p) = self.prepare.get(key)
            && p.port == t.port
            && !matches!(p.stage, Stage::Prepared)
        {
            let state = if matches!(p.stage, Stage::Active) { "active" } else { "prepared" };
            return Ok(plain(Some(t.vni), r.mac, state, t.notes));
        }
        if self.prepare.get(key).is_none() && self.prepare.len() >= LIMIT {
            return Err(busy("prepared moves"));
        }
        if self.prepare.get(key).is_some_and(|p| !matches!(p.stage, Stage::Prepared)) {
            // To another port than the one that is active.
            self.abandon(key, "it was prepared on another port", at);
        }
        let timeout = Self::move_timeout(timeout, self.config.mobility.prepare_time);
        let p = Pending {
            stage: Stage::Prepared,
            port: t.port,
            name: port.to_owned(),
            ips: r.ips.clone(),
            by: r.by,
            asked: at,
            deadline: at + timeout,
            heard: false,
            from: None,
            told: false,
            heed: Heed::renewed(
                self.prepare.get(key).filter(|p| p.port == t.port).map(|p| p.heed),
                r.at_stop,
            ),
        };
        let same = |old: &Pending| {
            (old.port, old.by, &old.ips, old.heed.wanted) == (p.port, p.by, &p.ips, p.heed.wanted)
                && old.deadline.since(old.asked) == timeout
        };
        let repeated = self.prepare.get(key).is_some_and(same);
        self.prepare.put(key, p);
        // The guest that left is expected back: whoever speaks from now on is it, because the one that left has let go
        // of its port (PIT-04). While it has not left yet, its release stands.
        if !matches!(owner, Some(Owner::Local(_))) {
            self.end_release(key, at);
        }
        self.note_unmarked(key, at);
        if !repeated {
            let e = Event::MovePrepared { vni: t.vni, mac: r.mac, port: port.to_owned(), by: r.by, timeout };
            self.journal.count("moves_prepared");
            self.journal.event(e, at);
        }
        Ok(plain(Some(t.vni), r.mac, "prepared", t.notes))
    }

    fn abort_move(&mut self, r: &MoveRequest, at: Time) -> Result<MoveReply, No> {
        let Some(vni) = self.vni_of_move(r)? else { return Ok(plain(None, r.mac, "nothing", Vec::new())) };
        let key = (vni, r.mac);
        let mut done = false;
        if let Some(p) = self.prepare.get(key) {
            if p.heard {
                return Err(conflict(format!(
                    "{} has been heard on {}: the guest is running here; stop it there, or move it on",
                    r.mac, p.name
                )));
            }
            self.abandon(key, "aborted", at);
            done = true;
        }
        // At the source: the guest stays.
        done |= self.end_release(key, at);
        Ok(plain(Some(vni), r.mac, if done { "aborted" } else { "nothing" }, Vec::new()))
    }

    pub(super) fn owner_now(&self, (vni, mac): Key) -> Option<Owner> {
        self.segments.get(&vni).and_then(|s| s.hosts.macs.get(&mac)).map(|e| e.owner)
    }

    /// Deadlines of preparations, activations and releases.
    pub(super) fn due_prepared(&mut self, at: Time) {
        while let Some(key) = self.prepare.due(at) {
            self.pending_due(key, at);
        }
        self.due_marks(at);
        self.due_releases(at);
    }
}
