//! A BGP speaker for tests: says exactly what it is told, byte by byte, and remembers what it heard.
//!
//! Its encoder is a second, separate one, so that a fault in `evpn::wire` cannot hide behind itself.

use crate::ns::Netns;
use crate::packet::now;
use evpn::types::Mac;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// What it heard: time, message type, whole message.
pub type Heard = Vec<(u64, u8, Vec<u8>)>;

/// An established session.
#[derive(Debug)]
pub struct Speaker {
    stream: TcpStream,
    heard: Arc<Mutex<Heard>>,
    reader: Option<JoinHandle<()>>,
}

/// Attributes of the routes of one UPDATE.
#[derive(Clone, Debug)]
pub struct Attributes {
    /// Next hop: the VTEP.
    pub next_hop: IpAddr,
    /// AS_PATH; empty towards iBGP.
    pub as_path: Vec<u32>,
    /// Extended communities.
    pub communities: Vec<[u8; 8]>,
    /// Value of the PMSI attribute.
    pub pmsi: Option<Vec<u8>>,
    /// Further attributes, octet by octet.
    pub raw: Vec<u8>,
}

impl Attributes {
    /// iBGP, VXLAN, the automatic route target of AS 65000 and this VNI.
    pub fn new(next_hop: IpAddr, vni: u32) -> Self {
        let communities = vec![[3, 0x0c, 0, 0, 0, 0, 0, 8], target(65000, vni)];
        Self { next_hop, as_path: Vec::new(), communities, pmsi: None, raw: Vec::new() }
    }

    /// With a MAC mobility sequence number.
    #[must_use]
    pub fn seq(mut self, n: u32) -> Self {
        let [a, b, c, d] = n.to_be_bytes();
        self.communities.push([6, 0, 0, 0, a, b, c, d]);
        self
    }

    /// With these communities instead of route target and encapsulation.
    #[must_use]
    pub fn communities(mut self, c: &[[u8; 8]]) -> Self {
        self.communities = c.to_vec();
        self
    }

    /// With PMSI: ingress replication to this VTEP.
    #[must_use]
    pub fn ingress_replication(mut self, vni: u32, to: IpAddr) -> Self {
        let mut v = vec![0, 6];
        v.extend(&vni.to_be_bytes()[1..]);
        v.extend(octets(to));
        self.pmsi = Some(v);
        self
    }
}

/// Two-octet-AS route target.
pub fn target(asn: u16, local: u32) -> [u8; 8] {
    let ([a, b], [w, x, y, z]) = (asn.to_be_bytes(), local.to_be_bytes());
    [0, 2, a, b, w, x, y, z]
}

fn octets(a: IpAddr) -> Vec<u8> {
    match a {
        IpAddr::V4(a) => a.octets().to_vec(),
        IpAddr::V6(a) => a.octets().to_vec(),
    }
}

/// Route distinguisher `192.0.2.1:n`.
fn rd(n: u16) -> [u8; 8] {
    let [a, b] = n.to_be_bytes();
    [0, 1, 192, 0, 2, 1, a, b]
}

/// Type-2 NLRI in VNI `vni`.
pub fn mac_ip(vni: u32, mac: Mac, ip: Option<IpAddr>) -> Vec<u8> {
    let ip = ip.map(octets).unwrap_or_default();
    let mut n = vec![2, 33 + ip.len() as u8];
    n.extend(rd(1));
    n.extend([0; 14]);
    n.push(48);
    n.extend(mac.0);
    n.push(ip.len() as u8 * 8);
    n.extend(ip);
    n.extend(&vni.to_be_bytes()[1..]);
    n
}

/// Type-3 NLRI.
pub fn imet(originator: IpAddr) -> Vec<u8> {
    let o = octets(originator);
    let mut n = vec![3, 13 + o.len() as u8];
    n.extend(rd(1));
    n.extend([0; 4]);
    n.push(o.len() as u8 * 8);
    n.extend(o);
    n
}

fn attribute(flags: u8, code: u8, value: &[u8]) -> Vec<u8> {
    let mut a = vec![flags | 0x10, code];
    a.extend((value.len() as u16).to_be_bytes());
    a.extend(value);
    a
}

/// A whole message.
pub fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut m = vec![0xff; 16];
    m.extend((19 + body.len() as u16).to_be_bytes());
    m.push(kind);
    m.extend(body);
    m
}

