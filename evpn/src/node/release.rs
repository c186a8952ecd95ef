//! *release*: a hypervisor says at the source that a guest is leaving (PIT-04).
//!
//! Until a better remote route comes nothing changes: this host goes on forwarding (MIG-HOT-03). Once the MAC is
//! remote, its frames from the old port are no claim however strong they are, nobody is probed, and its row is
//! written such that a late frame cannot take it.

use super::prepare::{Key, LIMIT, No, busy, plain};
use super::{Event, MoveReply, MoveRequest, Node};
use crate::hosts::Owner;
use crate::mobility::{PortMark, Record, Released};
use crate::types::{IfIndex, Mac, Span, Time, Vni};

/// A guest that is leaving, or has left.
#[derive(Debug)]
pub(super) struct Release {
    /// The port it leaves; any, when it was not known where it was.
    port: Option<IfIndex>,
    /// The same from before a restart, until the device of that name has been seen.
    before: Option<PortMark>,
    until: Time,
    /// The port has lost its carrier while the guest was still here.
    dark: bool,
    /// It was announced on another port: the row is not pinned any more, so that the bridge can learn it there.
    open: bool,
}

impl Node {
    pub(super) fn release_move(
        &mut self,
        r: &MoveRequest,
        timeout: Option<Span>,
        at: Time,
    ) -> Result<MoveReply, No> {
        let Some(vni) = self.vni_of_move(r)? else {
            let note =
                format!("no VNI of this host knows {}; name the VNI to release it all the same", r.mac);
            return Ok(plain(None, r.mac, "nothing", vec![note]));
        };
        let key = (vni, r.mac);
        let known = self.prepare.releases.get(&key).map(|x| x.port);
        let before = self.prepare.releases.get(&key).and_then(|x| x.before);
        if known.is_none() && self.prepare.releases.len() >= LIMIT {
            return Err(busy("released MACs"));
        }
        let entry = self.segments.get(&vni).and_then(|s| s.hosts.macs.get(&r.mac));
        let (port, seq, ours) = match entry.map(|e| (e.owner, e.lost.latest())) {
            Some((Owner::Local(l), _)) => (Some(l.port), Some(l.seq), true),
            Some((Owner::Remote(m), lost)) => {
                (known.flatten().or(lost.map(|l| l.port)), Some(m.claim.seq), false)
            }
            None => (known.flatten(), None, false),
        };
        // Activated here before, and now on its way to the next host: nobody is waited for any more.
        self.activation_left(vni, r.mac, None, "released", at);
        let timeout = Self::move_timeout(timeout, self.config.mobility.release_time);
        let until = at + timeout;
        if let Some(old) =
            self.prepare.releases.insert(key, Release { port, before, until, dark: false, open: false })
        {
            self.prepare.release_timers.remove(&(old.until, key));
        }
        self.prepare.release_timers.insert((until, key));
        self.journal.count("macs_released");
        self.journal
            .event(Event::MoveReleased { vni, mac: r.mac, by: r.by, timeout, at_stop: r.at_stop }, at);
        self.keep_release(key, Some(until), at);
        self.renew_remote_row(key);
        if r.at_stop {
            self.begin_hold(key, at);
            self.mark_going(key, timeout, at);
        }
        let mut reply = plain(Some(vni), r.mac, "released", Vec::new());
        reply.seq = seq.filter(|_| ours);
        if !ours && seq.is_none() {
            reply.notes.push(format!("{} is not known in VNI {vni} now", r.mac));
        }
        Ok(reply)
    }

    /// The port that a released MAC leaves, if it is known, and how long the release lasts still.
    pub(super) fn release_of(&self, key: Key, at: Time) -> Option<(Option<IfIndex>, Span)> {
        self.prepare.releases.get(&key).map(|r| (r.port, r.until.since(at)))
    }

    /// Whether frames of this MAC from this port (from any, without one) are a leaving guest's last words.
    pub(super) fn is_released(&self, vni: Vni, mac: Mac, port: Option<IfIndex>) -> bool {
        let release = self.prepare.releases.get(&(vni, mac));
        release.is_some_and(|r| r.port.is_none() || port.is_none() || r.port == port)
    }

