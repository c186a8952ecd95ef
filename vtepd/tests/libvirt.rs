//! libvirt's two ways in: the hook script and the lifecycle events (PIT-25). No libvirt is needed: calls, arguments and
//! lines are those of libvirt 9.0 and of its documentation.

use evpn::node::view::{MacView, Page, Place, Rows};
use evpn::node::{Command, Leave, MoveReply, MoveStep, Reply, Requester};
use evpn::types::{Seq, Span, Vni};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;
use vtepd::api::core::{self, CoreEnd, Request};
use vtepd::api::{self, socket};
use vtepd::hypervisor::board::Board;
use vtepd::hypervisor::libvirt::LibvirtSettings;
use vtepd::hypervisor::libvirt::domain::Domain;
use vtepd::hypervisor::libvirt::guests::{Guests, Out, Phase};
use vtepd::hypervisor::libvirt::lifecycle::parse;
use vtepd::hypervisor::libvirt::truth::Lists;
use vtepd::hypervisor::step::Step;
use vtepd::hypervisor::{self, HypervisorSettings, libvirt};

const MAC: &str = "52:54:00:aa:00:01";
const SOON: Duration = Duration::from_secs(20);

/// `lo` is a device that every host has.
fn xml(device: &str) -> String {
    format!(
        "<domain type='kvm'><name>vm1</name><devices><interface type='bridge'><mac address='{MAC}'/>\
         <source bridge='br100'/><target dev='{device}'/></interface></devices></domain>"
    )
}

/// A core that says yes, and where the MAC is.
async fn answer(end: &mut CoreEnd, at: &Place) -> Option<String> {
    let Request { command, reply } = end.requests.recv().await?;
    match command {
        Command::Show(_) => {
            let row = MacView {
                vni: Vni::new(100).expect("valid"),
                mac: MAC.parse().expect("a MAC"),
                place: at.clone(),
                seq: Seq(0),
                sticky: false,
                stale: false,
                duplicate: false,
                ips: vec![],
                moves: 0,
                since: Span::ZERO,
            };
            let page = Page { version: 1, revision: 1, rows: Rows::Macs(vec![row]), next: None };
            let _ = reply.send(Reply::Page(page));
            None
        }
        Command::Tell { .. } => {
            let _ = reply.send(Reply::Told);
            None
        }
        Command::Move(m) => {
            assert_eq!(m.by, Requester::Libvirt);
            let answer = MoveReply {
                vni: m.vni,
                mac: m.mac,
                state: "done".into(),
                seq: None,
                ips: vec![],
                sent_to: vec![],
                lagging: vec![],
                notes: vec![],
            };
            let _ = reply.send(Reply::Move(answer));
            Some(match m.step {
                MoveStep::Prepare { port, .. } if m.at_stop => format!("prepare {} {port} at stop", m.mac),
                MoveStep::Prepare { port, .. } => format!("prepare {} {port}", m.mac),
                MoveStep::Activate { port, .. } => format!("activate {} {}", m.mac, port.unwrap_or_default()),
                MoveStep::Abort => format!("abort {}", m.mac),
                MoveStep::Release { .. } => format!("release {}", m.mac),
                MoveStep::Leave(leave) => format!("{leave:?} {}", m.mac),
            })
        }
        other => panic!("unexpected: {other:?}"),
    }
}

/// Runs `vtepd hook libvirt` as libvirt does.
async fn hook(socket: &Path, arguments: &[&str], input: &str, strict: bool) -> Output {
    let mut c = tokio::process::Command::new(env!("CARGO_BIN_EXE_vtepd"));
    c.args(["hook", "libvirt", "--socket"]).arg(socket);
    if strict {
        c.arg("--strict");
    }
    let mut child = c
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("it runs");
    let mut to = child.stdin.take().expect("piped");
    // Calls that need no description do not read it.
    let _ = tokio::io::AsyncWriteExt::write_all(&mut to, input.as_bytes()).await;
    drop(to);
    tokio::time::timeout(SOON, child.wait_with_output()).await.expect("it ends").expect("its output")
}

