//! What happens in one run, as values and as text.
//!
//! A plan is all there is to a run: with the same plan the same events happen at the same virtual nanosecond. As
//! text it is one line for the fabric, one per guest and one per step, so that a person can read, cut and repeat
//! it:
//!
//! ```text
//! fabric seed=7 nodes=3 delay=2000..9000 hold=9 room=0 both=0 lag=300 memory=1
//! guest ips=46 habit=checks
//! at 2000000 start guest=0 node=1 by=qemu
//! at 3500000 hot guest=0 node=2 by=rarp late=3 over=40000 unplug=0
//! ```
//!
//! Times are microseconds.

use std::collections::BTreeMap;
use std::fmt;
use std::fmt::Write as _;
use std::str::FromStr;

/// A whole run.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Plan {
    /// The fabric.
    pub fabric: Fabric,
    /// Guests by number.
    pub guests: Vec<Guest>,
    /// Steps in order of time.
    pub steps: Vec<Step>,
}

/// Nodes and what lies between them.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Fabric {
    /// Seed of delays and jitter.
    pub seed: u64,
    /// VTEPs that run `evpn::node::Node`.
    pub nodes: usize,
    /// Route reflectors, numbered after the nodes, that all nodes peer with; 0: they peer with each other.
    pub reflectors: usize,
    /// Shortest and longest one-way delay between two VTEPs.
    pub delay: (u64, u64),
    /// BGP hold time in seconds.
    pub hold: u64,
    /// Octets that a connection takes before its octets have arrived; 0: it never fills up.
    pub room: u64,
    /// Both ends of a session dial.
    pub both: bool,
    /// Longest lag between a frame and its being seen by tap and kernel monitor.
    pub lag: u64,
    /// Daemons have a state directory.
    pub memory: bool,
    /// Tables are read in two parts, up to 20 ms apart, and rows that go in between hide others (PIT-13).
    pub parts: bool,
    /// VTEPs that behave as FRR does, hosts 64 and 65.
    pub frr: [Option<Frr>; 2],
}

/// A VTEP that behaves as FRR does. As text its release, `~` and the ageing time, `-` without `arp_accept`:
/// `frr=8.4,10~20-`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Frr {
    /// As 8.4: it remembers sequences after withdrawals and refuses lower ones.
    pub remembers: bool,
    /// `arp_accept` is set on its bridge.
    pub accepts: bool,
    /// Ageing time of its bridge in seconds; 0: 300.
    pub ages: u32,
}

impl fmt::Display for Frr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.remembers { "8.4" } else { "10" })?;
        if self.ages > 0 {
            write!(f, "~{}", self.ages)?;
        }
        f.write_str(if self.accepts { "" } else { "-" })
    }
}

impl FromStr for Frr {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        let (rest, accepts) = s.strip_suffix('-').map_or((s, true), |r| (r, false));
        let (release, ages) = rest.split_once('~').unwrap_or((rest, "0"));
        let ages = ages.parse().map_err(|_| format!("frr={s}: `{ages}` is no number of seconds"))?;
        match release {
            "8.4" => Ok(Self { remembers: true, accepts, ages }),
            "10" => Ok(Self { remembers: false, accepts, ages }),
            _ => Err(format!("frr={s} is neither 8.4 nor 10")),
        }
    }
}

/// A VM.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Guest {
    /// It has an IPv4 address.
    pub v4: bool,
    /// It has an IPv6 address.
    pub v6: bool,
    /// What it does by itself.
    pub habit: Habit,
}

/// What a guest does beyond what the plan says; `stack` explains each.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Habit {
    /// Nothing.
    #[default]
    Plain,
    /// It takes a moment to hear again after a migration.
    Caches,
    /// It names its address only when it is asked.
    Silent,
    /// It checks its addresses before it uses them.
    Checks,
}

