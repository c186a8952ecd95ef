//! Prepared moves with real daemons on the real kernel: what a hypervisor says before its guest does (PIT-06,
//! MIG-HOT-03), and what a leaving guest cannot do any more (PIT-04).

use serde_json::Value;
use std::time::{Duration, Instant};
use vtepd_tests::fabric::{Fabric, Guest, Place, Vtep, test_mac};
use vtepd_tests::frame;
use vtepd_tests::need::{Need, met};
use vtepd_tests::packet::{Monitor, Wire};
use vtepd_tests::poll::{LATER, SOON, eventually, same, throughout};
use vtepd_tests::vtepd::Vtepd;

/// Three VTEPs with a daemon each; the guest is at the first one.
struct Scene {
    f: Fabric,
    daemons: Vec<Vtepd>,
    g: Guest,
    /// The guest's port at the first and at the second VTEP, and the sender's at the third.
    ports: [Wire; 3],
}

impl Scene {
    fn new() -> Self {
        let f = Fabric::new(3);
        let daemons: Vec<Vtepd> = (0..3).map(|i| f.start_vtepd(i)).collect();
        daemons.iter().for_each(Vtepd::converge);
        let g = Guest::new(5);
        let ports = [0, 1, 2].map(|i| f.guest_port(i, "p1"));
        ports[0].send(&g.garp());
        let scene = Self { f, daemons, g, ports };
        for i in [1, 2] {
            scene.reach(i, 0, "the guest is known everywhere");
        }
        let ip = g.ip.into();
        eventually(SOON, "with its address", || same(scene.vtep(1).neigh_row(100, ip).is_null(), false));
        scene
    }

    fn vtep(&self, i: usize) -> &Vtep {
        &self.f.vteps[i]
    }

    /// Waits until VTEP `i` sends frames for the guest to VTEP `to`.
    fn reach(&self, i: usize, to: usize, what: &str) {
        let place = Place::vtep(self.vtep(to));
        eventually(SOON, what, || self.vtep(i).sends_to(100, self.g.mac, &place));
    }

    fn on_port(&self, i: usize, what: &str) {
        eventually(SOON, what, || self.vtep(i).sends_to(100, self.g.mac, &Place::port("p1")));
    }

    fn step(&self, i: usize, step: &str, args: &[&str]) -> Result<Value, String> {
        let mac = self.g.mac.to_string();
        let mut all = vec!["--mac", mac.as_str()];
        all.extend(args);
        self.daemons[i].step(step, &all)
    }

    fn ok(&self, i: usize, step: &str, args: &[&str]) -> Value {
        self.step(i, step, args).unwrap_or_else(|e| panic!("{step} {args:?}: {e}"))
    }

    fn seq(&self, i: usize) -> Value {
        self.daemons[i].mac(&self.g.mac.to_string())["seq"].clone()
    }

    fn events(&self, i: usize, name: &str) -> usize {
        self.daemons[i].show("events", &[]).iter().filter(|e| e["event"] == name).count()
    }

    /// Sends frames from the third VTEP and counts those that come out at a port.
    fn frames_to(&self, port: usize, n: u64) -> usize {
        self.ports[port].drain();
        for i in 0..n {
            self.ports[2].send(&frame::data(self.g.mac, test_mac(99), 1000 + i));
        }
        let mut got = 0;
        while got < n as usize
            && self.ports[port].find(Duration::from_secs(2), |x| frame::as_data(x, self.g.mac)).is_some()
        {
            got += 1;
        }
        got
    }
}

fn texts(v: &Value) -> Vec<String> {
    v.as_array().into_iter().flatten().filter_map(|x| x.as_str().map(str::to_owned)).collect()
}

