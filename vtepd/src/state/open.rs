//! Opening the journal: what can be believed, and what has to be raised.

use super::format::{self, BootId, Fault, Frame, SLOT};
use super::table::Table;
use super::{NAME, StateError, failed};
use evpn::hosts::KeptHost;
use evpn::mobility::Record;
use evpn::types::Span;
use rustix::fs::fdatasync;
use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, Write as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// Damaged files kept; then the oldest is replaced.
const ASIDE: u32 = 9;

/// What a start found.
#[derive(Debug, Default)]
pub struct Restored {
    /// For the node.
    pub records: Vec<Record>,
    /// The last run was under the running kernel.
    pub same_boot: bool,
    /// Local bindings of the last run.
    pub hosts: Vec<KeptHost>,
    /// How many of them were raised, because the machine went down without a stop of the daemon, or because the
    /// journal was damaged.
    pub raised: usize,
    /// The journal was damaged.
    pub damage: Option<Damage>,
}

/// Where a journal was damaged.
#[derive(Debug)]
pub struct Damage {
    /// File.
    pub path: PathBuf,
    /// First octet that is not believed.
    pub offset: u64,
    /// What is wrong there.
    pub what: String,
    /// Where the file is now, or why it could not be set aside.
    pub aside: Result<PathBuf, io::Error>,
}

/// An open journal.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) file: File,
    /// Its good octets.
    pub(super) len: u64,
    /// To be written there before anything else.
    pub(super) first: Vec<u8>,
    /// Octets of what is worth keeping.
    pub(super) live: u64,
}

/// A journal as it was found.
struct Found {
    path: PathBuf,
    file: File,
    good: u64,
    fault: Option<Fault>,
    table: Table,
    boot: Option<BootId>,
    stopped: bool,
    adopted: bool,
}

pub(super) fn successor(dir: &Path) -> PathBuf {
    dir.join(format!("{NAME}.new"))
}

fn look(path: &Path) -> Result<Option<Found>, StateError> {
    let file = match OpenOptions::new().read(true).write(true).open(path) {
        Ok(f) => f,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(failed("open", path)(e)),
    };
    let (mut table, mut boot, mut stopped, mut adopted) = (Table::default(), None, false, false);
    let scan = format::read(&mut BufReader::new(&file), |frame| {
        stopped = frame == Frame::Stopped;
        adopted |= frame == Frame::Adopted;
        if let Frame::Boot(id) = frame {
            boot = Some(id);
        }
        table.take(frame);
    });
    let (good, fault) = (scan.good, scan.fault);
    Ok(Some(Found { path: path.to_owned(), file, good, fault, table, boot, stopped, adopted }))
}

impl Found {
    /// Whether records that were told to peers may be missing at the end.
    fn may_lack(&self, boot: &BootId) -> bool {
        let same_kernel = self.boot.as_ref() == Some(boot);
        match &self.fault {
            None => !same_kernel && !self.stopped,
            // A write that a kill interrupted: what depended on it was not sent.
            Some(f) => !(f.torn && same_kernel),
        }
    }
}

/// Opens the journal in `dir`, which is there and ours alone.
///
/// # Errors
/// The directory or a file in it cannot be used at all. Damage is no error.
pub(super) fn open(
    dir: &Path,
    hold: Span,
    unix: u64,
    boot: BootId,
) -> Result<(Opened, Restored), StateError> {
    let (path, new) = (dir.join(NAME), successor(dir));
    let old = look(&path)?;
    let found = match look(&new)? {
        // A compaction had come so far that records went to the successor already: it has everything.
        Some(f) if f.adopted => {
            std::fs::rename(&new, &path).map_err(failed("rename", &new))?;
            Some(Found { path: path.clone(), ..f })
        }
        Some(_) => {
            std::fs::remove_file(&new).map_err(failed("remove", &new))?;
            old
        }
        None => old,
    };
    let opened = match found.filter(|f| f.good > 0 || f.fault.is_some()) {
        Some(f) => reopen(f, dir, hold, unix, boot)?,
        None => (create(&path, &boot)?, Restored::default()),
    };
    sync_dir(dir).map_err(failed("write", dir))?;
    Ok(opened)
}

fn create(path: &Path, boot: &BootId) -> Result<Opened, StateError> {
    let file = empty_file(path).map_err(failed("create", path))?;
    let mut first = format::header().to_vec();
    first.extend(format::encode(&Frame::Boot(*boot)));
    Ok(Opened { file, len: 0, first, live: 0 })
}

pub(super) fn empty_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(0o640).open(path)
}

/// Makes names survive a crash of the machine, where the file system can.
pub(super) fn sync_dir(dir: &Path) -> io::Result<()> {
    match File::open(dir)?.sync_all() {
        Err(e) if matches!(e.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported) => Ok(()),
        done => done,
    }
}

