//! What the network may do to a daemon's sessions: faulty headers and messages in every state over real sockets, connections that
//! say nothing, say it slowly or are nobody's. Each time the reaction is the RFC's, another peer's session stays up with its
//! routes, and memory stays where it is. The state machine alone is treated so in `evpn/tests/session/hostile.rs`.

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, TcpStream};
use std::time::{Duration, Instant};
use vtepd_tests::fabric::{Fabric, Guest};
use vtepd_tests::mixed::Mixed;
use vtepd_tests::need::{Need, met};
use vtepd_tests::poll::{LATER, SOON, eventually, same};
use vtepd_tests::speaker::{
    Attributes, Door, Speaker, announce, imet, mac_ip, message, open, read_message, withdraw,
};

const ASN: u32 = 65000;
const LIMIT: Duration = Duration::from_secs(60);

/// Where an attacker stops being polite.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Until {
    /// Connected; the daemon has sent its OPEN.
    OpenSent,
    /// OPENs exchanged; the daemon has sent its KEEPALIVE.
    OpenConfirm,
    Established,
}

const STATES: [Until; 3] = [Until::OpenSent, Until::OpenConfirm, Until::Established];

/// What it says, and the code and subcode that this deserves; none: closed without a word.
struct Fault {
    state: Until,
    what: &'static str,
    octets: Vec<u8>,
    told: Option<(u8, u8)>,
}

/// A header with a length of its own.
fn header(len: u16, kind: u8) -> Vec<u8> {
    let mut m = vec![0xff; 16];
    m.extend(len.to_be_bytes());
    m.push(kind);
    m
}

fn faults() -> Vec<Fault> {
    let mut all = Vec::new();
    for state in STATES {
        let mut add = |what, octets, told| all.push(Fault { state, what, octets, told });
        // BGP-HDR-01 to -04, BGP-NOTIF-02.
        add("a marker that is none", [vec![0xff; 15], vec![0xfe; 4]].concat(), Some((1, 1)));
        add("rubbish", b"GET / HTTP/1.1\r\nHost: vtep\r\n\r\n".to_vec(), Some((1, 1)));
        add("length 18", header(18, 4), Some((1, 2)));
        add("length 65535 of a KEEPALIVE", header(65535, 4), Some((1, 2)));
        add("an OPEN that is too short", header(28, 1), Some((1, 2)));
        add("an UPDATE that is too short", header(22, 2), Some((1, 2)));
        add("type 9", header(19, 9), Some((1, 3)));
        add("a NOTIFICATION that is too short", header(20, 3), None);
    }
    let mut add = |state, what, octets, told| all.push(Fault { state, what, octets, told });
    let good = open(ASN, Ipv4Addr::new(192, 0, 2, 9));
    // BGP-FSME-01 to -03.
    add(Until::OpenSent, "UPDATE before OPEN", withdraw(&[]), Some((5, 1)));
    add(Until::OpenConfirm, "UPDATE before KEEPALIVE", withdraw(&[]), Some((5, 2)));
    add(Until::Established, "a second OPEN", good.clone(), Some((5, 3)));
    // BGP-OPEN-01, -03 to -05, -08.
    let changed = |at: usize, octets: &[u8]| {
        let mut m = good.clone();
        m[at..at + octets.len()].copy_from_slice(octets);
        m
    };
    add(Until::OpenSent, "version 3", changed(19, &[3]), Some((2, 1)));
    add(Until::OpenSent, "another AS", open(65001, Ipv4Addr::new(192, 0, 2, 9)), Some((2, 2)));
    add(Until::OpenSent, "identifier 0", changed(24, &[0; 4]), Some((2, 3)));
    add(Until::OpenSent, "hold time 1", changed(22, &[0, 1]), Some((2, 6)));
    add(Until::OpenSent, "a capability beyond its parameter", changed(32, &[200]), Some((2, 0)));
    // BGP-ERR-02, EVPN-ERR-02, BGP-ERR-10.
    let mut long = withdraw(&[]);
    long[21..23].copy_from_slice(&[0xff, 0xff]);
    add(Until::Established, "attributes longer than the message", long, Some((3, 1)));
    add(Until::Established, "an NLRI longer than its attribute", withdraw(&[vec![2, 200, 0]]), Some((3, 9)));
    let mut body = vec![0, 0, 0, 4];
    body.extend([0x40, 99, 1, 0]);
    add(Until::Established, "an unknown well-known attribute", message(2, &body), Some((3, 2)));
    all
}

