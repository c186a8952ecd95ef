//! What a whole node costs per route and per move, without kernel and sockets.
//!
//! `cargo bench -p evpn --bench node`

#[path = "../tests/world/mod.rs"]
mod world;

use bytes::Bytes;
use divan::counter::ItemsCount;
use evpn::fabric::{FdbRow, KernelEvent, WriteResult};
use evpn::node::{ConnEvent, Input, Output};
use evpn::types::{ConnId, Mac, Span, Time};
use world::{P1, World};

const MACS: u32 = 100_000;

fn main() {
    divan::main();
}

fn mac(i: u32) -> Mac {
    let [a, b, c, d] = i.to_be_bytes();
    Mac([0x52, 0x54, a, b, c, d])
}

/// Two converged nodes; the first has `n` local MACs whose UPDATEs have not been delivered yet.
fn loaded(n: u32) -> (World, Vec<Bytes>, ConnId) {
    let mut w = World::converged(2, Span::millis(1));
    let mut updates = Vec::new();
    let mut conn = None;
    for i in 0..n {
        let row = world::bridge_row(mac(i), P1, false);
        w.hosts[0].node.handle(Input::Kernel(KernelEvent::Fdb(FdbRow::Bridge(row))), w.now);
    }
    loop {
        w.hosts[0].node.flush(w.now);
        let mut any = false;
        while let Some(o) = w.hosts[0].node.poll_output() {
            if let Output::Send { conn: c, bytes } = o {
                any = true;
                conn = Some(c);
                updates.push(bytes);
            }
        }
        match conn {
            Some(conn) if any => {
                w.hosts[0].node.handle(Input::Conn { conn, event: ConnEvent::Room(65536) }, w.now);
            }
            _ => break,
        }
    }
    let theirs = w.other_end(0, conn.expect("something was sent"));
    (w, updates, theirs)
}

fn ack(w: &mut World, at: Time) {
    ack_at(w, 1, at);
}

fn ack_at(w: &mut World, i: usize, at: Time) {
    loop {
        let keys = w.hosts[i].node.want_mut().take_dirty(4096);
        if keys.is_empty() {
            return;
        }
        let results = keys.into_iter().map(|k| (k, WriteResult::Done)).collect();
        w.hosts[i].node.handle(Input::Written(results), at);
    }
}

/// UPDATEs in, wanted rows out and acknowledged: session, decode, RIB, hosts, want.
#[divan::bench(sample_count = 5, sample_size = 1)]
fn remote_table(b: divan::Bencher<'_, '_>) {
    b.counter(ItemsCount::new(MACS)).with_inputs(|| loaded(MACS)).bench_local_values(
        |(mut w, updates, conn)| {
            let at = w.now + Span::secs(1);
            for bytes in updates {
                w.hosts[1].node.handle(Input::Conn { conn, event: ConnEvent::Bytes(bytes) }, at);
                w.hosts[1].node.flush(at);
                ack(&mut w, at);
            }
            while w.hosts[1].node.poll_timeout().is_some_and(|(t, _)| t <= at) {
                w.hosts[1].node.flush(at);
                while w.hosts[1].node.poll_output().is_some() {}
                ack(&mut w, at);
            }
            assert!(w.hosts[1].node.want().len() >= MACS as usize);
            w
        },
    );
}

/// Local MACs in, UPDATEs out.
#[divan::bench(sample_count = 5, sample_size = 1)]
fn local_table(b: divan::Bencher<'_, '_>) {
    b.counter(ItemsCount::new(MACS)).bench_local(|| loaded(MACS));
}

/// 10,000 MACs that were remote appear behind a local port at once: FDB events in, UPDATEs and rows out.
#[divan::bench(sample_count = 10, sample_size = 1)]
fn arrivals(b: divan::Bencher<'_, '_>) {
    let n = 10_000;
    b.counter(ItemsCount::new(n)).with_inputs(|| filled(n)).bench_local_values(|mut w| {
        let at = w.now + Span::secs(1);
        let conn = w.conn_to(1, 0);
        for i in 0..n {
            let row = world::bridge_row(mac(i), P1, false);
            w.hosts[1].node.handle(Input::Kernel(KernelEvent::Fdb(FdbRow::Bridge(row))), at);
            if i % 1000 == 999 {
                drain(&mut w, conn, at);
            }
        }
        drain(&mut w, conn, at);
        w
    });
}

/// The same at the VTEP that loses them: UPDATEs in, rows and withdrawals out.
#[divan::bench(sample_count = 10, sample_size = 1)]
fn departures(b: divan::Bencher<'_, '_>) {
    let n = 10_000;
    b.counter(ItemsCount::new(n))
        .with_inputs(|| {
            let mut w = filled(n);
            let at = w.now + Span::secs(1);
            let conn = w.conn_to(1, 0);
            let mut sent = Vec::new();
            for i in 0..n {
                let row = world::bridge_row(mac(i), P1, false);
                w.hosts[1].node.handle(Input::Kernel(KernelEvent::Fdb(FdbRow::Bridge(row))), at);
            }
            sent.extend(drain(&mut w, conn, at));
            (w, sent)
        })
        .bench_local_values(|(mut w, sent)| {
            let at = w.now + Span::secs(1);
            let conn = w.conn_to(0, 1);
            for bytes in sent {
                w.hosts[0].node.handle(Input::Conn { conn, event: ConnEvent::Bytes(bytes) }, at);
                w.hosts[0].node.flush(at);
                while w.hosts[0].node.poll_output().is_some() {}
                ack_at(&mut w, 0, at);
            }
            w
        });
}

/// Node 0 owns `n` MACs, node 1 has them as remote.
fn filled(n: u32) -> World {
    let (mut w, updates, conn) = loaded(n);
    let at = w.now;
    for bytes in updates {
        w.hosts[1].node.handle(Input::Conn { conn, event: ConnEvent::Bytes(bytes) }, at);
    }
    for _ in 0..=n / 500 {
        w.hosts[1].node.flush(at);
        while w.hosts[1].node.poll_output().is_some() {}
        ack(&mut w, at);
    }
    w
}

/// Flushes node 1 until nothing is due; the UPDATEs it sent.
fn drain(w: &mut World, conn: ConnId, at: Time) -> Vec<Bytes> {
    let mut sent = Vec::new();
    loop {
        w.hosts[1].node.flush(at);
        let mut any = false;
        while let Some(o) = w.hosts[1].node.poll_output() {
            if let Output::Send { bytes, .. } = o {
                any = true;
                sent.push(bytes);
            }
        }
        ack(w, at);
        if !any {
            return sent;
        }
        w.hosts[1].node.handle(Input::Conn { conn, event: ConnEvent::Room(65536) }, at);
    }
}