/// What the core was asked in the course of one call.
async fn steps_of(arguments: &[&str], input: &str, at: Place) -> Vec<String> {
    steps_with(Board::default(), arguments, input, at).await
}

async fn steps_with(board: Board, arguments: &[&str], input: &str, at: Place) -> Vec<String> {
    let dir = tempfile::tempdir().expect("directory");
    let path = dir.path().join("api.sock");
    let claim = socket::claim_socket(&path).expect("free");
    let (core, mut end) = core::pair();
    let listener = tokio::net::UnixListener::from_std(claim.listener).expect("listener");
    let api = tokio::spawn(api::serve(listener, core, board, std::future::pending()));
    let called = hook(&path, arguments, input, true);
    tokio::pin!(called);
    let mut steps = Vec::new();
    let out = loop {
        tokio::select! {
            out = &mut called => break out,
            step = answer(&mut end, &at) => steps.extend(step),
        }
    };
    api.abort();
    assert!(out.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&out.stderr));
    assert!(out.stdout.is_empty(), "libvirt would take this for the new XML");
    steps
}

fn elsewhere() -> Place {
    Place::Vtep("10.0.0.2".parse().expect("an address"))
}

#[tokio::test(flavor = "current_thread")]
async fn the_hook_does_what_the_calls_of_a_migration_ask_for_in_their_order() {
    let prepare = vec![format!("prepare {MAC} lo")];
    for (arguments, device, at, want) in [
        // At the target. The tap has no name yet, then it has one.
        (["vm1", "migrate", "begin", "-"], "vnet-not-there", elsewhere(), vec![]),
        (["vm1", "prepare", "begin", "-"], "vnet-not-there", elsewhere(), vec![]),
        (["vm1", "start", "begin", "-"], "lo", elsewhere(), prepare.clone()),
        (["vm1", "started", "begin", "-"], "lo", elsewhere(), prepare),
        // It fails.
        (["vm1", "stopped", "end", "-"], "lo", elsewhere(), vec![]),
        (["vm1", "release", "end", "failed"], "lo", elsewhere(), vec![format!("abort {MAC}")]),
        // At the source.
        (["vm1", "stopped", "end", "-"], "lo", elsewhere(), vec![]),
        (["vm1", "release", "end", "migrated"], "lo", elsewhere(), vec![format!("release {MAC}")]),
        // A guest that just boots, and one that is here already.
        (["-vm", "start", "begin", "-"], "lo", Place::None, vec![]),
        (["vm1", "start", "begin", "-"], "lo", Place::Port("lo".into()), vec![]),
    ] {
        assert_eq!(steps_of(&arguments, &xml(device), at).await, want, "{arguments:?}");
    }
}

