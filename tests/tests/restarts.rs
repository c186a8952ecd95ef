//! Sequences over restarts: a daemon that is killed at random points of a storm of moves, beside a peer that writes
//! down all it hears (EVPN-MOB-05, EVPN-MOB-12).

use evpn::types::Mac;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};
use vtepd_tests::fabric::{Fabric, Guest, Place, test_mac};
use vtepd_tests::frame;
use vtepd_tests::heard::{self, HeardMac};
use vtepd_tests::mixed::Mixed;
use vtepd_tests::need::{Need, met};
use vtepd_tests::packet::Wire;
use vtepd_tests::poll::{LATER, SOON, eventually};
use vtepd_tests::sim::Rng;
use vtepd_tests::speaker::{Attributes, Door, Speaker, announce, imet, mac_ip, withdraw};
use vtepd_tests::vtepd::Vtepd;

const MACS: u16 = 8;

/// What the peer knows of one MAC, over all lives of the daemon.
#[derive(Clone, Copy, Debug, Default)]
struct Known {
    /// Last sequence that the daemon told.
    told: Option<u32>,
    /// The daemon's route stands, as far as this peer has heard.
    theirs: bool,
    /// What we announced over it.
    ours: Option<u32>,
    /// The daemon gave way to this sequence of ours: it knows it, and no later claim may be at or below it.
    gave_way: Option<u32>,
}

/// The peer's book.
#[derive(Debug, Default)]
struct Book {
    macs: BTreeMap<Mac, Known>,
    read: usize,
    told: u64,
    kill: u64,
}

impl Book {
    /// Reads what is new. Every announcement is checked against all that was ever heard.
    fn read(&mut self, s: &Speaker) {
        let heard = s.heard();
        for (_, _, message) in heard.iter().skip(self.read) {
            for h in heard::macs(message) {
                self.note(h);
            }
        }
        self.read = heard.len();
    }

    fn note(&mut self, h: HeardMac) {
        let kill = self.kill;
        let k = self.macs.entry(h.mac).or_default();
        let Some(seq) = h.seq else {
            k.theirs = false;
            k.gave_way = k.ours.or(k.gave_way);
            return;
        };
        let what = || format!("after kill {kill}: {} told with {seq}, known {k:?}", h.mac);
        assert!(k.told.is_none_or(|t| seq >= t), "a sequence dropped: {}", what());
        assert!(k.gave_way.is_none_or(|g| seq > g), "a sequence was used twice: {}", what());
        k.told = Some(seq);
        k.theirs = true;
        // Told over our announcement: that has lost.
        if k.ours.is_some_and(|o| seq > o) {
            k.ours = None;
        }
        self.told += 1;
    }
}

/// A peer and the ports of the guests.
struct Storm<'a> {
    door: Door,
    at: Attributes,
    ports: [&'a Wire; 2],
    rng: Rng,
    book: Book,
}

impl Storm<'_> {
    fn claim(&mut self, s: &Speaker, mac: Mac, seq: u32) {
        s.try_send(&announce(&self.at.clone().seq(seq), &[mac_ip(100, mac, None)]));
        self.book.macs.entry(mac).or_default().ours = Some(seq);
    }

    fn rarp(&mut self, mac: Mac) {
        let port = self.ports[self.rng.below(2) as usize];
        port.send(&frame::rarp(mac));
    }

    /// Our side of a new session: what stands is announced again, as a live peer does; of some the owner has died
    /// meanwhile, and only the daemon's memory knows that they were there.
    fn open(&mut self, s: &Speaker) {
        let flood = self.at.clone().ingress_replication(100, self.at.next_hop);
        s.try_send(&announce(&flood, &[imet(self.at.next_hop)]));
        for n in 1..=MACS {
            let mac = test_mac(n);
            if let Some(seq) = self.book.macs.get(&mac).and_then(|k| k.ours) {
                if self.rng.below(2) == 0 {
                    self.claim(s, mac, seq);
                } else {
                    self.book.macs.entry(mac).or_default().ours = None;
                }
            }
        }
        s.try_send(&withdraw(&[]));
    }

    /// One move: to us if the daemon's route stands, to the daemon otherwise.
    fn step(&mut self, s: &Speaker) {
        self.book.read(s);
        let mac = test_mac(1 + self.rng.below(u64::from(MACS)) as u16);
        let k = self.book.macs.get(&mac).copied().unwrap_or_default();
        match k.told.filter(|_| k.theirs && k.ours.is_none()) {
            Some(seq) => self.claim(s, mac, seq + 1),
            None => self.rarp(mac),
        }
    }

    /// At the start of a session, before anything moves: what was the daemon's own and uncontested goes on with
    /// exactly the sequence that it had (EVPN-MOB-05).
    fn expect_continued(&mut self, s: &Speaker, before: &BTreeMap<Mac, Known>) {
        // A daemon that has restarted ends its own tale when its peers have ended theirs (BGP-GR-07).
        s.end_of_rib();
        eventually(SOON, "vtepd has told what it has", || {
            s.heard_end_of_rib().then_some(()).ok_or("no End-of-RIB")
        });
        self.book.read(s);
        for (mac, was) in before.iter().filter(|(_, k)| k.theirs && k.ours.is_none()) {
            let now = self.book.macs[mac];
            assert!(!now.theirs || now.told == was.told, "{mac} was {was:?}, is {now:?}");
        }
    }
}

