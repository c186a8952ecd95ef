//! Random moves, late frames, cut sessions and slow kernels; once quiet, every node must agree with the truth.
//!
//! The truth is kept here as "which VM is behind which port"; nothing of `evpn::mobility` is asked.

mod world;

use bytes::{BufMut, Bytes, BytesMut};
use evpn::fabric::Row;
use evpn::node::view::Place;
use evpn::types::{IfIndex, Mac, Span};
use std::net::Ipv4Addr;
use world::rng::Rng;
use world::{P1, P2, VXLAN, World, mac, vtep};

fn arp(m: Mac, ip: Ipv4Addr, op: u8) -> Bytes {
    let mut b = BytesMut::new();
    b.put_slice(&[0xff; 6]);
    b.put_slice(&m.0);
    b.put_slice(if op == 3 { &[0x80, 0x35] } else { &[0x08, 0x06] });
    b.put_slice(&[0, 1, 8, 0, 6, 4, 0, op]);
    b.put_slice(&m.0);
    b.put_slice(&if op == 3 { [0; 4] } else { ip.octets() });
    b.put_slice(if op == 3 { &m.0 } else { &[0; 6] });
    b.put_slice(&if op == 3 { [0; 4] } else { ip.octets() });
    b.freeze()
}

#[derive(Clone, Copy)]
struct Vm {
    mac: Mac,
    ip: Ipv4Addr,
    node: usize,
    port: IfIndex,
    moves: u32,
}

fn run(seed: u64) {
    let mut r = Rng(seed);
    let n = 3 + r.below(2) as usize;
    let delay = Span::micros(100 + r.below(20_000));
    let mut w = World::converged(n, delay);
    let mut vms: Vec<Vm> = (0..4u8)
        .map(|i| Vm { mac: mac(i + 1), ip: Ipv4Addr::new(10, 1, 0, i + 1), node: 0, port: P1, moves: 0 })
        .collect();
    for vm in &mut vms {
        vm.node = r.below(n as u64) as usize;
        w.frame(vm.node, vm.port, vm.mac, Some(arp(vm.mac, vm.ip, 1)));
    }
    let mut paused: Option<usize> = None;
    for _ in 0..30 {
        let i = r.below(vms.len() as u64) as usize;
        match r.below(12) {
            0..=5 => {
                // A move: announced by RARP, by gratuitous ARP, or by nothing but a frame.
                let old = vms[i];
                let vm = &mut vms[i];
                vm.node = (vm.node + 1 + r.below(n as u64 - 1) as usize) % n;
                vm.port = if r.below(2) == 0 { P1 } else { P2 };
                vm.moves += 1;
                let vm = *vm;
                let frame = match r.below(3) {
                    0 => Some(arp(vm.mac, vm.ip, 3)),
                    1 => Some(arp(vm.mac, vm.ip, 1)),
                    _ => None,
                };
                w.frame(vm.node, vm.port, vm.mac, frame);
                // Late frames of the source, or the source's tap goes away.
                match r.below(3) {
                    0 => {
                        for _ in 0..r.below(5) {
                            w.run_for(Span::micros(r.below(4_000)));
                            if w.hosts[old.node].fdb.get(&vm.mac) == Some(&VXLAN) {
                                w.frame(old.node, old.port, vm.mac, None);
                            }
                        }
                    }
                    1 if w.hosts[old.node].fdb.get(&vm.mac) == Some(&old.port) => w.forget(old.node, vm.mac),
                    _ => {}
                }
            }
            6 => w.cut(r.below(n as u64) as usize, r.below(n as u64) as usize),
            7 => {
                if let Some(p) = paused.take() {
                    w.hosts[p].paused = false;
                } else {
                    let p = r.below(n as u64) as usize;
                    w.hosts[p].paused = true;
                    paused = Some(p);
                }
            }
            8 => {
                let vm = vms[i];
                w.frame(vm.node, vm.port, vm.mac, Some(arp(vm.mac, vm.ip, 1)));
            }
            _ => w.run_for(Span::millis(r.below(300))),
        }
        w.run_for(Span::micros(r.below(30_000)));
    }
    if let Some(p) = paused {
        w.hosts[p].paused = false;
    }
    // Sessions come back, guard times pass, every VM is heard where it really is.
    w.run_for(Span::secs(150));
    for _ in 0..12 {
        for vm in &vms {
            w.frame(vm.node, vm.port, vm.mac, None);
        }
        w.run_for(Span::millis(250));
    }
    for vm in &vms {
        w.frame(vm.node, vm.port, vm.mac, Some(arp(vm.mac, vm.ip, 1)));
    }
    w.run_for(Span::secs(5));
    let what = format!("seed {seed}");
    for i in 0..n {
        assert!(w.status(i).converged, "{what}: node {i} has not converged");
        let macs = w.macs(i);
        assert_eq!(macs.len(), vms.len(), "{what}: node {i} has {macs:?}");
        for vm in &vms {
            let m = macs
                .iter()
                .find(|m| m.mac == vm.mac)
                .unwrap_or_else(|| panic!("{what}: node {i} lost {}", vm.mac));
            let truth = if i == vm.node {
                Place::Port(if vm.port == P1 { "p1".into() } else { "p2".into() })
            } else {
                Place::Vtep(vtep(vm.node))
            };
            assert_eq!(m.place, truth, "{what}: {} at node {i}", vm.mac);
            let at = w.hosts[i].fdb.get(&vm.mac).copied();
            assert_eq!(
                at,
                Some(if i == vm.node { vm.port } else { VXLAN }),
                "{what}: kernel of node {i}, {}",
                vm.mac
            );
            if i == vm.node {
                assert_eq!(w.neigh_row(i, vm.ip.into()), None, "{what}");
            } else {
                let row = Row::Remote { vxlan: VXLAN, vtep: vtep(vm.node), sticky: false };
                assert_eq!(w.mac_row(i, vm.mac), Some(row), "{what}: row of node {i}");
                let neigh = Row::Neigh { mac: vm.mac, router: false };
                assert_eq!(w.neigh_row(i, vm.ip.into()), Some(neigh), "{what}: node {i} {}", vm.ip);
            }
            // A contested move may cost two more than it was worth; restarts of sessions add none.
            assert!(
                m.seq.0 <= 3 * vm.moves + 12,
                "{what}: {} has {} after {} moves",
                vm.mac,
                m.seq,
                vm.moves
            );
        }
    }
}

#[test]
fn every_node_agrees_with_the_truth_once_it_is_quiet() {
    let seeds = std::env::var("VTEPD_SEEDS").ok().and_then(|s| s.parse().ok()).unwrap_or(150);
    let first = std::env::var("VTEPD_FIRST_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(1);
    for seed in first..first + seeds {
        run(seed);
    }
}
