//! Domains as libvirt's lifecycle events show them (PIT-25). No I/O: events and descriptions in, wishes out.
//!
//! | | target | source |
//! |---|---|---|
//! | QEMU waits | `Started Migrated` → description → *prepare* | |
//! | the guest stops | | `Suspended Migrated` → description → what arrives is held, or *release* with `at_stop` |
//! | it runs there | `Resumed Migrated` → *activate* | `Stopped Migrated` → *release* |
//! | it fails | `Stopped Failed` → *abort* | `Resumed Migrated` or `Unpaused` → *take back* |

use super::MAX_GUESTS;
use super::domain::Domain;
use super::lifecycle::Lifecycle;
use crate::hypervisor::step::{Step, Wish};
use evpn::node::Leave;
use evpn::types::Mac;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Domains with an event while the lists are being made; with more of them nothing is compared.
pub(super) const MAX_SINCE: usize = 4096;
/// Domains whose NICs are kept.
const MAX_KNOWN: usize = 4096;

/// What is wanted.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Out {
    /// The description of that domain; answer with [`Guests::described`].
    Describe(String),
    /// The same, without hurry: it does not move now.
    GetToKnow(String),
    /// Whether that domain is paused because it is being migrated; answer with [`Guests::paused`] and the flag.
    AskWhyPaused(String, bool),
    /// Ask the core.
    Wish(Wish),
    /// Tell people: the domain, and what.
    Note(String, &'static str),
}

/// Where a domain is.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Phase {
    /// On its way here.
    #[default]
    Arriving,
    /// It has arrived.
    Arrived,
    /// Stopped for the end of its migration to elsewhere.
    Leaving,
}

/// MACs and ports.
type Nics = Vec<(Mac, Option<String>)>;

#[derive(Debug, Default)]
struct Guest {
    phase: Phase,
    /// Once described.
    nics: Option<Nics>,
    /// Came before the description: it runs here.
    resumed: bool,
    /// Came before the description: it has left.
    left: bool,
    /// It was found running, and no event told that it had come.
    missed: bool,
    /// The core has been told that it stands still.
    held: bool,
    /// It has been released at its stop.
    released: bool,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Guests {
    /// The target is activated when the guest stops here (PIT-26).
    at_stop: bool,
    all: BTreeMap<String, Guest>,
    pub(super) out: VecDeque<Out>,
    /// Domains that ran when they were last listed or heard of; `None` before the first list.
    pub(super) ran: Option<BTreeSet<String>>,
    /// Domains that have had an event since the lists were asked for: what the lists say of them may be older.
    pub(super) since_asked: BTreeSet<String>,
    /// NICs of domains that run here: a migration may be over, and the description gone, before it can be asked for.
    known: BTreeMap<String, Nics>,
}

impl Guests {
    /// None yet. `at_stop`: a guest that stops for the end of its migration is released then (PIT-26).
    pub fn new(at_stop: bool) -> Self {
        Self { at_stop, ..Self::default() }
    }

    /// What is to be done next.
    pub fn poll_output(&mut self) -> Option<Out> {
        self.out.pop_front()
    }

    /// Where a domain is, if it is moving or has just arrived.
    pub fn phase(&self, domain: &str) -> Option<Phase> {
        self.all.get(domain).map(|g| g.phase)
    }

    /// All that are moving or have just arrived.
    pub(super) fn phases(&self) -> BTreeMap<String, Phase> {
        self.all.iter().map(|(n, g)| (n.clone(), g.phase)).collect()
    }

    /// An event.
    pub fn event(&mut self, e: &Lifecycle) {
        let name = &e.domain;
        if self.since_asked.len() < MAX_SINCE {
            self.since_asked.insert(name.clone());
        }
        if let Some(ran) = &mut self.ran {
            match e.kind.as_str() {
                // One that arrives does not run yet.
                "Resumed" | "Started" if e.detail != "Migrated" || e.kind == "Resumed" => {
                    ran.insert(name.clone());
                }
                "Stopped" | "Crashed" => {
                    ran.remove(name);
                }
                _ => {}
            }
        }
        match (e.kind.as_str(), e.detail.as_str(), self.phase(name)) {
            ("Started", "Migrated" | "Restored", _) => self.expect(name, Phase::Arriving),
            ("Resumed", _, Some(Phase::Arriving)) => self.resumed(name),
            ("Resumed", _, Some(Phase::Leaving)) => self.stays(name),
            ("Suspended", "Migrated" | "Post-copy", phase) if phase != Some(Phase::Arriving) => {
                self.expect(name, Phase::Leaving);
                // Its description comes some milliseconds later, and may be gone by then.
                let known = self.known.get(name).filter(|k| !k.is_empty()).cloned();
                if let (Some(g), Some(nics)) = (self.all.get_mut(name), known) {
                    g.nics = Some(nics);
                }
                self.stopped(name);
            }
            ("Stopped", "Migrated", Some(Phase::Leaving)) => self.has_left(name),
            ("Stopped" | "Crashed", _, Some(Phase::Arriving | Phase::Arrived)) => self.ended(name),
            ("Stopped" | "Crashed", _, _) => self.forget(name),
            ("Started", _, None) => self.get_to_know(name),
            _ => {}
        }
    }

    fn forget(&mut self, name: &str) {
        self.all.remove(name);
        self.known.remove(name);
    }

    /// Forgets the NICs of domains that are not there.
    pub(super) fn keep_known(&mut self, there: impl Fn(&str) -> bool) {
        let all = &self.all;
        self.known.retain(|n, _| there(n) || all.contains_key(n));
    }

