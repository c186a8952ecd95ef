//! The API's socket file, and the locks that keep a second daemon out.

use rustix::fs::{FlockOperation, Mode, flock};
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

/// Why a lock or the socket could not be had.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// Another daemon holds it.
    #[error("another vtepd{} uses {what} `{}`", pid_text(*.pid), .path.display())]
    InUse {
        /// `the state directory` or `the socket`.
        what: &'static str,
        /// Which.
        path: PathBuf,
        /// Its process id, when it left one.
        pid: Option<u32>,
    },
    /// The path is taken by something that is no socket.
    #[error("`{}` exists and is no socket; remove it or set `api.socket` to another path", .0.display())]
    NoSocket(PathBuf),
    /// The file system said no.
    #[error("cannot {doing} `{}`: {why}", .path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// Answer.
        why: io::Error,
    },
}

fn pid_text(pid: Option<u32>) -> String {
    pid.map_or_else(String::new, |p| format!(" (process {p})"))
}

fn failed<'a>(doing: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> ClaimError + 'a {
    move |why| ClaimError::Io { doing, path: path.to_owned(), why }
}

/// Held as long as the daemon lives; the kernel lets go of it however the process ends.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

/// Takes the lock `path`, for `subject` (what it protects).
fn lock(path: &Path, what: &'static str, subject: &Path) -> Result<Lock, ClaimError> {
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o640)
        .open(path)
        .map_err(failed("open", path))?;
    if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        let mut text = String::new();
        let _ = file.read_to_string(&mut text);
        return Err(ClaimError::InUse { what, path: subject.to_owned(), pid: text.trim().parse().ok() });
    }
    // The number is for the message above only; failing to write it does no harm.
    let _ =
        file.set_len(0).and_then(|()| file.rewind()).and_then(|()| writeln!(file, "{}", std::process::id()));
    Ok(Lock { _file: file })
}

/// Takes the state directory, creating it if need be.
///
/// # Errors
/// Another daemon has it, or it cannot be created.
pub fn claim_state_dir(dir: &Path) -> Result<Lock, ClaimError> {
    std::fs::create_dir_all(dir).map_err(failed("create", dir))?;
    lock(&dir.join("lock"), "the state directory", dir)
}

/// The API's socket with its lock.
#[derive(Debug)]
pub struct Claim {
    /// Listening, non-blocking.
    pub listener: UnixListener,
    /// Removes the socket file.
    pub file: SocketFile,
}

/// Removes the socket file when dropped; the lock beside it goes last.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    _lock: Lock,
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Binds the socket with mode 0660. A socket file that a dead daemon left is replaced: whoever holds the lock
/// `PATH.lock` is the only one who may touch it.
///
/// # Errors
/// Another daemon serves it, something else is at the path, or it cannot be bound.
pub fn claim_socket(path: &Path) -> Result<Claim, ClaimError> {
    if let Some(dir) = path.parent().filter(|d| !d.as_os_str().is_empty()) {
        std::fs::create_dir_all(dir).map_err(failed("create", dir))?;
    }
    let mut lock_path = path.as_os_str().to_owned();
    lock_path.push(".lock");
    let lock = lock(Path::new(&lock_path), "the socket", path)?;
    match std::fs::symlink_metadata(path) {
        Ok(m) if m.file_type().is_socket() => std::fs::remove_file(path).map_err(failed("remove", path))?,
        Ok(_) => return Err(ClaimError::NoSocket(path.to_owned())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(failed("look at", path)(e)),
    }
    // Bound with no permission for others from the first moment on, not only after a chmod.
    let before = rustix::process::umask(Mode::from_raw_mode(0o117));
    let bound = UnixListener::bind(path);
    rustix::process::umask(before);
    let listener = bound.map_err(failed("listen on", path))?;
    let file = SocketFile { path: path.to_owned(), _lock: lock };
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))
        .map_err(failed("set the mode of", path))?;
    listener.set_nonblocking(true).map_err(failed("prepare", path))?;
    Ok(Claim { listener, file })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_claim_is_refused_and_a_stale_socket_is_replaced() {
        let dir = tempfile::tempdir().expect("directory");
        let path = dir.path().join("run/a.sock");
        let first = claim_socket(&path).expect("free");
        assert_eq!(std::fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o660);
        let second = claim_socket(&path).expect_err("taken").to_string();
        let me = std::process::id();
        assert_eq!(second, format!("another vtepd (process {me}) uses the socket `{}`", path.display()));
        // As after `kill -9`: the file stays, the lock does not.
        let Claim { listener, file } = first;
        drop(listener);
        std::fs::hard_link(&path, dir.path().join("run/kept")).expect("link");
        drop(file);
        std::fs::rename(dir.path().join("run/kept"), &path).expect("stale socket");
        claim_socket(&path).expect("taken over");
    }

    #[test]
    fn a_file_that_is_no_socket_is_left_alone() {
        let dir = tempfile::tempdir().expect("directory");
        let path = dir.path().join("precious");
        std::fs::write(&path, "data").expect("written");
        assert!(matches!(claim_socket(&path), Err(ClaimError::NoSocket(_))));
        assert_eq!(std::fs::read_to_string(&path).expect("still there"), "data");
    }

    #[test]
    fn a_state_directory_belongs_to_one_daemon() {
        let dir = tempfile::tempdir().expect("directory");
        let state = dir.path().join("deep/state");
        let held = claim_state_dir(&state).expect("free");
        assert!(matches!(claim_state_dir(&state), Err(ClaimError::InUse { .. })));
        drop(held);
        claim_state_dir(&state).expect("free again");
    }
}
