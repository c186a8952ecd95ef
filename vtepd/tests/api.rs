//! The API in-process, with a scripted core behind it.

use evpn::node::view::{self, MacView, Page, Place, Rows};
use evpn::node::{About, Command, Event, MoveReply, MoveStep, Refusal, Reply, Requester, Show, WhyRequest};
use evpn::types::{Mac, Seq, Span, Time, Vni};
use serde_json::Value;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use vtepd::api::core::{self, CoreEnd, EVENT_QUEUE, EventLine, REQUEST_QUEUE, Request};
use vtepd::api::{self, socket};
use vtepd::cli::client::{Client, ClientError};
use vtepd::hypervisor::board::Board;

/// A served API; the directory goes when it is dropped.
struct Served {
    _dir: tempfile::TempDir,
    _file: socket::SocketFile,
    socket: PathBuf,
    end: CoreEnd,
}

fn serve() -> Served {
    let dir = tempfile::tempdir().expect("directory");
    let socket = dir.path().join("api.sock");
    let claim = socket::claim_socket(&socket).expect("free");
    let (core, end) = core::pair();
    let listener = tokio::net::UnixListener::from_std(claim.listener).expect("listener");
    tokio::spawn(api::serve(listener, core, Board::default(), std::future::pending()));
    Served { _dir: dir, _file: claim.file, socket, end }
}

/// Status line, headers and body of one request.
async fn raw(socket: &PathBuf, request: &str) -> (u16, String, Value) {
    let mut stream = UnixStream::connect(socket).await.expect("connected");
    let text = format!("{request} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(text.as_bytes()).await.expect("written");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("read");
    let (head, body) = answer.split_once("\r\n\r\n").expect("head and body");
    let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).expect("status");
    (status, head.to_lowercase(), serde_json::from_str(body.trim()).unwrap_or(Value::Null))
}

fn vni(n: u32) -> Vni {
    Vni::new(n).expect("valid")
}

fn mac_row(n: u8) -> MacView {
    MacView {
        vni: vni(100),
        mac: Mac([2, 0, 0, 0, 0, n]),
        place: Place::None,
        seq: Seq::ZERO,
        sticky: false,
        stale: false,
        duplicate: false,
        ips: Vec::new(),
        moves: 0,
        since: Span::ZERO,
    }
}

fn page(rows: Vec<MacView>, next: Option<&str>) -> Reply {
    Reply::Page(Page {
        version: view::VERSION,
        revision: 1,
        rows: Rows::Macs(rows),
        next: next.map(str::to_owned),
    })
}

fn event(n: u64) -> Event {
    Event::Overrun { count: n }
}

fn line(n: u64) -> Arc<EventLine> {
    Arc::new(EventLine { n, at: Time(n), unix_ms: n, event: event(n) })
}

#[tokio::test]
async fn a_table_is_asked_for_with_its_filter_and_cursor() {
    let Served { mut end, socket, _dir, _file } = serve();
    let core = tokio::spawn(async move {
        let Request { command, reply } = end.requests.recv().await.expect("a request");
        reply.send(page(vec![mac_row(1)], Some("c2"))).expect("awaited");
        command
    });
    let path = "GET /v1/macs?vni=100&mac=02:00:00:00:00:01&ip=10.0.0.1&cursor=a%20b&limit=7";
    let (status, head, body) = raw(&socket, path).await;
    assert_eq!(status, 200, "{body}");
    assert!(head.contains("content-type: application/json"), "{head}");
    assert_eq!((&body["version"], &body["next"]), (&1.into(), &"c2".into()));
    assert_eq!(body["rows"]["table"], "macs");
    assert_eq!(body["rows"]["rows"][0]["mac"], "02:00:00:00:00:01");
    let Command::Show(q) = core.await.expect("core") else { panic!("a table was asked for") };
    assert_eq!((q.show, q.filter.vni, q.limit), (Show::Macs, Some(vni(100)), 7));
    assert_eq!(q.cursor.as_deref(), Some("a b"));
    assert_eq!(q.filter.ip, Some("10.0.0.1".parse().expect("address")));
}

