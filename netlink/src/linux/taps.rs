//! Frame taps: what the guests behind a port say, seen before the bridge consumes it (design section 5).

use evpn::types::IfIndex;
use socket2::{Domain, Protocol, SockAddr, SockFilter, Socket, Type};
use std::io;
use std::os::fd::{AsRawFd, RawFd};

const ETH_P_ALL: u16 = 0x0003;
const ETH_VLAN: u16 = 0x8100;
/// Receive buffer in octets: some 20,000 announcements, as when a whole host's VMs arrive at once. The default
/// holds 270, and what it loses are claims.
const BUFFER: libc::c_int = 16 << 20;

/// A packet socket on one access port: ARP, RARP, ND and DHCP, also behind one 802.1Q tag; inbound only.
///
/// A frame seen here is no proof of where its MAC is: the tap sees what a locked or filtered port refuses
/// (PIT-07).
#[derive(Debug)]
pub struct Tap {
    socket: Socket,
    port: IfIndex,
}

impl Tap {
    /// On a port in the network namespace of the calling thread. Needs `CAP_NET_RAW`.
    pub fn open(port: IfIndex) -> io::Result<Self> {
        Self::with_filter(port, &announcements())
    }

    /// Every inbound frame of the port, for tests and observers.
    pub fn open_all(port: IfIndex) -> io::Result<Self> {
        Self::with_filter(port, &[stmt(RET, u32::MAX)])
    }

    /// Only to send: hears nothing.
    pub(super) fn deaf(port: IfIndex) -> io::Result<Self> {
        Self::with_filter(port, &[stmt(RET, 0)])
    }

    fn with_filter(port: IfIndex, filter: &[SockFilter]) -> io::Result<Self> {
        // Protocol 0: nothing is received before filter and port are set.
        let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(0)))?;
        socket.set_nonblocking(true)?;
        socket.attach_filter(filter)?;
        // Without these two the tap would hear our own frames, and miss tags that the device has stripped.
        set_packet_option(&socket, libc::PACKET_IGNORE_OUTGOING)?;
        set_packet_option(&socket, libc::PACKET_AUXDATA)?;
        super::nl::receive_buffer(socket.as_raw_fd(), BUFFER);
        socket.bind(&packet_address(port)?)?;
        Ok(Self { socket, port })
    }

    /// The port.
    pub fn port(&self) -> IfIndex {
        self.port
    }

    /// The next frame into `buf` (from the destination MAC on, a stripped VLAN tag put back): its length, or
    /// `None` when nothing waits. Never blocks. 2 KiB of buffer hold any frame that passes the filter; a longer
    /// one is cut.
    pub fn recv(&mut self, buf: &mut [u8]) -> io::Result<Option<usize>> {
        // Room for a tag that is put back.
        let room = buf.len().saturating_sub(4);
        let mut iov = libc::iovec { iov_base: buf.as_mut_ptr().cast(), iov_len: room };
        let mut control = Control([0; 64]);
        // SAFETY: all zero is a valid msghdr: null pointers and zero lengths.
        #[allow(unsafe_code)]
        let mut msg: libc::msghdr = unsafe { core::mem::zeroed() };
        msg.msg_iov = &raw mut iov;
        msg.msg_iovlen = 1;
        msg.msg_control = control.0.as_mut_ptr().cast();
        msg.msg_controllen = control.0.len() as _;
        // SAFETY: `msg` points to one buffer of `room` octets and a control buffer of its stated length, both of
        // which live across the call.
        #[allow(unsafe_code)]
        let mut receive =
            || unsafe { libc::recvmsg(self.socket.as_raw_fd(), &raw mut msg, libc::MSG_DONTWAIT) };
        let mut got = receive();
        // That the port was down is told once, in front of the frames that have come since it is up again. Nobody
        // wakes us a second time for those.
        if got < 0 && io::Error::last_os_error().raw_os_error() == Some(libc::ENETDOWN) {
            got = receive();
        }
        if got < 0 {
            let e = io::Error::last_os_error();
            return match e.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(None),
                // Down again in between: nothing to hear until it is up.
                _ if e.raw_os_error() == Some(libc::ENETDOWN) => Ok(None),
                _ => Err(e),
            };
        }
        let len = got as usize;
        let Some((tpid, tci)) = stripped_tag(&control.0[..(msg.msg_controllen as usize).min(64)]) else {
            return Ok(Some(len));
        };
        if len < 12 {
            return Ok(Some(len));
        }
        buf.copy_within(12..len, 16);
        buf[12..14].copy_from_slice(&tpid.to_be_bytes());
        buf[14..16].copy_from_slice(&tci.to_be_bytes());
        Ok(Some(len + 4))
    }

    /// Sends a frame out of the port, towards the guest.
    pub fn send(&self, frame: &[u8]) -> io::Result<()> {
        match self.socket.send(frame) {
            // What happened when the port last went down is told only now; it may be up again.
            Err(e) if e.raw_os_error() == Some(libc::ENETDOWN) => self.socket.send(frame).map(|_| ()),
            sent => sent.map(|_| ()),
        }
    }
}

