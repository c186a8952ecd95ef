//! The bare kernel's time for rows: `cargo bench -p netlink` (as root). Nothing is asserted.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a bench may panic, and prints")]

use evpn::fabric::{DeviceWant, Row, RowKey, Want};
use evpn::types::{IfIndex, Mac, Vni};
use netlink::linux::dump::Reader;
use netlink::linux::{Installer, Interest, Monitor, Writer, netns};
use netlink::reconcile::Scope;
use netlink::{Kernel as _, Op, Reconciler, plan};
use std::net::IpAddr;
use std::time::{Duration, Instant};

fn mac(n: u32) -> Mac {
    let [a, b, c, d] = n.to_be_bytes();
    Mac([2, 0, a, b, c, d])
}

fn median(mut v: Vec<Duration>) -> (Duration, Duration) {
    v.sort();
    (v[v.len() / 2], v[v.len() * 99 / 100])
}

/// Wall clock and processor time of this thread: the second is what an idle machine would show.
struct Watch(Instant, Duration);

fn cpu() -> Duration {
    let t = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(t.tv_sec as u64, t.tv_nsec as u32)
}

impl Watch {
    fn start() -> Self {
        Self(Instant::now(), cpu())
    }
    fn per(&self, n: u32) -> String {
        let (wall, cpu) = (self.0.elapsed(), cpu().saturating_sub(self.1));
        let each = |d: Duration| d.as_secs_f64() * 1e6 / f64::from(n);
        format!(
            "{:>9.2} ms, per row {:>7.2} µs wall, {:>6.2} µs cpu",
            wall.as_secs_f64() * 1e3,
            each(wall),
            each(cpu)
        )
    }
}

fn main() {
    let done = netns::in_new(run).unwrap().join().unwrap();
    if let Err(e) = done {
        println!("skipped: cannot make a network namespace ({e}); run as root");
    }
}

fn run() {
    let vtep = |n: u8| IpAddr::from([10, 0, 0, n]);
    let wants = vec![DeviceWant {
        vni: Vni::new(100).unwrap(),
        bridge: "br100".to_owned(),
        bridge_mac: Mac([2, 0xbb, 0, 0, 0, 1]),
        vxlan: "vx100".to_owned(),
        local: vtep(1),
        udp_port: 4789,
        mtu: None,
        fdb_limit: 0,
        arp_suppression: true,
        unicast_flood: None,
        ports: Vec::new(),
        gateway: None,
    }];
    println!("problems: {:?}", Installer::new().ensure(&wants).unwrap());
    let mut interest = Interest::devices(&wants);
    let mut reader = Reader::open().unwrap();
    let links = reader.links().unwrap();
    let (mut bridge, mut vxlan) = (IfIndex(0), IfIndex(0));
    for l in &links {
        interest.note(l);
        match l.name.as_str() {
            "br100" => bridge = l.index,
            "vx100" => vxlan = l.index,
            _ => {}
        }
    }
    let mut writer = Writer::open().unwrap();
    let mut res = Vec::new();

    for listening in [false, true] {
        let mut monitor = listening.then(|| {
            let mut m = Monitor::open(interest.clone()).unwrap();
            m.set_interest(interest.clone());
            for l in &links {
                m.note_link(l);
            }
            m
        });
        println!("\nwith a monitor listening: {listening}");
        for n in [10_000u32, 100_000] {
            let set: Vec<Op> =
                (0..n).map(|i| Op::SetRemote { vxlan, mac: mac(i), vtep: vtep((i % 8 + 2) as u8) }).collect();
            let del: Vec<Op> =
                (0..n).map(|i| Op::DelRemote { vxlan, mac: mac(i), vtep: vtep((i % 8 + 2) as u8) }).collect();
            res.clear();
            let t = Watch::start();
            writer.apply(&set, &mut res);
            println!("{n:>7} MACs, both rows, set     {}", t.per(n));
            assert!(res.iter().all(Result::is_ok), "{:?}", res.iter().find(|r| r.is_err()));
            if let Some(m) = &mut monitor {
                let (mut events, mut got) = (Vec::with_capacity(1024), 0);
                let t = Watch::start();
                loop {
                    events.clear();
                    let k = m.recv(1024, &mut events).unwrap();
                    got += events.len();
                    if k == 0 {
                        break;
                    }
                }
                println!(
                    "{got:>7} notifications received      {} (overruns {})",
                    t.per(got as u32),
                    m.overruns()
                );
            }
            res.clear();
            let t = Watch::start();
            writer.apply(&set, &mut res);
            println!("{n:>7} MACs, nothing changes      {}", t.per(n));
            let mut rows = 0;
            let t = Watch::start();
            reader.fdb(&interest, &mut |c| rows += c.len()).unwrap();
            println!("{rows:>7} rows, dump                  {}", t.per(rows as u32));
            res.clear();
            let t = Watch::start();
            writer.apply(&del, &mut res);
            println!("{n:>7} MACs, both rows, delete  {}", t.per(n));
            assert!(res.iter().all(Result::is_ok));
            if let Some(m) = &mut monitor {
                let mut events = Vec::new();
                while m.recv(4096, &mut events).unwrap() > 0 {
                    events.clear();
                }
            }
        }
    }

    println!();
    for batch in [1usize, 4, 16, 64, 256] {
        let mut times = Vec::new();
        for round in 0..400u32 {
            let ops: Vec<Op> = (0..batch as u32)
                .map(|i| Op::SetRemote { vxlan, mac: mac(i), vtep: vtep((round % 2 + 2) as u8) })
                .collect();
            res.clear();
            let t = Watch::start();
            writer.apply(&ops, &mut res);
            times.push(t.0.elapsed());
        }
        let (p50, p99) = median(times);
        println!("inline batch of {batch:>3}: p50 {p50:?}, p99 {p99:?}");
    }

    // Pure part: plan 100,000 wanted rows against an empty and against a full mirror.
    let mut rec = Reconciler::new();
    rec.manage(&wants);
    let (generation, _) = rec.take_scope().unwrap();
    let mut news = Vec::new();
    reader.read(Scope::All, &mut interest, &mut |c| rec.dumped(generation, c, &mut news)).unwrap();
    rec.end_dump(generation, true);
    rec.confirmed(generation, &[], &mut news);
    let mut want = Want::default();
    for i in 0..100_000 {
        want.set(
            RowKey::Mac { bridge, mac: mac(i) },
            Row::Remote { vxlan, vtep: vtep(2), sticky: false },
            false,
        );
    }
    let before = rss_kib();
    let t = Watch::start();
    let mut ops = 0;
    while let Some(b) = rec.next_batch(&mut want, 2048) {
        ops += b.ops.len();
        let ok: Vec<_> = b.ops.iter().map(|_| Ok(())).collect();
        rec.done(b, &ok);
    }
    println!("\n{ops} ops planned and taken back   {}", t.per(ops as u32));
    println!("mirror grew by {} octets per MAC", (rss_kib() - before) * 1024 / 100_000);
    let t = Watch::start();
    let none = plan::plan(&want, rec.mirror()).len();
    println!("whole plan, {none} differences         {}", t.per(100_000));
}

fn rss_kib() -> i64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|l| l.starts_with("VmRSS")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
