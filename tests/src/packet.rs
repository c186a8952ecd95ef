//! Raw sockets of the outside observer: frames in and out, and the kernel's own notifications.

use crate::ns::Netns;
use evpn::types::Mac;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{
    AddressFamily, MMsgHdr, RecvFlags, SendAncillaryBuffer, SendFlags, SocketFlags, SocketType, bind, recv,
    send, sendmmsg, socket_with,
};
use rustix::time::{ClockId, clock_gettime};
use socket2::{Domain, Protocol, SockAddr, SockAddrStorage, Socket, Type};
use std::io::{IoSlice, Read, Write};
use std::net::IpAddr;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::time::Duration;

/// Nanoseconds of the monotonic clock, the same in every namespace.
pub fn now() -> u64 {
    let t = clock_gettime(ClockId::Monotonic);
    t.tv_sec as u64 * 1_000_000_000 + t.tv_nsec as u64
}

const ETH_P_ALL: u16 = 3;

/// A packet socket on one interface.
#[derive(Debug)]
pub struct Wire {
    socket: Socket,
}

impl Wire {
    /// On `device` in `ns`, sees everything that passes there, both ways.
    ///
    /// # Panics
    /// When the device is not there.
    pub fn open(ns: &Netns, device: &str) -> Self {
        Self::with(ns, device, ETH_P_ALL)
    }

    /// The same that hears nothing: what passes there costs it nothing.
    ///
    /// # Panics
    /// When the device is not there.
    pub fn deaf(ns: &Netns, device: &str) -> Self {
        Self::with(ns, device, 0)
    }

    /// Hears what comes in, and not what is sent here.
    ///
    /// # Panics
    /// When the device is not there.
    pub fn incoming(ns: &Netns, device: &str) -> Self {
        let wire = Self::open(ns, device);
        set_option(&wire.socket, libc::PACKET_IGNORE_OUTGOING, device);
        wire.drain();
        wire
    }

    fn with(ns: &Netns, device: &str, protocol: u16) -> Self {
        let index = ns.index(device);
        let protocol = protocol.to_be();
        ns.enter(|| {
            let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(i32::from(protocol))))
                .expect("root may open packet sockets");
            socket.bind(&link_address(index, protocol)).expect("the device is there");
            let _ = socket.set_recv_buffer_size(8 << 20);
            Self { socket }
        })
    }

    /// Sends frames with one system call, as many as the kernel takes at once; says how many that were.
    ///
    /// # Panics
    /// When the device is down.
    pub fn send_many(&self, frames: &[Vec<u8>]) -> usize {
        crate::interrupt::check();
        let slices: Vec<[IoSlice<'_>; 1]> = frames.iter().map(|f| [IoSlice::new(f)]).collect();
        let mut controls: Vec<_> = frames.iter().map(|_| SendAncillaryBuffer::default()).collect();
        let mut messages: Vec<_> =
            slices.iter().zip(&mut controls).map(|(s, c)| MMsgHdr::new(s, c)).collect();
        match sendmmsg(&self.socket, &mut messages, SendFlags::empty()) {
            Ok(n) => n,
            Err(rustix::io::Errno::NOBUFS | rustix::io::Errno::INTR) => 0,
            Err(e) => panic!("frames cannot be sent: {e}"),
        }
    }

    /// Sends a frame and says when, just before it went.
    ///
    /// # Panics
    /// When the device is down.
    pub fn send(&self, frame: &[u8]) -> u64 {
        crate::interrupt::check();
        let at = now();
        (&self.socket).write_all(frame).expect("the device is up");
        at
    }

    /// The next frame, or `None` after `limit`.
    pub fn receive(&self, limit: Duration) -> Option<(u64, Vec<u8>)> {
        crate::interrupt::check();
        self.socket.set_read_timeout(Some(limit.max(Duration::from_millis(1)))).ok()?;
        let mut buf = [0; 2048];
        let n = (&self.socket).read(&mut buf).ok()?;
        Some((now(), buf[..n].to_vec()))
    }

    /// The next frame that has arrived already.
    pub fn poll(&self) -> Option<(u64, Vec<u8>)> {
        let mut buf = [0; 2048];
        let (n, _) = recv(&self.socket, &mut buf[..], RecvFlags::DONTWAIT).ok()?;
        Some((now(), buf[..n].to_vec()))
    }

    /// The next frame that has arrived already, with the time when the kernel took it: who reads late is not misled.
    pub fn poll_stamped(&self) -> Option<(u64, Vec<u8>)> {
        const SIOCGSTAMPNS: libc::c_ulong = 0x8907;
        let (read, f) = self.poll()?;
        let mut at = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: the request writes one timespec, which lives across the call.
        #[allow(unsafe_code)]
        let done = unsafe { libc::ioctl(self.socket.as_raw_fd(), SIOCGSTAMPNS as _, &raw mut at) };
        if done != 0 {
            return Some((read, f));
        }
        // By the other clock: so long ago.
        let wall = clock_gettime(ClockId::Realtime);
        let ago = (wall.tv_sec - at.tv_sec) * 1_000_000_000 + (wall.tv_nsec - at.tv_nsec);
        Some((now().saturating_sub(ago.max(0).cast_unsigned()).min(read), f))
    }

    /// The first frame that `pick` takes, or `None` after `limit`.
    pub fn find<T>(&self, limit: Duration, mut pick: impl FnMut(&[u8]) -> Option<T>) -> Option<(u64, T)> {
        let end = now() + limit.as_nanos() as u64;
        while now() < end {
            if let Some((at, f)) = self.receive(Duration::from_nanos(end.saturating_sub(now())))
                && let Some(t) = pick(&f)
            {
                return Some((at, t));
            }
        }
        None
    }

    /// Throws away what has arrived so far.
    pub fn drain(&self) {
        while self.poll().is_some() {}
    }
}

