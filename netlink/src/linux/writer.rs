//! Writes rows: several requests per send, one acknowledgement for all of them, on a socket of its own.

use super::codec::put_op;
use super::nl::{Many, NLMSG_ERROR, Out, ext_ack, messages, request_socket, verdict};
use crate::op::{Kernel, Op, OpError, OpResult};
use netlink_sys::Socket;
use std::io;
use std::os::fd::AsRawFd;

/// Requests per send. The kernel works synchronously inside `send`, so more of them buy nothing.
const PER_SEND: usize = 64;

/// A synchronous writer. Usable from any thread of the network namespace it was opened in; a row costs about
/// a microsecond of the calling thread, more while somebody else holds the RTNL lock.
#[derive(Debug)]
pub struct Writer {
    socket: Socket,
    out: Out,
    answers: Many,
    seq: u32,
}

impl Writer {
    /// In the network namespace of the calling thread. Writing needs `CAP_NET_ADMIN` there.
    pub fn open() -> io::Result<Self> {
        let socket = request_socket()?;
        Ok(Self { socket, out: Out::default(), answers: Many::new(PER_SEND, 512), seq: 0 })
    }

    /// Only the last request asks for an acknowledgement. The kernel works through them in order and reports
    /// every failure, asked for or not, so all that was not reported when the last answer comes has been done.
    fn send(&mut self, ops: &[Op], results: &mut Vec<OpResult>) -> io::Result<()> {
        let base = results.len();
        let first = self.seq.wrapping_add(1);
        self.out.clear();
        for (i, op) in ops.iter().enumerate() {
            self.seq = self.seq.wrapping_add(1);
            put_op(&mut self.out, op, self.seq, i + 1 == ops.len());
            results.push(Ok(()));
        }
        let last = self.seq;
        self.socket.send(&self.out.v, 0)?;
        let mut answered = ops.is_empty();
        while !answered {
            match self.answers.recv(self.socket.as_raw_fd(), ops.len(), false) {
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(e),
            }
            for (datagram, _) in self.answers.datagrams() {
                for m in messages(datagram).filter(|m| m.kind == NLMSG_ERROR) {
                    let i = m.seq.wrapping_sub(first) as usize;
                    let Some(op) = ops.get(i) else { continue };
                    answered |= m.seq == last;
                    results[base + i] = match verdict(&m) {
                        0 => Ok(()),
                        e if op.tolerates(e) && !matches!(op, Op::DelRemote { .. }) => Ok(()),
                        errno => Err(OpError { errno, text: ext_ack(&m) }),
                    };
                }
            }
        }
        Ok(())
    }
}

impl Kernel for Writer {
    fn apply(&mut self, ops: &[Op], results: &mut Vec<OpResult>) {
        let mut again: Vec<(usize, Op)> = Vec::new();
        for chunk in ops.chunks(PER_SEND) {
            let base = results.len();
            if let Err(e) = self.send(chunk, results) {
                results.truncate(base);
                let errno = e.raw_os_error().unwrap_or(libc::EIO);
                results.extend(chunk.iter().map(|_| Err(OpError::from_errno(errno))));
                // Answers to requests that did get through would be taken for those of later ones.
                if let Ok(s) = request_socket() {
                    self.socket = s;
                }
                continue;
            }
            for (i, op) in chunk.iter().enumerate() {
                // The bridge row is not there or not on this port (a guest took it); the kernel stopped at
                // that, and the `self` row is still to go.
                if let Op::DelRemote { vxlan, mac, vtep } = *op
                    && results[base + i].as_ref().is_err_and(|e| op.tolerates(e.errno))
                {
                    again.push((base + i, Op::DelSelf { vxlan, mac, vtep }));
                }
            }
        }
        for chunk in again.chunks(PER_SEND) {
            let ops: Vec<Op> = chunk.iter().map(|(_, op)| *op).collect();
            let mut res = Vec::with_capacity(ops.len());
            if self.send(&ops, &mut res).is_err() {
                continue;
            }
            for ((at, _), r) in chunk.iter().zip(res) {
                results[*at] = r;
            }
        }
    }
}
