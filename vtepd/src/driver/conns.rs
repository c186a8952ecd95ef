//! All TCP connections: listening, dialling, open, closing.

use super::admission::Admission;
use super::conn::Conn;
use super::{clock, sockopt};
use crate::config::keys::Keys;
use bytes::Bytes;
use evpn::node::{Config, ConnEvent, Hops};
use evpn::types::{ConnId, Span, Time};
use socket2::{Domain, Protocol, Socket, Type};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

/// Connections accepted at a time. One per configured neighbour is normal; the node closes those of strangers.
const MAX_ACCEPTED: usize = 1024;
/// Accepts per turn.
const ACCEPT_BUDGET: usize = 16;
/// Octets read from one connection per turn; also the size of one `ConnEvent::Bytes`.
const READ_BUDGET: usize = 64 << 10;
/// After an accept that failed for want of descriptors or memory: trying at once again would only burn time.
const ACCEPT_PAUSE: Span = Span::millis(200);
/// Reads of a closing connection per turn.
const CLOSING_READS: usize = 2;
/// How long a closing connection may take to get rid of its last words (BGP-NOTIF-03).
const CLOSE_LIMIT: Span = Span::secs(1);

/// Why there is no listening socket.
#[derive(Debug)]
pub enum ListenFault {
    /// It cannot be had.
    Socket(io::Error),
    /// The kernel does not take a neighbour's key.
    Key {
        /// The neighbour.
        peer: IpAddr,
        /// Why.
        why: io::Error,
    },
}

impl From<io::Error> for ListenFault {
    fn from(e: io::Error) -> Self {
        Self::Socket(e)
    }
}

type Dialling = Pin<Box<dyn Future<Output = io::Result<TcpStream>> + Send>>;

/// A connection that the node is done with: what it was given is written, then FIN, then the peer's FIN is
/// awaited, so that no RST discards a NOTIFICATION on its way.
struct Closing {
    conn: Conn,
    until: Time,
    fin_sent: bool,
}

/// See the module.
pub struct Conns {
    listeners: Vec<TcpListener>,
    open: BTreeMap<ConnId, Conn>,
    dialling: BTreeMap<ConnId, (SocketAddr, Dialling)>,
    closing: Vec<Closing>,
    /// Connections with new sends since the last [`Conns::write_out`].
    touched: BTreeSet<ConnId>,
    next: u64,
    /// Accepting rests until then.
    accept_at: Option<Time>,
    /// Who may connect.
    admission: Admission,
    /// What signs connections (BGP-SEC-03).
    keys: Keys,
    buf: Box<[u8]>,
}

impl fmt::Debug for Conns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Conns")
            .field("open", &self.open.len())
            .field("dialling", &self.dialling.len())
            .field("closing", &self.closing.len())
            .finish_non_exhaustive()
    }
}

impl Conns {
    /// No connection yet.
    pub fn new(config: &Config, keys: Keys) -> Self {
        Self {
            listeners: Vec::new(),
            open: BTreeMap::new(),
            dialling: BTreeMap::new(),
            closing: Vec::new(),
            touched: BTreeSet::new(),
            next: 1,
            accept_at: None,
            admission: Admission::new(config),
            keys,
            buf: vec![0; READ_BUDGET].into_boxed_slice(),
        }
    }

