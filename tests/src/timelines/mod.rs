//! What `cargo xtask timelines` runs: one move of each kind between real daemons, and a picture of its records.

mod svg;

pub use svg::{Picture, draw};

use crate::fabric::{Fabric, Guest, Place, test_mac};
use crate::frame;
use crate::packet::Wire;
use crate::poll::{LATER, SOON, eventually};
use crate::vtepd::Vtepd;
use evpn::node::view::{MoveKind, MoveView};
use evpn::types::{Mac, Time};
use rustix::time::{ClockId, clock_gettime};
use std::time::{Duration, Instant};

/// Longer than a VTEP calls a MAC silent (60 s).
const SILENCE: Duration = Duration::from_secs(62);
/// Between two announcements of a split brain: longer than the guard time, within which a duplicate changes sides
/// once only.
const TURN: Duration = Duration::from_millis(1_200);
/// From an activation to the guest's first frame, as QEMU's RESUME to its first RARP.
const WAKING: Duration = Duration::from_millis(3);

/// Something that happened outside the daemons.
#[derive(Clone, Debug)]
pub struct Mark {
    /// Index of the VTEP.
    pub lane: usize,
    /// Boot clock.
    pub at: Time,
    /// What.
    pub text: String,
}

/// Records of one move at all VTEPs, with what caused it.
#[derive(Clone, Debug)]
pub struct Story {
    /// Name of the file, without its suffix.
    pub name: &'static str,
    /// First line of the picture.
    pub title: &'static str,
    /// Index of the VTEP, and one of its records.
    pub records: Vec<(usize, MoveView)>,
    /// Outside events.
    pub marks: Vec<Mark>,
}

/// Nanoseconds of the boot clock, which the records use; packets are stamped by the monotonic one.
fn boot(monotonic: u64) -> Time {
    let ns = |c| {
        let t = clock_gettime(c);
        t.tv_sec as u64 * 1_000_000_000 + t.tv_nsec as u64
    };
    let (before, boot, after) = (ns(ClockId::Monotonic), ns(ClockId::Boottime), ns(ClockId::Monotonic));
    Time(monotonic + boot.saturating_sub(before.midpoint(after)))
}

struct Stage {
    fabric: Fabric,
    daemons: Vec<Vtepd>,
    ports: Vec<Wire>,
}

impl Stage {
    fn new() -> Self {
        let fabric = Fabric::new(3);
        let daemons: Vec<Vtepd> = (0..3).map(|i| fabric.start_vtepd(i)).collect();
        daemons.iter().for_each(Vtepd::converge);
        let ports = (0..3).map(|i| fabric.guest_port(i, "p1")).collect();
        Self { fabric, daemons, ports }
    }

    fn send(&self, lane: usize, bytes: &[u8], text: &str) -> Mark {
        let at = boot(self.ports[lane].send(bytes));
        Mark { lane, at, text: text.into() }
    }

    fn follow(&self, mac: Mac, home: usize) {
        for (i, v) in self.fabric.vteps.iter().enumerate() {
            let want = if i == home { Place::port("p1") } else { Place::vtep(&self.fabric.vteps[home]) };
            eventually(LATER, "all kernels follow", || v.sends_to(100, mac, &want));
        }
    }

    fn answer(&self, g: &Guest, home: usize) {
        for (_, v) in self.fabric.vteps.iter().enumerate().filter(|(i, _)| *i != home) {
            let mac = g.mac.to_string();
            eventually(LATER, "all kernels answer", || {
                let row = v.neigh_row(100, g.ip.into());
                if row["lladdr"] == mac.as_str() { Ok(()) } else { Err(row) }
            });
        }
    }

    /// The guest is known at the first VTEP, and everywhere.
    fn settle(&self, g: &Guest, home: usize) {
        self.ports[home].send(&g.garp());
        self.follow(g.mac, home);
        self.answer(g, home);
    }

    fn forgotten(&self, mac: Mac) {
        for v in &self.fabric.vteps {
            eventually(LATER, "the MAC is gone", || match v.place(100, mac) {
                Place::Nowhere => Ok(()),
                other => Err(other),
            });
        }
    }

    fn shut_down(&self, home: usize, mac: Mac) {
        let ns = &self.fabric.vteps[home].ns;
        ns.sh("ip link set p1 down");
        self.forgotten(mac);
        ns.sh("ip link set p1 up");
    }

    /// Records about a MAC since then, `n` at each VTEP, once they have all ended.
    fn records(&self, mac: Mac, since: Time, n: usize) -> Vec<(usize, MoveView)> {
        let mac = mac.to_string();
        let mut all = Vec::new();
        for (lane, d) in self.daemons.iter().enumerate() {
            eventually(SOON, "all records have ended", || {
                let rows = d.show("moves", &["--mac", &mac]);
                let views: Vec<MoveView> =
                    rows.into_iter().filter_map(|r| serde_json::from_value(r).ok()).collect();
                let found: Vec<_> = views.into_iter().filter(|m| m.seen >= since).collect();
                let ended = found.iter().all(|m| match &*m.role {
                    "arrived" => m.sent.is_some(),
                    "left" if matches!(m.kind, MoveKind::Hot | MoveKind::Warm) => {
                        m.sent.is_some() && m.acked.is_some()
                    }
                    _ => m.acked.is_some(),
                });
                if found.len() < n || !ended {
                    return Err(found);
                }
                all.extend(found.into_iter().map(|m| (lane, m)));
                Ok(())
            });
        }
        all
    }

