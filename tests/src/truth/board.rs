//! Hears every port, answers for the hosts behind the shared ones, and notes every answer. Reads the kernels' rows as well.

use super::judge::{How, Seen};
use super::world::World;
use super::{Shared, lock, pause};
use crate::asking::{answer, as_answer, as_question};
use crate::packet::{Wire, now};
use crate::tables::Tables;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Between two readings of the kernels' tables.
const ROWS: Duration = Duration::from_millis(500);

/// An answer comes within this time, in nanoseconds.
const LATEST: u64 = 1_000_000_000;

/// Where something is heard.
struct Ear<'a> {
    vtep: usize,
    wire: &'a Wire,
    /// A shared port.
    mouth: Option<usize>,
}

pub(super) fn listen(world: &World, shared: &Mutex<Shared>, stop: &AtomicBool) {
    let of_mouths = world.mouths.iter().enumerate();
    let ears: Vec<_> = of_mouths
        .map(|(n, m)| Ear { vtep: m.vtep, wire: &m.wire, mouth: Some(n) })
        .chain(world.linux.iter().map(|l| Ear { vtep: l.vtep, wire: &l.ear, mouth: None }))
        .collect();
    let limit = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
    while !stop.load(Ordering::Relaxed) {
        let mut fds: Vec<_> = ears.iter().map(|e| PollFd::new(e.wire, PollFlags::IN)).collect();
        if !matches!(poll(&mut fds, Some(&limit)), Ok(1..)) {
            continue;
        }
        for (e, fd) in ears.iter().zip(&fds) {
            if fd.revents().is_empty() {
                continue;
            }
            while let Some((at, f)) = e.wire.poll_stamped() {
                if let Some(reply) = heard(world, shared, e, at, &f) {
                    e.wire.send(&reply);
                }
            }
        }
    }
}

/// Notes what a frame says; the answer of the host that is asked, if it is here.
fn heard(world: &World, shared: &Mutex<Shared>, ear: &Ear<'_>, at: u64, f: &[u8]) -> Option<Vec<u8>> {
    if let Some((mac, ip)) = as_answer(f) {
        let mut s = lock(shared);
        s.frames += 1;
        s.note(Seen { how: How::Frame, vtep: ear.vtep, ip, mac, from: at, to: at });
        let mouth = ear.mouth?;
        if f[..6] == world.mouths[mouth].asker[0].0.0
            && let Some(n) = s.pending.remove(&(mouth, ip))
            && let Some(a) = s.asked.get_mut(n)
            // What comes later is no answer: a host that asked is told of a change, too.
            && at.saturating_sub(a.at) < LATEST
        {
            a.took = Some(at.saturating_sub(a.at));
        }
        let checks =
            s.by_ip.get(&ip).and_then(|n| s.guests.get(*n)).filter(|g| g.at == Some(mouth) && !g.has);
        if let Some(g) = checks.filter(|g| g.mac != mac) {
            let words = format!("{} of {} is said to be {mac}'s at VTEP {}", ip, g.mac, ear.vtep);
            s.refused.push(words);
        }
        return None;
    }
    let (q, mouth) = (as_question(f)?, ear.mouth?);
    if let Some(own) = world.mouths[mouth].asker.iter().find(|a| a.1 == q.wanted) {
        return answer(*own, &q);
    }
    let s = lock(shared);
    let g = s.guests.get(*s.by_ip.get(&q.wanted)?)?;
    let here = g.at == Some(mouth) && g.has && g.kind.answers();
    here.then(|| answer((g.mac, q.wanted), &q)).flatten()
}

pub(super) fn read_rows(world: &World, shared: &Mutex<Shared>, stop: &AtomicBool) {
    let tables: Vec<_> = world.fabric.vteps.iter().map(|v| Tables::open(&v.ns)).collect();
    while pause(stop, ROWS) {
        for (vtep, t) in tables.iter().enumerate() {
            let from = now();
            let rows = t.neighbors();
            let to = now();
            let mut s = lock(shared);
            s.rows += rows.len() as u64;
            for r in rows {
                s.note(Seen { how: How::Row, vtep, ip: r.ip, mac: r.mac, from, to });
            }
        }
    }
}

/// How late a sleep of one millisecond ends: what is as late may be the machine's.
pub(super) fn control(stop: &AtomicBool) -> Vec<u64> {
    let mut out = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let due = now() + 1_000_000;
        std::thread::sleep(Duration::from_millis(1));
        out.push(now().saturating_sub(due));
        std::thread::sleep(Duration::from_millis(9));
    }
    out
}