impl Habit {
    const ALL: [(Self, &'static str); 4] = [
        (Self::Plain, "plain"),
        (Self::Caches, "caches"),
        (Self::Silent, "silent"),
        (Self::Checks, "checks"),
    ];

    fn word(self) -> &'static str {
        Self::ALL.iter().find(|(h, _)| *h == self).map_or("", |(_, w)| w)
    }

    fn of(word: Option<&&str>) -> Result<Self, String> {
        let Some(word) = word else { return Ok(Self::Plain) };
        let found = Self::ALL.iter().find(|(_, w)| w == word).map(|(h, _)| *h);
        found.ok_or_else(|| format!("habit={word} is unknown"))
    }
}

/// Something that happens.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Step {
    /// When.
    pub at: u64,
    /// What.
    pub what: What,
}

/// How a guest makes itself heard.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum By {
    /// One RARP.
    Rarp,
    /// Five RARPs within 700 ms, as QEMU does it.
    Qemu,
    /// Gratuitous ARP and unsolicited NA for every address.
    Garp,
    /// One frame that is neither ARP nor ND.
    Data,
    /// An ARP request for somebody else.
    Ask,
}

/// What a step does. Guests and nodes by number, times in microseconds.
#[expect(
    missing_docs,
    reason = "the names of the fields are the words of the text, and each variant says what it does"
)]
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum What {
    /// A guest begins to run.
    Start { guest: usize, node: usize, by: By },
    /// Hot (RARP, gratuitous ARP) or warm (data) move. The source sends `late` more frames within `over`; then
    /// its port loses carrier if `unplug`.
    Hot { guest: usize, node: usize, by: By, late: u64, over: u64, unplug: bool },
    /// Stops, and starts elsewhere after `gap`.
    Cold { guest: usize, node: usize, by: By, gap: u64, unplug: bool },
    /// As cold, with another MAC.
    Remac { guest: usize, node: usize, by: By, gap: u64, unplug: bool },
    /// Prepared, and after `lead` activated at the target, where the guest says nothing for `quiet`; released at the
    /// source if `release`, which sends `late` more frames.
    Prepared {
        guest: usize,
        node: usize,
        by: By,
        lead: u64,
        quiet: u64,
        late: u64,
        release: bool,
        unplug: bool,
    },
    /// Prepared, and after `lead` aborted; if `active`, it was activated just before.
    CalledOff { guest: usize, node: usize, lead: u64, active: bool },
    /// Another IPv4 address.
    NewIp { guest: usize },
    /// Takes the IPv4 address of `from`, who gets a new one a little before.
    TakeIp { guest: usize, from: usize },
    /// To another port of the same VTEP.
    Port { guest: usize, by: By },
    /// Says something.
    Say { guest: usize, by: By },
    /// Asks for the address of another.
    Ask { guest: usize, other: usize },
    /// Sends something to another, and asks for its address first if it does not know it.
    Talk { guest: usize, other: usize },
    /// Stops for good.
    Stop { guest: usize, unplug: bool },
    /// A second copy runs at `node` for `time`, both talk every 300 ms; then one stops: the first if `first`.
    Split { guest: usize, node: usize, time: u64, first: bool },
    /// TCP reset of the session between two.
    Reset { a: usize, b: usize },
    /// Nothing passes between two for `time`.
    Cut { a: usize, b: usize, time: u64 },
    /// Nothing passes between nodes below `node` and the rest for `time`: the WAN is cut.
    Wan { node: usize, time: u64 },
    /// The daemon, or the reflector, is killed and started after `time`.
    Kill { node: usize, time: u64 },
    /// For `time` only `queue` notifications fit.
    Overrun { node: usize, time: u64, queue: u64 },
    /// The next `count` kernel writes fail.
    Fail { node: usize, count: u64 },
    /// For `time` every write to the bridge's neighbours (`neigh`) or to the VXLAN device fails.
    Broken { node: usize, time: u64, neigh: bool },
    /// For `time` batches of rows take up to `lag` to be written.
    Slow { node: usize, time: u64, lag: u64 },
    /// Somebody adds rows that are not ours.
    Foreign { node: usize },
    /// Somebody deletes rows of ours: the `n`th and every third after it.
    Wipe { node: usize, n: u64 },
    /// The bridge loses its neighbour rows as when its MAC changes (PIT-01).
    Flush { node: usize },
    /// Dumps leave out one row in `one_in` for `time`, and the first is now.
    Short { node: usize, time: u64, one_in: u64 },
}