/// An attacker's address; each has one, because a neighbour that failed is held back for a while.
fn attacker(n: usize) -> IpAddr {
    Ipv4Addr::new(10, 0, 0, 100 + n as u8).into()
}

/// A daemon with an honest peer that has a route, and `n` neighbours that are attackers in one namespace.
struct Siege {
    m: Mixed,
    honest: Speaker,
    doors: Vec<Door>,
}

impl Siege {
    fn new(n: usize) -> Self {
        let mut m = Mixed::new(Fabric::new(3));
        let addresses = (0..n).fold(String::new(), |mut s, i| {
            let _ = writeln!(s, "ip addr add {}/24 dev u0", attacker(i));
            s
        });
        m.vtep(2).ns.sh(&addresses);
        let honest_at = m.vtep(1).address;
        let mut conf = m.fabric.conf(0);
        conf.neighbors = std::iter::once(honest_at).chain((0..n).map(attacker)).map(|a| (a, ASN)).collect();
        let doors = (0..n).map(|i| Door::open(&m.vtep(2).ns, attacker(i), ASN)).collect();
        m.start_vtepd_with(0, &conf);
        let honest = Speaker::accept(&m.vtep(1).ns, honest_at, ASN);
        let at = Attributes::new(honest_at, 100);
        honest.announce(&at.clone().ingress_replication(100, honest_at), &[imet(honest_at)]);
        honest.announce(&at, &[mac_ip(100, Guest::new(7).mac, None)]);
        honest.end_of_rib();
        let s = Self { m, honest, doors };
        eventually(SOON, "the honest peer's route is there", || s.unharmed());
        s
    }

    /// The honest peer's session has never ended and its route is there.
    fn unharmed(&self) -> Result<(), String> {
        let v = self.m.vtepd(0);
        let n = v.show("neighbors", &[]);
        let me = n.iter().find(|r| r["address"] == self.m.vtep(1).address.to_string().as_str());
        let ups = me.map(|r| r["established_count"].clone()).unwrap_or_default();
        same(ups, 1.into())?;
        let routes = self.m.routes(0, 2, Some(1));
        same(routes.len(), 1)?;
        if self.honest.is_up() { Ok(()) } else { Err(format!("told {:?}", self.honest.notified())) }
    }

    /// How many Type-2 routes of a MAC the daemon holds.
    fn held(&self, mac: evpn::types::Mac) -> usize {
        let routes = self.m.vtepd(0).show("routes", &[]);
        routes.iter().filter(|r| r["route"].as_str().is_some_and(|s| s.contains(&mac.to_string()))).count()
    }

    fn memory_kb(&self) -> u64 {
        self.m.vtepd(0).process.memory_kb("VmRSS").expect("it runs")
    }
}

/// Says OPEN and KEEPALIVE as far as wanted, and hears as much.
fn polite(s: &mut TcpStream, until: Until) {
    s.set_read_timeout(Some(LIMIT)).expect("a socket can");
    assert_eq!(read_message(s).expect("an OPEN comes")[18], 1);
    if until == Until::OpenSent {
        return;
    }
    s.write_all(&open(ASN, Ipv4Addr::new(192, 0, 2, 9))).expect("it listens");
    assert_eq!(read_message(s).expect("a KEEPALIVE comes")[18], 4);
    if until == Until::Established {
        s.write_all(&message(4, &[])).expect("it listens");
    }
}

