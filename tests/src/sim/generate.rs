//! Plans from seeds.

use super::plan::{By, Fabric, Guest, Habit, Plan, Step, What};
use super::rng::Rng;

/// Steps begin when sessions are up.
const BEGIN: u64 = 1_500_000;

/// How plans are to be.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wish {
    /// Exactly so many nodes; drawn from the seed when absent: 3 to 5, and 20 to 50 for one seed in a hundred.
    pub nodes: Option<usize>,
}

struct Maker {
    rng: Rng,
    nodes: usize,
    /// Nodes and reflectors.
    hosts: usize,
    guests: usize,
    at: u64,
    steps: Vec<Step>,
}

/// The plan of a seed.
pub fn generate(seed: u64, wish: Wish) -> Plan {
    let mut rng = Rng::new(seed);
    let large = rng.percent(1);
    let nodes = match wish.nodes {
        Some(n) => n.clamp(2, 60),
        None if large => rng.range(20, 50) as usize,
        None => rng.range(3, 5) as usize,
    };
    let low = rng.pick(&[100, 500, 2_000, 10_000]);
    let high = low * rng.range(1, 6);
    let reflectors = if rng.percent(15) { rng.range(1, 2) as usize } else { 0 };
    let fabric = Fabric {
        seed,
        nodes,
        reflectors,
        delay: (low, high),
        hold: rng.pick(&[3, 9, 9, 30]),
        room: if rng.percent(15) { 6_000 } else { 0 },
        both: rng.percent(15),
        lag: rng.pick(&[0, 300, 3_000]),
        memory: rng.percent(50),
        // Drawn apart, so that the rest of a seed's plan is what it was.
        parts: Rng::new(!seed).percent(30),
        frr: [None; 2],
    };
    let guests: Vec<Guest> = (0..rng.range(1, 4))
        .map(|_| match rng.below(4) {
            0 => Guest { v4: true, v6: true, habit: Habit::Plain },
            1 => Guest { v4: false, v6: true, habit: Habit::Plain },
            _ => Guest { v4: true, v6: false, habit: Habit::Plain },
        })
        .collect();
    let mut m =
        Maker { rng, nodes, hosts: nodes + reflectors, guests: guests.len(), at: BEGIN, steps: Vec::new() };
    m.fill();
    m.steps.sort_by_key(|s| s.at);
    let mut plan = Plan { fabric, guests, steps: m.steps };
    super::frr::join(&mut plan);
    hosts(&mut plan);
    plan
}

/// Two seeds in three have guests with habits, and one that watches: it talks to the others, above all shortly before an
/// address changes its MAC. Drawn apart, so that the rest of a seed's plan is what it was.
fn hosts(plan: &mut Plan) {
    let mut rng = Rng::new(plan.fabric.seed ^ 0x5057_0000_0000);
    if !rng.percent(66) {
        return;
    }
    for g in &mut plan.guests {
        g.habit = rng.pick(&[Habit::Plain, Habit::Caches, Habit::Caches, Habit::Silent, Habit::Checks]);
    }
    let watcher = plan.guests.len();
    plan.guests.push(Guest { v4: true, v6: true, habit: Habit::Caches });
    let node = rng.below(plan.fabric.nodes as u64) as usize;
    let mut talks = vec![Step { at: BEGIN, what: What::Start { guest: watcher, node, by: By::Garp } }];
    let end = plan.steps.last().map_or(BEGIN, |s| s.at);
    let talk = |at: u64, guest: usize, other: usize| Step { at, what: What::Talk { guest, other } };
    for _ in 0..rng.range(2, 6) {
        let at = rng.range(BEGIN, end + 3_000_000);
        let (a, b) = (rng.below(watcher as u64) as usize, rng.below(watcher as u64 + 1) as usize);
        talks.push(if rng.percent(60) { talk(at, watcher, a) } else { talk(at, a, b) });
    }
    for s in &plan.steps {
        let (What::Remac { guest, .. } | What::TakeIp { from: guest, .. }) = s.what else { continue };
        talks.push(talk(s.at.saturating_sub(rng.range(1_000, 300_000)).max(BEGIN), watcher, guest));
    }
    plan.steps.extend(talks);
    plan.steps.sort_by_key(|s| s.at);
}

/// So many hot moves of four guests among three nodes, one every 200 ms: no guest is back at a place within the guard
/// time after it has left it, which would be what a duplicate does.
pub fn long(moves: usize) -> Plan {
    let fabric = Fabric {
        seed: 1,
        nodes: 3,
        reflectors: 0,
        delay: (200, 1_000),
        hold: 90,
        room: 0,
        both: false,
        lag: 0,
        memory: true,
        parts: false,
        frr: [None; 2],
    };
    let guests = vec![Guest { v4: true, v6: true, habit: Habit::Plain }; 4];
    let mut steps: Vec<Step> =
        (0..4).map(|g| Step { at: BEGIN, what: What::Start { guest: g, node: 0, by: By::Garp } }).collect();
    for n in 0..moves {
        let (guest, node) = (n % 4, (n / 4 + 1) % 3);
        let what = What::Hot { guest, node, by: By::Rarp, late: 0, over: 0, unplug: false };
        steps.push(Step { at: BEGIN + 100_000 + n as u64 * 200_000, what });
    }
    Plan { fabric, guests, steps }
}

