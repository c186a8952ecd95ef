//! Processes by number *and* start time: numbers are used again, so a number alone is nobody's name.

use serde::{Deserialize, Serialize};
use std::fs;
use std::time::{Duration, Instant};

/// A process that the lab started.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Process {
    /// Number.
    pub pid: i32,
    /// Field 22 of `/proc/PID/stat`: clock ticks from boot to its start.
    pub started: u64,
    /// Its command line, for people.
    pub what: String,
}

impl Process {
    /// The process with this number as it is now.
    pub fn of(pid: u32, what: impl Into<String>) -> Option<Self> {
        let pid = i32::try_from(pid).ok()?;
        Some(Self { pid, started: stat(pid)?.0, what: what.into() })
    }
    /// This program.
    pub fn own() -> Option<Self> {
        Self::of(std::process::id(), "vtep-lab")
    }
    /// Whether it runs: the number is still its own, and it is not only waiting to be reaped.
    pub fn alive(&self) -> bool {
        stat(self.pid).is_some_and(|(started, state)| started == self.started && !matches!(state, 'Z' | 'X'))
    }
    fn signal(&self, signal: rustix::process::Signal) {
        let Some(pid) = rustix::process::Pid::from_raw(self.pid) else { return };
        // A descriptor pins the process: between the check of its start time and the signal the number cannot
        // pass to another.
        if let Ok(fd) = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())
            && self.alive()
        {
            let _ = rustix::process::pidfd_send_signal(fd, signal);
        }
    }
}

/// Start time and state letter.
fn stat(pid: i32) -> Option<(u64, char)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything; what follows the last `)` is regular.
    let mut fields = text.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?.chars().next()?;
    let started = fields.nth(18)?.parse().ok()?;
    Some((started, state))
}

/// How long a program may take to end after SIGTERM.
pub const GRACE: Duration = Duration::from_secs(5);

/// Ends processes in the given order, one after the other is *asked*; then waits for all, and kills what is left
/// after [`GRACE`]. Returns those that had to be killed.
pub fn end(processes: &[Process]) -> Vec<Process> {
    use rustix::process::Signal;
    for p in processes {
        p.signal(Signal::TERM);
    }
    let deadline = Instant::now() + GRACE;
    let mut left: Vec<_> = processes.to_vec();
    loop {
        reap(&left);
        left.retain(Process::alive);
        if left.is_empty() || Instant::now() >= deadline {
            break;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    for p in &left {
        p.signal(Signal::KILL);
    }
    let deadline = Instant::now() + GRACE;
    while left.iter().any(Process::alive) && Instant::now() < deadline {
        reap(&left);
        std::thread::sleep(Duration::from_millis(5));
    }
    left
}

/// Kills without asking, and waits until they are gone.
pub fn kill(processes: &[Process]) {
    for p in processes {
        p.signal(rustix::process::Signal::KILL);
    }
    let deadline = Instant::now() + GRACE;
    while processes.iter().any(Process::alive) && Instant::now() < deadline {
        reap(processes);
        std::thread::sleep(Duration::from_millis(1));
    }
    reap(processes);
}

/// Those among them that are our own children must be waited for, or they stay zombies.
fn reap(processes: &[Process]) {
    for p in processes {
        if let Some(pid) = rustix::process::Pid::from_raw(p.pid) {
            let _ = rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::NOHANG);
        }
    }
}

/// Processes whose network namespace is this one.
pub fn in_namespace(name: &str) -> Vec<Process> {
    use std::os::unix::fs::MetadataExt;
    let Ok(wanted) = fs::metadata(crate::netns::path(name)).map(|m| (m.dev(), m.ino())) else {
        return Vec::new();
    };
    let Ok(all) = fs::read_dir("/proc") else { return Vec::new() };
    all.flatten()
        .filter_map(|e| e.file_name().to_str()?.parse().ok())
        .filter(|pid: &u32| {
            fs::metadata(format!("/proc/{pid}/ns/net")).is_ok_and(|m| (m.dev(), m.ino()) == wanted)
        })
        .filter_map(|pid| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let what = String::from_utf8_lossy(&line).trim_end_matches('\0').replace('\0', " ");
            Process::of(pid, what)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[allow(clippy::zombie_processes, reason = "`end` waits for them")]
    #[test]
    fn a_process_is_ended_and_known_to_be_gone() {
        let child = Command::new("sleep").arg("600").spawn().unwrap();
        let p = Process::of(child.id(), "sleep 600").unwrap();
        assert!(p.alive());
        assert!(end(std::slice::from_ref(&p)).is_empty());
        assert!(!p.alive());
    }

    #[test]
    fn a_number_used_again_is_not_the_same_process() {
        let me = Process::own().unwrap();
        assert!(me.alive());
        let other = Process { started: me.started + 1, ..me };
        assert!(!other.alive());
        // Harmless: it is not us.
        assert!(end(&[other]).is_empty());
    }

    #[allow(clippy::zombie_processes, reason = "`end` waits for them")]
    #[test]
    fn a_process_that_ignores_the_request_is_killed() {
        let child =
            Command::new("sh").args(["-c", "trap '' TERM; while :; do sleep 1; done"]).spawn().unwrap();
        let p = Process::of(child.id(), "stubborn").unwrap();
        // Give the shell time to set its trap; ending it before is fine too.
        let killed = end(std::slice::from_ref(&p));
        assert!(killed.len() <= 1);
        assert!(!p.alive());
    }
}