/// UPDATE that announces these NLRI.
pub fn announce(at: &Attributes, nlri: &[Vec<u8>]) -> Vec<u8> {
    let hop = octets(at.next_hop);
    let mut reach = vec![0, 25, 70, hop.len() as u8];
    reach.extend(hop);
    reach.push(0);
    reach.extend(nlri.concat());
    let mut path = Vec::new();
    if !at.as_path.is_empty() {
        path.extend([2, at.as_path.len() as u8]);
        path.extend(at.as_path.iter().flat_map(|a| a.to_be_bytes()));
    }
    let mut attrs = attribute(0x80, 14, &reach);
    attrs.extend(attribute(0x40, 1, &[0]));
    attrs.extend(attribute(0x40, 2, &path));
    if at.as_path.is_empty() {
        attrs.extend(attribute(0x40, 5, &100u32.to_be_bytes()));
    }
    attrs.extend(attribute(0xc0, 16, &at.communities.concat()));
    if let Some(p) = &at.pmsi {
        attrs.extend(attribute(0xc0, 22, p));
    }
    attrs.extend(&at.raw);
    update(&attrs)
}

/// UPDATE that withdraws these NLRI; without any, End-of-RIB.
pub fn withdraw(nlri: &[Vec<u8>]) -> Vec<u8> {
    let mut unreach = vec![0, 25, 70];
    unreach.extend(nlri.concat());
    update(&attribute(0x80, 15, &unreach))
}

fn update(attrs: &[u8]) -> Vec<u8> {
    let mut body = vec![0, 0];
    body.extend((attrs.len() as u16).to_be_bytes());
    body.extend(attrs);
    message(2, &body)
}

/// OPEN of a speaker with EVPN, route refresh and four-octet AS numbers, hold time 180 s.
pub fn open(asn: u32, id: Ipv4Addr) -> Vec<u8> {
    let my_as = u16::try_from(asn).unwrap_or(23456);
    // Graceful restart without a family (BGP-GR-03): FRR sends End-of-RIB only to those who offer it.
    let mut caps = vec![1, 4, 0, 25, 0, 70, 2, 0, 64, 2, 0, 120, 65, 4];
    caps.extend(asn.to_be_bytes());
    let mut body = vec![4];
    body.extend(my_as.to_be_bytes());
    body.extend(180u16.to_be_bytes());
    body.extend(id.octets());
    body.extend([caps.len() as u8 + 2, 2, caps.len() as u8]);
    body.extend(caps);
    message(1, &body)
}

/// Reads one whole message; `None` at the end of the stream.
pub fn read_message(s: &mut TcpStream) -> Option<Vec<u8>> {
    let mut m = vec![0; 19];
    s.read_exact(&mut m).ok()?;
    let len = usize::from(u16::from_be_bytes([m[16], m[17]]));
    m.resize(len.max(19), 0);
    s.read_exact(&mut m[19..]).ok()?;
    Some(m)
}

/// Where peers connect, one after the other.
#[derive(Debug)]
pub struct Door {
    listener: TcpListener,
    address: IpAddr,
    asn: u32,
}

impl Door {
    /// Listens at `address` port 179 in the namespace.
    ///
    /// # Panics
    /// When the port is not to be had within a minute.
    pub fn open(ns: &Netns, address: IpAddr, asn: u32) -> Self {
        let begun = Instant::now();
        // A child that another test is starting may hold the last listener until it has become its program.
        let listener = ns.enter(|| {
            loop {
                match TcpListener::bind((address, 179)) {
                    Ok(l) => return l,
                    Err(e)
                        if e.kind() == std::io::ErrorKind::AddrInUse
                            && begun.elapsed() < Duration::from_secs(60) =>
                    {
                        std::thread::sleep(Duration::from_millis(5));
                    }
                    Err(e) => panic!("cannot listen on {address}: {e}"),
                }
            }
        });
        listener.set_nonblocking(true).expect("a listener can");
        Self { listener, address, asn }
    }

