//! Case (f): a prepared move of one MAC between two sites, from the hypervisor's *activate* until both other VTEPs have the
//! row, under the load of case (a). The guest says its first word only after that.

use super::{Daemon, Report, Samples, Sizes, System, hot, mac, three};
use crate::api::{Connection, request};
use crate::fabric::Fabric;
use crate::frame;
use crate::packet::{Monitor, now};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const MOVED: u8 = 6;
const LIMIT: Duration = Duration::from_secs(5);

pub(super) fn run(system: System, sizes: &Sizes, report: &mut Report) {
    let (f, daemons) = three(system);
    let sockets: Vec<PathBuf> = daemons.iter().filter_map(Daemon::socket).collect();
    hot::load(&f, sizes);
    let stop = AtomicBool::new(false);
    let (row, done) = std::thread::scope(|s| {
        s.spawn(|| hot::background(&f, sizes, &stop));
        let measured = measure(&f, &sockets, sizes);
        stop.store(true, Ordering::Relaxed);
        measured
    });
    report.times("prepared move: activate to the last remote row", Some(system), &row);
    report.times("prepared move: activate to its answer", Some(system), &done);
}

fn step(name: &str) -> Value {
    let mut v = json!({ "step": name, "vni": 100, "mac": mac(MOVED, 1).to_string() });
    if name == "prepare" {
        v["port"] = "p1".into();
    }
    // The source keeps its word for as long as a slow machine needs.
    if name != "activate" {
        v["timeout"] = "60s".into();
    }
    v
}

fn measure(f: &Fabric, sockets: &[PathBuf], sizes: &Sizes) -> (Samples, Samples) {
    let vm = mac(MOVED, 1);
    let mut observers: Vec<_> = f.vteps.iter().map(|v| Monitor::open(&v.ns)).collect();
    let sites = [f.guest_port(0, "p1"), f.guest_port(1, "p1")];
    sites[1].send(&frame::rarp(vm));
    let first = f.vteps[1].address;
    for o in [0, 2] {
        observers[o]
            .find(LIMIT, |n| n.new && n.mac == vm && n.vtep == Some(first))
            .expect("the VM's first row");
    }
    let say = |site: usize, name: &str| {
        let (status, answer) =
            request(&sockets[site], "POST", "/v1/move", Some(&step(name))).expect("the API answers");
        assert_eq!(status, 200, "{name} at site {site}: {answer}");
    };
    let (mut row, mut done) = (Samples::default(), Samples::default());
    for i in 0..sizes.moves {
        std::thread::sleep(Duration::from_millis(150 + (i as u64 * 37) % 53));
        let (to, from) = (i % 2, 1 - i % 2);
        say(to, "prepare");
        say(from, "release");
        for o in &mut observers {
            o.drain();
        }
        let there = f.vteps[to].address;
        let (mut asking, waiting) =
            Connection::open(&sockets[to]).and_then(Connection::split).expect("the API listens");
        let body = step("activate");
        let (begun, answered, rows) = std::thread::scope(|s| {
            let answer = s.spawn(|| {
                let answer = waiting.answer();
                (now(), answer)
            });
            // The thread waits by then.
            std::thread::sleep(Duration::from_millis(2));
            let begun = now();
            asking.ask("POST", "/v1/move", Some(&body)).expect("the API listens");
            let rows: Vec<u64> = [from, 2]
                .into_iter()
                .map(|o| {
                    let note = observers[o].find(LIMIT, |n| n.new && n.mac == vm && n.vtep == Some(there));
                    note.expect("the row of the prepared move").at
                })
                .collect();
            (begun, answer.join().expect("the reader does not panic"), rows)
        });
        let (at, answer) = answered;
        let (status, answer) = answer.expect("the API answers");
        assert_eq!((status, &answer["state"]), (200, &"active".into()), "{answer}");
        row.push(rows.into_iter().max().unwrap_or(begun) - begun);
        done.push(at - begun);
        // It runs there now.
        sites[to].send(&frame::rarp(vm));
    }
    (row, done)
}
