//! Options of TCP sockets that no crate has: the least TTL of what comes in, and signatures.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd as _};

/// `IPV6_MINHOPCOUNT` of linux/in6.h; libc has it not.
const IPV6_MINHOPCOUNT: libc::c_int = 73;

/// Segments of this connection with a lower TTL (IPv6: hop limit) are dropped by the kernel (RFC 5082 §3).
pub fn set_least_ttl(socket: &impl AsFd, peer: IpAddr, least: u8) -> io::Result<()> {
    let (level, name) = match peer {
        IpAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_MINTTL),
        IpAddr::V6(_) => (libc::IPPROTO_IPV6, IPV6_MINHOPCOUNT),
    };
    set(socket, level, name, &libc::c_int::from(least).to_ne_bytes())
}

/// Octets of a TCP MD5 key at most (BGP-SEC-03).
pub const MD5_KEY_MAX: usize = 80;

/// `struct sockaddr_storage`.
const SOCKADDR: usize = 128;
/// `TCP_MD5SIG_EXT` and `TCP_MD5SIG_FLAG_PREFIX` of linux/tcp.h.
const TCP_MD5SIG_EXT: libc::c_int = 32;
const MD5_FLAG_PREFIX: u8 = 1;

/// Segments of connections with this address, or with any of this prefix, are signed with this key (RFC 2385), and
/// those that are not, or wrongly, are dropped by the kernel. On a listening socket and before connecting alike; what
/// is accepted has the listening socket's keys.
///
/// # Errors
/// `ENOPROTOOPT`: the kernel was built without it. `ENOMEM`: more keys than `net.core.optmem_max` has room for.
/// `EINVAL`: no key of 1 to [`MD5_KEY_MAX`] octets.
pub fn set_md5_key(socket: &impl AsFd, peer: IpAddr, bits: Option<u8>, key: &[u8]) -> io::Result<()> {
    if key.is_empty() || key.len() > MD5_KEY_MAX {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // struct tcp_md5sig: address, flags, prefix length, key length, interface, key.
    let mut v = sockaddr(peer).to_vec();
    v.extend([bits.map_or(0, |_| MD5_FLAG_PREFIX), bits.unwrap_or(0)]);
    v.extend((key.len() as u16).to_ne_bytes());
    v.extend([0; 4]);
    v.extend(key);
    v.resize(SOCKADDR + 8 + MD5_KEY_MAX, 0);
    set(socket, libc::IPPROTO_TCP, TCP_MD5SIG_EXT, &v)
}

/// An address as `struct sockaddr_storage`, port 0.
fn sockaddr(ip: IpAddr) -> [u8; SOCKADDR] {
    let mut out = [0; SOCKADDR];
    match ip {
        IpAddr::V4(a) => {
            out[..2].copy_from_slice(&(libc::AF_INET as u16).to_ne_bytes());
            out[4..8].copy_from_slice(&a.octets());
        }
        IpAddr::V6(a) => {
            out[..2].copy_from_slice(&(libc::AF_INET6 as u16).to_ne_bytes());
            out[8..24].copy_from_slice(&a.octets());
        }
    }
    out
}

/// Sets an option whose value is these octets.
fn set(socket: &impl AsFd, level: libc::c_int, name: libc::c_int, value: &[u8]) -> io::Result<()> {
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: the descriptor is open while it is borrowed, and the kernel reads `value.len()` octets of `value`,
    // at any alignment.
    #[allow(unsafe_code)]
    let rc =
        unsafe { libc::setsockopt(fd, level, name, value.as_ptr().cast(), value.len() as libc::socklen_t) };
    if rc == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
