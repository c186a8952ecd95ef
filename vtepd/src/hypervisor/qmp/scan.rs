//! Which sockets there are: one directory, names by a pattern, looked at again when the directory says so.

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::unix::AsyncFd;

/// Between two looks when the directory cannot be watched, such as before it exists.
const UNWATCHED: Duration = Duration::from_secs(1);
/// Between two looks when it is watched: for file systems that report only what happens on this host.
const WATCHED: Duration = Duration::from_secs(10);

/// The sockets of one `[[qmp]]` section.
#[derive(Debug)]
pub struct Scan {
    dir: PathBuf,
    name: String,
    max: usize,
    watch: Option<AsyncFd<OwnedFd>>,
}

/// Device, inode and time of change of a socket's file.
pub type Identity = (u64, u64, i64, i64);

/// What there is.
#[derive(Debug, Default, Eq, PartialEq)]
pub struct Found {
    /// Sockets with the identity of each: another one in its place has another.
    pub sockets: BTreeMap<PathBuf, Identity>,
    /// Sockets more than are looked after.
    pub left_out: usize,
}

impl Scan {
    /// `pattern`: a path whose last part may contain `*` and `?`.
    pub fn new(pattern: &Path, max: usize) -> Self {
        let name = pattern.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        let dir = pattern.parent().map_or_else(|| PathBuf::from("/"), Path::to_owned);
        Self { dir, name, max, watch: None }
    }

    /// Looks. The watch is set before, so that nothing that comes after this look goes unnoticed.
    pub fn look(&mut self) -> Found {
        if self.watch.is_none() {
            self.watch = watch(&self.dir).ok();
        }
        let mut sockets = BTreeMap::new();
        match std::fs::read_dir(&self.dir) {
            Ok(entries) => {
                for entry in entries.flatten() {
                    let fits = entry.file_name().to_str().is_some_and(|n| matches(&self.name, n));
                    let Some(m) = std::fs::metadata(entry.path()).ok().filter(|_| fits) else { continue };
                    if m.file_type().is_socket() {
                        sockets.insert(entry.path(), (m.dev(), m.ino(), m.ctime(), m.ctime_nsec()));
                    }
                }
            }
            // The directory is gone, and with it what the watch was on.
            Err(_) => self.watch = None,
        }
        let left_out = sockets.len().saturating_sub(self.max);
        while sockets.len() > self.max {
            sockets.pop_last();
        }
        Found { sockets, left_out }
    }

    /// Until it is worth looking again.
    pub async fn changed(&mut self) {
        let Some(watch) = &self.watch else { return tokio::time::sleep(UNWATCHED).await };
        let Ok(ready) = tokio::time::timeout(WATCHED, watch.readable()).await else { return };
        let Ok(mut ready) = ready else {
            self.watch = None;
            return;
        };
        // What has happened does not matter, only that it was taken out of the queue. Events of a removed
        // directory end the watch.
        let mut space = [std::mem::MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(watch.get_ref(), &mut space);
        let mut lost = false;
        for _ in 0..1024 {
            match reader.next() {
                Ok(event) => lost |= event.events().contains(inotify::ReadFlags::IGNORED),
                Err(e) => {
                    lost |= e != rustix::io::Errno::AGAIN;
                    break;
                }
            }
        }
        ready.clear_ready();
        if lost {
            self.watch = None;
        }
    }
}

fn watch(dir: &Path) -> io::Result<AsyncFd<OwnedFd>> {
    let fd = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
    let flags = WatchFlags::CREATE
        | WatchFlags::DELETE
        | WatchFlags::MOVED_FROM
        | WatchFlags::MOVED_TO
        | WatchFlags::DELETE_SELF
        | WatchFlags::ONLYDIR;
    inotify::add_watch(&fd, dir, flags)?;
    crate::driver::watch::register(fd)
}

/// Whether a name fits a pattern: `*` is any number of characters, `?` is one. As in a shell, a leading dot must be
/// written.
pub fn matches(pattern: &str, name: &str) -> bool {
    if name.starts_with('.') && !pattern.starts_with('.') {
        return false;
    }
    let (p, n): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    // Where to go back to: the last star, and the first character that it has not swallowed.
    let (mut i, mut j, mut back) = (0, 0, None);
    while j < n.len() {
        match p.get(i) {
            Some('*') => {
                back = Some((i, j));
                i += 1;
            }
            Some(c) if *c == '?' || *c == n[j] => {
                i += 1;
                j += 1;
            }
            _ => match back {
                Some((star, from)) => {
                    back = Some((star, from + 1));
                    i = star + 1;
                    j = from + 1;
                }
                None => return false,
            },
        }
    }
    p[i..].iter().all(|c| *c == '*')
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    #[test]
    fn patterns_match_as_in_a_shell() {
        for (pattern, name, want) in [
            ("*.sock", "a.sock", true),
            ("*.sock", ".a.sock", false),
            ("*.sock", "a.socket", false),
            ("vm-?-*.sock", "vm-1-qmp.sock", true),
            ("vm-?-*.sock", "vm--qmp.sock", false),
            ("*a*b*", "xxaxxbaxb", true),
            ("*a*b*", "bbbba", false),
            ("plain", "plain", true),
            ("", "", true),
            ("", "x", false),
            ("***", "x", true),
        ] {
            assert_eq!(matches(pattern, name), want, "{pattern} {name}");
        }
        // No pattern takes more than length times length steps.
        assert!(!matches(&"*a".repeat(50), &"a".repeat(49).replace('a', "ab")));
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_socket_that_appears_is_found_at_once_and_others_are_left_alone() {
        let dir = tempfile::tempdir().expect("directory");
        let at = |n: &str| dir.path().join(n);
        let mut scan = Scan::new(&at("*.sock"), 2);
        std::fs::write(at("file.sock"), "no socket").expect("written");
        let _a = UnixListener::bind(at("a.sock")).expect("bound");
        let names = |f: &Found| f.sockets.keys().cloned().collect::<Vec<_>>();
        let found = scan.look();
        assert_eq!((names(&found), found.left_out), (vec![at("a.sock")], 0));
        let _b = UnixListener::bind(at("b.sock")).expect("bound");
        tokio::time::timeout(Duration::from_secs(5), scan.changed()).await.expect("told");
        assert_eq!(scan.look().sockets.len(), 2);
        let _c = UnixListener::bind(at("c.sock")).expect("bound");
        let found = scan.look();
        assert_eq!((names(&found), found.left_out), (vec![at("a.sock"), at("b.sock")], 1));
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_directory_that_comes_later_or_goes_is_no_error() {
        let dir = tempfile::tempdir().expect("directory");
        let sub = dir.path().join("later");
        let mut scan = Scan::new(&sub.join("*.sock"), 9);
        assert_eq!(scan.look(), Found::default());
        assert!(scan.watch.is_none());
        std::fs::create_dir(&sub).expect("made");
        let a = UnixListener::bind(sub.join("a.sock")).expect("bound");
        assert_eq!(scan.look().sockets.len(), 1);
        drop(a);
        std::fs::remove_dir_all(&sub).expect("removed");
        tokio::time::timeout(Duration::from_secs(5), scan.changed()).await.expect("told");
        assert_eq!(scan.look(), Found::default());
        assert!(scan.watch.is_none(), "nothing is left to watch");
    }
}
