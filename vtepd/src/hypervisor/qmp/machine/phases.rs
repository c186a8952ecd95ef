//! What answers and events mean for the guest.

use super::{ActivateAt, FILTER_PAUSE, Kind, MAX_OWED, Machine, Out, Phase, REFRESH};
use crate::hypervisor::nics::{self, Backend, Nic};
use crate::hypervisor::qmp::message::Ask;
use crate::hypervisor::step::{Step, Wish};
use evpn::node::Leave;
use evpn::types::Time;
use serde_json::Value;

impl Machine {
    pub(super) fn on_error(&mut self, ask: Ask, why: &str) {
        match ask {
            Ask::Capabilities => self.hang_up(format!("capabilities negotiation was refused: {why}")),
            Ask::SetEvents => {
                self.events = Some(false);
                self.note(
                    false,
                    &format!("reports no migration events ({why}); its status is watched instead"),
                );
            }
            Ask::Network => self.note(true, &format!("does not tell its NICs: {why}")),
            Ask::Status | Ask::Migration | Ask::Name | Ask::RxFilter => {}
        }
    }

    pub(super) fn on_return(&mut self, ask: Ask, value: &Value, now: Time) {
        match ask {
            Ask::Capabilities => {
                for ask in
                    [Ask::SetEvents, Ask::Status, Ask::Network, Ask::RxFilter, Ask::Migration, Ask::Name]
                {
                    self.ask(ask);
                }
            }
            Ask::SetEvents => self.events = Some(true),
            Ask::Status => {
                if let Some(s) = value["status"].as_str() {
                    self.on_status(s, now);
                }
            }
            Ask::Migration => match value["status"].as_str() {
                Some("completed") if self.migrating && self.phase == Phase::Leaving => self.leave(),
                Some("active" | "pre-switchover" | "device" | "setup") if self.phase != Phase::Arriving => {
                    self.migrating = true;
                }
                Some("failed" | "cancelled") => self.migrating = false,
                Some(_) | None => {}
            },
            Ask::Name => {
                let name =
                    value["name"].as_str().filter(|n| n.len() <= 256 && !n.chars().any(char::is_control));
                self.name = name.map(str::to_owned);
            }
            Ask::Network => self.on_network(value.as_str().unwrap_or_default()),
            Ask::RxFilter => self.on_filter(value),
        }
    }

    fn on_network(&mut self, text: &str) {
        self.nics = nics::info_network(text);
        self.finding.clear();
        for nic in &mut self.nics {
            let mac = nic.mac.to_string();
            let names = [Some(nic.id.as_str()), nic.netdev.as_deref(), Some(mac.as_str())];
            let given = names.into_iter().flatten().find_map(|n| self.options.ports.get(n));
            if let Some(port) = given {
                nic.backend = Backend::Port(port.clone());
            }
            if let Backend::Fd(fd) = nic.backend
                && self.finding.insert(fd)
            {
                self.out.push_back(Out::FindTap(fd));
            }
        }
        if self.finding.is_empty() {
            self.on_nics();
        }
    }

    /// All NICs with their ports are known, for the first time or again.
    pub(super) fn on_nics(&mut self) {
        self.nics_known = true;
        let owed = std::mem::take(&mut self.owed);
        if self.phase == Phase::Arriving && !owed.contains(&Kind::Prepare) {
            self.act(Kind::Prepare);
        }
        for kind in owed {
            self.act(kind);
        }
    }

    /// A guest may set another MAC than QEMU gave it, and takes it along: at the target it is known only when the
    /// device's state has arrived.
    fn on_filter(&mut self, value: &Value) {
        for (i, old) in nics::rx_filter(&mut self.nics, value) {
            let Some(Nic { mac, backend: Backend::Port(port), .. }) = self.nics.get(i).cloned() else {
                continue;
            };
            let step = match self.phase {
                Phase::Arriving => Step::Prepare { port, at_stop: self.at_stop() },
                // The first look after the arrival, and not a guest that runs here for long and changes its MAC.
                Phase::Running if self.arrived.is_some() => Step::Activate { port },
                Phase::Unknown
                | Phase::Aborted
                | Phase::Running
                | Phase::Paused
                | Phase::Leaving
                | Phase::Left
                | Phase::SplitBrain => continue,
            };
            self.out.push_back(Out::Wish(Wish { mac: old, step: Step::Abort }));
            self.out.push_back(Out::Wish(Wish { mac, step }));
        }
    }

