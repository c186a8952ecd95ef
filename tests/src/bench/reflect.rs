//! Case `bgp`: a route reflector between many speakers: when has the last of them every route of the others, what processor time
//! and what memory did that take. The speakers are ours, send octets encoded beforehand and count what they hear route by
//! route, so that one that comes twice is not taken for two.

use super::{Report, Samples, Sizes, System, mac, number};
use crate::frr::Frr;
use crate::gobgp::{GoBgp, Peer};
use crate::ns::Netns;
use crate::packet::now;
use crate::proc::Proc;
use crate::speaker::{Attributes, Door, announce, mac_ip, message, withdraw};
use crate::vtepd::{Conf, Vtepd};
use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Shutdown, TcpStream};
use std::time::Duration;

const SET: u8 = 13;
const ASN: u32 = 65000;
const VNI: u32 = 100;
const LIMIT: Duration = Duration::from_secs(600);
/// Type-2 routes in an UPDATE of at most 4096 octets.
const PER_UPDATE: usize = 90;

/// Who sends how much to whom. Everybody hears all that the others send.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Speakers that send.
    pub senders: u32,
    /// Routes of each of them.
    pub routes: u32,
    /// Speakers that only listen.
    pub listeners: u32,
}

impl Shape {
    fn name(self) -> String {
        match self.listeners {
            0 => format!("{} peers × {} routes", self.senders, self.routes),
            n => format!("{} × {} routes to {n} peers", self.senders, self.routes),
        }
    }

    fn peers(self) -> u32 {
        self.senders + self.listeners
    }

    /// What a peer sends, by the numbers of its MACs.
    fn own(self, peer: u32) -> core::ops::Range<u32> {
        if peer < self.senders { peer * self.routes..(peer + 1) * self.routes } else { 0..0 }
    }
}

/// The address of the reflector, and those of its peers.
const HERE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 9, 0, 1));

fn peer(n: u32) -> IpAddr {
    Ipv4Addr::from_bits(Ipv4Addr::new(10, 9, 1, 0).to_bits() + n).into()
}

enum Reflector {
    Vtepd(Box<Vtepd>),
    Frr(Box<Frr>),
    GoBgp(Box<GoBgp>),
}

impl Reflector {
    fn start(ns: &Netns, system: System, peers: u32) -> Self {
        let all: Vec<IpAddr> = (0..peers).map(peer).collect();
        match system {
            System::Vtepd => {
                let mut conf = Conf::new(HERE, &all);
                conf.vnis.clear();
                conf.neighbor_extra = "route-reflector-client = true".into();
                Self::Vtepd(Box::new(Vtepd::start(ns, &conf)))
            }
            System::Frr => {
                let mut conf = format!(
                    "router bgp {ASN}\n bgp router-id {HERE}\n no bgp default ipv4-unicast\n neighbor all peer-group\n \
                     neighbor all remote-as {ASN}\n neighbor all timers connect 1\n"
                );
                for a in &all {
                    let _ = writeln!(conf, " neighbor {a} peer-group all");
                }
                conf.push_str(
                    " address-family l2vpn evpn\n  neighbor all activate\n  neighbor all route-reflector-client\n \
                     exit-address-family\n",
                );
                Self::Frr(Box::new(Frr::start(ns, &conf)))
            }
            System::GoBgp => {
                let all: Vec<_> = all.into_iter().map(|a| Peer { client: true, ..Peer::ibgp(a) }).collect();
                Self::GoBgp(Box::new(GoBgp::start_quiet(ns, HERE, &all)))
            }
        }
    }

    /// The process that speaks BGP.
    fn process(&self) -> &Proc {
        match self {
            Self::Vtepd(v) => &v.process,
            Self::Frr(f) => &f.bgpd,
            Self::GoBgp(g) => &g.process,
        }
    }
}

/// Runs all shapes for one system.
pub(super) fn run(system: System, sizes: &Sizes, report: &mut Report) {
    for shape in sizes.shapes {
        let (mut took, mut cpu, mut peak) = (Samples::default(), Samples::default(), 0);
        for _ in 0..sizes.reflections {
            let once = reflect(system, shape);
            took.push(once.took);
            cpu.push(once.cpu);
            peak = peak.max(once.peak_kb);
        }
        let name = shape.name();
        report.times(format!("reflector, {name}: last route at the last peer"), Some(system), &took);
        report.times(format!("reflector, {name}: processor time"), Some(system), &cpu);
        report.memory(format!("reflector, {name}: peak memory"), system, peak as f64 / 1000.0);
    }
}

/// Nanoseconds and kB.
struct Once {
    took: u64,
    cpu: u64,
    peak_kb: u64,
}