    fn story(&self, name: &'static str, title: &'static str, mac: Mac, marks: Vec<Mark>, n: usize) -> Story {
        let since = marks.iter().map(|m| m.at).min_by_key(|t| t.0).unwrap_or_default();
        Story { name, title, records: self.records(mac, since, n), marks }
    }
}

/// Runs one move of each kind; needs root and takes a little more than a minute (a warm move needs silence).
/// `push` gets each as soon as it is there.
///
/// # Panics
/// When a move does not end.
pub fn run(mut push: impl FnMut(&Story)) {
    let s = Stage::new();
    // Those that take a port down come first: that flushes everybody behind it.
    let g = Guest::new(11);
    s.settle(&g, 0);
    s.shut_down(0, g.mac);
    let boots = s.send(1, &g.garp(), "gratuitous ARP");
    s.follow(g.mac, 1);
    push(&s.story(
        "move-cold",
        "Cold move: shut down at VTEP 1, started at VTEP 2 with its MAC",
        g.mac,
        vec![boots],
        1,
    ));

    let g = Guest::new(12);
    s.settle(&g, 0);
    s.shut_down(0, g.mac);
    let new = Guest { mac: test_mac(112), ip: g.ip };
    let boots = s.send(1, &new.garp(), "gratuitous ARP");
    s.answer(&new, 1);
    push(&s.story(
        "move-cold-new-mac",
        "Cold move: started at VTEP 2 with another MAC",
        new.mac,
        vec![boots],
        1,
    ));

    let warm = Guest::new(13);
    s.settle(&warm, 0);
    let paused = Instant::now();

    let g = Guest::new(14);
    s.settle(&g, 0);
    let mark = s.send(1, &g.rarp(), "RARP");
    s.follow(g.mac, 1);
    push(&s.story("move-hot", "Hot move: the hypervisor sends one RARP at VTEP 2", g.mac, vec![mark], 1));

    let g = Guest::new(15);
    s.settle(&g, 0);
    let mark = s.send(1, &frame::data(test_mac(99), g.mac, 1), "any frame");
    s.follow(g.mac, 1);
    push(&s.story(
        "move-hot-silent",
        "Hot move without an announcement: the guest sends one data frame",
        g.mac,
        vec![mark],
        1,
    ));

    push(&prepared(&s));

    let old = Guest::new(17);
    s.settle(&old, 0);
    let new = Guest { mac: test_mac(117), ip: old.ip };
    let mark = s.send(1, &new.garp(), "gratuitous ARP");
    s.answer(&new, 1);
    push(&s.story(
        "move-changed-mac",
        "An address goes to another MAC while the old one lives",
        new.mac,
        vec![mark],
        1,
    ));

    let g = Guest::new(18);
    s.settle(&g, 0);
    let mut marks = Vec::new();
    for lane in [1, 0, 1, 0] {
        marks.push(s.send(lane, &g.garp(), "gratuitous ARP"));
        s.follow(g.mac, lane);
        std::thread::sleep(TURN);
    }
    push(&s.story(
        "move-split-brain",
        "Split brain: both copies run, and each announces itself",
        g.mac,
        marks,
        4,
    ));

    std::thread::sleep(SILENCE.saturating_sub(paused.elapsed()));
    let mark = s.send(1, &warm.rarp(), "RARP");
    s.follow(warm.mac, 1);
    push(&s.story("move-warm", "Warm move: paused for a minute, resumed at VTEP 2", warm.mac, vec![mark], 1));
}

/// Prepared at the target, released at the source, activated before the guest has sent a frame.
fn prepared(s: &Stage) -> Story {
    let g = Guest::new(16);
    s.settle(&g, 0);
    let mac = g.mac.to_string();
    let step = |vtep: usize, words: &[&str]| {
        let (name, rest) = words.split_first().expect("a step");
        let args: Vec<&str> = [&["--mac", &mac, "--vni", "100"], rest].concat();
        s.daemons[vtep].step(name, &args).unwrap_or_else(|e| panic!("{words:?}: {e}"))
    };
    step(1, &["prepare", "--port", "p1"]);
    step(0, &["release"]);
    step(1, &["activate"]);
    s.follow(g.mac, 1);
    std::thread::sleep(WAKING);
    let frame = s.send(1, &g.rarp(), "the guest's first frame");
    // The command's own time is not known; the record has when the daemon was asked.
    let mut story = s.story(
        "move-prepared",
        "Prepared move: activated before the guest has sent a frame",
        g.mac,
        Vec::new(),
        1,
    );
    story.marks.push(frame);
    story
}
