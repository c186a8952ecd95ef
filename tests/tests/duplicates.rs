//! Duplicate MACs on real kernels: two live hosts that both answer ARP, storms that only look like a duplicate, an FRR
//! beside us with a detection of its own (EVPN-MOB-15, -16, EVPN-XMOB-17).

use evpn::types::Mac;
use serde_json::Value;
use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::process::Command;
use std::time::{Duration, Instant};
use vtepd_tests::fabric::{Fabric, Guest, Host, Place, test_mac};
use vtepd_tests::frame;
use vtepd_tests::mixed::Mixed;
use vtepd_tests::need::{Need, met, our};
use vtepd_tests::packet::Wire;
use vtepd_tests::poll::{LATER, SOON, eventually, throughout};

const IP: Ipv4Addr = Ipv4Addr::new(192, 168, 100, 9);

fn mac() -> Mac {
    test_mac(900)
}

/// A host with the shared MAC and IP, and a way to let it speak.
struct Twin {
    /// Lives as long as the twin.
    _host: Host,
    wire: Wire,
}

impl Twin {
    fn new(f: &Fabric, vtep: usize) -> Self {
        let host = f.host(vtep, "h1", mac(), &["192.168.100.9/24"]);
        let wire = Wire::open(&host.ns, "eth0");
        Self { _host: host, wire }
    }

    fn speak(&self) {
        self.wire.send(&frame::arp_request(mac(), IP, Ipv4Addr::new(192, 168, 100, 254)));
    }
}

/// Two VTEPs with vtepd, a twin behind each, and this line in `[mobility]`.
fn twins(duplicates: &str) -> (Mixed, [Twin; 2]) {
    let mut m = Mixed::new(Fabric::new(2));
    let twins = [0, 1].map(|i| Twin::new(&m.fabric, i));
    for i in [0, 1] {
        let mut conf = m.fabric.conf(i);
        conf.vnis[0].1.push("h1".into());
        conf.sections = format!("[mobility]\nduplicates = {{ {duplicates} }}\n");
        m.start_vtepd_with(i, &conf);
    }
    m.converge();
    (m, twins)
}

/// The duplicates that each vtepd has found out.
fn found(m: &Mixed) -> Vec<(usize, Value)> {
    [0, 1]
        .into_iter()
        .flat_map(|i| m.vtepd(i).show("duplicates", &[]).into_iter().map(move |d| (i, d)))
        .collect()
}

/// Both speak by turns until somebody has found out. Gives who, and what.
fn fight(m: &Mixed, twins: &[Twin; 2]) -> (usize, Value) {
    eventually(SOON, "the first one is known", || {
        // The other one's kernel may have said something of its own before.
        twins[0].speak();
        m.vtep(1).sends_to(100, mac(), &Place::vtep(m.vtep(0)))
    });
    let begun = Instant::now();
    let (at, d) = eventually(SOON, "the duplicate is found", || {
        for t in twins.iter().rev() {
            t.speak();
        }
        found(m).into_iter().next().ok_or("none")
    });
    let since = Duration::from_nanos(d["since"].as_u64().unwrap_or(0));
    println!("found out {:?} after the second host's first frame", begun.elapsed().saturating_sub(since));
    (at, d)
}

fn events(m: &Mixed, i: usize, name: &str) -> usize {
    m.vtepd(i).show("events", &[]).iter().filter(|e| e["event"] == name).count()
}

fn clear(m: &Mixed, i: usize, args: &[&str]) -> (bool, String) {
    let mut c = Command::new(our("vtepd"));
    c.args(["clear", "duplicate", "--vni", "100", "--socket"]).arg(m.vtepd(i).socket()).args(args);
    let out = c.output().expect("vtepd runs");
    let text = [out.stdout, out.stderr].concat();
    (out.status.success(), String::from_utf8_lossy(&text).into_owned())
}

#[test]
fn two_live_hosts_with_one_mac_are_reported() {
    if !met(&[Need::Root]) {
        return;
    }
    let (m, twins) = twins("mode = \"oscillation\"");
    let (at, d) = fight(&m, &twins);
    assert_eq!((&d["address"]["mac"], &d["state"]), (&mac().to_string().into(), &"reported".into()), "{d}");
    assert_eq!(d["owners"].as_array().map(Vec::len), Some(2), "{d}");
    assert_eq!(events(&m, at, "duplicate"), 1);
    assert_eq!(m.vtepd(at).mac(&mac().to_string())["duplicate"], true);
    assert_eq!(m.vtepd(at).status()["counters"]["duplicates"], 1);
    // One of them goes: the other one has the MAC, and after a while there is no duplicate any more.
    let [stays, goes] = twins;
    drop(goes);
    eventually(LATER, "one owner, no duplicate", || {
        stays.speak();
        m.vtep(1).sends_to(100, mac(), &Place::vtep(m.vtep(0))).map_err(|p| format!("{p:?}"))?;
        if found(&m).is_empty() { Ok(()) } else { Err(format!("{:?}", found(&m))) }
    });
}

