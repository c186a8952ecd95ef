//! The journal as a whole: what a start finds after every kind of end.

use super::format::tests::record;
use super::format::{self, BootId, Frame, SLOT};
use super::table::RAISE;
use super::*;
use evpn::mobility::Record;
use evpn::node::Event;
use evpn::types::{Mac, Seq, Vni};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};
use std::time::Instant;

pub(super) const NOW: u64 = 1_700_000_000;
pub(super) const HERE: BootId = [1; 16];
const LATER: BootId = [2; 16];

pub(super) fn care() -> Care {
    Care { batch: Duration::from_millis(1), ..Care::new(Span::secs(24 * 3600)) }
}

pub(super) fn rec(n: u16, seq: u32) -> Record {
    let [a, b] = n.to_be_bytes();
    let vni = Vni::new(100).expect("valid");
    Record { vni, mac: Mac([2, 0, 0, 0, a, b]), seq: Seq(seq), ours: true, unix: NOW, released: None }
}

pub(super) fn start(dir: &Path, boot: BootId) -> (Keeper, Restored) {
    Keeper::open_under(dir, care(), NOW, boot).expect("usable")
}

/// MAC number and sequence of what was restored.
fn found(r: &Restored) -> Vec<(u8, u32)> {
    r.records.iter().map(|r| (r.mac.0[5], r.seq.0)).collect()
}

/// The end by `kill -9`: nothing is told to anybody. The thread goes on, as the kernel does with what it was given.
fn kill(k: Keeper) {
    std::mem::forget(k);
}

fn journal(dir: &Path) -> PathBuf {
    dir.join(NAME)
}

pub(super) fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < Duration::from_secs(20), "never: {what}");
        std::thread::yield_now();
    }
}

fn counter(k: &Keeper, name: &str) -> u64 {
    k.counters().iter().find(|(n, _)| *n == name).map(|(_, v)| *v).expect("a counter of this name")
}

#[test]
fn an_empty_directory_is_a_good_start() {
    let dir = tempfile::tempdir().expect("directory");
    let (k, r) = start(dir.path(), HERE);
    assert!(r.records.is_empty() && r.damage.is_none() && r.raised == 0);
    k.close();
    let (_, r) = start(dir.path(), LATER);
    assert!(r.records.is_empty() && r.damage.is_none());
}

#[test]
fn after_a_kill_everything_is_there_as_it_was() {
    let dir = tempfile::tempdir().expect("directory");
    let (mut k, _) = start(dir.path(), HERE);
    k.append(&[rec(1, 5), rec(2, 6)]);
    k.append(&[rec(1, 7)]);
    kill(k);
    let (mut k, r) = start(dir.path(), HERE);
    assert_eq!((found(&r), r.raised), (vec![(1, 7), (2, 6)], 0));
    k.append(&[rec(3, 1)]);
    kill(k);
    assert_eq!(found(&start(dir.path(), HERE).1), [(1, 7), (2, 6), (3, 1)]);
}

/// The one that was killed had no time for it.
#[test]
fn a_start_brings_to_disk_what_is_there() {
    let dir = tempfile::tempdir().expect("directory");
    let (mut k, _) = start(dir.path(), HERE);
    k.append(&[rec(1, 5)]);
    kill(k);
    let (k, _) = start(dir.path(), HERE);
    eventually("an fsync", || counter(&k, "state_fsyncs") > 0);
    k.close();
}

#[test]
fn after_a_stop_and_a_boot_everything_is_there_as_it_was() {
    let dir = tempfile::tempdir().expect("directory");
    let (mut k, _) = start(dir.path(), HERE);
    k.append(&[rec(1, 5)]);
    k.close();
    let (k, r) = start(dir.path(), LATER);
    assert_eq!((found(&r), r.raised), (vec![(1, 5)], 0));
    k.close();
}