    pub(super) fn on_event(&mut self, name: &str, data: &Value, now: Time) {
        match name {
            "RESUME" => self.resume(now),
            "STOP" => {
                match self.phase {
                    // In the middle of a migration this is its end, or somebody's doing. The status tells, but QEMU
                    // answers only when all has been sent, and then the moment is gone (PIT-26).
                    Phase::Running if self.migrating && self.at_stop() => self.leaving(now),
                    Phase::Running => {
                        self.phase = Phase::Paused;
                        if self.migrating {
                            self.act(Kind::Leave(Leave::Stopped));
                            self.held = true;
                        }
                    }
                    Phase::SplitBrain => {
                        self.recheck_at = None;
                        self.elsewhere.clear();
                        self.phase = Phase::Left;
                        self.note(false, "stopped here, no split brain any more");
                    }
                    Phase::Unknown
                    | Phase::Arriving
                    | Phase::Aborted
                    | Phase::Paused
                    | Phase::Leaving
                    | Phase::Left => {}
                }
                self.ask(Ask::Status);
            }
            "MIGRATION" => self.on_migration(data["status"].as_str().unwrap_or_default(), now),
            "SHUTDOWN" if self.phase == Phase::Arriving => self.abort("it was shut down"),
            // A sign, not a trigger; and the guest can make as many of them as it likes.
            "NIC_RX_FILTER_CHANGED" => self.filter_at = self.filter_at.or(Some(now + FILTER_PAUSE)),
            _ => {}
        }
    }

    fn on_migration(&mut self, status: &str, now: Time) {
        let stopped = matches!(self.phase, Phase::Paused | Phase::Leaving);
        match status {
            "setup" | "active" if self.phase == Phase::Aborted => self.expect(now),
            "setup" | "active" | "wait-unplug" | "pre-switchover" | "device" | "postcopy-active"
                if self.phase != Phase::Arriving =>
            {
                if !std::mem::replace(&mut self.migrating, true) && self.phase == Phase::Running {
                    self.act(Kind::Leave(Leave::Begins));
                }
                match status {
                    "pre-switchover" | "device" if stopped => self.leaving(now),
                    // From here on only the target can run it.
                    "postcopy-active" if stopped => self.leave(),
                    _ => {}
                }
            }
            "completed" => {
                if stopped && self.migrating {
                    self.leave();
                } else {
                    self.ask(Ask::Status);
                }
                self.migrating = false;
            }
            "failed" | "cancelled" => {
                self.migrating = false;
                if self.phase == Phase::Arriving {
                    self.abort("its migration failed");
                }
            }
            _ => {}
        }
    }

    fn on_status(&mut self, status: &str, now: Time) {
        match status {
            "inmigrate" => {
                if !matches!(self.phase, Phase::Arriving | Phase::Aborted) {
                    self.expect(now);
                }
            }
            "running" => self.resume(now),
            "finish-migrate" => self.leaving(now),
            "postmigrate" => {
                if matches!(self.phase, Phase::Unknown | Phase::Running | Phase::Paused | Phase::Leaving) {
                    self.leave();
                }
            }
            _ => match self.phase {
                Phase::Unknown | Phase::Running => self.phase = Phase::Paused,
                Phase::Leaving if status == "paused" => {
                    // Stopped by somebody, while its migration goes on or after it failed: it stays here.
                    if self.released {
                        let migrating = self.migrating;
                        self.take_back();
                        self.migrating = migrating;
                    }
                    self.phase = Phase::Paused;
                    self.look_at = None;
                }
                Phase::Leaving
                | Phase::Arriving
                | Phase::Aborted
                | Phase::Paused
                | Phase::Left
                | Phase::SplitBrain => {}
            },
        }
    }

