//! Memory of sequences across withdrawal, ageing and restarts (EVPN-MOB-05, EVPN-MOB-12, MIG-COLD-01).
//!
//! That no sequence is told before it is kept is asserted by the world for every octet that any test sends.

mod world;

use evpn::fabric::Row;
use evpn::mobility::{Memory, Record};
use evpn::node::{Input, MobilityConfig};
use evpn::types::{Mac, Seq, Span, Time};
use world::frames::rarp;
use world::{P1, P2, VXLAN, World, mac, vni, vtep};

const MS: Span = Span::millis(1);
const HOUR: u64 = 3600;

#[allow(clippy::unnecessary_wraps)] // compared with what the kernel may not have
fn remote(i: usize) -> Option<Row> {
    Some(Row::Remote { vxlan: VXLAN, vtep: vtep(i), sticky: false })
}

/// The last sequence that a node told for a MAC.
fn told(w: &World, i: usize, m: Mac) -> Option<Seq> {
    w.hosts[i].announced.iter().rev().find(|(_, x, _)| *x == m).map(|(_, _, s)| *s)
}

/// Nodes whose sessions need no keepalives, so that a week passes quickly.
fn quiet(n: usize) -> World {
    let mut w = World::with(n, MS, |c| c.neighbors.iter_mut().for_each(|n| n.hold_time = 0));
    w.run_for(Span::secs(10));
    w
}

/// `n` moves of a MAC between nodes 0 and 1; the last one is to node `n % 2`.
fn move_to_and_fro(w: &mut World, m: Mac, n: u32) {
    for k in 0..=n {
        w.frame(k as usize % 2, P1, m, Some(rarp(m)));
        w.run_for(Span::secs(2));
    }
    assert_eq!(told(w, n as usize % 2, m), Some(Seq(n)));
}

/// A peer like FRR 8.4: it keeps the highest sequence that it ever saw of a MAC and ignores lower ones, even after
/// everything was withdrawn.
#[derive(Default)]
struct Stubborn {
    seen: std::collections::BTreeMap<Mac, (Seq, usize)>,
    read: [usize; 8],
    ignored: Vec<(Mac, Seq)>,
}

impl Stubborn {
    fn listen(&mut self, w: &World) {
        let mut news: Vec<(Time, usize, Mac, Seq)> = Vec::new();
        for (i, h) in w.hosts.iter().enumerate() {
            let all = h.announced.iter().skip(self.read[i]);
            news.extend(all.map(|(t, m, s)| (*t, i, *m, *s)));
            self.read[i] = h.announced.len();
        }
        news.sort_by_key(|(t, i, ..)| (*t, *i));
        for (_, i, m, seq) in news {
            match self.seen.get(&m) {
                Some((old, _)) if old.0 > seq.0 => self.ignored.push((m, seq)),
                // From another VTEP the same sequence changes nothing unless its address is the lower one.
                Some((old, at)) if *old == seq && *at < i => {}
                _ => {
                    self.seen.insert(m, (seq, i));
                }
            }
        }
    }
}

/// EVPN-MOB-05: the guest stays where it is while the daemon restarts.
#[test]
fn a_local_mac_goes_on_with_its_own_sequence_after_a_restart() {
    let mut w = World::converged(3, MS);
    move_to_and_fro(&mut w, mac(1), 5);
    let mut frr = Stubborn::default();
    frr.listen(&w);
    let before = w.hosts[1].announced.len();
    w.kill(1);
    w.run_for(Span::secs(3));
    assert_eq!(w.mac_row(2, mac(1)), remote(1), "kept, as stale (BGP-GR-09)");
    w.start(1, true);
    w.run_for(Span::secs(10));
    assert_eq!(w.mac_row(2, mac(1)), remote(1));
    let again: Vec<Seq> =
        w.hosts[1].announced[before..].iter().filter(|a| a.1 == mac(1)).map(|a| a.2).collect();
    assert!(!again.is_empty() && again.iter().all(|s| *s == Seq(5)), "told {again:?}");
    frr.listen(&w);
    assert_eq!((frr.ignored.len(), frr.seen[&mac(1)]), (0, (Seq(5), 1)));
}

