//! Metrics: the documented ones are the exported ones, a real daemon answers a scrape, and lost events are counted.

mod net;

use evpn::bfd::State;
use evpn::node::view::{MoveKind, MoveView, Place, PortDropsView, PortHostsView, StatusView};
use evpn::node::{Event, Level, PortDrops, PortHosts};
use evpn::types::{Asn, Mac, Seq, Span, Time, Vni};
use net::{Ns, Setup, eventually};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use vtepd::api::core::{self, EVENT_QUEUE, EventLine};
use vtepd::driver::bfd::{BfdRow, BfdTable};
use vtepd::metrics::{Metrics, feed};

fn move_event(n: u64, sent: Option<Time>) -> EventLine {
    let start = Time(1_000_000_000);
    let vtep = Place::Vtep("10.0.0.1".parse().expect("address"));
    let m = MoveView {
        id: n,
        kind: MoveKind::Hot,
        vni: Vni::new(100).expect("valid"),
        mac: Mac([2, 0, 0, 0, 0, 1]),
        mac_before: None,
        ips: Vec::new(),
        role: "arrived".into(),
        cause: "frame".into(),
        from: vtep,
        to: Place::Port("p1".into()),
        seq_before: Seq(0),
        seq: Seq(1),
        silent: None,
        seen: start,
        decided: start + Span::micros(30),
        peers: Vec::new(),
        sent,
        acked: None,
        told: None,
    };
    EventLine { n, at: start, unix_ms: 0, event: Event::Move(Arc::new(m)) }
}

fn status() -> StatusView {
    let names = ["late_frames", "wanted_rows", "stale_rows", "sequences_remembered", "state_bytes"];
    let gauges =
        ["hosts", "vnis", "vnis_ready", "rows_wanted", "rows_dirty", "rows_stale", "state_records_not_kept"];
    StatusView {
        program: "x".into(),
        vtep: "10.0.0.1".parse().expect("address"),
        asn: Asn(65000),
        router_id: "10.0.0.1".parse().expect("address"),
        uptime: Span::millis(1500),
        established: 2,
        neighbors: 3,
        converged: true,
        local_macs: 4,
        remote_macs: 5,
        wall: None,
        counters: names.iter().map(|n| ((*n).to_owned(), 7)).collect(),
        port_drops: vec![PortDropsView {
            vni: Vni::new(100).expect("valid"),
            port: "p1".into(),
            drops: PortDrops { tagged: 3, arp: 4, ..PortDrops::default() },
        }],
        port_hosts: vec![PortHostsView {
            vni: Vni::new(100).expect("valid"),
            port: "p1".into(),
            hosts: PortHosts { answered: 5, told: 6, ..PortHosts::default() },
        }],
        gauges: gauges.iter().zip(10..).map(|(n, v)| ((*n).to_owned(), v)).collect(),
    }
}

/// Sample names of all families of a scrape, with their types.
fn exported(text: &str) -> BTreeMap<String, String> {
    let types = text.lines().filter_map(|l| l.strip_prefix("# TYPE ")?.split_once(' '));
    types
        .map(|(name, kind)| {
            let end = match kind {
                "counter" => "_total",
                "info" => "_info",
                _ => "",
            };
            (format!("{name}{end}"), kind.to_owned())
        })
        .collect()
}

/// The table of the documentation.
fn documented() -> BTreeMap<String, String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/metrics.md");
    let text = std::fs::read_to_string(path).expect("docs/metrics.md");
    text.lines()
        .filter_map(|l| {
            let (name, rest) = l.strip_prefix("| `")?.split_once('`')?;
            Some((name.to_owned(), rest.split('|').nth(1)?.trim().to_owned()))
        })
        .collect()
}

/// The value of a sample whose line begins like that.
fn value(text: &str, sample: &str) -> f64 {
    let line = text.lines().find(|l| l.strip_prefix(sample).is_some_and(|r| r.starts_with(' ')));
    let line = line.unwrap_or_else(|| panic!("no `{sample}` in\n{text}"));
    line.rsplit(' ').next().and_then(|v| v.parse().ok()).expect("a number")
}

