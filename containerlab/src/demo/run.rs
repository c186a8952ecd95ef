//! The run itself, from nothing to nothing.

use super::fabric::{Fabric, Guest, VXLAN, index_of, start_frr};
use super::guest::{GuestState, Talker};
use super::observe::{Observer, Seen};
use super::report::{Report, Traffic, VtepRow};
use super::{Options, Progress, Sabotage, judge};
use crate::error::{Error, Result};
use crate::lab::{Guard, Lab, UpOptions, sweep};
use crate::netns::{self, Run};
use crate::process;
use crate::state;
use crate::switchboard::{Moved, Mover};
use crate::sys::{self, PacketSocket};
use crate::topology::Topology;
use crate::traffic::{ClientReport, ServerReport};
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

const CLIENT: &str = "client";
const SERVER: &str = "server";
/// Where the server moves to.
const TARGET: &str = "vtep21";
/// With `--frr`: one in each data centre, and not where the client or the moved server is.
const FRR_AT: [&str; 2] = ["vtep12", "vtep22"];
/// How long the VM stands still. A real migration takes 30 to 100 ms for this; here it only has to be long enough
/// for what is under way inside the host to arrive.
const PAUSE: Duration = Duration::from_micros(500);
/// Traffic before and after the move.
const BEFORE: Duration = Duration::from_millis(1200);
const AFTER: Duration = Duration::from_secs(2);

// Taps of the observer.
const PORT: usize = 0;
const PLUG: usize = 1;
const WAN: [usize; 2] = [2, 3];

/// Runs the demo. `Err` is for what kept it from running; what it found is in the report.
pub fn demo(o: &Options) -> Result<Report> {
    let progress = Progress::new();
    let path = super::topology(o)?;
    let mut topology = Topology::read(&path)?;
    let vtepd = match (o.sabotage, crate::cli::program("vtepd", o.vtepd.as_ref())) {
        (Some(Sabotage::NoDaemon), _) => PathBuf::from("/bin/true"),
        (_, Some(p)) if p.is_file() => p,
        _ => {
            return Err(Error::refused(
                "vtepd is not there; build it (cargo build -p vtepd) or say where it is with --vtepd",
            ));
        }
    };
    let frr_at: Vec<String> = match (&o.frr_at[..], o.frr) {
        ([], true) => FRR_AT.map(str::to_owned).to_vec(),
        (told, _) => told.to_vec(),
    };
    if !frr_at.is_empty() && !crate::frr::installed() {
        return Err(Error::refused("FRR is not installed; on Debian and Ubuntu: apt-get install frr"));
    }
    let base = state::base();
    for prefix in sweep(&base) {
        progress.step(format!("removed {prefix}, left behind by a run that was killed"));
    }
    let tampered = tempfile_for(o.sabotage, &mut topology)?;
    progress.step(format!(
        "bringing {} up: {} nodes, {} links",
        topology.name,
        topology.nodes.len(),
        topology.links.len()
    ));
    let mut programs = crate::cli::programs(Some(&vtepd));
    programs.insert("vtepd".to_owned(), vtepd.clone());
    let options = UpOptions {
        prefix: o.prefix.clone(),
        programs,
        owned: true,
        without_cmd: frr_at.clone(),
        // The nodes stand for machines of their own: what else runs on this one shall not slow them.
        nice: Some(-10),
        ..UpOptions::default()
    };
    let lab = Lab::up(&topology, &options)?;
    drop(tampered);
    let mut guard = Guard { lab, keep: false };
    let mut fabric = Fabric::find(&guard.lab, vtepd)?;
    for name in &frr_at {
        start_frr(&mut guard.lab, &mut fabric, name)?;
    }
    let mut report = Report {
        lab: guard.lab.state.prefix.clone(),
        vm: SERVER.to_owned(),
        to: TARGET.to_owned(),
        from: guard.lab.state.vm(SERVER)?.at.clone(),
        ..Report::default()
    };
    stages(o, &progress, &topology, &mut guard.lab, &mut fabric, &mut report)?;
    if o.keep {
        guard.keep = true;
        guard.lab.state.owner = None;
        guard.lab.state.save()?;
        fabric.vteps.iter_mut().filter_map(|v| v.frr.take()).for_each(std::mem::forget);
        let p = &guard.lab.state.prefix;
        progress.step(format!("the lab stays up: vtep-lab inspect -p {p}; vtep-lab down -p {p}"));
    } else {
        progress.step("taking the lab down");
        drop(fabric);
        let mut left = guard.lab.down();
        left.extend(guard.lab.residue());
        report.check(
            "no-residue",
            if left.is_empty() { Ok("nothing left behind".to_owned()) } else { Err(left.join("; ")) },
        );
    }
    report.finish();
    Ok(report)
}

