//! The few system calls that neither `std` nor `rustix` offers in a safe form. All unsafe code of the crate is here.
#![allow(unsafe_code, reason = "raw system calls; each block says why it is sound")]
#![allow(clippy::cast_possible_wrap, reason = "c_char is signed on some architectures only")]

use crate::error::{Error, Result};
use rustix::time::{ClockId, clock_gettime};
use std::io;
use std::mem;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

extern "C" fn on_signal(_: libc::c_int) {
    // A store to an atomic is all that a signal handler may do here.
    INTERRUPTED.store(true, Ordering::Relaxed);
}

/// From here on SIGINT, SIGTERM and SIGHUP only set a flag, so that everything started can be ended in order.
/// Children get the default action back at `exec`.
pub fn catch_signals() {
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        // SAFETY: a zeroed sigaction is valid; the handler is async-signal-safe; no SA_RESTART, so waits return.
        unsafe {
            let mut action: libc::sigaction = mem::zeroed();
            action.sa_sigaction = on_signal as extern "C" fn(libc::c_int) as usize;
            libc::sigemptyset(&raw mut action.sa_mask);
            libc::sigaction(signal, &raw const action, std::ptr::null_mut());
        }
    }
}

/// Whether one of these signals came.
pub fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
}

/// Boot clock in nanoseconds: the clock that the daemon stamps its records with.
pub fn boottime() -> u64 {
    nanos(ClockId::Boottime)
}

/// Wall clock in nanoseconds, only to convert the kernel's packet timestamps.
pub(crate) fn realtime() -> u64 {
    nanos(ClockId::Realtime)
}

fn nanos(id: ClockId) -> u64 {
    let t = clock_gettime(id);
    (t.tv_sec as u64) * 1_000_000_000 + t.tv_nsec as u64
}

/// Gives the calling thread a mount table of its own. The thread no longer shares its working directory with others.
pub(crate) fn unshare_mounts() -> Result<()> {
    // SAFETY: no pointers; CLONE_NEWNS changes only the calling thread's view of mounts (and its fs_struct).
    let r = unsafe { libc::unshare(libc::CLONE_NEWNS) };
    if r == 0 { Ok(()) } else { Err(Error::io("private mount table")(io::Error::last_os_error())) }
}

/// Lets the calling thread run before ordinary ones, so that what it measures is not its own waiting. `false` where
/// the system does not allow it.
pub fn run_first(priority: i32) -> bool {
    schedule(libc::SCHED_FIFO, priority)
}

/// Takes [`run_first`] back.
pub(crate) fn run_as_others() {
    schedule(libc::SCHED_OTHER, 0);
}

fn schedule(policy: i32, priority: i32) -> bool {
    // SAFETY: a zeroed sched_param is valid; 0 is the calling thread.
    unsafe {
        let mut p: libc::sched_param = mem::zeroed();
        p.sched_priority = priority;
        libc::sched_setscheduler(0, policy | libc::SCHED_RESET_ON_FORK, &raw const p) == 0
    }
}

/// Timer slack of the calling thread down to its minimum: sleeps end when they should.
pub fn precise_timers() {
    let _ = rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1));
}

/// Segment size in use and segments sent again, of a TCP connection.
pub(crate) fn tcp_facts(stream: &impl AsRawFd) -> Option<(u32, u32)> {
    // SAFETY: a zeroed tcp_info is valid, the length tells its size, and the kernel writes at most that much.
    unsafe {
        let mut info: libc::tcp_info = mem::zeroed();
        let mut len = size_of::<libc::tcp_info>() as u32;
        let r = libc::getsockopt(
            stream.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut info).cast(),
            &raw mut len,
        );
        (r == 0).then_some((info.tcpi_snd_mss, info.tcpi_total_retrans))
    }
}