fn bfd() -> BfdTable {
    let row = |neighbor: [u8; 4], state, failures| BfdRow {
        neighbor: neighbor.into(),
        local: None,
        multihop: false,
        state,
        diag: None,
        remote_state: state,
        remote_diag: None,
        since: Span::secs(1),
        discriminator: 1,
        remote_discriminator: 2,
        interval: Some(Span::millis(50)),
        detection_time: Span::millis(150),
        multiplier: 3,
        sent: 20,
        received: 21,
        ups: 1,
        failures,
        longest_gap: Span::millis(50),
        error: None,
    };
    let rows = vec![row([10, 0, 0, 2], State::Up, 0), row([10, 0, 0, 3], State::Down, 4)];
    BfdTable { rows, dropped: [("ttl".to_owned(), 6)].into() }
}

fn filled() -> Metrics {
    let m = Metrics::default();
    m.status(&status());
    m.bfd(&bfd());
    m.event(&move_event(1, Some(Time(1_000_000_000) + Span::micros(200))));
    m.event(&move_event(2, None));
    m
}

#[test]
fn the_documented_metrics_are_the_exported_ones() {
    let text = filled().text().expect("text");
    assert_eq!(exported(&text), documented());
    assert!(text.ends_with("# EOF\n"));
}

#[test]
fn values_come_from_the_status_and_from_the_moves() {
    let text = filled().text().expect("text");
    for (sample, want) in [
        ("vtepd_uptime_seconds", 1.5),
        ("vtepd_converged", 1.0),
        ("vtepd_neighbors{state=\"established\"}", 2.0),
        ("vtepd_neighbors{state=\"down\"}", 1.0),
        ("vtepd_vnis{state=\"ready\"}", 12.0),
        ("vtepd_macs{place=\"remote\"}", 5.0),
        ("vtepd_bfd_up{neighbor=\"10.0.0.2\"}", 1.0),
        ("vtepd_bfd_up{neighbor=\"10.0.0.3\"}", 0.0),
        ("vtepd_bfd_failures_total{neighbor=\"10.0.0.3\"}", 4.0),
        ("vtepd_bfd_packets_sent_total{neighbor=\"10.0.0.2\"}", 20.0),
        ("vtepd_bfd_packets_received_total{neighbor=\"10.0.0.2\"}", 21.0),
        ("vtepd_bfd_packets_dropped_total{reason=\"ttl\"}", 6.0),
        ("vtepd_hosts", 10.0),
        ("vtepd_rows{state=\"dirty\"}", 14.0),
        ("vtepd_state_records{state=\"not-kept\"}", 16.0),
        ("vtepd_counter_total{name=\"late_frames\"}", 7.0),
        ("vtepd_port_host_frames_total{vni=\"100\",port=\"p1\",what=\"answered\"}", 5.0),
        ("vtepd_port_host_frames_total{vni=\"100\",port=\"p1\",what=\"told\"}", 6.0),
        ("vtepd_port_frames_dropped_total{vni=\"100\",port=\"p1\",rule=\"tagged\"}", 3.0),
        ("vtepd_port_frames_dropped_total{vni=\"100\",port=\"p1\",rule=\"arp\"}", 4.0),
        ("vtepd_moves_total{kind=\"hot\",role=\"arrived\",cause=\"frame\"}", 2.0),
        ("vtepd_move_phase_seconds_count{phase=\"decided\",kind=\"hot\",role=\"arrived\"}", 2.0),
        ("vtepd_move_phase_seconds_count{phase=\"sent\",kind=\"hot\",role=\"arrived\"}", 1.0),
        (
            "vtepd_move_phase_seconds_bucket{le=\"0.0001\",phase=\"decided\",kind=\"hot\",role=\"arrived\"}",
            2.0,
        ),
        ("vtepd_move_phase_seconds_bucket{le=\"0.0001\",phase=\"sent\",kind=\"hot\",role=\"arrived\"}", 0.0),
        ("vtepd_move_phase_seconds_bucket{le=\"0.00025\",phase=\"sent\",kind=\"hot\",role=\"arrived\"}", 1.0),
        ("vtepd_events_total{level=\"info\"}", 2.0),
        ("vtepd_events_missed_total", 0.0),
    ] {
        assert!((value(&text, sample) - want).abs() < 1e-9, "{sample}: {}", value(&text, sample));
    }
    assert!(value(&text, "vtepd_resident_memory_bytes") > 1e6);
    for gauge in ["wanted_rows", "name=\"state_bytes"] {
        assert!(!text.contains(gauge), "what can fall is no counter: {gauge}");
    }
}

