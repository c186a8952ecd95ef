//! Hypervisors that say what they do: prepared, activated, aborted and released moves (PIT-06, PIT-04).

use super::frr::is_frr;
use super::guest::Place;
use super::plan::{By, What};
use super::vtep::vni;
use super::world::{Ev, World};
use evpn::node::{Command, Input, MoveRequest, MoveStep, Requester};
use evpn::types::{Mac, Span};
use std::net::IpAddr;

/// How long a release lasts, with some reserve.
const RELEASED: Span = Span::secs(61);
/// Until a hypervisor tries again when the daemon is not there.
const AGAIN: Span = Span::millis(100);

impl World {
    /// A step of a prepared move. Whether there was a daemon to hear it.
    fn ask_node(&mut self, node: usize, mac: Mac, step: MoveStep) -> bool {
        let request =
            MoveRequest { vni: Some(vni()), mac, ips: Vec::new(), step, by: Requester::Api, at_stop: false };
        if is_frr(node) {
            return false;
        }
        let heard = self.vteps[node].listens(self.now);
        self.input(node, Input::Command { id: 1, command: Command::Move(request) });
        heard
    }

    /// The target is told that a guest will come.
    pub(super) fn prepare(&mut self, n: usize, guest: usize, node: usize, lead: Span) {
        let mac = self.vms[guest].mac;
        if is_frr(node)
            || self.vms[guest].here.is_none_or(|p| p.node == node)
            || self.vms[guest].twin.is_some()
        {
            return;
        }
        self.ask_node(node, mac, MoveStep::Prepare { port: format!("p{guest}"), timeout: None });
        self.act_until(lead + Span::millis(500));
        self.push(lead, Ev::Hand(n));
    }

    /// What follows a preparation, by the plan's step.
    pub(super) fn hand(&mut self, n: usize) {
        match self.plan.steps[n].what {
            What::Prepared { guest, node, by, quiet, late, release, unplug, .. } => {
                self.hand_over(
                    guest,
                    node,
                    self.said_by(guest, by, false),
                    Span::micros(quiet),
                    late,
                    release,
                    unplug,
                );
            }
            What::CalledOff { guest, node, active, .. } => self.call_off(guest, node, active),
            _ => {}
        }
    }

    /// The guest stops at the source and runs at the target, where it is silent for a while.
    fn hand_over(
        &mut self,
        g: usize,
        node: usize,
        by: By,
        quiet: Span,
        late: u64,
        release: bool,
        unplug: bool,
    ) {
        let Some(from) = self.vms[g].here.filter(|p| p.node != node && self.vms[g].twin.is_none()) else {
            return;
        };
        let (mac, at) = (self.vms[g].mac, Place { node, slot: g });
        if release && !is_frr(from.node) {
            self.ask_node(from.node, mac, MoveStep::Release { timeout: None });
            self.released.insert((from.node, mac), self.now);
        }
        self.move_out(g, from, late);
        self.frr_departure(mac, from, late);
        // Where nobody knows whose it is, a late frame is as good as an early one, unless it was announced as such.
        let unclear =
            late > 0 && (!release || is_frr(from.node)) && self.macs.get(&mac).is_some_and(|m| m.muddled);
        self.settle_in(g, at, true);
        if self.calm_since.is_none() {
            // What is known moves along only if all was quiet, as in every other move.
            let ips: Vec<IpAddr> = self.vms[g].ips().collect();
            for ip in ips {
                if let Some(t) = self.ips.get_mut(&ip) {
                    t.must = false;
                }
            }
        }
        self.activate(g, at);
        self.welcome(g, at);
        if let Some(m) = self.macs.get_mut(&mac) {
            m.muddled |= unclear;
        }
        self.push(quiet, Ev::Say(g, at, by));
        for k in 0..late {
            self.push(Span::millis(3 * (k + 1)), Ev::Late(from, mac));
        }
        if unplug {
            self.push(Span::millis(40), Ev::Unplug(from));
        }
        self.act_until(quiet + Span::millis(50));
    }

    /// The target is told that the guest runs there now.
    fn activate(&mut self, g: usize, at: Place) {
        let mac = self.vms[g].mac;
        let step = MoveStep::Activate { port: Some(format!("p{}", at.slot)), timeout: None };
        // As good as an announcement, and before the guest's own (PIT-06).
        if self.vteps[at.node].listens(self.now) {
            self.released.remove(&(at.node, mac));
            self.spoke(g, at, By::Rarp, true);
        }
        self.ask_node(at.node, mac, step);
    }

    /// The move does not happen; the guest goes on at the source.
    fn call_off(&mut self, g: usize, node: usize, active: bool) {
        let mac = self.vms[g].mac;
        if self.vms[g].here.is_none_or(|p| p.node == node) {
            return;
        }
        if active {
            // For a moment the target had it: nobody can know until the guest speaks again.
            if let Some(m) = self.macs.get_mut(&mac) {
                m.muddled = true;
                m.moves += 2;
                m.events += 2;
                m.contested += 1;
            }
            let step = MoveStep::Activate { port: Some(format!("p{g}")), timeout: None };
            self.ask_node(node, mac, step);
        }
        self.ask_node(node, mac, MoveStep::Abort);
    }

    /// Whether frames of this MAC are ignored there because it was released.
    pub(super) fn is_released(&self, node: usize, mac: Mac) -> bool {
        self.released.get(&(node, mac)).is_some_and(|t| self.now.since(*t) < RELEASED)
    }

    /// A guest comes back to where it was released: its hypervisor has to say so, and says it again when there is no
    /// daemon to hear it.
    pub(super) fn welcome(&mut self, g: usize, at: Place) {
        if self.vms[g].here != Some(at) || !self.is_released(at.node, self.vms[g].mac) {
            return;
        }
        if self.vteps[at.node].listens(self.now) {
            self.activate(g, at);
        } else {
            self.act_until(AGAIN);
            self.push(AGAIN, Ev::Welcome(g, at));
        }
    }
}