    /// Asks for the description of a domain that runs here, once.
    pub(super) fn get_to_know(&mut self, name: &str) {
        if !self.known.contains_key(name) && !self.all.contains_key(name) && self.known.len() < MAX_KNOWN {
            self.known.insert(name.to_owned(), Nics::new());
            self.out.push_back(Out::GetToKnow(name.to_owned()));
        }
    }

    /// A domain's description, or that there is none.
    pub fn described(&mut self, name: &str, domain: Option<&Domain>) {
        let nics: Option<Nics> =
            domain.map(|d| d.interfaces.iter().map(|i| (i.mac, i.port.clone())).collect());
        if let Some(nics) = &nics
            && (self.known.contains_key(name) || self.all.contains_key(name) && self.known.len() < MAX_KNOWN)
        {
            self.known.insert(name.to_owned(), nics.clone());
        } else if self.known.get(name).is_some_and(Vec::is_empty) {
            self.known.remove(name);
        }
        let Some(g) = self.all.get_mut(name) else { return };
        // What is leaving may be gone already; what is known of it from before still holds.
        let before = self.known.get(name).filter(|k| g.phase == Phase::Leaving && !k.is_empty()).cloned();
        let Some(nics) = nics.or(before) else {
            self.all.remove(name);
            return;
        };
        g.nics = Some(nics);
        if g.missed {
            self.arrive(name);
        } else if g.phase == Phase::Arriving {
            let at_stop = self.at_stop;
            self.all_nics(name, |port| port.map(|port| Step::Prepare { port, at_stop }));
            self.arrive(name);
        }
        self.stopped(name);
        self.release(name);
    }

    /// It runs here now.
    pub(super) fn resumed(&mut self, name: &str) {
        if let Some(g) = self.all.get_mut(name) {
            g.resumed = true;
        }
        self.arrive(name);
    }

    /// It goes on here although it was leaving.
    pub(super) fn stays(&mut self, name: &str) {
        self.out.push_back(Out::Note(name.to_owned(), "goes on here: its migration failed"));
        let Some(g) = self.all.get(name) else { return };
        let (held, released) = (g.held, g.released);
        if held {
            self.all_nics(name, |_| Some(Step::Leave(Leave::Stays)));
        }
        self.all_nics(name, |port| port.map(|port| Step::TakeBack { port, left: false, released }));
        self.all.remove(name);
    }

    /// It stands still, and its NICs are known: the core hears of it, once.
    fn stopped(&mut self, name: &str) {
        let at_stop = self.at_stop;
        let Some(g) = self.all.get_mut(name) else { return };
        if g.phase != Phase::Leaving || g.left || g.held || g.released || g.nics.is_none() {
            return;
        }
        if at_stop {
            g.released = true;
            self.all_nics(name, |_| Some(Step::Release { at_stop: true }));
        } else {
            g.held = true;
            self.all_nics(name, |port| port.map(|_| Step::Leave(Leave::Stopped)));
        }
    }

    /// It runs elsewhere now.
    pub(super) fn has_left(&mut self, name: &str) {
        if let Some(g) = self.all.get_mut(name) {
            g.left = true;
        }
        self.out.push_back(Out::Note(name.to_owned(), "has left"));
        self.release(name);
    }

    /// It does not come, or has ended.
    pub(super) fn ended(&mut self, name: &str) {
        self.out.push_back(Out::Note(name.to_owned(), "is not here any more"));
        self.all_nics(name, |port| port.map(|_| Step::Abort));
        self.forget(name);
    }

    /// Releases if it has left and is described.
    fn release(&mut self, name: &str) {
        let Some(g) = self.all.get(name).filter(|g| g.left && g.nics.is_some()) else { return };
        if !g.released {
            let at_stop = self.at_stop;
            self.all_nics(name, |_| Some(Step::Release { at_stop }));
        }
        self.forget(name);
    }

    pub(super) fn expect(&mut self, name: &str, phase: Phase) {
        if self.follow(name, phase, false) && phase == Phase::Arriving {
            self.out.push_back(Out::Note(name.to_owned(), "is expected here"));
        }
    }

    /// Follows a domain from now on, if there is room; asks for its description.
    pub(super) fn follow(&mut self, name: &str, phase: Phase, missed: bool) -> bool {
        if self.all.len() >= MAX_GUESTS && !self.all.contains_key(name) {
            // Those that have arrived are remembered only for the case that they end soon.
            self.all.retain(|_, g| g.phase != Phase::Arrived);
            if self.all.len() >= MAX_GUESTS {
                return false;
            }
        }
        self.all.insert(name.to_owned(), Guest { phase, missed, ..Guest::default() });
        self.out.push_back(Out::Describe(name.to_owned()));
        true
    }

    /// Activates if it runs and is described.
    fn arrive(&mut self, name: &str) {
        let Some(g) = self.all.get_mut(name).filter(|g| g.resumed && g.nics.is_some()) else { return };
        g.phase = Phase::Arrived;
        self.out.push_back(Out::Note(name.to_owned(), "runs here now"));
        if g.missed {
            return self.arrived_unheard(name);
        }
        self.all_nics(name, |port| port.map(|port| Step::Activate { port }));
    }

    pub(super) fn all_nics(&mut self, name: &str, step: impl Fn(Option<String>) -> Option<Step>) {
        let Some(nics) = self.all.get(name).and_then(|g| g.nics.clone()) else { return };
        for (mac, port) in nics {
            if let Some(step) = step(port) {
                self.out.push_back(Out::Wish(Wish { mac, step }));
            }
        }
    }
}