/// PIT-06: the guest has not said a word at its new place, and all that is sent to it arrives there.
#[test]
fn an_activated_guest_gets_every_frame_before_it_has_spoken() {
    if !met(&[Need::Root]) {
        return;
    }
    let s = Scene::new();
    let r = s.ok(1, "prepare", &["--port", "p1"]);
    assert_eq!((&r["state"], &r["vni"]), (&"prepared".into(), &100.into()), "{r}");
    assert_eq!(
        texts(&r["notes"]),
        ["MTU of port p1 is 1500, of bridge br100 1450"],
        "what may surprise the guest"
    );
    s.vtep(1).ns.sh("ip link set p1 mtu 1450");
    eventually(SOON, "nothing is amiss", || {
        same(texts(&s.ok(1, "prepare", &["--port", "p1"])["notes"]), Vec::new())
    });
    throughout(Duration::from_millis(300), "a preparation is not seen by anybody", || {
        s.vtep(1).sends_to(100, s.g.mac, &Place::vtep(s.vtep(0)))?;
        s.vtep(2).sends_to(100, s.g.mac, &Place::vtep(s.vtep(0)))
    });
    assert_eq!(s.frames_to(0, 5), 5, "and the guest is still served where it is");

    let mut kernel = Monitor::open(&s.vtep(1).ns);
    let port = s.vtep(1).ns.index("p1");
    let r = s.ok(1, "activate", &[]);
    assert_eq!((&r["state"], &r["seq"]), (&"active".into(), &1.into()), "{r}");
    assert_eq!(texts(&r["ips"]), [s.g.ip.to_string()], "the known address came along (PIT-22)");
    assert_eq!(texts(&r["sent_to"]), [s.vtep(0).address.to_string(), s.vtep(2).address.to_string()]);
    let row = kernel.find(SOON, |n| n.mac == s.g.mac && n.bridge && n.new && n.device == port);
    assert!(row.is_some(), "the row is there when the answer is");
    assert_eq!(s.vtep(1).vxlan_row(100, s.g.mac), Value::Null, "and the old one is gone");
    s.reach(2, 1, "the third VTEP follows");
    s.reach(0, 1, "so does the source");
    assert_eq!(s.frames_to(1, 5), 5, "5 of 5 reach a guest that has not said a word");
    assert_eq!(s.vtep(2).neigh_row(100, s.g.ip.into())["lladdr"], s.g.mac.to_string().as_str());
    // What it says now changes nothing any more.
    s.ports[1].send(&s.g.garp());
    throughout(Duration::from_millis(300), "one sequence for one move", || same(s.seq(1), 1.into()));
    let refused = s.step(1, "abort", &[]).expect_err("the guest is here");
    assert!(refused.contains("heard on p1") && refused.contains("running here"), "{refused}");
    let moves = s.daemons[1].show("moves", &[]);
    let m = moves.iter().find(|m| m["mac"] == s.g.mac.to_string().as_str()).expect("a record");
    assert_eq!((&m["cause"], &m["role"]), (&"api".into(), &"arrived".into()), "{m}");
}