/// The last second before a crash of the machine may be lost: whatever was told then is beaten.
#[test]
fn after_a_crash_of_the_machine_every_sequence_is_raised_once() {
    let dir = tempfile::tempdir().expect("directory");
    let (mut k, _) = start(dir.path(), HERE);
    k.append(&[rec(1, 5), rec(2, 1)]);
    kill(k);
    let (k, r) = start(dir.path(), LATER);
    assert_eq!((found(&r), r.raised), (vec![(1, 5 + RAISE), (2, 1 + RAISE)], 2));
    // Raised is what it is from now on, and is not raised again by a restart of the daemon alone.
    kill(k);
    let (k, r) = start(dir.path(), LATER);
    assert_eq!((found(&r), r.raised), (vec![(1, 5 + RAISE), (2, 1 + RAISE)], 0));
    k.close();
}

/// The note of a stop must not outlive the next start: that daemon may lose something again.
#[test]
fn a_stop_counts_for_one_boot_only() {
    let dir = tempfile::tempdir().expect("directory");
    let (mut k, _) = start(dir.path(), HERE);
    k.append(&[rec(1, 5)]);
    k.close();
    let stopped = std::fs::metadata(journal(dir.path())).expect("there").len();
    let (k, _) = start(dir.path(), LATER);
    let started = std::fs::metadata(journal(dir.path())).expect("there").len();
    assert_eq!(started, stopped, "the note is overwritten, which needs no room on a full disk");
    kill(k);
    let (_, r) = start(dir.path(), [3; 16]);
    assert_eq!((found(&r), r.raised), (vec![(1, 5 + RAISE)], 1));
}

#[test]
fn a_damaged_file_is_set_aside_and_its_good_part_is_used() {
    let dir = tempfile::tempdir().expect("directory");
    for round in 1..=11u32 {
        let (mut k, _) = start(dir.path(), HERE);
        k.append(&[rec(1, 100 * round), rec(2, 100 * round)]);
        kill(k);
        let path = journal(dir.path());
        let mut bytes = std::fs::read(&path).expect("readable");
        let at = bytes.len() - SLOT + 7;
        bytes[at] ^= 1;
        bytes.extend(format::encode(&Frame::Record(rec(9, 9))));
        std::fs::write(&path, &bytes).expect("writable");
        let (mut k, r) = start(dir.path(), HERE);
        let d = r.damage.as_ref().expect("noticed");
        let aside = d.aside.as_ref().expect("set aside");
        let told = k.news();
        let [Event::StateDamaged { offset: Some(from), what, outcome, .. }] = &*told else {
            panic!("{told:?}")
        };
        assert_eq!((*from, what), (d.offset, &d.what));
        assert!(outcome.contains(&*aside.to_string_lossy()), "{outcome}");
        assert_eq!((d.offset, d.what.as_str()), ((at - 7) as u64, "wrong checksum"));
        let n = if round <= 9 { round } else { round - 9 };
        assert_eq!(*aside, dir.path().join(format!("{NAME}.corrupt-{n}")));
        assert_eq!(std::fs::read(aside).expect("kept"), bytes, "as it was, for whoever wants to know");
        assert_eq!(r.raised, r.records.len(), "something may be missing");
        assert_eq!(found(&r)[0], (1, 100 * round + RAISE));
        kill(k);
        let (_, again) = start(dir.path(), HERE);
        assert!(again.damage.is_none() && again.records == r.records, "rebuilt: {again:?}");
    }
}

#[test]
fn a_torn_last_slot_was_never_told_and_raises_nothing() {
    let dir = tempfile::tempdir().expect("directory");
    let (mut k, _) = start(dir.path(), HERE);
    k.append(&[rec(1, 5), rec(2, 6)]);
    kill(k);
    let file = std::fs::OpenOptions::new().write(true).open(journal(dir.path())).expect("there");
    file.set_len(file.metadata().expect("there").len() - 1).expect("cut");
    let (k, r) = start(dir.path(), HERE);
    assert_eq!((found(&r), r.raised, r.damage.is_some()), (vec![(1, 5)], 0, true));
    k.close();
}