#[tokio::test(flavor = "current_thread")]
async fn the_hook_never_holds_a_migration_up_unless_it_is_told_to() {
    let dir = tempfile::tempdir().expect("directory");
    let nobody = dir.path().join("nobody.sock");
    let call = ["vm1", "start", "begin", "-"];
    for (input, strict, success, word) in [
        (xml("lo"), false, true, "no vtepd is running"),
        (xml("lo"), true, false, "no vtepd is running"),
        ("<network/>".into(), false, true, "no libvirt domain"),
        ("\u{0}rubbish".into(), true, false, "cannot be read"),
        ("x".repeat(2 << 20), false, true, "more than 1 MiB"),
    ] {
        let out = hook(&nobody, &call, &input, strict).await;
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        assert_eq!(out.status.success(), success, "{said}");
        assert!(said.contains(word) && out.stdout.is_empty(), "{said}");
    }
    // A vtepd that takes the connection and never answers.
    let deaf = std::os::unix::net::UnixListener::bind(dir.path().join("deaf.sock")).expect("bound");
    let out = hook(&dir.path().join("deaf.sock"), &call, &xml("lo"), false).await;
    assert!(out.status.success());
    assert!(String::from_utf8_lossy(&out.stderr).contains("within 2 seconds"), "{out:?}");
    drop(deaf);
    // A libvirt that never closes the input.
    let mut child = tokio::process::Command::new(env!("CARGO_BIN_EXE_vtepd"))
        .args(["hook", "libvirt", "vm1", "start", "begin", "-"])
        .stdin(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .expect("it runs");
    let held = child.stdin.take();
    let status = tokio::time::timeout(SOON, child.wait()).await.expect("it ends").expect("its status");
    assert!(status.success());
    drop(held);
}

/// The hook is no part of the daemon and knows nothing of its configuration (PIT-26).
#[tokio::test(flavor = "current_thread")]
async fn a_preparation_by_the_hook_heeds_the_stop_when_that_is_configured() {
    let arguments = ["vm1", "started", "begin", "-"];
    let steps = steps_with(Board::new(true), &arguments, &xml("lo"), elsewhere()).await;
    assert_eq!(steps, [format!("prepare {MAC} lo at stop")]);
    let release = ["vm1", "release", "end", "migrated"];
    let steps = steps_with(Board::new(true), &release, &xml("lo"), elsewhere()).await;
    assert_eq!(steps, [format!("release {MAC}")]);
}

/// A script that behaves like virsh: prints those lines, then waits; describes `vm1` with the device `lo`. Its lists are
/// the files `running` and `paused`; `then` becomes `running` when the events come, for lists and events never disagree.
fn virsh(dir: &Path, lines: &str) -> LibvirtSettings {
    std::fs::write(dir.join("lines"), lines).expect("written");
    std::fs::write(dir.join("xml"), xml("lo")).expect("written");
    let d = dir.display();
    let script = format!(
        "#!/bin/sh\n\
         echo \"$@\" >> {d}/calls\n\
         case \"$*\" in\n\
         *'event --loop'*) echo $$ > {d}/pid\n\
         while [ -e {d}/busy ] && ! grep -q 'domain slow' {d}/calls; do sleep 0.02; done\n\
         if [ -e {d}/then ]; then cat {d}/then > {d}/running; fi\n\
         cat {d}/lines; exec sleep 60;;\n\
         *'dumpxml --domain slow'*) exec sleep 60;;\n\
         *'list --name --state-running') cat {d}/running 2>/dev/null; exit 0;;\n\
         *'list --name') cat {d}/running {d}/paused 2>/dev/null; exit 0;;\n\
         *'domstate --reason --domain vm1') exec cat {d}/reason;;\n\
         *'dumpxml --domain vm1') exec cat {d}/xml;;\n\
         esac\nexit 1\n"
    );
    let path = dir.join("virsh");
    std::fs::write(&path, script).expect("written");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("set");
    LibvirtSettings { uri: "test:///x".into(), virsh: path, at_stop: false }
}

async fn watched(lines: &str, runs_then: &str, n: usize) -> Vec<String> {
    let dir = tempfile::tempdir().expect("directory");
    std::fs::write(dir.path().join("then"), runs_then).expect("written");
    let settings =
        HypervisorSettings { qmp: vec![], libvirt: Some(virsh(dir.path(), lines)), libvirt_at_stop: false };
    let (core, mut end) = core::pair();
    hypervisor::start(&settings, &core, &Board::default());
    let mut steps = Vec::new();
    while steps.len() < n {
        let next = tokio::time::timeout(SOON, answer(&mut end, &elsewhere())).await;
        steps.extend(next.unwrap_or_else(|_| panic!("only {steps:?}")));
    }
    let calls = std::fs::read_to_string(dir.path().join("calls")).expect("it was called");
    assert!(calls.lines().all(|l| l.starts_with("-q -r -c test:///x ")), "read only: {calls}");
    steps
}

#[tokio::test(flavor = "current_thread")]
async fn lifecycle_events_prepare_and_activate_at_the_target() {
    let lines = include_str!("fixtures/virsh-migration-target.txt");
    assert_eq!(watched(lines, "vm1\n", 2).await, [format!("prepare {MAC} lo"), format!("activate {MAC} lo")]);
}

#[tokio::test(flavor = "current_thread")]
async fn lifecycle_events_release_at_the_source() {
    let lines = include_str!("fixtures/virsh-migration-source.txt");
    // It has left before it could be described: there is nothing to hold any more.
    assert_eq!(watched(lines, "", 1).await, [format!("release {MAC}")]);
}

/// A host where many guests run, whose descriptions take long: the one that moves waits for none of them.
#[tokio::test(flavor = "current_thread")]
async fn guests_that_only_run_here_hold_up_none_that_moves() {
    let dir = tempfile::tempdir().expect("directory");
    let lines = include_str!("fixtures/virsh-migration-target.txt");
    let settings =
        HypervisorSettings { qmp: vec![], libvirt: Some(virsh(dir.path(), lines)), libvirt_at_stop: false };
    let names: Vec<String> = (0..60).map(|n| format!("slow{n}")).collect();
    std::fs::write(dir.path().join("running"), names.join("\n")).expect("written");
    std::fs::write(dir.path().join("then"), [names.join("\n").as_str(), "vm1\n"].join("\n"))
        .expect("written");
    std::fs::write(dir.path().join("busy"), "").expect("written");
    let (core, mut end) = core::pair();
    hypervisor::start(&settings, &core, &Board::default());
    let begun = std::time::Instant::now();
    let mut steps = Vec::new();
    while steps.len() < 2 {
        let next = tokio::time::timeout(SOON, answer(&mut end, &elsewhere())).await;
        steps.extend(next.unwrap_or_else(|_| panic!("only {steps:?} after {:?}", begun.elapsed())));
    }
    assert_eq!(steps, [format!("prepare {MAC} lo"), format!("activate {MAC} lo")]);
}

/// A time when nobody listened.
struct Gap {
    /// What `virsh event` prints before it, and the steps that this gives.
    lines: &'static str,
    first: usize,
    /// Domains that run before it, or are on their way.
    before: &'static str,
    /// What virsh's other calls tell after it: `running`, `paused`, `reason`.
    after: &'static [(&'static str, &'static str)],
    /// Where the MAC is.
    at: Place,
    /// All steps in the end.
    want: Vec<String>,
}

/// Events until virsh ends, as it does with libvirt's daemon; then what the lists say; the steps of both.
async fn through(gap: &Gap) -> Vec<String> {
    let dir = tempfile::tempdir().expect("directory");
    let file = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).expect("written");
    let settings = HypervisorSettings {
        qmp: vec![],
        libvirt: Some(virsh(dir.path(), gap.lines)),
        libvirt_at_stop: false,
    };
    // libvirt's lists agree with its events: one that is on its way does not run.
    file(if gap.lines.is_empty() { "running" } else { "paused" }, gap.before);
    let (core, mut end) = core::pair();
    hypervisor::start(&settings, &core, &Board::default());
    let mut steps = Vec::new();
    let calls = || std::fs::read_to_string(dir.path().join("calls")).unwrap_or_default();
    let runs = |what: &str| calls().lines().filter(|l| l.contains(what)).count();
    let deadline = tokio::time::Instant::now() + SOON;
    let mut over = false;
    // After the gap the lists have been asked for twice, too.
    while runs("list --name --state-running") < 4 || steps.len() < gap.want.len() {
        assert!(tokio::time::Instant::now() < deadline, "only {steps:?} of {}", calls());
        let described = gap.lines.is_empty() || runs("dumpxml") > 0;
        if !over && runs("list --name") >= 4 && steps.len() == gap.first && described {
            over = true;
            for (name, text) in [("lines", ""), ("running", ""), ("paused", "")].iter().chain(gap.after) {
                file(name, text);
            }
            let pid = std::fs::read_to_string(dir.path().join("pid")).expect("it runs");
            let pid =
                rustix::process::Pid::from_raw(pid.trim().parse().expect("a number")).expect("a process");
            rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("ended");
        }
        if let Ok(step) = tokio::time::timeout(Duration::from_millis(20), answer(&mut end, &gap.at)).await {
            steps.extend(step);
        }
    }
    // And nothing else.
    let until = tokio::time::Instant::now() + Duration::from_millis(500);
    while let Ok(step) = tokio::time::timeout_at(until, answer(&mut end, &gap.at)).await {
        steps.extend(step);
    }
    assert!(calls().lines().all(|l| l.starts_with("-q -r -c test:///x ")), "read only: {}", calls());
    steps
}

