//! The sockets: one per port and family to hear, one per session to speak (BFD-05, BFD-08).

use evpn::bfd::{Arrival, MULTIHOP_PORT, SINGLE_HOP_PORT};
use rustix::event::{PollFd, PollFlags};
use socket2::{Domain, MaybeUninitSlice, MsgHdrMut, Protocol, SockAddr, Socket, Type};
use std::io;
use std::mem::MaybeUninit;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::AsRawFd as _;

/// The ports that RFC 5881 §4 wants packets to come from.
const FIRST_PORT: u16 = 49152;
/// Sent with this TTL, over several hops too: the other end then knows how many there were.
const TTL: u32 = 255;
/// Network control (CS6): BFD goes before what it watches over.
const CLASS: u32 = 0xc0;
/// No packet of ours or of a peer is longer: control packets with authentication have some 50 octets.
const ROOM: usize = 128;
/// Packets that may wait while the thread does not run: 10,000 a second for half a second.
const QUEUE: usize = 4 << 20;

fn any(v6: bool, port: u16) -> SocketAddr {
    if v6 { (Ipv6Addr::UNSPECIFIED, port).into() } else { (Ipv4Addr::UNSPECIFIED, port).into() }
}

fn datagram(v6: bool) -> io::Result<Socket> {
    let s = Socket::new(if v6 { Domain::IPV6 } else { Domain::IPV4 }, Type::DGRAM, Some(Protocol::UDP))?;
    if v6 {
        s.set_only_v6(true)?;
    }
    s.set_nonblocking(true)?;
    Ok(s)
}

/// Hears one port in one family.
#[derive(Debug)]
pub(super) struct Ear {
    socket: Socket,
    multihop: bool,
    v6: bool,
}

impl Ear {
    /// On any address of ours.
    pub(super) fn open(multihop: bool, v6: bool) -> io::Result<Self> {
        let socket = datagram(v6)?;
        if v6 {
            socket.set_recv_hoplimit_v6(true)?;
        } else {
            receive_ttl(&socket)?;
        }
        let _ = socket.set_recv_buffer_size(QUEUE);
        socket.bind(&any(v6, if multihop { MULTIHOP_PORT } else { SINGLE_HOP_PORT }).into())?;
        Ok(Self { socket, multihop, v6 })
    }

    /// Whether it is this one.
    pub(super) fn is(&self, multihop: bool, v6: bool) -> bool {
        self.multihop == multihop && self.v6 == v6
    }

    /// For `poll`.
    pub(super) fn poll_fd(&self) -> PollFd<'_> {
        PollFd::new(&self.socket, PollFlags::IN)
    }

    /// The next datagram, cut to [`ROOM`] octets; `None`: none waits.
    pub(super) fn recv(&self) -> Option<(Arrival, Datagram)> {
        let mut octets = [MaybeUninit::new(0); ROOM];
        let mut control = Control([MaybeUninit::new(0); 64]);
        let mut from = SockAddr::from(any(self.v6, 0));
        let (got, told) = {
            let mut bufs = [MaybeUninitSlice::new(&mut octets)];
            let mut msg =
                MsgHdrMut::new().with_addr(&mut from).with_buffers(&mut bufs).with_control(&mut control.0);
            let got = self.socket.recvmsg(&mut msg, 0).ok()?;
            (got, msg.control_len())
        };
        let from = from.as_socket()?;
        let scope = match from {
            SocketAddr::V6(a) => a.scope_id(),
            SocketAddr::V4(_) => 0,
        };
        let control = initialized(&control.0);
        let ttl = ttl_of(control.get(..told)?, self.v6);
        let arrival = Arrival { from: from.ip(), scope, multihop: self.multihop, ttl };
        Some((arrival, Datagram { octets: initialized(&octets), len: got.min(ROOM) }))
    }
}

/// What came.
#[derive(Debug)]
pub(super) struct Datagram {
    octets: [u8; ROOM],
    len: usize,
}

impl AsRef<[u8]> for Datagram {
    fn as_ref(&self) -> &[u8] {
        &self.octets[..self.len]
    }
}

/// Aligned for `cmsghdr`.
#[repr(align(8))]
struct Control([MaybeUninit<u8>; 64]);

/// Octets of a buffer that was filled before it was given away.
fn initialized<const N: usize>(from: &[MaybeUninit<u8>; N]) -> [u8; N] {
    // SAFETY: each caller's buffer began as `MaybeUninit::new(0)` throughout, and the kernel only writes octets.
    #[allow(unsafe_code)]
    from.map(|b| unsafe { b.assume_init() })
}