fn reopen(
    mut f: Found,
    dir: &Path,
    hold: Span,
    unix: u64,
    boot: BootId,
) -> Result<(Opened, Restored), StateError> {
    let raise = f.may_lack(&boot);
    f.table.prune(hold, unix);
    if raise {
        f.table.raise();
    }
    let mut restored = Restored {
        same_boot: f.boot == Some(boot),
        records: f.table.records().copied().collect(),
        hosts: Vec::new(),
        raised: if raise { f.table.len() } else { 0 },
        damage: None,
    };
    let live = f.table.octets();
    let mut opened = None;
    if raise || f.fault.is_some() {
        let aside = f.fault.as_ref().map(|_| free_name(&f.path));
        let rewritten = rewrite(&f, dir, &boot, aside.as_deref());
        if let Some(Fault { offset, what, .. }) = &f.fault {
            let (path, offset, what) = (f.path.clone(), *offset, what.clone());
            let aside = match (&rewritten, aside) {
                (Err(e), _) => Err(io::Error::new(e.kind(), e.to_string())),
                (Ok(_), name) => Ok(name.unwrap_or_default()),
            };
            restored.damage = Some(Damage { path, offset, what, aside });
        }
        opened = rewritten.ok().map(|(file, len)| Opened { file, len, first: Vec::new(), live });
    }
    if let Some(opened) = opened {
        return Ok((opened, restored));
    }
    // In its place: the same file goes on, behind the last thing that is believed.
    let (mut len, mut first) = (f.good, Vec::new());
    if f.fault.is_some() {
        f.file.set_len(len).map_err(failed("write", &f.path))?;
    }
    if f.stopped && f.fault.is_none() {
        // Overwritten, which needs no room: from now on there may be something to lose.
        len -= SLOT as u64;
    }
    if len == 0 {
        first.extend(format::header());
    }
    if raise {
        first.extend(f.table.records().flat_map(|r| format::encode(&Frame::Record(*r))));
    }
    if f.stopped || f.boot != Some(boot) {
        // Last, so that a kill in between makes the next start raise again.
        first.extend(format::encode(&Frame::Boot(boot)));
    }
    Ok((Opened { file: f.file, len, first, live }, restored))
}

/// Sets a journal aside that cannot be read back and puts one without records in its place. Nothing here waits for the
/// disk.
pub(super) fn replace(path: &Path, boot: &BootId) -> io::Result<(File, u64, PathBuf)> {
    let mut new = path.as_os_str().to_owned();
    new.push(".anew");
    let file = empty_file(Path::new(&new))?;
    let mut octets = format::header().to_vec();
    octets.extend(format::encode(&Frame::Boot(*boot)));
    file.write_all_at(&octets, 0)?;
    let aside = free_name(path);
    let _ = std::fs::remove_file(&aside);
    std::fs::hard_link(path, &aside)?;
    std::fs::rename(&new, path)?;
    Ok((file, octets.len() as u64, aside))
}

/// Writes what is believed into a new file, which then takes the name; the old one is set aside if that is wished.
/// At every moment the one or the other is complete.
fn rewrite(f: &Found, dir: &Path, boot: &BootId, aside: Option<&Path>) -> io::Result<(File, u64)> {
    let new = successor(dir);
    let written = write_table(&new, &f.table, &[Frame::Boot(*boot), Frame::Adopted]).and_then(|done| {
        sync_dir(dir)?;
        if let Some(aside) = aside {
            // A second name, so that the first is never without a file.
            let _ = std::fs::remove_file(aside);
            std::fs::hard_link(&f.path, aside)?;
        }
        std::fs::rename(&new, &f.path)?;
        Ok(done)
    });
    if written.is_err() {
        let _ = std::fs::remove_file(&new);
    }
    written
}

/// A file with these records and then these slots, on disk.
pub(super) fn write_table(path: &Path, table: &Table, then: &[Frame]) -> io::Result<(File, u64)> {
    let file = empty_file(path)?;
    let mut out = io::BufWriter::with_capacity(1 << 16, &file);
    out.write_all(&format::header())?;
    let mut len = SLOT as u64;
    for frame in table.records().map(|r| Frame::Record(*r)).chain(then.iter().copied()) {
        out.write_all(&format::encode(&frame))?;
        len += SLOT as u64;
    }
    out.flush()?;
    drop(out);
    fdatasync(&file)?;
    Ok((file, len))
}

/// `PATH.corrupt-N` with the first free N, or that of the oldest.
fn free_name(path: &Path) -> PathBuf {
    let name = |n: u32| {
        let mut p = path.as_os_str().to_owned();
        p.push(format!(".corrupt-{n}"));
        PathBuf::from(p)
    };
    let age = |p: &PathBuf| std::fs::symlink_metadata(p).and_then(|m| m.modified());
    let free = (1..=ASIDE).map(name).find(|p| age(p).is_err());
    free.or_else(|| (1..=ASIDE).map(name).min_by_key(|p| age(p).ok())).unwrap_or_else(|| name(1))
}

/// Reads the slots `from..to` of a journal that is being written behind `to`.
pub(super) fn read_range(file: &File, from: u64, to: u64, mut each: impl FnMut(Frame)) -> io::Result<()> {
    let mut buf = vec![0; 1 << 16];
    buf.truncate((1 << 16) / SLOT * SLOT);
    let mut at = from;
    while at < to {
        let n = buf.len().min((to - at) as usize);
        let chunk = buf.get_mut(..n).unwrap_or_default();
        file.read_exact_at(chunk, at)?;
        let scan = format::read_slots(&mut &*chunk, at, &mut each);
        if let Some(f) = scan.fault {
            return Err(io::Error::other(format!("octet {}: {}", f.offset, f.what)));
        }
        at = scan.good;
    }
    Ok(())
}
