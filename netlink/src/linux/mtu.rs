//! Whether the underlay carries what a VNI may send (PIT-11).

use std::io;
use std::net::IpAddr;

/// Octets that VXLAN adds to an inner packet: inner Ethernet 14, VXLAN 8, UDP 8, and the outer IP header.
pub const fn overhead(vtep: IpAddr) -> u32 {
    match vtep {
        IpAddr::V4(_) => 50,
        IpAddr::V6(_) => 70,
    }
}

/// The path MTU to `vtep` as the kernel knows it now (route, device, and what it has learned from ICMP).
/// `source` is our VTEP address.
pub fn underlay_mtu(source: IpAddr, vtep: IpAddr) -> io::Result<u32> {
    use std::os::fd::AsRawFd;
    let socket = std::net::UdpSocket::bind((source, 0))?;
    // Any port: nothing is sent.
    socket.connect((vtep, 4789))?;
    let (level, name) = match vtep {
        IpAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_MTU),
        IpAddr::V6(_) => (libc::IPPROTO_IPV6, libc::IPV6_MTU),
    };
    let mut mtu: libc::c_int = 0;
    let mut len = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the descriptor is open, and the kernel writes at most `len` octets to `mtu`.
    #[allow(unsafe_code)]
    let rc =
        unsafe { libc::getsockopt(socket.as_raw_fd(), level, name, (&raw mut mtu).cast(), &raw mut len) };
    if rc == 0 { Ok(mtu.max(0) as u32) } else { Err(io::Error::last_os_error()) }
}
