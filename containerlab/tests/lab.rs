//! Labs in real network namespaces.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use vtep_lab::lab::{Guard, Lab, UpOptions};
use vtep_lab::netns;
use vtep_lab::state::State;
use vtep_lab::switchboard::Mover;
use vtep_lab::topology::Topology;

mod common;

fn options(base: &Path, vtepd: &str) -> UpOptions {
    UpOptions {
        prefix: Some(common::unique("")),
        base: Some(base.to_owned()),
        programs: [
            ("vtepd".to_owned(), PathBuf::from(vtepd)),
            ("vtep-lab".to_owned(), env!("CARGO_BIN_EXE_vtep-lab").into()),
        ]
        .into(),
        ..UpOptions::default()
    }
}

fn published(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn eventually<T>(what: &str, mut condition: impl FnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        match condition() {
            Ok(t) => return t,
            Err(last) => assert!(Instant::now() < deadline, "{what}: {last}"),
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Asks by ARP from the VM's port, past its own network stack; the MAC of whoever answers within a second.
fn who_has(port: &vtep_lab::sys::PacketSocket, target: [u8; 4]) -> Result<[u8; 6], String> {
    const VM: [u8; 6] = [2, 0, 0, 0x64, 0, 0x0a];
    let mut request = vec![0xff; 6];
    request.extend(VM);
    request.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
    request.extend(VM);
    request.extend([192, 168, 100, 10, 0, 0, 0, 0, 0, 0]);
    request.extend(target);
    port.send(&request).map_err(|e| e.to_string())?;
    let deadline = Instant::now() + Duration::from_secs(1);
    let mut b = [0; 128];
    while Instant::now() < deadline {
        match port.receive(&mut b).map_err(|e| e.to_string())? {
            Some(r) if r.len >= 42 && b[12..14] == [8, 6] && b[21] == 2 && b[28..32] == target => {
                return Ok(std::array::from_fn(|i| b[22 + i]));
            }
            Some(_) => {}
            None => std::thread::sleep(Duration::from_millis(1)),
        }
    }
    Err("nobody answers".to_owned())
}

#[test]
fn every_published_topology_comes_up_and_goes_without_a_trace() {
    if !common::ready(&["root"]) {
        return;
    }
    let mut seen = 0;
    for entry in std::fs::read_dir(env!("CARGO_MANIFEST_DIR")).unwrap().flatten() {
        let path = entry.path();
        if !path.to_string_lossy().ends_with(".clab.yml") {
            continue;
        }
        seen += 1;
        let base = tempfile::tempdir().unwrap();
        let t = Topology::read(&path).unwrap();
        let mut lab = Lab::up(&t, &options(base.path(), "/bin/true")).unwrap();
        for l in &t.links {
            for e in [&l.a, &l.b] {
                let ns = &lab.state.node(&e.node).unwrap().namespace;
                let link = vtep_lab::iproute::json("ip", ns, &["link", "show", "dev", &e.interface]).unwrap();
                assert_eq!(link[0]["mtu"], l.mtu, "{e}");
                assert_eq!(link[0]["operstate"], "UP", "{e}");
            }
        }
        let namespaces: Vec<_> = lab.state.nodes.iter().map(|n| n.namespace.clone()).collect();
        assert!(namespaces.iter().all(|n| netns::exists(n)));
        assert_eq!(lab.down(), [] as [&str; 0]);
        assert_eq!(lab.residue(), [] as [&str; 0]);
        assert!(!namespaces.iter().any(|n| netns::exists(n)));
    }
    assert!(seen >= 2, "{seen} topologies");
}

#[allow(clippy::zombie_processes, reason = "`down` waits for it")]
#[test]
fn a_second_process_can_take_down_what_the_first_left() {
    if !common::ready(&["root"]) {
        return;
    }
    let base = tempfile::tempdir().unwrap();
    let t = Topology::read(&published("minimal.clab.yml")).unwrap();
    let lab = Lab::up(&t, &options(base.path(), "/bin/true")).unwrap();
    // As after a kill: only the state on disk is left of it, and a program somebody started inside.
    let run = lab.state.run("vm", ["sleep", "600"]).unwrap();
    let sleeper = run
        .spawn(std::process::Stdio::null(), std::process::Stdio::null(), std::process::Stdio::null())
        .unwrap();
    let state = State::find(base.path(), Some("minimal")).unwrap();
    drop(lab);
    let mut again = Lab { state };
    assert_eq!(again.down(), [] as [&str; 0]);
    assert_eq!(again.residue(), [] as [&str; 0]);
    assert!(!Path::new(&format!("/proc/{}", sleeper.id())).exists());
}

#[test]
fn a_failing_exec_names_node_and_command_and_leaves_nothing() {
    if !common::ready(&["root"]) {
        return;
    }
    let base = tempfile::tempdir().unwrap();
    let file = base.path().join("bad.clab.yml");
    let text = "name: bad\ntopology:\n  nodes:\n    a: {kind: linux, exec: [\"ip link set nosuch up\"]}\n";
    std::fs::write(&file, text).unwrap();
    let labs = base.path().join("labs");
    let o = options(&labs, "/bin/true");
    let error = Lab::up(&Topology::read(&file).unwrap(), &o).unwrap_err().to_string();
    assert!(error.starts_with("`ip link set nosuch up` failed in node a: "), "{error}");
    assert!(!netns::exists(&format!("{}-a", o.prefix.unwrap())));
    assert_eq!(std::fs::read_dir(&labs).unwrap().count(), 0);
}

#[test]
fn a_node_sees_its_binds_its_environment_and_a_run_of_its_own() {
    if !common::ready(&["root"]) {
        return;
    }
    let base = tempfile::tempdir().unwrap();
    let file = base.path().join("binds.clab.yml");
    std::fs::write(base.path().join("one"), "content of one").unwrap();
    let text = r#"
name: binds
topology:
  nodes:
    a:
      kind: linux
      binds: ["one:/etc/vtep-lab-test/deep/one:ro", "one:/opt/vtep-lab-test"]
      env: {GREETING: hello}
      sysctls: {net.ipv4.ip_forward: 1}
      cmd: sleep 600
    b: {kind: bridge}
  links:
    - endpoints: ["a:eth1", "b:p1"]
"#;
    std::fs::write(&file, text).unwrap();
    let o = options(&base.path().join("labs"), "/bin/true");
    let guard = Guard { lab: Lab::up(&Topology::read(&file).unwrap(), &o).unwrap(), keep: false };
    let script = "cat /etc/vtep-lab-test/deep/one /opt/vtep-lab-test; echo \" $GREETING\"; ls /etc/passwd /run; \
                  cat /proc/sys/net/ipv4/ip_forward; ls /sys/class/net; echo x > /etc/vtep-lab-test/deep/one || echo ro";
    let out = guard.lab.state.run("a", ["sh", "-c", script]).unwrap().output().unwrap();
    let words: Vec<_> = out.split_whitespace().collect();
    assert_eq!(
        words.join(" "),
        "content of onecontent of one hello /etc/passwd /run: vtep-lab 1 eth1 lo ro",
        "{out}"
    );
    assert!(!Path::new("/etc/vtep-lab-test").exists() && !Path::new("/opt/vtep-lab-test").exists());
    assert_eq!(guard.lab.processes_of("a").len(), 1);
    let ports = vtep_lab::iproute::json(
        "bridge",
        &guard.lab.state.node("b").unwrap().namespace,
        &["link", "show", "dev", "p1"],
    );
    assert_eq!(ports.unwrap()[0]["master"], "b");
}

/// PIT-21: what a move must not touch.
#[test]
fn a_move_reaches_the_new_place_and_the_guest_notices_nothing() {
    if !common::ready(&["root"]) {
        return;
    }
    let base = tempfile::tempdir().unwrap();
    let t = Topology::read(&published("minimal.clab.yml")).unwrap();
    let mut guard = Guard { lab: Lab::up(&t, &options(base.path(), "/bin/true")).unwrap(), keep: false };
    let state = &mut guard.lab.state;
    let space = |node: &str, state: &State| state.node(node).unwrap().namespace.clone();
    // Each VTEP's port answers for the same address with a MAC of its own: who answers tells where the VM is.
    for (node, mac) in [("vtep1", "02:00:00:00:00:01"), ("vtep2", "02:00:00:00:00:02")] {
        let lines = [format!("link set vm address {mac}"), "address add 192.168.100.99/24 dev vm".to_owned()];
        vtep_lab::iproute::ip_batch(Some(&space(node, state)), &lines).unwrap();
    }
    let vm = space("vm", state);
    let asker = netns::inside(&vm, || vtep_lab::sys::PacketSocket::open("eth1", true)).unwrap();
    let who = || who_has(&asker, [192, 168, 100, 99]);
    let guest = |vm: &str| {
        let link = vtep_lab::iproute::json("ip", vm, &["-s", "-s", "link", "show", "dev", "eth1"]).unwrap();
        let neigh = vtep_lab::iproute::json("ip", vm, &["neigh", "show"]).unwrap();
        let neigh: Vec<_> = neigh.iter().map(|n| (n["dst"].clone(), n["lladdr"].clone())).collect();
        (link[0]["stats64"]["tx"]["carrier_changes"].clone(), neigh)
    };
    vtep_lab::iproute::ip_batch(
        Some(&vm),
        &["neigh add 192.168.100.77 lladdr 02:00:00:00:00:77 dev eth1 nud reachable".to_owned()],
    )
    .unwrap();
    let before = guest(&vm);
    let first = eventually("the VM is heard at home", who);
    assert!(first == [2, 0, 0, 0, 0, 1], "{first:x?}");

    // The announcement arrives at the target's port.
    let listener =
        netns::inside(&space("vtep2", state), || vtep_lab::sys::PacketSocket::open("vm", true)).unwrap();
    let (moved, _) =
        Mover::prepare(state, "vm", "vtep2").unwrap().go(state, Duration::ZERO, false, || ()).unwrap();
    assert!(moved.announced.is_some());
    let mut b = [0; 128];
    let got = eventually("the announcement", || {
        listener.receive(&mut b).map_err(|e| e.to_string())?.ok_or_else(|| "nothing yet".to_owned())
    });
    assert_eq!((got.len, &b[12..14]), (60, &[0x80, 0x35][..]));
    assert_eq!(b[6..12], [2, 0, 0, 0x64, 0, 0x0a]);

    let second = eventually("the VM is heard at its new place", who);
    assert!(second == [2, 0, 0, 0, 0, 2], "{second:x?}");
    assert_eq!(guest(&vm), before);
    assert_eq!(State::read(&state.directory).unwrap().vms["vm"].at, "vtep2");

    // And back, silently.
    let (moved, _) =
        Mover::prepare(state, "vm", "vtep1").unwrap().go(state, Duration::ZERO, true, || ()).unwrap();
    assert!(moved.announced.is_none());
    let third = eventually("the VM is heard at home again", who);
    assert!(third == [2, 0, 0, 0, 0, 1], "{third:x?}");
    assert_eq!(guest(&vm), before);

    let error = Mover::prepare(state, "vm", "nowhere").unwrap_err().to_string();
    assert_eq!(error, "the VM has no port at `nowhere`; it can be at: vtep1, vtep2");
}

#[test]
fn a_delay_line_delays_each_way_and_keeps_the_order() {
    if !common::ready(&["root"]) {
        return;
    }
    let base = tempfile::tempdir().unwrap();
    let file = base.path().join("wan.clab.yml");
    let text = r#"
name: wan
topology:
  nodes:
    a: {kind: linux, exec: ["ip address add 10.9.0.1/24 dev eth1"]}
    b: {kind: linux, exec: ["ip address add 10.9.0.2/24 dev eth1"]}
    wan: {kind: linux, cmd: vtep-lab delay-line --delay 10ms eth1 eth2}
  links:
    - endpoints: ["a:eth1", "wan:eth1"]
    - endpoints: ["wan:eth2", "b:eth1"]
"#;
    std::fs::write(&file, text).unwrap();
    let o = options(&base.path().join("labs"), "/bin/true");
    let guard = Guard { lab: Lab::up(&Topology::read(&file).unwrap(), &o).unwrap(), keep: false };
    let space = |n: &str| guard.lab.state.node(n).unwrap().namespace.clone();
    let receiver = netns::inside(&space("b"), || {
        std::net::UdpSocket::bind("10.9.0.2:7").map_err(vtep_lab::Error::io("receiver"))
    })
    .unwrap();
    receiver.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let sender = netns::inside(&space("a"), || {
        std::net::UdpSocket::bind("10.9.0.1:7").map_err(vtep_lab::Error::io("sender"))
    })
    .unwrap();
    sender.connect("10.9.0.2:7").unwrap();
    let mut b = [0; 2000];
    eventually("a first datagram gets through", || {
        sender.send(&[0xff; 8]).map_err(|e| e.to_string())?;
        receiver.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        receiver.recv(&mut b).map_err(|e| e.to_string())
    });
    receiver.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let mut fastest = u64::MAX;
    for i in 0..200u64 {
        let mut frame = [0; 1472];
        frame[..8].copy_from_slice(&i.to_le_bytes());
        let sent = vtep_lab::sys::boottime();
        sender.send(&frame).unwrap();
        if i % 10 == 9 {
            // The burst's frames come in the order they were sent, none lost, none cut.
            for want in i - 9..=i {
                let n = loop {
                    let n = match receiver.recv(&mut b) {
                        // The end of a process of the lab is told by a signal.
                        Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
                        got => got.unwrap(),
                    };
                    if b[..8] != [0xff; 8] {
                        break n;
                    }
                };
                assert_eq!((n, u64::from_le_bytes(b[..8].try_into().unwrap())), (1472, want));
            }
            fastest = fastest.min(vtep_lab::sys::boottime() - sent);
        }
    }
    assert!(fastest >= 10_000_000, "a datagram took only {fastest} ns");
}