/// Blocked: the owner keeps the MAC whatever the other one says, whose frames do not even leave its port; when the
/// owner dies the other one is there.
#[test]
fn a_blocked_duplicate_is_silent_and_takes_over_when_its_owner_dies() {
    if !met(&[Need::Root]) {
        return;
    }
    let (m, twins) = twins("action = \"block\"");
    let (loser, d) = fight(&m, &twins);
    let owner = 1 - loser;
    assert_eq!((&d["state"], &d["port"]), (&"blocked".into(), &"h1".into()), "{d}");
    let settled = || {
        m.vtep(loser).sends_to(100, mac(), &Place::vtep(m.vtep(owner)))?;
        m.vtep(owner).sends_to(100, mac(), &Place::port("h1"))
    };
    eventually(SOON, "the owner has it", settled);
    let far = m.guest(owner);
    // The filter takes a moment; from then on nothing of the loser's host arrives anywhere.
    let marked = frame::arp_request(mac(), IP, Ipv4Addr::new(192, 168, 100, 253));
    let passed = || far.find(Duration::from_millis(200), |f| (f == marked).then_some(())).is_some();
    eventually(SOON, "frames of the other host are dropped", || {
        far.drain();
        twins[loser].wire.send(&marked);
        if passed() { Err("one passed") } else { Ok(()) }
    });
    let seq = m.vtepd(owner).mac(&mac().to_string())["seq"].clone();
    throughout(Duration::from_secs(4), "it stays with its owner, and blocked", || {
        twins[loser].speak();
        twins[owner].speak();
        settled().map_err(|p| format!("{p:?}"))?;
        if found(&m).len() == 1 { Ok(()) } else { Err(format!("{:?}", found(&m))) }
    });
    assert_eq!(m.vtepd(owner).mac(&mac().to_string())["seq"], seq, "no sequence climbs");
    // The owner's host is gone, with its port.
    let [a, b] = twins;
    let (lives, dies) = if loser == 0 { (a, b) } else { (b, a) };
    drop(dies);
    eventually(SOON, "the survivor has it, without having said anything", || {
        m.vtep(owner).sends_to(100, mac(), &Place::vtep(m.vtep(loser)))
    });
    assert_eq!(found(&m).len(), 0);
    assert_eq!(events(&m, loser, "duplicate-ended"), 1);
    let far = m.guest(owner);
    eventually(SOON, "and its frames pass", || {
        lives.wire.send(&marked);
        far.find(Duration::from_millis(200), |f| (f == marked).then_some(())).ok_or("none passed")
    });
}

/// The other host dies; an operator lets go, too.
#[test]
fn a_frozen_duplicate_ends_with_its_other_host_or_by_an_operator() {
    if !met(&[Need::Root]) {
        return;
    }
    let (m, twins) = twins("action = \"freeze\"");
    let (loser, _) = fight(&m, &twins);
    let owner = 1 - loser;
    let (done, text) = clear(&m, owner, &["--mac", &mac().to_string()]);
    assert!(!done && text.contains("show duplicates"), "{text}");
    let before = m.vtepd(owner).mac(&mac().to_string())["seq"].as_u64().unwrap_or(0);
    let (done, text) = clear(&m, loser, &["--mac", &mac().to_string()]);
    assert!(done, "{text}");
    // Both are alive and answer: the one here has it at once, above the other (EVPN-XMOB-17), and they fight on.
    eventually(SOON, "claimed above the other's sequence", || {
        let seq = [0, 1].map(|i| m.vtepd(i).mac(&mac().to_string())["seq"].as_u64().unwrap_or(0));
        if seq.iter().any(|s| *s > before) { Ok(()) } else { Err(seq) }
    });
    let (loser, _) = eventually(SOON, "found again", || {
        for t in &twins {
            t.speak();
        }
        found(&m).into_iter().next().ok_or("none")
    });
    let [a, b] = twins;
    let (dies, _lives) = if loser == 0 { (a, b) } else { (b, a) };
    drop(dies);
    eventually(
        SOON,
        "one host is none too many",
        || if found(&m).is_empty() { Ok(()) } else { Err(found(&m)) },
    );
    let owner = 1 - loser;
    m.vtep(loser).sends_to(100, mac(), &Place::vtep(m.vtep(owner))).unwrap();
}

/// "How it is seen": nobody is taken for a duplicate, whatever would be done about one.
#[test]
fn a_storm_of_announcements_with_late_frames_freezes_nobody() {
    storm("[mobility]\nduplicates = { action = \"freeze\" }\n");
}

#[test]
fn a_storm_of_announcements_with_late_frames_blocks_nobody() {
    storm("[mobility]\nduplicates = { action = \"block\" }\n");
}

