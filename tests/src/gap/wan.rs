//! A way of some milliseconds between the VTEPs. The kernel at hand may have no netem: the frames go through this
//! process, which joins the underlay's ends and lets each frame wait.

use crate::ns::Netns;
use crate::packet::{Relay, now};
use std::collections::{BinaryHeap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// A frame that waits: when it is due, in which order it came, and whereto.
#[derive(Debug, Eq, Ord, PartialEq, PartialOrd)]
struct Waits(std::cmp::Reverse<(u64, u64)>, usize, Vec<u8>);

#[derive(Debug, Default)]
struct Line {
    waiting: Mutex<(BinaryHeap<Waits>, u64)>,
    more: Condvar,
    stop: AtomicBool,
}

/// Ends with the value.
#[derive(Debug)]
pub struct Wan {
    line: Arc<Line>,
    threads: Vec<JoinHandle<()>>,
}

/// Frames that may wait; above that they are lost, as on a real way.
const ROOM: usize = 100_000;

impl Wan {
    /// Joins these devices of a namespace, which are in no bridge any more; a frame needs `delay` from one to another.
    pub fn join(ns: &Netns, devices: &[String], delay: Duration) -> Self {
        let ports: Arc<Vec<Relay>> = Arc::new(devices.iter().map(|d| Relay::open(ns, d)).collect());
        let line = Arc::new(Line::default());
        let places: Arc<Mutex<HashMap<[u8; 6], usize>>> = Arc::default();
        let mut threads = Vec::new();
        for from in 0..ports.len() {
            let (ports, line, places) = (Arc::clone(&ports), Arc::clone(&line), Arc::clone(&places));
            threads.push(std::thread::spawn(move || {
                while !line.stop.load(Ordering::Relaxed) {
                    let Some(frame) = ports[from].receive(Duration::from_millis(50)) else { continue };
                    let due = now() + delay.as_nanos() as u64;
                    let Some((to, source)) = Relay::addresses(&frame) else { continue };
                    let to = {
                        let mut places = places.lock().unwrap_or_else(PoisonError::into_inner);
                        places.insert(source, from);
                        places.get(&to).copied()
                    };
                    let mut waiting = line.waiting.lock().unwrap_or_else(PoisonError::into_inner);
                    for p in (0..ports.len()).filter(|p| *p != from && to.is_none_or(|t| t == *p)) {
                        if waiting.0.len() < ROOM {
                            waiting.1 += 1;
                            let n = waiting.1;
                            waiting.0.push(Waits(std::cmp::Reverse((due, n)), p, frame.clone()));
                        }
                    }
                    line.more.notify_one();
                }
            }));
        }
        let out = Arc::clone(&line);
        threads.push(std::thread::spawn(move || {
            let mut waiting = out.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            while !out.stop.load(Ordering::Relaxed) {
                let due = waiting.0.peek().map_or(u64::MAX, |w| w.0.0.0);
                let left = due.saturating_sub(now());
                if left > 0 {
                    let pause = Duration::from_nanos(left).min(Duration::from_millis(50));
                    waiting = out.more.wait_timeout(waiting, pause).unwrap_or_else(PoisonError::into_inner).0;
                    continue;
                }
                if let Some(Waits(_, port, frame)) = waiting.0.pop() {
                    drop(waiting);
                    ports[port].send(&frame);
                    waiting = out.waiting.lock().unwrap_or_else(PoisonError::into_inner);
                }
            }
        }));
        Self { line, threads }
    }
}

impl Drop for Wan {
    fn drop(&mut self) {
        self.line.stop.store(true, Ordering::Relaxed);
        self.line.more.notify_all();
        for t in self.threads.drain(..) {
            let _ = t.join();
        }
    }
}