    /// Brings up a session with whoever connects within `limit`.
    pub fn accept(&self, limit: Duration) -> Option<Speaker> {
        let begun = Instant::now();
        while begun.elapsed() < limit {
            if let Ok((stream, _)) = self.listener.accept()
                && let Some(up) = Speaker::establish(stream, self.asn, self.address)
            {
                return Some(up);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        None
    }

    /// The same without ears: what the peer says from now on is never read. Its TCP may keep a few KiB of it.
    pub fn accept_deaf(&self, limit: Duration) -> Option<TcpStream> {
        // Before the connection, so that its window never grows.
        let _ = socket2::SockRef::from(&self.listener).set_recv_buffer_size(4096);
        self.accept_stream(limit)
    }

    /// A connection on which nothing has been said.
    pub fn accept_raw(&self, limit: Duration) -> Option<TcpStream> {
        let begun = Instant::now();
        while begun.elapsed() < limit {
            if let Ok((stream, _)) = self.listener.accept() {
                return stream.set_nonblocking(false).is_ok().then_some(stream);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        None
    }

    /// The same, for one who reads and answers KEEPALIVEs himself.
    pub fn accept_stream(&self, limit: Duration) -> Option<TcpStream> {
        let begun = Instant::now();
        while begun.elapsed() < limit {
            if let Ok((mut stream, _)) = self.listener.accept()
                && handshake(&mut stream, self.asn, self.address).is_some()
            {
                return Some(stream);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        None
    }
}

/// OPEN and KEEPALIVE both ways.
fn handshake(stream: &mut TcpStream, asn: u32, address: IpAddr) -> Option<()> {
    let id = match address {
        IpAddr::V4(a) => a,
        IpAddr::V6(_) => Ipv4Addr::new(192, 0, 2, 1),
    };
    stream.set_nonblocking(false).ok()?;
    stream.set_nodelay(true).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(20))).ok()?;
    stream.write_all(&open(asn, id)).ok()?;
    (read_message(stream)?[18] == 1).then_some(())?;
    stream.write_all(&message(4, &[])).ok()?;
    (read_message(stream)?[18] == 4).then_some(())?;
    stream.set_read_timeout(None).ok()
}

impl Speaker {
    /// Waits at `address` port 179 in the namespace for the peer to connect, and brings the session up.
    ///
    /// # Panics
    /// When no session comes up within a minute.
    pub fn accept(ns: &Netns, address: IpAddr, asn: u32) -> Self {
        Door::open(ns, address, asn)
            .accept(Duration::from_secs(60))
            .expect("somebody connects within a minute")
    }

    fn establish(mut stream: TcpStream, asn: u32, address: IpAddr) -> Option<Self> {
        handshake(&mut stream, asn, address)?;
        let heard = Arc::new(Mutex::new(Vec::new()));
        let mut ear = stream.try_clone().ok()?;
        let notes = Arc::clone(&heard);
        let reader = std::thread::spawn(move || {
            while let Some(m) = read_message(&mut ear) {
                let at = now();
                // Answering each KEEPALIVE with one keeps the session up without a timer of our own.
                if m[18] == 4 && ear.write_all(&message(4, &[])).is_err() {
                    break;
                }
                notes.lock().expect("nobody panics with the lock held").push((at, m[18], m));
            }
        });
        Some(Self { stream, heard, reader: Some(reader) })
    }

    /// Sends octets.
    ///
    /// # Panics
    /// When the peer has closed.
    pub fn send(&self, octets: &[u8]) {
        (&self.stream).write_all(octets).expect("the session is up");
    }

    /// Sends octets to a peer that may be gone.
    pub fn try_send(&self, octets: &[u8]) -> bool {
        (&self.stream).write_all(octets).is_ok()
    }

    /// Waits until the peer has closed; everything that it sent has been heard then.
    pub fn wait_for_end(&mut self) {
        if let Some(r) = self.reader.take() {
            let _ = r.join();
        }
    }

    /// Announces routes.
    pub fn announce(&self, at: &Attributes, nlri: &[Vec<u8>]) {
        self.send(&announce(at, nlri));
    }

    /// Withdraws routes.
    pub fn withdraw(&self, nlri: &[Vec<u8>]) {
        self.send(&withdraw(nlri));
    }

    /// End-of-RIB.
    pub fn end_of_rib(&self) {
        self.send(&withdraw(&[]));
    }

    /// Everything heard so far.
    pub fn heard(&self) -> Heard {
        self.heard.lock().expect("nobody panics with the lock held").clone()
    }

    /// NOTIFICATION received, as code and subcode.
    pub fn notified(&self) -> Option<(u8, u8)> {
        self.heard().iter().find(|(_, kind, _)| *kind == 3).map(|(_, _, m)| (m[19], m[20]))
    }

    /// Whether the session is still up.
    pub fn is_up(&self) -> bool {
        self.reader.as_ref().is_some_and(|r| !r.is_finished())
    }

    /// Forgets what was heard.
    pub fn forget(&self) {
        self.heard.lock().expect("nobody panics with the lock held").clear();
    }

    /// Whether an UPDATE heard holds these octets, for instance an NLRI.
    pub fn heard_octets(&self, octets: &[u8]) -> bool {
        self.heard().iter().any(|(_, kind, m)| *kind == 2 && m.windows(octets.len()).any(|w| w == octets))
    }
}

impl Speaker {
    /// Whether End-of-RIB for EVPN was heard: an UPDATE with an empty MP_UNREACH_NLRI and nothing else.
    pub fn heard_end_of_rib(&self) -> bool {
        self.heard().iter().any(|(_, kind, m)| *kind == 2 && m.len() <= 30 && m.ends_with(&[0, 25, 70]))
    }
}

impl Drop for Speaker {
    fn drop(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Both);
        if let Some(r) = self.reader.take() {
            let _ = r.join();
        }
    }
}
