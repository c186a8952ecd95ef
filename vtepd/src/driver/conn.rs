//! One established TCP connection: what waits to be sent, and what the node may add to it.

use bytes::Bytes;
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::task::{Context, Poll, ready};
use tokio::net::TcpStream;

/// Unsent octets that the node may have handed over at any time (design section 3, "credit, not push").
pub const CREDIT: usize = evpn::node::SEND_PATH;
/// KEEPALIVE and NOTIFICATION go beyond the credit; a node that goes further than this has a fault.
const HARD_LIMIT: usize = CREDIT + (16 << 10);
/// Buffers of one `writev`.
const SLICES: usize = 64;

/// See the module.
#[derive(Debug)]
pub struct Conn {
    stream: TcpStream,
    out: VecDeque<Bytes>,
    unsent: usize,
    /// What the node believes to be free.
    told: usize,
    /// Writing failed. What the peer said before that is still read, it may be a NOTIFICATION.
    broken: Option<io::Error>,
}

impl Conn {
    /// Over a stream whose options are set.
    pub fn new(stream: TcpStream) -> Self {
        Self { stream, out: VecDeque::new(), unsent: 0, told: 0, broken: None }
    }

    /// Nothing waits to be sent.
    pub fn flushed(&self) -> bool {
        self.unsent == 0
    }

    /// Octets that wait to be sent.
    pub fn unsent(&self) -> usize {
        self.unsent
    }

    /// Takes octets over and sends what the kernel takes at once.
    pub fn send(&mut self, bytes: Bytes) {
        self.told = self.told.saturating_sub(bytes.len());
        if self.broken.is_some() || bytes.is_empty() {
            return;
        }
        self.unsent += bytes.len();
        self.out.push_back(bytes);
        if self.unsent > HARD_LIMIT {
            self.fail(io::Error::other("more was to be sent than the credit allows"));
        }
    }

    /// Writes what the kernel takes, without waiting. Called once after the sends of a turn, so that they share
    /// a segment.
    pub fn write_now(&mut self) {
        while self.unsent > 0 {
            let mut slices = [IoSlice::new(&[]); SLICES];
            let mut n = 0;
            for (slot, bytes) in slices.iter_mut().zip(&self.out) {
                *slot = IoSlice::new(bytes);
                n += 1;
            }
            match self.stream.try_write_vectored(&slices[..n]) {
                Ok(0) => return self.fail(io::ErrorKind::WriteZero.into()),
                Ok(written) => self.advance(written),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return self.fail(e),
            }
        }
    }

    fn fail(&mut self, e: io::Error) {
        self.out.clear();
        self.unsent = 0;
        self.broken = Some(e);
    }

    fn advance(&mut self, mut written: usize) {
        self.unsent -= written;
        while written > 0 {
            let Some(front) = self.out.front_mut() else { return };
            if written < front.len() {
                bytes::Buf::advance(front, written);
                return;
            }
            written -= front.len();
            self.out.pop_front();
        }
    }

    /// Goes on writing when the kernel has room. `Ready` when something was written or failed.
    pub fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.unsent == 0 {
            return Poll::Pending;
        }
        let before = self.unsent;
        loop {
            if let Err(e) = ready!(self.stream.poll_write_ready(cx)) {
                self.fail(e);
                return Poll::Ready(());
            }
            self.write_now();
            if self.unsent < before {
                return Poll::Ready(());
            }
        }
    }

    /// Reads what is there: `Ok(0)` is the end. `Pending` when nothing waits.
    pub fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        loop {
            match self.stream.poll_read_ready(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(e)) => return Poll::Ready(Err(e)),
                Poll::Pending => {
                    return match self.broken.take() {
                        Some(e) => Poll::Ready(Err(e)),
                        None => Poll::Pending,
                    };
                }
            }
            match self.stream.try_read(buf) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                done => return Poll::Ready(done),
            }
        }
    }

    /// Free space to tell the node about; `None` when it knows.
    pub fn news_of_room(&mut self) -> Option<usize> {
        let free = CREDIT.saturating_sub(self.unsent);
        if self.broken.is_some() || free <= self.told {
            return None;
        }
        self.told = free;
        Some(free)
    }

    /// Sends FIN; reading goes on.
    pub fn shutdown_write(&self) -> io::Result<()> {
        socket2::SockRef::from(&self.stream).shutdown(std::net::Shutdown::Write)
    }

    /// Whether writing failed.
    pub fn is_broken(&self) -> bool {
        self.broken.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use tokio::io::AsyncReadExt as _;
    use tokio::net::TcpListener;

    async fn both() -> (Conn, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let to = listener.local_addr().expect("address");
        let (there, here) = tokio::join!(listener.accept(), TcpStream::connect(to));
        (Conn::new(here.expect("connected")), there.expect("accepted").0)
    }

    #[tokio::test]
    async fn room_is_told_once_and_again_after_sends_have_left() {
        let (mut conn, mut peer) = both().await;
        assert_eq!(conn.news_of_room(), Some(CREDIT));
        assert_eq!(conn.news_of_room(), None);
        conn.send(Bytes::from_static(b"hello"));
        assert_eq!(conn.news_of_room(), None, "the octets are still unsent");
        poll_fn(|cx| conn.poll_write(cx)).await;
        assert_eq!(conn.news_of_room(), Some(CREDIT));
        let mut buf = [0; 5];
        peer.read_exact(&mut buf).await.expect("received");
        assert_eq!(&buf, b"hello");
    }

    #[tokio::test]
    async fn a_peer_that_does_not_read_leaves_no_room_and_nothing_is_lost_or_reordered() {
        let (mut conn, mut peer) = both().await;
        super::super::sockopt::prepare(&conn.stream).expect("options");
        let mut sent = Vec::new();
        let mut n = 0u32;
        let mut rounds_without_room = 0;
        conn.news_of_room();
        while rounds_without_room < 50 {
            while conn.told >= 4096 {
                let chunk: Vec<u8> = (0..1024).flat_map(|i| (n + i).to_be_bytes()).collect();
                n += 1024;
                sent.extend_from_slice(&chunk);
                conn.send(chunk.into());
            }
            conn.write_now();
            assert!(conn.unsent() <= CREDIT, "{}", conn.unsent());
            if conn.news_of_room().is_none() {
                rounds_without_room += 1;
                tokio::task::yield_now().await;
            }
        }
        let reader = tokio::spawn(async move {
            let mut got = vec![0; sent.len()];
            peer.read_exact(&mut got).await.expect("everything");
            (got == sent, peer)
        });
        while !conn.flushed() {
            poll_fn(|cx| conn.poll_write(cx)).await;
        }
        assert!(reader.await.expect("reader").0);
    }

    #[tokio::test]
    async fn what_a_peer_said_before_it_closed_is_read_even_when_writing_fails() {
        let (mut conn, mut peer) = both().await;
        tokio::io::AsyncWriteExt::write_all(&mut peer, b"last words").await.expect("written");
        drop(peer);
        let mut buf = [0; 64];
        // Writing may or may not have noticed yet; the words come first in any case.
        conn.send(Bytes::from_static(b"x"));
        conn.write_now();
        let n = poll_fn(|cx| conn.poll_read(cx, &mut buf)).await.expect("read");
        assert_eq!(&buf[..n], b"last words");
        let end = poll_fn(|cx| conn.poll_read(cx, &mut buf)).await;
        assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
    }
}
