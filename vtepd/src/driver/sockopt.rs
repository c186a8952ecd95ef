//! Socket options of BGP connections.

use socket2::SockRef;
use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd;

/// Octets that the kernel may hold unsent below us. Together with the node's credit this keeps what waits in
/// the form of wishes, not of bytes, so that a move overtakes a full table.
const UNSENT_IN_KERNEL: u32 = 64 << 10;

/// For every BGP connection: no Nagle delay (a move is one small segment), little unsent data in the kernel.
pub(super) fn prepare(socket: &impl AsFd) -> io::Result<()> {
    let s = SockRef::from(socket);
    s.set_tcp_nodelay(true)?;
    s.set_tcp_notsent_lowat(UNSENT_IN_KERNEL)
}

/// TTL or hop limit (BGP-SEC-02).
pub(super) fn set_ttl(socket: &impl AsFd, peer: IpAddr, ttl: u8) -> io::Result<()> {
    let s = SockRef::from(socket);
    match peer {
        IpAddr::V4(_) => s.set_ttl_v4(u32::from(ttl)),
        IpAddr::V6(_) => s.set_unicast_hops_v6(u32::from(ttl)),
    }
}
