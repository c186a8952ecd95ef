//! When the daemon is dead its answers to ARP and ND end (PIT-20).

use serde_json::Value;
use std::net::{IpAddr, Ipv4Addr};
use std::process::Command;
use std::time::{Duration, Instant};
use vtepd_tests::fabric::{Fabric, Guest, Place, Vtep, test_mac};
use vtepd_tests::need::{Need, met};
use vtepd_tests::poll::{SOON, eventually, same, throughout};
use vtepd_tests::speaker::{Attributes, Speaker, imet, mac_ip};
use vtepd_tests::vtepd::{Conf, Vtepd};

const STALE: Duration = Duration::from_secs(4);

struct World {
    f: Fabric,
    conf: Conf,
    guest: Guest,
    speaker: Speaker,
}

impl World {
    /// A daemon whose kernel answers for one remote guest, by a route that its peer announces.
    fn start() -> (Self, Vtepd) {
        let f = Fabric::new(2);
        let mut conf = f.conf(0);
        conf.sections = format!("[arp]\nstale-time = \"{}s\"", STALE.as_secs());
        let d = Vtepd::start(&f.vteps[0].ns, &conf);
        let guest = Guest::new(5);
        let speaker = Self::speak(&f, &guest);
        let w = Self { f, conf, guest, speaker };
        eventually(SOON, "the kernel answers for the guest", || w.answers(true));
        (w, d)
    }

    fn speak(f: &Fabric, guest: &Guest) -> Speaker {
        let b = &f.vteps[1];
        let s = Speaker::accept(&b.ns, b.address, 65000);
        let at = Attributes::new(b.address, 100);
        s.announce(&at.clone().ingress_replication(100, b.address), &[imet(b.address)]);
        s.announce(&at, &[mac_ip(100, guest.mac, None), mac_ip(100, guest.mac, Some(guest.ip.into()))]);
        s.end_of_rib();
        s
    }

    fn vtep(&self) -> &Vtep {
        &self.f.vteps[0]
    }

    /// Whether there is a neighbour row; the forwarding row is always there.
    fn answers(&self, yes: bool) -> Result<(), String> {
        self.vtep()
            .sends_to(100, self.guest.mac, &Place::vtep(&self.f.vteps[1]))
            .map_err(|e| format!("{e:?}"))?;
        let want = if yes { Value::from(self.guest.mac.to_string()) } else { Value::Null };
        same(self.vtep().neigh_row(100, self.guest.ip.into())["lladdr"].clone(), want)
    }

    /// Process ids of wardens in the namespace of the VTEP.
    fn wardens(&self) -> Vec<i32> {
        let pids =
            Command::new("ip").args(["netns", "pids", self.vtep().ns.name()]).output().expect("ip runs");
        let of = |pid: &str| std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let is = |pid: &&str| of(pid).split(|b| *b == 0).nth(1) == Some(b"warden");
        String::from_utf8_lossy(&pids.stdout)
            .split_whitespace()
            .filter(is)
            .filter_map(|p| p.parse().ok())
            .collect()
    }

    fn one_warden(&self) -> i32 {
        let all = self.wardens();
        assert_eq!(all.len(), 1, "{all:?}");
        all[0]
    }
}

#[test]
fn answers_of_a_killed_daemon_end_after_the_stale_time_and_forwarding_goes_on() {
    if !met(&[Need::Root]) {
        return;
    }
    let (w, d) = World::start();
    let foreign: IpAddr = Ipv4Addr::new(192, 168, 100, 240).into();
    let mac = test_mac(0xf0);
    w.vtep().ns.sh(&format!("ip neigh add {foreign} lladdr {mac} dev br100 nud permanent"));
    let dir = d.kill();
    let killed = Instant::now();
    throughout(STALE.saturating_sub(Duration::from_millis(1500)), "the rows stay for the stale time", || {
        w.answers(true)
    });
    eventually(SOON, "then they go", || w.answers(false));
    let after = killed.elapsed();
    assert!(
        after >= STALE.saturating_sub(Duration::from_millis(100)),
        "rows of a dead daemon went after {after:?}"
    );
    same(w.vtep().neigh_row(100, foreign)["lladdr"].clone(), mac.to_string().into())
        .expect("a neighbour of somebody else stays");
    eventually(SOON, "the warden has nothing left to do", || same(w.wardens(), Vec::new()));

    // The daemon that follows answers again.
    let d = Vtepd::start_again(&w.vtep().ns, &w.conf, dir);
    let _again = World::speak(&w.f, &w.guest);
    eventually(SOON, "the kernel answers again", || w.answers(true));
    drop(d);
}

#[test]
fn a_daemon_that_starts_in_time_keeps_its_answers() {
    if !met(&[Need::Root]) {
        return;
    }
    let (w, mut d) = World::start();
    let warden = w.one_warden();
    let mut speaker = None;
    for _ in 0..3 {
        let dir = d.kill();
        drop(speaker.take());
        d = Vtepd::start_again(&w.vtep().ns, &w.conf, dir);
        speaker = Some(World::speak(&w.f, &w.guest));
        w.answers(true).expect("adopted");
    }
    // The clock of the first death would have run out meanwhile.
    throughout(STALE + Duration::from_secs(2), "the rows stay", || w.answers(true));
    assert_eq!(w.one_warden(), warden, "one warden for all of them");
    drop(d);
}

#[test]
fn a_warden_that_ends_is_replaced_and_no_warden_outlives_its_namespace() {
    if !met(&[Need::Root]) {
        return;
    }
    let (w, d) = World::start();
    let first = w.one_warden();
    // One of ours: the daemon of this test has started it.
    let killed = Command::new("kill").args(["-9", &first.to_string()]).status().expect("kill runs");
    assert!(killed.success());
    let mut second = first;
    eventually(SOON, "another one is there", || match w.wardens().as_slice() {
        [pid] if *pid != first => {
            second = *pid;
            Ok(())
        }
        other => Err(format!("{other:?}")),
    });
    eventually(SOON, "and it is told", || {
        let log = d.process.log();
        if log.contains("the warden had ended") { Ok(()) } else { Err(log) }
    });
    d.kill();
    let World { f, speaker, .. } = w;
    drop((speaker, f));
    eventually(
        SOON,
        "it ends with its namespace, long before the stale time of a daemon in production",
        || {
            if std::fs::exists(format!("/proc/{second}/cmdline")).unwrap_or(true) {
                Err("still there")
            } else {
                Ok(())
            }
        },
    );
}
