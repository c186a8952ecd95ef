//! Frame taps: one packet socket per access port, each drained with a budget so that no port starves the rest.

use super::clock;
use super::watch::Watch;
use bytes::Bytes;
use evpn::types::{IfIndex, Span, Time};
use netlink::linux::Tap;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::AsRawFd as _;
use std::task::Context;

/// Frames of one port per turn: when a rack is evacuated, announcements are to keep pace with the rows that they cause.
const BUDGET: usize = 256;
/// Room for any frame that passes a tap's filter.
const FRAME: usize = 2048;

/// A tap that could not be opened, or has failed, is tried again after this time.
const AGAIN: Span = Span::secs(1);

/// A frame, its port, and when it was received.
pub(super) type Frame = (IfIndex, Bytes, Time);

/// Fields in the order of their end: the watch goes before the descriptor.
#[derive(Debug)]
struct Open {
    watch: Watch,
    tap: Tap,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Taps {
    open: BTreeMap<IfIndex, Open>,
    /// Wanted, and not open: when each is tried again.
    lost: BTreeMap<IfIndex, Time>,
    /// Ports that had more than their budget when it was last looked.
    unread: BTreeSet<IfIndex>,
}

impl Taps {
    /// Opens the tap of a port; if that fails, it is tried again until the tap is closed.
    pub(super) fn open(&mut self, port: IfIndex) -> io::Result<()> {
        let done = self.open_now(port);
        match done {
            Ok(()) => self.lost.remove(&port),
            Err(_) => self.lost.insert(port, clock::now() + AGAIN),
        };
        done
    }

    fn open_now(&mut self, port: IfIndex) -> io::Result<()> {
        let tap = Tap::open(port)?;
        let watch = Watch::new(tap.as_raw_fd())?;
        self.open.insert(port, Open { watch, tap });
        Ok(())
    }

    /// Closes the tap of a port.
    pub(super) fn close(&mut self, port: IfIndex) {
        self.open.remove(&port);
        self.lost.remove(&port);
    }

    /// When [`Self::reopen`] has something to do.
    pub(super) fn deadline(&self) -> Option<Time> {
        self.lost.values().min().copied()
    }

    /// Tries those again whose time has come. Without its tap a port teaches nothing.
    pub(super) fn reopen(&mut self, at: Time) {
        let due: Vec<IfIndex> = self.lost.iter().filter(|(_, t)| **t <= at).map(|(port, _)| *port).collect();
        for port in due {
            match self.open(port) {
                Ok(()) => tracing::info!(port = port.0, "the frames of a port are watched again"),
                Err(e) => {
                    tracing::debug!(port = port.0, error = %e, "a port's frames still cannot be watched");
                }
            }
        }
    }

    /// Sends a frame out of a port that has a tap.
    pub(super) fn send(&self, port: IfIndex, frame: &[u8]) -> io::Result<()> {
        match self.open.get(&port) {
            Some(o) => o.tap.send(frame),
            None => Err(io::Error::new(io::ErrorKind::NotFound, "the port has no tap")),
        }
    }

    /// Ports where frames may wait that were not taken in.
    pub(super) fn unread(&self) -> &BTreeSet<IfIndex> {
        &self.unread
    }

    /// Takes in frames up to the budget. Returns whether there were any, or more wait.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, out: &mut Vec<Frame>) -> bool {
        let mut busy = false;
        let mut gone = Vec::new();
        self.unread.clear();
        for (port, o) in &mut self.open {
            if !o.watch.is_ready(cx) {
                continue;
            }
            busy = true;
            let mut buf = [0u8; FRAME];
            let mut over = false;
            for _ in 0..BUDGET {
                match o.tap.recv(&mut buf) {
                    Ok(Some(n)) => {
                        out.push((*port, Bytes::copy_from_slice(&buf[..n.min(FRAME)]), clock::now()));
                    }
                    Ok(None) if o.watch.drained(cx) => {
                        over = true;
                        break;
                    }
                    Ok(None) => {}
                    // ENETDOWN comes once when the port goes down, and the socket works again when it is up.
                    Err(e) if e.raw_os_error() == Some(libc::ENETDOWN) => {}
                    Err(e) => {
                        tracing::warn!(port = port.0, error = %e, "a frame tap has failed; it is opened again");
                        gone.push(*port);
                        over = true;
                        break;
                    }
                }
            }
            if !over {
                self.unread.insert(*port);
            }
        }
        for port in gone {
            self.open.remove(&port);
            self.lost.insert(port, clock::now() + AGAIN);
        }
        busy
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "current_thread")]
    async fn a_tap_that_cannot_be_had_is_tried_again_until_nobody_wants_it() {
        let mut taps = Taps::default();
        let nobody = IfIndex(u32::MAX >> 1);
        assert!(taps.open(nobody).is_err());
        let first = taps.deadline().expect("it is tried again");
        taps.reopen(first);
        let second = taps.deadline().expect("and again");
        assert!(second >= first);
        taps.close(nobody);
        assert_eq!(taps.deadline(), None);
        // One that fails once and can be had then: every host has a loopback, and only root may listen to it.
        let loopback = IfIndex(1);
        taps.lost.insert(loopback, first);
        taps.reopen(first);
        assert_eq!(taps.deadline().is_none(), taps.open.contains_key(&loopback));
        assert!(taps.open.contains_key(&loopback) || !rustix::process::geteuid().is_root());
    }
}
