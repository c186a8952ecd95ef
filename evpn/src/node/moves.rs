//! Move records: from the first sign to the kernel's acknowledgement.

use super::event::Event;
use super::journal::Journal;
use super::view::{MoveView, Place};
use crate::types::{Mac, Seq, Time, Vni};
use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;

/// Finished records kept.
const HISTORY: usize = 4096;
/// Records open at a time; above it the oldest are closed as they are.
const OPEN: usize = 16_384;

/// What a record starts with.
#[derive(Debug)]
pub(super) struct Opening {
    pub(super) vni: Vni,
    pub(super) mac: Mac,
    pub(super) ips: Vec<IpAddr>,
    pub(super) role: &'static str,
    pub(super) cause: &'static str,
    pub(super) from: Place,
    pub(super) to: Place,
    pub(super) seq_before: Seq,
    pub(super) seq: Seq,
    pub(super) seen: Time,
}

/// Open and finished records.
#[derive(Debug, Default)]
pub(super) struct Moves {
    open: BTreeMap<(Vni, Mac), MoveView>,
    unsent: Vec<(Vni, Mac)>,
    done: VecDeque<Arc<MoveView>>,
    next: u64,
}

impl Moves {
    /// Opens a record; one that is still open for the same MAC ends as it is.
    pub(super) fn open(&mut self, o: Opening, at: Time, journal: &mut Journal) {
        self.close(o.vni, o.mac, at, journal);
        if self.open.len() >= OPEN
            && let Some(&(vni, mac)) = self.open.keys().next()
        {
            self.close(vni, mac, at, journal);
        }
        self.next += 1;
        let m = MoveView {
            id: self.next,
            vni: o.vni,
            mac: o.mac,
            ips: o.ips,
            role: o.role.into(),
            cause: o.cause.into(),
            from: o.from,
            to: o.to,
            seq_before: o.seq_before,
            seq: o.seq,
            seen: o.seen,
            decided: at,
            sent: None,
            acked: None,
        };
        self.open.insert((o.vni, o.mac), m);
        if o.role == "arrived" {
            self.unsent.push((o.vni, o.mac));
        }
    }

    /// The withdrawal of a lost MAC is due; its record waits for the socket.
    pub(super) fn withdrawing(&mut self, vni: Vni, mac: Mac) {
        if self.open.contains_key(&(vni, mac)) {
            self.unsent.push((vni, mac));
        }
    }

    /// Everything due was handed to the sockets.
    pub(super) fn all_sent(&mut self, at: Time, journal: &mut Journal) {
        for (vni, mac) in std::mem::take(&mut self.unsent) {
            if let Some(m) = self.open.get_mut(&(vni, mac)) {
                m.sent = Some(at);
                if m.acked.is_some() {
                    self.close(vni, mac, at, journal);
                }
            }
        }
    }

    /// The kernel acknowledged the MAC's row.
    pub(super) fn acked(&mut self, vni: Vni, mac: Mac, at: Time, journal: &mut Journal) {
        if let Some(m) = self.open.get_mut(&(vni, mac)) {
            m.acked.get_or_insert(at);
            if m.sent.is_some() || m.role == "remote" {
                self.close(vni, mac, at, journal);
            }
        }
    }

    /// IPs that joined while the record is open.
    pub(super) fn joined(&mut self, vni: Vni, mac: Mac, ip: IpAddr) {
        if let Some(m) = self.open.get_mut(&(vni, mac))
            && !m.ips.contains(&ip)
        {
            m.ips.push(ip);
        }
    }

    fn close(&mut self, vni: Vni, mac: Mac, at: Time, journal: &mut Journal) {
        if let Some(m) = self.open.remove(&(vni, mac)) {
            if self.done.len() == HISTORY {
                self.done.pop_front();
            }
            let m = Arc::new(m);
            self.done.push_back(Arc::clone(&m));
            journal.count("moves");
            journal.event(Event::Move(m), at);
        }
    }

    /// Records after number `after`, oldest first, finished and open.
    pub(super) fn after(&self, after: u64) -> Vec<&MoveView> {
        let mut v: Vec<_> =
            self.done.iter().map(|m| &**m).chain(self.open.values()).filter(|m| m.id > after).collect();
        v.sort_by_key(|m| m.id);
        v
    }

    pub(super) fn waiting_to_be_sent(&self) -> bool {
        !self.unsent.is_empty()
    }
}