#[tokio::test(flavor = "current_thread")]
async fn what_was_missed_while_libvirts_daemon_was_away_is_made_up_for() {
    let prepare = || format!("prepare {MAC} lo");
    let activate = || format!("activate {MAC} lo");
    let held = || format!("Stopped {MAC}");
    let arriving = "event 'lifecycle' for domain 'vm1': Started Migrated\n";
    let leaving = "event 'lifecycle' for domain 'vm1': Suspended Migrated\n";
    const MIGRATING: (&str, &str) = ("reason", "paused (migrating)\n");
    const BY_USER: (&str, &str) = ("reason", "paused (user)\n");
    let here = || Place::Port("lo".into());
    let gap = |lines, before, after, at, want: Vec<String>| Gap {
        lines,
        first: usize::from(lines == arriving || lines == leaving),
        before,
        after,
        at,
        want,
    };
    let mut all = tokio::task::JoinSet::new();
    for gap in [
        // On its way here; then it runs, or is not there, or is still on its way.
        gap(arriving, "vm1\n", &[("running", "vm1\n")], elsewhere(), vec![prepare(), activate()]),
        gap(
            arriving,
            "vm1\n",
            &[("running", "other\n")],
            elsewhere(),
            vec![prepare(), format!("abort {MAC}")],
        ),
        gap(arriving, "vm1\n", &[("paused", "vm1\n"), MIGRATING], elsewhere(), vec![prepare()]),
        // On its way to elsewhere; then it is gone, or goes on here.
        gap(leaving, "vm1\n", &[], elsewhere(), vec![held(), format!("release {MAC}")]),
        gap(
            leaving,
            "vm1\n",
            &[("running", "vm1\n")],
            elsewhere(),
            vec![held(), format!("Stays {MAC}"), activate()],
        ),
        // All of its arrival was missed; a guest that was started, or was here all the time.
        gap("", "", &[("running", "vm1\n")], elsewhere(), vec![activate()]),
        gap("", "", &[("running", "vm1\n")], here(), vec![]),
        gap("", "vm1\n", &[("running", "vm1\n")], elsewhere(), vec![]),
        // The beginning was missed, and it is not over yet; or it is no migration.
        gap("", "", &[("paused", "vm1\n"), MIGRATING], elsewhere(), vec![prepare()]),
        gap("", "", &[("paused", "vm1\n"), BY_USER], elsewhere(), vec![]),
    ] {
        all.spawn(async move {
            let got = through(&gap).await;
            assert_eq!(got, gap.want, "{:?} and {:?}, then {:?}", gap.lines, gap.before, gap.after);
        });
    }
    while let Some(one) = all.join_next().await {
        one.expect("as wanted");
    }
}

