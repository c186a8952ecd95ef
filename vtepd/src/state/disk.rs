//! The thread that brings the journal to disk and compacts it, away from the core.

use super::format::{self, BootId, Frame, SLOT};
use super::open::{read_range, successor, sync_dir, write_table};
use super::table::Table;
use super::{Care, NAME};
use crate::driver::clock;
use rustix::fs::fdatasync;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Until something that failed is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// What may be left for the core to copy when it takes over a compacted file.
const TAIL: u64 = 64 * 1024;
/// Rounds of catching up with appends before the file is offered anyway.
const ROUNDS: usize = 8;

/// What both sides see.
#[derive(Debug)]
pub(super) struct Shared {
    /// Good octets of the core's file.
    pub(super) len: AtomicU64,
    /// Something was appended since the last fsync began.
    pub(super) dirty: AtomicBool,
    /// The core's file cannot be read back.
    pub(super) rotten: AtomicBool,
    pub(super) fsyncs: AtomicU64,
    pub(super) failures: AtomicU64,
    pub(super) compactions: AtomicU64,
    /// Why what was written may not be on disk, as long as that is so.
    pub(super) complaint: Mutex<Option<String>>,
}

impl Shared {
    pub(super) fn new(len: u64) -> Self {
        Self {
            len: AtomicU64::new(len),
            dirty: AtomicBool::new(false),
            rotten: AtomicBool::new(false),
            fsyncs: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            compactions: AtomicU64::new(0),
            complaint: Mutex::new(None),
        }
    }
}

/// What the core asks for. At most one of each waits.
#[derive(Debug)]
pub(super) enum Ask {
    /// Something was appended; once between two fsyncs.
    Dirty,
    /// The file that was offered is in use.
    Adopted,
    /// It is not, and its name is gone.
    Declined,
    /// The file that could not be read back was set aside; this one, almost empty, is in use.
    Replaced(File),
    /// Everything to disk, and end.
    Stop,
}

/// A compacted file for the core to go over to.
#[derive(Debug)]
pub(super) struct Fresh {
    pub(super) path: PathBuf,
    pub(super) file: File,
    pub(super) len: u64,
    /// What it stands for: the octets before this one of the core's file.
    pub(super) covered: u64,
}

/// How far a compaction is.
#[derive(Debug)]
enum Stage {
    None,
    /// The core has not taken it yet.
    Offered(File),
    /// It has; the file still has its temporary name, which is as good as the proper one at a start.
    Adopted,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Disk {
    dir: PathBuf,
    file: File,
    /// Octets after the last compaction.
    base: u64,
    care: Care,
    boot: BootId,
    shared: Arc<Shared>,
    offer: SyncSender<Fresh>,
    stage: Stage,
    /// An fsync failed: what the kernel still has may never reach this file, so it is written anew.
    suspect: bool,
    /// The core knows that its file is rotten.
    told: bool,
}

impl Disk {
    pub(super) fn new(
        dir: PathBuf,
        file: File,
        base: u64,
        care: Care,
        boot: BootId,
        shared: Arc<Shared>,
        offer: SyncSender<Fresh>,
    ) -> Self {
        let (stage, suspect, told) = (Stage::None, false, false);
        Self { dir, file, base, care, boot, shared, offer, stage, suspect, told }
    }