    /// Listens for peers. An IPv6 socket takes IPv6 only, so that addresses compare as configured; "any IPv6
    /// address" means any IPv4 address too.
    ///
    /// # Errors
    /// The address is in use, is not ours, or may not be bound; or the kernel takes no keys.
    pub fn listen(&mut self, on: SocketAddr) -> Result<(), ListenFault> {
        self.listen_one(on)?;
        if on.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED) {
            self.listen_one(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), on.port()))?;
        }
        Ok(())
    }

    fn listen_one(&mut self, on: SocketAddr) -> Result<(), ListenFault> {
        let socket = Socket::new(Domain::for_address(on), Type::STREAM, Some(Protocol::TCP))?;
        if on.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        // Before anybody can connect.
        for (peers, key) in self.keys.of.iter().filter(|(p, _)| p.ip.is_ipv4() == on.is_ipv4()) {
            netlink::linux::set_md5_key(&socket, peers.ip, peers.bits, key.octets())
                .map_err(|why| ListenFault::Key { peer: peers.ip, why })?;
        }
        socket.bind(&on.into())?;
        socket.listen(128)?;
        self.listeners.push(TcpListener::from_std(socket.into())?);
        Ok(())
    }

    /// Connections from addresses that nobody is expected from.
    pub fn strangers(&self) -> u64 {
        self.admission.strangers
    }

    /// Addresses that are listened on.
    pub fn listening(&self) -> Vec<SocketAddr> {
        self.listeners.iter().filter_map(|l| l.local_addr().ok()).collect()
    }

    /// Begins to connect; `Connected` or `Failed` comes out of [`Conns::poll`].
    pub fn dial(&mut self, conn: ConnId, to: SocketAddr, from: Option<IpAddr>, hops: Hops) {
        let dial: Dialling = match dial_socket(to, from, hops, &self.keys) {
            Ok(socket) => Box::pin(socket.connect(to)),
            Err(e) => Box::pin(std::future::ready(Err(e))),
        };
        self.dialling.insert(conn, (to, dial));
    }

    /// Takes octets for a connection; they leave with [`Conns::write_out`].
    pub fn send(&mut self, conn: ConnId, bytes: Bytes) {
        if let Some(c) = self.open.get_mut(&conn) {
            c.send(bytes);
            self.touched.insert(conn);
        }
    }

    /// Writes what was sent since the last time, without waiting.
    pub fn write_out(&mut self) {
        for id in std::mem::take(&mut self.touched) {
            if let Some(c) = self.open.get_mut(&id) {
                c.write_now();
            }
        }
    }

    /// Closes after everything handed over was written. No event follows.
    pub fn hangup(&mut self, conn: ConnId) {
        self.dialling.remove(&conn);
        if let Some(mut conn) = self.open.remove(&conn) {
            conn.write_now();
            self.closing.push(Closing { conn, until: clock::now() + CLOSE_LIMIT, fin_sent: false });
        }
    }

    /// What the node should know about free space, for connections where that is news.
    pub fn news_of_room(&mut self, out: &mut Vec<(ConnId, ConnEvent)>) {
        for (id, c) in &mut self.open {
            out.extend(c.news_of_room().map(|n| (*id, ConnEvent::Room(n))));
        }
    }

    /// When [`Conns::poll`] wants to be called at the latest.
    pub fn deadline(&self) -> Option<Time> {
        self.closing.iter().map(|c| c.until).chain(self.accept_at).min()
    }

    /// Everything handed over was written, and every connection hung up is closed.
    pub fn at_rest(&self) -> bool {
        self.closing.is_empty() && self.open.values().all(Conn::flushed)
    }

    /// Drops connections that have to be closed by now.
    pub fn expire(&mut self, now: Time) {
        self.accept_at = self.accept_at.filter(|t| *t > now);
        self.closing.retain(|c| c.until > now);
    }

    /// Takes in what is ready, up to a budget. Returns whether anything was.
    pub fn poll(&mut self, cx: &mut Context<'_>, out: &mut Vec<(ConnId, ConnEvent)>) -> bool {
        let mut busy = self.poll_accept(cx, out);
        busy |= self.poll_dialling(cx, out);
        busy |= self.poll_open(cx, out);
        busy | self.poll_closing(cx)
    }

    fn poll_accept(&mut self, cx: &mut Context<'_>, out: &mut Vec<(ConnId, ConnEvent)>) -> bool {
        let mut busy = false;
        if self.accept_at.is_some() {
            return busy;
        }
        for i in 0..self.listeners.len() {
            for _ in 0..ACCEPT_BUDGET {
                match self.listeners[i].poll_accept(cx) {
                    Poll::Pending => break,
                    Poll::Ready(Ok((stream, remote))) => self.accepted(stream, remote, out),
                    Poll::Ready(Err(e)) if e.kind() == io::ErrorKind::ConnectionAborted => {}
                    Poll::Ready(Err(e)) => {
                        tracing::warn!(error = %e, "cannot accept BGP connections for a moment");
                        self.accept_at = Some(clock::now() + ACCEPT_PAUSE);
                        return true;
                    }
                }
                busy = true;
            }
        }
        busy
    }

    fn accepted(&mut self, stream: TcpStream, remote: SocketAddr, out: &mut Vec<(ConnId, ConnEvent)>) {
        let Some(hops) = self.admission.ask(remote.ip()) else {
            tracing::debug!(%remote, "nobody is expected from there: the connection is refused");
            return;
        };
        if self.open.len() + self.closing.len() >= MAX_ACCEPTED {
            tracing::warn!(%remote, limit = MAX_ACCEPTED, "too many connections, one is refused");
            return;
        }
        let set = sockopt::prepare(&stream).and_then(|()| sockopt::set_hops(&stream, remote.ip(), hops));
        let local = match set.and_then(|()| stream.local_addr()) {
            Ok(local) => local,
            Err(e) => {
                tracing::debug!(%remote, error = %e, "a connection went away at once");
                return;
            }
        };
        let id = ConnId(self.next);
        self.next += 1;
        self.open.insert(id, Conn::new(stream));
        out.push((id, ConnEvent::Accepted { remote, local }));
    }

    fn poll_dialling(&mut self, cx: &mut Context<'_>, out: &mut Vec<(ConnId, ConnEvent)>) -> bool {
        let mut done = Vec::new();
        for (id, (to, dial)) in &mut self.dialling {
            if let Poll::Ready(result) = dial.as_mut().poll(cx) {
                done.push((*id, *to, result));
            }
        }
        let busy = !done.is_empty();
        for (id, to, result) in done {
            self.dialling.remove(&id);
            let connected = result.and_then(|stream| Ok((stream.local_addr()?, stream)));
            match connected {
                Ok((local, stream)) => {
                    self.open.insert(id, Conn::new(stream));
                    out.push((id, ConnEvent::Connected { local }));
                }
                Err(e) => {
                    let why = format!("cannot connect to {to}: {}", text_of(&e));
                    out.push((id, ConnEvent::Failed { why }));
                }
            }
        }
        busy
    }

    fn poll_open(&mut self, cx: &mut Context<'_>, out: &mut Vec<(ConnId, ConnEvent)>) -> bool {
        let mut busy = false;
        let mut closed = Vec::new();
        for (id, c) in &mut self.open {
            busy |= c.poll_write(cx).is_ready();
            let Poll::Ready(read) = c.poll_read(cx, &mut self.buf) else { continue };
            busy = true;
            match read {
                Ok(0) => closed.push((*id, "the peer closed the connection".to_owned())),
                Ok(n) => out.push((*id, ConnEvent::Bytes(Bytes::copy_from_slice(&self.buf[..n])))),
                Err(e) => closed.push((*id, text_of(&e))),
            }
        }
        for (id, why) in closed {
            self.open.remove(&id);
            out.push((id, ConnEvent::Closed { why }));
        }
        busy
    }

    /// Returns whether more waits than the budget allows.
    fn poll_closing(&mut self, cx: &mut Context<'_>) -> bool {
        let mut busy = false;
        let buf = &mut self.buf;
        self.closing.retain_mut(|c| {
            while c.conn.poll_write(cx).is_ready() {}
            if c.conn.flushed() && !c.fin_sent {
                c.fin_sent = true;
                if c.conn.shutdown_write().is_err() {
                    return false;
                }
            }
            // What still comes is thrown away: unread octets at close would turn FIN into RST. A peer that goes
            // on talking gets no more of our time than one that we listen to.
            for _ in 0..CLOSING_READS {
                match c.conn.poll_read(cx, buf) {
                    Poll::Pending => return !c.conn.is_broken(),
                    Poll::Ready(Ok(0) | Err(_)) => return false,
                    Poll::Ready(Ok(_)) => {}
                }
            }
            busy = true;
            true
        });
        busy
    }
}

