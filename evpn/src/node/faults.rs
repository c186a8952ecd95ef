//! Faults in a neighbour's UPDATEs that do not end its session: counted by attribute and reaction, and told with the
//! routes and the octets, but no more of them in a second than a person reads (BGP-ERR-28).

use super::event::Event;
use super::journal::Journal;
use super::view::FaultCount;
use crate::session::ring;
use crate::types::Time;
use crate::wire::{Fault, Treatment, Update};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Faults told one by one per neighbour and second.
const PER_SECOND: u64 = 8;
/// Octets of the UPDATE that are told; `show neighbors NAME` has more.
const TOLD_OCTETS: usize = 256;

/// What was counted for a neighbour. At most one entry per attribute code and reaction.
#[derive(Debug, Default)]
pub(super) struct Faults {
    by: BTreeMap<(Option<u8>, Treatment), u64>,
    second: u64,
    in_second: u64,
}

/// A reaction in a word.
const fn word(t: Treatment) -> &'static str {
    match t {
        Treatment::SkipNlri => "skip-nlri",
        Treatment::DiscardAttribute => "discard-attribute",
        Treatment::TreatAsWithdraw => "treat-as-withdraw",
        Treatment::Reset => "reset",
    }
}

impl Faults {
    /// Counts the faults of an UPDATE and tells of them.
    pub(super) fn take(
        &mut self,
        address: IpAddr,
        u: &Update,
        faults: &[Fault],
        raw: &[u8],
        journal: &mut Journal,
        at: Time,
    ) {
        let second = at.0 / 1_000_000_000;
        if second != self.second {
            let untold = self.in_second.saturating_sub(PER_SECOND);
            if untold > 0 {
                let text = format!("{untold} more faults of UPDATEs were counted and not told one by one");
                journal.event(Event::SessionNote { address, text }, at);
            }
            (self.second, self.in_second) = (second, 0);
        }
        for f in faults {
            *self.by.entry((f.attribute, f.treatment)).or_insert(0) += 1;
            self.in_second += 1;
            if self.in_second > PER_SECOND {
                continue;
            }
            let mut octets = ring::hex(raw.get(..TOLD_OCTETS).unwrap_or(raw));
            if raw.len() > TOLD_OCTETS {
                octets.push_str("...");
            }
            let e = Event::UpdateFault {
                address,
                offset: f.offset,
                attribute: f.attribute,
                what: f.what.into(),
                treatment: word(f.treatment).into(),
                routes: ring::routes_of(u),
                octets,
            };
            journal.event(e, at);
        }
    }

    /// The counters.
    pub(super) fn counts(&self) -> Vec<FaultCount> {
        let row = |(&(attribute, treatment), &count): (&(Option<u8>, Treatment), &u64)| FaultCount {
            attribute,
            treatment: word(treatment).into(),
            count,
        };
        self.by.iter().map(row).collect()
    }
}