fn receive_ttl(socket: &Socket) -> io::Result<()> {
    let on: libc::c_int = 1;
    let len = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the kernel reads `len` octets of `on`, which lives across the call.
    #[allow(unsafe_code)]
    let rc = unsafe {
        libc::setsockopt(socket.as_raw_fd(), libc::IPPROTO_IP, libc::IP_RECVTTL, (&raw const on).cast(), len)
    };
    if rc == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// TTL or hop limit out of control messages (`struct cmsghdr`: length, level, type, data).
fn ttl_of(control: &[u8], v6: bool) -> Option<u8> {
    const HEAD: usize = size_of::<libc::cmsghdr>();
    const WORD: usize = size_of::<usize>();
    let want = if v6 { (libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT) } else { (libc::IPPROTO_IP, libc::IP_TTL) };
    let mut rest = control;
    loop {
        let length = usize::from_ne_bytes(rest.get(..WORD)?.try_into().ok()?);
        let int = |at: usize| rest.get(at..at + 4)?.try_into().ok().map(i32::from_ne_bytes);
        if (int(WORD)?, int(WORD + 4)?) == want {
            return u8::try_from(int(HEAD)?).ok();
        }
        rest = rest.get(length.max(HEAD).next_multiple_of(WORD)..)?;
    }
}

/// Speaks for one session.
#[derive(Debug)]
pub(super) struct Mouth {
    socket: Socket,
    to: SockAddr,
}

impl Mouth {
    /// From `local`, or from the address that the route has; from a port that is this session's alone (BFD-05). `seed`
    /// is where the search for one begins.
    pub(super) fn open(
        peer: IpAddr,
        scope: u32,
        local: Option<IpAddr>,
        multihop: bool,
        seed: u32,
    ) -> io::Result<Self> {
        let v6 = peer.is_ipv6();
        let socket = datagram(v6)?;
        if v6 {
            socket.set_unicast_hops_v6(TTL)?;
            let _ = socket.set_tclass_v6(CLASS);
        } else {
            socket.set_ttl_v4(TTL)?;
            let _ = socket.set_tos_v4(CLASS);
        }
        let ports = u32::from(u16::MAX - FIRST_PORT) + 1;
        let mut taken = None;
        for n in 0..ports {
            let port = FIRST_PORT + ((seed.wrapping_add(n)) % ports) as u16;
            let from = match local {
                Some(IpAddr::V6(a)) => SocketAddrV6::new(a, port, 0, scope).into(),
                Some(a) => SocketAddr::new(a, port),
                None => any(v6, port),
            };
            match socket.bind(&from.into()) {
                Ok(()) => {
                    let port = if multihop { MULTIHOP_PORT } else { SINGLE_HOP_PORT };
                    let to = match peer {
                        IpAddr::V6(a) => SocketAddrV6::new(a, port, 0, scope).into(),
                        IpAddr::V4(a) => SocketAddr::new(a.into(), port),
                    };
                    return Ok(Self { socket, to: to.into() });
                }
                Err(e) if e.kind() == io::ErrorKind::AddrInUse => taken = Some(e),
                Err(e) => return Err(e),
            }
        }
        Err(taken.unwrap_or_else(|| io::ErrorKind::AddrInUse.into()))
    }

    /// Sends a packet; never waits.
    pub(super) fn send(&self, octets: &[u8]) -> io::Result<()> {
        self.socket.send_to(octets, &self.to).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(level: i32, kind: i32, data: &[u8]) -> Vec<u8> {
        let mut m = (size_of::<libc::cmsghdr>() + data.len()).to_ne_bytes().to_vec();
        m.extend(level.to_ne_bytes());
        m.extend(kind.to_ne_bytes());
        m.extend(data);
        m.resize(m.len().next_multiple_of(8), 0);
        m
    }

    #[test]
    fn the_ttl_is_found_among_control_messages_and_nothing_else_is_taken_for_it() {
        let other = message(libc::IPPROTO_IP, libc::IP_PKTINFO, &[7; 12]);
        let ttl = message(libc::IPPROTO_IP, libc::IP_TTL, &255i32.to_ne_bytes());
        assert_eq!(ttl_of(&[other.clone(), ttl.clone()].concat(), false), Some(255));
        assert_eq!(ttl_of(&ttl, true), None);
        let hops = message(libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT, &64i32.to_ne_bytes());
        assert_eq!(ttl_of(&hops, true), Some(64));
        assert_eq!(ttl_of(&other, false), None);
        assert_eq!(ttl_of(&[], false), None);
        for cut in 0..ttl.len() - 4 {
            assert_eq!(ttl_of(&ttl[..cut], false), None, "{cut}");
        }
        // A length of zero does not go round in circles.
        assert_eq!(ttl_of(&[0; 64], false), None);
    }

    #[test]
    fn two_sessions_speak_from_two_ports_of_the_range() {
        let open = || Mouth::open([127, 0, 0, 1].into(), 0, Some([127, 0, 0, 1].into()), false, 77);
        let both = [open().expect("a port"), open().expect("another")];
        let ports = both.map(|m| m.socket.local_addr().ok().and_then(|a| a.as_socket()).map(|a| a.port()));
        assert!(ports.iter().all(|p| p.is_some_and(|p| p >= FIRST_PORT)), "{ports:?}");
        assert_ne!(ports[0], ports[1]);
    }
}
