//! `vtepd warden`: a small process that outlives the daemon and takes its answers out of the kernel (PIT-20).
//!
//! The kernel answers ARP and ND from neighbour rows that never expire. Forwarding rows of a dead daemon are better
//! than none, but an answer that may be wrong is not given: when the daemon's core loop has been silent for
//! `arp.stale-time`, its neighbour rows are deleted. The guests ask each other then.
//!
//! The daemon starts the warden, or finds that of an earlier run, or one of a service unit; they talk over a socket
//! whose name belongs to the network namespace. A daemon that comes back in time stops the clock before it reads
//! the kernel's tables, so rows of a fresh start are never deleted.

mod clock;
mod link;

pub(crate) use link::Link;

use crate::cli::{FAILED, OK, out};
use clock::{Clock, Step};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities};
use rustix::time::Timespec;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::io::{self, Read as _, Write as _};
use std::net::IpAddr;
use std::os::linux::fs::MetadataExt as _;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// What is spoken; a daemon that meets a warden of another version replaces it.
const VERSION: u32 = 1;
/// Between two looks at the clock and at the namespace.
const TICK: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };
/// Longest line from a daemon: the names of some thousand bridges.
const LINE: usize = 64 << 10;
/// Where named network namespaces are.
const NAMED: &str = "/run/netns";

/// First line of a daemon.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
struct Hello {
    version: u32,
    /// Silence after which the rows go, in milliseconds.
    stale_ms: u64,
    /// Bridges whose neighbour rows they are.
    bridges: BTreeSet<String>,
}

/// What it is answered.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
struct Welcome {
    version: u32,
    /// Rows deleted since the last daemon.
    deleted: usize,
}

/// Name of the socket: one warden per VTEP address and network namespace.
fn address(vtep: IpAddr) -> io::Result<SocketAddr> {
    SocketAddr::from_abstract_name(format!("vtepd-warden/{vtep}"))
}

/// Runs the warden. `listening`: the socket is standard input, as the daemon hands it over. `stay`: go on after the
/// rows have been deleted, as a service does.
pub(crate) fn main(vtep: IpAddr, listening: bool, stay: bool) -> u8 {
    match open(vtep, listening).and_then(|listener| serve(&listener, stay)) {
        Ok(()) => OK,
        Err(e) if e.kind() == io::ErrorKind::AddrInUse => {
            out::complain(&format!("a warden for {vtep} is at work in this network namespace\n"));
            FAILED
        }
        Err(e) => {
            out::complain(&format!("error: the warden cannot go on: {e}\n"));
            FAILED
        }
    }
}

fn open(vtep: IpAddr, listening: bool) -> io::Result<UnixListener> {
    if !listening {
        return UnixListener::bind_addr(&address(vtep)?);
    }
    let stdin = rustix::io::fcntl_dupfd_cloexec(io::stdin(), 3)?;
    Ok(UnixListener::from(stdin))
}

/// Only what deleting neighbour rows needs.
fn drop_privileges() -> io::Result<()> {
    let only = CapabilitySet::NET_ADMIN;
    let sets = CapabilitySets { effective: only, permitted: only, inheritable: CapabilitySet::empty() };
    Ok(set_capabilities(None, sets)?)
}

/// The daemon at the other end.
struct Daemon {
    stream: UnixStream,
    /// What came and is no whole line yet.
    rest: Vec<u8>,
}