fn reflect(system: System, shape: Shape) -> Once {
    let (there, us) = (Netns::new("rr"), Netns::new("peers"));
    us.sh(&format!(
        "ip link add p type veth peer name r netns {}
         ip link set p up",
        there.name()
    ));
    let addresses: Vec<_> = (0..shape.peers()).map(|n| format!("address add {}/16 dev p", peer(n))).collect();
    let batch = us.command("ip").args(["-batch", "-"]).stdin(std::process::Stdio::piped()).spawn();
    let mut batch = batch.expect("ip runs");
    let text = addresses.join("\n");
    batch.stdin.take().expect("piped").write_all(text.as_bytes()).expect("ip reads");
    assert!(batch.wait().expect("ip runs").success(), "addresses of the peers");
    there.sh(&format!("ip address add {HERE}/16 dev r; ip link set r up"));
    let doors: Vec<Door> = (0..shape.peers()).map(|n| Door::open(&us, peer(n), ASN)).collect();
    let reflector = Reflector::start(&there, system, shape.peers());
    let streams: Vec<TcpStream> = doors
        .iter()
        .map(|d| d.accept_stream(Duration::from_secs(60)).expect("the reflector connects within a minute"))
        .collect();
    let said: Vec<Vec<u8>> = (0..shape.senders).map(|n| octets(shape, n)).collect();
    // End-of-RIB of those that have nothing to say: nobody waits for them.
    for mut s in streams.iter().skip(shape.senders as usize) {
        s.write_all(&withdraw(&[])).expect("the session is up");
    }
    let cpu = reflector.process().cpu_ns();
    let begun = now();
    let ends: Vec<u64> = std::thread::scope(|scope| {
        let ears: Vec<_> = (0..shape.peers())
            .zip(&streams)
            .map(|(n, s)| {
                std::thread::Builder::new()
                    .stack_size(256 << 10)
                    .spawn_scoped(scope, move || listen(s, shape, n))
                    .expect("a thread can be had")
            })
            .collect();
        for (s, octets) in streams.iter().zip(&said) {
            scope.spawn(move || (&mut &*s).write_all(octets).expect("the session stays up"));
        }
        ears.into_iter().map(|e| e.join().expect("every peer hears everything")).collect()
    });
    let once = Once {
        took: ends.into_iter().max().unwrap_or(begun) - begun,
        cpu: reflector.process().cpu_ns() - cpu,
        peak_kb: reflector.process().memory_kb("VmHWM").unwrap_or(0),
    };
    for s in &streams {
        let _ = s.shutdown(Shutdown::Both);
    }
    once
}

/// All that one peer says.
fn octets(shape: Shape, n: u32) -> Vec<u8> {
    let at = Attributes::new(peer(n), VNI);
    let nlri: Vec<Vec<u8>> = shape.own(n).map(|i| mac_ip(VNI, mac(SET, i), None)).collect();
    let mut all: Vec<u8> = nlri.chunks(PER_UPDATE).flat_map(|c| announce(&at, c)).collect();
    all.extend(withdraw(&[]));
    all
}

/// Reads until every route of the others has come; says when that was.
fn listen(mut stream: &TcpStream, shape: Shape, me: u32) -> u64 {
    let (all, own) = (shape.senders * shape.routes, shape.own(me));
    let mut missing = all - own.len() as u32;
    let mut seen = vec![false; all as usize];
    let end = now() + LIMIT.as_nanos() as u64;
    stream.set_read_timeout(Some(Duration::from_secs(1))).expect("a socket can");
    let (mut buf, mut have) = (vec![0; 256 << 10], 0);
    while missing > 0 {
        assert!(now() < end, "{missing} of {all} routes never came to peer {me}");
        match stream.read(&mut buf[have..]) {
            Ok(0) => panic!("the reflector has closed the session of peer {me}"),
            Ok(n) => have += n,
            Err(e) if matches!(e.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {
                continue;
            }
            Err(e) => panic!("peer {me}: {e}"),
        }
        let mut at = 0;
        while have - at >= 19 {
            let len = usize::from(u16::from_be_bytes([buf[at + 16], buf[at + 17]]));
            if have - at < len {
                break;
            }
            let m = &buf[at..at + len];
            match m[18] {
                2 => each_mac(m, |m| {
                    if let Some(i) = number(SET, m)
                        && let Some(s) = seen.get_mut(i as usize)
                        && !*s
                    {
                        *s = true;
                        // FRR says it to those as well who have told it.
                        missing -= u32::from(!own.contains(&i));
                    }
                }),
                3 => panic!("peer {me} is told {}/{}", m[19], m[20]),
                // Answering each KEEPALIVE with one keeps the session up without a timer.
                4 => stream.write_all(&message(4, &[])).expect("the session stays up"),
                _ => {}
            }
            at += len;
        }
        buf.copy_within(at..have, 0);
        have -= at;
    }
    now()
}

/// The MACs of the Type-2 routes that an UPDATE announces.
fn each_mac(m: &[u8], mut found: impl FnMut(evpn::types::Mac)) {
    let two = |at: usize| m.get(at..at + 2).map_or(0, |b| usize::from(u16::from_be_bytes([b[0], b[1]])));
    let mut at = 23 + two(19);
    while at + 3 <= m.len() {
        let (head, len) = if m[at] & 0x10 == 0 { (3, usize::from(m[at + 2])) } else { (4, two(at + 2)) };
        if m[at + 1] == 14 {
            let value = m.get(at + head..at + head + len).unwrap_or_default();
            let mut nlri =
                value.get(5 + usize::from(value.get(3).copied().unwrap_or(0))..).unwrap_or_default();
            while let [kind, len, rest @ ..] = nlri {
                // RD 8, ESI 10, tag 4, length of the MAC 1.
                if *kind == 2
                    && let Some(mac) = rest.get(23..29).and_then(|b| <[u8; 6]>::try_from(b).ok())
                {
                    found(evpn::types::Mac(mac));
                }
                nlri = rest.get(usize::from(*len)..).unwrap_or_default();
            }
        }
        at += head + len;
    }
}