fn dial_socket(to: SocketAddr, from: Option<IpAddr>, hops: Hops, keys: &Keys) -> io::Result<TcpSocket> {
    let socket = if to.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    sockopt::prepare(&socket)?;
    sockopt::set_hops(&socket, to.ip(), hops)?;
    if let Some(key) = keys.key(to.ip()) {
        netlink::linux::set_md5_key(&socket, to.ip(), None, key.octets())?;
    }
    if let Some(from) = from {
        socket.bind(SocketAddr::new(from, 0)).map_err(|e| match e.kind() {
            io::ErrorKind::AddrNotAvailable => {
                io::Error::other(format!("local address {from} is not on this host"))
            }
            _ => e,
        })?;
    }
    Ok(socket)
}

/// An I/O error without the number that Rust appends, lower case.
pub(crate) fn text_of(e: &io::Error) -> String {
    let s = e.to_string();
    let s = s.split(" (os error").next().unwrap_or(&s);
    let mut chars = s.chars();
    chars.next().map_or_else(String::new, |c| c.to_lowercase().chain(chars).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use std::time::Duration;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    async fn next(conns: &mut Conns) -> (ConnId, ConnEvent) {
        let mut out = Vec::new();
        let step = poll_fn(|cx| {
            conns.poll(cx, &mut out);
            if out.is_empty() { Poll::Pending } else { Poll::Ready(()) }
        });
        tokio::time::timeout(Duration::from_secs(10), step).await.expect("an event in time");
        assert_eq!(out.len(), 1, "{out:?}");
        out.remove(0)
    }

    /// Neighbours are expected on the loopback.
    fn config() -> Config {
        let text = "[vtep]\naddress = \"10.0.0.1\"\nasn = 65000\n[[neighbor-range]]\nprefix = \"127.0.0.0/24\"\nasn = 65000\n";
        let settings = crate::config::parse("x".as_ref(), text.into());
        settings.unwrap_or_else(|e| panic!("{e}")).node
    }

    fn listening() -> (Conns, SocketAddr) {
        let mut conns = Conns::new(&config(), Keys::default());
        conns.listen("127.0.0.1:0".parse().expect("address")).expect("bound");
        let at = conns.listening()[0];
        (conns, at)
    }

    #[tokio::test]
    async fn accepted_connections_get_ids_that_are_never_reused() {
        let (mut conns, at) = listening();
        for want in 1..=3 {
            let peer = TcpStream::connect(at).await.expect("connected");
            let (id, event) = next(&mut conns).await;
            assert_eq!(id, ConnId(want));
            assert!(
                matches!(event, ConnEvent::Accepted { remote, .. } if remote == peer.local_addr().expect("address"))
            );
            drop(peer);
            assert!(matches!(next(&mut conns).await, (i, ConnEvent::Closed { .. }) if i == id));
        }
    }

    #[tokio::test]
    async fn a_stranger_is_refused_and_nobody_is_told() {
        let (mut conns, at) = listening();
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind("127.0.1.1:0".parse().expect("address")).expect("bound");
        let mut stranger = socket.connect(at).await.expect("connected");
        let refused = poll_fn(|cx| {
            let mut out = Vec::new();
            conns.poll(cx, &mut out);
            assert!(out.is_empty(), "{out:?}");
            if conns.strangers() == 1 { Poll::Ready(()) } else { Poll::Pending }
        });
        tokio::time::timeout(Duration::from_secs(10), refused).await.expect("refused in time");
        assert!(conns.at_rest() && conns.open.is_empty());
        assert_eq!(stranger.read(&mut [0; 8]).await.expect("closed"), 0);
        let _peer = TcpStream::connect(at).await.expect("connected");
        assert!(matches!(next(&mut conns).await, (_, ConnEvent::Accepted { .. })), "a neighbour is let in");
    }

    #[tokio::test]
    async fn a_dial_that_is_refused_says_so() {
        let (conns, at) = listening();
        drop(conns);
        let mut conns = Conns::new(&config(), Keys::default());
        let id = ConnId(1 << 63);
        conns.dial(id, at, None, Hops::default());
        let (got, event) = next(&mut conns).await;
        assert_eq!(got, id);
        let ConnEvent::Failed { why } = event else { panic!("{event:?}") };
        assert_eq!(why, format!("cannot connect to {at}: connection refused"));
    }

    #[tokio::test]
    async fn a_dial_from_a_foreign_address_says_so() {
        let mut conns = Conns::new(&config(), Keys::default());
        let from = Some("192.0.2.1".parse().expect("address"));
        conns.dial(ConnId(1 << 63), "127.0.0.1:179".parse().expect("address"), from, Hops::default());
        let (_, event) = next(&mut conns).await;
        assert!(
            matches!(&event, ConnEvent::Failed { why } if why.contains("192.0.2.1 is not on this host")),
            "{event:?}"
        );
    }

    #[tokio::test]
    async fn last_words_arrive_although_the_peer_still_talks() {
        let (mut conns, at) = listening();
        let mut peer = TcpStream::connect(at).await.expect("connected");
        let (id, _) = next(&mut conns).await;
        // Unread octets in our receive buffer would make close() send RST, which discards what we sent.
        peer.write_all(&vec![0; 30_000]).await.expect("written");
        conns.send(id, Bytes::from_static(b"NOTIFICATION"));
        conns.hangup(id);
        assert!(!conns.at_rest());
        let reader = tokio::spawn(async move {
            let mut got = Vec::new();
            let end = peer.read_to_end(&mut got).await;
            (got, end)
        });
        let mut out = Vec::new();
        let all_closed = poll_fn(|cx| {
            conns.poll(cx, &mut out);
            if conns.at_rest() { Poll::Ready(()) } else { Poll::Pending }
        });
        tokio::time::timeout(Duration::from_secs(10), all_closed).await.expect("closed in time");
        let (got, end) = reader.await.expect("reader");
        assert_eq!(got, b"NOTIFICATION");
        assert!(end.is_ok(), "{end:?}");
        assert!(out.is_empty(), "no event after a hangup: {out:?}");
    }

    #[tokio::test]
    async fn a_peer_that_never_closes_is_dropped_after_a_second() {
        let (mut conns, at) = listening();
        let _peer = TcpStream::connect(at).await.expect("connected");
        let (id, _) = next(&mut conns).await;
        conns.hangup(id);
        let until = conns.deadline().expect("a deadline");
        assert!(until.since(clock::now()) <= CLOSE_LIMIT);
        conns.expire(until);
        assert!(conns.at_rest());
    }
}
