//! Whether a complete read has to be repeated because it may have been short (PIT-13).
//!
//! The kernel reads its tables in parts and finds its place again by counting: a row that goes between two parts
//! shifts the rest, and a row that stays is left out, without `NLM_F_DUMP_INTR`. A row that is known is asked for
//! by itself then; a row that is not known, as at start or after lost notifications, can only be found by another
//! read. Whatever goes is told while the read lasts, so a read during which nothing went is whole.

/// Reads before the tables are called complete, so that what the first left out is adopted as the rest is (PIT-27).
const AT_ONCE: u32 = 3;
/// Reads after that, each twice as long after the one before as that one: under steady churn none is ever whole,
/// and what ten of them have left out is hardly there.
const LATER: u32 = 7;

/// What follows a complete read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum After {
    /// Read again before anything else.
    Repeat,
    /// The tables are known.
    Known,
}

/// Repetitions due.
#[derive(Clone, Debug, Default)]
pub(crate) struct Again {
    /// Short reads at once.
    tries: u32,
    /// Short reads since.
    pauses: u32,
    /// Audits until the next read; 0: none is due.
    wait: u32,
}

impl Again {
    /// Nothing is known any more: as at start.
    pub(crate) fn restart(&mut self) {
        *self = Self::default();
    }

    /// A complete read is over; `short`: rows may be missing from it. `known`: the tables have been read before.
    pub(crate) fn read(&mut self, short: bool, known: bool) -> After {
        self.wait = 0;
        if !short {
            self.restart();
        } else if !known && self.tries + 1 < AT_ONCE {
            self.tries += 1;
            return After::Repeat;
        } else if self.pauses < LATER {
            self.wait = 1 << self.pauses;
            self.pauses += 1;
        }
        After::Known
    }

    /// About a second has passed. Whether to read now.
    pub(crate) fn tick(&mut self) -> bool {
        let due = self.wait == 1;
        self.wait = self.wait.saturating_sub(1);
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// PIT-13
    #[test]
    fn reads_that_are_never_whole_are_repeated_ten_times_and_no_more() {
        let mut a = Again::default();
        assert_eq!(a.read(true, false), After::Repeat);
        assert_eq!(a.read(true, false), After::Repeat);
        assert_eq!(a.read(true, false), After::Known);
        let mut pauses = Vec::new();
        let mut seconds = 0;
        for _ in 0..1000 {
            seconds += 1;
            if a.tick() {
                pauses.push(std::mem::take(&mut seconds));
                assert_eq!(a.read(true, true), After::Known);
            }
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 64]);
    }

    /// PIT-13
    #[test]
    fn a_whole_read_ends_it() {
        let mut a = Again::default();
        assert_eq!(a.read(true, false), After::Repeat);
        assert_eq!(a.read(false, false), After::Known);
        assert!((0..1000).all(|_| !a.tick()));
    }
}