/// Code and subcode of what comes before the end; none when the end comes without one.
fn verdict(s: &mut TcpStream) -> Option<(u8, u8)> {
    let begun = Instant::now();
    while let Some(m) = read_message(s) {
        if m[18] == 3 {
            // The end of the stream comes after it, not a reset that could swallow it (BGP-NOTIF-03).
            let mut rest = [0; 1];
            assert!(matches!(s.read(&mut rest), Ok(0)), "more after a NOTIFICATION, or a reset");
            return Some((m[19], m[20]));
        }
        assert!(begun.elapsed() < LIMIT, "the session goes on");
    }
    None
}

#[test]
fn faults_get_the_notification_of_their_state_and_harm_nobody_else() {
    if !met(&[Need::Root]) {
        return;
    }
    let faults = faults();
    let siege = Siege::new(faults.len());
    let wrong: Vec<String> = std::thread::scope(|scope| {
        let all: Vec<_> = faults
            .iter()
            .zip(&siege.doors)
            .map(|(f, door)| {
                scope.spawn(move || {
                    let mut s = door.accept_raw(LIMIT).expect("the daemon connects");
                    polite(&mut s, f.state);
                    s.write_all(&f.octets).expect("it listens");
                    let told = verdict(&mut s);
                    (told != f.told)
                        .then(|| format!("{:?}, {}: told {told:?}, not {:?}", f.state, f.what, f.told))
                })
            })
            .collect();
        all.into_iter().filter_map(|t| t.join().expect("an attacker gets its answer")).collect()
    });
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    siege.unharmed().expect("one peer's faults are no other's");
    // Each is shown with its own reason.
    let n = siege.m.vtepd(0).show("neighbors", &[]);
    for (i, f) in faults.iter().enumerate() {
        let row = n.iter().find(|r| r["address"] == attacker(i).to_string().as_str()).expect("configured");
        assert!(row["last_error"].as_str().is_some_and(|e| !e.is_empty()), "{}: {row}", f.what);
    }
}

/// BGP-FSM-02 and bounded memory: strangers are refused at the door, however many come and whatever they say.
#[test]
fn connections_from_nobody_s_address_cost_nothing_and_keep_nobody_out() {
    if !met(&[Need::Root]) {
        return;
    }
    const STRANGERS: usize = 1500;
    let siege = Siege::new(1);
    let (here, ns) = (siege.m.vtep(0).address, &siege.m.vtep(2).ns);
    let hello = open(ASN, Ipv4Addr::new(192, 0, 2, 66));
    let before = siege.memory_kb();
    let mut closed = 0;
    for round in 0..STRANGERS / 50 {
        // From the VTEP's own address, which is no neighbour here.
        let mut open: Vec<TcpStream> = ns.enter(|| {
            (0..50).map(|_| TcpStream::connect((here, 179)).expect("the kernel takes connections")).collect()
        });
        for s in &mut open {
            s.set_read_timeout(Some(SOON)).expect("a socket can");
            let _ = s.write_all(&hello);
            let mut buf = [0; 64];
            // Closed or reset; an OPEN would be an answer that a stranger is not owed.
            match s.read(&mut buf) {
                Ok(0) | Err(_) => closed += 1,
                Ok(n) => panic!("round {round}: a stranger is answered {:02x?}", &buf[..n]),
            }
        }
    }
    assert_eq!(closed, STRANGERS);
    let grown = siege.memory_kb().saturating_sub(before);
    assert!(grown < 2000, "{grown} kB for strangers");
    siege.unharmed().expect("strangers harm nobody");
    // And who is a neighbour comes in.
    let mut s = siege.doors[0].accept_raw(LIMIT).expect("the daemon connects");
    polite(&mut s, Until::Established);
}