    /// The row of a released MAC is one that no frame may take.
    pub(super) fn is_pinned(&self, vni: Vni, mac: Mac) -> bool {
        self.prepare.releases.get(&(vni, mac)).is_some_and(|r| !r.open)
    }

    /// A released MAC announces itself on a port that it did not leave. The pinned row would keep the bridge from
    /// learning it; an ordinary one leaves the decision to the bridge (PIT-07), and the old port's frames are no claim
    /// still (PIT-04).
    pub(super) fn announced_elsewhere(&mut self, vni: Vni, mac: Mac, port: IfIndex) {
        let key = (vni, mac);
        let Some(r) = self.prepare.releases.get_mut(&key) else { return };
        if r.port.is_some_and(|old| old != port) && !std::mem::replace(&mut r.open, true) {
            self.renew_remote_row(key);
        }
    }

    /// A port has lost its carrier or is gone. The last frame of a guest that left by it cannot come any more: what
    /// comes when the port is back is another guest's first (PIT-04). While the MAC is still ours, this waits for the
    /// port's return: the route may carry the mark of a stopped guest.
    pub(super) fn released_port_down(&mut self, port: IfIndex, at: Time) {
        self.end_releases_of(port, at, |r, left| {
            r.dark |= !left;
            left
        });
    }

    /// A port has its carrier again.
    pub(super) fn released_port_up(&mut self, port: IfIndex, at: Time) {
        self.end_releases_of(port, at, |r, _| r.dark);
    }

    fn end_releases_of(&mut self, port: IfIndex, at: Time, mut over: impl FnMut(&mut Release, bool) -> bool) {
        let of_port = self.prepare.releases.iter().filter(|(_, r)| r.port == Some(port));
        let keys: Vec<Key> = of_port.map(|(k, _)| *k).collect();
        for key in keys {
            let left = !matches!(self.owner_now(key), Some(Owner::Local(l)) if l.port == port);
            if self.prepare.releases.get_mut(&key).is_some_and(|r| over(r, left)) {
                self.journal.count("releases_ended_by_port");
                self.end_release(key, at);
            }
        }
    }

    /// A released MAC that another VTEP had and that nobody has any more is announced here: it is back (EVPN-MOB-11).
    pub(super) fn announced_again(&mut self, vni: Vni, mac: Mac, port: IfIndex, at: Time) {
        let key = (vni, mac);
        let taken_over = |s: &super::segment::Segment| s.memory.get(mac).is_some_and(|m| !m.ours);
        if self.prepare.releases.contains_key(&key)
            && self.strong_sign(port, mac, at)
            && self.owner_now(key).is_none()
            && self.segments.get(&vni).is_some_and(taken_over)
        {
            self.end_release(key, at);
        }
    }

    /// A released guest that is behind another VTEP by now.
    pub(super) fn has_left(&self, vni: Vni, mac: Mac, port: IfIndex) -> bool {
        self.is_released(vni, mac, Some(port)) && matches!(self.owner_now((vni, mac)), Some(Owner::Remote(_)))
    }

    /// A late frame of a released MAC took its row: it goes back, and that is all (PIT-04).
    pub(super) fn released_frame(&mut self, vni: Vni, mac: Mac, port: IfIndex, at: Time) {
        let name = self.dev_name(port);
        let Some(seg) = self.segments.get_mut(&vni) else { return };
        let key = seg.mac_key(mac);
        let mut first = None;
        if let Some(e) = seg.hosts.macs.get_mut(&mac) {
            e.shadow = Some(port);
            let since = e.since;
            if let Some(l) = e.lost.on_mut(port) {
                l.late = Some(at);
                l.frames += 1;
                first = (l.frames == 1).then(|| at.since(since));
            }
        }
        if let Some(key) = key {
            self.want.mark(key, true);
        }
        self.journal.count("late_frames");
        if let Some(after) = first {
            self.journal.event(Event::LateFrame { vni, mac, port: name, after }, at);
        }
    }

