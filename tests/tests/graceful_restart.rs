//! Graceful restart on real kernels: `kill -9` and a stop cost a flow nothing, and a stale route defends nothing
//! (BGP-GR-07, -09, -11, -15, PIT-23); FRR on the other side.

use std::net::IpAddr;
use std::time::{Duration, Instant};
use vtepd_tests::fabric::{Fabric, Guest, Host, Place, test_mac};
use vtepd_tests::mixed::Mixed;
use vtepd_tests::need::{Need, met, program};
use vtepd_tests::poll::{LATER, SOON, eventually, same, throughout};
use vtepd_tests::proc::Proc;
use vtepd_tests::vtepd::{Conf, Vtepd};

/// Two guests with a stack behind two VTEPs.
struct Pair {
    f: Fabric,
    hosts: [Host; 2],
    confs: [Conf; 2],
}

const ADDRESSES: [&str; 2] = ["192.168.100.11", "192.168.100.12"];

impl Pair {
    fn new(n: usize) -> Self {
        let f = Fabric::new(n);
        let host = |i: usize| f.host(i, "h1", test_mac(0x70 + i as u16), &[&format!("{}/24", ADDRESSES[i])]);
        let hosts = [host(0), host(1)];
        let conf = |i| {
            let mut conf = f.conf(i);
            conf.vnis = vec![(100, vec!["h1".into()])];
            conf
        };
        let confs = [conf(0), conf(1)];
        Self { f, hosts, confs }
    }

    fn start(&self) -> [Vtepd; 2] {
        let daemons = [0, 1].map(|i| Vtepd::start(&self.f.vteps[i].ns, &self.confs[i]));
        daemons.iter().for_each(Vtepd::converge);
        eventually(SOON, "the guests reach each other", || self.hosts[0].try_ping(ADDRESSES[1]));
        eventually(SOON, "and are answered for", || self.answered());
        daemons
    }

    /// VTEP 1 has a row for the guest behind VTEP 0, and answers for it.
    fn answered(&self) -> Result<(), String> {
        let (v, host) = (&self.f.vteps[1], &self.hosts[0]);
        let ip: IpAddr = ADDRESSES[0].parse().expect("an address");
        let row = v.neigh_row(100, ip);
        if row["lladdr"] != host.mac.to_string().as_str() {
            return Err(format!("not answered for: {row}"));
        }
        v.sends_to(100, host.mac, &Place::vtep(&self.f.vteps[0])).map_err(|p| format!("it is at {p:?}"))
    }
}

/// A ping each ten milliseconds, and an ARP request each second that must be answered.
struct Flow {
    ping: Proc,
    log: tempfile::NamedTempFile,
}

impl Flow {
    fn start(from: &Host, to: &str) -> Self {
        let log = tempfile::NamedTempFile::new().expect("a file");
        let args = ["-n", "-i", "0.01", "-W", "1", to];
        let ping = Proc::start(&from.ns, &program("ping").expect("needed"), &args, log.path());
        Self { ping, log }
    }

    /// How many were sent, and how many answered.
    fn end(mut self) -> (u64, u64) {
        self.ping.signal(rustix::process::Signal::INT);
        self.ping.wait(SOON);
        let text = std::fs::read_to_string(self.log.path()).expect("its log");
        let line = text.lines().find(|l| l.contains("packets transmitted")).expect("its summary");
        let mut numbers = line.split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse().ok());
        (numbers.next().expect("sent"), numbers.next().expect("received"))
    }
}

fn stale(d: &Vtepd) -> u64 {
    d.show("neighbors", &[])[0]["routes_stale"].as_u64().expect("a number")
}

/// The rows at the other VTEP are there all the time; nothing of a flow is lost, not even where the guests have
/// forgotten each other and ask again.
#[test]
fn a_flow_loses_nothing_while_a_daemon_is_killed_or_stopped_and_started() {
    if !met(&[Need::Root, Need::Tool("ping")]) {
        return;
    }
    let p = Pair::new(2);
    let [mut a, b] = p.start();
    for killed in [true, false] {
        let there = Flow::start(&p.hosts[0], ADDRESSES[1]);
        let back = Flow::start(&p.hosts[1], ADDRESSES[0]);
        let dir = if killed { a.kill() } else { a.stop() };
        eventually(SOON, "VTEP 1 has noticed", || {
            same(b.neighbor_state(p.f.vteps[0].address) != "Established", true)
        });
        assert!(stale(&b) >= 3, "{:?}", b.show("neighbors", &[]));
        // A guest that asks anew is answered by its bridge.
        p.hosts[1].ns.sh("ip neigh flush dev eth0");
        throughout(Duration::from_secs(2), "away", || p.answered());
        a = Vtepd::start_again(&p.f.vteps[0].ns, &p.confs[0], dir);
        let begun = Instant::now();
        while stale(&b) > 0 || b.status()["converged"] != true {
            p.answered().expect("while it comes back");
            assert!(begun.elapsed() < LATER, "{:?}", b.show("neighbors", &[]));
        }
        throughout(Duration::from_secs(1), "back", || p.answered());
        for (name, flow) in [("there", there), ("back", back)] {
            let (sent, received) = flow.end();
            println!("killed {killed}, {name}: {sent} sent, {} lost", sent - received);
            assert!(sent > 100, "{sent}");
            // The last one may be under way.
            assert!(sent - received <= 1, "{sent} sent, {received} answered");
        }
        let log = b.process.log();
        assert!(log.contains("neighbour is away, its routes are kept"), "{log}");
    }
}

/// PIT-23: the power of VTEP 0 is gone. Its guest is started elsewhere, with the same MAC and with another one; and a stop
/// for good is no restart.
#[test]
fn a_guest_of_a_dead_vtep_that_is_started_elsewhere_is_not_defended() {
    if !met(&[Need::Root]) {
        return;
    }
    let mut m = Mixed::new(Fabric::new(3));
    (0..3).for_each(|i| m.start_vtepd(i));
    m.converge();
    let (g, h) = (Guest::new(61), Guest::new(62));
    for x in [&g, &h] {
        m.guest(0).send(&x.garp());
        eventually(SOON, "known", || m.vtep(1).sends_to(100, x.mac, &Place::vtep(m.vtep(0))));
    }
    m.kill_vtepd(0);
    eventually(SOON, "its routes are stale", || {
        let stale = m.vtepd(1).show("neighbors", &[])[0]["routes_stale"].as_u64();
        if stale >= Some(5) { Ok(()) } else { Err(stale) }
    });
    m.vtep(1).sends_to(100, g.mac, &Place::vtep(m.vtep(0))).expect("kept");
    m.guest(2).send(&g.garp());
    eventually(SOON, "the same MAC", || m.vtep(1).sends_to(100, g.mac, &Place::vtep(m.vtep(2))));
    eventually(SOON, "and its address", || m.answers(1, &g));
    let new = Guest { mac: test_mac(0x99), ..Guest::new(62) };
    m.guest(2).send(&new.garp());
    eventually(SOON, "another MAC", || m.vtep(1).sends_to(100, new.mac, &Place::vtep(m.vtep(2))));
    eventually(SOON, "with the address", || m.answers(1, &new));

    m.vtepd(2).process.signal(rustix::process::Signal::QUIT);
    eventually(SOON, "a stop for good takes everything along", || {
        m.vtep(1).sends_to(100, new.mac, &Place::Nowhere)
    });
    let why = &m.vtepd(1).show("neighbors", &[])[1]["last_error"];
    assert!(why.as_str().is_some_and(|w| w.contains("hard reset")), "{why}");
}
