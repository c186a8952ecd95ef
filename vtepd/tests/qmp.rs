//! The QMP client against servers that behave, vanish, hang and talk rubbish. No test here needs QEMU.

use evpn::node::{Command, MoveReply, MoveStep, Reply, Requester};
use evpn::types::Vni;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use vtepd::api::core::{self, Core, CoreEnd, REQUEST_QUEUE, Request};
use vtepd::hypervisor::board::{Board, GuestRow};
use vtepd::hypervisor::qmp::QmpSettings;
use vtepd::hypervisor::qmp::machine::Options;
use vtepd::hypervisor::{self, HypervisorSettings};

const GREETING: &[u8] =
    b"{\"QMP\": {\"version\": {\"qemu\": {\"micro\": 22, \"minor\": 2, \"major\": 7}}}}\r\n";
const SOON: Duration = Duration::from_secs(20);

/// The adapter on a directory, with a core that says yes.
struct World {
    dir: tempfile::TempDir,
    core: Core,
    end: CoreEnd,
    board: Board,
    notes: Vec<String>,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("directory");
        let (core, end) = core::pair();
        let board = Board::default();
        let one = QmpSettings {
            socket: dir.path().join("*.sock"),
            max_sockets: 64,
            options: Options { ports: BTreeMap::new(), ..Options::default() },
        };
        hypervisor::start(
            &HypervisorSettings { qmp: vec![one], libvirt: None, libvirt_at_stop: false },
            &core,
            &board,
        );
        Self { dir, core, end, board, notes: Vec::new() }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The next step that the core is asked for; notes on the way are kept.
    async fn step(&mut self) -> String {
        let until = tokio::time::Instant::now() + SOON;
        loop {
            let next = tokio::time::timeout_at(until, self.end.requests.recv()).await;
            let Request { command, reply } = next.expect("a step comes").expect("the adapter lives");
            match command {
                Command::Tell { guest, text, .. } => {
                    self.notes.push(format!("{guest}: {text}"));
                    let _ = reply.send(Reply::Told);
                }
                Command::Move(m) => {
                    assert_eq!(m.by, Requester::Qmp);
                    let answer = MoveReply {
                        vni: m.vni.or(Vni::new(100)),
                        mac: m.mac,
                        state: "done".into(),
                        seq: None,
                        ips: vec![],
                        sent_to: vec![],
                        lagging: vec![],
                        notes: vec![],
                    };
                    let _ = reply.send(Reply::Move(answer));
                    return match m.step {
                        MoveStep::Prepare { port, .. } => format!("prepare {} {port}", m.mac),
                        MoveStep::Activate { port, .. } => {
                            format!("activate {} {}", m.mac, port.unwrap_or_default())
                        }
                        MoveStep::Abort => format!("abort {}", m.mac),
                        MoveStep::Release { .. } => format!("release {}", m.mac),
                        // What is held meanwhile is tested with the machine.
                        MoveStep::Leave(_) => continue,
                    };
                }
                Command::Events { .. } => {}
                other => {
                    panic!("unexpected: {other:?}")
                }
            }
        }
    }

    /// Takes notes in until one fits; no step may come meanwhile.
    async fn note(&mut self, part: &str) -> String {
        let until = tokio::time::Instant::now() + SOON;
        loop {
            if let Some(n) = self.notes.iter().position(|n| n.contains(part)) {
                return self.notes.remove(n);
            }
            let next = tokio::time::timeout_at(until, self.end.requests.recv()).await;
            let Ok(Some(Request { command, reply })) = next else {
                panic!("no note with `{part}`: {:?}", self.notes)
            };
            let Command::Tell { guest, text, .. } = command else { panic!("unexpected: {command:?}") };
            self.notes.push(format!("{guest}: {text}"));
            let _ = reply.send(Reply::Told);
        }
    }

    /// Until nothing is known of a socket, or its session is at least over.
    async fn row_gone(&self, path: &Path) {
        self.row(path, |r| !r.connected).await;
    }