/// CRC-32 as in IEEE 802.3, bit by bit.
fn crc32(octets: &[u8]) -> u32 {
    !octets.iter().fold(u32::MAX, |sum, o| {
        (0..8).fold(sum ^ u32::from(*o), |s, _| if s & 1 == 1 { s >> 1 ^ 0xedb8_8320 } else { s >> 1 })
    })
}

/// Makes a journal look as if another kernel had been running when it was written: boot slots (kind 2) get another id.
fn after_a_crash_of_the_machine(journal: &Path) {
    let mut octets = std::fs::read(journal).expect("a journal");
    let mut changed = 0;
    for slot in octets.chunks_exact_mut(40).skip(1).filter(|s| s[0] == 2) {
        slot[1..17].fill(0xee);
        let sum = crc32(&slot[..36]);
        slot[36..].copy_from_slice(&sum.to_be_bytes());
        changed += 1;
    }
    assert!(changed > 0, "no boot is noted");
    std::fs::write(journal, octets).expect("writable");
}

/// Decision 0008: killed under one kernel and started under another, the daemon raises what it tells by 16; stopped in
/// good order it does not.
#[test]
fn after_a_crash_of_the_machine_the_sequence_is_raised_and_after_a_stop_it_is_not() {
    if !met(&[Need::Root]) {
        return;
    }
    let f = Fabric::new(2);
    let [a, b] = [&f.vteps[0], &f.vteps[1]];
    let conf = f.conf(0);
    let door = Door::open(&b.ns, b.address, 65000);
    let at = Attributes::new(b.address, 100);
    let (mac, port) = (test_mac(1), f.guest_port(0, "p1"));
    let told = |s: &Speaker| {
        let heard = s.heard();
        let seqs = heard.iter().flat_map(|(_, _, m)| heard::macs(m)).filter(|h| h.mac == mac);
        seqs.filter_map(|h| h.seq).next_back()
    };
    let mut d = Vtepd::start(&a.ns, &conf);
    let s = door.accept(SOON).expect("a session");
    s.announce(&at.seq(6), &[mac_ip(100, mac, None)]);
    s.end_of_rib();
    d.converge();
    port.send(&frame::rarp(mac));
    eventually(SOON, "claimed", || (told(&s) == Some(7)).then_some(()).ok_or(told(&s)));
    drop(s);
    let journal = d.state_dir().join("sequences.journal");
    for (killed, expected) in [(true, 23), (false, 23), (true, 39)] {
        let dir = if killed { d.kill() } else { d.stop() };
        after_a_crash_of_the_machine(&journal);
        d = Vtepd::start_again(&a.ns, &conf, dir);
        let s = door.accept(SOON).expect("a session");
        s.end_of_rib();
        eventually(SOON, "told again", || (told(&s) == Some(expected)).then_some(()).ok_or(told(&s)));
        assert_eq!(d.process.log().contains("every one is raised"), killed, "{}", d.process.log());
    }
}

/// Scenario 34 with a death more: the VM is shut down at one vtepd, FRR still remembers its sequence, the other vtepd is
/// killed and started, and then the VM boots there. Its sequence is above what anybody remembers (EVPN-MOB-12).
#[test]
fn a_cold_move_beats_an_frr_that_remembers_although_the_daemon_was_killed() {
    if !met(&[Need::Root, Need::Frr]) {
        return;
    }
    let alone = "[mobility]\nmove-ips-with-mac = false";
    let mut m = Mixed::two_and_frr(|c| c.sections = alone.into());
    let g = Guest::new(34);
    m.guest(1).send(&g.garp());
    eventually(LATER, "known with its address", || m.answers(0, &g));
    m.moves(&g, 0);
    m.moves(&g, 1);
    m.moves(&g, 0);
    eventually(SOON, "FRR has the sequence", || m.frr_says(1, &g, "remote", 3));
    m.shut_down(0);
    eventually(SOON, "FRR remembers it nevertheless", || {
        let row = m.frr(1).mac(100, &g.mac.to_string());
        if row["type"] == "auto" && row["localSequence"] == 2 { Ok(()) } else { Err(row) }
    });
    let mut conf = m.fabric.conf(2);
    conf.sections = alone.into();
    m.kill_and_start_vtepd(2, &conf);
    m.vtepd(2).converge();
    eventually(SOON, "nobody sends it anywhere", || m.vtep(1).sends_to(100, g.mac, &Place::Nowhere));
    m.guest(2).send(&g.garp());
    for i in [0, 1] {
        eventually(SOON, "all send to the new place", || m.sends_home(i, 2, &g));
        eventually(SOON, "and answer for it", || m.answers(i, &g));
    }
    eventually(SOON, "the sequence is above the old one", || m.routes_are(2, None, &g, [true, true], 4));
    m.frr_says(1, &g, "remote", 4).unwrap();
}

