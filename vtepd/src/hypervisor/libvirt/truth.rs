//! What was missed while nobody listened: the guests that are under way are compared with libvirt's own lists (PIT-25).
//!
//! `virsh event` ends when libvirt's daemon does, and tells nothing of what happened before it runs again. So each
//! time that it has been started the lists are asked:
//!
//! | known before | now | then |
//! |---|---|---|
//! | on its way here | runs | *activate* |
//! | on its way here, or arrived | not there | *abort* |
//! | on its way to elsewhere | runs | *take back*, if another VTEP has the MAC |
//! | on its way to elsewhere | not there | *release* |
//! | not there, or unknown | runs | described; *activate* if another VTEP has the MAC, or nobody |
//! | ran | paused for a migration | as after `Suspended Migrated` |
//! | not there | paused for a migration | as after `Started Migrated` |
//!
//! What runs when the lists are asked for the first time tells where it is by its frames, as always.

use super::domain::good_name;
use super::guests::{Guests, MAX_SINCE, Out, Phase};
use crate::hypervisor::step::Step;
use std::collections::{BTreeMap, BTreeSet};

/// Domains that are remembered to have run; of more, nothing is known.
const MAX_RAN: usize = 16_384;

/// Names of domains, from `virsh list --name`: one a line.
pub fn names(text: &str) -> BTreeSet<String> {
    text.lines().map(str::trim).filter(|n| good_name(n)).map(str::to_owned).collect()
}

/// Whether `virsh domstate --reason` says that a domain is paused because it is being migrated.
pub fn is_migrating(text: &str) -> bool {
    text.trim() == "paused (migrating)"
}

/// Domains, as libvirt lists them.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Lists {
    /// Those that run.
    pub running: BTreeSet<String>,
    /// Those that have a process, these among them.
    pub active: BTreeSet<String>,
}

impl Guests {
    /// The lists are being asked for.
    pub fn listing(&mut self) {
        self.since_asked.clear();
    }

    /// Events may have been lost before these lists were asked for.
    pub fn compare(&mut self, lists: &Lists) {
        if self.since_asked.len() >= MAX_SINCE {
            return;
        }
        let known: BTreeMap<String, Phase> = self.phases();
        for (name, &phase) in &known {
            if self.since_asked.contains(name) {
                continue;
            }
            let (runs, there) = (lists.running.contains(name), lists.active.contains(name));
            match phase {
                Phase::Arriving if runs => self.resumed(name),
                Phase::Leaving if runs => self.stays(name),
                Phase::Arriving | Phase::Arrived if !there && !runs => self.ended(name),
                Phase::Leaving if !there && !runs => self.has_left(name),
                Phase::Arriving | Phase::Arrived | Phase::Leaving => {}
            }
        }
        // Without a list from before, nothing is known of what was missed.
        let first = self.ran.is_none();
        let mut ran = self.ran.take().unwrap_or_default();
        for name in lists.active.union(&lists.running).filter(|_| !first) {
            if known.contains_key(name) || self.since_asked.contains(name) {
                continue;
            }
            match (lists.running.contains(name), ran.contains(name)) {
                (true, true) => {}
                // Whether it was started or has moved here, its MACs say.
                (true, false) => {
                    if self.follow(name, Phase::Arriving, true) {
                        self.resumed(name);
                    }
                }
                (false, ran) => self.out.push_back(Out::AskWhyPaused(name.clone(), ran)),
            }
        }
        let since = self.since_asked.clone();
        self.keep_known(|n| lists.active.contains(n) || since.contains(n));
        for name in lists.running.iter().filter(|n| !known.contains_key(*n) && !since.contains(*n)) {
            self.get_to_know(name);
        }
        ran.retain(|n| lists.active.contains(n) || since.contains(n));
        ran.extend(lists.running.iter().filter(|n| !since.contains(*n)).take(MAX_RAN).cloned());
        self.ran = Some(ran);
    }

    /// Why a domain is paused that is not known to be under way. `ran`: it ran before events were lost.
    pub fn paused(&mut self, name: &str, migrating: bool, ran: bool) {
        if migrating && self.phase(name).is_none() {
            self.expect(name, if ran { Phase::Leaving } else { Phase::Arriving });
        }
    }

    /// Activates a guest whose arrival was missed, if it is not known to be here.
    pub(super) fn arrived_unheard(&mut self, name: &str) {
        self.all_nics(name, |port| {
            // Nothing is done about a MAC that is here already: most guests that were just started are.
            port.map(|port| Step::TakeBack { port, left: false, released: false })
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_virsh_are_read() {
        // As virsh 9.0.0 prints them, with an empty line at the end.
        let all: Vec<String> = names("vm1\nweb & db\n../x\n\n").into_iter().collect();
        assert_eq!(all, ["vm1", "web & db"]);
        assert!(is_migrating("paused (migrating)\n\n"));
        assert!(
            !is_migrating("paused (user)\n") && !is_migrating("running (migrating)\n") && !is_migrating("")
        );
    }
}