/// An OPEN octet by octet, connections that never say a word, and an UPDATE that never ends: all of that waits at its own door.
#[test]
fn slow_and_silent_connections_hold_up_nobody() {
    if !met(&[Need::Root]) {
        return;
    }
    let siege = Siege::new(12);
    let before = siege.memory_kb();
    let mut streams: Vec<TcpStream> =
        siege.doors.iter().map(|d| d.accept_raw(LIMIT).expect("the daemon connects")).collect();
    // Two of three stay silent or drip; the third ones begin a message of 4096 octets and stop in its middle.
    for (i, s) in streams.iter_mut().enumerate() {
        if i % 3 == 2 {
            polite(s, Until::Established);
            s.write_all(&header(4096, 2)).expect("it listens");
            s.write_all(&[0; 2000]).expect("it listens");
        }
    }
    let hello = open(ASN, Ipv4Addr::new(192, 0, 2, 9));
    for (n, octet) in (100u8..).zip(&hello) {
        for s in streams.iter_mut().skip(1).step_by(3) {
            s.write_all(&[*octet]).expect("it listens");
        }
        // Meanwhile moves are told to the honest one.
        let guest = Guest::new(n);
        siege.m.guest(0).send(&guest.garp());
        eventually(SOON, "a host is told", || same(siege.honest.heard_octets(&guest.mac.0), true));
    }
    for s in streams.iter_mut().skip(1).step_by(3) {
        s.set_read_timeout(Some(LIMIT)).expect("a socket can");
        let kinds: Vec<u8> = (0..2).filter_map(|_| Some(read_message(s)?[18])).collect();
        assert_eq!(kinds, [1, 4], "an OPEN that came slowly is an OPEN");
    }
    siege.unharmed().expect("slow ones harm nobody");
    let grown = siege.memory_kb().saturating_sub(before);
    assert!(grown < 4000, "{grown} kB");
}

/// Thousands of UPDATEs, each full of attributes that nobody knows, all different: the session and memory stay, and so does the
/// other peer (BGP-UPD-05, -06, BGP-ERR-04).
#[test]
fn endless_attributes_are_bounded_by_the_routes_that_have_them() {
    if !met(&[Need::Root]) {
        return;
    }
    const UPDATES: u32 = 3000;
    let siege = Siege::new(1);
    let mut s = siege.doors[0].accept_raw(LIMIT).expect("the daemon connects");
    polite(&mut s, Until::Established);
    let mut ear = s.try_clone().expect("a socket can");
    let reader = std::thread::spawn(move || {
        let mut told = None;
        while let Some(m) = read_message(&mut ear) {
            if m[18] == 3 {
                told = Some((m[19], m[20]));
            }
            if m[18] == 4 && ear.write_all(&message(4, &[])).is_err() {
                break;
            }
        }
        told
    });
    let mac = Guest::new(9).mac;
    // The same route again and again: each time all but one of its attributes are new.
    let said = |n: u32| {
        let mut at = Attributes::new(attacker(0), 100);
        for code in 100..=220u8 {
            let [a, b, c, d] = n.to_be_bytes();
            at.raw.extend([0xc0, code, 24, a, b, c, d]);
            at.raw.extend([code; 20]);
        }
        announce(&at, &[mac_ip(100, mac, None)])
    };
    s.write_all(&said(0)).expect("it listens");
    eventually(LATER, "the route is taken", || same(siege.held(mac), 1));
    let before = siege.memory_kb();
    for n in 1..UPDATES {
        s.write_all(&said(n)).expect("the session stays up");
    }
    s.write_all(&withdraw(&[mac_ip(100, mac, None)])).expect("the session stays up");
    eventually(LATER, "all are read", || same(siege.held(mac), 0));
    let grown = siege.memory_kb().saturating_sub(before);
    assert!(grown < 4000, "{grown} kB for one route");
    siege.unharmed().expect("one peer's attributes are no other's");
    s.shutdown(std::net::Shutdown::Both).expect("it was up");
    assert_eq!(reader.join().expect("the reader ends"), None, "a NOTIFICATION came");
}
