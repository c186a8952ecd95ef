//! Steps of prepared moves and what comes of them, for the tests that are about nothing else.

#![allow(clippy::unnecessary_wraps)] // compared with what the kernel may not have

use super::{P1, Trace, VXLAN, World, frames, mac, vtep};
use bytes::Bytes;
use evpn::fabric::Row;
use evpn::node::{Event, MoveReply, MoveStep, Refusal, Reply};
use evpn::types::{IfIndex, Mac, Span};
use std::net::{IpAddr, Ipv4Addr};

pub const MS: Span = Span::millis(1);

pub fn ip(n: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 1, 0, n))
}

pub fn prepare(port: &str) -> MoveStep {
    MoveStep::Prepare { port: port.into(), timeout: None }
}

pub fn activate(port: Option<&str>) -> MoveStep {
    MoveStep::Activate { port: port.map(str::to_owned), timeout: None }
}

pub const RELEASE: MoveStep = MoveStep::Release { timeout: None };

/// Gratuitous ARP request.
pub fn garp(m: Mac, from: IpAddr) -> Bytes {
    let IpAddr::V4(from) = from else { panic!("IPv4 only") };
    frames::garp(m, from)
}

pub fn local(port: IfIndex) -> Option<Row> {
    Some(Row::Local { vxlan: VXLAN, port })
}

pub fn remote(i: usize, sticky: bool) -> Option<Row> {
    Some(Row::Remote { vxlan: VXLAN, vtep: vtep(i), sticky })
}

/// Three nodes; the guest with its address is behind `p1` of node 0.
pub fn before() -> World {
    let mut w = World::converged(3, MS);
    w.frame(0, P1, mac(1), Some(garp(mac(1), ip(1))));
    w.run_for(Span::millis(10));
    assert_eq!((w.mac_row(1, mac(1)), w.mac_row(2, mac(1))), (remote(0, false), remote(0, false)));
    for h in &mut w.hosts {
        h.trace.clear();
        h.events.clear();
        h.emitted.clear();
    }
    w
}

pub fn ok(w: &World, i: usize, id: u64) -> MoveReply {
    match w.hosts[i].answers.get(&id) {
        Some(Reply::Move(r)) => r.clone(),
        other => panic!("step {id} at node {i}: {other:?}"),
    }
}

pub fn no(w: &World, i: usize, id: u64) -> (Refusal, String) {
    match w.hosts[i].answers.get(&id) {
        Some(Reply::MoveRefused { refusal, text }) => (*refusal, text.clone()),
        other => panic!("step {id} at node {i}: {other:?}"),
    }
}

/// A step with its answer, 10 ms later at the latest.
pub fn done(w: &mut World, i: usize, step: MoveStep) -> MoveReply {
    let id = w.step(i, mac(1), &[], step);
    w.run_for(Span::millis(10));
    ok(w, i, id)
}

pub fn names(w: &World, i: usize) -> Vec<&'static str> {
    w.hosts[i]
        .events
        .iter()
        .filter_map(|(_, e)| {
            Some(match e {
                Event::MovePrepared { .. } => "prepared",
                Event::MoveActivated { .. } => "activated",
                Event::MoveAborted { .. } => "aborted",
                Event::MoveReleased { .. } => "released",
                Event::MoveTimedOut { .. } => "timed out",
                Event::LateFrame { .. } => "late frame",
                _ => return None,
            })
        })
        .collect()
}

pub fn told(w: &World, i: usize) -> usize {
    w.hosts[i].trace.iter().filter(|t| matches!(t, Trace::Told(..))).count()
}

/// Everything that others and the kernel can see of a node.
pub fn visible(w: &World, i: usize) -> String {
    let h = &w.hosts[i];
    format!("{:?} {:?} {:?}", h.rows, h.fdb, h.node.want().iter().collect::<Vec<_>>())
}
