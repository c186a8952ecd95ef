//! What is told of the state directory: damage, trouble when it begins, and its end (EVPN-MOB-12).
//!
//! Bounded by its shape: trouble is told once however long it lasts, its end only when it has stayed away for some
//! seconds, and damage once per file that is set aside. A disk that is full every other second is one event, not many.

use super::open::Damage;
use evpn::node::Event;
use evpn::types::Span;
use std::path::Path;
use std::time::Instant;

/// Looks, one per second, without trouble after which it is over.
const QUIET: u32 = 3;
/// Events that wait for the core, which asks once a second. More are not made; the counters have them.
const WAITING: usize = 16;

/// What does not work.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Risk {
    /// What was written may never reach the disk.
    Crash,
    /// The file cannot be read back, and neither set aside: nothing past the fault counts at the next start.
    Damage,
    /// Nothing can be written.
    Restart,
}

impl Risk {
    const fn text(self) -> &'static str {
        match self {
            Self::Crash => "a crash of the machine now would forget the newest sequences",
            Self::Damage => "a restart now would forget what stands behind the damage",
            Self::Restart => "a restart now would forget the sequences of the moves since",
        }
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Told {
    path: String,
    news: Vec<Event>,
    /// As it was told, and since when.
    trouble: Option<(Risk, Instant)>,
    quiet: u32,
    /// Records that had waited.
    late: usize,
}

impl Told {
    pub(super) fn new(path: &Path, damage: Option<&Damage>) -> Self {
        let mut told =
            Self { path: path.display().to_string(), news: Vec::new(), trouble: None, quiet: 0, late: 0 };
        if let Some(d) = damage {
            let aside = match &d.aside {
                Ok(to) => format!("set aside as {}; what stood before is used", to.display()),
                Err(why) => format!("cut off there; it could not be set aside: {why}"),
            };
            told.damaged(Some(d.offset), d.what.clone(), aside);
        }
        told
    }

    fn push(&mut self, event: Event) {
        if self.news.len() < WAITING {
            self.news.push(event);
        }
    }

    fn damaged(&mut self, offset: Option<u64>, what: String, outcome: String) {
        let path = self.path.clone();
        self.push(Event::StateDamaged { path, offset, what, outcome });
    }

    /// The file could not be read back while in use; it is another one now.
    pub(super) fn replaced(&mut self, aside: &Path) {
        let outcome = format!("set aside as {} and written anew", aside.display());
        self.damaged(None, "it could not be read back while in use".into(), outcome);
    }

    /// So many records that had been held back are written.
    pub(super) fn caught_up(&mut self, records: usize) {
        self.late += records;
    }

    /// Something does not work. Told when it is news, or worse than what was told.
    pub(super) fn trouble(&mut self, risk: Risk, why: &str) {
        self.quiet = 0;
        let since = match self.trouble {
            Some((known, _)) if risk <= known => return,
            Some((_, since)) => since,
            None => Instant::now(),
        };
        self.trouble = Some((risk, since));
        let (path, why) = (self.path.clone(), why.to_owned());
        self.push(Event::StateFailing { path, why, risk: risk.text().into() });
    }

    /// Once a second when all is well.
    pub(super) fn well(&mut self) {
        let Some((_, since)) = self.trouble else { return };
        self.quiet += 1;
        if self.quiet < QUIET {
            return;
        }
        self.trouble = None;
        let after = Span(u64::try_from(since.elapsed().as_nanos()).unwrap_or(u64::MAX));
        let (path, records) = (self.path.clone(), std::mem::take(&mut self.late));
        self.push(Event::StateRecovered { path, records, after });
    }

    /// What the core has not heard yet.
    pub(super) fn take(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.news)
    }
}

#[cfg(test)]
mod tests {
    use super::super::format::SLOT;
    use super::super::tests::{HERE, NOW, care, eventually, rec, start};
    use super::super::{Care, Keeper, NAME};
    use super::*;
    use std::fs::OpenOptions;

