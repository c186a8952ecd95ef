//! What a node's programs see of the file system: the host's, except for a `/run` of their own and the topology's
//! `binds`. It is done with a private mount table per program (as `ip netns exec` does for `/etc/netns`), so nothing
//! of it is visible outside and nothing is left behind when the program ends.
//!
//! A bind's target need not exist on the host. Where it does not, its deepest existing parent is covered by a small
//! tmpfs in which the parent's entries are bound again, and the target is created there.

use crate::error::{Error, Result};
use crate::sys;
use rustix::mount::{
    MountFlags, MountPropagationFlags, mount, mount_bind, mount_bind_recursive, mount_change, mount_remount,
};
use std::fs;
use std::path::{Component, Path, PathBuf};

/// One `source:target[:ro]`.
#[derive(Clone, Debug, Eq, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Bind {
    /// On the host, absolute.
    pub source: PathBuf,
    /// In the node, absolute.
    pub target: PathBuf,
    /// Not writable in the node.
    pub read_only: bool,
}

/// Mounts of one node.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Mounts {
    /// Directory that appears as `/run`.
    pub run: Option<PathBuf>,
    /// In this order.
    pub binds: Vec<Bind>,
}

impl Mounts {
    /// Gives the calling thread, and so what it starts, this view. For threads that end afterwards.
    pub fn enter(&self) -> Result<()> {
        sys::unshare_mounts()?;
        let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
        mount_change("/", private).map_err(Error::errno("private mounts"))?;
        // `/sys/class/net` shows the namespace of whoever mounted it. Not essential: containers without the
        // right to mount sysfs go on with the outer one.
        let _ =
            mount("sysfs", "/sys", "sysfs", MountFlags::NOSUID | MountFlags::NODEV, None::<&std::ffi::CStr>);
        // Sources are opened before anything is covered: a source may lie below a target.
        let binds =
            self.binds.iter().map(|b| Ok((b, Source::open(&b.source)?))).collect::<Result<Vec<_>>>()?;
        if let Some(run) = &self.run {
            mount_bind(run, "/run").map_err(Error::errno("the node's own /run"))?;
        }
        for (bind, source) in binds {
            let what = || format!("bind {}:{}", bind.source.display(), bind.target.display());
            create_target(&bind.target, source.directory)?;
            mount_bind_recursive(source.path(), &bind.target).map_err(Error::errno(what()))?;
            if bind.read_only {
                let flags = MountFlags::BIND | MountFlags::RDONLY;
                mount_remount(&bind.target, flags, "").map_err(Error::errno(what()))?;
            }
        }
        Ok(())
    }
}

struct Source {
    file: fs::File,
    directory: bool,
}

impl Source {
    fn open(path: &Path) -> Result<Self> {
        let what = || format!("bind source {}", path.display());
        let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC;
        let file: fs::File =
            rustix::fs::open(path, flags, rustix::fs::Mode::empty()).map_err(Error::errno(what()))?.into();
        let directory = file.metadata().map_err(Error::io(what()))?.is_dir();
        Ok(Self { file, directory })
    }
    fn path(&self) -> PathBuf {
        use std::os::fd::AsRawFd;
        // The calling thread's own table, which the descriptor is in.
        PathBuf::from(format!("/proc/thread-self/fd/{}", self.file.as_raw_fd()))
    }
}

/// Makes sure that a mount point exists, without a trace on the host.
fn create_target(target: &Path, directory: bool) -> Result<()> {
    if target.exists() {
        return Ok(());
    }
    let ok = target.is_absolute() && target.components().all(|c| !matches!(c, Component::ParentDir));
    let parent = target.ancestors().skip(1).find(|p| p.is_dir());
    let (true, Some(parent)) = (ok, parent.filter(|p| p.parent().is_some())) else {
        return Err(Error::refused(format!(
            "bind target {}: give it an absolute path below a directory that exists, such as /etc or /opt",
            target.display()
        )));
    };
    cover(parent)?;
    let what = || format!("bind target {}", target.display());
    let below = if directory { Some(target) } else { target.parent() };
    if let Some(below) = below {
        fs::create_dir_all(below).map_err(Error::io(what()))?;
    }
    if !directory {
        fs::File::create(target).map_err(Error::io(what()))?;
    }
    Ok(())
}

/// Covers a directory by a tmpfs with the same entries, to which entries can be added.
fn cover(directory: &Path) -> Result<()> {
    let what = || format!("covering {}", directory.display());
    let old = Source::open(directory)?;
    let entries = fs::read_dir(directory)
        .map_err(Error::io(what()))?
        .collect::<std::io::Result<Vec<_>>>()
        .map_err(Error::io(what()))?;
    mount("tmpfs", directory, "tmpfs", MountFlags::empty(), Some(c"mode=0755"))
        .map_err(Error::errno(what()))?;
    for entry in entries {
        let name = entry.file_name();
        let (from, to) = (old.path().join(&name), directory.join(&name));
        let Ok(kind) = entry.file_type() else { continue };
        let made = if kind.is_symlink() {
            fs::read_link(&from).and_then(|link| std::os::unix::fs::symlink(link, &to))
        } else if kind.is_dir() {
            fs::create_dir(&to).and_then(|()| Ok(mount_bind_recursive(&from, &to)?))
        } else if kind.is_file() {
            fs::File::create(&to).and_then(|_| Ok(mount_bind(&from, &to)?))
        } else {
            Ok(())
        };
        made.map_err(Error::io(format!("{} entry {}", what(), to.display())))?;
    }
    Ok(())
}
