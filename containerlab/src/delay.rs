//! A delay line between two interfaces: the kernel's `tc netem` where it has it, and else the same in user space.
//!
//! In user space every frame that arrives at one interface leaves at the other exactly `delay` after its arrival as the kernel
//! stamped it, in order. So what the program itself loses in being scheduled is not added to the delay unless it is
//! later than the frame is due. The queue is bounded; what does not fit is dropped and counted.

use crate::error::{Error, Result};
use crate::sys::{self, PacketSocket};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::collections::VecDeque;
use std::fmt;
use std::time::{Duration, Instant};

/// Frames that one direction holds at most: 0.8 s of 20,000 frames a second.
pub const CAPACITY: usize = 16_384;

/// A queue whose entries become due a fixed time after they came.
#[derive(Debug)]
pub struct Queue<T> {
    delay: u64,
    capacity: usize,
    entries: VecDeque<(u64, T)>,
    last: u64,
    /// Entries refused because the queue was full.
    pub dropped: u64,
}

impl<T> Queue<T> {
    /// An empty queue; `delay` in nanoseconds.
    pub fn new(delay: u64, capacity: usize) -> Self {
        Self { delay, capacity, entries: VecDeque::new(), last: 0, dropped: 0 }
    }
    /// Takes an entry that came at `at`. Order is kept even where a time stamp is older than the one before.
    pub fn push(&mut self, at: u64, entry: T) {
        if self.entries.len() >= self.capacity {
            self.dropped += 1;
            return;
        }
        self.last = self.last.max(at.saturating_add(self.delay));
        self.entries.push_back((self.last, entry));
    }
    /// The next entry that is due at `now`, with the time it was due.
    pub fn pop(&mut self, now: u64) -> Option<(u64, T)> {
        if self.entries.front()?.0 > now {
            return None;
        }
        self.entries.pop_front()
    }
    /// When the next entry is due.
    pub fn next_due(&self) -> Option<u64> {
        self.entries.front().map(|e| e.0)
    }
    /// Entries waiting.
    pub fn len(&self) -> usize {
        self.entries.len()
    }
    /// Nothing waits.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

/// What a direction has done.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counters {
    /// Frames passed on.
    pub frames: u64,
    /// Frames refused because the queue was full or the far interface refused them.
    pub dropped: u64,
    /// Frames longer than the buffer: an offload is on somewhere.
    pub oversized: u64,
    /// Longest lateness in nanoseconds.
    pub latest: u64,
    /// Sum of lateness in nanoseconds.
    pub lateness: u64,
}

impl fmt::Display for Counters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} frames, {} dropped, {} oversized, late {} µs on average, {} µs at most",
            self.frames,
            self.dropped,
            self.oversized,
            self.lateness / self.frames.max(1) / 1000,
            self.latest / 1000
        )
    }
}

struct Direction {
    from: usize,
    to: usize,
    queue: Queue<Vec<u8>>,
    counters: Counters,
}

/// Frame buffer: a jumbo frame with its header.
const BUFFER: usize = 9600;
/// Frames taken from one socket before the other has its turn.
const BUDGET: usize = 64;

/// Who delays.
#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
pub enum How {
    /// The kernel if it can, else this program.
    Auto,
    /// The kernel: tc netem.
    Kernel,
    /// This program.
    User,
}

/// Joins two interfaces of the calling thread's namespace, with the delay in each direction, until `stop` says so.
/// `None`: the kernel did it, and did not count.
pub fn run(
    interfaces: [&str; 2],
    delay: Duration,
    how: How,
    stop: impl Fn() -> bool,
) -> Result<Option<[Counters; 2]>> {
    wait_for(interfaces, &stop)?;
    let netem = format!("netem delay {}us limit {CAPACITY}", delay.as_micros());
    let kernel = (how != How::User).then(|| in_kernel(interfaces, &netem));
    match (how, kernel) {
        (_, Some(Ok(()))) => {
            while !stop() {
                std::thread::sleep(Duration::from_millis(100));
            }
            take_out_of_kernel(interfaces);
            return Ok(None);
        }
        (How::Kernel, Some(Err(e))) => return Err(e),
        _ => {}
    }
    user_space(interfaces, delay, stop).map(Some)
}

/// In containers, links come after the program.
fn wait_for(interfaces: [&str; 2], stop: &impl Fn() -> bool) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(30);
    for name in interfaces {
        loop {
            match PacketSocket::open(name, true) {
                Ok(_) => break,
                Err(e) if Instant::now() >= deadline || stop() => return Err(e),
                Err(_) => std::thread::sleep(Duration::from_millis(50)),
            }
        }
    }
    Ok(())
}

/// What arrives at one interface is redirected to the other, where a queueing discipline holds it. All or nothing.
fn in_kernel([a, b]: [&str; 2], discipline: &str) -> Result<()> {
    let lines: Vec<_> = [(a, b), (b, a)]
        .iter()
        .flat_map(|(from, to)| {
            let pass = crate::switchboard::redirect(from, to);
            [format!("qdisc add dev {from} root {discipline}"), format!("qdisc add dev {from} clsact"), pass]
        })
        .collect();
    let done = crate::iproute::tc_batch(None, &lines);
    if done.is_err() {
        take_out_of_kernel([a, b]);
    }
    done
}

fn take_out_of_kernel(interfaces: [&str; 2]) {
    for i in interfaces {
        for what in ["root", "clsact"] {
            let _ = crate::iproute::tc_batch(None, &[format!("qdisc del dev {i} {what}")]);
        }
    }
}

