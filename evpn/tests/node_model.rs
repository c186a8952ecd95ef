//! One node between scripted peers that say anything: arbitrary sequences (also across the wrap), sticky, gateway and stale
//! routes, withdrawals in any order, sessions that end, while hosts appear, announce themselves and age out.
//!
//! After every step the node is held against a model of a few lines that knows RFC 7432 §15 and nothing of
//! `evpn::mobility`: who has a MAC, what the kernel does, what the peers have been told, and that no sequence falls.

mod scenario;
mod world;

use evpn::fabric::Row;
use evpn::node::view::Place;
use evpn::types::{IfIndex, Mac, Seq, Span, Time};
use evpn::wire::frame;
use scenario::{Route, Speaker};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use world::rng::Rng;
use world::{P1, P2, VXLAN, World, mac, vtep};

/// Below and above the node's own 10.255.0.1.
const PEERS: [Ipv4Addr; 3] =
    [Ipv4Addr::new(10, 254, 0, 9), Ipv4Addr::new(10, 255, 0, 7), Ipv4Addr::new(10, 255, 0, 8)];
const OBSERVER: Ipv4Addr = Ipv4Addr::new(10, 255, 0, 250);
const MACS: u8 = 3;
const IPS: u8 = 3;

type Key = (usize, Mac, Option<IpAddr>);

struct Case {
    seed: u64,
    r: Rng,
    /// Sequences lie around the wrap.
    wrap: bool,
    w: World,
    peers: Vec<Speaker>,
    observer: Speaker,
    routes: BTreeMap<Key, Route>,
    /// Highest sequence that the node has advertised.
    told: BTreeMap<Mac, Seq>,
    log: Vec<String>,
}

/// Plain arithmetic on a circle.
fn newer(a: Seq, b: Seq) -> bool {
    a != b && a.0.wrapping_sub(b.0) < 0x8000_0000
}

fn ours_at(mac: Mac, seq: Seq) -> Route {
    Route { mac, ip: None, seq: Some(seq), sticky: false, gateway: false, stale: false, going: false }
}

/// Which of two claims on a MAC is the better one; ours is neither sticky nor a gateway's.
fn better(a: (&Route, IpAddr), b: (&Route, IpAddr)) -> bool {
    let class = |r: &Route| (r.stale, !r.gateway, r.gateway || !r.sticky);
    let (ca, cb) = (class(a.0), class(b.0));
    if ca != cb {
        return ca < cb;
    }
    let (sa, sb) = (a.0.seq.unwrap_or_default(), b.0.seq.unwrap_or_default());
    if !a.0.gateway && sa != sb {
        return newer(sa, sb);
    }
    a.1 < b.1
}

impl Case {
    fn new(seed: u64) -> Self {
        let mut r = Rng(seed);
        let (wrap, along) = (r.one_in(3), !r.one_in(4));
        let mut w = World::with(1, Span::micros(500), |c| {
            c.mobility.guard_time = Span::ZERO;
            c.mobility.move_ips_with_mac = along;
            for a in PEERS.iter().chain([&OBSERVER]) {
                c.neighbors.push(scenario::passive((*a).into()));
            }
        });
        let mut peers: Vec<Speaker> = PEERS.iter().map(|a| Speaker::new((*a).into())).collect();
        let mut observer = Speaker::new(OBSERVER.into());
        for p in peers.iter_mut().chain([&mut observer]) {
            p.connect(&mut w);
        }
        w.run_for(Span::secs(5));
        Self {
            seed,
            r,
            wrap,
            w,
            peers,
            observer,
            routes: BTreeMap::new(),
            told: BTreeMap::new(),
            log: vec![],
        }
    }

    fn a_mac(&mut self) -> Mac {
        mac(self.r.below(u64::from(MACS)) as u8 + 1)
    }

    fn an_ip(&mut self) -> IpAddr {
        Ipv4Addr::new(10, 1, 0, self.r.below(u64::from(IPS)) as u8 + 1).into()
    }

    fn a_seq(&mut self) -> Option<Seq> {
        let n = self.r.below(7) as u32;
        match (self.wrap, n) {
            (false, 0) => None,
            (true, n) => Some(Seq(n.wrapping_sub(4))),
            (false, n) => Some(Seq(n)),
        }
    }

