//! Hold ports: a tap of our own in a bridge, to which the row of a guest points that stands still (PIT-26).
//!
//! It is not persistent: a daemon that dies leaves nothing. Nothing is flooded to it and nothing is learned from it; its
//! MAC and its MTU are such that the bridge follows neither (PIT-01); the host has no address on it (PIT-02).

use super::links::{hush, index, plain, with_handle};
use super::taps::Tap;
use evpn::types::{IfIndex, Vni};
use rtnetlink::{Handle, LinkBridgePort, LinkUnspec};
use std::io;
use std::os::fd::{AsFd as _, AsRawFd, OwnedFd, RawFd};

/// A hold port to be made.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HoldWant {
    /// VNI.
    pub vni: Vni,
    /// The bridge.
    pub bridge: IfIndex,
    /// Name of the device, at most 15 octets.
    pub name: String,
    /// Frames that wait in the kernel until they are read.
    pub queue: u32,
}

/// Largest frame of a tap.
pub const LONGEST_FRAME: usize = 65_535;
/// As large as a tap can have it: the bridge's follows the smallest of its ports.
const MTU: u32 = 65_521;

/// See the module. The device goes when this is dropped.
#[derive(Debug)]
pub struct HoldPort {
    tap: OwnedFd,
    port: IfIndex,
    bridge: IfIndex,
}

impl HoldPort {
    /// Makes it, in the network namespace of the calling thread. Blocks. Needs `CAP_NET_ADMIN` and `/dev/net/tun`.
    pub fn make(want: &HoldWant) -> io::Result<Self> {
        let tap = open(&want.name)?;
        let port = with_handle(async |handle| {
            let port = IfIndex(index(&handle, &want.name).await?);
            set_up(&handle, want, port).await?;
            Ok(port)
        })?;
        Ok(Self { tap, port, bridge: want.bridge })
    }

    /// Its index.
    pub fn port(&self) -> IfIndex {
        self.port
    }
    /// The bridge that it was made in.
    pub fn bridge(&self) -> IfIndex {
        self.bridge
    }

    /// The next frame that the bridge has sent to it, from the destination MAC on; `None` when nothing waits. Never blocks.
    pub fn recv(&self, buf: &mut [u8]) -> io::Result<Option<usize>> {
        match rustix::io::read(self.tap.as_fd(), buf) {
            Ok(n) => Ok(Some(n)),
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    /// Puts a frame into the bridge, which sends it where its row says.
    pub fn give_back(&self, frame: &[u8]) -> io::Result<()> {
        rustix::io::write(self.tap.as_fd(), frame)?;
        Ok(())
    }

    /// A way out of a VXLAN device by its own rows, past those of the bridge.
    pub fn way_out(vxlan: IfIndex) -> io::Result<Tap> {
        Tap::deaf(vxlan)
    }
}

impl AsRawFd for HoldPort {
    fn as_raw_fd(&self) -> RawFd {
        self.tap.as_raw_fd()
    }
}

fn open(name: &str) -> io::Result<OwnedFd> {
    use rustix::fs::{Mode, OFlags};
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let tap = rustix::fs::open("/dev/net/tun", flags, Mode::empty())?;
    // SAFETY: all zero is a valid ifreq.
    #[allow(unsafe_code)]
    let mut request: libc::ifreq = unsafe { core::mem::zeroed() };
    if name.len() >= request.ifr_name.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from.cast_signed();
    }
    // One that is there already is not ours: a second queue of it would get part of the frames.
    request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_TUN_EXCL) as libc::c_short;
    // SAFETY: the kernel reads and writes one ifreq, which lives across the call.
    #[allow(unsafe_code)]
    let rc = unsafe { libc::ioctl(tap.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
    if rc == 0 { Ok(tap) } else { Err(io::Error::last_os_error()) }
}

async fn set_up(handle: &Handle, want: &HoldWant, port: IfIndex) -> io::Result<()> {
    hush(&want.name)?;
    let [a, b, c, d] = port.0.to_be_bytes();
    // Above any MAC that a bridge would take for its own.
    let mac = vec![0xfe, 0xff, a, b, c, d];
    let msg = LinkUnspec::new_with_index(port.0).address(mac).mtu(MTU).txqueuelen(want.queue).build();
    handle.link().set(msg).execute().await.map_err(plain)?;
    let msg = LinkUnspec::new_with_index(port.0).controller(want.bridge.0).build();
    handle.link().set(msg).execute().await.map_err(plain)?;
    // Before it is up: nothing but what a row sends there may come. A question that comes back may be answered into it
    // by the bridge, which does no harm: the answer is not for a MAC that is held.
    let msg = LinkBridgePort::new(port.0)
        .learning(false)
        .flood(false)
        .mcast_flood(false)
        .bcast_flood(false)
        .hairpin(false)
        .neigh_suppress(false)
        .build();
    handle.link().set_port(msg).execute().await.map_err(plain)?;
    let msg = LinkUnspec::new_with_index(port.0).up().build();
    handle.link().set(msg).execute().await.map_err(plain)
}