    async fn row(&self, path: &Path, fits: impl Fn(&GuestRow) -> bool) -> GuestRow {
        let begun = Instant::now();
        loop {
            let rows = self.board.rows();
            let row = rows.into_iter().find(|r| r.source == path.display().to_string());
            if let Some(r) = row.clone().filter(&fits) {
                return r;
            }
            assert!(begun.elapsed() < SOON, "last seen: {row:#?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// A QEMU of one NIC, as far as QMP shows it.
struct Qemu {
    stream: BufReader<UnixStream>,
    mac: &'static str,
    status: &'static str,
}

impl Qemu {
    async fn accept(listener: &UnixListener, mac: &'static str, status: &'static str) -> Self {
        let stream =
            tokio::time::timeout(SOON, listener.accept()).await.expect("in time").expect("a client").0;
        let mut q = Self { stream: BufReader::new(stream), mac, status };
        q.send(GREETING).await;
        q
    }

    async fn send(&mut self, octets: &[u8]) {
        self.stream.get_mut().write_all(octets).await.expect("written");
    }

    async fn event(&mut self, name: &str) {
        self.send(format!("{{\"event\": \"{name}\"}}\r\n").as_bytes()).await;
    }

    /// Answers what is asked until that command was answered; `split`: octet by octet.
    async fn answer_until(&mut self, last: &str, split: bool) {
        loop {
            let mut line = String::new();
            let n =
                tokio::time::timeout(SOON, self.stream.read_line(&mut line)).await.expect("asked in time");
            assert_ne!(n.expect("read"), 0, "the client hung up");
            let v: Value = serde_json::from_str(&line).expect("JSON");
            let command = v["execute"].as_str().expect("a command").to_owned();
            let answer = match command.as_str() {
                "query-status" => json!({ "status": self.status }),
                "human-monitor-command" => json!(format!(
                    "nic0: index=0,type=nic,model=virtio-net-pci,macaddr={}\r\n \\ n0: index=0,type=tap,ifname=tap0\r\n",
                    self.mac
                )),
                "query-rx-filter" => json!([]),
                _ => json!({}),
            };
            let mut text = json!({ "return": answer, "id": v["id"] }).to_string();
            text.push_str("\r\n");
            if split {
                for b in text.as_bytes().chunks(7) {
                    self.send(b).await;
                    tokio::task::yield_now().await;
                }
            } else {
                self.send(text.as_bytes()).await;
            }
            if command == last {
                return;
            }
        }
    }
}

const A: &str = "52:54:00:aa:00:01";
const B: &str = "52:54:00:aa:00:02";

#[tokio::test(flavor = "current_thread")]
async fn a_guest_arrives_and_its_qemu_is_killed_before_it_came() {
    let mut w = World::new();
    let path = w.at("a.sock");
    let listener = UnixListener::bind(&path).expect("bound");
    let mut q = Qemu::accept(&listener, A, "inmigrate").await;
    q.answer_until("query-name", true).await;
    assert_eq!(w.step().await, format!("prepare {A} tap0"));
    let row = w.row(&path, |r| r.nics.first().is_some_and(|n| n.state.is_some())).await;
    assert_eq!((row.state.as_str(), row.qemu.as_str(), row.connected), ("arriving", "7.2.22", true));
    drop((q, listener));
    assert_eq!(w.step().await, format!("abort {A}"), "nobody listens any more");

    // The next one at the same path is another guest, and it comes.
    std::fs::remove_file(&path).expect("removed");
    let listener = UnixListener::bind(&path).expect("bound");
    let mut q = Qemu::accept(&listener, B, "inmigrate").await;
    q.answer_until("query-name", false).await;
    assert_eq!(w.step().await, format!("prepare {B} tap0"));
    q.event("RESUME").await;
    assert_eq!(w.step().await, format!("activate {B} tap0"));
    w.note("runs here now").await;
    w.row(&path, |r| r.state == "running").await;
}

#[tokio::test(flavor = "current_thread")]
async fn a_connection_that_breaks_is_made_again_and_what_was_missed_is_made_up_for() {
    let mut w = World::new();
    let listener = UnixListener::bind(w.at("a.sock")).expect("bound");
    let mut q = Qemu::accept(&listener, A, "inmigrate").await;
    q.answer_until("query-name", false).await;
    assert_eq!(w.step().await, format!("prepare {A} tap0"));
    drop(q);
    let mut q = Qemu::accept(&listener, A, "running").await;
    q.answer_until("query-rx-filter", false).await;
    assert_eq!(w.step().await, format!("activate {A} tap0"));
}

#[tokio::test(flavor = "current_thread")]
async fn sockets_that_hang_or_talk_rubbish_are_reported_and_hold_nobody_up() {
    let mut w = World::new();
    // One says nothing, one begins a line and no more, one sends rubbish, one 10 MB without a line end.
    let silent = UnixListener::bind(w.at("silent.sock")).expect("bound");
    let half = UnixListener::bind(w.at("half.sock")).expect("bound");
    let rubbish = UnixListener::bind(w.at("rubbish.sock")).expect("bound");
    let endless = UnixListener::bind(w.at("endless.sock")).expect("bound");
    let _held = tokio::time::timeout(SOON, silent.accept()).await.expect("connected").expect("accepted");
    tokio::spawn(async move {
        let (mut s, _) = half.accept().await.expect("accepted");
        s.write_all(b"{\"QMP\": {").await.expect("written");
        std::future::pending::<()>().await;
    });
    let tries = std::sync::Arc::new(std::sync::atomic::AtomicU32::new(0));
    let counted = std::sync::Arc::clone(&tries);
    tokio::spawn(async move {
        while let Ok((mut s, _)) = rubbish.accept().await {
            counted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let _ = s.write_all(b"SSH-2.0-OpenSSH_9.2\r\n").await;
            let _ = s.read(&mut [0; 1]).await;
        }
    });
    tokio::spawn(async move {
        while let Ok((mut s, _)) = endless.accept().await {
            let _ = s.write_all(&vec![b'x'; 10 << 20]).await;
        }
    });
    // A guest arrives meanwhile, in no more time than alone.
    let listener = UnixListener::bind(w.at("good.sock")).expect("bound");
    let mut q = Qemu::accept(&listener, A, "inmigrate").await;
    q.answer_until("query-name", false).await;
    assert_eq!(w.step().await, format!("prepare {A} tap0"));
    q.event("RESUME").await;
    assert_eq!(w.step().await, format!("activate {A} tap0"));
    // Before the first of them has timed out, however slow this machine is.
    let silent_row = w.row(&w.at("silent.sock"), |_| true).await;
    assert_eq!(silent_row.faults, 0, "the guest had to wait for others");

    for (name, what) in [
        ("rubbish", "not JSON: `SSH-2.0-OpenSSH_9.2`"),
        ("endless", "a line of more than 64 KiB"),
        ("silent", "no greeting within 5 seconds"),
        ("half", "within 5 seconds"),
    ] {
        let note = w.note(&format!("{name}.sock")).await;
        assert!(note.contains(what), "{note}");
        let row = w.row(&w.at(&format!("{name}.sock")), |r| r.faults > 0).await;
        assert!(!row.connected && row.error.is_some(), "{row:?}");
    }
    // Reported once, and tried again with growing pauses.
    w.row(&w.at("rubbish.sock"), |r| r.faults >= 4).await;
    let n = tries.load(std::sync::atomic::Ordering::Relaxed);
    assert!((4..40).contains(&n), "{n} tries");
    assert!(!w.notes.iter().any(|n| n.contains("rubbish.sock")), "told again: {:?}", w.notes);
}

#[tokio::test(flavor = "current_thread")]
async fn a_flood_of_events_is_cut_off() {
    let mut w = World::new();
    let path = w.at("a.sock");
    let listener = UnixListener::bind(&path).expect("bound");
    let mut q = Qemu::accept(&listener, A, "running").await;
    q.answer_until("query-name", false).await;
    let flood = "{\"event\": \"STOP\"}\r\n".repeat(5000);
    // The client may hang up in the middle of it.
    let _ = q.stream.get_mut().write_all(flood.as_bytes()).await;
    w.note("more than 1000 lines in a second").await;
    w.row(&path, |r| r.faults == 1).await;
}

#[tokio::test(flavor = "current_thread")]
async fn a_busy_core_gets_every_step_later_and_in_order() {
    let mut w = World::new();
    let listener = UnixListener::bind(w.at("a.sock")).expect("bound");
    let mut q = Qemu::accept(&listener, A, "inmigrate").await;
    q.answer_until("query-name", false).await;
    assert_eq!(w.step().await, format!("prepare {A} tap0"));
    w.row(&w.at("a.sock"), |r| r.guest.is_none() && r.connected).await;
    // Others have filled the queue.
    while w.core.send(Command::Events { after: 0, limit: 1 }).is_ok() {}
    assert!(w.end.requests.len() >= REQUEST_QUEUE);
    q.event("RESUME").await;
    w.row(&w.at("a.sock"), |r| r.state == "running").await;
    drop((q, listener));
    let path = w.at("a.sock");
    std::fs::remove_file(&path).expect("removed");
    let mut got = Vec::new();
    w.row_gone(&path).await;
    for _ in 0..2 {
        got.push(w.step().await);
    }
    assert_eq!(got, [format!("activate {A} tap0"), format!("abort {A}")]);
}
