//! Domains as libvirt's lifecycle events show them (PIT-25). No I/O: events and descriptions in, wishes out.
//!
//! | | target | source |
//! |---|---|---|
//! | QEMU waits | `Started Migrated` → description → *prepare* | |
//! | the guest stops | | `Suspended Migrated` → description |
//! | it runs there | `Resumed Migrated` → *activate* | `Stopped Migrated` → *release* |
//! | it fails | `Stopped Failed` → *abort* | `Resumed Migrated` or `Unpaused` → *take back* |

use super::MAX_GUESTS;
use super::domain::Domain;
use super::lifecycle::Lifecycle;
use crate::hypervisor::step::{Step, Wish};
use evpn::types::Mac;
use std::collections::{BTreeMap, VecDeque};

/// What is wanted.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Out {
    /// The description of that domain; answer with [`Guests::described`].
    Describe(String),
    /// Ask the core.
    Wish(Wish),
    /// Tell people: the domain, and what.
    Note(String, &'static str),
}

/// Where a domain is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Phase {
    /// On its way here.
    Arriving,
    /// It has arrived.
    Arrived,
    /// Stopped for the end of its migration to elsewhere.
    Leaving,
}

#[derive(Debug)]
struct Guest {
    phase: Phase,
    /// MACs and ports, once described.
    nics: Option<Vec<(Mac, Option<String>)>>,
    /// Came before the description: it runs here.
    resumed: bool,
    /// Came before the description: it has left.
    left: bool,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Guests {
    all: BTreeMap<String, Guest>,
    out: VecDeque<Out>,
}

impl Guests {
    /// What is to be done next.
    pub fn poll_output(&mut self) -> Option<Out> {
        self.out.pop_front()
    }

    /// Where a domain is, if it is moving or has just arrived.
    pub fn phase(&self, domain: &str) -> Option<Phase> {
        self.all.get(domain).map(|g| g.phase)
    }

    /// Events were lost: what was under way is not known any more. Preparations run out by themselves.
    pub fn forget(&mut self) {
        self.all.clear();
    }

    /// An event.
    pub fn event(&mut self, e: &Lifecycle) {
        let name = &e.domain;
        match (e.kind.as_str(), e.detail.as_str(), self.phase(name)) {
            ("Started", "Migrated" | "Restored", _) => self.expect(name, Phase::Arriving),
            ("Resumed", _, Some(Phase::Arriving)) => {
                if let Some(g) = self.all.get_mut(name) {
                    g.resumed = true;
                }
                self.arrive(name);
            }
            ("Resumed", _, Some(Phase::Leaving)) => {
                self.out.push_back(Out::Note(name.clone(), "goes on here: its migration failed"));
                self.all_nics(name, |port| {
                    port.map(|port| Step::TakeBack { port, left: false, released: false })
                });
                self.all.remove(name);
            }
            ("Suspended", "Migrated" | "Post-copy", phase) if phase != Some(Phase::Arriving) => {
                self.expect(name, Phase::Leaving);
            }
            ("Stopped", "Migrated", Some(Phase::Leaving)) => {
                if let Some(g) = self.all.get_mut(name) {
                    g.left = true;
                }
                self.out.push_back(Out::Note(name.clone(), "has left"));
                self.release(name);
            }
            ("Stopped" | "Crashed", _, Some(Phase::Arriving | Phase::Arrived)) => {
                self.out.push_back(Out::Note(name.clone(), "is not here any more"));
                self.all_nics(name, |port| port.map(|_| Step::Abort));
                self.all.remove(name);
            }
            ("Stopped" | "Crashed", _, Some(Phase::Leaving)) => {
                self.all.remove(name);
            }
            _ => {}
        }
    }

    /// A domain's description, or that there is none.
    pub fn described(&mut self, name: &str, domain: Option<&Domain>) {
        let Some(g) = self.all.get_mut(name) else { return };
        let Some(domain) = domain else {
            self.all.remove(name);
            return;
        };
        g.nics = Some(domain.interfaces.iter().map(|i| (i.mac, i.port.clone())).collect());
        if g.phase == Phase::Arriving {
            self.all_nics(name, |port| port.map(|port| Step::Prepare { port }));
            self.arrive(name);
        }
        self.release(name);
    }

    /// Releases if it has left and is described.
    fn release(&mut self, name: &str) {
        if self.all.get(name).is_some_and(|g| g.left && g.nics.is_some()) {
            self.all_nics(name, |_| Some(Step::Release));
            self.all.remove(name);
        }
    }

    fn expect(&mut self, name: &str, phase: Phase) {
        if self.all.len() >= MAX_GUESTS && !self.all.contains_key(name) {
            // Those that have arrived are remembered only for the case that they end soon.
            self.all.retain(|_, g| g.phase != Phase::Arrived);
            if self.all.len() >= MAX_GUESTS {
                return;
            }
        }
        self.all.insert(name.to_owned(), Guest { phase, nics: None, resumed: false, left: false });
        if phase == Phase::Arriving {
            self.out.push_back(Out::Note(name.to_owned(), "is expected here"));
        }
        self.out.push_back(Out::Describe(name.to_owned()));
    }

    /// Activates if it runs and is described.
    fn arrive(&mut self, name: &str) {
        let Some(g) = self.all.get_mut(name).filter(|g| g.resumed && g.nics.is_some()) else { return };
        g.phase = Phase::Arrived;
        self.out.push_back(Out::Note(name.to_owned(), "runs here now"));
        self.all_nics(name, |port| port.map(|port| Step::Activate { port }));
    }

    fn all_nics(&mut self, name: &str, step: impl Fn(Option<String>) -> Option<Step>) {
        let Some(nics) = self.all.get(name).and_then(|g| g.nics.clone()) else { return };
        for (mac, port) in nics {
            if let Some(step) = step(port) {
                self.out.push_back(Out::Wish(Wish { mac, step }));
            }
        }
    }
}