    fn names(events: &[Event]) -> Vec<&'static str> {
        let name = |e: &Event| match e {
            Event::StateDamaged { .. } => "damaged",
            Event::StateFailing { .. } => "failing",
            Event::StateRecovered { .. } => "recovered",
            other => panic!("not about the state directory: {other:?}"),
        };
        events.iter().map(name).collect()
    }

    /// Looks until something is told; one look is one second of the daemon.
    fn told(k: &mut Keeper, looks: usize) -> Vec<Event> {
        let mut all = Vec::new();
        for _ in 0..looks {
            assert!(!k.tick());
            all.extend(k.news());
        }
        all
    }

    #[test]
    fn a_full_disk_is_told_once_and_its_end_too() {
        let dir = tempfile::tempdir().expect("directory");
        let (mut k, _) = start(dir.path(), HERE);
        assert_eq!(told(&mut k, 5), [], "nothing is wrong");
        let full = OpenOptions::new().write(true).open("/dev/full").expect("there");
        let good = k.swap_file(full);
        k.append(&[rec(1, 1), rec(2, 1)]);
        let news = k.news();
        let [Event::StateFailing { path, why, risk }] = &*news else { panic!("{news:?}") };
        assert!(
            path.ends_with(NAME) && why.contains("No space left") && risk.contains("restart"),
            "{news:?}"
        );
        assert_eq!(told(&mut k, 100), [], "once, not every second");
        k.swap_file(good);
        let news = told(&mut k, 10);
        let [Event::StateRecovered { records: 2, .. }] = &*news else { panic!("{news:?}") };
        k.close();
    }

    /// Full at one second, with room at the next, for a minute.
    #[test]
    fn a_disk_that_comes_and_goes_is_one_event_until_it_stays() {
        let dir = tempfile::tempdir().expect("directory");
        let (mut k, _) = start(dir.path(), HERE);
        let mut all = Vec::new();
        for n in 0..60 {
            let full = OpenOptions::new().write(true).open("/dev/full").expect("there");
            let good = k.swap_file(full);
            k.append(&[rec(1, n)]);
            k.swap_file(good);
            all.extend(told(&mut k, 1));
        }
        assert_eq!(names(&all), ["failing"]);
        assert_eq!(names(&told(&mut k, 10)), ["recovered"]);
        k.close();
    }

    /// The thread cannot compact, because the directory is not there; what is appended is written all the same.
    #[test]
    fn what_the_disk_thread_cannot_do_is_told_and_its_end_too() {
        let dir = tempfile::tempdir().expect("directory");
        let state = dir.path().join("state");
        std::fs::create_dir(&state).expect("made");
        let care = Care { least: 20 * SLOT as u64, ..care() };
        let (mut k, _) = Keeper::open_under(&state, care, NOW, HERE).expect("usable");
        std::fs::rename(&state, dir.path().join("away")).expect("renamed");
        for seq in 1..=100 {
            k.append(&[rec(1, seq)]);
        }
        let mut news = Vec::new();
        eventually("it is told", || {
            news.extend(told(&mut k, 1));
            !news.is_empty()
        });
        let [Event::StateFailing { risk, .. }] = &*news else { panic!("{news:?}") };
        assert!(risk.contains("crash of the machine"), "{news:?}");
        std::fs::rename(dir.path().join("away"), &state).expect("renamed");
        eventually("its end is told", || {
            news.extend(told(&mut k, 1));
            news.len() > 1
        });
        assert_eq!(names(&news), ["failing", "recovered"]);
        k.close();
    }

    /// The file rots while the directory is away: neither set aside nor written anew until it is back.
    #[test]
    fn damage_that_cannot_be_set_aside_is_told_once_and_mended_later() {
        use std::os::unix::fs::FileExt as _;
        let dir = tempfile::tempdir().expect("directory");
        let (state, away) = (dir.path().join("state"), dir.path().join("away"));
        std::fs::create_dir(&state).expect("made");
        let care = Care { least: 20 * SLOT as u64, ..care() };
        let (mut k, _) = Keeper::open_under(&state, care, NOW, HERE).expect("usable");
        k.append(&[rec(1, 1), rec(1, 2), rec(1, 3)]);
        let file = OpenOptions::new().write(true).open(state.join(NAME)).expect("there");
        file.write_all_at(&[0xff], 3 * SLOT as u64).expect("writable");
        std::fs::rename(&state, &away).expect("renamed");
        for seq in 4..=100 {
            k.append(&[rec(1, seq)]);
        }
        let mut news = Vec::new();
        eventually("it is told", || {
            news.extend(told(&mut k, 1));
            !news.is_empty()
        });
        news.extend(told(&mut k, 50));
        let [Event::StateFailing { why, risk, .. }] = &*news else { panic!("{news:?}") };
        assert!(why.contains("could not be set aside") && risk.contains("behind the damage"), "{news:?}");
        std::fs::rename(&away, &state).expect("renamed");
        assert!(k.tick(), "written anew");
        k.append(&[rec(1, 100)]);
        news.extend(k.news());
        eventually("its end is told", || {
            news.extend(told(&mut k, 1));
            news.len() > 2
        });
        assert_eq!(names(&news), ["failing", "damaged", "recovered"]);
        k.close();
    }

    #[test]
    fn trouble_that_gets_worse_is_told_again_and_better_is_no_news() {
        let mut t = Told::new(Path::new("journal"), None);
        for (risk, expected) in
            [(Risk::Crash, 1), (Risk::Restart, 1), (Risk::Crash, 0), (Risk::Damage, 0), (Risk::Restart, 0)]
        {
            t.trouble(risk, "why");
            assert_eq!(t.take().len(), expected, "{risk:?}");
        }
        (0..QUIET).for_each(|_| t.well());
        assert_eq!(names(&t.take()), ["recovered"]);
        t.well();
        assert_eq!(t.take(), []);
    }

    #[test]
    fn nobody_who_listens_costs_no_memory() {
        let mut t = Told::new(Path::new("journal"), None);
        for _ in 0..10_000 {
            t.replaced(Path::new("aside"));
        }
        assert_eq!(t.take().len(), WAITING);
    }
}