impl std::os::fd::AsFd for Wire {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// A packet socket that passes frames on as they are: with the header that says what the kernel has left to the device,
/// such as a checksum or cutting a long segment.
#[derive(Debug)]
pub struct Relay {
    socket: Socket,
}

/// Length of that header (`virtio_net_hdr`).
const VNET_HEADER: usize = 10;

impl Relay {
    /// On `device` in `ns`; hears what comes in, and not what it sends.
    ///
    /// # Panics
    /// When the device is not there.
    pub fn open(ns: &Netns, device: &str) -> Self {
        let socket = Wire::open(ns, device).socket;
        for option in [libc::PACKET_VNET_HDR, libc::PACKET_IGNORE_OUTGOING] {
            set_option(&socket, option, device);
        }
        Self { socket }
    }

    /// The next frame with its header, or `None` after `limit`.
    pub fn receive(&self, limit: Duration) -> Option<Vec<u8>> {
        self.socket.set_read_timeout(Some(limit)).ok()?;
        let mut buf = vec![0; 70_000];
        let n = (&self.socket).read(&mut buf).ok()?;
        buf.truncate(n);
        Some(buf)
    }

    /// Sends such a frame; one that the device does not take is lost.
    pub fn send(&self, frame: &[u8]) {
        let _ = (&self.socket).write(frame);
    }

    /// Destination and source of such a frame; no destination that a table knows if it is for all.
    pub fn addresses(frame: &[u8]) -> Option<([u8; 6], [u8; 6])> {
        let address = |at: usize| frame.get(VNET_HEADER + at..VNET_HEADER + at + 6)?.try_into().ok();
        Some((address(0)?, address(6)?))
    }
}

fn set_option(socket: &Socket, option: libc::c_int, device: &str) {
    let on: libc::c_int = 1;
    // SAFETY: the option's value is an int that lives as long as the call.
    #[allow(unsafe_code)]
    let done = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            option,
            (&raw const on).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    assert_eq!(done, 0, "{device}: packet socket option {option}");
}

fn link_address(index: u32, protocol: u16) -> SockAddr {
    let mut storage = SockAddrStorage::zeroed();
    let ll = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: protocol,
        sll_ifindex: index.cast_signed(),
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    // SAFETY: `sockaddr_ll` is a plain address structure for AF_PACKET that fits into the storage.
    #[allow(unsafe_code)]
    unsafe {
        *storage.view_as::<libc::sockaddr_ll>() = ll;
        SockAddr::new(storage, size_of::<libc::sockaddr_ll>() as u32)
    }
}

/// A notification about a forwarding row.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct FdbNote {
    /// When it was read.
    pub at: u64,
    /// New or changed; otherwise deleted.
    pub new: bool,
    /// Device of the row: a port for a bridge row, the VXLAN device for a `self` row.
    pub device: u32,
    /// It has a master: a bridge row.
    pub bridge: bool,
    /// MAC.
    pub mac: Mac,
    /// Destination, for rows of a VXLAN device.
    pub vtep: Option<IpAddr>,
}