impl By {
    const ALL: [(Self, &'static str); 5] = [
        (Self::Rarp, "rarp"),
        (Self::Qemu, "qemu"),
        (Self::Garp, "garp"),
        (Self::Data, "data"),
        (Self::Ask, "ask"),
    ];

    fn word(self) -> &'static str {
        Self::ALL.iter().find(|(b, _)| *b == self).map_or("", |(_, w)| w)
    }
}

/// What is wrong with a plan's text.
#[derive(Debug, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct BadPlan {
    line: usize,
    what: String,
}

/// `key=value` words of a line.
struct Words<'a>(BTreeMap<&'a str, &'a str>);

impl<'a> Words<'a> {
    fn of(words: impl Iterator<Item = &'a str>) -> Result<Self, String> {
        let pair = |w: &'a str| w.split_once('=').ok_or_else(|| format!("`{w}` is not key=value"));
        Ok(Self(words.map(pair).collect::<Result<_, _>>()?))
    }
    fn num<T: TryFrom<u64>>(&self, key: &str) -> Result<T, String> {
        let v = self.0.get(key).ok_or_else(|| format!("{key}= is missing"))?;
        let n: u64 = v.parse().map_err(|_| format!("{key}={v} is no number"))?;
        T::try_from(n).map_err(|_| format!("{key}={v} is too large"))
    }
    fn opt(&self, key: &str) -> Result<u64, String> {
        if self.0.contains_key(key) { self.num(key) } else { Ok(0) }
    }
    fn flag(&self, key: &str) -> Result<bool, String> {
        Ok(self.num::<u64>(key)? != 0)
    }
    fn by(&self) -> Result<By, String> {
        let v = self.0.get("by").ok_or("by= is missing")?;
        By::ALL.iter().find(|(_, w)| w == v).map(|(b, _)| *b).ok_or_else(|| format!("by={v} is unknown"))
    }
}

impl What {
    /// The verb and its numbers.
    fn text(&self) -> String {
        let n = u8::from;
        match *self {
            Self::Start { guest, node, by } => format!("start guest={guest} node={node} by={}", by.word()),
            Self::Hot { guest, node, by, late, over, unplug } => format!(
                "hot guest={guest} node={node} by={} late={late} over={over} unplug={}",
                by.word(),
                n(unplug)
            ),
            Self::Cold { guest, node, by, gap, unplug } => {
                format!("cold guest={guest} node={node} by={} gap={gap} unplug={}", by.word(), n(unplug))
            }
            Self::Remac { guest, node, by, gap, unplug } => {
                format!("remac guest={guest} node={node} by={} gap={gap} unplug={}", by.word(), n(unplug))
            }
            Self::Prepared { guest, node, by, lead, quiet, late, release, unplug } => format!(
                "prepared guest={guest} node={node} by={} lead={lead} quiet={quiet} late={late} release={} unplug={}",
                by.word(),
                n(release),
                n(unplug)
            ),
            Self::CalledOff { guest, node, lead, active } => {
                format!("calledoff guest={guest} node={node} lead={lead} active={}", n(active))
            }
            Self::NewIp { guest } => format!("newip guest={guest}"),
            Self::TakeIp { guest, from } => format!("takeip guest={guest} from={from}"),
            Self::Port { guest, by } => format!("port guest={guest} by={}", by.word()),
            Self::Say { guest, by } => format!("say guest={guest} by={}", by.word()),
            Self::Ask { guest, other } => format!("ask guest={guest} other={other}"),
            Self::Talk { guest, other } => format!("talk guest={guest} other={other}"),
            Self::Stop { guest, unplug } => format!("stop guest={guest} unplug={}", n(unplug)),
            Self::Split { guest, node, time, first } => {
                format!("split guest={guest} node={node} time={time} first={}", n(first))
            }
            Self::Reset { a, b } => format!("reset a={a} b={b}"),
            Self::Cut { a, b, time } => format!("cut a={a} b={b} time={time}"),
            Self::Wan { node, time } => format!("wan node={node} time={time}"),
            Self::Kill { node, time } => format!("kill node={node} time={time}"),
            Self::Overrun { node, time, queue } => format!("overrun node={node} time={time} queue={queue}"),
            Self::Fail { node, count } => format!("fail node={node} count={count}"),
            Self::Broken { node, time, neigh } => {
                format!("broken node={node} time={time} neigh={}", n(neigh))
            }
            Self::Slow { node, time, lag } => format!("slow node={node} time={time} lag={lag}"),
            Self::Foreign { node } => format!("foreign node={node}"),
            Self::Wipe { node, n } => format!("wipe node={node} n={n}"),
            Self::Flush { node } => format!("flush node={node}"),
            Self::Short { node, time, one_in } => format!("short node={node} time={time} one_in={one_in}"),
        }
    }

