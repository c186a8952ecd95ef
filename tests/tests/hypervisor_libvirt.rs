//! Real libvirt daemons move a guest between two vtepd, and a third one watches: the packaged hook script and the lifecycle
//! events, in libvirt's own order (PIT-25).

use evpn::types::Mac;
use serde_json::Value;
use std::process::Child;
use std::time::Duration;
use vtepd_tests::fabric::{Fabric, Place};
use vtepd_tests::libvirt::{CLIENT, DAEMON, Libvirt};
use vtepd_tests::need::{Need, met};
use vtepd_tests::poll::{SOON, eventually, throughout};
use vtepd_tests::qemu::PROGRAM;
use vtepd_tests::vtepd::Vtepd;

const MAC: &str = "52:54:00:aa:00:01";

fn mac() -> Mac {
    MAC.parse().expect("a MAC")
}

/// Source, target and a third VTEP; a guest that runs at the source and was announced there.
struct World {
    // Ended before the namespaces go.
    libvirt: Vec<Libvirt>,
    vtepd: Vec<Vtepd>,
    fabric: Fabric,
}

impl World {
    fn new() -> Self {
        Self::with("")
    }

    /// With more keys of `[libvirt]`.
    fn with(keys: &str) -> Self {
        let fabric = Fabric::new(3);
        let (mut libvirt, mut vtepd) = (Vec::new(), Vec::new());
        for (i, v) in fabric.vteps.iter().enumerate() {
            v.ns.sh("ip tuntap add tap0 mode tap && ip link set tap0 up");
            let mut conf = fabric.conf(i);
            conf.vnis = vec![(100, vec!["tap0".into()])];
            if i < 2 {
                let l = Libvirt::start(&v.ns, v.number);
                conf.sections = format!("[libvirt]\nevents = true\nuri = \"{}\"\n{keys}", l.uri(true));
                libvirt.push(l);
            }
            vtepd.push(Vtepd::start(&v.ns, &conf));
        }
        for (l, v) in libvirt.iter().zip(&vtepd) {
            l.hooks_call(&v.socket());
        }
        for v in &vtepd {
            v.converge();
        }
        let w = Self { libvirt, vtepd, fabric };
        w.listens(0, 1);
        w.listens(1, 1);
        w.libvirt[0].create("vm1", MAC);
        w.libvirt[0].announce("vm1");
        w.seen_at(0, "the guest is announced at the source");
        assert_eq!(w.libvirt[0].calls(), ["prepare begin -", "start begin -", "started begin -"]);
        assert_eq!(moves(&w.vtepd[0]), [""; 0], "a guest that boots is prepared for by nobody");
        w
    }

    /// vtepd hears libvirt's events, for the n-th time.
    fn listens(&self, vtep: usize, n: u64) {
        eventually(SOON, "vtepd listens to libvirt", || {
            let rows = self.vtepd[vtep].show("hypervisors", &[]);
            let row = rows.iter().find(|r| r["source"] == "libvirt").cloned().unwrap_or_default();
            if row["connected"] == true && row["connects"].as_u64() >= Some(n) { Ok(()) } else { Err(row) }
        });
    }

    fn migrate(&self) -> Child {
        let to = self.fabric.vteps[1].address.to_string();
        self.libvirt[0].migrate("vm1", &self.libvirt[1], &to)
    }

    #[track_caller]
    fn seen_at(&self, owner: usize, what: &str) {
        eventually(SOON, what, || {
            self.fabric.vteps.iter().enumerate().try_for_each(|(i, v)| {
                let place =
                    if i == owner { Place::port("tap0") } else { Place::vtep(&self.fabric.vteps[owner]) };
                v.sends_to(100, mac(), &place).map_err(|p| (i, p))
            })
        });
    }

    fn frames_from(&self, vtep: usize) -> u64 {
        let link = self.fabric.vteps[vtep].ns.json("ip -s -j link show dev tap0");
        link[0]["stats64"]["rx"]["packets"].as_u64().expect("a number")
    }

    /// Calls of the hook at a host, once there are so many.
    fn calls(&self, host: usize, n: usize) -> Vec<String> {
        let mut all = Vec::new();
        eventually(SOON, "the hook is called", || {
            all.extend(self.libvirt[host].calls());
            if all.len() >= n { Ok(()) } else { Err(all.clone()) }
        });
        all
    }
}

/// What was said of moves, in order, but for repetitions: the hook and the events say the same.
fn moves(v: &Vtepd) -> Vec<String> {
    let name = |e: &Value| e["event"].as_str().filter(|n| n.starts_with("move")).map(str::to_owned);
    let mut all: Vec<String> = v.show("events", &[]).iter().filter_map(name).collect();
    all.dedup();
    all
}

fn ends(child: Child) -> Result<(), String> {
    let out = child.wait_with_output().expect("virsh ends");
    if out.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&out.stderr).into_owned()) }
}