/// A damaged journal would be a lost write; a torn last slot is a write that the kill cut short.
fn no_damage(d: &Vtepd) {
    let log = d.process.log();
    let bad = log.lines().find(|l| l.contains("state file damaged") && !l.contains("the file ends"));
    assert_eq!(bad, None);
    assert!(!log.contains("every one is raised"), "the kernel is the same: {log}");
}

fn corrupt_files(dir: &Path) -> usize {
    let all = std::fs::read_dir(dir).expect("a state directory");
    all.flatten().filter(|e| e.file_name().to_string_lossy().contains(".corrupt-")).count()
}

/// `kill -9` at random points; `VTEPD_KILLS` says how many. No sequence ever drops, and none is used for two moves.
#[test]
fn no_sequence_is_repeated_or_lost_when_the_daemon_is_killed_at_random_points_of_a_storm_of_moves() {
    if !met(&[Need::Root]) {
        return;
    }
    let kills: u64 = std::env::var("VTEPD_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(100);
    let f = Fabric::new(2);
    let [a, b] = [&f.vteps[0], &f.vteps[1]];
    a.add_port(&f.guests, "p2");
    let (p1, p2) = (f.guest_port(0, "p1"), f.guest_port(0, "p2"));
    let mut conf = f.conf(0);
    conf.vnis = vec![(100, vec!["p1".into(), "p2".into()])];
    conf.sections = "[mobility]\nduplicates = { mode = \"off\" }".into();
    let mut storm = Storm {
        door: Door::open(&b.ns, b.address, 65000),
        at: Attributes::new(b.address, 100),
        ports: [&p1, &p2],
        rng: Rng::new(1),
        book: Book::default(),
    };
    let begun = Instant::now();
    // The first start makes the devices.
    let mut dir = Vtepd::start(&a.ns, &conf).kill();
    let mut sessions = 0u64;
    for kill in 0..kills {
        storm.book.kill = kill;
        let d = Vtepd::launch(&a.ns, &conf, dir);
        if storm.rng.below(20) == 0 {
            // In the middle of its start.
            std::thread::sleep(Duration::from_micros(storm.rng.below(60_000)));
            no_damage(&d);
            dir = d.kill();
            continue;
        }
        let mut s = storm.door.accept(SOON).unwrap_or_else(|| panic!("no session:\n{}", d.process.log()));
        sessions += 1;
        storm.book.read = 0;
        let before = storm.book.macs.clone();
        storm.book.macs.values_mut().for_each(|k| k.theirs = false);
        if kill % 4 == 0 {
            storm.expect_continued(&s, &before);
        }
        storm.open(&s);
        let end = Instant::now() + Duration::from_micros(storm.rng.below(60_000));
        while Instant::now() < end {
            storm.step(&s);
            std::thread::sleep(Duration::from_micros(storm.rng.below(800)));
        }
        no_damage(&d);
        dir = d.kill();
        s.wait_for_end();
        storm.book.read(&s);
    }
    let spent = begun.elapsed();
    let moves: u32 = storm.book.macs.values().filter_map(|k| k.told).sum();
    println!(
        "{kills} kills, {sessions} sessions, {} announcements, {moves} moves in {spent:.1?}",
        storm.book.told
    );
    assert!(
        u64::from(moves) > kills && storm.book.told > 2 * kills,
        "the storm was a breeze: {:?}",
        storm.book
    );

    // It still works: every MAC can be had, above everything that was ever told.
    let d = Vtepd::start_again(&a.ns, &conf, dir);
    let s = storm.door.accept(SOON).expect("a session");
    storm.book.read = 0;
    storm.open(&s);
    let before = storm.book.macs.clone();
    for n in 1..=MACS {
        eventually(SOON, "the daemon's own", || {
            p1.send(&frame::rarp(test_mac(n)));
            storm.book.read(&s);
            let k = storm.book.macs.get(&test_mac(n)).copied().unwrap_or_default();
            (k.theirs && k.ours.is_none()).then_some(()).ok_or((k, before.get(&test_mac(n)).copied()))
        });
    }
    let counters = d.status()["counters"].clone();
    assert_eq!((&counters["state_failures"], &counters["state_records_not_kept"]), (&0.into(), &0.into()));
    println!("{} torn writes set aside, {counters}", corrupt_files(&d.state_dir()));
}
