//! The two tc requests that a move consists of, written to a netlink socket directly: starting `tc` takes longer than
//! the move may.
//!
//! The filters are the same that [`crate::switchboard`] sets up through `tc`: `u32` with one key that matches
//! everything, and the action `mirred egress redirect`.

use crate::error::{Error, Result};
use crate::netns;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with, sockopt,
};
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

const RTM_NEWTFILTER: u16 = 44;
const RTM_DELTFILTER: u16 = 45;
const NLMSG_ERROR: u16 = 2;
/// REQUEST, ACK, CREATE: without EXCL an existing filter is replaced, in one step.
const WRITE: u16 = 0x405;
/// REQUEST, ACK.
const DELETE: u16 = 0x5;
/// Ingress of `clsact`.
const PARENT: u32 = 0xffff_fff2;
/// `handle 800::800`.
const HANDLE: u32 = 0x8000_0800;
/// Priority 1, all protocols (ETH_P_ALL in network order).
const INFO: u32 = 1 << 16 | (0x0003u16.to_be() as u32);

/// A socket in the switchboard's namespace.
#[derive(Debug)]
pub(crate) struct Patch {
    fd: OwnedFd,
    sequence: u32,
}

impl Patch {
    /// Opens it.
    pub(crate) fn open(namespace: &str) -> Result<Self> {
        let what = "tc socket";
        let fd = netns::inside(namespace, || {
            // Protocol 0 is NETLINK_ROUTE.
            let fd = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)
                .map_err(Error::errno(what))?;
            let peer = netlink::SocketAddrNetlink::new(0, 0);
            rustix::net::connect(&fd, &peer).map_err(Error::errno(what))?;
            let timeout = Some(Duration::from_secs(5));
            sockopt::set_socket_timeout(&fd, sockopt::Timeout::Recv, timeout).map_err(Error::errno(what))?;
            Ok(fd)
        })?;
        Ok(Self { fd, sequence: 0 })
    }

    /// What arrives at interface `from` leaves at interface `to`, from now on.
    pub(crate) fn redirect(&mut self, from: u32, to: u32) -> Result<()> {
        self.request(RTM_NEWTFILTER, WRITE, from, &options(to))
    }

    /// What arrives at interface `from` goes nowhere.
    pub(crate) fn cut(&mut self, from: u32) -> Result<()> {
        self.request(RTM_DELTFILTER, DELETE, from, &[])
    }

    fn request(&mut self, kind: u16, flags: u16, interface: u32, options: &[u8]) -> Result<()> {
        self.sequence += 1;
        let mut body = vec![0; 4];
        for word in [interface, HANDLE, PARENT, INFO] {
            body.extend(word.to_ne_bytes());
        }
        body.extend(attribute(1, b"u32\0"));
        if !options.is_empty() {
            body.extend(attribute(2, options));
        }
        let mut message = ((body.len() + 16) as u32).to_ne_bytes().to_vec();
        message.extend(kind.to_ne_bytes());
        message.extend(flags.to_ne_bytes());
        message.extend(self.sequence.to_ne_bytes());
        message.extend([0; 4]);
        message.extend(body);
        let failed = "patching the VM";
        send(&self.fd, &message, SendFlags::empty()).map_err(Error::errno(failed))?;
        let mut answer = [0; 1024];
        let (n, _) = recv(&self.fd, &mut answer[..], RecvFlags::empty()).map_err(Error::errno(failed))?;
        // The answer is a header of 16 octets and an error number, negative or 0.
        let number = answer[..n.min(20)].get(16..20).and_then(|b| b.try_into().ok()).map(i32::from_ne_bytes);
        let kind = u16::from_ne_bytes([answer[4], answer[5]]);
        match number {
            Some(0) if kind == NLMSG_ERROR => Ok(()),
            Some(e) if kind == NLMSG_ERROR => Err(Error::io(failed)(io::Error::from_raw_os_error(-e))),
            _ => Err(Error::refused(format!("{failed}: an answer of type {kind}"))),
        }
    }
}

/// `struct rtattr` and its value, padded.
fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut b = ((value.len() + 4) as u16).to_ne_bytes().to_vec();
    b.extend(kind.to_ne_bytes());
    b.extend(value);
    b.resize(b.len().next_multiple_of(4), 0);
    b
}

/// `u32 match u32 0 0 action mirred egress redirect dev TO`.
fn options(to: u32) -> Vec<u8> {
    // struct tc_u32_sel: terminal, one key; the key's mask and value are zero.
    let mut selector = [0; 32];
    selector[0] = 1;
    selector[2] = 1;
    // struct tc_mirred: index, capabilities, TC_ACT_STOLEN, counts; TCA_EGRESS_REDIR, interface.
    let mirred: Vec<u8> = [0, 0, 4, 0, 0, 1, to].iter().flat_map(|w: &u32| w.to_ne_bytes()).collect();
    let action = [attribute(1, b"mirred\0"), attribute(2, &attribute(2, &mirred))].concat();
    [attribute(5, &selector), attribute(7, &attribute(1, &action))].concat()
}
