//! Faults planted between a node and its surroundings: if the checker does not find them, it is blind.

use super::sniff;
use bytes::{Bytes, BytesMut};
use evpn::fabric::{FdbRow, KernelEvent};
use netlink::op::Op;
use std::net::{IpAddr, Ipv4Addr};

/// A planted fault.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Mutant {
    /// UPDATEs that withdraw are not sent.
    WithdrawalForgotten,
    /// Sequences are sent as 0.
    SequenceLost,
    /// Sequences are sent one too low.
    SequenceRepeated,
    /// Sequences are sent three too high.
    SequenceRunsAway,
    /// The late-frame rule is off.
    NoGuardTime,
    /// What is kept is not restored at start.
    NothingRestored,
    /// What is kept has sequence 0.
    KeptTooLow,
    /// A full read is not done when the node asks for it, nor is the loss told.
    ResyncSkipped,
    /// Results of writes are not told.
    WrittenSwallowed,
    /// Neighbour rows are not deleted.
    StaleNeighbour,
    /// Neighbour rows are written once and not changed.
    NeighbourMissing,
    /// `self` rows stay after a MAC has come.
    StaleSelfRow,
    /// The row of a MAC that came is not written to its port.
    LocalRowMissing,
    /// Remote rows are not deleted.
    StaleRemoteRow,
    /// Remote rows point to another VTEP.
    WrongVtep,
    /// No VTEP comes into the flood list.
    FloodMissing,
    /// The next hop of what is sent is another VTEP.
    WrongNextHop,
    /// UPDATEs go out four times.
    Chatter,
    /// UPDATEs with a sequence are dropped now and then.
    UpdateLost,
    /// A closed connection is not noticed.
    CloseUnnoticed,
    /// Frames of access ports are not looked at.
    Deaf,
    /// Probes do not reach the guest.
    ProbesLost,
    /// A guest is asked once, and not again if it does not answer.
    ProbeChainLost,
    /// Local hosts are not kept over a restart (PROXY-MAINT-02).
    HostsForgotten,
    /// A guest's duplicate check is answered from what is known (PIT-14).
    CheckAnswered,
    /// Hosts are told of no changed MAC.
    TellForgotten,
    /// Ageing and lost carrier go unnoticed.
    DepartureUnnoticed,
    /// A MAC that comes back to a port goes unnoticed.
    ArrivalUnnoticed,
    /// What a dump did not show is taken for gone (PIT-13).
    ShortDumpsBelieved,
    /// A session without an UPDATE in its first second is given up: FRR's first comes after 1.05 s.
    Impatient,
    /// A sequence lower than one that was seen is refused, as FRR 8.4 does (#10468): FRR forgets.
    LowerRefused,
}

impl Mutant {
    /// All of them.
    pub const ALL: [Self; 31] = [
        Self::NothingRestored,
        Self::KeptTooLow,
        Self::Chatter,
        Self::WithdrawalForgotten,
        Self::SequenceLost,
        Self::SequenceRepeated,
        Self::SequenceRunsAway,
        Self::NoGuardTime,
        Self::ResyncSkipped,
        Self::WrittenSwallowed,
        Self::StaleNeighbour,
        Self::NeighbourMissing,
        Self::StaleSelfRow,
        Self::LocalRowMissing,
        Self::StaleRemoteRow,
        Self::WrongVtep,
        Self::FloodMissing,
        Self::WrongNextHop,
        Self::UpdateLost,
        Self::CloseUnnoticed,
        Self::Deaf,
        Self::ProbesLost,
        Self::ProbeChainLost,
        Self::HostsForgotten,
        Self::CheckAnswered,
        Self::TellForgotten,
        Self::DepartureUnnoticed,
        Self::ArrivalUnnoticed,
        Self::ShortDumpsBelieved,
        Self::Impatient,
        Self::LowerRefused,
    ];

    /// Notifications that never reach the daemon.
    pub(super) fn swallows(self, ev: &KernelEvent) -> bool {
        match self {
            Self::ResyncSkipped => *ev == KernelEvent::Overrun,
            Self::DepartureUnnoticed => {
                matches!(ev, KernelEvent::FdbGone(FdbRow::Bridge(r)) if !r.ext_learned)
            }
            Self::ArrivalUnnoticed => {
                matches!(ev, KernelEvent::Fdb(FdbRow::Bridge(r)) if !r.ext_learned && !r.permanent)
            }
            _ => false,
        }
    }

    /// What is written instead of an op; `None`: the op itself.
    pub(super) fn bends(self, op: &Op) -> Option<Vec<Op>> {
        let elsewhere = IpAddr::V4(Ipv4Addr::new(10, 255, 0, 1));
        match (self, *op) {
            (Self::StaleNeighbour, Op::DelNeigh { .. })
            | (Self::NeighbourMissing, Op::SetNeigh { .. })
            | (Self::StaleSelfRow, Op::DelSelf { .. })
            | (Self::LocalRowMissing, Op::SetLocal { .. })
            | (Self::StaleRemoteRow, Op::DelRemote { .. })
            | (Self::FloodMissing, Op::AddFlood { .. }) => Some(Vec::new()),
            // A row to be removed where the MAC has come: only half of it goes.
            (Self::StaleSelfRow, Op::DelRemote { vxlan, mac, .. }) => {
                Some(vec![Op::DelMaster { port: vxlan, mac }])
            }
            (Self::WrongVtep, Op::SetRemote { vxlan, mac, .. }) => {
                Some(vec![Op::SetRemote { vxlan, mac, vtep: elsewhere }])
            }
            _ => None,
        }
    }

    /// What is sent instead, perhaps nothing. `again`: to be sent
    /// once more.
    pub(super) fn distorts(self, octets: &Bytes, again: &mut Vec<Bytes>) -> Bytes {
        again.clear();
        let mut out = BytesMut::new();
        for m in sniff::messages(octets) {
            if !sniff::is_update(m) {
                out.extend_from_slice(m);
                continue;
            }
            let codes = sniff::attributes(m);
            let hop = codes.iter().find(|(c, _)| *c == 14).map(|(_, r)| r.start + 4);
            let withdraws = codes.iter().any(|(c, r)| *c == 15 && r.len() > 3);
            let seq = sniff::sequence_at(m);
            let from = out.len();
            match self {
                Self::WithdrawalForgotten if withdraws => continue,
                Self::UpdateLost if seq.is_some_and(|at| m[at + 3] & 1 == 0) => continue,
                _ => out.extend_from_slice(m),
            }
            let shift = match self {
                Self::SequenceLost => Some(None),
                Self::SequenceRepeated => Some(Some(u32::MAX)),
                Self::SequenceRunsAway => Some(Some(3)),
                _ => None,
            };
            if let (Some(at), Some(shift)) = (seq, shift)
                && let Some(field) = out.get_mut(from + at..from + at + 4)
                && let Ok(old) = <[u8; 4]>::try_from(&*field)
            {
                let new = shift.map_or(0, |by: u32| u32::from_be_bytes(old).wrapping_add(by));
                field.copy_from_slice(&new.to_be_bytes());
            }
            if let (Self::WrongNextHop, Some(at)) = (self, hop)
                && let Some(last) = out.get_mut(from + at + 3)
            {
                *last = if *last == 1 { 2 } else { 1 };
            }
            if self == Self::Chatter {
                for _ in 0..3 {
                    again.push(Bytes::copy_from_slice(m));
                }
            }
        }
        out.freeze()
    }
}
