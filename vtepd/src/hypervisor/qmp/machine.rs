//! One guest as its QMP socket shows it: lines and time go in, lines to send and steps for the core come out.
//!
//! What was measured with QEMU 7.2, and is relied on here:
//!
//! | | target | source |
//! |---|---|---|
//! | before | `query-status`: `inmigrate` → *prepare* | |
//! | begins | `MIGRATION active` | `MIGRATION setup`, `active` |
//! | switches | nothing | `STOP`, (`pre-switchover`, `device`), `completed`, 7–32 ms before: |
//! | done | `RESUME` → *activate*, `MIGRATION completed` | `query-status`: `postmigrate` → *release* |
//! | fails | `MIGRATION failed`, the socket closes → *abort* | `MIGRATION failed` or `cancelled`, `RESUME` if it was stopped → *take back* |
//!
//! `MIGRATION` comes only with the migration capability `events`; without it `query-status` is asked instead.
//! A paused target (libvirt starts it so) says `completed` first and `RESUME` when it is continued. `RESUME` at a
//! source after `completed` is a second copy of the guest, or a manager that gave the migration up: who has the MAC
//! decides. Link state and `NIC_RX_FILTER_CHANGED` trigger nothing (PIT-25, PIT-26).

mod phases;

use super::message::{Ask, Message, parse};
use crate::hypervisor::nics::{Backend, Nic};
use crate::hypervisor::step::{Note, Outcome, Step, Wish};
use evpn::node::Leave;
use evpn::types::{Mac, Span, Time};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// QEMU answers within milliseconds; after this time it hangs.
pub const ANSWER_LIMIT: Span = Span::secs(5);
/// A preparation is repeated this often as long as the guest is on its way, so that none runs out under a long
/// migration.
const REFRESH: Span = Span::secs(240);
/// How often a guest that is leaving is asked how far it is: with `MIGRATION` events, and without.
const LOOK: (Span, Span) = (Span::millis(500), Span::millis(50));
/// How often it is looked whether the other copy of a guest is gone.
const RECHECK: Span = Span::secs(2);
/// Between two `query-rx-filter`: the guest decides how often there is news.
const FILTER_PAUSE: Span = Span::secs(1);
/// A guest that ends so soon after its arrival may never have spoken: its activation is taken back. As long as
/// the core holds the row for a silent guest.
const FRESH: Span = Span::secs(3600);
/// Steps that wait until the NICs are known.
const MAX_OWED: usize = 8;

/// What is configured.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Options {
    /// When the guest counts as moved.
    pub activate_at: ActivateAt,
    /// Ports by NIC: by the name of its device or netdev in QEMU, or by its MAC.
    pub ports: BTreeMap<String, String>,
}

/// When the guest counts as moved (PIT-26).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum ActivateAt {
    /// When it runs at the target.
    #[default]
    Resume,
    /// When it has stopped at the source.
    Stop,
}

/// What the machine wants.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Out {
    /// Send this line.
    Send(Vec<u8>),
    /// Ask the core; answer with [`Machine::done`].
    Wish(Wish),
    /// Find the name of the tap behind this descriptor of QEMU's; answer with [`Machine::found_tap`].
    FindTap(u32),
    /// Tell people.
    Note(Note),
    /// Close the connection: the other side is at fault. [`Machine::closed`] must follow.
    HangUp(String),
}

/// Where the guest is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Phase {
    /// Not known yet.
    Unknown,
    /// On its way here.
    Arriving,
    /// It was on its way here, and the migration failed.
    Aborted,
    /// It runs here.
    Running,
    /// It is here and does not run.
    Paused,
    /// Stopped for the last part of its migration to elsewhere.
    Leaving,
    /// It runs elsewhere; what is here is what remains.
    Left,
    /// It runs here and elsewhere.
    SplitBrain,
}

