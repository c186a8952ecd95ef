//! Netlink by hand where it is hot: messages into one buffer, attributes out of a slice, many datagrams per
//! system call.

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use std::io;
use std::os::fd::{AsRawFd, RawFd};

pub(super) const NLMSG_HDR: usize = 16;
pub(super) const NLM_F_REQUEST: u16 = 1;
pub(super) const NLM_F_ACK: u16 = 4;
pub(super) const NLM_F_DUMP_INTR: u16 = 0x10;
pub(super) const NLM_F_ACK_TLVS: u16 = 0x200;
pub(super) const NLM_F_REPLACE: u16 = 0x100;
pub(super) const NLM_F_CREATE: u16 = 0x400;
pub(super) const NLM_F_APPEND: u16 = 0x800;
pub(super) const NLM_F_DUMP: u16 = 0x300;
pub(super) const NLMSG_ERROR: u16 = 2;
pub(super) const NLMSG_DONE: u16 = 3;
const NLA_TYPE: u16 = 0x3fff;

/// Writes messages one after the other.
#[derive(Debug, Default)]
pub(super) struct Out {
    pub(super) v: Vec<u8>,
    start: usize,
}

impl Out {
    pub(super) fn clear(&mut self) {
        self.v.clear();
    }
    pub(super) fn begin(&mut self, kind: u16, flags: u16, seq: u32) {
        self.start = self.v.len();
        let [k0, k1] = kind.to_ne_bytes();
        let [f0, f1] = flags.to_ne_bytes();
        let [s0, s1, s2, s3] = seq.to_ne_bytes();
        self.v.extend([0, 0, 0, 0, k0, k1, f0, f1, s0, s1, s2, s3, 0, 0, 0, 0]);
    }
    pub(super) fn bytes(&mut self, b: &[u8]) {
        self.v.extend_from_slice(b);
    }
    pub(super) fn attr(&mut self, kind: u16, payload: &[u8]) {
        self.v.extend(((payload.len() + 4) as u16).to_ne_bytes());
        self.v.extend(kind.to_ne_bytes());
        self.v.extend_from_slice(payload);
        while !(self.v.len() - self.start).is_multiple_of(4) {
            self.v.push(0);
        }
    }
    pub(super) fn end(&mut self) {
        let len = ((self.v.len() - self.start) as u32).to_ne_bytes();
        self.v[self.start..self.start + 4].copy_from_slice(&len);
    }
}

/// One message of a datagram.
#[derive(Clone, Copy, Debug)]
pub(super) struct Msg<'a> {
    pub(super) kind: u16,
    pub(super) flags: u16,
    pub(super) seq: u32,
    pub(super) body: &'a [u8],
}

/// The messages of a datagram; stops at the first that does not fit.
pub(super) fn messages(mut b: &[u8]) -> impl Iterator<Item = Msg<'_>> {
    core::iter::from_fn(move || {
        let head = b.get(..NLMSG_HDR)?;
        let len = u32_at(head, 0)? as usize;
        let body = b.get(NLMSG_HDR..len)?;
        let m = Msg { kind: u16_at(head, 4)?, flags: u16_at(head, 6)?, seq: u32_at(head, 8)?, body };
        b = b.get((len + 3) & !3..).unwrap_or(&[]);
        Some(m)
    })
}

/// Attributes as (type without flags, payload); stops at the first that does not fit.
pub(super) fn attrs(mut b: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    core::iter::from_fn(move || {
        let len = u16_at(b, 0)? as usize;
        let kind = u16_at(b, 2)? & NLA_TYPE;
        let body = b.get(4..len)?;
        b = b.get((len + 3) & !3..).unwrap_or(&[]);
        Some((kind, body))
    })
}

pub(super) fn u16_at(b: &[u8], at: usize) -> Option<u16> {
    b.get(at..at + 2).and_then(|b| b.try_into().ok()).map(u16::from_ne_bytes)
}

pub(super) fn u32_at(b: &[u8], at: usize) -> Option<u32> {
    b.get(at..at + 4).and_then(|b| b.try_into().ok()).map(u32::from_ne_bytes)
}

/// The verdict of an `NLMSG_ERROR` or `NLMSG_DONE` body: positive errno, 0 for success.
pub(super) fn verdict(m: &Msg<'_>) -> i32 {
    u32_at(m.body, 0).map_or(libc::EPROTO, |v| v.cast_signed().saturating_neg())
}

/// Text of the extended acknowledgement (`NLMSGERR_ATTR_MSG`).
pub(super) fn ext_ack(m: &Msg<'_>) -> String {
    const ATTR_MSG: u16 = 1;
    if m.flags & NLM_F_ACK_TLVS == 0 {
        return String::new();
    }
    // With NETLINK_CAP_ACK the request's header follows the errno, and nothing of its body.
    let at = if m.kind == NLMSG_ERROR { 4 + NLMSG_HDR } else { 4 };
    let text = attrs(m.body.get(at..).unwrap_or(&[])).find(|(k, _)| *k == ATTR_MSG);
    text.map_or_else(String::new, |(_, t)| {
        String::from_utf8_lossy(t.strip_suffix(&[0]).unwrap_or(t)).into_owned()
    })
}

