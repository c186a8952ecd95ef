//! The core's side of the journal: one write per turn, and what to do when it fails.

use super::disk::{Ask, Disk, Fresh, Shared};
use super::format::{self, Frame, SLOT};
use super::hosts::HostFile;
use super::open::{self, Opened, Restored};
use super::trouble::{Risk, Told};
use super::{Care, NAME, StateError, failed};
use evpn::hosts::KeptHost;
use evpn::mobility::Record;
use evpn::node::Event;
use evpn::types::{Mac, Vni};
use rustix::fs::fdatasync;
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

/// Records held back while the file system refuses them. Above it they are counted and lost.
const HELD_BACK: usize = 1 << 20;

/// See the module.
#[derive(Debug)]
pub struct Keeper {
    path: PathBuf,
    hosts: HostFile,
    boot: format::BootId,
    file: File,
    /// Octets of it that are good.
    len: u64,
    /// To be written before anything else.
    first: Vec<u8>,
    /// What could not be written yet; `None` while all is well.
    held_back: Option<BTreeMap<(Vni, Mac), Record>>,
    told: Told,
    failures: u64,
    lost: u64,
    buf: Vec<u8>,
    shared: Arc<Shared>,
    asks: SyncSender<Ask>,
    fresh: Receiver<Fresh>,
    thread: JoinHandle<()>,
}

impl Keeper {
    /// Opens the journal in `dir`, which is there and locked, and starts the thread that brings it to disk.
    /// `unix`: the wall clock.
    ///
    /// # Errors
    /// The directory cannot be used. Damage and a full disk are no errors.
    pub fn open(dir: &Path, care: Care, unix: u64) -> Result<(Self, Restored), StateError> {
        Self::open_under(dir, care, unix, super::boot_id())
    }

    /// The same under a given kernel.
    pub(super) fn open_under(
        dir: &Path,
        care: Care,
        unix: u64,
        boot: format::BootId,
    ) -> Result<(Self, Restored), StateError> {
        let path = dir.join(NAME);
        let (opened, mut restored) = open::open(dir, care.hold, unix, boot)?;
        let hosts;
        (hosts, restored.hosts) = HostFile::open(dir);
        let told = Told::new(&path, restored.damage.as_ref());
        let Opened { file, len, first, live } = opened;
        let shared = Arc::new(Shared::new(len));
        let (asks, to_do) = sync_channel(8);
        let (offer, fresh) = sync_channel(1);
        let theirs = file.try_clone().map_err(failed("open", &path))?;
        let disk = Disk::new(dir.to_owned(), theirs, live, care, boot, Arc::clone(&shared), offer);
        let thread = std::thread::Builder::new()
            .name("state".into())
            .spawn(move || disk.run(&to_do))
            .map_err(failed("start a thread for", &path))?;
        let (buf, held_back) = (Vec::new(), Some(BTreeMap::new()));
        let mut k = Self {
            path,
            hosts,
            boot,
            file,
            len,
            first,
            held_back,
            told,
            failures: 0,
            lost: 0,
            buf,
            shared,
            asks,
            fresh,
            thread,
        };
        // From here on there is something to lose, and the disk must know that before the first peer hears of it.
        let news = !k.first.is_empty();
        k.retry();
        if news
            && k.held_back.is_none()
            && let Err(e) = fdatasync(&k.file)
        {
            k.refused(&e.into());
        }
        // What a killed daemon had appended may not be on disk yet, and its journal may be long.
        k.ask_for_sync();
        Ok((k, restored))
    }

    /// Appends records, so that they outlive this process from now on. Never fails: what the file system refuses is
    /// held back and tried again by [`Keeper::tick`].
    pub fn append(&mut self, records: &[Record]) {
        if let Some(held) = &mut self.held_back {
            for r in records {
                if held.len() < HELD_BACK || held.contains_key(&(r.vni, r.mac)) {
                    held.insert((r.vni, r.mac), *r);
                } else {
                    self.lost += 1;
                }
            }
            return;
        }
        self.adopt();
        let mut buf = std::mem::take(&mut self.buf);
        buf.clear();
        buf.extend(records.iter().flat_map(|r| format::encode(&Frame::Record(*r))));
        if let Err(e) = self.write(&buf) {
            self.refused(&e);
            self.append(records);
        }
        self.buf = buf;
    }

    /// Local bindings that a restart is to ask for, or not any more. Never fails, as [`Keeper::append`].
    pub fn keep_hosts(&mut self, hosts: &[KeptHost]) {
        self.hosts.append(hosts);
    }

    /// Once a second: tries again what failed, takes over a compacted file. Returns whether everything that is worth
    /// keeping has to be appended again, because the file turned out to be damaged.
    #[must_use]
    pub fn tick(&mut self) -> bool {
        self.hosts.tick();
        if self.shared.rotten.load(Ordering::Acquire) {
            return self.start_anew();
        }
        if self.held_back.is_some() {
            self.retry();
        } else {
            self.adopt();
        }
        let complaint = self.shared.complaint.lock().map_or(None, |c| c.clone());
        match complaint {
            _ if self.held_back.is_some() => {}
            Some(why) => self.told.trouble(Risk::Crash, &why),
            None => self.told.well(),
        }
        false
    }