/// For `wrong-next-hop`: the target's configuration with an address that nobody routes to.
fn tempfile_for(sabotage: Option<Sabotage>, t: &mut Topology) -> Result<Option<Tampered>> {
    if sabotage != Some(Sabotage::WrongNextHop) {
        return Ok(None);
    }
    let Some(node) = t.nodes.iter_mut().find(|n| n.name == TARGET) else { return Ok(None) };
    let Some(bind) = node.binds.first_mut() else { return Ok(None) };
    let what = "tampered configuration";
    let text = std::fs::read_to_string(&bind.source).map_err(Error::io(what))?;
    let wrong = text.replacen("address = \"10.255.0.21\"", "address = \"10.255.0.99\"", 1);
    let path = std::env::temp_dir().join(format!("vtep-lab-{}.toml", std::process::id()));
    std::fs::write(&path, wrong).map_err(Error::io(what))?;
    bind.source.clone_from(&path);
    node.exec.push(["ip", "address", "add", "10.255.0.99/32", "dev", "lo"].map(str::to_owned).to_vec());
    Ok(Some(Tampered(path)))
}

/// A file that goes with its owner. Programs that have it mounted keep it.
struct Tampered(PathBuf);

impl Drop for Tampered {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn stages(
    o: &Options,
    progress: &Progress,
    topology: &Topology,
    lab: &mut Lab,
    fabric: &mut Fabric,
    report: &mut Report,
) -> Result<()> {
    if !report.check("converged", converge(o, progress, lab, fabric)?) {
        return Ok(());
    }
    let client = fabric.guest(CLIENT)?.clone();
    let server = fabric.guest(SERVER)?.clone();
    report.check("bridge-is-no-host", bridge_is_no_host(fabric, &client)?);

    let observer = observe(lab, fabric, topology)?;
    let mut served = Talker::start(lab, SERVER, &["vtep-lab", "traffic-server"])?;
    served.line::<crate::traffic::Status>()?;
    let mut asks = Talker::start(lab, CLIENT, &["vtep-lab", "traffic-client", &server.ip])?;
    let begun = sys::boottime();
    if let Err(why) = flowing(&mut asks) {
        report.check("reachable", Err(why));
        return Ok(());
    }
    progress
        .step(format!("a TCP stream and a probe each millisecond run from {} to {}", client.ip, server.ip));
    pause(BEFORE, |left| progress.now(format!("moving in {left:.1} s")))?;
    let first = asks.status()?;
    let enough = first.answers * 10 >= first.probes * 9 && first.probes > 0;
    let text = format!("{} of {} probes answered before the move", first.answers, first.probes);
    if !report.check("reachable", if enough { Ok(text) } else { Err(text) }) {
        return Ok(());
    }

    let sequences = |fabric: &Fabric, lab: &Lab| -> Vec<_> {
        fabric.vteps.iter().map(|v| fabric.sequence(lab, v, &server)).collect()
    };
    let before = sequences(fabric, lab);
    let guest_before = GuestState::read(&server.namespace, &server.interface)?;
    let bytes_before = served.status()?.bytes;
    progress.step(format!(
        "moving {SERVER} from {} to {TARGET}: same MAC {}, same IP",
        report.from, server.mac_text
    ));
    let moved = make_the_move(o, lab, &server)?;
    let timed = wait_for_rows(&observer, fabric, report, &server, moved.stopped)?;
    let text = if timed { "the rows at all VTEPs followed" } else { "not all rows followed" };
    progress.step(text);
    pause(AFTER, |left| progress.now(format!("traffic goes on for {left:.1} s")))?;
    let guest_after = GuestState::read(&server.namespace, &server.interface)?;
    let after = sequences(fabric, lab);
    let client_report: ClientReport = asks.finish()?;
    // Before the server's program ends: its closing socket would speak for a guest that nothing had reached.
    let seen = observer.finish();
    let server_report: ServerReport = served.finish()?;
    progress.step("traffic ended, reading the results");

    let trial = Trial {
        moved,
        begun,
        first_frame: judge::first_frame(&seen.frames, PORT, server.mac, moved.stopped),
        seen,
        client: client_report,
        server: server_report,
        bytes_before,
        delay: wan_delay(topology),
    };
    report.still_ms = judge::between(trial.moved.stopped, trial.moved.resumed);
    tables(lab, fabric, report, &server, &trial, &before, &after);
    traffic(report, &trial);
    report.check("guest-unaware", unaware(&trial, &server, &guest_before, &guest_after));
    Ok(())
}

/// Everything known after the move.
struct Trial {
    moved: Moved,
    begun: u64,
    /// First frame at the new site.
    first_frame: Option<u64>,
    seen: Seen,
    client: ClientReport,
    server: ServerReport,
    bytes_before: u64,
    delay: Duration,
}

/// Waits, saying how long still, until it is over or a signal comes.
fn pause(long: Duration, say: impl Fn(f64)) -> Result<()> {
    let end = Instant::now() + long;
    loop {
        if sys::interrupted() {
            return Err(Error::Interrupted);
        }
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        say(left.as_secs_f64());
        std::thread::sleep(left.min(Duration::from_millis(100)));
    }
}

/// All VTEPs up, and every VM known everywhere. Guests speak first: a VTEP learns them from their frames.
fn converge(o: &Options, progress: &Progress, lab: &Lab, fabric: &Fabric) -> Result<Result<String, String>> {
    progress.step("waiting until all VTEPs have converged");
    let start = Instant::now();
    let deadline = start + Duration::from_secs(o.patience);
    let mut last = String::new();
    while Instant::now() < deadline {
        if sys::interrupted() {
            return Err(Error::Interrupted);
        }
        for v in fabric.vteps.iter().filter(|v| v.frr.is_none()) {
            if lab.processes_of(&v.name).is_empty() {
                let log = std::fs::read_to_string(&lab.state.node(&v.name)?.log).unwrap_or_default();
                let said = log.trim().lines().last().unwrap_or("it said nothing").to_owned();
                return Ok(Err(format!("vtepd at {} is not running: {said}", v.name)));
            }
        }
        greet(fabric)?;
        let missing = fabric
            .vteps
            .iter()
            .find_map(|v| Some(format!("{}: {}", v.name, fabric.converged(lab, v).err()?)));
        match missing {
            None => {
                let n = fabric.vteps.len();
                let t = start.elapsed().as_secs_f64();
                progress.step(format!(
                    "converged: {n} VTEPs in a full mesh, {} VMs known everywhere",
                    fabric.guests.len()
                ));
                return Ok(Ok(format!("{n} VTEPs, {} VMs, after {t:.1} s", fabric.guests.len())));
            }
            Some(m) => {
                progress.now(&m);
                last = m;
            }
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(Err(format!("not within {} s: {last}", o.patience)))
}

/// Each VM says its name once, as a guest does when it comes up: a gratuitous ARP.
fn greet(fabric: &Fabric) -> Result<()> {
    for g in fabric.guests.values() {
        let Ok(IpAddr::V4(ip)) = g.ip.parse() else { continue };
        netns::inside(&g.namespace, || {
            let socket = PacketSocket::open(&g.interface, true)?;
            let frame = judge::arp_request(g.mac, ip.octets(), ip.octets());
            socket.send(&frame).map_err(Error::io(format!("a gratuitous ARP in {}", g.name)))
        })?;
    }
    Ok(())
}

/// PIT-02: no VTEP answers a VM's ARP for its underlay address, nor its ping.
fn bridge_is_no_host(fabric: &Fabric, client: &Guest) -> Result<Result<String, String>> {
    let Ok(IpAddr::V4(own)) = client.ip.parse() else { return Ok(Err("no IPv4 address".to_owned())) };
    let asked: Vec<[u8; 4]> = fabric
        .vteps
        .iter()
        .filter_map(|v| v.address.parse::<std::net::Ipv4Addr>().ok())
        .map(|a| a.octets())
        .collect();
    let answered = netns::inside(&client.namespace, || {
        let socket = PacketSocket::open(&client.interface, true)?;
        for ask in &asked {
            socket
                .send(&judge::arp_request(client.mac, own.octets(), *ask))
                .map_err(Error::io("an ARP request"))?;
        }
        let end = Instant::now() + Duration::from_millis(200);
        let mut b = [0; 128];
        while Instant::now() < end {
            let Ok(Some(r)) = socket.receive(&mut b) else {
                std::thread::sleep(Duration::from_millis(2));
                continue;
            };
            let frame = &b[..r.len.min(b.len())];
            if let Some(a) = asked.iter().find(|a| judge::is_arp_answer(frame, **a)) {
                return Ok(Some(std::net::Ipv4Addr::from(*a)));
            }
        }
        Ok(None)
    })?;
    if let Some(a) = answered {
        return Ok(Err(format!("a VTEP answered the VM's ARP request for {a}")));
    }
    // The same with a route that makes the guest try: nothing may come back.
    for v in &fabric.vteps {
        let ping = ["ping", "-I", &client.interface, "-c", "1", "-W", "0.2", &v.address];
        if Run::new(&client.namespace, ping).output().is_ok() {
            return Ok(Err(format!("{} answered the VM's ping to {}", v.name, v.address)));
        }
    }
    Ok(Ok(format!("none of {} VTEPs answered a VM's ARP or ping", fabric.vteps.len())))
}

fn observe(lab: &Lab, fabric: &Fabric, topology: &Topology) -> Result<Observer> {
    let namespaces: Vec<_> = fabric.vteps.iter().map(|v| v.namespace.clone()).collect();
    let s = &lab.state;
    let vm = &s.vm(SERVER)?.wiring;
    let port = vm
        .socket_at(TARGET)
        .ok_or_else(|| Error::refused(format!("the topology has no port for {SERVER} at {TARGET}")))?;
    let board = s.switchboard.clone().unwrap_or_default();
    let mut taps = vec![
        (s.node(TARGET)?.namespace.clone(), port.port.interface.clone()),
        (s.node(&board)?.namespace.clone(), vm.plug.clone()),
    ];
    if let Some(wan) = wan(topology) {
        for (interface, ..) in topology.ends(&wan.name) {
            taps.push((s.node(&wan.name)?.namespace.clone(), interface.to_owned()));
        }
    }
    Observer::start(&namespaces, &taps)
}

fn wan(t: &Topology) -> Option<&crate::topology::Node> {
    t.nodes.iter().find(|n| n.cmd.iter().flatten().any(|w| w == "delay-line"))
}

/// One-way delay of the WAN, as its node's command says.
fn wan_delay(t: &Topology) -> Duration {
    let cmd = wan(t).and_then(|n| n.cmd.as_ref());
    let value = cmd.and_then(|c| c.iter().skip_while(|w| *w != "--delay").nth(1));
    value.and_then(|v| crate::cli::duration(v).ok()).unwrap_or_default()
}

/// The client's first line: it is connected, or why not.
fn flowing(client: &mut Talker) -> Result<(), String> {
    let first: serde_json::Value = client.line().map_err(|e| e.to_string())?;
    first["error"].as_str().map_or(Ok(()), |e| Err(e.to_owned()))
}

fn make_the_move(o: &Options, lab: &mut Lab, server: &Guest) -> Result<Moved> {
    let silent = o.sabotage == Some(Sabotage::DropRarp);
    let doomed = if o.sabotage == Some(Sabotage::KillVtep) { lab.processes_of(TARGET) } else { Vec::new() };
    let mover = Mover::prepare(&lab.state, &server.name, TARGET)?;
    let (moved, announcer) = mover.go(&mut lab.state, PAUSE, silent, || process::kill(&doomed))?;
    if let Some(first) = moved.announced {
        // The rest in QEMU's rhythm, while the rows are being watched.
        std::thread::spawn(move || announcer.rest(first, || false));
    }
    Ok(moved)
}

fn target_address(fabric: &Fabric) -> Option<IpAddr> {
    fabric.vtep(TARGET).ok()?.address.parse().ok()
}

/// Waits until the row of the VM is right at every other VTEP, or three seconds.
fn wait_for_rows(
    observer: &Observer,
    fabric: &Fabric,
    report: &Report,
    server: &Guest,
    since: u64,
) -> Result<bool> {
    let end = Instant::now() + Duration::from_secs(3);
    let Some(target) = target_address(fabric) else { return Ok(false) };
    let others: Vec<_> = fabric
        .vteps
        .iter()
        .enumerate()
        .filter(|(_, v)| v.name != TARGET)
        .map(|(i, v)| (i, index_of(&v.namespace, VXLAN).unwrap_or(0), v.name == report.from))
        .collect();
    while Instant::now() < end {
        if sys::interrupted() {
            return Err(Error::Interrupted);
        }
        let all = observer.look(|seen| {
            others.iter().all(|(i, vxlan, old)| {
                judge::row_time(&seen.rows, *i, *vxlan, server.mac, target, since, *old).is_some()
            })
        });
        if all {
            return Ok(true);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(false)
}

/// Rows, records and sequence numbers of every VTEP.
fn tables(
    lab: &Lab,
    fabric: &Fabric,
    report: &mut Report,
    server: &Guest,
    trial: &Trial,
    before: &[Option<u32>],
    after: &[Option<u32>],
) {
    let target = target_address(fabric);
    let since = trial.moved.stopped;
    let mut missing = Vec::new();
    let mut disagree = Vec::new();
    let mut sequence = Vec::new();
    let mut records = 0;
    for (i, v) in fabric.vteps.iter().enumerate() {
        let new_site = v.name == TARGET;
        let old_site = v.name == report.from;
        let vxlan = index_of(&v.namespace, VXLAN).unwrap_or(0);
        let seen = if new_site {
            trial.first_frame
        } else {
            let rows = &trial.seen.rows;
            target.and_then(|t| judge::row_time(rows, i, vxlan, server.mac, t, since, old_site))
        };
        if seen.is_none() {
            missing.push(if new_site {
                format!("{}: no frame", v.name)
            } else {
                format!("{}: no row", v.name)
            });
        }
        let mut row = VtepRow {
            vtep: v.name.clone(),
            runs: if v.frr.is_some() { "frr" } else { "vtepd" },
            role: if new_site {
                "new site"
            } else if old_site {
                "old site"
            } else {
                "other"
            },
            ..VtepRow::default()
        };
        let zero = trial.first_frame.unwrap_or(since);
        row.row_ms = seen.map(|t| judge::between(zero, t));
        row.sequence = before[i].zip(after[i]);
        if v.frr.is_none() {
            match row.sequence {
                Some((b, a)) if a == b.wrapping_add(1) => {}
                _ => sequence.push(format!("{}: {:?} then {:?}", v.name, before[i], after[i])),
            }
            let record = match fabric.last_move(lab, &v.name, server) {
                Ok(Some(m)) if m.seen.0 >= since.saturating_sub(1_000_000_000) => {
                    if new_site {
                        Some(m.seen.0)
                    } else {
                        m.acked.map(|t| t.0)
                    }
                }
                Ok(_) => None,
                Err(e) => {
                    let text = e.to_string();
                    disagree.push(format!("{}: {}", v.name, text.chars().take(120).collect::<String>()));
                    None
                }
            };
            row.record_ms = record.map(|t| judge::between(zero, t));
            row.difference_ms = seen.zip(record).map(|(s, r)| judge::between(s, r));
            match row.difference_ms {
                Some(d) if d.abs() <= judge::AGREE_MS => records += 1,
                Some(d) => disagree.push(format!("{}: {d:.3} ms apart", v.name)),
                None => disagree.push(format!("{}: no record of the move", v.name)),
            }
        }
        report.kernel.insert(v.name.clone(), Fabric::kernel_rows(v, server));
        report.vteps.push(row);
    }
    if trial.seen.overruns > 0 {
        missing.push(format!("the observer lost notifications {} times", trial.seen.overruns));
    }
    let slowest = report.vteps.iter().filter_map(|v| v.row_ms).fold(0.0, f64::max);
    report.check(
        "rows-follow",
        verdict(&missing, format!("last row {slowest:.3} ms after the first frame at the new site")),
    );
    let own = || report.vteps.iter().filter(|v| v.runs == "vtepd").filter_map(|v| v.sequence);
    let values = own().next().unwrap_or_default();
    let same = own().all(|s| s == values);
    if !same && sequence.is_empty() {
        sequence.push("VTEPs hold different numbers".to_owned());
    }
    report.check("sequence", verdict(&sequence, format!("{} → {} at every vtepd", values.0, values.1)));
    report.check(
        "records-agree",
        verdict(&disagree, format!("{records} vtepd records within {} ms of the observer", judge::AGREE_MS)),
    );
}

fn verdict(faults: &[String], good: String) -> Result<String, String> {
    if faults.is_empty() { Ok(good) } else { Err(faults.join("; ")) }
}

/// Loss, gaps, TCP and packet sizes.
fn traffic(report: &mut Report, trial: &Trial) {
    let (client, server) = (&trial.client, &trial.server);
    let (stopped, resumed) = (trial.moved.stopped, trial.moved.resumed);
    let later = resumed + 100_000_000;
    let end = u64::MAX;
    let limit = 2 * trial.delay + Duration::from_millis(5);
    // Gaps that begin within half a second of the move. One that never closes counts too.
    let last_sent = client.probes.last().map_or(0, |p| p.0);
    let last_arrival = server.arrivals.iter().map(|a| a.1).max().unwrap_or(0);
    let gap = judge::longest_gap(&server.arrivals, stopped, resumed + 500_000_000)
        .unwrap_or(0)
        .max(last_sent.saturating_sub(last_arrival.max(stopped)));
    let idle = judge::longest_gap(&server.arrivals, trial.begun, stopped.saturating_sub(1_000_000));
    let (vm, fragments) = judge::lengths(&trial.seen.frames, &[PLUG], later, end);
    let (vm_before, _) = judge::lengths(&trial.seen.frames, &[PLUG], trial.begun, stopped);
    let (wan, cut) = judge::lengths(&trial.seen.frames, &WAN, trial.begun, end);
    let lost = client.probes.iter().filter(|p| p.1 == 0).count() as u64;
    let t = Traffic {
        probes: client.probes.len() as u64,
        lost,
        longest_gap_ms: gap as f64 / 1e6,
        idle_gap_ms: idle.unwrap_or(0) as f64 / 1e6,
        gap_limit_ms: limit.as_secs_f64() * 1e3,
        round_trip_before_ms: judge::round_trip(&client.probes, trial.begun, stopped),
        round_trip_after_ms: judge::round_trip(&client.probes, later, end),
        tcp_bytes: server.bytes,
        tcp_bytes_after: server.bytes.saturating_sub(trial.bytes_before),
        tcp_retransmitted: client.retransmitted,
        tcp_segment: client.segment,
        longest_packet: vm.saturating_sub(14),
        longest_wan_packet: wan.saturating_sub(14),
    };
    let text = format!(
        "{:.1} ms without a probe at the VM, limit {:.1} ms; {lost} lost",
        t.longest_gap_ms, t.gap_limit_ms
    );
    report.check("udp-gap", if t.longest_gap_ms <= t.gap_limit_ms { Ok(text) } else { Err(text) });
    report.check("tcp-in-order", judge::tcp(server, client, trial.bytes_before));
    // PIT-11: 1450 in the VNI is exactly what a WAN of 1500 carries.
    let mut wrong = Vec::new();
    if vm_before != 1464 || vm != 1464 {
        wrong.push(format!(
            "longest frame at the VM {vm_before} octets before, {vm} after the move, not 1464"
        ));
    }
    if wan != 1514 {
        wrong.push(format!("longest frame on the WAN {wan} octets, not 1514"));
    }
    if fragments + cut > 0 {
        wrong.push(format!("{} fragments", fragments + cut));
    }
    let text = format!(
        "TCP segments of {}, packets of {} in {}, no fragments",
        client.segment, t.longest_packet, t.longest_wan_packet
    );
    report.check("mtu", verdict(&wrong, text));
    report.traffic = Some(t);
}

/// PIT-21.
fn unaware(trial: &Trial, server: &Guest, before: &GuestState, after: &GuestState) -> Result<String, String> {
    let mut faults = before.differences(after);
    match judge::before_served(&trial.seen.frames, PORT, server.mac, trial.moved.stopped) {
        Ok((n, _)) if faults.is_empty() => {
            return Ok(format!("carrier, {} unchanged; {n} announcement(s) until served", before.summary()));
        }
        Ok(_) => {}
        Err(e) => faults.push(e),
    }
    Err(faults.join("; "))
}
