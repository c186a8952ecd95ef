//! `vtepd run` in network namespaces, one daemon: what it creates, what it refuses, how it stops.

mod net;

use net::{Ns, Setup, eventually, wire};
use std::io::Read as _;
use std::net::TcpStream;
use std::time::Duration;

const VTEP: &str = "address = \"10.255.0.1\"\nasn = 65000";
const VNI: &str = "[[vni]]\nvni = 100\nports = [\"p1\"]\nmtu = 1450";

/// A host with an underlay address and one access port with a guest behind it.
fn host() -> (Ns, Ns, Ns) {
    let (host, far, guest) = (Ns::new("host"), Ns::new("far"), Ns::new("guest"));
    wire(&host, "under", &far, "eth0");
    host.ip("addr add 10.255.0.1/24 dev under");
    far.ip("addr add 10.255.0.9/24 dev eth0");
    wire(&host, "p1", &guest, "eth0");
    (host, far, guest)
}

#[test]
fn a_daemon_creates_its_devices_shows_itself_and_stops_within_two_seconds_leaving_them() {
    needs_namespaces!();
    let (host, _far, guest) = host();
    let mac = guest.ip("-br link show eth0").split_whitespace().nth(2).expect("a MAC").to_owned();
    let daemon = Setup::new(VTEP, VNI);
    let d = daemon.start(&host);
    d.until("vnis", "the VNI is ready", |rows| rows.len() == 1 && rows[0]["ready"] == true);
    assert!(host.has_device("br100") && host.has_device("vx100"));
    assert!(host.ip("-d link show p1").contains("master br100"));
    // IPv6 link-local set-up makes the guest speak.
    d.until("macs", "the guest's MAC is local", |rows| {
        rows.iter().any(|r| r["mac"] == mac.as_str() && r["place"]["port"] == "p1")
    });
    for table in ["status", "neighbors", "vnis", "macs", "hosts", "routes", "moves", "kernel", "events"] {
        assert!(!d.show_text(table).is_empty(), "{table}");
        d.show(table);
    }
    assert!(d.show_text("status").contains("10.255.0.1"));
    assert_eq!(d.show("macs --vni 100").len(), d.show("macs").len());
    assert!(d.show("macs --vni 101").is_empty());
    assert!(d.show("events").iter().any(|e| e["event"] == "mac-local" && e["mac"] == mac.as_str()));
    let socket = d.socket().to_owned();
    let (status, took) = d.stop();
    assert_eq!(status.code(), Some(0));
    assert!(took < Duration::from_secs(2), "{took:?}");
    assert!(host.has_device("br100") && host.has_device("vx100"), "forwarding goes on without a daemon");
    assert!(!socket.exists(), "the socket file is removed");
}

#[test]
fn a_second_daemon_is_refused_on_the_same_state_directory_and_on_the_same_socket() {
    needs_namespaces!();
    let (host, _far, _guest) = host();
    let first = Setup::new(VTEP, "");
    let d = first.start(&host);
    let again = first.run_to_end(&host);
    assert_eq!(again.status.code(), Some(1));
    let text = String::from_utf8_lossy(&again.stderr).into_owned();
    assert!(text.contains("uses the state directory") && text.contains("help: stop the other one"), "{text}");

    let other = Setup::new(VTEP, "");
    let out = host
        .command(net::VTEPD)
        .args(["run", "--config"])
        .arg(&other.file)
        .arg("--socket")
        .arg(d.socket())
        .output()
        .expect("vtepd starts");
    assert_eq!(out.status.code(), Some(1));
    let text = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(text.contains("uses the socket"), "{text}");
    d.show("status");
}

#[test]
fn a_daemon_that_was_killed_leaves_nothing_that_stops_the_next_one() {
    needs_namespaces!();
    let (host, _far, _guest) = host();
    let setup = Setup::new(VTEP, VNI);
    drop(setup.start(&host)); // SIGKILL
    assert!(setup.socket.exists(), "a stale socket file is what this test is about");
    let d = setup.start(&host);
    d.until("vnis", "the VNI is ready again", |rows| rows.len() == 1 && rows[0]["ready"] == true);
    assert_eq!(d.stop().0.code(), Some(0));
}

