//! Socket options of BGP connections.

use evpn::node::Hops;
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

/// TTL or hop limit: what is sent (BGP-SEC-02), and the least that is accepted (BGP-SEC-01).
pub(super) fn set_hops(socket: &impl AsFd, peer: IpAddr, hops: Hops) -> io::Result<()> {
    let s = SockRef::from(socket);
    match (peer, hops.ttl) {
        (_, None) => {}
        (IpAddr::V4(_), Some(ttl)) => s.set_ttl_v4(u32::from(ttl))?,
        (IpAddr::V6(_), Some(ttl)) => s.set_unicast_hops_v6(u32::from(ttl))?,
    }
    hops.least.map_or(Ok(()), |least| netlink::linux::set_least_ttl(socket, peer, least))
}