/// The same with an empty state directory is what the memory is for.
#[test]
fn without_a_state_directory_a_peer_that_remembers_ignores_what_is_told_after_a_restart() {
    let mut w = World::converged(2, MS);
    move_to_and_fro(&mut w, mac(1), 5);
    let mut frr = Stubborn::default();
    frr.listen(&w);
    w.kill(1);
    w.start(1, false);
    w.run_for(Span::secs(10));
    frr.listen(&w);
    assert!(!frr.ignored.is_empty(), "the model of the peer tells nothing apart");
}

/// EVPN-MOB-12, MIG-COLD-01: shut down and withdrawn, the daemon restarts, the guest boots behind it, and a third
/// VTEP that never heard the withdrawal still tells the old route.
#[test]
fn a_cold_move_beats_a_stale_remote_route_after_a_restart() {
    let mut w = World::converged(3, MS);
    move_to_and_fro(&mut w, mac(1), 4);
    let mut frr = Stubborn::default();
    frr.listen(&w);
    assert_eq!(w.hosts[1].kept[&(vni(), mac(1))].seq, Seq(4), "heard from node 0");
    // Off at node 0, which tells everybody; node 1 restarts meanwhile.
    w.kill(1);
    w.forget(0, mac(1));
    w.hosts[1].fdb.remove(&mac(1));
    w.run_for(Span::secs(5));
    w.start(1, true);
    w.run_for(Span::secs(10));
    assert_eq!(w.mac_row(2, mac(1)), None);
    w.frame(1, P2, mac(1), Some(rarp(mac(1))));
    w.run_for(Span::secs(1));
    assert_eq!(told(&w, 1, mac(1)), Some(Seq(5)), "one more than the highest, which was another's");
    frr.listen(&w);
    assert_eq!((frr.ignored.len(), frr.seen[&mac(1)]), (0, (Seq(5), 1)));
}

/// EVPN-MOB-12: withdrawal and ageing forget nothing, in the process and on disk.
#[test]
fn an_aged_out_mac_comes_back_with_its_sequence() {
    let mut w = quiet(2);
    move_to_and_fro(&mut w, mac(1), 3);
    w.forget(1, mac(1));
    w.run_for(Span::secs(23 * HOUR));
    w.kill(1);
    w.start(1, true);
    w.run_for(Span::secs(10));
    w.frame(1, P1, mac(1), None);
    assert_eq!(told(&w, 1, mac(1)), Some(Seq(3)), "nobody else had it in between (EVPN-MOB-05)");
    w.forget(1, mac(1));
    w.run_for(Span::secs(30 * HOUR));
    w.frame(1, P1, mac(1), None);
    assert_eq!(told(&w, 1, mac(1)), Some(Seq(0)), "forgotten after a day");
}

#[test]
fn the_age_counts_while_no_daemon_runs() {
    for (hours, expected) in [(20, 3), (30, 0)] {
        let mut w = quiet(2);
        move_to_and_fro(&mut w, mac(1), 3);
        w.kill(1);
        w.hosts[1].fdb.clear();
        w.run_for(Span::secs(hours * HOUR));
        w.start(1, true);
        w.run_for(Span::secs(10));
        w.frame(1, P1, mac(1), None);
        assert_eq!(told(&w, 1, mac(1)), Some(Seq(expected)), "after {hours} h");
    }
}

/// A guest that never moves for a week and then sees a restart.
#[test]
fn what_is_advertised_all_the_time_is_never_too_old() {
    let mut w = quiet(2);
    move_to_and_fro(&mut w, mac(1), 3);
    let written = w.hosts[1].records;
    w.run_for(Span::secs(7 * 24 * HOUR));
    let renewed = w.hosts[1].records - written;
    assert!((7 * 7..=7 * 9).contains(&renewed), "{renewed} records in a week for one MAC");
    w.kill(1);
    w.start(1, true);
    w.run_for(Span::secs(10));
    assert_eq!(told(&w, 1, mac(1)), Some(Seq(3)));
}