#[test]
fn something_else_in_its_place_is_set_aside_and_a_directory_is_an_error() {
    let dir = tempfile::tempdir().expect("directory");
    std::fs::write(journal(dir.path()), "not for vtepd\n".repeat(10)).expect("writable");
    let (k, r) = start(dir.path(), HERE);
    let d = r.damage.expect("noticed");
    assert_eq!((d.offset, d.what.as_str()), (0, "this is no journal of sequences"));
    k.close();
    let (_, r) = start(dir.path(), HERE);
    assert!(r.damage.is_none());
    std::fs::remove_file(journal(dir.path())).expect("removed");
    std::fs::create_dir(journal(dir.path())).expect("made");
    let e = Keeper::open_under(dir.path(), care(), NOW, HERE).expect_err("unusable");
    assert!(e.to_string().starts_with("cannot open `"), "{e}");
}

#[test]
fn what_is_too_old_is_not_restored_and_goes_with_the_next_compaction() {
    let dir = tempfile::tempdir().expect("directory");
    let (mut k, _) = start(dir.path(), HERE);
    k.append(&[Record { unix: NOW - 28 * 3600, ..rec(1, 5) }, rec(2, 6)]);
    kill(k);
    assert_eq!(found(&start(dir.path(), HERE).1), [(2, 6)]);
}

/// A few MACs that move for ever need a few slots, and no append is lost on the way.
#[test]
fn compaction_bounds_the_file_and_loses_nothing() {
    let dir = tempfile::tempdir().expect("directory");
    let care = Care { least: 64 * SLOT as u64, ..care() };
    let (mut k, _) = Keeper::open_under(dir.path(), care, NOW, HERE).expect("usable");
    let mut told = BTreeMap::new();
    for seq in 1..=20_000u32 {
        let n = (seq * 7 % 10) as u16;
        // The real clock: compaction drops what is too old.
        k.append(&[Record { unix: crate::driver::clock::unix_seconds(), ..rec(n, seq) }]);
        told.insert(n as u8, seq);
        if seq % 500 == 0 {
            // One may have been under way all the time and be the last: its size tells, not the number.
            eventually("a compaction", || {
                assert!(!k.tick());
                counter(&k, "state_bytes") <= care.least
            });
        }
    }
    assert!(counter(&k, "state_fsyncs") > 0 && counter(&k, "state_failures") == 0);
    // The last one may still have its temporary name.
    assert!(counter(&k, "state_compactions") >= 39, "{:?}", k.counters());
    // Below the least size no further compaction begins, so that the thread, which a real kill would end, is at rest.
    eventually("the proper name", || {
        assert!(!k.tick());
        counter(&k, "state_bytes") <= care.least && !open::successor(dir.path()).exists()
    });
    kill(k);
    let (k, r) = Keeper::open_under(dir.path(), care, NOW, HERE).expect("usable");
    assert_eq!(found(&r).into_iter().collect::<BTreeMap<_, _>>(), told);
    assert!(r.damage.is_none() && r.raised == 0);
    k.close();
}

/// The medium lies about what was written: found when the file is compacted, set aside, and rebuilt from what the node
/// has in memory.
#[test]
fn a_file_that_rots_while_in_use_is_set_aside_and_written_anew() {
    use std::os::unix::fs::FileExt as _;
    let dir = tempfile::tempdir().expect("directory");
    let care = Care { least: 20 * SLOT as u64, ..care() };
    let unix = crate::driver::clock::unix_seconds();
    let (mut k, _) = Keeper::open_under(dir.path(), care, unix, HERE).expect("usable");
    let new = |n, seq| Record { unix, ..rec(n, seq) };
    for seq in 1..=10 {
        k.append(&[new(1, seq)]);
    }
    let file = std::fs::OpenOptions::new().write(true).open(journal(dir.path())).expect("there");
    file.write_all_at(&[0xff], 4 * SLOT as u64).expect("writable");
    for seq in 11..=30 {
        k.append(&[new(1, seq)]);
    }
    eventually("it is noticed", || k.tick());
    assert!(!k.tick(), "once");
    let told = k.news();
    let [Event::StateDamaged { offset: None, outcome, .. }] = &*told else { panic!("{told:?}") };
    assert!(outcome.contains("corrupt-1 and written anew"), "{outcome}");
    let aside = std::fs::read(dir.path().join(format!("{NAME}.corrupt-1"))).expect("set aside");
    assert_eq!(aside.len(), 32 * SLOT);
    // What the node does then; and it goes on, compactions included.
    k.append(&[new(1, 30), new(2, 5)]);
    for seq in 31..=100 {
        k.append(&[new(1, seq)]);
    }
    eventually("a compaction", || {
        assert!(!k.tick());
        counter(&k, "state_compactions") > 0
    });
    kill(k);
    let (k, r) = Keeper::open_under(dir.path(), care, unix, HERE).expect("usable");
    assert_eq!((found(&r), r.damage.is_none(), r.raised), (vec![(1, 100), (2, 5)], true, 0));
    k.close();
}