#[test]
fn a_missing_port_is_a_configuration_error_and_nothing_is_touched() {
    needs_namespaces!();
    let (host, _far, _guest) = host();
    let setup = Setup::new(VTEP, "[[vni]]\nvni = 100\nports = [\"p1\", \"nosuch\"]");
    let out = setup.run_to_end(&host);
    assert_eq!(out.status.code(), Some(2));
    let text = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(text.contains("there is no device `nosuch` on this host"), "{text}");
    assert!(text.contains("vtepd.toml:11:16"), "{text}");
    assert!(!host.has_device("br100"));
    let check = host.command(net::VTEPD).args(["check", "--config"]).arg(&setup.file).output().expect("runs");
    assert_eq!(check.status.code(), Some(2));
}

#[test]
fn a_port_that_comes_late_goes_and_comes_back_is_taken_each_time() {
    needs_namespaces!();
    let (host, _far, _guest) = host();
    let guest = Ns::new("late");
    let rest = "[[vni]]\nvni = 100\nports = [\"p2\"]\nlate-ports = true";
    let d = Setup::new(VTEP, rest);
    let d = d.start(&host);
    d.until("vnis", "the devices are there", |rows| rows.len() == 1 && rows[0]["bridge"] == "br100");
    for round in 0..2 {
        wire(&host, "p2", &guest, "eth0");
        let what = format!("round {round}: p2 is a port of the VNI");
        d.until("vnis", &what, |rows| rows[0]["ports"].as_array().is_some_and(|p| p.contains(&"p2".into())));
        let what = format!("round {round}: the guest behind p2 is seen");
        d.until("macs", &what, |rows| rows.iter().any(|r| r["place"]["port"] == "p2"));
        host.ip("link del p2");
        let what = format!("round {round}: p2 and its MACs are gone");
        d.until("macs", &what, |rows| rows.iter().all(|r| r["place"]["port"] != "p2"));
    }
}

#[test]
fn a_connection_from_a_stranger_is_closed_and_harms_nobody() {
    needs_namespaces!();
    let (host, far, _guest) = host();
    let d = Setup::new(VTEP, "[[neighbor]]\naddress = \"10.255.0.2\"\nasn = 65000\npassive = true");
    let d = d.start(&host);
    let said = netlink::linux::netns::in_named(&far.name, || {
        let mut c = TcpStream::connect("10.255.0.1:179").expect("accepted by the kernel");
        c.set_read_timeout(Some(net::LIMIT)).expect("set");
        let mut all = Vec::new();
        c.read_to_end(&mut all).map(|_| all)
    });
    let said = said.expect("namespace").expect("an orderly end, no reset and no silence");
    // Either nothing, or a NOTIFICATION Cease / connection rejected (BGP-NOTIF-04).
    assert!(said.is_empty() || said[18..] == [3, 6, 5], "{said:?}");
    assert_eq!(d.show("neighbors").len(), 1);
}

#[test]
fn a_bgp_port_that_is_taken_is_named_with_the_way_out_before_devices_are_made() {
    needs_namespaces!();
    let (host, _far, _guest) = host();
    let setup = Setup::new(VTEP, VNI);
    let name = host.name.clone();
    let taken = netlink::linux::netns::in_named(&name, || std::net::TcpListener::bind("0.0.0.0:179"));
    let _taken = taken.expect("namespace").expect("bound");
    let out = setup.run_to_end(&host);
    assert_eq!(out.status.code(), Some(1));
    let text = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(
        text.contains("cannot listen for BGP on 0.0.0.0:179") && text.contains("set `bgp.port`"),
        "{text}"
    );
    assert!(!host.has_device("br100"));
}