/// Bounded writing: a table of first advertisements is worth nothing on disk, nor are repetitions.
#[test]
fn first_advertisements_write_nothing() {
    let mut w = World::converged(2, MS);
    for n in 0..=200 {
        w.frame(0, P1, mac(n), Some(rarp(mac(n))));
    }
    w.run_for(Span::secs(1));
    assert_eq!(w.macs(1).len(), 201);
    w.cut(0, 1);
    w.run_for(Span::secs(150));
    assert_eq!(w.macs(1).len(), 201);
    assert_eq!((w.hosts[0].records, w.hosts[1].records), (0, 0));
    w.frame(1, P1, mac(1), Some(rarp(mac(1))));
    w.run_for(Span::secs(1));
    assert_eq!((w.hosts[0].records, w.hosts[1].records), (1, 1), "a move writes one at each");
}

/// A wall clock that is set makes the kept ages wrong: everything is written anew.
#[test]
fn a_wall_clock_that_was_set_does_not_make_sequences_look_old() {
    let mut w = World::converged(2, MS);
    move_to_and_fro(&mut w, mac(1), 3);
    w.forget(1, mac(1));
    let unix = 1_700_000_000;
    w.input(1, Input::Wall { unix });
    let r = w.hosts[1].kept[&(vni(), mac(1))];
    assert!((unix - 60..=unix).contains(&r.unix), "kept with {}", r.unix);
    let written = w.hosts[1].records;
    w.run_for(Span::secs(60));
    w.input(1, Input::Wall { unix: unix + 62 });
    assert_eq!(w.hosts[1].records, written, "a small difference is none");
}

/// The state directory was found damaged and is empty now.
#[test]
fn everything_is_kept_again_when_the_state_directory_has_lost_it() {
    let mut w = World::converged(2, MS);
    move_to_and_fro(&mut w, mac(1), 3);
    move_to_and_fro(&mut w, mac(2), 2);
    w.forget(1, mac(1));
    w.run_for(Span::secs(1));
    let before = std::mem::take(&mut w.hosts[1].kept);
    w.input(1, Input::KeepAgain);
    w.run_for(MS);
    let seqs = |kept: &std::collections::BTreeMap<_, Record>| -> Vec<_> {
        kept.values().map(|r| (r.mac, r.seq, r.ours)).collect()
    };
    assert_eq!(seqs(&w.hosts[1].kept), seqs(&before));
    assert_eq!(before.len(), 2);
}

#[test]
fn the_memory_time_is_what_is_configured() {
    let short = MobilityConfig { memory_time: Span::secs(600), ..MobilityConfig::default() };
    let mut w = World::with(2, MS, |c| c.mobility = short.clone());
    w.run_for(Span::secs(10));
    move_to_and_fro(&mut w, mac(1), 3);
    w.forget(1, mac(1));
    w.run_for(Span::secs(500));
    assert_eq!(w.status(1).counters["sequences_remembered"], 1);
    w.run_for(Span::secs(101));
    assert_eq!(w.status(1).counters["sequences_remembered"], 0);
}

/// Records of a VNI that is not configured, without a time, from the future: used as far as they make sense.
#[test]
fn odd_records_do_no_harm() {
    let mut w = World::converged(2, MS);
    w.kill(1);
    let r = |n: u8, unix| Record { vni: vni(), mac: mac(n), seq: Seq(7), ours: true, unix, released: None };
    let elsewhere = Record { vni: evpn::types::Vni::new(5).expect("valid"), ..r(3, 1) };
    for x in [r(1, 0), r(2, u64::MAX), elsewhere] {
        w.hosts[1].kept.insert((x.vni, x.mac), x);
    }
    w.start(1, true);
    w.run_for(Span::secs(10));
    assert_eq!(w.status(1).counters["sequences_remembered"], 2);
    assert_eq!(w.status(1).counters["sequences_restored"], 2);
    w.frame(1, P1, mac(2), None);
    assert_eq!(told(&w, 1, mac(2)), Some(Seq(7)));
    assert!(Memory::slack(Span::secs(24 * HOUR)) == Span::secs(3 * HOUR));
}
