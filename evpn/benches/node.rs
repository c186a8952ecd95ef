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
    loop {
        let keys = w.hosts[1].node.want_mut().take_dirty(4096);
        if keys.is_empty() {
            return;
        }
        let results = keys.into_iter().map(|k| (k, WriteResult::Done)).collect();
        w.hosts[1].node.handle(Input::Written(results), at);
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