/// A `NETLINK_ROUTE` socket for requests, with extended acknowledgements and strict checking.
pub(super) fn request_socket() -> io::Result<Socket> {
    let mut s = Socket::new(NETLINK_ROUTE)?;
    s.bind_auto()?;
    s.connect(&SocketAddr::new(0, 0))?;
    s.set_ext_ack(true)?;
    s.set_cap_ack(true)?;
    // Absent on old kernels; everything works without.
    let _ = s.set_netlink_get_strict_chk(true);
    receive_buffer(s.as_raw_fd(), 4 << 20);
    Ok(s)
}

/// As large as asked for if we may (`SO_RCVBUFFORCE`), otherwise as large as the host allows.
pub(super) fn receive_buffer(fd: RawFd, octets: libc::c_int) {
    for name in [libc::SO_RCVBUFFORCE, libc::SO_RCVBUF] {
        let len = size_of::<libc::c_int>() as libc::socklen_t;
        // SAFETY: the kernel reads `len` octets of `octets`, which lives across the call.
        #[allow(unsafe_code)]
        let rc = unsafe { libc::setsockopt(fd, libc::SOL_SOCKET, name, (&raw const octets).cast(), len) };
        if rc == 0 {
            break;
        }
    }
}

/// Buffers for many datagrams per system call.
pub(super) struct Many {
    buf: Vec<u8>,
    each: usize,
    lens: Vec<(usize, bool)>,
    iovs: Vec<libc::iovec>,
    heads: Vec<libc::mmsghdr>,
}

// SAFETY: the raw pointers in `iovs` and `heads` are written anew before each use and never followed between
// uses; all of the memory they point to belongs to the same value.
#[allow(unsafe_code)]
unsafe impl Send for Many {}

impl core::fmt::Debug for Many {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Many").field("each", &self.each).field("n", &self.lens.capacity()).finish()
    }
}

impl Many {
    pub(super) fn new(n: usize, each: usize) -> Self {
        Self {
            buf: vec![0; n * each],
            each,
            lens: Vec::with_capacity(n),
            iovs: Vec::with_capacity(n),
            heads: Vec::with_capacity(n),
        }
    }

    /// Receives between one and `n` datagrams; waits for the first unless `nonblock`.
    pub(super) fn recv(&mut self, fd: RawFd, n: usize, nonblock: bool) -> io::Result<usize> {
        let n = n.min(self.lens.capacity());
        self.lens.clear();
        self.iovs.clear();
        self.heads.clear();
        for chunk in self.buf.chunks_exact_mut(self.each).take(n) {
            self.iovs.push(libc::iovec { iov_base: chunk.as_mut_ptr().cast(), iov_len: chunk.len() });
        }
        for iov in &mut self.iovs {
            // SAFETY: all zero is a valid mmsghdr: null pointers and zero lengths.
            #[allow(unsafe_code)]
            let mut h: libc::mmsghdr = unsafe { core::mem::zeroed() };
            h.msg_hdr.msg_iov = iov;
            h.msg_hdr.msg_iovlen = 1;
            self.heads.push(h);
        }
        let flags = libc::MSG_WAITFORONE | if nonblock { libc::MSG_DONTWAIT } else { 0 };
        // SAFETY: `heads` has `n` entries, each with one iovec into its own part of `buf`; none of the three
        // vectors moves during the call.
        #[allow(unsafe_code)]
        let got = unsafe {
            libc::recvmmsg(fd, self.heads.as_mut_ptr(), n as u32, flags as _, core::ptr::null_mut())
        };
        if got < 0 {
            return Err(io::Error::last_os_error());
        }
        for h in self.heads.iter().take(got as usize) {
            self.lens.push((h.msg_len as usize, h.msg_hdr.msg_flags & libc::MSG_TRUNC != 0));
        }
        Ok(got as usize)
    }

    /// The datagrams of the last [`Many::recv`], and whether each was cut off.
    pub(super) fn datagrams(&self) -> impl Iterator<Item = (&[u8], bool)> {
        self.buf
            .chunks_exact(self.each)
            .zip(&self.lens)
            .map(|(b, (len, cut))| (&b[..(*len).min(b.len())], *cut))
    }
}

/// One request, a dump or one that asks for an acknowledgement, and all of its answers through `each`.
/// `Ok(true)`: an answer carried `NLM_F_DUMP_INTR`.
pub(super) fn ask(
    socket: &Socket,
    request: &[u8],
    seq: u32,
    many: &mut Many,
    mut each: impl FnMut(&Msg<'_>),
) -> Result<bool, crate::op::OpError> {
    let failed = |e: io::Error| crate::op::OpError {
        errno: e.raw_os_error().unwrap_or(libc::EIO),
        text: String::new(),
    };
    socket.send(request, 0).map_err(failed)?;
    let mut interrupted = false;
    loop {
        match many.recv(socket.as_raw_fd(), usize::MAX, false) {
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(failed(e)),
        }
        for (datagram, cut) in many.datagrams() {
            if cut {
                return Err(crate::op::OpError::from_errno(libc::EMSGSIZE));
            }
            for m in messages(datagram).filter(|m| m.seq == seq) {
                interrupted |= m.flags & NLM_F_DUMP_INTR != 0;
                match m.kind {
                    NLMSG_ERROR | NLMSG_DONE => {
                        return match verdict(&m) {
                            0 => Ok(interrupted),
                            errno => Err(crate::op::OpError { errno, text: ext_ack(&m) }),
                        };
                    }
                    _ => each(&m),
                }
            }
        }
    }
}