#[tokio::test]
async fn wrong_requests_get_json_errors_and_never_reach_the_core() {
    let mut s = serve();
    for (request, status, part) in [
        ("GET /v1/colours", 404, "no table `colours`"),
        ("GET /", 404, "everything is under /v1"),
        ("GET /v2/macs", 404, "everything is under /v1"),
        ("POST /v1/macs", 405, "only GET"),
        ("DELETE /v1/events", 405, "only GET"),
        ("GET /v1/move", 405, "only POST at /v1/move"),
        ("POST /v1/move", 400, "is a JSON object"),
        ("GET /v1/macs?vni=0", 400, "between 1 and 16777215"),
        ("GET /v1/macs?mac=x", 400, "not a MAC address"),
        ("GET /v1/macs?limit=1000", 400, "between 1 and 256"),
        ("GET /v1/macs?color=red", 400, "unknown parameter `color`"),
        ("GET /v1/macs?ip=%ff", 400, "not an IP address"),
        ("GET /v1/macs?kind=hot", 400, "unknown parameter `kind`"),
        ("GET /v1/moves?kind=quick", 400, "`quick` is none of hot, warm, cold, changed-mac, new-ip"),
        ("GET /v1/moves?slow=5", 400, "no length of time"),
        ("GET /v1/why/colour/100/red", 404, "known: mac, ip"),
        ("GET /v1/why/mac/0/02:00:00:00:00:01", 400, "between 1 and 16777215"),
        ("GET /v1/why/mac/100/x", 400, "not a MAC address"),
        ("GET /v1/why/ip/100/10.0.0.256", 400, "not an IP address"),
        ("GET /v1/why/mac/100", 404, "everything is under /v1"),
        ("GET /v1/events?after=x", 400, "number of an event"),
    ] {
        let (got, head, body) = raw(&s.socket, request).await;
        assert_eq!(got, status, "{request}: {body}");
        let text = body["error"].as_str().unwrap_or_default();
        assert!(text.contains(part), "{request}: {text}");
        assert!(head.contains("application/json"), "{request}: {head}");
    }
    assert!(s.end.requests.try_recv().is_err());
}

#[tokio::test]
async fn what_the_node_refuses_is_a_400() {
    let Served { mut end, socket, _dir, _file } = serve();
    tokio::spawn(async move {
        let r = end.requests.recv().await.expect("a request");
        let _ = r.reply.send(Reply::Error("no such cursor".into()));
        end
    });
    let (status, _, body) = raw(&socket, "GET /v1/macs?cursor=old").await;
    assert_eq!((status, &body["error"]), (400, &"no such cursor".into()));
}

#[tokio::test]
async fn a_why_that_has_no_answer_is_a_404() {
    let Served { mut end, socket, _dir, _file } = serve();
    let core = tokio::spawn(async move {
        let r = end.requests.recv().await.expect("a request");
        let _ = r.reply.send(Reply::Error("nothing is known".into()));
        r.command
    });
    let (status, _, body) = raw(&socket, "GET /v1/why/ip/100/2001:db8::1").await;
    assert_eq!((status, &body["error"]), (404, &"nothing is known".into()));
    let about = About::Ip("2001:db8::1".parse().expect("address"));
    let asked = core.await.expect("core");
    assert!(matches!(asked, Command::Why(WhyRequest { vni: v, about: a }) if v == vni(100) && a == about));
}