const SIOCETHTOOL: libc::c_ulong = 0x8946;
const ETHTOOL_STXCSUM: u32 = 0x17;
const ETHTOOL_SSG: u32 = 0x19;
const ETHTOOL_STSO: u32 = 0x1f;
const ETHTOOL_SGSO: u32 = 0x24;
const ETHTOOL_SGRO: u32 = 0x2c;

#[repr(C)]
struct EthtoolValue {
    cmd: u32,
    data: u32,
}

/// Turns off segmentation, receive and checksum offload of an interface of the calling thread's network namespace:
/// what crosses it are frames as a wire carries them, no longer than the MTU and with valid checksums.
pub fn offloads_off(interface: &str) -> Result<()> {
    let what = || format!("offloads of {interface}");
    // SAFETY: plain socket call; the descriptor is owned right away.
    let socket = unsafe {
        let fd = libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0);
        if fd < 0 {
            return Err(Error::io(what())(io::Error::last_os_error()));
        }
        OwnedFd::from_raw_fd(fd)
    };
    for cmd in [ETHTOOL_STSO, ETHTOOL_SGSO, ETHTOOL_SGRO, ETHTOOL_STXCSUM, ETHTOOL_SSG] {
        let mut value = EthtoolValue { cmd, data: 0 };
        // SAFETY: ifreq is zeroed, the name fits with its NUL (checked), and ifr_data points to `value`, which
        // outlives the call and has the layout of `struct ethtool_value`.
        let r = unsafe {
            let mut request: libc::ifreq = mem::zeroed();
            if interface.len() >= request.ifr_name.len() {
                return Err(Error::refused(format!("interface name `{interface}` is too long")));
            }
            for (to, from) in request.ifr_name.iter_mut().zip(interface.bytes()) {
                *to = from as _;
            }
            request.ifr_ifru.ifru_data = (&raw mut value).cast();
            libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL, &raw mut request)
        };
        if r != 0 {
            let e = io::Error::last_os_error();
            if e.raw_os_error() != Some(libc::EOPNOTSUPP) {
                return Err(Error::io(what())(e));
            }
        }
    }
    Ok(())
}

/// A raw packet socket on one interface of the calling thread's network namespace.
#[derive(Debug)]
pub struct PacketSocket {
    fd: OwnedFd,
}

/// What [`PacketSocket::receive`] tells about a frame.
#[derive(Clone, Copy, Debug)]
pub struct Received {
    /// Octets of the frame as it was; the buffer may hold fewer.
    pub len: usize,
    /// Arrival in nanoseconds of the boot clock, as the kernel stamped it.
    pub at: u64,
    /// The interface sent it (instead of receiving it).
    pub outgoing: bool,
}

const PACKET_OUTGOING: u8 = 4;