fn user_space(interfaces: [&str; 2], delay: Duration, stop: impl Fn() -> bool) -> Result<[Counters; 2]> {
    let sockets = [PacketSocket::open(interfaces[0], true)?, PacketSocket::open(interfaces[1], true)?];
    for (s, name) in sockets.iter().zip(interfaces) {
        sys::offloads_off(name)?;
        s.bypass_queueing();
    }
    sys::run_first(20);
    sys::precise_timers();
    let delay = delay.as_nanos() as u64;
    let make =
        |from, to| Direction { from, to, queue: Queue::new(delay, CAPACITY), counters: Counters::default() };
    let mut directions = [make(0, 1), make(1, 0)];
    let mut buffer = vec![0; BUFFER];
    let mut spare: Vec<Vec<u8>> = Vec::new();
    while !stop() {
        let mut more = false;
        for d in &mut directions {
            more |= d.take_in(&sockets, &mut buffer, &mut spare)?;
            d.put_out(&sockets, &mut spare);
        }
        if more {
            continue;
        }
        let due = directions.iter().filter_map(|d| d.queue.next_due()).min();
        let wait = due.map_or(200_000_000, |t| t.saturating_sub(sys::boottime()).min(200_000_000));
        if wait == 0 {
            continue;
        }
        let timeout = Timespec { tv_sec: 0, tv_nsec: wait.cast_signed() };
        let mut fds = sockets.each_ref().map(|s| PollFd::new(s.fd(), PollFlags::IN));
        match poll(&mut fds, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(Error::errno("waiting for frames")(e)),
        }
    }
    for d in &mut directions {
        d.counters.dropped += d.queue.dropped;
    }
    Ok(directions.map(|d| d.counters))
}

impl Direction {
    /// Queues what has arrived; `true` if there may be more.
    fn take_in(
        &mut self,
        sockets: &[PacketSocket; 2],
        buffer: &mut [u8],
        spare: &mut Vec<Vec<u8>>,
    ) -> Result<bool> {
        for _ in 0..BUDGET {
            let received = match sockets[self.from].receive(buffer) {
                Ok(Some(r)) => r,
                Ok(None) => return Ok(false),
                // The interface was down for a moment.
                Err(e) if e.raw_os_error() == Some(libc::ENETDOWN) => return Ok(false),
                Err(e) => return Err(Error::io("receiving a frame")(e)),
            };
            let Some(bytes) = buffer.get(..received.len) else {
                self.counters.oversized += 1;
                continue;
            };
            let mut frame = spare.pop().unwrap_or_default();
            frame.clear();
            frame.extend_from_slice(bytes);
            self.queue.push(received.at, frame);
        }
        Ok(true)
    }

    fn put_out(&mut self, sockets: &[PacketSocket; 2], spare: &mut Vec<Vec<u8>>) {
        let now = sys::boottime();
        while let Some((due, frame)) = self.queue.pop(now) {
            match sockets[self.to].send(&frame) {
                Ok(()) => {
                    let late = now.saturating_sub(due);
                    self.counters.frames += 1;
                    self.counters.lateness += late;
                    self.counters.latest = self.counters.latest.max(late);
                }
                Err(_) => self.counters.dropped += 1,
            }
            if spare.len() < 1024 {
                spare.push(frame);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The redirects with a discipline that every kernel has; netem itself differs only in the delay.
    #[test]
    fn the_kernels_way_is_all_or_nothing_and_goes_without_a_trace() {
        if !crate::state::is_root() {
            eprintln!("skipped: needs root");
            return;
        }
        let name = format!("l{}kernel", std::process::id());
        crate::iproute::ip_batch(None, &[format!("netns add {name}")]).unwrap();
        let lines = ["link add name a type veth peer name b", "link set dev a up", "link set dev b up"];
        let tested = crate::iproute::ip_batch(Some(&name), &lines.map(str::to_owned)).and_then(|()| {
            crate::netns::inside(&name, || {
                let refused = in_kernel(["a", "b"], "nosuchdiscipline").is_err();
                let after_refusal = crate::iproute::json("tc", &name, &["qdisc", "show"])?;
                in_kernel(["a", "b"], "pfifo limit 100")?;
                let while_on = crate::iproute::json("tc", &name, &["filter", "show", "dev", "a", "ingress"])?;
                take_out_of_kernel(["a", "b"]);
                let after = crate::iproute::json("tc", &name, &["qdisc", "show"])?;
                Ok((refused, after_refusal, while_on.is_empty(), after))
            })
        });
        crate::iproute::ip_batch(None, &[format!("netns del {name}")]).unwrap();
        let (refused, after_refusal, off, after) = tested.unwrap();
        assert!(refused && !off);
        let ours = |q: &serde_json::Value| q["kind"] == "clsact" || q["kind"] == "pfifo";
        assert!(!after_refusal.iter().any(ours), "{after_refusal:?}");
        assert!(!after.iter().any(ours), "{after:?}");
    }

    #[test]
    fn entries_leave_in_order_and_never_early() {
        let mut q = Queue::new(10, 8);
        q.push(100, 'a');
        q.push(105, 'b');
        // A stamp that went back does not overtake.
        q.push(101, 'c');
        assert_eq!(q.next_due(), Some(110));
        assert_eq!(q.pop(109), None);
        assert_eq!(q.pop(110), Some((110, 'a')));
        assert_eq!(q.pop(114), None);
        assert_eq!(q.pop(200), Some((115, 'b')));
        assert_eq!(q.pop(200), Some((115, 'c')));
        assert_eq!(q.pop(200), None);
        assert!(q.is_empty());
    }

    #[test]
    fn a_full_queue_drops_the_newest_and_counts() {
        let mut q = Queue::new(10, 2);
        for i in 0..5 {
            q.push(i, i);
        }
        assert_eq!((q.len(), q.dropped), (2, 3));
        assert_eq!(q.pop(100).map(|e| e.1), Some(0));
        assert_eq!(q.pop(100).map(|e| e.1), Some(1));
    }
}