#[test]
fn lists_that_are_older_than_an_event_are_not_believed() {
    let mut g = Guests::new(false);
    let one = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect();
    let here = Lists { running: one(&["vm1"]), active: one(&["vm1"]) };
    g.listing();
    g.compare(&here);
    g.listing();
    for what in ["Suspended Migrated", "Stopped Migrated"] {
        g.event(&parse(&format!("event 'lifecycle' for domain vm1: {what}")).expect("an event"));
    }
    while g.poll_output().is_some() {}
    g.described("vm1", Some(&Domain::parse(&xml("vnet3")).expect("a domain")));
    assert!(matches!(g.poll_output(), Some(Out::Wish(w)) if w.step == Step::Release { at_stop: false }));
    // Made before it stopped, read after: taken for the truth they would fetch the MAC back.
    g.compare(&here);
    assert_eq!(g.poll_output(), None);
    // One that is asked for now is.
    g.listing();
    g.compare(&here);
    assert_eq!(g.poll_output(), Some(Out::Describe("vm1".into())));
}

#[tokio::test(flavor = "current_thread")]
async fn a_virsh_that_is_not_there_is_reported_and_tried_again() {
    let settings = LibvirtSettings { uri: "x".into(), virsh: "/nonexistent/virsh".into(), at_stop: false };
    let (core, mut end) = core::pair();
    let board = Board::default();
    hypervisor::start(
        &HypervisorSettings { qmp: vec![], libvirt: Some(settings), libvirt_at_stop: false },
        &core,
        &board,
    );
    let told = tokio::time::timeout(SOON, end.requests.recv()).await.expect("told").expect("lives");
    let Command::Tell { text, warn: true, .. } = told.command else { panic!("{told:?}") };
    assert!(text.contains("cannot run /nonexistent/virsh") && text.contains("libvirt-clients"), "{text}");
    let row = &board.rows()[0];
    assert!(row.source == "libvirt" && !row.connected && row.error.is_some(), "{row:?}");
}

