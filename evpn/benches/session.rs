//! 100,000 Type-2 routes through an established session: framing, decoding, outputs.
//!
//! The driver reads up to 64 KiB at a time; 1448 octets is one TCP segment of a 1500-octet path.

use bytes::Bytes;
use divan::Bencher;
use divan::counter::{BytesCount, ItemsCount};
use evpn::session::{Config, Input, Output, Session};
use evpn::types::{Asn, ConnId, Esi, EthTag, Label, Mac, Rd, Time};
use evpn::wire::{
    AsPath, Attrs, Capability, EncodeCtx, EvpnRoute, ExtCommunity, Family, MacIp, Message, NextHop, Open,
    Origin, UpdateBuilder, keepalive,
};
use std::net::Ipv4Addr;

const ROUTES: u32 = 100_000;
const AS: Asn = Asn(65000);

fn main() {
    divan::main();
}

fn route(n: u32) -> EvpnRoute {
    let [a, b, c, d] = n.to_be_bytes();
    EvpnRoute::MacIp(MacIp {
        rd: Rd::type1(Ipv4Addr::new(10, 255, 0, 1), 100),
        esi: Esi::ZERO,
        tag: EthTag(0),
        mac: Mac([0x52, 0x54, a, b, c, d]),
        ip: None,
        label1: Label(100),
        label2: None,
    })
}

/// UPDATEs of at most `max` octets, back to back.
fn stream(max: usize) -> Vec<u8> {
    let attrs = Attrs {
        origin: Some(Origin::Igp),
        as_path: Some(AsPath::default()),
        local_pref: Some(100),
        ext_communities: vec![
            ExtCommunity([0, 2, 0xfd, 0xe8, 0, 0, 0, 100]),
            ExtCommunity([3, 0x0c, 0, 0, 0, 0, 0, 8]),
        ],
        ..Attrs::default()
    };
    let fresh = || UpdateBuilder::reach(&attrs, NextHop::V4(Ipv4Addr::new(10, 255, 0, 1)), max, true);
    let mut out = Vec::new();
    let mut b = fresh();
    for r in (0..ROUTES).map(route) {
        if !b.push(&r) {
            out.extend_from_slice(&b.finish().expect("routes"));
            b = fresh();
            assert!(b.push(&r));
        }
    }
    out.extend_from_slice(&b.finish().expect("routes"));
    out
}

fn established() -> Session {
    let mut s = Session::new(Config::new(AS, AS.into(), Ipv4Addr::new(10, 255, 0, 2)));
    let open = Message::Open(Open {
        my_as: 65000,
        hold_time: 90,
        id: Ipv4Addr::new(10, 255, 0, 1),
        capabilities: vec![Capability::Multiprotocol(Family::EVPN), Capability::As4(AS)],
        extended: false,
    });
    let open: Bytes = open.encode(&EncodeCtx::default());
    for input in [
        Input::Start,
        Input::Connected(ConnId(1)),
        Input::Bytes(ConnId(1), &open),
        Input::Bytes(ConnId(1), &keepalive()),
    ] {
        s.handle(input, Time(0), &mut || ConnId(1), &mut Vec::new());
    }
    assert!(s.established().is_some());
    s
}

#[divan::bench(args = [(4096, 65536), (4096, 1448), (65535, 65536), (65535, 1448), (65535, 64)])]
fn routes_100k(bencher: Bencher<'_, '_>, (max, read): (usize, usize)) {
    let octets = stream(max);
    bencher
        .counter(ItemsCount::new(ROUTES))
        .counter(BytesCount::new(octets.len()))
        .with_inputs(established)
        .bench_local_values(|mut s| {
            let (mut updates, mut out) = (0, Vec::new());
            for piece in octets.chunks(read) {
                s.handle(Input::Bytes(ConnId(1), piece), Time(1), &mut || ConnId(2), &mut out);
                updates += out.drain(..).filter(|o| matches!(o, Output::Update { .. })).count();
            }
            assert!(updates > 0 && s.established().is_some());
            s
        });
}