    fn step(&mut self) {
        let m = self.a_mac();
        let p = self.r.below(PEERS.len() as u64) as usize;
        let ip = if self.r.one_in(2) { Some(self.an_ip()) } else { None };
        match self.r.below(12) {
            0..=3 => {
                let seq = self.a_seq();
                let (gateway, stale) = (self.r.one_in(16), self.r.one_in(8));
                // A sticky route has sequence 0; among gateways neither counts.
                let sticky = !gateway && self.r.one_in(8);
                let seq = if sticky || gateway { None } else { seq };
                let r = Route {
                    mac: m,
                    ip,
                    seq,
                    sticky,
                    gateway,
                    stale,
                    going: seq.is_some_and(|s| s.0 % 3 == 0),
                };
                self.log.push(format!("{} announces {r:?}", PEERS[p]));
                self.peers[p].announce(&mut self.w, &r);
                self.routes.insert((p, m, ip), r);
            }
            4..=6 => {
                self.log.push(format!("{} withdraws {m} {ip:?}", PEERS[p]));
                self.peers[p].withdraw(&mut self.w, m, ip);
                self.routes.remove(&(p, m, ip));
            }
            7 if self.r.one_in(4) => {
                self.log.push(format!("{} leaves and returns", PEERS[p]));
                self.peers[p].leave(&mut self.w);
                self.w.run_for(Span::millis(2));
                // A session that ends often is accepted again after a while only.
                for _ in 0..100 {
                    self.peers[p].connect(&mut self.w);
                    self.w.run_for(Span::millis(10));
                    if self.peers[p].is_up(&self.w) {
                        break;
                    }
                    self.w.run_for(Span::secs(5));
                }
                assert!(self.peers[p].is_up(&self.w), "{}it is not accepted any more", self.story());
                self.routes.retain(|k, _| k.0 != p);
            }
            7 | 8 => {
                self.log.push(format!("{m} ages"));
                if self.w.hosts[0].fdb.get(&m) != Some(&VXLAN) {
                    self.w.forget(0, m);
                }
            }
            n => {
                let port = if self.r.one_in(2) { P1 } else { P2 };
                let bytes = ip.filter(|_| n < 11).map(|ip| match ip {
                    IpAddr::V4(ip) => frame::gratuitous_arp(m, ip),
                    IpAddr::V6(_) => unreachable!("there are none"),
                });
                self.log.push(format!("{m} on {port:?} says {ip:?} {}", bytes.is_some()));
                self.w.frame(0, port, m, bytes);
                self.w.run_for(Span::millis(5));
                self.heard(m, port);
            }
        }
        self.w.run_for(Span::millis(30));
        self.check();
    }

    fn best(&self, m: Mac) -> Option<(&Route, IpAddr)> {
        let all = self.routes.iter().filter(|((_, mac, _), _)| *mac == m);
        let all = all.map(|((p, _, _), r)| (r, IpAddr::from(PEERS[*p])));
        all.reduce(|a, b| if better(b, a) { b } else { a })
    }

    /// EVPN-MOB-03, -17, PIT-23: a fresh local sign wins unless a fixed route stands.
    fn heard(&mut self, m: Mac, port: IfIndex) {
        let fixed = self.best(m).is_some_and(|(r, _)| !r.stale && (r.sticky || r.gateway));
        let at = self.w.hosts[0].fdb.get(&m).copied();
        assert_eq!(at == Some(port), !fixed, "{}: {m} was heard and is at {at:?}", self.story());
    }

    fn story(&self) -> String {
        format!("seed {}\n{}\n", self.seed, self.log.join("\n"))
    }