/// Killed between the take-over of a compacted file and its renaming: the file under the temporary name counts.
/// Killed before the take-over: it does not.
#[test]
fn a_successor_counts_from_its_adoption_on() {
    let slots = |frames: &[Frame]| {
        let mut b = format::header().to_vec();
        b.extend(frames.iter().flat_map(format::encode));
        b
    };
    let old = [Frame::Boot(HERE), Frame::Record(rec(1, 5)), Frame::Record(rec(1, 6))];
    for adopted in [false, true] {
        let dir = tempfile::tempdir().expect("directory");
        let mut new = vec![Frame::Boot(HERE), Frame::Record(rec(1, 5))];
        if adopted {
            new.extend([Frame::Record(rec(1, 6)), Frame::Adopted, Frame::Record(rec(1, 7))]);
        }
        std::fs::write(journal(dir.path()), slots(&old)).expect("writable");
        std::fs::write(open::successor(dir.path()), slots(&new)).expect("writable");
        let (k, r) = start(dir.path(), HERE);
        assert_eq!(found(&r), [(1, if adopted { 7 } else { 6 })]);
        assert!(!open::successor(dir.path()).exists() && r.damage.is_none());
        k.close();
    }
}

/// A disk that is full takes nothing; the daemon goes on and catches up when there is room.
#[test]
fn what_the_disk_refuses_is_held_back_and_written_later() {
    let dir = tempfile::tempdir().expect("directory");
    let (mut k, _) = start(dir.path(), HERE);
    k.append(&[rec(1, 1)]);
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").expect("there");
    let good = k.swap_file(full);
    for seq in 2..100 {
        k.append(&[rec(1, seq), rec(2, seq)]);
        assert!(!k.tick());
    }
    assert_eq!(counter(&k, "state_records_not_kept"), 2);
    assert_eq!(counter(&k, "state_failures"), 99, "one per second, not one per record");
    k.swap_file(good);
    assert!(!k.tick());
    assert_eq!(counter(&k, "state_records_not_kept"), 0);
    k.append(&[rec(2, 100)]);
    kill(k);
    assert_eq!(found(&start(dir.path(), HERE).1), [(1, 99), (2, 100)]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever is cut off or changed: no panic, the records before it are used, and the file is usable again.
    #[test]
    fn any_damage_leaves_the_good_part(
        records in proptest::collection::vec(record(), 0..12),
        at in any::<prop::sample::Index>(),
        cut in any::<bool>(),
        later in any::<bool>(),
    ) {
        let dir = tempfile::tempdir().expect("directory");
        let fresh = |r: &Record| Record { unix: NOW, ..*r };
        let mut bytes = format::header().to_vec();
        bytes.extend(format::encode(&Frame::Boot(HERE)));
        bytes.extend(records.iter().flat_map(|r| format::encode(&Frame::Record(fresh(r)))));
        let at = at.index(bytes.len());
        if cut { bytes.truncate(at) } else { bytes[at] ^= 0x40 }
        std::fs::write(journal(dir.path()), &bytes).expect("writable");
        let mut expected = BTreeMap::new();
        for r in records.iter().take((at / SLOT).saturating_sub(2)) {
            expected.insert((r.vni, r.mac), fresh(r));
        }
        let (mut k, r) = start(dir.path(), if later { LATER } else { HERE });
        let torn = cut && at / SLOT >= 2;
        let raise = if torn && !later { 0 } else { RAISE };
        let got: Vec<Record> = expected.into_values()
            .map(|r| Record { seq: Seq(r.seq.0.wrapping_add(raise)), ..r }).collect();
        prop_assert_eq!(&r.records, &got);
        prop_assert_eq!(r.damage.is_some(), !cut || at % SLOT != 0);
        k.append(&[rec(7, 7)]);
        kill(k);
        let (_, again) = start(dir.path(), if later { LATER } else { HERE });
        prop_assert!(again.damage.is_none());
        prop_assert!(again.records.contains(&rec(7, 7)));
    }
}

/// Says which directory the child of the test below writes to.
const CHILD: &str = "VTEPD_JOURNAL_CHILD";

/// `kill -9` at random points of a process that does nothing but append and compact: what `append` has returned
/// from is there at the next start. `VTEPD_KILLS` says how many.
#[test]
fn a_killed_writer_has_kept_what_it_said_it_had() {
    if let Some(dir) = std::env::var_os(CHILD) {
        write_until_killed(Path::new(&dir));
    }
    let dir = tempfile::tempdir().expect("directory");
    let mut told: BTreeMap<u32, u32> = BTreeMap::new();
    let (mut appended, mut random) = (0u64, 0x9e37_79b9_7f4a_7c15u64);
    let kills = std::env::var("VTEPD_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(60u64);
    for kill in 0..kills {
        let me = std::env::current_exe().expect("a test knows its own path");
        let mut child = Command::new(me)
            .args(["--exact", "state::tests::a_killed_writer_has_kept_what_it_said_it_had", "--nocapture"])
            .env(CHILD, dir.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("starts");
        let mut lines = BufReader::new(child.stdout.take().expect("piped"));
        let mut next = || {
            let mut line = String::new();
            let whole = lines.read_line(&mut line).is_ok() && line.ends_with('\n');
            whole.then(|| line.trim_end().to_owned())
        };
        // Until killed it tells; the kill comes after so many lines, wherever it is by then.
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let mut left = (random >> 33) % 400;
        let mut restored = BTreeMap::new();
        while let Some(line) = next() {
            let words: Vec<&str> = line.split(' ').collect();
            let number = |i: usize| words.get(i).and_then(|w| w.parse::<u32>().ok()).expect("a number");
            match words.first().copied() {
                Some("restored") => {
                    restored.insert(number(1), number(2));
                }
                Some("damaged") => panic!("kill {kill}: {line}"),
                Some("begin") => {
                    for (mac, seq) in &told {
                        let got = restored.get(mac).copied().unwrap_or(0);
                        assert!(
                            got == *seq || got == seq + 1,
                            "kill {kill}: {mac} told {seq}, restored {got}"
                        );
                    }
                    told.extend(&restored);
                }
                Some("kept") => {
                    appended += 1;
                    told.insert(number(1), number(2));
                }
                _ => {}
            }
            left = left.saturating_sub(1);
            if left == 0 {
                child.kill().expect("it runs");
            }
        }
        child.wait().expect("it ended");
    }
    assert!(appended > 30 * kills, "only {appended} appends");
}

fn write_until_killed(dir: &Path) -> ! {
    let care = Care { least: 32 * SLOT as u64, ..care() };
    let unix = crate::driver::clock::unix_seconds();
    let (mut k, restored) = Keeper::open(dir, care, unix).expect("usable");
    let mut seqs: BTreeMap<u32, u32> =
        restored.records.iter().map(|r| (u32::from(r.mac.0[5]), r.seq.0)).collect();
    let mut out = io::stdout();
    let mut say = |text: String| out.write_all(text.as_bytes()).and_then(|()| out.flush()).expect("heard");
    say("\n".into());
    if let Some(d) = restored.damage.filter(|d| !d.what.contains("the file ends")) {
        say(format!("damaged {d:?}\n"));
    }
    for (mac, seq) in &seqs {
        say(format!("restored {mac} {seq}\n"));
    }
    say("begin\n".into());
    for n in 0u32.. {
        let mac = n * 7 % 10;
        let seq = seqs.entry(mac).or_default();
        *seq += 1;
        k.append(&[Record { unix, ..rec(mac as u16, *seq) }]);
        say(format!("kept {mac} {seq}\n"));
    }
    unreachable!("it is killed long before")
}