    fn parse(verb: &str, w: &Words<'_>) -> Result<Self, String> {
        let guest = || w.num("guest");
        let node = || w.num("node");
        let time = || w.num("time");
        Ok(match verb {
            "start" => Self::Start { guest: guest()?, node: node()?, by: w.by()? },
            "hot" => Self::Hot {
                guest: guest()?,
                node: node()?,
                by: w.by()?,
                late: w.num("late")?,
                over: w.num("over")?,
                unplug: w.flag("unplug")?,
            },
            "cold" | "remac" => {
                let (guest, node, by) = (guest()?, node()?, w.by()?);
                let (gap, unplug) = (w.num("gap")?, w.flag("unplug")?);
                if verb == "cold" {
                    Self::Cold { guest, node, by, gap, unplug }
                } else {
                    Self::Remac { guest, node, by, gap, unplug }
                }
            }
            "prepared" => Self::Prepared {
                guest: guest()?,
                node: node()?,
                by: w.by()?,
                lead: w.num("lead")?,
                quiet: w.num("quiet")?,
                late: w.num("late")?,
                release: w.flag("release")?,
                unplug: w.flag("unplug")?,
            },
            "calledoff" => Self::CalledOff {
                guest: guest()?,
                node: node()?,
                lead: w.num("lead")?,
                active: w.flag("active")?,
            },
            "newip" => Self::NewIp { guest: guest()? },
            "takeip" => Self::TakeIp { guest: guest()?, from: w.num("from")? },
            "port" => Self::Port { guest: guest()?, by: w.by()? },
            "say" => Self::Say { guest: guest()?, by: w.by()? },
            "ask" => Self::Ask { guest: guest()?, other: w.num("other")? },
            "talk" => Self::Talk { guest: guest()?, other: w.num("other")? },
            "stop" => Self::Stop { guest: guest()?, unplug: w.flag("unplug")? },
            "split" => Self::Split { guest: guest()?, node: node()?, time: time()?, first: w.flag("first")? },
            "reset" => Self::Reset { a: w.num("a")?, b: w.num("b")? },
            "cut" => Self::Cut { a: w.num("a")?, b: w.num("b")?, time: time()? },
            "wan" => Self::Wan { node: node()?, time: time()? },
            "kill" => Self::Kill { node: node()?, time: time()? },
            "overrun" => Self::Overrun { node: node()?, time: time()?, queue: w.num("queue")? },
            "fail" => Self::Fail { node: node()?, count: w.num("count")? },
            "broken" => Self::Broken { node: node()?, time: time()?, neigh: w.flag("neigh")? },
            "slow" => Self::Slow { node: node()?, time: time()?, lag: w.num("lag")? },
            "foreign" => Self::Foreign { node: node()? },
            "wipe" => Self::Wipe { node: node()?, n: w.num("n")? },
            "flush" => Self::Flush { node: node()? },
            "short" => Self::Short { node: node()?, time: time()?, one_in: w.num("one_in")? },
            _ => return Err(format!("`{verb}` is no step")),
        })
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Fabric { seed, nodes, reflectors, delay, hold, room, both, lag, memory, parts, frr } =
            self.fabric;
        write!(
            f,
            "fabric seed={seed} nodes={nodes} reflectors={reflectors} delay={}..{} hold={hold} \
             room={room} both={} lag={lag} memory={}",
            delay.0,
            delay.1,
            u8::from(both),
            u8::from(memory)
        )?;
        f.write_str(if parts { " parts=1" } else { "" })?;
        for (n, peer) in frr.into_iter().flatten().enumerate() {
            write!(f, "{}{peer}", if n == 0 { " frr=" } else { "," })?;
        }
        writeln!(f)?;
        for g in &self.guests {
            let mut ips = String::new();
            if g.v4 {
                ips.push('4');
            }
            if g.v6 {
                ips.push('6');
            }
            write!(f, "guest ips={ips}")?;
            match g.habit {
                Habit::Plain => writeln!(f)?,
                habit => writeln!(f, " habit={}", habit.word())?,
            }
        }
        let mut out = String::new();
        for s in &self.steps {
            writeln!(out, "at {} {}", s.at, s.what.text())?;
        }
        f.write_str(&out)
    }
}