impl Phase {
    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Arriving => "arriving",
            Self::Aborted => "aborted",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Leaving => "leaving",
            Self::Left => "left",
            Self::SplitBrain => "split-brain",
        }
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Link {
    Down,
    /// Waits for the greeting, until then.
    Greeting(Time),
    Up,
}

/// What is to happen to all NICs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Kind {
    Prepare,
    Activate,
    Abort,
    Release {
        at_stop: bool,
    },
    /// What arrives for it is held.
    Leave(Leave),
    TakeBack {
        left: bool,
        released: bool,
    },
    /// Once more for those that are elsewhere.
    Recheck,
}

/// See the module.
#[derive(Debug)]
pub struct Machine {
    options: Options,
    link: Link,
    phase: Phase,
    pid: Option<i32>,
    version: String,
    name: Option<String>,
    nics: Vec<Nic>,
    nics_known: bool,
    /// Descriptors whose taps are being looked for.
    finding: BTreeSet<u32>,
    owed: Vec<Kind>,
    /// How the last step of each NIC ended.
    states: BTreeMap<Mac, String>,
    /// A migration to elsewhere goes on.
    migrating: bool,
    released: bool,
    /// What arrives for it is held, without a release.
    held: bool,
    /// `None` as long as QEMU was not asked.
    events: Option<bool>,
    arrived: Option<Time>,
    /// MACs of the guest that another VTEP has while it runs here.
    elsewhere: BTreeSet<Mac>,
    queue: VecDeque<Ask>,
    waiting: Option<(u64, Ask, Time)>,
    next_id: u64,
    refresh_at: Option<Time>,
    look_at: Option<Time>,
    recheck_at: Option<Time>,
    filter_at: Option<Time>,
    said: BTreeSet<String>,
    out: VecDeque<Out>,
}

impl Machine {
    /// A socket that has not been connected yet.
    pub fn new(options: Options) -> Self {
        Self {
            options,
            link: Link::Down,
            phase: Phase::Unknown,
            pid: None,
            version: String::new(),
            name: None,
            nics: Vec::new(),
            nics_known: false,
            finding: BTreeSet::new(),
            owed: Vec::new(),
            states: BTreeMap::new(),
            migrating: false,
            released: false,
            held: false,
            events: None,
            arrived: None,
            elsewhere: BTreeSet::new(),
            queue: VecDeque::new(),
            waiting: None,
            next_id: 1,
            refresh_at: None,
            look_at: None,
            recheck_at: None,
            filter_at: None,
            said: BTreeSet::new(),
            out: VecDeque::new(),
        }
    }

    /// Where the guest is.
    pub fn phase(&self) -> Phase {
        self.phase
    }
    /// The guest's name, when it has one.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }
    /// QEMU's version; empty before the greeting.
    pub fn version(&self) -> &str {
        &self.version
    }
    /// Whether QEMU reports migrations by events; `None` as long as it was not asked.
    pub fn events(&self) -> Option<bool> {
        self.events
    }
    /// Whether QEMU has greeted and takes commands.
    pub fn up(&self) -> bool {
        self.link == Link::Up
    }
    /// NICs, each with how its last step ended.
    pub fn nics(&self) -> impl Iterator<Item = (&Nic, Option<&str>)> {
        self.nics.iter().map(|n| (n, self.states.get(&n.mac).map(String::as_str)))
    }

    /// What is to be done next.
    pub fn poll_output(&mut self) -> Option<Out> {
        self.out.pop_front()
    }

    /// When [`Machine::timeout`] wants to be called.
    pub fn poll_timeout(&self) -> Option<Time> {
        let greeting = match self.link {
            Link::Greeting(until) => Some(until),
            Link::Down | Link::Up => None,
        };
        let answer = self.waiting.map(|w| w.2);
        let up = |t: Option<Time>| t.filter(|_| self.link == Link::Up);
        [greeting, answer, self.refresh_at, up(self.look_at), self.recheck_at, up(self.filter_at)]
            .into_iter()
            .flatten()
            .min()
    }