/// A notification about a neighbour row.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct NeighNote {
    /// When it was read.
    pub at: u64,
    /// New or changed; otherwise deleted.
    pub new: bool,
    /// Address.
    pub ip: IpAddr,
    /// MAC, where there is one.
    pub mac: Option<Mac>,
    /// Written by somebody (`extern_learn`): the kernel answers with it.
    pub external: bool,
}

pub(crate) const RTM_NEWNEIGH: u16 = 28;
const RTM_DELNEIGH: u16 = 29;
pub(crate) const NDA_DST: u16 = 1;
pub(crate) const NDA_LLADDR: u16 = 2;
pub(crate) const NDA_MASTER: u16 = 9;
const RTNLGRP_NEIGH: u32 = 3;
pub(crate) const AF_BRIDGE: u8 = 7;

/// A netlink monitor for forwarding rows.
#[derive(Debug)]
pub struct Monitor {
    socket: OwnedFd,
    buf: Vec<u8>,
}

impl Monitor {
    /// In this namespace, with a buffer for some hundred thousand notifications.
    ///
    /// # Panics
    /// When the socket cannot be made.
    pub fn open(ns: &Netns) -> Self {
        ns.enter(|| {
            let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)
                .expect("anybody may open netlink sockets");
            let _ = rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, 128 << 20);
            bind(&socket, &SocketAddrNetlink::new(0, 1 << (RTNLGRP_NEIGH - 1))).expect("the group exists");
            Self { socket, buf: vec![0; 1 << 16] }
        })
    }

    /// Waits up to `limit` and gives the next notifications to `f`; `false` if none came.
    ///
    /// # Panics
    /// When notifications were lost.
    pub fn read(&mut self, limit: Duration, f: impl FnMut(FdbNote)) -> bool {
        self.read_both(limit, f, |_| {})
    }

    /// The same with neighbour rows, which go to `g`.
    ///
    /// # Panics
    /// When notifications were lost.
    pub fn read_both(
        &mut self,
        limit: Duration,
        mut f: impl FnMut(FdbNote),
        mut g: impl FnMut(NeighNote),
    ) -> bool {
        crate::interrupt::check();
        let mut p = [rustix::event::PollFd::new(&self.socket, rustix::event::PollFlags::IN)];
        let t = rustix::event::Timespec {
            tv_sec: limit.as_secs().cast_signed(),
            tv_nsec: i64::from(limit.subsec_nanos()),
        };
        if !matches!(rustix::event::poll(&mut p, Some(&t)), Ok(1..)) {
            return false;
        }
        let n = match recv(&self.socket, &mut *self.buf, RecvFlags::DONTWAIT) {
            Ok((n, _)) => n,
            Err(rustix::io::Errno::NOBUFS) => panic!("the observer lost notifications"),
            Err(_) => return false,
        };
        let at = now();
        let mut rest = &self.buf[..n];
        while let Some((kind, body, next)) = message(rest) {
            if let Some(note) = fdb_note(at, kind, body) {
                f(note);
            } else if let Some(note) = neigh_note(at, kind, body) {
                g(note);
            }
            rest = next;
        }
        true
    }

    /// The first notification that `pick` takes, or `None` after `limit`.
    pub fn find(&mut self, limit: Duration, pick: impl Fn(&FdbNote) -> bool) -> Option<FdbNote> {
        let end = now() + limit.as_nanos() as u64;
        let mut found = None;
        while found.is_none() && now() < end {
            self.read(Duration::from_nanos(end.saturating_sub(now())), |n| {
                if found.is_none() && pick(&n) {
                    found = Some(n);
                }
            });
        }
        found
    }

    /// Throws away what has arrived so far.
    pub fn drain(&mut self) {
        while self.read(Duration::ZERO, |_| {}) {}
    }
}