impl FromStr for Plan {
    type Err = BadPlan;

    fn from_str(s: &str) -> Result<Self, BadPlan> {
        let mut fabric = None;
        let (mut guests, mut steps) = (Vec::new(), Vec::new());
        for (n, l) in s.lines().enumerate() {
            let l = l.split('#').next().unwrap_or("").trim();
            let bad = |what: String| BadPlan { line: n + 1, what };
            let mut words = l.split_whitespace();
            match words.next() {
                None => {}
                Some("fabric") => {
                    fabric = Some(Words::of(words).and_then(|w| parse_fabric(&w)).map_err(bad)?);
                }
                Some("guest") => {
                    let w = Words::of(words).map_err(bad)?;
                    let ips = w.0.get("ips").copied().unwrap_or("");
                    let habit = Habit::of(w.0.get("habit")).map_err(bad)?;
                    guests.push(Guest { v4: ips.contains('4'), v6: ips.contains('6'), habit });
                }
                Some("at") => {
                    let at = words.next().and_then(|t| t.parse().ok());
                    let at = at.ok_or_else(|| bad("`at` wants microseconds".into()))?;
                    let verb = words.next().ok_or_else(|| bad("what is to happen?".into()))?;
                    let what = Words::of(words).and_then(|w| What::parse(verb, &w)).map_err(bad)?;
                    steps.push(Step { at, what });
                }
                Some(other) => return Err(bad(format!("`{other}` begins no line"))),
            }
        }
        let fabric = fabric.ok_or(BadPlan { line: 1, what: "no line `fabric …`".into() })?;
        Ok(Self { fabric, guests, steps })
    }
}

fn parse_fabric(w: &Words<'_>) -> Result<Fabric, String> {
    let delay = w.0.get("delay").copied().unwrap_or("1000..1000");
    let delay = delay
        .split_once("..")
        .and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)))
        .ok_or_else(|| format!("delay={delay} is not low..high"))?;
    let mut frr = [None; 2];
    for (n, text) in w.0.get("frr").into_iter().flat_map(|t| t.split(',')).enumerate() {
        *frr.get_mut(n).ok_or("frr= has more than two")? = Some(text.parse()?);
    }
    Ok(Fabric {
        seed: w.num("seed")?,
        nodes: w.num("nodes")?,
        reflectors: w.opt("reflectors")? as usize,
        delay,
        hold: w.num("hold")?,
        room: w.opt("room")?,
        both: w.opt("both")? != 0,
        lag: w.opt("lag")?,
        memory: w.opt("memory")? != 0,
        parts: w.opt("parts")? != 0,
        frr,
    })
}