impl Maker {
    fn step(&mut self, what: What) {
        self.steps.push(Step { at: self.at, what });
    }

    fn node(&mut self) -> usize {
        self.rng.below(self.nodes as u64) as usize
    }

    fn host(&mut self) -> usize {
        self.rng.below(self.hosts as u64) as usize
    }

    fn guest(&mut self) -> usize {
        self.rng.below(self.guests as u64) as usize
    }

    fn by(&mut self) -> By {
        self.rng.pick(&[By::Rarp, By::Qemu, By::Garp, By::Garp, By::Data, By::Ask])
    }

    fn fill(&mut self) {
        for guest in 0..self.guests {
            let (node, by) = (self.node(), self.rng.pick(&[By::Garp, By::Garp, By::Rarp, By::Ask]));
            self.step(What::Start { guest, node, by });
            self.at += self.rng.below(20_000);
        }
        // Some runs are quiet but for the moves, so that the strict bounds apply to them.
        let faults = self.rng.pick(&[0, 20, 50]);
        for _ in 0..self.rng.range(2, 8) {
            self.at += self.pause();
            if self.rng.percent(faults) {
                self.fault();
            } else {
                self.act();
            }
        }
    }

    fn pause(&mut self) -> u64 {
        match self.rng.below(4) {
            0 => self.rng.below(3_000),
            1 => self.rng.below(60_000),
            2 => self.rng.below(500_000),
            _ => self.rng.range(500_000, 2_000_000),
        }
    }

    fn act(&mut self) {
        let (guest, node, by) = (self.guest(), self.node(), self.by());
        let unplug = self.rng.percent(60);
        let gap = self.rng.pick(&[1_000, 50_000, 400_000, 1_500_000]);
        let what = match self.rng.below(24) {
            20..=22 => {
                let (lead, quiet) =
                    (self.rng.pick(&[0, 5_000, 300_000]), self.rng.pick(&[0, 20_000, 400_000]));
                let (late, release) = (self.rng.pick(&[0, 0, 2]), self.rng.percent(60));
                What::Prepared { guest, node, by, lead, quiet, late, release, unplug }
            }
            23 => What::CalledOff { guest, node, lead: 50_000, active: self.rng.percent(40) },
            0..=8 => {
                let late = self.rng.pick(&[0, 0, 1, 3, 8]);
                let over = self.rng.pick(&[2_000, 30_000, 300_000]);
                What::Hot { guest, node, by, late, over, unplug }
            }
            9..=11 => What::Cold { guest, node, by, gap, unplug },
            12 => What::Remac { guest, node, by, gap, unplug },
            13 => What::NewIp { guest },
            14 => What::TakeIp { guest, from: self.guest() },
            15 => What::Port { guest, by },
            16 => What::Say { guest, by },
            17 => What::Ask { guest, other: self.guest() },
            18 => What::Stop { guest, unplug },
            _ => {
                let time = self.rng.pick(&[300_000, 1_200_000, 3_000_000]);
                What::Split { guest, node, time, first: self.rng.percent(50) }
            }
        };
        self.step(what);
    }

    fn fault(&mut self) {
        let node = self.node();
        let time = self.rng.pick(&[5_000, 100_000, 1_000_000, 4_000_000, 11_000_000]);
        let what = match self.rng.below(16) {
            0 | 1 => What::Reset { a: node, b: self.host() },
            2..=4 => What::Cut { a: node, b: self.host(), time },
            5 => What::Wan { node: self.rng.range(1, self.nodes as u64 - 1) as usize, time },
            6..=8 => What::Kill { node: self.host(), time: time.min(4_000_000) },
            9 => {
                let queue = self.rng.below(3);
                What::Overrun { node, time: time.min(1_000_000), queue }
            }
            10 => What::Fail { node, count: self.rng.range(1, 4) },
            11 => What::Broken { node, time: time.min(3_000_000), neigh: self.rng.percent(50) },
            12 => What::Slow { node, time, lag: self.rng.pick(&[2_000, 15_000, 60_000]) },
            13 => What::Wipe { node, n: self.rng.below(3) },
            14 => {
                if self.rng.percent(50) {
                    What::Foreign { node }
                } else {
                    What::Flush { node }
                }
            }
            _ => What::Short { node, time: time.min(1_000_000), one_in: self.rng.range(2, 5) },
        };
        self.step(what);
    }
}