pub(crate) fn u16_at(b: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(b.get(at..at + 2)?.try_into().ok()?))
}

pub(crate) fn u32_at(b: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(b.get(at..at + 4)?.try_into().ok()?))
}

/// First message: type, body, and what follows.
pub(crate) fn message(b: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let len = u32_at(b, 0)? as usize;
    let body = b.get(16..len)?;
    Some((u16_at(b, 4)?, body, b.get(len.next_multiple_of(4)..).unwrap_or(&[])))
}

/// Type and value of each attribute.
pub(crate) fn attributes(mut rest: &[u8]) -> Vec<(u16, &[u8])> {
    let mut out = Vec::new();
    while let Some(len) = u16_at(rest, 0).map(usize::from).filter(|l| *l >= 4) {
        let (Some(value), Some(kind)) = (rest.get(4..len), u16_at(rest, 2)) else { break };
        out.push((kind & 0x3fff, value));
        rest = rest.get(len.next_multiple_of(4)..).unwrap_or(&[]);
    }
    out
}

/// An address of four or sixteen octets.
pub(crate) fn address(value: &[u8]) -> Option<IpAddr> {
    match value.len() {
        4 => Some(IpAddr::from(<[u8; 4]>::try_from(value).ok()?)),
        16 => Some(IpAddr::from(<[u8; 16]>::try_from(value).ok()?)),
        _ => None,
    }
}

fn fdb_note(at: u64, kind: u16, body: &[u8]) -> Option<FdbNote> {
    if !(RTM_NEWNEIGH..=RTM_DELNEIGH).contains(&kind) || *body.first()? != AF_BRIDGE {
        return None;
    }
    let device = u32_at(body, 4)?;
    let mut note =
        FdbNote { at, new: kind == RTM_NEWNEIGH, device, bridge: false, mac: Mac::ZERO, vtep: None };
    for (kind, value) in attributes(body.get(12..)?) {
        match (kind, value.len()) {
            (NDA_LLADDR, 6) => note.mac = Mac::from_slice(value)?,
            (NDA_MASTER, 4) => note.bridge = true,
            (NDA_DST, 4 | 16) => note.vtep = address(value),
            _ => {}
        }
    }
    Some(note)
}

fn neigh_note(at: u64, kind: u16, body: &[u8]) -> Option<NeighNote> {
    if !(RTM_NEWNEIGH..=RTM_DELNEIGH).contains(&kind) || *body.first()? == AF_BRIDGE {
        return None;
    }
    let external = body.get(10)? & NTF_EXT_LEARNED != 0;
    let (mut ip, mut mac) = (None, None);
    for (kind, value) in attributes(body.get(12..)?) {
        match kind {
            NDA_DST => ip = address(value),
            NDA_LLADDR => mac = Mac::from_slice(value),
            _ => {}
        }
    }
    Some(NeighNote { at, new: kind == RTM_NEWNEIGH, ip: ip?, mac, external })
}

/// Writes forwarding rows with nothing in between: the bare kernel's time for the same rows.
#[derive(Debug)]
pub struct RowWriter {
    socket: OwnedFd,
    vxlan: u32,
}

pub(crate) const NLM_F_REQUEST: u16 = 1;
const NLM_F_REPLACE: u16 = 0x100;
const NLM_F_CREATE: u16 = 0x400;
const NUD_REACHABLE: u16 = 2;
const NTF_SELF: u8 = 2;
const NTF_MASTER: u8 = 4;
pub(crate) const NTF_EXT_LEARNED: u8 = 16;
/// Rows in one `send`.
const BATCH: usize = 200;