#[test]
fn a_storm_of_announcements_with_late_frames_is_no_duplicate_by_default() {
    storm("");
}

/// 50 VMs move at once, each announced six times within a second at the target while late frames still leave the source.
/// Each ends at the target, is heard from there, and nobody is told of a duplicate (EVPN-MOB-15, PIT-04).
fn storm(sections: &str) {
    if !met(&[Need::Root]) {
        return;
    }
    let mut m = Mixed::new(Fabric::new(2));
    for i in [0, 1] {
        let mut conf = m.fabric.conf(i);
        conf.sections = sections.into();
        m.start_vtepd_with(i, &conf);
    }
    m.converge();
    let vms: Vec<Guest> = (100..150).map(Guest::new).collect();
    let (source, target) = (m.guest(0), m.guest(1));
    for g in &vms {
        source.send(&g.garp());
    }
    eventually(SOON, "all are known", || match m.vtepd(1).status()["remote_macs"].as_u64() {
        Some(50) => Ok(()),
        n => Err(n),
    });
    let begun = Instant::now();
    // Whoever still speaks after the guard time is there; these do not answer questions.
    let late = || begun.elapsed() < Duration::from_millis(800);
    for round in 0..6u32 {
        for g in &vms {
            target.send(&if round % 2 == 0 { g.rarp() } else { g.garp() });
            if late() {
                source.send(&frame::data(Mac::BROADCAST, g.mac, u64::from(round)));
            }
        }
        // A frame now and then until the next round of announcements.
        while begun.elapsed() < Duration::from_millis(180) * (round + 1) {
            for g in vms.iter().step_by(5).filter(|_| late()) {
                source.send(&frame::data(Mac::BROADCAST, g.mac, 0));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    eventually(SOON, "each is at the target, everywhere", || {
        for g in &vms {
            m.vtep(0).sends_to(100, g.mac, &Place::vtep(m.vtep(1))).map_err(|p| (g.mac, p))?;
            m.vtep(1).sends_to(100, g.mac, &Place::port("p1")).map_err(|p| (g.mac, p))?;
        }
        Ok::<_, (Mac, Place)>(())
    });
    assert_eq!(found(&m).len(), 0, "{:?}", found(&m));
    assert_eq!((events(&m, 0, "duplicate"), events(&m, 1, "duplicate")), (0, 0));
    assert_eq!([0, 1].map(|i| m.vtepd(i).status()["counters"]["duplicates"].as_u64().unwrap_or(0)), [0, 0]);
    // No filter is left at the target: what each of them says arrives at the other site.
    source.drain();
    for g in &vms {
        target.send(&frame::data(Mac::BROADCAST, g.mac, 77));
    }
    let mut silent: BTreeSet<Mac> = vms.iter().map(|g| g.mac).collect();
    let all = source.find(SOON, |f| {
        if frame::as_data(f, Mac::BROADCAST) == Some(77) {
            silent.remove(&Mac::from_slice(&f[6..12])?);
        }
        silent.is_empty().then_some(())
    });
    assert!(all.is_some(), "dropped on their way from the target: {silent:?}");
}

/// FRR counts moves and knows no evidence. The twin behind us is frozen before FRR has had enough, and the MAC stays
/// with FRR's host.
#[test]
fn beside_frr_a_duplicate_is_frozen_where_we_lose_it() {
    if !met(&[Need::Root, Need::Frr]) {
        return;
    }
    let mut m = Mixed::new(Fabric::new(2));
    let twins = [0, 1].map(|i| Twin::new(&m.fabric, i));
    m.start_frr(1);
    m.vtep(1).ns.sh("ip link set h1 master br100");
    m.frr(1).configure(65000, &["address-family l2vpn evpn", "dup-addr-detection max-moves 5 time 180"]);
    let mut conf = m.fabric.conf(0);
    conf.vnis[0].1.push("h1".into());
    conf.sections = "[mobility]\nduplicates = { action = \"block\" }\n".into();
    m.start_vtepd_with(0, &conf);
    m.converge();
    twins[1].speak();
    eventually(LATER, "FRR's host is known", || m.vtep(0).sends_to(100, mac(), &Place::vtep(m.vtep(1))));
    let d = eventually(LATER, "we find it out", || {
        twins.iter().for_each(Twin::speak);
        m.vtepd(0)
            .show("duplicates", &[])
            .into_iter()
            .next()
            .ok_or_else(|| m.frr(1).mac(100, &mac().to_string()))
    });
    assert_eq!(d["state"], "blocked", "{d}");
    let seq = m.vtepd(0).mac(&mac().to_string())["seq"].clone();
    throughout(Duration::from_secs(3), "it stays with FRR's host", || {
        twins.iter().for_each(Twin::speak);
        m.vtep(0).sends_to(100, mac(), &Place::vtep(m.vtep(1)))
    });
    assert_eq!(m.vtepd(0).mac(&mac().to_string())["seq"], seq, "no sequence climbs");
}