#[tokio::test]
async fn a_full_queue_is_a_503_with_retry_after() {
    let s = serve();
    let mut waiting = Vec::new();
    for _ in 0..REQUEST_QUEUE {
        let mut stream = UnixStream::connect(&s.socket).await.expect("connected");
        stream.write_all(b"GET /v1/macs HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("written");
        waiting.push(stream);
    }
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    while s.end.requests.len() < REQUEST_QUEUE {
        assert!(tokio::time::Instant::now() < deadline, "{} requests queued", s.end.requests.len());
        tokio::task::yield_now().await;
    }
    let (status, head, body) = raw(&s.socket, "GET /v1/macs").await;
    assert_eq!(status, 503, "{body}");
    assert!(head.contains("retry-after: 1"), "{head}");
    assert_eq!(body["error"], "vtepd is busy; try again");
}

#[tokio::test]
async fn a_core_that_is_gone_is_a_503() {
    let Served { end, socket, _dir, _file } = serve();
    drop(end);
    let (status, _, body) = raw(&socket, "GET /v1/status").await;
    assert_eq!((status, &body["error"]), (503, &"vtepd is stopping".into()));
}

/// Answers `Command::Events` from a history of `n` events until the request queue closes.
fn scripted_history(mut end: CoreEnd, n: u64) -> tokio::sync::broadcast::Sender<Arc<EventLine>> {
    let events = end.events.clone();
    tokio::spawn(async move {
        while let Some(Request { command, reply }) = end.requests.recv().await {
            let Command::Events { after, limit } = command else { continue };
            let events = (after + 1..=n).take(limit).map(|n| (n, Time(n), event(n))).collect();
            let _ = reply.send(Reply::Events { lagged: 0, events });
        }
    });
    events
}

async fn next_number(stream: &mut vtepd::cli::client::EventStream) -> (String, u64) {
    let limit = Duration::from_secs(10);
    let next = tokio::time::timeout(limit, stream.next()).await.expect("an event in time");
    let (kind, data) = next.expect("connection").expect("an event");
    let value: Value = serde_json::from_str(&data).expect("JSON");
    let n = value["n"].as_u64().or(value["lagged"].as_u64()).expect("number");
    (kind, n)
}

#[tokio::test]
async fn a_watcher_gets_the_history_and_then_what_happens_without_gap_or_repetition() {
    let Served { end, socket, _dir, _file } = serve();
    let live = scripted_history(end, 300);
    let mut stream = Client::new(&socket).events("/v1/events?after=0").await.expect("stream");
    for want in 1..=300 {
        assert_eq!(next_number(&mut stream).await, ("event".into(), want));
    }
    // An event that the history already had is not repeated.
    live.send(line(300)).expect("watched");
    live.send(line(301)).expect("watched");
    assert_eq!(next_number(&mut stream).await, ("event".into(), 301));
}

#[tokio::test]
async fn a_slow_watcher_is_told_how_many_events_it_lost() {
    let Served { end, socket, _dir, _file } = serve();
    let live = scripted_history(end, 1);
    let mut stream = Client::new(&socket).events("/v1/events").await.expect("stream");
    assert_eq!(next_number(&mut stream).await, ("event".into(), 1));
    // Nothing is awaited in between, so the server cannot send before all of these are in.
    let lost = 10;
    let many = EVENT_QUEUE as u64 + lost;
    for n in 2..2 + many {
        live.send(line(n)).expect("watched");
    }
    assert_eq!(next_number(&mut stream).await, ("lagged".into(), lost));
    assert_eq!(next_number(&mut stream).await, ("event".into(), 2 + lost));
}

#[tokio::test]
async fn the_history_can_be_had_as_json() {
    let Served { end, socket, _dir, _file } = serve();
    scripted_history(end, 5);
    let (status, _, body) = raw(&socket, "GET /v1/events?follow=false&after=2&limit=2").await;
    assert_eq!((status, &body["next"], &body["lagged"]), (200, &4.into(), &0.into()));
    assert_eq!(body["events"].as_array().map(Vec::len), Some(2));
    assert_eq!(body["events"][0]["event"], "overrun");
}

#[tokio::test]
async fn the_client_asks_a_busy_daemon_again_and_names_an_absent_one() {
    let s = serve();
    let error = Client::new(&s.socket.with_extension("other")).get("/v1/status").await.expect_err("absent");
    assert!(matches!(error, ClientError::NoDaemon { denied: false, .. }), "{error}");
    assert!(error.help().is_some_and(|h| h.contains("vtepd run")));
}

/// One POST with a body.
async fn post(socket: &PathBuf, body: &str) -> (u16, String, Value) {
    let head =
        format!("POST /v1/move HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}", body.len());
    let mut stream = UnixStream::connect(socket).await.expect("connected");
    stream.write_all(format!("{head}\r\n\r\n{body}").as_bytes()).await.expect("written");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("read");
    let (head, body) = answer.split_once("\r\n\r\n").expect("head and body");
    let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).expect("status");
    (status, head.to_lowercase(), serde_json::from_str(body.trim()).unwrap_or(Value::Null))
}

fn moved(state: &str, sent_to: &[&str], lagging: &[&str]) -> MoveReply {
    let ips = |l: &[&str]| l.iter().map(|s| s.parse().expect("address")).collect();
    MoveReply {
        vni: Some(vni(100)),
        mac: Mac([2, 0, 0, 0, 0, 1]),
        state: state.into(),
        seq: Some(Seq(3)),
        ips: ips(&["10.1.0.1"]),
        sent_to: ips(sent_to),
        lagging: ips(lagging),
        notes: vec!["a note".into()],
    }
}

#[tokio::test]
async fn a_step_of_a_move_reaches_the_core_and_its_answer_the_asker() {
    let Served { mut end, socket, _dir, _file } = serve();
    let core = tokio::spawn(async move {
        let Request { command, reply } = end.requests.recv().await.expect("a request");
        reply.send(Reply::Move(moved("active", &["10.0.0.2"], &["10.0.0.3"]))).expect("awaited");
        command
    });
    let body = r#"{"step":"activate","mac":"02:00:00:00:00:01","vni":100,"port":"p1","ips":["10.1.0.1"],"timeout":"5s"}"#;
    let (status, _, answer) = post(&socket, body).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!((&answer["state"], &answer["seq"]), (&"active".into(), &3.into()));
    assert_eq!((&answer["sent_to"][0], &answer["lagging"][0]), (&"10.0.0.2".into(), &"10.0.0.3".into()));
    let Command::Move(r) = core.await.expect("core") else { panic!("a step of a move") };
    assert_eq!((r.vni, r.by, r.ips.len()), (Some(vni(100)), Requester::Api, 1));
    assert_eq!(r.step, MoveStep::Activate { port: Some("p1".into()), timeout: Some(Span::secs(5)) });
}