#[test]
fn a_missing_capability_is_named_with_the_way_out() {
    needs_namespaces!();
    let (host, _far, _guest) = host();
    let setup = Setup::new(VTEP, VNI);
    let shared = tempfile::Builder::new().permissions(open_mode()).tempdir().expect("directory");
    let (bin, file) = (shared.path().join("vtepd"), shared.path().join("vtepd.toml"));
    std::fs::copy(net::VTEPD, &bin).expect("copied");
    std::fs::copy(&setup.file, &file).expect("copied");
    let mut c = host.command("setpriv");
    let c = c.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "--inh-caps=-all"]);
    let out = c.arg(&bin).args(["run", "--config"]).arg(&file).output().expect("setpriv starts");
    let text = String::from_utf8_lossy(&out.stderr).into_owned();
    assert_eq!(out.status.code(), Some(1), "{text}");
    for part in
        ["missing capability CAP_NET_ADMIN, CAP_NET_RAW, CAP_NET_BIND_SERVICE", "AmbientCapabilities="]
    {
        assert!(text.contains(part), "{part}: {text}");
    }
}

fn open_mode() -> std::fs::Permissions {
    std::os::unix::fs::PermissionsExt::from_mode(0o755)
}

#[test]
fn a_second_signal_ends_the_daemon_at_once() {
    needs_namespaces!();
    let (host, _far, _guest) = host();
    let d = Setup::new(VTEP, "");
    let d = d.start(&host);
    d.signal(rustix::process::Signal::INT);
    d.signal(rustix::process::Signal::TERM);
    let (status, took) = d.stop();
    assert!(status.code().is_some(), "it exits, no signal kills it: {status}");
    assert!(took < Duration::from_secs(2), "{took:?}");
}

#[test]
fn watch_prints_what_happens_as_json_lines() {
    needs_namespaces!();
    let (host, _far, _guest) = host();
    let setup = Setup::new(VTEP, VNI);
    let d = setup.start(&host);
    let file = setup.dir.path().join("watched");
    let to = std::fs::File::create(&file).expect("file");
    let mut watch = std::process::Command::new(net::VTEPD)
        .args(["watch", "--after", "0", "--json", "--socket"])
        .arg(d.socket())
        .stdout(to)
        .stderr(std::process::Stdio::null())
        .spawn()
        .expect("watch starts");
    eventually("an event is printed", || {
        let text = std::fs::read_to_string(&file).map_err(|e| e.to_string())?;
        let line = text.lines().next().ok_or("nothing yet")?.to_owned();
        let value: serde_json::Value = serde_json::from_str(&line).map_err(|e| format!("{e}: {line}"))?;
        if value["n"] == 1 && value["event"].is_string() { Ok(()) } else { Err(line) }
    });
    drop(d);
    eventually("watch ends with the daemon", || match watch.try_wait() {
        Ok(Some(s)) if s.code() == Some(1) => Ok(()),
        other => Err(format!("{other:?}")),
    });
}

#[test]
fn check_host_names_what_would_break_bridged_traffic_and_changes_nothing() {
    needs_namespaces!();
    let (host, _far, _guest) = host();
    let setup = Setup::new(VTEP, VNI);
    let before = host.ip("-d link");
    let out = host
        .command(net::VTEPD)
        .args(["check", "--host", "--config"])
        .arg(&setup.file)
        .output()
        .expect("runs");
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(
        text.starts_with(&format!("`{}` is valid: 0 neighbors, 1 VNIs\n", setup.file.display())),
        "{text}"
    );
    // Whatever this machine's findings are, each says why and what to do, and errors make the exit code 1.
    let findings = text.lines().filter(|l| l.starts_with("error[") || l.starts_with("warning["));
    assert_eq!(findings.count(), text.matches("\n  help: ").count(), "{text}");
    let errors = text.lines().any(|l| l.starts_with("error["));
    assert_eq!(out.status.code(), Some(i32::from(errors)), "{text}");
    assert_eq!(host.ip("-d link"), before);
}