    /// A connection stands. `pid`: the process on the other side, if known; another one than before is another guest.
    pub fn connected(&mut self, pid: Option<i32>, now: Time) {
        if self.pid.is_some() && pid.is_some() && self.pid != pid {
            self.gone(now);
        }
        self.pid = pid.or(self.pid);
        self.link = Link::Greeting(now + ANSWER_LIMIT);
        self.queue.clear();
        self.waiting = None;
    }

    /// The connection is closed, or could not be made. `gone`: nobody listens there any more, so QEMU has ended.
    pub fn closed(&mut self, gone: bool, now: Time) {
        self.link = Link::Down;
        self.queue.clear();
        self.waiting = None;
        self.finding.clear();
        if gone {
            self.gone(now);
        }
    }

    /// The guest is no more.
    fn gone(&mut self, now: Time) {
        match self.phase {
            Phase::Arriving => self.abort("its QEMU ended"),
            Phase::Running if self.arrived.is_some_and(|t| now.since(t) < FRESH) => self.act(Kind::Abort),
            Phase::SplitBrain => self.note(false, "the copy here has ended, no split brain any more"),
            Phase::Unknown
            | Phase::Aborted
            | Phase::Running
            | Phase::Paused
            | Phase::Leaving
            | Phase::Left => {}
        }
        let options = std::mem::take(&mut self.options);
        let out = std::mem::take(&mut self.out);
        *self = Self { out, next_id: self.next_id, ..Self::new(options) };
    }

    /// A line of QEMU's.
    pub fn line(&mut self, line: &[u8], now: Time) {
        if self.link == Link::Down {
            return;
        }
        let message = match parse(line) {
            Ok(m) => m,
            Err(e) => return self.hang_up(e.0),
        };
        match (self.link, message) {
            (Link::Greeting(_), Message::Greeting { version }) => {
                self.version = version;
                self.link = Link::Up;
                self.ask(Ask::Capabilities);
            }
            (Link::Greeting(_), _) => return self.hang_up("something came before the greeting".into()),
            (_, Message::Greeting { .. }) => return self.hang_up("a second greeting".into()),
            (_, Message::Event { name, data }) => self.on_event(&name, &data, now),
            (_, Message::Return { id, value }) => match self.answered(id) {
                Some(ask) => self.on_return(ask, &value, now),
                None => return self.hang_up("an answer that nobody asked for".into()),
            },
            (_, Message::Error { id, why }) => match self.answered(id) {
                Some(ask) => self.on_error(ask, &why),
                None => return self.hang_up(format!("an error that nobody asked for: {why}")),
            },
        }
        self.send_next(now);
    }

    /// The tap behind a descriptor, as wished by [`Out::FindTap`].
    pub fn found_tap(&mut self, fd: u32, port: Option<String>) {
        if !self.finding.remove(&fd) {
            return;
        }
        for nic in self.nics.iter_mut().filter(|n| n.backend == Backend::Fd(fd)) {
            nic.backend = port.clone().map_or(Backend::None, Backend::Port);
        }
        if self.finding.is_empty() {
            self.on_nics();
        }
    }

