//! The RIB under 100,000 Type-2 routes: time per route, and octets per route by a counting allocator.

#![allow(missing_docs, clippy::unwrap_used)]
#![allow(unsafe_code, reason = "an allocator can be counted only from inside")]

use divan::Bencher;
use divan::counter::ItemsCount;
use evpn::rib::{Change, Config, Import, Rib};
use evpn::session::Agreed;
use evpn::types::{Asn, Esi, EthTag, Mac, PeerId, Rd, Seq, Time, Vni};
use evpn::wire::{
    AsPath, Attrs, DecodeCtx, EvpnNlri, EvpnRoute, ExtCommunity, Family, MacIp, MpReach, MpUnreach, NextHop,
    Nlri, Origin, Update,
};
use std::alloc::{GlobalAlloc, Layout, System};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Counts live octets the way glibc hands them out: eight more, in steps of sixteen.
struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);

const fn chunk(layout: Layout) -> usize {
    let n = (layout.size() + 8 + 15) & !15;
    if n < 32 { 32 } else { n }
}

// SAFETY: everything is passed to `System` as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LIVE.fetch_add(chunk(layout), Relaxed);
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, p: *mut u8, layout: Layout) {
        LIVE.fetch_sub(chunk(layout), Relaxed);
        unsafe { System.dealloc(p, layout) }
    }
}

#[global_allocator]
static ALLOC: Counting = Counting;

fn heap_in_use() -> usize {
    LIVE.load(Relaxed)
}

const N: u32 = 100_000;
const PER_UPDATE: usize = 90;
const US: Ipv4Addr = Ipv4Addr::new(10, 255, 0, 1);
const THEM: Ipv4Addr = Ipv4Addr::new(10, 255, 0, 2);
const PEER: PeerId = PeerId(0);

fn main() {
    print_memory();
    divan::main();
}

fn vni() -> Vni {
    Vni::new(100).unwrap()
}

fn mac(n: u32) -> Mac {
    let [a, b, c, d] = n.to_be_bytes();
    Mac([0x52, 0x54, a, b, c, d])
}

/// `n` scattered over all MACs, so that routes come in no order.
fn scattered(n: u32) -> u32 {
    n.wrapping_mul(0x9e37_79b1)
}

fn attrs(seq: u32) -> Attrs {
    let target = ExtCommunity::auto_target(Asn(65000), vni());
    Attrs {
        origin: Some(Origin::Igp),
        as_path: Some(AsPath::default()),
        local_pref: Some(100),
        ext_communities: vec![target, ExtCommunity::VXLAN, ExtCommunity::mac_mobility(Seq(seq), false)],
        ..Attrs::default()
    }
}

fn route(rd: Ipv4Addr, n: u32, with_ip: bool) -> EvpnRoute {
    EvpnRoute::MacIp(MacIp {
        rd: Rd::type1(rd, 1),
        esi: Esi::ZERO,
        tag: EthTag(0),
        mac: mac(n),
        ip: with_ip.then(|| IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0000 | (n & 0x00ff_ffff)))),
        label1: vni().into(),
        label2: None,
    })
}