/// The journal of sequences is damaged: set aside and told with path and offset, never fatal.
#[test]
fn a_damaged_state_file_is_set_aside_and_told_and_the_daemon_runs() {
    needs_namespaces!();
    let (host, _far, _guest) = host();
    let setup = Setup::new(VTEP, VNI);
    assert_eq!(setup.start(&host).stop().0.code(), Some(0));
    let journal = setup.dir.path().join("state/sequences.journal");
    let mut bytes = std::fs::read(&journal).expect("written by the first run");
    bytes.extend([0xff; 55]);
    std::fs::write(&journal, &bytes).expect("writable");
    let d = setup.start(&host);
    let log = d.log();
    let line = log.lines().find(|l| l.contains("state file damaged")).unwrap_or_else(|| panic!("{log}"));
    for word in ["sequences.journal", "sequences.journal.corrupt-1", "offset=120", "wrong checksum"] {
        assert!(line.contains(word), "{line}");
    }
    assert_eq!(
        std::fs::read(setup.dir.path().join("state/sequences.journal.corrupt-1")).expect("kept"),
        bytes
    );
    let told = d.show_text("events");
    assert!(told.contains("state-damaged") && told.contains("offset=120"), "{told}");
    assert_eq!(d.stop().0.code(), Some(0));
    let d = setup.start(&host);
    assert!(!d.log().contains("damaged"), "rebuilt: {}", d.log());
    assert_eq!(d.stop().0.code(), Some(0));
}

#[test]
fn a_state_directory_that_cannot_be_used_is_an_error_with_the_way_out() {
    needs_namespaces!();
    let (host, _far, _guest) = host();
    let setup = Setup::new(VTEP, "");
    let state = setup.dir.path().join("state");
    std::fs::create_dir_all(state.join("sequences.journal")).expect("a directory where a file should be");
    let refused = |text: &str| {
        let out = setup.run_to_end(&host);
        assert_eq!(out.status.code(), Some(1));
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(said.contains(text) && said.contains("`vtep.state-dir` has to be a directory"), "{said}");
    };
    refused("cannot open `");
    std::fs::remove_dir_all(&state).expect("removed");
    std::fs::write(&state, "a file where a directory should be").expect("written");
    refused("cannot create `");
}

/// A full disk: said once, tried again, caught up with; the daemon goes on meanwhile.
#[test]
fn a_full_disk_is_told_and_the_daemon_goes_on_and_catches_up() {
    needs_namespaces!();
    let (host, _far, _guest) = host();
    let setup = Setup::new(VTEP, VNI);
    let state = setup.dir.path().join("state");
    let mounted = net::Tmpfs::mount(&state, "64k");
    std::fs::write(state.join("lock"), "0").expect("room");
    let ballast = mounted.fill();
    let d = setup.start(&host);
    let count = |name: &str| d.show("status")[0]["counters"][name].as_u64().unwrap_or_default();
    eventually(
        "it is told",
        || {
            if count("state_failures") >= 2 { Ok(()) } else { Err(d.show_text("status")) }
        },
    );
    assert_eq!(d.log().matches("sequences are not kept").count(), 1, "once, not every second: {}", d.log());
    assert_eq!(count("state_bytes"), 0);
    std::fs::remove_file(&ballast).expect("removed");
    eventually(
        "it catches up",
        || if count("state_bytes") > 0 { Ok(()) } else { Err(d.show_text("status")) },
    );
    eventually("its end is told", || {
        let told = d.show_text("events");
        if told.contains("state-recovered") { Ok(()) } else { Err(told) }
    });
    let told = d.show_text("events");
    assert_eq!(told.matches("state-failing").count(), 1, "{told}");
    assert!(told.contains("No space left on device"), "{told}");
    eventually("the log has it", || {
        let log = d.log();
        if log.contains("sequences are kept again") { Ok(()) } else { Err(log) }
    });
    assert_eq!(d.stop().0.code(), Some(0));
}