fn serve(listener: &UnixListener, stay: bool) -> io::Result<()> {
    drop_privileges()?;
    listener.set_nonblocking(true)?;
    std::env::set_current_dir("/")?;
    let begun = Instant::now();
    let home = Namespace::find();
    let mut clock = Clock::new(stay);
    let mut daemon: Option<Daemon> = None;
    loop {
        wait(listener, daemon.as_ref())?;
        while let Some(stream) = accept(listener)? {
            // The newer one is the one that lives.
            daemon = Some(Daemon { stream, rest: Vec::new() });
        }
        if let Some(d) = &mut daemon
            && !hear(d, &mut clock, begun.elapsed())
        {
            daemon = None;
            clock.gone(begun.elapsed());
        }
        match clock.step(begun.elapsed()) {
            Step::Wait => {}
            Step::Delete => match netlink::linux::delete_answers(clock.bridges()) {
                Ok(n) => clock.deleted(n),
                Err(_) => clock.failed(),
            },
            Step::End => return Ok(()),
        }
        if daemon.is_none() && home.is_gone() {
            return Ok(());
        }
    }
}

fn wait(listener: &UnixListener, daemon: Option<&Daemon>) -> io::Result<()> {
    let mut fds = vec![PollFd::new(listener, PollFlags::IN)];
    fds.extend(daemon.map(|d| PollFd::new(&d.stream, PollFlags::IN)));
    match poll(&mut fds, Some(&TICK)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

/// The next connection of somebody who may be a daemon. Names in a network namespace have no owner, so who calls is looked at.
fn accept(listener: &UnixListener) -> io::Result<Option<UnixStream>> {
    loop {
        match listener.accept() {
            Ok((stream, _)) if is_kin(&stream) => {
                stream.set_nonblocking(true)?;
                return Ok(Some(stream));
            }
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(e) if matches!(e.kind(), io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted) => {}
            Err(e) => return Err(e),
        }
    }
}

/// Whether the other end runs as this user.
fn is_kin(stream: &UnixStream) -> bool {
    rustix::net::sockopt::socket_peercred(stream).is_ok_and(|c| c.uid == rustix::process::geteuid())
}

/// Takes in what the daemon says. Returns whether it is still there.
fn hear(d: &mut Daemon, clock: &mut Clock, now: Duration) -> bool {
    let mut buf = [0u8; 4096];
    loop {
        match d.stream.read(&mut buf) {
            Ok(0) => return false,
            Ok(n) => {
                d.rest.extend_from_slice(&buf[..n]);
                while let Some(end) = d.rest.iter().position(|b| *b == b'\n') {
                    let line: Vec<u8> = d.rest.drain(..=end).collect();
                    if !obey(&mut d.stream, &line, clock, now) {
                        return false;
                    }
                }
                if d.rest.len() > LINE {
                    return false;
                }
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return true,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return false,
        }
    }
}

fn obey(stream: &mut UnixStream, line: &[u8], clock: &mut Clock, now: Duration) -> bool {
    match line {
        b"\n" => {
            clock.beat(now);
            return true;
        }
        b"end\n" => {
            clock.end();
            return true;
        }
        _ => {}
    }
    let Ok(hello) = serde_json::from_slice::<Hello>(line) else { return false };
    let deleted = clock.hello(hello, now);
    let welcome = Welcome { version: VERSION, deleted };
    let Ok(mut text) = serde_json::to_vec(&welcome) else { return false };
    text.push(b'\n');
    stream.write_all(&text).is_ok()
}

/// The network namespace that this process is in, if it has a name. A process keeps a namespace alive whose name has
/// been removed, and all devices in it: the warden does not.
struct Namespace {
    name: Option<(PathBuf, (u64, u64))>,
}

impl Namespace {
    fn find() -> Self {
        let id = |p: &Path| std::fs::metadata(p).ok().map(|m| (m.st_dev(), m.st_ino()));
        let own = id(Path::new("/proc/thread-self/ns/net"));
        let names = std::fs::read_dir(NAMED).into_iter().flatten().flatten().map(|e| e.path());
        let name = own.and_then(|own| names.filter(|p| id(p) == Some(own)).map(|p| (p, own)).next());
        Self { name }
    }

    fn is_gone(&self) -> bool {
        let Some((path, own)) = &self.name else { return false };
        std::fs::metadata(path).map(|m| (m.st_dev(), m.st_ino())).ok() != Some(*own)
    }
}