    /// How a step ended.
    pub fn done(&mut self, wish: &Wish, outcome: Outcome, now: Time) {
        let mac = wish.mac;
        match outcome {
            // What it is called for lasts a moment; where the guest is, the other steps say.
            Outcome::Done(_) if matches!(wish.step, Step::Leave(_)) => {}
            Outcome::Done(state) => {
                if matches!(wish.step, Step::TakeBack { .. }) {
                    self.note(false, &format!("goes on here: {mac} is taken back"));
                    self.not_elsewhere(mac);
                }
                self.states.insert(mac, state);
            }
            Outcome::NotNeeded => self.not_elsewhere(mac),
            Outcome::Elsewhere(vtep) => {
                let was = self.phase;
                if matches!(was, Phase::Running | Phase::SplitBrain) {
                    self.phase = Phase::SplitBrain;
                    self.recheck_at = Some(now + RECHECK);
                    self.elsewhere.insert(mac);
                    self.states.insert(mac, format!("also at {vtep}"));
                }
                if was == Phase::Running {
                    self.note(
                        true,
                        &format!(
                            "SPLIT BRAIN: it was continued here after it had moved to {vtep}; {mac} stays there. \
                             End one of the two copies"
                        ),
                    );
                }
            }
            Outcome::Refused(why) => {
                let text = format!("cannot {} {mac}: {why}", wish.step.name());
                self.states.insert(mac, why);
                // A guest that has been heard needs no abort. A preparation may be refused because the NIC is none
                // of ours.
                if wish.step != Step::Abort && self.said.len() < 64 && self.said.insert(text.clone()) {
                    self.note(!matches!(wish.step, Step::Prepare { .. } | Step::Leave(_)), &text);
                }
            }
        }
        self.states.retain(|m, _| *m == mac || self.nics.iter().any(|n| n.mac == *m));
    }

    fn not_elsewhere(&mut self, mac: Mac) {
        if self.elsewhere.remove(&mac) && self.elsewhere.is_empty() && self.phase == Phase::SplitBrain {
            self.phase = Phase::Running;
            self.recheck_at = None;
            self.note(false, "no split brain any more: the other copy is gone");
        }
    }

    /// The time of [`Machine::poll_timeout`] has come.
    pub fn timeout(&mut self, now: Time) {
        let due = |t: Option<Time>| t.is_some_and(|t| t <= now);
        if let Link::Greeting(until) = self.link
            && until <= now
        {
            return self.hang_up(
                "no greeting within 5 seconds; a QMP socket serves one program at a time, so give vtepd one of its own"
                    .into(),
            );
        }
        if let Some((_, ask, until)) = self.waiting
            && until <= now
        {
            return self.hang_up(format!("no answer to {ask:?} within 5 seconds"));
        }
        if due(self.refresh_at) {
            self.refresh_at = Some(now + REFRESH);
            self.act(Kind::Prepare);
        }
        if due(self.recheck_at) {
            self.recheck_at = Some(now + RECHECK);
            self.act(Kind::Recheck);
        }
        if self.link == Link::Up {
            if due(self.look_at) {
                self.look_at = Some(now + self.look_pause());
                self.ask(Ask::Status);
                self.ask(Ask::Migration);
            }
            if due(self.filter_at) {
                self.filter_at = None;
                self.ask(Ask::RxFilter);
            }
        }
        self.send_next(now);
    }

    fn look_pause(&self) -> Span {
        if self.events == Some(true) { LOOK.0 } else { LOOK.1 }
    }

    fn note(&mut self, warn: bool, text: &str) {
        self.out.push_back(Out::Note(Note { warn, text: text.to_owned() }));
    }

    fn hang_up(&mut self, why: String) {
        self.link = Link::Down;
        self.queue.clear();
        self.waiting = None;
        self.out.push_back(Out::HangUp(why));
    }

    fn ask(&mut self, ask: Ask) {
        if !self.queue.contains(&ask) {
            self.queue.push_back(ask);
        }
    }

    fn send_next(&mut self, now: Time) {
        if self.waiting.is_some() || self.link != Link::Up {
            return;
        }
        if let Some(ask) = self.queue.pop_front() {
            let id = self.next_id;
            self.next_id += 1;
            self.waiting = Some((id, ask, now + ANSWER_LIMIT));
            self.out.push_back(Out::Send(ask.line(id)));
        }
    }

    /// The command that an answer belongs to. An error without a number belongs to whatever waits.
    fn answered(&mut self, id: Option<u64>) -> Option<Ask> {
        let (want, ask, _) = self.waiting?;
        if id.is_some_and(|id| id != want) {
            return None;
        }
        self.waiting = None;
        Some(ask)
    }
}