#[tokio::test]
async fn every_no_has_its_status() {
    let Served { mut end, socket, _dir, _file } = serve();
    let refused = |refusal| Reply::MoveRefused { refusal, text: "no, because".into() };
    let answers = [
        (refused(Refusal::Invalid), 400),
        (refused(Refusal::Conflict), 409),
        (refused(Refusal::Busy), 503),
        (refused(Refusal::Late), 504),
        (Reply::Move(moved("active", &[], &["10.0.0.3"])), 504),
        (Reply::Move(moved("active", &[], &[])), 200),
    ];
    let wanted: Vec<u16> = answers.iter().map(|(_, s)| *s).collect();
    tokio::spawn(async move {
        for (answer, _) in answers {
            let r = end.requests.recv().await.expect("a request");
            r.reply.send(answer).expect("awaited");
        }
        end
    });
    for (i, want) in wanted.into_iter().enumerate() {
        let (status, head, body) = post(&socket, r#"{"step":"abort","mac":"02:00:00:00:00:01"}"#).await;
        assert_eq!(status, want, "{body}");
        if i < 4 {
            assert_eq!(body["error"], "no, because");
        } else {
            assert_eq!(
                body["state"], "active",
                "504 with an answer: it is active, but nobody has heard of it"
            );
        }
        assert_eq!(head.contains("retry-after"), status == 503);
    }
}

#[tokio::test]
async fn a_body_that_is_too_large_or_nonsense_never_reaches_the_core() {
    let mut s = serve();
    let large = format!("{{\"step\":\"abort\",\"mac\":\"{}\"}}", "x".repeat(20_000));
    for (body, status, part) in [
        (large.as_str(), 413, "at most 16384 octets"),
        ("[1,2", 400, "invalid"),
        (r#"{"step":"abort","mac":"02:00:00:00:00:01","really":true}"#, 400, "unknown field `really`"),
        (r#"{"step":"prepare","mac":"02:00:00:00:00:01"}"#, 400, "needs the guest's port"),
        (
            r#"{"step":"prepare","mac":"02:00:00:00:00:01","port":"../../etc"}"#,
            400,
            "cannot be the name of a device",
        ),
    ] {
        let (got, head, answer) = post(&s.socket, body).await;
        let text = answer["error"].as_str().unwrap_or_default();
        assert!(got == status && text.contains(part), "{got}: {text}");
        assert!(head.contains("application/json"), "{head}");
    }
    assert!(s.end.requests.try_recv().is_err());
}

/// The command line against a scripted daemon: what a person sees, and what a script gets.
#[tokio::test]
async fn the_command_line_tells_how_a_step_ended() {
    let Served { mut end, socket, _dir, _file } = serve();
    tokio::spawn(async move {
        for answer in [
            Reply::Move(moved("active", &["10.0.0.2"], &[])),
            Reply::Move(moved("active", &[], &["10.0.0.3"])),
            Reply::MoveRefused { refusal: Refusal::Conflict, text: "the guest is running here".into() },
        ] {
            let r = end.requests.recv().await.expect("a request");
            r.reply.send(answer).expect("awaited");
        }
        end
    });
    let said = tokio::task::spawn_blocking(move || {
        let run = || {
            let mut c = std::process::Command::new(env!("CARGO_BIN_EXE_vtepd"));
            c.args(["move", "activate", "--mac", "02:00:00:00:00:01", "--port", "p1", "--socket"])
                .arg(&socket);
            let out = c.output().expect("vtepd starts");
            let text = |b: Vec<u8>| String::from_utf8(b).expect("UTF-8");
            (out.status.code(), text(out.stdout), text(out.stderr))
        };
        [run(), run(), run()]
    });
    let [told, nobody, refused] = said.await.expect("three runs");
    let line = "active 02:00:00:00:00:01 in VNI 100, sequence 3, with 10.1.0.1\n";
    assert_eq!(told, (Some(0), format!("{line}  told: 10.0.0.2\n  note: a note\n"), String::new()));
    assert_eq!(nobody, (Some(1), format!("{line}  lagging: 10.0.0.3\n  note: a note\n"), String::new()));
    assert_eq!(refused, (Some(1), String::new(), "error: the guest is running here\n".into()));
}
