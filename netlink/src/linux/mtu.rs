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

/// Octets of the largest probe: what jumbo frames carry.
const LARGEST_PROBE: u32 = 9216;

/// Sends one packet of `size` octets (its IP header counted) with DF to the VXLAN port of `vtep`. A hop that
/// cannot carry it says so, and from then on [`underlay_mtu`] knows. The VTEP drops it: it has no valid VXLAN
/// header (RFC 7348 §5). Sizes that the own device cannot carry are refused with `EMSGSIZE`.
pub fn probe(source: IpAddr, vtep: IpAddr, port: u16, size: u32) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    let socket = std::net::UdpSocket::bind((source, 0))?;
    let (level, name, value, headers) = match vtep {
        IpAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_PROBE, 28),
        IpAddr::V6(_) => (libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_PROBE, 48),
    };
    // SAFETY: the descriptor is open, and the kernel reads the `c_int` that `value` is.
    #[allow(unsafe_code)]
    let rc = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if rc != 0 {
        return Err(io::Error::last_os_error());
    }
    let payload = vec![0; size.min(LARGEST_PROBE).saturating_sub(headers) as usize];
    socket.send_to(&payload, (vtep, port)).map(drop)
}
