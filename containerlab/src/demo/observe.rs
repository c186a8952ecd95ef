//! The outside observer: netlink monitors in the VTEPs' namespaces and packet sockets on the wires, read by one
//! thread. It shares nothing with vtepd but the clock.

use crate::error::{Error, Result};
use crate::netns;
use crate::sys::{self, PacketSocket};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, netlink, recv, socket_with};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

/// Frames and rows kept: ten minutes of the demo's traffic and more.
const LIMIT: usize = 2_000_000;

/// A row of a forwarding or neighbour table that was written or deleted.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct RowSeen {
    /// Which monitor.
    pub(super) vtep: usize,
    /// Boot clock nanoseconds.
    pub(super) at: u64,
    /// Written; else deleted.
    pub(super) new: bool,
    /// It is a row of a bridge or of a VXLAN device; else a neighbour.
    pub(super) bridge: bool,
    /// Device.
    pub(super) index: u32,
    /// MAC.
    pub(super) mac: Option<[u8; 6]>,
    /// Remote VTEP of a forwarding row, or address of a neighbour.
    pub(super) ip: Option<IpAddr>,
    /// A row of the bridge (`master`); else of the device itself (`self`).
    pub(super) master: bool,
}

/// A frame on a wire.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct FrameSeen {
    /// Which tap.
    pub(super) tap: usize,
    /// Boot clock nanoseconds, stamped by the kernel.
    pub(super) at: u64,
    /// Sent by the interface; else received.
    pub(super) outgoing: bool,
    /// Octets with the Ethernet header.
    pub(super) len: usize,
    /// EtherType.
    pub(super) kind: u16,
    /// Destination.
    pub(super) to: [u8; 6],
    /// Source.
    pub(super) from: [u8; 6],
    /// A fragment of an IPv4 packet.
    pub(super) fragment: bool,
}

/// Everything seen so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    pub(super) rows: Vec<RowSeen>,
    pub(super) frames: Vec<FrameSeen>,
    /// The kernel had to drop notifications: what follows is incomplete.
    pub(super) overruns: u64,
}