/// UPDATEs as a neighbour sends them: 90 routes each.
fn updates(kind: Kind, seq: u32, reach: bool) -> Vec<Update> {
    let routes: Vec<EvpnNlri> = (0..N)
        .map(|i| {
            let n = if kind == Kind::Scattered { scattered(i) } else { i };
            EvpnNlri { path_id: None, route: route(THEM, n, kind == Kind::WithIp) }
        })
        .collect();
    routes
        .chunks(PER_UPDATE)
        .map(|c| {
            let nlri = Nlri::Evpn(c.to_vec());
            if reach {
                let reach = MpReach { family: Family::EVPN, next_hop: NextHop::V4(THEM), nlri };
                Update { attrs: attrs(seq), reach: Some(reach), ..Update::default() }
            } else {
                let unreach = MpUnreach { family: Family::EVPN, nlri };
                Update { unreach: Some(unreach), ..Update::default() }
            }
        })
        .collect()
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Kind {
    /// MAC-only, ascending.
    Ordered,
    /// MAC-only, in no order.
    Scattered,
    /// MAC+IP, ascending.
    WithIp,
}

const KINDS: [Kind; 3] = [Kind::Ordered, Kind::Scattered, Kind::WithIp];

fn rib() -> Rib {
    let mut rib = Rib::new(Config { asn: Asn(65000), router_id: US, cluster_id: US, vtep: US.into() });
    rib.add_vni(vni(), Import::Auto);
    rib.add_peer(PEER, THEM.into(), true);
    let decode = DecodeCtx {
        as4: true,
        ibgp: true,
        families: vec![Family::EVPN],
        add_path: Vec::new(),
        max_len: 4096,
        enhanced_refresh: true,
    };
    let agreed = Agreed {
        peer_as: Asn(65000),
        peer_id: THEM,
        ibgp: true,
        hold_time: 90,
        families: vec![Family::EVPN],
        as4: true,
        max_send: 4096,
        refresh: true,
        enhanced_refresh: true,
        graceful: None,
        decode,
    };
    rib.peer_up(PEER, &agreed);
    assert!(rib.next_update(PEER, 4096).is_some(), "End-of-RIB");
    rib
}

fn feed(rib: &mut Rib, updates: &[Update]) {
    for u in updates {
        rib.update(PEER, u, None, Time(0));
    }
}

/// As the node does it: take what changed, look at the candidates.
fn look(rib: &mut Rib) -> usize {
    let mut seen = 0;
    loop {
        let changes = rib.take_changes(256);
        if changes.is_empty() {
            return seen;
        }
        for c in changes {
            if let Change::Mac(vni, mac) = c {
                seen += rib.mac_candidates(vni, mac).len();
            }
        }
    }
}

fn loaded(kind: Kind) -> Rib {
    let mut rib = rib();
    feed(&mut rib, &updates(kind, 1, true));
    look(&mut rib);
    rib
}

/// Live octets per route in the tables.
fn print_memory() {
    for kind in KINDS {
        let all = updates(kind, 1, true);
        let before = heap_in_use();
        let mut rib = rib();
        feed(&mut rib, &all);
        let pending = heap_in_use();
        look(&mut rib);
        let held = heap_in_use();
        let per_route = |to: usize| to.saturating_sub(before) as f64 / f64::from(N);
        println!(
            "memory {kind:?}: {:.0} octets per route, {:.0} with every change still to be taken ({} sets)",
            per_route(held),
            per_route(pending),
            rib.attribute_count()
        );
    }
}

/// `update` alone.
#[divan::bench(args = KINDS, sample_count = 10, sample_size = 1)]
fn update_100k(bencher: Bencher<'_, '_>, kind: Kind) {
    let all = updates(kind, 1, true);
    bencher.counter(ItemsCount::new(N)).with_inputs(rib).bench_values(|mut rib| {
        feed(&mut rib, &all);
        rib
    });
}

/// `update`, then `take_changes` and `mac_candidates` for every MAC.
#[divan::bench(args = KINDS, sample_count = 10, sample_size = 1)]
fn update_and_look_100k(bencher: Bencher<'_, '_>, kind: Kind) {
    let all = updates(kind, 1, true);
    bencher.counter(ItemsCount::new(N)).with_inputs(rib).bench_values(|mut rib| {
        feed(&mut rib, &all);
        assert_eq!(look(&mut rib), N as usize);
        rib
    });
}

/// Every route again with the next sequence number.
#[divan::bench(args = KINDS, sample_count = 10, sample_size = 1)]
fn replace_and_look_100k(bencher: Bencher<'_, '_>, kind: Kind) {
    let again = updates(kind, 2, true);
    bencher.counter(ItemsCount::new(N)).with_inputs(|| loaded(kind)).bench_values(|mut rib| {
        feed(&mut rib, &again);
        assert_eq!(look(&mut rib), N as usize);
        rib
    });
}

/// The same announcement again: nothing changes.
#[divan::bench(args = KINDS, sample_count = 10, sample_size = 1)]
fn repeat_100k(bencher: Bencher<'_, '_>, kind: Kind) {
    let all = updates(kind, 1, true);
    bencher.counter(ItemsCount::new(N)).with_inputs(|| loaded(kind)).bench_values(|mut rib| {
        feed(&mut rib, &all);
        assert!(!rib.has_changes());
        rib
    });
}

#[divan::bench(args = KINDS, sample_count = 10, sample_size = 1)]
fn withdraw_and_look_100k(bencher: Bencher<'_, '_>, kind: Kind) {
    let gone = updates(kind, 1, false);
    bencher.counter(ItemsCount::new(N)).with_inputs(|| loaded(kind)).bench_values(|mut rib| {
        feed(&mut rib, &gone);
        assert_eq!(look(&mut rib), 0);
        assert_eq!(rib.route_count(), 0);
        rib
    });
}

#[divan::bench(sample_count = 10, sample_size = 1)]
fn peer_down_100k(bencher: Bencher<'_, '_>) {
    bencher.counter(ItemsCount::new(N)).with_inputs(|| loaded(Kind::WithIp)).bench_values(|mut rib| {
        rib.peer_down(PEER);
        rib
    });
}

fn originate(rib: &mut Rib, attrs: &[Arc<Attrs>]) {
    for n in 0..N {
        let attrs = Arc::clone(&attrs[n as usize % attrs.len()]);
        rib.originate(route(US, n, false), attrs, NextHop::V4(US), false);
    }
}

fn drain(rib: &mut Rib) -> usize {
    let mut messages = 0;
    while rib.next_update(PEER, 4096).is_some() {
        messages += 1;
    }
    messages
}

#[divan::bench(sample_count = 10, sample_size = 1)]
fn originate_100k(bencher: Bencher<'_, '_>) {
    let attrs = [Arc::new(attrs(1))];
    bencher.counter(ItemsCount::new(N)).with_inputs(rib).bench_values(|mut rib| {
        originate(&mut rib, &attrs);
        rib
    });
}

/// 100,000 routes of our own, in so many distinct attribute sets, to one neighbour.
#[divan::bench(args = [1, 10, 1000], sample_count = 10, sample_size = 1)]
fn next_update_100k(bencher: Bencher<'_, '_>, sets: u32) {
    let attrs: Vec<Arc<Attrs>> = (0..sets).map(|s| Arc::new(attrs(s))).collect();
    let full = || {
        let mut rib = rib();
        originate(&mut rib, &attrs);
        rib
    };
    bencher.counter(ItemsCount::new(N)).with_inputs(full).bench_values(|mut rib| {
        assert!(drain(&mut rib) >= N as usize / 120);
        rib
    });
}

/// One hot move: originate, encode, with 100,000 other routes in the tables.
#[divan::bench(sample_count = 100)]
fn one_move_to_wire(bencher: Bencher<'_, '_>) {
    let attrs: Vec<Arc<Attrs>> = (0..2).map(|s| Arc::new(attrs(s))).collect();
    let mut rib = loaded(Kind::WithIp);
    let mut turn = 0;
    bencher.bench_local(|| {
        turn ^= 1;
        rib.originate(route(US, 5, false), Arc::clone(&attrs[turn]), NextHop::V4(US), true);
        rib.next_update(PEER, 4096)
    });
}