    pub(super) fn run(mut self, asks: &Receiver<Ask>) {
        let mut due: Option<Instant> = None;
        loop {
            let ask = match due {
                None => asks.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(t) => asks.recv_timeout(t.saturating_duration_since(Instant::now())),
            };
            match ask {
                Ok(Ask::Dirty) => {
                    due.get_or_insert_with(|| Instant::now() + self.care.batch);
                }
                Ok(Ask::Adopted) => {
                    if let Stage::Offered(file) = std::mem::replace(&mut self.stage, Stage::Adopted) {
                        self.file = file;
                    }
                    due = self.work();
                }
                Ok(Ask::Declined) => self.stage = Stage::None,
                Ok(Ask::Replaced(file)) => {
                    (self.file, self.base, self.stage) = (file, 0, Stage::None);
                    (self.suspect, self.told) = (false, false);
                    due = self.work();
                }
                Err(RecvTimeoutError::Timeout) => due = self.work(),
                Ok(Ask::Stop) => {
                    if !matches!(self.stage, Stage::Adopted) {
                        let _ = std::fs::remove_file(successor(&self.dir));
                    }
                    let _ = self.sync_and_name();
                    return;
                }
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// What is due; returns when to come back although nobody asked.
    fn work(&mut self) -> Option<Instant> {
        let done = self.sync_and_name().and_then(|()| self.compact_if_worth_it());
        // The core looks once a second and tells people (`trouble.rs`).
        if let Ok(mut complaint) = self.shared.complaint.lock() {
            // A file that cannot be read back is the core's to replace, and to tell.
            *complaint = done.as_ref().err().filter(|_| !self.told).map(ToString::to_string);
        }
        done.is_err().then(|| {
            self.shared.failures.fetch_add(1, Ordering::Relaxed);
            Instant::now() + RETRY
        })
    }

    fn sync_and_name(&mut self) -> io::Result<()> {
        // Before the fsync: what is appended meanwhile asks for another.
        self.shared.dirty.store(false, Ordering::Release);
        if let Err(e) = fdatasync(&self.file) {
            self.suspect = true;
            return Err(e.into());
        }
        self.shared.fsyncs.fetch_add(1, Ordering::Relaxed);
        if matches!(self.stage, Stage::Adopted) {
            std::fs::rename(successor(&self.dir), self.dir.join(NAME))?;
            self.stage = Stage::None;
            self.shared.compactions.fetch_add(1, Ordering::Relaxed);
            sync_dir(&self.dir)?;
        }
        Ok(())
    }

    fn compact_if_worth_it(&mut self) -> io::Result<()> {
        let len = self.shared.len.load(Ordering::Acquire);
        let worth_it = len > self.care.least.max(2 * self.base) || self.suspect;
        if !worth_it || !matches!(self.stage, Stage::None) {
            return Ok(());
        }
        let path = successor(&self.dir);
        self.compact(len, path.clone()).inspect_err(|_| {
            let _ = std::fs::remove_file(path);
        })
    }

    fn compact(&mut self, until: u64, path: PathBuf) -> io::Result<()> {
        let mut table = Table::default();
        if let Err(e) = read_range(&self.file, SLOT as u64, until, |frame| table.take(frame)) {
            if !std::mem::replace(&mut self.told, true) {
                self.shared.rotten.store(true, Ordering::Release);
            }
            return Err(e);
        }
        table.prune(self.care.hold, clock::unix_seconds());
        let (file, mut len) = write_table(&path, &table, &[Frame::Boot(self.boot)])?;
        self.base = len;
        // What was appended meanwhile; when it was much, that goes to disk too and there is a bit more.
        let mut covered = until;
        for _ in 0..ROUNDS {
            let now = self.shared.len.load(Ordering::Acquire);
            let tail = self.copy(&file, covered, now, len)?;
            (covered, len) = (now, len + tail);
            if tail <= TAIL {
                break;
            }
            fdatasync(&file)?;
        }
        let theirs = file.try_clone()?;
        if self.offer.try_send(Fresh { path, file: theirs, len, covered }).is_ok() {
            self.stage = Stage::Offered(file);
            self.suspect = false;
        }
        Ok(())
    }

    /// Copies the slots `from..to` of the old file to octet `at` of the new one; returns their octets.
    fn copy(&self, new: &File, from: u64, to: u64, at: u64) -> io::Result<u64> {
        let mut bytes = Vec::new();
        read_range(&self.file, from, to, |frame| {
            let _ = bytes.write_all(&format::encode(&frame));
        })?;
        new.write_all_at(&bytes, at)?;
        Ok(bytes.len() as u64)
    }
}
