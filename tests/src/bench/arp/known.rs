//! Hosts that are known ask for each other: the kernel answers where they are, nothing crosses the underlay, and the daemon
//! that listens on the port costs the answer nothing. Beside the same rows on a bridge of the same kind without a daemon.

use crate::asking::{Party, as_answer, ask};
use crate::bench::{Daemon, Report, Samples, Sizes, System, mac, quiet};
use crate::fabric::{Fabric, Vtep};
use crate::packet::{Wire, now};
use crate::poll::{LATER, eventually, same};
use crate::vtepd::Vtepd;
use evpn::node::probe_mac;
use evpn::types::Vni;
use std::net::IpAddr;
use std::time::Duration;

const SET: u8 = 12;
/// An answer that takes so long is none.
const LIMIT: Duration = Duration::from_secs(1);
/// The VTEPs with a daemon, and the one without.
const HERE: usize = 0;
const THERE: usize = 1;
const BARE: usize = 2;

pub(super) fn run(sizes: &Sizes, report: &mut Report) {
    let f = Fabric::new(3);
    let daemons = [HERE, THERE].map(|i| {
        f.vteps[i].make_devices(100, &["p1"]);
        f.vteps[i].ns.sh("ip link set br100 type bridge ageing_time 360000");
        let mut conf = f.conf(i);
        conf.neighbors.retain(|(a, _)| *a != f.vteps[BARE].address);
        Daemon::Vtepd(Box::new(Vtepd::start(&f.vteps[i].ns, &conf)))
    });
    for i in [HERE, THERE] {
        eventually(LATER, "they flood to each other", || same(f.vteps[i].flood_list(100).len(), 1));
    }
    f.vteps[BARE].make_devices(100, &["p1"]);
    quiet(&f);
    let ports = [HERE, THERE, BARE].map(|i| f.guest_port(i, "p1"));
    for v6 in [false, true] {
        let [asker, owner] = [1, 2].map(|n| party(n, v6));
        for (port, who) in [(HERE, asker), (THERE, owner), (BARE, asker)] {
            ports[port].send(&super::announcement(who));
        }
        eventually(LATER, "the kernel answers", || {
            let row = f.vteps[HERE].neigh_row(100, owner.1);
            same(row["lladdr"].as_str(), Some(owner.0.to_string().as_str()))?;
            same(f.vteps[HERE].place(100, owner.0), crate::fabric::Place::vtep(&f.vteps[THERE]))
        });
        same_rows(&f.vteps[BARE], owner, f.vteps[THERE].address);
        let underlay = Wire::open(&f.spine, "u1");
        let mut took = [Samples::default(), Samples::default()];
        for n in 0..sizes.answers {
            for (which, port) in [HERE, BARE].into_iter().enumerate() {
                // Not in step with anything; the daemon has gone back to sleep.
                std::thread::sleep(Duration::from_micros(300 + (n as u64 * 37) % 211));
                took[which].push(answered(&ports[port], asker, owner));
            }
        }
        // VTEPs that have just met measure how far apart they are, three times; no host has to do with it.
        let vni = Vni::new(100).expect("valid");
        let own = [HERE, THERE].map(|i| probe_mac(f.vteps[i].address, vni).0);
        let theirs = |f: &[u8]| [50, 56].into_iter().all(|at| own.iter().any(|m| f[at..].starts_with(m)));
        let crossed: Vec<_> =
            std::iter::from_fn(|| underlay.poll()).filter(|(_, f)| is_vxlan(f) && !theirs(f)).collect();
        for (_, f) in crossed.iter().take(10) {
            eprintln!("  crossed: {:02x?}", &f[50..f.len().min(110)]);
        }
        let name = if v6 { "ND" } else { "ARP" };
        let what = format!("{name} for a known host: question to answer");
        report.times(&what, Some(System::Vtepd), &took[0]);
        report.times(&what, None, &took[1]);
        let ratio = took[0].percentile(50.0) / took[1].percentile(50.0);
        report.number(
            format!("{name} for a known host: median to the bare kernel's"),
            System::Vtepd,
            "",
            ratio,
        );
        let what = format!("{name} for a known host: VXLAN frames on the underlay");
        report.number(what, System::Vtepd, "", crossed.len() as f64);
    }
    drop(daemons);
}

fn party(n: u32, v6: bool) -> Party {
    let ip = if v6 { format!("fd00:100::{n}") } else { format!("192.168.100.{n}") };
    (mac(SET, n), ip.parse().expect("an address"))
}

/// What a daemon would have written.
fn same_rows(v: &Vtep, (mac, ip): Party, vtep: IpAddr) {
    v.ns.sh(&format!(
        "bridge fdb replace {mac} dev vx100 dst {vtep} self master extern_learn
         ip neigh replace {ip} lladdr {mac} dev br100 nud noarp extern_learn"
    ));
}

/// Asks and looks for the answer all the time: no wake-up is in the figure.
fn answered(port: &Wire, asker: Party, owner: Party) -> u64 {
    let question = ask(asker, owner.1);
    port.drain();
    let begun = port.send(&question);
    while now() - begun < LIMIT.as_nanos() as u64 {
        if let Some((at, f)) = port.poll()
            && as_answer(&f) == Some(owner)
        {
            return at - begun;
        }
    }
    panic!("nobody answers {} for {}", asker.1, owner.1);
}

/// IPv4, UDP, to VXLAN's port, with a VNI: what asks for the MTU of the path has none.
fn is_vxlan(f: &[u8]) -> bool {
    f.len() > 50 && f[12..14] == [8, 0] && f[23] == 17 && f[36..38] == 4789u16.to_be_bytes() && f[42] & 8 != 0
}