impl AsRawFd for Tap {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

/// Aligned for `cmsghdr`.
#[repr(align(8))]
struct Control([u8; 64]);

/// Tag protocol and TCI from `struct tpacket_auxdata`, if the device or the kernel stripped a tag.
fn stripped_tag(control: &[u8]) -> Option<(u16, u16)> {
    const TP_STATUS_VLAN_VALID: u32 = 1 << 4;
    const TP_STATUS_VLAN_TPID_VALID: u32 = 1 << 6;
    const CMSG_HDR: usize = size_of::<libc::cmsghdr>();
    let int = |at: usize| control.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes);
    let short = |at: usize| control.get(at..at + 2)?.try_into().ok().map(u16::from_ne_bytes);
    // The only option asked for, so the only message.
    let kind_at = size_of::<libc::size_t>() + 4;
    if int(kind_at - 4)?.cast_signed() != libc::SOL_PACKET
        || int(kind_at)?.cast_signed() != libc::PACKET_AUXDATA
    {
        return None;
    }
    let status = int(CMSG_HDR)?;
    if status & TP_STATUS_VLAN_VALID == 0 {
        return None;
    }
    let tci = short(CMSG_HDR + 16)?;
    let tpid = if status & TP_STATUS_VLAN_TPID_VALID == 0 { ETH_VLAN } else { short(CMSG_HDR + 18)? };
    Some((tpid, tci))
}

fn set_packet_option(socket: &Socket, name: libc::c_int) -> io::Result<()> {
    let on: libc::c_int = 1;
    let len = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the kernel reads `len` octets of `on`, which lives across the call.
    #[allow(unsafe_code)]
    let rc =
        unsafe { libc::setsockopt(socket.as_raw_fd(), libc::SOL_PACKET, name, (&raw const on).cast(), len) };
    if rc == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn packet_address(port: IfIndex) -> io::Result<SockAddr> {
    // SAFETY: sockaddr_ll fits into the zeroed storage, and the length given is its size.
    #[allow(unsafe_code)]
    let ((), address) = unsafe {
        SockAddr::try_init(|storage, len| {
            let ll = storage.cast::<libc::sockaddr_ll>();
            (*ll).sll_family = libc::AF_PACKET as u16;
            (*ll).sll_protocol = ETH_P_ALL.to_be();
            (*ll).sll_ifindex = port.0.cast_signed();
            *len = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
            Ok(())
        })?
    };
    Ok(address)
}

const LDH: u16 = 0x28;
const LDB: u16 = 0x30;
const JEQ: u16 = 0x15;
const JGE: u16 = 0x35;
const JGT: u16 = 0x25;
const JSET: u16 = 0x45;
/// X: four times the low half of an octet, as the length of an IPv4 header.
const LDX_MSH: u16 = 0xb1;
/// Two octets at X and an offset.
const LDH_IND: u16 = 0x48;
const RET: u16 = 0x06;

fn stmt(code: u16, k: u32) -> SockFilter {
    SockFilter::new(code, 0, 0, k)
}

fn jump(code: u16, k: u32, jt: u8, jf: u8) -> SockFilter {
    SockFilter::new(code, jt, jf, k)
}

/// Classic BPF: ARP, RARP, ICMPv6 133–137 (RS, RA, NS, NA, redirect), and UDP to the ports of DHCP; untagged or behind one
/// 802.1Q tag. A tag that was stripped is not in the octets, so the untagged half sees those frames.
fn announcements() -> Vec<SockFilter> {
    let mut out = vec![stmt(LDH, 12), jump(JEQ, ETH_VLAN.into(), FAMILY, 0)];
    out.extend(family(0));
    // Unreached by falling through: `family` ends with a verdict.
    debug_assert_eq!(out.len(), 2 + usize::from(FAMILY));
    out.push(stmt(LDH, 16));
    out.extend(family(4));
    out
}

/// Instructions of [`family`].
const FAMILY: u8 = 23;

/// The accumulator holds the EtherType; `shift` is the length of the tag.
fn family(shift: u32) -> [SockFilter; FAMILY as usize] {
    [
        jump(JEQ, 0x0806, 20, 0),
        jump(JEQ, 0x8035, 19, 0),
        jump(JEQ, 0x0800, 10, 0),
        jump(JEQ, 0x86dd, 0, 18),
        // IPv6: the first next header.
        stmt(LDB, 20 + shift),
        jump(JEQ, 17, 4, 0),
        jump(JEQ, 58, 0, 15),
        stmt(LDB, 54 + shift),
        jump(JGE, 133, 0, 13),
        jump(JGT, 137, 12, 11),
        stmt(LDH, 56 + shift),
        jump(JEQ, 546, 9, 0),
        jump(JEQ, 547, 8, 9),
        // IPv4: UDP, no fragment but the first, ports behind a header of any length.
        stmt(LDB, 23 + shift),
        jump(JEQ, 17, 0, 7),
        stmt(LDH, 20 + shift),
        jump(JSET, 0x1fff, 5, 0),
        stmt(LDX_MSH, 14 + shift),
        stmt(LDH_IND, 16 + shift),
        jump(JEQ, 67, 1, 0),
        jump(JEQ, 68, 0, 1),
        stmt(RET, u32::MAX),
        stmt(RET, 0),
    ]
}
