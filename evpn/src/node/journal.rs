//! What is told to people and asked of the driver: outputs, the event history, counters.

use super::event::Event;
use super::output::Output;
use crate::types::Time;
use std::collections::{BTreeMap, VecDeque};

/// Events kept for `vtepd watch` and `show events`.
const HISTORY: usize = 4096;

/// Outgoing queue of a turn, and the history of events.
#[derive(Debug, Default)]
pub(super) struct Journal {
    pub(super) out: VecDeque<Output>,
    events: VecDeque<(u64, Time, Event)>,
    next: u64,
    pub(super) counters: BTreeMap<&'static str, u64>,
    /// Frames that were not used, by reason.
    pub(super) refused_frames: BTreeMap<&'static str, u64>,
}

impl Journal {
    pub(super) fn push(&mut self, o: Output) {
        self.out.push_back(o);
    }

    pub(super) fn count(&mut self, name: &'static str) {
        self.add(name, 1);
    }

    pub(super) fn add(&mut self, name: &'static str, n: u64) {
        *self.counters.entry(name).or_default() += n;
    }

    pub(super) fn event(&mut self, event: Event, at: Time) {
        self.next += 1;
        if self.events.len() == HISTORY {
            self.events.pop_front();
        }
        self.events.push_back((self.next, at, event.clone()));
        self.out.push_back(Output::Event { at, n: self.next, event });
    }

    /// Events after number `after`, oldest first, and how many of them are lost.
    pub(super) fn after(&self, after: u64, limit: usize) -> (u64, Vec<(u64, Time, Event)>) {
        let first = self.events.front().map_or(self.next + 1, |e| e.0);
        let lagged = first.saturating_sub(after.saturating_add(1));
        let skip = usize::try_from(after.saturating_add(1).saturating_sub(first)).unwrap_or(usize::MAX);
        (lagged, self.events.iter().skip(skip).take(limit.clamp(1, HISTORY)).cloned().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_reader_learns_how_much_it_missed() {
        let mut j = Journal::default();
        for i in 0..HISTORY as u64 + 10 {
            j.event(Event::Overrun { count: i }, Time(i));
        }
        let (lagged, events) = j.after(0, 3);
        assert_eq!(lagged, 10);
        assert_eq!(events.iter().map(|e| e.0).collect::<Vec<_>>(), [11, 12, 13]);
        let (lagged, events) = j.after(HISTORY as u64 + 9, 3);
        assert_eq!((lagged, events.len()), (0, 1));
        assert_eq!(j.after(HISTORY as u64 + 10, 3).1.len(), 0);
    }
}