    /// What is worth telling since the last time: damage, trouble that began, trouble that is over.
    pub fn news(&mut self) -> Vec<Event> {
        self.told.take()
    }

    /// The thread could not read back what was written: set aside, rebuilt from the node's memory.
    fn start_anew(&mut self) -> bool {
        let replaced = open::replace(&self.path, &self.boot)
            .and_then(|(file, len, aside)| Ok((file.try_clone()?, file, len, aside)));
        match replaced {
            Ok((theirs, file, len, aside)) => {
                self.told.replaced(&aside);
                self.shared.rotten.store(false, Ordering::Release);
                (self.file, self.len, self.first) = (file, len, Vec::new());
                self.shared.len.store(len, Ordering::Release);
                let _ = self.asks.try_send(Ask::Replaced(theirs));
                true
            }
            Err(error) => {
                self.failures += 1;
                let why = format!("the file is damaged and could not be set aside: {error}");
                self.told.trouble(Risk::Damage, &why);
                false
            }
        }
    }

    /// One write behind the good octets. After a failure they are all there is.
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if let Err(e) = self.file.write_all_at(bytes, self.len) {
            let _ = self.file.set_len(self.len);
            return Err(e);
        }
        self.len += bytes.len() as u64;
        self.shared.len.store(self.len, Ordering::Release);
        self.ask_for_sync();
        Ok(())
    }

    fn ask_for_sync(&self) {
        if !self.shared.dirty.swap(true, Ordering::AcqRel) {
            let _ = self.asks.try_send(Ask::Dirty);
        }
    }

    fn refused(&mut self, e: &io::Error) {
        self.failures += 1;
        self.told.trouble(Risk::Restart, &e.to_string());
        self.held_back.get_or_insert_default();
    }

    fn retry(&mut self) {
        let Some(held) = self.held_back.take() else { return };
        let mut bytes = self.first.clone();
        bytes.extend(held.values().flat_map(|r| format::encode(&Frame::Record(*r))));
        let n = held.len();
        self.held_back = Some(held);
        let written = if bytes.is_empty() { Ok(()) } else { self.write(&bytes) };
        match written {
            Ok(()) => {
                self.first = Vec::new();
                self.held_back = None;
                self.told.caught_up(n);
            }
            Err(e) => self.refused(&e),
        }
    }

    /// Goes over to a compacted file if there is one: what was appended since it was read comes along, then the slot
    /// that makes the successor the one to be read at a start.
    fn adopt(&mut self) {
        let Ok(f) = self.fresh.try_recv() else { return };
        let mut bytes = Vec::new();
        let copied = open::read_range(&self.file, f.covered, self.len, |x| bytes.extend(format::encode(&x)))
            .and_then(|()| {
                bytes.extend(format::encode(&Frame::Adopted));
                f.file.write_all_at(&bytes, f.len)
            });
        if let Err(e) = copied {
            // It must not look adopted.
            let _ = std::fs::remove_file(&f.path);
            self.failures += 1;
            tracing::warn!(path = %f.path.display(), error = %e, "the journal could not be compacted");
            let _ = self.asks.try_send(Ask::Declined);
            return;
        }
        self.file = f.file;
        self.len = f.len + bytes.len() as u64;
        self.shared.len.store(self.len, Ordering::Release);
        let _ = self.asks.try_send(Ask::Adopted);
    }

    /// Which of [`Keeper::counters`] can fall.
    pub const GAUGES: [&str; 3] = ["state_bytes", "state_records", "state_records_not_kept"];

    /// Counters for `show status`.
    pub fn counters(&self) -> [(&'static str, u64); 6] {
        let s = &self.shared;
        let failures = self.failures + self.hosts.failures() + s.failures.load(Ordering::Relaxed);
        [
            ("state_bytes", self.len),
            ("state_records", (self.len / SLOT as u64).saturating_sub(1)),
            ("state_fsyncs", s.fsyncs.load(Ordering::Relaxed)),
            ("state_compactions", s.compactions.load(Ordering::Relaxed)),
            ("state_failures", failures),
            ("state_records_not_kept", self.held_back.as_ref().map_or(0, BTreeMap::len) as u64 + self.lost),
        ]
    }

    /// The daemon ends by itself: everything goes to disk, and the next start learns that nothing is missing.
    pub fn close(mut self) {
        if self.held_back.is_some() {
            self.retry();
        }
        // A full queue is none: three asks at most can wait.
        let _ = self.asks.send(Ask::Stop);
        let Self { path, file, len, held_back, thread, .. } = self;
        let synced = thread.join().is_ok() && fdatasync(&file).is_ok();
        if !synced || held_back.is_some() {
            tracing::warn!(path = %path.display(), "not all sequences are on disk");
            return;
        }
        let stopped = format::encode(&Frame::Stopped);
        if let Err(e) = file.write_all_at(&stopped, len).and_then(|()| Ok(fdatasync(&file)?)) {
            let _ = file.set_len(len);
            tracing::warn!(path = %path.display(), error = %e, "the stop is not noted");
        }
    }
}

#[cfg(test)]
impl Keeper {
    /// Puts another file in the place of ours.
    pub(super) fn swap_file(&mut self, file: File) -> File {
        std::mem::replace(&mut self.file, file)
    }
}