fn ready() -> bool {
    met(&[
        Need::Root,
        Need::Package { program: PROGRAM, package: "qemu-system-x86" },
        Need::Package { program: DAEMON, package: "libvirt-daemon" },
        Need::Package { program: CLIENT, package: "libvirt-clients" },
        Need::Tool("unshare"),
        Need::Tool("tc"),
    ])
}

#[test]
fn libvirt_moves_a_guest_and_everybody_knows_before_it_has_said_a_word() {
    if !ready() {
        return;
    }
    let w = World::new();
    ends(w.migrate()).expect("migrated");
    w.seen_at(1, "the guest moves");
    assert_eq!(w.frames_from(1), 0, "nothing was heard of it");
    assert_eq!(w.calls(1, 4), ["migrate begin -", "prepare begin -", "start begin -", "started begin -"]);
    // libvirt 10.5 gives a reason.
    let source = w.calls(0, 2);
    assert!(["release end -", "release end migrated"].contains(&source[1].as_str()), "{source:?}");
    assert_eq!((source[0].as_str(), source.len()), ("stopped end -", 2));
    assert_eq!(moves(&w.vtepd[1]), ["move-prepared", "move-activated", "move"]);
    eventually(SOON, "the source has released it", || {
        let told = moves(&w.vtepd[0]);
        if told.iter().any(|e| e == "move-released") { Ok(()) } else { Err(told) }
    });
    let record = w.vtepd[1].show("moves", &["--mac", MAC]).pop().expect("a record");
    assert_eq!((record["cause"].as_str(), record["role"].as_str()), (Some("libvirt"), Some("arrived")));
    assert_eq!(w.vtepd[2].mac(MAC)["seq"], 1, "one move");
    throughout(Duration::from_millis(500), "it stays at the target", || {
        w.fabric.vteps[2].sends_to(100, mac(), &Place::vtep(&w.fabric.vteps[1]))
    });
}

/// PIT-26: the hook's preparation waits for the mark, which the source's vtepd puts on when libvirt tells of the stop.
#[test]
fn a_stop_that_libvirt_tells_activates_the_target() {
    if !ready() {
        return;
    }
    let w = World::with("activate-at = \"stop\"\n");
    ends(w.migrate()).expect("migrated");
    w.seen_at(1, "the guest moves");
    assert_eq!(
        (w.frames_from(1), &w.vtepd[2].mac(MAC)["seq"]),
        (0, &Value::from(1)),
        "one move, by no frame"
    );
    let released: Vec<Value> =
        w.vtepd[0].show("events", &[]).into_iter().filter(|e| e["event"] == "move-released").collect();
    assert_eq!(released.len(), 1, "{released:?}");
    assert_eq!(released[0]["at_stop"], true, "{released:?}");
    let told = moves(&w.vtepd[1]);
    let at = |what: &str| told.iter().position(|e| e == what);
    assert!(at("move-marked").is_some() && at("move-marked") < at("move-activated"), "{told:?}");
}

#[test]
fn a_migration_that_libvirt_cancels_leaves_no_trace() {
    if !ready() {
        return;
    }
    let w = World::new();
    // It would be over before anybody can cancel it: the guest's memory is empty. So it is sent over a narrow way.
    let source = &w.fabric.vteps[0].ns;
    source.sh("tc qdisc add dev u0 root tbf rate 200kbit burst 10k latency 500ms");
    let migration = w.migrate();
    assert_eq!(w.calls(1, 4).last().map(String::as_str), Some("started begin -"));
    eventually(SOON, "it is cancelled", || w.libvirt[0].virsh(&["domjobabort", "vm1"]));
    source.sh("tc qdisc del dev u0 root");
    let why = ends(migration).expect_err("cancelled");
    eventually(SOON, "the preparation is aborted", || {
        let told = moves(&w.vtepd[1]);
        if told == ["move-prepared", "move-aborted"] { Ok(()) } else { Err((told, why.clone())) }
    });
    w.seen_at(0, "the guest is where it was");
    assert_eq!(moves(&w.vtepd[0]), [""; 0]);
    for v in &w.vtepd {
        assert_eq!(v.show("moves", &["--mac", MAC]), [Value::Null; 0]);
    }
    assert_eq!(w.vtepd[2].mac(MAC)["seq"], 0);
    let calls = w.calls(1, 2);
    assert!(calls[0] == "stopped end -" && calls[1].starts_with("release end "), "{calls:?}");
}

#[test]
fn libvirts_daemon_comes_back_and_its_next_migration_is_heard() {
    if !ready() {
        return;
    }
    let mut w = World::new();
    w.libvirt[0].restart();
    w.libvirt[1].restart();
    w.listens(0, 2);
    w.listens(1, 2);
    // The lists that are asked for then say what is known.
    throughout(Duration::from_secs(3), "nothing has moved", || {
        let told = (moves(&w.vtepd[0]), moves(&w.vtepd[1]));
        if told.0.is_empty() && told.1.is_empty() { Ok(()) } else { Err(told) }
    });
    ends(w.migrate()).expect("migrated");
    w.seen_at(1, "the guest moves");
    assert_eq!((w.frames_from(1), &w.vtepd[2].mac(MAC)["seq"]), (0, &Value::from(1)));
}