/// A running observer.
pub(super) struct Observer {
    seen: Arc<Mutex<Seen>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Observer {
    /// Watches the tables of these namespaces, and the frames on these interfaces.
    pub(super) fn start(namespaces: &[String], taps: &[(String, String)]) -> Result<Self> {
        let monitors = namespaces.iter().map(|n| netns::inside(n, monitor)).collect::<Result<Vec<_>>>()?;
        let taps = taps
            .iter()
            .map(|(n, i)| netns::inside(n, || PacketSocket::open(i, false)))
            .collect::<Result<Vec<_>>>()?;
        let seen = Arc::new(Mutex::new(Seen::default()));
        let stop = Arc::new(AtomicBool::new(false));
        let (s, e) = (seen.clone(), stop.clone());
        let thread = std::thread::spawn(move || watch(&monitors, &taps, &s, &e));
        Ok(Self { seen, stop, thread: Some(thread) })
    }

    /// Looks at what has been seen so far.
    pub(super) fn look<T>(&self, with: impl FnOnce(&Seen) -> T) -> T {
        with(&self.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Ends it.
    pub(super) fn finish(mut self) -> Seen {
        self.end();
        std::mem::take(&mut self.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn end(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(t) = self.thread.take() {
            let _ = t.join();
        }
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        self.end();
    }
}

/// RTNLGRP_NEIGH, as a bit.
const NEIGH_GROUP: u32 = 1 << 2;

fn monitor() -> Result<OwnedFd> {
    // Protocol 0 is NETLINK_ROUTE.
    let what = "netlink monitor";
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let fd = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None).map_err(Error::errno(what))?;
    let _ = rustix::net::sockopt::set_socket_recv_buffer_size_force(&fd, 16 << 20);
    rustix::net::bind(&fd, &netlink::SocketAddrNetlink::new(0, NEIGH_GROUP)).map_err(Error::errno(what))?;
    Ok(fd)
}

fn watch(monitors: &[OwnedFd], taps: &[PacketSocket], seen: &Mutex<Seen>, stop: &AtomicBool) {
    // Before vtepd and everything else on the machine, or it would measure its own waiting.
    sys::run_first(30);
    let mut buffer = vec![0; 64 << 10];
    while !stop.load(Ordering::Relaxed) {
        let mut fds: Vec<_> = monitors
            .iter()
            .chain(taps.iter().map(PacketSocket::fd))
            .map(|fd| PollFd::new(fd, PollFlags::IN))
            .collect();
        let tick = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
        if poll(&mut fds, Some(&tick)).is_err() {
            continue;
        }
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        // Rows first: their time is when they are read. Frames were stamped by the kernel.
        for (vtep, fd) in monitors.iter().enumerate() {
            loop {
                match recv(fd, &mut buffer[..], RecvFlags::empty()) {
                    Ok((n, _)) if n > 0 => {
                        let at = sys::boottime();
                        parse_rows(&buffer[..n], vtep, at, &mut seen.rows);
                    }
                    Err(rustix::io::Errno::NOBUFS) => seen.overruns += 1,
                    _ => break,
                }
            }
        }
        for (tap, socket) in taps.iter().enumerate() {
            for _ in 0..64 {
                let Ok(Some(r)) = socket.receive(&mut buffer) else { break };
                let Some(frame) = parse_frame(&buffer[..r.len.min(buffer.len())], tap, &r) else { continue };
                if seen.frames.len() < LIMIT {
                    seen.frames.push(frame);
                }
            }
        }
    }
}

fn parse_frame(b: &[u8], tap: usize, r: &sys::Received) -> Option<FrameSeen> {
    let to = b.get(..6)?.try_into().ok()?;
    let from = b.get(6..12)?.try_into().ok()?;
    let kind = u16::from_be_bytes(b.get(12..14)?.try_into().ok()?);
    // More-fragments flag or an offset (RFC 791 §3.1).
    let fragment = kind == 0x0800 && b.get(20..22).is_some_and(|f| f[0] & 0x3f != 0 || f[1] != 0);
    Some(FrameSeen { tap, at: r.at, outgoing: r.outgoing, len: r.len, kind, to, from, fragment })
}

const RTM_NEWNEIGH: u16 = 28;
const RTM_DELNEIGH: u16 = 29;
const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;
const NDA_MASTER: u16 = 9;
const AF_BRIDGE: u8 = 7;

/// Walks netlink messages (`struct nlmsghdr`, `struct ndmsg`, attributes). What is malformed ends the walk.
pub(super) fn parse_rows(mut b: &[u8], vtep: usize, at: u64, out: &mut Vec<RowSeen>) {
    let half = |b: &[u8], i: usize| b.get(i..i + 2).and_then(|w| w.try_into().ok()).map(u16::from_ne_bytes);
    let word = |b: &[u8], i: usize| b.get(i..i + 4).and_then(|w| w.try_into().ok()).map(u32::from_ne_bytes);
    while let (Some(len), Some(kind)) = (word(b, 0), half(b, 4)) {
        let len = len as usize;
        let Some(message) = b.get(..len).filter(|m| m.len() >= 16) else { return };
        if let (RTM_NEWNEIGH | RTM_DELNEIGH, Some(head)) = (kind, message.get(16..28)) {
            let mut row = RowSeen {
                vtep,
                at,
                new: kind == RTM_NEWNEIGH,
                bridge: head[0] == AF_BRIDGE,
                index: word(head, 4).unwrap_or(0),
                mac: None,
                ip: None,
                master: false,
            };
            let mut attributes = &message[28..];
            while let (Some(n), Some(t)) = (half(attributes, 0), half(attributes, 2)) {
                let n = n as usize;
                let Some(value) = attributes.get(4..n) else { break };
                match (t, value.len()) {
                    (NDA_LLADDR, 6) => row.mac = value.try_into().ok(),
                    (NDA_DST, 4) => {
                        row.ip = <[u8; 4]>::try_from(value).ok().map(|a| Ipv4Addr::from(a).into());
                    }
                    (NDA_DST, 16) => {
                        row.ip = <[u8; 16]>::try_from(value).ok().map(|a| Ipv6Addr::from(a).into());
                    }
                    (NDA_MASTER, 4) => row.master = true,
                    _ => {}
                }
                attributes = attributes.get(n.next_multiple_of(4)..).unwrap_or_default();
            }
            if out.len() < LIMIT {
                out.push(row);
            }
        }
        b = b.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut b = ((value.len() + 4) as u16).to_ne_bytes().to_vec();
        b.extend(kind.to_ne_bytes());
        b.extend(value);
        b.resize(b.len().next_multiple_of(4), 0);
        b
    }

    fn message(kind: u16, family: u8, index: u32, attributes: &[Vec<u8>]) -> Vec<u8> {
        let mut body = vec![family, 0, 0, 0];
        body.extend(index.to_ne_bytes());
        body.extend([2, 0, 0x12, 0]);
        body.extend(attributes.concat());
        let mut b = ((body.len() + 16) as u32).to_ne_bytes().to_vec();
        b.extend(kind.to_ne_bytes());
        b.extend([0; 10]);
        b.extend(body);
        b
    }

    #[test]
    fn rows_of_devices_bridges_and_neighbours_are_told_apart() {
        let mac = [2, 0, 0, 0, 0, 1];
        let mut b = message(28, 7, 5, &[attribute(2, &mac), attribute(1, &[10, 0, 0, 1])]);
        b.extend(message(29, 7, 5, &[attribute(2, &mac), attribute(9, &4u32.to_ne_bytes())]));
        b.extend(message(28, 2, 4, &[attribute(1, &[192, 168, 0, 1]), attribute(2, &mac)]));
        b.extend([7; 9]);
        let mut rows = Vec::new();
        parse_rows(&b, 3, 99, &mut rows);
        assert_eq!(rows.len(), 3);
        assert!(rows.iter().all(|r| r.mac == Some(mac) && r.vtep == 3 && r.at == 99));
        assert_eq!((rows[0].new, rows[0].bridge, rows[0].master, rows[0].index), (true, true, false, 5));
        assert_eq!(rows[0].ip, Some("10.0.0.1".parse().unwrap()));
        assert_eq!((rows[1].new, rows[1].bridge, rows[1].master), (false, true, true));
        assert_eq!((rows[2].bridge, rows[2].ip), (false, Some("192.168.0.1".parse().unwrap())));
    }

    #[test]
    fn rubbish_is_no_row() {
        for n in 0..64 {
            let mut rows = Vec::new();
            parse_rows(&vec![0xff; n], 0, 0, &mut rows);
            parse_rows(&vec![0; n], 0, 0, &mut rows);
            assert_eq!(rows, []);
        }
    }
}