/// Events by line, a description as soon as it is asked for; the steps that come of it.
fn told(lines: &[&str], describe: bool, at_stop: bool) -> Vec<String> {
    let mut g = Guests::new(at_stop);
    let domain = Domain::parse(&xml("vnet3")).expect("a domain");
    let mut out = Vec::new();
    for line in lines {
        g.event(&parse(&format!("event 'lifecycle' for domain 'vm1': {line}")).expect("an event"));
        while let Some(o) = g.poll_output() {
            match o {
                Out::Describe(name) | Out::GetToKnow(name) => {
                    assert_eq!(name, "vm1");
                    g.described(&name, describe.then_some(&domain));
                }
                Out::Wish(w) => out.push(match w.step {
                    Step::Prepare { port, at_stop: true } => format!("prepare {port} at stop"),
                    Step::Prepare { port, .. } => format!("prepare {port}"),
                    Step::Activate { port } => format!("activate {port}"),
                    Step::TakeBack { port, released: true, .. } => format!("take back released {port}"),
                    Step::TakeBack { port, .. } => format!("take back {port}"),
                    Step::Abort => "abort".to_owned(),
                    Step::Release { at_stop: true } => "release at stop".to_owned(),
                    Step::Release { .. } => "release".to_owned(),
                    Step::Leave(leave) => format!("{leave:?}"),
                }),
                Out::Note(..) => {}
                Out::AskWhyPaused(..) => panic!("nothing was compared"),
            }
        }
    }
    out
}

#[test]
fn every_order_of_lifecycle_events_has_its_steps() {
    for (lines, want) in [
        (&["Started Migrated", "Resumed Migrated"][..], &["prepare vnet3", "activate vnet3"][..]),
        (&["Started Migrated", "Stopped Failed"], &["prepare vnet3", "abort"]),
        (
            &["Started Migrated", "Resumed Migrated", "Stopped Crashed"],
            &["prepare vnet3", "activate vnet3", "abort"],
        ),
        (&["Suspended Migrated", "Stopped Migrated"], &["Stopped", "release"]),
        (&["Suspended Migrated", "Resumed Migrated"], &["Stopped", "Stays", "take back vnet3"]),
        (&["Suspended Post-copy", "Stopped Migrated"], &["Stopped", "release"]),
        // No moves.
        (&["Resumed Unpaused", "Started Booted"], &[]),
        (&["Suspended Paused", "Resumed Unpaused", "Shutdown Finished", "Stopped Shutdown"], &[]),
        (&["Stopped Migrated"], &[]),
    ] {
        assert_eq!(told(lines, true, false), want, "{lines:?}");
    }
    // libvirt forgets a domain before it was described.
    assert_eq!(told(&["Started Migrated", "Resumed Migrated"], false, false), [""; 0]);
}