    /// The guest stays, or the time is up. Whether it had been released.
    pub(super) fn end_release(&mut self, key: Key, at: Time) -> bool {
        let Some(r) = self.prepare.releases.remove(&key) else { return false };
        self.prepare.release_timers.remove(&(r.until, key));
        self.keep_release(key, None, at);
        self.renew_remote_row(key);
        self.end_hold_here(key, at);
        self.retract_mark(key, at);
        true
    }

    pub(super) fn due_releases(&mut self, at: Time) {
        while let Some(&(t, key)) = self.prepare.release_timers.first() {
            if t > at {
                break;
            }
            self.prepare.release_timers.remove(&(t, key));
            self.end_release(key, at);
        }
    }

    /// Writes the row of a remote MAC anew: whether a local frame may take it has changed.
    fn renew_remote_row(&mut self, key: Key) {
        let Some(Owner::Remote(m)) = self.owner_now(key) else { return };
        let Some(seg) = self.segments.get(&key.0) else { return };
        if let (Some(k), Some(row)) = (seg.mac_key(key.1), seg.remote_row(m.claim.vtep, m.claim.sticky)) {
            self.want_set(k, row, true);
        }
    }

    /// The state directory has it too: a daemon that is restarted meanwhile goes on with it.
    fn keep_release(&mut self, (vni, mac): Key, until: Option<Time>, at: Time) {
        let wall = self.unix(at);
        let until = until.zip(wall).map(|(t, now)| now + t.since(at).0.div_ceil(1_000_000_000));
        let release = self.prepare.releases.get(&(vni, mac));
        let link = release.and_then(|r| r.port).and_then(|p| self.links.get(&p));
        let port = link.map(|l| PortMark::of(&l.name)).or(release.and_then(|r| r.before));
        if let Some(seg) = self.segments.get_mut(&vni) {
            seg.memory.release(mac, until.map(|until| Released { until, port }), at);
        }
    }

    /// What an earlier run had been told. The port is found by its name, when the device is seen: its index is another
    /// one if it was made anew. Until then, and in a record that names none, the release is about every port.
    pub(super) fn restore_release(&mut self, r: &Record, at: Time) {
        let (Some(released), Some(now)) = (r.released, self.unix(at)) else { return };
        let left = Self::move_timeout(Some(Span::secs(released.until.saturating_sub(now))), Span::ZERO);
        let known = self.segments.contains_key(&r.vni) && r.mac.is_host();
        if left == Span::ZERO || !known || self.prepare.releases.len() >= LIMIT {
            return;
        }
        let (key, until) = ((r.vni, r.mac), at + left);
        let release = Release { port: None, before: released.port, until, dark: false, open: false };
        if let Some(old) = self.prepare.releases.insert(key, release) {
            self.prepare.release_timers.remove(&(old.until, key));
        }
        self.prepare.release_timers.insert((until, key));
        self.journal.count("releases_restored");
    }

    /// A device is seen for the first time since the start: releases of the run before that are about its name are
    /// about it.
    pub(super) fn released_port_found(&mut self, port: IfIndex) {
        if self.synced || self.prepare.releases.is_empty() {
            return;
        }
        let Some(mark) = self.links.get(&port).map(|l| PortMark::of(&l.name)) else { return };
        for r in self.prepare.releases.values_mut().filter(|r| r.before == Some(mark)) {
            (r.port, r.before) = (Some(port), None);
        }
    }

    /// All devices are known. A port that is not among them went away while no daemon ran, and no last frame can come
    /// from it any more (PIT-04).
    pub(super) fn released_ports_missing(&mut self, at: Time) {
        let gone = self.prepare.releases.iter().filter(|(_, r)| r.before.is_some());
        for key in gone.map(|(key, _)| *key).collect::<Vec<Key>>() {
            self.journal.count("releases_ended_by_port");
            self.end_release(key, at);
        }
    }
}