impl PacketSocket {
    /// Opens it for all frames, both directions unless `inbound_only`. Non-blocking.
    pub fn open(interface: &str, inbound_only: bool) -> Result<Self> {
        let what = || format!("packet socket on {interface}");
        let name = std::ffi::CString::new(interface)
            .map_err(|_| Error::refused(format!("interface name `{interface}` holds a NUL")))?;
        // SAFETY: name is NUL-terminated.
        let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
        if index == 0 {
            return Err(Error::io(what())(io::Error::last_os_error()));
        }
        // Protocol 0: nothing is queued before the socket is bound to its interface.
        // SAFETY: plain socket call; the descriptor is owned right away.
        let fd = unsafe {
            let fd =
                libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK, 0);
            if fd < 0 {
                return Err(Error::io(what())(io::Error::last_os_error()));
            }
            OwnedFd::from_raw_fd(fd)
        };
        let socket = Self { fd };
        let size = 16 << 20;
        let _ = rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket.fd, size);
        let _ = rustix::net::sockopt::set_socket_send_buffer_size_force(&socket.fd, size);
        socket.option(libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, 1).map_err(Error::io(what()))?;
        if inbound_only {
            socket.option(libc::SOL_PACKET, libc::PACKET_IGNORE_OUTGOING, 1).map_err(Error::io(what()))?;
        }
        // SAFETY: sockaddr_ll is zeroed and then filled; its length is its size.
        let r = unsafe {
            let mut address: libc::sockaddr_ll = mem::zeroed();
            address.sll_family = libc::AF_PACKET as u16;
            address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
            address.sll_ifindex = index.cast_signed();
            libc::bind(
                socket.fd.as_raw_fd(),
                (&raw const address).cast(),
                size_of::<libc::sockaddr_ll>() as u32,
            )
        };
        if r != 0 {
            return Err(Error::io(what())(io::Error::last_os_error()));
        }
        Ok(socket)
    }

    fn option(&self, level: i32, name: i32, value: i32) -> io::Result<()> {
        // SAFETY: the option value is an int that lives through the call.
        let r = unsafe {
            libc::setsockopt(
                self.fd.as_raw_fd(),
                level,
                name,
                (&raw const value).cast(),
                size_of::<i32>() as u32,
            )
        };
        if r == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// Sends past the queueing discipline: for those who queue themselves.
    pub(crate) fn bypass_queueing(&self) {
        let _ = self.option(libc::SOL_PACKET, libc::PACKET_QDISC_BYPASS, 1);
    }

    /// For `poll`.
    pub fn fd(&self) -> &OwnedFd {
        &self.fd
    }

    /// Takes one frame; `None` when there is none.
    pub fn receive(&self, buffer: &mut [u8]) -> io::Result<Option<Received>> {
        let mut control = [0u64; 16];
        let mut from = mem::MaybeUninit::<libc::sockaddr_ll>::zeroed();
        // SAFETY: all pointers refer to live buffers with their true lengths; control is aligned for cmsghdr.
        let (n, message) = unsafe {
            let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
            let mut message: libc::msghdr = mem::zeroed();
            message.msg_name = from.as_mut_ptr().cast();
            message.msg_namelen = size_of::<libc::sockaddr_ll>() as u32;
            message.msg_iov = &raw mut part;
            message.msg_iovlen = 1;
            message.msg_control = control.as_mut_ptr().cast();
            message.msg_controllen = size_of_val(&control);
            (libc::recvmsg(self.fd.as_raw_fd(), &raw mut message, libc::MSG_TRUNC), message)
        };
        if n < 0 {
            let e = io::Error::last_os_error();
            return match e.raw_os_error() {
                Some(libc::EAGAIN | libc::EINTR) => Ok(None),
                _ => Err(e),
            };
        }
        let mut at = boottime();
        // SAFETY: the kernel filled `control` as the CMSG macros expect; SCM_TIMESTAMPNS carries a timespec.
        unsafe {
            let mut header = libc::CMSG_FIRSTHDR(&raw const message);
            while !header.is_null() {
                if (*header).cmsg_level == libc::SOL_SOCKET && (*header).cmsg_type == libc::SCM_TIMESTAMPNS {
                    let t = libc::CMSG_DATA(header).cast::<libc::timespec>().read_unaligned();
                    let stamped = (t.tv_sec as u64) * 1_000_000_000 + t.tv_nsec as u64;
                    // The kernel stamps with the wall clock; its age is the same on every clock.
                    at = at.saturating_sub(realtime().saturating_sub(stamped));
                }
                header = libc::CMSG_NXTHDR(&raw const message, header);
            }
        }
        // SAFETY: zeroed at first, and then at most overwritten by the kernel.
        let outgoing = unsafe { from.assume_init() }.sll_pkttype == PACKET_OUTGOING;
        Ok(Some(Received { len: n as usize, at, outgoing }))
    }

    /// Sends one frame.
    pub fn send(&self, frame: &[u8]) -> io::Result<()> {
        rustix::net::send(&self.fd, frame, rustix::net::SendFlags::empty())?;
        Ok(())
    }
}
