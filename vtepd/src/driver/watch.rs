//! Readiness of descriptors.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};
use std::task::{Context, Poll};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Registers an owned descriptor with the runtime.
pub(crate) fn register(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` is open and stays the same descriptor until it is dropped, which `AsyncFd` does after
    // it has taken it out of the reactor.
    #[allow(unsafe_code)]
    let registered = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) };
    registered.map_err(Into::into)
}

/// Tells when a descriptor that somebody else owns and reads has something to read.
#[derive(Debug)]
pub(super) struct Watch {
    fd: AsyncFd<OwnedFd>,
}

impl Watch {
    /// Watches a duplicate of `fd`, so that neither side depends on the other's end.
    pub(super) fn new(fd: RawFd) -> io::Result<Self> {
        if fd < 0 {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        // SAFETY: the caller holds the owner of `fd` while it calls; it is not used after this line.
        #[allow(unsafe_code)]
        let fd = unsafe { BorrowedFd::borrow_raw(fd) }.try_clone_to_owned()?;
        Ok(Self { fd: register(fd)? })
    }

    /// Whether there may be something to read; if not, the task is woken when there is.
    pub(super) fn is_ready(&self, cx: &mut Context<'_>) -> bool {
        match self.fd.poll_read_ready(cx) {
            Poll::Ready(Ok(mut guard)) => {
                guard.retain_ready();
                true
            }
            // Only while the runtime shuts down.
            Poll::Ready(Err(_)) | Poll::Pending => false,
        }
    }

    /// A read just said that nothing is left. Returns whether that is still so: if not, read again.
    pub(super) fn drained(&self, cx: &mut Context<'_>) -> bool {
        match self.fd.poll_read_ready(cx) {
            Poll::Ready(Ok(mut guard)) => guard.clear_ready(),
            Poll::Ready(Err(_)) | Poll::Pending => return true,
        }
        !self.is_ready(cx)
    }
}