/// `activate-at = "stop"` (PIT-26).
#[test]
fn a_guest_that_stops_is_released_then_and_taken_back_when_it_goes_on() {
    for (lines, want) in [
        (&["Started Migrated", "Resumed Migrated"][..], &["prepare vnet3 at stop", "activate vnet3"][..]),
        (&["Started Migrated", "Stopped Failed"], &["prepare vnet3 at stop", "abort"]),
        (&["Suspended Migrated", "Stopped Migrated"], &["release at stop"]),
        (&["Suspended Migrated", "Resumed Migrated"], &["release at stop", "take back released vnet3"]),
        (&["Suspended Migrated", "Resumed Unpaused"], &["release at stop", "take back released vnet3"]),
        (&["Suspended Paused", "Resumed Unpaused"], &[]),
    ] {
        assert_eq!(told(lines, true, true), want, "{lines:?}");
    }
}

/// The end of a quick migration: libvirt has forgotten the guest before it can be asked for its NICs.
#[test]
fn a_guest_that_is_gone_before_it_can_be_described_is_released_all_the_same() {
    let run = |first: &str| {
        let mut g = Guests::new(false);
        let event = |g: &mut Guests, what: &str| {
            g.event(&parse(&format!("event 'lifecycle' for domain vm1: {what}")).expect("an event"));
            let (asks, rest): (Vec<_>, Vec<_>) = std::iter::from_fn(|| g.poll_output())
                .partition(|o| matches!(o, Out::Describe(_) | Out::GetToKnow(_)));
            let steps =
                rest.into_iter().filter_map(|o| if let Out::Wish(w) = o { Some(w.step) } else { None });
            (asks.len(), steps.collect::<Vec<_>>())
        };
        let (stopped, left) = (Step::Leave(Leave::Stopped), Step::Release { at_stop: false });
        assert_eq!(event(&mut g, first).0, 1);
        g.described("vm1", Some(&Domain::parse(&xml("vnet3")).expect("a domain")));
        event(&mut g, "Resumed Migrated");
        // At once: nobody waits for the description while the guest stands still.
        assert_eq!(event(&mut g, "Suspended Migrated"), (1, vec![stopped]));
        assert_eq!(event(&mut g, "Stopped Migrated"), (0, vec![left]));
        assert_eq!(g.phase("vm1"), None);
        // Nothing is kept of it, however late its description comes.
        g.described("vm1", Some(&Domain::parse(&xml("vnet3")).expect("a domain")));
        assert_eq!(event(&mut g, "Suspended Migrated"), (1, vec![]));
        assert_eq!(event(&mut g, "Stopped Migrated"), (0, vec![]));
        g.described("vm1", None);
        assert_eq!(g.poll_output(), None);
    };
    run("Started Booted");
    run("Started Migrated");
}

#[test]
fn a_guest_that_runs_before_it_is_described_is_activated_then() {
    let mut g = Guests::new(false);
    for what in ["Started Migrated", "Resumed Migrated"] {
        g.event(&parse(&format!("event 'lifecycle' for domain vm1: {what}")).expect("an event"));
    }
    while g.poll_output().is_some() {}
    assert_eq!(g.phase("vm1"), Some(Phase::Arriving));
    g.described("vm1", Some(&Domain::parse(&xml("vnet3")).expect("a domain")));
    let steps = std::iter::from_fn(|| g.poll_output()).filter(|o| matches!(o, Out::Wish(_))).count();
    assert_eq!((steps, g.phase("vm1")), (2, Some(Phase::Arrived)));
}

#[test]
fn a_flood_of_domains_is_bounded() {
    let mut g = Guests::new(false);
    for n in 0..5000 {
        g.event(
            &parse(&format!("event 'lifecycle' for domain 'vm{n}': Started Migrated")).expect("an event"),
        );
    }
    let asked = std::iter::from_fn(|| g.poll_output()).filter(|o| matches!(o, Out::Describe(_))).count();
    assert_eq!(asked, libvirt::MAX_GUESTS);
}