impl RowWriter {
    /// For this VXLAN device and the bridge that it is in.
    ///
    /// # Panics
    /// When the device is not there.
    pub fn open(ns: &Netns, vxlan: &str) -> Self {
        let vxlan = ns.index(vxlan);
        let socket = ns.enter(|| {
            let s = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None);
            s.expect("anybody may open netlink sockets")
        });
        Self { socket, vxlan }
    }

    /// Requests that write (or delete) both rows of each MAC.
    pub fn batches(&self, macs: impl Iterator<Item = Mac>, vtep: IpAddr, new: bool) -> Vec<Vec<u8>> {
        let macs: Vec<_> = macs.collect();
        macs.chunks(BATCH).map(|c| c.iter().flat_map(|m| self.request(*m, vtep, new)).collect()).collect()
    }

    fn request(&self, mac: Mac, vtep: IpAddr, new: bool) -> Vec<u8> {
        let (kind, flags) = if new {
            (RTM_NEWNEIGH, NLM_F_REQUEST | NLM_F_CREATE | NLM_F_REPLACE)
        } else {
            (RTM_DELNEIGH, NLM_F_REQUEST)
        };
        let mut m = vec![0; 4];
        m.extend(kind.to_ne_bytes());
        m.extend(flags.to_ne_bytes());
        m.extend([0; 8]);
        m.extend([AF_BRIDGE, 0, 0, 0]);
        m.extend(self.vxlan.to_ne_bytes());
        m.extend(NUD_REACHABLE.to_ne_bytes());
        m.extend([NTF_SELF | NTF_MASTER | NTF_EXT_LEARNED, 0]);
        attribute(&mut m, NDA_LLADDR, &mac.0);
        match vtep {
            IpAddr::V4(a) => attribute(&mut m, NDA_DST, &a.octets()),
            IpAddr::V6(a) => attribute(&mut m, NDA_DST, &a.octets()),
        }
        let len = (m.len() as u32).to_ne_bytes();
        m[..4].copy_from_slice(&len);
        m
    }

    /// Hands them to the kernel, which does the work before it returns.
    ///
    /// # Panics
    /// When the kernel does not take them.
    pub fn send(&self, batches: &[Vec<u8>]) {
        for b in batches {
            send(&self.socket, b, SendFlags::empty()).expect("the kernel takes requests");
        }
    }
}

/// Asks the kernel for something that needs its lock for network devices, and changes nothing.
#[derive(Debug)]
pub struct DeviceLock {
    socket: OwnedFd,
    request: Vec<u8>,
}

impl DeviceLock {
    /// In this namespace; the lock is one for all of them.
    ///
    /// # Panics
    /// When the socket cannot be made.
    pub fn open(ns: &Netns) -> Self {
        const RTM_NEWLINK: u16 = 16;
        let socket = ns.enter(|| {
            let s = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None);
            s.expect("anybody may open netlink sockets")
        });
        let mut request = 32u32.to_ne_bytes().to_vec();
        request.extend(RTM_NEWLINK.to_ne_bytes());
        request.extend(NLM_F_REQUEST.to_ne_bytes());
        request.extend([0; 12]);
        // Loopback is to be up, which it is: index, flags, which of them.
        for word in [1u32, 1, 1] {
            request.extend(word.to_ne_bytes());
        }
        Self { socket, request }
    }

    /// How long that takes now.
    ///
    /// # Panics
    /// When the kernel does not take requests.
    pub fn wait(&self) -> Duration {
        let begun = now();
        send(&self.socket, &self.request, SendFlags::empty()).expect("the kernel takes requests");
        Duration::from_nanos(now() - begun)
    }
}

fn attribute(m: &mut Vec<u8>, kind: u16, value: &[u8]) {
    m.extend((4 + value.len() as u16).to_ne_bytes());
    m.extend(kind.to_ne_bytes());
    m.extend(value);
    m.resize(m.len().next_multiple_of(4), 0);
}