    /// QEMU waits for a guest.
    fn expect(&mut self, now: Time) {
        self.phase = Phase::Arriving;
        self.released = false;
        self.migrating = false;
        self.arrived = None;
        self.refresh_at = Some(now + REFRESH);
        self.note(false, "is expected here");
        self.act(Kind::Prepare);
    }

    pub(super) fn abort(&mut self, why: &str) {
        self.phase = Phase::Aborted;
        self.refresh_at = None;
        self.note(false, &format!("does not come: {why}"));
        self.act(Kind::Abort);
    }

    /// It runs here now.
    fn resume(&mut self, now: Time) {
        self.look_at = None;
        match self.phase {
            Phase::Arriving => {
                self.phase = Phase::Running;
                self.refresh_at = None;
                self.arrived = Some(now);
                self.note(false, "runs here now");
                self.act(Kind::Activate);
                self.ask(Ask::RxFilter);
            }
            Phase::Leaving | Phase::Left => self.take_back(),
            Phase::Paused if self.released => self.take_back(),
            Phase::Unknown | Phase::Aborted | Phase::Paused => {
                self.phase = Phase::Running;
                self.stays();
            }
            Phase::Running | Phase::SplitBrain => {}
        }
    }

    /// It goes on here: what was held for it is its own.
    fn stays(&mut self) {
        if std::mem::take(&mut self.held) {
            self.act(Kind::Leave(Leave::Stays));
        }
    }

    fn take_back(&mut self) {
        let left = self.phase == Phase::Left;
        let released = std::mem::take(&mut self.released);
        self.stays();
        self.phase = Phase::Running;
        self.migrating = false;
        self.arrived = None;
        self.act(Kind::TakeBack { left, released });
    }

    /// Stopped for good, unless the migration fails in its last moment.
    fn leaving(&mut self, now: Time) {
        if !matches!(self.phase, Phase::Unknown | Phase::Running | Phase::Paused) {
            return;
        }
        self.phase = Phase::Leaving;
        self.migrating = true;
        self.look_at = Some(now + self.look_pause());
        if self.at_stop() {
            self.release(true);
        }
    }

    fn leave(&mut self) {
        self.phase = Phase::Left;
        self.migrating = false;
        self.held = false;
        self.look_at = None;
        self.arrived = None;
        self.note(false, "has left");
        self.release(self.at_stop());
    }

    fn at_stop(&self) -> bool {
        self.options.activate_at == ActivateAt::Stop
    }

    fn release(&mut self, at_stop: bool) {
        if !self.released {
            self.released = true;
            self.act(Kind::Release { at_stop });
        }
    }

    /// One wish per NIC that has a port; later, if the NICs are not known yet.
    pub(super) fn act(&mut self, kind: Kind) {
        if !self.nics_known {
            if kind == Kind::Abort {
                self.owed.clear();
            } else if self.owed.len() < MAX_OWED && self.owed.last() != Some(&kind) {
                self.owed.push(kind);
            }
            return;
        }
        for nic in &self.nics {
            let Backend::Port(port) = &nic.backend else { continue };
            let port = port.clone();
            let step = match kind {
                Kind::Prepare => Step::Prepare { port, at_stop: self.at_stop() },
                Kind::Activate => Step::Activate { port },
                Kind::Abort => Step::Abort,
                Kind::Release { at_stop } => Step::Release { at_stop },
                Kind::Leave(leave) => Step::Leave(leave),
                Kind::TakeBack { left, released } => Step::TakeBack { port, left, released },
                Kind::Recheck if !self.elsewhere.contains(&nic.mac) => continue,
                Kind::Recheck => Step::TakeBack { port, left: true, released: true },
            };
            self.out.push_back(Out::Wish(Wish { mac: nic.mac, step }));
        }
    }
}