/// MIG-HOT-03: one probe each millisecond from a third VTEP, through release, activation and beyond. All arrive at
/// the source or at the target, except while the two routes are under way.
#[test]
fn a_flow_through_a_prepared_move_loses_nothing_but_what_the_change_itself_takes() {
    if !met(&[Need::Root]) {
        return;
    }
    let s = Scene::new();
    s.ok(1, "prepare", &["--port", "p1"]);
    s.ok(0, "release", &[]);
    let mut third = Monitor::open(&s.vtep(2).ns);
    let mut source = Monitor::open(&s.vtep(0).ns);
    s.ports.iter().for_each(Wire::drain);
    let mut sent = Vec::new();
    let begun = Instant::now();
    let vtep = Some(s.vtep(1).address);
    let (r, rows) = std::thread::scope(|scope| {
        let watch = |m: &mut Monitor| m.find(SOON, |n| n.mac == s.g.mac && n.new && n.vtep == vtep);
        let watched = [&mut source, &mut third].map(|m| scope.spawn(move || watch(m)));
        let mut activation = None;
        while begun.elapsed() < Duration::from_millis(1500) {
            let n = sent.len() as u64;
            sent.push(s.ports[2].send(&frame::data(s.g.mac, test_mac(99), n)));
            if n == 400 {
                let scene = &s;
                activation = Some(scope.spawn(move || scene.ok(1, "activate", &[])));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        let r = activation.expect("there were 400 probes").join().expect("activated");
        (r, watched.map(|w| w.join().expect("watched").expect("source and third VTEP follow").at))
    });
    assert_eq!(r["state"], "active");
    let (from, to) = (rows[0].min(rows[1]), rows[0].max(rows[1]));
    let mut got = vec![0u8; sent.len()];
    for port in [0, 1] {
        while let Some((_, n)) =
            s.ports[port].find(Duration::from_millis(300), |x| frame::as_data(x, s.g.mac))
        {
            got[n as usize] += 1;
        }
    }
    let lost: Vec<usize> = (0..sent.len()).filter(|n| got[*n] == 0).collect();
    assert!(got.iter().all(|n| *n <= 1), "nothing arrives twice");
    // A notification is read a moment after the kernel made it, and a frame is on its way for a moment.
    let slack = 20_000_000;
    for n in &lost {
        assert!(
            sent[*n] + slack >= from && sent[*n] <= to + slack,
            "probe {n} of {} is lost, {} us before the first row changed, {} us after the last",
            sent.len(),
            from.saturating_sub(sent[*n]) / 1000,
            sent[*n].saturating_sub(to) / 1000
        );
    }
    println!(
        "MIG-HOT-03: {} of {} probes lost; the source's and the third VTEP's row changed within {} us",
        lost.len(),
        sent.len(),
        (to - from) / 1000
    );
    assert!(lost.len() <= 25, "not more than those of the change itself: {lost:?}");
    assert_eq!(got.last(), Some(&1), "in the end everything arrives");
}

/// PIT-04: late frames of a released guest, data and announcements, take no row and cause no route.
#[test]
fn late_frames_of_a_released_guest_do_nothing() {
    if !met(&[Need::Root]) {
        return;
    }
    let s = Scene::new();
    assert_eq!(s.ok(0, "release", &[])["state"], "released");
    s.on_port(0, "it goes on being served");
    assert_eq!(s.frames_to(0, 5), 5);
    s.ok(1, "activate", &["--port", "p1"]);
    s.reach(0, 1, "the source has the route");
    let row = s.vtep(0).bridge_row(100, s.g.mac);
    let flags = texts(&row["flags"]);
    assert!(flags.contains(&"sticky".to_owned()) && row["state"] == "static", "{row}");
    assert!(!flags.contains(&"extern_learn".to_owned()), "which would undo the stickiness: {row}");

    let mut source = Monitor::open(&s.vtep(0).ns);
    let old = &s.ports[0];
    old.drain();
    let probes = s.daemons[0].status()["counters"]["probes_sent"].clone();
    for n in 0..20 {
        old.send(&frame::data(test_mac(99), s.g.mac, n));
        if n % 5 == 0 {
            old.send(&s.g.garp());
            old.send(&s.g.rarp());
        }
    }
    let port = s.vtep(0).ns.index("p1");
    let theft = source.find(Duration::from_millis(500), |n| n.mac == s.g.mac && n.bridge && n.device == port);
    assert_eq!(theft, None, "not even for a moment");
    for i in [0, 1, 2] {
        assert_eq!(s.seq(i), 1, "VTEP {}: the sequence of the one real move", i + 1);
    }
    assert_eq!(s.daemons[0].status()["counters"]["probes_sent"], probes, "nobody is probed");
    s.reach(2, 1, "the third VTEP never looked back");
    // It comes back with its hypervisor's help, and is an ordinary guest again.
    s.ok(0, "activate", &["--port", "p1"]);
    s.on_port(0, "back");
    s.reach(2, 0, "and everybody follows");
    assert_eq!(s.seq(0), 2);
}

/// The move fails after the activation: the source takes its guest back, with a higher sequence.
#[test]
fn a_migration_that_fails_gives_the_guest_back_to_its_source() {
    if !met(&[Need::Root]) {
        return;
    }
    let s = Scene::new();
    s.ok(1, "prepare", &["--port", "p1"]);
    s.ok(0, "release", &[]);
    s.ok(1, "activate", &[]);
    s.reach(0, 1, "the source has the route");
    assert_eq!(s.ok(1, "abort", &[])["state"], "aborted");
    assert_eq!(s.ok(0, "abort", &[])["state"], "aborted");
    s.ports[0].send(&frame::data(test_mac(99), s.g.mac, 1));
    s.on_port(0, "the guest's next frame is enough");
    s.reach(1, 0, "the target knows");
    s.reach(2, 0, "and the third VTEP");
    assert_eq!(s.frames_to(0, 5), 5);
    throughout(Duration::from_millis(300), "nothing is left at the target", || {
        s.vtep(1).sends_to(100, s.g.mac, &Place::vtep(s.vtep(0)))
    });
    // What is not there any more is no error.
    assert_eq!(s.ok(1, "abort", &[])["state"], "nothing");
    assert_eq!(s.ok(0, "abort", &[])["state"], "nothing");
}

/// A guest that nobody knows, and that never comes: not even its kernel row is left.
#[test]
fn an_activation_whose_guest_never_speaks_is_held_and_then_leaves_nothing() {
    if !met(&[Need::Root]) {
        return;
    }
    let s = Scene::new();
    let (b, mac) = (s.vtep(1), test_mac(77));
    // The bridge forgets within a second; the activation does not.
    b.ns.sh("ip link set br100 type bridge ageing_time 100");
    let args = ["--mac", &mac.to_string(), "--port", "p1", "--timeout", "6s"];
    let r = s.daemons[1].step("activate", &args).expect("activated");
    assert_eq!(r["seq"], 0, "{r}");
    let place = Place::vtep(b);
    eventually(SOON, "the third VTEP knows it", || s.vtep(2).sends_to(100, mac, &place));
    throughout(Duration::from_secs(4), "it is advertised as long as it is held", || {
        s.vtep(2).sends_to(100, mac, &place)
    });
    let held = &s.daemons[1].status()["counters"]["activations_held"];
    assert!(held.as_u64() >= Some(1), "the bridge did forget: {held}");
    eventually(SOON, "given up", || s.vtep(2).sends_to(100, mac, &Place::Nowhere));
    eventually(SOON, "and out of the kernel", || b.sends_to(100, mac, &Place::Nowhere));
    assert_eq!(s.events(1, "move-timed-out"), 1);
    throughout(Duration::from_millis(500), "for good", || b.sends_to(100, mac, &Place::Nowhere));
}

/// PIT-06: a port without carrier takes no row, so nothing is advertised; with carrier the same request works.
#[test]
fn without_a_carrier_nothing_is_advertised_and_the_answer_says_why() {
    if !met(&[Need::Root]) {
        return;
    }
    let s = Scene::new();
    s.f.guests.sh("ip link set x2p1 down");
    eventually(SOON, "the port has lost its carrier", || {
        let l = s.vtep(1).ns.json("ip -j link show dev p1");
        same(l[0]["operstate"].clone(), "DOWN".into())
    });
    let r = eventually(SOON, "noticed", || {
        let r = s.ok(1, "prepare", &["--port", "p1"]);
        if texts(&r["notes"]).iter().any(|n| n.contains("no carrier")) { Ok(r) } else { Err(r) }
    });
    assert_eq!(r["state"], "prepared", "QEMU may still come");
    let e = s.step(1, "activate", &[]).expect_err("the kernel refuses");
    assert!(e.contains("did not put 02:00:00:00:00:05 on p1 within 1 s") && e.contains("carrier"), "{e}");
    throughout(Duration::from_millis(300), "nobody was told", || {
        s.vtep(2).sends_to(100, s.g.mac, &Place::vtep(s.vtep(0)))
    });
    s.f.guests.sh("ip link set x2p1 up");
    let r = eventually(SOON, "it works with a carrier", || s.step(1, "activate", &["--port", "p1"]));
    assert_eq!((&r["state"], &r["seq"]), (&"active".into(), &1.into()));
    s.reach(2, 1, "and everybody knows");
}

/// `kill -9` between the steps, at both ends.
#[test]
fn a_daemon_that_is_killed_between_the_steps_goes_on() {
    if !met(&[Need::Root]) {
        return;
    }
    let mut s = Scene::new();
    s.ok(1, "prepare", &["--port", "p1"]);
    restart(&mut s, 1);
    // A preparation is nothing that anybody could see, so nothing of it is kept.
    let e = s.step(1, "activate", &[]).expect_err("not prepared");
    assert!(e.contains("no preparation"), "{e}");
    s.reach(1, 0, "the target has read the routes again");
    s.ok(0, "release", &[]);
    assert_eq!(s.ok(1, "activate", &["--port", "p1"])["seq"], 1);
    s.reach(0, 1, "the source has the route");

    // The source's daemon dies with its released row in the kernel.
    let mut kernel = Monitor::open(&s.vtep(0).ns);
    restart(&mut s, 0);
    s.reach(0, 1, "the row is still there");
    let touched = kernel.find(Duration::from_millis(1500), |n| n.mac == s.g.mac && n.bridge);
    assert_eq!(touched, None, "and was pinned all the time, an audit of all rows included");
    eventually(SOON, "still pinned", || {
        same(s.vtep(0).bridge_row(100, s.g.mac)["state"].clone(), "static".into())
    });
    for n in 0..5 {
        s.ports[0].send(&frame::data(test_mac(99), s.g.mac, n));
        s.ports[0].send(&s.g.garp());
    }
    throughout(Duration::from_millis(500), "late frames do nothing", || {
        s.vtep(0).sends_to(100, s.g.mac, &Place::vtep(s.vtep(1)))?;
        s.vtep(2).sends_to(100, s.g.mac, &Place::vtep(s.vtep(1)))
    });
    // The release is over: an ordinary row, whose mark says that it is ours (PIT-27).
    assert_eq!(s.ok(0, "abort", &[])["state"], "aborted", "the release has been kept");
    eventually(SOON, "an ordinary row", || {
        let row = s.vtep(0).bridge_row(100, s.g.mac);
        same((row["state"] == "static", texts(&row["flags"])), (false, vec!["extern_learn".to_owned()]))
    });

    // The target's daemon dies after the activation, before the guest has said anything.
    restart(&mut s, 1);
    s.on_port(1, "the kernel has it on its port");
    s.reach(2, 1, "the third VTEP never looked back, or does so again");
    s.ports[1].send(&s.g.rarp());
    throughout(Duration::from_millis(300), "it stays", || {
        s.vtep(2).sends_to(100, s.g.mac, &Place::vtep(s.vtep(1)))
    });
    let seq = s.seq(1).as_u64();
    assert!(seq >= Some(1), "no sequence was forgotten: {seq:?}");
}

fn restart(s: &mut Scene, i: usize) {
    let dir = s.daemons.remove(i).kill();
    let d = Vtepd::start_again(&s.f.vteps[i].ns, &s.f.conf(i), dir);
    s.daemons.insert(i, d);
    eventually(LATER, "all converge again", || {
        s.daemons.iter().map(Vtepd::status).find(|st| st["converged"] != true).map_or(Ok(()), Err)
    });
}

/// What is wrong is said, with exit code 1, and nothing happens.
#[test]
fn steps_that_cannot_be_done_say_why() {
    if !met(&[Need::Root]) {
        return;
    }
    let s = Scene::new();
    s.vtep(1).ns.sh("ip link add lone type veth peer name lone2 && ip link set lone up");
    for (step, args, part) in [
        ("prepare", &["--port", "p7"][..], "there is no port `p7`"),
        ("prepare", &["--port", "lone"], "port lone is in no bridge of a VNI; `ip link set lone master"),
        ("prepare", &["--port", "lone", "--vni", "100"], "`ip link set lone master br100` puts it there"),
        ("prepare", &["--port", "p1", "--vni", "200"], "VNI 200 is not configured here; there are: 100"),
        ("prepare", &["--port", "vx100"], "vx100 is the VXLAN device of VNI 100"),
        ("activate", &[], "there is no preparation for 02:00:00:00:00:05"),
        ("activate", &["--port", "p1", "--ip", "127.0.0.1"], "127.0.0.1 is not the address of a host"),
        ("abort", &["--vni", "7"], "VNI 7 is not configured here"),
        ("release", &["--vni", "7"], "VNI 7 is not configured here"),
    ] {
        let e = s.step(1, step, args).expect_err(step);
        assert!(e.contains(part), "{step} {args:?}: {e}");
    }
    assert_eq!(s.ok(1, "abort", &[])["state"], "nothing");
    assert_eq!(s.seq(1), 0, "nothing has happened");
}