#[test]
fn a_counter_of_the_status_is_set_and_not_added() {
    let m = filled();
    m.status(&status());
    let text = m.text().expect("text");
    assert!((value(&text, "vtepd_counter_total{name=\"late_frames\"}") - 7.0).abs() < 1e-9);
}

#[tokio::test]
async fn events_that_the_stream_loses_are_counted() {
    let (core, end) = core::pair();
    let metrics = Arc::new(Metrics::default());
    let events = core.watch();
    let lost = 100;
    for n in 0..EVENT_QUEUE as u64 + lost {
        end.events.send(Arc::new(move_event(n, None))).expect("somebody listens");
    }
    drop((core, end));
    feed(Arc::clone(&metrics), events).await;
    let text = metrics.text().expect("text");
    let (seen, missed) =
        (value(&text, "vtepd_events_total{level=\"info\"}"), value(&text, "vtepd_events_missed_total"));
    assert_eq!((seen as u64, missed as u64), (EVENT_QUEUE as u64, lost));
    assert_eq!(move_event(1, None).event.level(), Level::Info);
}

fn get(ns: &Ns, path: &str) -> Result<String, String> {
    let script = format!(
        "exec 3<>/dev/tcp/127.0.0.1/9474 && printf 'GET {path} HTTP/1.1\\r\\nhost: x\\r\\nconnection: close\\r\\n\\r\\n' >&3 && cat <&3"
    );
    let out = ns.command("bash").args(["-c", &script]).output().map_err(|e| e.to_string())?;
    if out.status.success() {
        Ok(String::from_utf8_lossy(&out.stdout).into_owned())
    } else {
        Err(String::from_utf8_lossy(&out.stderr).into_owned())
    }
}

#[test]
fn a_running_daemon_answers_a_scrape_and_nothing_else_under_that_address() {
    needs_namespaces!();
    let ns = Ns::new("metrics");
    ns.ip("link add p1 type veth peer name x1");
    ns.ip("link set x1 up");
    let setup = Setup::new(
        "address = \"10.255.0.1\"\nasn = 65000",
        "[metrics]\nlisten = \"127.0.0.1:9474\"\n[[neighbor]]\naddress = \"10.255.0.2\"\nasn = 65000\n\
         [[vni]]\nvni = 100\nports = [\"p1\"]\nmtu = 1400",
    );
    ns.ip("addr add 10.255.0.1/32 dev lo");
    let daemon = setup.start(&ns);
    let mut text = String::new();
    eventually("the daemon is scraped", || {
        text = get(&ns, "/metrics")?;
        if text.contains("vtepd_vnis{state=\"ready\"} 1") { Ok(()) } else { Err(text.clone()) }
    });
    assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    assert!(text.to_lowercase().contains("content-type: application/openmetrics-text"), "{text}");
    let (documented, exported) = (documented(), exported(&text));
    let documented: BTreeSet<_> = documented.keys().collect();
    let foreign: Vec<_> = exported.keys().filter(|k| !documented.contains(k)).collect();
    assert!(foreign.is_empty(), "not documented: {foreign:?}");
    assert!(text.contains("vtepd_neighbors{state=\"down\"} 1"), "{text}");
    assert!(text.contains("vtepd_events_total{level=\"info\"}"), "events are counted from the start: {text}");
    assert!(get(&ns, "/v1/macs").expect("an answer").starts_with("HTTP/1.1 404"), "the API is not there");
    // A second daemon cannot have the address; it says so and ends.
    let second = Setup::new(
        "address = \"10.255.0.1\"\nasn = 65000",
        "[bgp]\nport = 1179\n[metrics]\nlisten = \"127.0.0.1:9474\"\n",
    );
    let out = second.run_to_end(&ns);
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(said.contains("cannot listen for metrics on 127.0.0.1:9474"), "{said}");
    assert!(said.contains("set `metrics.listen` to another port"), "{said}");
    assert_eq!(out.status.code(), Some(1));
    assert_eq!(daemon.stop().0.code(), Some(0));
}
