//! Whole UPDATEs to owned, validated routes with their attributes, and back.
//!
//! `cargo bench -p evpn --bench codec` prints divan's table; with `--json` it prints one JSON object of medians
//! in nanoseconds per route instead, for the table of `cargo xtask bench`.

use bytes::Bytes;
use evpn::types::{Asn, Esi, EthTag, Label, Mac, Rd, Seq, Vni};
use evpn::wire::{
    AsPath, Attrs, Capability, DecodeCtx, Decoded, EncodeCtx, EvpnNlri, EvpnRoute, ExtCommunity, Family,
    MacIp, Message, MpReach, NextHop, Nlri, Open, Origin, Update, UpdateBuilder, decode,
};
use std::hint::black_box;
use std::net::Ipv4Addr;
use std::time::Instant;

const VTEP: Ipv4Addr = Ipv4Addr::new(10, 255, 0, 1);

/// What an iBGP VTEP sends: route target, VXLAN, a mobility sequence.
fn attrs() -> Attrs {
    Attrs {
        origin: Some(Origin::Igp),
        as_path: Some(AsPath::default()),
        local_pref: Some(100),
        ext_communities: vec![
            ExtCommunity::auto_target(Asn(65000), Vni::new(100).expect("in range")),
            ExtCommunity::VXLAN,
            ExtCommunity::mac_mobility(Seq(1), false),
        ],
        ..Attrs::default()
    }
}

/// `n` MAC+IP routes of IPv4.
fn routes(n: usize) -> Vec<EvpnRoute> {
    (0..n as u32)
        .map(|i| {
            let [_, a, b, c] = i.to_be_bytes();
            EvpnRoute::MacIp(MacIp {
                rd: Rd::type1(VTEP, 2),
                esi: Esi::ZERO,
                tag: EthTag(0),
                mac: Mac([0x52, 0x54, 0, a, b, c]),
                ip: Some(Ipv4Addr::new(10, a, b, c).into()),
                label1: Label(100),
                label2: None,
            })
        })
        .collect()
}

fn update(n: usize) -> Message {
    let nlri = routes(n).into_iter().map(|route| EvpnNlri { path_id: None, route }).collect();
    Message::Update(Update {
        attrs: attrs(),
        reach: Some(MpReach { family: Family::EVPN, next_hop: NextHop::V4(VTEP), nlri: Nlri::Evpn(nlri) }),
        ..Update::default()
    })
}

fn encoded(n: usize) -> Bytes {
    update(n).encode(&EncodeCtx::default())
}

fn ctx() -> DecodeCtx {
    DecodeCtx { ibgp: true, ..DecodeCtx::default() }
}

fn decode_one(bytes: &[u8], ctx: &DecodeCtx) -> Decoded {
    decode(black_box(bytes), ctx).expect("well-formed")
}

fn build(attrs: &Attrs, routes: &[EvpnRoute]) -> Bytes {
    let mut b = UpdateBuilder::reach(attrs, NextHop::V4(VTEP), 4096, true);
    for r in black_box(routes) {
        assert!(b.push(r));
    }
    b.finish().expect("has routes")
}

/// 90 MAC+IP routes fill a message of 4096 octets but for a few.
const COUNTS: [usize; 2] = [90, 1];

#[divan::bench(args = COUNTS)]
fn decode_update(bencher: divan::Bencher<'_, '_>, n: usize) {
    let (bytes, ctx) = (encoded(n), ctx());
    bencher.counter(divan::counter::ItemsCount::new(n)).bench_local(|| decode_one(&bytes, &ctx));
}

#[divan::bench(args = COUNTS)]
fn build_update(bencher: divan::Bencher<'_, '_>, n: usize) {
    let (attrs, routes) = (attrs(), routes(n));
    bencher.counter(divan::counter::ItemsCount::new(n)).bench_local(|| build(&attrs, &routes));
}

#[divan::bench(args = COUNTS)]
fn encode_update(bencher: divan::Bencher<'_, '_>, n: usize) {
    let (message, ctx) = (update(n), EncodeCtx::default());
    bencher.counter(divan::counter::ItemsCount::new(n)).bench_local(|| black_box(&message).encode(&ctx));
}

#[divan::bench]
fn decode_open(bencher: divan::Bencher<'_, '_>) {
    let open = Message::Open(Open {
        my_as: 65000,
        hold_time: 90,
        id: VTEP,
        capabilities: vec![
            Capability::Multiprotocol(Family::EVPN),
            Capability::RouteRefresh,
            Capability::EnhancedRefresh,
            Capability::As4(Asn(65000)),
        ],
        extended: false,
    });
    let (bytes, ctx) = (open.encode(&EncodeCtx::default()), ctx());
    bencher.bench_local(|| decode_one(&bytes, &ctx));
}

/// Median over `ROUNDS` rounds of `REPEAT` calls, in nanoseconds per route.
fn median_ns<T>(routes: usize, mut call: impl FnMut() -> T) -> f64 {
    const ROUNDS: usize = 301;
    const REPEAT: u32 = 200;
    let mut all: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let start = Instant::now();
            for _ in 0..REPEAT {
                drop(black_box(call()));
            }
            start.elapsed().as_secs_f64() * 1e9 / f64::from(REPEAT) / routes as f64
        })
        .collect();
    all.sort_by(f64::total_cmp);
    all[ROUNDS / 2]
}

fn json() -> serde_json::Value {
    let mut out = serde_json::Map::new();
    for n in COUNTS {
        let (bytes, ctx, message) = (encoded(n), ctx(), update(n));
        let (attrs, routes) = (attrs(), routes(n));
        let case = serde_json::json!({
            "octets": bytes.len(),
            "decode_ns_per_route": median_ns(n, || decode_one(&bytes, &ctx)),
            "build_ns_per_route": median_ns(n, || build(&attrs, &routes)),
            "encode_ns_per_route": median_ns(n, || message.encode(&EncodeCtx::default())),
        });
        out.insert(format!("routes_per_update_{n}"), case);
    }
    out.into()
}

fn main() {
    if std::env::args().any(|a| a == "--json") {
        println!("{}", json());
    } else {
        divan::main();
    }
}