    fn check(&mut self) {
        let views = self.w.macs(0);
        let (held, _) = self.observer.held(&self.w, 0, Time(0)).expect("the session is up");
        let mut local = BTreeMap::new();
        for n in 1..=MACS {
            let m = mac(n);
            let view = views.iter().find(|v| v.mac == m);
            let best = self.best(m);
            let at = self.w.hosts[0].fdb.get(&m).copied();
            let told = held.get(&(m, None)).map(|c| c.map_or(Seq::ZERO, |(s, _)| s));
            match view.map(|v| (&v.place, v.seq)) {
                None => {
                    assert!(best.is_none(), "{}{m} has a route and no owner", self.story());
                    assert_eq!((at, told), (None, None), "{}{m} has no owner", self.story());
                }
                Some((Place::Port(p), seq)) => {
                    let port = if p == "p1" { P1 } else { P2 };
                    assert_eq!(at, Some(port), "{}{m} in the kernel", self.story());
                    assert_eq!(told, Some(seq), "{}{m} as told", self.story());
                    let ours = ours_at(m, seq);
                    if let Some(b) = best {
                        assert!(better((&ours, vtep(0)), b), "{}{m}: {b:?} beats {seq}", self.story());
                    }
                    // What was advertised does not fall (EVPN-MOB-12), except that a first 0 is not remembered.
                    let old = self.told.insert(m, seq);
                    assert!(
                        old.is_none_or(|o| o == Seq::ZERO || !newer(o, seq)),
                        "{}{m}: {old:?} fell to {seq}",
                        self.story()
                    );
                    local.insert(m, seq);
                }
                Some((Place::Vtep(v), seq)) => {
                    let Some((b, a)) = best else { panic!("{}{m} is at {v} by no route", self.story()) };
                    assert_eq!(
                        (*v, seq),
                        (a, b.seq.unwrap_or_default()),
                        "{}{m}: best is {b:?}",
                        self.story()
                    );
                    let row = Row::Remote { vxlan: VXLAN, vtep: *v, sticky: b.sticky };
                    assert_eq!((at, self.w.mac_row(0, m)), (Some(VXLAN), Some(row)), "{}{m}", self.story());
                    assert_eq!(told, None, "{}{m} is not ours", self.story());
                }
                Some((Place::None, _)) => panic!("{}{m} is nowhere", self.story()),
            }
        }
        self.check_addresses(&held, &local);
    }

    /// Every MAC+IP route of ours has its MAC's sequence (EVPN-XMOB-01), an address of ours is answered by its host
    /// alone, and others' by the best route to a MAC that is not here.
    fn check_addresses(&self, held: &scenario::Held, local: &BTreeMap<Mac, Seq>) {
        for ip in (1..=IPS).map(|n| IpAddr::from([10, 1, 0, n])) {
            let ours: Vec<Mac> = held.keys().filter(|(_, i)| *i == Some(ip)).map(|(m, _)| *m).collect();
            let row = self.w.neigh_row(0, ip);
            assert!(ours.len() <= 1, "{}{ip} is told with {ours:?}", self.story());
            if let Some(m) = ours.first() {
                let seq = held[&(*m, Some(ip))].map_or(Seq::ZERO, |(s, _)| s);
                assert_eq!(local.get(m), Some(&seq), "{}{m} {ip}", self.story());
                assert_eq!(row, None, "{}{ip} is ours", self.story());
                // EVPN-XMOB-02, -06, -08: no route to another MAC stands against it.
                let ours = ours_at(*m, seq);
                for ((p, mac, i), r) in &self.routes {
                    let stands =
                        *i == Some(ip) && mac != m && better((r, PEERS[*p].into()), (&ours, vtep(0)));
                    assert!(!stands, "{}{m} {ip} seq {seq} is beaten by {r:?}", self.story());
                }
                continue;
            }
            let all = self.routes.iter().filter(|((_, m, i), _)| *i == Some(ip) && !local.contains_key(m));
            let all = all.map(|((p, _, _), r)| (r, IpAddr::from(PEERS[*p])));
            let best = all.reduce(|a, b| if better(b, a) { b } else { a });
            let want = best.map(|(r, _)| r.mac);
            let seen = match row {
                Some(Row::Neigh { mac, .. }) => Some(mac),
                _ => None,
            };
            assert_eq!(seen, want, "{}{ip} is answered with {seen:?}, not {best:?}", self.story());
        }
    }
}

/// EVPN-XMOB-02: the host's frame comes before the node has got round to a route that is here already.
#[test]
fn a_route_that_waits_to_be_looked_at_is_exceeded_all_the_same() {
    let mut c = Case::new(1);
    let r = Route { seq: Some(Seq(6)), ..ours_at(mac(1), Seq(0)) };
    c.peers[2].announce_unheeded(&mut c.w, 0, &r);
    c.w.frame(0, P1, mac(1), None);
    c.w.run_for(Span::millis(5));
    c.routes.insert((2, mac(1), None), r);
    c.heard(mac(1), P1);
    c.check();
    assert_eq!(c.w.macs(0)[0].seq, Seq(7));
}

#[test]
fn whatever_the_peers_say_tables_kernel_and_routes_agree() {
    let seeds = std::env::var("VTEPD_SEEDS").ok().and_then(|s| s.parse().ok()).unwrap_or(200);
    let first = std::env::var("VTEPD_FIRST_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(1);
    for seed in first..first + seeds {
        let mut c = Case::new(seed);
        for _ in 0..60 {
            c.step();
        }
    }
}
